"""ChatRequest -> the JSON body of Anthropic Messages."""

from __future__ import annotations

from typing import Any

from completion.contract.request import (
    ChatRequest,
    JsonSchema,
    ToolChoice,
    ToolDefinition,
    system_text,
)
from completion.contract.schemas import ANTHROPIC_STRICT, OpenSchemaError, for_tools, strict
from completion.wires.anthropic.checks import count_breakpoints
from completion.wires.anthropic.dialect import DEFAULT, MessagesDialect
from completion.wires.anthropic.history import cached, container_id, messages
from completion.wires.anthropic.names import SAMPLING
from completion.wires.claude import refuses_sampling, thinking_of
from completion.wires.json_values import without_none
from completion.wires.lowering import count_cache_controls, unsupported
from completion.wires.wire import Lowered


def lower(request: ChatRequest, model: str, dialect: MessagesDialect = DEFAULT) -> Lowered:
    """The JSON body, and the names of the request fields that were dropped because the API does not support them.

    Raises:
        UnsupportedContentError: the API does not support a part of the request that would change the answer.
    """
    sent = messages(request)
    version = dialect.version_of(model)
    thinking, effort, is_exact = thinking_of(request.reasoning_effort, version, model)
    dropped = ["seed"] if request.seed is not None else []
    if not is_exact:
        dropped.append("reasoning_effort")
    if thinking and thinking["type"] == "enabled" and _continues_without_thinking(sent):
        thinking = None
        dropped = [name for name in dropped if name != "reasoning_effort"] + ["reasoning_effort"]
    sampling = {name: getattr(request, name) for name in SAMPLING}
    if refuses_sampling(version):
        dropped += [name for name, value in sampling.items() if value is not None]
        sampling = {}
    output_config = {"effort": effort, "format": _format(request.response_format)}
    optional = {
        "system": _system(request),
        "tools": [_tool(tool, dropped) for tool in request.tools] or None,
        "tool_choice": _tool_choice(request),
        **sampling,
        "stop_sequences": list(request.stop_sequences) or None,
        "thinking": thinking,
        "output_config": without_none(output_config) or None,
        "container": container_id(request.messages),
    }
    body = {
        "model": model,
        # Thinking counts as output, so its budget is added: max_tokens is meant for the answer.
        "max_tokens": request.max_tokens + (thinking or {}).get("budget_tokens", 0),
        "messages": sent,
        "stream": True,
        **without_none(optional),
    }
    if count_breakpoints(body) < count_cache_controls(request):
        dropped.append("cache_control")
    return body, dropped


def _continues_without_thinking(sent: list[dict[str, Any]]) -> bool:
    """The request continues an answer that does not begin with thinking, such as a call of another provider's model.

    The API refuses that while thinking has a budget: Expected `thinking` or `redacted_thinking`, but found `tool_use`.
    """
    last = sent[-1]
    if last["role"] == "user":
        if last["content"][0].get("type") != "tool_result":
            return False
        last = sent[-2]
    return last["content"][0].get("type") not in ("thinking", "redacted_thinking")


def _format(wanted: JsonSchema | str | None) -> dict[str, Any] | None:
    if wanted is None:
        return None
    if isinstance(wanted, JsonSchema):
        try:
            return {"type": "json_schema", "schema": strict(wanted.schema, ANTHROPIC_STRICT)}
        except OpenSchemaError as error:
            raise unsupported("response_format", f"Anthropic Messages supports closed schemas only: {error}") from None
    raise unsupported("response_format='json'", "Anthropic Messages supports schemas only: give a JsonSchema")


def _system(request: ChatRequest) -> Any:
    """A string, or blocks if one of them has a CacheControl."""
    if not isinstance(request.system_prompt, tuple) or not any(block.cache_control for block in request.system_prompt):
        text = system_text(request)
        return text if text.strip() else None
    blocks = [block for block in request.system_prompt if block.text.strip()]
    return [cached({"type": "text", "text": block.text}, block.cache_control) for block in blocks] or None


def _tool(tool: ToolDefinition, dropped: list[str]) -> dict[str, Any]:
    schema, is_strict = for_tools(tool.input_schema), tool.strict
    if is_strict:
        try:
            schema = strict(schema, ANTHROPIC_STRICT)
        except OpenSchemaError:
            is_strict = False
            dropped.append("tools.strict")
    fields = {
        "name": tool.name,
        "description": tool.description or None,
        "input_schema": schema,
        "strict": is_strict,
    }
    return cached(without_none(fields), tool.cache_control)


def _tool_choice(request: ChatRequest) -> dict[str, Any] | None:
    choice = request.tool_choice
    has_tools = request.tools or (request.additional_params or {}).get("tools")  # server-side tools
    if not has_tools or (choice is None and request.parallel_tool_use is None):
        return None
    choice = choice or ToolChoice.auto()
    lowered: dict[str, Any] = {"type": choice.kind}
    if choice.name is not None:
        lowered["name"] = choice.name
    if request.parallel_tool_use is not None and choice.kind != "none":
        lowered["disable_parallel_tool_use"] = not request.parallel_tool_use
    return lowered
