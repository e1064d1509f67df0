"""Our Session: its connections tell the exchange in progress which socket they use."""

from __future__ import annotations

import http.client
import logging
import socket
import traceback
from contextlib import suppress
from http.cookiejar import DefaultCookiePolicy
from queue import Empty
from typing import Any, Final

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection

from completion.transport.exchange import exchange_in_progress

log = logging.getLogger(__name__)

POOL_SIZE: Final = 100

_SEND_BYTES: Final = 256 * 1024
_MAX_INTERIM_RESPONSES: Final = 100

_MALFORMED_HEADER: Final = "a header line of a response is malformed: this line and those below it are ignored"


class Response(http.client.HTTPResponse):
    """Skips interim responses (1xx), and keeps malformed headers out of urllib3's log: they may echo the key."""

    def _read_status(self) -> tuple[str, int, str]:
        # http.client skips 100 only, and takes 103 Early Hints for the answer.
        for _ in range(_MAX_INTERIM_RESPONSES):
            version, status, reason = super()._read_status()  # type: ignore[misc]
            if not 100 <= status < 200 or status == http.client.SWITCHING_PROTOCOLS:
                return version, status, reason
            http.client.parse_headers(self.fp)
        raise http.client.HTTPException(f"more than {_MAX_INTERIM_RESPONSES} interim responses")

    def begin(self) -> None:
        super().begin()
        headers = self.msg
        # urllib3 logs the lines that it finds in these two places.
        if headers.defects or (headers.get_payload() and not headers.is_multipart()):
            headers.defects.clear()
            headers.set_payload("")
            log.warning(_MALFORMED_HEADER)


class _HeaderFilter(logging.Filter):
    """Takes the echo of a key out of urllib3's warning about a malformed header.

    ``Response`` does this for our Session; a Session of the caller has other responses. Records of requests that are
    not ours are not changed.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        exchange = exchange_in_progress.get()
        if exchange is not None and record.levelno >= logging.WARNING:
            conceal = exchange.authorization.conceal
            logged = logging.Formatter().format(record)  # with the traceback
            record.exc_text = None  # the formatter keeps its traceback there, for all other formatters
            if conceal(logged) != logged:
                record.msg, record.args, record.exc_info = _MALFORMED_HEADER, (), None
        return True


logging.getLogger("urllib3.connection").addFilter(_HeaderFilter())


class _ReportsSocket:
    """Base class of connections that tell the exchange in progress which socket they use."""

    response_class: Any = Response
    sock: Any
    _handshake_copy: socket.socket | None = None
    _has_sent = False

    def connect(self) -> None:
        self._has_sent = False
        try:
            super().connect()  # type: ignore[misc]
            report_socket(self.sock)
        except BaseException as exc:
            _close_sockets(exc)
            raise
        finally:
            if self._handshake_copy is not None:
                self._handshake_copy.close()
                self._handshake_copy = None

    def _new_conn(self) -> socket.socket:
        sock: socket.socket = super()._new_conn()  # type: ignore[misc]
        try:
            # TLS takes the descriptor out of this socket, and its own socket is known only after the handshake. During
            # the handshake a copy of the descriptor can be shut down.
            self._handshake_copy = sock.dup()
            report_socket(self._handshake_copy, is_connecting=True)
        except BaseException:
            sock.close()
            raise
        return sock

    def request(self, *args: Any, **kwargs: Any) -> None:
        exchange = exchange_in_progress.get()
        if exchange is not None:
            exchange.is_connection_reused = self._has_sent and self.sock is not None
        report_socket(self.sock)
        super().request(*args, **kwargs)  # type: ignore[misc]
        self._has_sent = True  # not before: request() may call connect(), which sets it to False

    def send(self, data: Any) -> None:
        exchange = exchange_in_progress.get()
        if exchange is None or not isinstance(data, bytes):
            super().send(data)  # type: ignore[misc]
            return
        # The timeout of a socket applies to a whole sendall(). For small parts it only limits the silence, so a large
        # request may take longer.
        for start in range(0, len(data), _SEND_BYTES):
            exchange.before_send()
            super().send(data[start : start + _SEND_BYTES])  # type: ignore[misc]


def report_socket(sock: socket.socket | None, *, is_connecting: bool = False) -> None:
    """Tell the exchange in progress, if there is one, which socket it uses."""
    exchange = exchange_in_progress.get()
    if exchange is not None:
        exchange.set_socket(sock, is_connecting=is_connecting)


def _close_sockets(exc: BaseException) -> None:
    """Close the sockets of a connect that failed.

    urllib3 and ssl close theirs after an OSError or a ValueError only. After an exception from a signal handler, such
    as KeyboardInterrupt, nothing but their frames refers to the socket.
    """
    for frame, _ in traceback.walk_tb(exc.__traceback__):
        # The frames of a signal handler are in this traceback too: leave their sockets alone.
        if frame.f_globals.get("__name__", "").partition(".")[0] in ("urllib3", "ssl"):
            for value in frame.f_locals.values():
                if isinstance(value, socket.socket):
                    value.close()


class TCPConnection(_ReportsSocket, HTTPConnection):
    pass


class TLSConnection(_ReportsSocket, HTTPSConnection):
    pass


def pools_of(http: type[HTTPConnection], https: type[HTTPSConnection]) -> dict[str, type[urllib3.HTTPConnectionPool]]:
    """The classes of urllib3's pools for connections of these classes."""
    return {
        "http": type("HTTPPool", (urllib3.HTTPConnectionPool,), {"ConnectionCls": http}),
        "https": type("HTTPSPool", (urllib3.HTTPSConnectionPool,), {"ConnectionCls": https}),
    }


class TCPAdapter(HTTPAdapter):
    """Makes pools of our connections, with TCP keep-alive: a NAT forgets a silent connection within minutes."""

    pools = pools_of(TCPConnection, TLSConnection)

    def __init__(self) -> None:
        # pool_block=True would wait for a stream that is not read, and ignore every timeout.
        super().__init__(pool_connections=POOL_SIZE, pool_maxsize=POOL_SIZE, pool_block=False)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, socket_options=_socket_options(), **kwargs)
        self.poolmanager.pool_classes_by_scheme = self.pools

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(proxy, socket_options=_socket_options(), **kwargs)
        if not proxy.lower().startswith("socks"):  # urllib3 has connection classes of its own for SOCKS
            manager.pool_classes_by_scheme = self.pools
        return manager

    def close(self) -> None:
        """Close the idle connections.

        urllib3 closes those of a pool only when nothing refers to the pool, but a stream that is kept does, and so does
        the traceback of an error.
        """
        for manager in (self.poolmanager, *self.proxy_manager.values()):
            for key in manager.pools.keys():  # noqa: SIM118  urllib3's container cannot be iterated
                if (pool := manager.pools.get(key)) is not None:
                    _close_idle_connections(pool)
        super().close()


def _close_idle_connections(pool: urllib3.HTTPConnectionPool) -> None:
    """Not ``pool.close()``: a request that another thread is about to send would fail."""
    with suppress(Empty):
        while pool.pool is not None:
            connection = pool.pool.get(block=False)
            if connection is not None:  # None: a free place
                connection.close()


def _socket_options() -> list[tuple[int, int, int]]:
    options = [*HTTPConnection.default_socket_options, (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
    # TCP_KEEPALIVE is macOS' name for TCP_KEEPIDLE.
    for name, value in (("TCP_KEEPIDLE", 60), ("TCP_KEEPALIVE", 60), ("TCP_KEEPINTVL", 60), ("TCP_KEEPCNT", 5)):
        if hasattr(socket, name):
            options.append((socket.IPPROTO_TCP, getattr(socket, name), value))
    return options


class _Session(requests.Session):
    def get_redirect_target(self, resp: requests.Response) -> str | None:
        """None: requests would read the whole body of a redirect, even with ``allow_redirects=False``."""
        return None


def new_session(adapter: TCPAdapter | None = None) -> requests.Session:
    """A Session without default headers and cookies. ``adapter`` makes its connections."""
    session = _Session()
    session.headers.clear()
    # Providers set cookies on each response; all would be sent back with each request.
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    adapter = adapter or TCPAdapter()
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    return session
