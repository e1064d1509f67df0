"""A Session that records the bytes of each response as they come from the socket, with their arrival times."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

import requests

from completion.contract.errors import ConfigurationError
from completion.transport.exchange import Exchange, exchange_in_progress
from completion.transport.faults import innermost_message, is_connection_lost, is_timeout
from completion.transport.session import Response, TCPAdapter, TCPConnection, TLSConnection, new_session, pools_of

End = Literal["left", "closed", "reset", "timeout", "error", "failed"]
"""Why no more bytes came.

left        the caller stopped reading
closed      the server closed the connection
reset       the server reset the connection
timeout     a timeout expired
error       the socket failed in another way
failed      there was no connection
"""


@dataclass(eq=False, slots=True)
class Traffic:
    """One request, and the bytes that came back. ``pieces``: seconds since the request, and the bytes of one read."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes
    started_at: float = field(default_factory=time.monotonic)
    pieces: list[tuple[float, bytes]] = field(default_factory=list)
    end: End = "left"
    ended_at: float = 0.0
    error: str = ""
    is_connection_reused: bool = False
    exchange: Exchange | None = None

    def add_piece(self, piece: bytes) -> None:
        self.pieces.append((time.monotonic() - self.started_at, piece))
        self.end = "left"  # a read that timed out may be followed by another read

    def set_end(self, end: End, error: str = "") -> None:
        self.end, self.error, self.ended_at = end, error, time.monotonic() - self.started_at

    def snapshot(self) -> Traffic:
        """A copy that no longer changes, even if another thread still reads the response."""
        # The end is read before the pieces are copied, so that no piece before the end is missing.
        end, error, ended_at = self.end, self.error, self.ended_at
        timed_out_at = self.exchange.timed_out_at if self.exchange is not None else None
        if end == "left" and timed_out_at is not None:  # a timeout of ours expired between two reads
            end, ended_at = "timeout", timed_out_at - self.started_at
        return replace(self, pieces=list(self.pieces), end=end, error=error, ended_at=ended_at)


SLOW_SERVER: Final = "TimeoutError"
"""How ``error`` begins if the server did not read the request in time."""


def traffic_of(request: requests.PreparedRequest) -> Traffic:
    """The Traffic of a request. Its body is read into memory, because an iterator can be read only once."""
    body: Any = request.body
    if body is None:
        body = b""
    elif isinstance(body, str):
        body = body.encode()
    elif not isinstance(body, bytes):
        body = body.read() if hasattr(body, "read") else b"".join(body)
        request.body = body
    return Traffic(request.method or "GET", request.url or "", dict(request.headers), body)


_traffic: Final[ContextVar[Traffic | None]] = ContextVar("completion_traffic", default=None)


class _Tap:
    """Wraps a socket: ``recv_into`` adds each piece to a Traffic. Only the reader of http.client uses it."""

    def __init__(self, sock: Any, traffic: Traffic) -> None:
        self._sock = sock
        self._traffic = traffic

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)

    def recv_into(self, buffer: Any, *args: Any) -> int:
        traffic = self._traffic
        try:
            count: int = self._sock.recv_into(buffer, *args)
        except BlockingIOError:
            raise
        except OSError as exc:
            if not _is_interrupted(traffic):
                # A TimeoutError with an errno comes from TCP keep-alive, not from the timeout of the socket.
                is_timeout = isinstance(exc, TimeoutError) and exc.errno is None
                is_reset = isinstance(exc, ConnectionResetError)
                traffic.set_end("timeout" if is_timeout else "reset" if is_reset else "error", str(exc))
            raise
        if count:
            traffic.add_piece(bytes(memoryview(buffer)[:count]))
        elif not _is_interrupted(traffic):
            traffic.set_end("closed")
        return count


def _is_interrupted(traffic: Traffic) -> bool:
    """True if our side shut the socket down. A reader cannot tell this from a close by the server."""
    exchange = traffic.exchange
    if exchange is None or not exchange.has_shut_down:
        return False
    if exchange.is_out_of_time_for_headers and not exchange.token.cancelled:
        traffic.set_end("timeout")
    return True


class _TappedResponse(Response):
    def __init__(self, sock: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        traffic = _traffic.get()
        if traffic is not None:
            # Replace only the socket of the reader, not the reader: the exchange changes its class to time each recv.
            reader: Any = self.fp.raw
            reader._sock = _Tap(reader._sock, traffic)


class _Tapped:
    """Mixin for connections whose responses are recorded."""

    response_class: Any = _TappedResponse
    sock: Any
    _has_sent: bool

    def request(self, *args: Any, **kwargs: Any) -> None:
        traffic = _traffic.get()
        if traffic is not None:
            traffic.is_connection_reused = self.sock is not None and self._has_sent
        super().request(*args, **kwargs)  # type: ignore[misc]


class _TappedTCPConnection(_Tapped, TCPConnection):
    pass


class _TappedTLSConnection(_Tapped, TLSConnection):
    pass


class OneProcessAdapter(TCPAdapter):
    """What is recorded and replayed belongs to this process: a copy in another one would record or replay nothing."""

    def __getstate__(self) -> Any:
        raise TypeError("recorded: a model with this session cannot be pickled; run it in threads of this process")


class _RecordingAdapter(OneProcessAdapter):
    pools = pools_of(_TappedTCPConnection, _TappedTLSConnection)

    def __init__(self, on_request: Callable[[Traffic], None], on_discard: Callable[[Traffic], None]) -> None:
        super().__init__()
        self._on_request = on_request
        self._on_discard = on_discard

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        if proxy.lower().startswith("socks"):
            raise ConfigurationError("recorded: a request through a SOCKS proxy cannot be recorded; use an HTTP proxy")
        return super().proxy_manager_for(proxy, **kwargs)

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        traffic = traffic_of(request)
        traffic.exchange = exchange_in_progress.get()
        self._on_request(traffic)
        context = _traffic.set(traffic)
        try:
            return super().send(request, *args, **kwargs)
        except requests.exceptions.RequestException as exc:
            if not traffic.pieces:
                self._failed(traffic, exc)
            raise
        finally:
            _traffic.reset(context)

    def _failed(self, traffic: Traffic, exc: requests.exceptions.RequestException) -> None:
        """Record why there is no response."""
        if is_connection_lost(exc) and traffic.is_connection_reused:
            # The server closed an idle connection. The transport sends the request again on another connection.
            self._on_discard(traffic)
        elif traffic.end != "left" or _is_interrupted(traffic):
            pass  # recorded by _Tap already, or the caller left
        elif is_connection_lost(exc):
            traffic.set_end("reset", innermost_message(exc))  # the connection was lost while the request was sent
        else:
            traffic.set_end("failed", f"{_kind(exc)}: {innermost_message(exc)}")


def _kind(exc: requests.exceptions.RequestException) -> str:
    kinds = requests.exceptions
    for kind in (kinds.ConnectTimeout, kinds.ReadTimeout, kinds.SSLError, kinds.ProxyError):
        if isinstance(exc, kind):
            return kind.__name__
    return SLOW_SERVER if is_timeout(exc) else "ConnectionError"


def recording_session(on_request: Callable[[Traffic], None], on_discard: Callable[[Traffic], None]) -> requests.Session:
    """A Session that calls ``on_request`` with the Traffic of each request, before it is sent.

    Each piece is then added to this Traffic. ``on_discard`` is called with a Traffic that does not count, because its
    request is sent again.
    """
    return new_session(_RecordingAdapter(on_request, on_discard))
