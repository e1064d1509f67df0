"""Events of OpenAI Responses -> StreamChunks."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from completion.contract.chunks import StreamChunk, TextDelta
from completion.contract.errors import CompletionError, MalformedStreamError
from completion.events import Events
from completion.wires import refusals
from completion.wires.arguments import arguments_text
from completion.wires.assembly import TurnReader, assembled
from completion.wires.json_values import has_surrogates, objects_in, str_or_empty
from completion.wires.openai_responses.items import Items, Part
from completion.wires.openai_responses.names import INPUT_FIELDS
from completion.wires.openai_responses.summary import ResponseSummary
from completion.wires.wire import OnEndOfTurn

log = logging.getLogger(__name__)

_PREFIX = "response."


class ResponseTurn(TurnReader):
    """A turn of OpenAI Responses.

    It ends with ``response.completed``, ``response.incomplete`` or ``response.cancelled``. ``[DONE]``, which gateways
    add, does not end it.
    """

    truncated = "the body ended without response.completed: the answer is not complete"

    def __init__(self, origin: str | None = None) -> None:
        self._summary = ResponseSummary()
        super().__init__(self._summary, origin)
        self._items = Items(self.order)
        # The text that is open: output_index, content_index and item_id of its deltas, and the part of the item.
        self._open_text: tuple[Any, Any, Any] | None = None
        self._open_part = Part()
        self._has_known_events = self._has_unknown_events = False

    def take(self, name: str, data: dict[str, Any]) -> Iterable[StreamChunk]:
        kind = data.get("type") or name
        if kind == "response.output_text.delta":
            # The fast path: most events are a piece of text.
            # {"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "item_id": "m", "delta": …}
            text = data.get("delta")
            if (
                self.order.can_yield_text_directly
                and (data.get("output_index"), data.get("content_index"), data.get("item_id")) == self._open_text
                and type(text) is str
                and text
                and not self.is_over
                and (text.isascii() or not has_surrogates(text))
            ):
                self._open_part.length += len(text)
                return (TextDelta(text),)
        read = _EVENTS.get(kind) if type(kind) is str else None
        if read is not None:
            self._has_known_events = True
            return self._before_the_end(read(self, data)) if self.is_over else read(self, data)
        if "error" in (kind, name) or refusals.is_foreign_error(data):
            raise refusals.in_band(data)
        if str_or_empty(kind).startswith(_PREFIX):
            self._has_known_events = True
        else:
            log.debug("skipped an event of unknown type")  # do not log the type: it may be an echo of the key
            # Azure begins with what its filter says of the prompt: {"choices": [], "prompt_filter_results": […]}
            self._has_unknown_events |= bool(data.get("type") or data.get("choices"))
        return ()

    def unfinished(self) -> CompletionError:
        if self._has_unknown_events and not self._has_known_events:
            return MalformedStreamError(
                "no event is an event of OpenAI Responses: does base_url point at a server of this wire?"
            )
        return super().unfinished()

    def finish(self) -> Iterator[StreamChunk]:
        yield from self._items.end()
        self._summary.is_refusal = self._items.has_refusal
        self._summary.has_cut_item = self._items.has_cut_item
        yield self._summary.turn_finished(self.order.calls_finished)

    def _before_the_end(self, chunks: Iterable[StreamChunk]) -> Iterator[StreamChunk]:
        for _ in chunks:
            raise MalformedStreamError("the answer goes on after the end of the response")
        yield from ()

    # --- the response ------------------------------------------------------------------------------------------------

    def _created(self, data: dict[str, Any]) -> tuple[()]:
        # {"type": "response.created", "response": {"id": "resp_1", "status": "in_progress", "output": [], …}}
        response = data.get("response")
        if isinstance(response, dict):
            self._summary.read_created(response)
        return ()

    def _in_progress(self, data: dict[str, Any]) -> tuple[()]:
        response = data.get("response")
        if isinstance(response, dict):
            self._summary.read(response)
        return ()

    def _end_response(self, data: dict[str, Any]) -> Iterator[StreamChunk]:
        # {"type": "response.completed", "response": {"status": "completed", "output": […], "usage": {…}, …}}
        response = data.get("response")
        if not isinstance(response, dict):
            response = data  # no server known: the fields of the response beside the type of the event
        if not response.get("usage") and data.get("usage"):
            response = {**response, "usage": data["usage"]}
        yield from self._items.final(objects_in(response.get("output")))
        self._summary.read_end(str_or_empty(data.get("type")).removeprefix(_PREFIX), response)
        self.expect_nothing()

    # --- items -------------------------------------------------------------------------------------------------------

    def _item_added(self, data: dict[str, Any]) -> Iterator[StreamChunk]:
        # {"type": "response.output_item.added", "output_index": 0, "item": {"type": "message", "id": "msg_1", …}}
        item = data.get("item")
        if isinstance(item, dict):
            yield from self._items.added(data.get("output_index"), item)

    def _item_done(self, data: dict[str, Any]) -> Iterator[StreamChunk]:
        item = data.get("item")
        if isinstance(item, dict):
            yield from self._items.done(data.get("output_index"), item)

    def _text_delta(self, data: dict[str, Any]) -> Iterator[StreamChunk]:
        item = yield from self._items.item(data, "message")
        self._open_text = data.get("output_index"), data.get("content_index"), data.get("item_id")
        self._open_part = item.part(data.get("content_index"))
        yield from self._items.text(self._open_part, str_or_empty(data.get("delta")))

    def _refusal_delta(self, data: dict[str, Any]) -> Iterator[StreamChunk]:
        # {"type": "response.refusal.delta", "output_index": 0, "content_index": 0, "delta": "I cannot"}
        item = yield from self._items.item(data, "message")
        part = item.part(data.get("content_index"))
        part.fields["type"] = "refusal"
        yield from self._items.text(part, str_or_empty(data.get("delta")))

    def _text_done(self, data: dict[str, Any]) -> Iterator[StreamChunk]:
        # {"type": "response.output_text.done", "output_index": 0, "content_index": 0, "text": "Hi"}
        item = yield from self._items.item(data, "message")
        kind = str_or_empty(data.get("type")).removeprefix(_PREFIX).removesuffix(".done")
        part = {"type": kind, "text": data.get("text"), "refusal": data.get("refusal")}
        yield from self._items.whole_part(item, data.get("content_index"), part)

    def _part(self, data: dict[str, Any]) -> Iterator[StreamChunk]:
        # {"type": "response.content_part.done", "content_index": 0, "part": {"type": "output_text", "text": "Hi", …}}
        part = data.get("part")
        kind = str_or_empty(part.get("type")) if isinstance(part, dict) else ""
        if not isinstance(part, dict):
            return
        if kind == "reasoning_text":
            yield from self._reasoning(data, "content", part.get("text"), is_whole=True)
        else:
            item = yield from self._items.item(data, "message")
            yield from self._items.whole_part(item, data.get("content_index"), part)

    def _annotation(self, data: dict[str, Any]) -> Iterator[StreamChunk]:
        # {"type": "response.output_text.annotation.added", "annotation": {"type": "url_citation", "url": "…", …}}
        item = yield from self._items.item(data, "message")
        fields = item.part(data.get("content_index")).fields
        fields["annotations"] = [*objects_in(fields.get("annotations")), *objects_in([data.get("annotation")])]

    # --- reasoning ---------------------------------------------------------------------------------------------------

    def _summary_delta(self, data: dict[str, Any]) -> Iterator[StreamChunk]:
        # {"type": "response.reasoning_summary_text.delta", "output_index": 0, "summary_index": 0, "delta": "I"}
        delta = data.get("delta")
        text = delta.get("text") if isinstance(delta, dict) else delta
        return self._reasoning(data, "summary", text)

    def _summary_done(self, data: dict[str, Any]) -> Iterator[StreamChunk]:
        part = data.get("part")
        text = part.get("text") if isinstance(part, dict) else data.get("text")
        return self._reasoning(data, "summary", text, is_whole=True)

    def _reasoning_delta(self, data: dict[str, Any]) -> Iterator[StreamChunk]:
        # {"type": "response.reasoning_text.delta", "output_index": 0, "content_index": 0, "delta": "I"}
        return self._reasoning(data, "content", data.get("delta"))

    def _reasoning_done(self, data: dict[str, Any]) -> Iterator[StreamChunk]:
        return self._reasoning(data, "content", data.get("text"), is_whole=True)

    def _reasoning(
        self, data: dict[str, Any], field: str, text: Any, *, is_whole: bool = False
    ) -> Iterator[StreamChunk]:
        item = yield from self._items.item(data, "reasoning")
        n = data.get("summary_index" if field == "summary" else "content_index")
        yield from self._items.reasoning(
            item, (field, n if isinstance(n, int) else 0), str_or_empty(text), is_whole=is_whole
        )

    # --- calls -------------------------------------------------------------------------------------------------------

    def _arguments_delta(self, data: dict[str, Any]) -> Iterator[StreamChunk]:
        # {"type": "response.function_call_arguments.delta", "output_index": 0, "item_id": "fc_1", "delta": "{"}
        item = yield from self._items.item(data, "function_call")
        yield from self._items.arguments(item, arguments_text(data.get("delta")))

    def _arguments_done(self, data: dict[str, Any]) -> Iterable[StreamChunk]:
        item = self._items.known(data, "function_call")
        return () if item is None else self._items.whole_arguments(item, arguments_text(data.get("arguments")))

    def _input_delta(self, data: dict[str, Any]) -> tuple[()]:
        # {"type": "response.custom_tool_call_input.delta", "output_index": 0, "item_id": "ctc_1", "delta": "SELECT"}
        item = self._items.known(data)
        if item is not None:
            field = INPUT_FIELDS[str_or_empty(data.get("type")).removesuffix(".delta")]
            item.inputs.setdefault(field, []).append(str_or_empty(data.get("delta")))
        return ()


_EVENTS: dict[str, Callable[[ResponseTurn, dict[str, Any]], Iterable[StreamChunk]]] = {
    "response.created": ResponseTurn._created,
    "response.in_progress": ResponseTurn._in_progress,
    "response.queued": ResponseTurn._in_progress,
    "response.completed": ResponseTurn._end_response,
    "response.done": ResponseTurn._end_response,  # gateways
    "response.incomplete": ResponseTurn._end_response,
    "response.cancelled": ResponseTurn._end_response,
    "response.failed": ResponseTurn._end_response,
    "response.output_item.added": ResponseTurn._item_added,
    "response.output_item.done": ResponseTurn._item_done,
    "response.content_part.added": ResponseTurn._part,
    "response.content_part.done": ResponseTurn._part,
    "response.output_text.delta": ResponseTurn._text_delta,
    "response.output_text.done": ResponseTurn._text_done,
    "response.output_text.annotation.added": ResponseTurn._annotation,
    "response.audio.transcript.delta": ResponseTurn._text_delta,
    "response.output_audio_transcript.delta": ResponseTurn._text_delta,
    "response.refusal.delta": ResponseTurn._refusal_delta,
    "response.refusal.done": ResponseTurn._text_done,
    "response.reasoning_summary_text.delta": ResponseTurn._summary_delta,
    "response.reasoning_summary_text.done": ResponseTurn._summary_done,
    "response.reasoning_summary_part.done": ResponseTurn._summary_done,
    "response.reasoning_summary.delta": ResponseTurn._summary_delta,  # the older names
    "response.reasoning_summary.done": ResponseTurn._summary_done,
    "response.reasoning_text.delta": ResponseTurn._reasoning_delta,
    "response.reasoning_text.done": ResponseTurn._reasoning_done,
    "response.reasoning.delta": ResponseTurn._reasoning_delta,  # OpenRouter
    "response.reasoning.done": ResponseTurn._reasoning_done,
    "response.function_call_arguments.delta": ResponseTurn._arguments_delta,
    "response.function_call_arguments.done": ResponseTurn._arguments_done,
    **{f"{name}.delta": ResponseTurn._input_delta for name in INPUT_FIELDS},
}


def assemble(
    events: Events, on_end_of_turn: OnEndOfTurn = lambda seconds: None, *, origin: str | None = None
) -> Iterator[StreamChunk]:
    """The chunks of one turn. ``origin``: the ``provider`` of its signatures."""
    return assembled(events, ResponseTurn(origin), on_end_of_turn)
