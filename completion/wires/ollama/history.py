"""Messages -> messages of Ollama's native chat, and the rules for a history."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from completion.contract.messages import (
    Base64Source,
    Block,
    ImageBlock,
    Message,
    ProviderBlock,
    ReasoningBlock,
    RedactedReasoningBlock,
    TextBlock,
    ToolCallBlock,
    ToolResultBlock,
)
from completion.contract.request import ChatRequest, system_text
from completion.wires.history import UNNAMED_TOOL, HistoryRules
from completion.wires.lowering import error_marked_text, unsupported
from completion.wires.ollama.names import THINKING


def history_rules(dialect: Any) -> HistoryRules:
    return HistoryRules(fills_message=_fills_message)


def _fills_message(block: Block) -> bool:
    return not isinstance(block, ReasoningBlock | RedactedReasoningBlock | ProviderBlock)


def messages(request: ChatRequest) -> list[dict[str, Any]]:
    system = system_text(request)
    lowered = [{"role": "system", "content": system}] if system else []
    names: dict[str, str] = {}  # call id -> name of the tool
    for message in request.messages:
        if message.role == "assistant":
            lowered.append(_assistant(message, names))
        else:
            lowered.extend(_user(message, names))
    if not any(message["role"] != "system" for message in lowered):
        raise unsupported("messages", "they contain nothing to send")
    return lowered


def _assistant(message: Message, names: dict[str, str]) -> dict[str, Any]:
    texts: list[str] = []
    thoughts: list[str] = []
    calls: list[dict[str, Any]] = []
    for block in message.blocks:
        match block:
            case TextBlock(text=text):
                texts.append(text)
            case ReasoningBlock(text=text, wire_data=wire_data):
                if (wire_data or {}).get("field") == THINKING["field"]:
                    thoughts.append(text)
            case RedactedReasoningBlock() | ProviderBlock():
                pass
            case ToolCallBlock(call_id=call_id, name=name, args=args):
                names[call_id] = name
                # Old versions of Ollama ignore the id: they tell calls apart by the name of the tool.
                calls.append({"id": call_id, "function": {"name": name, "arguments": args}})
            case _:
                raise unsupported(type(block).__name__, "an assistant message cannot contain it")
    lowered: dict[str, Any] = {"role": "assistant", "content": "".join(texts)}
    if thoughts:
        lowered["thinking"] = "".join(thoughts)
    if calls:
        lowered["tool_calls"] = calls
    return lowered


def _user(message: Message, names: dict[str, str]) -> Iterator[dict[str, Any]]:
    """A message for each tool result, then one for all other blocks."""
    texts: list[str] = []
    images: list[str] = []
    for block in message.blocks:
        match block:
            case ToolResultBlock(call_id=call_id):
                name = names.get(call_id, UNNAMED_TOOL)
                content = error_marked_text(block)
                yield {"role": "tool", "tool_name": name, "tool_call_id": call_id, "content": content}
            case TextBlock(text=text):
                texts += [text] if text else []
            case ImageBlock(source=Base64Source(data=data)):
                images.append(data)
            case ImageBlock(source=source):
                why = f"Ollama does not support {type(source).__name__} for it: give the bytes as a Base64Source"
                raise unsupported("ImageBlock", why)
            case _:
                raise unsupported(type(block).__name__, "Ollama's user messages contain text and images only")
    if texts or images:
        lowered: dict[str, Any] = {"role": "user", "content": "\n\n".join(texts)}
        yield {**lowered, "images": images} if images else lowered
