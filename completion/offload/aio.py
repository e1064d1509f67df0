"""Reading a blocking stream with asyncio. Only this package imports asyncio.

    async with AsyncModel(model).chat_stream(req) as stream:
        async for chunk in stream: ...

The blocking model runs in a worker thread (``pump``); this module waits for its chunks in the event loop. A stream is
cancelled, and its connection closed, by whichever comes first: the task that reads it is cancelled, the loop is closed,
the last reference to the stream is dropped, or ``aclose()`` is called.
"""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from concurrent.futures import Executor
from contextlib import suppress
from enum import Enum
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar, cast, overload

from completion.contract.checks import require_model, require_whole_number
from completion.contract.chunks import StreamChunk, TurnFinished
from completion.contract.collect import TurnSoFar
from completion.contract.errors import CompletionError, stream_cancelled
from completion.contract.model import CompletionModel, count_tokens
from completion.contract.request import ChatRequest, as_request
from completion.contract.run import Chunk
from completion.contract.stream import ChatStream, ResponseInfo, response_of
from completion.contract.turn import Turn
from completion.contract.values import ValueStream, ValueT
from completion.offload.paced import NOT_YET
from completion.offload.pump import Pump
from completion.offload.tasks import run_blocking
from completion.offload.threads import Threads
from completion.offload.waker import Waiter
from completion.wrappers.named_after import NamedAfter

# How long aclose() waits for the worker. A worker that is blocked for longer (in a TCP connect) ends later, on its own.
_CLOSE_SECONDS: Final = 0.5
# How long aclose() lets the worker read the end of the body after the end of the turn, so that the connection can be
# reused.
_REUSE_SECONDS: Final = 0.05
_FOREVER_SECONDS: Final = 1e9  # 30 years

ValueT_co = TypeVar("ValueT_co", covariant=True)


_ResultT = TypeVar("_ResultT")
_ResultT_co = TypeVar("_ResultT_co", covariant=True)


class _Collectable(Protocol[_ResultT_co]):
    """A ChatStream, a RunStream."""

    def collect(self) -> _ResultT_co: ...


class AsyncModel(NamedAfter):
    """A CompletionModel whose streams are read with asyncio. A worker thread reads each stream from the blocking model.

    Safe to share between loops and threads. Can be pickled if ``model`` can.

    Args:
        model: any CompletionModel. Wrappers go inside: ``AsyncModel(RetryingModel(model))``.
        executor: runs the workers; must be an executor of threads. None: daemon threads, one per stream, which end
            with it.
        buffer: how many chunks may wait for the loop. Then the worker stops reading, and the provider stops sending.
        max_streams: how many streams run at the same time if ``executor`` is None; others wait.

    Raises:
        TypeError, ValueError: an argument has a wrong type or value.
    """

    __is_asynchronous__ = True

    def __init__(
        self, model: CompletionModel, executor: Executor | None = None, buffer: int = 256, max_streams: int = 1024
    ) -> None:
        require_model(model, "AsyncModel")
        if executor is not None and not isinstance(executor, Executor):
            raise TypeError(
                f"AsyncModel: executor must be a concurrent.futures.Executor, got {type(executor).__name__}"
            )
        for name, number in (("buffer", buffer), ("max_streams", max_streams)):
            require_whole_number(number, f"AsyncModel: {name}")
        self.inner = self._named_after = model
        self._arguments = (model, executor, buffer, max_streams)
        self._executor = executor or Threads(max_streams)
        self._buffer = buffer

    def chat_stream(self, req: ChatRequest | str) -> AsyncChatStream:
        """The answer as a stream. It is not open yet: enter it, await it, or read from it.

        An error of opening is raised there; a later error is raised by ``async for``.
        """
        return self.stream(partial(self.inner.chat_stream, ChatRequest(req) if isinstance(req, str) else req))

    async def count_tokens(self, req: ChatRequest | str) -> int:
        """The input tokens of the request, counted in a worker thread. Cancelling the task cancels the request.

        Raises:
            UnsupportedContentError: the model cannot count tokens.
        """
        return await run_blocking(partial(count_tokens, self.inner, as_request(req)), self._executor)

    @overload
    def stream(self, source: Callable[[], ValueStream[ValueT]]) -> AsyncValueStream[ValueT]: ...
    @overload
    def stream(self, source: Callable[[], _Collectable[_ResultT]]) -> AsyncStreamOf[_ResultT]: ...
    @overload
    def stream(self, source: Callable[[], Iterator[StreamChunk]]) -> AsyncChatStream: ...
    def stream(self, source: Callable[[], Any]) -> Any:
        """Like ``chat_stream``, for any function that opens a blocking stream:
        ``stream(partial(run_chat, model, req))``. ``collect()`` then returns a RunResult.

        The ``collect()`` of ``stream(partial(structured, model, req, City))`` returns a City.
        """
        if not callable(source):
            raise TypeError(
                f"AsyncModel.stream: source must be a function that opens the stream, got {type(source).__name__}; "
                "write partial(run_chat, model, request)"
            )
        return AsyncStreamOf(source, executor=self._executor, buffer=self._buffer, provider=self.name, model=self.model)

    def __reduce__(self) -> tuple[type[AsyncModel], tuple[Any, ...]]:
        return AsyncModel, self._arguments

    def __repr__(self) -> str:
        return f"AsyncModel({self.inner!r})"


class AsyncValueStream(Protocol[ValueT_co]):
    """The AsyncChatStream of a StructuredStream, as type checkers see it: it yields the growing value."""

    @property
    def response(self) -> ResponseInfo: ...
    async def open(self) -> AsyncValueStream[ValueT_co]: ...
    def __await__(self) -> Generator[Any, None, AsyncValueStream[ValueT_co]]: ...
    async def __aenter__(self) -> AsyncValueStream[ValueT_co]: ...
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...
    def __aiter__(self) -> AsyncIterator[Any]: ...
    async def __anext__(self) -> Any: ...
    async def collect(self) -> ValueT_co: ...
    async def aclose(self) -> None: ...
    def cancel(self) -> None: ...


class _State(Enum):
    """The states of an AsyncChatStream, in order. READING goes back to OPEN when the chunk is there."""

    NOT_OPEN = "not open"
    OPEN = "open"
    READING = "reading"  # a task waits for a chunk
    CLOSED = "over"


class AsyncChatStream:
    """An asynchronous iterator of chunks that is also an asynchronous context manager.

    ``async with`` opens it and closes it at the end. ``stream = await model.chat_stream(req)`` opens it; then you must
    close it. It belongs to the loop that opened it, and only one task at a time may read from it. A task that is
    cancelled while it waits for a chunk closes the connection: reading on raises StreamCancelledError.
    """

    def __init__(
        self, source: Callable[[], Iterator[StreamChunk]], *, executor: Executor, buffer: int, provider: str, model: str
    ) -> None:
        self._source = source
        self._executor = executor
        self._buffer = buffer
        self._origin = (provider, model)
        self._state = _State.NOT_OPEN  # changed only in the loop's thread
        self._is_cancelled = False  # set in any thread
        self._pump: Pump | None = None
        self._waiter: Waiter | None = None
        self._cancel_loop_timer: weakref.finalize[..., Any] | None = None
        self._chunks: deque[StreamChunk] = deque()  # the pump's buffer, while the stream is open
        self._has_begun = False
        self._last: StreamChunk | None = None
        self._taken_since_wait = 0

    @property
    def response(self) -> ResponseInfo:
        """What is known about the HTTP response.

        Raises:
            RuntimeError: the stream is not open yet.
        """
        if self._pump is None or self._pump.stream is None:
            raise RuntimeError("the stream is not open yet: enter it with `async with`, or await it")
        return response_of(self._pump.stream)

    async def open(self) -> AsyncChatStream:
        """Open the stream if it is not open yet. Awaiting the stream does the same.

        Raises:
            CompletionError: the stream could not be opened.
            RuntimeError: the stream is closed, or was opened in another loop.
        """
        pump, waiter = self._started()
        try:
            await waiter.wait_until(lambda: pump.stream is not None or pump.is_over or pump.token.cancelled, pump)
        except BaseException:
            self._close()
            raise
        if self._state is _State.CLOSED:  # by another task, while this one waited
            raise stream_cancelled(*self._origin)
        if pump.stream is None:
            self._close_and_raise(pump)
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

    async def __anext__(self) -> Chunk:
        # Also after a whole buffer without a wait: else a fast stream would never let other tasks run.
        if not self._chunks or self._taken_since_wait >= self._buffer:
            await self._wait_for_chunk()
        assert self._pump is not None
        self._taken_since_wait += 1
        self._has_begun = True
        self._last = chunk = self._pump.take()
        return cast(Chunk, chunk)

    async def next_within(self, seconds: float | None) -> StreamChunk:
        """The next chunk, or NOT_YET when none arrives in this time (None: no limit); the stream stays open.

        Raises:
            StopAsyncIteration: the turn has ended.
        """
        if not self._chunks and not await self._wait_for_chunk(seconds):
            return NOT_YET  # type: ignore[no-any-return]
        return await self.__anext__()

    @property
    def has_more_now(self) -> bool:
        """The next chunk has already arrived."""
        return bool(self._chunks)

    async def collect(self) -> Turn:
        """Read all chunks and return the turn; if this is a run, its RunResult.

        Raises:
            CompletionError: the same errors as reading; ``partial`` is the turn so far.
            RuntimeError: the stream is closed, or chunks were read from it already; they are not kept.
        """
        if self._has_begun or self._state is _State.CLOSED:
            raise RuntimeError("collect() needs a stream that was not read from or closed before")
        async with self:
            assert self._pump is not None
            stream = self._pump.stream
            if isinstance(stream, ValueStream):
                async for _ in self:
                    pass
                return cast(Turn, stream.value)  # AsyncValueStream has its real type
            with TurnSoFar(accepts_runs=isinstance(stream, ChatStream) and stream._accepts_runs) as so_far:
                async for chunk in self:
                    so_far.add(chunk)
        return stream._collected(so_far) if isinstance(stream, ChatStream) else so_far.turn()

    async def aclose(self) -> None:
        """Close the connection. May be called more than once. Then waits for the worker thread to end, at most half
        a second."""
        pump, waiter = self._pump, self._waiter
        if pump is None or waiter is None or self._state is _State.CLOSED:
            self._close()
            return
        if not waiter.is_in_this_loop:
            self.cancel()
            return
        if isinstance(self._last, TurnFinished):
            await waiter.wait_until(lambda: pump.is_over, pump, _REUSE_SECONDS)
        self._close()
        await waiter.wait_until(lambda: pump.is_over, pump, _CLOSE_SECONDS)

    def cancel(self) -> None:
        """Cancel the stream, from any thread. Reading, now or later, raises StreamCancelledError."""
        self._is_cancelled = True
        if self._pump is not None and self._state is not _State.CLOSED:
            self._pump.token.cancel()

    def _started(self) -> tuple[Pump, Waiter]:
        """The pump and its waiter; starts them if the stream is not open yet. Raises the same errors as ``open()``."""
        loop = asyncio.get_running_loop()
        if self._state is _State.CLOSED:
            raise RuntimeError("this stream was closed; call chat_stream() again")
        if self._pump is not None and self._waiter is not None:
            if self._waiter.loop is not loop:
                raise RuntimeError("this stream was opened in another event loop")
            return self._pump, self._waiter
        if self._is_cancelled:
            self._close()
            raise stream_cancelled(*self._origin)
        waiter = Waiter(loop)
        pump = Pump(
            self._source,
            limit=self._buffer,
            wake=waiter.wake_from_any_thread,
            hurry=waiter.hurry_from_any_thread,
        )
        try:
            pump.start(self._executor)
        except CompletionError as error:
            error.provider, error.model = self._origin
            raise
        self._pump, self._waiter, self._chunks, self._state = pump, waiter, pump.chunks, _State.OPEN
        if self._is_cancelled:  # by another thread, which has not seen the pump
            pump.token.cancel()
        self._cancel_when_loop_is_closed(loop, pump)
        return pump, waiter

    def _cancel_when_loop_is_closed(self, loop: asyncio.AbstractEventLoop, pump: Pump) -> None:
        """asyncio has no callback for a closed loop, but it drops its timers then, and a dropped timer tells us.

        Without this, a stream that is still in a variable would keep its connection and its worker after
        ``asyncio.run()``; and the interpreter could not exit, because it waits for the threads of a ThreadPoolExecutor.
        """
        timer = weakref.ref(loop.call_later(_FOREVER_SECONDS, _CallWhenDropped(pump.token.cancel)))
        self._cancel_loop_timer = weakref.finalize(self, _cancel_timer, loop, timer)
        self._cancel_loop_timer.atexit = False

    async def _wait_for_chunk(self, seconds: float | None = None) -> bool:
        """Wait for a chunk; False when none arrives in this time. Lets other tasks run in any case."""
        if self._state is _State.READING:
            raise RuntimeError("another task is reading from this stream already")
        if self._state is _State.CLOSED and self._pump is not None:
            raise StopAsyncIteration
        pump, waiter = self._started()
        self._state = _State.READING
        self._taken_since_wait = 0
        try:
            if self._chunks:
                await asyncio.sleep(0)
            is_ready = await waiter.wait_until(lambda: pump.has_news, pump, seconds)
        except BaseException:
            self._cancel_and_drop_buffer(pump)
            raise
        finally:
            if self._state is _State.READING:
                self._state = _State.OPEN
        if not is_ready:
            return False
        if self._state is _State.CLOSED:  # by another task, while this one waited
            raise stream_cancelled(*self._origin)
        if not self._chunks or pump.token.cancelled:
            self._close_and_raise(pump)
        return True

    def _close_and_raise(self, pump: Pump) -> None:
        """No chunk is left: close the stream and raise its error, or StopAsyncIteration at a regular end."""
        was_cancelled = pump.token.cancelled
        error, pump.error = pump.error, None
        self._close()
        if was_cancelled:
            raise stream_cancelled(*self._origin)
        if error is not None:
            try:
                raise error
            finally:
                del error  # contract/frames.py says why
        raise StopAsyncIteration

    def _cancel_and_drop_buffer(self, pump: Pump) -> None:
        """The reading task was cancelled. The buffer must not be read on: it would look like a complete answer."""
        if self._state is not _State.CLOSED:
            pump.token.cancel()
            self._chunks = deque()

    def _close(self) -> None:
        self._state = _State.CLOSED
        self._chunks = deque()
        if self._pump is not None and not self._pump.is_over:
            self._pump.token.cancel()
        if self._cancel_loop_timer is not None:
            self._cancel_loop_timer()

    def __del__(self) -> None:
        pump = getattr(self, "_pump", None)
        if pump is not None and not pump.is_over:
            pump.token.cancel()

    def __repr__(self) -> str:
        state = _State.OPEN if self._state is _State.READING else self._state
        return f"<AsyncChatStream {state.value}>"


class AsyncStreamOf(AsyncChatStream, Generic[_ResultT]):
    """An AsyncChatStream that reads a stream with another result, such as a run."""

    if TYPE_CHECKING:

        async def collect(self) -> _ResultT: ...  # type: ignore[override]


class _CallWhenDropped:
    """The callback of a timer that never fires: calls ``on_drop`` when the timer is dropped."""

    def __init__(self, on_drop: Callable[[], None]) -> None:
        self._on_drop = on_drop

    def __call__(self) -> None:
        pass

    def __del__(self) -> None:
        self._on_drop()


def _cancel_timer(loop: asyncio.AbstractEventLoop, timer: weakref.ref[asyncio.TimerHandle]) -> None:
    """Runs in any thread, because it is a finalizer."""
    handle = timer()
    if handle is not None:
        with suppress(RuntimeError):  # raised by a closed loop
            loop.call_soon_threadsafe(handle.cancel)
