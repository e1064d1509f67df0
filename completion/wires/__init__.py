"""The wire formats of the providers: the JSON body of a request, and how the events of an answer are read.

    ChatRequest -> lower -> JSON body    ...    bytes -> events -> TurnReader -> StreamChunk

No I/O, no keys. This module exports the parts of an adapter for another wire; ``docs/howto/provider.rst`` builds one.
"""

from completion.contract.request import system_text
from completion.events import DONE, Events, ReadEvents
from completion.events.aws_eventstream import aws_events
from completion.events.ndjson import ndjson_events
from completion.events.sse import sse_events
from completion.wires import refusals
from completion.wires.assembly import TurnReader, assembled
from completion.wires.citations import citation
from completion.wires.efforts import effort_word, nearest_effort
from completion.wires.history import CallIds, HistoryRules
from completion.wires.json_values import objects_in, positive_int, provider_block, str_or_empty, without_none
from completion.wires.lowering import (
    data_uri,
    dropped_fields,
    json_text,
    portable_blocks,
    result_text,
    unsupported,
)
from completion.wires.sizes import SizeLimit
from completion.wires.tool_call import ToolCall
from completion.wires.turn_order import TurnOrder
from completion.wires.turn_summary import TurnSummary
from completion.wires.wire import Assemble, Lower, Lowered, OnEndOfTurn, Wire

__all__ = [
    "DONE",
    "Assemble",
    "CallIds",
    "Events",
    "HistoryRules",
    "Lower",
    "Lowered",
    "OnEndOfTurn",
    "ReadEvents",
    "SizeLimit",
    "ToolCall",
    "TurnOrder",
    "TurnReader",
    "TurnSummary",
    "Wire",
    "assembled",
    "aws_events",
    "citation",
    "data_uri",
    "dropped_fields",
    "effort_word",
    "json_text",
    "ndjson_events",
    "nearest_effort",
    "objects_in",
    "portable_blocks",
    "positive_int",
    "provider_block",
    "refusals",
    "result_text",
    "sse_events",
    "str_or_empty",
    "system_text",
    "unsupported",
    "without_none",
]
