"""The body of a response under ASGI: the chunks of an AsyncChatStream, or of any asynchronous iterable, as bytes."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator
from typing import Final

from completion.contract.chunks import StreamChunk
from completion.contract.errors import StreamCancelledError
from completion.offload.aio import AsyncChatStream
from completion.offload.paced import NOT_YET, Paced
from completion.web.protocols import Rendering
from completion.web.wsgi import CLIENT_CHECK_SECONDS

_MAX_CHUNKS: Final = 256
"""The most chunks that are sent with one write."""


class AsgiBody(AsyncIterator[bytes]):
    """Yields bytes for an ASGI server to send, as soon as chunks arrive. ``headers`` are for the response.

    The stream is closed when the task that reads the body is cancelled (servers do that when the client has left), by
    ``aclose()``, by ``close()`` from any thread, and when the body is dropped.
    """

    def __init__(
        self, stream: AsyncIterable[StreamChunk], rendering: Rendering, *, keep_alive: float | None = None
    ) -> None:
        self.headers: dict[str, str] = rendering.headers
        self._chunks = stream if isinstance(stream, AsyncChatStream) else Paced(stream)
        self._rendering = rendering
        self._keep_alive = (keep_alive or CLIENT_CHECK_SECONDS) if rendering.keep_alive else None
        self._has_begun = False
        self._error: Exception | None = None
        self._is_over = False

    def __aiter__(self) -> AsgiBody:
        return self

    async def __anext__(self) -> bytes:
        if not self._has_begun:
            self._has_begun = True
            if first := self._rendering.begin():
                return first
        while not self._is_over:
            if data := await self._next():
                return data
        error, self._error = self._error, None
        if error is not None and self._rendering.breaks_off:
            raise error
        if not self._rendering.has_ended and self._rendering.breaks_off:
            raise StreamCancelledError("the body was closed before its end")
        raise StopAsyncIteration

    async def _next(self) -> bytes:
        """The bytes of all chunks that have arrived, a keep-alive, or the end of the body. May be empty."""
        chunks = self._chunks
        parts: list[bytes] = []
        error: Exception | None = None
        try:
            chunk = await chunks.next_within(self._keep_alive)
            if chunk is NOT_YET:
                return self._rendering.keep_alive
            while chunk is not NOT_YET:
                parts.append(self._rendering.chunk(chunk))
                has_more = chunks.has_more_now and len(parts) < _MAX_CHUNKS
                chunk = await chunks.next_within(None) if has_more else NOT_YET
            return b"".join(parts)
        except StopAsyncIteration:
            pass
        except Exception as failure:
            self._chunks.cancel()
            error = failure
        except BaseException:
            self.close()
            raise
        if self._is_over:  # closed while we waited
            return b""
        self._is_over = True
        last, self._error = self._rendering.end(error)
        return b"".join(parts) + last

    async def aclose(self) -> None:
        """Close the stream. May be called more than once."""
        self._is_over = True
        await self._chunks.aclose()

    def close(self) -> None:
        """Close the stream, from any thread, without waiting."""
        self._is_over = True
        self._chunks.cancel()
