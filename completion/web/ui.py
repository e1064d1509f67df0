"""The UI message stream, which front ends with ``useChat`` (npm package ``ai``) read.

    TextDelta("Hi") -> data: {"type":"text-delta","id":"text-1","delta":"Hi"}

Wire: https://ai-sdk.dev/docs/ai-sdk-ui/stream-protocol, and uiMessageChunkSchema of ai 6.0 and 7.0 (read November 2026)

Text and reasoning are parts with a start, deltas and an end. We end a part before any other event starts. Content that
the protocol does not support is sent in ``providerMetadata`` under the name ``completion``, or as a part of the type
``data-provider-block``. The client sends it back with the next request, and ``ui_request`` reads it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Literal

from completion.contract.chunks import (
    FinishReason,
    ProviderBlockFinished,
    ReasoningDelta,
    ReasoningFinished,
    RedactedReasoning,
    StreamChunk,
    TextDelta,
    ToolCallArgsDelta,
    ToolCallFinished,
    ToolCallMalformed,
    ToolCallStarted,
    TurnFinished,
    Usage,
)
from completion.contract.messages import Base64Source, Block, ProviderBlock, TextBlock, UrlSource
from completion.contract.run import Abort, RunFinished, StepFinished, StepStarted, ToolResult
from completion.web.protocols import KEEP_ALIVE, ErrorInfo, json_bytes

METADATA = "completion"
"""Our name in a ``providerMetadata``: {"completion": {"signature": "…", "provider": "anthropic"}}, or ``redacted``."""

PROVIDER_BLOCK = "data-provider-block"

FINISH_REASONS = {
    FinishReason.END_TURN: "stop",
    FinishReason.STOP_SEQUENCE: "stop",
    FinishReason.TOOL_USE: "tool-calls",
    FinishReason.MAX_TOKENS: "length",
    FinishReason.CONTEXT_OVERFLOW: "length",
    FinishReason.CONTENT_FILTER: "content-filter",
    FinishReason.REFUSAL: "content-filter",
    FinishReason.PAUSE: "other",
    FinishReason.ABORTED: "other",
    FinishReason.OTHER: "other",
}

DONE = b"data: [DONE]\n\n"


class UiMessages:
    """Encodes a turn as a UI message with one step, or a run as a UI message with one step per turn.

    Each stream needs a new instance.

    Args:
        message_id: the id of the message at the client. None lets the client choose. Use None if the client continues
            a message, which it does after it has run a client-side tool: another id would show that message twice.
    """

    headers: ClassVar[dict[str, str]] = {"x-vercel-ai-ui-message-stream": "v1"}
    keep_alive: ClassVar[bytes] = KEEP_ALIVE

    def __init__(self, message_id: str | None = None) -> None:
        self._message_id = message_id
        self._open_kind: Literal["text", "reasoning"] | None = None
        self._part_count = 0
        self._part_id = ""
        self._delta_head = b""  # a delta event of the open part, up to its text
        self._source_urls: set[str] = set()  # sent already
        self._finished: TurnFinished | RunFinished | None = None
        self._is_in_step = False

    def begin(self) -> bytes:
        """The start of the message and of its first step."""
        message_id = {} if self._message_id is None else {"messageId": self._message_id}
        return _event({"type": "start", **message_id}) + self._start_step()

    def chunk(self, chunk: StreamChunk) -> bytes:
        """The events for one chunk; may be empty. A TurnFinished or RunFinished is kept for ``end()``."""
        if type(chunk) is TextDelta:
            return self._delta("text", chunk.delta)
        match chunk:
            case ReasoningDelta(delta):
                return self._delta("reasoning", delta)
            case ReasoningFinished(signature, provider):
                start = b"" if self._open_kind == "reasoning" else self._start_part("reasoning")
                return start + self._end_part(_metadata("signature", signature, provider))
            case RedactedReasoning(data, provider):
                return self._start_part("reasoning") + self._end_part(_metadata("redacted", data, provider))
            case ToolCallArgsDelta(call_id, delta):
                return _event({"type": "tool-input-delta", "toolCallId": call_id, "inputTextDelta": delta})
            case TurnFinished():
                self._finished = chunk
                return b""
            case RunFinished(pending=pending):
                self._finished = chunk
                return b"".join(_event(_approval_request(call.call_id)) for call in pending)
            case StepStarted():
                return self._start_step()
            case StepFinished():
                return self._finish_step()
        return self._end_part() + b"".join(map(_event, self._events_of(chunk)))

    def end(self) -> bytes:
        """The end of a complete stream, after its TurnFinished or RunFinished."""
        finish: dict[str, Any] = {"type": "finish"}
        if (finished := self._finished) is not None:
            finish |= {"finishReason": FINISH_REASONS[finished.reason], "messageMetadata": _metadata_of(finished)}
        return self._finish_step() + _event(finish) + DONE

    def failure(self, error: ErrorInfo) -> bytes:
        """The end of a stream that failed. The client shows the error and keeps the parts that it has received."""
        is_abort = error.type == "StreamCancelledError"
        event = {"type": "abort"} if is_abort else {"type": "error", "errorText": error.message}
        return self._end_part() + _event(event) + DONE

    def _start_step(self) -> bytes:
        """Nothing if a step is open: ``begin()`` has started the first step, and the run's StepStarted follows."""
        was_in_step, self._is_in_step = self._is_in_step, True
        return b"" if was_in_step else _event({"type": "start-step"})

    def _finish_step(self) -> bytes:
        was_in_step, self._is_in_step = self._is_in_step, False
        return self._end_part() + (_event({"type": "finish-step"}) if was_in_step else b"")

    def _delta(self, kind: Literal["text", "reasoning"], delta: str) -> bytes:
        """A delta, after the start of a part if none of this kind is open."""
        start = b"" if self._open_kind == kind else self._start_part(kind)
        # Put together from bytes, because encoding the whole event costs more, and nearly all chunks come here.
        return b"%b%b%b}\n\n" % (start, self._delta_head, json_bytes(delta))

    def _start_part(self, kind: Literal["text", "reasoning"]) -> bytes:
        end = self._end_part()
        self._part_count += 1
        self._open_kind, self._part_id = kind, f"{kind}-{self._part_count}"
        self._delta_head = f'data: {{"type":"{kind}-delta","id":"{self._part_id}","delta":'.encode()
        return end + _event({"type": f"{kind}-start", "id": self._part_id})

    def _end_part(self, metadata: dict[str, Any] | None = None) -> bytes:
        """The end of the open part; empty if no part is open."""
        kind, self._open_kind = self._open_kind, None
        return _event({"type": f"{kind}-end", "id": self._part_id, **(metadata or {})}) if kind else b""

    def _events_of(self, chunk: StreamChunk) -> Iterator[dict[str, Any]]:
        """The events of a chunk that is not part of a text or a reasoning."""
        match chunk:
            case ToolCallStarted(call_id, name):
                yield {"type": "tool-input-start", "toolCallId": call_id, "toolName": name}
            case ToolCallFinished(call_id, name, args, signature, provider):
                call = {"type": "tool-input-available", "toolCallId": call_id, "toolName": name, "input": args}
                yield {**call, **_metadata("signature", signature, provider)}
            case ToolCallMalformed(call_id, name, raw, error):
                call = {"type": "tool-input-error", "toolCallId": call_id, "toolName": name, "input": raw}
                yield {**call, "errorText": error}
            case ProviderBlockFinished(provider, data, citations):
                for citation in citations:
                    url = citation.url or ""
                    # A page shows the URL as a link, and a link such as ``javascript:`` would run code.
                    if url.startswith(("https://", "http://")) and url not in self._source_urls:
                        self._source_urls.add(url)
                        source = {"sourceId": url, "url": url, "title": citation.title or None}
                        yield {"type": "source-url", **_without_none(source)}
                image = ProviderBlock(provider, data).image
                match image and image.source:
                    case Base64Source(media_type, content):
                        yield {"type": "file", "mediaType": media_type, "url": f"data:{media_type};base64,{content}"}
                    case UrlSource(url) if url.startswith(("https://", "http://")):
                        yield {"type": "file", "mediaType": "image/*", "url": url}
                # Without an id: a client replaces a data part that has the same id, also one of an earlier step.
                yield {"type": PROVIDER_BLOCK, "data": {"provider": provider, "data": data}}
            case ToolResult(call_id=call_id, blocks=blocks, is_error=True):
                yield {"type": "tool-output-error", "toolCallId": call_id, "errorText": _output(blocks)}
            case ToolResult(call_id=call_id, blocks=blocks):
                yield {"type": "tool-output-available", "toolCallId": call_id, "output": _output(blocks)}


def _event(fields: dict[str, Any]) -> bytes:
    return b"data: %b\n\n" % json_bytes(fields)


def _approval_request(call_id: str) -> dict[str, Any]:
    """The client asks the user about this call. The id of the request is that of the call."""
    return {"type": "tool-approval-request", "approvalId": call_id, "toolCallId": call_id}


def _metadata(name: str, value: str | None, provider: str | None) -> dict[str, Any]:
    if value is None:
        return {}
    # Without ``wire_data``: a browser could change it, and it becomes fields of the request.
    return {"providerMetadata": {METADATA: {name: value, **({"provider": provider} if provider else {})}}}


def _output(blocks: tuple[Block, ...]) -> str:
    """The result of a tool as text; for a block that is not text, its type in brackets."""
    return "".join(block.text if isinstance(block, TextBlock) else f"[{type(block).__name__}]" for block in blocks)


def _metadata_of(finished: TurnFinished | RunFinished) -> dict[str, Any]:
    """The metadata of the message. Fields that are None are left out.

    Of a turn: {"reason": "end_turn", "usage": {"inputTokens": 9, …}, "responseId": "msg_1", …}
    Of a run: {"runId": "run_1", "reason": …, "usage": …, "abort": {"kind": "timeout", "message": "…"}}
    """
    usage = finished.usage and _fields_of(finished.usage)
    if isinstance(finished, RunFinished):
        abort = finished.abort and _fields_of(finished.abort)
        return _without_none({"runId": finished.run_id, "reason": finished.reason, "usage": usage, "abort": abort})
    return {**_fields_of(finished), **_without_none({"usage": usage})}


def _without_none(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _fields_of(record: TurnFinished | Usage | Abort) -> dict[str, Any]:
    return _without_none({_camel_case(name): getattr(record, name) for name in record.__slots__})


def _camel_case(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(word.capitalize() for word in rest)
