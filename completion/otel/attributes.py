"""The attributes of spans and metrics, as the conventions name them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from completion.contract.chunks import FinishReason, TurnFinished, Usage
from completion.contract.errors import in_short
from completion.contract.messages import (
    AudioBlock,
    Base64Source,
    Block,
    DocumentBlock,
    FileSource,
    ImageBlock,
    Message,
    ProviderBlock,
    ReasoningBlock,
    Source,
    TextBlock,
    ToolCallBlock,
    ToolResultBlock,
    UrlSource,
)
from completion.contract.request import ChatRequest
from completion.contract.run import RunFinished
from completion.contract.turn import Turn

CAPTURE_CONTENT = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
"""Records contents on spans when it is ``true``, ``span_only`` or ``span_and_event``."""


PROVIDERS = {
    "openai-responses": "openai",
    "azure-openai": "azure.ai.openai",
    "gemini": "gcp.gemini",
    "bedrock": "aws.bedrock",
    "mistral": "mistral_ai",
    "xai": "x_ai",
    "moonshot": "moonshot_ai",
}
"""Our families by the names of the conventions, where the two differ."""


FINISH_REASONS = {
    FinishReason.END_TURN: "stop",
    FinishReason.STOP_SEQUENCE: "stop",
    FinishReason.TOOL_USE: "tool_call",
    FinishReason.MAX_TOKENS: "length",
    FinishReason.CONTEXT_OVERFLOW: "length",
    FinishReason.CONTENT_FILTER: "content_filter",
    FinishReason.REFUSAL: "content_filter",
}


_SAMPLING = ("temperature", "top_p", "top_k", "seed")


_ADDITIONAL = ("frequency_penalty", "presence_penalty")


_PARTS = {
    "cached_input_tokens": ("gen_ai.usage.cache_read.input_tokens",),
    # Its name of today, and the one before it, which is the last that was published in a package.
    "cache_creation_input_tokens": (
        "gen_ai.usage.cache_write.input_tokens",
        "gen_ai.usage.cache_creation.input_tokens",
    ),
    "reasoning_tokens": ("gen_ai.usage.reasoning.output_tokens",),
}


def _asked(request: ChatRequest) -> dict[str, Any]:
    more = request.additional_params or {}
    choices, effort = more.get("n"), request.reasoning_effort
    return _present(
        {
            "gen_ai.request.stream": True,
            "gen_ai.request.max_tokens": request.max_tokens,
            **{f"gen_ai.request.{name}": getattr(request, name) for name in _SAMPLING},
            **{f"gen_ai.request.{name}": _number(more.get(name)) for name in _ADDITIONAL},
            "gen_ai.request.stop_sequences": request.stop_sequences or None,
            "gen_ai.request.reasoning.level": effort if isinstance(effort, str) else None,
            "gen_ai.request.choice.count": _number(choices) if choices != 1 else None,
            "gen_ai.output.type": "json" if request.response_format is not None else None,
        }
    )


def _tokens(usage: Usage | None) -> dict[str, int]:
    if usage is None:
        return {}
    facts = {"gen_ai.usage.input_tokens": usage.input_tokens, "gen_ai.usage.output_tokens": usage.output_tokens}
    return facts | {name: count for part, names in _PARTS.items() if (count := getattr(usage, part)) for name in names}


def _provider(family: str) -> str:
    return PROVIDERS.get(family, family)


def _finish_reason(end: TurnFinished | Turn | RunFinished) -> str:
    return FINISH_REASONS.get(end.reason, str(end.reason)) if end.reason is not None else "error"


def _server(base_url: Callable[[], str | None]) -> dict[str, Any]:
    with suppress(Exception):  # of a model that starts its server for this; it will say so again
        parts = urlsplit(base_url() or "")
        if parts.hostname:
            port = parts.port or (80 if parts.scheme == "http" else 443)
            return {"server.address": parts.hostname, "server.port": port}
    return {}


def _error_type(error: BaseException) -> str:
    kind = type(error)
    is_short = kind.__module__ == "builtins" or kind.__module__.startswith("completion.")
    return kind.__qualname__ if is_short else f"{kind.__module__}.{kind.__qualname__}"


def _in_short(error: BaseException) -> str | None:
    return in_short(error) if isinstance(error, Exception) else None


def _number(value: Any) -> int | float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _present(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {name: fact for name, fact in facts.items() if fact is not None}


def _clean(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Text as an exporter can encode it: with half of a surrogate pair in it, a whole batch of spans would be lost."""
    return {name: _cleaned(fact) if isinstance(fact, str) else fact for name, fact in facts.items()}


def _cleaned(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def _is_content_wanted(given: bool | None) -> bool:
    if given is not None:
        return given
    return os.environ.get(CAPTURE_CONTENT, "").strip().lower() in ("true", "span_only", "span_and_event")


def _said_to(request: ChatRequest) -> dict[str, str]:
    prompt = request.system_prompt or ()
    texts = [prompt] if isinstance(prompt, str) else [block.text for block in prompt]
    facts = {"gen_ai.input.messages": _json([_message(message) for message in request.messages])}
    if texts:
        facts["gen_ai.system_instructions"] = _json([_part(TextBlock(text)) for text in texts])
    return facts


def _message(message: Message, finish_reason: str | None = None) -> dict[str, Any]:
    """{"role": "user", "parts": [{"type": "text", "content": "Hi"}]}"""
    parts = [_part(block) for block in message.blocks]
    return _present({"role": message.role, "parts": parts, "finish_reason": finish_reason})


def _part(block: Block) -> dict[str, Any]:
    match block:
        case TextBlock(text):
            return {"type": "text", "content": text}
        case ReasoningBlock(text):
            return {"type": "reasoning", "content": text}
        case ToolCallBlock(call_id, name, args):
            return {"type": "tool_call", "id": call_id, "name": name, "arguments": args}
        case ToolResultBlock(call_id, blocks):
            return {"type": "tool_call_response", "id": call_id, "response": _response(blocks)}
        case ImageBlock(source) | DocumentBlock(source) | AudioBlock(source):
            return _file(block.type, source)
        case ProviderBlock(provider, data):
            return {"type": "provider", "provider": provider, "data": data}
    return {"type": block.type}  # encrypted


def _response(blocks: Sequence[Block]) -> str | list[dict[str, Any]]:
    if all(isinstance(block, TextBlock) for block in blocks):
        return "".join(block.text for block in blocks if isinstance(block, TextBlock))
    return [_part(block) for block in blocks]


def _file(modality: str, source: Source) -> dict[str, Any]:
    """Without the bytes: a picture is too much for most exporters, and takes the other spans of its batch along."""
    match source:
        case UrlSource(url):
            return {"type": "uri", "modality": modality, "uri": url}
        case FileSource(file_id):
            return {"type": "file", "modality": modality, "file_id": file_id}
        case Base64Source(media_type):
            return {"type": "blob", "modality": modality, "mime_type": media_type, "content": ""}
    return {"type": source.type, "modality": modality}


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)
