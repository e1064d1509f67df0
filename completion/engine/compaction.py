"""What a conversation sends when its history is too long: the oldest exchanges are removed, or replaced by a summary.

    request -> (over the budget?)             -> Compactor.fit_budget   -> a shorter request
    request -> model: ContextOverflowError    -> Compactor.cut_in_half  -> a shorter request, sent once

An exchange is a message of the user and everything up to the next one: answers, tool calls and tool results. Only whole
exchanges are removed, and never the last one: a tool result without its call would be refused by every provider.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any, Literal, TypeAlias

from completion.contract.chunks import StreamChunk
from completion.contract.errors import ContextOverflowError, StreamCancelledError
from completion.contract.messages import Message
from completion.contract.model import CompletionModel
from completion.contract.request import ChatRequest
from completion.contract.stream import ChatStream, without_our_frames
from completion.engine.bounds import RunConfig
from completion.engine.history import as_transcript, starts_exchange, why_invalid
from completion.engine.middleware import AbortRun, RunInfo
from completion.engine.run import run_chat
from completion.engine.size import guess_message, guess_request
from completion.wrappers.attempts import Attempts, is_retried
from completion.wrappers.named_after import NamedAfter

log = logging.getLogger(__name__)

Compaction: TypeAlias = Literal["truncate", "summary"] | Callable[[Sequence[Message]], Sequence[Message]]
"""What replaces the oldest exchanges: nothing, a summary by the model, or the messages that a function returns."""

BUDGET_SHARE = {"truncate": 0.75, "summary": 0.5}
"""The share of the budget that the remaining exchanges may use. Less than all of it, so that the next exchanges fit
without another cut: each cut makes the provider's prompt cache useless once. A summary needs room too."""

_OVERFLOW_SHARE = 0.5
"""The share of a request that remains after the provider refused it for its length. A guess: few providers say in
their error how long the context window is."""

_SUMMARY_TOKENS = 1024
_SUMMARY_PROMPT = (
    "You keep the notes of a conversation between a user and an assistant. Write down, briefly, what the assistant "
    "needs to go on: what the user wants, what is settled, facts, names and numbers, results of tools, what is left to "
    "do. Write the notes only."
)
_SUMMARY_HEAD = "Notes of the conversation so far:\n\n"


@dataclass(frozen=True, slots=True)
class CompactionSettings:
    """The settings of a conversation that its compaction needs. ``max_tokens``: the most tokens of an answer."""

    model: CompletionModel
    middleware: tuple[Any, ...]
    budget: int | None
    compaction: Compaction
    max_tokens: int


class Compactor:
    """Shortens the requests of one run.

    What is sent is ``_head`` (what replaced the removed messages), and then the history without its first
    ``_removed_count`` messages.

    Args:
        settings: of the conversation.
        history: all messages before this run, and the user's new message.
        tokens_per_guess: how many tokens the provider counts for one token that ``size`` guesses.
    """

    def __init__(self, settings: CompactionSettings, history: Sequence[Message], tokens_per_guess: float) -> None:
        self.tokens_per_guess = tokens_per_guess
        self._settings = settings
        self._history = tuple(history)
        self._head: tuple[Message, ...] = ()
        self._removed_count = 0
        self._sent_count = 0  # how many messages of ours the request has; more: later middleware has added some
        self._last_guess = 0.0
        self._run: RunInfo | None = None

    def fit_budget(self, run: RunInfo, request: ChatRequest) -> ChatRequest:
        """The request without what was removed before, and shortened now if it is over the budget."""
        self._run = run
        request = replace(request, messages=self.without_removed(request.messages))
        self._sent_count = len(request.messages)
        budget, compaction = self._settings.budget, self._settings.compaction
        if budget is None or self._tokens(guess_request(request)) <= budget:
            return request
        share = BUDGET_SHARE["truncate" if compaction == "truncate" else "summary"]
        with run.token:
            return self._shorten(request, budget * share) or request

    def cut_in_half(self, request: ChatRequest) -> ChatRequest | None:
        """What to send in place of a request that was too long; None if no exchange can be removed."""
        return self._shorten(request, self._tokens(guess_request(request)) * _OVERFLOW_SHARE)

    def without_removed(self, messages: Sequence[Message]) -> tuple[Message, ...]:
        """The messages of the whole history, with the removed ones replaced."""
        return (*self._head, *messages[self._removed_count :])

    def note_request(self, request: ChatRequest) -> None:
        """Remember the guess for the request that is sent now, to compare it with the provider's count."""
        self._last_guess = guess_request(request)

    def note_count(self, input_tokens: int) -> None:
        """The provider's count for the last request: from now on, guesses are multiplied accordingly."""
        if input_tokens and self._last_guess:
            self.tokens_per_guess = input_tokens / self._last_guess

    def _tokens(self, guess: float) -> float:
        return guess * self.tokens_per_guess

    def _shorten(self, request: ChatRequest, max_tokens: float) -> ChatRequest | None:
        """The request without its oldest exchanges, so that the rest is at most ``max_tokens`` long.

        If only the last exchange remains, it may be longer. None if there is only one exchange.
        """
        messages = request.messages
        added = len(messages) - self._sent_count  # by middleware that runs after ours
        # The position of the user's new message, with which the last exchange begins.
        last_start = len(self._head) + len(self._history) - 1 - self._removed_count + added
        starts = [i for i, message in enumerate(messages[: last_start + 1]) if i and starts_exchange(message)]
        if not starts:
            return None
        whole = guess_request(request)
        # remaining[i]: the guess for the request without its first i messages
        remaining = [whole, *(whole - removed for removed in accumulate(map(guess_message, messages)))]
        cut = next((i for i in starts if self._tokens(remaining[i]) <= max_tokens), starts[-1])
        head = self._replacement_of(messages[:cut])
        if problem := why_invalid((*head, *messages[cut:])):
            raise ValueError(f"Conversation: compaction= returned messages that make an invalid history: {problem}")
        # When later middleware sends a different number of messages, ``cut`` is not a position in our history: then
        # only this request is shortened.
        if not added:
            self._removed_count += max(cut - len(self._head), 0)
            self._head = (*head, *self._head[cut:])
            self._sent_count += len(head) - cut
        return replace(request, messages=(*head, *messages[cut:]))

    def _replacement_of(self, messages: Sequence[Message]) -> tuple[Message, ...]:
        compaction = self._settings.compaction
        if callable(compaction):
            return tuple(compaction(messages))
        return self._summary_of(messages) if compaction == "summary" else ()

    def _summary_of(self, messages: Sequence[Message]) -> tuple[Message, ...]:
        settings, budget = self._settings, self._settings.budget
        max_tokens = min(_SUMMARY_TOKENS, settings.max_tokens, *([budget // 4 + 1] if budget else []))
        request = ChatRequest(as_transcript(messages), max_tokens, _SUMMARY_PROMPT)
        try:
            result = run_chat(settings.model, request, (), settings.middleware, RunConfig(max_iterations=1)).collect()
        except ContextOverflowError:
            log.warning("the messages to be summarized do not fit into the model's context window: they are removed")
            return ()
        assert self._run is not None
        self._run.usage += result.usage
        if result.abort is not None and result.abort.kind == "cancelled":
            model = settings.model
            raise StreamCancelledError(result.abort.message, provider=model.name, model=model.model)
        if result.abort is not None:
            raise AbortRun(result.abort.message)
        return (Message.user(_SUMMARY_HEAD + result.text),) if result.text else ()


class ShorteningModel(NamedAfter):
    """A model that sends a turn once more, shortened, if its context overflows before the first chunk."""

    def __init__(self, inner: CompletionModel, compactor: Compactor) -> None:
        self.inner = self._named_after = inner  # ``base_url_of`` follows ``inner``
        self._compactor = compactor

    @without_our_frames
    def chat_stream(self, req: ChatRequest) -> ChatStream:
        return _TurnAttempts(self.inner, self._compactor, req).stream()


class _TurnAttempts(Attempts):
    """The two attempts of one turn."""

    def __init__(self, model: CompletionModel, compactor: Compactor, request: ChatRequest) -> None:
        # A retrying wrapper outside of the run keeps retrying: this class repeats for one reason only.
        super().__init__(model.name, model.model, retries=is_retried.get())
        self._model = model
        self._compactor = compactor
        self._request = request
        self._has_shortened = False

    def call(self) -> Iterator[StreamChunk]:
        self._compactor.note_request(self._request)
        return self._model.chat_stream(self._request)

    def should_try_again(self, error: Exception, *, was_open: bool) -> bool:
        if self._has_shortened or not isinstance(error, ContextOverflowError):
            return False
        self._has_shortened = True
        shorter = self._compactor.cut_in_half(self._request)
        self._request = shorter or self._request
        return shorter is not None
