"""Turns that the provider pauses: the run continues them."""

from __future__ import annotations

from typing import Any

import pytest

from completion import (
    AnthropicModel,
    ChatRequest,
    Conversation,
    FinishReason,
    Message,
    ProviderBlockFinished,
    RunConfig,
    TextDelta,
    ToolDefinition,
    Usage,
    run_chat,
)
from completion.testing import ProviderServer, Reply, ScriptedModel, event
from tests.loopback import HI, KEY
from tests.runs import called, end_of, named, turn

SEARCH = {"type": "server_tool_use", "id": "srv_1", "name": "web_search", "input": {"query": "x"}}
FOUND = {"type": "web_search_tool_result", "tool_use_id": "srv_1", "content": []}


def paused(*pieces: Any, usage: Usage | None = None) -> Any:
    return turn(*pieces, reason=FinishReason.PAUSE, usage=usage)


def claude(reason: str, *blocks: dict[str, Any]) -> Reply:
    """An answer of Anthropic Messages with these blocks."""

    def typed(kind: str, **fields: Any) -> bytes:
        return event({"type": kind, **fields}, kind)

    parts = [typed("message_start", message={"id": "m1", "usage": {"input_tokens": 1, "output_tokens": 1}})]
    for i, block in enumerate(blocks):
        parts += [typed("content_block_start", index=i, content_block=block), typed("content_block_stop", index=i)]
    end = typed("message_delta", delta={"stop_reason": reason}, usage={"output_tokens": 3})
    return Reply(*parts, end, typed("message_stop"))


def model_of(server: ProviderServer) -> AnthropicModel:
    return AnthropicModel("claude-sonnet-4-5", api_key=KEY, base_url=server.url)


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def test_a_paused_turn_is_continued() -> None:
    with ScriptedModel(paused("I look. ", usage=Usage(5, 2)), paused(), turn("Found.", usage=Usage(7, 3))) as model:
        result = run_chat(model, HI).collect()
    assert [request.messages[1:] for request in model.requests] == [
        (),
        (Message.assistant("I look. "),),
        (Message.assistant("I look. "),),
    ]
    assert (result.reason, result.usage) == (FinishReason.END_TURN, Usage(12, 5))
    assert result.new_messages == (Message.assistant("I look. "), Message.assistant("Found."))


def test_the_text_of_a_continued_answer_is_that_of_all_its_turns() -> None:
    calls = turn("Wait. ", called("now"))
    model = ScriptedModel(calls, paused("I look. "), turn("Found."))
    assert run_chat(model, HI, [named("now")]).collect().text == "I look. Found."


def test_the_limits_of_the_run_end_it_at_a_pause() -> None:
    with ScriptedModel(paused("a"), paused("b")) as model:
        end = end_of(run_chat(model, HI, config=RunConfig(max_iterations=2)))
    assert end.abort is not None
    assert end.abort.kind == "max_iterations"
    assert end.new_messages == (Message.assistant("a"), Message.assistant("b"))
    with ScriptedModel(paused("a", usage=Usage(50, 50))) as model:
        end = end_of(run_chat(model, HI, config=RunConfig(max_tokens=100)))
    assert end.abort is not None
    assert end.abort.kind == "max_tokens"


def test_a_paused_turn_with_a_call_of_the_run_is_answered_and_continued() -> None:
    with ScriptedModel(paused("Hm. ", called("now")), turn("Noon.")) as model:
        end = end_of(run_chat(model, HI, [named("now")]))
    assert [message.role for message in end.new_messages] == ["assistant", "user", "assistant"]


def test_a_paused_turn_with_a_call_of_a_client_side_tool_ends_the_run() -> None:
    request = ChatRequest("Hi", tools=[ToolDefinition("client", "", {"type": "object"})])
    with ScriptedModel(paused(called("client"))) as model:
        assert end_of(run_chat(model, request)).abort is None


def test_an_answer_may_be_cancelled_at_its_pause() -> None:
    run = run_chat(ScriptedModel([*paused("a")]), HI)
    for chunk in run:
        if chunk.type == "turn_finished":
            run.cancel()
    assert run.result.abort is not None
    assert run.result.new_messages == (Message.assistant("a"),)


def test_anthropic_gets_the_paused_answer_back_unchanged(server: ProviderServer) -> None:
    server.reply(claude("pause_turn", text("I look."), SEARCH))
    server.reply(claude("end_turn", FOUND, text("Found.")))
    result = run_chat(model_of(server), "Find x.").collect()
    assert result.text == "I look.Found."
    assert server.requests[1].json()["messages"] == [
        {"role": "user", "content": [text("Find x.")]},
        {"role": "assistant", "content": [text("I look."), SEARCH]},
    ]


@pytest.mark.parametrize("said", [[], [text("I look.")]], ids=["only the search", "text and the search"])
def test_a_conversation_whose_run_ended_at_a_pause_goes_on(server: ProviderServer, said: list[Any]) -> None:
    server.reply(claude("pause_turn", *said, SEARCH))
    server.reply(claude("end_turn", text("Well.")))
    conversation = Conversation(model_of(server), config=RunConfig(max_iterations=1))
    assert conversation.run("Find x.").abort is not None
    assert conversation.run("And y?").text == "Well."
    sent = server.requests[1].json()["messages"]
    assert [block["type"] for message in sent for block in message["content"]] == ["text"] * len([0, *said, 0])
    assert sent[-1]["role"] == "user"


def test_a_continued_answer_is_one_message_for_anthropic(server: ProviderServer) -> None:
    server.reply(claude("pause_turn", SEARCH))
    server.reply(claude("end_turn", FOUND, text("Found.")))
    server.reply(claude("end_turn", text("More.")))
    conversation = Conversation(model_of(server))
    conversation.run("Find x.")
    conversation.run("And y?")
    sent = server.requests[2].json()["messages"]
    assert [message["role"] for message in sent] == ["user", "assistant", "user"]
    assert sent[1]["content"] == [SEARCH, FOUND, text("Found.")]


def test_provider_blocks_of_a_paused_answer_are_kept() -> None:
    block = ProviderBlockFinished("anthropic", SEARCH)
    end = end_of(run_chat(ScriptedModel(paused([block]), turn([TextDelta("Found.")])), HI))
    assert [block.type for block in end.new_messages[0].blocks] == ["provider"]
