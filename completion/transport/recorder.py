"""A Session that keeps the bytes of each response, below HTTP: as they came from the socket, with their moments."""

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
"""Why no more bytes came: the caller left, the server closed the connection or reset it, the wait was too long, the
socket failed in another way; or there was never a connection."""


@dataclass(eq=False, slots=True)
class Traffic:
    """One request, and what came back for it. ``pieces`` are seconds since the request, and bytes."""

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

    def arrived(self, piece: bytes) -> None:
        self.pieces.append((time.monotonic() - self.started_at, piece))
        self.end = "left"  # a read that timed out may be followed by another read

    def ended(self, end: End, error: str = "") -> None:
        self.end, self.error, self.ended_at = end, error, time.monotonic() - self.started_at

    def settled(self) -> Traffic:
        """A copy that no longer changes, while another thread may still read the response."""
        end, error, ended_at = self.end, self.error, self.ended_at  # first: pieces may come after them, not before
        timed_out_at = self.exchange.timed_out_at if self.exchange is not None else None
        if end == "left" and timed_out_at is not None:  # a timeout that expired between two reads
            end, ended_at = "timeout", timed_out_at - self.started_at
        return replace(self, pieces=list(self.pieces), end=end, error=error, ended_at=ended_at)


SLOW_SERVER: Final = "TimeoutError"
"""The kind of a failure: the server did not read the request in time."""


def traffic_of(request: requests.PreparedRequest) -> Traffic:
    """The request, with the body in memory: an iterator can be read only once."""
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
    """A socket whose ``recv_into`` tells a Traffic what arrived. Only http.client's reader has it."""

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
                # With an errno it is TCP keep-alive that gave up, not the timeout of the socket.
                is_timeout = isinstance(exc, TimeoutError) and exc.errno is None
                is_reset = isinstance(exc, ConnectionResetError)
                traffic.ended("timeout" if is_timeout else "reset" if is_reset else "error", str(exc))
            raise
        if count:
            traffic.arrived(bytes(memoryview(buffer)[:count]))
        elif not _is_interrupted(traffic):
            traffic.ended("closed")
        return count


def _is_interrupted(traffic: Traffic) -> bool:
    """True if our side shut the socket down: to a reader that looks as if the server had closed it."""
    exchange = traffic.exchange
    if exchange is None or not exchange.has_shut_down:
        return False
    if exchange.is_out_of_time_for_headers and not exchange.token.cancelled:
        traffic.ended("timeout")
    return True


class _TappedResponse(Response):
    def __init__(self, sock: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        traffic = _traffic.get()
        if traffic is not None:
            # The reader stays a plain SocketIO: the exchange replaces its class to time each recv.
            reader: Any = self.fp.raw
            reader._sock = _Tap(reader._sock, traffic)


class _Tapped:
    """Base class of connections whose responses are kept."""

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


class _RecordingAdapter(TCPAdapter):
    pools = pools_of(_TappedTCPConnection, _TappedTLSConnection)

    def __init__(self, begun: Callable[[Traffic], None], dropped: Callable[[Traffic], None]) -> None:
        super().__init__()
        self._begun = begun
        self._dropped = dropped

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        if proxy.lower().startswith("socks"):
            raise ConfigurationError("recorded: a request through a SOCKS proxy cannot be recorded; use an HTTP proxy")
        return super().proxy_manager_for(proxy, **kwargs)

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        traffic = traffic_of(request)
        traffic.exchange = exchange_in_progress.get()
        self._begun(traffic)
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
        """Note why there is no response."""
        if is_connection_lost(exc) and traffic.is_connection_reused:
            # The server closed an idle connection. The transport sends the request again, on another one.
            self._dropped(traffic)
        elif traffic.end != "left" or _is_interrupted(traffic):
            pass  # the tap saw it, or the caller left
        elif is_connection_lost(exc):
            traffic.ended("reset", innermost_message(exc))  # while the request was sent
        else:
            traffic.ended("failed", f"{_kind(exc)}: {innermost_message(exc)}")


def _kind(exc: requests.exceptions.RequestException) -> str:
    kinds = requests.exceptions
    for kind in (kinds.ConnectTimeout, kinds.ReadTimeout, kinds.SSLError, kinds.ProxyError):
        if isinstance(exc, kind):
            return kind.__name__
    return SLOW_SERVER if is_timeout(exc) else "ConnectionError"


def recording_session(begun: Callable[[Traffic], None], dropped: Callable[[Traffic], None]) -> requests.Session:
    """A Session that calls ``begun`` with the Traffic of each request, before it is sent.

    The Traffic then grows with each piece. ``dropped`` gets one back that does not count: it is sent again.
    """
    return new_session(_RecordingAdapter(begun, dropped))
