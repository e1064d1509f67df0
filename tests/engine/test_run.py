"""Runs: their chunks, tool calls, client-side tools, usage and errors."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Iterator
from contextvars import ContextVar
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from completion import (
    AbortRun,
    CancelToken,
    ChatRequest,
    CompletionError,
    ConfigurationError,
    FallbackModel,
    FinishReason,
    Message,
    OverloadedError,
    ProviderBlockFinished,
    RateLimitError,
    ReasoningDelta,
    ReasoningFinished,
    RetryConfig,
    RetryingModel,
    RunConfig,
    RunFinished,
    RunResult,
    RunStarted,
    RunStream,
    ServerError,
    StepFinished,
    StepStarted,
    StreamChunk,
    TextBlock,
    TextDelta,
    Tool,
    ToolCallBlock,
    ToolCallFinished,
    ToolChoice,
    ToolContext,
    ToolDefinition,
    ToolError,
    ToolResult,
    ToolResultBlock,
    TransportError,
    TruncatedStreamError,
    TurnFinished,
    Usage,
    run_chat,
)
from completion.engine.calls import MALFORMED_ARGUMENTS
from completion.testing import Cut, ProviderServer, Reply, ScriptedModel
from tests.loopback import END, HI, PATIENCE_S, Caught, model_of, text
from tests.runs import called, check_history, end_of, malformed, named, results_in, texts, turn


def used(inp: int, out: int) -> Usage:
    return Usage(input_tokens=inp, output_tokens=out)


# The chunks


def test_a_run_without_calls_has_one_step() -> None:
    chunks = list(run_chat(ScriptedModel(turn("Hello", usage=used(3, 1))), HI))
    started, step_started, delta, turn_finished, step_finished, end = chunks
    assert isinstance(started, RunStarted)
    assert started == RunStarted(started.run_id, "scripted", "scripted-1")
    assert isinstance(step_started, StepStarted)
    run_id, step_id = started.run_id, step_started.step_id
    messages = (Message.assistant("Hello"),)
    assert [step_started, delta, turn_finished, step_finished, end] == [
        StepStarted(run_id, step_id, 1),
        TextDelta("Hello"),
        TurnFinished(FinishReason.END_TURN, used(3, 1)),
        StepFinished(run_id, step_id, 1, used(3, 1), messages),
        RunFinished(run_id, FinishReason.END_TURN, used(3, 1), messages),
    ]


def test_the_chunks_of_all_turns_are_yielded_between_the_chunks_of_the_run() -> None:
    model = ScriptedModel(turn("Let me see.", called("now")), turn("Noon."))
    run = run_chat(model, HI, [named("now", lambda: "12:00")])
    assert [chunk.type for chunk in run] == [
        "run_started",
        "step_started",
        "text_delta",
        "tool_call_started",
        "tool_call_finished",
        "turn_finished",
        "tool_result",
        "step_finished",
        "step_started",
        "text_delta",
        "turn_finished",
        "step_finished",
        "run_finished",
    ]


def test_every_chunk_of_a_run_can_be_read_back_from_json() -> None:
    def stop() -> str:
        raise AbortRun("enough")

    model = ScriptedModel(turn(called("now"), malformed("now", "c2")), turn(called("stop")))
    chunks = list(run_chat(model, HI, [named("now"), named("stop", stop)]))
    assert [StreamChunk.from_json(chunk.to_json()) for chunk in chunks] == chunks


def test_the_new_messages_of_a_run_are_those_of_its_steps() -> None:
    model = ScriptedModel(turn("a", called("now")), turn("b", called("now")), turn("c"))
    chunks = list(run_chat(model, HI, [named("now")]))
    steps = [chunk for chunk in chunks if isinstance(chunk, StepFinished)]
    assert [[message.role for message in step.new_messages] for step in steps] == [
        ["assistant", "user"],
        ["assistant", "user"],
        ["assistant"],
    ]
    end = chunks[-1]
    assert isinstance(end, RunFinished)
    assert end.new_messages == tuple(message for step in steps for message in step.new_messages)


def test_the_next_request_contains_the_answer_and_the_tool_results() -> None:
    model = ScriptedModel(turn("Let me see.", called("add", a=1, b=2)), turn("3"))
    end_of(run_chat(model, HI, [named("add", lambda a, b: a + b)]))
    assert model.requests[1].messages == (
        Message.user("Hi"),
        Message.assistant([TextBlock("Let me see."), ToolCallBlock("c1", "add", {"a": 1, "b": 2})]),
        Message.user([ToolResultBlock("c1", "3")]),
    )


def test_the_tools_are_added_to_those_of_the_request() -> None:
    own = ToolDefinition("client", "", {})
    model = ScriptedModel(turn("Hello"))
    end_of(run_chat(model, ChatRequest("Hi", tools=[own]), [named("own")]))
    assert [tool.name for tool in model.requests[0].tools] == ["client", "own"]


def test_another_turn_follows_a_turn_with_calls_for_any_finish_reason() -> None:
    model = ScriptedModel(turn(called("now"), reason=FinishReason.MAX_TOKENS), turn("Noon."))
    assert end_of(run_chat(model, HI, [named("now")])).reason == FinishReason.END_TURN


REMOVE = ToolDefinition("remove", "", {"type": "object", "properties": {"folder": {"type": "string"}}})


@pytest.mark.parametrize("reason", [FinishReason.MAX_TOKENS, FinishReason.CONTENT_FILTER])
@pytest.mark.parametrize("is_client_call", [False, True], ids=["own", "client"])
def test_a_call_that_was_cut_off_before_its_arguments_does_not_run(reason: FinishReason, is_client_call: bool) -> None:
    ran: list[str] = []
    tools = [] if is_client_call else [Tool(REMOVE, lambda folder="everything": ran.append(folder))]
    request = ChatRequest("Hi", tools=[REMOVE] if is_client_call else [])
    end = end_of(run_chat(ScriptedModel(turn(called("remove"), reason=reason), turn("ok")), request, tools))
    told = "The answer was cut off before the arguments of this call. Call remove again."
    assert (ran, texts(end.new_messages), end.reason) == ([], [told], FinishReason.END_TURN)


def test_only_the_last_call_of_a_turn_was_cut_off() -> None:
    calls = [*called("remove", "a"), *called("remove", "b", folder="tmp")]
    model = ScriptedModel(turn(calls, reason=FinishReason.MAX_TOKENS), turn("ok"))
    tools = [Tool(REMOVE, lambda folder="everything": folder)]
    assert texts(end_of(run_chat(model, HI, tools)).new_messages) == ["everything", "tmp"]


@pytest.mark.parametrize("reason", [FinishReason.MAX_TOKENS, FinishReason.REFUSAL])
def test_a_turn_without_calls_ends_the_run_with_its_reason(reason: FinishReason) -> None:
    with ScriptedModel(turn("Hm.", reason=reason)) as model:
        end = end_of(run_chat(model, HI))
    assert (end.reason, end.abort) == (reason, None)


def test_an_empty_turn_adds_no_message() -> None:
    end = end_of(run_chat(ScriptedModel(turn()), HI))
    assert (end.new_messages, end.reason) == ((), FinishReason.END_TURN)


def test_reasoning_without_an_answer_is_not_in_the_history() -> None:
    thought = [ReasoningDelta("Hm"), ReasoningFinished("signed")]
    end = end_of(run_chat(ScriptedModel(turn(thought, reason=FinishReason.MAX_TOKENS)), HI))
    assert end.new_messages == ()


def test_provider_blocks_keep_their_position() -> None:
    model = ScriptedModel(turn("a", [ProviderBlockFinished("anthropic", {"type": "x"})], called("now")), turn("b"))
    answer = end_of(run_chat(model, HI, [named("now")])).new_messages[0]
    assert [block.type for block in answer.blocks] == ["text", "provider", "tool_call"]


# Collecting


def test_collect_returns_the_result_of_the_run() -> None:
    model = ScriptedModel(turn("Let me see.", called("now"), usage=used(5, 2)), turn("Noon.", usage=used(9, 1)))
    run = run_chat(model, HI, [named("now")])
    result = run.collect()
    assert (result.run_id, result.text, result.reason) == (run.run_id, "Noon.", FinishReason.END_TURN)
    assert (result.usage, len(result.new_messages), result.abort) == (used(14, 3), 3, None)
    assert RunResult.from_json(result.to_json()) == result


def test_a_run_that_was_read_cannot_be_collected() -> None:
    run = run_chat(ScriptedModel("Hello"), HI)
    next(run)
    with pytest.raises(RuntimeError, match="read from or closed before"):
        run.collect()


# Tools


def test_the_calls_of_a_turn_run_in_parallel_and_are_answered_in_the_order_of_the_model() -> None:
    second_is_done = threading.Event()

    def first() -> str:
        assert second_is_done.wait(PATIENCE_S)
        return "first"

    def second() -> str:
        second_is_done.set()
        return "second"

    model = ScriptedModel(turn(called("first", "a"), called("second", "b")), turn("ok"))
    chunks = list(run_chat(model, HI, [named("first", first), named("second", second)]))
    assert [chunk.call_id for chunk in chunks if isinstance(chunk, ToolResult)] == ["a", "b"]
    end = chunks[-1]
    assert isinstance(end, RunFinished)
    check_history(end.new_messages)


def test_at_most_parallel_tools_run_at_the_same_time() -> None:
    running, most, lock = 0, 0, threading.Lock()
    together = threading.Barrier(2)

    def tool() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        together.wait(PATIENCE_S)
        with lock:
            running -= 1
        together.wait(PATIENCE_S)

    model = ScriptedModel(turn(*(called("tool", f"c{n}") for n in range(6))), turn("ok"))
    end_of(run_chat(model, HI, [named("tool", tool)], config=RunConfig(parallel_tools=2)))
    assert most == 2


def test_a_result_is_yielded_before_later_calls_have_ended() -> None:
    may_continue = threading.Event()
    model = ScriptedModel(turn(called("fast", "a"), called("slow", "b")), turn("ok"))
    run = run_chat(model, HI, [named("fast"), named("slow", lambda: may_continue.wait(PATIENCE_S))])
    assert next(chunk for chunk in run if isinstance(chunk, ToolResult)).call_id == "a"
    may_continue.set()
    assert end_of(run).reason == FinishReason.END_TURN


def broken() -> None:
    raise KeyError("no such city")


def refused() -> None:
    raise ToolError("Give a city in Europe.")


def exits() -> None:
    raise SystemExit(1)


@pytest.mark.parametrize(
    ("steps", "read"),
    [
        (called("broken"), "KeyError: 'no such city'"),
        (called("refused"), "Give a city in Europe."),
        (called("exits"), "SystemExit: 1"),
        (called("unknown"), "There is no tool 'unknown'. The tools are: client, broken, refused, exits."),
        (
            malformed("broken"),
            "The arguments are not a JSON object: it ends too early. Call broken again with valid JSON.",
        ),
        (
            malformed("client"),
            "The arguments are not a JSON object: it ends too early. Call client again with valid JSON.",
        ),
    ],
)
def test_every_error_of_a_call_is_a_result_for_the_model(steps: list[Any], read: str) -> None:
    tools = [named("broken", broken), named("refused", refused), named("exits", exits)]
    model = ScriptedModel(turn(steps), turn("I see."))
    end = end_of(run_chat(model, ChatRequest("Hi", tools=[ToolDefinition("client", "", {})]), tools))
    assert texts(end.new_messages) == [read]
    assert results_in(end.new_messages)[0].is_error
    check_history(end.new_messages)


def test_for_arguments_cut_off_by_max_tokens_the_result_asks_for_shorter_ones() -> None:
    model = ScriptedModel(turn(malformed("write"), reason=FinishReason.MAX_TOKENS), turn("I see."))
    end = end_of(run_chat(model, HI, [named("write")]))
    assert texts(end.new_messages) == [
        "The answer reached its token limit inside these arguments. Call write with shorter arguments."
    ]


def test_malformed_calls_keep_their_position_in_the_history() -> None:
    steps = turn(called("now", "a"), malformed("now", "b", "{oops"), called("now", "c"), malformed("now", "d"))
    end = end_of(run_chat(ScriptedModel(steps, turn("ok")), HI, [named("now")]))
    calls = [block for block in end.new_messages[0].blocks if isinstance(block, ToolCallBlock)]
    assert [call.call_id for call in calls] == ["a", "b", "c", "d"]
    assert calls[1].args == {MALFORMED_ARGUMENTS: "{oops"}
    check_history(end.new_messages)


def test_two_calls_with_the_same_id_get_different_ids() -> None:
    model = ScriptedModel(turn(called("now", "a"), called("now", "a"), called("now", "a_2")), turn("ok"))
    end = end_of(run_chat(model, HI, [named("now")]))
    assert [result.call_id for result in results_in(end.new_messages)] == ["a", "a_2", "a_2_2"]
    check_history(end.new_messages)


def test_a_tool_that_hangs_is_cancelled_and_does_not_block_the_others() -> None:
    release = threading.Event()
    came_back: list[bool] = []
    tools = [named("hangs", lambda: came_back.append(release.wait(PATIENCE_S)), timeout=0.05), named("works")]
    model = ScriptedModel(turn(called("hangs", "a"), called("works", "b")), turn(called("works")), turn("ok"))
    end = end_of(run_chat(model, HI, tools, config=RunConfig(parallel_tools=1)))
    assert texts(end.new_messages) == ["hangs took longer than 0.05 s and was cancelled.", "fine", "fine"]
    assert came_back == []
    release.set()


def test_the_token_of_a_tool_is_cancelled_at_its_timeout() -> None:
    cancelled = threading.Event()

    def waits(context: ToolContext) -> None:
        context.token.on_cancel(cancelled.set)
        assert cancelled.wait(PATIENCE_S)

    tools = [named("waits", waits, timeout=0.05), named("looks", lambda: cancelled.wait(PATIENCE_S))]
    model = ScriptedModel(turn(called("waits", "a"), called("looks", "b")), turn("ok"))
    assert texts(end_of(run_chat(model, HI, tools)).new_messages)[1] == "true"


def test_the_context_of_a_tool_has_the_ids_of_its_call() -> None:
    seen: list[ToolContext] = []

    def looks(context: ToolContext) -> None:
        seen.append(context)

    chunks = list(run_chat(ScriptedModel(turn(called("looks", "c7")), turn("ok")), HI, [named("looks", looks)]))
    started = chunks[1]
    assert isinstance(started, StepStarted)
    assert [(one.run_id, one.step_id, one.call_id) for one in seen] == [(started.run_id, started.step_id, "c7")]


def test_a_tool_sees_the_context_variables_of_the_reader() -> None:
    user: ContextVar[str] = ContextVar("user", default="nobody")
    model = ScriptedModel(turn(called("who")), turn("ok"))
    run = run_chat(model, HI, [named("who", user.get)])
    user.set("Ada")
    assert texts(end_of(run).new_messages) == ["Ada"]


# Client-side tools


CLIENT = ChatRequest("Hi", tools=[ToolDefinition("client", "", {})])


def test_a_call_of_a_client_side_tool_ends_the_run_and_is_not_answered() -> None:
    with ScriptedModel(turn(called("client"))) as model:
        end = end_of(run_chat(model, CLIENT, [named("own")]))
    assert (end.reason, results_in(end.new_messages), end.abort) == (FinishReason.TOOL_USE, [], None)
    check_history(end.new_messages, left=["c1"])


def test_other_calls_next_to_one_of_a_client_side_tool_are_answered() -> None:
    with ScriptedModel(turn(called("own", "a"), called("client", "b"), called("own", "c"))) as model:
        end = end_of(run_chat(model, CLIENT, [named("own")]))
    assert [result.call_id for result in results_in(end.new_messages)] == ["a", "c"]
    check_history(end.new_messages, left=["b"])


def test_a_tool_of_the_request_that_has_a_function_is_answered() -> None:
    now = named("now")
    request = ChatRequest("Hi", tools=[now.definition], tool_choice=ToolChoice.tool("now"))
    model = ScriptedModel(turn(called("now")), turn("ok"))
    assert end_of(run_chat(model, request, [now])).reason == FinishReason.END_TURN
    assert [tool.name for tool in model.requests[0].tools] == ["now"]


@pytest.mark.parametrize("forced", [ToolChoice.any(), ToolChoice.tool("now")])
def test_tool_choice_forces_a_call_in_the_first_turn_only(forced: ToolChoice) -> None:
    now = named("now")
    model = ScriptedModel(turn(called("now")), turn(called("now")), turn("ok"))
    end_of(run_chat(model, ChatRequest("Hi", tools=[now.definition], tool_choice=forced), [now]))
    assert [request.tool_choice for request in model.requests] == [forced, ToolChoice.auto(), ToolChoice.auto()]


def test_tool_choice_none_applies_to_every_turn() -> None:
    model = ScriptedModel(turn(called("now")), turn("ok"))
    end_of(run_chat(model, ChatRequest("Hi", tool_choice=ToolChoice.none()), [named("now")]))
    assert model.requests[1].tool_choice == ToolChoice.none()


# Usage


def test_usage_adds_up_over_turns_and_tools() -> None:
    def costly(context: ToolContext) -> None:
        context.report_usage(used(100, 10))
        context.report_usage(used(100, 10))

    model = ScriptedModel(
        turn(called("costly", "a"), called("costly", "b"), usage=used(5, 2)),
        turn(called("costly")),  # without usage
        turn("ok", usage=used(9, 1)),
    )
    chunks = list(run_chat(model, HI, [named("costly", costly)]))
    steps = [chunk.usage for chunk in chunks if isinstance(chunk, StepFinished)]
    assert steps == [used(405, 42), used(200, 20), used(9, 1)]
    end = chunks[-1]
    assert isinstance(end, RunFinished)
    assert end.usage == used(614, 63)


def test_the_usage_that_a_tool_reports_counts_even_if_it_fails_or_times_out() -> None:
    hang = threading.Event()

    def fails(context: ToolContext) -> None:
        context.report_usage(used(1, 0))
        raise ValueError("no")

    def hangs(context: ToolContext) -> None:
        context.report_usage(used(10, 0))
        hang.wait(PATIENCE_S)

    model = ScriptedModel(turn(called("fails", "a"), called("hangs", "b")), turn("ok"))
    end = end_of(run_chat(model, HI, [named("fails", fails), named("hangs", hangs, timeout=0.1)]))
    hang.set()
    assert end.usage == used(11, 0)


# Errors


def test_run_chat_raises_an_error_of_the_first_turn() -> None:
    with pytest.raises(OverloadedError, match="busy") as caught:
        run_chat(ScriptedModel(OverloadedError("busy")), HI)
    assert (caught.value.partial_messages, caught.value.usage) == ((), Usage())


def test_an_error_of_a_later_turn_has_the_messages_of_the_finished_steps() -> None:
    model = ScriptedModel(turn("a", called("now"), usage=used(5, 2)), ServerError("oops"))
    run = run_chat(model, HI, [named("now")])
    with pytest.raises(ServerError) as caught:
        list(run)
    assert caught.value.usage == used(5, 2)
    assert caught.value.partial_messages is not None
    assert [message.role for message in caught.value.partial_messages] == ["assistant", "user"]
    check_history(caught.value.partial_messages)
    assert list(run) == []


def test_an_error_inside_a_turn_has_the_partial_turn(server: ProviderServer) -> None:
    server.reply(Reply(text("Hel"), Cut()))
    with pytest.raises(TransportError) as caught:
        run_chat(model_of(server), HI).collect()
    assert caught.value.partial is not None
    assert caught.value.partial.text == "Hel"
    assert caught.value.partial_messages == ()


def test_a_turn_without_turn_finished_is_an_error() -> None:
    def chunks() -> Iterator[StreamChunk]:
        yield TextDelta("Hel")

    class Foreign:
        name, model = "foreign", "f"

        def chat_stream(self, req: ChatRequest) -> Any:
            return chunks()

    with pytest.raises(TruncatedStreamError):
        run_chat(Foreign(), HI).collect()


def test_an_error_after_a_turn_includes_the_usage_of_the_turn() -> None:
    class Fails:
        def before_tool(self, run: Any, call: Any) -> Any:
            raise ValueError("no")

    with pytest.raises(ValueError, match="no") as caught:
        run_chat(ScriptedModel(turn(called("now"), usage=used(5, 2))), HI, [named("now")], [Fails()]).collect()
    assert caught.value.usage == used(5, 2)  # type: ignore[attr-defined]


def test_an_error_includes_the_usage_that_unfinished_tools_reported() -> None:
    reported = threading.Event()

    def costly(context: ToolContext) -> None:
        context.report_usage(used(100, 10))
        reported.set()
        context.token.sleep(PATIENCE_S)

    class Fails:
        def after_tool(self, run: Any, call: Any, result: Any) -> Any:
            assert reported.wait(PATIENCE_S)
            raise ValueError("no")

    model = ScriptedModel(turn(called("now", "a"), called("costly", "b"), usage=used(5, 2)))
    with pytest.raises(ValueError, match="no") as caught:
        run_chat(model, HI, [named("now"), named("costly", costly)], [Fails()]).collect()
    assert caught.value.usage == used(105, 12)  # type: ignore[attr-defined]


def test_an_error_of_a_run_can_be_pickled() -> None:
    model = ScriptedModel(turn("a", called("now"), usage=used(5, 2)), [TextDelta("b"), RateLimitError("slow down")])
    with pytest.raises(RateLimitError) as caught:
        run_chat(model, HI, [named("now")]).collect()
    error = pickle.loads(pickle.dumps(caught.value))
    assert (error.partial_messages, error.usage) == (caught.value.partial_messages, used(5, 2))
    assert error.partial.text == "b"


@pytest.mark.parametrize("scripts", [[OverloadedError("busy")], [turn(called("now")), OverloadedError("busy")]])
def test_our_frames_in_a_traceback_do_not_contain_the_prompt(scripts: list[Any]) -> None:
    with pytest.raises(OverloadedError) as caught:
        run_chat(ScriptedModel(*scripts), ChatRequest("a secret"), [named("now")]).collect()
    trace, variables = caught.value.__traceback__, []
    while trace is not None:
        if "/completion/engine/" in trace.tb_frame.f_code.co_filename:
            variables.append(repr(trace.tb_frame.f_locals))
        trace = trace.tb_next
    assert variables
    assert not [text for text in variables if "a secret" in text]


def test_a_mid_stream_error_has_the_attempts_of_a_retrying_model(server: ProviderServer) -> None:
    server.reply(Reply.json({"error": {"message": "busy"}}, status=503), Reply(text("Hel"), Cut()))
    model = RetryingModel(model_of(server), RetryConfig(base_delay=0.001))
    with pytest.raises(TransportError) as caught:
        run_chat(model, HI).collect()
    assert caught.value.attempts == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"tools": [print]}, "decorated with @tool"),
        ({"tools": [named("a"), named("a")]}, "two tools have the name 'a'"),
        ({"request": CLIENT, "tools": [named("client")]}, "two tools have the name 'client'"),
        ({"config": {}}, "run_chat: config= must be a RunConfig, got dict"),
        ({"middleware": [object()]}, "methods of Middleware"),
        ({"request": ["Hi"]}, "the request must be a ChatRequest or a string"),
        ({"model": object()}, "run_chat"),
    ],
)
def test_invalid_arguments_are_refused_before_anything_is_sent(arguments: dict[str, Any], words: str) -> None:
    model = ScriptedModel("Hello")
    with pytest.raises((TypeError, ValueError), match=words):
        run_chat(**{"model": model, "request": HI, **arguments})
    assert model.requests == []


@pytest.mark.parametrize(
    "options",
    [
        {"max_iterations": 0},
        {"max_iterations": None},
        {"max_iterations": True},
        {"max_tokens": 0},
        {"timeout": 0},
        {"timeout": float("nan")},
        {"timeout": True},
        {"parallel_tools": 0},
        {"parallel_tools": 1.5},
    ],
)
def test_invalid_limits_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"RunConfig.{next(iter(options))} must be"):
        RunConfig(**options)


# Runs in several threads, and inside each other


def test_a_run_can_be_read_in_another_thread(server: ProviderServer) -> None:
    server.reply(Reply(text("Hello"), END))
    run = run_chat(model_of(server), HI)
    assert Caught(run.collect).within(PATIENCE_S).result.text == "Hello"


def test_many_runs_share_tools_and_middleware() -> None:
    class Counts:
        def __init__(self) -> None:
            self.calls: list[str] = []

        def after_tool(self, run: Any, call: Any, result: ToolResultBlock) -> ToolResultBlock:
            self.calls.append(run.run_id)
            return result

    counts, together = Counts(), threading.Barrier(20)
    tool = named("meet", lambda who: (together.wait(PATIENCE_S), who)[1])

    def one(n: int) -> RunResult:
        model = ScriptedModel(turn(called("meet", who=n)), turn(called("meet", who=-n)), turn("ok"))
        return run_chat(model, HI, [tool], [counts]).collect()

    results = [thread.within(PATIENCE_S).result for thread in [Caught(partial(one, n)) for n in range(20)]]
    assert [texts(result.new_messages) for result in results] == [[str(n), str(-n)] for n in range(20)]
    assert sorted(counts.calls) == sorted(result.run_id for result in results for _ in range(2))


def test_a_tool_may_run_another_model() -> None:
    inner = ScriptedModel(turn("42", usage=used(7, 3)))

    def ask(context: ToolContext) -> str:
        result = run_chat(inner, HI).collect()
        context.report_usage(result.usage)
        return result.text

    end = end_of(run_chat(ScriptedModel(turn(called("ask")), turn("ok")), HI, [named("ask", ask)]))
    assert (texts(end.new_messages), end.usage) == (["42"], used(7, 3))


def test_the_response_of_a_run_is_the_response_of_its_first_turn(server: ProviderServer) -> None:
    server.reply(Reply(text("Hello"), END, headers={"x-request-id": "req_1"}))
    run = run_chat(model_of(server), HI)
    with run:
        assert run.response.request_id == "req_1"
    assert repr(run) == f"<RunStream over, {run.run_id}>"
    assert isinstance(run, RunStream)


# Any calls of a model, and any behaviour of tools


def aborts() -> None:
    raise AbortRun("enough")


def nested() -> Any:
    raise CompletionError("nested")


TOOLS = [
    named("fine"),
    named("empty", lambda: ""),
    named("broken", broken),
    named("refused", refused),
    named("nested", nested),
    named("aborts", aborts),
]
NAMES = st.sampled_from([*(tool.name for tool in TOOLS), "unknown", "client"])
IDS = st.sampled_from(["a", "b", "a_2", "call 1", "é"])
PIECES = st.one_of(
    st.builds(called, NAMES, IDS),
    st.builds(malformed, NAMES, IDS, st.sampled_from(["{", "[1]", '{"a": 1', "null"])),
    st.text(min_size=1, max_size=3).map(lambda delta: [TextDelta(delta)]),
    st.sampled_from([[ReasoningDelta("Hm"), ReasoningFinished("s")], [ReasoningFinished(None)]]),
)
REASONS = st.sampled_from([None, FinishReason.MAX_TOKENS, FinishReason.PAUSE, FinishReason.REFUSAL])
TURNS = st.builds(lambda pieces, reason: turn(*pieces, reason=reason), st.lists(PIECES, max_size=6), REASONS)


@settings(max_examples=150)
@given(st.lists(TURNS, min_size=1, max_size=4), st.integers(1, 4), st.integers(0, 40))
def test_the_history_is_valid_for_any_calls_and_tool_results(
    turns: list[Any], iterations: int, cancelled_after: int
) -> None:
    request = ChatRequest("Hi", tools=[ToolDefinition("client", "", {})])
    run = run_chat(ScriptedModel(*turns, turn("The end.")), request, TOOLS, config=RunConfig(max_iterations=iterations))
    chunks: list[StreamChunk] = []
    for chunk in run:
        chunks.append(chunk)
        if len(chunks) == cancelled_after:
            run.cancel()
    end = chunks[-1]
    assert isinstance(end, RunFinished)
    steps = [chunk for chunk in chunks if isinstance(chunk, StepFinished)]
    assert end.new_messages == tuple(message for step in steps for message in step.new_messages)
    yielded = [chunk.call_id for chunk in chunks if isinstance(chunk, ToolResult)]
    assert sorted(yielded) == sorted(result.call_id for result in results_in(end.new_messages))
    answered = {result.call_id for result in results_in(steps[-1].new_messages)} if steps else set()
    last = steps[-1].new_messages[:1] if steps else ()
    calls = [block for message in last for block in message.blocks if isinstance(block, ToolCallBlock)]
    open_calls = [call.call_id for call in calls if call.call_id not in answered]
    names = {call.name for call in calls if call.call_id in open_calls}
    assert not open_calls or (end.abort is None and names == {"client"})
    check_history(end.new_messages, left=open_calls)


def test_a_finished_run_leaves_no_callback_on_the_callers_token() -> None:
    with CancelToken() as token:
        end_of(run_chat(ScriptedModel(turn(called("now")), turn("ok")), HI, [named("now")]))
        assert not token._wakers


def test_a_finished_step_leaves_no_callback_on_the_token_of_the_run() -> None:
    run = run_chat(ScriptedModel(turn(called("now", "a"), called("now", "b")), turn("ok")), HI, [named("now")])
    while not isinstance(next(run), StepFinished):
        pass
    assert not run._run.ending.token._wakers
    run.close()


def test_a_plain_tool_needs_only_a_definition_and_a_function() -> None:
    tool = Tool(ToolDefinition("add", "Adds.", {"type": "object"}), lambda a, b: {"sum": a + b})
    model = ScriptedModel(turn(called("add", a=1, b=2)), turn("3"))
    assert texts(end_of(run_chat(model, HI, [tool])).new_messages) == ['{"sum": 3}']


def test_calls_are_yielded_as_the_model_made_them() -> None:
    model = ScriptedModel(turn(called("add", a=1)), turn("3"))
    chunks = list(run_chat(model, HI, [named("add", lambda a: a)]))
    assert ToolCallFinished("c1", "add", {"a": 1}) in chunks


def test_a_run_with_a_tool_fails_clearly_if_no_thread_can_start_and_the_next_run_works() -> None:
    model = ScriptedModel(turn(called("now")), turn(called("now")), turn("done"))
    before = threading.active_count()
    usual_size = threading.stack_size(1 << 46)  # more than the address space
    try:
        with pytest.raises(ConfigurationError, match=r"no more threads .*: run less at a time") as caught:
            list(run_chat(model, HI, [named("now")]))
    finally:
        threading.stack_size(usual_size)
    assert caught.value.__cause__ is not None
    assert threading.active_count() == before
    assert list(run_chat(model, HI, [named("now")]))[-1].type == "run_finished"


def test_a_run_with_a_timeout_fails_clearly_if_no_thread_can_start() -> None:
    usual_size = threading.stack_size(1 << 46)
    try:
        with pytest.raises(ConfigurationError, match="no more threads"):
            run_chat(ScriptedModel(turn("never")), HI, config=RunConfig(timeout=60))
    finally:
        threading.stack_size(usual_size)


class Returns:
    """A model of a third party that returns this object."""

    name, model = "third", "party"

    def __init__(self, returned: Any) -> None:
        self._returned = returned

    def chat_stream(self, req: ChatRequest | str) -> Any:
        return self._returned


@pytest.mark.parametrize("wrap", [lambda model: model, RetryingModel, lambda model: FallbackModel([model])])
def test_a_model_of_a_third_party_may_return_a_list_and_a_wrong_type_is_named(wrap: Any) -> None:
    chunks = [TextDelta("Yes."), TurnFinished(FinishReason.END_TURN)]
    assert run_chat(wrap(Returns(chunks)), "Hi").collect().text == "Yes."
    for wrong in (None, "Yes."):
        with pytest.raises(
            TypeError, match=f"chat_stream must return an iterator of chunks, got {type(wrong).__name__}"
        ):
            run_chat(wrap(Returns(wrong)), "Hi").collect()
