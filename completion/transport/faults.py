"""From the exceptions of requests, urllib3 and http.client to our errors; a key is in none of them."""

from __future__ import annotations

import http.client
import re
from collections.abc import Iterator

import requests
import urllib3

from completion.contract.errors import (
    CompletionError,
    ConfigurationError,
    ConnectTimeoutError,
    IdleTimeoutError,
    TransportError,
    shortage,
)
from completion.transport.credentials import Authorization
from completion.transport.timeout import Timeout

_OF_THE_WIRE = (OSError, ValueError, http.client.HTTPException, urllib3.exceptions.HTTPError)


def is_from_signal_handler(exc: BaseException) -> bool:
    """It goes through as it is: one of our own errors, or the program's. A signal handler may have raised it in the
    middle of a call, as that of Celery's soft time limit does."""
    if not isinstance(exc, Exception):
        return True
    return not isinstance(exc, _OF_THE_WIRE) and type(exc).__module__ != "builtins"


def explained(
    exc: Exception, timeout: Timeout, authorization: Authorization, *, is_connecting: bool
) -> tuple[type[CompletionError], str]:
    """What kind of failure an exception from ``requests`` is, and its message."""
    said = authorization.conceal(plain(exc))
    faults = requests.exceptions
    if missing := next(filter(None, map(shortage, _chain(exc))), None):
        return TransportError, f"no connection: {missing}"
    if isinstance(exc, faults.ConnectTimeout) or (is_connecting and _is_timeout(exc)):
        return ConnectTimeoutError, f"no connection within Timeout.connect={timeout.connect} s"
    if isinstance(exc, faults.ReadTimeout | TimeoutError):
        return IdleTimeoutError, f"no response headers came for Timeout.read={timeout.read} s"
    if _is_timeout(exc):
        return IdleTimeoutError, f"the server did not take the request for Timeout.read={timeout.read} s"
    if isinstance(exc, faults.SSLError):
        return TransportError, f"TLS failed: {said}"
    if isinstance(exc, faults.ProxyError):
        return TransportError, f"the proxy failed: {said}"
    if isinstance(exc, faults.InvalidHeader | UnicodeError):
        return ConfigurationError, "a header is not valid HTTP: check headers="
    if isinstance(exc, ValueError | http.client.InvalidURL):  # InvalidProxyURL, LocationParseError and their kin
        return ConfigurationError, f"base_url, or the URL of a proxy, is none that can be called: {said}"
    if isinstance(exc, faults.ConnectionError):
        if is_cut(exc):
            return TransportError, "the server closed the connection without an answer"
        if any(isinstance(one, http.client.HTTPException) for one in _chain(exc)):
            return TransportError, f"the answer is not HTTP: {said}"
        return TransportError, f"no connection: {said}"
    if isinstance(exc, OSError) and not isinstance(exc, faults.RequestException):
        return ConfigurationError, said  # a CA bundle that is not there
    return TransportError, f"the request failed: {said}"


def is_cut(exc: BaseException) -> bool:
    """The other side went away, rather than never having been there."""
    cuts = (http.client.RemoteDisconnected, http.client.IncompleteRead, ConnectionResetError, BrokenPipeError)
    return any(isinstance(one, cuts) for one in _chain(exc))


def _is_timeout(exc: BaseException) -> bool:
    return any(isinstance(one, TimeoutError | requests.exceptions.Timeout) for one in _chain(exc))


def _chain(exc: BaseException, *, end: BaseException | None = None) -> Iterator[BaseException]:
    """The exception and all that it wraps or was raised for, without ``end`` and what only ``end`` leads to."""
    seen = {id(end)}
    todo: list[BaseException] = [exc]
    while todo:
        one = todo.pop()
        if id(one) not in seen:
            seen.add(id(one))
            yield one
            inside = (one.__cause__, one.__context__, getattr(one, "reason", None), *one.args)
            todo.extend(item for item in inside if isinstance(item, BaseException))


_INTERNAL = re.compile(r"^\w*(Connection|Pool)\(.*?\): ")


def plain(exc: BaseException) -> str:
    """The innermost reason, on one line."""
    innermost = exc
    while True:
        inside = (getattr(innermost, "reason", None), *innermost.args)
        deeper = next((item for item in inside if isinstance(item, BaseException)), None)
        if deeper is None:
            return _INTERNAL.sub("", " ".join(str(innermost).split()))[:300] or type(innermost).__name__
        innermost = deeper


def scrubbed(exc: BaseException, authorization: Authorization, handled: BaseException | None) -> BaseException | None:
    """The exception without what a crash reporter would show of it: the request with its headers, and frames whose
    locals hold them. None when its words hold the key, because the server said it.

    ``handled``: what the caller was handling at the beginning; it stays as it is.
    """
    ours = list(_chain(exc, end=handled))
    if any(authorization.conceal(repr(one)) != repr(one) for one in ours):
        return None
    for one in ours:
        if hasattr(one, "request"):
            one.request = None
        one.__traceback__ = None
    return exc
