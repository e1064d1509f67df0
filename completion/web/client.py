"""The client of a WSGI request, if the server gives access to its connection.

WSGI cannot report that the client has left. But gunicorn and Werkzeug put the client's socket into the environment of
the request. waitress puts a function there that returns whether the client has left. Behind a proxy, the "client" is
the proxy, which closes its connection when its own client leaves.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Callable, Mapping
from typing import Any, Protocol

_SOCKETS = ("gunicorn.socket", "werkzeug.socket")
_HAS_LEFT = "waitress.client_disconnected"


class Client(Protocol):
    def has_left(self) -> bool: ...


def client_of(environ: Mapping[str, Any]) -> Client | None:
    """The client, or None if the server does not give access to it.

    Raises:
        TypeError: ``environ`` is not a WSGI environment.
    """
    if not isinstance(environ, Mapping):
        raise TypeError(f"environ= takes the WSGI environment of the request, got {type(environ).__name__}")
    if _HAS_LEFT in environ:
        return _ReportedClient(environ[_HAS_LEFT])
    sock = next((environ[name] for name in _SOCKETS if name in environ), None)
    return None if sock is None else _WatchedClient(sock)


class _ReportedClient:
    """The server has a function that tells whether the client has left."""

    def __init__(self, has_left: Callable[[], bool]) -> None:
        self._has_left = has_left

    def has_left(self) -> bool:
        return self._has_left()


class _WatchedClient:
    """We look at the client's socket ourselves."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock

    def has_left(self) -> bool:
        """Reads nothing from the socket: bytes that have arrived belong to the client's next request."""
        try:
            return self._socket.fileno() < 0 or _is_closed_by_peer(self._socket)
        except OSError:  # the server has closed the socket
            return True


def _is_closed_by_peer(sock: socket.socket) -> bool:
    if hasattr(select, "poll"):
        poll = select.poll()
        # POLLRDHUP reports directly that the peer has closed its side. Only Linux has it. gevent replaces select.poll
        # by a class of its own, which ignores POLLRDHUP; the real select.poll is a function.
        has_rdhup = hasattr(select, "POLLRDHUP") and not isinstance(select.poll, type)
        poll.register(sock, select.POLLRDHUP if has_rdhup else select.POLLIN)
        events = poll.poll(0)
        if has_rdhup or not events:
            return bool(events)
    elif not select.select([sock], [], [], 0)[0]:
        return False
    # The socket is readable: a peek returns no bytes if the peer has closed. Called on the class, because an SSLSocket
    # refuses MSG_PEEK; this looks at the encrypted bytes below TLS.
    return not socket.socket.recv(sock, 1, socket.MSG_PEEK)
