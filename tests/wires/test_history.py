"""A history of any provider becomes one that the next provider accepts."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from completion import (
    AudioBlock,
    Base64Source,
    Block,
    ChatRequest,
    DocumentBlock,
    ImageBlock,
    Message,
    ProviderBlock,
    ReasoningBlock,
    RedactedReasoningBlock,
    TextBlock,
    ToolCallBlock,
    ToolDefinition,
    ToolResultBlock,
)
from completion.adapters import providers
from completion.wires.anthropic import MESSAGES
from completion.wires.anthropic.dialect import MessagesDialect
from completion.wires.bedrock_converse import CONVERSE
from completion.wires.bedrock_converse.dialect import ConverseDialect
from completion.wires.cohere import COHERE_CHAT
from completion.wires.gemini import GENERATE_CONTENT
from completion.wires.gemini.names import ANY_SIGNATURE
from completion.wires.gemini_interactions import INTERACTIONS
from completion.wires.history import BEGINNING, NO_RESULT
from completion.wires.ollama import OLLAMA_CHAT
from completion.wires.openai_chat import CHAT_COMPLETIONS
from completion.wires.openai_chat.dialect import COMPATIBLE, OPENAI, ChatDialect
from completion.wires.openai_responses import RESPONSES

PNG = ImageBlock(Base64Source("image/png", "iVBORw0KGgoAAAA="))
PDF = DocumentBlock(Base64Source("application/pdf", "JVBERi0xLjQ="))
WAV = AudioBlock(Base64Source("audio/wav", "UklGRgAAAAA="))

DIALECTS = {
    "openai": OPENAI,
    "unknown server": COMPATIBLE,
    "deepseek": ChatDialect("max_tokens", reasoning_back="reasoning_content"),
    "openrouter": ChatDialect("max_tokens", reasoning_back="reasoning_details"),
    "groq": ChatDialect("max_tokens", reasoning_back="reasoning"),
    "mistral": providers.PROVIDERS["mistral"].dialect,
}
HOSTS = {"openai": "api.openai.com", "unknown server": "llm.test:8000", "openrouter": "openrouter.ai"}


def chat(history: Sequence[Message], dialect: str = "openai", **fields: Any) -> list[dict[str, Any]]:
    """The messages in the body of Chat Completions."""
    host = HOSTS.get(dialect, f"{dialect}.test")
    body, _ = CHAT_COMPLETIONS.body(ChatRequest(history, **fields), "m", DIALECTS[dialect], host)
    messages: list[dict[str, Any]] = body["messages"]
    return messages


def claude(history: Sequence[Message], **fields: Any) -> list[dict[str, Any]]:
    """The messages in the body of Anthropic Messages."""
    body, _ = MESSAGES.body(ChatRequest(history, **fields), "claude-sonnet-4-5", MessagesDialect())
    messages: list[dict[str, Any]] = body["messages"]
    return messages


def responses(history: Sequence[Message], **fields: Any) -> list[dict[str, Any]]:
    """The input items of OpenAI Responses."""
    body, _ = RESPONSES.body(ChatRequest(history, **fields), "gpt-5.6", None, "api.openai.com")
    items: list[dict[str, Any]] = body["input"]
    return items


def gemini(history: Sequence[Message], model: str = "gemini-2.5-pro", **fields: Any) -> list[dict[str, Any]]:
    """The contents of generateContent."""
    body, _ = GENERATE_CONTENT.body(ChatRequest(history, **fields), model)
    contents: list[dict[str, Any]] = body["contents"]
    return contents


def converse(history: Sequence[Message], **fields: Any) -> list[dict[str, Any]]:
    """The messages in the body of Bedrock Converse."""
    body, _ = CONVERSE.body(ChatRequest(history, **fields), "anthropic.claude-sonnet-4-5", ConverseDialect())
    messages: list[dict[str, Any]] = body["messages"]
    return messages


def interactions(history: Sequence[Message], **fields: Any) -> list[dict[str, Any]]:
    """The steps of the Interactions API."""
    body, _ = INTERACTIONS.body(ChatRequest(history, **fields), "gemini-3.5-flash")
    steps: list[dict[str, Any]] = body["input"]
    return steps


def ollama(history: Sequence[Message], **fields: Any) -> list[dict[str, Any]]:
    """The messages of Ollama's native chat."""
    body, _ = OLLAMA_CHAT.body(ChatRequest(history, **fields), "qwen3")
    messages: list[dict[str, Any]] = body["messages"]
    return messages


def cohere(history: Sequence[Message], **fields: Any) -> list[dict[str, Any]]:
    """The messages of Cohere's chat."""
    body, _ = COHERE_CHAT.body(ChatRequest(history, **fields), "command-a-03-2025")
    messages: list[dict[str, Any]] = body["messages"]
    return messages


def call(call_id: str = "c", name: str = "f", **fields: Any) -> ToolCallBlock:
    return ToolCallBlock(call_id, name, {}, **fields)


def result(call_id: str = "c", blocks: Any = "1", **fields: Any) -> ToolResultBlock:
    return ToolResultBlock(call_id, blocks, **fields)


def conversation(*turns: list[Block | str]) -> list[Message]:
    """Messages that alternate between user and assistant; the first is the user's."""
    return [Message.assistant(blocks) if n % 2 else Message.user(blocks) for n, blocks in enumerate(turns)]


# Calls and their results


@pytest.mark.parametrize(
    ("after_the_calls", "tools"),
    [
        ([[result("a", "1"), result("b", "2")]], ["1", "2"]),
        ([[result("b", "2"), result("a", "1")]], ["1", "2"]),
        ([["Be quick.", result("a", "1"), "By the way", result("b", "2")]], ["1", "2"]),
        ([[result("a", "1"), result("a", "again"), result("b", "2"), result("x", "?")]], ["1", "2"]),
        ([[result("b", "2")]], [f"Error: {NO_RESULT}", "2"]),
        ([["never mind"]], [f"Error: {NO_RESULT}"] * 2),
        ([], [f"Error: {NO_RESULT}"] * 2),
        ([["wait"], ["ok"], [result("a", "late"), result("b", "late")]], [f"Error: {NO_RESULT}"] * 2),
    ],
    ids=["right", "other order", "text between", "twice and unknown", "one missing", "none", "the end", "too late"],
)
def test_each_call_has_one_result_in_the_order_of_the_calls(after_the_calls: list[Any], tools: list[str]) -> None:
    sent = chat(conversation(["q"], [call("a"), call("b")], *after_the_calls))
    at = next(n for n, message in enumerate(sent) if "tool_calls" in message)
    after_calls = sent[at + 1 :]
    assert [message["content"] for message in after_calls if message["role"] == "tool"] == tools
    assert all(message["role"] == "tool" for message in after_calls[:2])
    assert [message["tool_call_id"] for message in after_calls[:2]] == ["a", "b"]


def test_messages_around_a_dropped_result_are_merged() -> None:
    sent = chat([Message.user("a"), Message.assistant("b"), Message.tool_result("x", "1"), Message.assistant("c")])
    assert [message["content"] for message in sent] == ["a", "bc"]


def test_the_result_of_a_custom_call_is_kept() -> None:
    custom = ProviderBlock("openai-chat", {"id": "k", "type": "custom", "custom": {"name": "sql", "input": "x"}})
    sent = chat(conversation(["q"], [custom], [result("k", "1")]))
    assert sent[2] == {"role": "tool", "tool_call_id": "k", "content": "1"}


# Ids


LONG = "fc_" + "0a1b2c3d" * 6


@pytest.mark.parametrize(
    ("dialect", "given", "is_kept"),
    [
        ("openai", "call_1", True),
        ("openai", "functions.f:0", True),
        ("openai", LONG, False),
        ("openai", "", False),
        ("unknown server", LONG, False),
        ("unknown server", f"call_1__thought__{'Cg' * 40}", True),
        ("mistral", "abcDEF123", True),
        ("mistral", "call_1", False),
        ("mistral", "abc_EF123", False),
    ],
)
def test_an_id_is_rewritten_if_the_wire_does_not_accept_it(dialect: str, given: str, is_kept: bool) -> None:
    _, assistant, answer, *_ = chat(conversation(["q"], [call(given)], [result(given)]), dialect)
    sent = assistant["tool_calls"][0]["id"]
    assert (sent == given) is is_kept
    assert answer["tool_call_id"] == sent
    assert re.fullmatch("[a-zA-Z0-9]{9}" if dialect == "mistral" else ".{1,40}|.*__thought__.*", sent)


@pytest.mark.parametrize("given", ["functions.f:0", "", "ü", LONG * 2])
def test_anthropic_gets_ids_of_legal_characters(given: str) -> None:
    _, assistant, answer = claude(conversation(["q"], [call(given)], [result(given)]))
    assert re.fullmatch("[a-zA-Z0-9_-]{1,64}", assistant["content"][0]["id"])
    assert answer["content"][0]["tool_use_id"] == assistant["content"][0]["id"]


def test_an_id_that_is_used_twice_becomes_unique_and_keeps_its_own_result() -> None:
    history = conversation(
        ["q"], [call("c"), call("c")], [result("c", "1"), result("c", "2")], [call("c")], [result("c", "3")]
    )
    sent = chat(history)
    ids = [one["id"] for message in sent for one in message.get("tool_calls", ())]
    assert len(set(ids)) == 3
    assert ids[0] == "c"
    answers = {message["tool_call_id"]: message["content"] for message in sent if message["role"] == "tool"}
    assert [answers[one] for one in ids] == ["1", "2", "3"]


def test_a_rewritten_id_does_not_change_when_the_history_grows() -> None:
    turns: list[list[Block | str]] = [["q"]]
    for number in range(4):
        turns += [[call("c"), call(LONG)], [result("c", str(number)), result(LONG, "x")]]
    history = conversation(*turns)
    whole = chat(history)
    for end in range(3, len(history) + 1, 2):
        part = chat(history[:end])
        assert part == whole[: len(part)]


# Names


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("f", "f"),
        ("multi_tool_use.parallel", "multi_tool_use_parallel"),
        ("f<|channel|>commentary", "f__channel__commentary"),
        ("", "unknown_tool"),
        ("n" * 90, "n" * 64),
    ],
)
def test_the_name_of_a_call_is_legal(given: str, sent: str) -> None:
    _, assistant, *_ = chat(conversation(["q"], [call(name=given)], [result()]))
    assert assistant["tool_calls"][0]["function"]["name"] == sent


def test_the_name_of_an_offered_tool_is_sent_unchanged() -> None:
    tool = ToolDefinition("files.read", "", {})
    _, assistant, *_ = chat(conversation(["q"], [call(name="files.read")], [result()]), tools=[tool])
    assert assistant["tool_calls"][0]["function"]["name"] == "files.read"


# What belongs to one provider


FROM_ANTHROPIC = [
    ReasoningBlock("Hm.", "SIG", "anthropic"),
    RedactedReasoningBlock("ENC", "anthropic"),
    ProviderBlock("anthropic", {"type": "web_search_tool_result", "tool_use_id": "s"}),
]
FROM_OTHERS = [
    ReasoningBlock("Hm.", "SIG", "openai-chat@openrouter.ai", {"details": [{"type": "reasoning.text", "text": 3}]}),
    RedactedReasoningBlock("ENC", "openai-chat@openrouter.ai", {"details": [{"type": "reasoning.encrypted"}]}),
    ProviderBlock("gemini", {"executableCode": {}}),
    ReasoningBlock("Hm.", "SIG", "gemini"),
]


def test_signatures_go_back_to_their_own_wire_only() -> None:
    history = conversation(["q"], [*FROM_ANTHROPIC, *FROM_OTHERS, "Four."], ["and 1?"])
    assert [block["type"] for block in claude(history)[1]["content"]] == [
        "thinking", "redacted_thinking", "web_search_tool_result", "text"
    ]  # fmt: skip
    assert chat(history)[1] == {"role": "assistant", "content": "Four."}


def test_old_blocks_without_a_provider_are_sent_on_every_wire() -> None:
    old: list[Block | str] = [ReasoningBlock("Hm.", "SIG"), RedactedReasoningBlock("ENC"), call(signature="S")]
    history = conversation(["q"], old, [result()])
    assert [block["type"] for block in claude(history)[1]["content"]][:2] == ["thinking", "redacted_thinking"]
    assert chat(history)[1]["tool_calls"][0]["extra_content"] == {"google": {"thought_signature": "S"}}


def test_the_signature_of_a_call_goes_back_to_its_own_host_only() -> None:
    history = conversation(["q"], [call(signature="S", provider="openai-chat@llm.test:8000")], [result()])
    assert "extra_content" in chat(history, "unknown server")[1]["tool_calls"][0]
    assert "extra_content" not in chat(history, "openrouter")[1]["tool_calls"][0]


def test_messages_around_one_that_lost_all_its_blocks_are_merged() -> None:
    history = [Message.user("a"), Message.assistant(FROM_OTHERS), Message.user("b")]
    assert chat(history) == [{"role": "user", "content": "a\n\nb"}]


# The first message, and half surrogate pairs


def test_a_user_message_is_put_before_a_history_that_begins_with_the_model() -> None:
    history = [Message.assistant("Hello!"), Message.user("Hi.")]
    assert [message["role"] for message in claude(history)] == ["user", "assistant", "user"]
    assert claude(history)[0]["content"][0]["text"] == BEGINNING
    assert [message["role"] for message in chat(history)] == ["assistant", "user"]


def test_half_surrogate_pairs_of_models_and_tools_are_replaced() -> None:
    blocks: list[Block | str] = ["caf\udce9", ToolCallBlock("c", "f", {"x": "half \ud83d"})]
    history = conversation(["q"], blocks, [result("c", "\ud83d\ude00 and \ude00")])
    sent = chat(history)
    assert sent[1]["content"] == "caf\ufffd"
    assert json.loads(sent[1]["tool_calls"][0]["function"]["arguments"]) == {"x": "half \ufffd"}
    assert sent[2]["content"] == "\U0001f600 and \ufffd"


def test_half_surrogate_pairs_in_signatures_and_provider_blocks_are_replaced() -> None:
    blocks = [
        ReasoningBlock("Hm", "sig \ud83d", "anthropic"),
        RedactedReasoningBlock("data \ud83d", "anthropic"),
        ProviderBlock("anthropic", {"type": "server_tool_use", "name": "half \ud83d"}),
    ]
    sent = claude([Message.user("q"), Message.assistant(blocks), Message.user("b")])[1]["content"]
    assert [(part.get("signature"), part.get("data"), part.get("name")) for part in sent] == [
        ("sig \ufffd", None, None),
        (None, "data \ufffd", None),
        (None, None, "half \ufffd"),
    ]


# Images in tool results


def test_an_image_moves_after_the_results_if_a_result_cannot_contain_it() -> None:
    history = conversation(["q"], [call("a", "draw"), call("b")], [result("a", ["Look:", PNG]), result("b", [PNG])])
    sent = chat(history)
    assert [message["role"] for message in sent] == ["user", "assistant", "tool", "tool", "user"]
    assert sent[2]["content"] == "Look:[image 1: see the message after the tool results]"
    assert sent[3]["content"] == "[image 2: see the message after the tool results]"
    assert [part["type"] for part in sent[4]["content"]] == ["text", "image_url"] * 2
    assert sent[4]["content"][0]["text"] == "[image 1, returned by draw]"


def test_anthropic_gets_images_in_results_but_not_in_error_results() -> None:
    history = conversation(["q"], [call("a"), call("b")], [result("a", [PNG]), result("b", [PNG], is_error=True)])
    content = claude(history)[2]["content"]
    assert content[0]["content"][0]["type"] == "image"
    assert [block["type"] for block in content[1]["content"]] == ["text"]
    assert [block["type"] for block in content[2:]] == ["text", "image"]


def test_a_block_that_no_message_can_contain_becomes_a_sentence() -> None:
    sent = claude(conversation(["q"], [call()], [result("c", [WAV])]))
    assert sent[2]["content"][0]["content"] == [
        {"type": "text", "text": "[audio: it cannot be shown to this model]"}
    ]  # fmt: skip


def test_an_image_has_the_media_type_of_its_bytes() -> None:
    jpeg = ImageBlock(Base64Source("image/png", b"\xff\xd8\xff\xe0 jpeg"))
    assert claude([Message.user([jpeg])])[0]["content"][0]["source"]["media_type"] == "image/jpeg"
    assert chat([Message.user([jpeg])])[0]["content"][0]["image_url"]["url"].startswith("data:image/jpeg;")


# Random histories, checked against the rules of each wire

TEXTS = st.sampled_from(["", " ", "a", "b\ud800", "caf\u00e9"])
IDS = st.sampled_from(["", "c", "c", "d", "call_1", "functions.f:0", LONG, "abcDEF123", "é", "x" * 90])
NAMES = st.sampled_from(["f", "g", "", "a.b", "n" * 70, "é"])
PROVIDERS = st.sampled_from([
    None, "anthropic", "openai-chat", "openai-chat@llm.test:8000", "gemini", "gemini-interactions", "x@y", "cohere",
    "ollama", "openai-responses", "openai-responses@api.openai.com", "openai-responses@api.x.ai",
])  # fmt: skip
ITEM = json.dumps({"id": "rs_1", "type": "reasoning", "summary": [], "encrypted_content": "ENC"})
SIGNATURES = st.sampled_from([None, "SIG", ITEM])
WIRE_DATA = st.sampled_from(
    [
        None,
        {"field": "reasoning"},
        {"field": "thinking"},
        {"type": "thinking"},
        {"details": [{"type": "reasoning.text", "text": 1}]},
    ]
)

PROVIDER_BLOCKS: list[dict[str, Any]] = [
    {"type": "server_tool_use", "id": "s"},
    {"type": "message", "phase": "commentary", "content": [{"type": "output_text", "length": 1}]},
    {"type": "custom_tool_call", "id": "ctc_1", "call_id": "d", "name": "n", "input": "x"},
]
OWN_OF_GEMINI = [
    ProviderBlock("gemini", {"type": "signature", "thoughtSignature": "SIG", "length": 1}),
    ProviderBlock("gemini", {"type": "candidate", "groundingMetadata": {}}),
    ProviderBlock("gemini", {"executableCode": {}, "thoughtSignature": "SIG"}),
    ProviderBlock("gemini-interactions", {"type": "annotations", "annotations": [{}]}),
    ProviderBlock("gemini-interactions", {"type": "image", "data": ""}),
    ProviderBlock("bedrock", {"type": "citations", "citations": [{}], "length": 1}),
    ProviderBlock("bedrock", {"type": "message", "trace": {}}),
    ReasoningBlock("Hm.", "SIG", "bedrock"),
    RedactedReasoningBlock("RU5D", "bedrock"),
]
OWN_OF_COHERE = [
    ProviderBlock("cohere", {"type": "tool_plan", "tool_plan": "I will f."}),
    ProviderBlock("cohere", {"type": "citations", "citations": [{"start": 0, "end": 1, "text": "a"}]}),
]

ASSISTANT_BLOCKS: st.SearchStrategy[Block] = st.one_of(
    st.builds(TextBlock, TEXTS),
    st.builds(ReasoningBlock, TEXTS, SIGNATURES, PROVIDERS, WIRE_DATA),
    st.builds(RedactedReasoningBlock, st.just("ENC"), PROVIDERS),
    st.builds(ProviderBlock, PROVIDERS.filter(bool), st.sampled_from(PROVIDER_BLOCKS)),
    st.sampled_from(OWN_OF_GEMINI),
    st.sampled_from(OWN_OF_COHERE),
    st.builds(lambda i, n, s, p: ToolCallBlock(i, n, {"x": "\udc00"}, s, p), IDS, NAMES, SIGNATURES, PROVIDERS),
)
RESULT_BLOCKS = st.lists(st.one_of(st.builds(TextBlock, TEXTS), st.sampled_from([PNG, PDF, WAV])), max_size=2)
USER_BLOCKS: st.SearchStrategy[Block] = st.one_of(
    st.builds(TextBlock, st.sampled_from(["", "q"])),
    st.builds(ToolResultBlock, IDS, RESULT_BLOCKS, st.booleans()),
    st.sampled_from([PNG]),
)
HISTORIES = st.lists(
    st.one_of(
        st.builds(Message.assistant, st.lists(ASSISTANT_BLOCKS, max_size=4)),
        st.builds(Message.user, st.lists(USER_BLOCKS, max_size=4)),
    ),
    max_size=8,
).map(lambda history: [Message.user("begin"), *history, Message.user("end")])


def check_chat(messages: list[dict[str, Any]], dialect: str) -> None:
    """Assert that servers of the dialect accept the messages."""
    json.dumps(messages, allow_nan=False).encode()
    ids: list[str] = []
    waiting: list[str] = []
    last_role = ""
    for message in messages:
        role = message["role"]
        if dialect == "mistral" and last_role == "tool":
            assert role != "user"
        last_role = role
        if role == "tool":
            assert waiting, "a result without a call"
            assert message["tool_call_id"] == waiting.pop(0)
            assert isinstance(message["content"], str)
            continue
        assert not waiting, "a call without its result"
        if role == "assistant":
            assert message.get("content") or message.get("tool_calls")
            if dialect == "openai":
                assert message.keys() <= {"role", "content", "tool_calls"}
            for one in message.get("tool_calls", ()):
                waiting.append(one["id"])
                assert re.fullmatch("[a-zA-Z0-9_-]{1,64}", one["function"]["name"])
                assert isinstance(json.loads(one["function"]["arguments"]), dict)
            ids += waiting
        else:
            assert role == "user" and message["content"]
    assert not waiting
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch("[a-zA-Z0-9]{9}" if dialect == "mistral" else ".{1,40}", one) for one in ids)


def check_claude(messages: list[dict[str, Any]]) -> None:
    """Assert that Anthropic accepts the messages."""
    json.dumps(messages, allow_nan=False).encode()
    assert messages[0]["role"] == "user"
    waiting: list[str] = []
    ids: list[str] = []
    for before, message in zip([None, *messages], messages, strict=False):
        assert before is None or before["role"] != message["role"]
        content = message["content"]
        assert content
        results = [block for block in content if block["type"] == "tool_result"]
        assert [block["tool_use_id"] for block in results] == waiting
        assert content[: len(results)] == results
        waiting = [block["id"] for block in content if block["type"] == "tool_use"]
        ids += waiting
        for block in content:
            assert block["type"] != "text" or block["text"].strip()
            assert block["type"] != "thinking" or block["signature"]
            if block["type"] == "tool_result" and block.get("is_error"):
                assert {inner["type"] for inner in block["content"]} == {"text"}
    assert not waiting
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch("[a-zA-Z0-9_-]{1,64}", one) for one in ids)


def check_responses(items: list[dict[str, Any]]) -> None:
    json.dumps(items, allow_nan=False).encode()
    ids: list[str] = []
    waiting: list[str] = []
    for item, following in zip(items, [*items[1:], {"type": "nothing"}], strict=True):
        kind = item["type"]
        if kind == "function_call":
            assert re.fullmatch("[a-zA-Z0-9_-]{1,64}", item["name"])
            assert isinstance(json.loads(item["arguments"]), dict)
            waiting.append(item["call_id"])
            ids.append(item["call_id"])
        elif kind == "function_call_output":
            assert item["call_id"] == waiting.pop(0)
            assert item["output"] or item["output"] == ""
        elif kind == "reasoning":
            assert item["encrypted_content"]
            what_follows = following.get("role"), following["type"]
            assert what_follows != ("user", "message") and not following["type"].endswith("_output")
        elif kind == "message":
            assert item["content"]
            assert item["role"] == "assistant" or not waiting, "a call without its result"
            parts = {part["type"] for part in item["content"]}
            assert parts <= ({"output_text"} if item["role"] == "assistant" else {"input_text", "input_image"})
    assert not waiting
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch("[a-zA-Z0-9_-]{1,64}", one) for one in ids)
    custom = [item["call_id"] for item in items if item["type"] == "custom_tool_call"]
    assert set(custom) <= {item["call_id"] for item in items if item["type"] == "custom_tool_call_output"}


def check_gemini(contents: list[dict[str, Any]], model: str) -> None:
    json.dumps(contents, allow_nan=False).encode()
    assert contents[0]["role"] == "user"
    waiting: list[tuple[Any, str]] = []
    for before, content in zip([None, *contents], contents, strict=False):
        assert before is None or before["role"] != content["role"]
        parts = content["parts"]
        assert parts
        answers = [part["functionResponse"] for part in parts if "functionResponse" in part]
        assert [(answer.get("id"), answer["name"]) for answer in answers] == waiting
        assert all(answer["response"].keys() <= {"result", "error"} for answer in answers)
        asked = [part for part in parts if "functionCall" in part]
        assert not asked or content["role"] == "model"
        waiting = [(part["functionCall"].get("id"), part["functionCall"]["name"]) for part in asked]
        assert all(re.fullmatch("[a-zA-Z_][a-zA-Z0-9_.:-]{0,63}", name) for _, name in waiting)
        if asked and "-3" in model:
            assert asked[0]["thoughtSignature"] in ("SIG", ITEM, ANY_SIGNATURE)
        assert all(part["thoughtSignature"] for part in parts if part.get("thought"))
    assert not waiting


def check_interactions(steps: list[dict[str, Any]]) -> None:
    json.dumps(steps, allow_nan=False).encode()
    waiting: list[tuple[str, str]] = []
    ids: list[str] = []
    assert steps[0]["type"] == "user_input"
    for step in steps:
        kind = step["type"]
        if kind == "function_result":
            assert (step["call_id"], step["name"]) == waiting.pop(0)
            continue
        if kind == "function_call":
            waiting.append((step["id"], step["name"]))
            ids.append(step["id"])
        elif kind in ("user_input", "model_output"):
            assert step["content"]
            assert kind != "user_input" or not waiting
        elif kind == "thought":
            assert step["signature"]
    assert not waiting
    assert len(set(ids)) == len(ids)


def check_ollama(messages: list[dict[str, Any]]) -> None:
    """Assert that Ollama accepts the messages."""
    json.dumps(messages, allow_nan=False).encode()
    waiting: list[tuple[str, str]] = []
    for message in messages:
        role = message["role"]
        assert isinstance(message["content"], str)
        if role == "tool":
            assert (message["tool_call_id"], message["tool_name"]) == waiting.pop(0)
            continue
        assert not waiting, "a call without its result"
        assert message["content"] or message.get("tool_calls") or message.get("images")
        assert all(isinstance(one["function"]["arguments"], dict) for one in message.get("tool_calls", ()))
        waiting = [(one["id"], one["function"]["name"]) for one in message.get("tool_calls", ())]
        assert all(re.fullmatch("[a-zA-Z0-9_-]{1,64}", name) for _, name in waiting)
    assert not waiting


def check_cohere(messages: list[dict[str, Any]]) -> None:
    """Assert that Cohere accepts the messages."""
    json.dumps(messages, allow_nan=False).encode()
    waiting: list[str] = []
    for message in messages:
        if message["role"] == "tool":
            assert message["tool_call_id"] == waiting.pop(0)
            assert isinstance(message["content"], str)
            continue
        assert not waiting, "a call without its result"
        calls = message.get("tool_calls", [])
        assert message.get("content") or calls
        assert all(isinstance(json.loads(one["function"]["arguments"]), dict) for one in calls)
        assert "tool_plan" not in message or calls
        if message["role"] == "assistant":
            parts = message.get("content", [])
            assert all(part[part["type"]] for part in parts)
            assert "citations" not in message or any(part["type"] == "text" for part in parts)
        waiting = [one["id"] for one in calls]
    assert not waiting


def check_converse(messages: list[dict[str, Any]]) -> None:
    """Assert that Bedrock accepts the messages."""
    json.dumps(messages, allow_nan=False).encode()
    assert messages[0]["role"] == "user"
    waiting: list[str] = []
    ids: list[str] = []
    names: list[str] = []
    for before, message in zip([None, *messages], messages, strict=False):
        assert before is None or before["role"] != message["role"]
        content = message["content"]
        assert content
        results = [block["toolResult"] for block in content if "toolResult" in block]
        assert [block["toolUseId"] for block in results] == waiting
        assert all("toolResult" in block for block in content[: len(results)])
        waiting = [block["toolUse"]["toolUseId"] for block in content if "toolUse" in block]
        ids += waiting
        inner = [one for result in results for one in result["content"]]
        for block in [*content, *inner]:
            assert len(block) == 1
            assert block.get("text", "x").strip()
            assert (
                "reasoningText" not in block.get("reasoningContent", ())
                or (block["reasoningContent"]["reasoningText"]["signature"])
            )
            if "toolUse" in block:
                assert re.fullmatch("[a-zA-Z0-9_-]{1,64}", block["toolUse"]["name"])
            if "document" in block:
                names.append(block["document"]["name"])
        for result in results:
            assert result["content"]
            assert result.get("status") != "error" or all("text" in one for one in result["content"])
        assert "text" in {key for block in content for key in block} or all("document" not in one for one in content)
    assert not waiting
    assert len(set(ids)) == len(ids)
    assert len(set(names)) == len(names)
    assert all(re.fullmatch("[a-zA-Z0-9_.:-]{1,64}", one) for one in ids)


@pytest.mark.parametrize(
    ("given", "sent"),
    [("f", "f"), ("a.b:c-d", "a.b:c-d"), ("1st", "_st"), ("", "unknown_tool"), ("n" * 90, "n" * 64), ("é!", "__")],
)
def test_gemini_gets_names_of_its_own_characters(given: str, sent: str) -> None:
    _, asked, answered = gemini(conversation(["q"], [call(name=given)], [result()]))
    assert asked["parts"][0]["functionCall"]["name"] == answered["parts"][0]["functionResponse"]["name"] == sent


@given(history=HISTORIES, dialect=st.sampled_from(list(DIALECTS)))
@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
def test_every_history_becomes_one_that_the_wire_accepts(history: list[Message], dialect: str) -> None:
    before = copy.deepcopy(history)
    check_chat(chat(history, dialect), dialect)
    check_claude(claude(history))
    check_responses(responses(history))
    for model in ("gemini-2.5-pro", "gemini-3.1-pro"):
        check_gemini(gemini(history, model), model)
    check_interactions(interactions(history))
    check_ollama(ollama(history))
    check_cohere(cohere(history))
    check_converse(converse(history))
    assert history == before


@given(history=HISTORIES, end=st.integers(1, 9), dialect=st.sampled_from(list(DIALECTS)))
@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
def test_ids_stay_when_any_history_grows(history: list[Message], end: int, dialect: str) -> None:
    def ids(messages: list[dict[str, Any]]) -> list[str]:
        return [one["id"] for message in messages for one in message.get("tool_calls", ())]

    first = ids(chat(history[:end], dialect))
    assert ids(chat(history, dialect))[: len(first)] == first
