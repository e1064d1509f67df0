"""From a ChatRequest to the JSON body of Chat Completions: tables of literals."""

from __future__ import annotations

import copy
import json
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
from completion.wires.lowering import merged
from tests.wire_pieces import PDF, PNG, TOOL, openai_body, valid_around

EMPTY: dict[str, Any] = {"type": "object", "properties": {}}
CLOSED = {**EMPTY, "additionalProperties": False, "required": []}
TOOL_JSON = {"type": "function", "function": {"name": "f", "description": "Does f.", "parameters": EMPTY}}

MINIMAL: dict[str, Any] = {
    "model": "m",
    "messages": [{"role": "user", "content": "hi"}],
    "stream": True,
    "stream_options": {"include_usage": True},
    "max_completion_tokens": 4096,
}


def payload(req: ChatRequest, **options: Any) -> dict[str, Any]:
    return openai_body(req, "m", **options)[0]


def messages(*sent: Message, **options: Any) -> list[Any]:
    found: list[Any] = payload(ChatRequest(sent), **options)["messages"]
    return found


def sent(message: Message) -> Any:
    """The message as it is sent in a valid history."""
    history, place = valid_around(message)
    return messages(*history)[place]


def parts(*blocks: Block) -> Any:
    """The content of a user message with these blocks."""
    return messages(Message.user(blocks))[0]["content"]


# Fields

FIELDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "messages": ("hello", {"messages": [{"role": "user", "content": "hello"}]}),
    "max_tokens": (7, {"max_completion_tokens": 7}),
    "system_prompt": (
        "Be brief.",
        {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}]},
    ),
    "tools": ([TOOL], {"tools": [TOOL_JSON]}),
    "tool_choice": (ToolChoice.any(), {"tools": [TOOL_JSON], "tool_choice": "required"}),
    "parallel_tool_use": (False, {"tools": [TOOL_JSON], "parallel_tool_calls": False}),
    "temperature": (0.0, {"temperature": 0.0}),
    "top_p": (0.5, {"top_p": 0.5}),
    "top_k": (5, {"top_k": 5}),
    "seed": (0, {"seed": 0}),
    "stop_sequences": (["a", "b"], {"stop": ["a", "b"]}),
    "reasoning_effort": ("minimal", {"reasoning_effort": "minimal"}),
    "response_format": ("json", {"response_format": {"type": "json_object"}}),
    "additional_params": ({"logprobs": True}, {"logprobs": True}),
}


def test_a_request_with_nothing_set_is_the_minimal_body() -> None:
    assert openai_body(ChatRequest("hi"), "m") == (MINIMAL, [])


@pytest.mark.parametrize("name", [field.name for field in fields(ChatRequest)])
def test_every_field_changes_the_body_or_is_reported_as_dropped(name: str) -> None:
    value, change = FIELDS[name]
    tools = [TOOL] if name in ("tool_choice", "parallel_tool_use") else []
    body, dropped = openai_body(ChatRequest(**{"messages": "hi", "tools": tools, name: value}), "m")
    if name == "top_k":
        assert (body, dropped) == (MINIMAL, ["top_k"])
    else:
        assert (body, dropped) == ({**MINIMAL, **change}, [])


@pytest.mark.parametrize("name", [field.name for field in fields(ChatRequest)])
def test_a_compatible_server_gets_max_tokens_and_top_k(name: str) -> None:
    value, change = FIELDS[name]
    tools = [TOOL] if name in ("tool_choice", "parallel_tool_use") else []
    body, dropped = openai_body(ChatRequest(**{"messages": "hi", "tools": tools, name: value}), "m", compatible=True)
    expected = {**MINIMAL, **change}
    expected["max_tokens"] = expected.pop("max_completion_tokens")
    assert (body, dropped) == (expected, [])


@pytest.mark.parametrize(
    ("given", "change"),
    [
        ({"system_prompt": ""}, {}),
        ({"system_prompt": [SystemBlock("")]}, {}),
        ({"tools": [TOOL], "tool_choice": ToolChoice.auto()}, {"tools": [TOOL_JSON], "tool_choice": "auto"}),
        ({"tools": [TOOL], "tool_choice": ToolChoice.none()}, {"tools": [TOOL_JSON], "tool_choice": "none"}),
        (
            {"tools": [TOOL], "tool_choice": ToolChoice.tool("f")},
            {"tools": [TOOL_JSON], "tool_choice": {"type": "function", "function": {"name": "f"}}},
        ),
        ({"tool_choice": ToolChoice.auto()}, {}),
        ({"tool_choice": ToolChoice.none()}, {}),
        ({"parallel_tool_use": False}, {}),
        ({"tools": [TOOL], "parallel_tool_use": True}, {"tools": [TOOL_JSON], "parallel_tool_calls": True}),
        (
            {"tools": [ToolDefinition("g", "", {}, tags=["x"], strict=True)]},
            {
                "tools": [
                    {
                        "type": "function",
                        "function": {
                            "name": "g",
                            "description": "",
                            "parameters": {**EMPTY, "additionalProperties": False, "required": []},
                            "strict": True,
                        },
                    }
                ]
            },
        ),
        ({"reasoning_effort": "high"}, {"reasoning_effort": "high"}),
        ({"reasoning_effort": 0}, {"reasoning_effort": "none"}),
        ({"reasoning_effort": 2047}, {"reasoning_effort": "low"}),
        ({"reasoning_effort": 2048}, {"reasoning_effort": "medium"}),
        ({"reasoning_effort": 8191}, {"reasoning_effort": "medium"}),
        ({"reasoning_effort": 8192}, {"reasoning_effort": "high"}),
        (
            {"response_format": JsonSchema("n", {"type": "object"}, strict=False)},
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "n", "schema": {"type": "object"}, "strict": False},
                }
            },
        ),
        ({"additional_params": {"stream_options": {"include_usage": None}}}, {"stream_options": {}}),
        ({"additional_params": {"max_completion_tokens": 5, "user": None}}, {"max_completion_tokens": 5}),
        ({"additional_params": {}}, {}),
    ],
    ids=lambda value: None if not isinstance(value, dict) else ", ".join(value) or "nothing",
)
def test_a_value_becomes_these_fields(given: dict[str, Any], change: dict[str, Any]) -> None:
    assert payload(ChatRequest("hi", **given)) == {**MINIMAL, **change}


def test_system_blocks_are_one_message_with_blank_lines_between() -> None:
    req = ChatRequest("hi", system_prompt=[SystemBlock("One."), SystemBlock(""), SystemBlock("Two.")])
    assert payload(req)["messages"][0] == {"role": "system", "content": "One.\n\nTwo."}


def test_additional_params_can_delete_a_field() -> None:
    body = payload(ChatRequest("hi", additional_params={"stream_options": None}))
    assert "stream_options" not in body


@pytest.mark.parametrize(
    "req",
    [
        ChatRequest("hi", system_prompt=[SystemBlock("s", CacheControl())]),
        ChatRequest("hi", tools=[ToolDefinition("f", "", {}, cache_control=CacheControl("1h"))]),
        ChatRequest([Message.user([TextBlock("hi", cache_control=CacheControl())])]),
        ChatRequest(
            valid_around(Message.tool_result("c", [TextBlock("ok", cache_control=CacheControl())]))[0],
        ),
    ],
    ids=["system", "tool", "block", "block in a tool result"],
)
def test_cache_control_is_dropped_and_reported(req: ChatRequest) -> None:
    body, dropped = openai_body(req, "m")
    assert dropped == ["cache_control"]
    assert "cache" not in json.dumps(body)


# Blocks


@pytest.mark.parametrize(
    ("block", "part"),
    [
        (ImageBlock(PNG), {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw=="}}),
        (ImageBlock(UrlSource("https://x/y.png")), {"type": "image_url", "image_url": {"url": "https://x/y.png"}}),
        (
            DocumentBlock(PDF, name="a.pdf"),
            {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERg=="}},
        ),
        (
            DocumentBlock(PDF),
            {"type": "file", "file": {"filename": "document", "file_data": "data:application/pdf;base64,JVBERg=="}},
        ),
        (DocumentBlock(FileSource("file-1")), {"type": "file", "file": {"file_id": "file-1"}}),
        (
            AudioBlock(Base64Source("audio/wav", "UklG")),
            {"type": "input_audio", "input_audio": {"data": "UklG", "format": "wav"}},
        ),
        (
            AudioBlock(Base64Source("audio/mpeg", "UklG")),
            {"type": "input_audio", "input_audio": {"data": "UklG", "format": "mp3"}},
        ),
        (ProviderBlock("openai-chat", {"type": "video_url"}), {"type": "video_url"}),
        (ProviderBlock("openai-chat", {"odd": 1}), {"odd": 1}),
        (
            ProviderBlock("openai-chat", {"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}),
            {"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}},
        ),
    ],
    ids=[
        "image", "image URL", "document", "nameless document", "uploaded document", "wav", "mp3", "own block",
        "own block without a type", "own text with more keys",
    ],
)  # fmt: skip
def test_a_block_of_a_user_is_a_part(block: Block, part: dict[str, Any]) -> None:
    assert parts(block) == [part]
    assert parts(TextBlock("see"), block) == [{"type": "text", "text": "see"}, part]


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (Message.user([ImageBlock(FileSource("f"))]), "ImageBlock.*FileSource"),
        (Message.user([DocumentBlock(UrlSource("https://x"))]), "DocumentBlock.*UrlSource"),
        (Message.user([AudioBlock(UrlSource("https://x"))]), "AudioBlock.*UrlSource"),
        (Message.user([AudioBlock(Base64Source("audio/flac", "UklG"))]), "AudioBlock.*audio/flac is not one of"),
        (Message.user([ToolCallBlock("c", "f", {})]), "ToolCallBlock.*user message"),
        (Message.user([ReasoningBlock("hm")]), "ReasoningBlock.*user message"),
        (Message.user([RedactedReasoningBlock("x")]), "RedactedReasoningBlock.*user message"),
        (Message.tool_result("c", [ToolCallBlock("c", "f", {})]), "ToolCallBlock in a ToolResultBlock"),
        (Message.assistant([ImageBlock(PNG)]), "ImageBlock.*assistant message"),
        (Message.assistant([DocumentBlock(PDF)]), "DocumentBlock.*assistant message"),
        (Message.assistant([AudioBlock(Base64Source("audio/wav", "UklG"))]), "AudioBlock.*assistant message"),
        (Message.assistant([ToolResultBlock("c", "ok")]), "ToolResultBlock.*assistant message"),
        (Message.assistant([ToolCallBlock("c", "f", {"a": float("nan")})]), "ToolCallBlock.args.*not JSON"),
        (Message.assistant([ToolCallBlock("c", "f", {"a": {1}})]), "ToolCallBlock.args.*not JSON"),
        (Message.user(""), "they contain nothing to send"),
    ],
)
def test_unsupported_content_is_refused(message: Message, words: str) -> None:
    with pytest.raises(UnsupportedContentError, match=words):
        openai_body(ChatRequest(valid_around(message)[0]), "m")


def test_text_and_calls_of_the_assistant_are_sent_back() -> None:
    blocks = [TextBlock("a"), ToolCallBlock("c1", "f", {"x": "ü"}), TextBlock("b"), ToolCallBlock("c2", "g", {})]
    assert sent(Message.assistant(blocks)) == {
        "role": "assistant",
        "content": "ab",
        "tool_calls": [
            {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"x":"ü"}'}},
            {"id": "c2", "type": "function", "function": {"name": "g", "arguments": "{}"}},
        ],
    }


def test_a_signed_call_is_sent_back_with_its_signature() -> None:
    message = sent(Message.assistant([ToolCallBlock("c", "f", {}, "sig")]))
    assert message["content"] is None
    assert message["tool_calls"][0]["extra_content"] == {"google": {"thought_signature": "sig"}}


def test_reasoning_is_not_sent_back() -> None:
    blocks = [ReasoningBlock("hm", "s"), RedactedReasoningBlock("x"), TextBlock("a")]
    assert messages(Message.assistant(blocks)) == [{"role": "assistant", "content": "a"}]


@pytest.mark.parametrize(
    ("own", "place"),
    [
        ({"id": "c", "type": "custom", "custom": {"name": "f", "input": "x"}}, "tool_calls"),
        ({"type": "url_citation", "url_citation": {"url": "https://x"}}, "annotations"),
        ({"type": "file", "file": {"hash": "h"}}, "annotations"),
        ({"type": "image_url", "image_url": {"url": "data:,"}}, "images"),
    ],
    ids=lambda value: value if isinstance(value, str) else value["type"],
)
def test_a_block_of_this_wire_is_sent_back_unchanged_in_its_field(own: dict[str, Any], place: str) -> None:
    block = ProviderBlock("openai-chat", own)
    expected = {"role": "assistant", "content": "a", place: [own]}
    assert messages(Message.assistant([TextBlock("a"), block])) == [expected]


def test_a_list_of_sources_is_not_sent_back() -> None:
    block = ProviderBlock("openai-chat", {"citations": ["https://x"]})
    assert messages(Message.assistant([TextBlock("a"), block])) == [{"role": "assistant", "content": "a"}]


@pytest.mark.parametrize("provider", ["anthropic", "openai-responses", "gemini", "bedrock", "elsewhere"])
def test_blocks_of_other_wires_are_never_sent(provider: str) -> None:
    block = ProviderBlock(provider, {"type": "url_citation", "custom": {}})
    assert messages(Message.user([TextBlock("q"), block]), Message.assistant([block, TextBlock("a")])) == [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "a"},
    ]


def test_tool_results_are_sent_before_the_blocks_between_them() -> None:
    blocks = [
        TextBlock("one"),
        ToolResultBlock("c1", "r1"),
        TextBlock("two"),
        ImageBlock(UrlSource("https://x")),
        ToolResultBlock("c2", [TextBlock("r"), TextBlock("2")]),
        ToolResultBlock("c3", ""),
    ]
    assert messages(*valid_around(Message.user(blocks))[0])[2:] == [
        {"role": "tool", "tool_call_id": "c1", "content": "r1"},
        {"role": "tool", "tool_call_id": "c2", "content": "r2"},
        {"role": "tool", "tool_call_id": "c3", "content": ""},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "one"},
                {"type": "text", "text": "two"},
                {"type": "image_url", "image_url": {"url": "https://x"}},
            ],
        },
    ]


def test_a_failed_tool_says_so_in_its_text() -> None:
    message = sent(Message.tool_result("c", "no such file", is_error=True))
    assert message == {"role": "tool", "tool_call_id": "c", "content": "Error: no such file"}


def test_neighbours_of_one_role_are_merged_and_empty_text_is_dropped() -> None:
    sent = messages(
        Message.user("a"),
        Message.user([TextBlock(""), TextBlock("b")]),
        Message.assistant(""),
        Message.user("c"),
        Message.assistant("d"),
        Message.assistant([ToolCallBlock("c1", "f", {})]),
        Message.tool_result("c1", "r"),
    )
    assert [message["role"] for message in sent] == ["user", "assistant", "tool"]
    assert sent[0]["content"] == "a\n\nb\n\nc"
    assert sent[1]["content"] == "d"
    assert len(sent[1]["tool_calls"]) == 1


def test_the_request_is_not_changed() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    own = {"type": "url_citation", "url_citation": {"url": "https://x"}}
    req = ChatRequest(
        [
            Message.user([TextBlock("a"), ProviderBlock("openai-chat", {"type": "x"})]),
            Message.assistant([ToolCallBlock("c", "f", {"a": [1]}), ProviderBlock("openai-chat", own)]),
        ],
        tools=[ToolDefinition("f", "", schema)],
        stop_sequences=["x"],
        response_format=JsonSchema("n", schema),
        additional_params={"a": {"b": None, "c": {"d": 1}}, "response_format": {"json_schema": {"strict": None}}},
    )
    before = copy.deepcopy(req)
    body = payload(req)
    closed = {**schema, "additionalProperties": False, "required": ["a"]}
    assert body["response_format"]["json_schema"] == {"name": "n", "schema": closed}
    assert body["a"] == {"c": {"d": 1}}
    assert req == before


@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, None),
        ({"a": "foo"}, "bar", "bar"),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
    ids=range(1, 16),
)
def test_a_merge_patch_follows_the_examples_of_the_rfc(target: Any, patch: Any, result: Any) -> None:
    assert merged(target, patch) == result


def test_tool_choice_also_counts_for_server_side_tools() -> None:
    tools = [{"type": "web_search"}]
    req = ChatRequest("x", additional_params={"tools": tools}, tool_choice=ToolChoice.none(), parallel_tool_use=False)
    payload, dropped = openai_body(req, "gpt")
    assert (payload["tools"], payload["tool_choice"], payload["parallel_tool_calls"]) == (tools, "none", False)
    assert dropped == []


def test_parameters_that_contain_themselves_are_refused() -> None:
    params: dict[str, Any] = {}
    req = ChatRequest("x", additional_params=params)
    params["again"] = params
    with pytest.raises(UnsupportedContentError, match="additional_params"):
        openai_body(req, "gpt")
