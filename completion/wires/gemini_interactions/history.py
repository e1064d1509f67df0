"""Messages -> steps of the Interactions API, and what the wire accepts in a history."""

from __future__ import annotations

from typing import Any

from completion.contract.messages import (
    AudioBlock,
    Block,
    DocumentBlock,
    ImageBlock,
    ProviderBlock,
    ReasoningBlock,
    RedactedReasoningBlock,
    TextBlock,
    ToolCallBlock,
    ToolResultBlock,
)
from completion.contract.request import ChatRequest
from completion.wires.gemini_interactions.names import ANNOTATIONS, CONTENT, WIRE
from completion.wires.google import ILLEGAL_IN_NAMES, file_of
from completion.wires.history import UNNAMED_TOOL, HistoryRules
from completion.wires.json_values import objects_in, without_none
from completion.wires.lowering import unsupported

Step = dict[str, Any]


def history_rules(dialect: Any) -> HistoryRules:
    return HistoryRules(
        illegal_in_names=ILLEGAL_IN_NAMES,
        result_blocks=(TextBlock, ImageBlock),
        error_blocks=(TextBlock, ImageBlock),
        fills_message=_fills_message,
        begins_with_user=True,
    )


def _fills_message(block: Block) -> bool:
    match block:
        case ReasoningBlock(signature=signature):
            return bool(signature)
        case RedactedReasoningBlock():
            return False
        case ProviderBlock(data=own):
            return own.get("type") != ANNOTATIONS
    return True


def steps(request: ChatRequest) -> list[Step]:
    """The history as steps: what the user says, thoughts, calls, results, and what the model says."""
    lowered: list[Step] = []
    names: dict[str, str] = {}  # of the tools, by the id of their call
    for message in request.messages:
        for block in message.blocks:
            if message.role == "assistant":
                _add_models(block, lowered, names)
            elif isinstance(block, ToolResultBlock):
                lowered.append(_function_result(block, names))
            else:
                _add_content(lowered, "user_input", _user_content(block))
    if not lowered:
        raise unsupported("messages", "they contain nothing to send")
    return lowered


def _add_content(lowered: list[Step], kind: str, content: dict[str, Any] | None) -> None:
    """Add content to the last step, or to a new one if the last is of another kind."""
    if content is None:
        return
    if not lowered or lowered[-1]["type"] != kind:
        lowered.append({"type": kind, "content": []})
    lowered[-1]["content"].append(content)


def _add_models(block: Block, lowered: list[Step], names: dict[str, str]) -> None:
    match block:
        case TextBlock(text=text):
            _add_content(lowered, "model_output", {"type": "text", "text": text} if text else None)
        case ReasoningBlock(text=text, signature=signature):
            if signature:  # the API requires it
                summary = [{"type": "text", "text": text}] if text else None
                lowered.append(without_none({"type": "thought", "signature": signature, "summary": summary}))
        case RedactedReasoningBlock():
            pass
        case ToolCallBlock(call_id=call_id, name=name, args=args, signature=signature):
            names[call_id] = name
            call = {"type": "function_call", "id": call_id, "name": name, "arguments": args, "signature": signature}
            lowered.append(without_none(call))
        case ProviderBlock(data=own):
            _put_back(own, lowered)
        case ImageBlock() | DocumentBlock() | AudioBlock():
            _add_content(lowered, "model_output", _file(block))
        case _:
            raise unsupported(type(block).__name__, "an assistant message cannot contain it")


def _put_back(own: dict[str, Any], lowered: list[Step]) -> None:
    """Add a provider block of this wire: a step or content unchanged, annotations to the text before them."""
    kind = own.get("type")
    if kind in CONTENT:
        _add_content(lowered, "model_output", own)
    elif kind != ANNOTATIONS:
        lowered.append(own)
    elif lowered and lowered[-1]["type"] == "model_output" and lowered[-1]["content"][-1]["type"] == "text":
        text = lowered[-1]["content"][-1]
        annotations = [*text.get("annotations", ()), *objects_in(own.get("annotations"))]
        lowered[-1]["content"][-1] = {**text, "annotations": annotations}


def _function_result(block: ToolResultBlock, names: dict[str, str]) -> Step:
    content = [part for part in map(_user_content, block.blocks) if part is not None]
    result = {
        "type": "function_result",
        "call_id": block.call_id,
        "name": names.get(block.call_id, UNNAMED_TOOL),
        "result": content or "",
        "is_error": block.is_error or None,
    }
    return without_none(result)


def _user_content(block: Block) -> dict[str, Any] | None:
    match block:
        case TextBlock(text=text):
            return {"type": "text", "text": text} if text else None
        case ImageBlock() | DocumentBlock() | AudioBlock():
            return _file(block)
        case ProviderBlock(provider=provider, data=own):
            return own if provider == WIRE else None
        case _:
            raise unsupported(type(block).__name__, "a user message cannot contain it")


def _file(block: ImageBlock | DocumentBlock | AudioBlock) -> dict[str, Any]:
    uri, media_type, data = file_of(block)
    kind = "video" if (media_type or "").startswith("video/") else block.type
    return without_none({"type": kind, "mime_type": media_type, "data": data, "uri": uri or None})
