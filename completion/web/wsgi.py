"""The body of a response under WSGI. It blocks, but never for longer than the keep-alive time.

A worker thread reads the stream (``offload``). The server's thread waits until a chunk arrives, the keep-alive time is
up, or the client leaves.
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

CLIENT_CHECK_SECONDS: Final = 0.3
"""The default keep-alive. A server notices that its client has left at the second write to the closed connection (the
first one is answered with a reset): with this interval, within a second."""
PROXY_SECONDS: Final = 15.0
"""The default keep-alive if we watch the client's socket. Then it only has to stop proxies on the way from closing an
idle connection, which they do later than this (nginx after 60 s)."""
_CHECK_SOCKET_SECONDS: Final = 0.2
_BUFFER: Final = 256

# In effect no limit: the server's own threads limit how many bodies are read at the same time.
_threads = Threads(1_000_000)


class WsgiBody(Iterator[bytes]):
    """Yields bytes for a WSGI server to send, as soon as chunks arrive. ``headers`` are for the response.

    ``close()`` closes the stream; every WSGI server calls it at the end and when the client has left. Dropping the body
    closes the stream too. A body that is closed early never looks complete to the client.
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
        seconds = keep_alive or (CLIENT_CHECK_SECONDS if self._client is None else PROXY_SECONDS)
        self._keep_alive = min(seconds, threading.TIMEOUT_MAX)
        self._pump: Pump | None = None
        self._wakeups: SimpleQueue[None] = SimpleQueue()  # the pump puts one in to wake the server's thread
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
        pump, keep_alive_at = self._pump, time.monotonic() + self._keep_alive
        while pump is not None and not self._is_over:
            # Read before `chunks`: the pump may add its last chunk and end between the two lines.
            was_over = pump.is_over or pump.token.cancelled
            if pump.chunks:
                data = self._take_all(pump)
            elif was_over:
                data = self._end_of(pump)
            elif time.monotonic() >= keep_alive_at:
                data = self._rendering.keep_alive
                keep_alive_at = time.monotonic() + self._keep_alive
            else:
                self._wait(pump, keep_alive_at - time.monotonic(), lambda: pump.has_news)
                continue
            if data:
                return data
        error, self._error = self._error, None
        if error is not None and self._rendering.breaks_off:
            raise error
        if not self._rendering.has_ended and self._rendering.breaks_off:
            raise StreamCancelledError("the body was closed before its end")
        raise StopIteration

    def close(self) -> None:
        """Close the stream, from any thread. May be called more than once."""
        self._is_over = True
        pump = getattr(self, "_pump", None)
        if pump is None:
            close = getattr(self._stream, "close", None)
            if close is not None:
                close()
        elif not pump.is_over:
            pump.token.cancel()

    def _started(self, source: Callable[[], Iterable[StreamChunk]]) -> Pump:
        pump = Pump(source, limit=_BUFFER, wake=partial(self._wakeups.put, None), opened=self._stream)
        self._pump = pump  # before it starts, because another thread may call close() at any time
        for owner in (self._stream, self._token):
            cancel = getattr(owner, "cancel", None)
            if cancel is not None:
                pump.token.on_cancel(cancel)
        pump.start(_threads)
        if self._is_over:
            pump.token.cancel()
        return pump

    def _wait_until_open(self, pump: Pump) -> None:
        def is_open_or_over() -> bool:
            return pump.stream is not None or pump.is_over or pump.token.cancelled

        while not is_open_or_over():
            self._wait(pump, PROXY_SECONDS, is_open_or_over)
        if pump.stream is None:
            self._is_over = True
            error, pump.error = pump.error, None
            try:
                raise error or StreamCancelledError("the client left before the answer began")
            finally:
                del error  # contract/frames.py says why

    def _wait(self, pump: Pump, seconds: float, condition: Callable[[], bool]) -> None:
        """Wait for a change of the pump, at most for this time. Close the body if the client has left meanwhile.

        May return early: a wakeup of an earlier wait may be in the queue, and a socket is checked more often.
        """
        pump.is_awaited = True
        if not condition():  # look again: a change before `is_awaited` was set woke no thread
            with suppress(Empty):
                timeout = seconds if self._client is None else min(seconds, _CHECK_SOCKET_SECONDS)
                self._wakeups.get(timeout=max(timeout, 0.0))
        pump.is_awaited = False
        if self._client is not None and self._client.has_left():
            self.close()

    def _take_all(self, pump: Pump) -> bytes:
        """The bytes of all chunks that have arrived, for one write."""
        parts: list[bytes] = []
        try:
            parts += (self._rendering.chunk(pump.take()) for _ in range(len(pump.chunks)))
        except Exception as error:  # a third party's chunk that cannot be encoded, for example with NaN in it
            self.close()
            parts.append(self._end(error))
        return b"".join(parts)

    def _end_of(self, pump: Pump) -> bytes:
        """The last bytes, after the pump is over or cancelled."""
        error, pump.error = pump.error, None
        if self._is_over:
            return b""
        if pump.token.cancelled:  # by the stream's cancel(), or by a token of the server's thread
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
