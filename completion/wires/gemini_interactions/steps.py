"""The steps of an interaction as they arrive -> chunks."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from completion.contract.chunks import StreamChunk
from completion.contract.citations import Citation
from completion.wires.arguments import arguments_text
from completion.wires.citations import ByteOffsets, citation
from completion.wires.gemini_interactions.names import ANNOTATIONS, CONTENT, WIRE
from completion.wires.json_values import objects_in, provider_block, str_or_empty
from completion.wires.tool_call import ToolCall, made_up_call_id
from completion.wires.turn_order import TurnOrder

log = logging.getLogger(__name__)


class Steps:
    """The steps of one turn. Methods return the chunks that may be yielded now."""

    def __init__(self, order: TurnOrder) -> None:
        self._order = order
        self._open: dict[Any, _Step] = {}  # by index
        self.offsets = ByteOffsets()
        """Knows the text of the turn that is not ASCII."""
        self.has_started = False
        """A step started."""
        self._step_begins_at = 0  # characters of the turn's text before the last model_output

    def start(self, index: Any, fields: dict[str, Any]) -> Iterator[StreamChunk]:
        index = _usable_index(index)
        # Steps follow each other; a server that sends no step.stop begins the next one.
        for other in [index, *(at for at, step in self._open.items() if step.kind in ("thought", "model_output"))]:
            yield from self.stop(other)
        step = self._open[index] = _Step(fields)
        self.has_started = True
        match step.kind:
            case "thought":
                # {"type": "thought", "signature": "", "summary": [{"type": "text", "text": "I should …"}]}
                for item in objects_in(fields.get("summary")):
                    yield from self._reasoning(step, item)
            case "model_output":
                # {"type": "model_output", "content": [{"type": "text", "text": "Hi", "annotations": []}]}
                self._step_begins_at = self._order.text_length
                for item in objects_in(fields.get("content")):
                    yield from self._content(item)
            case "function_call":
                # {"type": "function_call", "id": "x", "name": "f", "arguments": {}, "signature": ""}
                yield from self._order.call(step.call)

    def delta(self, index: Any, delta: dict[str, Any]) -> Iterator[StreamChunk]:
        index, kind = _usable_index(index), delta.get("type")
        step = self._open.get(index)
        match kind:
            case "text" | "image" | "audio" | "video" | "document":
                yield from self._content(delta)
            case "text_annotation_delta" | "text_annotation":
                yield from self._annotations(delta)
            case "thought_summary":
                # {"type": "thought_summary", "content": {"type": "text", "text": "I should …"}}
                content = delta.get("content")
                item = content if isinstance(content, dict) else delta
                yield from self._reasoning(self._opened(index, "thought"), item)
            case "thought_signature":
                step = self._opened(index, "thought")
                step.signature = str_or_empty(delta.get("signature")) or step.signature
            case "arguments_delta":
                # {"type": "arguments_delta", "arguments": "{\"a\":"}
                text = arguments_text(delta.get("arguments")) or arguments_text(delta.get("partial_arguments"))
                if step is None:
                    step = self._opened(index, "function_call")
                    yield from self._order.call(step.call)
                if text:
                    step.has_arguments = True
                    step.call.add(text)
                    yield from self._order.release()
            case _ if step is not None and step.kind == kind:
                # The fields of a server-side call or result, in one piece.
                step.fields.update({name: value for name, value in delta.items() if value is not None})
            case _:
                log.debug("skipped a delta of unknown type")

    def stop(self, index: Any) -> Iterator[StreamChunk]:
        step = self._open.pop(_usable_index(index), None)
        if step is None:
            return
        match step.kind:
            case "thought":
                if step.signature or step.has_text:
                    yield from self._order.end_reasoning(step.signature or None)
            case "model_output":
                yield from self._order.end_text()
            case "function_call":
                yield from self._end_call(step)
            case "":
                log.debug("skipped a step without a type")
            case _:
                yield from self._order.block(provider_block(WIRE, step.fields))

    def end(self) -> Iterator[StreamChunk]:
        """The end of the turn: the ends of all open steps."""
        for index in list(self._open):
            yield from self.stop(index)
        yield from self._order.end()

    def _opened(self, index: Any, kind: str) -> _Step:
        """The open step with this index. A resumed stream may begin in the middle of a step."""
        step = self._open.get(index)
        if step is None:
            step = self._open[index] = _Step({"type": kind})
            self.has_started = True
        return step

    def _reasoning(self, step: _Step, item: dict[str, Any]) -> list[StreamChunk]:
        text = str_or_empty(item.get("text"))
        step.has_text = step.has_text or bool(text)
        return self._order.reasoning(text) if text else []

    def _content(self, item: dict[str, Any]) -> Iterator[StreamChunk]:
        if item.get("type") == "text":
            text = str_or_empty(item.get("text"))
            if not text.isascii():
                self.offsets.pieces.append((self._order.text_length, text))
            yield from self._order.text(text) if text else ()
            yield from self._annotations(item)
        elif item.get("type") in CONTENT:
            yield from self._order.end_text()
            yield from self._order.block(provider_block(WIRE, item))
        else:
            log.debug("skipped content of unknown type")

    def _annotations(self, fields: dict[str, Any]) -> Iterator[StreamChunk]:
        annotations = objects_in(fields.get("annotations"))
        if annotations:
            yield from self._order.end_text()
            own = {"type": ANNOTATIONS, "annotations": annotations}
            typed = [one for fields in annotations for one in self._citation(fields)]
            yield from self._order.block(provider_block(WIRE, own, tuple(typed)))

    def _citation(self, fields: dict[str, Any]) -> tuple[Citation, ...]:
        # {"type": "url_citation", "start_index": 0, "end_index": 9, "url": "https://…", "title": "…"}: bytes
        start, end = (
            self.offsets.characters(fields.get(name), start_at=self._step_begins_at)
            for name in ("start_index", "end_index")
        )
        url = fields.get("url") or fields.get("document_uri") or fields.get("source")
        title = fields.get("title") or fields.get("name") or fields.get("file_name")
        return citation(url=url, title=title, start=start, end=end)

    def _end_call(self, step: _Step) -> list[StreamChunk]:
        # Deltas replace the arguments of step.start; without deltas those count.
        given = step.fields.get("arguments")
        if given not in (None, "", {}) and not step.has_arguments:
            step.call.add(arguments_text(given))
        step.call.signature = step.signature or None
        step.call.close()
        return self._order.release()


class _Step:
    """A step that has started and not stopped."""

    __slots__ = ("call", "fields", "has_arguments", "has_text", "kind", "signature")

    def __init__(self, fields: dict[str, Any]) -> None:
        self.kind = str_or_empty(fields.get("type"))
        self.fields = {**fields}
        self.signature = str_or_empty(fields.get("signature"))
        self.call = ToolCall(str_or_empty(fields.get("id")) or made_up_call_id(), str_or_empty(fields.get("name")))
        self.has_text = self.has_arguments = False


def _usable_index(index: Any) -> int | str | None:
    return index if isinstance(index, int | str) else None
