"""What an endpoint must know of a wire format."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from completion.contract.chunks import StreamChunk

Events = Iterator[tuple[str, Any]]
"""Name and JSON value of each event."""


OnEndOfTurn = Callable[[float | None], None]
"""To be called when the provider's end of turn has been read: with the seconds to wait for all that follows. A later
call can only shorten the wait. With None, more of the answer came, and the next part is waited for like any other."""


WAIT_FOR_USAGE_S = 5.0
"""Seconds after a finish reason: counters and late errors come behind it."""


WAIT_FOR_EOF_S = 0.5
"""Seconds after the last word of a turn, which some servers leave the connection open behind."""


Assemble = Callable[[Events, OnEndOfTurn], Iterator[StreamChunk]]
"""From events to chunks."""
