"""Servers on loopback, plain and with TLS, and an environment in which nobody's key or proxy stands."""

from __future__ import annotations

import gc
import os
import signal
import ssl
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import trustme

from completion.testing import ProviderServer
from tests.wire_pieces import IS_SAMPLED

# A busy machine is no fault of the code.
hypothesis.settings.register_profile("no deadline", deadline=None, max_examples=20 if IS_SAMPLED else 100)
hypothesis.settings.load_profile("no deadline")

_FOREIGN = ("OPENAI_", "ANTHROPIC_", "AZURE_OPENAI_", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "NETRC")
_CERTIFICATES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")

# The embedded model computes with one thread. Several wait for each other at every layer: where processes outnumber
# the cores, what takes one thread a second takes two of them a minute. GNU OpenMP reads this when it is loaded.
os.environ["OMP_THREAD_LIMIT"] = "1"

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell that was told to start us with & has it ignored, here and in every process of a test.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """What pytest has made by now lives to the end: no gc.collect() of a test looks at it again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.upper().startswith((*_FOREIGN, *_CERTIFICATES)):
            monkeypatch.delenv(name)


@pytest.fixture
def server() -> Iterator[ProviderServer]:
    with ProviderServer() as server:
        yield server


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, Path]:
    """A server's TLS context, and the file with the certificate of the authority that vouches for it."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    bundle = tmp_path_factory.mktemp("tls") / "authority.pem"
    authority.cert_pem.write_to_path(str(bundle))
    return context, bundle


@pytest.fixture
def untrusted_server(authority: tuple[ssl.SSLContext, Path]) -> Iterator[ProviderServer]:
    """A TLS server whose certificate nobody vouches for."""
    with ProviderServer(ssl_context=authority[0]) as server:
        yield server


@pytest.fixture
def tls_server(
    untrusted_server: ProviderServer, authority: tuple[ssl.SSLContext, Path], monkeypatch: pytest.MonkeyPatch
) -> ProviderServer:
    """A TLS server that requests trusts."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority[1]))
    return untrusted_server


@pytest.fixture(params=["tcp", "tls"])
def any_server(request: pytest.FixtureRequest) -> ProviderServer:
    """Each of the two, one after the other."""
    found: ProviderServer = request.getfixturevalue("server" if request.param == "tcp" else "tls_server")
    return found
