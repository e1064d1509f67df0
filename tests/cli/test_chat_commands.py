"""The commands of ``completion chat``, in a pipe and on a terminal."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from completion.testing import ProviderServer, Reply, Stall
from tests.cli.test_cli import Terminal, delta, end, run

pytestmark = pytest.mark.filterwarnings("ignore:This process.*fork:DeprecationWarning")

PNG = b"\x89PNG\r\n\x1a\n and more"


def saying(text: str) -> Reply:
    return Reply(delta(content=text), end())


def asked(server: ProviderServer, request: int = -1) -> list[str]:
    return [message["content"] for message in server.requests[request].json()["messages"]]


def test_help_lists_the_commands(server: ProviderServer) -> None:
    done = run(server, "chat", stdin="/help\n")
    assert (done.returncode, done.stdout, len(server.requests)) == (0, "", 0)
    for command in ("/help", "/model", "/system", "/attach", "/save", "/retry", "/clear", "/quit"):
        assert f"  {command} " in done.stderr


@pytest.mark.parametrize("line", ["/exit", "/modle openai:x", "/etc/passwd what is it?", "/"])
def test_an_unknown_command_is_an_error_and_not_a_question(server: ProviderServer, line: str) -> None:
    done = run(server, "chat", stdin=f"{line}\n")
    assert (done.returncode, done.stdout, len(server.requests)) == (2, "", 0)
    assert f"unknown command {line.split()[0]};" in done.stderr


@pytest.mark.parametrize(
    ("line", "message"), [("/quit now", "/quit takes no argument"), ("/attach", "/attach takes FILE|URL")]
)
def test_a_command_with_too_much_or_too_little_is_an_error(server: ProviderServer, line: str, message: str) -> None:
    done = run(server, "chat", stdin=f"{line}\n")
    assert (done.returncode, message in done.stderr) == (2, True)


def test_model_continues_with_another_model(server: ProviderServer) -> None:
    server.always(saying("Yes."))
    done = run(server, "chat", stdin="One\n/model\n/model openai:other\nTwo\n/model\n")
    assert [request.json()["model"] for request in server.requests] == ["m", "other"]
    assert asked(server) == ["One", "Yes.", "Two"]
    assert done.stderr == "openai:m\nopenai:other\n"


def test_a_wrong_model_leaves_the_chat_as_it_was(server: ProviderServer) -> None:
    server.always(saying("Yes."))
    done = run(server, "chat", stdin="/model nobody:x\nOne\n")
    assert (done.returncode, server.requests[0].json()["model"]) == (3, "m")
    assert "/model nobody:x: unknown family 'nobody'" in done.stderr


def test_another_family_does_not_get_the_base_url(server: ProviderServer) -> None:
    done = run(server, "chat", "--base-url", server.url, stdin="/model groq:x\nOne\n", GROQ_API_KEY="")
    assert (done.returncode, len(server.requests)) == (3, 0)
    assert "set GROQ_API_KEY" in done.stderr


def test_system_shows_replaces_and_removes_the_system_prompt(server: ProviderServer) -> None:
    server.always(saying("Yes."))
    done = run(server, "chat", stdin="/system\n/system Be brief.\n/system\nOne\n/system -\nTwo\n")
    assert done.stderr == "there is no system prompt\nBe brief.\n"
    assert (asked(server, 0), asked(server, 1)) == (["Be brief.", "One"], ["One", "Yes.", "Two"])


def test_attach_adds_a_file_to_the_next_message(server: ProviderServer, tmp_path: Path) -> None:
    server.always(saying("Yes."))
    (tmp_path / "my cat.png").write_bytes(PNG)
    path = tmp_path / "my cat.png"
    done = run(server, "chat", stdin=f"/attach {path}\n/attach '{path}'\n/attach nothing\nWhat?\nAnd?\n")
    assert done.stderr.count(f"(image/png, {len(PNG)} bytes)") == 2
    assert "/attach: nothing cannot be read" in done.stderr
    first, _, second = server.requests[1].json()["messages"]
    assert [part["type"] for part in first["content"]] == ["image_url", "image_url", "text"]
    assert second["content"] == "And?"


def test_an_attachment_of_the_command_line_is_for_the_first_message(server: ProviderServer, tmp_path: Path) -> None:
    server.always(saying("Yes."))
    (tmp_path / "a.png").write_bytes(PNG)
    run(server, "chat", "-a", str(tmp_path / "a.png"), stdin="What?\nAnd?\n")
    first, _, second = server.requests[1].json()["messages"]
    assert [part["type"] for part in first["content"]] == ["image_url", "text"]
    assert second["content"] == "And?"


def test_an_attachment_that_the_model_cannot_read_does_not_block_the_chat(
    server: ProviderServer, tmp_path: Path
) -> None:
    server.always(saying("Yes."))
    (tmp_path / "a.flac").write_bytes(b"fLaC and more")
    done = run(server, "chat", stdin=f"/attach {tmp_path / 'a.flac'}\nWhat?\nAnd?\n/attach -\n")
    assert (done.returncode, done.stdout, asked(server)) == (2, "Yes.\n", ["And?"])
    assert "audio/flac" in done.stderr
    assert "/attach: the chat reads its messages from stdin" in done.stderr


def test_save_writes_a_session(server: ProviderServer, tmp_path: Path) -> None:
    server.always(saying("Yes."))
    path = tmp_path / "s.json"
    run(server, "chat", stdin=f"One\n/save {path}\nTwo\n/save {path}\n")
    assert path.stat().st_mode & 0o777 == 0o600
    run(server, "--session", str(path), "Three")
    assert asked(server) == ["One", "Yes.", "Two", "Yes.", "Three"]


def test_save_without_a_name_writes_the_session(server: ProviderServer, tmp_path: Path) -> None:
    server.always(saying("Yes."))
    path = tmp_path / "s.json"
    done = run(server, "chat", "--session", str(path), stdin="One\n/clear\n/save\n")
    assert (done.returncode, json.loads(path.read_text())["messages"]) == (0, [])
    done = run(server, "chat", stdin="/save\n")
    assert (done.returncode, "give a FILE" in done.stderr) == (2, True)


def test_save_does_not_replace_another_file(server: ProviderServer, tmp_path: Path) -> None:
    path = tmp_path / "important.txt"
    path.write_text("important")
    done = run(server, "chat", stdin=f"/save {path}\n")
    assert (done.returncode, path.read_text()) == (2, "important")
    assert "exists and is not a session: give another name" in done.stderr


def test_retry_asks_the_last_question_again(server: ProviderServer) -> None:
    server.reply(saying("One."), saying("Two."), saying("Three."))
    done = run(server, "chat", stdin="First\n/retry\nSecond\n")
    assert done.stdout == "One.\nTwo.\nThree.\n"
    assert (asked(server, 1), asked(server, 2)) == (["First"], ["First", "Two.", "Second"])


def test_retry_asks_a_question_that_failed(server: ProviderServer) -> None:
    server.reply(Reply.json({"error": {"message": "busy"}}, status=503), saying("Yes."))
    assert run(server, "chat", stdin="First\n/retry\n").stdout == "Yes.\n"
    assert asked(server) == ["First"]


def test_a_retry_that_fails_keeps_the_old_answer(server: ProviderServer) -> None:
    server.reply(saying("One."), Reply.json({"error": {"message": "busy"}}, status=503), saying("Two."))
    run(server, "chat", stdin="First\n/retry\nSecond\n")
    assert asked(server) == ["First", "One.", "Second"]


def test_retry_without_a_question_is_an_error(server: ProviderServer) -> None:
    done = run(server, "chat", stdin="/retry\n")
    assert (done.returncode, "there is no question yet" in done.stderr) == (2, True)


def test_triple_quotes_make_one_message_of_several_lines(server: ProviderServer) -> None:
    server.always(saying("Yes."))
    run(server, "chat", stdin='"""\ndef f():\n\n    return 1\n/quit\n"""\n"""one\ntwo"""\n"""/quit"""\n')
    assert asked(server)[::2] == ["def f():\n\n    return 1\n/quit", "one\ntwo", "/quit"]


def test_triple_quotes_without_an_end_are_an_error(server: ProviderServer) -> None:
    done = run(server, "chat", stdin='"""\nOne\nTwo\n')
    assert (done.returncode, len(server.requests)) == (2, 0)
    assert 'the message has no closing """; it was not sent' in done.stderr


def test_a_session_is_written_after_each_answer(server: ProviderServer, tmp_path: Path) -> None:
    server.reply(saying("One."), Reply.json({"error": {"message": "busy"}}, status=503))
    run(server, "chat", "--session", str(tmp_path / "s.json"), stdin="First\nSecond\n")
    messages = json.loads((tmp_path / "s.json").read_text())["messages"]
    assert [message["blocks"][0]["text"] for message in messages] == ["First", "One."]


# --- on a terminal -----------------------------------------------------------------------------------------------


def test_triple_quotes_on_a_terminal_ask_for_more_lines(server: ProviderServer) -> None:
    server.reply(saying("Yes."))
    terminal = Terminal(server, "chat", TERM="dumb")
    terminal.wait_for("> ")
    terminal.type('"""first\n')
    terminal.wait_for("... ")
    terminal.type('  second"""\n')
    terminal.wait_for_prompt_behind("Yes.")
    terminal.type("/quit\n")
    assert terminal.ended() == 0
    assert asked(server) == ["first\n  second"]


def test_ctrl_c_drops_a_message_that_is_not_finished(server: ProviderServer) -> None:
    server.reply(saying("Yes."))
    terminal = Terminal(server, "chat", TERM="dumb")
    terminal.wait_for("> ")
    terminal.type('"""first\n')
    terminal.wait_for("... ")
    terminal.type("and more")
    terminal.wait_for("and more")  # readline reads: a signal before that would wait for a key
    terminal.press_ctrl_c()
    try:
        terminal.wait_for_prompt_behind("and more", 5)
    except AssertionError:  # the signal came a moment before readline read again: the next key ends its wait
        terminal.press_ctrl_c()
        terminal.wait_for("> ")
    terminal.type("Second\n")
    terminal.wait_for_prompt_behind("Yes.")
    terminal.type("\x04")
    assert terminal.ended() == 0
    assert asked(server) == ["Second"]


def test_a_paste_that_begins_with_a_slash_is_a_message(server: ProviderServer) -> None:
    server.reply(saying("Yes."))
    terminal = Terminal(server, "chat")
    terminal.wait_for("> ")
    terminal.type("\x1b[200~/* a comment */\n/quit\x1b[201~\n")
    terminal.wait_for_prompt_behind("Yes.")
    terminal.type("\x04")
    assert terminal.ended() == 0
    assert asked(server) == ["/* a comment */\n/quit"]


def test_an_answer_that_was_stopped_can_be_asked_again(server: ProviderServer) -> None:
    server.reply(Reply(delta(content="An endless"), Stall()), saying("Better."))
    terminal = Terminal(server, "chat")
    terminal.wait_for("> ")
    terminal.type("Tell me\n")
    terminal.wait_for("An endless")
    terminal.press_ctrl_c()
    terminal.wait_for("(stopped)")
    terminal.type("/retry\n")
    terminal.wait_for_prompt_behind("Better.")
    terminal.type("\x04")
    assert terminal.ended() == 0
    assert asked(server) == ["Tell me"]


def test_a_system_prompt_of_a_file_cannot_control_the_terminal(server: ProviderServer, tmp_path: Path) -> None:
    server.reply(saying("Yes."))
    path = str(tmp_path / "s.json")
    run(server, "-s", "Be \x1b[31mred", "--session", path, "One")
    terminal = Terminal(server, "chat", "--session", path, TERM="dumb")
    terminal.wait_for("> ")
    terminal.type("/system\n")
    terminal.wait_for_prompt_behind("Be [31mred")
    terminal.type("\x04")
    assert terminal.ended() == 0
