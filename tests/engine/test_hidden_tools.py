"""Tools that middleware takes out of a request: the model cannot call them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from completion import (
    Approval,
    ChatRequest,
    LocalModel,
    Middleware,
    RunInfo,
    ToolCallBlock,
    ToolChoice,
    ToolDefinition,
    ToolResultBlock,
    run_chat,
)
from completion.testing import ScriptedModel
from tests.loopback import HI
from tests.runs import called, end_of, named, results_in, texts, turn


class Hiding(Middleware):
    """Takes tools out of each request for which ``when`` is true."""

    def __init__(self, *names: str, when: Callable[[RunInfo], bool] = lambda run: True) -> None:
        self._names = names
        self._when = when

    def on_request(self, run: RunInfo, request: ChatRequest) -> ChatRequest:
        if not self._when(run):
            return request
        return replace(request, tools=tuple(tool for tool in request.tools if tool.name not in self._names))


def test_a_hidden_tool_does_not_run_and_is_not_named() -> None:
    made: list[str] = []
    tools = [named("secret", lambda: made.append("secret")), named("open", lambda: "fine")]
    model = ScriptedModel(turn(called("secret", "a"), called("open", "b")), turn("ok"))
    end = end_of(run_chat(model, HI, tools, [Hiding("secret")]))
    assert made == []
    assert texts(end.new_messages) == ["There is no tool 'secret'. The tools are: open.", "fine"]
    assert [result.is_error for result in results_in(end.new_messages)] == [True, False]


def test_the_answer_to_an_unknown_call_does_not_name_hidden_tools() -> None:
    model = ScriptedModel(turn(called("other")), turn("ok"))
    end = end_of(run_chat(model, HI, [named("secret")], [Hiding("secret")]))
    assert texts(end.new_messages) == ["There is no tool 'other'. The tools are: none."]


def test_a_definition_that_middleware_added_without_a_function_is_not_named_as_a_tool() -> None:
    class Adding(Middleware):
        def on_request(self, run: RunInfo, request: ChatRequest) -> ChatRequest:
            return replace(request, tools=(*request.tools, ToolDefinition("added", "", {"type": "object"})))

    model = ScriptedModel(turn(called("added")), turn("ok"))
    end = end_of(run_chat(model, HI, [named("open")], [Adding()]))
    assert texts(end.new_messages) == ["There is no tool 'added'. The tools are: open."]


def test_what_counts_is_the_request_of_the_same_turn() -> None:
    model = ScriptedModel(turn(called("now", "a")), turn(called("now", "b")), turn("ok"))
    end = end_of(run_chat(model, HI, [named("now")], [Hiding("now", when=lambda run: run.iteration == 1)]))
    assert [result.is_error for result in results_in(end.new_messages)] == [True, False]


def test_a_hidden_client_side_tool_is_answered_by_the_run() -> None:
    request = ChatRequest("Hi", tools=[ToolDefinition("client", "", {"type": "object"})])
    model = ScriptedModel(turn(called("client")), turn("ok"))
    end = end_of(run_chat(model, request, (), [Hiding("client")]))
    assert texts(end.new_messages) == ["There is no tool 'client'. The tools are: none."]


def test_the_user_is_not_asked_about_a_hidden_tool() -> None:
    asked: list[str] = []

    def decide(call: ToolCallBlock) -> bool:
        asked.append(call.name)
        return True

    model = ScriptedModel(turn(called("secret")), turn("ok"))
    end_of(run_chat(model, HI, [named("secret")], [Hiding("secret"), Approval(decide)]))
    assert asked == []


def test_middleware_sees_the_refusal() -> None:
    seen: list[ToolResultBlock] = []

    class Seeing(Middleware):
        def after_tool(self, run: RunInfo, call: ToolCallBlock, result: ToolResultBlock) -> ToolResultBlock:
            seen.append(result)
            return result

    model = ScriptedModel(turn(called("secret")), turn("ok"))
    end_of(run_chat(model, HI, [named("secret")], [Hiding("secret"), Seeing()]))
    assert [result.is_error for result in seen] == [True]


def test_a_tool_choice_of_none_hides_no_tool() -> None:
    request = ChatRequest("Hi", tool_choice=ToolChoice.none())
    model = ScriptedModel(turn(called("now")), turn("ok"))
    assert texts(end_of(run_chat(model, request, [named("now")])).new_messages) == ["fine"]


def test_the_embedded_model_answers_without_a_hidden_tool() -> None:
    pytest.importorskip("xllamacpp")
    request = ChatRequest("Say hello.", max_tokens=8, temperature=0.0)
    end = end_of(run_chat(LocalModel(), request, [named("secret")], [Hiding("secret")]))
    assert results_in(end.new_messages) == []
