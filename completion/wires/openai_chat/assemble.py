"""Events of Chat Completions -> StreamChunks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from completion.contract.chunks import RedactedReasoning, StreamChunk, TextDelta
from completion.events import Events
from completion.wires import refusals
from completion.wires.assembly import TurnReader, assembled
from completion.wires.json_values import has_halves, provider_block, string
from completion.wires.openai_chat.calls import Calls
from completion.wires.openai_chat.ending import ChatEnd
from completion.wires.openai_chat.names import PROVIDER_BLOCK_FIELDS, WIRE
from completion.wires.turn_order import TurnOrder
from completion.wires.wire import OnEndOfTurn


class ChatTurn(TurnReader):
    """A turn of Chat Completions.

    It ends with a ``finish_reason`` or with ``[DONE]``: real servers leave out either.
    """

    truncated = "the body ended without finish_reason and without [DONE]: the answer is not complete"

    def __init__(self) -> None:
        super().__init__()
        self._calls = Calls(self.order)
        self._end = ChatEnd()

    def take(self, name: str, data: dict[str, Any]) -> Iterable[StreamChunk]:
        # {"id": "…", "choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": null}], "usage": null}
        # {"error": {…}} alone or beside choices; {"object": "error", …}; Groq names the event "error"
        if name == "error" or "error" in data or not data.get("choices"):
            _raise_if_error(data, name)
        end = self._end
        choice = end.first_choice(data)
        end.note(data, choice)
        if choice is None:
            return ()
        delta = choice.get("delta")
        if delta:
            end.has_delta = True
        elif not end.has_delta:
            delta = choice.get("message")  # the whole answer at once; after deltas MiniMax repeats the answer there
        if type(delta) is not dict:
            delta = {}
        text = delta.get("content")
        if (
            type(text) is str
            and self.order.can_yield_text_directly
            and not (self.is_over or choice.get("finish_reason") or "error" in choice)
            and (len(delta) == 1 or _is_plain(delta))
            and (text.isascii() or not has_halves(text))
        ):
            return (TextDelta(text),) if text else ()
        return self._take_all(data, choice, delta)

    def _take_all(self, data: dict[str, Any], choice: dict[str, Any], delta: dict[str, Any]) -> Iterator[StreamChunk]:
        """The chunks of an event that is more than a piece of text."""
        end = self._end
        if delta:
            if end.provider_reason is not None:
                end.check_not_spliced(data, delta)
            yield from _of_delta(delta, self.order, self._calls, end)
        reason = choice.get("finish_reason")
        if (reason and reason != "null") or "error" in choice:
            end.finish(reason, data, choice)
        if end.provider_reason is not None:
            self.is_over = True

    def done(self) -> None:
        self.is_over = True

    def finish(self) -> Iterator[StreamChunk]:
        yield from self.order.end()
        yield from self._calls.custom_blocks()
        yield from self._end.chunks(self.order.calls_finished)


def assemble(events: Events, on_end_of_turn: OnEndOfTurn = lambda seconds: None) -> Iterator[StreamChunk]:
    """The chunks of one turn."""
    return assembled(events, ChatTurn(), on_end_of_turn)


def _is_plain(delta: dict[str, Any]) -> bool:
    """Nothing but content is said; many servers name the other fields with null or empty values."""
    for key, value in delta.items():  # noqa: SIM110  a third of the time of any()
        if value and key not in ("content", "role"):
            return False
    return True


def _raise_if_error(data: dict[str, Any], name: str) -> None:
    """Raise for an error in the place of a chunk, in whichever shape."""
    error = data.get("error")
    if error or name == "error" or data.get("object") == "error":
        raise refusals.in_band(data)
    if data.get("choices") is not None or data.get("usage") or "chat.completion" in string(data.get("object")):
        return
    # {"detail": "…"}, {"code": "399505", "message": "…"}, {"base_resp": {"status_code": 1008, "status_msg": "…"}}
    base = data.get("base_resp")
    has_failed = isinstance(base, dict) and base.get("status_code")
    complaint = data.get("detail") or data.get("error_code") or string(data.get("message"))
    if error is not None or has_failed or complaint:
        raise refusals.in_band({**data, "message": base.get("status_msg")} if isinstance(base, dict) else data)


def _of_delta(delta: dict[str, Any], order: TurnOrder, calls: Calls, end: ChatEnd) -> Iterator[StreamChunk]:
    """The chunks of a delta that is more than a piece of text."""
    yield from _reasoning(delta, order, end)
    content = delta.get("content")
    # Mistral and its like: [{"type": "thinking", "thinking": […]}, {"type": "text", "text": "…"}]
    for part in content if isinstance(content, list) else [content]:
        if isinstance(part, dict) and part.get("type") == "thinking":
            for thought in _texts(part.get("thinking")):
                yield from order.reasoning(thought)
        elif isinstance(part, dict) and not isinstance(part.get("text"), str) and "type" in part:
            yield from order.block(provider_block(WIRE, part))  # {"type": "reference", "reference_ids": […]}
        else:
            for text in _texts([part]):
                yield from order.text(text)
    refusal = delta.get("refusal")
    if refusal and isinstance(refusal, str):
        end.is_refusal = True
        yield from order.text(refusal)
    pieces = delta.get("tool_calls")
    if isinstance(pieces, list):
        for piece in pieces:
            if isinstance(piece, dict):
                yield from calls.take(piece)
    function = delta.get("function_call")  # what tool calls were before there were several
    if isinstance(function, dict):
        yield from calls.take({"index": "function_call", "function": function})
    for kind in PROVIDER_BLOCK_FIELDS:
        items = delta.get(kind)
        for item in items if isinstance(items, list) else [items]:
            if isinstance(item, dict):
                yield from order.block(provider_block(WIRE, item))


def _reasoning(delta: dict[str, Any], order: TurnOrder, end: ChatEnd) -> Iterator[StreamChunk]:
    """Reasoning in its three places, of which OpenRouter fills two with the same text."""
    text = string(delta.get("reasoning_content")) or string(delta.get("reasoning"))
    if text:
        end.plain_reasoning_length += len(text)
        yield from order.reasoning(text)
    details = delta.get("reasoning_details")
    # [{"type": "reasoning.text", "text": "…", "signature": "…"}, {"type": "reasoning.encrypted", "data": "…"}]
    for detail in details if isinstance(details, list) else ():
        if not isinstance(detail, dict):
            continue
        thought = string(detail.get("text")) or string(detail.get("summary"))
        signature = string(detail.get("signature"))
        if thought and text:
            end.has_both_reasonings = True
        elif thought and not end.repeats_reasoning(thought, signature):
            yield from order.reasoning(thought)
        if signature and signature != end.signature:
            end.signature = signature
            yield from order.end_reasoning(signature)
        hidden = string(detail.get("data"))
        if hidden:
            yield from order.block(RedactedReasoning(hidden))


def _texts(parts: Any) -> Iterator[str]:
    """The texts, none of them empty, of a string or of a list of strings and {"text": "…"}."""
    for part in parts if isinstance(parts, list) else [parts]:
        text = string(part.get("text") if isinstance(part, dict) else part)
        if text:
            yield text
