"""The media type of a file, by its first bytes or by its name."""

from __future__ import annotations

import mimetypes
from pathlib import PurePath

# Types that `mimetypes` does not know on every Python and system.
_BY_SUFFIX = {".webp": "image/webp", ".md": "text/markdown", ".m4a": "audio/mp4", ".opus": "audio/ogg"}

_SUFFIXES = {"image/jpeg": ".jpg", "audio/wav": ".wav", "audio/mpeg": ".mp3"}

# How a file of each type begins. Files often have the wrong suffix, and providers refuse an image or a document with
# the wrong media type.
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

KNOWN_BY_BYTES = frozenset([*(kind for _, kind in _BEGINNINGS), *_RIFF.values()]) - {"audio/mpeg"}
"""The media types that ``media_type_of_bytes`` always knows. An MP3 may begin without ID3."""

ENOUGH_BYTES = 12
"""How many bytes ``media_type_of_bytes`` needs."""


def media_type_of_bytes(beginning: bytes) -> str | None:
    """The media type of a file, by its first ENOUGH_BYTES bytes; None if they belong to no type of this module."""
    if beginning[:4] == b"RIFF":
        return _RIFF.get(beginning[8:12])
    return next((kind for prefix, kind in _BEGINNINGS if beginning.startswith(prefix)), None)


def media_type_of_name(name: str) -> str | None:
    """The media type of a file, by the suffix of its name; None if the suffix is unknown."""
    return _BY_SUFFIX.get(PurePath(name).suffix.lower()) or mimetypes.guess_type(name)[0]


def suffix_of(media_type: str) -> str:
    """The usual suffix of a file of this type, such as ``.png``; empty if the type is unknown."""
    own = next((suffix for suffix, kind in _BY_SUFFIX.items() if kind == media_type), None)
    return own or _SUFFIXES.get(media_type) or mimetypes.guess_extension(media_type) or ""
