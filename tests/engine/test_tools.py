"""Tools: schemas and argument conversion of ``@tool``, error results for the model, async functions, results."""

from __future__ import annotations

import asyncio
import builtins
import enum
import subprocess
import sys
import threading
import types
import typing
from collections import namedtuple
from collections.abc import AsyncIterator, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, Optional
from uuid import UUID

import pydantic
import pytest
from typing_extensions import NotRequired, TypedDict, assert_type

from completion import (
    Base64Source,
    CancelToken,
    ChatRequest,
    ConfigurationError,
    FinishReason,
    ImageBlock,
    StreamCancelledError,
    StreamChunk,
    TextBlock,
    ToolCallArgsDelta,
    ToolCallFinished,
    ToolCallStarted,
    ToolDefinition,
    TurnFinished,
    Usage,
)
from completion.contract.messages import Block, ToolResultBlock
from completion.engine.results import as_blocks
from completion.engine.run import run_chat
from completion.engine.run_stream import RunResult
from completion.engine.tools import FunctionTool, Tool, ToolContext, ToolError, tool
from completion.testing import ScriptedModel
from tests.wire_pieces import anthropic_body, openai_body

PNG = b"\x89PNG\r\n\x1a\n"


class Unit(enum.Enum):
    CELSIUS = "celsius"
    FAHRENHEIT = "fahrenheit"


@dataclass
class Place:
    """A point on the map.

    Attributes:
        lat: degrees north
    """

    lat: float
    lon: Annotated[float, "degrees east"]
    name: str | None = None


@dataclass
class Node:
    value: int
    children: list[Node] = field(default_factory=list)


@dataclass
class Cat:
    kind: Literal["cat"]
    lives: int


@dataclass
class Dog:
    kind: Literal["dog"]
    tricks: list[str]


class Options(TypedDict):
    verbose: bool
    depth: NotRequired[int]


class OldOptions(typing.TypedDict, total=False):
    verbose: Annotated[bool, "say more"]
    depth: int


class Model(pydantic.BaseModel):
    size: int
    day: date = date(2026, 1, 2)


@tool
def weather(city: str, days: Annotated[int, "from 1 to 7"] = 3, unit: Unit = Unit.CELSIUS) -> str:
    """The weather of the next days.

    Rain included.

    Args:
        city: its name in English
        days: not this text
        unit: of the temperature

    Returns:
        a text
    """
    return f"{city}: {days} days in {unit.value}"


def context() -> ToolContext:
    return ToolContext("run_1", "step_1", "call_1", CancelToken())


def run(which: Tool, **args: Any) -> str:
    (block,) = which.run(args, context())
    assert isinstance(block, TextBlock)
    return block.text


def problems_of(which: Tool, **args: Any) -> list[str]:
    with pytest.raises(ToolError) as caught:
        which.run(args, context())
    return str(caught.value).splitlines()


def properties(which: Tool) -> dict[str, Any]:
    found: dict[str, Any] = which.definition.input_schema["properties"]
    return found


def call(name: str, raw: str, args: dict[str, Any], call_id: str = "call_1") -> list[StreamChunk]:
    return [
        ToolCallStarted(call_id, name),
        ToolCallArgsDelta(call_id, raw),
        ToolCallFinished(call_id, name, args),
        TurnFinished(FinishReason.TOOL_USE),
    ]


def run_with(*tools: Tool, turns: list[list[StreamChunk]]) -> tuple[RunResult, list[ToolResultBlock]]:
    with ScriptedModel(*turns, "Done.") as model:
        result = run_chat(model, ChatRequest("Go."), tools=tools).collect()
    blocks = [block for message in result.new_messages for block in message.blocks]
    return result, [block for block in blocks if isinstance(block, ToolResultBlock)]


def text_of(result: ToolResultBlock) -> str:
    (block,) = result.blocks
    assert isinstance(block, TextBlock)
    return block.text


# The definition for the model


def test_a_function_becomes_a_definition() -> None:
    assert weather.definition == ToolDefinition(
        "weather",
        "The weather of the next days.\n\nRain included.",
        {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "its name in English"},
                "days": {"type": "integer", "description": "from 1 to 7", "default": 3},
                "unit": {
                    "type": "string",
                    "enum": ["celsius", "fahrenheit"],
                    "description": "of the temperature",
                    "default": "celsius",
                },
            },
            "required": ["city"],
            "additionalProperties": False,
        },
    )


def test_options_override_the_name_and_docstring_of_the_function() -> None:
    @tool(name="other", description="Else.", timeout=5, tags=["safe"], strict=False)
    def function(text: str) -> str:
        """Not this."""
        return text

    definition = function.definition
    assert (definition.name, definition.description, definition.tags, definition.strict) == (
        "other",
        "Else.",
        ("safe",),
        False,
    )
    assert function.timeout == 5


def test_a_function_without_parameters_has_an_empty_schema() -> None:
    @tool
    def now() -> str:
        return "noon"

    assert now.definition == ToolDefinition(
        "now", "", {"type": "object", "properties": {}, "additionalProperties": False}
    )
    assert run(now) == "noon"


def takes_hint(hint: Any) -> FunctionTool[[Any], str]:
    def function(x: Any) -> str:
        return repr(x)

    function.__annotations__["x"] = hint
    return tool(function)


PLACE = {
    "type": "object",
    "description": "A point on the map.",
    "properties": {
        "lat": {"type": "number", "description": "degrees north"},
        "lon": {"type": "number", "description": "degrees east"},
        "name": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
    },
    "required": ["lat", "lon"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("hint", "schema"),
    [
        (bool, {"type": "boolean"}),
        (Literal["a", "b"], {"type": "string", "enum": ["a", "b"]}),
        (Optional[int], {"anyOf": [{"type": "integer"}, {"type": "null"}]}),  # noqa: UP045
        (int | str, {"anyOf": [{"type": "integer"}, {"type": "string"}]}),
        (datetime, {"type": "string", "format": "date-time"}),
        (date, {"type": "string", "format": "date"}),
        (list[int], {"type": "array", "items": {"type": "integer"}}),
        (list[Annotated[int, "one"]], {"type": "array", "items": {"type": "integer", "description": "one"}}),
        (Annotated[int, pydantic.Field(ge=1)], {"type": "integer", "minimum": 1}),
        (dict[str, float], {"type": "object", "additionalProperties": {"type": "number"}}),
        (
            tuple[int, str],
            {
                "type": "array",
                "items": {"anyOf": [{"type": "integer"}, {"type": "string"}]},
                "description": 'Exactly 2 items, in this order: {"type": "integer"}; {"type": "string"}.',
                "minItems": 2,
                "maxItems": 2,
            },
        ),
        (Place, PLACE),
        (Place | None, {"anyOf": [PLACE, {"type": "null"}]}),
        (
            Options,
            {
                "type": "object",
                "properties": {"verbose": {"type": "boolean"}, "depth": {"type": "integer"}},
                "required": ["verbose"],
                "additionalProperties": False,
            },
        ),
        (
            list[OldOptions],
            {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {
                        "verbose": {"type": "boolean", "description": "say more"},
                        "depth": {"type": "integer"},
                    },
                    "additionalProperties": False,
                },
            },
        ),
        (
            Model,
            {
                "type": "object",
                "properties": {
                    "size": {"type": "integer"},
                    "day": {"type": "string", "format": "date", "default": "2026-01-02"},
                },
                "required": ["size"],
                "additionalProperties": False,
            },
        ),
        (
            Cat | Dog,
            {
                "anyOf": [
                    {
                        "type": "object",
                        "properties": {"kind": {"type": "string", "enum": ["cat"]}, "lives": {"type": "integer"}},
                        "required": ["kind", "lives"],
                        "additionalProperties": False,
                    },
                    {
                        "type": "object",
                        "properties": {
                            "kind": {"type": "string", "enum": ["dog"]},
                            "tricks": {"type": "array", "items": {"type": "string"}},
                        },
                        "required": ["kind", "tricks"],
                        "additionalProperties": False,
                    },
                ]
            },
        ),
    ],
    ids=str,
)
def test_a_type_has_a_schema_without_references(hint: Any, schema: dict[str, Any]) -> None:
    assert takes_hint(hint).definition.input_schema == {
        "type": "object",
        "properties": {"x": schema},
        "required": ["x"],
        "additionalProperties": False,
    }


def test_a_type_that_contains_itself_keeps_its_reference() -> None:
    assert takes_hint(Node).definition.input_schema == {
        "type": "object",
        "properties": {"x": {"$ref": "#/$defs/Node"}},
        "required": ["x"],
        "additionalProperties": False,
        "$defs": {
            "Node": {
                "type": "object",
                "properties": {
                    "value": {"type": "integer"},
                    "children": {"type": "array", "items": {"$ref": "#/$defs/Node"}},
                },
                "required": ["value"],
                "additionalProperties": False,
            }
        },
    }


def test_a_reference_is_the_only_key_of_its_schema() -> None:
    @tool
    def function(node: Annotated[Node, "the root"]) -> None: ...

    assert properties(function)["node"] == {"anyOf": [{"$ref": "#/$defs/Node"}], "description": "the root"}


def test_a_parameter_may_be_called_title() -> None:
    @tool
    def function(title: str) -> None: ...

    assert properties(function) == {"title": {"type": "string"}}


def numpy_style(size: int) -> None:
    """Do it.

    Parameters
    ----------
    size : int
        in metres
    """


def sphinx_style(size: int) -> None:
    """Do it.

    :param size: in metres
    """


@pytest.mark.parametrize("function", [numpy_style, sphinx_style])
def test_docstrings_of_other_styles_describe_parameters(function: Any) -> None:
    made = tool(function)
    assert made.definition.description == "Do it."
    assert properties(made) == {"size": {"type": "integer", "description": "in metres"}}


def test_strict_requires_every_property_and_mentions_defaults_in_the_description() -> None:
    @tool(strict=True)
    def function(place: Place, days: Annotated[int, "how many"] = 3) -> str:
        return f"{days}"

    assert function.definition.strict is True
    assert function.definition.input_schema == {
        "type": "object",
        "properties": {
            "place": {
                "type": "object",
                "description": "A point on the map.",
                "properties": {
                    "lat": {"type": "number", "description": "degrees north"},
                    "lon": {"type": "number", "description": "degrees east"},
                    "name": {"anyOf": [{"type": "string"}, {"type": "null"}], "description": "Default: null."},
                },
                "required": ["lat", "lon", "name"],
                "additionalProperties": False,
            },
            "days": {"type": "integer", "description": "how many Default: 3."},
        },
        "required": ["place", "days"],
        "additionalProperties": False,
    }
    assert run(function, place={"lat": 1, "lon": 2}) == "3"


@pytest.mark.parametrize("hint", [dict[str, int], Any, list[Any]])
def test_strict_refuses_types_without_a_strict_schema(hint: Any) -> None:
    made = takes_hint(hint)
    with pytest.raises(TypeError, match="strict=True does not allow"):
        tool(strict=True)(made.function)


@pytest.mark.parametrize("strict", [None, True])
def test_the_adapters_send_the_definition(strict: bool | None) -> None:
    @tool(strict=strict)
    def function(place: Place, pet: Cat | Dog, places: list[Place]) -> None:
        """Do it."""

    definition = function.definition
    request = ChatRequest("Hi", tools=[definition])
    (sent,) = openai_body(request, "gpt-5")[0]["tools"]
    expected = {"name": "function", "description": "Do it.", "parameters": definition.input_schema}
    assert sent["function"] == expected | ({} if strict is None else {"strict": True})
    (sent,) = anthropic_body(request, "claude-sonnet-4-6")[0]["tools"]
    expected = {"name": "function", "description": "Do it.", "input_schema": definition.input_schema}
    assert sent == expected | ({} if strict is None else {"strict": True})


# Functions that cannot be tools


def no_hint(x) -> None: ...  # type: ignore[no-untyped-def]
def stars(*args: int) -> None: ...
def double_stars(**kwargs: int) -> None: ...
def by_position(x: int, /) -> None: ...
def by_position_with_default(x: int = 1, /) -> None: ...
def unknown_type(x: Nowhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821
def no_schema(x: threading.Thread) -> None: ...


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (no_hint, "the parameter 'x' has no type hint; write for example x: str"),
        (stars, r"\(\*args.*\) cannot be passed by name; give each argument a name and a type"),
        (double_stars, r"\(\*\*kwargs.*\) cannot be passed by name"),
        (by_position, "the parameter 'x' is positional-only.*remove the /"),
        (by_position_with_default, "cannot be passed by name"),
        (unknown_type, "'Nowhere' is not defined.*at the top of the module"),
        (no_schema, "Thread"),
        (Place, "needs a function, got type"),
        (staticmethod(weather.function), "write @staticmethod above @tool"),
    ],
)
def test_a_function_that_cannot_be_described_is_a_type_error_that_says_what_to_do(function: Any, message: str) -> None:
    with pytest.raises(TypeError, match=f"(?s){message}"):
        tool(function)


def test_a_class_with_a_local_type_in_its_fields_is_a_type_error_that_says_what_to_do() -> None:
    @dataclass
    class Inner:
        a: int

    @dataclass
    class Outer:
        inner: Inner

    with pytest.raises(TypeError, match=r"cannot be found.*at the top of the module"):
        takes_hint(Outer)


@pytest.mark.parametrize("name", ["<lambda>", "größe", "a" * 65, "two words"])
def test_a_name_that_providers_refuse_is_a_value_error(name: str) -> None:
    with pytest.raises(ValueError, match="set name="):
        tool(name=name)(weather.function)


@pytest.mark.parametrize("timeout", [0, -1, float("nan")])
def test_a_timeout_must_be_positive(timeout: float) -> None:
    with pytest.raises(ValueError, match="positive number of seconds"):
        tool(timeout=timeout)(weather.function)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "completion.contract.typed", raising=False)
    monkeypatch.setitem(sys.modules, "pydantic", None)
    with pytest.raises(
        ConfigurationError, match=r"a schema from a type needs pydantic .*pip install 'pydantic>=2.11' 'docs"
    ):
        tool(weather.function)


def test_a_plain_tool_imports_neither_pydantic_nor_asyncio() -> None:
    code = (
        "import sys; from completion import ToolDefinition; from completion.engine.tools import Tool\n"
        "Tool(ToolDefinition('f', '', {}), lambda: 1)\n"
        "print([name for name in ('pydantic', 'docstring_parser', 'asyncio') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# The decorated function


def test_a_decorated_function_can_be_called() -> None:
    assert weather("Rome", unit=Unit.FAHRENHEIT) == "Rome: 3 days in fahrenheit"
    assert weather.__doc__ is not None and weather.__doc__.startswith("The weather")


def test_type_checkers_know_the_type_of_a_decorated_function() -> None:
    @tool(timeout=1)
    async def later(x: int) -> bytes:
        return bytes(x)

    @tool
    def simple(x: int, y: str = "") -> float:
        return x

    assert_type(simple(1, y="a"), float)
    assert_type(asyncio.run(later(1)), bytes)
    assert_type(Thermometer(1).read(1), str)
    with pytest.raises(TypeError):
        simple("a", z=1)  # type: ignore[arg-type, call-arg]


class Thermometer:
    def __init__(self, offset: int) -> None:
        self.offset = offset

    @tool
    def read(self, degrees: int) -> str:
        """Read it."""
        return f"{degrees + self.offset}"

    @staticmethod
    @tool
    def scale(unit: Unit) -> str:
        return unit.name

    @classmethod
    def make(cls, offset: int) -> str:
        return f"{cls.__name__} {offset}"


def test_a_method_of_an_object_is_a_tool() -> None:
    one, other = Thermometer(1), Thermometer(100)
    assert properties(one.read) == {"degrees": {"type": "integer"}}
    assert run(one.read, degrees="20") == "21"
    assert run(other.read, degrees=20) == "120"
    assert one.read(3) == "4"
    assert Thermometer.read(one, 3) == "4"
    _, (result,) = run_with(one.read, turns=[call("read", '{"degrees": 1}', {"degrees": 1})])
    assert text_of(result) == "2"


def test_an_unbound_method_is_refused_before_anything_is_sent() -> None:
    with ScriptedModel() as model, pytest.raises(TypeError, match=r"use the tool of an object, Thing\(\).read"):
        run_chat(model, ChatRequest("Go."), tools=[Thermometer.read])


def test_static_and_class_methods_are_tools() -> None:
    assert run(Thermometer.scale, unit="celsius") == "CELSIUS"
    assert run(Thermometer(1).scale, unit="celsius") == "CELSIUS"
    assert run(tool(Thermometer.make), offset=2) == "Thermometer 2"


# Arguments


@pytest.mark.parametrize(
    ("hint", "given", "shown"),
    [
        (int, "3", "3"),
        (int, 3.0, "3"),
        (int, True, "1"),
        (float, "2.5", "2.5"),
        (bool, "true", "True"),
        (bool, 1, "True"),
        (int | str, "3", "'3'"),
        (str | int, 3, "3"),
        (tuple[int, str], [1, "a"], "(1, 'a')"),
        (set[int], [1, 1], "{1}"),
        (Unit, "celsius", "<Unit.CELSIUS: 'celsius'>"),
        (date, "2026-03-04", "datetime.date(2026, 3, 4)"),
        (Decimal, "0.10", "Decimal('0.10')"),
        (Place, {"lat": "1", "lon": 2}, "Place(lat=1.0, lon=2.0, name=None)"),
        (Cat | Dog, {"kind": "dog", "tricks": []}, "Dog(kind='dog', tricks=[])"),
        (OldOptions, {"depth": "1"}, "{'depth': 1}"),
        (Node, {"value": 1, "children": [{"value": 2}]}, "Node(value=1, children=[Node(value=2, children=[])])"),
    ],
    ids=str,
)
def test_arguments_are_converted_if_nothing_is_lost(hint: Any, given: Any, shown: str) -> None:
    assert run(takes_hint(hint), x=given) == shown


@pytest.mark.parametrize(
    ("hint", "given", "problem"),
    [
        (int, 3.5, "x: should be a valid integer, got a number with a fractional part; got 3.5"),
        (int, "three", 'x: should be a valid integer, unable to parse string as an integer; got "three"'),
        (str, 3, "x: should be a valid string; got 3"),
        (str, None, "x: should be a valid string; got null"),
        (float, float("nan"), "x: should be a finite number; got NaN"),
        (Unit, "kelvin", "x: should be 'celsius' or 'fahrenheit'; got \"kelvin\""),
        (Literal["a", "b"], "c", "x: should be 'a' or 'b'; got \"c\""),
        (list[Place], [{"lat": "north", "lon": 2}], None),
        (tuple[int, str], [1], "x[1]: is missing"),
        (Place, {"lat": 1}, "x.lon: is missing"),
        (Place, {"lat": 1, "lon": 1, "height": 1}, "x.height: is unknown"),
        (OldOptions, {"deep": 1}, "x.deep: is unknown"),
        (Annotated[int, pydantic.Field(ge=1)], 0, "x: should be greater than or equal to 1; got 0"),
        (list[int], "a" * 100, f'x: should be a valid list; got "{"a" * 79}…'),
    ],
    ids=str,
)
def test_a_wrong_argument_is_reported_with_its_path_and_value(hint: Any, given: Any, problem: str | None) -> None:
    problem = problem or 'x[0].lat: should be a valid number, unable to parse string as a number; got "north"'
    assert problems_of(takes_hint(hint), x=given) == [
        "These arguments are wrong:",
        f"- {problem}",
        "The arguments of function are: x.",
    ]


def test_all_wrong_arguments_are_reported_at_once() -> None:
    assert problems_of(weather, days="soon", town="Rome") == [
        "These arguments are wrong:",
        "- city: is missing",
        '- days: should be a valid integer, unable to parse string as an integer; got "soon"',
        "- town: is unknown",
        "The arguments of weather are: city, days, unit.",
    ]


def test_a_wrong_argument_of_a_union_type_names_the_members_tried() -> None:
    assert problems_of(takes_hint(Cat | Dog), x={"kind": "cat"})[1:-1] == [
        "- x (as Cat).lives: is missing",
        "- x (as Dog).kind: should be 'dog'; got \"cat\"",
        "- x (as Dog).tricks: is missing",
    ]


def test_a_missing_optional_argument_gets_the_default_of_the_function() -> None:
    default = object()

    @tool
    def function(x: Annotated[Any, "any"] = default) -> str:
        return str(x is default)

    assert run(function) == "True"
    assert properties(function) == {"x": {"description": "any"}}


def test_wrong_arguments_come_back_to_the_model_and_the_second_call_is_right() -> None:
    first = call("weather", '{"days": "soon"}', {"days": "soon"})
    second = call("weather", '{"city": "Rome", "days": 2}', {"city": "Rome", "days": 2}, "call_2")
    result, (wrong, right) = run_with(weather, turns=[first, second])
    assert wrong.is_error and text_of(wrong).startswith(
        "These arguments are wrong:\n- city: is missing\n- days: should"
    )
    assert not right.is_error and text_of(right) == "Rome: 2 days in celsius"
    assert result.text == "Done."


# Plain tools


def plain(function: Any) -> Tool:
    return Tool(ToolDefinition("plain", "", {"type": "object"}), function)


def test_a_plain_tool_gets_its_arguments_by_name_and_not_validated() -> None:
    assert run(plain(lambda a, b=2: f"{a!r} {b}"), a="1") == "'1' 2"


def test_a_plain_tool_reports_missing_and_unknown_names() -> None:
    assert problems_of(plain(lambda city, days=1: ""), town="Rome") == [
        "These arguments are wrong:",
        "- city: is missing",
        "- town: is unknown",
        "The arguments of plain are: city, days.",
    ]


def test_a_type_error_inside_a_plain_tool_is_raised() -> None:
    with pytest.raises(TypeError, match="can only concatenate"):
        run(plain(lambda a: a + 1), a="1")


def test_a_plain_tool_may_accept_any_names() -> None:
    assert run(plain(lambda **rest: rest), a=1, b=2) == '{"a": 1, "b": 2}'


def test_a_plain_tool_with_unknown_parameters_gets_all_arguments() -> None:
    assert run(plain(dict), a=1) == '{"a": 1}'


def test_a_plain_tool_with_a_positional_only_parameter_is_refused() -> None:
    with pytest.raises(TypeError, match="'x' is positional-only"):
        plain(by_position)


# The context


@tool
def spend(ctx: ToolContext, tokens: int) -> str:
    ctx.report_usage(Usage(output_tokens=tokens))
    return f"{ctx.call_id} of {ctx.run_id[:4]}"


def test_the_context_is_passed_but_not_in_the_schema() -> None:
    assert properties(spend) == {"tokens": {"type": "integer"}}
    result, (answer,) = run_with(spend, turns=[call("spend", '{"tokens": 5}', {"tokens": 5}, "call_7")])
    assert text_of(answer) == "call_7 of run_"
    assert result.usage.output_tokens == 5


def test_a_model_cannot_set_the_context() -> None:
    assert problems_of(spend, tokens=1, ctx="mine")[1] == "- ctx: is unknown"


def test_a_plain_tool_gets_the_context_too() -> None:
    def function(a: int, ctx: ToolContext) -> str:
        return f"{a} {ctx.call_id}"

    assert run(plain(function), a=1) == "1 call_1"
    assert problems_of(plain(function), a=1, ctx=2)[1] == "- ctx: is unknown"


# Asynchronous functions


async def silence() -> None:
    """Wait until it is cancelled."""
    await asyncio.wait_for(asyncio.Event().wait(), 10)


where: ContextVar[str] = ContextVar("where", default="nowhere")


@tool
async def visit(place: str) -> str:
    await asyncio.sleep(0)
    return f"{place} from {where.get()} in {threading.current_thread() is threading.main_thread()}"


def test_an_async_function_runs_with_the_context_variables_of_the_reader() -> None:
    token = where.set("home")
    try:
        _, (answer,) = run_with(visit, turns=[call("visit", '{"place": "Rome"}', {"place": "Rome"})])
    finally:
        where.reset(token)
    assert text_of(answer) == "Rome from home in False"


def test_a_plain_async_function_works() -> None:
    async def function(a: int) -> int:
        return a + 1

    assert run(plain(function), a=1) == "2"


def test_an_async_method_works() -> None:
    class Thing:
        @tool
        async def double(self, x: int) -> int:
            return x * 2

    assert run(Thing().double, x=2) == "4"


def test_an_async_function_runs_while_the_program_runs_its_own_event_loop() -> None:
    async def main() -> str:
        loop = asyncio.get_running_loop()

        @tool
        async def function() -> bool:
            return asyncio.get_running_loop() is not loop

        own = asyncio.create_task(asyncio.sleep(0))
        answer = await asyncio.to_thread(run, function)
        await own
        return answer

    assert asyncio.run(main()) == "true"


def test_an_async_function_leaves_nothing_behind() -> None:
    ended: list[str] = []

    async def count() -> AsyncIterator[int]:
        try:
            yield 1
            yield 2
        finally:
            ended.append("generator")

    async def wait_for_ever() -> None:
        try:
            await silence()
        finally:
            ended.append("task")

    kept: list[Any] = []

    @tool
    async def function() -> None:
        kept.append(count())
        await anext(kept[0])
        kept.append(asyncio.create_task(wait_for_ever()))
        await asyncio.sleep(0)

    assert run(function) == "Done."
    assert sorted(ended) == ["generator", "task"]
    assert kept[1].cancelled()


def test_cancelling_the_token_cancels_an_async_function() -> None:
    ended: list[str] = []
    ctx = context()

    @tool
    async def function() -> None:
        ctx.token.cancel()
        try:
            await silence()
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    with pytest.raises(StreamCancelledError):
        function.run({}, ctx)
    assert ended == ["cancelled"]


def test_an_async_function_does_not_start_if_the_token_is_cancelled() -> None:
    begun: list[str] = []
    ctx = context()
    ctx.token.cancel()

    @tool
    async def function() -> None:
        begun.append("yes")

    with pytest.raises(StreamCancelledError):
        function.run({}, ctx)
    assert begun == []


def test_cancelling_the_token_after_an_async_function_has_no_effect() -> None:
    ctx = context()
    visit.run({"place": "Rome"}, ctx)
    ctx.token.cancel()


def test_an_async_tool_is_cancelled_at_its_timeout() -> None:
    ended = threading.Event()

    @tool(timeout=0.05)
    async def slow() -> None:
        try:
            await silence()
        except asyncio.CancelledError:
            ended.set()
            raise

    _, (answer,) = run_with(slow, turns=[call("slow", "", {})])
    assert answer.is_error and text_of(answer) == "slow took longer than 0.05 s and was cancelled."
    assert ended.wait(5)


def test_the_token_of_a_sync_tool_is_cancelled_at_its_timeout() -> None:
    ended = threading.Event()

    @tool(timeout=0.05)
    def slow(ctx: ToolContext) -> None:
        try:
            ctx.token.sleep(30)
        finally:
            ended.set()

    _, (answer,) = run_with(slow, turns=[call("slow", "", {})])
    assert answer.is_error and text_of(answer) == "slow took longer than 0.05 s and was cancelled."
    assert ended.wait(5)


def test_cancelling_a_run_cancels_its_async_tool() -> None:
    begun, ended = threading.Event(), threading.Event()

    @tool
    async def slow() -> None:
        begun.set()
        try:
            await silence()
        finally:
            ended.set()

    with ScriptedModel(call("slow", "", {})) as model:
        stream = run_chat(model, ChatRequest("Go."), tools=[slow])

        def cancel() -> None:
            begun.wait(5)
            stream.cancel()

        canceller = threading.Thread(target=cancel)
        canceller.start()
        result = stream.collect()
        canceller.join(5)
    assert result.reason is FinishReason.ABORTED
    assert ended.wait(5)


# Results

Point = namedtuple("Point", "x y")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "Done."),
        ("as it is", "as it is"),
        ("", "(empty)"),
        (1.5, "1.5"),
        (True, "true"),
        ([], "[]"),
        ({"größe": [1, None]}, '{"größe": [1, null]}'),
        (Place(1.0, 2.0), '{"lat": 1.0, "lon": 2.0, "name": null}'),
        ([Node(1, [Node(2)])], '[{"value": 1, "children": [{"value": 2, "children": []}]}]'),
        (Model(size=1), '{"size": 1, "day": "2026-01-02"}'),
        ({"models": [Model(size=1)]}, '{"models": [{"size": 1, "day": "2026-01-02"}]}'),
        (Usage(1, 2), None),
        (datetime(2026, 1, 2, 3, 4, tzinfo=timezone.utc), '"2026-01-02T03:04:00+00:00"'),
        (timedelta(hours=30), '"1 day, 6:00:00"'),
        pytest.param({"b", "a"}, '["a", "b"]', id="a set, whose repr has no fixed order"),
        (frozenset({3, 1}), "[1, 3]"),
        (Unit.CELSIUS, '"celsius"'),
        (Point(1, 2), '{"x": 1, "y": 2}'),
        (Decimal("0.10"), '"0.10"'),
        (UUID(int=1), '"00000000-0000-0000-0000-000000000001"'),
        (PurePosixPath("a/b"), '"a/b"'),
        (types.MappingProxyType({1: date(2026, 1, 2)}), '{"1": "2026-01-02"}'),
        ({date(2026, 1, 2): Unit.CELSIUS}, '{"2026-01-02": "celsius"}'),
        (range(3), "[0, 1, 2]"),
    ],
    ids=repr,
)
def test_data_is_sent_as_json(value: Any, text: str | None) -> None:
    text = text or (
        '{"input_tokens": 1, "output_tokens": 2, "cached_input_tokens": 0, "cache_creation_input_tokens": 0, '
        '"cache_creation_5m_tokens": 0, "cache_creation_1h_tokens": 0, "reasoning_tokens": 0}'
    )
    assert as_blocks(value) == (TextBlock(text),)


def test_objects_of_msgspec_attrs_and_numpy_are_sent_as_json() -> None:
    msgspec, attrs, numpy = map(pytest.importorskip, ("msgspec", "attrs", "numpy"))
    struct = msgspec.defstruct("Struct", [("some_size", int)], rename="camel")
    made = attrs.make_class("Made", ["size"])
    assert as_blocks([struct(1), made(2), numpy.arange(2), numpy.int64(3)]) == (
        TextBlock('[{"someSize": 1}, {"size": 2}, [0, 1], 3]'),
    )


IMAGE = ImageBlock(Base64Source("image/png", PNG))


@pytest.mark.parametrize(
    ("value", "blocks"),
    [
        (IMAGE, (IMAGE,)),
        ([TextBlock("a"), IMAGE], (TextBlock("a"), IMAGE)),
        (("An image:", IMAGE, {"size": 8}), (TextBlock("An image:"), IMAGE, TextBlock('{"size": 8}'))),
    ],
)
def test_blocks_are_returned_unchanged(value: Any, blocks: tuple[Block, ...]) -> None:
    assert as_blocks(value) == blocks


def a_generator() -> Iterator[int]:
    yield 1


ROUND: list[Any] = []
ROUND.append(ROUND)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (object(), "contains a value of type object, which is not JSON; return data or blocks"),
        ({"deep": [a_generator()]}, "contains a value of type generator, which is not JSON"),
        (a_generator, "contains a value of type function"),
        (PNG, r"contains a value of type bytes.*ImageBlock\(Base64Source\('image/png', data\)\), or text"),
        (Place, "contains a value of type type"),
        ({(1, 2): 3}, "has a key of type tuple"),
        (float("nan"), "is not JSON"),
        (ROUND, "contains itself"),
    ],
    ids=["object", "generator", "function", "bytes", "class", "key", "nan", "round"],
)
def test_other_objects_are_an_error_and_never_a_repr(value: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=f"the tool('s return value| returned a value).*{message}"):
        as_blocks(value)


def test_a_return_value_that_is_not_json_is_an_error_result() -> None:
    @tool
    def function() -> object:
        return builtins.object()

    _, (answer,) = run_with(function, turns=[call("function", "", {})])
    assert answer.is_error and "contains a value of type object, which is not JSON" in text_of(answer)


@pytest.mark.parametrize("approval", [None, 1, "no"])
def test_approval_is_true_or_false(approval: Any) -> None:
    with pytest.raises(TypeError, match="pay: approval must be True or False, got"):
        Tool(ToolDefinition("pay", "Pays.", {"type": "object"}), print, approval=approval)
