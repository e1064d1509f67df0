"""A chat: its conversation, its messages, and its commands, such as ``/model``."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from completion.cli.approval import can_ask, shown_call
from completion.cli.attachments import attachment, describe, readable_by
from completion.cli.lines import Typed
from completion.cli.report import FAILED, OK, WRONG_USAGE, report, report_end, tell
from completion.cli.screen import Screen
from completion.cli.sessions import Session, read_session, request_after, with_settings, write_session
from completion.cli.setup import named_model
from completion.contract.cancel import CancelToken
from completion.contract.errors import CompletionError
from completion.contract.messages import Block, Message, ToolCallBlock, ToolResultBlock
from completion.contract.request import system_text
from completion.engine import Conversation, RunStream
from completion.engine.decisions import Decision
from completion.terminal import harmless, one_line

# Command -> its argument, and what it does.
COMMANDS: dict[str, tuple[str, str]] = {
    "help": ("", "list the commands"),
    "model": ("[FAMILY:MODEL]", "show the model, or continue with another one"),
    "system": ("[TEXT]", "show the system prompt, or replace it; - removes it"),
    "attach": ("FILE|URL", "add an image, a PDF, audio or text to the next message"),
    "save": ("[FILE]", "write the conversation to a file; default: that of --session"),
    "retry": ("", "ask the last question again"),
    "clear": ("", "forget the conversation"),
    "quit": ("", "end the chat"),
}


def commands_table() -> str:
    """The commands for the help."""
    rows = [(f"/{name} {takes}", does) for name, (takes, does) in COMMANDS.items()]
    return "commands:\n" + "\n".join(f"  {left:<22} {does}" for left, does in rows)


class Talk:
    """A chat with a person.

    Args:
        model_name: as in ``-m``.
        attached: blocks for the next message.
    """

    def __init__(
        self,
        conversation: Conversation,
        model_name: str,
        session: Session,
        attached: Sequence[Block],
        options: argparse.Namespace,
    ) -> None:
        self.conversation = conversation
        self.is_over = False
        self._model_name = model_name
        self._session = session
        self._attached = [*attached]
        self._options = options
        self._unanswered: Message | None = None

    def receive(self, typed: Typed) -> int:
        """Carry out a command, or answer a message; returns the exit code. An empty message does nothing."""
        if typed.is_line and typed.text.startswith("/"):
            return self._carry_out(typed.text)
        if not typed.text.strip():
            return OK
        attached, self._attached = self._attached, []  # after an error, /retry sends them again
        try:
            said = Message.user([*readable_by(self.conversation.model, attached), typed.text])
        except CompletionError as error:  # a URL that cannot be downloaded
            return report(error)
        except ValueError as error:
            tell(f"/attach: {error}")
            return WRONG_USAGE
        return self._answer(said)

    def decide_waiting_calls(self, question: Callable[[ToolCallBlock], bool | str]) -> int:
        """Ask about the tool calls of the session that wait for approval, and continue; returns the exit code.

        A call without a decision keeps waiting. If the user sends a message instead, the model reads that the call was
        not made.
        """
        loaded = {tool.name for tool in self.conversation.tools}
        decisions: dict[str, Decision] = {}
        try:
            for call in self.conversation.pending:
                if call.name not in loaded:
                    tell(f"a tool call waits, and its tool is not loaded: {shown_call(call)}; --tools loads it")
                elif self._options.yes:
                    decisions[call.call_id] = True
                elif can_ask():
                    decisions[call.call_id] = question(call)
                else:
                    tell(f"a tool call waits, no terminal to ask on: {shown_call(call)}; --yes allows it")
        except KeyboardInterrupt:
            print(file=sys.stderr)
            return OK
        if not decisions:
            return OK
        code = self._show(lambda: self.conversation.resume(decisions))
        # Also after an error: with the results of the calls in the session, no call is made twice.
        saved = self._session.save(self.conversation, self._model_name)
        return code or saved

    def _answer(self, said: Message) -> int:
        """Print the answer; returns the exit code. A failed answer leaves the history as it was."""
        before = self.conversation.messages
        self._unanswered = said
        code = self._show(lambda: self.conversation.stream(said))
        if self.conversation.messages != before:
            self._unanswered = None
        return code or self._session.save(self.conversation, self._model_name)

    def _show(self, begin: Callable[[], RunStream]) -> int:
        """Print a run of the conversation; returns the exit code."""
        screen = Screen({call.call_id: call.name for call in self.conversation.pending})
        try:
            with _ctrl_c_cancels(), closing(begin()) as run:
                end = screen.show(run)
        except CompletionError as error:
            return report(error)
        except KeyboardInterrupt:
            print("\n(stopped)", file=sys.stderr)
            return OK
        report_end(end, self._options, tells_reason=True)
        return OK

    def _carry_out(self, line: str) -> int:
        word, _, rest = line[1:].partition(" ")
        if word not in COMMANDS:
            tell(f'unknown command /{word}; /help lists the commands; to send it as a message, write """{line}"""')
            return WRONG_USAGE
        takes, _ = COMMANDS[word]
        rest = rest.strip()
        if (rest and not takes) or (takes and not rest and not takes.startswith("[")):
            tell(f"/{word} takes {takes or 'no argument'}")
            return WRONG_USAGE
        command: Callable[[str], int] = getattr(self, f"_{word}")
        return command(rest)

    # --- the commands -----------------------------------------------------------------------------------------------

    def _help(self, rest: str) -> int:
        print(commands_table(), file=sys.stderr)
        return OK

    def _model(self, name: str) -> int:
        if not name:
            print(one_line(self._model_name), file=sys.stderr)
            return OK
        # --base-url is the server of the first family: another one must not get its requests.
        is_same_family = name.partition(":")[0] == self._model_name.partition(":")[0]
        try:
            model = named_model(name, f"/model {name}", self._options.base_url if is_same_family else None)
        except CompletionError as error:
            return report(error)
        self.conversation = self._changed(model=model)
        self._model_name = name
        return OK

    def _system(self, text: str) -> int:
        if text:
            self.conversation = self._changed(system_prompt=None if text == "-" else text)
            return OK
        shown = system_text(request_after(self.conversation, [Message.user("-")]))
        print(harmless(shown) or "there is no system prompt", file=sys.stderr)
        return OK

    def _attach(self, name: str) -> int:
        try:
            if name == "-":
                raise ValueError("the chat reads its messages from stdin; attach a file")
            block = attachment(_path_typed(name))
        except ValueError as error:
            tell(f"/attach: {error}")
            return WRONG_USAGE
        except CompletionError as error:
            return report(error)
        self._attached.append(block)
        print(one_line(f"attached to the next message: {name} ({describe(block)})"), file=sys.stderr)
        return OK

    def _save(self, name: str) -> int:
        if not name:
            if self._session.path is not None:
                return self._session.save(self.conversation, self._model_name)
            tell("/save: this chat has no session: give a FILE")
            return WRONG_USAGE
        path = Path(os.path.expanduser(_path_typed(name)))
        try:
            if path.exists():
                read_session(path)  # overwrite a session only, no other file
            write_session(path, self.conversation, self._model_name)
        except OSError as error:
            tell(f"/save: {path} cannot be written: {error.strerror or error}")
            return FAILED
        except ValueError:
            tell(f"/save: {path} exists and is not a session: give another name")
            return WRONG_USAGE
        print(one_line(f"saved; completion chat --session {shlex.quote(str(path))} continues it"), file=sys.stderr)
        return OK

    def _retry(self, rest: str) -> int:
        if self._unanswered is not None:
            return self._answer(self._unanswered)
        before = self.conversation.messages
        at = _last_question(before)
        if at is None:
            tell("/retry: there is no question yet")
            return WRONG_USAGE
        self.conversation.messages = before[:at]
        code = self._answer(before[at])
        if self._unanswered is not None:  # the old answer is better than none
            self.conversation.messages, self._unanswered = before, None
        return code

    def _clear(self, rest: str) -> int:
        self.conversation.messages = ()
        self._unanswered = None
        self._attached.clear()
        return OK

    def _quit(self, rest: str) -> int:
        self.is_over = True
        return OK

    def _changed(self, model: Any = None, **settings: Any) -> Conversation:
        now = self.conversation
        tools: Any = now.tools
        return with_settings(json.loads(now.to_json()), model or now.model, tools, now.middleware, **settings)


def _last_question(messages: Sequence[Message]) -> int | None:
    """The index of the user's last message without tool results; None if there is none."""
    for at in range(len(messages) - 1, -1, -1):
        if messages[at].role == "user" and not any(isinstance(block, ToolResultBlock) for block in messages[at].blocks):
            return at
    return None


def _path_typed(name: str) -> str:
    """The path. If a file is dropped on a terminal, it quotes the path or escapes spaces; this is undone here."""
    if name.startswith(("http://", "https://")) or os.path.exists(os.path.expanduser(name)):
        return name
    try:
        words = shlex.split(name)
    except ValueError:  # a quote that is not closed
        return name
    return words[0] if len(words) == 1 else name


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
