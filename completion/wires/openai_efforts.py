"""Which words for reasoning_effort OpenAI's models accept: by the version in the model id, not by a list of names."""

from __future__ import annotations

import re
from collections.abc import Sequence

from completion.wires.efforts import effort_word, nearest_effort

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


def effort_to_send(
    effort: str | int | None, model: str, supported: Sequence[str] | None, dropped: list[str]
) -> str | None:
    """The word to send; ``reasoning_effort`` is dropped if it is not the one of the request.

    Args:
        supported: the words that the server accepts; None decides by the model id.
    """
    if effort is None:
        return None
    word = effort_word(effort) if isinstance(effort, int) else effort
    supported = supported or openai_efforts(model)
    if supported is None or word in supported:
        return word
    dropped.append("reasoning_effort")
    return nearest_effort(word, supported)
