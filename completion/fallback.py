"""Trying another: the next model, when one fails.

FallbackModel([AnthropicModel("…"), OpenAIModel("…")]).chat_stream(req)
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from completion.attempts import Attempts, Chunks, is_retried
from completion.contract.model import CompletionModel
from completion.contract.request import ChatRequest
from completion.contract.stream import ChatStream
from completion.errors import CompletionError, InvalidRequestError, Retryable, StreamCancelledError, Transient

log = logging.getLogger(__name__)

# What every model would say, or nobody wants another answer to.
_THE_SAME_EVERYWHERE = (InvalidRequestError, StreamCancelledError)


class FallbackModel:
    """Several models as one: each is asked when those before it failed, at setting up or before their first chunk.

    Asked of another model are all errors of this library but InvalidRequestError (the request itself is at fault) and
    StreamCancelledError, and the errors of others that are ``Transient``. When all fail, the last error is raised;
    ``__cause__`` leads to those before it. ``name`` and ``model`` are those of the first model; who answered says
    ``TurnFinished.response_model``, and each step leaves a line in the log.

    To retry as well, wrap the single models: ``FallbackModel([RetryingModel(a), RetryingModel(b)])``.

    Raises:
        ValueError: there are no models.
    """

    def __init__(self, models: Sequence[CompletionModel]) -> None:
        self.models = tuple(models)
        if not self.models:
            raise ValueError("FallbackModel needs at least one model")

    @property
    def name(self) -> str:
        """The adapter family of the first model."""
        return self.models[0].name

    @property
    def model(self) -> str:
        """The id that the first model is bound to."""
        return self.models[0].model

    def chat_stream(self, req: ChatRequest) -> ChatStream:
        """The answer of the first model that gives one, as a stream.

        Raises:
            CompletionError: the last error, when none of them does.
        """
        return _Candidates(self, req).stream()

    def __repr__(self) -> str:
        return f"FallbackModel([{', '.join(map(repr, self.models))}])"


class _Candidates(Attempts):
    """The models that are left, for one call."""

    def __init__(self, owner: FallbackModel, req: ChatRequest) -> None:
        super().__init__(owner.name, owner.model)
        self._req = req
        self._left = list(owner.models)
        self._is_retried = is_retried.get()
        self._failure: Exception | None = None

    def call(self) -> Chunks:
        self._current = self._left.pop(0)
        outer = is_retried.set(self._is_retried)
        try:
            return self._current.chat_stream(self._req)
        finally:
            is_retried.reset(outer)

    def failed(self, error: Exception) -> None:
        if error.__cause__ is None and self._failure is not error:
            error.__cause__ = self._failure
        if not self._left or not _may_be_better_elsewhere(error):
            raise error
        self._failure = error
        tried, following = self._current, self._left[0]
        log.warning("%s %s failed, now %s %s: %s", tried.name, tried.model, following.name, following.model, error)


def _may_be_better_elsewhere(error: Exception) -> bool:
    if isinstance(error, CompletionError):
        return not isinstance(error, _THE_SAME_EVERYWHERE)
    return isinstance(error, Retryable) and isinstance(error.retry_classification(), Transient)
