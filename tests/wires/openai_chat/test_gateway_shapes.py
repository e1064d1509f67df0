"""Chat Completions in the shapes of gateways and older servers: nothing of the answer is lost or read twice."""

from __future__ import annotations

from typing import Any

import pytest

from completion import (
    ChatRequest,
    CompletionError,
    FinishReason,
    Message,
    OverloadedError,
    RedactedReasoningBlock,
    ServerError,
    Turn,
    collect,
)
from completion.wires.anthropic import MESSAGES
from completion.wires.openai_chat import CHAT_COMPLETIONS
from completion.wires.openai_chat.dialect import COMPATIBLE
from tests.wire_pieces import delta, events, piece

HOST = "llm.test:8000"
FOUR: dict[str, Any] = {"content": "Four."}


def answer(*deltas: dict[str, Any], word: str = "stop") -> Turn:
    wire = [*({"choices": [{"delta": fields}]} for fields in deltas), delta(word)]
    return collect(CHAT_COMPLETIONS.chunks(events(*wire), lambda seconds: None, HOST))


def sent_back(turn: Turn) -> dict[str, Any]:
    request = ChatRequest([Message.user("q"), turn.message, Message.user("and?")])
    message: dict[str, Any] = CHAT_COMPLETIONS.body(request, "m", COMPATIBLE, HOST)[0]["messages"][1]
    return message


@pytest.mark.parametrize(
    "fields",
    [
        {"content": [{"type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm."}]}]},
        {"content": [{"type": "reasoning", "content": "Hm."}]},
        {"thinking_blocks": [{"type": "thinking", "thinking": "Hm."}]},
        {"reasoning_content": "Hm.", "thinking_blocks": [{"type": "thinking", "thinking": "Hm."}]},
        {"thinking": "Hm."},
        {"thinking": {"content": "Hm."}},
        {"thought": "Hm."},
        {"reasoning_summary": "Hm."},
        {"reasoning": [{"type": "text", "text": "Hm."}]},
        {"reasoning_content": [{"type": "text", "text": "Hm."}]},
    ],
)
def test_reasoning_is_read_from_every_field_and_part(fields: dict[str, Any]) -> None:
    turn = answer(fields, FOUR)
    assert (turn.reasoning, turn.text) == ("Hm.", "Four.")


def test_the_reasoning_part_of_databricks_does_not_go_back_in_the_form_of_mistral() -> None:
    turn = answer({"content": [{"type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm."}]}]}, FOUR)
    assert sent_back(turn) == {"role": "assistant", "content": "Four."}


def test_a_thought_that_gemini_marks_is_reasoning_without_its_tags() -> None:
    mark = {"extra_content": {"google": {"thought": True}}}
    turn = answer({"content": "<thought>H", **mark}, {"content": "m.", **mark}, {"content": "</thought>Four."})
    assert (turn.reasoning, turn.text) == ("Hm.", "Four.")


def test_a_thinking_block_goes_back_with_the_whole_text_that_its_signature_covers() -> None:
    block = {"type": "thinking", "thinking": "", "signature": "SIG"}
    turn = answer({"thinking_blocks": [{"type": "thinking", "thinking": "Hm."}]}, {"thinking_blocks": [block]}, FOUR)
    assert sent_back(turn)["thinking_blocks"] == [{**block, "thinking": "Hm."}]


def test_a_redacted_thinking_block_goes_back_as_it_came() -> None:
    block = {"type": "redacted_thinking", "data": "ENC"}
    turn = answer({"thinking_blocks": [block]}, FOUR)
    assert isinstance(turn.message.blocks[0], RedactedReasoningBlock)
    assert sent_back(turn)["thinking_blocks"] == [block]


def test_a_refusal_in_a_part_is_text_with_its_own_finish_reason() -> None:
    turn = answer({"content": [{"type": "refusal", "refusal": "No."}]})
    assert (turn.text, turn.reason) == ("No.", FinishReason.REFUSAL)


def test_a_choice_with_text_instead_of_a_delta_is_text() -> None:
    wire = [{"choices": [{"index": 0, "text": text, "finish_reason": None}]} for text in ("Fo", "ur.")]
    turn = collect(CHAT_COMPLETIONS.chunks(events(*wire, delta("stop")), lambda seconds: None))
    assert turn.text == "Four."


@pytest.mark.parametrize(
    "fields",
    [
        {"tool_calls": [{"index": 0, "id": "a", "name": "f", "arguments": '{"x": 1}'}]},
        {
            "function_call": {"name": "f", "arguments": '{"x": 1}'},
            "tool_calls": [piece(0, '{"x": 1}', id="a", name="f")],
        },
    ],
    ids=["no function object", "both forms"],
)
def test_a_call_is_read_once_in_every_form(fields: dict[str, Any]) -> None:
    (call,) = answer(fields, word="tool_calls").tool_calls
    assert (call.call_id, call.name, call.args) == ("a", "f", {"x": 1})


@pytest.mark.parametrize(
    ("word", "error"),
    [("engine_overloaded", OverloadedError), ("internal_error", ServerError), ("timeout", ServerError)],
)
def test_the_word_of_a_broken_answer_is_an_error(word: str, error: type[CompletionError]) -> None:
    with pytest.raises(error, match=word):
        answer(FOUR, word=word)


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("stop", FinishReason.END_TURN),
        ("length", FinishReason.MAX_TOKENS),
        ("SAFETY", FinishReason.CONTENT_FILTER),
        ("content_filtered", FinishReason.CONTENT_FILTER),
        ("ERROR_LIMIT", FinishReason.CONTEXT_OVERFLOW),
        ("new_word", FinishReason.OTHER),
    ],
)
def test_the_word_of_another_wire_means_what_it_means_there(word: str, reason: FinishReason) -> None:
    assert _claude(word).reason is reason
    assert answer(FOUR, word=word).reason is reason


def test_the_word_of_a_broken_answer_is_an_error_on_another_wire() -> None:
    with pytest.raises(CompletionError, match="network_error"):
        _claude("network_error")


def _claude(word: str) -> Turn:
    wire = [
        {"type": "message_start", "message": {"id": "m"}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": "Four."}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": word}},
        {"type": "message_stop"},
    ]
    return collect(MESSAGES.chunks(events(*wire), lambda seconds: None))
