"""What happened in a run, as lines of JSON, and as a picture in the terminal.

    tracer = JsonTracer("trace.jsonl")
    run_chat(model, request, tools, middleware=[tracer])

tracer (from hooks to lines) -> encoding (JSON of limited size) -> writer (a thread, a file)
-> timeline (from lines to a picture)

``docs/reference/tracing.rst`` describes the lines, for programs that read them.
"""

from completion.tracing.tracer import JsonTracer

__all__ = ["JsonTracer"]
