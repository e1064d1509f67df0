"""What a body is made for, besides the model id of the request."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ConverseDialect:
    """``base_model``: the model behind an id that does not tell it, such as that of an inference profile."""

    base_model: str | None = None


DEFAULT = ConverseDialect()
