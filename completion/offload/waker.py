"""Wakes the tasks of an event loop that wait for a worker thread.

    worker threads: pump -> Waiter.wake_from_any_thread -> SharedWaker  =>  the loop: poll -> the waiting tasks

Waking a loop from a thread costs more than reading a chunk. So all streams of a loop share one SharedWaker. While
chunks are rare, it wakes the loop for each. While they are frequent, over all streams together, the loop polls every
two milliseconds, and the threads only add their waiter to a queue.
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

_POLL_S = 0.002
_FREQUENT = 2
"""If a poll finds this many chunks, the loop polls again. For fewer, it is cheaper to wake the loop for each."""

_RECENT_POLLS = 4
"""This many polls within ``_POLL_S`` mean that chunks are frequent."""


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
        self._queue: deque[Waiter] = deque()
        self._will_poll = False
        self._timer: asyncio.TimerHandle | None = None
        self._polled_at: deque[float] = deque([-1.0] * _RECENT_POLLS, maxlen=_RECENT_POLLS)

    def wake_soon(self, waiter: Waiter) -> None:
        """Make the loop wake the tasks of this waiter. May be called in any thread.

        The waiter is queued before ``_will_poll`` is read. ``_poll`` resets ``_will_poll`` before it checks the queue
        once more. So no waiter is missed.
        """
        self._queue.append(waiter)
        if not self._will_poll:
            self._will_poll = True
            self.poll_soon()

    def poll_soon(self) -> None:
        """Wake the loop. May be called in any thread."""
        with suppress(RuntimeError):  # raised by a closed loop, whose streams are cancelled anyway
            self.loop.call_soon_threadsafe(self._poll)

    def _on_timer(self) -> None:
        self._timer = None
        self._poll()

    def _poll(self) -> None:
        """Wake the tasks of all queued waiters."""
        queue, found = self._queue, 0
        for _ in range(len(queue)):
            found += queue.popleft().wake()
        now = self.loop.time()
        self._polled_at.append(now)
        if self._timer is not None:  # the timer polls again anyway
            return
        if found >= _FREQUENT or (found and now - self._polled_at[0] < _POLL_S):
            self._timer = self.loop.call_later(_POLL_S, self._on_timer)
            return
        self._will_poll = False
        if queue:
            self._will_poll = True
            self.loop.call_soon(self._poll)


class Waiter:
    """Wakes the tasks that wait for one pump.

    It has no reference to the stream, so that the worker does not keep a dropped stream alive.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._shared = SharedWaker.of(loop)
        self._waiting: set[asyncio.Future[None]] = set()
        self._chunks: deque[StreamChunk] = deque()  # those of the pump; a reference to the pump would be a cycle

    def wake_from_any_thread(self) -> None:
        self._shared.wake_soon(self)

    def hurry_from_any_thread(self) -> None:
        """Wake the loop at once, also while it polls by timer."""
        self._shared.poll_soon()

    @property
    def is_in_this_loop(self) -> bool:
        """The caller runs in this waiter's loop. False in a forked child, where this loop does not run."""
        with suppress(RuntimeError):
            return asyncio.get_running_loop() is self.loop
        return False

    async def wait_until(self, condition: Callable[[], bool], pump: Pump, seconds: float | None = None) -> bool:
        """Wait until the condition is true; False if the time is up first. The pump must wake us when it changes."""
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
                # Check once more: the pump does not wake us for a change that it made before `is_awaited` was set.
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
