"""A wire: all that an endpoint must know of a wire format.

    ChatRequest -> lower -> JSON body    ...    bytes -> events -> assemble -> StreamChunk

A wire is pure: it opens no connection and sees no key. ``adapters`` says where the body goes, and with which key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from completion.contract.chunks import StreamChunk
from completion.contract.messages import sendable
from completion.contract.request import ChatRequest
from completion.events import Events, ReadEvents
from completion.events.sse import sse_events
from completion.wires.lowering import cache_wishes, with_additional

Lowered = tuple[dict[str, Any], list[str]]
"""The JSON body, and the names of the request fields that it leaves out because this wire has no place for them."""

Lower = Callable[[ChatRequest, str, Any], Lowered]
"""From a request, a model id and the wire's dialect to the JSON body.

Raises UnsupportedContentError where leaving something out would change the meaning of the answer.
"""

OnEndOfTurn = Callable[[float | None], None]
"""Called once the provider's end of turn was read, with the seconds to wait for all that follows. A later call can only
shorten the wait. None means that more of the answer came: the next part is waited for like any other."""

Assemble = Callable[[Events, OnEndOfTurn], Iterator[StreamChunk]]
"""From the events of one turn to its chunks."""


def _takes_anything(body: dict[str, Any], dialect: Any) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Wire:
    """One wire format.

    Args:
        name: the ``provider`` of its ProviderBlocks, as in ``"openai-chat"``.
        lower: makes the JSON body of a request.
        assemble: makes the chunks of a turn out of its events.
        events: splits the body of the response into events.
        accept: the ``Accept`` header. A response of another content type is refused, unless its body begins like a
            stream of this kind.
        check: raises UnsupportedContentError for a body that the API is known to refuse. It sees the body after
            ``additional_params`` were merged into it.
    """

    name: str
    lower: Lower
    assemble: Assemble
    events: ReadEvents = sse_events
    accept: str = "text/event-stream"
    check: Callable[[dict[str, Any], Any], None] = _takes_anything

    def names_its_stream(self, content_type: str) -> bool:
        """The Content-Type of a response says that it is a stream of this wire."""
        return self.accept.rpartition("/")[2].removeprefix("x-") in content_type.lower()

    def can_begin_with(self, begin: bytes) -> bool:
        """The body of a response of another Content-Type may be a stream of this wire nevertheless.

        A web page never is. One JSON value is none either, unless the events themselves are lines of JSON.
        """
        never = (b"<",) if "json" in self.accept else (b"{", b"[", b"<")
        return begin.lstrip()[:1] not in never

    def body(self, request: ChatRequest, model: str, dialect: Any = None) -> Lowered:
        """The JSON body of a request, complete: the history made valid, lowered, patched and checked.

        Raises:
            UnsupportedContentError: the API does not support a part of the request that would change the answer.
        """
        request.check_tool_choice()
        valid = request.with_messages(sendable(request.messages))
        lowered, dropped = self.lower(valid, model, dialect)
        if "cache_control" not in dropped and cache_wishes(valid) < cache_wishes(request):
            dropped.append("cache_control")  # it was on a block that is not sent at all
        body = with_additional(lowered, request)
        self.check(body, dialect)
        return body, dropped
