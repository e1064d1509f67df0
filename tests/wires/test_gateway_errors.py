"""Errors in the words of gateways and of web frameworks, and errors of one wire on another."""

from __future__ import annotations

import json
from typing import Any

import pytest

from completion import (
    AuthenticationError,
    ContentFilterError,
    ContextOverflowError,
    InvalidRequestError,
    ProviderError,
    QuotaExceededError,
    RateLimitError,
    RequestTooLargeError,
    ServerError,
    Transient,
    TruncatedStreamError,
)
from completion.wires import (
    Wire,
    anthropic,
    cohere,
    gemini,
    gemini_interactions,
    ollama,
    openai_chat,
    openai_responses,
)
from completion.wires.refusals import refusal
from tests.wire_pieces import events

INNER = {"error": {"message": 'This model\'s maximum context length is "8"\ntokens: é \\', "param": None, "code": "c"}}
SHOWN = 'This model\'s maximum context length is "8" tokens: é \\'


@pytest.mark.parametrize(
    "shown",
    [
        f"Error code: 400 - {INNER}",
        f"OpenAIException - {json.dumps(INNER)}",
        f"OpenAIException - {json.dumps(INNER).encode()!r}. Received Model Group=m\nFallbacks=None",
        f"OpenAIException - {json.dumps(INNER)!r}",
        f"Failed: {str(INNER)!r}",
        f"litellm.BadRequestError: Error code: 400 - {json.dumps({'error': {'message': str(INNER)}})}",
    ],
)
def test_the_innermost_message_is_found_as_python_shows_it(shown: str) -> None:
    error = refusal(400, {}, json.dumps({"error": {"message": shown, "type": None, "code": "400"}}))
    assert type(error) is ContextOverflowError
    assert error.message.partition("; shorten")[0] == SHOWN
    assert error.code == "c"


@pytest.mark.parametrize("text", ["{", "{'", "{'a" * 9000, "b'{\\x", "'{\n'", "{" * 9000, "Unexpected token { in JSON"])
def test_a_message_with_half_an_object_stays_as_it_is(text: str) -> None:
    error = refusal(400, {}, json.dumps({"error": {"message": text}}))
    assert error.message[:200] == " ".join(text.split())[:200]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"error": "Bad Request", "message": "the model is unknown", "statusCode": 400}, "the model is unknown"),
        ({"error": "Bad Request", "message": ["a must be b", "c is missing"]}, "a must be b; c is missing"),
        ({"error": "invalid_token", "error_description": "The token has expired"}, "The token has expired"),
        ({"type": "about:blank", "title": "Bad Request", "detail": "no such route"}, "no such route"),
        ({"title": "The route is closed", "status": 400}, "The route is closed"),
        ({"fault": {"faultstring": "No API key", "detail": {"errorcode": "oauth.x"}}}, "No API key"),
        ({"success": False, "error": [{"code": 2001, "message": "Configure the gateway"}]}, "Configure the gateway"),
        ({"errors": {"message": "no such account"}}, "no such account"),
        ({"error_code": 17, "error_msg": "the daily requests are used"}, "the daily requests are used"),
        ({"errorMessage": "the function failed", "errorType": "KeyError"}, "the function failed"),
        ({"data": {"error": {"message": "upstream failed"}}}, "upstream failed"),
        ({"error": {"error": {"error": {"message": "three gateways"}}}}, "three gateways"),
    ],
)
def test_the_message_is_found_in_the_errors_of_gateways_and_frameworks(body: Any, message: str) -> None:
    assert refusal(400, {}, json.dumps(body)).message == message


def test_the_blank_type_of_problem_details_is_not_a_code() -> None:
    assert refusal(400, {}, '{"type": "about:blank", "title": "Bad Request", "status": 400}').code is None


@pytest.mark.parametrize(
    ("status", "words", "kind"),
    [
        (400, "the input token count is 1200000 but model only supports up to 1048576.", ContextOverflowError),
        (400, "Max input tokens: 8192, request input token count: 9279", ContextOverflowError),
        (400, "expected maxLength: 50000, actual: 52611, please reformat your input", ContextOverflowError),
        (400, "This model supports at most 8192 tokens, but 9000 were given", ContextOverflowError),
        (400, "tokens in request more than max tokens allowed", ContextOverflowError),
        (400, "The prompt doesn't fit into the context of the model", ContextOverflowError),
        (413, "Token limit exceeded: 9000 > 8192", ContextOverflowError),
        (400, "Context limit reached", ContextOverflowError),
        (400, "You have reached your specified API usage limits. You regain access on 2027-01-01.", QuotaExceededError),
        (400, "ExceededBudget: User=u over budget. Spend=1, Budget=0.5", QuotaExceededError),
        (429, "No deployments available - crossed budget: d", QuotaExceededError),
        (412, "usage limits exceeded for this virtual key", QuotaExceededError),
        (429, "You have used up your daily free allocation of 10,000 neurons", QuotaExceededError),
        (429, "Free tier limit reached, please add a card", QuotaExceededError),
        (403, "Your newly created team doesn't have any credits yet.", QuotaExceededError),
        (429, "余额不足或无可用资源包,请充值。", QuotaExceededError),
        (400, "Incorrect API key provided: x. Get one from the console.", AuthenticationError),
        (400, "ContentPolicyViolationError: filtered by Azure OpenAI's content management policy.", ContentFilterError),
        (429, "Quota exceeded for aiplatform.googleapis.com/requests_per_base_model with m", RateLimitError),
        (429, "Quota exceeded for online_prediction_input_tokens_per_minute_per_model", RateLimitError),
        (400, "max_tokens is too large: 9. This model supports at most 8 completion tokens", InvalidRequestError),
        (400, "The thinking budget 30000 is invalid. Choose between 512 and 24576.", InvalidRequestError),
        (400, "`max_tokens` must be greater than `thinking.budget_tokens`", InvalidRequestError),
        (400, "Invalid 'messages[0].name': string too long: maximum length 64", InvalidRequestError),
        (
            400,
            "messages.0.content.1.image: image exceeds 5 MB maximum: 6 bytes > 5 bytes",
            InvalidRequestError,
        ),
    ],
)
def test_the_words_of_more_gateways_are_understood(status: int, words: str, kind: type[ProviderError]) -> None:
    assert type(refusal(status, {}, json.dumps({"error": {"message": words}}))) is kind


@pytest.mark.parametrize("code", ["Arrearage", "budget_exceeded"])
def test_an_account_without_money_is_recognized_by_its_code(code: str) -> None:
    assert type(refusal(400, {}, json.dumps({"error": {"code": code, "message": "no"}}))) is QuotaExceededError


@pytest.mark.parametrize("code", ["ThrottlingException", "rate_limit_error", "TooManyRequestsException"])
def test_a_400_with_the_code_of_a_rate_limit_may_be_retried(code: str) -> None:
    error = refusal(400, {"x-amzn-errortype": code}, '{"message": "Wait before trying again."}')
    assert type(error) is RateLimitError
    assert isinstance(error.retry_classification(), Transient)


def test_a_413_with_the_code_of_a_rate_limit_is_not_retried() -> None:
    # Groq: one request is over the tokens of a minute. It never gets through.
    body = '{"error": {"message": "Request too large: TPM", "type": "tokens", "code": "rate_limit_exceeded"}}'
    assert type(refusal(413, {}, body)) is RequestTooLargeError


@pytest.mark.parametrize(
    "wire",
    [
        anthropic.MESSAGES,
        cohere.COHERE_CHAT,
        gemini.GENERATE_CONTENT,
        gemini_interactions.INTERACTIONS,
        ollama.OLLAMA_CHAT,
        openai_chat.CHAT_COMPLETIONS,
        openai_responses.RESPONSES,
    ],
    ids=lambda wire: wire.name,
)
@pytest.mark.parametrize(
    ("event", "kind", "message"),
    [
        ({"object": "error", "message": "The engine died", "code": 500}, ServerError, "The engine died"),
        ({"success": False, "errors": [{"code": 3040, "message": "No room"}]}, ProviderError, "No room"),
        ({"type": "error", "code": "rate_limit_exceeded", "message": "slow"}, RateLimitError, "slow"),
        ({"error": {"message": "Please try again in 20s.", "code": "429"}}, RateLimitError, "Please try again in 20s."),
        ({"detail": "no such route"}, ProviderError, "no such route"),
        ({"message": "upstream failed"}, ProviderError, "upstream failed"),
    ],
)
def test_an_error_of_another_server_inside_a_200_is_read_on_every_wire(
    wire: Wire, event: Any, kind: type[ProviderError], message: str
) -> None:
    with pytest.raises(ProviderError) as caught:
        list(wire.assemble(events(event), lambda seconds: None))
    assert type(caught.value) is kind
    assert caught.value.message == message


def test_gemini_says_truncated_after_a_text_without_a_response_id() -> None:
    text = {"candidates": [{"content": {"parts": [{"text": "Hi"}]}}]}
    with pytest.raises(TruncatedStreamError):
        list(gemini.GENERATE_CONTENT.assemble(events(text, {"unknown": 1}), lambda seconds: None))
