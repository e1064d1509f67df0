"""The parts of the events that are about the whole message: stop reason, usage, service tier, trace."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from completion.contract.chunks import StreamChunk, Usage
from completion.wires.bedrock_converse.names import FINISH_REASONS, MESSAGE, WIRE
from completion.wires.json_values import objects_in, positive_int, provider_block, str_or_empty
from completion.wires.turn_summary import TurnSummary


class ConverseSummary(TurnSummary):
    """Collects stop reason, usage, service tier and trace."""

    def __init__(self) -> None:
        super().__init__(FINISH_REASONS)
        self.has_metadata = False
        self._extras: dict[str, Any] = {}

    def read_stop(self, data: dict[str, Any]) -> None:
        # {"stopReason": "stop_sequence", "additionalModelResponseFields": {"delta": {"stop_sequence": "END"}}}
        self.read_reason(str_or_empty(data.get("stopReason")))
        additional = data.get("additionalModelResponseFields")
        if not isinstance(additional, dict):
            return
        self._extras["additionalModelResponseFields"] = additional
        delta = additional.get("delta")
        for fields in (delta if isinstance(delta, dict) else {}, additional):
            self.stop_sequence = self.stop_sequence or str_or_empty(fields.get("stop_sequence")) or None

    def read_metadata(self, data: dict[str, Any]) -> None:
        # {"usage": {"inputTokens": 9, …}, "metrics": {"latencyMs": 310}, "serviceTier": {"type": "flex"}, "trace": {…}}
        self.has_metadata = True
        usage, tier, trace = data.get("usage"), data.get("serviceTier"), data.get("trace")
        if isinstance(usage, dict):
            self.keep_usage(parse_usage(usage))
        if isinstance(tier, dict):
            self.service_tier = tier.get("type")
        if isinstance(trace, dict) and trace:  # what a guardrail found, or where a prompt router went
            self._extras["trace"] = trace
            router = trace.get("promptRouter")
            self.model = router.get("invokedModelId") if isinstance(router, dict) else self.model

    def chunks(self, calls_finished: int) -> Iterator[StreamChunk]:
        """The last chunks: the other fields of the message, if there are any, and TurnFinished."""
        if self._extras:
            yield provider_block(WIRE, {"type": MESSAGE, **self._extras})
        yield self.turn_finished(calls_finished)


def parse_usage(fields: dict[str, Any]) -> Usage:
    """The usage of a message. Bedrock's inputTokens exclude cached tokens; ``Usage.input_tokens`` includes them."""
    # {"inputTokens": 9, "outputTokens": 12, "totalTokens": 26, "cacheReadInputTokens": 0, "cacheWriteInputTokens": 5,
    #  "cacheDetails": [{"ttl": "5m", "inputTokens": 5}]}
    cached = positive_int(fields, "cacheReadInputTokens")
    by_ttl = {"5m": 0, "1h": 0}
    for detail in objects_in(fields.get("cacheDetails")):
        if detail.get("ttl") in ("5m", "1h"):
            by_ttl[detail["ttl"]] += positive_int(detail, "inputTokens")
    created = positive_int(fields, "cacheWriteInputTokens") or sum(by_ttl.values())
    return Usage(
        input_tokens=positive_int(fields, "inputTokens") + cached + created,
        output_tokens=positive_int(fields, "outputTokens"),
        cached_input_tokens=cached,
        cache_creation_input_tokens=created,
        cache_creation_5m_tokens=by_ttl["5m"],
        cache_creation_1h_tokens=by_ttl["1h"],
    )
