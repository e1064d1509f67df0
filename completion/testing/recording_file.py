"""The file of a recording: JSON lines, for people to read and for version control.

    {"completion_recording": 1, "requests": 1}
    {"request": 1, "method": "POST", "url": "https://…/chat/completions", "json": {"model": "m", …}}
    {"response": 1, "at": 0.31, "status": 200, "headers": [["Content-Type", "text/event-stream"], …]}
    {"piece": 1, "at": 0.32, "text": "data: {…}\\n\\n"}
    {"end": 1, "at": 0.9, "how": "complete", "bytes": 1234}

``at`` is in seconds since the request. Bodies are stored without HTTP framing, and get it back in a replay. A response
without complete headers has the ``status`` null. A response with broken framing has ``"framing": "raw"``. In both cases
the pieces contain the bytes as they came from the socket.
"""

from __future__ import annotations

import base64
import binascii
import http.client
import json
import os
import re
import secrets
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, Final, NamedTuple

from completion.contract.errors import CompletionError, ConfigurationError
from completion.contract.files import can_write_into
from completion.events.aws_eventstream import with_checksums
from completion.testing.scrubbing import Scrubber
from completion.transport.encoding import Decoder
from completion.transport.recorder import Traffic
from completion.transport.replayer import Script

_FORMAT: Final = 1
_ENDS: Final = ("complete", "closed", "reset", "timeout", "error", "failed", "left")

_AWS_STREAM: Final = "application/vnd.amazon.eventstream"

_HEAD_END = re.compile(rb"\r?\n\r?\n")
_STATUS_LINE = re.compile(rb"HTTP/(\S+) (\d{3})(?: ([^\r\n]*))?\r?\n")
_MAX_INTERIM_RESPONSES: Final = 100
_DECODED_BYTES: Final = 64 * 1024

# As in completion.transport.chunked.
_SIZE_LINE = re.compile(rb"[ \t]*([0-9a-fA-F]{1,16})[ \t]*(?:;[^\n]*)?\r?\n")
_LINE_END = re.compile(rb"\r?\n")
_TRAILERS = re.compile(rb"(?:[^\r\n][^\n]*\n)*\r?\n")


class Piece(NamedTuple):
    """The bytes of one read. ``chunks`` are the sizes of the HTTP chunks that begin in it."""

    at: float
    data: bytes
    chunks: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class RecordedRequest:
    """One request and its response, without secrets.

    ``head``: the status line and the headers. If they are not complete, it is empty, and the pieces contain all bytes.
    """

    method: str
    url: str
    body: bytes
    head: bytes
    head_at: float
    is_raw: bool
    pieces: Sequence[Piece]
    end: str
    ended_at: float
    error: str

    def script(self, path: str) -> Script:
        """The bytes that a replayed connection delivers: the head, and the pieces with their framing."""
        is_chunked = not self.is_raw and _is_chunked(self.head)
        pieces = [(self.head_at, self.head)] if self.head else []
        pieces += _chunked(self.pieces) if is_chunked else [(at, data) for at, data, _ in self.pieces]
        end: Any = self.end
        if self.end == "complete":
            if is_chunked:
                pieces.append((self.ended_at, b"0\r\n\r\n"))
            end = "open" if is_chunked or _declared_length(self.head, self.method) is not None else "closed"
        error = self.error
        if self.end == "left":
            size = sum(len(piece.data) for piece in self.pieces)
            error = (
                f"{path}: the recording of this answer ends here, because reading stopped after {size} bytes of the"
                " body; record it again and read further"
            )
        return Script(pieces, end, self.ended_at, error)


def recorded_from(traffic: Traffic, scrubber: Scrubber) -> RecordedRequest:
    """One request and its response, split into head and body, without framing and secrets."""
    pieces = [Piece(at, data) for at, data in traffic.pieces]
    end: str = traffic.end
    head, head_at, rest = _split_head(pieces)
    is_raw = False
    body = rest
    ended_at = traffic.ended_at
    if head:
        without_framing = _unchunked(rest) if _is_chunked(head) else (rest, False)
        if without_framing is None:
            is_raw = True
        else:
            body, is_complete = without_framing
            length = _declared_length(head, traffic.method)
            if length is not None:
                is_complete = sum(len(piece.data) for piece in rest) >= length
            elif not _is_chunked(head):
                is_complete = end == "closed"
            if is_complete:
                end, ended_at = "complete", max(ended_at if end == "closed" else 0.0, _last(rest, head_at))
    if not is_raw:
        head, body = _without_compressed_secrets(head, body, scrubber)
    is_aws_stream = any(value.lower() == _AWS_STREAM for _, value in _headers(head))
    scrubbed = scrubber.scrub_pieces([piece.data for piece in body], with_checksums if is_aws_stream else None)
    return RecordedRequest(
        traffic.method,
        scrubber.scrub_url(traffic.url),
        scrubber.scrub(traffic.body),
        scrubber.scrub_head(head),
        head_at,
        is_raw,
        [piece._replace(data=data) for piece, data in zip(body, scrubbed, strict=True)],
        end,
        ended_at if end != "left" else _last(pieces, 0.0),
        scrubber.scrub_text(traffic.error) if end in ("error", "failed") else "",
    )


def _last(pieces: Sequence[Piece], otherwise: float) -> float:
    return pieces[-1].at if pieces else otherwise


def _split_head(pieces: list[Piece]) -> tuple[bytes, float, list[Piece]]:
    """The head, its arrival time, and the pieces after it. Interim responses (1xx) are left out."""
    data = b"".join(piece.data for piece in pieces)
    start = 0
    for _ in range(_MAX_INTERIM_RESPONSES):
        found = _HEAD_END.search(data, start)
        status = _STATUS_LINE.match(data, start)
        if found is None or status is None:
            break
        if not status[2].startswith(b"1"):
            at, rest = _after(pieces, found.end())
            return data[start : found.end()], at, rest
        start = found.end()
    return b"", 0.0, pieces


def _after(pieces: list[Piece], size: int) -> tuple[float, list[Piece]]:
    """The arrival time of byte number ``size``, and the pieces after it."""
    for number, (at, data, _) in enumerate(pieces):
        if size <= len(data):
            rest = pieces[number + 1 :]
            return at, [Piece(at, data[size:]), *rest] if size < len(data) else rest
        size -= len(data)
    raise AssertionError("fewer bytes than the head")


def _unchunked(pieces: list[Piece]) -> tuple[list[Piece], bool] | None:
    """The data of a chunked body, and whether it is complete; None if its framing is broken."""
    received = b"".join(piece.data for piece in pieces)
    ends = list(accumulate(len(piece.data) for piece in pieces))
    data = [bytearray() for _ in pieces]
    sizes: list[list[int]] = [[] for _ in pieces]
    at, is_complete = 0, False
    while line := _SIZE_LINE.match(received, at):
        start, size = line.end(), int(line[1], 16)
        if not size:
            is_complete = _TRAILERS.match(received, start) is not None
            break
        sizes[bisect_left(ends, start)].append(size)
        at = min(start + size, len(received))
        for number in range(bisect_right(ends, start), bisect_left(ends, at) + 1 if at > start else 0):
            data[number] += received[max(start, ends[number] - len(pieces[number].data)) : min(at, ends[number])]
        end = _LINE_END.match(received, at)
        if end is None:
            if received[at:] not in (b"", b"\r"):
                return None
            break
        at = end.end()
    else:
        if b"\n" in received[at:]:
            return None
    found = zip(pieces, data, sizes, strict=True)
    body = [Piece(piece.at, bytes(part), tuple(chunks)) for piece, part, chunks in found if part or chunks]
    return body, is_complete


def _without_compressed_secrets(head: bytes, body: list[Piece], scrubber: Scrubber) -> tuple[bytes, list[Piece]]:
    """The response decompressed, if its body contains a secret: in compressed bytes it cannot be replaced."""
    encoding = next((value.lower() for name, value in _headers(head) if name.lower() == "content-encoding"), "")
    if encoding.removeprefix("x-") not in ("gzip", "deflate"):
        return head, body
    left, at = list(reversed(body)), 0.0

    def read(size: int) -> bytes:
        nonlocal at
        if not left:
            return b""
        at, data, _ = left.pop()
        return data or read(size)

    decoder, decoded = Decoder(read, encoding.removeprefix("x-")), []
    with suppress(CompletionError):
        while data := decoder.read1(_DECODED_BYTES):
            decoded.append(Piece(at, data, (len(data),)))
    text = b"".join(piece.data for piece in decoded)
    if scrubber.scrub(text) == text:
        return head, body
    head = re.sub(rb"(?im)^content-encoding:.*\n", b"", head)
    return re.sub(rb"(?im)^(content-length:[ \t]*)\d+", rb"\g<1>%d" % len(text), head), decoded


def _headers(head: bytes) -> list[tuple[str, str]]:
    lines = re.split(r"\r?\n", head.decode("latin-1"))[1:]
    return [(name.strip(), value.strip()) for name, colon, value in (line.partition(":") for line in lines) if colon]


def _is_chunked(head: bytes) -> bool:
    return any(name.lower() == "transfer-encoding" and value.lower() == "chunked" for name, value in _headers(head))


def _declared_length(head: bytes, method: str) -> int | None:
    status = _STATUS_LINE.match(head)
    if method == "HEAD" or (status and status[2] in (b"204", b"304")):
        return 0
    for name, value in _headers(head):
        if name.lower() == "content-length" and value.isdecimal() and not _is_chunked(head):
            return int(value)
    return None


def _chunked(pieces: Sequence[Piece]) -> Iterator[tuple[float, bytes]]:
    """The pieces with HTTP chunk framing. A chunk may end in a later piece."""
    missing = 0
    for at, data, chunks in pieces:
        framed, start = bytearray(), 0
        for size in (missing, *chunks) if missing else chunks:
            if not missing:
                framed += b"%x\r\n" % size
                missing = size
            part = data[start : start + missing]
            start += len(part)
            missing -= len(part)
            framed += part if missing else part + b"\r\n"
        yield at, bytes(framed)


# Writing


def check_is_file(path: Path) -> None:
    """Refuse a folder, and a device: /dev/zero never ends, and as root, replacing /dev/null would remove it.

    Raises:
        ConfigurationError: the path exists and is not a file.
    """
    if path.exists() and not path.is_file():
        what = "a folder" if path.is_dir() else "not a file"
        raise ConfigurationError(f"{path}: this is {what}; give recorded() the path of a file")


def check_writable(path: Path) -> None:
    """Check at the beginning that the file can be written at the end, when the requests have been paid for.

    Raises:
        ConfigurationError: its folder cannot be written.
    """
    folder = next(parent for parent in path.parents if parent.exists())
    if not folder.is_dir() or not can_write_into(folder):
        raise ConfigurationError(f"{path}: the recording cannot be written into {folder}; check its permissions")


def write(path: Path, recorded: Sequence[RecordedRequest]) -> None:
    """Write the file in one step: under another name first, and then rename it."""
    path = path.resolve()  # if it is a link, write to its target
    lines = [{"completion_recording": _FORMAT, "requests": len(recorded)}]
    for number, one in enumerate(recorded, 1):
        lines += _lines(number, one)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    try:
        with unfinished.open("xb") as file:
            for line in lines:
                file.write(_to_json(line) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        with suppress(OSError):
            unfinished.unlink()


def _lines(number: int, one: RecordedRequest) -> Iterator[dict[str, Any]]:
    yield {"request": number, "method": one.method, "url": one.url, **_request_body(one.body)}
    if one.head:
        raw = {"framing": "raw"} if one.is_raw else {}
        yield {"response": number, "at": _rounded(one.head_at), **_written_head(one.head), **raw}
    else:
        yield {"response": number, "at": 0.0, "status": None}
    is_chunked = bool(one.head) and not one.is_raw and _is_chunked(one.head)
    for at, data, chunks in one.pieces:
        # Left out if the piece is one HTTP chunk, as usual. An empty list: it continues the chunk of an earlier piece.
        framing: dict[str, Any] = {"chunks": list(chunks)} if is_chunked and chunks != (len(data),) else {}
        yield {"piece": number, "at": _rounded(at), **_as_text(data), **framing}
    size = sum(len(piece.data) for piece in one.pieces)
    error = {"error": one.error} if one.error else {}
    yield {"end": number, "at": _rounded(one.ended_at), "how": one.end, "bytes": size, **error}


def _rounded(seconds: float) -> float:
    return round(seconds, 4)


def _to_json(line: dict[str, Any]) -> bytes:
    try:
        return json.dumps(line, ensure_ascii=False).encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return json.dumps(line).encode()


def _request_body(body: bytes) -> dict[str, Any]:
    if not body:
        return {}
    value = parsed(body)
    return {"json": value} if isinstance(value, dict | list) else _as_text(body)


def parsed(body: bytes) -> Any:
    """The JSON value of a body, or the body itself if it is not JSON."""
    try:
        return json.loads(body, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return body


def _no_constant(name: str) -> Any:
    raise ValueError(name)


def _as_text(data: bytes) -> dict[str, str]:
    try:
        return {"text": data.decode()}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}


def _written_head(head: bytes) -> dict[str, Any]:
    status = _STATUS_LINE.match(head)
    assert status is not None
    version, code, reason = status[1].decode("latin-1"), int(status[2]), (status[3] or b"").decode("latin-1")
    line: dict[str, Any] = {"status": code}
    if version != "1.1":
        line["version"] = version
    if reason != http.client.responses.get(code, ""):
        line["reason"] = reason
    line["headers"] = [list(item) for item in _headers(head)]
    # If reading the line back does not give the same bytes (unusual white space, for example), keep them as they are.
    return line if _read_head(line) == head else {"status": code, "head": head.decode("latin-1")}


# Reading


def read(path: Path) -> list[RecordedRequest]:
    """The requests of the file and their answers.

    Raises:
        ConfigurationError: the file is damaged, or cannot be read.
    """
    try:
        return _read(path.read_bytes())
    except OSError as exc:
        raise ConfigurationError(f"{path}: the recording cannot be read: {exc.strerror or exc}") from exc
    except _DamageError as exc:
        reason = str(exc)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as exc:
        reason = f"{type(exc).__name__}: {exc}"
    raise ConfigurationError(
        f"{path}: this recording is damaged ({reason}): restore the file, or delete it and record it again"
    )


class _DamageError(Exception):
    pass


def _read(data: bytes) -> list[RecordedRequest]:
    lines = [_parsed_line(number, line) for number, line in enumerate(data.split(b"\n"), 1) if line.strip()]
    if not lines or "completion_recording" not in lines[0]:
        raise _DamageError("its first line has no completion_recording")
    if lines[0]["completion_recording"] != _FORMAT:
        raise _DamageError(f"its format is {lines[0]['completion_recording']!r}, but this version reads {_FORMAT}")
    groups: list[list[dict[str, Any]]] = []
    for line in lines[1:]:
        if "request" in line:
            groups.append([])
        if not groups:
            raise _DamageError("its second line is not a request")
        groups[-1].append(line)
    if len(groups) != lines[0]["requests"]:
        raise _DamageError(f"it should have {lines[0]['requests']} requests, but has {len(groups)}")
    return [_recorded(number, group) for number, group in enumerate(groups, 1)]


def _parsed_line(number: int, line: bytes) -> dict[str, Any]:
    with suppress(ValueError, RecursionError):
        value = json.loads(line)
        if isinstance(value, dict):
            return value
    raise _DamageError(f"line {number} is not a JSON object")


def _recorded(number: int, lines: list[dict[str, Any]]) -> RecordedRequest:
    request, end = lines[0], lines[-1]
    kinds = ["request", "response", *["piece"] * (len(lines) - 3), "end"]
    if len(lines) < 3 or [line.get(kind) for line, kind in zip(lines, kinds, strict=True)] != [number] * len(lines):
        raise _DamageError(f"the lines of request {number} are not complete")
    response = lines[1]
    pieces = [_piece(line) for line in lines[2:-1]]
    size = sum(len(piece.data) for piece in pieces)
    if size != end["bytes"]:
        raise _DamageError(f"the answer to request {number} should have {end['bytes']} bytes, but has {size}")
    if end["how"] not in _ENDS:
        raise _DamageError(f"the end of request {number} is unknown: {end['how']!r}")
    head = b"" if response["status"] is None else _read_head(response)
    if head and not (_STATUS_LINE.match(head) and _HEAD_END.search(head)):
        raise _DamageError(f"the status line and headers of response {number} are not HTTP")
    return RecordedRequest(
        str(request["method"]),
        str(request["url"]),
        _bytes(request) if "json" not in request else json.dumps(request["json"]).encode(),
        head,
        float(response["at"]),
        response.get("framing") == "raw",
        pieces,
        end["how"],
        float(end["at"]),
        str(end.get("error", "")),
    )


def _piece(line: dict[str, Any]) -> Piece:
    data = _bytes(line)
    return Piece(float(line["at"]), data, tuple(map(int, line.get("chunks", (len(data),)))))


def _bytes(line: dict[str, Any]) -> bytes:
    if "base64" in line:
        try:
            return base64.b64decode(line["base64"], validate=True)
        except binascii.Error as exc:
            raise _DamageError(f"base64: {exc}") from None
    if "request" in line and "text" not in line:
        return b""
    return str(line["text"]).encode()


def _read_head(line: dict[str, Any]) -> bytes:
    if "head" in line:
        return str(line["head"]).encode("latin-1")
    code = int(line["status"])
    reason = line.get("reason", http.client.responses.get(code, ""))
    rows = [f"HTTP/{line.get('version', '1.1')} {code} {reason}"]
    rows += [f"{name}: {value}" for name, value in line["headers"]]
    return "\r\n".join([*rows, "", ""]).encode("latin-1")
