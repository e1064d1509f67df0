"""Server-sent events to JSON: the only module that imports sseclient.

    pieces of bytes -> batches of complete, clean events -> sseclient -> (event name, JSON value)

sseclient-py 1.9.0 parses the lines of an event correctly. It does not handle a byte order mark, mixed line ends and
invalid UTF-8, it has no size limit, and its time is quadratic in the length of an event and in its lines. So this
module splits the body into events and cleans them first. Blank lines, comments and other events without data are not
passed to sseclient: it takes a microsecond per line, and a server may send nothing else.
Format: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

import sseclient

from completion.contract.errors import BODY_LIMIT, MalformedStreamError, TransportError
from completion.events import DONE, MAX_EVENT_BYTES
from completion.events.json_decoder import best_decoder

if not hasattr(sseclient.SSEClient, "events"):
    raise ImportError(
        "the package 'sseclient' shadows 'sseclient-py', which has the same import name: "
        "run  pip uninstall sseclient sseclient-py && pip install sseclient-py"
    )

_BOM = b"\xef\xbb\xbf"
# How an event stream begins: with a field or a comment. A body that was cut may end inside the name of the field.
_FIELD = re.compile(rb"\s*(data|event|id|retry|:|d|da|dat|e|ev|eve|even|i|r|re|ret|retr)\s*(:|\n|\Z)|\s*:|\s*\Z")

_CR_TO_LF = bytes.maketrans(b"\r", b"\n")
_DATA_LINE = re.compile(rb"^data:([^\n]*)\n", re.MULTILINE)
_MORE_DATA = re.compile(rb"(?:(?:event|id|retry):[^\n]*\n)*data:")

# llama.cpp before September 2025 and some proxies send an error as a line of its own, without "data:".
_BARE_ERROR = re.compile(rb'^(?:error:|(?=\{ *"error".*\}$))', re.MULTILINE)

# sseclient takes quadratic time for an event of many lines, so such an event is shortened first. Usual events are below
# all of these limits and are passed on as they are.
# An event of more bytes may have many lines.
_SHORT_EVENT_BYTES = 8 * 1024
# From this number of lines on, only the name and the data lines are kept.
_MANY_LINES = 16
# From this number of data lines on, they become one line.
_MANY_DATA_LINES = 256


def sse_events(pieces: Iterable[bytes], max_event_bytes: int = MAX_EVENT_BYTES) -> Iterator[tuple[str, Any]]:
    """The name and the JSON value of each event, as soon as its last byte arrives.

    If the body ends inside an event, the event is yielded if its JSON is complete (only the blank line is missing),
    and skipped otherwise. The caller knows whether the turn was complete.

    Raises:
        MalformedStreamError: an event is not JSON or is larger than ``max_event_bytes``, or the body is not an event
            stream (``body`` is then its text).
    """
    batches = EventBatches(pieces, max_event_bytes)
    client = _Client(iter(batches))  # type: ignore[arg-type]
    client._logger = _SILENT
    decode = best_decoder()
    for event in client.events():
        batches.head = None
        data = event.data
        try:
            value = decode(data)
        except (ValueError, RecursionError) as exc:
            if data.strip() == "[DONE]":
                yield event.event, DONE
                return
            if batches.ends_inside_event or not data.strip():
                continue
            if event.event == "error":  # some proxies send its message as plain text
                yield event.event, data
                continue
            raise MalformedStreamError(
                f"an event of the stream is not JSON ({exc}): {data[:200]!r}", body=data
            ) from exc
        yield event.event, value
    if batches.head is not None and not _FIELD.match(batches.head):
        text = batches.head.decode("utf-8", "replace")
        raise MalformedStreamError(f"the body is not an event stream: {text[:200]!r}", body=text)


class _Client(sseclient.SSEClient):
    """Reads events that are already split. sseclient itself would search for the end of each event line by line."""

    _logger: logging.Logger
    _event_source: Iterator[list[bytes]]

    def _read(self) -> Iterator[bytes]:
        for events in self._event_source:
            yield from events


class _SilentLogger(logging.Logger):
    """Logs nothing. sseclient logs each event, and a server may echo the key in one."""

    def debug(self, *args: object, **options: object) -> None:
        pass


_SILENT = _SilentLogger(__name__)


class EventBatches:
    """Yields lists of complete, clean events: those that each piece of the body completes.

    ``head`` is the beginning of the body; the reader sets it to None after the first event. ``ends_inside_event``
    becomes True if the blank line after the last event is missing.
    """

    def __init__(self, pieces: Iterable[bytes], max_event_bytes: int) -> None:
        self.head: bytearray | None = bytearray()
        self.ends_inside_event = False
        self._pieces = pieces
        self._limit = max_event_bytes

    def __iter__(self) -> Iterator[list[bytes]]:
        held = bytearray()  # the beginning of an event whose end has not arrived
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
                piece, after_cr = _with_lf(piece, after_cr)
            if not held and piece.endswith(b"\n\n"):  # the usual case: complete events, nothing to copy
                if events := self._events_in(piece):
                    yield events
                continue
            searched = max(len(held) - 1, 0)
            held += piece
            end = held.rfind(b"\n\n", searched)
            if end >= 0:
                complete = bytes(held[: end + 2])
                del held[: end + 2]
                if events := self._events_in(complete):
                    yield events
            elif held.find(b"\ndata:", max(searched - len(b"\ndata:"), 0)) > 0:
                *parts, held = map(bytearray, _parted(held))
                if parts:
                    yield self._events_in(b"\n\n".join(parts) + b"\n\n")
            if len(held) > self._limit + 1:  # it may include the first of the two line ends after the event
                raise self._too_big()
        if held.strip():
            self.ends_inside_event = True
            yield self._events_in(bytes(held) + b"\n\n")
        if broken is not None:  # raised only now: the events before the fault come first
            try:
                raise broken
            finally:
                del broken  # its traceback refers to this frame: a reference cycle

    def _events_in(self, batch: bytes) -> list[bytes]:
        """The events in bytes that end with a blank line. Some events without data are left out."""
        # The fast path: one event with one data line. Nothing below would change it.
        if (
            batch.startswith(b"data:")
            and batch.count(b"\n") == 2
            and len(batch) <= min(self._limit, _SHORT_EVENT_BYTES)
            and batch.isascii()
        ):
            return [batch[:-2]]
        if b"error" in batch and (batch.startswith((b"{", b"error:")) or b"\n{" in batch or b"\nerror:" in batch):
            batch = _BARE_ERROR.sub(b"event: error\ndata: ", batch)
        if len(batch) > self._limit and any(len(event) > self._limit for event in batch.split(b"\n\n")):
            raise self._too_big()
        if not _has_data(batch):
            return []
        try:
            batch.decode()
        except UnicodeDecodeError:
            batch = batch.decode("utf-8", "replace").encode()
        events = batch[:-2].split(b"\n\n")
        data_lines = batch.count(b"\ndata") + batch.startswith(b"data")
        if data_lines > len(events):
            events = [bytes(part) for event in events for part in _parted(event)]
        # A usual event has up to four lines: name, id, data and a blank one.
        has_many_lines = batch.count(b"\n") > _MANY_LINES + 4 * data_lines
        if has_many_lines or (len(batch) > _SHORT_EVENT_BYTES and len(max(events, key=len)) > _SHORT_EVENT_BYTES):
            return [_shortened(event.strip(b"\n")) for event in events if _has_data(event)]
        return events

    def _too_big(self) -> MalformedStreamError:
        return MalformedStreamError(f"an event is larger than max_event_bytes={self._limit}")


def _with_lf(piece: bytes, after_cr: bool) -> tuple[bytes, bool]:
    """The piece with CRLF and CR as LF, and whether it ended in CR: a CRLF may be split between two pieces."""
    ends_in_cr = piece.endswith(b"\r") if piece else after_cr  # an empty piece changes nothing
    if after_cr and piece.startswith(b"\n"):
        piece = piece[1:]
    return piece.replace(b"\r\n", b"\n").translate(_CR_TO_LF), ends_in_cr


def _without_bom(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The pieces without a byte order mark at the start. It reads nothing before the caller does."""
    return chain(_first_bytes(pieces), pieces)


def _first_bytes(pieces: Iterator[bytes]) -> Iterator[bytes]:
    first = b""
    for piece in pieces:
        first += piece
        if len(first) >= len(_BOM) or not _BOM.startswith(first):
            break
    yield first.removeprefix(_BOM)


def _has_data(lines: bytes) -> bool:
    """Whether the lines may include an event: every event has a data line."""
    return lines.startswith(b"data") or b"\ndata" in lines


def _parted(event: bytes | bytearray) -> list[bytes | bytearray]:
    """The events in lines without a blank line between them: some servers part events by one line end.

    Only if the first data line is a JSON object, and more data lines follow: joined, they would not be JSON. One JSON
    value that is printed over several data lines stays one event.
    """
    parts: list[bytes | bytearray] = []
    begin = 0
    while (line := _DATA_LINE.search(event, begin)) and _MORE_DATA.match(event, line.end()):
        if not _is_object(line[1]):
            break
        parts.append(event[begin : line.end() - 1])
        begin = line.end()
    return [*parts, event[begin:]]


def _is_object(text: bytes) -> bool:
    try:
        return text.lstrip().startswith(b"{") and isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def _shortened(event: bytes) -> bytes:
    """An event of many lines with its name and its data lines only; many data lines become one.

    A space joins them: in JSON it means the same as a line end, and sseclient joins lines in quadratic time.
    """
    if event.count(b"\n") < _MANY_LINES:
        return event
    lines = event.split(b"\n")
    data = [line for line in lines if line.startswith(b"data")]
    if len(data) >= _MANY_DATA_LINES:
        data = [b"data: " + b" ".join([line[5:].removeprefix(b" ") for line in data if line.startswith(b"data:")])]
    names = [line for line in lines if line.startswith(b"event:")]
    return b"\n".join([*names[-1:], *data])
