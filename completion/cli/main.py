"""The command line: chooses the command, runs it, and turns its exceptions into exit codes.

completion "Why is the sky blue?"
git diff | completion -m openai:gpt-5.6 "Write a commit message"
completion chat --tools home:lights,heating --trace trace.jsonl
completion trace trace.jsonl
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from difflib import get_close_matches
from importlib import import_module
from typing import cast

from completion.cli.options import Parser, takes_value
from completion.cli.report import BROKEN_PIPE, FAILED, INTERRUPTED, OK, report, tell
from completion.contract.errors import CompletionError
from completion.version import __version__

MAX_WORDS: dict[str, int | None] = {"ask": None, "batch": 1, "chat": 0, "check": 0, "models": 1, "trace": 1}
"""Each command, and the most words that it accepts besides its options; None is any number.

With more words than that, all of them are a prompt: ``completion chat with me`` sends "chat with me" to the model.
"""

Command = Callable[[Sequence[str]], int]
"""Takes the arguments without the command's name; returns the exit code."""

# How similar a word must be to a command to count as misspelled, from 0 to 1: "model" and "models" are similar by 0.91,
# "chta" and "chat" by 0.75.
MIN_SIMILARITY = 0.75


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    # Bytes that are not UTF-8 reach Python as lone surrogates, which no JSON body can carry.
    arguments = [os.fsencode(word).decode("utf-8", "replace") for word in (sys.argv[1:] if argv is None else argv)]
    _open_streams()
    # Without a handler, Python would print the library's log to stderr too. report() prints each error once.
    logging.getLogger("completion").addHandler(logging.NullHandler())
    try:
        code = _run(arguments)
        sys.stdout.flush()  # not at exit, where an error could no longer set the exit code
        return code
    except CompletionError as error:
        return report(error)
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        _silence_stdout()
        return BROKEN_PIPE
    except OSError as error:
        _silence_stdout()
        tell(f"the output cannot be written: {error.strerror or error}")
        return FAILED


def _open_streams() -> None:
    """Open /dev/null for each closed standard stream, and let no stream raise for a character it cannot encode."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115  it stays open until the process ends
        with suppress(AttributeError, ValueError):  # a replaced stream may not have reconfigure()
            getattr(sys, name).reconfigure(errors="replace")


def _run(arguments: Sequence[str]) -> int:
    """Run the command that the first word names, or else ``ask``; returns its exit code."""
    if arguments == ["--version"]:  # before a command is imported, because the import takes most of the time
        print(f"completion {__version__}")
        return OK
    if len(arguments) == 1:
        _refuse_misspelled(arguments[0])
    name, rest = "ask", arguments
    positions = list(_word_positions(arguments))
    if positions and arguments[positions[0]] in MAX_WORDS and "--" not in arguments[: positions[0]]:
        first, *others = positions
        max_words = MAX_WORDS[arguments[first]]
        if max_words is None or len(others) <= max_words:
            name, rest = arguments[first], [*arguments[:first], *arguments[first + 1 :]]
    # Each command is a function in a module of the same name. Only the one that runs is imported.
    command = cast(Command, getattr(import_module(f"completion.cli.{name}"), name))
    return command(rest)


def _word_positions(arguments: Sequence[str]) -> Iterator[int]:
    """The positions of the arguments that are words: neither options nor their values.

    ``-`` is a word, and so is everything after ``--``.
    """
    is_value = only_words = False
    for position, argument in enumerate(arguments):
        if is_value:
            is_value = False
        elif only_words or argument == "-" or not argument.startswith("-"):
            yield position
        elif argument == "--":
            only_words = True
        else:
            is_value = takes_value(argument)


def _refuse_misspelled(word: str) -> None:
    """Exit with an error if the word is almost the name of a command: "model" is probably not meant as a prompt."""
    folded = word.strip().lower()
    nearest = [f"--{folded}"] if folded in ("help", "version") else []
    nearest = nearest or get_close_matches(folded, MAX_WORDS, n=1, cutoff=MIN_SIMILARITY)
    if nearest and nearest != [word]:
        Parser(prog="completion", usage=f"completion [{'|'.join(MAX_WORDS)}] ...").error(
            f"unknown command {word!r}; did you mean: completion {nearest[0]}? "
            f"To send it as a prompt: completion ask {word}"
        )


def _silence_stdout() -> None:
    """Send the rest of the buffer to /dev/null: Python flushes it at exit, and this would fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
