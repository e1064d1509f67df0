"""The names of Ollama's native chat."""

from __future__ import annotations

from completion.contract.chunks import FinishReason

WIRE = "ollama"

# "load" and "unload" are not here: they end the answer to a request without messages.
FINISH_REASONS = {"stop": FinishReason.END_TURN, "length": FinishReason.MAX_TOKENS}

THINKING = {"field": "thinking"}
"""The ``wire_data`` of reasoning. Only reasoning that has it is sent back."""

LEVELS = ("low", "medium", "high")
"""The levels of thinking. Only gpt-oss models have them."""

USAGE_COUNTERS = ("prompt_eval_count", "eval_count")
