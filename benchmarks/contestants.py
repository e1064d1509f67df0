"""What is measured: programs that read a whole stream and count its chunks. Each worker process runs some of them.

There are two workers, because a process chooses between msgspec and json once: one decodes JSON with ``json``, the
other with msgspec.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from types import TracebackType

if __name__ == "__main__" and sys.argv[1] == "json":
    sys.modules["msgspec"] = None  # type: ignore[assignment]  # "import msgspec" now raises ImportError

import asyncio
import json

import requests
import sseclient
from streams import Urls

from completion import (
    AnthropicModel,
    AsyncModel,
    BedrockModel,
    ChatRequest,
    CohereModel,
    CompletionModel,
    GeminiInteractionsModel,
    GeminiModel,
    OllamaModel,
    OpenAIModel,
    OpenAIResponsesModel,
    RetryingModel,
)

Contestant = Callable[[], int]
"""Reads one stream to its end and returns the number of its chunks."""


def floor(session: requests.Session, url: str) -> int:
    """What you would write yourself in a few lines.

    ``SSEClient(response)`` would read 128 bytes at a time, which costs more than all the rest. ``raw.stream(None)`` is
    the fastest way that requests offers: it yields each HTTP chunk as it arrives.
    """
    response = session.post(url, json={"stream": True}, stream=True)
    count = 0
    for found in sseclient.SSEClient(response.raw.stream(None)).events():
        if found.data == "[DONE]":
            break
        count += bool(json.loads(found.data))
    response.close()
    return count


def floor_of_lines(session: requests.Session, url: str) -> int:
    """The same for lines of JSON. ``iter_lines`` would read 512 bytes at a time."""
    response = session.post(url, json={"stream": True}, stream=True)
    count = 0
    rest = b""
    for piece in response.raw.stream(None):
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            count += bool(json.loads(line))
    response.close()
    return count


def floor_of_bedrock(session: requests.Session, url: str) -> int:
    """The same with botocore's decoder of Amazon's event stream."""
    from botocore.eventstream import EventStreamBuffer

    response = session.post(url, json={}, stream=True)
    buffer, count = EventStreamBuffer(), 0
    for piece in response.raw.stream(None):
        buffer.add_data(piece)
        for found in buffer:
            count += bool(json.loads(found.payload))
    response.close()
    return count


def count_chunks(model: CompletionModel) -> int:
    return sum(1 for _ in model.chat_stream(ChatRequest("hi")))


async def count_async_chunks(model: AsyncModel) -> int:
    count = 0
    async with model.chat_stream(ChatRequest("hi")) as stream:
        async for _ in stream:
            count += 1
    return count


def ours(urls: Urls) -> dict[str, Contestant]:
    model = OpenAIModel("m", api_key="k", base_url=urls.openai)
    claude = AnthropicModel("m", api_key="k", base_url=urls.anthropic)
    responses = OpenAIResponsesModel("m", api_key="k", base_url=urls.responses)
    command = CohereModel("m", api_key="k", base_url=urls.cohere)
    llama = OllamaModel("m", base_url=urls.ollama)
    gemini = GeminiModel("m", api_key="k", base_url=urls.gemini)
    steps = GeminiInteractionsModel("m", api_key="k", base_url=urls.interactions)
    bedrock = BedrockModel("m", api_key="k", base_url=urls.bedrock)
    one_by_one = OpenAIModel("m", api_key="k", base_url=urls.paced)
    return {
        "completion": lambda: count_chunks(model),
        "completion (Anthropic)": lambda: count_chunks(claude),
        "completion (Responses)": lambda: count_chunks(responses),
        "completion (Cohere)": lambda: count_chunks(command),
        "completion (Ollama)": lambda: count_chunks(llama),
        "completion (Gemini)": lambda: count_chunks(gemini),
        "completion (Interactions)": lambda: count_chunks(steps),
        "completion (Bedrock)": lambda: count_chunks(bedrock),
        "completion (paced)": lambda: count_chunks(one_by_one),
    }


def others(urls: Urls) -> dict[str, Contestant]:
    session = requests.Session()
    retrying = RetryingModel(OpenAIModel("m", api_key="k", base_url=urls.openai))
    async_model = AsyncModel(OpenAIModel("m", api_key="k", base_url=urls.openai))
    loop = asyncio.new_event_loop()
    return {
        "floor": lambda: floor(session, urls.openai),
        "floor (Anthropic)": lambda: floor(session, urls.anthropic),
        "floor (Responses)": lambda: floor(session, urls.responses),
        "floor (Cohere)": lambda: floor(session, urls.cohere),
        "floor (Ollama)": lambda: floor_of_lines(session, urls.ollama),
        "floor (Gemini)": lambda: floor(session, urls.gemini),
        "floor (Interactions)": lambda: floor(session, urls.interactions),
        "floor (Bedrock)": lambda: floor_of_bedrock(session, urls.bedrock),
        "floor (paced)": lambda: floor(session, urls.paced),
        "RetryingModel": lambda: count_chunks(retrying),
        "AsyncModel": lambda: loop.run_until_complete(count_async_chunks(async_model)),
    }


def sdks(urls: Urls) -> dict[str, Contestant]:
    """Event by event, without the SDKs' accumulating helpers."""
    import anthropic
    import openai

    openai_client = openai.OpenAI(base_url=urls.openai, api_key="k", max_retries=0)
    async_client = openai.AsyncOpenAI(base_url=urls.openai, api_key="k", max_retries=0)
    anthropic_client = anthropic.Anthropic(base_url=urls.anthropic, api_key="k", max_retries=0)
    loop = asyncio.new_event_loop()
    history: list[openai.types.chat.ChatCompletionMessageParam] = [{"role": "user", "content": "hi"}]
    claude_history: list[anthropic.types.MessageParam] = [{"role": "user", "content": "hi"}]

    def openai_sdk() -> int:
        return sum(1 for _ in openai_client.chat.completions.create(model="m", messages=history, stream=True))

    async def openai_sdk_in_a_loop() -> int:
        count = 0
        async with await async_client.chat.completions.create(model="m", messages=history, stream=True) as stream:
            async for _ in stream:
                count += 1
        await asyncio.sleep(0)  # openai 3.57 leaves generators to asyncio, which closes them in the next step
        return count

    def anthropic_sdk() -> int:
        events = anthropic_client.messages.create(model="m", max_tokens=9, messages=claude_history, stream=True)
        return sum(1 for _ in events)

    return {
        "openai SDK": openai_sdk,
        "AsyncOpenAI": lambda: loop.run_until_complete(openai_sdk_in_a_loop()),
        "anthropic SDK": anthropic_sdk,
    }


def cpu_per_chunk(run: Contestant, chunks: int) -> float:
    """Microseconds of CPU of this process."""
    began = time.process_time()
    count = run()
    spent = time.process_time() - began
    assert count >= chunks, f"read {count} of {chunks} chunks"
    return spent / chunks * 1e6


class Worker:
    """The process that runs the contestants of one kind: ``json``, ``msgspec`` or ``sdk``."""

    def __init__(self, kind: str, urls: Urls) -> None:
        command = [sys.executable, __file__, kind, *urls]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def cpu_per_chunk(self, name: str, chunks: int) -> float:
        assert self._process.stdin is not None and self._process.stdout is not None
        print(name, chunks, sep="\t", file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        assert answer, f"{name}: the worker ended; its traceback is above"
        return float(answer)

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate()  # closes stdin, which ends the worker


def work(kind: str, urls: Urls) -> None:
    """Run what stdin names, a line each, and print its CPU time."""
    runs = sdks(urls) if kind == "sdk" else ours(urls) if kind == "msgspec" else {**others(urls), **ours(urls)}
    for line in sys.stdin:
        name, _, chunks = line.partition("\t")
        print(cpu_per_chunk(runs[name], int(chunks)), flush=True)


if __name__ == "__main__":
    work(sys.argv[1], Urls(*sys.argv[2:]))
