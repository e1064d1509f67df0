"""What ``lower`` must know besides the model id."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ConverseDialect:
    """``base_model``: the model, if the id does not contain its name, as the id of an inference profile."""

    base_model: str | None = None


DEFAULT = ConverseDialect()
