"""How the servers of Chat Completions differ."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

ReasoningBack = Literal["never", "as_received", "reasoning_content", "reasoning", "reasoning_details"]

# OpenAI's reasoning models: gpt-5 and later, o1, o3, o4. Gateways put a prefix before the id: "openai/gpt-5.4".
_NEEDS_MAX_COMPLETION_TOKENS = re.compile(r"(?:^|[/.:@])(?:gpt-[5-9]|o\d)(?![a-z\d])", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ChatDialect:
    """What a server supports. The defaults fit most servers.

    Args:
        token_field: the field for ``max_tokens``. None decides by the model id: OpenAI's reasoning models refuse
            ``max_tokens``, also behind a gateway, and most other servers know only ``max_tokens``.
        supports_top_k: it supports ``top_k``; otherwise ``top_k`` is dropped.
        supports_stream_options: it supports ``stream_options``, which ask for the usage.
        reasoning_back: the field in which the reasoning of earlier turns is sent back. ``"never"``: it is not sent.
            ``"as_received"``: it is sent in the field that it came in.
        supports_forced_choice: it supports a ``tool_choice`` that forces the model to call any of the tools.
        efforts: the words for ``reasoning_effort``. None decides by the model id; a word for an unknown model is sent
            as it is.
        seed_field: the field for ``seed``.
        needs_answer_after_results: it refuses a message of the user directly behind tool results.
        needs_prefix: it refuses a last message of the assistant that is not marked as the beginning of the answer.
        supports_provider_blocks: it supports what its answers add to the format of OpenAI's first version: images,
            annotations and calls of custom tools. Otherwise these blocks of earlier turns are left out.
        call_id_style: which ids of tool calls it accepts. ``"nine"``: exactly nine letters and digits.
    """

    token_field: str | None = None
    supports_top_k: bool = True
    supports_stream_options: bool = True
    reasoning_back: ReasoningBack = "as_received"
    supports_forced_choice: bool = True
    seed_field: str = "seed"
    needs_answer_after_results: bool = False
    needs_prefix: bool = False
    supports_provider_blocks: bool = True
    call_id_style: Literal["default", "nine"] = "default"
    efforts: tuple[str, ...] | None = None

    def token_field_of(self, model: str) -> str:
        """The field for ``max_tokens`` in a request to this model."""
        if self.token_field is not None:
            return self.token_field
        return "max_completion_tokens" if _NEEDS_MAX_COMPLETION_TOKENS.search(model) else "max_tokens"


OPENAI = ChatDialect(token_field="max_completion_tokens", supports_top_k=False, reasoning_back="never")
"""OpenAI and Azure. Their reasoning models refuse ``max_tokens``."""

COMPATIBLE = ChatDialect()
"""Servers that we do not know."""
