"""Shapes of gateways that differ from the vendor's own: nothing of an answer may get lost, on any wire."""

from __future__ import annotations

from typing import Any

import pytest

from completion import Turn, collect
from completion.wires.anthropic import MESSAGES
from completion.wires.bedrock_converse import CONVERSE
from completion.wires.gemini import GENERATE_CONTENT
from completion.wires.gemini_interactions import INTERACTIONS
from completion.wires.openai_responses import RESPONSES
from completion.wires.wire import Wire
from tests.wire_pieces import ignore_end


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
