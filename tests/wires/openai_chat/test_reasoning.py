"""Reasoning of Chat Completions: the fields it comes in, and the way back to the server that sent it."""

from __future__ import annotations

from typing import Any

import pytest

from completion import ChatRequest, Message, ReasoningBlock, ToolCallBlock, Turn, collect
from completion.wires.openai_chat import CHAT_COMPLETIONS
from completion.wires.openai_chat.dialect import COMPATIBLE, OPENAI, ChatDialect
from tests.wire_pieces import calls, delta, events, piece

HOST = "llm.test:8000"
CALL = calls(piece(0, "{}", id="c", name="f"))
DEEPSEEK = ChatDialect("max_tokens", reasoning_back="reasoning_content")
OPENROUTER = ChatDialect("max_tokens", reasoning_back="reasoning_details")
GROQ = ChatDialect("max_tokens", reasoning_back="reasoning")


def answer(*deltas: dict[str, Any], call: bool = True) -> Turn:
    wire = [*({"choices": [{"delta": fields}]} for fields in deltas), *([CALL] if call else []), delta("tool_calls")]
    return collect(CHAT_COMPLETIONS.chunks(events(*wire), lambda seconds: None, HOST))


def sent_back(turn: Turn, dialect: ChatDialect = COMPATIBLE, host: str = HOST) -> dict[str, Any]:
    """The assistant message of the next request, without what every message has."""
    results = [Message.tool_result(call.call_id, "1") for call in turn.tool_calls]
    request = ChatRequest([Message.user("q"), turn.message, *results, Message.user("and?")])
    message = CHAT_COMPLETIONS.body(request, "m", dialect, host)[0]["messages"][1]
    return {key: value for key, value in message.items() if key not in ("role", "content", "tool_calls")}


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning", "reasoning_text"])
def test_an_unknown_server_gets_reasoning_back_in_the_field_it_came_in(field: str) -> None:
    turn = answer({field: "Hm"}, {field: "m."})
    assert turn.reasoning == "Hmm."
    assert sent_back(turn) == {field: "Hmm."}


def test_plain_reasoning_goes_back_beside_a_call_only() -> None:
    assert sent_back(answer({"reasoning_content": "Hm."}, {"content": "Four."}, call=False)) == {}


def test_plain_reasoning_does_not_go_to_another_unknown_server() -> None:
    assert sent_back(answer({"reasoning_content": "Hm."}), host="other.test") == {}


def test_openai_gets_no_reasoning() -> None:
    assert sent_back(answer({"reasoning_content": "Hm."}), OPENAI) == {}


@pytest.mark.parametrize(
    ("dialect", "fields"),
    [(DEEPSEEK, {"reasoning_content": "Hm."}), (GROQ, {"reasoning": "Hm."}), (OPENROUTER, {})],
)
def test_a_known_server_gets_the_reasoning_of_another_one_in_its_own_field(
    dialect: ChatDialect, fields: dict[str, str]
) -> None:
    history = [ReasoningBlock("Hm.", "SIG", "anthropic"), ToolCallBlock("c", "f", {})]
    request = ChatRequest([Message.user("q"), Message.assistant(history), Message.tool_result("c", "1")])
    message = CHAT_COMPLETIONS.body(request, "m", dialect, HOST)[0]["messages"][1]
    assert {key: message[key] for key in message if key.startswith("reasoning")} == fields


def test_deepseek_gets_its_field_also_with_a_call_that_has_no_reasoning() -> None:
    assert sent_back(answer(), DEEPSEEK) == {"reasoning_content": ""}
    assert sent_back(answer(), COMPATIBLE) == {}


DETAILS = [
    {"type": "reasoning.summary", "summary": "A plan", "format": "openai-responses-v1", "index": 0},
    {"type": "reasoning.encrypted", "data": "ENC", "id": "rs_1", "format": "openai-responses-v1", "index": 1},
]


@pytest.mark.parametrize("dialect", [COMPATIBLE, OPENROUTER])
def test_reasoning_details_go_back_unchanged(dialect: ChatDialect) -> None:
    turn = answer({"reasoning": "A plan", "reasoning_details": DETAILS[:1]}, {"reasoning_details": DETAILS[1:]})
    assert turn.reasoning == "A plan"
    assert sent_back(turn, dialect) == {"reasoning_details": DETAILS}
    assert sent_back(turn, dialect, "other.test") == {}
    assert sent_back(Turn.from_json(turn.to_json()), dialect) == {"reasoning_details": DETAILS}


def test_the_pieces_of_a_detail_go_back_as_one_with_its_signature() -> None:
    def detail(text: str, **fields: Any) -> dict[str, Any]:
        return {"type": "reasoning.text", "text": text, "format": "anthropic-claude-v1", "index": 0, **fields}

    turn = answer(
        {"reasoning": "Hm", "reasoning_details": [detail("Hm")]},
        {"reasoning": "m.", "reasoning_details": [detail("m.")]},
        {"reasoning_details": [{"type": "reasoning.text", "signature": "SIG", "index": 0}]},
    )
    assert turn.message.blocks[0] == ReasoningBlock("Hmm.", "SIG", f"openai-chat@{HOST}")
    assert sent_back(turn, OPENROUTER) == {"reasoning_details": [detail("Hmm.", signature="SIG")]}


@pytest.mark.parametrize(
    "fields",
    [
        {"thinking_blocks": [{"type": "thinking", "thinking": "Hm.", "signature": "SIG"}]},
        {"reasoning_opaque": "SIG"},
        {"extra_content": {"google": {"thought_signature": "SIG"}}},
    ],
    ids=["LiteLLM", "Copilot", "Gemini"],
)
def test_a_signature_goes_back_in_the_field_of_its_gateway(fields: dict[str, Any]) -> None:
    turn = answer({"reasoning_text": "Hm."}, fields)
    assert turn.message.blocks[0] == ReasoningBlock("Hm.", "SIG", f"openai-chat@{HOST}")
    assert sent_back(turn).items() >= fields.items()
    assert sent_back(turn, host="other.test") == {}


def test_reasoning_in_the_content_goes_back_in_the_content() -> None:
    thinking = {"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}
    turn = answer({"content": [thinking]}, {"content": [{"type": "text", "text": "Four."}]})
    assert (turn.reasoning, turn.text) == ("Hm.", "Four.")
    request = ChatRequest([Message.user("q"), turn.message, Message.tool_result("c", "1")])
    message = CHAT_COMPLETIONS.body(request, "m", COMPATIBLE, HOST)[0]["messages"][1]
    assert message["content"] == [thinking, {"type": "text", "text": "Four."}]


@pytest.mark.parametrize(
    "fields",
    [
        {"provider_specific_fields": {"thought_signature": "SIG"}},
        {"extra_content": {"vertex": {"thought_signature": "SIG"}}},
        {"extra_content": {"google": {"thought_signature": "SIG"}}},
        {"thought_signature": "SIG"},
    ],
)
def test_the_signature_of_a_call_goes_back_in_the_field_it_came_in(fields: dict[str, Any]) -> None:
    signed = calls({**piece(0, "{}", id="c", name="f"), **fields})
    turn = collect(CHAT_COMPLETIONS.chunks(events(signed, delta("tool_calls")), lambda seconds: None, HOST))
    assert turn.tool_calls[0].signature == "SIG"
    request = ChatRequest([Message.user("q"), turn.message, Message.tool_result("c", "1")])
    call = CHAT_COMPLETIONS.body(request, "m", COMPATIBLE, HOST)[0]["messages"][1]["tool_calls"][0]
    assert call.items() >= fields.items()
