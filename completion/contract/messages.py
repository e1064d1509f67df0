"""Messages, and the blocks that they consist of.

    Message.user("Why is the sky blue?")
    Message.user(["What is this?", ImageBlock.from_path("cat.png")])
    Message.tool_result("call_1", "17 °C")

Every block has a ``cache_control``. It asks the provider to cache the prompt up to this block.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias, TypeVar

from completion.contract.citations import Citation
from completion.contract.codec import Record, Tagged, check_fields, nested, nested_or_absent, nested_tuple_or_absent
from completion.contract.images import image_in
from completion.contract.markdown import code, document, fenced, quoted
from completion.contract.media_types import ENOUGH_BYTES, media_type_of_bytes, media_type_of_name, suffix_of

FileBlockT = TypeVar("FileBlockT", bound="_FileBlock")

Role = Literal["user", "assistant"]

# Images that a notebook shows, and the largest size: the notebook stores them in its file. No SVG: it can contain
# scripts.
_SHOWN_MEDIA_TYPES = ("image/png", "image/jpeg", "image/gif", "image/webp")
_SHOWN_BYTES = 256 * 1024
# An image of the model is the answer itself, so a larger one is shown. Image models return one to five megabytes.
_SHOWN_BYTES_OF_ANSWERS = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class CacheControl(Record):
    """Asks the provider to cache the prompt up to here, for five minutes or an hour."""

    ttl: Literal["5m", "1h"] = "5m"

    def __post_init__(self) -> None:
        if self.ttl not in ("5m", "1h"):
            raise ValueError(f"CacheControl.ttl must be '5m' or '1h', got {self.ttl!r}")


class Source(Tagged):
    """Where the bytes of an image, document or audio block come from."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Base64Source(Source):
    """The bytes are part of the request. ``data`` is base64 text; ``bytes`` are encoded by the constructor."""

    type: ClassVar[Literal["base64"]] = "base64"
    media_type: str
    data: str

    if TYPE_CHECKING:  # wider than the field: bytes are accepted too

        def __init__(self, media_type: str, data: str | bytes | bytearray | memoryview) -> None: ...

    def __post_init__(self) -> None:
        was_encoded_here = isinstance(self.data, bytes | bytearray | memoryview)
        if was_encoded_here:
            object.__setattr__(self, "data", base64.b64encode(self.data).decode("ascii"))  # type: ignore[arg-type]
        check_fields(self)
        if "/" not in self.media_type:
            raise ValueError(f"Base64Source.media_type must be like 'image/png', got {self.media_type!r}")
        if not self.data:
            raise ValueError("Base64Source.data is empty")
        if was_encoded_here:
            return
        try:
            base64.b64decode(self.data, validate=True)
        except ValueError as exc:
            raise ValueError(f"Base64Source.data is not base64 ({exc}); pass the raw bytes instead") from exc


@dataclass(frozen=True, slots=True)
class UrlSource(Source):
    """A URL that the provider fetches."""

    type: ClassVar[Literal["url"]] = "url"
    url: str

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.url:
            raise ValueError("UrlSource.url must not be empty")


@dataclass(frozen=True, slots=True)
class FileSource(Source):
    """A file that was uploaded to the provider earlier."""

    type: ClassVar[Literal["file"]] = "file"
    file_id: str

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.file_id:
            raise ValueError("FileSource.file_id must not be empty")


@dataclass(frozen=True, slots=True, kw_only=True)
class Block(Tagged):
    """A part of a message; the base class of all blocks."""

    type: ClassVar[str]
    cache_control: CacheControl | None = None

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, slots=True)
class TextBlock(Block):
    """Text. An empty block is not sent."""

    type: ClassVar[Literal["text"]] = "text"
    text: str


@dataclass(frozen=True, slots=True)
class _FileBlock(Block):
    """An image, a document or audio."""

    source: Source = field(metadata=nested(Source))

    @classmethod
    def from_path(cls: type[FileBlockT], path: str | PathLike[str]) -> FileBlockT:
        """A block with the bytes of a file. Its first bytes determine the media type, or else the suffix of its name.

        Raises:
            OSError: the file cannot be read.
            ValueError: the media type is unknown, or belongs to another class of block; use
                ``Base64Source(media_type, data)``.
        """
        file = Path(path)
        data = file.read_bytes()
        media_type = media_type_of_bytes(data[:ENOUGH_BYTES]) or media_type_of_name(file.name)
        if media_type is None:
            raise ValueError(f"{file.name}: the media type of this name is unknown; use Base64Source(media_type, data)")
        kind = media_type.partition("/")[0]
        is_own_kind = {
            "image": kind == "image",
            "audio": kind in ("audio", "video"),  # sound is also in containers, such as video/webm
            "document": kind not in ("image", "audio"),
        }
        if not is_own_kind[cls.type]:
            raise ValueError(
                f"{cls.__name__}.from_path: {file.name} has the media type {media_type}; use the block of that kind, "
                f"or {cls.__name__}(Base64Source(media_type, data))"
            )
        return cls(Base64Source(media_type, data))

    def to_bytes(self) -> bytes:
        """The bytes of the file.

        Raises:
            ValueError: the block has a URL or the id of an uploaded file instead of the bytes.
        """
        if not isinstance(self.source, Base64Source):
            kind = type(self.source).__name__
            raise ValueError(f"{type(self).__name__} has no bytes, its source is a {kind}; fetch the file first")
        return base64.b64decode(self.source.data)

    def save(self, path: str | PathLike[str]) -> Path:
        """Write the bytes to a file, and return its path. A file that exists is overwritten.

        A path without a suffix gets the one of the media type: ``turn.images[0].save("cat")`` may write ``cat.png``.

        Raises:
            OSError: the file cannot be written.
            ValueError: the block has a URL or the id of an uploaded file instead of the bytes.
        """
        data, file = self.to_bytes(), Path(path)
        if not file.suffix and isinstance(self.source, Base64Source):
            file = file.with_name(file.name + suffix_of(self.source.media_type))
        file.write_bytes(data)
        return file


@dataclass(frozen=True, slots=True)
class ImageBlock(_FileBlock):
    """An image."""

    type: ClassVar[Literal["image"]] = "image"

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        """The image for a notebook. An image at a URL is not fetched: its server would learn who opens the notebook."""
        label = f"<ImageBlock {_source_label(self.source)}>"
        match self.source:
            case Base64Source(media_type, data) if media_type in _SHOWN_MEDIA_TYPES:
                return {media_type: data, "text/plain": label}
        return {"text/plain": label}


@dataclass(frozen=True, slots=True)
class DocumentBlock(_FileBlock):
    """A document, usually a PDF. ``name`` is its file name."""

    type: ClassVar[Literal["document"]] = "document"
    name: str | None = None

    @classmethod
    def from_path(cls, path: str | PathLike[str]) -> DocumentBlock:
        """A block with the bytes and the name of a file. Raises the errors of ``ImageBlock.from_path``."""
        # super() needs arguments here: slots=True makes a second class, and a plain super() refers to the first one.
        unnamed = super(DocumentBlock, cls).from_path(path)
        return cls(unnamed.source, name=Path(path).name)


@dataclass(frozen=True, slots=True)
class AudioBlock(_FileBlock):
    """Audio, such as speech."""

    type: ClassVar[Literal["audio"]] = "audio"


@dataclass(frozen=True, slots=True)
class ToolCallBlock(Block):
    """A tool call of the model. ``args`` is the JSON object of its arguments.

    A call may be signed: ``signature``, ``provider`` and ``wire_data`` are as in ReasoningBlock.
    """

    type: ClassVar[Literal["tool_call"]] = "tool_call"
    call_id: str
    name: str
    args: dict[str, Any] = field(metadata=nested(dict))
    signature: str | None = None
    provider: str | None = None
    wire_data: dict[str, Any] | None = field(default=None, compare=False, metadata=nested_or_absent(dict))


@dataclass(frozen=True, slots=True)
class ToolResultBlock(Block):
    """The result of the tool call ``call_id``. ``blocks`` may be a plain string, or mix strings and blocks."""

    type: ClassVar[Literal["tool_result"]] = "tool_result"
    call_id: str
    blocks: tuple[AnyBlock, ...] = field(metadata=nested(Block))
    is_error: bool = False

    if TYPE_CHECKING:  # wider than the field: a plain string, or any sequence of strings and blocks

        def __init__(
            self,
            call_id: str,
            blocks: str | Sequence[str | Block],
            is_error: bool = False,
            *,
            cache_control: CacheControl | None = None,
        ) -> None: ...

    def __post_init__(self) -> None:
        object.__setattr__(self, "blocks", _as_blocks(self.blocks, "ToolResultBlock"))
        check_fields(self)


@dataclass(frozen=True, slots=True)
class ReasoningBlock(Block):
    """Reasoning of the model.

    ``signature`` is sent back only to the ``provider`` that signed it: a wire such as ``anthropic``, or ``wire@host``.
    None, in a history that an old version stored, lets it go to every provider. ``wire_data`` is what else the wire
    needs, such as the field in which the reasoning came.
    """

    type: ClassVar[Literal["reasoning"]] = "reasoning"
    text: str
    signature: str | None = None
    provider: str | None = None
    wire_data: dict[str, Any] | None = field(default=None, compare=False, metadata=nested_or_absent(dict))


@dataclass(frozen=True, slots=True)
class RedactedReasoningBlock(Block):
    """Reasoning that the provider encrypted. ``provider``, ``wire_data``: as in ReasoningBlock."""

    type: ClassVar[Literal["redacted_reasoning"]] = "redacted_reasoning"
    data: str
    provider: str | None = None
    wire_data: dict[str, Any] | None = field(default=None, compare=False, metadata=nested_or_absent(dict))


@dataclass(frozen=True, slots=True)
class ProviderBlock(Block):
    """A block of a kind that only one wire supports. It is sent back unchanged on that wire, and never on another.

    ``provider`` is the wire: ``anthropic``, ``openai-chat``, ``openai-responses``, ``gemini``, ``bedrock``.
    ``citations``: the sources that the block cites; they are not sent back, ``data`` has them in the wire's own form.
    """

    type: ClassVar[Literal["provider"]] = "provider"
    provider: str
    data: dict[str, Any] = field(metadata=nested(dict))
    citations: tuple[Citation, ...] = field(default=(), compare=False, metadata=nested_tuple_or_absent(Citation))

    @property
    def image(self) -> ImageBlock | None:
        """The image that the model made, if the block is one."""
        found = image_in(self.data)
        if found is None:
            return None
        try:
            return ImageBlock(UrlSource(found.url) if found.url else Base64Source(found.media_type, found.data))
        except ValueError:  # what the server sent is not base64
            return None

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        """For a notebook: the image, if the block is one."""
        image = self.image
        return {"text/plain": repr(self)} if image is None else image._repr_mimebundle_()


if TYPE_CHECKING:  # the union of the blocks: ``if block.type == "text": block.text`` narrows it
    AnyBlock: TypeAlias = (
        TextBlock
        | ImageBlock
        | DocumentBlock
        | AudioBlock
        | ToolResultBlock
        | ToolCallBlock
        | ReasoningBlock
        | RedactedReasoningBlock
        | ProviderBlock
    )
else:
    AnyBlock = Block


@dataclass(frozen=True, slots=True)
class Message(Record):
    """A message of the user or of the model. ``blocks`` may be a plain string, or mix strings and blocks."""

    role: Role
    blocks: tuple[AnyBlock, ...] = field(metadata=nested(Block))

    if TYPE_CHECKING:  # wider than the field: a plain string, or any sequence of strings and blocks

        def __init__(self, role: Role, blocks: str | Sequence[str | Block]) -> None: ...

    def __post_init__(self) -> None:
        if self.role not in ("user", "assistant"):
            raise ValueError(
                f"Message.role must be 'user' or 'assistant', got {self.role!r}"
                " (use ChatRequest.system_prompt for system text)"
            )
        object.__setattr__(self, "blocks", _as_blocks(self.blocks, "Message"))

    @classmethod
    def user(cls, blocks: str | Sequence[str | Block]) -> Message:
        """A message of the user."""
        return cls("user", blocks)

    @classmethod
    def assistant(cls, blocks: str | Sequence[str | Block]) -> Message:
        """A message of the model."""
        return cls("assistant", blocks)

    @classmethod
    def tool_result(cls, call_id: str, blocks: str | Sequence[str | Block], is_error: bool = False) -> Message:
        """A user message with the result of one tool call."""
        return cls("user", [ToolResultBlock(call_id, blocks, is_error)])

    @property
    def text(self) -> str:
        """The text blocks, joined."""
        return "".join(block.text for block in self.blocks if isinstance(block, TextBlock))

    @property
    def images(self) -> tuple[ImageBlock, ...]:
        """The images of the message: those that the user sent, or those that the model made."""
        found = (block.image if isinstance(block, ProviderBlock) else block for block in self.blocks)
        return tuple(block for block in found if isinstance(block, ImageBlock))

    def _repr_markdown_(self) -> str:
        """Markdown for a notebook."""
        return _markdown(self.blocks)


def _markdown(blocks: Iterable[Block]) -> str:
    """Text unchanged, and each other block with a label."""
    parts: list[str] = []
    for is_text, group in groupby(blocks, lambda block: isinstance(block, TextBlock)):
        shown = map(_shown, group)
        parts += ["".join(shown)] if is_text else shown
    return document(parts)


def _shown(block: Block) -> str:
    """The Markdown of one block."""
    match block:
        case TextBlock(text):
            return text
        case ReasoningBlock(text):
            return quoted(f"*Reasoning*\n\n{text}") if text else ""
        case RedactedReasoningBlock():
            return quoted("*Reasoning, encrypted by the provider*")
        case ToolCallBlock(call_id, name, args):
            shown_args = json.dumps(args, ensure_ascii=False, indent=2, default=repr)
            return f"*Call* {code(name)} *as* {code(call_id)}\n\n{fenced(shown_args, 'json')}"
        case ToolResultBlock(call_id, inner, is_error):
            return f"*{'Error' if is_error else 'Result'} of* {code(call_id)}\n\n{quoted(_markdown(inner))}"
        case ImageBlock():
            return _shown_image(block, _SHOWN_BYTES)
        case DocumentBlock(source, name) if name:
            return f"*Document* {code(name)}, {_source_label(source)}"
        case _FileBlock(source):
            return f"*{block.type.capitalize()}* {_source_label(source)}"
        case ProviderBlock(provider, data):
            if (image := block.image) is not None:
                return _shown_image(image, _SHOWN_BYTES_OF_ANSWERS)
            kind = data.get("type") or next(iter(data), "?")  # a part of Gemini has one field instead of a type
            return f"*Block of {provider}* {code(str(kind))}"
    return f"*{block.type}*"


def _shown_image(image: ImageBlock, max_bytes: int) -> str:
    match image.source:
        case Base64Source(media_type, data) if media_type in _SHOWN_MEDIA_TYPES and _decoded_size(data) <= max_bytes:
            return f"![image](data:{media_type};base64,{data})"
    return f"*Image* {_source_label(image.source)}"


def _source_label(source: Source) -> str:
    match source:
        case Base64Source(media_type, data):
            return f"{code(media_type)}, {_decoded_size(data)} bytes"
        case UrlSource(url):
            return code(url if len(url) <= 200 else f"{url[:200]}…")
        case FileSource(file_id):
            return f"file {code(file_id)}"
    return code(source.type)


def _decoded_size(base64_text: str) -> int:
    return len(base64_text.rstrip("=")) * 3 // 4


def _as_blocks(given: str | Sequence[str | Block], owner: str) -> tuple[AnyBlock, ...]:
    if isinstance(given, str | Block):
        given = [given]
    if not isinstance(given, Iterable):
        raise TypeError(f"{owner}.blocks takes a str or a list of str and blocks, got {type(given).__name__}")
    blocks: tuple[Any, ...] = tuple(TextBlock(item) if isinstance(item, str) else item for item in given)
    for i, block in enumerate(blocks):
        if not isinstance(block, Block):
            raise TypeError(
                f"{owner}.blocks[{i}] must be a str, or a block such as ImageBlock, got {type(block).__name__}"
            )
    return blocks
