"""The body of a response: pieces of bytes as soon as they arrive, and the end of the connection."""

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
from completion.transport.faults import is_from_signal_handler, scrubbed

READ_SIZE: Final = 64 * 1024

# Reading an error's body may take so long, whatever `Timeout.read` says.
_ERROR_BODY_SECONDS: Final = 5.0
# After the end of turn, for the rest of the body.
_DRAIN_SECONDS: Final = 0.05
_DRAIN_BYTES: Final = 16 * 1024


class Body:
    """The body of one response: pieces of bytes off the wire, and the end of the connection.

    ``close()`` hangs up, unless the turn is over: then the rest is read, within narrow bounds, and the connection
    goes back to the pool.
    """

    def __init__(
        self,
        response: requests.Response,
        exchange: Exchange,
        request_id: str | None,
        dropped: deque[Body],
    ) -> None:
        self.status: int = response.status_code
        self.headers: Mapping[str, str] = response.headers
        self.request_id = request_id
        self.token = exchange.token
        self._response = response
        self._exchange = exchange
        self._raw = response.raw
        self._held = b""
        self._is_complete = False
        self._is_broken = False
        self._turn_is_over = False
        self._is_closed = False
        self._dropped = dropped
        # http.client's own response, where there is one: urllib3's read1 on top of it costs 3 µs more a call.
        direct = getattr(self._raw, "_fp", None)
        self._direct = direct if isinstance(direct, http.client.HTTPResponse) else None
        self._chunked: ChunkedReader | None = None
        self._read: Callable[[int], bytes] | None = None
        exchange.watch_response(self._raw)

    def pieces(self) -> Iterator[bytes]:
        """What arrives, as soon as it does, until the end of the body.

        Raises:
            TransportError: the connection broke, or one of the timeouts is over.
            StreamCancelledError: somebody called ``cancel()``.
            MalformedStreamError: it is compressed in a way that we do not read.
        """
        exchange = self._exchange
        if self._held:
            held, self._held = self._held, b""
            yield held
        failure: CompletionError | None = None
        read = self._read = self._read or self._reader()
        while True:
            if exchange.is_inherited:  # what is read here would be missing there
                raise exchange.error(TransportError, "this stream belongs to the process that this one was forked from")
            if exchange.has_clocks:
                exchange.arm()
            try:
                piece = read(READ_SIZE)
            except CompletionError as error:
                self._is_broken = True
                raise self.attributed(error)  # noqa: B904  the same one
            except Exception as exc:
                if is_from_signal_handler(exc):
                    raise
                failure, reason = exchange.stream_error(exc), exc
                break
            if not piece or self.token.cancelled:  # what was sent compressed may hold out long after the socket
                break
            yield piece
        if failure is not None:  # after the except block, and deleted: contract/frames.py says why
            self._is_broken = True
            failure.__cause__ = scrubbed(reason, exchange.authorization, sys.exc_info()[1])
            try:
                raise failure
            finally:
                del failure, reason
        if self.token.cancelled:
            raise exchange.cancelled()
        if self._chunked is not None and self._chunked.has_extra_bytes:
            self._is_broken = True  # they would be taken for the next response
        if self._direct is not None and self._direct.length:
            self._is_broken = True
            raise exchange.error(
                TransportError, f"the connection closed {self._direct.length} bytes before the end of the body"
            )
        self._is_complete = not self._is_broken

    def chunk_given(self) -> None:
        """A chunk came out of what was read: the clock of ``Timeout.stall`` starts again."""
        self._exchange.chunk_given()

    def end_of_turn(self, seconds: float | None) -> None:
        """The provider's end of turn was read: wait so long for all that follows. A later call can only shorten it.

        With None more of the answer came, and the next part is waited for as for any other.
        """
        self._turn_is_over = True
        self._exchange.end_of_turn(seconds)

    def check(self) -> None:
        """Raise where the wait for the headers was ended from here, or the body is compressed in a way we do not read.

        Raises:
            CompletionError: the call was cancelled, a clock ran out, or the Content-Encoding is unknown.
        """
        interruption = self._exchange.interruption()
        if interruption is not None:
            raise interruption
        if 200 <= self.status < 300:
            self._read = self._reader()

    def beginning(self) -> bytes:
        """The first piece of the body; ``pieces`` gives it once more."""
        self._held = next(self.pieces(), b"")
        return self._held

    def attributed(self, error: CompletionError) -> CompletionError:
        """The error with its origin, and without the key, should the server have echoed it."""
        error.provider, error.model = self._exchange.provider, self._exchange.model
        error.request_id = error.request_id or self.request_id
        conceal = self._exchange.authorization.conceal
        told = {name: getattr(error, name) for name in ("message", "code", "body", "request_id")}
        concealed = {name: conceal(text) for name, text in told.items() if isinstance(text, str)}
        if any(concealed[name] != told[name] for name in concealed):
            vars(error).update(concealed)
            error.args = (error.message,)
            # What it was read from is in the locals of the frames below, and in what they raised.
            error.__cause__ = error.__context__ = error.__traceback__ = None
        return error

    def close(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        mine = not self._exchange.is_inherited
        if mine and self._turn_is_over and not (self._is_complete or self._is_broken or self.token.cancelled):
            self._drain()
        if mine and self._is_complete:
            self._exchange.end()
            if self._direct is not None:
                self._direct.close()
            self._raw.release_conn()
        else:
            # A forked child may hold a copy of the socket: only a shutdown tells the server for sure.
            self._exchange.wake()
            self._exchange.end()
            with suppress(Exception):
                self._response.close()

    def drop(self) -> None:
        """Close it from a finalizer, which may run inside of anything: here, of the pool's own lock.

        An answer that is not over is hung up at once. A connection that can serve again waits in ``dropped`` until
        the next request gives it back.
        """
        if self._is_closed:
            return
        self._is_closed = True
        if self._turn_is_over and not self.token.cancelled:
            self._exchange.untie()
            self._dropped.append(self)
            return
        self.abandon()

    def abandon(self) -> None:
        """Hang up, and leave the pool alone."""
        self._exchange.wake()
        self._exchange.end()
        with suppress(Exception):
            self._raw.close()

    def give_back(self) -> None:
        """Close, after all, what was dropped."""
        self._is_closed = False
        self.close()

    def _reader(self) -> Callable[[int], bytes]:
        read: Callable[[int], bytes]
        if self._direct is None:
            read = partial(self._raw.read1, decode_content=False)
        elif self._direct.chunked and self._direct.fp is not None:
            self._chunked = ChunkedReader(self._direct.fp.read1)
            read = self._chunked.read1
        else:
            read = self._direct.read1
        try:
            encoding = encoding_of(self.headers.get("content-encoding"))
        except MalformedStreamError as error:
            raise self.attributed(error)  # noqa: B904  the same one
        return read if encoding == "identity" else Decoder(read, encoding).read1

    def _drain(self) -> None:
        self._exchange.limit("tail", _DRAIN_SECONDS)
        left = _DRAIN_BYTES
        with suppress(CompletionError):
            for piece in self.pieces():
                left -= len(piece)
                if left < 0:
                    break

    def error_text(self) -> str:
        """The body, cut to 64 KiB and to what comes within a few seconds."""
        self._exchange.limit("tail", _ERROR_BODY_SECONDS)
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
