"""A wait ends by cancel from another thread, a token or Ctrl-C: the connection closes and the caller learns why."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from completion import CancelToken, RetryingModel, StreamCancelledError, Timeout
from completion.testing import ProviderServer, Reply, Stall, Trickle, WaitFor
from completion.testing.replies import Piece
from tests.loopback import (
    END,
    FRAMINGS,
    HI,
    PATIENCE_S,
    Caught,
    Framing,
    first_text,
    model_at,
    model_of,
    silent_listener,
    text,
)

AT_ONCE_S = 1.0
"""It takes 2 ms on a quiet machine."""


def under(token: CancelToken, call: Callable[[], Any]) -> Any:
    with token:
        return call()


def assert_cancelled(waiting: Caught) -> None:
    assert isinstance(waiting.within(AT_ONCE_S).error, StreamCancelledError)


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("goes_on", [Stall(), Trickle(every=0.02, times=1000)], ids=["silence", "pings"])
def test_cancel_wakes_a_read_that_is_blocked(any_server: ProviderServer, framing: Framing, goes_on: Piece) -> None:
    any_server.reply(Reply(text("a"), goes_on, framing=framing))
    stream = model_of(any_server).chat_stream(HI)
    assert first_text(stream) == "a"
    reading = threading.Event()

    def read() -> None:
        reading.set()
        next(stream)

    waiting = Caught(read)
    assert reading.wait(PATIENCE_S)
    stream.cancel()
    assert_cancelled(waiting)
    assert next(stream, None) is None
    assert any_server.wait_hung_up()


@pytest.mark.parametrize(
    "before",
    [[Stall()], [b"HTTP/1.1 200 OK\r\n", Stall()], [b"HTTP/1.1 200 OK\r\n", Trickle(b"X: 1\r\n", 0.02, 1000)]],
    ids=["silence", "half of the headers", "endless headers"],
)
def test_a_token_ends_the_wait_for_headers(any_server: ProviderServer, before: list[Piece]) -> None:
    any_server.reply(Reply(before_headers=before))
    token = CancelToken()
    waiting = Caught(lambda: under(token, lambda: model_of(any_server).chat_stream(HI)))
    assert any_server.wait_for_requests(1)
    token.cancel()
    assert_cancelled(waiting)
    assert any_server.wait_hung_up()


def test_a_token_ends_the_wait_for_headers_on_a_reused_connection(any_server: ProviderServer) -> None:
    any_server.reply(Reply(text("a"), END), Reply(before_headers=[Stall()]))
    model = model_of(any_server)
    model.chat_stream(HI).collect()
    token = CancelToken()
    waiting = Caught(lambda: under(token, lambda: model.chat_stream(HI)))
    assert any_server.wait_for_requests(2)
    token.cancel()
    assert_cancelled(waiting)
    assert any_server.connections == 1


def test_a_token_ends_a_tls_handshake() -> None:
    with silent_listener() as port:
        token = CancelToken()
        waiting = Caught(lambda: under(token, lambda: model_at(f"https://127.0.0.1:{port}").chat_stream(HI)))
        time.sleep(0.1)  # a test cannot see that the handshake has begun; the token works before it too
        token.cancel()
        assert_cancelled(waiting)


def test_a_token_ends_the_wait_for_the_body_of_an_error(any_server: ProviderServer) -> None:
    any_server.reply(Reply("busy", Stall(), status=500))
    model = model_of(any_server)
    token = CancelToken()
    waiting = Caught(lambda: under(token, lambda: model.chat_stream(HI)))
    assert any_server.wait_for_requests(1)
    token.cancel()
    assert_cancelled(waiting)


def test_under_a_cancelled_token_nothing_is_sent(server: ProviderServer) -> None:
    token = CancelToken()
    token.cancel()
    with token, pytest.raises(StreamCancelledError) as caught:
        model_of(server).chat_stream(HI)
    assert (caught.value.provider, caught.value.model) == ("openai", "m")
    assert server.connections == 0


def test_a_token_ends_all_streams_that_were_opened_in_its_block(server: ProviderServer) -> None:
    server.always(Reply(text("a"), Stall()))
    model = model_of(server)
    outside = model.chat_stream(HI)
    with CancelToken() as token:
        streams = [model.chat_stream(HI) for _ in range(3)]
    token.cancel()
    assert server.wait_hung_up(count=3)
    for stream in streams:
        with pytest.raises(StreamCancelledError):
            next(stream)
    assert first_text(outside) == "a"
    outside.close()


def test_cancel_hangs_up_although_no_thread_reads(any_server: ProviderServer) -> None:
    any_server.reply(Reply(text("a"), Stall()))
    stream = model_of(any_server).chat_stream(HI)
    stream.cancel()
    assert any_server.wait_hung_up()
    with pytest.raises(StreamCancelledError):
        next(stream)
    assert next(stream, None) is None


def test_close_from_another_thread_ends_a_blocked_read(any_server: ProviderServer) -> None:
    any_server.reply(Reply(text("a"), Stall()))
    stream = model_of(any_server).chat_stream(HI)
    assert first_text(stream) == "a"
    waiting = Caught(lambda: next(stream))
    time.sleep(0.05)  # if the read has not begun yet, it ends at once too, but with StopIteration
    stream.close()
    assert isinstance(waiting.within(AT_ONCE_S).error, StreamCancelledError | StopIteration)
    assert any_server.wait_hung_up()


def test_a_late_cancel_does_not_touch_the_next_stream_on_the_connection(any_server: ProviderServer) -> None:
    goes_on = threading.Event()
    any_server.reply(Reply(text("a"), END), Reply(text("b"), WaitFor(goes_on), text("c"), END))
    model = model_of(any_server)
    with CancelToken() as token:
        earlier = model.chat_stream(HI)
        earlier.collect()
    with model.chat_stream(HI) as now:
        assert first_text(now) == "b"
        earlier.cancel()
        earlier.close()
        token.cancel()
        goes_on.set()
        assert first_text(now) == "c"
    assert any_server.connections == 1


def test_the_connection_of_a_cancelled_stream_is_not_used_again(any_server: ProviderServer) -> None:
    any_server.reply(Reply(text("a"), Stall()), Reply(text("b"), END))
    model = model_of(any_server)
    with model.chat_stream(HI) as stream:
        stream.cancel()
    assert model.chat_stream(HI).collect().text == "b"
    assert any_server.connections == 2


def test_a_signal_handler_may_cancel(server: ProviderServer) -> None:
    server.reply(Reply(text("a"), Stall()))
    stream = model_of(server).chat_stream(HI)
    assert first_text(stream) == "a"
    before = signal.signal(signal.SIGINT, lambda *_: stream.cancel())
    try:
        soon = _interrupt_soon(server)
        with pytest.raises(StreamCancelledError):
            next(stream)
    finally:
        soon.join()
        signal.signal(signal.SIGINT, before)
    assert server.wait_hung_up()


@pytest.mark.parametrize("framing", FRAMINGS)
def test_ctrl_c_hangs_up(any_server: ProviderServer, framing: Framing) -> None:
    any_server.reply(Reply(text("a"), Stall(), framing=framing), Reply(text("b"), END))
    model = model_of(any_server)
    stream = model.chat_stream(HI)
    assert first_text(stream) == "a"
    soon = _interrupt_soon(any_server)
    with pytest.raises(KeyboardInterrupt):
        next(stream)
    soon.join()
    assert any_server.wait_hung_up()
    assert model.chat_stream(HI).collect().text == "b"


def test_ctrl_c_ends_the_wait_for_headers(any_server: ProviderServer) -> None:
    any_server.reply(Reply(before_headers=[Stall()]), Reply(text("b"), END))
    model = model_of(any_server, timeout=Timeout(total=60))
    soon = _interrupt_soon(any_server)
    with pytest.raises(KeyboardInterrupt):
        model.chat_stream(HI)
    soon.join()
    assert any_server.wait_hung_up()
    assert model.chat_stream(HI).collect().text == "b"


@pytest.mark.parametrize("when", ["headers", "stream"])
def test_an_exception_of_a_signal_handler_is_raised_unchanged(any_server: ProviderServer, when: str) -> None:
    """Celery's soft time limit does this. It is an Exception, but not a fault that a retry could mend."""

    class TooLongError(Exception):
        pass

    def strike(*_: object) -> None:
        raise TooLongError

    any_server.reply(Reply(before_headers=[Stall()]) if when == "headers" else Reply(Stall()), Reply(text("b"), END))
    model = RetryingModel(model_of(any_server))
    before = signal.signal(signal.SIGUSR1, strike)
    soon = _interrupt_soon(any_server, signal.SIGUSR1)
    try:
        with pytest.raises(TooLongError):
            model.chat_stream(HI).collect()
    finally:
        soon.join()
        signal.signal(signal.SIGUSR1, before)
    assert any_server.wait_hung_up()
    assert len(any_server.requests) == 1
    assert model.chat_stream(HI).collect().text == "b"


def _interrupt_soon(server: ProviderServer, number: int = signal.SIGINT) -> threading.Thread:
    """Interrupt the blocked call of the main thread, as Ctrl-C does, once the server has its request."""
    main = threading.main_thread().ident
    assert main is not None

    def interrupt() -> None:
        assert server.wait_for_requests(1)
        time.sleep(0.1)  # the main thread goes on to wait for the reply
        signal.pthread_kill(main, number)

    thread = threading.Thread(target=interrupt, daemon=True)
    thread.start()
    return thread
