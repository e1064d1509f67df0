"""How many tokens a request has, guessed from its size in bytes.

A guess without a tokenizer: the conversation multiplies it by a factor that it learns from the provider's counts.
"""

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

# Used until the provider has counted a request for the first time.
_BYTES_PER_TOKEN = 4  # English text: 4 to 5
_TOKENS_PER_MESSAGE = 4  # the marks between messages
_TOKENS_PER_FILE = 1500  # images: 100 to 5000


def guess_request(request: ChatRequest) -> float:
    """The guessed number of tokens of the system prompt, the tools and all messages."""
    fixed = [system_text(request), *(json.dumps(tool.to_dict(), ensure_ascii=False) for tool in request.tools)]
    return sum(map(_guess_text, fixed)) + sum(map(guess_message, request.messages))


def guess_message(message: Message) -> float:
    return _TOKENS_PER_MESSAGE + sum(map(_guess_block, message.blocks))


def _guess_block(block: Block) -> float:
    match block:
        case TextBlock(text) | ReasoningBlock(text):
            return _guess_text(text)
        case ToolCallBlock(_, name, args):
            return _guess_text(name + json.dumps(args, ensure_ascii=False, default=repr))
        case ToolResultBlock(_, inner):
            return _TOKENS_PER_MESSAGE + sum(map(_guess_block, inner))
        case RedactedReasoningBlock(data):
            return _guess_text(data)
        case ProviderBlock(_, data):
            return _guess_text(json.dumps(data, ensure_ascii=False, default=repr))
    return _TOKENS_PER_FILE


def _guess_text(text: str) -> float:
    return len(text.encode("utf-8", "surrogatepass")) / _BYTES_PER_TOKEN
