"""The content blocks of a message as they arrive -> chunks."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from completion.contract.chunks import RedactedReasoning, StreamChunk
from completion.contract.citations import Citation
from completion.contract.errors import MalformedStreamError
from completion.wires.anthropic.names import CALLER, CITATIONS, TOOL_USE_FIELDS, WIRE
from completion.wires.arguments import arguments_text, parse_args
from completion.wires.citations import citation
from completion.wires.json_values import is_too_deep, objects_in, provider_block, str_or_empty
from completion.wires.tool_call import ToolCall
from completion.wires.turn_order import TurnOrder

log = logging.getLogger(__name__)


class ContentBlocks:
    """The content blocks of one message. Methods return the chunks that may be yielded now."""

    def __init__(self, order: TurnOrder) -> None:
        self._order = order
        # By the index of the block.
        self._open: dict[Any, _OpenBlock] = {}
        self._open_texts: dict[Any, None] = {}  # text and thinking; a dict keeps their order
        self._stopped_calls: set[Any] = set()  # calls of client-side and server-side tools
        self._last_index: Any = None  # of the block that started last
        self._last_text: _OpenBlock | None = None  # the text block that stopped last

    def start(self, index: Any, fields: dict[str, Any]) -> Iterator[StreamChunk]:
        index = _usable_index(index)
        # Some servers send no content_block_stop: the next block ends open texts. Open calls may still go on.
        for other in (*self._open_texts, index):
            yield from self._stop(other)
        kind = str_or_empty(fields.get("type"))
        block = self._open_block(index, kind, fields)
        match kind:
            case "text":
                # {"type": "text", "text": "", "citations": []}
                yield from self._order.text(str_or_empty(fields.get("text")))
                block.citations += objects_in(fields.get("citations"))
            case "thinking":
                # {"type": "thinking", "thinking": "", "signature": ""}
                block.signature = str_or_empty(fields.get("signature"))
                yield from self._reasoning(block, fields.get("thinking"))
            case "redacted_thinking":
                # {"type": "redacted_thinking", "data": "EqkE…"}
                yield from self._order.block(RedactedReasoning(str_or_empty(fields.get("data")), WIRE))
            case "tool_use":
                # {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {}}
                yield from self._order.call(block.call)

    def delta(self, index: Any, delta: dict[str, Any]) -> Iterator[StreamChunk]:
        kind = delta.get("type")
        index = self._index_or_last(index)
        # Some servers send no content_block_start: the first delta opens the block then.
        block = self._open.get(index)
        match kind:
            case "text_delta":
                yield from self._order.text(str_or_empty(delta.get("text")))
            case "thinking_delta":
                yield from self._reasoning(block or self._open_block(index, "thinking", {}), delta.get("thinking"))
            case "signature_delta":
                block = block or self._open_block(index, "thinking", {})
                block.signature = str_or_empty(delta.get("signature")) or block.signature
            case "input_json_delta":
                yield from self._input(index, block, arguments_text(delta.get("partial_json")))
            case "citations_delta":
                # {"type": "citations_delta", "citation": {"type": "page_location", "cited_text": "…", …}}
                citation = objects_in([delta.get("citation")])
                if block is not None and block.kind == "text":
                    block.citations += citation
                else:  # the text block has stopped, or another block has started
                    yield from self._cite(self._last_text or _OpenBlock("text", {}, 0), citation)
            case "compaction_delta":
                # {"type": "compaction_delta", "content": "A summary", "encrypted_content": "…"}
                block = block or self._open_block(index, "compaction", {"type": "compaction"})
                block.fields.update(
                    {name: value for name, value in delta.items() if name != "type" and value is not None}
                )
            case _:
                log.debug("skipped a delta of unknown type")

    def stop(self, index: Any) -> Iterator[StreamChunk]:
        return self._stop(self._index_or_last(index))

    def end(self) -> Iterator[StreamChunk]:
        """The end of the message: the ends of all open blocks."""
        for index in list(self._open):
            yield from self._stop(index)
        yield from self._order.end_text()
        yield from self._order.end()

    def _index_or_last(self, index: Any) -> Any:
        """The index of an event; without a usable one, the index of the block that started last."""
        return self._last_index if _usable_index(index) is None else index

    def _open_block(self, index: Any, kind: str, fields: dict[str, Any]) -> _OpenBlock:
        block = self._open[index] = _OpenBlock(kind, fields, self._order.text_length)
        self._last_index = index
        if kind in ("text", "thinking"):
            self._open_texts[index] = None
        return block

    def _stop(self, index: Any) -> Iterator[StreamChunk]:
        block = self._open.pop(index, None)
        if block is None:
            return
        self._open_texts.pop(index, None)
        match block.kind:
            case "text":
                yield from self._order.end_text()
                self._last_text = block
                yield from self._cite(block, block.citations)
            case "thinking":
                if block.signature or not block.is_empty:
                    yield from self._order.end_reasoning(block.signature or None)
            case "redacted_thinking":
                pass
            case "tool_use":
                self._stopped_calls.add(index)
                yield from self._end_call(block)
            case "":
                log.debug("skipped a block without a type")
            case _:
                self._stopped_calls.add(index)
                yield from self._order.block(provider_block(WIRE, block.complete()))

    def _reasoning(self, block: _OpenBlock, text: Any) -> Iterator[StreamChunk]:
        if text and isinstance(text, str):
            block.is_empty = False
            yield from self._order.reasoning(text)

    def _input(self, index: Any, block: _OpenBlock | None, text: str) -> Iterator[StreamChunk]:
        if block is None and index in self._stopped_calls:
            if text.strip():
                raise MalformedStreamError("the arguments of a tool call go on after its end")
            return
        if block is not None and block.kind != "tool_use":
            block.inputs.append(text)  # a server-side tool
            return
        if not text:
            return
        if block is None:
            block = self._open_block(index, "tool_use", {})  # there was no content_block_start, so the tool is unknown
            yield from self._order.call(block.call)
        block.inputs.append(text)
        block.call.add(text)
        yield from self._order.release()

    def _end_call(self, block: _OpenBlock) -> Iterator[StreamChunk]:
        # Deltas replace the input of content_block_start; without deltas it counts.
        call, start_input = block.call, block.fields.get("input")
        if start_input not in (None, "", {}) and not "".join(block.inputs).strip():
            call.add(arguments_text(start_input))
        call.close()
        yield from self._order.release()
        extra_fields = {
            name: value for name, value in block.fields.items() if name not in TOOL_USE_FIELDS and value is not None
        }
        if extra_fields.get("caller") == {"type": "direct"}:  # the default: the model itself made the call
            del extra_fields["caller"]
        if extra_fields:
            own = {"type": CALLER, "tool_use_id": call.call_id or call.provider_id, **extra_fields}
            yield from self._order.block(provider_block(WIRE, own))

    def _cite(self, block: _OpenBlock, citations: list[dict[str, Any]]) -> Iterator[StreamChunk]:
        if citations:
            own = {
                "type": CITATIONS,
                "citations": citations,
                "length": self._order.text_length - block.text_length_before,
            }
            start, end = block.text_length_before, self._order.text_length
            typed = [one for fields in citations for one in _typed(fields, start, end)]
            yield from self._order.block(provider_block(WIRE, own, tuple(typed)))


def _typed(fields: dict[str, Any], start: int, end: int) -> tuple[Citation, ...]:
    """The Citation of an Anthropic citation in a block of text. It cites the whole block."""
    # {"type": "web_search_result_location", "url": "https://…", "title": "…", "cited_text": "…", …}
    # {"type": "search_result_location", "source": "https://… or any name", "title": "…", "cited_text": "…", …}
    # {"type": "page_location", "document_title": "…", "cited_text": "…", …}; char_location, content_block_location
    source = str_or_empty(fields.get("source"))
    url = fields.get("url") or (source if "://" in source else None)
    title = fields.get("title") or fields.get("document_title") or source
    return citation(url=url, title=title, cited_text=fields.get("cited_text"), start=start, end=end)


def _usable_index(index: Any) -> int | str | None:
    """The index of a block; None if it is missing or is not an index."""
    return index if isinstance(index, int | str) else None


class _OpenBlock:
    """A content block that has started and not stopped."""

    __slots__ = ("call", "citations", "fields", "inputs", "is_empty", "kind", "signature", "text_length_before")

    def __init__(self, kind: str, fields: dict[str, Any], text_length_before: int) -> None:
        self.kind = kind
        self.fields = {**fields}  # the fields of content_block_start
        self.text_length_before = text_length_before  # characters of text in the turn before the block
        self.call = ToolCall(str_or_empty(fields.get("id")), str_or_empty(fields.get("name")))
        self.inputs: list[str] = []
        self.citations: list[dict[str, Any]] = []
        self.signature = ""
        self.is_empty = True  # no thinking was read

    def complete(self) -> dict[str, Any]:
        """The fields of the block, with the input that came in deltas. Unfinished input stays a text."""
        text = "".join(self.inputs)
        if not text.strip():
            return self.fields
        with suppress(ValueError):  # not JSON: cut off by max_tokens
            complete = {**self.fields, "input": parse_args(text)}
            if not is_too_deep(complete):
                return complete
        return {**self.fields, "input": text}
