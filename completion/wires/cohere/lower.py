"""ChatRequest -> the JSON body of Cohere's chat."""

from __future__ import annotations

from typing import Any

from completion.contract.request import ChatRequest, JsonSchema, ToolDefinition
from completion.contract.schemas import for_tools
from completion.wires.cohere.history import documents, messages
from completion.wires.cohere.names import BUDGETS, TOOL_CHOICES
from completion.wires.json_values import without_none
from completion.wires.lowering import dropped_fields
from completion.wires.wire import Lowered

SUPPORTED = (
    *("system_prompt", "tools", "tool_choice", "temperature", "top_p", "top_k", "seed", "stop_sequences"),
    *("reasoning_effort", "response_format"),
)


def lower(request: ChatRequest, model: str, dialect: Any = None) -> Lowered:
    """The JSON body, and the names of the request fields that were dropped because the API does not support them.

    Raises:
        UnsupportedContentError: the API does not support a part of the request that would change the answer.
    """
    dropped = dropped_fields(request, supported=SUPPORTED)
    thinking = _thinking(request.reasoning_effort)
    tools = _tools(request)
    optional = {
        "documents": documents(request) or None,
        "tools": [_tool(tool) for tool in tools] or None,
        "strict_tools": _strict_tools(tools, dropped),
        "tool_choice": TOOL_CHOICES.get(request.tool_choice.kind) if request.tool_choice and tools else None,
        "temperature": request.temperature,
        "p": request.top_p,
        "k": request.top_k,
        "seed": request.seed,
        "stop_sequences": list(request.stop_sequences) or None,
        "thinking": thinking,
        "response_format": _response_format(request.response_format),
    }
    body = {
        "model": model,
        "messages": messages(request),
        "stream": True,
        # Thinking counts as output, so its budget is added: max_tokens is meant for the answer.
        "max_tokens": request.max_tokens + (thinking or {}).get("token_budget", 0),
        **without_none(optional),
    }
    return body, dropped


def _tools(request: ChatRequest) -> tuple[ToolDefinition, ...]:
    """The tools to send. Cohere can force a call but not of a named tool, so then only that tool is sent."""
    choice = request.tool_choice
    if choice is None or choice.kind != "tool":
        return request.tools
    return tuple(tool for tool in request.tools if tool.name == choice.name)


def _tool(tool: ToolDefinition) -> dict[str, Any]:
    parameters = for_tools(tool.input_schema)
    return {
        "type": "function",
        "function": {"name": tool.name, "description": tool.description, "parameters": parameters},
    }


def _strict_tools(tools: tuple[ToolDefinition, ...], dropped: list[str]) -> bool | None:
    """Cohere has one ``strict`` for all tools. None if not all tools are strict."""
    if tools and all(tool.strict for tool in tools):
        return True
    if any(tool.strict for tool in tools):
        dropped.append("tools.strict")
    return None


def _thinking(effort: str | int | None) -> dict[str, Any] | None:
    if effort is None:
        return None
    if effort in ("none", 0):
        return {"type": "disabled"}
    return {"type": "enabled", "token_budget": effort if isinstance(effort, int) else BUDGETS[effort]}


def _response_format(wanted: JsonSchema | str | None) -> dict[str, Any] | None:
    if wanted is None:
        return None
    schema = {"json_schema": wanted.schema} if isinstance(wanted, JsonSchema) else {}
    return {"type": "json_object", **schema}
