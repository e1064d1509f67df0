"""Short programs as users write them. Checked by mypy and pyright, both strict, and never run."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Literal

from typing_extensions import TypedDict, assert_type

import completion
from completion import (
    AnthropicModel,
    Approval,
    AsyncModel,
    AzureOpenAIModel,
    ChatModel,
    ChatRequest,
    ChatStream,
    Chunk,
    CompletionError,
    CompletionModel,
    Conversation,
    FallbackModel,
    FinishReason,
    ImageBlock,
    JsonSchema,
    LocalModel,
    Message,
    Middleware,
    OpenAIModel,
    OutputError,
    RateLimitError,
    RetryConfig,
    RetryEvent,
    RetryingModel,
    RunFinished,
    RunInfo,
    RunStream,
    StreamChunk,
    StructuredStream,
    TextBlock,
    TextDelta,
    ToolCallBlock,
    ToolCallFinished,
    ToolContext,
    ToolResult,
    ToolResultBlock,
    Turn,
    TurnFinished,
    Usage,
    collect,
    run_chat,
    structured,
    tool,
    web,
)
from completion.notebook import show
from completion.otel import traced
from completion.testing import ScriptedModel

# --- one answer ------------------------------------------------------------------------------------------------------


def print_the_answer(question: str) -> None:
    for chunk in completion.model("local").chat_stream(question):
        if chunk.type == "text_delta":
            assert_type(chunk, TextDelta)
            print(chunk.delta, end="", flush=True)
        elif chunk.type == "tool_call_finished":
            print(chunk.name, chunk.args["city"])
        elif chunk.type == "turn_finished" and chunk.usage is not None:
            print(chunk.usage.output_tokens, chunk.reason)


def text_of(chunk: Chunk) -> str:
    match chunk:
        case TextDelta(delta):
            return delta
        case ToolCallFinished(name=name, args=args):
            return f"{name}({json.dumps(args)})"
        case ToolResult(blocks=blocks, is_error=False):
            return "".join(block.text for block in blocks if isinstance(block, TextBlock))
        case TurnFinished(reason=FinishReason.MAX_TOKENS):
            return "…"
        case RunFinished(abort=abort) if abort is not None:
            return abort.message
        case _:
            return ""


def collect_the_answer(model: ChatModel) -> str:
    with model.chat_stream(ChatRequest("Hi", max_tokens=20)) as stream:
        turn = stream.collect()
    print(turn, turn.usage.input_tokens if turn.usage else "?", stream.response.request_id)
    return turn.text


def text_and_turn(model: OpenAIModel) -> Turn:
    stream = model.chat_stream(req="Hello")
    for text in stream.text_stream:
        print(text.upper(), end="")
    return stream.turn


def any_model(model: CompletionModel, question: str) -> Iterator[str]:
    for chunk in model.chat_stream(ChatRequest(question)):
        if chunk.type == "text_delta":
            yield chunk.delta


def relayed(lines: Iterable[str]) -> Iterator[str]:
    """The chunks of a server that sends them on."""
    for line in lines:
        chunk = StreamChunk.from_json(line)
        if chunk.type == "text_delta":
            yield chunk.delta


def shown(message: Message) -> str:
    parts: list[str] = []
    for block in message.blocks:
        if block.type == "text":
            assert_type(block, TextBlock)
            parts.append(block.text)
        elif block.type == "tool_result":
            parts += [inner.text for inner in block.blocks if inner.type == "text"]
        elif isinstance(block, ToolCallBlock):
            parts.append(block.name)
    return " ".join(parts)


def close_early(model: AnthropicModel) -> StreamChunk:
    with closing(model.chat_stream("Hi")) as stream:
        return next(stream)


def keep_chunks(chunks: Iterable[StreamChunk]) -> tuple[list[StreamChunk], Turn]:
    kept: list[StreamChunk] = []

    def noted() -> Iterator[StreamChunk]:
        for chunk in chunks:
            kept.append(chunk)
            yield chunk

    return kept, collect(noted())


def look_at_an_image(model: AzureOpenAIModel) -> str:
    request = ChatRequest([Message.user(["What is this?", ImageBlock.from_path("cat.png")])])
    return str(model.chat_stream(request).collect())


def store_and_restore(turn: Turn, history: list[Message], chunk: Chunk) -> list[Message]:
    restored = StreamChunk.from_json(chunk.to_json())
    if isinstance(restored, TextDelta):
        print(restored.delta)
    stored = [message.to_dict() for message in [*history, turn.message]]
    return [Message.from_dict(document) for document in stored]


def printed_errors(model: ChatModel) -> int:
    try:
        print(model.chat_stream("Hi").collect())
    except RateLimitError as error:
        time.sleep(error.retry_after or 1.0)
        return 75
    except CompletionError as error:
        print(error.provider, error.status, error.message, error.partial.text if error.partial else "", file=sys.stderr)
        return 1
    return 0


# --- wrappers --------------------------------------------------------------------------------------------------------


def log_retry(event: RetryEvent) -> None:
    print(event)


def robust() -> ChatModel:
    first = RetryingModel(completion.model("openai:gpt-5"), RetryConfig(max_attempts=5), on_retry=log_retry)
    second = traced(AnthropicModel("claude-sonnet-4-5"))
    either = FallbackModel([first, second, LocalModel()])
    assert_type(either.chat_stream(req="Hi"), ChatStream)
    models: Sequence[CompletionModel] = [first, second, either, ScriptedModel("Hi"), Echo(), Parrot(), Typed()]
    return either if models else second


# --- models of third parties -----------------------------------------------------------------------------------------


@dataclass
class Echo:
    """It declares its chunks by their base class."""

    name: str = "echo"
    model: str = "echo-1"

    def chat_stream(self, req: ChatRequest) -> Iterator[StreamChunk]:
        yield TextDelta(req.messages[-1].text)
        yield TurnFinished(FinishReason.END_TURN, Usage(1, 1))


class Parrot:
    """It declares its chunks by the union, and the generator as a generator."""

    name = "parrot"

    @property
    def model(self) -> str:
        return "grey"

    def chat_stream(self, req: ChatRequest) -> Generator[Chunk, None, None]:
        yield TextDelta(req.messages[-1].text)
        yield TurnFinished(FinishReason.END_TURN)


class Typed:
    """It declares the classes that it yields, and takes strings too."""

    name = "typed"
    model = "typed-1"

    def chat_stream(self, req: ChatRequest | str) -> Iterator[TextDelta | TurnFinished]:
        yield TextDelta("Hi")
        yield TurnFinished(FinishReason.END_TURN)


class Shouting:
    """A wrapper of a third party."""

    def __init__(self, inner: CompletionModel) -> None:
        self.inner = inner
        self.name = inner.name
        self.model = inner.model

    def chat_stream(self, req: ChatRequest) -> Iterator[StreamChunk]:
        for chunk in self.inner.chat_stream(req):
            yield TextDelta(chunk.delta.upper()) if isinstance(chunk, TextDelta) else chunk


def third_parties() -> list[Turn]:
    models = [Shouting(Echo()), Shouting(Parrot()), Shouting(Typed())]
    return [collect(RetryingModel(model).chat_stream("Hi")) for model in models]


def own_generator(words: list[str]) -> Iterator[StreamChunk]:
    for word in words:
        yield TextDelta(word)
    yield TurnFinished(FinishReason.END_TURN)


def wrapped_generator() -> Turn:
    return ChatStream(own_generator(["a", "b"]), provider="own", model="m").collect()


# --- answers with a type ---------------------------------------------------------------------------------------------


@dataclass
class City:
    name: str
    size: int


class Place(TypedDict):
    name: str


def typed_answers(model: ChatModel) -> list[City]:
    assert_type(structured(model, "Oslo?", City).collect(), City)
    assert_type(structured(model, ChatRequest("Where?"), Place, mode="prompt").collect()["name"], str)
    cities = structured(model, "Three cities.", list[City], repairs=2)
    for value in cities:
        print(value)
    print(cities.turn.usage, cities.response.request_id)
    color: str = structured(model, "The sky?", Literal["red", "blue"]).collect()
    print(color, structured(model, "Oslo?", JsonSchema("city", {"type": "object"})).collect()["name"])
    parsed = model.chat_stream("Oslo?").collect().parse(City)
    assert_type(parsed, City)
    return [*cities.value, parsed]


def typed_or_not(stream: StructuredStream[City]) -> City | None:
    with stream:
        try:
            return stream.collect()
        except OutputError as error:
            print(error.text, error.errors, error.reason, error.partial)
    return None


async def typed_with_asyncio(model: ChatModel) -> City:
    stream = AsyncModel(model).stream(lambda: structured(model, "Oslo?", City))
    async with stream:
        async for value in stream:
            print(value)
    city: City = await AsyncModel(model).stream(partial(structured, model, "Oslo?", City)).collect()
    return city


def typed_run(model: ChatModel) -> str:
    city: City = run_chat(model, "Oslo?", [weather], output=City).collect().output
    return show(structured(model, "Oslo?", City)).name + city.name


def typed_body(model: ChatModel) -> Iterable[bytes]:
    return web.ndjson(partial(structured, model, "Oslo?", City))


# --- tools and middleware --------------------------------------------------------------------------------------------


@tool
def weather(city: str, days: int = 1) -> str:
    """The weather of a city."""
    return f"Rain in {city} for {days} days"


@tool(name="look_up", timeout=5, tags=["reads"])
async def look_up(words: list[str], context: ToolContext) -> dict[str, int]:
    """Count words."""
    await asyncio.sleep(0)
    context.report_usage(Usage(1, 1))
    return {word: len(word) for word in words}


class Timing(Middleware):
    def on_chunk(self, run: RunInfo, chunk: Chunk) -> StreamChunk | None:
        return None if chunk.type == "reasoning_delta" else chunk

    def before_tool(self, run: RunInfo, call: ToolCallBlock) -> ToolCallBlock:
        print(run.run_id, call.name, call.args)
        return call

    def after_tool(self, run: RunInfo, call: ToolCallBlock, result: ToolResultBlock) -> ToolResultBlock:
        return result


class Older(Middleware):
    def on_chunk(self, run: RunInfo, chunk: StreamChunk) -> StreamChunk | Sequence[StreamChunk] | None:
        return [chunk, TextDelta("!")] if isinstance(chunk, TextDelta) else chunk


def leave_the_run_open(model: ChatModel) -> str:
    with run_chat(model, "Oslo?", [weather]) as run:
        assert_type(run, RunStream)
        for text in run.text_stream:
            print(text, end="")
        assert_type(iter(run), RunStream)
    return run.result.text


def asked(call: ToolCallBlock) -> bool | str:
    return call.args.get("city") != "Atlantis" or "No such city."


def run_with_tools(model: ChatModel) -> list[Message]:
    assert_type(weather("Oslo", days=2), str)
    middleware = [Timing(), Older(), Approval(asked, names=["weather"])]
    run = run_chat(model, "Will it rain in Oslo?", tools=[weather, look_up], middleware=middleware)
    for chunk in run:
        if chunk.type == "tool_result" and not chunk.is_error:
            print(chunk.call_id, chunk.blocks)
        elif chunk.type == "run_finished":
            print(chunk.usage.input_tokens, chunk.abort.kind if chunk.abort else chunk.reason)
    result = run_chat(Echo(), "Hi", [weather]).collect()
    return [*result.new_messages]


def talk(model: CompletionModel) -> str:
    conversation = Conversation(model, tools=[weather], system_prompt="Be brief.")
    print(conversation.run("Hi").text)
    for text in conversation.stream("And in Bergen?").text_stream:
        print(text, end="")
    return conversation.messages[-1].text


# --- asyncio, web, notebook, tests -----------------------------------------------------------------------------------


async def many_answers(model: CompletionModel, questions: list[str]) -> list[str]:
    asking = AsyncModel(model)
    turns = await asyncio.gather(*(asking.chat_stream(question).collect() for question in questions))
    async with asking.chat_stream("Hi") as stream:
        async for chunk in stream:
            if chunk.type == "text_delta":
                print(chunk.delta, end="")
    return [turn.text for turn in turns]


async def deltas(model: AsyncModel) -> AsyncIterator[str]:
    async for chunk in await model.chat_stream(ChatRequest("Hi")):
        if isinstance(chunk, TextDelta):
            yield chunk.delta


def wsgi_view(model: ChatModel, environ: dict[str, object]) -> tuple[dict[str, str], Iterable[bytes]]:
    body = web.sse(partial(model.chat_stream, ChatRequest("Hi")), environ=environ)
    return dict(body.headers), body


async def asgi_view(model: AsyncModel) -> AsyncIterator[bytes]:
    async for piece in web.ndjson(await model.chat_stream("Hi")):
        yield piece


def notebook_cell(model: ChatModel) -> tuple[Turn, str]:
    turn = show(model.chat_stream("Hi"))
    return turn, show(run_chat(model, "Hi")).text


def test_of_a_user() -> None:
    with ScriptedModel("Hello there!", RateLimitError("slow down"), [TextDelta("Hi"), own_end()]) as model:
        assert collect_the_answer(model) == "Hello there!"
        assert model.requests[0].max_tokens == 20


def own_end() -> TurnFinished:
    return TurnFinished(FinishReason.END_TURN, usage=Usage(input_tokens=1))
