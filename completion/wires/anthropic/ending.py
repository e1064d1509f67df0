"""What the events say besides the content: id, model, stop reason, usage."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from completion.contract.chunks import FinishReason, StreamChunk, Usage
from completion.contract.errors import MalformedStreamError
from completion.wires.anthropic.names import FINISH_REASONS, MESSAGE, MESSAGE_EXTRAS, USAGE_COUNTERS, WIRE
from completion.wires.json_values import count, provider_block, string, without_none
from completion.wires.turn_end import TurnEnd


class MessageEnd(TurnEnd):
    """What the events say beside the content: how it ended, what it cost, who gave it."""

    def __init__(self) -> None:
        super().__init__(FINISH_REASONS)
        self.is_stopped = False
        """``message_stop`` was read."""
        self._has_begun = False
        self._usage: dict[str, Any] = {}
        self._extras: dict[str, Any] = {}

    @property
    def is_over(self) -> bool:
        return self.is_stopped or self.provider_reason is not None

    def start(self, given: dict[str, Any]) -> bool:
        """Take what the message says of itself; False where it says so a second time.

        Raises:
            MalformedStreamError: it is another message.
        """
        if self._has_begun:
            if self.is_over or given.get("id") != self.response_id:
                raise MalformedStreamError("a second message begins inside of the body of the first")
            return False
        self._has_begun = True
        self.response_id = given.get("id")
        self.model = given.get("model")
        self.count(given.get("usage"))
        self.note(given)
        return True

    def check_goes_on(self) -> None:
        """Raise MalformedStreamError where there is no more to say."""
        if self.is_stopped:
            raise MalformedStreamError("the answer goes on after message_stop")

    def note(self, given: Any) -> None:
        """The end of the turn, where it is there already."""
        if not isinstance(given, dict):
            return
        self.provider_reason = string(given.get("stop_reason")) or self.provider_reason
        self.stop_sequence = string(given.get("stop_sequence")) or self.stop_sequence
        self._extras |= {name: given[name] for name in MESSAGE_EXTRAS if given.get(name)}

    def count(self, usage: Any) -> None:
        """Counters replace those that were told before, and may be smaller."""
        if isinstance(usage, dict):
            self._usage |= without_none(usage)

    def note_model(self, block: dict[str, Any]) -> None:
        """Perhaps it says that another model takes over: {"type": "fallback", "from": {"model": "…"}, "to": {…}}"""
        if block.get("type") == "fallback" and isinstance(block.get("to"), dict):
            self.model = block["to"].get("model") or self.model

    def chunks(self, calls_finished: int) -> Iterator[StreamChunk]:
        """What the message carries besides its content, where there is any, and TurnFinished."""
        if self._extras:
            yield provider_block(WIRE, {"type": MESSAGE, **self._extras})
        self.service_tier = self._usage.get("service_tier")
        yield self.turn_finished(calls_finished)

    def reason(self, calls_finished: int) -> FinishReason:
        reason = super().reason(calls_finished)
        is_stopped_early = self.stop_sequence and reason is FinishReason.END_TURN  # llama.cpp
        return FinishReason.STOP_SEQUENCE if is_stopped_early else reason

    def usage(self) -> Usage | None:
        return None if self._usage.keys().isdisjoint(USAGE_COUNTERS) else _usage(self._usage)


def _usage(given: dict[str, Any]) -> Usage:
    # {"input_tokens": 9, "cache_read_input_tokens": 0, "cache_creation_input_tokens": 0, "output_tokens": 12,
    #  "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
    #  "output_tokens_details": {"thinking_tokens": 0}}       input_tokens: those beside the cache
    cached = count(given, "cache_read_input_tokens")
    by_ttl = given.get("cache_creation")
    for_5m, for_1h = count(by_ttl, "ephemeral_5m_input_tokens"), count(by_ttl, "ephemeral_1h_input_tokens")
    created = count(given, "cache_creation_input_tokens") or for_5m + for_1h
    if for_5m + for_1h != created:  # a later event told a new sum, and not its parts
        for_5m = for_1h = 0
    return Usage(
        input_tokens=count(given, "input_tokens") + cached + created,
        output_tokens=count(given, "output_tokens"),
        cached_input_tokens=cached,
        cache_creation_input_tokens=created,
        cache_creation_5m_tokens=for_5m,
        cache_creation_1h_tokens=for_1h,
        reasoning_tokens=count(given.get("output_tokens_details"), "thinking_tokens"),
    )
