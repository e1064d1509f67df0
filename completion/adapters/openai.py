"""OpenAI Chat Completions, and every server that speaks it.

    ChatRequest -> lower -> POST {base_url}/chat/completions -> assemble -> StreamChunk

Wire: https://platform.openai.com/docs/api-reference/chat-streaming (read November 2026). What compatible servers
make of it is in the comments beside the code that reads it.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar
from urllib.parse import urlsplit

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
from completion.wires.openai_chat.assemble import assemble
from completion.wires.openai_chat.lower import lower

if sys.version_info >= (3, 11):
    from typing import Unpack
elif TYPE_CHECKING:
    from typing_extensions import Unpack

log = logging.getLogger(__name__)

# --- names -----------------------------------------------------------------------------------------------------

BASE_URL = "https://api.openai.com/v1"
PATH = "/chat/completions"


# --- the model -------------------------------------------------------------------------------------------------


class OpenAIClient(HttpClient):
    """An account at OpenAI, or at a compatible server through ``base_url``.

    Args:
        api_key: a key, or a function asked before each request; None reads ``OPENAI_API_KEY``.
        base_url: None reads ``OPENAI_BASE_URL``, else OpenAI's own.
        organization, project: None reads ``OPENAI_ORG_ID`` and ``OPENAI_PROJECT_ID``.
        compatible: the server is not OpenAI's own: it gets ``max_tokens`` instead of ``max_completion_tokens``, and
            ``top_k``. None tells it by the host of ``base_url``.
        timeout: a Timeout, or what ``requests`` takes.
        session: a ``requests.Session`` to use instead of one of our own.
        headers: sent with every request.
        max_event_bytes: a larger event of the stream raises MalformedStreamError.
    """

    name: ClassVar[str] = "openai"
    key_variable: ClassVar[str] = "OPENAI_API_KEY"

    @secretive
    def __init__(
        self,
        *,
        api_key: Key | None = None,
        base_url: str | None = None,
        organization: str | None = None,
        project: str | None = None,
        compatible: bool | None = None,
        timeout: TimeoutLike = Timeout(),  # noqa: B008  immutable
        session: Session | None = None,
        headers: Mapping[str, str] | None = None,
        max_event_bytes: int = MAX_EVENT_BYTES,
    ) -> None:
        base_url = base_url or os.environ.get("OPENAI_BASE_URL") or BASE_URL
        account = {
            "OpenAI-Organization": organization or os.environ.get("OPENAI_ORG_ID"),
            "OpenAI-Project": project or os.environ.get("OPENAI_PROJECT_ID"),
        }
        self._endpoint = Endpoint(
            provider=self.name,
            base_url=base_url,
            key=ApiKey(api_key, self.key_variable),
            timeout=timeout,
            headers={**{name: value for name, value in account.items() if value}, **(headers or {})},
            session=session,
            request_id_headers=("x-request-id",),
            max_event_bytes=max_event_bytes,
        )
        host = urlsplit(base_url).hostname or ""
        is_openai = host == "api.openai.com" or host.endswith(".api.openai.com")
        self._compatible = not is_openai if compatible is None else compatible

    def completion_model(self, model_id: str) -> OpenAIModel:
        """A handle on one model; all handles of this client share its connections."""
        return OpenAIModel(model_id, client=self)


class OpenAIOptions(Options, total=False):
    organization: str | None
    project: str | None
    compatible: bool | None


class OpenAIModel(HttpModel):
    """A model behind Chat Completions. Takes the options of OpenAIClient, or a ``client`` to share."""

    name: ClassVar[str] = OpenAIClient.name
    key_variable: ClassVar[str] = OpenAIClient.key_variable
    client_class = OpenAIClient
    _client: OpenAIClient

    @secretive
    def __init__(self, model: str, *, client: OpenAIClient | None = None, **options: Unpack[OpenAIOptions]) -> None:
        super().__init__(model, client, options)

    @opening
    def chat_stream(self, req: ChatRequest) -> ChatStream:
        """The answer as a stream.

        Raises:
            CompletionError: whatever keeps the stream from opening.
        """
        payload, dropped = lower(req, self.model, compatible=self._client._compatible)
        return self._client._endpoint.stream(PATH, payload, assemble, model=self.model, dropped=dropped)


# --- lower: ChatRequest -> the JSON body -------------------------------------------------------------------------


# --- assemble: events -> chunks ----------------------------------------------------------------------------------
