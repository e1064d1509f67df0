"""Bytes to JSON events: line ends and cuts, what sseclient gets wrong, and bodies that are not event streams."""

from __future__ import annotations

import itertools
import json
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from completion.contract.errors import MalformedStreamError, TransportError
from completion.events import DONE, MAX_EVENT_BYTES
from completion.events.sse import EventBatches, sse_events
from tests.wire_pieces import IS_SAMPLED, chunks_of

SPLITS = pytest.mark.parametrize("split", [None, 7, 1], ids=["whole", "sevens", "byte by byte"])


def values(body: bytes, split: int | None = None) -> list[Any]:
    return [value for _, value in sse_events(chunks_of(body, split))]


def counted(pieces: list[bytes]) -> Iterator[tuple[int, Any]]:
    """Each event's value, with the number of pieces that had been read when it was yielded."""
    read = 0

    def feed() -> Iterator[bytes]:
        nonlocal read
        for piece in pieces:
            read += 1
            yield piece

    for _, value in sse_events(feed()):
        yield read, value


# Lines and fields


@SPLITS
@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'data: {"a":1}\n\ndata: {"a":2}\n\n', [{"a": 1}, {"a": 2}]),
        (b'data: {"a":1}\r\n\r\ndata: {"a":2}\r\n\r\n', [{"a": 1}, {"a": 2}]),
        (b'data: {"a":1}\r\rdata: {"a":2}\r\r', [{"a": 1}, {"a": 2}]),
        (b'data: {"a":1}\n\r\ndata: {"a":2}\n\r\n', [{"a": 1}, {"a": 2}]),
        (b'data: {"a":1}\r\r\ndata: {"a":2}\r\r\n', [{"a": 1}, {"a": 2}]),
        (b'data: {"a":1}\r\n\ndata: {"a":2}\r\n\n', [{"a": 1}, {"a": 2}]),
        (b'data: {"a":1}\n\rdata: {"a":2}\n\r', [{"a": 1}, {"a": 2}]),
        (b'\n\n\r\ndata: {"a":1}\n\n\n\n\n', [{"a": 1}]),
        (b'\xef\xbb\xbfdata: {"a":1}\n\ndata: {"a":2}\n\n', [{"a": 1}, {"a": 2}]),
        (b'data:{"a":1}\n\n', [{"a": 1}]),
        (b'data:  {"a":1}  \n\n', [{"a": 1}]),
        (b'data: {"a":\ndata: 1}\n\n', [{"a": 1}]),
        (b': PING\n: PING\n\n: PING\ndata: {"a":1}\n: PING\n\n', [{"a": 1}]),
        (b'id: 7\nretry: 3000\ndata: {"a":1}\n\nid\nretry: soon\n\n', [{"a": 1}]),
        (b'data:\n\ndata: \n\ndata\n\ndata: {"a":1}\n\n', [{"a": 1}]),
        (b' data: {"a":1}\n\ndata: {"a":2}\n\n', [{"a": 2}]),
        (b'unheard: of\ndata: {"a":1}\n\n', [{"a": 1}]),
        ('data: "a\u2028b\u2029c\x85d\x7f"\n\n'.encode(), ["a\u2028b\u2029c\x85d\x7f"]),
        ('data: "grün 日本 🎉"\n\n'.encode(), ["grün 日本 🎉"]),
        (b'data: "\xff\xe6\x97!"\n\n', ["\ufffd\ufffd!"]),
        (b'data: "\xed\xa0\x80"\n\n', ["\ufffd\ufffd\ufffd"]),
        (b'data: [1]\n\ndata: "x"\n\ndata: null\n\ndata: 1.5\n\n', [[1], "x", None, 1.5]),
    ],
    ids=[
        "lf", "crlf", "cr", "lf crlf", "cr crlf", "crlf lf", "lf cr", "blank lines", "byte order mark",
        "no space after the colon", "spaces around the JSON", "two data lines", "comments", "id and retry",
        "empty data", "line that starts with a space", "unknown field", "unicode line separators",
        "characters of several bytes", "invalid UTF-8", "half of a surrogate pair", "JSON of all types",
    ],
)  # fmt: skip
def test_an_event_stream_is_read_as_the_standard_says(body: bytes, expected: list[Any], split: int | None) -> None:
    assert values(body, split) == expected


@SPLITS
def test_the_event_name_comes_with_the_value(split: int | None) -> None:
    body = b"event: error\ndata: 1\n\ndata: 2\n\nevent:\ndata: 3\n\nevent: a\nevent: b\ndata: 4\n\n"
    found = list(sse_events(chunks_of(body, split)))
    assert found == [("error", 1), ("message", 2), ("message", 3), ("b", 4)]


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n", b"\r\r"], ids=["lf", "crlf", "cr"])
def test_an_event_is_yielded_with_its_last_byte(end: bytes) -> None:
    event = b'data: {"a":1}' + end
    found = [read for read, _ in counted(chunks_of(event * 2, 1))]
    # After CRLF CR the event is complete: the last LF is not needed.
    unread = 1 if end == b"\r\n\r\n" else 0
    assert found == [len(event) - unread, 2 * len(event) - unread]


def test_complete_events_of_a_piece_are_yielded_before_the_next_piece_is_read() -> None:
    pieces = [b"data: 1\n\ndata: 2\n\ndata: ", b"3\n\n", b": ping\n\n"]
    assert list(counted(pieces)) == [(1, 1), (1, 2), (2, 3)]


def test_an_empty_piece_changes_nothing() -> None:
    pieces = [b"", b"\xef", b"", b"\xbb\xbf", b"data: [\r", b"", b"\ndata: 1]\r\n\r", b"", b"\ndata: 2\r\n\r\n", b""]
    assert [value for _, value in sse_events(pieces)] == [[1], 2]


@settings(deadline=None)
@given(st.lists(st.sampled_from([b"\n", b"\r", b"\r\n"]), min_size=12, max_size=12), st.lists(st.integers(1, 9)))
def test_line_ends_may_be_mixed_however_the_body_is_cut(ends: list[bytes], cuts: list[int]) -> None:
    lines = [b'data: {"a":', b"data: 1}", b"", b"event: x", b"data: 2", b""] * 2
    # A CR followed by an LF is one line end. The test needs two.
    for n in range(1, len(ends)):
        if ends[n - 1] == b"\r" and ends[n] == b"\n" and not lines[n]:
            ends[n] = b"\r"
    body = b"".join(line + end for line, end in zip(lines, ends, strict=True))
    pieces = []
    for cut in cuts:
        pieces.append(body[:cut])
        body = body[cut:]
    found = list(sse_events([*pieces, body]))
    assert found == [("message", {"a": 1}), ("x", 2)] * 2


# The end of the body


@SPLITS
@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'data: 1\n\ndata: {"x": 1', [1]),
        (b'data: 1\n\ndata: {"x": 1}', [1, {"x": 1}]),
        (b'data: 1\n\ndata: {"x": 1}\n', [1, {"x": 1}]),
        (b'data: 1\r\n\r\ndata: {"x": 1}\r', [1, {"x": 1}]),
        (b"data: 1\n\ndata: [DON", [1]),
        (b"data: 1\n\ndata: [DONE]", [1, DONE]),
        (b"data: 1\n\nda", [1]),
        (b"data: 1\n\nevent: err", [1]),
        (b'data: "gr\xc3', []),
    ],
    ids=[
        "half",
        "complete",
        "one line end",
        "one CR",
        "half DONE",
        "DONE",
        "half field",
        "half name",
        "half character",
    ],
)
def test_an_event_without_its_blank_line_is_yielded_if_its_json_is_complete(
    body: bytes, expected: list[Any], split: int | None
) -> None:
    assert values(body, split) == expected


@SPLITS
def test_nothing_is_read_after_done(split: int | None) -> None:
    assert values(b'data: 1\n\ndata: [DONE]\n\ndata: {"a":2}\n\ndata: {bad\n\n', split) == [1, DONE]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\n",
        b"\xef\xbb\xbf",
        b": ping\n\n: ping\n\n",
        b"retry: 3000\n\n",
        b"event: ping\n\n",
        b"da",
        b"data:",
        b"  ",
    ],
    ids=["empty", "line end", "byte order mark", "comments", "retry", "name only", "half field", "no value", "spaces"],
)
@SPLITS
def test_a_body_without_events_yields_nothing(body: bytes, split: int | None) -> None:
    assert values(body, split) == []


@pytest.mark.parametrize(
    "body",
    [
        b'{\n  "error": {\n    "message": "no"\n  }\n}\n',
        b"<!doctype html>\n\n<html><body>502 Bad Gateway</body></html>\n\n",
        b"upstream connect error",
        b"database is locked\n\n",
        b'{"a": 1}\n{"a": 2}\n\n{"a": 3}\n',
    ],
    ids=["JSON of many lines", "HTML", "text", "text like a field", "NDJSON"],
)
@SPLITS
def test_a_body_that_is_not_an_event_stream_is_malformed_and_in_the_error(body: bytes, split: int | None) -> None:
    with pytest.raises(MalformedStreamError, match="not an event stream") as caught:
        values(body, split)
    assert caught.value.body == body.decode()


def test_the_error_contains_64_kib_of_a_body_that_is_not_an_event_stream() -> None:
    with pytest.raises(MalformedStreamError) as caught:
        values(b"no stream\n" * 100_000, 1000)
    assert caught.value.body == ("no stream\n" * 7000)[: 64 * 1024]


@SPLITS
@pytest.mark.parametrize("data", [b'{"a": 1', b"hello", b"{} {}", b'{"a": 1}]', b"[" * 100_000, b"9" * 5000])
def test_an_event_that_is_not_json_is_malformed_and_in_the_error(data: bytes, split: int | None) -> None:
    with pytest.raises(MalformedStreamError, match="not JSON") as caught:
        values(b"data: 1\n\ndata: " + data + b"\n\ndata: 2\n\n", split)
    assert caught.value.body == data.decode()[: 64 * 1024]


@pytest.mark.parametrize(
    ("tail", "more"),
    [(b"", []), (b"data: {", []), (b'data: {"a": 2}', [("message", {"a": 2})]), (b"data: [DONE]", [("message", DONE)])],
    ids=["nothing", "half", "only the blank line is missing", "done"],
)
def test_complete_events_before_a_fault_are_yielded(tail: bytes, more: list[object]) -> None:
    def feed() -> Iterator[bytes]:
        yield b"data: 1\n\n" + tail
        raise TransportError("the connection broke")

    events = sse_events(feed())
    assert [next(events) for _ in range(1 + len(more))] == [("message", 1), *more]
    if more[-1:] != [("message", DONE)]:
        with pytest.raises(TransportError, match="the connection broke"):
            next(events)


@pytest.mark.parametrize("before", [b"", b": ping\n\n", b"data: 1\n\n"], ids=["first", "after a ping", "later"])
@pytest.mark.parametrize(
    "line", [b'error: {"message": "no"}', b'{"error": "no"}'], ids=["a field of its own", "a line of JSON"]
)
@SPLITS
def test_an_error_on_a_line_of_its_own_is_an_error_event(before: bytes, line: bytes, split: int | None) -> None:
    last = list(sse_events(chunks_of(before + line + b"\n\ndata: [DONE]\n\n", split)))[-2]
    assert last in [("error", {"message": "no"}), ("error", {"error": "no"})]


def test_an_error_event_that_is_not_json_is_yielded_as_text() -> None:
    assert list(sse_events([b"event: error\ndata: upstream timed out\n\n"])) == [("error", "upstream timed out")]


# Size


@pytest.mark.parametrize("lead", [b"", b"data: 1\n\n", b"\n"], ids=["first", "second", "after a line end"])
@SPLITS
def test_an_event_over_the_limit_is_malformed_and_one_at_the_limit_is_not(lead: bytes, split: int | None) -> None:
    event = b'data: "' + b"x" * 92 + b'"'
    pieces = chunks_of(lead + event + b"\n\ndata: 2\n\n", split)
    limit = len(event) + (lead == b"\n")
    assert [value for _, value in sse_events(pieces, limit)][-2:] == ["x" * 92, 2]
    with pytest.raises(MalformedStreamError, match=f"max_event_bytes={limit - 1}$"):
        list(sse_events(pieces, limit - 1))


def test_an_event_without_an_end_is_stopped_at_the_limit() -> None:
    read = 0

    def feed() -> Iterator[bytes]:
        nonlocal read
        while True:
            read += 1000
            yield b"x" * 1000

    with pytest.raises(MalformedStreamError, match="max_event_bytes=5000"):
        list(sse_events(feed(), 5000))
    assert read == 6000


def test_a_big_event_is_passed_to_sseclient_once_and_complete() -> None:
    """Given 4 MiB in pieces of 1 KiB, sseclient would copy 2 MiB on average for each of them."""
    text = "x" * (4 << 20)
    pieces = chunks_of(f'data: "{text}"\n\ndata: 2\n\n'.encode(), 1024)
    assert [[*map(len, events)] for events in EventBatches(pieces, MAX_EVENT_BYTES)] == [[7 + len(text) + 1, 7]]
    assert [value for _, value in sse_events(pieces)] == [text, 2]


def test_an_event_of_100_000_lines_is_passed_to_sseclient_as_one_line() -> None:
    """sseclient takes quadratic time to join lines."""
    numbers = b"".join(b"data: %d,\n" % n for n in range(100_000))
    body = b": a comment\n" * 1000 + b"event: a\n" * 1000 + b"event: many\ndata: [\n" + numbers + b"data:0]\n\n"
    pieces = [body + b"data: 2\n\n", b"event: empty\n" * 1000 + b"\n"]
    assert [event.count(b"\n") for events in EventBatches(pieces, MAX_EVENT_BYTES) for event in events] == [1, 0]
    assert list(sse_events(pieces)) == [("many", [*range(100_000), 0]), ("message", 2)]


FLOODS = [
    b"\n", b"\r", b"\r\n", b":\n\n", b": ping\n\n", b": data: 1\r\n\r\n", b": error\n\n", b"id: 1\n\n", b"retry: 1\n\n",
    b"event: x\n\n", b"\0\n\n", b"\xef\xbb\xbf\n\n", b"\xff\n\n",
]  # fmt: skip


@pytest.mark.parametrize("size", [64 * 1024, 1000, 7], ids=["big pieces", "small pieces", "sevens"])
@pytest.mark.parametrize("unit", FLOODS, ids=repr)
def test_lines_without_an_event_are_not_passed_to_sseclient(unit: bytes, size: int) -> None:
    flood = unit * (64 * 1024 // len(unit))
    pieces = [*chunks_of(b"data: 1\n\n" + flood, size), *chunks_of(flood, size), *chunks_of(b"data: 2\n\n", size)]
    reached = [event for events in EventBatches(pieces, MAX_EVENT_BYTES) for event in events]
    assert sum(map(len, reached)) < 3 * size + 100
    assert [value for _, value in sse_events(pieces)] == [1, 2]


@pytest.mark.parametrize("lines", [10, 100, 300, 10_000])
@pytest.mark.parametrize("line", [b": ping\n", b"id: 1\n", b"event: b\nevent: a\n"])
def test_an_event_among_many_lines_without_data_is_unchanged(line: bytes, lines: int) -> None:
    body = line * lines + b"event: a\ndata: [1,\n" + line * lines + b"data: 2]\n" + line * lines + b"\n"
    other = b"data: 3\n\n" * 300
    assert list(sse_events([body + other, body]))[::301] == [("a", [1, 2])] * 2


@pytest.mark.parametrize("lines", [20, 255, 256, 257, 5000])
def test_the_text_of_an_error_of_many_lines_is_complete(lines: int) -> None:
    body = b"event: error\n" + b"data: no\n: ping\n" * lines + b"\n"
    ((name, text),) = sse_events([body])
    assert (name, text.split()) == ("error", ["no"] * lines)


@pytest.mark.parametrize(
    "sent", [b'data: {"text": "' + b"x" * 200 + b'"}\n\n', b": " + b"x" * 200 + b"\n\n"], ids=["events", "comments"]
)
def test_memory_does_not_grow_with_the_stream(sent: bytes) -> None:
    tracemalloc.start()
    try:
        for _ in sse_events(itertools.repeat(sent, 20_000 if IS_SAMPLED else 100_000)):
            pass
        assert tracemalloc.get_traced_memory()[1] < 2_000_000  # of 20 MB, or of 4
    finally:
        tracemalloc.stop()


@settings(deadline=None)
@given(
    st.lists(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=5), max_size=5),
    st.lists(st.integers(1, 40), max_size=50),
)
def test_the_values_that_were_written_are_read_however_the_body_is_cut(written: list[Any], cuts: list[int]) -> None:
    body = "".join(f"data: {json.dumps(value, ensure_ascii=False)}\n\n" for value in written).encode(
        errors="surrogatepass"
    )
    pieces = []
    for cut in cuts:
        pieces.append(body[:cut])
        body = body[cut:]
    assert [value for _, value in sse_events([*pieces, body])] == written


@settings(deadline=None)
@given(st.binary(max_size=200), st.integers(1, 9))
def test_any_bytes_are_events_or_malformed(body: bytes, split: int) -> None:
    def outcome(pieces: list[bytes]) -> list[Any]:
        found: list[Any] = []
        try:
            for event in sse_events(pieces):
                found.append(event)  # noqa: PERF402  what came before the error counts
        except MalformedStreamError:
            found.append("malformed")
        return found

    assert outcome(chunks_of(body, split)) == outcome([body])


# Events that are parted by one line end


@SPLITS
@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'data: {"a":1}\ndata: {"a":2}\ndata: {"a":3}\ndata: [DONE]\n', [{"a": 1}, {"a": 2}, {"a": 3}, DONE]),
        (b'data: {"a":1}\n\ndata: {"a":2}\ndata: {"a":3}\n\n', [{"a": 1}, {"a": 2}, {"a": 3}]),
        (b'id: 1\ndata: {"a":1}\nid: 2\nevent: x\ndata: {"a":2}\n\n', [{"a": 1}, {"a": 2}]),
        (b'data: {"a":1}\r\ndata: {"a":2}\r\n\r\n', [{"a": 1}, {"a": 2}]),
        (b'data: {\ndata: "a": {}\ndata: }\n\n', [{"a": {}}]),
        (b'data: [\ndata: {"a":1}\ndata: ]\n\n', [[{"a": 1}]]),
        (b'data: {"a":1}\nevent: x\n\n', [{"a": 1}]),
    ],
    ids=["all", "some", "with fields", "crlf", "a printed object", "a printed list", "a name behind the data"],
)
def test_objects_on_lines_of_their_own_are_events(body: bytes, expected: list[Any], split: int | None) -> None:
    assert values(body, split) == expected


def test_events_without_blank_lines_are_yielded_as_they_arrive() -> None:
    pieces = [b'data: {"a":%d}\n' % n for n in range(5)]
    assert list(counted([*pieces, b"data: [DONE]\n\n"]))[:3] == [(2, {"a": 0}), (3, {"a": 1}), (4, {"a": 2})]
