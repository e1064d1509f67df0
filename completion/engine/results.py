"""What a tool returns -> the blocks of its result."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import fields
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any
from uuid import UUID

from completion.contract.codec import Record
from completion.contract.messages import (
    Block,
    ReasoningBlock,
    RedactedReasoningBlock,
    TextBlock,
    ToolCallBlock,
    ToolResultBlock,
)
from completion.wires.json_values import MAX_DEPTH, is_too_deep

# Blocks that belong to a message: no provider accepts them inside of a tool result.
_NOT_CONTENT = (ReasoningBlock, RedactedReasoningBlock, ToolCallBlock, ToolResultBlock)

# The attribute under which a class lists its fields -> for each field, its key in JSON and its attribute. Looking for
# the attribute imports nothing: a tool that returns such an object has imported the package.
_FIELD_LISTS: dict[str, Callable[[Any], Iterable[tuple[str, str]]]] = {
    "__dataclass_fields__": lambda kind: ((one.name, one.name) for one in fields(kind)),
    "__attrs_attrs__": lambda kind: ((one.name, one.name) for one in kind.__attrs_attrs__),
    # msgspec's structs, whose keys may have other names than the attributes
    "__struct_fields__": lambda kind: zip(kind.__struct_encode_fields__, kind.__struct_fields__, strict=True),
}


def as_blocks(value: Any) -> tuple[Block, ...]:
    """What a tool returns, as blocks for the model: blocks unchanged, a str as text, everything else as JSON.

    Accepted as JSON: what ``json`` accepts, and dataclasses, objects of pydantic, msgspec and attrs, named tuples,
    enums, dates, sets, Decimal, UUID, paths, arrays of numpy.

    Raises:
        TypeError, ValueError: anything else, including bytes and NaN. A ``repr`` is never sent: it tells a model
            nothing.
    """
    if value is None:
        return (TextBlock("Done."),)
    if isinstance(value, str) and not isinstance(value, Enum):
        return (TextBlock(value or "(empty)"),)  # providers refuse empty text
    if isinstance(value, Block):
        if isinstance(value, _NOT_CONTENT):
            raise TypeError(f"the tool returned a {type(value).__name__}; return its content: text, data or images")
        if is_too_deep([getattr(value, "args", None), getattr(value, "data", None)]):
            raise ValueError(f"the tool returned a block that is nested too deeply; the limit is {MAX_DEPTH} levels")
        return (value,)
    if isinstance(value, list | tuple) and any(isinstance(item, Block) for item in value):
        return tuple(block for item in value for block in as_blocks(item))
    try:
        return (TextBlock(json.dumps(_as_json(value), ensure_ascii=False, allow_nan=False)),)
    except RecursionError:
        raise ValueError("the tool returned a value that is nested too deeply, or contains itself") from None
    except ValueError as exc:
        raise ValueError(f"the tool returned a value that is not JSON: {exc}") from exc


def _as_json(value: Any) -> Any:
    """The value in types that ``json`` can write."""
    if isinstance(value, Enum):
        return _as_json(value.value)
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, Record):
        return value.to_dict()
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, timedelta | Decimal | UUID | PurePath):
        return str(value)
    if (mapping := _as_mapping(value)) is not None:
        return {_key(key): _as_json(item) for key, item in mapping.items()}
    if isinstance(value, Set):
        items = [_as_json(item) for item in value]
        try:
            return sorted(items)  # the order of a set differs between processes
        except TypeError:
            return items
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray | memoryview):
        return [_as_json(item) for item in value]
    if hasattr(value, "tolist") and not isinstance(value, memoryview):  # an array; a memoryview is bytes
        return _as_json(value.tolist())
    hint = "ImageBlock(Base64Source('image/png', data)), or text" if isinstance(value, bytes) else "data or blocks"
    kind = type(value).__name__
    raise TypeError(f"the tool's return value contains a value of type {kind}, which is not JSON; return {hint}")


def _as_mapping(value: Any) -> Mapping[Any, Any] | None:
    """The value as a mapping if it is one or has named fields; else None."""
    kind = type(value)
    if isinstance(value, Mapping):
        return value
    for attribute, names in _FIELD_LISTS.items():
        if hasattr(kind, attribute):
            return {key: getattr(value, name) for key, name in names(kind)}
    if hasattr(kind, "model_dump"):  # pydantic's models have serializers of their own for their fields
        dumped: dict[str, Any] = value.model_dump(mode="json")
        return dumped
    if isinstance(value, tuple) and hasattr(kind, "_asdict"):
        as_dict: dict[str, Any] = value._asdict()  # type: ignore[attr-defined]
        return as_dict
    return None


def _key(key: Any) -> str | int | float | None:
    converted = _as_json(key)
    if converted is None or isinstance(converted, str | int | float):
        return converted
    raise TypeError(f"the tool's return value has a key of type {type(key).__name__}, which is not JSON; use a str")
