"""The words of Chat Completions."""

from __future__ import annotations

from completion.contract.chunks import FinishReason

WIRE = "openai-chat"


FINISH_REASONS = {
    "stop": FinishReason.END_TURN,
    "length": FinishReason.MAX_TOKENS,
    "tool_calls": FinishReason.TOOL_USE,
    "function_call": FinishReason.TOOL_USE,
    "content_filter": FinishReason.CONTENT_FILTER,
}


USAGE_TOTALS = ("prompt_tokens", "completion_tokens", "input_tokens", "output_tokens")


TOOL_CHOICES = {"auto": "auto", "any": "required", "none": "none"}


# Where a delta says something of the answer, and where it brings whole blocks of kinds that only this wire knows:
# Groq's compound runs tools on its side, Azure cites its data in the context.
PROVIDER_BLOCK_FIELDS = ("annotations", "images", "executed_tools", "context")


AUDIO_FORMATS = {
    "audio/wav": "wav",
    "audio/x-wav": "wav",
    "audio/wave": "wav",
    "audio/mpeg": "mp3",
    "audio/mp3": "mp3",
}
