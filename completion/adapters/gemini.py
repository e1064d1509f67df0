"""Gemini's generateContent, with an API key or on Vertex AI.

ChatRequest -> wires.gemini.lower -> POST …/models/{model}:streamGenerateContent -> wires.gemini.assemble
"""

from __future__ import annotations

import os
import re
import sys
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import quote

from completion.adapters.account import HttpClient, HttpModel, HttpOptions, Options
from completion.adapters.checks import given_base_url
from completion.adapters.google_credentials import access_token
from completion.contract.errors import ConfigurationError
from completion.transport.credentials import ApiKey, CachedToken, Key
from completion.wires import sizes
from completion.wires.gemini import GENERATE_CONTENT
from completion.wires.gemini.names import COUNTED_ON_VERTEX

if sys.version_info >= (3, 11):
    from typing import Unpack
elif TYPE_CHECKING:
    from typing_extensions import Unpack

BASE_URL = "https://generativelanguage.googleapis.com"
KEY_VARIABLES = ("GEMINI_API_KEY", "GOOGLE_API_KEY")
METHOD = ":streamGenerateContent?alt=sse"
COUNT_METHOD = ":countTokens"


def gemini_key(api_key: Key | None) -> ApiKey:
    """The key of the Gemini API, or the one in the environment."""
    variable, *more = KEY_VARIABLES
    return ApiKey(api_key, variable, more_variables=tuple(more), header="x-goog-api-key", prefix="")


class GeminiClient(HttpClient):
    """An account at the Gemini API, or a project on Vertex AI if ``project`` is given.

    Args:
        api_key: a key, or a function that is called before each request; None reads ``GEMINI_API_KEY`` or
            ``GOOGLE_API_KEY``. Vertex AI needs none.
        base_url: None reads ``GOOGLE_GEMINI_BASE_URL``, on Vertex AI ``GOOGLE_VERTEX_BASE_URL``; without that it is
            Google's.
        project: a project of Google Cloud. Requests go to Vertex AI, with Google's application default credentials
            (extra ``google``).
        location: where Vertex AI runs the model; None reads ``GOOGLE_CLOUD_LOCATION``; without that it is ``global``.
        timeout, session, headers, max_event_bytes: see HttpOptions.

    Raises:
        ConfigurationError: ``api_key`` and ``project`` are both given, or ``location`` is given without ``project``.
    """

    name = "gemini"
    key_variable = KEY_VARIABLES[0]
    own_hosts: ClassVar[str] = r"generativelanguage\.googleapis\.com"
    documented_sizes: ClassVar[tuple[sizes.SizeLimit, ...]] = sizes.GEMINI

    def __init__(
        self,
        *,
        api_key: Key | None = None,
        base_url: str | None = None,
        project: str | None = None,
        location: str | None = None,
        **options: Unpack[HttpOptions],
    ) -> None:
        if project is None and location is not None:
            raise ConfigurationError("location= is for Vertex AI: give project= too", provider=self.name)
        if project is not None and api_key is not None:
            raise ConfigurationError(
                "got api_key= and project=: give a key for the Gemini API, or a project for Vertex AI",
                provider=self.name,
            )
        self.is_vertex = project is not None
        if project is None:
            self.parent, self.collection = "/v1beta", "models"
            base_url = given_base_url(base_url, "GOOGLE_GEMINI_BASE_URL", self.name) or BASE_URL
            key = gemini_key(api_key)
        else:
            location = location or os.environ.get("GOOGLE_CLOUD_LOCATION") or "global"
            # The token is sent to this host, so a location must not be able to change more of it than its own part.
            if not re.fullmatch(r"[a-z][a-z0-9-]*", location):
                raise ConfigurationError(f"location must be like 'europe-west4', got {location!r}", provider=self.name)
            self.parent = f"/v1/projects/{quote(project, safe=':')}/locations/{location}"
            self.collection = "publishers/google/models"
            prefix = "" if location == "global" else f"{location}-"
            base_url = given_base_url(base_url, "GOOGLE_VERTEX_BASE_URL", self.name)
            base_url = base_url or f"https://{prefix}aiplatform.googleapis.com"
            token = CachedToken(access_token)
            key = ApiKey(token, "GOOGLE_APPLICATION_CREDENTIALS", noun="token", option="access_token")
        super().__init__(base_url=re.sub(r"/v1(beta)?/?$", "", base_url), key=key, **options)

    def models_path(self) -> str | None:
        # Vertex AI has no list with this token: Google's models are in its Model Garden.
        return f"{self.parent}/models?pageSize=1000" if self.collection == "models" else None

    def completion_model(self, model_id: str) -> GeminiModel:
        """A model of this account. All models of a client share its connections."""
        return GeminiModel(model_id, client=self)


class GeminiOptions(Options, total=False):
    project: str | None
    location: str | None


class GeminiModel(HttpModel):
    """A model behind generateContent. Give the options of GeminiClient, or a ``client`` to share."""

    name = GeminiClient.name
    key_variable = GeminiClient.key_variable
    key_variables = KEY_VARIABLES
    client_class = GeminiClient
    wire = GENERATE_CONTENT
    client: GeminiClient
    count_field = "totalTokens"

    def __init__(self, model: str, *, client: GeminiClient | None = None, **options: Unpack[GeminiOptions]) -> None:
        super().__init__(model, client=client, **options)

    def request_path(self) -> str:
        return self._resource_path() + METHOD

    def count_request(self, body: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        counted: dict[str, Any]
        if self.client.is_vertex:
            counted = {name: value for name, value in body.items() if name in COUNTED_ON_VERTEX}
        else:  # with `contents` alone, the Gemini API would not count the system prompt and the tools
            counted = {"generateContentRequest": {"model": self._resource_name(), **body}}
        return self._resource_path() + COUNT_METHOD, counted

    def _resource_name(self) -> str:
        # An id with a slash has its collection: tunedModels/mine, endpoints/123.
        return self.model if "/" in self.model else f"{self.client.collection}/{self.model}"

    def _resource_path(self) -> str:
        return f"{self.client.parent}/{quote(self._resource_name(), safe='/')}"
