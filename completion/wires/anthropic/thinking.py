"""reasoning_effort -> ``thinking`` and ``output_config.effort``, depending on the version of the model."""

from __future__ import annotations

import re
from typing import Any

from completion.wires.lowering import effort_word

# Models before 4.6 accept a budget of tokens. 4.6 accepts a budget or an effort. Later models accept an effort only.
BUDGETS = {"minimal": 0, "low": 1024, "medium": 4096, "high": 16384}


MIN_BUDGET = 1024
"""The smallest budget that the API accepts."""


ADAPTIVE_SINCE = (4, 6)
"""The first version that accepts an effort."""


ADAPTIVE_ONLY_SINCE = (4, 7)
"""The first version that refuses a budget."""


NEWEST = (99, 0)
"""Stands for the version of a Claude whose name has none: it is probably a new one."""


def _version_of(model: str) -> tuple[int, int] | None:
    """The version in a model id: (4, 6) in claude-opus-4-6-20260205. NEWEST for a Claude without a version; None for
    the model of another maker."""
    # claude-3-7-sonnet-20250219, claude-sonnet-4-20250514, anthropic.claude-opus-4-6-v1, claude-opus-4.7, claude-opus-5
    found = re.search(r"claude-(?:[a-z]+-)*(\d{1,2})(?:[-.](\d{1,2}))?(?!\d)", model.lower())
    if found:
        return int(found[1]), int(found[2] or 0)
    return NEWEST if "claude" in model.lower() else None


def thinking_and_effort(effort: str | int | None, model: str) -> tuple[dict[str, Any] | None, str | None]:
    """What to send as ``thinking`` and as ``output_config.effort``; None for a field that is not sent."""
    if effort is None:
        return None, None
    version = _version_of(model)
    effort = effort or "minimal"  # a budget of 0
    adaptive_since = ADAPTIVE_SINCE if isinstance(effort, str) else ADAPTIVE_ONLY_SINCE
    is_adaptive = version is not None and version >= adaptive_since
    if not is_adaptive:
        budget = BUDGETS[effort] if isinstance(effort, str) else effort
        if not budget:
            return {"type": "disabled"}, None
        return {"type": "enabled", "budget_tokens": max(budget, MIN_BUDGET)}, None
    if effort == "minimal":  # without ``thinking`` these models do not think, and some refuse "disabled"
        return None, "low"
    if isinstance(effort, int):
        effort = effort_word(effort)
    return {"type": "adaptive"}, effort
