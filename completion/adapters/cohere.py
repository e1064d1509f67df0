"""Cohere's chat, version 2 of its API.

ChatRequest -> wires.cohere.lower -> POST {base_url}/v2/chat -> wires.cohere.assemble
"""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, ClassVar

from completion.adapters.account import HttpClient, HttpModel, HttpOptions, Options
from completion.adapters.checks import given_base_url
from completion.transport.credentials import ApiKey, Key
from completion.wires.cohere import COHERE_CHAT

if sys.version_info >= (3, 11):
    from typing import Unpack
elif TYPE_CHECKING:
    from typing_extensions import Unpack

BASE_URL = "https://api.cohere.com"
KEY_VARIABLES = ("CO_API_KEY", "COHERE_API_KEY")


class CohereClient(HttpClient):
    """An account at Cohere, or a private deployment through ``base_url``.

    Args:
        api_key: a key, or a function that is called before each request; None reads ``CO_API_KEY`` or
            ``COHERE_API_KEY``.
        base_url: what is before ``/v2``. None reads ``CO_API_URL``; without that it is Cohere's.
        timeout, session, headers, max_event_bytes: see HttpOptions.
    """

    name = "cohere"
    key_variable = KEY_VARIABLES[0]
    request_id_headers: ClassVar[tuple[str, ...]] = ("x-debug-trace-id", "x-request-id")

    def __init__(
        self, *, api_key: Key | None = None, base_url: str | None = None, **options: Unpack[HttpOptions]
    ) -> None:
        base_url = given_base_url(base_url, "CO_API_URL", self.name) or BASE_URL
        variable, *more = KEY_VARIABLES
        super().__init__(
            # Some URLs at hand are those of version 1.
            base_url=re.sub(r"/v[12]/?$", "", base_url),
            key=ApiKey(api_key, variable, more_variables=tuple(more)),
            **options,
        )

    def models_path(self) -> str:
        return "/v1/models?page_size=1000&endpoint=chat"

    def completion_model(self, model_id: str) -> CohereModel:
        """A model of this account. All models of a client share its connections."""
        return CohereModel(model_id, client=self)


class CohereModel(HttpModel):
    """A model behind Cohere's chat. Give the options of CohereClient, or a ``client`` to share."""

    name = CohereClient.name
    key_variable = CohereClient.key_variable
    key_variables = KEY_VARIABLES
    client_class = CohereClient
    wire = COHERE_CHAT
    path = "/v2/chat"

    def __init__(self, model: str, *, client: CohereClient | None = None, **options: Unpack[Options]) -> None:
        super().__init__(model, client=client, **options)
