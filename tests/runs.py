"""Shared by the tests of runs: scripted turns, tools, and a middleware that logs its hooks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from completion import (
    ChatRequest,
    FinishReason,
    Message,
    Middleware,
    RunFinished,
    RunStream,
    StreamChunk,
    TextDelta,
    Tool,
    ToolCallBlock,
    ToolCallFinished,
    ToolCallMalformed,
    ToolCallStarted,
    ToolDefinition,
    ToolResultBlock,
    TurnFinished,
    Usage,
)
from completion.testing.scripted import Step
from tests.wire_pieces import anthropic_body, openai_body


def called(name: str, call_id: str = "c1", **args: Any) -> list[StreamChunk]:
    return [ToolCallStarted(call_id, name), ToolCallFinished(call_id, name, args)]


def malformed(name: str, call_id: str = "c1", raw: str = "{") -> list[StreamChunk]:
    return [ToolCallStarted(call_id, name), ToolCallMalformed(call_id, name, raw, "it ends too early")]


def turn(*pieces: str | Sequence[Step], reason: FinishReason | None = None, usage: Usage | None = None) -> list[Step]:
    """A complete turn. Its default reason is ``tool_use`` if it contains tool calls, else ``end_turn``."""
    steps: list[Step] = []
    for piece in pieces:
        steps += [TextDelta(piece)] if isinstance(piece, str) else piece
    calls = any(isinstance(step, ToolCallFinished | ToolCallMalformed) for step in steps)
    plain = FinishReason.TOOL_USE if calls else FinishReason.END_TURN
    return [*steps, TurnFinished(reason or plain, usage)]


def named(name: str, function: Callable[..., Any] = lambda **_: "fine", **options: Any) -> Tool:
    return Tool(ToolDefinition(name, "A tool.", {"type": "object"}), function, **options)


def end_of(run: RunStream) -> RunFinished:
    *_, end = run
    assert isinstance(end, RunFinished)
    return end


def results_in(messages: Iterable[Message]) -> list[ToolResultBlock]:
    return [block for message in messages for block in message.blocks if isinstance(block, ToolResultBlock)]


def texts(messages: Iterable[Message]) -> list[str]:
    """The texts of the tool results."""
    return ["".join(getattr(block, "text", "") for block in result.blocks) for result in results_in(messages)]


def check_history(messages: Sequence[Message], *, left: Sequence[str] = ()) -> None:
    """Assert that the next message contains one result for each call, in order, and that both wires accept the history.

    ``left``: ids of calls in the last turn that have no result, because they are left to the caller.
    """
    answers = [n for n, message in enumerate(messages) if message.role == "assistant"]
    for n, message in enumerate(messages):
        calls = [block.call_id for block in message.blocks if isinstance(block, ToolCallBlock)]
        assert len(set(calls)) == len(calls)
        following = messages[n + 1 : n + 2] if message.role == "assistant" else ()
        assert [result.call_id for result in results_in(following)] == [
            one for one in calls if n != answers[-1] or one not in left
        ]
        assert message.role == "user" or not results_in([message])
        assert message.blocks
    if left:
        messages = [*messages, Message.user([ToolResultBlock(call_id, "done") for call_id in left])]
    request = ChatRequest([Message.user("Hi"), *messages, Message.user("And now?")])
    anthropic_body(request, "m")
    openai_body(request, "m")


class Seen(Middleware):
    """Logs each hook that is called, with its subject."""

    def __init__(self, name: str = "", into: list[str] | None = None) -> None:
        self.log: list[str] = [] if into is None else into
        self._prefix = f"{name}." if name else ""

    def _note(self, hook: str, about: object = "") -> None:
        self.log.append(f"{self._prefix}{hook} {about}".rstrip())

    def on_run_started(self, run: Any) -> None:
        self._note("on_run_started")

    def on_request(self, run: Any, request: Any) -> Any:
        self._note("on_request", len(request.messages))
        return request

    def on_retry(self, run: Any, event: Any) -> None:
        self._note("on_retry", event.attempt)

    def on_chunk(self, run: Any, chunk: Any) -> Any:
        self._note("on_chunk", chunk.type)
        return chunk

    def before_tool(self, run: Any, call: Any) -> Any:
        self._note("before_tool", call.call_id)
        return call

    def after_tool(self, run: Any, call: Any, result: Any) -> Any:
        self._note("after_tool", f"{call.call_id}{' error' if result.is_error else ''}")
        return result

    def on_turn_finished(self, run: Any, turn: Any) -> Any:
        self._note("on_turn_finished", turn.reason)

    def on_finished(self, run: Any, end: Any) -> None:
        self._note("on_finished", end.reason)

    def on_failed(self, run: Any, error: Any) -> None:
        self._note("on_failed", type(error).__name__)

    def on_dropped(self, run: Any) -> None:
        self._note("on_dropped")

    @property
    def ends(self) -> list[str]:
        return [one.split()[0] for one in self.log if one.startswith(("on_finished", "on_failed", "on_dropped"))]
