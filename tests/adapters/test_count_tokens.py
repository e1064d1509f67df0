"""``count_tokens`` of every family that can count, against a scripted server and the embedded llama.cpp."""

from __future__ import annotations

import threading
from typing import Any

import pytest

import completion
from completion import (
    AnthropicModel,
    AuthenticationError,
    AzureOpenAIModel,
    CancelToken,
    ChatModel,
    ChatRequest,
    CompletionError,
    DeadlineExceededError,
    GeminiModel,
    JsonSchema,
    LocalModel,
    MalformedStreamError,
    Message,
    NotFoundError,
    OpenAIModel,
    OpenAIResponsesModel,
    RateLimitError,
    StreamCancelledError,
    Timeout,
    ToolCallBlock,
    ToolChoice,
    ToolDefinition,
    TransportError,
    UnsupportedContentError,
)
from completion.testing import Cut, ProviderServer, Reply, WaitFor
from tests.loopback import HI, KEY, failure_of

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
FULL = ChatRequest(
    [
        Message.user("Weather?"),
        Message.assistant([ToolCallBlock("call_1", "weather", {"city": "Rome"})]),  # without a result
        Message.user("Well?"),
    ],
    system_prompt="Be brief.",
    tools=[ToolDefinition("weather", "The weather.", SCHEMA)],
    tool_choice=ToolChoice.auto(),
    response_format=JsonSchema("answer", {**SCHEMA, "additionalProperties": False}),
    max_tokens=100,
)


def anthropic(server: ProviderServer, **options: Any) -> AnthropicModel:
    return AnthropicModel("claude-sonnet-4-5", **{"api_key": KEY, "base_url": server.url, **options})


def responses(server: ProviderServer) -> OpenAIResponsesModel:
    return OpenAIResponsesModel("gpt-5", api_key=KEY, base_url=f"{server.url}/v1")


def test_anthropic_counts_the_prompt_with_tools_and_schema(server: ProviderServer) -> None:
    server.reply(Reply.json({"input_tokens": 2095}))
    assert anthropic(server).count_tokens(FULL) == 2095
    sent = server.requests[0]
    assert (sent.path, sent.header("x-api-key")) == ("/v1/messages/count_tokens", KEY)
    assert set(sent.json()) == {"model", "messages", "system", "tools", "tool_choice", "output_config"}


def test_the_history_is_made_valid_before_it_is_counted(server: ProviderServer) -> None:
    server.reply(Reply.json({"input_tokens": 1}))
    anthropic(server).count_tokens(FULL)
    result = server.requests[0].json()["messages"][2]["content"][0]
    assert (result["type"], result["tool_use_id"]) == ("tool_result", "call_1")


def test_responses_counts_the_prompt_with_tools_and_schema(server: ProviderServer) -> None:
    server.reply(Reply.json({"object": "response.input_tokens", "input_tokens": 11}))
    assert responses(server).count_tokens(FULL) == 11
    sent = server.requests[0]
    assert (sent.path, sent.header("authorization")) == ("/v1/responses/input_tokens", f"Bearer {KEY}")
    assert set(sent.json()) == {"model", "input", "instructions", "tools", "tool_choice", "text"}


def test_gemini_counts_the_whole_request(server: ProviderServer) -> None:
    server.reply(Reply.json({"totalTokens": 31, "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 31}]}))
    model = GeminiModel("gemini-2.5-pro", api_key=KEY, base_url=server.url)
    assert model.count_tokens(FULL) == 31
    sent = server.requests[0]
    assert (sent.path, sent.header("x-goog-api-key")) == ("/v1beta/models/gemini-2.5-pro:countTokens", KEY)
    request = sent.json()["generateContentRequest"]
    assert request["model"] == "models/gemini-2.5-pro"
    assert set(request) == {"model", "contents", "systemInstruction", "tools", "toolConfig", "generationConfig"}


def test_vertex_gets_the_fields_that_it_accepts(server: ProviderServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("completion.adapters.gemini.access_token", lambda: "ya29.token-of-google")
    server.reply(Reply.json({"totalTokens": 7, "totalBillableCharacters": 20}))
    model = GeminiModel("gemini-2.5-pro", project="p", location="europe-west4", base_url=server.url)
    assert model.count_tokens(FULL) == 7
    sent = server.requests[0]
    assert sent.path == ("/v1/projects/p/locations/europe-west4/publishers/google/models/gemini-2.5-pro:countTokens")
    assert set(sent.json()) == {"contents", "systemInstruction", "tools", "generationConfig"}


def test_a_string_is_one_user_message(server: ProviderServer) -> None:
    server.reply(Reply.json({"input_tokens": 8}))
    assert anthropic(server).count_tokens("Hi") == 8
    assert server.requests[0].json()["messages"] == [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]


def test_the_embedded_model_counts() -> None:
    model = LocalModel()
    short, long = model.count_tokens("Hi"), model.count_tokens("Hi " * 50)
    assert 0 < short < long - 40
    usage = model.chat_stream(ChatRequest("Hi", max_tokens=1)).collect().usage
    assert usage is not None
    assert usage.input_tokens == short


def test_counting_reuses_the_connection(server: ProviderServer) -> None:
    server.always(Reply.json({"input_tokens": 8}))
    model = anthropic(server)
    assert [model.count_tokens(HI) for _ in range(3)] == [8, 8, 8]
    assert server.connections == 1


@pytest.mark.parametrize(
    "model",
    [
        OpenAIModel("m", api_key=KEY),
        AzureOpenAIModel("m", api_key=KEY, base_url="https://r.openai.azure.com", wire="responses"),
        completion.model("groq:m", api_key=KEY),
    ],
    ids=lambda model: str(model.name),
)
def test_other_apis_say_which_families_can_count(model: ChatModel) -> None:
    error = failure_of(lambda: model.count_tokens(HI))
    assert type(error) is UnsupportedContentError
    assert (error.provider, error.model) == (model.name, "m")
    assert "anthropic, gemini, openai-responses" in error.message


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (Reply.json({"type": "error", "error": {"type": "rate_limit_error", "message": "Slow"}}, 429), RateLimitError),
        (Reply.json({"error": {"message": f"bad key {KEY}"}}, 401), AuthenticationError),
        (Reply.text("no such route", status=404), NotFoundError),
        (Reply.text(f"<html>{KEY}</html>"), MalformedStreamError),
        (Reply.json([f"{KEY}"]), MalformedStreamError),
        (Reply.json({"input_tokens": "8"}), MalformedStreamError),
        (Reply.json({"input_tokens": True}), MalformedStreamError),
        (Reply.json({"input_tokens": "8" * 2_000_000}), MalformedStreamError),
        (Reply(b'{"input_', Cut()), TransportError),
    ],
)
def test_a_failure_is_classified_and_shows_no_key(
    server: ProviderServer, reply: Reply, kind: type[CompletionError]
) -> None:
    server.reply(reply)
    error = failure_of(lambda: anthropic(server).count_tokens(HI))
    assert type(error) is kind
    assert (error.provider, error.model) == ("anthropic", "claude-sonnet-4-5")
    assert KEY not in f"{error!r} {error.body} {error.__cause__!r} {error.__context__!r}"


def test_the_deadline_ends_a_count(server: ProviderServer) -> None:
    never = threading.Event()
    server.reply(Reply(b'{"input_', WaitFor(never)))
    model = anthropic(server, timeout=Timeout(total=0.2))
    assert type(failure_of(lambda: model.count_tokens(HI))) is DeadlineExceededError
    never.set()


def test_a_cancel_token_ends_a_count(server: ProviderServer) -> None:
    never = threading.Event()
    server.reply(Reply(b'{"input_', WaitFor(never)))
    with CancelToken() as token:
        threading.Timer(0.1, token.cancel).start()
        assert type(failure_of(lambda: anthropic(server).count_tokens(HI))) is StreamCancelledError
    never.set()


def test_an_unsupported_request_is_not_sent(server: ProviderServer) -> None:
    request = ChatRequest("Hi", response_format="json")
    assert type(failure_of(lambda: anthropic(server).count_tokens(request))) is UnsupportedContentError
    assert server.requests == []
