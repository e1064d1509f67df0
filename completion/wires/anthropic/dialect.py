"""Which version of the API a body is made for."""

from __future__ import annotations

from dataclasses import dataclass

VERSION = "2023-06-01"
"""The version that is sent unless the caller names another."""


@dataclass(frozen=True, slots=True)
class MessagesDialect:
    """The version of the API, and the features in beta that are asked for."""

    version: str = VERSION
    betas: tuple[str, ...] = ()


DEFAULT = MessagesDialect()
