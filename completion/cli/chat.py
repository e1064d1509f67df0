"""The command ``chat``: a conversation in the terminal. A message is a line, a paste, or a text in triple quotes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from completion.cli.approval import Question, with_approval
from completion.cli.attachments import attachments
from completion.cli.lines import QUOTES, UnclosedQuotesError, prepare_terminal, read_message
from completion.cli.options import exit_on_bad_option, given_settings, refuse_binary, shared_parser
from completion.cli.report import OK, WRONG_USAGE, exit_code_table, tell
from completion.cli.sessions import open_session
from completion.cli.setup import find_tools, make_model, model_name, tracing
from completion.cli.talk import Talk, commands_table
from completion.terminal import one_line

ABOUT = f"""\
Chat with a model. Ctrl-C stops the answer, Ctrl-D ends the chat. A line is a message. Several lines that are pasted are
one message. To type several lines, begin and end them with {QUOTES}.

"""


def new_parser() -> argparse.ArgumentParser:
    return shared_parser("completion chat", "completion chat [options]", ABOUT + commands_table(), exit_code_table())


def chat(arguments: Sequence[str]) -> int:
    """Answer the messages of stdin until it ends; returns the exit code."""
    parser = new_parser()
    options = parser.parse_args(arguments)
    if "-" in (options.attach or ()):
        parser.error("--attach -: the chat reads its messages from stdin; attach a file")
    with exit_on_bad_option(parser):
        attached = attachments(options.attach)
    session = open_session(parser, options)
    name = model_name(options, session.model)
    question = Question()
    tools, asking = with_approval(find_tools(parser, options), options, question)
    with tracing(parser, options) as tracers:
        with exit_on_bad_option(parser):  # before the first question
            conversation = session.conversation(
                make_model(options, session.model),
                tools,
                [*tracers, *asking],
                **given_settings(options),
            )
        return _loop(Talk(conversation, name, session, attached, options), question, parser)


def _loop(talk: Talk, question: Question, parser: argparse.ArgumentParser) -> int:
    """Answer the messages. Returns the exit code of the last failure; 0 on a terminal, where it was shown."""
    is_terminal = sys.stdin.isatty()
    if is_terminal:
        prepare_terminal()
        model = talk.conversation.model
        name = one_line(f"{model.name}:{model.model}")
        print(f"{name} - Ctrl-C stops the answer, Ctrl-D ends the chat, /help lists commands", file=sys.stderr)
        if talk.conversation.messages:
            print(f"This continues a conversation of {len(talk.conversation.messages)} messages.", file=sys.stderr)
    code = talk.decide_waiting_calls(question)
    while not talk.is_over:
        try:
            message = read_message("> " if is_terminal else "")
        except UnclosedQuotesError:
            tell(f"the message has no closing {QUOTES}; it was not sent")
            code = WRONG_USAGE
            break
        except EOFError:
            break
        except KeyboardInterrupt:
            print(file=sys.stderr)
            continue
        if not is_terminal:
            refuse_binary(parser, message.text, "--attach FILE")
        try:
            code = talk.receive(message) or code
        except KeyboardInterrupt:  # while a file is downloaded
            if not is_terminal:
                raise
            print(file=sys.stderr)
    if is_terminal:
        print(file=sys.stderr)
    return OK if is_terminal else code
