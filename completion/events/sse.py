"""Server-sent events to JSON: the only door to sseclient.

    bytes off the wire -> whole events, clean -> sseclient -> (event name, JSON value)

sseclient-py reads events well and framing less so (measured on 1.9.0), so it is fed runs of whole events that were
cleaned before: no byte order mark, one kind of line end, valid UTF-8, no event over the size limit, none with
thousands of lines. Runs of blank lines, comments and other events without data never reach it: it takes a microsecond
for each line, and a server may send nothing else. Format: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

import sseclient

from completion.contract.errors import BODY_LIMIT, MalformedStreamError, TransportError
from completion.events import DONE, MAX_EVENT_BYTES
from completion.events.json_decoder import decode

if not hasattr(sseclient.SSEClient, "events"):
    raise ImportError(
        "the package 'sseclient' shadows 'sseclient-py', which has the same import name: "
        "run  pip uninstall sseclient sseclient-py && pip install sseclient-py"
    )

_BOM = b"\xef\xbb\xbf"
_FIELD = re.compile(rb"\s*(data|event|id|retry|:|d|da|dat|e|ev|eve|even|i|r|re|ret|retr)\s*(:|\n|\Z)|\s*:|\s*\Z")

_CR_TO_LF = bytes.maketrans(b"\r", b"\n")
_BLANK_LINES = re.compile(rb"\n{3,}")

# llama.cpp before September 2025 and some proxies: an error with no event of its own.
_BARE_ERROR = re.compile(rb'^(?:error:|(?=\{ *"error".*\}$))', re.MULTILINE)

# Above this many data lines sseclient's joining of them, which is quadratic, begins to cost.
_MANY_LINES = 256
# Above this many bytes an event is looked through: it may have many lines.
_LONG_EVENT = 8 * 1024
# Above this many lines an event is looked through for lines without data.
_FEW_LINES = 16


def sse_events(pieces: Iterable[bytes], max_event_bytes: int = MAX_EVENT_BYTES) -> Iterator[tuple[str, Any]]:
    """The name and the JSON value of each event, as soon as its last byte is there.

    An event that the end of the body cuts in half is delivered when its JSON is whole (only the blank line is
    missing), and discarded otherwise: whether the turn was over is for the caller to know.

    Raises:
        MalformedStreamError: bad JSON, an event over ``max_event_bytes``, or a body with no event in it that is
            not even the beginning of one (``body`` is then its text).
    """
    runs = _Runs(pieces, max_event_bytes)
    client = _Client(iter(runs))  # type: ignore[arg-type]
    client._logger = _SILENT
    for event in client.events():
        runs.head = None
        data = event.data
        try:
            value = decode(data)
        except (ValueError, RecursionError) as exc:
            if data.strip() == "[DONE]":
                yield event.event, DONE
                return
            if runs.cut_in_half or not data.strip():
                continue
            if event.event == "error":
                yield event.event, data
                continue
            raise MalformedStreamError(
                f"an event of the stream is not JSON ({exc}): {data[:200]!r}", body=data
            ) from exc
        yield event.event, value
    if runs.head is not None and not _FIELD.match(runs.head):
        text = runs.head.decode("utf-8", "replace")
        raise MalformedStreamError(f"the body is not an event stream: {text[:200]!r}", body=text)


class _Client(sseclient.SSEClient):
    """sseclient looks for the end of an event line by line. Here the events are split already."""

    _logger: logging.Logger
    _event_source: Iterator[list[bytes]]

    def _read(self) -> Iterator[bytes]:
        for events in self._event_source:
            yield from events


class _Silent(logging.Logger):
    """What sseclient reports is the body itself, event by event: it may hold anything, a key that was echoed too."""

    def debug(self, *args: object, **options: object) -> None:
        pass


_SILENT = _Silent(__name__)


class _Runs:
    """An iterable of lists of events, each of them whole and clean.

    ``head`` is the beginning of the body, kept until somebody sets it to None. ``cut_in_half`` becomes True when
    the last run is an event without its blank line.
    """

    def __init__(self, pieces: Iterable[bytes], max_event_bytes: int) -> None:
        self.head: bytearray | None = bytearray()
        self.cut_in_half = False
        self._pieces = pieces
        self._limit = max_event_bytes

    def __iter__(self) -> Iterator[list[bytes]]:
        held = bytearray()  # the beginning of an event whose end is not there yet
        after_cr = False
        broken: TransportError | None = None
        pieces = _without_bom(iter(self._pieces))
        while True:
            try:
                piece = next(pieces)
            except StopIteration:
                break
            except TransportError as exc:
                broken = exc
                break
            if self.head is not None and len(self.head) < BODY_LIMIT:
                self.head += piece[:BODY_LIMIT]
            if after_cr or b"\r" in piece:
                ends_in_cr = piece.endswith(b"\r") if piece else after_cr
                if after_cr and piece.startswith(b"\n"):
                    piece = piece[1:]
                after_cr = ends_in_cr
                piece = piece.replace(b"\r\n", b"\n").translate(_CR_TO_LF)
            if not held and piece.endswith(b"\n\n"):
                if events := self._events_in(piece):
                    yield events
                continue
            searched = max(len(held) - 1, 0)
            held += piece
            end = held.rfind(b"\n\n", searched)
            if end >= 0:
                whole = bytes(held[: end + 2])
                del held[: end + 2]
                if events := self._events_in(whole):
                    yield events
            if len(held) > self._limit + 1:  # one line end may stand there already
                raise self._too_big()
        if held.strip():
            self.cut_in_half = True
            yield self._events_in(bytes(held) + b"\n\n")
        if broken is not None:
            try:
                raise broken
            finally:
                del broken  # whose traceback holds this frame

    def _events_in(self, run: bytes) -> list[bytes]:
        """The events of bytes that end with one. Those without data may be left out."""
        if b"error" in run and (run.startswith((b"{", b"error:")) or b"\n{" in run or b"\nerror:" in run):
            run = _BARE_ERROR.sub(b"event: error\ndata: ", run)
        if len(run) > self._limit and any(len(event) > self._limit for event in run.split(b"\n\n")):
            raise self._too_big()
        if not _has_data(run):
            return []
        try:
            run.decode()
        except UnicodeDecodeError:
            run = run.decode("utf-8", "replace").encode()
        events = run[:-2].split(b"\n\n")
        has_many_blanks = run.count(b"\n") > _FEW_LINES + 4 * run.count(b"\ndata")
        if has_many_blanks or (len(run) > _LONG_EVENT and len(max(events, key=len)) > _LONG_EVENT):
            events = _BLANK_LINES.sub(b"\n\n", run).split(b"\n\n")
            return [_with_few_lines(event) for event in events if _has_data(event)]
        return events

    def _too_big(self) -> MalformedStreamError:
        return MalformedStreamError(f"an event is larger than max_event_bytes={self._limit}")


def _without_bom(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The pieces without a byte order mark at the very beginning. Does not read before it is read from."""
    return chain(_beginning(pieces), pieces)


def _beginning(pieces: Iterator[bytes]) -> Iterator[bytes]:
    begin = b""
    for piece in pieces:
        begin += piece
        if len(begin) >= len(_BOM) or not _BOM.startswith(begin):
            break
    yield begin.removeprefix(_BOM)


def _has_data(run: bytes) -> bool:
    """Whether an event may be in there: without a data line there is none."""
    return run.startswith(b"data") or b"\ndata" in run


def _with_few_lines(event: bytes) -> bytes:
    """The event's name and its data lines. Many of these are joined by a space: in JSON the same as a line end, and
    sseclient joins lines in quadratic time."""
    if event.count(b"\n") < _FEW_LINES:
        return event
    lines = event.split(b"\n")
    data = [line for line in lines if line.startswith(b"data")]
    if len(data) >= _MANY_LINES:
        data = [b"data: " + b" ".join([line[5:].removeprefix(b" ") for line in data if line.startswith(b"data:")])]
    names = [line for line in lines if line.startswith(b"event:")]
    return b"\n".join([*names[-1:], *data])
