"""OpenAI Responses.

    lower (history) -> POST …/responses -> assemble (items, summary)

An answer is a list of items: messages, reasoning, function calls, and calls of tools that run on the server.
Wire: https://platform.openai.com/docs/api-reference/responses-streaming (read November 2026)
"""

from completion.wires.openai_responses.assemble import assemble
from completion.wires.openai_responses.history import history_rules
from completion.wires.openai_responses.lower import lower
from completion.wires.openai_responses.names import WIRE
from completion.wires.wire import Wire

# Each server encrypts reasoning with its own key, so the items of one are refused by another.
RESPONSES = Wire(WIRE, lower, assemble, history=history_rules, signs_per_host=True)
