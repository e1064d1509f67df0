"""What a conversation sends when its history is too long, between runs and inside of a run.

    request -> (over the budget?)             -> Compactor.fit_budget   -> a shorter request
    request -> model: ContextOverflowError    -> Compactor.cut_in_half  -> a shorter request, sent once

Old tool results are shortened first. Then messages are removed, or replaced by a summary (module ``shortening``).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

from completion.contract.chunks import FinishReason, StreamChunk, Usage
from completion.contract.errors import CompletionError, ContextOverflowError, StreamCancelledError
from completion.contract.messages import Message
from completion.contract.model import CompletionModel
from completion.contract.request import ChatRequest
from completion.contract.run import CompactionMethod, HistoryCompacted
from completion.contract.stream import ChatStream, without_our_frames
from completion.engine.bounds import RunConfig
from completion.engine.history import as_transcript, starts_exchange, why_invalid, why_unanswered
from completion.engine.middleware import AbortRun, RunInfo
from completion.engine.run import run_chat
from completion.engine.shortening import Shortening
from completion.engine.size import guess_message, guess_request
from completion.wrappers.attempts import Attempts, is_retried
from completion.wrappers.named_after import NamedAfter

log = logging.getLogger(__name__)

Compaction: TypeAlias = Literal["truncate", "summary"] | Callable[[Sequence[Message]], Sequence[Message]]
"""What replaces removed messages: nothing, a summary by the model, or the messages that a function returns."""

BUDGET_SHARE = {"truncate": 0.75, "summary": 0.5}
"""The share of the budget that the remaining messages may use. Less than all of it, so that the next exchanges fit
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

_REMOVED_STEPS = "(Your earlier steps for this task were removed, because the conversation became too long. Go on.)"
"""Without it, the model would begin the task again."""


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

    What is sent is ``_short``, which stands for the first ``_covered`` messages of the history and of the run, and then
    the other messages.

    Args:
        settings: of the conversation.
        history: all messages before this run, and the user's new message.
        tokens_per_guess: how many tokens the provider counts for one token that ``size`` guesses.
    """

    def __init__(self, settings: CompactionSettings, history: Sequence[Message], tokens_per_guess: float) -> None:
        self.tokens_per_guess = tokens_per_guess
        self._settings = settings
        self._short = self._sent = tuple(history)
        self._covered = len(history)
        self._total = len(history)  # all messages up to this turn
        self._new_message = len(history) - 1  # the position of the user's new message in ``_short``
        self._notes: tuple[Message, ...] = ()  # what has replaced removed messages
        self._last_guess = 0.0
        self._run: RunInfo | None = None

    def fit_budget(self, run: RunInfo, request: ChatRequest) -> ChatRequest:
        """The request as it was shortened before, and shortened now if it is over the budget."""
        self._run = run
        self._total = len(request.messages)
        self._sent = self.compacted(request.messages)
        request = replace(request, messages=self._sent)
        budget = self._settings.budget
        if budget is None or self._tokens(guess_request(request)) <= budget:
            return request
        share = BUDGET_SHARE["truncate" if self._settings.compaction == "truncate" else "summary"]
        with run.token:
            shorter = self._shorten(request, budget * share, budget, "budget") or request
        if (size := self._tokens(guess_request(shorter))) > budget:
            log.warning("a request has about %d tokens, and its budget is %d: no more can be removed", size, budget)
        return shorter

    def cut_in_half(self, request: ChatRequest) -> ChatRequest | None:
        """What to send in place of a request that was too long; None if nothing can be removed."""
        half = self._tokens(guess_request(request)) * _OVERFLOW_SHARE
        return self._shorten(request, half, half, "context_overflow")

    def compacted(self, messages: Sequence[Message]) -> tuple[Message, ...]:
        """The messages of the whole history as they are sent."""
        return (*self._short, *messages[self._covered :])

    def note_request(self, request: ChatRequest) -> None:
        """Remember the guess for the request that is sent now, to compare it with the provider's count."""
        self._last_guess = guess_request(request)

    def note_count(self, input_tokens: int) -> None:
        """The provider's count for the last request: from now on, guesses are multiplied accordingly."""
        if input_tokens and self._last_guess:
            self.tokens_per_guess = input_tokens / self._last_guess

    def _tokens(self, guess: float) -> float:
        return guess * self.tokens_per_guess

    def _shorten(
        self, request: ChatRequest, target: float, most: float, cause: Literal["budget", "context_overflow"]
    ) -> ChatRequest | None:
        """A shorter request, with ``target`` tokens if possible; None if nothing can be removed."""
        messages, whole = request.messages, guess_request(request)
        added = len(messages) - len(self._sent)  # by middleware that runs after ours
        end = max(self._new_message + added + 1, 0)
        plan = Shortening(messages, _starts(messages[:end]), whole - sum(map(guess_message, messages)))
        plan.fit(target / self.tokens_per_guess, most / self.tokens_per_guess)
        if plan.changes_nothing:
            return None
        method, notes = self._replacement(plan)
        shorter = replace(request, messages=plan.apply(messages, notes))
        if shorter == request:  # only our notes could be removed, and they replace themselves
            return None
        # When later middleware sends a different number of messages, the plan does not fit our history: then only this
        # request is shortened.
        if not added:
            self._short = self._sent = plan.apply(self._sent, notes)
            self._covered = self._total
            self._new_message = plan.new_position(self._new_message, len(notes))
            self._notes = notes if plan.removes_messages else self._notes
        self._note(cause, method, (whole, guess_request(shorter)), (len(messages), len(shorter.messages)))
        return shorter

    def _note(
        self, cause: Literal["budget", "context_overflow"], method: CompactionMethod, guesses: Any, counts: Any
    ) -> None:
        """Tell the reader of the run. ``guesses`` and ``counts``: before and after."""
        run = self._run
        assert run is not None
        before, after = (round(self._tokens(guess)) for guess in guesses)
        run.notes.append(HistoryCompacted(run.run_id, run.step_id, cause, method, before, after, *counts))

    def _replacement(self, plan: Shortening) -> tuple[CompactionMethod, tuple[Message, ...]]:
        """What replaces the removed messages, and how it was made."""
        compaction, removed = self._settings.compaction, plan.removed
        if not removed:
            return "tool_results", ()
        if callable(compaction):
            returned = compaction(removed)
            messages = tuple(returned) if isinstance(returned, Iterable) else (returned,)
            if not all(isinstance(message, Message) for message in messages):
                raise TypeError(f"Conversation: compaction= must return Messages, got {type(returned).__name__}")
            if problem := why_invalid(messages) or why_unanswered(messages):
                raise ValueError(f"Conversation: compaction= returned messages that make an invalid history: {problem}")
            return "function", messages
        if compaction == "summary":
            # The notes alone would become notes of notes, in each turn that is still over the budget.
            summary = removed if removed == self._notes else self._summary_of(removed)
            if summary:
                return "summary", summary
        return "truncate", (Message.user(_REMOVED_STEPS),) if plan.removes_steps else ()

    def _summary_of(self, messages: Sequence[Message]) -> tuple[Message, ...]:
        """Notes about the messages; empty if the model could not write them."""
        settings, budget, run = self._settings, self._settings.budget, self._run
        assert run is not None
        max_tokens = min(_SUMMARY_TOKENS, settings.max_tokens, *([budget // 4 + 1] if budget else []))
        request = ChatRequest(as_transcript(messages), max_tokens, _SUMMARY_PROMPT)
        try:
            result = run_chat(settings.model, request, (), settings.middleware, RunConfig(max_iterations=1)).collect()
        except CompletionError as error:
            if run.token.cancelled:
                raise
            run.usage += getattr(error, "usage", Usage())
            log.warning("no summary of these messages could be written: they are removed (%s)", error)
            return ()
        run.usage += result.usage
        if result.abort is not None and result.abort.kind == "cancelled":
            model = settings.model
            raise StreamCancelledError(result.abort.message, provider=model.name, model=model.model)
        if result.abort is not None and result.abort.kind != "max_iterations":  # paused: the notes may be used
            raise AbortRun(result.abort.message)
        if not result.text.strip() or result.reason in (FinishReason.REFUSAL, FinishReason.CONTENT_FILTER):
            log.warning("the summary of these messages is empty (%s): they are removed", result.reason)
            return ()
        return (Message.user(_SUMMARY_HEAD + result.text),)


def _starts(messages: Sequence[Message]) -> list[int]:
    """The positions at which exchanges start. Our notes behind a message of the user belong to its exchange."""
    return [
        i
        for i, message in enumerate(messages)
        if starts_exchange(message)
        and not (i and messages[i - 1].role == "user" and message.text.startswith((_SUMMARY_HEAD, _REMOVED_STEPS)))
    ]


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
