"""What the body of an error says, in any of the shapes of providers, gateways and web frameworks.

    {"error": {"message": …, "code": …}}, {"detail": …}, an error inside another one -> ErrorBody(message, codes, …)

Gateways pass on the error of a provider inside their own; the innermost message and code count.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from itertools import islice
from typing import Any

from completion.wires.waits import number

_MAX_NAME = 200
_MAX_LEVELS = 300  # a hostile body may nest thousands

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
class ErrorBody:
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


def read_error(value: Any) -> ErrorBody:
    """What the JSON of an error body says. Of each fact, the most specific object that has it counts; see ``_levels``.

    ``codes`` has the codes of all objects, the most specific first.
    """
    parsed = ErrorBody()
    if isinstance(value, list) and value:
        value = value[0]
    for level in islice(_levels(value), _MAX_LEVELS):
        messages = (_text(level.get(key)).strip() for key in _MESSAGE_FIELDS)
        parsed.message = parsed.message or next(filter(None, messages), "")
        parsed.request_id = parsed.request_id or code_name(_text(level.get("request_id"))) or None
        for key in (*_CODE_FIELDS, *_STATUS_FIELDS):
            code = level.get(key)
            status = _status_number(code)
            if status is not None:
                parsed.status = parsed.status or status
            elif isinstance(code, str | int) and not isinstance(code, bool) and code not in _NOT_A_CODE:
                parsed.codes += filter(None, [code_name(str(code))])
        metadata = level.get("metadata")
        for holder in (level, metadata if isinstance(metadata, Mapping) else {}):
            waits = (number(str(holder[key])) for key in _WAIT_FIELDS if key in holder)
            parsed.retry_after = first_not_none(parsed.retry_after, *waits)
        # Google: [{"@type": "…ErrorInfo", "reason": "API_KEY_INVALID"}, {"@type": "…RetryInfo", "retryDelay": "7.5s"}]
        details = level.get("details")
        for detail in details if isinstance(details, list) else ():
            if isinstance(detail, Mapping):
                parsed.codes += filter(None, [_text(detail.get("reason"))])
                seconds = number(_text(detail.get("retryDelay")).rstrip("s"))
                parsed.retry_after = first_not_none(parsed.retry_after, seconds)
    return parsed


def _levels(value: Any, depth: int = 0) -> Iterator[Mapping[str, Any]]:
    """The objects that may contain the message and the code, the most specific first, because the first message counts.

    The error that a gateway passes on comes before the gateway's own: wrapped errors, then ``error``, then the body.
    """
    if isinstance(value, str):
        yield {"message": value}
    if not isinstance(value, Mapping):
        return
    if depth < _MAX_DEPTH:
        for wrapped in _wrapped(value):
            yield from _levels(wrapped, depth + 1)
    inner = value.get("error")
    if isinstance(inner, str):
        # {"error": "out of memory"} is a message, {"error": "over_capacity"} is a code. {"error": "Bad Request",
        # "message": …}, the form of web frameworks, repeats the status.
        is_message = " " in inner and inner.title() not in _PHRASES_OF_HTTP
        yield {"message": inner} if is_message else {"code": inner} if " " not in inner else {}
    yield value
    if isinstance(value.get("base_resp"), Mapping):  # MiniMax: {"base_resp": {"status_code": 1008, "status_msg": "…"}}
        yield {"message": value["base_resp"].get("status_msg")}
    # Azure: {"code": "…", "message": "…", "innererror": {"code": "…"}}
    # Mistral: {"message": {"detail": [{"loc": …, "msg": "…"}]}}
    for key in ("innererror", "message"):
        if isinstance(value.get(key), Mapping) and depth < _MAX_DEPTH:
            yield from _levels(value[key], depth + 1)
    if isinstance(inner, str):  # a code is the message as well if there is no other
        yield {"message": inner}


_PHRASES_OF_HTTP = {status.phrase.title() for status in HTTPStatus}
_MAX_DEPTH = 8  # two objects for each of four gateways in front of each other

_WRAPPING_FIELDS = (
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
    "fault",  # Apigee
    "data",
    "body",
)


def _wrapped(level: Mapping[str, Any]) -> Iterator[Any]:
    """The errors of a provider that a gateway passes on inside its own error."""
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
    """The error object inside a text: JSON, or the ``repr`` of a dict, of a string or of bytes. None if there is none.

    The openai package raises ``Error code: 400 - {'error': …}``, and LiteLLM ``Exception - b'{"error": …}'``.
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
    """The text of the first ``repr`` of a string or of bytes that begins with ``{``; an empty string if none."""
    found = _QUOTED_OBJECT.search(text)
    try:
        value = ast.literal_eval(found[0]) if found else ""  # one literal: nothing that could nest too deeply
    except (ValueError, SyntaxError):
        return ""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _json_of_repr(text: str) -> str:
    """The ``repr`` of a dict, changed to JSON."""

    def as_json(token: re.Match[str]) -> str:
        quoted = token[0] if token[1] is None else '"' + token[1].replace('"', '\\"') + '"'
        return _REPR_NAMES.get(quoted) or re.sub(r"\\x(..)", r"\\u00\1", quoted).replace("\\'", "'")

    return _REPR_TOKEN.sub(as_json, text)


def _text(value: Any) -> str:
    """The value if it is a string; of a list, the first FastAPI error or all strings; else an empty string."""
    # FastAPI: [{"loc": ["body", "model"], "msg": "Field required", "input": …}]
    first = value[0] if isinstance(value, list) and value else None
    if isinstance(first, Mapping) and isinstance(first.get("msg"), str):
        path = first.get("loc")
        return ".".join(map(str, path)) + f": {first['msg']}" if isinstance(path, list) else first["msg"]
    if isinstance(value, list) and all(isinstance(item, str) for item in value):  # NestJS: a message for each field
        return "; ".join(value)
    return value if isinstance(value, str) else ""


def code_name(code: str) -> str:
    """The code without Amazon's additions: com.amazonaws.bedrock#ThrottlingException, …Exception:http://…"""
    return on_one_line(code.rpartition("#")[2].partition(":http")[0])[:_MAX_NAME]


def _status_number(value: Any) -> int | None:
    """The value if it is an HTTP status of an error, as a number or as digits; else None."""
    if isinstance(value, str) and value.isdecimal() and len(value) == 3:
        value = int(value)
    return value if isinstance(value, int) and 400 <= value <= 599 else None


def parse_body(text: str) -> Any:
    """The JSON of a body, or of its first event if it is a stream; None if it is not JSON."""
    data = re.match(r"(?:event:.*\n)?data:(.*)", text)
    try:
        return json.loads(data[1] if data else text)
    except (ValueError, RecursionError):
        return None


def on_one_line(text: str) -> str:
    """The text without line breaks and control characters, which could forge log lines or steer a terminal."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


def first_not_none(*values: float | None) -> float | None:
    return next((value for value in values if value is not None), None)
