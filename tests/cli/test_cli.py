"""The command ``completion``, run as its users run it."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from completion.testing import Cut, Pause, ProviderServer, Reply, Stall, WaitFor, event

COMMAND = (sys.executable, "-W", "error", "-m", "completion")
KEY = "sk-secret-of-the-test"


def delta(**fields: object) -> bytes:
    return event({"choices": [{"index": 0, "delta": fields, "finish_reason": None}]})


def end(reason: str = "stop") -> bytes:
    usage = {"prompt_tokens": 12, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 4}}
    return event({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}], "usage": usage}) + event("[DONE]")


def environment(server: ProviderServer, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OPENAI_", "COMPLETION_"))}
    ours = {"OPENAI_BASE_URL": server.url, "OPENAI_API_KEY": KEY, "COMPLETION_MODEL": "openai:m"}
    # The tests must not write into the state folder of whoever runs them. tests/cli/test_sessions.py has one.
    return {**kept, **ours, "COMPLETION_NO_HISTORY": "1", **more}


def run(
    server: ProviderServer, *arguments: str, stdin: str | None = None, **more: str
) -> subprocess.CompletedProcess[str]:
    # Without stdin, /dev/null: a terminal would wait for input.
    source = {"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}
    return subprocess.run(
        [*COMMAND, *arguments],
        env=environment(server, **more),
        capture_output=True,
        text=True,
        timeout=30,
        **source,
    )


def sent_messages(server: ProviderServer, index: int = 0) -> list[dict[str, str]]:
    """The messages of a request that the server got."""
    messages: list[dict[str, str]] = server.requests[index].json()["messages"]
    return messages


def test_it_prints_the_answer_and_nothing_else(server: ProviderServer) -> None:
    server.reply(Reply(delta(role="assistant", content="Hel"), delta(content="lo!"), end()))
    done = run(server, "Hi")
    assert (done.returncode, done.stdout, done.stderr) == (0, "Hello!\n", "")


def test_text_appears_before_the_answer_is_complete(server: ProviderServer) -> None:
    go = threading.Event()
    server.reply(Reply(delta(content="first "), WaitFor(go), delta(content="second"), end()))
    with subprocess.Popen([*COMMAND, "Hi"], env=environment(server), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert os.read(process.stdout.fileno(), 100) == b"first "
        go.set()
        assert process.stdout.read() == b"second\n"


def test_options_reach_the_request(server: ProviderServer) -> None:
    server.reply(Reply(end()))
    run(server, "-s", "Be brief.", "--max-tokens", "7", "--temperature", "0.5", "Hi")
    body = server.requests[0].json()
    assert (body["max_tokens"], body["temperature"]) == (7, 0.5)
    assert body["messages"] == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]


@pytest.mark.parametrize(
    ("arguments", "stdin", "prompt"),
    [
        (["Hi"], None, "Hi"),
        (["Why", "is", "it", "so?"], None, "Why is it so?"),
        (["-"], "From a pipe\n", "From a pipe\n"),
        ([], "From a pipe", "From a pipe"),
        (["Sum it up"], "line 1\nline 2\n", "line 1\nline 2\n\nSum it up"),
        (["Hi"], "", "Hi"),
        (["-"], "Grüße, 世界", "Grüße, 世界"),
    ],
    ids=["argument", "words", "dash", "stdin alone", "stdin as material", "empty pipe", "other scripts"],
)
def test_the_prompt_comes_from_the_argument_or_stdin_or_both(
    server: ProviderServer, arguments: Sequence[str], stdin: str | None, prompt: str
) -> None:
    server.reply(Reply(end()))
    assert run(server, *arguments, stdin=stdin).returncode == 0
    assert sent_messages(server) == [{"role": "user", "content": prompt}]


def test_without_a_prompt_it_says_how_to_give_one(server: ProviderServer) -> None:
    done = run(server, "  ")
    assert done.returncode == 2
    assert "give one as an argument or on stdin" in done.stderr


@pytest.mark.parametrize("value", ["0", "-3"])
def test_a_bad_value_of_an_option_exits_with_2(server: ProviderServer, value: str) -> None:
    done = run(server, "--max-tokens", value, "Hi")
    assert done.returncode == 2
    assert "--max-tokens must be at least 1, got" in done.stderr
    assert "ChatRequest" not in done.stderr


def test_json_prints_a_line_for_each_chunk(server: ProviderServer) -> None:
    server.reply(Reply(delta(content="Grüße"), end("length")))
    done = run(server, "--json", "Hi")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["type"] for line in lines] == ["text_delta", "turn_finished"]
    assert lines[0]["delta"] == "Grüße"
    assert lines[1]["usage"]["input_tokens"] == 12
    assert done.stderr == ""


def test_usage_goes_to_stderr(server: ProviderServer) -> None:
    server.reply(Reply(delta(content="Hello"), end()))
    done = run(server, "--usage", "Hi")
    assert (done.stdout, done.stderr) == ("Hello\n", "tokens: 12 in (4 from the cache), 5 out\n")


def test_an_answer_that_reaches_max_tokens_is_reported_on_stderr(server: ProviderServer) -> None:
    server.reply(Reply(delta(content="Hel"), end("length")))
    done = run(server, "--max-tokens", "1", "Hi")
    assert (done.returncode, done.stdout) == (0, "Hel\n")
    assert done.stderr == "completion: the answer stopped early: --max-tokens 1\n"


def test_a_pipe_gets_no_reasoning(server: ProviderServer) -> None:
    server.reply(Reply(delta(reasoning="Hm. "), delta(content="Yes."), end()))
    assert run(server, "Hi").stdout == "Yes.\n"


@pytest.mark.parametrize(
    ("reply", "code", "words"),
    [
        (Reply.json({"error": {"message": f"bad key {KEY}"}}, status=401), 4, "check the API key"),
        (Reply.json({"error": {"message": "slow\ndown"}}, status=429), 4, "slow down (429)"),
        (Reply(before_headers=[Cut()]), 5, "without an answer"),
        (Reply(delta(content="Hel"), Cut()), 5, "closed the connection"),
        (Reply(delta(content="Hel")), 6, "the answer is not complete"),
        (Reply.text("<html>", content_type="text/html"), 6, "event stream"),
    ],
    ids=["refused", "limited", "no answer", "cut", "truncated", "web page"],
)
def test_an_error_is_one_line_and_an_exit_code(server: ProviderServer, reply: Reply, code: int, words: str) -> None:
    server.reply(reply)
    done = run(server, "Hi")
    assert done.returncode == code
    assert done.stderr.count("\n") == 1
    assert words in done.stderr
    assert KEY not in done.stderr


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"OPENAI_API_KEY": ""}, "set OPENAI_API_KEY"),
        ({"COMPLETION_MODEL": "nobody:m"}, "COMPLETION_MODEL=nobody:m: unknown family 'nobody'"),
        ({"COMPLETION_MODEL": "openai"}, "COMPLETION_MODEL=openai: the model id is missing: write openai:MODEL"),
        ({"OPENAI_BASE_URL": "nowhere"}, "OPENAI_BASE_URL must be like 'https://host/v1', got 'nowhere'"),
    ],
    ids=["no key", "unknown family", "no model id", "bad URL"],
)
def test_a_wrong_setup_exits_with_3(server: ProviderServer, more: dict[str, str], words: str) -> None:
    done = run(server, "Hi", **more)
    assert done.returncode == 3
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_the_help_lists_every_exit_code(server: ProviderServer) -> None:
    listed = re.findall(r"^  (\d+) ", run(server, "--help").stdout, flags=re.MULTILINE)
    assert listed == ["0", "1", "2", "3", "4", "5", "6", "130", "141"]


def test_a_broken_pipe_ends_quietly_and_hangs_up(server: ProviderServer) -> None:
    server.reply(
        Reply(delta(content="first"), *[piece for _ in range(400) for piece in (delta(content="x"), Pause(0.01))])
    )
    with subprocess.Popen(
        [*COMMAND, "Hi"], env=environment(server), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        os.read(process.stdout.fileno(), 5)
        process.stdout.close()
        assert process.wait(20) == 141
        assert process.stderr.read() == b""
    assert server.wait_hung_up()


def test_ctrl_c_ends_it_quietly_and_hangs_up(server: ProviderServer) -> None:
    server.reply(Reply(delta(content="first"), Stall()))
    with subprocess.Popen(
        [*COMMAND, "Hi"], env=environment(server), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        os.read(process.stdout.fileno(), 5)
        time.sleep(0.3)  # see press_ctrl_c
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
        assert process.stderr.read() == b"\n"
    assert server.wait_hung_up()


def test_models_lists_families_and_whether_their_key_is_set(server: ProviderServer) -> None:
    rows = [line.split(maxsplit=2) for line in run(server, "models").stdout.splitlines()]
    assert ["openai", "OPENAI_API_KEY", "set"] in rows
    assert ["local", "-", "needs no key"] in rows
    rows = [line.split(maxsplit=2) for line in run(server, "models", OPENAI_API_KEY="").stdout.splitlines()]
    assert ["openai", "OPENAI_API_KEY", "not set"] in rows


def test_models_shows_the_variable_that_is_set_if_a_key_has_several(server: ProviderServer) -> None:
    unset = {"HF_TOKEN": "", "HUGGINGFACE_API_KEY": "", "VLLM_API_KEY": ""}
    rows = [line.split(maxsplit=2) for line in run(server, "models", **unset).stdout.splitlines()]
    assert ["huggingface", "HF_TOKEN", "not set"] in rows
    assert ["vllm", "VLLM_API_KEY", "optional"] in rows
    one = {**unset, "HUGGINGFACE_API_KEY": "x"}
    rows = [line.split(maxsplit=2) for line in run(server, "models", **one).stdout.splitlines()]
    assert ["huggingface", "HUGGINGFACE_API_KEY", "set"] in rows


def test_the_installed_command_is_the_same() -> None:
    command = Path(sys.executable).with_name("completion")
    done = subprocess.run([command, "--version"], capture_output=True, text=True, timeout=30)
    assert done.stdout.startswith("completion 0.")


def test_the_version_is_printed_without_importing_requests() -> None:
    command = [sys.executable, "-X", "importtime", "-m", "completion", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert done.stdout.startswith("completion 0.")
    assert not {"requests", "urllib3", "completion.engine"} & imported


# --- chat --------------------------------------------------------------------------------------------------------


def test_chat_keeps_the_history(server: ProviderServer) -> None:
    server.reply(Reply(delta(content="Hello Bob."), end()), Reply(delta(content="Bob."), end()))
    done = run(server, "chat", stdin="I am Bob.\nWho am I?\n")
    assert (done.returncode, done.stdout) == (0, "Hello Bob.\nBob.\n")
    assert [message["content"] for message in sent_messages(server, 1)] == ["I am Bob.", "Hello Bob.", "Who am I?"]


def test_chat_continues_after_an_error_without_the_failed_question(server: ProviderServer) -> None:
    server.reply(Reply.json({"error": {"message": "busy"}}, status=503), Reply(delta(content="Yes."), end()))
    done = run(server, "chat", stdin="First\nSecond\n")
    assert done.stdout == "Yes.\n"
    assert done.stderr == "completion: openai: busy (503)\n"
    assert [message["content"] for message in sent_messages(server, 1)] == ["Second"]


def test_a_piped_chat_exits_with_the_code_of_a_failed_answer(server: ProviderServer) -> None:
    server.reply(Reply.json({"error": {"message": "no"}}, status=403), Reply(delta(content="Yes."), end()))
    assert run(server, "chat", stdin="First\nSecond\n").returncode == 4


@pytest.mark.parametrize("arguments", [["chat", "--max-tokens", "9"], ["--max-tokens", "9", "chat"]])
def test_options_may_come_before_and_after_the_command(server: ProviderServer, arguments: list[str]) -> None:
    server.reply(Reply(delta(content="Yes."), end()))
    assert run(server, *arguments, stdin="First\n").stdout == "Yes.\n"
    assert (sent_messages(server)[-1]["content"], server.requests[0].json()["max_tokens"]) == ("First", 9)


def test_chat_refuses_a_bad_option_before_the_first_request(server: ProviderServer) -> None:
    done = run(server, "chat", "--max-tokens", "0", stdin="First\n")
    assert (done.returncode, len(server.requests)) == (2, 0)


@pytest.mark.parametrize("words", [["chat", "with", "me"], ["models", "of", "thought"]])
def test_a_prompt_may_begin_with_the_name_of_a_command(server: ProviderServer, words: list[str]) -> None:
    server.reply(Reply(end()))
    run(server, *words)
    assert sent_messages(server)[0]["content"] == " ".join(words)


def test_ask_sends_a_prompt_that_is_the_name_of_a_command(server: ProviderServer) -> None:
    server.always(Reply(end()))
    for arguments in (["ask", "chat"], ["--", "chat"], ["-s", "models", "ask", "chat"]):
        assert run(server, *arguments).returncode == 0
        assert sent_messages(server, -1)[-1]["content"] == "chat"


def test_the_name_of_a_command_as_the_value_of_an_option_is_not_the_command(server: ProviderServer) -> None:
    server.reply(Reply(end()))
    run(server, "-s", "chat", "Hi")
    assert [message["content"] for message in sent_messages(server)] == ["chat", "Hi"]


@pytest.mark.parametrize(
    ("word", "nearest"),
    [("model", "models"), ("chta", "chat"), ("traces", "trace"), ("CHAT", "chat"), ("help", "--help")],
)
def test_a_misspelled_command_is_an_error_that_names_the_nearest(
    server: ProviderServer, word: str, nearest: str
) -> None:
    done = run(server, word)
    assert (done.returncode, done.stdout, len(server.requests)) == (2, "", 0)
    assert f"unknown command '{word}'; did you mean: completion {nearest}?" in done.stderr
    assert f"completion ask {word}" in done.stderr


@pytest.mark.parametrize("arguments", [["Hello"], ["model", "trains"], ["--usage", "model"]])
def test_other_words_are_a_prompt(server: ProviderServer, arguments: list[str]) -> None:
    server.reply(Reply(end()))
    assert run(server, *arguments).returncode == 0


def test_models_takes_no_options(server: ProviderServer) -> None:
    done = run(server, "models", "--usage")
    assert (done.returncode, "unrecognized arguments: --usage" in done.stderr) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["-m", "nope:x"],
            "-m nope:x: unknown family 'nope'; families: alibaba, anthropic,",
        ),
        (["-m", "nope"], "write it as FAMILY:MODEL\n"),
        (["-m", "openai"], "-m openai: the model id is missing: write openai:MODEL\n"),
        (["-m", "azure-openai:m"], "set AZURE_OPENAI_ENDPOINT or give --base-url\n"),
        (["-m", "local:other"], "give another model as -m local:FILE.gguf\n"),
        (["-m", "local", "--base-url", "http://127.0.0.1"], "--base-url is not supported by the family 'local'\n"),
        (["-m", "openai:m", "--base-url", "http://a:b@c"], "set the environment variable of the key"),
    ],
    ids=["unknown family", "no colon", "no model id", "no URL", "local", "URL of local", "key in the URL"],
)
def test_errors_name_the_options_of_the_command(server: ProviderServer, arguments: list[str], message: str) -> None:
    done = run(server, *arguments, "Hi", AZURE_OPENAI_ENDPOINT="")
    assert done.returncode == 3
    assert message in done.stderr
    assert not re.search(r"base_url|api_key|path=|headers=", done.stderr)


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        (Reply.json({"error": {"message": "no max_tokens here"}}, status=404), 4),
        (Reply.text("<html>", content_type="text/html"), 6),
        (Reply(status=302, headers={"Location": "http://127.0.0.1:9/"}), 3),
    ],
    ids=["not found", "web page", "redirect"],
)
def test_a_hint_about_the_base_url_names_its_option(server: ProviderServer, reply: Reply, code: int) -> None:
    server.reply(reply)
    done = run(server, "Hi")
    assert done.returncode == code
    assert "the base URL (--base-url, or from the environment)" in done.stderr
    assert "base_url" not in done.stderr
    assert "--max-tokens" not in done.stderr  # the words of the provider stay


def test_base_url_picks_the_server(server: ProviderServer) -> None:
    server.reply(Reply(end()))
    assert run(server, "--base-url", server.url, "Hi", OPENAI_BASE_URL="http://127.0.0.1:9").returncode == 0
    assert len(server.requests) == 1


@pytest.mark.parametrize("arguments", [[], ["What is it?"], ["chat"]], ids=["alone", "with a prompt", "chat"])
def test_binary_stdin_is_refused(server: ProviderServer, arguments: list[str]) -> None:
    done = run(server, *arguments, stdin="\x89PNG\0\0")
    assert (done.returncode, done.stdout, len(server.requests)) == (2, "", 0)
    option = "--attach FILE" if arguments == ["chat"] else "--attach -"  # the chat reads its messages from stdin
    assert f"stdin is binary (it contains a NUL byte): use {option} for" in done.stderr


def test_a_byte_order_mark_is_not_a_part_of_the_prompt(server: ProviderServer) -> None:
    server.reply(Reply(end()))
    run(server, stdin="\ufeffHello")
    assert sent_messages(server)[0]["content"] == "Hello"


def test_a_dash_among_words_means_stdin(server: ProviderServer) -> None:
    server.reply(Reply(end()))
    run(server, "-", "What", "is", "it?", stdin="material")
    assert sent_messages(server)[0]["content"] == "material\n\nWhat is it?"


def test_bytes_that_are_not_utf8_are_replaced(server: ProviderServer) -> None:
    server.reply(Reply(end()))
    subprocess.run([*COMMAND, b"caf\xe9"], env=environment(server), stdin=subprocess.DEVNULL, check=True, timeout=30)
    assert sent_messages(server)[0]["content"] == "caf\ufffd"


@pytest.mark.parametrize("command", [["Hi"], ["chat"], ["models"]], ids=lambda command: command[0])
def test_a_full_disk_is_a_one_line_error(server: ProviderServer, command: list[str]) -> None:
    server.reply(Reply(delta(content="Yes."), end()))
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*COMMAND, *command],
            env=environment(server),
            input="First\n",
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=30,
        )
    assert done.returncode == 1
    assert done.stderr == "completion: the output cannot be written: No space left on device\n"


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-"])
def test_a_closed_standard_stream_does_no_harm(server: ProviderServer, closed: str) -> None:
    server.always(Reply(delta(content="Yes."), end()))
    line = f'"{sys.executable}" -m completion Hi {closed}'
    done = subprocess.run(["sh", "-c", line], env=environment(server), stderr=subprocess.PIPE, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")


def test_clear_empties_the_history(server: ProviderServer) -> None:
    server.reply(Reply(delta(content="One."), end()), Reply(delta(content="Two."), end()))
    run(server, "chat", stdin="First\n/clear\nSecond\n/quit\nThird\n")
    assert [message["content"] for message in sent_messages(server, 1)] == ["Second"]
    assert len(server.requests) == 2


# --- on a terminal -----------------------------------------------------------------------------------------------


class Terminal:
    """The command on a pseudo-terminal: ``type`` is the keyboard, ``screen`` the output so far."""

    def __init__(self, server: ProviderServer, *arguments: str, **more: str) -> None:
        self._master, slave = pty.openpty()
        self.process = subprocess.Popen(
            [*COMMAND, *arguments],
            env=environment(server, **{"TERM": "xterm", **more}),
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=_take_terminal,
        )
        os.close(slave)
        self.screen = ""

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def press_ctrl_c(self) -> None:
        # From the last output to the wait itself: a signal in between has no effect until the next key is pressed,
        # because Python looks for signals before and after a system call.
        time.sleep(0.3)
        self.type("\x03")

    def wait_for(self, text: str, timeout: float = 20) -> None:
        ends_at = time.monotonic() + timeout
        while text not in self.screen:
            assert time.monotonic() < ends_at, f"{text!r} is not on the screen: {self.screen!r}"
            if select.select([self._master], [], [], 0.1)[0]:
                try:
                    self.screen += os.read(self._master, 4096).decode()
                except OSError:  # on Linux, the end of the file
                    break
        assert text in self.screen

    def wait_for_prompt_behind(self, text: str, timeout: float = 20) -> None:
        """Wait until the command shows the text and then asks for the next line."""
        self.wait_for(text)
        before, _, self.screen = self.screen.partition(text)
        self.wait_for("> ", timeout)
        self.screen = before + text + self.screen

    def ended(self) -> int:
        code = self.process.wait(20)
        os.close(self._master)
        return code


def _take_terminal() -> None:
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


pytestmark = pytest.mark.filterwarnings("ignore:This process.*fork:DeprecationWarning")


def test_reasoning_is_dim_on_a_terminal(server: ProviderServer) -> None:
    server.reply(Reply(delta(reasoning="Hm. "), delta(content="Yes."), end()))
    terminal = Terminal(server, "Hi")
    terminal.wait_for("Yes.")
    assert "\x1b[2mHm. \x1b[0m" in terminal.screen
    assert terminal.ended() == 0


def test_no_color_leaves_the_terminal_plain(server: ProviderServer) -> None:
    server.reply(Reply(delta(reasoning="Hm. "), delta(content="Yes."), end()))
    terminal = Terminal(server, "Hi", NO_COLOR="1")
    terminal.wait_for("Yes.")
    assert "\x1b" not in terminal.screen
    assert terminal.ended() == 0


def test_a_model_cannot_send_control_codes_to_the_terminal(server: ProviderServer) -> None:
    server.reply(Reply(delta(content="a\x1b[31mb\x07c\td\n"), end()))
    terminal = Terminal(server, "Hi")
    terminal.wait_for("d")
    assert "a[31mbc\td" in terminal.screen.replace("        ", "\t")
    assert terminal.ended() == 0


def test_ctrl_c_in_chat_stops_the_answer_but_not_the_program(server: ProviderServer) -> None:
    server.reply(Reply(delta(content="An endless"), Stall()), Reply(delta(content="Better."), end()))
    terminal = Terminal(server, "chat")
    terminal.wait_for("> ")
    terminal.type("Tell me\n")
    terminal.wait_for("An endless")
    terminal.press_ctrl_c()
    terminal.wait_for("(stopped)")
    assert server.wait_hung_up()
    terminal.type("Shorter\n")
    terminal.wait_for_prompt_behind("Better.")
    assert [message["content"] for message in sent_messages(server, 1)] == ["Tell me", "An endless", "Shorter"]
    terminal.type("\x04")
    assert terminal.ended() == 0


@pytest.mark.parametrize(
    ("term", "begins", "ends"),
    [("xterm", "\x1b[200~", "\x1b[201~\n"), ("dumb", "", "")],
    ids=["bracketed paste", "plain terminal"],
)
def test_pasted_lines_are_one_message(server: ProviderServer, term: str, begins: str, ends: str) -> None:
    server.reply(Reply(delta(content="Yes."), end()), Reply(delta(content="Bye."), end()))
    terminal = Terminal(server, "chat", TERM=term)
    terminal.wait_for("> ")
    terminal.type(f"{begins}def f():\n    return 1\n{ends}")
    terminal.wait_for_prompt_behind("Yes.")
    terminal.type("\x04")
    assert terminal.ended() == 0
    assert [message["content"] for message in sent_messages(server, 0)] == ["def f():\n    return 1"]
    assert len(server.requests) == 1
