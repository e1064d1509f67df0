"""How chunks are collected into a turn."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from completion import (
    FinishReason,
    Message,
    ProviderBlock,
    ProviderBlockFinished,
    ReasoningBlock,
    ReasoningDelta,
    ReasoningFinished,
    RedactedReasoning,
    RedactedReasoningBlock,
    StreamChunk,
    TextBlock,
    TextDelta,
    ToolCallArgsDelta,
    ToolCallBlock,
    ToolCallFinished,
    ToolCallMalformed,
    ToolCallStarted,
    TransportError,
    TruncatedStreamError,
    Turn,
    TurnFinished,
    Usage,
    collect,
)
from completion.contract.messages import Block

END = TurnFinished(FinishReason.END_TURN)
MALFORMED = ToolCallMalformed("c2", "g", "[1]", "not an object")


@pytest.mark.parametrize(
    ("chunks", "blocks"),
    [
        ([], []),
        ([TextDelta("a"), TextDelta("b")], [TextBlock("ab")]),
        (
            [ReasoningDelta("a"), ReasoningDelta("b"), ReasoningFinished("sig"), TextDelta("c")],
            [ReasoningBlock("ab", "sig"), TextBlock("c")],
        ),
        ([ReasoningFinished("sig")], [ReasoningBlock("", "sig")]),
        (
            [ReasoningDelta("a"), ReasoningFinished(), ReasoningDelta("b"), ReasoningFinished()],
            [ReasoningBlock("a"), ReasoningBlock("b")],
        ),
        (
            [TextDelta("a"), RedactedReasoning("x"), TextDelta("b")],
            [TextBlock("a"), RedactedReasoningBlock("x"), TextBlock("b")],
        ),
        (
            [
                TextDelta("a"),
                ToolCallStarted("c1", "f"),
                ToolCallArgsDelta("c1", '{"x": 1}'),
                ToolCallFinished("c1", "f", {"x": 1}, "sig"),
                TextDelta("b"),
            ],
            [TextBlock("a"), ToolCallBlock("c1", "f", {"x": 1}, "sig"), TextBlock("b")],
        ),
        (
            [TextDelta("a"), ProviderBlockFinished("acme", {"k": 1})],
            [TextBlock("a"), ProviderBlock("acme", {"k": 1})],
        ),
        ([ToolCallStarted("c2", "g"), MALFORMED], []),
    ],
)
def test_the_blocks_of_the_message_are_in_the_order_of_the_chunks(
    chunks: list[StreamChunk], blocks: list[Block]
) -> None:
    assert collect([*chunks, END]).message == Message("assistant", blocks)


def test_a_turn_has_the_fields_of_turn_finished() -> None:
    usage = Usage(3, 4)
    end = TurnFinished(FinishReason.STOP_SEQUENCE, usage, "flex", "stop", "END", "r1", "m1")
    assert collect([TextDelta("a"), end]) == Turn(
        Message.assistant("a"), FinishReason.STOP_SEQUENCE, usage, "flex", "stop", "END", "r1", "m1"
    )


def test_a_turn_has_text_reasoning_and_tool_calls() -> None:
    call = ToolCallFinished("c1", "f", {})
    chunks = [ReasoningDelta("x"), ReasoningFinished(), TextDelta("a"), call, TextDelta("b"), END]
    turn = collect(chunks)
    assert (turn.reasoning, turn.text, turn.tool_calls) == ("x", "ab", (ToolCallBlock("c1", "f", {}),))


def test_the_string_of_a_turn_is_its_text() -> None:
    assert str(collect([TextDelta("a"), TextDelta("b"), END])) == "ab"


def test_a_malformed_call_is_not_in_the_message() -> None:
    turn = collect([MALFORMED, END])
    assert turn.malformed_calls == (MALFORMED,)
    assert turn.tool_calls == ()


def test_chunks_without_turn_finished_are_truncated() -> None:
    with pytest.raises(TruncatedStreamError, match="the chunks ended without a TurnFinished") as caught:
        collect([TextDelta("a")])
    assert caught.value.partial == Turn(Message.assistant("a"))


def test_an_error_carries_the_turn_so_far() -> None:
    def broken_chunks() -> Iterator[StreamChunk]:
        yield TextDelta("a")
        yield MALFORMED
        yield ReasoningDelta("b")
        raise TransportError("gone")

    with pytest.raises(TransportError) as caught:
        collect(broken_chunks())
    blocks = [TextBlock("a"), ReasoningBlock("b")]
    assert caught.value.partial == Turn(Message.assistant(blocks), malformed_calls=(MALFORMED,))


def test_usages_can_be_added() -> None:
    assert Usage(1, 2, 3, 4, 5, 6, 7) + Usage(10, 20, 30, 40, 50, 60, 70) == Usage(11, 22, 33, 44, 55, 66, 77)
    assert sum([Usage(1), Usage(2)], Usage()) == Usage(3)


def test_only_usage_can_be_added_to_usage() -> None:
    with pytest.raises(TypeError):
        Usage(1) + 1  # type: ignore[operator]


@pytest.mark.parametrize("word", ["end_turn", "tool_use", "max_tokens", "stop_sequence", "content_filter", "refusal"])
def test_a_finish_reason_equals_its_string(word: str) -> None:
    reason = FinishReason(word)
    assert reason == word
    assert f"{reason}" == str(reason) == word


def test_chunks_can_be_matched() -> None:
    def shown(chunk: StreamChunk) -> str:
        match chunk:
            case TextDelta(delta=text) | ReasoningDelta(delta=text):
                return text
            case TurnFinished(reason, usage):
                return f"{reason} {usage}"
        return chunk.type

    assert [shown(chunk) for chunk in (TextDelta("a"), END, ToolCallStarted("c", "f"))] == [
        "a",
        "end_turn None",
        "tool_call_started",
    ]
