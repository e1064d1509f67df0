"""Trying another: the next model, when one fails.

FallbackModel([AnthropicModel("…"), OpenAIModel("…")]).chat_stream(req)
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Iterator, Sequence

from completion.contract.checks import require_model
from completion.contract.errors import CompletionError, InvalidRequestError, StreamCancelledError, Transient, in_short
from completion.contract.model import CompletionModel
from completion.contract.request import ChatRequest, as_request
from completion.contract.stream import ChatStream, Chunks, without_our_frames
from completion.wrappers.attempts import Attempts, is_retried, verdict

log = logging.getLogger(__name__)

# What every model would say, or nobody wants another answer to.
_THE_SAME_EVERYWHERE = (InvalidRequestError, StreamCancelledError)


class FallbackModel:
    """Several models as one: each is asked when those before it failed, at setting up or before their first chunk.

    Asked of another model are all errors of this library but StreamCancelledError and a Permanent InvalidRequestError
    (the request itself is at fault), and the errors of others that are Transient. When all fail, the last error is
    raised; ``__cause__`` leads to those before it. ``name`` and ``model`` are those of the first model;
    ``TurnFinished.response_model`` says who answered, and the log has a line for each step.

    To retry as well, wrap the single models: ``FallbackModel([RetryingModel(a), RetryingModel(b)])``.

    Raises:
        TypeError: they are no models.
        ValueError: there are none.
    """

    def __init__(self, models: Sequence[CompletionModel]) -> None:
        if not isinstance(models, Iterable):
            raise TypeError(f"FallbackModel takes a list of models, got {type(models).__name__}")
        self.models = tuple(models)
        for model in self.models:
            require_model(model, "FallbackModel")
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

    @without_our_frames
    def chat_stream(self, req: ChatRequest | str) -> ChatStream:
        """The answer of the first model that gives one, as a stream.

        Raises:
            CompletionError: the last error, when none of them does.
        """
        return _Candidates(self, as_request(req)).stream()

    def __repr__(self) -> str:
        return f"FallbackModel([{', '.join(map(repr, self.models))}])"


class _Candidates(Attempts):
    """The models that are left, for one call."""

    def __init__(self, owner: FallbackModel, req: ChatRequest) -> None:
        super().__init__(owner.name, owner.model, retries=is_retried.get())
        self._req = req
        self._left = deque(owner.models)
        self._failure: Exception | None = None

    def call(self) -> Chunks:
        self._current = self._left.popleft()
        return self._current.chat_stream(self._req)

    def goes_on(self, error: Exception, *, was_open: bool) -> bool:
        if self._failure is not None:
            _attach(self._failure, error)
        if not self._left or not _may_be_better_elsewhere(error):
            return False
        self._failure = error
        tried, following = self._current, self._left[0]
        names = (tried.name, tried.model, following.name, following.model)
        log.warning("%s %s failed, now %s %s: %s", *names, in_short(error))
        return True

    def note(self, error: Exception) -> None:
        """Its cause says it."""

    def pause(self) -> None:
        """The next model has done nothing wrong yet."""


def _may_be_better_elsewhere(error: Exception) -> bool:
    is_ours = isinstance(error, CompletionError) and not isinstance(error, _THE_SAME_EVERYWHERE)
    return is_ours or isinstance(verdict(error), Transient)


def _attach(earlier: Exception, error: Exception) -> None:
    """Let the error lead to the earlier one, behind the causes of its own."""
    behind = {id(one) for one in _causes(earlier)}
    own = list(_causes(error))
    if behind.isdisjoint(map(id, own)):  # else one object was raised twice, and would lead to itself
        BaseException.__setattr__(own[-1], "__cause__", earlier)  # a frozen dataclass refuses an assignment


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what it leads to; a circle of somebody else's making ends."""
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        yield one
        one = one.__cause__
