"""The words of Chat Completions: finish reasons, fields, media types."""

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


# A usage without any of these is not a usage. The last two are the names of the Responses API.
USAGE_TOTALS = ("prompt_tokens", "completion_tokens", "input_tokens", "output_tokens")


# Our words for tool_choice, and the API's.
TOOL_CHOICES = {"auto": "auto", "any": "required", "none": "none"}


# Fields of a delta that contain whole blocks. The contract does not model them, so they become provider blocks.
# executed_tools: Groq's compound models run tools on the server. context: Azure cites its data there.
PROVIDER_BLOCK_FIELDS = ("annotations", "images", "executed_tools", "context")


# Parts of the content that are reasoning, and the fields of their text.
REASONING_PARTS = {
    "thinking": ("thinking", "text"),  # Mistral
    "reasoning": ("reasoning", "text"),
    "reasoning_text": ("text",),
    "reasoning_content": ("text",),
}


# The format that the API expects for each media type.
AUDIO_FORMATS = {
    "audio/wav": "wav",
    "audio/x-wav": "wav",
    "audio/wave": "wav",
    "audio/mpeg": "mp3",
    "audio/mp3": "mp3",
}
