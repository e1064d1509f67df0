"""What holds for every model, wherever its answers come from: each function yields what it saw of a broken promise."""

from __future__ import annotations

import json
import os
import pickle
import re
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager, suppress
from typing import Any

from completion.contract.cancel import CancelToken
from completion.contract.chunks import (
    ReasoningDelta,
    ReasoningFinished,
    StreamChunk,
    ToolCallArgsDelta,
    ToolCallFinished,
    ToolCallMalformed,
    ToolCallStarted,
    TurnFinished,
    Usage,
)
from completion.contract.errors import StreamCancelledError
from completion.contract.model import CompletionModel
from completion.contract.stream import ChatStream
from completion.testing.conformance.answers import said
from completion.testing.conformance.subject import Aside, Stream, Subject, attempted, drained

THREADS = 4
_MEETING_S = 2.0
_CANCEL_S = 1.0
_HANG_UP_S = 3.0
_STREAMS = 3
_SECRET_NAME = re.compile(r"(?i)key|token|secret|password|credential")
_LEAST_SECRET = 8

_IN_CALL = (ToolCallArgsDelta, ToolCallFinished, ToolCallMalformed)


def answers(subject: Subject) -> Iterator[str]:
    """The check before the others: they look at the chunks that it leaves in the subject."""
    if not subject.has_server:
        subject.chunks = subject.read(subject.model())
    else:
        with subject.serving(always=subject.answer.whole()) as (server, model):
            subject.chunks, error = attempted(subject.open(model))
            if not server.requests:
                yield f"the model sent no request to the server at {server.url}"
            if error is not None:
                yield f"of a good answer next() raised {error!r}"
    if not subject.chunks:
        yield "the stream gave no chunk"


# --- the model ---------------------------------------------------------------------------------------------------


def has_name_and_model(subject: Subject) -> Iterator[str]:
    with subject.answering() as model:
        before = _names(model)
        for attribute, value in before.items():
            if not isinstance(value, str) or not value:
                yield f"{attribute} is {value!r}"
        subject.read(model)
        after = _names(model)
        if after != before:
            yield f"{before} was {after} after a call"


def _names(model: object) -> dict[str, Any]:
    return {attribute: getattr(model, attribute, None) for attribute in ("name", "model")}


def returns_a_generator(subject: Subject) -> Iterator[str]:
    with subject.answering() as model:
        stream = subject.open(model)
        kind = type(stream).__name__
        if not isinstance(stream, Generator):
            yield f"chat_stream returned {kind}, which has not all of __next__, send, throw and close"
        if hasattr(stream, "__aiter__"):
            yield f"{kind} is an async iterable as well"
        stream.close()


def refuses_at_the_call(subject: Subject) -> Iterator[str]:
    for wrong in (None, object()):
        with subject.answering() as model:
            try:
                stream = model.chat_stream(wrong)  # type: ignore[arg-type]
            except Exception:
                continue
            # Who does not look at the request answers: then there was no error to raise.
            _, error = attempted(stream)
            if error is not None:
                yield f"chat_stream({wrong!r}) returned a stream, and next() raised {error!r}"


def keeps_threads_apart(subject: Subject) -> Iterator[str]:
    """All streams are open before one is read, and they are read in step at first."""
    if subject.has_server:
        replies = [subject.answers(f"number {number}").whole() for number in range(THREADS)]
        with subject.serving(*replies, *replies) as (_, model):
            wanted = [said(subject.read(model)) for _ in range(THREADS)]
            got, errors = _in_threads(subject, model)
            yield from (f"a thread's stream raised {error!r}" for error in errors)
            for chunks in got:
                if said(chunks) not in wanted:
                    yield f"a thread read {said(chunks)}"
                else:
                    wanted.remove(said(chunks))
    else:
        with subject.answering() as model:
            got, errors = _in_threads(subject, model)
            yield from (f"a thread's stream raised {error!r}" for error in errors)
            for chunks in got:
                if _shape(chunks) != _shape(subject.chunks):
                    yield f"a thread read {said(chunks)}"


def _shape(chunks: list[StreamChunk]) -> tuple[object, ...]:
    """What answers that may differ in their words have in common, good or bad."""
    ends = [isinstance(chunk, TurnFinished) for chunk in chunks]
    return sum(ends), ends[-1:], any(_faults_of_calls(chunks))


def _in_threads(subject: Subject, model: CompletionModel) -> tuple[list[list[StreamChunk]], list[BaseException]]:
    meeting = threading.Barrier(THREADS)

    def meet() -> None:
        with suppress(threading.BrokenBarrierError):  # who fails, or serves one at a time, holds up nobody
            meeting.wait(_MEETING_S)

    def read() -> list[StreamChunk]:
        stream = subject.open(model)
        chunks = []
        for _ in range(3):
            meet()
            chunks += [chunk for chunk in [next(stream, None)] if chunk is not None]
        return chunks + drained(stream)

    threads = [Aside(read) for _ in range(THREADS)]
    for thread in threads:
        thread.join()
    failed = [thread.error for thread in threads if thread.error is not None]
    return [thread.result for thread in threads if thread.error is None], failed


def pickles(subject: Subject) -> Iterator[str]:
    with subject.answering() as model:
        try:
            copy: CompletionModel = pickle.loads(pickle.dumps(model))
        except Exception as error:
            yield f"pickling raised {error!r}"
            return
        if _names(copy) != _names(model):
            yield f"{_names(model)} became {_names(copy)}"
        try:
            chunks = subject.read(copy)
        except Exception as error:
            yield f"the copy raised {error!r}"
            return
        if subject.has_server and said(chunks) != said(subject.chunks):
            yield f"the copy said {said(chunks)} instead of {said(subject.chunks)}"


# --- the chunks --------------------------------------------------------------------------------------------------


def gives_chunks_only(subject: Subject) -> Iterator[str]:
    for chunk in subject.chunks:
        if not isinstance(chunk, StreamChunk):
            yield f"the stream gave {chunk!r}"


def ends_with_turn_finished(subject: Subject) -> Iterator[str]:
    ends = [number for number, chunk in enumerate(subject.chunks) if isinstance(chunk, TurnFinished)]
    if len(ends) != 1:
        yield f"there were {len(ends)} of them"
    if subject.chunks and ends[-1:] != [len(subject.chunks) - 1]:
        yield f"the last chunk was {subject.chunks[-1]!r}"


def stays_at_its_end(subject: Subject) -> Iterator[str]:
    with subject.answering() as model:
        stream = subject.open(model)
        drained(stream)
        yield from _is_over(stream)


def _is_over(stream: Stream) -> Iterator[str]:
    for _ in range(2):
        try:
            yield f"next() gave {next(stream)!r}"
        except StopIteration:
            pass
        except Exception as error:
            yield f"next() raised {error!r}"


def closes_calls(subject: Subject) -> Iterator[str]:
    yield from _faults_of_calls(subject.chunks)


def _faults_of_calls(chunks: Iterable[StreamChunk]) -> Iterator[str]:
    opened: ToolCallStarted | None = None
    for chunk in chunks:
        if isinstance(chunk, _IN_CALL):
            if opened is None:
                yield f"{chunk!r} outside of a call"
            elif chunk.call_id != opened.call_id or getattr(chunk, "name", opened.name) != opened.name:
                yield f"{chunk!r} inside of {opened!r}"
            if not isinstance(chunk, ToolCallArgsDelta):
                opened = None
        elif opened is not None:
            yield f"{chunk!r} before the end of {opened!r}"
        if isinstance(chunk, ToolCallStarted):
            opened = chunk
    if opened is not None:
        yield f"{opened!r} was never closed"


def closes_reasoning(subject: Subject) -> Iterator[str]:
    is_open = False
    for chunk in subject.chunks:
        if is_open and not isinstance(chunk, ReasoningDelta | ReasoningFinished):
            yield f"{chunk!r} inside of reasoning"
            is_open = False
        if isinstance(chunk, ReasoningDelta | ReasoningFinished):
            is_open = isinstance(chunk, ReasoningDelta)
    if is_open:
        yield "reasoning was never closed"


def gives_no_empty_delta(subject: Subject) -> Iterator[str]:
    for chunk in subject.chunks:
        if isinstance(chunk, StreamChunk) and not getattr(chunk, "delta", "-"):
            yield f"the stream gave {chunk!r}"


def gives_unique_call_ids(subject: Subject) -> Iterator[str]:
    seen: set[str] = set()
    for chunk in subject.chunks:
        if isinstance(chunk, ToolCallStarted):
            if not chunk.call_id or chunk.call_id in seen:
                yield f"{chunk!r}, after the ids {sorted(seen)}"
            seen.add(chunk.call_id)


def gives_the_arguments_piece_by_piece(subject: Subject) -> Iterator[str]:
    deltas: list[str] = []
    for chunk in subject.chunks:
        match chunk:
            case ToolCallStarted():
                deltas = []
            case ToolCallArgsDelta(delta=delta):
                deltas.append(delta)
            case ToolCallMalformed(raw=raw) if raw != "".join(deltas):
                yield f"{chunk!r} after {''.join(deltas)!r}"
            case ToolCallFinished(args=args) if _parsed("".join(deltas)) != args:
                yield f"{chunk!r} after {''.join(deltas)!r}"


def _parsed(raw: str) -> Any:
    try:
        return json.loads(raw) if raw.strip() else {}
    except ValueError:
        return None


def counts_totals(subject: Subject) -> Iterator[str]:
    for chunk in subject.chunks:
        if isinstance(chunk, TurnFinished) and chunk.usage is not None:
            yield from _faults_of_usage(chunk.usage)


def _faults_of_usage(usage: Usage) -> Iterator[str]:
    if usage.input_tokens < usage.cached_input_tokens + usage.cache_creation_input_tokens:
        yield f"the input is less than its cached parts in {usage!r}"
    if usage.cache_creation_input_tokens < usage.cache_creation_5m_tokens + usage.cache_creation_1h_tokens:
        yield f"the cache creation is less than its parts in {usage!r}"
    if usage.output_tokens < usage.reasoning_tokens:
        yield f"the output is less than its reasoning in {usage!r}"


def round_trips_through_json(subject: Subject) -> Iterator[str]:
    for chunk in subject.chunks:
        if isinstance(chunk, StreamChunk):
            try:
                copy = StreamChunk.from_json(chunk.to_json())
            except Exception as error:
                yield f"{chunk!r} raised {error!r}"
            else:
                if copy != chunk:
                    yield f"{chunk!r} became {copy!r}"


# --- ending early ------------------------------------------------------------------------------------------------


def closes_early(subject: Subject) -> Iterator[str]:
    with subject.answering() as model:
        for reads in (0, 1):
            stream = subject.open(model)
            for _ in range(reads):
                next(stream)
            yield from _raised("close()", stream.close)
            yield from _raised("the second close()", stream.close)
            yield from _is_over(stream)


def closes_its_connections(subject: Subject) -> Iterator[str]:
    """Of a model that answers by itself, as far as this process shows it: one may be kept for the next call, and a
    server in this process has a socket for each as well."""
    before = _sockets()
    if subject.has_server or before is None:
        return
    with subject.answering() as model:
        kept = []  # who drops a stream might hang up for that reason
        for _ in range(_STREAMS):
            stream = subject.open(model)
            kept.append(stream)
            next(stream)
            stream.close()
        ends_at = time.monotonic() + _HANG_UP_S
        while (left := len((_sockets() or before) - before)) > 2 and time.monotonic() < ends_at:
            time.sleep(0.01)
        if left > 2:
            yield f"after {_STREAMS} streams that were closed {left} more sockets are open"


def _sockets() -> set[str] | None:
    """The sockets of this process, where the system tells."""
    found = set()
    try:
        for name in os.listdir("/proc/self/fd"):
            with suppress(OSError):
                found.add(os.readlink(f"/proc/self/fd/{name}"))
    except OSError:
        return None
    return {target for target in found if target.startswith("socket:")}


def keeps_its_keys_out_of_reprs(subject: Subject) -> Iterator[str]:
    if subject.has_server:
        return  # there it is known what the key is
    with subject.answering() as model:
        stream = subject.open(model)
        shows = {"repr(model)": repr(model), "str(model)": str(model), "repr(stream)": repr(stream)}
        stream.close()
        for name, value in _secrets(model):
            yield from (f"{place} shows {name}" for place, text in shows.items() if value in text)


def _secrets(thing: object, depth: int = 3) -> Iterator[tuple[str, str]]:
    """The attributes that are called like a key, and are long enough to be one, inner models' included."""
    for name, value in getattr(thing, "__dict__", {}).items():
        if isinstance(value, str):
            if _SECRET_NAME.search(name) and len(value) >= _LEAST_SECRET and value not in os.environ:
                yield name, value
        elif depth:
            yield from _secrets(value, depth - 1)


def closes_with_the_with(subject: Subject) -> Iterator[str]:
    with subject.answering() as model:
        stream = subject.open(model)
        if isinstance(stream, AbstractContextManager):
            with stream as entered:
                next(entered)
            yield from _is_over(stream)
        stream.close()


def is_cancelled_from_afar(subject: Subject) -> Iterator[str]:
    with subject.answering() as model:
        stream = subject.open(model)
        if not hasattr(stream, "cancel"):
            stream.close()
            return
        if not Aside(stream.cancel).ended_within(_CANCEL_S):
            yield f"cancel() did not return within {_CANCEL_S:g} s"
        yield from _not_cancelled("next()", lambda: next(stream))
        yield from _is_over(stream)


def is_not_cancelled_after_its_end(subject: Subject) -> Iterator[str]:
    with subject.answering() as model:
        stream = subject.open(model)
        drained(stream)
        if hasattr(stream, "cancel"):
            yield from _raised("cancel()", stream.cancel)
            yield from _is_over(stream)


def heeds_a_cancelled_token(subject: Subject) -> Iterator[str]:
    with subject.answering() as model:
        stream = subject.open(model)
        stream.close()
        if isinstance(stream, ChatStream):
            with CancelToken() as token:
                token.cancel()
                yield from _not_cancelled("the call", lambda: subject.read(model))


def _raised(what: str, call: Callable[[], Any]) -> Iterator[str]:
    try:
        call()
    except Exception as error:
        yield f"{what} raised {error!r}"


def _not_cancelled(what: str, call: Callable[[], Any]) -> Iterator[str]:
    try:
        result = call()
    except StreamCancelledError:
        return
    except StopIteration:
        yield f"{what} raised StopIteration"
    except Exception as error:
        yield f"{what} raised {error!r}"
    else:
        yield f"{what} gave {result!r}"
