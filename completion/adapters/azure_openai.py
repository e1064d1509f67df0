"""Azure OpenAI: OpenAI's two functions at another endpoint.

    ChatRequest -> OpenAI's lower -> POST to the resource -> OpenAI's assemble

Two routes: the v1 route, ``{base_url}/openai/v1/chat/completions`` with the deployment as ``model``, and with an
``api_version`` the dated one, ``{base_url}/openai/deployments/{deployment}/chat/completions?api-version=…``.
Wire: https://learn.microsoft.com/azure/foundry/openai/api-version-lifecycle (read November 2026)
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, ClassVar
from urllib.parse import quote

from completion.adapters.openai import PATH, assemble, lower
from completion.contract.request import ChatRequest
from completion.contract.stream import ChatStream
from completion.credentials import ApiKey, Key
from completion.endpoint import Endpoint, HttpClient, HttpModel, Options, Wait
from completion.errors import ConfigurationError
from completion.sse import MAX_EVENT_BYTES
from completion.transport import Session, Timeout

if sys.version_info >= (3, 11):
    from typing import Unpack
elif TYPE_CHECKING:
    from typing_extensions import Unpack

V1_ROUTE = "/openai/v1"


class AzureOpenAIClient(HttpClient):
    """A resource of Azure OpenAI.

    Args:
        base_url: ``https://<resource>.openai.azure.com``; None reads ``AZURE_OPENAI_ENDPOINT``.
        api_key: a key, or a function asked before each request; None reads ``AZURE_OPENAI_API_KEY``.
        token_provider: gives an Entra bearer token, asked before each request. With neither of the two,
            ``AZURE_OPENAI_AD_TOKEN`` may hold a token.
        api_version: of the dated route; None reads ``OPENAI_API_VERSION``, and without one takes the v1 route.
        timeout, session, headers, max_event_bytes: as for OpenAIClient.

    Raises:
        ConfigurationError: no base URL, or both an api_key and a token_provider.
    """

    name: ClassVar[str] = "azure-openai"
    key_variable: ClassVar[str] = "AZURE_OPENAI_API_KEY"

    def __init__(
        self,
        *,
        base_url: str | None = None,
        api_key: Key | None = None,
        token_provider: Callable[[], str] | None = None,
        api_version: str | None = None,
        timeout: Wait = Timeout(),  # noqa: B008  immutable
        session: Session | None = None,
        headers: Mapping[str, str] | None = None,
        max_event_bytes: int = MAX_EVENT_BYTES,
    ) -> None:
        base_url = base_url or os.environ.get("AZURE_OPENAI_ENDPOINT")
        if not base_url:
            raise ConfigurationError("no base URL: set AZURE_OPENAI_ENDPOINT or give base_url=", provider=self.name)
        self._api_version = api_version or os.environ.get("OPENAI_API_VERSION") or None
        self._endpoint = Endpoint(
            provider=self.name,
            base_url=base_url.rstrip("/").removesuffix(V1_ROUTE).removesuffix("/openai"),
            key=_key(api_key, token_provider, self.name),
            timeout=timeout,
            headers=headers,
            session=session,
            request_id_headers=("apim-request-id", "x-request-id"),
            max_event_bytes=max_event_bytes,
        )

    def completion_model(self, model_id: str) -> AzureOpenAIModel:
        """A handle on one deployment; all handles of this client share its connections."""
        return AzureOpenAIModel(model_id, client=self)


class AzureOptions(Options, total=False):
    token_provider: Callable[[], str] | None
    api_version: str | None


class AzureOpenAIModel(HttpModel):
    """A deployment. Takes the options of AzureOpenAIClient, or a ``client`` to share."""

    name: ClassVar[str] = AzureOpenAIClient.name
    key_variable: ClassVar[str] = AzureOpenAIClient.key_variable
    client_class = AzureOpenAIClient
    _client: AzureOpenAIClient

    def __init__(
        self, deployment: str, *, client: AzureOpenAIClient | None = None, **options: Unpack[AzureOptions]
    ) -> None:
        super().__init__(deployment, client, options)

    def chat_stream(self, req: ChatRequest) -> ChatStream:
        """The answer as a stream.

        Raises:
            CompletionError: whatever keeps the stream from opening.
        """
        payload, dropped = lower(req, self.model, adapter=self.name)
        path = _path(self.model, self._client._api_version)
        return self._client._endpoint.stream(path, payload, assemble, model=self.model, dropped=dropped)


def _key(api_key: Key | None, token_provider: Callable[[], str] | None, name: str) -> ApiKey:
    if api_key is not None and token_provider is not None:
        raise ConfigurationError("give api_key= or token_provider=, not both", provider=name)
    has_token = not os.environ.get("AZURE_OPENAI_API_KEY") and os.environ.get("AZURE_OPENAI_AD_TOKEN")
    if token_provider is not None or (api_key is None and has_token):
        return ApiKey(token_provider, "AZURE_OPENAI_AD_TOKEN")
    return ApiKey(api_key, "AZURE_OPENAI_API_KEY", header="api-key", prefix="")


def _path(deployment: str, api_version: str | None) -> str:
    if api_version is None:
        return V1_ROUTE + PATH
    return f"/openai/deployments/{quote(deployment, safe='')}{PATH}?api-version={quote(api_version)}"
