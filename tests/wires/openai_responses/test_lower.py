"""From a ChatRequest to the JSON body of OpenAI Responses: tables of literals."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
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
from completion.wires.openai_responses import RESPONSES
from completion.wires.openai_responses.dialect import DEFAULT, ResponsesDialect
from tests.wire_pieces import PDF, PNG, TOOL

HOST = "api.openai.com"
ORIGIN = f"openai-responses@{HOST}"
MINIMAL: dict[str, Any] = {
    "model": "gpt-5.6",
    "input": [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]}],
    "stream": True,
    "store": False,
    "max_output_tokens": 4096,
    "include": ["reasoning.encrypted_content"],
}
PARAMETERS = {"type": "object", "properties": {}}
TOOL_JSON = {"type": "function", "name": "f", "description": "Does f.", "parameters": PARAMETERS, "strict": False}
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}
CLOSED = {**SCHEMA, "required": ["a"], "additionalProperties": False}
OPEN = {"type": "object", "additionalProperties": True}


def body(request: ChatRequest, model: str = "gpt-5.6", dialect: Any = DEFAULT) -> tuple[dict[str, Any], list[str]]:
    before = copy.deepcopy(request)
    sent = RESPONSES.body(request, model, dialect, HOST)
    assert request == before
    json.dumps(sent[0], allow_nan=False)
    return sent


def items(*history: Message, dialect: Any = DEFAULT, **fields: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = body(ChatRequest(history, **fields), dialect=dialect)[0]["input"]
    return found


def user(text: str) -> dict[str, Any]:
    return {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}


def answered(text: str, annotations: Sequence[Any] = (), **fields: Any) -> dict[str, Any]:
    part = {"type": "output_text", "text": text, "annotations": list(annotations)}
    return {"type": "message", "role": "assistant", "content": [part], **fields}


def own(**data: Any) -> ProviderBlock:
    return ProviderBlock("openai-responses", data)


def signed(text: str = "", **fields: Any) -> ReasoningBlock:
    item = {"id": "rs_1", "type": "reasoning", "summary": [], "encrypted_content": "ENC", **fields}
    return ReasoningBlock(text, json.dumps(item), ORIGIN)


REASONING = {"id": "rs_1", "type": "reasoning", "summary": [], "encrypted_content": "ENC"}


def test_a_minimal_request() -> None:
    assert body(ChatRequest("hi")) == (MINIMAL, [])


@pytest.mark.parametrize(
    ("fields", "sent"),
    [
        ({"max_tokens": 9}, {"max_output_tokens": 9}),
        ({"system_prompt": "Be brief."}, {"instructions": "Be brief."}),
        ({"system_prompt": [SystemBlock("a"), SystemBlock("b")]}, {"instructions": "a\n\nb"}),
        ({"system_prompt": ""}, {}),
        ({"temperature": 0.5, "top_p": 0.9}, {"temperature": 0.5, "top_p": 0.9}),
        ({"tools": [TOOL]}, {"tools": [TOOL_JSON]}),
        ({"tools": [TOOL], "tool_choice": ToolChoice.auto()}, {"tools": [TOOL_JSON], "tool_choice": "auto"}),
        ({"tools": [TOOL], "tool_choice": ToolChoice.any()}, {"tools": [TOOL_JSON], "tool_choice": "required"}),
        ({"tools": [TOOL], "tool_choice": ToolChoice.none()}, {"tools": [TOOL_JSON], "tool_choice": "none"}),
        (
            {"tools": [TOOL], "tool_choice": ToolChoice.tool("f")},
            {"tools": [TOOL_JSON], "tool_choice": {"type": "function", "name": "f"}},
        ),
        ({"tool_choice": ToolChoice.none()}, {}),
        ({"tools": [TOOL], "parallel_tool_use": False}, {"tools": [TOOL_JSON], "parallel_tool_calls": False}),
        ({"parallel_tool_use": False}, {}),
        (
            {"tools": [ToolDefinition("f", "", SCHEMA, strict=True)]},
            {"tools": [{"type": "function", "name": "f", "description": "", "parameters": CLOSED, "strict": True}]},
        ),
        ({"reasoning_effort": "low"}, {"reasoning": {"effort": "low", "summary": "auto"}}),
        ({"reasoning_effort": 3000}, {"reasoning": {"effort": "medium", "summary": "auto"}}),
        ({"response_format": "json"}, {"text": {"format": {"type": "json_object"}}}),
        (
            {"response_format": JsonSchema("n", SCHEMA)},
            {"text": {"format": {"type": "json_schema", "name": "n", "schema": CLOSED, "strict": True}}},
        ),
        (
            {"response_format": JsonSchema("n", SCHEMA, strict=False)},
            {"text": {"format": {"type": "json_schema", "name": "n", "schema": SCHEMA, "strict": False}}},
        ),
        ({"additional_params": {"store": True, "include": None}}, {"store": True, "include": ...}),
    ],
)
def test_each_field_is_sent(fields: dict[str, Any], sent: dict[str, Any]) -> None:
    expected = {name: value for name, value in {**MINIMAL, **sent}.items() if value is not ...}
    assert body(ChatRequest("hi", **fields)) == (expected, [])


@pytest.mark.parametrize(
    ("fields", "dropped"),
    [
        ({"seed": 1}, ["seed"]),
        ({"top_k": 1}, ["top_k"]),
        ({"system_prompt": [SystemBlock("a", CacheControl())]}, ["cache_control"]),
        ({"tools": [ToolDefinition("f", "", OPEN, strict=True)]}, ["tools.strict"]),
        ({"response_format": JsonSchema("n", OPEN)}, ["response_format.strict"]),
    ],
)
def test_what_is_left_out_is_listed(fields: dict[str, Any], dropped: list[str]) -> None:
    assert body(ChatRequest("hi", **fields))[1] == dropped


def test_stop_sequences_are_refused() -> None:
    with pytest.raises(UnsupportedContentError, match="stop_sequences"):
        body(ChatRequest("hi", stop_sequences=["x"]))


@pytest.mark.parametrize(
    ("model", "is_asked"),
    [
        ("gpt-5.6", True), ("o4-mini", True), ("my-deployment", True), ("grok-5", True), ("openai/gpt-oss-120b", True),
        ("gpt-4o", False), ("gpt-4.1-mini", False), ("openai/gpt-4o", False), ("ft:gpt-4o:acme", False),
        ("gpt-5-chat-latest", False), ("chatgpt-4o-latest", False),
    ],
)  # fmt: skip
def test_encrypted_reasoning_is_asked_of_models_that_reason(model: str, is_asked: bool) -> None:
    assert ("include" in body(ChatRequest("hi"), model)[0]) is is_asked


# What the user wrote


@pytest.mark.parametrize(
    ("block", "part"),
    [
        (TextBlock("a"), {"type": "input_text", "text": "a"}),
        (
            ImageBlock(PNG),
            {"type": "input_image", "image_url": "data:image/png;base64,iVBORw==", "detail": "auto"},
        ),
        (ImageBlock(UrlSource("https://x")), {"type": "input_image", "image_url": "https://x", "detail": "auto"}),
        (ImageBlock(FileSource("file-1")), {"type": "input_image", "file_id": "file-1", "detail": "auto"}),
        (
            DocumentBlock(PDF, name="a.pdf"),
            {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERg=="},
        ),
        (DocumentBlock(UrlSource("https://x")), {"type": "input_file", "file_url": "https://x"}),
        (DocumentBlock(FileSource("file-1")), {"type": "input_file", "file_id": "file-1"}),
        (own(type="input_text", text="raw"), {"type": "input_text", "text": "raw"}),
    ],
)
def test_each_block_of_a_user_is_sent_also_in_a_result(block: Block, part: dict[str, Any]) -> None:
    assert items(Message.user([block])) == [{"type": "message", "role": "user", "content": [part]}]
    call = ToolCallBlock("c", "f", {})
    (*_, result) = items(Message.user("q"), Message.assistant([call]), Message.tool_result("c", ["x", block]))
    if part["type"] == "input_text":
        assert result["output"] == "x" + part["text"]
    else:
        assert result["output"] == [{"type": "input_text", "text": "x"}, part]


def test_audio_is_refused() -> None:
    with pytest.raises(UnsupportedContentError, match="AudioBlock"):
        items(Message.user([AudioBlock(Base64Source("audio/wav", "UklGRgAAAAA="))]))


def test_an_item_of_the_user_is_sent_between_messages() -> None:
    approval = {"type": "mcp_approval_response", "approval_request_id": "mcpr_1", "approve": True}
    assert items(Message.user(["a", own(**approval), "b"])) == [user("a"), approval, user("b")]


# What the model wrote


def test_a_call_and_its_results_keep_their_order() -> None:
    calls = [ToolCallBlock("c1", "f", {"x": 1}), ToolCallBlock("c2", "g", {})]
    results: list[Any] = [ToolResultBlock("c1", "one"), ToolResultBlock("c2", "no", is_error=True), "and?"]
    assert items(Message.user("q"), Message.assistant(["a", *calls]), Message.user(results)) == [
        user("q"),
        answered("a"),
        {"type": "function_call", "call_id": "c1", "name": "f", "arguments": '{"x":1}'},
        {"type": "function_call", "call_id": "c2", "name": "g", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "one"},
        {"type": "function_call_output", "call_id": "c2", "output": "Error: no"},
        user("and?"),
    ]


def test_the_call_of_a_program_keeps_its_caller_and_so_does_its_result() -> None:
    caller = {"type": "program", "caller_id": "p1"}
    call = ToolCallBlock("c1", "f", {}, None, ORIGIN, {"caller": caller})
    _, asked, result = items(Message.user("q"), Message.assistant([call]), Message.tool_result("c1", "1"))
    assert asked["caller"] == result["caller"] == caller


def test_reasoning_goes_back_as_the_item_that_it_was() -> None:
    blocks: list[Any] = [ReasoningBlock("first"), signed("second"), "a"]
    assert items(Message.user("q"), Message.assistant(blocks)) == [user("q"), REASONING, answered("a")]


@pytest.mark.parametrize(
    "blocks",
    [
        ["a", signed()],
        ["a", ReasoningBlock("x", json.dumps(REASONING), "openai-responses@api.x.ai")],
        [ReasoningBlock("x", "SIG", "anthropic"), "a"],
        [ReasoningBlock("x", "not JSON", ORIGIN), "a"],
        [signed(encrypted_content=None), "a"],
    ],
    ids=["nothing follows it", "of another host", "of another wire", "not JSON", "not encrypted"],
)
def test_reasoning_that_the_server_would_refuse_is_left_out(blocks: list[Any]) -> None:
    assert items(Message.user("q"), Message.assistant(blocks)) == [user("q"), answered("a")]


def test_raw_reasoning_goes_back() -> None:
    raw = signed("hm", encrypted_content=None, content=[{"type": "reasoning_text", "text": "hm"}])
    assert items(Message.user("q"), Message.assistant([raw, "a"]))[1]["content"][0]["text"] == "hm"


def test_reasoning_goes_back_by_its_id_if_the_server_stores_the_answers() -> None:
    history = [Message.user("q"), Message.assistant([signed(encrypted_content=None), "a"])]
    assert items(*history, additional_params={"store": True})[1]["id"] == "rs_1"


def test_items_of_servers_tools_go_back_unchanged() -> None:
    search = {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search"}}
    assert items(Message.user("q"), Message.assistant([signed(), own(**search), "a"])) == [
        user("q"), REASONING, search, answered("a"),
    ]  # fmt: skip


def test_blocks_of_other_wires_are_left_out() -> None:
    assert items(Message.user("q"), Message.assistant([ProviderBlock("anthropic", {"type": "x"}), "a"])) == [
        user("q"), answered("a"),
    ]  # fmt: skip


CITATION = {"type": "url_citation", "url": "https://x", "start_index": 0, "end_index": 1}


@pytest.mark.parametrize(
    ("blocks", "sent"),
    [
        (
            ["abc", own(type="message", phase="commentary", content=[{"type": "output_text", "length": 3}])],
            [answered("abc", phase="commentary")],
        ),
        (
            ["abc", own(type="message", phase="final_answer", content=[{"type": "output_text", "length": 1}])],
            [answered("ab"), answered("c", phase="final_answer")],
        ),
        (
            [
                "abc",
                own(type="message", content=[{"type": "output_text", "length": 3, "annotations": [CITATION]}]),
            ],
            [answered("abc", [CITATION])],
        ),
        (
            ["abc", own(type="message", content=[{"type": "refusal", "length": 3}])],
            [{"type": "message", "role": "assistant", "content": [{"type": "refusal", "refusal": "abc"}]}],
        ),
        (["abc", own(type="message", content=[{"type": "output_text", "length": 9}])], [answered("abc")]),
        (["abc", own(type="message", phase="x", content=[])], [answered("abc")]),
        (["abc", own(type="message", content="broken")], [answered("abc")]),
    ],
)
def test_what_a_message_had_besides_its_text_goes_back_with_it(blocks: list[Any], sent: list[Any]) -> None:
    assert items(Message.user("q"), Message.assistant(blocks)) == [user("q"), *sent]


CUSTOM = {"type": "custom_tool_call", "id": "ctc_1", "call_id": "k", "name": "sql", "input": "SELECT 1"}


def test_the_result_of_a_custom_tool_has_its_own_type() -> None:
    assert items(Message.user("q"), Message.assistant([own(**CUSTOM)]), Message.tool_result("k", "1")) == [
        user("q"), CUSTOM, {"type": "custom_tool_call_output", "call_id": "k", "output": "1"},
    ]  # fmt: skip


@pytest.mark.parametrize("runs_custom_tools", [False, True])
def test_the_call_of_a_custom_tool_gets_a_result_where_the_client_runs_it(runs_custom_tools: bool) -> None:
    found = items(
        Message.user("q"), Message.assistant([own(**CUSTOM)]), Message.user("b"),
        dialect=ResponsesDialect(runs_custom_tools=runs_custom_tools),
    )  # fmt: skip
    made_up = [] if runs_custom_tools else [{"type": "custom_tool_call_output", "call_id": "k", "output": NO_RESULT}]
    assert found == [user("q"), CUSTOM, *made_up, user("b")]


def test_a_request_without_content_is_refused() -> None:
    with pytest.raises(UnsupportedContentError, match="they contain nothing to send"):
        items(Message.user(""))
