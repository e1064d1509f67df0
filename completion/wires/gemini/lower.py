"""ChatRequest -> the JSON body of generateContent. The model is a part of the path, not of the body."""

from __future__ import annotations

from typing import Any

from completion.contract.request import ChatRequest, JsonSchema, ToolDefinition, system_text
from completion.contract.schemas import GEMINI_SCHEMA, for_tools, known_only
from completion.wires.gemini.history import contents
from completion.wires.gemini.names import TOOL_MODES
from completion.wires.gemini.thinking import thinking_config
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
    thinking, is_dropped = thinking_config(request.reasoning_effort, model)
    dropped += ["reasoning_effort"] * is_dropped
    if any(tool.strict for tool in request.tools):
        dropped.append("tools.strict")
    system = system_text(request)
    config = {
        "maxOutputTokens": request.max_tokens,
        "temperature": request.temperature,
        "topP": request.top_p,
        "topK": request.top_k,
        "seed": request.seed,
        "stopSequences": list(request.stop_sequences) or None,
        "thinkingConfig": thinking,
        **_response_format(request.response_format),
    }
    body = {
        "contents": contents(request, model),
        "systemInstruction": {"parts": [{"text": system}]} if system.strip() else None,
        "tools": [{"functionDeclarations": [_function(tool) for tool in request.tools]}] if request.tools else None,
        "toolConfig": _tool_config(request),
        "generationConfig": without_none(config),
    }
    return without_none(body), dropped


def _function(tool: ToolDefinition) -> dict[str, Any]:
    schema = known_only(for_tools(tool.input_schema), GEMINI_SCHEMA)
    return {"name": tool.name, "description": tool.description, "parametersJsonSchema": schema}


def _tool_config(request: ChatRequest) -> dict[str, Any] | None:
    choice = request.tool_choice
    if choice is None or not request.tools:
        return None
    config: dict[str, Any] = {"mode": TOOL_MODES[choice.kind]}
    if choice.name is not None:
        config["allowedFunctionNames"] = [choice.name]
    return {"functionCallingConfig": config}


def _response_format(wanted: JsonSchema | str | None) -> dict[str, Any]:
    if wanted is None:
        return {}
    schema = known_only(wanted.schema, GEMINI_SCHEMA) if isinstance(wanted, JsonSchema) else None
    return {"responseMimeType": "application/json", "responseJsonSchema": schema}
