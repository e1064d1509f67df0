"""Azure OpenAI: the routes and the keys. The wire is OpenAI's and tested there."""

import pytest

from completion import AzureOpenAIClient, AzureOpenAIModel, ChatRequest, ConfigurationError, FinishReason
from completion.testing import ProviderServer, Reply, event

HI = ChatRequest("Hi", max_tokens=9, top_k=3)
# Azure says first what its filter found, in a chunk without choices, id and model.
ANSWER = Reply(
    event({"choices": [], "id": "", "model": "", "prompt_filter_results": [{"prompt_index": 0}]}),
    event({"choices": [{"index": 0, "delta": {"content": "Hello"}}], "id": "c1", "model": "gpt-4o-mini-2024-07-18"}),
    event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "id": "c1"}),
    event("[DONE]"),
    headers={"apim-request-id": "req-7", "x-request-id": "other"},
)


@pytest.mark.parametrize(
    ("version", "target"),
    [
        (None, "/openai/v1/chat/completions"),
        ("2024-10-21", "/openai/deployments/my%2Fdeployment/chat/completions?api-version=2024-10-21"),
    ],
    ids=["v1", "dated"],
)
def test_it_answers_on_both_routes(server: ProviderServer, version: str | None, target: str) -> None:
    server.reply(ANSWER)
    model = AzureOpenAIModel("my/deployment", base_url=server.url, api_key="k", api_version=version)
    with model.chat_stream(HI) as stream:
        turn = stream.collect()
    assert (turn.text, turn.reason, turn.response_id) == ("Hello", FinishReason.END_TURN, "c1")
    assert turn.response_model == "gpt-4o-mini-2024-07-18"
    assert (stream.response.request_id, stream.response.dropped) == ("req-7", ("top_k",))
    request = server.requests[0]
    assert request.path == target
    assert (request.header("api-key"), request.header("authorization")) == ("k", None)
    assert (request.json()["model"], request.json()["max_completion_tokens"]) == ("my/deployment", 9)


def test_a_token_provider_is_asked_for_each_request(server: ProviderServer) -> None:
    tokens = iter(["first", "second"])
    server.reply(ANSWER, ANSWER)
    client = AzureOpenAIClient(base_url=server.url, token_provider=lambda: next(tokens))
    for deployment in ("a", "b"):
        client.completion_model(deployment).chat_stream(HI).collect()
    assert [request.header("authorization") for request in server.requests] == ["Bearer first", "Bearer second"]
    assert server.requests[0].header("api-key") is None


def test_the_environment_names_endpoint_key_and_version(
    server: ProviderServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", f"{server.url}/openai/v1/")
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", "k")
    monkeypatch.setenv("OPENAI_API_VERSION", "2024-10-21")
    server.reply(ANSWER)
    AzureOpenAIModel("d").chat_stream(HI).collect()
    assert server.requests[0].path == "/openai/deployments/d/chat/completions?api-version=2024-10-21"
    assert server.requests[0].header("api-key") == "k"


def test_a_static_token_of_the_environment_is_a_bearer_token(
    server: ProviderServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_OPENAI_AD_TOKEN", "entra")
    server.reply(ANSWER)
    AzureOpenAIModel("d", base_url=server.url).chat_stream(HI).collect()
    assert server.requests[0].header("authorization") == "Bearer entra"


def test_two_credentials_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="several credentials, api_key= and token_provider="):
        AzureOpenAIModel("d", base_url="https://r.openai.azure.com", api_key="k", token_provider=lambda: "t")


def test_a_missing_endpoint_or_key_is_named() -> None:
    with pytest.raises(ConfigurationError, match="AZURE_OPENAI_ENDPOINT"):
        AzureOpenAIModel("d", api_key="k")
    with pytest.raises(ConfigurationError, match="AZURE_OPENAI_API_KEY"):
        AzureOpenAIModel("d", base_url="http://127.0.0.1:9").chat_stream(HI)
