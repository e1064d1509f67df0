"""Bedrock Converse.

    lower (reasoning, history) -> POST …/model/{id}/converse-stream -> assemble (content, summary)

Wire: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStream.html (read November 2026)
"""

from completion.events.aws_eventstream import aws_events
from completion.wires.bedrock_converse.assemble import ConverseTurn
from completion.wires.bedrock_converse.checks import check
from completion.wires.bedrock_converse.history import history_rules
from completion.wires.bedrock_converse.lower import lower
from completion.wires.bedrock_converse.names import WIRE
from completion.wires.wire import Wire

ACCEPT = "application/vnd.amazon.eventstream"

CONVERSE = Wire(WIRE, lower, ConverseTurn.assemble, aws_events, ACCEPT, check, history=history_rules)
