"""An asynchronous iterator that can be waited for with a time limit, without ending it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterable
from typing import Any, Final

from completion.contract.chunks import StreamChunk
from completion.contract.errors import stream_cancelled
from completion.offload.tasks import cancel_from_any_thread

NOT_YET: Final[Any] = object()
"""What ``next_within`` returns when no chunk arrives in time. None may be a growing value: the JSON value null."""


class Paced:
    """Wraps any asynchronous iterator of chunks. Has the methods of AsyncChatStream that ``web`` needs.

    Why not ``asyncio.wait_for(anext(chunks), seconds)``: it cancels the iterator when the time is up. Why one task for
    all of it, and not one per chunk: each task has its own context. What the iterator sets between two chunks, such as
    a context variable or ``asyncio.timeout()``, must still be there at the next one.
    """

    def __init__(self, chunks: AsyncIterable[StreamChunk]) -> None:
        self._source = chunks
        self._slot = _Slot()
        self._task: asyncio.Task[None] | None = None

    @property
    def has_more_now(self) -> bool:
        """The next chunk has already arrived."""
        return bool(self._slot.chunks)

    async def next_within(self, seconds: float | None) -> StreamChunk:
        """The next chunk, or NOT_YET when none arrives in this time (None: no limit); the iterator goes on.

        Raises:
            StopAsyncIteration: the iterator has ended.
        """
        task, slot = self._task, self._slot
        if task is None:
            task = self._task = asyncio.ensure_future(slot.fill(self._source))
            task.add_done_callback(slot.end)
        if not slot.chunks and not slot.is_over:
            slot.changed.clear()
            loop = asyncio.get_running_loop()
            timer = None if seconds is None else loop.call_later(seconds, slot.changed.set)
            try:
                await slot.changed.wait()
            except BaseException:
                self.cancel()
                raise
            finally:
                if timer is not None:
                    timer.cancel()
        if slot.chunks:
            return slot.take()
        if not slot.is_over:
            return NOT_YET  # type: ignore[no-any-return]
        if task.cancelled():
            raise stream_cancelled(None, None)
        error = task.exception()
        if error is not None:
            raise error
        raise StopAsyncIteration

    def cancel(self) -> None:
        """Cancel the iterator, from any thread."""
        task = self._task
        if task is not None:
            cancel_from_any_thread(task.get_loop(), task)

    async def aclose(self) -> None:
        """Close the iterator and wait until it is closed."""
        task = self._task
        if task is not None:
            task.cancel()
            await asyncio.wait({task})
            return
        close = getattr(self._source, "aclose", None)
        if close is not None:
            await close()

    def __del__(self) -> None:
        if getattr(self, "_task", None) is not None:
            self.cancel()


class _Slot:
    """Room for one chunk, between the task that reads the iterator and the reader.

    It has no reference to ``Paced``, so that the task does not keep a dropped ``Paced`` alive.
    """

    def __init__(self) -> None:
        self.chunks: deque[StreamChunk] = deque()
        self.changed = asyncio.Event()
        self.is_over = False
        self._is_taken = asyncio.Event()

    async def fill(self, source: AsyncIterable[StreamChunk]) -> None:
        """Read the iterator to its end. Waits after each chunk until the reader has taken it."""
        try:
            async for chunk in source:
                self.chunks.append(chunk)
                self.changed.set()
                self._is_taken.clear()
                await self._is_taken.wait()
        finally:
            close = getattr(source, "aclose", None)
            if close is not None:
                await close()

    def take(self) -> StreamChunk:
        self._is_taken.set()
        return self.chunks.popleft()

    def end(self, task: asyncio.Task[None]) -> None:
        self.is_over = True
        self.changed.set()
        if not task.cancelled():
            # Marks the error as retrieved: asyncio would log it if the reader is gone.
            task.exception()
