"""Content, tool calls and citations of a message, as they arrive -> chunks."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from completion.contract.chunks import StreamChunk
from completion.contract.citations import Citation
from completion.wires.arguments import arguments_text
from completion.wires.citations import citation, shifted
from completion.wires.cohere.names import CITATIONS, THINKING, TOOL_PLAN, WIRE
from completion.wires.json_values import objects_in, provider_block, str_or_empty, without_surrogates
from completion.wires.tool_call import ToolCall
from completion.wires.turn_order import TurnOrder

log = logging.getLogger(__name__)


class MessageContent:
    """The content of one message. Methods return the chunks that may be yielded now.

    The plan and the citations are collected until something else begins, so that each becomes one block.
    """

    def __init__(self, order: TurnOrder) -> None:
        self._order = order
        self._in_thinking = False
        self._plan: list[str] = []
        self._citations: list[dict[str, Any]] = []
        self._text_begins_at = 0  # characters of text in the turn before the latest block of content
        self._calls: dict[Any, ToolCall] = {}  # the open ones, by index

    @property
    def has_plan(self) -> bool:
        """A plan is collected and not yielded yet. It must be yielded before the next chunk."""
        return bool(self._plan)

    def add(self, content: Any) -> Iterator[StreamChunk]:
        """A piece of content: {"text": "Hi"} or {"thinking": "Hm"}; at its start with {"type": …}."""
        for piece in _objects(content):
            if "type" in piece:  # a block starts. Not reset at its end: its citations may arrive after that
                self._text_begins_at = self._order.text_length
            thinking, text = str_or_empty(piece.get("thinking")), str_or_empty(piece.get("text"))
            if thinking:
                yield from self._begin(is_thinking=True)
                yield from self._order.reasoning(thinking)
            if text:
                yield from self._begin()
                yield from self._order.text(text)

    def end_content(self) -> Iterator[StreamChunk]:
        """A block of content ends: text and its citations, or thinking."""
        yield from self._order.end_text()
        yield from self._end_thinking()
        yield from self._release_citations()

    def add_plan(self, text: str) -> None:
        if text:
            self._plan.append(text)

    def add_citations(self, citations: Any) -> None:
        """{"start": 0, "end": 5, "text": "Paris", "sources": [{"type": "document", "id": "doc_0", …}]}"""
        self._citations += _objects(citations)

    def start_call(self, index: Any, calls: Any) -> Iterator[StreamChunk]:
        """{"id": "f_1", "type": "function", "function": {"name": "f", "arguments": ""}}"""
        for fields in _objects(calls):
            key = _usable(index)
            yield from self.end_call(key)  # a server may omit the end of the previous call
            yield from self._begin()
            yield from self._release_citations()
            function = _function(fields)
            call = ToolCall(str_or_empty(fields.get("id")), str_or_empty(function.get("name")))
            call.add(arguments_text(function.get("arguments")))
            self._calls[key] = call
            yield from self._order.call(call)

    def add_to_call(self, index: Any, calls: Any) -> Iterator[StreamChunk]:
        """{"function": {"arguments": "{\\"a\\""}}; without an index it belongs to the last call."""
        call = self._open_call(index)
        for fields in _objects(calls):
            if call is None:
                log.debug("skipped arguments that belong to no call")
                return
            function = _function(fields)
            call.provider_id = call.provider_id or str_or_empty(fields.get("id"))
            call.name = call.name or str_or_empty(function.get("name"))
            call.add(arguments_text(function.get("arguments")))
        yield from self._order.release()

    def end_call(self, index: Any) -> Iterator[StreamChunk]:
        call = self._open_call(index) if index is None else self._calls.get(_usable(index))
        if call is not None:
            call.close()
            self._calls = {key: other for key, other in self._calls.items() if other is not call}
            yield from self._order.release()

    def end(self) -> Iterator[StreamChunk]:
        """The message ends: yield the collected plan and citations."""
        yield from self._begin()
        yield from self._release_citations()

    def _open_call(self, index: Any) -> ToolCall | None:
        if index is not None:
            return self._calls.get(_usable(index))
        return next(reversed(self._calls.values()), None)

    def _begin(self, *, is_thinking: bool = False) -> Iterator[StreamChunk]:
        """A text, a call or thinking begins: end what was before it."""
        if self._plan:
            plan, self._plan = without_surrogates("".join(self._plan)), []
            yield from self._order.block(provider_block(WIRE, {"type": TOOL_PLAN, TOOL_PLAN: plan}))
        if not is_thinking:
            yield from self._end_thinking()
        elif not self._in_thinking:
            yield from self._order.end_text()
            self._in_thinking = True

    def _end_thinking(self) -> Iterator[StreamChunk]:
        if self._in_thinking:
            self._in_thinking = False
            yield from self._order.end_reasoning(None, {**THINKING})

    def _release_citations(self) -> Iterator[StreamChunk]:
        if self._citations:
            citations, self._citations = self._citations, []
            typed = tuple(one for cited in citations for one in self._typed(cited))
            yield from self._order.block(provider_block(WIRE, {"type": CITATIONS, CITATIONS: citations}, typed))

    def _typed(self, cited: dict[str, Any]) -> Iterator[Citation]:
        """A Citation for each source. The offsets count from the beginning of the block of content."""
        start, end = (shifted(cited.get(name), self._text_begins_at) for name in ("start", "end"))
        for source in objects_in(cited.get("sources")):
            # {"type": "document", "id": "doc_0", "document": {"id": "doc_0", "title": "…", "snippet": "…", "url": "…"}}
            # {"type": "tool", "id": "f_1:0", "tool_output": {"title": "…", "url": "…"}}
            shown = source.get("document") or source.get("tool_output")
            named = shown if isinstance(shown, dict) else {}
            title = named.get("title") or source.get("id")
            yield from citation(
                url=named.get("url"),
                title=title,
                cited_text=named.get("snippet") or named.get("text"),
                start=start,
                end=end,
            )


def _objects(value: Any) -> list[dict[str, Any]]:
    """One object, or the objects of a list."""
    return [value] if isinstance(value, dict) else objects_in(value)


def _function(fields: dict[str, Any]) -> dict[str, Any]:
    function = fields.get("function")
    return function if isinstance(function, dict) else {}


def _usable(index: Any) -> Any:
    """The index if a dict can have it as a key, else None."""
    return index if isinstance(index, int | str) else None
