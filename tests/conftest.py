"""Servers on loopback, with and without TLS, and an environment without keys and proxies."""

from __future__ import annotations

import gc
import os
import signal
import ssl
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from completion.testing import ProviderServer
from tests.certificates import authority_file, server_context
from tests.wire_pieces import IS_SAMPLED

# No deadline: on a busy machine an example may take long.
hypothesis.settings.register_profile("no deadline", deadline=None, max_examples=20 if IS_SAMPLED else 100)
hypothesis.settings.load_profile("no deadline")

_FOREIGN = (
    *("OPENAI_", "ANTHROPIC_", "AZURE_OPENAI_", "GEMINI_", "GOOGLE_", "AWS_"),
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "NETRC"),
)
_CERTIFICATES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")

# The embedded model computes with one thread. Several threads wait for each other at every layer: if there are more
# processes than cores, two threads need a minute for one second's work. GNU OpenMP reads this when it is loaded.
os.environ["OMP_THREAD_LIMIT"] = "1"

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell that starts pytest with & ignores SIGINT, and every process of a test would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """Exclude the objects that exist now from garbage collection: they live to the end, and gc.collect() is faster."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.upper().startswith((*_FOREIGN, *_CERTIFICATES)):
            monkeypatch.delenv(name)
    # botocore must not look for credentials in the home folder, nor at the metadata service of a machine.
    for variable in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(variable, os.devnull)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def server() -> Iterator[ProviderServer]:
    with ProviderServer() as server:
        yield server


@pytest.fixture(scope="session")
def authority() -> tuple[ssl.SSLContext, Path]:
    """The TLS context of a server, and the file with the certificate of its authority."""
    return server_context(), authority_file()


@pytest.fixture
def untrusted_server(authority: tuple[ssl.SSLContext, Path]) -> Iterator[ProviderServer]:
    """A TLS server whose certificate requests does not trust."""
    with ProviderServer(ssl_context=authority[0]) as server:
        yield server


@pytest.fixture
def tls_server(
    untrusted_server: ProviderServer, authority: tuple[ssl.SSLContext, Path], monkeypatch: pytest.MonkeyPatch
) -> ProviderServer:
    """A TLS server whose certificate requests trusts."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority[1]))
    return untrusted_server


@pytest.fixture(params=["tcp", "tls"])
def any_server(request: pytest.FixtureRequest) -> ProviderServer:
    """The server without TLS and the server with TLS, one after the other."""
    found: ProviderServer = request.getfixturevalue("server" if request.param == "tcp" else "tls_server")
    return found
