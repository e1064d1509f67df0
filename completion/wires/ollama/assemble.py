"""Lines of Ollama's native chat -> StreamChunks."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import Any

from completion.contract.chunks import StreamChunk, TextDelta, Usage
from completion.contract.errors import CompletionError, MalformedStreamError
from completion.wires import refusals
from completion.wires.arguments import arguments_text
from completion.wires.assembly import TurnReader
from completion.wires.json_values import has_surrogates, objects_in, positive_int, str_or_empty
from completion.wires.ollama.names import FINISH_REASONS, THINKING, USAGE_COUNTERS, WIRE
from completion.wires.tool_call import ToolCall

log = logging.getLogger(__name__)


class OllamaTurn(TurnReader):
    """A turn of Ollama's native chat. It ends with ``"done": true``."""

    truncated = 'the body ended without "done": true: the answer is not complete'
    finish_reasons = FINISH_REASONS

    def __init__(self) -> None:
        super().__init__(origin=WIRE)
        self._has_known_events = self._has_unknown_events = False

    def take(self, name: str, data: dict[str, Any]) -> Iterable[StreamChunk]:
        # The fast path: most lines are a piece of text.
        # {"model": "…", "created_at": "…", "message": {"role": "assistant", "content": "Hi"}, "done": false}
        message = data.get("message")
        order = self.order
        if (
            type(message) is dict
            and len(message) == 2
            and data.get("done") is False
            and order.can_yield_text_directly
            and "error" not in data
        ):
            text = message.get("content")
            if type(text) is str and text and not self.is_over and (text.isascii() or not has_surrogates(text)):
                order.text_length += len(text)
                return (TextDelta(text),)
        if data.get("error"):
            raise refusals.in_band(data)
        if type(message) is not dict and "done" not in data:
            if refusals.is_foreign_error(data):
                raise refusals.in_band(data)
            log.debug("skipped a line that is not part of a chat")
            self._has_unknown_events = True
            return ()
        self._has_known_events = True
        return self._line(message if type(message) is dict else {}, data)

    def unfinished(self) -> CompletionError:
        # The fast path only counts the text: it does not set _has_known_events.
        if self._has_unknown_events and not (self._has_known_events or self.order.text_length):
            return MalformedStreamError("no line is one of Ollama's chat: does base_url point at Ollama?")
        return super().unfinished()

    def _line(self, message: dict[str, Any], data: dict[str, Any]) -> Iterator[StreamChunk]:
        for chunk in self._content(message):
            if self.is_over:
                raise MalformedStreamError('the answer continues after "done": true')
            yield chunk
        if data.get("done") is True:
            self._read_end(data)

    def _content(self, message: dict[str, Any]) -> Iterator[StreamChunk]:
        order = self.order
        # Gateways in front of other servers keep the field of Chat Completions.
        fields = ("thinking", "reasoning_content", "reasoning")
        thinking = next(filter(None, (str_or_empty(message.get(field)) for field in fields)), "")
        if thinking:
            order.reasoning_data = {**THINKING}
            yield from order.reasoning(thinking)
        text = str_or_empty(message.get("content"))
        if text:
            yield from order.text(text)
        for call in objects_in(message.get("tool_calls")):
            # {"id": "call_1", "function": {"index": 0, "name": "f", "arguments": {"a": 1}}}; older servers send no id
            function = call.get("function")
            named = function if isinstance(function, dict) else {}
            whole = ToolCall(str_or_empty(call.get("id")), str_or_empty(named.get("name")))
            whole.add(arguments_text(named.get("arguments")))
            whole.close()
            yield from order.call(whole)

    def _read_end(self, data: dict[str, Any]) -> None:
        # {"model": "…", "done": true, "done_reason": "stop", "prompt_eval_count": 9, "eval_count": 12, …}
        summary = self.summary
        summary.provider_reason = str_or_empty(data.get("done_reason")) or summary.provider_reason
        summary.model = data.get("model") or summary.model
        if any(counter in data for counter in USAGE_COUNTERS):
            summary.last_usage = Usage(positive_int(data, "prompt_eval_count"), positive_int(data, "eval_count"))
        self.expect_nothing()


assemble = OllamaTurn.assemble
