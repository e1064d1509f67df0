"""A trace as a picture in the terminal: what each run did, and how long it took.

    run_5f0c  openai gpt-4o-mini  2026-11-26 12:00:00.250 UTC
      end_turn, 1.90 s, 310 in, 52 out
      step 1        |..####              |   600 ms  tool_use, first 310 ms, 120 in, 30 out
        weather     |      #########     |   800 ms  ok, 17 chars
      step 2        |               .####|   500 ms  end_turn, first 120 ms, 190 in, 22 out

The light part of a bar is the wait for the first chunk. Runs stand one after the other, also where their lines do not.
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

SCHEMA = 1
NARROWEST, WITHOUT_TERMINAL = 40, 100
FOLLOW_S = 0.2
MAX_LINE_BYTES = 16 * 1024 * 1024  # twelve for each of the characters that a line may hold, and room for the rest
_LAST_MS = 1e14

_LABEL, _TIME = 22, 8
_WAIT, _WORK = ("░", "█"), (".", "#")  # where the output can show them, and where not
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
    """Print the runs of a trace, in the order in which they began, and what could not be read; returns how many runs.

    Args:
        source: the path of a trace, or a file open for bytes.
        out: where to print.
        run: only runs whose id begins like this.
        follow: wait for more lines, and print each run when it has ended, until KeyboardInterrupt; then those that
            have not.
        width: of the lines; None is that of the terminal.
        colour: None is yes on a terminal, unless $NO_COLOR is set.

    Raises:
        OSError: the file cannot be read.
    """
    is_terminal = out.isatty()
    if width is None:
        width = terminal_width() if is_terminal else WITHOUT_TERMINAL
    if colour is None:
        colour = is_terminal and not os.environ.get("NO_COLOR")
    page = _Page(out, max(width, NARROWEST), colour)
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
    """The lines of the file, and of one that is too long to be of a trace a part that is none."""
    begun = b""
    while True:
        read = file.readline(MAX_LINE_BYTES)
        begun = begun + read if len(begun) < MAX_LINE_BYTES else begun
        if begun and (read.endswith(b"\n") or not (read or follow)):
            yield begun if len(begun) < MAX_LINE_BYTES else b"too long"
            begun = b""
        elif not read:
            if not follow:
                return
            time.sleep(FOLLOW_S)


# --- what a trace says -------------------------------------------------------------------------------------------


@dataclass
class _Bar:
    """One row. For its first ``wait_ms`` nothing came; without a length it is a moment."""

    label: str
    start_ms: float
    length_ms: float | None = None
    wait_ms: float = 0.0
    facts: list[str] = field(default_factory=list)
    is_bad: bool = False


@dataclass
class _Run:
    """What the lines of one run add up to."""

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
    """Lines, taken apart by run."""

    def __init__(self, prefix: str) -> None:
        self.runs: dict[str, _Run] = {}
        self._prefix = prefix
        self._unreadable = 0
        self._dropped = 0

    def add(self, raw: bytes) -> _Run | None:
        """Take in one line; gives the run that it ends."""
        try:
            line = json.loads(raw)
            if line["schema"] != SCHEMA:
                raise ValueError("a schema of another version")
            return self._taken(line)
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
            self._unreadable += bool(raw.strip())
            return None

    def notes(self) -> Iterator[str]:
        if self._dropped:
            yield f"{_count(self._dropped, 'line')} could not be written when this was traced"
        if self._unreadable:
            yield f"{_count(self._unreadable, 'line')} could not be read: cut off, or not of a trace"

    def _taken(self, line: _Line) -> _Run | None:
        kind, run_id, now = line["kind"], line["run_id"], _ms(line["ts_ms"])
        if run_id is None:
            self._dropped += _number(line["lines"]) if kind == "dropped" else 0
            return None
        if not run_id.startswith(self._prefix):
            return None
        run = self.runs.get(run_id)
        if run is None:
            who = f"{line['provider']} {line['model']}"
            run = self.runs[run_id] = _Run(run_id, f"{run_id}  {who}  {_moment(now)}", now, now)
        run.end_ms = max(run.end_ms, now)
        seq = _number(line["seq"])
        run.missing += max(seq - run.seq - 1, 0)
        run.seq = max(run.seq, seq)
        if kind in _TAKEN:
            _TAKEN[kind](run, line, now - run.start_ms)
        if kind not in ("run_finished", "run_failed", "run_dropped"):
            return None
        run.length_ms = _ms(line["duration_ms"])
        if run.step is not None and run.step.length_ms is None:  # its turn was broken off
            run.step.length_ms, run.step.is_bad = run.length_ms - run.step.start_ms, True
        return run


def _request(run: _Run, line: _Line, now: float) -> None:
    run.step = _Bar(f"step {line['iteration']}", now)
    run.bars.append(run.step)


def _first_chunk(run: _Run, line: _Line, now: float) -> None:
    if run.step is not None:
        run.step.wait_ms = _ms(line["latency_ms"])
        run.step.facts.append(f"first {_seconds(run.step.wait_ms)}")


def _turn_finished(run: _Run, line: _Line, now: float) -> None:
    if run.step is not None:
        run.step.length_ms = _ms(line["duration_ms"])
        run.step.facts = [str(line["reason"]), *run.step.facts, *_tokens(line["usage"])]


def _retry(run: _Run, line: _Line, now: float) -> None:
    facts = [*_fault(line), f"again in {_seconds(_ms(line['delay_ms']))}"]
    run.bars.append(_Bar(f"  retry {line['attempt']}/{line['max_attempts']}", now, facts=facts, is_bad=True))


def _malformed(run: _Run, line: _Line, now: float) -> None:
    bar = _call(run, line, now)
    bar.facts, bar.is_bad = ["malformed arguments"], True


def _called(run: _Run, line: _Line, now: float) -> None:
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
    if bar is not None and not bar.facts:  # without a tool_finished: other middleware ended the run
        bar.facts, bar.is_bad = ["error" if line["is_error"] else "ok"], bool(line["is_error"])


def _run_finished(run: _Run, line: _Line, now: float) -> None:
    said = (line.get("content") or {}).get("abort") or {}
    abort = [f"aborted: {line['abort']}", *([str(said["message"])] if said.get("message") else [])]
    run.ending = [*(abort if line["abort"] else [str(line["reason"])]), *_tokens(line["usage"])]
    run.is_bad = bool(line["abort"])


def _run_failed(run: _Run, line: _Line, now: float) -> None:
    run.ending, run.is_bad = ["failed:", *_fault(line), *_tokens(line["usage"])], True
    run.ending[:2] = [" ".join(run.ending[:2])]


def _run_dropped(run: _Run, line: _Line, now: float) -> None:
    run.ending, run.is_bad = ["dropped by its reader", *_tokens(line["usage"])], True


_TAKEN = {
    "request": _request,
    "first_chunk": _first_chunk,
    "turn_finished": _turn_finished,
    "retry": _retry,
    "tool_call_malformed": _malformed,
    "tool_call_finished": _called,
    "tool_started": _tool_started,
    "tool_finished": _tool_finished,
    "tool_result": _tool_result,
    "run_finished": _run_finished,
    "run_failed": _run_failed,
    "run_dropped": _run_dropped,
}


def _call(run: _Run, line: _Line, now: float) -> _Bar:
    """The row of a call, which belongs to its step: another one may use the same id."""
    key = line["step_id"], line["call_id"]
    if key not in run.calls:
        run.calls[key] = _Bar(f"  {line['name']}", now)
        run.bars.append(run.calls[key])
    return run.calls[key]


def _fault(line: _Line) -> list[str]:
    words = [str(line["error"]), *(str(line[name]) for name in ("status", "code") if line.get(name) is not None)]
    said = (line.get("content") or {}).get("message")
    return [" ".join(words), *([str(said)] if said else [])]


def _tokens(usage: _Line | None) -> list[str]:
    return [f"{usage['input_tokens']} in", f"{usage['output_tokens']} out"] if usage else []


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _ms(value: Any) -> float:
    if not 0 <= value < _LAST_MS:  # NaN and infinity are no times either
        raise ValueError(f"{value!r} is no time")
    return float(value)


def _number(value: Any) -> int:
    return int(_ms(value))  # bounded as a time is: an integer of more than 4300 digits cannot be printed


def _seconds(ms: float) -> str:
    if ms < 1000:
        return f"{ms:.0f} ms" if ms >= 10 else f"{ms:.1f} ms"
    return f"{ms / 1000:.2f} s" if ms < 100_000 else f"{ms / 1000:.0f} s"


def _moment(ms: float) -> str:
    second, rest = divmod(int(ms), 1000)
    return f"{time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime(second))}.{rest:03d} UTC"


# --- how it is drawn ---------------------------------------------------------------------------------------------


class _Page:
    """Rows of a label, a bar, a time and what came of it, cut to the width."""

    def __init__(self, out: TextIO, width: int, has_colour: bool) -> None:
        self.count = 0
        self._out = out
        self._width = width
        self._has_colour = has_colour
        self._bar = max(min((width - _LABEL - _TIME) // 3, 40), 8)
        self._wait, self._work = _WAIT if _can_show(out, "".join(_WAIT)) else _WORK

    def draw(self, run: _Run) -> None:
        if self.count:
            self.line("")
        self.count += 1
        length = run.length_ms if run.length_ms is not None else run.end_ms - run.start_ms
        self.line(run.title, _BOLD)
        end, *facts = run.ending or ["no end in this trace"]
        self.line("  " + ", ".join([end, _seconds(length), *facts]), _RED if run.is_bad or not run.ending else "")
        for bar in run.bars:
            self._row(bar, max(length, 1.0))
        if run.missing:
            self.line(f"  {_count(run.missing, 'line')} of this run missing", _RED)

    def line(self, text: str, code: str = "") -> None:
        text = showable(one_line(text), self._out)
        self._out.write(f"{code}{text}{_PLAIN}\n" if self._has_colour and code else f"{text}\n")
        self._out.flush()

    def _row(self, bar: _Bar, whole: float) -> None:
        label = _cut(one_line(f"  {bar.label}"), _LABEL - 1).ljust(_LABEL - 1)
        took = "" if bar.length_ms is None else _seconds(bar.length_ms)
        row = f"{label} |{self._drawn(bar, whole)}| {took:>{_TIME}}  {', '.join(bar.facts)}"
        self.line(_cut(one_line(row), self._width).rstrip(), _RED if bar.is_bad else "")

    def _drawn(self, bar: _Bar, whole: float) -> str:
        def cell(ms: float) -> int:
            return min(max(round(ms / whole * self._bar), 0), self._bar)

        start = min(cell(bar.start_ms), self._bar - 1)
        if bar.length_ms is None:
            return f"{' ' * start}{'!' if bar.is_bad else '?'}".ljust(self._bar)
        end = max(cell(bar.start_ms + bar.length_ms), start + 1)
        first = min(max(cell(bar.start_ms + bar.wait_ms), start), end - 1)
        return f"{' ' * start}{self._wait * (first - start)}{self._work * (end - first)}".ljust(self._bar)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 3]}..."


def _can_show(out: TextIO, text: str) -> bool:
    try:
        text.encode(getattr(out, "encoding", None) or "utf-8")
    except (LookupError, UnicodeEncodeError):
        return False
    return True
