"""How servers differ from OpenAI's own Chat Completions."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ChatDialect:
    """What a server supports.

    Args:
        token_field: the field for ``max_tokens``.
        supports_top_k: it supports ``top_k``; otherwise ``top_k`` is dropped.
        supports_stream_options: it supports ``stream_options``, which ask for the usage.
    """

    token_field: str = "max_completion_tokens"
    supports_top_k: bool = False
    supports_stream_options: bool = True


OPENAI = ChatDialect()
"""OpenAI and Azure. Their reasoning models refuse ``max_tokens``."""

COMPATIBLE = ChatDialect(token_field="max_tokens", supports_top_k=True)
"""Most other servers."""
