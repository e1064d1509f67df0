"""Newline-delimited JSON: each line of the body is one event.

    {"message": {"content": "Hi"}, "done": false}\n{"message": {"content": ""}, "done": true}\n

Format: https://github.com/ndjson/ndjson-spec (read November 2026). A line may end in CRLF, and blank lines are skipped.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from completion.contract.errors import BODY_LIMIT, MalformedStreamError
from completion.events import MAX_EVENT_BYTES, Events
from completion.events.json_decoder import best_decoder

_BOM: Final = b"\xef\xbb\xbf"
_BLANK_LINES: Final = re.compile(rb"\n[ \t\r\n]*\n")
_SHORT_LINE_BYTES: Final = 8


def ndjson_events(pieces: Iterable[bytes], max_event_bytes: int = MAX_EVENT_BYTES) -> Events:
    """The JSON value of each line, as soon as the line ends; its name is always ``"message"``.

    If the last line has no line end, it is yielded if its JSON is complete, and skipped otherwise: the body was cut
    there. The caller knows whether the turn was complete.

    Raises:
        MalformedStreamError: a line is not JSON, or is longer than ``max_event_bytes``.
    """
    decode = best_decoder()
    held = bytearray()  # the beginning of a line whose end has not arrived
    is_first = True
    for piece in pieces:
        searched = len(held)
        held += piece
        end = held.rfind(b"\n", searched)
        if end >= 0:
            complete = bytes(held[: end + 1])
            del held[: end + 1]
            for line in _lines(complete):
                if len(line) > max_event_bytes:
                    raise _too_large(max_event_bytes)
                if is_first:
                    line = line.removeprefix(_BOM)
                if line := line.strip():
                    is_first = False
                    yield "message", _value(line, decode)
        if len(held) > max_event_bytes:
            raise _too_large(max_event_bytes)
    line = bytes(held).removeprefix(_BOM if is_first else b"").strip()
    if line:
        try:
            value = _value(line, decode)
        except MalformedStreamError:
            if is_first and not line.startswith(b"{"):
                raise  # not the beginning of an event: the whole body is something else
            return
        yield "message", value


def _lines(complete: bytes) -> Iterator[bytes]:
    """The lines of bytes that end with a line end."""
    # A server may send nothing but blank lines. To remove them one by one would take ten times as long.
    if complete.count(b"\n") * _SHORT_LINE_BYTES > len(complete):  # the lines are short on average
        complete = _BLANK_LINES.sub(b"\n", complete)
    return iter(complete.split(b"\n"))


def _value(line: bytes, decode: Callable[[str], Any]) -> object:
    text = line.decode("utf-8", "replace")
    try:
        return decode(text)
    except (ValueError, RecursionError) as exc:
        raise MalformedStreamError(
            f"a line of the stream is not JSON ({exc}): {text[:200]!r}", body=text[:BODY_LIMIT]
        ) from exc


def _too_large(limit: int) -> MalformedStreamError:
    return MalformedStreamError(f"a line is larger than max_event_bytes={limit}")
