"""A loopback HTTP server that plays scripted replies, faults included.

It tests the real path of a client: sockets, framing, timeouts, closed connections. Nothing is patched.

    with ProviderServer() as server:
        server.reply(Reply(event({"text": "Hel"}), Pause(0.2), event({"text": "lo"}), event("[DONE]")))
        server.reply(Reply.json({"error": {"message": "busy"}}, status=429, headers={"Retry-After": "1"}))
        server.reply(Reply(event({"text": "Hel"}), Cut()))

        response = requests.post(server.url + "/v1/chat", json={"stream": True})

        assert server.requests[0].json() == {"stream": True}

Each request gets the next reply of the script, on any connection. A reply is a list of pieces: bytes to send, and steps
between them. It is checked and framed when it is made, so that a mistake raises in the test and not in a thread of the
server.
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from types import TracebackType

from completion.testing.connection import Connection, EndConnection, HungUp, Request
from completion.testing.replies import Reply, Send

_STOP_S = 2.0


@dataclass(frozen=True, slots=True)
class Hangup:
    """The client closed the connection before the reply to ``requests[request_index]`` had ended.

    `after_seconds` counts from the start of the reply. `bytes_sent` counts the bytes of the body in completed sends,
    without headers and chunk framing.
    """

    request_index: int
    after_seconds: float
    bytes_sent: int


class ProviderServer:
    """An HTTP/1.1 server on 127.0.0.1 and a free port, with keep-alive and a thread for each connection.

    A context manager; or call `start` and `stop`. With `ssl_context` it uses TLS. It can be started once. After `stop`,
    its records can still be read.

    While a reply waits (`Pause`, `WaitFor`, `Stall`, `Trickle`), a client that closes the connection is noticed within
    about 10 ms. Between bytes without a step, it is noticed when a send fails. Closing only the sending side counts as
    hanging up. Closing after the last byte of a reply does not.
    """

    def __init__(self, ssl_context: ssl.SSLContext | None = None) -> None:
        self._ssl_context = ssl_context
        self._listener: socket.socket | None = None
        self._acceptor = threading.Thread(target=self._accept, name="ProviderServer accept", daemon=True)
        self._stopping = threading.Event()
        self._changed = threading.Condition()  # guards the attributes below
        self._script: deque[Reply] = deque()
        self._default: Reply | None = None
        self._requests: list[Request] = []
        self._unexpected: list[Request] = []
        self._hangups: list[Hangup] = []
        self._connections = 0
        self._open: dict[Connection, threading.Thread] = {}

    def start(self) -> ProviderServer:
        """Bind a free port and serve; returns the server itself.

        Raises:
            RuntimeError: it was started or stopped before.
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
        with suppress(OSError):  # wakes accept() on Linux; on other systems accept() times out
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
        """Scheme, host and port, without a slash at the end."""
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
        """How many replies of the script are still to be served."""
        with self._changed:
            return len(self._script)

    @property
    def requests(self) -> list[Request]:
        """The requests so far. A request is added before its reply starts."""
        with self._changed:
            return list(self._requests)

    @property
    def unexpected(self) -> list[Request]:
        """The requests that got a 500 because the script was empty."""
        with self._changed:
            return list(self._unexpected)

    @property
    def connections(self) -> int:
        """How many TCP connections were accepted so far."""
        with self._changed:
            return self._connections

    @property
    def open_connections(self) -> int:
        """How many connections are open now."""
        with self._changed:
            return len(self._open)

    @property
    def hangups(self) -> list[Hangup]:
        """The replies that the client did not read to the end, in the order in which that was noticed."""
        with self._changed:
            return list(self._hangups)

    @property
    def hung_up(self) -> bool:
        """Whether the client has closed a connection before the end of a reply."""
        return bool(self.hangups)

    def wait_hung_up(self, timeout: float = 5, *, count: int = 1) -> bool:
        """Wait until there are `count` hangups; False after `timeout` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: len(self._hangups) >= count, timeout)

    def wait_for_requests(self, count: int, timeout: float = 5) -> bool:
        """Wait until `count` requests have arrived since the start; False after `timeout` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: len(self._requests) >= count, timeout)

    def _accept(self) -> None:
        assert self._listener is not None
        self._listener.settimeout(0.1)
        while not self._stopping.is_set():
            with suppress(OSError):  # accept() timed out, or the client left during it
                sock, _ = self._listener.accept()
                self._open_connection(sock)

    def _open_connection(self, sock: socket.socket) -> None:
        with self._changed:
            self._connections += 1
            number = self._connections
        connection = Connection(sock, number, self._ssl_context)
        thread = threading.Thread(target=self._serve, args=(connection,), name=f"ProviderServer {number}", daemon=True)
        with self._changed:
            self._open[connection] = thread
        thread.start()

    def _serve(self, connection: Connection) -> None:
        # After these exceptions no reply can be finished: the client left, TLS failed, or a step cut the connection.
        try:
            with suppress(OSError, HungUp, EndConnection):
                connection.begin()
                while connection.keeps_alive:
                    self._answer(connection)
                connection.end()
        finally:
            connection.close()
            with self._changed:
                del self._open[connection]

    def _answer(self, connection: Connection) -> None:
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

    def _play(self, reply: Reply, connection: Connection, request_index: int) -> None:
        began = monotonic()
        bytes_sent = 0
        try:
            for action in reply.script:
                action.play(connection)
                if isinstance(action, Send):
                    bytes_sent += action.body_bytes
        except HungUp:
            if not self._stopping.is_set():
                with self._changed:
                    self._hangups.append(Hangup(request_index, monotonic() - began, bytes_sent))
                    self._changed.notify_all()
            raise
