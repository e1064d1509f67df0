"""Calls that may be made more than once, until the first chunk: shared by retrying and falling back.

    open -> failed -> open -> a stream -> fails before its first chunk -> failed -> open -> a stream -> chunks

What was yielded is never yielded twice. From the first chunk on the stream is the inner one's own generator: nothing
stands between, and it costs nothing.
"""

from __future__ import annotations

import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator
from contextvars import ContextVar

from completion.cancel import CancelToken
from completion.contract.chunks import StreamChunk
from completion.contract.stream import ChatStream, ResponseInfo
from completion.errors import StreamCancelledError, StreamError

Chunks = Generator[StreamChunk, None, None]
"""What any CompletionModel returns: a ChatStream, or a plain generator."""

is_retried: ContextVar[bool] = ContextVar("completion_is_retried", default=False)
"""Somebody further out tries again: what stands further in must not do so as well, or the attempts multiply."""


class Attempts(ABC):
    """One call of a wrapper's ``chat_stream``: the attempts that it takes."""

    def __init__(self, provider: str, model: str) -> None:
        self._origin = (provider, model)
        self.token, self._unbind = CancelToken.bound()

    @abstractmethod
    def call(self) -> Chunks:
        """One attempt."""

    @abstractmethod
    def failed(self, error: Exception) -> None:
        """Raise the error, or return when there shall be another attempt."""

    def stream(self, *, until_first_chunk: bool = True) -> ChatStream:
        """The first stream that opens; until its first chunk it may yet be replaced."""
        try:
            opened = self._opened()
        except BaseException:
            self._unbind()
            raise
        again = self._again if until_first_chunk else None
        return _RestartableStream(opened, again, self.token, self._unbind)

    def cancelled(self) -> StreamCancelledError:
        provider, model = self._origin
        return StreamCancelledError("the stream was cancelled", provider=provider, model=model)

    def _opened(self) -> Chunks:
        while True:
            if self.token.cancelled:
                raise self.cancelled()
            try:
                with self.token:
                    return self.call()
            except Exception as exc:
                error = exc
            self.failed(error)
            del error  # its traceback holds this frame

    def _again(self, error: Exception) -> Chunks:
        self.failed(error)
        return self._opened()


class _RestartableStream(ChatStream):
    """A stream that goes on with another one when it fails before its first chunk."""

    def __init__(
        self,
        stream: Chunks,
        again: Callable[[Exception], Chunks] | None,
        token: CancelToken,
        unbind: Callable[[], None],
    ) -> None:
        # The generator knows this stream weakly: who drops a stream that was never begun hangs up at once.
        super().__init__(_beginning(weakref.ref(self), again), token=token, release=unbind)
        self._play(stream)

    def _play(self, stream: Chunks) -> None:
        self._inner = stream
        if isinstance(stream, ChatStream):
            self.response, self._drop, self._origin = stream.response, stream._drop, stream._origin
        else:
            self.response = getattr(stream, "response", None) or ResponseInfo()
            self._drop = None

    def _end(self) -> None:
        super()._end()
        self._inner.close()


def _beginning(
    owner: weakref.ref[_RestartableStream], again: Callable[[Exception], Chunks] | None
) -> Iterator[StreamChunk]:
    """The first chunk, whichever stream gives it. Then the owner reads on from that stream itself."""
    while True:
        stream = _alive(owner)._inner
        try:
            first = next(stream)
            break
        except StopIteration:
            return
        except Exception as exc:
            if isinstance(exc, StreamError):
                exc.before_first_chunk = True
            if again is None:
                raise
            error = exc
        opened = again(error)
        del error
        _alive(owner)._play(opened)
    _alive(owner)._chunks = stream._chunks if isinstance(stream, ChatStream) else stream
    yield first


def _alive(owner: weakref.ref[_RestartableStream]) -> _RestartableStream:
    stream = owner()
    assert stream is not None, "its __next__ is running"
    return stream
