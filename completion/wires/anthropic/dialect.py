"""The version of the API that a body is made for."""

from __future__ import annotations

from dataclasses import dataclass

from completion.wires.claude import version_of

VERSION = "2023-06-01"
"""The default version."""


@dataclass(frozen=True, slots=True)
class MessagesDialect:
    """The version of the API, the beta features in use, and the version of Claude if its id does not tell it.

    ``reads_urls``: the server reads images and documents at a URL, or with a file id.
    """

    version: str = VERSION
    betas: tuple[str, ...] = ()
    model_version: tuple[int, int] | None = None
    reads_urls: bool = True

    def version_of(self, model: str) -> tuple[int, int] | None:
        """The version of Claude; None for the model of another maker."""
        return self.model_version or version_of(model)


DEFAULT = MessagesDialect()
