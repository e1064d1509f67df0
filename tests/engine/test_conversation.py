"""Conversation: a history between runs, kept small enough."""

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
from completion.engine.conversation import Compaction, Conversation
from completion.engine.middleware import AbortRun, Middleware, RunInfo
from completion.engine.redaction import Redaction
from completion.testing import ProviderServer, Reply, ScriptedModel, WaitFor, event
from completion.testing.scripted import Script, Step
from completion.wires.anthropic.lower import lower as lower_anthropic
from completion.wires.openai_chat.lower import lower as lower_openai
from tests.loopback import END, PATIENCE_S, Caught, model_of, text

LOOK = Tool(ToolDefinition("look", "Looks.", {"type": "object", "properties": {}}), lambda: "Nothing.")


def answer(words: str, used: int | None = None) -> list[Step]:
    """A turn that says this; ``used`` is what the provider counted of the request."""
    usage = None if used is None else Usage(used, 1)
    return [TextDelta(words), TurnFinished(FinishReason.END_TURN, usage)]


def call(call_id: str = "c0", name: str = "look", used: int = 0) -> list[Step]:
    usage = Usage(used, 1) if used else None
    started, finished = ToolCallStarted(call_id, name), ToolCallFinished(call_id, name, {})
    return [started, finished, TurnFinished(FinishReason.TOOL_USE, usage)]


def said(*texts: str) -> list[Message]:
    """A history of the user and the assistant in turn."""
    return [(Message.user, Message.assistant)[i % 2](one) for i, one in enumerate(texts)]


def asked(model: ScriptedModel) -> list[list[str]]:
    """What the model was sent, each time."""
    return [[message.text for message in request.messages] for request in model.requests]


def overflow() -> ContextOverflowError:
    return ContextOverflowError("prompt is too long")


# The history


def test_what_was_said_is_in_the_history_of_the_next_run() -> None:
    model = ScriptedModel("Rain.", "Sun.")
    conversation = Conversation(model, system_prompt="Be brief.", temperature=0.5)
    assert conversation.run("Oslo?").text == "Rain."
    assert conversation.run("Bergen?").text == "Sun."
    assert asked(model) == [["Oslo?"], ["Oslo?", "Rain.", "Bergen?"]]
    assert list(conversation.messages) == said("Oslo?", "Rain.", "Bergen?", "Sun.")
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


def test_a_stream_is_a_run() -> None:
    stream = Conversation(ScriptedModel("Rain.")).stream("Oslo?")
    assert isinstance(stream, RunStream)
    *_, end = stream
    assert isinstance(end, RunFinished)
    assert end.new_messages == (Message.assistant("Rain."),)


def test_the_history_has_a_run_from_its_last_chunk_on() -> None:
    conversation = Conversation(ScriptedModel("Rain."))
    stream = conversation.stream("Oslo?")
    for chunk in stream:
        assert bool(conversation.messages) == isinstance(chunk, RunFinished)


def test_blocks_and_messages_may_be_said() -> None:
    model = ScriptedModel("One.", "Two.")
    conversation = Conversation(model)
    conversation.run([TextBlock("a"), TextBlock("b")])
    conversation.run(Message.user("c"))
    assert asked(model)[-1] == ["ab", "One.", "c"]


@pytest.mark.parametrize("nothing", ["", [], Message.assistant("Hi")])
def test_who_says_nothing_or_speaks_for_the_model_is_told(nothing: Any) -> None:
    conversation = Conversation(ScriptedModel("Rain."))
    with pytest.raises(ValueError, match="a message of the user that says something"):
        conversation.stream(nothing)
    conversation.run("Oslo?")


def test_a_call_that_is_left_to_the_caller_is_answered_next() -> None:
    model = ScriptedModel([*call(name="theirs")], "Well.")
    conversation = Conversation(model, tools=[LOOK, ToolDefinition("theirs", "", {"type": "object"})])
    conversation.run("Look!")
    with pytest.raises(ValueError, match="no result of the call c0"):
        conversation.stream("Go on")
    assert conversation.run(Message.tool_result("c0", "Done.")).text == "Well."


def test_a_history_that_no_provider_would_take_is_refused() -> None:
    with pytest.raises(ValueError, match="a result of c1, and no such call"):
        Conversation(ScriptedModel(), messages=[Message.tool_result("c1", "Well.")])
    with pytest.raises(ValueError, match="no result of the call c0"):
        Conversation(ScriptedModel(), messages=[Message.assistant([ToolCallBlock("c0", "look", {})])])
    too_late = [Message.user("So?"), Message.assistant("Well."), Message.tool_result("c0", "Nothing.")]
    with pytest.raises(ValueError, match="no result of the call c0"):
        Conversation(ScriptedModel(), messages=[Message.assistant([ToolCallBlock("c0", "look", {})]), *too_late])


# Rolled back


@pytest.mark.parametrize(
    "script", [RateLimitError("slow down"), [TextDelta("Ra"), RateLimitError("slow down")]], ids=["setup", "later"]
)
def test_a_run_that_fails_leaves_the_history_as_it_was(script: Script) -> None:
    conversation = Conversation(ScriptedModel("Rain.", script, "Sun."))
    conversation.run("Oslo?")
    with pytest.raises(RateLimitError):
        conversation.run("Bergen?")
    assert list(conversation.messages) == said("Oslo?", "Rain.")
    assert conversation.run("Bergen?").text == "Sun."


def test_a_run_that_fails_in_a_later_step_leaves_nothing_of_its_first() -> None:
    conversation = Conversation(ScriptedModel(call(used=7), RateLimitError("slow down")), tools=[LOOK])
    with pytest.raises(RateLimitError):
        conversation.run("Look!")
    assert conversation.messages == ()
    assert conversation.usage == Usage(7, 1)


def test_a_run_that_is_closed_or_dropped_leaves_the_history_as_it_was() -> None:
    conversation = Conversation(ScriptedModel("Rain.", "Snow.", "Sun."))
    with conversation.stream("Oslo?") as stream:
        next(stream)
    dropped = conversation.stream("Oslo?")
    next(dropped)
    del dropped
    gc.collect()
    assert conversation.messages == ()
    assert conversation.run("Oslo?").text == "Sun."


def test_arguments_that_make_no_sense_leave_the_conversation_free() -> None:
    conversation = Conversation(ScriptedModel("Rain."))
    conversation.middleware = (object(),)
    for _ in range(2):
        with pytest.raises(TypeError, match="middleware="):
            conversation.stream("Oslo?")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"config": {}}, "config= takes a RunConfig, got dict"),
        ({"middleware": [3]}, "middleware= takes objects"),
        ({"middleware": None}, r"middleware= takes a list, got NoneType: write middleware=\[…\]"),
        ({"tools": LOOK}, "tools= takes a list, got Tool"),
        ({"messages": "hi"}, "messages= takes a list, got str"),
        ({"messages": ["hi"]}, "messages= takes Messages, got 'hi'"),
    ],
)
def test_arguments_of_the_wrong_kind_are_refused_when_it_is_made(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(TypeError, match=words):
        Conversation(ScriptedModel(), **arguments)


def test_an_abort_keeps_what_was_said_until_then() -> None:
    gate = threading.Event()
    conversation = Conversation(ScriptedModel([TextDelta("Rain, and"), WaitFor(gate)], "Sun."))
    stream = conversation.stream("Oslo?")
    for chunk in stream:
        if isinstance(chunk, TextDelta):
            stream.cancel()
    assert list(conversation.messages) == said("Oslo?", "Rain, and")
    assert conversation.run("And?").text == "Sun."


def test_an_abort_in_the_midst_of_calls_keeps_a_valid_history() -> None:
    conversation = Conversation(ScriptedModel(call(), call()), tools=[LOOK], config=RunConfig(max_iterations=2))
    result = conversation.run("Look!")
    assert result.abort is not None
    assert len(conversation.messages) == 5
    Conversation(ScriptedModel(), messages=conversation.messages)


def test_an_abort_before_the_model_said_anything_leaves_the_history_as_it_was() -> None:
    conversation = Conversation(ScriptedModel([WaitFor(threading.Event())], "Sun."))
    stream = conversation.stream("Oslo?")
    stream.cancel()
    assert stream.collect().abort is not None
    assert conversation.messages == ()


# One at a time


def test_two_runs_at_once_are_refused() -> None:
    conversation = Conversation(ScriptedModel("Rain.", "Sun."))
    stream = conversation.stream("Oslo?")
    with pytest.raises(RuntimeError, match="in the midst of a run"):
        conversation.stream("Bergen?")
    assert stream.collect().text == "Rain."
    assert conversation.run("Bergen?").text == "Sun."


def test_of_many_threads_one_is_let_in() -> None:
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


def test_a_fork_goes_on_by_itself() -> None:
    model = ScriptedModel("Rain.", "Left.", "Right.")
    conversation = Conversation(model)
    conversation.run("Oslo?")
    fork = conversation.fork()
    with conversation.stream("left") as one, fork.stream("right") as other:
        assert (one.collect().text, other.collect().text) == ("Left.", "Right.")
    assert list(conversation.messages) == said("Oslo?", "Rain.", "left", "Left.")
    assert list(fork.messages) == said("Oslo?", "Rain.", "right", "Right.")


# JSON


def test_a_snapshot_goes_on_where_it_was_taken() -> None:
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


def test_a_snapshot_may_name_a_tool_that_is_given_again() -> None:
    first = Conversation(ScriptedModel(), tools=[LOOK], tool_choice=ToolChoice.tool("look"))
    model = ScriptedModel("Sun.")
    Conversation.from_json(first.to_json(), model, tools=[LOOK]).run("Oslo?")
    assert model.requests[0].tool_choice == ToolChoice.tool("look")
    with pytest.raises(ValueError, match="there are no tools"):
        Conversation.from_json(first.to_json(), model).run("Oslo?")


def test_a_snapshot_has_nothing_of_the_run_that_goes_on() -> None:
    conversation = Conversation(ScriptedModel("Rain."))
    before = conversation.to_json()
    with conversation.stream("Oslo?") as stream:
        next(stream)
        assert conversation.to_json() == before


def test_a_snapshot_with_a_function_for_compaction_wants_it_again() -> None:
    written = Conversation(ScriptedModel(), compaction=lambda messages: ()).to_json()
    with pytest.raises(ValueError, match="a function for compaction="):
        Conversation.from_json(written, ScriptedModel())
    Conversation.from_json(written, ScriptedModel(), compaction="truncate")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schema": "other.1"}, "reads completion.conversation.1"),
        ({"messages": [{"role": "user"}]}, r"messages\[0\].blocks is missing"),
        ({"settings": {"max_tokens": "9"}}, "ChatRequest.max_tokens"),
        ({"budget": -1}, "budget must be"),
    ],
)
def test_a_snapshot_that_was_damaged_is_refused(change: dict[str, Any], words: str) -> None:
    document = json.loads(Conversation(ScriptedModel()).to_json())
    with pytest.raises(ValueError, match=words):
        Conversation.from_json(json.dumps({**document, **change}), ScriptedModel())


@pytest.mark.parametrize(
    "options", [{"budget": 0}, {"budget": True}, {"compaction": "gzip"}, {"temperature": float("nan")}]
)
def test_settings_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"must be|compaction"):
        Conversation(ScriptedModel(), **options)
    with pytest.raises(TypeError):
        Conversation(ScriptedModel(), heat=1)


# The budget


def test_over_the_budget_the_oldest_exchanges_go_in_whole() -> None:
    model = ScriptedModel(answer("Three.", 90), "Four.")
    messages = [
        *said("one", "One."),
        Message.user("two"),
        Message.assistant([ToolCallBlock("c9", "look", {})]),
        Message.tool_result("c9", "Nothing."),
        Message.assistant("Two."),
    ]
    conversation = Conversation(model, budget=100, messages=messages)
    conversation.run("three")
    conversation.run("four")
    assert asked(model) == [
        ["one", "One.", "two", "", "", "Two.", "three"],
        ["three", "Three.", "four"],
    ]
    assert list(conversation.messages) == said("three", "Three.", "four", "Four.")


def test_within_the_budget_nothing_goes() -> None:
    model = ScriptedModel(answer("One.", 10), answer("Two.", 20), answer("Three.", 30))
    conversation = Conversation(model, budget=100)
    for word in ("one", "two", "three"):
        conversation.run(word)
    assert len(asked(model)[-1]) == 5


def test_what_the_provider_counted_is_what_counts() -> None:
    """The same history, and a tokenizer that takes ten times as many."""
    lengths = []
    for used in (30, 300):
        model = ScriptedModel(answer("One.", used), "Two.")
        conversation = Conversation(model, budget=250)
        conversation.run("one " * 20)
        conversation.run("two")
        lengths.append(len(asked(model)[-1]))
    assert lengths == [3, 1]


def test_the_last_message_stays_however_long_it_is() -> None:
    model = ScriptedModel("One.", "Two.")
    conversation = Conversation(model, budget=20)
    conversation.run("x" * 1000)
    conversation.run("y" * 1000)
    assert asked(model) == [["x" * 1000], ["y" * 1000]]


def test_the_exchange_that_goes_on_is_never_cut() -> None:
    big = Tool(LOOK.definition, lambda: "x" * 1000)
    model = ScriptedModel(call("c1"), call("c2"), "Well.")
    conversation = Conversation(model, tools=[big], budget=200, messages=said("one", "One."))
    conversation.run("Look!")
    assert [len(request.messages) for request in model.requests] == [3, 3, 5]
    assert model.requests[-1].messages[0] == Message.user("Look!")
    assert len(conversation.messages) == 6


def test_a_message_that_middleware_adds_takes_no_place_of_the_users() -> None:
    class Again(Middleware):
        def on_turn_finished(self, run: RunInfo, turn: object) -> Sequence[Message] | None:
            return [Message.user("x" * 1000)] if run.iteration == 1 else None

    model = ScriptedModel("One.", "Two.")
    Conversation(model, budget=100, middleware=[Again()], messages=said("old", "Old.")).run("new")
    assert asked(model)[-1] == ["new", "One.", "x" * 1000]


def test_a_run_that_fails_after_a_cut_brings_everything_back() -> None:
    model = ScriptedModel(RateLimitError("slow down"))
    conversation = Conversation(model, budget=20, messages=said("x" * 100, "One."))
    with pytest.raises(RateLimitError):
        conversation.run("two")
    assert asked(model) == [["two"]]
    assert list(conversation.messages) == said("x" * 100, "One.")


def test_a_summary_takes_the_place_of_what_went_and_its_tokens_count() -> None:
    model = ScriptedModel(answer("They are called Bob.", 40), answer("Bob.", 20), answer("Yes.", 25))
    conversation = Conversation(
        model, budget=70, compaction="summary", messages=said("I am Bob. " * 20, "Hello, Bob.", "Fine?", "Fine.")
    )
    result = conversation.run("Who am I?")
    notes = "Notes of the conversation so far:\n\nThey are called Bob."
    assert result.text == "Bob."
    assert result.usage == conversation.usage == Usage(60, 2)
    assert asked(model)[0][0] == f"User: {'I am Bob. ' * 20}\n\nAssistant: Hello, Bob."
    assert asked(model)[1] == [notes, "Fine?", "Fine.", "Who am I?"]
    assert conversation.messages[0] == Message.user(notes)
    conversation.run("Sure?")
    assert asked(model)[2][0] == notes


def test_a_summary_is_summed_up_again() -> None:
    model = ScriptedModel("First notes.", "Two.", "Second notes.", "Three.")
    conversation = Conversation(model, budget=60, compaction="summary", messages=said("x" * 300, "One."))
    conversation.run("y" * 200)
    conversation.run("z" * 200)
    assert "First notes." in asked(model)[2][0]
    assert asked(model)[3] == ["Notes of the conversation so far:\n\nSecond notes.", "z" * 200]


def test_what_goes_into_a_summary_passes_the_middleware() -> None:
    model = ScriptedModel("Notes.", "Yes.")
    conversation = Conversation(
        model,
        budget=20,
        compaction="summary",
        middleware=[Redaction("email")],
        messages=said("I am jane@example.org. " * 5, "Hello."),
    )
    conversation.run("Well?")
    assert "jane" not in repr(model.requests)


def test_calls_are_in_the_summary_as_text() -> None:
    model = ScriptedModel("Notes.", "Yes.")
    history = [
        Message.user("Look! " * 30),
        Message.assistant([ToolCallBlock("c0", "look", {"at": 1})]),
        Message.tool_result("c0", "Nothing."),
        Message.assistant("Nothing there."),
    ]
    Conversation(model, budget=20, compaction="summary", messages=history).run("Well?")
    assert model.requests[0].tools == ()
    assert asked(model)[0][0].endswith(
        'Assistant called look with {"at": 1}\n\nResult: Nothing.\n\nAssistant: Nothing there.'
    )


def test_an_error_of_the_summary_is_one_of_the_run() -> None:
    conversation = Conversation(
        ScriptedModel(RateLimitError("slow down")), budget=20, compaction="summary", messages=said("x" * 300, "One.")
    )
    with pytest.raises(RateLimitError):
        conversation.run("two")
    assert list(conversation.messages) == said("x" * 300, "One.")


def test_a_cancelled_summary_ends_the_run() -> None:
    entered, token = threading.Event(), CancelToken()

    class Entering(Middleware):
        def on_run_started(self, run: RunInfo) -> None:
            entered.set()

    model = ScriptedModel([TextDelta("Notes"), WaitFor(threading.Event())])
    conversation = Conversation(
        model, budget=20, compaction="summary", middleware=[Entering()], messages=said("x" * 300, "One.")
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
    assert list(conversation.messages) == said("x" * 300, "One.")


def test_the_clock_of_a_run_ends_its_summary() -> None:
    conversation = Conversation(
        ScriptedModel([TextDelta("Notes"), WaitFor(threading.Event())]),
        config=RunConfig(timeout=0.1),
        budget=20,
        compaction="summary",
        messages=said("x" * 300, "One."),
    )
    result = conversation.run("two")
    assert result.abort is not None
    assert result.abort.kind == "timeout"


def test_a_summary_that_middleware_aborts_ends_the_run() -> None:
    class Aborting(Middleware):
        def on_request(self, run: RunInfo, request: ChatRequest) -> ChatRequest:
            raise AbortRun("no more")

    conversation = Conversation(
        ScriptedModel(), budget=20, compaction="summary", middleware=[Aborting()], messages=said("x" * 300, "One.")
    )
    result = conversation.run("two")
    assert result.abort is not None
    assert result.abort.message == "no more"


def test_a_function_may_say_what_takes_the_place() -> None:
    went: list[Sequence[Message]] = []

    def marked(messages: Sequence[Message]) -> Sequence[Message]:
        went.append(messages)
        return [Message.user(f"({len(messages)} messages left out)")]

    model = ScriptedModel("Two.")
    conversation = Conversation(model, budget=20, compaction=marked, messages=said("x" * 300, "One."))
    conversation.run("two")
    assert [list(one) for one in went] == [said("x" * 300, "One.")]
    assert asked(model) == [["(2 messages left out)", "two"]]
    assert conversation.messages[0] == Message.user("(2 messages left out)")


def test_a_function_that_makes_no_history_is_told() -> None:
    def halves(messages: Sequence[Message]) -> Sequence[Message]:
        return [Message.assistant([ToolCallBlock("c0", "look", {})])]

    conversation = Conversation(ScriptedModel(), budget=20, compaction=halves, messages=said("x" * 300, "One."))
    with pytest.raises(ValueError, match="what compaction= gave makes no history: there is no result of the call c0"):
        conversation.run("two")


# Overflow


@pytest.mark.parametrize("script", [overflow(), [overflow()]], ids=["setup", "before the first chunk"])
def test_an_overflow_is_asked_again_with_half_of_it_and_nothing_is_said_twice(script: Script) -> None:
    model = ScriptedModel(script, "Four.")
    conversation = Conversation(model, messages=said("one", "One.", "two", "Two.", "three", "Three."))
    chunks = [chunk.type for chunk in conversation.stream("four")]
    assert chunks == ["run_started", "step_started", "text_delta", "turn_finished", "step_finished", "run_finished"]
    assert asked(model)[1] == ["three", "Three.", "four"]
    assert list(conversation.messages) == said("three", "Three.", "four", "Four.")


def test_a_second_overflow_is_raised_and_everything_is_back() -> None:
    messages = said(*(f"word {i}" for i in range(16)))
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
    conversation = Conversation(model, messages=said("one", "One."))
    with pytest.raises(ContextOverflowError):
        conversation.run("two")


def test_another_error_is_raised_as_it_is() -> None:
    model = ScriptedModel(RateLimitError("slow down"))
    with pytest.raises(RateLimitError):
        Conversation(model, messages=said("one", "One.")).run("two")


def test_an_overflow_by_the_results_of_tools_drops_what_came_before_the_exchange() -> None:
    model = ScriptedModel(call(), overflow(), "Well.")
    conversation = Conversation(model, tools=[LOOK], messages=said("one", "One."))
    result = conversation.run("Look!")
    assert result.text == "Well."
    assert [message.text for message in conversation.messages] == ["Look!", "", "", "Well."]
    assert [len(request.messages) for request in model.requests] == [3, 5, 3]


def test_what_took_the_place_may_be_cut_itself_in_the_same_run() -> None:
    replacements = iter([said("a" * 400, "A.", "b", "B."), []])
    model = ScriptedModel(call(), overflow(), "Well.")
    conversation = Conversation(
        model, tools=[LOOK], budget=200, compaction=lambda gone: next(replacements), messages=said("x" * 1000, "One.")
    )
    conversation.run("Look!")
    assert asked(model)[2] == ["b", "B.", "Look!", "", ""]
    assert [message.text for message in conversation.messages] == ["b", "B.", "Look!", "", "", "Well."]


def test_an_overflow_after_a_cut_in_the_same_turn_cuts_more() -> None:
    model = ScriptedModel(overflow(), "Four.")
    conversation = Conversation(
        model, budget=100, messages=said("x" * 1000, "One.", "y" * 200, "Two.", "three", "Three.")
    )
    conversation.run("four")
    assert asked(model) == [["y" * 200, "Two.", "three", "Three.", "four"], ["three", "Three.", "four"]]
    assert list(conversation.messages) == said("three", "Three.", "four", "Four.")


def test_a_model_that_retries_goes_on_retrying() -> None:
    model = ScriptedModel(overflow(), RateLimitError("slow down"), "Two.")
    retrying = RetryingModel(model, RetryConfig(base_delay=0))
    assert Conversation(retrying, messages=said("one", "One.")).run("two").text == "Two."


def test_an_overflow_with_a_summary_counts_its_tokens() -> None:
    model = ScriptedModel(overflow(), answer("Notes.", 30), answer("Three.", 20))
    conversation = Conversation(model, compaction="summary", messages=said("one", "One.", "two", "Two."))
    result = conversation.run("three")
    assert (result.text, result.usage) == ("Three.", Usage(50, 2))
    assert conversation.messages[0].text == "Notes of the conversation so far:\n\nNotes."


def test_what_is_too_long_to_be_summed_up_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    model = ScriptedModel(overflow(), overflow(), "Three.")
    conversation = Conversation(model, compaction="summary", messages=said("one", "One."))
    with caplog.at_level(logging.WARNING, "completion.engine.conversation"):
        assert conversation.run("two").text == "Three."
    assert asked(model)[-1] == ["two"]
    assert "left out" in caplog.text


def test_middleware_that_sends_other_messages_costs_no_history() -> None:
    class Adding(Middleware):
        def on_request(self, run: RunInfo, request: ChatRequest) -> ChatRequest:
            return ChatRequest([*said("Now is noon.", "Good."), *request.messages])

    model = ScriptedModel(overflow(), "Two.")
    conversation = Conversation(model, middleware=[Adding()], messages=said("one", "One."))
    conversation.run("two")
    assert asked(model)[-1] == ["two"]
    assert list(conversation.messages) == said("one", "One.", "two", "Two.")


# On real wires


OVERFLOW = {"error": {"message": "too long", "type": "invalid_request_error", "code": "context_length_exceeded"}}


def test_an_overflow_on_the_wire_is_made_up_for(server: ProviderServer) -> None:
    server.reply(Reply.json(OVERFLOW, status=400))
    server.reply(Reply(text("Three."), END))
    messages = said("one" * 50, "One.", "two", "Two.")
    conversation = Conversation(model_of(server), system_prompt="Be brief.", messages=messages)
    assert conversation.run("three").text == "Three."
    sent = [[message["content"] for message in request.json()["messages"]] for request in server.requests]
    assert sent == [["Be brief.", "one" * 50, "One.", "two", "Two.", "three"], ["Be brief.", "two", "Two.", "three"]]


def test_an_overflow_inside_of_a_200_is_made_up_for(server: ProviderServer) -> None:
    server.reply(Reply(event(OVERFLOW)))
    server.reply(Reply(text("Two."), END))
    conversation = Conversation(model_of(server), messages=said("one", "One."))
    assert conversation.run("two").text == "Two."
    assert list(conversation.messages) == said("two", "Two.")


def test_the_embedded_model_goes_on_beyond_its_window() -> None:
    """SmolLM2 was trained for 8192 tokens, and its server refuses a prompt over that."""
    model = LocalModel()
    history = said("word " * 9000, "Yes.", "My name is Ada.", "Hello, Ada.")
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


# Whatever the history


@st.composite
def exchanges(draw: st.DrawFn) -> list[Message]:
    """An exchange: a message, calls with their results, an answer perhaps."""
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
    begins_with_a_greeting=st.booleans(),
    budget=st.integers(1, 400),
    overflows=st.booleans(),
    compaction=st.sampled_from(["truncate", "summary"]),
)
def test_whatever_is_cut_the_history_is_one_that_both_wires_take(
    history: list[list[Message]], begins_with_a_greeting: bool, budget: int, overflows: bool, compaction: Compaction
) -> None:
    messages = [message for exchange in history for message in exchange]
    if begins_with_a_greeting:
        messages.insert(0, Message.assistant("Hello!"))
    model = _Tidy(overflows)
    conversation = Conversation(model, tools=[LOOK], budget=budget, compaction=compaction, messages=messages)
    try:
        conversation.run("The last word")
    except ContextOverflowError:
        assert list(conversation.messages) == messages
        return
    for request in model.requests:
        if request.tools:
            assert Message.user("The last word") in request.messages
            _check_lowered(request)
    Conversation(model, messages=conversation.messages)
    kept = [message for message in conversation.messages if not message.text.startswith("Notes of")]
    assert kept[:-4] == messages[len(messages) - len(kept[:-4]) :]
    assert [message.text for message in kept[-4:]] == ["The last word", "", "", "Well."]


class _Tidy:
    """A model that looks once and then answers; its first request with tools may be too long."""

    name, model = "tidy", "tidy-1"

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


def _check_lowered(request: ChatRequest) -> None:
    """Every result stands right after its call, on both wires, and the user begins."""
    chat = lower_openai(request, "m")[0]["messages"]
    waiting: list[str] = []
    for message in chat:
        if message["role"] == "tool":
            waiting.remove(message["tool_call_id"])
            continue
        assert waiting == []
        waiting = [one["id"] for one in message.get("tool_calls", ())]
    assert waiting == []
    claude = lower_anthropic(request, "m")[0]["messages"]
    asked_for: list[str] = []
    for message in claude:
        parts = message["content"] if isinstance(message["content"], list) else []
        answered = [part["tool_use_id"] for part in parts if part["type"] == "tool_result"]
        assert sorted(answered) == sorted(asked_for)
        asked_for = [part["id"] for part in parts if part["type"] == "tool_use"]
    assert asked_for == []
