"""The options that ``ask`` and ``chat`` share, and their parser."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from completion.cli.report import with_option_names
from completion.terminal import one_line

# fmt: off
OPTIONS: tuple[tuple[tuple[str, ...], dict[str, Any]], ...] = (
    (("-m", "--model"), {"metavar": "FAMILY:MODEL", "help": "default: $COMPLETION_MODEL, else local"}),
    (("--base-url",), {"metavar": "URL", "help": "the server; default: the family's environment variable, or its own"}),
    (("-s", "--system"), {"metavar": "TEXT", "help": "system prompt"}),
    (("--max-tokens",), {"type": int, "default": 4096, "metavar": "N", "help": "limit of the answer (default: 4096)"}),
    (("--temperature",), {"type": float, "metavar": "T", "help": "sampling temperature"}),
    (("--tools",), {"action": "append", "metavar": "MODULE:FUNCTION,...", "help": "functions the model may call"}),
    (("--trace",), {"metavar": "FILE", "help": "append what happens to FILE as lines of JSON; see completion trace"}),
    (("--usage",), {"action": "store_true", "help": "print the number of tokens to stderr"}),
)
# fmt: on


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors contain no control codes: they quote the arguments."""

    def error(self, message: str) -> NoReturn:
        super().error(one_line(message))


def shared_parser(name: str, about: str, epilog: str) -> Parser:
    """A parser with all OPTIONS."""
    parser = Parser(prog=name, description=about, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter)
    for names, settings in OPTIONS:
        parser.add_argument(*names, **settings)
    return parser


def takes_value(option: str) -> bool:
    """Whether the next argument is the value of this one. argparse accepts the beginning of a long name as well."""
    with_value = [name for names, settings in OPTIONS if settings.get("action") != "store_true" for name in names]
    return option in with_value or (option.startswith("--") and any(name.startswith(option) for name in with_value))


def refuse_binary(parser: argparse.ArgumentParser, text: str) -> None:
    """Exit with an error if the text from stdin contains a NUL: an image, an archive, or UTF-16."""
    if "\0" in text:
        parser.error("stdin is binary (it contains a NUL byte): give text in UTF-8")


@contextmanager
def exit_on_bad_option(parser: argparse.ArgumentParser) -> Iterator[None]:
    """Exit with an error if the block raises ValueError: it is about the value of an option."""
    try:
        yield
    except ValueError as error:
        parser.error(with_option_names(str(error)))
