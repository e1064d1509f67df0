"""The time limits of a request."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Timeout:
    """How long to wait, in seconds; None waits for ever.

    ``connect``: for the connection. ``read``: the longest silence on the socket. ``stall``: the longest time without a
    chunk (pings do not count as chunks, and the time that the caller spends between two chunks is not counted).
    ``total``: for the whole stream, from the call to its end.
    """

    connect: float | None = 10.0
    read: float | None = 60.0
    stall: float | None = None
    total: float | None = None

    def __post_init__(self) -> None:
        for name in self.__slots__:
            seconds = getattr(self, name)
            is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
            if seconds is not None and not (is_number and 0 < seconds < math.inf):
                raise ValueError(f"Timeout.{name} must be a number of seconds above 0, or None; got {seconds!r}")

    @classmethod
    def of(cls, given: Timeout | float | tuple[float | None, float | None]) -> Timeout:
        """A Timeout from the forms that requests accepts too: a number for ``read``, or ``(connect, read)``."""
        if isinstance(given, Timeout):
            return given
        if isinstance(given, tuple):
            if len(given) != 2:
                raise ValueError(f"timeout= must be a Timeout, a number of seconds or (connect, read), got {given!r}")
            return cls(connect=given[0], read=given[1])
        return cls(read=given)


def described(timeout: Timeout, name: Literal["connect", "read"]) -> str:
    """The limit of this name, for the message of an error.

    A call can time out although our limit is None: a caller's Session may set one, and the operating system has one.
    """
    seconds = getattr(timeout, name)
    return "the limit of the Session or the operating system" if seconds is None else f"Timeout.{name}={seconds:g} s"
