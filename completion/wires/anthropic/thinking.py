"""reasoning_effort -> what the API takes for it, by the version of the model."""

from __future__ import annotations

import re
from typing import Any

from completion.wires.lowering import effort_word

# Tokens to think with, for models that take a budget: up to 4.6. From 4.6 on they take an effort, too, and from 4.7
# on nothing else.
BUDGETS = {"minimal": 0, "low": 1024, "medium": 4096, "high": 16384}


LEAST_BUDGET = 1024


ADAPTIVE_SINCE = (4, 6)


ADAPTIVE_ONLY_SINCE = (4, 7)


NEWEST = (99, 0)


def _version_of(model: str) -> tuple[int, int] | None:
    """The version in a model id: (4, 6) of claude-opus-4-6-20260205. Of a Claude that names none the newest there is,
    of another's model None."""
    # claude-3-7-sonnet-20250219, claude-sonnet-4-20250514, anthropic.claude-opus-4-6-v1, claude-opus-4.7, claude-opus-5
    found = re.search(r"claude-(?:[a-z]+-)*(\d{1,2})(?:[-.](\d{1,2}))?(?!\d)", model.lower())
    if found:
        return int(found[1]), int(found[2] or 0)
    return NEWEST if "claude" in model.lower() else None


def thinking_and_effort(effort: str | int | None, model: str) -> tuple[dict[str, Any] | None, str | None]:
    """What to send as ``thinking`` and as ``output_config.effort``; None for what is not to be sent."""
    if effort is None:
        return None, None
    version = _version_of(model)
    effort = effort or "minimal"
    adaptive_since = ADAPTIVE_SINCE if isinstance(effort, str) else ADAPTIVE_ONLY_SINCE
    is_adaptive = version is not None and version >= adaptive_since
    if not is_adaptive:
        budget = BUDGETS[effort] if isinstance(effort, str) else effort
        if not budget:
            return {"type": "disabled"}, None
        return {"type": "enabled", "budget_tokens": max(budget, LEAST_BUDGET)}, None
    if effort == "minimal":  # without being asked to it does not think, and some cannot be told not to
        return None, "low"
    if isinstance(effort, int):
        effort = effort_word(effort)
    return {"type": "adaptive"}, effort
