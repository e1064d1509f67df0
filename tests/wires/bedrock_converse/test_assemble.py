"""From the frames of Bedrock Converse to chunks, and from the turn to the next request."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from completion import (
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
    ReasoningDelta,
    ReasoningFinished,
    RedactedReasoning,
    ServerError,
    StreamChunk,
    TextDelta,
    ToolCallArgsDelta,
    ToolCallFinished,
    ToolCallMalformed,
    ToolCallStarted,
    TransportError,
    TruncatedStreamError,
    Turn,
    Usage,
    collect,
)
from completion.events.aws_eventstream import aws_events
from completion.wires.bedrock_converse import CONVERSE
from completion.wires.bedrock_converse.dialect import ConverseDialect
from tests import aws
from tests.aws import STARTED, USAGE, delta, ended, frame, stop
from tests.wire_pieces import anything, chunks_of, ignore_end, lines_run, objects_with, order_faults, until_error

CLAUDE = "anthropic.claude-sonnet-4-5"


def read(*frames: bytes, split: int | None = None) -> tuple[list[StreamChunk], CompletionError | None]:
    return until_error(CONVERSE.chunks(aws_events(chunks_of(b"".join(frames), split)), ignore_end))


def chunks(*frames: bytes, split: int | None = None) -> list[StreamChunk]:
    found, error = read(*frames, split=split)
    assert error is None
    assert list(order_faults(found)) == []
    return found


def turn(*frames: bytes) -> Turn:
    return collect(chunks(*frames))


def start(index: int, **fields: Any) -> bytes:
    return frame("contentBlockStart", {"contentBlockIndex": index, "start": fields, "p": "ab"})


def call(index: int, *pieces: str, call_id: str = "c", name: str = "f") -> bytes:
    deltas = b"".join(delta(index, toolUse={"input": piece}) for piece in pieces)
    return start(index, toolUse={"toolUseId": call_id, "name": name}) + deltas + stop(index)


def thought(index: int, **fields: Any) -> bytes:
    return delta(index, reasoningContent=fields)


def own(**data: Any) -> ProviderBlockFinished:
    return ProviderBlockFinished("bedrock", data)


CITATION = {"title": "A", "sourceContent": [{"text": "4"}], "location": {"documentPage": {"documentIndex": 0}}}
SEARCH = {"toolUseId": "s", "name": "nova_grounding", "type": "server_tool_use"}
FOUND = {"toolUseId": "s", "type": "nova_grounding_result", "status": "success"}
HI = TextDelta("hi")

ANSWERS: dict[str, tuple[list[bytes], Sequence[StreamChunk]]] = {
    "text": ([delta(0, text="h"), delta(0, text="i"), stop(0)], [TextDelta("h"), TextDelta("i")]),
    "empty text": ([delta(0, text=""), delta(0, text="hi"), stop(0)], [HI]),
    "text beyond ASCII": ([delta(0, text="grün 🙂"), stop(0)], [TextDelta("grün 🙂")]),
    "half of a pair": ([delta(0, text="\ud83d"), delta(0, text="\ude42"), stop(0)], [TextDelta("🙂")]),
    "text without a stop": ([delta(0, text="h"), delta(1, text="i")], [TextDelta("h"), TextDelta("i")]),
    "an empty start": ([start(0), delta(0, text="hi"), stop(0)], [HI]),
    "signed reasoning": (
        [thought(0, text="h"), thought(0, text="m"), thought(0, signature="S"), stop(0), delta(1, text="hi")],
        [ReasoningDelta("h"), ReasoningDelta("m"), ReasoningFinished("S", "bedrock"), HI],
    ),
    "unsigned reasoning": (
        [thought(0, text="hm"), thought(0, text=""), stop(0), delta(1, text="hi")],
        [ReasoningDelta("hm"), ReasoningFinished(), HI],
    ),
    "a signature alone": ([thought(0, signature="S"), stop(0)], [ReasoningFinished("S", "bedrock")]),
    "reasoning without a stop": (
        [thought(0, text="hm"), delta(1, text="hi")],
        [ReasoningDelta("hm"), ReasoningFinished(), HI],
    ),
    "redacted reasoning": (
        [thought(0, redactedContent="RU5D"), stop(0), delta(1, text="hi")],
        [RedactedReasoning("RU5D", "bedrock"), HI],
    ),
    "a tool of Amazon": (
        [start(0, toolUse=SEARCH), delta(0, toolUse={"input": '{"q":'}), delta(0, toolUse={"input": "1}"}), stop(0),
         start(1, toolResult=FOUND), delta(1, toolResult=[{"text": "a"}]), delta(1, toolResult=[{"json": {}}]),
         stop(1)],
        [own(toolUse={**SEARCH, "input": {"q": 1}}),
         own(toolResult={**FOUND, "content": [{"text": "a"}, {"json": {}}]})],
    ),
    "an image": (
        [start(0, image={"format": "png"}), delta(0, image={"source": {"bytes": "iVBO"}}), stop(0)],
        [own(image={"format": "png", "source": {"bytes": "iVBO"}})],
    ),
    "citations": (
        [delta(0, text="So "), stop(0), delta(1, text="4"), delta(1, citation=CITATION), stop(1), delta(2, text=".")],
        [TextDelta("So "), TextDelta("4"), own(type="citations", citations=[CITATION], length=1), TextDelta(".")],
    ),
    "events and deltas of unknown kinds": (
        [frame("newEvent", {}), delta(0, newKind=1), frame("contentBlockDelta", {"delta": None}), delta(0, text="hi"),
         frame("contentBlockStart", {}), frame("contentBlockStop", {}), frame("metadata", {"usage": None})],
        [HI],
    ),
}  # fmt: skip


@pytest.mark.parametrize("split", [None, 7, 1])
@pytest.mark.parametrize(("sent", "expected"), ANSWERS.values(), ids=list(ANSWERS))
def test_each_kind_of_event_becomes_chunks(
    sent: list[bytes], expected: Sequence[StreamChunk], split: int | None
) -> None:
    assert chunks(STARTED, *sent, ended(), USAGE, split=split)[:-1] == list(expected)


CALLS: dict[str, tuple[bytes, list[StreamChunk]]] = {
    "in pieces": (
        call(0, "", '{"a"', ":1}"),
        [
            ToolCallStarted("c", "f"),
            ToolCallArgsDelta("c", '{"a"'),
            ToolCallArgsDelta("c", ":1}"),
            ToolCallFinished("c", "f", {"a": 1}),
        ],
    ),
    "without arguments": (call(0), [ToolCallStarted("c", "f"), ToolCallFinished("c", "f", {})]),
    "cut off": (
        call(0, '{"a'),
        [
            ToolCallStarted("c", "f"),
            ToolCallArgsDelta("c", '{"a'),
            ToolCallMalformed("c", "f", '{"a', ""),
        ],
    ),
}


@pytest.mark.parametrize(("sent", "expected"), CALLS.values(), ids=list(CALLS))
def test_calls(sent: bytes, expected: list[StreamChunk]) -> None:
    found = chunks(STARTED, sent, ended("tool_use"))[:-1]
    for one, wanted in zip(found, expected, strict=True):
        assert type(one) is type(wanted)
        assert isinstance(one, ToolCallMalformed) or one == wanted


def test_calls_at_the_same_time_come_one_after_the_other() -> None:
    opened = b"".join(start(n, toolUse={"toolUseId": f"c{n}", "name": "f"}) for n in (1, 2))
    pieces = b"".join(delta(n, toolUse={"input": text}) for text in ('{"a":', "1}") for n in (2, 1))
    found = turn(delta(0, text="hi"), opened, pieces, stop(2), stop(1), ended("tool_use"))
    assert [(one.call_id, one.args) for one in found.tool_calls] == [("c1", {"a": 1}), ("c2", {"a": 1})]


def test_arguments_after_the_end_of_their_call_are_malformed() -> None:
    _, error = read(call(0, "{}"), delta(0, toolUse={"input": "1"}), ended())
    assert type(error) is MalformedStreamError


REASONS = {
    "end_turn": FinishReason.END_TURN,
    "max_tokens": FinishReason.MAX_TOKENS,
    "stop_sequence": FinishReason.STOP_SEQUENCE,
    "guardrail_intervened": FinishReason.CONTENT_FILTER,
    "content_filtered": FinishReason.CONTENT_FILTER,
    "model_context_window_exceeded": FinishReason.CONTEXT_OVERFLOW,
    "malformed_model_output": FinishReason.OTHER,
    "malformed_tool_use": FinishReason.OTHER,
    "refusal": FinishReason.REFUSAL,
    "a new word": FinishReason.OTHER,
}


@pytest.mark.parametrize(("word", "reason"), REASONS.items())
def test_the_stop_reason_is_translated(word: str, reason: FinishReason) -> None:
    last: Any = chunks(delta(0, text="hi"), ended(word))[-1]
    assert (last.reason, last.provider_reason) == (reason, word)


def test_a_malformed_call_is_not_a_call() -> None:
    assert turn(call(0, "{}"), ended("malformed_tool_use")).reason is FinishReason.OTHER


@pytest.mark.parametrize("fields", [{"delta": {"stop_sequence": "END"}}, {"stop_sequence": "END"}])
def test_the_stop_sequence_is_in_the_models_own_fields(fields: dict[str, Any]) -> None:
    found = chunks(delta(0, text="hi"), ended("stop_sequence", additionalModelResponseFields=fields))
    last: Any = found[-1]
    assert last.stop_sequence == "END"
    assert found[-2] == own(type="message", additionalModelResponseFields=fields)


TOKENS = {
    "inputTokens": 3, "outputTokens": 5, "totalTokens": 17, "cacheReadInputTokens": 2, "cacheWriteInputTokens": 7,
    "cacheDetails": [{"ttl": "5m", "inputTokens": 3}, {"ttl": "1h", "inputTokens": 4}, {"ttl": "9d", "inputTokens": 1}],
}  # fmt: skip
METADATA = frame("metadata", {"usage": TOKENS, "metrics": {"latencyMs": 1}, "serviceTier": {"type": "flex"}})


@pytest.mark.parametrize("end", [METADATA + ended(), ended() + METADATA], ids=["before", "after"])
def test_the_usage_comes_before_or_after_the_stop(end: bytes) -> None:
    found = turn(delta(0, text="hi"), end)
    assert found.service_tier == "flex"
    assert found.usage == Usage(
        input_tokens=12, output_tokens=5, cached_input_tokens=2, cache_creation_input_tokens=7,
        cache_creation_5m_tokens=3, cache_creation_1h_tokens=4,
    )  # fmt: skip


def test_the_trace_of_a_guardrail_is_kept() -> None:
    trace = {"guardrail": {"actionReason": "Blocked"}, "promptRouter": {"invokedModelId": "amazon.nova-pro-v1:0"}}
    found = turn(delta(0, text="No."), ended("guardrail_intervened"), frame("metadata", {"trace": trace}))
    assert own(type="message", trace=trace).data in [getattr(one, "data", None) for one in found.message.blocks]
    assert (found.usage, found.response_model) == (None, "amazon.nova-pro-v1:0")


ERRORS: list[tuple[str, dict[str, Any], type[CompletionError], int | None]] = [
    ("throttlingException", {"message": "Too many requests"}, RateLimitError, None),
    ("serviceUnavailableException", {"message": "Busy"}, OverloadedError, None),
    ("internalServerException", {"message": "Oops"}, ServerError, None),
    ("validationException", {"message": "Bad"}, InvalidRequestError, None),
    ("validationException", {"message": "Input is too long for requested model."}, ContextOverflowError, None),
    ("modelStreamErrorException", {"message": "Oops"}, ServerError, None),
    ("modelStreamErrorException", {"message": "Oops", "originalStatusCode": 503}, OverloadedError, 503),
    ("modelTimeoutException", {"message": "Slow"}, ServerError, None),
]


@pytest.mark.parametrize("kind", ["exception", "event"])
@pytest.mark.parametrize(("name", "data", "expected", "status"), ERRORS)
def test_an_exception_inside_the_stream_is_raised(
    name: str, data: dict[str, Any], expected: type[CompletionError], status: int | None, kind: str
) -> None:
    found, error = read(delta(0, text="hi"), frame(name, data, kind))
    assert found == [HI]
    assert type(error) is expected
    assert (error.status, error.code) == (status, name)
    assert data["message"].rstrip(".") in str(error)


def test_a_late_exception_is_raised() -> None:
    _, error = read(delta(0, text="hi"), ended(), frame("throttlingException", {}, "exception"))
    assert type(error) is RateLimitError


@pytest.mark.parametrize("sent", [[], [STARTED], [delta(0, text="hi"), stop(0), USAGE]])
def test_a_body_without_messageStop_is_truncated(sent: list[bytes]) -> None:
    _, error = read(*sent)
    assert type(error) is TruncatedStreamError


def test_a_frame_that_is_cut_is_truncated_but_not_after_the_end_of_the_turn() -> None:
    assert type(read(delta(0, text="hi"), ended()[:-1])[1]) is TruncatedStreamError
    assert turn(delta(0, text="hi"), ended(), USAGE[:-1]).text == "hi"


def test_events_of_another_api_are_named() -> None:
    _, error = read(frame("chunk", {"bytes": "e30="}))
    assert type(error) is MalformedStreamError
    assert "base_url" in str(error)


@pytest.mark.parametrize("late", [delta(0, text="x"), delta(0, toolUse={"input": "x"}), STARTED, call(1)])
def test_an_answer_that_goes_on_after_its_end_is_malformed(late: bytes) -> None:
    _, error = read(delta(0, text="hi"), ended(), late)
    assert type(error) is MalformedStreamError


def test_a_connection_that_breaks_after_the_end_is_ignored() -> None:
    def broken() -> Iterator[bytes]:
        yield delta(0, text="hi") + ended()
        raise TransportError("gone")

    assert collect(CONVERSE.chunks(aws_events(broken()), ignore_end)).text == "hi"


def test_a_piece_of_text_costs_few_lines() -> None:
    def lines(count: int) -> int:
        body = delta(0, text="hi") * count + ended()
        return lines_run(lambda: list(CONVERSE.chunks(aws_events([body]), ignore_end)))

    assert (lines(300) - lines(100)) / 200 < 60


def test_a_turn_goes_back_as_it_came() -> None:
    sent = [
        thought(0, text="hm"), thought(0, signature="S"), stop(0), thought(1, redactedContent="RU5D"), stop(1),
        delta(2, text="So "), stop(2), delta(3, text="4"), delta(3, citation=CITATION), stop(3), call(4, '{"a":1}'),
    ]  # fmt: skip
    answer = turn(STARTED, *sent, ended("tool_use"), USAGE)
    history = [Message.user("q"), answer.message, Message.tool_result("c", "1")]
    body, _ = CONVERSE.body(ChatRequest(history), CLAUDE, ConverseDialect())
    assert body["messages"][1]["content"] == [
        {"reasoningContent": {"reasoningText": {"text": "hm", "signature": "S"}}},
        {"reasoningContent": {"redactedContent": "RU5D"}},
        {"text": "So "},
        {"citationsContent": {"content": [{"text": "4"}], "citations": [CITATION]}},
        {"toolUse": {"toolUseId": "c", "name": "f", "input": {"a": 1}}},
    ]


# Hypothesis

INDEXES = st.integers(0, 2)
PIECES = st.one_of(
    st.builds(lambda index, text: delta(index, text=text), INDEXES, st.sampled_from(["", "a", "\ud83d", "ü"])),
    st.builds(lambda index, text: thought(index, text=text), INDEXES, st.sampled_from(["", "a", "\ude42"])),
    st.builds(lambda index: thought(index, signature="S"), INDEXES),
    st.builds(lambda index: thought(index, redactedContent="RU5D"), INDEXES),
    st.builds(lambda index, i: start(index, toolUse={"toolUseId": i, "name": "f"}), INDEXES, st.sampled_from("cd")),
    st.builds(lambda index, text: delta(index, toolUse={"input": text}), INDEXES, st.sampled_from(["{", "}", ""])),
    st.builds(stop, INDEXES),
    st.builds(lambda index: delta(index, citation=CITATION), INDEXES),
    st.builds(lambda index: start(index, toolUse=SEARCH), INDEXES),
)


@given(st.lists(PIECES, max_size=9))
def test_any_order_of_events_keeps_the_order_of_chunks_and_goes_back(sent: list[bytes]) -> None:
    found, error = read(*sent, ended())
    assert list(order_faults(found, ended=error is None)) == []
    if error is None:
        history = [Message.user("q"), collect(found).message, Message.user("r")]
        body, _ = CONVERSE.body(ChatRequest(history), CLAUDE, ConverseDialect())
        assert body["messages"][-1]["content"][-1] == {"text": "r"}


ANY = anything(["text", "delta", "toolUse", "input", "reasoningContent", "start"], st.sampled_from(["", "a"]))
EVENT = st.tuples(
    st.sampled_from(["contentBlockStart", "contentBlockDelta", "contentBlockStop", "messageStop", "metadata", "x"]),
    objects_with(
        ANY,
        contentBlockIndex=INDEXES,
        delta=objects_with(ANY, text=st.just("a"), toolUse=objects_with(ANY, input=st.just("{}"))),
        start=objects_with(ANY, toolUse=objects_with(ANY, toolUseId=st.just("c"), name=st.just("f"))),
        usage=objects_with(ANY, inputTokens=st.integers(-1, 9), cacheDetails=st.just([{"ttl": []}, {"ttl": "5m"}])),
    ),
)


@given(st.lists(EVENT, max_size=5))
def test_events_of_any_shape_never_break_the_order(sent: list[tuple[str, dict[str, Any]]]) -> None:
    found, _ = read(*(aws.frame(name, data) for name, data in sent))
    assert list(order_faults(found, ended=False)) == []
