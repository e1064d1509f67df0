"""What the chunks say about the answer as a whole: id, model, finish reason, usage, sources."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from completion.contract.chunks import FinishReason, StreamChunk, Usage
from completion.contract.errors import MalformedStreamError
from completion.wires import refusals
from completion.wires.finish_words import REASONS, raise_if_failed
from completion.wires.json_values import positive_int, provider_block
from completion.wires.openai_chat.names import FAILURES, USAGE_TOTALS, WIRE
from completion.wires.openai_chat.sources import citations_of_sources
from completion.wires.turn_summary import TurnSummary


class ChatSummary(TurnSummary):
    """Collects what the chunks say about the answer as a whole, and what later chunks are compared with."""

    def __init__(self) -> None:
        super().__init__(REASONS)
        self.is_refusal = False
        """A delta had a ``refusal``."""
        self.has_delta = False
        """A chunk had a ``delta`` that was not empty."""
        self._choice_index: Any = None
        self._has_choice = False
        self._finished_id: Any = None
        self._usage: dict[str, Any] | None = None
        self._sources: dict[str, Any] = {}

    def first_choice(self, data: dict[str, Any]) -> dict[str, Any] | None:
        """The choice with index 0 or without one; else the choice with the index of the first chunk."""
        choices = data.get("choices")
        if isinstance(choices, dict):
            choices = [choices]
        if not choices or not isinstance(choices, list):
            return None
        if len(choices) == 1 and type(choices[0]) is dict and not choices[0].get("index"):
            choice: dict[str, Any] = choices[0]
            self._has_choice = True
            return choice
        for choice in choices:
            if isinstance(choice, dict) and choice.get("index") in (self._choice_index, 0, None):
                self._has_choice = True
                return choice
        is_first_chunk = not self._has_choice and self.response_id is None
        if is_first_chunk and isinstance(choices[0], dict):
            self._choice_index = choices[0].get("index")
            self._has_choice = True
            return choices[0]
        return None

    def read_response_fields(self, data: dict[str, Any], choice: dict[str, Any] | None) -> None:
        """Keep what a chunk says about the response. The first id and model count, and the last tier and usage."""
        self.response_id = self.response_id or data.get("id")
        self.model = self.model or data.get("model")
        self.service_tier = data.get("service_tier") or self.service_tier
        usage = data.get("usage")
        if "x_groq" in data:
            usage = self._groq_usage(data["x_groq"]) or usage
        if not usage and choice is not None:
            usage = choice.get("usage")  # Moonshot
        is_usage = isinstance(usage, dict) and any(key in usage for key in USAGE_TOTALS)
        # Some gateways send zeros in the last chunk.
        if is_usage and (self._usage is None or any(positive_int(usage, key) for key in USAGE_TOTALS)):
            self._usage = usage
        for key in ("citations", "search_results"):  # Perplexity, xAI: the same list in every chunk
            if data.get(key):
                self._sources[key] = data[key]

    def _groq_usage(self, extra: Any) -> Any:
        # {"id": "req_…", "usage": {…}}, or {"id": "req_…", "error": "over_capacity"}
        if not isinstance(extra, dict):
            return None
        if extra.get("error"):
            raise refusals.in_band({"error": extra["error"]})
        return extra.get("usage")

    def read_finish_reason(self, reason: Any, data: dict[str, Any], choice: dict[str, Any]) -> None:
        """Keep the finish reason of a chunk.

        Raises:
            ProviderError: the finish reason is an error.
        """
        if choice.get("error"):  # OpenRouter: {"finish_reason": "error", "error": {"code": 502, "message": "…"}}
            raise refusals.in_band({"error": choice["error"]})
        if not reason or reason == "null":  # a string "null" means none
            return
        word = str(reason)
        raise_if_failed(word, FAILURES)
        self.read_reason(word)
        self._finished_id = data.get("id")

    def check_no_second_answer(self, data: dict[str, Any], delta: dict[str, Any]) -> None:
        """Raise MalformedStreamError if an answer with another id follows the end of this one.

        Ids are compared only if the finish reason came with the id of the first chunk. On some servers every chunk has
        an id of its own (Groq's compound models).
        """
        has_content = any(value for key, value in delta.items() if key != "role")
        chunk_id = data.get("id")
        if has_content and chunk_id and self._finished_id == self.response_id and chunk_id != self._finished_id:
            raise MalformedStreamError("a second answer, with another id, follows the end of the first")

    def chunks(self, calls_finished: int) -> Iterator[StreamChunk]:
        """The last chunks: the sources of the answer, if there are any, and TurnFinished."""
        if self._sources:
            yield provider_block(WIRE, self._sources, citations_of_sources(self._sources))
        yield self.turn_finished(calls_finished)

    def finish_reason(self, calls_finished: int) -> FinishReason:
        reason = super().finish_reason(calls_finished)
        return FinishReason.REFUSAL if self.is_refusal and reason is FinishReason.END_TURN else reason

    def usage(self) -> Usage | None:
        return parse_usage(self._usage) if self._usage else None


def parse_usage(fields: dict[str, Any]) -> Usage:
    """The usage of a chunk, in the field names of all known servers."""
    # {"prompt_tokens": 9, "completion_tokens": 12, "total_tokens": 21, "prompt_tokens_details": {"cached_tokens": 0},
    #  "completion_tokens_details": {"reasoning_tokens": 7}}
    prompt = fields.get("prompt_tokens_details") or fields.get("input_tokens_details") or {}
    answer = fields.get("completion_tokens_details") or fields.get("output_tokens_details") or {}
    input_tokens = positive_int(fields, "prompt_tokens") or positive_int(fields, "input_tokens")
    output_tokens = positive_int(fields, "completion_tokens") or positive_int(fields, "output_tokens")
    reasoning = positive_int(answer, "reasoning_tokens") or positive_int(fields, "reasoning_tokens")  # Perplexity
    cached = (
        positive_int(prompt, "cached_tokens")
        or positive_int(fields, "prompt_cache_hit_tokens")  # DeepSeek
        or positive_int(fields, "cached_tokens")  # Moonshot
        or positive_int(fields, "cache_read_input_tokens")  # LiteLLM
    )
    created = (
        positive_int(prompt, "cache_write_tokens")
        or positive_int(prompt, "cache_creation_input_tokens")  # Alibaba
        or positive_int(prompt, "cache_creation_tokens")  # LiteLLM
        or positive_int(fields, "cache_creation_input_tokens")
    )
    missing = positive_int(fields, "total_tokens") - input_tokens - output_tokens
    if missing > 0 and input_tokens and missing in (cached, created, cached + created):
        input_tokens += missing  # gateways in front of Anthropic: the prompt is without what is cached
    elif missing > 0 and input_tokens and output_tokens:
        # xAI's completion_tokens are without the reasoning; of Gemini's thoughts only the total tells.
        output_tokens += missing
        reasoning = reasoning or missing
    return Usage(
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        cached_input_tokens=cached,
        cache_creation_input_tokens=created,
        reasoning_tokens=reasoning,
    )
