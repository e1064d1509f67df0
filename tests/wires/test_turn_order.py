"""The order of a turn and the arguments of its calls, for every way in which a wire may interleave them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from completion import (
    ProviderBlockFinished,
    ReasoningDelta,
    ReasoningFinished,
    RedactedReasoning,
    StreamChunk,
    TextDelta,
    ToolCallArgsDelta,
    ToolCallFinished,
    ToolCallMalformed,
    ToolCallStarted,
)
from completion.wires.arguments import Arguments, parse_args
from completion.wires.tool_call import COMPLETE, ENDED, ToolCall, made_up_call_id
from completion.wires.turn_order import TurnOrder
from tests.wire_pieces import interleaved, order_faults


def last_chunk(*arguments: str) -> StreamChunk:
    """The last chunk of a call with these pieces of arguments."""
    return chunks_of_call(*arguments)[-1]


def chunks_of_call(*arguments: str) -> list[StreamChunk]:
    order, call = TurnOrder(), ToolCall("c", "f")
    out = order.call(call)
    for text in arguments:
        call.add(text)
        out += order.release()
    return out + order.end()


# The arguments


@pytest.mark.parametrize(
    ("arguments", "args"),
    [
        ((), {}),
        (("",), {}),
        (("  \n",), {}),
        (("{}",), {}),
        (("{", "}"), {}),
        (("{}", "{}"), {}),
        (("{}", "", " "), {}),
        (("{}", '{"a"', ":1}"), {"a": 1}),
        (("{}", "{}", '{"a":1}'), {"a": 1}),
        ((' {"a": "}"', "} "), {"a": "}"}),
        (('{"a":{}', "}"), {"a": {}}),
        (('{"a":"\\ud83c', '\\udf89 ü"}'), {"a": "🎉 ü"}),
    ],
    ids=lambda value: "|".join(value) if isinstance(value, tuple) else None,
)
def test_the_pieces_of_the_arguments_are_joined(arguments: tuple[str, ...], args: dict[str, Any]) -> None:
    assert last_chunk(*arguments) == ToolCallFinished("c", "f", args)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (('{"a"', ":"), "not JSON"),
        (('{"a":1}', "}"), "not JSON"),
        (('{"a":1}', '{"b":2}'), "not JSON"),
        (("{}", "x"), "not JSON"),
        (("{'a': 1}",), "not JSON"),
        (('{"a": NaN}',), "NaN is not JSON"),
        (('{"a": -Infinity}',), "-Infinity is not JSON"),
        (('{"a":' + "[" * 100_000,), "nested too deeply"),
        (('{"a":' + "9" * 5000 + "}",), "not JSON"),
        (("[1]",), "not a JSON object but list"),
        (("12",), "not a JSON object but int"),
        (('"{}"',), "not a JSON object but str"),
        (("null",), "not a JSON object but NoneType"),
    ],
    ids=[
        "half", "brace too many", "two objects", "text behind {}", "single quotes", "NaN", "infinity", "too deep",
        "number too long", "list", "number", "string", "null",
    ],
)  # fmt: skip
def test_other_arguments_are_malformed_and_kept_raw(arguments: tuple[str, ...], error: str) -> None:
    chunk = last_chunk(*arguments)
    assert isinstance(chunk, ToolCallMalformed)
    assert (chunk.call_id, chunk.name, chunk.raw) == ("c", "f", "".join(arguments))
    assert error in chunk.error


def test_a_placeholder_is_not_yielded_if_the_arguments_follow() -> None:
    assert chunks_of_call("{}", '{"a"', ":1}") == [
        ToolCallStarted("c", "f"),
        ToolCallArgsDelta("c", '{"a"'),
        ToolCallArgsDelta("c", ":1}"),
        ToolCallFinished("c", "f", {"a": 1}),
    ]


def test_a_placeholder_that_nothing_follows_is_the_arguments() -> None:
    assert chunks_of_call("{}") == [
        ToolCallStarted("c", "f"),
        ToolCallArgsDelta("c", "{}"),
        ToolCallFinished("c", "f", {}),
    ]


def test_a_signature_is_in_the_last_chunk_of_its_call() -> None:
    order, call = TurnOrder(), ToolCall("c", "f")
    order.call(call)
    call.signature = "s"
    assert order.end() == [ToolCallFinished("c", "f", {}, "s")]


def test_a_call_without_a_name_is_malformed() -> None:
    order, call = TurnOrder(), ToolCall("c")
    call.add('{"a":1}')
    assert order.call(call) == []
    assert order.end() == [
        ToolCallStarted("c", ""),
        ToolCallArgsDelta("c", '{"a":1}'),
        ToolCallMalformed("c", "", '{"a":1}', "the call has no name"),
    ]


def test_a_call_waits_for_its_id_and_its_name() -> None:
    order, call = TurnOrder(), ToolCall()
    call.add("{")
    assert order.call(call) == []
    call.name = "f"
    assert order.release() == []
    call.provider_id = "c"
    assert order.release() == [ToolCallStarted("c", "f"), ToolCallArgsDelta("c", "{")]


def test_a_missing_id_is_made_up() -> None:
    order = TurnOrder()
    order.call(ToolCall("", "f"))
    started, _ = order.end()
    assert isinstance(started, ToolCallStarted)
    assert started.call_id.startswith("call_")
    assert len(started.call_id) == 29
    assert made_up_call_id() != made_up_call_id()


def test_an_id_that_was_used_before_is_replaced() -> None:
    order = TurnOrder()
    out = order.call(ToolCall("c", "f")) + order.call(ToolCall("c", "g")) + order.end()
    assert list(order_faults(out, ended=False)) == []
    first, _, second, finished = out
    assert first == ToolCallStarted("c", "f")
    assert isinstance(second, ToolCallStarted)
    assert second.call_id != "c"
    assert finished == ToolCallFinished(second.call_id, "g", {})


def test_repeated_arguments_are_recognized() -> None:
    arguments = Arguments()
    assert not arguments.is_repeated_by("")
    arguments.add('{"a":')
    assert not arguments.is_repeated_by('{"a":')
    arguments.add("1}")
    assert arguments.is_repeated_by('{"a":1}')
    assert not arguments.is_repeated_by('{"a":2}')


@pytest.mark.parametrize("text", ["", "{", "[1", "nul", "{}{}", "NaN"])
def test_parse_args_accepts_json_only(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  the words are Python's own
        parse_args(text)


# The order of a turn

REASONING, TEXT = ReasoningDelta("hm"), TextDelta("hi")


@pytest.mark.parametrize(
    ("arrive", "expected"),
    [
        (lambda order: order.text("hi") + order.text("hi"), [TEXT, TEXT]),
        (lambda order: order.reasoning("hm") + order.text("hi"), [REASONING, ReasoningFinished(), TEXT]),
        (lambda order: order.reasoning("hm") + order.end_reasoning("s"), [REASONING, ReasoningFinished("s")]),
        (lambda order: order.end_reasoning("s"), [ReasoningFinished("s")]),
        (
            lambda order: order.reasoning("hm") + order.text("hi") + order.end_reasoning("s"),
            [REASONING, ReasoningFinished(), TEXT, ReasoningFinished("s")],
        ),
        (
            lambda order: order.reasoning("hm") + order.block(RedactedReasoning("x")),
            [REASONING, ReasoningFinished(), RedactedReasoning("x")],
        ),
        (
            lambda order: order.reasoning("hm") + order.block(ProviderBlockFinished("p", {})),
            [REASONING, ReasoningFinished(), ProviderBlockFinished("p", {})],
        ),
        (
            lambda order: order.reasoning("hm") + order.call(ToolCall("c", "f")),
            [REASONING, ReasoningFinished(), ToolCallStarted("c", "f"), ToolCallFinished("c", "f", {})],
        ),
        (lambda order: order.reasoning("hm"), [REASONING, ReasoningFinished()]),
    ],
    ids=[
        "text", "reasoning then text", "signature", "signature alone", "late signature", "redacted", "provider block",
        "call", "end",
    ],
)  # fmt: skip
def test_reasoning_ends_before_anything_else(
    arrive: Callable[[TurnOrder], list[StreamChunk]], expected: list[StreamChunk]
) -> None:
    order = TurnOrder()
    assert arrive(order) + order.end() == expected


def test_the_pieces_of_the_only_open_call_are_yielded_at_once() -> None:
    order, call = TurnOrder(), ToolCall("c", "f")
    assert order.call(call) == [ToolCallStarted("c", "f")]
    for text in ("{", '"a"', ":1", "}"):
        call.add(text)
        assert order.release() == [ToolCallArgsDelta("c", text)]
    assert order.end() == [ToolCallFinished("c", "f", {"a": 1})]


def test_the_next_thing_ends_a_complete_call() -> None:
    order, call = TurnOrder(), ToolCall("c", "f")
    order.call(call)
    call.add('{"a":1}')
    order.release()
    assert not order.can_yield_text_directly
    assert order.text("hi") == [ToolCallFinished("c", "f", {"a": 1}), TEXT]
    assert order.can_yield_text_directly
    assert call.state is ENDED


def test_a_blank_piece_leaves_a_call_complete() -> None:
    order, call = TurnOrder(), ToolCall("c", "f")
    order.call(call)
    call.add('{"a":1}')
    call.add("\n")
    assert order.text("hi")[-2:] == [ToolCallFinished("c", "f", {"a": 1}), TEXT]


@pytest.mark.parametrize("arguments", ["", "{}", '{"a":'], ids=["blank", "opening", "half"])
def test_things_after_an_open_call_wait_for_its_end(arguments: str) -> None:
    order, call = TurnOrder(), ToolCall("c", "f")
    call.add(arguments)
    order.call(call)
    assert order.text("hi") == order.reasoning("hm") == order.block(RedactedReasoning("x")) == []
    assert order.end()[-4:] == [TEXT, REASONING, ReasoningFinished(), RedactedReasoning("x")]
    assert order.can_yield_text_directly


def test_waiting_chunks_are_released_when_the_call_is_complete() -> None:
    order, call = TurnOrder(), ToolCall("c", "f")
    order.call(call)
    order.text("hi")
    call.add("{}")
    call.add('{"a":1}')
    assert order.release() == [ToolCallArgsDelta("c", '{"a":1}'), ToolCallFinished("c", "f", {"a": 1}), TEXT]


TRICKY = r'{"a":"\"}{","b":{"c":"\\"},"d":["}"],"\u00e9\\\"":{}}'


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_a_call_is_complete_with_its_last_brace_and_not_before(size: int) -> None:
    call = ToolCall("c", "f")
    complete = []
    for start in range(0, len(TRICKY), size):
        call.add(TRICKY[start : start + size])
        complete.append(call.state is COMPLETE)
    assert complete == [False] * (len(complete) - 1) + [True]


def test_finished_calls_are_counted_and_malformed_calls_are_not() -> None:
    order = TurnOrder()
    for arguments in ("{}", "[", '{"a":1}'):
        call = ToolCall("", "f")
        call.add(arguments)
        order.call(call)
    order.end()
    assert order.calls_finished == 2


def test_text_can_be_yielded_directly_only_if_nothing_is_open() -> None:
    order = TurnOrder()
    assert order.can_yield_text_directly
    order.reasoning("hm")
    assert not order.can_yield_text_directly
    order.end_reasoning("s")
    assert order.can_yield_text_directly
    order.call(ToolCall("c", "f"))
    assert not order.can_yield_text_directly
    order.end()
    assert order.can_yield_text_directly


CALLS: list[tuple[list[str], dict[str, Any] | None]] = [
    (['{"a"', ":[1", ",2]", "}"], {"a": [1, 2]}),
    (["{}", '{"b":{}', "}"], {"b": {}}),
    (['{"c":"}"}'], {"c": "}"}),
    (["{}"], {}),
    ([], {}),
    (['{"d"', ":"], None),
    (["[", "]"], None),
]


@settings(deadline=None)
@given(
    st.lists(st.sampled_from(CALLS), min_size=2, max_size=3),
    st.lists(st.sampled_from(["id", "same id", "no id"]), min_size=3, max_size=3),
    st.lists(st.integers(0, 3)),
)
def test_any_interleaving_keeps_the_order_and_loses_nothing(
    picked: list[tuple[list[str], dict[str, Any] | None]], ids: list[str], picks: list[int]
) -> None:
    order, out = TurnOrder(), list[StreamChunk]()
    calls = [ToolCall({"id": f"c{n}", "same id": "c", "no id": ""}[kind], f"f{n}") for n, kind in enumerate(ids)]
    others: list[Callable[[str], list[StreamChunk]]] = [order.text, order.reasoning, order.end_reasoning, order.text]
    pieces: list[list[str | None]] = [[None, *pieces] for pieces, _ in picked]
    pieces.append(["one", "two", "signature", "three"])
    for which in interleaved([len(own) for own in pieces], picks):
        text = pieces[which].pop(0)
        if which == len(picked):
            assert text
            out += others[-1 - len(pieces[which])](text)
        elif text is None:
            out += order.call(calls[which])
        else:
            calls[which].add(text)
            out += order.release()
    out += order.end()

    assert list(order_faults(out, ended=False)) == []
    assert "".join(chunk.delta for chunk in out if isinstance(chunk, TextDelta)) == "onethree"
    assert [chunk.delta for chunk in out if isinstance(chunk, ReasoningDelta)] == ["two"]
    assert sum(chunk == ReasoningFinished("signature") for chunk in out) == 1
    ends = {chunk.name: chunk for chunk in out if isinstance(chunk, ToolCallFinished | ToolCallMalformed)}
    for n, (sent, args) in enumerate(picked):
        end = ends.pop(f"f{n}")
        if isinstance(end, ToolCallFinished):
            assert end.args == args
        else:
            assert (end.raw, args) == ("".join(sent), None)
    assert ends == {}


def test_halves_of_a_character_are_joined_in_reasoning_and_arguments() -> None:
    order = TurnOrder()
    assert order.reasoning("a\ud83d") == [ReasoningDelta("a")]
    assert order.reasoning("\ude00b") == [ReasoningDelta("\U0001f600b")]
    assert order.reasoning("c\ud83d") == [ReasoningDelta("c")]
    assert order.end_reasoning("s") == [ReasoningDelta("\ufffd"), ReasoningFinished("s")]
    call = ToolCall("x", "f")
    for piece in ('{"a":"\ud83d', '\ude00"', "}"):
        call.add(piece)
    assert list(call.last_chunks())[-1] == ToolCallFinished("x", "f", {"a": "\U0001f600"})


def test_reasoning_that_ends_in_half_a_character_is_ended() -> None:
    order = TurnOrder()
    order.reasoning("a\ud83d")
    assert order.end() == [ReasoningDelta("\ufffd"), ReasoningFinished()]
