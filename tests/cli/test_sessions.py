"""``--session`` and ``--continue``, run as their users run them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from completion import Conversation
from completion.testing import ProviderServer, Reply, ScriptedModel, WaitFor
from tests.cli.test_cli import delta, end
from tests.cli.test_cli import run as run_without_home

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


@pytest.fixture
def run(server: ProviderServer, home: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the command with an empty home, in an empty folder, at a server that answers everything."""
    server.always(Reply(delta(content="Yes."), end()))
    (home.parent / "here").mkdir()
    monkeypatch.chdir(home.parent / "here")
    settings = {"HOME": str(home), "XDG_STATE_HOME": "", "COMPLETION_NO_HISTORY": ""}

    def command(*arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
        return run_without_home(server, *arguments, **{**settings, **more})

    return command


def asked(server: ProviderServer) -> list[str]:
    """The texts of the messages in the last request."""
    return [message["content"] for message in server.requests[-1].json()["messages"]]


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


# --- --session ---------------------------------------------------------------------------------------------------


def test_a_session_continues_the_conversation_in_its_file(server: ProviderServer, run: Run) -> None:
    assert run("--session", "s.json", "One").stdout == "Yes.\n"
    assert run("--session", "s.json", "Two").stdout == "Yes.\n"
    assert asked(server) == ["One", "Yes.", "Two"]
    run("chat", "--session", "s.json", stdin="Three\n")
    run("--session", "s.json", "Four")
    assert asked(server) == ["One", "Yes.", "Two", "Yes.", "Three", "Yes.", "Four"]


def test_only_its_owner_can_read_a_session(run: Run) -> None:
    Path("s.json").touch(mode=0o644)
    Path("s.json").unlink()
    run("--session", "s.json", "One")
    assert os.stat("s.json").st_mode & 0o777 == 0o600
    os.chmod("s.json", 0o644)
    run("--session", "s.json", "Two")
    assert os.stat("s.json").st_mode & 0o777 == 0o600
    assert files(Path()) == ["s.json"]


def test_a_session_is_the_json_of_a_conversation(run: Run) -> None:
    run("-s", "Be brief.", "--session", "s.json", "One")
    conversation = Conversation.from_json(Path("s.json").read_text(), ScriptedModel("No."))
    assert [message.text for message in conversation.messages] == ["One", "Yes."]
    assert json.loads(Path("s.json").read_text())["model"] == "openai:m"


def test_a_session_keeps_its_model_and_settings_unless_others_are_given(server: ProviderServer, run: Run) -> None:
    run("-m", "openai:first", "-s", "Be brief.", "--max-tokens", "7", "--session", "s.json", "One")
    run("--session", "s.json", "Two")
    body = server.requests[-1].json()
    assert (body["model"], body["max_tokens"], asked(server)[0]) == ("first", 7, "Be brief.")
    run("-m", "openai:second", "-s", "Rhyme.", "--session", "s.json", "Three")
    assert (server.requests[-1].json()["model"], asked(server)[0]) == ("second", "Rhyme.")


def test_a_failed_answer_leaves_the_session_as_it_was(server: ProviderServer, run: Run) -> None:
    run("--session", "s.json", "One")
    before = Path("s.json").read_bytes()
    server.always(Reply(delta(content="Hal")))
    assert run("--session", "s.json", "Two").returncode == 6
    assert Path("s.json").read_bytes() == before


def test_a_session_that_another_program_changed_keeps_those_messages(server: ProviderServer, run: Run) -> None:
    run("--session", "s.json", "One")
    go = threading.Event()
    server.reply(Reply(delta(content="Slow"), WaitFor(go), end()))
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(run, "--session", "s.json", "Slow")
        assert server.wait_for_requests(2)
        run("--session", "s.json", "Fast")
        go.set()
        done = slow.result()
    assert (done.returncode, done.stdout) == (1, "Slow\n")
    assert "was changed by another program: this answer is not saved in it" in done.stderr
    run("--session", "s.json", "Two")
    assert asked(server) == ["One", "Yes.", "Fast", "Yes.", "Two"]


def test_a_link_to_a_session_stays_a_link(run: Run) -> None:
    Path("link.json").symlink_to("s.json")
    run("--session", "link.json", "One")
    assert (Path("link.json").is_symlink(), Path("s.json").is_file()) == (True, True)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("s.json", "{", "is not a session"),
        ("s.json", '{"type": "object"}', "is not a session: this is not the JSON of a conversation"),
        ("s.json", '{"schema": "completion.conversation.1", "messages": 7}', "is not a session"),
        ("no/such/s.json", None, "cannot be written: there is no folder"),
        (".", None, "cannot be written: it is a folder"),
        ("/dev/full", None, "cannot be written: it is not a file"),
    ],
    ids=["not JSON", "another file", "damaged", "no folder", "a folder", "a device"],
)
def test_a_bad_session_exits_with_2_and_changes_nothing(
    server: ProviderServer, run: Run, name: str, text: str | None, message: str
) -> None:
    if text is not None:
        Path(name).write_text(text)
    done = run("--session", name, "One")
    assert (done.returncode, len(server.requests)) == (2, 0)
    assert message in done.stderr
    assert text is None or Path(name).read_text() == text


@pytest.mark.parametrize(
    "fields",
    [
        {"base_url": "http://127.0.0.1:9", "settings": {"base_url": "http://127.0.0.1:9"}},
        {"tools": ["os:system"], "settings": {"tools": ["os:system"]}},
        {"messages": "[" * 100_000},
        {"model": "\x1b]0;title\x07"},
    ],
    ids=["address", "tools", "deep", "control codes"],
)
def test_a_hostile_session_is_refused_or_chooses_no_address(
    server: ProviderServer, run: Run, fields: dict[str, Any]
) -> None:
    run("--session", "s.json", "One")
    text = json.dumps(json.loads(Path("s.json").read_text()) | fields)
    Path("s.json").write_text(text.replace(f'"{"[" * 100_000}"', "[" * 100_000))
    done = run("--session", "s.json", "Two")
    # Either the session is refused, or the question goes to the address that the user has set.
    assert len(server.requests) == (2 if done.returncode == 0 else 1)
    assert not any(request.json().get("tools") for request in server.requests)
    assert "Traceback" not in done.stderr
    assert "\x1b" not in done.stderr


# --- --continue --------------------------------------------------------------------------------------------------


def test_nothing_is_kept_before_one_of_the_options_is_used(run: Run, home: Path) -> None:
    run("One")
    run("chat", stdin="Two\n")
    assert (files(home), files(Path())) == ([], [])


def test_the_first_use_tells_where_conversations_are_kept_from_now_on(run: Run, home: Path) -> None:
    done = run("-c", "One")
    assert (done.returncode, done.stdout) == (0, "Yes.\n")
    folder = home / ".local" / "state" / "completion"
    first, second = done.stderr.splitlines()
    assert first.startswith(f"completion: from now on, the last conversation is saved in {folder};")
    assert "COMPLETION_NO_HISTORY=1" in first
    assert second == "completion: there is no earlier conversation: this is a new one"
    assert run("-c", "Two").stderr == ""
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {(folder / name).stat().st_mode & 0o777 for name in files(folder)} == {0o600}


def test_continue_continues_the_last_conversation(server: ProviderServer, run: Run) -> None:
    run("-c", "One")
    run("Plain")  # a new conversation, which is kept from now on
    run("--continue", "Two")
    assert asked(server) == ["Plain", "Yes.", "Two"]
    run("chat", stdin="Hello\n")
    run("chat", "-c", stdin="Again\n")
    assert asked(server) == ["Hello", "Yes.", "Again"]


def test_continue_continues_a_session_in_its_file(server: ProviderServer, run: Run) -> None:
    assert "from now on" in run("--session", "s.json", "One").stderr
    run("-c", "Two")
    run("--session", "s.json", "Three")
    assert asked(server) == ["One", "Yes.", "Two", "Yes.", "Three"]
    Path("s.json").unlink()
    done = run("-c", "Four")
    assert (done.returncode, "s.json, does not exist any more" in done.stderr) == (2, True)


def test_json_is_the_same_whether_or_not_conversations_are_kept(run: Run) -> None:
    before = run("--json", "One").stdout
    run("-c", "Two")
    assert run("--json", "One").stdout == before
    assert '"run_finished"' in run("-c", "--json", "Three").stdout


def test_an_answer_that_nobody_asked_to_keep_is_no_failure_if_it_cannot_be_kept(run: Run, home: Path) -> None:
    folder = home / ".local" / "state" / "completion"
    run("-c", "One")
    (folder / "conversation.json").unlink()
    (folder / "conversation.json").mkdir()
    done = run("Two")
    assert (done.returncode, done.stdout) == (0, "Yes.\n")
    assert "conversation.json cannot be written: Is a directory" in done.stderr


def test_the_state_folder_follows_xdg_state_home(run: Run, home: Path) -> None:
    run("-c", "One", XDG_STATE_HOME=str(home / "state"))
    assert files(home) == ["state/completion/conversation.json", "state/completion/last"]


@pytest.mark.skipif(sys.platform != "linux", reason="nobody can write to /proc, root neither")
def test_a_conversation_that_cannot_be_saved_is_an_error_before_the_request(server: ProviderServer, run: Run) -> None:
    folder = "/proc/self"
    for arguments in (("--session", f"{folder}/s.json"), ("-c",)):
        done = run(*arguments, "One", XDG_STATE_HOME=folder)
        assert (done.returncode, len(server.requests)) == (2, 0), done.stderr
        assert "cannot be written: " in done.stderr


def test_no_history_switches_the_state_folder_off(server: ProviderServer, run: Run, home: Path) -> None:
    done = run("-c", "One", COMPLETION_NO_HISTORY="1")
    assert (done.returncode, len(server.requests)) == (2, 0)
    assert "COMPLETION_NO_HISTORY is set; use --session FILE" in done.stderr
    assert run("--session", "s.json", "One", COMPLETION_NO_HISTORY="1").stderr == ""
    assert (files(home), files(Path())) == ([], ["s.json"])
    run("-c", "One")
    before = files(home), (home / ".local/state/completion/conversation.json").read_bytes()
    run("Two", COMPLETION_NO_HISTORY="1")
    assert (files(home), (home / ".local/state/completion/conversation.json").read_bytes()) == before


def test_continue_and_session_exclude_each_other(server: ProviderServer, run: Run) -> None:
    done = run("-c", "--session", "s.json", "One")
    assert (done.returncode, len(server.requests)) == (2, 0)
    assert "give either --continue or --session" in done.stderr
