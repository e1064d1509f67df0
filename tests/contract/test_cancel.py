"""CancelToken: when wakers are called, and which token is bound to which."""

from __future__ import annotations

import contextvars
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from completion import CancelToken, StreamCancelledError

PATIENCE = 10
"""How many seconds a test waits for another thread before it fails."""


def test_cancel_calls_each_waker_once() -> None:
    token, called = CancelToken(), list[str]()
    token.on_cancel(lambda: called.append("a"))
    token.on_cancel(lambda: called.append("b"))
    token.cancel()
    token.cancel()
    assert token.cancelled
    assert sorted(called) == ["a", "b"]


def test_a_waker_registered_after_cancel_is_called_at_once() -> None:
    token, called = CancelToken(), list[str]()
    token.cancel()
    remove = token.on_cancel(lambda: called.append("a"))
    remove()
    assert called == ["a"]


def test_a_removed_waker_is_not_called() -> None:
    token, called = CancelToken(), list[str]()
    remove = token.on_cancel(lambda: called.append("a"))
    remove()
    remove()
    token.cancel()
    assert called == []


def test_a_waker_may_call_cancel() -> None:
    token = CancelToken()
    token.on_cancel(token.cancel)
    token.cancel()
    assert token.cancelled


@pytest.mark.parametrize("seconds", [-1, 0, 0.001])
def test_a_sleep_ends_when_its_time_is_over(seconds: float) -> None:
    CancelToken().sleep(seconds)


@pytest.mark.parametrize("seconds", [-1, 0, 1e300])
def test_a_sleep_under_a_cancelled_token_ends_at_once(seconds: float) -> None:
    token = CancelToken()
    token.cancel()
    with pytest.raises(StreamCancelledError, match="cancelled while waiting"):
        token.sleep(seconds)


def test_a_sleep_ends_when_another_thread_cancels() -> None:
    token = CancelToken()
    with ThreadPoolExecutor(1) as pool:
        sleeping = pool.submit(token.sleep, 3600)
        token.cancel()
        with pytest.raises(StreamCancelledError):
            sleeping.result(PATIENCE)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGALRM")
def test_a_signal_handler_may_cancel_the_sleep_of_its_own_thread() -> None:
    token = CancelToken()
    before = signal.signal(signal.SIGALRM, lambda *_: token.cancel())
    signal.setitimer(signal.ITIMER_REAL, 0.01)
    began = time.monotonic()
    try:
        with pytest.raises(StreamCancelledError):
            token.sleep(PATIENCE)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert time.monotonic() - began < PATIENCE


def test_the_innermost_token_is_the_current_one() -> None:
    assert CancelToken.current() is None
    with CancelToken() as outer:
        with CancelToken() as inner:
            assert CancelToken.current() is inner
        assert CancelToken.current() is outer
    assert CancelToken.current() is None


def test_cancelling_the_outer_token_cancels_the_inner_one() -> None:
    with CancelToken() as outer, CancelToken() as inner:
        inner.cancel()
        assert not outer.cancelled
        with CancelToken() as innermost:
            outer.cancel()
            assert innermost.cancelled


def test_after_its_block_a_token_is_not_cancelled_with_the_outer_one() -> None:
    with CancelToken() as outer:
        with CancelToken() as inner:
            pass
        outer.cancel()
    assert not inner.cancelled


def test_a_token_opened_under_a_cancelled_one_is_cancelled() -> None:
    with CancelToken() as outer:
        outer.cancel()
        with CancelToken() as inner:
            assert inner.cancelled


def test_the_blocks_of_one_token_may_be_nested() -> None:
    token = CancelToken()
    with token:
        with token:
            assert CancelToken.current() is token
        assert CancelToken.current() is token
    assert CancelToken.current() is None


def test_another_thread_has_no_current_token() -> None:
    with CancelToken(), ThreadPoolExecutor(1) as pool:
        assert pool.submit(CancelToken.current).result(PATIENCE) is None


def test_a_copied_context_has_the_same_current_token() -> None:
    with CancelToken() as token, ThreadPoolExecutor(1) as pool:
        context = contextvars.copy_context()
        assert pool.submit(context.run, CancelToken.current).result(PATIENCE) is token


def test_threads_that_share_a_token_may_leave_it_in_any_order() -> None:
    token, is_inside, may_leave = CancelToken(), threading.Event(), threading.Event()

    def other() -> CancelToken | None:
        with token:
            is_inside.set()
            assert may_leave.wait(PATIENCE)
        return CancelToken.current()

    with ThreadPoolExecutor(1) as pool:
        with token:
            left = pool.submit(other)
            assert is_inside.wait(PATIENCE)
        may_leave.set()
        assert left.result(PATIENCE) is None
    assert CancelToken.current() is None


def test_after_a_waker_fails_the_others_are_called(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    token, called = CancelToken(), list[str]()
    token.on_cancel(lambda: called.append("a"))
    token.on_cancel(fail)
    token.on_cancel(lambda: called.append("c"))
    token.cancel()
    assert sorted(called) == ["a", "c"]
    assert "a waker of a CancelToken failed" in caplog.text
