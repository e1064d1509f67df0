"""Azure OpenAI: routes, keys, the content filter, and error responses. The rest of the wire is OpenAI's."""

from __future__ import annotations

import pickle
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import pytest

from completion import (
    AuthenticationError,
    AzureOpenAIClient,
    AzureOpenAIModel,
    ChatRequest,
    CompletionError,
    ConfigurationError,
    ContentFilterError,
    ContextOverflowError,
    FinishReason,
    InvalidRequestError,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    QuotaExceededError,
    RateLimitError,
    RetryConfig,
    RetryingModel,
    ServerError,
    TextDelta,
    Transient,
    TurnFinished,
)
from completion.testing import ProviderServer, Reply, event
from tests.loopback import PATIENCE_S

HI = ChatRequest("Hi", max_tokens=9, top_k=3)
# Azure's first chunk has the results of its content filter, without choices, id and model.
ANSWER = Reply(
    event({"choices": [], "id": "", "model": "", "prompt_filter_results": [{"prompt_index": 0}]}),
    event({"choices": [{"index": 0, "delta": {"content": "Hello"}}], "id": "c1", "model": "gpt-4o-mini-2024-07-18"}),
    event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "id": "c1"}),
    event("[DONE]"),
    headers={"apim-request-id": "req-7", "x-request-id": "other"},
)
VERSIONS = [None, "2024-10-21"]
both_routes = pytest.mark.parametrize("version", VERSIONS, ids=["v1", "dated"])


def model_at(server: ProviderServer, version: str | None = None, **options: Any) -> AzureOpenAIModel:
    if options.keys().isdisjoint({"api_key", "token", "token_provider"}):
        options["api_key"] = "very-secret-key"
    return AzureOpenAIModel("d", base_url=server.url, api_version=version, **options)


@pytest.mark.parametrize(
    ("version", "target"),
    [
        (None, "/openai/v1/chat/completions"),
        ("2024-10-21", "/openai/deployments/my%2Fdeployment/chat/completions?api-version=2024-10-21"),
    ],
    ids=["v1", "dated"],
)
def test_both_routes_work(server: ProviderServer, version: str | None, target: str) -> None:
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


def test_a_token_provider_is_called_for_each_request(server: ProviderServer) -> None:
    tokens = iter(["first", "second"])
    server.reply(ANSWER, ANSWER)
    client = AzureOpenAIClient(base_url=server.url, token_provider=lambda: next(tokens))
    for deployment in ("a", "b"):
        client.completion_model(deployment).chat_stream(HI).collect()
    assert [request.header("authorization") for request in server.requests] == ["Bearer first", "Bearer second"]
    assert server.requests[0].header("api-key") is None


def test_endpoint_key_and_version_are_read_from_the_environment(
    server: ProviderServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", f"{server.url}/openai/v1/")
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", "k")
    monkeypatch.setenv("OPENAI_API_VERSION", "2024-10-21")
    server.reply(ANSWER)
    AzureOpenAIModel("d").chat_stream(HI).collect()
    assert server.requests[0].path == "/openai/deployments/d/chat/completions?api-version=2024-10-21"
    assert server.requests[0].header("api-key") == "k"


def test_a_token_of_the_environment_is_a_bearer_token(server: ProviderServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_OPENAI_AD_TOKEN", "entra")
    server.reply(ANSWER)
    AzureOpenAIModel("d", base_url=server.url).chat_stream(HI).collect()
    assert server.requests[0].header("authorization") == "Bearer entra"


def test_a_missing_endpoint_or_key_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match="AZURE_OPENAI_ENDPOINT"):
        AzureOpenAIModel("d", api_key="k")
    with pytest.raises(ConfigurationError, match="AZURE_OPENAI_API_KEY"):
        AzureOpenAIModel("d", base_url="http://127.0.0.1:9").chat_stream(HI)


# --- routes and environment ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tail", ["", "/", "/openai", "/openai/", "/openai/v1", "/openai/v1/"])
@pytest.mark.parametrize("prefix", ["", "/team-a"])
def test_a_base_url_may_contain_the_beginning_of_the_route(server: ProviderServer, prefix: str, tail: str) -> None:
    server.reply(ANSWER)
    AzureOpenAIModel("d", base_url=server.url + prefix + tail, api_key="k").chat_stream(HI).collect()
    assert server.requests[0].path == prefix + "/openai/v1/chat/completions"


def test_an_empty_version_is_the_v1_route_whatever_the_environment_says(
    server: ProviderServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_VERSION", "2024-10-21")
    server.reply(ANSWER)
    model_at(server, "").chat_stream(HI).collect()
    assert server.requests[0].path == "/openai/v1/chat/completions"


def test_a_version_adds_nothing_else_to_the_query(server: ProviderServer) -> None:
    server.reply(ANSWER)
    model_at(server, "2024/10&x=1#y").chat_stream(HI).collect()
    assert server.requests[0].path.endswith("?api-version=2024%2F10%26x%3D1%23y")


# --- credentials -----------------------------------------------------------------------------------------------------


def provided() -> str:
    return "from-a-function"


@pytest.mark.parametrize(
    ("options", "headers"),
    [
        ({"api_key": "k"}, ("k", None)),
        ({"api_key": provided}, ("from-a-function", None)),
        ({"token": "t"}, (None, "Bearer t")),
        ({"token_provider": provided}, (None, "Bearer from-a-function")),
    ],
    ids=["key", "function", "token", "token provider"],
)
@both_routes
def test_a_key_and_a_token_have_different_headers(
    server: ProviderServer, version: str | None, options: dict[str, Any], headers: tuple[str | None, str | None]
) -> None:
    server.reply(ANSWER)
    model_at(server, version, **options).chat_stream(HI).collect()
    (request,) = server.requests
    assert (request.header("api-key"), request.header("authorization")) == headers


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"api_key": "k", "token": "t"}, "api_key= and token="),
        ({"api_key": "k", "token_provider": provided}, "api_key= and token_provider="),
        ({"token": "t", "token_provider": provided}, "token= and token_provider="),
        ({"api_key": "k", "token": "t", "token_provider": provided}, "api_key= and token= and token_provider="),
    ],
)
def test_more_than_one_credential_is_refused(options: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigurationError, match=f"more than one credential, {named}: give one"):
        AzureOpenAIModel("d", base_url="http://127.0.0.1:9", **options)


def test_two_credentials_of_the_environment_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", "very-secret-key")
    monkeypatch.setenv("AZURE_OPENAI_AD_TOKEN", "very-secret-token")
    with pytest.raises(ConfigurationError, match="AZURE_OPENAI_API_KEY and AZURE_OPENAI_AD_TOKEN") as caught:
        AzureOpenAIModel("d", base_url="http://127.0.0.1:9")
    assert "secret" not in str(caught.value)


def test_a_credential_that_is_given_wins_over_the_environment(
    server: ProviderServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", "k")
    monkeypatch.setenv("AZURE_OPENAI_AD_TOKEN", "t")
    server.reply(ANSWER)
    model_at(server, token_provider=provided).chat_stream(HI).collect()
    (request,) = server.requests
    assert (request.header("api-key"), request.header("authorization")) == (None, "Bearer from-a-function")


def test_without_a_credential_the_error_lists_every_way_to_give_one() -> None:
    with pytest.raises(ConfigurationError) as caught:
        AzureOpenAIModel("d", base_url="http://127.0.0.1:9").chat_stream(HI)
    for way in ("AZURE_OPENAI_API_KEY", "AZURE_OPENAI_AD_TOKEN", "api_key=", "token=", "token_provider="):
        assert way in str(caught.value)


@pytest.mark.parametrize(
    ("variable", "header"), [("AZURE_OPENAI_API_KEY", "api-key"), ("AZURE_OPENAI_AD_TOKEN", "authorization")]
)
def test_an_unpickled_client_reads_its_credential_from_the_environment_again(
    server: ProviderServer, monkeypatch: pytest.MonkeyPatch, variable: str, header: str
) -> None:
    monkeypatch.setenv(variable, "very-secret")
    pickled = pickle.dumps(AzureOpenAIModel("d", base_url=server.url))
    assert b"secret" not in pickled
    monkeypatch.setenv(variable, "over-there")
    server.reply(ANSWER)
    pickle.loads(pickled).chat_stream(HI).collect()
    assert (server.requests[0].header(header) or "").endswith("over-there")


def test_a_token_provider_is_pickled(server: ProviderServer) -> None:
    server.reply(ANSWER)
    model = pickle.loads(pickle.dumps(model_at(server, token_provider=provided)))
    model.chat_stream(HI).collect()
    assert server.requests[0].header("authorization") == "Bearer from-a-function"


class AccessToken(NamedTuple):
    token: str
    expires_on: float


def test_a_valid_token_is_cached_and_a_refused_token_is_forgotten(server: ProviderServer) -> None:
    names = iter(["first", "second"])
    model = model_at(server, token_provider=lambda: AccessToken(next(names), time.time() + 3600))
    server.reply(ANSWER, Reply.json({"statusCode": 401, "message": "expired"}, status=401), ANSWER, ANSWER)
    model.chat_stream(HI).collect()
    with pytest.raises(AuthenticationError):
        model.chat_stream(HI)
    for _ in range(2):
        model.chat_stream(HI).collect()
    sent = [request.header("authorization") for request in server.requests]
    assert sent == ["Bearer first"] * 2 + ["Bearer second"] * 2


def test_each_attempt_of_a_retry_gets_a_token(server: ProviderServer) -> None:
    tokens = iter(["first", "second"])
    server.reply(Reply.json({"statusCode": 429, "message": "slow down"}, status=429), ANSWER)
    inner = model_at(server, token_provider=lambda: next(tokens))
    RetryingModel(inner, RetryConfig(base_delay=0)).chat_stream(HI).collect()
    assert [request.header("authorization") for request in server.requests] == ["Bearer first", "Bearer second"]


def test_requests_are_sent_while_a_token_is_refreshed_early(server: ProviderServer) -> None:
    is_refreshing, goes_on = threading.Event(), threading.Event()
    calls: list[int] = []

    def provider() -> AccessToken:
        calls.append(1)
        if len(calls) == 1:
            return AccessToken("old", time.time() + 200)
        is_refreshing.set()
        assert goes_on.wait(PATIENCE_S)
        return AccessToken("new", time.time() + 3600)

    server.always(ANSWER)
    model = model_at(server, token_provider=provider)
    model.chat_stream(HI).collect()
    with ThreadPoolExecutor(4) as pool:
        early = pool.submit(lambda: model.chat_stream(HI).collect())
        assert is_refreshing.wait(PATIENCE_S)
        for _ in range(3):
            model.chat_stream(HI).collect()
        goes_on.set()
        early.result(PATIENCE_S)
    sent = [request.header("authorization") for request in server.requests]
    assert sent == ["Bearer old"] * 4 + ["Bearer new"]


def test_nothing_is_sent_if_the_token_provider_fails(server: ProviderServer) -> None:
    def provider() -> str:
        raise RuntimeError("no network")

    with pytest.raises(ConfigurationError, match="failed: RuntimeError") as caught:
        model_at(server, token_provider=provider).chat_stream(HI)
    assert caught.value.provider == "azure-openai"
    assert server.connections == 0


@pytest.mark.parametrize("option", ["api_key", "token"])
def test_a_repr_shows_no_credential(option: str) -> None:
    client = AzureOpenAIClient(base_url="http://127.0.0.1:9", **{option: "very-secret"})  # type: ignore[arg-type]
    for shown in (client, client.completion_model("d"), client.endpoint):
        assert "secret" not in f"{shown!r}"


# --- the content filter ----------------------------------------------------------------------------------------------

SAFE = {"hate": {"filtered": False, "severity": "safe"}, "violence": {"filtered": False, "severity": "safe"}}
PROMPT_RESULTS = {"choices": [], "id": "", "model": "", "prompt_filter_results": [{"content_filter_results": SAFE}]}


def chunk(delta: dict[str, Any] | None, reason: str | None = None, **beside: Any) -> dict[str, Any]:
    choice = {"index": 0, "finish_reason": reason, **({} if delta is None else {"delta": delta}), **beside}
    return {"id": "c1", "object": "chat.completion.chunk", "model": "gpt-4o", "choices": [choice]}


OFFSETS = {"check_offset": 44, "start_offset": 44, "end_offset": 198}


@pytest.mark.parametrize(
    ("events", "text", "reason"),
    [
        (
            [
                PROMPT_RESULTS,
                chunk({"role": "assistant", "content": ""}, content_filter_results={}),
                chunk({"content": "Hi"}, content_filter_results=SAFE),
                chunk({}, "stop", content_filter_results={}),
            ],
            "Hi",
            FinishReason.END_TURN,
        ),
        (
            [
                PROMPT_RESULTS,
                chunk({"content": "Hi"}),
                chunk({}, "content_filter", content_filter_results={"hate": {"filtered": True, "severity": "high"}}),
            ],
            "Hi",
            FinishReason.CONTENT_FILTER,
        ),
        (
            [
                PROMPT_RESULTS,
                chunk({"content": "Hi"}),
                chunk(None, content_filter_results=SAFE, content_filter_offsets=OFFSETS),
                chunk({"content": " there"}),
                chunk({}, "stop"),
                chunk(None, content_filter_results=SAFE, content_filter_offsets=OFFSETS),
            ],
            "Hi there",
            FinishReason.END_TURN,
        ),
        (
            [
                chunk({"content": "Hi"}),
                chunk(None, "content_filter", content_filter_results=SAFE, content_filter_offsets=OFFSETS),
            ],
            "Hi",
            FinishReason.CONTENT_FILTER,
        ),
        (
            [
                chunk({"content": "Hi"}),
                chunk({}, "stop", content_filter_result={"error": {"code": "content_filter_error", "message": "down"}}),
            ],
            "Hi",
            FinishReason.END_TURN,
        ),
    ],
    ids=["beside the choices", "filtered", "annotations of their own", "an annotation that filters", "filter is down"],
)
@both_routes
def test_filter_results_do_not_change_the_text(
    server: ProviderServer, version: str | None, events: list[Any], text: str, reason: FinishReason
) -> None:
    server.reply(Reply(*map(event, events), event("[DONE]")))
    chunks = list(model_at(server, version).chat_stream(HI))
    assert "".join(one.delta for one in chunks if isinstance(one, TextDelta)) == text
    (end,) = (one for one in chunks if isinstance(one, TurnFinished))
    assert (end.reason, chunks[-1]) == (reason, end)


REFUSED = {
    "error": {
        "message": "The response was filtered due to the prompt triggering the content management policy.",
        "type": None,
        "param": "prompt",
        "code": "content_filter",
        "status": 400,
        "innererror": {
            "code": "ResponsibleAIPolicyViolation",
            "content_filter_result": {"hate": {"filtered": True, "severity": "high"}},
        },
    }
}


@both_routes
def test_a_filtered_prompt_is_a_content_filter_error(server: ProviderServer, version: str | None) -> None:
    server.reply(Reply.json(REFUSED, status=400, headers={"apim-request-id": "req-9"}))
    with pytest.raises(ContentFilterError, match="content management policy") as caught:
        model_at(server, version).chat_stream(HI)
    error = caught.value
    assert (error.status, error.code, error.request_id) == (400, "content_filter", "req-9")
    assert (error.provider, error.model) == ("azure-openai", "d")
    assert "severity" in (error.body or "")


# --- error responses of the service and of the gateways in front of it -----------------------------------------------


def said(code: Any, message: str = "no", **more: Any) -> dict[str, Any]:
    return {"error": {"code": code, "message": message, **more}}


@pytest.mark.parametrize(
    ("status", "answer", "kind"),
    [
        (429, {"statusCode": 429, "message": "Rate limit is exceeded. Try again in 2 seconds."}, RateLimitError),
        (429, {"statusCode": "429", "message": "no"}, RateLimitError),
        (429, said("429"), RateLimitError),
        (429, said(429), RateLimitError),
        (429, said("RateLimitReached"), RateLimitError),
        (429, said("insufficient_quota"), QuotaExceededError),
        (401, {"statusCode": 401, "message": "Unauthorized. Access token is missing."}, AuthenticationError),
        (401, said("401", "Access denied due to invalid subscription key."), AuthenticationError),
        (401, said("PermissionDenied", "The principal lacks the required data action."), AuthenticationError),
        (403, {"statusCode": 403, "message": "Forbidden"}, PermissionDeniedError),
        (404, said("DeploymentNotFound"), NotFoundError),
        (404, said("404", "Resource not found"), NotFoundError),
        (404, {"statusCode": 404, "message": "Resource not found"}, NotFoundError),
        (400, said("OperationNotSupported"), InvalidRequestError),
        (400, said("context_length_exceeded"), ContextOverflowError),
        (408, {"statusCode": 408, "message": "The operation was timeout."}, ServerError),
        (500, said("InternalServerError"), ServerError),
        (503, {"statusCode": 503, "message": "Service Unavailable"}, OverloadedError),
    ],
    ids=lambda value: str(value)[:50] if isinstance(value, dict) else None,
)
@both_routes
def test_an_error_is_classified_for_every_gateway(
    server: ProviderServer, version: str | None, status: int, answer: dict[str, Any], kind: type[CompletionError]
) -> None:
    server.reply(Reply.json(answer, status=status, headers={"apim-request-id": "req-9", "x-request-id": "other"}))
    with pytest.raises(CompletionError) as caught:
        model_at(server, version).chat_stream(HI)
    error = caught.value
    assert type(error) is kind
    assert (error.status, error.request_id) == (status, "req-9")
    message: str = answer["error"]["message"] if "error" in answer else answer["message"]
    assert error.message.startswith(message.rstrip("."))


@pytest.mark.parametrize(
    ("status", "kind"), [(401, AuthenticationError), (404, NotFoundError), (502, ServerError), (503, OverloadedError)]
)
@both_routes
def test_a_proxys_page_is_classified_by_its_status(
    server: ProviderServer, version: str | None, status: int, kind: type[CompletionError]
) -> None:
    page = "<html><head><title>Gateway</title></head><body>upstream</body></html>"
    server.reply(Reply.text(page, "text/html", status=status, headers={"x-request-id": "other"}))
    with pytest.raises(CompletionError) as caught:
        model_at(server, version).chat_stream(HI)
    assert type(caught.value) is kind
    assert (caught.value.request_id, caught.value.body) == ("other", page)


def test_the_retry_after_header_of_a_gateway_is_read(server: ProviderServer) -> None:
    answer = {"statusCode": 429, "message": "Rate limit is exceeded. Try again in 2 seconds."}
    server.reply(Reply.json(answer, status=429, headers={"Retry-After": "2"}))
    with pytest.raises(RateLimitError) as caught:
        model_at(server).chat_stream(HI)
    assert caught.value.retry_classification() == Transient(2.0)


@both_routes
def test_an_echo_of_a_token_is_concealed(server: ProviderServer, version: str | None) -> None:
    server.reply(Reply.json({"statusCode": 401, "message": "bad token very-secret-token"}, status=401))
    with pytest.raises(AuthenticationError) as caught:
        model_at(server, version, token_provider=lambda: "very-secret-token").chat_stream(HI)
    assert "secret" not in f"{caught.value} {caught.value.body}"


def test_a_deployment_in_the_base_url_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="give the URL of the resource, and the deployment as the model"):
        AzureOpenAIModel("d", base_url="https://r.openai.azure.com/openai/deployments/d", api_key="k")


@pytest.mark.parametrize(
    ("given", "said"),
    [("tok", "must be a function, got str"), (lambda: None, r"token_provider\(\) returned no token"),
     (lambda: 5, r"token_provider\(\) must be a str, got int"), (lambda: "Bearer x", "starts with 'Bearer'")],
    ids=["a string", "none", "a number", "with its prefix"],
)  # fmt: skip
def test_a_token_provider_that_returns_no_token_is_an_error(given: Any, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        AzureOpenAIModel("d", base_url="http://127.0.0.1:9", token_provider=given).chat_stream(HI)


@pytest.mark.parametrize(
    ("options", "path"),
    [
        ({}, "/openai/v1/responses"),
        ({"api_version": "2025-04-01-preview"}, "/openai/responses?api-version=2025-04-01-preview"),
    ],
)
def test_the_option_wire_chooses_responses(server: ProviderServer, options: dict[str, Any], path: str) -> None:
    end = {"type": "response.completed", "response": {"status": "completed", "output": []}}
    server.reply(Reply(event({"type": "response.output_text.delta", "delta": "a"}), event(end)))
    model = AzureOpenAIModel("my-deployment", base_url=server.url, api_key="k", wire="responses", **options)
    assert pickle.loads(pickle.dumps(model)).chat_stream("Hi").collect().text == "a"
    request = server.requests[-1]
    assert (request.path, request.json()["model"]) == (path, "my-deployment")


def test_a_token_field_beside_responses_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="token_field= is for Chat Completions: give wire='chat'"):
        AzureOpenAIModel("m", base_url="https://host", api_key="k", wire="responses", token_field="max_tokens")
