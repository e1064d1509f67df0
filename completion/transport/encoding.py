"""A compressed body, decoded by a bounded piece at a time.

We ask for ``identity``; some gateways compress all the same. One layer of gzip or deflate is read. urllib3 would read
any number of layers, and a few KiB of gzip inside gzip become GiB.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any, Final

from completion.contract.errors import MalformedStreamError, TransportError

# A body that decodes to more than the first may not be more than so many times as large as what was sent.
_FREE_BYTES: Final = 16 * 1024 * 1024
_MOST_EXPANSION: Final = 100
# zlib copies what it has not read yet with each piece that it gives: this keeps that small.
_FEED_BYTES: Final = 4 * 1024

_GZIP: Final = 31
_ZLIB: Final = 15
_RAW_DEFLATE: Final = -15


def encoding_of(header: str | None) -> str:
    """``identity``, ``gzip`` or ``deflate``, from the header Content-Encoding.

    Raises:
        MalformedStreamError: another one, or several.
    """
    name = (header or "identity").strip().lower().removeprefix("x-") or "identity"
    if name in ("identity", "gzip", "deflate"):
        return name
    raise MalformedStreamError(
        f"the body has Content-Encoding {name[:100]!r}: we asked for identity, and read one layer of gzip or deflate"
    )


class Decoder:
    """The decoded bytes of a gzip or deflate body. ``read1(size)`` is like that of a file."""

    def __init__(self, read: Callable[[int], bytes], encoding: str) -> None:
        self._read = read
        self._encoding = encoding
        self._inflate: Any = None
        self._has_begun = False
        self._waiting = b""  # read, and not yet decoded
        self._may_hold_more = False  # the last piece was full
        self._read_bytes = self._decoded_bytes = 0

    def read1(self, size: int) -> bytes:
        """Up to ``size`` bytes, empty at the end of the body.

        Raises:
            TransportError: this is not gzip or deflate.
            MalformedStreamError: it decodes to far more than any answer.
        """
        while True:
            while self._waiting or self._may_hold_more:
                piece = self._decoded(size)
                if piece:
                    self._check_expansion(len(piece))
                    return piece
            more = self._read(size)
            if not more:
                return b""
            self._read_bytes += len(more)
            self._waiting = more

    def _decoded(self, size: int) -> bytes:
        if self._inflate is None and not self._begin():
            return b""
        feed, self._waiting = self._waiting[:_FEED_BYTES], self._waiting[_FEED_BYTES:]
        try:
            piece: bytes = self._inflate.decompress(feed, size)
        except zlib.error as exc:
            raise TransportError(f"the body is not valid {self._encoding}: {exc}") from None
        self._may_hold_more = len(piece) == size
        self._waiting = (self._inflate.unused_data or self._inflate.unconsumed_tail) + self._waiting
        if self._inflate.eof:
            self._inflate, self._may_hold_more = None, False
        return piece

    def _begin(self) -> bool:
        """Whether something to decode begins here, rather than padding behind the end."""
        is_gzip = self._encoding == "gzip"
        if self._has_begun and not (is_gzip and self._waiting[:1] == b"\x1f"):  # several gzip files in a row are one
            self._waiting = b""
            return False
        self._has_begun = True
        if not is_gzip and len(self._waiting) < 2:
            self._waiting += self._read(1)
        # zlib's format by the standard, and raw from some servers
        is_zlib = self._waiting[0] & 0x0F == 8 and int.from_bytes(self._waiting[:2], "big") % 31 == 0
        self._inflate = zlib.decompressobj(_GZIP if is_gzip else _ZLIB if is_zlib else _RAW_DEFLATE)
        return True

    def _check_expansion(self, size: int) -> None:
        self._decoded_bytes += size
        if self._decoded_bytes > max(_FREE_BYTES, self._read_bytes * _MOST_EXPANSION):
            raise MalformedStreamError(
                f"the body expands too far: {self._read_bytes} bytes of {self._encoding}, not asked for, hold"
                f" {self._decoded_bytes} bytes and more"
            )
