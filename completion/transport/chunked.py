"""Takes the chunked framing off a body, as many chunks at a time as have arrived.

    5\r\ndata:\r\n3\r\n hi\r\n0\r\n\r\n  ->  data: hi

http.client gives one chunk a call, in about 2 µs, and each event of a stream is a chunk of its own. Here all of them
that one ``recv`` brought come at once. Format: https://www.rfc-editor.org/rfc/rfc9112#section-7.1
"""

from __future__ import annotations

import http.client
import re
from collections.abc import Callable
from typing import Final

# A size in hexadecimal digits, and perhaps extensions: 1f;name=value
_SIZE = re.compile(rb"[ \t]*([0-9a-fA-F]{1,16})[ \t]*(?:;[^\n]*)?\r?\n")

_LINE_END = re.compile(rb"\r?\n")

_LONGEST_LINE: Final = 64 * 1024
_LONGEST_TRAILERS: Final = 64 * 1024


class ChunkedReader:
    """Reads the data of a chunked body.

    Args:
        read: gives at most so many bytes of what has arrived, as soon as there are any; none at the end.
    """

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read
        self._held = b""  # a size line, or a line end, that has not arrived whole
        self._left = 0  # bytes that are missing of the data of the open chunk
        self._is_behind_data = False  # the line end behind the data of a chunk comes next
        self._in_trailers = False
        self._trailer_bytes = 0
        self._failure: http.client.HTTPException | None = None
        self.is_complete = False
        """The last chunk and the trailers were read."""
        self.has_extra_bytes = False
        """Bytes stand behind the end of the body: the connection must not serve again."""

    def read1(self, size: int) -> bytes:
        """The data that has arrived; none at the end of the body.

        Raises:
            http.client.IncompleteRead: the connection ended before the body did.
            http.client.HTTPException: this is not chunked framing. All data before it was given.
        """
        while not self.is_complete:
            if self._failure is not None:
                raise self._failure
            received = self._read(size)
            if not received:
                raise http.client.IncompleteRead(b"")
            data = self._data(self._held + received if self._held else received)
            if data:
                return data
        return b""

    def _data(self, received: bytes) -> bytes:
        """The data of the chunks in ``received``; what is not whole yet is held back."""
        parts: list[bytes] = []
        at, end = 0, len(received)
        while at < end and not self._in_trailers and self._failure is None:
            if self._left:
                part = received[at : at + self._left]
                parts.append(part)
                at += len(part)
                self._left -= len(part)
                if not self._left:
                    self._is_behind_data = not received.startswith(b"\r\n", at)
                    at += 0 if self._is_behind_data else 2
                continue
            line_end = _LINE_END.match(received, at) if self._is_behind_data else None
            begin = line_end.end() if line_end else at
            found = _SIZE.match(received, begin)
            if found is None or (self._is_behind_data and not line_end):
                self._hold(received[at:])
                break
            self._is_behind_data = False
            at = found.end()
            self._left = int(found[1], 16)
            self._in_trailers = not self._left
        else:
            self._held = received[at:]
        if self._in_trailers:
            self._read_trailers()
        return b"".join(parts) if len(parts) != 1 else parts[0]

    def _hold(self, line: bytes) -> None:
        """Keep the beginning of a size line, unless it cannot become one."""
        self._held = line
        if self._is_behind_data and not b"\r\n".startswith(line[:2]) and line[:1] != b"\n":
            self._failure = http.client.HTTPException("a chunk of the body is longer than it says")
        elif b"\n" in line.lstrip(b"\r\n") or len(line) > _LONGEST_LINE:
            self._failure = http.client.HTTPException("the size of a chunk of the body is not a number")

    def _read_trailers(self) -> None:
        """Skip the lines behind the last chunk, up to a blank one."""
        while not self.is_complete:
            line, found, rest = self._held.partition(b"\n")
            if len(line) + self._trailer_bytes > _LONGEST_TRAILERS:
                self._failure = http.client.HTTPException("the trailers of the body have no end")
            if not found or self._failure is not None:
                return
            self._trailer_bytes += len(line) + 1
            self._held = rest
            self.is_complete = not line.strip(b"\r")
        self.has_extra_bytes = bool(self._held)
