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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from http.client import responses as reason_phrases
from itertools import groupby
from time import monotonic
from types import TracebackType
from typing import Any, Literal, TypeAlias

__all__ = [
    "Cut",
    "Hangup",
    "Pause",
    "ProviderServer",
    "Reply",
    "Request",
    "Reset",
    "Stall",
    "Trickle",
    "WaitFor",
    "event",
]

_EVENT_POLL_S = 0.01
_STOP_S = 2.0


def event(data: Any, name: str | None = None) -> bytes:
    """One server-sent event: `data` as it is if it is a string, else as compact JSON.

    Each line of a string becomes a ``data:`` line of its own.
    """
    if not isinstance(data, str):
        data = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    lines = [] if name is None else [f"event: {name}"]
    lines += [f"data: {line}" for line in data.replace("\r\n", "\n").replace("\r", "\n").split("\n")]
    return ("\n".join(lines) + "\n\n").encode()


# Steps: what may stand between the bytes of a reply.


@dataclass(frozen=True, slots=True)
class Pause:
    """Send nothing for so many seconds."""

    seconds: float

    def play(self, connection: _Connection) -> None:
        connection.wait(self.seconds)


@dataclass(frozen=True, slots=True)
class WaitFor:
    """Send nothing until `event` is set; after `timeout` seconds the connection is closed, as by `Cut`."""

    event: threading.Event
    timeout: float = 30

    def play(self, connection: _Connection) -> None:
        if not connection.wait_for(self.event, self.timeout):
            raise _EndConnection


@dataclass(frozen=True, slots=True)
class Stall:
    """Send nothing more, but keep the connection open for `timeout` seconds; then close it, as `Cut` does."""

    timeout: float = 30

    def play(self, connection: _Connection) -> None:
        connection.wait(self.timeout)
        raise _EndConnection


@dataclass(frozen=True, slots=True)
class Cut:
    """Close the connection with no proper end: no last chunk, a short length, no TLS close alert."""

    def play(self, connection: _Connection) -> None:
        raise _EndConnection


@dataclass(frozen=True, slots=True)
class Reset:
    """Close the connection with a TCP reset; bytes still on their way to the client may be lost with it."""

    def play(self, connection: _Connection) -> None:
        connection.reset_on_close()
        raise _EndConnection


@dataclass(frozen=True, slots=True)
class Trickle:
    """Send `data`, then pause for `every` seconds, so many `times`; then the reply goes on."""

    data: bytes = b": ping\n\n"
    every: float = 0.05
    times: int = 200


@dataclass(frozen=True, slots=True)
class _Send:
    """Bytes as they go out in one send, and how many of them are body, not framing."""

    framed: bytes
    body_bytes: int = 0

    def play(self, connection: _Connection) -> None:
        connection.send(self.framed)


class _EndConnection(Exception):
    """Raised by a step: close the connection here, whatever was promised."""


class _HungUp(Exception):
    """The client closed the connection, or the server's stop() did."""


Step: TypeAlias = Pause | WaitFor | Stall | Cut | Reset | Trickle
Piece: TypeAlias = bytes | str | Step
Framing: TypeAlias = Literal["chunked", "length", "close"]
_Part: TypeAlias = bytes | Pause | WaitFor | Stall | Cut | Reset
_Action: TypeAlias = _Send | Pause | WaitFor | Stall | Cut | Reset


class Reply:
    """One scripted response: `pieces` are bytes, strings (sent as UTF-8) and steps, played in order.

    `framing` says how the client learns where the body ends: ``"chunked"``, ``"length"`` (a Content-Length
    header) or ``"close"`` (the connection closes). The body ends properly unless a `Cut`, `Reset` or `Stall`
    stands among the pieces. Pieces after one of these are never sent; they still count in the declared
    length, which is one byte too long if there are none, so that the body is always short.

    `split` says how the bytes are cut into sends (with chunked framing, into HTTP chunks): None sends each
    piece as it is, ``"whole"`` joins the pieces between two steps, n sends each piece in parts of n bytes.
    `batch` leaves the chunks as they are but passes all those between two steps to the socket at once.

    `headers` win over those the reply makes itself, in any letter case; a `content_type` of None leaves the
    header out. `before_headers` is played before the status line; its bytes are sent verbatim, so half a
    header block and a `Cut` can be sent instead of a response.

    A reply never changes; it can be served any number of times.

    Raises:
        TypeError, ValueError: for a piece, framing or split that is none of the above.
    """

    __slots__ = ("closes_connection", "script")

    def __init__(
        self,
        *pieces: Piece,
        status: int = 200,
        content_type: str | None = "text/event-stream",
        headers: Mapping[str, str] | None = None,
        framing: Framing = "chunked",
        split: Literal["whole"] | int | None = None,
        before_headers: Iterable[Piece] = (),
        batch: bool = False,
    ) -> None:
        if framing not in ("chunked", "length", "close"):
            raise ValueError(f'Reply: framing must be "chunked", "length" or "close", got {framing!r}')
        parts = list(_split(_flatten(pieces), split))
        fields = {} if content_type is None else {"content-type": f"Content-Type: {content_type}"}
        if framing == "chunked":
            fields["transfer-encoding"] = "Transfer-Encoding: chunked"
        elif framing == "length":
            fields["content-length"] = f"Content-Length: {_declared_length(parts)}"
        else:
            fields["connection"] = "Connection: close"
        fields |= {name.lower(): f"{name}: {value}" for name, value in (headers or {}).items()}
        status_line = f"HTTP/1.1 {status} {reason_phrases.get(status, 'Unknown')}"
        head = "\r\n".join([status_line, *fields.values(), "", ""]).encode("latin-1")

        body: Iterable[_Action] = _frame(parts, framing)
        before = (_Send(part) if isinstance(part, bytes) else part for part in _flatten(before_headers))
        self.script: tuple[_Action, ...] = (*before, _Send(head), *(_join_sends(body) if batch else body))
        self.closes_connection = "close" in fields.get("connection", "").lower()

    @classmethod
    def json(cls, obj: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:
        """`obj` as application/json with a Content-Length."""
        body = json.dumps(obj, ensure_ascii=False)
        return cls(body, status=status, content_type="application/json", headers=headers, framing="length")

    @classmethod
    def text(
        cls,
        text: str,
        content_type: str = "text/plain",
        status: int = 200,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """`text` in UTF-8 with a Content-Length."""
        return cls(text, status=status, content_type=content_type, headers=headers, framing="length")


def _flatten(pieces: Iterable[Piece]) -> Iterator[_Part]:
    """The pieces with strings encoded and trickles written out."""
    for piece in pieces:
        match piece:
            case str():
                yield piece.encode()
            case bytes() | Pause() | WaitFor() | Stall() | Cut() | Reset():
                yield piece
            case Trickle():
                yield from (piece.data, Pause(piece.every)) * piece.times
            case _:
                raise TypeError(f"Reply: a piece must be bytes, str or a step, got {piece!r}")


def _split(parts: Iterable[_Part], split: Literal["whole"] | int | None) -> Iterator[_Part]:
    if split is None:
        yield from parts
    elif split == "whole":
        for is_bytes, run in groupby(parts, lambda part: isinstance(part, bytes)):
            if is_bytes:
                yield b"".join(part for part in run if isinstance(part, bytes))
            else:
                yield from run
    elif isinstance(split, int) and split > 0:
        for part in parts:
            if isinstance(part, bytes):
                yield from (part[start : start + split] for start in range(0, len(part), split))
            else:
                yield part
    else:
        raise ValueError(f'Reply: split must be None, "whole" or a positive number, got {split!r}')


def _body_length(parts: Iterable[_Part]) -> int:
    return sum(len(part) for part in parts if isinstance(part, bytes))


def _declared_length(parts: Sequence[_Part]) -> int:
    total = _body_length(parts)
    end = next((i for i, part in enumerate(parts) if isinstance(part, (Cut, Reset, Stall))), None)
    if end is not None and _body_length(parts[end:]) == 0:
        return total + 1
    return total


def _frame(parts: Iterable[_Part], framing: Framing) -> Iterator[_Action]:
    for part in parts:
        if not isinstance(part, bytes):
            yield part
        elif framing != "chunked":
            yield _Send(part, len(part))
        elif part:  # a chunk of no bytes would end the body
            yield _Send(b"%x\r\n%b\r\n" % (len(part), part), len(part))
    if framing == "chunked":
        yield _Send(b"0\r\n\r\n")


def _join_sends(actions: Iterable[_Action]) -> Iterator[_Action]:
    for is_send, run in groupby(actions, lambda action: isinstance(action, _Send)):
        if is_send:
            sends = [action for action in run if isinstance(action, _Send)]
            yield _Send(b"".join(send.framed for send in sends), sum(send.body_bytes for send in sends))
        else:
            yield from run


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
