"""The command ``ask``, and the default: one prompt, one answer."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from contextlib import closing
from importlib import import_module
from typing import Any

from completion.cli.approval import Question, with_approval
from completion.cli.attachments import attachments, readable_by
from completion.cli.options import MAX_TOKENS, exit_on_bad_option, given_settings, refuse_binary, shared_parser
from completion.cli.report import OK, End, exit_code_table, report_end
from completion.cli.schemas import schema_of
from completion.cli.screen import Screen
from completion.cli.sessions import open_session
from completion.cli.setup import find_tools, make_model, model_name, tracing
from completion.cli.values import print_value
from completion.contract.chunks import StreamChunk
from completion.contract.messages import Block, Message, TextBlock
from completion.contract.request import ChatRequest
from completion.contract.stream import ChatStream
from completion.engine import RunStream, run_chat
from completion.terminal import harmless_json
from completion.version import __version__

MORE_HELP = """\
other commands:
  completion chat    talk in the terminal
  completion models  list the families of models; completion models FAMILY lists the models of one
  completion batch   answer the requests of a file
  completion check   check a server or a gateway
  completion trace   show a trace
To send one of these words as a prompt: completion ask chat

With both a pipe and a prompt, the text of the pipe comes first:  git diff | completion 'Explain this'
In a loop that reads stdin, redirect it:  completion 'Hi' </dev/null
"""


class _PrintShellScript(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, namespace: Any, values: Any, option: str | None = None) -> None:
        print(import_module("completion.cli.shell").script(values), end="")  # it imports every command
        parser.exit()


def new_parser() -> argparse.ArgumentParser:
    about = "Print a language model's answer as it is written. completion ask PROMPT is the same."
    parser = shared_parser(
        "completion", "completion [ask] [options] [PROMPT ...]", about, f"{MORE_HELP}\n{exit_code_table()}"
    )
    parser.add_argument(
        "prompt", nargs="*", metavar="PROMPT", help="the prompt; without it, or with '-', it is read from stdin"
    )
    parser.add_argument("--json", action="store_true", help="print each chunk as a line of JSON")
    parser.add_argument(
        "--schema",
        metavar="FILE|MODULE:TYPE",
        help="print JSON that is valid for this JSON Schema, or for this Python type",
    )
    parser.add_argument("--version", action="version", version=f"completion {__version__}")
    parser.add_argument(
        "--shell-completion",
        action=_PrintShellScript,
        choices=["bash", "zsh", "fish"],
        help="print a script for the tab completion of this shell",
    )
    return parser


def ask(arguments: Sequence[str]) -> int:
    """Print the answer to one prompt; returns the exit code."""
    parser = new_parser()
    options = parser.parse_args(arguments)
    with exit_on_bad_option(parser):
        kind = None if options.schema is None else _schema(options.schema)
        if kind is not None and options.json:
            raise ValueError("--json prints chunks, and --schema prints one JSON value: give one of them")
        blocks = _blocks(parser, options)
    session = open_session(parser, options)
    model = make_model(options, session.model)
    with exit_on_bad_option(parser):
        message = Message.user(readable_by(model, blocks))
    tools, asking = with_approval(find_tools(parser, options), options, Question())
    with tracing(parser, options) as tracers:
        middleware = [*tracers, *asking]
        if kind is None and session.path is None:
            with exit_on_bad_option(parser):
                request = _request(message, options)
            is_run = tools or middleware
            _print(run_chat(model, request, tools, middleware) if is_run else model.chat_stream(request), options)
            return OK
        with exit_on_bad_option(parser):
            conversation = session.conversation(model, tools, middleware, **given_settings(options))
        if kind is None:
            _print(conversation.stream(message), options)
            code = OK
        else:
            code = print_value(conversation, model, message, kind, tools, middleware, options)
        return code or session.save(conversation, model_name(options, session.model))


def _schema(value: str) -> Any:
    try:
        return schema_of(value)
    except ValueError as error:
        raise ValueError(f"--schema {error}") from error


def _request(message: Message, options: argparse.Namespace) -> ChatRequest:
    max_tokens = MAX_TOKENS if options.max_tokens is None else options.max_tokens
    return ChatRequest([message], max_tokens, system_prompt=options.system, temperature=options.temperature)


def _blocks(parser: argparse.ArgumentParser, options: argparse.Namespace) -> list[Block]:
    """The attachments and the prompt. Raises ValueError if something cannot be attached."""
    attached = attachments(options.attach)
    prompt = _prompt(parser, options.prompt, reads_stdin="-" not in (options.attach or ()))
    if not prompt.strip() and not attached:
        parser.error("there is no prompt: give one as an argument or on stdin")
    return [*attached, TextBlock(prompt)] if prompt.strip() else attached


def _prompt(parser: argparse.ArgumentParser, words: Sequence[str], *, reads_stdin: bool) -> str:
    """The prompt. Text from a pipe comes before the words, which ask something about it."""
    question = " ".join(word for word in words if word != "-")
    if not reads_stdin or (sys.stdin.isatty() and "-" not in words):
        return question
    piped = sys.stdin.buffer.read().decode("utf-8-sig", "replace")
    refuse_binary(parser, piped)
    if not question:
        return piped
    return f"{piped.rstrip()}\n\n{question}" if piped.strip() else question


def _print(stream: ChatStream | RunStream, options: argparse.Namespace) -> None:
    with closing(stream):
        end = _print_json(stream) if options.json else Screen().show(stream)
    # With --json, the last line already says why the answer ended.
    report_end(end, options, tells_reason=not options.json)


def _print_json(chunks: Iterable[StreamChunk]) -> End | None:
    """Print each chunk as a line of JSON; returns the last end of turn or of the run."""
    end = None
    is_terminal = sys.stdout.isatty()
    for chunk in chunks:
        line = chunk.to_json()
        print(harmless_json(line) if is_terminal else line, flush=True)
        end = chunk if isinstance(chunk, End) else end
    return end
