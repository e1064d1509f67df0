"""From a provider's refusal to our error: one table from status and body, for all adapters.

    HTTP status decides first, the body's code or type refines:  400 + context_length_exceeded -> ContextOverflowError

The same table reads an error object inside a 200 body, where the status is the provider's own number, or none.

It is one table, and not a part of each adapter: gateways and compatible servers pass on the codes of whoever stands
behind them, and no code means one thing here and another there.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timezone
from email.utils import parsedate_to_datetime
from typing import Any

from completion.contract.errors import (
    CompletionError,
    ConfigurationError,
    InvalidRequestError,
    MalformedStreamError,
    ProviderError,
    ServerError,
    Transient,
)
from completion.wires.refusal_words import (
    _ADVICE,
    _ALONE_BY_WORD,
    _BY_STATUS,
    _OF_A_SERVER,
    _PHRASES,
    _REFINING_BY_WORD,
    Kind,
    _folded,
)

# --- the table -------------------------------------------------------------------------------------------------------


def _kind(status: int | None, codes: list[str], message: str) -> Kind:
    refined = _first(codes, _REFINING_BY_WORD) or _of_phrase(status, message.lower())
    if status is None:
        return refined or _first(codes, _ALONE_BY_WORD) or ProviderError
    if status == 401 or (status >= 500 and refined not in _OF_A_SERVER):
        refined = None
    return refined or _BY_STATUS.get(status, ServerError if status >= 500 else InvalidRequestError)


def _first(codes: list[str], table: Mapping[str, Kind]) -> Kind | None:
    return next((table[word] for word in map(_folded, codes) if word in table), None)


def _of_phrase(status: int | None, message: str) -> Kind | None:
    for kind, statuses, phrases in _PHRASES:
        if status in statuses and any(phrase in message for phrase in phrases):
            return kind
    return None


# --- from a response to an error -------------------------------------------------------------------------------------


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
    said = _said(_parsed(text))
    if headers.get("x-amzn-errortype"):  # Bedrock
        said.codes.insert(0, _name(headers["x-amzn-errortype"]))
    return _error(
        status,
        said,
        said.message or _plain(text) or f"HTTP status {status}",
        body=text,
        request_id=request_id or said.request_id,
        retry_after=_first_known(retry_after(headers), said.retry_after),
        should_retry=_flag(headers.get("x-should-retry")),
    )


def in_band(value: Any) -> ProviderError:
    """The error for an error object inside a 200 body."""
    said = _said(value)
    text = json.dumps(value, ensure_ascii=False)
    message = said.message or _plain(text)
    return _error(said.number, said, message, body=text, request_id=said.request_id, retry_after=said.retry_after)


def not_a_stream(text: str, content_type: str) -> CompletionError:
    """The error for a 200 whose body is not the stream that it should be."""
    value = _parsed(text)
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, dict) and (value.get("error") or "error" in (value.get("object"), value.get("type"))):
        return in_band(value)
    what = "one JSON object" if isinstance(value, dict) else content_type or "text"
    return MalformedStreamError(
        f"the server answered 200 with {what} instead of an event stream; does base_url point at the API, and does"
        f" the server stream? It begins: {_plain(text)[:200]!r}",
        body=text,
    )


def _error(status: int | None, said: _Said, message: str, **facts: Any) -> ProviderError:
    kind = _kind(status, said.codes, message)
    message = _on_one_line(message)[:_MOST_LETTERS] or "the provider gave no reason"
    error = kind(message, status=status, code=said.codes[0] if said.codes else None, **facts)
    advice = _advice(error)
    if advice:
        error.message = f"{message.removesuffix('.')}; {advice}"
        error.args = (error.message,)
    return error


def _advice(error: ProviderError) -> str | None:
    verdict = error.retry_classification()
    if not isinstance(verdict, Transient):
        return _ADVICE.get(type(error))
    if verdict.retry_after is None or re.search(r"\b(try again|retry) (in|after)\b", error.message, re.IGNORECASE):
        return None  # nobody knows when, or the provider says so itself
    return f"try again in {verdict.retry_after:g} s"


# --- what a body says ------------------------------------------------------------------------------------------------

_MOST_LETTERS = 4000
_MOST_LETTERS_OF_A_NAME = 200

_MESSAGES = ("message", "detail", "details", "msg")
_CODES = ("code", "type", "status", "__type", "error_type", "error_code")
_NUMBERS = ("status_code", "statusCode", "http_status_code")


@dataclass(slots=True)
class _Said:
    """What an error body says, whichever of the shapes in use it has.

    ``{"error": {"message", "type", "code"}}``, ``{"error": "text"}``, ``{"message"}``, ``{"detail"}``,
    ``{"statusCode", "message"}``, ``{"type": "error", "error": …, "request_id"}``, or a list of one of these.
    """

    message: str = ""
    codes: list[str] = field(default_factory=list)
    number: int | None = None
    """The status that the body names."""
    request_id: str | None = None
    retry_after: float | None = None


def _said(value: Any) -> _Said:
    said = _Said()
    if isinstance(value, list) and value:
        value = value[0]
    for level in _levels(value):
        said.message = said.message or next(filter(None, (_text(level.get(key)).strip() for key in _MESSAGES)), "")
        said.request_id = said.request_id or _name(_text(level.get("request_id"))) or None
        for key in (*_CODES, *_NUMBERS):
            code = level.get(key)
            number = _status_number(code)
            if number is not None:
                said.number = said.number or number
            elif isinstance(code, str | int) and not isinstance(code, bool) and code not in ("", "error"):
                said.codes += filter(None, [_name(str(code))])
        # Google: [{"@type": "…ErrorInfo", "reason": "API_KEY_INVALID"}, {"@type": "…RetryInfo", "retryDelay": "7.5s"}]
        details = level.get("details")
        for detail in details if isinstance(details, list) else ():
            if isinstance(detail, Mapping):
                said.codes += filter(None, [_text(detail.get("reason"))])
                said.retry_after = _first_known(said.retry_after, _number(_text(detail.get("retryDelay")).rstrip("s")))
    return said


def _levels(value: Any) -> Iterator[Mapping[str, Any]]:
    """The object's error, what is inside of that, and the object itself: the most telling first."""
    if isinstance(value, str):
        yield {"message": value}
    if not isinstance(value, Mapping):
        return
    inner = value.get("error")
    if isinstance(inner, Mapping):
        yield inner
        for key in ("innererror", "error", "message"):
            if isinstance(inner.get(key), Mapping):
                yield inner[key]
    elif isinstance(inner, str):
        yield {"message": inner} if " " in inner else {"code": inner}
    yield value
    if isinstance(value.get("message"), Mapping):  # Mistral: {"message": {"detail": [{"loc": …, "msg": "…"}]}}
        yield value["message"]
    if isinstance(inner, str):
        yield {"message": inner}


def _text(said: Any) -> str:
    """A text; of FastAPI's complaints the first: [{"loc": ["body", "model"], "msg": "Field required", "input": …}]"""
    if isinstance(said, list) and said and isinstance(said[0], Mapping) and isinstance(said[0].get("msg"), str):
        place = said[0].get("loc")
        return ".".join(map(str, place)) + f": {said[0]['msg']}" if isinstance(place, list) else said[0]["msg"]
    return said if isinstance(said, str) else ""


def _name(code: str) -> str:
    """The code without what Amazon adds: com.amazonaws.bedrock#ThrottlingException, or …Exception:http://…"""
    return _on_one_line(code.rpartition("#")[2].partition(":http")[0])[:_MOST_LETTERS_OF_A_NAME]


def _status_number(word: Any) -> int | None:
    if isinstance(word, str) and word.isdecimal() and len(word) == 3:
        word = int(word)
    return word if isinstance(word, int) and 400 <= word <= 599 else None


def _parsed(text: str) -> Any:
    """The JSON of a body, or of the first event where it is a stream."""
    data = re.match(r"(?:event:.*\n)?data:(.*)", text)
    try:
        return json.loads(data[1] if data else text)
    except (ValueError, RecursionError):
        return None


def _plain(text: str) -> str:
    """The beginning of a body, on one line."""
    return _on_one_line(text[:1000])[:300]


def _on_one_line(text: str) -> str:
    """The text without what would break a log's line or move a terminal's cursor."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


# --- headers ---------------------------------------------------------------------------------------------------------


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


def _number(text: str | None) -> float | None:
    """A number of seconds that one could wait, or None."""
    try:
        number = float(text) if text else -1.0
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None


def _first_known(*seconds: float | None) -> float | None:
    return next((one for one in seconds if one is not None), None)


def _flag(text: str | None) -> bool | None:
    return {"true": True, "false": False}.get((text or "").strip().lower())
