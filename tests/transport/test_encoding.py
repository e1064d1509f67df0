"""A body that is compressed although the request asked for identity: one layer is decoded, in bounded pieces."""

from __future__ import annotations

import gzip
import random
import time
import tracemalloc
import zlib
from collections.abc import Iterator
from functools import cache
from typing import Final

import pytest

from completion import MalformedStreamError, Permanent, ServerError, TransportError
from completion.contract.errors import BODY_LIMIT
from completion.testing import ProviderServer, Reply, Stall, event
from completion.transport.encoding import Decoder, encoding_of
from tests import aws
from tests.adapters.test_adapters import Adapter, adapters, line
from tests.loopback import END, HI, model_of, text
from tests.wire_pieces import chunks_of

ANSWER: Final = text("Hel") + text("lo") + END
NOISE: Final = random.Random(7).randbytes(30_000) + b"a" * 200_000


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


FORMS: Final = {
    "gzip": ("gzip", gzip.compress),
    "gzip in two files": ("gzip", lambda data: gzip.compress(data[:99]) + gzip.compress(data[99:])),
    "gzip with padding": ("gzip", lambda data: gzip.compress(data) + b"\0" * 100),
    "x-gzip": ("x-gzip", gzip.compress),
    "deflate": ("deflate", zlib.compress),
    "raw deflate": ("deflate", raw_deflate),
}
forms = pytest.mark.parametrize(("encoding", "packed"), FORMS.values(), ids=FORMS)


def decoded(body: bytes, encoding: str, *, split: int, size: int = 64 * 1024) -> Iterator[bytes]:
    pieces = iter(chunks_of(body, split))
    decoder = Decoder(lambda size: next(pieces, b""), encoding_of(encoding))
    return iter(lambda: decoder.read1(size), b"")


@forms
@pytest.mark.parametrize("split", [1, 7, 1_000_000], ids=["byte by byte", "in sevens", "whole"])
@pytest.mark.parametrize("size", [100, 64 * 1024])
def test_a_body_is_decoded_in_bounded_pieces(encoding: str, packed: object, split: int, size: int) -> None:
    assert callable(packed)
    found = list(decoded(packed(NOISE), encoding, split=split, size=size))
    assert b"".join(found) == NOISE
    assert max(map(len, found)) <= size


def test_many_small_gzip_files_take_linear_time() -> None:
    body = gzip.compress(b"") * 30_000  # 600 KB
    began = time.monotonic()
    assert list(decoded(body, "gzip", split=64 * 1024)) == []
    assert time.monotonic() - began < 10


@forms
def test_a_compressed_answer_is_read(server: ProviderServer, encoding: str, packed: object) -> None:
    assert callable(packed)
    server.always(Reply(packed(ANSWER), headers={"Content-Encoding": encoding}))
    model = model_of(server)
    assert [model.chat_stream(HI).collect().text for _ in range(2)] == ["Hello"] * 2
    assert server.connections == 1


@adapters
@pytest.mark.parametrize("encoding", ["gzip, gzip", "gzip,deflate", "br", "zstd", "compress"])
def test_another_encoding_is_refused_by_the_call(server: ProviderServer, adapter: Adapter, encoding: str) -> None:
    server.reply(Reply(adapter.begun, adapter.ended, Stall(), headers={"Content-Encoding": encoding}))
    with pytest.raises(
        MalformedStreamError, match=rf"Content-Encoding '{encoding}': the request asked for identity"
    ) as caught:
        adapter.model(server.url).chat_stream(HI)
    assert (caught.value.provider, caught.value.model) == (adapter.family, "m")
    assert isinstance(caught.value.retry_classification(), Permanent)
    assert server.wait_hung_up()


@adapters
@pytest.mark.parametrize("encoding", ["gzip, gzip", "br"])
def test_an_error_with_an_unreadable_body_is_classified_by_its_status(
    server: ProviderServer, adapter: Adapter, encoding: str
) -> None:
    server.reply(Reply(b"\x01\x02", status=500, headers={"Content-Encoding": encoding}))
    with pytest.raises(ServerError):
        adapter.model(server.url).chat_stream(HI)


@adapters
def test_the_message_of_a_compressed_error_is_read(server: ProviderServer, adapter: Adapter) -> None:
    packed = gzip.compress(b'{"error": {"message": "the disk is full"}}')
    server.reply(Reply(packed, status=500, headers={"Content-Encoding": "gzip"}))
    with pytest.raises(ServerError, match="the disk is full"):
        adapter.model(server.url).chat_stream(HI)


@cache
def bomb(harmless: bytes) -> bytes:
    """About 40 KB of gzip that decode to 40 MB."""
    return gzip.compress(harmless * (40_000_000 // len(harmless)))


@adapters
def test_a_body_that_expands_too_far_is_refused(server: ProviderServer, adapter: Adapter) -> None:
    filler = b": ping\n\n" if adapter.event is event else b"\n" * 8 if adapter.event is line else aws.USAGE
    server.reply(Reply(bomb(filler), Stall(), headers={"Content-Encoding": "gzip"}))
    began = time.monotonic()
    with pytest.raises(MalformedStreamError, match=r"the body expands too far: .* bytes of gzip"):
        adapter.model(server.url).chat_stream(HI).collect()
    assert time.monotonic() - began < 20
    assert server.wait_hung_up()


def test_an_error_that_expands_too_far_is_cut(server: ProviderServer) -> None:
    server.reply(Reply(gzip.compress(b"x" * 50_000_000), Stall(), status=500, headers={"Content-Encoding": "gzip"}))
    tracemalloc.start()
    with pytest.raises(ServerError) as caught:
        model_of(server).chat_stream(HI)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert caught.value.body == "x" * BODY_LIMIT
    assert peak < 5_000_000


@adapters
def test_a_body_without_the_encoding_of_its_header_is_a_transport_error(
    server: ProviderServer, adapter: Adapter
) -> None:
    server.reply(Reply(adapter.begun, adapter.ended, headers={"Content-Encoding": "gzip"}))
    with pytest.raises(TransportError, match="the body is not valid gzip") as caught:
        adapter.model(server.url).chat_stream(HI).collect()
    assert (caught.value.provider, caught.value.model) == (adapter.family, "m")


@adapters
def test_gzip_without_its_checksum_changes_nothing(server: ProviderServer, adapter: Adapter) -> None:
    packed = gzip.compress(adapter.begun + adapter.ended)
    server.reply(Reply(packed[:-8], headers={"Content-Encoding": "gzip"}))
    assert adapter.model(server.url).chat_stream(HI).collect().text == "a"
