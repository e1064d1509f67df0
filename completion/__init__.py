"""A language model's answer as a stream, the same from every provider.

    request -> lower -> POST -> SSE events -> assemble -> StreamChunk

    import completion
    from completion import ChatRequest

    model = completion.model("local")
    for chunk in model.chat_stream(ChatRequest("Why is the sky blue?")):
        if chunk.type == "text_delta":
            print(chunk.delta, end="", flush=True)

To read the code, follow the path: ``contract`` (what is asked and answered), ``adapters.anthropic`` (lower and
assemble), ``endpoint`` (the spine), ``transport`` (requests), ``sse`` (sseclient), ``assembly`` (order of a turn).
On it stand ``attempts``, ``retry`` and ``fallback``; and ``offload``, with ``aio`` (asyncio), ``web`` and ``notebook``.
"""

from typing import TYPE_CHECKING, Any

from completion.adapters.anthropic import AnthropicClient, AnthropicModel
from completion.adapters.azure_openai import AzureOpenAIClient, AzureOpenAIModel
from completion.adapters.local import LocalModel
from completion.adapters.openai import OpenAIClient, OpenAIModel
from completion.cancel import CancelToken
from completion.contract.chunks import (
    FinishReason,
    ProviderBlockFinished,
    ReasoningDelta,
    ReasoningFinished,
    RedactedReasoning,
    StreamChunk,
    TextDelta,
    ToolCallArgsDelta,
    ToolCallFinished,
    ToolCallMalformed,
    ToolCallStarted,
    TurnFinished,
    Usage,
)
from completion.contract.messages import (
    AudioBlock,
    Base64Source,
    Block,
    CacheControl,
    DocumentBlock,
    FileSource,
    ImageBlock,
    Message,
    ProviderBlock,
    ReasoningBlock,
    RedactedReasoningBlock,
    Source,
    TextBlock,
    ToolCallBlock,
    ToolResultBlock,
    UrlSource,
)
from completion.contract.model import CompletionClient, CompletionModel
from completion.contract.request import ChatRequest, JsonSchema, SystemBlock, ToolChoice, ToolDefinition
from completion.contract.stream import ChatStream, ResponseInfo
from completion.contract.turn import Turn, collect
from completion.errors import (
    AuthenticationError,
    CompletionError,
    ConfigurationError,
    ConnectTimeoutError,
    ContentFilterError,
    ContextOverflowError,
    DeadlineExceededError,
    IdleTimeoutError,
    InvalidRequestError,
    MalformedStreamError,
    NotFoundError,
    OverloadedError,
    Permanent,
    PermissionDeniedError,
    ProviderError,
    QuotaExceededError,
    RateLimitError,
    RequestTooLargeError,
    Retryable,
    ServerError,
    StreamCancelledError,
    StreamError,
    Transient,
    TransportError,
    TruncatedStreamError,
    UnsupportedContentError,
)
from completion.fallback import FallbackModel
from completion.registry import model
from completion.retry import RetryConfig, RetryEvent, RetryingModel
from completion.transport import Timeout
from completion.version import __version__

if TYPE_CHECKING:
    from completion.aio import AsyncModel

__all__ = [
    "AnthropicClient",
    "AnthropicModel",
    "AsyncModel",
    "AudioBlock",
    "AuthenticationError",
    "AzureOpenAIClient",
    "AzureOpenAIModel",
    "Base64Source",
    "Block",
    "CacheControl",
    "CancelToken",
    "ChatRequest",
    "ChatStream",
    "CompletionClient",
    "CompletionError",
    "CompletionModel",
    "ConfigurationError",
    "ConnectTimeoutError",
    "ContentFilterError",
    "ContextOverflowError",
    "DeadlineExceededError",
    "DocumentBlock",
    "FallbackModel",
    "FileSource",
    "FinishReason",
    "IdleTimeoutError",
    "ImageBlock",
    "InvalidRequestError",
    "JsonSchema",
    "LocalModel",
    "MalformedStreamError",
    "Message",
    "NotFoundError",
    "OpenAIClient",
    "OpenAIModel",
    "OverloadedError",
    "Permanent",
    "PermissionDeniedError",
    "ProviderBlock",
    "ProviderBlockFinished",
    "ProviderError",
    "QuotaExceededError",
    "RateLimitError",
    "ReasoningBlock",
    "ReasoningDelta",
    "ReasoningFinished",
    "RedactedReasoning",
    "RedactedReasoningBlock",
    "RequestTooLargeError",
    "ResponseInfo",
    "RetryConfig",
    "RetryEvent",
    "Retryable",
    "RetryingModel",
    "ServerError",
    "Source",
    "StreamCancelledError",
    "StreamChunk",
    "StreamError",
    "SystemBlock",
    "TextBlock",
    "TextDelta",
    "Timeout",
    "ToolCallArgsDelta",
    "ToolCallBlock",
    "ToolCallFinished",
    "ToolCallMalformed",
    "ToolCallStarted",
    "ToolChoice",
    "ToolDefinition",
    "ToolResultBlock",
    "Transient",
    "TransportError",
    "TruncatedStreamError",
    "Turn",
    "TurnFinished",
    "UnsupportedContentError",
    "UrlSource",
    "Usage",
    "__version__",
    "collect",
    "model",
]


def __getattr__(name: str) -> Any:
    """AsyncModel, when it is asked for: whoever does without it shall not pay for asyncio."""
    if name != "AsyncModel":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from completion.aio import AsyncModel

    globals()[name] = AsyncModel
    return AsyncModel
