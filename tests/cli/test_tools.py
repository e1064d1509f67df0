"""The command line with tools and traces, run as its users run it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from completion.testing import ProviderServer, Reply, Stall
from tests.cli.test_cli import Terminal, delta, end, environment

pytest.importorskip("pydantic")
pytestmark = pytest.mark.filterwarnings("ignore:This process.*fork:DeprecationWarning")

COMMAND = Path(sys.executable).with_name("completion")
"""Not ``python -m``: that puts the current folder on ``sys.path``."""

ROOT = Path(__file__).parents[2]

TOOLS = """
import threading
from completion import tool

@tool
def weather(city: str, days: int = 1) -> str:
    "The weather of a city."
    return f"Rain in {city}."

def plain(number: int) -> int:
    "Twice the number."
    return 2 * number

def coloring() -> str:
    return "red \\x1b[31m and\\nmore"

def failing() -> None:
    raise LookupError("no such person")

def blocking() -> None:
    open("began", "w").close()
    threading.Event().wait()

class Home:
    @tool
    def lights(self) -> str:
        "Switch the lights on."
        return "They are on."

home = Home()
untyped = lambda x: x
number = 7
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(TOOLS)
    (tmp_path / "unmarked.py").write_text("def plain(text: str) -> str:\n    return text\n")
    (tmp_path / "script.py").write_text("import sys\nsys.exit(7)\n")
    (tmp_path / "broken.py").write_text("raise RuntimeError('no such device')\n")
    return tmp_path


def run(
    server: ProviderServer, folder: Path, *arguments: str, stdin: str = "", **more: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [COMMAND, *arguments],
        env=environment(server, **more),
        cwd=folder,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=30,
    )


def call(name: str, call_id: str = "c1", index: int = 0, raw: str | None = None, **args: Any) -> bytes:
    function = {"name": name, "arguments": json.dumps(args) if raw is None else raw}
    return delta(tool_calls=[{"index": index, "id": call_id, "type": "function", "function": function}])


def calling(*calls: bytes) -> Reply:
    return Reply(*calls, end("tool_calls"))


def saying(text: str) -> Reply:
    return Reply(delta(content=text), end())


def results(server: ProviderServer, request: int = 1) -> list[str]:
    """The tool results that the model got with this request."""
    messages = server.requests[request].json()["messages"]
    return [message["content"] for message in messages if message["role"] == "tool"]


# --- ask once ----------------------------------------------------------------------------------------------------


def test_a_tool_is_called_and_a_pipe_gets_only_the_answer(server: ProviderServer, folder: Path) -> None:
    server.reply(calling(call("weather", city="Oslo")), saying("It rains."))
    done = run(server, folder, "--tools", "mine:weather", "Is it raining?")
    assert (done.returncode, done.stdout, done.stderr) == (0, "It rains.\n", "")
    assert results(server) == ["Rain in Oslo."]
    (sent,) = server.requests[0].json()["tools"]
    assert (sent["function"]["name"], sent["function"]["description"]) == ("weather", "The weather of a city.")


@pytest.mark.parametrize(
    ("values", "names"),
    [
        (["mine:weather,plain"], ["weather", "plain"]),
        (["mine:weather", "mine:plain"], ["weather", "plain"]),
        (["mine:home.lights"], ["lights"]),
        (["mine:weather,weather"], ["weather"]),
    ],
    ids=["a list", "twice", "of an object", "the same"],
)
def test_decorated_and_plain_functions_become_tools(
    server: ProviderServer, folder: Path, values: list[str], names: list[str]
) -> None:
    server.reply(saying("Yes."))
    done = run(server, folder, *[argument for value in values for argument in ("--tools", value)], "Hi")
    assert done.returncode == 0
    assert [sent["function"]["name"] for sent in server.requests[0].json()["tools"]] == names


def test_the_model_gets_the_error_of_a_tool(server: ProviderServer, folder: Path) -> None:
    server.reply(calling(call("failing"), call("plain", "c2", 1, number="x")), saying("Sorry."))
    done = run(server, folder, "--tools", "mine:failing,plain", "Hi")
    assert (done.returncode, done.stdout, done.stderr) == (0, "Sorry.\n", "")
    assert results(server)[0] == "Error: LookupError: no such person"
    assert "number" in results(server)[1]


def test_text_before_a_tool_call_ends_with_a_line_end(server: ProviderServer, folder: Path) -> None:
    first = Reply(delta(content="Let me see."), call("weather", city="Oslo"), end("tool_calls"))
    server.reply(first, saying("It rains."))
    assert run(server, folder, "--tools", "mine:weather", "Hi").stdout == "Let me see.\nIt rains.\n"


def test_json_prints_the_chunks_of_the_run(server: ProviderServer, folder: Path) -> None:
    server.reply(calling(call("weather", city="Oslo")), saying("It rains."))
    done = run(server, folder, "--json", "--tools", "mine:weather", "Hi")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["type"] for line in lines if not line["type"].startswith("tool_call_")] == [
        "run_started", "step_started", "turn_finished", "tool_result", "step_finished",
        "step_started", "text_delta", "turn_finished", "step_finished", "run_finished",
    ]  # fmt: skip


def test_usage_is_the_sum_of_all_turns(server: ProviderServer, folder: Path) -> None:
    server.reply(calling(call("weather", city="Oslo")), saying("It rains."))
    done = run(server, folder, "--usage", "--tools", "mine:weather", "Hi")
    assert done.stderr == "tokens: 24 in (8 from the cache), 10 out\n"


def test_a_model_that_calls_tools_forever_is_stopped_and_stderr_says_so(server: ProviderServer, folder: Path) -> None:
    server.always(calling(call("weather", city="Oslo")))
    done = run(server, folder, "--tools", "mine:weather", "Hi")
    assert (done.returncode, done.stdout, len(server.requests)) == (0, "", 25)
    assert done.stderr == "completion: the answer stopped early: the run reached the limit of 25 turns with tools\n"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("unmarked", "no function is marked with @tool; name the functions: unmarked:function"),
        ("broken", "RuntimeError: no such device"),
        ("mine:", "must be module:function"),
        (":weather", "must be module:function"),
        ("nowhere:weather", "No module named 'nowhere'"),
        ("mine:nothing", "has no attribute 'nothing'"),
        ("mine:untyped", "<lambda>"),
        ("mine:number", "got int"),
        ("broken:weather", "RuntimeError: no such device"),
        ("script:main", "script ended the program while it was imported: sys.exit(7)"),
    ],
)
def test_a_bad_value_of_tools_exits_with_2(server: ProviderServer, folder: Path, value: str, message: str) -> None:
    done = run(server, folder, "--tools", value, "Hi")
    assert (done.returncode, len(server.requests)) == (2, 0)
    assert message in done.stderr
    assert "Traceback" not in done.stderr


TRAPS = (
    "requests", "urllib3", "pydantic", "sseclient", "json", "argparse", "backoff", "idna", "certifi", "regex",
)  # fmt: skip


@pytest.mark.parametrize("command", [[COMMAND], [sys.executable, "-m", "completion"]], ids=["command", "python -m"])
@pytest.mark.parametrize("words", [[], ["--tools", "mine:weather"]], ids=["alone", "with tools"])
def test_files_of_the_current_folder_replace_no_installed_module(
    server: ProviderServer, folder: Path, command: list[str], words: list[str]
) -> None:
    for name in TRAPS:
        (folder / f"{name}.py").write_text(f"open('RUN', 'a').write('{name} ')\n")
    server.reply(saying("Yes."))
    done = subprocess.run(
        [*command, *words, "Hi"],
        env=environment(server, PYTHONPATH=str(ROOT)),
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert not (folder / "RUN").exists(), (folder / "RUN").read_text()
    assert (done.returncode, done.stdout) == (0, "Yes.\n"), done.stderr


@pytest.mark.parametrize("name", ["requests", "json"])
def test_a_tool_file_named_like_an_installed_module_is_a_clear_error(
    server: ProviderServer, folder: Path, name: str
) -> None:
    (folder / f"{name}.py").write_text(TOOLS)
    done = run(server, folder, "--tools", f"{name}:weather", "Hi")
    assert done.returncode == 2
    message = f"'{name}' is the name of an installed module, which is imported instead of ./{name}.py; rename that file"
    assert message in done.stderr


def test_another_program_run_with_python_m_can_import_from_its_folder(folder: Path) -> None:
    (folder / "program").mkdir()
    (folder / "program" / "__init__.py").write_text("import completion\n")
    (folder / "program" / "__main__.py").write_text("import mine\nprint(mine.number)\n")
    run = [sys.executable, "-m", "program", "completion"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(run, cwd=folder, env=env, capture_output=True, text=True, timeout=30)
    assert done.stdout == "7\n", done.stderr


def test_two_tools_with_the_same_name_exit_with_2(server: ProviderServer, folder: Path) -> None:
    (folder / "other.py").write_text("def plain() -> None: ...\n")
    done = run(server, folder, "--tools", "mine:plain", "--tools", "other:plain", "Hi")
    assert (done.returncode, "two tools have the name 'plain'" in done.stderr) == (2, True)


def test_an_error_in_the_second_turn_sets_the_exit_code(server: ProviderServer, folder: Path) -> None:
    server.reply(calling(call("weather", city="Oslo")), Reply.json({"error": {"message": "busy"}}, status=503))
    done = run(server, folder, "--tools", "mine:weather", "Hi")
    assert (done.returncode, done.stderr) == (4, "completion: openai: busy (503)\n")


def test_ctrl_c_ends_the_command_while_a_tool_blocks(server: ProviderServer, folder: Path) -> None:
    server.reply(calling(call("blocking")))
    arguments = [str(COMMAND), "--tools", "mine:blocking", "Hi"]
    with subprocess.Popen(arguments, env=environment(server), cwd=folder, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        wait_for(folder / "began")
        time.sleep(0.3)  # see Terminal.press_ctrl_c
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
        assert process.stderr.read() == b"\n"


def wait_for(path: Path) -> None:
    ends_at = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < ends_at
        time.sleep(0.02)


# --- chat --------------------------------------------------------------------------------------------------------


def test_chat_keeps_tool_calls_and_results_in_the_history(server: ProviderServer, folder: Path) -> None:
    server.reply(calling(call("weather", city="Oslo")), saying("It rains."), saying("In Oslo."))
    done = run(server, folder, "chat", "--tools", "mine:weather", stdin="Is it raining?\nWhere?\n")
    assert (done.returncode, done.stdout) == (0, "It rains.\nIn Oslo.\n")
    roles = [message["role"] for message in server.requests[2].json()["messages"]]
    assert roles == ["user", "assistant", "tool", "assistant", "user"]


def test_clear_removes_tool_calls_and_results_from_the_history(server: ProviderServer, folder: Path) -> None:
    server.reply(calling(call("weather", city="Oslo")), saying("It rains."), saying("What?"))
    run(server, folder, "chat", "--tools", "mine:weather", stdin="Is it raining?\n/clear\nWhere?\n")
    assert [message["content"] for message in server.requests[2].json()["messages"]] == ["Where?"]


def test_chat_refuses_bad_tools_before_the_first_request(server: ProviderServer, folder: Path) -> None:
    done = run(server, folder, "chat", "--tools", "mine:nothing", stdin="First\n")
    assert (done.returncode, len(server.requests)) == (2, 0)


def test_a_terminal_shows_calls_and_results_dimmed_and_without_control_codes(
    server: ProviderServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    server.reply(
        calling(call("weather", city="O\x1bslo"), call("coloring", "c2", 1), call("failing", "c3", 2)), saying("So.")
    )
    terminal = Terminal(server, "chat", "--tools", "mine:weather,coloring,failing")
    terminal.wait_for("> ")
    terminal.type("Go\n")
    terminal.wait_for_prompt_behind("So.")
    terminal.type("\x04")
    assert terminal.ended() == 0
    screen = re.sub(r"\x1b\[\?2004[hl]\r?", "", terminal.screen)  # the codes of bracketed paste
    assert screen.splitlines()[2:] == [
        '\x1b[2mweather(city="O\\u001bslo")\x1b[0m',
        "\x1b[2mcoloring()\x1b[0m",
        "\x1b[2mfailing()\x1b[0m",
        "\x1b[2m-> weather: Rain in Oslo.\x1b[0m",
        "\x1b[2m-> coloring: red [31m and more\x1b[0m",
        "\x1b[2m-> failing: failed: LookupError: no such person\x1b[0m",
        "So.",
        "> ",
    ]


def test_a_long_result_takes_one_line_of_the_terminal(
    server: ProviderServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    server.reply(calling(call("weather", city="Oslo" * 100)), saying("So."))
    terminal = Terminal(server, "--tools", "mine:weather", "Hi", NO_COLOR="1", COLUMNS="60")
    terminal.wait_for("So.")
    assert terminal.ended() == 0
    call_line, result_line, *_ = terminal.screen.splitlines()
    assert len(call_line) == len(result_line) == 59
    assert call_line.endswith("...")


def test_ctrl_c_while_a_tool_blocks_stops_the_run_but_not_the_program(
    server: ProviderServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    server.reply(calling(call("blocking")), saying("Better."))
    terminal = Terminal(server, "chat", "--tools", "mine:blocking")
    terminal.wait_for("> ")
    terminal.type("Wait\n")
    wait_for(folder / "began")
    terminal.press_ctrl_c()
    terminal.wait_for("(stopped)")
    terminal.type("Again\n")
    terminal.wait_for_prompt_behind("Better.")
    assert "interrupted" in results(server)[0]
    terminal.type("\x04")
    assert terminal.ended() == 0


def test_ctrl_c_before_the_first_chunk_removes_the_question_from_the_history(server: ProviderServer) -> None:
    server.reply(Reply(before_headers=[Stall()]), saying("Better."))
    terminal = Terminal(server, "chat")
    terminal.wait_for("> ")
    terminal.type("Wait\n")
    assert server.wait_for_requests(1)
    terminal.press_ctrl_c()
    terminal.wait_for("(stopped)")
    terminal.type("Again\n")
    terminal.wait_for_prompt_behind("Better.")
    assert [message["content"] for message in server.requests[1].json()["messages"]] == ["Again"]
    terminal.type("\x04")
    assert terminal.ended() == 0


# --- traces ------------------------------------------------------------------------------------------------------


def kinds(path: Path) -> list[str]:
    return [json.loads(line)["kind"] for line in path.read_text().splitlines()]


def test_a_trace_is_written_without_tools_too(server: ProviderServer, folder: Path) -> None:
    server.reply(saying("Yes."))
    done = run(server, folder, "--trace", "t.jsonl", "Hi")
    assert (done.returncode, done.stdout, done.stderr) == (0, "Yes.\n", "")
    assert [kinds(folder / "t.jsonl")[n] for n in (0, -1)] == ["run_started", "run_finished"]


def test_a_trace_of_a_chat_has_all_its_runs_and_their_calls(server: ProviderServer, folder: Path) -> None:
    server.reply(calling(call("weather", city="Oslo")), saying("It rains."), saying("In Oslo."))
    run(server, folder, "chat", "--tools", "mine:weather", "--trace", "t.jsonl", stdin="Is it?\nWhere?\n")
    found = kinds(folder / "t.jsonl")
    assert (found.count("run_finished"), found.count("tool_finished")) == (2, 1)


def test_a_run_that_fails_is_in_the_trace(server: ProviderServer, folder: Path) -> None:
    server.reply(Reply.json({"error": {"message": "busy"}}, status=503))
    assert run(server, folder, "--trace", "t.jsonl", "Hi").returncode == 4
    assert kinds(folder / "t.jsonl")[-1] == "run_failed"


def test_a_trace_that_cannot_be_written_exits_with_2(server: ProviderServer, folder: Path) -> None:
    done = run(server, folder, "--trace", "no/such/folder.jsonl", "Hi")
    assert (done.returncode, len(server.requests)) == (2, 0)
    assert "--trace no/such/folder.jsonl: No such file or directory" in done.stderr


def test_trace_shows_a_timeline(server: ProviderServer, folder: Path) -> None:
    server.reply(calling(call("weather", city="Oslo")), saying("It rains."))
    run(server, folder, "--tools", "mine:weather", "--trace", "t.jsonl", "Hi")
    done = run(server, folder, "trace", "t.jsonl")
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split()[0] for line in done.stdout.splitlines()[2:]] == ["step", "weather", "step"]
    assert run(server, folder, "trace", "-", stdin=(folder / "t.jsonl").read_text()).stdout == done.stdout


def test_trace_reports_a_missing_file_and_an_empty_one(server: ProviderServer, folder: Path) -> None:
    missing = run(server, folder, "trace", "t.jsonl")
    assert (missing.returncode, "t.jsonl cannot be read: No such file" in missing.stderr) == (2, True)
    (folder / "t.jsonl").touch()
    empty = run(server, folder, "trace", "t.jsonl")
    assert (empty.returncode, empty.stdout, empty.stderr) == (0, "", "completion: the trace contains no run\n")


def test_trace_follows_until_ctrl_c(server: ProviderServer, folder: Path) -> None:
    server.always(saying("Yes."))
    (folder / "t.jsonl").touch()
    arguments = [str(COMMAND), "trace", "--follow", "t.jsonl"]
    with subprocess.Popen(
        arguments, env=environment(server), cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        run(server, folder, "--trace", "t.jsonl", "Hi")
        assert process.stdout.readline().startswith(b"run_")
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
        assert process.stderr.read() == b""


def test_a_prompt_may_begin_with_trace(server: ProviderServer, folder: Path) -> None:
    server.reply(saying("Yes."))
    run(server, folder, "trace", "the", "origin")
    assert server.requests[0].json()["messages"][0]["content"] == "trace the origin"
