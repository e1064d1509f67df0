"""Checks and texts of a history of messages."""

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


def _begins_an_exchange(message: Message) -> bool:
    return message.role == "user" and not any(isinstance(block, ToolResultBlock) for block in message.blocks)


def _fault(messages: Iterable[Message]) -> str | None:
    """Why no provider would take this history."""
    open_calls: set[str] = set()
    role = None
    for message in messages:
        if role == "user" != message.role and open_calls:
            break
        role = message.role
        answered = {block.call_id for block in message.blocks if isinstance(block, ToolResultBlock)}
        if strays := answered - open_calls:
            return f"there is a result of {', '.join(sorted(strays))}, and no such call before it"
        open_calls -= answered
        open_calls |= {block.call_id for block in message.blocks if isinstance(block, ToolCallBlock)}
    return f"there is no result of the call {', '.join(sorted(open_calls))}" if open_calls else None


def _written(messages: Iterable[Message]) -> str:
    """The messages as a text to be summed up."""
    return "\n\n".join(line for message in messages for block in message.blocks if (line := _line(message, block)))


def _line(message: Message, block: Block) -> str:
    match block:
        case TextBlock(text):
            return f"{message.role.capitalize()}: {text}"
        case ToolCallBlock(_, name, args):
            return f"Assistant called {name} with {json.dumps(args, ensure_ascii=False, default=repr)}"
        case ToolResultBlock(_, inner):
            return f"Result: {' '.join(_line(message, one).removeprefix('User: ') for one in inner)}"
        case ReasoningBlock() | RedactedReasoningBlock():
            return ""
    return f"{message.role.capitalize()}: [{block.type}]"
