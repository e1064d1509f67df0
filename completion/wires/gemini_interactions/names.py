"""The words of the Interactions API."""

from __future__ import annotations

from completion.contract.chunks import FinishReason

WIRE = "gemini-interactions"


FINISH_REASONS = {
    "completed": FinishReason.END_TURN,
    "requires_action": FinishReason.TOOL_USE,
    "incomplete": FinishReason.MAX_TOKENS,
    "cancelled": FinishReason.ABORTED,
}

FAILED = "failed"
"""The status of an interaction that ended with an error."""


# The types of provider blocks: a step unchanged, such as google_search_call; content of a model_output step that is not
# text; and one that we make ourselves:
#   {"type": "annotations", "annotations": […]}     citations of the text before it
ANNOTATIONS = "annotations"
CONTENT = ("image", "audio", "video", "document")


USAGE_COUNTERS = ("total_input_tokens", "total_output_tokens", "total_tokens")
