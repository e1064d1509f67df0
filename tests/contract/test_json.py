"""JSON of the contract: every object survives a round trip, and a wrong document is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import suppress
from functools import reduce
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from completion import (
    AudioBlock,
    Base64Source,
    Block,
    CacheControl,
    ChatRequest,
    DocumentBlock,
    FileSource,
    FinishReason,
    ImageBlock,
    JsonSchema,
    Message,
    ProviderBlock,
    ProviderBlockFinished,
    ReasoningBlock,
    ReasoningDelta,
    ReasoningFinished,
    RedactedReasoning,
    RedactedReasoningBlock,
    Source,
    StreamChunk,
    SystemBlock,
    TextBlock,
    TextDelta,
    ToolCallArgsDelta,
    ToolCallBlock,
    ToolCallFinished,
    ToolCallMalformed,
    ToolCallStarted,
    ToolChoice,
    ToolDefinition,
    ToolResultBlock,
    Turn,
    TurnFinished,
    UrlSource,
    Usage,
)
from tests.wire_pieces import IS_SAMPLED

# --- strategies: every class of the contract -------------------------------------------------------------------------

texts = st.text(st.characters(), max_size=8)  # includes half surrogate pairs
names = st.text(min_size=1, max_size=8)
maybe_text = st.none() | texts
numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
objects = st.dictionaries(texts, values, max_size=3)

usages = st.builds(Usage, *[st.integers(0, 10**18)] * 7)
malformed_calls = st.builds(ToolCallMalformed, texts, texts, texts, texts)
finished = st.builds(
    TurnFinished,
    st.sampled_from(FinishReason),
    st.none() | usages,
    maybe_text,
    maybe_text,
    maybe_text,
    maybe_text,
    maybe_text,
)
chunks: st.SearchStrategy[StreamChunk] = st.one_of(
    st.builds(TextDelta, texts),
    st.builds(ReasoningDelta, texts),
    st.builds(ReasoningFinished, maybe_text),
    st.builds(RedactedReasoning, texts),
    st.builds(ToolCallStarted, texts, texts),
    st.builds(ToolCallArgsDelta, texts, texts),
    st.builds(ToolCallFinished, texts, texts, objects, maybe_text),
    malformed_calls,
    st.builds(ProviderBlockFinished, texts, objects),
    finished,
)

caches = st.none() | st.builds(CacheControl, st.sampled_from(["5m", "1h"]))
sources: st.SearchStrategy[Source] = st.one_of(
    st.builds(Base64Source, st.just("image/png"), st.binary(min_size=1)),
    st.builds(UrlSource, names),
    st.builds(FileSource, names),
)
plain_blocks: st.SearchStrategy[Block] = st.one_of(
    st.builds(TextBlock, texts, cache_control=caches),
    st.builds(ImageBlock, sources, cache_control=caches),
    st.builds(DocumentBlock, sources, maybe_text, cache_control=caches),
    st.builds(AudioBlock, sources, cache_control=caches),
    st.builds(ToolCallBlock, texts, texts, objects, maybe_text, cache_control=caches),
    st.builds(ReasoningBlock, texts, maybe_text, cache_control=caches),
    st.builds(RedactedReasoningBlock, texts, cache_control=caches),
    st.builds(ProviderBlock, texts, objects, cache_control=caches),
)
blocks: st.SearchStrategy[Block] = plain_blocks | st.builds(
    ToolResultBlock, texts, st.lists(plain_blocks, max_size=2), st.booleans(), cache_control=caches
)
messages = st.builds(Message, st.sampled_from(["user", "assistant"]), st.lists(blocks, max_size=2))
tools = st.builds(
    ToolDefinition,
    names,
    texts,
    objects,
    st.lists(names, max_size=2),
    st.none() | st.booleans(),
    cache_control=caches,
)
requests = st.builds(
    ChatRequest,
    names | st.lists(messages, min_size=1, max_size=2),
    st.integers(1),
    st.none() | texts | st.lists(st.builds(SystemBlock, texts, caches), max_size=2),
    st.lists(tools, max_size=2, unique_by=lambda tool: tool.name),
    st.none() | st.sampled_from([ToolChoice.auto(), ToolChoice.none()]),
    st.none() | st.booleans(),
    st.none() | st.floats(allow_nan=False, allow_infinity=False),
    st.none() | st.floats(0, 1),
    st.none() | st.integers(0),
    st.none() | st.integers(),
    st.lists(names, max_size=2),
    st.none() | st.sampled_from(["minimal", "low", "medium", "high"]) | st.integers(0),
    st.none() | st.just("json") | st.builds(JsonSchema, names, objects, st.booleans()),
    st.none() | objects,
)
turns = st.builds(
    Turn,
    messages,
    st.none() | st.sampled_from(FinishReason),
    st.none() | usages,
    maybe_text,
    maybe_text,
    maybe_text,
    maybe_text,
    maybe_text,
    st.lists(malformed_calls, max_size=2).map(tuple),
)

few_examples = settings(
    max_examples=12 if IS_SAMPLED else 60, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


# --- round trips -----------------------------------------------------------------------------------------------------


@few_examples
@given(chunks)
def test_from_json_returns_the_chunk(chunk: StreamChunk) -> None:
    assert StreamChunk.from_json(chunk.to_json()) == chunk
    assert type(chunk).from_dict(chunk.to_dict()) == chunk
    assert chunk.to_dict()["type"] == chunk.type


@few_examples
@given(blocks)
def test_from_json_returns_the_block(block: Block) -> None:
    assert Block.from_json(block.to_json().encode()) == block


@few_examples
@given(messages)
def test_from_json_returns_the_message(message: Message) -> None:
    assert Message.from_json(message.to_json()) == message


@few_examples
@given(requests)
def test_from_json_returns_the_request(req: ChatRequest) -> None:
    assert ChatRequest.from_json(req.to_json(indent=1)) == req


@few_examples
@given(turns)
def test_from_json_returns_the_turn(turn: Turn) -> None:
    assert Turn.from_json(turn.to_json()) == turn


@few_examples
@given(usages)
def test_from_json_returns_the_usage(usage: Usage) -> None:
    assert Usage.from_json(usage.to_json()) == usage


@few_examples
@given(requests, values)
def test_unknown_keys_are_ignored(req: ChatRequest, value: Any) -> None:
    def with_unknown_keys(document: Any) -> Any:
        document["unknown"] = value
        for message in document["messages"]:
            message["unknown"] = value
            for block in message["blocks"]:
                block["unknown"] = value
        return document

    assert ChatRequest.from_dict(with_unknown_keys(req.to_dict())) == req


@few_examples
@given(st.sampled_from([StreamChunk, Block, Message, ChatRequest, Turn, Usage, Source]), values)
def test_from_dict_returns_an_object_or_raises_value_error(kind: Any, document: Any) -> None:
    with suppress(ValueError):
        assert isinstance(kind.from_dict(document), kind)


@few_examples
@given(requests, st.data())
def test_from_dict_of_a_damaged_request_returns_an_object_or_raises_value_error(
    req: ChatRequest, data: st.DataObject
) -> None:
    document = req.to_dict()
    place: Any = document
    while isinstance(place, dict | list) and place:
        key = data.draw(st.sampled_from(list(place) if isinstance(place, dict) else range(len(place))))
        if not isinstance(place[key], dict | list) or not place[key] or data.draw(st.booleans()):
            place[key] = data.draw(values)
            break
        place = place[key]
    try:
        read = ChatRequest.from_dict(document)
    except ValueError:
        return
    assert ChatRequest.from_dict(read.to_dict()) == read


# --- the JSON --------------------------------------------------------------------------------------------------------

USAGE_JSON = (
    '{"input_tokens": 7, "output_tokens": 2, "cached_input_tokens": 5, "cache_creation_input_tokens": 0, '
    '"cache_creation_5m_tokens": 0, "cache_creation_1h_tokens": 0, "reasoning_tokens": 1}'
)


@pytest.mark.parametrize(
    ("chunk", "text"),
    [
        (TextDelta("ü"), '{"type": "text_delta", "delta": "ü"}'),
        (ReasoningDelta("a"), '{"type": "reasoning_delta", "delta": "a"}'),
        (ReasoningFinished(), '{"type": "reasoning_finished", "signature": null, "provider": null}'),
        (RedactedReasoning("a"), '{"type": "redacted_reasoning", "data": "a", "provider": null}'),
        (ToolCallStarted("a", "b"), '{"type": "tool_call_started", "call_id": "a", "name": "b"}'),
        (ToolCallArgsDelta("a", "{"), '{"type": "tool_call_args_delta", "call_id": "a", "delta": "{"}'),
        (
            ToolCallFinished("a", "b", {"x": [1, None, True]}),
            '{"type": "tool_call_finished", "call_id": "a", "name": "b", "args": {"x": [1, null, true]}, '
            '"signature": null, "provider": null}',
        ),
        (
            ToolCallMalformed("a", "b", "[", "why"),
            '{"type": "tool_call_malformed", "call_id": "a", "name": "b", "raw": "[", "error": "why"}',
        ),
        (ProviderBlockFinished("a", {}), '{"type": "provider_block", "provider": "a", "data": {}}'),
        (
            TurnFinished(FinishReason.TOOL_USE, Usage(7, 2, 5, reasoning_tokens=1), response_id="r"),
            f'{{"type": "turn_finished", "reason": "tool_use", "usage": {USAGE_JSON}, "service_tier": null, '
            '"provider_reason": null, "stop_sequence": null, "response_id": "r", "response_model": null}',
        ),
    ],
)
def test_a_chunk_has_this_json(chunk: StreamChunk, text: str) -> None:
    assert chunk.to_json() == text


@pytest.mark.parametrize(
    ("block", "document"),
    [
        (TextBlock("a"), {"type": "text", "cache_control": None, "text": "a"}),
        (
            ImageBlock(UrlSource("u"), cache_control=CacheControl("1h")),
            {"type": "image", "cache_control": {"ttl": "1h"}, "source": {"type": "url", "url": "u"}},
        ),
        (
            DocumentBlock(FileSource("f"), "n"),
            {"type": "document", "cache_control": None, "source": {"type": "file", "file_id": "f"}, "name": "n"},
        ),
        (
            AudioBlock(Base64Source("audio/wav", b"\x00")),
            {
                "type": "audio",
                "cache_control": None,
                "source": {"type": "base64", "media_type": "audio/wav", "data": "AA=="},
            },
        ),
        (
            ToolResultBlock("c", "17"),
            {
                "type": "tool_result",
                "cache_control": None,
                "call_id": "c",
                "blocks": [{"type": "text", "cache_control": None, "text": "17"}],
                "is_error": False,
            },
        ),
    ],
)
def test_a_block_has_this_json(block: Block, document: dict[str, Any]) -> None:
    assert block.to_dict() == document


def test_a_key_with_a_default_is_optional() -> None:
    short = '{"messages": [{"role": "user", "blocks": [{"type": "text", "text": "hi"}]}]}'
    assert ChatRequest.from_json(short) == ChatRequest("hi")
    assert TextDelta.from_dict({"delta": "a"}) == TextDelta("a")


TEXT = {"type": "text", "text": "a"}
CALL = {"type": "tool_call", "call_id": "c", "name": "f", "args": {}}


def message(*blocks: dict[str, Any]) -> dict[str, Any]:
    return {"role": "user", "blocks": [*blocks]}


def request(**fields: Any) -> dict[str, Any]:
    return {"messages": [message(TEXT)], **fields}


@pytest.mark.parametrize(
    ("kind", "document", "fault"),
    [
        (Message, [], "Message: expected an object, got list"),
        (Message, {"blocks": []}, "Message.role is missing"),
        (Message, {"role": "system", "blocks": []}, "Message.role: expected 'user' or 'assistant', got 'system'"),
        (Message, {"role": "user", "blocks": "hi"}, "Message.blocks: expected a list, got 'hi'"),
        (Message, message(TEXT, {**CALL, "args": '{"a": 1}'}), "Message.blocks[1].args: expected an object, got"),
        (
            Message,
            message(TEXT, {**CALL, "args": {1: 2}}),
            "Message.blocks[1].args: the keys of an object must be strings",
        ),
        (Message, message({**TEXT, "text": {"a": 1}}), "Message.blocks[0].text: expected a string, got dict"),
        (Message, message({**TEXT, "cache_control": {"ttl": "1d"}}), "Message.blocks[0].cache_control.ttl: expected"),
        (Message, message({"type": "video"}), "Message.blocks[0].type: expected one of ['audio', 'document', "),
        (Message, message({"text": "a"}), "Message.blocks[0].type: expected one of"),
        (Message, message({"type": ["text"], "text": "a"}), "Message.blocks[0].type: expected one of"),
        (
            Message,
            message({"type": "tool_result", "call_id": "c", "blocks": [CALL, {"type": "text"}]}),
            "Message.blocks[0].blocks[1].text is missing",
        ),
        (
            Message,
            message({"type": "tool_result", "call_id": "c", "blocks": [], "is_error": "false"}),
            "Message.blocks[0].is_error: expected true or false, got 'false'",
        ),
        (
            Message,
            message({"type": "image", "source": {"type": "url", "file_id": "f"}}),
            "Message.blocks[0].source.url is missing",
        ),
        (StreamChunk, {"delta": "a"}, "StreamChunk.type: expected one of"),
        (StreamChunk, {"type": "text_delta", "delta": None}, "StreamChunk.delta: expected a string, got NoneType"),
        (StreamChunk, {"type": "turn_finished", "reason": "bored"}, "StreamChunk.reason: expected 'end_turn' or "),
        (StreamChunk, {"type": "turn_finished", "reason": ["stop"]}, "StreamChunk.reason: expected 'end_turn' or "),
        (
            StreamChunk,
            {"type": "turn_finished", "reason": "other", "usage": {"input_tokens": 1.5}},
            "StreamChunk.usage.input_tokens: expected a whole number, got float",
        ),
        (TextDelta, {"type": "reasoning_delta", "delta": "a"}, "TextDelta.type: expected 'text_delta', got 'reas"),
        (Usage, {"input_tokens": True}, "Usage.input_tokens: expected a whole number, got bool"),
        (ChatRequest, request(max_tokens="5"), "ChatRequest.max_tokens: expected a whole number, got '5'"),
        (ChatRequest, request(temperature=True), "ChatRequest.temperature: expected a number or null, got bool"),
        (ChatRequest, request(temperature=10**400), "ChatRequest.temperature: expected a number or null, got int"),
        (ChatRequest, request(system_prompt=5), "ChatRequest.system_prompt: expected a string or a list or null, got"),
        (ChatRequest, request(system_prompt=["a"]), "ChatRequest.system_prompt[0]: expected an object, got 'a'"),
        (ChatRequest, request(system_prompt=[{"text": 5}]), "ChatRequest.system_prompt[0].text: expected a string"),
        (ChatRequest, request(stop_sequences=[1]), "ChatRequest.stop_sequences[0]: expected a string, got int"),
        (ChatRequest, request(stop_sequences=[""]), "ChatRequest.stop_sequences[0] must not be empty"),
        (ChatRequest, request(response_format={"name": "n"}), "ChatRequest.response_format.schema is missing"),
        (ChatRequest, request(response_format=[]), "ChatRequest.response_format: expected an object or 'json' or null"),
        (ChatRequest, request(additional_params=[]), "ChatRequest.additional_params: expected an object or null, got"),
        (ChatRequest, request(max_tokens=0), "ChatRequest.max_tokens must be at least 1, got 0"),
    ],
)
def test_the_error_for_a_wrong_document_contains_the_path_of_the_field(kind: Any, document: Any, fault: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011  the text is what this tests
        kind.from_dict(document)
    assert str(caught.value).startswith(fault)


# --- rare values -----------------------------------------------------------------------------------------------------


def test_half_a_surrogate_pair_is_escaped() -> None:
    assert TextDelta("\ud800ü").to_json() == '{"type": "text_delta", "delta": "\\ud800\\u00fc"}'


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_nan_and_infinity_are_refused(number: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        ToolCallBlock("c", "f", {"a": [number]}).to_json()


def test_bytes_in_the_arguments_are_refused() -> None:
    with pytest.raises(TypeError, match="bytes is not JSON serializable"):
        ToolCallBlock("c", "f", {"a": b"x"}).to_json()


def test_integers_may_have_any_size() -> None:
    chunk = ToolCallFinished("c", "f", {"a": 2**200, "b": -(2**63)})
    assert StreamChunk.from_json(chunk.to_json()) == chunk


def test_a_float_without_a_fraction_stays_a_float() -> None:
    assert ToolCallFinished("c", "f", {"a": 1.0, "b": 1}).to_json().count("1.0") == 1


def deep(levels: int) -> dict[str, Any]:
    return reduce(lambda inner, _: {"a": inner}, range(levels), {})


def test_arguments_may_be_nested() -> None:
    chunk = ToolCallFinished("c", "f", deep(100))
    assert StreamChunk.from_json(chunk.to_json()) == chunk


def test_deep_nesting_is_a_value_error() -> None:
    text = '{"type": "provider_block", "provider": "p", "data": ' + '{"a":' * 200_000 + "1" + "}" * 200_001
    with pytest.raises(ValueError, match="nested too deeply"):
        StreamChunk.from_json(text)
    with pytest.raises(ValueError, match="nested too deeply"):
        ToolCallFinished("c", "f", deep(50_000)).to_dict()
    with pytest.raises(ValueError, match="nested too deeply"):
        StreamChunk.from_dict({"type": "provider_block", "provider": "p", "data": deep(50_000)})


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"text_delta"', b"\xff"])
def test_bad_json_is_a_value_error(text: str | bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  the words are json's own
        StreamChunk.from_json(text)


def test_the_document_shares_nothing_with_the_object() -> None:
    req = ChatRequest(
        [Message.assistant([ToolCallBlock("c", "f", {"a": {"b": [1]}})])],
        tools=[ToolDefinition("f", "", {"properties": {"a": {}}})],
        response_format=JsonSchema("n", {"s": {"t": 1}}),
        additional_params={"p": {"q": 1}},
    )
    before = req.to_json()
    document = req.to_dict()
    document["messages"][0]["blocks"][0]["args"]["a"]["b"].append(2)
    document["tools"][0]["input_schema"]["properties"].clear()
    document["response_format"]["schema"]["s"].clear()
    document["additional_params"]["p"].clear()
    assert req.to_json() == before


def test_the_object_shares_nothing_with_the_document() -> None:
    document = {"type": "tool_call_finished", "call_id": "c", "name": "f", "args": {"a": {"b": [1]}}}
    chunk = ToolCallFinished.from_dict(document)
    document["args"]["a"]["b"].append(2)  # type: ignore[index]
    assert chunk.args == {"a": {"b": [1]}}


def test_a_tuple_in_the_arguments_becomes_a_list() -> None:
    assert ToolCallFinished("c", "f", {"a": (1, ("x",))}).to_dict()["args"] == {"a": [1, ["x"]]}


def test_chunks_have_no_dict() -> None:
    assert not hasattr(TextDelta("a"), "__dict__")


def test_import_completion_does_not_import_slow_packages() -> None:
    script = (
        "import sys, json, completion;"
        "print(json.dumps(sorted({'dataclasses_json', 'marshmallow', 'backoff', 'asyncio'} & set(sys.modules))))"
    )
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert json.loads(loaded) == []
