"""Makes a history valid for one wire, whichever provider its messages came from.

    messages of any provider -> valid_history(messages, rules, origin) -> messages that this wire accepts

Each wire states what it accepts as ``HistoryRules``. What a model or a tool wrote is repaired here, so that no provider
refuses the next request because of it. What the user wrote is not changed: ``lower`` raises an error if the wire cannot
send it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from completion.contract.messages import (
    AnyBlock,
    AudioBlock,
    Block,
    DocumentBlock,
    ImageBlock,
    Message,
    ProviderBlock,
    ReasoningBlock,
    RedactedReasoningBlock,
    Role,
    TextBlock,
    ToolCallBlock,
    ToolResultBlock,
)
from completion.wires.json_values import has_surrogates, without_surrogates

NO_RESULT = "The tool was not run: there is no result."
"""The result of a call that has none in the history. Every API refuses a call without a result."""

UNNAMED_TOOL = "unknown_tool"
"""The name of a call that the model wrote without a name."""

BEGINNING = "(The conversation begins with your message.)"
"""The user message that goes before a history that begins with the model, on wires where the user must begin."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a request is sent: the wire and the server, as in ``openai-chat@openrouter.ai``.

    Signatures, encrypted reasoning and provider blocks are sent only to the origin that made them.
    """

    wire: str
    host: str | None = None

    def __str__(self) -> str:
        return f"{self.wire}@{self.host}" if self.host else self.wire

    def includes(self, provider: str | None) -> bool:
        """True if a signature with this ``provider`` may be sent there.

        None may be sent everywhere: an old version stored the history without the provider.
        """
        return provider in (None, self.wire, str(self))


@dataclass(frozen=True, slots=True)
class CallIds:
    """Which ids of tool calls a wire accepts.

    Args:
        illegal: matches a character that is not allowed; None allows all.
        max_length: the longest id.
        exact_length: every id has this length; ``illegal`` then allows letters and digits only.
        keep: matches ids that must be sent back unchanged, even if they are too long: a gateway hides a signature in
            them.
    """

    illegal: re.Pattern[str] | None = None
    max_length: int = 64
    exact_length: int | None = None
    keep: re.Pattern[str] | None = None

    def legal(self, call_id: str) -> str:
        """The id itself if the wire accepts it, else a legal one. The same id always becomes the same legal one."""
        if self.keep is not None and self.keep.search(call_id):
            return call_id
        if self.exact_length is not None:
            is_legal = len(call_id) == self.exact_length and not (self.illegal and self.illegal.search(call_id))
            return call_id if is_legal else _digest(call_id)[: self.exact_length]
        legal = self.illegal.sub("_", call_id) if self.illegal else call_id
        if legal == call_id and 0 < len(legal) <= self.max_length:
            return call_id
        return f"{legal[: self.max_length - 9]}_{_digest(call_id)[:8]}"  # 9: the underscore and 8 digits

    def numbered(self, call_id: str, number: int) -> str:
        """A legal id for another call with an id that was used before."""
        return self.legal(f"{call_id}_{number}")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _is_not_reasoning(block: Block) -> bool:
    return not isinstance(block, ReasoningBlock | RedactedReasoningBlock)


def _may_be_returned(block: Block) -> bool:
    return True


def _is_no_call(data: dict[str, Any]) -> None:
    return None


@dataclass(frozen=True, slots=True)
class HistoryRules:
    """What a wire accepts in a history.

    Args:
        call_ids: the ids of tool calls.
        illegal_in_names: matches a character that the name of a tool must not have.
        max_name_length: the longest name of a tool.
        result_blocks: the kinds of blocks that a tool result may contain. Others are moved into the user message, after
            the results.
        error_blocks: the same for a result that is an error.
        can_return: whether a result may contain this image, document or audio, if its kind is accepted there.
        can_send: whether a user message may contain the block; None: the ``can_send`` of ``valid_history`` decides. If
            it may not, the block of a tool result is replaced by a sentence.
        fills_message: whether an assistant message may consist of this block alone. A message without any such block is
            left out.
        begins_with_user: the first message must be the user's.
        provider_call: from the data of a provider block to the id of its call, if a ToolResultBlock answers it; else
            None.
        of_model: from a model id to the rules of that model, if the models of the wire differ.
    """

    call_ids: CallIds = field(default_factory=CallIds)
    illegal_in_names: re.Pattern[str] = re.compile(r"[^a-zA-Z0-9_-]")
    max_name_length: int = 64
    result_blocks: tuple[type[Block], ...] = (TextBlock,)
    error_blocks: tuple[type[Block], ...] = (TextBlock,)
    can_send: Callable[[Block], bool] | None = None
    fills_message: Callable[[Block], bool] = _is_not_reasoning
    begins_with_user: bool = False
    provider_call: Callable[[dict[str, Any]], Any] = _is_no_call
    can_return: Callable[[Block], bool] = _may_be_returned
    of_model: Callable[[str], HistoryRules] | None = None

    def legal_name(self, name: str) -> str:
        """The name if it is legal, else a legal one."""
        return self.illegal_in_names.sub("_", name)[: self.max_name_length] or UNNAMED_TOOL


def valid_history(
    messages: Iterable[Message],
    rules: HistoryRules,
    origin: Origin,
    *,
    can_send: Callable[[Block], bool],
    offered: Collection[str] = (),
) -> list[Message]:
    """The history as the wire accepts it.

    Messages in a row with the same role are merged, and empty ones left out. Every call has a legal id that is unique
    in the history, a legal name, and exactly one result, in the next message. A rewritten id depends only on the
    messages before it, so it stays the same when the history grows: otherwise the provider's prompt cache would be
    lost.

    Args:
        can_send: whether a user message may contain the block; ``rules.can_send`` overrides it.
        offered: the names of the tools in the request. They are sent unchanged, so the calls keep them too.
    """
    merged = _merged(_portable(message, rules, origin) for message in messages)
    valid = list(_Pairing(rules, rules.can_send or can_send, offered).paired(merged))
    if rules.begins_with_user and valid and valid[0].role == "assistant":
        valid.insert(0, Message.user(BEGINNING))
    return valid


# --- what belongs to another provider --------------------------------------------------------------------------------


def _portable(message: Message, rules: HistoryRules, origin: Origin) -> Message:
    """The message without signatures and blocks of other providers, and without halves of surrogate pairs."""
    found = (_portable_block(block, message.role, origin) for block in message.blocks)
    blocks = [block for block in found if block is not None]
    is_sent = message.role == "user" or any(map(rules.fills_message, blocks))
    return Message(message.role, blocks if is_sent else [])


def _portable_block(block: Block, role: Role, origin: Origin) -> Block | None:
    """The block without what belongs to another provider; None if it is not sent."""
    match block:
        case TextBlock(text=text):
            if not text:
                return None
            return _clean(block) if role == "assistant" else block
        case ReasoningBlock(provider=provider, wire_data=wire_data):
            if not (origin.includes(provider) and origin.includes((wire_data or {}).get("origin"))):
                block = replace(block, signature=None, provider=None, wire_data=None)
            return _clean(block) if block.text or block.signature is not None else None
        case RedactedReasoningBlock(provider=provider) | ProviderBlock(provider=provider):
            return _clean(block) if origin.includes(provider) else None
        case ToolCallBlock(provider=provider):
            if not origin.includes(provider):
                block = replace(block, signature=None, provider=None, wire_data=None)
            return _clean(block)
        case ToolResultBlock(blocks=inner):
            cleaned: list[AnyBlock] = [_clean(part) if isinstance(part, TextBlock) else part for part in inner]
            is_clean = all(new is old for new, old in zip(cleaned, inner, strict=True))
            return block if is_clean else replace(block, blocks=tuple(cleaned))
    return block


_SENT_FIELDS = ("text", "signature", "data", "call_id", "name", "args", "wire_data")


def _clean(block: Any) -> AnyBlock:
    """The block with U+FFFD for each half of a surrogate pair: it cannot be encoded as UTF-8."""
    fields = {name: getattr(block, name, None) for name in _SENT_FIELDS}
    cleaned = {name: _clean_value(value) for name, value in fields.items()}
    changed = {name: value for name, value in cleaned.items() if value is not fields[name]}
    cleaned_block: AnyBlock = replace(block, **changed) if changed else block
    return cleaned_block


def _clean_value(value: Any) -> Any:
    if isinstance(value, str):
        return without_surrogates(value) if has_surrogates(value) else value
    if not value:
        return value
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):  # lower() raises a better error: it knows the field
        return value
    return json.loads(without_surrogates(text)) if has_surrogates(text) else value


def _merged(messages: Iterable[Message]) -> list[Message]:
    """The messages that have blocks. Messages in a row with the same role are joined."""
    merged: list[Message] = []
    for message in messages:
        if not message.blocks:
            continue
        if merged and merged[-1].role == message.role:
            message = Message(message.role, [*merged.pop().blocks, *message.blocks])
        merged.append(message)
    return merged


# --- calls and their results -----------------------------------------------------------------------------------------


class _Pairing:
    """Gives every call a legal id and name, and exactly one result."""

    def __init__(self, rules: HistoryRules, can_send: Callable[[Block], bool], offered: Collection[str]) -> None:
        self._rules = rules
        self._can_send = can_send
        self._offered = offered
        self._used_ids: set[str] = set()
        # The calls of the last assistant message: the id in the history, and the call as it is sent.
        self._open: list[tuple[str, ToolCallBlock]] = []
        # Calls in provider blocks of this wire, such as those of custom tools: id in the history -> id as it is sent.
        self._provider_ids: dict[str, str] = {}

    def paired(self, messages: Iterable[Message]) -> Iterator[Message]:
        """The messages, with the results of a message's calls in the next one. Results without a call are left out."""
        kept: list[Message] = []
        for message in messages:
            if message.role == "assistant":
                kept += self._answers(())
                kept.append(self._with_legal_calls(message))
            else:
                kept += self._answers(message.blocks)
        kept += self._answers(())
        yield from _merged(kept)  # again: a message that lost all its blocks is left out between two of the same role

    def _with_legal_calls(self, message: Message) -> Message:
        self._open = []
        new_ids: dict[str, str] = {}
        blocks: list[Block] = []
        for block in message.blocks:
            if isinstance(block, ToolCallBlock):
                legal = replace(block, call_id=self._unique_id(block.call_id), name=self._legal_name(block.name))
                self._open.append((block.call_id, legal))
                new_ids.setdefault(block.call_id, legal.call_id)
                block = legal
            elif isinstance(block, ProviderBlock):
                block = self._with_unique_call(block)
            blocks.append(block)
        return Message("assistant", [_with_new_id(block, new_ids) for block in blocks])

    def _with_unique_call(self, block: ProviderBlock) -> ProviderBlock:
        """A provider block that is a call, with an id that no call before it has."""
        call_id = self._rules.provider_call(block.data)
        if not isinstance(call_id, str):
            return block
        unique = self._provider_ids[call_id] = self._unique_id(call_id)
        if unique == call_id:
            return block
        return replace(block, data={key: unique if value == call_id else value for key, value in block.data.items()})

    def _legal_name(self, name: str) -> str:
        return name if name in self._offered else self._rules.legal_name(name)

    def _unique_id(self, call_id: str) -> str:
        ids, number = self._rules.call_ids, 1
        unique = ids.legal(call_id)
        while unique in self._used_ids:
            number += 1
            unique = ids.numbered(call_id, number)
        self._used_ids.add(unique)
        return unique

    def _answers(self, blocks: Iterable[Block]) -> list[Message]:
        """The user message after the open calls: their results in the order of the calls, then all other blocks.

        It is a list of one message, or of none if there is no block.
        """
        given: dict[str, deque[ToolResultBlock]] = {}  # a queue: one message may have several calls with the same id
        provider_results: list[ToolResultBlock] = []
        others: list[Block] = []
        waiting = [call_id for call_id, _ in self._open]
        for block in blocks:
            if not isinstance(block, ToolResultBlock):
                others.append(block)
            elif block.call_id in waiting:
                waiting.remove(block.call_id)
                given.setdefault(block.call_id, deque()).append(block)
            elif block.call_id in self._provider_ids:
                provider_results.append(replace(block, call_id=self._provider_ids.pop(block.call_id)))
        answers: list[tuple[ToolResultBlock, str]] = []  # with the name of the tool
        for call_id, call in self._open:
            queue = given.get(call_id)
            result = queue.popleft() if queue else ToolResultBlock(call_id, NO_RESULT, is_error=True)
            answers.append((replace(result, call_id=call.call_id), call.name))
        self._open = []
        results: list[Block] = []
        after_results: list[Block] = []  # in pairs: a label, and the block
        for result, name in [*answers, *((result, "a tool") for result in provider_results)]:
            sendable, moved = self._sendable_result(result, name, len(after_results) // 2)
            results.append(sendable)
            after_results += moved
        blocks = [*results, *after_results, *others]
        return [Message("user", blocks)] if blocks else []

    def _sendable_result(
        self, result: ToolResultBlock, name: str, moved_before: int
    ) -> tuple[ToolResultBlock, list[Block]]:
        """The result with the kinds of blocks that the wire accepts in it, and the blocks that go after the results.

        ``moved_before``: how many blocks of earlier results go there. The labels are numbered.
        """
        accepted = self._rules.error_blocks if result.is_error else self._rules.result_blocks
        if all(self._fits(block, accepted) for block in result.blocks):
            return result, []
        kept: list[AnyBlock] = []
        moved: list[Block] = []
        for block in result.blocks:
            if self._fits(block, accepted):
                kept.append(block)
            elif isinstance(block, ProviderBlock):  # of another wire: left out
                continue
            elif self._can_send(block):
                label = f"{block.type} {moved_before + len(moved) // 2 + 1}"
                kept.append(TextBlock(f"[{label}: see the message after the tool results]"))
                moved += [TextBlock(f"[{label}, returned by {name}]"), block]
            else:
                kept.append(TextBlock(f"[{block.type}: it cannot be shown to this model]"))
        return replace(result, blocks=tuple(kept)), moved

    def _fits(self, block: Block, accepted: tuple[type[Block], ...]) -> bool:
        """True if the block may stay in the result.

        Also for a block that no tool can return: ``lower`` raises the error.
        """
        if not isinstance(block, ImageBlock | DocumentBlock | AudioBlock | ProviderBlock):
            return True
        if not isinstance(block, accepted):
            return False
        return isinstance(block, ProviderBlock) or (self._can_send(block) and self._rules.can_return(block))


def _with_new_id(block: Block, new_ids: dict[str, str]) -> Block:
    """The block. A provider block that refers to a call of its message gets the new id of that call."""
    old = block.data.get("tool_use_id") if isinstance(block, ProviderBlock) else None
    if not isinstance(block, ProviderBlock) or not isinstance(old, str) or new_ids.get(old, old) == old:
        return block
    return replace(block, data={**block.data, "tool_use_id": new_ids[old]})
