"""The version of the API that a body is made for."""

from __future__ import annotations

from dataclasses import dataclass

VERSION = "2023-06-01"
"""The default version."""


@dataclass(frozen=True, slots=True)
class MessagesDialect:
    """The version of the API, and the beta features in use."""

    version: str = VERSION
    betas: tuple[str, ...] = ()


DEFAULT = MessagesDialect()
