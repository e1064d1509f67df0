"""The names of Cohere's chat."""

from __future__ import annotations

from completion.contract.chunks import FinishReason

WIRE = "cohere"

# Cohere sends them in upper case. The last three are from version 1 of the API, and some clouds still send them.
FINISH_REASONS = {
    "complete": FinishReason.END_TURN,
    "stop_sequence": FinishReason.STOP_SEQUENCE,
    "max_tokens": FinishReason.MAX_TOKENS,
    "tool_call": FinishReason.TOOL_USE,
    "error_limit": FinishReason.CONTEXT_OVERFLOW,
    "error_toxic": FinishReason.CONTENT_FILTER,
    "user_cancel": FinishReason.ABORTED,
}

# The finish reason of an answer that the server could not complete -> the code of the error.
FAILED = {"error": "server_error", "timeout": "timeout_error"}

TOOL_CHOICES = {"any": "REQUIRED", "tool": "REQUIRED", "none": "NONE"}

THINKING = {"type": "thinking"}
"""The ``wire_data`` of reasoning. Only reasoning that has it is sent back."""

BUDGETS = {"minimal": 512, "low": 1024, "medium": 4096, "high": 16384, "xhigh": 24576, "max": 31000}
"""The budget in tokens for each effort. Cohere advises to leave 1,000 of the 32,000 output tokens for the answer."""

# The types of provider blocks that we make ourselves:
#   {"type": "tool_plan", "tool_plan": "I will …"}       the plan for the calls that follow
#   {"type": "citations", "citations": [{…}]}            citations of the text before it
TOOL_PLAN, CITATIONS = "tool_plan", "citations"

SEE_DOCUMENTS = "(See the documents.)"
"""The text of a user message that contains only documents: those are sent outside of the messages."""
