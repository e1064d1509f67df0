"""The command ``completion batch``, run as its users run it."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from completion import Base64Source, ImageBlock, UrlSource
from completion.cli import batch_extras
from completion.cli.batch_lines import Line, read_lines
from completion.testing import Pause, ProviderServer, Reply
from tests.cli.test_cli import COMMAND, delta, end, environment, run


@pytest.fixture
def server() -> Iterator[ProviderServer]:
    with ProviderServer() as server:
        server.always(Reply(delta(content="Hello"), end()))
        yield server


def write(path: Path, *lines: object) -> str:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


def read(path: Path) -> dict[Any, Any]:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert len({line["id"] for line in lines}) == len(lines)
    return {line["id"]: line for line in lines}


def prompts(server: ProviderServer) -> list[str]:
    return [request.json()["messages"][-1]["content"] for request in server.requests]


def test_the_four_forms_of_a_line_are_answered(server: ProviderServer, tmp_path: Path) -> None:
    source = write(
        tmp_path / "in.jsonl",
        {"id": "a", "prompt": "One"},
        {"id": "b", "messages": [{"role": "system", "content": "Be brief"}, {"role": "user", "content": "Two"}]},
        {"id": "c", "messages": [{"role": "user", "blocks": [{"type": "text", "text": "Three"}]}], "max_tokens": 9},
        {
            "custom_id": "d",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"model": "gpt-x", "messages": [{"role": "user", "content": "Four"}], "max_tokens": 7},
        },
    )
    out = tmp_path / "out.jsonl"
    done = run(server, "batch", source, "-o", str(out))
    assert done.returncode == 0, done.stderr
    assert {key: line["text"] for key, line in read(out).items()} == dict.fromkeys("abcd", "Hello")
    bodies = {request.json()["messages"][-1]["content"]: request.json() for request in server.requests}
    assert bodies["Four"]["model"] == "gpt-x"
    assert bodies["One"]["model"] == "m"
    assert 9 in bodies["Three"].values()
    assert bodies["Two"]["messages"][0]["content"] == "Be brief"


def test_killed_several_times_it_asks_nothing_again_that_out_has(server: ProviderServer, tmp_path: Path) -> None:
    server.always(Reply(delta(content="Hello"), Pause(0.03), end()))
    source = write(tmp_path / "in.jsonl", *({"id": i, "prompt": f"p{i}"} for i in range(120)))
    out = tmp_path / "out.jsonl"
    command = [*COMMAND, "batch", source, "-o", str(out), "--concurrency", "2"]
    rng = random.Random(3)
    for _ in range(4):
        had = {line["id"] for line in map(json.loads, _whole_lines(out))}
        before = len(server.requests)
        process = subprocess.Popen(command, env=environment(server), stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while len(server.requests) < before + rng.randint(3, 15) and time.monotonic() < deadline:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not {f"p{key}" for key in had} & set(prompts(server)[before:])
    before = len(server.requests)
    had = {line["id"] for line in map(json.loads, _whole_lines(out))}
    assert run(server, "batch", source, "-o", str(out)).returncode == 0
    assert {*read(out)} == {*range(120)}
    assert not {f"p{key}" for key in had} & set(prompts(server)[before:])
    assert max(Counter(prompts(server)).values()) <= 5


def _whole_lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines() if path.exists() and path.read_bytes().endswith(b"\n") else []


def test_an_incomplete_last_line_is_removed_and_a_complete_one_kept(server: ProviderServer, tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", {"id": "a", "prompt": "One"}, {"id": "b", "prompt": "Two"})
    out = tmp_path / "out.jsonl"
    assert run(server, "batch", source, "-o", str(out)).returncode == 0
    first, second = out.read_bytes().splitlines()
    out.write_bytes(first + b"\n" + second)  # whole, but without a line end
    assert run(server, "batch", source, "-o", str(out)).returncode == 0
    assert len(server.requests) == 2
    out.write_bytes(first + b"\n" + second[:-9])
    assert run(server, "batch", source, "-o", str(out)).returncode == 0
    assert len(server.requests) == 3
    assert {*read(out)} == {"a", "b"}


def test_a_file_that_is_not_ours_is_not_changed(server: ProviderServer, tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", {"id": "a", "prompt": "One"})
    for text in ("a diary", '{"answer": 42', "a diary\n"):
        (tmp_path / "diary").write_text(text)
        done = run(server, "batch", source, "-o", str(tmp_path / "diary"))
        assert done.returncode == 2, text
        assert "was not written by completion batch" in done.stderr
        assert (tmp_path / "diary").read_text() == text
    assert server.requests == []


def test_failed_lines_are_replaced_on_demand(server: ProviderServer, tmp_path: Path) -> None:
    server.reply(Reply.json({"error": {"message": "no"}}, status=400))
    source = write(tmp_path / "in.jsonl", {"id": "a", "prompt": "One"}, {"id": "b", "prompt": "Two"})
    out = tmp_path / "out.jsonl"
    arguments = ("batch", source, "-o", str(out), "--concurrency", "1")
    assert run(server, *arguments).returncode == 1
    assert read(out)["a"]["error"] == {"type": "InvalidRequestError", "message": "no", "status": 400, "code": None}
    assert run(server, *arguments).returncode == 1
    assert len(server.requests) == 2
    assert run(server, *arguments, "--retry-failed").returncode == 0
    assert [line["text"] for line in read(out).values()] == ["Hello", "Hello"]
    assert {path.name for path in tmp_path.iterdir()} == {"in.jsonl", "out.jsonl"}


def test_killed_while_failed_lines_are_asked_again_the_next_run_merges_them(
    server: ProviderServer, tmp_path: Path
) -> None:
    source = write(tmp_path / "in.jsonl", {"id": "a", "prompt": "One"}, {"id": "b", "prompt": "Two"})
    out, retried = tmp_path / "out.jsonl", tmp_path / "out.jsonl.retry"
    arguments = ("batch", source, "-o", str(out), "--concurrency", "1")
    server.reply(*[Reply.json({"error": {"message": "no"}}, status=400)] * 2)
    assert run(server, *arguments).returncode == 1
    failed = out.read_bytes()
    server.reply(Reply(delta(content="Hello"), end()), Reply(Pause(20), end()))
    process = subprocess.Popen(
        [*COMMAND, *arguments, "--retry-failed"], env=environment(server), stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 20
    while not (retried.exists() and retried.read_bytes().endswith(b"\n")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert out.read_bytes() == failed
    asked = len(server.requests)
    assert run(server, *arguments).returncode == 1
    assert len(server.requests) == asked
    assert read(out)["a"]["text"] == "Hello"
    assert "error" in read(out)["b"]
    assert not retried.exists()


def test_invalid_lines_are_named_and_nothing_is_asked(server: ProviderServer, tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text('{"id": "a", "prompt": "One"}\nnonsense\n{"id": "a", "prompt": "Two"}\n{"prompt": "Three"}\n')
    done = run(server, "batch", str(source), "-o", str(tmp_path / "out.jsonl"))
    assert done.returncode == 2
    assert all(f"line {number}:" in done.stderr for number in (2, 3, 4))
    assert server.requests == []
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ({"id": "a", "prompt": "One", "max_token": 5}, "unknown field 'max_token'"),
        ({"id": "a", "custom_id": "a", "body": {"messages": [{"role": "user", "content": "x"}]}}, "unknown field 'id'"),
        (
            {"id": "a", "system_prompt": "x", "messages": [{"role": "system", "content": "y"}]},
            '"system_prompt" and a system message',
        ),
        (
            {"custom_id": "a", "body": {"messages": [{"role": "user", "content": "x"}], "tool_choice": "some"}},
            '"body.tool_choice" must be one of',
        ),
        (
            {"custom_id": "a", "body": {"messages": [{"role": "user", "content": "x"}], "tools": [{"type": "web"}]}},
            '"body.tools" must be functions',
        ),
        ({"custom_id": "a", "body": {"messages": [{"role": "user", "content": [5]}]}}, "must be an object, got int"),
    ],
)
def test_what_a_line_says_is_never_ignored(line: dict[str, object], words: str, tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl", line)
    (fault,) = read_lines(tmp_path / "in.jsonl", None)
    assert isinstance(fault, str)
    assert fault.startswith("line 1: ")
    assert words in fault


def test_an_image_in_the_body_becomes_the_image_of_any_provider(tmp_path: Path) -> None:
    parts = [
        {"type": "text", "text": "What is it?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
        {"type": "image_url", "image_url": {"url": "https://images.example/a.png"}},
    ]
    write(tmp_path / "in.jsonl", {"custom_id": "a", "body": {"messages": [{"role": "user", "content": parts}]}})
    (line,) = read_lines(tmp_path / "in.jsonl", None)
    assert isinstance(line, Line)
    _, inline, linked = line.request.messages[0].blocks
    assert inline == ImageBlock(Base64Source("image/png", "AAAA"))
    assert linked == ImageBlock(UrlSource("https://images.example/a.png"))


def test_ctrl_c_keeps_the_answers_that_ended(server: ProviderServer, tmp_path: Path) -> None:
    server.always(Reply(delta(content="Hello"), Pause(20), end()))
    server.reply(*[Reply(delta(content="Hello"), end())] * 3)
    source = write(tmp_path / "in.jsonl", *({"id": i, "prompt": "x"} for i in range(8)))
    out = tmp_path / "out.jsonl"
    command = [*COMMAND, "batch", source, "-o", str(out), "--concurrency", "4"]
    process = subprocess.Popen(command, env=environment(server), stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 20
    while len(server.requests) < 7 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=10)
    assert process.returncode == 130, stderr
    assert [line["text"] for line in read(out).values()] == ["Hello"] * 3


def test_a_pipe_is_refused_because_in_is_read_twice(server: ProviderServer, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    done = run(server, "batch", str(tmp_path / "pipe"), "-o", str(tmp_path / "out.jsonl"))
    assert done.returncode == 2
    assert "is not a file" in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no /dev/stdout")
@pytest.mark.parametrize("out", ["/dev/stdout", "-"])
def test_standard_output_is_refused_as_out(out: str, server: ProviderServer, tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", {"id": "a", "prompt": "One"})
    done = run(server, "batch", source, "-o", out)
    assert done.returncode == 2
    assert f"-o {out} is not a file" in done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="nobody can write to /proc, root neither")
def test_a_folder_that_cannot_be_written_is_an_error_before_the_first_request(
    server: ProviderServer, tmp_path: Path
) -> None:
    source = write(tmp_path / "in.jsonl", {"id": "a", "prompt": "One"})
    done = run(server, "batch", source, "-o", "/proc/sys/out.jsonl")
    assert (done.returncode, len(server.requests)) == (2, 0)
    assert "-o /proc/sys/out.jsonl: nothing can be written to its folder: " in done.stderr


def test_a_link_stays_a_link(server: ProviderServer, tmp_path: Path) -> None:
    server.reply(Reply.json({"error": {"message": "no"}}, status=400))
    source = write(tmp_path / "in.jsonl", {"id": "a", "prompt": "One"})
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "out.jsonl")
    arguments = ("batch", source, "-o", str(tmp_path / "link.jsonl"))
    assert run(server, *arguments).returncode == 1
    assert run(server, *arguments, "--retry-failed").returncode == 0
    assert (tmp_path / "link.jsonl").is_symlink()
    assert read(tmp_path / "out.jsonl")["a"]["text"] == "Hello"


def test_a_key_refused_midway_keeps_the_answers_before_it(server: ProviderServer, tmp_path: Path) -> None:
    redirect = Reply(status=302, headers={"Location": "https://other.example/"})
    server.reply(Reply(delta(content="Hello"), end()), redirect)
    source = write(tmp_path / "in.jsonl", *({"id": i, "prompt": "x"} for i in range(9)))
    out = tmp_path / "out.jsonl"
    assert run(server, "batch", source, "-o", str(out), "--concurrency", "1").returncode == 3
    assert {*read(out)} == {0}


def test_without_tqdm_the_progress_is_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.setattr(batch_extras, "_INTERVAL_S", 0.0)
    progress = batch_extras.Progress(2)
    progress.add(5, failed=False)
    progress.add(0, failed=True)
    first, second = capsys.readouterr().err.splitlines()
    assert "1 of 2 done, 0 failed" in first
    assert "2 of 2 done, 1 failed" in second
    assert "0 s left" in second


def test_out_of_another_in_is_refused(server: ProviderServer, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    run(server, "batch", write(tmp_path / "in.jsonl", {"id": "a", "prompt": "One"}), "-o", str(out))
    before = out.read_bytes()
    done = run(server, "batch", write(tmp_path / "in.jsonl", {"id": "a", "prompt": "Other"}), "-o", str(out))
    assert done.returncode == 2
    assert "another IN" in done.stderr
    assert out.read_bytes() == before


def test_without_a_key_out_is_not_touched(server: ProviderServer, tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", {"id": "a", "prompt": "One"})
    done = run(server, "batch", source, "-o", str(tmp_path / "out.jsonl"), OPENAI_API_KEY="")
    assert done.returncode == 3
    assert not (tmp_path / "out.jsonl").exists()


def test_without_a_key_an_unsupported_request_is_no_line_of_out(server: ProviderServer, tmp_path: Path) -> None:
    file = {"type": "image", "source": {"type": "file", "file_id": "f"}}
    source = write(
        tmp_path / "in.jsonl",
        {"id": "a", "messages": [{"role": "user", "blocks": [file]}]},
        {"id": "b", "prompt": "One"},
    )
    out = tmp_path / "out.jsonl"
    arguments = ("batch", source, "-o", str(out), "--concurrency", "1")
    assert run(server, *arguments, OPENAI_API_KEY="").returncode == 3
    assert not out.exists()
    assert run(server, *arguments).returncode == 1
    lines = read(out)
    assert lines["a"]["error"]["type"] == "UnsupportedContentError"
    assert lines["b"]["text"] == "Hello"


@pytest.mark.parametrize("raw", ["{}".encode("utf-16"), b'{"id": "a", "prompt": "\xff"}'])
def test_a_line_in_another_encoding_is_said_to_be_not_utf_8(raw: bytes, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_bytes(raw)
    assert [*read_lines(tmp_path / "in.jsonl", None)] == ["line 1: it is not UTF-8"]


def test_a_second_run_is_refused_and_ctrl_c_leaves_no_line(server: ProviderServer, tmp_path: Path) -> None:
    server.always(Reply(delta(content="Hello"), Pause(20), end()))
    source = write(tmp_path / "in.jsonl", {"id": "a", "prompt": "One"})
    out = tmp_path / "out.jsonl"
    first = subprocess.Popen(
        [*COMMAND, "batch", source, "-o", str(out)], env=environment(server), stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 20
    while not server.requests and time.monotonic() < deadline:
        time.sleep(0.01)
    second = run(server, "batch", source, "-o", str(out))
    assert second.returncode == 2
    assert "another run" in second.stderr
    first.send_signal(signal.SIGINT)
    assert first.wait(timeout=10) == 130
    assert not out.exists()


def test_an_answer_must_fit_the_schema(server: ProviderServer, tmp_path: Path) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    schema_file = tmp_path / "schema.json"
    schema_file.write_text(json.dumps(schema))
    source = write(tmp_path / "in.jsonl", {"id": "a", "prompt": "One"})
    out = tmp_path / "out.jsonl"
    assert run(server, "batch", source, "-o", str(out), "--schema", str(schema_file)).returncode == 1
    assert read(out)["a"]["error"]["type"] == "OutputError"


def test_a_full_disk_is_said_and_loses_nothing(server: ProviderServer, tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", *({"id": i, "prompt": "x"} for i in range(20)))
    out = tmp_path / "out.jsonl"
    limited = ["bash", "-c", 'ulimit -f 1; trap "" XFSZ; exec "$@"', "bash", *COMMAND]
    done = subprocess.run(
        [*limited, "batch", source, "-o", str(out)], env=environment(server), capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 1
    assert "File too large" in done.stderr
    assert all(json.loads(line) for line in out.read_text().splitlines())
    assert run(server, "batch", source, "-o", str(out)).returncode == 0
    assert len(read(out)) == 20


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"id": 1, "messages": ' + "[" * 100_000, "nested too deeply"),
        ('{"id": ' + "9" * 10_000 + ', "prompt": "x"}', "digits"),
        ('{"id": "\\u001b]0;title\\u0007", "prompt": 5}', '"prompt" must be a string'),
        ('{"id": "\\u001b[31m", "prompt": "x"}\n' * 2, "line 2"),
    ],
    ids=["deep", "digits", "control codes", "control codes twice"],
)
def test_a_hostile_line_is_named_without_control_codes_and_nothing_is_asked(
    server: ProviderServer, tmp_path: Path, line: str, message: str
) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text(line)
    done = run(server, "batch", str(source), "-o", str(tmp_path / "out.jsonl"))
    assert (done.returncode, len(server.requests)) == (2, 0)
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert "\x1b" not in done.stderr
