"""Redaction: middleware that removes secrets from requests, tool results and the chunks that the reader gets.

Only the package ``regex`` can tell whether a text may be the beginning of a match (``fullmatch(…, partial=True)``), and
``re`` cannot. It is imported when a Redaction is created.
"""

from __future__ import annotations

import json
import re
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
from completion.contract.messages import AnyBlock, Message, ReasoningBlock, TextBlock, ToolCallBlock, ToolResultBlock
from completion.contract.packages import install_command
from completion.contract.request import ChatRequest
from completion.contract.run import Chunk
from completion.engine.middleware import RunInfo, StatefulMiddleware

# No pattern looks ahead; see _compiled.
_NAMED_PATTERNS = {
    "api_key": r"""(?x)\b(?: sk-[\w-]{16,} | [rs]k_(?:live|test)_\w{16,} | gh[oprsu]_\w{20,} | github_pat_\w{20,}
        | glpat-[\w-]{16,} | xox[abeoprs]-[\w-]{10,} | A[KS]IA[0-9A-Z]{16} | AIza[\w-]{30,} | (?:hf|gsk|npm|r8)_\w{20,}
        | eyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]* )""",
    "card_number": r"(?<!\d)[2-6](?:[ -]?\d){13,18}\b",
    "email": r"[\w.%+-]+@[\w-]+(?:\.[\w-]+)+",
    "private_key": r"-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)",
}

# Finds (?=…), (?!…) and \B in a pattern, but not an escaped parenthesis.
_LOOKAHEAD = re.compile(r"(?<!\\)(?:\\\\)*(?:\(\?[=!]|\\B)")

# The flags of re that regex has under the same name.
_FLAGS = ("IGNORECASE", "MULTILINE", "DOTALL", "VERBOSE", "ASCII")

_CONTEXT_CHARS = 256
"""How much released text is kept before the held text, for look-behinds of the patterns."""


class Redaction(StatefulMiddleware["_RunState"]):
    """Replaces secrets: in requests to the model, in tool results, and in what the reader of the run sees, including
    reasoning and the arguments of calls.

    A secret that is split over several deltas is found too. For that, text that may be the beginning of a secret is
    held back until more text decides; at the latest it is yielded before the next chunk of another type. Only a turn
    that is interrupted may lose it. The arguments of a call are yielded as one delta.

    Not changed: the history (StepFinished, RunFinished), which keeps the model's own words and is redacted each time it
    is sent; signed reasoning and signed calls, because a changed text does not match its signature; calls of
    client-side tools; the definitions of tools; files; provider blocks.

    Put it last: the other middleware then sees redacted chunks. Their ``on_request`` still sees the request before
    redaction.

    Args:
        secrets: what to find: the names ``api_key``, ``card_number``, ``email``, ``private_key``; patterns from
            ``re.compile``; or functions that take a text and return it redacted. A function needs the whole text, so
            all deltas are held back until the end of the text.
        replacement: the text to put in place of a secret, or a function that takes the secret and returns the text.
            Not used for secrets that a function redacts.

    Raises:
        ValueError: no secrets were given, a name is unknown, or a pattern matches the empty text or looks ahead (it
            would need text that has not arrived; ``\\b`` is allowed).
        ConfigurationError: there are patterns, and the extra ``redaction`` is not installed.
    """

    def __init__(
        self,
        *secrets: str | re.Pattern[str] | Callable[[str], str],
        replacement: str | Callable[[str], str] = "[redacted]",
    ) -> None:
        super().__init__(_RunState)
        if not secrets:
            raise ValueError(
                f"Redaction: give at least one secret to find: {', '.join(_NAMED_PATTERNS)}, or a pattern of your own"
            )
        self._patterns = [_compiled(secret) for secret in secrets if isinstance(secret, str | re.Pattern)]
        self._functions = [secret for secret in secrets if not isinstance(secret, str | re.Pattern)]
        for function in self._functions:
            if not callable(function):
                raise TypeError(f"Redaction: give names, patterns or functions, got {type(function).__name__}")
        if not isinstance(replacement, str) and not callable(replacement):
            raise TypeError(f"Redaction: replacement must be a str or a function, got {type(replacement).__name__}")
        self._replacement = replacement

    @property
    def needs_whole_text(self) -> bool:
        """Whether a text can be redacted only when all of it is known."""
        return bool(self._functions)

    def redact(self, text: str) -> str:
        """The text without its secrets."""
        redacted, _ = self.redact_from(text, 0, is_complete=True)
        for function in self._functions:
            redacted = function(redacted)
        return redacted

    def on_request(self, run: RunInfo, request: ChatRequest) -> ChatRequest:
        self._state(run).client_tools = frozenset(tool.name for tool in request.tools) - run.tools.keys()
        system = request.system_prompt
        if isinstance(system, str):
            system = self.redact(system)
        elif system is not None:
            system = tuple(replace(block, text=self.redact(block.text)) for block in system)
        messages = (Message(message.role, self._redact_blocks(message.blocks)) for message in request.messages)
        return replace(request, system_prompt=system, messages=tuple(messages))

    def after_tool(self, run: RunInfo, call: ToolCallBlock, result: ToolResultBlock) -> ToolResultBlock:
        return replace(result, blocks=self._redact_blocks(result.blocks))

    def on_chunk(self, run: RunInfo, chunk: Chunk) -> StreamChunk | Sequence[StreamChunk] | None:
        state = self._states.get(run.run_id)
        if state is None:  # the run is over: its RunFinished
            return chunk
        text = state.open_text
        if text is not None and isinstance(chunk, text.kind):
            return text.add(chunk.delta)
        held = [] if text is None else text.finish()
        state.open_text = None
        match chunk:
            case TextDelta(delta) | ReasoningDelta(delta):
                state.open_text = _OpenText(self, type(chunk))
                return [*held, *state.open_text.add(delta)]
            case ToolCallStarted(name=name):
                state.is_client_call = name in state.client_tools
            case ToolCallArgsDelta() | ToolCallFinished() | ToolCallMalformed() if not state.is_client_call:
                return self._redact_call(chunk)
        return [*held, chunk] if held else chunk

    def _redact_call(self, chunk: ToolCallArgsDelta | ToolCallFinished | ToolCallMalformed) -> list[StreamChunk]:
        """Drop the deltas of the arguments, and yield one delta when the arguments are complete: in JSON text, escapes
        like ``\\u0040`` would hide a secret from the patterns."""
        match chunk:
            case ToolCallFinished(call_id, _, args):
                args = self._redact_json(args)
                return [ToolCallArgsDelta(call_id, json.dumps(args, ensure_ascii=False)), replace(chunk, args=args)]
            case ToolCallMalformed(call_id, _, raw, error):
                raw = self.redact(raw)
                deltas: list[StreamChunk] = [ToolCallArgsDelta(call_id, raw)] if raw else []
                return [*deltas, replace(chunk, raw=raw, error=self.redact(error))]
        return []

    def _redact_blocks(self, blocks: Iterable[AnyBlock]) -> tuple[AnyBlock, ...]:
        return tuple(map(self._redact_block, blocks))

    def _redact_block(self, block: AnyBlock) -> AnyBlock:
        match block:
            case TextBlock(text):
                return replace(block, text=self.redact(text))
            case ReasoningBlock(text, None):
                return replace(block, text=self.redact(text))
            case ToolCallBlock(args=args, signature=None):
                return replace(block, args=self._redact_json(args))
            case ToolResultBlock(blocks=inner):
                return replace(block, blocks=self._redact_blocks(inner))
        return block

    def _redact_json(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.redact(value)
        if isinstance(value, dict):
            redacted: dict[Any, Any] = {}
            for key, item in value.items():
                name = self._redact_json(key)
                while name in redacted:  # two secrets have become the same text
                    name += "_"
                redacted[name] = self._redact_json(item)
            return redacted
        return [self._redact_json(item) for item in value] if isinstance(value, list | tuple) else value

    def redact_from(self, text: str, start: int, *, is_complete: bool) -> tuple[str, int]:
        """The redacted text from ``start`` to where more text could change the result, and that position.

        With ``is_complete``, no more text follows: everything is returned.
        """
        parts: list[str] = []
        matches = [pattern.search(text, start) for pattern in self._patterns]
        end = len(text) if is_complete else self._first_partial_match(text, start)
        while True:
            # The next match of any pattern. Matches that start in the held text may still grow.
            match = min((match for match in matches if match), key=lambda match: match.start(), default=None)
            if match is None or match.start() >= end:
                return "".join([*parts, text[start:end]]), end
            parts += text[start : match.start()], self._replacement_for(match.group())
            start = match.end()
            for i, other in enumerate(matches):
                if other and other.start() < start:  # inside the replaced text
                    matches[i] = self._patterns[i].search(text, start)
            if end < start:
                end = self._first_partial_match(text, start)

    def _replacement_for(self, secret: str) -> str:
        return self._replacement if isinstance(self._replacement, str) else self._replacement(secret)

    def _first_partial_match(self, text: str, start: int) -> int:
        """Where the first match may begin that needs more text; the end of the text if there is none."""
        for i in range(start, len(text)):
            if any(pattern.fullmatch(text, i, partial=True) for pattern in self._patterns):
                return i
        return len(text)


class _OpenText:
    """A text or reasoning that may get more deltas. It holds back what may be the beginning of a secret."""

    def __init__(self, redaction: Redaction, kind: type[TextDelta | ReasoningDelta]) -> None:
        self.kind = kind
        self._redaction = redaction
        self._text = ""  # the held text, and some text before it
        self._held_from = 0

    def add(self, delta: str) -> list[StreamChunk]:
        """The chunks that can be yielded now."""
        self._text += delta
        if self._redaction.needs_whole_text:
            return []
        redacted, end = self._redaction.redact_from(self._text, self._held_from, is_complete=False)
        dropped = max(end - _CONTEXT_CHARS, 0)
        self._text, self._held_from = self._text[dropped:], end - dropped
        return [self.kind(redacted)] if redacted else []

    def finish(self) -> list[StreamChunk]:
        """The chunks that were held back."""
        if self._redaction.needs_whole_text:
            redacted = self._redaction.redact(self._text)
        else:
            redacted, _ = self._redaction.redact_from(self._text, self._held_from, is_complete=True)
        return [self.kind(redacted)] if redacted else []


@dataclass(slots=True)
class _RunState:
    """The text that is open in a run, and whether the current call is one of a client-side tool."""

    open_text: _OpenText | None = None
    client_tools: frozenset[str] = frozenset()
    is_client_call: bool = False


def _compiled(secret: str | re.Pattern[str]) -> Any:
    """The pattern as one of ``regex``.

    Patterns that look ahead are refused: they decide by text after the match, which may not have arrived.
    """
    try:
        import regex
    except ImportError as exc:
        raise ConfigurationError(f"Redaction needs the package regex ({exc}); run: {install_command('regex')}") from exc
    if isinstance(secret, str):
        if secret not in _NAMED_PATTERNS:
            raise ValueError(
                f"Redaction: the names are {', '.join(_NAMED_PATTERNS)}, got {secret!r}; "
                "for a pattern of your own, use re.compile(…)"
            )
        return regex.compile(_NAMED_PATTERNS[secret])
    if not isinstance(secret.pattern, str):
        raise TypeError("Redaction: patterns must be of str, got a pattern of bytes")
    if _LOOKAHEAD.search(secret.pattern):
        raise ValueError(
            f"Redaction: {secret.pattern!r} looks ahead, at text that may not have arrived yet; "
            "remove the (?=…), (?!…) or \\B"
        )
    flags = sum(getattr(regex, flag) for flag in _FLAGS if secret.flags & getattr(re, flag))
    pattern = regex.compile(secret.pattern, flags)
    if pattern.fullmatch(""):
        raise ValueError(f"Redaction: {secret.pattern!r} matches the empty text; it must match at least one character")
    return pattern
