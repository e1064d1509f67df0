"""The chunked framing of a body, taken off whichever way its bytes arrive."""

from __future__ import annotations

import http.client
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from completion.transport.chunked import ChunkedReader


def reader_of(*pieces: bytes) -> ChunkedReader:
    left = iter(pieces)
    return ChunkedReader(lambda size: next(left, b""))


def parts_of(reader: ChunkedReader) -> Iterator[bytes]:
    while part := reader.read1(65536):
        yield part


def in_pieces(body: bytes, size: int) -> list[bytes]:
    return [body[at : at + size] for at in range(0, len(body), size)]


@pytest.mark.parametrize(
    ("body", "data"),
    [
        (b"5\r\ndata:\r\n3\r\n hi\r\n0\r\n\r\n", b"data: hi"),
        (b"0\r\n\r\n", b""),
        (b"A\r\n0123456789\r\n0\r\n\r\n", b"0123456789"),
        (b"a;name=value\r\n0123456789\r\n0;last\r\n\r\n", b"0123456789"),
        (b"2\nhi\n0\n\n", b"hi"),
        (b" 2 \r\nhi\r\n000\r\nTrailer: x\r\nAnother: y\r\n\r\n", b"hi"),
        (b"4\r\n\r\n\r\n\r\n0\r\n\r\n", b"\r\n\r\n"),
    ],
)
@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_the_data_is_what_the_chunks_hold(body: bytes, data: bytes, size: int) -> None:
    reader = reader_of(*in_pieces(body, size))
    assert b"".join(parts_of(reader)) == data
    assert reader.is_complete
    assert not reader.has_extra_bytes


def test_all_chunks_that_arrived_together_come_together() -> None:
    assert list(parts_of(reader_of(b"2\r\nab\r\n2\r\ncd\r\n2\r\ne", b"f\r\n0\r\n\r\n"))) == [b"abcde", b"f"]


@pytest.mark.parametrize(
    "body",
    [
        *(b"zz\r\nhi\r\n", b"-2\r\nhi\r\n", b"+2\r\nhi\r\n", b"0x2\r\nhi\r\n", b"1_0\r\nhi\r\n"),
        *(b"\r\nhi\r\n", b"\xb2\r\nhi", b"9" * 17 + b"\r\n"),
    ],
)
@pytest.mark.parametrize("size", [1, 1000])
def test_a_size_that_is_not_a_number_is_refused(body: bytes, size: int) -> None:
    with pytest.raises(http.client.HTTPException, match="not a number"):
        list(parts_of(reader_of(*in_pieces(body, size))))


@pytest.mark.parametrize("size", [1, 1000])
def test_a_chunk_longer_than_it_says_is_refused_after_its_data(size: int) -> None:
    reader = reader_of(*in_pieces(b"2\r\nabcd\r\n", size))
    assert reader.read1(9) in (b"a", b"ab")
    with pytest.raises(http.client.HTTPException, match="longer than it says"):
        list(parts_of(reader))


@pytest.mark.parametrize("cut", range(1, len(b"2\r\nab\r\n0\r\n\r\n")))
def test_a_cut_body_is_incomplete(cut: int) -> None:
    reader = reader_of(b"2\r\nab\r\n0\r\n\r\n"[:cut])
    with pytest.raises(http.client.IncompleteRead):
        list(parts_of(reader))
    assert not reader.is_complete


def test_bytes_behind_the_end_are_told() -> None:
    reader = reader_of(b"2\r\nab\r\n0\r\n\r\nHTTP/1.1 200 OK")
    assert list(parts_of(reader)) == [b"ab"]
    assert reader.is_complete
    assert reader.has_extra_bytes


@pytest.mark.parametrize("endless", [b"5;" + b"x" * 70_000, b"0\r\n" + b"a: b\r\n" * 20_000, b"0\r\n" + b"x" * 70_000])
def test_lines_without_end_are_refused(endless: bytes) -> None:
    with pytest.raises(http.client.HTTPException):
        list(parts_of(reader_of(*in_pieces(endless, 1000))))


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=8), st.lists(st.integers(1, 30), min_size=1))
def test_any_chunks_in_any_pieces_add_up(chunks: list[bytes], sizes: list[int]) -> None:
    body = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    pieces: list[bytes] = []
    at = 0
    while at < len(body):
        size = sizes[len(pieces) % len(sizes)]
        pieces.append(body[at : at + size])
        at += size
    assert b"".join(parts_of(reader_of(*pieces))) == b"".join(chunks)
