"""The question before the call of a tool, on a pseudo-terminal and in a pipe."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from completion import Conversation, FinishReason, TurnFinished
from completion.testing import ProviderServer, Reply, ScriptedModel
from completion.testing.scripted import Script
from tests.cli.test_cli import Terminal
from tests.cli.test_tools import call, calling, results, run, saying
from tests.runs import called

pytest.importorskip("pydantic")
pytestmark = pytest.mark.filterwarnings("ignore:This process.*fork:DeprecationWarning")

TOOLS = """
from completion import tool

@tool
def weather(city: str) -> str:
    "The weather of a city."
    return f"Rain in {city}."

@tool
def delete(path: str) -> str:
    "Delete a file."
    return f"Deleted {path}."

delete.approval = True
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "home.py").write_text(TOOLS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def deleting(path: str = "a.txt") -> Reply:
    return calling(call("delete", path=path))


def chat(server: ProviderServer, *options: str) -> Terminal:
    terminal = Terminal(server, "chat", "--tools", "home", *options, TERM="dumb", NO_COLOR="1", COLUMNS="80")
    terminal.wait_for("> ")
    terminal.type("Go\n")
    return terminal


def leave(terminal: Terminal) -> None:
    terminal.type("\x04")
    assert terminal.ended() == 0


@pytest.mark.parametrize(
    ("typed", "result"),
    [("y", "Deleted a.txt."), ("yes", "Deleted a.txt."), ("n", "did not allow"), ("\x04", "did not allow")],
    ids=["y", "yes", "n", "Ctrl-D"],
)
def test_a_tool_that_wants_it_is_called_after_a_yes(
    server: ProviderServer, folder: Path, typed: str, result: str
) -> None:
    server.reply(deleting(), saying("So."))
    terminal = chat(server)
    terminal.wait_for('delete(path="a.txt")\r\nCall it? [y/n/always] ')
    assert len(server.requests) == 1
    terminal.type(typed if typed == "\x04" else f"{typed}\n")
    terminal.wait_for_prompt_behind("So.")
    assert result in results(server)[0]
    leave(terminal)


def test_another_answer_is_asked_for_again(server: ProviderServer, folder: Path) -> None:
    server.reply(deleting(), saying("So."))
    terminal = chat(server)
    terminal.wait_for("[y/n/always] ")
    terminal.type("perhaps\n")
    terminal.wait_for("Answer y, n or always: ")
    terminal.type("\n")
    terminal.type("n\n")
    terminal.wait_for_prompt_behind("So.")
    leave(terminal)


def test_always_is_remembered_for_this_tool(server: ProviderServer, folder: Path) -> None:
    server.reply(deleting(), saying("One."), deleting("b.txt"), saying("Two."))
    terminal = chat(server)
    terminal.wait_for("[y/n/always] ")
    terminal.type("always\n")
    terminal.wait_for_prompt_behind("One.")
    terminal.type("Go\n")
    terminal.wait_for_prompt_behind("Two.")
    assert terminal.screen.count("[y/n/always]") == 1
    assert results(server, 3) == ["Deleted a.txt.", "Deleted b.txt."]
    leave(terminal)


def test_a_tool_that_does_not_want_it_is_called_at_once(server: ProviderServer, folder: Path) -> None:
    server.reply(calling(call("weather", city="Oslo")), saying("So."))
    terminal = chat(server)
    terminal.wait_for_prompt_behind("So.")
    assert "[y/n/always]" not in terminal.screen
    leave(terminal)


def test_approve_asks_before_every_call(server: ProviderServer, folder: Path) -> None:
    server.reply(calling(call("weather", city="Oslo")), saying("So."))
    terminal = chat(server, "--approve")
    terminal.wait_for('weather(city="Oslo")\r\nCall it? [y/n/always] ')
    terminal.type("y\n")
    terminal.wait_for_prompt_behind("So.")
    assert results(server) == ["Rain in Oslo."]
    leave(terminal)


def test_yes_never_asks(server: ProviderServer, folder: Path) -> None:
    server.reply(deleting(), saying("So."))
    done = run(server, folder, "--tools", "home", "--yes", "Go")
    assert (done.returncode, done.stdout, results(server)) == (0, "So.\n", ["Deleted a.txt."])


def test_approve_and_yes_exclude_each_other(server: ProviderServer, folder: Path) -> None:
    done = run(server, folder, "--tools", "home", "--yes", "--approve", "Go")
    assert (done.returncode, "not allowed with argument" in done.stderr) == (2, True)


def test_the_whole_call_is_shown_without_control_codes(server: ProviderServer, folder: Path) -> None:
    path = "a" * 300 + "\x1b[2J\n\u202e.txt"
    server.reply(deleting(path), saying("So."))
    terminal = chat(server)
    terminal.wait_for("[y/n/always] ")
    assert f'delete(path="{"a" * 300}\\u001b[2J\\n\\u202e.txt")' in terminal.screen
    terminal.type("n\n")
    terminal.wait_for_prompt_behind("So.")
    leave(terminal)


def test_what_was_typed_before_the_question_is_not_the_answer(server: ProviderServer, folder: Path) -> None:
    server.reply(deleting(), saying("So."))
    terminal = Terminal(server, "--tools", "home", "Go", TERM="dumb")
    terminal.type("y\n")
    terminal.wait_for("[y/n/always] ")
    terminal.type("n\n")
    terminal.wait_for("So.")
    assert "did not allow" in results(server)[0]
    assert terminal.ended() == 0


def test_ctrl_c_at_the_question_stops_the_answer_but_not_the_chat(server: ProviderServer, folder: Path) -> None:
    server.reply(deleting(), saying("Better."))
    terminal = chat(server)
    terminal.wait_for("[y/n/always] ")
    terminal.press_ctrl_c()
    terminal.wait_for_prompt_behind("(stopped)")
    terminal.type("Again\n")
    terminal.wait_for_prompt_behind("Better.")
    assert [message["content"] for message in server.requests[1].json()["messages"]] == ["Again"]
    leave(terminal)


def test_ctrl_c_at_the_question_of_a_single_prompt_ends_the_command(server: ProviderServer, folder: Path) -> None:
    server.reply(deleting())
    terminal = Terminal(server, "--tools", "home", "Go", TERM="dumb")
    terminal.wait_for("[y/n/always] ")
    terminal.press_ctrl_c()
    assert terminal.ended() == 130
    assert len(server.requests) == 1


@pytest.mark.parametrize("arguments", [["Go"], ["chat"]], ids=["ask", "chat"])
def test_in_a_pipe_such_a_call_is_refused_and_told(server: ProviderServer, folder: Path, arguments: list[str]) -> None:
    server.reply(deleting(), saying("So."))
    done = run(server, folder, *arguments, "--tools", "home", stdin="Go\n" if arguments == ["chat"] else "")
    assert (done.returncode, done.stdout) == (0, "So.\n")
    assert (
        done.stderr == 'completion: tool call refused, no terminal to ask on: delete(path="a.txt"); --yes allows it\n'
    )
    assert "cannot be asked now" in results(server)[0]


def test_a_module_without_names_gives_its_marked_functions(server: ProviderServer, folder: Path) -> None:
    server.reply(saying("So."))
    run(server, folder, "--tools", "home", "Go")
    names = [tool["function"]["name"] for tool in server.requests[0].json()["tools"]]
    assert names == ["weather", "delete"]


@pytest.fixture
def waiting(server: ProviderServer, folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A session in which a call waits for approval, as a program has saved it."""
    monkeypatch.syspath_prepend(str(folder))
    home = importlib.import_module("home")
    script: Script = [*called("delete", call_id="c1", path="a.txt"), TurnFinished(FinishReason.TOOL_USE)]
    conversation = Conversation(ScriptedModel(script), tools=[home.delete])
    assert conversation.run("Go").pending
    (folder / "s.json").write_text(conversation.to_json())
    monkeypatch.delitem(sys.modules, "home")
    return "s.json"


def session_chat(server: ProviderServer, *options: str) -> Terminal:
    return Terminal(server, "chat", "--session", "s.json", *options, TERM="dumb", NO_COLOR="1", COLUMNS="80")


@pytest.mark.parametrize(("typed", "result"), [("y", "Deleted a.txt."), ("n", "did not allow")])
def test_a_chat_asks_about_the_calls_that_wait_in_its_session(
    server: ProviderServer, waiting: str, typed: str, result: str
) -> None:
    server.reply(saying("So."))
    terminal = session_chat(server, "--tools", "home")
    terminal.wait_for('delete(path="a.txt")\r\nCall it? [y/n/always] ')
    assert not server.requests
    terminal.type(f"{typed}\n")
    terminal.wait_for_prompt_behind("So.")
    assert [result in one for one in results(server, 0)] == [True]
    leave(terminal)
    assert terminal.screen.count("Call it?") == 1
    assert "So." in Path(waiting).read_text()
    again = session_chat(server, "--tools", "home")
    again.wait_for("> ")
    leave(again)
    assert "Call it?" not in again.screen


def test_a_call_of_a_session_is_not_made_twice_if_the_answer_fails(server: ProviderServer, waiting: str) -> None:
    server.reply(Reply.json({"error": {"message": "no"}}, 400))
    terminal = session_chat(server, "--tools", "home")
    terminal.wait_for("Call it?")
    terminal.type("y\n")
    terminal.wait_for_prompt_behind("completion: openai: no (400)")
    leave(terminal)
    assert "-> delete: Deleted a.txt." in terminal.screen
    assert "Deleted a.txt." in Path(waiting).read_text()


def test_ctrl_c_at_the_question_leaves_the_call_waiting(server: ProviderServer, waiting: str) -> None:
    before = Path(waiting).read_text()
    terminal = session_chat(server, "--tools", "home")
    terminal.wait_for("Call it?")
    terminal.press_ctrl_c()
    terminal.wait_for_prompt_behind("always]")
    leave(terminal)
    assert Path(waiting).read_text() == before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), 'a tool call waits, and its tool is not loaded: delete(path="a.txt"); --tools loads it'),
        (("--tools", "home"), 'a tool call waits, no terminal to ask on: delete(path="a.txt"); --yes allows it'),
    ],
)
def test_a_call_that_nobody_can_decide_keeps_waiting(
    server: ProviderServer, folder: Path, waiting: str, options: tuple[str, ...], words: str
) -> None:
    before = Path(waiting).read_text()
    done = run(server, folder, "chat", "--session", waiting, *options, stdin="/quit\n")
    assert (done.returncode, words in done.stderr, server.requests) == (0, True, [])
    assert Path(waiting).read_text() == before


def test_yes_allows_the_calls_that_wait_in_a_session(server: ProviderServer, folder: Path, waiting: str) -> None:
    server.reply(saying("So."))
    done = run(server, folder, "chat", "--session", waiting, "--tools", "home", "--yes", stdin="")
    assert (done.returncode, done.stdout, results(server, 0)) == (0, "So.\n", ["Deleted a.txt."])
