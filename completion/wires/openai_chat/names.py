"""The words of Chat Completions: finish reasons, fields, media types."""

from __future__ import annotations

from completion.contract.chunks import FinishReason
from completion.contract.errors import CompletionError, OverloadedError, ProviderError, TruncatedStreamError

WIRE = "openai-chat"


FINISH_REASONS = {
    "stop": FinishReason.END_TURN,
    "length": FinishReason.MAX_TOKENS,
    "model_length": FinishReason.MAX_TOKENS,  # Mistral
    "tool_calls": FinishReason.TOOL_USE,
    "function_call": FinishReason.TOOL_USE,
    "content_filter": FinishReason.CONTENT_FILTER,
    # Words of other servers, and of other wires that gateways pass on.
    "eos": FinishReason.END_TURN,
    "eos_token": FinishReason.END_TURN,
    "end_turn": FinishReason.END_TURN,
    "complete": FinishReason.END_TURN,
    "completed": FinishReason.END_TURN,
    "stop_sequence": FinishReason.STOP_SEQUENCE,
    "max_tokens": FinishReason.MAX_TOKENS,
    "max_output_tokens": FinishReason.MAX_TOKENS,
    "model_context_window_exceeded": FinishReason.CONTEXT_OVERFLOW,  # Z.ai, Anthropic
    "context_length_exceeded": FinishReason.CONTEXT_OVERFLOW,
    "context_window_exceeded": FinishReason.CONTEXT_OVERFLOW,
    "tool_use": FinishReason.TOOL_USE,
    "tool_call": FinishReason.TOOL_USE,
    "sensitive": FinishReason.CONTENT_FILTER,  # Z.ai
    "safety": FinishReason.CONTENT_FILTER,  # Gemini
    "recitation": FinishReason.CONTENT_FILTER,
    "blocklist": FinishReason.CONTENT_FILTER,
    "prohibited_content": FinishReason.CONTENT_FILTER,
    "content_filtered": FinishReason.CONTENT_FILTER,  # Bedrock
    "guardrail_intervened": FinishReason.CONTENT_FILTER,
    "blocked": FinishReason.CONTENT_FILTER,
    "refusal": FinishReason.REFUSAL,  # Anthropic
    "pause_turn": FinishReason.PAUSE,
    "abort": FinishReason.ABORTED,  # vLLM, SGLang
    "aborted": FinishReason.ABORTED,
    "cancelled": FinishReason.ABORTED,
}

# The words of an answer that broke off, and the error for each.
FAILURES: dict[str, type[CompletionError]] = {
    "error": ProviderError,
    "network_error": TruncatedStreamError,  # Z.ai
    "insufficient_system_resource": OverloadedError,  # DeepSeek
    "malformed_function_call": ProviderError,  # Gemini
    "unexpected_tool_call": ProviderError,
}


# A usage without any of these is not a usage. The last two are the names of the Responses API.
USAGE_TOTALS = ("prompt_tokens", "completion_tokens", "input_tokens", "output_tokens")


# Stands between tool results and a message of the user, for servers that refuse that order.
BETWEEN = "OK."


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
