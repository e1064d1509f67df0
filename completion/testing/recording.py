"""Records the answers of a provider, with their exact bytes and arrival times, and replays them without a network."""

from __future__ import annotations

import difflib
import json
import math
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Literal

from completion.contract.errors import ConfigurationError
from completion.testing.recording_file import (
    RecordedRequest,
    check_is_file,
    check_writable,
    parsed,
    read,
    recorded_from,
    write,
)
from completion.testing.scrubbing import Scrubber, collapsed
from completion.transport import Session
from completion.transport.recorder import Traffic, recording_session
from completion.transport.replayer import Script, replaying_session

Mode = Literal["auto", "record", "replay"]
Part = Literal["method", "url", "body"]

_PARTS: Final = ("method", "url", "body")
_MAX_LINES: Final = 40
_MAX_COLUMNS: Final = 200
_MAX_COMPARED: Final = 20


@contextmanager
def recorded(
    path: str | os.PathLike[str],
    mode: Mode = "auto",
    speed: float = 0.0,
    match: Sequence[Part] = ("method", "url", "body"),
) -> Iterator[Session]:
    """A ``requests.Session`` that records what a provider answers, or replays a recording without a network.

    Pass it as ``session=`` to any model. A replayed stream behaves as on the network, including ``cancel()``, early
    close, timeouts and broken connections. The file contains JSON lines. Keys, cookies and account headers are
    replaced, also where the provider repeats them. The file is written in one step when the block ends without an
    exception.

    Args:
        path: the file.
        mode: ``"record"`` sends the requests to the provider, and replaces the file. ``"replay"`` only reads the file.
            ``"auto"`` replays if the file exists, and records otherwise.
        speed: how fast a recording is replayed: 1.0 at the recorded speed, 2.0 twice as fast, 0 without any waiting.
        match: the parts of a request that must equal the recorded ones: ``"method"``, ``"url"``, ``"body"``. JSON
            bodies are compared as JSON. Identical requests get their answers in the recorded order.

    Raises:
        ConfigurationError: the file is missing or damaged; a damaged file is not overwritten. Later, a request raises
            it if it is not in the recording, or is sent more often than it was recorded. A stream raises it if it is
            read further than it was recorded.
        ValueError: an argument is not valid.
    """
    file = Path(path).absolute()  # the program may change the current folder
    _check(mode, speed, match)
    check_is_file(file)
    if mode == "replay" or (mode == "auto" and (file.exists() or file.is_symlink())):
        yield from _replayed(file, speed, match)
    else:
        yield from _recording(file)


def _check(mode: str, speed: float, match: Sequence[str]) -> None:
    if mode not in ("auto", "record", "replay"):
        raise ValueError(f'recorded: mode must be "auto", "record" or "replay", got {mode!r}')
    if isinstance(speed, bool) or not isinstance(speed, int | float) or not 0 <= speed < math.inf:
        raise ValueError(f"recorded: speed must be a number, 0 or more, got {speed!r}")
    if isinstance(match, str) or not match or not set(match) <= set(_PARTS):
        raise ValueError(f'recorded: match must be a list of "method", "url" and "body", not empty, got {match!r}')


def _recording(file: Path) -> Iterator[Session]:
    check_writable(file)
    recorder = _Recorder()
    session = recording_session(recorder.add, recorder.discard)
    try:
        yield session
        try:
            write(file, recorder.finish())
        except OSError as error:
            why = error.strerror or str(error)
            raise ConfigurationError(f"{file}: the recording cannot be written: {why}") from error
    finally:
        recorder.is_over = True
        session.close()


class _Recorder:
    """Collects the traffic of one block. Thread-safe."""

    def __init__(self) -> None:
        self.is_over = False
        self._traffic: list[Traffic] = []
        self._lock = threading.Lock()

    def add(self, traffic: Traffic) -> None:
        _refuse_if(self.is_over)
        with self._lock:
            self._traffic.append(traffic)

    def discard(self, traffic: Traffic) -> None:
        with self._lock:
            self._traffic.remove(traffic)

    def finish(self) -> list[RecordedRequest]:
        with self._lock:
            traffic = [one.snapshot() for one in self._traffic]
        scrubber = Scrubber()
        for one in traffic:
            scrubber.learn(one.headers, one.url)
        return [recorded_from(one, scrubber) for one in traffic]


def _refuse_if(is_over: bool) -> None:
    if is_over:
        raise ConfigurationError("recorded: the block has ended; send requests inside of it")


def _replayed(file: Path, speed: float, match: Sequence[Part]) -> Iterator[Session]:
    if not file.exists():
        raise ConfigurationError(f'{file}: there is no such recording; record it with mode="record"')
    replay = _Replay(file, read(file), match)
    session = replaying_session(replay.find, speed)
    try:
        yield session
    finally:
        replay.is_over = True
        session.close()


class _Replay:
    """Finds the recorded answer of each request. Thread-safe."""

    def __init__(self, file: Path, recorded: list[RecordedRequest], match: Sequence[Part]) -> None:
        self.is_over = False
        self._file = file
        self._match = match
        self._recorded = [(_facts(one.method, one.url, one.body), one) for one in recorded]
        self._is_served = [False] * len(recorded)
        # Of the whole block: a secret of one request was also replaced in the requests after it.
        self._scrubber = Scrubber()
        self._lock = threading.Lock()

    def find(self, traffic: Traffic) -> Script:
        """The next recorded answer of this request.

        Raises:
            ConfigurationError: there is none, or no more.
        """
        _refuse_if(self.is_over)
        with self._lock:
            self._scrubber.learn(traffic.headers, traffic.url)
            url, body = self._scrubber.scrub_url(traffic.url), self._scrubber.scrub(traffic.body)
        sent = _facts(traffic.method, url, body)
        with self._lock:
            same = [number for number, (facts, _) in enumerate(self._recorded) if self._is_same(facts, sent)]
            number = next((number for number in same if not self._is_served[number]), None)
            if number is not None:
                self._is_served[number] = True
                return self._recorded[number][1].script(str(self._file))
            served = list(self._is_served)
        message = self._too_often(sent, len(same)) if same else self._difference(sent, served)
        raise ConfigurationError(message)

    def _is_same(self, one: dict[str, Any], other: dict[str, Any]) -> bool:
        return all(one[part] == other[part] for part in self._match)

    def _too_often(self, sent: dict[str, Any], count: int) -> str:
        times = "once" if count == 1 else f"{count} times"
        return (
            f"{self._file}: {sent['method']} {sent['url']} was recorded {times} and is now sent once more; record it"
            ' again with mode="record"'
        )

    def _difference(self, sent: dict[str, Any], served: list[bool]) -> str:
        what = f"{self._file}: {sent['method']} {sent['url']} is not in the recording"
        again = 'record it again with mode="record"'
        if not self._recorded:
            return f"{what}, which has no requests; {again}"
        # First compare with the requests that were not served yet, in their order.
        order = sorted(range(len(served)), key=lambda number: (served[number], number))[:_MAX_COMPARED]
        differences = [(self._lines(self._recorded[number][0], sent), number) for number in order]
        lines, number = min(differences, key=lambda difference: len(difference[0]))
        shown = [line if len(line) <= _MAX_COLUMNS else line[:_MAX_COLUMNS] + "…" for line in lines[:_MAX_LINES]]
        if len(lines) > _MAX_LINES:
            shown.append(f"… and {len(lines) - _MAX_LINES} more lines")
        return "\n".join([f"{what}; {again}. The nearest is request {number + 1} (- recorded, + sent now):", *shown])

    def _lines(self, recorded: dict[str, Any], sent: dict[str, Any]) -> list[str]:
        before, now = ([line for part in self._match for line in _shown(facts[part])] for facts in (recorded, sent))
        return [line for line in difflib.unified_diff(before, now, n=1, lineterm="") if line[:3] not in ("---", "+++")]


def _facts(method: str, url: str, body: bytes) -> dict[str, Any]:
    """The parts of a request that are compared."""
    text = collapsed(body.decode("utf-8", "surrogateescape"))
    value = parsed(text.encode("utf-8", "surrogateescape"))
    return {"method": method, "url": collapsed(url), "body": value}


def _shown(value: Any) -> list[str]:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace").splitlines()
    if isinstance(value, str):
        return [value]
    return json.dumps(value, ensure_ascii=False, indent=2).splitlines()
