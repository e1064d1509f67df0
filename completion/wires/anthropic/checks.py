"""What the API is known to refuse, a row each: said before anything is sent."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

from completion.wires.anthropic.dialect import DEFAULT, MessagesDialect
from completion.wires.anthropic.names import LEAST_WHILE_THINKING, MAX_BREAKPOINTS, NO_SAMPLING_SINCE, SAMPLING
from completion.wires.json_values import objects
from completion.wires.lowering import unsupported

Refusal = tuple[str, str] | None
"""The field that is refused, and why; None where all is well."""


def check(body: dict[str, Any], dialect: MessagesDialect = DEFAULT) -> None:
    """Raise UnsupportedContentError for a body that the API is known to refuse."""
    for rule in _RULES:
        refusal = rule(body, dialect)
        if refusal is not None:
            raise unsupported(*refusal)


def _sampling(body: dict[str, Any], dialect: MessagesDialect) -> Refusal:
    given = _sampling_fields(body)
    is_date = re.fullmatch(r"\d{4}-\d{2}-\d{2}", dialect.version)  # Bedrock and Vertex name theirs otherwise
    if given and is_date and dialect.version >= NO_SAMPLING_SINCE:
        return given[0], f"version {dialect.version} of the API takes no {', '.join(SAMPLING)}"
    return None


def _forced_call_while_thinking(body: dict[str, Any], dialect: MessagesDialect) -> Refusal:
    choice = body.get("tool_choice")
    is_forced = isinstance(choice, dict) and choice.get("type") in ("any", "tool")
    return ("tool_choice", "no call can be forced while the model thinks") if is_forced and _thinks(body) else None


def _sampling_while_thinking(body: dict[str, Any], dialect: MessagesDialect) -> Refusal:
    if _thinks(body):
        for name in _sampling_fields(body):
            value = body[name]
            if isinstance(value, int | float) and not LEAST_WHILE_THINKING.get(name, math.inf) <= value <= 1:
                return name, "it cannot be set while the model thinks"
    return None


def _budget(body: dict[str, Any], dialect: MessagesDialect) -> Refusal:
    budget, cap = body["thinking"].get("budget_tokens") if _thinks(body) else None, body.get("max_tokens")
    # With interleaved thinking, several answers share one budget.
    is_shared = any(beta.startswith("interleaved-thinking") for beta in dialect.betas)
    if isinstance(budget, int) and isinstance(cap, int) and budget >= cap and not is_shared:
        return "thinking.budget_tokens", f"{budget} is not below max_tokens, {cap}"
    return None


def _breakpoints(body: dict[str, Any], dialect: MessagesDialect) -> Refusal:
    count = count_breakpoints(body)
    too_many = f"{count} are set, the API takes {MAX_BREAKPOINTS}"
    return ("cache_control", too_many) if count > MAX_BREAKPOINTS else None


_RULES: tuple[Callable[[dict[str, Any], MessagesDialect], Refusal], ...] = (
    _sampling, _forced_call_while_thinking, _sampling_while_thinking, _budget, _breakpoints,
)  # fmt: skip


def _thinks(body: dict[str, Any]) -> bool:
    thinking = body.get("thinking")
    return isinstance(thinking, dict) and thinking.get("type") != "disabled"


def _sampling_fields(body: dict[str, Any]) -> list[str]:
    return [name for name in SAMPLING if name in body]


def count_breakpoints(body: dict[str, Any]) -> int:
    """How many places ask for the prompt up to there to be cached."""
    blocks = [body, *objects(body.get("tools")), *objects(body.get("system"))]
    for message in objects(body.get("messages")):
        content = objects(message.get("content"))
        blocks += content
        for block in content:
            blocks += objects(block.get("content"))
    return sum(block.get("cache_control") is not None for block in blocks)
