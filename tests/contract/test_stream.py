"""ChatStream over plain generators: how it ends, in which thread, and in which state it is then."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from completion import (
    CancelToken,
    ChatStream,
    Chunk,
    FinishReason,
    Message,
    ResponseInfo,
    StreamCancelledError,
    StreamChunk,
    TextDelta,
    ToolCallBlock,
    ToolCallFinished,
    ToolCallStarted,
    TransportError,
    TruncatedStreamError,
    Turn,
    TurnFinished,
)

A, B = TextDelta("a"), TextDelta("b")
END = TurnFinished(FinishReason.END_TURN)

PATIENCE = 10
"""How many seconds a test waits for another thread before it fails."""


class Connection:
    """A connection that knows whether it is open."""

    def __init__(self) -> None:
        self.is_open = True

    def close(self) -> None:
        self.is_open = False


def opened(connection: Connection, chunks: Iterable[StreamChunk] = (A, B, END)) -> ChatStream:
    def generated() -> Iterator[StreamChunk]:
        yield from chunks

    return ChatStream(generated(), release=connection.close)


def broken_chunks() -> Iterator[StreamChunk]:
    yield A
    raise TransportError("gone")


def test_a_stream_yields_its_chunks_and_stops() -> None:
    assert list(opened(Connection())) == [A, B, END]


def test_a_stream_is_a_generator_and_its_own_iterator() -> None:
    stream = opened(Connection())
    assert isinstance(stream, Generator)
    assert iter(stream) is stream
    assert stream.send(None) is A


def test_a_stream_is_not_async_iterable() -> None:
    assert not hasattr(ChatStream, "__aiter__")


def leave_the_with_block(stream: ChatStream) -> None:
    with stream:
        next(stream)


def raise_inside_the_with_block(stream: ChatStream) -> None:
    with pytest.raises(KeyError), stream:
        raise KeyError


def drain(stream: ChatStream) -> None:
    for _ in stream:
        pass


def collect(stream: ChatStream) -> None:
    stream.collect()


def close(stream: ChatStream) -> None:
    next(stream)
    stream.close()


def close_before_the_first_chunk(stream: ChatStream) -> None:
    stream.close()


def throw_an_error(stream: ChatStream) -> None:
    next(stream)
    with pytest.raises(KeyError):
        stream.throw(KeyError("x"))


def cancel_and_read(stream: ChatStream) -> None:
    stream.cancel()
    with pytest.raises(StreamCancelledError):
        next(stream)


@pytest.mark.parametrize(
    "end",
    [
        leave_the_with_block,
        raise_inside_the_with_block,
        drain,
        collect,
        close,
        close_before_the_first_chunk,
        throw_an_error,
        cancel_and_read,
    ],
)
def test_after_every_end_the_connection_is_closed_and_nothing_is_yielded(end: Callable[[ChatStream], None]) -> None:
    connection = Connection()
    stream = opened(connection)
    end(stream)
    assert not connection.is_open
    assert next(stream, None) is None


@pytest.mark.parametrize("end", [leave_the_with_block, close_before_the_first_chunk, drain])
def test_a_stream_over_a_plain_iterator_yields_nothing_after_its_end(end: Callable[[ChatStream], None]) -> None:
    connection = Connection()
    stream = ChatStream(iter([A, B, END]), release=connection.close)
    end(stream)
    assert not connection.is_open
    assert next(stream, None) is None


def test_close_is_idempotent() -> None:
    stream = opened(Connection())
    stream.close()
    stream.close()
    assert next(stream, None) is None


def test_closing_early_closes_the_generator() -> None:
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


def test_a_generator_that_raises_on_close_does_not_keep_the_connection() -> None:
    connection = Connection()

    def generated() -> Iterator[StreamChunk]:
        try:
            yield A
        finally:
            raise ValueError("close failed")

    stream = ChatStream(generated(), release=connection.close)
    next(stream)
    with pytest.raises(ValueError, match="close failed"):
        stream.close()
    assert not connection.is_open
    assert next(stream, None) is None


@pytest.mark.parametrize("chunks_read", [0, 1])
def test_garbage_collection_closes_the_connection(chunks_read: int) -> None:
    connection = Connection()
    stream = opened(connection)
    for _ in range(chunks_read):
        next(stream)
    del stream
    gc.collect()
    assert not connection.is_open


def test_break_closes_the_connection() -> None:
    connection = Connection()
    for _chunk in opened(connection):
        break
    gc.collect()
    assert not connection.is_open


def test_generator_exit_in_a_view_closes_the_connection() -> None:
    connection = Connection()

    def view() -> Iterator[str]:
        with opened(connection) as stream:
            for chunk in stream:
                yield chunk.type

    response = view()
    next(response)
    response.close()  # type: ignore[attr-defined]
    assert not connection.is_open


def test_an_error_closes_the_stream() -> None:
    connection = Connection()
    stream = opened(connection, broken_chunks())
    assert next(stream) is A
    with pytest.raises(TransportError, match="gone"):
        next(stream)
    assert not connection.is_open
    assert next(stream, None) is None


@pytest.mark.parametrize(
    ("thrown", "words"),
    [((KeyError("x"),), "'x'"), ((KeyError,), ""), ((KeyError, "x"), "'x'"), ((KeyError, KeyError("x")), "'x'")],
)
def test_throw_accepts_the_arguments_of_a_generator(thrown: tuple[type[KeyError], object], words: str) -> None:
    with pytest.raises(KeyError) as caught:
        opened(Connection()).throw(*thrown)
    assert str(caught.value) == words


def test_throw_keeps_the_traceback_of_the_error() -> None:
    try:
        raise KeyError("x")
    except KeyError as error:
        origin = error.__traceback__
        with pytest.raises(KeyError) as caught:
            opened(Connection()).throw(error)
    trace = caught.tb
    while trace.tb_next is not None:
        trace = trace.tb_next
    assert trace is origin


# --- collect ---------------------------------------------------------------------------------------------------------


def test_collect_returns_the_turn() -> None:
    assert opened(Connection()).collect() == Turn(Message.assistant("ab"), FinishReason.END_TURN)


def test_an_error_in_collect_carries_the_turn_so_far() -> None:
    connection = Connection()
    with pytest.raises(TransportError) as caught:
        opened(connection, broken_chunks()).collect()
    assert caught.value.partial == Turn(Message.assistant("a"))
    assert not connection.is_open


def test_collecting_a_closed_stream_is_refused() -> None:
    stream = opened(Connection())
    stream.close()
    with pytest.raises(RuntimeError, match="was not read from or closed before"):
        stream.collect()


def test_collecting_the_rest_of_a_stream_is_refused() -> None:
    stream = opened(Connection())
    next(stream)
    with pytest.raises(RuntimeError, match=r"yields them to completion\.collect"):
        stream.collect()


def test_cancelling_collect_carries_the_turn_so_far() -> None:
    token = CancelToken()

    def generated() -> Iterator[StreamChunk]:
        yield A
        token.cancel()
        yield B

    with pytest.raises(StreamCancelledError) as caught:
        ChatStream(generated(), token=token).collect()
    assert caught.value.partial == Turn(Message.assistant("ab"))


# --- text_stream -----------------------------------------------------------------------------------------------------

CALL = ToolCallFinished("c", "f", {})


def test_text_stream_yields_the_text_deltas() -> None:
    stream = opened(Connection(), [A, ToolCallStarted("c", "f"), CALL, B, END])
    assert list(stream.text_stream) == ["a", "b"]


def test_after_text_stream_the_turn_is_known() -> None:
    connection = Connection()
    stream = opened(connection, [A, CALL, B, END])
    for _ in stream.text_stream:
        with pytest.raises(RuntimeError, match="turn is not known yet: read text_stream to its end"):
            _ = stream.turn
    assert stream.turn == Turn(Message.assistant(["a", ToolCallBlock("c", "f", {}), "b"]), reason=FinishReason.END_TURN)
    assert stream.collect() == stream.turn
    assert not connection.is_open


def test_after_collect_the_turn_is_known() -> None:
    stream = opened(Connection())
    assert stream.collect() == stream.turn == stream.collect()
    assert list(stream.text_stream) == []


def test_after_a_break_text_stream_continues() -> None:
    connection = Connection()
    stream = opened(connection)
    for _ in stream.text_stream:
        break
    assert connection.is_open
    assert list(stream.text_stream) == ["b"]
    assert stream.turn.text == "ab"


def test_after_a_break_in_text_stream_collect_returns_the_whole_turn() -> None:
    stream = opened(Connection())
    next(stream.text_stream)
    assert stream.collect().text == "ab"


@pytest.mark.parametrize("read", [drain, close])
def test_plain_iteration_does_not_keep_the_turn(read: Callable[[ChatStream], None]) -> None:
    stream = opened(Connection())
    read(stream)
    with pytest.raises(RuntimeError, match=r"turn is known only after text_stream or collect\(\)"):
        _ = stream.turn


@pytest.mark.parametrize("reads_before", [0, 1])
def test_text_stream_after_next_yields_the_rest_and_the_turn_is_not_known(reads_before: int) -> None:
    stream = opened(Connection(), [A, A, B, END])
    for _ in range(reads_before):
        next(stream.text_stream)
    next(stream)
    assert list(stream.text_stream) == ["a", "b"][reads_before:]
    with pytest.raises(RuntimeError, match="keep no chunks"):
        _ = stream.turn


def test_collect_after_text_stream_and_next_is_refused() -> None:
    stream = opened(Connection())
    next(stream.text_stream)
    next(stream)
    with pytest.raises(RuntimeError, match="was not read from"):
        stream.collect()


def test_an_error_in_text_stream_carries_the_turn_so_far() -> None:
    stream = opened(Connection(), broken_chunks())
    with pytest.raises(TransportError) as caught:
        list(stream.text_stream)
    assert caught.value.partial == Turn(Message.assistant("a"))


def test_a_text_stream_without_turn_finished_is_truncated() -> None:
    with pytest.raises(TruncatedStreamError) as caught:
        list(opened(Connection(), [A]).text_stream)
    assert caught.value.partial == Turn(Message.assistant("a"))


def test_closing_the_stream_ends_text_stream() -> None:
    stream = opened(Connection())
    for _ in stream.text_stream:
        stream.close()
    assert list(stream.text_stream) == []


def test_text_stream_keeps_its_stream_open() -> None:
    connection = Connection()
    texts = opened(connection).text_stream
    assert next(texts) == "a"
    gc.collect()
    assert connection.is_open
    del texts
    assert not connection.is_open


# --- cancel ----------------------------------------------------------------------------------------------------------


def test_the_error_of_a_cancelled_stream_names_its_model() -> None:
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


def chunks_that_wait(token: CancelToken, is_blocked: threading.Event) -> Iterator[StreamChunk]:
    """Yields one chunk, then waits until the token is cancelled."""
    yield A
    is_blocked.set()
    token.sleep(PATIENCE)
    yield B


@pytest.mark.parametrize("end", [ChatStream.cancel, ChatStream.close])
def test_a_blocked_next_ends_when_another_thread_ends_the_stream(end: Callable[[ChatStream], None]) -> None:
    connection, token, is_blocked = Connection(), CancelToken(), threading.Event()
    stream = ChatStream(chunks_that_wait(token, is_blocked), token=token, release=connection.close)
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(list[StreamChunk], stream)
        assert is_blocked.wait(PATIENCE)
        end(stream)
        with pytest.raises(StreamCancelledError):
            reading.result(PATIENCE)
    assert not connection.is_open
    assert next(stream, None) is None


def test_a_second_reader_is_refused_and_the_first_continues() -> None:
    is_blocked, may_continue = threading.Event(), threading.Event()

    def generated() -> Iterator[StreamChunk]:
        is_blocked.set()
        assert may_continue.wait(PATIENCE)
        yield A
        yield END

    stream = ChatStream(generated())
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(list[StreamChunk], stream)
        assert is_blocked.wait(PATIENCE)
        with pytest.raises(ValueError, match="already executing"):
            next(stream)
        may_continue.set()
        assert reading.result(PATIENCE) == [A, END]


def test_a_token_cancels_the_streams_that_were_opened_inside() -> None:
    with CancelToken() as token:
        inside = opened(Connection())
    outside = opened(Connection())
    token.cancel()
    with pytest.raises(StreamCancelledError):
        next(inside)
    assert next(outside) is A


def test_cancelling_a_stream_does_not_cancel_the_outer_token() -> None:
    with CancelToken() as token:
        first, second = opened(Connection()), opened(Connection())
    first.cancel()
    assert not token.cancelled
    assert next(second) is A


def test_cancelling_the_token_after_the_end_does_nothing() -> None:
    with CancelToken() as token:
        stream = opened(Connection())
    drain(stream)
    token.cancel()
    assert next(stream, None) is None


# --- continuing with another stream ----------------------------------------------------------------------------------


def another_stream(connection: Connection, chunks: Iterable[StreamChunk] = (B, END)) -> ChatStream:
    """A stream with a response of its own."""
    return ChatStream(iter(chunks), response=ResponseInfo(200, request_id="second"), release=connection.close)


def test_a_stream_continues_with_the_chunks_and_the_response_of_another_one() -> None:
    stream = opened(Connection())
    assert next(stream) is A
    stream.continue_with(another_stream(Connection()))
    assert stream.response.request_id == "second"
    assert list(stream) == [B, END]


class Counting(ChatStream):
    """Counts the calls of its ``next()``."""

    calls = 0

    def __next__(self) -> Chunk:
        self.calls += 1
        return super().__next__()


def test_continue_with_calls_the_next_of_a_subclass() -> None:
    stream, other = opened(Connection()), Counting(iter([B, END]))
    stream.continue_with(other)
    assert list(stream) == [B, END]
    assert other.calls == 3


def test_adopt_takes_over_the_response_and_not_the_chunks() -> None:
    stream = opened(Connection())
    stream.adopt(another_stream(Connection()))
    assert stream.response.request_id == "second"
    assert next(stream) is A


@pytest.mark.parametrize("take", [ChatStream.adopt, ChatStream.continue_with])
@pytest.mark.parametrize("end", [leave_the_with_block, drain, close_before_the_first_chunk, cancel_and_read])
def test_an_adopted_stream_ends_with_the_one_that_adopted_it(
    take: Callable[[ChatStream, ChatStream], None], end: Callable[[ChatStream], None]
) -> None:
    connection, other = Connection(), Connection()
    stream = opened(connection)
    take(stream, another_stream(other))
    assert other.is_open
    end(stream)
    assert not connection.is_open
    assert not other.is_open


def test_the_error_of_a_cancelled_stream_names_the_model_of_the_adopted_one() -> None:
    stream = opened(Connection())
    stream.adopt(ChatStream(iter([A]), provider="acme", model="m2"))
    stream.cancel()
    with pytest.raises(StreamCancelledError, match="acme") as caught:
        next(stream)
    assert caught.value.model == "m2"


# --- response and repr -----------------------------------------------------------------------------------------------


def test_a_stream_without_a_response_has_an_empty_response_info() -> None:
    assert ChatStream(iter([])).response == ResponseInfo(None, {}, None, ())


def test_the_repr_of_a_stream_shows_its_state() -> None:
    stream = ChatStream(iter([A]), response=ResponseInfo(200))
    assert repr(stream) == "<ChatStream open, status 200>"
    stream.cancel()
    assert repr(stream) == "<ChatStream cancelled, status 200>"
    stream.close()
    assert repr(stream) == "<ChatStream over, status 200>"
