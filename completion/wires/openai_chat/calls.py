"""Which tool call a piece belongs to."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from completion.contract.chunks import StreamChunk
from completion.wires.json_values import provider_block, string
from completion.wires.openai_chat.names import WIRE
from completion.wires.tool_call import ToolCall
from completion.wires.turn_order import TurnOrder


class Calls:
    """Which call a piece belongs to.

    A piece has an index, or an id, or both, or neither; ids and names come once, repeat, come late or never; Gemini
    and Ollama number all calls 0; whole calls may come in one piece.
    """

    def __init__(self, order: TurnOrder) -> None:
        self._order = order
        self._by_index: dict[Any, ToolCall] = {}
        self._by_id: dict[str, ToolCall] = {}
        self._last: ToolCall | None = None
        self._custom: dict[str, _CustomCall] = {}

    def take(self, piece: dict[str, Any]) -> Iterator[StreamChunk]:
        # {"index": 0, "id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{\"a"}}
        if piece.get("type") == "custom" or "custom" in piece:
            self._take_custom(piece)
            return
        function = piece.get("function")
        if not isinstance(function, dict):
            if piece.get("type") not in (None, "", "function"):  # a tool that the server runs itself
                yield from self._order.block(provider_block(WIRE, piece))
                return
            function = {}
        call_id, name = string(piece.get("id")), string(function.get("name"))
        arguments = function.get("arguments")
        if arguments is not None and not isinstance(arguments, str):
            arguments = json.dumps(arguments, ensure_ascii=False, separators=(",", ":"))  # decoded by the server
        arguments = arguments or ""
        index = piece.get("index")
        index = index if isinstance(index, int | str) else None
        call = self._found(index, call_id, name, arguments)
        is_new = call is None
        if call is None:
            call = ToolCall(call_id)
        if index is not None:
            self._by_index[index] = call
        call.call_id = call.call_id or call_id
        call.name = call.name or name
        call.signature = call.signature or _signature(piece)
        if not call.says_again(arguments):
            call.add(arguments)
        if call_id:
            self._by_id[call_id] = call
        self._last = call
        yield from self._order.call(call) if is_new else self._order.release()

    def _found(self, index: Any, call_id: str, name: str, arguments: str) -> ToolCall | None:
        """The open call that the piece continues, None where it begins a new one."""
        call = self._by_index.get(index)
        if call is None:
            call = self._unnumbered(index, call_id, name)
        if call is None:
            return None
        begins_object = arguments.lstrip().startswith("{")
        is_more = bool(arguments.strip()) and not call.says_again(arguments)
        if not name:
            is_another = call.is_over and is_more
        elif not (call_id and call.call_id):
            is_another = bool(call.name and name != call.name) or (
                begins_object
                and (call.has_object or (call.is_whole and not call.call_id and arguments.strip() == "{}"))
            )
        elif call_id != call.call_id:
            is_another = True
        else:  # perhaps a second call under an id that was given before
            is_another = is_more and (call.is_over or (begins_object and call.is_settled))
        return None if is_another else call

    def _unnumbered(self, index: Any, call_id: str, name: str) -> ToolCall | None:
        """The call that is meant by a piece without an index, or with one that was not seen before."""
        if index is not None and name:
            return None
        if call_id in self._by_id:
            return self._by_id[call_id]
        is_new = index is not None or (call_id and (name or (self._last is not None and self._last.call_id)))
        return None if is_new else self._last

    def _take_custom(self, piece: dict[str, Any]) -> None:
        """A custom tool takes free text: {"index": 0, "id": "…", "type": "custom", "custom": {"name", "input"}}"""
        key = piece.get("index")
        if key is None:
            key = piece.get("id") or next(reversed(self._custom), None)
        key = str(key)
        custom = piece.get("custom")
        custom = custom if isinstance(custom, dict) else {}
        call = self._custom.setdefault(key, _CustomCall())
        call.call_id = call.call_id or string(piece.get("id"))
        call.name = call.name or string(custom.get("name"))
        call.inputs.append(string(custom.get("input")))

    def custom_blocks(self) -> Iterator[StreamChunk]:
        for call in self._custom.values():
            custom = {"name": call.name, "input": "".join(call.inputs)}
            yield provider_block(WIRE, {"id": call.call_id, "type": "custom", "custom": custom})


class _CustomCall:
    """A call of a custom tool as it arrives."""

    def __init__(self) -> None:
        self.call_id = ""
        self.name = ""
        self.inputs: list[str] = []


def _signature(piece: dict[str, Any]) -> str | None:
    # {"extra_content": {"google": {"thought_signature": "…"}}}
    extra = piece.get("extra_content")
    google = extra.get("google") if isinstance(extra, dict) else None
    signature = google.get("thought_signature") if isinstance(google, dict) else None
    return signature if isinstance(signature, str) else None
