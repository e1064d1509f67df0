"""Helpers of the wires' tests: events, readers of events, and checks of the chunks."""

from __future__ import annotations

import copy
import itertools
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import FrameType
from typing import Any

from hypothesis import strategies as st

from completion import (
    Base64Source,
    ChatRequest,
    ChatStream,
    CompletionError,
    Message,
    ReasoningDelta,
    ReasoningFinished,
    StreamChunk,
    ToolCallArgsDelta,
    ToolCallBlock,
    ToolCallFinished,
    ToolCallMalformed,
    ToolCallStarted,
    ToolDefinition,
    ToolResultBlock,
    Turn,
    TurnFinished,
    collect,
)
from completion.events import DONE as END_OF_EVENTS
from completion.testing import event
from completion.wires.anthropic import MESSAGES
from completion.wires.anthropic.dialect import VERSION, MessagesDialect
from completion.wires.arguments import parse_args
from completion.wires.openai_chat import CHAT_COMPLETIONS
from completion.wires.openai_chat.dialect import COMPATIBLE, OPENAI
from completion.wires.wire import Assemble, Lowered
from tests.loopback import DONE

PNG = Base64Source("image/png", "iVBORw==")
PDF = Base64Source("application/pdf", "JVBERg==")
TOOL = ToolDefinition("f", "Does f.", {"type": "object"})
IS_SAMPLED = bool(os.environ.get("SAMPLED"))
"""Whether long tables are sampled. tox sets it on all Pythons but one."""


def chunks_of(body: bytes, split: int | None = None) -> list[bytes]:
    """The body in pieces of ``split`` bytes, or as one piece."""
    step = split or max(len(body), 1)
    return [body[start : start + step] for start in range(0, len(body), step)]


def valid_around(message: Message) -> tuple[list[Message], int]:
    """A history in which the message is valid, and its place there: its calls have results, its results have calls."""
    asked = [ToolCallBlock(block.call_id, "f", {}) for block in message.blocks if isinstance(block, ToolResultBlock)]
    called = [ToolResultBlock(block.call_id, "r") for block in message.blocks if isinstance(block, ToolCallBlock)]
    if message.role == "user":
        return ([Message.user("q"), Message.assistant(asked), message], 2) if asked else ([message], 0)
    return [Message.user("q"), message, *([Message.user(called)] if called else [])], 1


def cuts_of(body: bytes) -> range:
    """The offsets at which a test cuts an answer: every byte, or a sample."""
    return range(0, len(body), 7 if IS_SAMPLED else 1)


def delta(_reason: str | None = None, **fields: Any) -> dict[str, Any]:
    """A chunk of Chat Completions with this delta."""
    choice = {"index": 0, "delta": fields, "finish_reason": _reason}
    return {"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": "m-1", "choices": [choice]}


def piece(
    index: int | None = 0, arguments: Any = None, *, id: str | None = None, name: str | None = None
) -> dict[str, Any]:
    """A piece of a tool call, with only the keys that are given."""
    function = {key: value for key, value in (("name", name), ("arguments", arguments)) if value is not None}
    own = {key: value for key, value in (("index", index), ("id", id)) if value is not None}
    return {**own, "type": "function", "function": function}


def calls(*pieces: dict[str, Any]) -> dict[str, Any]:
    """A chunk with pieces of tool calls."""
    return delta(tool_calls=list(pieces))


STOP = delta("stop")
"""The last chunk of an answer in Chat Completions."""
TOOLS = delta("tool_calls")
"""The last chunk of an answer with tool calls."""


# Events of Anthropic Messages, and what they contain.
PING = {"type": "ping"}
MESSAGE_STOP = {"type": "message_stop"}
CITATION = {"type": "char_location", "cited_text": "x", "document_index": 0}
LATER_CITATION = {**CITATION, "cited_text": "y"}


def block_start(index: Any, kind: str, **fields: Any) -> dict[str, Any]:
    """The event that starts a content block in Anthropic Messages."""
    return {"type": "content_block_start", "index": index, "content_block": {"type": kind, **fields}}


def block_delta(index: Any, kind: str, **fields: Any) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": {"type": kind, **fields}}


def block_stop(index: Any) -> dict[str, Any]:
    return {"type": "content_block_stop", "index": index}


def message_delta(reason: str | None, sequence: str | None = None, **fields: Any) -> dict[str, Any]:
    return {"type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": sequence}, **fields}


def error_event(kind: str, message: str = "no") -> dict[str, Any]:
    return {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_body"}


def text_block(index: Any, *pieces: str, **fields: Any) -> list[dict[str, Any]]:
    """The events of a text block in Anthropic Messages."""
    deltas = [block_delta(index, "text_delta", text=piece) for piece in pieces]
    return [block_start(index, "text", text="", **fields), *deltas, block_stop(index)]


def thinking_block(index: Any, *pieces: str, signature: str | None = "s") -> list[dict[str, Any]]:
    """The events of a thinking block."""
    deltas = [block_delta(index, "thinking_delta", thinking=piece) for piece in pieces]
    signed = [block_delta(index, "signature_delta", signature=signature)] if signature else []
    return [block_start(index, "thinking", thinking="", signature=""), *deltas, *signed, block_stop(index)]


def call_block(
    index: Any, *pieces: str, id: str = "c", name: str = "f", kind: str = "tool_use", **fields: Any
) -> list[dict[str, Any]]:
    """The events of a tool call."""
    deltas = [block_delta(index, "input_json_delta", partial_json=piece) for piece in pieces]
    return [block_start(index, kind, id=id, name=name, input={}, **fields), *deltas, block_stop(index)]


def anthropic_stream(*data: dict[str, Any]) -> bytes:
    """A body with these events, each named after its type. Half of a surrogate pair is escaped: it is not UTF-8."""
    lines = ((sent["type"], json.dumps(sent, ensure_ascii=False, separators=(",", ":"))) for sent in data)
    text = "".join(f"event: {name}\ndata: {line}\n\n" for name, line in lines)
    return re.sub("[\ud800-\udfff]", lambda half: f"\\u{ord(half[0]):04x}", text).encode()


def events(*data: Any) -> Iterator[tuple[str, Any]]:
    """The events for ``assemble``, with the default event name."""
    return (("message", value) for value in data)


def calls_in(chunks: Iterable[StreamChunk]) -> list[tuple[str, str, Any]]:
    """The calls of a turn: id, name, and the arguments, or their text if they are malformed."""
    found: list[tuple[str, str, Any]] = []
    for chunk in chunks:
        if isinstance(chunk, ToolCallFinished):
            found.append((chunk.call_id, chunk.name, chunk.args))
        if isinstance(chunk, ToolCallMalformed):
            found.append((chunk.call_id, chunk.name, chunk.raw))
    return found


def until_error(chunks: Iterable[StreamChunk]) -> tuple[list[StreamChunk], CompletionError | None]:
    """The chunks, and the error that ended them."""
    found: list[StreamChunk] = []
    try:
        for chunk in chunks:
            found.append(chunk)  # noqa: PERF402  the chunks before an error count
    except CompletionError as error:
        return found, error
    return found, None


class Reading:
    """Reads events with the ``assemble`` of one wire."""

    def __init__(self, assemble: Assemble) -> None:
        self._assemble = assemble

    def chunks(self, *data: Any) -> list[StreamChunk]:
        """The chunks of a turn. Fails if their order is wrong, or if the events were changed."""
        before = copy.deepcopy(data)
        found = list(self._assemble(events(*data), ignore_end))
        assert list(order_faults(found)) == []
        # A copy of END_OF_EVENTS, and NaN, are not equal to themselves.
        assert END_OF_EVENTS in data or repr(data) == repr(before)
        return found

    def content(self, *data: Any) -> list[StreamChunk]:
        """The chunks of a turn without TurnFinished."""
        return self.chunks(*data)[:-1]

    def turn(self, *data: Any) -> Turn:
        return collect(self.chunks(*data))

    def calls(self, *data: Any) -> list[tuple[str, str, Any]]:
        return calls_in(self.chunks(*data))

    def until_error(self, *data: Any) -> tuple[list[StreamChunk], CompletionError | None]:
        return until_error(self._assemble(events(*data), ignore_end))


def ignore_end(seconds: float | None) -> None:
    """For tests that do not look at the end of the turn."""


def broken_after(error: CompletionError, *data: Any) -> Iterator[tuple[str, Any]]:
    """Events, then the error."""
    yield from events(*data)
    raise error


def anything(keys: Sequence[str], texts: st.SearchStrategy[str]) -> st.SearchStrategy[Any]:
    """Any JSON value with these keys and texts."""
    return st.recursive(
        st.none() | st.booleans() | st.integers(-1, 2) | st.floats() | texts,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(keys), inner, max_size=4),
        max_leaves=8,
    )


def objects_with(other: st.SearchStrategy[Any], **values: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Objects with these keys. Each key may be missing, and its value may be any ``other`` value."""
    return st.fixed_dictionaries({}, optional={key: value | other for key, value in values.items()})


def texts_parsed(work: Callable[[], object]) -> list[str]:
    """The texts of arguments that are parsed while the work is done."""
    texts: list[str] = []

    def note(frame: FrameType, what: str, _: Any) -> None:
        if what == "call" and frame.f_code is parse_args.__code__:
            texts.append(frame.f_locals["text"])

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(before)
    return texts


def lines_run(work: Callable[[], object]) -> int:
    """How many lines of ours run while the work is done."""
    lines = 0

    def count(frame: FrameType, what: str, _: Any) -> Any:
        nonlocal lines
        lines += what == "line"
        return count if "completion" in frame.f_code.co_filename else None

    before = sys.gettrace()
    sys.settrace(count)
    try:
        work()
    finally:
        sys.settrace(before)
    return lines


def read_to_the_end(
    chat_stream: Callable[[ChatRequest], ChatStream], req: ChatRequest
) -> tuple[list[StreamChunk], CompletionError | None]:
    """The chunks of a stream, and the error that ended it."""
    try:
        stream = chat_stream(req)
    except CompletionError as error:
        return [], error
    with stream:
        return until_error(stream)


def body(*events: Any, done: bool = True) -> bytes:
    """A body with these events and ``[DONE]``."""
    return b"".join(event(data) for data in events) + (DONE if done else b"")


def order_faults(chunks: Iterable[StreamChunk], *, ended: bool = True) -> Iterator[str]:
    """Where the chunks break the contract's rules for the order of a turn."""
    opened: ToolCallStarted | None = None
    arguments, ids, in_reasoning, is_over = "", set[str](), False, False
    for chunk in chunks:
        if is_over:
            yield f"{chunk} after the end of the turn"
        if in_reasoning and not isinstance(chunk, ReasoningDelta | ReasoningFinished):
            yield f"{chunk} inside reasoning"
        if opened and not isinstance(chunk, ToolCallArgsDelta | ToolCallFinished | ToolCallMalformed):
            yield f"{chunk} inside a call"
        match chunk:
            case ReasoningDelta():
                in_reasoning = True
            case ReasoningFinished():
                in_reasoning = False
            case ToolCallStarted(call_id):
                if call_id in ids or not call_id:
                    yield f"the call id {call_id!r} is not unique"
                ids.add(call_id)
                opened, arguments = chunk, ""
            case ToolCallArgsDelta(call_id, text):
                if not opened or opened.call_id != call_id or not text:
                    yield f"{chunk} belongs to no call or is empty"
                arguments += text
            case ToolCallFinished(call_id, name) | ToolCallMalformed(call_id, name):
                if not opened or (opened.call_id, opened.name) != (call_id, name):
                    yield f"{chunk} closes no call"
                if isinstance(chunk, ToolCallMalformed) and chunk.raw != arguments:
                    yield f"{chunk} differs from its deltas {arguments!r}"
                opened = None
            case TurnFinished():
                is_over = True
        if getattr(chunk, "delta", "-") == "":
            yield f"{chunk} is empty"
    if ended and (opened or in_reasoning or not is_over):
        yield "something is still open at the end"


def interleaved(lengths: list[int], order: Iterable[int]) -> Iterator[int]:
    """From which of several sequences to take the next item: by ``order`` first, then one sequence after the other."""
    left = list(lengths)
    for which in itertools.chain(order, *([n] * length for n, length in enumerate(lengths))):
        which %= len(left)
        if left[which]:
            left[which] -= 1
            yield which


def openai_body(request: ChatRequest, model: str = "m", *, compatible: bool = False) -> Lowered:
    """The body for Chat Completions, and the dropped fields."""
    return CHAT_COMPLETIONS.body(request, model, COMPATIBLE if compatible else OPENAI)


def anthropic_body(
    request: ChatRequest, model: str = "m", *, version: str = VERSION, betas: Sequence[str] = ()
) -> Lowered:
    """The body for Anthropic Messages, and the dropped fields."""
    return MESSAGES.body(request, model, MessagesDialect(version, tuple(betas)))
