"""Servers on loopback, plain and with TLS, and an environment in which nobody's key or proxy stands."""

from __future__ import annotations

import gc
import os
import signal
import ssl
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import trustme
from filelock import FileLock

from completion.testing import ProviderServer
from tests.wire_pieces import IS_SAMPLED

# A busy machine is no fault of the code.
hypothesis.settings.register_profile("no deadline", deadline=None, max_examples=20 if IS_SAMPLED else 100)
hypothesis.settings.load_profile("no deadline")

_FOREIGN = ("OPENAI_", "ANTHROPIC_", "AZURE_OPENAI_", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "NETRC")
_CERTIFICATES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


if IS_SAMPLED:
    collect_ignore = ["test_readme.py"]

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
def turn_at_the_model() -> Iterator[None]:
    """One test at a time computes with the embedded model, of all that run on this machine.

    Its threads wait for each other at every layer: on two cores two suites at once take 38 s of CPU each, and 27 s
    one after the other.
    """
    with FileLock(Path(tempfile.gettempdir()) / "completion-tests.lock"):
        yield


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
