"""What an adapter promises. Structural: a third party need not import this."""

from __future__ import annotations

from collections.abc import Generator
from typing import Protocol, runtime_checkable

from completion.contract.chunks import StreamChunk
from completion.contract.request import ChatRequest


@runtime_checkable
class CompletionModel(Protocol):
    """A model that answers with a stream.

    Safe to share between threads, survives fork, pickles, and never shows its key.
    """

    @property
    def name(self) -> str:
        """The adapter family for telemetry: ``openai``, ``anthropic``, … It does not change with the model id."""

    @property
    def model(self) -> str:
        """The id that this handle is bound to."""

    def chat_stream(self, req: ChatRequest) -> Generator[StreamChunk, None, None]:
        """Open the stream, then return it; blocks until the response headers are in.

        Whatever goes wrong until then is raised here, and no connection is left open. What goes wrong later is
        raised by ``next()``. A good turn ends with exactly one TurnFinished; a body that ends without the
        provider's own end of turn raises TruncatedStreamError.
        """


@runtime_checkable
class CompletionClient(Protocol):
    """An account or endpoint: credentials, base URL, session."""

    def completion_model(self, model_id: str) -> CompletionModel:
        """A handle on one of its models."""
