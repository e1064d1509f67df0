"""ChatRequest -> the JSON body of Chat Completions."""

from __future__ import annotations

from typing import Any

from completion.contract.request import ChatRequest, JsonSchema, ToolChoice, ToolDefinition
from completion.contract.schemas import OPENAI_STRICT, OpenSchemaError, for_tools, strict
from completion.wires.efforts import effort_word, nearest_effort
from completion.wires.json_values import without_none
from completion.wires.lowering import count_cache_controls, unsupported
from completion.wires.openai_chat.dialect import OPENAI, ChatDialect
from completion.wires.openai_chat.efforts import openai_efforts
from completion.wires.openai_chat.history import messages
from completion.wires.openai_chat.names import TOOL_CHOICES
from completion.wires.wire import Lowered


def lower(request: ChatRequest, model: str, dialect: ChatDialect = OPENAI) -> Lowered:
    """The JSON body, and the names of the request fields that were dropped because the API does not support them.

    Raises:
        UnsupportedContentError: the API does not support a part of the request that would change the answer.
    """
    dropped = ["cache_control"] if count_cache_controls(request) else []
    body: dict[str, Any] = {
        "model": model,
        "messages": messages(request, dialect),
        "stream": True,
        dialect.token_field_of(model): request.max_tokens,
    }
    if dialect.supports_stream_options:
        body["stream_options"] = {"include_usage": True}
    has_tools = bool(request.tools or (request.additional_params or {}).get("tools"))
    optional = {
        "temperature": request.temperature,
        "top_p": request.top_p,
        "seed": request.seed,
        "stop": list(request.stop_sequences) or None,
        "tools": [_tool(tool, dropped) for tool in request.tools] or None,
        "tool_choice": _tool_choice(request.tool_choice, has_tools, dialect),
        "parallel_tool_calls": request.parallel_tool_use if has_tools else None,
        "reasoning_effort": _reasoning_effort(request.reasoning_effort, model, dialect, dropped),
        "response_format": _response_format(request.response_format, dropped),
    }
    if request.top_k is not None:
        if dialect.supports_top_k:
            optional["top_k"] = request.top_k
        else:
            dropped.append("top_k")
    return {**body, **without_none(optional)}, dropped


def _tool(tool: ToolDefinition, dropped: list[str]) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name, "description": tool.description}
    parameters = for_tools(tool.input_schema)
    function["parameters"], is_strict = _schema(parameters, bool(tool.strict), dropped, "tools.strict")
    if tool.strict is not None:
        function["strict"] = is_strict
    return {"type": "function", "function": function}


def _schema(schema: dict[str, Any], is_strict: bool, dropped: list[str], field: str) -> tuple[dict[str, Any], bool]:
    """The schema as the API enforces it, and whether it can: an object with arbitrary keys cannot be enforced."""
    if is_strict:
        try:
            return strict(schema, OPENAI_STRICT), True
        except OpenSchemaError:
            if field not in dropped:
                dropped.append(field)
    return schema, False


def _tool_choice(choice: ToolChoice | None, has_tools: bool, dialect: ChatDialect) -> Any:
    if choice is None or (not has_tools and choice.kind in ("auto", "none")):
        return None
    if choice.kind == "tool":
        return {"type": "function", "function": {"name": choice.name}}
    if choice.kind == "any" and not dialect.supports_forced_choice:
        raise unsupported("tool_choice='any'", "this server cannot force a tool call; use 'auto'")
    return TOOL_CHOICES[choice.kind]


def _reasoning_effort(effort: str | int | None, model: str, dialect: ChatDialect, dropped: list[str]) -> str | None:
    """The word to send. "reasoning_effort" is dropped if the model gets another word than the request has."""
    if effort is None:
        return None
    word = effort_word(effort) if isinstance(effort, int) else effort
    supported = dialect.efforts or openai_efforts(model)
    if supported is None or word in supported:
        return word
    dropped.append("reasoning_effort")
    return nearest_effort(word, supported)


def _response_format(wanted: JsonSchema | str | None, dropped: list[str]) -> dict[str, Any] | None:
    if wanted is None:
        return None
    if isinstance(wanted, JsonSchema):
        schema, is_strict = _schema(wanted.schema, wanted.strict, dropped, "response_format.strict")
        return {"type": "json_schema", "json_schema": {"name": wanted.name, "schema": schema, "strict": is_strict}}
    return {"type": "json_object"}
