"""Anthropic Messages.

    ChatRequest -> lower -> POST {base_url}/v1/messages -> assemble -> StreamChunk

Wire: https://platform.claude.com/docs/en/build-with-claude/streaming and /docs/en/api/messages (read November 2026)
"""

from __future__ import annotations

import base64
import json
import logging
import math
import os
import re
import sys
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar

from completion.adapters.endpoint import (
    FOR_NOTHING,
    FOR_USAGE,
    Endpoint,
    Events,
    HttpClient,
    HttpModel,
    Options,
    TurnOver,
    Wait,
)
from completion.contract.chunks import (
    FinishReason,
    RedactedReasoning,
    StreamChunk,
    TextDelta,
    TurnFinished,
    Usage,
)
from completion.contract.errors import MalformedStreamError, TransportError, TruncatedStreamError
from completion.contract.frames import secretive
from completion.contract.messages import (
    Base64Source,
    Block,
    CacheControl,
    DocumentBlock,
    FileSource,
    ImageBlock,
    Message,
    ProviderBlock,
    ReasoningBlock,
    RedactedReasoningBlock,
    TextBlock,
    ToolCallBlock,
    ToolResultBlock,
    UrlSource,
    sendable,
)
from completion.contract.request import ChatRequest, JsonSchema, ToolChoice, ToolDefinition
from completion.contract.stream import ChatStream, opening
from completion.events.sse import DONE, MAX_EVENT_BYTES
from completion.transport import Session, Timeout
from completion.transport.credentials import ApiKey, Key
from completion.wires import refusals as classify
from completion.wires.lowering import (
    cache_wishes,
    effort_word,
    require_request,
    system_text,
    unsupported,
    with_additional,
)
from completion.wires.turn_order import (
    Line,
    ToolCall,
    count,
    finish_reason,
    has_halves,
    is_too_deep,
    joined_halves,
    parse_args,
    provider_block,
    string,
)

if sys.version_info >= (3, 11):
    from typing import Unpack
elif TYPE_CHECKING:
    from typing_extensions import Unpack

log = logging.getLogger(__name__)

# --- names -----------------------------------------------------------------------------------------------------

WIRE = "anthropic"
BASE_URL = "https://api.anthropic.com"
PATH = "/v1/messages"

VERSION = "2023-06-01"
NO_SAMPLING_SINCE = "2026-10-21"
"""The API version from which on temperature, top_p and top_k are refused, whatever their value."""

FINISH_REASONS = {
    "end_turn": FinishReason.END_TURN,
    "tool_use": FinishReason.TOOL_USE,
    "max_tokens": FinishReason.MAX_TOKENS,
    "stop_sequence": FinishReason.STOP_SEQUENCE,
    "refusal": FinishReason.REFUSAL,
    "pause_turn": FinishReason.PAUSE,
    "model_context_window_exceeded": FinishReason.CONTEXT_OVERFLOW,
}

SAMPLING = ("temperature", "top_p", "top_k")
IMAGE_TYPES = ("image/jpeg", "image/png", "image/gif", "image/webp")
MAX_BREAKPOINTS = 4
FAILED = "Error"  # what a failure says that came without words, which the API refuses
_LEAST_WHILE_THINKING = {"temperature": 1, "top_p": 0.95}

# Tokens to think with, for models that take a budget: up to 4.6. From 4.6 on they take an effort, too, and from 4.7
# on nothing else.
BUDGETS = {"minimal": 0, "low": 1024, "medium": 4096, "high": 16384}
LEAST_BUDGET = 1024
ADAPTIVE_SINCE = (4, 6)
ADAPTIVE_ONLY_SINCE = (4, 7)
NEWEST = (99, 0)

# Blocks of our own making in a history: what belongs to a block or a message of the wire, and has no place in ours.
#   {"type": "citations", "citations": […], "length": 17}     of the last 17 characters of the text before it
#   {"type": "caller", "tool_use_id": "toolu_1", "caller": {…}}      and what else stands in a call
#   {"type": "message", "container": {…}, "stop_details": {…}, "context_management": {…}}
CITATIONS, CALLER, MESSAGE = "citations", "caller", "message"
_OF_A_CALL = ("type", "id", "name", "input")
_BESIDE_CONTENT = ("container", "stop_details", "context_management")
_COUNTERS = ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")

# --- the model -------------------------------------------------------------------------------------------------


class AnthropicClient(HttpClient):
    """An account at Anthropic, or at a compatible server through ``base_url``.

    Args:
        api_key: a key, or a function asked before each request; None reads ``ANTHROPIC_API_KEY``.
        base_url: None reads ``ANTHROPIC_BASE_URL``, else Anthropic's own.
        version: of the API. From ``2026-10-21`` on it takes no temperature, top_p and top_k.
        betas: names of features in beta, such as ``files-api-2025-04-14``.
        timeout, session, headers, max_event_bytes: as for OpenAIClient.
    """

    name: ClassVar[str] = "anthropic"
    key_variable: ClassVar[str] = "ANTHROPIC_API_KEY"

    @secretive
    def __init__(
        self,
        *,
        api_key: Key | None = None,
        base_url: str | None = None,
        version: str = VERSION,
        betas: Sequence[str] = (),
        timeout: Wait = Timeout(),  # noqa: B008  immutable
        session: Session | None = None,
        headers: Mapping[str, str] | None = None,
        max_event_bytes: int = MAX_EVENT_BYTES,
    ) -> None:
        if isinstance(betas, str):
            raise TypeError(f"betas takes a list of strings; write [{betas!r}]")
        base_url = base_url or os.environ.get("ANTHROPIC_BASE_URL") or BASE_URL
        given = {name.lower(): value for name, value in (headers or {}).items()}
        self._version = given.pop("anthropic-version", version)
        self._betas = (*(betas or ()), *filter(None, re.split(r"\s*,\s*", given.pop("anthropic-beta", ""))))
        if not isinstance(self._version, str) or not self._version:
            raise TypeError(f"version must be a string like {VERSION!r}, got {version!r}")
        own = {"anthropic-version": self._version}
        if self._betas:
            own["anthropic-beta"] = ",".join(self._betas)
        self._endpoint = Endpoint(
            provider=self.name,
            base_url=base_url.rstrip("/").removesuffix("/v1"),
            key=ApiKey(api_key, self.key_variable, header="x-api-key", prefix=""),
            timeout=timeout,
            headers={**own, **given},
            session=session,
            request_id_headers=("request-id", "x-request-id"),
            max_event_bytes=max_event_bytes,
        )

    def completion_model(self, model_id: str) -> AnthropicModel:
        """A handle on one model; all handles of this client share its connections."""
        return AnthropicModel(model_id, client=self)


class AnthropicOptions(Options, total=False):
    version: str
    betas: Sequence[str]


class AnthropicModel(HttpModel):
    """A model behind Anthropic Messages. Takes the options of AnthropicClient, or a ``client`` to share."""

    name: ClassVar[str] = AnthropicClient.name
    key_variable: ClassVar[str] = AnthropicClient.key_variable
    client_class = AnthropicClient
    _client: AnthropicClient

    @secretive
    def __init__(
        self, model: str, *, client: AnthropicClient | None = None, **options: Unpack[AnthropicOptions]
    ) -> None:
        super().__init__(model, client, options)

    @opening
    def chat_stream(self, req: ChatRequest) -> ChatStream:
        """The answer as a stream.

        Raises:
            CompletionError: whatever keeps the stream from opening.
        """
        client = self._client
        payload, dropped = lower(req, self.model, version=client._version, betas=client._betas)
        return client._endpoint.stream(PATH, payload, assemble, model=self.model, dropped=dropped)


# --- lower: ChatRequest -> the JSON body -------------------------------------------------------------------------


def lower(
    req: ChatRequest, model: str, *, version: str = VERSION, betas: Sequence[str] = (), adapter: str = "anthropic"
) -> tuple[dict[str, Any], list[str]]:
    """The JSON body, and the names of the fields that were left out because they state a preference only.

    Raises:
        UnsupportedContentError: a part that would change the answer cannot be said, or the API is known to refuse it.
    """
    require_request(req, adapter)
    thinking, effort = _thinking(req.reasoning_effort, _version_of(model))
    output_config = {"effort": effort, "format": _format(req.response_format, adapter)}
    optional = {
        "system": _system(req),
        "tools": [_tool(tool) for tool in req.tools] or None,
        "tool_choice": _tool_choice(req),
        **{name: getattr(req, name) for name in SAMPLING},
        "stop_sequences": list(req.stop_sequences) or None,
        "thinking": thinking,
        "output_config": _without_none(output_config) or None,
        "container": _container(req.messages),
    }
    payload = {
        "model": model,
        # What the model thinks counts as output: the budget comes on top of what it may say.
        "max_tokens": req.max_tokens + (thinking or {}).get("budget_tokens", 0),
        "messages": _messages(req, adapter),
        "stream": True,
        **_without_none(optional),
    }
    dropped = ["seed"] if req.seed is not None else []
    if _breakpoints(payload) < cache_wishes(req):
        dropped.append("cache_control")
    body = with_additional(payload, req, adapter)
    _check(body, version, betas, adapter)
    return body, dropped


def _without_none(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _version_of(model: str) -> tuple[int, int] | None:
    """The version in a model id: (4, 6) of claude-opus-4-6-20260205. Of a Claude that names none the newest there is,
    of another's model None."""
    # claude-3-7-sonnet-20250219, claude-sonnet-4-20250514, anthropic.claude-opus-4-6-v1, claude-opus-4.7, claude-opus-5
    found = re.search(r"claude-(?:[a-z]+-)*(\d{1,2})(?:[-.](\d{1,2}))?(?!\d)", model.lower())
    if found:
        return int(found[1]), int(found[2] or 0)
    return NEWEST if "claude" in model.lower() else None


def _thinking(effort: str | int | None, version: tuple[int, int] | None) -> tuple[dict[str, Any] | None, str | None]:
    """What to send as ``thinking`` and as ``output_config.effort``."""
    if effort is None:
        return None, None
    effort = effort or "minimal"
    adaptive_since = ADAPTIVE_SINCE if isinstance(effort, str) else ADAPTIVE_ONLY_SINCE
    is_adaptive = version is not None and version >= adaptive_since
    if not is_adaptive:
        budget = BUDGETS[effort] if isinstance(effort, str) else effort
        if not budget:
            return {"type": "disabled"}, None
        return {"type": "enabled", "budget_tokens": max(budget, LEAST_BUDGET)}, None
    if effort == "minimal":  # without being asked to it does not think, and some cannot be told not to
        return None, "low"
    if isinstance(effort, int):
        effort = effort_word(effort)
    return {"type": "adaptive"}, effort


def _format(wanted: JsonSchema | str | None, adapter: str) -> dict[str, Any] | None:
    if wanted is None:
        return None
    if isinstance(wanted, JsonSchema):
        return {"type": "json_schema", "schema": wanted.schema}
    raise unsupported(adapter, "response_format='json'", "this wire takes a schema: give a JsonSchema")


def _system(req: ChatRequest) -> Any:
    """A string, or blocks when one of them is to be cached."""
    if not isinstance(req.system_prompt, tuple) or not any(block.cache_control for block in req.system_prompt):
        text = system_text(req)
        return text if text.strip() else None
    said = [block for block in req.system_prompt if block.text.strip()]
    return [_cached({"type": "text", "text": block.text}, block.cache_control) for block in said] or None


def _tool(tool: ToolDefinition) -> dict[str, Any]:
    fields = {
        "name": tool.name,
        "description": tool.description or None,
        "input_schema": {"type": "object", **tool.input_schema},  # it has to be said, also of a tool without input
        "strict": tool.strict,
    }
    return _cached(_without_none(fields), tool.cache_control)


def _tool_choice(req: ChatRequest) -> dict[str, Any] | None:
    choice = req.tool_choice
    has_tools = req.tools or (req.additional_params or {}).get("tools")  # those that the server runs
    if not has_tools or (choice is None and req.parallel_tool_use is None):
        return None
    choice = choice or ToolChoice.auto()
    lowered: dict[str, Any] = {"type": choice.kind}
    if choice.name is not None:
        lowered["name"] = choice.name
    if req.parallel_tool_use is not None and choice.kind != "none":
        lowered["disable_parallel_tool_use"] = not req.parallel_tool_use
    return lowered


def _cached(block: dict[str, Any], wish: CacheControl | None) -> dict[str, Any]:
    """The block with the wish that the prompt up to it be cached."""
    if wish is None:
        return block
    ttl = {} if wish.ttl == "5m" else {"ttl": wish.ttl}
    return {**block, "cache_control": {"type": "ephemeral", **ttl}}


def _messages(req: ChatRequest, adapter: str) -> list[dict[str, Any]]:
    lowered: list[dict[str, Any]] = []
    for sent in sendable(req.messages):
        content = _assistant(sent, adapter) if sent.role == "assistant" else _parts(sent.blocks, adapter)
        if not content:
            continue
        if lowered and lowered[-1]["role"] == sent.role:  # nothing was left of what stood between them
            lowered[-1]["content"] += content
        else:
            lowered.append({"role": sent.role, "content": content})
    if not lowered:
        raise unsupported(adapter, "messages", "there is nothing in them to send")
    for message in lowered:
        if message["role"] == "user":  # the API wants the results of tools before anything else
            message["content"].sort(key=lambda block: block.get("type") != "tool_result")
    last = lowered[-1]["content"][-1]
    if lowered[-1]["role"] == "assistant" and last.get("type") == "text":  # to be continued; it refuses a space there
        lowered[-1]["content"][-1] = {**last, "text": string(last.get("text")).rstrip()}
    return lowered


def _assistant(message: Message, adapter: str) -> list[dict[str, Any]]:
    """Content blocks as the API gave them out, thinking and signatures included, in the same order."""
    content: list[dict[str, Any]] = []
    for block in message.blocks:
        match block:
            case TextBlock(text=text):
                if text.strip():  # the API refuses white space alone
                    content.append(_cached({"type": "text", "text": text}, block.cache_control))
            case ReasoningBlock(text=text, signature=signature):
                if signature:  # it takes none back that it did not sign
                    content.append({"type": "thinking", "thinking": text, "signature": signature})
            case RedactedReasoningBlock(data=data):
                content.append({"type": "redacted_thinking", "data": data})
            case ToolCallBlock(call_id=call_id, name=name, args=args):
                call = {"type": "tool_use", "id": _call_id(call_id), "name": name, "input": args}
                content.append(_cached(call, block.cache_control))
            case ProviderBlock(provider=provider, data=own):
                if provider == WIRE:
                    _put_back(own, content, block.cache_control)
            case _:
                raise unsupported(adapter, type(block).__name__, "it cannot stand in an assistant message")
    return content


def _put_back(own: dict[str, Any], content: list[dict[str, Any]], wish: CacheControl | None) -> None:
    """A block of this wire, verbatim; what we made of a part of one goes back to its place."""
    kind = own.get("type")
    if kind == CITATIONS:
        if content and content[-1].get("type") == "text":
            content[-1:] = _cited(content[-1], own)
    elif kind == CALLER:
        beside = {name: value for name, value in own.items() if name not in ("type", "tool_use_id")}
        for n, block in enumerate(content):
            if block.get("type") == "tool_use" and block.get("id") == _call_id(string(own.get("tool_use_id"))):
                content[n] = {**block, **beside}
    elif kind != MESSAGE and isinstance(own.get("input", {}), dict):  # a server's call that was cut off has a text
        content.append(_cached(own, wish))


def _cited(block: dict[str, Any], own: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The end of the text with its citations, and before it the rest, which has none."""
    text, length = string(block.get("text")), count(own, "length")
    if not length:  # they came with no text at all
        yield block
        return
    before = text[:-length]
    if before.strip() and "citations" not in block:
        yield {"type": "text", "text": before}
        block = {**block, "text": text[-length:]}
    yield {**block, "citations": [*block.get("citations", ()), *_dicts(own.get("citations"))]}


def _container(messages: Sequence[Message]) -> str | None:
    """The container that the last answer ran code in: its calls cannot be answered without."""
    last = next((message for message in reversed(messages) if message.role == "assistant"), None)
    for block in last.blocks if last else ():
        if isinstance(block, ProviderBlock) and block.provider == WIRE and block.data.get("type") == MESSAGE:
            container = block.data.get("container")
            return string(container.get("id")) or None if isinstance(container, dict) else None
    return None


def _tool_result(result: ToolResultBlock, adapter: str) -> dict[str, Any]:
    if any(isinstance(block, ToolResultBlock) for block in result.blocks):
        raise unsupported(adapter, "ToolResultBlock", "it cannot stand in another")
    fields: dict[str, Any] = {
        "type": "tool_result",
        "tool_use_id": _call_id(result.call_id),
        "content": _parts(result.blocks, adapter) or ([{"type": "text", "text": FAILED}] if result.is_error else None),
        "is_error": result.is_error or None,
    }
    return _without_none(fields)


def _parts(blocks: Iterable[Block], adapter: str) -> list[dict[str, Any]]:
    return [
        _cached(part, block.cache_control)
        for block in blocks
        if (part := _part(block, adapter)) is not None
    ]  # fmt: skip


def _part(block: Block, adapter: str) -> dict[str, Any] | None:
    match block:
        case TextBlock(text=text):
            return {"type": "text", "text": text} if text.strip() else None
        case ImageBlock(source=Base64Source(media_type=media_type, data=data)):
            if media_type not in IMAGE_TYPES:
                raise unsupported(adapter, "ImageBlock", f"{media_type} is none of {', '.join(IMAGE_TYPES)}")
            return {"type": "image", "source": {"type": "base64", "media_type": media_type, "data": data}}
        case ImageBlock(source=UrlSource() | FileSource() as source):
            return {"type": "image", "source": _elsewhere(source)}
        case DocumentBlock(source=source, name=name):
            lowered = _text_or_pdf(source, adapter) if isinstance(source, Base64Source) else _elsewhere(source)
            return {"type": "document", "source": lowered, **({"title": name} if name else {})}
        case ProviderBlock(provider=provider, data=own):
            return own if provider == WIRE else None
        case ToolResultBlock():
            return _tool_result(block, adapter)
        case _:
            raise unsupported(adapter, type(block).__name__, "it cannot stand in a user message of this wire")


def _elsewhere(source: Any) -> dict[str, Any]:
    if isinstance(source, UrlSource):
        return {"type": "url", "url": source.url}
    return {"type": "file", "file_id": source.file_id}


def _text_or_pdf(source: Base64Source, adapter: str) -> dict[str, Any]:
    if source.media_type == "application/pdf":
        return {"type": "base64", "media_type": source.media_type, "data": source.data}
    if not source.media_type.startswith("text/"):
        raise unsupported(adapter, "DocumentBlock", f"{source.media_type} is neither application/pdf nor text")
    try:
        text = base64.b64decode(source.data).decode()
    except UnicodeDecodeError:
        raise unsupported(adapter, "DocumentBlock", f"its {source.media_type} is not UTF-8") from None
    return {"type": "text", "media_type": "text/plain", "data": text}


def _call_id(call_id: str) -> str:
    """The id in the characters that the API takes; other providers use more."""
    legal = re.sub(r"[^a-zA-Z0-9_-]", "_", call_id)
    return legal if legal == call_id and legal else f"{legal}_{zlib.crc32(call_id.encode('utf-8', 'replace')):08x}"


def _check(body: dict[str, Any], version: str, betas: Sequence[str], adapter: str) -> None:
    """Raise for what the API is known to refuse."""
    given = [name for name in SAMPLING if name in body]
    is_date = re.fullmatch(r"\d{4}-\d{2}-\d{2}", version)  # Bedrock and Vertex name theirs otherwise
    if given and is_date and version >= NO_SAMPLING_SINCE:
        raise unsupported(adapter, given[0], f"version {version} of the API takes no {', '.join(SAMPLING)}")
    thinking, choice = body.get("thinking"), body.get("tool_choice")
    if isinstance(thinking, dict) and thinking.get("type") != "disabled":
        if isinstance(choice, dict) and choice.get("type") in ("any", "tool"):
            raise unsupported(adapter, "tool_choice", "no call can be forced while the model thinks")
        for name in given:
            is_number = isinstance(body[name], int | float)
            if is_number and not _LEAST_WHILE_THINKING.get(name, math.inf) <= body[name] <= 1:
                raise unsupported(adapter, name, "it cannot be set while the model thinks")
        budget, most = thinking.get("budget_tokens"), body.get("max_tokens")
        # Interleaved with calls, the thinking of several answers shares one budget.
        is_shared = any(beta.startswith("interleaved-thinking") for beta in betas)
        if isinstance(budget, int) and isinstance(most, int) and budget >= most and not is_shared:
            raise unsupported(adapter, "thinking.budget_tokens", f"{budget} is not below max_tokens, {most}")
    breakpoints = _breakpoints(body)
    if breakpoints > MAX_BREAKPOINTS:
        raise unsupported(adapter, "cache_control", f"{breakpoints} are set, the API takes {MAX_BREAKPOINTS}")


def _breakpoints(body: dict[str, Any]) -> int:
    """How many places ask for the prompt up to there to be cached."""
    blocks = [body, *_dicts(body.get("tools")), *_dicts(body.get("system"))]
    for message in _dicts(body.get("messages")):
        content = _dicts(message.get("content"))
        blocks += content
        for block in content:
            blocks += _dicts(block.get("content"))
    return sum(block.get("cache_control") is not None for block in blocks)


def _dicts(given: Any) -> list[dict[str, Any]]:
    return [item for item in given if isinstance(item, dict)] if isinstance(given, list) else []


# --- assemble: events -> chunks ----------------------------------------------------------------------------------


def assemble(events: Events, turn_over: TurnOver = lambda seconds: None) -> Iterator[StreamChunk]:
    """The chunks of one turn.

    The end of turn is a ``stop_reason`` or ``message_stop``, compatible servers leave out either. What follows is
    still read, for usage, late errors and a second answer; a connection that breaks there changes nothing.
    """
    line = Line()
    content = _Content(line)
    message = _Message()
    is_over = False
    is_ours = has_strangers = False  # whether events of this wire came, and others
    is_clear = True  # text may be yielded without asking anybody
    try:
        for name, data in events:
            if data is DONE:  # gateways add it; it is no end of turn on this wire
                break
            if type(data) is not dict:
                if name == "error":
                    raise classify.in_band(data)
                log.debug("skipped an event that is no object")
                continue
            kind = data.get("type") or name
            has_gone_on = False
            if kind == "content_block_delta":
                # {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hi"}}
                delta = data.get("delta")
                if type(delta) is not dict:
                    log.debug("skipped a delta that is no object")
                    continue
                if is_clear and delta.get("type") == "text_delta":
                    text = delta.get("text")
                    if type(text) is str and text and (text.isascii() or not has_halves(text)):
                        content.said += len(text)
                        yield TextDelta(text)
                        continue
                for chunk in content.delta(data.get("index"), delta):
                    message.check_goes_on()
                    has_gone_on = True
                    yield chunk
            elif kind == "content_block_start":
                # {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
                block = data.get("content_block")
                if type(block) is not dict:
                    log.debug("skipped a block that is no object")
                    continue
                message.note_model(block)
                for chunk in content.start(data.get("index"), block):
                    message.check_goes_on()
                    has_gone_on = True
                    yield chunk
            elif kind == "content_block_stop":
                for chunk in content.stop(data.get("index")):
                    has_gone_on = True
                    yield chunk
            elif kind == "message_start":
                # {"type": "message_start", "message": {"id": "msg_1", "content": [], "usage": {…}, …}}
                given = data.get("message")
                if type(given) is dict and message.start(given):
                    for index, block in enumerate(_dicts(given.get("content"))):
                        yield from content.start(index, block)
                        yield from content.stop(index)
            elif kind == "message_delta":
                # {"type": "message_delta", "delta": {"stop_reason": "end_turn", …}, "usage": {"output_tokens": 9}}
                message.note(data)
                message.note(data.get("delta"))
                message.count(data.get("usage"))
            elif kind == "message_stop":
                message.is_stopped = True
            elif "error" in (kind, name) or data.get("error") or ("type" not in data and _is_complaint(data)):
                raise classify.in_band(data)
            else:
                if kind != "ping":
                    log.debug("skipped an event of unknown type")  # which may be an echo of the key
                    has_strangers = True
                continue
            is_ours = True
            is_over = message.is_over
            is_clear = line.is_clear and not content.half and not is_over
            if is_over:
                turn_over(FOR_NOTHING if message.is_stopped else None if has_gone_on else FOR_USAGE)
    except TransportError:
        if not is_over:
            raise
    if has_strangers and not (is_ours or content.said):
        raise MalformedStreamError(
            "no event is one of Anthropic Messages: does base_url point at a server of this wire?"
        )
    if not is_over:
        raise TruncatedStreamError("the body ended without stop_reason and message_stop: the answer is not complete")
    turn_over(FOR_NOTHING)
    yield from content.end()
    yield from message.chunks(line.calls_finished)


def _is_complaint(data: dict[str, Any]) -> bool:
    """{"message": "…"} and its like, from something between us and the provider."""
    return any(data.get(key) for key in ("message", "detail", "error_code"))


class _Content:
    """The content blocks as they arrive."""

    def __init__(self, line: Line) -> None:
        self.said = 0
        """Characters of text so far."""
        self.half = ""
        """Of a character that was cut in two."""
        self._line = line
        self._open: dict[Any, _Block] = {}
        self._flowing: dict[Any, None] = {}  # indexes of the open ones of text and thinking
        self._over: set[Any] = set()  # indexes of the calls, of ours and of the server's tools, that are over
        self._last: Any = None  # index of the block that began last
        self._text_over: _Block | None = None

    def start(self, index: Any, given: dict[str, Any]) -> Iterator[StreamChunk]:
        index = _key(index)
        # A server that does not say where a block stops ends it by beginning the next; calls may go on.
        for other in (*self._flowing, index):
            yield from self._stop(other)
        kind = string(given.get("type"))
        block = self._opened(index, kind, given)
        match kind:
            case "text":
                # {"type": "text", "text": "", "citations": []}
                yield from self._text(string(given.get("text")))
                block.citations += _dicts(given.get("citations"))
            case "thinking":
                # {"type": "thinking", "thinking": "", "signature": ""}
                block.signature = string(given.get("signature"))
                yield from self._thought(block, given.get("thinking"))
            case "redacted_thinking":
                # {"type": "redacted_thinking", "data": "EqkE…"}
                yield from self._line.whole(RedactedReasoning(string(given.get("data"))))
            case "tool_use":
                # {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {}}
                yield from self._line.call(block.call)

    def delta(self, index: Any, delta: dict[str, Any]) -> Iterator[StreamChunk]:
        kind = delta.get("type")
        index = self._last if _key(index) is None else index
        block = self._open.get(index)
        match kind:
            case "text_delta":
                yield from self._text(string(delta.get("text")))
            case "thinking_delta":
                yield from self._thought(block or self._opened(index, "thinking", {}), delta.get("thinking"))
            case "signature_delta":
                block = block or self._opened(index, "thinking", {})
                block.signature = string(delta.get("signature")) or block.signature
            case "input_json_delta":
                yield from self._input(index, block, string(delta.get("partial_json")))
            case "citations_delta":
                # {"type": "citations_delta", "citation": {"type": "page_location", "cited_text": "…", …}}
                citation = _dicts([delta.get("citation")])
                if block is not None and block.kind == "text":
                    block.citations += citation
                else:
                    yield from self._cite(self._text_over or _Block("text", {}, 0), citation)
            case "compaction_delta":
                # {"type": "compaction_delta", "content": "A summary", "encrypted_content": "…"}
                block = block or self._opened(index, "compaction", {"type": "compaction"})
                told = {name: value for name, value in delta.items() if name != "type" and value is not None}
                block.given.update(told)
            case _:
                log.debug("skipped a delta of unknown type")

    def stop(self, index: Any) -> Iterator[StreamChunk]:
        return self._stop(self._last if _key(index) is None else index)

    def end(self) -> Iterator[StreamChunk]:
        """All that is still open, closed."""
        for index in list(self._open):
            yield from self._stop(index)
        yield from self._text("", is_last=True)
        yield from self._line.end()

    def _opened(self, index: Any, kind: str, given: dict[str, Any]) -> _Block:
        block = self._open[index] = _Block(kind, given, self.said)
        self._last = index
        if kind in ("text", "thinking"):
            self._flowing[index] = None
        return block

    def _stop(self, index: Any) -> Iterator[StreamChunk]:
        block = self._open.pop(index, None)
        if block is None:
            return
        self._flowing.pop(index, None)
        match block.kind:
            case "text":
                yield from self._text("", is_last=True)
                self._text_over = block
                yield from self._cite(block, block.citations)
            case "thinking":
                if block.signature or not block.is_empty:
                    yield from self._line.reasoning_over(block.signature or None)
            case "redacted_thinking":
                pass
            case "tool_use":
                self._over.add(index)
                yield from self._call_over(block)
            case "":
                log.debug("skipped a block without a type")
            case _:
                self._over.add(index)
                yield from self._line.whole(provider_block(WIRE, block.whole()))

    def _text(self, text: str, *, is_last: bool = False) -> Iterator[StreamChunk]:
        text, self.half = joined_halves(self.half + text)
        if is_last and self.half:
            text, self.half = text + "\ufffd", ""
        if text:
            self.said += len(text)
            yield from self._line.text(text)

    def _thought(self, block: _Block, text: Any) -> Iterator[StreamChunk]:
        if text and isinstance(text, str):
            block.is_empty = False
            yield from self._line.reasoning(text)

    def _input(self, index: Any, block: _Block | None, text: str) -> Iterator[StreamChunk]:
        if block is None and index in self._over:
            if text.strip():
                raise MalformedStreamError("the arguments of a tool call go on after its end")
            return
        if block is not None and block.kind != "tool_use":
            block.inputs.append(text)  # of a tool that the server runs
            return
        if not text:
            return
        if block is None:
            block = self._opened(index, "tool_use", {})  # nobody said which tool
            yield from self._line.call(block.call)
        block.inputs.append(text)
        block.call.add(text)
        yield from self._line.flow()

    def _call_over(self, block: _Block) -> Iterator[StreamChunk]:
        call, given = block.call, block.given.get("input")
        if given not in (None, "", {}) and not "".join(block.inputs).strip():
            is_text = isinstance(given, str)
            call.add(given if is_text else json.dumps(given, ensure_ascii=False, separators=(",", ":")))
        call.is_closed = True
        yield from self._line.flow()
        beside = {name: value for name, value in block.given.items() if name not in _OF_A_CALL and value is not None}
        if beside.get("caller") == {"type": "direct"}:  # by the model, as ever
            del beside["caller"]
        if beside:
            own = {"type": CALLER, "tool_use_id": call.given_id or call.call_id, **beside}
            yield from self._line.whole(provider_block(WIRE, own))

    def _cite(self, block: _Block, citations: list[dict[str, Any]]) -> Iterator[StreamChunk]:
        if citations:
            own = {"type": CITATIONS, "citations": citations, "length": self.said - block.began_at}
            yield from self._line.whole(provider_block(WIRE, own))


def _key(index: Any) -> int | str | None:
    """The index of a block; None where there is none, or nonsense."""
    return index if isinstance(index, int | str) else None


class _Block:
    """A content block as it arrives."""

    __slots__ = ("began_at", "call", "citations", "given", "inputs", "is_empty", "kind", "signature")

    def __init__(self, kind: str, given: dict[str, Any], began_at: int) -> None:
        self.kind = kind
        self.given = {**given}
        self.began_at = began_at  # characters of text before it
        self.call = ToolCall(string(given.get("id")), string(given.get("name")))
        self.inputs: list[str] = []
        self.citations: list[dict[str, Any]] = []
        self.signature = ""
        self.is_empty = True

    def whole(self) -> dict[str, Any]:
        """The block of a kind that the contract does not model, with the input that came in pieces."""
        text = "".join(self.inputs)
        if not text.strip():
            return self.given
        with suppress(ValueError):  # cut off by max_tokens
            whole = {**self.given, "input": parse_args(text)}
            if not is_too_deep(whole):
                return whole
        return {**self.given, "input": text}


class _Message:
    """What the events say beside the content: how it ended, what it cost, who gave it."""

    def __init__(self) -> None:
        self.is_stopped = False
        self.provider_reason: str | None = None
        self._has_begun = False
        self._stop_sequence: str | None = None
        self._id: str | None = None
        self._model: str | None = None
        self._usage: dict[str, Any] = {}
        self._beside: dict[str, Any] = {}

    @property
    def is_over(self) -> bool:
        return self.is_stopped or self.provider_reason is not None

    def start(self, given: dict[str, Any]) -> bool:
        """Take what the message says of itself; False where it says so a second time.

        Raises:
            MalformedStreamError: it is another message.
        """
        if self._has_begun:
            if self.is_over or given.get("id") != self._id:
                raise MalformedStreamError("a second message begins inside of the body of the first")
            return False
        self._has_begun = True
        self._id = given.get("id")
        self._model = given.get("model")
        self.count(given.get("usage"))
        self.note(given)
        return True

    def check_goes_on(self) -> None:
        """Raise MalformedStreamError where there is no more to say."""
        if self.is_stopped:
            raise MalformedStreamError("the answer goes on after message_stop")

    def note(self, given: Any) -> None:
        """The end of the turn, where it is there already."""
        if not isinstance(given, dict):
            return
        self.provider_reason = string(given.get("stop_reason")) or self.provider_reason
        self._stop_sequence = string(given.get("stop_sequence")) or self._stop_sequence
        self._beside |= {name: given[name] for name in _BESIDE_CONTENT if given.get(name)}

    def count(self, usage: Any) -> None:
        """Counters replace those that were told before, and may be smaller."""
        if isinstance(usage, dict):
            self._usage |= _without_none(usage)

    def note_model(self, block: dict[str, Any]) -> None:
        """Perhaps it says that another model takes over: {"type": "fallback", "from": {"model": "…"}, "to": {…}}"""
        if block.get("type") == "fallback" and isinstance(block.get("to"), dict):
            self._model = block["to"].get("model") or self._model

    def chunks(self, calls_finished: int) -> Iterator[StreamChunk]:
        if self._beside:
            yield provider_block(WIRE, {"type": MESSAGE, **self._beside})
        yield TurnFinished(
            reason=self._reason(calls_finished),
            usage=None if self._usage.keys().isdisjoint(_COUNTERS) else _usage(self._usage),
            service_tier=string(self._usage.get("service_tier")) or None,
            provider_reason=self.provider_reason,
            stop_sequence=self._stop_sequence,
            response_id=string(self._id) or None,
            response_model=string(self._model) or None,
        )

    def _reason(self, calls_finished: int) -> FinishReason:
        reason = finish_reason(self.provider_reason, FINISH_REASONS, calls_finished)
        is_stopped_early = self._stop_sequence and reason is FinishReason.END_TURN  # llama.cpp
        return FinishReason.STOP_SEQUENCE if is_stopped_early else reason


def _usage(given: dict[str, Any]) -> Usage:
    # {"input_tokens": 9, "cache_read_input_tokens": 0, "cache_creation_input_tokens": 0, "output_tokens": 12,
    #  "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
    #  "output_tokens_details": {"thinking_tokens": 0}}       input_tokens: those beside the cache
    cached = count(given, "cache_read_input_tokens")
    by_ttl = given.get("cache_creation")
    for_5m, for_1h = count(by_ttl, "ephemeral_5m_input_tokens"), count(by_ttl, "ephemeral_1h_input_tokens")
    created = count(given, "cache_creation_input_tokens") or for_5m + for_1h
    if for_5m + for_1h != created:  # a later event told a new sum, and not its parts
        for_5m = for_1h = 0
    return Usage(
        input_tokens=count(given, "input_tokens") + cached + created,
        output_tokens=count(given, "output_tokens"),
        cached_input_tokens=cached,
        cache_creation_input_tokens=created,
        cache_creation_5m_tokens=for_5m,
        cache_creation_1h_tokens=for_1h,
        reasoning_tokens=count(given.get("output_tokens_details"), "thinking_tokens"),
    )
