"""Images that a model made."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from completion import Base64Source, ChatRequest, ImageBlock, Message, ProviderBlock, Turn, UrlSource
from completion.contract.messages import FileSource
from completion.wires.gemini import GENERATE_CONTENT
from completion.wires.openai_chat import CHAT_COMPLETIONS
from completion.wires.openai_chat.dialect import ChatDialect

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
DATA = base64.b64encode(PNG).decode()

BLOCKS: dict[str, dict[str, Any]] = {
    "gemini": {"inlineData": {"mimeType": "image/png", "data": DATA}, "thoughtSignature": "c2ln"},
    "openai-responses": {"type": "image_generation_call", "id": "ig_1", "status": "completed", "result": DATA},
    "openai-chat": {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{DATA}"}},
    "gemini-interactions": {"type": "image", "mime_type": "image/png", "data": DATA},
}


@pytest.mark.parametrize("wire", BLOCKS)
def test_an_image_of_each_wire_is_an_image_of_the_turn(wire: str) -> None:
    turn = Turn(Message.assistant(["Here it is.", ProviderBlock(wire, BLOCKS[wire])]))
    assert turn.images == (ImageBlock(Base64Source("image/png", PNG)),)
    assert Turn.from_json(turn.to_json()).images == turn.images


@pytest.mark.parametrize(
    "data",
    [
        {"inlineData": {"mimeType": "audio/wav", "data": "UklGRg=="}},
        {"inlineData": {"mimeType": "image/png", "data": DATA}, "thought": True},
        {"inlineData": {"mimeType": "image/png", "data": "no base64"}},
        {"inlineData": {"mimeType": "image/png", "data": f"{DATA}é"}},
        {"inlineData": {"mimeType": "image/png", "data": ""}},
        {"inlineData": None},
        {"type": "image_generation_call", "status": "failed", "result": None},
        {"type": "image_url", "image_url": {"url": "javascript:alert(1)"}},
        {"type": "image"},
        {"executableCode": {"code": "1"}},
    ],
)
def test_another_block_has_no_image(data: dict[str, Any]) -> None:
    assert ProviderBlock("gemini", data).image is None


def test_the_first_bytes_are_trusted_more_than_the_media_type() -> None:
    data = {"type": "image_generation_call", "output_format": "webp", "result": DATA}
    image = ProviderBlock("openai-responses", data).image
    assert image is not None and image.source == Base64Source("image/png", DATA)


def test_an_image_at_a_url_keeps_the_url() -> None:
    data = {"type": "image_url", "image_url": {"url": "https://example.com/cat.png"}}
    image = ProviderBlock("openai-chat", data).image
    assert image is not None and image.source == UrlSource("https://example.com/cat.png")
    with pytest.raises(ValueError, match="ImageBlock has no bytes, its source is a UrlSource; fetch the file first"):
        image.to_bytes()


def test_save_writes_the_bytes_and_adds_the_suffix(tmp_path: Path) -> None:
    image = ImageBlock(Base64Source("image/png", PNG))
    assert image.save(tmp_path / "cat") == tmp_path / "cat.png"
    assert image.save(str(tmp_path / "dog.bin")) == tmp_path / "dog.bin"
    assert (tmp_path / "cat.png").read_bytes() == (tmp_path / "dog.bin").read_bytes() == PNG


@pytest.mark.parametrize(
    ("media_type", "suffix"), [("image/webp", ".webp"), ("image/jpeg", ".jpg"), ("image/gif", ".gif"), ("image/x", "")]
)
def test_the_suffix_follows_the_media_type(tmp_path: Path, media_type: str, suffix: str) -> None:
    assert ImageBlock(Base64Source(media_type, b"x")).save(tmp_path / "a").name == f"a{suffix}"


def test_save_overwrites_a_file(tmp_path: Path) -> None:
    (tmp_path / "cat.png").write_bytes(b"an older and longer file" * 10)
    ImageBlock(Base64Source("image/png", PNG)).save(tmp_path / "cat.png")
    assert (tmp_path / "cat.png").read_bytes() == PNG


def test_an_image_without_bytes_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="its source is a FileSource"):
        ImageBlock(FileSource("file_1")).save(tmp_path / "cat.png")
    assert not list(tmp_path.iterdir())


def test_a_notebook_shows_the_image_alone_and_in_its_turn() -> None:
    block = ProviderBlock("gemini", BLOCKS["gemini"])
    assert block.image is not None
    assert block._repr_mimebundle_() == block.image._repr_mimebundle_()
    assert block._repr_mimebundle_()["image/png"] == DATA
    assert f"![image](data:image/png;base64,{DATA})" in Turn(Message.assistant([block]))._repr_markdown_()


def test_a_notebook_shows_no_svg_and_fetches_nothing() -> None:
    svg = ProviderBlock("gemini", {"inlineData": {"mimeType": "image/svg+xml", "data": "PHN2Zz4="}})
    remote = ImageBlock(UrlSource("https://example.com/cat.png"))
    for shown in (svg._repr_mimebundle_(), remote._repr_mimebundle_()):
        assert list(shown) == ["text/plain"]
    assert "](https://" not in Message.user([remote])._repr_markdown_()


def test_an_image_goes_back_unchanged_to_its_wire_and_not_to_another() -> None:
    answer = Message.assistant(["Here.", ProviderBlock("gemini", BLOCKS["gemini"])])
    request = ChatRequest([Message.user("Draw a cat."), answer, Message.user("Make it blue.")])
    body, _ = GENERATE_CONTENT.body(request, "gemini-3-pro-image-preview")
    assert body["contents"][1]["parts"] == [{"text": "Here."}, BLOCKS["gemini"]]
    other, _ = CHAT_COMPLETIONS.body(request, "gpt-5", ChatDialect())
    assert DATA not in json.dumps(other)


def test_an_image_reaches_another_wire_as_an_image_of_the_user() -> None:
    turn = Turn(Message.assistant([ProviderBlock("gemini", BLOCKS["gemini"])]))
    request = ChatRequest([Message.user("Draw a cat."), turn.message, Message.user([*turn.images, "What is this?"])])
    body, _ = CHAT_COMPLETIONS.body(request, "gpt-5", ChatDialect())
    assert body["messages"][-1]["content"][1]["image_url"]["url"] == f"data:image/png;base64,{DATA}"
