"""Reading a message from the terminal: one line, or several that were pasted together."""

from __future__ import annotations

import select
import sys
from contextlib import suppress
from typing import Any

PASTE_GAP_S = 0.05
"""Lines that arrive faster than this after each other are one paste: nobody types so fast."""


def prepare_terminal() -> None:
    """Switch on line editing, history and, where the terminal supports it, bracketed paste.

    With bracketed paste the terminal marks what was pasted, and readline keeps its line ends in one message.
    https://invisible-island.net/xterm/ctlseqs/ctlseqs.html#h2-Bracketed-Paste-Mode
    """
    with suppress(ImportError):  # Windows has no readline
        import readline

        readline.parse_and_bind("set enable-bracketed-paste on")  # Python switches it off


def read_message(prompt: str) -> str:
    """The next message. It has several lines if they were pasted.

    Raises:
        EOFError: the input ended.
        KeyboardInterrupt: Ctrl-C.
    """
    lines = [input(prompt)]
    # A terminal without bracketed paste sends the lines of a paste as if they were typed, without a pause.
    while prompt and _has_input(sys.stdin):
        try:
            lines.append(input())
        except EOFError:
            break
    return "\n".join(lines).strip()


def _has_input(stdin: Any) -> bool:
    with suppress(OSError, ValueError):  # Windows can select sockets only
        return bool(select.select([stdin], [], [], PASTE_GAP_S)[0])
    return False
