"""JSON for the dataclasses of the contract. No other module imports dataclasses-json.

dataclasses-json walks the fields, in both directions. It accepts values that a contract must refuse (seen in 0.6.7: a
``str`` field turns an object into its Python repr, ``"false"`` becomes True, a union becomes its first class). So a
document is first checked against the type hints, in this module, and the class of a union is chosen by ``type``.
dataclasses-json is imported on first use, because it would double the time of ``import completion``.
"""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import MISSING, Field, fields
from enum import Enum
from functools import cache, partial
from typing import Any, ClassVar, Literal, TypeGuard, TypeVar, Union, cast, get_args, get_origin, get_type_hints

RecordT = TypeVar("RecordT", bound="Record")


class Record:
    """A dataclass that round-trips through JSON. Unknown keys are ignored on reading.

    Its ``repr`` leaves out the fields that have their default value.
    """

    __slots__ = ()

    def __init_subclass__(cls) -> None:
        # @dataclass writes a __repr__ of its own into each class that does not define one.
        if "__repr__" not in cls.__dict__:
            cls.__repr__ = Record.__repr__  # type: ignore[method-assign]

    def __repr__(self) -> str:
        shown = (
            f"{field.name}={getattr(self, field.name)!r}"
            for field in fields(cast(Any, self))
            if not _is_default(field, getattr(self, field.name))
        )
        return f"{type(self).__qualname__}({', '.join(shown)})"

    def to_dict(self) -> dict[str, Any]:
        """A new structure of dict, list, str, int, float, bool and None; the classes of a union have a key ``type``.

        Raises:
            ValueError: the object is nested too deeply.
        """
        try:
            walked: dict[str, Any] = _dataclasses_json().to_dict(self)
        except RecursionError:
            raise _too_deep(type(self)) from None
        tag = getattr(type(self), "type", None)
        return {"type": tag, **walked} if isinstance(tag, str) else walked

    @classmethod
    def from_dict(cls: type[RecordT], document: Mapping[str, Any]) -> RecordT:
        """The object of a document from ``to_dict``. It shares nothing with the document.

        Raises:
            ValueError: a field is missing or has the wrong JSON type; the message contains the path of the field.
        """
        try:
            if fault := _fault(cls, document, cls.__name__):
                raise ValueError(fault)
            return cast(RecordT, _build(cls, document))
        except RecursionError:
            raise _too_deep(cls) from None

    def to_json(self, *, indent: int | None = None) -> str:
        """The JSON text of ``to_dict()``.

        Raises:
            ValueError: a number is NaN or infinite, which JSON does not support, or the object is nested too deeply.
            TypeError: a dict contains a value that JSON does not support, such as bytes.
        """
        document = self.to_dict()
        try:
            text = json.dumps(document, ensure_ascii=False, allow_nan=False, indent=indent)
            text.encode()
        except UnicodeEncodeError:  # half a surrogate pair: UTF-8 cannot encode it, a JSON escape can
            text = json.dumps(document, allow_nan=False, indent=indent)
        except RecursionError:
            raise _too_deep(type(self)) from None
        return text

    @classmethod
    def from_json(cls: type[RecordT], text: str | bytes) -> RecordT:
        """The object of a text from ``to_json``.

        Raises:
            ValueError: the text is not JSON, or ``from_dict`` refuses the document.
        """
        try:
            document = json.loads(text)
        except RecursionError:
            raise _too_deep(cls) from None
        return cls.from_dict(document)


def _is_default(field: Field[Any], value: Any) -> bool:
    if field.default_factory is not MISSING:
        return bool(value == field.default_factory())
    return field.default is not MISSING and bool(value == field.default)


def _too_deep(kind: type) -> ValueError:
    return ValueError(f"{kind.__name__}: nested too deeply")


class Tagged(Record):
    """A Record that has a key ``type`` in JSON.

    A direct subclass, such as StreamChunk, is a union. The subclasses of the union are its members, and each has its
    own ``type``. ``from_dict`` of the union returns an object of the member that the document's ``type`` names.
    """

    __slots__ = ()
    type: ClassVar[str]
    _members: ClassVar[dict[str, Any]]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if Tagged in cls.__bases__:
            cls._members = {}
        if isinstance(tag := cls.__dict__.get("type"), str):
            cls._members[tag] = cls


def nested(kind: type) -> dict[str, Any]:
    """Metadata of a field that is a Record, an enum member, or a tuple of them. The field may accept None and str too.

    ``nested(dict)`` is for a field that may contain any JSON object: it is copied, its keys are not checked.
    """
    return {"dataclasses_json": {"encoder": _encode, "decoder": partial(_decode, kind)}}


def nested_or_absent(kind: type) -> dict[str, Any]:
    """As ``nested``, but the JSON leaves out the key if the value is None."""
    metadata = nested(kind)
    metadata["dataclasses_json"]["exclude"] = lambda value: value is None
    return metadata


def nested_tuple_or_absent(kind: type) -> dict[str, Any]:
    """As ``nested``, for a tuple: the JSON leaves out the key if it is empty."""
    metadata = nested(kind)
    metadata["dataclasses_json"]["exclude"] = lambda value: not value
    return metadata


def json_fields(record: Record) -> Iterator[tuple[str, Any]]:
    """The names and values of the fields that are in the record's JSON."""
    for field in fields(record):  # type: ignore[arg-type]
        value = getattr(record, field.name)
        is_left_out = field.metadata.get("dataclasses_json", {}).get("exclude")
        if is_left_out is None or not is_left_out(value):
            yield field.name, value


def check_fields(record: Record) -> None:
    """Check the fields of a new object against their type hints.

    Raises:
        TypeError: a field has a value of another type; the message names the field.
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
    """The object of a document that was checked before."""
    return _dataclasses_json().from_dict(_member(kind, document), {**document})


@cache
def _dataclasses_json() -> types.SimpleNamespace:
    from dataclasses_json import DataClassJsonMixin

    # The functions of the mixin, without inheriting from it: that would give every chunk a __dict__.
    from_dict: Callable[..., Any] = DataClassJsonMixin.from_dict.__func__  # type: ignore[attr-defined]
    return types.SimpleNamespace(to_dict=DataClassJsonMixin.to_dict, from_dict=from_dict)


def _member(kind: type, document: Mapping[str, Any]) -> type:
    """The class to build: the kind itself, or the class of the union that the key ``type`` names."""
    return kind._members[document["type"]] if _is_union(kind) else kind


def _is_union(kind: type) -> TypeGuard[type[Tagged]]:
    return "_members" in kind.__dict__  # not hasattr: a member inherits the attribute from its union


@cache
def _hints(kind: Any) -> tuple[tuple[Field[Any], Any], ...]:
    hints = get_type_hints(kind)
    return tuple((field, hints[field.name]) for field in fields(kind))


def _fault(hint: Any, value: Any, path: str, *, is_document: bool = True) -> str | None:
    """A description of what is wrong with a value, or None if it fits its type hint.

    ``is_document``: the value comes from JSON. Otherwise it is an argument of a constructor.
    """
    origin = get_origin(hint)
    if hint is Any:
        return None
    if origin in (Union, types.UnionType):
        options = get_args(hint)
        if value is None and type(None) in options:  # most fields of a request
            return None
        of_options: list[str] = []
        for option in options:
            if (fault := _fault(option, value, path, is_document=is_document)) is None:
                return None
            of_options.append(fault)
        # A fault inside the value helps more than "expected A or B": the value has the right type, a part is wrong.
        inside = (fault for fault in of_options if fault.startswith((f"{path}.", f"{path}[")))
        return next(inside, None) or _expected(hint, value, path, is_document)
    if origin is Literal:
        fits = isinstance(value, str) and value in get_args(hint)
    elif origin is tuple:
        fits = isinstance(value, list | tuple)
        if fits:
            item = get_args(hint)[0]
            faults = [_fault(item, value[i], f"{path}[{i}]", is_document=is_document) for i in range(len(value))]
            return _first_fault(faults)
    elif origin is dict:
        fits = isinstance(value, Mapping if is_document else dict)
        if fits and is_document and (not_strings := [key for key in value if not isinstance(key, str)]):
            return f"{path}: the keys of an object must be strings, got {not_strings[0]!r}"
    elif issubclass(hint, Record):
        if is_document and isinstance(value, Mapping):
            return _record_fault(hint, value, path)
        fits = not is_document and isinstance(value, hint)
    elif issubclass(hint, Enum):
        fits = isinstance(value, str) and value in [member.value for member in hint]
    elif hint is int:  # bool is a subclass of int in Python; JSON has two types
        fits = isinstance(value, int) and not isinstance(value, bool)
    elif hint is float:  # JSON has one kind of number; an int above the largest float cannot become one
        fits = isinstance(value, float) or (_fault(int, value, path) is None and abs(value) <= sys.float_info.max)
    else:
        fits = isinstance(value, hint)
    return None if fits else _expected(hint, value, path, is_document)


def _record_fault(kind: type[Record], document: Mapping[str, Any], path: str) -> str | None:
    tag = document.get("type")
    if _is_union(kind):
        if not isinstance(tag, str) or tag not in kind._members:
            return f"{path}.type: expected one of {sorted(kind._members)}, got {tag!r}"
        kind = kind._members[tag]
    elif issubclass(kind, Tagged) and tag not in (None, kind.type):
        return f"{path}.type: expected {kind.type!r}, got {tag!r}"
    return _first_fault(_field_fault(field, hint, document, path) for field, hint in _hints(cast(type, kind)))


def _field_fault(field: Field[Any], hint: Any, document: Mapping[str, Any], path: str) -> str | None:
    if field.name in document:
        return _fault(hint, document[field.name], f"{path}.{field.name}")
    is_required = field.default is MISSING and field.default_factory is MISSING
    return f"{path}.{field.name} is missing" if is_required else None


_JSON_TYPE_NAMES: dict[Any, str] = {
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
    return f"{path}: expected {_type_name(hint, is_document)}, got {got}"


def _type_name(hint: Any, is_document: bool) -> str:
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(_type_name(option, is_document) for option in get_args(hint))
    if origin is Literal:
        return " or ".join(repr(word) for word in get_args(hint))
    plain = origin or hint
    if issubclass(plain, Enum):
        return " or ".join(repr(member.value) for member in plain)
    if is_document:
        return "an object" if issubclass(plain, Record) else _JSON_TYPE_NAMES[plain]
    if _is_union(plain):
        return " or ".join(member.__name__ for member in plain._members.values())
    return "None" if plain is type(None) else str(plain.__name__)


def _first_fault(faults: Iterable[str | None]) -> str | None:
    return next((fault for fault in faults if fault), None)
