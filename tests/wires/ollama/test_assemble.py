"""From the lines of Ollama's native chat to chunks, and from the turn to the next request."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from completion import (
    ChatRequest,
    CompletionError,
    FinishReason,
    MalformedStreamError,
    Message,
    NotFoundError,
    ProviderError,
    ReasoningDelta,
    ReasoningFinished,
    StreamChunk,
    TextDelta,
    ToolCallFinished,
    ToolCallMalformed,
    TransportError,
    TruncatedStreamError,
    Usage,
    collect,
)
from completion.events.ndjson import ndjson_events
from completion.wires.ollama import OLLAMA_CHAT
from completion.wires.ollama.assemble import assemble
from tests.wire_pieces import Reading, anything, broken_after, chunks_of, lines_run, objects_with, order_faults

READING = Reading(assemble)
chunks, content, turn, calls = READING.chunks, READING.content, READING.turn, READING.calls
read = READING.until_error


def line(content: Any = "", **fields: Any) -> dict[str, Any]:
    return {"model": "m-1", "message": {"role": "assistant", "content": content, **fields}, "done": False}


def done(reason: str | None = "stop", **fields: Any) -> dict[str, Any]:
    return {**line(), "done": True, "done_reason": reason, **fields}


def call(arguments: Any = None, name: str = "f", **fields: Any) -> dict[str, Any]:
    return {"function": {"name": name, "arguments": arguments}, **fields}


END = done()
HI, HM = TextDelta("hi"), ReasoningDelta("hm")
THOUGHT = ReasoningFinished()

ANSWERS: dict[str, tuple[list[dict[str, Any]], Sequence[StreamChunk]]] = {
    "text": ([line("h"), line("i")], [TextDelta("h"), TextDelta("i")]),
    "empty text": ([line(), line("hi"), line(None)], [HI]),
    "half of a pair": ([line("\ud83d"), line("\ude42")], [TextDelta("🙂")]),
    "thinking": ([line(thinking="h"), line(thinking="m"), line("hi")],
                 [ReasoningDelta("h"), ReasoningDelta("m"), THOUGHT, HI]),
    "thinking and text in one line": ([line("hi", thinking="hm")], [HM, THOUGHT, HI]),
    "the field of a gateway": ([line("hi", reasoning_content="hm")], [HM, THOUGHT, HI]),
    "thinking alone": ([line(thinking="hm")], [HM, THOUGHT]),
    "thinking null": ([line("hi", thinking=None), line("", thinking="")], [HI]),
    "fields of other versions": ([line("hi", images=None, tool_calls=None), {**line("!"), "logprobs": []}],
                                 [HI, TextDelta("!")]),
    "no message": ([{"model": "m-1", "done": False}, line("hi")], [HI]),
}  # fmt: skip


@pytest.mark.parametrize(("sent", "expected"), ANSWERS.values(), ids=list(ANSWERS))
def test_each_kind_of_line_becomes_chunks(sent: list[dict[str, Any]], expected: Sequence[StreamChunk]) -> None:
    assert content(*sent, END) == list(expected)


def test_the_last_line_may_have_content() -> None:
    assert content({**line("hi"), "done": True}) == [HI]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"a": 1}, {"a": 1}),
        ({}, {}),
        (None, {}),
        ('{"a": 1}', {"a": 1}),
        ("", {}),
        ({"a": float("nan")}, '{"a":NaN}'),
        ([1], "[1]"),
        ('{"a"', '{"a"'),
    ],
)
def test_the_arguments_of_a_call_come_whole(arguments: Any, expected: Any) -> None:
    (found,) = calls(line(tool_calls=[call(arguments, id="c")]), END)
    assert found == ("c", "f", expected)


def test_arguments_that_are_nested_too_deeply_are_malformed() -> None:
    deep: Any = {}
    for _ in range(150):
        deep = {"a": deep}
    (found,) = content(line(tool_calls=[call(deep, id="c")]), END)[-1:]
    assert isinstance(found, ToolCallMalformed)
    assert "nested too deeply" in found.error


def test_an_id_is_made_up_for_each_call_without_one() -> None:
    found = calls(line(tool_calls=[call({"a": 1}), call({"a": 2})]), line(tool_calls=[call({"a": 3}, id="")]), END)
    assert [args for _, _, args in found] == [{"a": 1}, {"a": 2}, {"a": 3}]
    assert len({call_id for call_id, _, _ in found}) == 3


def test_an_id_that_is_used_again_is_replaced() -> None:
    (first, _, _), (second, _, _) = calls(line(tool_calls=[call(id="c")]), line(tool_calls=[call(id="c")]), END)
    assert first == "c" != second


def test_a_call_without_a_name_is_malformed() -> None:
    found = content(line(tool_calls=[call({"a": 1}, name=""), {"function": None}, "x"]), END)
    assert [type(chunk) for chunk in found if isinstance(chunk, ToolCallMalformed)] == [ToolCallMalformed] * 2


def test_text_and_thinking_may_follow_a_call() -> None:
    found = content(line(tool_calls=[call(id="c")]), line("hi"), line(thinking="hm"), END)
    assert [type(chunk).__name__ for chunk in found] == [
        *("ToolCallStarted", "ToolCallFinished", "TextDelta", "ReasoningDelta", "ReasoningFinished")
    ]


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        ([done("stop")], FinishReason.END_TURN),
        ([done("length")], FinishReason.MAX_TOKENS),
        ([done("load")], FinishReason.OTHER),
        ([done("new")], FinishReason.OTHER),
        ([done(None)], FinishReason.OTHER),
        ([line(tool_calls=[call()]), done("stop")], FinishReason.TOOL_USE),
        ([line(tool_calls=[call()]), done(None)], FinishReason.TOOL_USE),
        ([line(tool_calls=[call()]), done("length")], FinishReason.MAX_TOKENS),
    ],
)
def test_the_finish_reason(sent: list[dict[str, Any]], reason: FinishReason) -> None:
    assert turn(*sent).reason is reason


@pytest.mark.parametrize(
    ("fields", "usage"),
    [
        ({"prompt_eval_count": 9, "eval_count": 4, "total_duration": 1}, Usage(9, 4)),
        ({"eval_count": 4}, Usage(0, 4)),
        ({"prompt_eval_count": "9"}, Usage(0, 0)),
        ({}, None),
    ],
)
def test_the_usage_is_in_the_last_line(fields: dict[str, Any], usage: Usage | None) -> None:
    found = turn(line("hi"), done(**fields))
    assert (found.usage, found.response_model, found.provider_reason) == (usage, "m-1", "stop")


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        ({"error": "an error was encountered while running the model"}, ProviderError, "while running the model"),
        ({"error": "model 'x' not found"}, ProviderError, "not found"),
        ({**line(""), "error": "gone"}, ProviderError, "gone"),
        ({**line("a"), "error": {"message": "gone", "code": 404}}, NotFoundError, "gone"),
    ],
)
def test_an_error_line_is_raised(error: dict[str, Any], kind: type[CompletionError], words: str) -> None:
    found, raised = read(line("hi"), error, END)
    assert found == [HI]
    assert isinstance(raised, kind)
    assert words in str(raised)


@pytest.mark.parametrize("sent", [[], [line("hi")], [line(tool_calls=[call(id="c")])], [{**line("hi"), "done": "yes"}]])
def test_a_body_without_done_is_truncated(sent: list[dict[str, Any]]) -> None:
    found, error = read(*sent)
    assert type(error) is TruncatedStreamError
    assert list(order_faults(found, ended=False)) == []


def test_the_lines_of_another_server_are_malformed() -> None:
    _, error = read({"status": "pulling"}, {"id": "chatcmpl-1", "choices": []})
    assert type(error) is MalformedStreamError
    assert "does base_url point at Ollama?" in str(error)


@pytest.mark.parametrize("late", [line("more"), line(thinking="more"), line(tool_calls=[call()])])
def test_content_after_the_end_is_malformed(late: dict[str, Any]) -> None:
    assert type(read(line("hi"), END, late)[1]) is MalformedStreamError


def test_lines_without_content_after_the_end_are_skipped() -> None:
    assert content(line("hi"), END, line(), END) == [HI]


def test_a_connection_that_breaks_after_the_end_is_ignored() -> None:
    found = list(assemble(broken_after(TransportError("reset"), line("hi"), END), lambda seconds: None))
    assert [type(chunk).__name__ for chunk in found] == ["TextDelta", "TurnFinished"]


def test_how_long_the_end_of_the_body_is_waited_for() -> None:
    waits: list[float | None] = []
    list(assemble(iter([("message", line("hi")), ("message", END)]), waits.append))
    assert waits == [0.5, 0.5]


BODY = "".join(
    f"{json.dumps(data, ensure_ascii=False)}\n"
    for data in [line(thinking="hm"), line("Grüße 🙂"), line(tool_calls=[call({"a": "ü"}, id="c")]), done(eval_count=4)]
).encode()


@pytest.mark.parametrize("split", [None, 1, 7])
def test_the_pieces_of_a_body_do_not_matter(split: int | None) -> None:
    found = list(assemble(ndjson_events(chunks_of(BODY, split)), lambda seconds: None))
    assert found == list(assemble(ndjson_events([BODY]), lambda seconds: None))
    assert collect(found).text == "Grüße 🙂"


def test_a_turn_goes_back() -> None:
    answer = turn(line(thinking="hm"), line("hi"), line(tool_calls=[call({"a": 1}, id="c")]), END)
    history = [Message.user("q"), answer.message, Message.tool_result("c", "1")]
    body, _ = OLLAMA_CHAT.body(ChatRequest(history), "qwen3")
    assert body["messages"][1:] == [
        {"role": "assistant", "content": "hi", "thinking": "hm",
         "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": {"a": 1}}}]},
        {"role": "tool", "tool_name": "f", "tool_call_id": "c", "content": "1"},
    ]  # fmt: skip


def test_a_piece_of_text_takes_the_fast_path() -> None:
    def work(pieces: int) -> int:
        sent = [line("hi")] * pieces
        return lines_run(lambda: chunks(*sent, END))

    each = (work(120) - work(20)) / 100
    assert each < 30


KEYS = ("message", "role", "content", "thinking", "tool_calls", "function", "name", "arguments", "id", "done", "error")
TEXTS = st.sampled_from(["", "a", "{", "\ud83d", "stop"])
ANY = anything(KEYS, TEXTS)
FUNCTION = objects_with(ANY, name=TEXTS, arguments=ANY)
MESSAGE = objects_with(
    ANY, content=TEXTS, thinking=TEXTS, tool_calls=st.lists(objects_with(ANY, id=TEXTS, function=FUNCTION), max_size=2)
)


@given(st.lists(objects_with(ANY, message=MESSAGE, done=st.just(False)), max_size=6))
def test_the_order_is_right_whatever_arrives(sent: list[dict[str, Any]]) -> None:
    found, error = read(*sent, END)
    assert list(order_faults(found, ended=error is None)) == []
    if error is None:
        finished = [chunk for chunk in found if isinstance(chunk, ToolCallFinished)]
        history = [Message.user("q"), collect(found).message, *[Message.tool_result(c.call_id, "1") for c in finished]]
        OLLAMA_CHAT.body(ChatRequest(history), "m")
