"""The chunked framing of a body is removed, however its bytes arrive, and broken framing is an error."""

from __future__ import annotations

import http.client
import io
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from completion.transport.chunked import ChunkedReader
from tests.loopback import END, HI, PATIENCE_S, Caught, model_at, text


def reader_of(*pieces: bytes) -> ChunkedReader:
    left = iter(pieces)
    return ChunkedReader(lambda size: next(left, b""))


def parts_of(reader: ChunkedReader) -> Iterator[bytes]:
    while part := reader.read1(65536):
        yield part


def in_pieces(body: bytes, size: int) -> list[bytes]:
    return [body[at : at + size] for at in range(0, len(body), size)]


# Framing


@pytest.mark.parametrize(
    ("body", "data"),
    [
        (b"5\r\ndata:\r\n3\r\n hi\r\n0\r\n\r\n", b"data: hi"),
        (b"0\r\n\r\n", b""),
        (b"A\r\n0123456789\r\n0\r\n\r\n", b"0123456789"),
        (b"a;name=value\r\n0123456789\r\n0;last\r\n\r\n", b"0123456789"),
        (b'a; q="5\r"\r\n0123456789\r\n0\r\n\r\n', b"0123456789"),
        (b"2\nhi\n0\n\n", b"hi"),
        (b" 2 \r\nhi\r\n000\r\nTrailer: x\r\nAnother: y\r\n\r\n", b"hi"),
        (b"4\r\n\r\n\r\n\r\n0\r\n\r\n", b"\r\n\r\n"),
        (b"0000000000000002\r\nhi\r\n" + b"0" * 16 + b"\r\n\r\n", b"hi"),
    ],
)
@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_the_data_of_all_chunks_is_returned(body: bytes, data: bytes, size: int) -> None:
    reader = reader_of(*in_pieces(body, size))
    assert b"".join(parts_of(reader)) == data
    assert reader.is_complete
    assert not reader.has_extra_bytes


def test_chunks_that_arrive_together_are_returned_together() -> None:
    assert list(parts_of(reader_of(b"2\r\nab\r\n2\r\ncd\r\n2\r\ne", b"f\r\n0\r\n\r\n"))) == [b"abcde", b"f"]


@pytest.mark.parametrize(
    "body",
    [
        *(b"zz\r\nhi\r\n", b"-2\r\nhi\r\n", b"+2\r\nhi\r\n", b"0x2\r\nhi\r\n", b"1_0\r\nhi\r\n", b"-0\r\n\r\n"),
        *(b"\r\nhi\r\n", b"\xb2\r\nhi", b"9" * 17 + b"\r\n", b"0" * 17 + b"\r\n\r\n", b"1 1\r\nhi\r\n", b";a\r\n"),
        *(b"2\r\nhi\r\n\r\n0\r\n\r\n", b"2\rhi\r\n0\r\n\r\n", b"2\x00\r\nhi\r\n", b"2\x0b\r\nhi\r\n"),
    ],
)
@pytest.mark.parametrize("size", [1, 1000])
def test_a_size_that_is_not_a_hexadecimal_number_is_an_error(body: bytes, size: int) -> None:
    with pytest.raises(http.client.HTTPException, match="not a hexadecimal number"):
        list(parts_of(reader_of(*in_pieces(body, size))))


@pytest.mark.parametrize("rest", [b"cd\r\n", b"\rc\r\n", b"\r\r\n", b"c"])
@pytest.mark.parametrize("size", [1, 1000])
def test_a_chunk_longer_than_its_size_is_an_error_after_its_data(rest: bytes, size: int) -> None:
    reader = reader_of(*in_pieces(b"2\r\nab" + rest, size))
    data = bytearray()
    with pytest.raises(http.client.HTTPException, match="longer than its size says"):
        list(map(data.extend, parts_of(reader)))
    assert data == b"ab"
    assert not reader.is_complete


@pytest.mark.parametrize("cut", range(1, len(b"2\r\nab\r\n0\r\n\r\n")))
def test_a_cut_body_is_incomplete(cut: int) -> None:
    reader = reader_of(b"2\r\nab\r\n0\r\n\r\n"[:cut])
    with pytest.raises(http.client.IncompleteRead):
        list(parts_of(reader))
    assert not reader.is_complete


def test_a_huge_size_allocates_nothing() -> None:
    reader = reader_of(b"f" * 16 + b"\r\nab")
    assert reader.read1(9) == b"ab"
    with pytest.raises(http.client.IncompleteRead):
        reader.read1(9)


def test_bytes_after_the_end_are_noticed() -> None:
    reader = reader_of(b"2\r\nab\r\n0\r\n\r\nHTTP/1.1 200 OK")
    assert list(parts_of(reader)) == [b"ab"]
    assert reader.is_complete
    assert reader.has_extra_bytes


def test_after_an_error_the_same_error_is_raised_again() -> None:
    reader = reader_of(b"zz\r\n", b"2\r\nab\r\n")
    for _ in range(2):
        with pytest.raises(http.client.HTTPException, match="not a hexadecimal number"):
            reader.read1(9)


@pytest.mark.parametrize("endless", [b"5;" + b"x" * 70_000, b"0\r\n" + b"a: b\r\n" * 20_000, b"0\r\n" + b"x" * 70_000])
@pytest.mark.parametrize("size", [1, 1000])
def test_a_line_without_an_end_is_an_error(endless: bytes, size: int) -> None:
    with pytest.raises(http.client.HTTPException, match="longer than 65536 bytes"):
        list(parts_of(reader_of(*in_pieces(endless, size))))


@pytest.mark.parametrize(
    "body",
    [
        (b"1;" + b"x" * 60_000 + b"\r\na\r\n") * 4 + b"0\r\n\r\n",
        b"1" + b" " * 60_000 + b"\r\na\r\n0\r\n\r\n",
        b"0\r\n" + b"x" * 60_000 + b"\r\n\r\n",
        b"0\r\n" + b"a\n" * 30_000 + b"\r\n",
    ],
    ids=["extensions", "spaces", "one trailer", "many trailers"],
)
def test_a_long_line_that_arrives_byte_by_byte_takes_linear_time(body: bytes) -> None:
    """When each byte was matched together with all bytes before it, 120 KB of extensions took 79 s."""
    began = time.process_time()
    reader = reader_of(*in_pieces(body, 1))
    assert set(b"".join(parts_of(reader))) <= set(b"a")
    assert reader.is_complete
    assert time.process_time() - began < 5  # 0.1 s on a quiet machine


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


class WithoutSocket:
    """Takes the place of the socket from which http.client reads a response."""

    def __init__(self, received: bytes) -> None:
        self._received = received

    def makefile(self, mode: str) -> io.BytesIO:
        return io.BytesIO(self._received)


LINES = st.sampled_from([b"1", b"2", b"a", b"0", b"00", b"\r\n", b"\r\n", b";x", b" ", b"-", b"+", b"x: y", b"ab"])


@given(st.lists(LINES, max_size=14), st.integers(1, 9))
def test_http_client_reads_the_same_data_from_every_body_that_is_accepted(lines: list[bytes], size: int) -> None:
    body = b"".join(lines) + b"\r\n0\r\n\r\n"
    reader = reader_of(*in_pieces(body, size))
    with suppress(http.client.HTTPException):
        data = b"".join(parts_of(reader))
    # Data that ends in CR is followed by a bare LF: http.client would skip the LF and one byte more.
    if reader.is_complete and b"\r" not in data:
        received = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body
        with http.client.HTTPResponse(WithoutSocket(received)) as response:  # type: ignore[arg-type]
            response.begin()
            assert response.read() == data


# The connection afterwards

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
EVENTS = text("a") + END
WHOLE = HEAD + b"%x\r\n%b\r\n0\r\n\r\n" % (len(EVENTS), EVENTS)
FORGED = WHOLE.replace(text("a"), text("z"))


@contextmanager
def answering(*answers: tuple[bytes, ...]) -> Iterator[tuple[str, list[int], list[threading.Event]]]:
    """A server that sends each answer to one request, in parts: each later part when the event before it is set.

    Yields its URL, the number of the connection of each request so far, and two events for each later part: the test
    sets the first, and the server sets the second when it has sent the part.
    """
    left = iter(answers)
    connections: list[int] = []
    events = [threading.Event() for parts in answers for _ in parts[1:] for _ in range(2)]
    steps = iter(events)

    def serve_connection(connection: socket.socket, number: int) -> None:
        with connection, connection.makefile("rb") as incoming, suppress(OSError):
            while incoming.readline():
                headers = dict(line.lower().split(b": ") for line in iter(incoming.readline, b"\r\n"))
                incoming.read(int(headers[b"content-length"]))
                connections.append(number)
                first, *later = next(left)
                connection.sendall(first)
                for part in later:
                    assert next(steps).wait(PATIENCE_S)
                    connection.sendall(part)
                    next(steps).set()

    def serve() -> None:
        for number in (1, 2):
            connection, _ = listener.accept()
            Caught(lambda connection=connection, number=number: serve_connection(connection, number))  # type: ignore[misc]

    with socket.create_server(("127.0.0.1", 0)) as listener:
        Caught(serve)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", connections, events
        listener.shutdown(socket.SHUT_RDWR)


def test_a_body_that_was_read_to_its_end_returns_its_connection_to_the_pool() -> None:
    with answering((WHOLE,), (WHOLE,), (WHOLE,)) as (url, connections, _):
        model = model_at(url)
        assert [model.chat_stream(HI).collect().text for _ in range(3)] == ["a"] * 3
        assert connections == [1, 1, 1]
        model.client.close()


@pytest.mark.parametrize("extra", [b"\r\n", b"0\r\n\r\n", FORGED], ids=["line end", "last chunk", "another response"])
def test_bytes_after_the_body_are_not_taken_for_the_next_response(extra: bytes) -> None:
    with answering((WHOLE + extra,), (WHOLE,)) as (url, connections, _):
        model = model_at(url)
        assert [model.chat_stream(HI).collect().text for _ in range(2)] == ["a"] * 2
        assert connections == [1, 2]
        model.client.close()


def test_bytes_that_follow_the_body_later_are_not_taken_for_the_next_response() -> None:
    with answering((WHOLE, FORGED), (WHOLE,)) as (url, connections, (may_send, was_sent)):
        model = model_at(url)
        assert model.chat_stream(HI).collect().text == "a"
        may_send.set()
        assert was_sent.wait(PATIENCE_S)
        assert model.chat_stream(HI).collect().text == "a"
        assert connections == [1, 2]
        model.client.close()
