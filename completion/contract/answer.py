"""An answer with a type: its schema, the JSON in the text of a turn, and the validated value.

a type or a JsonSchema -> Answer.schema -> the request
the text of the answer -> AnswerReader -> JSON data -> Answer.judge -> the value, or OutputError
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from completion.contract.chunks import FinishReason
from completion.contract.errors import OutputError
from completion.contract.growing import NOTHING, GrowingJson, read_json, whole
from completion.contract.request import JsonSchema, is_type
from completion.contract.schemas import map_schema

if TYPE_CHECKING:
    from completion.contract.schema_checker import SchemaChecker
    from completion.contract.turn import Turn
    from completion.contract.typed import TypeChecker

VALUE = "value"
"""The only key of the object around a value that is not an object. OpenAI takes schemas of objects only."""

_MAX_SHOWN_PROBLEMS = 3  # in the message of an OutputError; ``errors`` has all of them

_FINAL_REASONS = {
    FinishReason.REFUSAL: "the model refused to answer",
    FinishReason.CONTENT_FILTER: "the content filter of the provider stopped the answer",
}
_BROKEN_REASONS = {
    **_FINAL_REASONS,
    FinishReason.MAX_TOKENS: "max_tokens cut the answer off",
    FinishReason.ABORTED: "the provider aborted the answer",
}

_OBJECT_OR_THOUGHT = re.compile(r"\{|<(?:think|thinking|thought)>")
_ANY_OR_THOUGHT = re.compile(r"[{\[]|<(?:think|thinking|thought)>")
_THOUGHT_ENDS = re.compile(r"</(?:think|thinking|thought)>")
_MAX_TAG = len("</thinking>")
_THOUGHTS = re.compile(r"<(think|thinking|thought)>.*?</\1>", re.DOTALL)
_FENCED = re.compile(r"^ {0,3}(```+|~~~+)[^\n`]*\n(.*?)^ {0,3}\1", re.DOTALL | re.MULTILINE)


def can_be_repaired(error: OutputError) -> bool:
    """False for a refusal and a content filter: the model would not answer otherwise if it were asked again."""
    return error.reason not in _FINAL_REASONS


def parse_turn(turn: Turn, kind: Any) -> Any:
    """What ``Turn.parse`` returns."""
    return answer_in(turn, Answer(kind))[1]


def answer_in(turn: Turn, answer: Answer, before: str = "") -> tuple[Any, Any]:
    """The answer in a turn, as JSON data and as a value. ``before``: the text of earlier turns that it continues.

    Raises:
        OutputError: the answer does not fit.
    """
    text = before + turn.text
    if not text.strip() and len(turn.tool_calls) == 1:
        args = turn.tool_calls[0].args
        return answer.judge(turn, json.dumps(args, ensure_ascii=False), lambda: args)
    reader = AnswerReader(answer)
    reader.feed(text)
    return answer.judge(turn, text, reader.result)


class Answer:
    """What is asked for. ``schema`` describes an object: a type that is not an object is wrapped in one.

    ``open_reason``: why no provider can enforce the schema; None if one can.

    Raises:
        TypeError: not a type and not a JsonSchema, or a type without a JSON Schema.
        ValueError: the JsonSchema is not valid.
        ConfigurationError: the extra ``tools`` is not installed.
    """

    def __init__(self, kind: Any) -> None:
        self._checker = _checker_of(kind)
        self.name, self.shown, self.open_reason = self._checker.name, self._checker.shown, self._checker.open_reason
        self.is_wrapped = not _is_object(self._checker.schema)
        self.schema = _wrapped(self._checker.schema) if self.is_wrapped else self._checker.schema
        self.is_strict = kind.strict if isinstance(kind, JsonSchema) else True
        properties = self.schema.get("properties")
        self.keys = frozenset(properties) if isinstance(properties, Mapping) and properties else None
        """The keys of the object, None if it may have any."""

    def judge(self, turn: Turn, text: str, read: Callable[[], Any]) -> tuple[Any, Any]:
        """The answer as JSON data and as a value of the type.

        Args:
            text: what the model wrote, for the error.
            read: returns the JSON data, or raises a ValueError whose ``args`` are the problems.

        Raises:
            OutputError: the turn did not end well, or the answer does not fit.
        """
        problems = tuple(_problems_of(turn, text))
        if not problems:
            try:
                data = self._unwrapped(read())
                return data, self._checker.convert(data)
            except ValueError as exc:
                problems = tuple(map(str, exc.args))
        shown = "; ".join(problems[:_MAX_SHOWN_PROBLEMS])
        more = f" (and {len(problems) - _MAX_SHOWN_PROBLEMS} more)" if len(problems) > _MAX_SHOWN_PROBLEMS else ""
        error = OutputError(f"no valid {self.shown}: {shown}{more}", text=text, errors=problems, reason=turn.reason)
        error.partial = turn
        raise error

    def unwrapped_so_far(self, data: Any) -> Any:
        """The growing value inside of its object; NOTHING if it has not begun."""
        if not self.is_wrapped:
            return data
        return data.get(VALUE, NOTHING) if isinstance(data, dict) else NOTHING

    def _unwrapped(self, data: Any) -> Any:
        # A model may forget the object around the value. The validation then decides.
        return data[VALUE] if self.is_wrapped and isinstance(data, dict) and VALUE in data else data


def _checker_of(kind: Any) -> TypeChecker | SchemaChecker:
    # Imported here: the packages are optional, and slow to import.
    if isinstance(kind, JsonSchema):
        from completion.contract.schema_checker import SchemaChecker

        return SchemaChecker(kind)
    if not is_type(kind):
        raise TypeError(f"the type of an answer must be a type or a JsonSchema, got {type(kind).__name__}")
    from completion.contract.typed import TypeChecker

    return TypeChecker(kind)


def _problems_of(turn: Turn, text: str) -> Iterator[str]:
    if turn.reason in _BROKEN_REASONS:
        yield _BROKEN_REASONS[turn.reason]
    elif not text.strip():
        names = ", ".join(call.name for call in turn.tool_calls)
        yield f"the model called {names} instead of answering" if names else "the answer is empty"


def _is_object(schema: Mapping[str, Any]) -> bool:
    return schema.get("type") == "object" or ("properties" in schema and "type" not in schema)


def _wrapped(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of an object whose only value has this schema."""
    definitions = {key: schema[key] for key in ("$defs", "definitions", "$schema") if key in schema}
    inner = {key: value for key, value in schema.items() if key not in definitions}
    moved = map_schema({**inner, **definitions}, _with_moved_root)
    return {
        "type": "object",
        "properties": {VALUE: {key: value for key, value in moved.items() if key not in definitions}},
        "required": [VALUE],
        "additionalProperties": False,
        **{key: moved[key] for key in definitions},
    }


def _with_moved_root(node: dict[str, Any]) -> dict[str, Any]:
    """A schema that refers to the root refers to what the root was."""
    return {**node, "$ref": f"#/properties/{VALUE}"} if node.get("$ref") == "#" else node


class AnswerReader:
    """Finds the object in a text that arrives in pieces, and shows it as it grows.

    The text before and after the object, code fences, and thoughts in ``<think>`` are left aside. An object counts from
    its first key that the schema knows: ``{braces}`` in prose are never shown. Of several such objects the first one
    is the answer, because what was shown is not taken back.
    """

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._parts: list[str] = []
        self._length = 0  # of the text before the current piece
        self._json: GrowingJson | None = None  # of the object that may be the answer
        self._starts_at = self._ends_at = 0
        self._is_found = False
        self._is_in_thought = False
        self._tail = ""  # the end of the last piece, in which a tag may have begun
        self._other: tuple[int, int] | None = None  # a complete object without a known key
        self.value: Any = NOTHING
        """The value so far, a snapshot."""

    def feed(self, piece: str) -> bool:
        """Read on. True if ``value`` has grown."""
        piece = whole(piece)
        self._parts.append(piece)
        at = 0
        while at < len(piece):
            if self._json is None:
                at = self._search(piece, at)
            elif self._json.is_closed or self._json.problem is not None:
                break  # only the object that was found stays here
            else:
                at = self._json.feed(piece, at)
                if not self._is_found or self._json.is_closed:
                    self._look(self._length + at)
        self._length += len(piece)
        found = self._json
        if not self._is_found or found is None or not found.has_grown:
            return False
        before, self.value = self.value, self._answer.unwrapped_so_far(found.snapshot())
        return self.value is not before

    def result(self) -> Any:
        """The data of the answer, after the last piece.

        Raises:
            ValueError: there is none; its ``args`` are the problems.
        """
        text = "".join(self._parts)
        found = self._json
        if self._is_found and found is not None:
            found.finish()
            if found.problem is not None:
                raise ValueError(f"the answer is not JSON: {found.problem}")
            return read_json(text[self._starts_at : self._ends_at])
        return self._other_result(text)

    def _search(self, piece: str, at: int) -> int:
        """Look for the beginning of an object, or for the end of a thought. Returns the index after it."""
        text = self._tail + piece[at:]
        offset = at - len(self._tail)
        # A list without the object around it is read as a whole: its items are not the answer.
        begins = _ANY_OR_THOUGHT if self._answer.is_wrapped else _OBJECT_OR_THOUGHT
        found = (_THOUGHT_ENDS if self._is_in_thought else begins).search(text)
        if found is None:
            self._tail = text[-_MAX_TAG + 1 :].rpartition("<")[2]
            self._tail = f"<{self._tail}" if "<" in text[-_MAX_TAG + 1 :] else ""
            return len(piece)
        self._tail = ""
        if found[0] not in ("{", "["):
            self._is_in_thought = not self._is_in_thought
            return offset + found.end()
        self._json = GrowingJson()
        self._starts_at = self._length + offset + found.start()
        return offset + found.start()

    def _look(self, position: int) -> None:
        """Decide whether the object is the answer."""
        found, keys = self._json, self._answer.keys
        assert found is not None
        if not self._is_found and isinstance(found.root, dict):
            # The last key may have no value yet; an object that has ended has no open key.
            names = {*found.root, *filter(None, [found.root_key])}
            self._is_found = bool(names) and (keys is None or not keys.isdisjoint(names))
        if found.is_closed:
            self._ends_at = position
        if not self._is_found and (found.is_closed or found.problem is not None):
            if found.is_closed and self._other is None:
                self._other = (self._starts_at, position)
            self._json = None

    def _other_result(self, text: str) -> Any:
        """An answer that is not an object with a known key: the whole text, a code block, any object."""
        text = text.removeprefix("\ufeff")
        if not text.strip():
            raise ValueError("the answer is empty")
        shown = _THOUGHTS.sub("", text)
        candidates = [shown, *(found[2] for found in _FENCED.finditer(shown))]
        if self._other is not None:
            start, end = self._other
            candidates.append("".join(self._parts)[start:end])
        for candidate in candidates:
            try:
                return read_json(candidate)
            except ValueError as exc:
                problem = str(exc)
        if self._json is not None:
            raise ValueError("the answer is not JSON: the JSON ends too early")
        raise ValueError(f"the answer is not JSON: {problem}")
