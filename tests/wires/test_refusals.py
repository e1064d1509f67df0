"""From status, headers and body to an error. The bodies have the shapes of the providers."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from completion import (
    AuthenticationError,
    CompletionError,
    ConfigurationError,
    ContentFilterError,
    ContextOverflowError,
    InvalidRequestError,
    MalformedStreamError,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    ProviderError,
    QuotaExceededError,
    RateLimitError,
    RequestTooLargeError,
    ServerError,
)
from completion.wires.refusals import in_band, not_a_stream, refusal
from completion.wires.waits import retry_after


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, InvalidRequestError),
        (401, AuthenticationError),
        (402, QuotaExceededError),
        (403, PermissionDeniedError),
        (404, NotFoundError),
        (405, InvalidRequestError),
        (408, ServerError),
        (409, InvalidRequestError),
        (413, RequestTooLargeError),
        (418, InvalidRequestError),
        (422, InvalidRequestError),
        (425, InvalidRequestError),
        (429, RateLimitError),
        (498, OverloadedError),
        (500, ServerError),
        (501, ServerError),
        (502, ServerError),
        (503, OverloadedError),
        (504, ServerError),
        (505, ServerError),
        (520, ServerError),
        (529, OverloadedError),
    ],
)
@pytest.mark.parametrize("body", ["", "<html>\n<h1>nginx</h1></html>", "{ bad json", "null", '{"error": {}}'])
def test_a_status_alone_decides_the_class(status: int, kind: type[ProviderError], body: str) -> None:
    error = refusal(status, {}, body)
    assert type(error) is kind
    assert (error.status, error.code, error.body) == (status, None, body)


@pytest.mark.parametrize(
    ("status", "body", "kind", "code", "message"),
    [
        # OpenAI: {"error": {"message", "type", "param", "code"}}
        (
            401,
            '{"error": {"message": "Incorrect API key provided", "type": "invalid_request_error", "param": null, '
            '"code": "invalid_api_key"}}',
            AuthenticationError,
            "invalid_api_key",
            "Incorrect API key provided",
        ),
        (
            429,
            '{"error": {"message": "Rate limit reached", "type": "tokens", "code": "rate_limit_exceeded"}}',
            RateLimitError,
            "rate_limit_exceeded",
            "Rate limit reached",
        ),
        (
            429,
            '{"error": {"message": "You exceeded your quota", "type": "insufficient_quota", '
            '"code": "insufficient_quota"}}',
            QuotaExceededError,
            "insufficient_quota",
            "You exceeded your quota",
        ),
        (
            400,
            '{"error": {"message": "Too long", "type": "invalid_request_error", "code": "context_length_exceeded"}}',
            ContextOverflowError,
            "context_length_exceeded",
            "Too long",
        ),
        (
            400,
            '{"error": {"message": "No such model", "type": "invalid_request_error", "code": "model_not_found"}}',
            NotFoundError,
            "model_not_found",
            "No such model",
        ),
        (
            400,
            '{"error": {"message": "Unknown parameter", "type": "invalid_request_error", "code": null}}',
            InvalidRequestError,
            "invalid_request_error",
            "Unknown parameter",
        ),
        (
            500,
            '{"error": {"message": "Oops", "type": "server_error", "code": "model_not_found"}}',
            ServerError,
            "model_not_found",
            "Oops",
        ),
        (
            503,
            '{"error": {"message": "Slow down", "type": "server_error", "code": "slow_down"}}',
            OverloadedError,
            "slow_down",
            "Slow down",
        ),
        (
            429,
            '{"error": {"message": "Over the rate limit for requests with a long context window"}}',
            RateLimitError,
            None,
            "Over the rate limit for requests with a long context window",
        ),
        # Anthropic: {"type": "error", "error": {"type", "message"}, "request_id"}
        (
            400,
            '{"type": "error", "error": {"type": "invalid_request_error", '
            '"message": "prompt is too long: 200001 tokens > 200000 maximum"}}',
            ContextOverflowError,
            "invalid_request_error",
            "prompt is too long: 200001 tokens > 200000 maximum",
        ),
        (
            404,
            '{"type": "error", "error": {"type": "not_found_error", "message": "model: x"}}',
            NotFoundError,
            "not_found_error",
            "model: x",
        ),
        (
            413,
            '{"type": "error", "error": {"type": "request_too_large", "message": "Request exceeds the size"}}',
            RequestTooLargeError,
            "request_too_large",
            "Request exceeds the size",
        ),
        (
            500,
            '{"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}',
            OverloadedError,
            "overloaded_error",
            "Overloaded",
        ),
        (
            529,
            '{"type": "error", "error": {"details": null, "type": "overloaded_error", "message": "Overloaded"}}',
            OverloadedError,
            "overloaded_error",
            "Overloaded",
        ),
        (
            403,
            '{"type": "error", "error": {"type": "permission_error", "message": "Not yours"}}',
            PermissionDeniedError,
            "permission_error",
            "Not yours",
        ),
        (
            400,
            '{"type": "error", "error": {"type": "invalid_request_error", "message": "input length and `max_tokens` '
            'exceed context limit: 195000 + 8192 > 200000, decrease input length or `max_tokens` and try again"}}',
            ContextOverflowError,
            "invalid_request_error",
            "input length and `max_tokens` exceed context limit: 195000 + 8192 > 200000",
        ),
        (
            400,
            '{"type": "error", "error": {"type": "invalid_request_error", "message": "Your credit balance is too low '
            'to access the Anthropic API. Please go to Plans & Billing to upgrade or purchase credits."}}',
            QuotaExceededError,
            "invalid_request_error",
            "Your credit balance is too low to access the Anthropic API",
        ),
        (
            400,
            '{"type": "error", "error": {"type": "billing_error", "message": "There is an issue with your billing"}}',
            QuotaExceededError,
            "billing_error",
            "There is an issue with your billing",
        ),
        (
            401,
            '{"type": "error", "error": {"type": "authentication_error", "message": "invalid x-api-key"}}',
            AuthenticationError,
            "authentication_error",
            "invalid x-api-key",
        ),
        (
            429,
            '{"type": "error", "error": {"type": "rate_limit_error", "message": "This request would exceed your '
            "organization's rate limit of 50,000 input tokens per minute\"}}",
            RateLimitError,
            "rate_limit_error",
            "This request would exceed your organization's rate limit",
        ),
        (
            500,
            '{"type": "error", "error": {"type": "api_error", "message": "Internal server error"}}',
            ServerError,
            "api_error",
            "Internal server error",
        ),
        (
            504,
            '{"type": "error", "error": {"type": "timeout_error", "message": "Request timed out"}}',
            ServerError,
            "timeout_error",
            "Request timed out",
        ),
        (
            529,
            'event: error\ndata: {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}\n\n',
            OverloadedError,
            "overloaded_error",
            "Overloaded",
        ),
        # Azure
        (
            404,
            '{"error": {"code": "DeploymentNotFound", "message": "The deployment does not exist"}}',
            NotFoundError,
            "DeploymentNotFound",
            "The deployment does not exist",
        ),
        (
            400,
            '{"error": {"message": "The prompt was filtered", "type": null, "param": "prompt", '
            '"code": "content_filter", "status": 400, "innererror": {"code": "ResponsibleAIPolicyViolation"}}}',
            ContentFilterError,
            "content_filter",
            "The prompt was filtered",
        ),
        (
            400,
            '{"error": {"message": "Filtered", "innererror": {"code": "ResponsibleAIPolicyViolation"}}}',
            ContentFilterError,
            "ResponsibleAIPolicyViolation",
            "Filtered",
        ),
        (429, '{"error": {"code": "429", "message": "Retry after 6 seconds"}}', RateLimitError, None, "Retry after 6"),
        (401, '{"statusCode": 401, "message": "Unauthorized"}', AuthenticationError, None, "Unauthorized"),
        (
            404,
            '{"error": {"code": "404", "message": "Resource not found"}}',
            NotFoundError,
            None,
            "Resource not found",
        ),
        (
            401,
            '{"error": {"code": "PermissionDenied", "message": "The principal lacks the required data action"}}',
            AuthenticationError,
            "PermissionDenied",
            "The principal lacks the required data action",
        ),
        (
            403,
            '{"statusCode": 403, "message": "Out of call volume quota. Quota will be replenished in 2.12:00:00."}',
            QuotaExceededError,
            None,
            "Out of call volume quota",
        ),
        # Gemini: {"error": {"code": number, "message", "status"}}, sometimes in a list of one
        (
            404,
            '{"error": {"code": 404, "message": "models/x is not found", "status": "NOT_FOUND"}}',
            NotFoundError,
            "NOT_FOUND",
            "models/x is not found",
        ),
        (
            429,
            '[{"error": {"code": 429, "message": "Exhausted", "status": "RESOURCE_EXHAUSTED"}}]',
            RateLimitError,
            "RESOURCE_EXHAUSTED",
            "Exhausted",
        ),
        (
            400,
            '[{"error": {"code": 400, "message": "API key not valid", "status": "INVALID_ARGUMENT", '
            '"details": [{"@type": "ErrorInfo", "reason": "API_KEY_INVALID"}]}}]',
            AuthenticationError,
            "INVALID_ARGUMENT",
            "API key not valid",
        ),
        (
            400,
            '{"error": {"code": 400, "status": "INVALID_ARGUMENT", "message": "The input token count (1048577) exceeds '
            'the maximum number of tokens allowed (1048576)."}}',
            ContextOverflowError,
            "INVALID_ARGUMENT",
            "The input token count (1048577) exceeds",
        ),
        (
            403,
            '{"error": {"code": 403, "message": "No access", "status": "PERMISSION_DENIED"}}',
            PermissionDeniedError,
            "PERMISSION_DENIED",
            "No access",
        ),
        # Bedrock: {"__type", "message"}, or the type in a header
        (
            400,
            '{"__type": "com.amazon.coral.validate#ValidationException", '
            '"message": "Input is too long for requested model."}',
            ContextOverflowError,
            "ValidationException",
            "Input is too long for requested model",
        ),
        (
            400,
            '{"__type": "ServiceQuotaExceededException", "message": "Your quota is used up"}',
            QuotaExceededError,
            "ServiceQuotaExceededException",
            "Your quota is used up",
        ),
        (
            429,
            '{"__type": "ModelNotReadyException", "message": "Not ready"}',
            OverloadedError,
            "ModelNotReadyException",
            "Not ready",
        ),
        (
            400,
            '{"message": "The provided model identifier is invalid."}',
            NotFoundError,
            None,
            "The provided model identifier is invalid",
        ),
        # LiteLLM, OpenRouter, DeepSeek, Mistral: an unknown model
        (
            400,
            '{"error": {"message": "Invalid model name passed in model=x", "type": "None", "code": "400"}}',
            NotFoundError,
            "None",
            "Invalid model name passed in model=x",
        ),
        (400, '{"error": {"message": "a/b is not a valid model ID", "code": 400}}', NotFoundError, None, "a/b is not"),
        (400, '{"error": {"message": "Model Not Exist"}}', NotFoundError, None, "Model Not Exist"),
        (
            400,
            '{"object": "error", "message": "Invalid model: x", "type": "invalid_model", "code": "1500"}',
            NotFoundError,
            "1500",
            "Invalid model: x",
        ),
        # llama.cpp, vLLM, OpenRouter and others
        (
            400,
            '{"error": {"code": 400, "message": "request exceeds the available context size", '
            '"type": "exceed_context_size_error", "n_ctx": 4096}}',
            ContextOverflowError,
            "exceed_context_size_error",
            "request exceeds the available context size",
        ),
        (
            400,
            '{"object": "error", "message": "This model\'s maximum context length is 8192", '
            '"type": "BadRequestError", "code": 400}',
            ContextOverflowError,
            "BadRequestError",
            "This model's maximum context length is 8192",
        ),
        (
            413,
            '{"error": {"message": "Request too large: limit 6000, requested 9000", "type": "tokens", '
            '"code": "rate_limit_exceeded"}}',
            RequestTooLargeError,
            "rate_limit_exceeded",
            "Request too large: limit 6000, requested 9000",
        ),
        (
            403,
            '{"error": {"code": 403, "message": "The model requires moderation and your input was flagged"}}',
            ContentFilterError,
            None,
            "The model requires moderation",
        ),
        (
            422,
            '{"error": "Input validation error: `inputs` must have less than 1024 tokens. Given: 4352", '
            '"error_type": "validation"}',
            ContextOverflowError,
            "validation",
            "Input validation error",
        ),
        (
            429,
            '{"error": {"code": "1113", "message": "Insufficient balance or no resource package."}}',
            QuotaExceededError,
            "1113",
            "Insufficient balance",
        ),
        (402, '{"error": {"message": "No credits", "code": 402}}', QuotaExceededError, None, "No credits"),
        (400, '{"error": {"message": "Bad", "code": 1113}}', InvalidRequestError, "1113", "Bad"),
        (
            429,
            '{"__type": "ThrottlingException", "message": "Too many requests"}',
            RateLimitError,
            "ThrottlingException",
            "Too many requests",
        ),
        (500, '{"error": "server error"}', ServerError, None, "server error"),
        (404, '{"detail": "Not Found"}', NotFoundError, None, "Not Found"),
        (
            422,
            '{"detail": [{"loc": ["body"], "msg": "field required"}]}',
            InvalidRequestError,
            None,
            "body: field required",
        ),
        (
            422,
            '{"object": "error", "type": "invalid_request_error", "message": {"detail": [{"type": "missing", '
            '"loc": ["body", "model"], "msg": "Field required", "input": {"messages": ["the prompt"]}}]}}',
            InvalidRequestError,
            "invalid_request_error",
            "body.model: Field required",
        ),
        (403, '{"error": null, "message": "no"}', PermissionDeniedError, None, "no"),
        (500, '{"error": {"message": {"a": 1}}}', ServerError, None, '{"error": {"message": {"a": 1}}}'),
        (502, "<html>\n  <h1>Bad  Gateway</h1>\n</html>", ServerError, None, "<html> <h1>Bad Gateway</h1> </html>"),
        (504, "", ServerError, None, "HTTP status 504"),
        (429, "null", RateLimitError, None, "null"),
    ],
)
def test_a_body_decides_the_class_the_code_and_the_message(
    status: int, body: str, kind: type[ProviderError], code: str | None, message: str
) -> None:
    error = refusal(status, {}, body)
    assert (type(error), error.status, error.code) == (kind, status, code)
    assert error.message.startswith(message)
    assert error.body == body


@pytest.mark.parametrize(
    ("status", "advice"),
    [
        (400, ""),
        (401, "; check the API key or token"),
        (402, "; check the plan and the billing of the account"),
        (403, "; check what this key may do, and whether it may use this model"),
        (404, "; check the model id or deployment name, and base_url"),
        (408, ""),
        (409, ""),
        (413, "; make the request smaller"),
        (425, ""),
        (429, ""),
        (500, ""),
        (501, ""),
        (503, ""),
        (505, ""),
    ],
)
def test_a_message_ends_with_advice(status: int, advice: str) -> None:
    assert refusal(status, {}, '{"error": {"message": "No."}}').message == (f"No{advice}" if advice else "No.")


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        ("context_length_exceeded", "; shorten the messages or lower max_tokens"),
        ("content_filter", "; change the prompt"),
    ],
)
def test_a_code_decides_the_advice(code: str, advice: str) -> None:
    error = refusal(400, {}, f'{{"error": {{"message": "No", "code": "{code}"}}}}')
    assert error.message == f"No{advice}"
    assert error.args == (error.message,)


@pytest.mark.parametrize(
    ("status", "headers", "advice"),
    [
        (429, {"retry-after": "7"}, "; try again in 7 s"),
        (429, {"retry-after": "7", "x-should-retry": "false"}, ""),
        (503, {"retry-after-ms": "1500"}, "; try again in 1.5 s"),
        (503, {}, ""),
        (400, {"retry-after": "7"}, ""),
        (400, {"retry-after": "7", "x-should-retry": "true"}, "; try again in 7 s"),
    ],
)
def test_a_retry_is_advised_if_it_may_help(status: int, headers: dict[str, str], advice: str) -> None:
    assert refusal(status, headers, '{"error": {"message": "No"}}').message == f"No{advice}"


@pytest.mark.parametrize("words", ["Please try again in 6s", "Please retry after 6 seconds"])
def test_advice_that_is_in_the_message_is_not_repeated(words: str) -> None:
    assert refusal(429, {"retry-after": "6"}, f'{{"error": {{"message": "{words}"}}}}').message == words


@pytest.mark.parametrize(
    ("word", "kind"),
    [
        ("ThrottlingException", RateLimitError),
        ("ThrottlingException:http://internal.amazon.com/coral/com.amazon.bedrock/", RateLimitError),
        ("com.amazon.coral.service#ThrottlingException", RateLimitError),
        ("ServiceQuotaExceededException", QuotaExceededError),
    ],
)
def test_amazons_error_code_is_read_from_a_header(word: str, kind: type[ProviderError]) -> None:
    error = refusal(429, {"x-amzn-errortype": word}, '{"message": "No"}')
    assert type(error) is kind
    assert error.code in ("ThrottlingException", "ServiceQuotaExceededException")


SPECIFIC_CODES = [
    ("context_window_exceeded", ContextOverflowError),
    ("ContextWindowExceededError", ContextOverflowError),
    ("model_context_window_exceeded", ContextOverflowError),
    ("exceed_context_size_error", ContextOverflowError),
    ("quota_exceeded", QuotaExceededError),
    ("billing_hard_limit_reached", QuotaExceededError),
    ("billing_not_active", QuotaExceededError),
    ("insufficient_credits", QuotaExceededError),
    ("exceeded_current_quota_error", QuotaExceededError),
    ("invalid_api_key", AuthenticationError),
    ("authentication_error", AuthenticationError),
    ("permission_error", PermissionDeniedError),
    ("PERMISSION_DENIED", PermissionDeniedError),
    ("AccessDeniedException", PermissionDeniedError),
    ("DeploymentNotFound", NotFoundError),
    ("not_found", NotFoundError),
    ("ResourceNotFoundException", NotFoundError),
    ("content_policy_violation", ContentFilterError),
    ("invalid_prompt", ContentFilterError),
    ("DataInspectionFailed", ContentFilterError),
    ("slow_down", OverloadedError),
    ("overloaded", OverloadedError),
    ("server_overloaded", OverloadedError),
    ("engine_overloaded", OverloadedError),
    ("engine_overloaded_error", OverloadedError),
    ("service_unavailable", OverloadedError),
    ("ServiceUnavailableException", OverloadedError),
    ("UNAVAILABLE", OverloadedError),
    ("NoCapacity", OverloadedError),
    ("service_tier_capacity_exceeded", OverloadedError),
    ("capacity_exceeded", OverloadedError),
]

CODES_WITHOUT_STATUS = [
    ("rate_limit_exceeded", RateLimitError),
    ("tokens", RateLimitError),
    ("requests", RateLimitError),
    ("limit_requests", RateLimitError),
    ("RESOURCE_EXHAUSTED", RateLimitError),
    ("ThrottlingException", RateLimitError),
    ("rate_limited", RateLimitError),
    ("too_many_requests", RateLimitError),
    ("RateLimitReached", RateLimitError),
    ("Throttling.RateQuota", RateLimitError),
    ("token_quota_exceeded", RateLimitError),
    ("too_many_tokens_error", RateLimitError),
    ("unauthorized", AuthenticationError),
    ("UNAUTHENTICATED", AuthenticationError),
    ("server_error", ServerError),
    ("INTERNAL", ServerError),
    ("internal_error", ServerError),
    ("internal_server_error", ServerError),
    ("InternalServerException", ServerError),
    ("DEADLINE_EXCEEDED", ServerError),
    ("ModelTimeoutException", ServerError),
    ("invalid_value", InvalidRequestError),
    ("unsupported_parameter", InvalidRequestError),
    ("unsupported_value", InvalidRequestError),
    ("unknown_parameter", InvalidRequestError),
    ("INVALID_ARGUMENT", InvalidRequestError),
    ("FAILED_PRECONDITION", InvalidRequestError),
    ("ValidationException", InvalidRequestError),
    ("bad_request", InvalidRequestError),
    ("tool_use_failed", InvalidRequestError),
]


@pytest.mark.parametrize(("code", "kind"), SPECIFIC_CODES)
def test_a_specific_code_overrides_the_status(code: str, kind: type[ProviderError]) -> None:
    body = {"error": {"code": code, "type": "invalid_request_error", "message": "No"}}
    assert type(refusal(400, {}, json.dumps(body))) is kind
    assert type(in_band(body)) is kind


@pytest.mark.parametrize(("code", "kind"), CODES_WITHOUT_STATUS)
def test_a_general_code_counts_only_without_a_status(code: str, kind: type[ProviderError]) -> None:
    body = {"error": {"code": code, "message": "No"}}
    assert type(in_band(body)) is kind
    assert type(refusal(418, {}, json.dumps(body))) is InvalidRequestError


@pytest.mark.parametrize(
    "words",
    [
        "The context length is 8192",
        "The context window is full",
        "The request exceeds the context size",
        "Over the maximum context",
        "Error: CONTEXT_LENGTH_EXCEEDED",
        "Input Tokens Exceeded: Number of input tokens exceeds maximum length",
        "This model's maximum prompt length is 131072 but the request contains 537812 tokens.",
        "Your request exceeded model token limit: 8192",
        "`inputs` tokens + `max_new_tokens` must be <= 8192",
    ],
)
def test_an_overflow_is_recognized_by_its_phrase(words: str) -> None:
    body = {"error": {"message": words}}
    assert type(refusal(400, {}, json.dumps(body))) is ContextOverflowError
    assert type(in_band(body)) is ContextOverflowError
    assert type(refusal(429, {}, json.dumps(body))) is RateLimitError


def test_a_request_id_is_read_from_the_header_or_else_from_the_body() -> None:
    body = '{"type": "error", "error": {"type": "api_error", "message": "x"}, "request_id": "of the body"}'
    assert refusal(500, {}, body).request_id == "of the body"
    assert refusal(500, {}, body, request_id="of the header").request_id == "of the header"


def test_the_message_for_a_long_page_is_its_beginning() -> None:
    assert refusal(502, {}, "<p>" * 1000).message == "<p>" * 100


def test_a_body_of_a_hundred_thousand_brackets_is_an_ordinary_error() -> None:
    assert type(refusal(400, {}, "[" * 100_000)) is InvalidRequestError


@given(st.integers(400, 599), st.text())
def test_any_body_is_an_error_with_its_status(status: int, body: str) -> None:
    assert refusal(status, {}, body).status == status


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({"location": "https://other.test/v1?key=secret"}, "a redirect to https://other.test/v1, which is not foll"),
        ({}, "a redirect, which is not followed: set base_url"),
    ],
)
def test_a_redirect_is_a_wrong_base_url(headers: dict[str, str], message: str) -> None:
    error = refusal(307, headers, "")
    assert type(error) is ConfigurationError
    assert message in str(error)
    assert "secret" not in str(error)


@pytest.mark.parametrize(
    ("value", "should_retry"),
    [("true", True), ("false", False), ("True", True), ("maybe", None), ("", None), (None, None)],
)
def test_x_should_retry_is_kept(value: str | None, should_retry: bool | None) -> None:
    headers = {} if value is None else {"x-should-retry": value}
    assert refusal(400, headers, "").should_retry is should_retry


# --- retry-after -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after": " 2 "}, 2.0),
        ({"retry-after-ms": "1500"}, 1.5),
        ({"retry-after-ms": "1500", "retry-after": "7"}, 1.5),
        ({"retry-after-ms": "soon", "retry-after": "7"}, 7.0),
        ({"retry-after-ms": "-1", "retry-after": "7"}, 7.0),
        ({"retry-after-ms": "nan"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "-7"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "1e400"}, None),
        ({"retry-after": "1e300"}, 1e300),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, None),
        ({"retry-after": "Fri, 31 Dec 100000 23:59:59 GMT"}, None),
        ({"retry-after": "Fri, 99 Foo 2015 07:28:00 GMT"}, None),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 +9999"}, None),
    ],
)
def test_retry_after_is_a_number_of_seconds_or_none(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers) == seconds


@pytest.fixture
def far_east(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A local time that is not GMT."""
    if not hasattr(time, "tzset"):
        pytest.skip("this system cannot change its time zone")
    monkeypatch.setenv("TZ", "XXX-12")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("far_east")
@pytest.mark.parametrize("form", ["rfc 1123", "asctime"])
def test_retry_after_may_be_a_date(form: str) -> None:
    date = datetime.now(timezone.utc) + timedelta(seconds=100)
    text = format_datetime(date, usegmt=True) if form == "rfc 1123" else date.strftime("%a %b %d %H:%M:%S %Y")
    seconds = retry_after({"retry-after": text})
    assert seconds is not None
    assert 90 < seconds <= 100


def test_retry_after_is_an_attribute_of_the_error() -> None:
    assert refusal(429, {"retry-after": "7"}, "").retry_after == 7.0


@pytest.mark.parametrize(
    ("headers", "delay", "seconds"),
    [({}, "34.5s", 34.5), ({"retry-after": "7"}, "34.5s", 7.0), ({}, "soon", None), ({}, "-1s", None)],
)
def test_googles_retry_delay_is_read_from_the_body(headers: dict[str, str], delay: str, seconds: float | None) -> None:
    details = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay}]
    body = {"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "Slow down", "details": details}}
    assert refusal(429, headers, json.dumps(body)).retry_after == seconds
    assert in_band(body).retry_after == (None if seconds is None else 34.5)


# --- errors inside a 200 body ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "kind", "status", "code", "message"),
    [
        (
            {"error": {"message": "Slow", "type": "tokens", "code": "rate_limit_exceeded"}},
            RateLimitError,
            None,
            "rate_limit_exceeded",
            "Slow",
        ),
        (
            {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}},
            OverloadedError,
            None,
            "overloaded_error",
            "Overloaded",
        ),
        (
            {"type": "error", "error": {"type": "api_error", "message": "Internal"}},
            ServerError,
            None,
            "api_error",
            "Internal",
        ),
        (
            {"type": "error", "error": {"type": "invalid_request_error", "message": "messages: too few"}},
            InvalidRequestError,
            None,
            "invalid_request_error",
            "messages: too few",
        ),
        (
            {"type": "error", "error": {"type": "authentication_error", "message": "Who?"}},
            AuthenticationError,
            None,
            "authentication_error",
            "Who?",
        ),
        (
            {"type": "error", "error": {"type": "billing_error", "message": "Pay"}},
            QuotaExceededError,
            None,
            "billing_error",
            "Pay",
        ),
        (
            {"type": "error", "error": {"type": "permission_error", "message": "No"}},
            PermissionDeniedError,
            None,
            "permission_error",
            "No",
        ),
        (
            {"type": "error", "error": {"type": "not_found_error", "message": "Where?"}},
            NotFoundError,
            None,
            "not_found_error",
            "Where?",
        ),
        (
            {"type": "error", "error": {"type": "request_too_large", "message": "Big"}},
            RequestTooLargeError,
            None,
            "request_too_large",
            "Big",
        ),
        (
            {"type": "error", "error": {"type": "rate_limit_error", "message": "Slow"}},
            RateLimitError,
            None,
            "rate_limit_error",
            "Slow",
        ),
        (
            {"type": "error", "error": {"type": "timeout_error", "message": "Late"}},
            ServerError,
            None,
            "timeout_error",
            "Late",
        ),
        (
            {"__type": "ModelStreamErrorException", "message": "Broken"},
            ServerError,
            None,
            "ModelStreamErrorException",
            "Broken",
        ),
        ({"error": {"code": 502, "message": "Upstream"}}, ServerError, 502, None, "Upstream"),
        ({"error": {"code": "429", "message": "Slow"}}, RateLimitError, 429, None, "Slow"),
        (
            {"error": {"code": 503, "message": "Busy", "status": "UNAVAILABLE"}},
            OverloadedError,
            503,
            "UNAVAILABLE",
            "Busy",
        ),
        ({"error": "quite odd"}, ProviderError, None, None, "quite odd"),
        ({"error": "over_capacity"}, OverloadedError, None, "over_capacity", "over_capacity"),
        ({"error": "invalid_api_key", "message": "No"}, AuthenticationError, None, "invalid_api_key", "No"),
        ({"error": {"type": "invented", "message": "odd"}}, ProviderError, None, "invented", "odd"),
        (
            {"message": "prompt is too long", "type": "invalid_request_error"},
            ContextOverflowError,
            None,
            "invalid_request_error",
            "prompt is too long",
        ),
        ("text", ProviderError, None, None, "text"),
        ({"error": {"code": 7}}, ProviderError, None, "7", '{"error": {"code": 7}}'),
    ],
)
def test_an_error_inside_a_200_has_the_status_of_its_body(
    value: object, kind: type[ProviderError], status: int | None, code: str | None, message: str
) -> None:
    error = in_band(value)
    assert (type(error), error.status, error.code) == (kind, status, code)
    assert error.message.startswith(message)


@pytest.mark.parametrize(
    ("text", "content_type", "kind", "message"),
    [
        ('{"error": {"message": "Slow", "code": 429}}', "application/json", RateLimitError, "Slow"),
        ('[{"error": {"code": 400, "message": "Bad"}}]', "application/json", InvalidRequestError, "Bad"),
        (
            '{"type": "error", "error": {"type": "invalid_request_error", "message": "prompt is too long"}}',
            "application/json",
            ContextOverflowError,
            "prompt is too long",
        ),
        ('{"type": "error", "message": "Bad", "code": 400}', "application/json", InvalidRequestError, "Bad"),
        ('{"object": "error", "message": "Bad", "code": 400}', "application/json", InvalidRequestError, "Bad"),
        (
            '{"id": "x", "choices": []}',
            "application/json",
            MalformedStreamError,
            "the server answered 200 with one JSON object instead of an event stream; does base_url point at the API,"
            ' and does the server stream? The body begins: \'{"id": "x", "choices": []}\'',
        ),
        (
            "<html>\n<h1>Welcome</h1>",
            "text/html; charset=utf-8",
            MalformedStreamError,
            "the server answered 200 with text/html; charset=utf-8 instead of an event stream; does base_url point at"
            " the API, and does the server stream? The body begins: '<html> <h1>Welcome</h1>'",
        ),
        ("[]", "", MalformedStreamError, "the server answered 200 with text instead of an event stream;"),
    ],
)
def test_a_200_that_is_not_a_stream_says_what_it_is(
    text: str, content_type: str, kind: type[CompletionError], message: str
) -> None:
    error = not_a_stream(text, content_type)
    assert type(error) is kind
    assert error.message.startswith(message)
    assert error.body is not None


def test_the_message_of_a_provider_becomes_one_line() -> None:
    body = json.dumps({"error": {"message": "bad\r\n  field\x1b[31m: \u2028x"}})
    error = refusal(400, {}, body)
    assert error.message == "bad field [31m: x"
    assert error.body == body


@pytest.mark.parametrize("message", [" ", "\n", "\u001b"])
def test_a_blank_message_is_replaced(message: str) -> None:
    body = {"error": {"message": message, "type": "invalid_request_error"}}
    assert in_band(body).message.strip()
    assert refusal(400, {}, json.dumps(body)).message.strip()


def test_codes_and_ids_are_one_line_and_messages_are_shortened() -> None:
    body = {"error": {"message": "m" * 9000, "code": "a\n\u001b[31mb\ud83d"}, "request_id": "r\n1"}
    error = refusal(400, {}, json.dumps(body))
    assert (error.code, error.request_id) == ("a [31mb", "r 1")
    assert len(error.message) == 4000
    str(error).encode()


@pytest.mark.parametrize(
    ("message", "facts", "option"),
    [
        (
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens'.",
            {"param": "max_tokens", "code": "unsupported_parameter"},
            "max_completion_tokens",
        ),
        ("That field is wrong", {"param": "max_tokens", "code": "unsupported_parameter"}, "max_completion_tokens"),
        ("property 'max_completion_tokens' is unsupported", {}, "max_tokens"),
        ("Unrecognized request argument supplied: max_completion_tokens", {}, "max_tokens"),
        ("max_tokens is not supported", {}, "max_completion_tokens"),
        ("max_tokens is too large: 99999", {"param": "max_tokens", "code": "invalid_value"}, None),
        ("max_tokens must be at least 1", {"param": "max_tokens"}, None),
        ("Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported.", {}, None),
        ("Unsupported value: 'temperature' does not support 0", {"param": "temperature"}, None),
    ],
)
def test_the_error_for_a_refused_token_field_names_the_option_to_set(
    message: str, facts: dict[str, str], option: str | None
) -> None:
    error = refusal(400, {}, json.dumps({"error": {"message": message, **facts}}))
    assert type(error) is InvalidRequestError
    expected = message if option is None else f"{message.removesuffix('.')}; give the model token_field={option!r}"
    assert error.message == expected


def test_another_error_about_tools_does_not_name_a_family() -> None:
    message = "Invalid 'tools[0].function.name' in /v1/chat/completions: it has a space"
    assert refusal(400, {}, json.dumps({"error": {"message": message}})).message == message


def test_a_field_that_a_validator_refuses_names_the_option_to_set() -> None:
    detail = [
        {"type": "extra_forbidden", "loc": ["body", "max_completion_tokens"], "msg": "Extra inputs are not permitted"}
    ]
    assert "; give the model token_field='max_tokens'" in refusal(422, {}, json.dumps({"detail": detail})).message


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (
            400,
            "Function tools with reasoning_effort are not supported for gpt-5.6 in /v1/chat/completions. To use "
            "function tools, use /v1/responses or set reasoning_effort to 'none'.",
        ),
        (400, "Function tools are not supported for gpt-5.6 in /v1/chat/completions."),
        (404, "This model is only supported in v1/responses and not in v1/chat/completions."),
    ],
)
def test_the_error_for_what_only_responses_supports_names_its_family(status: int, message: str) -> None:
    error = refusal(status, {}, json.dumps({"error": {"message": message, "param": "reasoning_effort"}}))
    assert error.message.startswith(message.removesuffix("."))
    assert "completion.model('openai-responses:" in error.message


# The reason of a refusal: what a gateway wraps, and phrases that no table has


INNER = {"type": "error", "error": {"type": "invalid_request_error", "message": "prompt is too long: 9 > 8 maximum"}}


@pytest.mark.parametrize(
    ("body", "message", "kind"),
    [
        (
            {"error": {"message": "Provider returned error", "code": 400, "metadata": {"raw": json.dumps(INNER)}}},
            "prompt is too long",
            ContextOverflowError,
        ),
        (
            {"error": {"message": "Provider returned error", "metadata": {"raw": "the model is busy"}}},
            "the model is busy",
            InvalidRequestError,
        ),
        (
            {"error": {"message": f"litellm.BadRequestError: AnthropicException - {json.dumps(INNER)}"}},
            "prompt is too long",
            ContextOverflowError,
        ),
        ({"success": False, "errors": [{"code": 7003, "message": "No route"}]}, "No route", InvalidRequestError),
        (
            {"message": "upstream failed", "cause": {"message": "the disk is full"}},
            "the disk is full",
            InvalidRequestError,
        ),
        ({"Message": "The security token is odd"}, "The security token is odd", InvalidRequestError),
        ({"error": {"message": "outer", "details": json.dumps(INNER)}}, "prompt is too long", ContextOverflowError),
        ({"error": {"message": "outer", "metadata": {"error": INNER}}}, "prompt is too long", ContextOverflowError),
        ({"error": json.dumps(INNER)}, "prompt is too long", ContextOverflowError),
        ({"error": {"message": INNER}}, "prompt is too long", ContextOverflowError),
        ({"error": {"message": f"Error code: 400 - {INNER!r}"}}, "prompt is too long", ContextOverflowError),
        ({"fault": {"faultstring": "the quota policy failed"}}, "the quota policy failed", InvalidRequestError),
        ({"error_code": 17, "error_msg": "the day is over"}, "the day is over", InvalidRequestError),
        ({"error": {"error": "the day is over"}}, "the day is over", InvalidRequestError),
        ({"error": "invalid_token", "error_description": "It is old"}, "It is old", InvalidRequestError),
    ],
    ids=[
        "OpenRouter",
        "OpenRouter text",
        "LiteLLM",
        "Cloudflare",
        "cause",
        "AWS",
        "details",
        "metadata",
        "text",
        "message",
        "Python",
        "Apigee",
        "Baidu",
        "error",
        "OAuth",
    ],
)
def test_the_innermost_message_of_a_gateway_counts(body: object, message: str, kind: type[ProviderError]) -> None:
    error = refusal(400, {}, json.dumps(body))
    assert error.message.startswith(message)
    assert type(error) is kind
    assert json.loads(error.body or "") == body


@pytest.mark.parametrize(
    "words",
    [
        "Input length 9000 exceeds the maximum allowed sequence of 8192 tokens",
        "Your messages are too long: 9000 tokens",
        "Range of input length should be [1, 30720]",
        "Please reduce the length of the messages",
        "Too many input tokens: 9000",
        "The request is larger than the model's token limit",
        "The conversation exceeded the window of this model (8k tokens)",
        "tokens in request more than max tokens allowed",
        "Current length is 9000 while limit is 8192",
        "Prompt 超长",
    ],
)
def test_an_overflow_is_recognized_by_unknown_words(words: str) -> None:
    assert type(refusal(400, {}, json.dumps({"error": {"message": words}}))) is ContextOverflowError


@pytest.mark.parametrize("status", [400, 402, 403, 429])
@pytest.mark.parametrize(
    "words",
    [
        "You have run out of credits or need a subscription.",
        "Your team has either used all available credits or reached its monthly spending limit.",
        "Insufficient Balance",
        "Your prepaid balance is exhausted, please recharge",
        "Your account balance is too low",
        "You exceeded your current quota, please check your plan and billing details.",
        "Payment required",
        "This request requires more credits, or fewer max_tokens. You can only afford 100.",
        "Access denied, please make sure your account is in good standing.",
        "You have used up your daily free allocation of 10,000 neurons.",
        "The free tier of the model has been exhausted.",
        "Your account is not active, please check your billing details on our website.",
        "You have reached your specified API usage limits.",
        "余额不足或无可用资源包,请充值。",
    ],
)
def test_an_account_without_money_is_recognized_by_its_words(words: str, status: int) -> None:
    assert type(refusal(status, {}, json.dumps({"code": "permission-denied", "error": words}))) is QuotaExceededError


@pytest.mark.parametrize(
    ("status", "words", "kind"),
    [
        (429, "Rate limit reached for m on tokens per min (TPM): Limit 30000. Add a payment method.", RateLimitError),
        (429, "Request too large for m on tokens per min (TPM): Limit 3, Requested 9", RateLimitError),
        (429, "Too many tokens per day, retry in 5 s", RateLimitError),
        (400, "max_tokens must be less than or equal to 8192", InvalidRequestError),
        (400, "max_tokens: 100000 > 64000, the maximum number of output tokens", InvalidRequestError),
        (400, "messages.0.content: Field required", InvalidRequestError),
        (403, "This key may not use the model", PermissionDeniedError),
    ],
)
def test_other_refusals_keep_their_class(status: int, words: str, kind: type[ProviderError]) -> None:
    assert type(refusal(status, {}, json.dumps({"error": {"message": words}}))) is kind


@pytest.mark.parametrize("code", ["not_found_error", "model_not_found", "authentication_error", "overloaded_error"])
def test_a_403_stays_a_denied_permission_whatever_its_type(code: str) -> None:
    body = json.dumps({"error": {"type": code, "message": "no access"}})
    assert type(refusal(403, {}, body)) is PermissionDeniedError


@pytest.mark.parametrize(
    ("words", "seconds"),
    [
        ("Please try again in 20s.", 20),
        ("Please try again in 1m30.5s.", 90.5),
        ("Please retry in 36.5s.", 36.5),
        ("Please retry after 26 seconds.", 26),
        ("Please try again in 94ms.", 0.094),
        ("Try again in 2 minutes", 120),
        ("Wait for 1 hour and retry", 3600),
        ("Retry after 7", 7),
        ("Please wait 30 seconds before retrying.", 30),
        ("Rate limit exceeded, retry_after: 3", 3),
        ("Retrying after 60 seconds", 60),
        ("Try again in 999999999 days", None),
        ("Try again later", None),
        ("Retry in a while, 3 requests failed", None),
    ],
)
def test_the_wait_is_read_from_the_message(words: str, seconds: float | None) -> None:
    body = json.dumps({"error": {"message": words, "code": "rate_limit_exceeded"}})
    assert refusal(429, {}, body).retry_after == seconds
    assert refusal(429, {"retry-after": "3"}, body).retry_after == 3


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": "slow down", "retry_after": 3}},
        {"error": {"message": "slow down", "metadata": {"retry_after_seconds": 3}}},
        {"message": "slow down", "retryAfter": "3"},
    ],
)
def test_the_wait_is_read_from_a_field_of_the_body(body: object) -> None:
    assert refusal(429, {}, json.dumps(body)).retry_after == 3
