"""How many tokens a request takes, guessed from its bytes."""

from __future__ import annotations

import json

from completion.contract.messages import (
    Block,
    Message,
    ProviderBlock,
    ReasoningBlock,
    RedactedReasoningBlock,
    TextBlock,
    ToolCallBlock,
    ToolResultBlock,
)
from completion.contract.request import ChatRequest, system_text

_BYTES_PER_TOKEN = 4


_TOKENS_PER_MESSAGE = 4


_TOKENS_PER_FILE = 1500
"""Guesses, until the provider has counted for the first time: English takes 4 to 5 bytes, a picture 100 to 5000."""


def _guess(request: ChatRequest) -> float:
    """How many tokens the request takes, as far as its bytes tell."""
    fixed = [system_text(request), *(json.dumps(tool.to_dict(), ensure_ascii=False) for tool in request.tools)]
    return sum(map(_guess_of_text, fixed)) + sum(map(_guess_of_message, request.messages))


def _guess_of_message(message: Message) -> float:
    return _TOKENS_PER_MESSAGE + sum(map(_guess_of_block, message.blocks))


def _guess_of_block(block: Block) -> float:
    match block:
        case TextBlock(text) | ReasoningBlock(text):
            return _guess_of_text(text)
        case ToolCallBlock(_, name, args):
            return _guess_of_text(name + json.dumps(args, ensure_ascii=False, default=repr))
        case ToolResultBlock(_, inner):
            return _TOKENS_PER_MESSAGE + sum(map(_guess_of_block, inner))
        case RedactedReasoningBlock(data):
            return _guess_of_text(data)
        case ProviderBlock(_, data):
            return _guess_of_text(json.dumps(data, ensure_ascii=False, default=repr))
    return _TOKENS_PER_FILE


def _guess_of_text(text: str) -> float:
    return len(text.encode("utf-8", "surrogatepass")) / _BYTES_PER_TOKEN
