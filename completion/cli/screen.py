"""Prints an answer to stdout as it arrives. On a terminal also the reasoning and the tool calls, dimmed."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping

from completion.cli.report import End
from completion.contract.chunks import (
    ReasoningDelta,
    StreamChunk,
    TextDelta,
    ToolCallFinished,
    ToolCallMalformed,
    TurnFinished,
)
from completion.contract.messages import Block, TextBlock
from completion.contract.run import RunFinished, ToolResult
from completion.terminal import harmless, one_line, terminal_width

_DIM, _PLAIN = "\x1b[2m", "\x1b[0m"


class Screen:
    """Prints the chunks of one answer. Text of a model or a tool cannot send control codes to a terminal.

    Args:
        tool_names: the names of tools by call id, for results of calls that are not among the chunks.
    """

    def __init__(self, tool_names: Mapping[str, str] | None = None) -> None:
        self._is_terminal = sys.stdout.isatty()
        self._dim, self._plain = ("", "") if os.environ.get("NO_COLOR") else (_DIM, _PLAIN)
        self._is_in_reasoning = False
        self._is_at_line_start = True
        self._tool_names = dict(tool_names or {})

    def show(self, chunks: Iterable[StreamChunk]) -> End | None:
        """Print the chunks; returns the last end of turn or of the run. An error leaves the terminal undimmed."""
        end: End | None = None
        try:
            for chunk in chunks:
                match chunk:
                    case TextDelta(delta):
                        self._leave_reasoning()
                        self._write(delta)
                    case ReasoningDelta(delta) if self._is_terminal:
                        self._enter_reasoning()
                        self._write(delta)
                    case ToolCallFinished(call_id, name, args):
                        self._tool_names[call_id] = name
                        self._note(f"{name}({', '.join(f'{key}={_as_json(value)}' for key, value in args.items())})")
                    case ToolCallMalformed(call_id, name, raw):
                        self._tool_names[call_id] = name
                        self._note(f"{name}({raw}")
                    case ToolResult(call_id=call_id, blocks=blocks, is_error=is_error):
                        outcome = f"{'failed: ' if is_error else ''}{_as_text(blocks)}"
                        self._note(f"-> {self._tool_names.get(call_id, call_id)}: {outcome}")
                    case TurnFinished():
                        self._end_line()
                        end = chunk
                    case RunFinished():
                        end = chunk
        finally:
            self._end_line()
        return end

    def _write(self, text: str) -> None:
        if text:
            self._is_at_line_start = text.endswith("\n")
        sys.stdout.write(harmless(text) if self._is_terminal else text)
        sys.stdout.flush()

    def _enter_reasoning(self) -> None:
        if not self._is_in_reasoning:
            self._is_in_reasoning = True
            sys.stdout.write(self._dim)

    def _leave_reasoning(self) -> None:
        if self._is_in_reasoning:
            self._is_in_reasoning = False
            sys.stdout.write(f"{self._plain}\n\n")
            self._is_at_line_start = True

    def _note(self, text: str) -> None:
        """Print a dimmed line, cut to the width of the terminal. A pipe does not get it."""
        if self._is_terminal:
            self._end_line()
            line, width = one_line(text), terminal_width()
            shown = line if len(line) < width else f"{line[: width - 4]}..."
            sys.stdout.write(f"{self._dim}{shown}{self._plain}\n")
            sys.stdout.flush()

    def _end_line(self) -> None:
        self._leave_reasoning()
        if not self._is_at_line_start:
            self._write("\n")


def _as_json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _as_text(blocks: Iterable[Block]) -> str:
    return " ".join(block.text if isinstance(block, TextBlock) else type(block).__name__ for block in blocks)
