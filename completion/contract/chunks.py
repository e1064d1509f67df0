"""The answer of a model: a stream of chunks that ends with exactly one TurnFinished.

The order is fixed. Each ToolCallStarted is closed by one ToolCallFinished or ToolCallMalformed before another call
starts. A reasoning block is closed before text or a call starts. Nothing follows TurnFinished.

    match chunk:
        case TextDelta(delta=text): print(text, end="")
        case TurnFinished(reason=reason, usage=usage): ...
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar, overload

from completion.contract.citations import Citation
from completion.contract.codec import Record, Tagged, nested, nested_or_absent, nested_tuple_or_absent

if TYPE_CHECKING:
    from completion.contract.run import Chunk

    ChunkT = TypeVar("ChunkT", bound=Chunk)


class FinishReason(str, Enum):
    """Why the model stopped. The provider's own word is in ``TurnFinished.provider_reason``."""

    END_TURN = "end_turn"
    TOOL_USE = "tool_use"
    MAX_TOKENS = "max_tokens"
    STOP_SEQUENCE = "stop_sequence"
    CONTENT_FILTER = "content_filter"
    REFUSAL = "refusal"
    PAUSE = "pause"  # the provider interrupts a long turn: append the message and send the history again
    CONTEXT_OVERFLOW = "context_overflow"
    ABORTED = "aborted"  # this library ended the run, see RunFinished.abort
    OTHER = "other"

    def __str__(self) -> str:
        return str(self.value)

    def __repr__(self) -> str:
        return f"FinishReason.{self.name}"


@dataclass(frozen=True, slots=True)
class Usage(Record):
    """The tokens of one turn, or of several turns added with ``+``.

    ``input_tokens`` and ``output_tokens`` are totals on every provider: they include cached and reasoning tokens. The
    other fields are parts of these two.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    cache_creation_input_tokens: int = 0
    cache_creation_5m_tokens: int = 0
    cache_creation_1h_tokens: int = 0
    reasoning_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        if not isinstance(other, Usage):
            return NotImplemented
        return Usage(*(getattr(self, name) + getattr(other, name) for name in self.__slots__))


class StreamChunk(Tagged):
    """One step of an answer; the base class of all chunks."""

    __slots__ = ()

    # TextDelta.from_json is a TextDelta, StreamChunk.from_json a Chunk: ``if chunk.type == "text_delta"`` narrows.
    if TYPE_CHECKING:

        @overload
        @classmethod
        def from_dict(cls: type[ChunkT], document: Mapping[str, Any]) -> ChunkT: ...  # type: ignore[misc]
        @overload
        @classmethod
        def from_dict(cls, document: Mapping[str, Any]) -> Chunk: ...
        @classmethod
        def from_dict(cls, document: Mapping[str, Any]) -> Any: ...

        @overload
        @classmethod
        def from_json(cls: type[ChunkT], text: str | bytes) -> ChunkT: ...  # type: ignore[misc]
        @overload
        @classmethod
        def from_json(cls, text: str | bytes) -> Chunk: ...
        @classmethod
        def from_json(cls, text: str | bytes) -> Any: ...


@dataclass(frozen=True, slots=True)
class TextDelta(StreamChunk):
    """More text; never empty."""

    type: ClassVar[Literal["text_delta"]] = "text_delta"
    delta: str


@dataclass(frozen=True, slots=True)
class ReasoningDelta(StreamChunk):
    """More text of the model's reasoning; never empty."""

    type: ClassVar[Literal["reasoning_delta"]] = "reasoning_delta"
    delta: str


@dataclass(frozen=True, slots=True)
class ReasoningFinished(StreamChunk):
    """Closes one reasoning block, which may be empty.

    ``signature`` is opaque: the provider needs it to accept the block again. None if the provider sent no signature.
    ``provider`` is the wire that signed it, or ``wire@host`` where servers of one wire do not accept each other's
    signatures. ``wire_data`` is what else the wire needs, such as the field in which the reasoning came.
    """

    type: ClassVar[Literal["reasoning_finished"]] = "reasoning_finished"
    signature: str | None = None
    provider: str | None = None
    wire_data: dict[str, Any] | None = field(default=None, compare=False, metadata=nested_or_absent(dict))


@dataclass(frozen=True, slots=True)
class RedactedReasoning(StreamChunk):
    """A complete reasoning block that the provider encrypted. ``provider``, ``wire_data``: as in ReasoningFinished."""

    type: ClassVar[Literal["redacted_reasoning"]] = "redacted_reasoning"
    data: str
    provider: str | None = None
    wire_data: dict[str, Any] | None = field(default=None, compare=False, metadata=nested_or_absent(dict))


@dataclass(frozen=True, slots=True)
class ToolCallStarted(StreamChunk):
    """The model calls a tool. ``call_id`` is unique in the turn."""

    type: ClassVar[Literal["tool_call_started"]] = "tool_call_started"
    call_id: str
    name: str


@dataclass(frozen=True, slots=True)
class ToolCallArgsDelta(StreamChunk):
    """More JSON text of the arguments; the deltas of a call, joined, are the whole text."""

    type: ClassVar[Literal["tool_call_args_delta"]] = "tool_call_args_delta"
    call_id: str
    delta: str


@dataclass(frozen=True, slots=True)
class ToolCallFinished(StreamChunk):
    """The call is complete. ``args`` is the JSON object; ``{}`` if the model wrote blank text.

    Gemini signs calls: ``signature``, ``provider`` and ``wire_data`` are as in ReasoningFinished.
    """

    type: ClassVar[Literal["tool_call_finished"]] = "tool_call_finished"
    call_id: str
    name: str
    args: dict[str, Any] = field(metadata=nested(dict))
    signature: str | None = None
    provider: str | None = None
    wire_data: dict[str, Any] | None = field(default=None, compare=False, metadata=nested_or_absent(dict))


@dataclass(frozen=True, slots=True)
class ToolCallMalformed(StreamChunk):
    """The call is complete, and its arguments are not a JSON object or are nested deeper than 100 levels.

    ``raw`` is the text of the arguments, ``error`` says what is wrong with it.
    """

    type: ClassVar[Literal["tool_call_malformed"]] = "tool_call_malformed"
    call_id: str
    name: str
    raw: str
    error: str


@dataclass(frozen=True, slots=True)
class ProviderBlockFinished(StreamChunk):
    """A complete block of a kind that only this provider has: server tools, custom tools, citations.

    ``citations``: the sources that the block cites, in the same form on every provider. Only ``data`` goes back to the
    provider, so two blocks with the same ``data`` are equal.
    """

    type: ClassVar[Literal["provider_block"]] = "provider_block"
    provider: str
    data: dict[str, Any] = field(metadata=nested(dict))
    citations: tuple[Citation, ...] = field(default=(), compare=False, metadata=nested_tuple_or_absent(Citation))


@dataclass(frozen=True, slots=True)
class TurnFinished(StreamChunk):
    """The turn is complete. ``usage`` is None if the provider did not report it.

    ``provider_reason`` is the provider's own word for ``reason``.
    """

    type: ClassVar[Literal["turn_finished"]] = "turn_finished"
    reason: FinishReason = field(metadata=nested(FinishReason))
    usage: Usage | None = None
    service_tier: str | None = None
    provider_reason: str | None = None
    stop_sequence: str | None = None
    response_id: str | None = None
    response_model: str | None = None
