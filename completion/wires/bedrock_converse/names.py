"""The names and limits of Bedrock Converse, and what the models of each maker support."""

from __future__ import annotations

import re

from completion.contract.chunks import FinishReason
from completion.wires.claude import Version, version_of

WIRE = "bedrock"

FINISH_REASONS = {
    "end_turn": FinishReason.END_TURN,
    "tool_use": FinishReason.TOOL_USE,
    "max_tokens": FinishReason.MAX_TOKENS,
    "stop_sequence": FinishReason.STOP_SEQUENCE,
    "guardrail_intervened": FinishReason.CONTENT_FILTER,
    "content_filtered": FinishReason.CONTENT_FILTER,
    "model_context_window_exceeded": FinishReason.CONTEXT_OVERFLOW,
    # Bedrock could not parse the model's output. Listed, so that an earlier tool call does not make it TOOL_USE.
    "malformed_model_output": FinishReason.OTHER,
    "malformed_tool_use": FinishReason.OTHER,
    # Claude's own finish reasons.
    "refusal": FinishReason.REFUSAL,
    "pause_turn": FinishReason.PAUSE,
}

IMAGE_FORMATS = {"image/png": "png", "image/jpeg": "jpeg", "image/gif": "gif", "image/webp": "webp"}

DOCUMENT_FORMATS = {
    "application/pdf": "pdf",
    "text/csv": "csv",
    "application/msword": "doc",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "docx",
    "application/vnd.ms-excel": "xls",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": "xlsx",
    "text/html": "html",
    "text/markdown": "md",
}
"""Other types of text are ``txt``."""

AUDIO_FORMATS = {
    "audio/mpeg": "mp3", "audio/mp3": "mp3", "audio/wav": "wav", "audio/x-wav": "wav", "audio/wave": "wav",
    "audio/flac": "flac", "audio/x-flac": "flac", "audio/ogg": "ogg", "audio/opus": "opus", "audio/aac": "aac",
    "audio/mp4": "mp4", "audio/m4a": "m4a", "audio/x-m4a": "m4a", "audio/webm": "webm",
}  # fmt: skip

MAX_DOCUMENT_NAME_LENGTH = 200

EMPTY_RESULT = "(no output)"
"""The text of a tool result without content, which the API refuses."""

ABOUT_DOCUMENT = "(See the document.)"
"""The text beside a document in a message without any text, which the API refuses."""

# The types of provider blocks that we make ourselves.
#   {"type": "citations", "citations": […], "length": 17}     citations of the last 17 characters of the text before it
#   {"type": "message", "additionalModelResponseFields": {…}, "trace": {…}}     other fields of a message
CITATIONS, MESSAGE = "citations", "message"

_MAKER = re.compile(
    r"(?:^|[./])(ai21|amazon|anthropic|cohere|deepseek|google|meta|minimax|mistral|moonshotai?|nvidia|openai|qwen"
    r"|twelvelabs|writer|zai)\.",
    re.IGNORECASE,
)


def maker_of(model: str) -> str | None:
    """The maker of the model: ``anthropic`` in ``us.anthropic.claude-sonnet-4-5-20250929-v1:0``. None if the id does
    not contain it, as the id of an inference profile."""
    found = _MAKER.search(model)
    if found:
        return found[1].lower()
    return "anthropic" if "claude" in model.lower() else None


def claude_version(model: str) -> Version | None:
    """The version of Claude; None for the model of another maker."""
    return version_of(model) if maker_of(model) == "anthropic" else None


def is_nova_2(model: str) -> bool:
    return "amazon.nova-2" in model.lower()


STRUCTURED_SINCE: Version = (4, 5)
"""The first version of Claude that supports ``outputConfig.textFormat`` and strict tools."""

_NEVER_STRUCTURED = ("ai21", "amazon", "cohere", "meta", "writer")


def supports_structured_output(model: str) -> bool:
    """The model supports schemas for its answer and its tool calls. True if unknown: then the API decides."""
    maker = maker_of(model)
    version = claude_version(model)
    return maker not in _NEVER_STRUCTURED and (version is None or version >= STRUCTURED_SINCE)


_NEVER_FORCED = ("ai21", "cohere", "deepseek", "meta", "writer")


def forces_calls(model: str) -> bool:
    """The model supports a ``toolChoice`` that forces a call. True if unknown: then the API decides."""
    return maker_of(model) not in _NEVER_FORCED


def caches(model: str, place: str) -> bool:
    """The model supports cache points in this place: system, tools or messages. True if unknown."""
    maker = maker_of(model)
    return maker in (None, "anthropic") or (maker == "amazon" and place != "tools")


# The path of top_k in the request format of each maker.
TOP_K_FIELDS = {
    "anthropic": ("top_k",),
    "amazon": ("inferenceConfig", "topK"),
    "cohere": ("k",),
    "mistral": ("top_k",),
}
