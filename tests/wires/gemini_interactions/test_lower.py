"""From a ChatRequest to the JSON body of the Interactions API: tables of literals."""

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
    ToolChoice,
    ToolResultBlock,
    UnsupportedContentError,
    UrlSource,
)
from completion.wires.gemini_interactions import INTERACTIONS
from tests.wire_pieces import PDF, PNG, TOOL, valid_around

MODEL = "gemini-3.5-flash"


def said(*content: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"type": "user_input", "content": list(content)}]


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


MINIMAL: dict[str, Any] = {
    "model": MODEL,
    "input": said(text("hi")),
    "stream": True,
    "store": False,
    "generation_config": {"max_output_tokens": 4096},
}
TOOL_JSON = {
    "type": "function", "name": "f", "description": "Does f.", "parameters": {"type": "object", "properties": {}}
}  # fmt: skip
SCHEMA = JsonSchema("n", {"type": "object", "properties": {"a": {"type": "string"}}})


def config(**given: Any) -> dict[str, Any]:
    return {"generation_config": {"max_output_tokens": 4096, **given}}


FIELDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "messages": ("hello", {"input": said(text("hello"))}),
    "max_tokens": (7, config(max_output_tokens=7)),
    "system_prompt": ("Be brief.", {"system_instruction": "Be brief."}),
    "tools": ([TOOL], {"tools": [TOOL_JSON]}),
    "tool_choice": (ToolChoice.any(), {"tools": [TOOL_JSON], **config(tool_choice="any")}),
    "parallel_tool_use": (True, {"tools": [TOOL_JSON]}),
    "temperature": (0.0, config(temperature=0.0)),
    "top_p": (0.5, config(top_p=0.5)),
    "top_k": (5, {}),
    "seed": (0, config(seed=0)),
    "stop_sequences": (["a"], config(stop_sequences=["a"])),
    "reasoning_effort": ("low", config(thinking_level="low", thinking_summaries="auto")),
    "response_format": (
        SCHEMA,
        {"response_format": {"type": "text", "mime_type": "application/json", "schema": SCHEMA.schema}},
    ),
    "additional_params": ({"store": True, "service_tier": "flex"}, {"store": True, "service_tier": "flex"}),
}  # fmt: skip


@pytest.mark.parametrize("name", [field.name for field in fields(ChatRequest)])
def test_every_field_changes_the_body_or_is_reported_as_dropped(name: str) -> None:
    value, change = FIELDS[name]
    tools = [TOOL] if name in ("tool_choice", "parallel_tool_use") else []
    body, dropped = INTERACTIONS.body(ChatRequest(**{"messages": "hi", "tools": tools, name: value}), MODEL)
    assert body == {**MINIMAL, **change}
    assert dropped == ([name] if name == "top_k" else [])


@pytest.mark.parametrize(
    ("choice", "sent"),
    [
        (ToolChoice.auto(), "auto"),
        (ToolChoice.none(), "none"),
        (ToolChoice.tool("f"), {"allowed_tools": {"mode": "any", "tools": ["f"]}}),
    ],
)
def test_a_tool_choice_is_a_mode(choice: ToolChoice, sent: Any) -> None:
    body, _ = INTERACTIONS.body(ChatRequest("hi", tools=[TOOL], tool_choice=choice), MODEL)
    assert body["generation_config"]["tool_choice"] == sent


def test_at_most_one_call_cannot_be_said() -> None:
    with pytest.raises(UnsupportedContentError, match="parallel_tool_use=False"):
        INTERACTIONS.body(ChatRequest("hi", tools=[TOOL], parallel_tool_use=False), MODEL)


@pytest.mark.parametrize(
    ("model", "effort", "level", "is_dropped"),
    [
        (MODEL, "minimal", "minimal", False),
        (MODEL, 0, "minimal", True),
        (MODEL, 4096, "medium", True),
        ("gemini-3.8-flash", "minimal", "low", True),
        ("gemini-2.5-pro", "minimal", "low", True),
        ("gemini-2.5-pro", "high", "high", False),
        ("gemini-2.0-flash", "low", None, True),
    ],
)
def test_an_effort_is_a_level(model: str, effort: Any, level: str | None, is_dropped: bool) -> None:
    body, dropped = INTERACTIONS.body(ChatRequest("hi", reasoning_effort=effort), model)
    assert body["generation_config"].get("thinking_level") == level
    assert dropped == ["reasoning_effort"] * is_dropped


@pytest.mark.parametrize(
    ("block", "content"),
    [
        (ImageBlock(PNG), {"type": "image", "mime_type": "image/png", "data": "iVBORw=="}),
        (ImageBlock(UrlSource("https://x/y.png")), {"type": "image", "mime_type": "image/png", "uri": "https://x/y.png"}),
        (DocumentBlock(PDF), {"type": "document", "mime_type": "application/pdf", "data": "JVBERg=="}),
        (AudioBlock(Base64Source("audio/wav", b"x")), {"type": "audio", "mime_type": "audio/wav", "data": "eA=="}),
        (DocumentBlock(Base64Source("video/mp4", b"x")), {"type": "video", "mime_type": "video/mp4", "data": "eA=="}),
    ],
)  # fmt: skip
def test_a_block_of_a_user_is_content(block: Block, content: dict[str, Any]) -> None:
    body, _ = INTERACTIONS.body(ChatRequest([Message.user(["see", block])]), MODEL)
    assert body["input"] == said(text("see"), content)


@pytest.mark.parametrize(
    ("result", "fields"),
    [
        (ToolResultBlock("c", "1"), {"result": [text("1")]}),
        (ToolResultBlock("c", []), {"result": ""}),
        (ToolResultBlock("c", "no", is_error=True), {"result": [text("no")], "is_error": True}),
        (ToolResultBlock("c", ["see", ImageBlock(PNG)]),
         {"result": [text("see"), {"type": "image", "mime_type": "image/png", "data": "iVBORw=="}]}),
    ],
)  # fmt: skip
def test_a_result_is_a_step(result: ToolResultBlock, fields: dict[str, Any]) -> None:
    history, _ = valid_around(Message.user([result]))
    body, _ = INTERACTIONS.body(ChatRequest(history), MODEL)
    assert body["input"][1:] == [
        {"type": "function_call", "id": "c", "name": "f", "arguments": {}},
        {"type": "function_result", "call_id": "c", "name": "f", **fields},
    ]
