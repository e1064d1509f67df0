"""Where a fault happens: the server that plays it, and the URL and the environment of the client."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Literal

from completion.testing import ProviderServer
from tests.certificates import authority_file, server_context

Place = Literal[
    "server",
    "untrusted certificate",
    "certificate of another host",
    "https to http",
    "proxy",
    "dead proxy",
    "unknown host",
]

# requests reads the first one, the SDKs of the benchmark the second.
CA_VARIABLES: Final = ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE")


@contextmanager
def served(place: Place) -> Iterator[tuple[ProviderServer, str]]:
    """The server, and the URL to which the client sends its request. Environment variables are set meanwhile."""
    hosts = {"untrusted certificate": "127.0.0.1", "certificate of another host": "elsewhere.invalid"}
    context = server_context(hosts[place]) if place in hosts else None
    with ProviderServer(context) as server:
        urls = {
            "https to http": server.url.replace("http:", "https:"),
            "proxy": "https://provider.invalid",
            "unknown host": "http://provider.invalid",
        }
        variables: dict[str, str] = {}
        if place == "dead proxy":
            variables["HTTP_PROXY"] = "http://127.0.0.1:9"
        elif place == "proxy":
            variables["HTTPS_PROXY"] = server.url
        elif place == "certificate of another host":
            variables = dict.fromkeys(CA_VARIABLES, str(authority_file()))
        with _environment(variables):
            yield server, urls.get(place, server.url)


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
