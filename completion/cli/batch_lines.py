"""Reads a line of IN, the input file of a batch, in any of its four forms -> ChatRequest."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

from completion.contract.answer import Answer
from completion.contract.messages import Base64Source, Block, ImageBlock, Message, TextBlock, ToolCallBlock, UrlSource
from completion.contract.request import ChatRequest, JsonSchema, ToolChoice, ToolDefinition
from completion.engine.formats import asking_for

Key = str | int

_DATA_URL: Final = re.compile(r"data:([^;,]+);base64,")
_OURS: Final = frozenset({"id", "prompt", *(field.name for field in fields(ChatRequest))})
_OPENAI: Final = frozenset({"custom_id", "method", "url", "body"})


@dataclass(frozen=True, slots=True)
class Line:
    """One request of IN. Only OpenAI's batch files set ``model``."""

    number: int
    key: Key
    request: ChatRequest
    model: str | None

    @property
    def digest(self) -> str:
        """A hash of the request. It shows whether OUT belongs to this IN."""
        text = json.dumps(self.request.to_dict(), sort_keys=True)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def read_lines(path: Path, answer: Answer | None) -> Iterator[Line | str]:
    """Yields each line as a Line, or as an error message. Blank lines are skipped.

    Args:
        answer: what each request asks for, in place of its own ``response_format``.
    """
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            if number == 1:
                raw = raw.removeprefix(b"\xef\xbb\xbf")
            if not raw.strip():
                continue
            try:
                # Decoded here: json.loads() would guess UTF-16 or UTF-32 from the first bytes of each line.
                yield _line(number, json.loads(raw.decode("utf-8")), answer)
            except UnicodeDecodeError:
                yield f"line {number}: it is not UTF-8"
            except RecursionError:
                yield f"line {number}: it is nested too deeply"
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                what = f"{error} is missing" if isinstance(error, KeyError) else str(error)
                yield f"line {number}: {what}"


def _line(number: int, document: Any, answer: Answer | None) -> Line:
    if not isinstance(document, dict):
        raise ValueError("must be a JSON object")
    is_openai = "custom_id" in document
    name = "custom_id" if is_openai else "id"
    if name not in document:
        raise ValueError('has no "id"; give each line its own')
    key = document[name]
    if isinstance(key, bool) or not isinstance(key, str | int):
        raise ValueError(f'"{name}" must be a string or a whole number, got {key!r}')
    if unknown := sorted(document.keys() - (_OPENAI if is_openai else _OURS)):
        raise ValueError(f"has the unknown field {unknown[0]!r}")
    model = None
    if is_openai:
        body = document.get("body")
        if not isinstance(body, dict):
            raise ValueError('"body" must be an object: the request')
        request, model = _of_body(body), body.get("model")
        if model is not None and not isinstance(model, str):
            raise ValueError(f'"body.model" must be a string, got {model!r}')
    else:
        request = _of_ours(document)
    if answer is not None:
        # No provider can enforce a schema with open keys, so it is put into the system prompt, as ``structured`` does.
        request = asking_for(answer, "schema" if answer.open_reason is None else "prompt", request)
    request.check_tool_choice()
    return Line(number, key, request, model)


def _of_ours(document: Mapping[str, Any]) -> ChatRequest:
    fields = {name: value for name, value in document.items() if name not in ("id", "prompt")}
    if "prompt" in document:
        if "messages" in document:
            raise ValueError('has "prompt" and "messages"; give one of them')
        if not isinstance(document["prompt"], str):
            raise ValueError('"prompt" must be a string')
        messages: Any = [{"role": "user", "content": document["prompt"]}]
    elif isinstance(document.get("messages"), str):
        messages = [{"role": "user", "content": document["messages"]}]
    elif isinstance(document.get("messages"), list):
        messages = document["messages"]
    else:
        raise ValueError('needs a "prompt", "messages", or "custom_id" and "body"')
    system, history = _history(messages)
    if system:
        if fields.get("system_prompt") is not None:
            raise ValueError('has "system_prompt" and a system message; give one of them')
        fields["system_prompt"] = system
    if fields.keys() <= {"messages", "system_prompt"} and isinstance(system := fields.get("system_prompt"), str | None):
        return ChatRequest(history, system_prompt=system)  # most lines; from_dict costs several times as much
    return ChatRequest.from_dict({**fields, "messages": [message.to_dict() for message in history]})


def _of_body(body: Mapping[str, Any]) -> ChatRequest:
    """The request in a Chat Completions body. Fields that ChatRequest does not have become ``additional_params``."""
    rest = {name: value for name, value in body.items() if name not in ("model", "stream", "stream_options", "n")}
    if body.get("n", 1) != 1:
        raise ValueError('"body.n" must be 1: give one line for each answer')
    if not isinstance(body.get("messages"), list):
        raise ValueError('"body.messages" must be a list: only bodies for Chat Completions are supported')
    system, history = _history(rest.pop("messages"))
    fields: dict[str, Any] = {"messages": history, "system_prompt": system}
    caps = [cap for cap in (rest.pop("max_completion_tokens", None), rest.pop("max_tokens", None)) if cap is not None]
    if caps:
        fields["max_tokens"] = caps[0]
    for name in ("temperature", "top_p", "seed", "reasoning_effort"):
        fields[name] = rest.pop(name, None)
    fields["parallel_tool_use"] = rest.pop("parallel_tool_calls", None)
    stop = rest.pop("stop", None) or ()
    fields["stop_sequences"] = [stop] if isinstance(stop, str) else stop
    fields["tools"] = [_tool(tool) for tool in rest.pop("tools", None) or ()]
    choice = rest.pop("tool_choice", None)
    if isinstance(choice, Mapping):
        fields["tool_choice"] = ToolChoice.tool(choice["function"]["name"])
    elif choice is not None:
        choices = {"auto": ToolChoice.auto, "required": ToolChoice.any, "none": ToolChoice.none}
        if choice not in choices:
            raise ValueError(f'"body.tool_choice" must be one of {[*choices]} or name a function, got {choice!r}')
        fields["tool_choice"] = choices[choice]()
    wanted = rest.pop("response_format", None) or {}
    if not isinstance(wanted, Mapping):
        raise ValueError('"body.response_format" must be an object')
    if wanted.get("type") == "json_schema":
        given = wanted["json_schema"]
        fields["response_format"] = JsonSchema(given["name"], given["schema"], bool(given.get("strict", False)))
    elif wanted.get("type") == "json_object":
        fields["response_format"] = "json"
    return ChatRequest(**fields, additional_params=rest or None)


def _tool(tool: Any) -> ToolDefinition:
    if not isinstance(tool, Mapping) or not isinstance(tool.get("function"), Mapping):
        raise ValueError('"body.tools" must be functions; another kind of tool is not supported')
    function = tool["function"]
    schema = function.get("parameters") or {"type": "object", "properties": {}}
    return ToolDefinition(function["name"], function.get("description") or "", schema, strict=function.get("strict"))


def _history(messages: list[Any]) -> tuple[str | None, list[Message]]:
    """The system prompt and the messages. A message has ``blocks`` (our JSON) or ``content`` (OpenAI's JSON)."""
    system, history = [], []
    for message in messages:
        if not isinstance(message, dict):
            raise ValueError(f"a message must be an object, got {type(message).__name__}")
        if "blocks" in message:
            history.append(Message.from_dict(message))
        elif message.get("role") in ("system", "developer"):
            system.append("\n".join(block.text for block in _parts(message) if isinstance(block, TextBlock)))
        elif message.get("role") == "tool":
            text = "".join(block.text for block in _parts(message) if isinstance(block, TextBlock))
            history.append(Message.tool_result(message["tool_call_id"], text))
        elif message.get("role") == "assistant":
            history.append(Message.assistant([*_parts(message), *map(_call, message.get("tool_calls") or ())]))
        elif message.get("role") == "user":
            history.append(Message.user(_parts(message)))
        else:
            raise ValueError(f"a message has the unknown role {message.get('role')!r}")
    return "\n\n".join(system) or None, history


def _parts(message: Mapping[str, Any]) -> list[Block]:
    content = message.get("content")
    if content is None and message["role"] == "assistant":
        return []
    if isinstance(content, str):
        return [TextBlock(content)]
    if not isinstance(content, list):
        raise ValueError(f'a message of role {message["role"]!r} has no "content"')
    return [_part(part) for part in content]


def _part(part: Any) -> Block:
    if not isinstance(part, Mapping):
        raise ValueError(f"a part of a message must be an object, got {type(part).__name__}")
    if part.get("type") == "text":
        return TextBlock(part["text"])
    if part.get("type") == "image_url":
        url = part["image_url"]["url"]
        if inline := _DATA_URL.match(url):
            return ImageBlock(Base64Source(inline[1], url[inline.end() :]))
        return ImageBlock(UrlSource(url))
    raise ValueError(f"a part of the type {part.get('type')!r} is not supported; use text or image_url")


def _call(call: Mapping[str, Any]) -> ToolCallBlock:
    function = call["function"]
    return ToolCallBlock(call["id"], function["name"], json.loads(function.get("arguments") or "{}"))
