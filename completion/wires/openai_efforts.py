"""Which words for reasoning_effort OpenAI's models accept: by the version in the model id, not by a list of names."""

from __future__ import annotations

import re
from collections.abc import Sequence

from completion.wires.efforts import effort_word, nearest_effort

# gpt-5.6, openai/gpt-5.4-pro, azure_gpt-5.6, us-gpt-5.4, openai--gpt-5.4-codex
_GPT = re.compile(r"(?<![a-z\d])gpt-(\d+)(?:\.(\d+))?(?![a-z\d])((?:-[a-z]+)*)", re.IGNORECASE)
# Only OpenAI's: other makers have models with names like marco-o1.
_O_SERIES = re.compile(r"(?:^|[/.:@_]|--|\b(?:us|eu|azure|openai)-)o\d(?![a-z\d])", re.IGNORECASE)

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
    if found is None:
        return ("low", "medium", "high") if _O_SERIES.search(model) else None
    version = int(found[1]), int(found[2] or 0)
    words = next((words for since, words in _WORDS if version >= since), None)
    return words and _words_of_variant(found[3].lower(), version, words)


def _words_of_variant(variant: str, version: tuple[int, int], words: tuple[str, ...]) -> tuple[str, ...]:
    """What is left of the words of the version. ``variant`` is what follows it in the model id: ``-codex-max``."""
    names = variant.split("-")
    if "chat" in names and version >= (5, 1):
        return ("medium",)
    if "pro" in names:
        return ("high",) if version < (5, 2) else tuple(word for word in words if word not in ("none", "low"))
    if "codex" in names:
        words = tuple(word for word in words if word not in ("none", "minimal"))
        return words if "max" not in names or "xhigh" in words else (*words, "xhigh")
    return words


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
