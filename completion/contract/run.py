"""What a run says between the chunks of its turns: a run is turns of the model, with the tools run in between.

RunStarted
  StepStarted, chunks of a turn, TurnFinished, ToolResult for each call, StepFinished
  StepStarted, …
RunFinished
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from completion.contract.chunks import FinishReason, StreamChunk, Usage
from completion.contract.codec import Record, nested
from completion.contract.messages import Block, Message

AbortKind = Literal["max_iterations", "max_tokens", "timeout", "cancelled", "middleware", "tool"]


@dataclass(frozen=True, slots=True)
class Abort(Record):
    """Why a run was ended from this side. ``message`` is for people."""

    kind: AbortKind
    message: str


@dataclass(frozen=True, slots=True)
class RunStarted(StreamChunk):
    """The first chunk of a run. ``provider`` and ``model`` are the model's ``name`` and ``model``."""

    type: ClassVar[str] = "run_started"
    run_id: str
    provider: str
    model: str


@dataclass(frozen=True, slots=True)
class StepStarted(StreamChunk):
    """A request goes out. ``iteration`` counts from 1."""

    type: ClassVar[str] = "step_started"
    run_id: str
    step_id: str
    iteration: int


@dataclass(frozen=True, slots=True)
class ToolResult(StreamChunk):
    """A call of this turn was answered: by its tool, or with an error that tells the model what to mend."""

    type: ClassVar[str] = "tool_result"
    run_id: str
    step_id: str
    call_id: str
    blocks: tuple[Block, ...] = field(metadata=nested(Block))
    is_error: bool = False


@dataclass(frozen=True, slots=True)
class StepFinished(StreamChunk):
    """A turn is over, or was broken off by an abort, and its calls are answered. ``new_messages`` are those of this
    step alone, and so is ``usage``, what its tools report included."""

    type: ClassVar[str] = "step_finished"
    run_id: str
    step_id: str
    iteration: int
    usage: Usage
    new_messages: tuple[Message, ...] = field(metadata=nested(Message))


@dataclass(frozen=True, slots=True)
class RunFinished(StreamChunk):
    """The last chunk of a run. ``reason`` is that of the last turn, or ``aborted``, and then ``abort`` says why.
    ``usage`` adds up all turns and what tools report. ``new_messages`` are those of all steps: a history to which they
    are appended can be sent again as it is, unless a call was left to the caller."""

    type: ClassVar[str] = "run_finished"
    run_id: str
    reason: FinishReason = field(metadata=nested(FinishReason))
    usage: Usage
    new_messages: tuple[Message, ...] = field(metadata=nested(Message))
    abort: Abort | None = None
