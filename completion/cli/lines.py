"""Reads a message from the terminal: a line, the lines of one paste, or a text in triple quotes."""

from __future__ import annotations

import select
import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

PASTE_GAP_S = 0.05
"""If a line follows within this time, it belongs to the same paste: nobody types so fast."""

QUOTES = '"""'
"""Begins and ends a message of several lines."""


@dataclass(frozen=True, slots=True)
class Typed:
    """A message. ``is_line``: it is one line without triple quotes, so it may be a command."""

    text: str
    is_line: bool


class UnclosedQuotesError(EOFError):
    """The input ended before the closing triple quotes."""


def prepare_terminal() -> None:
    """Switch on line editing, history and, where the terminal supports it, bracketed paste.

    With bracketed paste the terminal marks a paste, and readline returns all its lines as one message.
    https://invisible-island.net/xterm/ctlseqs/ctlseqs.html#h2-Bracketed-Paste-Mode
    """
    with suppress(ImportError):  # Windows has no readline
        import readline

        readline.parse_and_bind("set enable-bracketed-paste on")  # Python switches it off


def read_message(prompt: str) -> Typed:
    """The next message.

    Raises:
        EOFError: the input ended.
        UnclosedQuotesError: it ended before the closing triple quotes.
        KeyboardInterrupt: Ctrl-C.
    """
    text = _read(prompt)
    if not text.startswith(QUOTES):
        return Typed(text, is_line="\n" not in text)
    text = text.removeprefix(QUOTES)
    while not text.rstrip().endswith(QUOTES):
        try:
            text = f"{text}\n{_read('... ' if prompt else '', keeps_indent=True)}"
        except EOFError:
            raise UnclosedQuotesError from None
    return Typed(text.rstrip().removesuffix(QUOTES).strip("\n"), is_line=False)


def _read(prompt: str, *, keeps_indent: bool = False) -> str:
    """A line, or the lines of a paste."""
    lines = [input(prompt)]
    # A terminal without bracketed paste sends the lines of a paste as if they were typed, without a pause.
    while prompt and _has_input(sys.stdin):
        try:
            lines.append(input())
        except EOFError:
            break
    text = "\n".join(lines)
    return text if keeps_indent else text.strip()


def _has_input(stdin: Any) -> bool:
    with suppress(OSError, ValueError):  # Windows can select sockets only
        return bool(select.select([stdin], [], [], PASTE_GAP_S)[0])
    return False
