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
On it stand ``attempts``, ``retry`` and ``fallback``; ``offload``, with ``aio`` (asyncio), ``web`` and ``notebook``; and
``engine``, which runs tools, with ``tracing`` and ``otel``.
"""

import os
import sys
from typing import TYPE_CHECKING, Any

# ``python -m completion`` puts the current folder first on the path, and imports this module before __main__: whatever
# comes next would be taken from that folder. While Python looks for the module, "-m" is in the place of its name.
if sys.argv[:1] == ["-m"] and sys.orig_argv[-len(sys.argv)] in ("completion", "-mcompletion"):
    sys.path[:1] = [folder for folder in sys.path[:1] if folder not in ("", os.getcwd())]

from completion.adapters.anthropic import AnthropicClient, AnthropicModel
from completion.adapters.azure_openai import AzureOpenAIClient, AzureOpenAIModel
from completion.adapters.local import LocalModel
from completion.adapters.openai import OpenAIClient, OpenAIModel
from completion.contract.cancel import CancelToken
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
from completion.contract.errors import (
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
from completion.contract.run import Abort, RunFinished, RunStarted, StepFinished, StepStarted, ToolResult
from completion.contract.stream import ChatStream, ResponseInfo
from completion.contract.turn import Turn, collect
from completion.registry import model
from completion.transport import Timeout
from completion.version import __version__
from completion.wrappers.fallback import FallbackModel
from completion.wrappers.retry import RetryConfig, RetryEvent, RetryingModel

if TYPE_CHECKING:
    from completion.engine import (
        AbortRun,
        Approval,
        CallLimit,
        Conversation,
        FunctionTool,
        LoopDetection,
        Middleware,
        Redaction,
        Refusal,
        RunConfig,
        RunInfo,
        RunResult,
        RunStream,
        Tool,
        ToolContext,
        ToolError,
        run_chat,
        tool,
    )
    from completion.offload.aio import AsyncModel
    from completion.tracing import JsonTracer

__all__ = [
    "Abort",
    "AbortRun",
    "AnthropicClient",
    "AnthropicModel",
    "Approval",
    "AsyncModel",
    "AudioBlock",
    "AuthenticationError",
    "AzureOpenAIClient",
    "AzureOpenAIModel",
    "Base64Source",
    "Block",
    "CacheControl",
    "CallLimit",
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
    "Conversation",
    "DeadlineExceededError",
    "DocumentBlock",
    "FallbackModel",
    "FileSource",
    "FinishReason",
    "FunctionTool",
    "IdleTimeoutError",
    "ImageBlock",
    "InvalidRequestError",
    "JsonSchema",
    "JsonTracer",
    "LocalModel",
    "LoopDetection",
    "MalformedStreamError",
    "Message",
    "Middleware",
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
    "Redaction",
    "Refusal",
    "RequestTooLargeError",
    "ResponseInfo",
    "RetryConfig",
    "RetryEvent",
    "Retryable",
    "RetryingModel",
    "RunConfig",
    "RunFinished",
    "RunInfo",
    "RunResult",
    "RunStarted",
    "RunStream",
    "ServerError",
    "Source",
    "StepFinished",
    "StepStarted",
    "StreamCancelledError",
    "StreamChunk",
    "StreamError",
    "SystemBlock",
    "TextBlock",
    "TextDelta",
    "Timeout",
    "Tool",
    "ToolCallArgsDelta",
    "ToolCallBlock",
    "ToolCallFinished",
    "ToolCallMalformed",
    "ToolCallStarted",
    "ToolChoice",
    "ToolContext",
    "ToolDefinition",
    "ToolError",
    "ToolResult",
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
    "run_chat",
    "tool",
]


# What most programs do without, and shall not pay for: imported when it is asked for.
_LATER = {
    "AsyncModel": "offload.aio",
    "JsonTracer": "tracing",
    "AbortRun": "engine",
    "Approval": "engine",
    "CallLimit": "engine",
    "Conversation": "engine",
    "FunctionTool": "engine",
    "LoopDetection": "engine",
    "Middleware": "engine",
    "Redaction": "engine",
    "Refusal": "engine",
    "RunConfig": "engine",
    "RunInfo": "engine",
    "RunResult": "engine",
    "RunStream": "engine",
    "Tool": "engine",
    "ToolContext": "engine",
    "ToolError": "engine",
    "run_chat": "engine",
    "tool": "engine",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    globals()[name] = found = getattr(import_module(f"completion.{_LATER[name]}"), name)
    return found
