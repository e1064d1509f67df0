"""The command ``ask``, and the default: one prompt, one answer."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from contextlib import closing

from completion.cli.options import exit_on_bad_option, refuse_binary, shared_parser
from completion.cli.report import OK, End, exit_code_table, report_end
from completion.cli.screen import Screen
from completion.cli.setup import find_tools, make_model, tracing
from completion.contract.chunks import StreamChunk
from completion.contract.request import ChatRequest
from completion.engine import run_chat
from completion.terminal import harmless_json
from completion.version import __version__

MORE_HELP = """\
other commands:
  completion chat    talk in the terminal
  completion models  list the families of models
  completion trace   show a trace
To send one of these words as a prompt: completion ask chat

With both a pipe and a prompt, the pipe is the material:  git diff | completion 'Explain this'
In a loop that reads stdin, redirect it:  completion 'Hi' </dev/null
"""


def ask(arguments: Sequence[str]) -> int:
    """Print the answer to one prompt; returns the exit code."""
    about = "Print a language model's answer as it is written. completion ask PROMPT is the same."
    parser = shared_parser("completion", about, f"{MORE_HELP}\n{exit_code_table()}")
    parser.add_argument("prompt", nargs="*", metavar="PROMPT", help="the question; '-' or nothing reads it from stdin")
    parser.add_argument("--json", action="store_true", help="print each chunk as a line of JSON")
    parser.add_argument("--version", action="version", version=f"completion {__version__}")
    options = parser.parse_args(arguments)
    prompt = _prompt(parser, options.prompt)
    if not prompt.strip():
        parser.error("there is no prompt: give one as an argument or on stdin")
    model = make_model(options)
    with exit_on_bad_option(parser):
        request = ChatRequest(prompt, options.max_tokens, system_prompt=options.system, temperature=options.temperature)
    tools = find_tools(parser, options)
    with tracing(parser, options) as middleware:
        needs_run = tools or middleware
        stream = run_chat(model, request, tools, middleware) if needs_run else model.chat_stream(request)
        with closing(stream):
            end = _print_json(stream) if options.json else Screen().show(stream)
    # With --json, the last line already says why the answer ended.
    report_end(end, options, tells_reason=not options.json)
    return OK


def _prompt(parser: argparse.ArgumentParser, words: Sequence[str]) -> str:
    """The prompt. Text from a pipe comes first: it is the material that the question is about."""
    question = " ".join(word for word in words if word != "-")
    if sys.stdin.isatty() and "-" not in words:
        return question
    material = sys.stdin.buffer.read().decode("utf-8", "replace")
    refuse_binary(parser, material)
    if not question:
        return material
    return f"{material.rstrip()}\n\n{question}" if material.strip() else question


def _print_json(chunks: Iterable[StreamChunk]) -> End | None:
    """Print each chunk as a line of JSON; returns the last end of turn or of the run."""
    end = None
    is_terminal = sys.stdout.isatty()
    for chunk in chunks:
        line = chunk.to_json()
        print(harmless_json(line) if is_terminal else line, flush=True)
        end = chunk if isinstance(chunk, End) else end
    return end
