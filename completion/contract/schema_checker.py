"""Validation of JSON data against a JSON Schema. The only door to jsonschema."""

from __future__ import annotations

from typing import Any

from completion.contract.errors import ConfigurationError
from completion.contract.packages import install_command
from completion.contract.request import JsonSchema

try:
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError
    from jsonschema.validators import validator_for
    from referencing import Registry
    from referencing.exceptions import Unresolvable
except ImportError as exc:
    _install = install_command("jsonschema>=4.21")
    raise ConfigurationError(f"validating against a JsonSchema needs jsonschema ({exc}); run: {_install}") from exc

_MAX_PROBLEM_CHARS = 300  # a message of jsonschema quotes the value and the schema, which may be large


class SchemaChecker:
    """The counterpart of TypeChecker for a JsonSchema: its values are the plain data.

    Raises:
        ValueError: the schema is not a valid JSON Schema.
    """

    def __init__(self, wanted: JsonSchema) -> None:
        self.shown = self.name = wanted.name
        self.schema = wanted.schema
        self.open_reason: str | None = None  # the wire decides: some take any schema
        kind: Any = validator_for(wanted.schema, default=Draft202012Validator)
        try:
            kind.check_schema(wanted.schema)
        except SchemaError as exc:
            raise ValueError(f"JsonSchema {wanted.name!r} is not a valid schema: {exc.message}") from None
        # An empty registry: nothing is fetched for a $ref to another document.
        self._validator = kind(wanted.schema, registry=Registry())

    def convert(self, data: Any) -> Any:
        """The data itself.

        Raises:
            ValueError: it does not fit; its ``args`` are the problems, one line of text each.
        """
        try:
            found = sorted(self._validator.iter_errors(data), key=lambda problem: problem.json_path)
        except Unresolvable as exc:
            raise ValueError(f"the schema refers to something outside of it: {exc}") from None
        except RecursionError:
            raise ValueError("the schema refers to itself without end") from None
        if found:
            raise ValueError(*(_as_line(problem) for problem in found))
        return data


def _as_line(problem: Any) -> str:
    path = problem.json_path.removeprefix("$").removeprefix(".") or "the value"
    message = problem.message
    if len(message) > _MAX_PROBLEM_CHARS:
        message = f"{message[:_MAX_PROBLEM_CHARS]}…"
    return f"{path}: {message}"
