"""From the events of Chat Completions to chunks, for OpenAI and the servers that are compatible with it.

Each list of events below has a shape that some server sends.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from completion import (
    AuthenticationError,
    CompletionError,
    ContextOverflowError,
    FinishReason,
    InvalidRequestError,
    MalformedStreamError,
    OverloadedError,
    ProviderBlockFinished,
    ProviderError,
    RateLimitError,
    ReasoningDelta,
    ReasoningFinished,
    RedactedReasoning,
    ServerError,
    StreamCancelledError,
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
from completion.wires.assembly import WAIT_FOR_EOF_S, WAIT_FOR_USAGE_S
from completion.wires.openai_chat.assemble import assemble
from tests.wire_pieces import (
    STOP,
    TOOLS,
    Reading,
    anything,
    broken_after,
    calls,
    delta,
    events,
    interleaved,
    objects_with,
    order_faults,
    piece,
    texts_parsed,
)

READING = Reading(assemble)
chunks, content, turn, calls_read = READING.chunks, READING.content, READING.turn, READING.calls


# Text


def test_a_plain_answer_is_its_text_and_its_end() -> None:
    usage = {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}
    assert chunks(
        delta(role="assistant", content=""),
        delta(content="Hel"),
        {**delta(content="lo"), "service_tier": "default"},
        STOP,
        {"id": "chatcmpl-1", "model": "m-1", "choices": [], "usage": usage},
        DONE,
    ) == [
        TextDelta("Hel"),
        TextDelta("lo"),
        TurnFinished(FinishReason.END_TURN, Usage(9, 2), "default", "stop", None, "chatcmpl-1", "m-1"),
    ]


@pytest.mark.parametrize(
    "data",
    [
        [delta(role="assistant", content="a"), delta(role="assistant", content="b"), STOP],
        [delta(content=None, role="assistant"), delta(content="ab", refusal=None, tool_calls=None), STOP],
        [delta(content="ab", reasoning_content=None, reasoning=None), STOP],
        [{"choices": [], "prompt_filter_results": [{}], "id": "", "model": ""}, delta(content="ab"), STOP],
        [{**delta(content="a"), "id": "1"}, {**delta(content="b"), "id": "2"}, {**STOP, "id": "3"}],
        [{**delta(content="a"), "id": ""}, {**delta(content="b"), "id": None}, STOP],
        [{"choices": [{"delta": {"content": "ab"}}]}, {"choices": [{"delta": {}, "finish_reason": "stop"}]}],
        [{"choices": [{"index": 0, "message": {"role": "assistant", "content": "ab"}, "finish_reason": "stop"}]}],
        [delta(content="ab"), {"choices": [{"index": 0, "delta": None, "finish_reason": "stop"}]}],
        [delta(content="ab"), {"choices": [{"index": 0, "finish_reason": "stop"}]}],
        [delta("stop", content="ab")],
        [delta(content=[{"type": "text", "text": "a"}, "b", {"type": "text", "text": ""}, {"text": ""}, 1]), STOP],
        [delta(content="ab"), {"choices": None}, {"object": "ping"}, "ping", 1, None, [], STOP],
        [delta(content="ab"), STOP, delta(role="assistant", content=""), STOP],
        [delta(content="a"), delta("stop", content="b", role="assistant", refusal=None), delta("stop", content="")],
        [
            {"choices": [{"index": 1, "delta": {"content": "x"}}, {"index": 0, "delta": {"content": "a"}}]},
            {"choices": [{"index": 1, "delta": {}, "finish_reason": "length"}]},
            {"choices": [{"index": 0, "delta": {"content": "b"}, "finish_reason": "stop"}]},
        ],
        [{**delta(content="ab"), "error": None, "obfuscation": "x", "logprobs": {"content": []}}, STOP],
        [delta(content="ab"), {**STOP, "error": ""}, {"choices": [], "error": "", "usage": None}],
        [delta("stop", content="ab"), {**delta(role="assistant", content=""), "id": "chatcmpl-2"}],
        [delta(content="ab", annotations=5, images=True, tool_calls={}, reasoning_details=5, function_call=5), STOP],
    ],
    ids=[
        "role in every chunk", "null content", "null reasoning", "content filter first", "ids differ", "empty ids",
        "no choice index", "message in place of delta", "delta null", "no delta", "text and reason in one chunk",
        "content as a list", "chunks of other kinds", "reason repeated", "text beside the reason", "several choices",
        "extra keys", "empty error", "another id without content", "keys of other types",
    ],
)  # fmt: skip
def test_the_text_is_the_same_in_every_shape(data: list[Any]) -> None:
    found = turn(*data)
    assert (found.text, found.reason, found.provider_reason) == ("ab", FinishReason.END_TURN, "stop")
    assert len(found.message.blocks) == 1


def test_think_tags_in_the_text_are_text() -> None:
    assert turn(delta(content="<think>hm</think>"), delta(content="hi"), STOP).text == "<think>hm</think>hi"


def test_a_refusal_is_text_with_its_own_finish_reason() -> None:
    found = turn(delta(content=None, refusal="I "), delta(refusal="won't."), STOP)
    assert (found.text, found.reason, found.provider_reason) == ("I won't.", FinishReason.REFUSAL, "stop")


def test_annotations_and_images_are_provider_blocks() -> None:
    citation = {"type": "url_citation", "url_citation": {"url": "https://x"}}
    image = {"type": "image_url", "image_url": {"url": "data:,"}}
    assert content(delta(content="hi", annotations=[citation, None], images=[image]), STOP) == [
        TextDelta("hi"),
        ProviderBlockFinished("openai-chat", citation),
        ProviderBlockFinished("openai-chat", image),
    ]


def test_a_list_of_sources_that_every_chunk_repeats_is_one_block_at_the_end() -> None:
    sources = {"citations": ["https://x"], "search_results": [{"url": "https://x"}]}
    assert content({**delta(content="a"), "citations": []}, {**delta(content="b"), **sources}, {**STOP, **sources}) == [
        TextDelta("a"),
        TextDelta("b"),
        ProviderBlockFinished("openai-chat", sources),
    ]


def test_a_part_of_another_type_is_a_provider_block() -> None:
    part = {"type": "reference", "reference_ids": [1]}
    assert content(delta(content=[{"type": "text", "text": "a"}, part]), STOP) == [
        TextDelta("a"),
        ProviderBlockFinished("openai-chat", part),
    ]


# Reasoning

HM, CLOSED, HI = ReasoningDelta("hm"), ReasoningFinished(), TextDelta("hi")


def details(**fields: Any) -> list[dict[str, Any]]:
    return [{"index": 0, "format": "x", **fields}]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ([delta(content=None, reasoning_content="hm"), delta(content="hi")], [HM, CLOSED, HI]),
        ([delta(content="", reasoning="hm"), delta(content="hi", reasoning=None)], [HM, CLOSED, HI]),
        ([delta(reasoning_content="hm", reasoning="hm"), delta(content="hi")], [HM, CLOSED, HI]),
        ([delta(reasoning_content=None, reasoning="hm", content="hi")], [HM, CLOSED, HI]),
        (
            [delta(reasoning_details=details(type="reasoning.text", text="hm")), delta(content="hi")],
            [HM, CLOSED, HI],
        ),
        (
            [delta(reasoning_details=details(type="reasoning.summary", summary="hm")), delta(content="hi")],
            [HM, CLOSED, HI],
        ),
        (
            [delta(reasoning="hm", reasoning_details=details(type="reasoning.text", text="hm")), delta(content="hi")],
            [HM, CLOSED, HI],
        ),
        (
            [
                delta(reasoning="hm", reasoning_details=details(type="reasoning.text", text="hm", signature=None)),
                delta(reasoning_details=details(type="reasoning.text", text="hm", signature="s")),
                delta(content="hi", reasoning_details=details(type="reasoning.text", signature="s")),
            ],
            [HM, ReasoningFinished("s"), HI],
        ),
        (
            [delta(content="hi", reasoning_details=details(type="reasoning.text", signature="s"))],
            [ReasoningFinished("s"), HI],
        ),
        (
            [delta(reasoning="hm", reasoning_details=details(type="reasoning.encrypted", data="x"))],
            [HM, CLOSED, RedactedReasoning("x")],
        ),
        (
            [
                delta(content=[{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]),
                delta(content=[{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "hi"}]),
            ],
            [HM, HM, CLOSED, HI],
        ),
        ([delta(reasoning_content={}, reasoning=["x"], reasoning_details="x"), delta(content="hi")], [HI]),
        ([delta(reasoning_content="hm")], [HM, CLOSED]),
    ],
    ids=[
        "reasoning_content", "reasoning", "both", "second of both", "details", "summary in the details",
        "reasoning and details", "signature at the end", "signature alone", "encrypted", "thinking parts",
        "other shapes", "never closed",
    ],
)  # fmt: skip
def test_reasoning_is_read_once_from_any_field(data: list[Any], expected: list[StreamChunk]) -> None:
    assert content(*data, STOP) == expected


# Tool calls


def test_the_pieces_of_a_call_are_yielded_as_they_arrive() -> None:
    assert content(
        calls(piece(id="c", name="f", arguments="")),
        calls(piece(arguments='{"a"')),
        calls(piece(arguments=":1}")),
        TOOLS,
    ) == [
        ToolCallStarted("c", "f"),
        ToolCallArgsDelta("c", '{"a"'),
        ToolCallArgsDelta("c", ":1}"),
        ToolCallFinished("c", "f", {"a": 1}),
    ]


F1, G2 = ("c1", "f", {"a": 1}), ("c2", "g", {"b": 2})
A, B = '{"a":1}', '{"b":2}'
C = piece(0, A, id="c", name="f")


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ([calls(piece(0, A, id="c1", name="f"), piece(1, B, id="c2", name="g"))], [F1, G2]),
        (
            [
                calls(piece(0, "", id="c1", name="f")),
                calls(piece(0, A)),
                calls(piece(1, "", id="c2", name="g")),
                calls(piece(1, B)),
            ],
            [F1, G2],
        ),
        (
            [
                calls(piece(0, '{"a"', id="c1", name="f"), piece(1, "{", id="c2", name="g")),
                calls(piece(0, ":1"), piece(1, '"b"')),
                calls(piece(1, ":2}"), piece(0, "}")),
            ],
            [F1, G2],
        ),
        ([calls(piece(3, A, id="c1", name="f")), calls(piece(1, B, id="c2", name="g"))], [F1, G2]),
        (
            [
                calls(piece(0, '{"a"', id="c1", name="f")),
                calls(piece(0, ":1", id="c1", name="f")),
                calls(piece(0, "}", id="", name="")),
                calls(piece(0, "", id="c1", name="f")),
            ],
            [F1],
        ),
        ([calls(piece(0, "{", id="c1")), calls(piece(0, '"a":1', name="f")), calls(piece(0, "}"))], [F1]),
        ([calls(piece(0, "{", name="f")), calls(piece(0, '"a":1', id="c1")), calls(piece(0, "}"))], [F1]),
        ([calls(piece(None, "{", name="f")), calls(piece(None, '"a":1}', id="c1"))], [F1]),
        ([calls(piece(0, A, id="c1", name="f")), calls(piece(0, B, id="c2", name="g"))], [F1, G2]),
        (
            [
                calls(piece(0, "", id="c1", name="f")),
                calls(piece(0, A)),
                calls(piece(0, "", id="c2", name="g")),
                calls(piece(0, B)),
            ],
            [F1, G2],
        ),
        ([calls(piece(0, A, id="c1", name="f")), calls(piece(0, B, id="c2", name="f"))], [F1, ("c2", "f", {"b": 2})]),
        ([calls(piece(0, "{", id="c1", name="f")), calls(piece(0, '"a":1}', id="c9"))], [F1]),
        ([calls(piece(None, A, id="c1", name="f"), piece(None, B, id="c2", name="g"))], [F1, G2]),
        (
            [
                calls(piece(None, "{", id="c1", name="f"), piece(None, "{", id="c2", name="g")),
                calls(piece(None, '"a":1}', id="c1"), piece(None, '"b":2}', id="c2")),
            ],
            [F1, G2],
        ),
        (
            [
                calls(piece(None, "{", id="c1", name="f")),
                calls(piece(None, '"a":1}')),
                calls(piece(None, "", id="c2", name="g")),
                calls(piece(None, B)),
            ],
            [F1, G2],
        ),
        (
            [
                calls(piece(None, A, id="c1", name="f")),
                calls(piece(None, "{", id="c2")),
                calls(piece(None, '"b":2}', name="g")),
            ],
            [F1, G2],
        ),
        (
            [
                calls(piece(0, "{", id="c1", name="f")),
                calls(piece(1, "{", id="c2")),
                calls(piece(0, '"a":1}')),
                calls(piece(1, '"b":2}', name="g")),
            ],
            [F1, G2],
        ),
        ([calls(piece(0, {"a": 1}, id="c1", name="f"))], [F1]),
        ([calls(piece(0, A, id="c1", name="f")), calls(piece(0, A, id="c1", name="f"))], [F1]),
        ([calls(piece(0, A, id="c1", name="f")), delta(content="hi"), calls(piece(0, A))], [F1]),
        ([calls(piece(0, A, id="c1", name="f")), delta(content="hi"), calls(piece(0, " "))], [F1]),
        (
            [calls(piece(0, A, id="c1", name="f")), delta(content="hi"), calls(piece(0, "", id="c2", name="g"))],
            [F1, ("c2", "g", {})],
        ),
        ([calls(piece(0, id="c1", name="f"))], [("c1", "f", {})]),
        ([calls({**piece(0, id="c1"), "function": {"name": "f", "arguments": None}})], [("c1", "f", {})]),
        ([calls(piece(0, "", id="c1", name="f")), calls(piece(0, "\n"))], [("c1", "f", {})]),
        ([calls(piece(0, {}, id="c1", name="f"))], [("c1", "f", {})]),
        ([calls(piece(0, "{}", id="c1", name="f")), calls(piece(0, '{"a"')), calls(piece(0, ":1}"))], [F1]),
        (
            [
                calls(piece(0, "{}", id="c1", name="f"), piece(1, "{}", id="c2", name="g")),
                calls(piece(1, B)),
                delta(content="hi"),
                calls(piece(0, A)),
            ],
            [F1, G2],
        ),
        ([calls(piece(0, "{}", id="c1", name="f")), calls(piece(0, A, id="c1", name="f"))], [F1]),
        ([calls(piece(0, '{"a"', id="c1", name="f"))], [("c1", "f", '{"a"')]),
        ([calls(piece(0, [1], id="c1", name="f"))], [("c1", "f", "[1]")]),
        ([calls(piece(0, 5, id="c1", name="f"))], [("c1", "f", "5")]),
        ([calls(piece(0, False, id="c1", name="f"))], [("c1", "f", "false")]),
        ([calls(piece(0, {"a": float("nan")}, id="c1", name="f"))], [("c1", "f", '{"a":NaN}')]),
        ([calls(piece(0, A + "}", id="c1", name="f"))], [("c1", "f", A + "}")]),
        ([calls(piece(0, A, id="c1"))], [("c1", "", A)]),
        ([{"choices": [{"message": {"tool_calls": [piece(None, A, id="c1", name="f")]}}]}], [F1]),
        ([delta(tool_calls=[None, "x", piece(0, A, id="c1", name="f"), {"index": 0}, {"function": []}])], [F1]),
    ],
    ids=[
        "several in one chunk", "parallel", "interleaved", "indexes in any order", "ids and names repeated",
        "late name", "late id", "late id without index", "same index", "same index, split", "same index and name",
        "id changes within a call", "no index", "no index, interleaved", "no index, split", "no index, late name",
        "new index, late name", "object",
        "repeated", "repeated after text", "blank after text", "same index after text",
        "no arguments", "arguments null", "blank arguments", "empty object", "{} placeholder",
        "{} placeholders interleaved",
        "{} placeholder, ids and names repeated", "half arguments", "list", "number", "false", "NaN", "brace too many",
        "nameless", "message", "pieces of other shapes",
    ],
)  # fmt: skip
def test_pieces_are_joined_to_the_right_calls(data: list[Any], expected: list[Any]) -> None:
    assert calls_read(*data, TOOLS) == expected


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ([calls(piece(0, A, name="f")), calls(piece(0, B, name="g"))], [("f", {"a": 1}), ("g", {"b": 2})]),
        ([calls(piece(0, A, name="f")), calls(piece(0, A, name="f"))], [("f", {"a": 1}), ("f", {"a": 1})]),
        ([calls(piece(0, "{}", name="f")), calls(piece(0, "{}", name="f"))], [("f", {}), ("f", {})]),
        (
            [calls(piece(0, "", name="f")), calls(piece(0, A)), calls(piece(0, "", name="g")), calls(piece(0, B))],
            [("f", {"a": 1}), ("g", {"b": 2})],
        ),
        ([calls(piece(0, "", name="f")), calls(piece(0, B, name="g"))], [("f", {}), ("g", {"b": 2})]),
        ([calls(piece(None, A, name="f"), piece(None, B, name="g"))], [("f", {"a": 1}), ("g", {"b": 2})]),
        ([calls(piece(None, "{", name="f")), calls(piece(None, '"a":1}'))], [("f", {"a": 1})]),
        ([calls(piece(None, "{", name="f")), calls(piece(None, B, id="c2", name="f"))], [("f", "{"), ("f", {"b": 2})]),
        ([delta(function_call={"name": "f", "arguments": "{"}), delta(function_call={"arguments": "}"})], [("f", {})]),
        ([calls(C), calls(piece(1, B, id="c", name="g"))], [("f", {"a": 1}), ("g", {"b": 2})]),
        (
            [calls(piece(n, "", id="c", name="f")) for n in (0, 1)] + [calls(piece(1, B, id="c", name="f"))],
            [("f", {}), ("f", {"b": 2})],
        ),
        ([calls(C), calls(piece(0, B, id="c", name="f"))], [("f", {"a": 1}), ("f", {"b": 2})]),
        ([calls(C), delta(content="hi"), calls(piece(0, "}"))], [("f", {"a": 1}), ("", "}")]),
        ([calls(C), delta(content="hi"), calls(piece(0, "}", id="c", name="f"))], [("f", {"a": 1}), ("f", "}")]),
    ],
    ids=[
        "all index 0, no ids", "the same call twice", "the same call twice without arguments", "split, no ids",
        "no arguments, no ids", "neither index nor id", "one call, neither index nor id",
        "an id from the second call on", "function_call",
        "two indexes with one id", "two indexes with one id, split", "one index with one id, two objects",
        "more for a call that has ended", "more for a call that has ended, named",
    ],
)  # fmt: skip
def test_calls_without_usable_ids_get_unique_ids(data: list[Any], expected: list[Any]) -> None:
    found = calls_read(*data, TOOLS)
    assert [(name, args) for _, name, args in found] == expected
    assert len({call_id for call_id, _, _ in found}) == len(expected)


def test_text_inside_a_call_waits_for_its_end() -> None:
    found = content(calls(piece(0, "{", id="c", name="f")), delta(content="hi"), calls(piece(0, "}")), TOOLS)
    assert found[-2:] == [ToolCallFinished("c", "f", {}), HI]


def test_a_signed_call_keeps_its_signature() -> None:
    signed = {**piece(0, A, id="c", name="f"), "extra_content": {"google": {"thought_signature": "s"}}}
    assert content(calls(signed), TOOLS)[-1] == ToolCallFinished("c", "f", {"a": 1}, "s")


def test_custom_tools_are_provider_blocks() -> None:
    first = {"index": 0, "id": "c1", "type": "custom", "custom": {"name": "f", "input": "fr"}}
    second = {"id": "c2", "type": "custom", "custom": {"name": "g", "input": "te"}}
    assert content(
        calls(first, second),
        calls(
            {"index": 0, "custom": {"input": "ee"}}, {"id": "c2", "custom": {"input": "x"}}, {"custom": {"input": "t"}}
        ),
        TOOLS,
    ) == [
        ProviderBlockFinished("openai-chat", {"id": "c1", "type": "custom", "custom": {"name": "f", "input": "free"}}),
        ProviderBlockFinished("openai-chat", {"id": "c2", "type": "custom", "custom": {"name": "g", "input": "text"}}),
    ]


# Finish reasons and ends of turn


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("stop", FinishReason.END_TURN),
        ("length", FinishReason.MAX_TOKENS),
        ("tool_calls", FinishReason.TOOL_USE),
        ("function_call", FinishReason.TOOL_USE),
        ("content_filter", FinishReason.CONTENT_FILTER),
        ("eos", FinishReason.END_TURN),
        ("STOP", FinishReason.END_TURN),
        ("MAX_TOKENS", FinishReason.MAX_TOKENS),
        ("model_length", FinishReason.MAX_TOKENS),
        ("model_context_window_exceeded", FinishReason.CONTEXT_OVERFLOW),
        ("sensitive", FinishReason.CONTENT_FILTER),
        ("SAFETY", FinishReason.CONTENT_FILTER),
        ("abort", FinishReason.ABORTED),
        ("refusal", FinishReason.REFUSAL),
        ("a new word", FinishReason.OTHER),
    ],
)
def test_a_finish_reason_is_translated_and_kept(word: str, reason: FinishReason) -> None:
    found = turn(delta(content="hi"), delta(word))
    assert (found.reason, found.provider_reason) == (reason, word)


@pytest.mark.parametrize(
    ("arguments", "word", "reason"),
    [
        (A, "stop", FinishReason.TOOL_USE),
        (A, "length", FinishReason.MAX_TOKENS),
        (A, "content_filter", FinishReason.CONTENT_FILTER),
        ("{", "stop", FinishReason.END_TURN),
    ],
)
def test_a_stop_after_a_call_is_tool_use(arguments: str, word: str, reason: FinishReason) -> None:
    found = turn(calls(piece(0, arguments, id="c", name="f")), delta(word))
    assert (found.reason, found.provider_reason) == (reason, word)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ([delta(content="hi")], FinishReason.OTHER),
        ([calls(piece(0, A, id="c", name="f"))], FinishReason.TOOL_USE),
        ([calls(piece(0, "{", id="c", name="f"))], FinishReason.OTHER),
        ([delta(refusal="no")], FinishReason.OTHER),
        ([], FinishReason.OTHER),
    ],
    ids=["text", "call", "malformed call", "refusal", "nothing"],
)
def test_done_without_a_finish_reason_ends_the_turn(data: list[Any], reason: FinishReason) -> None:
    found = turn(*data, DONE)
    assert (found.reason, found.provider_reason) == (reason, None)


@pytest.mark.parametrize(
    "data",
    [[], [delta(content="hi")], [delta("", content="hi")], [calls(piece(0, A, id="c", name="f"))], [{"usage": {}}]],
)
def test_an_end_without_finish_reason_and_without_done_is_truncated(data: list[Any]) -> None:
    with pytest.raises(TruncatedStreamError, match="not complete"):
        list(assemble(events(*data)))


def test_the_last_finish_reason_counts() -> None:
    assert turn(delta(content="hi"), delta("stop"), delta("length"), DONE).provider_reason == "length"


def test_a_connection_that_breaks_after_the_end_of_the_turn_is_ignored() -> None:
    usage = {"prompt_tokens": 1, "completion_tokens": 1}
    found = list(assemble(broken_after(TransportError("reset"), delta("stop", content="hi"), {"usage": usage})))
    assert found == [HI, TurnFinished(FinishReason.END_TURN, Usage(1, 1), None, "stop", None, "chatcmpl-1", "m-1")]


@pytest.mark.parametrize(
    ("error", "data"),
    [
        (TransportError("x"), [delta(content="hi")]),
        (StreamCancelledError("x"), [delta("stop", content="hi")]),
        (MalformedStreamError("x"), [delta("stop", content="hi")]),
    ],
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
        yield "message", delta(content="hi")
        assert waits == []
        yield "message", STOP
        assert waits == [WAIT_FOR_USAGE_S]
        yield "message", delta(content="more")
        assert waits == [WAIT_FOR_USAGE_S, None]
        yield "message", DONE

    list(assemble(wire(), waits.append))


def test_nothing_is_read_after_done() -> None:
    assert content(delta(content="hi"), DONE, delta(content="ho"), {"error": "late"}) == [HI]


@pytest.mark.parametrize(
    "second",
    [
        delta(content="ho"),
        delta(content=None, reasoning="hm"),
        calls(piece(0, "", id="c2", name="f")),
        delta(refusal="no"),
    ],
    ids=["text", "reasoning", "call", "refusal"],
)
@pytest.mark.parametrize(
    "first",
    [[delta(content="hi")], [calls(piece(0, "{}", id="c", name="f"))]],
    ids=["after text", "after a call that may go on"],
)
def test_a_second_message_in_the_body_is_malformed(first: list[Any], second: dict[str, Any]) -> None:
    with pytest.raises(MalformedStreamError, match="second answer"):
        list(assemble(events(*first, STOP, {**second, "id": "chatcmpl-2"}, STOP, DONE)))


@pytest.mark.parametrize("later", ["chatcmpl-1", "", None])
def test_text_after_the_finish_reason_is_text_of_the_same_message(later: str | None) -> None:
    assert turn(delta("stop", content="a"), {**delta(content="b"), "id": later}).text == "ab"


def test_ids_that_differ_in_every_chunk_are_ignored() -> None:
    assert turn({**delta(content="a"), "id": "1"}, {**STOP, "id": "2"}, {**delta(content="b"), "id": "3"}).text == "ab"


# Usage

GIVEN = {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}


@pytest.mark.parametrize(
    "data",
    [
        [STOP, {"choices": [], "usage": GIVEN}],
        [{**STOP, "usage": GIVEN}],
        [{**delta(content="a"), "usage": {"prompt_tokens": 9, "completion_tokens": 1}}, {**STOP, "usage": GIVEN}],
        [{**STOP, "x_groq": {"id": "req", "usage": GIVEN}}],
        [{**STOP, "usage": GIVEN, "x_groq": {"id": "req", "usage": GIVEN}}],
        [{"choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "usage": GIVEN}]}],
        [STOP, {"choices": [], "usage": GIVEN}, {"choices": [], "usage": None, "moderation": {}}],
        [{**delta(content="a"), "usage": None, "x_groq": {"id": "req"}}, {**STOP, "usage": GIVEN}, {"x_groq": 1}],
        [STOP, {"usage": {"input_tokens": 9, "output_tokens": 2}}],
    ],
    ids=[
        "choiceless", "with choices", "growing", "x_groq", "beside x_groq", "in the choice", "null afterwards",
        "null before", "names of Responses",
    ],
)  # fmt: skip
def test_usage_is_found_in_each_of_its_places(data: list[Any]) -> None:
    assert turn(*data, DONE).usage == Usage(9, 2)


@pytest.mark.parametrize(
    ("given", "usage"),
    [
        (
            {**GIVEN, "prompt_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 3, "audio_tokens": 0}},
            Usage(9, 2, cached_input_tokens=4, cache_creation_input_tokens=3),
        ),
        ({**GIVEN, "completion_tokens_details": {"reasoning_tokens": 1}}, Usage(9, 2, reasoning_tokens=1)),
        (
            {**GIVEN, "total_tokens": 16, "completion_tokens_details": {"reasoning_tokens": 5}},
            Usage(9, 7, reasoning_tokens=5),
        ),
        ({**GIVEN, "prompt_cache_hit_tokens": 4, "prompt_cache_miss_tokens": 5}, Usage(9, 2, cached_input_tokens=4)),
        ({**GIVEN, "cached_tokens": 4}, Usage(9, 2, cached_input_tokens=4)),
        ({**GIVEN, "prompt_tokens_details": None, "completion_tokens_details": None}, Usage(9, 2)),
        ({"prompt_tokens": 9.0, "completion_tokens": None, "total_tokens": "11"}, Usage(9, 0)),
        ({"prompt_tokens": float("inf"), "completion_tokens": float("nan")}, Usage()),
        ({"prompt_tokens": True, "completion_tokens": -1, "prompt_tokens_details": []}, Usage()),
    ],
    ids=[
        "cache", "reasoning inside", "xAI: reasoning outside", "DeepSeek", "Moonshot", "null details", "odd numbers",
        "no numbers", "other types",
    ],
)  # fmt: skip
def test_usage_counts_totals_and_their_parts(given: dict[str, Any], usage: Usage) -> None:
    assert turn(STOP, {"choices": [], "usage": given}).usage == usage


@pytest.mark.parametrize("given", [None, {}, [], "many", 5])
def test_missing_usage_is_none(given: Any) -> None:
    assert turn({**STOP, "usage": given}).usage is None


def test_the_first_id_and_model_and_the_last_tier_count() -> None:
    found = turn(
        {"id": "", "model": "", "choices": []},
        {**delta(content="hi"), "id": "1", "model": "a", "service_tier": "auto"},
        {**STOP, "id": "2", "model": "b", "service_tier": "flex"},
        {"choices": [], "service_tier": None},
    )
    assert (found.response_id, found.response_model, found.service_tier) == ("1", "a", "flex")


# Errors inside a 200


@pytest.mark.parametrize(
    ("data", "kind", "status", "code", "message"),
    [
        ({"error": {"message": "busy", "code": 429}}, RateLimitError, 429, None, "busy"),
        ({"error": {"message": "no", "code": "401"}}, AuthenticationError, 401, None, "no"),
        ({"error": {"message": "down", "code": "SERVER_ERROR"}}, ServerError, None, "SERVER_ERROR", "down"),
        (
            {"error": {"message": "long", "type": "invalid_request_error", "code": "context_length_exceeded"}},
            ContextOverflowError, None, "context_length_exceeded", "long",
        ),
        ({"error": {"message": "odd", "code": None, "type": None}}, ProviderError, None, None, "odd"),
        ({"error": "out of memory"}, ProviderError, None, None, "out of memory"),
        ({"error": {}}, ProviderError, None, None, "{}"),
        ([{"error": {"message": "busy", "code": 503, "status": "UNAVAILABLE"}}], OverloadedError, 503,
         "UNAVAILABLE", "busy"),
        ({**delta("error", content=""), "error": {"message": "gone", "code": 502}}, ServerError, 502, None, "gone"),
        ({"object": "error", "message": "bad", "type": "BadRequestError", "code": 400}, InvalidRequestError, 400,
         "BadRequestError", "bad"),
        ({**delta(), "x_groq": {"id": "r", "error": "over_capacity"}}, OverloadedError, None,
         "over_capacity", "over_capacity"),
        (delta("error"), ProviderError, None, "error", "finish_reason 'error'"),
        ({"choices": [{"index": 0, "finish_reason": "error", "error": {"message": "gone", "code": 502}}]}, ServerError,
         502, None, "gone"),
    ],
    ids=[
        "number", "number as text", "upper case", "OpenAI's", "nulls", "text", "empty", "list of one",
        "beside choices", "object: error", "x_groq", "finish_reason", "inside the choice",
    ],
)  # fmt: skip
@pytest.mark.parametrize("before", [[], [delta(content="hi")], [STOP]], ids=["first", "later", "after the end"])
def test_an_error_in_the_stream_is_raised_as_its_class(
    before: list[Any], data: Any, kind: type[ProviderError], status: int | None, code: str | None, message: str
) -> None:
    with pytest.raises(ProviderError) as caught:
        list(assemble(events(*before, data, DONE)))
    error = caught.value
    assert (type(error), error.status, error.code) == (kind, status, code)
    assert message in error.message


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"error": {"message": "tool failed", "code": "tool_use_failed"}}, "tool failed"),
        ({"message": "busy"}, "busy"),
        ("busy", "busy"),
        (["busy"], "busy"),
        (None, "null"),
    ],
    ids=["object", "bare object", "text", "list", "null"],
)
def test_an_event_named_error_is_an_error_whatever_it_contains(data: Any, message: str) -> None:
    wire = iter([("message", delta(content="hi")), ("error", data)])
    with pytest.raises(ProviderError, match=message):
        list(assemble(wire))


# Any events

WORDS = [
    "id", "object", "model", "choices", "index", "delta", "message", "finish_reason", "content", "role", "refusal",
    "tool_calls", "function", "function_call", "name", "arguments", "type", "custom", "input", "reasoning",
    "reasoning_content", "reasoning_details", "text", "summary", "signature", "data", "thinking", "annotations",
    "images", "usage", "prompt_tokens", "completion_tokens", "total_tokens", "prompt_tokens_details", "cached_tokens",
    "completion_tokens_details", "reasoning_tokens", "x_groq", "citations", "search_results", "service_tier",
    "extra_content", "google", "thought_signature",
]  # fmt: skip
TEXTS = st.sampled_from(["", "a", "{", "}", "{}", '{"a":1}', "stop", "c1", "f", "text", "thinking", "custom", "error"])
ANYTHING = anything(WORDS, TEXTS)
some = functools.partial(objects_with, ANYTHING)


INDEXES = st.sampled_from([0, 1, None])
PIECES = some(
    index=INDEXES,
    id=st.sampled_from(["c1", "c2", ""]),
    type=st.sampled_from(["function", "custom"]),
    function=some(name=st.sampled_from(["f", "g", ""]), arguments=TEXTS),
    custom=some(name=TEXTS, input=TEXTS),
)
DELTAS = some(
    content=TEXTS,
    reasoning=TEXTS,
    reasoning_content=TEXTS,
    reasoning_details=st.lists(some(text=TEXTS, signature=TEXTS, data=TEXTS), max_size=2),
    refusal=TEXTS,
    tool_calls=st.lists(PIECES, max_size=3),
    function_call=some(name=TEXTS, arguments=TEXTS),
    annotations=st.lists(some(type=TEXTS), max_size=2),
)
CHOICES = some(index=INDEXES, delta=DELTAS, finish_reason=st.sampled_from([None, None, "stop", "length", "x"]))
EVENTS = some(
    id=st.sampled_from(["r1", ""]),
    choices=st.lists(CHOICES, max_size=2),
    usage=some(prompt_tokens=st.integers(), completion_tokens=st.floats(), prompt_tokens_details=ANYTHING),
)


@settings(deadline=None)
@given(st.lists(EVENTS | ANYTHING, max_size=8), st.booleans())
def test_any_events_are_chunks_in_order_or_a_completion_error(data: list[Any], done: bool) -> None:
    found, error = READING.until_error(*data, *([DONE] if done else []))
    assert list(order_faults(found, ended=error is None)) == []


PARALLEL: list[tuple[list[str], Any]] = [
    (['{"a"', ":[1", ",2]", "}"], {"a": [1, 2]}),
    (["{}", '{"b":{}', "}"], {"b": {}}),
    (["{}"], {}),
    ([""], {}),
    (['{"d"', ":"], '{"d":'),
]


@settings(deadline=None)
@given(st.lists(st.sampled_from(PARALLEL), min_size=2, max_size=3), st.lists(st.integers(0, 3)), st.booleans())
def test_any_interleaving_of_calls_and_text_loses_nothing(
    picked: list[tuple[list[str], Any]], order: list[int], repeats: bool
) -> None:
    wire: list[list[Any]] = []
    for n, (arguments, _) in enumerate(picked):
        first, *rest = arguments
        again = {"id": f"c{n}"} if repeats else {}
        wire.append([calls(piece(n, first, id=f"c{n}", name="f"))])
        wire[-1] += [calls(piece(n, text, **again)) for text in rest]
    wire.append([delta(content="a"), delta(content="b"), delta(reasoning="c")])
    sent = [wire[which].pop(0) for which in interleaved([len(sequence) for sequence in wire], order)]
    found = chunks(*sent, TOOLS)
    assert "".join(chunk.delta for chunk in found if isinstance(chunk, TextDelta)) == "ab"
    assert [chunk.delta for chunk in found if isinstance(chunk, ReasoningDelta)] == ["c"]
    expected = {f"c{n}": args for n, (_, args) in enumerate(picked)}
    assert {call_id: args for call_id, _, args in calls_read(*sent, TOOLS)} == expected


def test_a_call_in_many_pieces_is_not_parsed_at_each() -> None:
    """Each piece ends with a brace, so each may end the call. Parsing all of the arguments each time is quadratic."""
    found: list[StreamChunk] = []
    wire = [calls(piece(0, ',{"b":2}')) for _ in range(1000)]
    # The second call waits for the first.
    first = [piece(0, '{"a":[1', id="c", name="f"), piece(1, "{", id="d", name="g")]
    wire = [calls(*first), *wire, calls(piece(0, "]}"))]
    parsed = texts_parsed(lambda: found.extend(assemble(events(*wire, TOOLS))))
    assert ToolCallFinished("c", "f", {"a": [1] + [{"b": 2}] * 1000}) in found
    assert len(parsed) == 2  # each call once, at its end


# More shapes of real servers


@pytest.mark.parametrize(
    "error",
    [
        {"message": "too many tokens", "type": "too_many_tokens_error", "code": "token_quota_exceeded"},
        {"code": "399505", "message": "no"},
        {"error_code": "BAD_REQUEST", "message": "no"},
        {"detail": "Not authenticated"},
        {"choices": None, "base_resp": {"status_code": 1008, "status_msg": "insufficient balance"}},
        {"error": ""},
        {"error": []},
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "error": {"code": 502, "message": "up"}}]},
        {"choices": [], "usage": {"prompt_tokens": 1}, "x_groq": {"error": "over_capacity", "usage": {}}},
    ],
    ids=["Cerebras", "Snowflake", "Databricks", "FastAPI", "MiniMax", "empty", "empty list", "in the choice", "Groq"],
)
@pytest.mark.parametrize("before", [[], [delta(content="hi")]], ids=["first", "later"])
def test_an_error_instead_of_a_chunk_is_raised(error: dict[str, Any], before: list[Any]) -> None:
    with pytest.raises(ProviderError):
        chunks(*before, error, DONE)


def test_an_error_event_of_plain_text_is_raised_with_its_text() -> None:
    with pytest.raises(ProviderError, match="upstream timed out"):
        list(assemble(iter([("error", "upstream timed out")])))


@pytest.mark.parametrize("index", ["0", 1], ids=["as text", "from one"])
def test_the_choice_of_the_first_chunk_is_read_whatever_its_index(index: Any) -> None:
    said = {"choices": [{"index": index, "delta": {"content": "hi"}, "finish_reason": "stop"}]}
    assert turn(said, DONE).text == "hi"


def test_the_word_null_is_not_a_finish_reason() -> None:
    first = {"choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": "null"}]}
    with pytest.raises(TruncatedStreamError):
        chunks(first)
    assert turn(first, STOP).text == "a"


def test_a_finish_reason_in_every_chunk_does_not_end_the_turn_early() -> None:
    waits: list[float | None] = []
    every = [{"choices": [{"index": 0, "delta": {"content": c}, "finish_reason": "stop"}]} for c in "abc"]
    found = collect(assemble(events(*every, STOP, DONE), waits.append))
    assert (found.text, waits) == ("abc", [None, None, None, WAIT_FOR_USAGE_S, WAIT_FOR_EOF_S])


def test_a_message_that_repeats_the_deltas_is_skipped() -> None:
    whole = {"choices": [{"index": 0, "message": {"content": "Hello"}, "finish_reason": "stop"}]}
    assert turn(delta(content="Hel"), delta(content="lo"), whole, DONE).text == "Hello"
    alone = {"choices": [{"index": 0, "delta": None, "message": {"content": "Hello"}, "finish_reason": "stop"}]}
    assert turn(alone, DONE).text == "Hello"


@pytest.mark.parametrize("again", [{"id": ""}, {}], ids=["empty id", "no id"])
def test_a_placeholder_and_a_repeated_name_are_one_call(again: dict[str, str]) -> None:
    opening = piece(0, "{}", id="x", name="f")
    rest = {**piece(0, '{"city":"Rome"}', name="f"), **again}
    assert calls_read(calls(opening), calls(rest), TOOLS) == [("x", "f", {"city": "Rome"})]


def test_a_call_repeated_with_other_white_space_is_one_call() -> None:
    first, again = piece(0, '{"a":1}', id="x", name="f"), piece(0, '{"a": 1}', id="x", name="f")
    assert calls_read(calls(first), calls(again), TOOLS) == [("x", "f", {"a": 1})]


def test_a_name_that_arrives_after_the_next_call_is_used() -> None:
    found = calls_read(
        calls(piece(0, "{}", id="x")), calls(piece(1, "{}", id="y", name="g")), calls(piece(0, name="f")), TOOLS
    )
    assert found == [("x", "f", {}), ("y", "g", {})]


def test_a_character_that_was_cut_in_two_is_joined() -> None:
    assert turn(delta(content="a\ud83d"), delta(content="\ude00b"), STOP).text == "a\U0001f600b"
    assert turn(delta(content="a\ud83d"), STOP).text == "a\ufffd"


def test_a_number_that_cannot_be_sent_back_makes_a_call_malformed() -> None:
    malformed = content(calls(piece(0, '{"a":1e999}', id="x", name="f")), TOOLS)[-1]
    assert isinstance(malformed, ToolCallMalformed)
    assert "1e999" in malformed.error


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"prompt_tokens": 10**400, "completion_tokens": 1}, Usage(10**400, 1)),
        ({"total_tokens": 15}, None),
        (
            {
                "prompt_tokens": 9,
                "completion_tokens": 1,
                "cache_read_input_tokens": 4,
                "cache_creation_input_tokens": 3,
            },
            Usage(9, 1, cached_input_tokens=4, cache_creation_input_tokens=3),
        ),
        ({"prompt_tokens": 9, "completion_tokens": 5, "reasoning_tokens": 2}, Usage(9, 5, reasoning_tokens=2)),
    ],
    ids=["huge", "total only", "LiteLLM", "Perplexity"],
)
def test_usage_is_read_from_the_fields_of_other_servers(usage: dict[str, int], expected: Usage | None) -> None:
    assert turn({**STOP, "usage": usage}, DONE).usage == expected


@pytest.mark.parametrize(
    "said",
    [
        delta(executed_tools=[{"index": 0, "type": "search"}]),
        delta(context={"citations": []}),
        calls({"index": 0, "id": "w", "type": "web_browser", "web_browser": {"outputs": []}}),
    ],
    ids=["Groq compound", "Azure on your data", "z.ai"],
)
def test_a_server_side_tool_is_a_provider_block(said: dict[str, Any]) -> None:
    assert [type(chunk) for chunk in content(said, STOP)] == [ProviderBlockFinished]


def test_reasoning_details_may_go_on_without_plain_reasoning() -> None:
    both = delta(reasoning="A", reasoning_details=[{"type": "reasoning.text", "text": "A"}])
    alone = delta(reasoning_details=[{"type": "reasoning.text", "text": "B"}])
    assert turn(both, alone, STOP).reasoning == "AB"


@pytest.mark.parametrize("text", ["a\ud83d b", "\ude00b", "\ud83d"])
def test_half_a_character_is_replaced(text: str) -> None:
    assert "\ufffd" in turn(delta(content=text), STOP, DONE).text.encode().decode()


# Words and counters of other servers


@pytest.mark.parametrize(
    ("word", "kind"),
    [
        ("error", ProviderError),
        ("network_error", TruncatedStreamError),
        ("insufficient_system_resource", OverloadedError),
        ("MALFORMED_FUNCTION_CALL", ProviderError),
    ],
)
def test_the_finish_reason_of_a_broken_answer_is_an_error(word: str, kind: type[CompletionError]) -> None:
    with pytest.raises(kind, match=f"finish_reason '{word}': the answer is not complete"):
        turn(delta(content="hi"), delta(word))


@pytest.mark.parametrize(
    ("fields", "usage"),
    [
        ({"prompt_tokens": 20, "completion_tokens": 198, "total_tokens": 623}, Usage(20, 603, reasoning_tokens=405)),
        (
            {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 112, "cache_read_input_tokens": 100},
            Usage(105, 7, cached_input_tokens=100),
        ),
        ({"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}, Usage(5, 7)),
        ({"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 0}, Usage(5, 7)),
    ],
    ids=["thoughts", "cached prompt", "nothing missing", "no total"],
)
def test_the_total_tells_what_the_parts_do_not(fields: dict[str, int], usage: Usage) -> None:
    assert turn(delta(content="hi"), {**STOP, "usage": fields}).usage == usage


def test_zeros_do_not_overwrite_the_usage() -> None:
    last = {"choices": [], "usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}}
    found = turn(delta(content="hi"), {**STOP, "usage": {"prompt_tokens": 5, "completion_tokens": 7}}, last)
    assert found.usage == Usage(5, 7)


def test_a_call_whose_later_pieces_have_another_index_is_one_call() -> None:
    first = calls(piece(2, "", id="k", name="f"))
    assert content(first, calls(piece(0, '{"a":')), calls(piece(0, "1}")), TOOLS)[-1] == ToolCallFinished(
        "k", "f", {"a": 1}
    )
