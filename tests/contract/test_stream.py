"""ChatStream over plain generators: who may end it, from where, and what is left then."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from completion import (
    CancelToken,
    ChatStream,
    FinishReason,
    Message,
    ResponseInfo,
    StreamCancelledError,
    StreamChunk,
    TextDelta,
    TransportError,
    Turn,
    TurnFinished,
)

A, B = TextDelta("a"), TextDelta("b")
END = TurnFinished(FinishReason.END_TURN)

PATIENCE = 10
"""Seconds after which a test that waits for another thread has failed."""


class Line:
    """A connection that tells whether it was hung up."""

    def __init__(self) -> None:
        self.is_open = True

    def hang_up(self) -> None:
        self.is_open = False


def opened(line: Line, chunks: Iterable[StreamChunk] = (A, B, END)) -> ChatStream:
    def generated() -> Iterator[StreamChunk]:
        yield from chunks

    return ChatStream(generated(), release=line.hang_up)


def broken() -> Iterator[StreamChunk]:
    yield A
    raise TransportError("gone")


def test_a_stream_gives_its_chunks_and_then_stops() -> None:
    assert list(opened(Line())) == [A, B, END]


def test_a_stream_is_a_generator_and_its_own_iterator() -> None:
    stream = opened(Line())
    assert isinstance(stream, Generator)
    assert iter(stream) is stream
    assert stream.send(None) is A


def test_a_stream_is_not_async_iterable() -> None:
    assert not hasattr(ChatStream, "__aiter__")


def leave_the_with(stream: ChatStream) -> None:
    with stream:
        next(stream)


def fail_inside_the_with(stream: ChatStream) -> None:
    with pytest.raises(KeyError), stream:
        raise KeyError


def drain(stream: ChatStream) -> None:
    for _ in stream:
        pass


def collect_all(stream: ChatStream) -> None:
    stream.collect()


def close(stream: ChatStream) -> None:
    next(stream)
    stream.close()


def close_before_the_first_chunk(stream: ChatStream) -> None:
    stream.close()


def throw_into(stream: ChatStream) -> None:
    next(stream)
    with pytest.raises(KeyError):
        stream.throw(KeyError("x"))


def cancel_and_go_on(stream: ChatStream) -> None:
    stream.cancel()
    with pytest.raises(StreamCancelledError):
        next(stream)


@pytest.mark.parametrize(
    "end",
    [
        leave_the_with,
        fail_inside_the_with,
        drain,
        collect_all,
        close,
        close_before_the_first_chunk,
        throw_into,
        cancel_and_go_on,
    ],
)
def test_every_end_hangs_up_and_stays_the_end(end: Callable[[ChatStream], None]) -> None:
    line = Line()
    stream = opened(line)
    end(stream)
    assert not line.is_open
    assert next(stream, None) is None


@pytest.mark.parametrize("end", [leave_the_with, close_before_the_first_chunk, drain])
def test_a_plain_iterator_is_over_with_its_stream_too(end: Callable[[ChatStream], None]) -> None:
    line = Line()
    stream = ChatStream(iter([A, B, END]), release=line.hang_up)
    end(stream)
    assert not line.is_open
    assert next(stream, None) is None


def test_closing_twice_is_the_same_as_once() -> None:
    stream = opened(Line())
    stream.close()
    stream.close()
    assert next(stream, None) is None


def test_closing_early_closes_the_generator_behind_it() -> None:
    seen: list[str] = []

    def generated() -> Iterator[StreamChunk]:
        try:
            yield A
            yield B
        except GeneratorExit:
            seen.append("closed")
            raise

    stream = ChatStream(generated())
    next(stream)
    stream.close()
    assert seen == ["closed"]


def test_a_generator_that_fails_to_close_does_not_keep_the_line() -> None:
    line = Line()

    def generated() -> Iterator[StreamChunk]:
        try:
            yield A
        finally:
            raise ValueError("in the way")

    stream = ChatStream(generated(), release=line.hang_up)
    next(stream)
    with pytest.raises(ValueError, match="in the way"):
        stream.close()
    assert not line.is_open
    assert next(stream, None) is None


@pytest.mark.parametrize("chunks_read", [0, 1])
def test_dropping_a_stream_hangs_up(chunks_read: int) -> None:
    line = Line()
    stream = opened(line)
    for _ in range(chunks_read):
        next(stream)
    del stream
    gc.collect()
    assert not line.is_open


def test_breaking_out_of_the_loop_hangs_up() -> None:
    line = Line()
    for _chunk in opened(line):
        break
    gc.collect()
    assert not line.is_open


def test_a_generator_exit_in_a_view_hangs_up() -> None:
    line = Line()

    def view() -> Iterator[str]:
        with opened(line) as stream:
            for chunk in stream:
                yield chunk.type

    response = view()
    next(response)
    response.close()  # type: ignore[attr-defined]
    assert not line.is_open


def test_an_error_closes_the_stream() -> None:
    line = Line()
    stream = opened(line, broken())
    assert next(stream) is A
    with pytest.raises(TransportError, match="gone"):
        next(stream)
    assert not line.is_open
    assert next(stream, None) is None


@pytest.mark.parametrize(
    ("thrown", "words"),
    [((KeyError("x"),), "'x'"), ((KeyError,), ""), ((KeyError, "x"), "'x'"), ((KeyError, KeyError("x")), "'x'")],
)
def test_an_error_can_be_thrown_in_every_form_that_generators_take(
    thrown: tuple[type[KeyError], object], words: str
) -> None:
    with pytest.raises(KeyError) as caught:
        opened(Line()).throw(*thrown)
    assert str(caught.value) == words


def test_an_error_that_is_thrown_in_keeps_where_it_came_from() -> None:
    try:
        raise KeyError("x")
    except KeyError as error:
        origin = error.__traceback__
        with pytest.raises(KeyError) as caught:
            opened(Line()).throw(error)
    trace = caught.tb
    while trace.tb_next is not None:
        trace = trace.tb_next
    assert trace is origin


# --- collect ---------------------------------------------------------------------------------------------------------


def test_collecting_gives_the_turn() -> None:
    assert opened(Line()).collect() == Turn(Message.assistant("ab"), FinishReason.END_TURN)


def test_collecting_a_broken_stream_tells_what_there_was() -> None:
    line = Line()
    with pytest.raises(TransportError) as caught:
        opened(line, broken()).collect()
    assert caught.value.partial == Turn(Message.assistant("a"))
    assert not line.is_open


def test_collecting_a_closed_stream_is_no_success() -> None:
    stream = opened(Line())
    stream.close()
    with pytest.raises(RuntimeError, match="was not read from or closed before"):
        stream.collect()


def test_collecting_what_is_left_of_a_stream_is_refused() -> None:
    stream = opened(Line())
    next(stream)
    with pytest.raises(RuntimeError, match=r"yields them to completion\.collect"):
        stream.collect()


def test_collecting_a_cancelled_stream_tells_what_there_was() -> None:
    token = CancelToken()

    def generated() -> Iterator[StreamChunk]:
        yield A
        token.cancel()
        yield B

    with pytest.raises(StreamCancelledError) as caught:
        ChatStream(generated(), token=token).collect()
    assert caught.value.partial == Turn(Message.assistant("ab"))


# --- cancel ----------------------------------------------------------------------------------------------------------


def test_a_cancelled_stream_names_its_model() -> None:
    stream = ChatStream(iter([A]), provider="acme", model="m1")
    stream.cancel()
    with pytest.raises(StreamCancelledError, match="acme: the stream was cancelled") as caught:
        next(stream)
    assert (caught.value.provider, caught.value.model) == ("acme", "m1")


@pytest.mark.parametrize("end", [drain, close])
def test_cancelling_after_the_end_does_nothing(end: Callable[[ChatStream], None]) -> None:
    token = CancelToken()
    stream = ChatStream(iter([A, END]), token=token)
    end(stream)
    stream.cancel()
    assert not token.cancelled
    assert next(stream, None) is None


def waiting(token: CancelToken, is_blocked: threading.Event) -> Iterator[StreamChunk]:
    """Yields one chunk, then waits until the token is cancelled."""
    yield A
    is_blocked.set()
    token.sleep(PATIENCE)
    yield B


@pytest.mark.parametrize("end", [ChatStream.cancel, ChatStream.close])
def test_a_blocked_next_ends_when_another_thread_ends_the_stream(end: Callable[[ChatStream], None]) -> None:
    line, token, is_blocked = Line(), CancelToken(), threading.Event()
    stream = ChatStream(waiting(token, is_blocked), token=token, release=line.hang_up)
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(list[StreamChunk], stream)
        assert is_blocked.wait(PATIENCE)
        end(stream)
        with pytest.raises(StreamCancelledError):
            reading.result(PATIENCE)
    assert not line.is_open
    assert next(stream, None) is None


def test_a_second_reader_is_refused_and_the_first_reads_on() -> None:
    is_blocked, go_on = threading.Event(), threading.Event()

    def generated() -> Iterator[StreamChunk]:
        is_blocked.set()
        assert go_on.wait(PATIENCE)
        yield A
        yield END

    stream = ChatStream(generated())
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(list[StreamChunk], stream)
        assert is_blocked.wait(PATIENCE)
        with pytest.raises(ValueError, match="already executing"):
            next(stream)
        go_on.set()
        assert reading.result(PATIENCE) == [A, END]


def test_a_token_cancels_the_streams_that_were_opened_inside() -> None:
    with CancelToken() as token:
        inside = opened(Line())
    outside = opened(Line())
    token.cancel()
    with pytest.raises(StreamCancelledError):
        next(inside)
    assert next(outside) is A


def test_cancelling_a_stream_leaves_the_token_that_it_was_opened_under() -> None:
    with CancelToken() as token:
        first, second = opened(Line()), opened(Line())
    first.cancel()
    assert not token.cancelled
    assert next(second) is A


def test_a_token_that_is_cancelled_after_the_end_does_nothing() -> None:
    with CancelToken() as token:
        stream = opened(Line())
    drain(stream)
    token.cancel()
    assert next(stream, None) is None


# --- going on with another stream ------------------------------------------------------------------------------------


def answered(line: Line, chunks: Iterable[StreamChunk] = (B, END)) -> ChatStream:
    """A stream with a response of its own."""
    return ChatStream(iter(chunks), response=ResponseInfo(200, request_id="second"), release=line.hang_up)


def test_a_stream_continues_with_the_chunks_and_the_response_of_another_one() -> None:
    stream = opened(Line())
    assert next(stream) is A
    stream.continue_with(answered(Line()))
    assert stream.response.request_id == "second"
    assert list(stream) == [B, END]


class Counting(ChatStream):
    """Counts the calls of its ``next()``."""

    calls = 0

    def __next__(self) -> StreamChunk:
        self.calls += 1
        return super().__next__()


def test_a_stream_continues_through_the_next_of_a_subclass() -> None:
    stream, other = opened(Line()), Counting(iter([B, END]))
    stream.continue_with(other)
    assert list(stream) == [B, END]
    assert other.calls == 3


def test_an_adopted_stream_gives_its_response_and_not_its_chunks() -> None:
    stream = opened(Line())
    stream.adopt(answered(Line()))
    assert stream.response.request_id == "second"
    assert next(stream) is A


@pytest.mark.parametrize("hand_over", [ChatStream.adopt, ChatStream.continue_with])
@pytest.mark.parametrize("end", [leave_the_with, drain, close_before_the_first_chunk, cancel_and_go_on])
def test_an_adopted_stream_ends_with_the_one_that_adopted_it(
    hand_over: Callable[[ChatStream, ChatStream], None], end: Callable[[ChatStream], None]
) -> None:
    line, other = Line(), Line()
    stream = opened(line)
    hand_over(stream, answered(other))
    assert other.is_open
    end(stream)
    assert not line.is_open
    assert not other.is_open


def test_a_cancelled_stream_names_the_model_of_the_adopted_one() -> None:
    stream = opened(Line())
    stream.adopt(ChatStream(iter([A]), provider="acme", model="m2"))
    stream.cancel()
    with pytest.raises(StreamCancelledError, match="acme") as caught:
        next(stream)
    assert caught.value.model == "m2"


# --- what is known of the response -----------------------------------------------------------------------------------


def test_a_stream_without_a_response_knows_nothing_of_it() -> None:
    assert ChatStream(iter([])).response == ResponseInfo(None, {}, None, ())


def test_a_repr_tells_the_state() -> None:
    stream = ChatStream(iter([A]), response=ResponseInfo(200))
    assert repr(stream) == "<ChatStream open, status 200>"
    stream.cancel()
    assert repr(stream) == "<ChatStream cancelled, status 200>"
    stream.close()
    assert repr(stream) == "<ChatStream over, status 200>"
