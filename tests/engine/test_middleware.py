"""The hooks of middleware: their order, what they may change, and what happens when they fail."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from completion import (
    AbortRun,
    ChatRequest,
    FinishReason,
    Message,
    Middleware,
    OverloadedError,
    Refusal,
    RetryConfig,
    RetryingModel,
    RunConfig,
    RunFinished,
    RunInfo,
    StepFinished,
    StreamChunk,
    TextDelta,
    ToolCallBlock,
    ToolCallFinished,
    ToolContext,
    ToolDefinition,
    ToolResult,
    ToolResultBlock,
    TurnFinished,
    Usage,
    run_chat,
)
from completion.testing import Cut, ProviderServer, Reply, ScriptedModel
from tests.loopback import END, HI, PATIENCE_S, model_of, text
from tests.runs import Seen, called, check_history, end_of, malformed, named, results_in, texts, turn

LAST = ("on_finished", "on_failed", "on_dropped")
ENDED_ONCE = [1, 0, 0]


class OneHook:
    """Middleware with one hook."""

    def __init__(self, hook: str, function: Any) -> None:
        setattr(self, hook, function)


def stop(*_: Any) -> Any:
    raise AbortRun("enough")


def fail(*_: Any) -> Any:
    raise ValueError("oops")


# The order


def test_the_order_of_all_hooks_and_chunks() -> None:
    log: list[str] = []
    model = ScriptedModel(turn("a", called("now", "x"), malformed("now", "y"), called("no", "z")), turn("b"))
    for chunk in run_chat(model, HI, [named("now")], [Seen(into=log)]):
        log.append(f"-> {chunk.type}")  # noqa: PERF401  the hooks write here as well
    assert log == [
        "on_run_started",
        "on_request 1",
        "on_chunk run_started",
        "-> run_started",
        "on_chunk step_started",
        "-> step_started",
        "on_chunk text_delta",
        "-> text_delta",
        "on_chunk tool_call_started",
        "-> tool_call_started",
        "on_chunk tool_call_finished",
        "-> tool_call_finished",
        "on_chunk tool_call_started",
        "-> tool_call_started",
        "on_chunk tool_call_malformed",
        "-> tool_call_malformed",
        "on_chunk tool_call_started",
        "-> tool_call_started",
        "on_chunk tool_call_finished",
        "-> tool_call_finished",
        "on_chunk turn_finished",
        "-> turn_finished",
        "before_tool x",
        "before_tool z",
        "after_tool x",
        "on_chunk tool_result",
        "-> tool_result",
        "after_tool y error",
        "on_chunk tool_result",
        "-> tool_result",
        "after_tool z error",
        "on_chunk tool_result",
        "-> tool_result",
        "on_turn_finished tool_use",
        "on_chunk step_finished",
        "-> step_finished",
        "on_request 3",
        "on_chunk step_started",
        "-> step_started",
        "on_chunk text_delta",
        "-> text_delta",
        "on_chunk turn_finished",
        "-> turn_finished",
        "on_turn_finished end_turn",
        "on_chunk step_finished",
        "-> step_finished",
        "on_chunk run_finished",
        "on_finished end_turn",
        "-> run_finished",
    ]


def test_hooks_to_the_model_run_first_to_last_and_hooks_from_the_model_last_to_first() -> None:
    log: list[str] = []
    model = ScriptedModel(OverloadedError("busy"), turn(called("now")), turn())
    retrying = RetryingModel(model, RetryConfig(base_delay=0))
    end_of(run_chat(retrying, HI, [named("now")], [Seen("A", log), Seen("B", log)]))
    first: dict[str, str] = {}  # hook -> the middleware whose hook was called first
    for entry in log:
        middleware, hook = entry.split()[0].split(".")
        first.setdefault(hook, middleware)
    assert first == {
        "on_run_started": "A",
        "on_request": "A",
        "on_retry": "A",
        "before_tool": "A",
        "on_chunk": "B",
        "after_tool": "B",
        "on_turn_finished": "B",
        "on_finished": "B",
    }
    assert log[:6] == ["A.on_run_started", "B.on_run_started", "A.on_request 1", "B.on_request 1",
                       "A.on_retry 1", "B.on_retry 1"]  # fmt: skip


def test_on_retry_is_called_when_the_retry_happens(server: ProviderServer) -> None:
    seen = Seen()
    server.reply(Reply(Cut()), Reply(text("Hello"), END))
    run_chat(RetryingModel(model_of(server), RetryConfig(base_delay=0)), HI, (), [seen]).collect()
    assert seen.log[:6] == [
        "on_run_started",
        "on_request 1",
        "on_chunk run_started",
        "on_chunk step_started",
        "on_retry 1",
        "on_chunk text_delta",
    ]


# Changes


def test_a_changed_request_applies_to_one_turn_only() -> None:
    def hotter(run: Any, request: ChatRequest) -> ChatRequest:
        return replace(request, temperature=(request.temperature or 0) + 0.5)

    model = ScriptedModel(turn(called("now")), turn())
    end_of(run_chat(model, HI, [named("now")], [OneHook("on_request", hotter), OneHook("on_request", hotter)]))
    assert [request.temperature for request in model.requests] == [1.0, 1.0]


def test_a_chunk_may_be_changed_but_the_history_keeps_the_original_text() -> None:
    def louder(run: Any, chunk: StreamChunk) -> StreamChunk:
        return TextDelta(chunk.delta.upper()) if isinstance(chunk, TextDelta) else chunk

    *chunks, end = run_chat(ScriptedModel(turn("Hello")), HI, (), [OneHook("on_chunk", louder)])
    assert TextDelta("HELLO") in chunks
    assert isinstance(end, RunFinished)
    assert end.new_messages == (Message.assistant("Hello"),)


def test_outer_middleware_does_not_see_a_dropped_chunk() -> None:
    seen = Seen()
    drop = OneHook("on_chunk", lambda run, chunk: None)
    kinds = [chunk.type for chunk in run_chat(ScriptedModel("Hello"), HI, (), [seen, drop])]
    assert kinds == ["run_started", "step_started", "step_finished", "run_finished"]
    assert "on_chunk text_delta" not in seen.log


def test_a_chunk_may_become_several_and_each_passes_the_outer_middleware() -> None:
    held: list[StreamChunk] = []

    def hold(run: Any, chunk: StreamChunk) -> StreamChunk | Sequence[StreamChunk] | None:
        if isinstance(chunk, TextDelta):
            held.append(chunk)
            return ()
        return [*held, chunk] if isinstance(chunk, TurnFinished) else chunk

    seen = Seen()
    chunks = list(run_chat(ScriptedModel("Hello there"), HI, (), [seen, OneHook("on_chunk", hold)]))
    assert chunks[2:4] == [TextDelta("Hello"), TextDelta(" there")]
    assert seen.log.count("on_chunk text_delta") == 2


def test_chunks_of_the_run_itself_cannot_be_changed() -> None:
    chunks = run_chat(ScriptedModel(turn()), HI, (), [OneHook("on_chunk", lambda run, chunk: None)])
    assert [chunk.type for chunk in chunks] == ["run_started", "step_started", "step_finished", "run_finished"]


def test_arguments_may_be_changed_but_the_history_keeps_the_original_ones() -> None:
    def more(run: Any, call: ToolCallBlock) -> ToolCallBlock:
        return ToolCallBlock("another id", call.name, {"a": call.args["a"] + 1})

    model = ScriptedModel(turn(called("add", a=1)), turn())
    end = end_of(
        run_chat(model, HI, [named("add", lambda a: a)], [OneHook("before_tool", more), OneHook("before_tool", more)])
    )
    assert texts(end.new_messages) == ["3"]
    assert end.new_messages[0].blocks == (ToolCallBlock("c1", "add", {"a": 1}),)
    check_history(end.new_messages)


def test_a_refused_call_is_not_made_and_the_model_reads_the_reason() -> None:
    seen = Seen()
    made: list[int] = []
    tool = named("rm", lambda: made.append(1))
    no = OneHook("before_tool", lambda run, call: Refusal("Not without asking."))
    end = end_of(run_chat(ScriptedModel(turn(called("rm")), turn()), HI, [tool], [no, seen]))
    assert (made, texts(end.new_messages)) == ([], ["Not without asking."])
    assert "before_tool c1" not in seen.log
    assert "after_tool c1 error" in seen.log


def test_before_tool_is_called_for_all_calls_before_the_first_tool_runs() -> None:
    made: list[str] = []

    def decide(run: Any, call: ToolCallBlock) -> ToolCallBlock:
        if call.call_id == "b":
            raise AbortRun("not this one")
        return call

    model = ScriptedModel(turn(called("tool", "a"), called("tool", "b")))
    tool = named("tool", lambda: made.append("made"))
    end = end_of(run_chat(model, HI, [tool], [OneHook("before_tool", decide)]))
    assert made == []
    assert texts(end.new_messages) == ["This call was not run: not this one."] * 2


def test_a_result_may_be_changed() -> None:
    def short(run: Any, call: ToolCallBlock, result: ToolResultBlock) -> ToolResultBlock:
        return ToolResultBlock("whatever", f"{call.name} said something")

    end = end_of(
        run_chat(ScriptedModel(turn(called("now")), turn()), HI, [named("now")], [OneHook("after_tool", short)])
    )
    assert texts(end.new_messages) == ["now said something"]
    check_history(end.new_messages)


def test_messages_from_on_turn_finished_start_another_turn() -> None:
    left = [[Message.user("Are you sure?")]]
    hook = OneHook("on_turn_finished", lambda run, turn: left.pop() if left else None)
    with ScriptedModel(turn("4"), turn("5")) as model:
        end = end_of(run_chat(model, HI, (), [hook]))
    assert end.new_messages == (Message.assistant("4"), Message.user("Are you sure?"), Message.assistant("5"))


def test_an_empty_list_from_on_turn_finished_starts_another_turn() -> None:
    go_on = OneHook("on_turn_finished", lambda run, turn: [] if turn.reason is FinishReason.PAUSE else None)
    with ScriptedModel(turn("a", reason=FinishReason.PAUSE), turn("b")) as model:
        assert end_of(run_chat(model, HI, (), [go_on])).reason == FinishReason.END_TURN
    assert model.requests[1].messages == (Message.user("Hi"), Message.assistant("a"))


def test_a_turn_that_middleware_asks_for_counts_as_an_iteration() -> None:
    hook = OneHook("on_turn_finished", lambda run, turn: [Message.user("More!")])
    with ScriptedModel(turn("a"), turn("b")) as model:
        end = end_of(run_chat(model, HI, (), [hook], RunConfig(max_iterations=2)))
    assert end.abort is not None
    assert end.abort.kind == "max_iterations"
    assert end.new_messages[-1] == Message.assistant("b")


def test_a_call_of_a_client_side_tool_ends_the_run_even_if_middleware_asks_for_a_turn() -> None:
    hook = OneHook("on_turn_finished", lambda run, turn: [Message.user("More!")])
    request = ChatRequest("Hi", tools=[ToolDefinition("client", "", {})])
    end = end_of(run_chat(ScriptedModel(turn(called("client"))), request, (), [hook]))
    assert (end.reason, len(end.new_messages)) == (FinishReason.TOOL_USE, 1)


def test_the_usage_of_a_turn_is_known_before_its_tools_run() -> None:
    known: list[Any] = []

    def look(run: Any, call: ToolCallBlock) -> ToolCallBlock:
        known.append((run.iteration, run.usage))
        return call

    model = ScriptedModel(turn(called("now"), usage=Usage(5, 2)), turn(called("now"), usage=Usage(9, 1)), turn())
    end_of(run_chat(model, HI, [named("now")], [OneHook("before_tool", look)]))
    assert known == [(1, Usage(5, 2)), (2, Usage(14, 3))]


# The end of a run


def test_on_finished_is_called_once() -> None:
    seen = Seen()
    run_chat(ScriptedModel("Hello"), HI, (), [seen]).collect()
    assert seen.ends == ["on_finished"]


@pytest.mark.parametrize("read", range(6))
def test_on_dropped_is_called_once_when_a_run_is_closed_at_any_point(read: int) -> None:
    seen = Seen()
    with run_chat(ScriptedModel(turn("a", called("now")), turn("b")), HI, [named("now")], [seen]) as run:
        for _ in range(read):
            next(run)
        assert seen.ends == []
    assert seen.ends == ["on_dropped"]
    run.close()
    del run
    assert seen.ends == ["on_dropped"]


def test_on_dropped_is_called_when_a_run_is_garbage_collected() -> None:
    seen = Seen()
    for _ in run_chat(ScriptedModel("Hello"), HI, (), [seen]):
        break
    assert seen.ends == ["on_dropped"]


def test_on_dropped_is_not_called_after_run_finished() -> None:
    seen = Seen()
    run = run_chat(ScriptedModel("Hello"), HI, (), [seen])
    while not isinstance(next(run), RunFinished):
        pass
    run.close()
    assert seen.ends == ["on_finished"]


@pytest.mark.parametrize("script", [OverloadedError("busy"), [TextDelta("Hel"), OverloadedError("busy")]])
def test_on_failed_is_called_once_with_the_error(script: Any) -> None:
    seen = Seen()
    with pytest.raises(OverloadedError):
        run_chat(ScriptedModel(script), HI, (), [seen]).collect()
    assert seen.log[-1] == "on_failed OverloadedError"
    assert seen.ends == ["on_failed"]


@pytest.mark.parametrize("hook", LAST)
def test_an_error_of_a_last_hook_is_logged_and_the_other_hooks_are_called(
    hook: str, caplog: pytest.LogCaptureFixture
) -> None:
    seen = Seen()
    scripts: dict[str, Any] = {"on_failed": [TextDelta("a"), OverloadedError("busy")]}
    run = run_chat(ScriptedModel(scripts.get(hook, "Hello")), HI, (), [seen, OneHook(hook, fail)])
    with caplog.at_level(logging.ERROR, "completion"):
        if hook == "on_dropped":
            run.close()
        else:
            with suppress(OverloadedError):
                run.collect()
    assert seen.ends == [hook]
    assert f"the hook {hook} of a middleware failed" in caplog.text


# Errors of hooks


HOOKS = ["on_run_started", "on_request", "on_chunk", "before_tool", "after_tool", "on_turn_finished"]


@pytest.mark.parametrize("hook", HOOKS)
def test_an_error_in_a_hook_fails_the_run(hook: str) -> None:
    seen = Seen()
    with pytest.raises(ValueError, match="oops") as caught:
        run_chat(ScriptedModel(turn(called("now")), turn()), HI, [named("now")], [seen, OneHook(hook, fail)]).collect()
    assert seen.ends == ["on_failed"]
    assert caught.value.partial_messages == ()  # type: ignore[attr-defined]


@pytest.mark.parametrize("at", ["run_started", "step_started", "text_delta", "turn_finished", "step_finished"])
def test_an_error_in_a_hook_closes_the_connection(at: str, server: ProviderServer) -> None:
    def fail_at(run: Any, chunk: StreamChunk) -> StreamChunk:
        if chunk.type == at:
            raise ValueError("oops")
        return chunk

    server.reply(Reply(text("Hello"), END))
    run = run_chat(model_of(server), HI, (), [OneHook("on_chunk", fail_at)])
    with pytest.raises(ValueError, match="oops"):
        run.collect()
    assert run._run.stream is None
    assert list(run) == []


@pytest.mark.parametrize("hook", ["on_request", "before_tool", "after_tool"])
def test_a_hook_without_a_return_value_is_named_in_the_error(hook: str) -> None:
    def forgets(*_: Any) -> None:
        pass

    with pytest.raises(TypeError, match=r"forgets must return a .*, got NoneType"):
        run_chat(ScriptedModel(turn(called("now"))), HI, [named("now")], [OneHook(hook, forgets)]).collect()


@pytest.mark.parametrize("hook", ["after_tool", "on_chunk"])
def test_tools_are_cancelled_when_a_hook_fails(hook: str) -> None:
    cancelled, begun = threading.Event(), threading.Event()

    def waits(context: ToolContext) -> None:
        context.token.on_cancel(cancelled.set)
        begun.set()
        cancelled.wait(PATIENCE_S)

    def fails(run: Any, *facts: Any) -> Any:
        if isinstance(facts[-1], ToolResultBlock | ToolResult):
            assert begun.wait(PATIENCE_S)
            raise ValueError("oops")
        return facts[-1]

    model = ScriptedModel(turn(called("now", "a"), called("waits", "b")))
    run = run_chat(model, HI, [named("now"), named("waits", waits)], [OneHook(hook, fails)])
    with pytest.raises(ValueError, match="oops") as caught:
        list(run)
    assert cancelled.wait(1)
    assert caught.value.__traceback__ is not None  # so the frames still exist, and did not keep the tools running


# Middleware that aborts the run


@pytest.mark.parametrize(
    ("hook", "asked", "kinds"),
    [
        ("on_run_started", 0, ["run_started", "run_finished"]),
        ("on_request", 0, ["run_started", "run_finished"]),
        ("on_chunk", 1, ["run_started", "step_started", "step_finished", "run_finished"]),
        ("before_tool", 1, ["turn_finished", "tool_result", "tool_result", "step_finished", "run_finished"]),
        ("after_tool", 1, ["turn_finished", "tool_result", "tool_result", "step_finished", "run_finished"]),
        ("on_turn_finished", 1, ["turn_finished", "tool_result", "tool_result", "step_finished", "run_finished"]),
    ],
)
def test_middleware_can_abort_the_run_from_any_hook(hook: str, asked: int, kinds: list[str]) -> None:
    seen = Seen()
    model = ScriptedModel(turn(called("now", "a"), called("now", "b")), turn())
    chunks = list(run_chat(model, HI, [named("now")], [seen, OneHook(hook, stop)]))
    assert [chunk.type for chunk in chunks][-len(kinds) :] == kinds
    end = chunks[-1]
    assert isinstance(end, RunFinished)
    assert end.reason == FinishReason.ABORTED
    assert end.abort is not None
    assert (end.abort.kind, end.abort.message) == ("middleware", "enough")
    assert (len(model.requests), seen.ends) == (asked, ["on_finished"])
    check_history(end.new_messages)


def test_the_result_is_withheld_if_after_tool_aborts_the_run() -> None:
    model = ScriptedModel(turn(called("secret", "a")))
    end = end_of(run_chat(model, HI, [named("secret", lambda: "the code is 1234")], [OneHook("after_tool", stop)]))
    assert texts(end.new_messages) == ["The result of this call is withheld: enough."]


def test_earlier_results_are_kept_if_after_tool_aborts_the_run_at_a_later_one() -> None:
    def at_b(run: Any, call: ToolCallBlock, result: ToolResultBlock) -> ToolResultBlock:
        if call.call_id == "b":
            raise AbortRun("enough")
        return result

    model = ScriptedModel(turn(called("now", "a"), called("now", "b")))
    end = end_of(run_chat(model, HI, [named("now")], [OneHook("after_tool", at_b)]))
    assert texts(end.new_messages) == ["fine", "The result of this call is withheld: enough."]
    assert [result.is_error for result in results_in(end.new_messages)] == [False, True]


def test_middleware_can_abort_the_run_from_on_retry() -> None:
    with ScriptedModel(OverloadedError("busy")) as model:
        end = end_of(run_chat(RetryingModel(model), HI, (), [OneHook("on_retry", stop)]))
    assert end.abort is not None
    assert end.abort.kind == "middleware"


@pytest.mark.parametrize("at", ["step_finished", "run_finished"])
def test_abort_run_after_the_last_step_has_no_effect(at: str) -> None:
    def late(run: Any, chunk: StreamChunk) -> StreamChunk:
        if chunk.type == at:
            raise AbortRun("too late")
        return chunk

    end = end_of(run_chat(ScriptedModel("Hello"), HI, (), [OneHook("on_chunk", late)]))
    assert (end.reason, end.abort) == (FinishReason.END_TURN, None)


def test_abort_run_after_an_earlier_step_ends_the_run() -> None:
    def late(run: Any, chunk: StreamChunk) -> StreamChunk:
        if isinstance(chunk, StepFinished):
            raise AbortRun("enough")
        return chunk

    with ScriptedModel(turn(called("now"))) as model:
        end = end_of(run_chat(model, HI, [named("now")], [OneHook("on_chunk", late)]))
    assert end.abort is not None
    check_history(end.new_messages)


def test_an_abort_by_middleware_stops_reading_a_plain_generator() -> None:
    read: list[int] = []

    def chunks() -> Iterator[StreamChunk]:
        for n in range(1000):
            read.append(n)
            yield TextDelta("a")

    class Foreign:
        name, model = "foreign", "f"

        def chat_stream(self, req: ChatRequest) -> Any:
            return chunks()

    end = end_of(run_chat(Foreign(), HI, (), [OneHook("on_chunk", lambda run, chunk: stop() if read else chunk)]))
    assert (len(read), end.reason) == (1, FinishReason.ABORTED)


# Which objects are middleware


def test_an_object_with_one_hook_is_middleware() -> None:
    class Counts:
        chunks = 0

        def on_chunk(self, run: Any, chunk: StreamChunk) -> StreamChunk:
            self.chunks += 1
            return chunk

    counts = Counts()
    end_of(run_chat(ScriptedModel("Hello"), HI, (), [counts]))
    assert counts.chunks == 6


def test_hooks_of_the_base_class_are_not_called() -> None:
    run = run_chat(ScriptedModel("Hello"), HI, (), [Middleware()])
    assert not any(run._run._hooks[name] for name in [*HOOKS, *LAST, "on_retry"])
    run.close()


def test_a_class_in_place_of_an_object_is_refused() -> None:
    with pytest.raises(TypeError, match="methods of Middleware"):
        run_chat(ScriptedModel("Hello"), HI, (), [Seen])


def test_the_history_keeps_the_arguments_that_a_hook_and_a_tool_change_in_place() -> None:
    class Rewriting(Middleware):
        def __init__(self) -> None:
            self.seen: list[dict[str, Any]] = []

        def before_tool(self, run: RunInfo, call: ToolCallBlock) -> ToolCallBlock:
            call.args["items"].append(2)
            return call

        def after_tool(self, run: RunInfo, call: ToolCallBlock, result: ToolResultBlock) -> ToolResultBlock:
            self.seen.append(call.args)
            return result

    got: list[list[int]] = []

    def take(items: list[int]) -> None:
        got.append(list(items))
        items.clear()

    middleware = Rewriting()
    script = ScriptedModel(turn(called("take", items=[1])), "Done.")
    *chunks, end = run_chat(script, "Go.", [named("take", take)], [middleware])
    assert (got, middleware.seen) == ([[1, 2]], [{"items": [1, 2]}])
    assert isinstance(end, RunFinished)
    assert end.new_messages[0].blocks == (ToolCallBlock("c1", "take", {"items": [1]}),)
    assert [chunk.args for chunk in chunks if isinstance(chunk, ToolCallFinished)] == [{"items": [1]}]
