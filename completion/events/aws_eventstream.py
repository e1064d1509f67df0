"""Amazon's event stream: each event is a binary frame with two checksums.

    | total length | length of headers | CRC of these two | headers | payload | CRC of all before it |
    |   4 bytes    |      4 bytes      |     4 bytes      |   ...   |   JSON  |       4 bytes        |

Format: https://smithy.io/2.0/aws/amazon-eventstream.html (read November 2026). All numbers are big endian.

This is our own decoder because botocore's makes an object for each header and copies its buffer at each frame: it takes
several times as long, and botocore would have to be installed also for those who use a bearer token.
"""

from __future__ import annotations

import binascii
import struct
from collections.abc import Callable, Iterable
from typing import Any, Final
from zlib import crc32

from completion.contract.errors import BODY_LIMIT, MalformedStreamError, TruncatedStreamError
from completion.events import MAX_EVENT_BYTES, Events
from completion.events.json_decoder import best_decoder

_PRELUDE: Final = struct.Struct(">III")
_CRC: Final = struct.Struct(">I")
_SHORT: Final = struct.Struct(">H")
_CRC_BYTES: Final = 4
_MIN_FRAME_BYTES: Final = _PRELUDE.size + _CRC_BYTES

MAX_HEADERS_BYTES: Final = 128 * 1024
"""The largest headers that the format allows."""

# The bytes of a value by the number of its type: true, false, byte, short, int, long, timestamp, uuid.
_FIXED_SIZES: Final = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}
_BYTES, _STRING = 6, 7  # their values begin with two bytes of length

# The same few headers come with every event, so each is parsed once. A hostile server could send others each time.
_MAX_PARSED_HEADERS: Final = 64

_MESSAGE_TYPES: Final = ("event", "exception", "error")


def aws_events(pieces: Iterable[bytes], max_event_bytes: int = MAX_EVENT_BYTES) -> Events:
    """The JSON value of each event, as soon as its frame is complete; its name is the ``:event-type``.

    An exception of the service has the name ``"error"`` and the value ``{"error": {"type": "throttlingException",
    "message": "…"}}``.

    Raises:
        MalformedStreamError: a checksum, a length or a header is wrong, a payload is not JSON, or a frame is larger
            than ``max_event_bytes``.
        TruncatedStreamError: the body ends within a frame.
    """
    decode = best_decoder()
    parsed: dict[bytes, tuple[str, str]] = {}
    held = bytearray()
    for piece in pieces:
        held += piece
        start = 0
        while len(held) - start >= _PRELUDE.size:
            total, headers_size, prelude_crc = _PRELUDE.unpack_from(held, start)
            if crc32(held[start : start + 8]) != prelude_crc:
                raise _malformed("the checksum of a frame's beginning is wrong", held[start:])
            _check_lengths(total, headers_size, max_event_bytes)
            if len(held) - start < total:
                break
            frame = bytes(held[start : start + total])
            start += total
            if crc32(frame[:-_CRC_BYTES]) != _CRC.unpack_from(frame, total - _CRC_BYTES)[0]:
                raise _malformed("the checksum of a frame is wrong")
            payload_at = _PRELUDE.size + headers_size
            headers = frame[_PRELUDE.size : payload_at]
            kind_and_name = parsed.get(headers)
            if kind_and_name is None:
                kind_and_name = _kind_and_name(headers)
                if len(parsed) < _MAX_PARSED_HEADERS:
                    parsed[headers] = kind_and_name
            kind, name = kind_and_name
            text = frame[payload_at:-_CRC_BYTES].decode("utf-8", "replace")
            if kind == "event":
                yield name, _value(text, decode) if text else {}
            else:
                yield "error", _error(name, text, headers, decode)
        del held[:start]
    if held:
        raise TruncatedStreamError("the body ended within a frame: the answer is not complete")


def with_checksums(body: bytes, changed: bytes) -> bytes:
    """``changed`` with right checksums: it is ``body`` with some bytes replaced. A frame that was wrong stays wrong."""
    result = bytearray(changed)
    start = 0
    while len(body) - start >= _MIN_FRAME_BYTES:
        end = start + _PRELUDE.unpack_from(body, start)[0] - _CRC_BYTES
        if not start + _PRELUDE.size <= end <= len(body) - _CRC_BYTES:
            break
        if crc32(body[start:end]) == _CRC.unpack_from(body, end)[0]:
            _CRC.pack_into(result, end, crc32(result[start:end]))
        start = end + _CRC_BYTES
    return bytes(result)


def aws_chunk_events(pieces: Iterable[bytes], max_event_bytes: int = MAX_EVENT_BYTES) -> Events:
    """The events of another format that Amazon passes on: ``{"bytes": "<base64 of the event's JSON>"}`` in each frame.

    The name of each is its ``type``. Events without ``bytes``, such as errors, are yielded as they are.

    Raises:
        MalformedStreamError, TruncatedStreamError: as in ``aws_events``, or ``bytes`` is not JSON in base64.
    """
    decode = best_decoder()
    for name, value in aws_events(pieces, max_event_bytes):
        encoded = value.get("bytes") if type(value) is dict else None
        if type(encoded) is not str:
            yield name, value
            continue
        try:
            text = binascii.a2b_base64(encoded).decode("utf-8", "replace")
        except ValueError as exc:
            raise MalformedStreamError(f"the bytes of an event are not base64 ({exc})") from exc
        event = _value(text, decode)
        kind = event.get("type") if type(event) is dict else None
        yield kind if type(kind) is str else name, event


def _check_lengths(total: int, headers_size: int, max_event_bytes: int) -> None:
    if total > max_event_bytes:
        raise MalformedStreamError(f"a frame is larger than max_event_bytes={max_event_bytes}")
    if total < _MIN_FRAME_BYTES or headers_size > min(total - _MIN_FRAME_BYTES, MAX_HEADERS_BYTES):
        raise _malformed(f"a frame of {total} bytes cannot have {headers_size} bytes of headers")


def _kind_and_name(headers: bytes) -> tuple[str, str]:
    """The ``:message-type`` of a frame, and the type of its event or exception."""
    found = _parsed_headers(headers)
    kind = found.get(":message-type")
    if kind not in _MESSAGE_TYPES:
        raise _malformed(f"a frame has the :message-type {str(kind)[:40]!r}")
    name = found.get({"event": ":event-type", "exception": ":exception-type", "error": ":error-code"}[kind])
    if not isinstance(name, str):
        raise _malformed(f"a frame of the :message-type {kind} does not say of which type it is")
    return kind, name


def _parsed_headers(headers: bytes) -> dict[str, str | None]:
    """Name and value of each header; None for a value that is not a string."""
    found: dict[str, str | None] = {}
    at = 0
    try:
        while at < len(headers):
            name_size = headers[at]
            at += 1
            name = _exactly(headers, at, name_size).decode()
            at += name_size
            kind = headers[at]
            at += 1
            if kind in (_BYTES, _STRING):
                (size,) = _SHORT.unpack_from(headers, at)
                at += _SHORT.size
            elif kind in _FIXED_SIZES:
                size = _FIXED_SIZES[kind]
            else:
                raise _malformed(f"a header has a value of the unknown type {kind}")
            value = _exactly(headers, at, size)
            at += size
            if name in found:
                raise _malformed("a header occurs twice in a frame")
            found[name] = value.decode() if kind == _STRING else None
    except (IndexError, struct.error, UnicodeDecodeError) as exc:
        raise _malformed(f"the headers of a frame are not valid ({exc})") from exc
    return found


def _exactly(data: bytes, at: int, size: int) -> bytes:
    found = data[at : at + size]
    if len(found) != size:
        raise IndexError("a value goes beyond their end")
    return found


def _error(name: str, text: str, headers: bytes, decode: Callable[[str], Any]) -> dict[str, Any]:
    """The value of an error event, in the shape that ``refusals`` reads."""
    # {"message": "Too many requests", "originalStatusCode": 429}
    try:
        payload = decode(text) if text.strip() else None
    except (ValueError, RecursionError):
        payload = text
    fields = payload if isinstance(payload, dict) else {"message": payload} if isinstance(payload, str) else {}
    if not fields:
        fields = {"message": _parsed_headers(headers).get(":error-message") or name}
    return {"error": {**fields, "type": name}}


def _value(text: str, decode: Callable[[str], Any]) -> Any:
    try:
        return decode(text)
    except (ValueError, RecursionError) as exc:
        raise MalformedStreamError(
            f"the payload of an event is not JSON ({exc}): {text[:200]!r}", body=text[:BODY_LIMIT]
        ) from exc


def _malformed(why: str, body: bytes | bytearray = b"") -> MalformedStreamError:
    """The error for bytes that are not frames of this format. ``body``: perhaps an error page instead of a stream."""
    text = bytes(body[:BODY_LIMIT]).decode("utf-8", "replace") if body else None
    return MalformedStreamError(f"{why}: the body is damaged, or is not an event stream of Amazon", body=text)
