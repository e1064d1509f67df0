"""Removes the chunked framing from a body, as many HTTP chunks at a time as have arrived.

    5\r\ndata:\r\n3\r\n hi\r\n0\r\n\r\n  ->  data: hi

http.client returns one HTTP chunk a call, which costs about 2 µs, and servers send each event as an HTTP chunk of its
own. This reader returns the data of all chunks that one ``recv`` brought. It is stricter than http.client, which
accepts ``-5``, ``+5``, ``0x5`` and ``1_0`` as sizes, skips any two bytes after the data, and takes the bytes after the
body for the next response. Format: https://www.rfc-editor.org/rfc/rfc9112#section-7.1
"""

from __future__ import annotations

import http.client
import re
from collections.abc import Callable
from typing import Final

# A size in hexadecimal digits, then extensions: 1f;name=value. No server pads to more than 16 digits.
# A line may end with a bare LF, as http.client accepts. If a proxy disagrees where such a line ends, bytes are left
# over: `has_extra_bytes` keeps the connection from serving again.
_SIZE_LINE = re.compile(rb"[ \t]*([0-9a-fA-F]{1,16})[ \t]*(?:;[^\n]*)?\r?\n")
_LINE_END = re.compile(rb"\r?\n")

# For one size line, and for all trailers together. http.client's limit for one line is the same.
_MAX_LINE_BYTES: Final = 64 * 1024


class ChunkedReader:
    """Reads the data of a chunked body.

    Args:
        read: returns bytes as soon as some have arrived, at most as many as asked for; ``b""`` at the end.
    """

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read
        self._line = bytearray()  # the beginning of a line whose end has not arrived
        self._missing = 0  # bytes of the current chunk's data that have not arrived
        self._expects_line_end = False  # the data of a chunk is complete, the line end after it is not
        self._in_trailers = False
        self._trailer_bytes = 0
        self._failure: http.client.HTTPException | None = None
        self.is_complete = False
        """The last chunk and the trailers were read."""
        self.has_extra_bytes = False
        """Bytes follow the end of the body: the connection must not serve another request."""

    def read1(self, size: int) -> bytes:
        """The data that has arrived; ``b""`` at the end of the body.

        Raises:
            http.client.IncompleteRead: the connection closed before the end of the body.
            http.client.HTTPException: the framing is broken. All data before the fault was returned.
        """
        while not self.is_complete:
            if self._failure is not None:
                raise self._failure
            received = self._read(size)
            if not received:
                raise http.client.IncompleteRead(b"")
            if self._line:
                self._line += received
                if b"\n" not in received:
                    # The line is parsed once, when it is complete. To parse it again for each byte would take quadratic
                    # time.
                    self._check_unfinished_line()
                    continue
                received = bytes(self._line)
                self._line.clear()
            data = self._data(received)
            if data:
                return data
        return b""

    def _data(self, received: bytes) -> bytes:
        """The data of the chunks in ``received``; an unfinished line at its end is kept for the next call."""
        if not (self._missing or self._expects_line_end or self._in_trailers) and received.endswith(b"\r\n"):
            # The fast path: one whole chunk, as a model sends its events.
            line = _SIZE_LINE.match(received)
            if line is not None and line.end() + int(line[1], 16) + 2 == len(received) > line.end() + 2:
                return received[line.end() : -2]
        parts: list[bytes] = []
        at, end = 0, len(received)
        while at < end and not self._in_trailers:
            if self._missing:
                part = received[at : at + self._missing]
                parts.append(part)
                at += len(part)
                self._missing -= len(part)
                if not self._missing:
                    # Usually the CRLF has arrived too: skip it here, without a regular expression.
                    self._expects_line_end = not received.startswith(b"\r\n", at)
                    at += 0 if self._expects_line_end else 2
                continue
            line = (_LINE_END if self._expects_line_end else _SIZE_LINE).match(received, at)
            if line is None:
                self._keep_line(received[at:])
                break
            at = line.end()
            if self._expects_line_end:
                self._expects_line_end = False
            else:
                self._missing = int(line[1], 16)
                self._in_trailers = not self._missing
        if self._in_trailers:
            self._skip_trailers(received, at)
        return b"".join(parts) if len(parts) != 1 else parts[0]

    def _skip_trailers(self, received: bytes, at: int) -> None:
        """Skip the lines after the last chunk, up to a blank one."""
        while self._failure is None:
            line_end = received.find(b"\n", at)
            if line_end < 0:
                self._keep_line(received[at:])
                return
            if received[at:line_end] in (b"", b"\r"):
                self.is_complete = True
                self.has_extra_bytes = line_end + 1 < len(received)
                return
            self._trailer_bytes += line_end + 1 - at
            at = line_end + 1
            self._check_unfinished_line()

    def _keep_line(self, line: bytes) -> None:
        """Keep the beginning of a line until the rest arrives."""
        self._line += line
        if b"\n" in line and not self._expects_line_end:
            self._failure = http.client.HTTPException("the size of an HTTP chunk is not a hexadecimal number")
        self._check_unfinished_line()

    def _check_unfinished_line(self) -> None:
        """Set ``_failure`` if the line that has begun cannot become valid."""
        if self._expects_line_end and self._line and self._line != b"\r":
            self._failure = http.client.HTTPException("an HTTP chunk is longer than its size says")
        elif len(self._line) + self._trailer_bytes > _MAX_LINE_BYTES:
            what = "trailers" if self._in_trailers else "size line of an HTTP chunk"
            self._failure = http.client.HTTPException(f"the {what} of the body is longer than {_MAX_LINE_BYTES} bytes")
