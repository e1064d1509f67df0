"""A loopback HTTP server that plays scripted replies, faults included.

What is tested is the client's real path: sockets, framing, timeouts, hanging up. Nothing is patched.

    with ProviderServer() as server:
        server.reply(Reply(event({"text": "Hel"}), Pause(0.2), event({"text": "lo"}), event("[DONE]")))
        server.reply(Reply.json({"error": {"message": "busy"}}, status=429, headers={"Retry-After": "1"}))
        server.reply(Reply(event({"text": "Hel"}), Cut()))

        response = requests.post(server.url + "/v1/chat", json={"stream": True})

        assert server.requests[0].json() == {"stream": True}

Replies are served in the order they were given, one a request, whichever connection the request comes on.
A reply is a list of pieces: bytes that are sent, and steps that say what happens between them. All of a reply
is checked and framed when it is made, so that a mistake in it raises in the test and not in the server.
"""

from __future__ import annotations

import json
import os
import socket
import ssl
import struct
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from types import TracebackType
from typing import Any

from completion.testing.replies import (
    _EVENT_POLL_S,
    Reply,
    _EndConnection,
    _HungUp,
    _Send,
)

_STOP_S = 2.0


# Steps: what may stand between the bytes of a reply.


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it arrived: header names in lower case, repeated headers joined with a comma.

    `path` is the request target with its query. `connection` counts from 1, in the order of acceptance.
    """

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    connection: int

    def header(self, name: str) -> str | None:
        """The header's value, whatever the letter case of `name`; None if it was not sent."""
        return self.headers.get(name.lower())

    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class Hangup:
    """The client closed the connection before the reply to ``requests[request_index]`` had ended.

    `after_seconds` counts from the reply's start; `bytes_sent` counts body bytes in completed sends, without
    headers and chunk framing.
    """

    request_index: int
    after_seconds: float
    bytes_sent: int


class ProviderServer:
    """An HTTP/1.1 server on 127.0.0.1 and a free port, with keep-alive and one thread a connection.

    A context manager; or call `start` and `stop`. With `ssl_context` it speaks TLS. It serves once: after
    `stop`, what it recorded can still be read, but it cannot be started again.

    A client that closes while a reply waits (`Pause`, `WaitFor`, `Stall`, `Trickle`) is noticed within some
    10 ms; between bytes that follow each other without a step, only a failing send tells. Closing just the
    sending side counts as hanging up. Closing after the last byte of a reply does not.
    """

    def __init__(self, ssl_context: ssl.SSLContext | None = None) -> None:
        self._ssl_context = ssl_context
        self._listener: socket.socket | None = None
        self._acceptor = threading.Thread(target=self._accept, name="ProviderServer accept", daemon=True)
        self._stopping = threading.Event()
        self._changed = threading.Condition()  # guards all that follows
        self._script: deque[Reply] = deque()
        self._default: Reply | None = None
        self._requests: list[Request] = []
        self._unexpected: list[Request] = []
        self._hangups: list[Hangup] = []
        self._connections = 0
        self._open: dict[_Connection, threading.Thread] = {}

    def start(self) -> ProviderServer:
        """Bind a free port and serve; returns the server itself.

        Raises:
            RuntimeError: it was started before.
        """
        if self._listener is not None or self._stopping.is_set():
            raise RuntimeError("ProviderServer: it can be started only once; make a new one")
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self._port: int = self._listener.getsockname()[1]
        self._acceptor.start()
        return self

    def stop(self) -> None:
        """Close the port and every connection, and wait up to 2 seconds for their threads to end."""
        self._stopping.set()
        if self._listener is None:
            return
        deadline = monotonic() + _STOP_S
        with suppress(OSError):  # wakes accept() on Linux; elsewhere its timeout does
            self._listener.shutdown(socket.SHUT_RDWR)
        self._acceptor.join(_STOP_S)
        self._listener.close()
        with self._changed:
            threads = dict(self._open)
        for connection in threads:
            connection.interrupt()
        for thread in threads.values():
            thread.join(max(0.0, deadline - monotonic()))

    def __enter__(self) -> ProviderServer:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Scheme, host and port, with no slash at the end."""
        if self._listener is None:
            raise RuntimeError("ProviderServer: it has no address before start()")
        return f"{'http' if self._ssl_context is None else 'https'}://127.0.0.1:{self._port}"

    def reply(self, *replies: Reply) -> None:
        """Add replies to the end of the script."""
        with self._changed:
            self._script.extend(replies)

    def always(self, reply: Reply) -> None:
        """Serve this reply whenever the script is empty, instead of a 500."""
        with self._changed:
            self._default = reply

    @property
    def remaining(self) -> int:
        """How many replies of the script were not served yet."""
        with self._changed:
            return len(self._script)

    @property
    def requests(self) -> list[Request]:
        """The requests so far; each one is here before its reply starts."""
        with self._changed:
            return list(self._requests)

    @property
    def unexpected(self) -> list[Request]:
        """The requests that found no reply and were answered with a 500."""
        with self._changed:
            return list(self._unexpected)

    @property
    def connections(self) -> int:
        """How many TCP connections were accepted so far."""
        with self._changed:
            return self._connections

    @property
    def open_connections(self) -> int:
        """How many of them are open at the moment."""
        with self._changed:
            return len(self._open)

    @property
    def hangups(self) -> list[Hangup]:
        """The replies that the client did not wait for, in the order it was noticed."""
        with self._changed:
            return list(self._hangups)

    @property
    def hung_up(self) -> bool:
        """Whether the client left any reply before its end."""
        return bool(self.hangups)

    def wait_hung_up(self, timeout: float = 5, *, count: int = 1) -> bool:
        """Wait for so many hangups; False if they did not come in time."""
        with self._changed:
            return self._changed.wait_for(lambda: len(self._hangups) >= count, timeout)

    def wait_for_requests(self, count: int, timeout: float = 5) -> bool:
        """Wait until so many requests have arrived in all; False if they did not come in time."""
        with self._changed:
            return self._changed.wait_for(lambda: len(self._requests) >= count, timeout)

    def _accept(self) -> None:
        assert self._listener is not None
        self._listener.settimeout(0.1)
        while not self._stopping.is_set():
            with suppress(OSError):  # the timeout, or a client that left while it was being accepted
                sock, _ = self._listener.accept()
                self._open_connection(sock)

    def _open_connection(self, sock: socket.socket) -> None:
        with self._changed:
            self._connections += 1
            number = self._connections
        connection = _Connection(sock, number, self._ssl_context)
        thread = threading.Thread(target=self._serve, args=(connection,), name=f"ProviderServer {number}", daemon=True)
        with self._changed:
            self._open[connection] = thread
        thread.start()

    def _serve(self, connection: _Connection) -> None:
        # The exceptions end the connection with no reply to finish: the client went away or broke the TLS.
        try:
            with suppress(OSError, _HungUp, _EndConnection):
                connection.begin()
                while connection.keeps_alive:
                    self._serve_one(connection)
                connection.end()
        finally:
            connection.close()
            with self._changed:
                del self._open[connection]

    def _serve_one(self, connection: _Connection) -> None:
        try:
            request = connection.read_request()
        except ValueError as error:
            connection.keeps_alive = False
            for action in Reply.text(f"ProviderServer: not an HTTP/1.1 request: {error}", status=400).script:
                action.play(connection)
            return
        with self._changed:
            index = len(self._requests)
            self._requests.append(request)
            reply = self._script.popleft() if self._script else self._default
            if reply is None:
                self._unexpected.append(request)
                message = f"ProviderServer: no reply scripted for {request.method} {request.path}"
                reply = Reply.json({"error": {"message": message}}, status=500)
            self._changed.notify_all()
        if reply.closes_connection:
            connection.keeps_alive = False
        self._play(reply, connection, index)

    def _play(self, reply: Reply, connection: _Connection, request_index: int) -> None:
        began = monotonic()
        bytes_sent = 0
        try:
            for action in reply.script:
                action.play(connection)
                if isinstance(action, _Send):
                    bytes_sent += action.body_bytes
        except _HungUp:
            if not self._stopping.is_set():
                with self._changed:
                    self._hangups.append(Hangup(request_index, monotonic() - began, bytes_sent))
                    self._changed.notify_all()
            raise


class _Connection:
    """One accepted socket and the bytes that arrived on it and were not read yet.

    Every wait is a receive with a timeout: that is how a client that leaves is noticed, with TLS or without,
    and what a pipelining client sends meanwhile is kept for the next request.
    """

    def __init__(self, sock: socket.socket, number: int, ssl_context: ssl.SSLContext | None) -> None:
        self.keeps_alive = True
        self._number = number
        self._arrived = bytearray()
        if ssl_context is None:
            self._sock = sock
        else:
            self._sock = ssl_context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)

    # Opening and closing

    def begin(self) -> None:
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if isinstance(self._sock, ssl.SSLSocket):
            self._sock.do_handshake()

    def end(self) -> None:
        """With TLS, send the close alert; the client's is not waited for."""
        if isinstance(self._sock, ssl.SSLSocket):
            self._sock.settimeout(0)
            with suppress(OSError):
                self._sock.unwrap()

    def interrupt(self) -> None:
        """Make every pending and later call on the socket end; safe from another thread."""
        # Not self._sock.shutdown(): an SSLSocket would drop its TLS state, under the feet of its own thread.
        with suppress(OSError):
            socket.socket.shutdown(self._sock, socket.SHUT_RDWR)

    def reset_on_close(self) -> None:
        linger = struct.pack("hh" if os.name == "nt" else "ii", 1, 0)
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)

    def close(self) -> None:
        self._sock.close()

    # Playing a reply

    def send(self, framed: bytes) -> None:
        try:
            self._sock.sendall(framed)
        except OSError as error:
            raise _HungUp from error

    def wait(self, seconds: float) -> None:
        deadline = monotonic() + seconds
        while True:
            self._receive(max(0.0, deadline - monotonic()))  # at least once, even for a pause of 0
            if monotonic() >= deadline:
                return

    def wait_for(self, event: threading.Event, timeout: float) -> bool:
        """Whether the event was set in time."""
        deadline = monotonic() + timeout
        while True:
            happened = event.wait(_EVENT_POLL_S)
            self._receive(0)  # after the event too: a client that left before it was set has hung up
            if happened or monotonic() >= deadline:
                return happened

    def _receive(self, timeout: float | None) -> None:
        """Keep what arrives within the timeout, if anything does."""
        self._sock.settimeout(timeout)
        try:
            arrived = self._sock.recv(65536)
        except (TimeoutError, BlockingIOError, ssl.SSLWantReadError):
            return
        except OSError as error:
            raise _HungUp from error
        finally:
            self._sock.settimeout(None)
        if not arrived:
            raise _HungUp
        self._arrived += arrived

    # Reading a request

    def read_request(self) -> Request:
        """The next request, however long it takes to come.

        Raises:
            _HungUp: the client closed the connection instead.
            ValueError: this is no HTTP request.
        """
        method, path, version = self._read_line().split(" ")
        headers = self._read_headers()
        if headers.get("transfer-encoding", "").lower() == "chunked":
            body = b"".join(self._read_chunks())
        else:
            body = self._read_exactly(int(headers.get("content-length", "0")))
        asked_to_close = "close" in headers.get("connection", "").lower()
        self.keeps_alive = version == "HTTP/1.1" and not asked_to_close
        return Request(method, path, headers, body, self._number)

    def _read_headers(self) -> dict[str, str]:
        headers: dict[str, str] = {}
        while line := self._read_line():
            name, colon, value = line.partition(":")
            if not colon:
                raise ValueError(f"a header line without a colon: {line!r}")
            key, value = name.lower(), value.strip()
            headers[key] = f"{headers[key]}, {value}" if key in headers else value
        return headers

    def _read_chunks(self) -> Iterator[bytes]:
        while size := int(self._read_line().partition(";")[0], 16):
            yield self._read_exactly(size)
            self._read_line()
        self._read_headers()  # the trailer

    def _read_line(self) -> str:
        while (end := self._arrived.find(b"\n")) < 0:
            self._receive(None)
        return self._take(end + 1).decode("latin-1").rstrip("\r\n")

    def _read_exactly(self, size: int) -> bytes:
        while len(self._arrived) < size:
            self._receive(None)
        return self._take(size)

    def _take(self, size: int) -> bytes:
        taken = bytes(self._arrived[:size])
        del self._arrived[:size]
        return taken
