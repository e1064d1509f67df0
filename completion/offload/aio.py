"""The stream under an event loop: the only door to asyncio.

    async with AsyncModel(model).chat_stream(req) as stream:
        async for chunk in stream: ...

The blocking model runs in a worker thread (``offload``); here is what waits for it. A stream ends with the task that
reads it, with the loop, with the last reference to it, or by ``aclose()``, and its connection ends at the same moment.
"""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Executor
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Any, Final, TypeVar

from completion.contract.checks import require_model
from completion.contract.chunks import StreamChunk, TurnFinished
from completion.contract.errors import CompletionError, stream_cancelled
from completion.contract.model import CompletionModel
from completion.contract.request import ChatRequest
from completion.contract.stream import Chunks, ResponseInfo, response_of
from completion.contract.turn import Turn, TurnSoFar
from completion.offload.pump import Pump
from completion.offload.threads import Threads

T = TypeVar("T")

# For the worker to notice that its stream was closed; what blocks it longer (a TCP connect) ends without us.
_GOODBYE_SECONDS: Final = 0.5
# For it to give the connection back after the end of the turn.
_LAST_WORD_SECONDS: Final = 0.05
# Where chunks follow each other so fast, they are left to gather for a moment: waking a loop costs more than a chunk.
_DENSE_SECONDS: Final = 0.001
_DENSE_BUFFER: Final = 64  # fewer would be full by then
_FOR_EVER_SECONDS: Final = 1e9


class AsyncModel:
    """A CompletionModel whose streams are read by asyncio; each is pumped by a worker thread.

    Safe to share between loops and threads; pickles where ``model`` does.

    Args:
        model: any CompletionModel. Wrappers go inside: ``AsyncModel(RetryingModel(model))``.
        executor: where the workers run; it must give threads. None: daemon threads, one a stream, which end with it.
        buffer: so many chunks may wait for the loop; then the worker stops reading, and so does the socket.
        max_streams: so many streams run at a time, where no executor is given; others wait for their turn.

    Raises:
        TypeError, ValueError: arguments that make no sense.
    """

    __is_asynchronous__ = True

    def __init__(
        self, model: CompletionModel, executor: Executor | None = None, buffer: int = 256, max_streams: int = 1024
    ) -> None:
        require_model(model, "AsyncModel")
        if executor is not None and not isinstance(executor, Executor):
            raise TypeError(f"executor= takes a concurrent.futures.Executor, got {type(executor).__name__}")
        for name, number in (("buffer", buffer), ("max_streams", max_streams)):
            if isinstance(number, bool) or not isinstance(number, int) or number < 1:
                raise ValueError(f"AsyncModel: {name} must be a whole number from 1 on, got {number!r}")
        self.inner = model
        self._arguments = (model, executor, buffer, max_streams)
        self._executor = executor or Threads(max_streams)
        self._buffer = buffer

    @property
    def name(self) -> str:
        """The adapter family of the inner model."""
        return self.inner.name

    @property
    def model(self) -> str:
        """The id that the inner model is bound to."""
        return self.inner.model

    def chat_stream(self, req: ChatRequest | str) -> AsyncChatStream:
        """The answer as a stream that is not open yet: enter it, await it, or begin to read.

        What keeps it from opening is raised there, and what breaks it later by ``async for``.
        """
        return self.stream(partial(self.inner.chat_stream, ChatRequest(req) if isinstance(req, str) else req))

    def stream(self, source: Callable[[], Chunks]) -> AsyncChatStream:
        """Any blocking stream that a function opens, in the same manner: ``stream(partial(run_chat, model, req))``."""
        if not callable(source):
            raise TypeError(
                f"AsyncModel.stream takes a function that opens the stream, got {type(source).__name__}: "
                "partial(run_chat, model, request)"
            )
        return AsyncChatStream(
            source, executor=self._executor, buffer=self._buffer, provider=self.name, model=self.model
        )

    def __reduce__(self) -> tuple[type[AsyncModel], tuple[Any, ...]]:
        return AsyncModel, self._arguments

    def __repr__(self) -> str:
        return f"AsyncModel({self.inner!r})"


class AsyncChatStream:
    """An asynchronous iterator of chunks that is also an asynchronous context manager.

    ``async with`` opens it and hangs up at the end; ``stream = await model.chat_stream(req)`` opens it for somebody
    else to close. It belongs to the loop that opened it, and one task at a time reads from it. A task that is
    cancelled while it waits here takes the connection along: whoever reads on gets StreamCancelledError.
    """

    def __init__(
        self, source: Callable[[], Chunks], *, executor: Executor, buffer: int, provider: str, model: str
    ) -> None:
        self._source = source
        self._executor = executor
        self._buffer = buffer
        self._origin = (provider, model)
        self._pump: Pump | None = None
        self._bell: _Bell | None = None
        self._untether: weakref.finalize[..., Any] | None = None
        self._chunks: deque[StreamChunk] = deque()
        self._last: StreamChunk | None = None
        self._in_a_row = 0
        self._emptied_at = 0.0
        self._is_read = False
        self._is_cancelled = False
        self._is_over = False

    @property
    def response(self) -> ResponseInfo:
        """What is known of the HTTP response.

        Raises:
            RuntimeError: the stream is not open yet.
        """
        if self._pump is None or self._pump.stream is None:
            raise RuntimeError("the stream is not open yet: enter it with `async with`, or await it")
        return response_of(self._pump.stream)

    async def open(self) -> AsyncChatStream:
        """Open the stream, unless it is open; the same as awaiting it.

        Raises:
            CompletionError: what keeps it from opening.
            RuntimeError: it was closed, or it was opened in another loop.
        """
        pump, bell = self._begun()
        try:
            await bell.until(lambda: pump.stream is not None or pump.is_over or pump.token.cancelled, pump)
        except BaseException:
            self._close()
            raise
        if self._is_over:  # another task closed it
            raise stream_cancelled(*self._origin)
        if pump.stream is None:
            self._raise_end()
        return self

    def __await__(self) -> Generator[Any, None, AsyncChatStream]:
        return self.open().__await__()

    async def __aenter__(self) -> AsyncChatStream:
        return await self.open()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __aiter__(self) -> AsyncChatStream:
        return self

    async def __anext__(self) -> StreamChunk:
        if not self._chunks or self._in_a_row >= self._buffer:
            await self._more()
        assert self._pump is not None
        self._in_a_row += 1
        self._last = chunk = self._pump.take()
        return chunk

    async def next_within(self, seconds: float | None) -> StreamChunk | None:
        """The next chunk, or None when none comes in so many seconds; the stream goes on.

        Raises:
            StopAsyncIteration: the turn is over.
        """
        if not self._chunks and not await self._more(seconds):
            return None
        return await self.__anext__()

    @property
    def has_more_now(self) -> bool:
        """The next chunk is here already."""
        return bool(self._chunks)

    async def collect(self) -> Turn:
        """Drain the stream and return the turn.

        Raises:
            CompletionError: as reading does; ``partial`` is the Turn so far.
            RuntimeError: somebody has read from the stream or closed it; the chunks are not kept.
        """
        if self._last is not None or self._is_over:
            raise RuntimeError("collect() needs a stream that nobody has read from or closed")
        async with self:
            with TurnSoFar() as so_far:
                async for chunk in self:
                    so_far.add(chunk)
        return so_far.turn()

    async def aclose(self) -> None:
        """Hang up. Idempotent. The connection is closed when this begins to wait, at most half a second, for the
        worker thread to be done."""
        pump, bell = self._pump, self._bell
        if pump is None or bell is None or self._is_over:
            self._close()
            return
        if not bell.is_here:
            self.cancel()
            return
        if isinstance(self._last, TurnFinished):
            await bell.until(lambda: pump.is_over, pump, _LAST_WORD_SECONDS)
        self._close()
        await bell.until(lambda: pump.is_over, pump, _GOODBYE_SECONDS)

    def cancel(self) -> None:
        """End the stream from any thread: whoever reads from it, now or later, gets StreamCancelledError."""
        self._is_cancelled = True
        if self._pump is not None and not self._is_over:
            self._pump.token.cancel()

    def _begun(self) -> tuple[Pump, _Bell]:
        """The pump, started if need be. Raises as ``open()`` does."""
        loop = asyncio.get_running_loop()
        if self._is_over:
            raise RuntimeError("this stream was closed; chat_stream() gives another one")
        if self._is_cancelled and self._pump is None:
            self._close()
            raise stream_cancelled(*self._origin)
        if self._pump is None or self._bell is None:
            bell = _Bell(loop)
            pump = Pump(self._source, limit=self._buffer, wake=bell.ring)
            try:
                pump.start(self._executor)
            except CompletionError as error:
                error.provider, error.model = self._origin
                raise
            self._pump, self._bell, self._chunks = pump, bell, pump.chunks
            # Nobody tells that a loop is closed, but its timers are dropped then.
            timer = weakref.ref(loop.call_later(_FOR_EVER_SECONDS, _Tether(pump.token.cancel)))
            self._untether = weakref.finalize(self, _cancel_timer, loop, timer)
            self._untether.atexit = False
        elif self._bell.loop is not loop:
            raise RuntimeError("this stream was opened in another event loop")
        return self._pump, self._bell

    async def _more(self, seconds: float | None = None) -> bool:
        """Wait for a chunk; False when none came in time. Others get a turn of the loop in any case."""
        if self._is_over and self._pump is not None:
            raise StopAsyncIteration
        if self._is_read:
            raise RuntimeError("another task is reading from this stream already")
        self._is_read = True
        self._in_a_row = 0
        try:
            pump, bell = self._begun()
            if self._chunks:
                await asyncio.sleep(0)
            elif self._buffer >= _DENSE_BUFFER and bell.loop.time() - self._emptied_at < _DENSE_SECONDS:
                await asyncio.sleep(_DENSE_SECONDS)
            if not await bell.until(lambda: pump.has_news, pump, seconds):
                return False
        except BaseException:
            self._cut()
            raise
        finally:
            self._is_read = False
        if self._is_over:  # another task closed it
            raise stream_cancelled(*self._origin)
        if not self._chunks or pump.token.cancelled:
            self._raise_end()
        self._emptied_at = bell.loop.time()
        return True

    def _raise_end(self) -> None:
        """Raise what the reader has to know when nothing more comes."""
        pump = self._pump
        assert pump is not None
        was_over, was_cancelled = self._is_over, pump.token.cancelled
        error, pump.error = pump.error, None
        self._close()
        if was_over:
            raise StopAsyncIteration
        if was_cancelled:
            raise stream_cancelled(*self._origin)
        if error is not None:
            try:
                raise error
            finally:
                del error  # contract/frames.py says why
        raise StopAsyncIteration

    def _cut(self) -> None:
        """The reader was cancelled. Nothing is taken from the buffer any more: what is left of the answer would look
        like all of it."""
        if self._pump is not None and not self._is_over:
            self._pump.token.cancel()
            self._chunks = deque()

    def _close(self) -> None:
        self._is_over = True
        self._chunks = deque()
        if self._pump is not None and not self._pump.is_over:
            self._pump.token.cancel()
        if self._untether is not None:
            self._untether()

    def __del__(self) -> None:
        pump = getattr(self, "_pump", None)
        if pump is not None and not pump.is_over:
            pump.token.cancel()

    def __repr__(self) -> str:
        state = "over" if self._is_over else "not open" if self._pump is None else "open"
        return f"<AsyncChatStream {state}>"


class _Bell:
    """Wakes the tasks of a loop that wait for a pump. It does not know the stream, which may be dropped meanwhile."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._waiting: set[asyncio.Future[None]] = set()

    def ring(self) -> None:
        """In any thread."""
        with suppress(RuntimeError):  # the loop is closed: its streams were cancelled with it
            self.loop.call_soon_threadsafe(self._wake)

    @property
    def is_here(self) -> bool:
        """This is a task of the same loop; in a forked child none is."""
        with suppress(RuntimeError):
            return asyncio.get_running_loop() is self.loop
        return False

    async def until(self, condition: Callable[[], bool], pump: Pump, seconds: float | None = None) -> bool:
        """Wait for the condition, which holds only after the pump has news; False when the time was up before."""
        ends_at = None if seconds is None else self.loop.time() + seconds
        while not condition():
            if ends_at is not None and self.loop.time() >= ends_at:
                return False
            waiting = self.loop.create_future()
            self._waiting.add(waiting)
            timer = None if ends_at is None else self.loop.call_at(ends_at, self._wake)
            pump.is_awaited = True
            try:
                if not condition():  # it may have come before the pump could know that it is awaited
                    await waiting
            finally:
                self._waiting.discard(waiting)
                pump.is_awaited = bool(self._waiting)
                if timer is not None:
                    timer.cancel()
        return True

    def _wake(self) -> None:
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_result(None)


class _Tether:
    """Calls ``on_drop`` when the timer that holds it is dropped."""

    def __init__(self, on_drop: Callable[[], None]) -> None:
        self._on_drop = on_drop

    def __call__(self) -> None:
        pass

    def __del__(self) -> None:
        self._on_drop()


def _cancel_timer(loop: asyncio.AbstractEventLoop, timer: weakref.ref[asyncio.TimerHandle]) -> None:
    """From any thread."""
    handle = timer()
    if handle is not None:
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(handle.cancel)
