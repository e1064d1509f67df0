"""Ollama's native chat: newline-delimited JSON.

    lower (history) -> POST …/api/chat -> assemble

Wire: https://docs.ollama.com/api/chat and https://docs.ollama.com/capabilities/thinking (read November 2026)
"""

from completion.events.ndjson import ndjson_events
from completion.wires.ollama.assemble import assemble
from completion.wires.ollama.history import history_rules
from completion.wires.ollama.lower import lower
from completion.wires.ollama.names import WIRE
from completion.wires.wire import Wire

OLLAMA_CHAT = Wire(WIRE, lower, assemble, ndjson_events, "application/x-ndjson", history=history_rules)
