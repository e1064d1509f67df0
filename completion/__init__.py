"""Stream the answer of a language model, in the same way from every provider.

    request -> lower -> POST -> SSE events -> assemble -> StreamChunk

    import completion
    from completion import ChatRequest

    model = completion.model("local")
    for chunk in model.chat_stream(ChatRequest("Why is the sky blue?")):
        if chunk.type == "text_delta":
            print(chunk.delta, end="", flush=True)

To read the code, follow the path of a request:

    contract     requests, messages, chunks, streams, errors: the types that all providers share
    adapters     a module per provider: model, client, endpoint, credentials
    wires        a folder per wire format: lower (request to payload), assemble (events to chunks)
    transport    one HTTP exchange; no other folder imports requests
    events       bytes to events: SSE, NDJSON
    embedded     a model that runs on this machine, without an account

Built on top of a model:

    wrappers     retry and fall back
    offload      worker threads; asyncio
    batches      many requests at a time
    engine       runs: tools, middleware, conversations
    tracing      a run as JSON lines, and its timeline
    otel         OpenTelemetry
    web          SSE responses for WSGI and ASGI
    notebook     show a stream in a notebook
    testing      a scripted model, a provider on loopback, the conformance kit
    cli          the command ``completion``
"""

import os
import sys
from typing import TYPE_CHECKING, Any

# ``python -m completion`` puts the current folder first in sys.path, and the imports below would run any requests.py of
# that folder. So it is removed first. Python imports this module while it looks for __main__; at that time sys.argv[0]
# is "-m".
if sys.argv[:1] == ["-m"] and sys.orig_argv[-len(sys.argv)] in ("completion", "-mcompletion"):
    sys.path[:1] = [folder for folder in sys.path[:1] if folder not in ("", os.getcwd())]

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
from completion.contract.citations import Citation
from completion.contract.collect import collect
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
    OutputError,
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
from completion.contract.model import ChatModel, CompletionClient, CompletionModel
from completion.contract.request import ChatRequest, JsonSchema, SystemBlock, ToolChoice, ToolDefinition
from completion.contract.run import (
    Abort,
    Chunk,
    HistoryCompacted,
    RunFinished,
    RunStarted,
    StepFinished,
    StepStarted,
    ToolResult,
)
from completion.contract.stream import ChatStream, ResponseInfo
from completion.contract.turn import Turn
from completion.version import __version__

if TYPE_CHECKING:
    from completion.adapters.anthropic import AnthropicClient, AnthropicModel
    from completion.adapters.anthropic_bedrock import AnthropicBedrockClient, AnthropicBedrockModel
    from completion.adapters.anthropic_clouds import (
        AnthropicFoundryClient,
        AnthropicFoundryModel,
        AnthropicMantleClient,
        AnthropicMantleModel,
        AnthropicVertexClient,
        AnthropicVertexModel,
    )
    from completion.adapters.azure_openai import AzureOpenAIClient, AzureOpenAIModel
    from completion.adapters.bedrock import BedrockClient, BedrockModel
    from completion.adapters.cohere import CohereClient, CohereModel
    from completion.adapters.gemini import GeminiClient, GeminiModel
    from completion.adapters.gemini_interactions import GeminiInteractionsClient, GeminiInteractionsModel
    from completion.adapters.local import LocalModel
    from completion.adapters.ollama import OllamaClient, OllamaModel
    from completion.adapters.openai import OpenAIClient, OpenAIModel
    from completion.adapters.openai_responses import OpenAIResponsesClient, OpenAIResponsesModel
    from completion.batches import BatchResult, batch
    from completion.engine import (
        AbortRun,
        Approval,
        CallLimit,
        Conversation,
        FunctionTool,
        LoopDetection,
        Middleware,
        Pending,
        Redaction,
        Refusal,
        RunConfig,
        RunInfo,
        RunResult,
        RunStream,
        StructuredStream,
        Tool,
        ToolContext,
        ToolError,
        run_chat,
        structured,
        tool,
    )
    from completion.offload.aio import AsyncModel
    from completion.registry import model
    from completion.tracing import JsonTracer
    from completion.transport import Timeout
    from completion.wrappers.fallback import FallbackModel
    from completion.wrappers.retry import RetryConfig, RetryEvent, RetryingModel

__all__ = [
    "Abort",
    "AbortRun",
    "AnthropicBedrockClient",
    "AnthropicBedrockModel",
    "AnthropicClient",
    "AnthropicFoundryClient",
    "AnthropicFoundryModel",
    "AnthropicMantleClient",
    "AnthropicMantleModel",
    "AnthropicModel",
    "AnthropicVertexClient",
    "AnthropicVertexModel",
    "Approval",
    "AsyncModel",
    "AudioBlock",
    "AuthenticationError",
    "AzureOpenAIClient",
    "AzureOpenAIModel",
    "Base64Source",
    "BatchResult",
    "BedrockClient",
    "BedrockModel",
    "Block",
    "CacheControl",
    "CallLimit",
    "CancelToken",
    "ChatModel",
    "ChatRequest",
    "ChatStream",
    "Chunk",
    "Citation",
    "CohereClient",
    "CohereModel",
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
    "GeminiClient",
    "GeminiInteractionsClient",
    "GeminiInteractionsModel",
    "GeminiModel",
    "HistoryCompacted",
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
    "OllamaClient",
    "OllamaModel",
    "OpenAIClient",
    "OpenAIModel",
    "OpenAIResponsesClient",
    "OpenAIResponsesModel",
    "OutputError",
    "OverloadedError",
    "Pending",
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
    "StructuredStream",
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
    "batch",
    "collect",
    "model",
    "run_chat",
    "structured",
    "tool",
]


# All but the contract is imported on first use: a program that asks one provider does not wait for the code of the
# others, and ``completion --version`` does not wait for requests. Names that are not in this table are in ``engine``.
_LAZY_MODULES = {
    "AnthropicBedrockClient": "adapters.anthropic_bedrock",
    "AnthropicBedrockModel": "adapters.anthropic_bedrock",
    "AnthropicClient": "adapters.anthropic",
    "AnthropicFoundryClient": "adapters.anthropic_clouds",
    "AnthropicFoundryModel": "adapters.anthropic_clouds",
    "AnthropicMantleClient": "adapters.anthropic_clouds",
    "AnthropicMantleModel": "adapters.anthropic_clouds",
    "AnthropicModel": "adapters.anthropic",
    "AnthropicVertexClient": "adapters.anthropic_clouds",
    "AnthropicVertexModel": "adapters.anthropic_clouds",
    "AsyncModel": "offload.aio",
    "AzureOpenAIClient": "adapters.azure_openai",
    "AzureOpenAIModel": "adapters.azure_openai",
    "BatchResult": "batches",
    "BedrockClient": "adapters.bedrock",
    "BedrockModel": "adapters.bedrock",
    "CohereClient": "adapters.cohere",
    "CohereModel": "adapters.cohere",
    "FallbackModel": "wrappers.fallback",
    "GeminiClient": "adapters.gemini",
    "GeminiInteractionsClient": "adapters.gemini_interactions",
    "GeminiInteractionsModel": "adapters.gemini_interactions",
    "GeminiModel": "adapters.gemini",
    "JsonTracer": "tracing",
    "LocalModel": "adapters.local",
    "OllamaClient": "adapters.ollama",
    "OllamaModel": "adapters.ollama",
    "OpenAIClient": "adapters.openai",
    "OpenAIModel": "adapters.openai",
    "OpenAIResponsesClient": "adapters.openai_responses",
    "OpenAIResponsesModel": "adapters.openai_responses",
    "RetryConfig": "wrappers.retry",
    "RetryEvent": "wrappers.retry",
    "RetryingModel": "wrappers.retry",
    "Timeout": "transport",
    "batch": "batches",
    "model": "registry",
}

# After ``import completion``, ``completion.adapters`` and so on are there without an import of their own.
_PACKAGES = ("adapters", "events", "registry", "transport", "wires", "wrappers")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    """Import a name of ``__all__``, or a package of _PACKAGES, that is not imported above."""
    from importlib import import_module

    if name in _PACKAGES:
        return import_module(f"completion.{name}")
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = import_module(f"completion.{_LAZY_MODULES.get(name, 'engine')}")
    globals()[name] = found = getattr(module, name)
    return found
