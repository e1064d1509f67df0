"""Make text of a model, a tool, a server or a file safe to print: it must not control the terminal."""

from __future__ import annotations

import json
import re
import shutil
from typing import TextIO

# Unicode categories Cc and Cf. Control codes move the cursor, set the title, and more. Format controls reverse the
# direction of the text (U+202E) or are invisible (U+200B, the tags from U+E0000 on).
# Kept: tab and newline; the joiners U+200C and U+200D, because Persian, Indian scripts and emoji need them; the number
# signs of Arabic and Kaithi, because they are visible.
_HARMFUL = re.compile(
    "[\0-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e007f]"
)
_LINE_BREAK = re.compile("[\t\n\v\f\r\x1c-\x1e\x85\u2028\u2029]\\s*")


def terminal_width() -> int:
    """The number of columns of the terminal; 80 if unknown."""
    return shutil.get_terminal_size().columns or 80  # Python 3.10 returns 0 for a terminal without a size


def harmless(text: str) -> str:
    """The text without control codes and format controls. Tab, newline, U+200C and U+200D are kept.

    Each character is checked on its own, so a text may be passed in pieces.
    """
    return _HARMFUL.sub("", text)


def one_line(text: str) -> str:
    """The harmless text on one line: a tab or a line break, with the white space after it, becomes one space."""
    return harmless(_LINE_BREAK.sub(" ", text))


def harmless_json(text: str) -> str:
    """The same JSON document with control codes and format controls written as escapes."""
    return _HARMFUL.sub(lambda found: json.dumps(found[0])[1:-1], text)


def showable(text: str, out: TextIO) -> str:
    """The text with ``?`` for each character that the encoding of this output lacks; ``write`` would raise there."""
    encoding = getattr(out, "encoding", None) or "utf-8"
    return text.encode(encoding, "replace").decode(encoding)
