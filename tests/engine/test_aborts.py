"""Aborting a run: in every phase, quickly, with a valid history, and without leaving threads behind."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from completion import (
    AbortRun,
    CancelToken,
    ChatRequest,
    FinishReason,
    OverloadedError,
    ReasoningDelta,
    ReasoningFinished,
    RetryConfig,
    RetryingModel,
    RunConfig,
    RunFinished,
    RunStream,
    StepFinished,
    StreamChunk,
    TextDelta,
    Timeout,
    ToolCallArgsDelta,
    ToolCallStarted,
    ToolContext,
    ToolDefinition,
    ToolResult,
    TransportError,
    Usage,
    run_chat,
)
from completion.testing import Pause, ProviderServer, Reply, ScriptedModel, Stall, WaitFor, event
from completion.testing.scripted import Step
from tests.loopback import END, HI, PATIENCE_S, Caught, model_at, model_of, silent_listener, text
from tests.runs import Seen, called, check_history, end_of, malformed, named, results_in, texts, turn

SOON_S = 3.0  # what blocks in these tests would take much longer
"""We promise 0.1 s; the rest is for a busy machine."""


@contextmanager
def no_threads_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    deadline = time.monotonic() + PATIENCE_S
    while left := [one for one in threading.enumerate() if one.name.startswith("completion-") and one not in before]:
        assert time.monotonic() < deadline, f"still running: {left}"
        left[0].join(0.1)


def aborted(run: Any, *, kind: str = "cancelled") -> RunFinished:
    end = run[-1] if isinstance(run, list) else end_of(run)
    assert isinstance(end, RunFinished)
    assert end.abort is not None
    assert (end.reason, end.abort.kind) == (FinishReason.ABORTED, kind)
    check_history(end.new_messages)
    return end


def cancelled_quickly(
    run: RunStream, is_blocked: Callable[[float], bool], cancel: Callable[[], None] | None = None
) -> RunFinished:
    """Read the run in a thread, cancel it from this one when it is blocked, and return its last chunk."""
    reader = Caught(lambda: list(run))
    assert is_blocked(PATIENCE_S)
    began = time.monotonic()
    (cancel or run.cancel)()
    chunks = reader.within(PATIENCE_S).result
    assert time.monotonic() - began < SOON_S
    return aborted(chunks)


class WaitsFor:
    """Middleware with an event that is set when a chunk of this type arrives."""

    def __init__(self, kind: str) -> None:
        self.has_arrived = threading.Event()
        self._kind = kind

    def on_chunk(self, run: Any, chunk: StreamChunk) -> StreamChunk:
        if chunk.type == self._kind:
            self.has_arrived.set()
        return chunk


# cancel() in every phase


def test_cancelling_before_the_first_read() -> None:
    run = run_chat(ScriptedModel("Hello"), HI)
    run.cancel()
    chunks = list(run)
    assert [chunk.type for chunk in chunks] == ["run_started", "step_started", "step_finished", "run_finished"]
    assert aborted(chunks).new_messages == ()


def test_cancelling_while_the_first_turn_opens(server: ProviderServer) -> None:
    server.reply(Reply(before_headers=[Stall()]))
    token = CancelToken()

    def opens() -> list[StreamChunk]:
        with token:
            return list(run_chat(model_of(server), HI))

    reader = Caught(opens)
    assert server.wait_for_requests(1)
    began = time.monotonic()
    token.cancel()
    chunks = reader.within(PATIENCE_S).result
    assert time.monotonic() - began < SOON_S
    assert [chunk.type for chunk in chunks] == ["run_started", "run_finished"]
    aborted(chunks)


def test_cancelling_while_the_model_sends_nothing(server: ProviderServer) -> None:
    server.reply(Reply(text("Hel"), Stall()))
    text_delta = WaitsFor("text_delta")
    end = cancelled_quickly(run_chat(model_of(server), HI, (), [text_delta]), text_delta.has_arrived.wait)
    assert end.new_messages[0].text == "Hel"
    assert server.wait_hung_up(PATIENCE_S)


def test_cancelling_inside_the_arguments_of_a_call_drops_the_call() -> None:
    steps: list[Step] = [
        *turn("Let me see.")[:-1],
        ToolCallStarted("c1", "now"),
        ToolCallArgsDelta("c1", '{"a'),
        Pause(PATIENCE_S),
    ]
    args = WaitsFor("tool_call_args_delta")
    end = cancelled_quickly(run_chat(ScriptedModel(steps), HI, [named("now")], [args]), args.has_arrived.wait)
    assert [block.type for block in end.new_messages[0].blocks] == ["text"]


def test_calls_of_an_interrupted_turn_are_answered_but_not_run() -> None:
    made: list[int] = []
    steps: list[Step] = [
        *called("now", "a"),
        *malformed("now", "b"),
        *called("client", "c"),
        TextDelta("x"),
        Pause(PATIENCE_S),
    ]
    request = ChatRequest("Hi", tools=[ToolDefinition("client", "", {})])
    text_delta = WaitsFor("text_delta")
    run = run_chat(ScriptedModel(steps), request, [named("now", lambda: made.append(1))], [text_delta])
    end = cancelled_quickly(run, text_delta.has_arrived.wait)
    assert [result.call_id for result in results_in(end.new_messages)] == ["a", "b", "c"]
    assert texts(end.new_messages)[0] == "This call was not run: the run was cancelled."
    assert made == []


def test_interrupted_reasoning_is_not_in_the_history() -> None:
    steps: list[Step] = [ReasoningDelta("a"), ReasoningFinished("signed"), ReasoningDelta("b"), Pause(PATIENCE_S)]
    run = run_chat(ScriptedModel(steps), HI)
    for _ in range(5):
        last = next(run)
    assert last == ReasoningDelta("b")
    run.cancel()
    assert aborted(run).new_messages == ()


def test_cancelling_while_tools_run() -> None:
    begun, cancelled = threading.Event(), threading.Event()

    def waits(context: ToolContext) -> None:
        context.token.on_cancel(cancelled.set)
        begun.set()
        cancelled.wait(PATIENCE_S)

    model = ScriptedModel(turn(called("fast", "a"), called("waits", "b"), called("waits", "c")))
    with no_threads_left():
        run = run_chat(model, HI, [named("fast"), named("waits", waits)], config=RunConfig(parallel_tools=1))
        end = cancelled_quickly(run, begun.wait)
    assert cancelled.is_set()
    first, second, third = texts(end.new_messages)
    assert first == "fine"
    assert second == "This call was interrupted, and its effects are unknown: the run was cancelled."
    assert third == "This call was not run: the run was cancelled."


def test_cancelling_does_not_wait_for_a_tool_that_hangs() -> None:
    begun, release = threading.Event(), threading.Event()

    def hangs() -> None:
        threading.Timer(0.05, begun.set).start()  # a delay: nothing shows that the reader waits
        release.wait(PATIENCE_S)

    cancelled_quickly(run_chat(ScriptedModel(turn(called("hangs"))), HI, [named("hangs", hangs)]), begun.wait)
    release.set()


def test_cancelling_keeps_the_results_that_are_ready() -> None:
    begun, fast_is_done = threading.Event(), threading.Event()

    def hangs(context: ToolContext) -> None:
        assert fast_is_done.wait(PATIENCE_S)
        begun.set()
        context.token.sleep(PATIENCE_S)

    def fast() -> str:
        threading.Timer(0.05, fast_is_done.set).start()
        return "fast"

    model = ScriptedModel(turn(called("hangs", "a"), called("fast", "b")))
    end = cancelled_quickly(run_chat(model, HI, [named("hangs", hangs), named("fast", fast)]), begun.wait)
    assert texts(end.new_messages)[1] == "fast"


def test_cancelling_reaches_a_tool_even_if_the_run_is_not_being_read() -> None:
    cancelled = threading.Event()

    def waits(context: ToolContext) -> None:
        context.token.on_cancel(cancelled.set)
        cancelled.wait(PATIENCE_S)

    model = ScriptedModel(turn(called("fast", "a"), called("waits", "b")))
    run = run_chat(model, HI, [named("fast"), named("waits", waits)])
    while not isinstance(next(run), ToolResult):
        pass
    run.cancel()
    assert cancelled.wait(PATIENCE_S)
    aborted(run)


@pytest.mark.parametrize("nested", ["run", "stream"])
def test_cancelling_a_run_cancels_the_model_calls_of_its_tools(nested: str, server: ProviderServer) -> None:
    server.reply(Reply(text("Hel"), Stall()))
    inner: list[Any] = []

    def ask() -> str:
        model = model_of(server)
        stream = run_chat(model, HI) if nested == "run" else model.chat_stream(HI)
        inner.append(stream.collect())
        return "never"

    run = run_chat(ScriptedModel(turn(called("ask"))), HI, [named("ask", ask)])
    reader = Caught(lambda: list(run))
    assert server.wait_for_requests(1)
    run.cancel()
    aborted(reader.within(PATIENCE_S).result)
    assert server.wait_hung_up(PATIENCE_S)


def test_cancelling_between_two_steps_sends_no_further_request() -> None:
    with ScriptedModel(turn(called("now"))) as model:
        run = run_chat(model, HI, [named("now")])
        while not isinstance(next(run), StepFinished):
            pass
        run.cancel()
        chunks = list(run)
    assert [chunk.type for chunk in chunks] == ["run_finished"]
    assert texts(aborted(chunks).new_messages) == ["fine"]


def test_cancelling_while_a_later_turn_opens(server: ProviderServer) -> None:
    call = {"index": 0, "id": "c1", "function": {"name": "now", "arguments": "{}"}}
    reply = event(
        {"id": "c", "choices": [{"index": 0, "delta": {"tool_calls": [call]}, "finish_reason": "tool_calls"}]}
    )
    server.reply(Reply(reply, event("[DONE]")), Reply(before_headers=[Stall()]))
    run = run_chat(model_of(server), HI, [named("now")])
    end = cancelled_quickly(run, lambda seconds: server.wait_for_requests(2, seconds))
    assert texts(end.new_messages) == ["fine"]


def test_cancelling_while_a_retry_waits() -> None:
    sleeping = threading.Event()
    model = RetryingModel(ScriptedModel(turn(called("now")), OverloadedError("busy", retry_after=50.0)))

    class Retries:
        def on_retry(self, run: Any, event: Any) -> None:
            sleeping.set()

    cancelled_quickly(run_chat(model, HI, [named("now")], [Retries()]), sleeping.wait)


@pytest.mark.parametrize("hook", ["on_chunk", "before_tool", "after_tool", "on_turn_finished", "on_request"])
def test_cancelling_from_a_hook(hook: str) -> None:
    class Cancels:
        pass

    def cancels(info: Any, *facts: Any) -> Any:
        info.token.cancel()
        return facts[-1] if hook != "on_turn_finished" else None

    setattr(Cancels, hook, staticmethod(cancels))
    model = ScriptedModel(turn(called("now", "a"), called("now", "b")), turn())
    aborted(run_chat(model, HI, [named("now")], [Cancels()]))


def test_cancelling_from_a_tool() -> None:
    run: RunStream = run_chat(ScriptedModel(turn(called("off")), turn()), HI, [named("off", lambda: run.cancel())])
    aborted(run)


def test_a_token_that_was_active_when_the_run_began_cancels_it(server: ProviderServer) -> None:
    server.reply(Reply(text("Hel"), Stall()))
    text_delta = WaitsFor("text_delta")
    with CancelToken() as token:
        run = run_chat(model_of(server), HI, (), [text_delta])
    cancelled_quickly(run, text_delta.has_arrived.wait, token.cancel)


def test_closing_a_blocked_run_from_another_thread_cancels_it(server: ProviderServer) -> None:
    server.reply(Reply(text("Hel"), Stall()))
    text_delta = WaitsFor("text_delta")
    run = run_chat(model_of(server), HI, (), [text_delta])
    cancelled_quickly(run, text_delta.has_arrived.wait, run.close)


def test_cancelling_after_the_end_has_no_effect() -> None:
    run = run_chat(ScriptedModel("Hello"), HI)
    assert end_of(run).abort is None
    run.cancel()
    assert list(run) == []


def test_cancelling_after_the_last_step_has_no_effect() -> None:
    run = run_chat(ScriptedModel("Hello"), HI)
    while not isinstance(next(run), StepFinished):
        pass
    run.cancel()
    assert end_of(run).reason == FinishReason.END_TURN


def test_a_connection_error_of_a_cancelled_run_is_not_raised() -> None:
    class Foreign:
        """A model that raises its own error when it is cancelled."""

        name, model = "foreign", "f"

        def chat_stream(self, req: ChatRequest) -> Any:
            token, _ = CancelToken.bound_to_current()
            yield TextDelta("Hel")
            while not token.cancelled:
                yield TextDelta("l")
            raise OverloadedError("the socket is gone")

    run = run_chat(Foreign(), HI)
    for _ in range(4):
        next(run)
    run.cancel()
    aborted(run)


class IgnoresToken:
    """A model that never checks its token."""

    name, model = "ignores", "i"

    def __init__(self) -> None:
        self.request_count = 0

    def chat_stream(self, req: ChatRequest) -> Any:
        self.request_count += 1
        return (TextDelta("a") for _ in range(1000))


def test_cancelling_stops_reading_a_generator_that_ignores_its_token() -> None:
    run = run_chat(IgnoresToken(), HI)
    for _ in range(4):
        next(run)
    run.cancel()
    assert aborted(run).new_messages[0].text == "aa"


def test_a_cancelled_run_does_not_call_a_model_that_ignores_its_token() -> None:
    class Cancels:
        def on_request(self, run: Any, request: ChatRequest) -> ChatRequest:
            run.token.cancel()
            return request

    model = IgnoresToken()
    aborted(run_chat(model, HI, (), [Cancels()]))
    assert model.request_count == 0


# The limits


def test_calls_of_the_last_allowed_turn_are_answered_but_not_run() -> None:
    made: list[int] = []
    with ScriptedModel(turn(called("now")), turn(called("now"))) as model:
        tools = [named("now", lambda: made.append(1))]
        end = aborted(run_chat(model, HI, tools, config=RunConfig(max_iterations=2)), kind="max_iterations")
    assert made == [1]
    assert texts(end.new_messages)[1] == "This call was not run: the run reached RunConfig.max_iterations=2."


def test_a_run_that_ends_in_its_last_allowed_turn_is_not_aborted() -> None:
    end = end_of(run_chat(ScriptedModel(turn("a", usage=Usage(50, 50))), HI, config=RunConfig(1, max_tokens=10)))
    assert end.abort is None


def test_a_run_over_max_tokens_sends_no_further_request() -> None:
    with ScriptedModel(turn(called("now"), usage=Usage(5, 4)), turn(called("now"), usage=Usage(1, 0))) as model:
        end = aborted(run_chat(model, HI, [named("now")], config=RunConfig(max_tokens=10)), kind="max_tokens")
    assert texts(end.new_messages) == ["fine", "This call was not run: the run reached RunConfig.max_tokens=10."]


def test_the_usage_that_tools_report_counts_towards_max_tokens() -> None:
    def costly(context: ToolContext) -> None:
        context.report_usage(Usage(0, 10))

    with ScriptedModel(turn(called("costly"))) as model:
        end = aborted(
            run_chat(model, HI, [named("costly", costly)], config=RunConfig(max_tokens=10)), kind="max_tokens"
        )
    assert texts(end.new_messages) == ["Done."]


def timed_out(run: Callable[[], RunStream]) -> RunFinished:
    with no_threads_left():
        began = time.monotonic()
        end = aborted(run(), kind="timeout")
        assert time.monotonic() - began < 0.2 + SOON_S
        gc.collect()
    assert end.abort is not None
    assert end.abort.message == "the run took longer than RunConfig.timeout=0.2 s"
    return end


SHORT = RunConfig(timeout=0.2)


def test_the_timeout_ends_a_run_while_the_model_sends_nothing(server: ProviderServer) -> None:
    server.reply(Reply(text("Hel"), Stall()))
    timed_out(lambda: run_chat(model_of(server), HI, config=SHORT))
    assert server.wait_hung_up(PATIENCE_S)


def test_the_timeout_ends_a_run_before_the_headers_arrive(server: ProviderServer) -> None:
    server.reply(Reply(before_headers=[Stall()]))
    timed_out(lambda: run_chat(model_of(server), HI, config=SHORT))


def test_the_timeout_ends_a_run_while_a_tool_hangs() -> None:
    def hangs(context: ToolContext) -> None:
        context.token.sleep(PATIENCE_S)

    timed_out(lambda: run_chat(ScriptedModel(turn(called("hangs"))), HI, [named("hangs", hangs)], config=SHORT))


def test_the_timeout_ends_a_run_while_a_retry_waits() -> None:
    model = RetryingModel(ScriptedModel(OverloadedError("busy", retry_after=50.0)))
    timed_out(lambda: run_chat(model, HI, config=SHORT))


def test_the_timeout_thread_ends_with_the_run() -> None:
    with no_threads_left():
        run_chat(ScriptedModel("Hello"), HI, config=RunConfig(timeout=1000)).collect()


def test_the_first_abort_counts() -> None:
    run = run_chat(ScriptedModel([TextDelta("a"), Pause(PATIENCE_S)]), HI, config=RunConfig(timeout=0.05))
    chunks = [next(run) for _ in range(3)]
    while not run._run.ending.token.cancelled:
        time.sleep(0.01)
    run.cancel()
    aborted([*chunks, *run], kind="timeout")


def test_a_tool_that_raises_abort_run_ends_the_run_at_once() -> None:
    begun = threading.Event()

    def waits(context: ToolContext) -> None:
        begun.set()
        context.token.sleep(PATIENCE_S)

    def aborts() -> None:
        assert begun.wait(PATIENCE_S)
        raise AbortRun("the user has hung up")

    model = ScriptedModel(turn(called("waits", "a"), called("aborts", "b")))
    end = aborted(run_chat(model, HI, [named("waits", waits), named("aborts", aborts)]), kind="tool")
    assert texts(end.new_messages)[1] == "the user has hung up"


# Closing and dropping


def hangs_up_after(server: ProviderServer, leave: Callable[[RunStream], None], **options: Any) -> None:
    server.reply(Reply(text("Hel"), Stall()))
    seen = Seen()
    with no_threads_left():
        run = run_chat(model_of(server), HI, (), [seen], **options)
        while not isinstance(next(run), TextDelta):
            pass
        leave(run)
        del run
        assert server.wait_hung_up(PATIENCE_S)
    assert seen.ends == ["on_dropped"]


def test_closing_hangs_up(server: ProviderServer) -> None:
    hangs_up_after(server, lambda run: run.close(), config=RunConfig(timeout=1000))


def test_dropping_hangs_up(server: ProviderServer) -> None:
    hangs_up_after(server, lambda run: None, config=RunConfig(timeout=1000))


def test_throwing_into_a_run_hangs_up(server: ProviderServer) -> None:
    def throw(run: RunStream) -> None:
        with pytest.raises(GeneratorExit):
            run.throw(GeneratorExit)

    hangs_up_after(server, throw)


def test_dropping_a_run_that_was_never_read_hangs_up(server: ProviderServer) -> None:
    server.reply(Reply(text("Hel"), Stall()))
    seen = Seen()
    run_chat(model_of(server), HI, (), [seen])
    assert server.wait_hung_up(PATIENCE_S)
    assert seen.ends == ["on_dropped"]


def test_closing_a_run_that_was_never_read_hangs_up(server: ProviderServer) -> None:
    server.reply(Reply(text("Hel"), Stall()))
    run = run_chat(model_of(server), HI)
    stream = run._run.stream
    run.close()
    assert server.wait_hung_up(PATIENCE_S)
    assert stream is not None  # kept alive until here: close() hung up, not the garbage collector


def test_closing_a_run_cancels_its_tools() -> None:
    cancelled = threading.Event()

    def waits(context: ToolContext) -> None:
        context.token.on_cancel(cancelled.set)
        cancelled.wait(PATIENCE_S)

    model = ScriptedModel(turn(called("fast", "a"), called("waits", "b")))
    seen = Seen()
    with no_threads_left():
        run = run_chat(model, HI, [named("fast"), named("waits", waits)], [seen])
        while not isinstance(next(run), ToolResult):
            pass
        run.close()
        assert cancelled.wait(PATIENCE_S)
    assert seen.ends == ["on_dropped"]


def test_closing_a_generator_that_reads_a_run_closes_the_run(server: ProviderServer) -> None:
    server.reply(Reply(text("Hel"), Stall()))

    def view() -> Iterator[str]:
        for chunk in run_chat(model_of(server), HI):
            if isinstance(chunk, TextDelta):
                yield chunk.delta

    body = view()
    assert next(body) == "Hel"
    body.close()  # type: ignore[attr-defined]
    assert server.wait_hung_up(PATIENCE_S)


def test_a_server_that_never_answers_is_an_error_of_the_run() -> None:
    seen = Seen()
    with silent_listener() as port, pytest.raises(TransportError):
        run_chat(model_at(f"http://127.0.0.1:{port}", timeout=Timeout(read=0.2)), HI, (), [seen]).collect()
    assert seen.ends == ["on_failed"]


def test_a_finished_run_does_not_time_out_if_its_reader_is_slow() -> None:
    run = run_chat(ScriptedModel("Hello"), HI, config=RunConfig(timeout=0.05))
    while not isinstance(next(run), StepFinished):
        pass
    while not run._run.ending.token.cancelled:
        time.sleep(0.01)
    assert end_of(run).abort is None


def test_cancelling_ends_a_model_that_waits_for_an_event() -> None:
    text_delta = WaitsFor("text_delta")
    steps: list[Step] = [TextDelta("a"), WaitFor(threading.Event(), PATIENCE_S)]
    cancelled_quickly(
        run_chat(RetryingModel(ScriptedModel(steps), RetryConfig()), HI, (), [text_delta]), text_delta.has_arrived.wait
    )


def test_a_run_on_a_server_ends_well(server: ProviderServer) -> None:
    server.reply(Reply(text("Hello"), END))
    assert end_of(run_chat(model_of(server), HI)).reason == FinishReason.END_TURN
