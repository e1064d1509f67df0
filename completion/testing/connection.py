"""One connection of a ProviderServer: reads requests, sends bytes, and notices a client that leaves."""

from __future__ import annotations

import json
import os
import socket
import ssl
import struct
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from typing import Any

EVENT_POLL_S = 0.01


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it arrived: header names in lower case, repeated headers joined with a comma.

    `path` includes the query. `connection` is the number of the connection, from 1 in the order of acceptance.
    """

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    connection: int

    def header(self, name: str) -> str | None:
        """The value of the header, in any letter case of `name`; None if it was not sent."""
        return self.headers.get(name.lower())

    def json(self) -> Any:
        """The body, parsed as JSON."""
        return json.loads(self.body)


class EndConnection(Exception):
    """Raised by a step of a reply: close the connection now, although the reply is not complete."""


class HungUp(Exception):
    """The client has closed the connection, or ``ProviderServer.stop`` has."""


class Connection:
    """One accepted socket, and a buffer of bytes that arrived on it.

    Each wait is a receive with a timeout: it notices a client that leaves, with TLS and without. What arrives meanwhile
    is buffered for the next request, because a client may send that before its reply has ended.
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
        """With TLS, send the close alert, without waiting for the client's."""
        if isinstance(self._sock, ssl.SSLSocket):
            self._sock.settimeout(0)
            with suppress(OSError):
                self._sock.unwrap()

    def interrupt(self) -> None:
        """Make every pending and later call on the socket end. Can be called from another thread."""
        # Not self._sock.shutdown(): that of an SSLSocket removes the TLS state that the other thread is using.
        with suppress(OSError):
            socket.socket.shutdown(self._sock, socket.SHUT_RDWR)

    def reset_on_close(self) -> None:
        # Lingering for 0 seconds makes close() send RST instead of FIN.
        linger = struct.pack("hh" if os.name == "nt" else "ii", 1, 0)
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)

    def close(self) -> None:
        self._sock.close()

    # Playing a reply

    def send(self, framed: bytes) -> None:
        try:
            self._sock.sendall(framed)
        except OSError as error:
            raise HungUp from error

    def wait(self, seconds: float) -> None:
        deadline = monotonic() + seconds
        while True:
            # At least once, so that a pause of 0 notices a closed connection.
            self._receive(max(0.0, deadline - monotonic()))
            if monotonic() >= deadline:
                return

    def wait_for(self, event: threading.Event, timeout: float) -> bool:
        """Wait for the event; False if it is not set after `timeout` seconds."""
        deadline = monotonic() + timeout
        while True:
            is_set = event.wait(EVENT_POLL_S)
            self._receive(0)  # also after the event: it may have been set after the client left
            if is_set or monotonic() >= deadline:
                return is_set

    def _receive(self, timeout: float | None) -> None:
        """Buffer what arrives within the timeout. None waits without limit."""
        self._sock.settimeout(timeout)
        try:
            arrived = self._sock.recv(65536)
        except (TimeoutError, BlockingIOError, ssl.SSLWantReadError):
            return
        except OSError as error:
            raise HungUp from error
        finally:
            self._sock.settimeout(None)
        if not arrived:
            raise HungUp
        self._arrived += arrived

    # Reading a request

    def read_request(self) -> Request:
        """Wait without limit for the next request.

        Raises:
            HungUp: the client closed the connection.
            ValueError: this is not an HTTP request.
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
