"""ChatRequest -> the JSON body of OpenAI Responses."""

from __future__ import annotations

from typing import Any

from completion.contract.request import ChatRequest, JsonSchema, ToolChoice, ToolDefinition, system_text
from completion.contract.schemas import OPENAI_STRICT, for_tools
from completion.wires.json_values import without_none
from completion.wires.lowering import dropped_fields, enforceable
from completion.wires.openai_efforts import effort_to_send
from completion.wires.openai_responses.dialect import DEFAULT, ResponsesDialect
from completion.wires.openai_responses.history import items
from completion.wires.openai_responses.names import TOOL_CHOICES
from completion.wires.wire import Lowered

_SUPPORTED = (
    "system_prompt", "tools", "tool_choice", "parallel_tool_use", "temperature", "top_p", "reasoning_effort",
    "response_format",
)  # fmt: skip


def lower(request: ChatRequest, model: str, dialect: ResponsesDialect | None = None) -> Lowered:
    """The JSON body, and the names of the request fields that were dropped because the API does not support them.

    Raises:
        UnsupportedContentError: the API does not support a part of the request that would change the answer.
    """
    dialect = dialect or DEFAULT
    dropped = dropped_fields(request, supported=_SUPPORTED)
    # The server keeps nothing: the history is in every request, and with it the reasoning, encrypted.
    body: dict[str, Any] = {
        "model": model,
        "input": items(request, dialect),
        "stream": True,
        "store": False,
        "max_output_tokens": request.max_tokens,
    }
    if dialect.encrypts_reasoning(model):
        body["include"] = ["reasoning.encrypted_content"]
    has_tools = bool(request.tools or (request.additional_params or {}).get("tools"))
    optional = {
        "instructions": system_text(request) or None,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "tools": [_tool(tool, dropped) for tool in request.tools] or None,
        "tool_choice": _tool_choice(request.tool_choice, has_tools=has_tools),
        "parallel_tool_calls": request.parallel_tool_use if has_tools else None,
        "reasoning": _reasoning(effort_to_send(request.reasoning_effort, model, dialect.efforts, dropped)),
        "text": _text(request.response_format, dropped),
    }
    return {**body, **without_none(optional)}, dropped


def _tool(tool: ToolDefinition, dropped: list[str]) -> dict[str, Any]:
    parameters = for_tools(tool.input_schema)
    parameters, is_strict = enforceable(parameters, bool(tool.strict), OPENAI_STRICT, dropped, "tools.strict")
    fields = {"type": "function", "name": tool.name, "description": tool.description, "parameters": parameters}
    return {**fields, "strict": is_strict}  # without the field, the API enforces the schema


def _tool_choice(choice: ToolChoice | None, *, has_tools: bool) -> Any:
    if choice is None or (not has_tools and choice.kind in ("auto", "none")):
        return None
    return {"type": "function", "name": choice.name} if choice.kind == "tool" else TOOL_CHOICES[choice.kind]


def _reasoning(word: str | None) -> dict[str, Any] | None:
    if word is None:
        return None
    # Without reasoning there is nothing to summarize.
    return {"effort": word} if word == "none" else {"effort": word, "summary": "auto"}


def _text(wanted: JsonSchema | str | None, dropped: list[str]) -> dict[str, Any] | None:
    if wanted is None:
        return None
    if isinstance(wanted, JsonSchema):
        schema, is_strict = enforceable(wanted.schema, wanted.strict, OPENAI_STRICT, dropped, "response_format.strict")
        return {"format": {"type": "json_schema", "name": wanted.name, "schema": schema, "strict": is_strict}}
    return {"format": {"type": "json_object"}}
