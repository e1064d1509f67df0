"""ChatRequest -> the JSON body of Anthropic Messages."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from completion.contract.request import (
    ChatRequest,
    JsonSchema,
    ToolChoice,
    ToolDefinition,
    require_request,
    system_text,
)
from completion.wires.anthropic.history import _cached, _container, _messages
from completion.wires.anthropic.names import (
    LEAST_WHILE_THINKING,
    MAX_BREAKPOINTS,
    NO_SAMPLING_SINCE,
    SAMPLING,
    VERSION,
)
from completion.wires.anthropic.thinking import _thinking, _version_of
from completion.wires.json_values import objects, without_none
from completion.wires.lowering import cache_wishes, unsupported, with_additional


def lower(
    req: ChatRequest, model: str, *, version: str = VERSION, betas: Sequence[str] = (), adapter: str = "anthropic"
) -> tuple[dict[str, Any], list[str]]:
    """The JSON body, and the names of the fields that were left out because they state a preference only.

    Raises:
        UnsupportedContentError: a part that would change the answer cannot be said, or the API is known to refuse it.
    """
    require_request(req, adapter)
    thinking, effort = _thinking(req.reasoning_effort, _version_of(model))
    output_config = {"effort": effort, "format": _format(req.response_format, adapter)}
    optional = {
        "system": _system(req),
        "tools": [_tool(tool) for tool in req.tools] or None,
        "tool_choice": _tool_choice(req),
        **{name: getattr(req, name) for name in SAMPLING},
        "stop_sequences": list(req.stop_sequences) or None,
        "thinking": thinking,
        "output_config": without_none(output_config) or None,
        "container": _container(req.messages),
    }
    payload = {
        "model": model,
        # What the model thinks counts as output: the budget comes on top of what it may say.
        "max_tokens": req.max_tokens + (thinking or {}).get("budget_tokens", 0),
        "messages": _messages(req, adapter),
        "stream": True,
        **without_none(optional),
    }
    dropped = ["seed"] if req.seed is not None else []
    if _breakpoints(payload) < cache_wishes(req):
        dropped.append("cache_control")
    body = with_additional(payload, req, adapter)
    _check(body, version, betas, adapter)
    return body, dropped


def _format(wanted: JsonSchema | str | None, adapter: str) -> dict[str, Any] | None:
    if wanted is None:
        return None
    if isinstance(wanted, JsonSchema):
        return {"type": "json_schema", "schema": wanted.schema}
    raise unsupported(adapter, "response_format='json'", "this wire takes a schema: give a JsonSchema")


def _system(req: ChatRequest) -> Any:
    """A string, or blocks when one of them is to be cached."""
    if not isinstance(req.system_prompt, tuple) or not any(block.cache_control for block in req.system_prompt):
        text = system_text(req)
        return text if text.strip() else None
    said = [block for block in req.system_prompt if block.text.strip()]
    return [_cached({"type": "text", "text": block.text}, block.cache_control) for block in said] or None


def _tool(tool: ToolDefinition) -> dict[str, Any]:
    fields = {
        "name": tool.name,
        "description": tool.description or None,
        "input_schema": {"type": "object", **tool.input_schema},  # it has to be said, also of a tool without input
        "strict": tool.strict,
    }
    return _cached(without_none(fields), tool.cache_control)


def _tool_choice(req: ChatRequest) -> dict[str, Any] | None:
    choice = req.tool_choice
    has_tools = req.tools or (req.additional_params or {}).get("tools")  # those that the server runs
    if not has_tools or (choice is None and req.parallel_tool_use is None):
        return None
    choice = choice or ToolChoice.auto()
    lowered: dict[str, Any] = {"type": choice.kind}
    if choice.name is not None:
        lowered["name"] = choice.name
    if req.parallel_tool_use is not None and choice.kind != "none":
        lowered["disable_parallel_tool_use"] = not req.parallel_tool_use
    return lowered


def _check(body: dict[str, Any], version: str, betas: Sequence[str], adapter: str) -> None:
    """Raise for what the API is known to refuse."""
    given = [name for name in SAMPLING if name in body]
    is_date = re.fullmatch(r"\d{4}-\d{2}-\d{2}", version)  # Bedrock and Vertex name theirs otherwise
    if given and is_date and version >= NO_SAMPLING_SINCE:
        raise unsupported(adapter, given[0], f"version {version} of the API takes no {', '.join(SAMPLING)}")
    thinking, choice = body.get("thinking"), body.get("tool_choice")
    if isinstance(thinking, dict) and thinking.get("type") != "disabled":
        if isinstance(choice, dict) and choice.get("type") in ("any", "tool"):
            raise unsupported(adapter, "tool_choice", "no call can be forced while the model thinks")
        for name in given:
            is_number = isinstance(body[name], int | float)
            if is_number and not LEAST_WHILE_THINKING.get(name, math.inf) <= body[name] <= 1:
                raise unsupported(adapter, name, "it cannot be set while the model thinks")
        budget, most = thinking.get("budget_tokens"), body.get("max_tokens")
        # Interleaved with calls, the thinking of several answers shares one budget.
        is_shared = any(beta.startswith("interleaved-thinking") for beta in betas)
        if isinstance(budget, int) and isinstance(most, int) and budget >= most and not is_shared:
            raise unsupported(adapter, "thinking.budget_tokens", f"{budget} is not below max_tokens, {most}")
    breakpoints = _breakpoints(body)
    if breakpoints > MAX_BREAKPOINTS:
        raise unsupported(adapter, "cache_control", f"{breakpoints} are set, the API takes {MAX_BREAKPOINTS}")


def _breakpoints(body: dict[str, Any]) -> int:
    """How many places ask for the prompt up to there to be cached."""
    blocks = [body, *objects(body.get("tools")), *objects(body.get("system"))]
    for message in objects(body.get("messages")):
        content = objects(message.get("content"))
        blocks += content
        for block in content:
            blocks += objects(block.get("content"))
    return sum(block.get("cache_control") is not None for block in blocks)
