"""Messages -> messages and documents of Cohere's chat, and the rules for a history."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

from completion.contract.messages import (
    Base64Source,
    Block,
    DocumentBlock,
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
from completion.wires.cohere.names import CITATIONS, SEE_DOCUMENTS, THINKING, TOOL_PLAN
from completion.wires.history import HistoryRules
from completion.wires.json_values import objects_in, str_or_empty, without_none
from completion.wires.lowering import data_uri, error_marked_text, image_type, json_text, unsupported


def history_rules(dialect: Any) -> HistoryRules:
    return HistoryRules(fills_message=_fills_message)


def _fills_message(block: Block) -> bool:
    # Citations belong to a text, and a plan to calls.
    return not isinstance(block, ReasoningBlock | RedactedReasoningBlock | ProviderBlock)


def messages(request: ChatRequest) -> list[dict[str, Any]]:
    system = system_text(request)
    lowered = [{"role": "system", "content": system}] if system.strip() else []
    for message in request.messages:
        if message.role == "assistant":
            lowered.append(_assistant(message))
        else:
            lowered.extend(_user(message))
    if not any(message["role"] != "system" for message in lowered):
        raise unsupported("messages", "they contain nothing to send")
    return lowered


def documents(request: ChatRequest) -> list[dict[str, Any]]:
    """The documents of all user messages: Cohere has one list of them for the whole request."""
    found: list[dict[str, Any]] = []
    for message in request.messages:
        for block in message.blocks:
            if isinstance(block, DocumentBlock) and message.role == "user":
                data = without_none({"title": block.name, "text": _document_text(block)})
                found.append({"id": f"doc_{len(found)}", "data": data})
    return found


def _document_text(block: DocumentBlock) -> str:
    source = block.source
    if not isinstance(source, Base64Source):
        raise unsupported("DocumentBlock", f"Cohere does not support {type(source).__name__} for it")
    if not source.media_type.startswith("text/") and source.media_type != "application/json":
        raise unsupported("DocumentBlock", f"Cohere reads text only, got {source.media_type}")
    return base64.b64decode(source.data).decode("utf-8", "replace")


def _assistant(message: Message) -> dict[str, Any]:
    content: list[dict[str, Any]] = []
    calls: list[dict[str, Any]] = []
    citations: list[dict[str, Any]] = []
    plan = ""
    for block in message.blocks:
        match block:
            case TextBlock(text=text):
                _add_content(content, "text", text)
            case ReasoningBlock(text=text, wire_data=wire_data):
                if text and (wire_data or {}).get("type") == THINKING["type"]:
                    _add_content(content, "thinking", text)
            case RedactedReasoningBlock():
                pass
            case ToolCallBlock(call_id=call_id, name=name, args=args):
                function = {"name": name, "arguments": json_text(args, "ToolCallBlock.args")}
                calls.append({"id": call_id, "type": "function", "function": function})
            case ProviderBlock(data=own):
                plan += str_or_empty(own.get("tool_plan")) if own.get("type") == TOOL_PLAN else ""
                citations += objects_in(own.get("citations")) if own.get("type") == CITATIONS else []
            case _:
                raise unsupported(type(block).__name__, "an assistant message cannot contain it")
    has_text = any(part["type"] == "text" for part in content)
    lowered = {
        "role": "assistant",
        "tool_plan": plan if plan and calls else None,
        "content": content or None,
        "tool_calls": calls or None,
        "citations": citations if citations and has_text else None,
    }
    return without_none(lowered)


def _add_content(content: list[dict[str, Any]], kind: str, text: str) -> None:
    """Add text or thinking. Join texts in a row, because citations count from the beginning of the text."""
    if content and content[-1]["type"] == kind:
        content[-1][kind] += text
    else:
        content.append({"type": kind, kind: text})


def _user(message: Message) -> Iterator[dict[str, Any]]:
    """A message for each tool result, then one for all other blocks."""
    parts: list[dict[str, Any]] = []
    has_documents = False
    for block in message.blocks:
        match block:
            case ToolResultBlock(call_id=call_id):
                yield {"role": "tool", "tool_call_id": call_id, "content": error_marked_text(block)}
            case TextBlock(text=text):
                parts += [{"type": "text", "text": text}] if text else []
            case ImageBlock(source=Base64Source() as source):
                parts.append({"type": "image_url", "image_url": {"url": data_uri(source, image_type(source))}})
            case ImageBlock(source=UrlSource(url=url)):
                parts.append({"type": "image_url", "image_url": {"url": url}})
            case DocumentBlock():
                has_documents = True  # see ``documents``
            case ImageBlock(source=source):
                raise unsupported("ImageBlock", f"Cohere does not support {type(source).__name__} for it")
            case _:
                raise unsupported(type(block).__name__, "Cohere's user messages cannot contain it")
    if not parts and has_documents:
        parts = [{"type": "text", "text": SEE_DOCUMENTS}]
    if parts and all(part["type"] == "text" for part in parts):
        yield {"role": "user", "content": "\n\n".join(part["text"] for part in parts)}
    elif parts:
        yield {"role": "user", "content": parts}
