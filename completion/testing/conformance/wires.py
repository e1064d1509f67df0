"""What holds for a model that speaks HTTP, seen from its server's side as well."""

from __future__ import annotations

import gc
import json
import logging
import pickle
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from completion.contract.chunks import StreamChunk, TurnFinished
from completion.contract.errors import CompletionError, Permanent, Retryable, StreamCancelledError, Transient
from completion.contract.model import CompletionModel
from completion.contract.stream import ChatStream
from completion.testing.conformance.answers import broken, said
from completion.testing.conformance.subject import Aside, Stream, Subject, attempted, drained
from completion.testing.replies import Cut, Framing, Piece, Reply, Stall, WaitFor
from completion.testing.server import ProviderServer

RETRY_AFTER_S = 1.0

_ARRIVAL_S = 2.0
_AT_ONCE_S = 1.0
_MOMENT_S = 0.05
_STALL_S = 30.0
_MOST_CUTS = 50
_MOST_PIECES = 4000
_ELSEWHERE = "/elsewhere"
_FRAMINGS: tuple[Framing, ...] = ("chunked", "length", "close")
_HERE = str(Path(__file__).parent)


def events_to_first_chunk(subject: Subject) -> int:
    """How many events of the answer it takes to see a chunk, without its last event; 0 where none comes so early."""
    answer = subject.answer
    with subject.serving() as (server, model):
        for events in range(1, len(answer.events)):
            server.always(answer.begun(events))
            chunks, _ = _attempted_call(subject, model)
            if any(not isinstance(chunk, TurnFinished) for chunk in chunks):
                return events
    return 0


def _attempted_call(subject: Subject, model: CompletionModel) -> tuple[list[StreamChunk], Exception | None]:
    try:
        return attempted(subject.open(model))
    except Exception as error:
        return [], error


# --- refusals ----------------------------------------------------------------------------------------------------


def refusal(status: int, *, headers: dict[str, str] | None = None, words: str = "no") -> Reply:
    """An error in JSON, in the shape that most providers give it."""
    return Reply.json({"error": {"type": "error", "message": words}}, status, headers)


REDIRECT = Reply(status=302, content_type=None, headers={"Location": _ELSEWHERE}, framing="length")
HTML = Reply.text("<!DOCTYPE html><html><body>Sign in to the proxy</body></html>", "text/html")


def refuses(reply: Reply, verdict: Permanent | Transient | None = None) -> Callable[[Subject], Iterator[str]]:
    """The check that the call raises for this reply, and of its error says whether to try again."""

    def check(subject: Subject) -> Iterator[str]:
        with subject.serving(always=reply) as (server, model):
            yield from _faults_of_refusal(subject, model, verdict)
            if any(request.path.startswith(_ELSEWHERE) for request in server.requests):
                yield "the redirect was followed"

    return check


def refuses_without_a_server(subject: Subject) -> Iterator[str]:
    yield from _faults_of_refusal(subject, subject.model(_url_that_refuses()), None)


def _url_that_refuses() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


def _faults_of_refusal(
    subject: Subject, model: CompletionModel, expected: Permanent | Transient | None
) -> Iterator[str]:
    try:
        stream = subject.open(model)
    except Exception as error:
        if not isinstance(error, Retryable):
            yield f"the call raised {error!r}, which has no retry_classification()"
        elif expected is not None:
            verdict = error.retry_classification()
            wants_any_delay = expected == Transient()
            if verdict != expected and not (wants_any_delay and isinstance(verdict, Transient)):
                yield f"the call raised {error!r}, which says {verdict!r} and not {expected!r}"
        return
    chunks, late = attempted(stream)
    if late is not None:
        yield f"the call returned a stream, and next() raised {late!r}"
    else:
        yield f"the call returned a stream, which said {said(chunks)}"


def lets_go_of_refused_connections(subject: Subject) -> Iterator[str]:
    """Whether they are pooled or closed: those that stay open do not become more with every refusal."""
    errors = []
    with subject.serving(always=refusal(400)) as (server, model):
        counts: list[int] = []
        for _ in range(2):
            for _ in range(3):
                _, error = _attempted_call(subject, model)
                errors.append(error)  # an error that somebody keeps holds no connection either
            counts.append(_settled(server, counts[0], _AT_ONCE_S) if counts else _settled(server, 1, _MOMENT_S))
        if counts[1] > counts[0]:
            yield f"{counts[0]} connections were open after 3 calls, {counts[1]} after 6"


def _settled(server: ProviderServer, few: int, seconds: float) -> int:
    """How many connections are open: as soon as they are few, else after so many seconds."""
    ends_at = time.monotonic() + seconds
    while (count := server.open_connections) > few and time.monotonic() < ends_at:
        time.sleep(0.01)
    return count


# --- the key -----------------------------------------------------------------------------------------------------


def keeps_its_key_out_of_reprs(subject: Subject) -> Iterator[str]:
    with subject.serving(always=subject.answer.whole()) as (_, model):
        stream = subject.open(model)
        shows = {"repr(model)": repr(model), "str(model)": str(model), "repr(stream)": repr(stream)}
        shows |= {f"stream.{name}": _shown(value) for name, value in getattr(stream, "__dict__", {}).items()}
        yield from (f"{place} shows it" for place, text in shows.items() if subject.key in text)
        stream.close()


def keeps_its_key_out_of_urls(subject: Subject) -> Iterator[str]:
    with subject.serving(always=subject.answer.whole()) as (server, model):
        subject.read(model)
        yield from ("the request's path has it" for request in server.requests if subject.key in request.path)


def keeps_its_key_out_of_logs(subject: Subject) -> Iterator[str]:
    root, handler = logging.getLogger(), _Kept()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        for reply in (subject.answer.whole(), refusal(401, words=f"Incorrect API key provided: {subject.key}")):
            with subject.serving(always=reply) as (_, model):
                _attempted_call(subject, model)
    finally:
        root.setLevel(level)
        root.removeHandler(handler)
    yield from (f"the log has {text!r}" for text in handler.texts if subject.key in text)


class _Kept(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(f"{record.name}: {self.format(record)}")


def keeps_its_key_out_of_errors(subject: Subject) -> Iterator[str]:
    answer, key = subject.answer, subject.key
    echo = f"Incorrect API key provided: {key}"
    replies = {
        "a 401": refusal(401, words=echo),
        "a 500": Reply.text(echo, status=500),
        "a 200 with HTML": Reply.text(f"<html>{echo}</html>", "text/html"),
        "a cut body": answer.begun(subject.events_to_first_chunk, Cut()),
    }
    if answer.names_its_stream:
        replies["a bad event"] = answer.begun(subject.events_to_first_chunk, answer.event(f'{{"{echo}'))
    if answer.error is not None:
        replies["an error event"] = answer.begun(subject.events_to_first_chunk, answer.error(echo))
    for what, reply in replies.items():
        with subject.serving(always=reply) as (_, model):
            _, error = _attempted_call(subject, model)
            yield from (f"after {what} that echoes it, {place} shows it" for place in _places(error, key))
    _, error = _attempted_call(subject, subject.model(_url_that_refuses()))
    yield from (f"after a refused connection, {place} shows it" for place in _places(error, key))


def _places(error: BaseException | None, key: str) -> Iterator[str]:
    """Where the key stands in the error, in what it was raised from, and in the locals of their tracebacks."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        kind = type(error).__name__
        views = {"str()": str(error), "repr()": repr(error), "args": _shown(error.args), "vars()": _shown(vars(error))}
        yield from (f"{view} of {kind}" for view, text in views.items() if key in text)
        try:
            if key.encode() in pickle.dumps(error):
                yield f"the pickle of {kind}"
        except Exception as exc:
            if isinstance(error, CompletionError):  # others promise no more than retry_classification()
                yield f"{kind} does not pickle ({exc!r}), so that nobody knows whether it"
        trace = error.__traceback__
        while trace is not None:
            code = trace.tb_frame.f_code
            if not code.co_filename.startswith(_HERE):
                for name, value in list(trace.tb_frame.f_locals.items()):
                    if key in _shown(value):
                        yield f"the local {name!r} of {code.co_name}() in the traceback of {kind}"
            trace = trace.tb_next
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _shown(thing: object) -> str:
    """What a crash reporter shows of it, containers opened."""
    if isinstance(thing, dict):
        return " ".join(f"{_shown(name)} {_shown(value)}" for name, value in thing.items())
    if isinstance(thing, list | tuple | set):
        return " ".join(map(_shown, thing))
    return repr(thing)


# --- opening -----------------------------------------------------------------------------------------------------


def waits_for_the_headers(subject: Subject) -> Iterator[str]:
    go = threading.Event()
    reply = subject.answer.whole(before_headers=[WaitFor(go, _STALL_S)])
    with subject.serving(always=reply) as (_, model):
        calling = Aside(lambda: subject.open(model))
        if calling.ended_within(_MOMENT_S):
            yield f"the call gave {calling.error or calling.result!r} before them"
        go.set()
        calling.join()
        if calling.error is None:
            calling.result.close()


def knows_its_response(subject: Subject) -> Iterator[str]:
    with subject.serving(always=subject.answer.whole()) as (_, model):
        stream = subject.open(model)
        if isinstance(stream, ChatStream) and stream.response.status != 200:
            yield f"stream.response is {stream.response!r}"
        stream.close()


# --- reading -----------------------------------------------------------------------------------------------------


def reads_any_pieces(subject: Subject) -> Iterator[str]:
    answer, whole = subject.answer, said(subject.chunks)
    step = max(1, sum(map(len, answer.events)) // _MOST_PIECES)
    with subject.serving() as (server, model):
        for framing in _FRAMINGS:
            for split in (None, step):
                server.always(answer.whole(split=split, framing=framing))
                chunks, error = _attempted_call(subject, model)
                if error is not None or said(chunks) != whole:
                    pieces = "its events" if split is None else f"pieces of {split} bytes"
                    told = repr(error) if error is not None else f"{said(chunks)} instead of {whole}"
                    yield f"of a body in {pieces}, framing {framing!r}, came {told}"


def gives_chunks_as_they_arrive(subject: Subject) -> Iterator[str]:
    if subject.events_to_first_chunk:
        with _stalled(subject) as (_, stream):
            if not stream:
                yield f"no chunk came within {_ARRIVAL_S:g} s of its event, while the body went on"
                subject.events_to_first_chunk = 0  # so that the checks that follow do not wait for one


@contextmanager
def _stalled(subject: Subject, *, reads: bool = True) -> Iterator[tuple[ProviderServer, list[Stream]]]:
    """A stream of a server that falls silent, its first chunk read if wanted; none where that does not come in time.

    In a list, so that a check can drop it.
    """
    events = subject.events_to_first_chunk
    reply = subject.answer.begun(events or len(subject.answer.events) - 1, Stall(_STALL_S))
    opened: list[Stream] = []
    with subject.serving(always=reply) as (server, model):
        opening = Aside(lambda: opened.append(_begun(subject, model, reads and events > 0)))
        has_come = opening.ended_within(_ARRIVAL_S) and opening.error is None
        yield server, opened if has_come else []


def _begun(subject: Subject, model: CompletionModel, reads: bool) -> Stream:
    stream = subject.open(model)
    if reads:
        next(stream)
    return stream


def reads_what_was_said(subject: Subject) -> Iterator[str]:
    """Of the wires that the kit knows: it made the answer."""
    answer = subject.answer
    if answer.says is not None:
        if said(subject.chunks) != list(answer.says):
            yield f"of {list(answer.says)} the stream said {said(subject.chunks)}"
        for chunk in subject.chunks:
            if isinstance(chunk, TurnFinished) and chunk.usage != answer.usage:
                yield f"the usage was {chunk.usage!r} instead of {answer.usage!r}"


def sends_what_was_asked(subject: Subject) -> Iterator[str]:
    """Of the wires that the kit knows: they carry the request as JSON."""
    asked = subject.request.messages[-1].text
    with subject.serving(always=subject.answer.whole()) as (server, model):
        subject.read(model)
        if subject.answer.says is not None:
            sent = json.dumps(server.requests[0].json(), ensure_ascii=False)
            if json.dumps(asked, ensure_ascii=False)[1:-1] not in sent:
                yield f"the request has no {asked!r}: {sent[:200]}"


def its_copy_keeps_the_key(subject: Subject) -> Iterator[str]:
    with subject.serving(always=subject.answer.whole()) as (server, model):
        subject.read(model)
        with suppress(Exception):  # that is a promise of its own
            subject.read(pickle.loads(pickle.dumps(model)))
        has_key = [any(subject.key in value for value in request.headers.values()) for request in server.requests]
        if has_key[0] and not all(has_key):
            yield "the model sent it, its copy did not"


def raises_when_short(subject: Subject) -> Iterator[str]:
    yield from _faults_of_cuts(subject)


def raises_when_cut(subject: Subject) -> Iterator[str]:
    yield from _faults_of_cuts(subject, Cut())


def _faults_of_cuts(subject: Subject, *then: Piece) -> Iterator[str]:
    answer, whole = subject.answer, said(subject.chunks)
    size = len(answer.events)
    with subject.serving() as (server, model):
        for events in range(0, size, max(1, size // _MOST_CUTS)):
            server.always(answer.begun(events, *then))
            where = f"after {events} of {size} events"
            try:
                stream = subject.open(model)
            except Exception as error:
                # Where the type says nothing, the first bytes may tell at the call whether it is a stream at all.
                if events or answer.names_its_stream:
                    yield f"{where} it was the call that raised {error!r}, and not next()"
                continue
            chunks, raised = attempted(stream)
            has_ended = any(isinstance(chunk, TurnFinished) for chunk in chunks)
            is_early = answer.end is not None and events <= answer.end
            if (raised is None or has_ended) and (is_early or said(chunks) != whole):
                yield f"{where} the stream ended as if it were whole, and said {said(chunks)}"


def raises_for_bad_events(subject: Subject) -> Iterator[str]:
    answer, first = subject.answer, subject.events_to_first_chunk
    for number, good in enumerate(answer.events):
        bad = broken(good)
        if number >= first and bad is not None:
            reply = answer.begun(number, bad, *answer.events[number + 1 :])
            with subject.serving(always=reply) as (_, model):
                chunks, error = attempted(subject.open(model))
                if error is None:
                    yield f"of the event {bad!r} nothing was told; the stream said {said(chunks)}"
            return


def raises_for_errors_in_band(subject: Subject) -> Iterator[str]:
    """Checked where the kit knows the wire, or the author gave ``error=``."""
    if subject.answer.error is not None:
        error_event = subject.answer.error("The server is overloaded")
        for number in range(len(subject.answer.events)):
            reply = subject.answer.begun(number, error_event)
            with subject.serving(always=reply) as (_, model):
                chunks, error = _attempted_call(subject, model)
                if error is None:
                    yield f"after {number} events came {error_event!r}, and the stream said {said(chunks)}"


def is_over_after_an_error(subject: Subject) -> Iterator[str]:
    events = subject.events_to_first_chunk
    with subject.serving(always=subject.answer.begun(events, Cut())) as (_, model):
        stream = subject.open(model)
        chunks, error = attempted(stream)
        if error is None:
            return  # another promise
        if events and not chunks:
            yield f"next() raised {error!r} at once, and the chunks before were lost"
        for _ in range(2):
            after, again = attempted(stream)
            if after or again is not None:
                yield f"after {error!r} next() gave {again or after[0]!r}"


def classifies_errors(subject: Subject) -> Iterator[str]:
    with subject.serving(always=subject.answer.begun(subject.events_to_first_chunk, Cut())) as (_, model):
        _, error = _attempted_call(subject, model)
        if error is not None and not isinstance(error, Retryable):
            yield f"of a broken connection came {error!r}, which has no retry_classification()"


# --- hanging up --------------------------------------------------------------------------------------------------


def hangs_up_when_closed(subject: Subject) -> Iterator[str]:
    for reads in (False, True):
        with _stalled(subject, reads=reads) as (server, streams):
            if streams:
                streams[0].close()
                if not _has_hung_up(server):
                    yield _not_hung_up("after" if reads else "before")
                    return


def hangs_up_when_dropped(subject: Subject) -> Iterator[str]:
    for reads in (False, True):
        with _stalled(subject, reads=reads) as (server, streams):
            if streams:
                streams.clear()
                if not server.wait_hung_up(_MOMENT_S):
                    gc.collect()
                if not _has_hung_up(server):
                    yield _not_hung_up("after" if reads else "before")
                    return


def hangs_up_when_cancelled(subject: Subject) -> Iterator[str]:
    with _stalled(subject) as (server, streams):
        if not streams or not hasattr(streams[0], "cancel"):
            return
        reading = Aside(lambda: drained(streams[0]))
        time.sleep(_MOMENT_S)  # there is nothing to see of a blocked read; before it, cancel() works as well
        streams[0].cancel()
        if not reading.ended_within(_AT_ONCE_S):
            yield f"next() was still blocked {_AT_ONCE_S:g} s after cancel()"
            return
        if not isinstance(reading.error, StreamCancelledError):
            yield f"next() gave {reading.error or reading.result!r} and no StreamCancelledError"
        if not _has_hung_up(server):
            yield _not_hung_up("after")


def _has_hung_up(server: ProviderServer) -> bool:
    # Who has not asked yet has nothing to hang up, and breaks another promise.
    return not server.requests or server.wait_hung_up(_AT_ONCE_S)


def _not_hung_up(when: str) -> str:
    return f"{when} the first chunk, the server did not see the connection close within {_AT_ONCE_S:g} s"
