"""The metrics, under the names of the conventions before or after their renaming of 2026, or under both.

    environment variable OTEL_SEMCONV_STABILITY_OPT_IN      names
    without one of the values below                         gen_ai.client.operation.*, gen_ai.client.token.usage
    gen_ai_latest_experimental                              gen_ai.client.inference.*
    gen_ai_latest_experimental/dup                          both, for the time in which dashboards move

The metrics of runs and of tool calls have the same names in both.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from completion.contract.chunks import Usage

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.metrics import Counter, Histogram, Meter

OPT_IN = "OTEL_SEMCONV_STABILITY_OPT_IN"
"""A list with commas. Values of other instrumentations, such as ``http``, may stand beside ours."""

_LATEST = "gen_ai_latest_experimental"

# The bucket boundaries that the conventions recommend. A run of an agent takes longer than a call, so it has its own.
_SECONDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
_AGENT_SECONDS = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 51.2, 102.4, 204.8, 409.6)
_TOKENS = tuple(4**power for power in range(14))

_TOKEN_COUNTERS = {
    "input_tokens": "input_tokens",
    "output_tokens": "output_tokens",
    "cached_input_tokens": "cache_read.input_tokens",
    "cache_creation_input_tokens": "cache_write.input_tokens",
    "reasoning_tokens": "reasoning.output_tokens",
}
"""Our field -> the end of the counter's name. The last three are parts of the first two."""

Attributes = Mapping[str, Any]


def metric_names() -> tuple[str, ...]:
    """The prefixes of the names to use, as the environment says: ``operation``, ``inference``, or both."""
    wanted = {value.strip() for value in os.environ.get(OPT_IN, "").split(",")}
    if f"{_LATEST}/dup" in wanted:
        return ("operation", "inference")
    return ("inference",) if _LATEST in wanted else ("operation",)


class Metrics:
    """The instruments of one meter. ``names``: a result of ``metric_names``."""

    def __init__(self, meter: Meter, names: tuple[str, ...]) -> None:
        self._meter = meter
        prefixes = [f"gen_ai.client.{name}" for name in names]
        first, gap = "Time from the request to the first chunk.", "Time from one chunk to the next."
        self._durations = {
            "chat": [self._seconds(f"{prefix}.duration", "GenAI operation duration.") for prefix in prefixes],
            "invoke_agent": [self._seconds("gen_ai.invoke_agent.duration", "Duration of a run.", _AGENT_SECONDS)],
            "execute_tool": [self._seconds("gen_ai.execute_tool.duration", "Duration of a tool call.")],
        }
        self._first_chunk = [self._seconds(f"{prefix}.time_to_first_chunk", first) for prefix in prefixes]
        self._output_chunk = [self._seconds(f"{prefix}.time_per_output_chunk", gap) for prefix in prefixes]
        used = "gen_ai.client.token.usage"
        self._token_usage = [self._tokens(used, "Number of tokens used.")] if "operation" in names else []
        self._per_call: dict[str, Histogram] = {}
        self._counters: dict[str, Counter] = {}
        if "inference" in names:
            self._per_call = {
                kind: self._tokens(f"gen_ai.client.inference.operation.{kind}", "Tokens of one call.")
                for kind in ("input_tokens", "output_tokens")
            }
            self._counters = {
                kind: meter.create_counter(f"gen_ai.client.inference.usage.{name}", "{token}", "Tokens used.")
                for kind, name in _TOKEN_COUNTERS.items()
            }

    def _seconds(self, name: str, description: str, boundaries: tuple[float, ...] = _SECONDS) -> Histogram:
        return self._meter.create_histogram(name, "s", description, explicit_bucket_boundaries_advisory=boundaries)

    def _tokens(self, name: str, description: str) -> Histogram:
        return self._meter.create_histogram(name, "{token}", description, explicit_bucket_boundaries_advisory=_TOKENS)

    def record_duration(self, operation: str, seconds: float, attributes: Attributes, context: Context) -> None:
        for histogram in self._durations[operation]:
            histogram.record(seconds, attributes, context)

    def record_first_chunk(self, seconds: float, attributes: Attributes, context: Context) -> None:
        for histogram in self._first_chunk:
            histogram.record(seconds, attributes, context)

    def record_output_chunks(self, gaps: Iterable[float], attributes: Attributes, context: Context) -> None:
        for gap in gaps:
            for histogram in self._output_chunk:
                histogram.record(gap, attributes, context)

    def record_usage(self, usage: Usage | None, attributes: Attributes, context: Context) -> None:
        """Record the tokens of a call. None: the provider reported none, or the call failed."""
        kinds = {"input": usage.input_tokens, "output": usage.output_tokens} if usage is not None else {}
        for kind, count in kinds.items():
            for histogram in self._token_usage:
                histogram.record(count, {**attributes, "gen_ai.token.type": kind}, context)
            if self._per_call:
                self._per_call[f"{kind}_tokens"].record(count, attributes, context)
        counted = {name: value for name, value in attributes.items() if name != "error.type"}
        counted["gen_ai.token.modality"] = "unknown"  # Usage does not say which tokens are of text and which of images
        for name, counter in self._counters.items():
            count = getattr(usage, name, 0)
            if count or name in self._per_call:  # both totals get a 0 as well: the conventions want one for each call
                counter.add(count, counted, context)
