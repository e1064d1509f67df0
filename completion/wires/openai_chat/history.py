"""Messages -> messages of Chat Completions, and what the wire accepts in a history."""

from __future__ import annotations

import re
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
from completion.contract.request import ChatRequest, system_text
from completion.wires.history import CallIds, HistoryRules
from completion.wires.lowering import data_uri, error_marked_text, image_type, json_text, merged, unsupported
from completion.wires.openai_chat.dialect import ChatDialect
from completion.wires.openai_chat.names import AUDIO_FORMATS, BETWEEN, WIRE
from completion.wires.openai_chat.reasoning import CONTENT, reasoning_fields

# OpenAI accepts 40 characters. LiteLLM appends Gemini's signature to the id, so that id must go back unchanged.
_IDS = CallIds(max_length=40, keep=re.compile("__thought__"))
_NINE = CallIds(illegal=re.compile("[^a-zA-Z0-9]"), exact_length=9)  # Mistral: error 3280


def history_rules(dialect: ChatDialect | None) -> HistoryRules:
    ids = _NINE if dialect and dialect.call_id_style == "nine" else _IDS
    if dialect and not dialect.supports_provider_blocks:
        return HistoryRules(call_ids=ids, fills_message=_is_plain)
    return HistoryRules(call_ids=ids, fills_message=_fills_message, provider_call=_custom_call)


def _custom_call(data: dict[str, Any]) -> Any:
    return data.get("id") if "custom" in data else None


def _is_plain(block: Block) -> bool:
    return not isinstance(block, ReasoningBlock | RedactedReasoningBlock | ProviderBlock)


def _fills_message(block: Block) -> bool:
    if isinstance(block, ProviderBlock):
        return _field_of(block.data) in ("tool_calls", "images")
    return _is_plain(block)


def messages(request: ChatRequest, dialect: ChatDialect) -> list[dict[str, Any]]:
    system = system_text(request)
    lowered: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []
    for message in request.messages:
        if message.role == "assistant":
            lowered.extend(_assistant(message, dialect))
        else:
            lowered.extend(_user(message))
    if dialect.needs_answer_after_results:
        lowered = list(_with_answers(lowered))
    if dialect.needs_prefix and lowered and lowered[-1]["role"] == "assistant":
        lowered[-1]["prefix"] = True
    if not any(message["role"] != "system" for message in lowered):
        raise unsupported("messages", "they contain nothing to send")
    return lowered


def _with_answers(lowered: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The messages, with one of the assistant between tool results and the user."""
    for before, message in zip([None, *lowered], lowered, strict=False):
        if before is not None and (before["role"], message["role"]) == ("tool", "user"):
            yield {"role": "assistant", "content": BETWEEN}
        yield message


def _assistant(message: Message, dialect: ChatDialect) -> Iterator[dict[str, Any]]:
    """One message, or none if the message has nothing but reasoning."""
    texts: list[str] = []
    lists: dict[str, list[Any]] = {"tool_calls": [], "annotations": [], "images": []}
    for block in message.blocks:
        match block:
            case TextBlock(text=text):
                texts.append(text)
            case ToolCallBlock():
                lists["tool_calls"].append(_tool_call(block))
            case ProviderBlock(data=own):
                field = _field_of(own)
                if field is not None and dialect.supports_provider_blocks:
                    lists[field].append(own)
            case ReasoningBlock() | RedactedReasoningBlock():
                pass
            case _:
                raise unsupported(type(block).__name__, "an assistant message cannot contain it")
    filled = {name: items for name, items in lists.items() if items}
    if not (texts or "tool_calls" in filled or "images" in filled):
        return
    has_calls = "tool_calls" in filled
    reasoning = reasoning_fields(message.blocks, dialect.reasoning_back, has_calls=has_calls)
    content: Any = "".join(texts) if texts else None
    thought = reasoning.pop(CONTENT, None)
    if thought:  # Mistral: its reasoning is a part of the content
        content = [{"type": "thinking", "thinking": [{"type": "text", "text": thought}]}]
        content += [{"type": "text", "text": text} for text in texts]
    yield {"role": "assistant", "content": content, **filled, **reasoning}


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
    if block.wire_data:  # a gateway in front of Gemini: the signature goes back in the field in which it came
        call = merged(call, block.wire_data)
    elif block.signature is not None:  # Gemini's compatible endpoint signs calls and requires it back
        call["extra_content"] = {"google": {"thought_signature": block.signature}}
    return call


def _user(message: Message) -> Iterator[dict[str, Any]]:
    """A message for each tool result, and user messages for the other blocks, in the same order."""
    between: list[Block] = []
    for block in message.blocks:
        if isinstance(block, ToolResultBlock):
            yield from _user_parts(between)
            between = []
            yield {"role": "tool", "tool_call_id": block.call_id, "content": error_marked_text(block)}
        else:
            between.append(block)
    yield from _user_parts(between)


def _user_parts(blocks: Sequence[Block]) -> Iterator[dict[str, Any]]:
    parts = [part for block in blocks for part in _part(block)]
    if parts and all(part.keys() == {"type", "text"} for part in parts):
        # Some servers, such as DeepSeek's, accept a string only.
        yield {"role": "user", "content": "\n\n".join(part["text"] for part in parts)}
    elif parts:
        yield {"role": "user", "content": parts}


def _part(block: Block) -> Iterator[dict[str, Any]]:
    match block:
        case TextBlock(text=text):
            yield {"type": "text", "text": text}
        case ImageBlock(source=Base64Source() as source):
            yield {"type": "image_url", "image_url": {"url": data_uri(source, image_type(source))}}
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
            if provider.partition("@")[0] == WIRE:
                yield own
        case ImageBlock() | DocumentBlock() | AudioBlock():
            kind, source_kind = type(block).__name__, type(block.source).__name__
            raise unsupported(kind, f"Chat Completions does not support {source_kind} for it")
        case _:
            raise unsupported(type(block).__name__, "a user message cannot contain it")
