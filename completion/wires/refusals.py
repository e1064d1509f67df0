"""From a provider's error response to our error, by the tables in ``refusal_words``.

    the HTTP status, then the body's code or type:  400 + context_length_exceeded -> ContextOverflowError

An error object inside a 200 body is read with the same tables. Its status is the number in the body, or none.

The tables are the same for all adapters, because gateways and compatible servers pass on the codes of the provider
behind them, and no code has two meanings.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from completion.contract.errors import (
    CompletionError,
    ConfigurationError,
    InvalidRequestError,
    MalformedStreamError,
    PermissionDeniedError,
    ProviderError,
    RateLimitError,
    ServerError,
    Transient,
)
from completion.wires.error_body import ErrorBody, code_name, first_not_none, on_one_line, parse_body, read_error
from completion.wires.refusal_words import (
    ADVICE,
    KIND_BY_CODE,
    KIND_BY_CODE_WITHOUT_STATUS,
    KIND_BY_STATUS,
    KINDS_OF_5XX,
    KINDS_OF_403,
    ONLY_IN_RESPONSES,
    PHRASES,
    REFUSED_TOKEN_FIELD,
    TOKEN_FIELD_AS_PARAM,
    Kind,
    kind_by_unknown_phrase,
    normalized,
)
from completion.wires.waits import retry_after, wait_in_words

_MAX_MESSAGE = 4000  # characters

# --- the class of the error ------------------------------------------------------------------------------------------


def _kind(status: int | None, codes: list[str], message: str) -> Kind:
    by_word = _first(codes, KIND_BY_CODE)
    if by_word in (None, PermissionDeniedError):  # xAI also sends such a code if no credits are left
        by_word = _kind_by_phrase(status, message.lower()) or kind_by_unknown_phrase(status, message) or by_word
    if status == 400 and by_word is None:  # some services of AWS, and gateways, throttle with 400
        by_code = _first(codes, KIND_BY_CODE_WITHOUT_STATUS)
        by_word = by_code if by_code is RateLimitError else None
    if status == 403 and by_word not in KINDS_OF_403:
        by_word = None
    if status is None:
        return by_word or _first(codes, KIND_BY_CODE_WITHOUT_STATUS) or ProviderError
    # With 401 and 5xx the status counts: most codes and phrases would contradict it. Azure sends 401 with the code
    # PermissionDenied.
    if status == 401 or (status >= 500 and by_word not in KINDS_OF_5XX):
        by_word = None
    return by_word or KIND_BY_STATUS.get(status, ServerError if status >= 500 else InvalidRequestError)


def _first(codes: list[str], table: Mapping[str, Kind]) -> Kind | None:
    return next((table[word] for word in map(normalized, codes) if word in table), None)


def _kind_by_phrase(status: int | None, message: str) -> Kind | None:
    for kind, statuses, phrases in PHRASES:
        if status in statuses and any(phrase in message for phrase in phrases):
            return kind
    return None


# --- from a response to an error -------------------------------------------------------------------------------------


def refusal(status: int, headers: Mapping[str, str], text: str, *, request_id: str | None = None) -> CompletionError:
    """The error for an HTTP response with a status other than 2xx. ``text`` is its body."""
    if 300 <= status < 400:
        location = headers.get("location", "").split("?")[0]  # the query may contain a key
        target = f" to {location}" if location else ""
        return ConfigurationError(
            f"the server answered with a redirect{target}, which is not followed: set base_url",
            status=status,
            request_id=request_id,
            body=text,
        )
    parsed = read_error(parse_body(text))
    if headers.get("x-amzn-errortype"):  # Bedrock
        parsed.codes.insert(0, code_name(headers["x-amzn-errortype"]))
    return _error(
        status,
        parsed,
        parsed.message or _excerpt(text) or f"HTTP status {status}",
        body=text,
        request_id=request_id or parsed.request_id,
        retry_after=first_not_none(retry_after(headers), parsed.retry_after),
        should_retry=_bool(headers.get("x-should-retry")),
    )


def in_band(value: Any) -> ProviderError:
    """The error for an error object inside a 200 body."""
    parsed = read_error(value)
    text = json.dumps(value, ensure_ascii=False)
    message = parsed.message or _excerpt(text)
    return _error(
        parsed.status, parsed, message, body=text, request_id=parsed.request_id, retry_after=parsed.retry_after
    )


def is_error(value: Mapping[str, Any]) -> bool:
    """Whether the object is an error: it has one of the shapes that no chunk of an answer has."""
    # Cloudflare: {"success": false, "errors": [{"code": 3040, "message": "…"}]}
    errors = value.get("errors")
    # MiniMax: {"base_resp": {"status_code": 1008, "status_msg": "…"}}, with the code 0 in each chunk of an answer
    base = value.get("base_resp")
    return bool(
        value.get("error")
        or (isinstance(base, Mapping) and base.get("status_code"))
        or "error" in (value.get("object"), value.get("type"))
        or (isinstance(errors, list) and errors)
        or value.get("success") is False
    )


def is_foreign_error(event: Mapping[str, Any]) -> bool:
    """Whether an event that the wire does not know is an error, in the shape of another wire or of a gateway."""
    return is_error(event) or ("type" not in event and has_words_of_error(event))


def has_words_of_error(event: Mapping[str, Any]) -> bool:
    """Whether an event that is no part of an answer says what went wrong, as FastAPI, Amazon and gateways do."""
    return any(event.get(key) for key in ("message", "detail", "error_code", "error_msg", "Message"))


def not_a_stream(text: str, content_type: str) -> CompletionError:
    """The error for a 200 response whose body is not a stream."""
    value = parse_body(text)
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, dict) and is_error(value):
        return in_band(value)
    what = "one JSON object" if isinstance(value, dict) else content_type or "text"
    return MalformedStreamError(
        f"the server answered 200 with {what} instead of an event stream; does base_url point at the API, and does"
        f" the server stream? The body begins: {_excerpt(text)[:200]!r}",
        body=text,
    )


def _error(status: int | None, parsed: ErrorBody, message: str, **facts: Any) -> ProviderError:
    kind = _kind(status, parsed.codes, message)
    facts["retry_after"] = first_not_none(facts.get("retry_after"), wait_in_words(message[:_MAX_MESSAGE]))
    message = on_one_line(message)[:_MAX_MESSAGE] or "the provider gave no reason"
    error = kind(message, status=status, code=parsed.codes[0] if parsed.codes else None, **facts)
    advice = _advice(error)
    if advice:
        error.message = f"{message.removesuffix('.')}; {advice}"
        error.args = (error.message,)
    return error


def _advice(error: ProviderError) -> str | None:
    """What the caller can do, for the end of the message; None if the message says it already or we know nothing."""
    classification = error.retry_classification()
    if not isinstance(classification, Transient):
        return _other_field(error) or _other_api(error) or ADVICE.get(type(error))
    says_when = re.search(r"\b(try again|retry) (in|after)\b", error.message, re.IGNORECASE)
    if classification.retry_after is None or says_when:
        return None
    return f"try again in {classification.retry_after:g} s"


def _other_field(error: ProviderError) -> str | None:
    """The option to set if the server refuses the field that ``max_tokens`` was sent in; else None."""
    found = REFUSED_TOKEN_FIELD.search(error.message)
    if not found and error.code == "unsupported_parameter":
        found = TOKEN_FIELD_AS_PARAM.search(error.body or "")
    if not found:
        return None
    refused = found[found.lastindex or 0].lower()
    other = "max_completion_tokens" if refused == "max_tokens" else "max_tokens"
    return f"give the model token_field={other!r}"


def _other_api(error: ProviderError) -> str | None:
    """The family to use if the server says that only OpenAI's Responses API supports the request; else None."""
    if not ONLY_IN_RESPONSES.search(error.message):
        return None
    return "OpenAI's Responses API is the family openai-responses: completion.model('openai-responses:<model id>')"


def _excerpt(text: str) -> str:
    """The beginning of a body, on one line."""
    return on_one_line(text[:1000])[:300]


def _bool(text: str | None) -> bool | None:
    return {"true": True, "false": False}.get((text or "").strip().lower())
