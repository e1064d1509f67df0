"""CohereModel against a scripted server."""

from __future__ import annotations

from typing import Any

import pytest

import completion
from completion import (
    AuthenticationError,
    ChatRequest,
    CohereModel,
    CompletionError,
    ContextOverflowError,
    FinishReason,
    InvalidRequestError,
    Message,
    NotFoundError,
    ProviderBlock,
    RateLimitError,
    ReasoningBlock,
    ServerError,
    TextBlock,
    ToolCallBlock,
    TruncatedStreamError,
    Usage,
)
from completion.testing import ProviderServer, Reply, event
from completion.testing.conformance import check_completion_model
from tests.loopback import HI, KEY, failure_of


def named(kind: str, **fields: Any) -> bytes:
    return event({"type": kind, **fields}, kind)


def part(kind: str, index: int, **message: Any) -> bytes:
    return named(kind, index=index, delta={"message": message})


CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": ""}}
CITED = {"start": 0, "end": 3, "text": "Let", "sources": [{"type": "document", "id": "doc_0"}]}
USAGE = {"billed_units": {"input_tokens": 1}, "tokens": {"input_tokens": 9, "output_tokens": 4}, "cached_tokens": 2}
TURN = Reply(
    named("message-start", id="m1", delta={"message": {"role": "assistant"}}),
    part("content-start", 0, content={"type": "thinking", "thinking": ""}),
    part("content-delta", 0, content={"thinking": "hm"}),
    named("content-end", index=0),
    part("content-start", 1, content={"type": "text", "text": ""}),
    part("content-delta", 1, content={"text": "Let me look."}),
    part("citation-start", 0, citations=CITED),
    named("citation-end", index=0),
    named("content-end", index=1),
    named("tool-plan-delta", delta={"message": {"tool_plan": "I will f."}}),
    part("tool-call-start", 0, tool_calls=CALL),
    part("tool-call-delta", 0, tool_calls={"function": {"arguments": '{"a":1}'}}),
    named("tool-call-end", index=0),
    named("message-end", delta={"finish_reason": "TOOL_CALL", "usage": USAGE}),
)


@pytest.mark.parametrize("suffix", ["", "/", "/v2", "/v2/", "/v1"])
def test_a_turn_is_read_and_goes_back(server: ProviderServer, suffix: str) -> None:
    server.always(TURN)
    model = CohereModel("command-a-reasoning-08-2025", api_key=KEY, base_url=server.url + suffix)
    turn = model.chat_stream(HI).collect()
    assert turn.message.blocks == (
        ReasoningBlock("hm"),
        TextBlock("Let me look."),
        ProviderBlock("cohere", {"type": "citations", "citations": [CITED]}),
        ProviderBlock("cohere", {"type": "tool_plan", "tool_plan": "I will f."}),
        ToolCallBlock("c", "f", {"a": 1}),
    )
    assert (turn.reason, turn.usage) == (FinishReason.TOOL_USE, Usage(9, 4, cached_input_tokens=2))
    model.chat_stream(ChatRequest([Message.user("Hi"), turn.message, Message.tool_result("c", "1")])).collect()
    first, second = server.requests
    assert first.path == second.path == "/v2/chat"
    assert first.header("authorization") == f"Bearer {KEY}"
    answer = second.json()["messages"][1]
    assert (answer["tool_plan"], answer["citations"]) == ("I will f.", [CITED])
    assert [part["type"] for part in answer["content"]] == ["thinking", "text"]


@pytest.mark.parametrize("variable", ["CO_API_KEY", "COHERE_API_KEY"])
def test_the_environment_has_the_key_and_the_address(
    server: ProviderServer, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CO_API_KEY", raising=False)
    monkeypatch.setenv(variable, "k-1")
    monkeypatch.setenv("CO_API_URL", server.url)
    server.reply(TURN)
    completion.model("cohere:command-a-03-2025").chat_stream(HI).collect()
    assert server.requests[0].header("authorization") == "Bearer k-1"


@pytest.mark.parametrize(
    ("status", "message", "kind"),
    [
        (400, "invalid request: model is required", InvalidRequestError),
        (400, "too many tokens: total number of tokens in the prompt cannot exceed 128000", ContextOverflowError),
        (401, "invalid api token", AuthenticationError),
        (404, "model 'x' not found", NotFoundError),
        (422, "invalid tool generation", InvalidRequestError),
        (429, "You are using a Trial key, which is limited to 20 API calls / minute.", RateLimitError),
        (500, "internal server error", ServerError),
    ],
)
def test_a_refusal_has_coheres_words(
    server: ProviderServer, status: int, message: str, kind: type[CompletionError]
) -> None:
    server.reply(Reply.json({"id": "x", "message": message}, status=status, headers={"x-debug-trace-id": "t-1"}))
    error = failure_of(lambda: CohereModel("x", api_key=KEY, base_url=server.url).chat_stream(HI))
    assert type(error) is kind
    assert message in str(error)
    assert error.request_id == "t-1"


def test_a_failed_answer_is_an_error(server: ProviderServer) -> None:
    server.reply(Reply(named("message-end", delta={"finish_reason": "ERROR", "error": "the model failed"})))
    error = failure_of(lambda: CohereModel("m", api_key=KEY, base_url=server.url).chat_stream(HI).collect())
    assert type(error) is ServerError
    assert str(error).startswith("cohere: the model failed")


def test_a_body_without_message_end_is_truncated(server: ProviderServer) -> None:
    server.reply(Reply(part("content-delta", 0, content={"text": "a"})))
    error = failure_of(lambda: CohereModel("m", api_key=KEY, base_url=server.url).chat_stream(HI).collect())
    assert type(error) is TruncatedStreamError


def test_the_model_keeps_the_contract() -> None:
    check_completion_model(lambda **options: CohereModel("m", **options), answer="cohere")
