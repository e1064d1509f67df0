"""Claude, for the wires of Anthropic and of Bedrock.

reasoning_effort -> ``thinking`` and ``output_config.effort``, depending on the version of the model:

before 4.6      a budget of tokens
4.6             adaptive thinking with an effort, or a budget
4.7 and later   adaptive thinking with an effort
5.5 and later   thinking cannot be disabled, only limited to what is between tool calls
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from completion.wires.efforts import effort_word, nearest_effort

# The largest one leaves room for the default max_tokens below the 32,000 tokens of the oldest models.
BUDGETS = {"low": 1024, "medium": 4096, "high": 16384, "xhigh": 24576, "max": 27904}

MIN_BUDGET = 1024
"""The smallest budget that the API accepts."""

Version = tuple[int, int]

ADAPTIVE_SINCE: Version = (4, 6)
"""The first version that accepts an effort."""

ADAPTIVE_ONLY_SINCE: Version = (4, 7)
"""The first version that refuses a budget, and sampling parameters."""

ALWAYS_THINKS_SINCE: Version = (5, 5)
"""The first version that refuses ``disabled``, a forced call, and to continue an answer."""

NEWEST: Version = (99, 0)
"""Stands for the version of a Claude whose name has none: it is probably a new one."""


def version_of(model: str) -> Version | None:
    """The version in a model id: (4, 6) in claude-opus-4-6-20260205. NEWEST for a Claude without a version; None for
    the model of another maker."""
    # claude-3-7-sonnet-20250219, claude-sonnet-4-20250514, anthropic.claude-opus-4-6-v1, claude-opus-4.7,
    # claude-opus-5, anthropic.claude-v2:1
    found = re.search(r"claude-(?:[a-z]+-)*v?(\d{1,2})(?:[-.](\d{1,2}))?(?!\d)", model.lower())
    if found:
        return int(found[1]), int(found[2] or 0)
    if "claude-instant" in model.lower():
        return 1, 0
    return NEWEST if "claude" in model.lower() else None


def always_thinks(version: Version | None) -> bool:
    """The model refuses what does not go together with thinking. Not for a Claude whose version is unknown."""
    return version is not None and ALWAYS_THINKS_SINCE <= version < NEWEST


def refuses_sampling(version: Version | None) -> bool:
    """The model answers 400 to temperature, top_p and top_k. Not for a Claude whose version is unknown."""
    return version is not None and ADAPTIVE_ONLY_SINCE <= version < NEWEST


# Fable and Mythos always think, whatever their version: they answer 400 to ``disabled``.
_REFUSES_DISABLED = re.compile(r"claude-(?:fable|mythos)", re.IGNORECASE)

THINKS_BY_DEFAULT_SINCE: Version = (5, 0)
"""The first version that thinks if the request has no ``thinking``."""


class Thinking(NamedTuple):
    """What to send; None for a field that is not sent. ``is_exact``: the API supports the effort that was asked for."""

    thinking: dict[str, Any] | None = None
    effort: str | None = None
    is_exact: bool = True


def thinking_of(effort: str | int | None, version: Version | None, model: str) -> Thinking:
    """The fields for ``reasoning_effort``. A version of None is the model of another maker: it gets a budget."""
    if effort is None:
        return Thinking()
    version = version or (0, 0)
    if effort in ("none", 0) and _REFUSES_DISABLED.search(model):
        return Thinking({"type": "adaptive"}, "low", is_exact=False)
    if effort in ("none", 0):
        # Its "off": the model thinks between tool calls only.
        kind = "between_tools" if always_thinks(version) else "disabled"
        return Thinking({"type": kind})
    if isinstance(effort, int):
        if version < ADAPTIVE_ONLY_SINCE:
            return Thinking(_budget(max(effort, MIN_BUDGET)))
        return Thinking({"type": "adaptive"}, effort_word(effort), is_exact=False)
    if version < ADAPTIVE_SINCE:
        word = nearest_effort(effort, tuple(BUDGETS))
        return Thinking(_budget(BUDGETS[word]), is_exact=word == effort)
    if effort == "minimal" and version < THINKS_BY_DEFAULT_SINCE:  # without ``thinking`` these models do not think
        return Thinking(None, "low")
    words = ("low", "medium", "high", "max") if version < ADAPTIVE_ONLY_SINCE else tuple(BUDGETS)
    word = nearest_effort(effort, words)
    return Thinking({"type": "adaptive"}, word, is_exact=word == effort)


def _budget(tokens: int) -> dict[str, Any]:
    return {"type": "enabled", "budget_tokens": tokens}
