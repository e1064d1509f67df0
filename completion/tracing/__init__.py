"""What happens in a run, as lines of JSON, and as a timeline in the terminal.

    tracer = JsonTracer("trace.jsonl")
    run_chat(model, request, tools, middleware=[tracer])

tracer (hooks -> lines) -> encoding (JSON of limited size) -> writer (a thread, a file)
-> timeline (lines -> a drawing)

``docs/reference/tracing.rst`` documents the lines, for programs that read them.
"""

from completion.tracing.tracer import JsonTracer

__all__ = ["JsonTracer"]
