"""Downloads a public URL. No key, cookie or password is sent."""

from __future__ import annotations

import ipaddress
import socket
from typing import Any, Final
from urllib.parse import urljoin, urlsplit

import requests
import urllib3

from completion.contract.errors import MalformedStreamError, TransportError
from completion.transport.encoding import Decoder, encoding_of
from completion.transport.faults import innermost_message
from completion.transport.session import new_session
from completion.version import __version__

MAX_REDIRECTS: Final = 5
_TIMEOUT_S: Final = (10.0, 30.0)  # for the connect, and for each read
_PIECE_BYTES: Final = 64 * 1024


def download(url: str, max_bytes: int) -> bytes:
    """The bytes at this URL. Redirects are followed, but not from https to http, nor from a public server to an address
    of this machine or of a private network: what is there would reach the provider in the prompt.

    Raises:
        TransportError: the server could not be reached, did not answer 200, or the file is larger than ``max_bytes``.
    """
    may_be_internal = None
    with new_session() as session:
        for _ in range(MAX_REDIRECTS + 1):
            try:
                found = _once(session, url, max_bytes)
                if isinstance(found, bytes):
                    return found
                if may_be_internal is None:
                    may_be_internal = _is_internal(url)
                is_refused = not may_be_internal and _is_internal(found)
            except MalformedStreamError as error:  # of the decoder
                raise TransportError(f"{url} cannot be downloaded: {error}") from None
            except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
                raise TransportError(f"{url} cannot be downloaded: {innermost_message(error)}") from error
            if is_refused:
                raise TransportError(
                    f"{url} cannot be downloaded: it redirects to {found}, which is not a public address"
                )
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
        encoding = encoding_of(response.headers.get("content-encoding"))

        def read(size: int) -> bytes:
            return response.raw.read(size, decode_content=False)

        # iter_content() decodes any number of layers of gzip, and a few KiB of gzip inside gzip expand to GiB.
        read_decoded = read if encoding == "identity" else Decoder(read, encoding).read1
        data = bytearray()
        while piece := read_decoded(_PIECE_BYTES):
            data += piece
            if len(data) > max_bytes:
                raise TransportError(f"{url} cannot be downloaded: it is larger than {max_bytes // 1024 // 1024} MiB")
        return bytes(data)


def _is_internal(url: str) -> bool:
    """Whether the host of this URL has an address that is not public. A host that cannot be resolved has none."""
    try:
        found = socket.getaddrinfo(urlsplit(url).hostname, None)
    except OSError:
        return False
    addresses = (ipaddress.ip_address(str(address[0]).partition("%")[0]) for *_, address in found)
    return not all((getattr(ip, "ipv4_mapped", None) or ip).is_global for ip in addresses)


def _unchanged(request: Any) -> Any:
    return request
