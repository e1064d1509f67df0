"""A limit on streams that are open at once."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterable

from completion.contract.chunks import StreamChunk
from completion.contract.errors import stream_cancelled
from completion.offload.tasks import _cancel_from_any_thread


class Paced:
    """An asynchronous iterator of anybody's making, waited for without ending it; used as AsyncChatStream is.

    One task reads it from its first chunk to its last: what its code has set up between two of them, such as a context
    variable or a timeout, is still there.
    """

    def __init__(self, chunks: AsyncIterable[StreamChunk]) -> None:
        self._source = chunks
        self._slot = _Slot()
        self._task: asyncio.Task[None] | None = None

    @property
    def has_more_now(self) -> bool:
        return bool(self._slot.chunks)

    async def next_within(self, seconds: float | None) -> StreamChunk | None:
        task, slot = self._task, self._slot
        if task is None:
            task = self._task = asyncio.ensure_future(slot.fill(self._source))
            task.add_done_callback(slot.end)
        if not slot.chunks and not slot.is_over:
            slot.news.clear()
            loop = asyncio.get_running_loop()
            timer = None if seconds is None else loop.call_later(seconds, slot.news.set)
            try:
                await slot.news.wait()
            except BaseException:
                self.cancel()
                raise
            finally:
                if timer is not None:
                    timer.cancel()
        if slot.chunks:
            return slot.take()
        if not slot.is_over:
            return None
        if task.cancelled():
            raise stream_cancelled(None, None)
        error = task.exception()
        if error is not None:
            raise error
        raise StopAsyncIteration

    def cancel(self) -> None:
        """End it, from any thread."""
        task = self._task
        if task is not None:
            _cancel_from_any_thread(task.get_loop(), task)

    async def aclose(self) -> None:
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
    """Where the task that reads puts a chunk, and waits until it is taken. It does not know who takes it."""

    def __init__(self) -> None:
        self.chunks: deque[StreamChunk] = deque()
        self.news = asyncio.Event()
        self.is_over = False
        self._room = asyncio.Event()

    async def fill(self, source: AsyncIterable[StreamChunk]) -> None:
        try:
            async for chunk in source:
                self.chunks.append(chunk)
                self.news.set()
                self._room.clear()
                await self._room.wait()
        finally:
            close = getattr(source, "aclose", None)
            if close is not None:
                await close()

    def take(self) -> StreamChunk:
        self._room.set()
        return self.chunks.popleft()

    def end(self, task: asyncio.Task[None]) -> None:
        self.is_over = True
        self.news.set()
        if not task.cancelled():
            task.exception()  # whoever reads gets it; where nobody does any more, asyncio need not complain
