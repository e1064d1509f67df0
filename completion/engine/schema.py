"""The arguments of a function as JSON Schema and back: the only door to pydantic and docstring_parser.

pydantic and not msgspec: it tells all faults at once, and it knows unions of dataclasses and additionalProperties,
which msgspec refuses or leaves out; that is worth 100 ms of import, 20 with msgspec, to whoever writes ``@tool``.

What a model gives is converted where nothing is lost (pydantic's lax mode): "3" and 3.0 are taken for an int, 1 and
"true" for a bool, true for the number 1, a list for a tuple or a set, an ISO 8601 text for a datetime, a value for its
Enum member. 3.5 is no int, 3 is no str, and NaN is no number.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping
from dataclasses import is_dataclass
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints, is_typeddict

from completion.contract.errors import ConfigurationError

try:
    import docstring_parser
    import pydantic
    from pydantic.errors import PydanticUndefinedAnnotation, PydanticUserError
    from pydantic.json_schema import GenerateJsonSchema
    from pydantic_core import PydanticSerializationError, to_jsonable_python
    from typing_extensions import NotRequired, Required, TypedDict
except ImportError as exc:
    _install = shlex.join([sys.executable, "-m", "pip", "install", "pydantic>=2.11", "docstring-parser>=0.16"])
    raise ConfigurationError(f"@tool needs pydantic and docstring_parser ({exc}); run: {_install}") from exc

_SHOWN_CHARACTERS = 80  # of a value that does not fit

_HIDDEN = "a type inside of its parameters cannot be found; define or import it at the top of the module"

_IS_BEFORE_312 = sys.version_info < (3, 12)

_typed_dict: Any = TypedDict  # whose fields are known at run time only


class Documented:
    """A docstring of Google's, numpy's or Sphinx's style: what it says, and what it says of each parameter."""

    def __init__(self, docstring: str | None) -> None:
        parsed = docstring_parser.parse(docstring or "")
        self.text = (parsed.description or "").strip()
        self.parameters = {one.arg_name: one.description for one in parsed.params if one.description}


class Arguments:
    """What a function takes by name.

    Args:
        name: of the tool, for messages.
        hints: the type of each argument; ``Annotated[int, "text"]`` describes it.
        defaults: of those that may be left out.
        descriptions: of those whose hint has none.
        strict: the schema is one that OpenAI's strict mode takes: every property is required, at every depth, and a
            default is a part of the description. What leaves one out is taken all the same.

    Raises:
        TypeError: a type without a JSON Schema, or without a strict one.
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
        prepared = {key: _prepared(hint) for key, hint in hints.items()}
        # A TypedDict gives back what came and no more: the defaults are the function's own.
        taken = _typed_dict(
            name, {key: NotRequired[hint] if key in defaults else hint for key, hint in prepared.items()}
        )
        taken.__pydantic_config__ = pydantic.ConfigDict(extra="forbid", allow_inf_nan=False)
        try:
            self._adapter: pydantic.TypeAdapter[dict[str, Any]] = pydantic.TypeAdapter(taken)
            document = self._adapter.json_schema(schema_generator=_Described)
        except (PydanticUserError, PydanticUndefinedAnnotation) as exc:
            is_hidden = exc.code in ("class-not-fully-defined", "undefined-annotation")
            raise TypeError(f"@tool {name}: {_HIDDEN if is_hidden else exc.message}") from exc
        defined = document.pop("$defs", {})
        for key, shown in document.get("properties", {}).items():
            if key in descriptions:
                shown.setdefault("description", descriptions[key])
            if key in defaults:
                _show_default(shown, defaults[key])
        self.schema = _Flat(name, defined, strict).document({"properties": {}, **document})

    def converted(self, args: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments as the function takes them.

        Raises:
            ValueError: they do not fit; its ``args`` are the faults, a line each for a model to read.
        """
        try:
            return self._adapter.validate_python(args)
        except pydantic.ValidationError as exc:
            faults = exc.errors(include_url=False, include_context=False)
        raise ValueError(*(_fault(fault, args) for fault in faults))


def _prepared(hint: Any, within: tuple[Any, ...] = ()) -> Any:
    """The hint in pydantic's words: a text in Annotated is a description, a TypedDict one that it reads."""
    if _IS_BEFORE_312 and type(hint).__module__ == "typing" and is_typeddict(hint) and hint not in within:
        return _prepared_dict(hint, (*within, hint))
    origin: Any = get_origin(hint)
    args = get_args(hint)
    if origin is Annotated:
        notes = (pydantic.Field(description=note) if isinstance(note, str) else note for note in hint.__metadata__)
        return Annotated[(_prepared(hint.__origin__, within), *notes)]
    if not args or origin is Literal or any(isinstance(arg, list) for arg in args):
        return hint
    prepared = tuple(_prepared(arg, within) for arg in args)
    if prepared == args:
        return hint
    if origin in (Union, UnionType):
        return Union[prepared]  # noqa: UP007
    return origin[prepared[0] if len(prepared) == 1 else prepared]


def _prepared_dict(hint: Any, within: tuple[Any, ...]) -> Any:
    """A TypedDict of ``typing`` before Python 3.12, which does not know its bases, as one of ``typing_extensions``."""
    fields = {}
    for key, value in get_type_hints(hint, include_extras=True).items():
        marked = value
        if get_origin(value) not in (Required, NotRequired):
            marked = Required[value] if key in hint.__required_keys__ else NotRequired[value]
        fields[key] = _prepared(marked, within)
    prepared = _typed_dict(hint.__name__, fields)
    prepared.__doc__ = hint.__doc__
    return prepared


class _Described(GenerateJsonSchema):
    """Descriptions of fields from the docstrings of their classes and from ``Annotated[int, "text"]``; no titles."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def dataclass_schema(self, schema: Any) -> dict[str, Any]:
        return _described(super().dataclass_schema(schema), schema["cls"])

    def typed_dict_schema(self, schema: Any) -> dict[str, Any]:
        return _described(super().typed_dict_schema(schema), schema.get("cls"))

    def model_schema(self, schema: Any) -> dict[str, Any]:
        return _described(super().model_schema(schema), schema["cls"])


def _described(document: dict[str, Any], kind: Any) -> dict[str, Any]:
    own = getattr(kind, "__doc__", None) or ""
    is_generated = is_dataclass(kind) and own.startswith(f"{getattr(kind, '__name__', '')}(")
    said = Documented(document.pop("description", "" if is_generated else own))
    if said.text:
        document["description"] = said.text
    notes = {**said.parameters, **_notes(kind)}
    for name, shown in document.get("properties", {}).items():
        if name in notes:
            shown.setdefault("description", notes[name])
    return document


def _notes(kind: Any) -> dict[str, str]:
    """The texts in ``Annotated`` of the fields of a class."""
    try:
        hints = get_type_hints(kind, include_extras=True)
    except (NameError, TypeError):  # defined inside of a function, or no class
        return {}
    noted = {name: getattr(hint, "__metadata__", ()) for name, hint in hints.items()}
    return {name: note for name, notes in noted.items() for note in notes if isinstance(note, str)}


def _show_default(shown: dict[str, Any], value: Any) -> None:
    try:
        shown["default"] = to_jsonable_python(value)
    except PydanticSerializationError:  # an object that only Python code can give
        shown.pop("default", None)


class _Flat:
    """A schema that every provider takes: references are replaced by what they refer to, but where a type contains
    itself; objects are closed."""

    def __init__(self, name: str, defined: dict[str, Any], strict: bool) -> None:
        self._name = name
        self._defined = defined
        self._strict = strict
        self._recursive = {key for key in defined if key in self._reached(key)}

    def document(self, root: dict[str, Any]) -> dict[str, Any]:
        flat = self._flat(root)
        if self._recursive:
            flat["$defs"] = {key: self._flat(self._defined[key]) for key in sorted(self._recursive)}
        return flat

    def _flat(self, node: dict[str, Any]) -> dict[str, Any]:
        node = dict(node)
        if "$ref" in node:
            key = _key(node["$ref"])
            if key in self._recursive:
                ref = {"$ref": node.pop("$ref")}
                return {"anyOf": [ref], **self._flat(node)} if node else ref  # nothing may stand beside it
            node = {**self._defined[key], **node}
            del node["$ref"]
        if "oneOf" in node:
            node["anyOf"] = node.pop("oneOf")
        flat = {key: self._below(key, value) for key, value in node.items() if key not in _LEFT_OUT}
        if "properties" in flat:
            flat.setdefault("additionalProperties", False)
        return self._strictly(flat) if self._strict else flat

    def _below(self, key: str, value: Any) -> Any:
        if key == "properties":
            return {name: self._flat(inner) for name, inner in value.items()}
        if key in ("anyOf", "allOf", "prefixItems"):
            return [self._flat(inner) for inner in value]
        if key in ("items", "additionalProperties") and isinstance(value, dict):
            return self._flat(value)
        return value

    def _strictly(self, flat: dict[str, Any]) -> dict[str, Any]:
        if "default" in flat:
            text = f"Default: {json.dumps(flat.pop('default'), ensure_ascii=False)}."
            flat["description"] = " ".join(filter(None, (flat.get("description"), text)))
        if flat.get("type") == "object":
            if flat.get("additionalProperties") is not False:
                raise TypeError(
                    f"@tool {self._name}: strict=True takes no dict with open keys; use a dataclass or a TypedDict"
                )
            flat["required"] = list(flat["properties"])
        elif not _SHAPES & flat.keys():
            raise TypeError(f"@tool {self._name}: strict=True takes no Any; say the type")
        return flat

    def _reached(self, key: str) -> set[str]:
        """The definitions that one leads to."""
        reached: set[str] = set()
        waiting = list(_references(self._defined[key]))
        while waiting:
            found = waiting.pop()
            if found not in reached:
                reached.add(found)
                waiting += _references(self._defined[found])
        return reached


_LEFT_OUT = ("title", "discriminator", "$ref")
_SHAPES = {"type", "enum", "const", "anyOf", "allOf", "$ref"}


def _key(reference: str) -> str:
    return reference.rpartition("/")[2]


def _references(node: Any) -> list[str]:
    if isinstance(node, list):
        return [key for item in node for key in _references(item)]
    if not isinstance(node, dict):
        return []
    own = [_key(node["$ref"])] if isinstance(node.get("$ref"), str) else []
    return own + [key for item in node.values() for key in _references(item)]


def _fault(fault: Any, args: Any) -> str:
    """One line of what is wrong: places[0].lat: should be a valid number; got "north"."""
    path = _path(fault["loc"], args, is_missing=fault["type"] == "missing")
    match fault["type"]:
        case "missing":
            return f"{path}: is missing"
        case "extra_forbidden" | "unexpected_keyword_argument":
            return f"{path}: is not known here"
    message = fault["msg"].replace("Input should be", "should be")
    return f"{path}: {message}; got {_shown(fault['input'])}"


def _path(location: tuple[int | str, ...], value: Any, *, is_missing: bool) -> str:
    """Where it is: ``places[0].lat``. What pydantic tried there, of a union, stands in brackets: ``pet (as Cat)``."""
    path = ""
    for i, step in enumerate(location):
        if isinstance(step, int):
            path += f"[{step}]"
        elif isinstance(value, Mapping) and (step in value or (is_missing and i == len(location) - 1)):
            path += f".{step}" if path else step
        else:
            path += f" (as {step})"
            continue
        try:
            value = value[step]
        except (LookupError, TypeError):
            value = None
    return path


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"
