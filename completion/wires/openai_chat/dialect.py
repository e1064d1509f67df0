"""How servers differ from OpenAI's own Chat Completions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class ChatDialect:
    """What a server supports.

    Args:
        reasoning_back: the field in which reasoning goes back. ``as_received``: the one that it came in.
        call_id_style: ``nine`` letters and digits are the only ids that Mistral accepts.
        token_field: the field for ``max_tokens``.
        supports_top_k: it supports ``top_k``; otherwise ``top_k`` is dropped.
        supports_stream_options: it supports ``stream_options``, which ask for the usage.
    """

    token_field: str = "max_completion_tokens"
    supports_top_k: bool = False
    supports_stream_options: bool = True
    reasoning_back: Literal["never", "as_received", "reasoning_content", "reasoning", "reasoning_details"] = "never"
    call_id_style: Literal["default", "nine"] = "default"


OPENAI = ChatDialect()
"""OpenAI and Azure. Their reasoning models refuse ``max_tokens``."""

COMPATIBLE = ChatDialect(token_field="max_tokens", supports_top_k=True, reasoning_back="as_received")
"""Most other servers."""
