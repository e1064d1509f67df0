"""Cancel a blocked call from another thread.

Each call that may block (a read, the wait for headers, a retry's sleep) registers a waker with the token; ``cancel()``
calls the wakers:

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

log: logging.Logger = logging.getLogger(__name__)


class _Binding(NamedTuple):
    """One ``with token:`` block that the current thread or task is in, and the block around it."""

    token: CancelToken
    unbind: Callable[[], None]
    outer: _Binding | None


# A context variable and not an attribute of the token: several threads may be in ``with`` blocks of the same token.
_current: ContextVar[_Binding | None] = ContextVar("completion_cancel_token", default=None)


class CancelToken:
    """A flag that any thread may set once. It ends the calls that are bound to the token.

    As a context manager it binds every stream and every other token that this thread (or task) opens inside.
    ``cancel()`` ends a wait for headers and a blocked read at once. A TCP connect in progress cannot be interrupted: it
    ends after ``Timeout.connect``.
    """

    __slots__ = ("__weakref__", "_wakers", "cancelled")

    cancelled: bool
    """True once ``cancel()`` was called."""

    def __init__(self) -> None:
        self.cancelled = False
        # No lock: a signal handler may call cancel() while its own thread holds the lock, and would wait forever. The
        # operations of a dict are atomic.
        self._wakers: dict[object, Callable[[], object]] = {}

    def cancel(self) -> None:
        """End everything that is bound to this token. Idempotent; may be called from any thread or signal handler."""
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
        """Register a function that ``cancel()`` calls, in the thread that cancels and at most once.

        If the token is cancelled already, ``wake`` is called before this method returns. Returns a function that
        removes ``wake`` again.
        """
        key = object()
        self._wakers[key] = wake
        # Checked after the waker is registered, so that a cancel() in between is not missed. The thread that removes
        # the waker from the dict calls it, so it is called once.
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
        # A bare lock, not an Event: an Event takes its own lock, and a signal handler that cancels while this thread
        # is inside would wait for it forever.
        gate = threading.Lock()
        gate.acquire()
        forget = self.on_cancel(gate.release)
        try:
            if gate.acquire(timeout=min(max(seconds, 0), threading.TIMEOUT_MAX)):
                raise StreamCancelledError("cancelled while waiting")
        finally:
            forget()

    @classmethod
    def bound_to_current(cls) -> tuple[CancelToken, Callable[[], None]]:
        """A new token that is cancelled together with the current one, and a function that unbinds the two."""
        token, outer = cls(), cls.current()
        return token, (_nothing if outer is None else outer.on_cancel(token.cancel))

    @classmethod
    def current(cls) -> CancelToken | None:
        """The token of the innermost ``with`` block that this thread or task is in."""
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
        # The innermost binding may belong to another token, if a generator is suspended inside a ``with`` block.
        while binding is not None and binding.token is not self:
            binding = binding.outer
        if binding is not None:
            _current.set(binding.outer)
            binding.unbind()


def _nothing() -> None:
    pass
