"""From a provider's refusal to our error: one table from status and body, for all adapters.

    HTTP status decides first, the body's code or type refines:  400 + context_length_exceeded -> ContextOverflowError

The same table reads an error object inside a 200 body, where the status is the provider's own number, or none.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping
from datetime import timezone
from email.utils import parsedate_to_datetime
from typing import Any

from completion.errors import (
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

_BY_STATUS: dict[int, type[ProviderError]] = {
    401: AuthenticationError,
    402: QuotaExceededError,
    403: PermissionDeniedError,
    404: NotFoundError,
    408: ServerError,
    413: RequestTooLargeError,
    429: RateLimitError,
    498: OverloadedError,  # Groq: the flex tier has no capacity
    503: OverloadedError,
    529: OverloadedError,
}

# Codes and types, in lower case, that say more than a status does.
_BY_CODE: dict[str, type[ProviderError]] = {
    "context_length_exceeded": ContextOverflowError,
    "context_window_exceeded": ContextOverflowError,
    "exceed_context_size_error": ContextOverflowError,
    "model_context_window_exceeded": ContextOverflowError,
    "insufficient_quota": QuotaExceededError,
    "quota_exceeded": QuotaExceededError,
    "billing_error": QuotaExceededError,
    "billing_hard_limit_reached": QuotaExceededError,
    "billing_not_active": QuotaExceededError,
    "insufficient_credits": QuotaExceededError,
    "api_key_invalid": AuthenticationError,  # Google's, with status 400
    "model_not_found": NotFoundError,
    "not_found_error": NotFoundError,
    "deploymentnotfound": NotFoundError,
    "content_filter": ContentFilterError,
    "content_policy_violation": ContentFilterError,
    "responsibleaipolicyviolation": ContentFilterError,
    "request_too_large": RequestTooLargeError,
    "overloaded_error": OverloadedError,
    "overloaded": OverloadedError,
    "server_overloaded": OverloadedError,
    "engine_overloaded": OverloadedError,
    "service_unavailable": OverloadedError,
    "service_unavailable_error": OverloadedError,
    "unavailable": OverloadedError,
    "slow_down": OverloadedError,
    "capacity_exceeded": OverloadedError,
    "engine_overloaded_error": OverloadedError,
    "exceeded_current_quota_error": QuotaExceededError,
    "data_inspection_failed": ContentFilterError,
}

# Codes that say no more than a status would; they count where there is no status.
_BY_CODE_ALONE: dict[str, type[ProviderError]] = {
    "rate_limit_exceeded": RateLimitError,
    "rate_limit_error": RateLimitError,
    "rate_limited": RateLimitError,
    "too_many_requests": RateLimitError,
    "rate_limit_reached_error": RateLimitError,
    "ratelimitreached": RateLimitError,
    "limit_requests": RateLimitError,
    "throttling.ratequota": RateLimitError,
    "throttlingexception": RateLimitError,
    "token_quota_exceeded": RateLimitError,
    "too_many_tokens_error": RateLimitError,
    "validation": InvalidRequestError,
    "tokens": RateLimitError,
    "requests": RateLimitError,
    "invalid_api_key": AuthenticationError,
    "authentication_error": AuthenticationError,
    "unauthorized": AuthenticationError,
    "permission_error": PermissionDeniedError,
    "permission_denied": PermissionDeniedError,
    "not_found": NotFoundError,
    "server_error": ServerError,
    "api_error": ServerError,
    "internal_error": ServerError,
    "internal_server_error": ServerError,
    "timeout_error": ServerError,
    "invalid_request_error": InvalidRequestError,
    "invalid_request": InvalidRequestError,
    "bad_request": InvalidRequestError,
    "invalid_value": InvalidRequestError,
    "unsupported_parameter": InvalidRequestError,
    "unsupported_value": InvalidRequestError,
    "unknown_parameter": InvalidRequestError,
    "tool_use_failed": InvalidRequestError,
}

_CODES = (
    "code", "type", "status", "status_code", "statusCode", "__type", "error_type", "error_code", "http_status_code"
)  # fmt: skip

# Some providers have no code for it, only words.
_OVERFLOW_WORDS = (
    "prompt is too long",
    "context length",
    "context window",
    "context size",
    "maximum context",
    "context_length_exceeded",
)

# What a 5xx may be refined to: the rest of the codes would contradict it.
_OF_A_SERVER = frozenset({OverloadedError, QuotaExceededError, ContextOverflowError})

# What to do, where it can be said.
_ADVICE: dict[type[ProviderError], str] = {
    AuthenticationError: "check the API key",
    QuotaExceededError: "check the plan and the billing of the account",
    ContextOverflowError: "shorten the messages or lower max_tokens",
}


def refusal(status: int, headers: Mapping[str, str], text: str, *, request_id: str | None = None) -> CompletionError:
    """The error for an HTTP response with a status other than 2xx. ``text`` is its body."""
    if 300 <= status < 400:
        location = headers.get("location", "").split("?")[0]
        return ConfigurationError(
            f"the server answered with a redirect to {location or 'nowhere'}, which is not followed: set base_url",
            status=status,
            request_id=request_id,
            body=text,
        )
    said = _said(_parsed(text.removeprefix("data:")))
    message = said.message or _plain(text) or f"HTTP status {status}"
    return _error(
        status,
        said,
        message,
        body=text,
        request_id=request_id or said.request_id,
        retry_after=retry_after(headers),
        should_retry=_flag(headers.get("x-should-retry")),
    )


def in_band(value: Any) -> ProviderError:
    """The error for an error object inside a 200 body."""
    said = _said(value)
    text = json.dumps(value, ensure_ascii=False)
    return _error(said.number, said, said.message or _plain(text), body=text, request_id=said.request_id)


def not_a_stream(text: str, content_type: str) -> CompletionError:
    """The error for a 200 whose body is not the stream that it should be."""
    value = _parsed(text)
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, dict) and (value.get("error") or value.get("object") == "error"):
        return in_band(value)
    what = "one JSON object" if isinstance(value, dict) else content_type or "text"
    return MalformedStreamError(
        f"the server answered 200 with {what} instead of an event stream; does base_url point at the API, and does"
        f" the server stream? It begins: {_plain(text)[:200]!r}",
        body=text,
    )


def retry_after(headers: Mapping[str, str]) -> float | None:
    """The seconds that the server wants to wait: ``retry-after-ms``, else ``retry-after`` as seconds or HTTP date.

    None where neither is there or makes sense.
    """
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    given = headers.get("retry-after")
    seconds = _number(given)
    if seconds is not None or not given:
        return seconds
    try:
        date = parsedate_to_datetime(given)
        if date.tzinfo is None:  # an HTTP date is always of Greenwich, also in the old form that does not say so
            date = date.replace(tzinfo=timezone.utc)
        left = date.timestamp() - time.time()
    except (ValueError, TypeError, OverflowError, OSError):
        return None
    return left if left >= 0 else None


class _Said:
    """The words of an error body, whichever of the shapes in use it has.

    ``{"error": {"message", "type", "code"}}``, ``{"error": "text"}``, ``{"message"}``, ``{"detail"}``,
    ``{"statusCode", "message"}``, ``{"type": "error", "error": …, "request_id"}``, or a list of one of these.
    """

    def __init__(self) -> None:
        self.message = ""
        self.words: list[str] = []
        self.number: int | None = None
        self.request_id: str | None = None


def _said(value: Any) -> _Said:
    said = _Said()
    if isinstance(value, list) and value:
        value = value[0]
    if not isinstance(value, Mapping):
        said.message = value if isinstance(value, str) else ""
        return said
    if isinstance(value.get("request_id"), str):
        said.request_id = value["request_id"]
    inner = value.get("error")
    said.message = inner if isinstance(inner, str) else ""
    for level in _levels(value):
        for key in ("message", "detail", "details", "msg"):
            if not said.message and isinstance(level.get(key), str):
                said.message = level[key]
        for key in _CODES:
            said_here = level.get(key)
            if isinstance(said_here, bool) or said_here in (None, "", "error"):
                continue
            number = _status_number(said_here)
            if number is not None:
                said.number = said.number or number
            elif isinstance(said_here, str | int):
                said.words.append(str(said_here))
        details = level.get("details")
        for detail in details if isinstance(details, list) else ():  # Google's finer word
            if isinstance(detail, Mapping) and isinstance(detail.get("reason"), str):
                said.words.append(detail["reason"])
    return said


def _levels(value: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The object's error, what is inside of that, and the object itself: the most telling first."""
    inner = value.get("error")
    if isinstance(inner, Mapping):
        yield inner
        for key in ("innererror", "error"):
            if isinstance(inner.get(key), Mapping):
                yield inner[key]
    yield value


def _status_number(word: Any) -> int | None:
    if isinstance(word, str) and word.isdecimal() and len(word) == 3:
        word = int(word)
    return word if isinstance(word, int) and 400 <= word <= 599 else None


def _error(status: int | None, said: _Said, message: str, **facts: Any) -> ProviderError:
    kind = _kind(status, [word.lower() for word in said.words], message.lower())
    advice = _ADVICE.get(kind)
    return kind(
        f"{message}; {advice}" if advice else message,
        status=status,
        code=said.words[0] if said.words else None,
        **facts,
    )


def _kind(status: int | None, words: list[str], message: str) -> type[ProviderError]:
    refined = next((_BY_CODE[word] for word in words if word in _BY_CODE), None)
    if refined is None and status in (None, 400, 413, 422) and any(phrase in message for phrase in _OVERFLOW_WORDS):
        refined = ContextOverflowError
    if status is None:
        alone = next((_BY_CODE_ALONE[word] for word in words if word in _BY_CODE_ALONE), ProviderError)
        return refined or alone
    if status >= 500:
        return refined if refined in _OF_A_SERVER and refined else _BY_STATUS.get(status, ServerError)
    if status == 401:
        return AuthenticationError
    return refined or _BY_STATUS.get(status, InvalidRequestError)


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _plain(text: str) -> str:
    """The beginning of a body, on one line."""
    return " ".join(text[:1000].split())[:300]


def _number(text: str | None) -> float | None:
    """A number of seconds that one could wait, or None."""
    try:
        number = float(text) if text else -1.0
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None


def _flag(text: str | None) -> bool | None:
    return {"true": True, "false": False}.get((text or "").strip().lower())
