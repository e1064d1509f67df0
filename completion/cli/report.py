"""The messages on stderr, and the exit codes. stdout contains only the answer."""

from __future__ import annotations

import argparse
import re
import sys
from typing import TypeAlias

from completion.contract.chunks import TurnFinished, Usage
from completion.contract.errors import (
    CompletionError,
    ConfigurationError,
    OutputError,
    ProviderError,
    StreamCancelledError,
    StreamError,
    TransportError,
    UnsupportedContentError,
)
from completion.contract.run import RunFinished
from completion.terminal import one_line

OK = 0
FAILED = 1
WRONG_USAGE = 2
NOT_SET_UP = 3
OUTPUT_DOES_NOT_FIT = 6
INTERRUPTED = 130  # 128 + SIGINT, as shells count
BROKEN_PIPE = 141  # 128 + SIGPIPE

# The first class that matches is used. A row without a meaning is not listed in the help.
EXIT_CODES: tuple[tuple[type[CompletionError], int, str], ...] = (
    (ConfigurationError, NOT_SET_UP, "not set up: no key, unknown family, missing extra"),
    (UnsupportedContentError, NOT_SET_UP, ""),
    (ProviderError, 4, "the provider refused the request"),
    (TransportError, 5, "the network failed, or a timeout expired"),
    (StreamError, 6, "the answer was truncated or malformed, or does not fit --schema"),
    (OutputError, OUTPUT_DOES_NOT_FIT, ""),
    (StreamCancelledError, INTERRUPTED, ""),
)

_BASE_URL = re.compile(r"\bbase_url\b")
_BASE_URL_OPTION = "the base URL (--base-url, or from the environment)"

# The library's errors name Python arguments. A user of the command knows its options and environment variables.
_OPTION_NAMES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), words)
    for pattern, words in (
        (r"LocalModel\(path=[^)]*\)", "-m local:FILE.gguf"),
        # The command has no option for this limit of RunConfig.
        (r"RunConfig\.max_iterations=(\d+)", r"the limit of \1 turns with tools"),
        (r"\bbase_url=", "--base-url"),
        (_BASE_URL.pattern, _BASE_URL_OPTION),
        (r",? or (?:give|pass) (?:\w+=(?:, | or )?)+", ""),
        (r"\b(?:give|pass) (?:\w+=(?:, | or )?)+", "set the environment variable of the key (completion models)"),
        (r"(?:\b[A-Z]\w+\.)?\bmax_tokens\b", "--max-tokens"),
        (r"(?:\b[A-Z]\w+\.)?\bsystem_prompt\b", "--system"),
        (r"(?:\b[A-Z]\w+\.)?(?<!-)\btemperature\b", "--temperature"),
    )
)

End: TypeAlias = TurnFinished | RunFinished
"""The end of an answer: of one turn, or of a run with tools."""


def exit_code_table() -> str:
    """The exit codes for the help."""
    rows = [
        (OK, "the answer is complete"),
        (FAILED, "the output or the session cannot be written"),
        (WRONG_USAGE, "wrong usage"),
    ]
    rows += [(code, meaning) for _, code, meaning in EXIT_CODES if meaning]
    rows += [(INTERRUPTED, "interrupted by Ctrl-C"), (BROKEN_PIPE, "the reader of the output closed the pipe")]
    return "exit codes:\n" + "\n".join(f"  {code:<4} {meaning}" for code, meaning in rows)


def tell(text: str) -> None:
    """Print one line to stderr, without control codes: a server may have written a part of it."""
    print(f"completion: {one_line(text)}", file=sys.stderr)


def report(error: CompletionError) -> int:
    """Print the error as one line; returns its exit code."""
    # Other errors quote the provider, whose words we do not change. Only "base_url" is replaced: our own hints have it.
    is_ours = isinstance(error, ConfigurationError | UnsupportedContentError)
    tell(with_option_names(str(error)) if is_ours else _BASE_URL.sub(_BASE_URL_OPTION, str(error)))
    return next((code for kind, code, _ in EXIT_CODES if isinstance(error, kind)), FAILED)


def with_option_names(message: str) -> str:
    """The message with ``--base-url`` for ``base_url=`` and so on."""
    for pattern, words in _OPTION_NAMES:
        message = pattern.sub(words, message)
    return message


def report_end(end: End | None, options: argparse.Namespace, *, tells_reason: bool) -> None:
    """Print why an answer stopped early, and with ``--usage`` its tokens."""
    if end is None:
        return
    abort = end.abort if isinstance(end, RunFinished) else None
    if abort is not None and abort.kind == "cancelled":
        print("(stopped)", file=sys.stderr)
    elif tells_reason and end.reason not in ("end_turn", "stop_sequence"):
        why = _limit(options.max_tokens) if end.reason == "max_tokens" else end.reason
        tell(f"the answer stopped early: {with_option_names(abort.message) if abort else why}")
    if options.usage:
        print(_usage_line(end.usage), file=sys.stderr)


def _limit(max_tokens: int | None) -> str:
    return "it reached the token limit; use --max-tokens" if max_tokens is None else f"--max-tokens {max_tokens}"


def _usage_line(usage: Usage | None) -> str:
    if usage is None or usage == Usage():
        return "tokens: not reported by the provider"
    cached = f" ({usage.cached_input_tokens} from the cache)" if usage.cached_input_tokens else ""
    reasoning = f" ({usage.reasoning_tokens} of them reasoning)" if usage.reasoning_tokens else ""
    return f"tokens: {usage.input_tokens} in{cached}, {usage.output_tokens} out{reasoning}"
