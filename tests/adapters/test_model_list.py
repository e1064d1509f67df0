"""``client.model_ids()``: the provider's list of models."""

from __future__ import annotations

from typing import Any

import pytest

from completion import (
    AuthenticationError,
    CohereClient,
    GeminiClient,
    IdleTimeoutError,
    MalformedStreamError,
    OllamaClient,
    OpenAIClient,
    Timeout,
    UnsupportedContentError,
)
from completion.adapters.account import HttpClient
from completion.testing import ProviderServer, Reply, Stall

KEY = "sk-very-secret-0123456789"


def client(server: ProviderServer, **options: float) -> OpenAIClient:
    return OpenAIClient(api_key=KEY, base_url=server.url, timeout=Timeout(**options))


def test_the_connection_of_a_list_serves_the_next_request(server: ProviderServer) -> None:
    server.always(Reply.json({"data": [{"id": "m"}]}))
    asked = client(server)
    assert [asked.model_ids(), asked.model_ids()] == [["m"], ["m"]]
    assert server.connections == 1


def test_a_refused_list_raises_as_a_refused_request_does(server: ProviderServer) -> None:
    server.reply(Reply.json({"error": {"message": f"no such key: {KEY}"}}, status=401))
    with pytest.raises(AuthenticationError) as caught:
        client(server).model_ids()
    assert (caught.value.provider, caught.value.status, KEY in str(caught.value)) == ("openai", 401, False)


def test_a_server_that_does_not_answer_times_out(server: ProviderServer) -> None:
    server.reply(Reply(before_headers=[Stall()]))
    with pytest.raises(IdleTimeoutError):
        client(server, read=0.2).model_ids()
    assert server.wait_hung_up()


def test_a_list_that_is_too_large_is_an_error(server: ProviderServer) -> None:
    server.reply(Reply.json({"data": [{"id": "m" * 2000}]}))
    asked = OpenAIClient(api_key=KEY, base_url=server.url, max_event_bytes=1000)
    with pytest.raises(MalformedStreamError, match="larger than 1000 bytes"):
        asked.model_ids()


def test_a_provider_without_a_list_says_so() -> None:
    class Acme(HttpClient):
        name = "acme"
        key_variable = "ACME_API_KEY"

    with pytest.raises(UnsupportedContentError, match="acme: this provider has no list of models"):
        Acme(api_key=KEY, base_url="http://127.0.0.1:9").model_ids()


def test_vertex_ai_has_no_list() -> None:
    with pytest.raises(UnsupportedContentError, match="gemini: this provider has no list of models"):
        GeminiClient(project="mine").model_ids()


@pytest.mark.parametrize(
    ("kind", "path", "listed"),
    [
        (OllamaClient, "/api/tags", {"models": [{"name": "llama3.2:1b"}]}),
        (CohereClient, "/v1/models?page_size=1000&endpoint=chat", {"models": [{"name": "llama3.2:1b"}]}),
    ],
)
def test_each_vendor_has_a_path_of_its_own(server: ProviderServer, kind: Any, path: str, listed: Any) -> None:
    server.reply(Reply.json(listed))
    assert kind(api_key=KEY, base_url=server.url).model_ids() == ["llama3.2:1b"]
    assert server.requests[0].path == path
