"""Decodes a compressed body in pieces of limited size.

Requests ask for ``identity``, but some gateways compress anyway. One layer of gzip or deflate is supported. urllib3
decodes any number of layers, and a few KiB of gzip inside gzip expand to GiB.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any, Final

from completion.contract.errors import MalformedStreamError, TransportError

# Every body may decode to this many bytes. A larger one may be so many times larger than its compressed form.
_ALWAYS_ALLOWED_BYTES: Final = 16 * 1024 * 1024
_MAX_EXPANSION: Final = 100
# zlib copies the input that it has not read yet for each piece of output. Small input keeps the copies small.
_INPUT_BYTES: Final = 4 * 1024

# wbits of zlib
_GZIP: Final = 31
_ZLIB: Final = 15
_RAW_DEFLATE: Final = -15


def encoding_of(header: str | None) -> str:
    """``identity``, ``gzip`` or ``deflate``, from the header Content-Encoding.

    Raises:
        MalformedStreamError: the header has another encoding, or several.
    """
    name = (header or "identity").strip().lower().removeprefix("x-") or "identity"
    if name in ("identity", "gzip", "deflate"):
        return name
    raise MalformedStreamError(
        f"the body has Content-Encoding {name[:100]!r}: the request asked for identity; only one layer of gzip or"
        " deflate is supported"
    )


class Decoder:
    """Decodes a gzip or deflate body.

    Args:
        read: returns compressed bytes as soon as some have arrived, at most as many as asked for; ``b""`` at the end.
        encoding: ``gzip`` or ``deflate``.
    """

    def __init__(self, read: Callable[[int], bytes], encoding: str) -> None:
        self._read = read
        self._encoding = encoding
        self._inflate: Any = None
        self._has_started = False
        self._input = b""  # read, and not yet decoded
        self._has_more_output = False  # the last piece was full: zlib may have more
        self._read_bytes = self._decoded_bytes = 0

    def read1(self, size: int) -> bytes:
        """Up to ``size`` bytes; ``b""`` at the end of the body.

        Raises:
            TransportError: the body is not valid gzip or deflate.
            MalformedStreamError: the body expands too far.
        """
        while True:
            while self._input or self._has_more_output:
                piece = self._decoded(size)
                if piece:
                    self._check_expansion(len(piece))
                    return piece
            more = self._read(size)
            if not more:
                return b""
            self._read_bytes += len(more)
            self._input = more

    def _decoded(self, size: int) -> bytes:
        if self._inflate is None and not self._start():
            return b""
        fed, self._input = self._input[:_INPUT_BYTES], self._input[_INPUT_BYTES:]
        try:
            piece: bytes = self._inflate.decompress(fed, size)
        except zlib.error as exc:
            raise TransportError(f"the body is not valid {self._encoding}: {exc}") from None
        self._has_more_output = len(piece) == size
        # unused_data follows the end of a gzip file, unconsumed_tail did not fit into this piece of output.
        self._input = (self._inflate.unused_data or self._inflate.unconsumed_tail) + self._input
        if self._inflate.eof:
            self._inflate, self._has_more_output = None, False
        return piece

    def _start(self) -> bool:
        """Start to decode. False: the compressed data is complete, and what follows is padding."""
        is_gzip = self._encoding == "gzip"
        if self._has_started and not (is_gzip and self._input[:1] == b"\x1f"):  # gzip files may be joined
            self._input = b""
            return False
        self._has_started = True
        if not is_gzip and len(self._input) < 2:
            self._input += self._read(1)
        # The standard says zlib's format; some servers send raw deflate.
        is_zlib = self._input[0] & 0x0F == 8 and int.from_bytes(self._input[:2], "big") % 31 == 0
        self._inflate = zlib.decompressobj(_GZIP if is_gzip else _ZLIB if is_zlib else _RAW_DEFLATE)
        return True

    def _check_expansion(self, size: int) -> None:
        self._decoded_bytes += size
        if self._decoded_bytes > max(_ALWAYS_ALLOWED_BYTES, self._read_bytes * _MAX_EXPANSION):
            raise MalformedStreamError(
                f"the body expands too far: {self._read_bytes} bytes of {self._encoding}, which the request did not ask"
                f" for, expand to {self._decoded_bytes} bytes or more"
            )
