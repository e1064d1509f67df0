"""GeminiInteractionsModel against a scripted server."""

from __future__ import annotations

import pytest

import completion
from completion import (
    ChatRequest,
    FinishReason,
    GeminiInteractionsModel,
    Message,
    OverloadedError,
    ReasoningBlock,
    TextBlock,
    ToolCallBlock,
    Usage,
)
from completion.testing import ProviderServer, Reply, event
from tests.loopback import HI, KEY, failure_of

CALL = {"type": "function_call", "id": "c", "name": "f", "arguments": {}, "signature": ""}
USAGE = {"total_input_tokens": 9, "total_output_tokens": 4, "total_thought_tokens": 2}
TURN = Reply(
    event({"event_type": "interaction.created", "interaction": {"id": "", "model": "m-1"}}, "interaction.created"),
    event({"event_type": "step.start", "index": 0, "step": {"type": "thought"}}, "step.start"),
    event({"event_type": "step.delta", "index": 0, "delta": {"type": "thought_signature", "signature": "S"}}),
    event({"event_type": "step.stop", "index": 0}),
    event({"event_type": "step.start", "index": 1, "step": {"type": "model_output"}}),
    event({"event_type": "step.delta", "index": 1, "delta": {"type": "text", "text": "Let me look."}}),
    event({"event_type": "step.stop", "index": 1}),
    event({"event_type": "step.start", "index": 2, "step": CALL}),
    event({"event_type": "step.delta", "index": 2, "delta": {"type": "arguments_delta", "arguments": '{"a":1}'}}),
    event({"event_type": "step.stop", "index": 2}),
    event({"event_type": "interaction.completed", "interaction": {"status": "requires_action", "usage": USAGE}}),
    event("[DONE]", "done"),
)


@pytest.mark.parametrize("suffix", ["", "/", "/v1beta"])
def test_a_turn_is_read_and_goes_back(server: ProviderServer, suffix: str) -> None:
    server.always(TURN)
    model = GeminiInteractionsModel("gemini-3.8-flash", api_key=KEY, base_url=server.url + suffix)
    turn = model.chat_stream(HI).collect()
    assert turn.message.blocks == (
        ReasoningBlock("", "S", "gemini-interactions"),
        TextBlock("Let me look."),
        ToolCallBlock("c", "f", {"a": 1}),
    )
    assert (turn.reason, turn.usage) == (FinishReason.TOOL_USE, Usage(9, 6, reasoning_tokens=2))
    model.chat_stream(ChatRequest([Message.user("Hi"), turn.message, Message.tool_result("c", "1")])).collect()
    first, second = server.requests
    assert first.path == second.path == "/v1beta/interactions"
    sent = second.json()
    assert (sent["model"], sent["stream"], sent["store"]) == ("gemini-3.8-flash", True, False)
    assert [step["type"] for step in sent["input"]] == [
        "user_input", "thought", "model_output", "function_call", "function_result"
    ]  # fmt: skip


def test_an_error_event_is_raised(server: ProviderServer) -> None:
    server.reply(Reply(event({"event_type": "error", "error": {"code": "overloaded", "message": "Busy"}}, "error")))
    model = completion.model("gemini-interactions:m", api_key=KEY, base_url=server.url)
    error = failure_of(lambda: model.chat_stream(HI).collect())
    assert type(error) is OverloadedError
    assert str(error).startswith("gemini-interactions: Busy")
