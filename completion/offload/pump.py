"""Reads a blocking stream in a worker thread, for a reader that must not block: an event loop or a WSGI server.

    worker thread: open -> next -> next -> …  =>  a bounded buffer  =>  the reader: aio, web

The worker wakes the reader once for all chunks that have arrived meanwhile. When the buffer is full the worker stops
reading; then the socket's buffers fill up and the provider stops sending. Cancelling the token ends both sides,
whatever the worker is blocked in.

No lock is taken per chunk. It is safe because each side first sets its own flag and then looks at the other side's:
the worker appends a chunk and then looks at ``is_awaited``; the reader sets ``is_awaited`` and then looks for chunks
once more. So one of the two always sees the other. Each single operation on a deque is atomic.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, Future
from contextvars import copy_context
from queue import SimpleQueue

from completion.contract.cancel import CancelToken
from completion.contract.chunks import StreamChunk
from completion.contract.errors import ConfigurationError

log = logging.getLogger(__name__)


class Pump:
    """Reads a stream in a worker thread, into ``chunks``.

    ``stream`` is None until the stream is open. ``is_over`` means: the worker has closed the stream and adds no more
    chunks. ``error`` is what the stream raised; it stays None when the token was cancelled.

    Args:
        source: opens the stream; called in the worker, with the caller's context variables.
        limit: the worker stops at this many chunks, until half of them are taken.
        wake: wakes the reader; called in any thread when something has changed and the reader has set ``is_awaited``.
            The pump resets ``is_awaited`` first.
        hurry: called in the worker when the buffer is full: the reader must not wait any longer.
        opened: the stream that ``source`` returns, if it is already open. So it is closed even if no worker ever runs.
    """

    def __init__(
        self,
        source: Callable[[], Iterable[StreamChunk]],
        *,
        limit: int,
        wake: Callable[[], None],
        hurry: Callable[[], None] | None = None,
        opened: Iterable[StreamChunk] | None = None,
    ) -> None:
        self.chunks: deque[StreamChunk] = deque()
        self.stream: Iterable[StreamChunk] | None = None
        self.error: BaseException | None = None
        self.is_over = False
        self.is_awaited = False
        self.is_full = False
        self.token, self._unbind_token = CancelToken.bound_to_current()
        self._source: Callable[[], Iterable[StreamChunk]] | None = source
        self._opened = opened
        self._limit = limit
        self._wake = wake
        self._hurry = hurry or _nothing
        # A SimpleQueue, because a finalizer may call put() in a thread that is inside put() or get() already: a
        # Condition or a Queue would deadlock.
        self._room: SimpleQueue[None] = SimpleQueue()
        self._remove_on_cancel = self.token.on_cancel(self._on_cancel)
        self._remove_future_cancel = _nothing

    def start(self, executor: Executor) -> None:
        """Start reading in a worker, with this thread's context variables.

        Raises:
            ConfigurationError: the executor accepts no jobs.
        """
        try:
            future = executor.submit(copy_context().run, self._run)
        except BaseException as exc:
            # ThreadPoolExecutor keeps the job in its queue even if it could not start a thread for it: the cancelled
            # token makes _run() return at once.
            self.token.cancel()
            self._end()
            if isinstance(exc, RuntimeError):
                raise ConfigurationError(f"no worker thread could be started for the stream: {exc}") from exc
            raise
        future.add_done_callback(self._on_done)
        # A job that still waits for a thread leaves the queue when it is cancelled.
        self._remove_future_cancel = self.token.on_cancel(future.cancel)
        if self.is_over:
            self._remove_future_cancel()

    def take(self) -> StreamChunk:
        """The next chunk. The buffer must not be empty."""
        chunk = self.chunks.popleft()
        if self.is_full and len(self.chunks) * 2 <= self._limit:
            self.is_full = False
            self._room.put(None)
        return chunk

    @property
    def has_news(self) -> bool:
        """The reader need not wait: there is a chunk to take, or the stream is over or cancelled."""
        return bool(self.chunks) or self.is_over or self.token.cancelled

    def _run(self) -> None:
        """The job of the worker."""
        source, self._source = self._source, None
        assert source is not None, "a pump runs once"
        if self.token.cancelled:
            return
        try:
            with self.token:
                self._read(source())
        except (StopIteration, StopAsyncIteration) as error:
            # Raised again in the reader, it would look like the regular end of the stream.
            self.error = RuntimeError(f"the stream raised {type(error).__name__}")
            self.error.__cause__ = error
        except BaseException as error:
            if not self.token.cancelled:
                self.error = error

    def _read(self, stream: Iterable[StreamChunk]) -> None:
        chunks, limit, token = self.chunks, self._limit, self.token
        try:
            self.stream = stream
            self._wake_reader()
            for chunk in stream:
                chunks.append(chunk)
                if self.is_awaited:
                    self._wake_reader()
                if len(chunks) >= limit:
                    self._wait_for_room()
                if token.cancelled:
                    break
        finally:
            _close(stream)

    def _wait_for_room(self) -> None:
        self.is_full = True
        self._hurry()
        while len(self.chunks) >= self._limit and not self.token.cancelled:
            self._room.get()
        self.is_full = False

    def _wake_reader(self) -> None:
        if self.is_awaited:
            self.is_awaited = False
            self._wake()

    def _on_cancel(self) -> None:
        self._room.put(None)
        self._wake_reader()

    def _on_done(self, future: Future[None]) -> None:
        """The worker has finished, or the executor has dropped the job."""
        if future.cancelled():
            self.error = ConfigurationError("the executor dropped the stream: it was shut down")
        elif (failure := future.exception()) is not None:  # of the executor; _run() keeps the errors of the stream
            self.error = ConfigurationError(f"the executor cannot run the stream in a thread: {failure}")
            self.error.__cause__ = failure
        self._end()

    def _end(self) -> None:
        if self.stream is None and self._opened is not None:
            _close(self._opened)
        self.is_over = True
        for remove in (self._remove_on_cancel, self._remove_future_cancel, self._unbind_token):
            remove()
        self._wake_reader()


def _close(stream: Iterable[StreamChunk]) -> None:
    """Close the stream. An error of a third party's close() is logged: the outcome of the stream is already known."""
    close = getattr(stream, "close", None)
    if close is not None:
        try:
            close()
        except Exception:
            log.exception("closing a stream failed")


def _nothing() -> None:
    pass
