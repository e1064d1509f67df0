"""The attributes of spans and metrics: our types -> the names and values of the conventions.

Attributes of requests, usage and errors first; then contents (messages, tool calls), in the JSON of the conventions.
An attribute without a known value is left out.
"""

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
"""Contents are recorded on spans when it is ``true``, ``span_only`` or ``span_and_event``."""

_PROVIDER_NAMES = {
    "openai-responses": "openai",
    "anthropic-foundry": "anthropic",
    "anthropic-mantle": "aws.bedrock",
    "anthropic-vertex": "gcp.vertex_ai",
    "azure-openai": "azure.ai.openai",
    "gemini": "gcp.gemini",
    "gemini-interactions": "gcp.gemini",
    "bedrock": "aws.bedrock",
    "anthropic-bedrock": "aws.bedrock",
    "mistral": "mistral_ai",
    "xai": "x_ai",
    "moonshot": "moonshot_ai",
}
"""The families that have another name in the conventions."""

_FINISH_REASONS = {
    FinishReason.END_TURN: "stop",
    FinishReason.STOP_SEQUENCE: "stop",
    FinishReason.TOOL_USE: "tool_call",
    FinishReason.MAX_TOKENS: "length",
    FinishReason.CONTEXT_OVERFLOW: "length",
    FinishReason.CONTENT_FILTER: "content_filter",
    FinishReason.REFUSAL: "content_filter",
}

_SAMPLING_FIELDS = ("temperature", "top_p", "top_k", "seed")
_PENALTY_PARAMS = ("frequency_penalty", "presence_penalty")
"""ChatRequest has no fields for them: they are read from ``additional_params``. Most providers use these names."""

_USAGE_PARTS = {
    "cached_input_tokens": ("gen_ai.usage.cache_read.input_tokens",),
    # The conventions renamed it. Their last published package still has the second name.
    "cache_creation_input_tokens": (
        "gen_ai.usage.cache_write.input_tokens",
        "gen_ai.usage.cache_creation.input_tokens",
    ),
    "reasoning_tokens": ("gen_ai.usage.reasoning.output_tokens",),
}


# --- requests, usage, errors -------------------------------------------------------------------------------------


def provider_name(family: str) -> str:
    return _PROVIDER_NAMES.get(family, family)


def server_attributes(base_url: Callable[[], str | None]) -> dict[str, Any]:
    """Host and port of the server; empty for a model without a base URL."""
    # An embedded model starts its server when its base URL is read. If that fails, the call raises the same error.
    with suppress(Exception):
        parts = urlsplit(base_url() or "")
        if parts.hostname:
            port = parts.port or (80 if parts.scheme == "http" else 443)
            return {"server.address": parts.hostname, "server.port": port}
    return {}


def request_attributes(request: ChatRequest) -> dict[str, Any]:
    """The fields of the request, without its contents."""
    params = request.additional_params or {}
    choices, effort = params.get("n"), request.reasoning_effort
    return without_none(
        {
            "gen_ai.request.stream": True,
            "gen_ai.request.max_tokens": request.max_tokens,
            **{f"gen_ai.request.{name}": getattr(request, name) for name in _SAMPLING_FIELDS},
            **{f"gen_ai.request.{name}": _number(params.get(name)) for name in _PENALTY_PARAMS},
            "gen_ai.request.stop_sequences": request.stop_sequences or None,
            "gen_ai.request.reasoning.level": effort if isinstance(effort, str) else None,
            # The conventions record the number of choices only if it is not 1.
            "gen_ai.request.choice.count": _number(choices) if choices != 1 else None,
            "gen_ai.output.type": "json" if request.response_format is not None else None,
        }
    )


def _number(value: Any) -> int | float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def without_none(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in attributes.items() if value is not None}


def usage_attributes(usage: Usage | None) -> dict[str, int]:
    if usage is None:
        return {}
    totals = {"gen_ai.usage.input_tokens": usage.input_tokens, "gen_ai.usage.output_tokens": usage.output_tokens}
    parts = {name: getattr(usage, part) for part, names in _USAGE_PARTS.items() for name in names}
    return totals | {name: count for name, count in parts.items() if count}


def finish_reason(end: TurnFinished | Turn | RunFinished) -> str:
    return _FINISH_REASONS.get(end.reason, str(end.reason)) if end.reason is not None else "error"


def error_type(error: BaseException) -> str:
    """The class name; for a class of another package, with its module: ``json.decoder.JSONDecodeError``."""
    kind = type(error)
    is_known = kind.__module__ == "builtins" or kind.__module__.startswith("completion.")
    return kind.__qualname__ if is_known else f"{kind.__module__}.{kind.__qualname__}"


def error_description(error: BaseException) -> str | None:
    """Class, status and code. Not the message: it may quote the prompt."""
    return in_short(error) if isinstance(error, Exception) else None


# --- contents ----------------------------------------------------------------------------------------------------


def captures_content(capture_content: bool | None) -> bool:
    """Whether contents are recorded; None leaves it to the environment."""
    if capture_content is not None:
        return capture_content
    return os.environ.get(CAPTURE_CONTENT, "").strip().lower() in ("true", "span_only", "span_and_event")


def input_attributes(request: ChatRequest) -> dict[str, str]:
    """The messages and the system prompt of the request."""
    prompt = request.system_prompt or ()
    texts = [prompt] if isinstance(prompt, str) else [block.text for block in prompt]
    attributes = {"gen_ai.input.messages": as_json([_message(message) for message in request.messages])}
    if texts:
        attributes["gen_ai.system_instructions"] = as_json([_part(TextBlock(text)) for text in texts])
    return attributes


def output_attributes(message: Message, reason: str) -> dict[str, str]:
    """The message of the model, with the finish reason in the words of the conventions."""
    return {"gen_ai.output.messages": as_json([_message(message, reason)])}


def tool_result_attributes(blocks: Sequence[Block]) -> dict[str, str]:
    """The result of a tool call: text as it is, other blocks as JSON."""
    response = _tool_response(blocks)
    return {"gen_ai.tool.call.result": response if isinstance(response, str) else as_json(response)}


def _message(message: Message, reason: str | None = None) -> dict[str, Any]:
    """{"role": "user", "parts": [{"type": "text", "content": "Hi"}]}"""
    parts = [_part(block) for block in message.blocks]
    return without_none({"role": message.role, "parts": parts, "finish_reason": reason})


def _part(block: Block) -> dict[str, Any]:
    match block:
        case TextBlock(text):
            return {"type": "text", "content": text}
        case ReasoningBlock(text):
            return {"type": "reasoning", "content": text}
        case ToolCallBlock(call_id, name, args):
            return {"type": "tool_call", "id": call_id, "name": name, "arguments": args}
        case ToolResultBlock(call_id, blocks):
            return {"type": "tool_call_response", "id": call_id, "response": _tool_response(blocks)}
        case ImageBlock(source) | DocumentBlock(source) | AudioBlock(source):
            return _file(block.type, source)
        case ProviderBlock(provider, data):
            return {"type": "provider", "provider": provider, "data": data}
    return {"type": block.type}  # reasoning that the provider has encrypted


def _tool_response(blocks: Sequence[Block]) -> str | list[dict[str, Any]]:
    if all(isinstance(block, TextBlock) for block in blocks):
        return "".join(block.text for block in blocks if isinstance(block, TextBlock))
    return [_part(block) for block in blocks]


def _file(modality: str, source: Source) -> dict[str, Any]:
    """A file without its bytes: most exporters refuse such a large value, and drop the whole batch of spans with it."""
    match source:
        case UrlSource(url):
            return {"type": "uri", "modality": modality, "uri": url}
        case FileSource(file_id):
            return {"type": "file", "modality": modality, "file_id": file_id}
        case Base64Source(media_type):
            return {"type": "blob", "modality": modality, "mime_type": media_type, "content": ""}
    return {"type": source.type, "modality": modality}


def as_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


# --- what exporters can encode -----------------------------------------------------------------------------------


def encodable(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes with ``?`` in place of lone surrogates: one of these makes an exporter drop its batch of spans."""
    return {name: encodable_text(value) if isinstance(value, str) else value for name, value in attributes.items()}


def encodable_text(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
