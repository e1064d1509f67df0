"""The body of a response under WSGI: blocking, but never longer than a silence may last.

A worker thread reads the stream (``offload``); the server's thread waits for what comes, for the time of a keep-alive,
and for the client to leave.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, Final

from completion.contract.cancel import CancelToken
from completion.contract.chunks import StreamChunk
from completion.contract.errors import StreamCancelledError, stream_cancelled
from completion.offload.pump import Pump
from completion.offload.threads import Threads
from completion.web.client import client_of
from completion.web.protocols import Rendering

SOON_SECONDS: Final = 0.3
"""Two writes that fail to arrive tell a server that its client left; so often they fit well into a second."""
PROXY_SECONDS: Final = 15.0
"""What proxies take for dead waits longer."""
_LOOK_SECONDS: Final = 0.2
_BUFFER: Final = 256

# As many as the server has threads of its own.
_threads = Threads(1_000_000)


class WsgiBody(Iterator[bytes]):
    """What a WSGI server sends, as soon as it is there. ``headers`` belong to the response.

    ``close()``, which every server calls at the end and when the client left, hangs up; so does dropping it. A body
    that was closed before its end never looks as if it had come to it.
    """

    def __init__(
        self,
        stream: Iterable[StreamChunk] | Callable[[], Iterable[StreamChunk]],
        rendering: Rendering,
        *,
        keep_alive: float | None = None,
        environ: Mapping[str, Any] | None = None,
        token: CancelToken | None = None,
    ) -> None:
        self.headers: dict[str, str] = rendering.headers
        self._stream = None if callable(stream) else stream
        self._rendering = rendering
        self._token = token
        self._client = client_of(environ) if environ is not None else None
        seconds = keep_alive or (SOON_SECONDS if self._client is None else PROXY_SECONDS)
        self._keep_alive = min(seconds, threading.TIMEOUT_MAX)
        self._pump: Pump | None = None
        self._bell: SimpleQueue[None] = SimpleQueue()
        self._error: Exception | None = None
        self._has_begun = False
        self._is_over = False
        if callable(stream):
            self._wait_until_open(self._started(stream))

    def __iter__(self) -> WsgiBody:
        return self

    def __next__(self) -> bytes:
        if self._pump is None and not self._is_over:
            stream = self._stream
            self._started(lambda: stream or ())
        if not self._has_begun and not self._is_over:
            self._has_begun = True
            if first := self._rendering.begin():
                return first
        pump, speaks_at = self._pump, time.monotonic() + self._keep_alive
        while pump is not None and not self._is_over:
            was_over = pump.is_over or pump.token.cancelled  # asked first: a last chunk may come between
            if pump.chunks:
                found = self._taken(pump)
            elif was_over:
                found = self._last(pump)
            elif self._is_silent(pump, speaks_at):
                found = self._rendering.keep_alive
                speaks_at = time.monotonic() + self._keep_alive
            else:
                continue
            if found:
                return found
        error, self._error = self._error, None
        if error is not None and self._rendering.breaks_off:
            raise error
        if not self._rendering.has_ended and self._rendering.breaks_off:
            raise StreamCancelledError("the body was closed before its end")
        raise StopIteration

    def close(self) -> None:
        """Hang up. Idempotent, from any thread."""
        self._is_over = True
        pump = getattr(self, "_pump", None)
        if pump is None:
            close = getattr(self._stream, "close", None)
            if close is not None:
                close()
        elif not pump.is_over:
            pump.token.cancel()

    def _started(self, source: Callable[[], Iterable[StreamChunk]]) -> Pump:
        pump = Pump(source, limit=_BUFFER, wake=partial(self._bell.put, None), opened=self._stream)
        self._pump = pump  # before it starts: close() may come from another thread
        for owner in (self._stream, self._token):
            cancel = getattr(owner, "cancel", None)
            if cancel is not None:
                pump.token.on_cancel(cancel)
        pump.start(_threads)
        if self._is_over:
            pump.token.cancel()
        return pump

    def _is_silent(self, pump: Pump, until: float) -> bool:
        """Wait for news, for the client to leave, or for the time; True when it is over and there was neither."""
        left = until - time.monotonic()
        if left <= 0:
            return True
        self._wait(pump, left, lambda: pump.has_news)
        return False

    def _wait_until_open(self, pump: Pump) -> None:
        def is_decided() -> bool:
            return pump.stream is not None or pump.is_over or pump.token.cancelled

        while not is_decided():
            self._wait(pump, PROXY_SECONDS, is_decided)
        if pump.stream is None:
            self._is_over = True
            error, pump.error = pump.error, None
            try:
                raise error or StreamCancelledError("the client left before the answer began")
            finally:
                del error  # contract/frames.py says why

    def _wait(self, pump: Pump, seconds: float, is_enough: Callable[[], bool]) -> None:
        """For what the pump has to tell, but no longer than the client stays."""
        pump.is_awaited = True
        if not is_enough():  # it may have come before the pump could know that it is awaited
            with suppress(Empty):
                self._bell.get(timeout=seconds if self._client is None else min(seconds, _LOOK_SECONDS))
        pump.is_awaited = False
        if self._client is not None and self._client.has_left():
            self.close()

    def _taken(self, pump: Pump) -> bytes:
        pieces: list[bytes] = []
        try:
            pieces += (self._rendering.piece(pump.take()) for _ in range(len(pump.chunks)))
        except Exception as error:  # a chunk of somebody else's making that cannot be said
            self.close()
            pieces.append(self._end(error))
        return b"".join(pieces)

    def _last(self, pump: Pump) -> bytes:
        error, pump.error = pump.error, None
        if self._is_over:
            return b""
        if pump.token.cancelled:  # with a token that the server's thread is inside of
            return self._end(stream_cancelled(None, None))
        if error is not None and not isinstance(error, Exception):
            raise error
        return self._end(error)

    def _end(self, error: Exception | None) -> bytes:
        self._is_over = True
        last, self._error = self._rendering.end(error)
        return last

    def __del__(self) -> None:
        if not getattr(self, "_is_over", True):
            self.close()
