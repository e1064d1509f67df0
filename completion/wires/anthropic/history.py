"""Messages -> content blocks of Anthropic Messages."""

from __future__ import annotations

import base64
import re
import zlib
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
from completion.wires.anthropic.names import CALLER, CITATIONS, FAILED, IMAGE_TYPES, MESSAGE, WIRE
from completion.wires.json_values import count, objects, string, without_none
from completion.wires.lowering import unsupported


def cached(block: dict[str, Any], wish: CacheControl | None) -> dict[str, Any]:
    """The block with the wish that the prompt up to it be cached."""
    if wish is None:
        return block
    ttl = {} if wish.ttl == "5m" else {"ttl": wish.ttl}
    return {**block, "cache_control": {"type": "ephemeral", **ttl}}


def messages(request: ChatRequest) -> list[dict[str, Any]]:
    lowered: list[dict[str, Any]] = []
    for sent in request.messages:
        content = _assistant(sent) if sent.role == "assistant" else _parts(sent.blocks)
        if not content:
            continue
        if lowered and lowered[-1]["role"] == sent.role:  # nothing was left of what stood between them
            lowered[-1]["content"] += content
        else:
            lowered.append({"role": sent.role, "content": content})
    if not lowered:
        raise unsupported("messages", "there is nothing in them to send")
    for message in lowered:
        if message["role"] == "user":  # the API wants the results of tools before anything else
            message["content"].sort(key=lambda block: block.get("type") != "tool_result")
    last = lowered[-1]["content"][-1]
    if lowered[-1]["role"] == "assistant" and last.get("type") == "text":  # to be continued; it refuses a space there
        lowered[-1]["content"][-1] = {**last, "text": string(last.get("text")).rstrip()}
    return lowered


def _assistant(message: Message) -> list[dict[str, Any]]:
    """Content blocks as the API gave them out, thinking and signatures included, in the same order."""
    content: list[dict[str, Any]] = []
    for block in message.blocks:
        match block:
            case TextBlock(text=text):
                if text.strip():  # the API refuses white space alone
                    content.append(cached({"type": "text", "text": text}, block.cache_control))
            case ReasoningBlock(text=text, signature=signature):
                if signature:  # it takes none back that it did not sign
                    content.append({"type": "thinking", "thinking": text, "signature": signature})
            case RedactedReasoningBlock(data=data):
                content.append({"type": "redacted_thinking", "data": data})
            case ToolCallBlock(call_id=call_id, name=name, args=args):
                call = {"type": "tool_use", "id": _call_id(call_id), "name": name, "input": args}
                content.append(cached(call, block.cache_control))
            case ProviderBlock(provider=provider, data=own):
                if provider == WIRE:
                    _put_back(own, content, block.cache_control)
            case _:
                raise unsupported(type(block).__name__, "it cannot stand in an assistant message")
    return content


def _put_back(own: dict[str, Any], content: list[dict[str, Any]], wish: CacheControl | None) -> None:
    """A block of this wire, verbatim; what we made of a part of one goes back to its place."""
    kind = own.get("type")
    if kind == CITATIONS:
        if content and content[-1].get("type") == "text":
            content[-1:] = _cited(content[-1], own)
    elif kind == CALLER:
        beside = {name: value for name, value in own.items() if name not in ("type", "tool_use_id")}
        for n, block in enumerate(content):
            if block.get("type") == "tool_use" and block.get("id") == _call_id(string(own.get("tool_use_id"))):
                content[n] = {**block, **beside}
    elif kind != MESSAGE and isinstance(own.get("input", {}), dict):  # a server's call that was cut off has a text
        content.append(cached(own, wish))


def _cited(block: dict[str, Any], own: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The end of the text with its citations, and before it the rest, which has none."""
    text, length = string(block.get("text")), count(own, "length")
    if not length:  # they came with no text at all
        yield block
        return
    before = text[:-length]
    if before.strip() and "citations" not in block:
        yield {"type": "text", "text": before}
        block = {**block, "text": text[-length:]}
    yield {**block, "citations": [*block.get("citations", ()), *objects(own.get("citations"))]}


def container_id(messages: Sequence[Message]) -> str | None:
    """The container that the last answer ran code in: its calls cannot be answered without."""
    last = next((message for message in reversed(messages) if message.role == "assistant"), None)
    for block in last.blocks if last else ():
        if isinstance(block, ProviderBlock) and block.provider == WIRE and block.data.get("type") == MESSAGE:
            container = block.data.get("container")
            return string(container.get("id")) or None if isinstance(container, dict) else None
    return None


def _tool_result(result: ToolResultBlock) -> dict[str, Any]:
    if any(isinstance(block, ToolResultBlock) for block in result.blocks):
        raise unsupported("ToolResultBlock", "it cannot stand in another")
    fields: dict[str, Any] = {
        "type": "tool_result",
        "tool_use_id": _call_id(result.call_id),
        "content": _parts(result.blocks) or ([{"type": "text", "text": FAILED}] if result.is_error else None),
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
        case ImageBlock(source=Base64Source(media_type=media_type, data=data)):
            if media_type not in IMAGE_TYPES:
                raise unsupported("ImageBlock", f"{media_type} is none of {', '.join(IMAGE_TYPES)}")
            return {"type": "image", "source": {"type": "base64", "media_type": media_type, "data": data}}
        case ImageBlock(source=UrlSource() | FileSource() as source):
            return {"type": "image", "source": _elsewhere(source)}
        case DocumentBlock(source=source, name=name):
            lowered = _text_or_pdf(source) if isinstance(source, Base64Source) else _elsewhere(source)
            return {"type": "document", "source": lowered, **({"title": name} if name else {})}
        case ProviderBlock(provider=provider, data=own):
            return own if provider == WIRE else None
        case ToolResultBlock():
            return _tool_result(block)
        case _:
            raise unsupported(type(block).__name__, "it cannot stand in a user message of this wire")


def _elsewhere(source: Any) -> dict[str, Any]:
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


def _call_id(call_id: str) -> str:
    """The id in the characters that the API takes; other providers use more."""
    legal = re.sub(r"[^a-zA-Z0-9_-]", "_", call_id)
    return legal if legal == call_id and legal else f"{legal}_{zlib.crc32(call_id.encode('utf-8', 'replace')):08x}"
