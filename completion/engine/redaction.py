"""Redaction: secrets are taken out of what goes to the model and of what comes back."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

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
from completion.engine.guards import _PerRun
from completion.engine.middleware import RunInfo

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
