"""A history of messages: is it valid, where do its exchanges start, and how does it read as text."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from completion.contract.messages import (
    Block,
    Message,
    ReasoningBlock,
    RedactedReasoningBlock,
    TextBlock,
    ToolCallBlock,
    ToolResultBlock,
)


def starts_exchange(message: Message) -> bool:
    """Whether this is a new message of the user, and not tool results."""
    return message.role == "user" and not any(isinstance(block, ToolResultBlock) for block in message.blocks)


def why_invalid(messages: Iterable[Message]) -> str | None:
    """Why a tool result of this history is out of place; None if all have their place.

    Each result must follow its call before the model's next message. A call without a result is no fault: each wire
    adds the missing result.
    """
    open_calls: set[str] = set()
    unanswered: set[str] = set()
    role = None
    for message in messages:
        # Results may be spread over several user messages: calls must be answered once the user's messages end.
        if role == "user" != message.role:
            unanswered |= open_calls
            open_calls = set()
        role = message.role
        answered = {block.call_id for block in message.blocks if isinstance(block, ToolResultBlock)}
        if unknown := answered - open_calls:
            names = ", ".join(sorted(unknown))
            if unknown & unanswered:
                return (
                    f"there is no tool result for the call {names} directly behind it, and a later one comes too late"
                )
            return f"there is a tool result for {names}, but no such call before it"
        open_calls -= answered
        open_calls |= {block.call_id for block in message.blocks if isinstance(block, ToolCallBlock)}
    return None


def open_calls_of(messages: Sequence[Message]) -> list[ToolCallBlock]:
    """The calls of the model's last message that have no result behind it."""
    answered: set[str] = set()
    for message in reversed(messages):
        if message.role == "assistant":
            calls = [block for block in message.blocks if isinstance(block, ToolCallBlock)]
            return [call for call in calls if call.call_id not in answered]
        answered |= {block.call_id for block in message.blocks if isinstance(block, ToolResultBlock)}
    return []


def ends_with_results(messages: Sequence[Message]) -> bool:
    """Whether the last message contains tool results, which the model has not read."""
    return bool(messages) and any(isinstance(block, ToolResultBlock) for block in messages[-1].blocks)


def why_unanswered(messages: Sequence[Message]) -> str | None:
    """The calls at the end of the history that have no result; None if there are none."""
    calls = open_calls_of(messages)
    return f"there is no tool result for the call {', '.join(call.call_id for call in calls)}" if calls else None


def as_transcript(messages: Iterable[Message]) -> str:
    """The messages as text, for the model to summarize. Reasoning is left out."""
    return "\n\n".join(line for message in messages for block in message.blocks if (line := _line(message, block)))


def _line(message: Message, block: Block) -> str:
    match block:
        case TextBlock(text):
            return f"{message.role.capitalize()}: {text}"
        case ToolCallBlock(_, name, args):
            return f"Assistant called {name} with {json.dumps(args, ensure_ascii=False, default=repr)}"
        case ToolResultBlock(_, inner):
            return f"Result: {' '.join(_line(message, item).removeprefix('User: ') for item in inner)}"
        case ReasoningBlock() | RedactedReasoningBlock():
            return ""
    return f"{message.role.capitalize()}: [{block.type}]"
