"""Downloads a public URL. No key, cookie or password is sent."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import urljoin, urlsplit

import requests

from completion.contract.errors import TransportError
from completion.transport.faults import innermost_message
from completion.transport.session import new_session
from completion.version import __version__

MAX_REDIRECTS: Final = 5
_TIMEOUT_S: Final = (10.0, 30.0)  # for the connect, and for each read


def download(url: str, max_bytes: int) -> bytes:
    """The bytes at this URL. Redirects are followed, but not from https to http.

    Raises:
        TransportError: the server could not be reached, did not answer 200, or the file is larger than ``max_bytes``.
    """
    with new_session() as session:
        for _ in range(MAX_REDIRECTS + 1):
            try:
                found = _once(session, url, max_bytes)
            except (requests.RequestException, OSError, ValueError) as error:
                raise TransportError(f"{url} cannot be downloaded: {innermost_message(error)}") from error
            if isinstance(found, bytes):
                return found
            if urlsplit(url).scheme == "https" and urlsplit(found).scheme != "https":
                raise TransportError(f"{url} cannot be downloaded: it redirects to {found}, which is not encrypted")
            url = found
    raise TransportError(f"{url} cannot be downloaded: more than {MAX_REDIRECTS} redirects")


def _once(session: requests.Session, url: str, max_bytes: int) -> bytes | str:
    """The bytes, or the URL to which the server redirects."""
    with session.get(
        url,
        headers={"User-Agent": f"completion/{__version__}"},
        auth=_unchanged,  # without it, requests would send a password of .netrc
        stream=True,
        timeout=_TIMEOUT_S,
        allow_redirects=False,
    ) as response:
        if 300 <= response.status_code < 400 and response.headers.get("location"):
            return urljoin(url, response.headers["location"])
        if response.status_code != 200:
            raise TransportError(f"{url} cannot be downloaded: the server answered {response.status_code}")
        data = bytearray()
        for piece in response.iter_content(64 * 1024):
            data += piece
            if len(data) > max_bytes:
                raise TransportError(f"{url} cannot be downloaded: it is larger than {max_bytes // 1024 // 1024} MiB")
        return bytes(data)


def _unchanged(request: Any) -> Any:
    return request
