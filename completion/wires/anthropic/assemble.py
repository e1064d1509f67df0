"""Events of Anthropic Messages -> StreamChunks."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from completion.contract.chunks import StreamChunk, TextDelta
from completion.contract.errors import CompletionError, MalformedStreamError
from completion.events import Events
from completion.wires import refusals
from completion.wires.anthropic.content import ContentBlocks
from completion.wires.anthropic.names import WIRE
from completion.wires.anthropic.summary import MessageSummary
from completion.wires.assembly import TurnReader, assembled
from completion.wires.json_values import has_surrogates, objects_in
from completion.wires.wire import OnEndOfTurn

log = logging.getLogger(__name__)


class MessageTurn(TurnReader):
    """A turn of Anthropic Messages.

    It ends with a ``stop_reason`` or with ``message_stop``: some compatible servers omit one of the two. ``[DONE]``,
    which gateways add, does not end it.
    """

    truncated = "the body ended without stop_reason and message_stop: the answer is not complete"

    def __init__(self) -> None:
        self._summary = MessageSummary()
        super().__init__(self._summary, WIRE)
        self._content = ContentBlocks(self.order)
        self._has_known_events = self._has_unknown_events = False

    def take(self, name: str, data: dict[str, Any]) -> Iterable[StreamChunk]:
        kind = data.get("type") or name
        if kind == "content_block_delta":
            # The fast path: most events are a piece of text.
            # {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hi"}}
            delta = data.get("delta")
            order = self.order
            if type(delta) is dict and delta.get("type") == "text_delta" and order.can_yield_text_directly:
                text = delta.get("text")
                if type(text) is str and text and not self.is_over and (text.isascii() or not has_surrogates(text)):
                    order.text_length += len(text)
                    return (TextDelta(text),)
        read = _EVENTS.get(kind) if type(kind) is str else None
        if read is not None:
            self._has_known_events = True
            return read(self, data)
        if "error" in (kind, name) or refusals.is_foreign_error(data):
            raise refusals.in_band(data)
        if kind != "ping":
            log.debug("skipped an event of unknown type")  # do not log the type: it may be an echo of the key
            self._has_unknown_events = True
        return ()

    def unfinished(self) -> CompletionError:
        # The fast path only counts the text: it does not set _has_known_events.
        if self._has_unknown_events and not (self._has_known_events or self.order.text_length):
            return MalformedStreamError(
                "no event is an event of Anthropic Messages: does base_url point at a server of this wire?"
            )
        return super().unfinished()

    def finish(self) -> Iterator[StreamChunk]:
        yield from self._content.end()
        yield from self._summary.chunks(self.order.calls_finished)

    def _message_start(self, data: dict[str, Any]) -> Iterator[StreamChunk]:
        # {"type": "message_start", "message": {"id": "msg_1", "content": [], "usage": {…}, …}}
        message = data.get("message")
        if type(message) is dict and self._summary.read_message_start(message):
            for index, block in enumerate(objects_in(message.get("content"))):
                yield from self._content.start(index, block)
                yield from self._content.stop(index)
        self._update_end()

    def _block_start(self, data: dict[str, Any]) -> Iterator[StreamChunk]:
        # {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
        block = data.get("content_block")
        if type(block) is not dict:
            log.debug("skipped a block that is not an object")
            return
        self._summary.read_fallback_model(block)
        for chunk in self._content.start(data.get("index"), block):
            self._summary.check_not_stopped()
            yield chunk

    def _block_delta(self, data: dict[str, Any]) -> Iterator[StreamChunk]:
        delta = data.get("delta")
        if type(delta) is not dict:
            log.debug("skipped a delta that is not an object")
            return
        for chunk in self._content.delta(data.get("index"), delta):
            self._summary.check_not_stopped()
            yield chunk

    def _block_stop(self, data: dict[str, Any]) -> Iterator[StreamChunk]:
        # {"type": "content_block_stop", "index": 0}
        return self._content.stop(data.get("index"))

    def _message_delta(self, data: dict[str, Any]) -> tuple[()]:
        # {"type": "message_delta", "delta": {"stop_reason": "end_turn", …}, "usage": {"output_tokens": 9}}
        self._summary.read_stop(data)
        self._summary.read_stop(data.get("delta"))
        self._summary.update_usage(data.get("usage"))
        self._update_end()
        return ()

    def _message_stop(self, data: dict[str, Any]) -> tuple[()]:
        # {"type": "message_stop"}
        self._summary.has_stopped = True
        self._update_end()
        return ()

    def _update_end(self) -> None:
        self.is_over = self._summary.is_over
        if self._summary.has_stopped:
            self.expect_nothing()


_EVENTS: dict[str, Callable[[MessageTurn, dict[str, Any]], Iterable[StreamChunk]]] = {
    "message_start": MessageTurn._message_start,
    "content_block_start": MessageTurn._block_start,
    "content_block_delta": MessageTurn._block_delta,
    "content_block_stop": MessageTurn._block_stop,
    "message_delta": MessageTurn._message_delta,
    "message_stop": MessageTurn._message_stop,
}


def assemble(events: Events, on_end_of_turn: OnEndOfTurn = lambda seconds: None) -> Iterator[StreamChunk]:
    """The chunks of one turn."""
    return assembled(events, MessageTurn(), on_end_of_turn)
