"""A tool call as it arrives, piece by piece."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from enum import Enum
from typing import Any

from completion.contract.chunks import (
    StreamChunk,
    ToolCallArgsDelta,
    ToolCallFinished,
    ToolCallMalformed,
    ToolCallStarted,
)
from completion.wires.arguments import OBJECT, Arguments


class CallState(Enum):
    OPENED = "opened"
    """More of the call is expected."""
    COMPLETE = "complete"
    """Id, name and arguments are there. The next thing of the turn ends the call."""
    CLOSED = "closed"
    """The provider said that the call is complete. Most providers do not say it."""
    ENDED = "ended"
    """The last chunk of the call was yielded."""


OPENED, COMPLETE, CLOSED, ENDED = CallState


class ToolCall:
    """One tool call: the first id and the first name that are not empty count, and the arguments add up.

    Args:
        provider_id: the provider's id; may arrive later, or never.
        name: the tool; may arrive later.
    """

    __slots__ = ("_pieces_yielded", "_state", "arguments", "call_id", "name", "provider_id", "signature", "wire_data")

    def __init__(self, provider_id: str = "", name: str = "") -> None:
        self.provider_id = provider_id
        self.name = name
        self.signature: str | None = None
        self.wire_data: dict[str, Any] | None = None
        """What the wire needs besides the signature to send the call back."""
        self.arguments = Arguments()
        self.call_id = ""
        """The id in the chunks, from the first chunk on: the provider's, or a made-up one if that is missing or is the
        id of an earlier call."""
        self._state = OPENED
        self._pieces_yielded = 0

    @property
    def state(self) -> CallState:
        if self._state is OPENED and self.provider_id and self.name and self.arguments.state is OBJECT:
            return COMPLETE
        return self._state

    def add(self, text: str) -> None:
        """More of the arguments."""
        self.arguments.add(text)

    def close(self) -> None:
        """The provider said that the call is complete."""
        self._state = CLOSED

    def new_chunks(self, used_ids: Collection[str] = ()) -> Iterator[StreamChunk]:
        """The chunks that were not yielded yet. Nothing is yielded until both id and name are known.

        ``used_ids``: the ids of earlier calls of the turn.
        """
        if self.provider_id and self.name:
            yield from self._start_and_deltas(used_ids)

    def last_chunks(self, used_ids: Collection[str] = (), origin: str | None = None) -> Iterator[StreamChunk]:
        """The rest of the call, up to its ToolCallFinished or ToolCallMalformed. ``origin``: whose it is."""
        arguments = self.arguments
        arguments.end()
        yield from self._start_and_deltas(used_ids)
        self._state = ENDED
        raw = arguments.text
        if raw and not arguments.pieces:  # nothing followed the placeholder
            yield ToolCallArgsDelta(self.call_id, raw)
        if not self.name:
            yield ToolCallMalformed(self.call_id, "", raw, "the call has no name")
            return
        try:
            args = arguments.take_value()
        except ValueError as exc:
            yield ToolCallMalformed(self.call_id, self.name, raw, f"the arguments are not JSON: {exc}")
            return
        if isinstance(args, dict):
            provider = origin if self.signature is not None or self.wire_data else None
            yield ToolCallFinished(self.call_id, self.name, args, self.signature, provider, self.wire_data)
        else:
            error = f"the arguments are not a JSON object but {type(args).__name__}"
            yield ToolCallMalformed(self.call_id, self.name, raw, error)

    def _start_and_deltas(self, used_ids: Collection[str]) -> Iterator[StreamChunk]:
        if not self.call_id:
            is_usable = self.provider_id and self.provider_id not in used_ids
            self.call_id = self.provider_id if is_usable else made_up_call_id()
            yield ToolCallStarted(self.call_id, self.name)
        pieces = self.arguments.pieces
        while self._pieces_yielded < len(pieces):
            self._pieces_yielded += 1
            yield ToolCallArgsDelta(self.call_id, pieces[self._pieces_yielded - 1])


def made_up_call_id() -> str:
    """An id for a call to which the provider gave no usable one."""
    return f"call_{os.urandom(12).hex()}"


is_made_up = re.compile(r"call_[0-9a-f]{24}").fullmatch
"""Whether an id is one of ``made_up_call_id``."""
