"""Keys and tokens: read once per request, and never shown in a repr, an error or the local variables of a traceback."""

from __future__ import annotations

import base64
import json
import logging
import math
import os
import time
from collections.abc import Callable, Mapping
from typing import Any

from completion.contract.errors import CompletionError, ConfigurationError, TransportError
from completion.contract.frames import is_from_signal_handler

log = logging.getLogger(__name__)

_REFRESH_EARLY_SECONDS = 300.0
_RETRY_REFRESH_SECONDS = 30.0

Key = str | Callable[[], str]
"""A key, or a function that returns one and is called before each request."""


class Authorization:
    """The headers with the key, as a callable for the ``auth=`` of requests.

    In ``headers=`` an entry of ``.netrc`` would replace it.
    """

    __slots__ = ("_headers", "_secret")

    def __init__(self, headers: Mapping[str, str], secret: str) -> None:
        self._headers = headers
        self._secret = secret

    def __call__(self, prepared: Any) -> Any:
        prepared.headers.update(self._headers)
        return prepared

    def conceal(self, text: str) -> str:
        """The text with ``[key]`` in place of the key, in case the server echoed it."""
        # Shorter keys are placeholders for servers that need no key. To replace them would damage the message.
        return text.replace(self._secret, "[key]") if len(self._secret) >= 8 else text

    def __repr__(self) -> str:
        return "<Authorization>"


class ApiKey:
    """A key that the caller passed, or the one in the environment when this object is made.

    A pickle contains a passed key. A key from the environment is read again where it is unpickled.

    Args:
        given: the key, or a function that returns it; None reads the environment variable.
        variable: the environment variable.
        more_variables: other names of it, which are read if it is not set.
        is_optional: without a key, requests are sent without one.
        header, prefix: the header of the request, and what it has before the key.
        noun: what error messages call the key.
        option: the caller's argument, for error messages.
        ways: other ways than the variable to give a key, for error messages.
    """

    __slots__ = (
        *("_found", "_given", "header", "is_optional", "more_variables", "noun", "option", "prefix"),
        *("variable", "ways"),
    )

    def __init__(
        self,
        given: Key | None,
        variable: str,
        *,
        more_variables: tuple[str, ...] = (),
        is_optional: bool = False,
        header: str = "Authorization",
        prefix: str = "Bearer ",
        noun: str = "API key",
        option: str = "api_key",
        ways: str = "give api_key=",
    ) -> None:
        self.variable = variable
        self.more_variables = more_variables
        self.is_optional = is_optional
        self.header = header
        self.prefix = prefix
        self.noun = noun
        self.option = option
        self.ways = ways
        self._given = given
        found = filter(None, map(os.environ.get, (variable, *more_variables)))
        self._found = None if given is not None else next(found, None)

    def authorization(self, provider: str) -> Authorization:
        """The headers for one request.

        Raises:
            ConfigurationError: there is no key, or no header can contain it.
            TransportError: the function that returns the key raised an OSError.
        """
        key = self._call(provider) if callable(self._given) else self._given or self._found
        if isinstance(key, str):
            key = key.strip()
        if key and isinstance(key, str) and key.isascii() and key.isprintable() and " " not in key:
            return Authorization({self.header: self.prefix + key}, key)
        if not key and self.is_optional and not callable(self._given):
            return Authorization({}, "")
        variables = (self.variable, *self.more_variables)
        set_variable = next(filter(os.environ.get, variables), self.variable)
        origin = set_variable if self._given is None else f"{self.option}()" if callable(self._given) else self.option
        if not key and callable(self._given):
            why = f"{origin} returned no {self.noun}"
        elif not key:
            why = f"no {self.noun}: set {', '.join(variables)} or {self.ways}"
        elif not isinstance(key, str):
            why = f"{origin} must be a str, got {type(key).__name__}"
        elif self.prefix and key.startswith(self.prefix):
            why = f"the {self.noun} of {origin} starts with {self.prefix.strip()!r}: remove that"
        else:
            why = (
                f"the {self.noun} of {origin} contains a character that an HTTP header cannot contain: "
                "white space, a control character or one outside ASCII"
            )
        del key  # a crash reporter shows the local variables of a traceback
        raise ConfigurationError(why, provider=provider)

    def forget_token(self) -> None:
        """Forget a cached token. Called when the provider refused it: it may have been revoked."""
        if isinstance(self._given, CachedToken):
            self._given.forget()

    def _call(self, provider: str) -> str:
        assert callable(self._given)
        try:
            return self._given()
        except CompletionError:
            raise
        except Exception as exc:
            if is_from_signal_handler(exc):
                raise
            # After an OSError, which is a network error for most token providers, a retry may help.
            kind = TransportError if isinstance(exc, OSError) else ConfigurationError
            raise kind(f"{self.option}() failed: {type(exc).__name__}", provider=provider) from exc

    def __getstate__(self) -> dict[str, Any]:
        names = ("header", "is_optional", "more_variables", "noun", "option", "prefix", "variable", "ways")
        return {"given": self._given, **{name: getattr(self, name) for name in names}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def __repr__(self) -> str:
        return f"<ApiKey {'given' if self._given is not None else f'from {self.variable}'}>"


class CachedToken:
    """Caches the token of a function, and calls the function again five minutes before the token expires.

    The function returns a JSON Web Token, whose ``exp`` is the time of expiry, or an object with ``token`` and
    ``expires_on`` (seconds since the epoch), like those of azure-identity. A token without a time of expiry is not
    cached.

    Thread-safe. While one thread refreshes the token early, the others use the old one and do not wait. If the early
    refresh fails, the old token is used until it expires, and the next attempt is made after half a minute.
    """

    __slots__ = ("_cached", "_provider", "_refreshing", "_retry_refresh_at")

    def __init__(self, provider: Callable[[], Any]) -> None:
        self._provider = provider
        # The thread that refreshes, by process: a forked child does not inherit that thread, so it must not wait for
        # it. No lock: each operation on a dict is atomic.
        self._refreshing: dict[int, object] = {}
        self._retry_refresh_at = 0.0
        self.forget()

    def forget(self) -> None:
        """Call the function again next time."""
        self._cached = ("", 0.0)  # one tuple, so that no thread sees a token with the expiry of another token

    def __call__(self) -> str:
        token, expires_at = self._cached
        left = expires_at - time.time()
        if left > _REFRESH_EARLY_SECONDS or (left > 0 and time.monotonic() < self._retry_refresh_at):
            return token
        if left > 0:
            fresh = self._refresh_early(left)
            if fresh or time.time() < expires_at:
                return fresh or token
        del token  # a crash reporter shows the local variables of a traceback
        return self._refresh()

    def _refresh_early(self, left: float) -> str:
        """A new token; ``""`` if the function failed, or if another thread is calling it."""
        process, me = os.getpid(), object()
        if self._refreshing.setdefault(process, me) is not me:
            return ""
        try:
            fresh = self._refresh()
            if fresh and isinstance(fresh, str):
                return fresh
            reason = "it returned none"
        except Exception as exc:
            if is_from_signal_handler(exc):
                raise
            reason = type(exc).__name__
        finally:
            del self._refreshing[process]
        self._retry_refresh_at = time.monotonic() + _RETRY_REFRESH_SECONDS
        log.warning("the token provider failed, the old token is valid for %.0f s more: %s", left, reason)
        return ""

    def _refresh(self) -> str:
        returned = self._provider()
        token = getattr(returned, "token", returned)
        expires_at = _expires_at(returned, token)
        if expires_at:
            self._cached = (token, expires_at)
        return token  # type: ignore[no-any-return]  # ApiKey checks its type

    def __reduce__(self) -> tuple[Any, ...]:
        return CachedToken, (self._provider,)

    def __repr__(self) -> str:
        return "<CachedToken>"


def _expires_at(returned: Any, token: Any) -> float:
    """When the token that a function returned expires, in seconds since the epoch; 0 if unknown.

    https://www.rfc-editor.org/rfc/rfc7519#section-4.1.4
    """
    try:
        if not isinstance(returned, str):
            expires_at = float(returned.expires_on)
        else:
            claims = token.split(".")[1]  # the provider checks the signature
            expires_at = float(json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))["exp"])
    except Exception:  # an opaque token
        return 0.0
    return expires_at if token and isinstance(token, str) and math.isfinite(expires_at) else 0.0
