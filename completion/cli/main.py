"""The command line: ask once, talk in the terminal, look at a trace, or list the families of models.

completion "Why is the sky blue?"
git diff | completion -m openai:gpt-4o-mini "Write a commit message"
completion chat --tools home:lights,heating --trace trace.jsonl
completion trace trace.jsonl
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterable, Sequence
from contextlib import closing, suppress

from completion import registry
from completion.cli.chat import _chat
from completion.cli.options import (
    BROKEN_PIPE,
    FAILED,
    INTERRUPTED,
    OK,
    _End,
    _more_help,
    _Parser,
    _parser,
    _refusing,
    _report,
    _report_end,
    _tell,
    _tools,
    _tracing,
)
from completion.cli.screen import _Screen
from completion.contract.chunks import (
    StreamChunk,
)
from completion.contract.errors import (
    CompletionError,
    ConfigurationError,
)
from completion.contract.request import ChatRequest
from completion.engine import run_chat
from completion.terminal import harmless_json, one_line
from completion.tracing import timeline
from completion.version import __version__


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    # What the shell could not decode is replaced: no provider takes half a character.
    arguments = [os.fsencode(word).decode("utf-8", "replace") for word in (sys.argv[1:] if argv is None else argv)]
    _open_streams()
    logging.getLogger("completion").addHandler(logging.NullHandler())  # what is of interest is shown here
    try:
        code = _run(arguments)
        sys.stdout.flush()  # here, where a failure can still be told
        return code
    except CompletionError as error:
        return _report(error)
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone.
        _silence_stdout()
        return BROKEN_PIPE
    except OSError as error:
        _silence_stdout()
        _tell(f"the output cannot be written: {error.strerror or error}")
        return FAILED


def _run(arguments: list[str]) -> int:
    """The first word may be a command; so may the only one that is no option."""
    first, rest = arguments[:1], arguments[1:]
    if first == ["models"] and not rest:
        return _models()
    if first == ["chat"] and all(word.startswith("-") for word in rest[:1]):
        return _chat(rest)
    if first == ["trace"] and sum(not word.startswith("-") for word in rest) <= 1:
        return _trace(rest)
    return _ask(arguments)


def _open_streams() -> None:
    """Streams that are closed become empty ones; none of them fails on a character that it cannot show."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115  it lives as long as the process
        with suppress(AttributeError, ValueError):  # not a stream that can be told
            getattr(sys, name).reconfigure(errors="replace")


def _silence_stdout() -> None:
    """What is still buffered must not fail once more at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


# --- ask once ----------------------------------------------------------------------------------------------------


def _ask(arguments: Sequence[str]) -> int:
    parser = _parser("completion", "Print a language model's answer as it is written.", _more_help())
    parser.add_argument("prompt", nargs="*", metavar="PROMPT", help="the question; '-' or nothing reads it from stdin")
    parser.add_argument("--json", action="store_true", help="print each chunk as a line of JSON")
    parser.add_argument("--version", action="version", version=f"completion {__version__}")
    options = parser.parse_args(arguments)
    if options.prompt in (["chat"], ["models"]) and "--" not in arguments:
        if options.prompt == ["models"]:
            return _models()
        return _chat([word for word in arguments if word != "chat"])
    prompt = _prompt(options.prompt)
    if not prompt.strip():
        parser.error("there is no prompt: give one as an argument or on stdin")
    model = registry.model(options.model)
    with _refusing(parser):
        request = ChatRequest(prompt, options.max_tokens, system_prompt=options.system, temperature=options.temperature)
    tools = _tools(parser, options)
    with _tracing(parser, options) as middleware:
        is_run = tools or middleware
        stream = run_chat(model, request, tools, middleware) if is_run else model.chat_stream(request)
        with closing(stream):
            end = _print_json(stream) if options.json else _Screen().show(stream)
    _report_end(end, options, is_noted=not options.json)
    return OK


def _prompt(words: list[str]) -> str:
    """The question. With both an argument and a pipe, the pipe holds the material that the question is about."""
    question = " ".join(word for word in words if word != "-")
    if sys.stdin.isatty() and "-" not in words:
        return question
    material = _stdin()
    if not question:
        return material
    return f"{material.rstrip()}\n\n{question}" if material.strip() else question


def _stdin() -> str:
    return sys.stdin.buffer.read().decode("utf-8", "replace")


def _print_json(chunks: Iterable[StreamChunk]) -> _End | None:
    end = None
    is_terminal = sys.stdout.isatty()
    for chunk in chunks:
        line = chunk.to_json()
        print(harmless_json(line) if is_terminal else line, flush=True)
        end = chunk if isinstance(chunk, _End) else end
    return end


# --- chat --------------------------------------------------------------------------------------------------------


# --- trace -------------------------------------------------------------------------------------------------------


def _trace(arguments: Sequence[str]) -> int:
    parser = _Parser(
        prog="completion trace",
        description="Show the runs of a trace, which --trace or a JsonTracer wrote, as timelines.",
        epilog="One run of many:  grep run_5f0c trace.jsonl | completion trace -",
    )
    parser.add_argument("file", metavar="FILE", help="the trace; '-' reads it from stdin")
    parser.add_argument("-f", "--follow", action="store_true", help="wait for more, and show each run when it ends")
    options = parser.parse_args(arguments)
    try:
        file = sys.stdin.buffer if options.file == "-" else open(options.file, "rb")  # noqa: SIM115
    except OSError as error:
        parser.error(f"{options.file} cannot be read: {error.strerror or error}")
    with file:
        if not timeline.show(file, sys.stdout, follow=options.follow):
            _tell("there is no run in it")
    return OK


# --- models ------------------------------------------------------------------------------------------------------


def _models() -> int:
    """List the families of models, the variable of each one's key, and whether it is set."""
    rows = [("FAMILY", "KEY", "STATE")]
    for name in registry.families():
        try:
            variable = getattr(registry.family(name), "key_variable", None)
        except ConfigurationError as error:
            rows.append((name, "-", str(error)))
            continue
        state = "needs no key" if variable is None else "set" if os.environ.get(variable) else "not set"
        rows.append((name, variable or "-", state))
    for family, key, state in rows:
        print(one_line(f"{family:<16} {key:<24} {state}"))
    return OK


# --- what they share ---------------------------------------------------------------------------------------------
