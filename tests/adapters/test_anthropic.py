"""AnthropicModel against real servers: a scripted one, and the embedded llama.cpp, which supports this wire."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal

import pytest

import completion
from completion import (
    AnthropicClient,
    AnthropicModel,
    AuthenticationError,
    ChatRequest,
    CompletionError,
    ConfigurationError,
    ContextOverflowError,
    FinishReason,
    InvalidRequestError,
    LocalModel,
    MalformedStreamError,
    Message,
    NotFoundError,
    OverloadedError,
    Permanent,
    PermissionDeniedError,
    ProviderBlockFinished,
    ProviderError,
    QuotaExceededError,
    RateLimitError,
    ReasoningDelta,
    ReasoningFinished,
    RequestTooLargeError,
    ServerError,
    StreamChunk,
    TextBlock,
    TextDelta,
    ToolCallArgsDelta,
    ToolCallFinished,
    ToolCallStarted,
    Transient,
    TransportError,
    TruncatedStreamError,
    TurnFinished,
    UnsupportedContentError,
    Usage,
    collect,
)
from completion.testing import Cut, ProviderServer, Reply, WaitFor, event
from tests.wire_pieces import (
    MESSAGE_STOP,
    PING,
    anthropic_stream,
    block_delta,
    call_block,
    cuts_of,
    error_event,
    message_delta,
    order_faults,
    read_to_the_end,
    text_block,
    thinking_block,
)

KEY = "sk-ant-api03-secret"
HI = ChatRequest("hi")


@pytest.fixture(scope="module")
def shared() -> Iterator[ProviderServer]:
    with ProviderServer() as server:
        yield server


@pytest.fixture(scope="module")
def model(shared: ProviderServer) -> AnthropicModel:
    return AnthropicModel("m-1", api_key=KEY, base_url=shared.url)


def message_end(reason: str, **usage: int) -> dict[str, Any]:
    return message_delta(reason, usage={"output_tokens": 2, **usage})


GIVEN = {"input_tokens": 9, "cache_read_input_tokens": 0, "output_tokens": 1}
START = {
    "type": "message_start",
    "message": {"id": "msg_1", "model": "m-1", "content": [], "stop_reason": None, "usage": GIVEN},
}
SAID = text_block(0, "grün ", "日本 🎉")
TEXT = anthropic_stream(START, PING, *SAID, message_end("end_turn"), MESSAGE_STOP)
USAGE = Usage(9, 2)


def end(reason: FinishReason, word: str | None, usage: Usage = USAGE) -> TurnFinished:
    return TurnFinished(reason, usage, None, word, None, "msg_1", "m-1")


DELTAS: list[StreamChunk] = [TextDelta("grün "), TextDelta("日本 🎉")]
TEXT_CHUNKS = [*DELTAS, end(FinishReason.END_TURN, "end_turn")]
SEARCH = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "ü"}}
TOOLS = anthropic_stream(
    START,
    *thinking_block(0, "hm", signature="EqQB"),
    *call_block(1, '{"query": "', 'ü"}', id="srvtoolu_1", name="web_search", kind="server_tool_use"),
    *call_block(2, '{"a"', ": 1}", id="toolu_1"),
    *call_block(3, id="toolu_2", name="g"),
    message_end("tool_use"),
    MESSAGE_STOP,
)
TOOLS_CHUNKS = [
    ReasoningDelta("hm"),
    ReasoningFinished("EqQB", "anthropic"),
    ProviderBlockFinished("anthropic", SEARCH),
    ToolCallStarted("toolu_1", "f"),
    ToolCallArgsDelta("toolu_1", '{"a"'),
    ToolCallArgsDelta("toolu_1", ": 1}"),
    ToolCallFinished("toolu_1", "f", {"a": 1}),
    ToolCallStarted("toolu_2", "g"),
    ToolCallFinished("toolu_2", "g", {}),
    end(FinishReason.TOOL_USE, "tool_use"),
]
OVERLOADED = anthropic_stream(error_event("overloaded_error", "Overloaded"))

CASES: dict[str, tuple[bytes, list[StreamChunk], type[CompletionError] | None]] = {
    "text": (TEXT, TEXT_CHUNKS, None),
    "text with CRLF": (TEXT.replace(b"\n", b"\r\n"), TEXT_CHUNKS, None),
    "text with CR": (TEXT.replace(b"\n", b"\r"), TEXT_CHUNKS, None),
    "text without names of events": (TEXT.replace(b"event: ", b": "), TEXT_CHUNKS, None),
    "text with retries and ids": (TEXT.replace(b"event: ", b"retry: 3000\nid: 7\nevent: "), TEXT_CHUNKS, None),
    "tools": (TOOLS, TOOLS_CHUNKS, None),
    "no message_stop": (TEXT.removesuffix(anthropic_stream(MESSAGE_STOP)), TEXT_CHUNKS, None),
    "no stop_reason": (
        anthropic_stream(START, *SAID, MESSAGE_STOP),
        [*DELTAS, end(FinishReason.OTHER, None, Usage(9, 1))],
        None,
    ),
    "DONE after the end": (TEXT + event("[DONE]"), TEXT_CHUNKS, None),
    "no blank line at the end": (TEXT[:-2], TEXT_CHUNKS, None),
    "a pause": (anthropic_stream(START, *SAID, message_end("pause_turn"), MESSAGE_STOP),
                [*DELTAS, end(FinishReason.PAUSE, "pause_turn")], None),
    "DONE in place of the end": (anthropic_stream(START, *SAID) + event("[DONE]"), DELTAS, TruncatedStreamError),
    "neither": (anthropic_stream(START, *SAID), DELTAS, TruncatedStreamError),
    "nothing": (b"", [], TruncatedStreamError),
    "bad JSON": (anthropic_stream(START, *SAID) + b"event: ping\ndata: {\n\n" + TEXT, DELTAS, MalformedStreamError),
    "HTML": (b"<html>\n\n</html>", [], MalformedStreamError),
    "overloaded at once": (OVERLOADED, [], OverloadedError),
    "overloaded after text": (anthropic_stream(START, *SAID) + OVERLOADED, DELTAS, OverloadedError),
    "overloaded after the end": (TEXT + OVERLOADED, DELTAS, OverloadedError),
    "a JSON error": (b'{"type":"error","error":{"type":"api_error","message":"x"}}', [], ServerError),
    "two messages": (TEXT + TEXT.replace(b"msg_1", b"msg_2"), DELTAS, MalformedStreamError),
}  # fmt: skip


def read(model: AnthropicModel) -> tuple[list[StreamChunk], CompletionError | None]:
    """The chunks of a stream, and the error that ended it."""
    return read_to_the_end(model.chat_stream, HI)


@pytest.mark.parametrize("framing", ["chunked", "length", "close"])
@pytest.mark.parametrize("split", ["whole", 7, 1], ids=["whole", "sevens", "byte by byte"])
@pytest.mark.parametrize("case", CASES)
def test_an_answer_is_the_same_however_it_arrives(
    shared: ProviderServer,
    model: AnthropicModel,
    case: str,
    split: Literal["whole"] | int,
    framing: Literal["chunked", "length", "close"],
) -> None:
    sent, expected, kind = CASES[case]
    shared.reply(Reply(sent, split=split, framing=framing))
    found, error = read(model)
    assert found == expected
    assert type(error) is (kind or type(None))
    if error is not None:
        assert (error.provider, error.model) == ("anthropic", "m-1")


@pytest.mark.parametrize(
    ("case", "framing", "kind"),
    [
        ("text", "chunked", TransportError),
        ("text", "length", TransportError),
        ("text", "close", TruncatedStreamError),
        ("no stop_reason", "chunked", TransportError),
        ("tools", "close", TruncatedStreamError),
    ],
)
def test_an_answer_that_is_cut_at_any_byte_is_complete_or_an_error(
    shared: ProviderServer,
    model: AnthropicModel,
    case: str,
    framing: Literal["chunked", "length", "close"],
    kind: type[CompletionError],
) -> None:
    sent, expected, _ = CASES[case]
    whole = collect(expected)
    offsets = cuts_of(sent)
    outcomes = []
    for offset in offsets:
        shared.reply(Reply(sent[:offset], Cut(), framing=framing))
        found, error = read(model)
        assert list(order_faults(found, ended=error is None)) == []
        if error is None:
            assert collect(found) == whole, offset
        else:
            assert type(error) is kind, offset
            assert found == expected[: len(found)], offset
        outcomes.append(error is None)
    # A cut before the last byte of the end of turn is an error. After this byte the turn is complete.
    first = next((offset for offset, is_whole in zip(offsets, outcomes, strict=True) if is_whole), len(sent))
    assert outcomes == [offset >= first for offset in offsets]
    assert first > sent.rindex(b"message_delta" if b"message_delta" in sent else b"message_stop")


def test_a_chunk_is_yielded_before_the_next_event_is_sent(shared: ProviderServer, model: AnthropicModel) -> None:
    seen = threading.Event()
    first, rest = (
        anthropic_stream(START, block_delta(0, "text_delta", text="a")),
        anthropic_stream(message_end("end_turn"), MESSAGE_STOP),
    )
    shared.reply(Reply(first, WaitFor(seen), rest))
    with model.chat_stream(HI) as stream:
        assert next(stream) == TextDelta("a")
        seen.set()
        assert next(stream) == end(FinishReason.END_TURN, "end_turn")


def test_closing_early_hangs_up(shared: ProviderServer, model: AnthropicModel) -> None:
    count = len(shared.hangups) + 1
    shared.reply(Reply(anthropic_stream(START, *SAID[:2]), WaitFor(threading.Event())))
    with model.chat_stream(HI) as stream:
        assert next(stream) == DELTAS[0]
    assert shared.wait_hung_up(count=count)


# Requests


def test_the_lowered_request_is_posted(server: ProviderServer) -> None:
    server.reply(Reply(TEXT, headers={"request-id": "req_1", "x-request-id": "other"}))
    model = AnthropicModel("m-1", api_key=KEY, base_url=server.url)
    with model.chat_stream(ChatRequest("hi", max_tokens=5, top_k=3, seed=7)) as stream:
        assert (stream.response.request_id, stream.response.dropped) == ("req_1", ("seed",))
        stream.collect()
    request = server.requests[0]
    assert (request.method, request.path) == ("POST", "/v1/messages")
    assert request.json() == {
        "model": "m-1",
        "max_tokens": 5,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}],
        "stream": True,
        "top_k": 3,
    }
    sent = {name: request.header(name) for name in ("x-api-key", "anthropic-version", "anthropic-beta")}
    assert sent == {"x-api-key": KEY, "anthropic-version": "2023-06-01", "anthropic-beta": None}
    assert request.header("authorization") is None
    assert request.header("content-type") == "application/json"


def test_version_betas_and_headers_are_sent(server: ProviderServer) -> None:
    server.reply(Reply(TEXT), Reply(TEXT))
    betas = ["files-api-2025-04-14", "interleaved-thinking-2025-05-14"]
    client = AnthropicClient(
        api_key=KEY, base_url=server.url, version="2026-10-21", betas=betas, headers={"X-Trace": "t"}
    )
    client.completion_model("m-1").chat_stream(HI).collect()
    thinking = {"thinking": {"type": "enabled", "budget_tokens": 5000}}
    client.completion_model("m-1").chat_stream(ChatRequest("hi", additional_params=thinking)).collect()
    for request in server.requests:
        assert request.header("anthropic-version") == "2026-10-21"
        assert request.header("anthropic-beta") == "files-api-2025-04-14,interleaved-thinking-2025-05-14"
        assert request.header("x-trace") == "t"


def test_the_newer_version_refuses_sampling_before_anything_is_sent(server: ProviderServer) -> None:
    model = AnthropicModel("m-1", api_key=KEY, base_url=server.url, version="2026-10-21")
    with pytest.raises(UnsupportedContentError, match="anthropic: temperature"):
        model.chat_stream(ChatRequest("hi", temperature=1.0))
    assert server.requests == []


def test_betas_as_a_string_are_a_type_error() -> None:
    with pytest.raises(TypeError, match=r"write \['files-api-2025-04-14'\]"):
        AnthropicModel("m", api_key=KEY, betas="files-api-2025-04-14")


@pytest.mark.parametrize(
    ("suffix", "path"),
    [
        ("", "/v1/messages"),
        ("/", "/v1/messages"),
        ("/v1", "/v1/messages"),
        ("/v1/", "/v1/messages"),
        ("/anthropic", "/anthropic/v1/messages"),
        ("/anthropic/v1/", "/anthropic/v1/messages"),
    ],
)
def test_the_base_url_may_end_with_v1(server: ProviderServer, suffix: str, path: str) -> None:
    server.reply(Reply(TEXT))
    AnthropicModel("m", api_key=KEY, base_url=server.url + suffix).chat_stream(HI).collect()
    assert server.requests[0].path == path


def test_key_and_base_url_come_from_the_environment(server: ProviderServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url + "/v1")
    server.reply(Reply(TEXT), Reply(TEXT))
    assert collect(completion.model("anthropic:m-1").chat_stream(HI)).text == "grün 日本 🎉"
    AnthropicModel("m-1", api_key="given-key").chat_stream(HI).collect()
    assert [request.header("x-api-key") for request in server.requests] == [KEY, "given-key"]


def test_without_environment_variables_the_url_is_anthropics_and_the_key_is_missing() -> None:
    model = AnthropicModel("claude-opus-5")
    assert (model.name, model.model, model.base_url) == ("anthropic", "claude-opus-5", "https://api.anthropic.com")
    with pytest.raises(ConfigurationError, match="ANTHROPIC_API_KEY"):
        model.chat_stream(HI)


def test_a_key_function_is_called_for_each_request(server: ProviderServer) -> None:
    keys = iter(["first", "second"])
    server.reply(Reply(TEXT), Reply(TEXT))
    model = AnthropicModel("m", api_key=lambda: next(keys), base_url=server.url)
    for _ in range(2):
        model.chat_stream(HI).collect()
    assert [request.header("x-api-key") for request in server.requests] == ["first", "second"]


def test_a_turn_is_sent_back_as_history(server: ProviderServer) -> None:
    server.reply(Reply(TOOLS), Reply(TEXT))
    model = AnthropicModel("m-1", api_key=KEY, base_url=server.url)
    first = model.chat_stream(HI).collect()
    results = [Message.tool_result("toolu_1", "17"), Message.tool_result("toolu_2", "", is_error=True)]
    model.chat_stream(ChatRequest([Message.user("hi"), first.message, *results])).collect()
    assert server.requests[1].json()["messages"] == [
        {"role": "user", "content": [{"type": "text", "text": "hi"}]},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": "EqQB"},
                SEARCH,
                {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"a": 1}},
                {"type": "tool_use", "id": "toolu_2", "name": "g", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "toolu_1", "content": [{"type": "text", "text": "17"}]},
                {
                    "type": "tool_result",
                    "tool_use_id": "toolu_2",
                    "content": [{"type": "text", "text": "Error"}],
                    "is_error": True,
                },
            ],
        },
    ]


# Error responses


@pytest.mark.parametrize(
    ("status", "body", "kind", "code", "retry"),
    [
        (400, error_event("invalid_request_error"), InvalidRequestError, "invalid_request_error", Permanent()),
        (
            400,
            error_event("invalid_request_error", "prompt is too long: 200082 tokens > 200000 maximum"),
            ContextOverflowError,
            "invalid_request_error",
            Permanent(),
        ),
        (401, error_event("authentication_error", "invalid x-api-key"), AuthenticationError, "authentication_error",
         Permanent()),
        (402, error_event("billing_error"), QuotaExceededError, "billing_error", Permanent()),
        (403, error_event("permission_error"), PermissionDeniedError, "permission_error", Permanent()),
        (404, error_event("not_found_error", "model: m-1"), NotFoundError, "not_found_error", Permanent()),
        (413, error_event("request_too_large"), RequestTooLargeError, "request_too_large", Permanent()),
        (429, error_event("rate_limit_error"), RateLimitError, "rate_limit_error", Transient(1.5)),
        (500, error_event("api_error"), ServerError, "api_error", Transient(1.5)),
        (504, error_event("timeout_error"), ServerError, "timeout_error", Transient(1.5)),
        (529, error_event("overloaded_error"), OverloadedError, "overloaded_error", Transient(1.5)),
        (503, "<html>busy</html>", OverloadedError, None, Transient(1.5)),
    ],
    ids=[
        "request", "overflow", "key", "billing", "permission", "model", "too large", "rate limit", "server", "timeout",
        "overloaded", "a proxy's page",
    ],
)  # fmt: skip
def test_an_error_response_is_raised_by_the_call(
    server: ProviderServer,
    status: int,
    body: dict[str, Any] | str,
    kind: type[ProviderError],
    code: str | None,
    retry: Permanent | Transient,
) -> None:
    headers = {"request-id": "req_1", "retry-after": "1.5"}
    server.reply(
        Reply.text(body, "text/html", status, headers) if isinstance(body, str) else Reply.json(body, status, headers)
    )
    model = AnthropicModel("m-1", api_key=KEY, base_url=server.url)
    with pytest.raises(ProviderError) as caught:
        model.chat_stream(HI)
    error = caught.value
    assert type(error) is kind
    assert (error.provider, error.model, error.status, error.code) == ("anthropic", "m-1", status, code)
    assert error.request_id == "req_1"
    assert error.retry_classification() == retry


def test_the_request_id_in_an_error_event_wins_over_the_header(server: ProviderServer) -> None:
    server.reply(Reply(OVERLOADED), Reply(OVERLOADED, headers={"request-id": "req_1"}))
    model = AnthropicModel("m-1", api_key=KEY, base_url=server.url)
    for _ in range(2):
        error = read(model)[1]
        assert isinstance(error, OverloadedError)
        assert (error.request_id, error.status, error.code) == ("req_body", None, "overloaded_error")
        assert error.retry_classification() == Transient()


# Clients and models


def test_a_pickled_model_keeps_its_options(server: ProviderServer) -> None:
    server.reply(Reply(TEXT))
    model = AnthropicModel("m-1", api_key=KEY, base_url=server.url, version="2026-10-21", betas=["b"])
    copied = pickle.loads(pickle.dumps(model))
    assert copied.chat_stream(HI).collect().text == "grün 日本 🎉"
    request = server.requests[0]
    sent = [request.header(name) for name in ("x-api-key", "anthropic-version", "anthropic-beta")]
    assert sent == [KEY, "2026-10-21", "b"]
    with pytest.raises(UnsupportedContentError):
        copied.chat_stream(ChatRequest("hi", top_k=1))


# The embedded llama.cpp supports this wire too

BRIEF = ChatRequest("Say hello.", max_tokens=6, temperature=0.0)


@pytest.fixture
def local() -> AnthropicModel:
    pytest.importorskip("xllamacpp")
    served = LocalModel()
    return AnthropicModel("any", base_url=served.base_url, api_key=served.api_key)


def test_a_real_server_answers_token_by_token_and_stops_at_max_tokens(local: AnthropicModel) -> None:
    found = list(local.chat_stream(BRIEF))
    deltas = [chunk.delta for chunk in found if isinstance(chunk, TextDelta)]
    assert len(deltas) > 1
    assert "".join(deltas) == LocalModel().chat_stream(BRIEF).collect().text
    last = found[-1]
    assert isinstance(last, TurnFinished)
    assert (last.reason, last.provider_reason) == (FinishReason.MAX_TOKENS, "max_tokens")
    assert last.usage is not None
    assert (last.usage.input_tokens > 6, last.usage.output_tokens) == (True, 6)
    assert last.response_id
    assert last.response_model


def test_a_real_server_stops_at_a_stop_sequence(local: AnthropicModel) -> None:
    found = local.chat_stream(replace(BRIEF, stop_sequences=("e",))).collect()
    assert "e" not in found.text
    assert (found.reason, found.stop_sequence) == (FinishReason.STOP_SEQUENCE, "e")


def test_a_real_conversation_goes_on(local: AnthropicModel) -> None:
    first = local.chat_stream(BRIEF).collect()
    history = [*BRIEF.messages, first.message, Message.user([TextBlock("Again."), TextBlock("Please.")])]
    second = local.chat_stream(ChatRequest(history, max_tokens=6, system_prompt="Be brief.")).collect()
    assert second.text
    assert first.usage is not None
    assert second.usage is not None
    assert second.usage.input_tokens > first.usage.input_tokens


def test_a_real_server_refuses_another_key(local: AnthropicModel) -> None:
    with pytest.raises(AuthenticationError) as caught:
        AnthropicModel("any", base_url=local.base_url, api_key="guessed").chat_stream(BRIEF)
    assert (caught.value.status, caught.value.provider) == (401, "anthropic")


def test_a_real_prompt_over_the_context_is_an_overflow(local: AnthropicModel) -> None:
    with pytest.raises(ContextOverflowError):
        local.chat_stream(ChatRequest("word " * 9000, max_tokens=1))


def test_after_a_break_a_real_server_is_free_for_the_next_request(local: AnthropicModel) -> None:
    for _ in range(5):  # one more than it has slots
        for chunk in local.chat_stream(ChatRequest("Count to a thousand.", max_tokens=2000)):
            assert isinstance(chunk, TextDelta)
            break
    assert local.chat_stream(BRIEF).collect().text


def test_version_and_betas_may_be_given_as_headers(server: ProviderServer) -> None:
    headers = {"Anthropic-Version": "2026-10-21", "ANTHROPIC-BETA": "b, c"}
    model = AnthropicModel("m", base_url=server.url, api_key="k", betas=["a"], headers=headers)
    with pytest.raises(UnsupportedContentError, match="2026-10-21"):
        model.chat_stream(ChatRequest("Hi", temperature=1.0))
    server.reply(Reply.json({}, status=400))
    with pytest.raises(InvalidRequestError):
        model.chat_stream(ChatRequest("Hi"))
    request = server.requests[0]
    assert (request.header("anthropic-version"), request.header("anthropic-beta")) == ("2026-10-21", "a,b,c")


@pytest.mark.parametrize("version", [None, "", 5])
def test_an_invalid_version_is_refused(version: Any) -> None:
    with pytest.raises(TypeError, match="version"):
        AnthropicModel("m", api_key="k", version=version)


def test_an_error_before_anything_is_sent_names_provider_and_model() -> None:
    with pytest.raises(UnsupportedContentError) as caught:
        AnthropicModel("m-1", api_key="k").chat_stream(ChatRequest("Hi", response_format="json"))
    assert (caught.value.provider, caught.value.model) == ("anthropic", "m-1")
