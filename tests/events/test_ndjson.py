"""Lines of JSON to events, however the body is cut, and bodies that are not lines of JSON."""

from __future__ import annotations

import itertools
import json
import time
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from completion.contract.errors import MalformedStreamError, TransportError
from completion.events.ndjson import ndjson_events
from tests.wire_pieces import chunks_of

SPLITS = pytest.mark.parametrize("split", [None, 7, 1], ids=["whole", "sevens", "byte by byte"])
MIB = 1024 * 1024


def values(body: bytes, split: int | None = None) -> list[Any]:
    return [value for _, value in ndjson_events(chunks_of(body, split))]


# Lines


@SPLITS
@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"a":1}\n{"a":2}\n', [{"a": 1}, {"a": 2}]),
        (b'{"a":1}\r\n{"a":2}\r\n', [{"a": 1}, {"a": 2}]),
        (b'{"a":1}\r\n{"a":2}\n{"a":3}\r\n', [{"a": 1}, {"a": 2}, {"a": 3}]),
        (b'\n\r\n \n\t\r\n{"a":1}\n\n\n\r\n{"a":2}\n\n', [{"a": 1}, {"a": 2}]),
        (b"\n" * 100 + b"1\n" + b" \r\n" * 100 + b"2\n" + b"\n" * 100 + b"3\n", [1, 2, 3]),
        (b'\xef\xbb\xbf{"a":1}\n{"a":2}\n', [{"a": 1}, {"a": 2}]),
        (b'\xef\xbb\xbf{"a":1}', [{"a": 1}]),
        (b'\xef\xbb\xbf\n{"a":1}\n', [{"a": 1}]),
        (b'  {"a": 1}\t\n', [{"a": 1}]),
        ('"a\u2028b\u2029c\x85d\x7f"\n'.encode(), ["a\u2028b\u2029c\x85d\x7f"]),
        ('"grün 日本 🎉"\n'.encode(), ["grün 日本 🎉"]),
        (b'"\xff\xe6\x97!"\n', ["\ufffd\ufffd!"]),
        (b'"\xed\xa0\x80"\n', ["\ufffd\ufffd\ufffd"]),
        (rb'"\ud83d"' + b"\n", ["\ud83d"]),
        (b'[1]\n"x"\nnull\n1.5\nfalse\n{}\n', [[1], "x", None, 1.5, False, {}]),
        (b"1\n2\n3\n4\n5\n6\n7\n8\n", [1, 2, 3, 4, 5, 6, 7, 8]),
        (b"", []),
        (b"\n", []),
        (b"\xef\xbb\xbf", []),
        (b" \r\n\r\n", []),
    ],
    ids=[
        "lf", "crlf", "mixed", "blank lines", "many blank lines", "byte order mark",
        "byte order mark, one line without an end", "byte order mark on a line of its own", "spaces around the JSON",
        "unicode line separators", "characters of several bytes", "invalid UTF-8", "surrogate in UTF-8",
        "escaped half of a surrogate pair", "JSON of all types", "short lines", "empty", "line end",
        "byte order mark alone", "blank lines alone",
    ],
)  # fmt: skip
def test_each_line_is_an_event(body: bytes, expected: list[Any], split: int | None) -> None:
    assert values(body, split) == expected


def test_the_name_of_every_event_is_message() -> None:
    assert list(ndjson_events([b'1\n{"event":"error"}\n'])) == [("message", 1), ("message", {"event": "error"})]


def test_an_event_is_yielded_with_its_line_end() -> None:
    read = 0

    def feed() -> Iterator[bytes]:
        nonlocal read
        for piece in (b'{"a":', b"1}", b"\n", b"2\n3\n4", b"\r", b"\n"):
            read += 1
            yield piece

    assert [(read, value) for _, value in ndjson_events(feed())] == [(3, {"a": 1}), (4, 2), (4, 3), (6, 4)]


def test_an_empty_piece_changes_nothing() -> None:
    pieces = [b"", b"\xef", b"", b"\xbb\xbf", b"[1", b"", b"]\r", b"", b"\n", b"", b"2", b""]
    assert [value for _, value in ndjson_events(pieces)] == [[1], 2]


# The end of the body


@SPLITS
@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'1\n{"a": 1}', [1, {"a": 1}]),
        (b'1\n{"a": 1}\r', [1, {"a": 1}]),
        (b'1\n{"a": 1', [1]),
        (b'1\n{"a": "gr\xc3', [1]),
        (b"1\nnu", [1]),
        (b"1\n  ", [1]),
        (b'{"a": 1}', [{"a": 1}]),
        (b'{"a": 1', []),
        (b'\n\n{"a', []),
        (b"\xef\xbb\xbf{", []),
    ],
    ids=[
        "complete", "complete, half of a CRLF", "cut", "cut inside a character", "cut word", "spaces",
        "the only line, complete", "the only line, cut", "the only line, after blank lines", "one byte",
    ],
)  # fmt: skip
def test_a_last_line_without_its_end_is_yielded_if_its_json_is_complete(
    body: bytes, expected: list[Any], split: int | None
) -> None:
    assert values(body, split) == expected


@pytest.mark.parametrize("cut", range(len('{"a": "ü"}\r\n{"b": [1]}\r\n'.encode())))
def test_a_cut_body_is_not_malformed(cut: int) -> None:
    body = '{"a": "ü"}\r\n{"b": [1]}\r\n'.encode()
    assert values(body[:cut]) in ([], [{"a": "ü"}], [{"a": "ü"}, {"b": [1]}])


def test_an_error_of_the_connection_comes_after_the_events_before_it() -> None:
    def feed() -> Iterator[bytes]:
        yield b"1\n2\n{"
        raise TransportError("the connection broke")

    events = ndjson_events(feed())
    assert [next(events), next(events)] == [("message", 1), ("message", 2)]
    with pytest.raises(TransportError, match="the connection broke"):
        next(events)


# Lines that are not JSON


@SPLITS
@pytest.mark.parametrize(
    "line", [b"hello", b'{"a": 1', b"{} {}", b'{"a": 1}]', b"{'a': 1}", b"\x00", b"[" * 100_000, b"9" * 5000]
)
def test_a_line_that_is_not_json_is_malformed_and_in_the_error(line: bytes, split: int | None) -> None:
    with pytest.raises(MalformedStreamError, match="a line of the stream is not JSON") as caught:
        values(b"1\n" + line + b"\n2\n", split)
    assert caught.value.body == line.decode()[: 64 * 1024]


def test_the_events_before_a_malformed_line_are_yielded() -> None:
    events = ndjson_events([b"1\n2\nno\n3\n"])
    assert [next(events), next(events)] == [("message", 1), ("message", 2)]
    with pytest.raises(MalformedStreamError):
        next(events)


@SPLITS
@pytest.mark.parametrize(
    "body",
    [b"<html>502 Bad Gateway</html>", b"upstream connect error", b"data: {}", b"<!doctype html>\n<html>\n", b"\xff"],
    ids=["HTML", "text", "an event stream", "HTML of two lines", "a byte that is not UTF-8"],
)
def test_a_body_that_is_not_ndjson_is_malformed_with_or_without_a_line_end(body: bytes, split: int | None) -> None:
    with pytest.raises(MalformedStreamError, match="not JSON") as caught:
        values(body, split)
    assert caught.value.body == body.decode("utf-8", "replace").split("\n")[0]


def test_a_pretty_printed_object_is_malformed() -> None:
    with pytest.raises(MalformedStreamError, match="not JSON"):
        values(b'{\n  "error": "no"\n}\n')


# Size


@SPLITS
@pytest.mark.parametrize("lead", [b"", b"1\n", b"\n"], ids=["first", "second", "after a blank line"])
@pytest.mark.parametrize("end", [b"\n", b""], ids=["with its end", "without its end"])
def test_a_line_over_the_limit_is_malformed_and_one_at_the_limit_is_not(
    lead: bytes, end: bytes, split: int | None
) -> None:
    line = b'"' + b"x" * 98 + b'"'
    pieces = chunks_of(lead + line + end, split)
    assert [value for _, value in ndjson_events(pieces, len(line))][-1:] == ["x" * 98]
    with pytest.raises(MalformedStreamError, match=r"a line is larger than max_event_bytes=99$"):
        list(ndjson_events(pieces, len(line) - 1))


def test_a_line_without_an_end_is_refused_at_the_limit() -> None:
    read = 0

    def feed() -> Iterator[bytes]:
        nonlocal read
        while True:
            read += 1000
            yield b"x" * 1000

    with pytest.raises(MalformedStreamError, match="max_event_bytes=5000"):
        list(ndjson_events(feed(), 5000))
    assert read == 6000


def test_a_long_line_in_small_pieces_takes_linear_time() -> None:
    """To join all bytes so far for each of the 600,000 pieces would copy a terabyte."""
    began = time.process_time()
    pieces = itertools.chain([b'"'], itertools.repeat(b"xxxxxxx", 600_000), [b'"\n'])
    ((_, value),) = ndjson_events(pieces)
    assert len(value) == 4_200_000
    assert time.process_time() - began < 10  # 0.1 s on a quiet machine


@pytest.mark.parametrize("blank", [b"\n", b"\r\n", b" \n", b"\t \r\n", b" " * 1000 + b"\n"], ids=repr)
def test_a_flood_of_blank_lines_takes_little_time(blank: bytes) -> None:
    flood = (blank * 65536)[:65536]
    half = flood[: 32768 // len(blank) * len(blank)]
    pieces = [*[flood] * 800, half + b'{"a":1}\n' + half]  # 50 MiB
    began = time.process_time()
    assert [value for _, value in ndjson_events(pieces)] == [{"a": 1}]
    assert time.process_time() - began < 1.5  # 0.06 s on a quiet machine; line by line it is 2.5 s


def test_memory_does_not_grow_with_the_stream() -> None:
    sent = b'{"text": "' + b"x" * 200 + b'"}\n'
    tracemalloc.start()
    try:
        for _ in ndjson_events(itertools.repeat(sent, 20_000)):
            pass
        assert tracemalloc.get_traced_memory()[1] < 1 * MIB  # of 4 MB
    finally:
        tracemalloc.stop()


# Anything


@settings(deadline=None)
@given(
    st.lists(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=5), max_size=5),
    st.lists(st.integers(1, 40), max_size=50),
)
def test_the_values_that_were_written_are_read_however_the_body_is_cut(written: list[Any], cuts: list[int]) -> None:
    body = "".join(f"{json.dumps(value, ensure_ascii=False)}\n" for value in written).encode()
    pieces = []
    for cut in cuts:
        pieces.append(body[:cut])
        body = body[cut:]
    assert [value for _, value in ndjson_events([*pieces, body])] == written


BYTES = st.lists(st.sampled_from([b"1", b"{", b"}", b'"', b"\n", b"\r", b" ", b"\xef\xbb\xbf", b"\xff"]), max_size=30)


@settings(deadline=None)
@given(st.binary(max_size=100) | BYTES.map(b"".join), st.integers(1, 9))
def test_the_outcome_does_not_depend_on_the_pieces(body: bytes, split: int) -> None:
    def outcome(pieces: list[bytes]) -> list[Any]:
        found: list[Any] = []
        try:
            found.extend(repr(event) for event in ndjson_events(pieces))
        except MalformedStreamError:
            found.append("malformed")
        return found

    assert outcome(chunks_of(body, split)) == outcome([body])
