"""Changes to a request for the embedded server: what llama.cpp and SmolLM2 need."""

from __future__ import annotations

from typing import Any

from completion.contract.messages import AudioBlock, DocumentBlock, ImageBlock, TextBlock
from completion.contract.request import ChatRequest
from completion.embedded.template import CALL_BEGINS, CALL_ENDS
from completion.wires.history import HistoryRules
from completion.wires.lowering import unsupported
from completion.wires.wire import Lowered


def history_rules(dialect: Any) -> HistoryRules:
    """Of a tool result the model reads the text only."""
    return HistoryRules(can_send=lambda block: isinstance(block, TextBlock))


def check_supported(request: ChatRequest) -> None:
    """Raise UnsupportedContentError for what llama.cpp ignores or refuses."""
    for message in request.messages:
        for block in message.blocks:
            # For images and audio the server would need a projector file; it has none.
            if isinstance(block, ImageBlock | AudioBlock | DocumentBlock):
                raise unsupported(type(block).__name__, "the embedded model reads text only")
    if _is_forced(request) and request.response_format is not None:
        raise unsupported("response_format", "llama.cpp cannot force a call and a format at once")


def adapt_to_llama_cpp(lowered: Lowered, request: ChatRequest, *, is_smollm2: bool) -> Lowered:
    """The lowered request, changed in place for llama.cpp and, if it runs SmolLM2, for that model and our template."""
    body, dropped = lowered
    is_forced = _is_forced(request)
    if is_forced:
        _force_a_call(body, request)
    if not is_smollm2:
        return body, dropped
    if body.pop("reasoning_effort", None):
        dropped.append("reasoning_effort")
    if is_forced:
        # llama.cpp lets a model write text before the call, and SmolLM2 never stops writing. So we begin the call.
        body["messages"] = [*body["messages"], {"role": "assistant", "content": f"{CALL_BEGINS}\n"}]
    if "tools" in body and (is_forced or request.parallel_tool_use is False):
        # llama.cpp ignores parallel_tool_calls with this template (xllamacpp 2026.10), so the turn stops after a call.
        body["stop"] = [*request.stop_sequences, CALL_ENDS]
    return body, dropped


def _is_forced(request: ChatRequest) -> bool:
    return request.tool_choice is not None and request.tool_choice.kind in ("any", "tool")


def _force_a_call(body: dict[str, Any], request: ChatRequest) -> None:
    body["tool_choice"] = "required"
    # llama.cpp cannot force a tool by name: it lets the model choose. So we send that tool only.
    if request.tool_choice is not None and request.tool_choice.name is not None:
        body["tools"] = [tool for tool in body["tools"] if tool["function"]["name"] == request.tool_choice.name]
