"""Types as JSON Schema: the parameters of a function, and the type of an answer. The only door to pydantic and
docstring_parser.

Why pydantic and not msgspec: it reports all problems of the arguments at once, and it supports unions of dataclasses
and additionalProperties. Its import takes 100 ms instead of 20, but it is imported only when a type becomes a schema.

Arguments from a model are converted where nothing is lost (pydantic's lax mode): "3" and 3.0 become an int, 1 and
"true" a bool, true the number 1, a list a tuple or a set, an ISO 8601 text a datetime, a value its Enum member. 3.5 is
not accepted as an int, 3 not as a str, and NaN not as a number.
"""

from __future__ import annotations

import collections.abc
import json
import re
import sys
import typing
from collections.abc import Mapping
from dataclasses import is_dataclass
from types import UnionType
from typing import Annotated, Any, Literal, NoReturn, Union, get_args, get_origin, get_type_hints, is_typeddict

from completion.contract.errors import ConfigurationError
from completion.contract.packages import install_command
from completion.contract.schemas import OPENAI_STRICT, OpenSchemaError, strict, with_items

try:
    import docstring_parser
    import pydantic
    from pydantic.errors import PydanticUndefinedAnnotation, PydanticUserError
    from pydantic.fields import FieldInfo
    from pydantic.json_schema import GenerateJsonSchema
    from pydantic_core import PydanticSerializationError, SchemaError, to_jsonable_python
    from typing_extensions import NotRequired, Required, TypedDict
except ImportError as exc:
    _install = install_command("pydantic>=2.11", "docstring-parser>=0.16")
    raise ConfigurationError(
        f"a schema from a type needs pydantic and docstring_parser ({exc}); run: {_install}"
    ) from exc

_MAX_SHOWN_CHARS = 80  # of a wrong value, in an error message

# Anthropic refuses other names of the properties of a tool.
_PROPERTY_NAME = re.compile(r"[a-zA-Z0-9_.-]{1,64}")

_TYPE_NOT_FOUND = "a type inside of it cannot be found; define or import it at the top of the module"

_IS_BEFORE_312 = sys.version_info < (3, 12)

_typed_dict: Any = TypedDict  # Any: mypy refuses a TypedDict whose fields are only known at run time


class ParsedDocstring:
    """A docstring in Google, numpy or Sphinx style: its text, and the description of each parameter."""

    def __init__(self, docstring: str | None) -> None:
        parsed = docstring_parser.parse(docstring or "")
        self.text = (parsed.description or "").strip()
        self.parameters = {one.arg_name: one.description for one in parsed.params if one.description}


class Arguments:
    """The arguments of a function: their schema, and their conversion.

    Args:
        name: of the tool, for messages.
        hints: the type of each argument; ``Annotated[int, "text"]`` describes it.
        defaults: of the optional arguments.
        descriptions: used for arguments whose hint has no description.
        strict: make a schema for OpenAI's strict mode: every property is required, at every depth, and a default is
            mentioned in the description. Arguments without an optional property are still accepted.

    Raises:
        TypeError: a type has no JSON Schema, or no strict one.
    """

    def __init__(
        self,
        name: str,
        hints: Mapping[str, Any],
        defaults: Mapping[str, Any],
        descriptions: Mapping[str, str],
        *,
        strict: bool = False,
    ) -> None:
        fields = _typed_dict(name, {key: _field(hint, key, defaults) for key, hint in hints.items()})
        # A TypedDict, because it returns only the arguments that were passed: the function adds its own defaults.
        fields.__pydantic_config__ = pydantic.ConfigDict(extra="forbid", allow_inf_nan=False)
        owner = f"@tool {name}"
        self._adapter, document = _adapter_and_document(fields, owner)
        definitions = document.pop("$defs", {})
        for key, node in document.get("properties", {}).items():
            if not _PROPERTY_NAME.fullmatch(key):
                raise TypeError(
                    f"{owner}: {key!r} is not a valid name of an argument for every provider (1 to 64 letters from "
                    "A to Z, digits, _, . and -); rename it"
                )
            if key in descriptions:
                node.setdefault("description", descriptions[key])
            if key in defaults and not isinstance(defaults[key], FieldInfo):
                _add_default(node, defaults[key])
        self.schema = _flat({"properties": {}, **document}, definitions, owner, is_strict=strict)

    def convert(self, args: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments as the types of the function's parameters.

        Raises:
            ValueError: some are wrong; its ``args`` are the problems, one line of text each, for the model.
        """
        try:
            converted: dict[str, Any] = self._adapter.validate_python(args)
            return converted
        except pydantic.ValidationError as exc:
            problems = exc.errors(include_url=False, include_context=False)
        raise ValueError(*(_as_line(problem, args) for problem in problems))


def schema_of(kind: Any) -> tuple[str, dict[str, Any]]:
    """The legal name and the closed schema of a type.

    Raises:
        TypeError: the type has no JSON Schema, or none that lists all keys.
    """
    checker = TypeChecker(kind, f"JsonSchema.of({_shown_type(kind)})")
    if checker.open_reason is not None:
        raise TypeError(checker.open_reason)
    return checker.name, checker.schema


class TypeChecker:
    """The schema of a type, and the validation of JSON data.

    ``open_reason``: why no provider can enforce the schema, as a sentence for the user; None if one can.

    Raises:
        TypeError: the type has no JSON Schema.
    """

    def __init__(self, kind: Any, owner: str | None = None) -> None:
        self.shown = _shown_type(kind)
        self.name = _legal_name(kind)
        self.open_reason: str | None = None
        owner = owner or f"the answer type {self.shown}"
        self._adapter, document = _adapter_and_document(_prepared(kind), owner)
        self.schema = _flat(document, document.pop("$defs", {}), owner)
        try:
            strict(self.schema, OPENAI_STRICT)
        except OpenSchemaError as exc:
            self.open_reason = (
                f"{owner}: the schema must list all keys and types ({exc}); use a dataclass or a TypedDict instead of "
                "a dict, and a specific type instead of Any"
            )

    def convert(self, data: Any) -> Any:
        """The JSON data as a value of the type.

        Raises:
            ValueError: it does not fit; its ``args`` are the problems, one line of text each.
        """
        try:
            # As JSON text: a type that is strict in Python, such as a date, is a string in JSON.
            return self._adapter.validate_json(json.dumps(data))
        except pydantic.ValidationError as exc:
            problems = exc.errors(include_url=False, include_context=False)
        raise ValueError(*(_as_line(problem, data) for problem in problems))


def to_json_data(value: Any) -> Any:
    """A value of a type as JSON data."""
    return to_jsonable_python(value)


def _legal_name(kind: Any) -> str:
    name = re.sub(r"[^a-zA-Z0-9]*[^a-zA-Z0-9_-]+", "_", _shown_type(kind)).strip("_")
    return name[:64] or "answer"


def _shown_type(kind: Any) -> str:
    """``Box[int]``, ``list[City]``, ``int | str``: without the names of modules."""
    if get_origin(kind) is Annotated:
        return _shown_type(get_args(kind)[0])
    if kind is type(None):
        return "None"
    args = get_args(kind)
    if get_origin(kind) in (Union, UnionType):
        return " | ".join(map(_shown_type, args))
    name = getattr(kind, "__name__", None) or str(kind).removeprefix("typing.")
    if not args or "[" in name:
        return str(name)
    shown = (repr(arg) if get_origin(kind) is Literal else _shown_type(arg) for arg in args)
    return f"{name}[{', '.join(shown)}]"


def _adapter_and_document(kind: Any, owner: str) -> tuple[pydantic.TypeAdapter[Any], dict[str, Any]]:
    """The adapter of pydantic for a type, and the schema that pydantic makes of it."""
    try:
        adapter: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(kind)
        return adapter, adapter.json_schema(schema_generator=_SchemaGenerator)
    except (PydanticUserError, PydanticUndefinedAnnotation) as exc:
        is_not_found = exc.code in ("class-not-fully-defined", "undefined-annotation")
        # The first sentence is enough: the others tell how to change pydantic's configuration.
        problem = _TYPE_NOT_FOUND if is_not_found else exc.message.partition(". ")[0]
        raise TypeError(f"{owner}: {problem}") from exc
    except SchemaError as exc:  # a bound that the type cannot have
        raise TypeError(f"{owner}: {exc}") from exc
    except _UnsupportedType as exc:
        raise TypeError(f"{owner}: {exc}") from None


class _UnsupportedType(Exception):
    """A type has no JSON Schema, or its values cannot be checked before the function is called."""


def _flat(
    document: dict[str, Any], definitions: dict[str, Any], owner: str, *, is_strict: bool = False
) -> dict[str, Any]:
    schema = with_items(_Flattener(owner, definitions, is_strict).flatten_document(document))
    try:
        json.dumps(schema, allow_nan=False).encode()
        if is_strict:
            strict(schema, OPENAI_STRICT)
    except OpenSchemaError as exc:
        raise TypeError(f"{owner}: strict=True does not allow this type: {exc}") from None
    except (TypeError, ValueError) as exc:  # for example a bound that is infinite
        raise TypeError(f"{owner}: the schema is not JSON: {exc}") from None
    return schema


def _field(hint: Any, key: str, defaults: Mapping[str, Any]) -> Any:
    """A field of the TypedDict. ``city: str = Field(description="…")`` describes the parameter as pydantic does."""
    default = defaults.get(key)
    if isinstance(default, FieldInfo):
        return _prepared(Annotated[hint, default])  # pydantic adds the default, or requires the argument
    if key not in defaults:
        return _prepared(hint)
    if any(isinstance(note, FieldInfo) and not note.is_required() for note in getattr(hint, "__metadata__", ())):
        return _prepared(Annotated[hint, pydantic.Field(default=default)])  # the default of the function wins
    return NotRequired[_prepared(hint)]


def _prepared(hint: Any, within: tuple[Any, ...] = ()) -> Any:
    """The hint in a form that pydantic supports: a text in Annotated as a description, and each TypedDict replaced."""
    if _IS_BEFORE_312 and type(hint).__module__ == "typing" and is_typeddict(hint) and hint not in within:
        return _prepared_dict(hint, (*within, hint))
    origin: Any = get_origin(hint)
    args = get_args(hint)
    if hint in (typing.Iterable, collections.abc.Iterable) or origin is collections.abc.Iterable:
        # pydantic checks the values of an Iterable while the function reads them; a list is checked before the call.
        return list[_prepared(args[0], within)] if args else list  # type: ignore[misc]
    if origin is Annotated:
        notes = (pydantic.Field(description=note) if isinstance(note, str) else note for note in hint.__metadata__)
        return Annotated[(_prepared(hint.__origin__, within), *notes)]
    if not args or origin is Literal or any(isinstance(arg, list) for arg in args):  # a list: Callable[[int], str]
        return hint
    prepared = tuple(_prepared(arg, within) for arg in args)
    if prepared == args:  # nothing to replace; some generic types cannot be built again
        return hint
    if origin in (Union, UnionType):
        return Union[prepared]  # noqa: UP007
    return origin[prepared[0] if len(prepared) == 1 else prepared]


def _prepared_dict(hint: Any, within: tuple[Any, ...]) -> Any:
    """A TypedDict of ``typing`` as one of ``typing_extensions``: before Python 3.12, pydantic refuses the former."""
    fields = {}
    for key, value in get_type_hints(hint, include_extras=True).items():
        marked = value
        if get_origin(value) not in (Required, NotRequired):
            marked = Required[value] if key in hint.__required_keys__ else NotRequired[value]
        fields[key] = _prepared(marked, within)
    prepared = _typed_dict(hint.__name__, fields)
    prepared.__doc__ = hint.__doc__
    return prepared


class _SchemaGenerator(GenerateJsonSchema):
    """Adds descriptions from the docstrings of classes and from ``Annotated[int, "text"]``, and no titles."""

    def emit_warning(self, kind: Any, detail: str) -> None:
        if kind == "skipped-choice":  # a member of a union has no schema: the model could never send it
            raise _UnsupportedType(detail)

    def generator_schema(self, schema: Any) -> NoReturn:
        raise _UnsupportedType("a generator or an Iterable cannot be checked before it is read; use list[…]")

    def is_subclass_schema(self, schema: Any) -> NoReturn:
        raise _UnsupportedType("type[…] has no JSON Schema; use Literal[…] with the names to choose from")

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def dataclass_schema(self, schema: Any) -> dict[str, Any]:
        return _with_descriptions(super().dataclass_schema(schema), schema["cls"])

    def typed_dict_schema(self, schema: Any) -> dict[str, Any]:
        return _with_descriptions(super().typed_dict_schema(schema), schema.get("cls"))

    def model_schema(self, schema: Any) -> dict[str, Any]:
        return _with_descriptions(super().model_schema(schema), schema["cls"])


def _with_descriptions(document: dict[str, Any], kind: Any) -> dict[str, Any]:
    docstring = getattr(kind, "__doc__", None) or ""
    # Python generates a docstring for a dataclass without one: its signature, Place(lat: float, lon: float).
    is_generated = is_dataclass(kind) and docstring.startswith(f"{getattr(kind, '__name__', '')}(")
    doc = ParsedDocstring(document.pop("description", "" if is_generated else docstring))
    if doc.text:
        document["description"] = doc.text
    descriptions = {**doc.parameters, **_annotated_texts(kind)}
    for name, node in document.get("properties", {}).items():
        if name in descriptions:
            node.setdefault("description", descriptions[name])
    return document


def _annotated_texts(kind: Any) -> dict[str, str]:
    """The texts in ``Annotated`` of the fields of a class."""
    try:
        hints = get_type_hints(kind, include_extras=True)
    except (NameError, TypeError):  # a type defined inside a function, or not a class
        return {}
    metadata = {name: getattr(hint, "__metadata__", ()) for name, hint in hints.items()}
    return {name: item for name, items in metadata.items() for item in items if isinstance(item, str)}


def _add_default(node: dict[str, Any], value: Any) -> None:
    try:
        node["default"] = to_jsonable_python(value)
        json.dumps(node["default"], allow_nan=False).encode()
    except (PydanticSerializationError, ValueError):  # an object that JSON cannot express: the function still uses it
        node.pop("default", None)


class _Flattener:
    """Makes a schema that every provider accepts: each ``$ref`` is replaced by its definition, except in types that
    contain themselves, and objects allow no additional properties."""

    def __init__(self, owner: str, definitions: dict[str, Any], strict: bool) -> None:
        self._owner = owner
        self._definitions = definitions
        self._strict = strict
        self._recursive = {key for key in definitions if key in self._reachable(key)}

    def flatten_document(self, root: dict[str, Any]) -> dict[str, Any]:
        reference = root.get("$ref")
        if isinstance(reference, str):  # a type that contains itself: OpenAI refuses a $ref at the root
            root = {**self._definitions[_key(reference)], **{k: v for k, v in root.items() if k != "$ref"}}
        flat = self._flatten(root)
        if self._recursive:
            flat["$defs"] = {key: self._flatten(self._definitions[key]) for key in sorted(self._recursive)}
        return flat

    def _flatten(self, node: dict[str, Any]) -> dict[str, Any]:
        node = dict(node)
        if "$ref" in node:
            key = _key(node["$ref"])
            if key in self._recursive:
                ref = {"$ref": node.pop("$ref")}
                return {"anyOf": [ref], **self._flatten(node)} if node else ref  # a $ref must be the only key
            node = {**self._definitions[key], **node}
            del node["$ref"]
        if "oneOf" in node:  # pydantic makes it for tagged unions; OpenAI's strict mode supports anyOf only
            node["anyOf"] = node.pop("oneOf")
        if "patternProperties" in node:
            node["additionalProperties"] = _any_of(list(node.pop("patternProperties").values()))
        flat = {key: self._flatten_value(key, value) for key, value in node.items() if key not in _DROPPED_KEYS}
        flat = _with_typed_enum(flat)
        if "properties" in flat:
            flat.setdefault("additionalProperties", False)
        return self._make_strict(flat) if self._strict else flat

    def _flatten_value(self, key: str, value: Any) -> Any:
        if key == "properties":
            return {name: self._flatten(inner) for name, inner in value.items()}
        if key in ("anyOf", "allOf", "prefixItems"):
            return [self._flatten(inner) for inner in value]
        if key in ("items", "additionalProperties") and isinstance(value, dict):
            return self._flatten(value)
        return value

    def _make_strict(self, flat: dict[str, Any]) -> dict[str, Any]:
        if "default" in flat:
            text = f"Default: {json.dumps(flat.pop('default'), ensure_ascii=False)}."
            flat["description"] = " ".join(filter(None, (flat.get("description"), text)))
        if flat.get("type") == "object":
            if flat.get("additionalProperties") is not False:
                raise TypeError(
                    f"{self._owner}: strict=True does not allow a dict with arbitrary keys; "
                    "use a dataclass or a TypedDict"
                )
            flat["required"] = list(flat["properties"])
        elif not _TYPE_KEYS & flat.keys():
            raise TypeError(f"{self._owner}: strict=True does not allow Any; use a specific type")
        return flat

    def _reachable(self, key: str) -> set[str]:
        """The definitions that this one refers to, directly or through others."""
        reachable: set[str] = set()
        pending = list(_references(self._definitions[key]))
        while pending:
            other = pending.pop()
            if other not in reachable:
                reachable.add(other)
                pending += _references(self._definitions[other])
        return reachable


# Not every provider knows them. pydantic still checks the names of keys, and the JSON inside of a string.
_DROPPED_KEYS = ("title", "discriminator", "$ref", "propertyNames", "contentSchema", "contentMediaType")
_TYPE_KEYS = {"type", "enum", "const", "anyOf", "allOf", "$ref"}


_JSON_TYPES = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null"}


def _any_of(schemas: list[dict[str, Any]]) -> dict[str, Any]:
    return schemas[0] if len(schemas) == 1 else {"anyOf": schemas}


def _with_typed_enum(node: dict[str, Any]) -> dict[str, Any]:
    """An enum of one type, or a union of them: ``Literal["a", 1, None]`` has three. Gemini has no const."""
    if "const" in node:
        node["enum"] = [node.pop("const")]
    values = node.get("enum")
    if not isinstance(values, list) or "type" in node:
        return node
    by_type: dict[str, list[Any]] = {}
    for value in values:
        by_type.setdefault(_JSON_TYPES.get(type(value), "object"), []).append(value)
    rest = {key: value for key, value in node.items() if key != "enum"}
    parts = [{"type": kind} if kind == "null" else {"type": kind, "enum": some} for kind, some in by_type.items()]
    return {**_any_of(parts), **rest}


def _key(reference: str) -> str:
    return reference.rpartition("/")[2]


def _references(node: Any) -> list[str]:
    if isinstance(node, list):
        return [key for item in node for key in _references(item)]
    if not isinstance(node, dict):
        return []
    own = [_key(node["$ref"])] if isinstance(node.get("$ref"), str) else []
    return own + [key for item in node.values() for key in _references(item)]


def _as_line(problem: Any, args: Any) -> str:
    """An error of pydantic as one line of text: places[0].lat: should be a valid number; got "north"."""
    path = _path(problem["loc"], args, is_missing=problem["type"] == "missing") or "the value"
    match problem["type"]:
        case "missing":
            return f"{path}: is missing"
        case "extra_forbidden" | "unexpected_keyword_argument":
            return f"{path}: is unknown"
    message = problem["msg"].replace("Input should be", "should be")
    return f"{path}: {message}; got {_shortened(problem['input'])}"


def _path(location: tuple[int | str, ...], value: Any, *, is_missing: bool) -> str:
    """The location of an error: ``places[0].lat``. For a union, the member that pydantic tried: ``pet (as Cat)``."""
    path = ""
    for i, step in enumerate(location):
        if isinstance(step, int):
            path += f"[{step}]"
        elif isinstance(value, Mapping) and (step in value or (is_missing and i == len(location) - 1)):
            path += f".{step}" if path else step
        else:  # not a key of the value: the name of a member of a union
            path += f" (as {step})"
            continue
        try:
            value = value[step]
        except (LookupError, TypeError):
            value = None
    return path


def _shortened(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _MAX_SHOWN_CHARS else f"{text[:_MAX_SHOWN_CHARS]}…"
