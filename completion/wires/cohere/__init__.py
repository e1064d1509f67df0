"""Cohere's chat, version 2 of its API.

    lower (history) -> POST …/v2/chat -> assemble (content)

Wire: https://docs.cohere.com/reference/chat-stream and https://docs.cohere.com/docs/streaming (read November 2026)
"""

from completion.wires.cohere.assemble import assemble
from completion.wires.cohere.checks import check
from completion.wires.cohere.history import history_rules
from completion.wires.cohere.lower import lower
from completion.wires.cohere.names import WIRE
from completion.wires.wire import Wire

COHERE_CHAT = Wire(WIRE, lower, assemble, check=check, history=history_rules)
