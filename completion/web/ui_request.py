"""What ``useChat``, of the npm package ``ai``, posts: its messages, as a history to go on with.

    {"messages": [{"role": "user", "parts": [{"type": "text", "text": "Hi"}]}]} -> [Message.user("Hi")]

A message of the assistant comes back as ``ui`` sent it out, all the steps of an answer in one, and the result of a tool
inside of its call. It is taken apart here: a message of the assistant a step, and after it one with the results.

A browser may send anything. A wrong shape is a ValueError that names the place; parts of other kinds are left out.
Whoever has the browser writes the history, what the assistant said included: keep it at the server where that matters.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
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
"""Of a call that is complete. In the others its input still grows, or somebody is asked whether it may be made."""

UNANSWERED = "There is no result: nobody has run the tool."
DENIED = "The user did not allow this call."


def read_ui_messages(messages: object, *, provider_blocks: bool = False) -> list[Message]:
    """The history for a ChatRequest, from the ``messages`` of what useChat posted, read as JSON.

    Args:
        messages: a list of UI messages.
        provider_blocks: True keeps the blocks that only one provider knows. They go to that provider as they come
            from the browser, and may name files and containers of your account.

    Raises:
        ValueError: it has another shape, a message of the role "system", or nothing to send.
    """
    history: list[Message] = []
    for i, given in enumerate(_list(messages, "messages")):
        path = f"messages[{i}]"
        message = _object(given, path)
        given_parts = _list(message.get("parts"), f"{path}.parts")
        parts = [_Part(part, f"{path}.parts[{j}]") for j, part in enumerate(given_parts)]
        match message.get("role"):
            case "user":
                history.append(Message.user([block for part in parts for block in _said(part)]))
            case "assistant":
                history.extend(_steps(parts, provider_blocks))
            case "system":
                raise ValueError(f'{path}.role must not be "system": the server writes the system prompt')
            case role:
                raise _wrong(f"{path}.role", '"user" or "assistant"', role)
    history = [message for message in history if message.blocks]
    if not history:
        raise ValueError("messages must hold something to send, got none that does")
    return history


class _Part:
    """A part of a message, and where it stands."""

    def __init__(self, given: object, path: str) -> None:
        self.fields = _object(given, path)
        self.path = path
        self.kind = self.string("type")

    def string(self, name: str) -> str:
        return _string(self.fields.get(name), f"{self.path}.{name}")

    def nested(self, *names: str) -> dict[str, Any]:
        """The object inside of objects, each of which may be missing."""
        value, path = self.fields, self.path
        for name in names:
            path = f"{path}.{name}"
            value = {} if value.get(name) is None else _object(value[name], path)
        return value

    def own(self, name: str, metadata: str = "providerMetadata") -> str | None:
        """What we put into the metadata of the part under this name."""
        value = self.nested(metadata, ui.METADATA).get(name)
        return None if value is None else _string(value, f"{self.path}.{metadata}.{ui.METADATA}.{name}")


def _said(part: _Part) -> Iterator[Block]:
    """What a user says."""
    if part.kind == "text" and (text := part.string("text")):
        yield TextBlock(text)
    elif part.kind == "file":
        yield _file(part)


def _steps(parts: list[_Part], provider_blocks: bool) -> Iterator[Message]:
    said: list[Block] = []
    answers: list[Block] = []
    for part in parts:
        match part.kind:
            case "step-start":
                yield from _step(said, answers)
                said, answers = [], []
            case "text":
                if text := part.string("text"):
                    said.append(TextBlock(text))
            case "reasoning":
                said.append(_reasoning(part))
            case ui.PROVIDER_BLOCK:
                if provider_blocks:
                    said.append(_provider_block(part))
            case "dynamic-tool":
                _call(part, part.string("toolName"), said, answers)
            case kind if kind.startswith("tool-"):
                _call(part, kind.removeprefix("tool-"), said, answers)
    yield from _step(said, answers)


def _step(said: list[Block], answers: list[Block]) -> Iterator[Message]:
    """The results stand first: Chat Completions takes nothing between a call and its result."""
    yield Message.assistant(said)
    yield Message.user(sorted(answers, key=lambda block: not isinstance(block, ToolResultBlock)))


def _reasoning(part: _Part) -> Block:
    text, redacted = part.string("text"), part.own("redacted")
    return ReasoningBlock(text, part.own("signature")) if redacted is None else RedactedReasoningBlock(redacted)


def _provider_block(part: _Part) -> Block:
    path = f"{part.path}.data"
    own = _object(part.fields.get("data"), path)
    return ProviderBlock(_string(own.get("provider"), f"{path}.provider"), _object(own.get("data"), f"{path}.data"))


def _call(part: _Part, name: str, said: list[Block], answers: list[Block]) -> None:
    """The call goes to what was said, and what came of it to the answers: no provider takes a call without one."""
    call_id, state = part.string("toolCallId"), part.string("state")
    if not call_id or not name:
        raise ValueError(f"{part.path} must name the tool and the id of the call, got {name!r} and {call_id!r}")
    if state not in STATES:
        return
    args = part.fields.get("input")
    if state == "output-error" and not isinstance(args, dict):  # no history can carry it, and the model should know
        answers.append(TextBlock(f"The call of {name} could not be read: {part.string('errorText')}"))
        return
    args = _object(args, f"{part.path}.input")
    said.append(ToolCallBlock(call_id, name, args, part.own("signature", "callProviderMetadata")))
    answers.append(ToolResultBlock(call_id, _answer(part, state), is_error=state != "output-available"))


def _answer(part: _Part, state: str) -> str:
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
            raise _wrong(f"{part.path}.mediaType", "that of an image, a sound or a document", media_type)


def _data(url: str, media_type: str, path: str) -> tuple[Base64Source, str]:
    """The bytes in a data: URL, and their media type: its own where the part says "image" or "image/*" only."""
    # data:image/png;base64,iVBORw0KGgo=       data:text/plain;charset=utf-8,a%20b
    head, comma, data = url[5:].partition(",")
    own, *parameters = (word.strip().lower() for word in head.split(";"))
    if "/" not in media_type or media_type.endswith("*"):
        media_type = own or "text/plain"
    content = unquote_to_bytes(data)
    try:
        source = Base64Source(media_type, content.decode("ascii") if "base64" in parameters else content)
    except ValueError as exc:
        why = str(exc) if comma else "there is no comma in it"
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
