"""From bytes to events: each module turns the pieces of a body into ``(name, JSON value)`` pairs.

    pieces of bytes -> sse_events, ndjson_events -> ("message", {"choices": […]}), …

All decoders have one signature, so a wire names the one that it needs, and the code around it stays the same.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

Events = Iterator[tuple[str, Any]]
"""Name and JSON value of each event."""

ReadEvents = Callable[[Iterable[bytes], int], Events]
"""A decoder: takes the pieces of a body, and the maximum size of an event in bytes."""

DONE: Final = object()
"""The value of the event ``[DONE]``, with which Chat Completions ends a stream. Nothing is read after it."""

MAX_EVENT_BYTES: Final = 16 * 1024 * 1024
"""The maximum size of an event, unless the caller passes another one."""
