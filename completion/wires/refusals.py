"""From a provider's error response to our error: one table from status and body, for all adapters.

    the HTTP status, then the body's code or type:  400 + context_length_exceeded -> ContextOverflowError

An error object inside a 200 body is read with the same table. Its status is the number in the body, or none.

There is one table for all adapters, because gateways and compatible servers pass on the codes of the provider behind
them, and no code has two meanings.
"""

from __future__ import annotations

import ast
import json
import math
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timezone
from email.utils import parsedate_to_datetime
from http import HTTPStatus
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

# --- the table -------------------------------------------------------------------------------------------------------


def _kind(status: int | None, codes: list[str], message: str) -> Kind:
    by_word = _first(codes, KIND_BY_CODE)
    if by_word in (None, PermissionDeniedError):  # xAI sends this code if the account has no credits left
        by_word = _kind_by_phrase(status, message.lower()) or kind_by_unknown_phrase(status, message) or by_word
    if status == 400 and by_word is None:  # AWS throttles with 400 in some services, and gateways with any status
        by_code = _first(codes, KIND_BY_CODE_WITHOUT_STATUS)
        by_word = by_code if by_code is RateLimitError else None
    if status == 403 and by_word not in KINDS_OF_403:
        by_word = None
    if status is None:
        return by_word or _first(codes, KIND_BY_CODE_WITHOUT_STATUS) or ProviderError
    # With 401 and 5xx the status counts: most words would contradict it. Azure sends 401 with PermissionDenied.
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
    parsed = _parse_error(_parse_body(text))
    if headers.get("x-amzn-errortype"):  # Bedrock
        parsed.codes.insert(0, _code_name(headers["x-amzn-errortype"]))
    return _error(
        status,
        parsed,
        parsed.message or _excerpt(text) or f"HTTP status {status}",
        body=text,
        request_id=request_id or parsed.request_id,
        retry_after=_first_not_none(retry_after(headers), parsed.retry_after),
        should_retry=_bool(headers.get("x-should-retry")),
    )


def in_band(value: Any) -> ProviderError:
    """The error for an error object inside a 200 body."""
    parsed = _parse_error(value)
    text = json.dumps(value, ensure_ascii=False)
    message = parsed.message or _excerpt(text)
    return _error(
        parsed.status, parsed, message, body=text, request_id=parsed.request_id, retry_after=parsed.retry_after
    )


def is_error(value: Mapping[str, Any]) -> bool:
    """An object is an error in one of the shapes that no chunk of an answer has."""
    # Cloudflare: {"success": false, "errors": [{"code": 3040, "message": "…"}]}
    errors = value.get("errors")
    return bool(
        value.get("error")
        or "error" in (value.get("object"), value.get("type"))
        or (isinstance(errors, list) and errors)
        or value.get("success") is False
    )


def is_foreign_error(event: Mapping[str, Any]) -> bool:
    """An event that the wire does not know is an error: in a shape of another wire, or of a gateway."""
    # FastAPI and gateways: {"message": "…"}, {"detail": "…"}, {"error_code": "…"}
    words = any(event.get(key) for key in ("message", "detail", "error_code"))
    return is_error(event) or ("type" not in event and words)


def not_a_stream(text: str, content_type: str) -> CompletionError:
    """The error for a 200 response whose body is not a stream."""
    value = _parse_body(text)
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


def _error(status: int | None, parsed: _ParsedError, message: str, **facts: Any) -> ProviderError:
    kind = _kind(status, parsed.codes, message)
    facts["retry_after"] = _first_not_none(facts.get("retry_after"), _told_wait(message))
    message = _on_one_line(message)[:_MAX_MESSAGE] or "the provider gave no reason"
    error = kind(message, status=status, code=parsed.codes[0] if parsed.codes else None, **facts)
    advice = _advice(error)
    if advice:
        error.message = f"{message.removesuffix('.')}; {advice}"
        error.args = (error.message,)
    return error


def _advice(error: ProviderError) -> str | None:
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


# --- reading the body ------------------------------------------------------------------------------------------------

_MAX_MESSAGE = 4000  # characters
_MAX_NAME = 200

_MESSAGE_FIELDS = (
    "message",
    "detail",
    "details",
    "msg",
    "Message",
    "error_message",
    "error_msg",  # Baidu
    "errorMessage",  # a Lambda function behind a gateway
    "error_description",  # OAuth
    "faultstring",  # Apigee
    "description",
    "reason",
    "title",  # RFC 9457, where there is no detail
)
_WAIT_FIELDS = ("retry_after", "retryAfter", "retry_after_seconds", "retry_after_s")
_CODE_FIELDS = ("code", "type", "status", "__type", "error_type", "error_code")
_NOT_A_CODE = ("", "error", "about:blank")  # Anthropic's outer {"type": "error"}; RFC 9457
_STATUS_FIELDS = ("status_code", "statusCode", "http_status_code")


@dataclass(slots=True)
class _ParsedError:
    """What an error body says, in any of the known shapes.

    ``{"error": {"message", "type", "code"}}``, ``{"error": "text"}``, ``{"message"}``, ``{"detail"}``,
    ``{"statusCode", "message"}``, ``{"type": "error", "error": …, "request_id"}``, or a list of one of these.
    """

    message: str = ""
    codes: list[str] = field(default_factory=list)
    status: int | None = None
    """The HTTP status in the body."""
    request_id: str | None = None
    retry_after: float | None = None


def _parse_error(value: Any) -> _ParsedError:
    parsed = _ParsedError()
    if isinstance(value, list) and value:
        value = value[0]
    for level in _levels(value):
        messages = (_text(level.get(key)).strip() for key in _MESSAGE_FIELDS)
        parsed.message = parsed.message or next(filter(None, messages), "")
        parsed.request_id = parsed.request_id or _code_name(_text(level.get("request_id"))) or None
        for key in (*_CODE_FIELDS, *_STATUS_FIELDS):
            code = level.get(key)
            status = _status_number(code)
            if status is not None:
                parsed.status = parsed.status or status
            elif isinstance(code, str | int) and not isinstance(code, bool) and code not in _NOT_A_CODE:
                parsed.codes += filter(None, [_code_name(str(code))])
        metadata = level.get("metadata")
        for holder in (level, metadata if isinstance(metadata, Mapping) else {}):
            waits = (_number(str(holder[key])) for key in _WAIT_FIELDS if key in holder)
            parsed.retry_after = _first_not_none(parsed.retry_after, *waits)
        # Google: [{"@type": "…ErrorInfo", "reason": "API_KEY_INVALID"}, {"@type": "…RetryInfo", "retryDelay": "7.5s"}]
        details = level.get("details")
        for detail in details if isinstance(details, list) else ():
            if isinstance(detail, Mapping):
                parsed.codes += filter(None, [_text(detail.get("reason"))])
                seconds = _number(_text(detail.get("retryDelay")).rstrip("s"))
                parsed.retry_after = _first_not_none(parsed.retry_after, seconds)
    return parsed


def _levels(value: Any, depth: int = 0) -> Iterator[Mapping[str, Any]]:
    """The objects that may contain message and code: ``error``, the objects inside it, then the body.

    The most specific one is first, because the first message counts: what a gateway wraps comes before its own words.
    """
    if isinstance(value, str):
        yield {"message": value}
    if not isinstance(value, Mapping):
        return
    inner = value.get("error")
    if depth < _MAX_WRAPPED:
        for wrapped in _wrapped(value):
            yield from _levels(wrapped, depth + 1)
    if isinstance(inner, Mapping):
        if depth < _MAX_WRAPPED:
            for wrapped in _wrapped(inner):
                yield from _levels(wrapped, depth + 1)
        yield inner
        for key in ("innererror", "error", "message"):
            if isinstance(inner.get(key), Mapping):
                yield inner[key]
                if depth < _MAX_WRAPPED:
                    yield from _levels(inner[key], depth + 1)
        if isinstance(inner.get("error"), str):
            yield {"message": inner["error"]}
    elif isinstance(inner, str):
        found = _embedded(inner)
        if found is not None and depth < _MAX_WRAPPED:
            yield from _levels(found, depth + 1)
        # {"error": "out of memory"} is a message, {"error": "over_capacity"} is a code. {"error": "Bad Request",
        # "message": …}, the form of web frameworks, repeats the status.
        is_message = " " in inner and inner.title() not in _PHRASES_OF_HTTP
        yield {"message": inner} if is_message else {"code": inner} if " " not in inner else {}
    yield value
    if isinstance(value.get("message"), Mapping):  # Mistral: {"message": {"detail": [{"loc": …, "msg": "…"}]}}
        yield value["message"]
    if isinstance(inner, str):  # a code is the message as well if there is no other
        yield {"message": inner}


_PHRASES_OF_HTTP = {status.phrase.title() for status in HTTPStatus}
_MAX_WRAPPED = 4  # gateways in front of each other

_WRAPPING_FIELDS = (
    "fault",  # Apigee
    "raw",
    "cause",
    "upstream_error",
    "provider_error",
    "original_error",
    "response",
    "detail",
    "details",
    "error",
    "errors",
    "fault",
    "data",
    "body",
)


def _wrapped(level: Mapping[str, Any]) -> Iterator[Any]:
    """The errors that a gateway passes on inside of its own."""
    # OpenRouter: {"message": "Provider returned error", "metadata": {"raw": "{\"error\": …}", "provider_name": "…"}}
    metadata = level.get("metadata")
    for holder in (metadata if isinstance(metadata, Mapping) else {}, level):
        for key in _WRAPPING_FIELDS:
            value = holder.get(key)
            if isinstance(value, str):
                found = _embedded(value)
                if found is not None:
                    yield found
                elif key == "raw" and value.strip():
                    yield value
            elif isinstance(value, Mapping):
                yield value
    if isinstance(metadata, Mapping) and isinstance(metadata.get("error"), Mapping):
        yield metadata["error"]
    # Cloudflare: {"success": false, "errors": [{"code": 3040, "message": "…"}]}
    for errors in (level.get("errors"), level.get("error")):
        for item in errors[:1] if isinstance(errors, list) else ():
            if isinstance(item, Mapping | str):
                yield item
    # LiteLLM: {"message": "litellm.BadRequestError: AnthropicException - {\"type\": \"error\", \"error\": …}"}
    message = level.get("message")
    found = _embedded(message) if isinstance(message, str) else None
    if found is not None:
        yield found


def _embedded(text: str) -> Mapping[str, Any] | None:
    """The object in a text, if it is an error; else None. It is JSON, or JSON and dicts as Python shows them.

    ``Error code: 400 - {'error': …}`` is what the openai package raises, ``Exception - b'{"error": …}'`` LiteLLM.
    """
    for part in (_unquoted(text), text):
        begin = part.find("{")
        if begin < 0:
            continue
        for read_json in (str, _json_of_repr):
            try:
                found, _ = json.JSONDecoder().raw_decode(read_json(part[begin:]))
            except (ValueError, RecursionError):
                continue
            if isinstance(found, Mapping) and found.keys() & {"error", "message", "errors", "detail", "Message"}:
                return found
    return None


_QUOTED_OBJECT = re.compile(r"""b?(?:'(?=\{)(?:[^'\\]|\\.)*'|"(?=\{)(?:[^"\\]|\\.)*")""", re.DOTALL)
_REPR_TOKEN = re.compile(r"""'((?:[^'\\]|\\.)*)'|"(?:[^"\\]|\\.)*"|\b(?:None|True|False)\b""", re.DOTALL)
_REPR_NAMES = {"None": "null", "True": "true", "False": "false"}


def _unquoted(text: str) -> str:
    """The first object inside quotes, which Python put around a string or bytes; an empty string if there is none."""
    found = _QUOTED_OBJECT.search(text)
    try:
        value = ast.literal_eval(found[0]) if found else ""  # one literal: nothing that could nest too deeply
    except (ValueError, SyntaxError):
        return ""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _json_of_repr(text: str) -> str:
    """A dict as Python shows it, as JSON."""

    def as_json(token: re.Match[str]) -> str:
        quoted = token[0] if token[1] is None else '"' + token[1].replace('"', '\\"') + '"'
        return _REPR_NAMES.get(quoted) or re.sub(r"\\x(..)", r"\\u00\1", quoted).replace("\\'", "'")

    return _REPR_TOKEN.sub(as_json, text)


def _text(value: Any) -> str:
    """The value if it is a string; the first error if it is a list of FastAPI errors; else an empty string."""
    # FastAPI: [{"loc": ["body", "model"], "msg": "Field required", "input": …}]
    first = value[0] if isinstance(value, list) and value else None
    if isinstance(first, Mapping) and isinstance(first.get("msg"), str):
        path = first.get("loc")
        return ".".join(map(str, path)) + f": {first['msg']}" if isinstance(path, list) else first["msg"]
    if isinstance(value, list) and all(isinstance(item, str) for item in value):  # NestJS: one for each field
        return "; ".join(value)
    return value if isinstance(value, str) else ""


def _code_name(code: str) -> str:
    """The code without Amazon's additions: com.amazonaws.bedrock#ThrottlingException, …Exception:http://…"""
    return _on_one_line(code.rpartition("#")[2].partition(":http")[0])[:_MAX_NAME]


def _status_number(value: Any) -> int | None:
    if isinstance(value, str) and value.isdecimal() and len(value) == 3:
        value = int(value)
    return value if isinstance(value, int) and 400 <= value <= 599 else None


def _parse_body(text: str) -> Any:
    """The JSON of a body, or of its first event if it is a stream; None if it is not JSON."""
    data = re.match(r"(?:event:.*\n)?data:(.*)", text)
    try:
        return json.loads(data[1] if data else text)
    except (ValueError, RecursionError):
        return None


def _excerpt(text: str) -> str:
    """The beginning of a body, on one line."""
    return _on_one_line(text[:1000])[:300]


def _on_one_line(text: str) -> str:
    """The text without line breaks and control characters, which could forge log lines or steer a terminal."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


# --- headers ---------------------------------------------------------------------------------------------------------


def retry_after(headers: Mapping[str, str]) -> float | None:
    """How many seconds to wait, by the header ``retry-after-ms`` or else ``retry-after`` (seconds or an HTTP date).

    None if neither is there, or the value makes no sense.
    """
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    header = headers.get("retry-after")
    seconds = _number(header)
    if seconds is not None or not header:
        return seconds
    try:
        date = parsedate_to_datetime(header)
        if date.tzinfo is None:  # HTTP dates are GMT, also in the obsolete form without a time zone
            date = date.replace(tzinfo=timezone.utc)
        left = date.timestamp() - time.time()
    except (ValueError, TypeError, OverflowError, OSError):
        return None
    return left if left >= 0 else None


# Please try again in 1m30.5s (OpenAI); Please retry in 36.5s (Google); Retry after 26 seconds (Azure);
# Please wait 30 seconds; retry_after: 3
_WAIT = re.compile(
    r"(?:\b(?:try again|retry(?:ing)?|wait|available again|resets?)\b[^.\n]{0,30}?\b(?:in|after|for)\b:?\s*"
    r"|\bwait (?:at least |another )?(?=\d)|\bretry[_-]after[\"']?\s*[:=]\s*)"
    r"((?:\d+(?:\.\d+)?\s*(?:[a-z]+\b|[a-z]+(?=\d))?\s*(?:and\s+)?){1,4})",
    re.IGNORECASE,
)
_WAIT_PART = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]*)", re.IGNORECASE)
_UNITS = {"": 1, "ms": 0.001, "milli": 0.001, "s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600, "hr": 3600, "hour": 3600}
_UNITS |= {"second": 1, "minute": 60, "millisecond": 0.001, "d": 86400, "day": 86400}
_MAX_WAIT_S = 30 * 86400  # a longer one is not a time to wait


def _told_wait(message: str) -> float | None:
    """The seconds to wait that stand in the text of a message; None if there are none."""
    found = _WAIT.search(message[:_MAX_MESSAGE])
    if found is None:
        return None
    seconds = 0.0
    for number, unit in _WAIT_PART.findall(found[1]):
        unit = unit.lower()
        factor = _UNITS.get(unit, _UNITS.get(unit.removesuffix("s")) if unit != "s" else 1)
        if factor is None:
            break
        seconds += float(number) * factor
    return seconds if 0 < seconds <= _MAX_WAIT_S else None


def _number(text: str | None) -> float | None:
    """The text as a number that is finite and not negative, else None."""
    try:
        number = float(text) if text else -1.0
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None


def _first_not_none(*values: float | None) -> float | None:
    return next((value for value in values if value is not None), None)


def _bool(text: str | None) -> bool | None:
    return {"true": True, "false": False}.get((text or "").strip().lower())
