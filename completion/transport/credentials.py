"""Keys and tokens: asked for once per request, and never shown in a repr, an error or a traceback's locals."""

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
_ASK_AGAIN_SECONDS = 30.0

Key = str | Callable[[], str]
"""A key, or a function that is asked for one before each request."""


class Authorization:
    """The headers that prove who asks, as a callable for ``requests``' ``auth=``.

    Given as ``auth`` rather than as headers, they also keep ``.netrc`` from replacing them.
    """

    __slots__ = ("_headers", "_secret")

    def __init__(self, headers: Mapping[str, str], secret: str) -> None:
        self._headers = headers
        self._secret = secret

    def __call__(self, prepared: Any) -> Any:
        prepared.headers.update(self._headers)
        return prepared

    def conceal(self, text: str) -> str:
        """The text without the key, should a server have echoed it."""
        # A shorter one is a placeholder for a server that wants none, and may be a part of any word.
        return text.replace(self._secret, "[key]") if len(self._secret) >= 8 else text

    def __repr__(self) -> str:
        return "<Authorization>"


class ApiKey:
    """A key given by the caller, or found in the environment when this object is made.

    Pickles: a given key travels, one from the environment is looked up again on the other side.
    """

    __slots__ = ("_found", "_given", "header", "noun", "option", "prefix", "variable", "ways")

    def __init__(
        self,
        given: Key | None,
        variable: str,
        *,
        header: str = "Authorization",
        prefix: str = "Bearer ",
        noun: str = "API key",
        option: str = "api_key",
        ways: str = "give api_key=",
    ) -> None:
        self.variable = variable
        self.header = header
        self.prefix = prefix
        self.noun = noun
        self.option = option
        self.ways = ways
        self._given = given
        self._found = None if given is not None else os.environ.get(variable)

    def authorization(self, provider: str) -> Authorization:
        """What to send with one request.

        Raises:
            ConfigurationError: there is no key, or one that cannot stand in a header.
        """
        key = self._asked(provider) if callable(self._given) else self._given or self._found
        if isinstance(key, str):
            key = key.strip()
        if key and isinstance(key, str) and key.isascii() and key.isprintable() and " " not in key:
            return Authorization({self.header: self.prefix + key}, key)
        origin = self.variable if self._given is None else f"{self.option}()" if callable(self._given) else self.option
        if not key and callable(self._given):
            why = f"{origin} gave no {self.noun}"
        elif not key:
            why = f"no {self.noun}: set {self.variable} or {self.ways}"
        elif not isinstance(key, str):
            why = f"{origin} must be a str, got {type(key).__name__}"
        elif self.prefix and key.startswith(self.prefix):
            why = f"the {self.noun} of {origin} begins with {self.prefix.strip()!r}: leave that out"
        else:
            why = (
                f"the {self.noun} of {origin} holds a character that no HTTP header can carry: "
                "white space, a control character or one outside ASCII"
            )
        del key  # what shows the local variables of a traceback must not show it
        raise ConfigurationError(why, provider=provider)

    def refused(self) -> None:
        """The provider did not accept the last answer: a token that is kept may have been revoked."""
        if isinstance(self._given, CachedToken):
            self._given.forget()

    def _asked(self, provider: str) -> str:
        assert callable(self._given)
        try:
            return self._given()
        except CompletionError:
            raise
        except Exception as exc:
            if is_from_signal_handler(exc):
                raise
            # An OSError: what gives it is out of reach for now.
            kind = TransportError if isinstance(exc, OSError) else ConfigurationError
            raise kind(f"{self.option}() failed: {type(exc).__name__}", provider=provider) from exc

    def __getstate__(self) -> dict[str, Any]:
        names = ("header", "noun", "option", "prefix", "variable", "ways")
        return {"given": self._given, **{name: getattr(self, name) for name in names}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def __repr__(self) -> str:
        return f"<ApiKey {'given' if self._given is not None else f'from {self.variable}'}>"


class CachedToken:
    """A function that gives tokens, asked again five minutes before the last one expires.

    It may give a JSON web token, whose ``exp`` tells when that is, or an object with ``token`` and ``expires_on``
    (seconds since the epoch), as those of azure-identity. A token that does not tell is asked for each time.

    Thread-safe: while one thread asks early, the others do not wait but go on with the old token. When asking early
    fails, the old token serves as long as it lives, and half a minute passes before the next attempt.
    """

    __slots__ = ("_ask_again_at", "_asking", "_kept", "_provider")

    def __init__(self, provider: Callable[[], Any]) -> None:
        self._provider = provider
        # By process: who asked when a fork came asks in the parent only. Each step on a dict is atomic.
        self._asking: dict[int, object] = {}
        self._ask_again_at = 0.0
        self.forget()

    def forget(self) -> None:
        """Ask again next time."""
        self._kept = ("", 0.0)  # both at once: a thread sees no token with the other's expiry

    def __call__(self) -> str:
        token, expires_at = self._kept
        left = expires_at - time.time()
        if left > _REFRESH_EARLY_SECONDS or (left > 0 and time.monotonic() < self._ask_again_at):
            return token
        if left > 0:
            fresh = self._asked_early(left)
            if fresh or time.time() < expires_at:
                return fresh or token
        del token  # what shows the local variables of a traceback must not show it
        return self._asked()

    def _asked_early(self, left: float) -> str:
        """A new token; none where it could not be had, or where another thread is asking for it."""
        process, me = os.getpid(), object()
        if self._asking.setdefault(process, me) is not me:
            return ""
        try:
            fresh = self._asked()
            if fresh and isinstance(fresh, str):
                return fresh
            reason = "it gave none"
        except Exception as exc:
            if is_from_signal_handler(exc):
                raise
            reason = type(exc).__name__
        finally:
            del self._asking[process]
        self._ask_again_at = time.monotonic() + _ASK_AGAIN_SECONDS
        log.warning("a new token could not be had, the old one lives for %.0f s more: %s", left, reason)
        return ""

    def _asked(self) -> str:
        given = self._provider()
        token = getattr(given, "token", given)
        expires_at = _expires_at(given, token)
        if expires_at:
            self._kept = (token, expires_at)
        return token  # type: ignore[no-any-return]  # ApiKey looks at it

    def __reduce__(self) -> tuple[Any, ...]:
        return CachedToken, (self._provider,)

    def __repr__(self) -> str:
        return "<CachedToken>"


def _expires_at(given: Any, token: Any) -> float:
    """When a token expires, in seconds since the epoch; 0 where nobody says so.

    https://www.rfc-editor.org/rfc/rfc7519#section-4.1.4
    """
    try:
        if not isinstance(given, str):
            expires_at = float(given.expires_on)
        else:
            claims = token.split(".")[1]
            expires_at = float(json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))["exp"])
    except Exception:  # opaque
        return 0.0
    return expires_at if token and isinstance(token, str) and math.isfinite(expires_at) else 0.0
