"""Wakes the tasks of an event loop that wait for a worker thread.

    worker threads: pump -> Waiter.wake_from_any_thread -> SharedWaker  =>  the loop: look -> the waiting tasks

Waking a loop from a thread costs more than reading a chunk. So all streams of a loop share one SharedWaker. While
chunks are rare, it wakes the loop for each. While they are frequent, over all streams together, the loop looks every
two milliseconds by itself, and the threads only leave a note.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import ClassVar

from completion.contract.chunks import StreamChunk
from completion.offload.pump import Pump

_LOOK_S = 0.002
_FREQUENT = 2
"""How many chunks a look must find, so that another look follows it. Fewer are cheaper to be woken for."""

_RECENT_LOOKS = 4
"""So many looks within ``_LOOK_S`` mean that chunks are frequent."""


class SharedWaker:
    """The waker of one event loop. ``of`` returns it; it exists as long as a stream uses it."""

    _by_loop: ClassVar[weakref.WeakValueDictionary[int, SharedWaker]] = weakref.WeakValueDictionary()
    _lock = threading.Lock()

    @classmethod
    def of(cls, loop: asyncio.AbstractEventLoop) -> SharedWaker:
        with cls._lock:
            waker = cls._by_loop.get(id(loop))
            if waker is None or waker.loop is not loop:
                waker = cls._by_loop[id(loop)] = cls(loop)
            return waker

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._notes: deque[Waiter] = deque()
        self._will_look = False
        self._timer: asyncio.TimerHandle | None = None
        self._looked_at: deque[float] = deque([-1.0] * _RECENT_LOOKS, maxlen=_RECENT_LOOKS)

    def note(self, waiter: Waiter) -> None:
        """The loop shall look at this waiter. May be called in any thread.

        The note is left before ``_will_look`` is read, and ``_look`` resets ``_will_look`` before it looks for notes
        once more. So no note is missed.
        """
        self._notes.append(waiter)
        if not self._will_look:
            self._will_look = True
            self.look_now()

    def look_now(self) -> None:
        """Wake the loop. May be called in any thread."""
        with suppress(RuntimeError):  # raised by a closed loop, whose streams are cancelled anyway
            self.loop.call_soon_threadsafe(self._look)

    def _on_timer(self) -> None:
        self._timer = None
        self._look()

    def _look(self) -> None:
        """Wake the tasks of all waiters that were noted."""
        notes, found = self._notes, 0
        for _ in range(len(notes)):
            found += notes.popleft().wake()
        now = self.loop.time()
        self._looked_at.append(now)
        if self._timer is not None:  # a look follows anyway
            return
        if found >= _FREQUENT or (found and now - self._looked_at[0] < _LOOK_S):
            self._timer = self.loop.call_later(_LOOK_S, self._on_timer)
            return
        self._will_look = False
        if notes:
            self._will_look = True
            self.loop.call_soon(self._look)


class Waiter:
    """Wakes the tasks that wait for one pump.

    It has no reference to the stream, so that the worker does not keep a dropped stream alive.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._shared = SharedWaker.of(loop)
        self._waiting: set[asyncio.Future[None]] = set()
        self._chunks: deque[StreamChunk] = deque()  # of the pump; the pump itself would be a circle of references

    def wake_from_any_thread(self) -> None:
        self._shared.note(self)

    def hurry_from_any_thread(self) -> None:
        """Wake the loop at once, also while it looks by itself."""
        self._shared.look_now()

    @property
    def is_in_this_loop(self) -> bool:
        """The caller runs in this waiter's loop. False in a forked child, where this loop does not run."""
        with suppress(RuntimeError):
            return asyncio.get_running_loop() is self.loop
        return False

    async def wait_until(self, condition: Callable[[], bool], pump: Pump, seconds: float | None = None) -> bool:
        """Wait until the condition is true; False when the time is up first. The pump must wake us when it changes."""
        ends_at = None if seconds is None else self.loop.time() + seconds
        self._chunks = pump.chunks
        while not condition():
            if ends_at is not None and self.loop.time() >= ends_at:
                return False
            waiting = self.loop.create_future()
            self._waiting.add(waiting)
            timer = None if ends_at is None else self.loop.call_at(ends_at, self.wake)
            pump.is_awaited = True
            try:
                # Look once more: the pump does not wake us for a change that it made before `is_awaited` was set.
                if not condition():
                    await waiting
            finally:
                self._waiting.discard(waiting)
                pump.is_awaited = bool(self._waiting)
                if timer is not None:
                    timer.cancel()
        return True

    def wake(self) -> int:
        """Wake the waiting tasks. Returns how many chunks they will find."""
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_result(None)
        return len(self._chunks)
