"""From the facts of a line to JSON, of a size that does not grow with what they hold."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import fields
from typing import Any

from completion.contract.codec import Record

MAX_CHARS = 1024 * 1024
"""Characters of text that one line holds at most."""

_OTHER_CHARS = 8  # what a number counts as

# ASCII: a line that was cut off is text all the same, and any file can take it.
encode_text = json.encoder.encode_basestring_ascii
_encoder = json.JSONEncoder(allow_nan=False, separators=(",", ":"))


def encoded(facts: dict[str, Any]) -> tuple[str, int]:
    """JSON, and how much of the facts is left out of it: characters of texts, items of lists and objects.

    A value that cannot be said in JSON (NaN, a circle, keys that are no strings) is replaced by its ``repr``.
    """
    cutter = _Cutter()
    try:
        return _encoder.encode(cutter.named(facts.items())), cutter.cut
    except (ValueError, TypeError, RecursionError):
        cutter = _Cutter()
        return _encoder.encode({str(key): cutter.sayable(value) for key, value in facts.items()}), cutter.cut


def json_chars(value: Any) -> int:
    """How long the value is as JSON; where that is more than a line may hold, about."""
    text, cut = encoded({"": value})
    return len(text) - len('{"":}') + cut


class _Cutter:
    """Values as JSON has them, and as much of their text as a line has room for."""

    def __init__(self) -> None:
        self.cut = 0
        self._left = MAX_CHARS

    def named(self, items: Iterable[tuple[str, Any]]) -> dict[str, Any]:
        """An object that keeps all its keys."""
        return {key: self.of(value) for key, value in items}

    def of(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, dict):
            kept = {}
            for key, item in value.items():
                if self._left <= 0:
                    break
                kept[self._text(key) if isinstance(key, str) else key] = self.of(item)
            self.cut += len(value) - len(kept)
            return kept
        if isinstance(value, list | tuple):
            items = []
            for item in value:
                if self._left <= 0:
                    break
                items.append(self.of(item))
            self.cut += len(value) - len(items)
            return items
        self._left -= _OTHER_CHARS
        if value is None or isinstance(value, int | float):
            return value
        if not isinstance(value, Record):
            return self._text(repr(value))
        named = self.named((field.name, getattr(value, field.name)) for field in fields(value))  # type: ignore[arg-type]
        tag = getattr(type(value), "type", None)
        return {"type": tag, **named} if isinstance(tag, str) else named

    def sayable(self, value: Any) -> Any:
        """The value, or its ``repr``."""
        before = self.cut, self._left
        try:
            shown = self.of(value)
            _encoder.encode(shown)
            return shown
        except (ValueError, TypeError, RecursionError):
            self.cut, self._left = before
            with suppress(RecursionError):
                return self._text(repr(value))
            return f"<{type(value).__name__}, nested too deeply>"

    def _text(self, text: str) -> str:
        kept = text[: max(self._left, 0)]
        self._left -= len(kept) + 1
        self.cut += len(text) - len(kept)
        return kept
