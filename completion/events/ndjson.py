"""Newline-delimited JSON: each line of the body is one event.

    {"message": {"content": "Hi"}, "done": false}\n{"message": {"content": ""}, "done": true}\n

Format: https://github.com/ndjson/ndjson-spec (read November 2026). A line may end in CRLF, and blank lines are skipped.
"""

from __future__ import annotations

from collections.abc import Iterable

from completion.contract.errors import BODY_LIMIT, MalformedStreamError
from completion.events import MAX_EVENT_BYTES, Events
from completion.events.json_decoder import decode


def ndjson_events(pieces: Iterable[bytes], max_event_bytes: int = MAX_EVENT_BYTES) -> Events:
    """The JSON value of each line, as soon as the line ends; its name is always ``"message"``.

    A last line without a line end is delivered when its JSON is whole, and dropped otherwise: the body was cut off
    there, and the reader of the turn knows whether the turn was over.

    Raises:
        MalformedStreamError: a line that is not JSON, or longer than ``max_event_bytes``.
    """
    held = bytearray()  # the beginning of a line whose end has not arrived
    is_first = True
    for piece in pieces:
        searched = len(held)
        held += piece
        end = held.rfind(b"\n", searched)
        if end >= 0:
            lines = bytes(held[: end + 1]).split(b"\n")
            del held[: end + 1]
            for line in lines:
                if len(line) > max_event_bytes:
                    raise _too_large(max_event_bytes)
                if is_first:
                    line = line.removeprefix(b"\xef\xbb\xbf")
                if line := line.strip():
                    is_first = False
                    yield "message", _value(line)
        if len(held) > max_event_bytes:
            raise _too_large(max_event_bytes)
    if line := bytes(held).strip():
        try:
            value = _value(line)
        except MalformedStreamError:
            if is_first:
                raise  # not a cut line: the whole body is something else
            return
        yield "message", value


def _value(line: bytes) -> object:
    text = line.decode("utf-8", "replace")
    try:
        return decode(text)
    except (ValueError, RecursionError) as exc:
        raise MalformedStreamError(
            f"a line of the stream is not JSON ({exc}): {text[:200]!r}", body=text[:BODY_LIMIT]
        ) from exc


def _too_large(limit: int) -> MalformedStreamError:
    return MalformedStreamError(f"a line is larger than max_event_bytes={limit}")
