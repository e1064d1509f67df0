"""From the pieces of a turn to chunks in the contract's order: shared by all wires.

Providers may interleave reasoning, text and the pieces of several tool calls. The contract promises that one thing
ends before the next begins. So what arrives while a tool call is open waits in a queue until that call has ended. A
call ends when the provider says so, when its arguments are one complete JSON object and something else arrives, or at
the end of the turn. While nothing else arrives, nothing waits: each piece is yielded at once.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from completion.contract.chunks import (
    ProviderBlockFinished,
    ReasoningDelta,
    ReasoningFinished,
    RedactedReasoning,
    StreamChunk,
    TextDelta,
    ToolCallFinished,
)
from completion.wires.json_values import has_surrogates, join_surrogates
from completion.wires.tool_call import CLOSED, COMPLETE, ToolCall


class TurnOrder:
    """The order of a turn. Each method takes what arrived and returns the chunks that may be yielded now, in order."""

    __slots__ = (
        "_half_reasoning", "_half_text", "_in_reasoning", "_used_ids", "_waiting", "calls_finished",
        "can_yield_text_directly", "origin", "reasoning_data", "text_length",
    )  # fmt: skip

    def __init__(self, origin: str | None = None) -> None:
        self.origin = origin
        """The ``provider`` of signatures: the wire, or ``wire@host``."""
        self.reasoning_data: dict[str, Any] | None = None
        """The ``wire_data`` of the open reasoning. Its end resets this to None."""
        self.can_yield_text_directly = True
        """No call and no reasoning is open, and no surrogate pair is cut in two. A wire may then yield a TextDelta
        without calling ``text``, which is faster, but it has to add its length to ``text_length`` itself."""
        self.text_length = 0
        """Characters of text so far."""
        self.calls_finished = 0
        """How many ToolCallFinished were returned; malformed calls do not count."""
        self._in_reasoning = False
        # The first half of a surrogate pair; the second half follows in the next piece.
        self._half_text = ""
        self._half_reasoning = ""
        # The open call first, then what arrived since.
        self._waiting: deque[ToolCall | StreamChunk] = deque()
        self._used_ids: set[str] = set()

    def text(self, delta: str) -> list[StreamChunk]:
        if self._half_text or (not delta.isascii() and has_surrogates(delta)):
            delta, self._half_text = join_surrogates(self._half_text + delta)
        self.text_length += len(delta)
        out = self._add(TextDelta(delta)) if delta else []
        self._update_fast_path()
        return out

    def end_text(self) -> list[StreamChunk]:
        """A block of text ends here: half of a surrogate pair becomes U+FFFD."""
        if not self._half_text:
            return []
        self._half_text = ""
        return self.text("\ufffd")

    def reasoning(self, delta: str) -> list[StreamChunk]:
        if self._half_reasoning or (not delta.isascii() and has_surrogates(delta)):
            delta, self._half_reasoning = join_surrogates(self._half_reasoning + delta)
        return self._add(ReasoningDelta(delta)) if delta else []

    def end_reasoning(self, signature: str | None, wire_data: dict[str, Any] | None = None) -> list[StreamChunk]:
        """Ends the open reasoning. If none is open, the result is an empty reasoning with this signature."""
        wire_data, self.reasoning_data = wire_data or self.reasoning_data, None
        return self._add(self._reasoning_finished(signature, wire_data))

    def _reasoning_finished(self, signature: str | None, wire_data: dict[str, Any] | None) -> ReasoningFinished:
        if signature is not None:
            return ReasoningFinished(signature, self.origin, wire_data)
        # ``provider`` says who signed. Unsigned reasoning keeps its origin beside the other data of the wire.
        return ReasoningFinished(None, None, wire_data and {**wire_data, "origin": self.origin})

    def block(self, chunk: RedactedReasoning | ProviderBlockFinished) -> list[StreamChunk]:
        """A block that arrives in one piece."""
        return self._add(chunk)

    def call(self, call: ToolCall) -> list[StreamChunk]:
        """A new call. Give later pieces to the call itself, then ask ``release``."""
        return self._add(call)

    def release(self) -> list[StreamChunk]:
        """The chunks that may be yielded now that a call got a new piece or was closed."""
        out: list[StreamChunk] = []
        self._release_waiting(out, at_end=False)
        return out

    def end(self) -> list[StreamChunk]:
        """The end of the turn: everything that still waits, with every call and the reasoning ended."""
        out = self.end_text()
        out += self._end_half_reasoning()
        self._release_waiting(out, at_end=True)
        self._end_reasoning(out)
        return out

    def _add(self, item: ToolCall | StreamChunk) -> list[StreamChunk]:
        out = [] if isinstance(item, ReasoningDelta) else self._end_half_reasoning()
        if self._waiting or isinstance(item, ToolCall):
            self._waiting.append(item)
            self._release_waiting(out, at_end=False)
        else:
            self._append_chunk(item, out)
        return out

    def _end_half_reasoning(self) -> list[StreamChunk]:
        """Half of a surrogate pair at the end of the reasoning becomes U+FFFD."""
        if not self._half_reasoning:
            return []
        self._half_reasoning = ""
        return self._add(ReasoningDelta("\ufffd"))

    def _release_waiting(self, out: list[StreamChunk], *, at_end: bool) -> None:
        """Append what need not wait any longer. At the end of the turn that is everything."""
        waiting = self._waiting
        while waiting:
            first = waiting[0]
            if isinstance(first, ToolCall):
                self._end_reasoning(out)
                out.extend(first.new_chunks(self._used_ids))
                state = first.state
                # A complete call stays open as long as nothing waits: one more brace would make it malformed.
                if not (at_end or state is CLOSED or (state is COMPLETE and len(waiting) > 1)):
                    break
                out.extend(first.last_chunks(self._used_ids, self.origin))
                self._used_ids.add(first.call_id)
                self.calls_finished += isinstance(out[-1], ToolCallFinished)
            else:
                self._append_chunk(first, out)
            waiting.popleft()
        self._update_fast_path()

    def _append_chunk(self, chunk: StreamChunk, out: list[StreamChunk]) -> None:
        """Append a chunk, and before it the end of the reasoning if the chunk is something else."""
        if isinstance(chunk, ReasoningDelta):
            self._in_reasoning = True
        elif isinstance(chunk, ReasoningFinished):
            self._in_reasoning = False
        else:
            self._end_reasoning(out)
        out.append(chunk)
        self._update_fast_path()

    def _end_reasoning(self, out: list[StreamChunk]) -> None:
        """Append the end of the reasoning, if a reasoning is open."""
        if self._in_reasoning:
            out.append(self._reasoning_finished(None, self.reasoning_data))
            self.reasoning_data = None
            self._in_reasoning = False
            self._update_fast_path()

    def _update_fast_path(self) -> None:
        self.can_yield_text_directly = not (self._waiting or self._in_reasoning or self._half_text)
