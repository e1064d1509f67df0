"""The content blocks as they arrive."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from completion.contract.chunks import RedactedReasoning, StreamChunk
from completion.contract.errors import MalformedStreamError
from completion.wires.anthropic.names import CALLER, CITATIONS, TOOL_USE_FIELDS, WIRE
from completion.wires.json_values import is_too_deep, objects, provider_block, string
from completion.wires.tool_call import ToolCall, parse_args
from completion.wires.turn_order import TurnOrder

log = logging.getLogger(__name__)


class Content:
    """The content blocks as they arrive."""

    def __init__(self, order: TurnOrder) -> None:
        self._order = order
        self._open: dict[Any, _Block] = {}
        self._flowing: dict[Any, None] = {}  # indexes of the open ones of text and thinking
        self._over: set[Any] = set()  # indexes of the calls, of ours and of the server's tools, that are over
        self._last: Any = None  # index of the block that began last
        self._text_over: _Block | None = None

    def start(self, index: Any, given: dict[str, Any]) -> Iterator[StreamChunk]:
        index = _key(index)
        # A server that does not say where a block stops ends it by beginning the next; calls may go on.
        for other in (*self._flowing, index):
            yield from self._stop(other)
        kind = string(given.get("type"))
        block = self._opened(index, kind, given)
        match kind:
            case "text":
                # {"type": "text", "text": "", "citations": []}
                yield from self._order.text(string(given.get("text")))
                block.citations += objects(given.get("citations"))
            case "thinking":
                # {"type": "thinking", "thinking": "", "signature": ""}
                block.signature = string(given.get("signature"))
                yield from self._thought(block, given.get("thinking"))
            case "redacted_thinking":
                # {"type": "redacted_thinking", "data": "EqkE…"}
                yield from self._order.block(RedactedReasoning(string(given.get("data"))))
            case "tool_use":
                # {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {}}
                yield from self._order.call(block.call)

    def delta(self, index: Any, delta: dict[str, Any]) -> Iterator[StreamChunk]:
        kind = delta.get("type")
        index = self._last if _key(index) is None else index
        block = self._open.get(index)
        match kind:
            case "text_delta":
                yield from self._order.text(string(delta.get("text")))
            case "thinking_delta":
                yield from self._thought(block or self._opened(index, "thinking", {}), delta.get("thinking"))
            case "signature_delta":
                block = block or self._opened(index, "thinking", {})
                block.signature = string(delta.get("signature")) or block.signature
            case "input_json_delta":
                yield from self._input(index, block, string(delta.get("partial_json")))
            case "citations_delta":
                # {"type": "citations_delta", "citation": {"type": "page_location", "cited_text": "…", …}}
                citation = objects([delta.get("citation")])
                if block is not None and block.kind == "text":
                    block.citations += citation
                else:
                    yield from self._cite(self._text_over or _Block("text", {}, 0), citation)
            case "compaction_delta":
                # {"type": "compaction_delta", "content": "A summary", "encrypted_content": "…"}
                block = block or self._opened(index, "compaction", {"type": "compaction"})
                told = {name: value for name, value in delta.items() if name != "type" and value is not None}
                block.given.update(told)
            case _:
                log.debug("skipped a delta of unknown type")

    def stop(self, index: Any) -> Iterator[StreamChunk]:
        return self._stop(self._last if _key(index) is None else index)

    def end(self) -> Iterator[StreamChunk]:
        """All that is still open, closed."""
        for index in list(self._open):
            yield from self._stop(index)
        yield from self._order.end_text()
        yield from self._order.end()

    def _opened(self, index: Any, kind: str, given: dict[str, Any]) -> _Block:
        block = self._open[index] = _Block(kind, given, self._order.text_length)
        self._last = index
        if kind in ("text", "thinking"):
            self._flowing[index] = None
        return block

    def _stop(self, index: Any) -> Iterator[StreamChunk]:
        block = self._open.pop(index, None)
        if block is None:
            return
        self._flowing.pop(index, None)
        match block.kind:
            case "text":
                yield from self._order.end_text()
                self._text_over = block
                yield from self._cite(block, block.citations)
            case "thinking":
                if block.signature or not block.is_empty:
                    yield from self._order.end_reasoning(block.signature or None)
            case "redacted_thinking":
                pass
            case "tool_use":
                self._over.add(index)
                yield from self._call_over(block)
            case "":
                log.debug("skipped a block without a type")
            case _:
                self._over.add(index)
                yield from self._order.block(provider_block(WIRE, block.whole()))

    def _thought(self, block: _Block, text: Any) -> Iterator[StreamChunk]:
        if text and isinstance(text, str):
            block.is_empty = False
            yield from self._order.reasoning(text)

    def _input(self, index: Any, block: _Block | None, text: str) -> Iterator[StreamChunk]:
        if block is None and index in self._over:
            if text.strip():
                raise MalformedStreamError("the arguments of a tool call go on after its end")
            return
        if block is not None and block.kind != "tool_use":
            block.inputs.append(text)  # of a tool that the server runs
            return
        if not text:
            return
        if block is None:
            block = self._opened(index, "tool_use", {})  # nobody said which tool
            yield from self._order.call(block.call)
        block.inputs.append(text)
        block.call.add(text)
        yield from self._order.release()

    def _call_over(self, block: _Block) -> Iterator[StreamChunk]:
        call, given = block.call, block.given.get("input")
        if given not in (None, "", {}) and not "".join(block.inputs).strip():
            is_text = isinstance(given, str)
            call.add(given if is_text else json.dumps(given, ensure_ascii=False, separators=(",", ":")))
        call.is_closed = True
        yield from self._order.release()
        beside = {
            name: value for name, value in block.given.items() if name not in TOOL_USE_FIELDS and value is not None
        }
        if beside.get("caller") == {"type": "direct"}:  # by the model, as ever
            del beside["caller"]
        if beside:
            own = {"type": CALLER, "tool_use_id": call.given_id or call.call_id, **beside}
            yield from self._order.block(provider_block(WIRE, own))

    def _cite(self, block: _Block, citations: list[dict[str, Any]]) -> Iterator[StreamChunk]:
        if citations:
            own = {"type": CITATIONS, "citations": citations, "length": self._order.text_length - block.began_at}
            yield from self._order.block(provider_block(WIRE, own))


def _key(index: Any) -> int | str | None:
    """The index of a block; None where there is none, or nonsense."""
    return index if isinstance(index, int | str) else None


class _Block:
    """A content block as it arrives."""

    __slots__ = ("began_at", "call", "citations", "given", "inputs", "is_empty", "kind", "signature")

    def __init__(self, kind: str, given: dict[str, Any], began_at: int) -> None:
        self.kind = kind
        self.given = {**given}
        self.began_at = began_at  # characters of text before it
        self.call = ToolCall(string(given.get("id")), string(given.get("name")))
        self.inputs: list[str] = []
        self.citations: list[dict[str, Any]] = []
        self.signature = ""
        self.is_empty = True

    def whole(self) -> dict[str, Any]:
        """The block of a kind that the contract does not model, with the input that came in pieces."""
        text = "".join(self.inputs)
        if not text.strip():
            return self.given
        with suppress(ValueError):  # cut off by max_tokens
            whole = {**self.given, "input": parse_args(text)}
            if not is_too_deep(whole):
                return whole
        return {**self.given, "input": text}
