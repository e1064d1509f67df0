"""The chunks that a run adds to those of its turns. A run is several turns, with tool calls between them.

RunStarted
  StepStarted, (HistoryCompacted), chunks of a turn, TurnFinished, ToolResult for each call, StepFinished
  StepStarted, …
RunFinished
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from completion.contract.chunks import (
    FinishReason,
    ProviderBlockFinished,
    ReasoningDelta,
    ReasoningFinished,
    RedactedReasoning,
    StreamChunk,
    TextDelta,
    ToolCallArgsDelta,
    ToolCallFinished,
    ToolCallMalformed,
    ToolCallStarted,
    TurnFinished,
    Usage,
)
from completion.contract.codec import Record, nested, nested_or_absent
from completion.contract.messages import AnyBlock, Block, Message, ToolCallBlock

CompactionMethod = Literal["tool_results", "truncate", "summary", "function"]

AbortKind = Literal["max_iterations", "max_tokens", "timeout", "cancelled", "middleware", "tool"]


@dataclass(frozen=True, slots=True)
class Abort(Record):
    """Why this library ended a run before the model was done. ``message`` is text for people."""

    kind: AbortKind
    message: str


@dataclass(frozen=True, slots=True)
class RunStarted(StreamChunk):
    """The first chunk of a run. ``provider`` and ``model`` are the model's ``name`` and ``model``."""

    type: ClassVar[Literal["run_started"]] = "run_started"
    run_id: str
    provider: str
    model: str


@dataclass(frozen=True, slots=True)
class StepStarted(StreamChunk):
    """A request is sent to the model. ``iteration`` counts from 1. It is 0 in the step without a request that makes the
    calls for which ``decisions`` were given."""

    type: ClassVar[Literal["step_started"]] = "step_started"
    run_id: str
    step_id: str
    iteration: int


@dataclass(frozen=True, slots=True)
class HistoryCompacted(StreamChunk):
    """A Conversation has shortened the history, because it was over its budget or the provider refused its length.

    It follows the StepStarted of its turn, before the first chunk of the turn. The numbers of tokens are estimates for
    the whole request. ``method``: what was done at most. ``tool_results``: only old tool results were shortened.
    ``truncate``, ``summary``, ``function``: messages were removed too, and replaced by nothing, by a summary, or by
    what the function returned. It is ``truncate`` if the summary failed.
    """

    type: ClassVar[Literal["history_compacted"]] = "history_compacted"
    run_id: str
    step_id: str
    cause: Literal["budget", "context_overflow"]
    method: CompactionMethod
    tokens_before: int
    tokens_after: int
    messages_before: int
    messages_after: int


@dataclass(frozen=True, slots=True)
class ToolResult(StreamChunk):
    """The result of one tool call.

    ``is_error``: the tool failed or did not run; ``blocks`` tell the model what to correct. ``name``: of the tool.
    ``seconds``: how long the tool ran; None if it did not run, or did not end in time. Not compared.
    """

    type: ClassVar[Literal["tool_result"]] = "tool_result"
    run_id: str
    step_id: str
    call_id: str
    blocks: tuple[AnyBlock, ...] = field(metadata=nested(Block))
    is_error: bool = False
    name: str = ""
    seconds: float | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class StepFinished(StreamChunk):
    """A turn has ended or was cut off by an abort, and each of its tool calls has a result.

    ``new_messages`` and ``usage`` are those of this step alone. ``usage`` includes what the tools report.
    """

    type: ClassVar[Literal["step_finished"]] = "step_finished"
    run_id: str
    step_id: str
    iteration: int
    usage: Usage
    new_messages: tuple[Message, ...] = field(metadata=nested(Message))


@dataclass(frozen=True, slots=True)
class RunFinished(StreamChunk):
    """The last chunk of a run.

    ``reason`` is that of the last turn, or ``aborted`` if this library ended the run: ``abort`` then says why.
    ``usage`` is the sum of all turns and of what the tools report. ``new_messages`` are those of all steps. Append them
    to the history: it can then be sent again, unless a tool call without a result was left to the caller. ``output``
    is the JSON data of ``run_chat(…, output=T)``; None if there is none. ``pending``: the calls that wait for a person.
    ``run_chat(…, decisions=…)`` goes on with them. An aborted run answers its own calls; those that
    waited before it keep waiting.
    """

    type: ClassVar[Literal["run_finished"]] = "run_finished"
    run_id: str
    reason: FinishReason = field(metadata=nested(FinishReason))
    usage: Usage
    new_messages: tuple[Message, ...] = field(metadata=nested(Message))
    abort: Abort | None = None
    output: Any = field(default=None, metadata=nested_or_absent(dict))
    pending: tuple[ToolCallBlock, ...] = field(default=(), metadata=nested_or_absent(ToolCallBlock))


Chunk = (
    TextDelta
    | ReasoningDelta
    | ReasoningFinished
    | RedactedReasoning
    | ToolCallStarted
    | ToolCallArgsDelta
    | ToolCallFinished
    | ToolCallMalformed
    | ProviderBlockFinished
    | TurnFinished
    | RunStarted
    | StepStarted
    | HistoryCompacted
    | ToolResult
    | StepFinished
    | RunFinished
)
"""Any chunk. ``if chunk.type == "text_delta"`` tells a type checker its class. (With StreamChunk it does not.)"""
