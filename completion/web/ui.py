"""The UI message stream: what front ends with ``useChat``, of the npm package ``ai``, read.

    TextDelta("Hi") -> data: {"type":"text-delta","id":"text-1","delta":"Hi"}

Wire: https://ai-sdk.dev/docs/ai-sdk-ui/stream-protocol, and uiMessageChunkSchema of ai 6.0 and 7.0 (read November 2026)

Text and reasoning are parts with a beginning, deltas and an end; one part is over before anything else begins. What the
protocol has no word for travels in ``providerMetadata`` under the name ``completion`` or as a part of type
``data-provider-block``, and comes back with the next request: ``ui_request`` reads it.
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
from completion.contract.messages import Block, TextBlock
from completion.contract.run import Abort, RunFinished, StepFinished, StepStarted, ToolResult
from completion.web.protocols import KEEP_ALIVE, ErrorInfo, json_bytes

METADATA = "completion"
"""Our name in a ``providerMetadata``: {"completion": {"signature": "…"}} or {"completion": {"redacted": "…"}}."""

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
    """One turn as one step of a UI message, or a run with its turns as steps; one instance a stream.

    Args:
        message_id: the id that the message is to have at the client. None lets the client choose, and is also right
            where it goes on with a message that it has, as it does when it ran a tool: another id would make that
            message appear twice.
    """

    headers: ClassVar[dict[str, str]] = {"x-vercel-ai-ui-message-stream": "v1"}
    keep_alive: ClassVar[bytes] = KEEP_ALIVE

    def __init__(self, message_id: str | None = None) -> None:
        self._message_id = message_id
        self._open: Literal["text", "reasoning"] | None = None
        self._parts = 0
        self._part_id = ""
        self._delta = b""  # an event with more of the open part, up to its text
        self._sources: set[str] = set()
        self._ending: TurnFinished | RunFinished | None = None
        self._is_in_step = False

    def begin(self) -> bytes:
        """The beginning of the message and of its step."""
        own = {} if self._message_id is None else {"messageId": self._message_id}
        return _event({"type": "start", **own}) + self._start_step()

    def piece(self, chunk: StreamChunk) -> bytes:
        """The events for one chunk, perhaps none. A TurnFinished is kept for ``end()``."""
        if type(chunk) is TextDelta:
            return self._flow("text", chunk.delta)
        match chunk:
            case ReasoningDelta(delta):
                return self._flow("reasoning", delta)
            case ReasoningFinished(signature):
                begun = b"" if self._open == "reasoning" else self._start("reasoning")
                return begun + self._close(_metadata("signature", signature))
            case RedactedReasoning(data):
                return self._start("reasoning") + self._close(_metadata("redacted", data))
            case ToolCallArgsDelta(call_id, delta):
                return _event({"type": "tool-input-delta", "toolCallId": call_id, "inputTextDelta": delta})
            case TurnFinished() | RunFinished():
                self._ending = chunk
                return b""
            case StepStarted():
                return self._start_step()
            case StepFinished():
                return self._finish_step()
        return self._close() + b"".join(map(_event, self._whole(chunk)))

    def end(self) -> bytes:
        """The good end, after the TurnFinished."""
        finish: dict[str, Any] = {"type": "finish"}
        if (ending := self._ending) is not None:
            finish |= {"finishReason": FINISH_REASONS[ending.reason], "messageMetadata": _metadata_of(ending)}
        return self._finish_step() + _event(finish) + DONE

    def failure(self, error: ErrorInfo) -> bytes:
        """The end of a stream that broke: the client shows the error and keeps what it has."""
        is_abort = error.type == "StreamCancelledError"
        event = {"type": "abort"} if is_abort else {"type": "error", "errorText": error.message}
        return self._close() + _event(event) + DONE

    def _start_step(self) -> bytes:
        """The first step begins with the message."""
        was_in_step, self._is_in_step = self._is_in_step, True
        return b"" if was_in_step else _event({"type": "start-step"})

    def _finish_step(self) -> bytes:
        was_in_step, self._is_in_step = self._is_in_step, False
        return self._close() + (_event({"type": "finish-step"}) if was_in_step else b"")

    def _flow(self, kind: Literal["text", "reasoning"], delta: str) -> bytes:
        begun = b"" if self._open == kind else self._start(kind)
        return b"%b%b%b}\n\n" % (begun, self._delta, json_bytes(delta))

    def _start(self, kind: Literal["text", "reasoning"]) -> bytes:
        closed = self._close()
        self._parts += 1
        self._open, self._part_id = kind, f"{kind}-{self._parts}"
        self._delta = f'data: {{"type":"{kind}-delta","id":"{self._part_id}","delta":'.encode()
        return closed + _event({"type": f"{kind}-start", "id": self._part_id})

    def _close(self, metadata: dict[str, Any] | None = None) -> bytes:
        """The end of the open part, if there is one."""
        kind, self._open = self._open, None
        return _event({"type": f"{kind}-end", "id": self._part_id, **(metadata or {})}) if kind else b""

    def _whole(self, chunk: StreamChunk) -> Iterator[dict[str, Any]]:
        match chunk:
            case ToolCallStarted(call_id, name):
                yield {"type": "tool-input-start", "toolCallId": call_id, "toolName": name}
            case ToolCallFinished(call_id, name, args, signature):
                call = {"type": "tool-input-available", "toolCallId": call_id, "toolName": name, "input": args}
                yield {**call, **_metadata("signature", signature)}
            case ToolCallMalformed(call_id, name, raw, error):
                call = {"type": "tool-input-error", "toolCallId": call_id, "toolName": name, "input": raw}
                yield {**call, "errorText": error}
            case ProviderBlockFinished(provider, data):
                for url, title in _cited(data):
                    if url not in self._sources:
                        self._sources.add(url)
                        yield {"type": "source-url", "sourceId": url, "url": url, **({"title": title} if title else {})}
                # It has no id: one that came before, in an earlier step of this message, would be overwritten.
                yield {"type": PROVIDER_BLOCK, "data": {"provider": provider, "data": data}}
            case ToolResult(call_id=call_id, blocks=blocks, is_error=True):
                yield {"type": "tool-output-error", "toolCallId": call_id, "errorText": _output(blocks)}
            case ToolResult(call_id=call_id, blocks=blocks):
                yield {"type": "tool-output-available", "toolCallId": call_id, "output": _output(blocks)}


def _event(fields: dict[str, Any]) -> bytes:
    return b"data: %b\n\n" % json_bytes(fields)


def _metadata(name: str, value: str | None) -> dict[str, Any]:
    return {} if value is None else {"providerMetadata": {METADATA: {name: value}}}


def _output(blocks: tuple[Block, ...]) -> str:
    """The result of a tool as text; what is none is named."""
    return "".join(block.text if isinstance(block, TextBlock) else f"[{type(block).__name__}]" for block in blocks)


def _metadata_of(end: TurnFinished | RunFinished) -> dict[str, Any]:
    """What is known of a turn: {"reason": "end_turn", "usage": {"inputTokens": 9, …}, "responseId": "msg_1", …}; and of
    a run: {"runId": "run_1", "abort": {"kind": "timeout", "message": "…"}, …}."""
    usage = end.usage and _told(end.usage)
    if isinstance(end, RunFinished):
        abort = end.abort and _told(end.abort)
        return _known({"runId": end.run_id, "reason": end.reason, "usage": usage, "abort": abort})
    return {**_told(end), **_known({"usage": usage})}


def _known(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _told(record: TurnFinished | Usage | Abort) -> dict[str, Any]:
    return _known({_camel_case(name): getattr(record, name) for name in record.__slots__})


def _camel_case(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(word.capitalize() for word in rest)


def _cited(data: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """URL and title of what a block cites. Others than http ones are no links to show to anybody."""
    # Anthropic: {"type": "citations", "citations": [{"url": "…", "title": "…", "cited_text": "…"}]}
    # Chat Completions: {"type": "url_citation", "url_citation": {"url": "…", "title": "…"}}
    # Perplexity, xAI: {"search_results": [{"url": "…", "title": "…"}], "citations": ["https://…"]}
    found = [data.get("url_citation")]
    for name in ("search_results", "citations"):
        found += items if isinstance(items := data.get(name), list) else []
    for item in found:
        source = item if isinstance(item, dict) else {"url": item}
        url, title = source.get("url"), source.get("title")
        if isinstance(url, str) and url.startswith(("https://", "http://")):
            yield url, title if isinstance(title, str) else ""
