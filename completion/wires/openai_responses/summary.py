"""What the events say about the response as a whole: id, model, status, usage."""

from __future__ import annotations

from typing import Any

from completion.contract.chunks import FinishReason, Usage
from completion.contract.errors import MalformedStreamError
from completion.wires import refusals
from completion.wires.json_values import positive_int, str_or_empty
from completion.wires.openai_responses.names import FINISH_REASONS
from completion.wires.turn_summary import TurnSummary


class ResponseSummary(TurnSummary):
    """Collects what the events say about the response as a whole."""

    def __init__(self) -> None:
        super().__init__(FINISH_REASONS)
        self.is_refusal = False
        """A message had a ``refusal``."""
        self.has_cut_item = False
        """An item ended before it was complete."""
        self._has_status = False
        self._created_id: Any = None

    def read_created(self, response: dict[str, Any]) -> None:
        """Keep the fields of ``response.created``.

        Raises:
            MalformedStreamError: it is another response than the one before.
        """
        found = response.get("id")
        if self.provider_reason is not None or (self._created_id and found != self._created_id):
            raise MalformedStreamError("a second response begins in the body of the first")
        self._created_id = found
        self.read(response)

    def read(self, response: dict[str, Any]) -> None:
        """Keep what an event says about the response. The first id counts: GitHub Copilot changes it in each event."""
        self.response_id = self.response_id or response.get("id")
        self.model = self.model or response.get("model")
        self.service_tier = response.get("service_tier") or self.service_tier  # first "auto", at the end the one used
        usage = response.get("usage")
        if usage and isinstance(usage, dict):
            self.keep_usage(parse_usage(usage))

    def read_end(self, event: str, response: dict[str, Any]) -> None:
        """Keep how the response ended.

        Args:
            event: the last word of the event, such as ``completed``. It counts if the response has no status.

        Raises:
            ProviderError: it failed.
        """
        self.read(response)
        status = str_or_empty(response.get("status"))
        self._has_status = status not in ("", "in_progress", "queued")
        if not self._has_status or event == "failed":
            status = "completed" if event == "done" else event
        error = response.get("error")
        if status == "failed" or error:
            error = error or {"code": "failed", "message": "the provider says that the response failed"}
            raise refusals.in_band({"error": error})
        details = response.get("incomplete_details")
        why = str_or_empty(details.get("reason")) if isinstance(details, dict) else ""
        self.provider_reason = why if status == "incomplete" and why else status

    def finish_reason(self, calls_finished: int) -> FinishReason:
        if self.has_cut_item and not self._has_status:
            self.provider_reason = "incomplete"
        reason = super().finish_reason(calls_finished)
        return FinishReason.REFUSAL if self.is_refusal and reason is FinishReason.END_TURN else reason


def parse_usage(fields: dict[str, Any]) -> Usage:
    """The usage of a response."""
    # {"input_tokens": 9, "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0}, "output_tokens": 12,
    #  "output_tokens_details": {"reasoning_tokens": 7}, "total_tokens": 21}
    # Gateways in front of Chat Completions pass on its names: prompt_tokens, completion_tokens.
    prompt = fields.get("input_tokens_details") or fields.get("prompt_tokens_details")
    answer = fields.get("output_tokens_details") or fields.get("completion_tokens_details")
    return Usage(
        input_tokens=positive_int(fields, "input_tokens") or positive_int(fields, "prompt_tokens"),
        output_tokens=positive_int(fields, "output_tokens") or positive_int(fields, "completion_tokens"),
        cached_input_tokens=positive_int(prompt, "cached_tokens"),
        cache_creation_input_tokens=positive_int(prompt, "cache_write_tokens"),
        reasoning_tokens=positive_int(answer, "reasoning_tokens"),
    )
