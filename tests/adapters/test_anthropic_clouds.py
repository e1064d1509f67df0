"""Claude at Vertex AI, Azure Foundry and Bedrock's Mantle: addresses, credentials, bodies. The wire is Anthropic's."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

import completion
from completion import (
    AnthropicFoundryClient,
    AnthropicFoundryModel,
    AnthropicMantleClient,
    AnthropicMantleModel,
    AnthropicModel,
    AnthropicVertexClient,
    AnthropicVertexModel,
    AuthenticationError,
    ChatRequest,
    CompletionModel,
    ConfigurationError,
    Message,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    ReasoningBlock,
    UnsupportedContentError,
)
from completion.testing import ProviderServer, Reply, event
from tests.loopback import HI, KEY, failure_of
from tests.wire_pieces import MESSAGE_STOP, block_delta, block_start, block_stop, message_delta

ANSWER = Reply(
    event({"type": "message_start", "message": {"id": "msg_1", "model": "m-1", "usage": {"input_tokens": 3}}}),
    event(block_start(0, "thinking", thinking="")),
    event(block_delta(0, "thinking_delta", thinking="Hm.")),
    event(block_delta(0, "signature_delta", signature="c2ln")),
    event(block_stop(0)),
    event(block_start(1, "text", text="")),
    event(block_delta(1, "text_delta", text="Hello")),
    event(block_stop(1)),
    event(message_delta("end_turn", usage={"output_tokens": 1})),
    event(MESSAGE_STOP),
)

VARIABLES = (
    *("ANTHROPIC_VERTEX_PROJECT_ID", "ANTHROPIC_VERTEX_BASE_URL", "CLOUD_ML_REGION", "GOOGLE_APPLICATION_CREDENTIALS"),
    *("ANTHROPIC_FOUNDRY_API_KEY", "ANTHROPIC_FOUNDRY_RESOURCE", "ANTHROPIC_FOUNDRY_BASE_URL"),
    *("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_BEARER_TOKEN_BEDROCK", "ANTHROPIC_BEDROCK_MANTLE_BASE_URL"),
)


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)


def vertex(server: ProviderServer, model: str = "claude-sonnet-4-5@20250929", **options: Any) -> AnthropicVertexModel:
    given = {"project_id": "my-project", "region": "europe-west1", "access_token": KEY, "base_url": server.url}
    return AnthropicVertexModel(model, **{**given, **options})


# Vertex AI


def test_vertex_has_the_model_in_the_path_and_the_version_in_the_body(server: ProviderServer) -> None:
    server.reply(ANSWER)
    turn = vertex(server).chat_stream(HI).collect()
    assert (turn.text, turn.response_id) == ("Hello", "msg_1")
    (request,) = server.requests
    path = "/v1/projects/my-project/locations/europe-west1/publishers/anthropic/models"
    assert request.path == f"{path}/claude-sonnet-4-5@20250929:streamRawPredict"
    assert request.header("authorization") == f"Bearer {KEY}"
    assert (request.header("x-api-key"), request.header("anthropic-version")) == (None, None)
    body = request.json()
    assert (body["anthropic_version"], body["stream"]) == ("vertex-2023-10-16", True)
    assert "model" not in body


@pytest.mark.parametrize(
    ("region", "url"),
    [
        ("global", "https://aiplatform.googleapis.com"),
        ("us", "https://aiplatform.us.rep.googleapis.com"),
        ("eu", "https://aiplatform.eu.rep.googleapis.com"),
        ("us-east5", "https://us-east5-aiplatform.googleapis.com"),
    ],
)
def test_each_region_of_vertex_has_its_server(region: str, url: str) -> None:
    assert AnthropicVertexClient(project_id="p", region=region).base_url == url


def test_vertex_reads_the_variables_of_anthropics_library(
    server: ProviderServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_VERTEX_PROJECT_ID", "p-env")
    monkeypatch.setenv("CLOUD_ML_REGION", "global")
    monkeypatch.setenv("ANTHROPIC_VERTEX_BASE_URL", f"{server.url}/v1")
    server.reply(ANSWER)
    completion.model("anthropic-vertex:claude-opus-4-6", access_token=lambda: KEY).chat_stream(HI).collect()
    path = "/v1/projects/p-env/locations/global/publishers/anthropic/models/claude-opus-4-6:streamRawPredict"
    assert server.requests[0].path == path


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"region": "global"}, "no project: set ANTHROPIC_VERTEX_PROJECT_ID or give project_id="),
        ({"project_id": "p"}, "no region: set CLOUD_ML_REGION or give region="),
        ({"project_id": "p", "region": "evil.test/x"}, "region must be like"),
        ({"project_id": "p", "region": "evil.test#"}, "region must be like"),
        ({"project_id": "p", "region": "global", "model_version": "four"}, "anthropic-vertex: model_version must be"),
    ],
)
def test_vertex_refuses_an_incomplete_or_dangerous_address(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        AnthropicVertexClient(**options)


@pytest.mark.parametrize("model", ["a/../b", "a;b", "a?b#c", "m:rawPredict"])
def test_a_model_id_cannot_change_the_method(server: ProviderServer, model: str) -> None:
    server.reply(ANSWER)
    vertex(server, model).chat_stream(HI).collect()
    head, _, name = server.requests[0].path.rpartition("/models/")
    assert head.endswith("/publishers/anthropic")
    assert name.endswith(":streamRawPredict") and not set("/;?#") & set(name) and name.count(":") == 1


def test_betas_stay_in_a_header_and_a_version_as_header_moves_to_the_body(server: ProviderServer) -> None:
    server.reply(ANSWER)
    headers = {"Anthropic-Version": "vertex-2099-01-01", "X-Mine": "1"}
    vertex(server, betas=["context-1m-2025-08-07"], headers=headers).chat_stream(HI).collect()
    (request,) = server.requests
    assert request.header("anthropic-beta") == "context-1m-2025-08-07"
    assert (request.header("x-mine"), request.header("anthropic-version")) == ("1", None)
    assert request.json()["anthropic_version"] == "vertex-2099-01-01"


def test_vertex_without_credentials_says_what_to_do(
    server: ProviderServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "missing.json"))
    error = failure_of(lambda: vertex(server, access_token=None).chat_stream(HI))
    assert type(error) is ConfigurationError
    assert "gcloud auth application-default login" in error.message
    assert server.connections == 0


@pytest.mark.parametrize(
    ("status", "word", "kind"),
    [
        (401, "UNAUTHENTICATED", AuthenticationError),
        (403, "PERMISSION_DENIED", PermissionDeniedError),
        (404, "NOT_FOUND", NotFoundError),
        (429, "RESOURCE_EXHAUSTED", RateLimitError),
    ],
)
def test_googles_own_errors_are_understood(server: ProviderServer, status: int, word: str, kind: type) -> None:
    error = {"code": status, "message": "no", "status": word}
    server.always(Reply.json({"error": error}, status))
    assert type(failure_of(lambda: vertex(server).chat_stream(HI))) is kind


# Foundry


@pytest.mark.parametrize("end", ["", "/", "/anthropic", "/anthropic/", "/anthropic/v1", "/anthropic/v1/messages"])
def test_foundry_takes_every_form_of_its_address(server: ProviderServer, end: str) -> None:
    server.reply(ANSWER)
    model = AnthropicFoundryModel("my-claude", base_url=server.url + end, api_key=KEY)
    assert model.chat_stream(HI).collect().text == "Hello"
    (request,) = server.requests
    assert (request.path, request.header("x-api-key")) == ("/anthropic/v1/messages", KEY)
    assert (request.json()["model"], request.header("anthropic-version")) == ("my-claude", "2023-06-01")


def test_foundry_makes_the_address_from_the_resource(monkeypatch: pytest.MonkeyPatch) -> None:
    assert AnthropicFoundryClient(resource="acme").base_url == "https://acme.services.ai.azure.com"
    monkeypatch.setenv("ANTHROPIC_FOUNDRY_RESOURCE", "other")
    assert AnthropicFoundryClient().base_url == "https://other.services.ai.azure.com"
    assert AnthropicFoundryClient(base_url="https://gateway.test").base_url == "https://gateway.test"
    monkeypatch.setenv("ANTHROPIC_FOUNDRY_BASE_URL", "https://gateway.test/anthropic/")
    assert AnthropicFoundryClient(resource="acme").base_url == "https://acme.services.ai.azure.com"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "no address: set ANTHROPIC_FOUNDRY_RESOURCE or ANTHROPIC_FOUNDRY_BASE_URL, or give"),
        ({"resource": "a", "base_url": "https://a.test"}, "got resource= and base_url=: give one"),
        ({"resource": "evil.test/"}, "resource must be a name like 'my-resource'"),
        ({"resource": "a", "api_key": "k", "token_provider": lambda: "t"}, "got api_key= and token_provider="),
        ({"resource": "a", "token_provider": "eyJ"}, "token_provider must be a function, got str"),
    ],
)
def test_foundry_refuses_options_that_contradict(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        AnthropicFoundryClient(**options)


def test_foundry_sends_an_entra_token_as_bearer(server: ProviderServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_FOUNDRY_API_KEY", "unused-key-of-the-environment")
    server.reply(ANSWER)
    AnthropicFoundryModel("m", base_url=server.url, token_provider=lambda: KEY).chat_stream(HI).collect()
    (request,) = server.requests
    assert (request.header("authorization"), request.header("x-api-key")) == (f"Bearer {KEY}", None)


# Mantle


def test_mantle_takes_region_and_token_from_the_environment(
    server: ProviderServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigurationError, match="no region: set AWS_REGION or AWS_DEFAULT_REGION or give region="):
        AnthropicMantleClient()
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-west-2")
    assert AnthropicMantleClient().base_url == "https://bedrock-mantle.us-west-2.api.aws"
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    assert AnthropicMantleClient().base_url == "https://bedrock-mantle.eu-central-1.api.aws"
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", KEY)
    monkeypatch.setenv("ANTHROPIC_BEDROCK_MANTLE_BASE_URL", f"{server.url}/anthropic")
    server.reply(ANSWER)
    AnthropicMantleModel("anthropic.claude-sonnet-4-6").chat_stream(HI).collect()
    (request,) = server.requests
    assert (request.path, request.header("authorization")) == ("/anthropic/v1/messages", f"Bearer {KEY}")


def test_mantle_refuses_a_region_that_is_an_address() -> None:
    with pytest.raises(ConfigurationError, match="region must be like 'us-east-1'"):
        AnthropicMantleClient(region="evil.test/", api_key="k")


# All of them


def all_clouds(server: ProviderServer) -> list[Any]:
    return [
        vertex(server, "claude-opus-4-6"),
        AnthropicFoundryModel("claude-opus-4-6", base_url=server.url, api_key=KEY),
        AnthropicMantleModel("anthropic.claude-opus-4-6", base_url=server.url, api_key=KEY),
    ]


def test_a_history_moves_between_anthropic_and_the_clouds_with_its_signatures(server: ProviderServer) -> None:
    server.always(ANSWER)
    models = [AnthropicModel("claude-opus-4-6", base_url=server.url, api_key=KEY), *all_clouds(server)]
    history = [Message.user("Hi")]
    for model in models:
        turn = model.chat_stream(ChatRequest(history)).collect()
        assert turn.message.blocks[0] == ReasoningBlock("Hm.", "c2ln", "anthropic")
        history += [turn.message, Message.user("Go on.")]
    sent = server.requests[-1].json()["messages"]
    signed = {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"}
    assert [message["content"][0] for message in sent if message["role"] == "assistant"] == [signed] * 3


def test_the_checks_of_the_wire_are_the_same(server: ProviderServer) -> None:
    for model in all_clouds(server):
        with pytest.raises(UnsupportedContentError, match=f"{model.name}: response_format='json'"):
            model.chat_stream(ChatRequest("Hi", response_format="json"))
    assert server.connections == 0


def test_each_keeps_the_protocol_and_can_be_pickled(server: ProviderServer) -> None:
    server.always(ANSWER)
    for model in all_clouds(server):
        assert type(model.client.completion_model("m-2")) is type(model)
        assert pickle.loads(pickle.dumps(model)).chat_stream(HI).collect().text == "Hello"
        assert isinstance(model, CompletionModel)
    assert KEY not in repr(all_clouds(server))
