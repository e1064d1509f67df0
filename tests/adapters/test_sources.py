"""Images, documents and audio: from which source each adapter sends them, and how large they may be."""

from __future__ import annotations

import json
from base64 import b64decode
from pathlib import Path

import pytest

import completion
from completion import (
    AnthropicModel,
    Base64Source,
    Block,
    ChatRequest,
    DocumentBlock,
    FileSource,
    ImageBlock,
    Message,
    ToolCallBlock,
    ToolDefinition,
    ToolResultBlock,
    UnsupportedContentError,
    UrlSource,
)
from completion.adapters.account import HttpModel
from completion.testing import ProviderServer
from completion.wires import SizeLimit
from completion.wires.sizes import MB
from tests.features import ADAPTERS, adapters
from tests.loopback import KEY

DATA = {"image": "iVBORw0KGgoAAAANSUhEUg==", "document": "JVBERi0xLjQ="}
KINDS: dict[str, type[ImageBlock | DocumentBlock]] = {"image": ImageBlock, "document": DocumentBlock}
ALL, BYTES = {"path", "bytes", "url", "file id"}, {"path", "bytes"}
CHAT = {"image": BYTES | {"url"}, "document": BYTES | {"file id"}}
SOURCES: dict[str, dict[str, set[str]]] = {
    "openai": {"image": ALL, "document": ALL},
    "openai-chat": CHAT,
    "openai-chat, another server": CHAT,
    "azure-openai": CHAT,
    "anthropic": {"image": ALL, "document": ALL},
    "anthropic-foundry": {"image": ALL, "document": ALL},
    "anthropic-mantle": {"image": BYTES, "document": BYTES},
    "anthropic-vertex": {"image": BYTES, "document": BYTES},
    "anthropic-bedrock": {"image": BYTES, "document": BYTES},
    "bedrock": {"image": BYTES, "document": BYTES},
    "gemini": {"image": ALL, "document": ALL},
    "gemini-interactions": {"image": ALL, "document": ALL},
    "cohere": {"image": BYTES | {"url"}, "document": set()},
    "ollama": {"image": BYTES, "document": set()},
    "local": {"image": set(), "document": set()},
}
"""By adapter: the sources of an image, and of a PDF, that the vendor documents."""


def block_of(kind: str, source: str, folder: Path) -> Block:
    kind_of_block = KINDS[kind]
    if source == "path":
        path = folder / f"file.{'png' if kind == 'image' else 'pdf'}"
        path.write_bytes(b64decode(DATA[kind]))
        return kind_of_block.from_path(path)
    made = {
        "bytes": Base64Source("image/png" if kind == "image" else "application/pdf", DATA[kind]),
        "url": UrlSource("https://example.org/file.png"),
        "file id": FileSource("file-abc123"),
    }
    return kind_of_block(made[source])


@pytest.fixture(scope="module")
def models() -> dict[str, HttpModel]:
    return adapters()


@pytest.mark.parametrize("source", sorted(ALL))
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("adapter", SOURCES)
def test_a_source_is_sent_or_refused_with_a_reason(
    models: dict[str, HttpModel], tmp_path: Path, adapter: str, kind: str, source: str
) -> None:
    request = ChatRequest([Message.user(["What is this?", block_of(kind, source, tmp_path)])])
    name = KINDS[kind].__name__
    if source in SOURCES[adapter][kind]:
        body, dropped = models[adapter].lowered(request)
        marker = {"url": "https://example.org/file.png", "file id": "file-abc123"}.get(source, DATA[kind])
        assert marker in json.dumps(body) and not dropped
    else:
        with pytest.raises(UnsupportedContentError, match=rf"{name} cannot be sent: \w.+ \w"):
            models[adapter].lowered(request)


def test_each_adapter_has_a_row() -> None:
    assert SOURCES.keys() == ADAPTERS.keys()


# Sizes


def file(kind: str, base64_length: int, media_type: str) -> Block:
    """A file whose base64 has this length, a multiple of four."""
    return KINDS[kind](Base64Source(media_type, "A" * base64_length))


def lower(adapter: str, models: dict[str, HttpModel], *blocks: Block) -> None:
    models[adapter].lowered(ChatRequest([Message.user(["What is this?", *blocks])]))


@pytest.mark.parametrize(
    ("adapter", "kind", "media_type", "most"),
    [
        ("anthropic", "image", "image/png", 10 * MB),
        ("anthropic-vertex", "image", "image/png", 5 * MB),
        ("anthropic-mantle", "image", "image/png", 5 * MB),
        ("anthropic-bedrock", "image", "image/png", 5 * MB),
        ("bedrock", "document", "text/csv", 6 * MB),
    ],
)
def test_a_file_may_be_as_large_as_the_vendor_says_and_no_larger(
    models: dict[str, HttpModel], adapter: str, kind: str, media_type: str, most: int
) -> None:
    lower(adapter, models, file(kind, most, media_type))
    with pytest.raises(UnsupportedContentError, match=f"{KINDS[kind].__name__} cannot be sent: it has"):
        lower(adapter, models, file(kind, most + 4, media_type))


def test_a_limit_is_for_its_media_types(models: dict[str, HttpModel]) -> None:
    lower("bedrock", models, file("document", 8 * MB, "application/pdf"))


def test_the_error_names_the_adapter_the_block_its_size_and_the_limit(server: ProviderServer) -> None:
    model = AnthropicModel("claude-sonnet-4-6", api_key=KEY, base_url=server.url)
    model.client.size_limits = (SizeLimit.of_bytes("document", 3 * MB),)
    report = DocumentBlock(Base64Source("application/pdf", "A" * (6 * MB)), name="report.pdf")
    with pytest.raises(UnsupportedContentError) as caught:
        model.chat_stream(ChatRequest([Message.user([report])]))
    assert str(caught.value) == (
        "anthropic: DocumentBlock 'report.pdf' cannot be sent: it has 4.50 MB (6.00 MB as base64), and the provider "
        "accepts 3.00 MB (4.00 MB as base64) (make it smaller, or give a URL or a file id; client.size_limits = () "
        "turns the check off)"
    )
    assert not server.requests


def test_the_files_of_a_request_count_together(models: dict[str, HttpModel]) -> None:
    images = [file("image", 8 * MB, "image/png")] * 4
    lower("anthropic", models, *images)
    with pytest.raises(UnsupportedContentError, match=r"the files of the request have 24\.75 MB \(33\.00 MB as base64"):
        lower("anthropic", models, *images, file("image", MB, "image/png"))


def test_an_image_in_a_tool_result_counts(models: dict[str, HttpModel]) -> None:
    result = ToolResultBlock("call_1", [file("image", 11 * MB, "image/png")])
    history = [Message.user("Q"), Message.assistant([ToolCallBlock("call_1", "f", {})]), Message.user([result])]
    tools = [ToolDefinition("f", "Does f.", {"type": "object", "properties": {}})]
    with pytest.raises(UnsupportedContentError, match=r"ImageBlock cannot be sent: it has 8\.25 MB"):
        models["anthropic"].lowered(ChatRequest(history, tools=tools))


@pytest.mark.parametrize("family", ["anthropic", "openai-chat", "gemini"])
def test_another_server_has_no_limits_until_the_program_sets_some(family: str) -> None:
    model = completion.model(f"{family}:m", api_key=KEY, base_url="https://gateway.example")
    assert isinstance(model, HttpModel) and model.client.size_limits == ()
    model.client.size_limits = (SizeLimit("image", 8),)
    with pytest.raises(UnsupportedContentError, match="ImageBlock"):
        model.lowered(ChatRequest([Message.user([file("image", 12, "image/png")])]))


def test_the_check_can_be_turned_off(models: dict[str, HttpModel]) -> None:
    model = AnthropicModel("claude-sonnet-4-6", api_key=KEY)
    model.client.size_limits = ()
    model.lowered(ChatRequest([Message.user([file("image", 11 * MB, "image/png")])]))


@pytest.mark.parametrize("family", ["openai", "openai-chat", "gemini", "gemini-interactions"])
def test_an_account_at_the_vendor_has_its_limits(models: dict[str, HttpModel], family: str) -> None:
    assert {limit.kind for limit in models[family].client.size_limits} == {"document", "request"}
