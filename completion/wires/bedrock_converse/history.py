"""Messages -> content blocks of Bedrock Converse."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from completion.contract.messages import (
    AudioBlock,
    Base64Source,
    Block,
    CacheControl,
    DocumentBlock,
    ImageBlock,
    Message,
    ProviderBlock,
    ReasoningBlock,
    RedactedReasoningBlock,
    TextBlock,
    ToolCallBlock,
    ToolResultBlock,
    UrlSource,
)
from completion.contract.request import ChatRequest
from completion.wires.bedrock_converse.names import (
    ABOUT_DOCUMENT,
    AUDIO_FORMATS,
    CITATIONS,
    DOCUMENT_FORMATS,
    EMPTY_RESULT,
    IMAGE_FORMATS,
    MAX_DOCUMENT_NAME_LENGTH,
    MESSAGE,
    WIRE,
)
from completion.wires.history import CallIds, HistoryRules
from completion.wires.json_values import objects_in, positive_int, str_or_empty
from completion.wires.lowering import image_type, unsupported

# https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_DocumentBlock.html
_ILLEGAL_IN_DOCUMENT_NAMES = re.compile(r"[^a-zA-Z0-9\s()\[\]-]")


def history_rules(dialect: Any) -> HistoryRules:
    return HistoryRules(
        call_ids=CallIds(illegal=re.compile(r"[^a-zA-Z0-9_-]")),  # Claude refuses the "." and ":" that others accept
        result_blocks=(TextBlock, ImageBlock, DocumentBlock),
        error_blocks=(TextBlock,),  # Claude refuses an image in a failed result
        fills_message=_fills_message,
        begins_with_user=True,
    )


def _fills_message(block: Block) -> bool:
    match block:
        case TextBlock(text=text):
            return bool(text.strip())  # the API refuses blank texts
        case ReasoningBlock(signature=signature):
            return bool(signature)
        case ProviderBlock(data=own):
            return _is_sent(own)
    return True


def _is_sent(own: dict[str, Any]) -> bool:
    """The data of a provider block is a content block of the API, not one that we made ourselves."""
    return own.get("type") not in (CITATIONS, MESSAGE)


def cache_point(control: CacheControl) -> dict[str, Any]:
    """A cache point: the API caches the prompt up to here."""
    return {"cachePoint": {"type": "default", **({} if control.ttl == "5m" else {"ttl": control.ttl})}}


def messages(request: ChatRequest, *, caches: bool = True) -> list[dict[str, Any]]:
    """The messages of the request. ``caches``: the model supports cache points in them."""
    content_of = _Content(caches)
    lowered: list[dict[str, Any]] = []
    for message in request.messages:
        content = content_of.user(message) if message.role == "user" else content_of.assistant(message)
        if not content:
            continue
        if lowered and lowered[-1]["role"] == message.role:  # the message between these two had nothing to send
            lowered[-1]["content"] += content
        else:
            lowered.append({"role": message.role, "content": content})
    if not lowered:
        raise unsupported("messages", "they contain nothing to send")
    for lowered_message in lowered:
        _complete(lowered_message["content"])
    last = lowered[-1]["content"][-1]
    # If the last message is the model's, the model continues it. Claude refuses white space at its end.
    if lowered[-1]["role"] == "assistant" and "text" in last:
        lowered[-1]["content"][-1] = {"text": str_or_empty(last["text"]).rstrip()}
    return lowered


def _complete(content: list[dict[str, Any]]) -> None:
    """Add a text to a message with a document and without any text: the API refuses it."""
    if any("document" in block for block in content) and not any("text" in block for block in content):
        place = next(n for n, block in enumerate(content) if "document" in block)
        content.insert(place, {"text": ABOUT_DOCUMENT})


class _Content:
    """Makes the content blocks of all messages. One object for all, because the names of documents must differ."""

    def __init__(self, caches: bool) -> None:
        self._caches = caches
        self._document_names: set[str] = set()

    def assistant(self, message: Message) -> list[dict[str, Any]]:
        """The content blocks in the order in which the API sent them, with reasoning and signatures."""
        content: list[dict[str, Any]] = []
        for block in message.blocks:
            match block:
                case TextBlock(text=text):
                    if text.strip():
                        content.append({"text": text})
                case ReasoningBlock(text=text, signature=signature):
                    if signature:  # Claude refuses reasoning that it did not sign
                        content.append({"reasoningContent": {"reasoningText": {"text": text, "signature": signature}}})
                case RedactedReasoningBlock(data=data):
                    content.append({"reasoningContent": {"redactedContent": data}})
                case ToolCallBlock(call_id=call_id, name=name, args=args):
                    content.append({"toolUse": {"toolUseId": call_id, "name": name, "input": args}})
                case ProviderBlock(data=own):
                    if own.get("type") == CITATIONS and content and "text" in content[-1]:
                        content[-1:] = _cited(content[-1]["text"], own)
                    elif _is_sent(own):
                        content.append(own)
                case _:
                    raise unsupported(type(block).__name__, "an assistant message cannot contain it")
            self._add_cache_point(content, block)
        return content

    def user(self, message: Message) -> list[dict[str, Any]]:
        content: list[dict[str, Any]] = []
        for block in message.blocks:
            if isinstance(block, ToolResultBlock):
                content.append(self._tool_result(block))
                for inner in block.blocks:  # a result cannot contain a cache point
                    self._add_cache_point(content, inner)
            else:
                content += self._part(block)
            self._add_cache_point(content, block)
        return content

    def _add_cache_point(self, content: list[dict[str, Any]], block: Block) -> None:
        if block.cache_control and self._caches and content and "cachePoint" not in content[-1]:
            content.append(cache_point(block.cache_control))

    def _tool_result(self, result: ToolResultBlock) -> dict[str, Any]:
        if any(isinstance(block, ToolResultBlock) for block in result.blocks):
            raise unsupported("ToolResultBlock", "a ToolResultBlock cannot contain it")
        parts = [part for block in result.blocks for part in self._part(block)]
        fields: dict[str, Any] = {"toolUseId": result.call_id, "content": parts or [{"text": EMPTY_RESULT}]}
        if result.is_error:
            fields["status"] = "error"
        return {"toolResult": fields}

    def _part(self, block: Block) -> Iterable[dict[str, Any]]:
        match block:
            case TextBlock(text=text):
                return [{"text": text}] if text.strip() else []
            case ImageBlock(source=source):
                media_type = image_type(source) if isinstance(source, Base64Source) else _type_of_url(source)
                return [{"image": _media(block, IMAGE_FORMATS.get(media_type), media_type)}]
            case AudioBlock(source=source):
                media_type = source.media_type if isinstance(source, Base64Source) else ""
                return [{"audio": _media(block, AUDIO_FORMATS.get(media_type.partition(";")[0]), media_type)}]
            case DocumentBlock(source=source, name=name):
                return [self._document(block, name)]
            case ProviderBlock(provider=provider, data=own):
                return [own] if provider == WIRE else []
            case _:
                raise unsupported(type(block).__name__, "a user message cannot contain it")

    def _document(self, block: DocumentBlock, name: str | None) -> dict[str, Any]:
        source = block.source
        media_type = source.media_type if isinstance(source, Base64Source) else _type_of_url(source)
        media_type = media_type.partition(";")[0].strip()
        kind = DOCUMENT_FORMATS.get(media_type) or ("txt" if media_type.startswith("text/") else None)
        media = _media(block, kind, media_type)
        name = _legal_document_name(name, str(kind))
        unique, number = name, 1
        while unique in self._document_names:
            number += 1
            unique = f"{name[: MAX_DOCUMENT_NAME_LENGTH - 8]} ({number})"
        self._document_names.add(unique)
        return {"document": {**media, "name": unique}}


def _legal_document_name(name: str | None, kind: str) -> str:
    """The name with legal characters only, and without a suffix that repeats the format."""
    name = re.sub(rf"\.{kind}$", "", name or "", flags=re.IGNORECASE)
    name = _ILLEGAL_IN_DOCUMENT_NAMES.sub("-", name)
    return " ".join(name.split())[:MAX_DOCUMENT_NAME_LENGTH].strip() or "document"


_TYPE_BY_ENDING = {
    **{format: media_type for media_type, format in (IMAGE_FORMATS | DOCUMENT_FORMATS).items()},
    **{"jpg": "image/jpeg", "txt": "text/plain", "htm": "text/html"},
}


def _type_of_url(source: Any) -> str:
    """The media type of an S3 URL, by its suffix; "" if unknown. Bedrock reads such URLs itself."""
    url = source.url if isinstance(source, UrlSource) else ""
    return _TYPE_BY_ENDING.get(url.rpartition(".")[2].lower(), "")


def _media(block: ImageBlock | AudioBlock | DocumentBlock, kind: str | None, media_type: str) -> dict[str, Any]:
    """The format and the source of an image, a document or audio."""
    what, source = type(block).__name__, block.source
    if isinstance(source, UrlSource) and source.url.startswith("s3://"):
        lowered: dict[str, Any] = {"s3Location": {"uri": source.url}}
    elif isinstance(source, Base64Source):
        lowered = {"bytes": source.data}
    else:
        raise unsupported(what, "Bedrock Converse supports bytes and s3:// URLs only: give a Base64Source")
    if kind is None:
        raise unsupported(what, f"Bedrock Converse does not support the type {media_type or 'of its URL'}")
    return {"format": kind, "source": lowered}


def _cited(text: str, own: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The text as the API sent it: the text before the citations, then a block with the cited text."""
    length, citations = positive_int(own, "length"), objects_in(own.get("citations"))
    before, cited = (text[:-length], text[-length:]) if length else (text, "")
    if before.strip():
        yield {"text": before}
    if cited.strip():
        yield {"citationsContent": {"content": [{"text": cited}], "citations": citations}}
