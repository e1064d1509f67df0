"""Runs: a model, the tools that it asks for, and middleware that looks on.

for chunk in run_chat(model, request, tools=[weather]): ...

run (the loop) -> calls (the calls of a turn) -> tools (a function and what the model is told of it) -> schema
middleware (what looks on), guards (such that ship), bounds (what ends a run before its time)
conversation (a history that is kept between runs)
"""

from completion.engine.bounds import RunConfig
from completion.engine.conversation import Conversation
from completion.engine.guards import Approval, CallLimit, LoopDetection
from completion.engine.middleware import AbortRun, Middleware, Refusal, RunInfo
from completion.engine.redaction import Redaction
from completion.engine.run import RunResult, RunStream, run_chat
from completion.engine.tools import FunctionTool, Tool, ToolContext, ToolError, tool

__all__ = [
    "AbortRun",
    "Approval",
    "CallLimit",
    "Conversation",
    "FunctionTool",
    "LoopDetection",
    "Middleware",
    "Redaction",
    "Refusal",
    "RunConfig",
    "RunInfo",
    "RunResult",
    "RunStream",
    "Tool",
    "ToolContext",
    "ToolError",
    "run_chat",
    "tool",
]
