"""How large the files in a request may be: checked before anything is sent."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from completion.contract.messages import (
    AudioBlock,
    Base64Source,
    Block,
    DocumentBlock,
    ImageBlock,
    Message,
    ToolResultBlock,
)
from completion.wires.lowering import unsupported

MB: Final = 1024 * 1024
"""Vendors write MB for both 1000² and 1024² bytes. The larger one refuses nothing that the vendor would accept."""

_File = ImageBlock | DocumentBlock | AudioBlock


@dataclass(frozen=True, slots=True)
class SizeLimit:
    """The largest size that a provider accepts, in characters of base64: 4 for each 3 bytes of a file.

    Args:
        kind: the type of the blocks, such as ``"image"``. ``"request"``: all files of a request together.
        max_base64: the most characters.
        media_types: the limit is for files of these types; empty: of all types.
    """

    kind: Literal["image", "document", "audio", "request"]
    max_base64: int
    media_types: tuple[str, ...] = ()

    @classmethod
    def of_bytes(cls, kind: Literal["image", "document", "audio"], max_bytes: int, *media_types: str) -> SizeLimit:
        """The limit of a provider that counts the bytes of the file."""
        return cls(kind, (max_bytes + 2) // 3 * 4, media_types)

    def matches(self, block: _File, media_type: str) -> bool:
        return self.kind == block.type and (not self.media_types or media_type in self.media_types)


def check_sizes(messages: Iterable[Message], limits: Sequence[SizeLimit]) -> None:
    """Raise UnsupportedContentError for a file that is too large, or for files that are too large together.

    Only bytes count. The size of a file behind a URL or an id is not known.
    """
    if not limits:
        return
    files = list(_files(block for message in messages for block in message.blocks))
    for limit in limits:
        if limit.kind == "request":
            total = sum(len(source.data) for _, source in files)
            if total > limit.max_base64:
                largest = max(files, key=lambda file: len(file[1].data))
                text = f"the files of the request have {_mb(total)}, the largest one {_mb(len(largest[1].data))}"
                raise _too_large(largest[0], text, limit)
        for block, source in files:
            if limit.matches(block, source.media_type) and len(source.data) > limit.max_base64:
                raise _too_large(block, f"it has {_mb(len(source.data))}", limit)


def _files(blocks: Iterable[Block]) -> Iterator[tuple[_File, Base64Source]]:
    for block in blocks:
        if isinstance(block, ToolResultBlock):
            yield from _files(block.blocks)
        elif isinstance(block, ImageBlock | DocumentBlock | AudioBlock) and isinstance(block.source, Base64Source):
            yield block, block.source


def _too_large(block: _File, what: str, limit: SizeLimit) -> Exception:
    name = getattr(block, "name", None)
    field = f"{type(block).__name__} {name!r}" if name else type(block).__name__
    advice = "make it smaller, or give a URL or a file id; client.size_limits = () turns the check off"
    return unsupported(field, f"{what}, and the provider accepts {_mb(limit.max_base64)} ({advice})")


def _mb(base64_length: int) -> str:
    """The size of the file, and of its base64, which is what is sent."""
    return f"{base64_length * 3 / 4 / MB:.2f} MB ({base64_length / MB:.2f} MB as base64)"


# --- what the vendors document (read November 2026) ------------------------------------------------------------------

# https://platform.claude.com/docs/en/build-with-claude/vision and https://platform.claude.com/docs/en/api/overview
ANTHROPIC: Final = (SizeLimit("image", 10 * MB), SizeLimit("request", 32 * MB))

# The same page, on Amazon Bedrock and Google Cloud. Their limits for a request are lower too, but not documented there.
CLAUDE_IN_CLOUDS: Final = (SizeLimit("image", 5 * MB),)

# https://developers.openai.com/api/docs/guides/images-vision and https://developers.openai.com/api/docs/guides/pdf-files
OPENAI: Final = (SizeLimit.of_bytes("document", 50 * MB), SizeLimit("request", 512 * MB))

# https://ai.google.dev/gemini-api/docs/file-input-methods
GEMINI: Final = (SizeLimit.of_bytes("document", 50 * MB, "application/pdf"), SizeLimit("request", 100 * MB))

# https://docs.aws.amazon.com/bedrock/latest/userguide/inference-api-restrictions.html
# The models of some makers read a PDF or a DOCX of any size. Images have no limit of Bedrock's own.
_LIMITED_AT_BEDROCK: Final = (
    "text/csv",
    "text/html",
    "text/markdown",
    "text/plain",
    "application/msword",
    "application/vnd.ms-excel",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
)
BEDROCK: Final = (SizeLimit.of_bytes("document", 9 * MB // 2, *_LIMITED_AT_BEDROCK),)
