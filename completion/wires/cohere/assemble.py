"""Events of Cohere's chat -> StreamChunks."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from completion.contract.chunks import StreamChunk, TextDelta, Usage
from completion.contract.errors import CompletionError, MalformedStreamError
from completion.wires import refusals
from completion.wires.assembly import TurnReader
from completion.wires.cohere.content import MessageContent
from completion.wires.cohere.names import FAILED, FINISH_REASONS, WIRE
from completion.wires.json_values import has_surrogates, positive_int, str_or_empty

log = logging.getLogger(__name__)


class CohereTurn(TurnReader):
    """A turn of Cohere's chat. It ends with ``message-end``."""

    truncated = "the body ended without message-end: the answer is not complete"
    finish_reasons = FINISH_REASONS

    def __init__(self) -> None:
        super().__init__(origin=WIRE)
        self._content = MessageContent(self.order)
        self._has_known_events = self._has_unknown_events = False

    def take(self, name: str, data: dict[str, Any]) -> Iterable[StreamChunk]:
        kind = data.get("type") or name
        if kind == "content-delta":
            # The fast path: most events are a piece of text.
            # {"type": "content-delta", "index": 0, "delta": {"message": {"content": {"text": "Hi"}}}}
            order = self.order
            if order.can_yield_text_directly:
                try:
                    content = data["delta"]["message"]["content"]
                    text = content["text"]
                except (KeyError, TypeError):
                    text = None
                if (
                    type(text) is str
                    and text
                    and "thinking" not in content
                    and not self.is_over
                    and not self._content.has_plan
                    and (text.isascii() or not has_surrogates(text))
                ):
                    order.text_length += len(text)
                    return (TextDelta(text),)
        read = _EVENTS.get(kind) if type(kind) is str else None
        if read is not None:
            self._has_known_events = True
            return read(self, data)
        if "error" in (kind, name) or refusals.is_foreign_error(data):
            raise refusals.in_band(data)
        log.debug("skipped an event of unknown type")  # do not log the type: it may be an echo of the key
        self._has_unknown_events = True
        return ()

    def unfinished(self) -> CompletionError:
        # The fast path only counts the text: it does not set _has_known_events.
        if self._has_unknown_events and not (self._has_known_events or self.order.text_length):
            return MalformedStreamError("no event is one of Cohere's chat: does base_url point at Cohere?")
        return super().unfinished()

    def finish(self) -> Iterator[StreamChunk]:
        yield from self._content.end()
        yield from super().finish()

    def _checked(self, chunks: Iterable[StreamChunk]) -> Iterator[StreamChunk]:
        """The chunks. A chunk after the end of the turn is an error."""
        for chunk in chunks:
            if self.is_over:
                raise MalformedStreamError("the answer continues after message-end")
            yield chunk

    def _message_start(self, data: dict[str, Any]) -> Iterator[StreamChunk]:
        # {"type": "message-start", "id": "…", "delta": {"message": {"role": "assistant", "content": [], …}}}
        message_id = str_or_empty(data.get("id"))
        if message_id and self.summary.response_id not in (None, message_id):
            raise MalformedStreamError("a second message begins in the same body")
        self.summary.response_id = message_id or self.summary.response_id
        return self._checked(self._content.add(_message(data).get("content")))

    def _add_content(self, data: dict[str, Any]) -> Iterator[StreamChunk]:
        # {"type": "content-start", "index": 0, "delta": {"message": {"content": {"type": "text", "text": ""}}}}
        return self._checked(self._content.add(_message(data).get("content")))

    def _content_end(self, data: dict[str, Any]) -> Iterator[StreamChunk]:
        # {"type": "content-end", "index": 0}
        return self._checked(self._content.end_content())

    def _plan_delta(self, data: dict[str, Any]) -> tuple[()]:
        # {"type": "tool-plan-delta", "delta": {"message": {"tool_plan": "I will"}}}
        self._content.add_plan(str_or_empty(_message(data).get("tool_plan")))
        return ()

    def _call_start(self, data: dict[str, Any]) -> Iterator[StreamChunk]:
        return self._checked(self._content.start_call(data.get("index"), _message(data).get("tool_calls")))

    def _call_delta(self, data: dict[str, Any]) -> Iterator[StreamChunk]:
        return self._checked(self._content.add_to_call(data.get("index"), _message(data).get("tool_calls")))

    def _call_end(self, data: dict[str, Any]) -> Iterator[StreamChunk]:
        # {"type": "tool-call-end", "index": 0}
        return self._checked(self._content.end_call(data.get("index")))

    def _citation_start(self, data: dict[str, Any]) -> tuple[()]:
        self._content.add_citations(_message(data).get("citations"))
        return ()

    def _citation_end(self, data: dict[str, Any]) -> tuple[()]:
        # {"type": "citation-end", "index": 0}
        return ()

    def _message_end(self, data: dict[str, Any]) -> tuple[()]:
        # {"type": "message-end", "delta": {"finish_reason": "COMPLETE", "usage": {…}}}
        delta = data.get("delta")
        delta = delta if isinstance(delta, dict) else {}
        summary = self.summary
        summary.provider_reason = str_or_empty(delta.get("finish_reason")) or summary.provider_reason
        summary.last_usage = parse_usage(delta.get("usage")) or summary.last_usage
        code = FAILED.get((summary.provider_reason or "").lower())
        if code or delta.get("error"):
            why = str_or_empty(delta.get("error")) or f"the answer ended with {summary.provider_reason}"
            raise refusals.in_band({"error": {"type": code or "server_error", "message": why}})
        self.expect_nothing()
        return ()


_EVENTS: dict[str, Callable[[CohereTurn, dict[str, Any]], Iterable[StreamChunk]]] = {
    "message-start": CohereTurn._message_start,
    "content-start": CohereTurn._add_content,
    "content-delta": CohereTurn._add_content,
    "content-end": CohereTurn._content_end,
    "tool-plan-delta": CohereTurn._plan_delta,
    "tool-call-start": CohereTurn._call_start,
    "tool-call-delta": CohereTurn._call_delta,
    "tool-call-end": CohereTurn._call_end,
    "citation-start": CohereTurn._citation_start,
    "citation-end": CohereTurn._citation_end,
    "message-end": CohereTurn._message_end,
}


assemble = CohereTurn.assemble


def parse_usage(usage: Any) -> Usage | None:
    """The usage of an answer: the tokens that the model read and wrote, not the billed units."""
    # {"billed_units": {"input_tokens": 8, "output_tokens": 50}, "tokens": {"input_tokens": 1394, "output_tokens": 54},
    #  "cached_tokens": 1360}
    if not isinstance(usage, dict):
        return None
    tokens = usage.get("tokens") or usage.get("billed_units")
    if not isinstance(tokens, dict):
        return None
    return Usage(
        input_tokens=positive_int(tokens, "input_tokens"),
        output_tokens=positive_int(tokens, "output_tokens"),
        cached_input_tokens=positive_int(usage, "cached_tokens"),
    )


def _message(data: dict[str, Any]) -> dict[str, Any]:
    """``delta.message`` of an event if it is an object, else an empty one."""
    delta = data.get("delta")
    message = delta.get("message") if isinstance(delta, dict) else None
    return message if isinstance(message, dict) else {}
