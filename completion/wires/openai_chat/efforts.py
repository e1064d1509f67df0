"""Which words for reasoning_effort OpenAI's models accept: by the version in the model id, not by a list of names."""

from __future__ import annotations

import re

_GPT = re.compile(r"(?:^|[/.:@])gpt-(\d+)(?:\.(\d+))?(?![a-z\d])", re.IGNORECASE)
_O_SERIES = re.compile(r"(?:^|[/.:@])o\d(?![a-z\d])", re.IGNORECASE)

# The first version with these words, the newest first.
_WORDS = (
    ((5, 6), ("none", "low", "medium", "high", "xhigh", "max")),
    ((5, 2), ("none", "low", "medium", "high", "xhigh")),
    ((5, 1), ("none", "low", "medium", "high")),
    ((5, 0), ("minimal", "low", "medium", "high")),
)


def openai_efforts(model: str) -> tuple[str, ...] | None:
    """The words that the model accepts; None if the id does not say what it is."""
    found = _GPT.search(model)
    if found:
        version = int(found[1]), int(found[2] or 0)
        return next((words for since, words in _WORDS if version >= since), None)
    return ("low", "medium", "high") if _O_SERIES.search(model) else None
