"""Which functions can be tools, how they get their ToolContext, and what a bad call tells the model."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Annotated, Any, Optional

import pytest
from pydantic import Field

from completion import CancelToken, TextBlock, ToolContext, ToolDefinition, ToolError, tool
from completion.engine.tools import Tool

if TYPE_CHECKING:
    from nowhere import Missing  # type: ignore[import-not-found]

CONTEXT = ToolContext("run", "step", "call", CancelToken())
DEFINITION = ToolDefinition("thing", "", {"type": "object"})


def answer(made: Tool, **args: Any) -> str:
    (block,) = made.run(args, CONTEXT)
    assert isinstance(block, TextBlock)
    return block.text


def plain(x: int, context: ToolContext) -> str:
    return f"{x} {context is CONTEXT}"


def optional(x: int, context: ToolContext | None = None) -> str:
    return f"{x} {context is CONTEXT}"


def annotated(x: int, context: Annotated[Optional[ToolContext], "ids"] = None) -> str:  # noqa: UP045
    return f"{x} {context is CONTEXT}"


def quoted(x: int, context: "ToolContext") -> str:  # noqa: UP037
    return f"{x} {context is CONTEXT}"


def unknown_result(x: int, context: ToolContext) -> Missing:
    return f"{x} {context is CONTEXT}"


def unknown_hint(x: Missing, context: ToolContext) -> str:
    return f"{x} {context is CONTEXT}"


def divides_by_zero(x: "1 / 0", context: ToolContext) -> str:  # type: ignore[valid-type]  # noqa: UP037
    return f"{x} {context is CONTEXT}"


class Thing:
    def __call__(self, x: int, context: ToolContext) -> str:
        return f"{x} {context is CONTEXT}"

    def method(self, x: int, context: ToolContext) -> str:
        return f"{x} {context is CONTEXT}"

    def generator(self) -> Iterator[int]:
        yield 1


class GeneratorThing:
    def __call__(self) -> Iterator[int]:
        yield 1


def wrapped(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


FUNCTIONS = [plain, optional, annotated, quoted, unknown_result, Thing().method, wrapped(plain), wrapped(quoted)]
OBJECTS = [Thing(), functools.partial(plain), functools.partial(Thing()), functools.partial(Thing().method)]


@pytest.mark.parametrize("function", [*FUNCTIONS, *OBJECTS])
def test_a_plain_tool_gets_its_context_however_it_is_written(function: Any) -> None:
    assert answer(Tool(DEFINITION, function), x=1) == "1 True"


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_decorated_tool_gets_its_context_however_it_is_written(function: Any) -> None:
    made = tool(function)
    assert list(made.definition.input_schema["properties"]) == ["x"]
    assert answer(made, x=1) == "1 True"


def test_a_context_that_a_partial_already_passes_is_not_passed_again() -> None:
    def first(context: ToolContext, x: int) -> str:
        return f"{x} {context is CONTEXT}"

    assert answer(Tool(DEFINITION, functools.partial(first, CONTEXT)), x=1) == "1 True"


@pytest.mark.parametrize("function", [unknown_hint, divides_by_zero, wrapped(unknown_hint)])
@pytest.mark.parametrize("make", [tool, functools.partial(Tool, DEFINITION)], ids=["@tool", "Tool"])
def test_a_hint_that_cannot_be_evaluated_is_refused_when_the_tool_is_made(make: Any, function: Any) -> None:
    with pytest.raises(TypeError, match=r"a type hint cannot be evaluated .*; define or import the type at the top"):
        make(function)


def test_two_contexts_are_refused() -> None:
    def two(one: ToolContext, other: ToolContext) -> None: ...

    with pytest.raises(TypeError, match="give one parameter, passed by name, the type ToolContext, got one, other"):
        Tool(DEFINITION, two)


def generator() -> Iterator[int]:
    yield 1


async def async_generator() -> AsyncIterator[int]:
    yield 1


GENERATORS = [generator, async_generator, Thing().generator]
GENERATOR_OBJECTS = [GeneratorThing(), functools.partial(generator), functools.partial(GeneratorThing())]


@pytest.mark.parametrize("function", [*GENERATORS, *GENERATOR_OBJECTS])
def test_a_plain_generator_is_refused_when_the_tool_is_made(function: Any) -> None:
    with pytest.raises(TypeError, match=r"is a generator, .* return a list or a text"):
        Tool(DEFINITION, function)


@pytest.mark.parametrize("function", GENERATORS)
def test_a_decorated_generator_is_refused_when_the_tool_is_made(function: Any) -> None:
    with pytest.raises(TypeError, match=r"is a generator, .* return a list or a text"):
        tool(function)


# pydantic's Field as a default


def forecast(
    city: str = Field(description="a city"),
    days: int = Field(default=3, ge=1, le=7),
    tags: list[str] = Field(default_factory=lambda: ["all"]),  # noqa: B008
    unit: str = Field("metric", alias="unitSystem"),
    level: Annotated[int, Field(default=9)] = 4,
) -> str:
    return repr((city, days, tags, unit, level))


@pytest.mark.parametrize("strict", [None, True])
def test_a_field_as_a_default_describes_the_parameter(strict: bool | None) -> None:
    made = tool(strict=strict)(forecast)
    assert made.definition.input_schema["required"][0] == "city"
    assert made.definition.input_schema["properties"]["city"] == {"type": "string", "description": "a city"}
    assert made.definition.input_schema["properties"]["days"]["maximum"] == 7
    assert answer(made, city="Rome") == "('Rome', 3, ['all'], 'metric', 4)"
    assert answer(made, city="Rome", days=1, tags=[], unitSystem="us", level=5) == "('Rome', 1, [], 'us', 5)"


def test_the_bounds_of_a_field_are_checked_before_the_call() -> None:
    with pytest.raises(ToolError, match="- city: is missing\n- days: should be less than or equal to 7; got 8"):
        answer(tool(forecast), days=8)


def test_a_bound_that_the_type_cannot_have_is_refused_when_the_tool_is_made() -> None:
    def function(x: Annotated[int, Field(ge=float("-inf"))]) -> None: ...

    with pytest.raises(TypeError, match="@tool function"):
        tool(function)


def test_a_parameter_whose_name_a_provider_refuses_is_refused_when_the_tool_is_made() -> None:
    def function(größe: int) -> None: ...

    with pytest.raises(TypeError, match="'größe' is not a valid name of an argument"):
        tool(function)


def test_a_default_that_json_does_not_support_is_not_in_the_schema() -> None:
    def function(x: float = float("inf")) -> str:
        return f"{x}"

    assert tool(function).definition.input_schema["properties"] == {"x": {"type": "number"}}
    assert answer(tool(function)) == "inf"


# Bad calls


def numbers(numbers: list[int]) -> None: ...


@pytest.mark.parametrize("args", [{"numbers": ["a" * 900] * 5000}, {f"{i}" * 3000: i for i in range(50)}], ids=len)
@pytest.mark.parametrize("make", [tool, functools.partial(Tool, DEFINITION)], ids=["@tool", "Tool"])
def test_a_bad_call_does_not_flood_the_context(make: Any, args: dict[str, Any]) -> None:
    made = make(numbers)
    if made.definition is DEFINITION:
        args = {f"{key}x": value for key, value in args.items()}
    with pytest.raises(ToolError) as caught:
        made.run(args, CONTEXT)
    assert len(str(caught.value)) < 5000
    assert str(caught.value).count("\n") <= 12
