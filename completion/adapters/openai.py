"""OpenAI Chat Completions, and every server that speaks it.

    ChatRequest -> lower -> POST {base_url}/chat/completions -> assemble -> StreamChunk

Wire: https://platform.openai.com/docs/api-reference/chat-streaming (read November 2026). What compatible servers
make of it is in the comments beside the code that reads it.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlsplit

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
from completion.contract.errors import MalformedStreamError, ProviderError, TransportError, TruncatedStreamError
from completion.contract.frames import secretive
from completion.contract.messages import (
    AudioBlock,
    Base64Source,
    Block,
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
    data_uri,
    effort_word,
    json_text,
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
    joined_halves,
    provider_block,
    string,
)

if sys.version_info >= (3, 11):
    from typing import Unpack
elif TYPE_CHECKING:
    from typing_extensions import Unpack

log = logging.getLogger(__name__)

# --- names -----------------------------------------------------------------------------------------------------

WIRE = "openai-chat"
BASE_URL = "https://api.openai.com/v1"
PATH = "/chat/completions"

FINISH_REASONS = {
    "stop": FinishReason.END_TURN,
    "length": FinishReason.MAX_TOKENS,
    "tool_calls": FinishReason.TOOL_USE,
    "function_call": FinishReason.TOOL_USE,
    "content_filter": FinishReason.CONTENT_FILTER,
}

_TOTALS = ("prompt_tokens", "completion_tokens", "input_tokens", "output_tokens")

TOOL_CHOICES = {"auto": "auto", "any": "required", "none": "none"}

# Where a delta says something of the answer, and where it brings whole blocks of kinds that only this wire knows:
# Groq's compound runs tools on its side, Azure cites its data in the context.
_WHOLE_BLOCKS = ("annotations", "images", "executed_tools", "context")
_SAID = ("content", "reasoning_content", "reasoning", "reasoning_details", "refusal", "tool_calls", *_WHOLE_BLOCKS)

AUDIO_FORMATS = {
    "audio/wav": "wav",
    "audio/x-wav": "wav",
    "audio/wave": "wav",
    "audio/mpeg": "mp3",
    "audio/mp3": "mp3",
}

# --- the model -------------------------------------------------------------------------------------------------


class OpenAIClient(HttpClient):
    """An account at OpenAI, or at a compatible server through ``base_url``.

    Args:
        api_key: a key, or a function asked before each request; None reads ``OPENAI_API_KEY``.
        base_url: None reads ``OPENAI_BASE_URL``, else OpenAI's own.
        organization, project: None reads ``OPENAI_ORG_ID`` and ``OPENAI_PROJECT_ID``.
        compatible: the server is not OpenAI's own: it gets ``max_tokens`` instead of ``max_completion_tokens``, and
            ``top_k``. None tells it by the host of ``base_url``.
        timeout: a Timeout, or what ``requests`` takes.
        session: a ``requests.Session`` to use instead of one of our own.
        headers: sent with every request.
        max_event_bytes: a larger event of the stream raises MalformedStreamError.
    """

    name: ClassVar[str] = "openai"
    key_variable: ClassVar[str] = "OPENAI_API_KEY"

    @secretive
    def __init__(
        self,
        *,
        api_key: Key | None = None,
        base_url: str | None = None,
        organization: str | None = None,
        project: str | None = None,
        compatible: bool | None = None,
        timeout: Wait = Timeout(),  # noqa: B008  immutable
        session: Session | None = None,
        headers: Mapping[str, str] | None = None,
        max_event_bytes: int = MAX_EVENT_BYTES,
    ) -> None:
        base_url = base_url or os.environ.get("OPENAI_BASE_URL") or BASE_URL
        account = {
            "OpenAI-Organization": organization or os.environ.get("OPENAI_ORG_ID"),
            "OpenAI-Project": project or os.environ.get("OPENAI_PROJECT_ID"),
        }
        self._endpoint = Endpoint(
            provider=self.name,
            base_url=base_url,
            key=ApiKey(api_key, self.key_variable),
            timeout=timeout,
            headers={**{name: value for name, value in account.items() if value}, **(headers or {})},
            session=session,
            request_id_headers=("x-request-id",),
            max_event_bytes=max_event_bytes,
        )
        host = urlsplit(base_url).hostname or ""
        is_openai = host == "api.openai.com" or host.endswith(".api.openai.com")
        self._compatible = not is_openai if compatible is None else compatible

    def completion_model(self, model_id: str) -> OpenAIModel:
        """A handle on one model; all handles of this client share its connections."""
        return OpenAIModel(model_id, client=self)


class OpenAIOptions(Options, total=False):
    organization: str | None
    project: str | None
    compatible: bool | None


class OpenAIModel(HttpModel):
    """A model behind Chat Completions. Takes the options of OpenAIClient, or a ``client`` to share."""

    name: ClassVar[str] = OpenAIClient.name
    key_variable: ClassVar[str] = OpenAIClient.key_variable
    client_class = OpenAIClient
    _client: OpenAIClient

    @secretive
    def __init__(self, model: str, *, client: OpenAIClient | None = None, **options: Unpack[OpenAIOptions]) -> None:
        super().__init__(model, client, options)

    @opening
    def chat_stream(self, req: ChatRequest) -> ChatStream:
        """The answer as a stream.

        Raises:
            CompletionError: whatever keeps the stream from opening.
        """
        payload, dropped = lower(req, self.model, compatible=self._client._compatible)
        return self._client._endpoint.stream(PATH, payload, assemble, model=self.model, dropped=dropped)


# --- lower: ChatRequest -> the JSON body -------------------------------------------------------------------------


def lower(
    req: ChatRequest, model: str, *, compatible: bool = False, adapter: str = "openai"
) -> tuple[dict[str, Any], list[str]]:
    """The JSON body, and the names of the fields that were left out because they state a preference only.

    Raises:
        UnsupportedContentError: a part that would change the answer cannot be said.
    """
    require_request(req, adapter)
    dropped: list[str] = ["cache_control"] if cache_wishes(req) else []
    payload: dict[str, Any] = {
        "model": model,
        "messages": _messages(req, adapter),
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens" if compatible else "max_completion_tokens": req.max_tokens,
    }
    has_tools = bool(req.tools or (req.additional_params or {}).get("tools"))
    optional = {
        "temperature": req.temperature,
        "top_p": req.top_p,
        "seed": req.seed,
        "stop": list(req.stop_sequences) or None,
        "tools": [_tool(tool) for tool in req.tools] or None,
        "tool_choice": _tool_choice(req.tool_choice, has_tools),
        "parallel_tool_calls": req.parallel_tool_use if has_tools else None,
        "reasoning_effort": _effort(req.reasoning_effort),
        "response_format": _response_format(req.response_format),
    }
    payload.update({name: value for name, value in optional.items() if value is not None})
    if req.top_k is not None:
        if compatible:
            payload["top_k"] = req.top_k
        else:
            dropped.append("top_k")
    return with_additional(payload, req, adapter), dropped


def _messages(req: ChatRequest, adapter: str) -> list[dict[str, Any]]:
    system = system_text(req)
    lowered = [{"role": "system", "content": system}] if system else []
    for message in sendable(req.messages):
        if message.role == "assistant":
            lowered.extend(_assistant(message, adapter))
        else:
            lowered.extend(_user(message, adapter))
    if not any(message["role"] != "system" for message in lowered):
        raise unsupported(adapter, "messages", "there is nothing in them to send")
    return lowered


def _assistant(message: Message, adapter: str) -> Iterator[dict[str, Any]]:
    """One message, or none when it held nothing but reasoning, which this wire does not take back."""
    texts: list[str] = []
    lists: dict[str, list[Any]] = {"tool_calls": [], "annotations": [], "images": []}
    for block in message.blocks:
        match block:
            case TextBlock(text=text):
                texts.append(text)
            case ToolCallBlock():
                lists["tool_calls"].append(_tool_call(block, adapter))
            case ProviderBlock(provider=provider, data=own):
                place = _place(own) if provider == WIRE else None
                if place is not None:
                    lists[place].append(own)
            case ReasoningBlock() | RedactedReasoningBlock():
                pass
            case _:
                raise unsupported(adapter, type(block).__name__, "it cannot stand in an assistant message")
    filled = {name: items for name, items in lists.items() if items}
    if texts or "tool_calls" in filled or "images" in filled:
        yield {"role": "assistant", "content": "".join(texts) if texts else None, **filled}


def _place(own: dict[str, Any]) -> str | None:
    """Where in a message a block of this wire came from; None for what belongs to no message."""
    kind = str(own.get("type", ""))
    if "custom" in own:
        return "tool_calls"
    if kind == "image_url":
        return "images"
    return "annotations" if kind == "file" or kind.endswith("citation") else None


def _tool_call(block: ToolCallBlock, adapter: str) -> dict[str, Any]:
    function = {"name": block.name, "arguments": json_text(block.args, adapter, "ToolCallBlock.args")}
    call: dict[str, Any] = {"id": block.call_id, "type": "function", "function": function}
    if block.signature is not None:  # only Gemini's compatible endpoint signs calls, and wants them back
        call["extra_content"] = {"google": {"thought_signature": block.signature}}
    return call


def _user(message: Message, adapter: str) -> Iterator[dict[str, Any]]:
    """Tool results are messages of their own; what stands between them becomes user messages, in order."""
    between: list[Block] = []
    for block in message.blocks:
        if isinstance(block, ToolResultBlock):
            yield from _user_parts(between, adapter)
            between = []
            yield {"role": "tool", "tool_call_id": block.call_id, "content": _result_text(block, adapter)}
        else:
            between.append(block)
    yield from _user_parts(between, adapter)


def _user_parts(blocks: Sequence[Block], adapter: str) -> Iterator[dict[str, Any]]:
    parts = [part for block in blocks for part in _part(block, adapter)]
    if len(parts) == 1 and parts[0].keys() == {"type", "text"}:
        yield {"role": "user", "content": parts[0]["text"]}
    elif parts:
        yield {"role": "user", "content": parts}


def _part(block: Block, adapter: str) -> Iterator[dict[str, Any]]:
    match block:
        case TextBlock(text=text):
            yield {"type": "text", "text": text}
        case ImageBlock(source=Base64Source() as source):
            yield {"type": "image_url", "image_url": {"url": data_uri(source)}}
        case ImageBlock(source=UrlSource(url=url)):
            yield {"type": "image_url", "image_url": {"url": url}}
        case DocumentBlock(source=Base64Source() as source, name=name):
            yield {"type": "file", "file": {"filename": name or "document", "file_data": data_uri(source)}}
        case DocumentBlock(source=FileSource(file_id=file_id)):
            yield {"type": "file", "file": {"file_id": file_id}}
        case AudioBlock(source=Base64Source(media_type=media_type, data=data)):
            if media_type not in AUDIO_FORMATS:
                raise unsupported(adapter, "AudioBlock", f"{media_type} is none of {', '.join(sorted(AUDIO_FORMATS))}")
            yield {"type": "input_audio", "input_audio": {"data": data, "format": AUDIO_FORMATS[media_type]}}
        case ProviderBlock(provider=provider, data=own):
            if provider == WIRE:
                yield own
        case ImageBlock() | DocumentBlock() | AudioBlock():
            kind, source_kind = type(block).__name__, type(block.source).__name__
            raise unsupported(adapter, kind, f"Chat Completions takes no {source_kind} for it")
        case _:
            raise unsupported(adapter, type(block).__name__, "it cannot stand in a user message")


def _result_text(block: ToolResultBlock, adapter: str) -> str:
    for inner in block.blocks:
        if not isinstance(inner, TextBlock):
            kind = type(inner).__name__
            raise unsupported(adapter, f"{kind} in a ToolResultBlock", "a tool message holds text only")
    text = "".join(inner.text for inner in block.blocks if isinstance(inner, TextBlock))
    return f"Error: {text}" if block.is_error else text


def _tool(tool: ToolDefinition) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name, "description": tool.description, "parameters": tool.input_schema}
    if tool.strict is not None:
        function["strict"] = tool.strict
    return {"type": "function", "function": function}


def _tool_choice(choice: ToolChoice | None, has_tools: bool) -> Any:
    if choice is None or (not has_tools and choice.kind in ("auto", "none")):
        return None
    if choice.kind == "tool":
        return {"type": "function", "function": {"name": choice.name}}
    return TOOL_CHOICES[choice.kind]


def _effort(effort: str | int | None) -> str | None:
    if effort is None or isinstance(effort, str):
        return effort
    return effort_word(effort)


def _response_format(wanted: JsonSchema | str | None) -> dict[str, Any] | None:
    if wanted is None:
        return None
    if isinstance(wanted, JsonSchema):
        schema = {"name": wanted.name, "schema": wanted.schema, "strict": wanted.strict}
        return {"type": "json_schema", "json_schema": schema}
    return {"type": "json_object"}


# --- assemble: events -> chunks ----------------------------------------------------------------------------------


def assemble(events: Events, turn_over: TurnOver = lambda seconds: None) -> Iterator[StreamChunk]:
    """The chunks of one turn.

    The end of turn is a ``finish_reason`` or ``[DONE]``, real servers leave out either. What follows the first of
    them (usage, a repeated reason, a late error) is still read; a connection that breaks there changes nothing.
    """
    line = Line()
    calls = _Calls(line)
    end = _End()
    is_done = False
    half = ""  # of a character that was cut in two
    try:
        for name, data in events:
            if data is DONE:
                is_done = True
                break
            if type(data) is list and len(data) == 1:
                data = data[0]  # Gemini's compatible endpoint wraps its errors so
            if type(data) is not dict:
                if name == "error":
                    raise classify.in_band(data)
                log.debug("skipped an event that is no object")
                continue
            # {"error": {…}} alone or beside choices; {"object": "error", …}; Groq names the event "error"
            if name == "error" or "error" in data or not data.get("choices"):
                _raise_if_error(data, name)
            choice = end.first_choice(data)
            end.note(data, choice)
            if choice is None:
                continue
            # {"index": 0, "delta": {"role": "assistant", "content": "Hi"}, "finish_reason": null}
            delta = choice.get("delta")
            if delta:
                end.has_delta = True
            elif not end.has_delta:
                delta = choice.get("message")  # all at once; after deltas it says the same again (MiniMax)
            if type(delta) is dict and delta:
                text = delta.get("content")
                if type(text) is str and (half or (not text.isascii() and has_halves(text))):
                    text, half = joined_halves(half + text)
                    delta = {**delta, "content": text}
                is_plain = len(delta) == 1 or _is_plain(delta)
                if is_plain and type(text) is str and line.is_clear and end.provider_reason is None:
                    if text:
                        yield TextDelta(text)
                else:
                    if end.provider_reason is not None:
                        end.check_not_spliced(data, delta)
                    yield from _of_delta(delta, line, calls, end)
            reason = choice.get("finish_reason")
            if (reason and reason != "null") or "error" in choice:
                end.finish(reason, data, choice)
            if end.provider_reason is not None:
                # A server that says "stop" in every chunk is not over with the first.
                has_gone_on = type(delta) is dict and any(delta.get(key) for key in _SAID)
                turn_over(None if has_gone_on else FOR_USAGE)
    except TransportError:
        if end.provider_reason is None:
            raise
    if not is_done and end.provider_reason is None:
        raise TruncatedStreamError(
            "the body ended without finish_reason and without [DONE]: the answer is not complete"
        )
    turn_over(FOR_NOTHING)
    if half:
        yield from line.text("\ufffd")
    yield from line.end()
    yield from calls.custom_blocks()
    yield from end.chunks(line.calls_finished)


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
        raise classify.in_band(data)
    if data.get("choices") is not None or data.get("usage") or "chat.completion" in string(data.get("object")):
        return
    # {"detail": "…"}, {"code": "399505", "message": "…"}, {"base_resp": {"status_code": 1008, "status_msg": "…"}}
    base = data.get("base_resp")
    has_failed = isinstance(base, dict) and base.get("status_code")
    complaint = data.get("detail") or data.get("error_code") or string(data.get("message"))
    if error is not None or has_failed or complaint:
        raise classify.in_band({**data, "message": base.get("status_msg")} if isinstance(base, dict) else data)


def _of_delta(delta: dict[str, Any], line: Line, calls: _Calls, end: _End) -> Iterator[StreamChunk]:
    """The chunks of a delta that is more than a piece of text."""
    yield from _reasoning(delta, line, end)
    content = delta.get("content")
    # Mistral and its like: [{"type": "thinking", "thinking": […]}, {"type": "text", "text": "…"}]
    for part in content if isinstance(content, list) else [content]:
        if isinstance(part, dict) and part.get("type") == "thinking":
            for thought in _texts(part.get("thinking")):
                yield from line.reasoning(thought)
        elif isinstance(part, dict) and not isinstance(part.get("text"), str) and "type" in part:
            yield from line.whole(provider_block(WIRE, part))  # {"type": "reference", "reference_ids": […]}
        else:
            for text in _texts([part]):
                yield from line.text(text)
    refusal = delta.get("refusal")
    if refusal and isinstance(refusal, str):
        end.is_refusal = True
        yield from line.text(refusal)
    pieces = delta.get("tool_calls")
    if isinstance(pieces, list):
        for piece in pieces:
            if isinstance(piece, dict):
                yield from calls.take(piece)
    function = delta.get("function_call")  # what tool calls were before there were several
    if isinstance(function, dict):
        yield from calls.take({"index": "function_call", "function": function})
    for kind in _WHOLE_BLOCKS:
        items = delta.get(kind)
        for item in items if isinstance(items, list) else [items]:
            if isinstance(item, dict):
                yield from line.whole(provider_block(WIRE, item))


def _reasoning(delta: dict[str, Any], line: Line, end: _End) -> Iterator[StreamChunk]:
    """Reasoning in its three places, of which OpenRouter fills two with the same text."""
    text = string(delta.get("reasoning_content")) or string(delta.get("reasoning"))
    if text:
        end.plain_reasoning_length += len(text)
        yield from line.reasoning(text)
    details = delta.get("reasoning_details")
    # [{"type": "reasoning.text", "text": "…", "signature": "…"}, {"type": "reasoning.encrypted", "data": "…"}]
    for detail in details if isinstance(details, list) else ():
        if not isinstance(detail, dict):
            continue
        thought = string(detail.get("text")) or string(detail.get("summary"))
        signature = string(detail.get("signature"))
        if thought and text:
            end.has_both_reasonings = True
        elif thought and not end.says_again(thought, signature):
            yield from line.reasoning(thought)
        if signature and signature != end.signature:
            end.signature = signature
            yield from line.reasoning_over(signature)
        hidden = string(detail.get("data"))
        if hidden:
            yield from line.whole(RedactedReasoning(hidden))


def _texts(parts: Any) -> Iterator[str]:
    """The texts, none of them empty, of a string or of a list of strings and {"text": "…"}."""
    for part in parts if isinstance(parts, list) else [parts]:
        text = string(part.get("text") if isinstance(part, dict) else part)
        if text:
            yield text


class _Calls:
    """Which call a piece belongs to.

    A piece has an index, or an id, or both, or neither; ids and names come once, repeat, come late or never; Gemini
    and Ollama number all calls 0; whole calls may come in one piece.
    """

    def __init__(self, line: Line) -> None:
        self._line = line
        self._by_index: dict[Any, ToolCall] = {}
        self._by_id: dict[str, ToolCall] = {}
        self._last: ToolCall | None = None
        self._custom: dict[str, _CustomCall] = {}

    def take(self, piece: dict[str, Any]) -> Iterator[StreamChunk]:
        # {"index": 0, "id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{\"a"}}
        if piece.get("type") == "custom" or "custom" in piece:
            self._take_custom(piece)
            return
        function = piece.get("function")
        if not isinstance(function, dict):
            if piece.get("type") not in (None, "", "function"):  # a tool that the server runs itself
                yield from self._line.whole(provider_block(WIRE, piece))
                return
            function = {}
        call_id, name = string(piece.get("id")), string(function.get("name"))
        arguments = function.get("arguments")
        if arguments is not None and not isinstance(arguments, str):
            arguments = json.dumps(arguments, ensure_ascii=False, separators=(",", ":"))  # decoded by the server
        arguments = arguments or ""
        index = piece.get("index")
        index = index if isinstance(index, int | str) else None
        call = self._found(index, call_id, name, arguments)
        is_new = call is None
        if call is None:
            call = ToolCall(call_id)
        if index is not None:
            self._by_index[index] = call
        call.call_id = call.call_id or call_id
        call.name = call.name or name
        call.signature = call.signature or _signature(piece)
        if not call.says_again(arguments):
            call.add(arguments)
        if call_id:
            self._by_id[call_id] = call
        self._last = call
        yield from self._line.call(call) if is_new else self._line.flow()

    def _found(self, index: Any, call_id: str, name: str, arguments: str) -> ToolCall | None:
        """The open call that the piece continues, None where it begins a new one."""
        call = self._by_index.get(index)
        if call is None:
            call = self._unnumbered(index, call_id, name)
        if call is None:
            return None
        begins_object = arguments.lstrip().startswith("{")
        is_more = bool(arguments.strip()) and not call.says_again(arguments)
        if not name:
            is_another = call.is_over and is_more
        elif not (call_id and call.call_id):
            is_another = bool(call.name and name != call.name) or (
                begins_object
                and (call.has_object or (call.is_whole and not call.call_id and arguments.strip() == "{}"))
            )
        elif call_id != call.call_id:
            is_another = True
        else:  # perhaps a second call under an id that was given before
            is_another = is_more and (call.is_over or (begins_object and call.is_settled))
        return None if is_another else call

    def _unnumbered(self, index: Any, call_id: str, name: str) -> ToolCall | None:
        """The call that is meant by a piece without an index, or with one that was not seen before."""
        if index is not None and name:
            return None
        if call_id in self._by_id:
            return self._by_id[call_id]
        is_new = index is not None or (call_id and (name or (self._last is not None and self._last.call_id)))
        return None if is_new else self._last

    def _take_custom(self, piece: dict[str, Any]) -> None:
        """A custom tool takes free text: {"index": 0, "id": "…", "type": "custom", "custom": {"name", "input"}}"""
        key = piece.get("index")
        if key is None:
            key = piece.get("id") or next(reversed(self._custom), None)
        key = str(key)
        custom = piece.get("custom")
        custom = custom if isinstance(custom, dict) else {}
        call = self._custom.setdefault(key, _CustomCall())
        call.call_id = call.call_id or string(piece.get("id"))
        call.name = call.name or string(custom.get("name"))
        call.inputs.append(string(custom.get("input")))

    def custom_blocks(self) -> Iterator[StreamChunk]:
        for call in self._custom.values():
            custom = {"name": call.name, "input": "".join(call.inputs)}
            yield provider_block(WIRE, {"id": call.call_id, "type": "custom", "custom": custom})


class _CustomCall:
    """A call of a custom tool as it arrives."""

    def __init__(self) -> None:
        self.call_id = ""
        self.name = ""
        self.inputs: list[str] = []


def _signature(piece: dict[str, Any]) -> str | None:
    # {"extra_content": {"google": {"thought_signature": "…"}}}
    extra = piece.get("extra_content")
    google = extra.get("google") if isinstance(extra, dict) else None
    signature = google.get("thought_signature") if isinstance(google, dict) else None
    return signature if isinstance(signature, str) else None


class _End:
    """What the chunks say beside the answer: how it ended, what it cost, who gave it."""

    def __init__(self) -> None:
        self.provider_reason: str | None = None
        self.is_refusal = False
        self.plain_reasoning_length = 0
        self.has_both_reasonings = False
        self.has_delta = False
        self.signature: str | None = None
        self._id: str | None = None
        self._choice_index: Any = None
        self._finished_id: Any = None
        self._model: str | None = None
        self._service_tier: str | None = None
        self._usage: dict[str, Any] | None = None
        self._sources: dict[str, Any] = {}

    def says_again(self, thought: str, signature: str) -> bool:
        """A detail without plain reasoning beside it repeats what the plain reasoning said before.

        It does after plain text alone, and where it signs the whole; where both came together, it goes on.
        """
        signs_all = bool(signature) and len(thought) >= self.plain_reasoning_length
        return bool(self.plain_reasoning_length) and (signs_all or not self.has_both_reasonings)

    def first_choice(self, data: dict[str, Any]) -> dict[str, Any] | None:
        """The choice of index 0; where a server numbers otherwise or not at all, the one that it began with."""
        choices = data.get("choices")
        if not choices or not isinstance(choices, list):
            return None
        for choice in choices:
            if isinstance(choice, dict) and choice.get("index") in (self._choice_index, 0, None):
                return choice
        if self._choice_index is None and self._id is None and isinstance(choices[0], dict):
            self._choice_index = choices[0].get("index")
            return choices[0]
        return None

    def note(self, data: dict[str, Any], choice: dict[str, Any] | None) -> None:
        """What a chunk says of the response as a whole. The first id and model, the last usage count."""
        self._id = self._id or data.get("id")
        self._model = self._model or data.get("model")
        self._service_tier = data.get("service_tier") or self._service_tier
        usage = data.get("usage")
        if "x_groq" in data:
            usage = self._of_groq(data["x_groq"]) or usage
        if not usage and choice is not None:
            usage = choice.get("usage")  # Moonshot
        if usage and isinstance(usage, dict) and any(key in usage for key in _TOTALS):
            self._usage = usage
        for key in ("citations", "search_results"):  # Perplexity, xAI: the same list in every chunk
            if data.get(key):
                self._sources[key] = data[key]

    def _of_groq(self, extra: Any) -> Any:
        # {"id": "req_…", "usage": {…}}, or {"id": "req_…", "error": "over_capacity"}
        if not isinstance(extra, dict):
            return None
        if extra.get("error"):
            raise classify.in_band({"error": extra["error"]})
        return extra.get("usage")

    def finish(self, reason: Any, data: dict[str, Any], choice: dict[str, Any]) -> None:
        if choice.get("error"):  # OpenRouter: {"finish_reason": "error", "error": {"code": 502, "message": "…"}}
            raise classify.in_band({"error": choice["error"]})
        if not reason or reason == "null":
            return
        if reason == "error":
            raise ProviderError("the provider ended the turn with finish_reason 'error'", code="error")
        self.provider_reason = str(reason)
        self._finished_id = data.get("id")

    def check_not_spliced(self, data: dict[str, Any], delta: dict[str, Any]) -> None:
        """Raise where an answer goes on after its end under another id: two answers in one body.

        Where the first and the last chunk of an answer differ in their id, it says nothing (Groq's compound).
        """
        goes_on = any(value for key, value in delta.items() if key != "role")
        chunk_id = data.get("id")
        if goes_on and chunk_id and self._finished_id == self._id and chunk_id != self._finished_id:
            raise MalformedStreamError("a second answer, with another id, follows the end of the first")

    def chunks(self, calls_finished: int) -> Iterator[StreamChunk]:
        if self._sources:
            yield provider_block(WIRE, self._sources)
        yield TurnFinished(
            reason=self._reason(calls_finished),
            usage=_usage(self._usage) if self._usage else None,
            service_tier=string(self._service_tier) or None,
            provider_reason=self.provider_reason,
            response_id=string(self._id) or None,
            response_model=string(self._model) or None,
        )

    def _reason(self, calls_finished: int) -> FinishReason:
        reason = finish_reason(self.provider_reason, FINISH_REASONS, calls_finished)
        return FinishReason.REFUSAL if self.is_refusal and reason is FinishReason.END_TURN else reason


def _usage(given: dict[str, Any]) -> Usage:
    # {"prompt_tokens": 9, "completion_tokens": 12, "total_tokens": 21, "prompt_tokens_details": {"cached_tokens": 0},
    #  "completion_tokens_details": {"reasoning_tokens": 7}}
    prompt = given.get("prompt_tokens_details") or given.get("input_tokens_details") or {}
    answer = given.get("completion_tokens_details") or given.get("output_tokens_details") or {}
    input_tokens = count(given, "prompt_tokens") or count(given, "input_tokens")
    output_tokens = count(given, "completion_tokens") or count(given, "output_tokens")
    reasoning = count(answer, "reasoning_tokens") or count(given, "reasoning_tokens")  # Perplexity
    if reasoning and count(given, "total_tokens") == input_tokens + output_tokens + reasoning:
        output_tokens += reasoning  # xAI counts reasoning beside the completion
    return Usage(
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        cached_input_tokens=count(prompt, "cached_tokens")
        or count(given, "prompt_cache_hit_tokens")  # DeepSeek
        or count(given, "cached_tokens")  # Moonshot
        or count(given, "cache_read_input_tokens"),  # LiteLLM
        cache_creation_input_tokens=count(prompt, "cache_write_tokens")
        or count(prompt, "cache_creation_input_tokens")  # Alibaba
        or count(prompt, "cache_creation_tokens")  # LiteLLM
        or count(given, "cache_creation_input_tokens"),
        reasoning_tokens=reasoning,
    )
