"""A tool call as it arrives, piece by piece."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, NoReturn

from completion.contract.chunks import (
    StreamChunk,
    ToolCallArgsDelta,
    ToolCallFinished,
    ToolCallMalformed,
    ToolCallStarted,
)
from completion.wires.json_values import MAX_DEPTH, has_halves, is_too_deep, joined_halves

# What tells how deep in objects a text is, and what a backslash takes that meaning from.
_MARKS = re.compile(r'\\.|["{}]', re.DOTALL)


_DEPTH_OF = {"{": 1, "}": -1}


class ToolCall:
    """A tool call as it arrives: the first id and the first name that are not empty count, and the arguments add up.

    Some servers open every call with the arguments ``{}`` and send the real ones after; that opening is held back
    until the end of the turn, when it is clear that nothing followed.
    """

    __slots__ = (
        "_args",
        "_depth",
        "_half",
        "_in_string",
        "_is_whole",
        "_length",
        "_opening",
        "_parts",
        "_scanned",
        "_told",
        "_was_balanced",
        "call_id",
        "given_id",
        "is_announced",
        "is_closed",
        "is_over",
        "name",
        "signature",
    )

    def __init__(self, call_id: str = "", name: str = "") -> None:
        self.call_id = call_id
        """The provider's."""
        self.given_id = ""
        """The one in the chunks: the provider's, unless that is missing or was given to another call."""
        self.name = name
        self.signature: str | None = None
        self._opening = ""
        self._half = ""  # of a character that was cut in two
        self._parts: list[str] = []
        self._length = 0  # characters in all parts
        self._told = 0  # how many parts were given out as deltas
        # The braces so far: in how many parts they were counted, and where that left off.
        self._scanned = 0
        self._depth = 0
        self._in_string = False
        self._was_balanced = False
        self.is_announced = False
        self.is_closed = False
        """The provider said that the call is complete; most do not say so."""
        self.is_over = False
        self._is_whole: bool | None = False  # None: not known yet
        self._args: Any = None  # the value of the arguments, where they are known to be whole

    def add(self, text: str) -> None:
        """More of the arguments."""
        if self._half or (text and not text.isascii() and has_halves(text)):
            text, self._half = joined_halves(self._half + text)
        if not text:
            return
        if not self._parts:
            if text.strip() == "{}":
                self._opening = self._opening or text
                self._is_whole = True
                return
            if self._opening and not text.strip():
                return
            if self._opening and not text.lstrip().startswith("{"):
                self._parts.append(self._opening)
                self._length = len(self._opening)
            self._opening = ""
        self._parts.append(text)
        self._length += len(text)
        # Only a piece that ends an object can have completed it, and a blank one changes nothing.
        if text := text.rstrip():
            self._is_whole = None if text.endswith("}") and not self._was_balanced else False
            self._args = None

    @property
    def is_whole(self) -> bool:
        """The arguments are one JSON object."""
        if self._is_whole is None:
            self._is_whole = self._is_balanced() and isinstance(self._parsed(), dict)
        return self._is_whole

    def _is_balanced(self) -> bool:
        """Every brace is closed, for the first time: no object goes on behind its last brace, so nothing else needs to
        be parsed. Looks at each part once."""
        text = "".join(self._parts[self._scanned :])  # ends in a brace, not in the middle of an escape
        self._scanned = len(self._parts)
        for found in _MARKS.finditer(text):
            mark = found.group()
            if mark == '"':
                self._in_string = not self._in_string
            elif not self._in_string:
                self._depth += _DEPTH_OF.get(mark, 0)
        self._was_balanced = self._depth == 0 and not self._in_string
        return self._was_balanced

    def _parsed(self) -> Any:
        """The value of the arguments, kept until more of them comes; None where they are no JSON."""
        if self._args is None:
            with suppress(ValueError):
                self._args = parse_args(self.raw)
        return self._args

    @property
    def is_settled(self) -> bool:
        """Id, name and arguments are there, one whole JSON object: nothing can follow."""
        return bool(self.call_id and self.name) and self.has_object

    @property
    def has_object(self) -> bool:
        """The arguments are one JSON object, and no opening that the real ones may replace."""
        return bool(self._parts) and self.is_whole

    def says_again(self, text: str) -> bool:
        """The text is that of the whole arguments: some servers repeat a call that is complete."""
        if not self.is_whole or not text.lstrip().startswith("{"):
            return False
        if not self._parts:
            return text == self._opening
        if len(text) == self._length and text == self.raw:
            return True
        try:
            return bool(parse_args(text) == self._parsed())
        except ValueError:
            return False

    @property
    def raw(self) -> str:
        """The text of the arguments so far."""
        return "".join(self._parts) or self._opening

    def flowing(self) -> Iterator[StreamChunk]:
        """What is new since the last time, once both id and name are known."""
        if self.call_id and self.name:
            yield from self._begun()

    def finished(self) -> Iterator[StreamChunk]:
        """The rest of the call, and its closing chunk."""
        if self._half:
            self._parts.append("\ufffd")
            self._half, self._args = "", None
        yield from self._begun()
        self.is_over = True
        raw = self.raw
        if not self._parts and self._opening:
            yield ToolCallArgsDelta(self.given_id, self._opening)
        if not self.name:
            yield ToolCallMalformed(self.given_id, "", raw, "the call has no name")
            return
        args, self._args = self._args, None  # what is given out may be changed
        try:
            if args is None:
                args = parse_args(raw) if raw.strip() else {}
        except ValueError as exc:
            yield ToolCallMalformed(self.given_id, self.name, raw, f"the arguments are not JSON: {exc}")
            return
        if isinstance(args, dict):
            yield ToolCallFinished(self.given_id, self.name, args, self.signature)
        else:
            error = f"the arguments are not a JSON object but {type(args).__name__}"
            yield ToolCallMalformed(self.given_id, self.name, raw, error)

    def _begun(self) -> Iterator[StreamChunk]:
        if not self.is_announced:
            self.is_announced = True
            self.given_id = self.given_id or self.call_id or made_up_call_id()
            yield ToolCallStarted(self.given_id, self.name)
        while self._told < len(self._parts):
            self._told += 1
            yield ToolCallArgsDelta(self.given_id, self._parts[self._told - 1])


def made_up_call_id() -> str:
    """An id for a call that the provider gave none."""
    return f"call_{os.urandom(12).hex()}"


def parse_args(text: str) -> Any:
    """The JSON value of a call's arguments.

    Raises:
        ValueError: not JSON (NaN and infinities included), or nested deeper than MAX_DEPTH.
    """
    try:
        value = json.loads(text, parse_constant=_no_json, parse_float=_finite)
    except RecursionError:
        value = None
        is_deep = True
    else:
        is_deep = text.count("{") + text.count("[") > MAX_DEPTH and is_too_deep(value)
    if is_deep:
        raise ValueError(f"nested too deep: {MAX_DEPTH} levels are allowed")
    return value


def _finite(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _no_json(text)


def _no_json(word: str) -> NoReturn:
    raise ValueError(f"{word} is not JSON")
