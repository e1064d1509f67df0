"""OpenAIModel against a real server: an answer is the same in any framing, and a truncated one is an error."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal

import pytest

from completion import (
    ChatRequest,
    CompletionError,
    FinishReason,
    MalformedStreamError,
    Message,
    OpenAIModel,
    OverloadedError,
    ProviderBlockFinished,
    RateLimitError,
    ReasoningDelta,
    ReasoningFinished,
    ServerError,
    StreamChunk,
    TextDelta,
    ToolCallArgsDelta,
    ToolCallFinished,
    ToolCallStarted,
    ToolResultBlock,
    TransportError,
    TruncatedStreamError,
    Turn,
    TurnFinished,
    Usage,
    collect,
)
from completion.testing import Cut, ProviderServer, Reply, WaitFor, event
from tests.loopback import DONE
from tests.wire_pieces import body, calls, cuts_of, delta, order_faults, piece, read_to_the_end


@pytest.fixture(scope="module")
def server() -> Iterator[ProviderServer]:
    with ProviderServer() as server:
        yield server


@pytest.fixture(scope="module")
def model(server: ProviderServer) -> OpenAIModel:
    return OpenAIModel("m-1", api_key="sk-test", base_url=server.url + "/v1")


def read(model: OpenAIModel) -> tuple[list[StreamChunk], CompletionError | None]:
    """The chunks of a stream, and the error that ended it."""
    return read_to_the_end(model.chat_stream, ChatRequest("hi"))


def end(reason: FinishReason, word: str | None, usage: Usage | None = None) -> TurnFinished:
    return TurnFinished(reason, usage, None, word, None, "chatcmpl-1", "m-1")


GIVEN = {"prompt_tokens": 9, "completion_tokens": 2}
USAGE: dict[str, Any] = {"id": "chatcmpl-1", "choices": [], "usage": GIVEN}
TEXT = body(delta(role="assistant", content=""), delta(content="grün "), delta(content="日本 🎉"), delta("stop"), USAGE)
TEXT_CHUNKS = [TextDelta("grün "), TextDelta("日本 🎉"), end(FinishReason.END_TURN, "stop", Usage(9, 2))]
TOOLS = body(
    delta(reasoning="hm"),
    delta(content="a"),
    calls(piece(0, "", id="c1", name="f")),
    calls(piece(0, '{"a"')),
    calls(piece(0, ":1}")),
    calls(piece(1, "{}", id="c2", name="g")),
    delta("tool_calls"),
    USAGE,
)
TOOLS_CHUNKS = [
    ReasoningDelta("hm"),
    ReasoningFinished(),
    TextDelta("a"),
    ToolCallStarted("c1", "f"),
    ToolCallArgsDelta("c1", '{"a"'),
    ToolCallArgsDelta("c1", ":1}"),
    ToolCallFinished("c1", "f", {"a": 1}),
    ToolCallStarted("c2", "g"),
    ToolCallArgsDelta("c2", "{}"),
    ToolCallFinished("c2", "g", {}),
    end(FinishReason.TOOL_USE, "tool_calls", Usage(9, 2)),
]
CITATION = {"type": "url_citation", "url_citation": {"url": "https://x"}}

CASES: dict[str, tuple[bytes, list[StreamChunk], type[CompletionError] | None]] = {
    "text": (TEXT, TEXT_CHUNKS, None),
    "text with CRLF": (TEXT.replace(b"\n", b"\r\n"), TEXT_CHUNKS, None),
    "text with CR": (TEXT.replace(b"\n", b"\r"), TEXT_CHUNKS, None),
    "text behind a byte order mark": (b"\xef\xbb\xbf" + TEXT, TEXT_CHUNKS, None),
    "text among comments": (b": PROCESSING\n\n" + TEXT.replace(b"\n\n", b"\n\n: PROCESSING\n"), TEXT_CHUNKS, None),
    "tools": (TOOLS, TOOLS_CHUNKS, None),
    "a refusal": (
        body(delta(refusal="no"), delta("stop")),
        [TextDelta("no"), end(FinishReason.REFUSAL, "stop")],
        None,
    ),
    "annotations": (
        body(delta(content="a", annotations=[CITATION]), delta("stop")),
        [TextDelta("a"), ProviderBlockFinished("openai-chat", CITATION), end(FinishReason.END_TURN, "stop")],
        None,
    ),
    "no DONE": (
        body(delta(content="a"), delta("length"), done=False),
        [TextDelta("a"), end(FinishReason.MAX_TOKENS, "length")],
        None,
    ),
    "no finish_reason": (body(delta(content="a")), [TextDelta("a"), end(FinishReason.OTHER, None)], None),
    "DONE without a line end": (TEXT[:-2], TEXT_CHUNKS, None),
    "data after DONE": (TEXT + event(delta(content="no")) + b"data: {no\n\n", TEXT_CHUNKS, None),
    "neither": (body(delta(content="a"), done=False), [TextDelta("a")], TruncatedStreamError),
    "nothing": (b"", [], TruncatedStreamError),
    "comments only": (b": ping\n\n" * 3, [], TruncatedStreamError),
    "half an event": (body(delta(content="a"), done=False) + b'data: {"ch', [TextDelta("a")], TruncatedStreamError),
    "bad JSON": (body(delta(content="a"), done=False) + b"data: {\n\n" + TEXT, [TextDelta("a")], MalformedStreamError),
    "HTML": (b"<html>\n\n</html>", [], MalformedStreamError),
    "a JSON error": (b'{"error": {"message": "busy", "code": 429}}', [], RateLimitError),
    "an error event": (
        body(delta(content="a"), done=False) + event({"error": {"message": "x", "type": "server_error"}}, "error"),
        [TextDelta("a")],
        ServerError,
    ),
    "an error first": (body({"error": {"message": "x", "code": 503}}), [], OverloadedError),
    "a late error": (
        body(delta(content="a"), delta("stop"), {"error": {"message": "x", "code": 503}}),
        [TextDelta("a")],
        OverloadedError,
    ),
    "two messages": (
        body(delta(content="a"), delta("stop"), {**delta(content="b"), "id": "chatcmpl-2"}, done=False) + TEXT,
        [TextDelta("a")],
        MalformedStreamError,
    ),
}


@pytest.mark.parametrize("framing", ["chunked", "length", "close"])
@pytest.mark.parametrize("split", ["whole", 7, 1], ids=["whole", "sevens", "byte by byte"])
@pytest.mark.parametrize("case", CASES)
def test_an_answer_is_the_same_however_it_arrives(
    server: ProviderServer,
    model: OpenAIModel,
    case: str,
    split: Literal["whole"] | int,
    framing: Literal["chunked", "length", "close"],
) -> None:
    sent, expected, kind = CASES[case]
    server.reply(Reply(sent, split=split, framing=framing))
    found, error = read(model)
    assert found == expected
    assert type(error) is (kind or type(None))
    if error is not None:
        assert (error.provider, error.model) == ("openai", "m-1")


def shortened(turn: Turn) -> Turn:
    """The turn if the connection breaks between its end and the usage."""
    return replace(turn, usage=None)


CUT = {
    "text": (TEXT, TEXT_CHUNKS),
    "text with CRLF": (TEXT.replace(b"\n", b"\r\n"), TEXT_CHUNKS),
    "tools": (TOOLS, TOOLS_CHUNKS),
    "no DONE": CASES["no DONE"][:2],
    "no finish_reason": CASES["no finish_reason"][:2],
}


@pytest.mark.parametrize(
    ("framing", "kind"),
    [("chunked", TransportError), ("length", TransportError), ("close", TruncatedStreamError)],
)
@pytest.mark.parametrize("case", CUT)
def test_an_answer_that_is_cut_at_any_byte_is_complete_or_an_error(
    server: ProviderServer,
    model: OpenAIModel,
    case: str,
    framing: Literal["chunked", "length", "close"],
    kind: type[CompletionError],
) -> None:
    sent, expected = CUT[case]
    whole = collect(expected)
    offsets = cuts_of(sent)
    outcomes = []
    for offset in offsets:
        server.reply(Reply(sent[:offset], Cut(), framing=framing))
        found, error = read(model)
        assert list(order_faults(found, ended=error is None)) == []
        if error is None:
            assert collect(found) in (whole, shortened(whole)), offset
        else:
            assert type(error) is kind, offset
            assert found == expected[: len(found)], offset
        outcomes.append(error is None)
    # A cut before the last byte of the end of turn is an error. After this byte the turn is complete.
    first = next((offset for offset, is_whole in zip(offsets, outcomes, strict=True) if is_whole), len(sent))
    assert outcomes == [offset >= first for offset in offsets]
    assert first > sent.rindex(b"finish_reason" if b'"finish_reason":"' in sent else b"[DONE]")


def test_a_chunk_is_yielded_before_the_next_event_is_sent(server: ProviderServer, model: OpenAIModel) -> None:
    seen = threading.Event()
    server.reply(Reply(event(delta(content="a")), WaitFor(seen), event(delta("stop")), DONE))
    with model.chat_stream(ChatRequest("hi")) as stream:
        assert next(stream) == TextDelta("a")
        seen.set()
        end = next(stream)
        assert isinstance(end, TurnFinished)
        assert end.reason is FinishReason.END_TURN


def test_the_lowered_request_is_posted(server: ProviderServer, model: OpenAIModel) -> None:
    server.reply(Reply(TEXT))
    with model.chat_stream(ChatRequest("hi", max_tokens=5, top_k=3)) as stream:
        assert stream.response.dropped == ()
        stream.collect()
    request = server.requests[-1]
    assert (request.method, request.path) == ("POST", "/v1/chat/completions")
    assert request.header("authorization") == "Bearer sk-test"
    assert request.json() == {
        "model": "m-1",
        "messages": [{"role": "user", "content": "hi"}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 5,
        "top_k": 3,
    }


def test_openai_itself_gets_max_completion_tokens(server: ProviderServer) -> None:
    server.reply(Reply(TEXT))
    model = OpenAIModel("m-1", api_key="sk-test", base_url=server.url, compatible=False)
    with model.chat_stream(ChatRequest("hi", max_tokens=5, top_k=3)) as stream:
        assert stream.response.dropped == ("top_k",)
        stream.collect()
    sent = server.requests[-1].json()
    assert (sent.get("max_completion_tokens"), "max_tokens" in sent, "top_k" in sent) == (5, False, False)


def test_a_turn_is_sent_back_as_history(server: ProviderServer, model: OpenAIModel) -> None:
    server.reply(Reply(TOOLS), Reply(TEXT))
    first = model.chat_stream(ChatRequest("hi")).collect()
    results = [ToolResultBlock(call.call_id, "1") for call in first.tool_calls]
    model.chat_stream(ChatRequest([first.message, Message.user(results)])).collect()
    assert server.requests[-1].json()["messages"] == [
        {
            "role": "assistant",
            "content": "a",
            "reasoning": "hm",
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}},
                {"id": "c2", "type": "function", "function": {"name": "g", "arguments": "{}"}},
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "1"},
        {"role": "tool", "tool_call_id": "c2", "content": "1"},
    ]


def test_after_an_answer_the_connection_is_used_again() -> None:
    with ProviderServer() as server:
        model = OpenAIModel("m-1", api_key="sk-test", base_url=server.url)
        server.reply(Reply(TEXT), Reply(TOOLS), Reply(TEXT, framing="length"))
        assert [read(model)[1] for _ in range(3)] == [None] * 3
        assert server.connections == 1


def test_the_size_limit_of_an_event_is_an_option_of_the_client(server: ProviderServer) -> None:
    server.reply(Reply(body(delta(content="x" * 2000), delta("stop"))))
    model = OpenAIModel("m-1", api_key="sk-test", base_url=server.url, max_event_bytes=1000)
    found, error = read(model)
    assert found == []
    assert isinstance(error, MalformedStreamError)
    assert error.message == "an event is larger than max_event_bytes=1000"
