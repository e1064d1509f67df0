"""Attempts of one call, until the first chunk. Retrying and falling back share this code.

    call -> fails -> call -> a stream -> fails before its first chunk -> call -> a stream -> chunks

After the first chunk there is no other attempt, so no chunk is ever yielded twice. From the second chunk on, the reader
reads directly from the inner stream: the wrapper then costs nothing per chunk.
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
from completion.contract.stream import ChatStream, close_quietly, iterator_of

log = logging.getLogger(__name__)


is_retried: ContextVar[bool] = ContextVar("completion_is_retried", default=False)
"""True while an outer wrapper retries: inner wrappers must not retry too. Otherwise, 3 times 3 attempts make 9 calls.
"""

_P = ParamSpec("_P")
_T = TypeVar("_T")


class Attempts(ABC):
    """The attempts of one call of a wrapper's ``chat_stream``. Subclasses decide what to call and when to stop.

    Args:
        provider, model: named in the errors that this class raises.
        retries: sets ``is_retried`` during each attempt, so that wrappers inside do not retry.
    """

    def __init__(self, provider: str, model: str, *, retries: bool) -> None:
        self.origin = (provider, model)
        self._retries = retries
        self.token, self._unbind = CancelToken.bound_to_current()

    @abstractmethod
    def call(self) -> Iterator[StreamChunk]:
        """Make one attempt: call ``chat_stream`` of the model."""

    @abstractmethod
    def should_try_again(self, error: Exception, *, was_open: bool) -> bool:
        """Whether to make another attempt. Called in the ``except`` block of the error.

        ``was_open``: the stream raised the error; if False, the call did.
        """

    def add_details(self, error: Exception) -> None:  # noqa: B027  optional
        """Add to an error what this call knows. May be called more than once for the same error."""

    def pause(self) -> None:  # noqa: B027  optional
        """Wait before the next attempt."""

    def stream(self) -> ChatStream:
        """The first stream that opens. Until its first chunk it may be replaced by that of another attempt."""
        try:
            return _RestartableStream(self.open_stream(), self, self._unbind)
        except BaseException:
            self._unbind()
            raise

    def open_stream(self) -> Iterator[StreamChunk]:
        """Call until a call succeeds. Raises the last error when there is no other attempt."""
        return self._until_success(lambda: iterator_of(self.call()))

    def result(self, call: Callable[[], _T]) -> _T:
        """What ``call`` returns, in place of ``self.call``: for calls that return no stream."""
        try:
            return self._until_success(call)
        finally:
            self._unbind()

    def _until_success(self, call: Callable[[], _T]) -> _T:
        while True:
            if self.token.cancelled:
                raise self.cancelled()
            try:
                return self._call_under_token(call)
            except Exception as exc:
                if not self.tries_again_after(exc, was_open=False):
                    # Raised inside this `except`: outside, an exception that the caller is handling would become
                    # its __context__.
                    raise
                failure = exc
            without_frames(failure)
            del failure  # contract/frames.py says why
            self.pause()

    def first_chunk(self, stream: Iterator[StreamChunk]) -> StreamChunk:
        """The stream's first chunk. A model that is a generator function opens its connection only here."""
        chunk = self._call_under_token(next, stream, None)
        if chunk is None:
            provider, model = self.origin
            raise TruncatedStreamError("the stream ended before its first chunk", provider=provider, model=model)
        return chunk

    def tries_again_after(self, error: Exception, *, was_open: bool) -> bool:
        """Whether another attempt follows this error: asks ``should_try_again``, unless the call was cancelled.

        Raises:
            StreamCancelledError: the call was cancelled; cancelling may have caused the error.
        """
        if isinstance(error, StreamError):
            error.before_first_chunk = True
        if self.token.cancelled and not isinstance(error, StreamCancelledError):
            raise self.cancelled() from error
        return self.should_try_again(error, was_open=was_open)

    def cancelled(self) -> StreamCancelledError:
        return stream_cancelled(*self.origin)

    def _call_under_token(self, function: Callable[_P, _T], *args: _P.args, **options: _P.kwargs) -> _T:
        """Call the function under our token, so that cancelling us cancels what it opens, and with ``is_retried``
        set."""
        outer = is_retried.set(self._retries)
        try:
            with self.token:
                return function(*args, **options)
        finally:
            is_retried.reset(outer)


class _RestartableStream(ChatStream):
    """A stream that continues with that of another attempt when it fails before its first chunk."""

    def __init__(self, stream: Iterator[StreamChunk], attempts: Attempts, unbind: Callable[[], None]) -> None:
        provider, model = attempts.origin
        # A weak reference, because a cycle would keep a dropped stream, and its connection, until the next garbage
        # collection.
        chunks = _beginning(weakref.ref(self), attempts, stream)
        super().__init__(chunks, token=attempts.token, release=unbind, provider=provider, model=model)
        self._attempts = attempts
        self.adopt(stream)

    def _before_raise(self, error: BaseException) -> None:
        if isinstance(error, Exception) and not isinstance(error, StopIteration):
            self._add_details(error)
        super()._before_raise(error)

    def _add_details(self, error: Exception) -> None:
        # After its first chunk, an inner wrapper's stream is not read itself (see ``continue_with``), so it does not
        # see the error. If it is over, it has seen its own error before, and this error is of another stream.
        inner = self._adopted
        if isinstance(inner, _RestartableStream) and not inner._is_over:
            inner._add_details(error)
        self._attempts.add_details(error)


def _beginning(
    owner: weakref.ref[_RestartableStream], attempts: Attempts, stream: Iterator[StreamChunk]
) -> Iterator[StreamChunk]:
    """Yields the first chunk of the first attempt that has one. Then the owner reads directly from that stream.

    ``owner``: the stream that the caller reads, which reads from this iterator.
    """
    while True:
        try:
            first = attempts.first_chunk(stream)
            break
        except Exception as exc:
            if not attempts.tries_again_after(exc, was_open=True):
                raise
            failure = exc
        without_frames(failure)
        del failure  # contract/frames.py says why
        close_quietly(stream)
        attempts.pause()
        stream = attempts.open_stream()
        _alive(owner).adopt(stream)
    _alive(owner).continue_with(stream)  # an inner wrapper may have replaced its response
    yield first


def _alive(owner: weakref.ref[_RestartableStream]) -> _RestartableStream:
    stream = owner()
    assert stream is not None, "the owner's __next__ runs this code, so the owner is alive"
    return stream


def classify(error: Exception) -> Permanent | Transient:
    """What ``retry_classification()`` of the error returns; Permanent if the error has no such method, or it raises."""
    if not isinstance(error, Retryable):
        return Permanent()
    try:
        return error.retry_classification()
    except Exception:
        log.exception("retry_classification() of %s failed", type(error).__name__)
        return Permanent()


def without_frames(error: BaseException) -> None:
    """Drop the tracebacks of an error, and of its causes and contexts, because another attempt follows.

    Frames refer to the caller's frames, and so to the caller's variables. A callback or a log handler that keeps the
    error would keep these variables alive: a stream in one of them would not close when it goes out of scope.
    """
    handled_by_caller = sys.exc_info()[1]  # not ours: it keeps its traceback
    pending: list[BaseException | None] = [error]
    seen: set[int] = set()
    while pending:
        one = pending.pop()
        if one is None or one is handled_by_caller or id(one) in seen:
            continue
        seen.add(id(one))
        # Not `one.__traceback__ = None`: a frozen dataclass refuses an assignment.
        one.with_traceback(None)
        pending += [one.__cause__, one.__context__]
