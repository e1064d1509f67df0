"""Downloads of attachments from servers that are hostile."""

from __future__ import annotations

import gzip

import pytest

from completion import TransportError
from completion.testing import ProviderServer, Reply
from completion.transport.download import download

MIB = 1024 * 1024
PUBLIC = "http://93.184.215.14/notes.txt"
"""An address that is not asked: a proxy on loopback answers for it."""


@pytest.fixture
def proxy(server: ProviderServer, monkeypatch: pytest.MonkeyPatch) -> ProviderServer:
    monkeypatch.setenv("http_proxy", server.url)
    return server


@pytest.mark.parametrize(
    "location",
    [
        *("http://127.0.0.1/secret", "http://127.1/secret", "http://2130706433/secret", "http://[::1]/secret"),
        *("http://[::ffff:127.0.0.1]/secret", "http://localhost/secret", "http://0.0.0.0/secret"),
        *("http://169.254.169.254/latest/meta-data/", "http://10.0.0.1/", "http://192.168.1.1/", "http://[fd00::1]/"),
    ],
)
def test_a_public_server_cannot_redirect_to_an_internal_address(proxy: ProviderServer, location: str) -> None:
    proxy.reply(Reply(status=302, headers={"Location": location}), Reply(b"secret"))
    with pytest.raises(TransportError, match="not a public address"):
        download(PUBLIC, MIB)
    assert len(proxy.requests) == 1


def test_redirects_between_public_servers_are_followed(proxy: ProviderServer) -> None:
    proxy.reply(Reply(status=302, headers={"Location": "http://93.184.215.15/b"}), Reply(b"found"))
    assert download(PUBLIC, MIB) == b"found"


def test_an_internal_server_that_the_user_named_may_redirect_to_itself(server: ProviderServer) -> None:
    server.reply(Reply(status=302, headers={"Location": "/b"}), Reply(b"found"))
    assert download(f"{server.url}/a", MIB) == b"found"


def test_endless_redirects_are_an_error(server: ProviderServer) -> None:
    server.always(Reply(status=302, headers={"Location": "/again"}))
    with pytest.raises(TransportError, match="more than 5 redirects"):
        download(server.url, MIB)


def test_no_more_than_the_limit_is_read(server: ProviderServer) -> None:
    server.reply(Reply(b"x" * (2 * MIB)))
    with pytest.raises(TransportError, match="larger than 1 MiB"):
        download(server.url, MIB)


def test_a_compressed_file_is_decoded(server: ProviderServer) -> None:
    server.reply(Reply(gzip.compress(b"found"), headers={"Content-Encoding": "gzip"}))
    assert download(server.url, MIB) == b"found"


@pytest.mark.parametrize(
    ("layers", "message"), [(1, "larger than 1 MiB"), (2, "only one layer of gzip")], ids=["one", "two"]
)
def test_a_compressed_bomb_is_refused(server: ProviderServer, layers: int, message: str) -> None:
    body = b"\0" * (32 * MIB)
    for _ in range(layers):
        body = gzip.compress(body)
    server.reply(Reply(body, headers={"Content-Encoding": ", ".join(["gzip"] * layers)}))
    with pytest.raises(TransportError, match=message):
        download(server.url, MIB)


def test_a_file_that_is_cut_is_an_error(server: ProviderServer) -> None:
    whole = Reply(b"x" * 1000, framing="length", headers={"Content-Length": "2000", "Connection": "close"})
    server.reply(whole)
    with pytest.raises(TransportError):
        download(server.url, MIB)
