"""Frames of Amazon's event stream."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any
from zlib import crc32

CONTENT_TYPE = {"Content-Type": "application/vnd.amazon.eventstream"}


def header(name: str, value: str) -> bytes:
    return bytes([len(name)]) + name.encode() + b"\x07" + struct.pack(">H", len(value.encode())) + value.encode()


def framed(headers: bytes, payload: bytes = b"") -> bytes:
    prelude = struct.pack(">II", 16 + len(headers) + len(payload), len(headers))
    message = prelude + struct.pack(">I", crc32(prelude)) + headers + payload
    return message + struct.pack(">I", crc32(message))


def frame(name: str, data: Any, kind: str = "event") -> bytes:
    """The frame of an event or an exception."""
    headers = header(f":{kind}-type", name) + header(":content-type", "application/json")
    payload = data if isinstance(data, bytes) else json.dumps(data).encode()
    return framed(headers + header(":message-type", kind), payload)


def delta(index: int, **fields: Any) -> bytes:
    return frame("contentBlockDelta", {"contentBlockIndex": index, "delta": fields, "p": "abcdefgh"})


def stop(index: int) -> bytes:
    return frame("contentBlockStop", {"contentBlockIndex": index, "p": "abc"})


def chunk(value: Any) -> bytes:
    """The frame of an event of another format, as InvokeModelWithResponseStream sends it."""
    return frame("chunk", {"bytes": base64.b64encode(json.dumps(value).encode()).decode(), "p": "abc"})


STARTED = frame("messageStart", {"role": "assistant", "p": "abcd"})
USAGE = frame("metadata", {"usage": {"inputTokens": 3, "outputTokens": 1, "totalTokens": 4}, "metrics": {}})


def ended(reason: str = "end_turn", **fields: Any) -> bytes:
    return frame("messageStop", {"stopReason": reason, **fields})


def event(data: Any, name: str | None = None) -> bytes:
    """What `completion.testing.event` is for server-sent events: an error is the frame of an exception."""
    if isinstance(data, str):
        return frame(name or "contentBlockDelta", data.encode())
    return frame(data["error"].get("type", "validationException"), data["error"], "exception")


def replaced(body: bytes, old: bytes, new: bytes) -> bytes:
    """The frames with other bytes in their payloads, also inside of the events of another format."""
    frames = []
    while body:
        size, of_headers = struct.unpack(">II", body[:8])
        payload = body[12 + of_headers : size - 4]
        if payload.startswith(b'{"bytes"'):
            inner = json.loads(payload)
            event = base64.b64decode(inner["bytes"]).replace(old, new)
            payload = json.dumps({**inner, "bytes": base64.b64encode(event).decode()}).encode()
        frames.append(framed(body[12 : 12 + of_headers], payload.replace(old, new)))
        body = body[size:]
    return b"".join(frames)
