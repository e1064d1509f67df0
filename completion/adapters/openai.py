"""OpenAI Chat Completions, at OpenAI and at every compatible server through ``base_url``.

ChatRequest -> wires.openai_chat.lower -> POST {base_url}/chat/completions -> wires.openai_chat.assemble
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, get_args
from urllib.parse import urlsplit

from completion.adapters.account import HttpClient, HttpModel, HttpOptions, Options
from completion.adapters.checks import given_base_url, headers_of
from completion.contract.errors import ConfigurationError
from completion.contract.request import EFFORTS
from completion.transport.credentials import ApiKey, Key
from completion.wires import sizes
from completion.wires.openai_chat import CHAT_COMPLETIONS
from completion.wires.openai_chat.dialect import COMPATIBLE, OPENAI, ChatDialect, ReasoningBack

if sys.version_info >= (3, 11):
    from typing import Unpack
elif TYPE_CHECKING:
    from typing_extensions import Unpack

BASE_URL = "https://api.openai.com/v1"
PATH = "/chat/completions"


class OpenAIClient(HttpClient):
    """An account at OpenAI, or at a compatible server through ``base_url``.

    Args:
        api_key: a key, or a function that is called before each request; None reads ``OPENAI_API_KEY``.
        base_url: None reads ``OPENAI_BASE_URL``; without that it is OpenAI's.
        organization, project: None reads ``OPENAI_ORG_ID`` and ``OPENAI_PROJECT_ID``.
        compatible: the server is not OpenAI's. It gets ``top_k``, and ``max_tokens`` instead of
            ``max_completion_tokens``, except for models such as ``openai/gpt-5.4``. None decides by the host of
            ``base_url``.
        token_field: the field for ``max_tokens``; None decides as described for ``compatible``.
        reasoning_back: the field in which the server wants the reasoning of earlier turns: ``"reasoning_content"``,
            ``"reasoning"``, ``"reasoning_details"``, ``"as_received"`` or ``"never"``. None: ``"never"`` at OpenAI,
            elsewhere ``"as_received"``.
        efforts: the words for ``reasoning_effort`` that the model accepts, such as ``["low", "high"]``; others become
            the nearest. None decides by the model id.
        timeout, session, headers, max_event_bytes: see HttpOptions.
    """

    name = "openai"
    key_variable = "OPENAI_API_KEY"
    own_hosts: ClassVar[str] = r"(.+\.)?api\.openai\.com"
    documented_sizes: ClassVar[tuple[sizes.SizeLimit, ...]] = sizes.OPENAI

    def __init__(
        self,
        *,
        api_key: Key | None = None,
        base_url: str | None = None,
        organization: str | None = None,
        project: str | None = None,
        compatible: bool | None = None,
        token_field: str | None = None,
        reasoning_back: ReasoningBack | None = None,
        efforts: Sequence[str] | None = None,
        **options: Unpack[HttpOptions],
    ) -> None:
        base_url = base_url_or_default(base_url, self.name)
        options["headers"] = {**account_headers(organization, project), **headers_of(options)}
        is_compatible = not is_openai(base_url) if compatible is None else compatible
        dialect = checked_dialect(
            COMPATIBLE if is_compatible else OPENAI, token_field, reasoning_back, provider=self.name
        )
        super().__init__(
            base_url=base_url,
            key=ApiKey(api_key, self.key_variable),
            dialect=replace(dialect, efforts=checked_efforts(efforts, self.name)),
            **options,
        )

    def models_path(self) -> str:
        return "/models"

    def completion_model(self, model_id: str) -> OpenAIModel:
        """A model of this account. All models of a client share its connections."""
        return OpenAIModel(model_id, client=self)


class OpenAIOptions(Options, total=False):
    organization: str | None
    project: str | None
    compatible: bool | None
    token_field: str | None
    reasoning_back: ReasoningBack | None
    efforts: Sequence[str] | None


class OpenAIModel(HttpModel):
    """A model behind Chat Completions. Give the options of OpenAIClient, or a ``client`` to share."""

    name = OpenAIClient.name
    key_variable = OpenAIClient.key_variable
    client_class = OpenAIClient
    wire = CHAT_COMPLETIONS
    path = PATH

    def __init__(self, model: str, *, client: OpenAIClient | None = None, **options: Unpack[OpenAIOptions]) -> None:
        super().__init__(model, client=client, **options)


def base_url_or_default(base_url: str | None, provider: str) -> str:
    """The base URL of the caller, or else of the environment, or else OpenAI's."""
    return given_base_url(base_url, "OPENAI_BASE_URL", provider) or BASE_URL


def account_headers(organization: str | None, project: str | None) -> dict[str, str]:
    """The headers that say who pays. None reads the environment."""
    account = {
        "OpenAI-Organization": organization or os.environ.get("OPENAI_ORG_ID"),
        "OpenAI-Project": project or os.environ.get("OPENAI_PROJECT_ID"),
    }
    return {name: value for name, value in account.items() if value}


def is_openai(base_url: str) -> bool:
    """The URL is at OpenAI's own host, also at one of its regions."""
    try:
        host = urlsplit(base_url).hostname or ""
    except ValueError:  # a broken IPv6 address: Endpoint raises the error
        return False
    return host == "api.openai.com" or host.endswith(".api.openai.com")


def checked_efforts(efforts: Sequence[str] | None, provider: str) -> tuple[str, ...] | None:
    unknown = [word for word in efforts or () if word not in EFFORTS]
    if unknown or (efforts is not None and not efforts):
        raise ConfigurationError(f"efforts must be some of {EFFORTS}, got {list(efforts or ())}", provider=provider)
    return None if efforts is None else tuple(efforts)


def checked_dialect(
    dialect: ChatDialect, token_field: str | None, reasoning_back: ReasoningBack | None, provider: str
) -> ChatDialect:
    """The dialect with the caller's options in it; None keeps what it has.

    Raises:
        ConfigurationError: ``reasoning_back`` is an unknown word.
    """
    if token_field is not None:
        dialect = replace(dialect, token_field=token_field)
    if reasoning_back is None:
        return dialect
    words = get_args(ReasoningBack)
    if reasoning_back not in words:
        raise ConfigurationError(
            f"reasoning_back must be one of {', '.join(words)}, got {reasoning_back!r}", provider=provider
        )
    return replace(dialect, reasoning_back=reasoning_back)
