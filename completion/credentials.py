"""Keys: asked for once per request, and never shown in a repr, an error or a traceback's locals."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from completion.errors import CompletionError, ConfigurationError

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

    __slots__ = ("_found", "_given", "header", "prefix", "variable")

    def __init__(
        self, given: Key | None, variable: str, *, header: str = "Authorization", prefix: str = "Bearer "
    ) -> None:
        self.variable = variable
        self.header = header
        self.prefix = prefix
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
        if not key:
            why = f"no API key: set {self.variable} or give api_key="
        elif not isinstance(key, str):
            why = f"api_key must be a str or a function that gives one, got {type(key).__name__}"
        else:
            why = (
                f"the API key (api_key= or {self.variable}) holds a character that no HTTP header can carry: "
                "white space, a control character or one outside ASCII"
            )
        del key  # what shows the local variables of a traceback must not show it
        raise ConfigurationError(why, provider=provider)

    def _asked(self, provider: str) -> str:
        assert callable(self._given)
        try:
            return self._given()
        except CompletionError:
            raise
        except Exception as exc:
            raise ConfigurationError(
                f"the function that gives the API key failed: {type(exc).__name__}", provider=provider
            ) from exc

    def __getstate__(self) -> dict[str, Any]:
        return {
            "given": self._given,
            "variable": self.variable,
            "header": self.header,
            "prefix": self.prefix,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(  # type: ignore[misc]
            state["given"], state["variable"], header=state["header"], prefix=state["prefix"]
        )

    def __repr__(self) -> str:
        return f"<ApiKey {'given' if self._given is not None else f'from {self.variable}'}>"
