"""Ending a blocked call from another thread.

A token is asked by whoever may block (a read, a wait for headers, a retry's sleep) and woken by anybody:

    with CancelToken() as token:            # every stream opened inside is bound to it
        threading.Timer(5, token.cancel).start()
        for chunk in model.chat_stream(req): ...
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextvars import ContextVar
from types import TracebackType
from typing import NamedTuple

from completion.contract.errors import StreamCancelledError

log = logging.getLogger(__name__)


class _Binding(NamedTuple):
    """One ``with token:`` that a thread or task is inside of."""

    token: CancelToken
    unbind: Callable[[], None]
    outer: _Binding | None


# Kept here and not in the token, which several threads may be inside of.
_current: ContextVar[_Binding | None] = ContextVar("completion_cancel_token", default=None)


class CancelToken:
    """A flag that any thread may raise once, and that wakes those who wait.

    As a context manager it binds every stream that this thread (or task) opens inside, nested tokens included. It
    ends a wait for headers and a blocked read at once; a TCP connect in progress ends with ``Timeout.connect``.
    """

    __slots__ = ("__weakref__", "_wakers", "cancelled")

    cancelled: bool
    """True from the moment of ``cancel()`` on."""

    def __init__(self) -> None:
        self.cancelled = False
        # No lock: a signal handler may cancel while this very thread is inside. Each step on a dict is atomic.
        self._wakers: dict[object, Callable[[], object]] = {}

    def cancel(self) -> None:
        """End what is bound to this token. Idempotent, callable from any thread and from a signal handler."""
        self.cancelled = True
        while self._wakers:
            try:
                _, wake = self._wakers.popitem()
            except KeyError:  # another thread took the last one
                return
            try:
                wake()
            except Exception:
                log.exception("a waker of a CancelToken failed")

    def on_cancel(self, wake: Callable[[], object]) -> Callable[[], None]:
        """Have ``wake`` called, in the cancelling thread, at most once; at once when it is cancelled already.

        Returns a function that takes it back.
        """
        key = object()
        self._wakers[key] = wake
        if self.cancelled and self._wakers.pop(key, None) is not None:
            wake()
        return lambda: self._forget(key)

    def _forget(self, key: object) -> None:
        self._wakers.pop(key, None)

    def sleep(self, seconds: float) -> None:
        """Sleep, unless cancelled.

        Raises:
            StreamCancelledError: at once when the token is cancelled, before or during the sleep.
        """
        # A bare lock: an Event is not safe against a signal handler that cancels while this thread is inside of it.
        gate = threading.Lock()
        gate.acquire()
        forget = self.on_cancel(gate.release)
        try:
            if gate.acquire(timeout=min(max(seconds, 0), threading.TIMEOUT_MAX)):
                raise StreamCancelledError("cancelled while waiting")
        finally:
            forget()

    @classmethod
    def bound(cls) -> tuple[CancelToken, Callable[[], None]]:
        """A new token that is cancelled together with the current one, and a function that unties the two."""
        token, outer = cls(), cls.current()
        return token, (_nothing if outer is None else outer.on_cancel(token.cancel))

    @classmethod
    def current(cls) -> CancelToken | None:
        """The innermost token that this thread or task is inside of."""
        binding = _current.get()
        return None if binding is None else binding.token

    def __enter__(self) -> CancelToken:
        outer = _current.get()
        unbind = outer.token.on_cancel(self.cancel) if outer is not None else _nothing
        _current.set(_Binding(self, unbind, outer))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        binding = _current.get()
        while binding is not None and binding.token is not self:
            binding = binding.outer  # a generator that was left in the middle may stand between
        if binding is not None:
            _current.set(binding.outer)
            binding.unbind()


def _nothing() -> None:
    pass
