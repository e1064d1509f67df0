"""Events of Bedrock Converse -> StreamChunks."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from completion.contract.chunks import StreamChunk, TextDelta
from completion.contract.errors import CompletionError, MalformedStreamError
from completion.wires import refusals
from completion.wires.assembly import TurnReader
from completion.wires.bedrock_converse.content import ContentBlocks
from completion.wires.bedrock_converse.names import WIRE
from completion.wires.bedrock_converse.summary import ConverseSummary
from completion.wires.json_values import has_surrogates

log = logging.getLogger(__name__)


class ConverseTurn(TurnReader):
    """A turn of Bedrock Converse. It ends with ``messageStop``; ``metadata`` (usage) comes before or after it."""

    truncated = "the body ended without messageStop: the answer is not complete"

    def __init__(self) -> None:
        self._summary = ConverseSummary()
        super().__init__(self._summary, WIRE)
        self._content = ContentBlocks(self.order)
        self._has_known_events = self._has_unknown_events = False

    def take(self, name: str, data: dict[str, Any]) -> Iterable[StreamChunk]:
        if name == "contentBlockDelta":
            # The fast path: most events are a piece of text.
            # {"contentBlockIndex": 0, "delta": {"text": "Hi"}, "p": "abcd"}; p is padding
            delta = data.get("delta")
            order = self.order
            if type(delta) is dict and order.can_yield_text_directly and len(delta) == 1:
                text = delta.get("text")
                if (
                    type(text) is str
                    and text
                    and not self.is_over
                    and self._content.is_open_text(data.get("contentBlockIndex"))
                    and (text.isascii() or not has_surrogates(text))
                ):
                    order.text_length += len(text)
                    return (TextDelta(text),)
        read = _EVENTS.get(name)
        if read is not None:
            self._has_known_events = True
            return read(self, data)
        if name == "error" or name.endswith("Exception"):
            raise refusals.in_band(_error(name, data))
        log.debug("skipped an event of unknown type")  # do not log the type: it may be an echo of the key
        self._has_unknown_events = True
        return ()

    def unfinished(self) -> CompletionError:
        if self._has_unknown_events and not self._has_known_events:
            return MalformedStreamError("no event is one of Bedrock Converse: does base_url point at Bedrock?")
        return super().unfinished()

    def finish(self) -> Iterator[StreamChunk]:
        yield from self._content.end()
        yield from self._summary.chunks(self.order.calls_finished)

    def _message_start(self, data: dict[str, Any]) -> tuple[()]:
        # {"role": "assistant"}
        self._check_not_stopped()
        if self._content.has_started:
            raise MalformedStreamError("a second message begins in the body of the first")
        return ()

    def _block_start(self, data: dict[str, Any]) -> Iterable[StreamChunk]:
        # {"contentBlockIndex": 1, "start": {"toolUse": {"toolUseId": "tooluse_1", "name": "f"}}}
        self._check_not_stopped()
        start = data.get("start")
        return self._content.start(_index(data), start) if type(start) is dict else ()

    def _block_delta(self, data: dict[str, Any]) -> Iterable[StreamChunk]:
        self._check_not_stopped()
        delta = data.get("delta")
        return self._content.delta(_index(data), delta) if type(delta) is dict else ()

    def _block_stop(self, data: dict[str, Any]) -> Iterable[StreamChunk]:
        # {"contentBlockIndex": 0}
        return self._content.stop(_index(data))

    def _message_stop(self, data: dict[str, Any]) -> tuple[()]:
        self._summary.read_stop(data)
        self.is_over = True
        return self._update_end()

    def _metadata(self, data: dict[str, Any]) -> tuple[()]:
        self._summary.read_metadata(data)
        return self._update_end()

    def _update_end(self) -> tuple[()]:
        if self.is_over and self._summary.has_metadata:
            self.expect_nothing()
        return ()

    def _check_not_stopped(self) -> None:
        if self.is_over:
            raise MalformedStreamError("the answer continues after messageStop")


_EVENTS: dict[str, Callable[[ConverseTurn, dict[str, Any]], Iterable[StreamChunk]]] = {
    "messageStart": ConverseTurn._message_start,
    "contentBlockStart": ConverseTurn._block_start,
    "contentBlockDelta": ConverseTurn._block_delta,
    "contentBlockStop": ConverseTurn._block_stop,
    "messageStop": ConverseTurn._message_stop,
    "metadata": ConverseTurn._metadata,
}


def _index(data: dict[str, Any]) -> int | str | None:
    index = data.get("contentBlockIndex")
    return index if isinstance(index, int | str) else None


def _error(name: str, data: dict[str, Any]) -> dict[str, Any]:
    """The error event in the shape that ``refusals`` reads. Some gateways send exceptions as events."""
    # {"type": "modelStreamErrorException", "message": "…", "originalStatusCode": 424, "originalMessage": "…"}
    error = data.get("error")
    fields = error if name == "error" and type(error) is dict else {"type": name, **data}
    if "originalStatusCode" in fields:
        fields = {"statusCode": fields["originalStatusCode"], **fields}
    return {"error": fields}
