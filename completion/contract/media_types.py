"""The media type of a file, by its first bytes or by its name."""

from __future__ import annotations

import mimetypes
from pathlib import PurePath

# Types that `mimetypes` does not know on every Python and system.
_BY_SUFFIX = {".webp": "image/webp", ".md": "text/markdown", ".m4a": "audio/mp4", ".opus": "audio/ogg"}

# How a file of each type begins. A file has the wrong name more often than one would think: providers refuse it.
_BEGINNINGS = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"%PDF-", "application/pdf"),
    (b"fLaC", "audio/flac"),
    (b"ID3", "audio/mpeg"),
)
_RIFF = {b"WEBP": "image/webp", b"WAVE": "audio/wav"}

ENOUGH_BYTES = 12
"""So many bytes of the beginning decide."""


def media_type_of_bytes(beginning: bytes) -> str | None:
    """The media type of a file that begins like this; None if it is not one of the few that are known."""
    if beginning[:4] == b"RIFF":
        return _RIFF.get(beginning[8:12])
    return next((kind for begins, kind in _BEGINNINGS if beginning.startswith(begins)), None)


def media_type_of_name(name: str) -> str | None:
    """The media type for the suffix of a file's name; None if it is unknown."""
    return _BY_SUFFIX.get(PurePath(name).suffix.lower()) or mimetypes.guess_type(name)[0]
