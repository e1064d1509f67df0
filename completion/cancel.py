"""Ending a blocked call from another thread.

A token is asked by whoever may block (a read, a wait for headers, a retry's sleep) and woken by anybody:

    with CancelToken() as token:            # every stream opened inside is bound to it
        threading.Timer(5, token.cancel).start()
        for chunk in model.chat_stream(req): ...
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import ContextVar, Token
from types import TracebackType

from completion.errors import StreamCancelledError

_current: ContextVar[CancelToken | None] = ContextVar("completion_cancel_token", default=None)


class CancelToken:
    """A flag that any thread may raise once, and that wakes those who wait.

    As a context manager it binds every stream that this thread (or task) opens inside, nested tokens included.
    """

    __slots__ = ("_bindings", "_lock", "_raised", "_wakers", "cancelled")

    cancelled: bool
    """True from the moment of ``cancel()`` on."""

    def __init__(self) -> None:
        self.cancelled = False
        # Reentrant: a signal handler may cancel while this very thread is inside.
        self._lock = threading.RLock()
        self._raised = threading.Event()
        self._wakers: dict[object, Callable[[], None]] = {}
        self._bindings: list[tuple[Token[CancelToken | None], Callable[[], None]]] = []

    def cancel(self) -> None:
        """End what is bound to this token. Idempotent, callable from any thread and from a signal handler."""
        with self._lock:
            self.cancelled = True
            wakers = list(self._wakers.values())
            self._wakers.clear()
        self._raised.set()
        for wake in wakers:
            wake()

    def on_cancel(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Have ``wake`` called, in the cancelling thread, at most once; at once when it is cancelled already.

        Returns a function that takes it back.
        """
        key = object()
        with self._lock:
            if not self.cancelled:
                self._wakers[key] = wake
                return lambda: self._forget(key)
        wake()
        return _nothing

    def _forget(self, key: object) -> None:
        with self._lock:
            self._wakers.pop(key, None)

    def sleep(self, seconds: float) -> None:
        """Sleep, unless cancelled.

        Raises:
            StreamCancelledError: at once when the token is cancelled, before or during the sleep.
        """
        if self._raised.wait(seconds):
            raise StreamCancelledError("cancelled while waiting")

    @classmethod
    def current(cls) -> CancelToken | None:
        """The innermost token that this thread or task is inside of."""
        return _current.get()

    def __enter__(self) -> CancelToken:
        outer = _current.get()
        unbind = outer.on_cancel(self.cancel) if outer is not None else _nothing
        self._bindings.append((_current.set(self), unbind))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        binding, unbind = self._bindings.pop()
        _current.reset(binding)
        unbind()


def _nothing() -> None:
    pass
