"""ChatRequest -> the JSON body of the Interactions API."""

from __future__ import annotations

from typing import Any

from completion.contract.request import ChatRequest, JsonSchema, ToolChoice, ToolDefinition, system_text
from completion.contract.schemas import GEMINI_SCHEMA, for_tools, known_only
from completion.wires.efforts import effort_word
from completion.wires.gemini_interactions.history import steps
from completion.wires.google import THINKS_SINCE, thinking_level, version_of
from completion.wires.json_values import without_none
from completion.wires.lowering import dropped_fields
from completion.wires.wire import Lowered

SUPPORTED = (
    *("system_prompt", "tools", "tool_choice", "temperature", "top_p", "seed", "stop_sequences"),
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
    level, is_dropped = _thinking_level(request.reasoning_effort, model)
    dropped += ["reasoning_effort"] * is_dropped
    system = system_text(request)
    config = {
        "max_output_tokens": request.max_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "seed": request.seed,
        "stop_sequences": list(request.stop_sequences) or None,
        "thinking_level": level,
        "thinking_summaries": "auto" if level else None,
        "tool_choice": _tool_choice(request.tool_choice) if request.tools else None,
    }
    optional = {
        "system_instruction": system if system.strip() else None,
        "tools": [_tool(tool) for tool in request.tools] or None,
        "response_format": _response_format(request.response_format),
    }
    body = {
        "model": model,
        "input": steps(request),
        "stream": True,
        "store": False,  # the history is in the request, so the server need not keep it
        "generation_config": without_none(config),
        **without_none(optional),
    }
    return body, dropped


def _thinking_level(effort: str | int | None, model: str) -> tuple[str | None, bool]:
    """The level to send, None for none; and whether the model cannot do what was asked."""
    if effort is None:
        return None, False
    is_off = effort in ("none", 0)
    version = version_of(model)
    if version is not None and version < THINKS_SINCE:
        return None, not is_off
    word = "none" if is_off else effort_word(effort) if isinstance(effort, int) else effort
    level, is_exact = thinking_level(word, model)
    return level, not is_exact or isinstance(effort, int)


def _tool(tool: ToolDefinition) -> dict[str, Any]:
    schema = known_only(for_tools(tool.input_schema), GEMINI_SCHEMA)
    return {"type": "function", "name": tool.name, "description": tool.description, "parameters": schema}


def _tool_choice(choice: ToolChoice | None) -> Any:
    if choice is None:
        return None
    if choice.kind == "tool":
        return {"allowed_tools": {"mode": "any", "tools": [choice.name]}}
    return choice.kind


def _response_format(wanted: JsonSchema | str | None) -> dict[str, Any] | None:
    if wanted is None:
        return None
    schema = {"schema": known_only(wanted.schema, GEMINI_SCHEMA)} if isinstance(wanted, JsonSchema) else {}
    return {"type": "text", "mime_type": "application/json", **schema}
