"""The event loop of every wire. It reads a turn to its end, and raises if the answer is truncated.

    events -> TurnReader.take(name, data) -> chunks ... end of turn -> TurnReader.finish() -> the last chunks

Each wire has its own TurnReader. The rest is the same for all wires: ``[DONE]``, events that are not JSON objects,
errors inside a 200 body, bodies that end too early, and the wait for trailing events.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar, Final

from completion.contract.chunks import FinishReason, StreamChunk
from completion.contract.errors import CompletionError, TransportError, TruncatedStreamError
from completion.events import DONE, Events
from completion.wires import refusals
from completion.wires.tool_call import ToolCall
from completion.wires.turn_order import TurnOrder
from completion.wires.turn_summary import TurnSummary
from completion.wires.wire import OnEndOfTurn

log = logging.getLogger(__name__)

WAIT_FOR_USAGE_S: Final = 5.0
"""How long to wait for the rest of the body after a finish reason. Usage and late errors follow it."""

WAIT_FOR_EOF_S: Final = 0.5
"""How long to wait for the end of the body after the last event of a turn. Some servers never end it."""


class TurnReader(ABC):
    """Reads the events of one turn. Each wire has a subclass, and each turn an object of it.

    Args:
        summary: collects what TurnFinished carries. None: a TurnSummary with the class's ``finish_reasons``.
        origin: the ``provider`` of signatures, see TurnOrder.
    """

    truncated: ClassVar[str] = "the body ended before the end of the turn: the answer is not complete"
    """The error message for a body that ends before the end of the turn."""

    finish_reasons: ClassVar[Mapping[str, FinishReason]] = {}
    """The finish reason for each of the provider's words; any other word is ``other``."""

    is_over = False
    """True once the provider's own end of turn was read."""

    wait_s: float = WAIT_FOR_USAGE_S
    """How long to wait for the rest of the body once the turn is over."""

    def __init__(self, summary: TurnSummary | None = None, origin: str | None = None) -> None:
        self.order = TurnOrder(origin)
        """Puts chunks into the order that the contract promises."""
        self.summary = TurnSummary(self.finish_reasons) if summary is None else summary
        """Collects what the last chunk of the turn carries."""
        self._calls_by_id: dict[str, ToolCall] = {}

    @classmethod
    def assemble(cls, events: Events, on_end_of_turn: OnEndOfTurn) -> Iterator[StreamChunk]:
        """The chunks of one turn, read by a new reader: the ``assemble`` of a Wire."""
        return assembled(events, cls(), on_end_of_turn)

    def call_piece(self, call_id: str, name: str, arguments: str) -> list[StreamChunk]:
        """The chunks of a piece of a tool call: the first piece with an id begins the call.

        For wires whose pieces all have the id of their call. ``name`` is used in the first piece only.
        """
        call = self._calls_by_id.get(call_id)
        is_new = call is None
        if call is None:
            call = self._calls_by_id[call_id] = ToolCall(call_id, name)
        call.add(arguments)
        return self.order.call(call) if is_new else self.order.release()

    @abstractmethod
    def take(self, name: str, data: dict[str, Any]) -> Iterable[StreamChunk]:
        """The chunks of one event.

        Raises:
            CompletionError: the event is an error, or it cannot follow the events before it.
        """

    def done(self) -> None:  # noqa: B027  most wires have nothing to do here
        """``[DONE]`` was read. A wire on which it ends the turn sets ``is_over``."""

    def expect_nothing(self) -> None:
        """The last event of the turn was read: the turn is over, and only the end of the body is missing."""
        self.is_over = True
        self.wait_s = WAIT_FOR_EOF_S

    def unfinished(self) -> CompletionError:
        """The error for a body that ends before the end of the turn."""
        return TruncatedStreamError(self.truncated)

    def finish(self) -> Iterable[StreamChunk]:
        """The last chunks: the ends of what is still open, and TurnFinished."""
        yield from self.order.end()
        yield self.summary.turn_finished(self.order.calls_finished)


def assembled(events: Events, turn: TurnReader, on_end_of_turn: OnEndOfTurn) -> Iterator[StreamChunk]:
    """The chunks of one turn.

    After the end of the turn it still reads the body, for usage and late errors. A body that breaks off there is
    ignored: the turn is complete.

    Raises:
        TruncatedStreamError: the body ended before the end of the turn.
        CompletionError: an error event, or an event that cannot follow the events before it.
    """
    take = turn.take
    try:
        for name, data in events:
            if type(data) is not dict:
                if data is DONE:
                    turn.done()
                    break
                if type(data) is list and len(data) == 1 and type(data[0]) is dict:
                    data = data[0]  # Gemini's OpenAI-compatible endpoint wraps its errors in a list
                elif name == "error":
                    raise refusals.in_band(data)
                else:
                    log.debug("skipped an event that is not a JSON object")
                    continue
            has_chunks = False
            for chunk in take(name, data):
                has_chunks = True
                yield chunk
            if turn.is_over:
                # Some servers send a finish reason in every chunk. As long as chunks come, the answer goes on.
                on_end_of_turn(None if has_chunks else turn.wait_s)
    except (TransportError, TruncatedStreamError):  # the second: the body ended within a frame of AWS
        if not turn.is_over:
            raise
    if not turn.is_over:
        raise turn.unfinished()
    on_end_of_turn(WAIT_FOR_EOF_S)
    yield from turn.finish()
