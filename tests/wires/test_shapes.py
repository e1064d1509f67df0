"""Shapes of gateways that differ from the vendor's own: nothing of an answer may get lost, on any wire."""

from __future__ import annotations

from typing import Any

import pytest

from completion import (
    FinishReason,
    MalformedStreamError,
    ProviderBlock,
    ProviderError,
    ServerError,
    TextBlock,
    TruncatedStreamError,
    Turn,
    Usage,
    collect,
)
from completion.wires.anthropic import MESSAGES
from completion.wires.bedrock_converse import CONVERSE
from completion.wires.gemini import GENERATE_CONTENT
from completion.wires.gemini_interactions import INTERACTIONS
from completion.wires.ollama import OLLAMA_CHAT
from completion.wires.openai_chat import CHAT_COMPLETIONS
from completion.wires.openai_responses import RESPONSES
from completion.wires.wire import Wire
from tests.wire_pieces import ignore_end, until_error


def turn(wire: Wire, *events: tuple[str, dict[str, Any]]) -> Turn:
    return collect(wire.chunks(iter(events), ignore_end))


def typed(kind: str, **fields: Any) -> tuple[str, dict[str, Any]]:
    return kind, {"type": kind, "event_type": kind, **fields}


@pytest.mark.parametrize(
    ("wire", "events"),
    [
        (
            MESSAGES,
            [
                typed("content_block_start", index=0, content_block={"type": "tool_use", "id": "c", "name": "f"}),
                typed("content_block_delta", index=0, delta={"type": "input_json_delta", "partial_json": {"a": 1}}),
                typed("message_delta", delta={"stop_reason": "tool_use"}),
            ],
        ),
        (
            CONVERSE,
            [
                ("contentBlockStart", {"contentBlockIndex": 0, "start": {"toolUse": {"toolUseId": "c", "name": "f"}}}),
                ("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"toolUse": {"input": {"a": 1}}}}),
                ("messageStop", {"stopReason": "tool_use"}),
            ],
        ),
        (
            RESPONSES,
            [
                typed(
                    "response.output_item.added",
                    output_index=0,
                    item={"type": "function_call", "call_id": "c", "name": "f"},
                ),
                typed("response.function_call_arguments.delta", output_index=0, delta={"a": 1}),
                typed("response.completed"),
            ],
        ),
        (
            INTERACTIONS,
            [
                typed("step.start", index=0, step={"type": "function_call", "id": "c", "name": "f"}),
                typed("step.delta", index=0, delta={"type": "arguments_delta", "arguments": {"a": 1}}),
                typed("interaction.completed", interaction={"status": "completed"}),
            ],
        ),
    ],
    ids=lambda value: value.name if isinstance(value, Wire) else "",
)
def test_a_piece_of_arguments_may_be_an_object(wire: Wire, events: list[tuple[str, dict[str, Any]]]) -> None:
    assert turn(wire, *events).tool_calls[0].args == {"a": 1}


def test_the_arguments_of_a_gemini_call_may_be_text() -> None:
    parts = [{"functionCall": {"name": "f", "args": '{"a": 1}'}}]
    event = {"candidates": [{"content": {"parts": parts}, "finishReason": "STOP"}]}
    assert turn(GENERATE_CONTENT, ("message", event)).tool_calls[0].args == {"a": 1}


def chat(reason: str | None = None, usage: Any = None, **delta: Any) -> tuple[str, dict[str, Any]]:
    return "message", {"choices": [{"index": 0, "delta": delta, "finish_reason": reason}], "usage": usage}


def candidate(reason: str | None = None, usage: Any = None, **fields: Any) -> tuple[str, dict[str, Any]]:
    found = {"content": {"parts": [{"text": "Hi"}]}, "finishReason": reason, **fields}
    return "message", {"candidates": [found], "usageMetadata": usage}


def stopped(reason: str | None = None, **usage: Any) -> tuple[str, dict[str, Any]]:
    return typed("message_delta", delta={"stop_reason": reason}, usage=usage)


@pytest.mark.parametrize(
    ("wire", "events"),
    [
        (CHAT_COMPLETIONS, [chat("length", content="Hi"), chat("stop")]),
        (GENERATE_CONTENT, [candidate("MAX_TOKENS"), candidate("STOP")]),
        (MESSAGES, [stopped("max_tokens"), stopped("end_turn")]),
        (CONVERSE, [("messageStop", {"stopReason": "max_tokens"}), ("messageStop", {"stopReason": "end_turn"})]),
    ],
    ids=lambda value: value.name if isinstance(value, Wire) else "",
)
def test_a_plain_stop_does_not_hide_that_the_answer_was_cut(
    wire: Wire, events: list[tuple[str, dict[str, Any]]]
) -> None:
    assert turn(wire, *events).reason is FinishReason.MAX_TOKENS


COUNTED = Usage(input_tokens=5, output_tokens=7)


@pytest.mark.parametrize(
    ("wire", "events"),
    [
        (
            MESSAGES,
            [
                typed("message_start", message={"id": "m", "usage": {"input_tokens": 5, "output_tokens": 7}}),
                stopped("end_turn", input_tokens=0, output_tokens=0),
            ],
        ),
        (
            GENERATE_CONTENT,
            [
                candidate("STOP", {"promptTokenCount": 5, "candidatesTokenCount": 7, "totalTokenCount": 12}),
                ("message", {"usageMetadata": {"promptTokenCount": 0, "totalTokenCount": 0}}),
            ],
        ),
        (
            RESPONSES,
            [
                typed("response.created", response={"usage": {"input_tokens": 5, "output_tokens": 7}}),
                typed("response.completed", response={"usage": {"input_tokens": 0, "output_tokens": 0}}),
            ],
        ),
        (
            INTERACTIONS,
            [
                typed(
                    "interaction.created", interaction={"usage": {"total_input_tokens": 5, "total_output_tokens": 7}}
                ),
                typed("interaction.completed", interaction={"status": "completed", "usage": {"total_input_tokens": 0}}),
            ],
        ),
    ],
    ids=lambda value: value.name if isinstance(value, Wire) else "",
)
def test_zeros_do_not_replace_what_was_counted(wire: Wire, events: list[tuple[str, dict[str, Any]]]) -> None:
    assert turn(wire, *events).usage == COUNTED


@pytest.mark.parametrize(
    ("wire", "events"),
    [
        (
            GENERATE_CONTENT,
            [candidate("STOP", {"promptTokenCount": 5, "candidatesTokenCount": 7, "totalTokenCount": 20})],
        ),
        (
            INTERACTIONS,
            [
                typed(
                    "interaction.completed",
                    interaction={
                        "status": "completed",
                        "usage": {"total_input_tokens": 5, "total_output_tokens": 7, "total_tokens": 20},
                    },
                )
            ],
        ),
    ],
    ids=lambda value: value.name if isinstance(value, Wire) else "",
)
def test_thoughts_that_only_the_total_includes_count(wire: Wire, events: list[tuple[str, dict[str, Any]]]) -> None:
    assert turn(wire, *events).usage == Usage(input_tokens=5, output_tokens=15, reasoning_tokens=8)


def test_a_response_may_count_with_the_names_of_chat_completions() -> None:
    usage = {"prompt_tokens": 5, "completion_tokens": 7}
    assert turn(RESPONSES, typed("response.completed", response={"usage": usage})).usage == COUNTED


def test_the_end_of_another_choice_does_not_end_the_answer() -> None:
    other = {"choices": [{"index": 1, "delta": {"content": "No"}, "finish_reason": "stop"}]}
    error = until_error(CHAT_COMPLETIONS.chunks(iter([chat(content="Hi"), ("message", other)]), ignore_end))[1]
    assert isinstance(error, TruncatedStreamError)


TEXT = {"type": "output_text", "text": "Hi"}
CALL = {"id": "c", "function": {"name": "f", "arguments": {"a": 1}}}


@pytest.mark.parametrize(
    ("wire", "events"),
    [
        (CHAT_COMPLETIONS, [("message", {"choices": {"delta": {"content": "Hi"}, "finish_reason": "stop"}})]),
        (GENERATE_CONTENT, [candidate("STOP", content={"parts": {"text": "Hi"}})]),
        (
            GENERATE_CONTENT,
            [("message", {"candidates": {"content": {"parts": [{"text": "Hi"}]}, "finishReason": "STOP"}})],
        ),
        (RESPONSES, [typed("response.completed", response={"output": {"type": "message", "content": TEXT}})]),
        (RESPONSES, [typed("response.completed", response={"output": [{"type": "message", "content": "Hi"}]})]),
        (RESPONSES, [typed("response.completed", output=[{"type": "message", "content": [TEXT]}])]),
        (RESPONSES, [typed("response.done", response={"output": [{"type": "message", "content": [TEXT]}]})]),
    ],
    ids=lambda value: value.name if isinstance(value, Wire) else "",
)
def test_an_object_or_a_text_in_place_of_a_list_is_read(wire: Wire, events: list[tuple[str, dict[str, Any]]]) -> None:
    found = turn(wire, *events)
    assert (found.text, found.reason) == ("Hi", FinishReason.END_TURN)


@pytest.mark.parametrize(
    ("wire", "event"),
    [
        (CHAT_COMPLETIONS, chat("tool_calls", tool_calls=CALL)),
        (OLLAMA_CHAT, ("message", {"message": {"tool_calls": CALL}, "done": True, "done_reason": "stop"})),
    ],
    ids=lambda value: value.name if isinstance(value, Wire) else "",
)
def test_one_call_in_place_of_a_list_is_read(wire: Wire, event: tuple[str, dict[str, Any]]) -> None:
    assert turn(wire, event).tool_calls[0].args == {"a": 1}


def test_a_completed_response_with_an_error_is_that_error() -> None:
    response = {"status": "completed", "error": {"code": "server_error", "message": "It broke."}}
    error = until_error(RESPONSES.chunks(iter([typed("response.completed", response=response)]), ignore_end))[1]
    assert isinstance(error, ServerError)


def test_an_item_that_was_cut_is_not_a_finished_answer() -> None:
    item = {"type": "message", "status": "incomplete", "content": [TEXT]}
    found = turn(RESPONSES, typed("response.output_item.done", item=item), typed("response.completed"))
    assert (found.text, found.reason, found.provider_reason) == ("Hi", FinishReason.OTHER, "incomplete")


@pytest.mark.parametrize(
    "event",
    [
        typed("response.reasoning.delta", output_index=0, delta="Hm."),
        typed("response.reasoning_summary.delta", output_index=0, delta={"text": "Hm."}),
    ],
    ids=["OpenRouter", "older name"],
)
def test_reasoning_under_other_names_is_read(event: tuple[str, dict[str, Any]]) -> None:
    assert turn(RESPONSES, event, typed("response.completed")).reasoning == "Hm."


def test_the_input_of_a_bedrock_call_may_come_with_its_start() -> None:
    call = {"toolUse": {"toolUseId": "c", "name": "f", "input": {"a": 1}}}
    start = ("contentBlockStart", {"contentBlockIndex": 0, "start": call})
    assert turn(CONVERSE, start, ("messageStop", {"stopReason": "tool_use"})).tool_calls[0].args == {"a": 1}


def test_a_whole_interaction_in_its_last_event_is_read() -> None:
    steps = [{"type": "model_output", "content": [{"type": "text", "text": "Hi"}]}]
    found = turn(INTERACTIONS, typed("interaction.completed", interaction={"status": "completed", "steps": steps}))
    assert (found.text, found.reason) == ("Hi", FinishReason.END_TURN)


def test_an_interaction_that_failed_is_an_error() -> None:
    failed = typed("interaction.failed", interaction={"status": "failed", "error": {"code": 500, "message": "Broken."}})
    error = until_error(INTERACTIONS.chunks(iter([failed]), ignore_end))[1]
    assert isinstance(error, ServerError)


@pytest.mark.parametrize(
    ("wire", "events"),
    [
        (
            INTERACTIONS,
            [
                typed("interaction.created", interaction={"id": "v1_a"}),
                typed("step.delta", index=0, delta={"type": "text", "text": "Hi"}),
                typed("interaction.created", interaction={"id": "v1_b"}),
            ],
        ),
        (
            CONVERSE,
            [
                ("messageStart", {"role": "assistant"}),
                ("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "Hi"}}),
                ("messageStart", {"role": "assistant"}),
            ],
        ),
    ],
    ids=lambda value: value.name if isinstance(value, Wire) else "",
)
def test_a_second_answer_in_the_first_is_malformed(wire: Wire, events: list[tuple[str, dict[str, Any]]]) -> None:
    assert isinstance(until_error(wire.chunks(iter(events), ignore_end))[1], MalformedStreamError)


def test_the_transcript_of_a_spoken_answer_is_its_text() -> None:
    pieces = [{"id": "a1", "data": "QUJD"}, {"id": "a1", "transcript": "Hel"}, {"transcript": "lo", "data": "REVG"}]
    found = turn(CHAT_COMPLETIONS, *(chat(audio=piece) for piece in pieces), chat("stop"))
    data = {"type": "audio", "audio": {"id": "a1", "data": ["QUJD", "REVG"]}}
    assert found.message.blocks == (TextBlock("Hello"), ProviderBlock("openai-chat", data))


@pytest.mark.parametrize(
    "event",
    [
        typed("response.output_audio_transcript.delta", output_index=0, delta="Hello"),
        typed(
            "response.output_item.done",
            item={"type": "message", "content": [{"type": "output_audio", "transcript": "Hello"}]},
        ),
    ],
    ids=["delta", "item"],
)
def test_a_spoken_response_has_its_text(event: tuple[str, dict[str, Any]]) -> None:
    assert turn(RESPONSES, event, typed("response.completed")).text == "Hello"


@pytest.mark.parametrize("wire", [CHAT_COMPLETIONS, RESPONSES, MESSAGES, GENERATE_CONTENT, INTERACTIONS, OLLAMA_CHAT])
@pytest.mark.parametrize(
    "body",
    [{"base_resp": {"status_code": 1008, "status_msg": "insufficient balance"}}, {"Message": "insufficient balance"}],
    ids=["MiniMax", "Amazon"],
)
def test_an_error_in_the_shape_of_another_server_is_raised(wire: Wire, body: dict[str, Any]) -> None:
    error = until_error(wire.chunks(iter([("message", body)]), ignore_end))[1]
    assert isinstance(error, ProviderError)
    assert "insufficient balance" in str(error)
