"""How a notebook shows messages: text becomes Markdown that nothing in it can break out of, and nothing can script in.

document([text, quoted(reasoning), fenced(arguments, "json")])
"""

from __future__ import annotations

import re
from collections.abc import Iterable

# https://spec.commonmark.org/0.31.2/#fenced-code-blocks, at any depth of a list
_FENCE = re.compile(r"^( *)(`{3,}(?=[^`\n]*$)|~{3,})(.*)$", re.MULTILINE)
_BACKTICKS = re.compile("`+")

# A notebook runs the HTML of an output, scripts as well. Each renderer has its own mind about where code ends, so code
# is no exception; what does nothing as a tag is: a name alone, as in #include <stdio.h>.
_TAG = re.compile(
    r"<(?=[a-z/!?])(?!/?[a-z][\w.]*>)"
    r"|<(?=/?(?:iframe|math|no|plaintext|script|style|svg|template|textarea|title|xmp))",
    re.IGNORECASE,
)
_SCHEME = re.compile(r"(?<=javascript)(?=\s*:)", re.IGNORECASE)
# The address of a link can spell that with entities and escapes: [a](java&Tab;script&colon;b)
_LINK = re.compile(r"(?<=\])(?=[(:][\s>]*(?:<|[^\s:/?#)]{0,20}[&\\]))")
_UNSEEN = "\u200b"


def document(parts: Iterable[str]) -> str:
    """The parts that are not empty, one below the other, without HTML and addresses that could run a script: there, a
    character that is not seen comes between. Half a character, which no notebook takes, becomes ``?``."""
    kept = [part for part in parts if part]
    text = "\n\n".join([*map(_closed, kept[:-1]), *kept[-1:]])
    return _inert(text).encode("utf-8", "replace").decode("utf-8")


def fenced(text: str, language: str = "") -> str:
    """A block of code."""
    fence = "`" * max(3, _longest_run(text) + 1)
    return f"{fence}{language}\n{text}\n{fence}"


def code(text: str) -> str:
    """A word of code inside of a line."""
    fence = "`" * (_longest_run(text) + 1)
    line = " ".join(text.split())
    return f"{fence} {line} {fence}" if line.startswith("`") or line.endswith("`") else f"{fence}{line}{fence}"


def quoted(text: str) -> str:
    """A quotation: what the text leaves open ends with it."""
    return "\n".join(f"> {line}" if line else ">" for line in text.split("\n"))


def _inert(text: str) -> str:
    return _LINK.sub(_UNSEEN, _SCHEME.sub(_UNSEEN, _TAG.sub(f"<{_UNSEEN}", text)))


def _longest_run(text: str) -> int:
    return max(map(len, _BACKTICKS.findall(text)), default=0)


def _closed(text: str) -> str:
    """The text, and the end of the block of code that it leaves open."""
    opened: tuple[str, str] | None = None
    for indent, fence, info in _FENCE.findall(text):
        if opened is None:
            opened = indent, fence
        elif fence.startswith(opened[1]) and not info.strip():
            opened = None
    return text if opened is None else f"{text}\n{''.join(opened)}"
