"""The checks of PROMISES, for every model. Each yields a description of every fault that it finds.

A check reads either ``subject.chunks``, a complete answer, or opens streams of its own.
"""

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
from completion.testing.conformance.answers import contents_of
from completion.testing.conformance.subject import Stream, Subject, ThreadedCall, read_all, read_until_error

THREADS = 4
_BARRIER_S = 2.0
_CANCEL_S = 1.0
_HANG_UP_S = 3.0
_STREAMS = 3
_SECRET_NAME = re.compile(r"(?i)key|token|secret|password|credential")
_MIN_SECRET_CHARS = 8

_CALL_CHUNKS = (ToolCallArgsDelta, ToolCallFinished, ToolCallMalformed)


def answers(subject: Subject) -> Iterator[str]:
    """The first check. It sets ``subject.chunks``, which other checks read."""
    if not subject.has_server:
        subject.chunks = subject.read(subject.model())
    else:
        with subject.serving(always=subject.answer.complete()) as (server, model):
            subject.chunks, error = read_until_error(subject.open(model))
            if not server.requests:
                yield f"the model sent no request to the server at {server.url}"
            if error is not None:
                yield f"next() raised {error!r} for a good answer"
    if not subject.chunks:
        yield "the stream yielded no chunk"


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
            yield f"{before} became {after} after a call"


def _names(model: object) -> dict[str, Any]:
    return {attribute: getattr(model, attribute, None) for attribute in ("name", "model")}


def returns_a_generator(subject: Subject) -> Iterator[str]:
    with subject.answering() as model:
        stream = subject.open(model)
        kind = type(stream).__name__
        if not isinstance(stream, Generator):
            yield f"chat_stream returned {kind}, which does not have all of __next__, send, throw and close"
        if hasattr(stream, "__aiter__"):
            yield f"{kind} is an async iterable too"
        stream.close()


def refuses_at_the_call(subject: Subject) -> Iterator[str]:
    for wrong in (None, object()):
        with subject.answering() as model:
            try:
                stream = model.chat_stream(wrong)  # type: ignore[arg-type]
            except Exception:
                continue
            # A model that ignores the request may answer: it has no error to raise.
            _, error = read_until_error(stream)
            if error is not None:
                yield f"chat_stream({wrong!r}) returned a stream, and next() raised {error!r}"


def serves_each_thread(subject: Subject) -> Iterator[str]:
    """All streams are opened before one is read, and their first chunks are read at the same time."""
    if subject.has_server:
        replies = [subject.answers(f"number {number}").complete() for number in range(THREADS)]
        with subject.serving(*replies, *replies) as (_, model):
            expected = [contents_of(subject.read(model)) for _ in range(THREADS)]
            answers_read, errors = _read_in_threads(subject, model)
            yield from (f"a thread's stream raised {error!r}" for error in errors)
            for chunks in answers_read:
                if contents_of(chunks) not in expected:
                    yield f"a thread read {contents_of(chunks)}"
                else:
                    expected.remove(contents_of(chunks))
    else:
        with subject.answering() as model:
            answers_read, errors = _read_in_threads(subject, model)
            yield from (f"a thread's stream raised {error!r}" for error in errors)
            for chunks in answers_read:
                if _shape(chunks) != _shape(subject.chunks):
                    yield f"a thread read {contents_of(chunks)}"


def _shape(chunks: list[StreamChunk]) -> tuple[object, ...]:
    """What two answers with different words must have in common."""
    ends = [isinstance(chunk, TurnFinished) for chunk in chunks]
    return sum(ends), ends[-1:], any(_faults_of_calls(chunks))


def _read_in_threads(subject: Subject, model: CompletionModel) -> tuple[list[list[StreamChunk]], list[BaseException]]:
    barrier = threading.Barrier(THREADS)

    def wait_for_the_others() -> None:
        with suppress(threading.BrokenBarrierError):  # a thread failed, or the model serves one stream at a time
            barrier.wait(_BARRIER_S)

    def read() -> list[StreamChunk]:
        stream = subject.open(model)
        chunks = []
        for _ in range(3):
            wait_for_the_others()
            chunks += [chunk for chunk in [next(stream, None)] if chunk is not None]
        return chunks + read_all(stream)

    threads = [ThreadedCall(read) for _ in range(THREADS)]
    for thread in threads:
        thread.join()
    failed = [thread.error for thread in threads if thread.error is not None]
    return [thread.result for thread in threads if thread.error is None], failed


def pickles(subject: Subject) -> Iterator[str]:
    with subject.answering() as model:
        try:
            copy: CompletionModel = pickle.loads(pickle.dumps(model))
        except Exception as error:
            yield f"pickle raised {error!r}"
            return
        if _names(copy) != _names(model):
            yield f"{_names(model)} became {_names(copy)}"
        try:
            chunks = subject.read(copy)
        except Exception as error:
            yield f"the copy raised {error!r}"
            return
        if subject.has_server and contents_of(chunks) != contents_of(subject.chunks):
            yield f"the copy answered {contents_of(chunks)} instead of {contents_of(subject.chunks)}"


# --- the chunks --------------------------------------------------------------------------------------------------


def yields_only_chunks(subject: Subject) -> Iterator[str]:
    for chunk in subject.chunks:
        if not isinstance(chunk, StreamChunk):
            yield f"the stream yielded {chunk!r}"


def ends_with_turn_finished(subject: Subject) -> Iterator[str]:
    ends = [number for number, chunk in enumerate(subject.chunks) if isinstance(chunk, TurnFinished)]
    if len(ends) != 1:
        yield f"there were {len(ends)}"
    if subject.chunks and ends[-1:] != [len(subject.chunks) - 1]:
        yield f"the last chunk was {subject.chunks[-1]!r}"


def stays_at_the_end(subject: Subject) -> Iterator[str]:
    with subject.answering() as model:
        stream = subject.open(model)
        read_all(stream)
        yield from _faults_after_end(stream)


def _faults_after_end(stream: Stream) -> Iterator[str]:
    for _ in range(2):
        try:
            yield f"next() returned {next(stream)!r}"
        except StopIteration:
            pass
        except Exception as error:
            yield f"next() raised {error!r}"


def ends_tool_calls(subject: Subject) -> Iterator[str]:
    yield from _faults_of_calls(subject.chunks)


def _faults_of_calls(chunks: Iterable[StreamChunk]) -> Iterator[str]:
    opened: ToolCallStarted | None = None
    for chunk in chunks:
        if isinstance(chunk, _CALL_CHUNKS):
            if opened is None:
                yield f"{chunk!r} outside a tool call"
            elif chunk.call_id != opened.call_id or getattr(chunk, "name", opened.name) != opened.name:
                yield f"{chunk!r} inside {opened!r}"
            if not isinstance(chunk, ToolCallArgsDelta):
                opened = None
        elif opened is not None:
            yield f"{chunk!r} before the end of {opened!r}"
        if isinstance(chunk, ToolCallStarted):
            opened = chunk
    if opened is not None:
        yield f"{opened!r} did not end"


def ends_reasoning(subject: Subject) -> Iterator[str]:
    is_reasoning = False
    for chunk in subject.chunks:
        if is_reasoning and not isinstance(chunk, ReasoningDelta | ReasoningFinished):
            yield f"{chunk!r} inside reasoning"
            is_reasoning = False
        if isinstance(chunk, ReasoningDelta | ReasoningFinished):
            is_reasoning = isinstance(chunk, ReasoningDelta)
    if is_reasoning:
        yield "reasoning did not end"


def yields_no_empty_delta(subject: Subject) -> Iterator[str]:
    for chunk in subject.chunks:
        if isinstance(chunk, StreamChunk) and not getattr(chunk, "delta", "-"):
            yield f"the stream yielded {chunk!r}"


def has_unique_call_ids(subject: Subject) -> Iterator[str]:
    seen: set[str] = set()
    for chunk in subject.chunks:
        if isinstance(chunk, ToolCallStarted):
            if not chunk.call_id or chunk.call_id in seen:
                yield f"{chunk!r} after the ids {sorted(seen)}"
            seen.add(chunk.call_id)


def has_deltas_that_add_up(subject: Subject) -> Iterator[str]:
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
        yield f"input_tokens is less than its cached parts in {usage!r}"
    if usage.cache_creation_input_tokens < usage.cache_creation_5m_tokens + usage.cache_creation_1h_tokens:
        yield f"cache_creation_input_tokens is less than its parts in {usage!r}"
    if usage.output_tokens < usage.reasoning_tokens:
        yield f"output_tokens is less than reasoning_tokens in {usage!r}"


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


# --- early ends -------------------------------------------------------------------------------------------------


def closes_early(subject: Subject) -> Iterator[str]:
    with subject.answering() as model:
        for reads in (0, 1):
            stream = subject.open(model)
            for _ in range(reads):
                next(stream)
            yield from _faults_if_raised("close()", stream.close)
            yield from _faults_if_raised("the second close()", stream.close)
            yield from _faults_after_end(stream)


def closes_its_connections(subject: Subject) -> Iterator[str]:
    """Without a server of the kit, count the sockets of this process.

    Two more sockets are allowed: a connection may be kept for the next call, and its server may run in this process.
    """
    before = _sockets()
    if subject.has_server or before is None:
        return
    with subject.answering() as model:
        kept = []  # dropping a stream would close its connection too
        for _ in range(_STREAMS):
            stream = subject.open(model)
            kept.append(stream)
            next(stream)
            stream.close()
        ends_at = time.monotonic() + _HANG_UP_S
        while (left := len((_sockets() or before) - before)) > 2 and time.monotonic() < ends_at:
            time.sleep(0.01)
        if left > 2:
            yield f"after {_STREAMS} closed streams, {left} more sockets are open"


def _sockets() -> set[str] | None:
    """The open sockets of this process; None if the system does not list them."""
    found = set()
    try:
        for name in os.listdir("/proc/self/fd"):
            with suppress(OSError):
                found.add(os.readlink(f"/proc/self/fd/{name}"))
    except OSError:
        return None
    return {target for target in found if target.startswith("socket:")}


def hides_its_keys_in_reprs(subject: Subject) -> Iterator[str]:
    if subject.has_server:
        return  # wires.hides_its_key_in_reprs knows the key
    with subject.answering() as model:
        stream = subject.open(model)
        shows = {"repr(model)": repr(model), "str(model)": str(model), "repr(stream)": repr(stream)}
        stream.close()
        for name, value in _secrets(model):
            yield from (f"{place} shows {name}" for place, text in shows.items() if value in text)


def _secrets(thing: object, depth: int = 3) -> Iterator[tuple[str, str]]:
    """Attributes that are named like a key and long enough to be one, also those of inner models."""
    for name, value in getattr(thing, "__dict__", {}).items():
        if isinstance(value, str):
            if _SECRET_NAME.search(name) and len(value) >= _MIN_SECRET_CHARS and value not in os.environ:
                yield name, value
        elif depth:
            yield from _secrets(value, depth - 1)


def closes_at_the_end_of_its_block(subject: Subject) -> Iterator[str]:
    with subject.answering() as model:
        stream = subject.open(model)
        if isinstance(stream, AbstractContextManager):
            with stream as entered:
                next(entered)
            yield from _faults_after_end(stream)
        stream.close()


def is_cancelled_by_a_thread(subject: Subject) -> Iterator[str]:
    with subject.answering() as model:
        stream = subject.open(model)
        if not hasattr(stream, "cancel"):
            stream.close()
            return
        if not ThreadedCall(stream.cancel).ended_within(_CANCEL_S):
            yield f"cancel() did not return within {_CANCEL_S:g} s"
        yield from _faults_of_cancelled("next()", lambda: next(stream))
        yield from _faults_after_end(stream)


def ignores_cancel_after_the_end(subject: Subject) -> Iterator[str]:
    with subject.answering() as model:
        stream = subject.open(model)
        read_all(stream)
        if hasattr(stream, "cancel"):
            yield from _faults_if_raised("cancel()", stream.cancel)
            yield from _faults_after_end(stream)


def obeys_a_cancelled_token(subject: Subject) -> Iterator[str]:
    with subject.answering() as model:
        stream = subject.open(model)
        stream.close()
        if isinstance(stream, ChatStream):
            with CancelToken() as token:
                token.cancel()
                yield from _faults_of_cancelled("the call", lambda: subject.read(model))


def _faults_if_raised(what: str, call: Callable[[], Any]) -> Iterator[str]:
    try:
        call()
    except Exception as error:
        yield f"{what} raised {error!r}"


def _faults_of_cancelled(what: str, call: Callable[[], Any]) -> Iterator[str]:
    try:
        result = call()
    except StreamCancelledError:
        return
    except StopIteration:
        yield f"{what} raised StopIteration"
    except Exception as error:
        yield f"{what} raised {error!r}"
    else:
        yield f"{what} returned {result!r}"
