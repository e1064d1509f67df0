"""Calls that may be made more than once, until the first chunk: shared by retrying and falling back.

    open -> failed -> open -> a stream -> fails before its first chunk -> failed -> open -> a stream -> chunks

What was yielded is never yielded twice. From the first chunk on the stream is the inner one's own generator: nothing
stands between, and it costs nothing.
"""

from __future__ import annotations

import logging
import sys
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import ParamSpec, TypeVar

from completion.contract.cancel import CancelToken
from completion.contract.chunks import StreamChunk
from completion.contract.errors import (
    Permanent,
    Retryable,
    StreamCancelledError,
    StreamError,
    Transient,
    TruncatedStreamError,
    stream_cancelled,
)
from completion.contract.stream import ChatStream, Chunks, close_quietly

log = logging.getLogger(__name__)


is_retried: ContextVar[bool] = ContextVar("completion_is_retried", default=False)
"""Somebody further out tries again: what stands further in must not do so as well, or the attempts multiply."""

_P = ParamSpec("_P")
_T = TypeVar("_T")


class Attempts(ABC):
    """One call of a wrapper's ``chat_stream``: the attempts that it takes.

    Args:
        provider, model: named by the errors of the wrapper's own.
        retries: whoever stands further in leaves the retrying to somebody further out.
    """

    def __init__(self, provider: str, model: str, *, retries: bool) -> None:
        self.origin = (provider, model)
        self._retries = retries
        self.token, self._unbind = CancelToken.bound()

    @abstractmethod
    def call(self) -> Chunks:
        """One attempt."""

    @abstractmethod
    def goes_on(self, error: Exception, *, was_open: bool) -> bool:
        """Whether there shall be another attempt; asked while the error is being handled.

        ``was_open``: it came from an open stream, not from setting up.
        """

    @abstractmethod
    def note(self, error: Exception) -> None:
        """Add to an error what only this call knows; perhaps more than once."""

    @abstractmethod
    def pause(self) -> None:
        """Wait for the next attempt."""

    def stream(self) -> ChatStream:
        """The first stream that opens; until its first chunk it may yet be replaced."""
        try:
            return _RestartableStream(self.opened(), self, self._unbind)
        except BaseException:
            self._unbind()
            raise

    def opened(self) -> Chunks:
        while True:
            if self.token.cancelled:
                raise self.cancelled()
            try:
                return self._run(self.call)
            except Exception as exc:
                if not self.may_go_on(exc, was_open=False):
                    raise  # in here: later, what the caller is handling would become its context
                failure = exc
            without_frames(failure)
            del failure  # contract/frames.py says why
            self.pause()

    def first_chunk(self, stream: Chunks) -> StreamChunk:
        """The stream's first chunk. A plain generator opens its connection here, and not in ``call``."""
        chunk = self._run(next, stream, None)
        if chunk is None:
            provider, model = self.origin
            raise TruncatedStreamError("the stream ended before its first chunk", provider=provider, model=model)
        return chunk

    def may_go_on(self, error: Exception, *, was_open: bool) -> bool:
        if isinstance(error, StreamError):
            error.before_first_chunk = True
        if self.token.cancelled and not isinstance(error, StreamCancelledError):
            raise self.cancelled() from error
        return self.goes_on(error, was_open=was_open)

    def cancelled(self) -> StreamCancelledError:
        return stream_cancelled(*self.origin)

    def _run(self, function: Callable[_P, _T], *args: _P.args, **options: _P.kwargs) -> _T:
        """Call it in such a way that what it opens is cancelled with us, and not retried by two."""
        outer = is_retried.set(self._retries)
        try:
            with self.token:
                return function(*args, **options)
        finally:
            is_retried.reset(outer)


class _RestartableStream(ChatStream):
    """A stream that goes on with another one when it fails before its first chunk."""

    def __init__(self, stream: Chunks, attempts: Attempts, unbind: Callable[[], None]) -> None:
        provider, model = attempts.origin
        # The generator knows this stream weakly: who drops a stream that was never begun hangs up at once.
        chunks = _beginning(weakref.ref(self), attempts, stream)
        super().__init__(chunks, token=attempts.token, release=unbind, provider=provider, model=model)
        self._attempts = attempts
        self.adopt(stream)

    def _before_raise(self, error: BaseException) -> None:
        if isinstance(error, Exception) and not isinstance(error, StopIteration):
            self._attempts.note(error)
        super()._before_raise(error)


def _beginning(owner: weakref.ref[_RestartableStream], attempts: Attempts, stream: Chunks) -> Iterator[StreamChunk]:
    """The first chunk, whichever stream gives it. Then the owner reads on from that stream itself."""
    while True:
        try:
            first = attempts.first_chunk(stream)
            break
        except Exception as exc:
            if not attempts.may_go_on(exc, was_open=True):
                raise
            failure = exc
        without_frames(failure)
        del failure  # contract/frames.py says why
        close_quietly(stream)
        attempts.pause()
        stream = attempts.opened()
        _alive(owner).adopt(stream)
    _alive(owner).continue_with(stream)  # an inner wrapper may have replaced its response
    yield first


def _alive(owner: weakref.ref[_RestartableStream]) -> _RestartableStream:
    stream = owner()
    assert stream is not None, "its __next__ is running"
    return stream


def verdict(error: Exception) -> Permanent | Transient:
    """What the error says of itself; Permanent where it says nothing."""
    if not isinstance(error, Retryable):
        return Permanent()
    try:
        return error.retry_classification()
    except Exception:
        log.exception("retry_classification() of %s failed", type(error).__name__)
        return Permanent()


def without_frames(error: BaseException) -> None:
    """Drop the tracebacks of an error that another attempt makes up for, and of those behind it.

    Their frames lead to those of the caller. Whoever kept the error would keep what stands in the variables there: a
    stream that goes out of scope would not hang up.
    """
    theirs = sys.exc_info()[1]  # what a caller is handling at the moment
    left: list[BaseException | None] = [error]
    seen: set[int] = set()
    while left:
        one = left.pop()
        if one is None or one is theirs or id(one) in seen:
            continue
        seen.add(id(one))
        one.with_traceback(None)  # an assignment may be refused, as by a frozen dataclass
        left += [one.__cause__, one.__context__]
