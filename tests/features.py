"""Writes the tables of docs/adapters/features.rst: what each adapter does with a request, and what each wire reads.

Nothing in the tables is written by hand. Each cell is the result of a request that is lowered, and not sent:

    python -m tests.features
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, get_args

from completion import (
    AudioBlock,
    Base64Source,
    Block,
    CacheControl,
    ChatRequest,
    CompletionModel,
    DocumentBlock,
    FileSource,
    ImageBlock,
    JsonSchema,
    Message,
    SystemBlock,
    ToolCallBlock,
    ToolChoice,
    ToolDefinition,
    ToolResultBlock,
    Turn,
    UnsupportedContentError,
    UrlSource,
    collect,
)
from completion.adapters.account import HttpModel
from completion.contract.request import Effort
from completion.registry import OURS, model
from completion.wires.anthropic import MESSAGES
from completion.wires.bedrock_converse import CONVERSE
from completion.wires.cohere import COHERE_CHAT
from completion.wires.gemini import GENERATE_CONTENT
from completion.wires.gemini_interactions import INTERACTIONS
from completion.wires.ollama import OLLAMA_CHAT
from completion.wires.openai_chat import CHAT_COMPLETIONS
from completion.wires.openai_responses import RESPONSES
from completion.wires.wire import Wire
from tests.documents import DOCS
from tests.wire_pieces import STOP, block_delta, block_start, block_stop, delta, events, message_delta

PAGE = DOCS / "adapters" / "features.rst"
BEGIN, END = ".. The tables begin. Do not edit them: python -m tests.features", ".. The tables end."
YES, DROPPED, NO, NOTE = "yes", "dropped", "error", "as a note"

_AWS = {"region": "us-east-1"}
ADAPTERS: dict[str, tuple[str, dict[str, Any]]] = {
    "openai": ("openai:gpt-5.6", {}),
    "openai-chat": ("openai-chat:gpt-5.4-mini", {}),
    "openai-chat, another server": ("openai-chat:qwen3", {"base_url": "https://llm.example/v1"}),
    "azure-openai": ("azure-openai:gpt-5.4-mini", {"base_url": "https://mine.openai.azure.com"}),
    "anthropic": ("anthropic:claude-sonnet-4-6", {}),
    "anthropic-foundry": ("anthropic-foundry:claude-sonnet-4-6", {"resource": "mine"}),
    "anthropic-mantle": ("anthropic-mantle:anthropic.claude-sonnet-4-6", _AWS),
    "anthropic-vertex": ("anthropic-vertex:claude-sonnet-4-6", {"project_id": "mine", "region": "global"}),
    "anthropic-bedrock": ("anthropic-bedrock:anthropic.claude-sonnet-4-6-v1:0", _AWS),
    "bedrock": ("bedrock:anthropic.claude-sonnet-4-6-v1:0", _AWS),
    "gemini": ("gemini:gemini-3.5-flash", {}),
    "gemini-interactions": ("gemini-interactions:gemini-3.5-flash", {}),
    "cohere": ("cohere:command-a-03-2025", {}),
    "ollama": ("ollama:qwen3", {}),
    "local": ("local", {}),
}
"""For each row of the tables a model and its options. ``openai-responses`` is the family ``openai`` at OpenAI."""

SAME_ROW = {"openai-responses": "openai"}

_PNG = Base64Source("image/png", "iVBORw0KGgoAAAANSUhEUg==")
_PDF = Base64Source("application/pdf", "JVBERi0xLjQ=")
_TEXT = Base64Source("text/plain", b"The meeting is at ten.")
_WAV = Base64Source("audio/wav", "UklGRgAAAAA=")
_URL, _FILE = "https://example.org/", FileSource("file-abc123")
_TOOLS = tuple(ToolDefinition(name, "A tool.", {"type": "object", "properties": {}}) for name in "fg")
_SCHEMA = JsonSchema(
    "city",
    {
        "type": "object",
        "properties": {"name": {"type": "string"}},
        "required": ["name"],
        "additionalProperties": False,
    },
)


def _asks(*blocks: Block) -> ChatRequest:
    return ChatRequest([Message.user(["What is this?", *blocks])])


def _returns(block: Block) -> ChatRequest:
    """A request in which a tool has returned this block."""
    call, result = ToolCallBlock("call_1", "f", {}), ToolResultBlock("call_1", ["Here:", block])
    return ChatRequest([Message.user("Q"), Message.assistant([call]), Message.user([result])], tools=_TOOLS)


FROM_A_TOOL = _returns(ImageBlock(_PNG))

Probes = dict[str, tuple[ChatRequest, str]]
"""By column: a request, and the name of the field that may be dropped."""

Columns = dict[str, Callable[[HttpModel], str]]

CONTENT: Probes = {
    "image: bytes": (_asks(ImageBlock(_PNG)), ""),
    "URL": (_asks(ImageBlock(UrlSource(f"{_URL}cat.png"))), ""),
    "file id": (_asks(ImageBlock(_FILE)), ""),
    "PDF: bytes": (_asks(DocumentBlock(_PDF, name="a.pdf")), ""),
    "URL ": (_asks(DocumentBlock(UrlSource(f"{_URL}a.pdf"), name="a.pdf")), ""),
    "file id ": (_asks(DocumentBlock(_FILE, name="a.pdf")), ""),
    "text file": (_asks(DocumentBlock(_TEXT, name="a.txt")), ""),
    "audio": (_asks(AudioBlock(_WAV)), ""),
    "image from a tool": (FROM_A_TOOL, ""),
}
TOOLS: Probes = {
    "any tool": (ChatRequest("Q", tools=_TOOLS, tool_choice=ToolChoice.any()), ""),
    "this tool": (ChatRequest("Q", tools=_TOOLS, tool_choice=ToolChoice.tool("g")), ""),
    "no tool": (ChatRequest("Q", tools=_TOOLS, tool_choice=ToolChoice.none()), ""),
    "one call at a time": (ChatRequest("Q", tools=_TOOLS, parallel_tool_use=False), ""),
    "a schema": (ChatRequest("Q", response_format=_SCHEMA), "response_format"),
    '``"json"``': (ChatRequest("Q", response_format="json"), ""),
    "a schema beside tools": (ChatRequest("Q", tools=_TOOLS, response_format=_SCHEMA), "response_format"),
}
FIELDS: Probes = {
    "``temperature``": (ChatRequest("Q", temperature=0.5), "temperature"),
    "``top_p``": (ChatRequest("Q", top_p=0.9), "top_p"),
    "``top_k``": (ChatRequest("Q", top_k=40), "top_k"),
    "``seed``": (ChatRequest("Q", seed=1), "seed"),
    "``stop_sequences``": (ChatRequest("Q", stop_sequences=["END"]), "stop_sequences"),
    "``cache_control``": (ChatRequest("Q", system_prompt=[SystemBlock("Rules.", CacheControl())]), "cache_control"),
}


def cell(adapter: HttpModel, request: ChatRequest, field: str = "") -> str:
    """What the adapter does with the request: it sends all of it, drops the field, or raises an error."""
    try:
        body, dropped = adapter.lowered(request)
    except UnsupportedContentError:
        return NO
    assert not dropped or dropped == [field], f"{adapter.name} drops {dropped}"
    if request is FROM_A_TOOL and _PNG.data not in json.dumps(body):
        return NOTE
    return DROPPED if dropped else YES


def efforts(adapter: HttpModel) -> str:
    """The words of ``reasoning_effort`` that are sent as they are, from the smallest."""
    sent = [word for word in get_args(Effort) if _sends_effort(adapter, word)]
    return ", ".join(sent) or DROPPED


def _probed(probe: tuple[ChatRequest, str], adapter: HttpModel) -> str:
    request, field = probe
    return cell(adapter, request, field)


def _sends_effort(adapter: HttpModel, word: Effort) -> bool:
    return cell(adapter, ChatRequest("Q", reasoning_effort=word), "reasoning_effort") == YES


def counts(adapter: HttpModel) -> str:
    body, _ = adapter.lowered(ChatRequest("Q"))
    try:
        adapter.count_request(body)
    except UnsupportedContentError:
        return NO
    return YES


# --- answers ---------------------------------------------------------------------------------------------------------

_SKY = "https://sky.example/blue"
_DATA = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
_CITED = {"type": "url_citation", "start_index": 0, "end_index": 4, "url": _SKY, "title": "Why?"}
_SPOKEN = {"type": "output_text", "text": "Blue", "annotations": [_CITED]}
_DRAWN = {"type": "image_generation_call", "id": "ig_1", "status": "completed", "result": _DATA}
_CLOSED = {"type": "response.completed", "response": {"status": "completed", "output": []}}


def _candidate(part: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"candidates": [{"content": {"parts": [part]}, "finishReason": "STOP", **fields}]}


def _step(*deltas: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"event_type": "step.start", "index": 0, "step": {"type": "model_output"}},
        *({"event_type": "step.delta", "index": 0, "delta": one} for one in deltas),
        {"event_type": "step.stop", "index": 0},
        {"event_type": "interaction.completed", "interaction": {"id": "i", "status": "completed"}},
    ]


def _item(item: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"type": "response.output_item.done", "output_index": 0, "item": item}, _CLOSED]


CITING: dict[str, list[Any]] = {
    "anthropic": [
        block_start(0, "text", text=""),
        block_delta(0, "text_delta", text="Blue"),
        block_delta(0, "citations_delta", citation={"type": "web_search_result_location", "url": _SKY}),
        block_stop(0),
        message_delta("end_turn"),
        {"type": "message_stop"},
    ],
    "openai-responses": [
        {"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": "Blue"},
        *_item({"type": "message", "role": "assistant", "content": [_SPOKEN]}),
    ],
    "openai-chat": [delta(content="Blue"), {**STOP, "citations": [_SKY]}],
    "gemini": [_candidate({"text": "Blue"}, groundingMetadata={"groundingChunks": [{"web": {"uri": _SKY}}]})],
    "gemini-interactions": _step(
        {"type": "text", "text": "Blue"}, {"type": "text_annotation_delta", "annotations": [_CITED]}
    ),
    "cohere": [
        {"type": "content-start", "index": 0, "delta": {"message": {"content": {"type": "text", "text": "Blue"}}}},
        {
            "type": "citation-start",
            "delta": {"message": {"citations": {"start": 0, "end": 4, "sources": [{"document": {"url": _SKY}}]}}},
        },
        {"type": "content-end", "index": 0},
        {"type": "message-end", "delta": {"finish_reason": "COMPLETE"}},
    ],
}
"""By wire: the events of an answer that cites a page. A wire without an entry has no citations in its API."""

DRAWING: dict[str, list[Any]] = {
    "openai-responses": _item(_DRAWN),
    "openai-chat": [
        delta(images=[{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{_DATA}"}}]),
        STOP,
    ],
    "gemini": [_candidate({"inlineData": {"mimeType": "image/png", "data": _DATA}})],
    "gemini-interactions": _step({"type": "image", "mime_type": "image/png", "data": _DATA}),
}
"""By wire: the events of an answer that contains an image."""

WIRES: dict[str, Wire] = {
    "OpenAI Responses": RESPONSES,
    "Chat Completions": CHAT_COMPLETIONS,
    "Anthropic Messages": MESSAGES,
    "Bedrock Converse": CONVERSE,
    "Gemini generateContent": GENERATE_CONTENT,
    "Gemini Interactions": INTERACTIONS,
    "Cohere Chat": COHERE_CHAT,
    "Ollama Chat": OLLAMA_CHAT,
}


def _reads(wire: Wire, answers: dict[str, list[Any]], found: Callable[[Turn], Sequence[Any]]) -> str:
    data = answers.get(wire.name)
    if data is None:
        return "no"
    turn = collect(wire.assemble(events(*data), lambda wait: None))
    assert found(turn), f"{wire.name} reads nothing from the answer"
    return YES


# --- tables ----------------------------------------------------------------------------------------------------------


def adapters() -> dict[str, HttpModel]:
    """By row: the adapter."""
    made: dict[str, HttpModel] = {}
    for row, (name, options) in ADAPTERS.items():
        key = {} if row in ("local", "anthropic-vertex") else {"api_key": "unused"}
        found: CompletionModel = model(name, **key, **options)
        assert isinstance(found, HttpModel)
        made[row] = found
    return made


def tables() -> str:
    """The tables, as reStructuredText."""
    assert set(OURS) - set(SAME_ROW) <= set(ADAPTERS), "a family has no row"
    rows = adapters()

    def of(probes: Probes, more: Columns | None = None) -> str:
        columns: Columns = {name: partial(_probed, probe) for name, probe in probes.items()}
        columns.update(more or {})
        body = [[f"``{row}``", *(column(one) for column in columns.values())] for row, one in rows.items()]
        return _table(["", *(name.strip() for name in columns)], body)

    wires = [
        [name, _reads(wire, CITING, lambda turn: turn.citations), _reads(wire, DRAWING, lambda turn: turn.images)]
        for name, wire in WIRES.items()
    ]
    return "\n\n".join(
        [
            _heading("Images, documents and audio"),
            of(CONTENT),
            _heading("Tools and schemas"),
            of(TOOLS),
            _heading("Other fields"),
            of(FIELDS, {"``count_tokens``": counts}),
            _heading("Reasoning effort"),
            "The words that are sent as they are. Of another word the nearest one is sent, and ``dropped`` lists the "
            "field.",
            _table(["", "Model", "Words"], [[f"``{row}``", rows[row].model, efforts(rows[row])] for row in rows]),
            _heading("What is read from an answer"),
            _table(["Wire", "``turn.citations``", "``turn.images``"], wires),
        ]
    )


def _heading(text: str) -> str:
    return f"\n{text}\n{'-' * len(text)}"


def _table(head: list[str], body: Iterable[list[str]]) -> str:
    """A list-table: lines that a diff shows one by one."""
    lines = [".. list-table::", "   :header-rows: 1", ""]
    for row in (head, *body):
        lines += [f"   {'* -' if n == 0 else '  -'} {text}".rstrip() for n, text in enumerate(row)]
    return "\n".join(lines)


def page(current: str) -> str:
    """The page with new tables."""
    before, _, rest = current.partition(BEGIN)
    after = rest.partition(END)[2]
    return f"{before}{BEGIN}\n\n{tables()}\n\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
