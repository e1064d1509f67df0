"""Claude in the clouds: Anthropic Messages at Google Vertex AI, Azure Foundry and Amazon Bedrock's Mantle endpoint.

ChatRequest -> wires.anthropic.lower -> POST to the cloud -> wires.anthropic.assemble

The wire is Anthropic's; the address and the credentials are the cloud's. A signature of thinking is valid in every
cloud, so a history moves between them and Anthropic unchanged.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import quote

from completion.adapters.account import HttpClient, HttpModel, HttpOptions
from completion.adapters.anthropic import AnthropicOptions, versioned
from completion.adapters.checks import given_base_url
from completion.adapters.google_credentials import access_token as google_token
from completion.contract.errors import ConfigurationError
from completion.contract.request import ChatRequest
from completion.transport.credentials import ApiKey, CachedToken, Key
from completion.wires import sizes
from completion.wires.anthropic import MESSAGES
from completion.wires.anthropic.dialect import VERSION
from completion.wires.wire import Lowered

if sys.version_info >= (3, 11):
    from typing import Unpack
elif TYPE_CHECKING:
    from typing_extensions import Unpack

VERTEX_VERSION = "vertex-2023-10-16"
PATH = "/anthropic/v1/messages"

TokenProvider = Callable[[], Any]
"""Returns a bearer token: a string, or an object with ``token`` and ``expires_on``."""


# --- Google Vertex AI ------------------------------------------------------------------------------------------------
# https://platform.claude.com/docs/en/build-with-claude/claude-on-vertex-ai (read November 2026)


class AnthropicVertexClient(HttpClient):
    """A project of Google Cloud that uses Claude on Vertex AI.

    Args:
        project_id: the project; None reads ``ANTHROPIC_VERTEX_PROJECT_ID``.
        region: ``"global"``, ``"us"``, ``"eu"`` or a region such as ``"europe-west1"``; None reads ``CLOUD_ML_REGION``.
        access_token: a token of Google Cloud, or a function that is called before each request. None uses Google's
            application default credentials (extra ``google``).
        base_url: None reads ``ANTHROPIC_VERTEX_BASE_URL``; without that it is Google's server of the region.
        version: the version of the API; it goes into the body.
        betas, model_version: as in AnthropicClient.
        timeout, session, headers, max_event_bytes: see HttpOptions.

    Raises:
        ConfigurationError: the project or the region is missing, or is not valid in a URL.
    """

    name = "anthropic-vertex"
    key_variable = "GOOGLE_APPLICATION_CREDENTIALS"
    own_hosts: ClassVar[str] = r"(.+[-.])?aiplatform\.(.+\.rep\.)?googleapis\.com"
    documented_sizes: ClassVar[tuple[sizes.SizeLimit, ...]] = sizes.CLAUDE_IN_CLOUDS
    request_id_headers: ClassVar[tuple[str, ...]] = ("request-id", "x-request-id")

    def __init__(
        self,
        *,
        project_id: str | None = None,
        region: str | None = None,
        access_token: Key | None = None,
        base_url: str | None = None,
        version: str = VERTEX_VERSION,
        betas: Sequence[str] = (),
        model_version: str | None = None,
        **options: Unpack[HttpOptions],
    ) -> None:
        project_id = project_id or os.environ.get("ANTHROPIC_VERTEX_PROJECT_ID")
        if not project_id:
            raise ConfigurationError(
                "no project: set ANTHROPIC_VERTEX_PROJECT_ID or give project_id=", provider=self.name
            )
        region = _region(region, ("CLOUD_ML_REGION",), self.name)
        dialect = replace(versioned(options, version, betas, model_version, provider=self.name), reads_urls=False)
        options["headers"] = {
            name: value for name, value in (options["headers"] or {}).items() if name != "anthropic-version"
        }
        base_url = given_base_url(base_url, "ANTHROPIC_VERTEX_BASE_URL", self.name) or f"https://{_vertex_host(region)}"
        self.parent = f"/v1/projects/{quote(project_id, safe=':')}/locations/{region}/publishers/anthropic/models"
        if access_token is None:
            key = ApiKey(CachedToken(google_token), self.key_variable, noun="token", option="access_token")
        else:
            key = ApiKey(access_token, self.key_variable, noun="token", option="access_token")
        super().__init__(base_url=re.sub(r"/v1/?$", "", base_url), key=key, dialect=dialect, **options)

    def completion_model(self, model_id: str) -> AnthropicVertexModel:
        """A model of this project. All models of a client share its connections."""
        return AnthropicVertexModel(model_id, client=self)


def _vertex_host(region: str) -> str:
    if region in ("us", "eu"):  # several regions of one continent
        return f"aiplatform.{region}.rep.googleapis.com"
    return "aiplatform.googleapis.com" if region == "global" else f"{region}-aiplatform.googleapis.com"


class AnthropicVertexOptions(HttpOptions, total=False):
    project_id: str | None
    region: str | None
    access_token: Key | None
    base_url: str | None
    version: str
    betas: Sequence[str]
    model_version: str | None


class AnthropicVertexModel(HttpModel):
    """Claude on Vertex AI. Give the options of AnthropicVertexClient, or a ``client`` to share."""

    name = AnthropicVertexClient.name
    key_variable = AnthropicVertexClient.key_variable
    client_class = AnthropicVertexClient
    wire = MESSAGES
    client: AnthropicVertexClient

    def __init__(
        self, model: str, *, client: AnthropicVertexClient | None = None, **options: Unpack[AnthropicVertexOptions]
    ) -> None:
        super().__init__(model, client=client, **options)

    def request_path(self) -> str:
        return f"{self.client.parent}/{quote(self.model, safe='@')}:streamRawPredict"

    def lowered(self, request: ChatRequest) -> Lowered:
        body, dropped = super().lowered(request)
        body.pop("model", None)  # it is in the path
        return {"anthropic_version": self.client.dialect.version, **body}, dropped


# --- Azure Foundry ---------------------------------------------------------------------------------------------------
# https://platform.claude.com/docs/en/build-with-claude/claude-in-microsoft-foundry (read November 2026)


class AnthropicFoundryClient(HttpClient):
    """A resource of Azure Foundry.

    Args:
        resource: the name in ``https://<resource>.services.ai.azure.com``; None reads ``ANTHROPIC_FOUNDRY_RESOURCE``.
        base_url: the address instead of the resource; None reads ``ANTHROPIC_FOUNDRY_BASE_URL``.
        api_key: a key, or a function that is called before each request; None reads ``ANTHROPIC_FOUNDRY_API_KEY``.
        token_provider: returns Entra bearer tokens instead of a key, as in AzureOpenAIClient.
        version, betas, model_version: as in AnthropicClient. A deployment whose name is not a model id needs
            ``model_version``.
        timeout, session, headers, max_event_bytes: see HttpOptions.

    Raises:
        ConfigurationError: no address, an address and a resource, or a key and a token provider.
    """

    name = "anthropic-foundry"
    key_variable = "ANTHROPIC_FOUNDRY_API_KEY"
    request_id_headers: ClassVar[tuple[str, ...]] = ("request-id", "apim-request-id", "x-request-id")

    def __init__(
        self,
        *,
        resource: str | None = None,
        base_url: str | None = None,
        api_key: Key | None = None,
        token_provider: TokenProvider | None = None,
        version: str = VERSION,
        betas: Sequence[str] = (),
        model_version: str | None = None,
        **options: Unpack[HttpOptions],
    ) -> None:
        if token_provider is not None and api_key is not None:
            raise ConfigurationError("got api_key= and token_provider=: give one", provider=self.name)
        if token_provider is None:
            ways = "give api_key= or token_provider="
            key = ApiKey(api_key, self.key_variable, header="x-api-key", prefix="", ways=ways)
        elif callable(token_provider):
            key = ApiKey(CachedToken(token_provider), self.key_variable, noun="token", option="token_provider")
        else:
            kind = type(token_provider).__name__
            raise ConfigurationError(f"token_provider must be a function, got {kind}", provider=self.name)
        dialect = versioned(options, version, betas, model_version, provider=self.name)
        super().__init__(base_url=_foundry_url(resource, base_url, self.name), key=key, dialect=dialect, **options)

    def completion_model(self, model_id: str) -> AnthropicFoundryModel:
        """A deployment of this resource. All models of a client share its connections."""
        return AnthropicFoundryModel(model_id, client=self)


def _foundry_url(resource: str | None, base_url: str | None, name: str) -> str:
    """The address of the resource. An argument comes before the environment, as in Anthropic's own library."""
    if resource and base_url:
        raise ConfigurationError("got resource= and base_url=: give one", provider=name)
    if not resource:
        base_url = given_base_url(base_url, "ANTHROPIC_FOUNDRY_BASE_URL", name)
    if base_url:
        return _without_route(base_url)
    resource = resource or os.environ.get("ANTHROPIC_FOUNDRY_RESOURCE")
    if not resource:
        raise ConfigurationError(
            "no address: set ANTHROPIC_FOUNDRY_RESOURCE or ANTHROPIC_FOUNDRY_BASE_URL, or give resource= or base_url=",
            provider=name,
        )
    # The key is sent to this host, so a resource must not be able to change more of it than its own part.
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9-]*", resource):
        raise ConfigurationError(
            f"resource must be a name like 'my-resource', got {resource!r}; give an address as base_url=", provider=name
        )
    return f"https://{resource}.services.ai.azure.com"


class AnthropicFoundryOptions(AnthropicOptions, total=False):
    resource: str | None
    token_provider: TokenProvider | None


class AnthropicFoundryModel(HttpModel):
    """A deployment of Claude. Give the options of AnthropicFoundryClient, or a ``client`` to share."""

    name = AnthropicFoundryClient.name
    key_variable = AnthropicFoundryClient.key_variable
    client_class = AnthropicFoundryClient
    wire = MESSAGES
    path = PATH

    def __init__(
        self, model: str, *, client: AnthropicFoundryClient | None = None, **options: Unpack[AnthropicFoundryOptions]
    ) -> None:
        super().__init__(model, client=client, **options)


# --- Amazon Bedrock's Mantle endpoint --------------------------------------------------------------------------------
# https://docs.aws.amazon.com/bedrock/latest/userguide/bedrock-mantle.html (read November 2026)


class AnthropicMantleClient(HttpClient):
    """An account at Amazon Bedrock, through the endpoint that speaks Anthropic Messages.

    Args:
        region: such as ``"us-east-1"``; None reads ``AWS_REGION`` or ``AWS_DEFAULT_REGION``.
        api_key: an API key of Bedrock, or a function that is called before each request; None reads
            ``AWS_BEARER_TOKEN_BEDROCK``.
        base_url: None reads ``ANTHROPIC_BEDROCK_MANTLE_BASE_URL``; without that it is the server of the region.
        version, betas, model_version: as in AnthropicClient.
        timeout, session, headers, max_event_bytes: see HttpOptions.

    Raises:
        ConfigurationError: no region and no address, or the region is not valid in a URL.
    """

    name = "anthropic-mantle"
    key_variable = "AWS_BEARER_TOKEN_BEDROCK"
    own_hosts: ClassVar[str] = r"bedrock-mantle\..+\.api\.aws"
    documented_sizes: ClassVar[tuple[sizes.SizeLimit, ...]] = sizes.CLAUDE_IN_CLOUDS
    request_id_headers: ClassVar[tuple[str, ...]] = ("request-id", "x-amzn-requestid", "x-request-id")

    def __init__(
        self,
        *,
        region: str | None = None,
        api_key: Key | None = None,
        base_url: str | None = None,
        version: str = VERSION,
        betas: Sequence[str] = (),
        model_version: str | None = None,
        **options: Unpack[HttpOptions],
    ) -> None:
        base_url = given_base_url(base_url, "ANTHROPIC_BEDROCK_MANTLE_BASE_URL", self.name)
        if not base_url:
            region = _region(region, ("AWS_REGION", "AWS_DEFAULT_REGION"), self.name)
            base_url = f"https://bedrock-mantle.{region}.api.aws"
        dialect = replace(versioned(options, version, betas, model_version, provider=self.name), reads_urls=False)
        key = ApiKey(api_key, self.key_variable)
        super().__init__(base_url=_without_route(base_url), key=key, dialect=dialect, **options)

    def completion_model(self, model_id: str) -> AnthropicMantleModel:
        """A model of this account. All models of a client share its connections."""
        return AnthropicMantleModel(model_id, client=self)


class AnthropicMantleOptions(AnthropicOptions, total=False):
    region: str | None


class AnthropicMantleModel(HttpModel):
    """Claude at Bedrock's Mantle endpoint. Give the options of AnthropicMantleClient, or a ``client`` to share."""

    name = AnthropicMantleClient.name
    key_variable = AnthropicMantleClient.key_variable
    client_class = AnthropicMantleClient
    wire = MESSAGES
    path = PATH

    def __init__(
        self, model: str, *, client: AnthropicMantleClient | None = None, **options: Unpack[AnthropicMantleOptions]
    ) -> None:
        super().__init__(model, client=client, **options)


def _without_route(base_url: str) -> str:
    """The address of the server, also if the caller gave that of Anthropic's library or of the route."""
    return re.sub(r"(/anthropic)?(/v1)?(/messages)?/?$", "", base_url)


def _region(given: str | None, variables: tuple[str, ...], name: str) -> str:
    region = given or next(filter(None, map(os.environ.get, variables)), None)
    if not region:
        raise ConfigurationError(f"no region: set {' or '.join(variables)} or give region=", provider=name)
    # The token is sent to this host, so a region must not be able to change more of it than its own part.
    if not re.fullmatch(r"[a-z][a-z0-9-]*", region):
        raise ConfigurationError(f"region must be like 'us-east-1' or 'europe-west1', got {region!r}", provider=name)
    return region
