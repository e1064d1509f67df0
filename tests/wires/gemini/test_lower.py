"""From a ChatRequest to the JSON body of generateContent: tables of literals."""

from __future__ import annotations

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
from completion.wires.gemini import GENERATE_CONTENT
from completion.wires.gemini.names import ANY_SIGNATURE
from tests.wire_pieces import PDF, PNG, TOOL, valid_around

OLD, NEW = "gemini-2.5-flash", "gemini-3.1-pro-preview"
HI = [{"role": "user", "parts": [{"text": "hi"}]}]
MINIMAL: dict[str, Any] = {"contents": HI, "generationConfig": {"maxOutputTokens": 4096}}
TOOL_JSON = {
    "functionDeclarations": [
        {"name": "f", "description": "Does f.", "parametersJsonSchema": {"type": "object", "properties": {}}}
    ]
}
SCHEMA = JsonSchema("n", {"type": "object", "properties": {"a": {"type": "string"}}})


def lowered(request: ChatRequest, model: str = OLD) -> tuple[dict[str, Any], list[str]]:
    return GENERATE_CONTENT.body(request, model)


def config(**given: Any) -> dict[str, Any]:
    return {**MINIMAL, "generationConfig": {"maxOutputTokens": 4096, **given}}


def parts(message: Message, model: str = OLD) -> Any:
    """The parts of the message, sent in a valid history."""
    history, place = valid_around(message)
    return lowered(ChatRequest(history), model)[0]["contents"][place]["parts"]


# Fields

FIELDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "messages": ("hello", {**MINIMAL, "contents": [{"role": "user", "parts": [{"text": "hello"}]}]}),
    "max_tokens": (7, config(maxOutputTokens=7)),
    "system_prompt": ("Be brief.", {**MINIMAL, "systemInstruction": {"parts": [{"text": "Be brief."}]}}),
    "tools": ([TOOL], {**MINIMAL, "tools": [TOOL_JSON]}),
    "tool_choice": (
        ToolChoice.any(),
        {**MINIMAL, "tools": [TOOL_JSON], "toolConfig": {"functionCallingConfig": {"mode": "ANY"}}},
    ),
    "parallel_tool_use": (True, {**MINIMAL, "tools": [TOOL_JSON]}),
    "temperature": (0.0, config(temperature=0.0)),
    "top_p": (0.5, config(topP=0.5)),
    "top_k": (5, config(topK=5)),
    "seed": (0, config(seed=0)),
    "stop_sequences": (["a", "b"], config(stopSequences=["a", "b"])),
    "reasoning_effort": ("low", config(thinkingConfig={"thinkingBudget": 1024, "includeThoughts": True})),
    "response_format": (SCHEMA, config(responseMimeType="application/json", responseJsonSchema=SCHEMA.schema)),
    "additional_params": ({"cachedContent": "x"}, {**MINIMAL, "cachedContent": "x"}),
}


def test_a_request_with_nothing_set_is_the_minimal_body() -> None:
    assert lowered(ChatRequest("hi")) == (MINIMAL, [])


@pytest.mark.parametrize("name", [field.name for field in fields(ChatRequest)])
def test_every_field_changes_the_body(name: str) -> None:
    value, body = FIELDS[name]
    tools = [TOOL] if name in ("tool_choice", "parallel_tool_use") else []
    assert lowered(ChatRequest(**{"messages": "hi", "tools": tools, name: value})) == (body, [])


def test_at_most_one_call_cannot_be_said() -> None:
    with pytest.raises(UnsupportedContentError, match="parallel_tool_use=False"):
        lowered(ChatRequest("hi", tools=[TOOL], parallel_tool_use=False))
    assert lowered(ChatRequest("hi", parallel_tool_use=False)) == (MINIMAL, [])


@pytest.mark.parametrize(
    ("choice", "sent"),
    [
        (ToolChoice.auto(), {"mode": "AUTO"}),
        (ToolChoice.none(), {"mode": "NONE"}),
        (ToolChoice.tool("f"), {"mode": "ANY", "allowedFunctionNames": ["f"]}),
    ],
)
def test_a_tool_choice_is_a_mode(choice: ToolChoice, sent: dict[str, Any]) -> None:
    body, _ = lowered(ChatRequest("hi", tools=[TOOL], tool_choice=choice))
    assert body["toolConfig"] == {"functionCallingConfig": sent}


def test_a_preference_without_a_field_is_dropped() -> None:
    tool = ToolDefinition("f", "", {}, strict=True, cache_control=CacheControl())
    _, dropped = lowered(ChatRequest("hi", tools=[tool], system_prompt=[SystemBlock("x", CacheControl())]))
    assert dropped == ["cache_control", "tools.strict"]


def test_json_without_a_schema_has_the_media_type_only() -> None:
    assert lowered(ChatRequest("hi", response_format="json"))[0] == config(responseMimeType="application/json")


def test_additional_params_are_merged_into_the_body() -> None:
    request = ChatRequest("hi", temperature=1, additional_params={"generationConfig": {"temperature": None, "x": 1}})
    assert lowered(request)[0] == config(x=1)


def test_a_schema_has_only_what_the_api_knows() -> None:
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {
            "kind": {"const": "a"},
            "name": {"type": "string", "pattern": "^a", "minLength": 2, "description": "A name."},
            "when": {"type": "string", "format": "date-time"},
            "mail": {"type": "string", "format": "email"},
            "other": {"allOf": [{"$ref": "#/definitions/Other"}], "description": "d", "default": None},
            "list": {"type": "array", "minItems": 1},
        },
        "definitions": {"Other": {"type": "integer", "exclusiveMinimum": 0}},
        "additionalProperties": False,
    }
    body, _ = lowered(ChatRequest("hi", tools=[ToolDefinition("f", "", schema)]))
    (function,) = body["tools"][0]["functionDeclarations"]
    assert function["parametersJsonSchema"] == {
        "type": "object",
        "properties": {
            "kind": {"enum": ["a"]},
            "name": {
                "type": "string",
                "description": 'A name. It matches the regular expression "^a". At least 2 characters.',
            },
            "when": {"type": "string", "format": "date-time"},
            "mail": {"type": "string", "description": 'Its format is "email".'},
            "other": {"$ref": "#/$defs/Other"},
            "list": {"type": "array", "items": {}, "minItems": 1},
        },
        "additionalProperties": False,
        "$defs": {"Other": {"type": "integer", "description": "More than 0."}},
    }


# Thinking


def budget(tokens: int) -> dict[str, Any]:
    return {"thinkingBudget": tokens, **({"includeThoughts": True} if tokens else {})}


def level(word: str) -> dict[str, Any]:
    return {"thinkingLevel": word, "includeThoughts": True}


THINKING: list[tuple[str, dict[Any, Any], list[Any]]] = [
    ("gemini-2.5-flash", {"minimal": budget(512), "medium": budget(8192), "high": budget(24576), 0: budget(0)}, []),
    ("gemini-2.5-pro", {"low": budget(1024), 5: budget(128), 0: budget(128), 9000: budget(9000)}, [0, 5]),
    ("gemini-2.5-flash-lite", {"low": budget(1024), 0: budget(0), 5: budget(5)}, []),
    ("gemini-2.0-flash", {"low": None, 9: None, 0: None}, ["low", 9]),
    ("gemini-1.5-pro", {"high": None}, ["high"]),
    (
        "gemini-3-pro-preview",
        {"minimal": level("low"), "medium": level("high"), "high": level("high")},
        ["minimal", "medium"],
    ),
    ("gemini-3.1-pro-preview", {"minimal": level("low"), "medium": level("medium"), 0: level("low")}, ["minimal", 0]),
    ("gemini-3-flash-preview", {"minimal": level("minimal"), "low": level("low"), 0: level("minimal")}, [0]),
    ("gemini-3.5-flash-lite", {"minimal": level("minimal"), 4096: budget(4096)}, []),
    ("gemini-3.8-flash", {"minimal": level("low"), "medium": level("medium"), "high": level("high")}, ["minimal"]),
    ("gemini-flash-latest", {"minimal": level("low"), "high": level("high")}, ["minimal"]),
    ("tunedModels/mine", {"low": budget(1024)}, []),
]


@pytest.mark.parametrize(("model", "efforts", "unfulfilled"), THINKING, ids=[row[0] for row in THINKING])
def test_thinking_depends_on_the_version_of_the_model(
    model: str, efforts: dict[Any, Any], unfulfilled: list[Any]
) -> None:
    for effort, thinking in efforts.items():
        body, dropped = lowered(ChatRequest("hi", reasoning_effort=effort), model)
        assert body == (config(thinkingConfig=thinking) if thinking else MINIMAL), effort
        assert dropped == ["reasoning_effort"] * (effort in unfulfilled), effort


# Blocks

PNG_PART = {"inlineData": {"mimeType": "image/png", "data": "iVBORw=="}}


@pytest.mark.parametrize(
    ("block", "part"),
    [
        (ImageBlock(PNG), PNG_PART),
        (ImageBlock(Base64Source("image/png", b"\xff\xd8\xff\xe0")),
         {"inlineData": {"mimeType": "image/jpeg", "data": "/9j/4A=="}}),
        (ImageBlock(UrlSource("https://x/y.png?z")),
         {"fileData": {"mimeType": "image/png", "fileUri": "https://x/y.png?z"}}),
        (ImageBlock(UrlSource("https://x/y")), {"fileData": {"fileUri": "https://x/y"}}),
        (ImageBlock(UrlSource("data:image/png;base64,iVBORw==")), PNG_PART),
        (DocumentBlock(UrlSource("data:text/plain,a%20b")), {"inlineData": {"mimeType": "text/plain", "data": "YSBi"}}),
        (ImageBlock(FileSource("files/abc")),
         {"fileData": {"fileUri": "https://generativelanguage.googleapis.com/v1beta/files/abc"}}),
        (AudioBlock(FileSource("gs://bucket/a.wav")), {"fileData": {"fileUri": "gs://bucket/a.wav"}}),
        (DocumentBlock(PDF, name="a.pdf"), {"inlineData": {"mimeType": "application/pdf", "data": "JVBERg=="}}),
        (DocumentBlock(Base64Source("video/mp4", b"x")), {"inlineData": {"mimeType": "video/mp4", "data": "eA=="}}),
        (AudioBlock(Base64Source("audio/wav", b"x")), {"inlineData": {"mimeType": "audio/wav", "data": "eA=="}}),
        (ProviderBlock("gemini", {"fileData": {}}), {"fileData": {}}),
    ],
)  # fmt: skip
def test_a_block_of_a_user_is_a_part(block: Block, part: dict[str, Any]) -> None:
    assert parts(Message.user(["see", block])) == [{"text": "see"}, part]


@pytest.mark.parametrize(
    "block",
    [
        ImageBlock(Base64Source("image/gif", b"GIF89a")),
        DocumentBlock(Base64Source("application/zip", b"x")),
        ImageBlock(UrlSource("data:image/png;base64,§")),
        ReasoningBlock("hm"),
    ],
)
def test_what_the_api_does_not_read_is_refused(block: Block) -> None:
    with pytest.raises(UnsupportedContentError):
        parts(Message.user([block]))


CALL = {"functionCall": {"id": "c", "name": "f", "args": {"a": 1}}}
MADE_UP = "call_" + "0a" * 12


@pytest.mark.parametrize(
    ("blocks", "sent"),
    [
        (["hi"], [{"text": "hi"}]),
        ([ReasoningBlock("hm", "S", "gemini"), "hi"],
         [{"text": "hm", "thought": True, "thoughtSignature": "S"}, {"text": "hi"}]),
        ([ReasoningBlock("hm"), RedactedReasoningBlock("x", "gemini"), "hi"], [{"text": "hi"}]),
        ([ReasoningBlock("hm", "S", "anthropic"), "hi"], [{"text": "hi"}]),
        ([ToolCallBlock("c", "f", {"a": 1})], [CALL]),
        ([ToolCallBlock("c", "f", {"a": 1}, "S", "gemini")], [{**CALL, "thoughtSignature": "S"}]),
        ([ToolCallBlock("c", "f", {"a": 1}, "S", "openai-chat")], [CALL]),
        ([ToolCallBlock(MADE_UP, "f", {})], [{"functionCall": {"name": "f", "args": {}}}]),
        (["a big cat", ProviderBlock("gemini", {"type": "signature", "thoughtSignature": "S", "length": 3})],
         [{"text": "a big "}, {"text": "cat", "thoughtSignature": "S"}]),
        (["cat", ProviderBlock("gemini", {"type": "signature", "thoughtSignature": "S", "length": 30})],
         [{"text": "cat", "thoughtSignature": "S"}]),
        (["cat", ProviderBlock("gemini", {"type": "signature", "thoughtSignature": "S", "length": 0})],
         [{"text": "cat"}, {"text": "", "thoughtSignature": "S"}]),
        ([ProviderBlock("gemini", {"type": "signature", "thoughtSignature": "S", "length": 3})],
         [{"text": "", "thoughtSignature": "S"}]),
        (["hi", ProviderBlock("gemini", {"type": "candidate", "groundingMetadata": {}})], [{"text": "hi"}]),
        ([ProviderBlock("gemini", {"executableCode": {}, "thoughtSignature": "S"}), "hi"],
         [{"executableCode": {}, "thoughtSignature": "S"}, {"text": "hi"}]),
        ([ProviderBlock("anthropic", {"type": "x"}), "hi"], [{"text": "hi"}]),
        ([ImageBlock(PNG)], [PNG_PART]),
    ],
)  # fmt: skip
def test_a_block_of_the_model_goes_back_as_it_came(blocks: list[Block | str], sent: list[Any]) -> None:
    assert parts(Message.assistant(blocks)) == sent


@pytest.mark.parametrize(
    ("result", "response"),
    [
        (ToolResultBlock("c", "17 °C"), {"id": "c", "name": "f", "response": {"result": "17 °C"}}),
        (ToolResultBlock("c", "no", is_error=True), {"id": "c", "name": "f", "response": {"error": "no"}}),
        (ToolResultBlock(MADE_UP, ["a", "b"]), {"name": "f", "response": {"result": "ab"}}),
        (ToolResultBlock("c", []), {"id": "c", "name": "f", "response": {"result": ""}}),
    ],
)
def test_a_result_has_the_name_of_its_call(result: ToolResultBlock, response: dict[str, Any]) -> None:
    assert parts(Message.user([result])) == [{"functionResponse": response}]


@pytest.mark.parametrize("is_error", [False, True])
def test_a_file_in_a_result_stays_there_since_gemini_3(is_error: bool) -> None:
    pdf = DocumentBlock(Base64Source("application/pdf", b"%PDF-1.7"))
    (found,) = parts(Message.tool_result("c", ["Look:", ImageBlock(PNG), pdf, "?"], is_error), NEW)
    pdf_part = {"inlineData": {"mimeType": "application/pdf", "data": "JVBERi0xLjc="}}
    assert found["functionResponse"] == {
        "id": "c",
        "name": "f",
        "response": {"error" if is_error else "result": "Look:?"},
        "parts": [PNG_PART, pdf_part],
    }


@pytest.mark.parametrize(
    "block",
    [
        ImageBlock(UrlSource("https://x/y.png")),
        ImageBlock(FileSource("files/abc")),
        ImageBlock(Base64Source("image/heic", b"heic")),
        DocumentBlock(Base64Source("text/csv", b"a,b")),
        AudioBlock(Base64Source("audio/wav", b"RIFF")),
    ],
)
def test_a_file_that_a_result_cannot_contain_goes_behind_it(block: Block) -> None:
    found = parts(Message.tool_result("c", ["Look:", block]), NEW)
    assert [next(iter(part)) for part in found][:2] == ["functionResponse", "text"]
    assert len(found) == 3
    assert "parts" not in found[0]["functionResponse"]


def test_an_image_in_a_result_goes_behind_it_before_gemini_3() -> None:
    found = parts(Message.tool_result("c", ["Look:", ImageBlock(PNG)]), OLD)
    assert [next(iter(part)) for part in found] == ["functionResponse", "text", "inlineData"]
    assert found[0]["functionResponse"]["response"]["result"].startswith("Look:[image 1")


@pytest.mark.parametrize(("model", "is_needed"), [(OLD, False), (NEW, True), ("gemini-pro-latest", True), ("x", False)])
def test_the_first_call_of_each_step_is_signed_where_the_api_requires_it(model: str, is_needed: bool) -> None:
    history = [Message.user("q")]
    for signature in (None, "S"):
        first = ToolCallBlock(f"{signature}1", "f", {}, signature, signature and "gemini")
        second = ToolCallBlock(f"{signature}2", "f", {})
        results = [ToolResultBlock(call.call_id, "r") for call in (first, second)]
        history += [Message.assistant(["x", first, second]), Message.user(results)]
    body, _ = lowered(ChatRequest(history), model)
    signatures = [
        part.get("thoughtSignature") for one in body["contents"] for part in one["parts"] if "functionCall" in part
    ]
    assert signatures == [ANY_SIGNATURE if is_needed else None, None, "S", None]


def test_a_history_of_nothing_is_refused() -> None:
    with pytest.raises(UnsupportedContentError, match="nothing to send"):
        lowered(ChatRequest([Message.user([TextBlock("")])]))
