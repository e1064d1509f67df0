"""What the events say about the interaction as a whole: id, model, status, usage."""

from __future__ import annotations

from typing import Any

from completion.contract.chunks import Usage
from completion.contract.errors import MalformedStreamError, ProviderError
from completion.wires import refusals
from completion.wires.gemini_interactions.names import FAILED, FINISH_REASONS, USAGE_COUNTERS
from completion.wires.google import usage_of
from completion.wires.json_values import positive_int, str_or_empty
from completion.wires.turn_summary import TurnSummary


class InteractionSummary(TurnSummary):
    """Collects what the events say about the interaction as a whole."""

    def __init__(self) -> None:
        super().__init__(FINISH_REASONS)

    def read_created(self, interaction: dict[str, Any]) -> None:
        """Keep the fields of ``interaction.created``.

        Raises:
            MalformedStreamError: it is another interaction than the one before.
        """
        found = interaction.get("id")
        if found and self.response_id and found != self.response_id:
            raise MalformedStreamError("a second interaction begins in the body of the first")
        self.read_interaction(interaction)

    def read_interaction(self, interaction: dict[str, Any]) -> None:
        """Keep the fields of an interaction: the first id and model, the last tier and usage."""
        self.response_id = self.response_id or interaction.get("id")
        self.model = self.model or interaction.get("model")
        self.service_tier = interaction.get("service_tier") or self.service_tier
        usage = interaction.get("usage")
        if isinstance(usage, dict) and any(name in usage for name in USAGE_COUNTERS):
            self.keep_usage(parse_usage(usage))

    def read_end(self, interaction: dict[str, Any]) -> None:
        """Keep the status of a completed interaction.

        Raises:
            ProviderError: the interaction failed.
        """
        self.read_interaction(interaction)
        self.provider_reason = str_or_empty(interaction.get("status")) or None
        if interaction.get("error"):
            raise refusals.in_band(interaction)
        if self.provider_reason == FAILED:
            raise ProviderError("the interaction ended with the status 'failed'", code=FAILED)


def parse_usage(fields: dict[str, Any]) -> Usage:
    """The usage of an answer. Thoughts are not in the output, and results of server-side tools not in the input."""
    # {"total_input_tokens": 22, "total_tool_use_tokens": 198, "total_cached_tokens": 0, "total_output_tokens": 590,
    #  "total_thought_tokens": 1173, "total_tokens": 1983}
    return usage_of(
        input_tokens=positive_int(fields, "total_input_tokens") + positive_int(fields, "total_tool_use_tokens"),
        cached=positive_int(fields, "total_cached_tokens"),
        answer=positive_int(fields, "total_output_tokens"),
        thoughts=positive_int(fields, "total_thought_tokens"),
        total=positive_int(fields, "total_tokens"),
    )
