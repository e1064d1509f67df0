"""reasoning_effort in the words of each API: the nearest word where one is missing."""

from __future__ import annotations

from collections.abc import Sequence

from completion.contract.request import EFFORTS


def nearest_effort(wanted: str, supported: Sequence[str]) -> str:
    """The supported word that is nearest to the wanted one; of two, the smaller effort.

    "none" turns the reasoning off, so it never stands for another word.
    """
    if wanted in supported:
        return wanted
    others = [word for word in EFFORTS if word in supported and word != "none"] or list(supported)
    return min(others, key=lambda word: abs(EFFORTS.index(word) - EFFORTS.index(wanted)))


def effort_word(budget: int) -> str:
    """The effort nearest to a budget in tokens, for APIs that accept a word. A budget of 0 is no reasoning."""
    if budget == 0:
        return "none"
    return "low" if budget < 2048 else "medium" if budget < 8192 else "high"
