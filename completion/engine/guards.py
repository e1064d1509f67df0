"""Middleware that keeps a run within bounds: what may be done, how often, and what nobody shall read.

    run_chat(model, request, tools, middleware=[
        LoopDetection(),
        CallLimit(20),
        Approval(lambda call: input(f"{call.name}({call.args})? ") == "y", tags=["writes"]),
        Redaction("api_key", "email"),
    ])

That is a good order: a loop is seen although its calls are refused, a call is asked about with the arguments that it
will have, and what the others see going out and coming in has been redacted. Each object may serve many runs at once.
This module is the only door to regex, which alone can tell (re cannot) whether a text may be the beginning of a match;
it is imported when a Redaction is made.
"""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

from completion.contract.chunks import (
    ReasoningDelta,
    StreamChunk,
    TextDelta,
    ToolCallArgsDelta,
    ToolCallFinished,
    ToolCallMalformed,
    ToolCallStarted,
)
from completion.contract.errors import ConfigurationError
from completion.contract.messages import Block, Message, ReasoningBlock, TextBlock, ToolCallBlock, ToolResultBlock
from completion.contract.request import ChatRequest
from completion.contract.run import RunFinished
from completion.engine.middleware import AbortRun, Middleware, Refusal, RunInfo

_StateT = TypeVar("_StateT")


class _PerRun(Middleware, Generic[_StateT]):
    """Middleware that remembers something of each run, until its end."""

    def __init__(self, new: Callable[[], _StateT]) -> None:
        self._new = new
        self._states: dict[str, _StateT] = {}

    def _state(self, run: RunInfo) -> _StateT:
        return self._states.setdefault(run.run_id, self._new())

    def on_finished(self, run: RunInfo, end: RunFinished) -> None:
        self._states.pop(run.run_id, None)

    def on_failed(self, run: RunInfo, error: BaseException) -> None:
        self._states.pop(run.run_id, None)

    def on_dropped(self, run: RunInfo) -> None:
        self._states.pop(run.run_id, None)


class Approval(Middleware):
    """Asks before a tool is called.

    ``decide(call)`` gives True (the call is made), False or the reason (it is not, and the model reads why), or a dict:
    the arguments to call it with instead. It runs in the thread that reads the run, so ``input()`` works; the clock of
    ``RunConfig.timeout`` goes on. What it raises is an error of the run, and the call is not made; AbortRun ends the
    run well.

    Args:
        decide: asked in the model's order, one call after the other.
        tags, names: ask about the calls of tools with one of these tags, or of these names. With neither: about all.

    Raises:
        TypeError: what ``decide`` gave says neither yes nor no. A None does not; the run fails.
    """

    def __init__(
        self,
        decide: Callable[[ToolCallBlock], bool | str | dict[str, Any]],
        *,
        tags: Iterable[str] = (),
        names: Iterable[str] = (),
    ) -> None:
        if isinstance(tags, str) or isinstance(names, str):
            raise TypeError("Approval: tags= and names= take lists of strings")
        if not callable(decide):
            raise TypeError(f"Approval takes a function that decides on a call, got {type(decide).__name__}")
        self._decide = decide
        self._tags, self._names = frozenset(tags), frozenset(names)

    def before_tool(self, run: RunInfo, call: ToolCallBlock) -> ToolCallBlock | Refusal:
        if not self._is_asked_about(run, call):
            return call
        decided = self._decide(call)
        match decided:
            case True:
                return call
            case False | "":
                return Refusal("The user did not allow this call.")
            case str():
                return Refusal(decided)
            case dict():
                return replace(call, args=decided)
        raise TypeError(
            f"Approval: decide({call.name}) must give True, False, a reason or a dict of arguments, got {decided!r}"
        )

    def _is_asked_about(self, run: RunInfo, call: ToolCallBlock) -> bool:
        if not self._tags and not self._names:
            return True
        tool = run.tools.get(call.name)
        return call.name in self._names or (tool is not None and not self._tags.isdisjoint(tool.definition.tags))


class CallLimit(_PerRun[list[int]]):
    """Lets a run make so many calls; of those beyond, the model reads that there are no more.

    Counted is what reaches this middleware: not what another one before it has refused.

    Args:
        most: calls of one run.
        name: count the calls of this tool only. For several limits, give several of these.
        ends_run: the first call beyond ends the run instead, with this as its ``abort``.

    Raises:
        ValueError: ``most`` is no whole number from 1 on.
    """

    def __init__(self, most: int, *, name: str | None = None, ends_run: bool = False) -> None:
        super().__init__(lambda: [0])
        self._most = _from_one_on("CallLimit: most", most)
        self._name = name
        self._ends_run = ends_run

    def before_tool(self, run: RunInfo, call: ToolCallBlock) -> ToolCallBlock | Refusal:
        if self._name not in (None, call.name):
            return call
        count = self._state(run)
        count[0] += 1
        if count[0] <= self._most:
            return call
        times = "once" if self._most == 1 else f"{self._most} times"
        what = f"{self._name} may be called {times}" if self._name else f"tools may be called {times} altogether"
        if self._ends_run:
            raise AbortRun(f"{what}, and {call.name} would have been one call more")
        return Refusal(f"{what[0].upper()}{what[1:]}, and that has been done. Go on with what you have.")


@dataclass(slots=True)
class _Made:
    """The calls of a run so far: each a name, arguments and a result."""

    latest: deque[tuple[Any, ...]]
    asked: dict[str, tuple[Any, ...]] = field(default_factory=dict)


class LoopDetection(_PerRun[_Made]):
    """Notices that the model makes the same call again and again: it is told, and if it does not stop, the run ends.

    The same call is one of the same tool with the same arguments and the same result. So asking a job how it does is
    no loop while the answers differ.

    Args:
        times: below the result of the call that is the same so many times, the model reads that it goes round.
        ends_at: the call that would be the same so many times is not made, and the run ends. None: ``times + 1``.
        within: look for the same call among so many latest ones. None: in a row, with no other call between.

    Raises:
        ValueError: numbers that make no sense.
    """

    def __init__(self, times: int = 3, *, ends_at: int | None = None, within: int | None = None) -> None:
        self._times = _from_one_on("LoopDetection: times", times)
        self._ends_at = times + 1 if ends_at is None else _from_one_on("LoopDetection: ends_at", ends_at)
        self._is_in_a_row = within is None
        size = self._ends_at if within is None else _from_one_on("LoopDetection: within", within)
        if not self._times < self._ends_at <= size:
            raise ValueError("LoopDetection: times must be less than ends_at, and that at most within")
        super().__init__(lambda: _Made(deque(maxlen=size)))

    def before_tool(self, run: RunInfo, call: ToolCallBlock) -> ToolCallBlock | Refusal:
        made, asked = self._state(run), (call.name, call.args)
        self._end_at_last(made, asked, 1)
        made.asked[call.call_id] = asked  # somebody further in may change the arguments
        return call

    def after_tool(self, run: RunInfo, call: ToolCallBlock, result: ToolResultBlock) -> ToolResultBlock:
        made = self._state(run)
        asked = made.asked.pop(call.call_id, (call.name, call.args))
        made.latest.append((*asked, result.blocks, result.is_error))
        times = self._repeated(made, asked)
        if times < self._times:
            return result
        self._end_at_last(made, asked, 0)  # malformed, or refused further out: before_tool did not see it
        told = f"(This was the same call with the same result {times} times. Do something else, or answer.)"
        return replace(result, blocks=(*result.blocks, TextBlock(told)))

    def _end_at_last(self, made: _Made, asked: tuple[Any, ...], coming: int) -> None:
        if self._repeated(made, asked) + coming >= self._ends_at:
            raise AbortRun(f"the model went round: {self._ends_at} times the same call of {asked[0]}")

    def _repeated(self, made: _Made, asked: tuple[Any, ...]) -> int:
        """How often the latest of these calls has been made with the same result."""
        latest = [*made.latest][::-1]
        newest = next((one for one in latest if one[:2] == asked), None)
        if not self._is_in_a_row:
            return latest.count(newest) if newest is not None else 0
        return next((i for i, one in enumerate(latest) if one != newest), len(latest))


# What secrets look like. None of them looks ahead, which _compiled forbids.
_KINDS = {
    "api_key": r"""(?x)\b(?: sk-[\w-]{16,} | [rs]k_(?:live|test)_\w{16,} | gh[oprsu]_\w{20,} | github_pat_\w{20,}
        | glpat-[\w-]{16,} | xox[abeoprs]-[\w-]{10,} | A[KS]IA[0-9A-Z]{16} | AIza[\w-]{30,} | (?:hf|gsk|npm|r8)_\w{20,}
        | eyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]* )""",
    "card_number": r"(?<!\d)[2-6](?:[ -]?\d){13,18}\b",
    "email": r"[\w.%+-]+@[\w-]+(?:\.[\w-]+)+",
    "private_key": r"-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)",
}

_LOOKAHEAD = re.compile(r"(?<!\\)(?:\\\\)*(?:\(\?[=!]|\\B)")
_FLAGS = ("IGNORECASE", "MULTILINE", "DOTALL", "VERBOSE", "ASCII")

_CONTEXT = 256
"""Characters before those that are looked at, for look-behinds."""


class Redaction(_PerRun["_Seen"]):
    """Puts something else in the place of secrets: in what goes to the model, in what tools give back, and in what the
    reader of the run sees, reasoning and arguments of calls included.

    A secret that comes in several deltas is found as well. As little as needed is held back for that: text that may
    yet become a secret, until it cannot or has. It comes before the next chunk of another kind at the latest; only a
    turn that is broken off may lose it. Arguments of a call come in one delta. Not changed are the history, which keeps
    the model's own words (StepFinished, RunFinished) and is redacted whenever it is sent; signed reasoning and calls,
    whose signature would not fit any more; the calls that are left to the caller; files; and blocks of a provider.

    Put it last, and what the rest of the middleware sees has been redacted; ``on_request`` of the others sees a request
    before that.

    Args:
        secrets: what to find: the names ``api_key``, ``card_number``, ``email``, ``private_key``; patterns made by
            ``re.compile``; or functions that take a text and return it redacted. A function gets whole texts, so that
            all of a text is held back until its end.
        replacement: what to put there, or a function that makes it of what was found. Functions do that themselves.

    Raises:
        ValueError: there is nothing to find, a name is unknown, or a pattern matches the empty text or looks ahead
            (which would need text that has not come; ``\\b`` may be used).
        ConfigurationError: the extra ``redaction`` is not installed, and there are patterns.
    """

    def __init__(
        self,
        *secrets: str | re.Pattern[str] | Callable[[str], str],
        replacement: str | Callable[[str], str] = "[redacted]",
    ) -> None:
        super().__init__(_Seen)
        if not secrets:
            raise ValueError(f"Redaction needs to be told what to find: {', '.join(_KINDS)}, or patterns of your own")
        self._patterns = [_compiled(secret) for secret in secrets if isinstance(secret, str | re.Pattern)]
        self._functions = [secret for secret in secrets if not isinstance(secret, str | re.Pattern)]
        for function in self._functions:
            if not callable(function):
                raise TypeError(f"Redaction takes names, patterns and functions, got {type(function).__name__}")
        self._replacement = replacement

    def redact(self, text: str) -> str:
        """The text without its secrets."""
        shown, _ = self._scrubbed(text, 0, is_whole=True)
        for function in self._functions:
            shown = function(shown)
        return shown

    def on_request(self, run: RunInfo, request: ChatRequest) -> ChatRequest:
        self._state(run).theirs = frozenset(tool.name for tool in request.tools) - run.tools.keys()
        system = request.system_prompt
        if isinstance(system, str):
            system = self.redact(system)
        elif system is not None:
            system = tuple(replace(block, text=self.redact(block.text)) for block in system)
        messages = (Message(message.role, self._blocks(message.blocks)) for message in request.messages)
        return replace(request, system_prompt=system, messages=tuple(messages))

    def after_tool(self, run: RunInfo, call: ToolCallBlock, result: ToolResultBlock) -> ToolResultBlock:
        return replace(result, blocks=self._blocks(result.blocks))

    def on_chunk(self, run: RunInfo, chunk: StreamChunk) -> StreamChunk | Sequence[StreamChunk] | None:
        seen = self._states.get(run.run_id)
        if seen is None:  # the run is over
            return chunk
        growing = seen.growing
        if growing is not None and isinstance(chunk, growing.kind):
            return growing.more(chunk.delta)
        before = [] if growing is None else growing.rest()
        seen.growing = None
        match chunk:
            case TextDelta(delta) | ReasoningDelta(delta):
                seen.growing = _Growing(self, type(chunk))
                return [*before, *seen.growing.more(delta)]
            case ToolCallStarted(name=name):
                seen.is_theirs = name in seen.theirs
            case ToolCallArgsDelta() | ToolCallFinished() | ToolCallMalformed() if not seen.is_theirs:
                return self._call(chunk)
        return [*before, chunk] if before else chunk

    def _call(self, chunk: ToolCallArgsDelta | ToolCallFinished | ToolCallMalformed) -> list[StreamChunk]:
        """The deltas of the arguments come when all of them are known: an escape may hide what is in them."""
        match chunk:
            case ToolCallFinished(call_id, _, args):
                args = self._json(args)
                return [ToolCallArgsDelta(call_id, json.dumps(args, ensure_ascii=False)), replace(chunk, args=args)]
            case ToolCallMalformed(call_id, _, raw, error):
                raw = self.redact(raw)
                deltas: list[StreamChunk] = [ToolCallArgsDelta(call_id, raw)] if raw else []
                return [*deltas, replace(chunk, raw=raw, error=self.redact(error))]
        return []

    def _blocks(self, blocks: Iterable[Block]) -> tuple[Block, ...]:
        return tuple(map(self._block, blocks))

    def _block(self, block: Block) -> Block:
        match block:
            case TextBlock(text):
                return replace(block, text=self.redact(text))
            case ReasoningBlock(text, None):
                return replace(block, text=self.redact(text))
            case ToolCallBlock(args=args, signature=None):
                return replace(block, args=self._json(args))
            case ToolResultBlock(blocks=inner):
                return replace(block, blocks=self._blocks(inner))
        return block

    def _json(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.redact(value)
        if isinstance(value, dict):
            return {key: self._json(item) for key, item in value.items()}
        return [self._json(item) for item in value] if isinstance(value, list) else value

    def _scrubbed(self, text: str, at: int, *, is_whole: bool) -> tuple[str, int]:
        """The text from ``at`` on as far as no more text can change it, redacted; and where the rest begins."""
        shown: list[str] = []
        founds = [pattern.search(text, at) for pattern in self._patterns]
        held = len(text) if is_whole else self._held_from(text, at)
        while True:
            first = min((found for found in founds if found), key=lambda found: found.start(), default=None)
            if first is None or first.start() >= held:
                return "".join([*shown, text[at:held]]), held
            shown += text[at : first.start()], self._instead(first.group())
            at = first.end()
            for i, found in enumerate(founds):
                if found and found.start() < at:
                    founds[i] = self._patterns[i].search(text, at)
            if held < at:
                held = self._held_from(text, at)

    def _instead(self, secret: str) -> str:
        return self._replacement if isinstance(self._replacement, str) else self._replacement(secret)

    def _held_from(self, text: str, at: int) -> int:
        """Where the first match may begin of which not all of the text is here."""
        for i in range(at, len(text)):
            if any(pattern.fullmatch(text, i, partial=True) for pattern in self._patterns):
                return i
        return len(text)


@dataclass(slots=True)
class _Seen:
    """Of one run: the text that is growing, and whether the call that comes is one of the caller's tools."""

    growing: _Growing | None = None
    theirs: frozenset[str] = frozenset()
    is_theirs: bool = False


class _Growing:
    """A text that comes in deltas."""

    def __init__(self, redaction: Redaction, kind: type[TextDelta | ReasoningDelta]) -> None:
        self.kind = kind
        self._redaction = redaction
        self._text, self._at = "", 0

    def more(self, delta: str) -> list[StreamChunk]:
        self._text += delta
        if self._redaction._functions:
            return []
        shown, at = self._redaction._scrubbed(self._text, self._at, is_whole=False)
        forgotten = max(at - _CONTEXT, 0)
        self._text, self._at = self._text[forgotten:], at - forgotten
        return [self.kind(shown)] if shown else []

    def rest(self) -> list[StreamChunk]:
        redaction = self._redaction
        if redaction._functions:
            shown = redaction.redact(self._text)
        else:
            shown, _ = redaction._scrubbed(self._text, self._at, is_whole=True)
        return [self.kind(shown)] if shown else []


def _compiled(secret: str | re.Pattern[str]) -> Any:
    """A pattern of regex, which can say whether a text may be the beginning of a match."""
    try:
        import regex
    except ImportError as exc:
        install = shlex.join([sys.executable, "-m", "pip", "install", "regex"])
        raise ConfigurationError(f"Redaction needs the package regex ({exc}); run: {install}") from exc
    if isinstance(secret, str):
        if secret not in _KINDS:
            raise ValueError(
                f"Redaction knows {', '.join(_KINDS)}, not {secret!r}; a pattern of your own is given as re.compile(…)"
            )
        return regex.compile(_KINDS[secret])
    if not isinstance(secret.pattern, str):
        raise TypeError("Redaction takes patterns of str, not of bytes")
    if _LOOKAHEAD.search(secret.pattern):
        raise ValueError(f"Redaction: {secret.pattern!r} looks ahead, at text that may not have come yet")
    flags = sum(getattr(regex, flag) for flag in _FLAGS if secret.flags & getattr(re, flag))
    pattern = regex.compile(secret.pattern, flags)
    if pattern.fullmatch(""):
        raise ValueError(f"Redaction: {secret.pattern!r} matches the empty text")
    return pattern


def _from_one_on(what: str, number: int) -> int:
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise ValueError(f"{what} must be a whole number from 1 on, got {number!r}")
    return number
