"""The body of a response under ASGI: what ``aio`` reads, as bytes."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator
from typing import Final

from completion.contract.chunks import StreamChunk
from completion.contract.errors import StreamCancelledError
from completion.offload.aio import AsyncChatStream
from completion.offload.paced import Paced
from completion.web.protocols import Rendering
from completion.web.wsgi import SOON_SECONDS

_PIECES: Final = 256
"""Chunks that are sent at once, at most."""


class AsgiBody(AsyncIterator[bytes]):
    """What an ASGI server sends, as soon as it is there. ``headers`` belong to the response.

    It hangs up when the task that reads it is cancelled, as servers do when the client left, by ``aclose()``, by
    ``close()`` from any thread, and when it is dropped.
    """

    def __init__(
        self, stream: AsyncIterable[StreamChunk], rendering: Rendering, *, keep_alive: float | None = None
    ) -> None:
        self.headers: dict[str, str] = rendering.headers
        self._chunks = stream if isinstance(stream, AsyncChatStream) else Paced(stream)
        self._rendering = rendering
        self._keep_alive = (keep_alive or SOON_SECONDS) if rendering.keep_alive else None
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
            if found := await self._next():
                return found
        error, self._error = self._error, None
        if error is not None and self._rendering.breaks_off:
            raise error
        if not self._rendering.has_ended and self._rendering.breaks_off:
            raise StreamCancelledError("the body was closed before its end")
        raise StopAsyncIteration

    async def _next(self) -> bytes:
        """What comes next: all that is there, the words for a silence, or the last ones. May be empty."""
        chunks = self._chunks
        pieces: list[bytes] = []
        error: Exception | None = None
        try:
            chunk = await chunks.next_within(self._keep_alive)
            if chunk is None:
                return self._rendering.keep_alive
            while chunk is not None:
                pieces.append(self._rendering.piece(chunk))
                is_more = chunks.has_more_now and len(pieces) < _PIECES
                chunk = await chunks.next_within(None) if is_more else None
            return b"".join(pieces)
        except StopAsyncIteration:
            pass
        except Exception as failure:
            self._chunks.cancel()
            error = failure
        except BaseException:
            self.close()
            raise
        if self._is_over:  # closed meanwhile
            return b""
        self._is_over = True
        last, self._error = self._rendering.end(error)
        return b"".join(pieces) + last

    async def aclose(self) -> None:
        """Hang up. Idempotent."""
        self._is_over = True
        await self._chunks.aclose()

    def close(self) -> None:
        """Hang up, from any thread, and without waiting."""
        self._is_over = True
        self._chunks.cancel()
