"""The timeouts and the cancellation of one request and its response."""

from __future__ import annotations

import os
import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar
from typing import Any, Final

import urllib3

from completion.contract.cancel import CancelToken
from completion.contract.errors import (
    CompletionError,
    DeadlineExceededError,
    IdleTimeoutError,
    StreamCancelledError,
    TransportError,
    stream_cancelled,
)
from completion.transport.credentials import Authorization
from completion.transport.faults import describe_failure, innermost_message, is_connection_lost
from completion.transport.timeout import Timeout, described

# struct linger {on, 0 seconds}: close() sends a reset. Without it a server whose send buffer is full, because it sends
# faster than we read, does not notice for a minute that we left.
_RESET_AT_CLOSE = struct.pack("HH" if os.name == "nt" else "ii", 1, 0)

# Instead of `Timeout.read` if that is None, after an end of turn that was not the last event.
_TURN_GOES_ON_SECONDS: Final = 60.0

_fork_count = 0
"""Forks between the process that imported this module and this one. os.getpid() would be a system call."""


def _count_fork() -> None:
    global _fork_count
    _fork_count += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_count_fork)


class Exchange:
    """The timeouts and the cancellation of one request and its response.

    It knows the socket as soon as there is one, so that another thread can wake the thread that waits on it.
    """

    def __init__(self, provider: str, model: str, timeout: Timeout, authorization: Authorization) -> None:
        self.provider = provider
        self.model = model
        self.authorization = authorization
        self.token = CancelToken()
        self.is_connection_reused = False
        self.has_deadlines = timeout.stall is not None or timeout.total is not None
        self._timeout = timeout
        self._started_at = time.monotonic()
        self._last_chunk_at = self._started_at
        # "total" and "body" -> when it expires. "read" and "stall" start again and again: time_next_read() adds them.
        self._deadlines: dict[str, float] = {}
        if timeout.total is not None:
            self._deadlines["total"] = self._started_at + timeout.total
        self._first_timeout = "read"  # the name of the one that expires first
        self._is_next_read_timed = False
        self._raw_reader: Any = None
        self._fork_count = _fork_count
        self._socket: Any = None
        self._is_connecting = False
        self._shutdown: Callable[[], None] | None = None
        self._lock = threading.RLock()
        self._outer_token = CancelToken.current()
        self._unbind_tokens: list[Callable[[], None]] = []
        self._header_timer: threading.Timer | None = None
        self._header_timer_ends_at = 0.0
        self._header_timer_fired = False
        self.has_shut_down = False
        """This side shut the socket down, so the end of the connection is not the server's doing."""
        self.timed_out_at: float | None = None

    def start(self) -> None:
        """From now on ``cancel()`` and the timeouts work.

        Raises:
            StreamCancelledError: the CancelToken around this call is cancelled already.
        """
        if self._outer_token is not None:
            self._unbind_tokens.append(self._outer_token.on_cancel(self.token.cancel))
        if self.token.cancelled:
            self.finish()
            raise self.cancelled()
        self._unbind_tokens.append(self.token.on_cancel(self.shut_down))
        if self.has_deadlines:
            # http.client reads the headers with many recv calls, and its timeout is for each of them. A server that
            # sends one byte now and then never reaches it, so a thread watches the time until the headers are in.
            seconds, self._first_timeout = min(
                (seconds, name)
                for name, seconds in (("stall", self._timeout.stall), ("total", self._timeout.total))
                if seconds is not None
            )
            self._header_timer_ends_at = self._started_at + seconds
            self._header_timer = threading.Timer(seconds, self._on_header_timer)
            self._header_timer.daemon = True
            with suppress(RuntimeError):  # no thread starts while the interpreter exits; the socket has a timeout too
                self._header_timer.start()

    def finish(self) -> None:
        """From now on nothing shuts the socket down: it may soon serve another exchange."""
        with self._lock:
            self._socket = self._shutdown = self._raw_reader = None
        self.unbind_tokens()
        if self._header_timer is not None:
            self._header_timer.cancel()

    def unbind_tokens(self) -> None:
        """From now on no token cancels this exchange."""
        for unbind in self._unbind_tokens:
            unbind()
        self._unbind_tokens.clear()

    def set_socket(self, sock: Any, *, is_connecting: bool = False) -> None:
        """Remember the socket of the connection in use.

        Raises:
            StreamCancelledError: the call was cancelled.
            TimeoutError: ``Timeout.stall`` or ``Timeout.total`` expired.
        """
        with self._lock:
            self._socket = sock
        self._is_connecting = is_connecting
        if self.token.cancelled:
            raise self.cancelled()
        if self._header_timer_fired:
            raise TimeoutError

    def before_send(self) -> None:
        """Limit the next send to ``Timeout.read`` seconds. urllib3 would limit it to ``Timeout.connect``."""
        if not self._is_connecting and self._socket is not None:
            self._socket.settimeout(self._timeout.read)

    def set_response(self, raw: Any) -> None:
        """Remember urllib3's response: the headers are in."""
        # http.client reads from a BufferedReader around a SocketIO. A caller's own Session may have neither; then the
        # timeouts work between two reads only.
        self._raw_reader = getattr(getattr(getattr(raw, "_fp", None), "fp", None), "raw", None)
        if self.has_deadlines:
            self._time_each_recv()
        with self._lock:
            if self._header_timer is not None:
                self._header_timer.cancel()
                self._header_timer = None
            if self._socket is None:  # a caller's own Session: its connections do not call set_socket()
                self._socket = _socket_of(raw)
                self._shutdown = getattr(raw, "shutdown", None)
        self._last_chunk_at = time.monotonic()

    def shut_down(self) -> None:
        """Shut the socket down, which wakes the thread that waits on it. The connection cannot be used again."""
        if self.is_inherited:
            return
        with self._lock:
            self.has_shut_down = True
            if self._socket is not None:
                with suppress(OSError, ValueError, AttributeError):
                    tcp_socket = _tcp_socket(self._socket)
                    with suppress(OSError):
                        tcp_socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_AT_CLOSE)
                    # Not SSLSocket.shutdown: it removes the TLS layer first, and a thread that is about to send would
                    # send in clear text.
                    socket.socket.shutdown(tcp_socket, socket.SHUT_RDWR)
            elif self._shutdown is not None:
                with suppress(OSError, ValueError, RuntimeError):
                    self._shutdown()

    @property
    def is_inherited(self) -> bool:
        """This is the copy in a forked child: the connection belongs to the parent; do not read or shut it down."""
        return self._fork_count != _fork_count

    @property
    def is_out_of_time_for_headers(self) -> bool:
        """``Timeout.stall`` or ``Timeout.total`` expired before the headers were in."""
        return self._header_timer_fired

    def header_timeout(self) -> tuple[float | None, float | None]:
        """The ``(connect, read)`` timeout for requests until the headers are in."""
        timeout = self._timeout
        limits = [seconds for seconds in (timeout.stall, timeout.total) if seconds is not None]
        connect, read = (
            min([*limits, *([] if own is None else [own])], default=None) for own in (timeout.connect, timeout.read)
        )
        return connect, read

    def set_body_deadline(self, seconds: float) -> None:
        """Limit the time for the rest of the body to so many seconds from now. This replaces an earlier limit."""
        self._deadlines["body"] = time.monotonic() + seconds
        self.has_deadlines = True
        self._time_each_recv()

    def _time_each_recv(self) -> None:
        reader, self._raw_reader = self._raw_reader, None
        # http.client has made the SocketIO already, and offers no way to give it another one.
        if type(reader) is socket.SocketIO:
            reader.__class__ = _TimedReader
            reader.exchange = self  # type: ignore[attr-defined]

    def end_of_turn(self, seconds: float | None) -> None:
        """Wait so many seconds in all for the rest of the body, or less if an earlier call said so.

        None: the turn goes on after all. The wait becomes longer: from now ``Timeout.read`` in all.
        """
        if seconds is None:
            self.set_body_deadline(self._timeout.read or _TURN_GOES_ON_SECONDS)
        elif "body" not in self._deadlines or time.monotonic() + seconds < self._deadlines["body"]:
            self.set_body_deadline(seconds)

    def chunk_yielded(self) -> None:
        """Start ``Timeout.stall`` again."""
        self._last_chunk_at = time.monotonic()

    def time_next_read(self) -> None:
        """Make the next read time out when the first of the timeouts expires.

        Raises:
            TransportError: one has expired already.
        """
        now = time.monotonic()
        left = {name: deadline - now for name, deadline in self._deadlines.items()}
        if self._timeout.read is not None:
            left["read"] = self._timeout.read
        if self._timeout.stall is not None and "body" not in left:
            left["stall"] = self._last_chunk_at + self._timeout.stall - now
        self._first_timeout, seconds = min(left.items(), key=lambda item: item[1])
        if seconds <= 0:
            raise self._timeout_error()
        if self._socket is not None:
            with suppress(OSError):
                self._socket.settimeout(seconds)
        self._is_next_read_timed = True

    def before_recv(self) -> None:
        """Set the time that is left, before each ``recv``: http.client may call it many times for one read.

        Raises:
            TimeoutError: a timeout has expired.
        """
        if not self._is_next_read_timed:
            try:
                self.time_next_read()
            except TransportError:
                raise TimeoutError from None
        self._is_next_read_timed = False

    def setup_error(self, exc: Exception) -> CompletionError:
        """The error of this library for an exception before the headers."""
        return self.interruption() or self.error(
            *describe_failure(exc, self._timeout, self.authorization, is_connecting=self._is_connecting)
        )

    def interruption(self) -> CompletionError | None:
        """The error if a cancel or a timeout of ours ended the wait for the headers; otherwise None.

        Check it after success too: http.client takes a socket that was shut down for the end of the headers, so the
        response may look complete.
        """
        if self.token.cancelled:
            return self.cancelled()
        # The timeout of the socket may expire a moment before the timer, which has the same length.
        has_expired = self._first_timeout != "read" and time.monotonic() >= self._header_timer_ends_at
        return self._timeout_error() if self._header_timer_fired or has_expired else None

    def stream_error(self, exc: Exception) -> CompletionError:
        """The error of this library for an exception while the body was read."""
        if self.token.cancelled:
            return self.cancelled()
        # The timeout of a socket raises a TimeoutError without an errno. One with ETIMEDOUT is from TCP keep-alive:
        # the peer is dead.
        is_our_timeout = isinstance(exc, TimeoutError) and exc.errno is None
        if is_our_timeout or isinstance(exc, urllib3.exceptions.ReadTimeoutError):
            return self._timeout_error()
        is_lost = is_connection_lost(exc)
        what = "the server closed the connection" if is_lost else f"the connection failed ({innermost_message(exc)})"
        return self.error(TransportError, f"{what} before the end of the body")

    def cancelled(self) -> StreamCancelledError:
        return stream_cancelled(self.provider, self.model)

    def error(self, kind: type[CompletionError], message: str) -> CompletionError:
        return kind(message, provider=self.provider, model=self.model)

    def _timeout_error(self) -> CompletionError:
        timeout = self._timeout
        self.timed_out_at = time.monotonic()
        if self._first_timeout == "total":
            return self.error(DeadlineExceededError, f"the stream took longer than Timeout.total={timeout.total:g} s")
        if self._first_timeout == "stall":
            return self.error(IdleTimeoutError, f"no chunk arrived within Timeout.stall={timeout.stall:g} s")
        if self._first_timeout == "body":
            return self.error(IdleTimeoutError, "the rest of the body did not arrive in time")
        return self.error(IdleTimeoutError, f"no byte arrived within {described(timeout, 'read')}")

    def _on_header_timer(self) -> None:
        with self._lock:
            if self._header_timer is not None:  # None: the headers arrived a moment ago
                self._header_timer_fired = True
                self.shut_down()


class _TimedReader(socket.SocketIO):
    """What http.client reads from, with the timeouts of an exchange checked before each ``recv``.

    It needs no thread, and no read outlasts a timeout, whatever the server sends: unfinished chunk size lines, endless
    trailers, one byte at a time.
    """

    exchange: Exchange

    def readinto(self, buffer: Any) -> int | None:
        self.exchange.before_recv()
        return super().readinto(buffer)


def _socket_of(raw: Any) -> Any:
    """The socket that urllib3's response reads from; None if it cannot be found."""
    sock = getattr(getattr(raw, "connection", None), "sock", None)
    if sock is None:  # with "Connection: close" http.client passes the socket on to the response
        reader = getattr(getattr(raw, "_fp", None), "fp", None)
        sock = getattr(getattr(reader, "raw", None), "_sock", None)
    return sock


def _tcp_socket(sock: Any) -> Any:
    """The TCP socket. urllib3 wraps it in an SSLTransport for TLS inside the TLS of a proxy."""
    return sock if isinstance(sock, socket.socket) else sock.socket


# The exchange whose response this thread waits for. urllib3 has no way to pass it to a connection.
exchange_in_progress: ContextVar[Exchange | None] = ContextVar("completion_exchange_in_progress", default=None)
