"""The JSON tracer: the lines; files with many writers, that cannot be written, or whose writers are killed."""

from __future__ import annotations

import gc
import io
import json
import os
import random
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

import pytest

from completion import (
    Base64Source,
    ChatRequest,
    FinishReason,
    ImageBlock,
    Message,
    ProviderBlockFinished,
    RateLimitError,
    ReasoningDelta,
    ReasoningFinished,
    RedactedReasoning,
    RetryConfig,
    RetryingModel,
    StreamChunk,
    TextDelta,
    ToolCallArgsDelta,
    ToolCallBlock,
    ToolCallFinished,
    ToolCallMalformed,
    ToolCallStarted,
    ToolDefinition,
    TurnFinished,
    Usage,
)
from completion.engine import Middleware, RunConfig, RunInfo, Tool, run_chat
from completion.testing import ScriptedModel
from completion.tracing import JsonTracer
from completion.tracing.encoding import MAX_CHARS
from completion.tracing.timeline import show
from completion.tracing.writer import QUEUE_LINES
from tests.loopback import PATIENCE_S

Line = dict[str, Any]

ENVELOPE = ("schema", "ts", "ts_ms", "kind", "run_id", "step_id", "seq", "provider", "model")
NO_USAGE = {
    "input_tokens": 0, "output_tokens": 0, "cached_input_tokens": 0, "cache_creation_input_tokens": 0,
    "cache_creation_5m_tokens": 0, "cache_creation_1h_tokens": 0, "reasoning_tokens": 0,
}  # fmt: skip
USAGE = {**NO_USAGE, "input_tokens": 10, "output_tokens": 5}
NO_ERROR = {"status": None, "code": None, "request_id": None, "retry_after": None, "attempts": None}
MS = "a number of milliseconds"

WEATHER = ToolDefinition("weather", "The weather.", {"type": "object"})
CALL_TURN = (
    ToolCallStarted("c1", "weather"),
    ToolCallArgsDelta("c1", '{"city":"Köln"}'),
    ToolCallFinished("c1", "weather", {"city": "Köln"}),
    TurnFinished(FinishReason.TOOL_USE, Usage(10, 5)),
)
END = TurnFinished(FinishReason.END_TURN)


def lines_of(path: Path) -> list[Line]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def kinds(lines: Sequence[Line]) -> list[str]:
    return [line["kind"] for line in lines]


def facts_of(line: Line) -> Line:
    """The line without its envelope, and with MS in place of durations."""
    rest = {key: value for key, value in line.items() if key not in ENVELOPE}
    for key, value in rest.items():
        if key.endswith("_ms") and value is not None:
            assert isinstance(value, int | float) and value >= 0
            rest[key] = MS
    return rest


def traced(path: Path, model: Any, *, tools: Sequence[Tool] = (), verbose: bool = False, **options: Any) -> list[Line]:
    with JsonTracer(path, verbose) as tracer:
        run_chat(model, options.pop("request", ChatRequest("Hi")), tools, [tracer], **options).collect()
    return lines_of(path)


def weather(city: str) -> str:
    return f"17 °C in {city}"


TOOL = Tool(WEATHER, weather)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "trace.jsonl"


# --- the lines ---------------------------------------------------------------------------------------------------


def test_every_line_starts_with_the_same_keys(path: Path) -> None:
    before = time.time_ns() // 1_000_000
    lines = traced(path, ScriptedModel(CALL_TURN, "It is warm.", name="a-provider", model='a "model"'), tools=[TOOL])
    for line in lines:
        assert tuple(line)[: len(ENVELOPE)] == ENVELOPE
        assert (line["schema"], line["provider"], line["model"]) == (1, "a-provider", 'a "model"')
        assert before <= line["ts_ms"] <= time.time_ns() // 1_000_000
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["ts"])
        seconds, ms = divmod(line["ts_ms"], 1000)
        assert line["ts"] == f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{ms:03d}Z"
    assert [line["seq"] for line in lines] == list(range(1, len(lines) + 1))
    assert len({line["run_id"] for line in lines}) == 1


def test_the_step_that_answers_decisions_has_its_id_and_the_end_names_the_calls_that_wait(path: Path) -> None:
    calls = [ToolCallBlock(call_id, "weather", {"city": "Oslo"}) for call_id in ("c1", "c2")]
    request = ChatRequest([Message.user("Hi"), Message.assistant(calls)])
    tool = Tool(WEATHER, weather, approval=True)
    lines = traced(path, ScriptedModel(), tools=[tool], request=request, decisions={"c1": True})
    ids = {line["kind"]: line["step_id"] for line in lines}
    assert ids["step_started"] is not None
    assert ids["step_started"] == ids["tool_started"] == ids["tool_result"] == ids["step_finished"]
    assert (ids["run_started"], ids["run_finished"]) == (None, None)
    assert lines[-1]["pending"] == ["c2"]


def test_a_run_line_by_line(path: Path) -> None:
    lines = traced(
        path, ScriptedModel(CALL_TURN, "It is warm."), tools=[TOOL], request=ChatRequest("Hi", system_prompt="S")
    )
    request = {"messages": 1, "blocks": 1, "chars": 2, "bytes": 0, "system_chars": 1, "tools": 1, "max_tokens": 4096}
    end = {"service_tier": None, "response_id": None, "response_model": None, "duration_ms": MS, "first_chunk_ms": MS}
    sizes = {"blocks": 1, "chars": 13, "bytes": 0}
    assert [(line["kind"], facts_of(line)) for line in lines] == [
        ("run_started", {"tool_names": ["weather"]}),
        ("request", {"iteration": 1, **request}),
        ("step_started", {"iteration": 1, "opened_ms": MS}),
        ("first_chunk", {"latency_ms": MS}),
        ("tool_call_started", {"call_id": "c1", "name": "weather"}),
        ("tool_call_args_delta", {"call_id": "c1", "chars": 15}),
        ("tool_call_finished", {"call_id": "c1", "name": "weather", "chars": 20}),
        (
            "turn_finished",
            {"reason": "tool_use", "usage": USAGE, "provider_reason": None, "chunks": 4, "chars": 0, **end},
        ),
        ("tool_started", {"call_id": "c1", "name": "weather", "chars": 20}),
        (
            "tool_finished",
            {"call_id": "c1", "name": "weather", "is_error": False, "waited_ms": MS, "duration_ms": MS, **sizes},
        ),
        ("tool_result", {"call_id": "c1", "is_error": False, **sizes}),
        ("step_finished", {"iteration": 1, "usage": USAGE, "new_messages": 2, "duration_ms": MS}),
        ("request", {"iteration": 2, **request, "messages": 3, "blocks": 3, "chars": 35}),
        ("step_started", {"iteration": 2, "opened_ms": MS}),
        ("first_chunk", {"latency_ms": MS}),
        ("text_delta", {"chars": 2}),
        ("text_delta", {"chars": 3}),
        ("text_delta", {"chars": 6}),
        (
            "turn_finished",
            {"reason": "end_turn", "usage": None, "provider_reason": "stop", "chunks": 4, "chars": 11, **end},
        ),
        ("step_finished", {"iteration": 2, "usage": NO_USAGE, "new_messages": 1, "duration_ms": MS}),
        ("run_finished", {"reason": "end_turn", "abort": None, "usage": USAGE, "new_messages": 3, "duration_ms": MS}),
    ]


def test_a_line_has_the_id_of_its_step(path: Path) -> None:
    lines = traced(path, ScriptedModel(CALL_TURN, "Warm."), tools=[TOOL])
    steps = [line["step_id"] for line in lines]
    first, second = dict.fromkeys(step for step in steps if step is not None)
    assert steps == [None, *[first] * 11, *[second] * (len(steps) - 13), None]


SIZES: list[tuple[StreamChunk, Line]] = [
    (TextDelta("Köln"), {"chars": 4}),
    (ReasoningDelta("hmm"), {"chars": 3}),
    (ReasoningFinished("sig"), {"signature_chars": 3}),
    (ReasoningFinished(), {"signature_chars": 0}),
    (RedactedReasoning("xxxx"), {"chars": 4}),
    (ToolCallStarted("c9", "weather"), {"call_id": "c9", "name": "weather"}),
    (ToolCallArgsDelta("c9", '{"a":'), {"call_id": "c9", "chars": 5}),
    (ToolCallFinished("c9", "weather", {"a": 1}), {"call_id": "c9", "name": "weather", "chars": 7}),
    (ToolCallMalformed("c9", "weather", "{a", "bad"), {"call_id": "c9", "name": "weather", "chars": 2}),
    (ProviderBlockFinished("anthropic", {"type": "x"}), {"wire": "anthropic", "block_type": "x", "chars": 12}),
]


class Replace(Middleware):
    """Replaces the delta "here" with another chunk."""

    def __init__(self, chunk: StreamChunk) -> None:
        self.chunk = chunk

    def on_chunk(self, run: RunInfo, chunk: StreamChunk) -> StreamChunk:
        return self.chunk if chunk == TextDelta("here") else chunk


def chunk_line(path: Path, chunk: StreamChunk, *, verbose: bool) -> Line:
    """The line of a chunk that is not the first of its turn."""
    model = ScriptedModel([TextDelta("first "), TextDelta("here"), END])
    with JsonTracer(path, verbose) as tracer:
        run_chat(model, ChatRequest("Hi"), middleware=[tracer, Replace(chunk)]).collect()
    lines = lines_of(path)
    return lines[kinds(lines).index("text_delta") + 1]


@pytest.mark.parametrize(("chunk", "sizes"), SIZES, ids=lambda value: getattr(value, "type", ""))
def test_the_line_of_a_chunk_has_its_sizes(path: Path, chunk: StreamChunk, sizes: Line) -> None:
    line = chunk_line(path, chunk, verbose=False)
    assert line["kind"] == chunk.type
    assert facts_of(line) == sizes


@pytest.mark.parametrize(("chunk", "sizes"), SIZES, ids=lambda value: getattr(value, "type", ""))
def test_with_verbose_the_line_contains_the_chunk(path: Path, chunk: StreamChunk, sizes: Line) -> None:
    line = chunk_line(path, chunk, verbose=True)
    assert line["content"] == chunk.to_dict()
    assert StreamChunk.from_dict(line["content"]) == chunk
    assert facts_of(line) == {**sizes, "content": line["content"]}


def test_with_verbose_the_line_contains_the_request(path: Path) -> None:
    image = ImageBlock(Base64Source("image/png", b"12345"))
    request = ChatRequest([Message.user([image])], system_prompt="Be short.", tools=[WEATHER], temperature=0.5)
    line = traced(path, ScriptedModel("Yes."), verbose=True, request=request)[1]
    assert (line["bytes"], line["system_chars"]) == (5, 9)
    assert line["content"] == request.to_dict()
    assert ChatRequest.from_dict(line["content"]) == request


LONG = "x" * (MAX_CHARS + 1000)


@pytest.mark.parametrize(
    "chunk",
    [
        TextDelta(LONG),
        ReasoningDelta(LONG),
        ToolCallArgsDelta("c9", LONG),
        ToolCallFinished("c9", "weather", {"a": LONG}),
        ToolCallMalformed("c9", "weather", LONG, "bad"),
        ProviderBlockFinished("anthropic", {"a": [LONG, LONG]}),
    ],
    ids=lambda chunk: chunk.type,
)
def test_a_long_line_is_truncated_and_says_by_how_much(path: Path, chunk: StreamChunk) -> None:
    line = chunk_line(path, chunk, verbose=True)
    assert 1000 <= line["cut"] <= len(LONG) + 2000
    assert len(LONG) <= line["chars"] <= 2 * len(LONG) + 100
    written = max(path.read_bytes().splitlines(), key=len)
    assert MAX_CHARS - 1000 < len(written) < MAX_CHARS + 1000


def test_without_verbose_the_size_of_a_long_text_is_not_truncated(path: Path) -> None:
    line = chunk_line(path, ToolCallFinished("c9", "weather", {"a": LONG}), verbose=False)
    assert abs(line["chars"] - len(LONG)) < 20
    assert "cut" not in line


def test_a_line_with_a_long_name_keeps_the_other_facts(path: Path) -> None:
    line = chunk_line(path, ToolCallMalformed("c9", LONG, "{", "bad"), verbose=True)
    assert (line["call_id"], line["chars"], line["content"]["type"]) == ("c9", 1, "tool_call_malformed")
    assert line["cut"] > 1000


def test_the_memory_of_the_tracer_does_not_grow_with_the_answer(path: Path) -> None:
    model = ScriptedModel("x" * 50_000_000)
    with JsonTracer(path, verbose=True) as tracer:
        run = run_chat(model, ChatRequest("Hi"), middleware=[tracer])
        tracemalloc.start()
        try:
            run.collect()
            assert tracemalloc.get_traced_memory()[1] < 20_000_000
        finally:
            tracemalloc.stop()
    assert {line["kind"] for line in lines_of(path) if line.get("cut")} == {
        "text_delta", "step_finished", "run_finished"
    }  # fmt: skip


def test_with_verbose_the_lines_contain_calls_results_and_the_end(path: Path) -> None:
    model = ScriptedModel(CALL_TURN, "Warm.")
    with JsonTracer(path, verbose=True) as tracer:
        end = list(run_chat(model, ChatRequest("Hi"), [TOOL], [tracer]))[-1]
    content = {line["kind"]: line.get("content") for line in lines_of(path)}
    assert content["tool_started"] == ToolCallBlock("c1", "weather", {"city": "Köln"}).to_dict()
    assert content["tool_finished"] == Message.tool_result("c1", "17 °C in Köln").blocks[0].to_dict()
    assert content["run_finished"] == end.to_dict()


def test_without_verbose_no_contents_are_written(path: Path) -> None:
    model = ScriptedModel([ReasoningDelta("secretly"), ReasoningFinished("secret"), *CALL_TURN], "A secret.")
    tool = Tool(WEATHER, lambda city: "secret")
    traced(path, model, tools=[tool], request=ChatRequest("My secret", system_prompt="secret"))
    assert "secret" not in path.read_text()
    assert "Köln" not in path.read_text() and "K\\u00f6ln" not in path.read_text()


def test_secrets_in_additional_params_are_not_written(path: Path) -> None:
    server = {"type": "mcp", "authorization": "Bearer sk-1", "headers": {"X": "sk-2"}, "server_url": "http://x"}
    params = {"tools": [server], "api_key": "sk-3", "auth": {"access_token": "sk-4"}, "max_tokens": 5}
    line = traced(path, ScriptedModel("Yes."), verbose=True, request=ChatRequest("Hi", additional_params=params))[1]
    assert "sk-" not in path.read_text()
    assert line["content"]["additional_params"] == {
        "tools": [{"type": "mcp", "authorization": "***", "headers": "***", "server_url": "http://x"}],
        "api_key": "***",
        "auth": {"access_token": "***"},
        "max_tokens": 5,
    }


def test_a_retry_has_a_line(path: Path) -> None:
    limit = RateLimitError("slow down", status=429, code="limit", request_id="r1")
    lines = traced(path, RetryingModel(ScriptedModel(limit, "Yes."), RetryConfig(base_delay=0)), verbose=True)
    assert kinds(lines)[:4] == ["run_started", "request", "retry", "step_started"]
    assert facts_of(lines[2]) == {
        **{"attempt": 1, "max_attempts": 3, "delay_ms": MS, "error": "RateLimitError", "status": 429},
        **{"code": "limit", "request_id": "r1", "retry_after": None, "attempts": 1},
        "content": {"message": str(limit)},
    }


def test_a_run_that_fails_has_a_last_line_with_its_error(path: Path) -> None:
    with JsonTracer(path) as tracer, pytest.raises(RateLimitError):
        run_chat(ScriptedModel([TextDelta("He"), RateLimitError("no")]), ChatRequest("Hi"), (), [tracer]).collect()
    line = lines_of(path)[-1]
    assert (line["kind"], line["step_id"] is None) == ("run_failed", False)
    assert facts_of(line) == {"error": "RateLimitError", **NO_ERROR, "usage": NO_USAGE, "duration_ms": MS}


def test_a_run_whose_first_turn_does_not_open_has_lines(path: Path) -> None:
    with JsonTracer(path) as tracer, pytest.raises(RateLimitError):
        run_chat(ScriptedModel(RateLimitError("no")), ChatRequest("Hi"), (), [tracer])
    assert kinds(lines_of(path)) == ["run_started", "request", "run_failed"]


def test_an_abort_is_in_the_last_line(path: Path) -> None:
    lines = traced(path, ScriptedModel(CALL_TURN), tools=[TOOL], config=RunConfig(max_iterations=1), verbose=True)
    assert (lines[-1]["reason"], lines[-1]["abort"]) == ("aborted", "max_iterations")
    assert lines[-1]["content"]["abort"]["message"]
    result = next(line for line in lines if line["kind"] == "tool_result")
    assert result["is_error"]


def test_closing_a_run_early_writes_run_dropped(path: Path) -> None:
    with JsonTracer(path) as tracer:
        stream = run_chat(ScriptedModel("One two three."), ChatRequest("Hi"), middleware=[tracer])
        next(stream)
        stream.close()
    assert kinds(lines_of(path))[-1] == "run_dropped"
    assert facts_of(lines_of(path)[-1]) == {"usage": NO_USAGE, "duration_ms": MS}


def test_a_garbage_collected_run_writes_run_dropped(path: Path) -> None:
    with JsonTracer(path) as tracer:
        next(run_chat(ScriptedModel("One two three."), ChatRequest("Hi"), middleware=[tracer]))
        gc.collect()
    assert kinds(lines_of(path))[-1] == "run_dropped"


def test_a_call_that_is_not_run_has_no_times(path: Path) -> None:
    malformed = (ToolCallStarted("c1", "weather"), ToolCallMalformed("c1", "weather", "{", "bad"), CALL_TURN[-1])
    lines = traced(path, ScriptedModel(malformed, "Sorry."), tools=[TOOL])
    line = next(line for line in lines if line["kind"] == "tool_finished")
    assert (line["is_error"], line["waited_ms"], line["duration_ms"]) == (True, None, None)


def test_each_tool_has_its_own_duration(path: Path) -> None:
    second_is_done = threading.Event()

    def first() -> None:
        assert second_is_done.wait(PATIENCE_S)
        time.sleep(0.05)

    names = {"first": first, "second": second_is_done.set}
    calls = [(ToolCallStarted(name, name), ToolCallFinished(name, name, {})) for name in names]
    model = ScriptedModel([chunk for call in calls for chunk in call] + [CALL_TURN[-1]], "Done.")
    tools = [Tool(ToolDefinition(name, "", {"type": "object"}), function) for name, function in names.items()]
    lines = traced(path, model, tools=tools)
    took = {line["name"]: line["duration_ms"] for line in lines if line["kind"] == "tool_finished"}
    assert took["first"] >= 50 > took["second"]


class Circle(dict[str, Any]):
    def __init__(self) -> None:
        self["self"] = self


@pytest.mark.parametrize("args", [{"a": float("nan")}, {"a": b"bytes"}, {("a",): 1}, Circle(), {"a": "\ud83d"}])
def test_values_that_are_not_json_are_written_as_text(path: Path, args: dict[str, Any]) -> None:
    line = chunk_line(path, ToolCallFinished("c1", "weather", args), verbose=True)
    assert line["kind"] == "tool_call_finished"
    assert line["content"]


def test_an_error_while_building_a_line_does_not_fail_the_run(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    odd: Any = 5
    line = chunk_line(path, TextDelta(odd), verbose=False)
    assert line["kind"] == "turn_finished"
    assert [record.message for record in caplog.records] == [
        "JsonTracer: a line could not be built; it is missing in the trace"
    ]


# --- targets -----------------------------------------------------------------------------------------------------


def test_lines_are_in_the_file_when_a_run_has_ended(path: Path) -> None:
    tracer = JsonTracer(path)
    for count in (1, 2):
        run_chat(ScriptedModel("Yes."), ChatRequest("Hi"), middleware=[tracer]).collect()
        assert kinds(lines_of(path)).count("run_finished") == count
    tracer.close()


def test_a_text_file_is_written_and_stays_open() -> None:
    file = io.StringIO()
    write_one_run(file)
    assert file.getvalue().endswith("}\n")
    assert len(file.getvalue().splitlines()) == 8


def test_a_binary_file_is_written_and_stays_open(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        write_one_run(file)
        assert len(lines_of(path)) == 8


def test_stderr_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    write_one_run(sys.stderr)
    assert len(capsys.readouterr().err.splitlines()) == 8


def write_one_run(target: str | Path | IO[Any]) -> int:
    """Write eight lines; returns how many of them were lost."""
    with JsonTracer(target) as tracer:
        assert run_chat(ScriptedModel("Yes."), ChatRequest("Hi"), middleware=[tracer]).collect().text == "Yes."
    return tracer.lost


def test_a_target_of_another_type_is_refused() -> None:
    target: Any = 5
    with pytest.raises(TypeError, match="a path or a file that is open for writing, got int"):
        JsonTracer(target)


def test_a_path_that_cannot_be_opened_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        JsonTracer(tmp_path / "missing" / "trace.jsonl")


def test_lines_are_appended(path: Path) -> None:
    write_one_run(path)
    write_one_run(str(path))
    assert kinds(lines_of(path)).count("run_started") == 2


def test_a_truncated_last_line_is_ended_before_new_lines(path: Path) -> None:
    path.write_text('{"schema":1,"ts":"20')
    write_one_run(path)
    first, *others = path.read_text().splitlines()
    assert first == '{"schema":1,"ts":"20'
    assert len([json.loads(line) for line in others]) == 8


def test_a_file_that_was_moved_is_created_again(path: Path) -> None:
    with JsonTracer(path) as tracer:
        run_chat(ScriptedModel("Yes."), ChatRequest("Hi"), middleware=[tracer]).collect()
        path.rename(path.with_suffix(".1"))
        run_chat(ScriptedModel("Yes."), ChatRequest("Hi"), middleware=[tracer]).collect()
    assert len(lines_of(path)) == len(lines_of(path.with_suffix(".1"))) == 8


# --- files that cannot be written --------------------------------------------------------------------------------


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_is_logged_once_and_the_runs_continue(caplog: pytest.LogCaptureFixture) -> None:
    with JsonTracer("/dev/full") as tracer:
        for _ in range(3):
            run_chat(ScriptedModel("Yes."), ChatRequest("Hi"), middleware=[tracer]).collect()
    assert tracer.lost == 24
    assert len(caplog.records) == 1
    assert "lines are lost" in caplog.text and "No space left" in caplog.text


FILLS_THE_DISK = """
import resource, sys
from completion import ChatRequest, JsonTracer, run_chat
from completion.testing import ScriptedModel

with JsonTracer(sys.argv[1]) as tracer:
    for limit in (3000, 3500, resource.RLIM_INFINITY):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        run_chat(ScriptedModel("Yes."), ChatRequest("Hi"), middleware=[tracer]).collect()
    print(tracer.lost)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit of a file's size")
def test_a_disk_that_becomes_full_leaves_only_whole_lines(path: Path) -> None:
    path.write_text('{"not": "ours"}\n' * 60)
    command = [sys.executable, "-c", FILLS_THE_DISK, str(path)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=60, check=True)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines[:60] == [{"not": "ours"}] * 60
    lost = int(done.stdout)
    assert lost > 0
    assert len(lines) == 60 + 24 - lost + 1
    assert [line["lines"] for line in lines[60:] if line["kind"] == "dropped"] == [lost]


def test_a_closed_file_is_logged_and_the_run_continues(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with path.open("w") as file:
        tracer = JsonTracer(file)
    assert run_chat(ScriptedModel("Yes."), ChatRequest("Hi"), middleware=[tracer]).collect().text == "Yes."
    tracer.close()
    assert tracer.lost == 8
    assert "lines are lost" in caplog.text


def test_a_closed_tracer_counts_lost_lines(path: Path) -> None:
    tracer = JsonTracer(path)
    tracer.close()
    tracer.close()
    run_chat(ScriptedModel("Yes."), ChatRequest("Hi"), middleware=[tracer]).collect()
    assert tracer.lost == 8


def test_lines_are_written_again_after_the_directory_was_removed_and_created(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "traces"
    folder.mkdir()
    path = folder / "trace.jsonl"
    with JsonTracer(path) as tracer:
        run_chat(ScriptedModel("Yes."), ChatRequest("Hi"), middleware=[tracer]).collect()
        path.unlink()
        folder.rmdir()
        run_chat(ScriptedModel("Yes."), ChatRequest("Hi"), middleware=[tracer]).collect()
        assert tracer.lost == 8
        folder.mkdir()
        run_chat(ScriptedModel("Yes."), ChatRequest("Hi"), middleware=[tracer]).collect()
    lines = lines_of(path)
    assert kinds(lines)[-2:] == ["run_finished", "dropped"]
    assert lines[-1]["lines"] == 8
    assert tuple(lines[-1])[: len(ENVELOPE)] == ENVELOPE
    assert [lines[-1][key] for key in ("run_id", "step_id", "seq", "provider", "model")] == [None] * 5
    assert len(caplog.records) == 1


def test_a_pipe_that_is_not_read_loses_lines_and_counts_them(caplog: pytest.LogCaptureFixture) -> None:
    reading, writing = os.pipe()
    words = QUEUE_LINES * 2
    model = ScriptedModel([*[TextDelta("word ")] * words, END])
    with open(writing, "wb", buffering=0) as file, open(reading, "rb") as pipe:
        tracer = JsonTracer(file)
        began = time.monotonic()
        run_chat(model, ChatRequest("Hi"), middleware=[tracer]).collect()
        assert time.monotonic() - began < PATIENCE_S
        lost = tracer.lost
        assert lost > 0
        got: list[bytes] = []
        reader = threading.Thread(target=lambda: got.extend(pipe), daemon=True)
        reader.start()
        tracer.close()
        file.close()
        reader.join(PATIENCE_S)
    lines = [json.loads(line) for line in got]
    assert sum(line["lines"] for line in lines if line["kind"] == "dropped") == lost
    assert len([line for line in lines if line["kind"] != "dropped"]) + lost == words + 8 - 1


def test_only_one_run_waits_for_a_pipe_that_is_not_read() -> None:
    reading, writing = os.pipe()
    with open(writing, "wb", buffering=0) as file, open(reading, "rb"):
        tracer = JsonTracer(file, verbose=True)
        run_chat(ScriptedModel("x" * 200_000), ChatRequest("Hi"), middleware=[tracer]).collect()
        began = time.monotonic()
        for _ in range(20):
            run_chat(ScriptedModel("Yes."), ChatRequest("Hi"), middleware=[tracer]).collect()
        assert time.monotonic() - began < 5  # 20 runs that each wait would take 20 s
    tracer.close()


# --- many writers ------------------------------------------------------------------------------------------------


def test_the_lines_of_a_hundred_parallel_runs_can_be_separated(path: Path) -> None:
    start = threading.Barrier(100)
    answers = {f"model-{i}": f"I am number {i} of them." for i in range(100)}
    expected = dict(answers)

    def ask(name: str) -> None:
        start.wait(PATIENCE_S)
        run_chat(ScriptedModel(CALL_TURN, answers[name], model=name), ChatRequest("Hi"), [TOOL], [tracer]).collect()

    with JsonTracer(path, verbose=True) as tracer:
        threads = [threading.Thread(target=ask, args=(name,)) for name in answers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE_S)
    assert tracer.lost == 0
    runs = by_run(lines_of(path))
    assert len(runs) == 100
    for lines in runs.values():
        assert is_complete(lines)
        assert len({line["model"] for line in lines}) == 1
        text = "".join(line["content"]["delta"] for line in lines if line["kind"] == "text_delta")
        assert text == expected.pop(lines[0]["model"])
    assert expected == {}


def by_run(lines: Sequence[Line]) -> dict[str, list[Line]]:
    runs: dict[str, list[Line]] = {}
    for line in lines:
        runs.setdefault(line["run_id"], []).append(line)
    return runs


def is_complete(lines: Sequence[Line]) -> bool:
    ends = Counter(kinds(lines))
    return (
        [line["seq"] for line in lines] == list(range(1, len(lines) + 1))
        and lines[0]["kind"] == "run_started"
        and lines[-1]["kind"] == "run_finished"
        and ends["run_finished"] == 1
    )


# The start of each program below.
PRELUDE = """
import os, sys, time
from completion import ChatRequest, TextDelta, run_chat
from completion.testing import ScriptedModel
from completion.tracing import JsonTracer

def ask(tracer, text="One two three."):
    run_chat(ScriptedModel(text), ChatRequest("Hi"), middleware=[tracer]).collect()
"""


@pytest.fixture
def python(path: Path) -> Callable[[str], subprocess.Popen[str]]:
    """Start a program with the path of the trace as its argument."""

    def start(code: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-W", "error", "-c", PRELUDE + textwrap.dedent(code), str(path)]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)

    return start


Python = Callable[[str], "subprocess.Popen[str]"]


def ran(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=PATIENCE_S * 3)
    assert process.returncode == 0, err
    assert err == ""
    return out


def test_several_processes_can_write_one_file(path: Path, python: Python) -> None:
    writer = """
    with JsonTracer(sys.argv[1], verbose=True) as tracer:
        print("ready", flush=True)
        sys.stdin.readline()
        for i in range(40):
            ask(tracer, f"{'x' * 20_000} {i}")
    """
    processes = [python(writer) for _ in range(3)]
    for process in processes:
        wait_for(process, "ready")
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    for process in processes:
        ran(process)
    runs = by_run(lines_of(path))
    assert len(runs) == 120
    assert all(is_complete(lines) for lines in runs.values())


def wait_for(process: subprocess.Popen[str], word: str) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == f"{word}\n"


def test_a_file_whose_writers_are_killed_can_be_read(path: Path, python: Python) -> None:
    writer = """
    tracer = JsonTracer(sys.argv[1], verbose=True)
    ask(tracer)
    print("begun", flush=True)
    while True:
        ask(tracer, "x" * 3_000_000)
    """
    kills = 5
    for _ in range(kills):
        process = python(writer)
        wait_for(process, "begun")
        time.sleep(random.uniform(0.03, 0.15))
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=PATIENCE_S)
    write_one_run(path)
    torn, lines = 0, []
    for raw in path.read_bytes().splitlines():
        try:
            lines.append(json.loads(raw))
        except ValueError:
            torn += 1
    assert torn <= kills
    *killed, last = by_run(lines).values()
    assert is_complete(last)
    assert all([line["seq"] for line in run] == list(range(1, len(run) + 1)) for run in killed)
    assert show(path, io.StringIO()) == len(killed) + 1


def test_queued_lines_are_written_at_exit(path: Path, python: Python) -> None:
    ran(
        python("""
    tracer = JsonTracer(sys.argv[1])
    stream = run_chat(ScriptedModel("One two three."), ChatRequest("Hi"), middleware=[tracer])
    next(stream)
    """)
    )
    assert kinds(lines_of(path))[:2] == ["run_started", "request"]


def test_a_pipe_that_is_not_read_does_not_block_the_exit_of_python(python: Python) -> None:
    began = time.monotonic()
    ran(
        python("""
    reading, writing = os.pipe()
    tracer = JsonTracer(open(writing, "wb", buffering=0, closefd=False), verbose=True)
    stream = run_chat(ScriptedModel([TextDelta("x" * 200_000)]), ChatRequest("Hi"), middleware=[tracer])
    [next(stream) for _ in range(3)]
    """)
    )
    assert time.monotonic() - began < PATIENCE_S


def test_a_forked_child_writes_its_own_runs_and_not_the_parents(path: Path, python: Python) -> None:
    ran(
        python("""
    tracer = JsonTracer(sys.argv[1])
    ask(tracer)
    stream = run_chat(ScriptedModel("One two three."), ChatRequest("Hi"), middleware=[tracer])
    next(stream)                                        # its lines are queued
    import warnings
    warnings.simplefilter("ignore", DeprecationWarning)  # fork() in a process with threads
    child = os.fork()
    if child == 0:
        del stream                                      # dropped in the child; the parent continues it
        ask(tracer)
        sys.exit(0)
    assert os.waitpid(child, 0)[1] == 0
    stream.close()
    tracer.close()
    assert tracer.lost == 0
    """)
    )
    runs = by_run(lines_of(path))
    assert sorted(kinds(lines)[-1] for lines in runs.values()) == ["run_dropped", "run_finished", "run_finished"]
    for lines in runs.values():
        assert [line["seq"] for line in lines] == list(range(1, len(lines) + 1))


def test_the_thread_of_a_garbage_collected_tracer_ends(path: Path) -> None:
    tracer = JsonTracer(path)
    run_chat(ScriptedModel("Yes."), ChatRequest("Hi"), middleware=[tracer]).collect()
    (thread,) = [thread for thread in threading.enumerate() if thread.name == "completion-tracer"]
    del tracer
    gc.collect()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()
