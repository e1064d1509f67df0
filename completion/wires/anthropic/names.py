"""The words of Anthropic Messages."""

from __future__ import annotations

from completion.contract.chunks import FinishReason

WIRE = "anthropic"


NO_SAMPLING_SINCE = "2026-10-21"
"""The API version from which on temperature, top_p and top_k are refused, whatever their value."""


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


FAILED = "Error"  # what a failure says that came without words, which the API refuses


LEAST_WHILE_THINKING = {"temperature": 1, "top_p": 0.95}


# Blocks of our own making in a history: what belongs to a block or a message of the wire, and has no place in ours.
#   {"type": "citations", "citations": […], "length": 17}     of the last 17 characters of the text before it
#   {"type": "caller", "tool_use_id": "toolu_1", "caller": {…}}      and what else stands in a call
#   {"type": "message", "container": {…}, "stop_details": {…}, "context_management": {…}}
CITATIONS, CALLER, MESSAGE = "citations", "caller", "message"


TOOL_USE_FIELDS = ("type", "id", "name", "input")


MESSAGE_EXTRAS = ("container", "stop_details", "context_management")


USAGE_COUNTERS = ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
