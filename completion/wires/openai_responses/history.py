"""Messages -> the ``input`` items of OpenAI Responses, and what the wire accepts in a history."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
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
from completion.contract.request import ChatRequest
from completion.wires.history import NO_RESULT, CallIds, HistoryRules
from completion.wires.json_values import objects_in, positive_int, str_or_empty
from completion.wires.lowering import data_uri, image_type, json_text, unsupported
from completion.wires.openai_responses.dialect import ResponsesDialect
from completion.wires.openai_responses.names import CALL_FIELDS, CALLS, INPUT_PARTS, MESSAGE, MESSAGE_FIELDS, WIRE

Item = dict[str, Any]


def history_rules(dialect: Any) -> HistoryRules:
    kinds = (TextBlock, ImageBlock, DocumentBlock, ProviderBlock)
    return HistoryRules(
        call_ids=CallIds(illegal=re.compile(r"[^a-zA-Z0-9_-]"), max_length=64),
        result_blocks=kinds,
        error_blocks=kinds,
        fills_message=_fills_message,
        provider_call=_client_call,
    )


def _client_call(data: dict[str, Any]) -> Any:
    return data.get("call_id") if data.get("type") in CALLS else None


def _fills_message(block: Block) -> bool:
    if isinstance(block, ProviderBlock):
        return block.data.get("type") != MESSAGE
    return not isinstance(block, ReasoningBlock | RedactedReasoningBlock)


def items(request: ChatRequest, dialect: ResponsesDialect) -> list[Item]:
    """The input items: messages, reasoning, calls and their results, in the order of the history."""
    is_stored = bool((request.additional_params or {}).get("store"))
    calls: dict[str, Item] = {}  # by their ids
    lowered: list[Item] = []
    for message in request.messages:
        if message.role == "user":
            lowered += _user(message, calls)
            continue
        answer = _without_orphans(_assistant(message, is_stored=is_stored))
        calls |= {str_or_empty(item.get("call_id")): item for item in answer if item.get("type") in CALLS}
        lowered += answer
    if not dialect.runs_custom_tools:
        lowered = list(_with_custom_results(lowered))
    if not lowered:
        raise unsupported("messages", "they contain nothing to send")
    return lowered


def _with_custom_results(lowered: list[Item]) -> Iterator[Item]:
    """The items, each call of a custom tool with a result: without one the API refuses the request."""
    answered = {str_or_empty(item.get("call_id")) for item in lowered if item.get("type") == "custom_tool_call_output"}
    for item in lowered:
        yield item
        call_id = str_or_empty(item.get("call_id"))
        if item.get("type") == "custom_tool_call" and call_id not in answered:
            yield {"type": "custom_tool_call_output", "call_id": call_id, "output": NO_RESULT}


# --- what the model wrote --------------------------------------------------------------------------------------------


def _assistant(message: Message, *, is_stored: bool) -> list[Item]:
    lowered: list[Item] = []
    for block in message.blocks:
        match block:
            case TextBlock(text=text):
                lowered.append(_answer([{"type": "output_text", "text": text, "annotations": []}]))
            case ReasoningBlock(signature=signature):
                lowered += _reasoning(signature, is_stored=is_stored)
            case RedactedReasoningBlock():
                pass  # no server of this wire sends it
            case ToolCallBlock():
                lowered.append(_call(block))
            case ProviderBlock(data=own):
                if own.get("type") == MESSAGE:
                    lowered[-1:] = _split(lowered[-1:], own)
                else:
                    lowered.append(own)
            case _:
                raise unsupported(type(block).__name__, "an assistant message cannot contain it")
    return lowered


def _answer(content: list[dict[str, Any]], **fields: Any) -> Item:
    # Without an id: the API would look for the reasoning item in front of the message with this id.
    return {"type": "message", "role": "assistant", "content": content, **fields}


def _reasoning(signature: str | None, *, is_stored: bool) -> Iterator[Item]:
    """The item of which the reasoning is the last part. The other parts are in it too."""
    try:
        item = json.loads(signature or "")
    except ValueError:
        return
    # The server knows an id only if it stored the response.
    if isinstance(item, dict) and (item.get("encrypted_content") or item.get("content") or is_stored):
        yield item


def _call(block: ToolCallBlock) -> Item:
    extra = {name: value for name, value in (block.wire_data or {}).items() if name not in CALL_FIELDS}
    call = {"type": "function_call", "call_id": block.call_id, "name": block.name}
    return {**call, "arguments": json_text(block.args, "ToolCallBlock.args"), **extra}


def _split(last: list[Item], own: Item) -> Iterator[Item]:
    """The text of a message with what its provider block kept: the message ends with the text in front of the block."""
    fields = {name: value for name, value in own.items() if name not in MESSAGE_FIELDS}
    text = ""
    if last and last[0].get("type") == "message":
        text = "".join(str_or_empty(part.get("text")) for part in last[0]["content"])
    else:
        yield from last
    kept = objects_in(own.get("content"))
    length = min(sum(positive_int(part, "length") for part in kept), len(text))
    before, text = text[: len(text) - length], text[len(text) - length :]
    if before:
        yield _answer([{"type": "output_text", "text": before, "annotations": []}])
    content: list[Item] = []
    for part in kept:
        own_text, text = text[: positive_int(part, "length")], text[positive_int(part, "length") :]
        if not own_text:
            continue
        if part.get("type") == "refusal":
            content.append({"type": "refusal", "refusal": own_text})
        else:
            annotations = objects_in(part.get("annotations"))
            content.append({"type": "output_text", "text": own_text, "annotations": annotations})
    if content:
        yield _answer(content, **fields)


def _without_orphans(answer: list[Item]) -> list[Item]:
    """The items without reasoning at the end: the API requires the item that the model wrote after it."""
    while answer and answer[-1].get("type") == "reasoning":
        answer.pop()
    return answer


# --- what the user and the tools wrote -------------------------------------------------------------------------------


def _user(message: Message, calls: dict[str, Item]) -> Iterator[Item]:
    """An item for each tool result, and messages for the other blocks, in the same order."""
    between: list[dict[str, Any]] = []
    for block in message.blocks:
        is_item = isinstance(block, ProviderBlock) and block.data.get("type") not in INPUT_PARTS
        if not is_item and not isinstance(block, ToolResultBlock):
            between += _parts([block])
            continue
        yield from _user_message(between)
        between = []
        if isinstance(block, ToolResultBlock):
            yield _result(block, calls.get(block.call_id, {}))
        elif isinstance(block, ProviderBlock) and block.provider.partition("@")[0] == WIRE:
            yield block.data
    yield from _user_message(between)


def _user_message(content: list[dict[str, Any]]) -> Iterator[Item]:
    if content:
        yield {"type": "message", "role": "user", "content": content}


def _result(block: ToolResultBlock, call: Item) -> Item:
    """The result of a call, which may be the call of a custom tool."""
    parts = _parts(block.blocks)
    if block.is_error:
        parts.insert(0, {"type": "input_text", "text": "Error: "})
    output: Any = parts
    if all(part.keys() == {"type", "text"} for part in parts):  # not every server accepts a list
        output = "".join(part["text"] for part in parts)
    result: Item = {"type": f"{call.get('type', 'function_call')}_output", "call_id": block.call_id, "output": output}
    # A program that the model wrote made the call. It runs on the server, and waits for this result.
    return {**result, "caller": call["caller"]} if "caller" in call else result


def _parts(blocks: Iterable[Block]) -> list[dict[str, Any]]:
    return [part for block in blocks for part in _part(block)]


def _part(block: Block) -> Iterator[dict[str, Any]]:
    match block:
        case TextBlock(text=text):
            yield {"type": "input_text", "text": text}
        case ImageBlock(source=Base64Source() as source):
            yield {"type": "input_image", "image_url": data_uri(source, image_type(source)), "detail": "auto"}
        case ImageBlock(source=UrlSource(url=url)):
            yield {"type": "input_image", "image_url": url, "detail": "auto"}
        case ImageBlock(source=FileSource(file_id=file_id)):
            yield {"type": "input_image", "file_id": file_id, "detail": "auto"}
        case DocumentBlock(source=Base64Source() as source, name=name):
            yield {"type": "input_file", "filename": name or "document", "file_data": data_uri(source)}
        case DocumentBlock(source=UrlSource(url=url)):
            yield {"type": "input_file", "file_url": url}
        case DocumentBlock(source=FileSource(file_id=file_id)):
            yield {"type": "input_file", "file_id": file_id}
        case ProviderBlock(provider=provider, data=own):
            if provider.partition("@")[0] == WIRE:
                yield own
        case AudioBlock():
            raise unsupported("AudioBlock", "OpenAI Responses does not support audio")
        case _:
            raise unsupported(type(block).__name__, "a user message cannot contain it")
