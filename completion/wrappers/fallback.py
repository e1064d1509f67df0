"""Falling back: when a model fails, call the next one.

FallbackModel([AnthropicModel("…"), OpenAIModel("…")]).chat_stream(req)
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Iterator, Sequence

from completion.contract.checks import require_model
from completion.contract.chunks import StreamChunk
from completion.contract.errors import CompletionError, InvalidRequestError, StreamCancelledError, Transient, in_short
from completion.contract.model import CompletionModel
from completion.contract.request import ChatRequest, as_request
from completion.contract.stream import ChatStream, without_our_frames
from completion.wrappers.attempts import Attempts, classify, is_retried
from completion.wrappers.named_after import CountsTokens

log = logging.getLogger(__name__)

# Another model would fail with the same error, or the caller wants no answer any more.
_NO_FALLBACK_ERRORS = (InvalidRequestError, StreamCancelledError)


class FallbackModel(CountsTokens):
    """Several models as one: if a model fails before its first chunk, the next model is called.

    Falls back on every error of this library except StreamCancelledError and a Permanent InvalidRequestError (the
    request is wrong, so every model would refuse it), and on other exceptions if they are Transient. If all models
    fail, the last error is raised; its ``__cause__`` chain contains the earlier ones. ``name`` and ``model`` are those
    of the first model. ``TurnFinished.response_model`` tells which model has answered. Each fallback is logged.

    To retry too, wrap the single models: ``FallbackModel([RetryingModel(a), RetryingModel(b)])``.

    Raises:
        TypeError: ``models`` is not a list of models.
        ValueError: the list is empty.
    """

    def __init__(self, models: Sequence[CompletionModel]) -> None:
        if not isinstance(models, Iterable):
            raise TypeError(f"FallbackModel: models must be a list of models, got {type(models).__name__}")
        self.models = tuple(models)
        for model in self.models:
            require_model(model, "FallbackModel")
        if not self.models:
            raise ValueError("FallbackModel: give at least one model")
        self._named_after = self.models[0]

    @without_our_frames
    def chat_stream(self, req: ChatRequest | str) -> ChatStream:
        """The answer, as a stream, of the first model that does not fail.

        Raises:
            CompletionError: the last error, if all models fail or another model would fail too.
        """
        return _Candidates(self, as_request(req)).stream()

    def __repr__(self) -> str:
        return f"FallbackModel([{', '.join(map(repr, self.models))}])"


class _Candidates(Attempts):
    """One call: the models that are left to try."""

    def __init__(self, owner: FallbackModel, req: ChatRequest) -> None:
        super().__init__(owner.name, owner.model, retries=is_retried.get())
        self._req = req
        self._left = deque(owner.models)
        self._last_error: Exception | None = None

    def call(self) -> Iterator[StreamChunk]:
        self._current = self._left.popleft()
        return self._current.chat_stream(self._req)

    def should_try_again(self, error: Exception, *, was_open: bool) -> bool:
        if self._last_error is not None:
            _attach(self._last_error, error)
        if not self._left or not _may_another_model_answer(error):
            return False
        self._last_error = error
        failed, following = self._current, self._left[0]
        names = (failed.name, failed.model, following.name, following.model)
        log.warning("%s %s failed, falling back to %s %s: %s", *names, in_short(error))
        return True


def _may_another_model_answer(error: Exception) -> bool:
    is_ours = isinstance(error, CompletionError) and not isinstance(error, _NO_FALLBACK_ERRORS)
    return is_ours or isinstance(classify(error), Transient)


def _attach(earlier: Exception, error: Exception) -> None:
    """Append the earlier error to the ``__cause__`` chain of this error."""
    earlier_chain = {id(one) for one in _causes(earlier)}
    own_chain = list(_causes(error))
    # If both chains share an object (the same exception was raised twice), appending would make a cycle.
    if earlier_chain.isdisjoint(map(id, own_chain)):
        # Not `own_chain[-1].__cause__ = earlier`: a frozen dataclass refuses an assignment.
        BaseException.__setattr__(own_chain[-1], "__cause__", earlier)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and its ``__cause__`` chain. Stops if the chain is a cycle, which code of others may have made."""
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        yield one
        one = one.__cause__
