"""Azure OpenAI: Chat Completions and Responses at another endpoint.

ChatRequest -> wires.openai_chat.lower -> POST to the resource -> wires.openai_chat.assemble

There are two routes. The v1 route is ``{base_url}/openai/v1/chat/completions``, with the deployment as ``model``. The
dated route needs an ``api_version``: ``{base_url}/openai/deployments/{deployment}/chat/completions?api-version=…``, or
``{base_url}/openai/responses?api-version=…`` with the deployment as ``model``.
Wire: https://learn.microsoft.com/azure/foundry/openai/api-version-lifecycle (read November 2026)
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import quote

from completion.adapters.account import HttpClient, HttpModel, HttpOptions, Options
from completion.adapters.checks import given_base_url
from completion.adapters.openai import checked_dialect
from completion.adapters.openai_responses import WireName, check_wire, wire_and_path
from completion.contract.errors import ConfigurationError
from completion.transport.credentials import ApiKey, CachedToken, Key
from completion.wires.openai_chat.dialect import OPENAI

if sys.version_info >= (3, 11):
    from typing import Unpack
elif TYPE_CHECKING:
    from typing_extensions import Unpack

V1_ROUTE = "/openai/v1"
KEY_VARIABLE = "AZURE_OPENAI_API_KEY"
TOKEN_VARIABLE = "AZURE_OPENAI_AD_TOKEN"

TokenProvider = Callable[[], Any]
"""Returns a bearer token: a string, or an object with ``token`` and ``expires_on``."""


class AzureOpenAIClient(HttpClient):
    """A resource of Azure OpenAI.

    Args:
        base_url: ``https://<resource>.openai.azure.com``; None reads ``AZURE_OPENAI_ENDPOINT``.
        api_key: a key, or a function that is called before each request.
        token: an Entra bearer token that does not change.
        token_provider: returns Entra bearer tokens: strings, or the tokens of azure-identity's ``get_token``. It is
            called before a request if the last token expires within five minutes, or has no ``expires_on``.
        api_version: the version of the dated route; None reads ``OPENAI_API_VERSION``. Without one, or with ``""``,
            the client uses the v1 route.
        token_field: the field for ``max_tokens``, for deployments that refuse ``max_completion_tokens``.
        wire: ``"responses"`` for OpenAI Responses, where models since gpt-5.6 call tools.
        timeout, session, headers, max_event_bytes: see HttpOptions.

    Give one of the three credentials. Without one, ``AZURE_OPENAI_API_KEY`` or ``AZURE_OPENAI_AD_TOKEN`` is read.

    Raises:
        ConfigurationError: no base URL, or more than one credential.
    """

    name = "azure-openai"
    key_variable = KEY_VARIABLE
    request_id_headers: ClassVar[tuple[str, ...]] = ("apim-request-id", "x-request-id")

    def __init__(
        self,
        *,
        base_url: str | None = None,
        api_key: Key | None = None,
        token: str | None = None,
        token_provider: TokenProvider | None = None,
        api_version: str | None = None,
        token_field: str | None = None,
        wire: WireName = "chat",
        **options: Unpack[HttpOptions],
    ) -> None:
        base_url = given_base_url(base_url, "AZURE_OPENAI_ENDPOINT", self.name)
        if not base_url:
            raise ConfigurationError("no base URL: set AZURE_OPENAI_ENDPOINT or give base_url=", provider=self.name)
        if "/openai/deployments/" in base_url:
            raise ConfigurationError(
                "base_url must not contain /openai/deployments/: give the URL of the resource, and the deployment as "
                "the model",
                provider=self.name,
            )
        check_wire(wire, token_field, None, provider=self.name)
        self.wire: WireName = wire
        self.api_version = (os.environ.get("OPENAI_API_VERSION") if api_version is None else api_version) or None
        super().__init__(
            base_url=base_url.rstrip("/").removesuffix(V1_ROUTE).removesuffix("/openai"),
            key=_key(api_key, token, token_provider, self.name),
            dialect=checked_dialect(OPENAI, token_field, None, provider=self.name) if wire == "chat" else None,
            **options,
        )

    def models_path(self) -> str:
        """The models that the resource can deploy. Deployments have names of their own, which only Azure's management
        API lists."""
        return f"/openai/models?api-version={quote(self.api_version)}" if self.api_version else f"{V1_ROUTE}/models"

    def completion_model(self, model_id: str) -> AzureOpenAIModel:
        """A deployment of this resource. All models of a client share its connections."""
        return AzureOpenAIModel(model_id, client=self)


class AzureOptions(Options, total=False):
    token: str | None
    token_provider: TokenProvider | None
    api_version: str | None
    token_field: str | None
    wire: WireName


class AzureOpenAIModel(HttpModel):
    """A deployment. Give the options of AzureOpenAIClient, or a ``client`` to share."""

    name = AzureOpenAIClient.name
    key_variable = AzureOpenAIClient.key_variable
    client_class = AzureOpenAIClient
    client: AzureOpenAIClient

    def __init__(
        self, deployment: str, *, client: AzureOpenAIClient | None = None, **options: Unpack[AzureOptions]
    ) -> None:
        super().__init__(deployment, client=client, **options)
        self.wire, self.path = wire_and_path(self.client.wire)

    def request_path(self) -> str:
        api_version = self.client.api_version
        if api_version is None:
            return V1_ROUTE + self.path
        deployment = f"/deployments/{quote(self.model, safe='')}" if self.client.wire == "chat" else ""
        return f"/openai{deployment}{self.path}?api-version={quote(api_version, safe='')}"


def _key(api_key: Key | None, token: str | None, token_provider: TokenProvider | None, name: str) -> ApiKey:
    """The key from the one credential that was given, or from the environment."""
    options = {"api_key=": api_key, "token=": token, "token_provider=": token_provider}
    names = [option for option, value in options.items() if value is not None]
    if not names:
        names = [variable for variable in (KEY_VARIABLE, TOKEN_VARIABLE) if os.environ.get(variable)]
    if len(names) > 1:
        raise ConfigurationError(f"got more than one credential, {' and '.join(names)}: give one", provider=name)
    if token_provider is not None:
        if not callable(token_provider):
            kind = type(token_provider).__name__
            raise ConfigurationError(
                f"token_provider must be a function, got {kind}; give a token as token=", provider=name
            )
        return ApiKey(CachedToken(token_provider), TOKEN_VARIABLE, noun="token", option="token_provider")
    if token is not None or names == [TOKEN_VARIABLE]:
        return ApiKey(token, TOKEN_VARIABLE, noun="token", option="token", ways="give token=")
    ways = f"{TOKEN_VARIABLE}, or give api_key=, token= or token_provider="
    return ApiKey(api_key, KEY_VARIABLE, header="api-key", prefix="", ways=ways)
