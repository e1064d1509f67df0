"""From the events of generateContent to chunks, and from the turn to the next request."""

from __future__ import annotations

import json
from collections.abc import Sequence
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
    RateLimitError,
    ReasoningBlock,
    ReasoningDelta,
    ReasoningFinished,
    StreamChunk,
    TextDelta,
    ToolCallArgsDelta,
    ToolCallFinished,
    ToolCallMalformed,
    ToolCallStarted,
    TransportError,
    TruncatedStreamError,
    Usage,
    collect,
)
from completion.events.sse import sse_events
from completion.wires.gemini import GENERATE_CONTENT
from completion.wires.gemini.assemble import assemble
from completion.wires.tool_call import is_made_up
from tests.wire_pieces import Reading, anything, broken_after, chunks_of, events, lines_run, objects_with, order_faults

READING = Reading(assemble)
chunks, content, turn, calls = READING.chunks, READING.content, READING.turn, READING.calls
read = READING.until_error

USAGE = {"promptTokenCount": 9, "candidatesTokenCount": 4, "totalTokenCount": 13}


def chunk(*parts: dict[str, Any], reason: str | None = None, **fields: Any) -> dict[str, Any]:
    """An event with these parts; ``fields`` are those of the candidate."""
    candidate: dict[str, Any] = {"content": {"parts": list(parts), "role": "model"}, "index": 0, **fields}
    if reason:
        candidate["finishReason"] = reason
    return {"candidates": [candidate], "usageMetadata": USAGE, "modelVersion": "m-1", "responseId": "r"}


def text(said: str, signature: str | None = None, **fields: Any) -> dict[str, Any]:
    return {"text": said, **fields, **({"thoughtSignature": signature} if signature else {})}


def thought(said: str, signature: str | None = None) -> dict[str, Any]:
    return text(said, signature, thought=True)


def call(name: str | None = "f", signature: str | None = None, **fields: Any) -> dict[str, Any]:
    signed = {"thoughtSignature": signature} if signature else {}
    return {"functionCall": {**({"name": name} if name else {}), **fields}, **signed}


def piece(path: str, **value: Any) -> dict[str, Any]:
    """A part with one piece of the arguments of an open call."""
    return call(None, partialArgs=[{"jsonPath": path, **value}], willContinue=True)


def own(**data: Any) -> ProviderBlockFinished:
    return ProviderBlockFinished("gemini", data)


def signed(signature: str, length: int) -> ProviderBlockFinished:
    return own(type="signature", thoughtSignature=signature, length=length)


END = chunk(text(""), reason="STOP")
HI, HM = TextDelta("hi"), ReasoningDelta("hm")
SIGNED, UNSIGNED = ReasoningFinished("S", "gemini"), ReasoningFinished()
CODE = {"executableCode": {"language": "PYTHON", "code": "1"}, "thoughtSignature": "S"}
RESULT = {"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "1"}}
IMAGE = {"inlineData": {"mimeType": "image/png", "data": "iVBORw=="}}
TOOL_CALL = {"toolCall": {"toolType": "GOOGLE_SEARCH_WEB", "args": {}, "id": "x"}, "thoughtSignature": "S"}
GROUNDING = {"groundingChunks": [{"web": {"uri": "https://a"}}]}


ANSWERS: dict[str, tuple[list[dict[str, Any]], Sequence[StreamChunk]]] = {
    "text": ([chunk(text("h")), chunk(text("i"))], [TextDelta("h"), TextDelta("i")]),
    "several parts": ([chunk(text("h"), text("i"))], [TextDelta("h"), TextDelta("i")]),
    "empty text": ([chunk(text("")), chunk(text("hi")), chunk(text(""))], [HI]),
    "characters beyond ASCII": ([chunk(text("grün 日本"))], [TextDelta("grün 日本")]),
    "half of a pair": ([chunk(text("\ud83d")), chunk(text("\ude42"))], [TextDelta("🙂")]),
    "no index, no role": ([{"candidates": [{"content": {"parts": [text("hi")]}}]}], [HI]),
    "no parts": ([chunk(text("hi")), {"candidates": [{"content": {"role": "model"}}]}], [HI]),
    "no content": ([chunk(text("hi")), {"candidates": [{"index": 0}]}], [HI]),
    "parts of unknown shape": ([chunk(text("hi")), {"candidates": [{"content": {"parts": [None, 3, {}]}}]}], [HI]),
    "another candidate": ([{"candidates": [{"index": 1, "content": {"parts": [text("no")]}},
                                           {"index": 0, "content": {"parts": [text("hi")]}}]}], [HI]),
    "a thought": ([chunk(thought("h")), chunk(thought("m")), chunk(text("hi"))],
                  [ReasoningDelta("h"), ReasoningDelta("m"), UNSIGNED, HI]),
    "a signed thought": ([chunk(thought("hm", "S")), chunk(text("hi"))], [HM, SIGNED, HI]),
    "an empty signed thought": ([chunk(thought("", "S")), chunk(text("hi"))], [SIGNED, HI]),
    "a signed thought after others": ([chunk(thought("hm")), chunk(thought("hm", "S"))], [HM, UNSIGNED, HM, SIGNED]),
    "an empty one after others": ([chunk(thought("hm")), chunk(thought("", "S"))], [HM, UNSIGNED, SIGNED]),
    "signed text": ([chunk(text("no ")), chunk(text("hi", "S"))], [TextDelta("no "), HI, signed("S", 2)]),
    "empty signed text": ([chunk(text("hi")), chunk(text("", "S"))], [HI, signed("S", 0)]),
    "a signature alone": ([chunk(text("hi")), chunk({"thoughtSignature": "S"})], [HI, signed("S", 0)]),
    "code": ([chunk(CODE, text("")), chunk(RESULT), chunk(text("hi"))], [own(**CODE), own(**RESULT), HI]),
    "an image": ([chunk(IMAGE)], [own(**IMAGE)]),
    "a thought that is an image": ([chunk({**IMAGE, "thought": True})], [own(**IMAGE, thought=True)]),
    "a call on the server": ([chunk(TOOL_CALL)], [own(**TOOL_CALL)]),
    "sources": ([chunk(text("hi"), groundingMetadata=GROUNDING)],
                [HI, own(type="candidate", groundingMetadata=GROUNDING)]),
    "sources in several chunks": (
        [chunk(text("h"), groundingMetadata=GROUNDING), chunk(text("i"), groundingMetadata={"groundingChunks": [3]}),
         chunk(groundingMetadata={**GROUNDING, "webSearchQueries": ["q"]})],
        [TextDelta("h"), TextDelta("i"), own(type="candidate", groundingMetadata={
            "groundingChunks": [*GROUNDING["groundingChunks"], 3], "webSearchQueries": ["q"]})],
    ),
    "pages": ([chunk(text("hi"), urlContextMetadata={"urlMetadata": []})],
              [HI, own(type="candidate", urlContextMetadata={"urlMetadata": []})]),
    "citations": ([chunk(text("hi"), citationMetadata={"citationSources": [1]})],
                  [HI, own(type="candidate", citationMetadata={"citationSources": [1]})]),
}  # fmt: skip


@pytest.mark.parametrize(("sent", "expected"), ANSWERS.values(), ids=list(ANSWERS))
def test_each_kind_of_part_becomes_chunks(sent: list[dict[str, Any]], expected: Sequence[StreamChunk]) -> None:
    assert content(*sent, END) == list(expected)


CALLS: dict[str, tuple[list[dict[str, Any]], list[tuple[str, Any]]]] = {
    "a call": ([call(args={"a": 1})], [("f", {"a": 1})]),
    "without arguments": ([call()], [("f", {})]),
    "empty arguments": ([call(args={})], [("f", {})]),
    "null": ([call(args=None)], [("f", {})]),
    "several": ([call(args={"a": 1}), call("g", args={"ü": [2]})], [("f", {"a": 1}), ("g", {"ü": [2]})]),
    "no name": ([call(None, args={"a": 1})], [("", '{"a":1}')]),
    "arguments that are a list": ([call(args=[1])], [("f", "[1]")]),
    "nothing": ([call(None)], []),
    "pieces": (
        [call(willContinue=True), piece("$.a", stringValue="Bos", willContinue=True), piece("$.a", stringValue="ton"),
         call(None)],
        [("f", {"a": "Boston"})],
    ),
    "pieces of several calls": (
        [call(willContinue=True), piece("$.a", stringValue="x"), call(None), call("g", willContinue=True),
         piece("$.b", numberValue=2), call(None)],
        [("f", {"a": "x"}), ("g", {"b": 2})],
    ),
    "the end is missing before a call": (
        [call(willContinue=True), piece("$.a", stringValue="x", willContinue=True), call("g", args={})],
        [("f", {"a": "x"}), ("g", {})],
    ),
    "the end is missing": ([call(willContinue=True), piece("$.a", boolValue=False)], [("f", {"a": False})]),
    "the end without more": ([call(willContinue=True), call(None)], [("f", {})]),
    "every kind of value": (
        [call(partialArgs=[{"jsonPath": "$.a", "numberValue": 0}, {"jsonPath": "$.b", "boolValue": True},
                           {"jsonPath": "$.c", "nullValue": "NULL_VALUE"}, {"jsonPath": "$.d", "stringValue": ""}])],
        [("f", {"a": 0, "b": True, "c": None, "d": ""})],
    ),
    "paths": (
        [call(partialArgs=[{"jsonPath": path, "numberValue": n} for n, path in enumerate(
            ["$.a.b[0].c", "$.a.b[1].c", "$.a.b[0].d", "$.a.b[999999999].c", "$['x y']", '$["z"][0][0]'])])],
        [("f", {"a": {"b": [{"c": 0, "d": 2}, {"c": 1}, {"c": 3}]}, "x y": 4, "z": [[5]]})],
    ),
    "a string inside a value": (
        [call(willContinue=True), piece("$.a[0]", stringValue="x"), piece("$.a[1]", stringValue="y"),
         piece("$.a[0]", stringValue="z"), call(None)],
        [("f", {"a": ["xz", "y"]})],
    ),
    "a value that goes on after the next": (
        [call(willContinue=True), piece("$.a", stringValue="x"), piece("$.b", stringValue="y"),
         piece("$.a", stringValue="z"), call(None)],
        [("f", '{"a":"x","b":"y","a":"z')],
    ),
    "characters that JSON escapes": (
        [call(willContinue=True), piece("$.a", stringValue='"{'), piece("$.a", stringValue="}\n\\"), call(None)],
        [("f", {"a": '"{}\n\\'})],
    ),
    "all arguments again at the end": (
        [call(willContinue=True), piece("$.a", stringValue="x"), call(None, args={"a": "x"})], [("f", {"a": "x"})]
    ),
    "all arguments before the end": (
        [call(willContinue=True), call(None, args={"a": "x"}, willContinue=True), call(None)], [("f", {"a": "x"})]
    ),
    "a path through a value": (
        [call(partialArgs=[{"jsonPath": "$.a", "numberValue": 1}, {"jsonPath": "$.a.b", "numberValue": 2}])],
        [("f", {"a": {"b": 2}})],
    ),
    "a continued call with its id": (
        [call(id="x", willContinue=True), call(id="x", partialArgs=[{"jsonPath": "$.a", "numberValue": 1}])],
        [("f", {"a": 1})],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("parts", "expected"), CALLS.values(), ids=list(CALLS))
@pytest.mark.parametrize("together", [False, True])
def test_calls_arrive_whole_or_piece_by_piece(
    parts: list[dict[str, Any]], expected: list[tuple[str, Any]], together: bool
) -> None:
    sent = [chunk(*parts)] if together else [chunk(part) for part in parts]
    found = calls(*sent, END)
    assert [(name, args) for _, name, args in found] == expected
    good = [args for _, args in expected if isinstance(args, dict)]
    assert turn(*sent, END).reason is (FinishReason.TOOL_USE if good else FinishReason.END_TURN)


def test_a_call_keeps_its_id_and_its_signature() -> None:
    sent = [chunk(call("f", "S", id="abc", args={})), chunk(call("g", args={})), END]
    first, second = (one for one in chunks(*sent) if isinstance(one, ToolCallFinished))
    assert (first.call_id, first.signature, first.provider) == ("abc", "S", "gemini")
    assert (second.signature, second.provider) == (None, None)
    assert is_made_up(second.call_id)


def test_the_signature_of_a_call_may_come_with_any_piece() -> None:
    sent = [chunk(call("f", "S", willContinue=True)), chunk(piece("$.a", numberValue=1)), chunk(call(None)), END]
    (found,) = (one for one in chunks(*sent) if isinstance(one, ToolCallFinished))
    assert (found.args, found.signature) == ({"a": 1}, "S")


@pytest.mark.parametrize("reason", ["MAX_TOKENS", "SAFETY", "OTHER"])
def test_a_call_that_was_cut_off_is_malformed(reason: str) -> None:
    sent = [chunk(call(willContinue=True)), chunk(piece("$.a", stringValue="rm -rf /tmp"), reason=reason)]
    (found,) = (one for one in chunks(*sent) if isinstance(one, ToolCallMalformed))
    assert found.raw == '{"a":"rm -rf /tmp'


def test_a_string_is_yielded_as_it_arrives() -> None:
    sent = [chunk(call(id="c", willContinue=True)), chunk(piece("$.a", stringValue="Bos"))]
    found, _ = read(*sent)
    assert found == [ToolCallStarted("c", "f"), ToolCallArgsDelta("c", '{"a":"Bos')]
    found, _ = read(*sent, chunk(piece("$.a", stringValue="ton")), chunk(piece("$.b", numberValue=1)))
    assert found[2:] == [ToolCallArgsDelta("c", "ton"), ToolCallArgsDelta("c", '","b":')]


def test_arguments_in_many_pieces_cost_linear_time() -> None:
    def lines(count: int) -> int:
        sent = [chunk(piece("$.a", stringValue="x}"))] * count
        return lines_run(lambda: list(assemble(events(chunk(call(willContinue=True)), *sent, END))))

    assert lines(800) < 5 * lines(200)


def test_text_behind_an_open_call_waits_for_its_end() -> None:
    sent = [chunk(call(willContinue=True)), chunk(text("hi")), chunk(piece("$.a", numberValue=1)), END]
    assert [type(one).__name__ for one in content(*sent)] == [
        "ToolCallStarted", "ToolCallArgsDelta", "ToolCallArgsDelta", "ToolCallFinished", "TextDelta"
    ]  # fmt: skip


REASONS = {
    "STOP": FinishReason.END_TURN,
    "MAX_TOKENS": FinishReason.MAX_TOKENS,
    **dict.fromkeys(["SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII"], FinishReason.CONTENT_FILTER),
    **dict.fromkeys(
        ["LANGUAGE", "OTHER", "MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "NEW_WORD"], FinishReason.OTHER
    ),
}


@pytest.mark.parametrize(("word", "reason"), REASONS.items())
def test_the_finish_reason_is_translated(word: str, reason: FinishReason) -> None:
    found = turn(chunk(text("hi")), {"candidates": [{"finishReason": word}]})
    assert (found.reason, found.provider_reason) == (reason, word)


@pytest.mark.parametrize("word", ["SAFETY", "OTHER", "BLOCKLIST", "NEW_WORD"])
def test_a_blocked_prompt_ends_the_turn(word: str) -> None:
    found = turn({"promptFeedback": {"blockReason": word}, "usageMetadata": {"promptTokenCount": 5}})
    assert (found.reason, found.provider_reason) == (FinishReason.CONTENT_FILTER, word)
    assert found.usage == Usage(input_tokens=5)


def test_the_ratings_and_the_message_of_a_blocked_answer_are_kept() -> None:
    ratings = [{"category": "A", "blocked": True}, {"category": "B"}]
    last = {"candidates": [{"finishReason": "SAFETY", "finishMessage": "No.", "safetyRatings": ratings}]}
    assert content(chunk(text("hi")), last) == [
        HI, own(type="candidate", safetyRatings=ratings[:1], finishMessage="No.")
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        ([USAGE], Usage(9, 4)),
        ([USAGE, {"promptTokenCount": 9, "totalTokenCount": 9}], Usage(9)),
        ([USAGE, {"trafficType": "ON_DEMAND"}], Usage(9, 4)),
        ([{**USAGE, "thoughtsTokenCount": 7}], Usage(9, 11, reasoning_tokens=7)),
        ([{**USAGE, "toolUsePromptTokenCount": 30, "cachedContentTokenCount": 8}], Usage(39, 4, 8)),
        ([{"trafficType": "ON_DEMAND"}], None),
        ([], None),
    ],
)
def test_the_last_usage_counts(sent: list[Any], expected: Usage | None) -> None:
    found = [{"candidates": [{"content": {"parts": [text("h")]}}], "usageMetadata": usage} for usage in sent]
    assert turn(*found, {"candidates": [{"finishReason": "STOP"}]}).usage == expected


def test_the_usage_may_come_in_a_chunk_of_its_own() -> None:
    last = {"candidates": [{"finishReason": "STOP"}]}
    assert turn(chunk(text("hi")), last, {"usageMetadata": {"promptTokenCount": 1}}).usage == Usage(1)


def test_the_turn_has_the_id_the_model_and_the_tier() -> None:
    last = {**END, "usageMetadata": {**USAGE, "serviceTier": "flex"}}
    found = turn(chunk(text("hi")), last)
    assert (found.response_id, found.response_model, found.service_tier) == ("r", "m-1", "flex")


def test_a_finish_reason_in_every_chunk_does_not_end_the_answer() -> None:
    assert turn(*(chunk(text(word), reason="STOP") for word in ("a", "b", "c"))).text == "abc"


# Errors

ERRORS: dict[str, tuple[Any, type[CompletionError]]] = {
    "overloaded": ({"error": {"code": 503, "message": "m", "status": "UNAVAILABLE"}}, OverloadedError),
    "a list of one": ([{"error": {"code": 429, "message": "m", "status": "RESOURCE_EXHAUSTED"}}], RateLimitError),
    "too long": ({"error": {"code": 400, "message": "exceeds the maximum number of tokens"}}, ContextOverflowError),
    "invalid": ({"error": {"code": 400, "message": "m", "status": "INVALID_ARGUMENT"}}, InvalidRequestError),
    "key": ({"error": {"code": 400, "message": "m", "details": [{"reason": "API_KEY_INVALID"}]}}, AuthenticationError),
}


@pytest.mark.parametrize(("sent", "kind"), ERRORS.values(), ids=list(ERRORS))
@pytest.mark.parametrize("before", [[], [chunk(text("hi"))], [END]], ids=["at once", "after text", "after the end"])
def test_an_error_inside_the_stream_is_raised(sent: Any, kind: type[CompletionError], before: list[Any]) -> None:
    _, error = read(*before, sent)
    assert type(error) is kind


@pytest.mark.parametrize("sent", [[], [chunk(text("hi"))], [chunk(call(args={}))], [{"usageMetadata": USAGE}],
                                  [chunk(text("hi"), reason="FINISH_REASON_UNSPECIFIED")]])  # fmt: skip
def test_a_body_without_an_end_is_truncated(sent: list[Any]) -> None:
    _, error = read(*sent)
    assert type(error) is TruncatedStreamError
    assert "finishReason" in str(error)


def test_events_of_another_api_are_named() -> None:
    _, error = read({"choices": [{"delta": {"content": "hi"}}]})
    assert type(error) is MalformedStreamError


def test_a_second_answer_is_malformed() -> None:
    _, error = read(chunk(text("hi")), END, {**chunk(text("other")), "responseId": "s"})
    assert type(error) is MalformedStreamError


def test_a_connection_that_breaks_after_the_end_is_ignored() -> None:
    found = list(assemble(broken_after(TransportError("gone"), chunk(text("hi")), END)))
    assert collect(found).text == "hi"


def nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(depth):
        value = {"a": value}
    return value


def test_what_is_nested_too_deeply_is_malformed() -> None:
    assert [type(one).__name__ for one in content(chunk(call(args=nested(400))), END)][-1] == "ToolCallMalformed"
    for sent in (chunk({"new": nested(400)}), chunk(groundingMetadata=nested(400))):
        _, error = read(sent, sent, END)
        assert type(error) is MalformedStreamError


def test_paths_that_are_nested_too_deeply_are_refused() -> None:
    deep = {"jsonPath": "$" + ".a" * 500, "numberValue": 1}
    _, error = read(chunk(call(partialArgs=[deep])), END)
    assert type(error) is MalformedStreamError


# Bytes

SENT = [
    chunk(thought("hm ☃", "A")),
    chunk(text("no ")),
    chunk(text("hi 🙂", "B")),
    chunk(call("f", "C", args={"a": "ü"})),
    chunk(CODE),
    chunk(text("", "D"), reason="STOP"),
]


@pytest.mark.parametrize("split", [None, 7, 1])
@pytest.mark.parametrize("line_end", ["\r\n", "\n"])
def test_the_answer_does_not_depend_on_how_its_bytes_are_cut(split: int | None, line_end: str) -> None:
    body = "".join(f"data: {json.dumps(data, ensure_ascii=False)}{line_end}{line_end}" for data in SENT).encode()
    found = collect(assemble(sse_events(iter(chunks_of(body, split)), 1 << 20))).message.blocks
    expected = turn(*SENT).message.blocks
    assert [block.to_dict() | {"call_id": ""} for block in found] == [
        block.to_dict() | {"call_id": ""} for block in expected
    ]  # fmt: skip


def test_a_turn_goes_back_as_it_came() -> None:
    answer = turn(*SENT)
    (made_up,) = (block.call_id for block in answer.tool_calls)
    history = [Message.user("q"), answer.message, Message.tool_result(made_up, "1")]
    for snapshot in (history, [Message.from_json(message.to_json()) for message in history]):
        body, _ = GENERATE_CONTENT.body(ChatRequest(snapshot), "gemini-3.1-pro")
        assert body["contents"][1]["parts"] == [data["candidates"][0]["content"]["parts"][0] for data in SENT]


def test_a_piece_of_text_costs_few_lines() -> None:
    def lines(count: int) -> int:
        sent = [chunk(text("hi"))] * count
        return lines_run(lambda: list(assemble(events(*sent, END))))

    assert (lines(300) - lines(100)) / 200 < 60


# Hypothesis

TEXTS = st.sampled_from(["", "a", "\ud83d", "\ude42", "ü"])
PARTS = st.sampled_from(
    [text("a"), text("", "S"), text("b", "S"), thought("t"), thought("t", "S"), call(args={"a": 1}), call(None),
     call(willContinue=True), call("g", "S", id="i", args={}), piece("$.a.b", stringValue="x"), CODE, IMAGE]
)  # fmt: skip


@pytest.mark.parametrize("before", [[], [{"functionCall": {"name": "f", "willContinue": True}}]])
def test_a_piece_of_a_call_does_not_join_two_thoughts(before: list[dict[str, Any]]) -> None:
    piece = {"functionCall": {"partialArgs": [{"jsonPath": "$.a", "stringValue": "x"}], "willContinue": True}}
    signed = {"text": "b", "thought": True, "thoughtSignature": "S"}
    answer = turn(chunk(*before, {"text": "a", "thought": True}, piece, signed), END)
    thoughts = [block for block in answer.message.blocks if isinstance(block, ReasoningBlock)]
    assert [(block.text, block.signature) for block in thoughts] == [("a", None), ("b", "S")]


@example([[thought("t"), {"functionCall": {}}, thought("t", "S")]])
@given(st.lists(st.lists(PARTS, max_size=3), max_size=6))
def test_any_order_of_parts_keeps_the_order_of_chunks_and_goes_back(sent: list[list[dict[str, Any]]]) -> None:
    answer = turn(*(chunk(*parts) for parts in sent), END)
    history = [Message.user("q"), answer.message, Message.user("r")]
    body, _ = GENERATE_CONTENT.body(ChatRequest(history), "gemini-2.5-pro")
    back = [part for one in body["contents"] if one["role"] == "model" for part in one["parts"]]
    given_parts = [part for parts in sent for part in parts]

    def kinds(parts: list[dict[str, Any]], key: str) -> list[Any]:
        return [{name: part[name] for name in part if name != "functionCall"} for part in parts if key in part]

    signed_parts = [part for part in given_parts if "thoughtSignature" in part and "functionCall" not in part]
    # A call that was sent piece by piece may stand before a part that came between its pieces.
    assert sorted(map(json.dumps, kinds(signed_parts, "thoughtSignature"))) == sorted(
        json.dumps(one) for one in kinds(back, "thoughtSignature") if one.keys() != {"thoughtSignature"}
    )


KEYS = ["text", "thought", "thoughtSignature", "functionCall", "name", "args", "parts", "content", "index"]
ANY = anything(KEYS, TEXTS)
PART = objects_with(
    ANY,
    text=TEXTS,
    thought=st.booleans(),
    thoughtSignature=st.just("S"),
    functionCall=objects_with(
        ANY,
        name=st.just("f"),
        args=st.just({"a": 1}),
        willContinue=st.booleans(),
        partialArgs=st.lists(
            objects_with(ANY, jsonPath=st.sampled_from(["$.a", "$.a[0]", "$", "x"]), stringValue=TEXTS)
        ),
    ),
)
CANDIDATE = objects_with(ANY, content=objects_with(ANY, parts=st.lists(PART, max_size=3)), finishReason=st.just("STOP"))
EVENT = objects_with(
    ANY,
    candidates=st.lists(CANDIDATE, max_size=2),
    usageMetadata=st.just(USAGE),
    promptFeedback=objects_with(ANY, blockReason=st.just("SAFETY")),
    responseId=st.just("r"),
)


@given(st.lists(EVENT, max_size=5))
def test_events_of_any_shape_never_break_the_order(sent: list[dict[str, Any]]) -> None:
    found, _ = read(*sent)
    assert list(order_faults(found, ended=False)) == []
