"""A step of a run: a turn of the model, its tool calls and their results, as messages for the history."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from completion.contract.chunks import FinishReason, ToolCallFinished
from completion.contract.messages import (
    Block,
    Message,
    ReasoningBlock,
    RedactedReasoningBlock,
    ToolCallBlock,
    ToolResultBlock,
)
from completion.contract.turn import Turn
from completion.engine.calls import Call, block_of


@dataclass(slots=True)
class Step:
    """A turn of the model, its tool calls and their results.

    ``own_calls``: the run answers them. ``client_calls``: the caller does. ``follow_up``: messages of middleware that
    asks for another turn; None if it does not ask. ``cut_off``: the id of a call whose arguments are missing.
    """

    turn: Turn
    calls: list[Call]
    own_calls: list[Call]
    client_calls: list[Call]
    results: dict[str, ToolResultBlock] = field(default_factory=dict)
    follow_up: list[Message] | None = None
    is_aborted: bool = False
    has_turn: bool = True
    cut_off: str | None = None

    @classmethod
    def of_decisions(cls, calls: Sequence[ToolCallFinished]) -> Step:
        """A step without a turn: the calls are in the history already."""
        return cls(Turn(Message.assistant([])), [*calls], [*calls], [], has_turn=False)

    @property
    def waiting(self) -> list[Call]:
        """The own calls without a result: they wait for a person."""
        return [call for call in self.own_calls if call.call_id not in self.results]

    @property
    def wants_another_turn(self) -> bool:
        is_paused = self.turn.reason is FinishReason.PAUSE  # the provider continues the answer in the next turn
        is_left_to_others = bool(self.client_calls or self.waiting)
        return not is_left_to_others and (is_paused or bool(self.results) or self.follow_up is not None)

    def messages(self) -> list[Message]:
        """The new messages of the history: the answer, the tool results in the order of the calls, the follow-up."""
        results = [self.results[call.call_id] for call in self.calls if call.call_id in self.results]
        answer = [answer_message(self.turn, self.calls)] if self.has_turn else []
        messages = [*answer, Message.user(results), *(self.follow_up or ())]
        return [message for message in messages if message.blocks]


def answer_message(turn: Turn, calls: Sequence[Call]) -> Message:
    """The model's message for the history.

    Malformed calls are included, because their results need a call to refer to. Reasoning at the end is left out: when
    nothing follows it, its provider would refuse it.
    """
    remaining = iter(calls)
    blocks: list[Block] = []
    for block in turn.message.blocks:
        if isinstance(block, ToolCallBlock):
            # A turn has no block for a malformed call: insert those that came before this call.
            for call in remaining:
                blocks.append(block_of(call))
                if isinstance(call, ToolCallFinished):
                    break
        else:
            blocks.append(block)
    blocks += map(block_of, remaining)
    while blocks and isinstance(blocks[-1], ReasoningBlock | RedactedReasoningBlock):
        blocks.pop()
    return Message.assistant(blocks)
