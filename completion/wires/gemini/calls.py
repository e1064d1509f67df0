"""Function calls as they arrive -> chunks.

A call comes in one part, or piece by piece (``streamFunctionCallArguments``):

    {"name": "f", "args": {"a": 1}}
    {"name": "f", "willContinue": true} {"partialArgs": […], "willContinue": true} … {}
"""

from __future__ import annotations

import json
import re
from typing import Any

from completion.contract.chunks import StreamChunk
from completion.contract.errors import MalformedStreamError
from completion.wires.arguments import arguments_text
from completion.wires.json_values import MAX_DEPTH, objects_in, str_or_empty
from completion.wires.tool_call import ToolCall, made_up_call_id
from completion.wires.turn_order import TurnOrder

# The steps of a JSON path: $.a.b[0]['c d']
_STEP = re.compile(r"""\.([^.\[\]]+)|\[(\d{1,9})\]|\['([^']*)'\]|\["([^"]*)"\]""")


class FunctionCalls:
    """The function calls of one turn. Methods return the chunks that may be yielded now."""

    def __init__(self, order: TurnOrder) -> None:
        self._order = order
        self.started = 0
        """How many calls have started."""
        self._open: ToolCall | None = None  # a call whose arguments come piece by piece
        self._arguments = PartialArguments()

    def take(self, fields: dict[str, Any], signature: str | None) -> list[StreamChunk]:
        name, call_id = str_or_empty(fields.get("name")), str_or_empty(fields.get("id"))
        call = self._open
        is_next_piece = call is not None and (not name or (call_id and call_id == call.provider_id))
        out: list[StreamChunk] = []
        if not is_next_piece or call is None:
            if not (name or call_id or fields.get("args")):
                return []  # the end of a call that has ended
            out += self.end(is_complete=True)
            call = self._open = ToolCall(call_id or made_up_call_id(), name)
            self.started += 1
            self._arguments = PartialArguments()
            out += self._order.call(call)
        if signature is not None:
            call.signature = signature
        text = self._arguments.take(fields)
        if fields.get("willContinue") is not True:
            return out + self.end(is_complete=True, text=text)
        call.add(text)
        return out + self._order.release()

    def end(self, *, is_complete: bool, text: str = "") -> list[StreamChunk]:
        """End the open call, if there is one, with this text before its end.

        One that is not complete gets no end, so it is malformed: a tool must not run with half of its arguments.
        """
        call = self._open
        if call is None:
            return []
        self._open = None
        call.add(text + (self._arguments.end() if is_complete else self._arguments.cut()))
        call.close()
        return self._order.release()


class PartialArguments:
    """The arguments of one call, from values by their JSON paths to JSON text. Methods return the text that is new.

    A string at the top is written as it arrives, every other value once the next one begins: within a value the pieces
    may have any order.
    """

    def __init__(self) -> None:
        self._names: set[str] = set()
        self._name: str | None = None  # of the value that is open, at the top of the arguments
        self._is_string = False  # the open value is a string that is being written
        self._values: dict[str, Any] = {}  # the rest of the open value, by path; strings are lists of their pieces
        self._whole: Any = None  # arguments that came in one piece
        self._goes_back = False

    def take(self, fields: dict[str, Any]) -> str:
        if fields.get("args") is not None:
            self._whole = fields["args"]
        return "".join(map(self._piece, objects_in(fields.get("partialArgs"))))

    def end(self) -> str:
        """The rest of complete arguments; empty if there are none."""
        if self._name is None:
            return "" if self._whole in (None, {}) else arguments_text(self._whole)
        return "" if self._goes_back else self._close() + "}"

    def cut(self) -> str:
        """The rest of arguments that were cut off: no end, so they are not JSON."""
        return "{" if self._name is None else ""

    def _piece(self, piece: dict[str, Any]) -> str:
        # {"jsonPath": "$.location", "stringValue": "Bos", "willContinue": true}
        path = str_or_empty(piece.get("jsonPath"))
        steps = _steps_of(path)
        if not steps:
            return ""
        text = "" if self._name == str(steps[0]) else self._open(str(steps[0]))
        value = piece.get("stringValue")
        if not isinstance(value, str):
            value = piece.get("numberValue", piece.get("boolValue"))
            self._values[path] = value if isinstance(value, int | float) else None  # nullValue
        elif len(steps) == 1 and not self._values:
            text += "" if self._is_string else '"'
            self._is_string = True
            text += _json(value)[1:-1]
        else:
            pieces = self._values.get(path)
            if not isinstance(pieces, list):
                pieces = self._values[path] = []
            pieces.append(value)
        return text

    def _open(self, name: str) -> str:
        text = self._close() + ("," if self._names else "{") + _json(name) + ":"
        # What was written cannot change, so a call that goes back is malformed.
        self._goes_back = self._goes_back or name in self._names
        self._names.add(name)
        self._name, self._is_string, self._values = name, False, {}
        return text

    def _close(self) -> str:
        if self._name is None:
            return ""
        if self._is_string:
            return '"'
        value: dict[str, Any] = {}
        for path, part in self._values.items():
            _put(value, _steps_of(path), "".join(part) if isinstance(part, list) else part)
        return _json(value.get(self._name))


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _steps_of(path: str) -> list[str | int]:
    steps = [int(step[1]) if step[1] else step[0] or step[2] or step[3] for step in _STEP.findall(path)]
    if len(steps) > MAX_DEPTH:
        raise MalformedStreamError(f"the arguments of a tool call are nested deeper than {MAX_DEPTH} levels")
    return steps


def _put(root: dict[str, Any], steps: list[str | int], value: Any) -> None:
    """Put the value at the path. Objects and lists on the way are made."""
    parent: Any = root
    for n, step in enumerate(steps):
        is_last = n == len(steps) - 1
        made = value if is_last else [] if isinstance(steps[n + 1], int) else {}
        if isinstance(parent, list):
            # An index beyond the end is the next one: a large number must not make a large list.
            index = step if isinstance(step, int) and step < len(parent) else len(parent)
            if index == len(parent):
                parent.append(made)
            elif is_last or type(parent[index]) is not type(made):
                parent[index] = made
            parent = parent[index]
        else:
            step = str(step)
            if is_last or type(parent.get(step)) is not type(made):
                parent[step] = made
            parent = parent[step]
