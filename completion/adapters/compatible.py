"""Providers that support one of OpenAI's wires at another base URL. Each one is a Provider, a row of a table.

    Provider(name, base URL, key, dialect) -> CompatibleClient -> CompatibleModel

A Provider is a family: it is called with a model id and options. Another package adds one as an entry point:

    ACME = Provider("acme", "https://api.acme.example/v1", "ACME_API_KEY")

    entry_points={"completion.adapters": ["acme = acme_llm:ACME"]}
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from completion.adapters.account import HttpClient, HttpModel
from completion.adapters.checks import checked_base_url, completed_base_url
from completion.adapters.openai import checked_dialect
from completion.adapters.openai_responses import WireName, check_wire, wire_and_path
from completion.contract.errors import ConfigurationError
from completion.contract.frames import hide_arguments_in_tracebacks
from completion.transport.credentials import ApiKey, Key
from completion.wires.openai_chat.dialect import COMPATIBLE, ChatDialect, ReasoningBack
from completion.wires.openai_responses.dialect import ResponsesDialect

_PLACEHOLDER = re.compile(r"\{(\w+)\}")
_HOST_PART = re.compile(r"[\w.-]+(?::\d+)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Provider:
    """A compatible provider. Call it with a model id and the options of CompatibleClient to make a model.

    Args:
        name: the family, and the ``name`` of its models.
        base_url: None if the caller must give one. It may have placeholders, as in ``https://{account}.host/v1``. Each
            is also an option of the client, such as ``account=``.
        key: the environment variable of the key, or several: the first that is set is used. ``()``: no key is needed.
        dialect: how its Chat Completions differ from those of OpenAI.
        wire: the wire that its models use, ``"chat"`` or ``"responses"``. The option ``wire=`` replaces it.
        runs_custom_tools: on Responses, the server runs custom tools itself. Their calls need no result.
        placeholders: placeholder name -> environment variable, read if the option is not given.
        url_variables: environment variables that replace ``base_url``; the first that is set is used. The value may
            omit scheme, port and path, as that of ``OLLAMA_HOST`` does.
        key_is_optional: without a key, requests are sent without one.
        key_header: the header of the key.
    """

    name: str
    base_url: str | None
    key: str | tuple[str, ...] = ()
    dialect: ChatDialect = COMPATIBLE
    placeholders: Mapping[str, str] = field(default_factory=dict)
    url_variables: tuple[str, ...] = ()
    key_is_optional: bool = False
    key_header: str = "Authorization"
    wire: WireName = "chat"
    runs_custom_tools: bool = False

    @property
    def key_variables(self) -> tuple[str, ...]:
        """The environment variables of the key, in the order in which they are read."""
        return (self.key,) if isinstance(self.key, str) else self.key

    @property
    def key_variable(self) -> str | None:
        """The first environment variable of the key; None if there is none."""
        return next(iter(self.key_variables), None)

    @hide_arguments_in_tracebacks
    def __call__(self, model: str, *, client: CompatibleClient | None = None, **options: Any) -> CompatibleModel:
        """A model of this provider. Give the options of CompatibleClient, or a ``client`` to share."""
        if client is not None and options:
            raise TypeError(f"give options to the client, not to the model that shares it: {', '.join(options)}")
        return (client or self.client(**options)).completion_model(model)

    @hide_arguments_in_tracebacks
    def client(self, **options: Any) -> CompatibleClient:
        """An account at this provider, with the options of CompatibleClient."""
        return CompatibleClient(self, **options)

    def url(self, parts: Mapping[str, str | None]) -> str:
        """The base URL, from the environment or this row. ``parts``: placeholder name -> the caller's value, or None.

        Raises:
            ConfigurationError: there is no base URL, or a placeholder has no valid value.
        """
        variable = next(filter(os.environ.get, self.url_variables), None)
        if variable and not any(parts.values()):
            base_url = completed_base_url(os.environ[variable].strip(), self.base_url)
            return checked_base_url(base_url, self.name, variable)
        if self.base_url is None:
            ways = " or ".join(["give base_url=", *(f"set {variable}" for variable in self.url_variables)])
            raise ConfigurationError(f"no base URL: {ways}", provider=self.name)
        return _PLACEHOLDER.sub(lambda match: self._placeholder_value(match[1], parts.get(match[1])), self.base_url)

    def _placeholder_value(self, name: str, given: str | None) -> str:
        variable = self.placeholders.get(name, "")
        value = given or os.environ.get(variable)
        if not value:
            ways = [f"give {name}=", *(f"set {other}" for other in (variable, *self.url_variables) if other)]
            raise ConfigurationError(f"no {name} for the base URL: {' or '.join(ways)}", provider=self.name)
        value = value.strip().removeprefix("https://").rstrip("/")
        # The key is sent to this URL, so the value must not be able to change the rest of the URL.
        if not _HOST_PART.fullmatch(value):
            origin = f"{name}=" if given else variable
            raise ConfigurationError(
                f"{origin} must contain only letters, digits, '.', '-' and '_', and may end with a port, got {value!r}",
                provider=self.name,
            )
        return value


class CompatibleClient(HttpClient):
    """An account at a compatible provider.

    Args:
        provider: the row of the table.
        api_key: a key, or a function that is called before each request; None reads the provider's environment
            variables.
        base_url: None reads the provider's environment variables. If none is set, it is the URL of the row.
        wire: ``"chat"`` or ``"responses"``; None means that of the row. The next two options are for ``"chat"``.
        token_field: the field for ``max_tokens``; None means that of the row.
        reasoning_back: how the reasoning of earlier turns is sent, see OpenAIClient; None means that of the row.
        options: values for the placeholders in the base URL, such as ``account=``, and those of HttpOptions.
    """

    def __init__(
        self,
        provider: Provider,
        *,
        api_key: Key | None = None,
        base_url: str | None = None,
        wire: WireName | None = None,
        token_field: str | None = None,
        reasoning_back: ReasoningBack | None = None,
        **options: Any,
    ) -> None:
        self.provider = provider
        self.name = provider.name
        self.wire: WireName = wire or provider.wire
        check_wire(self.wire, token_field, reasoning_back, provider=self.name)
        self.key_variable, *more = provider.key_variables or ("",)
        parts = {name: options.pop(name, None) for name in _PLACEHOLDER.findall(provider.base_url or "")}
        super().__init__(
            base_url=base_url or provider.url(parts),
            key=ApiKey(
                api_key,
                self.key_variable,
                more_variables=tuple(more),
                is_optional=provider.key_is_optional or not provider.key_variables,
                header=provider.key_header,
                prefix="Bearer " if provider.key_header == "Authorization" else "",
            ),
            dialect=self._dialect(token_field, reasoning_back),
            **options,
        )

    def _dialect(self, token_field: str | None, reasoning_back: ReasoningBack | None) -> Any:
        if self.wire == "chat":
            return checked_dialect(self.provider.dialect, token_field, reasoning_back, provider=self.name)
        return ResponsesDialect(runs_custom_tools=self.provider.runs_custom_tools)

    def models_path(self) -> str:
        return "/models"

    def completion_model(self, model_id: str) -> CompatibleModel:
        """A model of this account. All models of a client share its connections."""
        return CompatibleModel(model_id, client=self)


class CompatibleModel(HttpModel):
    """A model of a compatible provider. ``completion.model("groq:…")`` or a Provider makes it."""

    client_class = CompatibleClient

    def __init__(self, model: str, *, client: CompatibleClient) -> None:
        self.name = client.name
        self.key_variable = client.provider.key_variable
        super().__init__(model, client=client)
        self.wire, self.path = wire_and_path(client.wire)
