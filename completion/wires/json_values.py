"""Reading single JSON values of an event: strings, counters, finish reasons, halves of characters."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from completion.contract.chunks import ProviderBlockFinished
from completion.contract.errors import MalformedStreamError

MAX_DEPTH = 100
"""How many objects and lists may stand inside each other in what a model sends. What is nested deeper can be read, and
then not be copied, pickled or sent back: Python's recursion limit ends that, the sooner the deeper the caller is."""


def provider_block(wire: str, data: dict[str, Any]) -> ProviderBlockFinished:
    """The chunk for a block of a kind that the contract does not model. NaN and infinities in it become null: a history
    with them could not be sent.

    Raises:
        MalformedStreamError: it is nested deeper than MAX_DEPTH.
    """
    if is_too_deep(data):
        raise MalformedStreamError(f"a block of the answer is nested too deep: {MAX_DEPTH} levels are allowed")
    return ProviderBlockFinished(wire, {key: _with_null(value) for key, value in data.items()})


def _with_null(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_null(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_null(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def is_too_deep(value: Any) -> bool:
    """It is nested deeper than MAX_DEPTH. Looks at one level after the other: this must not recurse."""
    level = [value]
    for _ in range(MAX_DEPTH):
        held = [item for one in level for item in (one.values() if isinstance(one, dict) else one)]
        level = [item for item in held if isinstance(item, dict | list)]
        if not level:
            return False
    return True


def string(value: Any) -> str:
    """The value where it is a string, else an empty one."""
    return value if isinstance(value, str) else ""


_MOST_TOKENS = 10**4000  # Python writes no number of more than 4300 digits, and counters are added


def count(given: Any, name: str) -> int:
    """The number of tokens that ``given`` has under this name; 0 where there is none, or nonsense."""
    value = given.get(name) if isinstance(given, dict) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0
    return int(value) if 0 < value < _MOST_TOKENS else 0  # NaN is neither


has_halves = re.compile("[\ud800-\udfff]").search
"""Whether there is half of a surrogate pair in a text."""


def joined_halves(text: str) -> tuple[str, str]:
    """The text with its surrogate pairs joined, and the half of one at its end, which waits for the other half.

    Gateways that count in UTF-16 cut a character in two. Any other half becomes U+FFFD: nobody could encode it.
    """
    half = text[-1:] if "\ud800" <= text[-1:] <= "\udbff" else ""
    whole = text[: len(text) - len(half)]
    return whole.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace"), half


def without_none(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def objects(given: Any) -> list[dict[str, Any]]:
    return [item for item in given if isinstance(item, dict)] if isinstance(given, list) else []
