"""The options that ``ask`` and ``chat`` share, and their parser."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from completion.cli.report import with_option_names
from completion.terminal import one_line

MAX_TOKENS = 4096

# fmt: off
OPTIONS: tuple[tuple[tuple[str, ...], dict[str, Any]], ...] = (
    (("-m", "--model"), {"metavar": "FAMILY:MODEL", "help": "the model; default: $COMPLETION_MODEL, else local"}),
    (("--base-url",), {"metavar": "URL", "help": "the server; default: the family's variable, else its own"}),
    (("-s", "--system"), {"metavar": "TEXT", "help": "system prompt"}),
    (("--max-tokens",), {"type": int, "metavar": "N", "help": f"most tokens of the answer (default: {MAX_TOKENS})"}),
    (("--temperature",), {"type": float, "metavar": "T", "help": "sampling temperature"}),
    (("-a", "--attach"), {"action": "append", "metavar": "FILE|URL", "help": "add an image, a PDF, audio or text"}),
    (("-c", "--continue"), {"action": "store_true", "dest": "resume", "help": "continue the last conversation"}),
    (("--session",), {"metavar": "FILE", "help": "continue the conversation in FILE, and save it there"}),
    (("--tools",), {"action": "append", "metavar": "MODULE[:FUNCTION,...]", "help": "functions the model may call"}),
    (("--approve",), {"action": "store_true", "help": "ask before every tool call"}),
    (("--yes",), {"action": "store_true", "help": "never ask before a tool call"}),
    (("--trace",), {"metavar": "FILE", "help": "append a trace to FILE as lines of JSON; see completion trace"}),
    (("--usage",), {"action": "store_true", "help": "print the number of tokens to stderr"}),
)
# fmt: on

# Options of single commands whose next argument is their value.
_MORE_WITH_VALUE = ("--schema", "--shell-completion", "-o", "--out", "--concurrency", "--dask")


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that removes control codes from its errors, because they quote the arguments."""

    def error(self, message: str) -> NoReturn:
        super().error(one_line(message))


def shared_parser(name: str, usage: str, about: str, epilog: str) -> Parser:
    """A parser with all OPTIONS. The usage is short, because each error prints it."""
    parser = Parser(
        prog=name,
        usage=usage,
        description=about,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    either = parser.add_mutually_exclusive_group()
    for names, settings in OPTIONS:
        (either if names[0] in ("--approve", "--yes") else parser).add_argument(*names, **settings)
    return parser


def given_settings(options: argparse.Namespace) -> dict[str, Any]:
    """The settings of a Conversation from the options. None: the option is not given, the session's setting stays."""
    return {
        "system_prompt": options.system,
        "max_tokens": options.max_tokens,
        "temperature": options.temperature,
    }


def takes_value(option: str) -> bool:
    """Whether the next argument is the value of this one. argparse accepts the beginning of a long name as well."""
    with_value = [name for names, settings in OPTIONS if settings.get("action") != "store_true" for name in names]
    with_value += _MORE_WITH_VALUE
    return option in with_value or (option.startswith("--") and any(name.startswith(option) for name in with_value))


def refuse_binary(parser: argparse.ArgumentParser, text: str, attach: str = "--attach -") -> None:
    """Exit with an error if the text from stdin contains a NUL: an image, an archive, or UTF-16."""
    if "\0" in text:
        parser.error(
            f"stdin is binary (it contains a NUL byte): use {attach} for an image, a PDF or audio; text must be UTF-8"
        )


@contextmanager
def exit_on_bad_option(parser: argparse.ArgumentParser) -> Iterator[None]:
    """If the block raises ValueError, which is about the value of an option, exit with its message."""
    try:
        yield
    except ValueError as error:
        parser.error(with_option_names(str(error)))
