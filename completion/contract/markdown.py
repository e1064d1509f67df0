"""Markdown of messages for a notebook.

    document([text, quoted(reasoning), fenced(arguments, "json")])

The text comes from a model or a tool. No part of it can run a script or change how the next part is shown.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

# A code fence, https://spec.commonmark.org/0.31.2/#fenced-code-blocks, with any indent: it may be in a nested list.
_FENCE = re.compile(r"^( *)(`{3,}(?=[^`\n]*$)|~{3,})(.*)$", re.MULTILINE)
_BACKTICKS = re.compile("`+")

# A notebook runs the HTML of an output, scripts included. Renderers disagree about where a code block ends, so tags in
# code are disabled as well. A tag that is only a name is left alone, such as #include <stdio.h>: without attributes it
# does nothing. The names in the second half do something without attributes, or change how the text after them is read.
_TAG = re.compile(
    r"<(?=[a-z/!?])(?!/?[a-z][\w.]*>)"
    r"|<(?=/?(?:iframe|math|no|plaintext|script|style|svg|template|textarea|title|xmp))",
    re.IGNORECASE,
)
_SCHEME = re.compile(r"(?<=javascript)(?=\s*:)", re.IGNORECASE)
# A link can write the scheme with entities or escapes: [a](java&Tab;script&colon;b)
_LINK = re.compile(r"(?<=\])(?=[(:][\s>]*(?:<|[^\s:/?#)]{0,20}[&\\]))")
_ZERO_WIDTH_SPACE = "\u200b"


def document(parts: Iterable[str]) -> str:
    """The parts that are not empty, each as a paragraph of its own.

    HTML and addresses that could run a script are disabled with an invisible character. Half a surrogate pair becomes
    ``?``, because a notebook cannot store it.
    """
    kept = [part for part in parts if part]
    text = "\n\n".join([*map(_with_closed_code, kept[:-1]), *kept[-1:]])
    return _without_scripts(text).encode("utf-8", "replace").decode("utf-8")


def fenced(text: str, language: str = "") -> str:
    """A block of code."""
    fence = "`" * max(3, _longest_run(text) + 1)
    return f"{fence}{language}\n{text}\n{fence}"


def code(text: str) -> str:
    """Code inside a line."""
    fence = "`" * (_longest_run(text) + 1)
    line = " ".join(text.split())
    return f"{fence} {line} {fence}" if line.startswith("`") or line.endswith("`") else f"{fence}{line}{fence}"


def quoted(text: str) -> str:
    """A quotation. A code block that the text leaves open ends with the quotation."""
    return "\n".join(f"> {line}" if line else ">" for line in text.split("\n"))


def _without_scripts(text: str) -> str:
    return _LINK.sub(_ZERO_WIDTH_SPACE, _SCHEME.sub(_ZERO_WIDTH_SPACE, _TAG.sub(f"<{_ZERO_WIDTH_SPACE}", text)))


def _longest_run(text: str) -> int:
    return max(map(len, _BACKTICKS.findall(text)), default=0)


def _with_closed_code(text: str) -> str:
    """The text; if it ends inside a code block, with the fence that closes it."""
    opened: tuple[str, str] | None = None
    for indent, fence, info in _FENCE.findall(text):
        if opened is None:
            opened = indent, fence
        elif fence.startswith(opened[1]) and not info.strip():
            opened = None
    return text if opened is None else f"{text}\n{''.join(opened)}"
