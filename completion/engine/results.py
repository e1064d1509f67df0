"""What a tool returns -> the blocks of its result."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence, Set
from dataclasses import fields, is_dataclass
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any
from uuid import UUID

from completion.contract.codec import Record
from completion.contract.messages import Block, TextBlock
from completion.wires.json_values import MAX_DEPTH, is_too_deep


def as_blocks(value: Any) -> tuple[Block, ...]:
    """What a tool gives back, for the model to read: blocks as they are, text as text, data as JSON.

    Data is what JSON knows, and: dataclasses, objects of pydantic, msgspec and attrs, named tuples, enums, dates, sets,
    Decimal, UUID, paths, arrays of numpy.

    Raises:
        TypeError, ValueError: anything else, bytes included, and NaN; a ``repr`` is nothing to read.
    """
    if value is None:
        return (TextBlock("Done."),)
    if isinstance(value, str) and not isinstance(value, Enum):
        return (TextBlock(value or "(empty)"),)
    if isinstance(value, Block):
        if is_too_deep([getattr(value, "args", None), getattr(value, "data", None)]):
            raise ValueError(f"a block that the tool returned is nested too deep: {MAX_DEPTH} levels are allowed")
        return (value,)
    if isinstance(value, list | tuple) and any(isinstance(item, Block) for item in value):
        return tuple(block for item in value for block in as_blocks(item))
    try:
        return (TextBlock(json.dumps(_json(value), ensure_ascii=False, allow_nan=False)),)
    except RecursionError:
        raise ValueError("what the tool returned is nested too deeply, or contains itself") from None
    except ValueError as exc:
        raise ValueError(f"what the tool returned is no JSON: {exc}") from exc


def _json(value: Any) -> Any:
    """The value in the words of JSON."""
    if isinstance(value, Enum):
        return _json(value.value)
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, Record):
        return value.to_dict()
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, timedelta | Decimal | UUID | PurePath):
        return str(value)
    if (named := _named(value)) is not None:
        return {_key(key): _json(item) for key, item in named.items()}
    if isinstance(value, Set):
        items = [_json(item) for item in value]
        try:
            return sorted(items)  # one order for one set
        except TypeError:
            return items
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray | memoryview):
        return [_json(item) for item in value]
    if hasattr(value, "tolist") and not isinstance(value, memoryview):  # numpy
        return _json(value.tolist())
    hint = "ImageBlock(Base64Source('image/png', data)), or text" if isinstance(value, bytes) else "data or blocks"
    raise TypeError(f"what the tool returned holds a {type(value).__name__}, which is no JSON; return {hint}")


def _named(value: Any) -> Mapping[Any, Any] | None:
    """What has names of its own, as a mapping."""
    kind = type(value)
    if isinstance(value, Mapping):
        return value
    if is_dataclass(kind):
        return {one.name: getattr(value, one.name) for one in fields(value)}
    if hasattr(kind, "model_dump"):  # pydantic
        dumped: dict[str, Any] = value.model_dump(mode="json")
        return dumped
    if hasattr(kind, "__struct_fields__"):  # msgspec
        return {
            shown: getattr(value, name)
            for shown, name in zip(kind.__struct_encode_fields__, kind.__struct_fields__, strict=True)
        }
    if hasattr(kind, "__attrs_attrs__"):
        return {one.name: getattr(value, one.name) for one in kind.__attrs_attrs__}
    if isinstance(value, tuple) and hasattr(kind, "_asdict"):
        named: dict[str, Any] = value._asdict()  # type: ignore[attr-defined]
        return named
    return None


def _key(key: Any) -> str | int | float | None:
    found = _json(key)
    if found is None or isinstance(found, str | int | float):
        return found
    raise TypeError(f"what the tool returned has a {type(key).__name__} as a key, which is no JSON; use text")
