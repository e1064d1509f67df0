"""Reads the messages that ``useChat`` (npm package ``ai``) posts, as a history for the next request.

    {"messages": [{"role": "user", "parts": [{"type": "text", "text": "Hi"}]}]} -> [Message.user("Hi")]

An assistant's message contains all steps of the answer, as ``ui`` has sent them, and each tool call contains its
result. This module makes a message of the assistant for each step, followed by a message with the tool results.

A browser may send anything. A wrong shape raises a ValueError that names the path; parts of unknown types are skipped.
The user of the browser can forge the whole history, including the assistant's messages: if that matters, keep the
history on the server. A call that waits for an approval is left out of the messages for this reason: the history on the
server says which calls wait and with which arguments, and the browser only decides.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import unquote_to_bytes

from completion.contract.messages import (
    AudioBlock,
    Base64Source,
    Block,
    DocumentBlock,
    ImageBlock,
    Message,
    ProviderBlock,
    ReasoningBlock,
    RedactedReasoningBlock,
    Source,
    TextBlock,
    ToolCallBlock,
    ToolResultBlock,
    UrlSource,
)
from completion.web import ui

STATES = ("input-available", "output-available", "output-error", "output-denied")
"""The states of a complete call. In the other states its input is not complete, or it waits for an approval."""

UNANSWERED = "There is no result: the tool was not run."
DENIED = "The user did not allow this call."


class UiHistory(list[Message]):
    """The messages, and what the user has decided about the calls of the last message, by call id: True, or False or a
    reason. Pass it to ``Conversation.resume``, or to ``run_chat(…, decisions=…)`` with a history that was kept on the
    server."""

    def __init__(self, messages: Iterable[Message], decisions: dict[str, bool | str]) -> None:
        super().__init__(messages)
        self.decisions = decisions


def read_ui_messages(messages: object, *, provider_blocks: bool = False) -> UiHistory:
    """The messages of a ChatRequest, from the ``messages`` in the JSON that useChat posts; a list with the attribute
    ``decisions``.

    Args:
        messages: a list of UI messages.
        provider_blocks: True keeps the blocks that only one provider supports. They are sent to that provider exactly
            as the browser sent them, and may refer to files and containers of your account.

    Raises:
        ValueError: a message has a wrong shape or the role "system", or there is nothing to send.
    """
    history: list[Message] = []
    decisions: dict[str, bool | str] = {}
    for i, given in enumerate(_list(messages, "messages")):
        path = f"messages[{i}]"
        message = _object(given, path)
        given_parts = _list(message.get("parts"), f"{path}.parts")
        parts = [_Part(part, f"{path}.parts[{j}]") for j, part in enumerate(given_parts)]
        match message.get("role"):
            case "user":
                decisions = {}  # a new message in place of a decision
                history.append(Message.user([block for part in parts for block in _user_blocks(part)]))
            case "assistant":
                decisions = dict(decision for part in parts for decision in _decisions(part))
                history.extend(_steps(parts, keep_provider_blocks=provider_blocks))
            case "system":
                raise ValueError(f'{path}.role must not be "system": the server writes the system prompt')
            case role:
                raise _wrong(f"{path}.role", '"user" or "assistant"', role)
    history = [message for message in history if message.blocks]
    if not history:
        raise ValueError("messages must contain something to send, got only empty messages")
    return UiHistory(history, decisions)


class _Part:
    """A part of a message, and its path for error messages."""

    def __init__(self, given: object, path: str) -> None:
        self.fields = _object(given, path)
        self.path = path
        self.kind = self.string("type")

    def string(self, name: str) -> str:
        return _string(self.fields.get(name), f"{self.path}.{name}")

    def nested(self, *names: str) -> dict[str, Any]:
        """The object at these nested names; an empty one if it, or an object around it, is missing or null."""
        value, path = self.fields, self.path
        for name in names:
            path = f"{path}.{name}"
            value = {} if value.get(name) is None else _object(value[name], path)
        return value

    def own(self, name: str, metadata: str = "providerMetadata") -> str | None:
        """The value that ``ui`` has put under this name into the metadata of the part, or None."""
        value = self.nested(metadata, ui.METADATA).get(name)
        return None if value is None else _string(value, f"{self.path}.{metadata}.{ui.METADATA}.{name}")


def _decisions(part: _Part) -> Iterator[tuple[str, bool | str]]:
    """The call id of a part, and what the user has decided about the call."""
    # {"type": "tool-delete", "toolCallId": "c1", "state": "approval-responded",
    #  "approval": {"id": "c1", "approved": false, "reason": "Not now."}}
    if part.kind.startswith(("tool-", "dynamic-tool")) and part.fields.get("state") == "approval-responded":
        approval = part.nested("approval")
        is_approved, reason = approval.get("approved"), approval.get("reason")
        if not isinstance(is_approved, bool):
            raise _wrong(f"{part.path}.approval.approved", "true or false", is_approved)
        refusal = _string(reason, f"{part.path}.approval.reason") if reason else False
        yield part.string("toolCallId"), is_approved or refusal


def _user_blocks(part: _Part) -> Iterator[Block]:
    """The block of a part of a user's message; none if a user cannot send parts of this type."""
    if part.kind == "text" and (text := part.string("text")):
        yield TextBlock(text)
    elif part.kind == "file":
        yield _file(part)


def _steps(parts: list[_Part], *, keep_provider_blocks: bool) -> Iterator[Message]:
    """For each step of an assistant's message: the assistant's message, and the user's message with the results."""
    blocks: list[Block] = []
    results: list[Block] = []
    for part in parts:
        match part.kind:
            case "step-start":
                yield from _step(blocks, results)
                blocks, results = [], []
            case "text":
                if text := part.string("text"):
                    blocks.append(TextBlock(text))
            case "reasoning":
                blocks.append(_reasoning(part))
            case ui.PROVIDER_BLOCK:
                if keep_provider_blocks:
                    blocks.append(_provider_block(part))
            case "dynamic-tool":
                _add_call(part, part.string("toolName"), blocks, results)
            case kind if kind.startswith("tool-"):
                _add_call(part, kind.removeprefix("tool-"), blocks, results)
    yield from _step(blocks, results)


def _step(blocks: list[Block], results: list[Block]) -> Iterator[Message]:
    yield Message.assistant(blocks)
    # Tool results first: Chat Completions refuses any other message between a call and its result.
    yield Message.user(sorted(results, key=lambda block: not isinstance(block, ToolResultBlock)))


def _reasoning(part: _Part) -> Block:
    text, redacted, provider = part.string("text"), part.own("redacted"), part.own("provider")
    if redacted is not None:
        return RedactedReasoningBlock(redacted, provider)
    return ReasoningBlock(text, part.own("signature"), provider)


def _provider_block(part: _Part) -> Block:
    path = f"{part.path}.data"
    block = _object(part.fields.get("data"), path)
    return ProviderBlock(_string(block.get("provider"), f"{path}.provider"), _object(block.get("data"), f"{path}.data"))


def _add_call(part: _Part, name: str, blocks: list[Block], results: list[Block]) -> None:
    """Add a tool call to the blocks, and always a result to the results: providers refuse a call without a result."""
    call_id, state = part.string("toolCallId"), part.string("state")
    if not call_id or not name:
        raise ValueError(f"{part.path} must name the tool and the id of the call, got {name!r} and {call_id!r}")
    if state not in STATES:
        return
    args = part.fields.get("input")
    if state == "output-error" and not isinstance(args, dict):
        # A malformed call: a ToolCallBlock needs an object, so the call is left out. A text tells the model about it.
        results.append(TextBlock(f"The call of {name} could not be read: {part.string('errorText')}"))
        return
    args = _object(args, f"{part.path}.input")
    signature, provider = (part.own(key, "callProviderMetadata") for key in ("signature", "provider"))
    blocks.append(ToolCallBlock(call_id, name, args, signature, provider))
    results.append(ToolResultBlock(call_id, _result(part, state), is_error=state != "output-available"))


def _result(part: _Part, state: str) -> str:
    match state:
        case "output-available":
            output = part.fields.get("output")
            return output if isinstance(output, str) else _json(output, f"{part.path}.output")
        case "output-error":
            return part.string("errorText")
        case "output-denied":
            reason = part.nested("approval").get("reason")
            return _string(reason, f"{part.path}.approval.reason") if reason else DENIED
        case _:
            return UNANSWERED


def _json(value: object, path: str) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    except RecursionError:
        raise ValueError(f"{path} is nested too deeply") from None


def _file(part: _Part) -> Block:
    url, media_type = part.string("url"), part.string("mediaType").partition(";")[0].strip().lower()
    scheme = url[:8].lower()
    source: Source
    if scheme.startswith("data:"):
        source, media_type = _data(url, media_type, f"{part.path}.url")
    elif scheme == "https://":
        source = UrlSource(url)
    else:
        raise _wrong(f"{part.path}.url", "a data: or https: URL", url)
    match media_type.partition("/")[0]:
        case "image":
            return ImageBlock(source)
        case "audio":
            return AudioBlock(source)
        case "application" | "text":
            name = part.fields.get("filename")
            return DocumentBlock(source, name=_string(name, f"{part.path}.filename") if name else None)
        case _:
            raise _wrong(f"{part.path}.mediaType", "the type of an image, a sound or a document", media_type)


def _data(url: str, media_type: str, path: str) -> tuple[Base64Source, str]:
    """The bytes in a data: URL, and their media type: that of the URL if the part says only "image" or "image/*"."""
    # data:image/png;base64,iVBORw0KGgo=       data:text/plain;charset=utf-8,a%20b
    head, comma, data = url[5:].partition(",")
    url_media_type, *parameters = (word.strip().lower() for word in head.split(";"))
    if "/" not in media_type or media_type.endswith("*"):
        media_type = url_media_type or "text/plain"
    content = unquote_to_bytes(data)
    try:
        source = Base64Source(media_type, content.decode("ascii") if "base64" in parameters else content)
    except ValueError as exc:
        why = str(exc) if comma else "it contains no comma"
        raise ValueError(f"{path} must be a data: URL with the bytes of a file: {why}") from exc
    return source, media_type


def _list(value: object, path: str) -> list[Any]:
    if isinstance(value, list):
        return value
    raise _wrong(path, "a list", value)


def _object(value: object, path: str) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    raise _wrong(path, "an object", value)


def _string(value: object, path: str) -> str:
    if isinstance(value, str):
        return value
    raise _wrong(path, "a string", value)


def _wrong(path: str, expected: str, value: object) -> ValueError:
    got = json.dumps(value) if value is None or isinstance(value, str | int | float) else type(value).__name__
    return ValueError(f"{path} must be {expected}, got {got if len(got) <= 40 else got[:39] + '…'}")
