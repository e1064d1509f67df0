"""``completion trace`` on damaged and hostile files: it shows the readable lines, and never a traceback."""

from __future__ import annotations

import copy
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from completion.terminal import harmless
from completion.tracing.timeline import show
from tests.tracing.test_timeline import ERROR, START_MS, Trace, run_with_tools, shown

HOSTILE = "\x1b[2J\u202e\u2028\r\nx"


def real_lines() -> list[bytes]:
    """A line of each kind that the timeline uses."""
    run, failed = run_with_tools(), Trace("run_b")
    no_run = {"run_id": None, "step_id": None, "seq": None, "provider": None, "model": None}
    dropped = {"schema": 1, "ts": "", "ts_ms": START_MS, "kind": "dropped", **no_run, "lines": 3}
    return [
        *run,
        failed.line(0, "request", 1, iteration=1),
        failed.line(1, "retry", 1, attempt=1, max_attempts=2, delay_ms=5.0, **ERROR, content={"message": "slow"}),
        failed.line(2, "tool_call_malformed", 1, call_id="c", name="broken"),
        failed.line(3, "tool_call_finished", 1, call_id="d", name="fine"),
        failed.line(4, "tool_result", 1, call_id="d", is_error=True),
        failed.end(5, "run_failed", **ERROR, content={"message": "no"}),
        Trace("run_c").end(6, reason="aborted", abort="middleware", content={"abort": {"message": "enough"}}),
        Trace("run_d").end(7, "run_dropped"),
        json.dumps(dropped).encode() + b"\n",
    ]


LINES = real_lines()


def paths(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if path:
        yield path
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from paths(inner, (*path, key))


# JSON text and not values, because json.dumps cannot write some of it.
ODD = st.one_of(
    st.sampled_from(
        ["NaN", "Infinity", "-1", "1e400", "1" * 4300, "9" * 5000, "[" * 400 + "]" * 400, "[" * 5000, '"\\ud800"', "{}",
         "[]", "null", "true", '""', "0", "0.1", '{"a": [1]}', json.dumps(HOSTILE), "99999999999999",
         json.dumps("x" * 9999)]
    ),
    st.text(max_size=8).map(json.dumps),
    st.floats().map(json.dumps),
    st.integers().map(str),
)  # fmt: skip


@st.composite
def odd_lines(draw: st.DrawFn) -> bytes:
    """A real line with a changed or missing value, or with changed bytes."""
    line = draw(st.sampled_from(LINES))
    match draw(st.integers(0, 3)):
        case 0:
            at = draw(st.integers(0, len(line)))
            return line[:at] + draw(st.binary(max_size=4)) + line[at + draw(st.integers(0, 3)) :]
        case 1:
            return draw(st.binary(max_size=40)) + b"\n"
    value = copy.deepcopy(json.loads(line))
    *way, last = draw(st.sampled_from(list(paths(value))))
    place = value
    for key in way:
        place = place[key]
    if draw(st.booleans()):
        del place[last]
        return json.dumps(value).encode() + b"\n"
    place[last] = "\ufffc"
    return json.dumps(value, ensure_ascii=False).replace('"\ufffc"', draw(ODD)).encode() + b"\n"


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(odd_lines(), min_size=1, max_size=4), st.lists(st.sampled_from(LINES), max_size=4), st.booleans())
def test_any_file_is_shown_without_an_error(odd: list[bytes], real: list[bytes], is_first: bool) -> None:
    lines = [*odd, *real] if is_first else [*real, *odd]
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii", newline="\n")
    count = show(io.BytesIO(b"".join(lines)), out, width=60)
    out.seek(0)
    text = out.read()
    assert text or not count
    assert harmless(text) == text


def test_numbers_too_large_to_print_are_skipped() -> None:
    dropped = LINES[-1].replace(b'"lines": 3', b'"lines": ' + b"9" * 4300)
    assert shown([dropped, dropped, LINES[-1]]).splitlines() == [
        "3 lines could not be written to this trace",
        "2 lines could not be read: truncated, or not from a trace",
    ]


def test_texts_of_the_file_do_not_control_the_terminal_or_start_lines() -> None:
    run = Trace(f"run_{HOSTILE}")
    lines = [
        *run.turn(0, 1, first=1, length=2, reason=HOSTILE),
        *run.call(0, HOSTILE, 1),
        run.end(3, "run_failed", **{**ERROR, "code": HOSTILE}, content={"message": HOSTILE}),
    ]
    text = shown(lines)
    assert len(text.splitlines()) == 4
    assert harmless(text) == text


def test_characters_that_the_output_cannot_encode_are_replaced() -> None:
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii", newline="\n")
    show(io.BytesIO(b"".join([*Trace("run_é\ud83d").call(0, "você", 1)])), out, width=80)
    out.seek(0)
    first, *_ = out.read().splitlines()
    assert first.startswith("run_??  openai")


# --- the command -------------------------------------------------------------------------------------------------


def trace(path: Path | str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-m", "completion", "trace", str(path)]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30)


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\0" * 100, b"\xff\xfe\x00", b"[]", "é".encode("utf-16")])
def test_a_file_without_a_run_says_so(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "trace").write_bytes(content)
    done = trace(tmp_path / "trace")
    assert (done.returncode, done.stderr) == (0, "completion: the trace contains no run\n")


@pytest.mark.parametrize("path", [os.devnull, "-"])
def test_a_device_without_a_line_has_no_run(path: str) -> None:
    done = trace(path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "completion: the trace contains no run\n")


def test_a_folder_and_a_missing_file_are_wrong_usage(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing"):
        done = trace(path)
        assert done.returncode == 2
        assert "cannot be read" in done.stderr
        assert "Traceback" not in done.stderr
