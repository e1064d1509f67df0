"""How the servers of Responses differ."""

from __future__ import annotations

import re
from dataclasses import dataclass

# These models do not reason. OpenAI refuses to encrypt what they do not have: "Encrypted content is not supported with
# this model". Gateways put a prefix before the id: "openai/gpt-4.1".
_NO_REASONING = re.compile(r"(?:^|[/.:@])(?:ft:)?(?:gpt-[34]|chatgpt-|gpt-5-chat)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ResponsesDialect:
    """What a server supports. The defaults fit OpenAI and most other servers.

    Args:
        runs_custom_tools: calls of custom tools are the server's own. They need no result. xAI shows the calls of its
            own tools, such as x_search, in this way.
        efforts: the words for ``reasoning_effort``; None decides by the model id.
    """

    runs_custom_tools: bool = False
    efforts: tuple[str, ...] | None = None

    def encrypts_reasoning(self, model: str) -> bool:
        """The request asks for encrypted reasoning, which goes back in the next turn."""
        return not _NO_REASONING.search(model)


DEFAULT = ResponsesDialect()
