"""What the events say about the turn as a whole: id, model, service tier, finish reason, usage -> TurnFinished."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from completion.contract.chunks import FinishReason, TurnFinished, Usage
from completion.wires.finish_words import FAILURES, REASONS, raise_if_failed
from completion.wires.json_values import str_or_empty

# The finish reasons of an answer that is not complete.
_CUT_OFF = (
    FinishReason.MAX_TOKENS,
    FinishReason.CONTENT_FILTER,
    FinishReason.REFUSAL,
    FinishReason.CONTEXT_OVERFLOW,
)


class TurnSummary:
    """Collects what TurnFinished carries. Each wire reads it from other fields, in a subclass.

    Args:
        finish_reasons: the finish reason for each of the provider's words; any other word is ``other``.
    """

    def __init__(self, finish_reasons: Mapping[str, FinishReason]) -> None:
        self._finish_reasons = finish_reasons
        self.provider_reason: str | None = None
        self.stop_sequence: str | None = None
        # As the provider sent them, perhaps not strings.
        self.response_id: Any = None
        self.model: Any = None
        self.service_tier: Any = None
        self.last_usage: Usage | None = None
        """The usage that was read last."""

    def read_reason(self, word: str) -> None:
        """Keep the provider's word for why the model stopped; an empty one is ignored.

        The last word counts. But a plain "stop", which some gateways add at the end of every stream, does not hide that
        the answer was cut off.
        """
        before = self.provider_reason
        if word and not (before and self._meaning(before) in _CUT_OFF and self._meaning(word) is FinishReason.END_TURN):
            self.provider_reason = word

    def finish_reason(self, calls_finished: int) -> FinishReason:
        """Why the model stopped.

        After a finished tool call it is never ``end_turn``: many servers say "stop" there, and a run has to go on.

        Raises:
            CompletionError: the word is one of another wire, and means that the answer broke off.
        """
        word = self.provider_reason
        reason = FinishReason.OTHER if word is None else self._known(word)
        if calls_finished and (word is None or reason is FinishReason.END_TURN):
            return FinishReason.TOOL_USE
        return reason

    def _known(self, word: str) -> FinishReason:
        """The finish reason for a word. Gateways change the case: STOP, MAX_TOKENS; or send a word of another wire."""
        reason = self._meaning(word)
        if reason is None:
            raise_if_failed(word)
        return reason or FinishReason.OTHER

    def _meaning(self, word: str) -> FinishReason | None:
        known = self._finish_reasons
        lower = word.lower()
        reason = known.get(word) or known.get(lower)
        return REASONS.get(lower) if reason is None and lower not in FAILURES else reason

    def keep_usage(self, usage: Usage) -> None:
        """Keep a usage. The last one counts, but some gateways send one with zeros after it."""
        if self.last_usage is None or usage.input_tokens or usage.output_tokens:
            self.last_usage = usage

    def usage(self) -> Usage | None:
        """The tokens of the turn; None if the provider did not say."""
        return self.last_usage

    def turn_finished(self, calls_finished: int) -> TurnFinished:
        """The last chunk of the turn."""
        return TurnFinished(
            reason=self.finish_reason(calls_finished),
            usage=self.usage(),
            service_tier=str_or_empty(self.service_tier) or None,
            provider_reason=self.provider_reason,
            stop_sequence=self.stop_sequence,
            response_id=str_or_empty(self.response_id) or None,
            response_model=str_or_empty(self.model) or None,
        )
