"""Messages -> contents of generateContent, and what the wire accepts in a history."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from completion.contract.messages import (
    AudioBlock,
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
)
from completion.contract.request import ChatRequest
from completion.wires.gemini.names import (
    ANY_SIGNATURE,
    CANDIDATE,
    RESULT_FILE_TYPES,
    RESULT_FILES_SINCE,
    SIGNATURE,
    WIRE,
)
from completion.wires.google import ILLEGAL_IN_NAMES, LEVELS_SINCE, file_of, version_of
from completion.wires.history import UNNAMED_TOOL, HistoryRules
from completion.wires.json_values import positive_int, str_or_empty, without_none
from completion.wires.lowering import result_text, unsupported
from completion.wires.tool_call import is_made_up

Part = dict[str, Any]


def history_rules(dialect: Any) -> HistoryRules:
    return replace(_RULES, of_model=_rules_of)


def _rules_of(model: str) -> HistoryRules:
    if (version_of(model) or (0, 0)) < RESULT_FILES_SINCE:
        return _RULES
    kinds = (TextBlock, ImageBlock, DocumentBlock)
    return replace(_RULES, result_blocks=kinds, error_blocks=kinds, can_return=_can_return)


def _can_return(block: Block) -> bool:
    """A result contains bytes only, no URL, and of a few types. Other files go behind the results."""
    _, media_type, data = file_of(block)
    return data is not None and media_type in RESULT_FILE_TYPES


def _fills_message(block: Block) -> bool:
    match block:
        case ReasoningBlock(signature=signature):
            return bool(signature)
        case RedactedReasoningBlock():
            return False
        case ProviderBlock(data=own):
            return own.get("type") != CANDIDATE
    return True


_RULES = HistoryRules(illegal_in_names=ILLEGAL_IN_NAMES, fills_message=_fills_message, begins_with_user=True)


def contents(request: ChatRequest, model: str) -> list[dict[str, Any]]:
    names: dict[str, str] = {}  # of the tools, by the id of their call
    requires_signatures = (version_of(model) or (0, 0)) >= LEVELS_SINCE
    lowered: list[dict[str, Any]] = []
    for message in request.messages:
        if message.role == "assistant":
            role, parts = "model", _model_parts(message, names)
            if requires_signatures:
                _sign_first_call(parts)
        else:
            role, parts = "user", [part for block in message.blocks for part in _user_part(block, names)]
        if not parts:
            continue
        if lowered and lowered[-1]["role"] == role:  # the message between them had nothing to send
            lowered[-1]["parts"] += parts
        else:
            lowered.append({"role": role, "parts": parts})
    if not lowered:
        raise unsupported("messages", "they contain nothing to send")
    return lowered


def _model_parts(message: Message, names: dict[str, str]) -> list[Part]:
    """The parts as the API sent them, each with its own signature, in the same order."""
    parts: list[Part] = []
    for block in message.blocks:
        match block:
            case TextBlock(text=text):
                if text:
                    parts.append({"text": text})
            case ReasoningBlock(text=text, signature=signature):
                if signature:  # the API reads nothing else from a thought
                    parts.append({"text": text, "thought": True, "thoughtSignature": signature})
            case RedactedReasoningBlock():
                pass
            case ToolCallBlock(call_id=call_id, name=name):
                names[call_id] = name
                parts.append(_function_call(block))
            case ProviderBlock(data=own):
                _put_back(own, parts)
            case ImageBlock() | DocumentBlock() | AudioBlock():
                parts.append(_file_part(block))
            case _:
                raise unsupported(type(block).__name__, "an assistant message cannot contain it")
    return parts


def _function_call(block: ToolCallBlock) -> Part:
    call = {"id": _id_to_send(block.call_id), "name": block.name, "args": block.args}
    return without_none({"functionCall": without_none(call), "thoughtSignature": block.signature})


def _id_to_send(call_id: str) -> str | None:
    """None for an id that we made up: results of calls without ids are matched by name, in order."""
    return None if is_made_up(call_id) else call_id


def _sign_first_call(parts: list[Part]) -> None:
    """The first call of each step needs a signature. One that another model made gets the placeholder."""
    for n, part in enumerate(parts):
        if "functionCall" in part:
            parts[n] = {"thoughtSignature": ANY_SIGNATURE, **part}
            return


def _put_back(own: dict[str, Any], parts: list[Part]) -> None:
    """Add a provider block of this wire: a part unchanged, a signature to the text that it belongs to."""
    kind = own.get("type")
    if kind == CANDIDATE:
        return
    if kind != SIGNATURE:
        parts.append(own)
        return
    signature, length = str_or_empty(own.get("thoughtSignature")), positive_int(own, "length")
    if not length or not parts or parts[-1].keys() != {"text"}:
        parts.append({"text": "", "thoughtSignature": signature})
        return
    # Text before the signed part came in parts without a signature. The API wants them apart.
    text = parts.pop()["text"]
    if text[:-length]:
        parts.append({"text": text[:-length]})
    parts.append({"text": text[-length:], "thoughtSignature": signature})


def _user_part(block: Block, names: dict[str, str]) -> list[Part]:
    match block:
        case TextBlock(text=text):
            return [{"text": text}] if text else []
        case ImageBlock() | DocumentBlock() | AudioBlock():
            return [_file_part(block)]
        case ToolResultBlock():
            return [_function_response(block, names)]
        case ProviderBlock(provider=provider, data=own):
            return [own] if provider == WIRE else []
        case _:
            raise unsupported(type(block).__name__, "a user message cannot contain it")


def _function_response(block: ToolResultBlock, names: dict[str, str]) -> Part:
    files = [inner for inner in block.blocks if isinstance(inner, ImageBlock | DocumentBlock)]
    others = [inner for inner in block.blocks if not isinstance(inner, ImageBlock | DocumentBlock)]
    text = result_text(replace(block, blocks=tuple(others)))
    response = {
        "id": _id_to_send(block.call_id),
        "name": names.get(block.call_id, UNNAMED_TOOL),
        "response": {"error" if block.is_error else "result": text},
        "parts": [_file_part(file) for file in files] or None,
    }
    return {"functionResponse": without_none(response)}


def _file_part(block: ImageBlock | DocumentBlock | AudioBlock) -> Part:
    uri, media_type, data = file_of(block)
    if data is not None:
        return {"inlineData": {"mimeType": media_type, "data": data}}
    return {"fileData": without_none({"mimeType": media_type, "fileUri": uri})}
