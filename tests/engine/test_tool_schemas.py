"""The schema of every type hint that ``@tool`` supports, checked against the rules of the providers."""

from __future__ import annotations

import collections
import collections.abc
import enum
import inspect
import json
import re
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, NamedTuple, Optional, TypeVar
from uuid import UUID

import pydantic
import pytest
from pydantic import Field
from typing_extensions import NotRequired, TypedDict

from completion import ChatRequest, tool
from completion.engine.tools import FunctionTool
from tests.wire_pieces import anthropic_body, openai_body

T = TypeVar("T")


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Mixed(enum.Enum):
    TEXT = "a"
    NUMBER = 1


@dataclass
class Place:
    """A point.

    Args:
        lat: degrees north
    """

    lat: float
    lon: Annotated[float, "degrees east"] = 0.0
    tags: list[str] = field(default_factory=list)


@dataclass
class Tree:
    """A tree."""

    value: int
    left: Tree | None = None
    right: Annotated[Optional[Tree], "the larger ones"] = None  # noqa: UP045


class Person(TypedDict):
    name: str
    place: NotRequired[Place]


class Cat(pydantic.BaseModel):
    kind: Literal["cat"]
    lives: int = Field(default=9, ge=1, le=9)


class Dog(pydantic.BaseModel):
    kind: Literal["dog"]
    friends: list[Dog] = []


class Aliased(pydantic.BaseModel):
    city_name: str = Field(alias="cityName", min_length=1)


class Box(pydantic.BaseModel, Generic[T]):
    content: T


class Pair(NamedTuple):
    left: int
    right: str = "x"


class Custom: ...


Pet = Annotated[Cat | Dog, Field(discriminator="kind")]

CLOSED: list[Any] = [
    *(str, int, float, bool, None, datetime, date, time, timedelta, UUID, Decimal, Path, bytes, complex),
    *(Literal["a", "b"], Literal["a", 1, None], Literal[True], Color, Level, Mixed, int | None, int | str | None),
    *(list[int], set[int], frozenset[str], collections.deque[int], collections.abc.Sequence[str]),
    *(collections.abc.Iterable[int], list[list[float]], list[Color]),
    *(tuple[float, float], tuple[int, str], tuple[int, ...], list[tuple[Color, Place]], Pair, list[Pair]),
    *(Place, Place | None, list[Place], Tree, list[Tree], Person, Cat, Dog, Pet, list[Pet], Cat | Dog, Aliased),
    *(Box[int], Box[list[Tree]], Annotated[int, "how many", Field(ge=1, lt=7, multiple_of=2)]),
    *(Annotated[str, Field(min_length=1, max_length=9, pattern="^a")], Annotated[list[int], Field(max_length=3)]),
    *(Annotated[Decimal, Field(gt=0)], pydantic.AnyUrl, pydantic.Json[list[int]]),
    *(pydantic.SecretStr, pydantic.PositiveInt, pydantic.conlist(int, min_length=2), re.Pattern),
]
OPEN: list[Any] = [
    *(Any, object, list, dict, tuple, set, list[Any], dict[str, int], dict[str, Any], dict[int, list[Place]]),
    *(dict[Literal["a"], int], dict[Annotated[str, Field(pattern="^a")], int], collections.Counter[str]),
    *(collections.abc.Mapping[str, Tree], tuple[()], collections.defaultdict[str, int], Any | None),
]
REFUSED: list[Any] = [
    *(Callable[[int], str], Callable[[int], str] | str, Callable[[], None] | None, typing.IO[str], typing.TextIO),
    *(collections.abc.Generator[int, None, None], collections.abc.Iterator[int], collections.abc.AsyncIterator[int]),
    *(type[int], Custom, list[Custom], Custom | int, range, Exception, typing.NoReturn),
    *("Unknown", list["Unknown"]),  # type: ignore[name-defined]  # noqa: F821
]


def takes(hint: Any, default: Any = inspect.Parameter.empty, *, strict: bool | None = None) -> FunctionTool[..., Any]:
    """A tool with one parameter x."""

    def function(x: Any) -> str:
        return repr(x)

    function.__annotations__ = {"x": hint}
    if default is not inspect.Parameter.empty:
        function.__defaults__ = (default,)
    return tool(strict=strict)(function)


def schemas_in(node: Any) -> Iterator[dict[str, Any]]:
    """A schema and all schemas inside of it."""
    if not isinstance(node, dict):
        return
    yield node
    for key, value in node.items():
        if key in ("properties", "$defs"):
            for inner in value.values():
                yield from schemas_in(inner)
        elif key in ("anyOf", "oneOf", "allOf", "prefixItems"):
            for inner in value:
                yield from schemas_in(inner)
        elif key in ("items", "additionalProperties"):
            yield from schemas_in(value)


KNOWN = {
    *("type", "properties", "required", "additionalProperties", "items", "anyOf", "enum", "$ref", "$defs"),
    *("description", "default", "format", "pattern", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
    *("multipleOf", "minItems", "maxItems", "minLength", "maxLength", "uniqueItems", "writeOnly"),
}
STRICT = KNOWN - {"default", "minLength", "maxLength", "uniqueItems", "writeOnly"}
ANTHROPIC = STRICT - {"pattern", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "maxItems"}


def check_plain(schema: dict[str, Any], known: set[str] = KNOWN) -> None:
    """What OpenAI without strict, Anthropic and Gemini's parametersJsonSchema require."""
    json.dumps(schema, allow_nan=False)
    assert schema["type"] == "object"
    assert all(re.fullmatch(r"[a-zA-Z0-9_.-]{1,64}", key) for key in schema["properties"])
    for node in schemas_in(schema):
        assert set(node) <= known
        if "$ref" in node:
            assert set(node) == {"$ref"}
            assert node["$ref"].removeprefix("#/$defs/") in schema["$defs"]
        assert node.get("type") != "array" or "items" in node
        assert "enum" not in node or "type" in node
        assert set(node.get("required", ())) <= set(node.get("properties", ()))


def check_strict(schema: dict[str, Any], known: set[str]) -> None:
    """What OpenAI and Anthropic require of a strict schema."""
    check_plain(schema, known)
    for node in schemas_in(schema):
        assert node.keys() & {"type", "anyOf", "$ref"}
        if node.get("type") == "object":
            assert node["additionalProperties"] is False
            assert known is ANTHROPIC or node["required"] == list(node["properties"])
        assert not re.search(r"\(\?[=!<]", node.get("pattern", ""))


def sent_by_both(made: FunctionTool[..., Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    request = ChatRequest("Hi", tools=[made.definition])
    (openai,) = openai_body(request, "gpt-5")[0]["tools"]
    (anthropic,) = anthropic_body(request, "claude-sonnet-4-5")[0]["tools"]
    return openai["function"], anthropic


@pytest.mark.parametrize("hint", CLOSED + OPEN, ids=str)
def test_every_provider_accepts_the_schema_of_a_hint(hint: Any) -> None:
    made = takes(hint)
    check_plain(made.definition.input_schema)
    openai, anthropic = sent_by_both(made)
    check_plain(openai["parameters"])
    check_plain(anthropic["input_schema"])


@pytest.mark.parametrize("hint", CLOSED, ids=str)
def test_strict_providers_accept_the_schema_of_a_hint(hint: Any) -> None:
    openai, anthropic = sent_by_both(takes(hint, strict=True))
    assert openai["strict"] is True
    check_strict(openai["parameters"], STRICT)
    if anthropic["strict"]:
        check_strict(anthropic["input_schema"], ANTHROPIC)
    else:
        assert "$defs" in anthropic["input_schema"]  # it contains itself
        check_plain(anthropic["input_schema"])


@pytest.mark.parametrize("hint", OPEN, ids=str)
def test_strict_refuses_a_hint_with_open_keys_or_values(hint: Any) -> None:
    with pytest.raises(TypeError, match=r"@tool function: strict=True"):
        takes(hint, strict=True)


@pytest.mark.parametrize("hint", REFUSED, ids=str)
@pytest.mark.parametrize("strict", [None, True])
def test_a_hint_without_a_schema_is_refused_when_the_tool_is_made(hint: Any, strict: bool | None) -> None:
    with pytest.raises(TypeError, match="tool function"):
        takes(hint, strict=strict)
