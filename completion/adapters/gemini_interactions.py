"""Gemini's Interactions API, which gets new models and tools first.

ChatRequest -> wires.gemini_interactions.lower -> POST {base_url}/v1beta/interactions -> … .assemble
"""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, ClassVar

from completion.adapters.account import HttpClient, HttpModel, HttpOptions, Options
from completion.adapters.checks import given_base_url
from completion.adapters.gemini import BASE_URL, KEY_VARIABLES, gemini_key
from completion.transport.credentials import Key
from completion.wires import sizes
from completion.wires.gemini_interactions import INTERACTIONS

if sys.version_info >= (3, 11):
    from typing import Unpack
elif TYPE_CHECKING:
    from typing_extensions import Unpack

PATH = "/v1beta/interactions"


class GeminiInteractionsClient(HttpClient):
    """An account at the Gemini API.

    Args:
        api_key: a key, or a function that is called before each request; None reads ``GEMINI_API_KEY`` or
            ``GOOGLE_API_KEY``.
        base_url: None reads ``GOOGLE_GEMINI_BASE_URL``; without that it is Google's.
        timeout, session, headers, max_event_bytes: see HttpOptions.
    """

    name = "gemini-interactions"
    key_variable = KEY_VARIABLES[0]
    own_hosts: ClassVar[str] = r"generativelanguage\.googleapis\.com"
    documented_sizes: ClassVar[tuple[sizes.SizeLimit, ...]] = sizes.GEMINI

    def __init__(
        self, *, api_key: Key | None = None, base_url: str | None = None, **options: Unpack[HttpOptions]
    ) -> None:
        base_url = given_base_url(base_url, "GOOGLE_GEMINI_BASE_URL", self.name) or BASE_URL
        super().__init__(base_url=re.sub(r"/v1beta/?$", "", base_url), key=gemini_key(api_key), **options)

    def models_path(self) -> str:
        return "/v1beta/models?pageSize=1000"

    def completion_model(self, model_id: str) -> GeminiInteractionsModel:
        """A model of this account. All models of a client share its connections."""
        return GeminiInteractionsModel(model_id, client=self)


class GeminiInteractionsModel(HttpModel):
    """A model behind the Interactions API. Give the options of its client, or a ``client`` to share."""

    name = GeminiInteractionsClient.name
    key_variable = GeminiInteractionsClient.key_variable
    key_variables = KEY_VARIABLES
    client_class = GeminiInteractionsClient
    wire = INTERACTIONS
    path = PATH

    def __init__(
        self, model: str, *, client: GeminiInteractionsClient | None = None, **options: Unpack[Options]
    ) -> None:
        super().__init__(model, client=client, **options)
