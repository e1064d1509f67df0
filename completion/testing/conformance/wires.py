"""The checks of PROMISES_OF_THE_WIRE, for a model that talks to a server of the kit.

Each yields a description of every fault that it finds, in what the model does and in what the server sees.
"""

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
from completion.testing.conformance.answers import break_json, contents_of
from completion.testing.conformance.subject import Stream, Subject, ThreadedCall, read_all, read_until_error
from completion.testing.replies import Cut, Framing, Piece, Reply, Stall, WaitFor
from completion.testing.server import ProviderServer

RETRY_AFTER_S = 1.0

_ARRIVAL_S = 2.0
_REACTION_S = 1.0
_SHORT_WAIT_S = 0.05
_STALL_S = 30.0
_MAX_CUTS = 50
_MAX_PIECES = 4000
_REDIRECT_PATH = "/elsewhere"
_FRAMINGS: tuple[Framing, ...] = ("chunked", "length", "close")
_HERE = str(Path(__file__).parent)


def events_to_first_chunk(subject: Subject) -> int:
    """How many events of the answer it takes to get a chunk; 0 if no chunk comes before the last event."""
    answer = subject.answer
    with subject.serving() as (server, model):
        for events in range(1, len(answer.events)):
            server.always(answer.beginning(events))
            chunks, _ = _call_and_read(subject, model)
            if any(not isinstance(chunk, TurnFinished) for chunk in chunks):
                return events
    return 0


def _call_and_read(subject: Subject, model: CompletionModel) -> tuple[list[StreamChunk], Exception | None]:
    try:
        return read_until_error(subject.open(model))
    except Exception as error:
        return [], error


# --- refusals ----------------------------------------------------------------------------------------------------


def refusal(status: int, *, headers: dict[str, str] | None = None, words: str = "no") -> Reply:
    """An error body in the form that most providers use."""
    return Reply.json({"error": {"type": "error", "message": words}}, status, headers)


REDIRECT = Reply(status=302, content_type=None, headers={"Location": _REDIRECT_PATH}, framing="length")
HTML = Reply.text("<!DOCTYPE html><html><body>Sign in to the proxy</body></html>", "text/html")


def refuses(reply: Reply, expected: Permanent | Transient | None = None) -> Callable[[Subject], Iterator[str]]:
    """A check that the call raises for this reply, with this retry_classification(); None is any."""

    def check(subject: Subject) -> Iterator[str]:
        with subject.serving(always=reply) as (server, model):
            yield from _faults_of_refusal(subject, model, expected)
            if any(request.path.startswith(_REDIRECT_PATH) for request in server.requests):
                yield "the redirect was followed"

    return check


def refuses_without_a_server(subject: Subject) -> Iterator[str]:
    yield from _faults_of_refusal(subject, subject.model(_refusing_url()), None)


def _refusing_url() -> str:
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
            accepts_any_delay = expected == Transient()
            if verdict != expected and not (accepts_any_delay and isinstance(verdict, Transient)):
                yield f"the call raised {error!r}, whose retry_classification() is {verdict!r} instead of {expected!r}"
        return
    chunks, late = read_until_error(stream)
    if late is not None:
        yield f"the call returned a stream, and next() raised {late!r}"
    else:
        yield f"the call returned a stream with {contents_of(chunks)}"


def keeps_no_refused_connection(subject: Subject) -> Iterator[str]:
    """Connections may be kept for later calls, but their number must not grow with each refusal."""
    errors = []
    with subject.serving(always=refusal(400)) as (server, model):
        counts: list[int] = []
        for _ in range(2):
            for _ in range(3):
                _, error = _call_and_read(subject, model)
                errors.append(error)  # an error that is still referenced must not keep a connection either
            counts.append(_settled(server, counts[0], _REACTION_S) if counts else _settled(server, 1, _SHORT_WAIT_S))
        if counts[1] > counts[0]:
            yield f"{counts[0]} connections were open after 3 calls, {counts[1]} after 6"


def _settled(server: ProviderServer, few: int, seconds: float) -> int:
    """How many connections are open, once there are no more than `few` or after `seconds`."""
    ends_at = time.monotonic() + seconds
    while (count := server.open_connections) > few and time.monotonic() < ends_at:
        time.sleep(0.01)
    return count


# --- the key -----------------------------------------------------------------------------------------------------


def hides_its_key_in_reprs(subject: Subject) -> Iterator[str]:
    with subject.serving(always=subject.answer.complete()) as (_, model):
        stream = subject.open(model)
        shows = {"repr(model)": repr(model), "str(model)": str(model), "repr(stream)": repr(stream)}
        shows |= {f"stream.{name}": _deep_repr(value) for name, value in getattr(stream, "__dict__", {}).items()}
        yield from (f"{place} shows the key" for place, text in shows.items() if subject.key in text)
        stream.close()


def hides_its_key_in_urls(subject: Subject) -> Iterator[str]:
    with subject.serving(always=subject.answer.complete()) as (server, model):
        subject.read(model)
        yield from ("the path of the request contains it" for request in server.requests if subject.key in request.path)


def hides_its_key_in_logs(subject: Subject) -> Iterator[str]:
    root, handler = logging.getLogger(), _KeepingHandler()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        for reply in (subject.answer.complete(), refusal(401, words=f"Incorrect API key provided: {subject.key}")):
            with subject.serving(always=reply) as (_, model):
                _call_and_read(subject, model)
    finally:
        root.setLevel(level)
        root.removeHandler(handler)
    yield from (f"the log contains {text!r}" for text in handler.texts if subject.key in text)


class _KeepingHandler(logging.Handler):
    """Keeps the log records as text."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(f"{record.name}: {self.format(record)}")


def hides_its_key_in_errors(subject: Subject) -> Iterator[str]:
    answer, key = subject.answer, subject.key
    echo = f"Incorrect API key provided: {key}"
    replies = {
        "a 401": refusal(401, words=echo),
        "a 500": Reply.text(echo, status=500),
        "a 200 with HTML": Reply.text(f"<html>{echo}</html>", "text/html"),
        "a cut body": answer.beginning(subject.events_to_first_chunk, Cut()),
    }
    if answer.names_its_stream:
        replies["a bad event"] = answer.beginning(subject.events_to_first_chunk, answer.event(f'{{"{echo}'))
    if answer.error is not None:
        replies["an error event"] = answer.beginning(subject.events_to_first_chunk, answer.error(echo))
    for what, reply in replies.items():
        with subject.serving(always=reply) as (_, model):
            _, error = _call_and_read(subject, model)
            yield from (f"after {what} that echoes the key, {place} shows it" for place in _places_of_key(error, key))
    _, error = _call_and_read(subject, subject.model(_refusing_url()))
    yield from (f"after a refused connection, {place} shows it" for place in _places_of_key(error, key))


def _places_of_key(error: BaseException | None, key: str) -> Iterator[str]:
    """Where the error, its causes and the local variables of their tracebacks contain the key."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        kind = type(error).__name__
        views = {
            "str()": str(error),
            "repr()": repr(error),
            "args": _deep_repr(error.args),
            "vars()": _deep_repr(vars(error)),
        }
        yield from (f"{view} of {kind}" for view, text in views.items() if key in text)
        try:
            if key.encode() in pickle.dumps(error):
                yield f"the pickle of {kind}"
        except Exception as exc:
            if isinstance(error, CompletionError):  # other errors only need a retry_classification()
                yield f"{kind} does not pickle ({exc!r}), so it is unknown whether its pickle"
        traceback = error.__traceback__
        while traceback is not None:
            code = traceback.tb_frame.f_code
            if not code.co_filename.startswith(_HERE):
                for name, value in list(traceback.tb_frame.f_locals.items()):
                    if key in _deep_repr(value):
                        yield f"the local {name!r} of {code.co_name}() in the traceback of {kind}"
            traceback = traceback.tb_next
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _deep_repr(value: object) -> str:
    """The repr that a crash reporter shows, with the items of containers."""
    if isinstance(value, dict):
        return " ".join(f"{_deep_repr(name)} {_deep_repr(item)}" for name, item in value.items())
    if isinstance(value, list | tuple | set):
        return " ".join(map(_deep_repr, value))
    return repr(value)


# --- opening -----------------------------------------------------------------------------------------------------


def waits_for_the_headers(subject: Subject) -> Iterator[str]:
    go = threading.Event()
    reply = subject.answer.complete(before_headers=[WaitFor(go, _STALL_S)])
    with subject.serving(always=reply) as (_, model):
        call = ThreadedCall(lambda: subject.open(model))
        if call.ended_within(_SHORT_WAIT_S):
            yield f"the call ended with {call.error or call.result!r} before them"
        go.set()
        call.join()
        if call.error is None:
            call.result.close()


def has_its_response(subject: Subject) -> Iterator[str]:
    with subject.serving(always=subject.answer.complete()) as (_, model):
        stream = subject.open(model)
        if isinstance(stream, ChatStream) and stream.response.status != 200:
            yield f"stream.response is {stream.response!r}"
        stream.close()


# --- reading -----------------------------------------------------------------------------------------------------


def reads_any_pieces(subject: Subject) -> Iterator[str]:
    answer, complete = subject.answer, contents_of(subject.chunks)
    step = max(1, sum(map(len, answer.events)) // _MAX_PIECES)
    with subject.serving() as (server, model):
        for framing in _FRAMINGS:
            for split in (None, step):
                server.always(answer.complete(split=split, framing=framing))
                chunks, error = _call_and_read(subject, model)
                if error is not None or contents_of(chunks) != complete:
                    pieces = "its events" if split is None else f"pieces of {split} bytes"
                    got = repr(error) if error is not None else f"{contents_of(chunks)} instead of {complete}"
                    yield f"a body in {pieces}, framing {framing!r}, became {got}"


def yields_chunks_as_they_arrive(subject: Subject) -> Iterator[str]:
    if subject.events_to_first_chunk:
        with _stalled_stream(subject) as (_, stream):
            if not stream:
                yield f"no chunk came within {_ARRIVAL_S:g} s of its event, while the body continued"
                subject.events_to_first_chunk = 0  # later checks need not wait for one


@contextmanager
def _stalled_stream(subject: Subject, *, reads: bool = True) -> Iterator[tuple[ProviderServer, list[Stream]]]:
    """A stream whose server stops sending, with its first chunk read if ``reads``.

    It is in a list, so that a check can drop it. The list is empty if the stream or its first chunk does not come in
    time.
    """
    events = subject.events_to_first_chunk
    reply = subject.answer.beginning(events or len(subject.answer.events) - 1, Stall(_STALL_S))
    opened: list[Stream] = []
    with subject.serving(always=reply) as (server, model):
        opening = ThreadedCall(lambda: opened.append(_open_and_read(subject, model, reads and events > 0)))
        is_ready = opening.ended_within(_ARRIVAL_S) and opening.error is None
        yield server, opened if is_ready else []


def _open_and_read(subject: Subject, model: CompletionModel, reads: bool) -> Stream:
    stream = subject.open(model)
    if reads:
        next(stream)
    return stream


def reads_the_answer(subject: Subject) -> Iterator[str]:
    """Only for the wires that the kit knows: it has to know the contents of the answer."""
    answer = subject.answer
    if answer.contents is not None:
        if contents_of(subject.chunks) != list(answer.contents):
            yield f"the stream has {contents_of(subject.chunks)} instead of {list(answer.contents)}"
        for chunk in subject.chunks:
            if isinstance(chunk, TurnFinished) and chunk.usage != answer.usage:
                yield f"the usage was {chunk.usage!r} instead of {answer.usage!r}"


def sends_the_prompt(subject: Subject) -> Iterator[str]:
    """Only for the wires that the kit knows: their requests are JSON."""
    prompt = subject.request.messages[-1].text
    with subject.serving(always=subject.answer.complete()) as (server, model):
        subject.read(model)
        if subject.answer.contents is not None:
            sent = json.dumps(server.requests[0].json(), ensure_ascii=False)
            if json.dumps(prompt, ensure_ascii=False)[1:-1] not in sent:
                yield f"the request does not contain {prompt!r}: {sent[:200]}"


def copies_its_key(subject: Subject) -> Iterator[str]:
    with subject.serving(always=subject.answer.complete()) as (server, model):
        subject.read(model)
        with suppress(Exception):  # streams.pickles checks this
            subject.read(pickle.loads(pickle.dumps(model)))
        has_key = [any(subject.key in value for value in request.headers.values()) for request in server.requests]
        if has_key[0] and not all(has_key):
            yield "the model sent it, but its copy did not"


def raises_for_short_bodies(subject: Subject) -> Iterator[str]:
    yield from _faults_of_cuts(subject)


def raises_for_broken_connections(subject: Subject) -> Iterator[str]:
    yield from _faults_of_cuts(subject, Cut())


def _faults_of_cuts(subject: Subject, *then: Piece) -> Iterator[str]:
    answer, complete = subject.answer, contents_of(subject.chunks)
    size = len(answer.events)
    with subject.serving() as (server, model):
        for events in range(0, size, max(1, size // _MAX_CUTS)):
            server.always(answer.beginning(events, *then))
            where = f"after {events} of {size} events"
            try:
                stream = subject.open(model)
            except Exception as error:
                # Without the type text/event-stream, the call may read the first bytes to recognize a stream.
                if events or answer.names_its_stream:
                    yield f"{where} the call raised {error!r}, and not next()"
                continue
            chunks, raised = read_until_error(stream)
            has_ended = any(isinstance(chunk, TurnFinished) for chunk in chunks)
            is_early = answer.end is not None and events <= answer.end
            if (raised is None or has_ended) and (is_early or contents_of(chunks) != complete):
                yield f"{where} the stream ended without an error, with {contents_of(chunks)}"


def raises_for_bad_events(subject: Subject) -> Iterator[str]:
    answer, first = subject.answer, subject.events_to_first_chunk
    for number, good in enumerate(answer.events):
        bad = break_json(good)
        if number >= first and bad is not None:
            reply = answer.beginning(number, bad, *answer.events[number + 1 :])
            with subject.serving(always=reply) as (_, model):
                chunks, error = read_until_error(subject.open(model))
                if error is None:
                    yield f"the event {bad!r} raised no error; the stream has {contents_of(chunks)}"
            return


def raises_for_error_events(subject: Subject) -> Iterator[str]:
    """Only for the wires that the kit knows, and where the author gave ``error=``."""
    if subject.answer.error is not None:
        error_event = subject.answer.error("The server is overloaded")
        for number in range(len(subject.answer.events)):
            reply = subject.answer.beginning(number, error_event)
            with subject.serving(always=reply) as (_, model):
                chunks, error = _call_and_read(subject, model)
                if error is None:
                    got = contents_of(chunks)
                    yield f"after {number} events {error_event!r} raised no error; the stream has {got}"


def ends_after_an_error(subject: Subject) -> Iterator[str]:
    events = subject.events_to_first_chunk
    with subject.serving(always=subject.answer.beginning(events, Cut())) as (_, model):
        stream = subject.open(model)
        chunks, error = read_until_error(stream)
        if error is None:
            return  # other checks find this
        if events and not chunks:
            yield f"next() raised {error!r} first, and the chunks before it were lost"
        for _ in range(2):
            after, again = read_until_error(stream)
            if after or again is not None:
                yield f"after {error!r} next() ended with {again or after[0]!r}"


def classifies_errors(subject: Subject) -> Iterator[str]:
    with subject.serving(always=subject.answer.beginning(subject.events_to_first_chunk, Cut())) as (_, model):
        _, error = _call_and_read(subject, model)
        if error is not None and not isinstance(error, Retryable):
            yield f"a broken connection raised {error!r}, which has no retry_classification()"


# --- closing the connection ------------------------------------------------------------------------------------


def hangs_up_when_closed(subject: Subject) -> Iterator[str]:
    for reads in (False, True):
        with _stalled_stream(subject, reads=reads) as (server, streams):
            if streams:
                streams[0].close()
                if not _has_hung_up(server):
                    yield _still_connected("after" if reads else "before")
                    return


def hangs_up_when_dropped(subject: Subject) -> Iterator[str]:
    for reads in (False, True):
        with _stalled_stream(subject, reads=reads) as (server, streams):
            if streams:
                streams.clear()
                if not server.wait_hung_up(_SHORT_WAIT_S):
                    gc.collect()
                if not _has_hung_up(server):
                    yield _still_connected("after" if reads else "before")
                    return


def hangs_up_when_cancelled(subject: Subject) -> Iterator[str]:
    with _stalled_stream(subject) as (server, streams):
        if not streams or not hasattr(streams[0], "cancel"):
            return
        reading = ThreadedCall(lambda: read_all(streams[0]))
        time.sleep(_SHORT_WAIT_S)  # a blocked read cannot be seen; if it has not begun, cancel() works too
        streams[0].cancel()
        if not reading.ended_within(_REACTION_S):
            yield f"next() was still blocked {_REACTION_S:g} s after cancel()"
            return
        if not isinstance(reading.error, StreamCancelledError):
            yield f"next() ended with {reading.error or reading.result!r} instead of StreamCancelledError"
        if not _has_hung_up(server):
            yield _still_connected("after")


def _has_hung_up(server: ProviderServer) -> bool:
    # A model that has not sent the request has no connection to close. Other checks find that fault.
    return not server.requests or server.wait_hung_up(_REACTION_S)


def _still_connected(when: str) -> str:
    return f"{when} the first chunk, the server did not see the connection close within {_REACTION_S:g} s"
