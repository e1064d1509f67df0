"""Certificates of an authority that only these tests know, for servers on loopback."""

from __future__ import annotations

import ssl
import tempfile
from functools import cache
from pathlib import Path

import trustme


def authority_file() -> Path:
    """The file with the certificate of the authority: a client that trusts it trusts ``server_context``."""
    return _authority()[1]


@cache
def server_context(host: str = "127.0.0.1") -> ssl.SSLContext:
    """The TLS context of a server whose certificate is for this host."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _authority()[0].issue_cert(host).configure_cert(context)
    return context


@cache
def _authority() -> tuple[trustme.CA, Path, tempfile.TemporaryDirectory[str]]:
    """The authority, its file, and the folder of the file, which lives as long as its object."""
    authority = trustme.CA()
    folder = tempfile.TemporaryDirectory()
    path = Path(folder.name) / "authority.pem"
    authority.cert_pem.write_to_path(str(path))
    return authority, path, folder
