"""The finish reasons of all wires, because gateways pass on the words of the provider behind them."""

from __future__ import annotations

from completion.contract.chunks import FinishReason
from completion.contract.errors import (
    CompletionError,
    OverloadedError,
    ProviderError,
    ServerError,
    TruncatedStreamError,
)

REASONS = {
    "stop": FinishReason.END_TURN,
    "length": FinishReason.MAX_TOKENS,
    "model_length": FinishReason.MAX_TOKENS,  # Mistral
    "tool_calls": FinishReason.TOOL_USE,
    "function_call": FinishReason.TOOL_USE,
    "content_filter": FinishReason.CONTENT_FILTER,
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
    "error_limit": FinishReason.CONTEXT_OVERFLOW,  # Cohere
    "tool_use": FinishReason.TOOL_USE,
    "tool_call": FinishReason.TOOL_USE,
    "sensitive": FinishReason.CONTENT_FILTER,  # Z.ai
    "safety": FinishReason.CONTENT_FILTER,  # Gemini
    "recitation": FinishReason.CONTENT_FILTER,
    "blocklist": FinishReason.CONTENT_FILTER,
    "prohibited_content": FinishReason.CONTENT_FILTER,
    "spii": FinishReason.CONTENT_FILTER,
    "model_armor": FinishReason.CONTENT_FILTER,
    "image_safety": FinishReason.CONTENT_FILTER,
    "image_prohibited_content": FinishReason.CONTENT_FILTER,
    "image_recitation": FinishReason.CONTENT_FILTER,
    "content_filtered": FinishReason.CONTENT_FILTER,  # Bedrock
    "guardrail_intervened": FinishReason.CONTENT_FILTER,
    "error_toxic": FinishReason.CONTENT_FILTER,  # Cohere
    "blocked": FinishReason.CONTENT_FILTER,
    "refusal": FinishReason.REFUSAL,  # Anthropic
    "pause_turn": FinishReason.PAUSE,
    "abort": FinishReason.ABORTED,  # vLLM, SGLang
    "aborted": FinishReason.ABORTED,
    "cancelled": FinishReason.ABORTED,
    "user_cancel": FinishReason.ABORTED,  # Cohere
}
"""The finish reason for each word, in lower case."""

FAILURES: dict[str, type[CompletionError]] = {
    "error": ProviderError,
    "failed": ProviderError,
    "network_error": TruncatedStreamError,  # Z.ai
    "timeout": ServerError,  # Cohere
    "server_error": ServerError,
    "internal_error": ServerError,
    "insufficient_system_resource": OverloadedError,  # DeepSeek
    "engine_overloaded": OverloadedError,
    "overloaded": OverloadedError,
}
"""The words of an answer that broke off, and the error for each."""


def raise_if_failed(word: str, failures: dict[str, type[CompletionError]] = FAILURES) -> None:
    """Raise the error for a finish reason that means that the answer broke off."""
    failure = failures.get(word.lower())
    if failure is not None:
        message = f"the provider ended the turn with finish_reason {word!r}: the answer is not complete"
        raise failure(message, code=word)
