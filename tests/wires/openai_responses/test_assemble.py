"""From the events of OpenAI Responses to chunks, and from the turn to the next request.

Each list of events below has a shape that some server sends, or that a broken server may send.
"""

from __future__ import annotations

import copy
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
    ProviderBlockFinished,
    ProviderError,
    QuotaExceededError,
    RateLimitError,
    ReasoningDelta,
    ReasoningFinished,
    ServerError,
    StreamChunk,
    TextDelta,
    ToolCallArgsDelta,
    ToolCallFinished,
    ToolCallMalformed,
    ToolCallStarted,
    TransportError,
    TruncatedStreamError,
    TurnFinished,
    Usage,
    collect,
)
from completion.events import DONE
from completion.events.sse import sse_events
from completion.wires.assembly import WAIT_FOR_EOF_S
from completion.wires.openai_responses import RESPONSES
from completion.wires.openai_responses.assemble import assemble
from tests.wire_pieces import (
    PING,
    Reading,
    anthropic_stream,
    anything,
    broken_after,
    chunks_of,
    events,
    lines_run,
    objects_with,
    order_faults,
)

READING = Reading(assemble)
content, turn = READING.content, READING.turn
HOST = "api.openai.com"
ORIGIN = f"openai-responses@{HOST}"
Event = dict[str, Any]


def sent(kind: str, index: Any = None, **fields: Any) -> Event:
    return {"type": f"response.{kind}", **({} if index is None else {"output_index": index}), **fields}


def created(**fields: Any) -> Event:
    return sent("created", response={"id": "resp_1", "model": "m-1", "status": "in_progress", "output": [], **fields})


def completed(*output: Any, event: str = "completed", status: str | None = "completed", **fields: Any) -> Event:
    own = {"id": "resp_1", "output": list(output), **fields}
    return sent(event, response={**own, "status": status} if status else own)


def added(index: Any, kind: str, id: str | None = None, **fields: Any) -> Event:
    return sent("output_item.added", index, item={"type": kind, "id": id or f"{kind}_{index}", **fields})


def done(index: Any, kind: str, id: str | None = None, **fields: Any) -> Event:
    return sent("output_item.done", index, item={"type": kind, "id": id or f"{kind}_{index}", **fields})


def said(index: Any, text: Any, part: Any = 0, kind: str = "output_text", **fields: Any) -> Event:
    own = {"item_id": f"message_{index}", "content_index": part, "delta": text, **fields}
    return sent(f"{kind}.delta", index, **own)


def part(text: str, **fields: Any) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], **fields}


def message(index: Any, *pieces: str, **fields: Any) -> list[Event]:
    """The events of a message."""
    whole = {"content": [part("".join(pieces))], **fields}
    deltas = [said(index, piece, obfuscation="x") for piece in pieces]
    return [added(index, "message", content=[], **fields), *deltas, done(index, "message", **whole)]


def thought(index: Any, n: int, text: str) -> Event:
    return sent("reasoning_summary_text.delta", index, item_id=f"reasoning_{index}", summary_index=n, delta=text)


def arguments(index: Any, text: str, **fields: Any) -> Event:
    return sent("function_call_arguments.delta", index, item_id=f"function_call_{index}", delta=text, **fields)


def call(index: Any, *pieces: str, call_id: str = "c", name: str = "f", **fields: Any) -> list[Event]:
    """The events of a function call."""
    own = {"call_id": call_id, "name": name, **fields}
    deltas = [arguments(index, piece) for piece in pieces]
    return [added(index, "function_call", **own, arguments=""), *deltas,
            done(index, "function_call", **own, arguments="".join(pieces))]  # fmt: skip


def called(args: dict[str, Any], *pieces: str, id: str = "c", name: str = "f") -> list[StreamChunk]:
    deltas = [ToolCallArgsDelta(id, piece) for piece in pieces]
    return [ToolCallStarted(id, name), *deltas, ToolCallFinished(id, name, args)]


def own(**data: Any) -> ProviderBlockFinished:
    return ProviderBlockFinished("openai-responses", data)


def signed(**item: Any) -> ReasoningFinished:
    return ReasoningFinished(json.dumps(item, separators=(",", ":"), ensure_ascii=False))


def without_ids(given: Sequence[Event]) -> list[Event]:
    """The events as GitHub Copilot sends them: each has another id."""
    changed = copy.deepcopy(list(given))
    for n, event in enumerate(changed):
        if "item_id" in event:
            event["item_id"] = f"id{n}"
        if "item" in event:
            event["item"]["id"] = f"id{n}"
        for m, item in enumerate(event.get("response", {}).get("output", ())):
            item["id"] = f"id{n}.{m}"
    return changed


def without_indexes(given: Sequence[Event]) -> list[Event]:
    return [{key: value for key, value in event.items() if key != "output_index"} for event in given]


HI, HM = TextDelta("hi"), ReasoningDelta("hm")
SEARCH: dict[str, Any] = {"id": "ws", "status": "completed", "action": {"type": "search", "query": "x"}}
CITATION = {"type": "url_citation", "url": "https://x", "start_index": 0, "end_index": 2}
RS = {"type": "reasoning", "id": "reasoning_0"}
PARTS = [{"type": "summary_text", "text": "a"}, {"type": "summary_text", "text": "b"}]

ANSWERS: dict[str, tuple[list[Event], Sequence[StreamChunk]]] = {
    "text": (message(0, "h", "i"), [TextDelta("h"), TextDelta("i")]),
    "characters beyond ASCII": (message(0, "grün 日本", " 🎉"), [TextDelta("grün 日本"), TextDelta(" 🎉")]),
    "half characters": (message(0, "a\ud83c", "\udf89\ud83c"),
                        [TextDelta("a"), TextDelta("🎉"), TextDelta("\ufffd")]),
    "two messages": ([*message(0, "h"), *message(1, "i")], [TextDelta("h"), TextDelta("i")]),
    "two parts": ([added(0, "message"), said(0, "h", 0), said(0, "i", 1),
                   done(0, "message", content=[part("h"), part("i")])], [TextDelta("h"), TextDelta("i")]),
    "text in output_text.done only": ([added(0, "message"), sent("output_text.done", 0, content_index=0, text="hi")],
                                      [HI]),
    "text in content_part.done only": ([added(0, "message"), sent("content_part.done", 0, part=part("hi"))], [HI]),
    "text in content_part.added": ([added(0, "message"), sent("content_part.added", 0, part=part("hi"))], [HI]),
    "text in the done item only": ([added(0, "message"), done(0, "message", content=[part("hi")])], [HI]),
    "text in the done item, never added": ([done(0, "message", content=[part("hi")])], [HI]),
    "text in the last event only": ([completed({"type": "message", "content": [part("hi")]})], [HI]),
    "text in the last event, not in the done item": (
        [done(0, "message", content=[]), completed({"type": "message", "id": "message_0", "content": [part("hi")]})],
        [HI]),
    "the same text everywhere": ([*message(0, "hi"), sent("output_text.done", 0, content_index=0, text="hi"),
                                  completed({"type": "message", "id": "message_0", "content": [part("hi")]})], [HI]),
    "deltas of no item": ([said(None, "h"), said(None, "i")], [TextDelta("h"), TextDelta("i")]),
    "a refusal": ([added(0, "message"), said(0, "no", kind="refusal"),
                   done(0, "message", content=[{"type": "refusal", "refusal": "no"}])],
                  [TextDelta("no"), own(type="message", content=[{"type": "refusal", "length": 2}])]),
    "phases": ([*message(0, "h", phase="commentary"), *message(1, "i", phase="final_answer")],
               [TextDelta("h"), own(type="message", phase="commentary", content=[{"type": "output_text", "length": 1}]),
                TextDelta("i"),
                own(type="message", phase="final_answer", content=[{"type": "output_text", "length": 1}])]),
    "citations in events": ([added(0, "message"), said(0, "hi"),
                             sent("output_text.annotation.added", 0, content_index=0, annotation=CITATION),
                             done(0, "message", content=[part("hi")])],
                            [HI, own(type="message", content=[{"type": "output_text", "length": 2,
                                                               "annotations": [CITATION]}])]),
    "citations in the done item": ([added(0, "message"), said(0, "hi"),
                                    done(0, "message", content=[part("hi", annotations=[CITATION])])],
                                   [HI, own(type="message", content=[{"type": "output_text", "length": 2,
                                                                      "annotations": [CITATION]}])]),
    "a part of another kind": ([done(0, "message", content=[{"type": "output_image", "url": "x"}])],
                               [own(type="message", content=[{"type": "output_image", "url": "x"}])]),
    "a call": (call(0, '{"a"', ":1}"), called({"a": 1}, '{"a"', ":1}")),
    "a call without arguments": (call(0), called({})),
    "a call in the done item only": ([done(0, "function_call", call_id="c", name="f", arguments='{"a":1}')],
                                     called({"a": 1}, '{"a":1}')),
    "a call in the last event only": (
        [completed({"type": "function_call", "call_id": "c", "name": "f", "arguments": '{"a":1}'})],
        called({"a": 1}, '{"a":1}')),
    "arguments in their last event only": (
        [added(0, "function_call", call_id="c", name="f"),
         sent("function_call_arguments.done", 0, arguments='{"a":1}')],
        called({"a": 1}, '{"a":1}')),
    "the last piece of the arguments is missing": (
        [added(0, "function_call", call_id="c", name="f"), arguments(0, '{"a"'),
         done(0, "function_call", call_id="c", name="f", arguments='{"a":1}')],
        called({"a": 1}, '{"a"', ":1}")),
    "a call whose id and name come late": (
        [added(0, "function_call"), arguments(0, "{}"), done(0, "function_call", call_id="c", name="f")],
        called({}, "{}")),
    "arguments that are not JSON": (call(0, "{"), [ToolCallStarted("c", "f"), ToolCallArgsDelta("c", "{"),
                                                   ToolCallMalformed("c", "f", "{", "")]),
    "two calls at once": (
        [added(0, "function_call", call_id="c", name="f"), added(1, "function_call", call_id="d", name="g"),
         arguments(1, "{}"), arguments(0, '{"a":'), arguments(0, "1}"),
         done(1, "function_call", call_id="d", name="g"), done(0, "function_call", call_id="c", name="f")],
        [*called({"a": 1}, '{"a":', "1}"), *called({}, "{}", id="d", name="g")]),
    "two calls with one index": (
        [added(0, "function_call", "a", call_id="c", name="f"),
         sent("function_call_arguments.delta", 0, delta='{"a":1}'),
         added(0, "function_call", "b", call_id="d", name="g"), sent("function_call_arguments.delta", 0, delta="{}")],
        [*called({"a": 1}, '{"a":1}'), *called({}, "{}", id="d", name="g")]),
    "an item that is added twice": ([added(0, "message"), *message(0, "hi")], [HI]),
    "text inside a call": ([*call(0, "{")[:2], *message(1, "hi"), arguments(0, "}"), call(0, "{}")[-1]],
                           [*called({}, "{", "}"), HI]),
    "arguments of no item": ([sent("function_call_arguments.done", 0, arguments="x")], []),
    "a summary": ([added(0, "reasoning"), thought(0, 0, "hm"), done(0, "reasoning", encrypted_content="E")],
                  [HM, signed(**RS, encrypted_content="E")]),
    "a summary of two parts": (
        [added(0, "reasoning", encrypted_content="early"), thought(0, 0, "a"), thought(0, 1, "b"),
         done(0, "reasoning", summary=PARTS, encrypted_content="E")],
        [ReasoningDelta("a"), ReasoningFinished(), ReasoningDelta("b"),
         signed(**RS, summary=PARTS, encrypted_content="E")]),
    "a summary in the done item only": ([done(0, "reasoning", summary=PARTS)],
                                        [ReasoningDelta("a"), ReasoningFinished(), ReasoningDelta("b"),
                                         signed(**RS, summary=PARTS)]),
    "a summary in its last events only": (
        [added(0, "reasoning"), sent("reasoning_summary_text.done", 0, summary_index=0, text="hm"),
         sent("reasoning_summary_part.done", 0, summary_index=0, part={"type": "summary_text", "text": "hm"}),
         done(0, "reasoning")],
        [HM, signed(**RS)]),
    "raw reasoning": (
        [added(0, "reasoning"), sent("reasoning_text.delta", 0, content_index=0, delta="hm"),
         sent("reasoning_text.done", 0, content_index=0, text="hm"),
         done(0, "reasoning", content=[{"type": "reasoning_text", "text": "hm"}]), *message(1, "hi")],
        [HM, signed(**RS, content=[{"type": "reasoning_text", "text": "hm"}]), HI]),
    "encrypted reasoning alone": ([added(0, "reasoning"), done(0, "reasoning", summary=[], encrypted_content="E"),
                                   *message(1, "hi")], [signed(**RS, summary=[], encrypted_content="E"), HI]),
    "reasoning that is not done": ([added(0, "reasoning", encrypted_content="early"), thought(0, 0, "hm")],
                                   [HM, ReasoningFinished()]),
    "a tool of the server": ([added(0, "web_search_call", **{**SEARCH, "status": "in_progress"}),
                              sent("web_search_call.searching", 0, item_id="ws"), done(0, "web_search_call", **SEARCH)],
                             [own(type="web_search_call", **SEARCH)]),
    "a custom tool": ([added(0, "custom_tool_call", call_id="c", name="sql", input=""),
                       sent("custom_tool_call_input.delta", 0, delta="SELECT "),
                       sent("custom_tool_call_input.delta", 0, delta="1"),
                       done(0, "custom_tool_call", call_id="c", name="sql", input="")],
                      [own(type="custom_tool_call", id="custom_tool_call_0", call_id="c", name="sql",
                           input="SELECT 1")]),
    "a compaction": ([done(0, "compaction", encrypted_content="E")],
                     [own(type="compaction", id="compaction_0", encrypted_content="E")]),
    "an item that is not done": ([added(0, "image_generation_call", status="in_progress")],
                                 [own(type="image_generation_call", id="image_generation_call_0",
                                      status="in_progress")]),
    "unknown events": ([sent("new.delta", 0, delta="x"), PING, *message(0, "hi")], [HI]),
    "broken fields": ([sent("output_item.added", 0, item="x"), sent("output_item.done"), sent("content_part.done"),
                       said(0, 7), said([], "hi", {})], [HI]),
}  # fmt: skip


def plain(chunks: Sequence[StreamChunk]) -> list[Any]:
    """Without what malformed calls say, and who signed."""
    return [
        (type(chunk), chunk.raw) if isinstance(chunk, ToolCallMalformed)
        else ReasoningFinished(chunk.signature) if isinstance(chunk, ReasoningFinished) else chunk
        for chunk in chunks
    ]  # fmt: skip


@pytest.mark.parametrize("name", ANSWERS)
def test_each_kind_of_item_becomes_its_chunks(name: str) -> None:
    given, expected = ANSWERS[name]
    end = [] if given[-1]["type"] == "response.completed" else [completed()]
    assert plain(content(created(), *given, *end)) == plain(expected)


WITH_EMPTY_OUTPUT = [name for name in ANSWERS if "last event" not in name and "everywhere" not in name]


@pytest.mark.parametrize("split", [None, 7, 1])
def test_pieces_of_bytes_do_not_change_an_answer(split: int | None) -> None:
    given = [created(), *ANSWERS["phases"][0], *call(3, '{"a":1}'), completed()]
    found = assemble(sse_events(iter(chunks_of(anthropic_stream(*given), split))), lambda seconds: None)
    assert list(found)[:-1] == [*ANSWERS["phases"][1], *called({"a": 1}, '{"a":1}')]


@pytest.mark.parametrize("name", [name for name in WITH_EMPTY_OUTPUT if ANSWERS[name][0][-1].get("item") is not None])
def test_ids_may_change_in_every_event(name: str) -> None:
    given, expected = ANSWERS[name]

    def shape(chunks: Sequence[StreamChunk]) -> list[Any]:
        return [
            {**chunk.data, "id": None} if isinstance(chunk, ProviderBlockFinished)
            else bool(chunk.signature) if isinstance(chunk, ReasoningFinished) else chunk
            for chunk in chunks if not isinstance(chunk, ToolCallMalformed)
        ]  # fmt: skip

    assert shape(content(created(), *without_ids(given), completed())) == shape(expected)


@pytest.mark.parametrize("change", [without_indexes, lambda given: without_ids(without_indexes(given))])
def test_indexes_may_be_missing(change: Any) -> None:
    search = [added(1, "web_search_call"), done(1, "web_search_call", **SEARCH)]
    given = [*search, *message(0, "h", "i"), *call(2, '{"a"', ":1}"), *message(3, "x")]
    expected = [TextDelta("h"), TextDelta("i"), *called({"a": 1}, '{"a"', ":1}"), TextDelta("x")]
    assert content(created(), *change(given), completed())[1:] == expected


def test_the_items_of_the_last_event_are_not_given_twice() -> None:
    given = [*message(0, "hi"), *call(1, "{}"), done(2, "reasoning", summary=PARTS), *message(3, "x")]
    output = [event["item"] for event in given if event["type"] == "response.output_item.done"]
    alone = content(created(), *given, completed())
    assert content(created(), *given, completed(*output)) == alone
    assert content(*without_ids([created(), *given, completed(*output)]))[:1] == [HI]
    assert len(content(*without_ids([created(), *given, completed(*output)]))) == len(alone)


def test_a_call_keeps_its_other_fields_for_its_own_server() -> None:
    (*_, finished) = content(created(), *call(0, "{}", namespace="n", status="completed"), completed())
    assert isinstance(finished, ToolCallFinished)
    assert finished.wire_data == {"namespace": "n"}
    found = list(RESPONSES.chunks(events(created(), *call(0, "{}", namespace="n"), completed()), lambda s: None, HOST))
    assert [chunk.provider for chunk in found if isinstance(chunk, ToolCallFinished)] == [ORIGIN]


# The end of the turn

USAGE = {
    "input_tokens": 9,
    "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 2},
    "output_tokens": 7,
    "output_tokens_details": {"reasoning_tokens": 5},
}


@pytest.mark.parametrize(
    ("end", "reason", "word"),
    [
        (completed(), FinishReason.END_TURN, "completed"),
        (completed(status=None), FinishReason.END_TURN, "completed"),
        (sent("completed"), FinishReason.END_TURN, "completed"),
        (
            completed(event="incomplete", status="incomplete", incomplete_details={"reason": "max_output_tokens"}),
            FinishReason.MAX_TOKENS,
            "max_output_tokens",
        ),
        (
            completed(event="incomplete", status="incomplete", incomplete_details={"reason": "content_filter"}),
            FinishReason.CONTENT_FILTER,
            "content_filter",
        ),
        (completed(event="incomplete", status=None), FinishReason.OTHER, "incomplete"),
        (completed(status="incomplete"), FinishReason.OTHER, "incomplete"),
        (completed(event="cancelled", status="cancelled"), FinishReason.ABORTED, "cancelled"),
    ],
)
def test_the_last_event_says_why_the_turn_ended(end: Event, reason: FinishReason, word: str) -> None:
    text, end_of_turn = READING.chunks(created(), *message(0, "hi"), end)
    assert (text, end_of_turn) == (HI, TurnFinished(reason, None, None, word, None, "resp_1", "m-1"))


def test_a_turn_with_a_call_ends_for_the_call() -> None:
    assert turn(created(), *call(0, "{}"), completed()).reason is FinishReason.TOOL_USE


def test_a_refusal_is_the_reason_of_its_turn() -> None:
    assert turn(created(), *ANSWERS["a refusal"][0], completed()).reason is FinishReason.REFUSAL


def test_the_turn_has_usage_id_model_and_tier() -> None:
    (*_, end) = READING.chunks(created(service_tier="auto"), completed(usage=USAGE, service_tier="default", id="other"))
    usage = Usage(9, 7, cached_input_tokens=4, cache_creation_input_tokens=2, reasoning_tokens=5)
    assert end == TurnFinished(FinishReason.END_TURN, usage, "default", "completed", None, "resp_1", "m-1")


def test_after_the_last_event_only_the_end_of_the_body_is_waited_for() -> None:
    waits: list[float | None] = []
    list(assemble(events(created(), *message(0, "hi"), completed()), waits.append))
    assert waits == [WAIT_FOR_EOF_S] * 2


def test_what_follows_done_is_not_read() -> None:
    assert turn(created(), *message(0, "hi"), completed(), DONE, *message(1, "no")).text == "hi"


def test_a_connection_that_breaks_after_the_last_event_does_no_harm() -> None:
    found = assemble(broken_after(TransportError("x"), created(), *message(0, "hi"), completed()), lambda s: None)
    assert collect(found).text == "hi"


# Errors

FAILED = {"code": "rate_limit_exceeded", "message": "slow down"}


@pytest.mark.parametrize(
    ("event", "kind"),
    [
        ({"type": "error", "code": "insufficient_quota", "message": "x", "param": None}, QuotaExceededError),
        ({"type": "error", "error": {"type": "insufficient_quota", "message": "x"}}, QuotaExceededError),
        ({"error": {"code": "server_error", "message": "x"}}, ServerError),
        ({"message": "x"}, ProviderError),
        (completed(event="failed", status="failed", error=FAILED), RateLimitError),
        (completed(event="failed", status="completed", error=FAILED), RateLimitError),
        (completed(status="failed", error=FAILED), RateLimitError),
        (completed(event="failed", status="failed", error=None), ProviderError),
        (sent("failed"), ProviderError),
        (created(id="resp_2"), MalformedStreamError),
    ],
)
def test_an_error_after_text_is_raised(event: Event, kind: type[CompletionError]) -> None:
    found, error = READING.until_error(created(), added(0, "message"), said(0, "hi"), event)
    assert (found, type(error)) == ([HI], kind)


@pytest.mark.parametrize(
    "late", [created(), created(id="resp_2"), said(0, "x"), said(5, "x"), *call(1, "{}")[:1], *call(1, "{}")[-1:]]
)
def test_an_answer_that_goes_on_after_its_end_is_malformed(late: Event) -> None:
    _, error = READING.until_error(created(), *message(0, "hi"), completed(), late)
    assert type(error) is MalformedStreamError


@pytest.mark.parametrize(
    "late", [completed(), message(0, "hi")[-1], sent("in_progress", response={}), {"type": "ping"}]
)
def test_what_is_repeated_after_the_end_does_no_harm(late: Event) -> None:
    assert turn(created(), *message(0, "hi"), completed(), late).text == "hi"


@pytest.mark.parametrize("rest", [[], [DONE], message(0, "hi"), [*message(0, "hi"), DONE]])
def test_a_body_without_a_last_event_is_truncated(rest: list[Any]) -> None:
    _, error = READING.until_error(created(), *rest)
    assert type(error) is TruncatedStreamError


@pytest.mark.parametrize(
    "other", [{"type": "message_start", "message": {}}, {"choices": [{"index": 0, "delta": {"content": "hi"}}]}]
)
def test_events_of_another_wire_are_malformed(other: Event) -> None:
    _, error = READING.until_error(other, DONE)
    assert type(error) is MalformedStreamError
    assert "does base_url point at a server of this wire?" in str(error)


# The way back


def test_an_answer_goes_back_as_the_items_that_it_was() -> None:
    given = [
        done(0, "reasoning", summary=PARTS, encrypted_content="E"),
        done(1, "web_search_call", **SEARCH),
        *message(2, "Well.", phase="commentary"),
        *call(3, '{"a":1}', call_id="c1", namespace="n"),
        *message(4, "Done.", phase="final_answer"),
    ]
    answer = collect(RESPONSES.chunks(events(created(), *given, completed()), lambda seconds: None, HOST))
    history = [Message.user("q"), answer.message, Message.tool_result("c1", "1")]
    body, _ = RESPONSES.body(ChatRequest(history), "m", None, HOST)
    items = [event["item"] for event in given if event["type"] == "response.output_item.done"]
    role = {"type": "message", "role": "assistant"}
    assert body["input"][1:-1] == [
        items[0],
        items[1],
        {**role, "content": items[2]["content"], "phase": "commentary"},
        {"type": "function_call", "call_id": "c1", "name": "f", "arguments": '{"a":1}', "namespace": "n"},
        {**role, "content": items[4]["content"], "phase": "final_answer"},
    ]


def test_a_piece_of_text_costs_few_lines() -> None:
    many = [said(0, "x") for _ in range(100)]
    few = lines_run(lambda: turn(created(), *many[:10], completed()))
    assert lines_run(lambda: turn(created(), *many, completed())) - few < 90 * 45


# Events of all kinds

KEYS = ["type", "id", "item_id", "output_index", "text", "delta", "content", "summary", "call_id", "name", "arguments"]
TEXTS = st.sampled_from(["", "a", "{}", '{"a":1}', "message", "function_call", "reasoning", "c", "\ud83c", "\udf89"])
OTHER = anything(KEYS, TEXTS)
KINDS = st.sampled_from(["message", "reasoning", "function_call", "custom_tool_call", "web_search_call"])
PARTS_OF_ANY_KIND = st.lists(
    objects_with(OTHER, type=st.sampled_from(["output_text", "refusal"]), text=TEXTS), max_size=2
)
ITEMS = objects_with(OTHER, type=KINDS, id=TEXTS, call_id=TEXTS, name=TEXTS, arguments=TEXTS, content=PARTS_OF_ANY_KIND,
                     summary=PARTS_OF_ANY_KIND)  # fmt: skip
EVENT_KINDS = st.sampled_from([
    "output_item.added", "output_item.done", "content_part.done", "output_text.delta", "output_text.done",
    "refusal.delta", "reasoning_text.delta", "reasoning_summary_text.delta", "reasoning_summary_part.done",
    "function_call_arguments.delta", "function_call_arguments.done", "custom_tool_call_input.delta",
    "output_text.annotation.added", "created", "new",
]).map(lambda kind: f"response.{kind}")  # fmt: skip
INDEXES = st.integers(0, 2)
EVENTS = objects_with(
    OTHER, output_index=INDEXES, item_id=TEXTS, content_index=INDEXES, summary_index=INDEXES, delta=TEXTS, text=TEXTS,
    arguments=TEXTS, item=ITEMS,
).flatmap(lambda event: EVENT_KINDS.map(lambda kind: {**event, "type": kind}))  # fmt: skip


@given(st.lists(EVENTS, max_size=12), st.lists(ITEMS, max_size=3))
def test_any_events_keep_the_order_and_make_a_history_that_can_be_sent(given: list[Event], output: list[Any]) -> None:
    found, error = READING.until_error(*given, completed(*output))
    assert list(order_faults(found, ended=error is None)) == []
    if error is None:
        history = [Message.user("q"), collect(found).message, Message.user("go on")]
        json.dumps(RESPONSES.body(ChatRequest(history), "m", None, None)[0], allow_nan=False).encode()


@given(st.lists(EVENTS, max_size=12))
def test_ids_and_indexes_of_any_kind_do_not_matter_for_text(given: list[Event]) -> None:
    texts = [{**event, "type": "response.output_text.delta", "delta": "x"} for event in given]
    assert turn(*texts, completed()).text == "x" * len(texts)


@pytest.mark.parametrize("kind", ["response.function_call_arguments.done", "response.output_item.done"])
def test_arguments_that_are_an_object_are_the_arguments(kind: str) -> None:
    call = {"type": "function_call", "id": "fc", "call_id": "c", "name": "f"}
    whole = {"arguments": {"x": 1}}
    wire = [
        {"type": "response.output_item.added", "output_index": 0, "item": {**call, "arguments": ""}},
        {"type": kind, "output_index": 0, "item_id": "fc", **whole, "item": {**call, **whole}},
        {"type": "response.completed", "response": {"id": "r", "status": "completed", "output": []}},
    ]
    turn = collect(RESPONSES.chunks(events(*wire), lambda seconds: None))
    assert [block.args for block in turn.tool_calls] == [{"x": 1}]
