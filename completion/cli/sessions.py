"""Saved conversations (sessions): in the file of ``--session``, or in the user's state folder.

A session file contains the JSON of ``Conversation.to_json`` and the name of the model. The state folder has two files:
``conversation.json``, the last conversation that was not given a file, and ``last``, the path of the last session. The
folder is made when ``-c`` or ``--session`` is used for the first time; until then nothing is saved.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from completion.cli.report import FAILED, OK, tell, with_option_names
from completion.contract.files import can_write_into
from completion.contract.messages import Message
from completion.contract.model import CompletionModel
from completion.contract.request import ChatRequest
from completion.engine import Conversation, Middleware, Tool

NO_HISTORY = "COMPLETION_NO_HISTORY"
"""This environment variable turns the state folder off, unless it is empty or 0."""

_MODEL_KEY = "model"


class Session:
    """The file of a conversation, and what it contains.

    ``path``: None if the conversation is not saved. ``model``: the name of its last model; None if unknown.

    Args:
        was_asked_for: ``-c`` or ``--session`` was given. Otherwise, a session that cannot be saved is not a failure.
    """

    def __init__(
        self, path: Path | None = None, stored: dict[str, Any] | None = None, *, was_asked_for: bool = True
    ) -> None:
        self.path = path
        self._was_asked_for = was_asked_for
        self._stored = stored
        # If two programs use one file at the same time, the second must not overwrite the messages of the first. The
        # file in the state folder is not guarded: it contains the last conversation, whichever program wrote it.
        self._is_guarded = path is not None and path.parent != state_folder()
        self._seen = _version_of(path)
        name = (stored or {}).get(_MODEL_KEY)
        self.model = name if isinstance(name, str) else None

    def conversation(
        self, model: CompletionModel, tools: Sequence[Tool], middleware: Sequence[Middleware], **settings: Any
    ) -> Conversation:
        """The conversation so far, or a new one. Settings that are not None replace the stored ones.

        Raises:
            ValueError: a setting is not valid.
        """
        given = {name: value for name, value in settings.items() if value is not None}
        if self._stored is None:
            return Conversation(model, tools=tools, middleware=middleware, **given)
        return with_settings(self._stored, model, tools, middleware, **given)

    def save(self, conversation: Conversation, model_name: str) -> int:
        """Write the session file, if there is one; returns the exit code. After a failure the old file is unchanged."""
        if self.path is None:
            return OK
        if self._is_guarded and _version_of(self.path) != self._seen:
            tell(f"the session {self.path} was changed by another program: this answer is not saved in it")
            return FAILED
        try:
            write_session(self.path, conversation, model_name)
            self._seen = _version_of(self.path)
            folder = state_folder()
            if not is_switched_off() and folder.is_dir():
                _write(folder / "last", str(self.path))
        except OSError as error:
            tell(f"the session {self.path} cannot be written: {error.strerror or error}")
            return FAILED if self._was_asked_for else OK
        return OK


def open_session(parser: argparse.ArgumentParser, options: argparse.Namespace) -> Session:
    """The session that the options name. Exits with an error if it cannot be read."""
    if options.session and options.resume:
        parser.error("--continue means the last session: give either --continue or --session")
    if options.session:
        path = Path(os.path.realpath(os.path.expanduser(options.session)))
        _check_writable(parser, path, f"--session {options.session}")
        if not is_switched_off():
            _begin_history()
        return Session(path, _stored(parser, path, "--session") if path.exists() else None)
    if is_switched_off():
        if options.resume:
            why = f"{NO_HISTORY} is set" if os.environ.get(NO_HISTORY) else "there is no home folder"
            parser.error(f"--continue: no conversation is saved, because {why}; use --session FILE")
        return Session()
    if options.resume:
        session = _last_session(parser)
        assert session.path is not None
        _check_writable(parser, session.path, f"--continue: {session.path}")
        return session
    folder = state_folder()
    # --json is for programs: their output must not depend on whether the user has ever used -c.
    if getattr(options, "json", False) or not folder.is_dir():
        return Session()
    return Session(folder / "conversation.json", was_asked_for=False)


def _check_writable(parser: argparse.ArgumentParser, path: Path, name: str) -> None:
    """Exit with an error if the session could not be saved: better now than after an answer that costs money."""
    folder = path.parent
    if path.is_dir():
        why = "it is a folder"
    elif path.exists() and not path.is_file():
        why = "it is not a file"  # as root, replacing /dev/null would remove the device
    elif not folder.is_dir():
        why = f"there is no folder {folder}"
    elif not can_write_into(folder):
        why = f"the folder {folder} is read-only"
    else:
        return
    parser.error(f"{name} cannot be written: {why}")


def is_switched_off() -> bool:
    """Whether nothing is saved in the state folder: the user turned it off, or has no home folder."""
    return os.environ.get(NO_HISTORY, "") not in ("", "0") or not state_folder().is_absolute()


def state_folder() -> Path:
    """The folder for saved conversations, in the place where this system keeps such files. It may not exist."""
    home = Path(os.path.expanduser("~"))
    if sys.platform == "darwin":
        base = home / "Library" / "Application Support"
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    else:
        # https://specifications.freedesktop.org/basedir-spec/latest/: a relative path must be ignored
        given = Path(os.environ.get("XDG_STATE_HOME", ""))
        base = given if given.is_absolute() else home / ".local" / "state"
    return base / "completion"


def write_session(path: Path, conversation: Conversation, model_name: str) -> None:
    """Write a session file with mode 0600. Raises OSError; the old file is then unchanged."""
    document = {_MODEL_KEY: model_name, **json.loads(conversation.to_json())}
    _write(path, json.dumps(document, ensure_ascii=False, indent=1) + "\n")


def read_session(path: Path) -> dict[str, Any]:
    """The JSON of a session file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not a session.
    """
    document = json.loads(path.read_bytes())
    if not isinstance(document, dict) or not str(document.get("schema")).startswith("completion.conversation."):
        raise ValueError("this is not the JSON of a conversation")
    return document


def with_settings(
    stored: dict[str, Any],
    model: CompletionModel,
    tools: Sequence[Tool],
    middleware: Sequence[Middleware],
    **settings: Any,
) -> Conversation:
    """The stored conversation with another model or other settings.

    Raises:
        ValueError: a setting is not valid, or this is not a conversation.
    """
    changed = {**stored, "settings": {**stored["settings"], **settings}}
    return Conversation.from_json(json.dumps(changed), model, tools=tools, middleware=middleware)


def request_after(conversation: Conversation, messages: Sequence[Message]) -> ChatRequest:
    """A request with these messages and the settings of the conversation."""
    settings = json.loads(conversation.to_json())["settings"]
    placeholder = {"messages": [Message.user("-").to_dict()]}  # a ChatRequest needs a message
    return replace(ChatRequest.from_dict({**settings, **placeholder}), messages=tuple(messages))


def _last_session(parser: argparse.ArgumentParser) -> Session:
    folder = state_folder()
    pointer = folder / "last"
    if not folder.is_dir() or not pointer.exists():
        _begin_history()
        tell("there is no earlier conversation: this is a new one")
        return Session(folder / "conversation.json")
    try:
        path = Path(pointer.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        parser.error(f"--continue: {pointer} cannot be read: {error}")
    if not path.exists():
        parser.error(f"--continue: the last session, {path}, does not exist any more")
    return Session(path, _stored(parser, path, "--continue"))


def _begin_history() -> None:
    """Make the state folder, if there is none, and tell the user."""
    folder = state_folder()
    if folder.is_dir():
        return
    with suppress(OSError):  # then nothing is saved, but the answer is still printed
        folder.mkdir(mode=0o700, parents=True)
        tell(f"from now on, the last conversation is saved in {folder}; {NO_HISTORY}=1 turns this off")


def _version_of(path: Path | None) -> tuple[int, int, int] | None:
    """A value that changes with each change of the file; None if there is no file."""
    try:
        state = None if path is None else os.stat(path)
    except OSError:
        return None
    return None if state is None else (state.st_ino, state.st_mtime_ns, state.st_size)


def _stored(parser: argparse.ArgumentParser, path: Path, option: str) -> dict[str, Any]:
    try:
        document = read_session(path)
        Conversation.from_json(json.dumps(document), _NoModel())
    except OSError as error:
        parser.error(f"{option}: {path} cannot be read: {error.strerror or error}")
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        parser.error(f"{option}: {path} is not a session: {with_option_names(str(error))}")
    return document


class _NoModel:
    """A placeholder: a Conversation needs a model, but here it is only parsed, and the model is never called."""

    name = model = "session"

    def chat_stream(self, req: Any) -> Any:
        raise NotImplementedError


def _write(path: Path, text: str) -> None:
    """Replace the file in one step: a reader, or a crash, sees the old text or the new one."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mode 0600
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
