"""The event loop of every wire: it reads a turn to its end, and never takes a cut answer for a finished one.

    events -> TurnReader.take(name, data) -> chunks ... end of turn -> TurnReader.finish() -> the last chunks

What differs between wires is in their TurnReader. What is the same for all is here: ``[DONE]``, events that are not
JSON objects, errors inside a 200 body, bodies that end too early, and the wait for what follows the end of the turn.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar, Final

from completion.contract.chunks import StreamChunk
from completion.contract.errors import CompletionError, TransportError, TruncatedStreamError
from completion.events import DONE, Events
from completion.wires import refusals
from completion.wires.turn_end import TurnEnd
from completion.wires.turn_order import TurnOrder
from completion.wires.wire import OnEndOfTurn

log = logging.getLogger(__name__)

WAIT_FOR_USAGE_S: Final = 5.0
"""How long to wait for the rest of the body after a finish reason: usage and late errors follow it."""

WAIT_FOR_EOF_S: Final = 0.5
"""How long to wait for the end of the body after the last event of a turn: some servers leave the connection open."""


class TurnReader(ABC):
    """Reads the events of one turn. Each wire has its own subclass, and each turn its own object.

    Args:
        end: collects what TurnFinished says. None: a TurnEnd that knows no finish reasons.
    """

    truncated: ClassVar[str] = "the body ended before the end of the turn: the answer is not complete"
    """The message of the error for a body that ends before the end of the turn."""

    is_over = False
    """True once the provider's own end of turn was read."""

    wait_s: float = WAIT_FOR_USAGE_S
    """How long to wait for the rest of the body once the turn is over."""

    def __init__(self, end: TurnEnd | None = None) -> None:
        self.order = TurnOrder()
        """Puts chunks into the order that the contract promises."""
        self.end = TurnEnd({}) if end is None else end
        """Collects what the last chunk of the turn says."""

    @classmethod
    def assemble(cls, events: Events, on_end_of_turn: OnEndOfTurn) -> Iterator[StreamChunk]:
        """The chunks of one turn, read by a new reader: the ``assemble`` of a Wire."""
        return assembled(events, cls(), on_end_of_turn)

    @abstractmethod
    def take(self, name: str, data: dict[str, Any]) -> Iterable[StreamChunk]:
        """The chunks that one event brings.

        Raises:
            CompletionError: the event is an error, or it cannot follow what came before.
        """

    def done(self) -> None:  # noqa: B027  most wires have nothing to do here
        """``[DONE]`` was read. It ends the turn only on wires that say so."""

    def expect_nothing(self) -> None:
        """The last event of the turn was read: the turn is over, and only the end of the body is still to come."""
        self.is_over = True
        self.wait_s = WAIT_FOR_EOF_S

    def unfinished(self) -> CompletionError:
        """The error for a body that ends before the end of the turn."""
        return TruncatedStreamError(self.truncated)

    def finish(self) -> Iterable[StreamChunk]:
        """The turn is over: close what is still open, and end with TurnFinished."""
        yield from self.order.end()
        yield self.end.turn_finished(self.order.calls_finished)


def assembled(events: Events, turn: TurnReader, on_end_of_turn: OnEndOfTurn) -> Iterator[StreamChunk]:
    """The chunks of one turn.

    After the end of the turn the body is still read, for usage and late errors. A connection that breaks there
    changes nothing: the turn is complete.

    Raises:
        TruncatedStreamError: the body ended before the end of the turn.
        CompletionError: an error event, or an event that makes no sense here.
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
            goes_on = False
            for chunk in take(name, data):
                goes_on = True
                yield chunk
            if turn.is_over:
                # Some servers say "stop" in every chunk: as long as text comes, the answer goes on.
                on_end_of_turn(None if goes_on else turn.wait_s)
    except TransportError:
        if not turn.is_over:
            raise
    if not turn.is_over:
        raise turn.unfinished()
    on_end_of_turn(WAIT_FOR_EOF_S)
    yield from turn.finish()
