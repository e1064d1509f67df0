"""Good answers on the wire: those that the kit has for known wires, and those that the author of an adapter gives.

answers_of(answer=…) -> Answers          word -> Answer: the events of a body
contents_of(chunks)                      what an answer says, however its text is cut into deltas
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from completion.contract.chunks import (
    FinishReason,
    ReasoningDelta,
    StreamChunk,
    TextDelta,
    ToolCallArgsDelta,
    ToolCallFinished,
    ToolCallMalformed,
    ToolCallStarted,
    TurnFinished,
    Usage,
)
from completion.testing.replies import Framing, Piece, Reply, Send, event

EVENT_STREAM = "text/event-stream"
NDJSON = "application/x-ndjson"

# The headers that a Reply makes itself.
_FRAMING_HEADERS = ("content-type", "transfer-encoding", "content-length", "connection")


ErrorEvent = Callable[[str], bytes]
"""Makes an error event with this message, as the provider sends it inside a 200."""


@dataclass(frozen=True)
class Answer:
    """The body of a good answer, cut into its events."""

    events: tuple[bytes, ...]
    content_type: str | None = EVENT_STREAM
    headers: Mapping[str, str] = field(default_factory=dict)
    # Only for the wires that the kit knows:
    contents: tuple[tuple[object, ...], ...] | None = None
    """What ``contents_of`` must return for its chunks."""
    usage: Usage | None = None
    end: int | None = None
    """The index of the event that ends the turn."""
    error: ErrorEvent | None = None
    """Makes an error event of this wire; an author can give it too."""

    @property
    def names_its_stream(self) -> bool:
        """The Content-Type says that the body is a stream of events."""
        return _is_sse(self.content_type) or _is_ndjson(self.content_type)

    def event(self, text: str) -> bytes:
        """The text as one event, framed as this wire frames its events."""
        return f"{text}\n".encode() if _is_ndjson(self.content_type) else event(text)

    def complete(
        self, *, split: int | None = None, framing: Framing = "chunked", before_headers: Iterable[Piece] = ()
    ) -> Reply:
        """The complete answer."""
        return Reply(
            *self.events,
            content_type=self.content_type,
            headers=self.headers,
            split=split,
            framing=framing,
            before_headers=before_headers,
        )

    def beginning(self, events: int, *then: Piece) -> Reply:
        """Its first events, and then other pieces; without them the body ends properly."""
        return Reply(*self.events[:events], *then, content_type=self.content_type, headers=self.headers)


Answers = Callable[[str], Answer]
"""Makes an answer that contains the given word. The answer of an author ignores the word."""


def answers_of(given: Reply | str | bytes | Iterable[bytes], error: ErrorEvent | None = None) -> Answers:
    """The answers for the arguments ``answer`` and ``error`` of ``check_completion_model``.

    Raises:
        TypeError: ``error`` is not a function, or the answer is one of the kit's own.
        ValueError: an unknown name of a wire, or an answer without events.
    """
    if error is not None and not callable(error):
        raise TypeError(
            f"error= must be a function from a message to the bytes of an event, got {type(error).__name__}"
        )
    if isinstance(given, str):
        if error is not None:
            raise TypeError(f"error= is for answers of your own; the kit knows the errors of {given!r}")
        if given not in KNOWN_WIRES:
            known = ", ".join(map(repr, sorted(KNOWN_WIRES)))
            raise ValueError(f"answer={given!r} is not a known wire: give {known}, a Reply or bytes")
        return KNOWN_WIRES[given]
    if isinstance(given, Reply):
        answer = _answer_of_reply(given)
    elif isinstance(given, bytes):
        answer = Answer(_events(given))
    else:
        answer = Answer(tuple(given))
    if not answer.events:
        raise ValueError("answer is empty: give at least one event")
    if answer.content_type == EVENT_STREAM and answer.events[0].lstrip()[:1] in (b"{", b"["):
        answer = replace(answer, events=_lines(b"".join(answer.events)), content_type=NDJSON)
    if error is not None:
        answer = replace(answer, error=error)
    return lambda word: answer


def _answer_of_reply(reply: Reply) -> Answer:
    """The events and headers of a Reply. Its steps (pauses and so on) are left out."""
    sent = [(action.framed, action.body_bytes) for action in reply.script if isinstance(action, Send)]
    head = next(framed for framed, _ in sent if framed.startswith(b"HTTP/"))
    lines = (line.partition(": ") for line in head.decode("latin-1").splitlines()[1:] if line)
    headers = {name: value for name, _, value in lines}
    lower = {name.lower(): value for name, value in headers.items()}
    is_chunked = "chunked" in lower.get("transfer-encoding", "")
    parts = [part for framed, size in sent if size for part in (_chunks(framed) if is_chunked else [framed])]
    content_type = lower.get("content-type")
    if _is_sse(content_type):
        parts = list(_events(b"".join(parts)))
    elif _is_ndjson(content_type):
        parts = list(_lines(b"".join(parts)))
    return Answer(
        tuple(parts),
        content_type,
        {name: value for name, value in headers.items() if name.lower() not in _FRAMING_HEADERS},
    )


def _chunks(framed: bytes) -> Iterable[bytes]:
    """The contents of HTTP chunks."""
    while framed and (size := int(framed[: (start := framed.index(b"\r\n") + 2)], 16)):
        yield framed[start : start + size]
        framed = framed[start + size + 2 :]


def _events(body: bytes) -> tuple[bytes, ...]:
    """The events of a body of server-sent events, each with the blank line that ends it."""
    return tuple(re.findall(rb".+?(?:\r?\n\r?\n|\Z)", body, re.DOTALL))


def _lines(body: bytes) -> tuple[bytes, ...]:
    """The events of a body of newline-delimited JSON, each with its line end."""
    return tuple(line for line in body.splitlines(keepends=True) if line.strip())


def _is_sse(content_type: str | None) -> bool:
    return EVENT_STREAM in (content_type or "").lower()


def _is_ndjson(content_type: str | None) -> bool:
    return any(word in (content_type or "").lower() for word in ("ndjson", "jsonl", "json-lines"))


def break_json(given: bytes) -> bytes | None:
    """The event with only the first half of its JSON; None if it contains no JSON."""
    start = given.find(b"{")
    end = len(given.rstrip())
    if start < 0 or end - start < 2:
        return None
    return given[: (start + end) // 2] + given[end:]


def contents_of(chunks: Iterable[StreamChunk]) -> list[tuple[object, ...]]:
    """What an answer says, however its text is cut into deltas.

    Call ids are left out, because an adapter may invent them; so is usage, because it may arrive late.
    """
    parts: list[tuple[object, ...]] = []
    for chunk in chunks:
        match chunk:
            case TextDelta(delta) | ReasoningDelta(delta):
                if parts and parts[-1][0] == chunk.type:
                    delta = f"{parts.pop()[1]}{delta}"
                parts.append((chunk.type, delta))
            case ToolCallStarted() | ToolCallArgsDelta():
                pass
            case ToolCallFinished(name=name, args=args):
                parts.append((chunk.type, name, args))
            case ToolCallMalformed(name=name, raw=raw):
                parts.append((chunk.type, name, raw))
            case TurnFinished(reason=reason):
                parts.append((chunk.type, str(reason)))
            case _:
                parts.append((type(chunk).__name__, chunk))
    return parts


def _answer(word: str, events: tuple[bytes, ...], end: int, error: ErrorEvent) -> Answer:
    """The answer of each known wire: text, a tool call, usage."""
    call = (ToolCallFinished.type, "get_weather", {"city": "Köln"})
    contents = ((TextDelta.type, f"Grüße 🙂 {word}"), call, (TurnFinished.type, str(FinishReason.TOOL_USE)))
    usage = Usage(input_tokens=12, output_tokens=9, cached_input_tokens=4)
    return Answer(events, contents=contents, usage=usage, end=end, error=error)


def _openai_chat(word: str) -> Answer:
    def chunk(delta: dict[str, Any], reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        return event({**of_all, "choices": [choice], "usage": None})

    def call(arguments: str, **start: Any) -> bytes:
        function = {**({"name": "get_weather"} if start else {}), "arguments": arguments}
        return chunk({"tool_calls": [{"index": 0, **start, "function": function}]})

    of_all = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "conformance-1"}
    usage = {
        "prompt_tokens": 12,
        "completion_tokens": 9,
        "total_tokens": 21,
        "prompt_tokens_details": {"cached_tokens": 4},
    }
    events = (
        chunk({"role": "assistant", "content": ""}),
        chunk({"content": "Grüße"}),
        chunk({"content": f" 🙂 {word}"}),
        call("", id="call_1", type="function"),
        call('{"city":'),
        call(' "Köln"}'),
        chunk({}, "tool_calls"),
        event({**of_all, "choices": [], "usage": usage}),
        event("[DONE]"),
    )

    def error(message: str) -> bytes:
        return event({"error": {"message": message, "type": "server_error", "code": 503}})

    return _answer(word, events, 6, error)


def _anthropic(word: str) -> Answer:
    def named(kind: str, **fields: Any) -> bytes:
        return event({"type": kind, **fields}, kind)

    def started(index: int, **block: Any) -> bytes:
        return named("content_block_start", index=index, content_block=block)

    def delta(index: int, kind: str, **fields: str) -> bytes:
        return named("content_block_delta", index=index, delta={"type": kind, **fields})

    message: dict[str, Any] = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "conformance-1",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 8, "cache_read_input_tokens": 4, "output_tokens": 1},
    }
    events = (
        named("message_start", message=message),
        started(0, type="text", text=""),
        delta(0, "text_delta", text="Grüße"),
        delta(0, "text_delta", text=f" 🙂 {word}"),
        named("content_block_stop", index=0),
        started(1, type="tool_use", id="toolu_1", name="get_weather", input={}),
        delta(1, "input_json_delta", partial_json='{"city":'),
        delta(1, "input_json_delta", partial_json=' "Köln"}'),
        named("content_block_stop", index=1),
        named("message_delta", delta={"stop_reason": "tool_use", "stop_sequence": None}, usage={"output_tokens": 9}),
        named("message_stop"),
    )

    def error(message: str) -> bytes:
        return named("error", error={"type": "overloaded_error", "message": message})

    return _answer(word, events, 9, error)


def _openai_responses(word: str) -> Answer:
    def named(kind: str, **fields: Any) -> bytes:
        return event({"type": f"response.{kind}", **fields}, f"response.{kind}")

    def delta(index: int, kind: str, text: str) -> bytes:
        return named(f"{kind}.delta", output_index=index, item_id=f"item_{index}", content_index=0, delta=text)

    message = {"id": "item_0", "type": "message", "role": "assistant", "content": []}
    call = {"id": "item_1", "type": "function_call", "call_id": "call_1", "name": "get_weather", "arguments": ""}
    of_all: dict[str, Any] = {"id": "resp_1", "object": "response", "model": "conformance-1", "output": []}
    usage = {"input_tokens": 12, "input_tokens_details": {"cached_tokens": 4}, "output_tokens": 9, "total_tokens": 21}
    text = {"type": "output_text", "text": f"Grüße 🙂 {word}", "annotations": []}
    arguments = '{"city": "Köln"}'
    events = (
        named("created", response={**of_all, "status": "in_progress"}),
        named("output_item.added", output_index=0, item=message),
        delta(0, "output_text", "Grüße"),
        delta(0, "output_text", f" 🙂 {word}"),
        named("output_item.done", output_index=0, item={**message, "content": [text]}),
        named("output_item.added", output_index=1, item=call),
        delta(1, "function_call_arguments", arguments[:8]),
        delta(1, "function_call_arguments", arguments[8:]),
        named("output_item.done", output_index=1, item={**call, "arguments": arguments}),
        named("completed", response={**of_all, "status": "completed", "usage": usage}),
    )

    def error(message: str) -> bytes:
        return event({"type": "error", "code": "server_error", "message": message, "param": None}, "error")

    return _answer(word, events, 9, error)


def _gemini(word: str) -> Answer:
    def chunk(*parts: dict[str, Any], **fields: Any) -> bytes:
        candidate = {"content": {"parts": list(parts), "role": "model"}, "index": 0, **fields}
        return event({"candidates": [candidate], "usageMetadata": {"promptTokenCount": 12}, **of_all})

    of_all = {"modelVersion": "conformance-1", "responseId": "response-1"}
    usage = {"promptTokenCount": 12, "candidatesTokenCount": 9, "totalTokenCount": 21, "cachedContentTokenCount": 4}
    last = {"content": {"parts": [{"text": ""}], "role": "model"}, "finishReason": "STOP", "index": 0}
    events = (
        chunk({"text": "Grüße"}),
        chunk({"text": f" 🙂 {word}"}),
        chunk({"functionCall": {"name": "get_weather", "args": {"city": "Köln"}}}),
        event({"candidates": [last], "usageMetadata": usage, **of_all}),
    )

    def error(message: str) -> bytes:
        return event({"error": {"code": 503, "message": message, "status": "UNAVAILABLE"}})

    return _answer(word, events, 3, error)


def _gemini_interactions(word: str) -> Answer:
    def named(kind: str, **fields: Any) -> bytes:
        return event({"event_type": kind, **fields}, kind)

    def delta(index: int, kind: str, **fields: str) -> bytes:
        return named("step.delta", index=index, delta={"type": kind, **fields})

    def last(**fields: Any) -> bytes:
        return named("interaction.completed", interaction={"id": "v1_1", "model": "conformance-1", **fields})

    call = {"type": "function_call", "id": "call1", "name": "get_weather", "arguments": {}}
    usage = {"total_input_tokens": 12, "total_output_tokens": 9, "total_cached_tokens": 4}
    events = (
        named("interaction.created", interaction={"id": "v1_1", "status": "in_progress", "model": "conformance-1"}),
        named("step.start", index=0, step={"type": "model_output"}),
        delta(0, "text", text="Grüße"),
        delta(0, "text", text=f" 🙂 {word}"),
        named("step.stop", index=0),
        named("step.start", index=1, step=call),
        delta(1, "arguments_delta", arguments='{"city":'),
        delta(1, "arguments_delta", arguments=' "Köln"}'),
        named("step.stop", index=1),
        last(status="requires_action", usage=usage),
        event("[DONE]", "done"),
    )

    def error(message: str) -> bytes:
        return named("error", error={"code": "overloaded", "message": message})

    return _answer(word, events, 9, error)


def _cohere(word: str) -> Answer:
    def named(kind: str, **fields: Any) -> bytes:
        return event({"type": kind, **fields}, kind)

    def part(kind: str, index: int, **message: Any) -> bytes:
        return named(kind, index=index, delta={"message": message})

    function = {"name": "get_weather", "arguments": ""}
    usage = {"tokens": {"input_tokens": 12, "output_tokens": 9}, "cached_tokens": 4}
    events = (
        named("message-start", id="message-1", delta={"message": {"role": "assistant", "content": []}}),
        part("content-start", 0, content={"type": "text", "text": ""}),
        part("content-delta", 0, content={"text": "Grüße"}),
        part("content-delta", 0, content={"text": f" 🙂 {word}"}),
        named("content-end", index=0),
        part("tool-call-start", 0, tool_calls={"id": "call_1", "type": "function", "function": function}),
        part("tool-call-delta", 0, tool_calls={"function": {"arguments": '{"city":'}}),
        part("tool-call-delta", 0, tool_calls={"function": {"arguments": ' "Köln"}'}}),
        named("tool-call-end", index=0),
        named("message-end", delta={"finish_reason": "TOOL_CALL", "usage": usage}),
    )

    def error(message: str) -> bytes:
        return named("message-end", delta={"finish_reason": "ERROR", "error": message})

    return _answer(word, events, 9, error)


def _ollama(word: str) -> Answer:
    def line(message: dict[str, Any], **fields: Any) -> bytes:
        of_all = {"model": "conformance-1", "created_at": "2026-11-29T00:00:00Z"}
        data = {**of_all, "message": {"role": "assistant", **message}, "done": False, **fields}
        return f"{json.dumps(data, ensure_ascii=False)}\n".encode()

    call = {"id": "call_1", "function": {"index": 0, "name": "get_weather", "arguments": {"city": "Köln"}}}
    usage = {"prompt_eval_count": 12, "eval_count": 9}
    events = (
        line({"content": "Grüße"}),
        line({"content": f" 🙂 {word}"}),
        line({"content": "", "tool_calls": [call]}),
        line({"content": ""}, done=True, done_reason="stop", **usage),
    )

    def error(message: str) -> bytes:
        return f"{json.dumps({'error': message})}\n".encode()

    answer = _answer(word, events, 3, error)
    return replace(answer, content_type=NDJSON, usage=Usage(input_tokens=12, output_tokens=9))


KNOWN_WIRES: Mapping[str, Answers] = {
    "anthropic": _anthropic,
    "cohere": _cohere,
    "gemini": _gemini,
    "gemini-interactions": _gemini_interactions,
    "ollama": _ollama,
    "openai-chat": _openai_chat,
    "openai-responses": _openai_responses,
}
