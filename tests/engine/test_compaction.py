"""Compaction inside of a run: the budget of a conversation holds in each of its turns."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from completion import (
    Base64Source,
    ChatRequest,
    ChatStream,
    ContextOverflowError,
    Conversation,
    FinishReason,
    HistoryCompacted,
    ImageBlock,
    JsonTracer,
    Message,
    Middleware,
    RateLimitError,
    RunInfo,
    StreamChunk,
    TextBlock,
    Tool,
    ToolCallBlock,
    ToolCallFinished,
    ToolCallStarted,
    ToolDefinition,
    ToolResultBlock,
    TurnFinished,
    Usage,
)
from completion.engine.compaction import Compaction
from completion.engine.history import open_calls_of, why_invalid
from completion.engine.size import guess_request
from completion.testing import ProviderServer, Reply, ScriptedModel, event
from completion.testing.scripted import Step
from completion.web import ndjson, sse, ui_messages
from tests.loopback import END, model_of, text

LOOK = ToolDefinition("look", "Looks.", {"type": "object", "properties": {}})


def looking(result: Any) -> Tool:
    return Tool(LOOK, lambda: result)


def calls(*ids: str) -> list[Step]:
    pairs: list[Step] = []
    for one in ids:
        pairs += [ToolCallStarted(one, "look"), ToolCallFinished(one, "look", {})]
    return [*pairs, TurnFinished(FinishReason.TOOL_USE)]


def overflow() -> ContextOverflowError:
    return ContextOverflowError("prompt is too long")


def results_of(messages: Sequence[Message]) -> list[str]:
    """The texts of the tool results."""
    blocks = [block for message in messages for block in message.blocks if isinstance(block, ToolResultBlock)]
    return ["".join(part.text for part in block.blocks if isinstance(part, TextBlock)) for block in blocks]


def compactions(chunks: Sequence[StreamChunk]) -> list[HistoryCompacted]:
    return [chunk for chunk in chunks if isinstance(chunk, HistoryCompacted)]


def test_the_budget_holds_in_every_turn_of_a_run() -> None:
    model = ScriptedModel(*(calls(f"c{i}") for i in range(12)), "Well.")
    conversation = Conversation(model, tools=[looking("row " * 1000)], budget=3000)
    conversation.run("Read all rows.")
    assert max(guess_request(request) for request in model.requests) <= 3000
    for request in model.requests:
        assert request.messages[0] == Message.user("Read all rows.")
        assert why_invalid(request.messages) is None
        assert open_calls_of(request.messages) == []


def test_old_tool_results_are_shortened_before_anything_is_removed() -> None:
    model = ScriptedModel(calls("c1"), calls("c2"), "Well.")
    conversation = Conversation(
        model, tools=[looking("x" * 4000)], budget=1500, messages=[Message.user("Hi"), Message.assistant("Hello.")]
    )
    chunks = list(conversation.stream("Look!"))
    sent = model.requests[2].messages
    assert len(sent) == 7
    old, new = results_of(sent)
    assert "the whole result has 4,000 characters" in old
    assert (len(old), new) == (300, "x" * 4000)
    (compacted,) = compactions(chunks)
    assert (compacted.cause, compacted.method) == ("budget", "tool_results")
    assert (compacted.messages_before, compacted.messages_after) == (7, 7)
    assert compacted.tokens_after < 1500 < compacted.tokens_before


def test_the_chunk_follows_the_start_of_its_step() -> None:
    model = ScriptedModel(calls("c1"), calls("c2"), "Well.")
    chunks = list(Conversation(model, tools=[looking("x" * 4000)], budget=1500).stream("Look!"))
    position = next(i for i, chunk in enumerate(chunks) if isinstance(chunk, HistoryCompacted))
    assert [chunk.type for chunk in chunks[position - 1 : position + 2]] == [
        "step_started",
        "history_compacted",
        "text_delta",
    ]
    assert StreamChunk.from_json(chunks[position].to_json()) == chunks[position]


def test_an_image_in_an_old_result_is_removed_and_a_new_one_stays() -> None:
    image = ImageBlock(Base64Source("image/png", "aaaa"))
    model = ScriptedModel(calls("c1"), calls("c2"), "Well.")
    Conversation(model, tools=[looking([image, TextBlock("an image")])], budget=2000).run("Look!")
    old, new = [
        block
        for message in model.requests[2].messages
        for block in message.blocks
        if isinstance(block, ToolResultBlock)
    ]
    assert old.blocks == (TextBlock("[image: removed]"), TextBlock("an image"))
    assert new.blocks == (image, TextBlock("an image"))


def test_when_short_results_are_not_enough_old_steps_are_removed() -> None:
    model = ScriptedModel(*(calls(f"c{i}") for i in range(8)), "Well.")
    conversation = Conversation(model, tools=[looking("x" * 280)], budget=400)
    chunks = list(conversation.stream("Look!"))
    assert {chunk.method for chunk in compactions(chunks)} == {"truncate"}
    sent = model.requests[-1].messages
    assert sent[0] == Message.user("Look!")
    assert sent[1].text.startswith("(Your earlier steps for this task were removed")
    assert [message.role for message in sent[2:4]] == ["assistant", "user"]
    assert results_of(sent)[-1] == "x" * 280
    assert max(guess_request(request) for request in model.requests) <= 400


def test_new_results_are_shortened_when_they_alone_are_over_the_budget() -> None:
    model = ScriptedModel(calls("c1", "c2", "c3"), "Well.")
    Conversation(model, tools=[looking("x" * 8000)], budget=2000).run("Look!")
    results = results_of(model.requests[1].messages)
    assert [len(one) for one in results] == [2000] * 3
    assert guess_request(model.requests[1]) <= 2000


def test_a_summary_replaces_old_steps() -> None:
    scripts = [script for i in range(3) for script in (calls(f"c{i}"),)]
    model = ScriptedModel(*scripts, "Steps were made.", "Well.")
    conversation = Conversation(model, tools=[looking("x" * 280)], budget=250, compaction="summary")
    chunks = list(conversation.stream("Look!"))
    assert [chunk.method for chunk in compactions(chunks)] == ["summary"]
    sent = model.requests[-1].messages
    assert [message.text for message in sent[:2]] == [
        "Look!",
        "Notes of the conversation so far:\n\nSteps were made.",
    ]
    assert "Assistant called look" in model.requests[-2].messages[0].text
    assert "Result: xxx" in model.requests[-2].messages[0].text
    assert conversation.messages[: len(sent)] == sent


def test_a_function_gets_the_removed_steps() -> None:
    removed: list[Sequence[Message]] = []

    def note(messages: Sequence[Message]) -> Sequence[Message]:
        removed.append(messages)
        return [Message.user("(removed)")]

    model = ScriptedModel(*(calls(f"c{i}") for i in range(3)), "Well.")
    conversation = Conversation(model, tools=[looking("x" * 280)], budget=250, compaction=note)
    assert {chunk.method for chunk in compactions(list(conversation.stream("Look!")))} == {"function"}
    assert all(isinstance(block, ToolCallBlock) for block in removed[0][0].blocks)
    assert model.requests[-1].messages[1] == Message.user("(removed)")


def test_an_overflow_in_a_later_turn_compacts_and_tries_once_more() -> None:
    model = ScriptedModel(calls("c1"), calls("c2"), overflow(), "Well.")
    conversation = Conversation(model, tools=[looking("x" * 4000)])
    chunks = list(conversation.stream("Look!"))
    (compacted,) = compactions(chunks)
    assert compacted.cause == "context_overflow"
    assert guess_request(model.requests[3]) <= guess_request(model.requests[2]) / 2
    assert [chunk.type for chunk in chunks][-1] == "run_finished"
    assert conversation.messages[-1].text == "Well."


def test_one_huge_result_that_overflows_is_shortened() -> None:
    model = ScriptedModel(calls("c1"), overflow(), "Well.")
    conversation = Conversation(model, tools=[looking("x" * 40_000)])
    assert conversation.run("Look!").text == "Well."
    assert guess_request(model.requests[2]) <= guess_request(model.requests[1]) / 2
    assert results_of(model.requests[2].messages)[0].endswith("x")


def test_a_second_overflow_of_the_same_turn_is_raised() -> None:
    model = ScriptedModel(calls("c1"), overflow(), overflow(), "Never.")
    conversation = Conversation(model, tools=[looking("x" * 4000)])
    with pytest.raises(ContextOverflowError):
        conversation.run("Look!")
    assert conversation.messages == ()


def test_each_turn_may_overflow_once() -> None:
    model = ScriptedModel(calls("c1"), overflow(), calls("c2"), overflow(), "Well.")
    assert Conversation(model, tools=[looking("x" * 4000)]).run("Look!").text == "Well."


def test_if_the_summary_fails_inside_of_a_run_old_steps_are_removed() -> None:
    scripts = [calls(f"c{i}") for i in range(3)]
    model = ScriptedModel(*scripts, RateLimitError("slow down"), "Well.")
    conversation = Conversation(model, tools=[looking("x" * 280)], budget=250, compaction="summary")
    chunks = list(conversation.stream("Look!"))
    assert [chunk.method for chunk in compactions(chunks)] == ["truncate"]
    assert model.requests[-1].messages[1].text.startswith("(Your earlier steps")


def test_the_conversation_remembers_what_was_sent() -> None:
    model = ScriptedModel(calls("c1"), calls("c2"), "Well.", "Yes.")
    conversation = Conversation(model, tools=[looking("x" * 4000)], budget=1500)
    conversation.run("Look!")
    assert conversation.messages == (*model.requests[2].messages, Message.assistant("Well."))
    conversation.run("Sure?")
    assert model.requests[3].messages[0] == Message.user("Look!")


def test_words_that_middleware_hides_from_the_model_stay_in_the_history() -> None:
    class Shouting(Middleware):
        def on_request(self, run: RunInfo, request: ChatRequest) -> ChatRequest:
            messages = [
                Message(
                    one.role,
                    [TextBlock(block.text.upper()) if isinstance(block, TextBlock) else block for block in one.blocks],
                )
                for one in request.messages
            ]
            return ChatRequest(messages, tools=request.tools)

    model = ScriptedModel(calls("c1"), calls("c2"), overflow(), "Well.")
    conversation = Conversation(model, tools=[looking("x" * 4000)], middleware=[Shouting()])
    conversation.run("Look!")
    assert model.requests[3].messages[0].text == "LOOK!"
    assert conversation.messages[0].text == "Look!"
    assert len(results_of(conversation.messages)[0]) <= 2000


def test_a_request_that_cannot_be_shortened_is_sent_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    model = ScriptedModel("Well.")
    chunks = list(Conversation(model, budget=20).stream("x" * 1000))
    assert compactions(chunks) == []
    assert "its budget is 20: no more can be removed" in caplog.text


def test_a_summary_alone_is_not_summarized_again() -> None:
    with ScriptedModel("Notes.", calls("c1"), "Well.") as model:
        conversation = Conversation(
            model,
            tools=[looking("fine")],
            budget=50,
            compaction="summary",
            messages=[Message.user("old"), Message.assistant("Old.")],
        )
        conversation.run("x" * 1000)
    assert model.requests[-1].messages[0].text.endswith("Notes.")


def test_the_answers_of_client_side_tools_are_shortened_too() -> None:
    model = ScriptedModel(calls("c1"), calls("c2"), calls("c3"), "Well.")
    conversation = Conversation(model, tools=[LOOK], budget=1500)
    conversation.run("Look!")
    for i in (1, 2, 3):
        conversation.run(Message.tool_result(f"c{i}", "x" * 4000))
    assert max(guess_request(request) for request in model.requests) <= 1500
    assert model.requests[-1].messages[0] == Message.user("Look!")
    assert results_of(model.requests[-1].messages)[-1] == "x" * 4000


def test_a_paused_answer_is_not_cut_in_the_middle() -> None:
    paused: list[Step] = [TurnFinished(FinishReason.PAUSE)]
    model = ScriptedModel(*(calls(f"c{i}") for i in range(4)), [*calls("c9")[:-1], *paused], "Well.")
    conversation = Conversation(model, tools=[looking("x" * 280)], budget=300)
    conversation.run("Look!")
    for request in model.requests:
        assert why_invalid(request.messages) is None


# The chunk elsewhere


def chunks_of_a_compacted_run() -> Iterator[StreamChunk]:
    model = ScriptedModel(calls("c1"), calls("c2"), "Well.")
    return Conversation(model, tools=[looking("x" * 4000)], budget=1500).stream("Look!")


def test_the_trace_has_a_line_for_it(tmp_path: Any) -> None:
    path = tmp_path / "trace.jsonl"
    model = ScriptedModel(calls("c1"), calls("c2"), "Well.")
    with JsonTracer(path) as tracer:
        Conversation(model, tools=[looking("x" * 4000)], budget=1500, middleware=[tracer]).run("Look!")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    (line,) = [line for line in lines if line["kind"] == "history_compacted"]
    assert (line["cause"], line["method"]) == ("budget", "tool_results")


def test_web_responses_carry_it_or_ignore_it() -> None:
    assert b"history_compacted" in b"".join(sse(chunks_of_a_compacted_run()))
    assert b"history_compacted" in b"".join(ndjson(chunks_of_a_compacted_run()))
    body = b"".join(ui_messages(chunks_of_a_compacted_run()))
    assert b"compacted" not in body
    assert b"Well." in body


# On a real wire


def test_the_bodies_of_one_run_stay_within_the_budget(server: ProviderServer) -> None:
    for n in range(6):
        call = {"index": 0, "id": f"a{n}", "type": "function", "function": {"name": "look", "arguments": "{}"}}
        delta = {"index": 0, "delta": {"tool_calls": [call]}, "finish_reason": "tool_calls"}
        usage = {"prompt_tokens": 1100 * n + 50, "completion_tokens": 9, "total_tokens": 1100 * n + 59}
        server.reply(Reply(event({"id": "c1", "choices": [delta], "usage": usage}), event("[DONE]")))
    server.reply(Reply(text("Well."), END))
    conversation = Conversation(model_of(server), tools=[looking("row " * 1000)], budget=3000)
    assert conversation.run("Read all rows.").text == "Well."
    assert max(len(request.body) // 4 for request in server.requests) <= 3500


# Any run


@settings(max_examples=60, deadline=None)
@given(
    turns=st.lists(st.tuples(st.integers(1, 3), st.integers(1, 3000), st.booleans()), max_size=6),
    old=st.lists(st.integers(1, 500), max_size=3),
    budget=st.one_of(st.none(), st.integers(20, 2000)),
    compaction=st.sampled_from(["truncate", "summary"]),
)
def test_in_any_run_a_call_keeps_its_result(
    turns: list[tuple[int, int, bool]], old: list[int], budget: int | None, compaction: Compaction
) -> None:
    sizes = iter([size for count, size, _ in turns for _ in range(count)])
    lock = threading.Lock()

    def look() -> str:
        with lock:
            return "r" * next(sizes)

    model = _Planned(turns)
    history = [message for n in old for message in (Message.user("u" * n), Message.assistant("a" * n))]
    conversation = Conversation(model, tools=[Tool(LOOK, look)], budget=budget, compaction=compaction, messages=history)
    try:
        conversation.run("The task")
    except ContextOverflowError:
        assert list(conversation.messages) == history
        return
    for request in model.requests:
        if request.tools:
            assert Message.user("The task") in request.messages
            assert why_invalid(request.messages) is None
            assert open_calls_of(request.messages) == []
    assert why_invalid(conversation.messages) is None
    assert Message.user("The task") in conversation.messages
    assert conversation.messages[-1].text == "Well."


class _Planned:
    """A model that calls the tool as planned; it may refuse a turn once as too long."""

    name, model = "planned", "planned-1"

    def __init__(self, turns: list[tuple[int, int, bool]]) -> None:
        self.requests: list[ChatRequest] = []
        self._turns = list(turns)
        self._number = 0
        self._has_refused = False

    def chat_stream(self, req: ChatRequest) -> ChatStream:
        self.requests.append(req)
        if not req.tools:
            return ScriptedModel("Notes.").chat_stream(req)
        if not self._turns:
            return ScriptedModel("Well.").chat_stream(req)
        count, _, overflows = self._turns[0]
        if overflows and not self._has_refused:
            self._has_refused = True
            raise overflow()
        self._turns.pop(0)
        self._has_refused = False
        self._number += 1
        script = calls(*(f"c{self._number}-{i}" for i in range(count)))
        usage = Usage(round(guess_request(req)) + 1, 1)
        return ScriptedModel([*script[:-1], TurnFinished(FinishReason.TOOL_USE, usage)]).chat_stream(req)


def test_an_overflow_behind_middleware_that_keeps_the_latest_messages_leaves_each_result_with_its_call() -> None:
    class Latest(Middleware):
        def on_request(self, run: RunInfo, request: ChatRequest) -> ChatRequest:
            return ChatRequest(request.messages[-6:], tools=request.tools)

    model = ScriptedModel(*(calls(f"c{i}") for i in range(5)), overflow(), "Well.")
    Conversation(model, tools=[looking("x" * 280)], middleware=[Latest()]).run("Look!")
    assert len(model.requests[-1].messages) < 6
    assert why_invalid(model.requests[-1].messages) is None


@pytest.mark.parametrize("returned", [None, "notes", ["notes"]], ids=repr)
def test_a_function_that_returns_no_messages_is_named(returned: Any) -> None:
    conversation = Conversation(ScriptedModel("One.", "Two."), budget=100, compaction=lambda messages: returned)
    conversation.run("x" * 300)
    with pytest.raises(TypeError, match="compaction= must return Messages, got"):
        conversation.run("y" * 300)
