"""Pieces of wire and of turns that several test files share."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from completion import (
    ChatRequest,
    ChatStream,
    CompletionError,
    ReasoningDelta,
    ReasoningFinished,
    StreamChunk,
    ToolCallArgsDelta,
    ToolCallFinished,
    ToolCallMalformed,
    ToolCallStarted,
    TurnFinished,
)
from completion.testing import event
from completion.wires.anthropic import MESSAGES
from completion.wires.anthropic.dialect import VERSION, MessagesDialect
from completion.wires.openai_chat import CHAT_COMPLETIONS
from completion.wires.openai_chat.dialect import COMPATIBLE, OPENAI
from completion.wires.wire import Lowered

DONE = b"data: [DONE]\n\n"
IS_SAMPLED = bool(os.environ.get("SAMPLED"))
"""Whether long tables are sampled: tox says so to all Pythons but one, which takes them whole."""


def chunks_of(body: bytes, split: int | None = None) -> list[bytes]:
    """The body in pieces of ``split`` bytes, or in one."""
    step = split or max(len(body), 1)
    return [body[start : start + step] for start in range(0, len(body), step)]


def cuts_of(body: bytes) -> range:
    """The offsets at which an answer may be cut: every byte of it, or a sample of them."""
    return range(0, len(body), 7 if IS_SAMPLED else 1)


def delta(_reason: str | None = None, **fields: Any) -> dict[str, Any]:
    """A chunk of Chat Completions with this delta."""
    choice = {"index": 0, "delta": fields, "finish_reason": _reason}
    return {"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": "m-1", "choices": [choice]}


def piece(
    index: int | None = 0, arguments: Any = None, *, id: str | None = None, name: str | None = None
) -> dict[str, Any]:
    """A piece of a tool call, with the keys that are given only."""
    function = {key: value for key, value in (("name", name), ("arguments", arguments)) if value is not None}
    own = {key: value for key, value in (("index", index), ("id", id)) if value is not None}
    return {**own, "type": "function", "function": function}


def calls(*pieces: dict[str, Any]) -> dict[str, Any]:
    """A chunk with pieces of tool calls."""
    return delta(tool_calls=list(pieces))


def events(*data: Any) -> Iterator[tuple[str, Any]]:
    """What assemble gets: each with the name that events have when nobody names them."""
    return (("message", value) for value in data)


def calls_in(chunks: Iterable[StreamChunk]) -> list[tuple[str, str, Any]]:
    """The calls of a turn: id, name, and their arguments or the text that is none."""
    found: list[tuple[str, str, Any]] = []
    for chunk in chunks:
        if isinstance(chunk, ToolCallFinished):
            found.append((chunk.call_id, chunk.name, chunk.args))
        if isinstance(chunk, ToolCallMalformed):
            found.append((chunk.call_id, chunk.name, chunk.raw))
    return found


def read_to_the_end(
    chat_stream: Callable[[ChatRequest], ChatStream], req: ChatRequest
) -> tuple[list[StreamChunk], CompletionError | None]:
    """The chunks of a stream, and the error that ended it."""
    found: list[StreamChunk] = []
    try:
        with chat_stream(req) as stream:
            for chunk in stream:
                found.append(chunk)  # noqa: PERF402  what came before an error counts
    except CompletionError as error:
        return found, error
    return found, None


def body(*events: Any, done: bool = True) -> bytes:
    """A body of events, with ``[DONE]`` at its end."""
    return b"".join(event(data) for data in events) + (DONE if done else b"")


def order_faults(chunks: Iterable[StreamChunk], *, ended: bool = True) -> Iterator[str]:
    """What is wrong with the order of a turn, by the rules of the contract."""
    opened: ToolCallStarted | None = None
    arguments, ids, in_reasoning, is_over = "", set[str](), False, False
    for chunk in chunks:
        if is_over:
            yield f"{chunk} after the end of the turn"
        if in_reasoning and not isinstance(chunk, ReasoningDelta | ReasoningFinished):
            yield f"{chunk} inside reasoning"
        if opened and not isinstance(chunk, ToolCallArgsDelta | ToolCallFinished | ToolCallMalformed):
            yield f"{chunk} inside a call"
        match chunk:
            case ReasoningDelta():
                in_reasoning = True
            case ReasoningFinished():
                in_reasoning = False
            case ToolCallStarted(call_id):
                if call_id in ids or not call_id:
                    yield f"the call id {call_id!r} is not unique"
                ids.add(call_id)
                opened, arguments = chunk, ""
            case ToolCallArgsDelta(call_id, text):
                if not opened or opened.call_id != call_id or not text:
                    yield f"{chunk} belongs to no call or is empty"
                arguments += text
            case ToolCallFinished(call_id, name) | ToolCallMalformed(call_id, name):
                if not opened or (opened.call_id, opened.name) != (call_id, name):
                    yield f"{chunk} closes no call"
                if isinstance(chunk, ToolCallMalformed) and chunk.raw != arguments:
                    yield f"{chunk} differs from its deltas {arguments!r}"
                opened = None
            case TurnFinished():
                is_over = True
        if getattr(chunk, "delta", "-") == "":
            yield f"{chunk} is empty"
    if ended and (opened or in_reasoning or not is_over):
        yield "something was left open"


def interleaved(lengths: list[int], order: Iterable[int]) -> Iterator[int]:
    """Which of several sequences gives its next item: ``order`` as far as it goes, then one after the other."""
    left = list(lengths)
    for which in itertools.chain(order, *([n] * length for n, length in enumerate(lengths))):
        which %= len(left)
        if left[which]:
            left[which] -= 1
            yield which


def openai_body(request: ChatRequest, model: str = "m", *, compatible: bool = False) -> Lowered:
    """What goes to Chat Completions, and what was left out."""
    return CHAT_COMPLETIONS.body(request, model, COMPATIBLE if compatible else OPENAI)


def anthropic_body(
    request: ChatRequest, model: str = "m", *, version: str = VERSION, betas: Sequence[str] = ()
) -> Lowered:
    """What goes to Anthropic Messages, and what was left out."""
    return MESSAGES.body(request, model, MessagesDialect(version, tuple(betas)))
