"""What is answered: a stream of chunks, ended by exactly one TurnFinished.

Pairs nest cleanly: a ToolCallStarted is closed by one ToolCallFinished or ToolCallMalformed before any other call
starts, reasoning is closed before text or a call starts, and nothing comes after TurnFinished.

    match chunk:
        case TextDelta(delta=text): print(text, end="")
        case TurnFinished(reason=reason, usage=usage): ...
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any, ClassVar

from completion.contract.codec import Record, Tagged, nested


class FinishReason(str, Enum):
    """Why the model stopped. The provider's own word is in ``TurnFinished.provider_reason``."""

    END_TURN = "end_turn"
    TOOL_USE = "tool_use"
    MAX_TOKENS = "max_tokens"
    STOP_SEQUENCE = "stop_sequence"
    CONTENT_FILTER = "content_filter"
    REFUSAL = "refusal"
    PAUSE = "pause"
    CONTEXT_OVERFLOW = "context_overflow"
    ABORTED = "aborted"
    OTHER = "other"

    def __str__(self) -> str:
        return str(self.value)


@dataclass(frozen=True, slots=True)
class Usage(Record):
    """Tokens of one turn, or of several added with ``+``.

    ``input_tokens`` and ``output_tokens`` are totals on every provider, cached and reasoning tokens included;
    the others are parts of them.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    cache_creation_input_tokens: int = 0
    cache_creation_5m_tokens: int = 0
    cache_creation_1h_tokens: int = 0
    reasoning_tokens: int = 0

    def __add__(self, other: object) -> Usage:
        if not isinstance(other, Usage):
            return NotImplemented
        return Usage(*(getattr(self, name) + getattr(other, name) for name in self.__slots__))


class StreamChunk(Tagged):
    """A piece of an answer."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class TextDelta(StreamChunk):
    """More text; never empty."""

    type: ClassVar[str] = "text_delta"
    delta: str


@dataclass(frozen=True, slots=True)
class ReasoningDelta(StreamChunk):
    """More of what the model thinks; never empty."""

    type: ClassVar[str] = "reasoning_delta"
    delta: str


@dataclass(frozen=True, slots=True)
class ReasoningFinished(StreamChunk):
    """Closes one block of reasoning, perhaps an empty one. ``signature`` is opaque."""

    type: ClassVar[str] = "reasoning_finished"
    signature: str | None = None


@dataclass(frozen=True, slots=True)
class RedactedReasoning(StreamChunk):
    """A whole block of reasoning that the provider encrypted."""

    type: ClassVar[str] = "redacted_reasoning"
    data: str


@dataclass(frozen=True, slots=True)
class ToolCallStarted(StreamChunk):
    """The model asks for a tool. ``call_id`` is unique in the turn."""

    type: ClassVar[str] = "tool_call_started"
    call_id: str
    name: str


@dataclass(frozen=True, slots=True)
class ToolCallArgsDelta(StreamChunk):
    """More text of the arguments; all of a call's deltas add up to its arguments."""

    type: ClassVar[str] = "tool_call_args_delta"
    call_id: str
    delta: str


@dataclass(frozen=True, slots=True)
class ToolCallFinished(StreamChunk):
    """The call is complete. ``args`` is the JSON object, ``{}`` where the model gave blank text."""

    type: ClassVar[str] = "tool_call_finished"
    call_id: str
    name: str
    args: dict[str, Any] = field(metadata=nested(dict))
    signature: str | None = None


@dataclass(frozen=True, slots=True)
class ToolCallMalformed(StreamChunk):
    """The call is over and its arguments are no JSON object, or nested deeper than 100 levels: ``raw`` is their text,
    ``error`` what is wrong."""

    type: ClassVar[str] = "tool_call_malformed"
    call_id: str
    name: str
    raw: str
    error: str


@dataclass(frozen=True, slots=True)
class ProviderBlockFinished(StreamChunk):
    """A whole block of a kind that the contract does not model: server tools, custom tools, citations."""

    type: ClassVar[str] = "provider_block"
    provider: str
    data: dict[str, Any] = field(metadata=nested(dict))


@dataclass(frozen=True, slots=True)
class TurnFinished(StreamChunk):
    """The good end of a turn. ``usage`` is None where the provider did not say."""

    type: ClassVar[str] = "turn_finished"
    reason: FinishReason = field(metadata=nested(FinishReason))
    usage: Usage | None = None
    service_tier: str | None = None
    provider_reason: str | None = None
    stop_sequence: str | None = None
    response_id: str | None = None
    response_model: str | None = None
