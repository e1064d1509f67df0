"""Anthropic Messages, at Anthropic and at every compatible server through ``base_url``.

ChatRequest -> wires.anthropic.lower -> POST {base_url}/v1/messages -> wires.anthropic.assemble
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from completion.adapters.account import HttpClient, HttpModel, HttpOptions, Options
from completion.adapters.checks import given_base_url, headers_of
from completion.contract.errors import ConfigurationError
from completion.transport.credentials import ApiKey, Key
from completion.wires import sizes
from completion.wires.anthropic import MESSAGES
from completion.wires.anthropic.dialect import VERSION, MessagesDialect
from completion.wires.anthropic.names import COUNTED

if sys.version_info >= (3, 11):
    from typing import Unpack
elif TYPE_CHECKING:
    from typing_extensions import Unpack

BASE_URL = "https://api.anthropic.com"
PATH = "/v1/messages"


class AnthropicClient(HttpClient):
    """An account at Anthropic, or at a compatible server through ``base_url``.

    Args:
        api_key: a key, or a function that is called before each request; None reads ``ANTHROPIC_API_KEY``.
        base_url: None reads ``ANTHROPIC_BASE_URL``; without that it is Anthropic's.
        version: the version of the API. Since ``2026-10-21`` it does not support temperature, top_p and top_k.
        betas: beta features, such as ``files-api-2025-04-14``.
        model_version: the version of Claude, such as ``"4.6"``, if the model id does not contain it. It decides how
            ``reasoning_effort`` is sent, and what is refused before sending.
        timeout, session, headers, max_event_bytes: see HttpOptions.
    """

    name = "anthropic"
    key_variable = "ANTHROPIC_API_KEY"
    own_hosts: ClassVar[str] = r"api\.anthropic\.com"
    documented_sizes: ClassVar[tuple[sizes.SizeLimit, ...]] = sizes.ANTHROPIC
    request_id_headers: ClassVar[tuple[str, ...]] = ("request-id", "x-request-id")

    def __init__(
        self,
        *,
        api_key: Key | None = None,
        base_url: str | None = None,
        version: str = VERSION,
        betas: Sequence[str] = (),
        model_version: str | None = None,
        **options: Unpack[HttpOptions],
    ) -> None:
        base_url = given_base_url(base_url, "ANTHROPIC_BASE_URL", self.name) or BASE_URL
        dialect = versioned(options, version, betas, model_version, provider=self.name)
        super().__init__(
            base_url=base_url.rstrip("/").removesuffix("/v1"),
            key=ApiKey(api_key, self.key_variable, header="x-api-key", prefix=""),
            dialect=dialect,
            **options,
        )

    def models_path(self) -> str:
        return "/v1/models?limit=1000"

    def completion_model(self, model_id: str) -> AnthropicModel:
        """A model of this account. All models of a client share its connections."""
        return AnthropicModel(model_id, client=self)


def versioned(
    options: HttpOptions, version: str, betas: Sequence[str], model_version: str | None, *, provider: str
) -> MessagesDialect:
    """The dialect for these options of a client. Adds the version and the betas to ``options["headers"]``."""
    if isinstance(betas, str):
        raise TypeError(f"betas must be a list of strings, got a string: write [{betas!r}]")
    # A caller may give version and betas as headers too. The names are lower case, so that each is sent once.
    headers = {name.lower(): value for name, value in headers_of(options).items()}
    version = headers.pop("anthropic-version", version)
    betas = (*(betas or ()), *filter(None, re.split(r"\s*,\s*", headers.pop("anthropic-beta", ""))))
    if not isinstance(version, str) or not version:
        raise TypeError(f"version must be a string like {VERSION!r}, got {version!r}")
    headers["anthropic-version"] = version
    if betas:
        headers["anthropic-beta"] = ",".join(betas)
    options["headers"] = headers
    return MessagesDialect(version, betas, _parsed_version(model_version, provider))


def _parsed_version(text: str | None, provider: str) -> tuple[int, int] | None:
    if text is None:
        return None
    found = re.fullmatch(r"(\d+)(?:\.(\d+))?", text)
    if found is None:
        raise ConfigurationError(f"model_version must be like '4.6', got {text!r}", provider=provider)
    return int(found[1]), int(found[2] or 0)


class AnthropicOptions(Options, total=False):
    version: str
    betas: Sequence[str]
    model_version: str | None


class AnthropicModel(HttpModel):
    """A model behind Anthropic Messages. Give the options of AnthropicClient, or a ``client`` to share."""

    name = AnthropicClient.name
    key_variable = AnthropicClient.key_variable
    client_class = AnthropicClient
    wire = MESSAGES
    path = PATH
    count_path = f"{PATH}/count_tokens"
    counted_fields = COUNTED

    def __init__(
        self, model: str, *, client: AnthropicClient | None = None, **options: Unpack[AnthropicOptions]
    ) -> None:
        super().__init__(model, client=client, **options)
