"""The sources that an answer cites: the same Citation out of the JSON of every wire."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from completion import (
    AnthropicModel,
    ChatRequest,
    Citation,
    Message,
    ProviderBlock,
    ProviderBlockFinished,
    StreamChunk,
    TextDelta,
    Turn,
    collect,
)
from completion.testing import ProviderServer, Reply, event
from completion.wires import citation
from completion.wires.anthropic.assemble import assemble as anthropic
from completion.wires.citations import ByteOffsets
from completion.wires.gemini.assemble import assemble as gemini
from completion.wires.gemini_interactions.assemble import assemble as interactions
from completion.wires.openai_chat.assemble import assemble as chat
from completion.wires.openai_responses.assemble import assemble as responses
from completion.wires.wire import Assemble
from tests.loopback import KEY
from tests.wire_pieces import STOP, block_delta, block_start, block_stop, delta, events, message_delta

SKY, SEA = "https://sky.example/blue", "https://sea.example/"

# Anthropic: web search, two blocks of text; the second one cites a search result and a PDF.
WEB = {
    "type": "web_search_result_location", "url": SKY, "title": "Why blue?", "cited_text": "Rayleigh scattering …",
    "encrypted_index": "Eo8B",
}  # fmt: skip
RESULT = {
    "type": "search_result_location", "source": SEA, "title": "The sea", "cited_text": "Water absorbs red.",
    "search_result_index": 0, "start_block_index": 0, "end_block_index": 1,
}  # fmt: skip
PAGE = {
    "type": "page_location", "document_index": 0, "document_title": "Optics.pdf", "cited_text": "Light …",
    "start_page_number": 3, "end_page_number": 4,
}  # fmt: skip
ANTHROPIC = [
    {"type": "message_start", "message": {"id": "msg_1", "content": [], "model": "claude"}},
    block_start(0, "text", text=""),
    block_delta(0, "text_delta", text="Ça: "),
    block_stop(0),
    block_start(1, "text", text="", citations=[]),
    block_delta(1, "text_delta", text="the sky "),
    block_delta(1, "text_delta", text="is blue."),
    block_delta(1, "citations_delta", citation=WEB),
    block_stop(1),
    block_start(2, "text", text="", citations=[]),
    block_delta(2, "text_delta", text=" So is the sea."),
    block_delta(2, "citations_delta", citation=RESULT),
    block_delta(2, "citations_delta", citation=PAGE),
    block_stop(2),
    message_delta("end_turn"),
    {"type": "message_stop"},
]


# Responses: a message with two parts, and another message.
def said(index: int, part: int, text: str) -> list[dict[str, Any]]:
    at = {"output_index": index, "content_index": part, "item_id": f"msg_{index}"}
    return [{"type": "response.output_text.delta", **at, "delta": letter} for letter in text]


def message(index: int, *parts: tuple[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    content = [{"type": "output_text", "text": text, "annotations": found} for text, found in parts]
    item = {"type": "message", "id": f"msg_{index}", "role": "assistant", "status": "completed", "content": content}
    return [
        {"type": "response.output_item.added", "output_index": index, "item": {**item, "content": []}},
        *(piece for n, (text, _) in enumerate(parts) for piece in said(index, n, text)),
        {"type": "response.output_item.done", "output_index": index, "item": item},
    ]


URL_CITATION = {"type": "url_citation", "start_index": 4, "end_index": 8, "url": SKY, "title": "Why blue?"}
FILE = {"type": "file_citation", "index": 4, "file_id": "file_1", "filename": "Optics.pdf"}
CONTAINER = {
    "type": "container_file_citation", "container_id": "c", "file_id": "f", "filename": "a.csv", "start_index": 0,
    "end_index": 3,
}  # fmt: skip
OUTSIDE = {**URL_CITATION, "end_index": 99}
PATH = {"type": "file_path", "file_id": "file_2", "index": 0}
RESPONSES = [
    *message(0, ("It is ", []), ("the blue.", [URL_CITATION, PATH])),
    *message(1, (" Ça y est.", [FILE, CONTAINER, OUTSIDE])),
    {"type": "response.completed", "response": {"id": "r", "status": "completed", "output": []}},
]

# Chat Completions: OpenAI's search models and OpenRouter.
OPENAI = [
    delta(content="It is blue ([sky](https://sky.example/blue))."),
    delta(
        annotations=[
            {
                "type": "url_citation",
                "url_citation": {"url": SKY, "title": "Why blue?", "start_index": 11, "end_index": 43},
            },
            {"type": "url_citation", "url_citation": {"url": SEA, "title": "", "content": "Water absorbs red."}},
        ]
    ),
    STOP,
]
PERPLEXITY = [
    {
        **delta(content="Blue [1][2]."),
        "citations": [SKY, SEA],
        "search_results": [
            {"title": "The sea", "url": SEA, "date": None, "snippet": "Water …"},
            {"title": "Why blue?", "url": SKY, "date": "2026-01-02"},
        ],
    },
    STOP,
]
XAI = [delta(content="Blue."), {**STOP, "citations": [SKY]}]
RESULTS_ONLY = [{**delta(content="Blue."), "search_results": [{"url": SKY, "title": "Why blue?"}]}, STOP]
AZURE: list[dict[str, Any]] = [
    delta(
        context={
            "citations": [{"content": "Rayleigh …", "title": "Why blue?", "url": SKY, "filepath": "sky.md"}],
            "intent": "[]",
        }
    ),
    delta(content="Blue [doc1]."),
    STOP,
]


# Gemini: offsets in bytes. Before "Das" there are four bytes more than characters.
def spoken(*texts: str, **candidate: Any) -> dict[str, Any]:
    parts = [{"text": text} for text in texts]
    return {"candidates": [{"content": {"parts": parts, "role": "model"}, "index": 0, **candidate}], "responseId": "r"}


GERMAN = ("Ça: der Himmel ", "ist blau. 😀 ", "Das Meer auch.")
GROUNDING = {
    "webSearchQueries": ["sky"],
    "groundingChunks": [
        {"web": {"uri": SKY, "title": "sky.example"}},
        {"web": {"uri": SEA, "title": "sea.example"}},
        {"retrievedContext": {"uri": "gs://b/o.pdf", "title": "o.pdf", "text": "Light …"}},
    ],
    "groundingSupports": [
        {"segment": {"endIndex": 25, "text": "Ça: der Himmel ist blau."}, "groundingChunkIndices": [0, 1]},
        {
            "segment": {"startIndex": 31, "endIndex": 45, "text": "Das Meer auch."},
            "groundingChunkIndices": [1, 9, "x"],
        },
    ],
}
GEMINI = [
    spoken(GERMAN[0]),
    spoken(GERMAN[1]),
    spoken(GERMAN[2], finishReason="STOP", groundingMetadata=GROUNDING),
]
RECITED = [
    spoken("Grün ", "ist die Heide."),
    spoken(
        "",
        finishReason="STOP",
        citationMetadata={"citationSources": [{"startIndex": 6, "endIndex": 9, "uri": SKY, "license": ""}, 1]},
    ),
]
VERTEX = [
    spoken(
        "Hello",
        finishReason="STOP",
        citationMetadata={"citations": [{"endIndex": 5, "uri": SKY, "title": "Why blue?"}]},
    )
]


def step(index: int, *texts: str, annotations: Sequence[Any] = ()) -> list[dict[str, Any]]:
    deltas: list[dict[str, Any]] = [{"type": "text", "text": text} for text in texts]
    deltas += [{"type": "text_annotation_delta", "annotations": list(annotations)}] if annotations else []
    return [
        {"event_type": "step.start", "index": index, "step": {"type": "model_output"}},
        *({"event_type": "step.delta", "index": index, "delta": one} for one in deltas),
        {"event_type": "step.stop", "index": index},
    ]


INTERACTIONS = [
    *step(0, "Ça: "),
    *step(
        1,
        "für ",
        "alle",
        annotations=[{"type": "url_citation", "start_index": 5, "end_index": 9, "url": SKY, "title": "Why blue?"}],
    ),
    {"event_type": "interaction.completed", "interaction": {"id": "v1", "status": "completed"}},
]

Cited = tuple[str | None, str | None, str | None, str | None]
"""URL, title, cited text, and the words of the answer."""

ANSWERS: dict[str, tuple[Assemble, list[dict[str, Any]], list[Cited]]] = {
    "Anthropic": (
        anthropic,
        ANTHROPIC,
        [
            (SKY, "Why blue?", "Rayleigh scattering …", "the sky is blue."),
            (SEA, "The sea", "Water absorbs red.", " So is the sea."),
            (None, "Optics.pdf", "Light …", " So is the sea."),
        ],
    ),
    "Responses": (
        responses,
        RESPONSES,
        [
            (SKY, "Why blue?", None, "blue"),
            (None, "Optics.pdf", None, ""),
            (None, "a.csv", None, " Ça"),
            (SKY, "Why blue?", None, None),
        ],
    ),
    "OpenAI, OpenRouter": (
        chat,
        OPENAI,
        [(SKY, "Why blue?", None, "([sky](https://sky.example/blue)"), (SEA, None, "Water absorbs red.", None)],
    ),
    "Perplexity": (chat, PERPLEXITY, [(SKY, "Why blue?", None, None), (SEA, "The sea", "Water …", None)]),
    "xAI": (chat, XAI, [(SKY, None, None, None)]),
    "search results only": (chat, RESULTS_ONLY, [(SKY, "Why blue?", None, None)]),
    "Azure": (chat, AZURE, [(SKY, "Why blue?", "Rayleigh …", None)]),
    "Gemini": (
        gemini,
        GEMINI,
        [
            (SKY, "sky.example", None, "Ça: der Himmel ist blau."),
            (SEA, "sea.example", None, "Ça: der Himmel ist blau."),
            (SEA, "sea.example", None, "Das Meer auch."),
            ("gs://b/o.pdf", "o.pdf", "Light …", None),
        ],
    ),
    "Gemini, recited": (gemini, RECITED, [(SKY, None, None, "ist")]),
    "Vertex AI, recited": (gemini, VERTEX, [(SKY, "Why blue?", None, "Hello")]),
    "Interactions": (interactions, INTERACTIONS, [(SKY, "Why blue?", None, "alle")]),
}


def cited(turn: Turn) -> list[Cited]:
    return [
        (one.url, one.title, one.cited_text, None if one.start is None else turn.text[one.start : one.end])
        for one in turn.citations
    ]


@pytest.mark.parametrize(("assemble", "data", "expected"), ANSWERS.values(), ids=ANSWERS)
def test_each_citation_names_its_source_and_the_words_of_the_answer(
    assemble: Assemble, data: list[dict[str, Any]], expected: list[Cited]
) -> None:
    assert cited(collect(assemble(events(*data), lambda seconds: None))) == expected


@pytest.mark.parametrize(("assemble", "data"), [row[:2] for row in ANSWERS.values()], ids=ANSWERS)
def test_citations_survive_json(assemble: Assemble, data: list[dict[str, Any]]) -> None:
    chunks = list(assemble(events(*data), lambda seconds: None))
    turn = collect(chunks)
    assert collect(StreamChunk.from_json(chunk.to_json()) for chunk in chunks).citations == turn.citations != ()
    assert Turn.from_json(turn.to_json()).citations == turn.citations


def test_a_file_is_cited_at_a_point() -> None:
    turn = collect(responses(events(*RESPONSES), lambda seconds: None))
    assert turn.citations[1] == Citation(title="Optics.pdf", start=19, end=19)


def test_blocks_without_citations_do_not_mention_them_in_json() -> None:
    assert ProviderBlockFinished("w", {}).to_dict() == {"type": "provider_block", "provider": "w", "data": {}}
    assert "citations" not in ProviderBlock("w", {}).to_dict()


def test_citations_are_not_sent_back(server: ProviderServer) -> None:
    model = AnthropicModel("claude", api_key=KEY, base_url=server.url)
    server.always(Reply(*(event(one, one["type"]) for one in ANTHROPIC)))
    turn = model.chat_stream("Why?").collect()
    assert [one.url for one in turn.citations] == [SKY, SEA, None]
    plain = Message.assistant(
        [ProviderBlock(b.provider, b.data) if isinstance(b, ProviderBlock) else b for b in turn.message.blocks]
    )
    for answer in (turn.message, plain):
        model.chat_stream(ChatRequest([Message.user("Why?"), answer, Message.user("More.")])).collect()
    sent = [request.json()["messages"] for request in server.requests[1:]]
    assert sent[0] == sent[1]
    assert sent[0][1]["content"][1] == {"type": "text", "text": "the sky is blue.", "citations": [WEB]}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"url": SKY, "start": 1, "end": 3}, (Citation(SKY, start=1, end=3),)),
        ({"url": SKY, "start": 3, "end": 1}, (Citation(SKY),)),
        ({"url": SKY, "start": -1, "end": 1}, (Citation(SKY),)),
        ({"url": SKY, "start": True, "end": 1}, (Citation(SKY),)),
        ({"url": SKY, "start": 1}, (Citation(SKY),)),
        ({"url": 5, "title": ["x"], "cited_text": "a\ud83d"}, (Citation(cited_text="a\ufffd"),)),
        ({"url": "", "title": None, "start": 0, "end": 1}, ()),
    ],
)
def test_a_value_of_a_wrong_type_is_missing(fields: dict[str, Any], expected: tuple[Citation, ...]) -> None:
    assert citation(**fields) == expected


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 50) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
KEYS = ("citations", "groundingChunks", "groundingSupports", "segment", "startIndex", "endIndex", "web", "uri", "url")


@given(st.dictionaries(st.sampled_from(KEYS), JUNK | st.dictionaries(st.sampled_from(KEYS), JUNK), max_size=5))
def test_sources_of_any_shape_raise_nothing(junk: dict[str, Any]) -> None:
    for data in (
        [spoken("ä", finishReason="STOP", groundingMetadata=junk, citationMetadata=junk)],
        [spoken("ä", finishReason="STOP", groundingMetadata={"groundingChunks": [junk], "groundingSupports": [junk]})],
    ):
        assert collect(gemini(events(*data), lambda seconds: None)).text == "ä"
    sent = [delta(content="ä", annotations=[junk, {"type": "url_citation", "url_citation": junk}]), {**STOP, **junk}]
    assert collect(chat(events(*sent), lambda seconds: None)).text == "ä"
    at = [{"type": "url_citation", **junk}, {**URL_CITATION, **junk}, {"type": "file_citation", "index": junk}]
    data = [*message(0, ("ä", at)), RESPONSES[-1]]
    assert collect(responses(events(*data), lambda seconds: None)).text == "ä"


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), max_size=8), st.integers(0, 40))
def test_offsets_in_bytes_become_offsets_in_characters(pieces: list[str], at: int) -> None:
    text = "".join(pieces)
    offsets, before = ByteOffsets(), 0
    for piece in pieces:
        if not piece.isascii():
            offsets.pieces.append((before, piece))
        before += len(piece)
    for end in range(len(text) + 1):
        assert offsets.characters(len(text[:end].encode())) == end
    begin = min(at, len(text))
    assert offsets.characters(len(text[begin:].encode()), start_at=begin) == len(text)


def test_a_plain_answer_has_no_citations() -> None:
    assert collect([TextDelta("Hi"), *chat(events(STOP), lambda seconds: None)]).citations == ()
