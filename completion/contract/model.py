"""The protocols of a model and of a client. A third party's class matches them without importing this library."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

from completion.contract.errors import UnsupportedContentError
from completion.contract.request import ChatRequest
from completion.contract.stream import ChatStream


@runtime_checkable
class CompletionModel(Protocol):
    """A model that answers with a stream of chunks.

    It may be shared between threads, used after a fork, and pickled. It never shows its key.
    """

    @property
    def name(self) -> str:
        """The adapter family, for telemetry: ``openai``, ``anthropic``, … It does not depend on the model id."""

    @property
    def model(self) -> str:
        """The id of the model, or the name of the deployment."""

    # Iterator[Any]: a third party may declare its chunks as Chunk, as StreamChunk, or as the classes that it yields.
    # Each of these matches, and a caller may still write ``if chunk.type == "text_delta": chunk.delta``.
    def chat_stream(self, req: ChatRequest) -> Iterator[Any]:
        """Open the stream and return it. This call blocks until the response headers have arrived.

        It raises the errors that happen until then, and leaves no connection open after an error. ``next()`` raises the
        later ones. A complete turn ends with exactly one TurnFinished. If the body ends without the provider's own end
        of turn, ``next()`` raises TruncatedStreamError.
        """


@runtime_checkable
class ChatModel(CompletionModel, Protocol):
    """A CompletionModel whose stream is a ChatStream: all models and wrappers of this library."""

    def chat_stream(self, req: ChatRequest | str) -> ChatStream:
        """Open the stream and return it. A string is sent as one user message."""

    def count_tokens(self, req: ChatRequest | str) -> int:
        """The input tokens of the request. Raises UnsupportedContentError if the model cannot count them."""


@runtime_checkable
class CompletionClient(Protocol):
    """An account at a provider, or an endpoint: credentials, base URL, session."""

    def completion_model(self, model_id: str) -> CompletionModel:
        """The model with this id. No request is sent."""


def cannot_count(provider: str, model: str) -> UnsupportedContentError:
    """The error of ``count_tokens`` for a model that cannot count."""
    return UnsupportedContentError(
        "count_tokens is not supported by this API: anthropic, gemini, openai-responses (openai at OpenAI's own host) "
        "and local can count; TurnFinished.usage has the tokens of an answer",
        provider=provider,
        model=model,
    )


def count_tokens(model: CompletionModel, req: ChatRequest | str) -> int:
    """What ``model.count_tokens(req)`` returns. Raises UnsupportedContentError if the model has no such method."""
    count = getattr(model, "count_tokens", None)
    if count is None:
        raise cannot_count(model.name, model.model)
    tokens: int = count(req)
    return tokens
