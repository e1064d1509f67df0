"""From the events of Cohere's chat to chunks, and from the turn to the next request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from completion import (
    ChatRequest,
    Citation,
    CompletionError,
    ContextOverflowError,
    FinishReason,
    MalformedStreamError,
    Message,
    ProviderBlockFinished,
    ProviderError,
    ReasoningDelta,
    ReasoningFinished,
    ServerError,
    StreamChunk,
    TextDelta,
    ToolCallFinished,
    TransportError,
    TruncatedStreamError,
    Usage,
    collect,
)
from completion.events import DONE
from completion.events.sse import sse_events
from completion.testing import event
from completion.wires.cohere import COHERE_CHAT
from completion.wires.cohere.assemble import assemble
from tests.wire_pieces import (
    Reading,
    anything,
    broken_after,
    chunks_of,
    interleaved,
    lines_run,
    objects_with,
    order_faults,
)

READING = Reading(assemble)
chunks, content, turn, calls = READING.chunks, READING.content, READING.turn, READING.calls
read = READING.until_error


def part(kind: str, index: Any = 0, **message: Any) -> dict[str, Any]:
    return {"type": kind, "index": index, "delta": {"message": message}}


def text(words: Any, index: Any = 0) -> dict[str, Any]:
    return part("content-delta", index, content={"text": words})


def thinking(words: Any, index: Any = 0) -> dict[str, Any]:
    return part("content-delta", index, content={"thinking": words})


def start(kind: str = "text", index: Any = 0, words: str = "") -> dict[str, Any]:
    return part("content-start", index, content={"type": kind, kind: words})


def stop(index: Any = 0, kind: str = "content-end") -> dict[str, Any]:
    return {"type": kind, "index": index}


def plan(words: str) -> dict[str, Any]:
    return {"type": "tool-plan-delta", "delta": {"message": {"tool_plan": words}}}


def call_start(index: Any = 0, id: Any = "c", name: Any = "f", arguments: Any = "") -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return part("tool-call-start", index, tool_calls={"id": id, "type": "function", "function": function})


def piece(arguments: Any, index: Any = 0) -> dict[str, Any]:
    return part("tool-call-delta", index, tool_calls={"function": {"arguments": arguments}})


def call(*pieces: Any, index: Any = 0, id: Any = "c", name: Any = "f") -> list[dict[str, Any]]:
    middle = [piece(words, index) for words in pieces]
    return [call_start(index, id, name), *middle, stop(index, "tool-call-end")]


def end(reason: str | None = "COMPLETE", **fields: Any) -> dict[str, Any]:
    return {"type": "message-end", "delta": {"finish_reason": reason, **fields}}


def own(**data: Any) -> ProviderBlockFinished:
    return ProviderBlockFinished("cohere", data)


BEGIN = {
    "id": "m1", "type": "message-start",
    "delta": {"message": {"role": "assistant", "content": [], "tool_plan": "", "tool_calls": [], "citations": []}},
}  # fmt: skip
END = end()
HI, HM, THOUGHT = TextDelta("hi"), ReasoningDelta("hm"), ReasoningFinished()
SOURCE = {"type": "document", "id": "doc_0", "document": {"text": "hi"}}
CITED = {"start": 0, "end": 2, "text": "hi", "sources": [SOURCE], "type": "TEXT_CONTENT"}
CITATION = part("citation-start", citations=CITED)
CITATION_END = stop(0, "citation-end")
PLAN = own(type="tool_plan", tool_plan="I will f.")

ANSWERS: dict[str, tuple[list[dict[str, Any]], Sequence[StreamChunk]]] = {
    "text": ([BEGIN, start(), text("h"), text("i"), stop()], [TextDelta("h"), TextDelta("i")]),
    "empty text": ([start(), text(""), text("hi"), text(None), stop()], [HI]),
    "text in the start": ([start(words="hi"), stop()], [HI]),
    "text in the message": ([{**BEGIN, "delta": {"message": {"content": [{"type": "text", "text": "hi"}]}}}], [HI]),
    "no start and no end": ([text("hi")], [HI]),
    "half of a pair": ([text("\ud83d"), text("\ude42")], [TextDelta("🙂")]),
    "half of a pair at the end": ([text("\ud83d"), stop(), text("hi")], [TextDelta("\ufffd"), HI]),
    "thinking": ([start("thinking"), thinking("h"), thinking("m"), stop(), start("text", 1), text("hi", 1), stop(1)],
                 [ReasoningDelta("h"), ReasoningDelta("m"), THOUGHT, HI]),
    "thinking in the start": ([start("thinking", words="hm"), stop()], [HM, THOUGHT]),
    "thinking without an end": ([thinking("hm"), text("hi", 1)], [HM, THOUGHT, HI]),
    "thinking alone": ([thinking("hm")], [HM, THOUGHT]),
    "empty thinking": ([start("thinking"), stop(), text("hi", 1)], [HI]),
    "two thoughts": ([thinking("hm"), stop(), thinking("hm"), stop()], [HM, THOUGHT, HM, THOUGHT]),
    "a plan": ([plan("I will"), plan(""), plan(" f."), text("hi")], [PLAN, HI]),
    "a plan before thinking": ([plan("I will f."), thinking("hm")], [PLAN, HM, THOUGHT]),
    "half of a pair in a plan": ([plan("\ud83d"), plan("\ude42\ud83d")],
                                 [own(type="tool_plan", tool_plan="🙂\ufffd")]),
    "text with its type": ([part("content-delta", content={"type": "text", "text": "hi"})], [HI]),
    "text and thinking in one event": ([part("content-delta", content={"thinking": "hm", "text": "hi"})],
                                       [HM, THOUGHT, HI]),
    "a plan alone": ([plan("I will f.")], [PLAN]),
    "citations": ([start(), text("hi"), CITATION, CITATION_END, CITATION, CITATION_END, stop()],
                  [HI, own(type="citations", citations=[CITED, CITED])]),
    "citations between texts": ([text("h"), CITATION, text("i"), stop()],
                                [TextDelta("h"), TextDelta("i"), own(type="citations", citations=[CITED])]),
    "citations after the text": ([text("hi"), stop(), CITATION, CITATION_END],
                                 [HI, own(type="citations", citations=[CITED])]),
    "citations as a list": ([text("hi"), part("citation-start", citations=[CITED])],
                            [HI, own(type="citations", citations=[CITED])]),
    "fields of other versions": ([{**text("hi"), "logprobs": {"token_ids": [1]}}, {"type": "debug", "prompt": "x"}],
                                 [HI]),
    "wrong types": ([part("content-delta", content="hi"), {"type": "content-delta", "delta": "hi"}, text(7),
                     part("tool-call-start", tool_calls="x"), part("citation-start", citations=None), text("hi")],
                    [HI]),
}  # fmt: skip


@pytest.mark.parametrize(("sent", "expected"), ANSWERS.values(), ids=list(ANSWERS))
def test_each_kind_of_event_becomes_chunks(sent: list[dict[str, Any]], expected: Sequence[StreamChunk]) -> None:
    assert content(*sent, END) == list(expected)


CALLS: dict[str, tuple[list[dict[str, Any]], list[tuple[str, str, Any]]]] = {
    "pieces": (call('{"a"', ": 1}"), [("c", "f", {"a": 1})]),
    "no arguments": (call(), [("c", "f", {})]),
    "null arguments": ([call_start(arguments=None), piece(None), stop(0, "tool-call-end")], [("c", "f", {})]),
    "arguments in the start": ([call_start(arguments='{"a": 1}'), stop(0, "tool-call-end")], [("c", "f", {"a": 1})]),
    "arguments as an object": ([call_start(arguments={"a": 1})], [("c", "f", {"a": 1})]),
    "a placeholder": ([call_start(arguments="{}"), piece('{"a": 1}')], [("c", "f", {"a": 1})]),
    "a list of one call": ([part("tool-call-start", tool_calls=[{"id": "c", "function": {"name": "f"}}])],
                           [("c", "f", {})]),
    "two calls": ([*call("{}"), *call('{"a": 1}', index=1, id="d")], [("c", "f", {}), ("d", "f", {"a": 1})]),
    "interleaved": ([call_start(0), call_start(1, "d"), piece('{"a"'), piece('{"b"', 1), piece(":1}"), piece(":2}", 1)],
                    [("c", "f", {"a": 1}), ("d", "f", {"b": 2})]),
    "no ends": ([call_start(0), piece("{}"), call_start(1, "d"), piece("{}", 1)], [("c", "f", {}), ("d", "f", {})]),
    "the same index again": ([call_start(0), piece('{"a":1}'), call_start(0, "d"), piece("{}")],
                             [("c", "f", {"a": 1}), ("d", "f", {})]),
    "no index": ([call_start(None), piece('{"a":', None), piece("1}", None), stop(None, "tool-call-end")],
                 [("c", "f", {"a": 1})]),
    "a late id and name": ([call_start(id="", name=""),
                            part("tool-call-delta", tool_calls={"id": "c", "function": {"name": "f"}})],
                           [("c", "f", {})]),
    "broken": (call('{"a"'), [("c", "f", '{"a"')]),
    "of no call": ([piece("{}", 7), stop(7, "tool-call-end"), *call()], [("c", "f", {})]),
}  # fmt: skip


@pytest.mark.parametrize(("sent", "expected"), CALLS.values(), ids=list(CALLS))
def test_calls(sent: list[dict[str, Any]], expected: list[tuple[str, str, Any]]) -> None:
    assert calls(BEGIN, *sent, end("TOOL_CALL")) == expected


def test_a_plan_is_before_its_calls() -> None:
    found = content(BEGIN, plan("I will"), plan(" f."), *call("{}"), end("TOOL_CALL"))
    assert found[0] == PLAN
    assert isinstance(found[-1], ToolCallFinished)


def test_citations_have_their_sources_and_their_place_in_the_text() -> None:
    paper = {"id": "doc_1", "title": "Optics", "snippet": "Light …", "url": "https://a.ch/"}
    sources = [SOURCE, {"type": "document", "id": "doc_1", "document": paper}, {"type": "tool", "id": "f_1:0"}]
    second = {"start": 1, "end": 3, "text": "ea", "sources": sources}
    cited = part("citation-start", citations=second)
    found = content(
        BEGIN, start(), text("Sky. "), stop(), start(), text("Sea."), cited, CITATION_END, stop(), cited, END
    )
    typed = (
        Citation(title="doc_0", cited_text="hi", start=6, end=8),
        Citation("https://a.ch/", "Optics", "Light …", 6, 8),
        Citation(title="f_1:0", start=6, end=8),
    )
    blocks = [chunk for chunk in found if isinstance(chunk, ProviderBlockFinished)]
    assert [block.citations for block in blocks] == [typed, typed]
    assert blocks[0].data["citations"] == [second]


def test_citations_are_before_the_calls() -> None:
    found = content(text("hi"), stop(), CITATION, *call("{}"), end("TOOL_CALL"))
    assert found[:2] == [HI, own(type="citations", citations=[CITED])]


def test_an_id_is_made_up_for_a_call_without_one() -> None:
    ((call_id, _, args),) = calls(*call('{"a": 1}', id=None), END)
    assert call_id.startswith("call_")
    assert args == {"a": 1}


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        ([end("COMPLETE")], FinishReason.END_TURN),
        ([end("complete")], FinishReason.END_TURN),
        ([end("MAX_TOKENS")], FinishReason.MAX_TOKENS),
        ([end("STOP_SEQUENCE")], FinishReason.STOP_SEQUENCE),
        ([end("TOOL_CALL")], FinishReason.TOOL_USE),
        ([end("ERROR_TOXIC")], FinishReason.CONTENT_FILTER),
        ([end("USER_CANCEL")], FinishReason.ABORTED),
        ([end("NEW")], FinishReason.OTHER),
        ([end(None)], FinishReason.OTHER),
        ([{"type": "message-end"}], FinishReason.OTHER),
        ([*call(), end("COMPLETE")], FinishReason.TOOL_USE),
    ],
)
def test_the_finish_reason(sent: list[dict[str, Any]], reason: FinishReason) -> None:
    assert turn(*sent).reason is reason


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"billed_units": {"input_tokens": 1, "output_tokens": 2}, "tokens": {"input_tokens": 9, "output_tokens": 4},
          "cached_tokens": 3}, Usage(9, 4, cached_input_tokens=3)),
        ({"tokens": {"input_tokens": 9.0, "output_tokens": 4.0}}, Usage(9, 4)),
        ({"billed_units": {"input_tokens": 1, "output_tokens": 2}}, Usage(1, 2)),
        ({"tokens": "many"}, None),
        ({}, None),
        (None, None),
    ],
)  # fmt: skip
def test_the_usage_is_what_was_read_and_written(usage: Any, expected: Usage | None) -> None:
    found = turn(BEGIN, text("hi"), end(usage=usage))
    assert (found.usage, found.response_id, found.provider_reason) == (expected, "m1", "COMPLETE")


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (end("ERROR"), ServerError, "the answer ended with ERROR"),
        (end("ERROR", error="the model failed"), ServerError, "the model failed"),
        (end("TIMEOUT"), ServerError, "the answer ended with TIMEOUT"),
        (end(None, error="the model failed"), ServerError, "the model failed"),
        (end("ERROR", error="too many tokens: prompt is too long"), ContextOverflowError, "too long"),
        ({"message": "gone", "id": "x"}, ProviderError, "gone"),
        ({"type": "error", "message": "gone"}, ProviderError, "gone"),
        ({"type": "stream-error", "error": "gone"}, ProviderError, "gone"),
    ],
)
def test_an_error_is_raised(error: dict[str, Any], kind: type[CompletionError], words: str) -> None:
    found, raised = read(BEGIN, text("hi"), error)
    assert found == [HI]
    assert isinstance(raised, kind)
    assert words in str(raised)


@pytest.mark.parametrize("sent", [[], [BEGIN], [BEGIN, text("hi"), stop()], [BEGIN, *call()], [plan("I"), DONE]])
def test_a_body_without_message_end_is_truncated(sent: list[Any]) -> None:
    found, error = read(*sent)
    assert type(error) is TruncatedStreamError
    assert list(order_faults(found, ended=False)) == []


def test_the_events_of_another_server_are_malformed() -> None:
    _, error = read({"id": "chatcmpl-1", "choices": []})
    assert type(error) is MalformedStreamError
    assert "does base_url point at Cohere?" in str(error)


@pytest.mark.parametrize("late", [text("more"), thinking("more"), call_start(), {**BEGIN, "id": "m2"}])
def test_an_answer_that_goes_on_after_its_end_is_malformed(late: dict[str, Any]) -> None:
    assert type(read(BEGIN, text("hi"), END, late)[1]) is MalformedStreamError


def test_events_without_content_after_the_end_are_skipped() -> None:
    assert content(BEGIN, BEGIN, text("hi"), END, stop(), END, DONE) == [HI]


def test_a_connection_that_breaks_after_the_end_is_ignored() -> None:
    found = list(assemble(broken_after(TransportError("reset"), text("hi"), END), lambda seconds: None))
    assert [type(chunk).__name__ for chunk in found] == ["TextDelta", "TurnFinished"]


def test_how_long_the_end_of_the_body_is_waited_for() -> None:
    waits: list[float | None] = []
    list(assemble(iter([("message", text("hi")), ("message", END)]), waits.append))
    assert waits == [0.5, 0.5]


WHOLE = [
    BEGIN, start("thinking"), thinking("hm"), stop(), start("text", 1), text("Grüße 🙂", 1), CITATION, CITATION_END,
    stop(1), plan("I will f."), *call('{"a":', '"ü"}'), end("TOOL_CALL", usage={"tokens": {"input_tokens": 9}}),
]  # fmt: skip
BODY = b"".join(event(data, data["type"]) for data in WHOLE)


@pytest.mark.parametrize("split", [None, 1, 7])
def test_the_pieces_of_a_body_do_not_matter(split: int | None) -> None:
    found = list(assemble(sse_events(chunks_of(BODY, split)), lambda seconds: None))
    assert found == chunks(*WHOLE)
    assert collect(found).text == "Grüße 🙂"


def test_a_turn_goes_back() -> None:
    history = [Message.user("q"), turn(*WHOLE).message, Message.tool_result("c", "1")]
    body, _ = COHERE_CHAT.body(ChatRequest(history), "command-a-03-2025")
    function = {"name": "f", "arguments": '{"a":"ü"}'}
    assert body["messages"][1:] == [
        {"role": "assistant", "tool_plan": "I will f.",
         "content": [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "Grüße 🙂"}],
         "tool_calls": [{"id": "c", "type": "function", "function": function}], "citations": [CITED]},
        {"role": "tool", "tool_call_id": "c", "content": "1"},
    ]  # fmt: skip


def test_a_piece_of_text_takes_the_fast_path() -> None:
    def work(pieces: int) -> int:
        sent = [text("hi")] * pieces
        return lines_run(lambda: chunks(*sent, END))

    each = (work(120) - work(20)) / 100
    assert each < 40


@given(st.lists(st.integers(0, 3), max_size=40))
def test_calls_and_text_may_be_interleaved(order: list[int]) -> None:
    parts = [call('{"a":', "1}", index=0), call('{"b":', "2}", index=1, id="d"), [text("h", 2), text("i", 2)]]
    sent = [parts[which].pop(0) for which in interleaved([len(part) for part in parts], order)]
    found = chunks(BEGIN, *sent, END)
    assert sorted(READING.calls(BEGIN, *sent, END)) == [("c", "f", {"a": 1}), ("d", "f", {"b": 2})]
    assert collect(found).text == "hi"


KEYS = ("type", "index", "delta", "message", "content", "text", "thinking", "tool_calls", "citations", "id")
KINDS = st.sampled_from([
    "message-start", "content-start", "content-delta", "content-end", "tool-plan-delta", "tool-call-start",
    "tool-call-delta", "tool-call-end", "citation-start", "citation-end",
])  # fmt: skip
TEXTS = st.sampled_from(["", "a", "{", "}", '{"a":1}', "\ud83d"])
ANY = anything(KEYS, TEXTS)
CONTENT = objects_with(ANY, text=TEXTS, thinking=TEXTS)
CALL = objects_with(ANY, id=TEXTS, function=objects_with(ANY, name=TEXTS, arguments=TEXTS))
MESSAGE = objects_with(ANY, content=CONTENT, tool_calls=CALL, tool_plan=TEXTS, citations=ANY)
EVENT = st.fixed_dictionaries(
    {"type": KINDS}, optional={"index": st.integers(0, 1) | ANY, "delta": objects_with(ANY, message=MESSAGE)}
)


@given(st.lists(EVENT, max_size=8))
def test_the_order_is_right_whatever_arrives(sent: list[dict[str, Any]]) -> None:
    found, error = read(*sent, END)
    assert list(order_faults(found, ended=error is None)) == []
    if error is None:
        finished = [chunk for chunk in found if isinstance(chunk, ToolCallFinished)]
        history = [Message.user("q"), collect(found).message, *[Message.tool_result(c.call_id, "1") for c in finished]]
        COHERE_CHAT.body(ChatRequest(history), "m")
