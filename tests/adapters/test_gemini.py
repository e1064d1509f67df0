"""GeminiModel against real servers: a scripted one for the Gemini API, and one that gives out Google's tokens."""

from __future__ import annotations

import json
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest

import completion
from completion import (
    ChatRequest,
    ConfigurationError,
    FinishReason,
    GeminiClient,
    GeminiModel,
    InvalidRequestError,
    Message,
    ProviderBlock,
    RateLimitError,
    TextBlock,
    TransportError,
)
from completion.testing import ProviderServer, Reply, event
from tests.loopback import HI, KEY, failure_of

TURN = Reply(
    event({"candidates": [{"content": {"parts": [{"text": "Hel"}], "role": "model"}, "index": 0}], "responseId": "r"}),
    event({"candidates": [{"content": {"parts": [{"text": "lo"}, {"text": "", "thoughtSignature": "S"}]},
                           "finishReason": "STOP"}], "responseId": "r"}),
)  # fmt: skip


@pytest.mark.parametrize(
    ("model", "path"),
    [
        ("gemini-2.5-pro", "/v1beta/models/gemini-2.5-pro"),
        ("tunedModels/mine", "/v1beta/tunedModels/mine"),
        ("a b?c", "/v1beta/models/a%20b%3Fc"),
    ],
)
@pytest.mark.parametrize("suffix", ["", "/", "/v1beta", "/v1beta/"])
def test_the_model_is_a_part_of_the_path(server: ProviderServer, model: str, path: str, suffix: str) -> None:
    server.reply(TURN)
    assert GeminiModel(model, api_key=KEY, base_url=server.url + suffix).chat_stream(HI).collect().text == "Hello"
    assert server.requests[0].path == f"{path}:streamGenerateContent?alt=sse"


@pytest.mark.parametrize("variable", ["GEMINI_API_KEY", "GOOGLE_API_KEY"])
def test_the_key_may_be_in_either_variable(
    server: ProviderServer, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, KEY)
    server.reply(TURN)
    completion.model("gemini:m", base_url=server.url).chat_stream(HI).collect()
    assert server.requests[0].header("x-goog-api-key") == KEY


def test_a_signature_goes_back_in_the_next_turn(server: ProviderServer) -> None:
    server.always(TURN)
    model = GeminiModel("gemini-3.1-pro", api_key=KEY, base_url=server.url)
    turn = model.chat_stream(HI).collect()
    assert turn.reason is FinishReason.END_TURN
    assert turn.message.blocks == (
        TextBlock("Hello"),
        ProviderBlock("gemini", {"type": "signature", "thoughtSignature": "S", "length": 0}),
    )
    model.chat_stream(ChatRequest([Message.user("Hi"), turn.message, Message.user("?")])).collect()
    assert server.requests[1].json()["contents"][1] == {
        "role": "model", "parts": [{"text": "Hello"}, {"text": "", "thoughtSignature": "S"}]
    }  # fmt: skip


@pytest.mark.parametrize("is_list", [False, True])
def test_googles_errors_are_read(server: ProviderServer, is_list: bool) -> None:
    delay = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "7.5s"}
    error: Any = {"error": {"code": 429, "message": "Slow", "status": "RESOURCE_EXHAUSTED", "details": [delay]}}
    server.reply(Reply.json([error] if is_list else error, 429))
    server.reply(Reply.json([error] if is_list else error))
    for _ in range(2):
        found = failure_of(lambda: GeminiModel("m", api_key=KEY, base_url=server.url).chat_stream(HI))
        assert type(found) is RateLimitError
        assert found.retry_after == 7.5


def test_an_invalid_argument_is_not_retried(server: ProviderServer) -> None:
    server.reply(Reply.json({"error": {"code": 400, "message": "Bad", "status": "INVALID_ARGUMENT"}}, 400))
    assert type(failure_of(lambda: GeminiModel("m", api_key=KEY, base_url=server.url).chat_stream(HI))) is (
        InvalidRequestError
    )


# Vertex AI


@pytest.mark.parametrize(
    ("location", "host"),
    [
        (None, "https://aiplatform.googleapis.com"),
        ("global", "https://aiplatform.googleapis.com"),
        ("europe-west4", "https://europe-west4-aiplatform.googleapis.com"),
    ],
)
def test_the_location_is_a_part_of_the_host(location: str | None, host: str) -> None:
    assert GeminiClient(project="p", location=location).base_url == host


@pytest.mark.parametrize(
    "options",
    [
        {"project": "p", "api_key": KEY},
        {"location": "europe-west4"},
        {"project": "p", "location": "evil.test/x"},
        {"project": "p", "location": "evil.test#"},
    ],
)
def test_options_that_contradict_each_other_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        GeminiClient(**options)
    assert KEY not in str(caught.value)


@pytest.fixture
def service_account(server: ProviderServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Google's default credentials: a service account whose token server is ours."""
    pytest.importorskip("google.auth")
    rsa = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.rsa")
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    account = {
        "type": "service_account",
        "client_email": "me@p.iam.gserviceaccount.com",
        "private_key": key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
        "token_uri": f"{server.url}/token",
    }
    file = tmp_path / "account.json"
    file.write_text(json.dumps(account))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
    return file


def test_vertex_ai_gets_a_token_of_the_default_credentials(server: ProviderServer, service_account: Path) -> None:
    model = GeminiModel("gemini-3.1-pro", project="my-project", location="europe-west4", base_url=server.url)
    assert server.requests == []
    server.reply(Reply.json({"access_token": KEY, "expires_in": 3600, "token_type": "Bearer"}))
    server.reply(TURN)
    server.reply(TURN)
    for _ in range(2):
        assert model.chat_stream(HI).collect().text == "Hello"
    token, first, second = server.requests
    assert token.path == "/token"
    expected = "/v1/projects/my-project/locations/europe-west4/publishers/google/models/gemini-3.1-pro"
    for request in (first, second):
        assert request.path == f"{expected}:streamGenerateContent?alt=sse"
        assert request.header("authorization") == f"Bearer {KEY}"
        assert request.header("x-goog-api-key") is None


def test_a_model_on_vertex_ai_can_be_pickled(server: ProviderServer, service_account: Path) -> None:
    server.reply(Reply.json({"access_token": KEY, "expires_in": 3600}))
    server.reply(TURN)
    model = GeminiModel("m", project="p", base_url=server.url)
    assert pickle.loads(pickle.dumps(model)).chat_stream(HI).collect().text == "Hello"


def test_a_refused_account_is_an_error_without_a_request(server: ProviderServer, service_account: Path) -> None:
    server.reply(Reply.json({"error": "invalid_grant", "error_description": "gone"}, 400))
    error = failure_of(lambda: GeminiModel("m", project="p", base_url=server.url).chat_stream(HI))
    assert type(error) is ConfigurationError
    assert "Google refused the credentials" in str(error)
    assert error.provider == "gemini"
    assert len(server.requests) == 1


def test_a_token_server_that_is_not_reached_may_be_retried(
    server: ProviderServer, service_account: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = json.loads(service_account.read_text())
    service_account.write_text(json.dumps({**account, "token_uri": "http://127.0.0.1:9/token"}))
    error = failure_of(lambda: GeminiModel("m", project="p", base_url=server.url).chat_stream(HI))
    assert type(error) is TransportError


def test_missing_credentials_are_an_error(
    server: ProviderServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("google.auth")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "missing.json"))
    error = failure_of(lambda: GeminiModel("m", project="p", base_url=server.url).chat_stream(HI))
    assert type(error) is ConfigurationError
    assert "GOOGLE_APPLICATION_CREDENTIALS" in str(error)
    assert server.connections == 0


def test_a_missing_package_is_named_with_its_command(server: ProviderServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "google.auth", None)
    monkeypatch.setitem(sys.modules, "google.auth.exceptions", None)
    error = failure_of(lambda: GeminiModel("m", project="p", base_url=server.url).chat_stream(HI))
    assert type(error) is ConfigurationError
    assert "pip install 'completion-stream[google]'" in str(error)
