"""How the chunks of a stream add up to a Turn."""

from __future__ import annotations

from collections.abc import Iterable
from types import TracebackType

from completion.contract.chunks import (
    ProviderBlockFinished,
    ReasoningDelta,
    ReasoningFinished,
    RedactedReasoning,
    StreamChunk,
    TextDelta,
    ToolCallFinished,
    ToolCallMalformed,
    TurnFinished,
)
from completion.contract.errors import CompletionError, TruncatedStreamError
from completion.contract.messages import (
    Block,
    Message,
    ProviderBlock,
    ReasoningBlock,
    RedactedReasoningBlock,
    TextBlock,
    ToolCallBlock,
)
from completion.contract.run import RunFinished, RunStarted
from completion.contract.turn import Turn


def collect(chunks: Iterable[StreamChunk]) -> Turn:
    """Read a stream to its end and return the turn.

    Raises:
        CompletionError: as the stream raises it; ``partial`` is the Turn so far.
        TruncatedStreamError: the chunks ended without a TurnFinished; ``partial`` is the Turn so far.
        TypeError: these are the chunks of a run.
    """
    with TurnSoFar() as so_far:
        for chunk in chunks:
            so_far.add(chunk)
    return so_far.turn()


def call_block(call: ToolCallFinished) -> ToolCallBlock:
    """The block that represents a finished call in the history."""
    return ToolCallBlock(call.call_id, call.name, call.args, call.signature, call.provider, call.wire_data)


class TurnSoFar:
    """Collects chunks into a turn. ``turn()`` may be called at any time.

    Use it as a context manager around the loop that reads. A CompletionError that leaves the block gets the turn so far
    as its ``partial``. If the block ends without an error and without a TurnFinished, TruncatedStreamError is raised.

    Args:
        accepts_runs: also collect the chunks of a run, which has several turns. Without it ``add`` raises TypeError for
            RunStarted, because the user wants ``RunStream.collect()``: one Turn cannot represent a run.
    """

    def __init__(self, *, accepts_runs: bool = False) -> None:
        self.end: TurnFinished | None = None
        self.run: RunFinished | None = None
        self.has_gap = False
        """True if the stream yielded a chunk that was not added here, so the turn is incomplete. ChatStream sets it."""
        self._accepts_runs = accepts_runs
        self.calls: list[ToolCallFinished | ToolCallMalformed] = []
        self._blocks: list[Block] = []
        # The deltas of the block that is still open. They are joined once: adding to a str copies it each time.
        self._text: list[str] = []
        self._reasoning: list[str] = []

    def __enter__(self) -> TurnSoFar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, CompletionError):
            error.partial = self.turn()
        if error is None:
            self.finish()

    def finish(self) -> None:
        """Raise TruncatedStreamError if the chunks ended without a TurnFinished."""
        if self.end is None and self.run is None and not self.has_gap:
            truncated = TruncatedStreamError("the chunks ended without a TurnFinished")
            truncated.partial = self.turn()
            raise truncated

    @property
    def is_complete(self) -> bool:
        """True if the last chunk was added (TurnFinished; RunFinished if runs are accepted) and none was missed."""
        last = self.run if self._accepts_runs else self.end
        return last is not None and not self.has_gap

    def add(self, chunk: StreamChunk) -> None:
        """Add the next chunk. Unknown chunks are ignored."""
        match chunk:
            case TextDelta(delta):
                self._text.append(delta)
            case ReasoningDelta(delta):
                self._reasoning.append(delta)
            case ReasoningFinished(signature, provider, wire_data):
                self._close_text()
                text = "".join(self._reasoning)
                self._blocks.append(ReasoningBlock(text, signature, provider, wire_data))
                self._reasoning.clear()
            case RedactedReasoning(data, provider, wire_data):
                self._append(RedactedReasoningBlock(data, provider, wire_data))
            case ToolCallFinished():
                self.calls.append(chunk)
                self._append(call_block(chunk))
            case ProviderBlockFinished(provider, data, citations):
                self._append(ProviderBlock(provider, data, citations))
            case ToolCallMalformed():
                self.calls.append(chunk)
            case TurnFinished():
                self.end = chunk
            case RunFinished():
                self.run = chunk
            case RunStarted() if not self._accepts_runs:
                raise TypeError("these are the chunks of a run, not of one turn; call run_chat(...).collect() instead")

    def turn(self) -> Turn:
        """The turn so far. More chunks may be added afterwards."""
        blocks = [*self._blocks]
        if self._text:
            blocks.append(TextBlock("".join(self._text)))
        if self._reasoning:  # the stream ended inside a reasoning block: no ReasoningFinished, so no signature
            blocks.append(ReasoningBlock("".join(self._reasoning)))
        message = Message("assistant", blocks)
        malformed = tuple(call for call in self.calls if isinstance(call, ToolCallMalformed))
        if self.end is None:
            return Turn(message, malformed_calls=malformed)
        end = self.end
        return Turn(
            message,
            reason=end.reason,
            usage=end.usage,
            service_tier=end.service_tier,
            provider_reason=end.provider_reason,
            stop_sequence=end.stop_sequence,
            response_id=end.response_id,
            response_model=end.response_model,
            malformed_calls=malformed,
        )

    def _append(self, block: Block) -> None:
        self._close_text()
        self._blocks.append(block)

    def _close_text(self) -> None:
        if self._text:
            self._blocks.append(TextBlock("".join(self._text)))
            self._text.clear()
