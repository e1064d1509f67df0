"""From bytes to events: each module turns the pieces of a body into ``(name, JSON value)`` pairs.

    pieces of bytes -> sse_events, ndjson_events -> ("message", {"choices": […]}), …

All decoders have one signature, so a wire names the one it needs and nothing else changes.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

Events = Iterator[tuple[str, Any]]
"""Name and JSON value of each event."""

ReadEvents = Callable[[Iterable[bytes], int], Events]
"""A decoder: the pieces of a body, and the size in bytes that an event may have at most."""

DONE: Final = object()
"""Stands for the event ``[DONE]``, with which Chat Completions ends a stream. Nothing is read after it."""

MAX_EVENT_BYTES: Final = 16 * 1024 * 1024
"""The largest event that is read unless the caller says otherwise."""
