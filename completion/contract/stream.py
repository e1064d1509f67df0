"""The stream that ``chat_stream`` returns: a blocking generator of chunks that owns its connection."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields
from types import TracebackType
from typing import Any, TypeVar

from completion.contract.cancel import CancelToken
from completion.contract.chunks import StreamChunk
from completion.contract.errors import CompletionError, stream_cancelled
from completion.contract.frames import clear_ours, is_ours
from completion.contract.turn import Turn, collect


@dataclass(frozen=True, slots=True)
class ResponseInfo:
    """What is known of the HTTP response as soon as the call returns.

    ``headers`` compares names without regard to case. ``dropped`` names the request fields that this provider
    has no words for and that were left out, because they state a preference only.
    """

    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    request_id: str | None = None
    dropped: tuple[str, ...] = ()


def response_of(stream: object) -> ResponseInfo:
    """What a stream of anybody's making tells of its response."""
    response = getattr(stream, "response", None)
    is_one = all(hasattr(response, fact.name) for fact in fields(ResponseInfo))
    return response if response is not None and is_one else ResponseInfo()


def close_quietly(stream: object) -> None:
    """Close a stream of any class. An exception that a third party's ``close()`` raises is dropped: it must not replace
    the error that ended the stream."""
    close = getattr(stream, "close", None)  # an iterator that is not a generator may have none
    if close is not None:
        with suppress(Exception):
            close()


def _nothing() -> None:
    pass


def _is_taken(exc: BaseException) -> bool:
    """Python's own error for a generator that another thread is inside of (or this one, below a signal handler)."""
    return isinstance(exc, ValueError) and exc.args == ("generator already executing",)


_ChatStreamT = TypeVar("_ChatStreamT", bound=Callable[..., Any])


def without_our_frames(chat_stream: _ChatStreamT) -> _ChatStreamT:
    """Let an error leave ``chat_stream`` with the names of the model, and without our frames.

    Any other exception keeps our frames without their local variables: these hold the prompt, and crash reporters
    show them.
    """

    @functools.wraps(chat_stream)
    def wrapper(self: Any, req: Any) -> Any:
        try:
            return chat_stream(self, req)
        except CompletionError as error:
            del req
            error.provider, error.model = error.provider or self.name, error.model or self.model
            theirs = _frames_of_others(error.__traceback__)
            try:
                raise error.with_traceback(theirs)
            finally:
                del theirs  # which leads back to this frame
        except BaseException as exc:
            del req
            clear_ours(exc)
            raise

    return wrapper  # type: ignore[return-value]


def _frames_of_others(trace: TracebackType | None) -> TracebackType | None:
    """The traceback without the frames of this library; None where the innermost one is its own."""
    frames = []
    while trace is not None:
        frames.append(trace)
        trace = trace.tb_next
    theirs = [frame for frame in frames if not is_ours(frame.tb_frame)]
    if not theirs or theirs[-1] is not frames[-1]:
        return None
    for outer, inner in itertools.pairwise(theirs):
        outer.tb_next = inner
    return theirs[0]


class ChatStream(Generator[StreamChunk, None, None]):
    """A blocking generator of chunks that is also a context manager.

    Leaving the ``with``, ``close()``, breaking out of the loop and dropping the stream all hang up. An error
    closes it too: what was yielded stays valid, and ``next()`` gives StopIteration from then on.

    A wrapper that may replace its stream with another one calls ``adopt`` and ``continue_with``.

    Args:
        chunks: what to yield. When it is a generator, it is closed with the stream.
        response: what is known of the response.
        token: raised by ``cancel()``; ``chunks`` may wait on it. Without one the stream makes its own, under the
            CancelToken that the caller is inside of.
        release: gives back what the stream holds; called at the end, however it comes, perhaps more than once.
        drop: the same from a finalizer, where it must take no lock that this thread may hold. None: ``release``.
        provider, model: named by the error of a cancelled stream.
    """

    def __init__(
        self,
        chunks: Iterator[StreamChunk],
        *,
        response: ResponseInfo | None = None,
        token: CancelToken | None = None,
        release: Callable[[], None] = _nothing,
        drop: Callable[[], None] | None = None,
        provider: str | None = None,
        model: str | None = None,
    ) -> None:
        self.response = response or ResponseInfo()
        self._chunks = chunks
        self._unbind = _nothing
        if token is None:
            token, self._unbind = CancelToken.bound()
        self._token = token
        self._release = release
        self._drop = drop
        self._adopted: Chunks | None = None
        self._has_begun = False
        self._origin = (provider, model)
        self._over = False

    def __iter__(self) -> ChatStream:
        return self

    def __next__(self) -> StreamChunk:
        if self._token.cancelled:
            self._end_cancelled()
        self._has_begun = True
        try:
            return next(self._chunks)
        except BaseException as exc:
            if not _is_taken(exc):
                self._failed(exc)
                if not isinstance(exc, StopIteration):
                    clear_ours(exc)
            raise

    def send(self, value: None) -> StreamChunk:
        """The same as ``next()``."""
        return next(self)

    def throw(
        self,
        typ: type[BaseException] | BaseException,
        val: object = None,
        tb: TracebackType | None = None,
    ) -> StreamChunk:
        """Close the stream and raise the given error from here."""
        self.close()
        if isinstance(typ, BaseException):
            error = typ
        elif isinstance(val, BaseException):
            error = val
        else:
            error = typ() if val is None else typ(val)
        raise error if tb is None else error.with_traceback(tb)

    def close(self) -> None:
        """Hang up. Idempotent; from another thread, while a ``next()`` is blocked, it is ``cancel()``."""
        try:
            if isinstance(self._chunks, Generator):
                self._chunks.close()
        except BaseException as exc:
            if _is_taken(exc):
                self.cancel()
                return
            self._end()
            raise
        self._end()

    def cancel(self) -> None:
        """End the stream from any thread: a ``next()`` that is blocked, or called later, raises
        StreamCancelledError. After the end of the stream it does nothing."""
        if not self._over:
            self._token.cancel()

    def collect(self) -> Turn:
        """Drain the stream and return the turn.

        To look at the chunks as well, pass a generator that looks at each and yields it to ``completion.collect``.

        Raises:
            CompletionError: as ``next()`` does; ``partial`` is the Turn so far.
            RuntimeError: somebody has read from the stream or closed it; the chunks are not kept.
        """
        if self._has_begun or self._over:
            raise RuntimeError(
                "collect() needs a stream that nobody has read from or closed; to look at the chunks as well, pass a "
                "generator that yields them on to completion.collect()"
            )
        with self:
            return collect(self)

    def adopt(self, stream: Chunks) -> None:
        """Show the response of another stream, name its model in errors, and close it with this stream.

        The chunks still come from this stream's own iterator. For wrappers: the iterator reads from ``stream``, and
        another stream may be adopted in its place.
        """
        self.response = response_of(stream)
        self._drop = None
        if isinstance(stream, ChatStream):
            self._drop, self._origin = stream._drop, stream._origin
        self._adopted = stream

    def continue_with(self, stream: Chunks) -> None:
        """Adopt another stream, and yield its chunks from the next ``next()`` on.

        For wrappers; called in the thread that reads. This stream's own iterator is not read again. A chunk costs no
        more than before: it is read from the iterator of ``stream``, unless the class of ``stream`` has its own
        ``__next__``.
        """
        self.adopt(stream)
        self._chunks = stream
        if isinstance(stream, ChatStream) and type(stream).__next__ is ChatStream.__next__:
            self._chunks = stream._chunks

    def _end(self) -> None:
        self._over = True
        self._chunks = iter(())
        self._unbind()
        self._release()
        # Closing alone is not enough: a generator that never began may hold a connection until it is gone.
        adopted, self._adopted = self._adopted, None
        close_quietly(adopted)

    def _failed(self, error: BaseException) -> None:
        """``next()`` is about to raise, at its end StopIteration."""
        self.close()

    def _end_cancelled(self) -> None:
        over = self._over
        self.close()
        if not over:
            raise stream_cancelled(*self._origin)

    def __enter__(self) -> ChatStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if not getattr(self, "_over", True):
            if self._drop is not None:
                self._drop()
            self.close()

    def __repr__(self) -> str:
        state = "over" if self._over else "cancelled" if self._token.cancelled else "open"
        return f"<ChatStream {state}, status {self.response.status}>"


Chunks = Generator[StreamChunk, None, None]
"""What any CompletionModel returns: a ChatStream, or a plain generator."""
