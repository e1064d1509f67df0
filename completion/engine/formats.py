"""How a request asks for an answer with a type: the modes of ``structured``, and the request for a repair."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import replace
from typing import Literal, get_args

from completion.contract.answer import Answer
from completion.contract.chunks import FinishReason, StreamChunk
from completion.contract.errors import OutputError
from completion.contract.messages import (
    Message,
    ReasoningBlock,
    RedactedReasoningBlock,
    ToolResultBlock,
)
from completion.contract.request import ChatRequest, JsonSchema, SystemBlock, ToolChoice, ToolDefinition
from completion.contract.stream import ChatStream, closable
from completion.contract.turn import Turn

Mode = Literal["auto", "schema", "tool", "prompt"]

_ALL_MODES: tuple[Mode, ...] = ("schema", "tool", "prompt")
_TOOL_DESCRIPTION = "Give the answer. Call this once, with the whole answer as arguments."
_PROMPT = "Answer with a JSON object that matches this JSON Schema, and with nothing else:\n\n{schema}"


def modes_for(answer: Answer, mode: Mode) -> tuple[Mode, ...]:
    """The modes to try, in this order.

    Raises:
        TypeError: no provider can enforce the schema of the type, and ``mode`` is ``"schema"``.
        ValueError: the mode is unknown.
    """
    if mode not in get_args(Mode):
        raise ValueError(f"structured: mode must be one of {get_args(Mode)}, got {mode!r}")
    if mode == "schema" and answer.open_reason is not None:
        raise TypeError(f"{answer.open_reason}; or use mode='prompt'")
    if mode != "auto":
        return (mode,)
    return _ALL_MODES if answer.open_reason is None else ("prompt",)


def variants_for(answer: Answer, mode: Mode, request: ChatRequest) -> list[ChatRequest]:
    """The requests to try in this mode, in this order.

    One call is enough in tool mode. Gemini and Cohere cannot be told that, and only the first call counts there.
    """
    asked = asking_for(answer, mode, request)
    more = [replace(asked, parallel_tool_use=request.parallel_tool_use)] if mode == "tool" else []
    return [asked, *(other for other in more if other != asked)]


def asking_for(answer: Answer, mode: Mode, request: ChatRequest) -> ChatRequest:
    """The request, with the schema in the place of this mode."""
    if mode == "schema":
        return replace(request, response_format=JsonSchema(answer.name, answer.schema, answer.is_strict))
    if mode == "tool":
        name = tool_name(answer, request)
        tool = ToolDefinition(name, _TOOL_DESCRIPTION, answer.schema)
        return replace(
            request,
            response_format=None,
            tools=(*request.tools, tool),
            tool_choice=ToolChoice.tool(name),
            parallel_tool_use=False,
        )
    told = _PROMPT.format(schema=json.dumps(answer.schema, ensure_ascii=False))
    system = request.system_prompt
    if isinstance(system, tuple):
        return replace(request, response_format=None, system_prompt=(*system, SystemBlock(told)))
    return replace(request, response_format=None, system_prompt=f"{system}\n\n{told}" if system else told)


def tool_name(answer: Answer, request: ChatRequest) -> str:
    """The name of the tool whose arguments are the answer; another tool of the request may have the type's name."""
    taken = {tool.name for tool in request.tools}
    name = answer.name
    while name in taken:
        name = f"{name[:57]}_answer"
    return name


def asking_again(request: ChatRequest, turn: Turn, failure: OutputError, mode: Mode) -> ChatRequest:
    """The request, with the answer and what is wrong with it."""
    return request.with_messages((*request.messages, *repair_messages(turn, failure, mode)))


def repair_messages(turn: Turn, failure: OutputError, mode: Mode) -> list[Message]:
    """The answer, and the problems for the model."""
    blocks = list(turn.message.blocks)
    while blocks and isinstance(blocks[-1], ReasoningBlock | RedactedReasoningBlock):
        blocks.pop()  # when nothing follows reasoning, its provider refuses it
    messages = [Message.assistant(blocks)] if blocks else []
    told = repair_text(failure, mode)
    if turn.tool_calls:
        results = [ToolResultBlock(call.call_id, told, is_error=True) for call in turn.tool_calls]
        return [*messages, Message.user(results)]
    return [*messages, Message.user(told)]


def repair_text(failure: OutputError, mode: Mode) -> str:
    """What the model reads about an answer that does not fit."""
    lines = "\n".join(f"- {problem}" for problem in failure.errors)
    again = "Call the tool again" if mode == "tool" else "Answer again"
    how = "with a shorter answer" if failure.reason is FinishReason.MAX_TOKENS else "with the whole corrected JSON"
    return f"The answer does not fit:\n{lines}\n{again}, {how}."


def opened(stream: Iterator[StreamChunk]) -> Generator[StreamChunk, None, None]:
    """The stream. That of a plain generator function begins now: it raises the errors of its call with ``next()``."""
    closable_stream = closable(stream)
    if isinstance(stream, ChatStream) or not isinstance(stream, Generator):
        return closable_stream
    first = next(closable_stream, None)
    return closable_stream if first is None else _again(first, closable_stream)


def _again(first: StreamChunk, rest: Generator[StreamChunk, None, None]) -> Generator[StreamChunk, None, None]:
    with closing(rest):
        yield first
        yield from rest
