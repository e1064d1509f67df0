"""From a ChatRequest to the JSON body of Cohere's chat: tables of literals."""

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
    FileSource,
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
from completion.wires.cohere import COHERE_CHAT
from tests.wire_pieces import PDF, PNG, TOOL, valid_around

MODEL = "command-a-reasoning-08-2025"
MINIMAL: dict[str, Any] = {
    "model": MODEL,
    "messages": [{"role": "user", "content": "hi"}],
    "stream": True,
    "max_tokens": 4096,
}
TOOL_JSON = {
    "type": "function",
    "function": {"name": "f", "description": "Does f.", "parameters": {"type": "object", "properties": {}}},
}
SCHEMA = JsonSchema("n", {"type": "object", "properties": {"a": {"type": "string"}}})
NOTES = DocumentBlock(Base64Source("text/plain", "café".encode()), name="notes.txt")

FIELDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "messages": ("hello", {"messages": [{"role": "user", "content": "hello"}]}),
    "max_tokens": (7, {"max_tokens": 7}),
    "system_prompt": ("Be brief.", {"messages": [{"role": "system", "content": "Be brief."}, *MINIMAL["messages"]]}),
    "tools": ([TOOL], {"tools": [TOOL_JSON]}),
    "tool_choice": (ToolChoice.any(), {"tools": [TOOL_JSON], "tool_choice": "REQUIRED"}),
    "parallel_tool_use": (True, {"tools": [TOOL_JSON]}),
    "temperature": (0.0, {"temperature": 0.0}),
    "top_p": (0.5, {"p": 0.5}),
    "top_k": (5, {"k": 5}),
    "seed": (0, {"seed": 0}),
    "stop_sequences": (["a"], {"stop_sequences": ["a"]}),
    "reasoning_effort": ("low", {"thinking": {"type": "enabled", "token_budget": 1024}, "max_tokens": 5120}),
    "response_format": (SCHEMA, {"response_format": {"type": "json_object", "json_schema": SCHEMA.schema}}),
    "additional_params": ({"safety_mode": "STRICT"}, {"safety_mode": "STRICT"}),
}


@pytest.mark.parametrize("name", [field.name for field in fields(ChatRequest)])
def test_every_field_changes_the_body(name: str) -> None:
    value, change = FIELDS[name]
    tools = [TOOL] if name in ("tool_choice", "parallel_tool_use") else []
    body, dropped = COHERE_CHAT.body(ChatRequest(**{"messages": "hi", "tools": tools, name: value}), MODEL)
    assert body == {**MINIMAL, **change}
    assert dropped == []


def test_json_without_a_schema_has_no_schema() -> None:
    body, _ = COHERE_CHAT.body(ChatRequest("hi", response_format="json"), MODEL)
    assert body["response_format"] == {"type": "json_object"}


@pytest.mark.parametrize(
    ("effort", "thinking"),
    [
        ("none", {"type": "disabled"}),
        (0, {"type": "disabled"}),
        ("minimal", {"type": "enabled", "token_budget": 512}),
        ("max", {"type": "enabled", "token_budget": 31000}),
        (77, {"type": "enabled", "token_budget": 77}),
    ],
)
def test_an_effort_is_a_budget(effort: Any, thinking: dict[str, Any]) -> None:
    body, dropped = COHERE_CHAT.body(ChatRequest("hi", reasoning_effort=effort), MODEL)
    assert body["thinking"] == thinking
    assert body["max_tokens"] == 4096 + thinking.get("token_budget", 0)
    assert dropped == []


G = ToolDefinition("g", "Does g.", {"type": "object"}, strict=True)


@pytest.mark.parametrize(
    ("choice", "word", "names"),
    [
        (None, None, ["f", "g"]),
        (ToolChoice.auto(), None, ["f", "g"]),
        (ToolChoice.none(), "NONE", ["f", "g"]),
        (ToolChoice.any(), "REQUIRED", ["f", "g"]),
        (ToolChoice.tool("f"), "REQUIRED", ["f"]),
    ],
)
def test_a_tool_choice_is_a_word_and_a_named_tool_is_sent_alone(choice: Any, word: Any, names: list[str]) -> None:
    body, _ = COHERE_CHAT.body(ChatRequest("hi", tools=[TOOL, G], tool_choice=choice), MODEL)
    assert body.get("tool_choice") == word
    assert [tool["function"]["name"] for tool in body["tools"]] == names


@pytest.mark.parametrize(
    ("tools", "sent", "dropped"), [([G], True, []), ([G, TOOL], None, ["tools.strict"]), ([TOOL], None, [])]
)
def test_tools_are_strict_together(tools: list[ToolDefinition], sent: Any, dropped: list[str]) -> None:
    body, found = COHERE_CHAT.body(ChatRequest("hi", tools=tools), MODEL)
    assert (body.get("strict_tools"), found) == (sent, dropped)


def test_at_most_one_call_cannot_be_said() -> None:
    with pytest.raises(UnsupportedContentError, match="parallel_tool_use=False"):
        COHERE_CHAT.body(ChatRequest("hi", tools=[TOOL], parallel_tool_use=False), MODEL)


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (ChatRequest("hi", tools=[TOOL], response_format=SCHEMA), "together with tools"),
        (ChatRequest([Message.user(["hi", NOTES])], response_format="json"), "together with documents"),
        (ChatRequest("hi", response_format="json", additional_params={"documents": ["x"]}), "together with documents"),
    ],
)
def test_json_beside_tools_or_documents_is_refused(request_: ChatRequest, words: str) -> None:
    with pytest.raises(UnsupportedContentError, match=words):
        COHERE_CHAT.body(request_, MODEL)


@pytest.mark.parametrize(
    ("source", "url"),
    [(PNG, "data:image/png;base64,iVBORw=="), (UrlSource("https://x/y.png"), "https://x/y.png")],
)
def test_an_image_is_a_url(source: Any, url: str) -> None:
    body, _ = COHERE_CHAT.body(ChatRequest([Message.user(["see", ImageBlock(source)])]), MODEL)
    content = [{"type": "text", "text": "see"}, {"type": "image_url", "image_url": {"url": url}}]
    assert body["messages"] == [{"role": "user", "content": content}]


def test_documents_are_beside_the_messages() -> None:
    unnamed = DocumentBlock(Base64Source("application/json", b"{}"))
    history = [Message.user([NOTES, "q"]), Message.assistant("a"), Message.user([unnamed])]
    body, _ = COHERE_CHAT.body(ChatRequest(history), MODEL)
    assert body["documents"] == [
        {"id": "doc_0", "data": {"title": "notes.txt", "text": "café"}},
        {"id": "doc_1", "data": {"text": "{}"}},
    ]
    assert [message["content"] for message in body["messages"][::2]] == ["q", "(See the documents.)"]


@pytest.mark.parametrize(
    ("block", "words"),
    [
        (DocumentBlock(PDF), "text only, got application/pdf"),
        (DocumentBlock(UrlSource("https://x/y.txt")), "UrlSource"),
        (ImageBlock(FileSource("f")), "FileSource"),
        (AudioBlock(Base64Source("audio/wav", b"x")), "AudioBlock"),
        (ProviderBlock("cohere", {"type": "x"}), "ProviderBlock"),
    ],
)
def test_other_blocks_of_a_user_are_refused(block: Block, words: str) -> None:
    with pytest.raises(UnsupportedContentError, match=words):
        COHERE_CHAT.body(ChatRequest([Message.user([block])]), MODEL)


@pytest.mark.parametrize("blocks", [[""], []])
def test_nothing_to_send_is_refused(blocks: list[str]) -> None:
    with pytest.raises(UnsupportedContentError, match="nothing to send"):
        COHERE_CHAT.body(ChatRequest([Message.user(blocks)], system_prompt="s"), MODEL)


OWN = {"type": "thinking", "origin": "cohere"}
CITED = {"start": 0, "end": 1, "text": "a", "sources": [{"type": "document", "id": "doc_0"}]}
CITATIONS = ProviderBlock("cohere", {"type": "citations", "citations": [CITED]})
PLAN = ProviderBlock("cohere", {"type": "tool_plan", "tool_plan": "I will f."})
CALL = ToolCallBlock("c", "f", {"a": "é"})
CALL_JSON = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a":"é"}'}}


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


@pytest.mark.parametrize(
    ("blocks", "sent"),
    [
        (["a", "b"], {"content": [text("ab")]}),
        (["a", CITATIONS, "b"], {"content": [text("ab")], "citations": [CITED]}),
        ([ReasoningBlock("hm", wire_data=OWN), "a"],
         {"content": [{"type": "thinking", "thinking": "hm"}, text("a")]}),
        ([ReasoningBlock("hm", wire_data={"type": "thinking", "origin": "x"}), "a"], {"content": [text("a")]}),
        ([ReasoningBlock("hm", "S", "anthropic"), "a"], {"content": [text("a")]}),
        ([RedactedReasoningBlock("x", "cohere"), "a"], {"content": [text("a")]}),
        ([PLAN, CALL], {"tool_plan": "I will f.", "tool_calls": [CALL_JSON]}),
        ([PLAN, "a"], {"content": [text("a")]}),
        ([CITATIONS, CALL], {"tool_calls": [CALL_JSON]}),
        ([ProviderBlock("cohere", {"type": "new"}), "a"], {"content": [text("a")]}),
    ],
)  # fmt: skip
def test_an_assistant_message_has_content_plan_calls_and_citations(blocks: Any, sent: dict[str, Any]) -> None:
    history, at = valid_around(Message.assistant(blocks))
    body, _ = COHERE_CHAT.body(ChatRequest(history), MODEL)
    assert body["messages"][at] == {"role": "assistant", **sent}


@pytest.mark.parametrize("block", [PLAN, CITATIONS, ReasoningBlock("hm", wire_data=OWN)])
def test_an_assistant_message_without_text_and_calls_is_left_out(block: Block) -> None:
    body, _ = COHERE_CHAT.body(ChatRequest([Message.user("q"), Message.assistant([block])]), MODEL)
    assert body["messages"] == [{"role": "user", "content": "q"}]


def test_an_image_of_an_assistant_is_refused() -> None:
    with pytest.raises(UnsupportedContentError, match="an assistant message cannot contain it"):
        COHERE_CHAT.body(ChatRequest([Message.user("q"), Message.assistant(["a", ImageBlock(PNG)])]), MODEL)


@pytest.mark.parametrize(
    ("result", "content"),
    [
        (ToolResultBlock("c", "1"), "1"),
        (ToolResultBlock("c", []), ""),
        (ToolResultBlock("c", "no", is_error=True), "Error: no"),
    ],
)
def test_a_result_is_a_message(result: ToolResultBlock, content: str) -> None:
    history, _ = valid_around(Message.user([result]))
    body, _ = COHERE_CHAT.body(ChatRequest(history), MODEL)
    assert body["messages"][2:] == [{"role": "tool", "tool_call_id": "c", "content": content}]


def test_a_document_of_a_tool_goes_behind_the_results() -> None:
    history, _ = valid_around(Message.user([ToolResultBlock("c", ["see", NOTES])]))
    body, _ = COHERE_CHAT.body(ChatRequest(history), MODEL)
    assert [message["role"] for message in body["messages"][2:]] == ["tool", "user"]
    assert body["documents"][0]["data"]["text"] == "café"
