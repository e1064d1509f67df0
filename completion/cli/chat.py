"""The command ``chat``."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from types import FrameType

from completion import registry
from completion.cli.options import OK, _exit_code_table, _parser, _refusing, _report, _report_end, _tools, _tracing
from completion.cli.screen import _Screen
from completion.contract.cancel import CancelToken
from completion.contract.errors import CompletionError
from completion.engine import Conversation
from completion.terminal import one_line


def _chat(arguments: Sequence[str]) -> int:
    about = "Talk with a model. Ctrl-C stops the answer, Ctrl-D or /quit ends, /clear forgets what was said."
    parser = _parser("completion chat", about, _exit_code_table())
    options = parser.parse_args(arguments)
    tools = _tools(parser, options)
    with _tracing(parser, options) as middleware:
        with _refusing(parser):  # a bad option is told before the first question
            new = Conversation(
                registry.model(options.model),
                system_prompt=options.system,
                tools=tools,
                middleware=middleware,
                max_tokens=options.max_tokens,
                temperature=options.temperature,
            )
        return _talk(new, options)


def _talk(new: Conversation, options: argparse.Namespace) -> int:
    """Question after question; returns the exit code."""
    is_terminal = sys.stdin.isatty()
    if is_terminal:
        with suppress(ImportError):  # line editing and history; Windows has none
            import readline  # noqa: F401
        who = one_line(f"{new.model.name}:{new.model.model}")
        print(f"{who} - Ctrl-C stops the answer, Ctrl-D ends", file=sys.stderr)
    conversation = new.fork()
    failure = OK
    while True:
        try:
            line = input("> " if is_terminal else "").strip()
        except EOFError:
            break
        except KeyboardInterrupt:
            print(file=sys.stderr)
            continue
        if line == "/quit":
            break
        if line == "/clear":
            conversation = new.fork()
        elif line:
            failure = _exchange(conversation, line, options) or failure
    if is_terminal:
        print(file=sys.stderr)
    return OK if is_terminal else failure


def _exchange(conversation: Conversation, line: str, options: argparse.Namespace) -> int:
    """One question and its answer, and its exit code. What a failed answer has said is forgotten."""
    try:
        with _ctrl_c_cancels(), closing(conversation.stream(line)) as run:
            end = _Screen().show(run)
    except CompletionError as error:
        return _report(error)
    except KeyboardInterrupt:
        print("\n(stopped)", file=sys.stderr)
        return OK
    _report_end(end, options, is_noted=True)
    return OK


@contextmanager
def _ctrl_c_cancels() -> Iterator[None]:
    """Ctrl-C ends the runs that are begun inside, which keeps what they have said; a second one breaks them off."""
    token = CancelToken()

    def interrupted(number: int, frame: FrameType | None) -> None:
        if token.cancelled:
            raise KeyboardInterrupt
        token.cancel()

    before = signal.signal(signal.SIGINT, interrupted)
    try:
        with token:
            yield
    finally:
        signal.signal(signal.SIGINT, before)
