"""A trace as a drawing in the terminal: what each run did, and how long it took.

    run_5f0c  openai gpt-5.6  2026-11-26 12:00:00.250 UTC
      end_turn, 1.90 s, 310 in, 52 out
      step 1        |..####              |   600 ms  tool_use, first 310 ms, 120 in, 30 out
        weather     |      #########     |   800 ms  ok, 17 chars
      step 2        |               .####|   500 ms  end_turn, first 120 ms, 190 in, 22 out

The light part of a bar is the wait for the first chunk. Each run is printed as a whole, even if its lines are mixed
with those of other runs.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, TextIO

from completion.terminal import one_line, showable, terminal_width
from completion.tracing.encoding import MAX_CHARS, SCHEMA

MIN_WIDTH, WIDTH_WITHOUT_TERMINAL = 40, 100
FOLLOW_S = 0.2
MAX_LINE_BYTES = 16 * MAX_CHARS  # a character takes at most 12 bytes as ASCII; the rest is for the other facts
_MAX_MS = 1e14  # the year 5138: a larger number is damaged, and may be too large for time.gmtime

_LABEL_WIDTH, _TIME_WIDTH = 22, 8
_BLOCKS, _ASCII = ("░", "█"), (".", "#")  # for waiting and working; ASCII if the output cannot encode blocks
_PLAIN, _BOLD, _RED = "\x1b[0m", "\x1b[1m", "\x1b[31m"

_Line = dict[str, Any]


def show(
    source: str | os.PathLike[str] | IO[bytes],
    out: TextIO,
    *,
    run: str | None = None,
    follow: bool = False,
    width: int | None = None,
    colour: bool | None = None,
) -> int:
    """Print the runs of a trace in the order of their start, and how many lines were unreadable. Returns the number of
    runs.

    Args:
        source: the path of a trace, or a file open for bytes.
        out: where to print.
        run: only print runs whose id starts with this.
        follow: wait for more lines, and print each run when it ends, until KeyboardInterrupt; then print the runs that
            have not ended.
        width: of the lines; None: the width of the terminal.
        colour: None: yes on a terminal, unless $NO_COLOR is set.

    Raises:
        OSError: the file cannot be read.
    """
    is_terminal = out.isatty()
    if width is None:
        width = terminal_width() if is_terminal else WIDTH_WITHOUT_TERMINAL
    if colour is None:
        colour = is_terminal and not os.environ.get("NO_COLOR")
    page = _Page(out, max(width, MIN_WIDTH), colour)
    trace = _Trace(run or "")
    if isinstance(source, str | os.PathLike):
        with Path(source).open("rb") as file:
            _read(trace, page, file, follow)
    else:
        _read(trace, page, source, follow)
    for one in trace.runs.values():
        page.draw(one)
    for note in trace.notes():
        page.line(note, _RED)
    return page.count


def _read(trace: _Trace, page: _Page, file: IO[bytes], follow: bool) -> None:
    try:
        for line in _lines(file, follow):
            ended = trace.add(line)
            if follow and ended is not None:
                page.draw(trace.runs.pop(ended.run_id))
    except KeyboardInterrupt:
        if not follow:
            raise


def _lines(file: IO[bytes], follow: bool) -> Iterator[bytes]:
    """The lines of the file. A line that is too long for a trace is replaced by text that is not JSON."""
    line = b""
    while True:
        # With ``follow``, the last line may still be growing: readline then returns its parts.
        part = file.readline(MAX_LINE_BYTES)
        line = line + part if len(line) < MAX_LINE_BYTES else line
        if line and (part.endswith(b"\n") or not (part or follow)):
            yield line if len(line) < MAX_LINE_BYTES else b"too long"
            line = b""
        elif not part:
            if not follow:
                return
            time.sleep(FOLLOW_S)


# --- from lines to runs ------------------------------------------------------------------------------------------


@dataclass
class _Bar:
    """One row. ``wait_ms``: the light part at its start. Without a length, it is a point in time."""

    label: str
    start_ms: float
    length_ms: float | None = None
    wait_ms: float = 0.0
    facts: list[str] = field(default_factory=list)
    is_bad: bool = False


@dataclass
class _Run:
    """What the lines of one run say."""

    run_id: str
    title: str
    start_ms: float
    end_ms: float
    bars: list[_Bar] = field(default_factory=list)
    calls: dict[tuple[str, str], _Bar] = field(default_factory=dict)
    step: _Bar | None = None
    length_ms: float | None = None
    ending: list[str] = field(default_factory=list)
    is_bad: bool = False
    missing: int = 0
    seq: int = 0


class _Trace:
    """Collects the lines of each run."""

    def __init__(self, prefix: str) -> None:
        self.runs: dict[str, _Run] = {}
        self._prefix = prefix
        self._unreadable = 0
        self._dropped = 0

    def add(self, raw: bytes) -> _Run | None:
        """Add one line; returns the run if the line ends it."""
        try:
            line = json.loads(raw)
            if line["schema"] != SCHEMA:
                raise ValueError("another version of the schema")
            return self._add(line)
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
            # A trace is a file that anything may have written: any value may be missing or of another type.
            self._unreadable += bool(raw.strip())
            return None

    def notes(self) -> Iterator[str]:
        if self._dropped:
            yield f"{_count(self._dropped, 'line')} could not be written to this trace"
        if self._unreadable:
            yield f"{_count(self._unreadable, 'line')} could not be read: truncated, or not from a trace"

    def _add(self, line: _Line) -> _Run | None:
        kind, run_id, now = line["kind"], line["run_id"], _ms(line["ts_ms"])
        if run_id is None:
            self._dropped += _number(line["lines"]) if kind == "dropped" else 0
            return None
        if not run_id.startswith(self._prefix):
            return None
        run = self.runs.get(run_id)
        if run is None:
            who = f"{line['provider']} {line['model']}"
            run = self.runs[run_id] = _Run(run_id, f"{run_id}  {who}  {_timestamp(now)}", now, now)
        run.end_ms = max(run.end_ms, now)
        seq = _number(line["seq"])
        run.missing += max(seq - run.seq - 1, 0)
        run.seq = max(run.seq, seq)
        if kind in _BY_KIND:  # newer versions may add kinds
            _BY_KIND[kind](run, line, now - run.start_ms)
        if kind not in ("run_finished", "run_failed", "run_dropped"):
            return None
        run.length_ms = _ms(line["duration_ms"])
        if run.step is not None and run.step.length_ms is None:  # its turn was interrupted
            run.step.length_ms, run.step.is_bad = run.length_ms - run.step.start_ms, True
        return run


def _request(run: _Run, line: _Line, now: float) -> None:
    run.step = _Bar(f"step {line['iteration']}", now)
    run.bars.append(run.step)


def _first_chunk(run: _Run, line: _Line, now: float) -> None:
    if run.step is not None:
        run.step.wait_ms = _ms(line["latency_ms"])
        run.step.facts.append(f"first {_shown_duration(run.step.wait_ms)}")


def _turn_finished(run: _Run, line: _Line, now: float) -> None:
    if run.step is not None:
        run.step.length_ms = _ms(line["duration_ms"])
        run.step.facts = [str(line["reason"]), *run.step.facts, *_tokens(line["usage"])]


def _retry(run: _Run, line: _Line, now: float) -> None:
    facts = [*_error(line), f"again in {_shown_duration(_ms(line['delay_ms']))}"]
    run.bars.append(_Bar(f"  retry {line['attempt']}/{line['max_attempts']}", now, facts=facts, is_bad=True))


def _malformed_call(run: _Run, line: _Line, now: float) -> None:
    bar = _call(run, line, now)
    bar.facts, bar.is_bad = ["malformed arguments"], True


def _finished_call(run: _Run, line: _Line, now: float) -> None:
    _call(run, line, now)


def _tool_started(run: _Run, line: _Line, now: float) -> None:
    _call(run, line, now).start_ms = now


def _tool_finished(run: _Run, line: _Line, now: float) -> None:
    bar = _call(run, line, now)
    if line["duration_ms"] is None:
        bar.facts.append("not run")
    else:
        bar.start_ms += _ms(line["waited_ms"])
        bar.length_ms = _ms(line["duration_ms"])
    bar.is_bad = bool(line["is_error"])
    bar.facts += ["error" if bar.is_bad else "ok", _count(line["chars"], "char")]


def _tool_result(run: _Run, line: _Line, now: float) -> None:
    bar = run.calls.get((line["step_id"], line["call_id"]))
    if bar is not None and not bar.facts:  # no tool_finished: other middleware aborted the run before
        bar.facts, bar.is_bad = ["error" if line["is_error"] else "ok"], bool(line["is_error"])


def _run_finished(run: _Run, line: _Line, now: float) -> None:
    content = (line.get("content") or {}).get("abort") or {}
    abort = [f"aborted: {line['abort']}", *([str(content["message"])] if content.get("message") else [])]
    for (_, call_id), bar in run.calls.items():
        if call_id in (line.get("pending") or ()) and not bar.facts:
            bar.facts = ["waits for a person"]
    run.ending = [*(abort if line["abort"] else [str(line["reason"])]), *_tokens(line["usage"])]
    run.is_bad = bool(line["abort"])


def _run_failed(run: _Run, line: _Line, now: float) -> None:
    error, *message = _error(line)
    run.ending, run.is_bad = [f"failed: {error}", *message, *_tokens(line["usage"])], True


def _run_dropped(run: _Run, line: _Line, now: float) -> None:
    run.ending, run.is_bad = ["dropped by its reader", *_tokens(line["usage"])], True


_BY_KIND = {
    "request": _request,
    "first_chunk": _first_chunk,
    "turn_finished": _turn_finished,
    "retry": _retry,
    "tool_call_malformed": _malformed_call,
    "tool_call_finished": _finished_call,
    "tool_started": _tool_started,
    "tool_finished": _tool_finished,
    "tool_result": _tool_result,
    "run_finished": _run_finished,
    "run_failed": _run_failed,
    "run_dropped": _run_dropped,
}


def _call(run: _Run, line: _Line, now: float) -> _Bar:
    """The row of a call. Its key includes the step: a later step may use the same call id."""
    key = line["step_id"], line["call_id"]
    if key not in run.calls:
        run.calls[key] = _Bar(f"  {line['name']}", now)
        run.bars.append(run.calls[key])
    return run.calls[key]


def _error(line: _Line) -> list[str]:
    """The class of an error with its status and code; and its message, if the line has it."""
    words = [str(line["error"]), *(str(line[name]) for name in ("status", "code") if line.get(name) is not None)]
    message = (line.get("content") or {}).get("message")
    return [" ".join(words), *([str(message)] if message else [])]


def _tokens(usage: _Line | None) -> list[str]:
    return [f"{usage['input_tokens']} in", f"{usage['output_tokens']} out"] if usage else []


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _ms(value: Any) -> float:
    """A time of a line. Raises ValueError for a number that is not a time."""
    if not 0 <= value < _MAX_MS:  # false for NaN and infinity too
        raise ValueError(f"{value!r} is not a time")
    return float(value)


def _number(value: Any) -> int:
    return int(_ms(value))  # the same limit: Python refuses to print an int of more than 4300 digits


def _shown_duration(ms: float) -> str:
    if ms < 1000:
        return f"{ms:.0f} ms" if ms >= 10 else f"{ms:.1f} ms"
    return f"{ms / 1000:.2f} s" if ms < 100_000 else f"{ms / 1000:.0f} s"


def _timestamp(ms: float) -> str:
    second, rest = divmod(int(ms), 1000)
    return f"{time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime(second))}.{rest:03d} UTC"


# --- from runs to rows -------------------------------------------------------------------------------------------


class _Page:
    """Prints rows of a label, a bar, a time and facts, truncated to the width."""

    def __init__(self, out: TextIO, width: int, has_colour: bool) -> None:
        self.count = 0
        self._out = out
        self._width = width
        self._has_colour = has_colour
        self._bar_width = max(min((width - _LABEL_WIDTH - _TIME_WIDTH) // 3, 40), 8)
        self._wait, self._work = _BLOCKS if _can_encode(out, "".join(_BLOCKS)) else _ASCII

    def draw(self, run: _Run) -> None:
        if self.count:
            self.line("")
        self.count += 1
        length = run.length_ms if run.length_ms is not None else run.end_ms - run.start_ms
        self.line(run.title, _BOLD)
        end, *facts = run.ending or ["no end in this trace"]
        summary = ", ".join([end, _shown_duration(length), *facts])
        self.line(f"  {summary}", _RED if run.is_bad or not run.ending else "")
        for bar in run.bars:
            self._row(bar, max(length, 1.0))
        if run.missing:
            self.line(f"  {_count(run.missing, 'line')} of this run missing", _RED)

    def line(self, text: str, code: str = "") -> None:
        text = showable(one_line(text), self._out)
        self._out.write(f"{code}{text}{_PLAIN}\n" if self._has_colour and code else f"{text}\n")
        self._out.flush()

    def _row(self, bar: _Bar, whole: float) -> None:
        label = _cut(one_line(f"  {bar.label}"), _LABEL_WIDTH - 1).ljust(_LABEL_WIDTH - 1)
        took = "" if bar.length_ms is None else _shown_duration(bar.length_ms)
        row = f"{label} |{self._cells(bar, whole)}| {took:>{_TIME_WIDTH}}  {', '.join(bar.facts)}"
        self.line(_cut(one_line(row), self._width).rstrip(), _RED if bar.is_bad else "")

    def _cells(self, bar: _Bar, whole: float) -> str:
        def column(ms: float) -> int:
            return min(max(round(ms / whole * self._bar_width), 0), self._bar_width)

        start = min(column(bar.start_ms), self._bar_width - 1)
        if bar.length_ms is None:
            return f"{' ' * start}{'!' if bar.is_bad else '?'}".ljust(self._bar_width)
        end = max(column(bar.start_ms + bar.length_ms), start + 1)
        first = min(max(column(bar.start_ms + bar.wait_ms), start), end - 1)
        return f"{' ' * start}{self._wait * (first - start)}{self._work * (end - first)}".ljust(self._bar_width)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 3]}..."


def _can_encode(out: TextIO, text: str) -> bool:
    try:
        text.encode(getattr(out, "encoding", None) or "utf-8")
    except (LookupError, UnicodeEncodeError):
        return False
    return True
