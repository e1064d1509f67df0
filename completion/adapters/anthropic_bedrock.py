"""Claude at Amazon Bedrock, on Anthropic's own wire: events of Anthropic Messages in frames of Amazon.

ChatRequest -> wires.anthropic.lower -> POST …/model/{id}/invoke-with-response-stream -> wires.anthropic.assemble

API: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_InvokeModelWithResponseStream.html (read
November 2026)
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import quote

from completion.adapters.account import HttpModel, HttpOptions
from completion.adapters.bedrock import BedrockClient, BedrockOptions
from completion.contract.request import ChatRequest
from completion.events.aws_eventstream import aws_chunk_events
from completion.transport.credentials import Key
from completion.wires import sizes
from completion.wires.anthropic import MESSAGES
from completion.wires.anthropic.dialect import MessagesDialect
from completion.wires.bedrock_converse import ACCEPT
from completion.wires.claude import version_of
from completion.wires.wire import Lowered

if sys.version_info >= (3, 11):
    from typing import Unpack
elif TYPE_CHECKING:
    from typing_extensions import Unpack

VERSION = "bedrock-2023-05-31"
"""The version of the API, which is in the body here."""


class AnthropicBedrockClient(BedrockClient):
    """An account at Amazon Bedrock, for Claude on Anthropic's own wire.

    Args:
        betas: beta features, such as ``context-management-2025-06-27``.
        base_model: the model behind the id of an inference profile. It tells the version of Claude.
        api_key, base_url, region, aws_access_key_id, aws_secret_access_key, aws_session_token, profile: see
            BedrockClient.
        timeout, session, headers, max_event_bytes: see HttpOptions.
    """

    name = "anthropic-bedrock"
    documented_sizes: ClassVar[tuple[sizes.SizeLimit, ...]] = sizes.CLAUDE_IN_CLOUDS

    def __init__(
        self,
        *,
        betas: Sequence[str] = (),
        api_key: Key | None = None,
        base_url: str | None = None,
        region: str | None = None,
        aws_access_key_id: str | None = None,
        aws_secret_access_key: str | None = None,
        aws_session_token: str | None = None,
        profile: str | None = None,
        base_model: str | None = None,
        **options: Unpack[HttpOptions],
    ) -> None:
        if isinstance(betas, str):
            raise TypeError(f"betas must be a list of strings, got a string: write [{betas!r}]")
        super().__init__(
            api_key=api_key,
            base_url=base_url,
            region=region,
            aws_access_key_id=aws_access_key_id,
            aws_secret_access_key=aws_secret_access_key,
            aws_session_token=aws_session_token,
            profile=profile,
            **options,
        )
        version = version_of(base_model) if base_model else None
        self.dialect = MessagesDialect(VERSION, tuple(betas), version, reads_urls=False)

    def completion_model(self, model_id: str) -> AnthropicBedrockModel:  # type: ignore[override]
        """A model of this account. All models of a client share its connections."""
        return AnthropicBedrockModel(model_id, client=self)


class AnthropicBedrockOptions(BedrockOptions, total=False):
    betas: Sequence[str]


class AnthropicBedrockModel(HttpModel):
    """Claude behind InvokeModelWithResponseStream. Give the options of AnthropicBedrockClient, or a ``client``.

    ``model``: the id or the ARN of a model or of an inference profile.
    """

    name = AnthropicBedrockClient.name
    key_variable = AnthropicBedrockClient.key_variable
    client_class = AnthropicBedrockClient
    wire = replace(MESSAGES, events=aws_chunk_events, accept=ACCEPT)

    def __init__(
        self,
        model: str,
        *,
        client: AnthropicBedrockClient | None = None,
        **options: Unpack[AnthropicBedrockOptions],
    ) -> None:
        super().__init__(model, client=client, **options)

    def lowered(self, request: ChatRequest) -> Lowered:
        """The body of Anthropic Messages. The model and the kind of the answer are in the URL instead."""
        body, dropped = super().lowered(request)
        own: dict[str, Any] = {"anthropic_version": VERSION}
        if self.client.dialect.betas:
            own["anthropic_beta"] = list(self.client.dialect.betas)
        return {**own, **{name: value for name, value in body.items() if name not in ("model", "stream")}}, dropped

    def request_path(self) -> str:
        return f"/model/{quote(self.model, safe='')}/invoke-with-response-stream"
