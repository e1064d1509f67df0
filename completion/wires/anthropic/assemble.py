"""Events of Anthropic Messages -> StreamChunks."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from completion.contract.chunks import StreamChunk, TextDelta
from completion.contract.errors import MalformedStreamError, TransportError, TruncatedStreamError
from completion.events.sse import DONE
from completion.wires import refusals
from completion.wires.anthropic.content import _Content
from completion.wires.anthropic.ending import _Message
from completion.wires.json_values import has_halves, objects
from completion.wires.turn_order import TurnOrder
from completion.wires.wire import WAIT_FOR_EOF_S, WAIT_FOR_USAGE_S, Events, OnEndOfTurn

log = logging.getLogger(__name__)


def assemble(events: Events, end_of_turn: OnEndOfTurn = lambda seconds: None) -> Iterator[StreamChunk]:
    """The chunks of one turn.

    The end of turn is a ``stop_reason`` or ``message_stop``, compatible servers leave out either. What follows is
    still read, for usage, late errors and a second answer; a connection that breaks there changes nothing.
    """
    order = TurnOrder()
    content = _Content(order)
    message = _Message()
    is_over = False
    is_ours = has_strangers = False  # whether events of this wire came, and others
    is_clear = True  # text may be yielded without asking anybody
    try:
        for name, data in events:
            if data is DONE:  # gateways add it; it is no end of turn on this wire
                break
            if type(data) is not dict:
                if name == "error":
                    raise refusals.in_band(data)
                log.debug("skipped an event that is no object")
                continue
            kind = data.get("type") or name
            has_gone_on = False
            if kind == "content_block_delta":
                # {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hi"}}
                delta = data.get("delta")
                if type(delta) is not dict:
                    log.debug("skipped a delta that is no object")
                    continue
                if is_clear and delta.get("type") == "text_delta":
                    text = delta.get("text")
                    if type(text) is str and text and (text.isascii() or not has_halves(text)):
                        content.said += len(text)
                        yield TextDelta(text)
                        continue
                for chunk in content.delta(data.get("index"), delta):
                    message.check_goes_on()
                    has_gone_on = True
                    yield chunk
            elif kind == "content_block_start":
                # {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
                block = data.get("content_block")
                if type(block) is not dict:
                    log.debug("skipped a block that is no object")
                    continue
                message.note_model(block)
                for chunk in content.start(data.get("index"), block):
                    message.check_goes_on()
                    has_gone_on = True
                    yield chunk
            elif kind == "content_block_stop":
                for chunk in content.stop(data.get("index")):
                    has_gone_on = True
                    yield chunk
            elif kind == "message_start":
                # {"type": "message_start", "message": {"id": "msg_1", "content": [], "usage": {…}, …}}
                given = data.get("message")
                if type(given) is dict and message.start(given):
                    for index, block in enumerate(objects(given.get("content"))):
                        yield from content.start(index, block)
                        yield from content.stop(index)
            elif kind == "message_delta":
                # {"type": "message_delta", "delta": {"stop_reason": "end_turn", …}, "usage": {"output_tokens": 9}}
                message.note(data)
                message.note(data.get("delta"))
                message.count(data.get("usage"))
            elif kind == "message_stop":
                message.is_stopped = True
            elif "error" in (kind, name) or data.get("error") or ("type" not in data and _is_complaint(data)):
                raise refusals.in_band(data)
            else:
                if kind != "ping":
                    log.debug("skipped an event of unknown type")  # which may be an echo of the key
                    has_strangers = True
                continue
            is_ours = True
            is_over = message.is_over
            is_clear = order.can_yield_text_directly and not content.half and not is_over
            if is_over:
                end_of_turn(WAIT_FOR_EOF_S if message.is_stopped else None if has_gone_on else WAIT_FOR_USAGE_S)
    except TransportError:
        if not is_over:
            raise
    if has_strangers and not (is_ours or content.said):
        raise MalformedStreamError(
            "no event is one of Anthropic Messages: does base_url point at a server of this wire?"
        )
    if not is_over:
        raise TruncatedStreamError("the body ended without stop_reason and message_stop: the answer is not complete")
    end_of_turn(WAIT_FOR_EOF_S)
    yield from content.end()
    yield from message.chunks(order.calls_finished)


def _is_complaint(data: dict[str, Any]) -> bool:
    """{"message": "…"} and its like, from something between us and the provider."""
    return any(data.get(key) for key in ("message", "detail", "error_code"))
