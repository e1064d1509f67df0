"""Which tool call a piece of ``tool_calls`` belongs to.

A piece has an index, or an id, or both, or neither. Ids and names come once, repeat, come late or never. Some servers
number all calls 0. Some send a whole call in one piece. The two ``match`` tables below contain every case.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Literal

from completion.contract.chunks import StreamChunk
from completion.wires.arguments import ArgumentsState
from completion.wires.json_values import provider_block, str_or_empty
from completion.wires.openai_chat.names import WIRE
from completion.wires.tool_call import CallState, ToolCall
from completion.wires.turn_order import TurnOrder


class Calls:
    """The tool calls of one turn."""

    def __init__(self, order: TurnOrder) -> None:
        self._order = order
        self._by_index: dict[Any, ToolCall] = {}
        self._by_id: dict[str, ToolCall] = {}
        self._last: ToolCall | None = None
        self._custom_calls: dict[str, _CustomCall] = {}

    def take(self, piece: dict[str, Any]) -> Iterator[StreamChunk]:
        # {"index": 0, "id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{\"a"}}
        if piece.get("type") == "custom" or "custom" in piece:
            self._take_custom(piece)
            return
        function = piece.get("function")
        if function is None and isinstance(piece.get("name"), str):
            function = piece  # some gateways: {"id": "call_1", "name": "f", "arguments": "{}"}
        if not isinstance(function, dict):
            if piece.get("type") not in (None, "", "function"):  # z.ai: a tool that the server runs itself
                yield from self._order.block(provider_block(WIRE, piece))
                return
            function = {}
        call_id, name = str_or_empty(piece.get("id")), str_or_empty(function.get("name"))
        arguments = function.get("arguments")
        if arguments is not None and not isinstance(arguments, str):
            # Some servers send the arguments as an object, not as text.
            arguments = json.dumps(arguments, ensure_ascii=False, separators=(",", ":"))
        arguments = arguments or ""
        index = piece.get("index")
        index = index if isinstance(index, int | str) else None
        call, brings = self._call_of(index, call_id, name), ""
        if call is not None:
            brings = _what_piece_brings(call, arguments)
            if _begins_another_call(call, call_id, name, brings):
                call = None
        is_new = call is None
        if call is None:
            call = ToolCall(call_id)
        # Later pieces with this index or id belong to the newest call that has it.
        if index is not None:
            self._by_index[index] = call
        call.provider_id = call.provider_id or call_id
        call.name = call.name or name
        if call.signature is None:
            call.signature, call.wire_data = _signature(piece)
        if is_new or brings != "the same":
            call.add(arguments)
        if call_id:
            self._by_id[call_id] = call
        self._last = call
        yield from self._order.call(call) if is_new else self._order.release()

    def _call_of(self, index: int | str | None, call_id: str, name: str) -> ToolCall | None:
        """The call that the piece names, or the last one if it names none; None for a new call."""
        last = self._last
        match (
            "none" if index is None else "known" if index in self._by_index else "new",
            "none" if not call_id else "known" if call_id in self._by_id else "new",
            "name" if name else "no name",
        ):
            # index, id, name
            case "known", _, _:  # OpenAI: every piece of a call has its index; OpenRouter repeats id and name too
                return self._by_index[index]
            case "new", _, "name":  # OpenAI: a new index begins a call. An id that was used before does not matter.
                return None
            case _, "known", _:  # servers without indexes that repeat the id in every piece
                return self._by_id[call_id]
            # SGLang numbers the first piece by the tool, the later ones by the call.
            case "new", "none", "no name" if last is not None and last.name and last.state is CallState.OPENED:
                return last
            case "new", _, "no name":  # no server known: a call whose name comes later
                return None
            case "none", "new", "name":  # Gemini, Mistral: a whole call, with an id and without an index
                return None
            case "none", "new", "no name" if last is not None and last.provider_id:  # no server known: a late name
                return None
            case _:  # Gemini: more arguments, without an index; or the id of the last call comes late
                return last

    def _take_custom(self, piece: dict[str, Any]) -> None:
        """A custom tool takes free text: {"index": 0, "id": "…", "type": "custom", "custom": {"name", "input"}}"""
        key = piece.get("index")
        if key is None:
            key = piece.get("id") or next(reversed(self._custom_calls), None)
        key = str(key)
        custom = piece.get("custom")
        custom = custom if isinstance(custom, dict) else {}
        call = self._custom_calls.setdefault(key, _CustomCall())
        call.call_id = call.call_id or str_or_empty(piece.get("id"))
        call.name = call.name or str_or_empty(custom.get("name"))
        call.inputs.append(str_or_empty(custom.get("input")))

    def custom_blocks(self) -> Iterator[StreamChunk]:
        """The calls of custom tools, as provider blocks."""
        for call in self._custom_calls.values():
            custom = {"name": call.name, "input": "".join(call.inputs)}
            yield provider_block(WIRE, {"id": call.call_id, "type": "custom", "custom": custom})


def _what_piece_brings(call: ToolCall, arguments: str) -> Literal["nothing", "the same", "{}", "an object", "text"]:
    """What the arguments in a piece are, compared with those that the call already has."""
    if call.arguments.is_repeated_by(arguments):
        return "the same"
    text = arguments.strip()
    if not text:
        return "nothing"
    return "{}" if text == "{}" else "an object" if text.startswith("{") else "text"


def _begins_another_call(call: ToolCall, call_id: str, name: str, brings: str) -> bool:
    """The piece names this call, but it is the first piece of another one."""
    match (
        "none" if not name else "other" if call.name and name != call.name else "same",
        _compared_id(call, call_id),
        call.state,
        call.arguments.state,
        brings,
    ):
        # name, id, state of the call, state of its arguments, what the piece brings
        case (
            # No server known: arguments for a call that has ended. A call without a name shows them as malformed.
            ("none", _, CallState.ENDED, _, "{}" | "an object" | "text")
            # Gateways in front of Gemini and Ollama: every call has index 0, and no id. Another name is another call …
            | ("other", "none" | "omitted", _, _, _)
            # … and so is another object under the same name. The same object too: a model may repeat a call.
            | ("same", "none" | "omitted", _, ArgumentsState.OBJECT, "the same" | "{}" | "an object")
            # Without ids, a second "{}" is a second call without arguments, not a placeholder that is repeated.
            | ("same", "none", _, ArgumentsState.PLACEHOLDER, "the same" | "{}")
            # Ollama: every call has index 0, and an id of its own.
            | ("same" | "other", "other", _, _, _)
            # One id for several calls. A piece that only repeats its call brings "the same", so it is not another one.
            | ("same" | "other", "same", CallState.ENDED, _, "{}" | "an object" | "text")
            | ("same" | "other", "same", CallState.COMPLETE, _, "{}" | "an object")
        ):
            return True
        case _:
            return False


def _compared_id(call: ToolCall, call_id: str) -> Literal["none", "omitted", "same", "other"]:
    """The id of a piece compared with the id of its call.

    ``none``: the call has no id yet; ``omitted``: the call has one, the piece has none.
    """
    if not call.provider_id:
        return "none"
    if not call_id:
        return "omitted"
    return "same" if call_id == call.provider_id else "other"


class _CustomCall:
    """A call of a custom tool as it arrives."""

    def __init__(self) -> None:
        self.call_id = ""
        self.name = ""
        self.inputs: list[str] = []


# Where a call carries Gemini's signature: the field of the call, and the path inside of it.
_SIGNATURE_PATHS = (
    ("extra_content", "google", "thought_signature"),  # Gemini's compatible endpoint
    ("extra_content", "vertex", "thought_signature"),
    ("provider_specific_fields", "thought_signature"),  # LiteLLM
    ("provider_metadata", "google", "thought_signature"),
    ("thought_signature",),
    ("thoughtSignature",),
    ("signature",),
    ("function", "thought_signature"),
    ("function", "provider_specific_fields", "thought_signature"),
)


def _signature(piece: dict[str, Any]) -> tuple[str | None, dict[str, Any] | None]:
    """The signature of a call, and the fields in which it came if they are not Gemini's own."""
    for path in _SIGNATURE_PATHS:
        value: Any = piece
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        if value and isinstance(value, str):
            if path == _SIGNATURE_PATHS[0]:
                return value, None
            for key in reversed(path):
                value = {key: value}
            return _at(piece, path), value
    return None, None


def _at(piece: Any, path: tuple[str, ...]) -> str:
    for key in path:
        piece = piece[key]
    return str(piece)
