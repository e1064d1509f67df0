"""What the events say about the message as a whole: id, model, stop reason, usage."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from completion.contract.chunks import FinishReason, StreamChunk, Usage
from completion.contract.errors import MalformedStreamError
from completion.wires.anthropic.names import (
    FINISH_REASONS,
    INPUT_COUNTERS,
    MESSAGE,
    MESSAGE_EXTRAS,
    OUTPUT_COUNTERS,
    USAGE_COUNTERS,
    WIRE,
)
from completion.wires.json_values import positive_int, provider_block, str_or_empty, without_none
from completion.wires.turn_summary import TurnSummary


class MessageSummary(TurnSummary):
    """Collects what the events say about the message as a whole."""

    def __init__(self) -> None:
        super().__init__(FINISH_REASONS)
        self.has_stopped = False
        """``message_stop`` was read."""
        self._has_started = False
        self._usage: dict[str, Any] = {}
        self._extras: dict[str, Any] = {}

    @property
    def is_over(self) -> bool:
        return self.has_stopped or self.provider_reason is not None

    def read_message_start(self, message: dict[str, Any]) -> bool:
        """Keep the fields of ``message_start``. False if the same event came before: some gateways send it twice.

        Raises:
            MalformedStreamError: it starts another message.
        """
        if self._has_started:
            if self.is_over or message.get("id") != self.response_id:
                raise MalformedStreamError("a second message begins in the body of the first")
            return False
        self._has_started = True
        self.response_id = message.get("id")
        self.model = message.get("model")
        self.update_usage(message.get("usage"))
        self.read_stop(message)
        return True

    def check_not_stopped(self) -> None:
        """Raise MalformedStreamError after ``message_stop``."""
        if self.has_stopped:
            raise MalformedStreamError("the answer goes on after message_stop")

    def read_stop(self, fields: Any) -> None:
        """Keep the stop reason and what comes with it, if it is there."""
        if not isinstance(fields, dict):
            return
        self.read_reason(str_or_empty(fields.get("stop_reason")))
        self.stop_sequence = str_or_empty(fields.get("stop_sequence")) or self.stop_sequence
        self._extras |= {name: fields[name] for name in MESSAGE_EXTRAS if fields.get(name)}

    def update_usage(self, usage: Any) -> None:
        """Later counters replace earlier ones: they are totals, and may be smaller.

        Some compatible servers count in ``message_start`` only, and send zeros later: a message whose whole prompt, or
        whole answer, is zero did not count it.
        """
        if not isinstance(usage, dict):
            return
        usage = without_none(usage)
        for names in (INPUT_COUNTERS, OUTPUT_COUNTERS):
            if not any(positive_int(usage, name) for name in names):
                usage = {name: value for name, value in usage.items() if name not in names or name not in self._usage}
        self._usage |= usage

    def read_fallback_model(self, block: dict[str, Any]) -> None:
        """Keep the model of a fallback block: another model answers from here on."""
        # {"type": "fallback", "from": {"model": "…"}, "to": {"model": "…"}}
        if block.get("type") == "fallback" and isinstance(block.get("to"), dict):
            self.model = block["to"].get("model") or self.model

    def chunks(self, calls_finished: int) -> Iterator[StreamChunk]:
        """The last chunks: the other fields of the message, if there are any, and TurnFinished."""
        if self._extras:
            yield provider_block(WIRE, {"type": MESSAGE, **self._extras})
        self.service_tier = self._usage.get("service_tier")
        yield self.turn_finished(calls_finished)

    def finish_reason(self, calls_finished: int) -> FinishReason:
        reason = super().finish_reason(calls_finished)
        # llama.cpp says "end_turn" and names the stop sequence.
        has_stop_sequence = self.stop_sequence and reason is FinishReason.END_TURN
        return FinishReason.STOP_SEQUENCE if has_stop_sequence else reason

    def usage(self) -> Usage | None:
        return None if self._usage.keys().isdisjoint(USAGE_COUNTERS) else parse_usage(self._usage)


def parse_usage(fields: dict[str, Any]) -> Usage:
    """The usage of a message. Here input_tokens are without the cached tokens; in Usage they are the total."""
    # {"input_tokens": 9, "cache_read_input_tokens": 0, "cache_creation_input_tokens": 0, "output_tokens": 12,
    #  "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
    #  "output_tokens_details": {"thinking_tokens": 0}}
    cached = positive_int(fields, "cache_read_input_tokens")
    by_ttl = fields.get("cache_creation")
    for_5m, for_1h = (
        positive_int(by_ttl, "ephemeral_5m_input_tokens"),
        positive_int(by_ttl, "ephemeral_1h_input_tokens"),
    )
    created = positive_int(fields, "cache_creation_input_tokens") or for_5m + for_1h
    if for_5m + for_1h != created:  # a later event had a new total without its parts
        for_5m = for_1h = 0
    return Usage(
        input_tokens=positive_int(fields, "input_tokens") + cached + created,
        output_tokens=positive_int(fields, "output_tokens"),
        cached_input_tokens=cached,
        cache_creation_input_tokens=created,
        cache_creation_5m_tokens=for_5m,
        cache_creation_1h_tokens=for_1h,
        reasoning_tokens=positive_int(fields.get("output_tokens_details"), "thinking_tokens"),
    )
