"""From the events of Anthropic Messages to chunks, and from the turn to the next request.

Each list of events below has a shape that some server sends, or that a broken server may send.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from completion import (
    AuthenticationError,
    ChatRequest,
    CompletionError,
    ContextOverflowError,
    FinishReason,
    InvalidRequestError,
    MalformedStreamError,
    Message,
    OverloadedError,
    ProviderBlockFinished,
    ProviderError,
    QuotaExceededError,
    RateLimitError,
    ReasoningBlock,
    ReasoningDelta,
    ReasoningFinished,
    RedactedReasoning,
    ServerError,
    StreamCancelledError,
    StreamChunk,
    TextDelta,
    ToolCallArgsDelta,
    ToolCallFinished,
    ToolCallStarted,
    TransportError,
    TruncatedStreamError,
    TurnFinished,
    Usage,
    collect,
)
from completion.events import DONE
from completion.events.sse import sse_events
from completion.wires.anthropic.assemble import assemble
from completion.wires.assembly import WAIT_FOR_EOF_S, WAIT_FOR_USAGE_S
from tests.wire_pieces import (
    CITATION,
    LATER_CITATION,
    MESSAGE_STOP,
    PING,
    Reading,
    anthropic_body,
    anthropic_stream,
    anything,
    block_delta,
    block_start,
    block_stop,
    broken_after,
    call_block,
    chunks_of,
    error_event,
    events,
    interleaved,
    lines_run,
    message_delta,
    objects_with,
    order_faults,
    text_block,
    thinking_block,
)


def start(**fields: Any) -> dict[str, Any]:
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m-1", "content": []}
    return {"type": "message_start", "message": {**message, "stop_reason": None, **fields}}


END = [message_delta("end_turn"), MESSAGE_STOP]
CALLED = [message_delta("tool_use"), MESSAGE_STOP]


READING = Reading(assemble)
chunks, content, turn, calls = READING.chunks, READING.content, READING.turn, READING.calls
read = READING.until_error


def own(**data: Any) -> ProviderBlockFinished:
    return ProviderBlockFinished("anthropic", data)


# What real servers send

HI, HM, SIGNED = TextDelta("hi"), ReasoningDelta("hm"), ReasoningFinished("s", "anthropic")
SEARCH = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "x"}}
FOUND = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": [{"url": "https://x"}]}
COMPACTION = {"type": "compaction", "content": "A summary", "encrypted_content": "EqQ"}
FALLBACK = {"type": "fallback", "from": {"model": "m-1"}, "to": {"model": "m-2"}}
CALLER = {"type": "code_execution_20250825", "tool_id": "srvtoolu_1"}


def called(args: dict[str, Any], *pieces: str, id: str = "c", name: str = "f") -> list[StreamChunk]:
    """The chunks of a call."""
    deltas = [ToolCallArgsDelta(id, piece) for piece in pieces]
    return [ToolCallStarted(id, name), *deltas, ToolCallFinished(id, name, args)]


ANSWERS: dict[str, tuple[list[dict[str, Any]], Sequence[StreamChunk]]] = {
    "text": (text_block(0, "h", "i"), [TextDelta("h"), TextDelta("i")]),
    "characters beyond ASCII": (text_block(0, "grün 日本", " 🎉", "ﬁ"),
                                [TextDelta("grün 日本"), TextDelta(" 🎉"), TextDelta("ﬁ")]),
    "pings": ([PING, *text_block(0, "hi"), PING], [HI]),
    "text in the block's start": ([block_start(0, "text", text="h"), block_delta(0, "text_delta", text="i"),
                                   block_stop(0)],
                                  [TextDelta("h"), TextDelta("i")]),
    "several texts": ([*text_block(0, "h"), *text_block(1, "i")], [TextDelta("h"), TextDelta("i")]),
    "empty text": ([*text_block(0, "", "hi", ""), *text_block(1)], [HI]),
    "thinking": ([*thinking_block(0, "h", "m"), *text_block(1, "hi")],
                 [ReasoningDelta("h"), ReasoningDelta("m"), SIGNED, HI]),
    "thinking in the block's start": ([block_start(0, "thinking", thinking="hm", signature="s"), block_stop(0)],
                                      [HM, SIGNED]),
    "a signature alone": ([*thinking_block(0), *text_block(1, "hi")], [SIGNED, HI]),
    "thinking unsigned": (thinking_block(0, "hm", signature=None), [HM, ReasoningFinished()]),
    "empty thinking unsigned": ([*thinking_block(0, "", signature=None), *text_block(1, "hi")], [HI]),
    "several thoughts": ([*thinking_block(0, "hm"), *thinking_block(1, "hm", signature="t")],
                         [HM, SIGNED, HM, ReasoningFinished("t", "anthropic")]),
    "several thoughts unsigned": ([*thinking_block(0, "hm", signature=None), *thinking_block(1, "hm", signature=None)],
                                  [HM, ReasoningFinished(), HM, ReasoningFinished()]),
    "a signature and null after it": ([block_start(0, "thinking", thinking="hm", signature="s"),
                                       block_delta(0, "signature_delta", signature=None), block_stop(0)], [HM, SIGNED]),
    "redacted thinking": ([block_start(0, "redacted_thinking", data="Eqk"), block_stop(0), *text_block(1, "hi")],
                          [RedactedReasoning("Eqk", "anthropic"), HI]),
    "a call": (call_block(0, "", '{"a"', ": 1}"), called({"a": 1}, '{"a"', ": 1}")),
    "a call without input": (call_block(0), called({})),
    "a call with empty input": (call_block(0, ""), called({})),
    "input in the block's start": ([block_start(0, "tool_use", id="c", name="f", input={"a": "ü"}), block_stop(0)],
                                   called({"a": "ü"}, '{"a":"ü"}')),
    "input in both": ([block_start(0, "tool_use", id="c", name="f", input={"a": 1}), *call_block(0, '{"a":2}')[1:]],
                      called({"a": 2}, '{"a":2}')),
    "input as text": ([block_start(0, "tool_use", id="c", name="f", input='{"a":1}'), block_stop(0)],
                      called({"a": 1}, '{"a":1}')),
    "a call by the model itself": (call_block(0, caller={"type": "direct"}), called({})),
    "a call from code": (call_block(0, caller=CALLER, toolset_name=None),
                         [*called({}), own(type="caller", tool_use_id="c", caller=CALLER)]),
    "a call of a toolset": (call_block(0, caller={"type": "direct"}, toolset_name="browser"),
                            [*called({}), own(type="caller", tool_use_id="c", toolset_name="browser")]),
    "parallel calls": ([*call_block(0, "{}", id="c"), *call_block(1, '{"b":2}', id="d", name="g")],
                       [*called({}, "{}"), *called({"b": 2}, '{"b":2}', id="d", name="g")]),
    "text before and after a call": ([*text_block(0, "hi"), *call_block(1), *text_block(2, "hi")],
                                     [HI, *called({}), HI]),
    "server tools": (
        [*text_block(0, "hi"),
         *call_block(1, "", '{"que', 'ry": "x"}', id="srvtoolu_1", name="web_search", kind="server_tool_use"),
         {"type": "content_block_start", "index": 2, "content_block": FOUND}, block_stop(2), *text_block(3, "hi")],
        [HI, own(**SEARCH), own(**FOUND), HI],
    ),
    "a server tool's input cut off": (call_block(0, '{"que', kind="server_tool_use"),
                                      [own(type="server_tool_use", id="c", name="f", input='{"que')]),
    "a server tool's input that JSON cannot carry back": (
        call_block(0, '{"a": NaN}', kind="server_tool_use"),
        [own(type="server_tool_use", id="c", name="f", input='{"a": NaN}')],
    ),
    "a tool of an MCP server": (call_block(0, '{"a": 1}', kind="mcp_tool_use", server_name="x"),
                                [own(type="mcp_tool_use", id="c", name="f", input={"a": 1}, server_name="x")]),
    "a block of an unknown kind": ([block_start(0, "hologram", pixels=[1]),
                                    block_delta(0, "hologram_delta", pixels=[2]),
                                    block_stop(0), *text_block(1, "hi")], [own(type="hologram", pixels=[1]), HI]),
    "citations": (
        [block_start(0, "text", text="", citations=[]), block_delta(0, "citations_delta", citation=CITATION),
         block_delta(0, "text_delta", text="hi"), block_delta(0, "citations_delta", citation=LATER_CITATION),
         block_stop(0)],
        [HI, own(type="citations", citations=[CITATION, LATER_CITATION], length=2)],
    ),
    "citations in the block's start": ([*text_block(0, "so: "), *text_block(1, "hi", citations=[CITATION])],
                                       [TextDelta("so: "), HI, own(type="citations", citations=[CITATION], length=2)]),
    "citations after the block's stop": ([*text_block(0, "hi"), block_delta(0, "citations_delta", citation=CITATION)],
                                         [HI, own(type="citations", citations=[CITATION], length=2)]),
    "citations after the stop of a second text": (
        [*text_block(0, "so: "), *text_block(1, "hi"), block_delta(1, "citations_delta", citation=CITATION)],
        [TextDelta("so: "), HI, own(type="citations", citations=[CITATION], length=2)],
    ),
    "citations inside another block": (
        [*text_block(0, "hi"), block_start(1, "hologram"), block_delta(1, "citations_delta", citation=CITATION),
         block_stop(1)],
        [HI, own(type="citations", citations=[CITATION], length=2), own(type="hologram")],
    ),
    "compaction": ([block_start(0, "compaction", content=None),
                    block_delta(0, "compaction_delta", content="A summary", encrypted_content="EqQ"), block_stop(0)],
                   [own(**COMPACTION)]),
    "another model takes over": ([*text_block(0, "hi"),
                                  {"type": "content_block_start", "index": 1, "content_block": FALLBACK},
                                  block_stop(1)],
                                 [HI, own(**FALLBACK)]),
    "unknown events and deltas": ([{"type": "weather"}, block_start(0, "text", text=""),
                                   block_delta(0, "scent_delta", scent=1),
                                   block_delta(0, "text_delta", text="hi"), block_stop(0)], [HI]),
    "a delta after the block's stop": ([*text_block(0, "h"), block_delta(0, "text_delta", text="i")],
                                       [TextDelta("h"), TextDelta("i")]),
    "an empty piece of input after the call's stop": ([*call_block(0, "{}"),
                                                       block_delta(0, "input_json_delta", partial_json="")],
                                                      called({}, "{}")),
    "the start again": ([*text_block(0, "h"), start(), *text_block(1, "i")], [TextDelta("h"), TextDelta("i")]),
    "blocks without an end": (
        [block_start(0, "thinking", thinking=""), block_delta(0, "thinking_delta", thinking="hm"),
         block_delta(0, "signature_delta", signature="s"), block_start(1, "text", text=""),
         block_delta(1, "text_delta", text="hi"),
         block_start(2, "tool_use", id="c", name="f", input={}), block_delta(2, "input_json_delta", partial_json="{}")],
        [HM, SIGNED, HI, *called({}, "{}")],
    ),
    "a text without an end before another block": (
        [block_start(0, "text", text="hi", citations=[CITATION]),
         *call_block(1, kind="server_tool_use", id="srvtoolu_1")],
        [HI, own(type="citations", citations=[CITATION], length=2),
         own(type="server_tool_use", id="srvtoolu_1", name="f", input={})],
    ),
    "calls without an end": ([*call_block(0, "{}", id="c")[:-1], *call_block(1, "{}", id="d")[:-1]],
                             [*called({}, "{}"), *called({}, "{}", id="d")]),
    "interleaved calls": (
        [block_start(0, "tool_use", id="c", name="f", input={}), block_start(1, "tool_use", id="d", name="g", input={}),
         block_delta(1, "input_json_delta", partial_json='{"b"'),
         block_delta(0, "input_json_delta", partial_json='{"a"'),
         block_delta(1, "input_json_delta", partial_json=":2}"), block_stop(1),
         block_delta(0, "input_json_delta", partial_json=":1}"),
         block_stop(0)],
        [*called({"a": 1}, '{"a"', ":1}"), *called({"b": 2}, '{"b"', ":2}", id="d", name="g")],
    ),
    "text inside a call": ([*call_block(0)[:-1], *text_block(1, "hi"), block_stop(0)], [*called({}), HI]),
    "no starts of blocks": (
        [block_delta(0, "thinking_delta", thinking="hm"), block_delta(0, "signature_delta", signature="s"),
         block_stop(0),
         block_delta(1, "text_delta", text="hi"), block_delta(1, "citations_delta", citation=CITATION), block_stop(1),
         block_delta(2, "compaction_delta", content="A summary"), block_stop(2)],
        [HM, SIGNED, HI, own(type="citations", citations=[CITATION], length=2),
         own(type="compaction", content="A summary")],
    ),
    "no indexes": (
        [{key: value for key, value in sent.items() if key != "index"}
         for sent in [*thinking_block(0, "hm"), *text_block(1, "hi"), *call_block(2, '{"a"', ":1}"),
                      *call_block(3, "{}", id="d")]],
        [HM, SIGNED, HI, *called({"a": 1}, '{"a"', ":1}"), *called({}, "{}", id="d")],
    ),
    "indexes in the starts only": (
        [*call_block(0)[:1], block_delta(None, "input_json_delta", partial_json="{}"), block_stop([]),
         *text_block(1)[:1],
         block_delta({}, "text_delta", text="hi"), block_delta(1.5, "citations_delta", citation=CITATION),
         block_stop(None)],
        [*called({}, "{}"), HI, own(type="citations", citations=[CITATION], length=2)],
    ),
    "an index again": ([*call_block(0, "{}"), *call_block(0, "{}", id="d"), *text_block(0, "hi")],
                       [*called({}, "{}"), *called({}, "{}", id="d"), HI]),
    "indexes of any kind": ([*text_block(10**30, "hi"), *thinking_block(-1, "hm"), *call_block("x", "{}")],
                            [HI, HM, SIGNED, *called({}, "{}")]),
    "a character cut in two": (text_block(0, "a\ud83d", "\ude00b"), [TextDelta("a"), TextDelta("\U0001f600b")]),
    "half a character": ([*text_block(0, "a\ud83d"), *text_block(1, "hi")], [TextDelta("a"), TextDelta("\ufffd"), HI]),
}  # fmt: skip


def finished(data: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A complete message with these events."""
    has_calls = any(sent.get("content_block", {}).get("type") == "tool_use" for sent in data)
    return [start(), *data, *(CALLED if has_calls else END)]


@pytest.mark.parametrize("case", ANSWERS)
def test_the_events_of_servers_become_chunks(case: str) -> None:
    sent, expected = ANSWERS[case]
    assert content(*finished(sent)) == expected


@pytest.mark.parametrize("split", [None, 7, 1], ids=["whole", "sevens", "byte by byte"])
@pytest.mark.parametrize("case", ANSWERS)
def test_the_chunks_are_the_same_however_the_body_is_cut(case: str, split: int | None) -> None:
    sent, expected = ANSWERS[case]
    found = list(assemble(sse_events(chunks_of(anthropic_stream(*finished(sent)), split))))
    assert found[:-1] == expected


@pytest.mark.parametrize("case", ANSWERS)
def test_blocks_without_a_message_start_are_read(case: str) -> None:
    sent, expected = ANSWERS[case]
    assert content(*(data for data in sent if data["type"] != "message_start"), MESSAGE_STOP) == expected
    with pytest.raises(TruncatedStreamError, match="not complete"):
        list(assemble(events(*sent)))


@pytest.mark.parametrize("case", ANSWERS)
def test_an_answer_that_is_cut_after_any_event_is_truncated(case: str) -> None:
    whole = finished(ANSWERS[case][0])
    for length in range(len(whole) - 1):
        found, error = read(*whole[:length])
        assert isinstance(error, TruncatedStreamError)
        assert list(order_faults(found, ended=False)) == []
    assert chunks(*whole[:-1]) == chunks(*whole)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ([block_start(0, "tool_use", name="f", input={}), *call_block(0, "{}")[1:]], [("f", {})]),
        ([block_start(0, "tool_use", id=7, name="f", input={}), block_stop(0)], [("f", {})]),
        ([*call_block(0), *call_block(1)], [("f", {}), ("f", {})]),
        ([block_delta(0, "input_json_delta", partial_json='{"a":1}'), block_stop(0)], [("", '{"a":1}')]),
        ([block_start(0, "tool_use", id="c", input={}), *call_block(0, "{}")[1:]], [("", "{}")]),
        ([*text_block(0, "hi"), block_delta(0, "input_json_delta", partial_json="{")], [("", "{")]),
    ],
    ids=["no id", "a number as id", "one id twice", "no start", "no name", "input after a text"],
)
def test_calls_without_usable_ids_get_unique_ids(data: list[Any], expected: list[Any]) -> None:
    found = calls(*data, *CALLED)
    assert [(name, args) for _, name, args in found] == expected
    assert len({call_id for call_id, _, _ in found}) == len(expected)


@pytest.mark.parametrize(
    ("pieces", "raw"),
    [
        (['{"a": "x'], '{"a": "x'),
        (["[1]"], "[1]"),
        (['"x"'], '"x"'),
        (['{"a": NaN}'], '{"a": NaN}'),
        (["{", "}", "}"], "{}}"),
    ],
    ids=["cut off by max_tokens", "list", "text", "NaN", "brace too many"],
)
def test_input_that_is_not_an_object_makes_a_call_malformed(pieces: list[str], raw: str) -> None:
    assert calls(start(), *call_block(0, *pieces), message_delta("max_tokens"), MESSAGE_STOP) == [("c", "f", raw)]


@pytest.mark.parametrize("input", [[1], 5, True, "x", {"a": float("nan")}])
def test_invalid_input_in_the_start_makes_a_call_malformed(input: Any) -> None:
    ((_, _, raw),) = calls(block_start(0, "tool_use", id="c", name="f", input=input), block_stop(0), *CALLED)
    assert isinstance(raw, str)


@pytest.mark.parametrize("kind", ["tool_use", "server_tool_use"])
def test_input_after_the_end_of_its_block_is_malformed(kind: str) -> None:
    more = block_delta(0, "input_json_delta", partial_json="}")
    with pytest.raises(MalformedStreamError, match="after its end"):
        chunks(start(), *call_block(0, "{}", kind=kind), more, *END)


@pytest.mark.parametrize("index", [0, None], ids=["its index", "no index"])
def test_a_call_ends_with_its_block(index: Any) -> None:
    data = [*call_block(0)[:-1], block_stop(index)]
    assert read(*data)[0] == called({})
    assert read(*data, block_delta(1, "text_delta", text="hi"))[0] == [*called({}), HI]


# Messages with all of their content in message_start


def test_a_message_start_with_all_of_the_content_is_read() -> None:
    blocks = [
        {"type": "thinking", "thinking": "hm", "signature": "s"},
        {"type": "text", "text": "hi", "citations": [CITATION]},
        SEARCH,
        {"type": "tool_use", "id": "c", "name": "f", "input": {"a": 1}, "caller": CALLER},
    ]
    assert chunks(start(content=blocks, stop_reason="tool_use", usage={"output_tokens": 7}), MESSAGE_STOP) == [
        HM,
        SIGNED,
        HI,
        own(type="citations", citations=[CITATION], length=2),
        own(**SEARCH),
        *called({"a": 1}, '{"a":1}'),
        own(type="caller", tool_use_id="c", caller=CALLER),
        TurnFinished(FinishReason.TOOL_USE, Usage(0, 7), None, "tool_use", None, "msg_1", "m-1"),
    ]


def test_the_message_start_alone_can_be_a_complete_turn() -> None:
    found = turn(start(content=[{"type": "text", "text": "hi"}], stop_reason="end_turn"))
    assert (found.text, found.reason) == ("hi", FinishReason.END_TURN)


# Finish reasons and ends of turn


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("end_turn", FinishReason.END_TURN),
        ("tool_use", FinishReason.TOOL_USE),
        ("max_tokens", FinishReason.MAX_TOKENS),
        ("stop_sequence", FinishReason.STOP_SEQUENCE),
        ("pause_turn", FinishReason.PAUSE),
        ("refusal", FinishReason.REFUSAL),
        ("model_context_window_exceeded", FinishReason.CONTEXT_OVERFLOW),
        ("compaction", FinishReason.OTHER),
        ("END_TURN", FinishReason.END_TURN),
    ],
)
def test_a_stop_reason_is_translated_and_kept(word: str, reason: FinishReason) -> None:
    found = turn(start(), *text_block(0, "hi"), message_delta(word), MESSAGE_STOP)
    assert (found.reason, found.provider_reason) == (reason, word)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ([*call_block(0), message_delta("end_turn")], FinishReason.TOOL_USE),
        ([*call_block(0), message_delta("max_tokens")], FinishReason.MAX_TOKENS),
        ([*call_block(0), message_delta("pause_turn")], FinishReason.PAUSE),
        ([*call_block(0, "{"), message_delta("end_turn")], FinishReason.END_TURN),
        ([*call_block(0), MESSAGE_STOP], FinishReason.TOOL_USE),
        ([*call_block(0), message_delta(None), MESSAGE_STOP], FinishReason.TOOL_USE),
        ([*call_block(0, "{"), MESSAGE_STOP], FinishReason.OTHER),
        ([*text_block(0, "hi"), MESSAGE_STOP], FinishReason.OTHER),
        ([MESSAGE_STOP], FinishReason.OTHER),
        ([*text_block(0, "hi"), message_delta("end_turn", "e")], FinishReason.STOP_SEQUENCE),
    ],
    ids=[
        "a call", "cut off", "paused", "malformed call", "message_stop after a call", "null", "after a malformed one",
        "message_stop after text", "message_stop alone", "a stop sequence with end_turn",
    ],
)  # fmt: skip
def test_the_finish_reason_depends_on_the_answer(data: list[Any], reason: FinishReason) -> None:
    assert turn(start(), *data).reason is reason


def test_the_stop_sequence_is_kept() -> None:
    found = turn(start(stop_sequence=None), message_delta("stop_sequence", "</a>"), MESSAGE_STOP)
    assert (found.reason, found.stop_sequence) == (FinishReason.STOP_SEQUENCE, "</a>")


def test_done_does_not_end_the_turn_on_this_wire() -> None:
    assert turn(start(), *text_block(0, "hi"), *END, DONE).text == "hi"
    with pytest.raises(TruncatedStreamError):
        chunks(start(), *text_block(0, "hi"), DONE)
    assert content(*text_block(0, "hi"), MESSAGE_STOP, DONE, *text_block(1, "ho")) == [HI]


@pytest.mark.parametrize("end", [message_delta("end_turn"), MESSAGE_STOP], ids=["stop_reason", "message_stop"])
def test_a_connection_that_breaks_after_the_end_of_the_turn_is_ignored(end: dict[str, Any]) -> None:
    found = list(assemble(broken_after(TransportError("reset"), *text_block(0, "hi"), end)))
    assert found[:-1] == [HI]
    assert isinstance(found[-1], TurnFinished)


@pytest.mark.parametrize(
    ("error", "data"),
    [
        (TransportError("x"), text_block(0, "hi")),
        (StreamCancelledError("x"), [*text_block(0, "hi"), *END]),
        (MalformedStreamError("x"), [*text_block(0, "hi"), *END]),
    ],
    ids=["reset before the end", "cancelled after it", "malformed after it"],
)
def test_any_other_error_of_the_body_is_raised_after_the_chunks_before_it(
    error: CompletionError, data: list[Any]
) -> None:
    found = assemble(broken_after(error, *data))
    assert next(found) == HI
    with pytest.raises(type(error)):
        next(found)


def test_the_end_of_the_turn_is_reported_at_once() -> None:
    waits: list[float | None] = []

    def wire() -> Iterator[tuple[str, Any]]:
        for data in text_block(0, "hi"):
            yield "message", data
            assert waits == []
        yield "message", message_delta("end_turn")
        assert waits == [WAIT_FOR_USAGE_S]
        yield "message", block_delta(0, "text_delta", text="more")
        assert waits == [WAIT_FOR_USAGE_S, None]
        yield "message", MESSAGE_STOP
        assert waits == [WAIT_FOR_USAGE_S, None, WAIT_FOR_EOF_S]

    assert collect(assemble(wire(), waits.append)).text == "himore"


@pytest.mark.parametrize(
    "data",
    [
        [start(), *text_block(0, "hi"), start(id="msg_2"), *END],
        [start(), *text_block(0, "hi"), *END, start(id="msg_2"), *text_block(0, "ho"), *END],
        [start(), *text_block(0, "hi"), *END, start(), *text_block(0, "ho"), *END],
        [start(id=None), *text_block(0, "hi"), start(), *END],
    ],
    ids=["inside", "after the end", "the same once more", "with an id"],
)
def test_a_second_message_in_the_body_is_malformed(data: list[Any]) -> None:
    with pytest.raises(MalformedStreamError, match="second message"):
        list(assemble(events(*data)))


@pytest.mark.parametrize(
    "more",
    [text_block(0, "Other"), [block_delta(0, "text_delta", text="more")], call_block(1, "{}"), thinking_block(1, "hm")],
    ids=["a block", "a delta", "a call", "thinking"],
)
def test_an_answer_that_goes_on_after_message_stop_is_malformed(more: list[dict[str, Any]]) -> None:
    with pytest.raises(MalformedStreamError, match="after message_stop"):
        list(assemble(events(start(), *text_block(0, "Hello"), *END, *more)))


def test_a_stream_of_another_wire_is_reported_as_one() -> None:
    chunk = {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": "hi"}}]}
    with pytest.raises(MalformedStreamError, match="base_url"):
        list(assemble(events(chunk, PING, chunk)))


def test_a_truncated_answer_with_unknown_events_is_not_another_wire() -> None:
    with pytest.raises(TruncatedStreamError):
        list(assemble(events({"type": "new"}, start(), {"type": "new"})))


# The other fields of the message


def test_id_model_and_tier_are_read_from_the_message() -> None:
    found = turn(start(usage={"service_tier": "priority", "output_tokens": 1}), *text_block(0, "hi"), *END)
    assert (found.response_id, found.response_model, found.service_tier) == ("msg_1", "m-1", "priority")


def test_the_model_that_took_over_is_the_one_that_answered() -> None:
    data = {"type": "content_block_start", "index": 0, "content_block": FALLBACK}
    assert turn(start(), data, block_stop(0), *END).response_model == "m-2"


def test_container_refusal_details_and_context_edits_are_one_block_at_the_end() -> None:
    container = {"id": "cntr_1", "expires_at": "2026-11-22T00:00:00Z"}
    details = {"type": "refusal", "category": "cyber"}
    edits = {"applied_edits": [{"type": "clear_thinking_20251015"}]}
    end = message_delta("refusal", context_management=edits)
    end["delta"].update(container=container, stop_details=details)
    assert content(start(container=None), *text_block(0, "hi"), end, MESSAGE_STOP) == [
        HI,
        own(type="message", container=container, stop_details=details, context_management=edits),
    ]


# Usage


@pytest.mark.parametrize(
    ("first", "later", "usage"),
    [
        ({"input_tokens": 9, "output_tokens": 1}, {"output_tokens": 5}, Usage(9, 5)),
        ({"input_tokens": 9, "output_tokens": 8}, {"input_tokens": 3, "output_tokens": 5}, Usage(3, 5)),
        (
            {"input_tokens": 9, "cache_read_input_tokens": 4, "output_tokens": 1},
            {"input_tokens": None, "cache_read_input_tokens": None, "output_tokens": 5},
            Usage(13, 5, cached_input_tokens=4),
        ),
        (
            {
                "input_tokens": 9,
                "cache_read_input_tokens": 4,
                "cache_creation_input_tokens": 7,
                "cache_creation": {"ephemeral_5m_input_tokens": 5, "ephemeral_1h_input_tokens": 2},
            },
            {"output_tokens": 5, "output_tokens_details": {"thinking_tokens": 3}},
            Usage(20, 5, 4, 7, 5, 2, 3),
        ),
        (
            {"input_tokens": 1, "cache_creation": {"ephemeral_5m_input_tokens": 5, "ephemeral_1h_input_tokens": 2}},
            None,
            Usage(8, 0, 0, 7, 5, 2),
        ),
        (
            {"input_tokens": 9},
            {"output_tokens": 5, "iterations": [{"input_tokens": 50, "output_tokens": 50}]},
            Usage(9, 5),
        ),
        ({"input_tokens": 9.0, "output_tokens": True, "cache_creation": [], "cache_read_input_tokens": "4"}, [],
         Usage(9, 0)),
        ({"input_tokens": -1, "output_tokens": float("inf"), "output_tokens_details": 5}, {}, Usage()),
        (None, {"output_tokens": 0}, Usage()),
        (None, None, None),
        ({}, [], None),
        ({"service_tier": "standard"}, {"iterations": []}, None),
    ],
    ids=[
        "output grows", "counters shrink", "null keeps", "all parts", "parts without their total", "iterations",
        "other types", "no numbers", "zero", "none", "empty", "no counters",
    ],
)  # fmt: skip
def test_usage_counts_totals_and_their_parts(first: Any, later: Any, usage: Usage | None) -> None:
    assert (
        turn(start(usage=first), *text_block(0, "hi"), message_delta("end_turn", usage=later), MESSAGE_STOP).usage
        == usage
    )


def test_usage_may_come_in_several_events() -> None:
    first, second = (
        message_delta(None, usage={"output_tokens": 3}),
        message_delta("end_turn", usage={"input_tokens": 2}),
    )
    third = message_delta(None, usage={"output_tokens": 4})
    found = turn(start(usage={"input_tokens": 1}), first, second, third, MESSAGE_STOP)
    assert (found.usage, found.reason) == (Usage(2, 4), FinishReason.END_TURN)


# Errors inside a 200


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (error_event("overloaded_error"), OverloadedError),
        (error_event("api_error"), ServerError),
        (error_event("timeout_error"), ServerError),
        (error_event("rate_limit_error"), RateLimitError),
        (error_event("authentication_error"), AuthenticationError),
        (error_event("billing_error"), QuotaExceededError),
        (error_event("invalid_request_error"), InvalidRequestError),
        (error_event("invalid_request_error", "prompt is too long: 9 tokens > 8 maximum"), ContextOverflowError),
        (error_event("odd_error"), ProviderError),
        ({"error": {"message": "busy", "code": 529}}, OverloadedError),
        ({"type": "weather", "error": "storm"}, ProviderError),
        ({"type": "error"}, ProviderError),
        ({"message": "Internal server error"}, ProviderError),
        ({"detail": "Not authenticated"}, ProviderError),
    ],
    ids=[
        "overloaded", "api", "timeout", "rate limit", "key", "billing", "request", "too long", "unknown",
        "without a type", "inside another event", "empty", "a gateway's message", "a gateway's detail",
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "before",
    [[], [start(), *text_block(0, "hi")], [start(), *text_block(0, "hi"), message_delta("end_turn")]],
    ids=["first", "after text", "after the end"],
)
def test_an_error_in_the_stream_is_raised_as_its_class(
    before: list[Any], data: dict[str, Any], kind: type[ProviderError]
) -> None:
    found = assemble(events(*before, data, MESSAGE_STOP))
    if before:
        assert next(found) == HI
    with pytest.raises(ProviderError) as caught:
        list(found)
    assert type(caught.value) is kind
    assert caught.value.request_id == data.get("request_id")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"type": "overloaded_error", "message": "busy"}, "busy"),
        ({"message": "busy"}, "busy"),
        ("busy", "busy"),
        (["busy"], "busy"),
        (None, "null"),
    ],
    ids=["object of another type", "bare object", "text", "list", "null"],
)
def test_an_event_named_error_is_an_error_whatever_it_contains(data: Any, message: str) -> None:
    with pytest.raises(ProviderError, match=message):
        list(assemble(iter([("error", data), ("message", MESSAGE_STOP)])))


def test_the_event_name_replaces_a_missing_type() -> None:
    untyped = [start(), *text_block(0, "hi"), *END]
    found = collect(assemble((data["type"], {**data, "type": ""}) for data in untyped))
    assert (found.text, found.reason) == ("hi", FinishReason.END_TURN)


# Sending the turn back


def back(*data: Any) -> dict[str, Any]:
    """The next request after a turn. The history is stored as JSON in between."""
    message = Message.from_json(turn(*data).message.to_json())
    return anthropic_body(ChatRequest([Message.user("q"), message, Message.user("on")]), "claude-opus-4-6")[0]


VERBATIM: list[dict[str, Any]] = [
    {"type": "thinking", "thinking": "hm\n", "signature": "EqQB"},
    {"type": "redacted_thinking", "data": "EmwK"},
    {"type": "text", "text": "I look it up. "},
    SEARCH,
    FOUND,
    {"type": "text", "text": "So: "},
    {"type": "text", "text": "it is.", "citations": [CITATION, LATER_CITATION]},
    {"type": "text", "text": " And "},
    {"type": "thinking", "thinking": "", "signature": "EqQC"},
    {"type": "text", "text": "so on.", "citations": [CITATION]},
    {"type": "text", "text": "Again.", "citations": [LATER_CITATION]},
    {"type": "mcp_tool_use", "id": "mcptoolu_1", "name": "g", "server_name": "x", "input": {"a": []}},
    {"type": "mcp_tool_result", "tool_use_id": "mcptoolu_1", "is_error": False, "content": []},
    COMPACTION,
    FALLBACK,
    {"type": "hologram", "pixels": [{"x": None}]},
    {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"q": ["ü", 1.5]}, "caller": CALLER},
    {"type": "tool_use", "id": "toolu_2", "name": "f", "input": {}, "toolset_name": "browser"},
    {"type": "tool_use", "id": "toolu_3", "name": "f", "input": {}},
]


def streamed(index: int, block: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The events of a block, with deltas of two characters."""
    match block["type"]:
        case "text" | "thinking" as kind:
            yield block_start(index, kind, **{kind: ""})
            for n in range(0, len(block[kind]), 2):
                yield block_delta(index, f"{kind}_delta", **{kind: block[kind][n : n + 2]})
            for citation in block.get("citations", ()):
                yield block_delta(index, "citations_delta", citation=citation)
            if "signature" in block:
                yield block_delta(index, "signature_delta", signature=block["signature"])
        case "compaction":
            yield block_start(index, "compaction", content=None)
            yield {"type": "content_block_delta", "index": index, "delta": {**block, "type": "compaction_delta"}}
        case "tool_use" | "server_tool_use" | "mcp_tool_use":
            raw = json.dumps(block["input"])
            yield {"type": "content_block_start", "index": index, "content_block": {**block, "input": {}}}
            for n in range(0, len(raw), 2):
                yield block_delta(index, "input_json_delta", partial_json=raw[n : n + 2])
        case _:
            yield {"type": "content_block_start", "index": index, "content_block": block}
    yield block_stop(index)


def test_a_turn_is_sent_back_with_the_same_blocks() -> None:
    data = [sent for index, block in enumerate(VERBATIM) for sent in streamed(index, block)]
    assert back(start(), *data, *CALLED)["messages"][1] == {"role": "assistant", "content": VERBATIM}


def test_a_turn_in_one_event_is_sent_back_with_the_same_blocks() -> None:
    body = back(start(content=VERBATIM, stop_reason="tool_use"), MESSAGE_STOP)
    assert body["messages"][1] == {"role": "assistant", "content": VERBATIM}


def test_the_next_request_names_the_container_of_the_last_answer() -> None:
    end = message_delta("pause_turn")
    end["delta"]["container"] = {"id": "cntr_1", "expires_at": "2026-11-22T00:00:00Z"}
    body = back(start(), *text_block(0, "hi"), end, MESSAGE_STOP)
    assert body["container"] == "cntr_1"
    assert body["messages"][1]["content"] == [{"type": "text", "text": "hi"}]


def test_truncated_thinking_is_not_sent_back() -> None:
    found = assemble(events(start(), *thinking_block(0, "hm")[:2]))
    with pytest.raises(TruncatedStreamError) as caught:
        collect(found)
    assert caught.value.partial is not None
    assert caught.value.partial.message.blocks == (ReasoningBlock("hm"),)
    sent = [Message.user("q"), caught.value.partial.message, Message.user("on")]
    assert [message["role"] for message in anthropic_body(ChatRequest(sent), "m")[0]["messages"]] == ["user"]


TEXTS = st.text('ab \n{}"ü🎉', max_size=5)
BLOCKS = st.one_of(
    st.fixed_dictionaries({"type": st.just("thinking"), "thinking": TEXTS, "signature": st.sampled_from(["s", "t"])}),
    st.fixed_dictionaries(
        {"type": st.just("text"), "text": TEXTS.map(lambda text: text + ".")},
        optional={"citations": st.lists(st.sampled_from([CITATION, LATER_CITATION]), min_size=1, max_size=2)},
    ),
    st.fixed_dictionaries({"type": st.just("redacted_thinking"), "data": st.just("x")}),
    st.fixed_dictionaries(
        {
            "type": st.sampled_from(["tool_use", "server_tool_use", "mcp_tool_use"]),
            "id": st.just(""),
            "name": st.just("f"),
            "input": st.dictionaries(TEXTS, st.lists(TEXTS | st.integers() | st.none(), max_size=2), max_size=2),
        },
        optional={"caller": st.just(CALLER)},
    ),
    st.sampled_from([FOUND, COMPACTION, FALLBACK]),
)


def without_seams(blocks: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The blocks with neighbouring texts joined, unless one has citations: our history joins such texts."""
    joined: list[dict[str, Any]] = []
    for block in blocks:
        is_plain = block["type"] == "text" and "citations" not in block
        if is_plain and joined and joined[-1]["type"] == "text" and "citations" not in joined[-1]:
            joined[-1] = {"type": "text", "text": joined[-1]["text"] + block["text"]}
        else:
            joined.append(block)
    return joined


def answered(blocks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The blocks without the server-side calls, unless client-side calls stand beside them."""
    if any(block["type"] == "tool_use" for block in blocks):
        return blocks
    return [block for block in blocks if block["type"] not in ("server_tool_use", "mcp_tool_use")]


@example(
    [
        {"type": "text", "text": "a"},
        {"type": "server_tool_use", "id": "", "name": "f", "input": {}},
        {"type": "text", "text": "b"},
    ],
    [],
    True,
)
@given(st.lists(BLOCKS, max_size=8), st.lists(st.integers(1, 90), max_size=20), st.booleans())
def test_any_blocks_in_any_pieces_are_sent_back_complete(
    blocks: list[dict[str, Any]], cuts: list[int], stops: bool
) -> None:
    blocks = [{**block, "id": f"c{n}"} if "id" in block else block for n, block in enumerate(blocks)]
    data = [sent for index, block in enumerate(blocks) for sent in streamed(index, block)]
    if not stops:
        data = [sent for sent in data if sent["type"] != "content_block_stop"]
    body = anthropic_stream(start(), PING, *data, *END)
    pieces, begin_at = [], 0
    for length in cuts:
        pieces.append(body[begin_at : begin_at + length])
        begin_at += length
    found = list(assemble(sse_events([*pieces, body[begin_at:]])))
    assert list(order_faults(found)) == []
    if stops:
        request = ChatRequest([Message.user("q"), collect(found).message, Message.user("on")])
        sent = anthropic_body(request, "m")[0]["messages"]
        answers = [message["content"] for message in sent if message["role"] == "assistant"]
        assert answers == ([kept] if (kept := answered(without_seams(blocks))) else [])
    said = "".join(block.get("text", "") for block in blocks)
    assert "".join(chunk.delta for chunk in found if isinstance(chunk, TextDelta)) == said
    asked = [block["input"] for block in blocks if block["type"] == "tool_use"]
    assert [chunk.args for chunk in found if isinstance(chunk, ToolCallFinished)] == asked


@given(st.lists(BLOCKS, min_size=2, max_size=4), st.lists(st.integers(0, 3)))
def test_any_interleaving_of_blocks_loses_nothing(blocks: list[dict[str, Any]], order: list[int]) -> None:
    blocks = [{**block, "id": f"c{n}"} if "id" in block else block for n, block in enumerate(blocks)]
    wire = [list(streamed(index, block)) for index, block in enumerate(blocks)]
    sent = [wire[which].pop(0) for which in interleaved([len(own) for own in wire], order)]
    found = chunks(start(), *sent, *END)
    said = "".join(chunk.delta for chunk in found if isinstance(chunk, TextDelta))
    assert sorted(said) == sorted("".join(block.get("text", "") for block in blocks))
    thought = "".join(chunk.delta for chunk in found if isinstance(chunk, ReasoningDelta))
    assert sorted(thought) == sorted("".join(block.get("thinking", "") for block in blocks))
    signatures = [chunk.signature for chunk in found if isinstance(chunk, ReasoningFinished) and chunk.signature]
    assert sorted(signatures) == sorted(block["signature"] for block in blocks if "signature" in block)
    asked = {block["id"]: block["input"] for block in blocks if block["type"] == "tool_use"}
    assert {chunk.call_id: chunk.args for chunk in found if isinstance(chunk, ToolCallFinished)} == asked
    theirs = [chunk.data for chunk in found if isinstance(chunk, ProviderBlockFinished)]
    for block in blocks:
        assert block["type"] in ("text", "thinking", "redacted_thinking", "tool_use") or block in theirs
    cited = [citation for data in theirs if data["type"] == "citations" for citation in data["citations"]]
    assert len(cited) == sum(len(block.get("citations", ())) for block in blocks)


# Any events

KINDS = ["text", "thinking", "redacted_thinking", "tool_use", "server_tool_use", "compaction", "fallback", "hologram"]
DELTAS = [
    "text_delta", "thinking_delta", "signature_delta", "input_json_delta", "citations_delta", "compaction_delta", "x",
]  # fmt: skip
NAMES = [
    "type", "index", "delta", "content_block", "message", "usage", "error", "text", "thinking", "signature", "data",
    "id", "name", "input", "partial_json", "citation", "citations", "content", "stop_reason", "stop_sequence", "model",
    "to", "caller", "input_tokens", "output_tokens", "cache_creation", "container", "detail",
]  # fmt: skip
WORDS = st.sampled_from(["", "a", "{", "}", "{}", '{"a":1}', "end_turn", "c1", "error", "\ud83d", "\ude00", *KINDS])
ANYTHING = anything(NAMES, WORDS)
some = functools.partial(objects_with, ANYTHING)


INDEXES = st.sampled_from([0, 1, 2, None])
SOME_BLOCKS = some(
    type=st.sampled_from(KINDS), text=WORDS, thinking=WORDS, signature=WORDS, id=WORDS, name=WORDS, data=WORDS,
    input=some(a=WORDS), citations=st.lists(some(cited_text=WORDS), max_size=2), caller=some(type=WORDS),
)  # fmt: skip
SOME_DELTAS = some(
    type=st.sampled_from(DELTAS), text=WORDS, thinking=WORDS, signature=WORDS, partial_json=WORDS,
    citation=some(cited_text=WORDS), content=WORDS,
)  # fmt: skip
SOME_USAGE = some(input_tokens=st.integers(), output_tokens=st.floats(), cache_creation=ANYTHING)
SOME_EVENTS = st.one_of(
    some(type=st.just("content_block_start"), index=INDEXES, content_block=SOME_BLOCKS),
    some(type=st.just("content_block_delta"), index=INDEXES, delta=SOME_DELTAS),
    some(type=st.just("content_block_stop"), index=INDEXES),
    some(type=st.just("message_start"), message=some(id=WORDS, content=st.lists(SOME_BLOCKS), usage=SOME_USAGE)),
    some(type=st.just("message_delta"), delta=some(stop_reason=WORDS, stop_sequence=WORDS), usage=SOME_USAGE),
)


@given(st.lists(SOME_EVENTS | ANYTHING, max_size=10), st.booleans())
def test_any_events_are_chunks_in_order_or_a_completion_error(data: list[Any], done: bool) -> None:
    found, error = read(*data, *(END if done else []))
    assert list(order_faults(found, ended=error is None)) == []


@pytest.mark.parametrize(
    "odd",
    [
        {"type": "content_block_delta", "index": 0},
        {"type": "content_block_delta", "index": 0, "delta": None},
        {"type": "content_block_delta", "index": 0, "delta": ["text_delta"]},
        block_delta(0, "text_delta"),
        block_delta(0, "text_delta", text=None),
        block_delta(0, "text_delta", text=["x"]),
        block_delta(0, "text_delta", text=7),
        block_delta(0, "thinking_delta", thinking={}),
        block_delta(0, "signature_delta", signature=None),
        block_delta(0, "citations_delta", citation="x"),
        block_delta(9, "input_json_delta", partial_json=None),
        {"type": "content_block_start", "index": 9},
        {"type": "content_block_start", "index": 9, "content_block": None},
        {"type": "content_block_start", "index": 9, "content_block": {}},
        {"type": "content_block_stop", "index": {}},
        {"type": "message_start"},
        {"type": "message_start", "message": None},
        {"type": "message_delta", "delta": [], "usage": 5},
        {"type": ["x"]},
        {},
        [],
        None,
        7,
        "ping",
    ],
    ids=str,
)
def test_an_event_of_an_unknown_shape_is_skipped(odd: Any) -> None:
    found = turn(odd, start(), odd, *text_block(0, "h"), odd, *text_block(1, "i"), odd, *END, odd)
    assert (found.message, found.reason) == (Message.assistant("hi"), FinishReason.END_TURN)


MANY = {
    "texts": lambda n: [sent for i in range(n) for sent in text_block(i, "a")],
    "texts without an end": lambda n: [block_start(i, "text", text="a") for i in range(n)],
    "citations": lambda n: [
        block_start(0, "text", text=""),
        *[block_delta(0, "citations_delta", citation=CITATION)] * n,
    ],
    "thinking without an end": lambda n: [block_start(i, "thinking", thinking="a") for i in range(n)],
    "thinking without a start": lambda n: [block_delta(i, "thinking_delta", thinking="a") for i in range(n)],
    "calls": lambda n: [sent for i in range(n) for sent in call_block(i, "{}", id=f"c{i}")],
    "calls without an end": lambda n: [sent for i in range(n) for sent in call_block(i, "{}", id=f"c{i}")[:-1]],
    "unknown blocks without an end": lambda n: [block_start(i, "hologram") for i in range(n)],
    "halves of characters": lambda n: [block_delta(0, "text_delta", text="\ud83d")] * n,
    "pieces of input": lambda n: call_block(0, *["{}"] * n, kind="server_tool_use"),
}


@pytest.mark.parametrize("case", MANY)
def test_ten_times_the_blocks_take_ten_times_the_work(case: str) -> None:
    few, many = [start(), *MANY[case](20), *END], [start(), *MANY[case](200), *END]
    assert lines_run(lambda: read(*many)) < 11 * lines_run(lambda: read(*few))


def test_blank_pieces_of_input_do_not_replace_the_input_of_the_start() -> None:
    data = [
        block_start(0, "tool_use", id="c", name="f", input={"a": 1}),
        block_delta(0, "input_json_delta", partial_json=" "),
    ]
    assert turn(start(), *data, block_stop(0), *CALLED).tool_calls[0].args == {"a": 1}


@pytest.mark.parametrize("given", [[], False, 0, "x", [1]])
def test_input_of_a_start_that_is_not_an_object_is_malformed(given: Any) -> None:
    found = turn(start(), block_start(0, "tool_use", id="c", name="f", input=given), block_stop(0), *CALLED)
    assert found.tool_calls == ()
    assert found.malformed_calls[0].name == "f"


def test_a_server_side_call_that_was_cut_off_is_not_sent_back() -> None:
    cut = turn(
        start(),
        *text_block(0, "hi"),
        *call_block(1, '{"query": "x', kind="server_tool_use"),
        message_delta("max_tokens"),
        MESSAGE_STOP,
    )
    body, _ = anthropic_body(ChatRequest([Message.user("a"), cut.message, Message.user("b")]), "m")
    assert body["messages"][1]["content"] == [{"type": "text", "text": "hi"}]


def test_cache_counters_that_do_not_add_up_are_ignored() -> None:
    parts = {"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 0}
    first = {"input_tokens": 1, "cache_creation_input_tokens": 10, "cache_creation": parts}
    found = turn(
        start(usage=first),
        *text_block(0, "hi"),
        message_delta("end_turn", usage={"cache_creation_input_tokens": 4}),
        MESSAGE_STOP,
    )
    assert found.usage == Usage(input_tokens=5, cache_creation_input_tokens=4)


@pytest.mark.parametrize("text", ["a\ud83d b", "\ude00b", "\ud83d"])
def test_half_a_character_is_replaced(text: str) -> None:
    assert "\ufffd" in turn(start(), *text_block(0, text), *END).text.encode().decode()
