"""What ``-a`` and ``/attach`` add to a message: an image, a PDF, audio or text, from a file or a URL."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from completion.contract.errors import UnsupportedContentError
from completion.contract.media_types import (
    ENOUGH_BYTES,
    KNOWN_BY_BYTES,
    media_type_of_bytes,
    media_type_of_name,
)
from completion.contract.messages import (
    AudioBlock,
    Base64Source,
    Block,
    DocumentBlock,
    ImageBlock,
    Message,
    Source,
    TextBlock,
    UrlSource,
)
from completion.contract.request import ChatRequest
from completion.transport.download import download

MAX_BYTES = 100 * 1024 * 1024
"""No provider accepts a larger request, and a device such as /dev/zero has no end."""


def attachments(names: Sequence[str] | None) -> list[Block]:
    """A block for each file or URL; ``-`` is standard input.

    Raises:
        ValueError: one cannot be read, or is of a kind that cannot be attached.
        TransportError: a URL cannot be downloaded.
    """
    try:
        return [attachment(name) for name in names or ()]
    except ValueError as error:
        raise ValueError(f"--attach: {error}") from error


def attachment(name: str) -> Block:
    """The block of one file or URL.

    The provider fetches a URL whose name says that it is an image, a PDF or audio. Others are downloaded here.

    Raises:
        ValueError: see ``attachments``.
        TransportError: a URL cannot be downloaded.
    """
    if name.startswith(("http://", "https://")):
        return _of_url(name)
    shown = "stdin" if name == "-" else name
    try:
        if name == "-":
            data = sys.stdin.buffer.read(MAX_BYTES + 1)
        else:
            with open(os.path.expanduser(name), "rb") as file:
                data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ValueError(f"{shown} cannot be read: {error.strerror or error}") from error
    if len(data) > MAX_BYTES:
        raise ValueError(f"{shown} is too large: the limit is {MAX_BYTES // 1024 // 1024} MiB")
    if not data:
        raise ValueError(f"{shown} is empty")
    return _of_bytes("stdin" if name == "-" else Path(name).name, data)


def readable_by(model: Any, blocks: Iterable[Block]) -> list[Block]:
    """The blocks that this model accepts: a URL that its provider cannot fetch is downloaded here."""
    return [_downloaded(block) if _has_url(block) and not _is_accepted(model, block) else block for block in blocks]


def _has_url(block: Block) -> bool:
    return isinstance(getattr(block, "source", None), UrlSource)


def _is_accepted(model: Any, block: Block) -> bool:
    lowered = getattr(model, "lowered", None)  # a model of another package has none: it accepts or raises when called
    try:
        if lowered is not None:
            lowered(ChatRequest([Message.user([block])]))
    except UnsupportedContentError:
        return False
    return True


def _downloaded(block: Any) -> Block:
    url = block.source.url
    return _of_bytes(_name_of_url(url), download(url, MAX_BYTES))


def describe(block: Block) -> str:
    """What was attached, for the user: its kind and its size."""
    match block:
        case TextBlock(text=text):
            return f"text, {len(text):,} characters"
        case ImageBlock(source=source) | DocumentBlock(source=source) | AudioBlock(source=source):
            if isinstance(source, Base64Source):
                size = len(source.data) * 3 // 4 - source.data[-2:].count("=")
                return f"{source.media_type}, {size:,} bytes"
            return f"{block.type}, fetched by the provider"
    return block.type


def _of_bytes(name: str, data: bytes) -> Block:
    media_type = media_type_of_bytes(data[:ENOUGH_BYTES])
    if media_type is None:
        text = _as_text(data)
        if text is not None:
            return TextBlock(f"{name}:\n\n{text}")
        by_name = media_type_of_name(name)
        # A file of such a type is recognized by its first bytes. This one was not, so its name is wrong.
        media_type = None if by_name in KNOWN_BY_BYTES else by_name
    block = _block(media_type, Base64Source(media_type, data), name) if media_type else None
    if block is None:
        raise ValueError(
            f"{name} cannot be attached: it is not an image, a PDF, audio, or text in UTF-8"
            + (f" (its type is {media_type})" if media_type else "")
        )
    return block


def _of_url(url: str) -> Block:
    name = _name_of_url(url)
    return _block(media_type_of_name(name), UrlSource(url), name) or _of_bytes(name, download(url, MAX_BYTES))


def _name_of_url(url: str) -> str:
    try:
        return Path(urlsplit(url).path).name or url
    except ValueError as error:
        raise ValueError(f"{url} is not a URL: {error}") from error


def _block(media_type: str | None, source: Source, name: str) -> Block | None:
    """The block for this media type; None if there is none."""
    kind = (media_type or "").partition("/")[0]
    if kind == "image":
        return ImageBlock(source)
    if kind == "audio":
        return AudioBlock(source)
    return DocumentBlock(source, name=name) if media_type == "application/pdf" else None


def _as_text(data: bytes) -> str | None:
    """The text, without a byte order mark; None if it is not text in UTF-8."""
    if b"\0" in data:
        return None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None
