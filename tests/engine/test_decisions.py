"""Calls that wait for a person: the run ends, and another run, perhaps in another process, goes on with a decision."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from completion import (
    Approval,
    AsyncModel,
    ChatRequest,
    Conversation,
    FinishReason,
    Message,
    Middleware,
    Pending,
    Refusal,
    RunConfig,
    RunFinished,
    RunInfo,
    RunResult,
    StepFinished,
    StepStarted,
    StreamChunk,
    TextBlock,
    TextDelta,
    Tool,
    ToolCallBlock,
    ToolCallFinished,
    ToolCallStarted,
    ToolChoice,
    ToolDefinition,
    ToolResult,
    ToolResultBlock,
    TransportError,
    TurnFinished,
    run_chat,
    tool,
)
from completion.testing import ScriptedModel
from tests.loopback import PATIENCE_S

HI = ChatRequest("Clean up.")
Steps = list[StreamChunk]


def calls(*made: tuple[str, dict[str, Any]]) -> Steps:
    steps: Steps = []
    for i, (name, args) in enumerate(made):
        steps += [ToolCallStarted(f"c{i}", name), ToolCallFinished(f"c{i}", name, args)]
    return [*steps, TurnFinished(FinishReason.TOOL_USE)]


DONE: Steps = [TextDelta("Done."), TurnFinished(FinishReason.END_TURN)]
DELETE_BOTH = calls(("delete", {"path": "a"}), ("look", {}), ("delete", {"path": "b"}))


class Disk:
    """A tool that asks for approval, one that does not, and what they did."""

    def __init__(self, work: Callable[[str], Any] = str) -> None:
        self.deleted: list[str] = []
        self.looks = 0

        @tool(approval=True)
        def delete(path: str) -> str:
            "Deletes a file."
            self.deleted.append(path)
            return f"deleted {work(path)}"

        @tool
        def look() -> str:
            "Lists the files."
            self.looks += 1
            return "a b"

        self.tools: list[Tool] = [delete, look]

    def run(self, *turns: Steps, after: Sequence[Message] = (), **options: Any) -> RunResult:
        request = ChatRequest((*HI.messages, *after))
        return run_chat(ScriptedModel(*turns), request, self.tools, **options).collect()


def waiting(result: RunResult) -> list[str]:
    return [call.call_id for call in result.pending]


def read_by_model(messages: Sequence[Message]) -> dict[str, str]:
    """The text of each tool result, by call id."""
    blocks = [block for message in messages for block in message.blocks if isinstance(block, ToolResultBlock)]
    return {one.call_id: "".join(inner.text for inner in one.blocks if isinstance(inner, TextBlock)) for one in blocks}


def test_a_run_ends_with_the_calls_that_wait_and_the_results_of_the_others() -> None:
    disk = Disk()
    stream = run_chat(ScriptedModel(DELETE_BOTH), HI, disk.tools)
    *_, step, end = list(stream)
    assert isinstance(end, RunFinished) and isinstance(step, StepFinished)
    assert end.pending == (ToolCallBlock("c0", "delete", {"path": "a"}), ToolCallBlock("c2", "delete", {"path": "b"}))
    assert (end.reason, end.abort) == (FinishReason.TOOL_USE, None)
    assert read_by_model(end.new_messages) == {"c1": "a b"}
    assert (disk.deleted, disk.looks) == ([], 1)
    assert stream.result.pending == end.pending
    assert RunFinished.from_json(end.to_json()) == end
    assert RunResult.from_json(stream.result.to_json()) == stream.result


def test_decisions_answer_the_calls_and_the_run_goes_on() -> None:
    disk = Disk()
    first = disk.run(DELETE_BOTH)
    messages = [Message.from_json(message.to_json()) for message in first.new_messages]  # as read from a database
    result = disk.run(DONE, after=messages, decisions={"c0": True, "c2": Refusal("b is needed")})
    assert disk.deleted == ["a"]
    assert disk.looks == 1
    assert read_by_model(result.new_messages) == {"c0": "deleted a", "c2": "b is needed"}
    assert (result.text, result.pending, result.reason) == ("Done.", (), FinishReason.END_TURN)


def test_a_call_without_a_decision_keeps_waiting_and_the_model_is_not_asked() -> None:
    disk = Disk()
    first = disk.run(DELETE_BOTH)
    second = disk.run(after=first.new_messages, decisions={"c2": True})  # a ScriptedModel without turns would fail
    assert (waiting(second), disk.deleted, second.reason) == (["c0"], ["b"], FinishReason.TOOL_USE)
    messages = [*first.new_messages, *second.new_messages]
    assert waiting(disk.run(after=messages, decisions={})) == ["c0"]
    third = disk.run(DONE, after=messages, decisions={"c0": True})
    assert (third.text, disk.deleted, disk.looks) == ("Done.", ["b", "a"], 1)


def test_a_decision_may_change_the_arguments_and_the_history_keeps_those_of_the_model() -> None:
    disk = Disk()
    first = disk.run(calls(("delete", {"path": "a"})))
    disk.run(DONE, after=first.new_messages, decisions={"c0": {"path": "old/a"}})
    assert disk.deleted == ["old/a"]
    assert first.new_messages[0].blocks == (ToolCallBlock("c0", "delete", {"path": "a"}),)


@pytest.mark.parametrize(("decision", "read"), [(False, "The user did not allow this call."), ("Not now.", "Not now.")])
def test_a_call_may_be_refused_with_or_without_a_reason(decision: Any, read: str) -> None:
    disk = Disk()
    first = disk.run(calls(("delete", {"path": "a"})))
    result = disk.run(DONE, after=first.new_messages, decisions={"c0": decision})
    assert (disk.deleted, read_by_model(result.new_messages)) == ([], {"c0": read})


def test_a_decision_about_another_call_is_refused_and_nothing_runs() -> None:
    disk = Disk()
    first = disk.run(DELETE_BOTH)
    for decisions in ({"c0": True, "c1": True}, {"c0": True, "c9": True}):
        with pytest.raises(ValueError, match=r"'c[19]', which does not wait; the calls that wait are: c0, c2"):
            disk.run(after=first.new_messages, decisions=decisions)
    with pytest.raises(ValueError, match="'c0', which does not wait; no call waits"):
        disk.run(decisions={"c0": True})
    with pytest.raises(ValueError, match=r"decisions\['c0'\] cannot be used: These arguments are wrong"):
        disk.run(after=first.new_messages, decisions={"c0": {"file": "a"}})
    for wrong in (None, 1, ["a"]):
        with pytest.raises(TypeError, match=r"decisions\['c0'\] must be True, False, a reason"):
            disk.run(after=first.new_messages, decisions={"c0": wrong})
    assert disk.deleted == []


def test_a_call_that_was_decided_about_cannot_be_decided_again() -> None:
    disk = Disk()
    first = disk.run(calls(("delete", {"path": "a"})))
    second = disk.run(DONE, after=first.new_messages, decisions={"c0": True})
    with pytest.raises(ValueError, match="does not wait"):
        disk.run(DONE, after=[*first.new_messages, *second.new_messages], decisions={"c0": True})
    assert disk.deleted == ["a"]


def test_an_id_that_the_model_uses_again_is_a_new_call_which_waits() -> None:
    disk = Disk()
    first = disk.run(calls(("delete", {"path": "a"})))
    again = calls(("delete", {"path": "b"}))
    for middleware in ([], [Approval(lambda call: Pending(), names=["delete"])]):
        disk.deleted.clear()
        second = disk.run(again, after=first.new_messages, decisions={"c0": True}, middleware=middleware)
        assert (disk.deleted, [call.args for call in second.pending]) == (["a"], [{"path": "b"}])


def test_without_decisions_a_call_that_needs_approval_keeps_waiting() -> None:
    disk = Disk()
    first = disk.run(DELETE_BOTH)
    again = disk.run(after=first.new_messages)  # the model is not asked
    assert (waiting(again), again.new_messages, disk.deleted) == (["c0", "c2"], (), [])
    told = disk.run(DONE, after=[*first.new_messages, Message.user("Never mind.")])
    assert (told.text, told.pending, disk.deleted) == ("Done.", (), [])


def test_wrong_arguments_and_unknown_tools_go_back_to_the_model_before_anyone_is_asked() -> None:
    disk = Disk()
    asked: list[str] = []

    def decide(call: ToolCallBlock) -> bool:
        asked.append(call.call_id)
        return True

    wrong = calls(("delete", {}), ("remove", {}), ("look", {"at": 1}))
    for middleware in ([], [Approval(decide)]):
        result = disk.run(wrong, DONE, middleware=middleware)
        assert result.pending == ()
        read = read_by_model(result.new_messages)
        assert "path: is missing" in read["c0"] and "no tool 'remove'" in read["c1"] and "at: is unknown" in read["c2"]
    assert (asked, disk.deleted, disk.looks) == ([], [], 0)


def test_decide_may_let_a_call_wait() -> None:
    disk = Disk()
    approval = Approval(lambda call: Pending() if call.args.get("path") == "a" else True, names=["delete"])
    first = disk.run(DELETE_BOTH, middleware=[approval])
    assert (waiting(first), disk.deleted) == (["c0"], ["b"])
    second = disk.run(DONE, after=first.new_messages, middleware=[approval], decisions={"c0": True})
    assert (second.text, disk.deleted, disk.looks) == ("Done.", ["b", "a"], 1)


def test_decide_is_asked_about_tools_with_approval_too_and_its_yes_is_enough() -> None:
    disk = Disk()
    result = disk.run(DELETE_BOTH, DONE, middleware=[Approval(lambda call: True, names=["other"])])
    assert (result.pending, disk.deleted) == ((), ["a", "b"])


def test_middleware_of_a_user_may_let_a_call_wait_and_sees_the_call_again() -> None:
    seen: list[str] = []

    class Careful(Middleware):
        def before_tool(self, run: RunInfo, call: ToolCallBlock) -> ToolCallBlock | Refusal | Pending:
            seen.append(call.call_id)
            return Pending() if call.name == "look" else call

        def after_tool(self, run: RunInfo, call: ToolCallBlock, result: ToolResultBlock) -> ToolResultBlock:
            seen.append(f"result {call.call_id}")
            return result

    disk = Disk()
    first = disk.run(calls(("look", {})), middleware=[Careful()])
    assert (waiting(first), seen) == (["c0"], ["c0"])
    disk.run(DONE, after=first.new_messages, middleware=[Careful()], decisions={"c0": True})
    assert (disk.looks, seen) == (1, ["c0", "c0", "result c0"])


def test_the_chunks_of_a_resumed_run_begin_with_the_results() -> None:
    disk = Disk()
    first = disk.run(calls(("delete", {"path": "a"})))
    request = ChatRequest((*HI.messages, *first.new_messages))
    chunks = list(run_chat(ScriptedModel(DONE), request, disk.tools, decisions={"c0": True}))
    assert [chunk.type for chunk in chunks] == [
        *("run_started", "step_started", "tool_result", "step_finished"),
        *("step_started", "text_delta", "turn_finished", "step_finished", "run_finished"),
    ]
    assert [chunk.iteration for chunk in chunks if isinstance(chunk, StepStarted)] == [0, 1]
    (result,) = [chunk for chunk in chunks if isinstance(chunk, ToolResult)]
    assert (result.call_id, result.name, result.is_error) == ("c0", "delete", False)
    assert result.seconds is not None and 0 <= result.seconds < PATIENCE_S


def test_a_call_of_a_client_side_tool_is_left_to_the_caller() -> None:
    disk = Disk()
    client = ToolDefinition("pick", "Asks the user.", {"type": "object"})
    request = ChatRequest("Clean up.", tools=[client])
    turn = calls(("delete", {"path": "a"}), ("pick", {}))
    first = run_chat(ScriptedModel(turn), request, disk.tools).collect()
    assert waiting(first) == ["c0"]
    history = (*request.messages, *first.new_messages)
    resumed = ChatRequest(history, tools=[client])
    with pytest.raises(ValueError, match="'c1', which does not wait"):
        run_chat(ScriptedModel(), resumed, disk.tools, decisions={"c1": True})
    second = run_chat(ScriptedModel(), resumed, disk.tools, decisions={"c0": True}).collect()
    assert (second.pending, second.reason, disk.deleted) == ((), FinishReason.TOOL_USE, ["a"])
    answered = ChatRequest((*history, *second.new_messages, Message.tool_result("c1", "this one")), tools=[client])
    assert run_chat(ScriptedModel(DONE), answered, disk.tools, decisions={}).collect().text == "Done."


def test_an_aborted_run_lets_no_call_wait() -> None:
    disk = Disk()
    result = disk.run(DELETE_BOTH, config=RunConfig(max_iterations=1))
    assert result.abort is not None and result.pending == ()
    assert set(read_by_model(result.new_messages)) == {"c0", "c1", "c2"}


def test_a_cancel_while_another_tool_runs_lets_no_call_wait() -> None:
    is_running = threading.Event()

    def wait() -> None:
        is_running.set()
        time.sleep(PATIENCE_S)

    tools = [*Disk().tools, Tool(ToolDefinition("wait", "Waits.", {"type": "object"}), wait)]
    stream = run_chat(ScriptedModel(calls(("delete", {"path": "a"}), ("wait", {}))), HI, tools)

    def cancel() -> None:
        is_running.wait(PATIENCE_S)
        stream.cancel()

    threading.Thread(target=cancel, daemon=True).start()
    result = stream.collect()
    assert result.abort is not None and result.abort.kind == "cancelled"
    assert result.pending == ()
    assert "not run" in read_by_model(result.new_messages)["c0"]


def test_an_aborted_run_still_lists_the_calls_that_waited_before_it() -> None:
    disk = Disk(work=lambda path: stream.cancel())
    first = disk.run(DELETE_BOTH)
    request = ChatRequest((*HI.messages, *first.new_messages))
    stream = run_chat(ScriptedModel(), request, disk.tools, decisions={"c0": True})
    result = stream.collect()
    assert result.abort is not None and result.abort.kind == "cancelled"
    assert waiting(result) == ["c2"]
    last = ChatRequest((*request.messages, *result.new_messages))
    assert run_chat(ScriptedModel(DONE), last, disk.tools, decisions={"c2": False}).collect().text == "Done."


def test_a_forced_call_is_not_forced_again_after_the_decision() -> None:
    disk = Disk()
    first = disk.run(DELETE_BOTH)
    model = ScriptedModel(DONE)
    messages = (*HI.messages, *first.new_messages)
    request = ChatRequest(messages, tool_choice=ToolChoice.any(), tools=[tool.definition for tool in disk.tools])
    run_chat(model, request, disk.tools, decisions={"c0": True, "c2": True}).collect()
    assert [sent.tool_choice for sent in model.requests] == [ToolChoice.auto()]


# A conversation


def conversation(disk: Disk, *turns: Steps) -> Conversation:
    return Conversation(ScriptedModel(*turns), tools=disk.tools)


def test_a_conversation_waits_and_resumes_also_from_its_json() -> None:
    disk = Disk()
    first = conversation(disk, DELETE_BOTH)
    assert waiting(first.run("Clean up.")) == ["c0", "c2"]
    later = Conversation.from_json(first.to_json(), ScriptedModel(DONE), tools=disk.tools)
    assert [call.call_id for call in later.pending] == ["c0", "c2"]
    assert waiting(later.resume({"c0": True}).collect()) == ["c2"]
    result = later.resume({"c2": False}).collect()
    assert (result.text, disk.deleted, disk.looks, later.pending) == ("Done.", ["a"], 1, ())
    with pytest.raises(ValueError, match="no call waits"):
        later.resume({})


def test_a_message_in_place_of_a_decision_leaves_the_calls_unmade() -> None:
    disk = Disk()
    chat = conversation(disk, calls(("delete", {"path": "a"})), DONE)
    chat.run("Clean up.")
    assert chat.run("Never mind.").text == "Done."
    assert (chat.pending, disk.deleted) == ((), [])


def test_a_failure_after_the_call_was_made_keeps_its_result_so_that_it_is_not_made_twice() -> None:
    disk = Disk()
    broken: list[Any] = [TransportError("the connection broke")]
    chat = conversation(disk, calls(("delete", {"path": "a"})), broken, DONE)
    chat.run("Clean up.")
    with pytest.raises(TransportError) as caught:
        chat.resume({"c0": True}).collect()
    assert read_by_model(caught.value.partial_messages or ()) == {"c0": "deleted a"}
    assert (chat.pending, disk.deleted) == ((), ["a"])
    assert read_by_model(chat.messages) == {"c0": "deleted a"}
    assert chat.run("Go on.").text == "Done."


def test_resuming_without_decisions_asks_again_after_the_model_failed() -> None:
    disk = Disk()
    broken: list[Any] = [TransportError("the connection broke")]
    model = ScriptedModel(calls(("delete", {"path": "a"})), broken, DONE)
    chat = Conversation(model, tools=disk.tools, tool_choice=ToolChoice.any())
    chat.run("Clean up.")
    with pytest.raises(TransportError):
        chat.resume({"c0": True}).collect()
    with pytest.raises(ValueError, match="no call waits"):
        chat.resume({"c0": True})
    chat = Conversation.from_json(chat.to_json(), model, tools=disk.tools)
    assert chat.resume({}).collect().text == "Done."
    assert (disk.deleted, [message.role for message in chat.messages]) == (["a"], ["user", "assistant"] * 2)
    assert model.requests[-1].tool_choice == ToolChoice.auto()
    with pytest.raises(ValueError, match="no call waits"):
        chat.resume({})


def test_a_reader_that_leaves_while_the_tool_runs_leaves_a_call_that_is_not_made_again() -> None:
    is_running, may_end = threading.Event(), threading.Event()

    def work(path: str) -> str:
        is_running.set()
        may_end.wait(PATIENCE_S)
        return path

    disk = Disk(work)
    chat = conversation(disk, calls(("delete", {"path": "a"}), ("delete", {"path": "b"})), DONE)
    chat.config = RunConfig(parallel_tools=1)
    chat.run("Clean up.")
    stream = chat.resume({"c0": True, "c1": True})
    reader = threading.Thread(target=lambda: list(stream), daemon=True)
    reader.start()
    assert is_running.wait(PATIENCE_S)
    stream.cancel()
    reader.join(PATIENCE_S)
    may_end.set()
    read = read_by_model(chat.messages)
    assert "effects are unknown" in read["c0"] and "not run" in read["c1"]
    assert (chat.pending, disk.deleted) == ((), ["a"])


def test_a_resumed_run_that_is_closed_early_keeps_what_was_done() -> None:
    disk = Disk()
    chat = conversation(disk, DELETE_BOTH)
    chat.run("Clean up.")
    stream = chat.resume({"c0": True, "c2": True})
    for chunk in stream:
        if isinstance(chunk, ToolResult):
            break
    stream.close()
    read = read_by_model(chat.messages)
    assert read["c0"] == "deleted a"
    assert disk.deleted in (["a"], ["a", "b"])
    assert ("c2" in read) == ("b" in disk.deleted)


def test_a_resumed_run_works_with_asyncio() -> None:
    disk = Disk()
    first = disk.run(calls(("delete", {"path": "a"})))
    request, model = ChatRequest((*HI.messages, *first.new_messages)), ScriptedModel(DONE)

    async def main() -> RunResult:
        resumed = partial(run_chat, model, request, disk.tools, decisions={"c0": True})
        return await AsyncModel(model).stream(resumed).collect()

    assert asyncio.run(main()).text == "Done."
    assert disk.deleted == ["a"]


PROGRAM = """
import os, sys
from pathlib import Path
from completion import *
from completion.testing import ScriptedModel

folder = Path(sys.argv[1])

@tool(approval=True)
def delete(path: str) -> str:
    "Deletes a file."
    with (folder / "deleted").open("a") as file:
        file.write(path + " ")
    return "deleted"

if sys.argv[2] == "ask":
    args = {"path": "a"}
    call = [ToolCallStarted("c1", "delete"), ToolCallFinished("c1", "delete", args)]
    turn = [*call, TurnFinished(FinishReason.TOOL_USE)]
    conversation = Conversation(ScriptedModel(turn), tools=[delete])
    assert [call.args for call in conversation.run("Clean up.").pending] == [args]
    (folder / "row").write_text(conversation.to_json())
    os.kill(os.getpid(), 9)
done = [TextDelta("Done."), TurnFinished(FinishReason.END_TURN)]
conversation = Conversation.from_json((folder / "row").read_text(), ScriptedModel(done), tools=[delete])
print(conversation.resume({call.call_id: True for call in conversation.pending}).collect().text)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_a_decision_reaches_another_process_after_the_first_was_killed(tmp_path: Path) -> None:
    def run(what: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", PROGRAM, str(tmp_path), what]
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    assert run("ask").returncode == -9
    assert not (tmp_path / "deleted").exists()
    assert run("decide").stdout == "Done.\n"
    assert (tmp_path / "deleted").read_text() == "a "
