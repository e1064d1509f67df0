"""Conversation: the history between runs, and its compaction."""

from __future__ import annotations

import gc
import json
import logging
import threading
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from completion import (
    CancelToken,
    ChatRequest,
    ChatStream,
    ContextOverflowError,
    FinishReason,
    HistoryCompacted,
    LocalModel,
    Message,
    RateLimitError,
    RetryConfig,
    RetryingModel,
    RunConfig,
    RunFinished,
    RunStream,
    StreamChunk,
    SystemBlock,
    TextBlock,
    TextDelta,
    Tool,
    ToolCallBlock,
    ToolCallFinished,
    ToolCallStarted,
    ToolChoice,
    ToolDefinition,
    ToolResultBlock,
    TurnFinished,
    Usage,
)
from completion.engine.compaction import Compaction
from completion.engine.conversation import Conversation
from completion.engine.middleware import AbortRun, Middleware, RunInfo
from completion.engine.redaction import Redaction
from completion.testing import ProviderServer, Reply, ScriptedModel, WaitFor, event
from completion.testing.scripted import Script, Step
from completion.wires.anthropic.lower import lower as lower_anthropic
from completion.wires.openai_chat.lower import lower as lower_openai
from tests.loopback import END, PATIENCE_S, Caught, model_of, text

LOOK = Tool(ToolDefinition("look", "Looks.", {"type": "object", "properties": {}}), lambda: "Nothing.")


def answer(words: str, used: int | None = None) -> list[Step]:
    """A turn with this text; ``used``: the provider's count of the request's tokens."""
    usage = None if used is None else Usage(used, 1)
    return [TextDelta(words), TurnFinished(FinishReason.END_TURN, usage)]


def call(call_id: str = "c0", name: str = "look", used: int = 0) -> list[Step]:
    usage = Usage(used, 1) if used else None
    started, finished = ToolCallStarted(call_id, name), ToolCallFinished(call_id, name, {})
    return [started, finished, TurnFinished(FinishReason.TOOL_USE, usage)]


def alternating(*texts: str) -> list[Message]:
    """A history with messages of the user and of the assistant in turns."""
    return [(Message.user, Message.assistant)[i % 2](one) for i, one in enumerate(texts)]


def sent_to(model: ScriptedModel) -> list[list[str]]:
    """The texts of the messages of each request."""
    return [[message.text for message in request.messages] for request in model.requests]


def overflow() -> ContextOverflowError:
    return ContextOverflowError("prompt is too long")


# The history


def test_middleware_knows_the_base_url_of_the_model(server: ProviderServer) -> None:
    seen: list[str | None] = []

    class Seeing(Middleware):
        def on_run_started(self, run: RunInfo) -> None:
            seen.append(run.base_url)

    server.reply(Reply(text("Hi"), END))
    model = model_of(server)
    Conversation(model, middleware=[Seeing()]).run("Hi")
    assert seen == [model.base_url]


def test_the_next_run_has_the_history_of_the_runs_before() -> None:
    model = ScriptedModel("Rain.", "Sun.")
    conversation = Conversation(model, system_prompt="Be brief.", temperature=0.5)
    assert conversation.run("Oslo?").text == "Rain."
    assert conversation.run("Bergen?").text == "Sun."
    assert sent_to(model) == [["Oslo?"], ["Oslo?", "Rain.", "Bergen?"]]
    assert list(conversation.messages) == alternating("Oslo?", "Rain.", "Bergen?", "Sun.")
    assert {(request.system_prompt, request.temperature) for request in model.requests} == {("Be brief.", 0.5)}


def test_calls_and_their_results_are_in_the_history() -> None:
    conversation = Conversation(ScriptedModel(call(), "Well."), tools=[LOOK])
    conversation.run("Look!")
    assert list(conversation.messages) == [
        Message.user("Look!"),
        Message.assistant([ToolCallBlock("c0", "look", {})]),
        Message.tool_result("c0", "Nothing."),
        Message.assistant("Well."),
    ]


def test_stream_returns_a_run() -> None:
    stream = Conversation(ScriptedModel("Rain.")).stream("Oslo?")
    assert isinstance(stream, RunStream)
    *_, end = stream
    assert isinstance(end, RunFinished)
    assert end.new_messages == (Message.assistant("Rain."),)


def test_the_history_is_updated_before_run_finished_is_yielded() -> None:
    conversation = Conversation(ScriptedModel("Rain."))
    stream = conversation.stream("Oslo?")
    for chunk in stream:
        assert bool(conversation.messages) == isinstance(chunk, RunFinished)


def test_blocks_and_messages_may_be_sent() -> None:
    model = ScriptedModel("One.", "Two.")
    conversation = Conversation(model)
    conversation.run([TextBlock("a"), TextBlock("b")])
    conversation.run(Message.user("c"))
    assert sent_to(model)[-1] == ["ab", "One.", "c"]


@pytest.mark.parametrize("nothing", ["", [], Message.assistant("Hi")])
def test_an_empty_message_or_one_of_the_assistant_is_refused(nothing: Any) -> None:
    conversation = Conversation(ScriptedModel("Rain."))
    with pytest.raises(ValueError, match="must be a user message that is not empty"):
        conversation.stream(nothing)
    conversation.run("Oslo?")


def test_the_next_message_answers_the_call_of_a_client_side_tool() -> None:
    model = ScriptedModel([*call(name="client")], "Well.")
    conversation = Conversation(model, tools=[LOOK, ToolDefinition("client", "", {"type": "object"})])
    conversation.run("Look!")
    with pytest.raises(ValueError, match="no tool result for the call c0"):
        conversation.stream("Go on")
    assert conversation.run(Message.tool_result("c0", "Done.")).text == "Well."


def test_an_invalid_history_is_refused() -> None:
    with pytest.raises(ValueError, match="a tool result for c1, but no such call"):
        Conversation(ScriptedModel(), messages=[Message.tool_result("c1", "Well.")])
    too_late = [Message.user("So?"), Message.assistant("Well."), Message.tool_result("c0", "Nothing.")]
    with pytest.raises(ValueError, match="no tool result for the call c0"):
        Conversation(ScriptedModel(), messages=[Message.assistant([ToolCallBlock("c0", "look", {})]), *too_late])


# Runs that do not end well


@pytest.mark.parametrize(
    "script", [RateLimitError("slow down"), [TextDelta("Ra"), RateLimitError("slow down")]], ids=["setup", "later"]
)
def test_a_run_that_fails_does_not_change_the_history(script: Script) -> None:
    conversation = Conversation(ScriptedModel("Rain.", script, "Sun."))
    conversation.run("Oslo?")
    with pytest.raises(RateLimitError):
        conversation.run("Bergen?")
    assert list(conversation.messages) == alternating("Oslo?", "Rain.")
    assert conversation.run("Bergen?").text == "Sun."


def test_a_run_that_fails_in_a_later_step_does_not_add_its_first_step() -> None:
    conversation = Conversation(ScriptedModel(call(used=7), RateLimitError("slow down")), tools=[LOOK])
    with pytest.raises(RateLimitError):
        conversation.run("Look!")
    assert conversation.messages == ()
    assert conversation.usage == Usage(7, 1)


def test_a_run_that_is_closed_or_dropped_does_not_change_the_history() -> None:
    conversation = Conversation(ScriptedModel("Rain.", "Snow.", "Sun."))
    with conversation.stream("Oslo?") as stream:
        next(stream)
    dropped = conversation.stream("Oslo?")
    next(dropped)
    del dropped
    gc.collect()
    assert conversation.messages == ()
    assert conversation.run("Oslo?").text == "Sun."


def test_invalid_arguments_do_not_lock_the_conversation() -> None:
    conversation = Conversation(ScriptedModel("Rain."))
    conversation.middleware = (object(),)
    for _ in range(2):
        with pytest.raises(TypeError, match="middleware="):
            conversation.stream("Oslo?")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"config": {}}, "config= must be a RunConfig, got dict"),
        ({"middleware": [3]}, "middleware= must contain objects"),
        ({"middleware": None}, r"middleware= must be a list, got NoneType; write middleware=\[…\]"),
        ({"tools": LOOK}, "tools= must be a list, got Tool"),
        ({"messages": "hi"}, "messages= must be a list, got str"),
        ({"messages": ["hi"]}, "messages= must contain Messages, got 'hi'"),
    ],
)
def test_arguments_of_the_wrong_type_are_refused(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(TypeError, match=words):
        Conversation(ScriptedModel(), **arguments)


def test_an_abort_keeps_the_partial_answer() -> None:
    gate = threading.Event()
    conversation = Conversation(ScriptedModel([TextDelta("Rain, and"), WaitFor(gate)], "Sun."))
    stream = conversation.stream("Oslo?")
    for chunk in stream:
        if isinstance(chunk, TextDelta):
            stream.cancel()
    assert list(conversation.messages) == alternating("Oslo?", "Rain, and")
    assert conversation.run("And?").text == "Sun."


def test_an_abort_during_tool_calls_leaves_a_valid_history() -> None:
    conversation = Conversation(ScriptedModel(call(), call()), tools=[LOOK], config=RunConfig(max_iterations=2))
    result = conversation.run("Look!")
    assert result.abort is not None
    assert len(conversation.messages) == 5
    Conversation(ScriptedModel(), messages=conversation.messages)


def test_an_abort_before_the_model_answers_does_not_change_the_history() -> None:
    conversation = Conversation(ScriptedModel([WaitFor(threading.Event())], "Sun."))
    stream = conversation.stream("Oslo?")
    stream.cancel()
    assert stream.collect().abort is not None
    assert conversation.messages == ()


# One at a time


def test_two_runs_at_once_are_refused() -> None:
    conversation = Conversation(ScriptedModel("Rain.", "Sun."))
    stream = conversation.stream("Oslo?")
    with pytest.raises(RuntimeError, match="a run is in progress"):
        conversation.stream("Bergen?")
    assert stream.collect().text == "Rain."
    assert conversation.run("Bergen?").text == "Sun."


def test_only_one_of_many_threads_can_start_a_run() -> None:
    gate, refused = threading.Event(), threading.Semaphore(0)
    conversation = Conversation(ScriptedModel([WaitFor(gate), *answer("Rain.")]))

    def read() -> str:
        try:
            return conversation.run("Oslo?").text
        except RuntimeError:
            refused.release()
            return "refused"

    readers = [Caught(read) for _ in range(8)]
    assert all(refused.acquire(timeout=PATIENCE_S) for _ in range(7))
    gate.set()
    assert sorted(reader.within(PATIENCE_S).result for reader in readers) == ["Rain.", *["refused"] * 7]


def test_a_fork_is_independent() -> None:
    model = ScriptedModel("Rain.", "Left.", "Right.")
    conversation = Conversation(model)
    conversation.run("Oslo?")
    fork = conversation.fork()
    with conversation.stream("left") as one, fork.stream("right") as other:
        assert (one.collect().text, other.collect().text) == ("Left.", "Right.")
    assert list(conversation.messages) == alternating("Oslo?", "Rain.", "left", "Left.")
    assert list(fork.messages) == alternating("Oslo?", "Rain.", "right", "Right.")


# JSON


def test_a_conversation_from_json_continues_the_old_one() -> None:
    first = Conversation(
        ScriptedModel(call(), answer("Rain.", 50)),
        system_prompt=[SystemBlock("Be brief.")],
        tools=[LOOK],
        config=RunConfig(max_iterations=5, timeout=9.5),
        max_tokens=99,
        budget=1000,
        compaction="summary",
        temperature=0.5,
        stop_sequences=["END"],
    )
    first.run("Oslo?")
    model = ScriptedModel("Sun.")
    second = Conversation.from_json(first.to_json(), model, tools=[LOOK])
    assert second.to_json() == first.to_json()
    assert (second.messages, second.usage) == (first.messages, Usage(50, 1))
    second.run("Bergen?")
    request = model.requests[0]
    assert request.messages == (*first.messages, Message.user("Bergen?"))
    assert (request.max_tokens, request.temperature, request.stop_sequences) == (99, 0.5, ("END",))
    assert request.system_prompt == (SystemBlock("Be brief."),)


def test_the_tool_choice_in_json_needs_its_tool_to_be_passed_again() -> None:
    first = Conversation(ScriptedModel(), tools=[LOOK], tool_choice=ToolChoice.tool("look"))
    model = ScriptedModel("Sun.")
    Conversation.from_json(first.to_json(), model, tools=[LOOK]).run("Oslo?")
    assert model.requests[0].tool_choice == ToolChoice.tool("look")
    with pytest.raises(ValueError, match="tools is empty"):
        Conversation.from_json(first.to_json(), model).run("Oslo?")


def test_to_json_does_not_include_the_run_in_progress() -> None:
    conversation = Conversation(ScriptedModel("Rain."))
    before = conversation.to_json()
    with conversation.stream("Oslo?") as stream:
        next(stream)
        assert conversation.to_json() == before


def test_a_function_for_compaction_must_be_passed_to_from_json_again() -> None:
    written = Conversation(ScriptedModel(), compaction=lambda messages: ()).to_json()
    with pytest.raises(ValueError, match="a function for compaction="):
        Conversation.from_json(written, ScriptedModel())
    Conversation.from_json(written, ScriptedModel(), compaction="truncate")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schema": "other.1"}, "the schema must be completion.conversation.1"),
        ({"messages": [{"role": "user"}]}, r"messages\[0\].blocks is missing"),
        ({"settings": {"max_tokens": "9"}}, "ChatRequest.max_tokens"),
        ({"budget": -1}, "budget must be"),
    ],
)
def test_damaged_json_is_refused(change: dict[str, Any], words: str) -> None:
    document = json.loads(Conversation(ScriptedModel()).to_json())
    with pytest.raises(ValueError, match=words):
        Conversation.from_json(json.dumps({**document, **change}), ScriptedModel())


@pytest.mark.parametrize(
    "options", [{"budget": 0}, {"budget": True}, {"compaction": "gzip"}, {"temperature": float("nan")}]
)
def test_invalid_settings_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"must be|compaction"):
        Conversation(ScriptedModel(), **options)
    with pytest.raises(TypeError):
        Conversation(ScriptedModel(), heat=1)


# The budget


def test_over_the_budget_the_oldest_exchanges_are_removed_as_a_whole() -> None:
    model = ScriptedModel(answer("Three.", 90), "Four.")
    messages = [
        *alternating("one", "One."),
        Message.user("two"),
        Message.assistant([ToolCallBlock("c9", "look", {})]),
        Message.tool_result("c9", "Nothing."),
        Message.assistant("Two."),
    ]
    conversation = Conversation(model, budget=100, messages=messages)
    conversation.run("three")
    conversation.run("four")
    assert sent_to(model) == [
        ["one", "One.", "two", "", "", "Two.", "three"],
        ["three", "Three.", "four"],
    ]
    assert list(conversation.messages) == alternating("three", "Three.", "four", "Four.")


def test_within_the_budget_nothing_is_removed() -> None:
    model = ScriptedModel(answer("One.", 10), answer("Two.", 20), answer("Three.", 30))
    conversation = Conversation(model, budget=100)
    for word in ("one", "two", "three"):
        conversation.run(word)
    assert len(sent_to(model)[-1]) == 5


def test_the_budget_is_compared_with_the_count_of_the_provider() -> None:
    """The same history, with a tokenizer that counts ten times as many tokens."""
    lengths = []
    for used in (30, 300):
        model = ScriptedModel(answer("One.", used), "Two.")
        conversation = Conversation(model, budget=250)
        conversation.run("one " * 20)
        conversation.run("two")
        lengths.append(len(sent_to(model)[-1]))
    assert lengths == [3, 1]


def test_the_last_message_is_never_removed() -> None:
    model = ScriptedModel("One.", "Two.")
    conversation = Conversation(model, budget=20)
    conversation.run("x" * 1000)
    conversation.run("y" * 1000)
    assert sent_to(model) == [["x" * 1000], ["y" * 1000]]


def test_the_current_exchange_keeps_its_message_and_its_calls_with_their_results() -> None:
    big = Tool(LOOK.definition, lambda: "x" * 1000)
    model = ScriptedModel(call("c1"), call("c2"), "Well.")
    conversation = Conversation(model, tools=[big], budget=450, messages=alternating("one", "One."))
    conversation.run("Look!")
    assert [len(request.messages) for request in model.requests] == [3, 5, 7]
    assert model.requests[-1].messages[2] == Message.user("Look!")
    assert len(conversation.messages) == 8


def test_a_message_added_by_middleware_does_not_replace_the_users_message() -> None:
    class Again(Middleware):
        def on_turn_finished(self, run: RunInfo, turn: object) -> Sequence[Message] | None:
            return [Message.user("x" * 1000)] if run.iteration == 1 else None

    model = ScriptedModel("One.", "Two.")
    Conversation(model, budget=100, middleware=[Again()], messages=alternating("old", "Old.")).run("new")
    assert sent_to(model)[-1] == ["new", "One.", "x" * 1000]


def test_a_run_that_fails_after_a_cut_does_not_change_the_history() -> None:
    model = ScriptedModel(RateLimitError("slow down"))
    conversation = Conversation(model, budget=20, messages=alternating("x" * 100, "One."))
    with pytest.raises(RateLimitError):
        conversation.run("two")
    assert sent_to(model) == [["two"]]
    assert list(conversation.messages) == alternating("x" * 100, "One.")


def test_a_summary_replaces_the_removed_messages_and_its_tokens_count() -> None:
    model = ScriptedModel(answer("They are called Bob.", 40), answer("Bob.", 20), answer("Yes.", 25))
    conversation = Conversation(
        model, budget=70, compaction="summary", messages=alternating("I am Bob. " * 20, "Hello, Bob.", "Fine?", "Fine.")
    )
    result = conversation.run("Who am I?")
    notes = "Notes of the conversation so far:\n\nThey are called Bob."
    assert result.text == "Bob."
    assert result.usage == conversation.usage == Usage(60, 2)
    assert sent_to(model)[0][0] == f"User: {'I am Bob. ' * 20}\n\nAssistant: Hello, Bob."
    assert sent_to(model)[1] == [notes, "Fine?", "Fine.", "Who am I?"]
    assert conversation.messages[0] == Message.user(notes)
    conversation.run("Sure?")
    assert sent_to(model)[2][0] == notes


def test_a_summary_is_part_of_the_next_summary() -> None:
    model = ScriptedModel("First notes.", "Two.", "Second notes.", "Three.")
    conversation = Conversation(model, budget=60, compaction="summary", messages=alternating("x" * 300, "One."))
    conversation.run("y" * 200)
    conversation.run("z" * 200)
    assert "First notes." in sent_to(model)[2][0]
    assert sent_to(model)[3] == ["Notes of the conversation so far:\n\nSecond notes.", "z" * 200]


def test_the_request_for_a_summary_passes_the_middleware() -> None:
    model = ScriptedModel("Notes.", "Yes.")
    conversation = Conversation(
        model,
        budget=20,
        compaction="summary",
        middleware=[Redaction("email")],
        messages=alternating("I am jane@example.org. " * 5, "Hello."),
    )
    conversation.run("Well?")
    assert "jane" not in repr(model.requests)


def test_the_request_for_a_summary_contains_calls_as_text() -> None:
    model = ScriptedModel("Notes.", "Yes.")
    history = [
        Message.user("Look! " * 30),
        Message.assistant([ToolCallBlock("c0", "look", {"at": 1})]),
        Message.tool_result("c0", "Nothing."),
        Message.assistant("Nothing there."),
    ]
    Conversation(model, budget=20, compaction="summary", messages=history).run("Well?")
    assert model.requests[0].tools == ()
    assert sent_to(model)[0][0].endswith(
        'Assistant called look with {"at": 1}\n\nResult: Nothing.\n\nAssistant: Nothing there.'
    )


@pytest.mark.parametrize(
    "summary",
    [
        RateLimitError("slow down"),
        [TextDelta("No"), RateLimitError("slow down")],
        [TurnFinished(FinishReason.END_TURN)],
        [TextDelta("I cannot."), TurnFinished(FinishReason.REFUSAL)],
    ],
    ids=["refused", "broken", "empty", "refusal"],
)
def test_if_the_summary_fails_the_messages_are_removed(summary: Script, caplog: pytest.LogCaptureFixture) -> None:
    model = ScriptedModel(summary, "Two.")
    conversation = Conversation(model, budget=20, compaction="summary", messages=alternating("x" * 300, "One."))
    chunks = list(conversation.stream("two"))
    assert [chunk.method for chunk in chunks if isinstance(chunk, HistoryCompacted)] == ["truncate"]
    assert list(conversation.messages) == alternating("two", "Two.")
    assert "they are removed" in caplog.text


def test_cancelling_the_summary_aborts_the_run() -> None:
    entered, token = threading.Event(), CancelToken()

    class Entering(Middleware):
        def on_run_started(self, run: RunInfo) -> None:
            entered.set()

    model = ScriptedModel([TextDelta("Notes"), WaitFor(threading.Event())])
    conversation = Conversation(
        model, budget=20, compaction="summary", middleware=[Entering()], messages=alternating("x" * 300, "One.")
    )

    def read() -> Any:
        with token:
            return conversation.run("two")

    caught = Caught(read)
    assert entered.wait(PATIENCE_S)
    token.cancel()
    caught.within(PATIENCE_S)
    assert caught.error is None
    assert caught.result.abort.kind == "cancelled"
    assert list(conversation.messages) == alternating("x" * 300, "One.")


def test_the_timeout_of_a_run_includes_its_summary() -> None:
    conversation = Conversation(
        ScriptedModel([TextDelta("Notes"), WaitFor(threading.Event())]),
        config=RunConfig(timeout=0.1),
        budget=20,
        compaction="summary",
        messages=alternating("x" * 300, "One."),
    )
    result = conversation.run("two")
    assert result.abort is not None
    assert result.abort.kind == "timeout"


def test_middleware_that_aborts_the_summary_aborts_the_run() -> None:
    class Aborting(Middleware):
        def on_request(self, run: RunInfo, request: ChatRequest) -> ChatRequest:
            raise AbortRun("no more")

    conversation = Conversation(
        ScriptedModel(),
        budget=20,
        compaction="summary",
        middleware=[Aborting()],
        messages=alternating("x" * 300, "One."),
    )
    result = conversation.run("two")
    assert result.abort is not None
    assert result.abort.message == "no more"


def test_a_function_may_replace_the_removed_messages() -> None:
    removed: list[Sequence[Message]] = []

    def marked(messages: Sequence[Message]) -> Sequence[Message]:
        removed.append(messages)
        return [Message.user(f"({len(messages)} messages left out)")]

    model = ScriptedModel("Two.")
    conversation = Conversation(model, budget=20, compaction=marked, messages=alternating("x" * 300, "One."))
    conversation.run("two")
    assert [list(one) for one in removed] == [alternating("x" * 300, "One.")]
    assert sent_to(model) == [["(2 messages left out)", "two"]]
    assert conversation.messages[0] == Message.user("(2 messages left out)")


def test_a_function_that_returns_an_invalid_history_is_an_error() -> None:
    def halves(messages: Sequence[Message]) -> Sequence[Message]:
        return [Message.assistant([ToolCallBlock("c0", "look", {})])]

    conversation = Conversation(ScriptedModel(), budget=20, compaction=halves, messages=alternating("x" * 300, "One."))
    with pytest.raises(
        ValueError, match=r"compaction= returned .* invalid history: there is no tool result for the call c0"
    ):
        conversation.run("two")


# Overflow


@pytest.mark.parametrize("script", [overflow(), [overflow()]], ids=["setup", "before the first chunk"])
def test_after_an_overflow_half_of_the_request_is_sent_again(script: Script) -> None:
    model = ScriptedModel(script, "Four.")
    conversation = Conversation(model, messages=alternating("one", "One.", "two", "Two.", "three", "Three."))
    chunks = [chunk.type for chunk in conversation.stream("four")]
    turn = ["step_started", "history_compacted", "text_delta", "turn_finished", "step_finished"]
    assert chunks == ["run_started", *turn, "run_finished"]
    assert sent_to(model)[1] == ["three", "Three.", "four"]
    assert list(conversation.messages) == alternating("three", "Three.", "four", "Four.")


def test_a_second_overflow_is_raised_and_the_history_is_unchanged() -> None:
    messages = alternating(*(f"word {i}" for i in range(16)))
    model = ScriptedModel(overflow(), overflow(), "Never.")
    conversation = Conversation(model, messages=messages)
    with pytest.raises(ContextOverflowError):
        conversation.run("last")
    assert [len(request.messages) for request in model.requests] == [17, 7]
    assert list(conversation.messages) == messages


def test_an_overflow_of_the_last_message_alone_is_raised_at_once() -> None:
    model = ScriptedModel(overflow())
    with pytest.raises(ContextOverflowError):
        Conversation(model).run("x" * 1000)


def test_an_overflow_after_the_first_chunk_is_raised() -> None:
    model = ScriptedModel([TextDelta("Fo"), overflow()])
    conversation = Conversation(model, messages=alternating("one", "One."))
    with pytest.raises(ContextOverflowError):
        conversation.run("two")


def test_other_errors_are_not_repeated() -> None:
    model = ScriptedModel(RateLimitError("slow down"))
    with pytest.raises(RateLimitError):
        Conversation(model, messages=alternating("one", "One.")).run("two")


def test_an_overflow_caused_by_tool_results_removes_earlier_exchanges() -> None:
    model = ScriptedModel(call(), overflow(), "Well.")
    conversation = Conversation(model, tools=[LOOK], messages=alternating("one", "One."))
    result = conversation.run("Look!")
    assert result.text == "Well."
    assert [message.text for message in conversation.messages] == ["Look!", "", "", "Well."]
    assert [len(request.messages) for request in model.requests] == [3, 5, 3]


def test_replacement_messages_may_be_cut_in_the_same_run() -> None:
    replacements = iter([alternating("a" * 400, "A.", "b", "B."), []])
    model = ScriptedModel(call(), overflow(), "Well.")
    conversation = Conversation(
        model,
        tools=[LOOK],
        budget=200,
        compaction=lambda removed: next(replacements),
        messages=alternating("x" * 1000, "One."),
    )
    conversation.run("Look!")
    assert sent_to(model)[2] == ["b", "B.", "Look!", "", ""]
    assert [message.text for message in conversation.messages] == ["b", "B.", "Look!", "", "", "Well."]


def test_an_overflow_after_a_cut_in_the_same_turn_removes_more() -> None:
    model = ScriptedModel(overflow(), "Four.")
    conversation = Conversation(
        model, budget=100, messages=alternating("x" * 1000, "One.", "y" * 200, "Two.", "three", "Three.")
    )
    conversation.run("four")
    assert sent_to(model) == [["y" * 200, "Two.", "three", "Three.", "four"], ["three", "Three.", "four"]]
    assert list(conversation.messages) == alternating("three", "Three.", "four", "Four.")


def test_a_retrying_model_still_retries() -> None:
    model = ScriptedModel(overflow(), RateLimitError("slow down"), "Two.")
    retrying = RetryingModel(model, RetryConfig(base_delay=0))
    assert Conversation(retrying, messages=alternating("one", "One.")).run("two").text == "Two."


def test_the_tokens_of_a_summary_after_an_overflow_count() -> None:
    model = ScriptedModel(overflow(), answer("Notes.", 30), answer("Three.", 20))
    conversation = Conversation(model, compaction="summary", messages=alternating("one", "One.", "two", "Two."))
    result = conversation.run("three")
    assert (result.text, result.usage) == ("Three.", Usage(50, 2))
    assert conversation.messages[0].text == "Notes of the conversation so far:\n\nNotes."


def test_messages_too_long_to_summarize_are_removed(caplog: pytest.LogCaptureFixture) -> None:
    model = ScriptedModel(overflow(), overflow(), "Three.")
    conversation = Conversation(model, compaction="summary", messages=alternating("one", "One."))
    with caplog.at_level(logging.WARNING, "completion.engine.compaction"):
        assert conversation.run("two").text == "Three."
    assert sent_to(model)[-1] == ["two"]
    assert "they are removed" in caplog.text


def test_an_overflow_of_messages_added_by_middleware_does_not_change_the_history() -> None:
    class Adding(Middleware):
        def on_request(self, run: RunInfo, request: ChatRequest) -> ChatRequest:
            return ChatRequest([*alternating("Now is noon.", "Good."), *request.messages])

    model = ScriptedModel(overflow(), "Two.")
    conversation = Conversation(model, middleware=[Adding()], messages=alternating("one", "One."))
    conversation.run("two")
    assert sent_to(model)[-1] == ["two"]
    assert list(conversation.messages) == alternating("one", "One.", "two", "Two.")


# On real wires


OVERFLOW = {"error": {"message": "too long", "type": "invalid_request_error", "code": "context_length_exceeded"}}


def test_an_overflow_with_status_400_is_sent_again(server: ProviderServer) -> None:
    server.reply(Reply.json(OVERFLOW, status=400))
    server.reply(Reply(text("Three."), END))
    messages = alternating("one" * 50, "One.", "two", "Two.")
    conversation = Conversation(model_of(server), system_prompt="Be brief.", messages=messages)
    assert conversation.run("three").text == "Three."
    sent = [[message["content"] for message in request.json()["messages"]] for request in server.requests]
    assert sent == [["Be brief.", "one" * 50, "One.", "two", "Two.", "three"], ["Be brief.", "two", "Two.", "three"]]


def test_an_overflow_inside_a_200_response_is_sent_again(server: ProviderServer) -> None:
    server.reply(Reply(event(OVERFLOW)))
    server.reply(Reply(text("Two."), END))
    conversation = Conversation(model_of(server), messages=alternating("one", "One."))
    assert conversation.run("two").text == "Two."
    assert list(conversation.messages) == alternating("two", "Two.")


def test_the_embedded_model_continues_after_its_context_overflows() -> None:
    """SmolLM2 has a context of 8192 tokens; its server refuses longer prompts."""
    model = LocalModel()
    history = alternating("word " * 9000, "Yes.", "My name is Ada.", "Hello, Ada.")
    with pytest.raises(ContextOverflowError):
        model.chat_stream(ChatRequest([*history, Message.user("Go on.")])).collect()
    conversation = Conversation(model, max_tokens=8, temperature=0.0, messages=history)
    result = conversation.run("What is my name?")
    assert result.text
    assert 0 < result.usage.input_tokens < 200
    assert [message.text for message in conversation.messages[:3]] == [
        "My name is Ada.",
        "Hello, Ada.",
        "What is my name?",
    ]


@pytest.mark.parametrize("compaction", ["truncate", "summary"])
def test_a_long_conversation_with_the_embedded_model_stays_within_its_budget(compaction: Compaction) -> None:
    sizes: dict[str, list[int]] = {"turn": [], "summary": []}

    class Counting(Middleware):
        def on_request(self, run: RunInfo, request: ChatRequest) -> ChatRequest:
            self.kind = "turn" if request.system_prompt == "You are brief." else "summary"
            return request

        def on_chunk(self, run: RunInfo, chunk: StreamChunk) -> StreamChunk:
            if isinstance(chunk, TurnFinished) and chunk.usage is not None:
                sizes[self.kind].append(chunk.usage.input_tokens)
            return chunk

    conversation = Conversation(
        LocalModel(),
        system_prompt="You are brief.",
        max_tokens=12,
        temperature=0.0,
        budget=160,
        compaction=compaction,
        middleware=[Counting()],
    )
    for i in range(6):
        assert conversation.run(f"Tell me about the number {i}, in one short sentence, please.").text
    assert max(sizes["turn"]) <= 160
    assert conversation.usage.input_tokens == sum(sizes["turn"]) + sum(sizes["summary"])
    assert bool(sizes["summary"]) == ("Notes" in conversation.messages[0].text) == (compaction == "summary")
    assert conversation.messages[-2].text.startswith("Tell me about the number 5")


# Any history


@st.composite
def exchanges(draw: st.DrawFn) -> list[Message]:
    """An exchange: a message, calls with their results, and usually an answer."""
    number = draw(st.integers(0, 10**9))
    messages = [Message.user("u" * draw(st.integers(1, 200)))]
    for i in range(draw(st.integers(0, 2))):
        ids = [f"c{number}-{i}-{n}" for n in range(draw(st.integers(1, 3)))]
        messages.append(
            Message.assistant(
                [TextBlock("a" * draw(st.integers(0, 50))), *(ToolCallBlock(one, "look", {}) for one in ids)]
            )
        )
        messages.append(Message.user([ToolResultBlock(one, "r" * draw(st.integers(1, 200))) for one in ids]))
    if draw(st.booleans()) or len(messages) > 1:
        messages.append(Message.assistant("a" * draw(st.integers(1, 200))))
    return messages


@settings(max_examples=60)
@given(
    history=st.lists(exchanges(), max_size=6),
    starts_with_greeting=st.booleans(),
    budget=st.integers(1, 400),
    overflows=st.booleans(),
    compaction=st.sampled_from(["truncate", "summary"]),
)
def test_after_any_cut_the_history_is_valid_on_both_wires(
    history: list[list[Message]], starts_with_greeting: bool, budget: int, overflows: bool, compaction: Compaction
) -> None:
    messages = [message for exchange in history for message in exchange]
    if starts_with_greeting:
        messages.insert(0, Message.assistant("Hello!"))
    model = _LooksOnce(overflows)
    conversation = Conversation(model, tools=[LOOK], budget=budget, compaction=compaction, messages=messages)
    try:
        conversation.run("The last word")
    except ContextOverflowError:
        assert list(conversation.messages) == messages
        return
    for request in model.requests:
        if request.tools:
            assert Message.user("The last word") in request.messages
            _check_tool_results(request)
    Conversation(model, messages=conversation.messages)
    kept = [message for message in conversation.messages if not message.text.startswith("Notes of")]
    assert kept[:-4] == messages[len(messages) - len(kept[:-4]) :]
    assert [message.text for message in kept[-4:]] == ["The last word", "", "", "Well."]


class _LooksOnce:
    """A model that calls the tool once and then answers; it may refuse its first request with tools as too long."""

    name, model = "looks-once", "looks-once-1"

    def __init__(self, overflows: bool) -> None:
        self.requests: list[ChatRequest] = []
        self._overflows = overflows

    def chat_stream(self, req: ChatRequest) -> ChatStream:
        self.requests.append(req)
        if not req.tools:
            return ScriptedModel(answer("Notes.", 9)).chat_stream(req)
        if self._overflows:
            self._overflows = False
            raise overflow()
        has_looked = any(isinstance(block, ToolResultBlock) for block in req.messages[-1].blocks)
        return ScriptedModel(answer("Well.", 99) if has_looked else call("c_last", used=99)).chat_stream(req)


def _check_tool_results(request: ChatRequest) -> None:
    """Each tool result must follow its call directly, on both wires."""
    chat = lower_openai(request, "m")[0]["messages"]
    open_calls: list[str] = []
    for message in chat:
        if message["role"] == "tool":
            open_calls.remove(message["tool_call_id"])
            continue
        assert open_calls == []
        open_calls = [one["id"] for one in message.get("tool_calls", ())]
    assert open_calls == []
    anthropic = lower_anthropic(request, "m")[0]["messages"]
    asked_for: list[str] = []
    for message in anthropic:
        parts = message["content"] if isinstance(message["content"], list) else []
        answered = [part["tool_use_id"] for part in parts if part["type"] == "tool_result"]
        assert sorted(answered) == sorted(asked_for)
        asked_for = [part["id"] for part in parts if part["type"] == "tool_use"]
    assert asked_for == []


def test_ctrl_c_in_the_last_hook_of_a_middleware_leaves_the_conversation_usable() -> None:
    class Interrupted(Middleware):
        def on_finished(self, run: RunInfo, end: RunFinished) -> None:
            raise KeyboardInterrupt

    conversation = Conversation(ScriptedModel("One.", "Two."), middleware=[Interrupted()])
    with pytest.raises(KeyboardInterrupt):
        conversation.run("Hi")
    assert [message.text for message in conversation.messages] == ["Hi", "One."]
    conversation.middleware = ()
    assert conversation.run("Again").text == "Two."
