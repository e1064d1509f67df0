"""Our Session: pools of connections that say which socket they stand on."""

from __future__ import annotations

import http.client
import logging
import socket
from http.cookiejar import DefaultCookiePolicy
from typing import Any, Final

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection

from completion.transport.exchange import opening

log = logging.getLogger(__name__)

POOL_SIZE: Final = 100

_SEND_SIZE: Final = 256 * 1024
_MOST_INTERIM: Final = 100


class _Response(http.client.HTTPResponse):
    """Skips interim responses (1xx), and keeps malformed headers out of the log: they may echo the key."""

    def _read_status(self) -> tuple[str, int, str]:
        for _ in range(_MOST_INTERIM):
            version, status, reason = super()._read_status()  # type: ignore[misc]
            if not 100 <= status < 200 or status == http.client.SWITCHING_PROTOCOLS:
                return version, status, reason
            http.client.parse_headers(self.fp)
        raise http.client.HTTPException(f"more than {_MOST_INTERIM} interim responses")

    def begin(self) -> None:
        super().begin()
        headers = self.msg
        if headers.defects or (headers.get_payload() and not headers.is_multipart()):
            headers.defects.clear()
            headers.set_payload("")
            log.warning("a header line of a response is malformed: this line and those below it are ignored")


class _Watched:
    """A connection that tells the exchange in progress which socket it stands on."""

    response_class: Any = _Response
    sock: Any
    _wire: socket.socket | None = None

    _has_sent = False

    def connect(self) -> None:
        self._has_sent = False
        try:
            super().connect()  # type: ignore[misc]
            _watch(self.sock)
        finally:
            if self._wire is not None:
                self._wire.close()
                self._wire = None

    def _new_conn(self) -> socket.socket:
        sock: socket.socket = super()._new_conn()  # type: ignore[misc]
        try:
            # TLS takes the socket over, and shows its own one only when the handshake is done.
            self._wire = sock.dup()
            _watch(self._wire, is_connecting=True)
        except BaseException:
            sock.close()
            raise
        return sock

    def request(self, *args: Any, **kwargs: Any) -> None:
        exchange = opening.get()
        if exchange is not None:
            exchange.is_on_used_connection = self._has_sent and self.sock is not None
        _watch(self.sock)
        super().request(*args, **kwargs)  # type: ignore[misc]
        self._has_sent = True  # after it: a new connection is made inside

    def send(self, data: Any) -> None:
        exchange = opening.get()
        if exchange is None or not isinstance(data, bytes):
            super().send(data)  # type: ignore[misc]
            return
        # A socket's timeout is for the whole of a sendall(). For a piece at a time it is the longest silence.
        for start in range(0, len(data), _SEND_SIZE):
            exchange.sending()
            super().send(data[start : start + _SEND_SIZE])  # type: ignore[misc]


def _watch(sock: socket.socket | None, *, is_connecting: bool = False) -> None:
    exchange = opening.get()
    if exchange is not None:
        exchange.watch(sock, is_connecting=is_connecting)


class _HTTPConnection(_Watched, HTTPConnection):
    pass


class _HTTPSConnection(_Watched, HTTPSConnection):
    pass


class _HTTPPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _HTTPConnection


class _HTTPSPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _HTTPSConnection


class _Adapter(HTTPAdapter):
    """Pools of watched connections, with TCP keep-alive: a NAT forgets a silent connection within minutes."""

    def __init__(self) -> None:
        super().__init__(pool_connections=POOL_SIZE, pool_maxsize=POOL_SIZE, pool_block=False)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, socket_options=_socket_options(), **kwargs)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(proxy, socket_options=_socket_options(), **kwargs)
        if not proxy.lower().startswith("socks"):
            manager.pool_classes_by_scheme = _POOLS
        return manager


_POOLS = {"http": _HTTPPool, "https": _HTTPSPool}


def _socket_options() -> list[tuple[int, int, int]]:
    options = [*HTTPConnection.default_socket_options, (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
    for name, value in (("TCP_KEEPIDLE", 60), ("TCP_KEEPALIVE", 60), ("TCP_KEEPINTVL", 60), ("TCP_KEEPCNT", 5)):
        if hasattr(socket, name):
            options.append((socket.IPPROTO_TCP, getattr(socket, name), value))
    return options


class _Session(requests.Session):
    def get_redirect_target(self, resp: requests.Response) -> str | None:
        """None: even with ``allow_redirects=False`` requests would read the whole body of a redirect."""
        return None


def new_session() -> requests.Session:
    session = _Session()
    session.headers.clear()
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    adapter = _Adapter()
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    return session
