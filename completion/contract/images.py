"""Finds an image that a model made in the provider block of each wire."""

from __future__ import annotations

import base64
from typing import Any, NamedTuple

from completion.contract.media_types import ENOUGH_BYTES, media_type_of_bytes

ENOUGH_CHARACTERS = ENOUGH_BYTES // 3 * 4
"""How many characters of base64 contain the first ENOUGH_BYTES bytes."""


class ModelImage(NamedTuple):
    """An image in the data of a provider block. It has a ``url``, or ``data`` in base64."""

    media_type: str
    data: str = ""
    url: str = ""


def image_in(block: dict[str, Any]) -> ModelImage | None:
    """The image in the data of a provider block; None if there is none.

    An image in Gemini's thoughts is a draft and not part of the answer, so it is None too.
    """
    match block:
        # Gemini: {"inlineData": {"mimeType": "image/png", "data": "…"}, "thoughtSignature": "…"}
        case {"thought": True}:
            return None
        case {"inlineData": {"mimeType": str(media_type), "data": str(data)}}:
            return _inline(media_type, data)
        case {"fileData": {"mimeType": str(media_type), "fileUri": str(url)}}:
            return _at_url(media_type, url)
        # OpenAI Responses: {"type": "image_generation_call", "output_format": "png", "result": "…"}
        case {"type": "image_generation_call", "result": str(data)}:
            return _inline(f"image/{block.get('output_format') or 'png'}", data)
        # Chat Completions at OpenRouter: {"type": "image_url", "image_url": {"url": "data:image/png;base64,…"}}
        case {"type": "image_url", "image_url": {"url": str(url)}}:
            head, _, data = url.partition(",")
            is_inline = head.startswith("data:") and head.endswith(";base64")
            return _inline(head[5:-7], data) if is_inline else _at_url("image/*", url)
        # Gemini's Interactions: {"type": "image", "mime_type": "image/png", "data": "…"}
        case {"type": "image", "data": str(data)}:
            return _inline(str(block.get("mime_type") or "image/png"), data)
        case {"type": "image", "uri": str(url)}:
            return _at_url(str(block.get("mime_type") or "image/*"), url)
    return None


def _inline(media_type: str, data: str) -> ModelImage | None:
    try:
        beginning = base64.b64decode(data[:ENOUGH_CHARACTERS])
    except ValueError:
        return None
    # Trust the first bytes, because some servers send a wrong type.
    media_type = media_type_of_bytes(beginning) or media_type
    return ModelImage(media_type, data) if beginning and media_type.startswith("image/") else None


def _at_url(media_type: str, url: str) -> ModelImage | None:
    is_web = url.startswith(("https://", "http://", "gs://"))
    return ModelImage(media_type, url=url) if is_web and media_type.startswith("image/") else None
