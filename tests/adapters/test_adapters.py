"""What all HTTP adapters have in common: names, options, keys, connections, errors."""

from __future__ import annotations

import inspect
import json
import pickle
import re
import typing
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import pytest
import typing_extensions

from completion import (
    AnthropicBedrockClient,
    AnthropicBedrockModel,
    AnthropicClient,
    AnthropicFoundryClient,
    AnthropicFoundryModel,
    AnthropicMantleClient,
    AnthropicMantleModel,
    AnthropicModel,
    AuthenticationError,
    AzureOpenAIClient,
    AzureOpenAIModel,
    BedrockClient,
    BedrockModel,
    CohereClient,
    CohereModel,
    CompletionClient,
    CompletionModel,
    ConfigurationError,
    ContextOverflowError,
    GeminiClient,
    GeminiInteractionsClient,
    GeminiInteractionsModel,
    GeminiModel,
    InvalidRequestError,
    NotFoundError,
    OllamaClient,
    OllamaModel,
    OpenAIClient,
    OpenAIModel,
    OpenAIResponsesClient,
    OpenAIResponsesModel,
    OverloadedError,
    Permanent,
    PermissionDeniedError,
    ProviderError,
    QuotaExceededError,
    RateLimitError,
    RequestTooLargeError,
    ServerError,
    Transient,
)
from completion.adapters.account import HttpClient, HttpModel, HttpOptions, Options
from completion.adapters.anthropic import AnthropicOptions
from completion.adapters.anthropic_bedrock import AnthropicBedrockOptions
from completion.adapters.anthropic_clouds import AnthropicFoundryOptions, AnthropicMantleOptions
from completion.adapters.azure_openai import AzureOptions
from completion.adapters.bedrock import BedrockOptions
from completion.adapters.gemini import GeminiOptions
from completion.adapters.openai import OpenAIOptions
from completion.adapters.openai_responses import OpenAIResponsesOptions
from completion.registry import OURS
from completion.testing import ProviderServer, Reply, event
from tests import aws
from tests.loopback import END, HI, KEY, failure_of, text
from tests.wire_pieces import MESSAGE_STOP, block_delta, block_start, block_stop, message_delta

BEGUN: Final = b"".join(
    [
        event({"type": "message_start", "message": {"id": "msg_1", "model": "m-1", "usage": {"input_tokens": 3}}}),
        event(block_start(0, "text", text="")),
        event(block_delta(0, "text_delta", text="a")),
    ]
)
ENDED: Final = b"".join(
    [
        event(block_stop(0)),
        event(message_delta("end_turn", usage={"output_tokens": 1})),
        event(MESSAGE_STOP),
    ]
)
RESPONSE_BEGUN: Final = event({"type": "response.output_text.delta", "output_index": 0, "delta": "a"})
RESPONSE_ENDED: Final = event({"type": "response.completed", "response": {"status": "completed", "output": []}})


def line(data: Any, name: str | None = None) -> bytes:
    """What ``event`` is for server-sent events: a line of JSON."""
    return f"{data if isinstance(data, str) else json.dumps(data)}\n".encode()


@dataclass(frozen=True)
class Adapter:
    """An adapter, how to use it on loopback, and the bytes of a turn whose text is "a"."""

    family: str
    model_class: type[HttpModel]
    client_class: type[HttpClient]
    options_class: Any
    url_variable: str
    key_header: tuple[str, str]
    """The name of the header, and the text before the key."""
    path: str
    request_id_header: str
    begun: bytes = text("a")
    ended: bytes = END
    event: Callable[..., bytes] = event
    """The bytes of an event with this value, and perhaps a name."""
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def turn(self) -> Reply:
        return Reply(self.begun, self.ended)

    def model(self, url: str, **options: Any) -> Any:
        return self.model_class("m", **{**self.given(url), **options})

    def client(self, url: str, **options: Any) -> Any:
        return self.client_class(**{**self.given(url), **options})

    def given(self, url: str) -> dict[str, Any]:
        return {"base_url": url, "api_key": KEY, **self.options}


AZURE: Final = Adapter(
    family="azure-openai",
    model_class=AzureOpenAIModel,
    client_class=AzureOpenAIClient,
    options_class=AzureOptions,
    url_variable="AZURE_OPENAI_ENDPOINT",
    key_header=("api-key", ""),
    path="/openai/v1/chat/completions",
    request_id_header="apim-request-id",
)
ADAPTERS: Final = {
    "openai": Adapter(
        family="openai",
        model_class=OpenAIModel,
        client_class=OpenAIClient,
        options_class=OpenAIOptions,
        url_variable="OPENAI_BASE_URL",
        key_header=("authorization", "Bearer "),
        path="/chat/completions",
        request_id_header="x-request-id",
    ),
    "azure v1": AZURE,
    "azure dated": replace(
        AZURE,
        path="/openai/deployments/m/chat/completions?api-version=2024-10-21",
        options={"api_version": "2024-10-21"},
    ),
    "azure responses": replace(
        AZURE,
        path="/openai/v1/responses",
        begun=RESPONSE_BEGUN,
        ended=RESPONSE_ENDED,
        options={"wire": "responses"},
    ),
    "openai-responses": Adapter(
        family="openai-responses",
        model_class=OpenAIResponsesModel,
        client_class=OpenAIResponsesClient,
        options_class=OpenAIResponsesOptions,
        url_variable="OPENAI_BASE_URL",
        key_header=("authorization", "Bearer "),
        path="/responses",
        request_id_header="x-request-id",
        begun=RESPONSE_BEGUN,
        ended=RESPONSE_ENDED,
    ),
    "anthropic": Adapter(
        family="anthropic",
        model_class=AnthropicModel,
        client_class=AnthropicClient,
        options_class=AnthropicOptions,
        url_variable="ANTHROPIC_BASE_URL",
        key_header=("x-api-key", ""),
        path="/v1/messages",
        request_id_header="request-id",
        begun=BEGUN,
        ended=ENDED,
    ),
    "anthropic-foundry": Adapter(
        family="anthropic-foundry",
        model_class=AnthropicFoundryModel,
        client_class=AnthropicFoundryClient,
        options_class=AnthropicFoundryOptions,
        url_variable="ANTHROPIC_FOUNDRY_BASE_URL",
        key_header=("x-api-key", ""),
        path="/anthropic/v1/messages",
        request_id_header="request-id",
        begun=BEGUN,
        ended=ENDED,
    ),
    "anthropic-mantle": Adapter(
        family="anthropic-mantle",
        model_class=AnthropicMantleModel,
        client_class=AnthropicMantleClient,
        options_class=AnthropicMantleOptions,
        url_variable="ANTHROPIC_BEDROCK_MANTLE_BASE_URL",
        key_header=("authorization", "Bearer "),
        path="/anthropic/v1/messages",
        request_id_header="request-id",
        begun=BEGUN,
        ended=ENDED,
    ),
    "bedrock": Adapter(
        family="bedrock",
        model_class=BedrockModel,
        client_class=BedrockClient,
        options_class=BedrockOptions,
        url_variable="AWS_ENDPOINT_URL_BEDROCK_RUNTIME",
        key_header=("authorization", "Bearer "),
        path="/model/m/converse-stream",
        request_id_header="x-amzn-requestid",
        begun=aws.STARTED + aws.delta(0, text="a"),
        ended=aws.stop(0) + aws.ended() + aws.USAGE,
        event=aws.event,
        options={"region": "us-east-1"},
    ),
    "anthropic-bedrock": Adapter(
        family="anthropic-bedrock",
        model_class=AnthropicBedrockModel,
        client_class=AnthropicBedrockClient,
        options_class=AnthropicBedrockOptions,
        url_variable="AWS_ENDPOINT_URL_BEDROCK_RUNTIME",
        key_header=("authorization", "Bearer "),
        path="/model/m/invoke-with-response-stream",
        request_id_header="x-amzn-requestid",
        begun=aws.chunk(block_start(0, "text", text="")) + aws.chunk(block_delta(0, "text_delta", text="a")),
        ended=aws.chunk(block_stop(0)) + aws.chunk(message_delta("end_turn")) + aws.chunk(MESSAGE_STOP),
        event=aws.event,
        options={"region": "us-east-1"},
    ),
    "gemini": Adapter(
        family="gemini",
        model_class=GeminiModel,
        client_class=GeminiClient,
        options_class=GeminiOptions,
        url_variable="GOOGLE_GEMINI_BASE_URL",
        key_header=("x-goog-api-key", ""),
        path="/v1beta/models/m:streamGenerateContent?alt=sse",
        request_id_header="x-request-id",
        begun=event({"candidates": [{"content": {"parts": [{"text": "a"}]}}], "responseId": "r"}),
        ended=event({"candidates": [{"finishReason": "STOP"}], "responseId": "r", "usageMetadata": {}}),
    ),
    "gemini-interactions": Adapter(
        family="gemini-interactions",
        model_class=GeminiInteractionsModel,
        client_class=GeminiInteractionsClient,
        options_class=Options,
        url_variable="GOOGLE_GEMINI_BASE_URL",
        key_header=("x-goog-api-key", ""),
        path="/v1beta/interactions",
        request_id_header="x-request-id",
        begun=event({"event_type": "step.delta", "index": 0, "delta": {"type": "text", "text": "a"}}),
        ended=event({"event_type": "interaction.completed", "interaction": {"status": "completed"}}),
    ),
    "cohere": Adapter(
        family="cohere",
        model_class=CohereModel,
        client_class=CohereClient,
        options_class=Options,
        url_variable="CO_API_URL",
        key_header=("authorization", "Bearer "),
        path="/v2/chat",
        request_id_header="x-debug-trace-id",
        begun=event({"type": "content-delta", "index": 0, "delta": {"message": {"content": {"text": "a"}}}}),
        ended=event({"type": "message-end", "delta": {"finish_reason": "COMPLETE"}}),
    ),
    "ollama": Adapter(
        family="ollama",
        model_class=OllamaModel,
        client_class=OllamaClient,
        options_class=Options,
        url_variable="OLLAMA_HOST",
        key_header=("authorization", "Bearer "),
        path="/api/chat",
        request_id_header="x-request-id",
        begun=b'{"message": {"role": "assistant", "content": "a"}, "done": false}\n',
        ended=b'{"message": {"role": "assistant", "content": ""}, "done": true, "done_reason": "stop"}\n',
        event=line,
    ),
}

# A test with this decorator runs for each adapter.
adapters = pytest.mark.parametrize("adapter", [pytest.param(adapter, id=name) for name, adapter in ADAPTERS.items()])


def test_every_family_except_the_embedded_one_is_tested_here() -> None:
    # openai-chat is another name of openai. anthropic-vertex has no API key: it is tested in test_anthropic_clouds.
    tested = {adapter.family for adapter in ADAPTERS.values()}
    assert tested == set(OURS) - {"local", "openai-chat", "anthropic-vertex"}


# Names and options


@adapters
def test_models_and_clients_fit_the_contracts_protocols(adapter: Adapter) -> None:
    client = adapter.client("http://127.0.0.1:9")
    model: Any = client.completion_model("m-2")
    assert (client.name, model.name, model.model) == (adapter.family, adapter.family, "m-2")
    assert type(model) is adapter.model_class
    assert isinstance(client, CompletionClient)
    assert isinstance(model, CompletionModel)


@adapters
def test_a_model_takes_the_options_of_its_client(adapter: Adapter) -> None:
    parameters = dict(inspect.signature(adapter.client_class).parameters)
    assert parameters.pop("options").annotation == "Unpack[HttpOptions]"
    # Python 3.10 has no Unpack; the package imports it for type checkers only.
    taken = typing.get_type_hints(adapter.client_class.__init__, localns={"Unpack": typing_extensions.Unpack})
    own = {name: taken[name] for name in parameters}
    assert typing.get_type_hints(adapter.options_class) == {**typing.get_type_hints(HttpOptions), **own}
    assert {parameter.kind for parameter in parameters.values()} == {inspect.Parameter.KEYWORD_ONLY}
    assert adapter.model_class.__init__.__annotations__["options"] == f"Unpack[{adapter.options_class.__name__}]"


@adapters
def test_an_unknown_option_is_refused(adapter: Adapter) -> None:
    with pytest.raises(TypeError, match="temprature"):
        adapter.model("http://127.0.0.1:9", temprature=1)


@adapters
def test_options_beside_a_shared_client_are_refused(adapter: Adapter) -> None:
    client = adapter.client("http://127.0.0.1:9")
    with pytest.raises(TypeError, match="give options to the client, not to the model that shares it: timeout"):
        adapter.model_class("m", client=client, timeout=3)


@adapters
def test_an_empty_model_id_is_refused(adapter: Adapter) -> None:
    error = failure_of(lambda: adapter.client("http://127.0.0.1:9").completion_model(""))
    assert type(error) is ConfigurationError
    assert str(error) == f"{adapter.family}: the model id is empty"


@adapters
def test_the_base_url_is_shown_without_a_slash_at_its_end(adapter: Adapter) -> None:
    client = adapter.client("http://127.0.0.1:9/proxy/")
    model = client.completion_model("m")
    assert client.base_url == model.base_url == "http://127.0.0.1:9/proxy"
    assert repr(client) == f"{adapter.client_class.__name__}(base_url='http://127.0.0.1:9/proxy')"
    assert repr(model) == f"{adapter.model_class.__name__}('m', base_url='http://127.0.0.1:9/proxy')"


@pytest.mark.parametrize("given", ["option", "environment"])
@pytest.mark.parametrize(
    "base_url",
    [
        "https://host/v1\n", "https://ho\rst/v1", "https://ho\tst/v1", " https://host", "https://host/ v1",
        "https://host/v1\x7f", "\x01https://host", "https://host\u2028/v1", "https://host\u200b/v1",
    ],
)  # fmt: skip
@adapters
def test_a_base_url_with_white_space_or_control_characters_is_refused(
    adapter: Adapter, base_url: str, given: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if given == "environment":
        monkeypatch.setenv(adapter.url_variable, base_url)
    with pytest.raises(ConfigurationError, match="white space or control characters"):
        adapter.client(base_url if given == "option" else "")


@adapters
def test_an_error_of_a_base_url_names_the_variable_that_it_is_from(
    adapter: Adapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(adapter.url_variable, "ftp://user:SECRET@host")
    error = failure_of(lambda: adapter.client(""))
    assert type(error) is ConfigurationError
    assert f"{adapter.url_variable} must be like 'https://host/v1', got 'host'" in str(error)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"base_url": 7}, ConfigurationError, "base_url must be a str, got int"),
        ({"base_url": b"https://host"}, ConfigurationError, "base_url must be a str, got bytes"),
        ({"headers": "X-A: b"}, TypeError, "headers= must be a dict of names and values, got str"),
        ({"headers": [("X-A", "b")]}, TypeError, "headers= must be a dict of names and values, got list"),
        ({"max_event_bytes": "1"}, ValueError, "max_event_bytes must be a whole number"),
        ({"max_event_bytes": 0}, ValueError, "max_event_bytes must be"),
    ],
)
@adapters
def test_an_option_of_another_type_is_named(
    adapter: Adapter, options: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        adapter.client_class(**{**adapter.given("https://host"), **options})


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ({"X-A": "SECRET\n"}, "the header X-A"),
        ({"X-A": "SECRET\r\nHost: elsewhere"}, "the header X-A"),
        ({"X-A": "SECRET\x00"}, "the header X-A"),
        ({"X-A": " SECRET"}, "the header X-A"),
        ({"X-A": "SECRET 日本"}, "the header X-A"),
        ({"X-A": 7}, "the header X-A in headers= must be a str, got int"),
        ({"X-A: SECRET\nX-B": "b"}, "a name in headers="),
        ({"X A SECRET": "b"}, "a name in headers="),
        ({"": "SECRET"}, "a name in headers="),
        ({"X-Ä": "SECRET"}, "a name in headers="),
    ],
)
@adapters
def test_an_invalid_header_is_refused_without_showing_its_value(
    adapter: Adapter, headers: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        adapter.client("https://host", headers=headers)
    assert words.lower() in str(caught.value).lower()
    assert "SECRET" not in str(caught.value)


@adapters
def test_headers_may_contain_every_character_that_http_allows(server: ProviderServer, adapter: Adapter) -> None:
    server.reply(adapter.turn)
    headers = {"X-Empty": "", "x_y.z": "a\tb c", "X-Latin": "caf\xe9"}
    adapter.model(server.url, headers=headers).chat_stream(HI).collect()
    assert [server.requests[0].header(name) for name in headers] == list(headers.values())


@adapters
def test_a_missing_key_is_an_error_before_anything_is_sent(server: ProviderServer, adapter: Adapter) -> None:
    if getattr(adapter.model_class, "key_is_optional", False):
        pytest.skip("requests are sent without a key")
    error = failure_of(lambda: adapter.model(server.url, api_key=None).chat_stream(HI))
    assert type(error) is ConfigurationError
    assert re.search(f"no API key: set {adapter.client_class.key_variable}(, [A-Z_]+)* or", error.message)
    assert server.connections == 0


# The request


def words_of(request: Any) -> list[str]:
    """Where a request can name its model: the words of the path, and the field of the body."""
    return [*re.split(r"[/:?]", request.path), request.json().get("model", "")]


@adapters
@pytest.mark.parametrize("source", ["string", "callable", "environment"])
def test_a_key_is_in_its_header_and_nowhere_else(
    server: ProviderServer, monkeypatch: pytest.MonkeyPatch, adapter: Adapter, source: str
) -> None:
    monkeypatch.setenv(adapter.client_class.key_variable, KEY if source == "environment" else "another")
    given = {"string": KEY, "callable": lambda: KEY, "environment": None}[source]
    server.reply(adapter.turn)
    assert adapter.model(server.url, api_key=given).chat_stream(HI).collect().text == "a"
    (request,) = server.requests
    name, prefix = adapter.key_header
    assert request.path == adapter.path
    assert {header: value for header, value in request.headers.items() if KEY in value} == {name: prefix + KEY}
    assert KEY.encode() not in request.body


@adapters
def test_netrc_is_not_read(
    server: ProviderServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, adapter: Adapter
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login someone password else\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    server.reply(adapter.turn)
    adapter.model(server.url).chat_stream(HI).collect()
    name, prefix = adapter.key_header
    sent = {header: server.requests[0].header(header) for header in (name, "authorization")}
    assert sent == {"authorization": None, name: prefix + KEY}


@adapters
def test_cookies_are_not_kept(server: ProviderServer, adapter: Adapter) -> None:
    server.always(Reply(adapter.begun, adapter.ended, headers={"Set-Cookie": "session=1; Path=/"}))
    model = adapter.model(server.url)
    for _ in range(2):
        model.chat_stream(HI).collect()
    assert [request.header("cookie") for request in server.requests] == [None, None]


@adapters
def test_redirects_are_not_followed(server: ProviderServer, adapter: Adapter) -> None:
    server.always(Reply(status=307, headers={"Location": f"{server.url}/elsewhere"}))
    assert type(failure_of(lambda: adapter.model(server.url).chat_stream(HI))) is ConfigurationError
    assert [request.path for request in server.requests] == [adapter.path]


# Connections


@adapters
def test_the_models_of_a_client_share_its_connection(server: ProviderServer, adapter: Adapter) -> None:
    server.always(adapter.turn)
    client = adapter.client(server.url)
    for model_id in ("one", "two"):
        client.completion_model(model_id).chat_stream(HI).collect()
    for model_id, request in zip(("one", "two"), server.requests, strict=True):
        assert model_id in words_of(request)
    assert server.connections == 1


@adapters
def test_a_closed_client_can_be_used_again(server: ProviderServer, adapter: Adapter) -> None:
    server.always(adapter.turn)
    client = adapter.client(server.url)
    model = client.completion_model("m")
    for close in (client.close, model.close, model.close):
        model.chat_stream(HI).collect()
        close()
    assert server.connections == 3


@adapters
def test_an_unpickled_model_sends_the_same_request(server: ProviderServer, adapter: Adapter) -> None:
    server.always(adapter.turn)
    model = adapter.model(server.url, headers={"X-Tenant": "seven"})
    for one in (model, pickle.loads(pickle.dumps(model))):
        one.chat_stream(HI).collect()
    first, second = server.requests
    assert (first.path, first.headers, first.body) == (second.path, second.headers, second.body)
    assert server.connections == 2


@adapters
def test_an_unpickled_client_reads_the_key_of_its_new_environment(
    server: ProviderServer, monkeypatch: pytest.MonkeyPatch, adapter: Adapter
) -> None:
    monkeypatch.setenv(adapter.client_class.key_variable, KEY)
    pickled = pickle.dumps(adapter.client(server.url, api_key=None))
    assert KEY.encode() not in pickled
    monkeypatch.setenv(adapter.client_class.key_variable, "another")
    server.reply(adapter.turn)
    pickle.loads(pickled).completion_model("m").chat_stream(HI).collect()
    name, prefix = adapter.key_header
    assert server.requests[0].header(name) == f"{prefix}another"


# Errors


def refused(message: str, **facts: Any) -> dict[str, Any]:
    """An error body in the common shape of OpenAI, Azure and Anthropic."""
    return {"type": "error", "error": {"message": message, **facts}}


REFUSALS = [
    (400, refused("Bad", type="invalid_request_error"), InvalidRequestError),
    (400, refused("prompt is too long: 9 > 8", type="invalid_request_error"), ContextOverflowError),
    (400, refused("Too long", code="context_length_exceeded"), ContextOverflowError),
    (400, refused("Your credit balance is too low", type="invalid_request_error"), QuotaExceededError),
    (400, refused("No such model", code="model_not_found"), NotFoundError),
    (401, refused("Who?", type="authentication_error"), AuthenticationError),
    (403, refused("No", type="permission_error"), PermissionDeniedError),
    (404, refused("No", code="DeploymentNotFound"), NotFoundError),
    (413, refused("Big", type="request_too_large"), RequestTooLargeError),
    (429, refused("Slow", type="rate_limit_error"), RateLimitError),
    (429, refused("Pay", code="insufficient_quota"), QuotaExceededError),
    (500, refused("Oops", type="api_error"), ServerError),
    (503, refused("Busy"), OverloadedError),
    (529, refused("Busy", type="overloaded_error"), OverloadedError),
]


@adapters
@pytest.mark.parametrize(
    ("status", "body", "kind"), REFUSALS, ids=[f"{status} {kind.__name__}" for status, _, kind in REFUSALS]
)
def test_error_responses_are_classified_alike(
    server: ProviderServer, adapter: Adapter, status: int, body: dict[str, Any], kind: type[ProviderError]
) -> None:
    headers = {adapter.request_id_header: "req-7", "Retry-After": "2.5"}
    server.reply(Reply.json(body, status=status, headers=headers))
    error = failure_of(lambda: adapter.model(server.url).chat_stream(HI))
    assert type(error) is kind
    facts = (error.provider, error.model, error.status, error.request_id, error.retry_after)
    assert facts == (adapter.family, "m", status, "req-7", 2.5)
    assert str(error).startswith(f"{adapter.family}: {body['error']['message']}")
    assert str(error).endswith("[request req-7]")


@adapters
@pytest.mark.parametrize("said", [True, False])
def test_the_servers_retry_headers_decide(server: ProviderServer, adapter: Adapter, said: bool) -> None:
    headers = {"x-should-retry": str(said).lower(), "retry-after-ms": "1500", "Retry-After": "9"}
    server.reply(Reply.json(refused("No"), status=400 if said else 500, headers=headers))
    error = failure_of(lambda: adapter.model(server.url).chat_stream(HI))
    assert error.retry_classification() == (Transient(1.5) if said else Permanent())


OVERFLOW: Final = refused("prompt is too long", type="invalid_request_error")


@adapters
def test_an_error_instead_of_a_stream_is_raised_by_the_call(server: ProviderServer, adapter: Adapter) -> None:
    server.reply(Reply.json(OVERFLOW, headers={adapter.request_id_header: "req-7"}))

    def send() -> Any:
        stream = adapter.model(server.url).chat_stream(HI)
        # An object may be the first line of a stream of lines: there the first chunk raises the error.
        return stream.collect() if adapter.event is line else stream

    error = failure_of(send)
    assert (type(error), error.provider, error.status) == (ContextOverflowError, adapter.family, None)
    assert error.request_id == "req-7"


@adapters
@pytest.mark.parametrize("begins", [False, True], ids=["at once", "after a chunk"])
def test_an_error_inside_a_stream_is_raised_by_the_next_chunk(
    server: ProviderServer, adapter: Adapter, begins: bool
) -> None:
    headers = {adapter.request_id_header: "req-7"}
    server.reply(Reply(adapter.begun if begins else b"", adapter.event(OVERFLOW, "error"), headers=headers))
    stream = adapter.model(server.url).chat_stream(HI)
    error = failure_of(lambda: stream.collect())
    assert (type(error), error.provider, error.status) == (ContextOverflowError, adapter.family, None)
    assert error.request_id == "req-7"


@adapters
def test_the_request_id_is_read_from_the_body_if_no_header_has_one(server: ProviderServer, adapter: Adapter) -> None:
    server.reply(Reply.json({**refused("No"), "request_id": "of the body"}, status=500))
    assert failure_of(lambda: adapter.model(server.url).chat_stream(HI)).request_id == "of the body"
