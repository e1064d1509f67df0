"""From the pieces of a turn to chunks in the contract's order: shared by all adapters.

Providers send reasoning, text and the pieces of tool calls as they please, a few of them interleaved. The contract
promises that one thing is finished before the next begins, so what arrives inside an open tool call waits in a line
until the call is over. A call is known to be over when the provider says so, when its arguments are one whole JSON
object, or at the end of the turn; until something else arrives nothing waits and every piece flows through at once.
"""

from __future__ import annotations

from collections import deque

from completion.contract.chunks import (
    ProviderBlockFinished,
    ReasoningDelta,
    ReasoningFinished,
    RedactedReasoning,
    StreamChunk,
    TextDelta,
    ToolCallFinished,
)
from completion.wires.json_values import has_halves, joined_halves
from completion.wires.tool_call import ToolCall, made_up_call_id


class TurnOrder:
    """The order of a turn: what comes in is given out at once, or waits behind an open tool call.

    Methods return the chunks that may go out now, in order. ``calls_finished`` counts ToolCallFinished chunks.
    """

    __slots__ = (
        "_half_text", "_half_thought", "_ids", "_in_reasoning", "_waiting", "calls_finished", "can_yield_text_directly",
        "text_length",
    )  # fmt: skip

    def __init__(self) -> None:
        self.can_yield_text_directly = True
        """No call and no reasoning is open, and no character is cut in two: text may be yielded without asking here.
        Whoever does adds its length to ``text_length``."""
        self.text_length = 0
        """Characters of text so far."""
        self.calls_finished = 0
        self._in_reasoning = False
        # The first half of a character that was cut in two.
        self._half_text = ""
        self._half_thought = ""
        # The open call first, then what arrived since: calls and chunks of other kinds.
        self._waiting: deque[ToolCall | StreamChunk] = deque()
        self._ids: set[str] = set()

    def text(self, delta: str) -> list[StreamChunk]:
        if self._half_text or (not delta.isascii() and has_halves(delta)):
            delta, self._half_text = joined_halves(self._half_text + delta)
        self.text_length += len(delta)
        out = self._next(TextDelta(delta)) if delta else []
        self._update()
        return out

    def end_text(self) -> list[StreamChunk]:
        """No more text follows at once: half of a character becomes U+FFFD."""
        if not self._half_text:
            return []
        self._half_text = ""
        return self.text("\ufffd")

    def reasoning(self, delta: str) -> list[StreamChunk]:
        if self._half_thought or (not delta.isascii() and has_halves(delta)):
            delta, self._half_thought = joined_halves(self._half_thought + delta)
        return self._next(ReasoningDelta(delta)) if delta else []

    def end_reasoning(self, signature: str | None) -> list[StreamChunk]:
        """Closes the reasoning that is open; with none open, an empty one."""
        return self._next(ReasoningFinished(signature))

    def block(self, chunk: RedactedReasoning | ProviderBlockFinished) -> list[StreamChunk]:
        """A block that comes in one piece."""
        return self._next(chunk)

    def call(self, call: ToolCall) -> list[StreamChunk]:
        """A new call. Give its later pieces and its end to the call itself, and then ask ``release``."""
        return self._next(call)

    def release(self) -> list[StreamChunk]:
        """What a new piece of a call has set free."""
        out: list[StreamChunk] = []
        self._advance(out, at_end=False)
        return out

    def end(self) -> list[StreamChunk]:
        """All that still waits, every call and the reasoning closed."""
        out = self.end_text()
        if self._half_thought:
            self._half_thought = ""
            out += self._next(ReasoningDelta("\ufffd"))
        self._advance(out, at_end=True)
        self._close_reasoning(out)
        return out

    def _next(self, item: ToolCall | StreamChunk) -> list[StreamChunk]:
        out: list[StreamChunk] = []
        if self._half_thought and not isinstance(item, ReasoningDelta):
            self._half_thought = ""
            out = self._next(ReasoningDelta("\ufffd"))
        if self._waiting or isinstance(item, ToolCall):
            self._waiting.append(item)
            self._advance(out, at_end=False)
        else:
            self._give(item, out)
        return out

    def _advance(self, out: list[StreamChunk], *, at_end: bool) -> None:
        waiting = self._waiting
        while waiting:
            first = waiting[0]
            if isinstance(first, ToolCall):
                self._close_reasoning(out)
                if first.call_id in self._ids and not first.is_announced:
                    first.given_id = made_up_call_id()
                out.extend(first.flowing())
                if not (at_end or first.is_closed or (len(waiting) > 1 and first.is_settled)):
                    break
                out.extend(first.finished())
                self._ids.add(first.given_id)
                self.calls_finished += isinstance(out[-1], ToolCallFinished)
            else:
                self._give(first, out)
            waiting.popleft()
        self._update()

    def _give(self, chunk: StreamChunk, out: list[StreamChunk]) -> None:
        if isinstance(chunk, ReasoningDelta):
            self._in_reasoning = True
        elif isinstance(chunk, ReasoningFinished):
            self._in_reasoning = False
        else:
            self._close_reasoning(out)
        out.append(chunk)
        self._update()

    def _update(self) -> None:
        self.can_yield_text_directly = not (self._waiting or self._in_reasoning or self._half_text)

    def _close_reasoning(self, out: list[StreamChunk]) -> None:
        if self._in_reasoning:
            out.append(ReasoningFinished())
            self._in_reasoning = False
            self._update()
