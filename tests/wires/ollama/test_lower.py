"""From a ChatRequest to the JSON body of Ollama's native chat: tables of literals."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from completion import (
    AudioBlock,
    Base64Source,
    Block,
    ChatRequest,
    DocumentBlock,
    ImageBlock,
    JsonSchema,
    Message,
    ProviderBlock,
    ReasoningBlock,
    RedactedReasoningBlock,
    ToolCallBlock,
    ToolChoice,
    ToolDefinition,
    ToolResultBlock,
    UnsupportedContentError,
    UrlSource,
)
from completion.wires.ollama import OLLAMA_CHAT
from tests.wire_pieces import PDF, PNG, TOOL, valid_around

MODEL = "qwen3"
MINIMAL: dict[str, Any] = {
    "model": MODEL,
    "messages": [{"role": "user", "content": "hi"}],
    "stream": True,
    "options": {"num_predict": 4096},
}
TOOL_JSON = {
    "type": "function",
    "function": {"name": "f", "description": "Does f.", "parameters": {"type": "object", "properties": {}}},
}
SCHEMA = JsonSchema("n", {"type": "object", "properties": {"a": {"type": "string"}}})


def options(**given: Any) -> dict[str, Any]:
    return {"options": {"num_predict": 4096, **given}}


FIELDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "messages": ("hello", {"messages": [{"role": "user", "content": "hello"}]}),
    "max_tokens": (7, options(num_predict=7)),
    "system_prompt": ("Be brief.", {"messages": [{"role": "system", "content": "Be brief."}, *MINIMAL["messages"]]}),
    "tools": ([TOOL], {"tools": [TOOL_JSON]}),
    "tool_choice": (ToolChoice.auto(), {"tools": [TOOL_JSON]}),
    "parallel_tool_use": (True, {"tools": [TOOL_JSON]}),
    "temperature": (0.0, options(temperature=0.0)),
    "top_p": (0.5, options(top_p=0.5)),
    "top_k": (5, options(top_k=5)),
    "seed": (0, options(seed=0)),
    "stop_sequences": (["a"], options(stop=["a"])),
    "reasoning_effort": ("none", {"think": False}),
    "response_format": (SCHEMA, {"format": SCHEMA.schema}),
    "additional_params": (
        {"keep_alive": "10m", "options": {"num_ctx": 8192}},
        {"keep_alive": "10m", **options(num_ctx=8192)},
    ),
}


@pytest.mark.parametrize("name", [field.name for field in fields(ChatRequest)])
def test_every_field_changes_the_body(name: str) -> None:
    value, change = FIELDS[name]
    tools = [TOOL] if name in ("tool_choice", "parallel_tool_use") else []
    body, dropped = OLLAMA_CHAT.body(ChatRequest(**{"messages": "hi", "tools": tools, name: value}), MODEL)
    assert body == {**MINIMAL, **change}
    assert dropped == []


def test_json_without_a_schema_is_a_word() -> None:
    body, _ = OLLAMA_CHAT.body(ChatRequest("hi", response_format="json"), MODEL)
    assert body["format"] == "json"


@pytest.mark.parametrize(
    ("model", "effort", "think", "is_dropped"),
    [
        (MODEL, "none", False, False),
        (MODEL, 0, False, False),
        (MODEL, "high", True, True),
        (MODEL, 4096, True, True),
        ("gpt-oss:20b", "low", "low", False),
        ("gpt-oss:120b-cloud", "high", "high", False),
        ("gpt-oss", "minimal", "low", True),
        ("gpt-oss", "max", "high", True),
        ("gpt-oss", 4096, "medium", True),
        ("gpt-oss", "none", "low", True),
    ],
)
def test_an_effort_is_on_or_off_and_a_level_for_gpt_oss(model: str, effort: Any, think: Any, is_dropped: bool) -> None:
    body, dropped = OLLAMA_CHAT.body(ChatRequest("hi", reasoning_effort=effort), model)
    assert body["think"] == think
    assert dropped == ["reasoning_effort"] * is_dropped


def test_no_call_wanted_is_no_tools() -> None:
    body, _ = OLLAMA_CHAT.body(ChatRequest("hi", tools=[TOOL], tool_choice=ToolChoice.none()), MODEL)
    assert "tools" not in body


def test_strict_is_reported_as_dropped() -> None:
    tool = ToolDefinition("f", "Does f.", {"type": "object"}, strict=True)
    assert OLLAMA_CHAT.body(ChatRequest("hi", tools=[tool]), MODEL)[1] == ["tools.strict"]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"tool_choice": ToolChoice.any()}, "tool_choice='any'"),
        ({"tool_choice": ToolChoice.tool("f")}, "tool_choice='tool'"),
        ({"parallel_tool_use": False}, "parallel_tool_use=False"),
    ],
)
def test_a_call_cannot_be_forced_or_limited(given: dict[str, Any], words: str) -> None:
    with pytest.raises(UnsupportedContentError, match=words):
        OLLAMA_CHAT.body(ChatRequest("hi", tools=[TOOL], **given), MODEL)


def test_a_user_message_has_text_and_images() -> None:
    body, _ = OLLAMA_CHAT.body(ChatRequest([Message.user(["a", ImageBlock(PNG), "b"])]), MODEL)
    assert body["messages"] == [{"role": "user", "content": "a\n\nb", "images": ["iVBORw=="]}]


@pytest.mark.parametrize(
    ("block", "words"),
    [
        (ImageBlock(UrlSource("https://x/y.png")), "give the bytes as a Base64Source"),
        (DocumentBlock(PDF), "DocumentBlock"),
        (AudioBlock(Base64Source("audio/wav", b"x")), "AudioBlock"),
        (ProviderBlock("ollama", {"type": "x"}), "ProviderBlock"),
    ],
)
def test_other_blocks_of_a_user_are_refused(block: Block, words: str) -> None:
    with pytest.raises(UnsupportedContentError, match=words):
        OLLAMA_CHAT.body(ChatRequest([Message.user([block])]), MODEL)


def test_nothing_to_send_is_refused() -> None:
    with pytest.raises(UnsupportedContentError, match="nothing to send"):
        OLLAMA_CHAT.body(ChatRequest([Message.user([""])]), MODEL)


OWN = {"field": "thinking", "origin": "ollama"}


@pytest.mark.parametrize(
    ("blocks", "sent"),
    [
        (["a", "b"], {"content": "ab"}),
        ([ReasoningBlock("hm", wire_data=OWN), "a"], {"content": "a", "thinking": "hm"}),
        ([ReasoningBlock("hm", wire_data={"field": "thinking", "origin": "x"}), "a"], {"content": "a"}),
        ([ReasoningBlock("hm", "S", "anthropic"), "a"], {"content": "a"}),
        ([RedactedReasoningBlock("x", "ollama"), "a"], {"content": "a"}),
        ([ToolCallBlock("c", "f", {})],
         {"content": "", "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": {}}}]}),
    ],
)  # fmt: skip
def test_an_assistant_message_has_text_thinking_and_calls(blocks: Any, sent: dict[str, Any]) -> None:
    history, at = valid_around(Message.assistant(blocks))
    body, _ = OLLAMA_CHAT.body(ChatRequest(history), MODEL)
    assert body["messages"][at] == {"role": "assistant", **sent}


def test_an_image_of_an_assistant_is_refused() -> None:
    with pytest.raises(UnsupportedContentError, match="an assistant message cannot contain it"):
        OLLAMA_CHAT.body(ChatRequest([Message.user("q"), Message.assistant(["a", ImageBlock(PNG)])]), MODEL)


@pytest.mark.parametrize(
    ("result", "messages"),
    [
        (ToolResultBlock("c", "1"), [{"content": "1"}]),
        (ToolResultBlock("c", []), [{"content": ""}]),
        (ToolResultBlock("c", "no", is_error=True), [{"content": "Error: no"}]),
    ],
)
def test_a_result_names_its_tool(result: ToolResultBlock, messages: list[dict[str, Any]]) -> None:
    history, _ = valid_around(Message.user([result]))
    body, _ = OLLAMA_CHAT.body(ChatRequest(history), MODEL)
    of_all = {"role": "tool", "tool_name": "f", "tool_call_id": "c"}
    assert body["messages"][2:] == [{**of_all, **message} for message in messages]


def test_an_image_of_a_tool_goes_behind_the_results() -> None:
    history, _ = valid_around(Message.user([ToolResultBlock("c", ["see", ImageBlock(PNG)])]))
    body, _ = OLLAMA_CHAT.body(ChatRequest(history), MODEL)
    result, user = body["messages"][2:]
    assert result["content"] == "see[image 1: see the message after the tool results]"
    assert user == {"role": "user", "content": "[image 1, returned by f]", "images": ["iVBORw=="]}
