"""What the chunks say besides the answer: id, model, finish reason, usage."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from completion.contract.chunks import FinishReason, StreamChunk, Usage
from completion.contract.errors import MalformedStreamError, ProviderError
from completion.wires import refusals
from completion.wires.json_values import count, provider_block
from completion.wires.openai_chat.names import FINISH_REASONS, USAGE_TOTALS, WIRE
from completion.wires.turn_end import TurnEnd


class ChatEnd(TurnEnd):
    """What the chunks say beside the answer: how it ended, what it cost, who gave it."""

    def __init__(self) -> None:
        super().__init__(FINISH_REASONS)
        self.is_refusal = False
        self.has_delta = False
        self.signature: str | None = None
        self.plain_reasoning_length = 0
        self.has_both_reasonings = False
        self._choice_index: Any = None
        self._finished_id: Any = None
        self._usage: dict[str, Any] | None = None
        self._sources: dict[str, Any] = {}

    def repeats_reasoning(self, thought: str, signature: str) -> bool:
        """A detail without plain reasoning beside it repeats what the plain reasoning said before.

        It does after plain text alone, and where it signs the whole; where both came together, it goes on.
        """
        signs_all = bool(signature) and len(thought) >= self.plain_reasoning_length
        return bool(self.plain_reasoning_length) and (signs_all or not self.has_both_reasonings)

    def first_choice(self, data: dict[str, Any]) -> dict[str, Any] | None:
        """The choice of index 0; where a server numbers otherwise or not at all, the one that it began with."""
        choices = data.get("choices")
        if not choices or not isinstance(choices, list):
            return None
        if len(choices) == 1 and type(choices[0]) is dict and not choices[0].get("index"):
            choice: dict[str, Any] = choices[0]
            return choice
        for choice in choices:
            if isinstance(choice, dict) and choice.get("index") in (self._choice_index, 0, None):
                return choice
        if self._choice_index is None and self.response_id is None and isinstance(choices[0], dict):
            self._choice_index = choices[0].get("index")
            return choices[0]
        return None

    def note(self, data: dict[str, Any], choice: dict[str, Any] | None) -> None:
        """What a chunk says of the response as a whole. The first id and model, the last usage count."""
        self.response_id = self.response_id or data.get("id")
        self.model = self.model or data.get("model")
        self.service_tier = data.get("service_tier") or self.service_tier
        usage = data.get("usage")
        if "x_groq" in data:
            usage = self._of_groq(data["x_groq"]) or usage
        if not usage and choice is not None:
            usage = choice.get("usage")  # Moonshot
        if usage and isinstance(usage, dict) and any(key in usage for key in USAGE_TOTALS):
            self._usage = usage
        for key in ("citations", "search_results"):  # Perplexity, xAI: the same list in every chunk
            if data.get(key):
                self._sources[key] = data[key]

    def _of_groq(self, extra: Any) -> Any:
        # {"id": "req_…", "usage": {…}}, or {"id": "req_…", "error": "over_capacity"}
        if not isinstance(extra, dict):
            return None
        if extra.get("error"):
            raise refusals.in_band({"error": extra["error"]})
        return extra.get("usage")

    def finish(self, reason: Any, data: dict[str, Any], choice: dict[str, Any]) -> None:
        if choice.get("error"):  # OpenRouter: {"finish_reason": "error", "error": {"code": 502, "message": "…"}}
            raise refusals.in_band({"error": choice["error"]})
        if not reason or reason == "null":
            return
        if reason == "error":
            raise ProviderError("the provider ended the turn with finish_reason 'error'", code="error")
        self.provider_reason = str(reason)
        self._finished_id = data.get("id")

    def check_not_spliced(self, data: dict[str, Any], delta: dict[str, Any]) -> None:
        """Raise where an answer goes on after its end under another id: two answers in one body.

        Where the first and the last chunk of an answer differ in their id, it says nothing (Groq's compound).
        """
        goes_on = any(value for key, value in delta.items() if key != "role")
        chunk_id = data.get("id")
        if goes_on and chunk_id and self._finished_id == self.response_id and chunk_id != self._finished_id:
            raise MalformedStreamError("a second answer, with another id, follows the end of the first")

    def chunks(self, calls_finished: int) -> Iterator[StreamChunk]:
        """The sources of the answer, where a server names some, and TurnFinished."""
        if self._sources:
            yield provider_block(WIRE, self._sources)
        yield self.turn_finished(calls_finished)

    def reason(self, calls_finished: int) -> FinishReason:
        reason = super().reason(calls_finished)
        return FinishReason.REFUSAL if self.is_refusal and reason is FinishReason.END_TURN else reason

    def usage(self) -> Usage | None:
        return _usage(self._usage) if self._usage else None


def _usage(given: dict[str, Any]) -> Usage:
    # {"prompt_tokens": 9, "completion_tokens": 12, "total_tokens": 21, "prompt_tokens_details": {"cached_tokens": 0},
    #  "completion_tokens_details": {"reasoning_tokens": 7}}
    prompt = given.get("prompt_tokens_details") or given.get("input_tokens_details") or {}
    answer = given.get("completion_tokens_details") or given.get("output_tokens_details") or {}
    input_tokens = count(given, "prompt_tokens") or count(given, "input_tokens")
    output_tokens = count(given, "completion_tokens") or count(given, "output_tokens")
    reasoning = count(answer, "reasoning_tokens") or count(given, "reasoning_tokens")  # Perplexity
    if reasoning and count(given, "total_tokens") == input_tokens + output_tokens + reasoning:
        output_tokens += reasoning  # xAI counts reasoning beside the completion
    return Usage(
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        cached_input_tokens=count(prompt, "cached_tokens")
        or count(given, "prompt_cache_hit_tokens")  # DeepSeek
        or count(given, "cached_tokens")  # Moonshot
        or count(given, "cache_read_input_tokens"),  # LiteLLM
        cache_creation_input_tokens=count(prompt, "cache_write_tokens")
        or count(prompt, "cache_creation_input_tokens")  # Alibaba
        or count(prompt, "cache_creation_tokens")  # LiteLLM
        or count(given, "cache_creation_input_tokens"),
        reasoning_tokens=reasoning,
    )
