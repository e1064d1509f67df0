"""Shortens long texts: their beginning and their end remain, and between them how long the text was."""

from __future__ import annotations

import unicodedata
from dataclasses import replace

from completion.contract.messages import AnyBlock, TextBlock, ToolResultBlock

_HEAD_SHARE = 2 / 3
"""The share of the remaining characters that come from the beginning. The end matters too: errors are often there."""

_JOINS = "\u200d"  # joins two emojis into one
_SKIN_TONES = range(0x1F3FB, 0x1F400)
_MAX_STEPS_BACK = 16


def shortened(result: ToolResultBlock, max_chars: int | None) -> ToolResultBlock:
    """The result with at most ``max_chars`` characters of text; the result itself if it is not longer.

    Blocks that are not text stay. The notice in the place of the cut counts too, unless ``max_chars`` is very small.
    """
    texts = [block.text for block in result.blocks if isinstance(block, TextBlock)]
    length = sum(map(len, texts))
    if max_chars is None or length <= max_chars:
        return result
    notice = f"\n[… cut here: the whole result has {length:,} characters …]\n"
    kept = max(max_chars - len(notice), max_chars // 2)
    head_end = int(kept * _HEAD_SHARE)
    tail_start = length - (kept - head_end)
    blocks: list[AnyBlock] = []
    position, has_notice = 0, False
    for block in result.blocks:
        if not isinstance(block, TextBlock):
            blocks.append(block)
            continue
        text, start = block.text, position
        position += len(text)
        head = text[: cut_position(text, max(head_end - start, 0))]
        tail = text[cut_position(text, max(tail_start - start, 0), backwards=False) :]
        if len(head) == len(text) or len(tail) == len(text):
            blocks.append(block)
            continue
        if not has_notice:
            head, has_notice = head + notice, True
        if head or tail:
            blocks.append(replace(block, text=head + tail))
    return replace(result, blocks=tuple(blocks))


def cut_position(text: str, position: int, *, backwards: bool = True) -> int:
    """The nearest position at which the text may be cut: not inside what a reader sees as one character."""
    step = -1 if backwards else 1
    for _ in range(_MAX_STEPS_BACK):
        if not 0 < position < len(text) or not _is_inside_character(text[position - 1], text[position]):
            break
        position += step
    return max(min(position, len(text)), 0)


def _is_inside_character(before: str, after: str) -> bool:
    return (
        "\udc00" <= after <= "\udfff"  # the second half of a surrogate pair
        or unicodedata.category(after).startswith("M")  # accents, variation selectors
        or after == _JOINS
        or before == _JOINS
        or ord(after) in _SKIN_TONES
    )
