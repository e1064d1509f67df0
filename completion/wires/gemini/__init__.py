"""Gemini's generateContent.

    lower (thinking, history) -> POST …:streamGenerateContent -> assemble (calls, summary)

Wire: https://ai.google.dev/api/generate-content and https://ai.google.dev/gemini-api/docs/generate-content (read
November 2026)
"""

from completion.wires.gemini.assemble import assemble
from completion.wires.gemini.history import history_rules
from completion.wires.gemini.lower import lower
from completion.wires.gemini.names import WIRE
from completion.wires.wire import Wire

GENERATE_CONTENT = Wire(WIRE, lower, assemble, history=history_rules)
