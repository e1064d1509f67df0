"""Which parts of a list of messages are shortened or removed, so that a request fits.

    old tool results -> the oldest exchanges -> the middle of the last exchange -> new tool results

An exchange is a message of the user and everything up to the next one: answers, tool calls and tool results. The last
exchange keeps the user's message and its latest step. A tool result is never separated from its call: a provider would
refuse it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from completion.contract.messages import AnyBlock, Message, ProviderBlock, TextBlock, ToolResultBlock
from completion.engine.cutting import shortened
from completion.engine.size import guess_message

_OLD_RESULT_CHARS = 300
"""How much of an old tool result remains: enough to know what it was. The model can call the tool again."""


class Shortening:
    """A plan for these messages. Its positions may be applied to others: those before middleware changed their words.

    Args:
        messages: what would be sent.
        starts: the positions of the messages with which exchanges begin.
        rest: the guessed tokens of the request without its messages.
    """

    def __init__(self, messages: Sequence[Message], starts: Sequence[int], rest: float) -> None:
        self._messages = messages
        self._starts = starts
        self._last_start = starts[-1] if starts else -1  # -1: middleware has removed it, and all messages are steps
        self._sizes = [guess_message(message) for message in messages]
        self._guess = rest + sum(self._sizes)  # of the request after the plan
        self._cuts: dict[int, _Cut] = {}  # of the tool results of the message at this position
        self._first_kept = 0
        self._middle = range(0)  # positions in the last exchange

    @property
    def changes_nothing(self) -> bool:
        return not self._cuts and not self.removes_messages

    @property
    def removes_messages(self) -> bool:
        return bool(self._first_kept or self._middle)

    @property
    def removes_steps(self) -> bool:
        """Whether a part of the last exchange is removed."""
        return bool(self._middle)

    @property
    def removed(self) -> tuple[Message, ...]:
        """The removed messages, with their whole tool results."""
        return tuple(one for i, one in enumerate(self._messages) if i < self._first_kept or i in self._middle)

    def fit(self, target: float, most: float) -> None:
        """Make the guess at most ``most``. If messages must be removed for it, remove until it is ``target``.

        Short results alone need not reach the target: they change only the end of the history, and the provider's
        prompt cache keeps the rest.
        """
        answers = [i for i, message in enumerate(self._messages) if message.role == "assistant"]
        newest = answers[-1] if answers else -1  # the model has not read the results after its last message
        for i in range(newest):
            if self._guess > target:
                self._cut_results(i, _Cut(_OLD_RESULT_CHARS, keeps_media=False))
        if self._guess > most:
            self._remove_exchanges(target)
            self._remove_steps(target)
        self._shorten_new_results(newest + 1, most)

    def apply(self, messages: Sequence[Message], replacement: Sequence[Message]) -> tuple[Message, ...]:
        """The messages after the plan, with the replacement in place of the removed ones.

        It stands in front, or behind the user's message if a part of the last exchange was removed.
        """
        kept = [self._cuts[i].applied_to(message) if i in self._cuts else message for i, message in enumerate(messages)]
        if not self._middle:
            return (*replacement, *kept[self._first_kept :])
        before, after = kept[self._first_kept : self._middle.start], kept[self._middle.stop :]
        return (*before, *replacement, *after)

    def new_position(self, position: int, replacement_count: int) -> int:
        """Where the message at this position, or the last exchange with it, is after the plan."""
        if self._middle:
            return self._last_start - self._first_kept
        return position - self._first_kept + (replacement_count if self._first_kept else 0)

    def _cut_results(self, position: int, cut: _Cut) -> None:
        size = guess_message(cut.applied_to(self._messages[position]))
        if size < self._sizes[position]:
            self._guess -= self._sizes[position] - size
            self._sizes[position] = size
            self._cuts[position] = cut

    def _remove_exchanges(self, target: float) -> None:
        for i in self._starts:
            if self._guess > target:
                self._guess -= sum(self._sizes[self._first_kept : i])
                self._first_kept = i

    def _remove_steps(self, target: float) -> None:
        """Remove the oldest steps of the last exchange. A continued answer is one step: it has no user message."""
        first = done = self._last_start + 1
        has_step = False
        for i in range(first + 1, len(self._messages)):
            if self._guess <= target:
                return
            has_step |= self._messages[i - 1].role == "assistant"
            if has_step and (self._messages[i - 1].role, self._messages[i].role) == ("user", "assistant"):
                self._guess -= sum(self._sizes[done:i])
                self._middle, done = range(first, i), i

    def _shorten_new_results(self, first: int, most: float) -> None:
        new = range(max(first, self._first_kept), len(self._messages))
        max_chars = max((_text_length(self._messages[i]) for i in new), default=0)
        while self._guess > most and max_chars > _OLD_RESULT_CHARS:
            max_chars = max(max_chars // 2, _OLD_RESULT_CHARS)
            for i in new:
                self._cut_results(i, _Cut(max_chars))


@dataclass(frozen=True, slots=True)
class _Cut:
    """What remains of the tool results of a message."""

    max_chars: int
    keeps_media: bool = True

    def applied_to(self, message: Message) -> Message:
        return replace(message, blocks=tuple(map(self._applied_to_block, message.blocks)))

    def _applied_to_block(self, block: AnyBlock) -> AnyBlock:
        if not isinstance(block, ToolResultBlock):
            return block
        if not self.keeps_media:
            block = replace(block, blocks=tuple(map(_without_media, block.blocks)))
        return shortened(block, self.max_chars)


def _without_media(block: AnyBlock) -> AnyBlock:
    return block if isinstance(block, TextBlock | ProviderBlock) else TextBlock(f"[{block.type}: removed]")


def _text_length(message: Message) -> int:
    """The length of the longest tool result."""
    results = [block for block in message.blocks if isinstance(block, ToolResultBlock)]
    return max(
        (sum(len(one.text) for one in block.blocks if isinstance(one, TextBlock)) for block in results), default=0
    )
