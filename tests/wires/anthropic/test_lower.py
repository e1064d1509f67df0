"""From a ChatRequest to the JSON body of Anthropic Messages: tables of literals."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import pytest

from completion import (
    AudioBlock,
    Base64Source,
    Block,
    CacheControl,
    ChatRequest,
    DocumentBlock,
    FileSource,
    ImageBlock,
    JsonSchema,
    Message,
    ProviderBlock,
    ReasoningBlock,
    RedactedReasoningBlock,
    SystemBlock,
    TextBlock,
    ToolCallBlock,
    ToolChoice,
    ToolDefinition,
    ToolResultBlock,
    UnsupportedContentError,
    UrlSource,
)
from completion.wires.history import NO_RESULT
from tests.wire_pieces import CITATION, LATER_CITATION, PDF, PNG, TOOL, anthropic_body, valid_around

OLD, NEW = "claude-sonnet-4-5-20250929", "claude-opus-4-7"
TOOL_JSON = {"name": "f", "description": "Does f.", "input_schema": {"type": "object", "properties": {}}}
SERVER_TOOL = {"type": "web_search_20250305", "name": "web_search"}
PNG_JSON = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw=="}}
# cache_control as it is sent.
FIVE, HOUR = {"type": "ephemeral"}, {"type": "ephemeral", "ttl": "1h"}
SCHEMA = JsonSchema("n", {"type": "object", "properties": {"a": {"type": "string"}}})
FORMAT = {"type": "json_schema", "schema": {**SCHEMA.schema, "additionalProperties": False}}

HI = [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]
MINIMAL: dict[str, Any] = {"model": OLD, "max_tokens": 4096, "messages": HI, "stream": True}


def payload(req: ChatRequest, model: str = OLD, **options: Any) -> dict[str, Any]:
    return anthropic_body(req, model, **options)[0]


def messages(*sent: Message) -> list[Any]:
    found: list[Any] = payload(ChatRequest(sent))["messages"]
    return found


def parts(message: Message) -> Any:
    """The content of the message, sent in a valid history."""
    history, place = valid_around(message)
    found = messages(*history)[place]
    assert found["role"] == message.role
    return found["content"]


def text(said: str, **fields: Any) -> dict[str, Any]:
    return {"type": "text", "text": said, **fields}


# Fields

FIELDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "messages": ("hello", {"messages": [{"role": "user", "content": [text("hello")]}]}),
    "max_tokens": (7, {"max_tokens": 7}),
    "system_prompt": ("Be brief.", {"system": "Be brief."}),
    "tools": ([TOOL], {"tools": [TOOL_JSON]}),
    "tool_choice": (ToolChoice.any(), {"tools": [TOOL_JSON], "tool_choice": {"type": "any"}}),
    "parallel_tool_use": (
        False,
        {"tools": [TOOL_JSON], "tool_choice": {"type": "auto", "disable_parallel_tool_use": True}},
    ),
    "temperature": (0.0, {"temperature": 0.0}),
    "top_p": (0.5, {"top_p": 0.5}),
    "top_k": (5, {"top_k": 5}),
    "seed": (0, {}),
    "stop_sequences": (["a", "b"], {"stop_sequences": ["a", "b"]}),
    "reasoning_effort": (
        "low",
        {"max_tokens": 4096 + 1024, "thinking": {"type": "enabled", "budget_tokens": 1024}},
    ),
    "response_format": (SCHEMA, {"output_config": {"format": FORMAT}}),
    "additional_params": ({"metadata": {"user_id": "u"}}, {"metadata": {"user_id": "u"}}),
}


def test_a_request_with_nothing_set_is_the_minimal_body() -> None:
    assert anthropic_body(ChatRequest("hi"), OLD) == (MINIMAL, [])


@pytest.mark.parametrize("name", [field.name for field in fields(ChatRequest)])
def test_every_field_changes_the_body_or_is_reported_as_dropped(name: str) -> None:
    value, change = FIELDS[name]
    tools = [TOOL] if name in ("tool_choice", "parallel_tool_use") else []
    body, dropped = anthropic_body(ChatRequest(**{"messages": "hi", "tools": tools, name: value}), OLD)
    assert body == {**MINIMAL, **change}
    assert dropped == ([name] if name == "seed" else [])
    assert change or dropped


@pytest.mark.parametrize(
    ("given", "change"),
    [
        ({"system_prompt": ""}, {}),
        ({"system_prompt": " \n"}, {}),
        ({"system_prompt": [SystemBlock("")]}, {}),
        ({"system_prompt": [SystemBlock("One."), SystemBlock(""), SystemBlock("Two.")]}, {"system": "One.\n\nTwo."}),
        (
            {"system_prompt": [SystemBlock("One."), SystemBlock(" "), SystemBlock("Two.", CacheControl())]},
            {"system": [text("One."), text("Two.", cache_control=FIVE)]},
        ),
        (
            {"tools": [TOOL], "tool_choice": ToolChoice.auto()},
            {"tools": [TOOL_JSON], "tool_choice": {"type": "auto"}},
        ),
        (
            {"tools": [TOOL], "tool_choice": ToolChoice.none()},
            {"tools": [TOOL_JSON], "tool_choice": {"type": "none"}},
        ),
        (
            {"tools": [TOOL], "tool_choice": ToolChoice.tool("f")},
            {"tools": [TOOL_JSON], "tool_choice": {"type": "tool", "name": "f"}},
        ),
        (
            {"tools": [TOOL], "tool_choice": ToolChoice.tool("f"), "parallel_tool_use": False},
            {
                "tools": [TOOL_JSON],
                "tool_choice": {"type": "tool", "name": "f", "disable_parallel_tool_use": True},
            },
        ),
        (
            {"tools": [TOOL], "parallel_tool_use": True},
            {"tools": [TOOL_JSON], "tool_choice": {"type": "auto", "disable_parallel_tool_use": False}},
        ),
        (
            {"tools": [TOOL], "tool_choice": ToolChoice.none(), "parallel_tool_use": False},
            {"tools": [TOOL_JSON], "tool_choice": {"type": "none"}},
        ),
        ({"tool_choice": ToolChoice.auto()}, {}),
        ({"parallel_tool_use": False}, {}),
        (
            {"additional_params": {"tools": [SERVER_TOOL]}, "parallel_tool_use": False},
            {"tools": [SERVER_TOOL], "tool_choice": {"type": "auto", "disable_parallel_tool_use": True}},
        ),
        (
            {"tools": [ToolDefinition("g", "", {}, tags=["x"], strict=True)]},
            {
                "tools": [
                    {
                        "name": "g",
                        "input_schema": {"type": "object", "properties": {}, "additionalProperties": False},
                        "strict": True,
                    }
                ]
            },
        ),
        (
            {"tools": [ToolDefinition("g", "", {"properties": {}}, strict=False)]},
            {"tools": [{"name": "g", "input_schema": {"type": "object", "properties": {}}, "strict": False}]},
        ),
        ({"response_format": JsonSchema("n", SCHEMA.schema, strict=False)}, {"output_config": {"format": FORMAT}}),
        ({"additional_params": {"stop_sequences": ["x"]}}, {"stop_sequences": ["x"]}),
        ({"temperature": 0.5, "additional_params": {"temperature": None}}, {}),
        ({"additional_params": {"max_tokens": 5, "user": None}}, {"max_tokens": 5}),
        ({"additional_params": {}}, {}),
    ],
    ids=[
        "empty system", "blank system", "empty system block", "system blocks", "cached system block", "auto", "none",
        "tool", "tool, one call", "several calls", "none, one call", "choice without tools", "one call without tools",
        "one call of server tools", "strict tool", "tool without type", "lax schema", "another stop", "deleted field",
        "replaced field", "empty params",
    ],
)  # fmt: skip
def test_a_value_becomes_these_fields(given: dict[str, Any], change: dict[str, Any]) -> None:
    assert payload(ChatRequest("hi", **given)) == {**MINIMAL, **change}


def test_json_without_a_schema_is_refused() -> None:
    with pytest.raises(UnsupportedContentError, match=r"response_format='json'.*JsonSchema"):
        anthropic_body(ChatRequest("hi", response_format="json"), OLD)


def test_additional_params_are_merged_into_the_body() -> None:
    req = ChatRequest("hi", response_format=SCHEMA, additional_params={"output_config": {"effort": "max"}})
    assert payload(req)["output_config"] == {"format": FORMAT, "effort": "max"}


# Thinking


def thinks_up_to(budget: int) -> dict[str, Any]:
    return {"max_tokens": 4096 + budget, "thinking": {"type": "enabled", "budget_tokens": budget}}


def adapts(effort: str) -> dict[str, Any]:
    return {"thinking": {"type": "adaptive"}, "output_config": {"effort": effort}}


# What a reasoning_effort becomes, by the version of the model.
DISABLED: dict[str, Any] = {"thinking": {"type": "disabled"}}
LOW: dict[str, Any] = {"output_config": {"effort": "low"}}

BUDGET_ONLY: dict[str | int, dict[str, Any]] = {
    "none": DISABLED,
    "low": thinks_up_to(1024),
    "medium": thinks_up_to(4096),
    "high": thinks_up_to(16384),
    0: DISABLED,
    1: thinks_up_to(1024),
    1024: thinks_up_to(1024),
    30_000: thinks_up_to(30_000),
}
BUDGET_OR_EFFORT: dict[str | int, dict[str, Any]] = {
    "minimal": LOW,
    "low": adapts("low"),
    "medium": adapts("medium"),
    "high": adapts("high"),
    0: DISABLED,
    1: thinks_up_to(1024),
    30_000: thinks_up_to(30_000),
}
EFFORT_ONLY: dict[str | int, dict[str, Any]] = {
    "low": adapts("low"),
    "medium": adapts("medium"),
    "high": adapts("high"),
    0: DISABLED,
    1: adapts("low"),
    2047: adapts("low"),
    2048: adapts("medium"),
    8191: adapts("medium"),
    8192: adapts("high"),
}
MODELS = {
    "claude-3-7-sonnet-20250219": BUDGET_ONLY,
    "claude-3.7-sonnet": BUDGET_ONLY,
    "claude-3-7-sonnet-latest": BUDGET_ONLY,
    "claude-sonnet-4-20250514": BUDGET_ONLY,
    "claude-opus-4@20250514": BUDGET_ONLY,
    "claude-opus-4-1-20250805": BUDGET_ONLY,
    "us.anthropic.claude-sonnet-4-5-20250929-v1:0": BUDGET_ONLY,
    "kimi-k2": BUDGET_ONLY,
    "claude-opus-4-6": BUDGET_OR_EFFORT,
    "claude-opus-4-6-20260205": BUDGET_OR_EFFORT,
    "anthropic/claude-opus-4.6": BUDGET_OR_EFFORT,
    "claude-opus-4-7": EFFORT_ONLY,
    "anthropic.claude-opus-4-7-v1": EFFORT_ONLY,
    "Claude-Opus-4.8": EFFORT_ONLY,
    "claude-opus-5": EFFORT_ONLY,
    "claude-opus-5-20270101": EFFORT_ONLY,
    "claude-sonnet-latest": EFFORT_ONLY,
}


@pytest.mark.parametrize("model", MODELS)
def test_thinking_depends_on_the_version_of_the_model(model: str) -> None:
    for effort, change in MODELS[model].items():
        req = ChatRequest("hi", **{"reasoning_effort": effort})  # type: ignore[arg-type]
        is_other_kind = isinstance(effort, int) and effort > 0 and MODELS[model] is EFFORT_ONLY
        dropped = ["reasoning_effort"] if is_other_kind else []
        assert anthropic_body(req, model) == ({**MINIMAL, "model": model, **change}, dropped), effort


def test_effort_and_schema_are_in_one_object() -> None:
    body = payload(ChatRequest("hi", reasoning_effort="high", response_format=SCHEMA), NEW)
    assert body["output_config"] == {"effort": "high", "format": FORMAT}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"tools": [TOOL], "tool_choice": ToolChoice.any()}, "tool_choice.*forced"),
        ({"tools": [TOOL], "tool_choice": ToolChoice.tool("f")}, "tool_choice.*forced"),
    ],
    ids=["any", "tool"],
)
@pytest.mark.parametrize("model", [OLD, NEW])
def test_a_forced_call_contradicts_thinking(model: str, given: dict[str, Any], words: str) -> None:
    with pytest.raises(UnsupportedContentError, match=words):
        anthropic_body(ChatRequest("hi", reasoning_effort="low", **given), model)
    assert anthropic_body(ChatRequest("hi", **given), model)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"temperature": 0.5}, "temperature.*thinks"),
        ({"top_p": 0.9}, "top_p.*thinks"),
        ({"top_k": 5}, "top_k.*thinks"),
        ({"top_k": 1}, "top_k.*thinks"),
    ],
    ids=["temperature", "top_p", "top_k", "top_k of one"],
)
@pytest.mark.parametrize("model", [OLD, "claude-opus-4-6"])
def test_options_that_contradict_thinking_are_refused(model: str, given: dict[str, Any], words: str) -> None:
    with pytest.raises(UnsupportedContentError, match=words):
        anthropic_body(ChatRequest("hi", reasoning_effort="low", **given), model)
    assert anthropic_body(ChatRequest("hi", **given), model)


@pytest.mark.parametrize(
    "given",
    [
        {"tools": [TOOL], "tool_choice": ToolChoice.auto()},
        {"tools": [TOOL], "tool_choice": ToolChoice.none()},
        {"temperature": 1.0},
        {"top_p": 0.95},
        {"temperature": 0.2, "additional_params": {"temperature": None}},
        {"temperature": 0.2, "additional_params": {"thinking": {"type": "disabled", "budget_tokens": None}}},
    ],
    ids=["auto", "none", "temperature of one", "top_p near one", "deleted", "no thinking after all"],
)
def test_options_that_are_allowed_with_thinking_are_sent(given: dict[str, Any]) -> None:
    body = payload(ChatRequest("hi", reasoning_effort="low", **given))
    assert body["thinking"]["type"] in ("enabled", "disabled")


SAMPLING = {"temperature": 0.5, "top_p": 0.9, "top_k": 5}


@pytest.mark.parametrize("model", ["claude-opus-4-7", "claude-opus-5", "claude-sonnet-5-5"])
def test_models_that_refuse_sampling_get_none(model: str) -> None:
    body, dropped = anthropic_body(ChatRequest("hi", temperature=0.5, top_p=0.9, top_k=5), model)
    assert not SAMPLING.keys() & body.keys()
    assert dropped == list(SAMPLING)
    with pytest.raises(UnsupportedContentError, match=f"{model} does not support temperature"):
        anthropic_body(ChatRequest("hi", additional_params={"temperature": 1}), model)


@pytest.mark.parametrize(
    "model", ["claude-opus-4-6", "claude-sonnet-latest", "anthropic.claude-v2:1", "claude-instant"]
)
def test_other_models_get_the_sampling_that_was_asked_for(model: str) -> None:
    body, dropped = anthropic_body(ChatRequest("hi", temperature=0.5, top_p=0.9, top_k=5), model)
    assert {name: body[name] for name in SAMPLING} == SAMPLING
    assert dropped == []


@pytest.mark.parametrize("model", ["anthropic.claude-v2:1", "claude-instant", "claude-instant-1.2", "claude-2.1"])
def test_the_first_models_are_not_taken_for_the_newest(model: str) -> None:
    body, _ = anthropic_body(ChatRequest("hi", reasoning_effort="low"), model)
    assert body["thinking"]["type"] == "enabled"


@pytest.mark.parametrize(("model", "kind"), [("claude-opus-5", "disabled"), ("claude-sonnet-5-5", "between_tools")])
@pytest.mark.parametrize("effort", ["xhigh", "max"])
def test_a_great_effort_without_thinking_is_refused(model: str, kind: str, effort: str) -> None:
    params = {"output_config": {"effort": effort}}
    with pytest.raises(UnsupportedContentError, match=rf"output_config\.effort.*{model} refuses '{effort}'"):
        anthropic_body(ChatRequest("hi", reasoning_effort="none", additional_params=params), model)
    params = {"output_config": {"effort": "high"}}
    body, _ = anthropic_body(ChatRequest("hi", reasoning_effort="none", additional_params=params), model)
    assert body["thinking"] == {"type": kind}


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (Message.assistant([ProviderBlock("anthropic", {"type": "document", "source": {}})]), "refuses a document"),
        (
            Message.user([ProviderBlock("anthropic", {"type": "text", "text": "a", "citations": [{"url": "u"}]})]),
            "refuses citations",
        ),
    ],
    ids=["document", "citations"],
)
def test_the_newer_version_of_the_api_refuses_some_blocks(message: Message, words: str) -> None:
    request = ChatRequest([Message.user("hi"), message, Message.user("go on")])
    with pytest.raises(UnsupportedContentError, match=f"version 2026-10-21 of the API {words}"):
        payload(request, version="2026-10-21")
    assert payload(request)


def test_a_budget_over_max_tokens_is_refused() -> None:
    thinking = {"thinking": {"type": "enabled", "budget_tokens": 4096}}
    with pytest.raises(UnsupportedContentError, match=r"budget_tokens.*must be below max_tokens, 4096, got 4096"):
        payload(ChatRequest("hi", additional_params=thinking))
    req = ChatRequest("hi", reasoning_effort="high", additional_params={"max_tokens": 100})
    with pytest.raises(UnsupportedContentError, match="budget_tokens"):
        payload(req)
    assert payload(ChatRequest("hi", max_tokens=4097, additional_params=thinking))["max_tokens"] == 4097


def test_a_budget_for_interleaved_thinking_may_be_over_max_tokens() -> None:
    req = ChatRequest("hi", additional_params={"thinking": {"type": "enabled", "budget_tokens": 9000}})
    assert payload(req, betas=["interleaved-thinking-2025-05-14"])["max_tokens"] == 4096


@pytest.mark.parametrize("params", [{"temperature": "hot"}, {"top_p": [1]}, {"thinking": "on"}, {"max_tokens": "5"}])
def test_invalid_additional_params_are_sent_to_the_server(params: dict[str, Any]) -> None:
    req = ChatRequest("hi", reasoning_effort="low", additional_params=params)
    assert payload(req).items() >= params.items()


# Versions of the API


@pytest.mark.parametrize("name", ["temperature", "top_p", "top_k"])
def test_the_newer_api_refuses_sampling(name: str) -> None:
    req = ChatRequest("hi", **{name: 1})  # type: ignore[arg-type]
    with pytest.raises(UnsupportedContentError, match=f"{name}.*2026-10-21"):
        anthropic_body(req, OLD, version="2026-10-21")
    with pytest.raises(UnsupportedContentError, match=name):
        anthropic_body(ChatRequest("hi", additional_params={name: 1}), OLD, version="2027-01-01")
    assert payload(req, version="2023-06-01")[name] == 1


def test_the_newer_api_accepts_a_request_whose_sampling_was_deleted() -> None:
    req = ChatRequest("hi", temperature=1, additional_params={"temperature": None})
    assert payload(req, version="2026-10-21") == MINIMAL


# Blocks


@pytest.mark.parametrize(
    ("block", "part"),
    [
        (ImageBlock(PNG), PNG_JSON),
        (
            ImageBlock(UrlSource("https://x/y.png")),
            {"type": "image", "source": {"type": "url", "url": "https://x/y.png"}},
        ),
        (ImageBlock(FileSource("file_1")), {"type": "image", "source": {"type": "file", "file_id": "file_1"}}),
        (
            DocumentBlock(PDF, name="a.pdf"),
            {
                "type": "document",
                "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERg=="},
                "title": "a.pdf",
            },
        ),
        (
            DocumentBlock(Base64Source("text/markdown", "# Größe".encode())),
            {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "# Größe"}},
        ),
        (
            DocumentBlock(UrlSource("https://x/y.pdf"), name=""),
            {"type": "document", "source": {"type": "url", "url": "https://x/y.pdf"}},
        ),
        (DocumentBlock(FileSource("file_1")), {"type": "document", "source": {"type": "file", "file_id": "file_1"}}),
        (ProviderBlock("anthropic", {"type": "search_result"}), {"type": "search_result"}),
        (ProviderBlock("anthropic", {"odd": 1}), {"odd": 1}),
    ],
    ids=[
        "image", "image URL", "uploaded image", "PDF", "text document", "document URL", "uploaded document",
        "own block", "own block without a type",
    ],
)  # fmt: skip
def test_a_block_of_a_user_or_of_a_tool_is_a_part(block: Block, part: dict[str, Any]) -> None:
    assert parts(Message.user([block])) == [part]
    assert parts(Message.user([TextBlock("see"), block])) == [text("see"), part]
    assert parts(Message.tool_result("c", [TextBlock("see"), block])) == [
        {"type": "tool_result", "tool_use_id": "c", "content": [text("see"), part]}
    ]


NOT_IN_A_USER_MESSAGE = "a user message cannot contain it"


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (Message.user([AudioBlock(Base64Source("audio/wav", "UklG"))]), "AudioBlock.*" + NOT_IN_A_USER_MESSAGE),
        (Message.user([ToolCallBlock("c", "f", {})]), "ToolCallBlock.*" + NOT_IN_A_USER_MESSAGE),
        (Message.user([ReasoningBlock("hm", "s")]), "ReasoningBlock.*" + NOT_IN_A_USER_MESSAGE),
        (Message.user([RedactedReasoningBlock("x")]), "RedactedReasoningBlock.*" + NOT_IN_A_USER_MESSAGE),
        (Message.tool_result("c", [ToolCallBlock("c", "f", {})]), "ToolCallBlock.*" + NOT_IN_A_USER_MESSAGE),
        (Message.tool_result("c", [ToolResultBlock("c", "r")]), "a ToolResultBlock cannot contain it"),
        (
            Message.user([ImageBlock(Base64Source("image/bmp", "Qk0="))]),
            "image/bmp is not one of image/jpeg",
        ),
        (Message.user([DocumentBlock(Base64Source("application/zip", "UEs="))]), "DocumentBlock.*application/zip"),
        (Message.user([DocumentBlock(Base64Source("text/plain", b"\xff"))]), "DocumentBlock.*not UTF-8"),
        (Message.assistant([ImageBlock(PNG)]), "ImageBlock.*assistant message"),
        (Message.assistant([DocumentBlock(PDF)]), "DocumentBlock.*assistant message"),
        (Message.assistant([AudioBlock(Base64Source("audio/wav", "UklG"))]), "AudioBlock.*assistant message"),
        (Message.assistant([ToolResultBlock("c", "ok")]), "ToolResultBlock.*assistant message"),
        (Message.user(" \n"), "they contain nothing to send"),
    ],
)
def test_unsupported_content_is_refused(message: Message, words: str) -> None:
    with pytest.raises(UnsupportedContentError, match=words):
        anthropic_body(ChatRequest(valid_around(message)[0]), OLD)


@pytest.mark.parametrize(
    ("result", "fields"),
    [
        (ToolResultBlock("c", "17"), {"content": [text("17")]}),
        (ToolResultBlock("c", ""), {}),
        (ToolResultBlock("c", " \n"), {}),
        (ToolResultBlock("c", "no file", is_error=True), {"content": [text("no file")], "is_error": True}),
        (ToolResultBlock("c", "", is_error=True), {"content": [text("Error")], "is_error": True}),
        (ToolResultBlock("c", [ProviderBlock("gemini", {"type": "x"})]), {}),
    ],
    ids=["text", "nothing", "blank", "error", "error without words", "a block of another wire"],
)
def test_a_tool_result_is_a_block(result: ToolResultBlock, fields: dict[str, Any]) -> None:
    assert parts(Message.user([result])) == [{"type": "tool_result", "tool_use_id": "c", **fields}]


# History


def test_thinking_is_sent_back_unchanged() -> None:
    blocks = [
        ReasoningBlock("hm\n", "EqQB"),
        RedactedReasoningBlock("EmwK"),
        ReasoningBlock("", "EqQC"),
        TextBlock("a "),
        ToolCallBlock("toolu_1", "f", {"x": "ü"}),
        TextBlock("b"),
    ]
    assert parts(Message.assistant(blocks)) == [
        {"type": "thinking", "thinking": "hm\n", "signature": "EqQB"},
        {"type": "redacted_thinking", "data": "EmwK"},
        {"type": "thinking", "thinking": "", "signature": "EqQC"},
        text("a "),
        {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"x": "ü"}},
        text("b"),
    ]


@pytest.mark.parametrize("signature", [None, ""])
def test_unsigned_thinking_is_not_sent(signature: str | None) -> None:
    assert parts(Message.assistant([ReasoningBlock("hm", signature), TextBlock("a")])) == [text("a")]


def test_neighbours_of_one_role_are_merged_and_blank_text_is_dropped() -> None:
    assert messages(
        Message.user("a"),
        Message.user([TextBlock(""), TextBlock(" \n"), TextBlock(" b ")]),
        Message.assistant(""),
        Message.user("c"),
        Message.assistant(" "),
        Message.assistant([ReasoningBlock("hm")]),
        Message.user("d"),
        Message.assistant("e"),
        Message.assistant([ToolCallBlock("c1", "f", {})]),
        Message.user("f"),
    ) == [
        {"role": "user", "content": [text("a"), text(" b "), text("c"), text("d")]},
        {"role": "assistant", "content": [text("e"), {"type": "tool_use", "id": "c1", "name": "f", "input": {}}]},
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "c1", "content": [text(NO_RESULT)], "is_error": True},
                text("f"),
            ],
        },
    ]


def test_tool_results_are_sent_before_other_blocks() -> None:
    first, second = ToolResultBlock("c1", "r1"), ToolResultBlock("c2", [ImageBlock(PNG)])
    called = Message.assistant([ToolCallBlock("c1", "f", {}), ToolCallBlock("c2", "f", {})])
    assert messages(
        Message.user("q"),
        called,
        Message.user([TextBlock("one"), first]),
        Message.assistant([ReasoningBlock("unsigned")]),
        Message.user([TextBlock("two"), second, TextBlock("three")]),
    )[2:] == [
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "c1", "content": [text("r1")]},
                {"type": "tool_result", "tool_use_id": "c2", "content": [PNG_JSON]},
                text("one"),
                text("two"),
                text("three"),
            ],
        }
    ]


def test_the_last_text_of_an_assistant_does_not_end_with_white_space() -> None:
    assert messages(Message.user("q"), Message.assistant("a \n")) == [
        {"role": "user", "content": [text("q")]},
        {"role": "assistant", "content": [text("a")]},
    ]


@pytest.mark.parametrize("provider", ["openai-chat", "openai-responses", "gemini", "bedrock", "elsewhere"])
def test_blocks_of_other_wires_are_never_sent(provider: str) -> None:
    block = ProviderBlock(provider, {"type": "server_tool_use", "cache_control": FIVE})
    result = ToolResultBlock("c", [block, TextBlock("r")])
    call = ToolCallBlock("c", "f", {})
    assert messages(
        Message.user([TextBlock("q"), block]), Message.assistant([block, TextBlock("a"), call]), Message.user([result])
    ) == [
        {"role": "user", "content": [text("q")]},
        {"role": "assistant", "content": [text("a"), {"type": "tool_use", "id": "c", "name": "f", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c", "content": [text("r")]}]},
    ]


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("toolu_01-a", "toolu_01-a"),
        ("functions.f:0", "functions_f_0_d6bdd4de"),
        ("functions_f:0", "functions_f_0_4ff4103c"),
        ("", "_e3b0c442"),
        ("ü\ud800", "___5272c06c"),
    ],
    ids=["legal", "dotted", "nearly the same", "empty", "beyond ASCII"],
)
def test_an_invalid_call_id_is_replaced_in_the_call_and_in_its_result(given: str, sent: str) -> None:
    call = Message.assistant([ToolCallBlock(given, "f", {})])
    _, asked, answered = messages(Message.user("q"), call, Message.tool_result(given, "r"))
    assert asked["content"][0]["id"] == answered["content"][0]["tool_use_id"] == sent


def own(**data: Any) -> ProviderBlock:
    return ProviderBlock("anthropic", data)


@pytest.mark.parametrize(
    ("blocks", "content"),
    [
        (
            [TextBlock("So: it is."), own(type="citations", citations=[CITATION], length=6)],
            [text("So: "), text("it is.", citations=[CITATION])],
        ),
        (
            [TextBlock("it is."), own(type="citations", citations=[CITATION], length=6)],
            [text("it is.", citations=[CITATION])],
        ),
        (
            [TextBlock("\n\nit is."), own(type="citations", citations=[CITATION], length=6)],
            [text("\n\nit is.", citations=[CITATION])],
        ),
        (
            [TextBlock("it is."), own(type="citations", citations=[CITATION], length=900)],
            [text("it is.", citations=[CITATION])],
        ),
        (
            [
                TextBlock("So: it is."),
                own(type="citations", citations=[CITATION], length=6),
                own(type="citations", citations=[LATER_CITATION], length=6),
            ],
            [text("So: "), text("it is.", citations=[CITATION, LATER_CITATION])],
        ),
        (
            [
                TextBlock("it is."),
                own(type="citations", citations=[CITATION], length=6),
                own(type="citations", citations=[LATER_CITATION], length=3),
            ],
            [text("it is.", citations=[CITATION, LATER_CITATION])],
        ),
        ([TextBlock("a"), own(type="citations", citations=[CITATION], length=0)], [text("a")]),
        ([TextBlock("a"), own(type="citations"), own(type="citations", length="x", citations=5)], [text("a")]),
        ([own(odd=1), own(type="citations", citations=[CITATION], length=6)], [{"odd": 1}]),
        ([own(type="citations", citations=[CITATION], length=6), TextBlock("a")], [text("a")]),
    ],
    ids=[
        "the end of a text", "a whole text", "after blank text", "longer than the text", "in two parts",
        "twice for one part", "of no text", "of other types", "after no text", "before the text",
    ],
)  # fmt: skip
def test_citations_are_sent_back_with_their_text(blocks: Sequence[Block], content: list[Any]) -> None:
    assert parts(Message.assistant(blocks)) == content


def test_other_fields_of_a_call_are_sent_back_in_it() -> None:
    caller = {"type": "code_execution_20250825", "tool_id": "srvtoolu_1"}
    verbatim = {"type": "tool_use", "id": "c2", "name": "g", "input": {}}
    blocks = [
        ToolCallBlock("c1", "f", {}),
        own(type="caller", tool_use_id="c1", caller=caller, toolset_name="browser"),
        ProviderBlock("anthropic", verbatim),
        own(type="caller", tool_use_id="c2", caller=caller),
        own(type="caller", tool_use_id="gone", caller=caller),
    ]
    assert parts(Message.assistant(blocks)) == [
        {"type": "tool_use", "id": "c1", "name": "f", "input": {}, "caller": caller, "toolset_name": "browser"},
        {**verbatim, "caller": caller},
    ]
    assert "caller" not in verbatim


def container(id: Any) -> Message:
    return Message.assistant([TextBlock("a"), own(type="message", container=id, stop_details={"type": "refusal"})])


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        ([container({"id": "cntr_1"})], "cntr_1"),
        ([container({"id": "cntr_1"}), Message.user("q"), container({"id": "cntr_2"}), Message.user("q")], "cntr_2"),
        ([container({"id": "cntr_1"}), Message.user("q"), Message.assistant("a"), Message.user("q")], None),
        ([container({})], None),
        ([container("cntr_1")], None),
        ([container(None)], None),
    ],
    ids=["last", "of several", "not the last", "no id", "no object", "null"],
)
def test_the_container_of_the_last_answer_is_sent(sent: list[Message], expected: str | None) -> None:
    body = payload(ChatRequest([Message.user("q"), *sent]))
    assert body.get("container") == expected
    assert body["messages"][1]["content"] == [text("a")]


# Prompt caching

C5, C1H = CacheControl(), CacheControl("1h")


@pytest.mark.parametrize(
    ("block", "part"),
    [
        (TextBlock("a", cache_control=C5), text("a", cache_control=FIVE)),
        (TextBlock("a", cache_control=C1H), text("a", cache_control=HOUR)),
        (ImageBlock(PNG, cache_control=C5), {**PNG_JSON, "cache_control": FIVE}),
        (
            DocumentBlock(FileSource("f"), cache_control=C1H),
            {"type": "document", "source": {"type": "file", "file_id": "f"}, "cache_control": HOUR},
        ),
        (
            ToolResultBlock("c", "r", cache_control=C5),
            {"type": "tool_result", "tool_use_id": "c", "content": [text("r")], "cache_control": FIVE},
        ),
        (
            ToolResultBlock("c", [TextBlock("r", cache_control=C5)]),
            {"type": "tool_result", "tool_use_id": "c", "content": [text("r", cache_control=FIVE)]},
        ),
        (
            ProviderBlock("anthropic", {"type": "search_result"}, cache_control=C5),
            {"type": "search_result", "cache_control": FIVE},
        ),
    ],
    ids=["5 minutes", "an hour", "image", "document", "tool result", "inside a tool result", "own block"],
)
def test_cache_control_is_sent_on_the_block_of_a_user(block: Block, part: dict[str, Any]) -> None:
    history, place = valid_around(Message.user([block]))
    body, dropped = anthropic_body(ChatRequest(history), OLD)
    assert (body["messages"][place]["content"], dropped) == ([part], [])


@pytest.mark.parametrize(
    ("block", "part"),
    [
        (TextBlock("a", cache_control=C5), text("a", cache_control=FIVE)),
        (
            ToolCallBlock("c", "f", {}, cache_control=C1H),
            {"type": "tool_use", "id": "c", "name": "f", "input": {}, "cache_control": HOUR},
        ),
        (
            ProviderBlock("anthropic", {"type": "server_tool_use"}, cache_control=C5),
            {"type": "server_tool_use", "cache_control": FIVE},
        ),
    ],
    ids=["text", "call", "own block"],
)
def test_cache_control_is_sent_on_the_block_of_an_assistant(block: Block, part: dict[str, Any]) -> None:
    history, place = valid_around(Message.assistant([block]))
    body, dropped = anthropic_body(ChatRequest(history), OLD)
    assert (body["messages"][place]["content"], dropped) == ([part], [])


def test_cache_control_is_sent_on_a_tool_and_on_the_system_prompt() -> None:
    tools = [TOOL, ToolDefinition("g", "", {"type": "object"}, cache_control=C1H)]
    body, dropped = anthropic_body(ChatRequest("hi", tools=tools, system_prompt=[SystemBlock("s", C5)]), OLD)
    assert body["tools"] == [TOOL_JSON, {"name": "g", "input_schema": TOOL_JSON["input_schema"], "cache_control": HOUR}]
    assert body["system"] == [text("s", cache_control=FIVE)]
    assert dropped == []


@pytest.mark.parametrize(
    "req",
    [
        ChatRequest([Message.user([TextBlock("hi"), TextBlock("", cache_control=C5)])]),
        ChatRequest([Message.user([TextBlock("hi"), TextBlock(" ", cache_control=C5)])]),
        ChatRequest("hi", system_prompt=[SystemBlock("", C5)]),
        ChatRequest([Message.assistant([ReasoningBlock("hm", "s", cache_control=C5), TextBlock("hi")])]),
        ChatRequest([Message.assistant([RedactedReasoningBlock("x", cache_control=C5), TextBlock("hi")])]),
        ChatRequest([Message.user([TextBlock("hi"), ProviderBlock("gemini", {}, cache_control=C5)])]),
        ChatRequest(
            [Message.assistant([TextBlock("hi"), ProviderBlock("anthropic", {"type": "message"}, cache_control=C5)])]
        ),
    ],
    ids=[
        "empty text",
        "blank text",
        "empty system",
        "thinking",
        "redacted",
        "a block of another wire",
        "a block that is not sent",
    ],
)
def test_cache_control_that_cannot_be_sent_is_dropped_and_reported(req: ChatRequest) -> None:
    body, dropped = anthropic_body(req, OLD)
    assert dropped == ["cache_control"]
    assert "cache_control" not in json.dumps(body)


CALL = ToolCallBlock("c", "f", {})


def cached(times: int) -> Message:
    return Message.user([TextBlock("a", cache_control=C5) for _ in range(times)])


@pytest.mark.parametrize(
    "given",
    [
        {"messages": [cached(5)]},
        {"messages": [cached(4)], "system_prompt": [SystemBlock("s", C5)]},
        {"messages": [cached(4)], "tools": [ToolDefinition("f", "", {}, cache_control=C5)]},
        {"messages": [cached(4)], "additional_params": {"cache_control": FIVE}},
        {"messages": [cached(2), Message.assistant([CALL]), Message.user([ToolResultBlock("c", cached(3).blocks)])]},
        {"messages": [cached(4), Message.assistant([own(type="server_tool_use", cache_control=FIVE)])]},
    ],
    ids=["blocks", "system", "tools", "the whole", "inside a tool result", "own block"],
)
def test_more_than_four_breakpoints_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedContentError, match=r"cache_control.*the API accepts 4 of them, got 5"):
        anthropic_body(ChatRequest(**given), OLD)


def test_four_breakpoints_are_accepted() -> None:
    system = [SystemBlock("s", C5), SystemBlock("t", C1H)]
    _, dropped = anthropic_body(ChatRequest([cached(2)], system_prompt=system), OLD)
    assert dropped == []


def test_the_request_is_not_changed() -> None:
    schema = {"properties": {"a": {"type": "string"}}}
    req = ChatRequest(
        [
            Message.user([TextBlock("a"), own(type="search_result")]),
            Message.assistant(
                [
                    TextBlock("So: it is."),
                    own(type="citations", citations=[CITATION], length=6),
                    ToolCallBlock("c", "f", {"a": [1]}),
                    own(type="caller", tool_use_id="c", caller={"type": "x"}),
                    own(type="text", text="b "),
                ]
            ),
        ],
        tools=[ToolDefinition("f", "", schema, cache_control=C5)],
        stop_sequences=["x"],
        response_format=JsonSchema("n", schema),
        additional_params={"a": {"b": None, "c": {"d": 1}}, "output_config": {"format": {"schema": {"x": 1}}}},
    )
    before = copy.deepcopy(req)
    body = payload(req)
    assert body["output_config"]["format"]["schema"] == {
        **schema, "type": "object", "additionalProperties": False, "x": 1
    }  # fmt: skip
    assert body["a"] == {"c": {"d": 1}}
    assert req == before
