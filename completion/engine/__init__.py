"""Runs: turns of a model, the tools that it calls, and middleware that observes and changes a run.

for chunk in run_chat(model, request, tools=[weather]): ...

run (the loop) -> run_stream (what the reader gets)
run -> step (a turn and its results) -> calls (the tool calls of a turn) -> tools (a function and its
definition) -> schema, results, cutting (long results)
decisions (what people decide about calls that wait)
middleware (the hooks), guards and redaction (middleware that is included), bounds (the limits of a run)
structured (an answer with a type) -> formats (how a request asks for it)
conversation (a history between runs) -> compaction (keeps it short enough) -> shortening, history, size
"""

from completion.engine.bounds import RunConfig
from completion.engine.conversation import Conversation
from completion.engine.guards import Approval, CallLimit, LoopDetection
from completion.engine.middleware import AbortRun, Middleware, Pending, Refusal, RunInfo
from completion.engine.redaction import Redaction
from completion.engine.run import run_chat
from completion.engine.run_stream import RunResult, RunStream
from completion.engine.structured import StructuredStream, structured
from completion.engine.tools import FunctionTool, Tool, ToolContext, ToolError, tool

__all__ = [
    "AbortRun",
    "Approval",
    "CallLimit",
    "Conversation",
    "FunctionTool",
    "LoopDetection",
    "Middleware",
    "Pending",
    "Redaction",
    "Refusal",
    "RunConfig",
    "RunInfo",
    "RunResult",
    "RunStream",
    "StructuredStream",
    "Tool",
    "ToolContext",
    "ToolError",
    "run_chat",
    "structured",
    "tool",
]
