"""Content blocks of a message, as they arrive -> chunks."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from completion.contract.chunks import RedactedReasoning, StreamChunk
from completion.contract.errors import MalformedStreamError
from completion.wires.arguments import arguments_text, parse_args
from completion.wires.bedrock_converse.names import CITATIONS, WIRE
from completion.wires.json_values import is_too_deep, objects_in, provider_block, str_or_empty
from completion.wires.tool_call import ToolCall
from completion.wires.turn_order import TurnOrder

log = logging.getLogger(__name__)

_TEXT, _REASONING, _CALL, _OTHER = "text", "reasoning", "call", "other"


class ContentBlocks:
    """The content blocks of one message. Methods return the chunks that may be yielded now."""

    def __init__(self, order: TurnOrder) -> None:
        self._order = order
        self._open: dict[Any, _OpenBlock] = {}  # by contentBlockIndex
        self._stopped: set[Any] = set()  # by contentBlockIndex; only calls and blocks of other kinds

    @property
    def has_started(self) -> bool:
        """A block started."""
        return bool(self._open or self._stopped or self._order.text_length)

    def start(self, index: Any, start: dict[str, Any]) -> Iterator[StreamChunk]:
        """A block starts. Text and reasoning have no start event: their first delta opens the block."""
        call = start.get("toolUse")
        if isinstance(call, dict):
            # {"toolUse": {"toolUseId": "tooluse_1", "name": "f"}}, with "type": "server_tool_use" for Amazon's tools
            yield from self.stop(index)
            yield from self._end_texts()
            block = self._open[index] = _OpenBlock(_OTHER if call.get("type") else _CALL, "toolUse", call)
            if block.kind == _CALL:
                yield from self._order.call(block.call)
            return
        for name in ("toolResult", "image"):
            fields = start.get(name)
            if isinstance(fields, dict):
                yield from self.stop(index)
                yield from self._end_texts()
                self._open[index] = _OpenBlock(_OTHER, name, fields)

    def delta(self, index: Any, delta: dict[str, Any]) -> Iterator[StreamChunk]:
        text, reasoning, call = delta.get("text"), delta.get("reasoningContent"), delta.get("toolUse")
        if isinstance(text, str):
            yield from self._opened(index, _TEXT)
            yield from self._order.text(text)
        if isinstance(reasoning, dict):
            yield from self._reasoning(index, reasoning)
        if isinstance(call, dict):
            yield from self._input(index, arguments_text(call.get("input")))
        if isinstance(delta.get("citation"), dict):
            # {"citation": {"title": "…", "sourceContent": [{"text": "…"}], "location": {"documentPage": {…}}}}
            yield from self._opened(index, _TEXT)
            self._open[index].citations.append(delta["citation"])
        for name in ("toolResult", "image"):
            if name in delta:
                block = self._open.get(index)
                if block is None:
                    block = self._open[index] = _OpenBlock(_OTHER, name, {})
                block.add(delta[name])

    def stop(self, index: Any) -> Iterator[StreamChunk]:
        block = self._open.pop(index, None)
        if block is None:
            return
        match block.kind:
            case "text":
                yield from self._order.end_text()
                if block.citations:
                    length = self._order.text_length - block.text_length_before
                    own = {"type": CITATIONS, "citations": block.citations, "length": length}
                    yield from self._order.block(provider_block(WIRE, own))
            case "reasoning":
                if block.signature or not block.is_empty:
                    yield from self._order.end_reasoning(block.signature or None)
            case "call":
                self._stopped.add(index)
                # Bedrock sends the input in deltas only; some gateways send it with the start.
                if block.fields.get("input") and not block.call.arguments.text.strip():
                    block.call.add(arguments_text(block.fields["input"]))
                block.call.close()
                yield from self._order.release()
            case _:
                self._stopped.add(index)
                yield from self._order.block(provider_block(WIRE, block.complete()))

    def end(self) -> Iterator[StreamChunk]:
        """The message ends: end all open blocks."""
        for index in list(self._open):
            yield from self.stop(index)
        yield from self._order.end()

    def is_open_text(self, index: Any) -> bool:
        """This text block is already open, so its text may be yielded directly."""
        block = self._open.get(index) if type(index) is int else None
        return block is not None and block.kind == _TEXT

    def _opened(self, index: Any, kind: str) -> Iterator[StreamChunk]:
        """Open a block of text or reasoning, and end the one before it: some gateways send no contentBlockStop."""
        block = self._open.get(index)
        if block is not None and block.kind == kind:
            return
        yield from self._end_texts()
        if block is None or block.kind in (_TEXT, _REASONING):
            self._open[index] = _OpenBlock(kind, kind, {}, self._order.text_length)

    def _end_texts(self) -> Iterator[StreamChunk]:
        for index in [index for index, block in self._open.items() if block.kind in (_TEXT, _REASONING)]:
            yield from self.stop(index)

    def _reasoning(self, index: Any, fields: dict[str, Any]) -> Iterator[StreamChunk]:
        # {"text": "Hm."}, then {"signature": "EqkE…"}; or {"redactedContent": "<base64>"}; Vercel's SDK writes "data"
        redacted = str_or_empty(fields.get("redactedContent")) or str_or_empty(fields.get("data"))
        if redacted:
            yield from self._end_texts()
            yield from self._order.block(RedactedReasoning(redacted, WIRE))
        text, signature = str_or_empty(fields.get("text")), str_or_empty(fields.get("signature"))
        if not text and not signature:
            return
        yield from self._opened(index, _REASONING)
        block = self._open[index]
        block.signature += signature
        if text:
            block.is_empty = False
            yield from self._order.reasoning(text)

    def _input(self, index: Any, text: str) -> Iterator[StreamChunk]:
        block = self._open.get(index)
        if block is not None and block.kind == _OTHER:
            block.inputs.append(text)
            return
        if not text:
            return
        if block is None:
            if index in self._stopped:
                raise MalformedStreamError("the arguments of a tool call continue after its end")
            block = self._open[index] = _OpenBlock(_CALL, "toolUse", {})  # without a start event the tool is unknown
            yield from self._order.call(block.call)
        block.call.add(text)
        yield from self._order.release()


class _OpenBlock:
    """A content block that has started and not stopped."""

    __slots__ = (
        "call", "citations", "fields", "inputs", "is_empty", "kind", "name", "signature", "text_length_before",
    )  # fmt: skip

    def __init__(self, kind: str, name: str, fields: dict[str, Any], text_length_before: int = 0) -> None:
        self.kind = kind
        self.name = name  # the field of a content block that contains it
        self.fields = dict(fields)
        self.text_length_before = text_length_before  # characters of text in the turn before the block
        self.call = ToolCall(str_or_empty(fields.get("toolUseId")), str_or_empty(fields.get("name")))
        self.inputs: list[str] = []
        self.citations: list[dict[str, Any]] = []
        self.signature = ""
        self.is_empty = True  # True until reasoning text was read

    def add(self, delta: Any) -> None:
        """Add a delta to a block of another kind: a tool result or an image."""
        if isinstance(delta, dict):  # {"source": {"bytes": "…"}}
            self.fields.update(delta)
        else:  # [{"text": "…"}, {"json": {…}}]
            self.fields["content"] = [*self.fields.get("content", ()), *objects_in(delta)]

    def complete(self) -> dict[str, Any]:
        """The whole content block, as the API expects it back. Incomplete input stays a text."""
        if self.name != "toolUse":
            return {self.name: self.fields}
        text = "".join(self.inputs)
        own = {"toolUse": {**self.fields, "input": text if text.strip() else {}}}
        with suppress(ValueError):  # not JSON: truncated by max_tokens
            found = {"toolUse": {**self.fields, "input": parse_args(text) if text.strip() else {}}}
            if not is_too_deep(found):
                return found
        return own
