"""Messages and blocks: which arguments their constructors accept, convert and refuse."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import completion
from completion import (
    AudioBlock,
    Base64Source,
    Block,
    CacheControl,
    ChatRequest,
    DocumentBlock,
    FileSource,
    FinishReason,
    ImageBlock,
    Message,
    ProviderBlock,
    ReasoningBlock,
    RedactedReasoningBlock,
    TextBlock,
    ToolCallBlock,
    ToolResultBlock,
    Turn,
    TurnFinished,
    UrlSource,
    Usage,
)

# Arguments of the wrong type, as a program without a type checker may pass them.
untyped: Any = object()
wrong: Any = {"ttl": "5m"}


def test_a_string_is_one_text_block() -> None:
    assert Message.user("hi").blocks == (TextBlock("hi"),)
    assert Message.assistant("hi") == Message("assistant", [TextBlock("hi")])


def test_strings_in_a_list_are_text_blocks() -> None:
    image = ImageBlock(UrlSource("u"))
    assert Message.user(["a", image, "b"]) == Message.user([TextBlock("a"), image, TextBlock("b")])
    assert Message.assistant(["a"]) == Message("assistant", ["a"]) == Message.assistant("a")
    assert ToolResultBlock("c", ["a", image]).blocks == (TextBlock("a"), image)


def test_blocks_may_be_a_single_block() -> None:
    single: Any = TextBlock("hi")
    assert Message("user", single).blocks == (TextBlock("hi"),)


def test_a_tool_result_is_a_user_message() -> None:
    assert Message.tool_result("c", "17", is_error=True) == Message("user", [ToolResultBlock("c", "17", True)])


def test_changing_the_list_of_blocks_later_does_not_change_the_message() -> None:
    blocks: list[Block] = [TextBlock("a")]
    message = Message("user", blocks)
    blocks.append(TextBlock("b"))
    assert message.blocks == (TextBlock("a"),)


def test_the_text_of_a_message_is_its_text_blocks_joined() -> None:
    assert Message.assistant([TextBlock("a"), ReasoningBlock("x"), TextBlock("b")]).text == "ab"


def test_a_pattern_matches_the_cache_control_only_by_keyword() -> None:
    match TextBlock("a", cache_control=CacheControl()):
        case TextBlock(text):
            assert text == "a"


@pytest.mark.parametrize("data", [b"\x00\xff", bytearray(b"\x00\xff"), memoryview(b"\x00\xff"), "AP8="])
def test_bytes_become_base64_text(data: bytes | str) -> None:
    assert Base64Source("image/png", data).data == "AP8="


@pytest.mark.parametrize(
    ("kind", "name", "media_type"),
    [
        (ImageBlock, "a.png", "image/png"),
        (ImageBlock, "a.JPG", "image/jpeg"),
        (ImageBlock, "a.webp", "image/webp"),
        (AudioBlock, "a.mp3", "audio/mpeg"),
        (AudioBlock, "a.m4a", "audio/mp4"),
        (AudioBlock, "a.webm", "video/webm"),
        (DocumentBlock, "a.pdf", "application/pdf"),
        (DocumentBlock, "a.md", "text/markdown"),
    ],
)
def test_the_suffix_of_a_file_determines_the_media_type(
    tmp_path: Path, kind: type[ImageBlock | AudioBlock | DocumentBlock], name: str, media_type: str
) -> None:
    (tmp_path / name).write_bytes(b"\x00\xff")
    assert kind.from_path(tmp_path / name).source == Base64Source(media_type, "AP8=")


def test_a_document_from_a_path_has_the_name_of_its_file(tmp_path: Path) -> None:
    (tmp_path / "bill.pdf").write_bytes(b"%PDF")
    assert DocumentBlock.from_path(str(tmp_path / "bill.pdf")).name == "bill.pdf"


@pytest.mark.parametrize(
    ("kind", "name", "media_type"),
    [
        (ImageBlock, "a.txt", "text/plain"),
        (ImageBlock, "a.pdf", "application/pdf"),
        (AudioBlock, "a.png", "image/png"),
        (AudioBlock, "a.txt", "text/plain"),
        (DocumentBlock, "a.png", "image/png"),
        (DocumentBlock, "a.mp3", "audio/mpeg"),
    ],
)
def test_a_file_of_another_kind_is_refused(
    tmp_path: Path, kind: type[ImageBlock | AudioBlock | DocumentBlock], name: str, media_type: str
) -> None:
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(ValueError, match=rf"{kind.__name__}.from_path: {name} has the media type {media_type}; use"):
        kind.from_path(tmp_path / name)


def test_an_unknown_suffix_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.qqq").write_bytes(b"x")
    with pytest.raises(
        ValueError, match=r"a\.qqq: the media type of this name is unknown; use Base64Source\(media_type, data\)"
    ):
        ImageBlock.from_path(tmp_path / "a.qqq")


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda: Message(wrong, "x"), ValueError, "Message.role must be 'user' or 'assistant'"),
        (lambda: Message("system", "x"), ValueError, "(use ChatRequest.system_prompt for system text)"),  # type: ignore[arg-type]
        (
            lambda: Message("user", untyped),
            TypeError,
            "Message.blocks takes a str or a list of str and blocks, got object",
        ),
        (
            lambda: Message("user", ["x", 5]),  # type: ignore[list-item]
            TypeError,
            "Message.blocks[1] must be a str, or a block such as ImageBlock, got int",
        ),
        (lambda: ToolResultBlock("c", [wrong]), TypeError, "ToolResultBlock.blocks[0] must be a str, or a block"),
        (lambda: ToolResultBlock(untyped, "x"), TypeError, "ToolResultBlock.call_id: expected str, got object"),
        (lambda: ToolResultBlock("c", "x", wrong), TypeError, "ToolResultBlock.is_error: expected bool, got dict"),
        (lambda: TextBlock(untyped), TypeError, "TextBlock.text: expected str, got object"),
        (lambda: TextBlock("x", cache_control=wrong), TypeError, "TextBlock.cache_control: expected CacheControl or"),
        (lambda: ImageBlock("cat.png"), TypeError, "expected Base64Source or UrlSource or FileSource, got 'cat.png'"),  # type: ignore[arg-type]
        (lambda: DocumentBlock(UrlSource("u"), untyped), TypeError, "DocumentBlock.name: expected str or None, got"),
        (lambda: ToolCallBlock("c", "f", '{"a": 1}'), TypeError, "ToolCallBlock.args: expected dict, got '{\"a\": 1}'"),  # type: ignore[arg-type]
        (lambda: ToolCallBlock(untyped, "f", {}), TypeError, "ToolCallBlock.call_id: expected str, got object"),
        (lambda: ReasoningBlock(untyped), TypeError, "ReasoningBlock.text: expected str, got object"),
        (lambda: RedactedReasoningBlock(untyped), TypeError, "RedactedReasoningBlock.data: expected str, got object"),
        (lambda: ProviderBlock("anthropic", untyped), TypeError, "ProviderBlock.data: expected dict, got object"),
        (lambda: CacheControl("1d"), ValueError, "CacheControl.ttl must be '5m' or '1h', got '1d'"),  # type: ignore[arg-type]
        (lambda: Base64Source("png", b"x"), ValueError, "Base64Source.media_type must be like 'image/png', got 'png'"),
        (lambda: Base64Source(untyped, b"x"), TypeError, "Base64Source.media_type: expected str, got object"),
        (lambda: Base64Source("image/png", untyped), TypeError, "Base64Source.data: expected str, got object"),
        (lambda: Base64Source("image/png", "a b"), ValueError, "Base64Source.data is not base64"),
        (lambda: Base64Source("image/png", "ü"), ValueError, "pass the raw bytes instead"),
        (lambda: Base64Source("image/png", b""), ValueError, "Base64Source.data is empty"),
        (lambda: UrlSource(""), ValueError, "UrlSource.url must not be empty"),
        (lambda: UrlSource(untyped), TypeError, "UrlSource.url: expected str, got object"),
        (lambda: FileSource(""), ValueError, "FileSource.file_id must not be empty"),
    ],
)
def test_the_error_for_a_bad_value_names_the_field(
    make: Callable[[], object], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind) as caught:
        make()
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("record", "shown"),
    [
        (Usage(input_tokens=9, output_tokens=12), "Usage(input_tokens=9, output_tokens=12)"),
        (Usage(), "Usage()"),
        (TextBlock("a", cache_control=CacheControl("1h")), "TextBlock(cache_control=CacheControl(ttl='1h'), text='a')"),
        (ToolCallBlock("c", "f", {}), "ToolCallBlock(call_id='c', name='f', args={})"),
        (TurnFinished(FinishReason.END_TURN), "TurnFinished(reason=FinishReason.END_TURN)"),
        (ChatRequest("a", top_k=0), f"ChatRequest(messages=({Message.user('a')!r},), top_k=0)"),
    ],
)
def test_a_repr_leaves_out_fields_with_their_default(record: object, shown: str) -> None:
    assert repr(record) == shown


def test_a_repr_can_be_evaluated() -> None:
    turn = Turn(Message.assistant(["a", ToolCallBlock("c", "f", {"x": 1})]), FinishReason.TOOL_USE, Usage(1, 2))
    assert eval(repr(turn), vars(completion)) == turn


def test_the_first_bytes_of_a_file_override_its_suffix(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"\xff\xd8\xff\xe0\x00\x10JFIF")
    (tmp_path / "image").write_bytes(b"RIFF\x00\x00\x00\x00WEBPVP8 ")
    assert ImageBlock.from_path(tmp_path / "a.png").source == Base64Source("image/jpeg", "/9j/4AAQSkZJRg==")
    assert ImageBlock.from_path(tmp_path / "image").source == Base64Source("image/webp", "UklGRgAAAABXRUJQVlA4IA==")
    with pytest.raises(ValueError, match=r"AudioBlock.from_path: a.png has the media type image/jpeg"):
        AudioBlock.from_path(tmp_path / "a.png")
