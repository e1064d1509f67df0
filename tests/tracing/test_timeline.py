"""The timeline: traces and their drawings, both literal."""

from __future__ import annotations

import io
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from completion import ChatRequest, FinishReason, ToolCallFinished, ToolCallStarted, ToolDefinition, TurnFinished, Usage
from completion.engine import Tool, run_chat
from completion.testing import ScriptedModel
from completion.tracing import JsonTracer
from completion.tracing.encoding import MAX_CHARS
from completion.tracing.timeline import MAX_LINE_BYTES, show

START_MS = 1_795_737_105_166
ERROR = {"error": "RateLimitError", "status": 429, "code": "limit"}


class Trace:
    """Builds the lines of one run."""

    def __init__(self, run_id: str = "run_a", start_ms: int = START_MS) -> None:
        self.run_id, self.start_ms, self.seq = run_id, start_ms, 0

    def line(self, ms: int, kind: str, step: int | None = None, **facts: Any) -> bytes:
        self.seq += 1
        step_id = None if step is None else f"step_{step}"
        envelope = {"schema": 1, "ts": "", "ts_ms": self.start_ms + ms, "kind": kind, "run_id": self.run_id}
        envelope |= {"step_id": step_id, "seq": self.seq, "provider": "openai", "model": "gpt-4o"}
        return json.dumps(envelope | facts).encode() + b"\n"

    def turn(self, ms: int, step: int, *, first: int, length: int, reason: str) -> list[bytes]:
        usage = {"input_tokens": 100 * step, "output_tokens": 10 * step}
        return [
            self.line(ms, "request", step, iteration=step),
            self.line(ms + first, "first_chunk", step, latency_ms=first),
            self.line(ms + first, "text_delta", step, chars=5),
            self.line(ms + length, "turn_finished", step, duration_ms=length, usage=usage, reason=reason),
        ]

    def call(
        self, ms: int, name: str, length: int | None, *, step: int = 1, chars: int = 17, **facts: Any
    ) -> list[bytes]:
        call = {"call_id": f"call_{name}", "name": name}
        times = {"waited_ms": None if length is None else 0.0, "duration_ms": length}
        end = {"is_error": False, "chars": chars, **times, **facts}
        return [
            self.line(ms, "tool_started", step, **call),
            self.line(ms + (length or 0), "tool_finished", step, **call, **end),
        ]

    def end(self, ms: int, kind: str = "run_finished", **facts: Any) -> bytes:
        usage = {"input_tokens": 300, "output_tokens": 30}
        facts = {"reason": "end_turn", "abort": None, "usage": usage, "duration_ms": ms} | facts
        return self.line(ms, kind, **facts)


def shown(lines: list[bytes], **options: Any) -> str:
    out = io.StringIO()
    show(io.BytesIO(b"".join(lines)), out, **{"width": 100, **options})
    return out.getvalue()


def run_with_tools() -> list[bytes]:
    run = Trace()
    return [
        run.line(0, "run_started", tool_names=["weather", "train"]),
        *run.turn(0, 1, first=250, length=500, reason="tool_use"),
        *run.call(500, "weather", 750),
        *run.call(500, "train", 250, is_error=True, chars=1),
        *run.turn(1250, 2, first=500, length=750, reason="end_turn"),
        run.end(2000),
    ]


def test_a_run_with_tools() -> None:
    drawing = """\
run_a  openai gpt-4o  2026-11-26 23:51:45.166 UTC
  end_turn, 2.00 s, 300 in, 30 out
  step 1              |░░░███                 |   500 ms  tool_use, first 250 ms, 100 in, 10 out
    weather           |      ████████         |   750 ms  ok, 17 chars
    train             |      ███              |   250 ms  error, 1 char
  step 2              |              ░░░░░░███|   750 ms  end_turn, first 500 ms, 200 in, 20 out
"""
    assert shown(run_with_tools()) == drawing


def test_output_that_cannot_encode_blocks_gets_ascii() -> None:
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding="ascii", newline="\n")
    show(io.BytesIO(b"".join(run_with_tools())), out, width=60)
    drawing = """\
run_a  openai gpt-4o  2026-11-26 23:51:45.166 UTC
  end_turn, 2.00 s, 300 in, 30 out
  step 1              |.#        |   500 ms  tool_use, fi...
    weather           |  ####    |   750 ms  ok, 17 chars
    train             |  ##      |   250 ms  error, 1 char
  step 2              |      ...#|   750 ms  end_turn, fi...
"""
    assert raw.getvalue().decode() == drawing


def test_runs_with_mixed_lines_are_printed_separately() -> None:
    one, two = Trace("run_a"), Trace("run_b", START_MS + 100)
    lines = [
        *one.turn(0, 1, first=100, length=200, reason="end_turn"),
        *two.turn(0, 1, first=500, length=1000, reason="end_turn"),
    ]
    mixed = [line for pair in zip(lines[:4], lines[4:], strict=True) for line in pair]
    drawing = """\
run_a  openai gpt-4o  2026-11-26 23:51:45.166 UTC
  end_turn, 200 ms, 300 in, 30 out
  step 1              |░░░░░░░░░░░░███████████|   200 ms  end_turn, first 100 ms, 100 in, 10 out

run_b  openai gpt-4o  2026-11-26 23:51:45.266 UTC
  end_turn, 1.00 s, 300 in, 30 out
  step 1              |░░░░░░░░░░░░███████████|   1.00 s  end_turn, first 500 ms, 100 in, 10 out
"""
    assert shown([*mixed, two.end(1000), one.end(200)]) == drawing


def test_retries_and_an_error() -> None:
    run = Trace()
    retry = {"attempt": 1, "max_attempts": 3, "delay_ms": 1500.0}
    lines = [
        run.line(0, "run_started"),
        run.line(0, "request", 1, iteration=1),
        run.line(500, "retry", 1, **retry, **ERROR),
        run.end(2000, "run_failed", **ERROR, content={"message": "slow\x1b[31m\ndown"}),
    ]
    drawing = """\
run_a  openai gpt-4o  2026-11-26 23:51:45.166 UTC
  failed: RateLimitError 429 limit, 2.00 s, slow[31m down, 300 in, 30 out
  step 1              |███████████████████████|   2.00 s
    retry 1/3         |      !                |           RateLimitError 429 limit, again in 1.50 s
"""
    assert shown(lines) == drawing


def test_an_abort_with_calls_that_were_not_run() -> None:
    run = Trace()
    lines = [
        *run.turn(0, 1, first=50, length=100, reason="tool_use"),
        run.line(100, "tool_call_malformed", 1, call_id="call_b", name="broken"),
        *run.call(100, "weather", None, is_error=True, chars=30),
        run.end(100, reason="aborted", abort="middleware", content={"abort": {"message": "that is enough"}}),
    ]
    drawing = """\
run_a  openai gpt-4o  2026-11-26 23:51:45.166 UTC
  aborted: middleware, 100 ms, that is enough, 300 in, 30 out
  step 1              |░░░░░░░░░░░░███████████|   100 ms  tool_use, first 50 ms, 100 in, 10 out
    broken            |                      !|           malformed arguments
    weather           |                      !|           not run, error, 30 chars
"""
    assert shown(lines) == drawing


def test_a_dropped_run_and_a_run_without_an_end() -> None:
    dropped, killed = Trace("run_a"), Trace("run_b")
    lines = [
        dropped.line(0, "request", 1, iteration=1),
        killed.line(0, "request", 1, iteration=1),
        dropped.end(100, "run_dropped"),
        killed.line(5.5, "first_chunk", 1, latency_ms=5.5),  # type: ignore[arg-type]
    ]
    drawing = """\
run_a  openai gpt-4o  2026-11-26 23:51:45.166 UTC
  dropped by its reader, 100 ms, 300 in, 30 out
  step 1              |███████████████████████|   100 ms

run_b  openai gpt-4o  2026-11-26 23:51:45.166 UTC
  no end in this trace, 5.5 ms
  step 1              |?                      |           first 5.5 ms
"""
    assert shown(lines) == drawing


@pytest.mark.parametrize(
    "line",
    [
        b'{"schema":1,"ts":"20\n',
        b"plain text\n",
        b"[]\n",
        b'"text"\n',
        b"null\n",
        b"\xff\xfe\n",
        b'{"schema":2}\n',
        b'{"schema":1}\n',
        b'{"schema":1,"kind":"request","run_id":5,"ts_ms":1}\n',
        b'{"schema":1,"kind":"request","run_id":"x","ts_ms":NaN}\n',
        b'{"schema":1,"kind":"request","run_id":"x","ts_ms":1e999}\n',
        b'{"schema":1,"kind":"request","run_id":"x","ts_ms":"now"}\n',
        b"[" * 100_000 + b"\n",
    ],
    ids=lambda line: line[:40].decode(errors="replace"),
)
def test_an_unreadable_line_is_skipped_and_counted(line: bytes) -> None:
    whole = shown(run_with_tools())
    note = "1 line could not be read: truncated, or not from a trace\n"
    assert shown([line, *run_with_tools(), b"\n"]) == whole + note


def test_lost_lines_are_counted() -> None:
    lines = run_with_tools()
    no_run = {"run_id": None, "step_id": None, "seq": None, "provider": None, "model": None}
    dropped = {"schema": 1, "ts": "", "ts_ms": START_MS, "kind": "dropped", **no_run, "lines": 1200}
    del lines[3]
    lost = "  1 line of this run missing\n1,200 lines could not be written to this trace\n"
    assert shown([*lines, json.dumps(dropped).encode()]) == shown(run_with_tools()) + lost


def test_unknown_kinds_are_skipped() -> None:
    lines = run_with_tools()
    assert shown([*lines, Trace().line(1, "something_new")]).splitlines()[:6] == shown(lines).splitlines()


def test_run_selects_runs_by_the_start_of_their_id() -> None:
    one, two = Trace("run_aa"), Trace("run_ab")
    lines = [one.line(0, "run_started"), two.line(0, "run_started")]
    assert shown(lines, run="run_ab").splitlines()[0].startswith("run_ab  openai")
    assert "run_aa" not in shown(lines, run="run_ab")


def test_a_wide_label_is_truncated() -> None:
    run = Trace()
    lines = [*run.call(0, "a_tool_with_a_name_that_is_long", 100), run.end(100)]
    assert shown(lines).splitlines()[2] == "    a_tool_with_a_... |███████████████████████|   100 ms  ok, 17 chars"


def test_only_a_terminal_gets_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("NO_COLOR", raising=False)
    coloured, plain = Terminal(), Terminal()
    show(io.BytesIO(b"".join(run_with_tools())), coloured)
    assert "\x1b[31m    train" in coloured.getvalue()
    assert max(len(row) for row in shown(run_with_tools(), width=80).splitlines()) == 80
    monkeypatch.setenv("NO_COLOR", "1")
    show(io.BytesIO(b"".join(run_with_tools())), plain)
    assert plain.getvalue() == shown(run_with_tools(), width=80)
    assert "\x1b" not in shown(run_with_tools())


class Growing(io.BytesIO):
    """A file that is still being written: readline returns parts of lines, and Ctrl-C ends it."""

    def __init__(self, pieces: list[bytes]) -> None:
        super().__init__()
        self._pieces = pieces

    def readline(self, size: int | None = -1) -> bytes:
        if not self._pieces:
            raise KeyboardInterrupt
        return self._pieces.pop(0)


def test_follow_reads_a_growing_file() -> None:
    first, rest = run_with_tools()[0], run_with_tools()[1:]
    pieces = [first[:30], b"", first[30:], *rest, Trace("run_b").line(0, "run_started")]
    out = io.StringIO()
    assert show(Growing(pieces), out, width=100, follow=True) == 2
    whole, second = shown(run_with_tools()), out.getvalue().split("\n\n")[1]
    assert out.getvalue().startswith(whole)
    assert second.startswith("run_b") and "no end in this trace" in second


def test_a_file_of_the_tracer_can_be_shown(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    call_turn = [
        ToolCallStarted("c1", "weather"),
        ToolCallFinished("c1", "weather", {}),
        TurnFinished(FinishReason.TOOL_USE, Usage(10, 5)),
    ]
    tool = Tool(ToolDefinition("weather", "", {"type": "object"}), lambda: "17 °C")
    with JsonTracer(path) as tracer:
        run_chat(ScriptedModel(call_turn, "Warm."), ChatRequest("Hi"), [tool], [tracer]).collect()
    out = io.StringIO()
    assert show(path, out) == 1
    head, total, *rows = out.getvalue().splitlines()
    assert "scripted scripted-1" in head
    assert total.startswith("  end_turn, ") and total.endswith(", 10 in, 5 out")
    assert [row.split("|")[0].strip() for row in rows] == ["step 1", "weather", "step 2"]
    assert rows[1].endswith("ok, 5 chars")


def test_a_line_that_is_too_long_is_not_kept_in_memory_and_counts_as_unreadable(tmp_path: Path) -> None:
    path, trace = tmp_path / "trace.jsonl", Trace()
    with path.open("wb") as file:
        file.write(trace.line(0, "run_started", tool_names=[]))
        file.write(b'{"schema":1,"x":"')
        for _ in range(100):
            file.write(b"x" * 1_000_000)
        file.write(b'"}\n')
        file.write(trace.end(500))
    out = io.StringIO()
    tracemalloc.start()
    try:
        assert show(path, out, width=80) == 1
        assert tracemalloc.get_traced_memory()[1] < 5 * MAX_LINE_BYTES
    finally:
        tracemalloc.stop()
    assert "end_turn, 500 ms" in out.getvalue()
    assert "1 line could not be read" in out.getvalue()


def test_the_longest_line_of_a_tracer_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    with JsonTracer(path, verbose=True) as tracer:
        run_chat(ScriptedModel("\U0001f600" * 2 * MAX_CHARS), ChatRequest("Hi"), middleware=[tracer]).collect()
    assert max(map(len, path.read_bytes().splitlines())) > 12 * MAX_CHARS - 10_000
    out = io.StringIO()
    assert show(path, out) == 1
    assert "could not be read" not in out.getvalue()


def test_a_call_that_waits_for_a_person_is_named(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    turn = [ToolCallStarted("c1", "pay"), ToolCallFinished("c1", "pay", {}), TurnFinished(FinishReason.TOOL_USE)]
    pay = Tool(ToolDefinition("pay", "Pays.", {"type": "object"}), lambda: "paid", approval=True)
    with JsonTracer(path) as tracer:
        run_chat(ScriptedModel(turn), "Pay.", [pay], [tracer]).collect()
    out = io.StringIO()
    assert show(path, out) == 1
    row = next(line for line in out.getvalue().splitlines() if "pay" in line)
    assert row.endswith("waits for a person")
