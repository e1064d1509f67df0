"""From requests to bodies of Bedrock Converse: a table of literals for each field."""

from __future__ import annotations

import json
from typing import Any

import pytest
from botocore.session import Session
from botocore.validate import ParamValidator

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
from completion.wires.bedrock_converse import CONVERSE
from completion.wires.bedrock_converse.dialect import ConverseDialect
from tests.wire_pieces import PDF, PNG

CLAUDE = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
CLAUDE_46 = "anthropic.claude-opus-4-6-v1"
CLAUDE_37 = "anthropic.claude-3-7-sonnet-20250219-v1:0"
NOVA, NOVA_2 = "amazon.nova-pro-v1:0", "us.amazon.nova-2-lite-v1:0"
LLAMA, GPT = "meta.llama3-3-70b-instruct-v1:0", "openai.gpt-oss-120b-1:0"
TOOL = ToolDefinition("f", "Does f.", {"type": "object"})
SPEC = {
    "toolSpec": {"name": "f", "description": "Does f.", "inputSchema": {"json": {"type": "object", "properties": {}}}}
}
POINT = {"cachePoint": {"type": "default"}}
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": False}

# Amazon's own description of the request. Its SDK encodes bytes as base64 itself, so here they are strings.
SHAPE = Session().get_service_model("bedrock-runtime").operation_model("ConverseStream").input_shape
# An old botocore does not know all fields.
IS_CURRENT = "effort" in getattr(SHAPE.members.get("outputConfig"), "members", ())


def lowered(request: ChatRequest, model: str = CLAUDE, **options: Any) -> tuple[dict[str, Any], list[str]]:
    body, dropped = CONVERSE.body(request, model, ConverseDialect(**options))
    if IS_CURRENT:
        report = ParamValidator().validate({"modelId": "m", **body}, SHAPE)
        assert not report.has_errors(), report.generate_report()
    return body, dropped


def content_of(*blocks: Block | str, model: str = CLAUDE) -> Any:
    return lowered(ChatRequest([Message.user(blocks)]), model)[0]["messages"][0]["content"]


def test_a_plain_question() -> None:
    body, dropped = lowered(ChatRequest("Hi"))
    assert body == {
        "messages": [{"role": "user", "content": [{"text": "Hi"}]}],
        "inferenceConfig": {"maxTokens": 4096},
    }
    assert dropped == []


FIELDS: list[tuple[str, dict[str, Any], dict[str, Any], list[str]]] = [
    (CLAUDE, {"max_tokens": 9}, {"inferenceConfig": {"maxTokens": 9}}, []),
    (CLAUDE, {"system_prompt": "Be."}, {"system": [{"text": "Be."}]}, []),
    (CLAUDE, {"system_prompt": " "}, {}, []),
    (
        CLAUDE,
        {"system_prompt": [SystemBlock("A", CacheControl("1h")), SystemBlock("B")]},
        {"system": [{"text": "A"}, {"cachePoint": {"type": "default", "ttl": "1h"}}, {"text": "B"}]},
        [],
    ),
    (LLAMA, {"system_prompt": [SystemBlock("A", CacheControl())]}, {"system": [{"text": "A"}]}, ["cache_control"]),
    (
        CLAUDE_37,
        {"temperature": 0.5, "top_p": 0.9},
        {"inferenceConfig": {"maxTokens": 4096, "temperature": 0.5, "topP": 0.9}},
        [],
    ),
    (CLAUDE, {"top_k": 5}, {"additionalModelRequestFields": {"top_k": 5}}, []),
    (NOVA, {"top_k": 5}, {"additionalModelRequestFields": {"inferenceConfig": {"topK": 5}}}, []),
    ("cohere.command-r-v1:0", {"top_k": 5}, {"additionalModelRequestFields": {"k": 5}}, []),
    (LLAMA, {"top_k": 5}, {}, ["top_k"]),
    (CLAUDE, {"seed": 5}, {}, ["seed"]),
    ("anthropic.claude-sonnet-5-5", {"temperature": 0.5, "top_k": 5}, {}, ["temperature", "top_k"]),
    (
        CLAUDE,
        {"stop_sequences": ["END"]},
        {
            "inferenceConfig": {"maxTokens": 4096, "stopSequences": ["END"]},
            "additionalModelResponseFieldPaths": ["/delta/stop_sequence"],
        },
        [],
    ),
    (LLAMA, {"stop_sequences": ["END"]}, {"inferenceConfig": {"maxTokens": 4096, "stopSequences": ["END"]}}, []),
    (CLAUDE, {"tools": [TOOL]}, {"toolConfig": {"tools": [SPEC]}}, []),
    (
        CLAUDE,
        {"tools": [ToolDefinition("f", "Does f.", {"type": "object"}, cache_control=CacheControl())]},
        {"toolConfig": {"tools": [SPEC, POINT]}},
        [],
    ),
    (
        NOVA,
        {"tools": [ToolDefinition("f", "Does f.", {"type": "object"}, cache_control=CacheControl())]},
        {"toolConfig": {"tools": [SPEC]}},
        ["cache_control"],
    ),
    (
        CLAUDE,
        {"tools": [ToolDefinition("f", "", SCHEMA, strict=True)]},
        {"toolConfig": {"tools": [{"toolSpec": {"name": "f", "inputSchema": {"json": SCHEMA}, "strict": True}}]}},
        [],
    ),
    (
        NOVA,
        {"tools": [ToolDefinition("f", "", SCHEMA, strict=True)]},
        {"toolConfig": {"tools": [{"toolSpec": {"name": "f", "inputSchema": {"json": SCHEMA}}}]}},
        ["tools.strict"],
    ),
    *[
        (CLAUDE, {"tools": [TOOL], "tool_choice": choice}, {"toolConfig": {"tools": [SPEC], "toolChoice": sent}}, [])
        for choice, sent in (
            (ToolChoice.auto(), {"auto": {}}),
            (ToolChoice.any(), {"any": {}}),
            (ToolChoice.tool("f"), {"tool": {"name": "f"}}),
        )
    ],
    (CLAUDE, {"tools": [TOOL], "tool_choice": ToolChoice.none()}, {}, []),
    (
        CLAUDE,
        {"tools": [TOOL], "parallel_tool_use": False},
        {
            "toolConfig": {"tools": [SPEC]},
            "additionalModelRequestFields": {"tool_choice": {"type": "auto", "disable_parallel_tool_use": True}},
        },
        [],
    ),
    (
        NOVA,
        {"tools": [TOOL], "tool_choice": ToolChoice.tool("f"), "parallel_tool_use": False},
        {"toolConfig": {"tools": [SPEC], "toolChoice": {"tool": {"name": "f"}}}},
        ["parallel_tool_use"],
    ),
    (CLAUDE, {"tools": [TOOL], "parallel_tool_use": True}, {"toolConfig": {"tools": [SPEC]}}, []),
    (
        CLAUDE,
        {"reasoning_effort": "low"},
        {
            "inferenceConfig": {"maxTokens": 5120},
            "additionalModelRequestFields": {"thinking": {"type": "enabled", "budget_tokens": 1024}},
        },
        [],
    ),
    (
        CLAUDE_46,
        {"reasoning_effort": "high"},
        {
            "additionalModelRequestFields": {"thinking": {"type": "adaptive"}},
            "outputConfig": {"effort": "high"},
        },
        [],
    ),
    (CLAUDE, {"reasoning_effort": "none"}, {"additionalModelRequestFields": {"thinking": {"type": "disabled"}}}, []),
    (
        NOVA_2,
        {"reasoning_effort": "low"},
        {"additionalModelRequestFields": {"reasoningConfig": {"type": "enabled", "maxReasoningEffort": "low"}}},
        [],
    ),
    (
        NOVA_2,
        {"reasoning_effort": "none"},
        {"additionalModelRequestFields": {"reasoningConfig": {"type": "disabled"}}},
        [],
    ),
    (
        NOVA_2,
        {"reasoning_effort": "high", "temperature": 1},
        {
            "inferenceConfig": {},
            "additionalModelRequestFields": {"reasoningConfig": {"type": "enabled", "maxReasoningEffort": "high"}},
        },
        ["max_tokens", "temperature"],
    ),
    (GPT, {"reasoning_effort": "high"}, {"additionalModelRequestFields": {"reasoning_effort": "high"}}, []),
    (
        GPT,
        {"reasoning_effort": "max"},
        {"additionalModelRequestFields": {"reasoning_effort": "high"}},
        ["reasoning_effort"],
    ),
    (LLAMA, {"reasoning_effort": "high"}, {}, ["reasoning_effort"]),
    (
        CLAUDE,
        {"additional_params": {"guardrailConfig": {"guardrailIdentifier": "g", "guardrailVersion": "1"}}},
        {"guardrailConfig": {"guardrailIdentifier": "g", "guardrailVersion": "1"}},
        [],
    ),
]


@pytest.mark.parametrize(("model", "fields", "expected", "left_out"), FIELDS)
def test_each_field_of_a_request(
    model: str, fields: dict[str, Any], expected: dict[str, Any], left_out: list[str]
) -> None:
    plain, _ = lowered(ChatRequest("Hi"), model)
    body, dropped = lowered(ChatRequest("Hi", **fields), model)
    assert body == {**plain, **expected}
    assert dropped == left_out


def test_a_schema_is_sent_as_text() -> None:
    body, _ = lowered(ChatRequest("Hi", response_format=JsonSchema("a", SCHEMA)))
    wanted = body["outputConfig"]["textFormat"]
    assert wanted["type"] == "json_schema"
    assert wanted["structure"]["jsonSchema"]["name"] == "a"
    assert json.loads(wanted["structure"]["jsonSchema"]["schema"]) == SCHEMA


@pytest.mark.parametrize(
    ("model", "fields", "words"),
    [
        (CLAUDE, {"response_format": "json"}, "give a JsonSchema"),
        (CLAUDE_37, {"response_format": JsonSchema("a", SCHEMA)}, r"mode='tool'"),
        (NOVA, {"response_format": JsonSchema("a", SCHEMA)}, r"mode='tool'"),
        (CLAUDE, {"response_format": JsonSchema("a", {"type": "object"})}, "closed schemas only"),
        (NOVA, {"tools": [TOOL], "parallel_tool_use": False}, "parallel_tool_use=False"),
        (
            CLAUDE,
            {"tools": [TOOL], "tool_choice": ToolChoice.any(), "reasoning_effort": "low"},
            "while the model thinks",
        ),
        (CLAUDE, {"temperature": 0.5, "reasoning_effort": "low"}, "while the model thinks"),
        (LLAMA, {"tools": [TOOL], "tool_choice": ToolChoice.any()}, "tool_choice='any'"),
    ],
)
def test_what_would_change_the_answer_is_refused(model: str, fields: dict[str, Any], words: str) -> None:
    with pytest.raises(UnsupportedContentError, match=words):
        lowered(ChatRequest("Hi", **fields), model)


def test_the_base_model_decides_for_the_id_of_a_profile() -> None:
    arn = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abc"
    request = ChatRequest("Hi", top_k=3)
    assert lowered(request, arn)[1] == ["top_k"]
    assert lowered(request, arn, base_model=CLAUDE)[0]["additionalModelRequestFields"] == {"top_k": 3}


# Blocks

WAV = Base64Source("audio/wav", "UklGRg==")


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        (ImageBlock(PNG), {"image": {"format": "png", "source": {"bytes": PNG.data}}}),
        (
            ImageBlock(UrlSource("s3://bucket/a.JPG")),
            {"image": {"format": "jpeg", "source": {"s3Location": {"uri": "s3://bucket/a.JPG"}}}},
        ),
        (AudioBlock(WAV), {"audio": {"format": "wav", "source": {"bytes": WAV.data}}}),
        (DocumentBlock(PDF), {"document": {"format": "pdf", "name": "document", "source": {"bytes": PDF.data}}}),
        (
            DocumentBlock(Base64Source("text/x-python", "MQ=="), "a_b.py"),
            {"document": {"format": "txt", "name": "a-b-py", "source": {"bytes": "MQ=="}}},
        ),
        (
            DocumentBlock(UrlSource("s3://bucket/a.docx"), "Plan  (new).docx"),
            {
                "document": {
                    "format": "docx",
                    "name": "Plan (new)",
                    "source": {"s3Location": {"uri": "s3://bucket/a.docx"}},
                }
            },
        ),
    ],
)
def test_blocks_of_a_user(block: Block, expected: dict[str, Any]) -> None:
    assert content_of("Look", block) == [{"text": "Look"}, expected]


@pytest.mark.parametrize(
    ("block", "words"),
    [
        (ImageBlock(UrlSource("https://host/a.png")), "s3:// URLs only"),
        (ImageBlock(FileSource("file-1")), "s3:// URLs only"),
        (ImageBlock(Base64Source("image/bmp", "Qk0=")), "image/bmp"),
        (ImageBlock(UrlSource("s3://bucket/a")), "the type of its URL"),
        (DocumentBlock(Base64Source("application/zip", "UEs=")), "application/zip"),
        (AudioBlock(Base64Source("audio/midi", "TVQ=")), "audio/midi"),
    ],
)
def test_a_block_that_the_api_does_not_support_is_refused(block: Block, words: str) -> None:
    with pytest.raises(UnsupportedContentError, match=words):
        content_of("Look", block)


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("Report.pdf", "Report"), ("Report.PDF", "Report"), ("a\t b\n c", "a b c"), ("größe: 1/2", "gr--e- 1-2"),
        ("[x] (y)-z", "[x] (y)-z"), (None, "document"), (" ", "document"), ("n" * 300, "n" * 200),
    ],
)  # fmt: skip
def test_the_name_of_a_document_becomes_a_legal_one(given: str | None, sent: str) -> None:
    assert content_of("Look", DocumentBlock(PDF, given))[1]["document"]["name"] == sent


def test_the_names_of_documents_differ_in_the_whole_history() -> None:
    first = Message.user(["a", DocumentBlock(PDF, "x.pdf"), DocumentBlock(PDF, "x")])
    tool = Message.user([ToolResultBlock("c", [DocumentBlock(PDF, "x")], False)])
    history = [first, Message.assistant([ToolCallBlock("c", "f", {})]), tool]
    sent = lowered(ChatRequest(history, tools=[TOOL]))[0]["messages"]
    result = sent[2]["content"][0]["toolResult"]["content"][0]
    documents = [block["document"]["name"] for block in [*sent[0]["content"][1:], result]]
    assert documents == ["x", "x (2)", "x (3)"]
    assert lowered(ChatRequest(history[:1]))[0]["messages"][0] == sent[0]  # the prompt cache stays valid


def test_a_document_without_a_text_gets_one() -> None:
    found = content_of(DocumentBlock(PDF))
    assert [next(iter(block)) for block in found] == ["text", "document"]


def test_a_cache_point_follows_its_block() -> None:
    found = content_of(TextBlock("a", cache_control=CacheControl()), TextBlock("b", cache_control=CacheControl("1h")))
    assert found == [{"text": "a"}, POINT, {"text": "b"}, {"cachePoint": {"type": "default", "ttl": "1h"}}]


def test_tool_results() -> None:
    blocks: list[Block] = [TextBlock("1"), ImageBlock(PNG, cache_control=CacheControl())]
    calls = [ToolCallBlock("c", "f", {"x": 1}), ToolCallBlock("d", "f", {}), ToolCallBlock("e", "f", {})]
    results: list[Block] = [
        ToolResultBlock("c", blocks, False),
        ToolResultBlock("d", [TextBlock("no")], True),
        ToolResultBlock("e", [], False),
    ]
    history = [Message.user("q"), Message.assistant(calls), Message.user(results)]
    body, dropped = lowered(ChatRequest(history, tools=[TOOL]))
    assert body["messages"][1]["content"][0] == {"toolUse": {"toolUseId": "c", "name": "f", "input": {"x": 1}}}
    image = {"image": {"format": "png", "source": {"bytes": PNG.data}}}
    assert body["messages"][2]["content"] == [
        {"toolResult": {"toolUseId": "c", "content": [{"text": "1"}, image]}},
        POINT,
        {"toolResult": {"toolUseId": "d", "content": [{"text": "no"}], "status": "error"}},
        {"toolResult": {"toolUseId": "e", "content": [{"text": "(no output)"}]}},
    ]
    assert dropped == []


HISTORY = [Message.user("q"), Message.assistant([ToolCallBlock("c", "g", {})]), Message.tool_result("c", "1")]


def test_calls_in_a_history_need_tools_so_stand_ins_are_sent() -> None:
    tools = lowered(ChatRequest(HISTORY))[0]["toolConfig"]["tools"]
    assert [tool["toolSpec"]["name"] for tool in tools] == ["g"]


def test_no_tool_choice_cannot_be_said_after_calls() -> None:
    with pytest.raises(UnsupportedContentError, match="needs the tools of the calls in the history"):
        lowered(ChatRequest(HISTORY, tools=[TOOL], tool_choice=ToolChoice.none()))


def test_a_history_that_does_not_begin_with_reasoning_is_continued_without_it() -> None:
    body, dropped = lowered(ChatRequest(HISTORY, tools=[TOOL], reasoning_effort="low"))
    assert "additionalModelRequestFields" not in body
    assert body["inferenceConfig"] == {"maxTokens": 4096}
    assert dropped == ["reasoning_effort"]


def test_what_the_model_said_goes_back_as_it_came() -> None:
    own = {"toolUse": {"toolUseId": "s", "name": "nova_grounding", "input": {}, "type": "server_tool_use"}}
    citation = {"title": "A", "location": {"web": {"url": "https://a.test"}}}
    said: list[Block] = [
        ReasoningBlock("Hm.", "SIG", "bedrock"),
        ReasoningBlock("unsigned"),
        RedactedReasoningBlock("RU5D", "bedrock"),
        ProviderBlock("bedrock", own),
        TextBlock("So 4."),
        ProviderBlock("bedrock", {"type": "citations", "citations": [citation], "length": 2}),
        ProviderBlock("bedrock", {"type": "message", "trace": {}}),
        ProviderBlock("anthropic", {"type": "server_tool_use", "id": "x"}),
        TextBlock(" "),
    ]
    sent = CONVERSE.body(
        ChatRequest([Message.user("q"), Message.assistant(said), Message.user("r")]), CLAUDE, ConverseDialect()
    )[0]
    assert sent["messages"][1]["content"] == [
        {"reasoningContent": {"reasoningText": {"text": "Hm.", "signature": "SIG"}}},
        {"reasoningContent": {"redactedContent": "RU5D"}},
        own,
        {"text": "So "},
        {"citationsContent": {"content": [{"text": "4."}], "citations": [citation]}},
    ]


def test_the_id_of_a_call_has_only_characters_that_claude_accepts() -> None:
    call_id = "functions.f:0"
    history = [
        Message.user("q"),
        Message.assistant([ToolCallBlock(call_id, "f", {})]),
        Message.tool_result(call_id, "1"),
    ]
    messages = lowered(ChatRequest(history, tools=[TOOL]))[0]["messages"]
    sent = messages[1]["content"][0]["toolUse"]["toolUseId"]
    assert sent.startswith("functions_f_0")
    assert messages[2]["content"][0]["toolResult"]["toolUseId"] == sent
