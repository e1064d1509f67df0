"""OpenAI Chat Completions, as OpenAI and every server compatible with it speak it.

    lower (dialect) -> POST …/chat/completions -> assemble (calls, ending)

Wire: https://platform.openai.com/docs/api-reference/chat-streaming (read November 2026). What other servers do
differently is in comments beside the code that reads it.
"""

from completion.wires.openai_chat.assemble import assemble
from completion.wires.openai_chat.lower import lower
from completion.wires.openai_chat.names import WIRE
from completion.wires.wire import Wire

CHAT_COMPLETIONS = Wire(WIRE, lower, assemble)
