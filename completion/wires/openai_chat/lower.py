"""ChatRequest -> the JSON body of Chat Completions."""

from __future__ import annotations

from typing import Any

from completion.contract.request import ChatRequest, JsonSchema, ToolChoice, ToolDefinition
from completion.contract.schemas import OPENAI_STRICT, for_tools
from completion.wires.json_values import without_none
from completion.wires.lowering import count_cache_controls, enforceable, unsupported
from completion.wires.openai_chat.dialect import OPENAI, ChatDialect
from completion.wires.openai_chat.history import messages
from completion.wires.openai_chat.names import TOOL_CHOICES
from completion.wires.openai_efforts import effort_to_send
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
        dialect.seed_field: request.seed,
        "stop": list(request.stop_sequences) or None,
        "tools": [_tool(tool, dropped) for tool in request.tools] or None,
        "tool_choice": _tool_choice(request.tool_choice, has_tools, dialect),
        "parallel_tool_calls": request.parallel_tool_use if has_tools else None,
        "reasoning_effort": effort_to_send(request.reasoning_effort, model, dialect.efforts, dropped),
        "response_format": _response_format(request.response_format, dropped),
    }
    if request.top_k is not None:
        if dialect.supports_top_k:
            optional["top_k"] = request.top_k
        else:
            dropped.append("top_k")
    return {**body, **without_none(optional)}, dropped


def _tool(tool: ToolDefinition, dropped: list[str]) -> dict[str, Any]:
    parameters = for_tools(tool.input_schema)
    parameters, is_strict = enforceable(parameters, bool(tool.strict), OPENAI_STRICT, dropped, "tools.strict")
    function: dict[str, Any] = {"name": tool.name, "description": tool.description, "parameters": parameters}
    if tool.strict is not None:
        function["strict"] = is_strict
    return {"type": "function", "function": function}


def _tool_choice(choice: ToolChoice | None, has_tools: bool, dialect: ChatDialect) -> Any:
    if choice is None or (not has_tools and choice.kind in ("auto", "none")):
        return None
    if choice.kind == "tool":
        return {"type": "function", "function": {"name": choice.name}}
    if choice.kind == "any" and not dialect.supports_forced_choice:
        raise unsupported("tool_choice='any'", "this server cannot force a tool call; use 'auto'")
    return TOOL_CHOICES[choice.kind]


def _response_format(wanted: JsonSchema | str | None, dropped: list[str]) -> dict[str, Any] | None:
    if wanted is None:
        return None
    if isinstance(wanted, JsonSchema):
        schema, is_strict = enforceable(wanted.schema, wanted.strict, OPENAI_STRICT, dropped, "response_format.strict")
        return {"type": "json_schema", "json_schema": {"name": wanted.name, "schema": schema, "strict": is_strict}}
    return {"type": "json_object"}
