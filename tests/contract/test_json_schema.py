"""JsonSchema.of and ChatRequest(response_format=type)."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from typing import Annotated, Any, Generic, Literal, Optional, TypeVar

import pydantic
import pytest
from typing_extensions import TypedDict

from completion import ChatRequest, ConfigurationError, JsonSchema
from completion.contract.schemas import OPENAI_STRICT, strict, with_items
from tests.wire_pieces import anthropic_body, openai_body

T = TypeVar("T")


@dataclass
class City:
    name: str
    people: Annotated[int, pydantic.Field(ge=0)] = 0


class Model(pydantic.BaseModel):
    cities: list[City]


class Keys(TypedDict):
    city: City


class Box(pydantic.BaseModel, Generic[T]):
    content: T


class Node(pydantic.BaseModel):
    children: list[Node] = []


CITY = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "people": {"type": "integer", "minimum": 0, "default": 0}},
    "required": ["name"],
    "additionalProperties": False,
}


def object_with(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": {name: schema}, "required": [name], "additionalProperties": False}


@pytest.mark.parametrize(
    ("kind", "name", "schema"),
    [
        (City, "City", CITY),
        (Model, "Model", object_with("cities", {"type": "array", "items": CITY})),
        (Keys, "Keys", object_with("city", CITY)),
        (Box[int], "Box_int", object_with("content", {"type": "integer"})),
        (list[City], "list_City", {"type": "array", "items": CITY}),
        (Literal["a b", "c"], "Literal_a_b_c", {"type": "string", "enum": ["a b", "c"]}),
        (Optional[City], "City_None", {"anyOf": [CITY, {"type": "null"}]}),  # noqa: UP045
        (int | str, "int_str", {"anyOf": [{"type": "integer"}, {"type": "string"}]}),
        (int, "int", {"type": "integer"}),
    ],
    ids=str,
)
def test_a_type_becomes_a_closed_schema_with_a_legal_name(kind: Any, name: str, schema: dict[str, Any]) -> None:
    assert JsonSchema.of(kind) == JsonSchema(name, schema)
    request = ChatRequest("Hi", response_format=kind)
    assert request.response_format == JsonSchema(name, schema)
    assert ChatRequest.from_json(request.to_json()) == request


def test_a_name_has_at_most_64_characters() -> None:
    name = JsonSchema.of(Literal["a" * 80, "é"]).name
    assert re.fullmatch("[a-zA-Z0-9_-]{64}", name)


def test_a_type_that_contains_itself_has_an_object_as_its_root() -> None:
    schema = JsonSchema.of(Node).schema
    assert schema["type"] == "object"
    assert schema["properties"]["children"]["items"] == {"$ref": "#/$defs/Node"}


def test_strict_providers_get_the_bounds_they_refuse_in_the_description() -> None:
    request = ChatRequest("Hi", response_format=City)
    sent = openai_body(request, "gpt-5")[0]["response_format"]["json_schema"]
    assert (sent["name"], sent["strict"], sent["schema"]["required"]) == ("City", True, ["name", "people"])
    assert sent["schema"]["properties"]["people"]["description"] == "Default: 0."
    sent = anthropic_body(request, "claude-sonnet-4-5")[0]["output_config"]["format"]["schema"]
    assert "minimum" not in sent["properties"]["people"]
    assert "At least 0." in sent["properties"]["people"]["description"]


@pytest.mark.parametrize("kind", [dict[str, int], dict, Any, object, list[Any], list[dict[str, City]]], ids=str)
def test_a_type_with_open_keys_or_values_is_a_type_error(kind: Any) -> None:
    with pytest.raises(TypeError, match=r"JsonSchema\.of\(.*the schema must list all keys and types"):
        JsonSchema.of(kind)
    with pytest.raises(TypeError, match="the schema must list all keys and types"):
        ChatRequest("Hi", response_format=kind)


@pytest.mark.parametrize("given", [5, "City", {"type": "object"}, City("Rome"), None], ids=str)
def test_a_value_is_not_a_type(given: Any) -> None:
    with pytest.raises(TypeError, match=r"JsonSchema\.of: the argument must be a type, got"):
        JsonSchema.of(given)


@pytest.mark.parametrize("given", [5, {"type": "object"}, City("Rome")], ids=str)
def test_a_value_is_not_a_response_format(given: Any) -> None:
    with pytest.raises(TypeError, match=r"ChatRequest\.response_format"):
        ChatRequest("Hi", response_format=given)


def test_a_missing_extra_is_named_with_the_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "completion.contract.typed", raising=False)
    monkeypatch.setitem(sys.modules, "pydantic", None)
    with pytest.raises(ConfigurationError, match="pip install 'pydantic>="):
        ChatRequest("Hi", response_format=City)


def test_a_pattern_that_looks_ahead_is_told_in_the_description() -> None:
    schema = object_with("code", {"type": "string", "pattern": "^(?!0)[0-9]+$"})
    code = strict(schema, OPENAI_STRICT)["properties"]["code"]
    assert code == {"type": "string", "description": 'It matches the regular expression "^(?!0)[0-9]+$".'}


def test_a_tuple_with_optional_items_tells_how_many_it_may_have() -> None:
    parts = [{"type": "integer"}, {"type": "string"}]
    items = with_items({"type": "array", "prefixItems": parts, "minItems": 1, "maxItems": 2})
    assert items["description"].startswith("1 to 2 items, in this order: ")
