"""Reasoning on Chat Completions: the fields in which servers send it, and the fields in which it is sent back.

    delta -> ReasoningReader -> ReasoningDelta, ReasoningFinished(wire_data)  ...  reasoning_fields -> the next request

OpenAI sends no reasoning on this wire, so each server has its own field. ``wire_data`` of the chunk remembers the field
and everything else that the server needs to recognize its reasoning:

    {"field": "reasoning"}                                    plain text came in this field
    {"details": [{"type": "reasoning.text", "text": 17}]}     reasoning_details; the number is a length of text
    {"message": {"thinking_blocks": [{…}]}}                   fields of the message that are sent back unchanged
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from completion.contract.chunks import RedactedReasoning, StreamChunk
from completion.contract.messages import Block, ReasoningBlock, RedactedReasoningBlock
from completion.wires.json_values import objects_in, str_or_empty
from completion.wires.turn_order import TurnOrder

PLAIN_FIELDS = ("reasoning_content", "reasoning", "reasoning_text")
"""DeepSeek and most servers; Groq, OpenRouter, Cerebras, Ollama; GitHub Copilot."""

_FIELDS = (*PLAIN_FIELDS, "thinking", "thought", "reasoning_summary")
"""All fields of a delta that are read. Few servers send the last three."""

SIGNED_FIELDS = ("thinking_blocks", "reasoning_opaque", "extra_content")
"""LiteLLM in front of Claude, GitHub Copilot, Gemini's compatible endpoint: fields that carry a signature."""

CONTENT = "content"
"""The field of reasoning that came as a part of the content, as at Mistral."""

_TEXT_FIELDS = ("text", "summary")  # of a reasoning detail


class ReasoningReader:
    """Reads the reasoning of one turn."""

    def __init__(self, order: TurnOrder) -> None:
        self._order = order
        self._signature: str | None = None
        self._plain_length = 0
        # True if a delta had plain reasoning and reasoning_details together: the same text in two fields.
        self._has_both = False
        # True if thinking_blocks came without plain reasoning.
        self._has_blocks = False
        self._is_in_thought = False
        self._details: list[dict[str, Any]] = []

    def take(self, delta: dict[str, Any]) -> Iterator[StreamChunk]:
        """The chunks of the reasoning in a delta. OpenRouter sends the same text in two fields."""
        text, field = _plain(delta)
        if text:
            self._plain_length += len(text)
            yield from self.add(text, field)
        for detail in objects_in(delta.get("reasoning_details")):
            # {"type": "reasoning.text", "text": "…", "signature": "…"}, {"type": "reasoning.encrypted", "data": "…"}
            yield from self._take_detail(detail, has_plain=bool(text))
        yield from self._take_signed_fields(delta)

    def add(self, text: str, field: str) -> Iterator[StreamChunk]:
        """The chunks of reasoning text that came in this field."""
        if self._order.reasoning_data is None:
            self._order.reasoning_data = {"field": field}
        yield from self._order.reasoning(text)

    def is_thought(self, delta: dict[str, Any]) -> bool:
        """True if the content of the delta is a thought. Gemini's compatible endpoint marks it."""
        google = _google(delta)
        return google is not None and google.get("thought") is True

    def add_thought(self, text: str) -> Iterator[StreamChunk]:
        """The chunks of a thought in the content. Gemini's compatible endpoint puts all of them into <thought> tags."""
        if not self._is_in_thought:
            text = text.removeprefix("<thought>")
        self._is_in_thought = True
        if text:
            yield from self.add(text, "")

    def without_end_of_thought(self, text: str) -> str:
        """The text without the tag that ends the thoughts before it."""
        if self._is_in_thought:
            self._is_in_thought = False
            return text.removeprefix("</thought>")
        return text

    def _take_detail(self, detail: dict[str, Any], *, has_plain: bool) -> Iterator[StreamChunk]:
        text = next(filter(None, (str_or_empty(detail.get(name)) for name in _TEXT_FIELDS)), "")
        signature = str_or_empty(detail.get("signature"))
        encrypted = str_or_empty(detail.get("data"))
        if encrypted:
            rest = {"details": [_without(detail, "data")]}
            yield from self._order.block(RedactedReasoning(encrypted, self._order.origin, rest))
            return
        self._keep_detail(detail, len(text))
        if text and has_plain:
            self._has_both = True
        elif text and not self._repeats_plain(text, signature):
            yield from self._order.reasoning(text)
        if signature and signature != self._signature:
            self._signature = signature
            yield from self._order.end_reasoning(signature, {"details": self._details})
            self._details = []

    def _keep_detail(self, detail: dict[str, Any], length: int) -> None:
        """Remember a detail for ``wire_data``.

        The deltas of one detail become one item. Its text becomes a length, because the block has the text already.
        """
        if self._order.reasoning_data is None or self._order.reasoning_data.get("details") is not self._details:
            self._details = []
            self._order.reasoning_data = {"details": self._details}
        item = {key: length if key in _TEXT_FIELDS else value for key, value in detail.items() if value is not None}
        last = self._details[-1] if self._details else None
        if last is None or any(last.get(key) != item.get(key) for key in ("type", "index")):
            self._details.append(item)
            return
        for key, value in item.items():
            last[key] = last.get(key, 0) + value if key in _TEXT_FIELDS else value

    def _repeats_plain(self, text: str, signature: str) -> bool:
        """True if the text of a detail repeats the plain reasoning of earlier deltas. Its delta has no plain reasoning.

        It does if plain reasoning always came without details. If a delta had both, a later detail alone is new text,
        unless it has a signature and is at least as long as all plain reasoning: then it is the whole text again.
        """
        is_signed_whole = bool(signature) and len(text) >= self._plain_length
        return bool(self._plain_length) and (is_signed_whole or not self._has_both)

    def _take_signed_fields(self, delta: dict[str, Any]) -> Iterator[StreamChunk]:
        """Signatures that gateways send in fields of their own."""
        # LiteLLM in front of Claude: {"thinking_blocks": [{"type": "thinking", "thinking": "…", "signature": "…"}]}
        for block in objects_in(delta.get("thinking_blocks")):
            text = str_or_empty(block.get("thinking"))
            if text and not self._plain_length:  # usually reasoning_content has the same text
                self._has_blocks = True
            if text and self._has_blocks:
                yield from self.add(text, "")
            redacted = str_or_empty(block.get("data"))
            if redacted:
                data = {"message": {"thinking_blocks": [_without(block, "data")]}}
                yield from self._order.block(RedactedReasoning(redacted, self._order.origin, data))
            yield from self._end_signed(str_or_empty(block.get("signature")), "thinking_blocks", [block])
        # GitHub Copilot
        opaque = str_or_empty(delta.get("reasoning_opaque"))
        yield from self._end_signed(opaque, "reasoning_opaque", opaque)
        # Gemini's compatible endpoint, for text and thoughts
        google = _google(delta)
        thought = str_or_empty(google.get("thought_signature")) if google is not None else ""
        yield from self._end_signed(thought, "extra_content", delta.get("extra_content"))

    def _end_signed(self, signature: str, field: str, value: Any) -> Iterator[StreamChunk]:
        if signature and signature != self._signature:
            self._signature = signature
            yield from self._order.end_reasoning(signature, {"message": {field: value}})


def _google(delta: dict[str, Any]) -> dict[str, Any] | None:
    extra = delta.get("extra_content")
    google = extra.get("google") if isinstance(extra, dict) else None
    return google if isinstance(google, dict) else None


def _without(fields: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if key != name}


def _plain(delta: dict[str, Any]) -> tuple[str, str]:
    for field in _FIELDS:
        value = delta.get(field)
        if isinstance(value, dict):  # no server known for sure: {"reasoning": {"content": "…"}}
            value = value.get("content") or value.get("text")
        elif isinstance(value, list):  # or a list of parts: [{"type": "text", "text": "…"}]
            value = "".join(str_or_empty(part.get("text")) for part in objects_in(value))
        if value and isinstance(value, str):
            return value, field
    return "", ""


# --- sending it back -------------------------------------------------------------------------------------------------


def reasoning_fields(blocks: Iterable[Block], mode: str, *, has_calls: bool) -> dict[str, Any]:
    """The fields of an assistant message that send its reasoning back.

    Plain reasoning is sent only with a tool call: servers want it while the model works on one question. Signed
    reasoning is always sent, in the field in which it came, and only to the server that it came from.

    Args:
        mode: ``ChatDialect.reasoning_back``.
        has_calls: the message has tool calls.
    """
    if mode == "never":
        return {}
    plain, field = "", ""
    details: list[dict[str, Any]] = []
    fields: dict[str, Any] = {}
    for block in blocks:
        if not isinstance(block, ReasoningBlock | RedactedReasoningBlock):
            continue
        data = block.wire_data or {}  # valid_history removed that of other servers
        if isinstance(block, RedactedReasoningBlock):
            details += [{**item, "data": block.data} for item in data.get("details", ())]
            redacted = [{**item, "data": block.data} for item in data.get("message", {}).get("thinking_blocks", ())]
            if redacted:
                fields["thinking_blocks"] = [*fields.get("thinking_blocks", ()), *redacted]
            continue
        details += _with_texts(data.get("details", ()), block.text)
        for name, value in data.get("message", {}).items():
            if name not in SIGNED_FIELDS:
                continue
            if name == "thinking_blocks":
                # The signature covers the whole text, and came with an empty one or with its last piece.
                value = [{**item, "thinking": block.text} for item in value]
            fields[name] = [*fields.get(name, ()), *value] if isinstance(value, list) else value
        if data or mode in PLAIN_FIELDS:
            plain, field = plain + block.text, data.get("field", field)
    if details and mode in ("as_received", "reasoning_details"):
        fields["reasoning_details"] = details
    if not has_calls:
        return fields
    if mode in PLAIN_FIELDS:
        # Also if empty: DeepSeek and Moonshot refuse a call without the field, even a call of another provider.
        return {**fields, mode: plain} if plain or mode == "reasoning_content" else fields
    if plain and not details:
        field = "reasoning" if mode == "reasoning_details" else field
        return {**fields, field: plain} if field else fields
    return fields


def _with_texts(items: Iterable[dict[str, Any]], text: str) -> list[dict[str, Any]]:
    """The reasoning details, each with its part of the text in place of its length.

    If the lengths do not add up, the text was changed: the first detail gets all of it, and the others none.
    """
    items = list(items)
    lengths = [item[key] for item in items for key in _TEXT_FIELDS if isinstance(item.get(key), int)]
    is_unchanged = sum(lengths) == len(text)
    filled: list[dict[str, Any]] = []
    begin = 0
    for item in items:
        item = dict(item)
        for key in _TEXT_FIELDS:
            length = item.get(key)
            if isinstance(length, int):
                end = begin + length if is_unchanged else len(text)
                item[key] = text[begin:end]
                begin = end
        filled.append(item)
    return filled
