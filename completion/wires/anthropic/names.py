"""The words and limits of Anthropic Messages."""

from __future__ import annotations

from completion.contract.chunks import FinishReason

WIRE = "anthropic"


STRICTER_SINCE = "2026-10-21"
"""The first API version that refuses temperature, top_p and top_k, documents of the assistant, and citations in text of
the user."""


FINISH_REASONS = {
    "end_turn": FinishReason.END_TURN,
    "tool_use": FinishReason.TOOL_USE,
    "max_tokens": FinishReason.MAX_TOKENS,
    "stop_sequence": FinishReason.STOP_SEQUENCE,
    "refusal": FinishReason.REFUSAL,
    "pause_turn": FinishReason.PAUSE,
    "model_context_window_exceeded": FinishReason.CONTEXT_OVERFLOW,
}


SAMPLING = ("temperature", "top_p", "top_k")


IMAGE_TYPES = ("image/jpeg", "image/png", "image/gif", "image/webp")


MAX_BREAKPOINTS = 4
"""How many cache_control the API accepts in one request."""


EMPTY_ERROR = "Error"
"""The text of a failed tool result without content, which the API refuses."""


MIN_SAMPLING_WHILE_THINKING = {"temperature": 1, "top_p": 0.95}
"""The smallest values that the API accepts while the model thinks. The largest is 1. top_k is always refused."""


# The types of provider blocks that we make ourselves. They keep fields that our blocks and messages do not have.
#   {"type": "citations", "citations": […], "length": 17}     citations of the last 17 characters of the text before it
#   {"type": "caller", "tool_use_id": "toolu_1", "caller": {…}}       other fields of a tool call
#   {"type": "message", "container": {…}, "stop_details": {…}, "context_management": {…}}     other fields of a message
CITATIONS, CALLER, MESSAGE = "citations", "caller", "message"


# The fields of a tool call that our ToolCallBlock has. Others are kept in a block of type CALLER.
TOOL_USE_FIELDS = ("type", "id", "name", "input")


# The fields that are kept in a block of type MESSAGE.
MESSAGE_EXTRAS = ("container", "stop_details", "context_management")


# A usage without any of these is not a usage.
INPUT_COUNTERS = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
OUTPUT_COUNTERS = ("output_tokens",)
USAGE_COUNTERS = (*INPUT_COUNTERS, *OUTPUT_COUNTERS)

COUNTED = (
    *("model", "messages", "system", "tools", "tool_choice", "thinking", "output_config", "cache_control"),
    *("context_management", "mcp_servers", "speed"),
)
"""The fields that ``/v1/messages/count_tokens`` accepts. It refuses others, such as ``max_tokens``.

https://platform.claude.com/docs/en/api/messages/count_tokens (read November 2026)
"""
