"""Events of streamGenerateContent -> StreamChunks."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import Any

from completion.contract.chunks import StreamChunk, TextDelta
from completion.contract.errors import CompletionError, MalformedStreamError
from completion.events import Events
from completion.wires import refusals
from completion.wires.assembly import TurnReader, assembled
from completion.wires.gemini.calls import FunctionCalls
from completion.wires.gemini.names import SIGNATURE, WIRE
from completion.wires.gemini.summary import GenerateSummary
from completion.wires.json_values import has_surrogates, objects_in, provider_block, str_or_empty
from completion.wires.wire import OnEndOfTurn

log = logging.getLogger(__name__)


class GenerateTurn(TurnReader):
    """A turn of generateContent. It ends with a ``finishReason``, or with a ``blockReason`` for the prompt."""

    truncated = "the body ended without a finishReason: the answer is not complete"

    def __init__(self) -> None:
        self._summary = GenerateSummary()
        super().__init__(self._summary, WIRE)
        self._pieces = self._summary.offsets.pieces  # of text that is not ASCII
        self._calls = FunctionCalls(self.order)
        self._in_unsigned_thought = False
        self._has_known_events = self._has_unknown_events = False

    def take(self, name: str, data: dict[str, Any]) -> Iterable[StreamChunk]:
        # {"candidates": [{"content": {"parts": [{"text": "Hi"}], "role": "model"}, "index": 0}], "usageMetadata": {…},
        #  "modelVersion": "…", "responseId": "…"}
        if "error" in data or name == "error":
            raise refusals.in_band(data)
        summary = self._summary
        candidate = _first_candidate(data.get("candidates"))
        if candidate is None:
            return self._take_without_candidate(data)
        self._has_known_events = True
        if self.is_over:
            summary.check_same_response(data)
        summary.read_response(data)
        summary.read_candidate(candidate)
        self.is_over = summary.provider_reason is not None
        if self.is_over and "usageMetadata" in data:
            self.expect_nothing()  # the wire has no event for the end: nothing is missing any more
        content = candidate.get("content")
        parts = content.get("parts") if type(content) is dict else None
        if type(parts) is not list:
            parts = objects_in(parts)
        if len(parts) == 1 and type(parts[0]) is dict and len(parts[0]) == 1 and self.order.can_yield_text_directly:
            # The fast path: most events are a piece of text.
            text = parts[0].get("text")
            if type(text) is str and text and (text.isascii() or self._can_yield_directly(text)):
                self.order.text_length += len(text)
                return (TextDelta(text),)
        return [chunk for part in parts for chunk in self._part(part)]

    def _take_without_candidate(self, data: dict[str, Any]) -> tuple[()]:
        # {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {…}}, or {"usageMetadata": {…}}
        feedback = data.get("promptFeedback")
        if isinstance(feedback, dict):
            self._summary.read_prompt_feedback(feedback)
            self.is_over = self._summary.provider_reason is not None
        if data.keys() & {"candidates", "promptFeedback", "usageMetadata", "responseId"}:
            self._has_known_events = True
            self._summary.read_response(data)
        elif refusals.is_foreign_error(data):
            raise refusals.in_band(data)
        else:
            log.debug("skipped an event of unknown shape")
            self._has_unknown_events = True
        return ()

    def unfinished(self) -> CompletionError:
        if self._has_unknown_events and not self._has_known_events and self._summary.response_id is None:
            return MalformedStreamError("no event is one of generateContent: does base_url point at Gemini?")
        return super().unfinished()

    def finish(self) -> Iterator[StreamChunk]:
        yield from self._calls.end(is_complete=self._summary.provider_reason == "STOP")
        yield from self.order.end()
        yield from self._summary.chunks(self.order.calls_finished)

    def _part(self, part: Any) -> list[StreamChunk]:
        if type(part) is not dict:
            log.debug("skipped a part that is not an object")
            return []
        signature = str_or_empty(part.get("thoughtSignature")) or None
        text = part.get("text")
        if part.get("thought") is True and isinstance(text, str):
            return self._thought(text, signature)
        call = part.get("functionCall")
        is_text = isinstance(text, str) or part.keys() <= {"thoughtSignature"}
        if is_text and not text and signature is None:
            return []
        if isinstance(call, dict):
            # {"functionCall": {"name": "f", "args": {}, "id": "…"}, "thoughtSignature": "…"}
            before = self._calls.started
            out = self._calls.take(call, signature)
            # One more piece of a call does not end the thought that came after the call's beginning.
            self._in_unsigned_thought = self._in_unsigned_thought and self._calls.started == before
            return out
        self._in_unsigned_thought = False
        if is_text:
            return self._text(str_or_empty(text), signature)
        # executableCode, codeExecutionResult, inlineData, fileData, toolCall, toolResponse, …
        return self.order.block(provider_block(WIRE, part))

    def _thought(self, text: str, signature: str | None) -> list[StreamChunk]:
        # {"text": "I should …", "thought": true, "thoughtSignature": "…"}
        if signature is None:
            self._in_unsigned_thought = self._in_unsigned_thought or bool(text)
            return self.order.reasoning(text)
        # A signature goes back with its own part, so the parts before it are a reasoning of their own.
        out = self.order.end_reasoning(None) if self._in_unsigned_thought else []
        self._in_unsigned_thought = False
        return [*out, *self.order.reasoning(text), *self.order.end_reasoning(signature)]

    def _can_yield_directly(self, text: str) -> bool:
        """A text that is not ASCII has no half of a surrogate pair. It is remembered: Gemini cites by bytes."""
        if has_surrogates(text):
            return False
        self._pieces.append((self.order.text_length, text))
        return True

    def _text(self, text: str, signature: str | None) -> list[StreamChunk]:
        if not text.isascii():
            self._pieces.append((self.order.text_length, text))
        if signature is None:
            return self.order.text(text)
        out = self.order.end_text()
        before = self.order.text_length
        out += self.order.text(text)
        out += self.order.end_text()
        length = self.order.text_length - before
        own = {"type": SIGNATURE, "thoughtSignature": signature, "length": length}
        return out + self.order.block(provider_block(WIRE, own))


def assemble(events: Events, on_end_of_turn: OnEndOfTurn = lambda seconds: None) -> Iterator[StreamChunk]:
    """The chunks of one turn."""
    return assembled(events, GenerateTurn(), on_end_of_turn)


def _first_candidate(candidates: Any) -> dict[str, Any] | None:
    """The candidate with index 0 or without one."""
    if type(candidates) is list:  # a loop: it runs for each chunk, and a generator costs more
        for candidate in candidates:
            if type(candidate) is dict and not candidate.get("index"):
                return candidate
        return None
    return next((candidate for candidate in objects_in(candidates) if not candidate.get("index")), None)
