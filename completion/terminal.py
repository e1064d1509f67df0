"""What a terminal may be given of a text that somebody else wrote: a model, a tool, a server, a file."""

from __future__ import annotations

import json
import re
import shutil
from typing import TextIO

# Categories Cc and Cf. Control codes move the cursor, set the title, and more; format controls turn the direction of
# the text around (U+202E), or stand in it unseen (U+200B, the tags from U+E0000 on).
# Kept: tab and line end; U+200C and U+200D, which Persian, the scripts of India, and emoji are spelled with, and which
# move nothing; the signs of Arabic and Kaithi numbers, which are seen.
_HARMFUL = re.compile(
    "[\0-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e007f]"
)
_LINE_BREAK = re.compile("[\t\n\v\f\r\x1c-\x1e\x85\u2028\u2029]\\s*")


def terminal_width() -> int:
    """Columns of the terminal, 80 where it does not say."""
    return shutil.get_terminal_size().columns or 80  # Python 3.10 gives 0 for a terminal without a size


def harmless(text: str) -> str:
    """The text without control codes and format controls. Tab, line end, and the joiners U+200C and U+200D stay.

    Each character is judged alone, so a text may be given piece by piece.
    """
    return _HARMFUL.sub("", text)


def one_line(text: str) -> str:
    """The harmless text in one line: a tab, or a line break with the space after it, becomes one space."""
    return harmless(_LINE_BREAK.sub(" ", text))


def harmless_json(text: str) -> str:
    """JSON that says the same: it has escapes in the place of control codes and format controls."""
    return _HARMFUL.sub(lambda found: json.dumps(found[0])[1:-1], text)


def showable(text: str, out: TextIO) -> str:
    """The text with ``?`` for each character that this output cannot show, on which ``write`` would raise."""
    encoding = getattr(out, "encoding", None) or "utf-8"
    return text.encode(encoding, "replace").decode(encoding)
