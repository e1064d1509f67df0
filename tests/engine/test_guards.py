"""The included middleware: approval, call limits, loop detection, redaction."""

from __future__ import annotations

import asyncio
import contextvars
import re
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import completion
from completion import (
    ChatRequest,
    FinishReason,
    Message,
    ReasoningBlock,
    ReasoningDelta,
    ReasoningFinished,
    RunConfig,
    RunResult,
    RunStream,
    StreamChunk,
    SystemBlock,
    TextBlock,
    TextDelta,
    Tool,
    ToolCallArgsDelta,
    ToolCallBlock,
    ToolCallFinished,
    ToolCallMalformed,
    ToolCallStarted,
    ToolDefinition,
    ToolResult,
    ToolResultBlock,
    TurnFinished,
    run_chat,
)
from completion.engine.guards import Approval, CallLimit, LoopDetection
from completion.engine.middleware import AbortRun, Middleware, RunInfo
from completion.engine.redaction import Redaction, _OpenText
from completion.testing import ProviderServer, Reply, ScriptedModel
from tests import wire_pieces
from tests.loopback import PATIENCE_S

ANY_OBJECT = {"type": "object", "properties": {}, "additionalProperties": True}
KEY = "sk-live0123456789abcdef"
Steps = list[StreamChunk]


def calls(*made: tuple[str, dict[str, Any]]) -> Steps:
    """A turn that makes these calls, each a name and its arguments."""
    steps: Steps = []
    for i, (name, args) in enumerate(made):
        steps += [ToolCallStarted(f"c{i}", name), ToolCallFinished(f"c{i}", name, args)]
    return [*steps, TurnFinished(FinishReason.TOOL_USE)]


def answers(*deltas: str) -> Steps:
    return [*map(TextDelta, deltas), TurnFinished(FinishReason.END_TURN)]


class Recorder:
    """A tool that records the arguments of its calls and returns its answers in order; the last answer repeats."""

    def __init__(self, name: str = "look", *answers: Any, tags: Sequence[str] = ()) -> None:
        self.args: list[dict[str, Any]] = []
        self._answers = list(answers) or ["Nothing."]
        self.tool = Tool(ToolDefinition(name, "Looks.", ANY_OBJECT, tags=tags), self._call)

    def _call(self, **args: Any) -> Any:
        self.args.append(args)
        return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]


def run_of(turns: Sequence[Steps], called: Sequence[Recorder], *middleware: Middleware) -> RunStream:
    return run_chat(ScriptedModel(*turns), ChatRequest("Hi"), [one.tool for one in called], middleware)


def results(result: RunResult) -> list[str]:
    """The texts of the tool results."""
    blocks = [block for message in result.new_messages for block in message.blocks]
    inner = [block.blocks for block in blocks if isinstance(block, ToolResultBlock)]
    return ["".join(one.text for one in some if isinstance(one, TextBlock)) for some in inner]


# Approval


def test_an_approved_call_is_made() -> None:
    look = Recorder()
    result = run_of([calls(("look", {"at": 1})), answers("Well.")], [look], Approval(lambda call: True)).collect()
    assert look.args == [{"at": 1}]
    assert results(result) == ["Nothing."]


@pytest.mark.parametrize(
    ("decision", "read"),
    [(False, "The user did not allow this call."), ("", "The user did not allow this call."), ("Ask Bob.", "Ask Bob.")],
)
def test_a_call_that_is_not_allowed_is_not_made_and_the_model_reads_why(decision: bool | str, read: str) -> None:
    look = Recorder()
    result = run_of([calls(("look", {})), answers("Well.")], [look], Approval(lambda call: decision)).collect()
    assert look.args == []
    assert results(result) == [read]
    assert result.text == "Well."


def test_a_decision_may_change_the_arguments_but_the_history_keeps_those_of_the_model() -> None:
    look = Recorder()
    result = run_of([calls(("look", {"at": 1})), answers("Well.")], [look], Approval(lambda call: {"at": 2})).collect()
    assert look.args == [{"at": 2}]
    assert result.new_messages[0].blocks == (ToolCallBlock("c0", "look", {"at": 1}),)


@pytest.mark.parametrize(
    ("options", "asked"),
    [
        ({}, ["look", "write", "drop"]),
        ({"names": ["look"]}, ["look"]),
        ({"tags": ["writes"]}, ["write", "drop"]),
        ({"tags": ["dangerous"], "names": ["look"]}, ["look", "drop"]),
    ],
)
def test_tags_and_names_select_the_calls_to_ask_about(options: dict[str, Any], asked: list[str]) -> None:
    decided: list[str] = []

    def decide(call: ToolCallBlock) -> bool:
        decided.append(call.name)
        return True

    tools = [Recorder("look"), Recorder("write", tags=["writes"]), Recorder("drop", tags=["writes", "dangerous"])]
    turn = calls(("look", {}), ("write", {}), ("drop", {}))
    run_of([turn, answers("Well.")], tools, Approval(decide, **options)).collect()
    assert decided == asked


def test_approval_asks_in_the_reading_thread_so_that_input_works(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[threading.Thread] = []

    def typed(prompt: str) -> str:
        threads.append(threading.current_thread())
        return "y"

    monkeypatch.setattr("builtins.input", typed)
    look = Recorder()
    approval = Approval(lambda call: input(f"{call.name}? ") == "y")
    run_of([calls(("look", {})), answers("Well.")], [look], approval).collect()
    assert look.args == [{}]
    assert threads == [threading.current_thread()]


def test_decide_may_take_the_run_too() -> None:
    seen: list[tuple[str, int]] = []

    def decide(call: ToolCallBlock, run: RunInfo) -> bool:
        seen.append((run.provider, run.iteration))
        return True

    look = Recorder()
    run_of([calls(("look", {})), answers("Well.")], [look], Approval(decide)).collect()
    assert (look.args, seen) == ([{}], [("scripted", 1)])


def test_a_second_parameter_with_a_default_is_the_users_own() -> None:
    look = Recorder()

    def decide(call: ToolCallBlock, answer: bool = True) -> bool:
        return answer is True

    run_of([calls(("look", {})), answers("Well.")], [look], Approval(decide)).collect()
    assert look.args == [{}]


def test_decide_may_be_asynchronous() -> None:
    async def decide(call: ToolCallBlock) -> bool:
        await asyncio.sleep(0)
        return True

    look = Recorder()
    run_of([calls(("look", {})), answers("Well.")], [look], Approval(decide)).collect()
    assert look.args == [{}]


def blocks(call: ToolCallBlock) -> bool:
    time.sleep(PATIENCE_S)
    return True


def blocks_on_the_token(call: ToolCallBlock, run: RunInfo) -> bool:
    run.token.sleep(PATIENCE_S)
    return True


async def blocks_in_a_loop(call: ToolCallBlock) -> bool:
    await asyncio.sleep(PATIENCE_S)
    return True


@pytest.mark.parametrize("decide", [blocks, blocks_on_the_token, blocks_in_a_loop])
@pytest.mark.parametrize("kind", ["cancelled", "timeout"])
def test_cancel_and_timeout_end_a_run_while_decide_waits(
    decide: Any, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", None)  # not a terminal, however the tests are started
    look, config = Recorder(), RunConfig(timeout=0.2 if kind == "timeout" else None)
    model = ScriptedModel(calls(("look", {})))
    stream = run_chat(model, ChatRequest("Hi"), [look.tool], [Approval(decide)], config)
    if kind == "cancelled":
        threading.Timer(0.1, stream.cancel).start()
    began = time.monotonic()
    result = stream.collect()
    assert time.monotonic() - began < PATIENCE_S / 2
    assert result.abort is not None and result.abort.kind == kind
    assert look.args == []


def test_decide_sees_the_context_variables_of_the_reader() -> None:
    user: contextvars.ContextVar[str] = contextvars.ContextVar("user")
    user.set("jane")
    look = Recorder()
    run_of([calls(("look", {})), answers("Well.")], [look], Approval(lambda call: user.get() == "jane")).collect()
    assert look.args == [{}]


def test_an_error_in_decide_fails_the_run_and_no_call_of_the_turn_is_made() -> None:
    def decide(call: ToolCallBlock) -> bool:
        if call.name == "second":
            raise EOFError("no terminal")
        return True

    tools = [Recorder("first"), Recorder("second")]
    with pytest.raises(EOFError, match="no terminal"):
        run_of([calls(("first", {}), ("second", {}))], tools, Approval(decide)).collect()
    assert [one.args for one in tools] == [[], []]


def test_a_decision_may_abort_the_run() -> None:
    def decide(call: ToolCallBlock) -> bool:
        raise AbortRun("the user has had enough")

    result = run_of([calls(("look", {}))], [Recorder()], Approval(decide)).collect()
    assert result.abort is not None
    assert result.abort.message == "the user has had enough"


@pytest.mark.parametrize("decision", [None, 1, ["at"]])
def test_a_decision_that_is_neither_yes_nor_no_is_an_error(decision: Any) -> None:
    look = Recorder()
    with pytest.raises(TypeError, match="must return True, False, a reason or a dict"):
        run_of([calls(("look", {}))], [look], Approval(lambda call: decision)).collect()
    assert look.args == []


# Call limits


def test_over_the_limit_the_model_reads_that_the_limit_is_reached() -> None:
    look = Recorder()
    turns = [calls(("look", {}), ("look", {})), calls(("look", {})), answers("Well.")]
    result = run_of(turns, [look], CallLimit(2)).collect()
    assert len(look.args) == 2
    assert (
        results(result)[2]
        == "Tools may be called 2 times in total, and this limit is reached. Continue with what you have."
    )
    assert result.text == "Well."


def test_a_limit_for_one_tool_does_not_limit_the_others() -> None:
    look, find = Recorder("look"), Recorder("find")
    turn = calls(("look", {}), ("find", {}), ("look", {}), ("find", {}))
    result = run_of([turn, answers("Well.")], [look, find], CallLimit(1, name="look")).collect()
    assert (len(look.args), len(find.args)) == (1, 2)
    assert results(result)[2].startswith("Look may be called once")


def test_a_limit_may_abort_the_run_and_the_history_stays_valid() -> None:
    look = Recorder()
    result = run_of([calls(("look", {})), calls(("look", {}))], [look], CallLimit(1, ends_run=True)).collect()
    assert result.reason is FinishReason.ABORTED
    assert result.abort is not None
    assert result.abort.message == "tools may be called once in total, and the model called look once more"
    assert len(results(result)) == 2


def test_a_limit_counts_each_run_separately_and_forgets_finished_runs() -> None:
    limit, look = CallLimit(1), Recorder()
    streams = [run_of([calls(("look", {})), answers("Well.")], [look], limit) for _ in range(3)]
    for chunks in zip(*streams, strict=True):  # in turns
        assert len(chunks) == 3
    assert len(look.args) == 3
    assert limit._states == {}


@pytest.mark.parametrize("most", [0, -1, True, 1.5])
def test_a_limit_must_be_a_whole_number_of_one_or_more(most: Any) -> None:
    with pytest.raises(ValueError, match="whole number of 1 or more"):
        CallLimit(most)


# Loops


def test_the_third_identical_call_gets_a_warning_and_the_fourth_aborts_the_run() -> None:
    look = Recorder()
    result = run_of([calls(("look", {"at": 1}))] * 4, [look], LoopDetection()).collect()
    read = results(result)
    assert read[:2] == ["Nothing.", "Nothing."]
    assert read[2].startswith("Nothing.(This was the same call with the same result 3 times.")
    assert len(look.args) == 3
    assert result.abort is not None
    assert result.abort.message == "the model repeated itself: 4 times the same call of look"


def test_a_model_that_follows_the_warning_continues() -> None:
    turns = [calls(("look", {"at": 1}))] * 3 + [
        calls(("look", {"at": 2})),
        calls(("look", {"at": 1})),
        answers("Well."),
    ]
    result = run_of(turns, [Recorder()], LoopDetection()).collect()
    assert (result.abort, result.text) == (None, "Well.")


def test_calls_with_different_arguments_are_not_a_loop() -> None:
    turns = [*(calls(("look", {"at": i})) for i in range(5)), answers("Well.")]
    assert run_of(turns, [Recorder()], LoopDetection()).collect().abort is None


def test_a_call_whose_result_changes_is_not_a_loop() -> None:
    job = Recorder("status", "queued", "10 %", "40 %", "80 %", "done")
    result = run_of([calls(("status", {}))] * 5 + [answers("Well.")], [job], LoopDetection()).collect()
    assert results(result) == ["queued", "10 %", "40 %", "80 %", "done"]


def test_alternating_calls_are_a_loop_if_within_is_set() -> None:
    pair = [calls(("look", {})), calls(("find", {}))]
    tools = [Recorder("look"), Recorder("find")]
    in_a_row = run_of([*pair * 4, answers("Well.")], tools, LoopDetection()).collect()
    in_a_window = run_of([*pair * 4], tools, LoopDetection(within=8)).collect()
    assert in_a_row.abort is None
    assert in_a_window.abort is not None
    assert len(results(in_a_window)) == 7


def test_ends_at_allows_more_repetitions() -> None:
    look = Recorder()
    result = run_of([calls(("look", {}))] * 6, [look], LoopDetection(2, ends_at=5)).collect()
    assert len(look.args) == 4
    assert ["same result" in read for read in results(result)] == [False, True, True, True, False]


def test_refused_calls_are_a_loop_in_any_order_of_the_middleware() -> None:
    deny = Approval(lambda call: False)
    for order in ([LoopDetection(), deny], [deny, LoopDetection()]):
        result = run_of([calls(("look", {}))] * 4, [Recorder()], *order).collect()
        assert result.abort is not None


def test_malformed_calls_are_a_loop() -> None:
    turn: Steps = [ToolCallStarted("c0", "look"), ToolCallMalformed("c0", "look", "{", "it ends"), *answers()]
    result = run_of([turn] * 4, [Recorder()], LoopDetection()).collect()
    assert result.abort is not None


def test_arguments_changed_by_later_middleware_do_not_hide_a_loop() -> None:
    count = iter(range(100))
    changes = Approval(lambda call: {"at": next(count)})
    result = run_of([calls(("look", {}))] * 4, [Recorder()], LoopDetection(), changes).collect()
    assert result.abort is not None


@pytest.mark.parametrize("options", [{"times": 0}, {"ends_at": 3}, {"within": 3}, {"times": "3"}])
def test_invalid_numbers_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError)):
        LoopDetection(**options)


# Redaction


@pytest.mark.parametrize(
    ("name", "text", "redacted"),
    [
        ("api_key", f"Key: {KEY}.", "Key: [redacted]."),
        ("api_key", "sk-ant-api03-AbCdEfGhIjKlMnOp-QrStUv", "[redacted]"),
        ("api_key", "AKIAIOSFODNN7EXAMPLE and ghp_0123456789abcdefghij", "[redacted] and [redacted]"),
        ("api_key", "a task-force on risk-management", "a task-force on risk-management"),
        ("api_key", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl!", "[redacted]!"),
        ("card_number", "4111 1111 1111 1111, please", "[redacted], please"),
        ("card_number", "4111-1111-1111-1111", "[redacted]"),
        ("card_number", "at 1732665597000 ms, 12345678901234567890 ns", "at 1732665597000 ms, 12345678901234567890 ns"),
        ("email", "Write to jane.doe+news@mail.example.org.", "Write to [redacted]."),
        ("email", "@home at 5", "@home at 5"),
        (
            "private_key",
            "-----BEGIN RSA PRIVATE KEY-----\nMII\n-----END RSA PRIVATE KEY-----\nNext",
            "[redacted]\nNext",
        ),
        ("private_key", "-----BEGIN PRIVATE KEY-----\nMII and never an end", "[redacted]"),
    ],
)
def test_named_patterns_find_secrets(name: str, text: str, redacted: str) -> None:
    assert Redaction(name).redact(text) == redacted


def test_only_the_given_secrets_are_redacted() -> None:
    assert Redaction("email").redact(KEY) == KEY


def chunks_seen(redaction: Redaction, chunks: Sequence[StreamChunk]) -> list[StreamChunk]:
    """The chunks of the turn that the reader gets."""
    stream = run_chat(ScriptedModel(chunks), ChatRequest("Hi"), middleware=[redaction])
    return [chunk for chunk in stream if chunk.type in ("text_delta", "reasoning_delta") or chunk in chunks]


def joined(chunks: Sequence[StreamChunk], kind: type[Any] = TextDelta) -> str:
    return "".join(chunk.delta for chunk in chunks if isinstance(chunk, kind))


def test_a_secret_that_is_split_over_deltas_is_found() -> None:
    assert joined(
        chunks_seen(Redaction("api_key"), answers("The key is s", "k", "-live01234", "56789abcdef", ", yes."))
    ) == ("The key is [redacted], yes.")


def test_only_text_that_may_become_a_secret_is_held_back() -> None:
    deltas = [
        chunk.delta
        for chunk in chunks_seen(Redaction("api_key"), answers("The task", " is", " s", "imple."))
        if isinstance(chunk, TextDelta)
    ]
    assert deltas == ["The task", " is", " ", "simple."]


def test_held_text_is_yielded_before_turn_finished() -> None:
    chunks = chunks_seen(Redaction("api_key"), answers("Yes", " sk"))
    assert chunks == [TextDelta("Yes"), TextDelta(" "), TextDelta("sk"), TurnFinished(FinishReason.END_TURN)]


def test_held_text_is_yielded_before_a_call() -> None:
    turn: Steps = [TextDelta("Now sk"), *calls(("look", {}))]
    stream = run_of([turn, answers("Well.")], [Recorder()], Redaction("api_key"))
    assert [chunk.type for chunk in stream][2:6] == [
        "text_delta",
        "text_delta",
        "tool_call_started",
        "tool_call_args_delta",
    ]


def test_reasoning_is_redacted_separately_from_text() -> None:
    turn: Steps = [ReasoningDelta("Her key: sk-live0123"), ReasoningDelta("456789abcdef"), ReasoningFinished("sig")]
    chunks = chunks_seen(Redaction("api_key"), [*turn, *answers("456789 sk")])
    assert joined(chunks, ReasoningDelta) == "Her key: [redacted]"
    assert chunks.index(ReasoningFinished("sig")) == 2
    assert joined(chunks) == "456789 sk"


def test_held_text_is_yielded_before_reasoning() -> None:
    chunks = chunks_seen(Redaction("api_key"), [TextDelta("sk"), ReasoningDelta("-a"), ReasoningFinished(), *answers()])
    assert chunks[:2] == [TextDelta("sk"), ReasoningDelta("-a")]


def test_the_reader_gets_redacted_arguments_and_the_tool_gets_the_original_ones() -> None:
    look = Recorder()
    args = {"to": "a@example.org", "deep": [{"cc": "b@example.org"}], "n": 1}
    turn: Steps = [
        ToolCallStarted("c0", "look"),
        ToolCallArgsDelta("c0", '{"to": "a\\u0040exam'),
        ToolCallArgsDelta("c0", 'ple.org", "deep": [{"cc": "b@example.org"}], "n": 1}'),
        ToolCallFinished("c0", "look", args),
        TurnFinished(FinishReason.TOOL_USE),
    ]
    chunks = list(run_of([turn, answers("Well.")], [look], Redaction("email")))
    hidden = {"to": "[redacted]", "deep": [{"cc": "[redacted]"}], "n": 1}
    assert ToolCallFinished("c0", "look", hidden) in chunks
    assert [chunk.delta for chunk in chunks if isinstance(chunk, ToolCallArgsDelta)] == [
        '{"to": "[redacted]", "deep": [{"cc": "[redacted]"}], "n": 1}'
    ]
    assert look.args == [args]


def test_the_names_in_arguments_are_redacted_and_none_is_lost() -> None:
    args = {"cc": {"a@example.org": 1, "b@example.org": {"c@example.org": "d"}}}
    model = ScriptedModel(calls(("look", args)), "Well.")
    chunks = list(
        run_chat(model, "Hi", [Tool(ToolDefinition("look", "", ANY_OBJECT), lambda **_: "fine")], [Redaction("email")])
    )
    hidden = {"cc": {"[redacted]": 1, "[redacted]_": {"[redacted]": "d"}}}
    assert ToolCallFinished("c0", "look", hidden) in chunks
    assert model.requests[1].messages[1].blocks == (ToolCallBlock("c0", "look", hidden),)


def test_the_reader_gets_a_redacted_malformed_call() -> None:
    turn: Steps = [
        ToolCallStarted("c0", "look"),
        ToolCallMalformed("c0", "look", f'{{"k": "{KEY}"', "it ends"),
        *answers(),
    ]
    chunks = list(run_of([turn, answers("Well.")], [Recorder()], Redaction("api_key")))
    assert ToolCallMalformed("c0", "look", '{"k": "[redacted]"', "it ends") in chunks
    assert ToolCallArgsDelta("c0", '{"k": "[redacted]"') in chunks


def test_a_call_of_a_client_side_tool_is_not_redacted() -> None:
    turn: Steps = [
        ToolCallStarted("c0", "client"), ToolCallArgsDelta("c0", f'{{"k": "{KEY}"}}'),
        ToolCallFinished("c0", "client", {"k": KEY}), TurnFinished(FinishReason.TOOL_USE),
    ]  # fmt: skip
    request = ChatRequest("Hi", tools=[ToolDefinition("client", "", ANY_OBJECT)])
    chunks = list(run_chat(ScriptedModel(turn), request, middleware=[Redaction("api_key")]))
    assert chunks[2:5] == turn[:3]


def test_the_request_is_redacted() -> None:
    model = ScriptedModel("Well.")
    request = ChatRequest(
        [
            Message.user(f"Mine is {KEY}"),
            Message.assistant(
                [ReasoningBlock(KEY), ReasoningBlock(KEY, "sig"), ToolCallBlock("c0", "look", {"k": KEY})]
            ),
            Message("user", [ToolResultBlock("c0", f"It is {KEY}"), TextBlock("And?")]),
        ],
        system_prompt=[SystemBlock(f"Never say {KEY}")],
    )
    run_chat(model, request, middleware=[Redaction("api_key")]).collect()
    assert model.requests[0] == ChatRequest(
        [
            Message.user("Mine is [redacted]"),
            Message.assistant(
                [
                    ReasoningBlock("[redacted]"),
                    ReasoningBlock(KEY, "sig"),
                    ToolCallBlock("c0", "look", {"k": "[redacted]"}),
                ]
            ),
            Message("user", [ToolResultBlock("c0", "It is [redacted]"), TextBlock("And?")]),
        ],
        system_prompt=[SystemBlock("Never say [redacted]")],
    )


def test_a_system_prompt_of_plain_text_is_redacted() -> None:
    model = ScriptedModel("Well.")
    run_chat(model, ChatRequest("Hi", system_prompt=KEY), middleware=[Redaction("api_key")]).collect()
    assert model.requests[0].system_prompt == "[redacted]"


def test_tool_results_are_redacted_for_the_model_the_reader_and_the_history() -> None:
    stream = run_of([calls(("look", {})), answers("Well.")], [Recorder("look", {"key": KEY})], Redaction("api_key"))
    chunks = list(stream)
    result = next(chunk for chunk in chunks if isinstance(chunk, ToolResult))
    assert result.blocks == (TextBlock('{"key": "[redacted]"}'),)
    assert KEY not in repr(chunks)


@pytest.mark.parametrize("field", ["text", "summary"])
def test_reasoning_that_goes_back_in_a_field_of_the_server_is_redacted(server: ProviderServer, field: str) -> None:
    detail = {"type": f"reasoning.{field}", field: f"I know {KEY}", "index": 0}
    reason, call = wire_pieces.delta("tool_calls"), wire_pieces.piece(id="c1", name="look", arguments="{}")
    pieces = [wire_pieces.delta(reasoning_details=[detail]), wire_pieces.calls(call), reason]
    server.reply(Reply(wire_pieces.body(*pieces)), Reply(wire_pieces.body(wire_pieces.delta("stop"))))
    model = completion.model("openrouter:m", api_key="k", base_url=server.url)
    run_chat(model, ChatRequest("Hi"), [Recorder("look").tool], middleware=[Redaction("api_key")]).collect()
    assert server.requests[1].json()["messages"][1]["reasoning_details"] == [{**detail, field: "I know [redacted]"}]


def test_the_replacement_may_be_a_function_of_the_secret() -> None:
    redaction = Redaction("email", replacement=lambda found: f"<{len(found)} letters>")
    assert redaction.redact("a@b.cd!") == "<6 letters>!"


def test_a_function_gets_the_whole_text() -> None:
    texts: list[str] = []

    def hide(text: str) -> str:
        texts.append(text)
        return text.replace("Bob", "B.")

    chunks = chunks_seen(Redaction(hide), answers("Hi, ", "B", "ob."))
    assert chunks == [TextDelta("Hi, B.."), TurnFinished(FinishReason.END_TURN)]
    assert texts == ["Hi", "Hi, Bob."]


def test_a_pattern_may_look_behind_at_text_that_was_yielded() -> None:
    redaction = Redaction(re.compile(r"(?<=PIN: )\d{4}", re.IGNORECASE))
    assert joined(chunks_seen(redaction, answers("pin", ": ", "12", "34", " and 1234"))) == "pin: [redacted] and 1234"


def test_a_pattern_keeps_its_flags() -> None:
    assert Redaction(re.compile(r"é\w", re.ASCII)).redact("éa éé") == "[redacted] éé"


@pytest.mark.parametrize(
    ("secrets", "error", "words"),
    [
        ((), ValueError, "at least one secret"),
        (("password",), ValueError, "the names are api_key, card_number, email, private_key"),
        ((re.compile("a*"),), ValueError, "matches the empty text"),
        ((re.compile("a(?=b)"),), ValueError, "looks ahead"),
        ((re.compile(r"\\(?!b)a"),), ValueError, "looks ahead"),
        ((re.compile(r"sk-\w+\B"),), ValueError, "looks ahead"),
        ((re.compile(b"a"),), TypeError, "pattern of bytes"),
        ((7,), TypeError, "got int"),
    ],
)
def test_invalid_secrets_are_refused(secrets: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        Redaction(*secrets)


def test_an_escaped_bracket_is_not_a_lookahead() -> None:
    assert Redaction(re.compile(r"\(?=a")).redact("(=a") == "[redacted]"


PATTERNS = [
    r"sk-[a-z0-9]{3,}",
    r"ab|abc",
    r"a+b",
    r"(?:ab)+c?",
    r"\bab\b",
    r"(?<!a)b{2,3}",
    r"a[^b]*?b",
    r"a.{0,3}c",
    r"^a|b\Z",
    r"(a|b)\1c",
    r"k\s*-\s*[ab]+",
]


@pytest.mark.parametrize("pattern", PATTERNS)
@given(deltas=st.lists(st.text("abck-s \n", min_size=1, max_size=6), max_size=12))
@example(deltas=["s", "k", "-abc"])
@example(deltas=["a", "b", "c", "a"])
def test_for_any_deltas_the_reader_gets_the_redacted_text_and_no_secret_leaks(pattern: str, deltas: list[str]) -> None:
    compiled, text = re.compile(pattern), "".join(deltas)
    redaction = Redaction(compiled, replacement="#")
    stream, seen = Streamed(redaction), ""
    whole = compiled.sub("#", text)  # with re, not regex
    for delta in deltas:
        seen += "".join(stream.add(delta))
        assert whole.startswith(seen)
    assert seen + stream.finish() == whole == redaction.redact(text)


class Streamed:
    """A text that passes the middleware without a run: hypothesis tries thousands."""

    def __init__(self, redaction: Redaction) -> None:
        self.open_text = _OpenText(redaction, TextDelta)

    def add(self, delta: str) -> list[str]:
        return [chunk.delta for chunk in self.open_text.add(delta) if isinstance(chunk, TextDelta)]

    def finish(self) -> str:
        return joined(self.open_text.finish())


SECRETS = st.sampled_from(
    [KEY, "jane@example.org", "4111 1111 1111 1111", "-----BEGIN PRIVATE KEY-----\nMII\n-----END"]
)
PROSE = st.text("ab sk-@.4\n", max_size=8)


@given(parts=st.lists(st.one_of(PROSE, SECRETS), max_size=8), cuts=st.lists(st.integers(1, 7), min_size=1, max_size=9))
def test_named_patterns_do_not_leak_for_any_deltas(parts: list[str], cuts: list[int]) -> None:
    redaction, text = Redaction("api_key", "card_number", "email", "private_key", replacement="#"), " ".join(parts)
    stream, seen, whole = Streamed(redaction), "", redaction.redact(text)
    while text:
        delta, text = text[: cuts[0]], text[cuts[0] :]
        cuts = [*cuts[1:], cuts[0]]
        seen += "".join(stream.add(delta))
        assert whole.startswith(seen)
    assert seen + stream.finish() == whole


def test_a_long_text_does_not_stay_in_memory() -> None:
    stream = Streamed(Redaction("api_key"))
    for _ in range(1000):
        assert stream.add("Some words of prose. ") != []
    assert len(stream.open_text._text) < 500


@pytest.mark.parametrize("end", [None, RunStream.close, RunStream.cancel])
def test_the_state_of_a_finished_run_is_removed(end: Callable[[RunStream], None] | None) -> None:
    redaction, loops = Redaction("email"), LoopDetection()
    stream = run_of([[TextDelta("Hi jane"), *calls(("look", {}))], answers("Well.")], [Recorder()], redaction, loops)
    for _ in range(3):
        next(stream)
    assert len(redaction._states) == 1
    if end is not None:
        end(stream)
    list(stream)
    assert (redaction._states, loops._states) == ({}, {})


def test_the_state_of_a_failed_run_is_removed() -> None:
    redaction = Redaction("email")
    stream = run_of([[TextDelta("Hi jane")]], [], redaction)
    with pytest.raises(Exception, match="TurnFinished"):
        list(stream)
    assert redaction._states == {}


def test_runs_in_many_threads_can_share_one_object() -> None:
    redaction, texts = Redaction("email", replacement="#"), [f"{i} is i{i}@example.org, {i}" for i in range(30)]
    seen: dict[int, str] = {}

    def read(i: int) -> None:
        deltas = [texts[i][at : at + 3] for at in range(0, len(texts[i]), 3)]
        seen[i] = joined(list(run_chat(ScriptedModel(answers(*deltas)), ChatRequest("Hi"), middleware=[redaction])))

    threads = [threading.Thread(target=read, args=(i,)) for i in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert seen == {i: f"{i} is #, {i}" for i in range(30)}


def test_earlier_middleware_sees_redacted_chunks() -> None:
    class Recording(Middleware):
        def __init__(self) -> None:
            self.seen: list[StreamChunk] = []

        def on_chunk(self, run: RunInfo, chunk: StreamChunk) -> StreamChunk:
            self.seen.append(chunk)
            return chunk

    recording = Recording()
    list(run_of([answers("To jane@", "example.org")], [], recording, Redaction("email")))
    assert joined(recording.seen) == "To [redacted]"


@pytest.mark.parametrize("given", ["look", None, [3], [Recorder().tool]], ids=repr)
def test_tags_and_names_that_could_match_no_call_are_refused(given: Any) -> None:
    with pytest.raises(TypeError, match=r"Approval: names= must be a list of str, got"):
        Approval(lambda call: True, names=given)
    with pytest.raises(TypeError, match=r"Approval: tags= must be a list of str, got"):
        Approval(lambda call: True, tags=given)


def test_a_limit_for_a_tool_needs_its_name() -> None:
    with pytest.raises(TypeError, match="CallLimit: name must be the name of a tool, got Tool"):
        CallLimit(1, name=Recorder().tool)  # type: ignore[arg-type]


def test_a_replacement_that_is_neither_text_nor_a_function_is_refused() -> None:
    with pytest.raises(TypeError, match="Redaction: replacement must be a str or a function, got int"):
        Redaction("email", replacement=3)  # type: ignore[arg-type]
