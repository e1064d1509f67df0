"""The command ``chat``: a conversation in the terminal, a line or a paste for each question."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from types import FrameType

from completion.cli.lines import prepare_terminal, read_message
from completion.cli.options import exit_on_bad_option, refuse_binary, shared_parser
from completion.cli.report import OK, exit_code_table, report, report_end
from completion.cli.screen import Screen
from completion.cli.setup import find_tools, make_model, tracing
from completion.contract.cancel import CancelToken
from completion.contract.errors import CompletionError
from completion.engine import Conversation
from completion.terminal import one_line


def chat(arguments: Sequence[str]) -> int:
    """Answer the lines of stdin until it ends; returns the exit code."""
    about = "Talk with a model. Ctrl-C stops the answer, Ctrl-D or /quit ends the chat, /clear clears the history."
    parser = shared_parser("completion chat", about, exit_code_table())
    options = parser.parse_args(arguments)
    tools = find_tools(parser, options)
    with tracing(parser, options) as middleware:
        with exit_on_bad_option(parser):  # before the first question
            empty = Conversation(
                make_model(options),
                system_prompt=options.system,
                tools=tools,
                middleware=middleware,
                max_tokens=options.max_tokens,
                temperature=options.temperature,
            )
        return _talk(empty, parser, options)


def _talk(empty: Conversation, parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    """Answer line after line. Returns the last failure's exit code; on a terminal, where the user saw it, always 0."""
    is_terminal = sys.stdin.isatty()
    if is_terminal:
        prepare_terminal()
        name = one_line(f"{empty.model.name}:{empty.model.model}")
        print(f"{name} - Ctrl-C stops the answer, Ctrl-D ends the chat", file=sys.stderr)
    conversation = empty.fork()
    code = OK
    while True:
        try:
            line = read_message("> " if is_terminal else "")
        except EOFError:
            break
        except KeyboardInterrupt:
            print(file=sys.stderr)
            continue
        if not is_terminal:
            refuse_binary(parser, line)
        if line == "/quit":
            break
        if line == "/clear":
            conversation = empty.fork()
        elif line:
            code = _answer(conversation, line, options) or code
    if is_terminal:
        print(file=sys.stderr)
    return OK if is_terminal else code


def _answer(conversation: Conversation, line: str, options: argparse.Namespace) -> int:
    """Print the answer to one question; returns its exit code. A failed answer leaves the history as it was."""
    try:
        with _ctrl_c_cancels(), closing(conversation.stream(line)) as run:
            end = Screen().show(run)
    except CompletionError as error:
        return report(error)
    except KeyboardInterrupt:
        print("\n(stopped)", file=sys.stderr)
        return OK
    report_end(end, options, tells_reason=True)
    return OK


@contextmanager
def _ctrl_c_cancels() -> Iterator[None]:
    """Let the first Ctrl-C cancel the runs that start in the block; a second one raises KeyboardInterrupt.

    A cancelled run keeps in the history what the model has said so far. KeyboardInterrupt does not.
    """
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
