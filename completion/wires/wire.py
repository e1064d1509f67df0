"""A wire: everything that an endpoint needs to know about a wire format.

    ChatRequest -> lower -> JSON body    ...    bytes -> events -> assemble -> StreamChunk

A wire is pure: it opens no connection and sees no key. ``adapters`` decides where the body goes, and with which key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from completion.contract.chunks import StreamChunk
from completion.contract.errors import UnsupportedContentError
from completion.contract.messages import Block, Message
from completion.contract.request import ChatRequest
from completion.events import Events, ReadEvents
from completion.events.sse import sse_events
from completion.wires.history import HistoryRules, Origin, valid_history
from completion.wires.lowering import count_cache_controls, with_additional

Lowered = tuple[dict[str, Any], list[str]]
"""The JSON body, and the names of the request fields that were dropped because the API does not support them."""

Lower = Callable[[ChatRequest, str, Any], Lowered]
"""From a request, a model id and the wire's dialect to the JSON body.

Raises UnsupportedContentError for a part of the request that cannot be dropped without changing the answer.
"""

OnEndOfTurn = Callable[[float | None], None]
"""Called after the provider's end of turn was read, with the seconds to wait for trailing events. A later call can only
shorten the wait. None means that the answer goes on after all: the usual clocks apply again."""

Assemble = Callable[..., Iterator[StreamChunk]]
"""From the events of one turn to its chunks: ``assemble(events, on_end_of_turn)``, with Events and an OnEndOfTurn.

A wire with ``signs_per_host`` also gets ``origin=``, the ``provider`` of its signatures.
"""


def _default_rules(dialect: Any) -> HistoryRules:
    return HistoryRules()


def _accept_any_body(body: dict[str, Any], dialect: Any) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Wire:
    """One wire format.

    Args:
        name: the ``provider`` of its ProviderBlocks, as in ``"openai-chat"``.
        lower: makes the JSON body of a request.
        assemble: makes the chunks of a turn out of its events.
        events: splits the body of the response into events.
        accept: the ``Accept`` header. A response with another Content-Type is refused, unless its body begins like a
            stream of this wire.
        check: raises UnsupportedContentError for a body that the API is known to refuse. It gets the body with
            ``additional_params`` merged in.
        history: from the dialect to what the wire accepts in a history.
        signs_per_host: servers of this wire do not accept each other's signatures.
    """

    name: str
    lower: Lower
    assemble: Assemble
    events: ReadEvents = sse_events
    accept: str = "text/event-stream"
    check: Callable[[dict[str, Any], Any], None] = _accept_any_body
    history: Callable[[Any], HistoryRules] = _default_rules
    signs_per_host: bool = False

    def matches_content_type(self, content_type: str) -> bool:
        """A response with this Content-Type is a stream of this wire."""
        # Some servers send application/ndjson for application/x-ndjson.
        return self.accept.rpartition("/")[2].removeprefix("x-") in content_type.lower()

    def can_begin_with(self, beginning: bytes) -> bool:
        """A body that begins like this may be a stream of this wire, even with another Content-Type.

        A web page never is. A body that begins with a JSON value is not, unless the events are lines of JSON.
        """
        other_formats = (b"<",) if "json" in self.accept else (b"{", b"[", b"<")
        return beginning.lstrip()[:1] not in other_formats

    def chunks(self, events: Events, on_end_of_turn: OnEndOfTurn, host: str | None = None) -> Iterator[StreamChunk]:
        """The chunks of one turn that was read from this host."""
        if not self.signs_per_host:
            return self.assemble(events, on_end_of_turn)
        return self.assemble(events, on_end_of_turn, origin=str(Origin(self.name, host)))

    def body(self, request: ChatRequest, model: str, dialect: Any = None, host: str | None = None) -> Lowered:
        """The complete JSON body of a request: with a valid history, ``additional_params`` merged in, and checked.

        Args:
            host: where the request goes; signatures of other hosts are left out if the wire has ``signs_per_host``.

        Raises:
            UnsupportedContentError: the API does not support a part of the request that would change the answer.
        """
        request.check_tool_choice()
        origin = Origin(self.name, host if self.signs_per_host else None)
        offered = {tool.name for tool in request.tools}

        def can_send(block: Block) -> bool:
            try:
                self.lower(ChatRequest([Message.user([block])]), model, dialect)
            except UnsupportedContentError:
                return False
            return True

        rules = self.history(dialect)
        if rules.of_model is not None:
            rules = rules.of_model(model)
        valid = request.with_messages(
            valid_history(request.messages, rules, origin, can_send=can_send, offered=offered)
        )
        lowered, dropped = self.lower(valid, model, dialect)
        if "cache_control" not in dropped and count_cache_controls(valid) < count_cache_controls(request):
            dropped.append("cache_control")  # it was on a block that is not sent
        body = with_additional(lowered, request)
        self.check(body, dialect)
        return body, dropped
