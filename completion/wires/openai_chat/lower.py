"""ChatRequest -> the JSON body of Chat Completions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

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
    RedactedReasoningBlock,
    TextBlock,
    ToolCallBlock,
    ToolResultBlock,
    UrlSource,
)
from completion.contract.request import (
    ChatRequest,
    JsonSchema,
    ToolChoice,
    ToolDefinition,
    system_text,
)
from completion.wires.json_values import without_none
from completion.wires.lowering import count_cache_controls, data_uri, effort_word, json_text, result_text, unsupported
from completion.wires.openai_chat.dialect import OPENAI, ChatDialect
from completion.wires.openai_chat.names import AUDIO_FORMATS, TOOL_CHOICES, WIRE
from completion.wires.wire import Lowered


def lower(request: ChatRequest, model: str, dialect: ChatDialect = OPENAI) -> Lowered:
    """The JSON body, and the names of the request fields that were dropped because the API does not support them.

    Raises:
        UnsupportedContentError: the API does not support a part of the request that would change the answer.
    """
    dropped = ["cache_control"] if count_cache_controls(request) else []
    body: dict[str, Any] = {
        "model": model,
        "messages": _messages(request),
        "stream": True,
        dialect.token_field: request.max_tokens,
    }
    if dialect.supports_stream_options:
        body["stream_options"] = {"include_usage": True}
    has_tools = bool(request.tools or (request.additional_params or {}).get("tools"))
    optional = {
        "temperature": request.temperature,
        "top_p": request.top_p,
        "seed": request.seed,
        "stop": list(request.stop_sequences) or None,
        "tools": [_tool(tool) for tool in request.tools] or None,
        "tool_choice": _tool_choice(request.tool_choice, has_tools),
        "parallel_tool_calls": request.parallel_tool_use if has_tools else None,
        "reasoning_effort": _reasoning_effort(request.reasoning_effort),
        "response_format": _response_format(request.response_format),
    }
    if request.top_k is not None:
        if dialect.supports_top_k:
            optional["top_k"] = request.top_k
        else:
            dropped.append("top_k")
    return {**body, **without_none(optional)}, dropped


def _messages(request: ChatRequest) -> list[dict[str, Any]]:
    system = system_text(request)
    lowered = [{"role": "system", "content": system}] if system else []
    for message in request.messages:
        if message.role == "assistant":
            lowered.extend(_assistant(message))
        else:
            lowered.extend(_user(message))
    if not any(message["role"] != "system" for message in lowered):
        raise unsupported("messages", "they contain nothing to send")
    return lowered


def _assistant(message: Message) -> Iterator[dict[str, Any]]:
    """One message, or none if the message has only reasoning, which the API does not accept back."""
    texts: list[str] = []
    lists: dict[str, list[Any]] = {"tool_calls": [], "annotations": [], "images": []}
    for block in message.blocks:
        match block:
            case TextBlock(text=text):
                texts.append(text)
            case ToolCallBlock():
                lists["tool_calls"].append(_tool_call(block))
            case ProviderBlock(provider=provider, data=own):
                field = _field_of(own) if provider == WIRE else None
                if field is not None:
                    lists[field].append(own)
            case ReasoningBlock() | RedactedReasoningBlock():
                pass
            case _:
                raise unsupported(type(block).__name__, "an assistant message cannot contain it")
    filled = {name: items for name, items in lists.items() if items}
    if texts or "tool_calls" in filled or "images" in filled:
        yield {"role": "assistant", "content": "".join(texts) if texts else None, **filled}


def _field_of(own: dict[str, Any]) -> str | None:
    """The field of a message that a provider block of this wire came from; None for blocks that are not sent back."""
    kind = str(own.get("type", ""))
    if "custom" in own:
        return "tool_calls"
    if kind == "image_url":
        return "images"
    return "annotations" if kind == "file" or kind.endswith("citation") else None


def _tool_call(block: ToolCallBlock) -> dict[str, Any]:
    function = {"name": block.name, "arguments": json_text(block.args, "ToolCallBlock.args")}
    call: dict[str, Any] = {"id": block.call_id, "type": "function", "function": function}
    if block.signature is not None:  # Gemini's compatible endpoint signs calls and requires it back
        call["extra_content"] = {"google": {"thought_signature": block.signature}}
    return call


def _user(message: Message) -> Iterator[dict[str, Any]]:
    """A message for each tool result, and user messages for the other blocks, in the same order."""
    between: list[Block] = []
    for block in message.blocks:
        if isinstance(block, ToolResultBlock):
            yield from _user_parts(between)
            between = []
            yield {"role": "tool", "tool_call_id": block.call_id, "content": _result_text(block)}
        else:
            between.append(block)
    yield from _user_parts(between)


def _user_parts(blocks: Sequence[Block]) -> Iterator[dict[str, Any]]:
    parts = [part for block in blocks for part in _part(block)]
    if len(parts) == 1 and parts[0].keys() == {"type", "text"}:
        yield {"role": "user", "content": parts[0]["text"]}
    elif parts:
        yield {"role": "user", "content": parts}


def _part(block: Block) -> Iterator[dict[str, Any]]:
    match block:
        case TextBlock(text=text):
            yield {"type": "text", "text": text}
        case ImageBlock(source=Base64Source() as source):
            yield {"type": "image_url", "image_url": {"url": data_uri(source)}}
        case ImageBlock(source=UrlSource(url=url)):
            yield {"type": "image_url", "image_url": {"url": url}}
        case DocumentBlock(source=Base64Source() as source, name=name):
            yield {"type": "file", "file": {"filename": name or "document", "file_data": data_uri(source)}}
        case DocumentBlock(source=FileSource(file_id=file_id)):
            yield {"type": "file", "file": {"file_id": file_id}}
        case AudioBlock(source=Base64Source(media_type=media_type, data=data)):
            if media_type not in AUDIO_FORMATS:
                raise unsupported("AudioBlock", f"{media_type} is not one of {', '.join(sorted(AUDIO_FORMATS))}")
            yield {"type": "input_audio", "input_audio": {"data": data, "format": AUDIO_FORMATS[media_type]}}
        case ProviderBlock(provider=provider, data=own):
            if provider == WIRE:
                yield own
        case ImageBlock() | DocumentBlock() | AudioBlock():
            kind, source_kind = type(block).__name__, type(block.source).__name__
            raise unsupported(kind, f"Chat Completions does not support {source_kind} for it")
        case _:
            raise unsupported(type(block).__name__, "a user message cannot contain it")


def _result_text(block: ToolResultBlock) -> str:
    text = result_text(block)
    # A tool message has no field for a failed call.
    return f"Error: {text}" if block.is_error else text


def _tool(tool: ToolDefinition) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name, "description": tool.description, "parameters": tool.input_schema}
    if tool.strict is not None:
        function["strict"] = tool.strict
    return {"type": "function", "function": function}


def _tool_choice(choice: ToolChoice | None, has_tools: bool) -> Any:
    if choice is None or (not has_tools and choice.kind in ("auto", "none")):
        return None
    if choice.kind == "tool":
        return {"type": "function", "function": {"name": choice.name}}
    return TOOL_CHOICES[choice.kind]


def _reasoning_effort(effort: str | int | None) -> str | None:
    if effort is None or isinstance(effort, str):
        return effort
    return effort_word(effort)


def _response_format(wanted: JsonSchema | str | None) -> dict[str, Any] | None:
    if wanted is None:
        return None
    if isinstance(wanted, JsonSchema):
        schema = {"name": wanted.name, "schema": wanted.schema, "strict": wanted.strict}
        return {"type": "json_schema", "json_schema": schema}
    return {"type": "json_object"}
