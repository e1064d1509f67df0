"""ChatRequest -> the JSON body of Ollama's native chat."""

from __future__ import annotations

from typing import Any

from completion.contract.request import ChatRequest, JsonSchema, ToolDefinition
from completion.contract.schemas import for_tools
from completion.wires.efforts import effort_word, nearest_effort
from completion.wires.json_values import without_none
from completion.wires.lowering import dropped_fields, unsupported
from completion.wires.ollama.history import messages
from completion.wires.ollama.names import LEVELS
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
    if any(tool.strict for tool in request.tools):
        dropped.append("tools.strict")
    options = {
        "num_predict": request.max_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "top_k": request.top_k,
        "seed": request.seed,
        "stop": list(request.stop_sequences) or None,
    }
    optional = {
        "tools": [_tool(tool) for tool in _tools(request)] or None,
        "think": _think(request.reasoning_effort, model, dropped),
        "format": _format(request.response_format),
    }
    body = {
        "model": model,
        "messages": messages(request),
        "stream": True,
        "options": without_none(options),
        **without_none(optional),
    }
    return body, dropped


def _tools(request: ChatRequest) -> tuple[ToolDefinition, ...]:
    """The tools to send. Ollama has no tool_choice: for ``none`` the model gets no tools."""
    kind = request.tool_choice.kind if request.tool_choice else "auto"
    if kind in ("any", "tool"):
        raise unsupported(f"tool_choice={kind!r}", "Ollama cannot force a tool call; use 'auto'")
    return () if kind == "none" else request.tools


def _tool(tool: ToolDefinition) -> dict[str, Any]:
    parameters = for_tools(tool.input_schema)
    return {
        "type": "function",
        "function": {"name": tool.name, "description": tool.description, "parameters": parameters},
    }


def _think(effort: str | int | None, model: str, dropped: list[str]) -> bool | str | None:
    """The value of ``think``. gpt-oss has levels and always thinks; for other models it is on or off."""
    if effort is None:
        return None
    is_off = effort in ("none", 0)
    if "gpt-oss" not in model.lower():
        dropped += [] if is_off else ["reasoning_effort"]  # the model thinks, but has no levels
        return not is_off
    word = effort_word(effort) if isinstance(effort, int) else effort
    level = nearest_effort("low" if is_off else word, LEVELS)
    dropped += [] if level == effort else ["reasoning_effort"]
    return level


def _format(wanted: JsonSchema | str | None) -> Any:
    return wanted.schema if isinstance(wanted, JsonSchema) else wanted
