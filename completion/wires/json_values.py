"""Reading single JSON values of an event: strings, numbers, lists of objects, and surrogate pairs cut in two."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from completion.contract.chunks import ProviderBlockFinished
from completion.contract.citations import Citation
from completion.contract.errors import MalformedStreamError

MAX_DEPTH = 100
"""How many levels of objects and lists a model may send inside each other. Deeper JSON can be parsed, but not always be
copied, pickled or sent back: those recurse, and reach Python's recursion limit sooner the deeper the caller is."""


def provider_block(wire: str, data: dict[str, Any], citations: tuple[Citation, ...] = ()) -> ProviderBlockFinished:
    """The chunk for a block of a kind that the contract does not model. ``citations``: the sources that it cites.

    NaN and infinities become null: they are not JSON, so a history with them could not be sent.

    Raises:
        MalformedStreamError: it is nested deeper than MAX_DEPTH.
    """
    if is_too_deep(data):
        raise MalformedStreamError(f"a block of the answer is nested too deeply: {MAX_DEPTH} levels are allowed")
    return ProviderBlockFinished(wire, {key: _nan_to_none(value) for key, value in data.items()}, citations)


def _nan_to_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _nan_to_none(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_nan_to_none(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def is_too_deep(value: Any) -> bool:
    """The value is nested deeper than MAX_DEPTH. Goes level by level: a recursive check would fail where it matters."""
    level = [value]
    for _ in range(MAX_DEPTH):
        # A string is iterated like a list: its characters are not containers.
        children = [item for parent in level for item in (parent.values() if isinstance(parent, dict) else parent)]
        level = [item for item in children if isinstance(item, dict | list)]
        if not level:
            return False
    return True


def str_or_empty(value: Any) -> str:
    """The value if it is a string, else an empty string."""
    return value if isinstance(value, str) else ""


# Python cannot print an int of more than 4300 digits. A sum of usage counters must stay below that as well.
_MAX_INT = 10**4000


def positive_int(fields: Any, name: str) -> int:
    """The number in the field of this name, as an int; 0 if it is missing or is not a positive number."""
    value = fields.get(name) if isinstance(fields, dict) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0
    return int(value) if 0 < value < _MAX_INT else 0  # False for NaN too


has_surrogates = re.compile("[\ud800-\udfff]").search
"""Whether a text contains half of a surrogate pair."""


def join_surrogates(text: str) -> tuple[str, str]:
    """The text with its surrogate pairs joined, and the first half of a pair at its end, if there is one.

    Gateways that cut text by UTF-16 units send the two halves in two pieces. A half without its partner becomes U+FFFD,
    because it cannot be encoded as UTF-8.
    """
    half = text[-1:] if "\ud800" <= text[-1:] <= "\udbff" else ""
    rest = text[: len(text) - len(half)]
    return without_surrogates(rest), half


def without_none(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def without_surrogates(text: str) -> str:
    """The text with its surrogate pairs joined, and every half of a pair replaced by U+FFFD."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def objects_in(value: Any) -> list[dict[str, Any]]:
    """The JSON objects of a list. An object alone counts as a list of one; for any other value the list is empty."""
    if isinstance(value, dict):
        return [value] if value else []
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
