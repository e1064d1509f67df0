"""From the pieces of a turn to chunks in the contract's order: shared by all adapters.

Providers send reasoning, text and the pieces of tool calls as they please, a few of them interleaved. The contract
promises that one thing is finished before the next begins, so what arrives inside an open tool call waits in a line
until the call is over. A call is known to be over when the provider says so, when its arguments are one whole JSON
object, or at the end of the turn; until something else arrives nothing waits and every piece flows through at once.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, NoReturn

from completion.contract.chunks import (
    FinishReason,
    ProviderBlockFinished,
    ReasoningDelta,
    ReasoningFinished,
    RedactedReasoning,
    StreamChunk,
    TextDelta,
    ToolCallArgsDelta,
    ToolCallFinished,
    ToolCallMalformed,
    ToolCallStarted,
)
from completion.contract.errors import MalformedStreamError

MAX_DEPTH = 100
"""How many objects and lists may stand inside each other in what a model sends. What is nested deeper can be read, and
then not be copied, pickled or sent back: Python's recursion limit ends that, the sooner the deeper the caller is."""

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


def provider_block(wire: str, data: dict[str, Any]) -> ProviderBlockFinished:
    """The chunk for a block of a kind that the contract does not model. NaN and infinities in it become null: a history
    with them could not be sent.

    Raises:
        MalformedStreamError: it is nested deeper than MAX_DEPTH.
    """
    if is_too_deep(data):
        raise MalformedStreamError(f"a block of the answer is nested too deep: {MAX_DEPTH} levels are allowed")
    return ProviderBlockFinished(wire, {key: _with_null(value) for key, value in data.items()})


def _with_null(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_null(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_null(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def is_too_deep(value: Any) -> bool:
    """It is nested deeper than MAX_DEPTH. Looks at one level after the other: this must not recurse."""
    level = [value]
    for _ in range(MAX_DEPTH):
        held = [item for one in level for item in (one.values() if isinstance(one, dict) else one)]
        level = [item for item in held if isinstance(item, dict | list)]
        if not level:
            return False
    return True


def _finite(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _no_json(text)


def _no_json(word: str) -> NoReturn:
    raise ValueError(f"{word} is not JSON")


def finish_reason(word: str | None, reasons: Mapping[str, FinishReason], calls_finished: int) -> FinishReason:
    """The reason for the provider's word, None where it gave none. A turn that calls a tool is no plain end."""
    reason = FinishReason.OTHER if word is None else reasons.get(word, FinishReason.OTHER)
    if calls_finished and (word is None or reason is FinishReason.END_TURN):
        return FinishReason.TOOL_USE
    return reason


def string(value: Any) -> str:
    """The value where it is a string, else an empty one."""
    return value if isinstance(value, str) else ""


_MOST_TOKENS = 10**4000  # Python writes no number of more than 4300 digits, and counters are added


def count(given: Any, name: str) -> int:
    """The number of tokens that ``given`` has under this name; 0 where there is none, or nonsense."""
    value = given.get(name) if isinstance(given, dict) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0
    return int(value) if 0 < value < _MOST_TOKENS else 0  # NaN is neither


has_halves = re.compile("[\ud800-\udfff]").search
"""Whether there is half of a surrogate pair in a text."""


def joined_halves(text: str) -> tuple[str, str]:
    """The text with its surrogate pairs joined, and the half of one at its end, which waits for the other half.

    Gateways that count in UTF-16 cut a character in two. Any other half becomes U+FFFD: nobody could encode it.
    """
    half = text[-1:] if "\ud800" <= text[-1:] <= "\udbff" else ""
    whole = text[: len(text) - len(half)]
    return whole.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace"), half


class Line:
    """The order of a turn: what comes in is given out at once, or waits behind an open tool call.

    Methods return the chunks that may go out now, in order. ``calls_finished`` counts ToolCallFinished chunks.
    """

    __slots__ = ("_half", "_ids", "_in_reasoning", "_waiting", "calls_finished", "is_clear")

    def __init__(self) -> None:
        self.is_clear = True
        """No call is open and no reasoning either: text may be yielded without asking here."""
        self.calls_finished = 0
        self._in_reasoning = False
        self._half = ""  # of a thought's character that was cut in two
        # The open call first, then what arrived since: calls and chunks of other kinds.
        self._waiting: deque[ToolCall | StreamChunk] = deque()
        self._ids: set[str] = set()

    def text(self, delta: str) -> list[StreamChunk]:
        return self._next(TextDelta(delta))

    def reasoning(self, delta: str) -> list[StreamChunk]:
        if self._half or (not delta.isascii() and has_halves(delta)):
            delta, self._half = joined_halves(self._half + delta)
        return self._next(ReasoningDelta(delta)) if delta else []

    def reasoning_over(self, signature: str | None) -> list[StreamChunk]:
        """Closes the reasoning that is open; with none open, an empty one."""
        return self._next(ReasoningFinished(signature))

    def whole(self, chunk: RedactedReasoning | ProviderBlockFinished) -> list[StreamChunk]:
        """A block that comes in one piece."""
        return self._next(chunk)

    def call(self, call: ToolCall) -> list[StreamChunk]:
        """A new call. Give its later pieces and its end to the call itself, and then ask ``flow``."""
        return self._next(call)

    def flow(self) -> list[StreamChunk]:
        """What a new piece of a call has set free."""
        out: list[StreamChunk] = []
        self._advance(out, at_end=False)
        return out

    def end(self) -> list[StreamChunk]:
        """All that still waits, every call and the reasoning closed."""
        out = self._next(ReasoningDelta("\ufffd")) if self._half else []
        self._half = ""
        self._advance(out, at_end=True)
        self._close_reasoning(out)
        return out

    def _next(self, item: ToolCall | StreamChunk) -> list[StreamChunk]:
        out: list[StreamChunk] = []
        if self._half and not isinstance(item, ReasoningDelta):
            self._half = ""
            out = self._next(ReasoningDelta("\ufffd"))
        if self._waiting or isinstance(item, ToolCall):
            self._waiting.append(item)
            self._advance(out, at_end=False)
        else:
            self._give(item, out)
        return out

    def _advance(self, out: list[StreamChunk], *, at_end: bool) -> None:
        waiting = self._waiting
        while waiting:
            first = waiting[0]
            if isinstance(first, ToolCall):
                self._close_reasoning(out)
                if first.call_id in self._ids and not first.is_announced:
                    first.given_id = made_up_call_id()
                out.extend(first.flowing())
                if not (at_end or first.is_closed or (len(waiting) > 1 and first.is_settled)):
                    break
                out.extend(first.finished())
                self._ids.add(first.given_id)
                self.calls_finished += isinstance(out[-1], ToolCallFinished)
            else:
                self._give(first, out)
            waiting.popleft()
        self.is_clear = not waiting and not self._in_reasoning

    def _give(self, chunk: StreamChunk, out: list[StreamChunk]) -> None:
        if isinstance(chunk, ReasoningDelta):
            self._in_reasoning = True
            self.is_clear = False
        elif isinstance(chunk, ReasoningFinished):
            self._in_reasoning = False
            self.is_clear = not self._waiting
        else:
            self._close_reasoning(out)
        out.append(chunk)

    def _close_reasoning(self, out: list[StreamChunk]) -> None:
        if self._in_reasoning:
            out.append(ReasoningFinished())
            self._in_reasoning = False
            self.is_clear = not self._waiting
