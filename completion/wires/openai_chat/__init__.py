"""OpenAI Chat Completions, as OpenAI and all compatible servers send it.

    lower (history, dialect) -> POST …/chat/completions -> assemble (calls, reasoning, summary)

Wire: https://platform.openai.com/docs/api-reference/chat-streaming (read November 2026). Where another
server differs, a comment beside the code names it.
"""

from completion.wires.openai_chat.assemble import assemble
from completion.wires.openai_chat.history import history_rules
from completion.wires.openai_chat.lower import lower
from completion.wires.openai_chat.names import WIRE
from completion.wires.wire import Wire

CHAT_COMPLETIONS = Wire(WIRE, lower, assemble, history=history_rules, signs_per_host=True)
