"""The JSON of a line: its size is limited, however long its texts are."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from completion.contract.codec import Record, json_fields

SCHEMA = 1
"""The version of the lines. Increase it when programs that read traces must change."""

MAX_CHARS = 1024 * 1024
"""The most characters of text in a line."""

_OTHER_CHARS = 8  # how many characters a value that is not text counts as

# ASCII only: a line that is truncated at any byte is still valid text, and a file in any encoding can be written.
encode_text = json.encoder.encode_basestring_ascii
_encoder = json.JSONEncoder(allow_nan=False, separators=(",", ":"))


def encoded(facts: dict[str, Any]) -> tuple[str, int]:
    """The facts as a JSON object, and how much was left out: characters of texts, items of lists and objects.

    A value that JSON does not support (NaN, an object that contains itself, keys that are not strings) is replaced by
    its ``repr``.
    """
    truncator = _Truncator()
    try:
        return _encoder.encode(truncator.with_all_keys(facts.items())), truncator.left_out
    except (ValueError, TypeError, RecursionError):
        # Rare: find out which of the values cannot be encoded.
        truncator = _Truncator()
        values = {str(key): truncator.encodable(value) for key, value in facts.items()}
        return _encoder.encode(values), truncator.left_out


def json_chars(value: Any) -> int:
    """The length of the value as JSON; approximate if it is longer than ``MAX_CHARS``."""
    text, left_out = encoded({"": value})
    return len(text) - len('{"":}') + left_out


class _Truncator:
    """Converts values to types of JSON, until the text of a line reaches ``MAX_CHARS``."""

    def __init__(self) -> None:
        self.left_out = 0
        self._remaining = MAX_CHARS

    def with_all_keys(self, items: Iterable[tuple[str, Any]]) -> dict[str, Any]:
        """The items as an object. No key is left out: a line and a chunk have few keys, and these are short."""
        return {key: self.truncated(value) for key, value in items}

    def truncated(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, dict):
            kept = {}
            for key, item in value.items():
                if self._remaining <= 0:
                    break
                kept[self._text(key) if isinstance(key, str) else key] = self.truncated(item)
            self.left_out += len(value) - len(kept)
            return kept
        if isinstance(value, list | tuple):
            items = []
            for item in value:
                if self._remaining <= 0:
                    break
                items.append(self.truncated(item))
            self.left_out += len(value) - len(items)
            return items
        self._remaining -= _OTHER_CHARS
        if value is None or isinstance(value, int | float):
            return value
        if not isinstance(value, Record):
            return self._text(repr(value))
        named = self.with_all_keys(json_fields(value))
        tag = getattr(type(value), "type", None)
        return {"type": tag, **named} if isinstance(tag, str) else named

    def encodable(self, value: Any) -> Any:
        """The truncated value, or its ``repr`` if JSON does not support it."""
        before = self.left_out, self._remaining
        try:
            converted = self.truncated(value)
            _encoder.encode(converted)
            return converted
        except (ValueError, TypeError, RecursionError):
            self.left_out, self._remaining = before
            with suppress(RecursionError):
                return self._text(repr(value))
            return f"<{type(value).__name__}, nested too deeply>"

    def _text(self, text: str) -> str:
        kept = text[: max(self._remaining, 0)]
        self._remaining -= len(kept) + 1  # 1: many empty texts must reach the limit too
        self.left_out += len(text) - len(kept)
        return kept
