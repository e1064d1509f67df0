"""What the API is known to refuse: one rule for each, checked before anything is sent."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from typing import Any

from completion.wires.anthropic.dialect import DEFAULT, MessagesDialect
from completion.wires.anthropic.names import MAX_BREAKPOINTS, MIN_SAMPLING_WHILE_THINKING, SAMPLING, STRICTER_SINCE
from completion.wires.claude import ADAPTIVE_ONLY_SINCE, NEWEST, always_thinks, refuses_sampling
from completion.wires.json_values import objects_in
from completion.wires.lowering import unsupported

Refusal = tuple[str, str] | None
"""The field that the API refuses, and why; None if the rule does not apply."""


def check(body: dict[str, Any], dialect: MessagesDialect = DEFAULT) -> None:
    """Raise UnsupportedContentError for a body that the API is known to refuse."""
    for rule in _RULES:
        refusal = rule(body, dialect)
        if refusal is not None:
            raise unsupported(*refusal)


def _sampling(body: dict[str, Any], dialect: MessagesDialect) -> Refusal:
    given = _sampling_fields(body)
    if given and _is_stricter(dialect):
        return given[0], f"version {dialect.version} of the API does not support {', '.join(SAMPLING)}"
    return None


def _forced_call_while_thinking(body: dict[str, Any], dialect: MessagesDialect) -> Refusal:
    if _forces_call(body) and _thinks(body):
        return "tool_choice", "a tool call cannot be forced while the model thinks"
    return None


def _sampling_while_thinking(body: dict[str, Any], dialect: MessagesDialect) -> Refusal:
    if _thinks(body):
        for name in _sampling_fields(body):
            value = body[name]
            if isinstance(value, int | float) and not MIN_SAMPLING_WHILE_THINKING.get(name, math.inf) <= value <= 1:
                return name, f"it cannot be {value} while the model thinks"
    return None


def _budget(body: dict[str, Any], dialect: MessagesDialect) -> Refusal:
    budget = body["thinking"].get("budget_tokens") if _thinks(body) else None
    cap = body.get("max_tokens")
    # With interleaved thinking, the budget is for several answers, so it may be larger than max_tokens.
    is_shared = any(beta.startswith("interleaved-thinking") for beta in dialect.betas)
    if isinstance(budget, int) and isinstance(cap, int) and budget >= cap and not is_shared:
        return "thinking.budget_tokens", f"it must be below max_tokens, {cap}, got {budget}"
    return None


def _breakpoints(body: dict[str, Any], dialect: MessagesDialect) -> Refusal:
    count = count_breakpoints(body)
    if count > MAX_BREAKPOINTS:
        return "cache_control", f"the API accepts {MAX_BREAKPOINTS} of them, got {count}"
    return None


def _urls_and_file_ids(body: dict[str, Any], dialect: MessagesDialect) -> Refusal:
    # https://platform.claude.com/docs/en/build-with-claude/vision (read November 2026)
    if dialect.reads_urls:
        return None
    for block in _content(body):
        source = block.get("source")
        kind = source.get("type") if isinstance(source, dict) else None
        if block.get("type") in ("image", "document") and kind in ("url", "file"):
            why = "Claude on Google Cloud and on Amazon Bedrock reads bytes only: give a path or a Base64Source"
            return f"{str(block['type']).title()}Block", why
    return None


def _always_thinks(body: dict[str, Any], dialect: MessagesDialect) -> bool:
    return always_thinks(dialect.version_of(str(body.get("model"))))


def _sampling_of_newest(body: dict[str, Any], dialect: MessagesDialect) -> Refusal:
    given = _sampling_fields(body)
    if given and refuses_sampling(dialect.version_of(str(body.get("model")))):
        return given[0], f"{body['model']} does not support {', '.join(SAMPLING)}"
    return None


def _thinking_of_newest(body: dict[str, Any], dialect: MessagesDialect) -> Refusal:
    thinking = body.get("thinking")
    kind = thinking.get("type") if isinstance(thinking, dict) else None
    if kind in ("enabled", "disabled") and _always_thinks(body, dialect):
        why = f"{body['model']} refuses thinking of type {kind!r}; use reasoning_effort"
        return "thinking", why
    return None


def _effort_without_thinking(body: dict[str, Any], dialect: MessagesDialect) -> Refusal:
    thinking, config = body.get("thinking"), body.get("output_config")
    effort = config.get("effort") if isinstance(config, dict) else None
    is_off = isinstance(thinking, dict) and thinking.get("type") in ("disabled", "between_tools")
    version = dialect.version_of(str(body.get("model")))
    if is_off and effort in ("xhigh", "max") and version is not None and ADAPTIVE_ONLY_SINCE <= version < NEWEST:
        return "output_config.effort", f"{body['model']} refuses {effort!r} while it does not think; use 'high' or less"
    return None


def _forced_call_of_newest(body: dict[str, Any], dialect: MessagesDialect) -> Refusal:
    if _forces_call(body) and _always_thinks(body, dialect):
        return "tool_choice", f"{body['model']} always thinks, and a tool call cannot be forced while it does"
    return None


def _continued_answer_of_newest(body: dict[str, Any], dialect: MessagesDialect) -> Refusal:
    messages = objects_in(body.get("messages"))
    if not messages or messages[-1].get("role") != "assistant" or not _always_thinks(body, dialect):
        return None
    # After ``pause_turn`` the API itself wants the answer back: it ends in a server-side call without a result.
    content = objects_in(messages[-1].get("content"))
    answered = {block.get("tool_use_id") for block in content}
    server_calls = [block for block in content if block.get("type") in ("server_tool_use", "mcp_tool_use")]
    if any(block.get("id") not in answered for block in server_calls):
        return None
    return "messages", f"{body['model']} does not continue an answer: the last message must be the user's"


def _document_of_assistant(body: dict[str, Any], dialect: MessagesDialect) -> Refusal:
    for message in _messages_of(body, dialect, "assistant"):
        if any(block.get("type") == "document" for block in objects_in(message.get("content"))):
            return "messages", f"version {dialect.version} of the API refuses a document in an assistant message"
    return None


def _citation_of_user(body: dict[str, Any], dialect: MessagesDialect) -> Refusal:
    for message in _messages_of(body, dialect, "user"):
        if any(block.get("type") == "text" and block.get("citations") for block in objects_in(message.get("content"))):
            return "messages", f"version {dialect.version} of the API refuses citations in the text of a user message"
    return None


def _messages_of(body: dict[str, Any], dialect: MessagesDialect, role: str) -> list[dict[str, Any]]:
    """The messages with this role, for the rules that came with version 2026-10-21 of the API; none before it."""
    if not _is_stricter(dialect):
        return []
    return [message for message in objects_in(body.get("messages")) if message.get("role") == role]


def _is_stricter(dialect: MessagesDialect) -> bool:
    is_date = re.fullmatch(r"\d{4}-\d{2}-\d{2}", dialect.version)  # on Bedrock and Vertex a version is not a date
    return is_date is not None and dialect.version >= STRICTER_SINCE


_RULES: tuple[Callable[[dict[str, Any], MessagesDialect], Refusal], ...] = (
    _sampling, _sampling_of_newest, _thinking_of_newest, _forced_call_of_newest, _continued_answer_of_newest,
    _forced_call_while_thinking, _sampling_while_thinking, _budget, _effort_without_thinking, _document_of_assistant,
    _citation_of_user, _breakpoints, _urls_and_file_ids,
)  # fmt: skip


def _thinks(body: dict[str, Any]) -> bool:
    thinking = body.get("thinking")
    return isinstance(thinking, dict) and thinking.get("type") != "disabled"


def _forces_call(body: dict[str, Any]) -> bool:
    choice = body.get("tool_choice")
    return isinstance(choice, dict) and choice.get("type") in ("any", "tool")


def _sampling_fields(body: dict[str, Any]) -> list[str]:
    return [name for name in SAMPLING if name in body]


def count_breakpoints(body: dict[str, Any]) -> int:
    """How many parts of the body have a ``cache_control``."""
    blocks = [body, *objects_in(body.get("tools")), *objects_in(body.get("system")), *_content(body)]
    return sum(block.get("cache_control") is not None for block in blocks)


def _content(body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The blocks of all messages, and the blocks in tool results."""
    for message in objects_in(body.get("messages")):
        for block in objects_in(message.get("content")):
            yield block
            yield from objects_in(block.get("content"))
