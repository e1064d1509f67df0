"""ChatRequest -> the JSON body of Bedrock Converse."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from completion.contract.messages import CacheControl, ToolCallBlock
from completion.contract.request import ChatRequest, JsonSchema, SystemBlock, ToolDefinition
from completion.contract.schemas import ANTHROPIC_STRICT, OpenSchemaError, for_tools, strict
from completion.wires.bedrock_converse.dialect import DEFAULT, ConverseDialect
from completion.wires.bedrock_converse.history import cache_point, messages
from completion.wires.bedrock_converse.names import (
    TOP_K_FIELDS,
    caches,
    claude_version,
    forces_calls,
    is_nova_2,
    maker_of,
    supports_structured_output,
)
from completion.wires.bedrock_converse.reasoning import Reasoning, reasoning_of
from completion.wires.claude import refuses_sampling
from completion.wires.json_values import without_none
from completion.wires.lowering import count_cache_controls, dropped_fields, json_text, unsupported
from completion.wires.wire import Lowered

STOP_SEQUENCE_PATH = "/delta/stop_sequence"
"""The field of Claude's own answer that names the stop sequence. Converse sends it only on request."""


def lower(request: ChatRequest, model: str, dialect: ConverseDialect = DEFAULT) -> Lowered:
    """The JSON body, and the names of the request fields that were dropped because the API does not support them.

    Raises:
        UnsupportedContentError: the API does not support a part of the request that would change the answer.
    """
    base_model = dialect.base_model or model
    reasoning = reasoning_of(request.reasoning_effort, base_model)
    dropped = dropped_fields(request, supported=_supported(request, base_model))
    is_claude = maker_of(base_model) == "anthropic"
    if request.parallel_tool_use is False and request.tools and not is_claude:
        dropped.append("parallel_tool_use")
    if not reasoning.is_exact:
        dropped.append("reasoning_effort")
    sent = messages(request, caches=caches(base_model, "messages"))
    if reasoning.budget and _continues_without_reasoning(sent):
        reasoning = Reasoning()
        dropped = [name for name in dropped if name != "reasoning_effort"] + ["reasoning_effort"]
    config = _inference_config(request, reasoning, base_model, dropped)
    additional = {**reasoning.fields, **_top_k(request, base_model), **(_parallel(request) if is_claude else {})}
    optional = {
        "system": _system(request, base_model),
        "toolConfig": _tool_config(request, base_model, dropped),
        "additionalModelRequestFields": additional or None,
        "additionalModelResponseFieldPaths": [STOP_SEQUENCE_PATH] if is_claude and request.stop_sequences else None,
        "outputConfig": without_none({"effort": reasoning.effort, "textFormat": _format(request, base_model)}) or None,
    }
    body = {
        "messages": sent,
        "inferenceConfig": config,
        **without_none(optional),
    }
    if _count_cache_points(body) < count_cache_controls(request):
        dropped.append("cache_control")
    return body, dropped


def _supported(request: ChatRequest, model: str) -> set[str]:
    supported = {"system_prompt", "tools", "tool_choice", "temperature", "top_p", "stop_sequences", "response_format"}
    supported |= {"reasoning_effort", "cache_control"}  # ``lower`` itself decides whether these are dropped
    if maker_of(model) in TOP_K_FIELDS:
        supported.add("top_k")
    if maker_of(model) == "anthropic" or _forces_one_tool(request):
        supported.add("parallel_tool_use")
    if refuses_sampling(claude_version(model)):
        supported -= {"temperature", "top_p", "top_k"}
    return supported


def _forces_one_tool(request: ChatRequest) -> bool:
    """The request forces one tool. Then the model calls it once, so ``parallel_tool_use=False`` changes nothing."""
    return request.tool_choice is not None and request.tool_choice.kind == "tool"


def _inference_config(request: ChatRequest, reasoning: Reasoning, model: str, dropped: list[str]) -> dict[str, Any]:
    """``inferenceConfig``, without the fields that are in ``dropped`` or that the reasoning excludes."""
    excluded = set(dropped)
    if is_nova_2(model) and reasoning.fields.get("reasoningConfig", {}).get("maxReasoningEffort") == "high":
        # Nova 2 refuses all three at its high effort.
        given = {"max_tokens": True, "temperature": request.temperature, "top_p": request.top_p}
        excluded |= given.keys()
        dropped += [name for name, value in given.items() if value is not None]
    fields = {
        # Thinking counts as output, so its budget is added: max_tokens is meant for the answer.
        "maxTokens": None if "max_tokens" in excluded else request.max_tokens + reasoning.budget,
        "temperature": None if "temperature" in excluded else request.temperature,
        "topP": None if "top_p" in excluded else request.top_p,
        "stopSequences": list(request.stop_sequences) or None,
    }
    return without_none(fields)


def _continues_without_reasoning(sent: list[dict[str, Any]]) -> bool:
    """The request continues an answer that does not begin with reasoning. Claude then refuses a thinking budget."""
    last = sent[-1]
    if last["role"] == "user":
        if "toolResult" not in last["content"][0]:
            return False
        last = sent[-2]
    return "reasoningContent" not in last["content"][0]


def _top_k(request: ChatRequest, model: str) -> dict[str, Any]:
    path = TOP_K_FIELDS.get(maker_of(model) or "")
    if request.top_k is None or path is None or refuses_sampling(claude_version(model)):
        return {}
    field: Any = request.top_k
    for name in reversed(path):
        field = {name: field}
    return dict(field)


def _parallel(request: ChatRequest) -> dict[str, Any]:
    """Claude's own ``tool_choice``, because Converse has no field for parallel calls."""
    choice = request.tool_choice
    if request.parallel_tool_use is not False or not request.tools or (choice and choice.kind == "none"):
        return {}
    fields: dict[str, Any] = {"type": choice.kind if choice else "auto", "disable_parallel_tool_use": True}
    if choice and choice.name is not None:
        fields["name"] = choice.name
    return {"tool_choice": fields}


def _format(request: ChatRequest, model: str) -> dict[str, Any] | None:
    wanted = request.response_format
    if wanted is None:
        return None
    if not isinstance(wanted, JsonSchema):
        raise unsupported("response_format='json'", "Bedrock Converse supports schemas only: give a JsonSchema")
    if not supports_structured_output(model):
        raise unsupported("response_format", f"{model} does not support it on Bedrock: use structured(mode='tool')")
    try:
        schema = strict(wanted.schema, ANTHROPIC_STRICT)
    except OpenSchemaError as error:
        raise unsupported("response_format", f"Bedrock Converse supports closed schemas only: {error}") from None
    described = {"name": wanted.name, "schema": json_text(schema, "response_format")}
    return {"type": "json_schema", "structure": {"jsonSchema": described}}


def _system(request: ChatRequest, model: str) -> list[dict[str, Any]] | None:
    given = request.system_prompt
    blocks: Iterable[SystemBlock] = (SystemBlock(given),) if isinstance(given, str) else given or ()
    lowered: list[dict[str, Any]] = []
    for block in blocks:
        if block.text.strip():
            lowered.append({"text": block.text})
            lowered += _cache_points(block.cache_control, model, "system")
    return lowered or None


def _cache_points(control: CacheControl | None, model: str, place: str) -> list[dict[str, Any]]:
    return [cache_point(control)] if control and caches(model, place) else []


def _tool_config(request: ChatRequest, model: str, dropped: list[str]) -> dict[str, Any] | None:
    called = _called_tools(request)
    choice = request.tool_choice
    if choice is not None and choice.kind == "none":
        if not called:
            return None  # Converse has no "none": without tools the model cannot call any
        if request.tools:
            why = "Bedrock Converse has no such choice, and needs the tools of the calls in the history"
            raise unsupported("tool_choice='none'", why)
    if choice is not None and choice.kind in ("any", "tool") and request.tools and not forces_calls(model):
        raise unsupported(f"tool_choice={choice.kind!r}", f"{model} does not support it on Bedrock")
    tools: list[dict[str, Any]] = []
    for tool in request.tools or _placeholder_tools(called):
        tools.append({"toolSpec": _tool(tool, model, dropped)})
        tools += _cache_points(tool.cache_control, model, "tools")
    if not tools:
        return None
    config: dict[str, Any] = {"tools": tools}
    if choice is not None and request.tools:
        config["toolChoice"] = {choice.kind: {"name": choice.name} if choice.kind == "tool" else {}}
    return config


def _called_tools(request: ChatRequest) -> list[str]:
    """The names of the tools that were called in the history, each once."""
    calls = (block for message in request.messages for block in message.blocks if isinstance(block, ToolCallBlock))
    return list(dict.fromkeys(block.name for block in calls))


def _placeholder_tools(names: Iterable[str]) -> list[ToolDefinition]:
    """Tools for the calls in the history, if the request has none: the API refuses calls without a ``toolConfig``."""
    return [ToolDefinition(name, "Not available any more.", {"type": "object", "properties": {}}) for name in names]


def _tool(tool: ToolDefinition, model: str, dropped: list[str]) -> dict[str, Any]:
    schema, is_strict = for_tools(tool.input_schema), tool.strict
    if is_strict:
        try:
            if not supports_structured_output(model):
                raise OpenSchemaError(f"{model} has no strict tools")
            schema = strict(schema, ANTHROPIC_STRICT)
        except OpenSchemaError:
            is_strict = None
            if "tools.strict" not in dropped:
                dropped.append("tools.strict")
    fields = {
        "name": tool.name,
        "description": tool.description or None,
        "inputSchema": {"json": schema},
        "strict": is_strict or None,
    }
    return without_none(fields)


def _count_cache_points(body: dict[str, Any]) -> int:
    contents = [message["content"] for message in body["messages"]]
    lists = [body.get("system", ()), body.get("toolConfig", {}).get("tools", ()), *contents]
    return sum("cachePoint" in block for blocks in lists for block in blocks)
