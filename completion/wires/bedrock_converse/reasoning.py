"""reasoning_effort -> ``additionalModelRequestFields`` and ``outputConfig``, depending on the maker of the model.

Claude      ``thinking``, with a budget of tokens or an effort: as at Anthropic
Nova 2      ``reasoningConfig`` with an effort
gpt-oss     ``reasoning_effort``
others      nothing: Converse has no field for it
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from completion.wires.bedrock_converse.names import is_nova_2, maker_of
from completion.wires.claude import thinking_of, version_of
from completion.wires.efforts import effort_word, nearest_effort

_EFFORTS = ("low", "medium", "high")


class Reasoning(NamedTuple):
    """The fields to send. ``is_exact``: the model supports exactly the effort of the request."""

    fields: Mapping[str, Any] = MappingProxyType({})
    """In ``additionalModelRequestFields``."""
    effort: str | None = None
    """In ``outputConfig``."""
    budget: int = 0
    """Tokens to add to ``maxTokens``."""
    is_exact: bool = True


def reasoning_of(effort: str | int | None, model: str) -> Reasoning:
    if effort is None:
        return Reasoning()
    maker = maker_of(model)
    if maker == "anthropic":
        thinking, word, is_exact = thinking_of(effort, version_of(model), model)
        fields = {"thinking": thinking} if thinking else {}
        return Reasoning(fields, word, (thinking or {}).get("budget_tokens", 0), is_exact)
    wanted = effort_word(effort) if isinstance(effort, int) else effort
    is_off = wanted == "none"
    word = nearest_effort(wanted, _EFFORTS)
    if is_nova_2(model):
        config = {"type": "disabled"} if is_off else {"type": "enabled", "maxReasoningEffort": word}
        return Reasoning({"reasoningConfig": config}, is_exact=effort in (0, "none", word))
    if maker == "openai":  # gpt-oss always thinks
        return Reasoning({"reasoning_effort": word}, is_exact=word == effort)
    return Reasoning(is_exact=False)
