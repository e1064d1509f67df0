"""What the wires of Google's models share: the version of a model, how much it thinks, its files, its usage."""

from __future__ import annotations

import base64
import mimetypes
import re
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

from completion.contract.chunks import Usage
from completion.contract.messages import Base64Source, FileSource, ImageBlock, UrlSource
from completion.wires.lowering import image_type, unsupported

Version = tuple[int, int]

NEWEST = (99, 0)
"""Stands for the version of a Gemini whose name has none, such as gemini-flash-latest."""

LEVELS_SINCE = (3, 0)
"""The first version that has thinking levels, and that requires the signatures of tool calls back."""

THINKS_SINCE = (2, 5)
"""The first version that thinks. Earlier ones refuse to be told how much."""

FILES = "https://generativelanguage.googleapis.com/v1beta/"
"""The URI of an uploaded file is this and its name, as in files/abc."""

ILLEGAL_IN_NAMES = re.compile(r"^[^a-zA-Z_]|[^a-zA-Z0-9_.:-]")
"""Matches a character that the name of a function must not have. It begins with a letter or an underscore."""

IMAGE_TYPES = ("image/png", "image/jpeg", "image/webp", "image/heic", "image/heif")


def version_of(model: str) -> Version | None:
    """The version in a model id: (2, 5) in gemini-2.5-flash. NEWEST for a Gemini without a version; None for another
    model, such as Gemma or a tuned one."""
    found = re.search(r"gemini-(\d{1,2})(?:\.(\d{1,2}))?(?!\d)", model.lower())
    if found:
        return int(found[1]), int(found[2] or 0)
    return NEWEST if "gemini" in model.lower() else None


def thinking_level(effort: str, model: str) -> tuple[str, bool]:
    """The thinking level of this model that is nearest to an effort, and whether it is the same word."""
    # https://ai.google.dev/gemini-api/docs/thinking (read November 2026)
    level = {"none": "minimal", "xhigh": "high", "max": "high"}.get(effort, effort)
    version, is_pro = version_of(model) or NEWEST, "-pro" in model.lower()
    has_minimal = not is_pro and version >= LEVELS_SINCE and (version < (3, 7) or "-lite" in model.lower())
    if level == "minimal" and not has_minimal:
        level = "low"
    if level == "medium" and is_pro and version == LEVELS_SINCE:  # gemini-3-pro has low and high only
        level = "high"
    return level, level == effort


def file_of(block: Any) -> tuple[str, str | None, str | None]:
    """The URI of a block's file, its media type if that is known, and its bytes as base64 if they are in the request.

    With bytes the URI is empty.

    Raises:
        UnsupportedContentError: the API does not read files of this type.
    """
    source = block.source
    if isinstance(source, UrlSource) and source.url.startswith("data:"):
        source = _source_in(source.url)
    if isinstance(source, Base64Source):
        media_type = image_type(source) if isinstance(block, ImageBlock) else source.media_type
        return "", _checked_type(block, media_type), source.data
    if isinstance(source, FileSource):
        name = source.file_id
        return f"{FILES}{name}" if name.startswith("files/") else name, None, None
    return source.url, mimetypes.guess_type(urlsplit(source.url).path)[0], None


def _source_in(url: str) -> Base64Source:
    """The bytes in a ``data:`` URL. https://www.rfc-editor.org/rfc/rfc2397"""
    head, _, data = url.removeprefix("data:").partition(",")
    media_type = head.partition(";")[0] or "text/plain"
    try:
        if head.endswith(";base64"):
            return Base64Source(media_type, data)
        return Base64Source(media_type, base64.b64encode(unquote_to_bytes(data)).decode())
    except ValueError:
        raise unsupported("UrlSource", "its data: URL is not valid") from None


def _checked_type(block: Any, media_type: str) -> str:
    kind = media_type.partition("/")[0]
    is_readable = {
        "image": media_type in IMAGE_TYPES,
        "audio": kind in ("audio", "video"),
        "document": media_type == "application/pdf" or kind in ("text", "video"),
    }
    if not is_readable[block.type]:
        raise unsupported(type(block).__name__, f"Gemini does not read {media_type}")
    return media_type


def usage_of(*, input_tokens: int, cached: int, answer: int, thoughts: int, total: int) -> Usage:
    """The usage of a turn. Some gateways leave out the thoughts: then only the total includes them."""
    if input_tokens and answer and not thoughts:
        thoughts = max(total - input_tokens - answer, 0)
    return Usage(
        input_tokens=input_tokens,
        output_tokens=answer + thoughts,
        cached_input_tokens=cached,
        reasoning_tokens=thoughts,
    )
