"""The question before a tool call. The answers are ``y``, ``n``, or ``always`` for this tool."""

from __future__ import annotations

import argparse
import copy
import json
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from completion.cli.report import tell
from completion.contract.messages import ToolCallBlock
from completion.engine import Approval, Middleware, Tool
from completion.terminal import harmless_json, one_line, showable

_CANNOT_ASK = "The user must allow this call, and cannot be asked now. Do not try it again."


def with_approval(
    tools: Sequence[Tool], options: argparse.Namespace, question: Question
) -> tuple[list[Tool], list[Middleware]]:
    """The tools, and the middleware that asks the question before the calls that need it.

    It asks before calls of tools with ``approval=True``. With ``--approve`` it asks before every call, with ``--yes``
    before none. The returned tools are copies without ``approval``, because ``approval`` would end the run, and here
    the user answers at once.
    """
    asked = [tool.name for tool in tools if options.approve or getattr(tool, "approval", False)]
    copies = [_without_approval(tool) for tool in tools]
    return copies, [Approval(question, names=asked)] if asked and not options.yes else []


def _without_approval(tool: Tool) -> Tool:
    if not getattr(tool, "approval", False):
        return tool
    copied: Any = copy.copy(tool)
    copied.approval = False
    return copied  # type: ignore[no-any-return]


class Question:
    """Asks on the terminal. It remembers for which tools the answer was ``always``."""

    def __init__(self) -> None:
        self._always: set[str] = set()

    def __call__(self, call: ToolCallBlock) -> bool | str:
        if call.name in self._always:
            return True
        if not can_ask():
            tell(f"tool call refused, no terminal to ask on: {shown_call(call)}; --yes allows it")
            return _CANNOT_ASK
        with _ctrl_c_raises():
            answer = self._ask(call)
        if answer == "always":
            self._always.add(call.name)
        return answer != "no"

    def _ask(self, call: ToolCallBlock) -> str:
        # The whole call, however long: what the user allows must be visible.
        question = f"{showable(shown_call(call), sys.stderr)}\nCall it? [y/n/always] "
        _discard_typeahead()
        while True:
            sys.stderr.write(question)
            sys.stderr.flush()
            line = sys.stdin.readline()
            if not line:  # Ctrl-D
                sys.stderr.write("\n")
                return "no"
            word = line.strip().lower()
            found = [answer for answer in ("yes", "no", "always") if word and answer.startswith(word)]
            if found:
                return found[0]
            question = "Answer y, n or always: "


def can_ask() -> bool:
    """There is a terminal to ask on."""
    return sys.stdin.isatty() and sys.stderr.isatty()


@contextmanager
def _ctrl_c_raises() -> Iterator[None]:
    """In the block, Ctrl-C raises KeyboardInterrupt. The handler of ``chat`` would only cancel the run."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def shown_call(call: ToolCallBlock) -> str:
    """The call as one line. Control characters in the arguments are escaped, so that they cannot hide a part of it."""
    args = ", ".join(
        f"{key}={harmless_json(json.dumps(value, ensure_ascii=False))}" for key, value in call.args.items()
    )
    return one_line(f"{call.name}({args})")


def _discard_typeahead() -> None:
    """Discard the keys that were pressed before the question: they cannot be an answer to it."""
    with suppress(ImportError, OSError):  # Windows has no termios
        import termios

        termios.tcflush(sys.stdin.fileno(), termios.TCIFLUSH)
