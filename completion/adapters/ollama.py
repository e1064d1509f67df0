"""Ollama's native chat, on this machine or another, and at ollama.com.

ChatRequest -> wires.ollama.lower -> POST {base_url}/api/chat -> wires.ollama.assemble

Ollama's OpenAI-compatible route is the family ``ollama-openai``.
"""

from __future__ import annotations

import os
import re
import sys
from typing import TYPE_CHECKING

from completion.adapters.account import HttpClient, HttpModel, HttpOptions, Options
from completion.adapters.checks import checked_base_url, completed_base_url
from completion.transport.credentials import ApiKey, Key
from completion.wires.ollama import OLLAMA_CHAT

if sys.version_info >= (3, 11):
    from typing import Unpack
elif TYPE_CHECKING:
    from typing_extensions import Unpack

BASE_URL = "http://localhost:11434"
URL_VARIABLES = ("OLLAMA_HOST", "OLLAMA_BASE_URL")


class OllamaClient(HttpClient):
    """An Ollama server.

    Args:
        api_key: a key, or a function that is called before each request; None reads ``OLLAMA_API_KEY``. Only
            ollama.com needs one.
        base_url: None reads ``OLLAMA_HOST`` or ``OLLAMA_BASE_URL``; without them it is ``http://localhost:11434``. In
            the variables, scheme and port may be missing, and 0.0.0.0 is this machine.
        timeout, session, headers, max_event_bytes: see HttpOptions. A server loads a model before it answers, which
            counts as ``read``.
    """

    name = "ollama"
    key_variable = "OLLAMA_API_KEY"

    def __init__(
        self, *, api_key: Key | None = None, base_url: str | None = None, **options: Unpack[HttpOptions]
    ) -> None:
        origin = "base_url"
        if not base_url:
            origin = next((name for name in URL_VARIABLES if os.environ.get(name, "").strip()), "")
            base_url = completed_base_url(os.environ[origin], BASE_URL) if origin else BASE_URL
        base_url = checked_base_url(base_url, self.name, origin)
        super().__init__(
            # A URL for the OpenAI-compatible route is often at hand; the native route is beside it.
            base_url=re.sub(r"/(v1|api)/?$", "", base_url),
            key=ApiKey(api_key, self.key_variable, is_optional=True),
            **options,
        )

    def models_path(self) -> str:
        return "/api/tags"

    def completion_model(self, model_id: str) -> OllamaModel:
        """A model of this server. All models of a client share its connections."""
        return OllamaModel(model_id, client=self)


class OllamaModel(HttpModel):
    """A model behind Ollama's native chat. Give the options of OllamaClient, or a ``client`` to share."""

    name = OllamaClient.name
    key_variable = OllamaClient.key_variable
    key_is_optional = True
    client_class = OllamaClient
    wire = OLLAMA_CHAT
    path = "/api/chat"

    def __init__(self, model: str, *, client: OllamaClient | None = None, **options: Unpack[Options]) -> None:
        super().__init__(model, client=client, **options)
