"""Histories with a call that has no result: they can be continued on every wire."""

from __future__ import annotations

from typing import Any

import pytest

from completion import (
    ChatRequest,
    CompletionModel,
    Conversation,
    LocalModel,
    Message,
    RunConfig,
    ToolCallBlock,
    ToolDefinition,
    run_chat,
)
from completion.testing import ProviderServer, Reply, ScriptedModel
from tests.engine.test_pauses import claude
from tests.engine.test_pauses import model_of as claude_of
from tests.loopback import END, model_of, text
from tests.runs import called, named, turn

CLIENT = ToolDefinition("client", "", {"type": "object"})
OPEN = [Message.user("Look!"), Message.assistant([ToolCallBlock("c1", "look", {})])]


def openai(server: ProviderServer) -> CompletionModel:
    server.reply(Reply(text("Well."), END))
    return model_of(server)


def anthropic(server: ProviderServer) -> CompletionModel:
    server.reply(claude("end_turn", {"type": "text", "text": "Well."}))
    return claude_of(server)


def stored_with_open_call() -> str:
    conversation = Conversation(ScriptedModel(turn(called("client"))), tools=[CLIENT])
    conversation.run("Look!")
    return conversation.to_json()


def test_a_conversation_that_ends_with_a_call_reads_back_and_takes_the_result() -> None:
    model = ScriptedModel("Well.")
    conversation = Conversation.from_json(stored_with_open_call(), model, tools=[CLIENT])
    assert conversation.run(Message.tool_result("c1", "Done.")).text == "Well."
    assert model.requests[0].messages[-1] == Message.tool_result("c1", "Done.")


def test_a_call_of_a_client_side_tool_must_be_answered() -> None:
    conversation = Conversation.from_json(stored_with_open_call(), ScriptedModel(), tools=[CLIENT])
    with pytest.raises(ValueError, match="no tool result for the call c1 of a client-side tool"):
        conversation.stream("Go on.")


def test_a_call_of_a_tool_that_is_gone_need_not_be_answered() -> None:
    conversation = Conversation.from_json(stored_with_open_call(), ScriptedModel("Well."))
    assert conversation.run("Go on.").text == "Well."


@pytest.mark.parametrize("model_at", [openai, anthropic])
@pytest.mark.parametrize("said", ["Go on.", Message.tool_result("c1", "Done.")], ids=["text", "result"])
def test_the_next_request_answers_the_call(server: ProviderServer, model_at: Any, said: Any) -> None:
    conversation = Conversation(model_at(server), tools=[named("look")], messages=OPEN)
    assert conversation.run(said).text == "Well."
    behind = server.requests[0].json()["messages"][2]
    if model_at is openai:
        assert (behind["role"], behind["tool_call_id"]) == ("tool", "c1")
    else:
        assert behind["content"][0]["type"] == "tool_result"


@pytest.mark.parametrize("model_at", [openai, anthropic])
def test_a_run_may_begin_with_an_open_call(server: ProviderServer, model_at: Any) -> None:
    assert run_chat(model_at(server), ChatRequest(OPEN), [named("look")]).collect().text == "Well."
    assert len(server.requests[0].json()["messages"]) == 3


def test_an_open_call_in_the_middle_is_no_fault() -> None:
    messages = [*OPEN, Message.user("Hm."), Message.assistant("Well.")]
    conversation = Conversation(ScriptedModel("Yes."), messages=messages)
    assert conversation.run("Sure?").text == "Yes."
    assert list(conversation.messages) == [*messages, Message.user("Sure?"), Message.assistant("Yes.")]


def test_a_conversation_with_open_calls_can_be_shortened() -> None:
    history = [*OPEN, Message.user("x" * 1000), Message.assistant([ToolCallBlock("c2", "look", {})])]
    model = ScriptedModel("Well.")
    conversation = Conversation(model, budget=100, messages=history)
    assert conversation.run("Go on.").text == "Well."
    assert list(conversation.messages) == [Message.user("Go on."), Message.assistant("Well.")]


def test_the_embedded_model_goes_on_after_an_open_call() -> None:
    pytest.importorskip("xllamacpp")
    conversation = Conversation(LocalModel(), max_tokens=4, messages=OPEN, config=RunConfig(max_iterations=1))
    conversation.run("Say hello.")
    again = Conversation.from_json(conversation.to_json(), LocalModel())
    again.run("And again.")
    assert len(again.messages) == 6
