"""The client of a WSGI request, where the server shows the socket that it is connected by.

WSGI has no word for "the client has left"; gunicorn and Werkzeug put the socket into the environment of the request,
and waitress a function that tells. Behind a proxy the client is the proxy, which leaves with its own.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Callable, Mapping
from typing import Any, Protocol

_SOCKETS = ("gunicorn.socket", "werkzeug.socket")
_TELLER = "waitress.client_disconnected"


class Client(Protocol):
    def has_left(self) -> bool: ...


def client_of(environ: Mapping[str, Any]) -> Client | None:
    """The client, or None where the server does not show it.

    Raises:
        TypeError: this is no WSGI environment.
    """
    if not isinstance(environ, Mapping):
        raise TypeError(f"environ= takes the WSGI environment of the request, got {type(environ).__name__}")
    if _TELLER in environ:
        return _Told(environ[_TELLER])
    found = next((environ[name] for name in _SOCKETS if name in environ), None)
    return None if found is None else _Watched(found)


class _Told:
    def __init__(self, has_left: Callable[[], bool]) -> None:
        self._has_left = has_left

    def has_left(self) -> bool:
        return self._has_left()


class _Watched:
    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock

    def has_left(self) -> bool:
        """Nothing is taken from the socket: what a client sends ahead belongs to its next request."""
        try:
            return self._socket.fileno() < 0 or _is_closed_by_peer(self._socket)
        except OSError:  # closed on this side
            return True


def _is_closed_by_peer(sock: socket.socket) -> bool:
    if hasattr(select, "poll"):
        poll = select.poll()
        # gevent's, a class, does not know of closed halves; nor do other systems than Linux.
        knows_halves = hasattr(select, "POLLRDHUP") and not isinstance(select.poll, type)
        poll.register(sock, select.POLLRDHUP if knows_halves else select.POLLIN)
        told = poll.poll(0)
        if knows_halves or not told:
            return bool(told)
    elif not select.select([sock], [], [], 0)[0]:
        return False
    # Below TLS, which allows no peeking.
    return not socket.socket.recv(sock, 1, socket.MSG_PEEK)
