"""What a streamed chunk costs, as ratios within one run.

    pip install ".[bench]" && python benchmarks/speed.py [--chunks 20000] [--rounds 7] [--image FILE]

Each contestant reads the same stream from the same server process, in turns, so that a machine that slows down does
so for all. CPU time of this process alone is counted. The floor is what anybody would write in four lines: requests,
sseclient-py and json.loads, and nothing else.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import openai
import requests
import sseclient

from completion import ChatRequest
from completion.adapters.openai import OpenAIModel
from completion.testing import ProviderServer, Reply, event

# What the ratios are to reach, with the floor's own and the SDK's cost as 1.
GOALS = {"ours / floor": 1.25, "ours / openai": 0.11, "import completion / import requests": 1.6}

Contestant = Callable[[], int]


def chunk(text: str) -> bytes:
    """A chunk as OpenAI sends it today, about 270 bytes."""
    return event(
        {
            "id": "chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT",
            "object": "chat.completion.chunk",
            "created": 1741569952,
            "model": "gpt-4o-mini-2024-07-18",
            "service_tier": "default",
            "system_fingerprint": "fp_44709d6fcb",
            "choices": [{"index": 0, "delta": {"content": text}, "logprobs": None, "finish_reason": None}],
        }
    )


def stream(chunks: int) -> Reply:
    end = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    last = event({**end, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    pieces = [chunk(f" word{i % 1000}") for i in range(chunks)]
    return Reply(*pieces, last, event("[DONE]"), batch=True)


def serve(chunks: int) -> None:
    """In a process of its own: serve the same stream to everybody until stdin closes."""
    with ProviderServer() as server:
        server.always(stream(chunks))
        print(server.url, flush=True)
        sys.stdin.read()


def contestants(url: str) -> dict[str, Contestant]:
    session = requests.Session()
    client = openai.OpenAI(base_url=url, api_key="k", max_retries=0)
    model = OpenAIModel("m", api_key="k", base_url=url)

    def floor() -> int:
        response = session.post(f"{url}/chat/completions", json={"stream": True}, stream=True)
        count = 0
        for found in sseclient.SSEClient(response).events():  # type: ignore[arg-type]
            if found.data == "[DONE]":
                break
            count += bool(json.loads(found.data))
        response.close()
        return count

    def ours() -> int:
        return sum(1 for _ in model.chat_stream(ChatRequest("hi")))

    def sdk() -> int:
        messages: list[openai.types.chat.ChatCompletionMessageParam] = [{"role": "user", "content": "hi"}]
        return sum(1 for _ in client.chat.completions.create(model="m", messages=messages, stream=True))

    return {"floor": floor, "ours": ours, "openai": sdk}


def cpu_per_chunk(run: Contestant, chunks: int) -> float:
    """Microseconds of CPU."""
    began = time.process_time()
    count = run()
    spent = time.process_time() - began
    assert count >= chunks, f"read {count} of {chunks} chunks"
    return spent / chunks * 1e6


def measure(url: str, chunks: int, rounds: int) -> dict[str, list[float]]:
    runs = contestants(url)
    times: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(rounds + 1):
        for name, run in runs.items():
            spent = cpu_per_chunk(run, chunks)
            if turn:  # the first one warms up
                times[name].append(spent)
    return times


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


def peak_kib(url: str) -> float:
    """The most memory that reading one stream takes at any moment, as Python counts it."""
    model = OpenAIModel("m", api_key="k", base_url=url)
    tracemalloc.start()
    for _ in model.chat_stream(ChatRequest("hi")):
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 1024


def with_server(chunks: int, run: Callable[[str], object]) -> object:
    command = [sys.executable, __file__, "--serve", str(chunks)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdin is not None
        try:
            return run(process.stdout.readline().strip())
        finally:
            process.stdin.close()


def draw(times: dict[str, list[float]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 2.4))
    names = list(times)[::-1]
    medians = [statistics.median(times[name]) for name in names]
    spread = [[m - min(times[n]) for m, n in zip(medians, names, strict=True)],
              [max(times[n]) - m for m, n in zip(medians, names, strict=True)]]  # fmt: skip
    labels = {"floor": "requests + sseclient-py\n+ json.loads", "ours": "completion", "openai": "openai SDK"}
    colours = ["#888888" if name != "ours" else "#1f6f8b" for name in names]
    bars = axes.barh([labels[name] for name in names], medians, xerr=spread, color=colours, capsize=3)
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
    times = with_server(options.chunks, lambda url: measure(url, options.chunks, options.rounds))
    assert isinstance(times, dict)
    print(f"Python {platform.python_version()}, openai {openai.__version__}, requests {requests.__version__}; "
          f"{options.chunks} chunks, {options.rounds} rounds\n")  # fmt: skip
    print(f"{'CPU per chunk, µs':<40}{'median':>9}{'min':>9}{'max':>9}")
    for name, spent in times.items():
        print(f"{name:<40}{statistics.median(spent):>9.2f}{min(spent):>9.2f}{max(spent):>9.2f}")
    plain, whole, imports = import_ratio(options.rounds)
    ratios = {
        "ours / floor": statistics.median(a / b for a, b in zip(times["ours"], times["floor"], strict=True)),
        "ours / openai": statistics.median(a / b for a, b in zip(times["ours"], times["openai"], strict=True)),
        "import completion / import requests": imports,
    }
    print(f"\n{'Ratio (median of the rounds)':<40}{'measured':>9}{'goal':>9}")
    for name, value in ratios.items():
        print(f"{name:<40}{value:>9.3f}{GOALS[name]:>9.2f}")
    print(f"(imports: requests {plain:.0f} ms, completion {whole:.0f} ms of CPU)")
    short, long = with_server(1_000, peak_kib), with_server(100_000, peak_kib)
    print(f"\nPeak memory of a stream, KiB: {short:.0f} over 1,000 chunks, {long:.0f} over 100,000")
    draw(times, options.image)
    print(f"drawn: {options.image}")


if __name__ == "__main__":
    main()
