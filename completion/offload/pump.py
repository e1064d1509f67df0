"""A blocking stream that is read by a thread of its own: what makes it at home under an event loop or a WSGI server.

    worker thread: open -> next -> next -> …  =>  a bounded buffer  =>  whoever cannot block: aio, web

The reader is woken once for all that has come meanwhile; a full buffer stops the worker, and so the socket and the
provider. Cancelling the token ends both sides, whatever the worker is blocked in.

No lock is taken for a chunk: each side sets its flag first and looks at the other's after it, and every step on a
deque is atomic.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, Future
from contextvars import copy_context
from queue import SimpleQueue
from typing import ParamSpec, TypeVar

from completion.contract.cancel import CancelToken
from completion.contract.chunks import StreamChunk
from completion.contract.errors import ConfigurationError

log = logging.getLogger(__name__)

_P = ParamSpec("_P")
_T = TypeVar("_T")


class Pump:
    """Reads a stream in a worker thread, into ``chunks``.

    ``stream`` is there once it is open. ``is_over``: the worker has closed it and adds no more chunks; what the stream
    raised is in ``error``, unless the token was cancelled.

    Args:
        source: opens the stream; called in the worker, with the caller's context variables.
        limit: so many chunks stop the worker, until half of them are taken.
        wake: called in any thread when there is news and ``is_awaited`` is set, which it clears.
        opened: the stream that ``source`` gives, where it is open already: it is closed also when no worker ever runs.
    """

    def __init__(
        self,
        source: Callable[[], Iterable[StreamChunk]],
        *,
        limit: int,
        wake: Callable[[], None],
        opened: Iterable[StreamChunk] | None = None,
    ) -> None:
        self.chunks: deque[StreamChunk] = deque()
        self.stream: Iterable[StreamChunk] | None = None
        self.error: BaseException | None = None
        self.is_over = False
        self.is_awaited = False
        self.is_full = False
        self.token, self._untie = CancelToken.bound()
        self._source: Callable[[], Iterable[StreamChunk]] | None = source
        self._opened = opened
        self._limit = limit
        self._wake = wake
        # Its put() may come from a finalizer, inside of anything that this very thread is doing.
        self._room: SimpleQueue[None] = SimpleQueue()
        self._forget = self.token.on_cancel(self._on_cancel)
        self._unqueue = _nothing

    def start(self, executor: Executor) -> None:
        """Hand the reading to a worker, with this thread's context variables.

        Raises:
            ConfigurationError: the executor takes no work.
        """
        try:
            future = executor.submit(copy_context().run, self._run)
        except BaseException as exc:
            self.token.cancel()  # an executor may keep the job although it could not start a thread for it
            self._end()
            if isinstance(exc, RuntimeError):
                raise ConfigurationError(f"no worker thread could be had for the stream: {exc}") from exc
            raise
        future.add_done_callback(self._on_done)
        # One that waits for a thread shall not wait any longer.
        self._unqueue = self.token.on_cancel(future.cancel)
        if self.is_over:
            self._unqueue()

    def take(self) -> StreamChunk:
        """The next chunk of a buffer that is not empty."""
        chunk = self.chunks.popleft()
        if self.is_full and len(self.chunks) * 2 <= self._limit:
            self.is_full = False
            self._room.put(None)
        return chunk

    @property
    def has_news(self) -> bool:
        """There is a chunk to take, or nothing more to wait for."""
        return bool(self.chunks) or self.is_over or self.token.cancelled

    def _run(self) -> None:
        """In the worker."""
        source, self._source = self._source, None
        assert source is not None, "a pump runs once"
        if self.token.cancelled:
            return
        try:
            with self.token:
                self._read(source())
        except (StopIteration, StopAsyncIteration) as error:  # to whoever reads, that would be a good end
            self.error = RuntimeError(f"the stream raised {type(error).__name__}")
            self.error.__cause__ = error
        except BaseException as error:
            if not self.token.cancelled:
                self.error = error

    def _read(self, stream: Iterable[StreamChunk]) -> None:
        chunks, limit, token = self.chunks, self._limit, self.token
        try:
            self.stream = stream
            self._tell()
            for chunk in stream:
                chunks.append(chunk)
                if self.is_awaited:
                    self._tell()
                if len(chunks) >= limit:
                    self._wait_for_room()
                if token.cancelled:
                    break
        finally:
            _close(stream)

    def _wait_for_room(self) -> None:
        self.is_full = True
        while len(self.chunks) >= self._limit and not self.token.cancelled:
            self._room.get()
        self.is_full = False

    def _tell(self) -> None:
        if self.is_awaited:
            self.is_awaited = False
            self._wake()

    def _on_cancel(self) -> None:
        self._room.put(None)
        self._tell()

    def _on_done(self, future: Future[None]) -> None:
        """The worker is done, or the executor never let it begin."""
        if future.cancelled():
            self.error = ConfigurationError("the executor dropped the stream: it was shut down")
        elif (failure := future.exception()) is not None:  # not of the stream, whose errors are kept
            self.error = ConfigurationError(f"the executor cannot run the stream in a thread: {failure}")
            self.error.__cause__ = failure
        self._end()

    def _end(self) -> None:
        if self.stream is None and self._opened is not None:
            _close(self._opened)
        self.is_over = True
        for forget in (self._forget, self._unqueue, self._untie):
            forget()
        self._tell()


def _close(stream: Iterable[StreamChunk]) -> None:
    """What fails here, in code of somebody else's, does not change what the stream has said."""
    close = getattr(stream, "close", None)
    if close is not None:
        try:
            close()
        except Exception:
            log.exception("closing a stream failed")


def _nothing() -> None:
    pass
