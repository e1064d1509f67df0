"""A history of messages: is it valid, where do its exchanges start, and how does it read as text."""

from __future__ import annotations

import json
from collections.abc import Iterable

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
    """Why every provider would refuse this history; None if it is valid.

    Each tool result must follow its call, and all calls must be answered before the model's next message.
    """
    open_calls: set[str] = set()
    role = None
    for message in messages:
        # Results may be spread over several user messages: calls must be answered once the user's messages end.
        if role == "user" != message.role and open_calls:
            break
        role = message.role
        answered = {block.call_id for block in message.blocks if isinstance(block, ToolResultBlock)}
        if unknown := answered - open_calls:
            return f"there is a tool result for {', '.join(sorted(unknown))}, but no such call before it"
        open_calls -= answered
        open_calls |= {block.call_id for block in message.blocks if isinstance(block, ToolCallBlock)}
    return f"there is no tool result for the call {', '.join(sorted(open_calls))}" if open_calls else None


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
