"""Events of Chat Completions -> StreamChunks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from completion.contract.chunks import StreamChunk, TextDelta
from completion.events import Events
from completion.wires import refusals
from completion.wires.assembly import TurnReader, assembled
from completion.wires.json_values import has_surrogates, objects_in, provider_block, str_or_empty
from completion.wires.openai_chat.calls import Calls
from completion.wires.openai_chat.names import PROVIDER_BLOCK_FIELDS, REASONING_PARTS, WIRE
from completion.wires.openai_chat.reasoning import CONTENT, ReasoningReader
from completion.wires.openai_chat.sources import citations_of
from completion.wires.openai_chat.summary import ChatSummary
from completion.wires.wire import OnEndOfTurn


class ChatTurn(TurnReader):
    """A turn of Chat Completions.

    It ends with a ``finish_reason`` or with ``[DONE]``: some servers omit one of the two.
    """

    truncated = "the body ended without finish_reason and without [DONE]: the answer is not complete"

    def __init__(self, origin: str | None = None) -> None:
        self._summary = ChatSummary()
        super().__init__(self._summary, origin)
        self._calls = Calls(self.order)
        self._reasoning = ReasoningReader(self.order)
        # The spoken answer. Its data is a list, because each piece has its own padding.
        self._audio: dict[str, Any] = {}

    def take(self, name: str, data: dict[str, Any]) -> Iterable[StreamChunk]:
        # {"id": "…", "choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": null}], "usage": null}
        # {"error": {…}} alone or beside choices; {"object": "error", …}; Groq names the event "error"
        if name == "error" or "error" in data or not data.get("choices"):
            _raise_if_error(data, name)
        summary = self._summary
        choice = summary.first_choice(data)
        summary.read_response_fields(data, choice)
        if choice is None:
            return ()
        delta = choice.get("delta")
        if delta:
            summary.has_delta = True
        elif not summary.has_delta:
            # The whole answer in one chunk. After deltas it is not read: MiniMax repeats the answer there.
            delta = choice.get("message") or _completion(choice)
        if type(delta) is not dict:
            delta = {}
        # The fast path: most chunks are a piece of text and nothing else.
        text = delta.get("content")
        if (
            type(text) is str
            and self.order.can_yield_text_directly
            and not (self.is_over or choice.get("finish_reason") or "error" in choice)
            and (len(delta) == 1 or _is_plain(delta))
            and (text.isascii() or not has_surrogates(text))
        ):
            return (TextDelta(text),) if text else ()  # order.text_length is not counted: this wire does not use it
        return self._take_all(data, choice, delta)

    def _take_all(self, data: dict[str, Any], choice: dict[str, Any], delta: dict[str, Any]) -> Iterator[StreamChunk]:
        """The chunks of an event that may be more than a piece of text."""
        summary = self._summary
        if delta:
            if summary.provider_reason is not None:
                summary.check_no_second_answer(data, delta)
            yield from self._delta_chunks(delta)
        reason = choice.get("finish_reason")
        if (reason and reason != "null") or "error" in choice:
            summary.read_finish_reason(reason, data, choice)
        if summary.provider_reason is not None:
            self.is_over = True

    def done(self) -> None:
        self.is_over = True

    def finish(self) -> Iterator[StreamChunk]:
        yield from self.order.end()
        yield from self._calls.custom_blocks()
        if self._audio:
            yield provider_block(WIRE, {"type": "audio", "audio": self._audio})  # its text is in the turn already
        yield from self._summary.chunks(self.order.calls_finished)

    def _delta_chunks(self, delta: dict[str, Any]) -> Iterator[StreamChunk]:
        """The chunks of everything that a delta contains."""
        order = self.order
        yield from self._reasoning.take(delta)
        content = delta.get("content")
        if self._reasoning.is_thought(delta) and isinstance(content, str):
            yield from self._reasoning.add_thought(content)
        else:
            for part in content if isinstance(content, list) else [content]:
                yield from self._part_chunks(part)
        yield from self._refusal_chunks(delta.get("refusal"))
        yield from self._audio_chunks(delta.get("audio"))
        for piece in objects_in(delta.get("tool_calls")):
            yield from self._calls.take(piece)
        function = delta.get("function_call")  # the older form, for one call only
        if isinstance(function, dict) and not delta.get("tool_calls"):  # some gateways send both forms
            yield from self._calls.take({"index": "function_call", "function": function})
        for kind in PROVIDER_BLOCK_FIELDS:
            items = delta.get(kind)
            for item in items if isinstance(items, list) else [items]:
                if isinstance(item, dict):
                    yield from order.block(provider_block(WIRE, item, citations_of(item)))

    def _part_chunks(self, part: Any) -> Iterator[StreamChunk]:
        """The chunks of the content, or of one part of it."""
        # Mistral and others: [{"type": "thinking", "thinking": […]}, {"type": "text", "text": "…"}]
        kind = part.get("type") if isinstance(part, dict) else None
        if kind in REASONING_PARTS:
            # The form of Databricks ("summary") is not sent back: the history has that of Mistral.
            field = "" if kind == "reasoning" and "summary" in part else CONTENT
            for name in REASONING_PARTS[kind]:
                for text in _texts(part.get(name)):
                    yield from self._reasoning.add(text, field)
        elif kind == "refusal":
            yield from self._refusal_chunks(part.get("refusal"))
        elif kind is not None and not isinstance(part.get("text"), str):
            yield from self.order.block(provider_block(WIRE, part))  # {"type": "reference", "reference_ids": […]}
        else:
            for text in _texts([part]):
                yield from self.order.text(self._reasoning.without_end_of_thought(text))

    def _refusal_chunks(self, refusal: Any) -> Iterator[StreamChunk]:
        if refusal and isinstance(refusal, str):
            self._summary.is_refusal = True
            yield from self.order.text(refusal)

    def _audio_chunks(self, audio: Any) -> Iterator[StreamChunk]:
        """The chunks of a piece of a spoken answer: its transcript is text."""
        # {"id": "audio_1", "transcript": "Hel", "data": "<base64>", "expires_at": 1729018505}
        if isinstance(audio, dict):
            if audio.get("id"):
                self._audio["id"] = audio["id"]
            if audio.get("data"):
                self._audio.setdefault("data", []).append(audio["data"])
            transcript = str_or_empty(audio.get("transcript"))
            if transcript:
                yield from self.order.text(transcript)


def assemble(
    events: Events, on_end_of_turn: OnEndOfTurn = lambda seconds: None, *, origin: str | None = None
) -> Iterator[StreamChunk]:
    """The chunks of one turn. ``origin``: the ``provider`` of its signatures."""
    return assembled(events, ChatTurn(origin), on_end_of_turn)


def _completion(choice: dict[str, Any]) -> dict[str, Any] | None:
    """The delta of an older server, whose choices are those of the Completions API: {"text": "Hi"}."""
    text = choice.get("text")
    return {"content": text} if text and isinstance(text, str) else None


def _is_plain(delta: dict[str, Any]) -> bool:
    """The delta contains nothing but content. Many servers send the other fields too, null or empty."""
    for key, value in delta.items():  # noqa: SIM110  any() takes three times as long
        if value and key not in ("content", "role"):
            return False
    return True


def _raise_if_error(data: dict[str, Any], name: str) -> None:
    """Raise ProviderError for an event that is an error instead of a chunk, in any of the known shapes."""
    error = data.get("error")
    if error or name == "error" or data.get("object") == "error":
        raise refusals.in_band(data)
    if data.get("choices") is not None or data.get("usage") or "chat.completion" in str_or_empty(data.get("object")):
        return
    # FastAPI, Snowflake: {"detail": "…"}, {"code": "399505", "message": "…"}. A message that is an object is Ollama's.
    has_words = refusals.has_words_of_error({**data, "message": str_or_empty(data.get("message"))})
    if error is not None or has_words or refusals.is_error(data):
        raise refusals.in_band(data)


def _texts(parts: Any) -> Iterator[str]:
    """The texts of a string, or of a list of strings and {"text": "…"}; empty ones are skipped."""
    for part in parts if isinstance(parts, list) else [parts]:
        text = str_or_empty(part.get("text") if isinstance(part, dict) else part)
        if text:
            yield text
