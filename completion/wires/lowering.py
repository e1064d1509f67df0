"""Helpers of the ``lower`` functions: from the request to the JSON body."""

from __future__ import annotations

import base64
import json
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from completion.contract.errors import UnsupportedContentError
from completion.contract.media_types import media_type_of_bytes
from completion.contract.messages import (
    Base64Source,
    Block,
    Message,
    ProviderBlock,
    ReasoningBlock,
    RedactedReasoningBlock,
    TextBlock,
    ToolResultBlock,
)
from completion.contract.request import ChatRequest
from completion.contract.schemas import OpenSchemaError, StrictRules, strict


def merged(body: Any, patch: Any) -> Any:
    """The body with a JSON Merge Patch applied: objects merge, None deletes, anything else replaces.

    https://www.rfc-editor.org/rfc/rfc7396
    """
    if not isinstance(patch, Mapping):
        return patch
    result = dict(body) if isinstance(body, Mapping) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result


def with_additional(body: dict[str, Any], request: ChatRequest) -> dict[str, Any]:
    """The body with the request's ``additional_params`` merged into it.

    Raises:
        UnsupportedContentError: they are nested too deeply, or contain themselves.
    """
    try:
        patched: dict[str, Any] = merged(body, request.additional_params or {})
    except RecursionError:
        raise unsupported("additional_params", "they are nested too deeply") from None
    return patched


def unsupported(field: str, why: str) -> UnsupportedContentError:
    """The error for a part of a request that the API does not support. The adapter adds the provider."""
    return UnsupportedContentError(f"{field} cannot be sent: {why}")


# Leaving one of these out loses a preference. The answer still means the same.
_PREFERENCES = ("temperature", "top_p", "top_k", "seed", "reasoning_effort")
# Leaving one of these out would change the answer.
_REQUIREMENTS = ("system_prompt", "tools", "stop_sequences", "response_format")


def dropped_fields(request: ChatRequest, *, supported: Collection[str]) -> list[str]:
    """The names of the fields that the request sets and this wire does not support: the second half of a Lowered.

    ``supported``: the optional fields that ``lower`` reads, such as ``"tools"`` and ``"temperature"``. ``messages``,
    ``max_tokens`` and ``additional_params`` need not be named.

    Raises:
        UnsupportedContentError: without the field the answer would be another: a system prompt, tools,
            ``tool_choice``, ``parallel_tool_use=False``, stop sequences, ``response_format``.
    """
    for name in _REQUIREMENTS:
        if getattr(request, name) and name not in supported:
            raise unsupported(name, "this provider does not support it")
    choice = request.tool_choice
    if choice is not None and choice.kind != "auto" and request.tools and "tool_choice" not in supported:
        raise unsupported(f"tool_choice={choice.kind!r}", "this provider does not support it")
    if request.parallel_tool_use is False and request.tools and "parallel_tool_use" not in supported:
        raise unsupported("parallel_tool_use=False", "this provider does not support it")
    dropped = [name for name in _PREFERENCES if getattr(request, name) is not None and name not in supported]
    if "cache_control" not in supported and count_cache_controls(request):
        dropped.append("cache_control")
    return dropped


def portable_blocks(message: Message) -> Iterator[Block]:
    """The blocks of a message that mean the same to every provider.

    Skips reasoning and ProviderBlocks: only the provider that made them accepts them back.
    """
    for block in message.blocks:
        if not isinstance(block, ReasoningBlock | RedactedReasoningBlock | ProviderBlock):
            yield block


def result_text(block: ToolResultBlock) -> str:
    """The text of a tool result, for wires that accept nothing else there.

    Raises:
        UnsupportedContentError: the result has a block that is not text.
    """
    texts = []
    for inner in block.blocks:
        if not isinstance(inner, TextBlock):
            raise unsupported(f"{type(inner).__name__} in a ToolResultBlock", "this provider accepts only text there")
        texts.append(inner.text)
    return "".join(texts)


def error_marked_text(block: ToolResultBlock) -> str:
    """``result_text``, for wires that have no field for an error: the text says it."""
    text = result_text(block)
    return f"Error: {text}" if block.is_error else text


def enforceable(
    schema: dict[str, Any], is_strict: bool, rules: StrictRules, dropped: list[str], field: str
) -> tuple[dict[str, Any], bool]:
    """The schema as the API enforces it, and whether it can.

    It cannot enforce an object with arbitrary keys. Then the ``field`` is dropped, and the schema is only a hint.
    """
    if is_strict:
        try:
            return strict(schema, rules), True
        except OpenSchemaError:
            if field not in dropped:
                dropped.append(field)
    return schema, False


def count_cache_controls(request: ChatRequest) -> int:
    """How many parts of the request have a CacheControl."""
    system = request.system_prompt if isinstance(request.system_prompt, tuple) else ()
    blocks = [block for message in request.messages for block in message.blocks]
    inner = [block for result in blocks if isinstance(result, ToolResultBlock) for block in result.blocks]
    return sum(part.cache_control is not None for parts in (system, request.tools, blocks, inner) for part in parts)


def data_uri(source: Base64Source, media_type: str | None = None) -> str:
    return f"data:{media_type or source.media_type};base64,{source.data}"


def image_type(source: Base64Source) -> str:
    """The media type of an image by its first bytes, or else the given one. Providers refuse a wrong one."""
    try:
        beginning = base64.b64decode(source.data[:16])
    except ValueError:
        return source.media_type
    found = media_type_of_bytes(beginning)
    return found if found is not None and found.startswith("image/") else source.media_type


def json_text(value: Any, field: str) -> str:
    """Compact JSON, as models write it themselves.

    Raises:
        UnsupportedContentError: the value is not JSON: it contains NaN, an unknown type or itself.
    """
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as exc:
        # Without the traceback: the frames of json refer to the whole value, which may be large or private.
        raise unsupported(field, f"it is not JSON ({exc})") from exc.with_traceback(None)
