"""Runs with tools on a real model, the embedded one: calls are forced, and a grammar makes them match their schema.

The temperature is 0, because a turn without a forced call may call a tool too: the tests must not depend on chance.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any, Final, Literal

import pytest

from completion import (
    ChatRequest,
    Conversation,
    FinishReason,
    LocalModel,
    Message,
    Middleware,
    RunConfig,
    RunFinished,
    RunInfo,
    RunStream,
    StepFinished,
    StepStarted,
    TextDelta,
    ToolCallBlock,
    ToolCallFinished,
    ToolChoice,
    ToolResult,
    run_chat,
    tool,
)
from tests.loopback import Caught
from tests.runs import check_history, end_of, results_in, texts

pytest.importorskip("xllamacpp")
pytest.importorskip("pydantic")

LONG_S = 600  # only a limit against hanging: the machine may be busy
NO_CHANCE: Final[dict[str, Any]] = {"temperature": 0.0, "seed": 1}


@tool
def weather(city: Literal["Oslo", "Rome"], days: int = 1) -> str:
    """The weather of a city."""
    return f"It rains in {city}, for {days} days."


@tool
def now() -> str:
    """The time of day."""
    return "It is noon."


WEATHER = ToolChoice.tool("weather")


def request_with(choice: ToolChoice | None, **fields: int) -> ChatRequest:
    definitions = [weather.definition, now.definition]
    more = {**NO_CHANCE, "max_tokens": 60, **fields}
    return ChatRequest("Is it raining in Oslo?", tools=definitions, tool_choice=choice, **more)


def start_run(choice: ToolChoice | None = WEATHER, **fields: int) -> RunStream:
    return run_chat(LocalModel(), request_with(choice, **fields), tools=[weather, now])


class ForceCall(Middleware):
    """Forces the first turn of each run to call this tool."""

    def __init__(self, choice: ToolChoice) -> None:
        self._choice = choice

    def on_request(self, run: RunInfo, request: ChatRequest) -> ChatRequest:
        return replace(request, tool_choice=self._choice) if run.iteration == 1 else request


def calls_of(end: RunFinished) -> list[ToolCallBlock]:
    return [block for message in end.new_messages for block in message.blocks if isinstance(block, ToolCallBlock)]


@pytest.mark.parametrize("choice", [ToolChoice.any(), ToolChoice.tool("weather")], ids=["any", "by name"])
def test_a_forced_call_is_made_and_answered_and_the_model_continues(choice: ToolChoice) -> None:
    end = end_of(start_run(choice))
    (call,) = calls_of(end)
    (result,) = results_in(end.new_messages)
    assert not result.is_error
    answer = weather(**call.args) if call.name == "weather" else now()
    assert texts(end.new_messages) == [answer]
    assert [message.role for message in end.new_messages] == ["assistant", "user", "assistant"]
    assert end.new_messages[-1].text
    check_history(end.new_messages)


def test_the_chunks_have_the_documented_order() -> None:
    chunks = list(start_run())
    kinds = [kind for kind, _ in itertools.groupby(chunk.type for chunk in chunks)]
    first = ["run_started", "step_started", "tool_call_started", "tool_call_args_delta", "tool_call_finished"]
    assert kinds == [
        *first, "turn_finished", "tool_result", "step_finished",
        "step_started", "text_delta", "turn_finished", "step_finished", "run_finished",
    ]  # fmt: skip
    assert len({chunk.run_id for chunk in chunks if isinstance(chunk, StepStarted | StepFinished | RunFinished)}) == 1


def test_arguments_arrive_in_deltas_and_the_tool_runs_before_the_next_turn() -> None:
    seen: list[str] = []

    @tool
    def note(about: Literal["the milk that is to be bought"]) -> str:
        """Write a note down."""
        seen.append("the tool")
        return "Noted."

    request = ChatRequest("Note: buy milk.", 60, tools=[note.definition], tool_choice=ToolChoice.any(), **NO_CHANCE)
    for chunk in run_chat(LocalModel(), request, tools=[note]):
        seen.append(chunk.type)  # noqa: PERF401  in between, the tool appends
    assert seen.count("tool_call_args_delta") > 1
    assert seen.index("tool_call_finished") < seen.index("the tool") < seen.index("text_delta")


def test_usage_adds_up_over_the_turns() -> None:
    chunks = list(start_run())
    *_, end = chunks
    assert isinstance(end, RunFinished)
    steps = [chunk.usage for chunk in chunks if isinstance(chunk, StepFinished)]
    assert len(steps) == 2
    assert all(usage.input_tokens > 0 and usage.output_tokens > 0 for usage in steps)
    assert end.usage == steps[0] + steps[1]


def test_parallel_runs_do_not_mix() -> None:
    runs = [Caught(lambda: list(start_run())) for _ in range(4)]
    ids = set()
    for run in runs:
        assert run.within(LONG_S).error is None
        results = [chunk for chunk in run.result if isinstance(chunk, ToolResult)]
        calls = [chunk.call_id for chunk in run.result if isinstance(chunk, ToolCallFinished)]
        assert [result.call_id for result in results] == calls
        ids |= {result.run_id for result in results}
    assert len(ids) == 4


def test_a_conversation_remembers_the_calls_of_its_first_run() -> None:
    conversation = Conversation(
        LocalModel(), tools=[weather], middleware=[ForceCall(WEATHER)], max_tokens=40, **NO_CHANCE
    )
    conversation.run("Is it raining in Oslo?")
    once = conversation.messages
    conversation.run("And in Rome?")
    assert conversation.messages[: len(once)] == once
    assert [message.role for message in conversation.messages] == ["user", "assistant"] * 4
    assert len(results_in(conversation.messages)) == 2
    check_history(conversation.messages[1:])


def test_the_model_reads_the_error_of_a_tool_and_the_run_ends_well() -> None:
    @tool
    def weather(city: Literal["Oslo", "Rome"]) -> str:
        """The weather of a city."""
        raise LookupError(f"there is no station in {city}")

    request = ChatRequest("Is it raining in Oslo?", 60, tools=[weather.definition], tool_choice=WEATHER, **NO_CHANCE)
    end = end_of(run_chat(LocalModel(), request, tools=[weather]))
    (result,) = results_in(end.new_messages)
    assert result.is_error
    assert texts(end.new_messages)[0].startswith("LookupError: there is no station in ")
    assert end.new_messages[-1].text


def test_a_call_cut_off_by_max_tokens_gets_an_error_result() -> None:
    end = end_of(start_run(max_tokens=12))
    (result,) = results_in(end.new_messages)
    assert result.is_error
    assert "Call weather with shorter arguments." in texts(end.new_messages)[0]
    assert end.new_messages[-1].text


def test_a_run_without_a_forced_call_ends_well() -> None:
    end = end_of(start_run(None))
    assert end.reason in (FinishReason.END_TURN, FinishReason.MAX_TOKENS)
    assert end.abort is None


def test_cancelling_in_the_second_turn_leaves_a_history_that_can_be_continued() -> None:
    run = start_run(max_tokens=400)
    for chunk in run:
        if isinstance(chunk, TextDelta):
            run.cancel()
    assert isinstance(chunk, RunFinished)
    assert chunk.abort is not None
    assert chunk.abort.kind == "cancelled"
    assert len(results_in(chunk.new_messages)) == 1
    history = [Message.user("Is it raining in Oslo?"), *chunk.new_messages, Message.user("And in Rome?")]
    assert (
        LocalModel()
        .chat_stream(ChatRequest(history, max_tokens=8, tools=[weather.definition], **NO_CHANCE))
        .collect()
        .text
    )


def test_with_one_iteration_the_call_is_answered_and_the_run_aborted() -> None:
    run = run_chat(LocalModel(), request_with(WEATHER), tools=[weather, now], config=RunConfig(max_iterations=1))
    end = end_of(run)
    assert end.abort is not None
    assert end.abort.kind == "max_iterations"
    assert [result.is_error for result in results_in(end.new_messages)] == [True]
