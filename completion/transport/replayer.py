"""A Session that replays bytes from memory as if they came from a socket, at the recorded times, without a network."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final, Literal

import requests

from completion.contract.errors import ConfigurationError
from completion.transport.exchange import exchange_in_progress
from completion.transport.recorder import SLOW_SERVER, OneProcessAdapter, Traffic, traffic_of
from completion.transport.session import TCPConnection, TLSConnection, new_session, pools_of, report_socket


@dataclass(frozen=True, slots=True)
class Script:
    """The bytes of one response, with head and framing. ``pieces``: the seconds since the request, and the bytes.

    ``end`` says what happens at the next read after the last piece. ``open``: it waits, because the connection stays
    open. ``left``: it raises ConfigurationError, because the rest was not recorded. The others are those of a Traffic.
    ``error`` is the message for the caller.
    """

    pieces: Sequence[tuple[float, bytes]]
    end: Literal["open", "left", "closed", "reset", "timeout", "error", "failed"]
    ended_at: float
    error: str = ""


class _Playing:
    """A Script that is being replayed, with the times at which its pieces are due."""

    def __init__(self, script: Script, speed: float) -> None:
        started_at = time.monotonic()
        # With speed 0, everything is due at once.
        self._pieces = [(started_at + (at / speed if speed else 0.0), piece) for at, piece in script.pieces]
        self._pieces.reverse()
        self._script = script
        self._end_due = started_at + (script.ended_at / speed if speed else 0.0)

    @property
    def due(self) -> float | None:
        """The time at which the next read returns. None: never."""
        if self._pieces:
            return self._pieces[-1][0]
        return None if self._script.end == "open" else self._end_due

    def take(self, buffer: memoryview) -> int:
        """Put the next piece into the buffer, or as much of it as fits.

        Raises:
            OSError, ConfigurationError: the script ends with an error.
        """
        if not self._pieces:
            self._finish()
            return 0
        due, piece = self._pieces.pop()
        count = min(len(piece), len(buffer))
        buffer[:count] = piece[:count]
        if count < len(piece):
            self._pieces.append((due, piece[count:]))
        return count

    def _finish(self) -> None:
        script = self._script
        if script.end == "left":
            raise ConfigurationError(script.error)
        if script.end == "reset":
            raise ConnectionResetError(script.error)
        if script.end == "timeout":
            raise TimeoutError("timed out")
        if script.end == "error":
            raise OSError(script.error)


class _ReplaySocket(socket.socket):
    """One end of a socket pair. No byte arrives on it, but a shutdown by another thread wakes a waiting read."""

    def __init__(self) -> None:
        own, self._peer = socket.socketpair()
        super().__init__(own.family, own.type, own.proto, own.detach())
        self.playing: _Playing | None = None

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        playing = self.playing
        if playing is None or not self._wait_until(playing.due):
            return 0
        view = memoryview(buffer).cast("B")
        return playing.take(view[:nbytes] if nbytes else view)

    def _wait_until(self, due: float | None) -> bool:
        """Wait until this time. False if the socket was shut down before.

        Raises:
            TimeoutError: the timeout of the socket expired before.
        """
        timeout = self.gettimeout()
        seconds = None if due is None else max(0.0, due - time.monotonic())
        is_too_long = timeout is not None and (seconds is None or timeout < seconds)
        self.settimeout(timeout if is_too_long else seconds)
        try:
            self.recv(1)
            return False
        except (TimeoutError, BlockingIOError):
            if is_too_long:
                raise
            return True
        finally:
            with suppress(OSError):  # another thread closed it
                self.settimeout(timeout)

    def _real_close(self, *args: Any) -> None:
        self._peer.close()
        super()._real_close(*args)  # type: ignore[misc]


_playing: Final[ContextVar[_Playing | None]] = ContextVar("completion_playing", default=None)


class _Replays:
    """Mixin for connections without a network."""

    sock: Any

    def connect(self) -> None:
        self.sock = _ReplaySocket()
        self.is_verified = True  # otherwise urllib3 warns about TLS without a certificate
        report_socket(self.sock)

    def request(self, *args: Any, **kwargs: Any) -> None:
        super().request(*args, **kwargs)  # type: ignore[misc]
        exchange = exchange_in_progress.get()
        if exchange is not None:
            # If the recorded server closed the connection without an answer, the transport must not try again.
            exchange.is_connection_reused = False

    def send(self, data: Any) -> None:
        if self.sock is None:
            self.connect()

    def getresponse(self, *args: Any, **kwargs: Any) -> Any:
        self.sock.playing = _playing.get()
        return super().getresponse(*args, **kwargs)  # type: ignore[misc]


class _ReplayedTCPConnection(_Replays, TCPConnection):
    pass


class _ReplayedTLSConnection(_Replays, TLSConnection):
    pass


class _ReplayingAdapter(OneProcessAdapter):
    pools = pools_of(_ReplayedTCPConnection, _ReplayedTLSConnection)

    def __init__(self, find: Callable[[Traffic], Script], speed: float) -> None:
        super().__init__()
        self._find = find
        self._speed = speed

    def send(
        self, request: requests.PreparedRequest, stream: bool = False, timeout: Any = None, *args: Any, **kwargs: Any
    ) -> requests.Response:
        script = self._find(traffic_of(request))
        if script.end == "failed":
            kind, _, message = script.error.partition(": ")
            reason = TimeoutError(message) if kind == SLOW_SERVER else message
            raise getattr(requests.exceptions, kind, requests.exceptions.ConnectionError)(reason)
        context = _playing.set(_Playing(script, self._speed))
        try:
            # There is no TLS and no proxy, so a missing certificate file must not be an error.
            return super().send(request, stream, timeout, verify=False, cert=None, proxies=None)
        finally:
            _playing.reset(context)


def replaying_session(find: Callable[[Traffic], Script], speed: float) -> requests.Session:
    """A Session that replays the Script that ``find`` returns for a request. The call raises what ``find`` raises."""
    return new_session(_ReplayingAdapter(find, speed))
