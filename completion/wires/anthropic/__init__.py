"""Anthropic Messages.

    lower (thinking, history) -> POST …/v1/messages -> assemble (content, summary)

Wire: https://platform.claude.com/docs/en/build-with-claude/streaming and /docs/en/api/messages (read November 2026)
"""

from completion.wires.anthropic.assemble import assemble
from completion.wires.anthropic.checks import check
from completion.wires.anthropic.history import history_rules
from completion.wires.anthropic.lower import lower
from completion.wires.anthropic.names import WIRE
from completion.wires.wire import Wire

MESSAGES = Wire(WIRE, lower, assemble, check=check, history=history_rules)
