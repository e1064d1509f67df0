"""How many seconds a server asks to wait: in its headers, in the body of its error, in the words of a message."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from datetime import timezone
from email.utils import parsedate_to_datetime


def retry_after(headers: Mapping[str, str]) -> float | None:
    """How many seconds to wait, by the header ``retry-after-ms`` or else ``retry-after`` (seconds or an HTTP date).

    None if neither is there, or the value is invalid or in the past.
    """
    milliseconds = number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    header = headers.get("retry-after")
    seconds = number(header)
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
_MAX_WAIT = 30 * 86400  # seconds; a longer time is probably a mistake, and is ignored


def wait_in_words(message: str) -> float | None:
    """How many seconds the text of a message asks to wait; None if it does not say."""
    found = _WAIT.search(message)
    if found is None:
        return None
    seconds = 0.0
    for amount, unit in _WAIT_PART.findall(found[1].lower()):
        factor = _UNITS.get(unit, _UNITS.get(unit.removesuffix("s")))
        if factor is None:
            break
        seconds += float(amount) * factor
    return seconds if 0 < seconds <= _MAX_WAIT else None


def number(text: str | None) -> float | None:
    """The text as a number that is finite and not negative, else None."""
    try:
        value = float(text) if text else -1.0
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None
