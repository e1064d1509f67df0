"""Citations out of the JSON of an answer: shared by all wires."""

from __future__ import annotations

from bisect import bisect_right
from typing import Any

from completion.contract.citations import Citation
from completion.wires.json_values import str_or_empty, without_surrogates


def citation(
    *, url: Any = None, title: Any = None, cited_text: Any = None, start: Any = None, end: Any = None
) -> tuple[Citation, ...]:
    """A tuple with one Citation; empty if there is neither url, title nor text, because then no source is named.

    Values of a wrong JSON type count as missing. ``start`` and ``end`` must count characters of the turn's whole text.
    Both are dropped if one is missing, or the end is before the start.
    """
    url, title, cited_text = (without_surrogates(str_or_empty(value)) or None for value in (url, title, cited_text))
    if not (url or title or cited_text):
        return ()
    if not (type(start) is int and type(end) is int and 0 <= start <= end):
        start = end = None
    return (Citation(url, title, cited_text, start, end),)


def shifted(index: Any, by: int) -> int | None:
    """An index into a part of the turn's text, as an index into the whole; None if it is not one."""
    return index + by if type(index) is int and index >= 0 else None


class ByteOffsets:
    """Turns offsets in bytes of UTF-8, which Google counts, into offsets in characters.

    A wire appends each piece of text that is not ASCII to ``pieces``. For the rest of the text both offsets grow alike,
    so an answer in ASCII costs nothing.
    """

    __slots__ = ("_first_bytes", "pieces")

    def __init__(self) -> None:
        self.pieces: list[tuple[int, str]] = []
        """The characters of text in the turn before the piece, and the piece."""
        self._first_bytes: list[int] = []  # the bytes of the turn before each piece; filled on first use

    def characters(self, byte_offset: Any, *, start_at: int = 0) -> int | None:
        """The offset in characters of the whole text; None if it is not an offset.

        ``start_at``: the characters before the text that the offset counts in.
        """
        if type(byte_offset) is not int or byte_offset < 0:
            return None
        return self._characters(byte_offset + self._bytes(start_at))

    def _characters(self, byte_offset: int) -> int:
        n = bisect_right(self._offsets(), byte_offset) - 1
        if n < 0:
            return byte_offset
        first_character, text = self.pieces[n]
        inside = byte_offset - self._first_bytes[n]
        data = _utf8(text)
        if inside >= len(data):
            return first_character + len(text) + inside - len(data)
        # Inside a character, which no server sends: "ignore" drops the incomplete one.
        return first_character + len(data[:inside].decode("utf-8", "ignore"))

    def _bytes(self, characters: int) -> int:
        """The bytes of so many characters at the beginning of the text."""
        extra = 0
        for first_character, text in self.pieces:
            if first_character >= characters:
                break
            part = text[: characters - first_character]
            extra += len(_utf8(part)) - len(part)
        return characters + extra

    def _offsets(self) -> list[int]:
        """The bytes of the turn before each piece."""
        offsets = self._first_bytes
        while len(offsets) < len(self.pieces):
            n = len(offsets)
            extra = 0  # bytes more than characters
            if n:
                first_character, text = self.pieces[n - 1]
                extra = offsets[-1] - first_character + len(_utf8(text)) - len(text)
            offsets.append(self.pieces[n][0] + extra)
        return offsets


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "replace")
