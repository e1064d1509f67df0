"""reasoning_effort -> ``thinkingConfig``, depending on the version of the model."""

from __future__ import annotations

from typing import Any

from completion.wires.google import LEVELS_SINCE, THINKS_SINCE, thinking_level, version_of

# Models before 3 accept a budget of tokens. Google's compatible endpoint translates low, medium and high to these.
BUDGETS = {"none": 0, "minimal": 512, "low": 1024, "medium": 8192, "high": 24576}

MIN_PRO_BUDGET = 128
"""The smallest budget of gemini-2.5-pro, which always thinks."""


def thinking_config(effort: str | int | None, model: str) -> tuple[dict[str, Any] | None, bool]:
    """What to send as ``thinkingConfig``, None for nothing; and whether the model cannot do what was asked."""
    if effort is None:
        return None, False
    version = version_of(model)
    is_off = effort in ("none", 0)
    if version is not None and version < THINKS_SINCE:
        return None, not is_off
    if version is not None and version >= LEVELS_SINCE and (is_off or isinstance(effort, str)):
        level, is_exact = thinking_level("none" if is_off else str(effort), model)
        return {"thinkingLevel": level, "includeThoughts": True}, not is_exact  # these models always think
    wanted = BUDGETS.get(effort) if isinstance(effort, str) else effort
    budget = BUDGETS["high"] if wanted is None else wanted
    if version == THINKS_SINCE and "-pro" in model.lower():
        budget = max(budget, MIN_PRO_BUDGET)
    if not budget:
        return {"thinkingBudget": 0}, False  # with a budget of 0 the API refuses includeThoughts
    return {"thinkingBudget": budget, "includeThoughts": True}, budget != wanted
