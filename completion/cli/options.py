"""Options, exit codes and reports that all commands share."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from operator import attrgetter
from typing import NoReturn, TypeAlias

from completion.contract.chunks import TurnFinished, Usage
from completion.contract.errors import (
    CompletionError,
    ConfigurationError,
    ProviderError,
    StreamCancelledError,
    StreamError,
    TransportError,
    UnsupportedContentError,
)
from completion.contract.run import RunFinished
from completion.engine import Middleware, Tool, tool
from completion.terminal import one_line
from completion.tracing import JsonTracer

OK = 0


FAILED = 1


WRONG_USAGE = 2


INTERRUPTED = 130


BROKEN_PIPE = 141


# The first class that fits counts.
EXIT_CODES: tuple[tuple[type[CompletionError], int, str], ...] = (
    (ConfigurationError, 3, "not set up: no key, unknown family, missing extra"),
    (UnsupportedContentError, 3, ""),
    (ProviderError, 4, "the provider refused"),
    (TransportError, 5, "the network failed, or a timeout is over"),
    (StreamError, 6, "the answer broke off or could not be read"),
    (StreamCancelledError, INTERRUPTED, ""),
)


_End: TypeAlias = TurnFinished | RunFinished


class _Parser(argparse.ArgumentParser):
    """Repeats what it refuses without its control codes."""

    def error(self, message: str) -> NoReturn:
        super().error(one_line(message))


def _parser(name: str, about: str, epilog: str) -> _Parser:
    parser = _Parser(prog=name, description=about, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    default = os.environ.get("COMPLETION_MODEL") or "local"
    add("-m", "--model", default=default, metavar="FAMILY:MODEL", help="default: $COMPLETION_MODEL, else local")
    add("-s", "--system", metavar="TEXT", help="system prompt")
    add("--max-tokens", type=int, default=4096, metavar="N", help="cap of the answer (default: 4096)")
    add("--temperature", type=float, metavar="T", help="how much chance there is in it")
    add("--tools", action="append", metavar="MODULE:FUNCTION,...", help="functions that the model may call")
    add("--trace", metavar="FILE", help="add what happens to FILE, as lines of JSON; see completion trace")
    add("--usage", action="store_true", help="say on stderr how many tokens it took")
    return parser


def _more_help() -> str:
    more = "other commands:\n  completion chat    talk in the terminal\n  completion trace   show a trace\n"
    more += "  completion models  list the families\n"
    more += "A prompt that is one of these words: completion -- chat\n"
    pipe = "A prompt as well as a pipe: the pipe holds the material.  git diff | completion 'Explain this'\n"
    pipe += "In a loop over stdin, give it another one:  completion 'Hi' </dev/null\n"
    return f"{more}\n{pipe}\n{_exit_code_table()}"


def _exit_code_table() -> str:
    rows = [(OK, "the answer is complete"), (FAILED, "the output cannot be written"), (WRONG_USAGE, "wrong usage")]
    rows += [(code, meaning) for _, code, meaning in EXIT_CODES if meaning]
    rows += [(INTERRUPTED, "interrupted by Ctrl-C"), (BROKEN_PIPE, "the reader of the output went away")]
    return "exit codes:\n" + "\n".join(f"  {code:<4} {meaning}" for code, meaning in rows)


@contextmanager
def _refusing(parser: argparse.ArgumentParser) -> Iterator[None]:
    """A ValueError inside is about an option."""
    try:
        yield
    except ValueError as error:
        parser.error(str(error))


def _tools(parser: argparse.ArgumentParser, options: argparse.Namespace) -> list[Tool]:
    """The functions that --tools names; plain typed ones become tools.

    Modules of the current folder are found as well, behind those that are installed: a file there stands in for none.
    """
    found: dict[str, Tool] = {}
    for words in options.tools or ():
        module, _, names = words.partition(":")
        if not module or not names:
            parser.error(f"--tools takes module:function, or module:function,function; got {words!r}")
        folder = os.path.abspath(os.curdir)
        if folder not in sys.path:
            sys.path.append(folder)
        for name in names.split(","):
            try:
                function = attrgetter(name)(import_module(module))
                one = function if isinstance(function, Tool) else tool(function)
            except CompletionError:
                raise
            except Exception as error:  # whatever the module does when it is imported
                parser.error(f"--tools {module}:{name}: {_hidden(module) or f'{type(error).__name__}: {error}'}")
            if found.setdefault(one.name, one) is not one:
                parser.error(f"--tools: two tools have the name {one.name!r}")
    return [*found.values()]


def _hidden(module: str) -> str | None:
    """Says so where the current folder has a module of that name, and Python took another one."""
    first = module.partition(".")[0]
    own = next((path for path in (f"{first}.py", first) if os.path.exists(path)), None)
    taken = sys.modules.get(first)
    if own is None or taken is None:
        return None
    folders = [getattr(taken, "__file__", None) or "", *getattr(taken, "__path__", ())]
    if any(os.path.abspath(own) in (folder, os.path.dirname(folder)) for folder in folders):
        return None
    return f"{first!r} is the name of an installed module, which comes before ./{own}; rename that one"


@contextmanager
def _tracing(parser: argparse.ArgumentParser, options: argparse.Namespace) -> Iterator[list[Middleware]]:
    """The middleware that --trace asks for."""
    if options.trace is None:
        yield []
        return
    try:
        tracer = JsonTracer(options.trace)
    except OSError as error:
        parser.error(f"--trace {options.trace}: {error.strerror or error}")
    with tracer:
        yield [tracer]


def _tell(text: str) -> None:
    """A line of the command's own on stderr; a part of it may be what a server said."""
    print(f"completion: {one_line(text)}", file=sys.stderr)


def _report(error: CompletionError) -> int:
    """One line on stderr; returns the exit code."""
    _tell(str(error))
    return next((code for kind, code, _ in EXIT_CODES if isinstance(error, kind)), FAILED)


def _report_end(end: _End | None, options: argparse.Namespace, *, is_noted: bool) -> None:
    """What the text does not show: why it ended, where that is not plain, and what it cost."""
    if end is None:
        return
    abort = end.abort if isinstance(end, RunFinished) else None
    if abort is not None and abort.kind == "cancelled":
        print("(stopped)", file=sys.stderr)
    elif is_noted and end.reason not in ("end_turn", "stop_sequence"):
        why = f"--max-tokens {options.max_tokens}" if end.reason == "max_tokens" else end.reason
        _tell(f"the answer stopped early: {abort.message if abort else why}")
    if options.usage:
        print(_usage_line(end.usage), file=sys.stderr)


def _usage_line(usage: Usage | None) -> str:
    if usage is None or usage == Usage():
        return "tokens: the provider did not say"
    cached = f" ({usage.cached_input_tokens} from the cache)" if usage.cached_input_tokens else ""
    thought = f" ({usage.reasoning_tokens} of them reasoning)" if usage.reasoning_tokens else ""
    return f"tokens: {usage.input_tokens} in{cached}, {usage.output_tokens} out{thought}"
