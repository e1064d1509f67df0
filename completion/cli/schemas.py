"""The value of ``--schema``: a file with a JSON Schema, or a Python type."""

from __future__ import annotations

import json
import os
import re
from operator import attrgetter
from pathlib import Path
from typing import Any

from completion.cli.setup import import_from_here
from completion.contract.answer import Answer
from completion.contract.request import JsonSchema

_TYPE = re.compile(r"(?:[^\W\d]\w*\.)*[^\W\d]\w*:(?:[^\W\d]\w*\.)*[^\W\d]\w*")


def schema_of(value: str) -> Any:
    """The JsonSchema in a file, or the type that ``module:Type`` names.

    Raises:
        ValueError: there is no such file or type, or it is not a schema. The message says what to do.
        ConfigurationError: the extra ``tools`` is not installed.
    """
    kind = _type(value) if _TYPE.fullmatch(value) and not Path(value).exists() else _schema(value)
    try:
        Answer(kind)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{value}: {error}") from error
    return kind


def _schema(value: str) -> JsonSchema:
    try:
        document = json.loads(Path(os.path.expanduser(value)).read_bytes())
    except OSError as error:
        raise ValueError(f"{value} cannot be read: {error.strerror or error}; give FILE or module:Type") from error
    except ValueError as error:
        raise ValueError(f"{value} is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise ValueError(f"{value} must be a JSON Schema, an object; got {json.dumps(document)[:40]}")
    return JsonSchema(_name(document.get("title"), Path(value).stem), document)


def _type(value: str) -> Any:
    module, _, name = value.partition(":")
    try:
        return attrgetter(name)(import_from_here(module))
    except Exception as error:  # the module may raise anything while it is imported
        raise ValueError(f"{value}: {type(error).__name__}: {error}") from error


def _name(*candidates: Any) -> str:
    """A name that providers accept: at most 64 letters, digits, _ and -."""
    for candidate in candidates:
        if isinstance(candidate, str) and (name := re.sub(r"[^a-zA-Z0-9_-]+", "_", candidate).strip("_")[:64]):
            return name
    return "answer"
