"""Events of the Interactions API -> StreamChunks."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from completion.contract.chunks import StreamChunk, TextDelta
from completion.contract.errors import CompletionError, MalformedStreamError
from completion.events import Events
from completion.wires import refusals
from completion.wires.assembly import TurnReader, assembled
from completion.wires.gemini_interactions.names import WIRE
from completion.wires.gemini_interactions.steps import Steps
from completion.wires.gemini_interactions.summary import InteractionSummary
from completion.wires.json_values import has_surrogates, objects_in
from completion.wires.wire import OnEndOfTurn

log = logging.getLogger(__name__)


class InteractionTurn(TurnReader):
    """A turn of the Interactions API. It ends with ``interaction.completed``."""

    truncated = "the body ended without interaction.completed: the answer is not complete"

    def __init__(self) -> None:
        self._summary = InteractionSummary()
        super().__init__(self._summary, WIRE)
        self._steps = Steps(self.order)
        self._pieces = self._steps.offsets.pieces  # of text that is not ASCII
        self._has_known_events = self._has_unknown_events = False

    def take(self, name: str, data: dict[str, Any]) -> Iterable[StreamChunk]:
        kind = data.get("event_type") or name
        if kind == "step.delta":
            # The fast path: most events are a piece of text.
            # {"event_type": "step.delta", "index": 0, "delta": {"type": "text", "text": "Hi"}}
            delta = data.get("delta")
            order = self.order
            if (
                type(delta) is dict
                and len(delta) == 2
                and delta.get("type") == "text"
                and order.can_yield_text_directly
            ):
                text = delta.get("text")
                if (
                    type(text) is str
                    and text
                    and not self.is_over
                    and (text.isascii() or self._can_yield_directly(text))
                ):
                    order.text_length += len(text)
                    return (TextDelta(text),)
        read = _EVENTS.get(kind) if type(kind) is str else None
        if read is not None:
            self._has_known_events = True
            return read(self, data)
        if "error" in (kind, name) or refusals.is_foreign_error(data):
            raise refusals.in_band(data)
        log.debug("skipped an event of unknown type")
        self._has_unknown_events = True
        return ()

    def _can_yield_directly(self, text: str) -> bool:
        """A text that is not ASCII has no half of a surrogate pair. It is remembered: Gemini cites by bytes."""
        if has_surrogates(text):
            return False
        self._pieces.append((self.order.text_length, text))
        return True

    def unfinished(self) -> CompletionError:
        if self._has_unknown_events and not (self._has_known_events or self.order.text_length):
            return MalformedStreamError("no event is one of the Interactions API: does base_url point at Gemini?")
        return super().unfinished()

    def finish(self) -> Iterator[StreamChunk]:
        yield from self._steps.end()
        yield self._summary.turn_finished(self.order.calls_finished)

    def _check_not_over(self) -> None:
        if self.is_over:
            raise MalformedStreamError("the answer goes on after interaction.completed")

    def _created(self, data: dict[str, Any]) -> tuple[()]:
        # {"event_type": "interaction.created", "interaction": {"id": "v1_…", "status": "in_progress", "model": "…"}}
        self._check_not_over()
        self._summary.read_created(_object(data, "interaction"))
        return ()

    def _status_update(self, data: dict[str, Any]) -> tuple[()]:
        # {"event_type": "interaction.status_update", "interaction_id": "v1_…", "status": "in_progress"}
        return ()

    def _step_start(self, data: dict[str, Any]) -> Iterator[StreamChunk]:
        self._check_not_over()
        return self._steps.start(data.get("index"), _object(data, "step"))

    def _step_delta(self, data: dict[str, Any]) -> Iterator[StreamChunk]:
        self._check_not_over()
        return self._steps.delta(data.get("index"), _object(data, "delta"))

    def _step_stop(self, data: dict[str, Any]) -> Iterator[StreamChunk]:
        return self._steps.stop(data.get("index"))

    def _completed(self, data: dict[str, Any]) -> Iterator[StreamChunk]:
        # {"event_type": "interaction.completed", "interaction": {"id": "v1_…", "status": "completed", "usage": {…}}}
        interaction = _object(data, "interaction")
        if not (self._steps.has_started or self.order.text_length):
            # The API sends steps in events of their own; some gateways send the whole interaction only.
            for index, step in enumerate(objects_in(interaction.get("steps"))):
                yield from self._steps.start(index, step)
                yield from self._steps.stop(index)
        self._summary.read_end(interaction)
        self.expect_nothing()


_EVENTS: dict[str, Callable[[InteractionTurn, dict[str, Any]], Iterable[StreamChunk]]] = {
    "interaction.created": InteractionTurn._created,
    "interaction.status_update": InteractionTurn._status_update,
    "step.start": InteractionTurn._step_start,
    "step.delta": InteractionTurn._step_delta,
    "step.stop": InteractionTurn._step_stop,
    "interaction.completed": InteractionTurn._completed,
    "interaction.failed": InteractionTurn._completed,  # not documented
}


def assemble(events: Events, on_end_of_turn: OnEndOfTurn = lambda seconds: None) -> Iterator[StreamChunk]:
    """The chunks of one turn."""
    return assembled(events, InteractionTurn(), on_end_of_turn)


def _object(data: dict[str, Any], name: str) -> dict[str, Any]:
    """The field if it is an object, else an empty one."""
    value = data.get(name)
    return value if isinstance(value, dict) else {}
