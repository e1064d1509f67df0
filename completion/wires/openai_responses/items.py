"""The items of a response as they arrive -> chunks."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Generator, Iterator
from typing import Any

from completion.contract.chunks import StreamChunk
from completion.contract.citations import Citation
from completion.wires.arguments import arguments_text
from completion.wires.citations import citation, shifted
from completion.wires.json_values import objects_in, provider_block, str_or_empty, without_surrogates
from completion.wires.openai_responses.names import CALL_FIELDS, MESSAGE, MESSAGE_FIELDS, WIRE
from completion.wires.tool_call import ToolCall
from completion.wires.turn_order import TurnOrder

_TEXTS = ("text", "refusal", "transcript")  # the fields of a part of a message that are its text

log = logging.getLogger(__name__)


class Items:
    """The items of one response. Methods return the chunks that may be yielded now.

    An item is known by ``output_index`` and by ``id``. Servers change the id in each event, or omit the index.
    """

    def __init__(self, order: TurnOrder) -> None:
        self._order = order
        self._items: list[Item] = []
        self._by_index: dict[int | str | None, Item] = {}
        self._by_id: dict[int | str | None, Item] = {}
        self.has_refusal = False
        """A message had a ``refusal``."""
        self.has_cut_item = False
        """An item ended before it was complete."""
        self._open_reasoning: tuple[Item, Any] | None = None  # the item, and the part of it that is open

    def added(self, index: Any, fields: dict[str, Any]) -> Iterator[StreamChunk]:
        """``response.output_item.added``"""
        found = self._known(index, fields.get("id"), str_or_empty(fields.get("type")))
        # No server adds one item under two ids. With another id it is another item, whose index some servers repeat.
        if found is None or (found.item_id and found.item_id != fields.get("id")):
            yield from self._start(index, fields)

    def done(self, index: Any, fields: dict[str, Any]) -> Iterator[StreamChunk]:
        """``response.output_item.done``: the whole item. It may be the only event of the item."""
        kind = str_or_empty(fields.get("type"))
        item = self._known(index, fields.get("id"), kind) or self._last_open(index, kind)
        if item is None or (item.is_done and item.item_id != fields.get("id")):
            yield from self._start(index, fields)
            item = self._items[-1]
        yield from self._end(item, fields)

    def final(self, output: list[dict[str, Any]]) -> Iterator[StreamChunk]:
        """The items of the last event. What came before is not given twice.

        They are matched by their order among the items of a kind: ids may have changed, and indexes are not there.
        """
        seen: dict[str, int] = {}
        for fields in output:
            kind = str_or_empty(fields.get("type"))
            same_kind = [item for item in self._items if item.kind == kind]
            n = seen[kind] = seen.get(kind, 0) + 1
            known = self._by_id.get(str_or_empty(fields.get("id")))
            item = known if known in same_kind else same_kind[n - 1] if n <= len(same_kind) else None
            if item is None:
                yield from self._start(None, fields)
                item = self._items[-1]
            yield from self._end(item, fields)

    def end(self) -> Iterator[StreamChunk]:
        """The end of the response: the ends of all open items."""
        for item in self._items:
            # What the first event of a reasoning item has encrypted is not all of the reasoning.
            yield from self._end(item, {} if item.kind == "reasoning" else item.fields)
        yield from self._order.end()

    def item(self, event: dict[str, Any], kind: str) -> Generator[StreamChunk, None, Item]:
        """The item of an event. It opens a new one if needed: some servers send no ``response.output_item.added``."""
        found = self.known(event, kind)
        if found is None:
            yield from self._start(event.get("output_index"), {"type": kind, "id": event.get("item_id")})
            found = self._items[-1]
        return found

    def known(self, event: dict[str, Any], kind: str = "") -> Item | None:
        """The item of an event; None if it was not seen before."""
        index = event.get("output_index")
        return self._known(index, event.get("item_id"), kind) or self._last_open(index, kind)

    def text(self, part: Part, text: str) -> list[StreamChunk]:
        """More text of a message."""
        return self._counted(part, lambda: self._order.text(text))

    def _counted(self, part: Part, chunks: Callable[[], list[StreamChunk]]) -> list[StreamChunk]:
        before = self._order.text_length
        counted = chunks()
        part.length += self._order.text_length - before
        return counted

    def reasoning(self, item: Item, key: Any, text: str, *, is_whole: bool = False) -> Iterator[StreamChunk]:
        """More text of a part of the reasoning, or all of it, which counts if none came before.

        Each part becomes a block of its own. The last one is signed when the item is done.
        """
        part = item.part(key)
        if not text or item.is_done or (is_whole and part.length):
            return
        if self._open_reasoning not in (None, (item, key)):
            yield from self._order.end_reasoning(None)
        self._open_reasoning = item, key
        part.length += len(text)
        yield from self._order.reasoning(text)

    def arguments(self, item: Item, text: str) -> Iterator[StreamChunk]:
        """More arguments of a function call."""
        if item.call is not None and not item.is_done:
            item.call.add(text)
            yield from self._order.release()

    # --- items -------------------------------------------------------------------------------------------------------

    def _known(self, index: Any, item_id: Any, kind: str) -> Item | None:
        """The item with this index, or else with this id."""
        for found in (self._by_index.get(_hashable(index)), self._by_id.get(_hashable(item_id))):
            if found is not None and kind in ("", found.kind):
                return found
        return None

    def _last_open(self, index: Any, kind: str) -> Item | None:
        """The last open item of the kind, for an event without an index. Its id, if it has one, is a new one."""
        if _hashable(index) is not None:
            return None
        return next((item for item in reversed(self._items) if kind in ("", item.kind) and not item.is_done), None)

    def _start(self, index: Any, fields: dict[str, Any]) -> Iterator[StreamChunk]:
        item = Item(str_or_empty(fields.get("type")), fields)
        self._items.append(item)
        if _hashable(index) is not None:
            self._by_index[index] = item
        if item.item_id:
            self._by_id[item.item_id] = item
        if item.call is not None:
            yield from self._order.call(item.call)

    def _end(self, item: Item, fields: dict[str, Any]) -> Iterator[StreamChunk]:
        # Some servers send the text of a message in the last event only, after a done item without it.
        if item.is_done and not (item.kind == "message" and item.is_empty and _has_text(fields)):
            return
        match item.kind:
            case "message":
                yield from self._end_message(item, fields)
            case "reasoning":
                yield from self._end_reasoning(item, fields)
            case "function_call":
                yield from self._end_call(item, fields)
            case "":
                log.debug("skipped an item without a type")
            case _:
                yield from self._order.block(provider_block(WIRE, item.with_inputs(fields)))
        self.has_cut_item |= fields.get("status") == "incomplete"
        item.is_done = True

    def _end_message(self, item: Item, fields: dict[str, Any]) -> Iterator[StreamChunk]:
        for n, part in enumerate(_parts_of(fields)):
            yield from self.whole_part(item, n, part)
        parts = list(item.parts.values())
        if parts:
            yield from self._counted(parts[-1], self._order.end_text)
        self.has_refusal |= any(part.fields.get("type") == "refusal" for part in parts)
        content = [part.kept() for part in parts]
        kept = {name: value for name, value in fields.items() if name not in MESSAGE_FIELDS and value is not None}
        if kept or any(part["type"] != "output_text" or "annotations" in part for part in content):
            own = {"type": MESSAGE, **kept, "content": content}
            yield from self._order.block(provider_block(WIRE, own, self._citations(item)))

    def _citations(self, message: Item) -> tuple[Citation, ...]:
        """The sources that a message cites. The offsets of its annotations count in their own part."""
        found: list[Citation] = []
        before = 0  # characters of the text of the turn before the part
        for item in self._items:
            if item.kind != "message":
                continue
            for part in item.parts.values():
                for fields in objects_in(part.fields.get("annotations")) if item is message else ():
                    found += _typed(fields, before, part.length)
                before += part.length
            if item is message:
                break
        return tuple(found)

    def whole_part(self, item: Item, n: Any, fields: dict[str, Any]) -> Iterator[StreamChunk]:
        """A part of a message that is complete. Its text counts if none came before."""
        part = item.part(n)
        part.fields = {**part.fields, **{name: value for name, value in fields.items() if value}}
        text = next(filter(None, (str_or_empty(fields.get(name)) for name in _TEXTS)), "")
        if text and not part.length:
            yield from self.text(part, text)

    def _end_reasoning(self, item: Item, fields: dict[str, Any]) -> Iterator[StreamChunk]:
        for name in ("content", "summary"):
            for n, part in enumerate(objects_in(fields.get(name))):
                yield from self.reasoning(item, (name, n), str_or_empty(part.get("text")), is_whole=True)
        is_open = self._open_reasoning is not None and self._open_reasoning[0] is item
        signature = _as_json(fields) if fields.get("id") or fields.get("encrypted_content") else None
        if is_open or signature:
            self._open_reasoning = None
            yield from self._order.end_reasoning(signature)

    def _end_call(self, item: Item, fields: dict[str, Any]) -> Iterator[StreamChunk]:
        call = item.call
        if call is None:
            return
        call.provider_id = call.provider_id or str_or_empty(fields.get("call_id"))
        call.name = call.name or str_or_empty(fields.get("name"))
        other = {name: value for name, value in fields.items() if name not in CALL_FIELDS and value is not None}
        if other.get("caller") == {"type": "direct"}:  # the default: the model itself made the call
            del other["caller"]
        call.wire_data = other or None
        yield from self.whole_arguments(item, arguments_text(fields.get("arguments")))
        call.close()
        yield from self._order.release()

    def whole_arguments(self, item: Item, text: str) -> Iterator[StreamChunk]:
        """The complete arguments. What of them came before counts."""
        if item.call is not None:
            so_far = item.call.arguments.text
            if text.startswith(so_far):
                yield from self.arguments(item, text[len(so_far) :])


def _typed(annotation: dict[str, Any], before: int, length: int) -> tuple[Citation, ...]:
    """The Citation of an annotation of a part, which begins after so many characters of the turn."""
    # {"type": "url_citation", "start_index": 0, "end_index": 9, "url": "https://…", "title": "…"}
    # {"type": "file_citation", "index": 9, "file_id": "file_1", "filename": "a.pdf"}: cited at this point
    # {"type": "container_file_citation", "start_index": 0, "end_index": 9, "filename": "a.csv", …}
    if str_or_empty(annotation.get("type")) not in ("url_citation", "file_citation", "container_file_citation"):
        return ()
    point = annotation.get("index")
    start, end = (annotation.get(name, point) for name in ("start_index", "end_index"))
    if type(end) is int and end > length:
        end = None  # not an index into this text
    return citation(
        url=annotation.get("url"),
        title=annotation.get("title") or annotation.get("filename") or annotation.get("file_id"),
        cited_text=annotation.get("content"),  # OpenRouter
        start=shifted(start, before),
        end=shifted(end, before),
    )


def _hashable(key: Any) -> int | str | None:
    """An index or id of an event; None if it is missing or is neither."""
    return key if isinstance(key, int | str) and key != "" else None


def _has_text(fields: dict[str, Any]) -> bool:
    """The message has text or a refusal."""
    return any(part.get(name) for part in _parts_of(fields) for name in _TEXTS)


def _parts_of(message: dict[str, Any]) -> list[dict[str, Any]]:
    """The parts of a message. Some gateways send a string, as Chat Completions does."""
    content = message.get("content")
    return [{"type": "output_text", "text": content}] if isinstance(content, str) else objects_in(content)


def _as_json(fields: dict[str, Any]) -> str:
    """A reasoning item as a text: the signature of its reasoning."""
    text = json.dumps(provider_block(WIRE, fields).data, ensure_ascii=False, separators=(",", ":"))
    return without_surrogates(text)


class Part:
    """A part of a message or of a reasoning item."""

    __slots__ = ("fields", "length")

    def __init__(self) -> None:
        self.fields: dict[str, Any] = {}
        self.length = 0  # characters of its text

    def kept(self) -> dict[str, Any]:
        """What a provider block keeps of the part."""
        kind = str_or_empty(self.fields.get("type")) or "output_text"
        if kind not in ("output_text", "refusal"):
            return self.fields
        annotations = objects_in(self.fields.get("annotations"))
        return {"type": kind, "length": self.length, **({"annotations": annotations} if annotations else {})}


class Item:
    """An item that has started."""

    __slots__ = ("call", "fields", "inputs", "is_done", "item_id", "kind", "parts")

    def __init__(self, kind: str, fields: dict[str, Any]) -> None:
        self.kind = kind
        self.fields = fields
        self.item_id = str_or_empty(fields.get("id"))
        self.call: ToolCall | None = None
        if kind == "function_call":
            self.call = ToolCall(str_or_empty(fields.get("call_id")), str_or_empty(fields.get("name")))
        self.parts: dict[Any, Part] = {}
        self.inputs: dict[str, list[str]] = {}  # texts that came in deltas, by the field that they belong to
        self.is_done = False

    @property
    def is_empty(self) -> bool:
        """No text came."""
        return not any(part.length for part in self.parts.values())

    def part(self, n: Any) -> Part:
        """The part with this number; the first one if an event does not say which."""
        return self.parts.setdefault(n if isinstance(n, int | str | tuple) else 0, Part())

    def with_inputs(self, fields: dict[str, Any]) -> dict[str, Any]:
        """The fields of the item, with the texts that came in deltas only."""
        return {**fields, **{name: "".join(texts) for name, texts in self.inputs.items() if not fields.get(name)}}
