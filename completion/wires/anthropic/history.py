"""Messages -> content blocks of Anthropic Messages."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from completion.contract.messages import (
    Base64Source,
    Block,
    CacheControl,
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
from completion.contract.request import ChatRequest
from completion.wires.anthropic.names import CALLER, CITATIONS, EMPTY_ERROR, IMAGE_TYPES, MESSAGE, WIRE
from completion.wires.history import CallIds, HistoryRules
from completion.wires.json_values import objects_in, positive_int, str_or_empty, without_none
from completion.wires.lowering import image_type, unsupported


def cached(block: dict[str, Any], control: CacheControl | None) -> dict[str, Any]:
    """The block, with ``cache_control`` if the API is to cache the prompt up to it."""
    if control is None:
        return block
    ttl = {} if control.ttl == "5m" else {"ttl": control.ttl}
    return {**block, "cache_control": {"type": "ephemeral", **ttl}}


def history_rules(dialect: Any) -> HistoryRules:
    return HistoryRules(
        call_ids=CallIds(illegal=re.compile(r"[^a-zA-Z0-9_-]")),
        max_name_length=128,
        result_blocks=(TextBlock, ImageBlock, DocumentBlock, ProviderBlock),
        error_blocks=(TextBlock,),  # the API refuses an image in a failed result
        fills_message=_fills_message,
        begins_with_user=True,
        provider_call=_unmodelled_call,
    )


def _unmodelled_call(data: dict[str, Any]) -> Any:
    return data.get("id") if data.get("type") == "tool_use" else None


def _fills_message(block: Block) -> bool:
    match block:
        case TextBlock(text=text):
            return bool(text.strip())  # the API refuses blank texts
        case ReasoningBlock(signature=signature):
            return bool(signature)
        case ProviderBlock(data=own):
            return own.get("type") not in (CITATIONS, CALLER, MESSAGE)
    return True


def messages(request: ChatRequest) -> list[dict[str, Any]]:
    lowered: list[dict[str, Any]] = []
    for message in request.messages:
        is_last = message is request.messages[-1]
        content = _parts(message.blocks) if message.role == "user" else _assistant(message, is_last=is_last)
        if not content:
            continue
        if lowered and lowered[-1]["role"] == message.role:  # the message between them had nothing to send
            lowered[-1]["content"] += content
        else:
            lowered.append({"role": message.role, "content": content})
    if not lowered:
        raise unsupported("messages", "they contain nothing to send")
    for lowered_message in lowered:
        if lowered_message["role"] == "user":  # the API requires tool results before other blocks
            lowered_message["content"].sort(key=lambda block: block.get("type") != "tool_result")
    last = lowered[-1]["content"][-1]
    # The model continues a last message of its own. The API refuses white space at its end.
    if lowered[-1]["role"] == "assistant" and last.get("type") == "text":
        lowered[-1]["content"][-1] = {**last, "text": str_or_empty(last.get("text")).rstrip()}
    return lowered


def _assistant(message: Message, *, is_last: bool) -> list[dict[str, Any]]:
    """The content blocks as the API sent them, with thinking and signatures, in the same order."""
    content: list[dict[str, Any]] = []
    for block in message.blocks:
        match block:
            case TextBlock(text=text):
                if text.strip():  # the API refuses blank texts
                    content.append(cached({"type": "text", "text": text}, block.cache_control))
            case ReasoningBlock(text=text, signature=signature):
                if signature:  # the API refuses thinking that it did not sign
                    content.append({"type": "thinking", "thinking": text, "signature": signature})
            case RedactedReasoningBlock(data=data):
                content.append({"type": "redacted_thinking", "data": data})
            case ToolCallBlock(call_id=call_id, name=name, args=args):
                call = {"type": "tool_use", "id": call_id, "name": name, "input": args}
                content.append(cached(call, block.cache_control))
            case ProviderBlock(data=own):
                _put_back(own, content, block.cache_control)
            case _:
                raise unsupported(type(block).__name__, "an assistant message cannot contain it")
    return content if is_last else _without_unanswered(content)


def _without_unanswered(content: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The blocks without server-side calls that have no result, as after ``pause_turn``.

    If the message is the last one, the API runs them. In front of a message of the user it refuses them, unless they
    wait for client-side calls: code that runs on the server may call tools of the client.
    """
    if any(block.get("type") == "tool_use" for block in content):
        return content
    answered = {block.get("tool_use_id") for block in content}
    return [
        block
        for block in content
        if block.get("type") not in ("server_tool_use", "mcp_tool_use") or block.get("id") in answered
    ]


def _put_back(own: dict[str, Any], content: list[dict[str, Any]], control: CacheControl | None) -> None:
    """Add a provider block of this wire unchanged. One that we made ourselves is merged into the block it came from."""
    kind = own.get("type")
    if kind == CITATIONS:
        if content and content[-1].get("type") == "text":
            content[-1:] = _cited(content[-1], own)
    elif kind == CALLER:
        extra_fields = {name: value for name, value in own.items() if name not in ("type", "tool_use_id")}
        for n, block in enumerate(content):
            if block.get("type") == "tool_use" and block.get("id") == own.get("tool_use_id"):
                content[n] = {**block, **extra_fields}
    # The input of a server-side tool call that was cut off is a text. The API refuses that.
    elif kind != MESSAGE and isinstance(own.get("input", {}), dict):
        content.append(cached(own, control))


def _cited(block: dict[str, Any], own: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The text block with its citations. If they belong only to its end, the text before that is a block of its own."""
    text, length = str_or_empty(block.get("text")), positive_int(own, "length")
    if not length:  # citations without text
        yield block
        return
    before = text[:-length]
    if before.strip() and "citations" not in block:
        yield {"type": "text", "text": before}
        block = {**block, "text": text[-length:]}
    yield {**block, "citations": [*block.get("citations", ()), *objects_in(own.get("citations"))]}


def container_id(messages: Sequence[Message]) -> str | None:
    """The container in which the last answer ran code. Its tool calls cannot be answered without it."""
    last = next((message for message in reversed(messages) if message.role == "assistant"), None)
    for block in last.blocks if last else ():
        if isinstance(block, ProviderBlock) and block.provider == WIRE and block.data.get("type") == MESSAGE:
            container = block.data.get("container")
            return str_or_empty(container.get("id")) or None if isinstance(container, dict) else None
    return None


def _tool_result(result: ToolResultBlock) -> dict[str, Any]:
    if any(isinstance(block, ToolResultBlock) for block in result.blocks):
        raise unsupported("ToolResultBlock", "a ToolResultBlock cannot contain it")
    fields: dict[str, Any] = {
        "type": "tool_result",
        "tool_use_id": result.call_id,
        "content": _parts(result.blocks) or ([{"type": "text", "text": EMPTY_ERROR}] if result.is_error else None),
        "is_error": result.is_error or None,
    }
    return without_none(fields)


def _parts(blocks: Iterable[Block]) -> list[dict[str, Any]]:
    return [
        cached(part, block.cache_control)
        for block in blocks
        if (part := _part(block)) is not None
    ]  # fmt: skip


def _part(block: Block) -> dict[str, Any] | None:
    match block:
        case TextBlock(text=text):
            return {"type": "text", "text": text} if text.strip() else None
        case ImageBlock(source=Base64Source(data=data) as source):
            media_type = image_type(source)
            if media_type not in IMAGE_TYPES:
                raise unsupported("ImageBlock", f"{media_type} is not one of {', '.join(IMAGE_TYPES)}")
            return {"type": "image", "source": {"type": "base64", "media_type": media_type, "data": data}}
        case ImageBlock(source=UrlSource() | FileSource() as source):
            return {"type": "image", "source": _url_or_file(source)}
        case DocumentBlock(source=source, name=name):
            lowered = _text_or_pdf(source) if isinstance(source, Base64Source) else _url_or_file(source)
            return {"type": "document", "source": lowered, **({"title": name} if name else {})}
        case ProviderBlock(provider=provider, data=own):
            return own if provider == WIRE else None
        case ToolResultBlock():
            return _tool_result(block)
        case _:
            raise unsupported(type(block).__name__, "a user message cannot contain it")


def _url_or_file(source: Any) -> dict[str, Any]:
    if isinstance(source, UrlSource):
        return {"type": "url", "url": source.url}
    return {"type": "file", "file_id": source.file_id}


def _text_or_pdf(source: Base64Source) -> dict[str, Any]:
    if source.media_type == "application/pdf":
        return {"type": "base64", "media_type": source.media_type, "data": source.data}
    if not source.media_type.startswith("text/"):
        raise unsupported("DocumentBlock", f"{source.media_type} is neither application/pdf nor text")
    try:
        text = base64.b64decode(source.data).decode()
    except UnicodeDecodeError:
        raise unsupported("DocumentBlock", f"its {source.media_type} is not UTF-8") from None
    return {"type": "text", "media_type": "text/plain", "data": text}
