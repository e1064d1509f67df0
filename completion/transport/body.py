"""The body of a response: its pieces of bytes as soon as they arrive, and the end of the connection."""

from __future__ import annotations

import http.client
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Final

import requests

from completion.contract.errors import BODY_LIMIT, CompletionError, MalformedStreamError, TransportError
from completion.transport.chunked import ChunkedReader
from completion.transport.encoding import Decoder, encoding_of
from completion.transport.exchange import Exchange
from completion.transport.faults import must_raise_unchanged, scrubbed

READ_SIZE: Final = 64 * 1024

# The longest time to read the body of an error, whatever `Timeout.read` is.
_ERROR_BODY_SECONDS: Final = 5.0
# The limits for reading the rest of a body after the end of turn. To open a new connection takes about as long.
_DRAIN_SECONDS: Final = 0.05
_DRAIN_BYTES: Final = 16 * 1024


class Body:
    """The body of one response: its pieces of bytes, and the end of the connection.

    ``close()`` closes the connection, with one exception: after the end of turn it reads the rest of the body, within
    small limits, and returns the connection to the pool.
    """

    def __init__(
        self,
        response: requests.Response,
        exchange: Exchange,
        request_id: str | None,
        postponed: deque[Body],
    ) -> None:
        self.status: int = response.status_code
        self.headers: Mapping[str, str] = response.headers
        self.request_id = request_id
        self.token = exchange.token
        self._response = response
        self._exchange = exchange
        self._raw = response.raw
        self._first_piece = b""  # what first_piece() read; pieces() yields it again
        self._is_complete = False
        self._is_broken = False
        self._is_turn_over = False
        self._is_closed = False
        self._postponed = postponed
        # Read from http.client's own response if there is one: urllib3's read1 costs 3 µs more per call.
        inner = getattr(self._raw, "_fp", None)
        self._inner = inner if isinstance(inner, http.client.HTTPResponse) else None
        self._chunked: ChunkedReader | None = None
        self._read: Callable[[int], bytes] | None = None
        exchange.set_response(self._raw)

    def pieces(self) -> Iterator[bytes]:
        """Yield the bytes as soon as they arrive, until the end of the body.

        Raises:
            TransportError: the connection broke, or a timeout expired.
            StreamCancelledError: ``cancel()`` was called.
            MalformedStreamError: the body has an encoding that is not supported.
        """
        exchange = self._exchange
        if self._first_piece:
            first, self._first_piece = self._first_piece, b""
            yield first
        failure: CompletionError | None = None
        read = self._read = self._read or self._reader()
        while True:
            if exchange.is_inherited:  # bytes read in the child are lost to the parent
                raise exchange.error(TransportError, "this stream belongs to the process that forked this one")
            if exchange.has_deadlines:
                exchange.time_next_read()
            try:
                piece = read(READ_SIZE)
            except CompletionError as error:
                self._is_broken = True
                raise self.attributed(error)  # noqa: B904  the same error
            except Exception as exc:
                if must_raise_unchanged(exc):
                    raise
                failure, reason = exchange.stream_error(exc), exc
                break
            # cancel() shuts the socket down, but a decoder may have data for a long time after that.
            if not piece or self.token.cancelled:
                break
            yield piece
        if failure is not None:  # raised outside of `except`: the exception must not become its __context__
            self._is_broken = True
            failure.__cause__ = scrubbed(reason, exchange.authorization, sys.exc_info()[1])
            try:
                raise failure
            finally:
                del failure, reason  # their tracebacks refer to this frame: a reference cycle
        self._check_end()

    def _check_end(self) -> None:
        """Raise unless the body is complete."""
        if self.token.cancelled:
            raise self._exchange.cancelled()
        missing = self._inner.length if self._inner is not None else None  # bytes of Content-Length not read yet
        if missing:
            self._is_broken = True
            raise self._exchange.error(
                TransportError, f"the connection closed {missing} bytes before the end of the body"
            )
        # The next request on this connection would take the extra bytes for its response.
        self._is_broken = self._is_broken or (self._chunked is not None and self._chunked.has_extra_bytes)
        self._is_complete = not self._is_broken

    def chunk_yielded(self) -> None:
        """A chunk was yielded: start ``Timeout.stall`` again."""
        self._exchange.chunk_yielded()

    def end_of_turn(self, seconds: float | None) -> None:
        """The provider's end of turn was read: wait so many seconds in all for the rest of the body.

        A later call with seconds cannot make the wait longer. None: the turn goes on after all.
        """
        self._is_turn_over = True
        self._exchange.end_of_turn(seconds)

    def check(self) -> None:
        """Raise if the wait for the headers was interrupted, or the encoding of the body is not supported.

        Raises:
            CompletionError: the call was cancelled, a timeout expired, or the Content-Encoding is not supported.
        """
        interruption = self._exchange.interruption()
        if interruption is not None:
            raise interruption
        if 200 <= self.status < 300:
            self._read = self._reader()

    def first_piece(self) -> bytes:
        """The first piece of the body; ``pieces()`` yields it again."""
        self._first_piece = next(self.pieces(), b"")
        return self._first_piece

    def attributed(self, error: CompletionError) -> CompletionError:
        """The error with provider, model and request id. If the server echoed the key, ``[key]`` is in its place."""
        error.provider, error.model = self._exchange.provider, self._exchange.model
        error.request_id = error.request_id or self.request_id
        conceal = self._exchange.authorization.conceal
        facts = vars(error)
        concealed = {name: conceal(text) for name, text in facts.items() if isinstance(text, str)}
        if any(concealed[name] != facts[name] for name in concealed):
            facts.update(concealed)
            error.args = (error.message,)
            # The frames in the traceback, and the exceptions that caused this one, hold the text with the key.
            error.__cause__ = error.__context__ = error.__traceback__ = None
        return error

    def close(self) -> None:
        """Close the connection, or return it to the pool after a complete body. Calling it again does nothing."""
        if self._is_closed:
            return
        self._is_closed = True
        is_ours = not self._exchange.is_inherited
        if is_ours and self._is_turn_over and not (self._is_complete or self._is_broken or self.token.cancelled):
            self._drain()
        if is_ours and self._is_complete:
            self._exchange.finish()
            if self._inner is not None:
                self._inner.close()  # http.client refuses the next request while a response is open
            self._raw.release_conn()
        else:
            # A forked child may have a copy of the socket. Then the server notices a shutdown, but not a close.
            self._exchange.shut_down()
            self._exchange.finish()
            with suppress(Exception):
                self._response.close()

    def close_from_finalizer(self) -> None:
        """Close without the pool, because a finalizer may run while its thread holds the lock of the pool.

        Before the end of turn the connection is closed at once. After it the connection may serve another request: the
        body waits in ``postponed`` until the next request calls ``close_postponed()``.
        """
        if self._is_closed:
            return
        self._is_closed = True
        if self._is_turn_over and not self.token.cancelled:
            self._exchange.unbind_tokens()
            self._postponed.append(self)
            return
        self.close_without_pool()

    def close_without_pool(self) -> None:
        """Close the connection and do not use the pool, whose lock this thread may hold."""
        self._exchange.shut_down()
        self._exchange.finish()
        with suppress(Exception):
            self._raw.close()

    def close_postponed(self) -> None:
        """Close a body that ``close_from_finalizer()`` left open."""
        self._is_closed = False
        self.close()

    def _reader(self) -> Callable[[int], bytes]:
        """The function that reads the next bytes, without framing and compression."""
        read: Callable[[int], bytes]
        if self._inner is None:
            read = partial(self._raw.read1, decode_content=False)
        elif self._inner.chunked and self._inner.fp is not None:
            self._chunked = ChunkedReader(self._inner.fp.read1)
            read = self._chunked.read1
        else:
            read = self._inner.read1
        try:
            encoding = encoding_of(self.headers.get("content-encoding"))
        except MalformedStreamError as error:
            raise self.attributed(error)  # noqa: B904  the same error
        return read if encoding == "identity" else Decoder(read, encoding).read1

    def _drain(self) -> None:
        """Read the rest of the body, within small limits."""
        self._exchange.set_body_deadline(_DRAIN_SECONDS)
        left = _DRAIN_BYTES
        with suppress(CompletionError):
            for piece in self.pieces():
                left -= len(piece)
                if left < 0:
                    break

    def error_text(self) -> str:
        """The body as text: at most 64 KiB, and what arrives within a few seconds."""
        self._exchange.set_body_deadline(_ERROR_BODY_SECONDS)
        text = bytearray()
        with suppress(TransportError, MalformedStreamError):
            for piece in self.pieces():
                text += piece
                if len(text) > BODY_LIMIT:
                    break
        return bytes(text[:BODY_LIMIT]).decode("utf-8", "replace")

    def __enter__(self) -> Body:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
