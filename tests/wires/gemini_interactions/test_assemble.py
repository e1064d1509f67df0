"""From the events of the Interactions API to chunks, and from the turn to the next request."""

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
    OverloadedError,
    ProviderBlockFinished,
    ProviderError,
    RateLimitError,
    ReasoningDelta,
    ReasoningFinished,
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
from completion.wires.gemini_interactions import INTERACTIONS
from completion.wires.gemini_interactions.assemble import assemble
from tests.wire_pieces import (
    Reading,
    anything,
    broken_after,
    chunks_of,
    events,
    interleaved,
    lines_run,
    objects_with,
    order_faults,
)

READING = Reading(assemble)
chunks, content, turn, calls = READING.chunks, READING.content, READING.turn, READING.calls
read = READING.until_error

CREATED = {"event_type": "interaction.created", "interaction": {"id": "v1", "status": "in_progress", "model": "m-1"}}
UPDATE = {"event_type": "interaction.status_update", "interaction_id": "v1", "status": "in_progress"}


def start(index: Any, kind: str, **fields: Any) -> dict[str, Any]:
    return {"event_type": "step.start", "index": index, "step": {"type": kind, **fields}}


def delta(index: Any, kind: str, **fields: Any) -> dict[str, Any]:
    return {"event_type": "step.delta", "index": index, "delta": {"type": kind, **fields}}


def stop(index: Any) -> dict[str, Any]:
    return {"event_type": "step.stop", "index": index}


def completed(status: str | None = "completed", **fields: Any) -> dict[str, Any]:
    return {"event_type": "interaction.completed", "interaction": {"id": "v1", "status": status, **fields}}


def text_step(index: Any, *pieces: str) -> list[dict[str, Any]]:
    return [start(index, "model_output"), *(delta(index, "text", text=piece) for piece in pieces), stop(index)]


def thought_step(index: Any, *pieces: str, signature: str | None = "S") -> list[dict[str, Any]]:
    summaries = [delta(index, "thought_summary", content={"type": "text", "text": piece}) for piece in pieces]
    signed = [delta(index, "thought_signature", signature=signature)] if signature else []
    return [start(index, "thought"), *summaries, *signed, stop(index)]


def call_step(index: Any, *pieces: str, id: str = "c", name: str = "f", **fields: Any) -> list[dict[str, Any]]:
    first = start(index, "function_call", id=id, name=name, **{"arguments": {}, "signature": "", **fields})
    return [first, *(delta(index, "arguments_delta", arguments=piece) for piece in pieces), stop(index)]


def own(**data: Any) -> ProviderBlockFinished:
    return ProviderBlockFinished("gemini-interactions", data)


END = completed()
HI, HM = TextDelta("hi"), ReasoningDelta("hm")
SIGNED = ReasoningFinished("S", "gemini-interactions")
CITATION = {"type": "url_citation", "url": "https://a", "start_index": 0, "end_index": 2}
SEARCH = {"type": "google_search_call", "id": "s", "signature": "S", "arguments": {"queries": ["q"]}}
FOUND = {"type": "google_search_result", "call_id": "s", "signature": "", "result": [{"search_suggestions": "…"}]}
IMAGE = {"type": "image", "mime_type": "image/png", "data": "iVBORw=="}

ANSWERS: dict[str, tuple[list[dict[str, Any]], Sequence[StreamChunk]]] = {
    "text": ([CREATED, UPDATE, *text_step(0, "h", "i")], [TextDelta("h"), TextDelta("i")]),
    "empty text": (text_step(0, "", "hi", ""), [HI]),
    "text in the start": ([start(0, "model_output", content=[{"type": "text", "text": "h"}]),
                           delta(0, "text", text="i"), stop(0)], [TextDelta("h"), TextDelta("i")]),
    "several steps": ([*text_step(0, "h"), *text_step(1, "i")], [TextDelta("h"), TextDelta("i")]),
    "half of a pair": (text_step(0, "\ud83d", "\ude42"), [TextDelta("🙂")]),
    "no start": ([delta(0, "text", text="hi"), stop(0)], [HI]),
    "no stop": ([*thought_step(0, "hm")[:-1], *text_step(1, "hi")[:-1]], [HM, SIGNED, HI]),
    "no index": ([{"event_type": "step.delta", "delta": {"type": "text", "text": "hi"}}], [HI]),
    "a thought": ([*thought_step(0, "h", "m"), *text_step(1, "hi")],
                  [ReasoningDelta("h"), ReasoningDelta("m"), SIGNED, HI]),
    "a signature alone": ([*thought_step(0), *text_step(1, "hi")], [SIGNED, HI]),
    "an unsigned thought": ([*thought_step(0, "hm", signature=None), *text_step(1, "hi")],
                            [HM, ReasoningFinished(), HI]),
    "an empty thought": ([*thought_step(0, signature=None), *text_step(1, "hi")], [HI]),
    "a thought in the start": ([start(0, "thought", signature="", summary=[{"type": "text", "text": "hm"}]),
                                delta(0, "thought_signature", signature="S"), stop(0)], [HM, SIGNED]),
    "a signed start": ([start(0, "thought", signature="S"), stop(0)], [SIGNED]),
    "a thought without a start": ([delta(0, "thought_summary", content={"text": "hm"}),
                                   delta(0, "thought_signature", signature="S"), stop(0)], [HM, SIGNED]),
    "citations": ([start(0, "model_output"), delta(0, "text", text="hi"),
                   delta(0, "text_annotation_delta", annotations=[CITATION]), stop(0)],
                  [HI, own(type="annotations", annotations=[CITATION])]),
    "a search": ([start(0, "google_search_call", id="s", signature="S"),
                  delta(0, "google_search_call", arguments={"queries": ["q"]}), stop(0),
                  start(1, "google_search_result", call_id="s", signature=""),
                  delta(1, "google_search_result", result=FOUND["result"]), stop(1), *text_step(2, "hi")],
                 [own(**SEARCH), own(**FOUND), HI]),
    "an image": ([start(0, "model_output"), {"event_type": "step.delta", "index": 0, "delta": IMAGE}, stop(0)],
                  [own(**IMAGE)]),
    "unknown kinds": ([start(0, "model_output"), delta(0, "new"), delta(0, "text", text="hi"), {"event_type": "new"}],
                      [HI]),
}  # fmt: skip


@pytest.mark.parametrize(("sent", "expected"), ANSWERS.values(), ids=list(ANSWERS))
def test_each_kind_of_step_becomes_chunks(sent: list[dict[str, Any]], expected: Sequence[StreamChunk]) -> None:
    assert content(*sent, END) == list(expected)


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (call_step(0, '{"a"', ": 1}"), [("c", "f", {"a": 1})]),
        (call_step(0), [("c", "f", {})]),
        (call_step(0, "{}"), [("c", "f", {})]),
        (call_step(0, arguments={"a": "ü"}), [("c", "f", {"a": "ü"})]),
        (call_step(0, '{"a":2}', arguments={"a": 1}), [("c", "f", {"a": 2})]),
        (call_step(0, arguments='{"a":1}'), [("c", "f", {"a": 1})]),
        (call_step(0, '{"a":1'), [("c", "f", '{"a":1')]),
        ([*call_step(0, '{"a":1}'), *call_step(1, id="d", name="g")], [("c", "f", {"a": 1}), ("d", "g", {})]),
        (call_step(0, '{"a":1}')[:-1], [("c", "f", {"a": 1})]),
        ([start(0, "function_call", id="c", name="f"), delta(0, "arguments_delta", partial_arguments='{"a":1}')],
         [("c", "f", {"a": 1})]),
    ],
)  # fmt: skip
def test_a_call_has_its_arguments(sent: list[dict[str, Any]], expected: list[Any]) -> None:
    assert calls(*sent, completed("requires_action")) == expected


def test_a_call_keeps_its_signature() -> None:
    (found,) = (one for one in chunks(*call_step(0, "{}", signature="S"), END) if isinstance(one, ToolCallFinished))
    assert (found.signature, found.provider) == ("S", "gemini-interactions")


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        ("completed", FinishReason.END_TURN),
        ("requires_action", FinishReason.TOOL_USE),
        ("incomplete", FinishReason.MAX_TOKENS),
        ("cancelled", FinishReason.ABORTED),
        ("new_word", FinishReason.OTHER),
        (None, FinishReason.OTHER),
    ],
)
def test_the_status_is_the_finish_reason(status: str | None, reason: FinishReason) -> None:
    found = turn(*text_step(0, "hi"), completed(status))
    assert (found.reason, found.provider_reason) == (reason, status)


def test_the_turn_has_usage_id_model_and_tier() -> None:
    usage = {"total_input_tokens": 22, "total_tool_use_tokens": 198, "total_cached_tokens": 5}
    usage |= {"total_output_tokens": 590, "total_thought_tokens": 1173, "total_tokens": 1983}
    found = turn(CREATED, *text_step(0, "hi"), completed(usage=usage, service_tier="flex"), DONE)
    assert found.usage == Usage(220, 1763, 5, reasoning_tokens=1173)
    assert (found.response_id, found.response_model, found.service_tier) == ("v1", "m-1", "flex")


# Errors


@pytest.mark.parametrize(
    ("sent", "kind"),
    [
        ({"event_type": "error", "error": {"code": "overloaded", "message": "m"}}, OverloadedError),
        ({"error": {"code": 429, "message": "m", "status": "RESOURCE_EXHAUSTED"}}, RateLimitError),
        ([{"error": {"code": 429, "message": "m"}}], ProviderError),
        (completed("failed"), ProviderError),
        (completed("failed", error={"code": "overloaded", "message": "m"}), OverloadedError),
    ],
)
@pytest.mark.parametrize("before", [[], text_step(0, "hi")], ids=["at once", "after text"])
def test_an_error_inside_the_stream_is_raised(sent: Any, kind: type[CompletionError], before: list[Any]) -> None:
    _, error = read(*before, sent)
    assert isinstance(error, kind)


@pytest.mark.parametrize("sent", [[], [CREATED], text_step(0, "hi"), [*text_step(0, "hi"), DONE], call_step(0, "{}")])
def test_a_body_without_an_end_is_truncated(sent: list[Any]) -> None:
    _, error = read(*sent)
    assert type(error) is TruncatedStreamError


@pytest.mark.parametrize("sent", [CREATED, *text_step(1, "x")[:2]])
def test_an_answer_that_goes_on_after_its_end_is_malformed(sent: dict[str, Any]) -> None:
    _, error = read(*text_step(0, "hi"), END, sent)
    assert type(error) is MalformedStreamError


def test_events_of_another_api_are_named() -> None:
    _, error = read({"candidates": [{"content": {"parts": [{"text": "hi"}]}}]})
    assert type(error) is MalformedStreamError


def test_a_connection_that_breaks_after_the_end_is_ignored() -> None:
    found = list(assemble(broken_after(TransportError("gone"), *text_step(0, "hi"), END)))
    assert collect(found).text == "hi"


# Bytes, and the way back

SENT = [
    CREATED,
    *thought_step(0, "hm ☃"),
    *text_step(1, "grün ", "🙂"),
    start(2, "google_search_call", id="s", signature="S"),
    delta(2, "google_search_call", arguments={"queries": ["q"]}),
    stop(2),
    *call_step(3, '{"a":', ' "ü"}', signature="T"),
    completed("requires_action"),
]


@pytest.mark.parametrize("split", [None, 7, 1])
@pytest.mark.parametrize("has_names", [True, False])
def test_the_answer_does_not_depend_on_how_its_bytes_are_cut(split: int | None, has_names: bool) -> None:
    names = [f"event: {data['event_type']}\n" if has_names else "" for data in SENT]
    sent = [f"{name}data: {json.dumps(data)}\n\n" for name, data in zip(names, SENT, strict=True)]
    body = "".join([*sent, "event: done\ndata: [DONE]\n\n"]).encode()
    assert list(assemble(sse_events(iter(chunks_of(body, split)), 1 << 20))) == chunks(*SENT)


def test_a_turn_goes_back_as_it_came() -> None:
    history = [Message.user("q"), turn(*SENT).message, Message.tool_result("c", "1")]
    for snapshot in (history, [Message.from_json(message.to_json()) for message in history]):
        body, _ = INTERACTIONS.body(ChatRequest(snapshot), "gemini-3.8-flash")
        assert body["input"] == [
            {"type": "user_input", "content": [{"type": "text", "text": "q"}]},
            {"type": "thought", "signature": "S", "summary": [{"type": "text", "text": "hm ☃"}]},
            {"type": "model_output", "content": [{"type": "text", "text": "grün 🙂"}]},
            SEARCH,
            {"type": "function_call", "id": "c", "name": "f", "arguments": {"a": "ü"}, "signature": "T"},
            {"type": "function_result", "call_id": "c", "name": "f", "result": [{"type": "text", "text": "1"}]},
        ]


def test_citations_go_back_with_their_text() -> None:
    sent = [*text_step(0, "hi")[:-1], delta(0, "text_annotation_delta", annotations=[CITATION]), stop(0), END]
    body, _ = INTERACTIONS.body(ChatRequest([Message.user("q"), turn(*sent).message, Message.user("r")]), "m")
    assert body["input"][1] == {
        "type": "model_output", "content": [{"type": "text", "text": "hi", "annotations": [CITATION]}]
    }  # fmt: skip


def test_a_piece_of_text_costs_few_lines() -> None:
    def lines(count: int) -> int:
        sent = [delta(0, "text", text="hi")] * count
        return lines_run(lambda: list(assemble(events(start(0, "model_output"), *sent, END))))

    assert (lines(300) - lines(100)) / 200 < 30


# Hypothesis

STEPS = [
    text_step(0, "a", "b"), thought_step(1, "t"), thought_step(4),
    call_step(2, '{"a"', ":1}"), call_step(3, "{}", id="d"),
]  # fmt: skip


@given(st.lists(st.integers(0, 4), max_size=20))
def test_steps_may_be_interleaved(order: list[int]) -> None:
    left = [list(step) for step in STEPS]
    sent = [left[which].pop(0) for which in interleaved([len(step) for step in STEPS], order)]
    found = turn(*sent, END)
    assert found.text == "ab"
    assert {call.call_id: call.args for call in found.tool_calls} == {"c": {"a": 1}, "d": {}}


KEYS = ["type", "text", "index", "step", "delta", "arguments", "signature", "content", "id"]
TEXTS = st.sampled_from(["", "a", "\ud83d", "\ude42", "{}", "{"])
ANY = anything(KEYS, TEXTS)
KINDS = st.sampled_from(
    [
        *("text", "thought", "thought_summary", "thought_signature", "model_output", "function_call"),
        *("arguments_delta", "google_search_call", "image", "text_annotation_delta"),
    ]
)
PART = objects_with(ANY, type=KINDS, text=TEXTS, arguments=TEXTS, signature=TEXTS, id=TEXTS, name=TEXTS)
EVENT = objects_with(
    ANY,
    event_type=st.sampled_from(
        ["step.start", "step.delta", "step.stop", "interaction.created", "interaction.completed"]
    ),
    index=st.integers(0, 2),
    step=PART,
    delta=PART,
)


@given(st.lists(EVENT, max_size=8))
def test_events_of_any_shape_never_break_the_order(sent: list[dict[str, Any]]) -> None:
    found, _ = read(*sent)
    assert list(order_faults(found, ended=False)) == []
