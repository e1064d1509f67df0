"""Gemini's Interactions API, without state on the server.

    lower (history) -> POST …/v1beta/interactions -> assemble (steps, summary)

Wire: https://ai.google.dev/gemini-api/docs/interactions and https://ai.google.dev/gemini-api/docs/streaming (read
November 2026)
"""

from completion.wires.gemini_interactions.assemble import assemble
from completion.wires.gemini_interactions.history import history_rules
from completion.wires.gemini_interactions.lower import lower
from completion.wires.gemini_interactions.names import WIRE
from completion.wires.wire import Wire

INTERACTIONS = Wire(WIRE, lower, assemble, history=history_rules)
