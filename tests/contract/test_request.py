"""ChatRequest: which arguments it accepts and refuses; and the functions that all `lower` share."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import pytest

from completion import (
    Base64Source,
    CacheControl,
    ChatRequest,
    JsonSchema,
    Message,
    SystemBlock,
    TextBlock,
    ToolChoice,
    ToolDefinition,
    UnsupportedContentError,
)
from completion.contract.request import system_text
from completion.testing import ScriptedModel
from completion.wires.lowering import count_cache_controls, data_uri, json_text, merged, unsupported

TOOL = ToolDefinition("f", "does f", {"type": "object"})

# Arguments of the wrong type, as a program without a type checker may pass them.
untyped: Any = object()
nothing: Any = None


def test_a_string_is_one_user_message() -> None:
    assert ChatRequest("hi").messages == (Message.user("hi"),)


def test_messages_may_be_a_single_message() -> None:
    single: Any = Message.user("hi")
    assert ChatRequest(single).messages == (single,)


def test_optional_fields_of_a_request_have_no_value_by_default() -> None:
    fields = {field.name: getattr(ChatRequest("hi"), field.name) for field in dataclasses.fields(ChatRequest)}
    assert fields == {
        "messages": (Message.user("hi"),),
        "max_tokens": 4096,
        "system_prompt": None,
        "tools": (),
        "tool_choice": None,
        "parallel_tool_use": None,
        "temperature": None,
        "top_p": None,
        "top_k": None,
        "seed": None,
        "stop_sequences": (),
        "reasoning_effort": None,
        "response_format": None,
        "additional_params": None,
    }


def test_a_request_is_frozen_and_can_be_copied_with_changes() -> None:
    req = ChatRequest("hi")
    with pytest.raises(dataclasses.FrozenInstanceError):
        req.max_tokens = 1  # type: ignore[misc]
    assert dataclasses.replace(req, max_tokens=1).max_tokens == 1


def test_changing_a_list_later_does_not_change_the_request() -> None:
    messages, tools, stops, tags = [Message.user("a")], [TOOL], ["x"], ["t"]
    req = ChatRequest(messages, tools=tools, stop_sequences=stops, system_prompt=[SystemBlock("s")])
    tool = ToolDefinition("g", "", {}, tags)
    for given in (messages, tools, stops, tags):
        given.clear()
    assert (len(req.messages), len(req.tools), req.stop_sequences, tool.tags) == (1, 1, ("x",), ("t",))


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda: ChatRequest([]), ValueError, "ChatRequest.messages is empty; pass a string or at least one Message"),
        (lambda: ChatRequest(nothing), TypeError, "ChatRequest.messages takes a list of Message objects, got NoneType"),
        (
            lambda: ChatRequest([{"role": "user", "content": "x"}]),  # type: ignore[list-item]
            TypeError,
            "ChatRequest.messages[0] must be a Message, got dict",
        ),
        (lambda: ChatRequest("x", max_tokens=0), ValueError, "ChatRequest.max_tokens must be at least 1, got 0"),
        (lambda: ChatRequest("x", max_tokens=nothing), TypeError, "ChatRequest.max_tokens: expected int, got NoneType"),
        (lambda: ChatRequest("x", max_tokens=1.5), TypeError, "ChatRequest.max_tokens: expected int, got float"),  # type: ignore[arg-type]
        (lambda: ChatRequest("x", max_tokens=True), TypeError, "ChatRequest.max_tokens: expected int, got bool"),
        (lambda: ChatRequest("x", system_prompt=untyped), TypeError, "ChatRequest.system_prompt takes a list of"),
        (lambda: ChatRequest("x", system_prompt=[untyped]), TypeError, "system_prompt[0] must be a SystemBlock"),
        (lambda: ChatRequest("x", tools=untyped), TypeError, "ChatRequest.tools takes a list of ToolDefinition"),
        (lambda: ChatRequest("x", tools=[TOOL, untyped]), TypeError, "ChatRequest.tools[1] must be a ToolDefinition"),
        (lambda: ChatRequest("x", tools=[TOOL, TOOL]), ValueError, "ChatRequest.tools contains a name twice: f"),
        (
            lambda: ChatRequest("x", tool_choice="auto"),  # type: ignore[arg-type]
            TypeError,
            "ChatRequest.tool_choice: expected ToolChoice or None, got 'auto'",
        ),
        (
            lambda: ChatRequest("x", tools=[TOOL], tool_choice=ToolChoice.tool("g")),
            ValueError,
            "ChatRequest.tool_choice names 'g', which is not in ChatRequest.tools",
        ),
        (
            lambda: ScriptedModel("a").chat_stream(ChatRequest("x", tool_choice=ToolChoice.any())),
            ValueError,
            "ChatRequest.tool_choice requires a tool call, but ChatRequest.tools is empty",
        ),
        (lambda: ChatRequest("x", parallel_tool_use=untyped), TypeError, "parallel_tool_use: expected bool or None"),
        (lambda: ChatRequest("x", temperature="1"), TypeError, "ChatRequest.temperature: expected float or None"),  # type: ignore[arg-type]
        (lambda: ChatRequest("x", temperature=float("nan")), ValueError, "ChatRequest.temperature must be finite"),
        (lambda: ChatRequest("x", temperature=10**400), TypeError, "ChatRequest.temperature: expected float or None"),
        (lambda: ChatRequest("x", top_p=float("inf")), ValueError, "ChatRequest.top_p must be finite, got inf"),
        (lambda: ChatRequest("x", top_p=True), TypeError, "ChatRequest.top_p: expected float or None, got bool"),
        (lambda: ChatRequest("x", top_k=-1), ValueError, "ChatRequest.top_k must be at least 0, got -1"),
        (lambda: ChatRequest("x", seed=1.0), TypeError, "ChatRequest.seed: expected int or None, got float"),  # type: ignore[arg-type]
        (lambda: ChatRequest("x", stop_sequences="END"), TypeError, "takes a list of strings; write ['END']"),
        (lambda: ChatRequest("x", stop_sequences=["a", ""]), ValueError, "stop_sequences[1] must not be empty"),
        (lambda: ChatRequest("x", stop_sequences=[1]), TypeError, "stop_sequences[0] must be a string, got int"),  # type: ignore[list-item]
        (lambda: ChatRequest("x", stop_sequences=nothing), TypeError, "stop_sequences takes a list of strings, got"),
        (lambda: ChatRequest("x", reasoning_effort="most"), ValueError, "ChatRequest.reasoning_effort must be one of"),  # type: ignore[arg-type]
        (lambda: ChatRequest("x", reasoning_effort=-1), ValueError, "reasoning_effort must be at least 0, got -1"),
        (lambda: ChatRequest("x", reasoning_effort=True), TypeError, "ChatRequest.reasoning_effort: expected"),
        (lambda: ChatRequest("x", response_format="xml"), ValueError, "response_format must be 'json' or a JsonSchema"),  # type: ignore[arg-type]
        (lambda: ChatRequest("x", response_format=untyped), TypeError, "response_format: expected JsonSchema or"),
        (lambda: ChatRequest("x", additional_params=untyped), TypeError, "additional_params: expected dict or None"),
        (lambda: SystemBlock(untyped), TypeError, "SystemBlock.text: expected str, got object"),
        (lambda: ToolDefinition("", "d", {}), ValueError, "ToolDefinition.name must not be empty"),
        (lambda: ToolDefinition(untyped, "d", {}), TypeError, "ToolDefinition.name: expected str, got object"),
        (lambda: ToolDefinition("f", nothing, {}), TypeError, "ToolDefinition.description: expected str, got NoneType"),
        (
            lambda: ToolDefinition("f", "d", untyped),
            TypeError,
            "ToolDefinition.input_schema: expected dict, got object",
        ),
        (lambda: ToolDefinition("f", "d", {}, "ab"), TypeError, "ToolDefinition.tags takes a list of strings"),
        (lambda: ToolDefinition("f", "d", {}, strict=untyped), TypeError, "ToolDefinition.strict: expected bool or"),
        (lambda: JsonSchema("", {}), ValueError, "JsonSchema.name must not be empty"),
        (lambda: JsonSchema("n", untyped), TypeError, "JsonSchema.schema: expected dict, got object"),
        (lambda: ToolChoice("must"), ValueError, "ToolChoice.kind must be 'auto', 'any', 'tool' or 'none', got 'must'"),  # type: ignore[arg-type]
        (lambda: ToolChoice.tool(""), ValueError, "ToolChoice.name is required for kind 'tool', and not allowed"),
        (lambda: ToolChoice("auto", "f"), ValueError, "and not allowed for the others, got kind 'auto' with name 'f'"),
        (lambda: ToolChoice.tool(untyped), TypeError, "ToolChoice.name: expected str or None, got object"),
    ],
)
def test_the_error_for_a_bad_value_names_the_field(
    make: Callable[[], object], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind) as caught:
        make()
    assert message in str(caught.value)


# The table of RFC 7396, appendix A: https://www.rfc-editor.org/rfc/rfc7396#appendix-A
@pytest.mark.parametrize(
    ("body", "patch", "result"),
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
)
def test_additional_params_are_a_json_merge_patch(body: Any, patch: Any, result: Any) -> None:
    assert merged(body, patch) == result


def test_merging_changes_neither_the_body_nor_the_patch() -> None:
    body, patch = {"a": {"b": 1}}, {"a": {"c": 2}}
    assert merged(body, patch) == {"a": {"b": 1, "c": 2}}
    assert (body, patch) == ({"a": {"b": 1}}, {"a": {"c": 2}})


@pytest.mark.parametrize(
    ("prompt", "text"),
    [
        (None, ""),
        ("be brief", "be brief"),
        ([SystemBlock("a"), SystemBlock(""), SystemBlock("b")], "a\n\nb"),
    ],
)
def test_system_text_joins_the_blocks(prompt: str | list[SystemBlock] | None, text: str) -> None:
    assert system_text(ChatRequest("x", system_prompt=prompt)) == text


CACHED = CacheControl()


@pytest.mark.parametrize(
    ("req", "wanted"),
    [
        (ChatRequest("x", system_prompt="s", tools=[TOOL]), False),
        (ChatRequest([Message.user([TextBlock("x", cache_control=CACHED)])]), True),
        (ChatRequest("x", system_prompt=[SystemBlock("s", CACHED)]), True),
        (ChatRequest("x", tools=[ToolDefinition("f", "", {}, cache_control=CACHED)]), True),
    ],
)
def test_a_cache_control_is_found_everywhere_in_a_request(req: ChatRequest, wanted: bool) -> None:
    assert bool(count_cache_controls(req)) is wanted


def test_the_error_for_unsupported_content_names_it() -> None:
    error = unsupported("ImageBlock", "it takes text only")
    assert isinstance(error, UnsupportedContentError)
    assert str(error) == "ImageBlock cannot be sent: it takes text only"


def test_data_uri_encodes_the_bytes() -> None:
    assert data_uri(Base64Source("image/png", b"\x00\xff")) == "data:image/png;base64,AP8="


def test_json_text_is_compact_and_not_escaped() -> None:
    assert json_text({"a": ["ü", 1]}, "args") == '{"a":["ü",1]}'


@pytest.mark.parametrize("value", [{"a": float("nan")}, {"a": b"x"}])
def test_a_value_that_is_not_json_is_unsupported_content(value: Any) -> None:
    with pytest.raises(UnsupportedContentError, match="args cannot be sent: it is not JSON"):
        json_text(value, "args")


def test_help_shows_that_messages_may_be_a_string() -> None:
    assert "messages: 'str | Sequence[Message]'" in str(inspect.signature(ChatRequest))
