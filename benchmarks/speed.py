"""What a streamed chunk costs, as ratios within one run.

    pip install ".[bench]" && python benchmarks/speed.py [--chunks 20000] [--rounds 7] [--image FILE]

Each contestant reads the same stream from the same server process, in turns, so that a machine that slows down does
so for all. CPU time of this process alone is counted. The floor is what anybody would write in four lines: requests,
sseclient-py and json.loads, and nothing else.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path

import anthropic
import openai
import requests
import sseclient

from completion import AnthropicModel, AsyncModel, ChatRequest, CompletionModel, OpenAIModel, RetryingModel
from completion.testing import ProviderServer, Reply, event

# What the ratios may be at most; each name is that of two contestants.
GOALS = {
    "completion / floor": 1.25,
    "completion / openai SDK": 0.11,
    "RetryingModel / completion": 1.05,
    "AsyncModel / completion": 1.5,
    "AsyncModel / AsyncOpenAI": 0.15,
    "completion (Anthropic) / floor (Anthropic)": 1.3,
    "completion (Anthropic) / anthropic SDK": 0.42,
    "import completion / import requests": 1.6,
}
IMPORTS = "import completion / import requests"

Contestant = Callable[[], int]
Urls = Sequence[str]
"""Where Chat Completions are served, and where Anthropic Messages."""


def chat_completions(chunks: int) -> Reply:
    """Chunks as OpenAI sends them today, about 270 bytes each."""
    common = {
        "id": "chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT",
        "object": "chat.completion.chunk",
        "created": 1741569952,
        "model": "gpt-4o-mini-2024-07-18",
        "service_tier": "default",
        "system_fingerprint": "fp_44709d6fcb",
    }

    def chunk(delta: dict[str, str], reason: str | None = None) -> bytes:
        return event({**common, "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}]})

    pieces = [chunk({"content": f" word{i % 1000}"}) for i in range(chunks)]
    return Reply(*pieces, chunk({}, "stop"), event("[DONE]"), batch=True)


def messages(chunks: int) -> Reply:
    """Events as Anthropic sends them, about 130 bytes each."""
    usage = {"input_tokens": 9, "output_tokens": 1}
    message = {"id": "msg_01", "type": "message", "role": "assistant", "model": "claude-haiku-4-5", "content": []}

    def named(kind: str, **fields: object) -> bytes:
        return event({"type": kind, **fields}, kind)

    def delta(text: str) -> bytes:
        return named("content_block_delta", index=0, delta={"type": "text_delta", "text": text})

    return Reply(
        named("message_start", message={**message, "stop_reason": None, "stop_sequence": None, "usage": usage}),
        named("content_block_start", index=0, content_block={"type": "text", "text": ""}),
        *(delta(f" word{i % 1000}") for i in range(chunks)),
        named("content_block_stop", index=0),
        named(
            "message_delta", delta={"stop_reason": "end_turn", "stop_sequence": None}, usage={"output_tokens": chunks}
        ),
        named("message_stop"),
        batch=True,
    )


def serve(chunks: int) -> None:
    """In a process of its own: serve the same two streams to everybody until stdin closes."""
    with ProviderServer() as openai_server, ProviderServer() as anthropic_server:
        openai_server.always(chat_completions(chunks))
        anthropic_server.always(messages(chunks))
        print(openai_server.url, anthropic_server.url, flush=True)
        sys.stdin.read()


def contestants(urls: Urls) -> dict[str, Contestant]:
    session = requests.Session()
    openai_url, anthropic_url = urls
    openai_client = openai.OpenAI(base_url=openai_url, api_key="k", max_retries=0)
    anthropic_client = anthropic.Anthropic(base_url=anthropic_url, api_key="k", max_retries=0)
    model = OpenAIModel("m", api_key="k", base_url=openai_url)
    retrying = RetryingModel(model)
    async_model = AsyncModel(model)
    loop = asyncio.new_event_loop()
    async_client = openai.AsyncOpenAI(base_url=openai_url, api_key="k", max_retries=0)
    claude = AnthropicModel("m", api_key="k", base_url=anthropic_url)

    def floor(url: str) -> int:
        response = session.post(url, json={"stream": True}, stream=True)
        count = 0
        for found in sseclient.SSEClient(response).events():  # type: ignore[arg-type]
            if found.data == "[DONE]":
                break
            count += bool(json.loads(found.data))
        response.close()
        return count

    def ours(model: CompletionModel) -> int:
        return sum(1 for _ in model.chat_stream(ChatRequest("hi")))

    async def ours_in_a_loop() -> int:
        count = 0
        async with async_model.chat_stream(ChatRequest("hi")) as stream:
            async for _ in stream:
                count += 1
        return count

    asked: list[openai.types.chat.ChatCompletionMessageParam] = [{"role": "user", "content": "hi"}]

    def openai_sdk() -> int:
        return sum(1 for _ in openai_client.chat.completions.create(model="m", messages=asked, stream=True))

    async def openai_sdk_in_a_loop() -> int:
        count = 0
        async for _ in await async_client.chat.completions.create(model="m", messages=asked, stream=True):
            count += 1
        return count

    def anthropic_sdk() -> int:
        said: list[anthropic.types.MessageParam] = [{"role": "user", "content": "hi"}]
        return sum(1 for _ in anthropic_client.messages.create(model="m", max_tokens=9, messages=said, stream=True))

    return {
        "floor": lambda: floor(openai_url),
        "completion": lambda: ours(model),
        "RetryingModel": lambda: ours(retrying),
        "AsyncModel": lambda: loop.run_until_complete(ours_in_a_loop()),
        "openai SDK": openai_sdk,
        "AsyncOpenAI": lambda: loop.run_until_complete(openai_sdk_in_a_loop()),
        "floor (Anthropic)": lambda: floor(anthropic_url),
        "completion (Anthropic)": lambda: ours(claude),
        "anthropic SDK": anthropic_sdk,
    }


def cpu_per_chunk(run: Contestant, chunks: int) -> float:
    """Microseconds of CPU."""
    began = time.process_time()
    count = run()
    spent = time.process_time() - began
    assert count >= chunks, f"read {count} of {chunks} chunks"
    return spent / chunks * 1e6


def measure(urls: Urls, chunks: int, rounds: int) -> dict[str, list[float]]:
    runs = contestants(urls)
    times: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(rounds + 1):
        for name, run in runs.items():
            spent = cpu_per_chunk(run, chunks)
            if turn:  # the first one warms up
                times[name].append(spent)
    return times


def ratio(times: dict[str, list[float]], ours: str, theirs: str) -> float:
    return statistics.median(a / b for a, b in zip(times[ours], times[theirs], strict=True))


def import_seconds(statement: str) -> float:
    """CPU of one import in a process of its own, byte code cached as an installed package has it."""
    code = f"import time; began = time.process_time(); {statement}; print(time.process_time() - began)"
    cached = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=cached)
    return float(run.stdout)


def import_ratio(rounds: int) -> tuple[float, float, float]:
    """Milliseconds for requests and for completion, and the median of their ratios."""
    pairs = [(import_seconds("import requests"), import_seconds("import completion")) for _ in range(rounds + 1)][1:]
    plain, whole = (statistics.median(side) * 1e3 for side in zip(*pairs, strict=True))
    return plain, whole, statistics.median(ours / theirs for theirs, ours in pairs)


def peak_kib(urls: Urls) -> float:
    """The most memory that reading one stream takes at any moment, as Python counts it."""
    model = OpenAIModel("m", api_key="k", base_url=urls[0])
    tracemalloc.start()
    for _ in model.chat_stream(ChatRequest("hi")):
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 1024


def with_server(chunks: int, run: Callable[[Urls], object]) -> object:
    command = [sys.executable, __file__, "--serve", str(chunks)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdin is not None
        try:
            return run(process.stdout.readline().split())
        finally:
            process.stdin.close()


def draw(times: dict[str, list[float]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 3.6))
    names = list(times)[::-1]
    medians = [statistics.median(times[name]) for name in names]
    spread = [[m - min(times[n]) for m, n in zip(medians, names, strict=True)],
              [max(times[n]) - m for m, n in zip(medians, names, strict=True)]]  # fmt: skip
    colours = ["#888888" if "floor" in name or "SDK" in name or "AsyncOpenAI" in name else "#1f6f8b" for name in names]
    bars = axes.barh(names, medians, xerr=spread, color=colours, capsize=3)
    axes.bar_label(bars, labels=[f"{value:.1f} µs" for value in medians], padding=6)
    axes.set_xlabel("CPU per streamed chunk, µs (median, fastest and slowest round)")
    axes.set_xlim(0, max(medians) * 1.2)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--chunks", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--image", type=Path, default=Path(__file__).with_name("speed.png"))
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve)
        return
    times = with_server(options.chunks, lambda urls: measure(urls, options.chunks, options.rounds))
    assert isinstance(times, dict)
    versions = {"openai": openai.__version__, "anthropic": anthropic.__version__, "requests": requests.__version__}
    print(f"Python {platform.python_version()}, {versions}; {options.chunks} chunks, {options.rounds} rounds\n")
    print(f"{'CPU per chunk, µs':<44}{'median':>9}{'min':>9}{'max':>9}")
    for name, spent in times.items():
        print(f"{name:<44}{statistics.median(spent):>9.2f}{min(spent):>9.2f}{max(spent):>9.2f}")
    plain, whole, imports = import_ratio(options.rounds)
    print(f"\n{'Ratio (median of the rounds)':<44}{'measured':>9}{'goal':>9}")
    for name, goal in GOALS.items():
        print(f"{name:<44}{imports if name == IMPORTS else ratio(times, *name.split(' / ')):>9.3f}{goal:>9.2f}")
    print(f"(imports: requests {plain:.0f} ms, completion {whole:.0f} ms of CPU)")
    short, long = with_server(1_000, peak_kib), with_server(100_000, peak_kib)
    print(f"\nPeak memory of a stream, KiB: {short:.0f} over 1,000 chunks, {long:.0f} over 100,000")
    draw(times, options.image)
    print(f"drawn: {options.image}")


if __name__ == "__main__":
    main()
