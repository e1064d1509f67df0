"""A complete turn: the answer of the model to one request."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar, overload

from completion.contract.chunks import (
    FinishReason,
    ToolCallMalformed,
    Usage,
)
from completion.contract.citations import Citation, distinct_sources
from completion.contract.codec import Record, nested
from completion.contract.markdown import code, document, fenced
from completion.contract.messages import (
    ImageBlock,
    Message,
    ProviderBlock,
    ReasoningBlock,
    ToolCallBlock,
)

if TYPE_CHECKING:
    from completion.contract.request import JsonSchema

T = TypeVar("T")

_NORMAL_REASONS = (FinishReason.END_TURN, FinishReason.TOOL_USE, FinishReason.STOP_SEQUENCE)


@dataclass(frozen=True, slots=True)
class Turn(Record):
    """One answer of the model.

    ``message`` can be appended to the history. It includes reasoning and signatures. ``reason`` is None in the
    ``partial`` of an error, because the turn did not end. ``malformed_calls`` are the calls whose arguments are not a
    JSON object. ``message`` does not contain them, because no provider accepts them in a history.
    """

    message: Message
    reason: FinishReason | None = field(default=None, metadata=nested(FinishReason))
    usage: Usage | None = None
    service_tier: str | None = None
    provider_reason: str | None = None
    stop_sequence: str | None = None
    response_id: str | None = None
    response_model: str | None = None
    malformed_calls: tuple[ToolCallMalformed, ...] = field(default=(), metadata=nested(ToolCallMalformed))

    def __str__(self) -> str:
        """The text of the answer."""
        return self.text

    @property
    def text(self) -> str:
        """The text of the answer."""
        return self.message.text

    @property
    def images(self) -> tuple[ImageBlock, ...]:
        """The images that the model made, in its order: ``turn.images[0].save("cat")``."""
        return self.message.images

    @property
    def reasoning(self) -> str:
        """The text of the reasoning; empty if the provider does not show it."""
        return "".join(block.text for block in self.message.blocks if isinstance(block, ReasoningBlock))

    @property
    def tool_calls(self) -> tuple[ToolCallBlock, ...]:
        """The complete tool calls, in the model's order."""
        return tuple(block for block in self.message.blocks if isinstance(block, ToolCallBlock))

    @property
    def citations(self) -> tuple[Citation, ...]:
        """The sources that the answer cites, in the order of the provider. A source may be cited more than once."""
        blocks = (block for block in self.message.blocks if isinstance(block, ProviderBlock))
        return tuple(citation for block in blocks for citation in block.citations)

    @overload
    def parse(self, kind: JsonSchema) -> Any: ...
    @overload
    def parse(self, kind: type[T]) -> T: ...
    @overload
    def parse(self, kind: object) -> Any: ...
    def parse(self, kind: Any) -> Any:
        """The answer as a value of a type: the last step of ``structured``. A JsonSchema returns plain data.

        The JSON is taken out of the text, or out of the arguments if the answer is one tool call.

        Raises:
            OutputError: the answer does not fit, is cut off, refused or empty.
            TypeError: the type has no JSON Schema.
            ConfigurationError: the extra ``tools`` is not installed.
        """
        from completion.contract.answer import parse_turn  # imports pydantic: only if an answer is parsed

        return parse_turn(self, kind)

    def _repr_markdown_(self) -> str:
        """Markdown for a notebook. A note at the end says so if the turn did not end normally."""
        malformed = [
            f"*Malformed call* {code(call.name)} *as* {code(call.call_id)}: {call.error}\n\n{fenced(call.raw)}"
            for call in self.malformed_calls
        ]
        if self.reason is None:
            end = "*The answer broke off here.*"
        else:
            end = "" if self.reason in _NORMAL_REASONS else f"*The answer stopped early:* {code(self.reason)}"
        sources = [
            f"{n}. {' '.join(code(text) for text in (title, url) if text)}"
            for n, (title, url) in enumerate(distinct_sources(self.citations), 1)
        ]
        listed = "\n".join(["*Sources*", "", *sources]) if sources else ""
        return document([self.message._repr_markdown_(), listed, *malformed, end])
