"""Amazon's event stream: frames, their checksums and headers. botocore's decoder is the oracle."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any
from zlib import crc32

import pytest
from botocore.eventstream import EventStreamBuffer
from hypothesis import given
from hypothesis import strategies as st

from completion import MalformedStreamError, TruncatedStreamError
from completion.events.aws_eventstream import aws_chunk_events, aws_events
from completion.wires import aws_events as public
from tests.aws import frame, framed, header
from tests.wire_pieces import chunks_of

BODY = frame("messageStart", {"role": "assistant"}) + frame("contentBlockDelta", {"delta": {"text": "größer"}})
EVENTS = [("messageStart", {"role": "assistant"}), ("contentBlockDelta", {"delta": {"text": "größer"}})]
KIND = header(":message-type", "event")


def read(body: bytes, split: int | None = None, **options: Any) -> list[tuple[str, Any]]:
    return list(aws_events(iter(chunks_of(body, split)), **options))


@pytest.mark.parametrize("split", [None, 7, 1])
def test_each_frame_is_an_event_however_the_body_is_split(split: int | None) -> None:
    assert read(BODY, split) == EVENTS


def test_the_decoder_is_public() -> None:
    assert public is aws_events


def test_an_event_is_yielded_as_soon_as_its_frame_is_complete() -> None:
    def pieces() -> Any:
        yield BODY[: len(frame(*EVENTS[0])) + 5]
        raise AssertionError("read too far")

    assert next(aws_events(pieces())) == EVENTS[0]


def test_an_empty_body_has_no_events() -> None:
    assert read(b"") == []


def test_an_empty_payload_is_an_empty_object() -> None:
    assert read(framed(header(":event-type", "a") + KIND)) == [("a", {})]


@pytest.mark.parametrize("cut", range(1, len(BODY)))
def test_a_body_that_ends_within_a_frame_is_truncated(cut: int) -> None:
    if cut == len(frame(*EVENTS[0])):
        return
    with pytest.raises(TruncatedStreamError, match="within a frame"):
        read(BODY[:cut])


@pytest.mark.parametrize("place", range(len(BODY)))
def test_every_changed_byte_is_an_error(place: int) -> None:
    damaged = BODY[:place] + bytes([BODY[place] ^ 0x20]) + BODY[place + 1 :]
    with pytest.raises(MalformedStreamError, match="checksum"):
        read(damaged)


def prelude(total: int, headers: int) -> bytes:
    start = struct.pack(">II", total, headers)
    return start + struct.pack(">I", crc32(start))


@pytest.mark.parametrize(("total", "headers"), [(0, 0), (15, 0), (20, 5), (16, 2**32 - 1), (300_000, 131_073)])
def test_impossible_lengths_are_refused_before_the_frame_is_complete(total: int, headers: int) -> None:
    with pytest.raises(MalformedStreamError, match="cannot have"):
        read(prelude(total, headers))


def test_a_frame_over_the_limit_is_refused_before_it_is_complete() -> None:
    with pytest.raises(MalformedStreamError, match="max_event_bytes=1000"):
        read(prelude(1001, 0), max_event_bytes=1000)


OTHER_TYPES = [
    (b"\x00", b""), (b"\x01", b""), (b"\x02", b"1"), (b"\x03", b"12"), (b"\x04", b"1234"), (b"\x05", b"12345678"),
    (b"\x06", b"\x00\x03abc"), (b"\x08", b"12345678"), (b"\x09", b"0123456789abcdef"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "value"), OTHER_TYPES)
def test_headers_of_every_type_are_read(kind: bytes, value: bytes) -> None:
    body = framed(b"\x01x" + kind + value + header(":event-type", "a") + KIND, b"{}")
    assert read(body) == [("a", {})]
    buffer = EventStreamBuffer()
    buffer.add_data(body)
    assert next(buffer).headers[":event-type"] == "a"


@pytest.mark.parametrize(
    "headers",
    [
        b"\x01x\x0a", b"\x01x", b"\x09x", b"\x01x\x04\x00", b"\x01x\x07\x00", b"\x01x\x07\x00\x09ab",
        b"\x01x\x07\x00\x01\xff", header("x", "1") + header("x", "2"),
    ],
)  # fmt: skip
def test_headers_that_are_not_valid_are_an_error(headers: bytes) -> None:
    with pytest.raises(MalformedStreamError, match="header"):
        read(framed(headers, b"{}"))


@pytest.mark.parametrize(
    "headers",
    [b"", header(":event-type", "a"), header(":message-type", "what") + header(":event-type", "a"), KIND,
     KIND + header(":exception-type", "a")],
)  # fmt: skip
def test_a_frame_without_its_type_is_an_error(headers: bytes) -> None:
    with pytest.raises(MalformedStreamError, match="message-type"):
        read(framed(headers, b"{}"))


def test_a_payload_that_is_not_json_is_an_error() -> None:
    with pytest.raises(MalformedStreamError, match="payload of an event is not JSON"):
        read(frame("a", b"{"))


@pytest.mark.parametrize(
    ("payload", "fields"),
    [
        (b'{"message": "Slow down"}', {"message": "Slow down"}),
        (b"Slow down", {"message": "Slow down"}),
        (b"", {"message": "throttlingException"}),
    ],
)
def test_an_exception_is_an_error_with_its_type(payload: bytes, fields: dict[str, Any]) -> None:
    expected = ("error", {"error": {**fields, "type": "throttlingException"}})
    assert read(frame("throttlingException", payload, "exception")) == [expected]


def test_an_error_frame_has_its_message_in_a_header() -> None:
    headers = header(":message-type", "error") + header(":error-code", "InternalError")
    body = framed(headers + header(":error-message", "Oops"))
    assert read(body) == [("error", {"error": {"message": "Oops", "type": "InternalError"}})]


@pytest.mark.parametrize("page", [b"<html><body>Bad gateway</body></html>", b'{"message": "No such model"}'])
def test_another_body_is_in_the_error(page: bytes) -> None:
    with pytest.raises(MalformedStreamError) as caught:
        read(page)
    assert caught.value.body == page.decode()


def test_hostile_headers_are_not_kept() -> None:
    body = b"".join(framed(header(":event-type", f"{n}") + KIND, b"1") for n in range(200))
    assert [name for name, _ in read(body)] == [str(n) for n in range(200)]


PAYLOADS = st.dictionaries(st.text(), st.one_of(st.none(), st.integers(), st.text()), max_size=3)


@given(st.lists(st.tuples(st.text(min_size=1, max_size=9), PAYLOADS), max_size=5), st.integers(1, 40))
def test_it_reads_what_botocore_reads(sent: list[tuple[str, dict[str, Any]]], split: int) -> None:
    body = b"".join(frame(name, data) for name, data in sent)
    buffer = EventStreamBuffer()
    buffer.add_data(body)
    by_botocore = [(found.headers[":event-type"], json.loads(found.payload)) for found in buffer]
    assert read(body, split) == by_botocore == sent


def chunk(text: bytes) -> bytes:
    return frame("chunk", {"bytes": base64.b64encode(text).decode(), "p": "abc"})


def test_the_events_inside_of_chunks_have_the_name_of_their_type() -> None:
    body = chunk(b'{"type": "ping"}') + chunk(b'{"other": 1}') + frame("throttlingException", {}, "exception")
    assert list(aws_chunk_events([body])) == [
        ("ping", {"type": "ping"}),
        ("chunk", {"other": 1}),
        ("error", {"error": {"message": "throttlingException", "type": "throttlingException"}}),
    ]


@pytest.mark.parametrize("encoded", ["a", "$$$=", base64.b64encode(b"{").decode()])
def test_bytes_that_are_not_json_in_base64_are_an_error(encoded: str) -> None:
    with pytest.raises(MalformedStreamError):
        list(aws_chunk_events([frame("chunk", {"bytes": encoded})]))
