"""The arguments of a tool call as they arrive, piece by piece."""

from __future__ import annotations

import json
import math
import re
from contextlib import suppress
from enum import Enum
from typing import Any, NoReturn

from completion.wires.json_values import MAX_DEPTH, has_surrogates, is_too_deep, join_surrogates

# What decides where an object ends: braces, quotes, and escapes (an escaped quote does not end a string).
_MARKS = re.compile(r'\\.|["{}]', re.DOTALL)
_DEPTH_OF = {"{": 1, "}": -1}


class ArgumentsState(Enum):
    PARTIAL = "partial"
    """Not one JSON object, but more text can make it one. Also: no text at all."""
    PLACEHOLDER = "placeholder"
    """``{}`` alone. Some servers open every call with it and send the real arguments after it."""
    OBJECT = "object"
    """One JSON object."""
    BROKEN = "broken"
    """Not one JSON object, and no further text can make it one."""


PARTIAL, PLACEHOLDER, OBJECT, BROKEN = ArgumentsState


class Arguments:
    """The text of the arguments so far, and whether it is one JSON object.

    A placeholder ``{}`` is held back: it counts only if nothing follows it.
    """

    __slots__ = ("_depth", "_half", "_in_string", "_scanned", "_value", "pieces", "placeholder", "state")

    def __init__(self) -> None:
        self.state = PARTIAL
        self.pieces: list[str] = []
        self.placeholder = ""
        self._half = ""  # the first half of a surrogate pair; the second half follows in the next piece
        self._value: Any = None  # the parsed arguments, if the state is OBJECT
        # The scan for the last closing brace. It looks at each piece once, so the work stays linear.
        self._scanned = 0  # pieces
        self._depth = 0
        self._in_string = False

    @property
    def text(self) -> str:
        return "".join(self.pieces) or self.placeholder

    def add(self, text: str) -> None:
        if self._half or (text and not text.isascii() and has_surrogates(text)):
            text, self._half = join_surrogates(self._half + text)
        if not text:
            return
        if not self.pieces:
            if text.strip() == "{}":
                self.placeholder = self.placeholder or text
                self.state = PLACEHOLDER
                return
            if self.placeholder and not text.strip():
                return  # blank text does not replace the placeholder
            # Other text than an object continues the "{}", so that was not a placeholder.
            if self.placeholder and not text.lstrip().startswith("{"):
                self.pieces.append(self.placeholder)
            self.placeholder = ""
        self.pieces.append(text)
        end = text.rstrip()
        if end:
            self.state = self._next_state(end)

    def _next_state(self, end: str) -> ArgumentsState:
        """The state after a piece that ends with this text."""
        if self.state in (OBJECT, BROKEN):
            return BROKEN
        # Only a piece that ends with "}" can complete the object, and only if it closes the last brace.
        if not end.endswith("}") or not self._closes_last_brace():
            return PARTIAL
        with suppress(ValueError):
            self._value = parse_args(self.text)
        return OBJECT if isinstance(self._value, dict) else BROKEN

    def _closes_last_brace(self) -> bool:
        text = "".join(self.pieces[self._scanned :])  # ends with "}", so it does not cut an escape in two
        self._scanned = len(self.pieces)
        for found in _MARKS.finditer(text):
            mark = found.group()
            if mark == '"':
                self._in_string = not self._in_string
            elif not self._in_string:
                self._depth += _DEPTH_OF.get(mark, 0)
        return self._depth == 0 and not self._in_string

    def end(self) -> None:
        """No more text follows: half of a surrogate pair becomes U+FFFD."""
        if self._half:
            self._half = ""
            self.pieces.append("\ufffd")
            self.state = BROKEN  # the half follows the last brace, or is in a string that never ends

    def is_repeated_by(self, text: str) -> bool:
        """The text is all of the arguments once more: some servers repeat a call that is complete."""
        if self.state is PLACEHOLDER:
            return text == self.placeholder
        if self.state is not OBJECT or not text.lstrip().startswith("{"):
            return False
        try:
            return bool(parse_args(text) == self._parsed())
        except ValueError:
            return False

    def _parsed(self) -> Any:
        if self._value is None:
            self._value = parse_args(self.text)
        return self._value

    def take_value(self) -> Any:
        """The parsed arguments; ``{}`` for blank ones. The caller owns the value and may change it.

        Raises:
            ValueError: they are not JSON.
        """
        if self.state is OBJECT:
            value, self._value = self._parsed(), None
            return value
        text = self.text
        return parse_args(text) if text.strip() else {}


def arguments_text(value: Any) -> str:
    """The text of arguments that a provider sends as an object or as a string; empty if there are none."""
    if value is None or isinstance(value, str):
        return value or ""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def parse_args(text: str) -> Any:
    """The JSON value of a call's arguments.

    Raises:
        ValueError: not JSON (NaN and infinities included), or nested deeper than MAX_DEPTH.
    """
    try:
        value = json.loads(text, parse_constant=_not_json, parse_float=_finite_float)
    except RecursionError:
        is_deep = True
    else:
        is_deep = text.count("{") + text.count("[") > MAX_DEPTH and is_too_deep(value)
    if is_deep:
        raise ValueError(f"nested too deeply: {MAX_DEPTH} levels are allowed")
    return value


def _finite_float(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _not_json(text)  # 1e999 becomes infinity


def _not_json(word: str) -> NoReturn:
    raise ValueError(f"{word} is not JSON")
