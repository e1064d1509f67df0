"""Answers with ``--schema``: gets a value from the model, validates it, and prints it as JSON."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

from completion.cli.report import OK, OUTPUT_DOES_NOT_FIT, End, report_end
from completion.cli.sessions import request_after
from completion.contract.chunks import FinishReason, TurnFinished
from completion.contract.messages import Message
from completion.contract.model import ChatModel
from completion.contract.request import JsonSchema
from completion.contract.run import RunFinished
from completion.engine import Conversation, Middleware, Tool, run_chat, structured
from completion.terminal import harmless_json


def print_value(
    conversation: Conversation,
    model: ChatModel,
    message: Message,
    kind: Any,
    tools: Sequence[Tool],
    middleware: Sequence[Middleware],
    options: argparse.Namespace,
) -> int:
    """Get the value, print it, and add the exchange to the conversation; returns the exit code.

    Raises:
        OutputError: the answer does not fit.
    """
    history = (*conversation.messages, message)
    request = request_after(conversation, history)
    if tools or middleware:
        result = run_chat(model, request, tools, middleware, output=kind).collect()
        end: End = RunFinished(result.run_id, result.reason, result.usage, result.new_messages, result.abort)
        value, new = result.output, result.new_messages
        is_known = result.abort is None
    else:
        stream = structured(model, request, kind)
        value, turn = stream.collect(), stream.turn
        end, is_known = TurnFinished(reason=turn.reason or FinishReason.OTHER, usage=turn.usage), True
        # A forced tool call is only a means to get the value, so the history contains the value in place of the call.
        new = (Message.assistant(_as_json(value, kind)) if turn.tool_calls else turn.message,)
    if is_known:
        is_terminal = sys.stdout.isatty()
        text = _as_json(value, kind, indent=2 if is_terminal else None)
        print(harmless_json(text) if is_terminal else text)
        conversation.messages = (*history, *new)
    report_end(end, options, tells_reason=True)
    return OK if is_known else OUTPUT_DOES_NOT_FIT


def _as_json(value: Any, kind: Any, indent: int | None = None) -> str:
    if not isinstance(kind, JsonSchema):
        from completion.contract.typed import (
            to_json_data,  # imports pydantic; it is loaded already, because it made the value
        )

        value = to_json_data(value)
    return json.dumps(value, ensure_ascii=False, indent=indent)
