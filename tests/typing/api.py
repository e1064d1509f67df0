"""The public API as a user with a type checker writes it. Checked by mypy --strict, never run."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

from typing_extensions import TypedDict, assert_never, assert_type

import completion
from completion import (
    AsyncModel,
    AudioBlock,
    AuthenticationError,
    AzureOpenAIClient,
    AzureOpenAIModel,
    Base64Source,
    Block,
    CacheControl,
    CancelToken,
    ChatModel,
    ChatRequest,
    ChatStream,
    Chunk,
    Citation,
    CompletionClient,
    CompletionError,
    CompletionModel,
    ConfigurationError,
    ConnectTimeoutError,
    ContentFilterError,
    ContextOverflowError,
    DeadlineExceededError,
    DocumentBlock,
    FallbackModel,
    FileSource,
    FinishReason,
    IdleTimeoutError,
    ImageBlock,
    InvalidRequestError,
    JsonSchema,
    JsonTracer,
    LocalModel,
    MalformedStreamError,
    Message,
    NotFoundError,
    OpenAIClient,
    OpenAIModel,
    OverloadedError,
    Permanent,
    PermissionDeniedError,
    ProviderBlock,
    ProviderBlockFinished,
    ProviderError,
    QuotaExceededError,
    RateLimitError,
    ReasoningBlock,
    ReasoningDelta,
    ReasoningFinished,
    RedactedReasoning,
    RedactedReasoningBlock,
    RequestTooLargeError,
    ResponseInfo,
    Retryable,
    RetryingModel,
    RunConfig,
    RunResult,
    ServerError,
    Source,
    StreamCancelledError,
    StreamChunk,
    StreamError,
    SystemBlock,
    TextBlock,
    TextDelta,
    Timeout,
    ToolCallArgsDelta,
    ToolCallBlock,
    ToolCallFinished,
    ToolCallMalformed,
    ToolCallStarted,
    ToolChoice,
    ToolDefinition,
    ToolResultBlock,
    Transient,
    TransportError,
    TruncatedStreamError,
    Turn,
    TurnFinished,
    UnsupportedContentError,
    UrlSource,
    Usage,
    collect,
    run_chat,
    tool,
)

# --- models ----------------------------------------------------------------------------------------------------------

assert_type(completion.__version__, str)


class AnswerType(TypedDict):
    text: str


def models() -> list[CompletionModel]:
    """Everything that ours make is a CompletionModel."""
    openai = OpenAIClient(api_key="k", base_url="https://api.test/v1", timeout=Timeout(read=30, total=None))
    azure = AzureOpenAIClient(api_key="k", base_url="https://acme.openai.azure.com")
    clients: list[CompletionClient] = [openai, azure]
    return [
        completion.model("openai:gpt-5", api_key="k"),
        OpenAIModel("gpt-5", api_key=lambda: "k", timeout=30, headers={"x": "y"}),
        AzureOpenAIModel("my-deployment", base_url="https://acme.openai.azure.com", token_provider=lambda: "t"),
        LocalModel(),
        *(client.completion_model("m") for client in clients),
    ]


class Echo:
    """A model of a third party. It imports our types, and inherits nothing."""

    name = "echo"
    model = "echo-1"

    def chat_stream(self, req: ChatRequest) -> Generator[StreamChunk, None, None]:
        for message in req.messages:
            yield TextDelta(message.text)
        yield TurnFinished(FinishReason.END_TURN, usage=Usage(input_tokens=1, output_tokens=1))


class EchoClient:
    def completion_model(self, model_id: str) -> Echo:
        return Echo()


echo: CompletionModel = Echo()
echo_client: CompletionClient = EchoClient()


# --- requests --------------------------------------------------------------------------------------------------------


def requests() -> Iterator[ChatRequest]:
    yield ChatRequest("Why is the sky blue?")
    tool = ToolDefinition(
        "weather",
        "The weather of a town",
        {"type": "object", "properties": {"town": {"type": "string"}}},
        tags=["read-only"],
        strict=True,
        cache_control=CacheControl("1h"),
    )
    sources: list[Source] = [Base64Source("image/png", b"\x89PNG"), UrlSource("https://a.test"), FileSource("f")]
    history: list[Message] = [
        Message.user([TextBlock("Look", cache_control=CacheControl()), *(ImageBlock(source) for source in sources)]),
        Message.user(
            [ImageBlock.from_path("a.png"), DocumentBlock.from_path(Path("b.pdf")), AudioBlock.from_path("c")]
        ),
        Message.assistant(
            [
                ReasoningBlock("…", signature="s"),
                RedactedReasoningBlock("…"),
                ToolCallBlock("c1", "weather", {"town": "Bonn"}),
                ProviderBlock("anthropic", {"type": "server_tool_use"}),
            ]
        ),
        Message.tool_result("c1", "17 °C"),
        Message("user", [ToolResultBlock("c2", [TextBlock("no such town")], is_error=True)]),
    ]
    yield ChatRequest(
        history,
        max_tokens=100,
        system_prompt=[SystemBlock("Be brief", cache_control=CacheControl())],
        tools=[tool],
        tool_choice=ToolChoice.tool("weather"),
        parallel_tool_use=False,
        temperature=1,
        top_p=0.5,
        top_k=5,
        seed=7,
        stop_sequences=["END"],
        reasoning_effort="low",
        response_format=JsonSchema("answer", {"type": "object"}),
        additional_params={"user": None},
    )
    yield ChatRequest("x", tool_choice=ToolChoice.auto(), reasoning_effort=2048, response_format="json")
    yield ChatRequest("x", response_format=AnswerType)
    yield ChatRequest("x", response_format=list[AnswerType])
    assert_type(JsonSchema.of(AnswerType), JsonSchema)
    assert_type(JsonSchema.of(int | None), JsonSchema)
    ChatRequest("x", reasoning_effort="enormous")  # type: ignore[arg-type]
    ChatRequest("x", temprature=1)  # type: ignore[call-arg]
    Message("system", "x")  # type: ignore[arg-type]


# --- streams ---------------------------------------------------------------------------------------------------------


def told(chunk: StreamChunk) -> str:
    match chunk:
        case TextDelta(delta=text) | ReasoningDelta(delta=text):
            return assert_type(text, str)
        case ReasoningFinished(signature):
            return assert_type(signature, str | None) or ""
        case RedactedReasoning(data):
            return assert_type(data, str)
        case ToolCallStarted(call_id, name):
            return f"{assert_type(call_id, str)} {assert_type(name, str)}"
        case ToolCallArgsDelta(call_id=_, delta=delta):
            return assert_type(delta, str)
        case ToolCallFinished(call_id, name, args, signature):
            return str(assert_type(args, dict[str, Any]))
        case ToolCallMalformed(raw=raw, error=error):
            return assert_type(raw, str) + assert_type(error, str)
        case ProviderBlockFinished(provider, data):
            return assert_type(provider, str) + str(assert_type(data, dict[str, Any]))
        case TurnFinished(reason=FinishReason.MAX_TOKENS):
            return "cut off"
        case TurnFinished(reason, usage):
            assert_type(reason, FinishReason)
            return str(assert_type(usage, Usage | None))
    return assert_type(chunk.type, str)


def printed(model: CompletionModel, req: ChatRequest) -> None:
    for chunk in model.chat_stream(req):
        print(told(chunk), end="", flush=True)
    assert_type(collect(model.chat_stream(req)), Turn)
    assert_type((model.name, model.model), tuple[str, str])


def streamed(model: OpenAIModel | AzureOpenAIModel | LocalModel, req: ChatRequest) -> Message:
    with model.chat_stream(req) as stream:
        assert_type(stream, ChatStream)
        assert_type(stream.response, ResponseInfo)
        assert_type(stream.response.status, int | None)
        assert_type(stream.response.headers["date"], str)
        assert_type(stream.response.request_id, str | None)
        assert_type(stream.response.dropped, tuple[str, ...])
        assert_type(next(stream), Chunk)
        threading.Timer(5, stream.cancel).start()
        turn = stream.collect()
    assert_type(turn.text, str)
    assert_type(turn.reasoning, str)
    assert_type(turn.tool_calls, tuple[ToolCallBlock, ...])
    assert_type(turn.malformed_calls, tuple[ToolCallMalformed, ...])
    assert_type(turn.reason, FinishReason | None)
    assert_type(turn.usage, Usage | None)
    assert_type(turn.service_tier, str | None)
    assert_type(turn.response_id, str | None)
    assert_type(turn.response_model, str | None)
    assert_type(Usage(1) + Usage(2), Usage)
    return turn.message


def own_stream(chunks: Iterator[StreamChunk]) -> ChatStream:
    return ChatStream(chunks, response=ResponseInfo(status=200), token=CancelToken(), provider="acme", model="m")


def cancelled(model: CompletionModel) -> None:
    with CancelToken() as token:
        threading.Timer(5, token.cancel).start()
        assert_type(CancelToken.current(), CancelToken | None)
        token.sleep(0.5)
        list(model.chat_stream(ChatRequest("x")))
    assert_type(token.cancelled, bool)


# --- names that are imported on first use -----------------------------------------------------------------------------


@tool
def weather(city: str) -> str:
    """The weather.

    Args:
        city: the name of the city.
    """
    return f"17 °C in {city}"


def finished_run(model: CompletionModel) -> RunResult:
    with JsonTracer("trace.jsonl") as tracer:
        stream = run_chat(model, ChatRequest("x"), [weather], middleware=[tracer], config=RunConfig(max_iterations=3))
        return assert_type(stream.collect(), RunResult)


def counted(model: ChatModel | LocalModel | RetryingModel | FallbackModel, req: ChatRequest) -> int:
    return assert_type(model.count_tokens(req), int) + assert_type(model.count_tokens(req="x"), int)


async def counted_by_a_worker(model: CompletionModel) -> int:
    return assert_type(await AsyncModel(model).count_tokens("x"), int)


def cited(turn: Turn, chunk: ProviderBlockFinished, block: ProviderBlock) -> list[str]:
    assert_type(chunk.citations, tuple[Citation, ...])
    assert_type(block.citations, tuple[Citation, ...])
    return [citation.url or "" for citation in assert_type(turn.citations, tuple[Citation, ...])]


async def awaited(model: CompletionModel) -> Turn:
    async with AsyncModel(model).chat_stream(ChatRequest("x")) as stream:
        return await stream.collect()


# --- JSON ------------------------------------------------------------------------------------------------------------


def stored(turn: Turn, req: ChatRequest, block: Block) -> None:
    assert_type(turn.to_json(indent=2), str)
    assert_type(turn.to_dict(), dict[str, Any])
    assert_type(Turn.from_json(b"{}"), Turn)
    assert_type(ChatRequest.from_dict(req.to_dict()), ChatRequest)
    assert_type(StreamChunk.from_dict({"type": "text_delta", "delta": "a"}), Chunk)
    assert_type(StreamChunk.from_json("{}"), Chunk)
    assert_type(TextDelta.from_dict({"delta": "a"}), TextDelta)
    assert_type(Message.from_json("{}"), Message)
    assert_type(Block.from_dict(block.to_dict()), Block)


# --- errors ----------------------------------------------------------------------------------------------------------


def explained(model: CompletionModel) -> str:
    try:
        printed(model, ChatRequest("x"))
    except (ConfigurationError, UnsupportedContentError):
        return "mend the call"
    except (ConnectTimeoutError, IdleTimeoutError, DeadlineExceededError):
        return "slow"
    except TransportError:
        return "network"
    except (RateLimitError, OverloadedError, ServerError) as error:
        return f"wait {assert_type(error.retry_after, float | None)}"
    except (AuthenticationError, PermissionDeniedError, QuotaExceededError) as error:
        return f"ask for a key: {assert_type(error.code, str | None)}"
    except (InvalidRequestError, ContextOverflowError, RequestTooLargeError, ContentFilterError, NotFoundError):
        return "ask for something else"
    except ProviderError as error:
        return f"{assert_type(error.status, int | None)} {assert_type(error.body, str | None)}"
    except (TruncatedStreamError, MalformedStreamError, StreamError) as error:
        partial = assert_type(error.partial, Turn | None)
        return partial.text if partial else ""
    except StreamCancelledError:
        return "cancelled"
    except CompletionError as error:
        assert_type(error.provider, str | None)
        assert_type(error.model, str | None)
        assert_type(error.request_id, str | None)
        return assert_type(error.message, str)
    return ""


def wait(error: Exception) -> float | None:
    if not isinstance(error, Retryable):
        return None
    verdict = error.retry_classification()
    match verdict:
        case Permanent():
            return None
        case Transient(retry_after):
            return retry_after or 1.0
        case _:
            assert_never(verdict)
