"""From status, headers and body to an error. The bodies have the providers' own shapes."""

from __future__ import annotations

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
from completion.classify import in_band, not_a_stream, refusal, retry_after

CHECK_KEY = "; check the API key"
CHECK_PLAN = "; check the plan and the billing of the account"
SHORTEN = "; shorten the messages or lower max_tokens"


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
        (422, InvalidRequestError),
        (425, InvalidRequestError),
        (429, RateLimitError),
        (498, OverloadedError),
        (500, ServerError),
        (501, ServerError),
        (502, ServerError),
        (503, OverloadedError),
        (504, ServerError),
        (520, ServerError),
        (529, OverloadedError),
    ],
)
@pytest.mark.parametrize("body", ["", "<html>\n<h1>nginx</h1></html>", "{ bad json", "null", '{"error": {}}'])
def test_a_status_alone_tells_the_class(status: int, kind: type[ProviderError], body: str) -> None:
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
            "Incorrect API key provided" + CHECK_KEY,
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
            "You exceeded your quota" + CHECK_PLAN,
        ),
        (
            400,
            '{"error": {"message": "Too long", "type": "invalid_request_error", "code": "context_length_exceeded"}}',
            ContextOverflowError,
            "context_length_exceeded",
            "Too long" + SHORTEN,
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
            "prompt is too long: 200001 tokens > 200000 maximum" + SHORTEN,
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
        (401, '{"statusCode": 401, "message": "Unauthorized"}', AuthenticationError, None, "Unauthorized" + CHECK_KEY),
        (
            404,
            '{"error": {"code": "404", "message": "Resource not found"}}',
            NotFoundError,
            None,
            "Resource not found",
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
            "API key not valid" + CHECK_KEY,
        ),
        # llama.cpp, vLLM, OpenRouter, Bedrock and others
        (
            400,
            '{"error": {"code": 400, "message": "request exceeds the available context size", '
            '"type": "exceed_context_size_error", "n_ctx": 4096}}',
            ContextOverflowError,
            "exceed_context_size_error",
            "request exceeds the available context size" + SHORTEN,
        ),
        (
            400,
            '{"object": "error", "message": "This model\'s maximum context length is 8192", '
            '"type": "BadRequestError", "code": 400}',
            ContextOverflowError,
            "BadRequestError",
            "This model's maximum context length is 8192" + SHORTEN,
        ),
        (402, '{"error": {"message": "No credits", "code": 402}}', QuotaExceededError, None, "No credits" + CHECK_PLAN),
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
            '{"detail": [{"loc": ["body"], "msg": "field required"}]}',
        ),
        (403, '{"error": null, "message": "no"}', PermissionDeniedError, None, "no"),
        (500, '{"error": {"message": {"a": 1}}}', ServerError, None, '{"error": {"message": {"a": 1}}}'),
        (502, "<html>\n  <h1>Bad  Gateway</h1>\n</html>", ServerError, None, "<html> <h1>Bad Gateway</h1> </html>"),
        (504, "", ServerError, None, "HTTP status 504"),
        (429, "null", RateLimitError, None, "null"),
    ],
)
def test_a_body_refines_the_class_and_gives_code_and_message(
    status: int, body: str, kind: type[ProviderError], code: str | None, message: str
) -> None:
    error = refusal(status, {}, body)
    assert (type(error), error.status, error.code) == (kind, status, code)
    assert error.message.startswith(message)
    assert error.body == body


def test_a_request_id_stands_in_the_header_or_else_in_the_body() -> None:
    body = '{"type": "error", "error": {"type": "api_error", "message": "x"}, "request_id": "of the body"}'
    assert refusal(500, {}, body).request_id == "of the body"
    assert refusal(500, {}, body, request_id="of the header").request_id == "of the header"


def test_a_long_page_is_told_by_its_beginning() -> None:
    assert refusal(502, {}, "<p>" * 1000).message == "<p>" * 100


def test_a_body_of_a_hundred_thousand_brackets_does_no_harm() -> None:
    assert type(refusal(400, {}, "[" * 100_000)) is InvalidRequestError


@given(st.integers(400, 599), st.text())
def test_any_body_gives_an_error_of_its_status(status: int, body: str) -> None:
    assert refusal(status, {}, body).status == status


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({"location": "https://other.test/v1?key=secret"}, "a redirect to https://other.test/v1, which is not foll"),
        ({}, "a redirect to nowhere, which is not followed: set base_url"),
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
def test_the_wait_is_a_number_of_seconds_or_unknown(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers) == seconds


@pytest.fixture
def far_east(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A local time that is not Greenwich's."""
    if not hasattr(time, "tzset"):
        pytest.skip("this system cannot change its time zone")
    monkeypatch.setenv("TZ", "XXX-12")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("far_east")
@pytest.mark.parametrize("form", ["rfc 1123", "asctime"])
def test_the_wait_may_be_a_date(form: str) -> None:
    date = datetime.now(timezone.utc) + timedelta(seconds=100)
    text = format_datetime(date, usegmt=True) if form == "rfc 1123" else date.strftime("%a %b %d %H:%M:%S %Y")
    seconds = retry_after({"retry-after": text})
    assert seconds is not None
    assert 90 < seconds <= 100


def test_the_wait_is_a_fact_of_the_error() -> None:
    assert refusal(429, {"retry-after": "7"}, "").retry_after == 7.0


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
        ({"error": {"code": 502, "message": "Upstream"}}, ServerError, 502, None, "Upstream"),
        ({"error": {"code": "429", "message": "Slow"}}, RateLimitError, 429, None, "Slow"),
        (
            {"error": {"code": 503, "message": "Busy", "status": "UNAVAILABLE"}},
            OverloadedError,
            503,
            "UNAVAILABLE",
            "Busy",
        ),
        ({"error": "odd"}, ProviderError, None, None, "odd"),
        ({"error": {"type": "invented", "message": "odd"}}, ProviderError, None, "invented", "odd"),
        (
            {"message": "prompt is too long", "type": "invalid_request_error"},
            ContextOverflowError,
            None,
            "invalid_request_error",
            "prompt is too long" + SHORTEN,
        ),
        ("text", ProviderError, None, None, "text"),
        ({"error": {"code": 7}}, ProviderError, None, "7", '{"error": {"code": 7}}'),
    ],
)
def test_an_error_inside_a_200_has_the_status_that_the_provider_gives(
    value: object, kind: type[ProviderError], status: int | None, code: str | None, message: str
) -> None:
    error = in_band(value)
    assert (type(error), error.status, error.code, error.message) == (kind, status, code, message)


@pytest.mark.parametrize(
    ("text", "content_type", "kind", "message"),
    [
        ('{"error": {"message": "Slow", "code": 429}}', "application/json", RateLimitError, "Slow"),
        ('[{"error": {"code": 400, "message": "Bad"}}]', "application/json", InvalidRequestError, "Bad"),
        ('{"object": "error", "message": "Bad", "code": 400}', "application/json", InvalidRequestError, "Bad"),
        (
            '{"id": "x", "choices": []}',
            "application/json",
            MalformedStreamError,
            "the server answered 200 with one JSON object instead of an event stream; does base_url point at the API,"
            ' and does the server stream? It begins: \'{"id": "x", "choices": []}\'',
        ),
        (
            "<html>\n<h1>Welcome</h1>",
            "text/html; charset=utf-8",
            MalformedStreamError,
            "the server answered 200 with text/html; charset=utf-8 instead of an event stream; does base_url point at"
            " the API, and does the server stream? It begins: '<html> <h1>Welcome</h1>'",
        ),
        ("[]", "", MalformedStreamError, "the server answered 200 with text instead of an event stream;"),
    ],
)
def test_a_200_that_is_no_stream_says_what_it_is(
    text: str, content_type: str, kind: type[CompletionError], message: str
) -> None:
    error = not_a_stream(text, content_type)
    assert type(error) is kind
    assert error.message.startswith(message)
    assert error.body is not None
