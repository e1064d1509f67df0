"""Anthropic Messages.

    ChatRequest -> lower -> POST {base_url}/v1/messages -> assemble -> StreamChunk

Wire: https://platform.claude.com/docs/en/build-with-claude/streaming and /docs/en/api/messages (read November 2026)
"""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from completion.adapters.account import HttpClient, HttpModel, Options
from completion.adapters.endpoint import Endpoint, TimeoutLike
from completion.contract.frames import secretive
from completion.contract.request import (
    ChatRequest,
)
from completion.contract.stream import ChatStream, opening
from completion.events.sse import MAX_EVENT_BYTES
from completion.transport import Session, Timeout
from completion.transport.credentials import ApiKey, Key
from completion.wires.anthropic.assemble import assemble
from completion.wires.anthropic.lower import lower
from completion.wires.anthropic.names import (
    VERSION,
)

if sys.version_info >= (3, 11):
    from typing import Unpack
elif TYPE_CHECKING:
    from typing_extensions import Unpack

log = logging.getLogger(__name__)

# --- names -----------------------------------------------------------------------------------------------------

BASE_URL = "https://api.anthropic.com"
PATH = "/v1/messages"


# --- the model -------------------------------------------------------------------------------------------------


class AnthropicClient(HttpClient):
    """An account at Anthropic, or at a compatible server through ``base_url``.

    Args:
        api_key: a key, or a function asked before each request; None reads ``ANTHROPIC_API_KEY``.
        base_url: None reads ``ANTHROPIC_BASE_URL``, else Anthropic's own.
        version: of the API. From ``2026-10-21`` on it takes no temperature, top_p and top_k.
        betas: names of features in beta, such as ``files-api-2025-04-14``.
        timeout, session, headers, max_event_bytes: as for OpenAIClient.
    """

    name: ClassVar[str] = "anthropic"
    key_variable: ClassVar[str] = "ANTHROPIC_API_KEY"

    @secretive
    def __init__(
        self,
        *,
        api_key: Key | None = None,
        base_url: str | None = None,
        version: str = VERSION,
        betas: Sequence[str] = (),
        timeout: TimeoutLike = Timeout(),  # noqa: B008  immutable
        session: Session | None = None,
        headers: Mapping[str, str] | None = None,
        max_event_bytes: int = MAX_EVENT_BYTES,
    ) -> None:
        if isinstance(betas, str):
            raise TypeError(f"betas takes a list of strings; write [{betas!r}]")
        base_url = base_url or os.environ.get("ANTHROPIC_BASE_URL") or BASE_URL
        given = {name.lower(): value for name, value in (headers or {}).items()}
        self._version = given.pop("anthropic-version", version)
        self._betas = (*(betas or ()), *filter(None, re.split(r"\s*,\s*", given.pop("anthropic-beta", ""))))
        if not isinstance(self._version, str) or not self._version:
            raise TypeError(f"version must be a string like {VERSION!r}, got {version!r}")
        own = {"anthropic-version": self._version}
        if self._betas:
            own["anthropic-beta"] = ",".join(self._betas)
        self._endpoint = Endpoint(
            provider=self.name,
            base_url=base_url.rstrip("/").removesuffix("/v1"),
            key=ApiKey(api_key, self.key_variable, header="x-api-key", prefix=""),
            timeout=timeout,
            headers={**own, **given},
            session=session,
            request_id_headers=("request-id", "x-request-id"),
            max_event_bytes=max_event_bytes,
        )

    def completion_model(self, model_id: str) -> AnthropicModel:
        """A handle on one model; all handles of this client share its connections."""
        return AnthropicModel(model_id, client=self)


class AnthropicOptions(Options, total=False):
    version: str
    betas: Sequence[str]


class AnthropicModel(HttpModel):
    """A model behind Anthropic Messages. Takes the options of AnthropicClient, or a ``client`` to share."""

    name: ClassVar[str] = AnthropicClient.name
    key_variable: ClassVar[str] = AnthropicClient.key_variable
    client_class = AnthropicClient
    _client: AnthropicClient

    @secretive
    def __init__(
        self, model: str, *, client: AnthropicClient | None = None, **options: Unpack[AnthropicOptions]
    ) -> None:
        super().__init__(model, client, options)

    @opening
    def chat_stream(self, req: ChatRequest) -> ChatStream:
        """The answer as a stream.

        Raises:
            CompletionError: whatever keeps the stream from opening.
        """
        client = self._client
        payload, dropped = lower(req, self.model, version=client._version, betas=client._betas)
        return client._endpoint.stream(PATH, payload, assemble, model=self.model, dropped=dropped)


# --- lower: ChatRequest -> the JSON body -------------------------------------------------------------------------


# --- assemble: events -> chunks ----------------------------------------------------------------------------------
