"""What the events of a turn say besides the answer: id, model, service tier, finish reason, usage -> TurnFinished."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from completion.contract.chunks import FinishReason, TurnFinished, Usage
from completion.wires.json_values import string


class TurnEnd:
    """Collects the facts that TurnFinished carries. Each wire reads them from other places.

    Args:
        reasons: the finish reason for each of the provider's words; any other word is ``other``.
    """

    def __init__(self, reasons: Mapping[str, FinishReason]) -> None:
        self._reasons = reasons
        self.provider_reason: str | None = None
        self.stop_sequence: str | None = None
        self.response_id: Any = None
        self.model: Any = None
        self.service_tier: Any = None
        self.last_usage: Usage | None = None
        """The usage that was read last."""

    def reason(self, calls_finished: int) -> FinishReason:
        """Why the model stopped. A turn with a finished tool call is never a plain end, whatever the word."""
        word = self.provider_reason
        reason = FinishReason.OTHER if word is None else self._reasons.get(word, FinishReason.OTHER)
        if calls_finished and (word is None or reason is FinishReason.END_TURN):
            return FinishReason.TOOL_USE
        return reason

    def usage(self) -> Usage | None:
        """The tokens of the turn; None where the provider did not say."""
        return self.last_usage

    def turn_finished(self, calls_finished: int) -> TurnFinished:
        """The last chunk of the turn."""
        return TurnFinished(
            reason=self.reason(calls_finished),
            usage=self.usage(),
            service_tier=string(self.service_tier) or None,
            provider_reason=self.provider_reason,
            stop_sequence=self.stop_sequence,
            response_id=string(self.response_id) or None,
            response_model=string(self.model) or None,
        )
