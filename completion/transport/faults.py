"""Turns the exceptions of requests, urllib3 and http.client into errors of this library. None of them shows the key."""

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
from completion.transport.timeout import Timeout, described

# Our own CompletionErrors are none of these.
_NETWORK_ERRORS = (OSError, ValueError, http.client.HTTPException, urllib3.exceptions.HTTPError)


def must_raise_unchanged(exc: Exception) -> bool:
    """True if the exception is neither from the network libraries nor a builtin one.

    It may come from a signal handler of the program, such as that of Celery's soft time limit, or be an error of ours.
    """
    return not isinstance(exc, _NETWORK_ERRORS) and type(exc).__module__ != "builtins"


def describe_failure(
    exc: Exception, timeout: Timeout, authorization: Authorization, *, is_connecting: bool
) -> tuple[type[CompletionError], str]:
    """The type and the message of our error for an exception that requests raised before there was a response.

    The order of the checks matters: ConnectTimeout, SSLError and ProxyError are ConnectionErrors too.
    """
    reason = authorization.conceal(innermost_message(exc))
    kinds = requests.exceptions
    if missing := next(filter(None, map(shortage, _linked_exceptions(exc))), None):
        return TransportError, f"no connection: {missing}"
    if isinstance(exc, kinds.ConnectTimeout) or (is_connecting and is_timeout(exc)):
        return ConnectTimeoutError, f"no connection within {described(timeout, 'connect')}"
    if isinstance(exc, kinds.ReadTimeout | TimeoutError):
        return IdleTimeoutError, f"no response headers arrived within {described(timeout, 'read')}"
    if is_timeout(exc):
        return IdleTimeoutError, f"the server did not read the request within {described(timeout, 'read')}"
    if isinstance(exc, kinds.SSLError):
        return TransportError, f"TLS failed: {reason}"
    if isinstance(exc, kinds.ProxyError):
        return TransportError, f"the proxy failed: {reason}"
    if isinstance(exc, kinds.InvalidHeader | UnicodeError):
        return ConfigurationError, "a header is not valid HTTP: check headers= and the headers of session="
    if isinstance(exc, ValueError | http.client.InvalidURL):  # InvalidProxyURL, LocationParseError and others
        return ConfigurationError, f"base_url, or the URL of a proxy, is not a valid URL: {reason}"
    if isinstance(exc, kinds.ConnectionError):
        if is_connection_lost(exc):
            return TransportError, "the server closed the connection without an answer"
        if any(isinstance(one, http.client.HTTPException) for one in _linked_exceptions(exc)):
            return TransportError, f"the answer is not HTTP: {reason}"
        return TransportError, f"no connection: {reason}"
    if isinstance(exc, OSError) and not isinstance(exc, kinds.RequestException):
        return ConfigurationError, reason  # a CA bundle that does not exist
    return TransportError, f"the request failed: {reason}"


def is_connection_lost(exc: BaseException) -> bool:
    """True if the peer closed an established connection."""
    kinds = (http.client.RemoteDisconnected, http.client.IncompleteRead, ConnectionResetError, BrokenPipeError)
    return any(isinstance(one, kinds) for one in _linked_exceptions(exc))


def is_timeout(exc: BaseException) -> bool:
    return any(isinstance(one, TimeoutError | requests.exceptions.Timeout) for one in _linked_exceptions(exc))


def _linked_exceptions(exc: BaseException, *, end: BaseException | None = None) -> Iterator[BaseException]:
    """The exception, its causes and contexts, and the exceptions that it wraps; without ``end`` and those after it."""
    seen = {id(end)}
    todo: list[BaseException] = [exc]
    while todo:
        one = todo.pop()
        if id(one) not in seen:
            seen.add(id(one))
            yield one
            # urllib3 and requests keep the exception that they wrap in `reason` or in `args`.
            linked = (one.__cause__, one.__context__, getattr(one, "reason", None), *one.args)
            todo.extend(item for item in linked if isinstance(item, BaseException))


# urllib3 begins messages with a repr: HTTPConnection(host='…', port=443): Failed to …
_REPR_OF_CONNECTION = re.compile(r"^\w*(Connection|Pool)\(.*?\): ")


def innermost_message(exc: BaseException) -> str:
    """The message of the innermost wrapped exception, on one line."""
    innermost = exc
    while True:
        wrapped = (getattr(innermost, "reason", None), *innermost.args)
        deeper = next((item for item in wrapped if isinstance(item, BaseException)), None)
        if deeper is None:
            message = _REPR_OF_CONNECTION.sub("", " ".join(str(innermost).split()))[:300]
            return message or type(innermost).__name__
        innermost = deeper


def scrubbed(exc: BaseException, authorization: Authorization, handled: BaseException | None) -> BaseException | None:
    """The exception as a cause for our error; None if its message holds the key, because the server echoed it.

    A crash reporter would show the request with its headers, and the local variables of each frame: both are removed,
    from the linked exceptions too. ``handled`` is what the caller was handling before the call; it is not changed.
    """
    linked = list(_linked_exceptions(exc, end=handled))
    if any(authorization.conceal(repr(one)) != repr(one) for one in linked):
        return None
    for one in linked:
        if hasattr(one, "request"):
            one.request = None
        one.__traceback__ = None
    return exc
