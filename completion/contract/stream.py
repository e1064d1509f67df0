"""The stream that ``chat_stream`` returns: a blocking generator of chunks that owns its connection."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields
from types import TracebackType
from typing import Any, ClassVar, TypeVar, cast

from completion.contract.cancel import CancelToken
from completion.contract.chunks import StreamChunk, TextDelta
from completion.contract.collect import TurnSoFar
from completion.contract.errors import CompletionError, stream_cancelled
from completion.contract.frames import clear_ours, is_ours
from completion.contract.run import Chunk
from completion.contract.turn import Turn


@dataclass(frozen=True, slots=True)
class ResponseInfo:
    """The facts of the HTTP response. They are known as soon as ``chat_stream`` returns.

    ``headers`` ignores the case of names. ``dropped`` lists the fields of the request that this provider does not
    support and that were left out. Only preferences such as ``top_k`` are dropped.
    """

    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    request_id: str | None = None
    dropped: tuple[str, ...] = ()


def response_of(stream: object) -> ResponseInfo:
    """The ResponseInfo of a stream of any class; an empty one if the stream has no response.

    A third party's class may be used as ``response``: any object with the fields of ResponseInfo.
    """
    response = getattr(stream, "response", None)
    has_all_fields = all(hasattr(response, field.name) for field in fields(ResponseInfo))
    return response if response is not None and has_all_fields else ResponseInfo()


def iterator_of(stream: Iterable[StreamChunk]) -> Iterator[StreamChunk]:
    """The stream itself; an iterable of a third party that is not an iterator, such as a list, becomes a generator.

    Raises:
        TypeError: the stream cannot be iterated. The usual mistake is an ``async def``, or a missing ``return``.
    """
    if hasattr(stream, "__next__"):
        return cast(Iterator[StreamChunk], stream)
    if isinstance(stream, str) or not isinstance(stream, Iterable):
        raise TypeError(f"chat_stream must return an iterator of chunks, got {type(stream).__name__}")
    return (chunk for chunk in stream)


def closable(stream: Iterable[StreamChunk]) -> Generator[StreamChunk, None, None]:
    """The stream itself; an iterator of a third party without ``close()`` becomes a generator."""
    iterator = iterator_of(stream)
    return cast(Any, iterator) if hasattr(iterator, "close") else (chunk for chunk in iterator)


def close_quietly(stream: object) -> None:
    """Close a stream of any class, and ignore an exception of a third party's ``close()``.

    Such an exception must not replace the error that ended the stream.
    """
    close = getattr(stream, "close", None)  # an iterator that is not a generator may have none
    if close is not None:
        with suppress(Exception):
            close()


def _nothing() -> None:
    pass


def _is_already_executing(exc: BaseException) -> bool:
    """True if Python refused a call because ``next()`` of the generator is running.

    It runs in another thread, or in this one if a signal handler interrupted it.
    """
    return isinstance(exc, ValueError) and exc.args == ("generator already executing",)


_ChatStreamT = TypeVar("_ChatStreamT", bound=Callable[..., Any])
_StreamT = TypeVar("_StreamT", bound="ChatStream")


def without_our_frames(chat_stream: _ChatStreamT) -> _ChatStreamT:
    """Decorate ``chat_stream``: its errors name the model and do not show the prompt in their tracebacks.

    Our frames are removed from the traceback of a CompletionError. Any other exception may be a bug, so its traceback
    keeps our frames, but their local variables are cleared.
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
                del theirs  # frames.py says why
        except BaseException as exc:
            del req
            clear_ours(exc)
            raise

    return wrapper  # type: ignore[return-value]


def _frames_of_others(trace: TracebackType | None) -> TracebackType | None:
    """The traceback without our frames; None if the innermost frame is ours.

    The innermost frame is not ours when a third party's code raised the error, such as a callable for the API key.
    """
    entries = []
    while trace is not None:
        entries.append(trace)
        trace = trace.tb_next
    theirs = [entry for entry in entries if not is_ours(entry.tb_frame)]
    if not theirs or theirs[-1] is not entries[-1]:
        return None
    for outer, inner in itertools.pairwise(theirs):
        outer.tb_next = inner
    return theirs[0]


class ChatStream(Generator[Chunk, None, None]):
    """A blocking generator of chunks that is also a context manager.

    The connection is closed when the ``with`` block ends, by ``close()``, and when the stream is garbage collected, so
    also after a ``break``. An error closes it too. Chunks that were yielded before stay valid, and from then on
    ``next()`` raises StopIteration.

    A wrapper that may replace its stream with another one calls ``adopt`` and ``continue_with``.

    Args:
        chunks: the chunks to yield. A generator is closed together with the stream.
        response: the facts of the response.
        token: cancelled by ``cancel()``; ``chunks`` may wait on it. By default the stream makes one that is bound to
            the current CancelToken.
        release: returns the stream's resources. Called at every end, and maybe more than once.
        drop: called before ``release`` when the garbage collector ends the stream. It frees what ``release`` would
            need a lock for: the finalizer may run while this thread holds that lock.
        provider, model: the names in the error of a cancelled stream.
    """

    _accepts_runs: ClassVar[bool] = False
    """True in a class whose streams are runs."""

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
        self.response: ResponseInfo = response or ResponseInfo()
        self._chunks = cast(Iterator[Chunk], chunks)
        self._unbind = _nothing
        if token is None:
            token, self._unbind = CancelToken.bound_to_current()
        self._token = token
        self._release = release
        self._drop = drop
        self._adopted: Iterator[StreamChunk] | None = None
        self._so_far: TurnSoFar | None = None
        # The caller's own next() read a chunk, so it is not in self._so_far.
        self._was_read_outside = False
        self._origin = (provider, model)
        self._is_over = False

    def __iter__(self: _StreamT) -> _StreamT:
        return self

    def __next__(self) -> Chunk:
        if self._token.cancelled:
            self._close_cancelled()
        self._was_read_outside = True
        try:
            return next(self._chunks)
        except BaseException as exc:
            if not _is_already_executing(exc):
                self._before_raise(exc)
                if not isinstance(exc, StopIteration):
                    clear_ours(exc)
            raise

    def send(self, value: None) -> Chunk:
        """The same as ``next()``."""
        return next(self)

    def throw(
        self,
        typ: type[BaseException] | BaseException,
        val: object = None,
        tb: TracebackType | None = None,
    ) -> Chunk:
        """Close the stream and raise the given error. It does not reach the iterator that makes the chunks."""
        self.close()
        if isinstance(typ, BaseException):
            error = typ
        elif isinstance(val, BaseException):
            error = val
        else:
            error = typ() if val is None else typ(val)
        raise error if tb is None else error.with_traceback(tb)

    def close(self) -> None:
        """Close the connection. Idempotent.

        While ``next()`` is blocked in another thread, this is the same as ``cancel()``: that thread closes the
        connection.
        """
        try:
            if isinstance(self._chunks, Generator):
                self._chunks.close()
        except BaseException as exc:
            if _is_already_executing(exc):
                self.cancel()
                return
            self._end()
            raise
        self._end()

    def cancel(self) -> None:
        """End the stream, from any thread: ``next()`` raises StreamCancelledError, also if it is blocked now.

        After the end of the stream this does nothing.
        """
        if not self._is_over:
            self._token.cancel()

    @property
    def text_stream(self) -> Iterator[str]:
        """The text deltas of the stream: ``for text in stream.text_stream: print(text, end="")``.

        ``turn`` is available afterwards. A ``break`` leaves the stream open, and ``text_stream`` or ``collect()``
        continues where it stopped.

        Raises:
            CompletionError: from ``next()`` of this iterator, as ``next(stream)`` does; ``partial`` is the Turn so far.
        """
        return self._texts()

    def _texts(self) -> Iterator[str]:
        if self._so_far is None:
            self._so_far = TurnSoFar(accepts_runs=self._accepts_runs)
        so_far = self._so_far
        while not self._is_over:
            so_far.has_gap |= self._was_read_outside
            try:
                chunk = next(self, None)
            except CompletionError as error:
                if error.partial is None:  # a run sets it to the turn that failed
                    error.partial = so_far.turn()
                raise
            self._was_read_outside = False  # this next() set it
            if chunk is None:
                so_far.finish()
                return
            so_far.add(chunk)
            if isinstance(chunk, TextDelta):
                yield chunk.delta

    @property
    def turn(self) -> Turn:
        """The complete turn, after ``text_stream`` or ``collect()`` has read the stream to its end.

        Raises:
            RuntimeError: the end was not reached, or chunks were read by ``next()`` or a plain ``for`` loop, which keep
                nothing.
        """
        return self._complete("turn").turn()

    def _complete(self, attribute: str) -> TurnSoFar:
        """All chunks of the stream. ``attribute``: the name that the user asked for."""
        so_far = self._so_far
        if so_far is None or so_far.has_gap:
            raise RuntimeError(
                f"{attribute} is known only after text_stream or collect(): next() and a plain for loop keep no chunks"
            )
        if not so_far.is_complete:
            raise RuntimeError(f"{attribute} is not known yet: read text_stream to its end, or call collect()")
        return so_far

    def collect(self) -> Turn:
        """Read the stream to its end and return the turn.

        To see the chunks as well, write a generator that yields them and pass it to ``completion.collect``.

        Raises:
            CompletionError: as ``next()`` does; ``partial`` is the Turn so far.
            RuntimeError: ``next()`` or ``close()`` was called before; the stream does not keep its chunks.
        """
        self._read_all()
        return self.turn

    def _collected(self, so_far: TurnSoFar) -> Turn:
        """What ``collect()`` returns, for a reader in another thread that has read all chunks into ``so_far``."""
        return so_far.turn()

    def _read_all(self) -> None:
        """Read what is left of the stream, and close it. Nothing is left after ``text_stream`` has read it all."""
        if self._so_far is not None and self._so_far.is_complete:
            return
        if self._was_read_outside or self._is_over or (self._so_far is not None and self._so_far.has_gap):
            advice = "to see the chunks as well, pass a generator that yields them to completion.collect()"
            raise RuntimeError(
                "collect() needs a stream that was not read from or closed before"
                + ("" if self._accepts_runs else f"; {advice}")
            )
        with self:
            for _ in self._texts():
                pass

    def adopt(self, stream: Iterator[StreamChunk]) -> None:
        """Show the response of another stream, name its model in errors, and close it with this stream.

        The chunks still come from this stream's own iterator. For wrappers: the iterator reads from ``stream``, and
        another stream may be adopted in its place.
        """
        self.response = response_of(stream)
        self._drop = None
        if isinstance(stream, ChatStream):
            self._drop, self._origin = stream._drop, stream._origin
        self._adopted = stream

    def continue_with(self, stream: Iterator[StreamChunk]) -> None:
        """Adopt another stream, and yield its chunks from the next ``next()`` on.

        For wrappers; called in the thread that reads. This stream's own iterator is not read again. The chunks are read
        from the iterator of ``stream``, which saves a call per chunk, unless its class has its own ``__next__``.
        """
        self.adopt(stream)
        self._chunks = cast(Iterator[Chunk], stream)
        # Not ``direct_iterator``: the wrapper also does what the ``_before_raise`` of an inner wrapper would do.
        if isinstance(stream, ChatStream) and type(stream).__next__ is ChatStream.__next__:
            self._chunks = stream._chunks

    def _end(self) -> None:
        self._is_over = True
        self._chunks = iter(())
        self._unbind()
        self._release()
        # The reference is removed too: close() of a generator that never began runs no code of it, so its connection is
        # closed only when the generator is deleted.
        adopted, self._adopted = self._adopted, None
        close_quietly(adopted)

    def _before_raise(self, error: BaseException) -> None:
        """Called before ``next()`` raises: an error, or StopIteration at the end."""
        self.close()

    def _close_cancelled(self) -> None:
        """Close the stream, and raise StreamCancelledError unless it was over before."""
        was_over = self._is_over
        self.close()
        if not was_over:
            raise stream_cancelled(*self._origin)

    def __enter__(self: _StreamT) -> _StreamT:  # of a RunStream, a RunStream: its ``result`` is known in a ``with``
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if not getattr(self, "_is_over", True):  # the attribute is missing if __init__ of a subclass failed
            if self._drop is not None:
                self._drop()
            self.close()

    def __repr__(self) -> str:
        state = "over" if self._is_over else "cancelled" if self._token.cancelled else "open"
        return f"<ChatStream {state}, status {self.response.status}>"


def direct_iterator(stream: Iterator[StreamChunk]) -> Iterator[StreamChunk]:
    """The iterator that ``next(stream)`` reads from, to save a call per chunk.

    For a reader that closes and cancels the stream itself. Returns the stream if it is not a ChatStream, or if its
    class has its own ``__next__`` or ``_before_raise``.
    """
    if isinstance(stream, ChatStream):
        kind = type(stream)
        if kind.__next__ is ChatStream.__next__ and kind._before_raise is ChatStream._before_raise:
            return stream._chunks
    return stream


def drop_connection(stream: Iterator[StreamChunk] | None) -> None:
    """Call the ``drop`` of a ChatStream. For the finalizer of its reader, which closes the stream afterwards."""
    if isinstance(stream, ChatStream) and stream._drop is not None:
        stream._drop()
