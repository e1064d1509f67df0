"""JSON for the dataclasses of the contract: the only door to dataclasses-json.

dataclasses-json walks the fields, both ways. It is also lenient where a contract must not be (measured on 0.6.7:
a ``str`` field given an object becomes its Python repr, ``"false"`` becomes True, a union becomes its first
class), so a document is first held against the type hints here, and every union is told apart by its ``type``.
It is imported on first use: it would double the time of ``import completion``.
"""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, Field, fields
from enum import Enum
from functools import cache, partial
from typing import Any, ClassVar, Literal, TypeGuard, TypeVar, Union, cast, get_args, get_origin, get_type_hints

RecordT = TypeVar("RecordT", bound="Record")


class Record:
    """A dataclass that round-trips through JSON. Keys that this version does not know are ignored on reading."""

    __slots__ = ()

    def to_dict(self) -> dict[str, Any]:
        """A new structure of dict, list, str, int, float, bool and None; members of a union carry ``type``.

        Raises:
            ValueError: it is nested too deeply.
        """
        try:
            walked: dict[str, Any] = _dataclasses_json().to_dict(self)
        except RecursionError:
            raise _too_deep(type(self)) from None
        tag = getattr(type(self), "type", None)
        return {"type": tag, **walked} if isinstance(tag, str) else walked

    @classmethod
    def from_dict(cls: type[RecordT], document: Mapping[str, Any]) -> RecordT:
        """The object that ``to_dict`` described; it shares nothing with the document.

        Raises:
            ValueError: a field is missing or has the wrong JSON type; the message gives its path.
        """
        try:
            if fault := _fault(cls, document, cls.__name__):
                raise ValueError(fault)
            return cast(RecordT, _build(cls, document))
        except RecursionError:
            raise _too_deep(cls) from None

    def to_json(self, *, indent: int | None = None) -> str:
        """The same as JSON text.

        Raises:
            ValueError: NaN or an infinity, for which JSON has no word, or it is nested too deeply.
            TypeError: a value inside of a dict that is none of JSON's, such as bytes.
        """
        document = self.to_dict()
        try:
            text = json.dumps(document, ensure_ascii=False, allow_nan=False, indent=indent)
            text.encode()
        except UnicodeEncodeError:  # half of a surrogate pair: only an escape can carry it
            text = json.dumps(document, allow_nan=False, indent=indent)
        except RecursionError:
            raise _too_deep(type(self)) from None
        return text

    @classmethod
    def from_json(cls: type[RecordT], text: str | bytes) -> RecordT:
        """The object that ``to_json`` described. Raises ValueError as ``from_dict`` does, and for bad JSON."""
        try:
            document = json.loads(text)
        except RecursionError:
            raise _too_deep(cls) from None
        return cls.from_dict(document)


def _too_deep(kind: type) -> ValueError:
    return ValueError(f"{kind.__name__}: nested too deeply")


class Tagged(Record):
    """A member of a union, told apart by its class attribute ``type``.

    A class right below this one is a union: it knows its members, and its ``from_dict`` picks among them.
    """

    __slots__ = ()
    type: ClassVar[str]
    _members: ClassVar[dict[str, Any]]

    def __init_subclass__(cls) -> None:
        if Tagged in cls.__bases__:
            cls._members = {}
        if isinstance(tag := cls.__dict__.get("type"), str):
            cls._members[tag] = cls


def nested(kind: type) -> dict[str, Any]:
    """Field metadata for a field that holds a Record, an enum member, or a tuple of them (or None, or a str).

    ``nested(dict)`` is a field that holds a JSON object: it is copied as it is, whatever its keys.
    """
    return {"dataclasses_json": {"encoder": _encode, "decoder": partial(_decode, kind)}}


def check_fields(record: Record) -> None:
    """Hold the fields of a new object against their type hints.

    Raises:
        TypeError: one of them holds something else; the message names it.
    """
    for field, hint in _hints(cast(type, type(record))):
        path = f"{type(record).__name__}.{field.name}"
        if fault := _fault(hint, getattr(record, field.name), path, is_document=False):
            raise TypeError(fault)


def _encode(value: Any) -> Any:
    if isinstance(value, Record):
        return value.to_dict()
    if isinstance(value, Mapping):
        return {key: _encode(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_encode(item) for item in value]
    return value.value if isinstance(value, Enum) else value


def _decode(kind: type, value: Any) -> Any:
    if kind is dict:
        return _encode(value)
    if isinstance(value, list | tuple):
        return tuple(_decode(kind, item) for item in value)
    if isinstance(value, Mapping):
        return _build(kind, value)
    return kind(value) if issubclass(kind, Enum) else value


def _build(kind: type, document: Mapping[str, Any]) -> Any:
    """From a document that was checked."""
    return _dataclasses_json().from_dict(_member(kind, document), {**document})


@cache
def _dataclasses_json() -> types.SimpleNamespace:
    from dataclasses_json import DataClassJsonMixin

    # The mixin's functions without the mixin: inheriting from it would give every chunk a __dict__.
    from_dict: Callable[..., Any] = DataClassJsonMixin.from_dict.__func__  # type: ignore[attr-defined]
    return types.SimpleNamespace(to_dict=DataClassJsonMixin.to_dict, from_dict=from_dict)


def _member(kind: type, document: Mapping[str, Any]) -> type:
    """The class that the document is of: of a union, the member that its ``type`` names."""
    return kind._members[document["type"]] if _is_union(kind) else kind


def _is_union(kind: type) -> TypeGuard[type[Tagged]]:
    return "_members" in kind.__dict__


@cache
def _hints(kind: Any) -> tuple[tuple[Field[Any], Any], ...]:
    hints = get_type_hints(kind)
    return tuple((field, hints[field.name]) for field in fields(kind))


def _fault(hint: Any, value: Any, path: str, *, is_document: bool = True) -> str | None:
    """What is wrong with a value, by its type hint: a JSON document, or else a value that a constructor was given."""
    origin = get_origin(hint)
    if hint is Any:
        return None
    if origin in (Union, types.UnionType):
        faults = [_fault(option, value, path, is_document=is_document) for option in get_args(hint)]
        inside = (fault for fault in faults if fault and fault.startswith((f"{path}.", f"{path}[")))
        right = None in faults
        return None if right else next(inside, None) or _expected(hint, value, path, is_document)
    if origin is Literal:
        right = isinstance(value, str) and value in get_args(hint)
    elif origin is tuple:
        right = isinstance(value, list | tuple)
        if right:
            item = get_args(hint)[0]
            faults = [_fault(item, value[i], f"{path}[{i}]", is_document=is_document) for i in range(len(value))]
            return _first(faults)
    elif origin is dict:
        right = isinstance(value, Mapping if is_document else dict)
        if right and is_document and (odd := [key for key in value if not isinstance(key, str)]):
            return f"{path}: the keys of an object are strings, got {odd[0]!r}"
    elif issubclass(hint, Record):
        if is_document and isinstance(value, Mapping):
            return _record_fault(hint, value, path)
        right = not is_document and isinstance(value, hint)
    elif issubclass(hint, Enum):
        right = isinstance(value, str) and value in [member.value for member in hint]
    elif hint is int:  # a bool is an int in Python, and not in JSON
        right = isinstance(value, int) and not isinstance(value, bool)
    elif hint is float:
        right = isinstance(value, float) or (_fault(int, value, path) is None and abs(value) <= sys.float_info.max)
    else:
        right = isinstance(value, hint)
    return None if right else _expected(hint, value, path, is_document)


def _record_fault(kind: type[Record], document: Mapping[str, Any], path: str) -> str | None:
    tag = document.get("type")
    if _is_union(kind):
        if not isinstance(tag, str) or tag not in kind._members:
            return f"{path}.type: expected one of {sorted(kind._members)}, got {tag!r}"
        kind = kind._members[tag]
    elif issubclass(kind, Tagged) and tag not in (None, kind.type):
        return f"{path}.type: expected {kind.type!r}, got {tag!r}"
    return _first(_field_fault(field, hint, document, path) for field, hint in _hints(cast(type, kind)))


def _field_fault(field: Field[Any], hint: Any, document: Mapping[str, Any], path: str) -> str | None:
    if field.name in document:
        return _fault(hint, document[field.name], f"{path}.{field.name}")
    required = field.default is MISSING and field.default_factory is MISSING
    return f"{path}.{field.name} is missing" if required else None


_JSON_WORDS: dict[Any, str] = {
    str: "a string",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    type(None): "null",
    tuple: "a list",
    dict: "an object",
}


def _expected(hint: Any, value: Any, path: str, is_document: bool) -> str:
    got = repr(value) if isinstance(value, str) and len(value) < 40 else type(value).__name__
    return f"{path}: expected {_named(hint, is_document)}, got {got}"


def _named(hint: Any, is_document: bool) -> str:
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(_named(option, is_document) for option in get_args(hint))
    if origin is Literal:
        return " or ".join(repr(word) for word in get_args(hint))
    plain = origin or hint
    if issubclass(plain, Enum):
        return " or ".join(repr(member.value) for member in plain)
    if is_document:
        return "an object" if issubclass(plain, Record) else _JSON_WORDS[plain]
    if _is_union(plain):
        return " or ".join(member.__name__ for member in plain._members.values())
    return "None" if plain is type(None) else str(plain.__name__)


def _first(faults: Iterable[str | None]) -> str | None:
    return next((fault for fault in faults if fault), None)
