"""Tokens that a tool reports after its call was answered."""

from __future__ import annotations

import threading

from completion import RunConfig, StepFinished, Tool, ToolContext, ToolDefinition, Usage, run_chat
from completion.testing import ScriptedModel, WaitFor
from tests.loopback import HI, PATIENCE_S
from tests.runs import called, end_of, turn

GO = ToolDefinition("go", "A tool.", {"type": "object"})


def test_usage_reported_after_the_timeout_of_the_tool_counts() -> None:
    timed_out, reported = threading.Event(), threading.Event()

    def go(context: ToolContext) -> None:
        context.report_usage(Usage(1, 1))
        context.token.on_cancel(timed_out.set)
        assert timed_out.wait(PATIENCE_S)
        context.report_usage(Usage(10, 10))
        reported.set()

    model = ScriptedModel(turn(called("go"), usage=Usage(100, 100)), [WaitFor(reported, PATIENCE_S), *turn("ok")])
    end = end_of(run_chat(model, HI, [Tool(GO, go, timeout=0.05)]))
    assert end.usage == Usage(111, 111)


def test_usage_that_a_tool_reports_when_the_run_times_out_counts() -> None:
    def go(context: ToolContext) -> None:
        try:
            context.token.sleep(PATIENCE_S)
        finally:
            context.report_usage(Usage(10, 10))

    model = ScriptedModel(turn(called("go"), usage=Usage(100, 100)))
    chunks = list(run_chat(model, HI, [Tool(GO, go)], config=RunConfig(timeout=0.2)))
    end = chunks[-1]
    assert end.type == "run_finished"
    assert end.abort is not None
    assert end.abort.kind == "timeout"
    assert end.usage == Usage(110, 110)
    assert [chunk.usage for chunk in chunks if isinstance(chunk, StepFinished)] == [end.usage]


def test_usage_is_counted_once() -> None:
    def go(context: ToolContext) -> None:
        context.report_usage(Usage(10, 10))

    model = ScriptedModel(turn(called("go", "a"), called("go", "b")), turn("ok"))
    assert end_of(run_chat(model, HI, [Tool(GO, go)])).usage == Usage(20, 20)


def test_a_tool_that_ignores_the_end_of_the_run_does_not_delay_it_for_long() -> None:
    gate = threading.Event()
    model = ScriptedModel(turn(called("go")))
    run = run_chat(model, HI, [Tool(GO, lambda: gate.wait(PATIENCE_S))], config=RunConfig(timeout=0.05))
    assert end_of(run).abort is not None
    assert not gate.is_set()
    gate.set()
