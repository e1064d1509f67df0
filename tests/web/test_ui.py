"""The UI message stream: chunks to events, and the messages that a front end posts to a history."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from completion import (
    AudioBlock,
    Base64Source,
    Block,
    ChatRequest,
    Citation,
    Conversation,
    DocumentBlock,
    FinishReason,
    ImageBlock,
    Message,
    ProviderBlock,
    ProviderBlockFinished,
    ReasoningBlock,
    ReasoningDelta,
    ReasoningFinished,
    RedactedReasoning,
    RedactedReasoningBlock,
    RunStarted,
    StreamChunk,
    TextBlock,
    TextDelta,
    Tool,
    ToolCallArgsDelta,
    ToolCallBlock,
    ToolCallFinished,
    ToolCallMalformed,
    ToolCallStarted,
    ToolDefinition,
    ToolResultBlock,
    TurnFinished,
    UrlSource,
    Usage,
    collect,
    run_chat,
    tool,
    web,
)
from completion.testing import ScriptedModel
from completion.web.protocols import ErrorInfo
from completion.web.ui import FINISH_REASONS, UiMessages
from completion.web.ui_request import read_ui_messages
from tests.wire_pieces import anthropic_body, openai_body

DONE = b"data: [DONE]\n\n"
BUSY = ErrorInfo("OverloadedError", "the provider is busy", None)
CANCELLED = ErrorInfo("StreamCancelledError", "the stream was cancelled", None)


def parsed(body: bytes) -> list[dict[str, Any]]:
    """The JSON of each event. Checks that each event is one ``data:`` line."""
    *events, rest = body.split(b"\n\n")
    assert rest == b""
    assert all(event.startswith(b"data: ") and b"\n" not in event and b"\r" not in event for event in events)
    return [json.loads(event[6:]) for event in events]


def events_of(*chunks: StreamChunk) -> list[dict[str, Any]]:
    """The events of these chunks."""
    ui = UiMessages()
    return parsed(b"".join(map(ui.chunk, chunks)))


def complete(chunks: Iterable[StreamChunk]) -> list[dict[str, Any]]:
    """The events of a complete stream, from its start to its end."""
    ui = UiMessages()
    body = ui.begin() + b"".join(map(ui.chunk, chunks)) + ui.end()
    assert body.endswith(DONE)
    return parsed(body.removesuffix(DONE))


# --- chunks -> events --------------------------------------------------------------------------------------------

CALL = {"toolCallId": "c1", "toolName": "weather"}

EVENTS: list[tuple[str, list[StreamChunk], list[dict[str, Any]]]] = [
    (
        "text",
        [TextDelta("Hel"), TextDelta("lo")],
        [
            {"type": "text-start", "id": "text-1"},
            {"type": "text-delta", "id": "text-1", "delta": "Hel"},
            {"type": "text-delta", "id": "text-1", "delta": "lo"},
        ],
    ),
    (
        "reasoning that is signed",
        [ReasoningDelta("hm"), ReasoningFinished("s1g")],
        [
            {"type": "reasoning-start", "id": "reasoning-1"},
            {"type": "reasoning-delta", "id": "reasoning-1", "delta": "hm"},
            {
                "type": "reasoning-end",
                "id": "reasoning-1",
                "providerMetadata": {"completion": {"signature": "s1g"}},
            },
        ],
    ),
    (
        "reasoning that is empty and not signed",
        [ReasoningFinished()],
        [{"type": "reasoning-start", "id": "reasoning-1"}, {"type": "reasoning-end", "id": "reasoning-1"}],
    ),
    (
        "reasoning that is redacted",
        [RedactedReasoning("x9")],
        [
            {"type": "reasoning-start", "id": "reasoning-1"},
            {"type": "reasoning-end", "id": "reasoning-1", "providerMetadata": {"completion": {"redacted": "x9"}}},
        ],
    ),
    (
        "a call",
        [
            ToolCallStarted("c1", "weather"),
            ToolCallArgsDelta("c1", '{"city":'),
            ToolCallFinished("c1", "weather", {"city": "Bern"}),
        ],
        [
            {"type": "tool-input-start", **CALL},
            {"type": "tool-input-delta", "toolCallId": "c1", "inputTextDelta": '{"city":'},
            {"type": "tool-input-available", **CALL, "input": {"city": "Bern"}},
        ],
    ),
    (
        "a call that is signed",
        [ToolCallFinished("c1", "weather", {}, "s1g")],
        [
            {
                "type": "tool-input-available",
                **CALL,
                "input": {},
                "providerMetadata": {"completion": {"signature": "s1g"}},
            }
        ],
    ),
    (
        "a call whose arguments are no JSON",
        [ToolCallMalformed("c1", "weather", '{"city":', "it ends early")],
        [{"type": "tool-input-error", **CALL, "input": '{"city":', "errorText": "it ends early"}],
    ),
    (
        "a block of the provider",
        [ProviderBlockFinished("anthropic", {"type": "server_tool_use", "id": "s1"})],
        [
            {
                "type": "data-provider-block",
                "data": {"provider": "anthropic", "data": {"type": "server_tool_use", "id": "s1"}},
            }
        ],
    ),
]


@pytest.mark.parametrize(("chunks", "events"), [row[1:] for row in EVENTS], ids=[row[0] for row in EVENTS])
def test_chunks_become_events(chunks: list[StreamChunk], events: list[dict[str, Any]]) -> None:
    assert events_of(*chunks) == events


@pytest.mark.parametrize(
    ("citations", "sources"),
    [
        ([Citation("https://a.ch/", "A", "Words.", 0, 3), Citation(title="a.pdf")], [("https://a.ch/", "A")]),
        ([Citation("http://c.ch/"), Citation("https://d.ch/", "")], [("http://c.ch/", None), ("https://d.ch/", None)]),
        ([Citation("javascript:alert(1)"), Citation("gs://bucket/a.pdf", "A")], []),
    ],
)
def test_a_cited_url_is_sent_as_a_source_and_as_a_block(
    citations: list[Citation], sources: list[tuple[str, str | None]]
) -> None:
    *found, last = events_of(ProviderBlockFinished("w", {"a": 1}, tuple(citations)))
    assert [(event["type"], event["sourceId"]) for event in found] == [("source-url", url) for url, _ in sources]
    assert [(event["url"], event.get("title")) for event in found] == sources
    assert last == {"type": "data-provider-block", "data": {"provider": "w", "data": {"a": 1}}}


def test_a_source_that_is_cited_twice_is_sent_once() -> None:
    block = ProviderBlockFinished("w", {}, (Citation("https://a.ch/"),))
    assert [event["type"] for event in events_of(block, block)] == ["source-url", *["data-provider-block"] * 2]


def test_an_image_is_a_file_part_and_goes_back_in_its_own_block() -> None:
    block = {"inlineData": {"mimeType": "image/png", "data": "iVBORw0KGgo="}}
    shown, kept = events_of(ProviderBlockFinished("gemini", block))
    assert shown == {"type": "file", "mediaType": "image/png", "url": "data:image/png;base64,iVBORw0KGgo="}
    assert kept == {"type": "data-provider-block", "data": {"provider": "gemini", "data": block}}


def test_an_image_that_comes_back_is_one_block() -> None:
    block = {"inlineData": {"mimeType": "image/png", "data": "iVBORw0KGgo="}}
    parts = events_of(ProviderBlockFinished("gemini", block))
    (message,) = read_ui_messages([assistant(*parts)], provider_blocks=True)
    assert message == Message.assistant([ProviderBlock("gemini", block)])


def test_an_image_outside_of_the_web_is_not_a_file_part() -> None:
    block = {"fileData": {"mimeType": "image/png", "fileUri": "gs://bucket/cat.png"}}
    assert [event["type"] for event in events_of(ProviderBlockFinished("gemini", block))] == ["data-provider-block"]


def test_text_after_another_chunk_is_a_new_part() -> None:
    between: list[StreamChunk] = [RedactedReasoning("x"), ProviderBlockFinished("w", {})]
    events = events_of(TextDelta("a"), between[0], TextDelta("b"), between[1], TextDelta("c"))
    assert [event["id"] for event in events if event["type"] == "text-delta"] == ["text-1", "text-3", "text-4"]
    assert [event["type"] for event in events][:5] == [
        "text-start",
        "text-delta",
        "text-end",
        "reasoning-start",
        "reasoning-end",
    ]


def test_the_stream_starts_with_the_message_and_its_step() -> None:
    assert parsed(UiMessages("m1").begin()) == [{"type": "start", "messageId": "m1"}, {"type": "start-step"}]


def test_without_an_id_the_client_chooses_the_message_id() -> None:
    assert parsed(UiMessages().begin()) == [{"type": "start"}, {"type": "start-step"}]


def test_the_end_closes_the_text_and_sends_the_metadata_of_the_turn() -> None:
    end = TurnFinished(
        FinishReason.MAX_TOKENS,
        usage=Usage(input_tokens=9, output_tokens=3, cache_creation_5m_tokens=1),
        provider_reason="length",
        response_id="r1",
    )
    assert complete([TextDelta("a"), end])[-3:] == [
        {"type": "text-end", "id": "text-1"},
        {"type": "finish-step"},
        {
            "type": "finish",
            "finishReason": "length",
            "messageMetadata": {
                "reason": "max_tokens",
                "usage": {
                    "inputTokens": 9,
                    "outputTokens": 3,
                    "cachedInputTokens": 0,
                    "cacheCreationInputTokens": 0,
                    "cacheCreation5mTokens": 1,
                    "cacheCreation1hTokens": 0,
                    "reasoningTokens": 0,
                },
                "providerReason": "length",
                "responseId": "r1",
            },
        },
    ]


def test_unknown_facts_of_the_turn_are_not_sent() -> None:
    finish = complete([TurnFinished(FinishReason.END_TURN)])[-1]
    assert finish == {"type": "finish", "finishReason": "stop", "messageMetadata": {"reason": "end_turn"}}


def test_every_finish_reason_is_one_that_old_and_new_clients_support() -> None:
    assert FINISH_REASONS.keys() == set(FinishReason)
    assert set(FINISH_REASONS.values()) <= {"stop", "length", "content-filter", "tool-calls", "error", "other"}


@pytest.mark.parametrize(
    ("chunk", "closed"),
    [
        (TextDelta("a"), [{"type": "text-end", "id": "text-1"}]),
        (ReasoningDelta("a"), [{"type": "reasoning-end", "id": "reasoning-1"}]),
        (ToolCallStarted("c1", "f"), []),
    ],
)
def test_an_error_follows_the_end_of_the_open_part(chunk: StreamChunk, closed: list[dict[str, Any]]) -> None:
    ui = UiMessages()
    ui.chunk(chunk)
    body = ui.failure(BUSY)
    assert body.endswith(DONE)
    assert parsed(body.removesuffix(DONE)) == [*closed, {"type": "error", "errorText": "the provider is busy"}]


def test_a_cancelled_stream_is_sent_as_an_abort() -> None:
    assert UiMessages().failure(CANCELLED) == b'data: {"type":"abort"}\n\n' + DONE


def test_any_text_is_one_line_and_decodes_to_the_same_text() -> None:
    text = 'a\n\r\n\x85\u2028 "\\ \x00 😀 \ud83d é'
    assert events_of(TextDelta(text))[1]["delta"] == text


TURNS: list[str | list[StreamChunk]] = [
    "The answer is 42.",
    " ",
    [TextDelta("a"), TextDelta("b"), ReasoningDelta("c"), ReasoningFinished("s"), TextDelta("d")],
    [ReasoningDelta("a"), ReasoningFinished(), TextDelta("b"), ToolCallFinished("c1", "f", {}), TextDelta("c")],
    [TextDelta("a"), ProviderBlockFinished("w", {"x": 1}), RedactedReasoning("r"), TextDelta("b")],
]


@pytest.mark.parametrize("turn", TURNS)
def test_the_parts_equal_the_blocks_of_the_turn(turn: str | list[StreamChunk]) -> None:
    script = turn if isinstance(turn, str) else [*turn, TurnFinished(FinishReason.END_TURN)]
    chunks = list(ScriptedModel(script).chat_stream(ChatRequest("Hi")))
    assert list(posted(complete(chunks))) == list(collect(chunks).message.blocks)


def posted(events: list[dict[str, Any]]) -> Iterator[Block]:
    """The blocks of the message that a client assembles from these events and posts back."""
    parts: list[dict[str, Any]] = []
    for event in events:
        match event:
            case {"type": "text-start" | "reasoning-start" as kind}:
                parts.append({"type": kind.removesuffix("-start"), "text": ""})
            case {"type": "text-delta" | "reasoning-delta", "delta": delta}:
                parts[-1]["text"] += delta
            case {"type": "reasoning-end", "providerMetadata": metadata}:
                parts[-1]["providerMetadata"] = metadata
            case {"type": "tool-input-available", "toolName": name}:
                parts.append({**event, "type": f"tool-{name}", "state": "input-available"})
            case {"type": "data-provider-block"}:
                parts.append(event)
    return (block for message in read_ui_messages([assistant(*parts)], provider_blocks=True) for block in message.blocks
            if not isinstance(block, ToolResultBlock))  # fmt: skip


# The client's schema: for each event, the required and the optional fields.
_METADATA: dict[str, type] = {"providerMetadata": dict}
SCHEMA: dict[str, tuple[dict[str, type], dict[str, type]]] = {
    "start": ({}, {"messageId": str}),
    "start-step": ({}, {}),
    "text-start": ({"id": str}, {}),
    "text-delta": ({"id": str, "delta": str}, {}),
    "text-end": ({"id": str}, {}),
    "reasoning-start": ({"id": str}, {}),
    "reasoning-delta": ({"id": str, "delta": str}, {}),
    "reasoning-end": ({"id": str}, _METADATA),
    "tool-input-start": ({"toolCallId": str, "toolName": str}, {}),
    "tool-input-delta": ({"toolCallId": str, "inputTextDelta": str}, {}),
    "tool-input-available": ({"toolCallId": str, "toolName": str, "input": dict}, _METADATA),
    "tool-input-error": ({"toolCallId": str, "toolName": str, "input": str, "errorText": str}, {}),
    "tool-approval-request": ({"approvalId": str, "toolCallId": str}, {}),
    "source-url": ({"sourceId": str, "url": str}, {"title": str}),
    "data-provider-block": ({"data": dict}, {}),
    "finish-step": ({}, {}),
    "finish": ({"finishReason": str, "messageMetadata": dict}, {}),
    "error": ({"errorText": str}, {}),
    "abort": ({}, {}),
}


def faults(events: list[dict[str, Any]]) -> Iterator[str]:
    """What a client would refuse."""
    is_open: str | None = None
    used: set[str] = set()
    calls: set[str] = set()
    for event in events:
        required, optional = SCHEMA[event["type"]]
        fields = {name: value for name, value in event.items() if name != "type"}
        if not required.keys() <= fields.keys() <= required.keys() | optional.keys():
            yield f"{event} has other fields"
        if not all(isinstance(value, (required | optional)[name]) for name, value in fields.items()):
            yield f"{event} has fields of other types"
        kind, _, step = event["type"].partition("-")
        if kind in ("text", "reasoning"):
            if (step == "start") != (is_open is None) or (step == "start" and event["id"] in used):
                yield f"{event} is not nested"
            if step != "start" and event["id"] != is_open:
                yield f"{event} does not belong to the open part"
            used.add(event["id"])
            is_open = None if step == "end" else event["id"]
        elif is_open is not None:
            yield f"{event} is inside a part"
        if event["type"] == "tool-input-start":
            calls.add(event["toolCallId"])
        if event["type"] == "tool-input-delta" and event["toolCallId"] not in calls:
            yield f"{event} belongs to an unknown call"
    if is_open is not None:
        yield "a part is left open"


_texts = st.text(min_size=1, max_size=8)
_ids = st.sampled_from(["c1", "c2"])
_objects = st.dictionaries(st.text(max_size=3), st.none() | st.integers() | _texts, max_size=2)
_runs: st.SearchStrategy[list[StreamChunk]] = st.one_of(
    st.builds(lambda text: [TextDelta(text)], _texts),
    st.builds(lambda text: [ReasoningDelta(text)], _texts),
    st.builds(lambda signature: [ReasoningFinished(signature)], st.none() | _texts),
    st.builds(lambda data: [RedactedReasoning(data)], _texts),
    st.builds(lambda i, d: [ToolCallStarted(i, "f"), ToolCallArgsDelta(i, d)], _ids, _texts),
    st.builds(lambda i, args, s: [ToolCallFinished(i, "f", args, s)], _ids, _objects, st.none() | _texts),
    st.builds(lambda i, raw: [ToolCallMalformed(i, "f", raw, "bad")], _ids, _texts),
    st.builds(lambda data: [ProviderBlockFinished("w", data)], _objects),
    st.just([ProviderBlockFinished("w", {}, (Citation("https://a.ch/"),))]),
)


@given(st.lists(_runs, max_size=12), st.sampled_from([None, BUSY, CANCELLED]))
def test_chunks_in_any_order_give_valid_and_nested_events(
    runs: list[list[StreamChunk]], error: ErrorInfo | None
) -> None:
    ui = UiMessages()
    chunks = [chunk for run in runs for chunk in run]
    body = ui.begin() + b"".join(map(ui.chunk, chunks))
    if error is None:
        body += ui.chunk(TurnFinished(FinishReason.END_TURN)) + ui.end()
    else:
        body += ui.failure(error)
    assert list(faults(parsed(body.removesuffix(DONE)))) == []


@given(st.lists(_texts, max_size=5))
def test_text_arrives_unchanged(texts: list[str]) -> None:
    events = events_of(*map(TextDelta, texts))
    assert "".join(event["delta"] for event in events if event["type"] == "text-delta") == "".join(texts)


# --- posted messages -> a history --------------------------------------------------------------------------------

Part = dict[str, Any]


def user(*parts: Part) -> dict[str, Any]:
    return {"id": "u", "role": "user", "parts": [*parts]}


def assistant(*parts: Part) -> dict[str, Any]:
    return {"id": "a", "role": "assistant", "parts": [*parts]}


def text(said: str) -> Part:
    return {"type": "text", "text": said}


def call(state: str, **fields: Any) -> Part:
    return {"type": "tool-weather", "toolCallId": "c1", "state": state, "input": {"city": "Bern"}, **fields}


def file(media_type: str, url: str, **fields: Any) -> Part:
    return {"type": "file", "mediaType": media_type, "url": url, **fields}


STEP = {"type": "step-start"}
HI = user(text("Hi"))
BERN = ToolCallBlock("c1", "weather", {"city": "Bern"})


def test_texts_of_user_and_assistant_become_a_history() -> None:
    given = [HI, assistant(STEP, {**text("Hello."), "state": "done"}), user(text("And"), text("now?"))]
    assert read_ui_messages(given) == [
        Message.user("Hi"),
        Message.assistant("Hello."),
        Message.user([TextBlock("And"), TextBlock("now?")]),
    ]


@pytest.mark.parametrize(
    ("part", "block"),
    [
        ({"type": "reasoning", "text": "hm"}, ReasoningBlock("hm")),
        (
            {"type": "reasoning", "text": "hm", "providerMetadata": {"completion": {"signature": "s1g"}}},
            ReasoningBlock("hm", "s1g"),
        ),
        (
            {"type": "reasoning", "text": "", "providerMetadata": {"completion": {"redacted": "x9"}}},
            RedactedReasoningBlock("x9"),
        ),
        (
            {"type": "reasoning", "text": "hm", "providerMetadata": {"anthropic": {"signature": "s1g"}}},
            ReasoningBlock("hm"),
        ),
        (
            {"type": "data-provider-block", "data": {"provider": "anthropic", "data": {"type": "x"}}},
            ProviderBlock("anthropic", {"type": "x"}),
        ),
    ],
)
def test_provider_specific_content_comes_back(part: Part, block: Block) -> None:
    assert read_ui_messages([assistant(part)], provider_blocks=True) == [Message.assistant([block])]


def test_provider_blocks_are_skipped_by_default() -> None:
    part = {"type": "data-provider-block", "data": {"provider": "anthropic", "data": {"type": "x"}}}
    assert read_ui_messages([HI, assistant(text("a"), part)]) == [Message.user("Hi"), Message.assistant("a")]


@pytest.mark.parametrize(
    ("part", "answer"),
    [
        (call("output-available", output="17 °C"), ToolResultBlock("c1", "17 °C")),
        (call("output-available", output={"°C": [17]}), ToolResultBlock("c1", '{"°C":[17]}')),
        (call("output-available"), ToolResultBlock("c1", "null")),
        (call("output-error", errorText="no such city"), ToolResultBlock("c1", "no such city", is_error=True)),
        (
            call("output-denied", approval={"id": "1", "approved": False, "reason": "too expensive"}),
            ToolResultBlock("c1", "too expensive", is_error=True),
        ),
        (
            call("output-denied", approval={"id": "1", "approved": False}),
            ToolResultBlock("c1", "The user did not allow this call.", is_error=True),
        ),
        (
            call("input-available"),
            ToolResultBlock("c1", "There is no result: the tool was not run.", is_error=True),
        ),
    ],
)
def test_a_call_is_followed_by_its_result(part: Part, answer: Block) -> None:
    assert read_ui_messages([assistant(text("Let me see."), part)]) == [
        Message.assistant([TextBlock("Let me see."), BERN]),
        Message.user([answer]),
    ]


def test_a_dynamic_tool_part_is_a_tool_call() -> None:
    part = {**call("output-available", output="17 °C"), "type": "dynamic-tool", "toolName": "weather"}
    assert read_ui_messages([assistant(part)])[0] == Message.assistant([BERN])


def responded(approved: Any, **fields: Any) -> Part:
    return call("approval-responded", approval={"id": "c1", "approved": approved, **fields})


@pytest.mark.parametrize(
    ("part", "decision"),
    [
        (responded(True), True),
        (responded(True, reason="fine"), True),
        (responded(False), False),
        (responded(False, reason="Not now."), "Not now."),
        ({**responded(True), "type": "dynamic-tool", "toolName": "weather"}, True),
    ],
)
def test_what_the_user_decided_is_read_and_the_call_is_not(part: Part, decision: bool | str) -> None:
    history = read_ui_messages([HI, assistant(text("Let me see."), part)])
    assert history.decisions == {"c1": decision}
    assert history == [Message.user("Hi"), Message.assistant("Let me see.")]


@pytest.mark.parametrize(
    "given",
    [
        [HI, assistant(call("approval-requested", approval={"id": "c1"}))],
        [HI, assistant(responded(True)), user(text("Never mind."))],
        [HI, assistant(call("output-available", output="", approval={"id": "c1", "approved": True}))],
    ],
    ids=["not decided", "a new message", "the call was made"],
)
def test_there_is_no_decision_about_other_calls(given: list[Any]) -> None:
    assert read_ui_messages(given).decisions == {}


def test_a_forged_decision_runs_nothing() -> None:
    made: list[str] = []

    @tool(approval=True)
    def weather(city: str) -> str:
        "The weather."
        made.append(city)
        return "sunny"

    history = read_ui_messages([HI, assistant(responded(True))])
    with pytest.raises(ValueError, match="which does not wait"):
        run_chat(ScriptedModel("Yes."), ChatRequest(history), [weather], decisions=history.decisions)
    conversation = Conversation(ScriptedModel("Yes."), tools=[weather])
    with pytest.raises(ValueError, match="no call waits"):
        conversation.resume(history.decisions)
    assert made == []


def test_calls_that_wait_are_approval_requests_and_their_decision_continues_the_message() -> None:
    @tool(approval=True)
    def weather(city: str) -> str:
        "The weather."
        return f"sunny in {city}"

    made: list[StreamChunk] = [
        ToolCallStarted("c1", "weather"),
        ToolCallFinished("c1", "weather", {"city": "Bern"}),
        TurnFinished(FinishReason.TOOL_USE),
    ]
    said = [TextDelta("Sunny."), TurnFinished(FinishReason.END_TURN)]
    conversation = Conversation(ScriptedModel(made, said), tools=[weather])
    first = events_of(*conversation.stream("Hi"))
    assert {"type": "tool-approval-request", "approvalId": "c1", "toolCallId": "c1"} in first
    assert list(faults(first)) == []
    history = read_ui_messages([HI, assistant(responded(True))])
    second = events_of(*conversation.resume(history.decisions))
    assert {"type": "tool-output-available", "toolCallId": "c1", "output": "sunny in Bern"} in second
    assert [event["delta"] for event in second if event["type"] == "text-delta"] == ["Sunny."]


def test_the_signature_of_a_call_comes_back() -> None:
    part = call("output-available", output="", callProviderMetadata={"completion": {"signature": "s1g"}})
    assert read_ui_messages([assistant(part)])[0] == Message.assistant(
        [ToolCallBlock("c1", "weather", {"city": "Bern"}, "s1g")]
    )


@pytest.mark.parametrize("raw", [{"input": '{"city":'}, {"rawInput": '{"city":', "input": None}], ids=["ai 7", "ai 6"])
def test_a_malformed_call_becomes_a_text_for_the_model(raw: dict[str, Any]) -> None:
    part = {**call("output-error", errorText="it ends early"), **raw}
    assert read_ui_messages([HI, assistant(part)]) == [
        Message.user("Hi"),
        Message.user("The call of weather could not be read: it ends early"),
    ]


def test_each_step_is_a_message_followed_by_its_results() -> None:
    first, second = call("output-available", output="17 °C"), call("output-available", output="wet", toolCallId="c2")
    assert read_ui_messages([HI, assistant(STEP, first, STEP, second, STEP, text("Rain."))]) == [
        Message.user("Hi"),
        Message.assistant([BERN]),
        Message.tool_result("c1", "17 °C"),
        Message.assistant([ToolCallBlock("c2", "weather", {"city": "Bern"})]),
        Message.tool_result("c2", "wet"),
        Message.assistant("Rain."),
    ]


@pytest.mark.parametrize(
    ("part", "block"),
    [
        (file("image/png", "data:image/png;base64,aGk="), ImageBlock(Base64Source("image/png", "aGk="))),
        (file("image", "data:image/png;base64,aGk="), ImageBlock(Base64Source("image/png", "aGk="))),
        (file("image/*", "data:image/png;base64,aGk="), ImageBlock(Base64Source("image/png", "aGk="))),
        (file("", "data:image/png;base64,aGk%3D"), ImageBlock(Base64Source("image/png", "aGk="))),
        (file("image/png", "https://a.ch/b.png"), ImageBlock(UrlSource("https://a.ch/b.png"))),
        (file("audio/mpeg", "data:audio/mpeg;base64,aGk="), AudioBlock(Base64Source("audio/mpeg", "aGk="))),
        (
            file("application/pdf", "data:application/pdf;base64,aGk=", filename="a.pdf"),
            DocumentBlock(Base64Source("application/pdf", "aGk="), name="a.pdf"),
        ),
        (
            file("text/plain;charset=utf-8", "data:text/plain;charset=utf-8,a%20b"),
            DocumentBlock(Base64Source("text/plain", b"a b")),
        ),
        (file("", "data:,a"), DocumentBlock(Base64Source("text/plain", b"a"))),
    ],
)
def test_the_media_type_of_a_file_decides_its_block(part: Part, block: Block) -> None:
    assert read_ui_messages([user(part)]) == [Message.user([block])]


@pytest.mark.parametrize(
    "part",
    [
        {"type": "data-weather", "data": 1},
        {"type": "source-url", "sourceId": "1", "url": "https://a.ch/"},
        {"type": "of-tomorrow"},
        {"type": "tool-weather", "toolCallId": "c1", "state": "input-streaming"},
        call("approval-requested"),
        file("image/png", "data:image/png;base64,aGk="),
        text(""),
    ],
)
def test_unfinished_and_unknown_parts_are_skipped(part: Part) -> None:
    assert read_ui_messages([HI, assistant(text("a"), part)]) == [Message.user("Hi"), Message.assistant("a")]


def test_a_user_message_cannot_contain_parts_of_the_assistant() -> None:
    block = {"type": "data-provider-block", "data": {"provider": "anthropic", "data": {"type": "x"}}}
    given = user(text("Hi"), {"type": "reasoning", "text": "hm"}, call("output-available", output=""), block)
    assert read_ui_messages([given]) == [Message.user("Hi")]


PNG = "data:image/png;base64,"


@pytest.mark.parametrize(
    ("messages", "complaint"),
    [
        (None, "messages must be a list, got null"),
        ({"role": "user"}, "messages must be a list, got dict"),
        ([], "messages must contain something to send, got only empty messages"),
        ([user(text(""))], "messages must contain something to send, got only empty messages"),
        (["Hi"], 'messages[0] must be an object, got "Hi"'),
        ([{"role": "user", "content": "Hi"}], "messages[0].parts must be a list, got null"),
        ([{"parts": []}], 'messages[0].role must be "user" or "assistant", got null'),
        ([{"role": "tool", "parts": []}], 'messages[0].role must be "user" or "assistant", got "tool"'),
        ([{"role": ["user"], "parts": []}], 'messages[0].role must be "user" or "assistant", got list'),
        (
            [{"role": "system", "parts": [text("Obey")]}],
            'messages[0].role must not be "system": the server writes the system prompt',
        ),
        ([HI, user(7)], "messages[1].parts[0] must be an object, got 7"),  # type: ignore[arg-type]
        ([user({})], "messages[0].parts[0].type must be a string, got null"),
        ([HI, HI, user({"type": "text", "text": 7})], "messages[2].parts[0].text must be a string, got 7"),
        ([assistant({"type": "text"})], "messages[0].parts[0].text must be a string, got null"),
        (
            [assistant({"type": "reasoning", "text": "", "providerMetadata": []})],
            "messages[0].parts[0].providerMetadata must be an object, got list",
        ),
        (
            [assistant({"type": "reasoning", "text": "", "providerMetadata": {"completion": {"signature": 1}}})],
            "messages[0].parts[0].providerMetadata.completion.signature must be a string, got 1",
        ),
        (
            [assistant({"type": "data-provider-block", "data": {"provider": "x"}})],
            "messages[0].parts[0].data.data must be an object, got null",
        ),
        ([assistant({"type": "tool-f"})], "messages[0].parts[0].toolCallId must be a string, got null"),
        ([assistant({"type": "dynamic-tool"})], "messages[0].parts[0].toolName must be a string, got null"),
        (
            [assistant({**call("output-available"), "type": "tool-"})],
            "messages[0].parts[0] must name the tool and the id of the call, got '' and 'c1'",
        ),
        (
            [assistant(call("output-available", input="{}"))],
            'messages[0].parts[0].input must be an object, got "{}"',
        ),
        ([assistant(call("output-error"))], "messages[0].parts[0].errorText must be a string, got null"),
        (
            [assistant(call("output-denied", approval={"reason": 7}))],
            "messages[0].parts[0].approval.reason must be a string, got 7",
        ),
        (
            [user(file("image/png", "http://a.ch/"))],
            'messages[0].parts[0].url must be a data: or https: URL, got "http://a.ch/"',
        ),
        (
            [user(file("image/png", "blob:" + "x" * 99))],
            'messages[0].parts[0].url must be a data: or https: URL, got "blob:' + "x" * 33 + "…",
        ),
        (
            [user(file("video/mp4", "https://a.ch/"))],
            'messages[0].parts[0].mediaType must be the type of an image, a sound or a document, got "video/mp4"',
        ),
        (
            [user(file("text/plain", "https://a.ch/", filename=7))],
            "messages[0].parts[0].filename must be a string, got 7",
        ),
    ],
)
def test_an_error_names_the_path_of_the_wrong_value(messages: object, complaint: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011  the whole text is compared
        read_ui_messages(messages, provider_blocks=True)
    assert str(caught.value) == complaint


@pytest.mark.parametrize("url", ["data:", PNG, PNG + "a", PNG + "aGk=!", PNG + "%ff", "data:png;base64,aGk="])
def test_a_data_url_without_the_bytes_of_a_file_raises_an_error(url: str) -> None:
    with pytest.raises(ValueError, match=r"^messages\[0\]\.parts\[0\]\.url must be a data: URL with the bytes"):
        read_ui_messages([user(file("", url))])


def test_an_output_nested_too_deeply_raises_a_value_error() -> None:
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(ValueError, match=r"parts\[0\]\.output is nested too deeply"):
        read_ui_messages([assistant(call("output-available", output=deep))])


_scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
_values = st.recursive(
    _scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
)
_kinds = st.sampled_from(
    ["text", "file", "reasoning", "step-start", "tool-f", "dynamic-tool", "data-provider-block", "tool-"]
)
_states = st.sampled_from(["input-available", "output-available", "output-error", "output-denied", "input-streaming"])
_wild_parts = st.fixed_dictionaries(
    {},
    optional={
        "type": _kinds | _values,
        "state": _states | _values,
        **dict.fromkeys(
            ("text", "url", "mediaType", "filename", "data", "approval", "errorText", "output", "input"), _values
        ),
        "toolCallId": st.text(max_size=3) | _values,
        "toolName": st.text(max_size=3) | _values,
        "providerMetadata": st.fixed_dictionaries({"completion": _values}) | _values,
        "callProviderMetadata": _values,
    },
)
_wild = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "assistant"]) | _values, "parts": st.lists(_wild_parts, max_size=4) | _values}
    )
    | _values,
    max_size=3,
)


@given(_wild)
def test_any_posted_json_gives_a_history_or_a_value_error(messages: object) -> None:
    try:
        history = read_ui_messages(messages, provider_blocks=True)
    except ValueError:
        return
    assert ChatRequest(history).messages == tuple(history)


# --- requests and runs -------------------------------------------------------------------------------------------

HISTORY = [
    user(text("Weather?"), file("image/png", PNG + base64.b64encode(b"x").decode())),
    assistant(
        STEP,
        {"type": "reasoning", "text": "hm", "providerMetadata": {"completion": {"signature": "s1g"}}},
        text("Let me see."),
        {**call("output-error", errorText="it ends early"), "toolCallId": "c4", "input": "{"},
        call("output-available", output="17 °C"),
        {**call("input-available"), "toolCallId": "c2"},
        {"type": "tool-weather", "toolCallId": "c3", "state": "input-streaming"},
        STEP,
        text("It is warm."),
        {"type": "source-url", "sourceId": "https://a.ch/", "url": "https://a.ch/"},
        {
            "type": "data-provider-block",
            "data": {
                "provider": "anthropic",
                "data": {"type": "citations", "citations": [{"url": "https://a.ch/"}], "length": 5},
            },
        },
    ),
    user(text("Thanks.")),
]


def test_the_history_is_a_valid_request_for_anthropic() -> None:
    body, _ = anthropic_body(ChatRequest(read_ui_messages(HISTORY, provider_blocks=True)), "claude-sonnet-4-6")
    weather = {"type": "tool_use", "name": "weather", "input": {"city": "Bern"}}
    missing = [{"type": "text", "text": "There is no result: the tool was not run."}]
    assert body["messages"] == [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Weather?"},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "eA=="}},
            ],
        },
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": "s1g"},
                {"type": "text", "text": "Let me see."},
                {**weather, "id": "c1"},
                {**weather, "id": "c2"},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "c1", "content": [{"type": "text", "text": "17 °C"}]},
                {"type": "tool_result", "tool_use_id": "c2", "content": missing, "is_error": True},
                {"type": "text", "text": "The call of weather could not be read: it ends early"},
            ],
        },
        {
            "role": "assistant",
            "content": [
                {"type": "text", "text": "It is "},
                {"type": "text", "text": "warm.", "citations": [{"url": "https://a.ch/"}]},
            ],
        },
        {"role": "user", "content": [{"type": "text", "text": "Thanks."}]},
    ]


def test_the_history_is_a_valid_request_for_openai() -> None:
    body, _ = openai_body(ChatRequest(read_ui_messages(HISTORY, provider_blocks=True)), "gpt-5.2")
    function = {"name": "weather", "arguments": '{"city":"Bern"}'}
    assert body["messages"][1:] == [
        {
            "role": "assistant",
            "content": "Let me see.",
            "tool_calls": [
                {"id": "c1", "type": "function", "function": function},
                {"id": "c2", "type": "function", "function": function},
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "17 °C"},
        {"role": "tool", "tool_call_id": "c2", "content": "Error: There is no result: the tool was not run."},
        {"role": "user", "content": "The call of weather could not be read: it ends early"},
        {"role": "assistant", "content": "It is warm."},
        {"role": "user", "content": "Thanks."},
    ]


def test_a_run_is_one_message_with_a_step_per_turn() -> None:
    model = ScriptedModel(
        [
            ToolCallStarted("c1", "get"),
            ToolCallFinished("c1", "get", {"a": 1}),
            ToolCallStarted("c2", "no"),
            ToolCallFinished("c2", "no", {}),
            TurnFinished(FinishReason.TOOL_USE, Usage(1, 2)),
        ],
        [TextDelta("It is 3."), TurnFinished(FinishReason.END_TURN, Usage(3, 4))],
    )
    tool = Tool(ToolDefinition("get", "Gets.", {"type": "object"}), lambda a: a + 2)
    found = parsed(b"".join(web.ui_messages(run_chat(model, ChatRequest("Hi"), [tool]))).removesuffix(DONE))
    assert [event["type"] for event in found] == [
        *(
            "start",
            "start-step",
            "tool-input-start",
            "tool-input-available",
            "tool-input-start",
            "tool-input-available",
        ),
        *("tool-output-available", "tool-output-error", "finish-step"),
        *("start-step", "text-start", "text-delta", "text-end", "finish-step", "finish"),
    ]
    assert found[6] == {"type": "tool-output-available", "toolCallId": "c1", "output": "3"}
    assert "There is no tool" in found[7]["errorText"]
    metadata = found[-1]["messageMetadata"]
    assert (metadata["reason"], metadata["usage"]["inputTokens"], metadata["usage"]["outputTokens"]) == (
        "end_turn",
        4,
        6,
    )
    assert metadata["runId"].startswith("run_")


@pytest.mark.parametrize("render", [web.sse, web.ndjson, web.ui_messages])
def test_a_run_truncated_after_a_turn_does_not_look_complete(render: Any) -> None:
    started = RunStarted("run_1", "scripted", "m")
    chunks = [started, TextDelta("Hi"), TurnFinished(FinishReason.TOOL_USE)]
    assert b"The answer is not complete" in b"".join(render(iter(chunks)))
