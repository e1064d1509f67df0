"""Checks the base URL and the headers of a client, and completes a base URL from the environment."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from completion.contract.errors import ConfigurationError

# https://www.rfc-editor.org/rfc/rfc9110#section-5.5
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"(?:[!-~\xa0-\xff][\t -~\xa0-\xff]*)?")

_ALL_ADDRESSES = {"0.0.0.0": "127.0.0.1", "::": "::1"}


def given_base_url(base_url: str | None, variable: str, provider: str) -> str | None:
    """The base URL of the caller, or else that of the environment variable; None if there is neither.

    Raises:
        ConfigurationError: ``base_url`` is not a string, or the value of the variable is not a base URL.
    """
    if base_url:
        _require_str(base_url, provider)
        return base_url  # Endpoint checks the rest
    found = os.environ.get(variable)
    return checked_base_url(found, provider, variable) if found else None


def _require_str(base_url: object, provider: str) -> None:
    if not isinstance(base_url, str):
        raise ConfigurationError(f"base_url must be a str, got {type(base_url).__name__}", provider=provider)


def checked_base_url(base_url: str, provider: str, origin: str = "base_url") -> str:
    """The base URL without a slash at its end. ``origin``: the option or variable that it is from, for the errors.

    Raises:
        ConfigurationError: it is not an HTTP URL, or it contains white space, a user name, a password, a query or a
            fragment.
    """
    _require_str(base_url, provider)
    # Checked before urlsplit, which silently removes tabs and line ends.
    bad = next((at for at, char in enumerate(base_url) if char.isspace() or not char.isprintable()), None)
    if bad is not None:
        raise ConfigurationError(
            f"{origin} must not contain white space or control characters, got {base_url[bad]!r} at position {bad}",
            provider=provider,
        )
    try:
        parts = urlsplit(base_url)
        is_usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port or an IPv6 address that is not one
        is_usable = False
    if not is_usable:
        shown = base_url.rpartition("@")[2].partition("?")[0]
        raise ConfigurationError(f"{origin} must be like 'https://host/v1', got {shown!r}", provider=provider)
    if parts.username or parts.password:
        raise ConfigurationError(
            f"{origin} must not contain a user name or password: give api_key= or headers=", provider=provider
        )
    if parts.query or parts.fragment:
        raise ConfigurationError(
            f"{origin} must not contain a query or fragment: a key in a URL ends up in logs", provider=provider
        )
    return base_url.rstrip("/")


def completed_base_url(url: str, default: str | None) -> str:
    """A base URL from the environment. A path, scheme or host that it lacks is that of the default.

    The port too, but only if the scheme is missing: ``http://host`` means port 80. ``OLLAMA_HOST`` is also the variable
    of the server: 0.0.0.0 and :: mean that it listens on all addresses of this machine, so they become loopback here.
    """
    base = urlsplit(default or "")
    if "@" in url or not url.isprintable():
        return url  # checked_base_url refuses the password or the control character
    has_scheme = "://" in url
    if not has_scheme and (not base.netloc or "{" in base.netloc):
        return url
    try:
        parts = urlsplit(url if has_scheme else f"//{url}")
        port = parts.port if has_scheme else parts.port or base.port
    except ValueError:  # the port is not a number: checked_base_url refuses this too
        return url
    if has_scheme and parts.hostname not in _ALL_ADDRESSES:
        return url if parts.path.strip("/") else url.rstrip("/") + base.path
    host = parts.hostname or base.hostname or ""
    host = _ALL_ADDRESSES.get(host, host)
    netloc = f"[{host}]" if ":" in host else host
    return f"{parts.scheme or base.scheme}://{netloc}{f':{port}' if port else ''}{parts.path.rstrip('/') or base.path}"


def headers_of(options: Mapping[str, Any]) -> Mapping[str, str]:
    """The option ``headers``; an empty mapping if there is none.

    Raises:
        TypeError: it is not a mapping.
    """
    headers = options.get("headers")
    if headers is None:
        return {}
    if not isinstance(headers, Mapping):
        raise TypeError(f"headers= must be a dict of names and values, got {type(headers).__name__}")
    return headers


def checked_headers(headers: Mapping[str, str], provider: str) -> dict[str, str]:
    """The headers as a dict.

    Raises:
        ConfigurationError: a name or a value is not valid in HTTP. The message does not show the value.
    """
    for name, value in headers.items():
        if not isinstance(name, str) or not _HEADER_NAME.fullmatch(name):
            why = "a name in headers= is not a valid header name: use letters, digits and '-'"
        elif not isinstance(value, str):
            why = f"the header {name} in headers= must be a str, got {type(value).__name__}"
        elif not _HEADER_VALUE.fullmatch(value):
            why = (
                f"the value of the header {name} in headers= must not contain a line end, another control character "
                "or a character outside Latin-1, and must not begin with white space"
            )
        else:
            continue
        raise ConfigurationError(why, provider=provider)
    return dict(headers)
