"""BedrockModel and AnthropicBedrockModel against real servers."""

from __future__ import annotations

from typing import Any

import pytest

import completion
from completion import (
    AnthropicBedrockModel,
    BedrockClient,
    BedrockModel,
    ChatRequest,
    ConfigurationError,
    FinishReason,
    JsonSchema,
    MalformedStreamError,
    Message,
    RateLimitError,
    ReasoningBlock,
    Usage,
)
from completion.testing import ProviderServer, Reply, check_completion_model
from tests import aws
from tests.loopback import HI, KEY, failure_of
from tests.wire_pieces import MESSAGE_STOP, block_delta, block_start, block_stop, message_delta

TURN = [aws.STARTED, aws.delta(0, text="Grüße "), aws.delta(0, text="🙂"), aws.stop(0), aws.ended(), aws.USAGE]
STARTED = {"type": "message_start", "message": {"id": "msg_1", "model": "claude", "usage": {"input_tokens": 3}}}
CLAUDE_TURN = [
    aws.chunk(STARTED),
    aws.chunk(block_start(0, "text", text="")),
    aws.chunk(block_delta(0, "text_delta", text="Grüße 🙂")),
    aws.chunk(block_stop(0)),
    aws.chunk(message_delta("end_turn", usage={"output_tokens": 2})),
    aws.chunk({**MESSAGE_STOP, "amazon-bedrock-invocationMetrics": {"inputTokenCount": 3}}),
]


def exception(message: str) -> bytes:
    return aws.frame("validationException", {"message": message}, "exception")


def model_of(server: ProviderServer, **options: Any) -> BedrockModel:
    return BedrockModel("m", **{"base_url": server.url, "api_key": KEY, **options})


def test_the_adapter_keeps_the_contract() -> None:
    check_completion_model(
        lambda **options: BedrockModel("m", region="us-east-1", **options),
        answer=Reply(*TURN, content_type="application/vnd.amazon.eventstream"),
        error=exception,
    )


def test_the_adapter_of_claude_keeps_the_contract() -> None:
    check_completion_model(
        lambda **options: AnthropicBedrockModel("m", region="us-east-1", **options),
        answer=Reply(*CLAUDE_TURN, content_type="application/vnd.amazon.eventstream"),
        error=exception,
    )


@pytest.mark.parametrize(
    ("region", "url"),
    [
        ("us-east-1", "https://bedrock-runtime.us-east-1.amazonaws.com"),
        ("us-gov-west-1", "https://bedrock-runtime.us-gov-west-1.amazonaws.com"),
        ("cn-north-1", "https://bedrock-runtime.cn-north-1.amazonaws.com.cn"),
        ("us-iso-east-1", "https://bedrock-runtime.us-iso-east-1.c2s.ic.gov"),
        ("us-isob-east-1", "https://bedrock-runtime.us-isob-east-1.sc2s.sgov.gov"),
        ("us-isof-south-1", "https://bedrock-runtime.us-isof-south-1.csp.hci.ic.gov"),
        ("eu-isoe-west-1", "https://bedrock-runtime.eu-isoe-west-1.cloud.adc-e.uk"),
        ("eusc-de-east-1", "https://bedrock-runtime.eusc-de-east-1.amazonaws.eu"),
    ],
)
def test_each_region_has_its_address(region: str, url: str) -> None:
    assert BedrockClient(region=region).base_url == url


def test_the_region_may_be_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match=r"no region: give region= or set AWS_REGION"):
        BedrockModel("m")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    assert "eu-west-1" in BedrockModel("m").base_url
    monkeypatch.setenv("AWS_REGION", "eu-west-2")
    assert "eu-west-2" in BedrockModel("m").base_url
    assert "eu-west-3" in BedrockModel("m", region="eu-west-3").base_url
    monkeypatch.setenv("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", "https://proxy.test/bedrock")
    assert BedrockModel("m").base_url == "https://proxy.test/bedrock"


@pytest.mark.parametrize("region", ["us-east-1.evil.test/", "us east", "US-EAST-1", "us"])
def test_a_region_cannot_change_the_host(region: str) -> None:
    with pytest.raises(ConfigurationError, match="region must be like 'us-east-1'"):
        BedrockModel("m", region=region)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"aws_access_key_id": "AKIA"}, "an access key is incomplete"),
        ({"aws_secret_access_key": KEY}, "an access key is incomplete"),
        ({"aws_session_token": KEY}, "an access key is incomplete"),
        ({"aws_access_key_id": "AKIA", "aws_secret_access_key": KEY, "api_key": KEY}, "give one of them"),
        ({"profile": "p", "api_key": KEY}, "got api_key= and profile=: give one of them"),
        ({"aws_access_key_id": "AKIA", "aws_secret_access_key": f"{KEY}\n"}, "white space"),
        ({"aws_access_key_id": "AKIA", "aws_secret_access_key": 7}, "must be strings"),
    ],
)
def test_a_wrong_access_key_is_refused_without_showing_it(options: dict[str, Any], words: str) -> None:
    error = failure_of(lambda: BedrockModel("m", region="us-east-1", **options))
    assert words in str(error)
    assert KEY not in str(error)


@pytest.mark.parametrize(
    ("model", "path"),
    [
        ("us.anthropic.claude-v1:0", "/model/us.anthropic.claude-v1%3A0/converse-stream"),
        (
            "arn:aws:bedrock:us-east-1:1:inference-profile/a",
            "/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A1%3Ainference-profile%2Fa/converse-stream",
        ),
    ],
)
def test_the_model_is_a_part_of_the_path(server: ProviderServer, model: str, path: str) -> None:
    server.reply(Reply(*TURN))
    completion.model(f"bedrock:{model}", base_url=server.url, api_key=KEY).chat_stream(HI).collect()
    (request,) = server.requests
    assert (request.path, request.header("accept")) == (path, "application/vnd.amazon.eventstream")
    assert request.json()["messages"] == [{"role": "user", "content": [{"text": "Hi"}]}]


@pytest.mark.parametrize("split", [None, 7, 1])
def test_a_turn(server: ProviderServer, split: int | None) -> None:
    server.reply(Reply(*TURN, split=split, headers={**aws.CONTENT_TYPE, "x-amzn-requestid": "r-1"}))
    stream = model_of(server).chat_stream(HI)
    turn = stream.collect()
    assert (turn.text, turn.reason, turn.usage) == ("Grüße 🙂", FinishReason.END_TURN, Usage(3, 1))
    assert stream.response.request_id == "r-1"


def test_an_error_of_amazon_has_its_type_in_a_header(server: ProviderServer) -> None:
    headers = {"x-amzn-ErrorType": "ThrottlingException:http://internal.amazon.com/coral/"}
    server.reply(Reply.json({"message": "Too many tokens"}, status=429, headers=headers))
    error = failure_of(lambda: model_of(server).chat_stream(HI))
    assert (type(error), error.status, error.code) == (RateLimitError, 429, "ThrottlingException")


def test_a_damaged_frame_is_an_error_after_what_came_before_it(server: ProviderServer) -> None:
    damaged = TURN[2][:-1] + bytes([TURN[2][-1] ^ 1])
    server.reply(Reply(*TURN[:2], damaged, *TURN[3:]))
    stream = model_of(server).chat_stream(HI)
    assert next(stream) == completion.TextDelta("Grüße ")
    error = failure_of(lambda: next(stream))
    assert type(error) is MalformedStreamError
    assert "checksum" in str(error)


def test_a_schema_that_the_model_lacks_becomes_a_forced_call(server: ProviderServer) -> None:
    start = {"contentBlockIndex": 0, "start": {"toolUse": {"toolUseId": "c", "name": "answer"}}}
    call = [aws.frame("contentBlockStart", start), aws.delta(0, toolUse={"input": '{"a": 1}'}), aws.stop(0)]
    server.reply(Reply(*call, aws.ended("tool_use")))
    model = BedrockModel("amazon.nova-pro-v1:0", base_url=server.url, api_key=KEY)
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    assert completion.structured(model, "How many?", JsonSchema("answer", schema)).collect() == {"a": 1}
    assert "tool" in server.requests[0].json()["toolConfig"]["toolChoice"]


# Claude on Anthropic's own wire


def test_the_body_has_the_version_and_the_betas_and_no_model(server: ProviderServer) -> None:
    server.reply(Reply(*CLAUDE_TURN))
    model = AnthropicBedrockModel("claude:0", base_url=server.url, api_key=KEY, betas=["b-1"])
    assert model.chat_stream(HI).collect().text == "Grüße 🙂"
    (request,) = server.requests
    assert request.path == "/model/claude%3A0/invoke-with-response-stream"
    assert request.json() == {
        "anthropic_version": "bedrock-2023-05-31",
        "anthropic_beta": ["b-1"],
        "max_tokens": 4096,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}],
    }


def test_signatures_move_between_anthropic_and_its_wire_on_bedrock(server: ProviderServer) -> None:
    server.reply(Reply(*CLAUDE_TURN))
    history = [Message.user("q"), Message.assistant([ReasoningBlock("hm", "SIG", "anthropic"), "a"]), Message.user("r")]
    AnthropicBedrockModel("m", base_url=server.url, api_key=KEY).chat_stream(ChatRequest(history)).collect()
    sent = server.requests[0].json()["messages"][1]["content"][0]
    assert sent == {"type": "thinking", "thinking": "hm", "signature": "SIG"}


def test_the_base_model_tells_the_version_of_claude(server: ProviderServer) -> None:
    server.reply(Reply(*CLAUDE_TURN))
    model = AnthropicBedrockModel("arn", base_url=server.url, api_key=KEY, base_model="anthropic.claude-opus-4-6-v1")
    model.chat_stream(ChatRequest("Hi", reasoning_effort="high")).collect()
    assert server.requests[0].json()["thinking"] == {"type": "adaptive"}


def test_betas_as_a_string_are_a_type_error() -> None:
    with pytest.raises(TypeError, match="betas must be a list of strings"):
        AnthropicBedrockModel("m", region="us-east-1", betas="b-1")
