"""One request and its response, as far as clocks and cancelling go."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar
from typing import Any

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
from completion.transport.faults import explained, is_cut, plain
from completion.transport.timeout import Timeout

_forks = 0
"""How many forks lie between this process and the one that imported us. Asking for the process id is a system call."""


def _count_fork() -> None:
    global _forks
    _forks += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_count_fork)


class Exchange:
    """One request and its response, as far as clocks and cancelling go.

    It knows the socket from the moment that there is one, so that another thread can wake whoever waits on it.
    """

    def __init__(self, provider: str, model: str, timeout: Timeout, authorization: Authorization) -> None:
        self.provider = provider
        self.model = model
        self.authorization = authorization
        self.token = CancelToken()
        self.is_on_used_connection = False
        self.has_clocks = timeout.stall is not None or timeout.total is not None
        self._timeout = timeout
        self._began_at = time.monotonic()
        self._chunk_at = self._began_at
        # name of a clock -> when it runs out; "read" runs anew with each read
        self._ends: dict[str, float] = {}
        if timeout.total is not None:
            self._ends["total"] = self._began_at + timeout.total
        self._running = "read"
        self._is_armed = False
        self._reader: Any = None
        self._forks = _forks
        self._socket: Any = None
        self._is_connecting = False
        self._shutdown: Callable[[], None] | None = None
        self._lock = threading.RLock()
        self._outer = CancelToken.current()
        self._unbind: list[Callable[[], None]] = []
        self._alarm: threading.Timer | None = None
        self._alarm_at = 0.0
        self._has_rung = False

    def begin(self) -> None:
        """From here on ``cancel()`` and the clocks act.

        Raises:
            StreamCancelledError: the token that we are under was cancelled before.
        """
        if self._outer is not None:
            self._unbind.append(self._outer.on_cancel(self.token.cancel))
        if self.token.cancelled:
            self.end()
            raise self.cancelled()
        self._unbind.append(self.token.on_cancel(self.wake))
        if self.has_clocks:
            # While http.client waits for headers nobody else can look at a clock.
            seconds, self._running = min(
                (seconds, name)
                for name, seconds in (("stall", self._timeout.stall), ("total", self._timeout.total))
                if seconds is not None
            )
            self._alarm_at = self._began_at + seconds
            self._alarm = threading.Timer(seconds, self._ring)
            self._alarm.daemon = True
            with suppress(RuntimeError):  # the interpreter is ending: the timeout of the socket has to do
                self._alarm.start()

    def end(self) -> None:
        """Nothing wakes this exchange any more: its socket may soon serve another."""
        with self._lock:
            self._socket = self._shutdown = self._reader = None
        self.untie()
        if self._alarm is not None:
            self._alarm.cancel()

    def untie(self) -> None:
        """Nobody cancels this exchange any more."""
        for unbind in self._unbind:
            unbind()
        self._unbind.clear()

    def watch(self, sock: Any, *, is_connecting: bool = False) -> None:
        """The connection in use stands on this socket."""
        with self._lock:
            self._socket = sock
        self._is_connecting = is_connecting
        if self.token.cancelled:
            raise self.cancelled()
        if self._has_rung:
            raise TimeoutError

    def sending(self) -> None:
        """Let the next send end after ``Timeout.read`` seconds; urllib3 would give it those to connect."""
        if not self._is_connecting and self._socket is not None:
            self._socket.settimeout(self._timeout.read)

    def watch_response(self, raw: Any) -> None:
        """The headers are in."""
        # BufferedReader over SocketIO. Where a caller's own Session has neither, clocks act between two reads only.
        self._reader = getattr(getattr(getattr(raw, "_fp", None), "fp", None), "raw", None)
        if self.has_clocks:
            self._time_reader()
        with self._lock:
            if self._alarm is not None:
                self._alarm.cancel()
                self._alarm = None
            if self._socket is None:  # a Session of the caller's own, with adapters of its own
                self._socket = _socket_under(raw)
                self._shutdown = getattr(raw, "shutdown", None)
        self._chunk_at = time.monotonic()

    def wake(self) -> None:
        """Whoever waits on the socket stops waiting. The connection is lost."""
        if self.is_inherited:
            return
        with self._lock:
            if self._socket is not None:
                with suppress(OSError, ValueError, AttributeError):
                    # Not SSLSocket.shutdown: it takes the TLS away first, and a thread that is about to send would
                    # send in the clear.
                    socket.socket.shutdown(_tcp(self._socket), socket.SHUT_RDWR)
            elif self._shutdown is not None:
                with suppress(OSError, ValueError, RuntimeError):
                    self._shutdown()

    @property
    def is_inherited(self) -> bool:
        """This is a forked child's copy: the connection is the parent's, and not to be ended or read from here."""
        return self._forks != _forks

    def header_timeout(self) -> tuple[float | None, float | None]:
        """For requests: (connect, read) while the headers are not in."""
        timeout = self._timeout
        clocks = [seconds for seconds in (timeout.stall, timeout.total) if seconds is not None]
        connect, read = (
            min([*clocks, *([] if own is None else [own])], default=None) for own in (timeout.connect, timeout.read)
        )
        return connect, read

    def limit(self, name: str, seconds: float) -> None:
        """One more clock, which ends so many seconds from now."""
        self._ends[name] = time.monotonic() + seconds
        self.has_clocks = True
        self._time_reader()

    def _time_reader(self) -> None:
        reader, self._reader = self._reader, None
        if type(reader) is socket.SocketIO:
            reader.__class__ = _TimedReader
            reader.exchange = self  # type: ignore[attr-defined]

    def end_of_turn(self, seconds: float | None) -> None:
        """Wait so long for what follows the end of turn, in all; None: more of the answer came, wait for the next."""
        if seconds is None:
            self.limit("tail", self._timeout.read or 60.0)
        elif "tail" not in self._ends or time.monotonic() + seconds < self._ends["tail"]:
            self.limit("tail", seconds)

    def chunk_given(self) -> None:
        self._chunk_at = time.monotonic()

    def arm(self) -> None:
        """Let the next read end when the first of the clocks does.

        Raises:
            TransportError: one has run out already.
        """
        now = time.monotonic()
        left = {name: end - now for name, end in self._ends.items()}
        if self._timeout.read is not None:
            left["read"] = self._timeout.read
        if self._timeout.stall is not None and "tail" not in left:
            left["stall"] = self._chunk_at + self._timeout.stall - now
        self._running, seconds = min(left.items(), key=lambda item: item[1])
        if seconds <= 0:
            raise self._timed_out()
        if self._socket is not None:
            with suppress(OSError):
                self._socket.settimeout(seconds)
        self._is_armed = True

    def receiving(self) -> None:
        """Before each ``recv``. http.client may need any number of them for one read, and each gets the time left.

        Raises:
            TimeoutError: a clock has run out.
        """
        if not self._is_armed:
            try:
                self.arm()
            except TransportError:
                raise TimeoutError from None
        self._is_armed = False

    def setup_error(self, exc: Exception) -> CompletionError:
        """Why no response came, as one of ours."""
        return self.interruption() or self.error(
            *explained(exc, self._timeout, self.authorization, is_connecting=self._is_connecting)
        )

    def interruption(self) -> CompletionError | None:
        """Why the wait for headers was ended from here: to http.client it may look like the end of the headers."""
        if self.token.cancelled:
            return self.cancelled()
        # A timeout of urllib3's may come a moment before the alarm.
        is_time_up = self._running != "read" and time.monotonic() >= self._alarm_at
        return self._timed_out() if self._has_rung or is_time_up else None

    def stream_error(self, exc: Exception) -> CompletionError:
        """Why the body broke off, as one of ours."""
        if self.token.cancelled:
            return self.cancelled()
        # A TimeoutError with an errno is not the clock's: TCP keep-alive found nobody there.
        is_ours = isinstance(exc, TimeoutError) and exc.errno is None
        if is_ours or isinstance(exc, urllib3.exceptions.ReadTimeoutError):
            return self._timed_out()
        what = "the server broke the connection off" if is_cut(exc) else f"the connection failed ({plain(exc)})"
        return self.error(TransportError, f"{what} before the end of the body")

    def cancelled(self) -> StreamCancelledError:
        return stream_cancelled(self.provider, self.model)

    def error(self, kind: type[CompletionError], message: str) -> CompletionError:
        return kind(message, provider=self.provider, model=self.model)

    def _timed_out(self) -> CompletionError:
        timeout = self._timeout
        if self._running == "total":
            return self.error(DeadlineExceededError, f"the stream took longer than Timeout.total={timeout.total:g} s")
        if self._running == "stall":
            return self.error(IdleTimeoutError, f"no chunk came for Timeout.stall={timeout.stall:g} s")
        if self._running == "tail":
            return self.error(IdleTimeoutError, "the rest of the body did not come")
        return self.error(IdleTimeoutError, f"no byte came for Timeout.read={timeout.read:g} s")

    def _ring(self) -> None:
        with self._lock:
            if self._alarm is not None:  # the headers may have come in this very moment
                self._has_rung = True
                self.wake()


class _TimedReader(socket.SocketIO):
    """What http.client reads from, with the clocks of an exchange looked at before each ``recv``.

    No thread is needed, and no read can go on past a clock, whatever the server sends: half chunk size lines, trailers
    without end, one byte at a time.
    """

    exchange: Exchange

    def readinto(self, buffer: Any) -> int | None:
        self.exchange.receiving()
        return super().readinto(buffer)


def _socket_under(raw: Any) -> Any:
    """The socket that urllib3's response reads from; None where it hides it."""
    sock = getattr(getattr(raw, "connection", None), "sock", None)
    if sock is None:  # the response took it over: the server is going to close
        reader = getattr(getattr(raw, "_fp", None), "fp", None)
        sock = getattr(getattr(reader, "raw", None), "_sock", None)
    return sock


def _tcp(sock: Any) -> Any:
    """The socket itself; below TLS to a proxy, inside of which there is TLS once more."""
    return sock if isinstance(sock, socket.socket) else sock.socket


# The exchange that this thread is opening; urllib3 hands nothing through to its connections.
opening: ContextVar[Exchange | None] = ContextVar("completion_opening", default=None)
