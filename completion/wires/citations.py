"""Makes Citations from the JSON of an answer. Used by all wires."""

from __future__ import annotations

from bisect import bisect_right
from typing import Any

from completion.contract.citations import Citation
from completion.wires.json_values import str_or_empty, without_surrogates


def citation(
    *, url: Any = None, title: Any = None, cited_text: Any = None, start: Any = None, end: Any = None
) -> tuple[Citation, ...]:
    """A tuple with one Citation. Empty if url, title and text are all missing, because then there is no source.

    Values of a wrong JSON type count as missing. ``start`` and ``end`` must count characters of the turn's whole text.
    Both become None if one is missing, or if the end is before the start.
    """
    url, title, cited_text = (without_surrogates(str_or_empty(value)) or None for value in (url, title, cited_text))
    if not (url or title or cited_text):
        return ()
    if not (type(start) is int and type(end) is int and 0 <= start <= end):
        start = end = None
    return (Citation(url, title, cited_text, start, end),)


def shifted(index: Any, by: int) -> int | None:
    """Convert an index into a part of the turn's text to an index into the whole text; None if it is not an index."""
    return index + by if type(index) is int and index >= 0 else None


class ByteOffsets:
    """Converts offsets in UTF-8 bytes, as Google sends them, to offsets in characters.

    A wire appends only the texts that are not ASCII to ``pieces``: in ASCII, a character is one byte. So an answer in
    ASCII costs nothing.
    """

    __slots__ = ("_first_bytes", "pieces")

    def __init__(self) -> None:
        self.pieces: list[tuple[int, str]] = []
        """For each piece: how many characters of text precede it in the turn, and the piece."""
        self._first_bytes: list[int] = []  # how many bytes precede each piece; filled on first use

    def characters(self, byte_offset: Any, *, start_at: int = 0) -> int | None:
        """The offset in characters of the turn's whole text; None if ``byte_offset`` is not an offset.

        ``start_at``: where the text begins, in characters, if the offset counts from the beginning of a part.
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
        """How many bytes the first ``characters`` characters of the text have."""
        extra = 0
        for first_character, text in self.pieces:
            if first_character >= characters:
                break
            part = text[: characters - first_character]
            extra += len(_utf8(part)) - len(part)
        return characters + extra

    def _offsets(self) -> list[int]:
        """How many bytes of the turn precede each piece."""
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
