"""What the chunks say about the answer as a whole: id, model, finish reason, usage, sources."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from completion.contract.chunks import FinishReason, StreamChunk, Usage
from completion.contract.errors import MalformedStreamError
from completion.wires.citations import ByteOffsets
from completion.wires.gemini.names import (
    CANDIDATE,
    CANDIDATE_EXTRAS,
    FINISH_REASONS,
    NO_REASON,
    PLAIN_CANDIDATE,
    USAGE_COUNTERS,
    WIRE,
)
from completion.wires.gemini.sources import citations_of
from completion.wires.google import usage_of
from completion.wires.json_values import objects_in, positive_int, provider_block, str_or_empty
from completion.wires.turn_summary import TurnSummary


class GenerateSummary(TurnSummary):
    """Collects what the chunks say about the answer as a whole."""

    def __init__(self) -> None:
        super().__init__(FINISH_REASONS)
        self._is_blocked = False
        self._usage: dict[str, Any] = {}
        self._extras: dict[str, Any] = {}
        self.offsets = ByteOffsets()
        """Knows the text of the turn that is not ASCII."""

    def read_response(self, data: dict[str, Any]) -> None:
        """Keep what a chunk says about the response. The first id and model count, and the last usage."""
        usage = data.get("usageMetadata")
        # Totals: the last usage replaces the others, also if it has fewer counters.
        if type(usage) is dict and usage.get("totalTokenCount"):  # most chunks
            self._usage = usage
        elif type(usage) is dict and _has_counters(usage):
            # Some gateways send zeros in the last chunk.
            is_zero = not any(positive_int(usage, name) for name in USAGE_COUNTERS)
            self._usage = {**usage, **self._usage} if is_zero else usage
        if self.response_id is None:
            self.response_id = data.get("responseId")
        if self.model is None:
            self.model = data.get("modelVersion")

    def read_prompt_feedback(self, feedback: dict[str, Any]) -> None:
        """Keep why the prompt was blocked, if it was."""
        # {"blockReason": "SAFETY", "safetyRatings": […]}
        reason = str_or_empty(feedback.get("blockReason"))
        if reason and self.provider_reason is None:
            self.provider_reason = reason
            self._is_blocked = True
            self._extras["promptFeedback"] = feedback

    def read_candidate(self, candidate: dict[str, Any]) -> None:
        """Keep the finish reason of a candidate, and its fields that are not content."""
        reason = candidate.get("finishReason")
        if reason and reason != NO_REASON and isinstance(reason, str):
            self.read_reason(reason)
            self._is_blocked = False
            blocking = [rating for rating in objects_in(candidate.get("safetyRatings")) if rating.get("blocked")]
            if blocking:
                self._extras["safetyRatings"] = blocking
        if not candidate.keys() <= PLAIN_CANDIDATE:
            for name in CANDIDATE_EXTRAS:
                if candidate.get(name):
                    self._extras[name] = _joined(self._extras.get(name), candidate[name])

    def check_same_response(self, data: dict[str, Any]) -> None:
        """Raise MalformedStreamError for a chunk of another answer."""
        other = data.get("responseId")
        if other and self.response_id and other != self.response_id:
            raise MalformedStreamError("a second answer, with another id, follows the end of the first")

    def chunks(self, calls_finished: int) -> Iterator[StreamChunk]:
        """The last chunks: the sources and other fields of the answer, if there are any, and TurnFinished."""
        if self._extras:
            found = citations_of(self._extras, self.offsets)
            yield provider_block(WIRE, {"type": CANDIDATE, **self._extras}, found)
        self.service_tier = self._usage.get("serviceTier") or self._usage.get("trafficType")
        yield self.turn_finished(calls_finished)

    def finish_reason(self, calls_finished: int) -> FinishReason:
        return FinishReason.CONTENT_FILTER if self._is_blocked else super().finish_reason(calls_finished)

    def usage(self) -> Usage | None:
        return parse_usage(self._usage) if self._usage else None


def _has_counters(usage: dict[str, Any]) -> bool:
    return any(name in usage for name in USAGE_COUNTERS)


def _joined(old: Any, new: Any) -> Any:
    """Two values of one field: objects merge, and a list in them gets the items that it does not have.

    Some answers repeat all sources in each chunk, others send each source once.
    """
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return new
    joined = {**old, **new}
    for key in old.keys() & new.keys():
        if isinstance(old[key], list) and isinstance(new[key], list):
            joined[key] = [*old[key], *(item for item in new[key] if item not in old[key])]
    return joined


def parse_usage(fields: dict[str, Any]) -> Usage:
    """The usage of a chunk. Thoughts are not in the candidates, and results of server-side tools not in the prompt."""
    # {"promptTokenCount": 9, "toolUsePromptTokenCount": 0, "cachedContentTokenCount": 0, "candidatesTokenCount": 12,
    #  "thoughtsTokenCount": 7, "totalTokenCount": 28}
    return usage_of(
        input_tokens=positive_int(fields, "promptTokenCount") + positive_int(fields, "toolUsePromptTokenCount"),
        cached=positive_int(fields, "cachedContentTokenCount"),
        answer=positive_int(fields, "candidatesTokenCount"),
        thoughts=positive_int(fields, "thoughtsTokenCount"),
        total=positive_int(fields, "totalTokenCount"),
    )
