"""JSON for the dataclasses of the contract: the only door to dataclasses-json.

dataclasses-json walks the fields, both ways. It is also lenient where a contract must not be (measured on 0.6.7:
a ``str`` field given an object becomes its Python repr, ``"false"`` becomes True, a union becomes its first
class), so a document is first held against the type hints here, and every union is told apart by its ``type``.
It is imported on first use: it would double the time of ``import completion``.
"""

from __future__ import annotations

import json
import types
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, fields
from enum import Enum
from functools import cache, partial
from typing import Any, ClassVar, Literal, TypeGuard, TypeVar, Union, cast, get_args, get_origin, get_type_hints

RecordT = TypeVar("RecordT", bound="Record")


class Record:
    """A dataclass that round-trips through JSON. Keys that this version does not know are ignored on reading."""

    __slots__ = ()

    def to_dict(self) -> dict[str, Any]:
        """A new structure of dict, list, str, int, float, bool and None; members of a union carry ``type``."""
        walked: dict[str, Any] = _dataclasses_json().to_dict(self)
        tag = getattr(type(self), "type", None)
        return {"type": tag, **walked} if isinstance(tag, str) else walked

    @classmethod
    def from_dict(cls: type[RecordT], document: Mapping[str, Any]) -> RecordT:
        """The object that ``to_dict`` described.

        Raises:
            ValueError: a field is missing or has the wrong JSON type; the message gives its path.
        """
        _check(cls, document, cls.__name__)
        return cast(RecordT, _build(cls, document))

    def to_json(self, *, indent: int | None = None) -> str:
        """The same as JSON text.

        Raises:
            ValueError: NaN or an infinity, for which JSON has no word.
        """
        text = json.dumps(self.to_dict(), ensure_ascii=False, allow_nan=False, indent=indent)
        try:
            text.encode()
        except UnicodeEncodeError:  # half of a surrogate pair: only an escape can carry it
            text = json.dumps(self.to_dict(), allow_nan=False, indent=indent)
        return text

    @classmethod
    def from_json(cls: type[RecordT], text: str | bytes) -> RecordT:
        """The object that ``to_json`` described. Raises ValueError as ``from_dict`` does, and for bad JSON."""
        return cls.from_dict(json.loads(text))


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
    """Field metadata for a field that holds a Record, an enum member, or a tuple of them (or None, or a str)."""
    return {"dataclasses_json": {"encoder": _encode, "decoder": partial(_decode, kind)}}


def _encode(value: Any) -> Any:
    if isinstance(value, Record):
        return value.to_dict()
    if isinstance(value, tuple):
        return [_encode(item) for item in value]
    return value.value if isinstance(value, Enum) else value


def _decode(kind: type, value: Any) -> Any:
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


def _check(hint: Any, value: Any, path: str) -> None:
    """Raise ValueError unless the JSON ``value`` is what the type hint says."""
    if fault := _fault(hint, value, path):
        raise ValueError(fault)


def _fault(hint: Any, value: Any, path: str) -> str | None:
    origin = get_origin(hint)
    if hint is Any:
        return None
    if origin in (Union, types.UnionType):
        return _union_fault(hint, value, path)
    if origin is Literal:
        return None if value in get_args(hint) else f"{path}: expected one of {get_args(hint)}, got {value!r}"
    if origin is tuple:
        if not isinstance(value, list | tuple):
            return _expected("a list", value, path)
        inside = get_args(hint)[0]
        return _first(_fault(inside, item, f"{path}[{i}]") for i, item in enumerate(value))
    if origin is dict or hint is dict:
        if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
            return _expected("an object", value, path)
        return None
    if isinstance(hint, type) and issubclass(hint, Record):
        return _record_fault(hint, value, path)
    if isinstance(hint, type) and issubclass(hint, Enum):
        words = [member.value for member in hint]
        return None if value in words else f"{path}: expected one of {words}, got {value!r}"
    if hint is float:
        right = isinstance(value, int | float) and not isinstance(value, bool)
    elif hint is int:
        right = isinstance(value, int) and not isinstance(value, bool)
    else:
        right = isinstance(value, hint)
    return None if right else _expected(_WORDS[hint], value, path)


def _union_fault(hint: Any, value: Any, path: str) -> str | None:
    faults = []
    for option in get_args(hint):
        fault = _fault(option, value, path)
        if fault is None:
            return None
        # An object is meant for the option that is one: its fault says most.
        if isinstance(value, Mapping) == (isinstance(option, type) and issubclass(option, Record)):
            faults.append(fault)
    return faults[0] if faults else _expected("another type", value, path)


def _record_fault(kind: type[Record], value: Any, path: str) -> str | None:
    if not isinstance(value, Mapping):
        return _expected("an object", value, path)
    tag = value.get("type")
    if _is_union(kind):
        if not isinstance(tag, str) or tag not in kind._members:
            return f"{path}.type: expected one of {sorted(kind._members)}, got {tag!r}"
        kind = kind._members[tag]
    elif issubclass(kind, Tagged) and tag not in (None, kind.type):
        return f"{path}.type: expected {kind.type!r}, got {tag!r}"
    return _first(_field_fault(field, hint, value, path) for field, hint in _hints(cast(type, kind)))


def _field_fault(field: Field[Any], hint: Any, document: Mapping[str, Any], path: str) -> str | None:
    if field.name in document:
        return _fault(hint, document[field.name], f"{path}.{field.name}")
    required = field.default is MISSING and field.default_factory is MISSING
    return f"{path}.{field.name} is missing" if required else None


_WORDS = {str: "a string", int: "a whole number", float: "a number", bool: "true or false", type(None): "null"}


def _expected(what: str, value: Any, path: str) -> str:
    return f"{path}: expected {what}, got {type(value).__name__}"


def _first(faults: Any) -> str | None:
    return next((fault for fault in faults if fault), None)
