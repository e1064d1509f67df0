"""How servers depart from OpenAI's own Chat Completions: a row for each."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ChatDialect:
    """What a server takes.

    Args:
        token_field: the name of the cap on the answer's tokens.
        takes_top_k: it has a ``top_k``; elsewhere ``top_k`` is dropped.
        takes_stream_options: it takes ``stream_options``, which ask for the usage.
    """

    token_field: str = "max_completion_tokens"
    takes_top_k: bool = False
    takes_stream_options: bool = True


OPENAI = ChatDialect()
"""OpenAI's and Azure's own: ``max_tokens`` is refused by their reasoning models."""

COMPATIBLE = ChatDialect(token_field="max_tokens", takes_top_k=True)
"""What most servers of other makers take."""
