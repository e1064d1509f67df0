"""JSON Schemas as providers accept them: pure functions from one schema document to another.

    for_tools   what every provider needs of a tool's parameters, strict or not
    strict      a schema that a provider can enforce: closed objects, and only the keywords that it knows
    known_only  a schema with only the keywords that a provider knows

A keyword that a provider refuses is removed and told in the description, so that the model still reads it. Keywords:
https://json-schema.org/draft/2020-12/json-schema-validation
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

Schema = dict[str, Any]

_LOOKAROUND = re.compile(r"\(\?<?[=!]")
"""No provider enforces a pattern that looks ahead or behind. pydantic writes one for Decimal."""

_SCHEMA_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
_SCHEMA_MAPS = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_SCHEMA_VALUES = ("items", "additionalProperties", "not", "if", "then", "else", "contains", "propertyNames")

_STRUCTURE = {"type", "properties", "required", "additionalProperties", "items", "anyOf", "enum", "const", "$ref"}
_ANNOTATIONS = {"title", "examples", "$schema", "$id", "$comment", "discriminator", "readOnly", "writeOnly"}


class OpenSchemaError(ValueError):
    """The schema allows keys or values that no closed schema can list. The message names the place."""


@dataclass(frozen=True, slots=True)
class StrictRules:
    """What a provider accepts in a schema that it enforces.

    Args:
        keywords: the keywords that it knows besides the structure of the schema.
        formats: the values of ``format`` that it knows.
        needs_all_properties: every property must be required.
        max_min_items: the largest ``minItems``; None for any.
        allows_recursion: a schema may contain itself.
    """

    keywords: frozenset[str]
    formats: frozenset[str]
    needs_all_properties: bool
    max_min_items: int | None = None
    allows_recursion: bool = True


_COMMON_FORMATS = frozenset({"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"})

OPENAI_STRICT = StrictRules(
    keywords=frozenset(
        {"pattern", "format", "multipleOf", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}
        | {"minItems", "maxItems"}
    ),
    formats=_COMMON_FORMATS,
    needs_all_properties=True,
)
"""https://platform.openai.com/docs/guides/structured-outputs (read November 2026)"""

ANTHROPIC_STRICT = StrictRules(
    keywords=frozenset({"format", "minItems"}),
    formats=_COMMON_FORMATS | {"uri"},
    needs_all_properties=False,
    max_min_items=1,
    allows_recursion=False,
)
"""https://docs.claude.com/en/docs/build-with-claude/structured-outputs (read November 2026)"""


# --- what every provider needs ---------------------------------------------------------------------------------------


def for_tools(schema: Mapping[str, Any]) -> Schema:
    """The parameters of a tool: an object with ``properties``, and every array with ``items``.

    OpenAI refuses ``{}`` and ``{"type": "object"}`` as parameters, and an array without ``items``.
    """
    root = dict(schema) if "$ref" in schema else {"type": "object", "properties": {}, **schema}
    return with_items(root)


def with_items(schema: Mapping[str, Any]) -> Schema:
    """The schema, every array with ``items``: a list of ``prefixItems`` becomes a union and a sentence."""
    mapped: Schema = map_schema(schema, _with_items)
    return mapped


def _with_items(node: Schema) -> Schema:
    if node.get("type") != "array" or "items" in node:
        return node
    parts = node.get("prefixItems")
    if not parts:
        return {**node, "items": {}}
    node = {key: value for key, value in node.items() if key != "prefixItems"}
    different = [part for i, part in enumerate(parts) if part not in parts[:i]]
    items = different[0] if len(different) == 1 else {"anyOf": different}
    least = node.get("minItems", len(parts))
    count = f"Exactly {len(parts)}" if least == len(parts) else f"{least} to {len(parts)}"
    told = f"{count} items, in this order: {'; '.join(map(_shown, parts))}."
    bounds = {"minItems": least, "maxItems": node.get("maxItems", len(parts))}
    return _told({**node, "items": items, **bounds}, [told] if len(different) > 1 else [])


def map_schema(node: Any, change: Callable[[Schema], Schema]) -> Any:
    """The schema with every schema inside it changed, from the inside out."""
    if not isinstance(node, Mapping):
        return node  # true and false are schemas too
    mapped: Schema = {}
    for key, value in node.items():
        if key in _SCHEMA_LISTS and isinstance(value, list):
            value = [map_schema(part, change) for part in value]
        elif key in _SCHEMA_MAPS and isinstance(value, Mapping):
            value = {name: map_schema(part, change) for name, part in value.items()}
        elif key in _SCHEMA_VALUES:
            value = map_schema(value, change)
        mapped[key] = value
    return change(mapped)


# --- what a provider can enforce -------------------------------------------------------------------------------------


def strict(schema: Mapping[str, Any], rules: StrictRules) -> Schema:
    """The schema in the form that the provider enforces. An answer that fits it fits the original too.

    Raises:
        OpenSchemaError: an object may have any keys, or a value may be anything.
    """
    document = _without_bare_refs(with_items(schema))
    if not rules.allows_recursion:
        document = inlined(document)
    return _Strict(rules).root(document)


@dataclass(slots=True)
class _Strict:
    rules: StrictRules
    path: list[str] = field(default_factory=list)

    def root(self, document: Schema) -> Schema:
        definitions = {key: document[key] for key in ("$defs", "definitions") if key in document}
        root = self.node({key: value for key, value in document.items() if key not in definitions})
        for key, entries in definitions.items():
            root[key] = {name: self.at(name, entry) for name, entry in entries.items()}
        return root

    def at(self, step: str, node: Any) -> Schema:
        self.path.append(step)
        changed = self.node(node)
        self.path.pop()
        return changed

    def node(self, node: Any) -> Schema:
        if not isinstance(node, Mapping):
            raise self.open("any value is allowed")
        if "$ref" in node:
            return {"$ref": node["$ref"]}
        node = dict(node)
        if "oneOf" in node:
            node["anyOf"] = [*node.get("anyOf", ()), *node.pop("oneOf")]
        if "properties" in node:
            node.setdefault("type", "object")
        parts = node.pop("allOf", None)
        if parts is not None:
            node = self._joined(node, parts)
        if not (node.keys() & {"type", "anyOf", "enum", "const", "$ref"}):
            raise self.open("any value is allowed")
        told = []
        kept: Schema = {}
        for key, value in node.items():
            if key in ("description", *_STRUCTURE) or self._is_known(key, value):
                kept[key] = value
            elif key not in _ANNOTATIONS:
                told.append(_told_keyword(key, value))
        kept = self._inside(kept)
        if _is_object(kept):
            kept = self._closed(kept)
        return _told(kept, told)

    def _is_known(self, key: str, value: Any) -> bool:
        rules = self.rules
        if key == "format" and value not in rules.formats:
            return False
        if key == "minItems" and rules.max_min_items is not None and value > rules.max_min_items:
            return False
        if key == "pattern" and _LOOKAROUND.search(str(value)):
            return False
        return key in rules.keywords

    def _inside(self, node: Schema) -> Schema:
        if "anyOf" in node:
            node["anyOf"] = [self.at(f"anyOf[{i}]", part) for i, part in enumerate(node["anyOf"])]
        if "items" in node:
            node["items"] = self.at("items", node["items"])
        if "properties" in node:
            node["properties"] = {name: self.at(name, part) for name, part in node["properties"].items()}
        return node

    def _closed(self, node: Schema) -> Schema:
        extra = node.get("additionalProperties")
        if extra not in (None, False) or ("properties" not in node and extra is None):
            raise self.open("an object may have any keys")
        node = {**node, "properties": node.get("properties", {}), "additionalProperties": False}
        if self.rules.needs_all_properties:
            node["required"] = list(node["properties"])
        return node

    def _joined(self, node: Schema, parts: list[Any]) -> Schema:
        """One part of allOf merges into the schema, as pydantic writes a described reference."""
        if len(parts) != 1 or not isinstance(parts[0], Mapping):
            raise self.open("allOf joins several schemas")
        return {**parts[0], **node}

    def open(self, why: str) -> OpenSchemaError:
        return OpenSchemaError(f"{'.'.join(self.path) or 'the schema'}: {why}")


def _is_object(node: Schema) -> bool:
    kind = node.get("type")
    return kind == "object" or (isinstance(kind, list) and "object" in kind) or "properties" in node


# What a removed keyword says, in words. Not the keyword itself: some providers search the text for it.
_IN_WORDS = {
    "default": "Default: {}.",
    "minimum": "At least {}.",
    "maximum": "At most {}.",
    "exclusiveMinimum": "More than {}.",
    "exclusiveMaximum": "Less than {}.",
    "multipleOf": "A multiple of {}.",
    "minLength": "At least {} characters.",
    "maxLength": "At most {} characters.",
    "minItems": "At least {} items.",
    "maxItems": "At most {} items.",
    "minProperties": "At least {} entries.",
    "maxProperties": "At most {} entries.",
    "pattern": "It matches the regular expression {}.",
    "format": "Its format is {}.",
}


def _told_keyword(key: str, value: Any) -> str:
    if key == "uniqueItems":
        return "No item twice." if value else ""
    return _IN_WORDS.get(key, key + ": {}.").format(_shown(value))


def _told(node: Schema, sentences: list[str]) -> Schema:
    if not sentences or "$ref" in node:
        return node
    return {**node, "description": " ".join(filter(None, (node.get("description"), *sentences)))}


def _shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


# --- what a provider knows ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class KnownKeywords:
    """The keywords that a provider knows, and the values of ``format``."""

    keywords: frozenset[str]
    formats: frozenset[str]


GEMINI_SCHEMA = KnownKeywords(
    keywords=frozenset(
        {"type", "description", "title", "enum", "format", "properties", "required", "additionalProperties", "items"}
        | {"prefixItems", "minItems", "maxItems", "minimum", "maximum", "anyOf", "oneOf"}
        | {"$ref", "$defs", "$id", "$anchor", "propertyOrdering"}
    ),
    formats=frozenset({"date-time", "date", "time"}),
)
"""https://ai.google.dev/api/generate-content#generationconfig, responseJsonSchema (read November 2026)"""


def known_only(schema: Mapping[str, Any], known: KnownKeywords) -> Schema:
    """The schema without the keywords that the provider does not know. Those are told in the description.

    Nothing but keywords with a ``$`` stays beside a ``$ref``.
    """

    def change(node: Schema) -> Schema:
        node = _with_known_names(node)
        if "$ref" in node:
            return {key: value for key, value in node.items() if key.startswith("$") and key in known.keywords}
        told = []
        kept: Schema = {}
        for key, value in node.items():
            if key in known.keywords and (key != "format" or value in known.formats):
                kept[key] = value
            elif key not in _ANNOTATIONS:
                told.append(_told_keyword(key, value))
        return _told(kept, told)

    mapped: Schema = map_schema(schema, change)
    return mapped


def _with_known_names(node: Schema) -> Schema:
    """The node with other names for what every provider knows: a constant is a list of one value, and so on."""
    node = dict(node)
    if "const" in node:
        node["enum"] = [node.pop("const")]
    if "definitions" in node:
        node["$defs"] = {**node.pop("definitions"), **node.get("$defs", {})}
    if str(node.get("$ref", "")).startswith("#/definitions/"):
        node["$ref"] = node["$ref"].replace("#/definitions/", "#/$defs/", 1)
    parts = node.pop("allOf", None)
    if isinstance(parts, list) and len(parts) == 1 and isinstance(parts[0], Mapping):
        node = {**parts[0], **node}  # as pydantic writes a described reference
    elif parts is not None:
        node["allOf"] = parts
    return node


# --- references ------------------------------------------------------------------------------------------------------


def inlined(document: Schema) -> Schema:
    """The schema with each ``$ref`` replaced by what it refers to.

    Raises:
        OpenSchemaError: the schema contains itself, or refers to something outside of it.
    """
    definitions = {
        f"#/{key}/{name}": node for key in ("$defs", "definitions") for name, node in _entries(document, key)
    }

    def inline(node: Any, within: tuple[str, ...]) -> Any:
        if isinstance(node, list):
            return [inline(part, within) for part in node]
        if not isinstance(node, Mapping):
            return node
        reference = node.get("$ref")
        if not isinstance(reference, str):
            return {key: inline(value, within) for key, value in node.items()}
        if reference in within or reference == "#":
            raise OpenSchemaError(f"{reference}: the schema contains itself")
        if reference not in definitions:
            raise OpenSchemaError(f"{reference}: the reference is not in $defs")
        rest = {key: value for key, value in node.items() if key != "$ref"}
        return {**inline(definitions[reference], (*within, reference)), **inline(rest, within)}

    root = {key: value for key, value in document.items() if key not in ("$defs", "definitions")}
    flat: Schema = inline(root, ())
    return flat


def _entries(document: Schema, key: str) -> Iterator[tuple[str, Any]]:
    entries = document.get(key)
    if isinstance(entries, Mapping):
        yield from entries.items()


def _without_bare_refs(document: Schema) -> Schema:
    """The schema with no keyword beside a ``$ref``, and no ``$ref`` as its root: OpenAI refuses both."""

    def wrap(node: Schema) -> Schema:
        if "$ref" not in node or len(node) == 1:
            return node
        rest = {key: value for key, value in node.items() if key not in ("$ref", "$defs", "definitions", "title")}
        if not rest:
            return node
        return {"anyOf": [{"$ref": node["$ref"]}], **rest}

    root = document
    if isinstance(root.get("$ref"), str) and root["$ref"] != "#":
        name = root["$ref"].rpartition("/")[2]
        definition = dict(_entries(root, "$defs")).get(name, dict(_entries(root, "definitions")).get(name))
        if isinstance(definition, Mapping):
            root = {**definition, **{key: value for key, value in root.items() if key != "$ref"}}
    mapped: Schema = map_schema(root, wrap)
    return mapped
