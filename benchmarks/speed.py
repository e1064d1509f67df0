"""What a streamed chunk costs, as ratios within one run.

    pip install ".[bench]" && python benchmarks/speed.py [--chunks 20000] [--rounds 7] [--image FILE]

The contestants read the same streams from the same server, in turns, so that a machine that slows down slows down
all of them. Only the CPU time of the reading process is counted.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tracemalloc
from importlib.metadata import version
from pathlib import Path

from contestants import Worker
from streams import PACE_S, Urls, with_server

from completion import ChatRequest, OpenAIModel

# The upper limit of each ratio. A name is those of two contestants.
GOALS = {
    "completion / floor": 1.2,
    "completion [speed] / floor": 1.0,
    "completion (paced) / floor (paced)": 1.5,
    "completion [speed] (paced) / floor (paced)": 1.5,
    "completion / openai SDK": 0.11,
    "RetryingModel / completion": 1.05,
    "AsyncModel / completion": 1.5,
    "AsyncModel / AsyncOpenAI": 0.15,
    "completion (Anthropic) / floor (Anthropic)": 1.15,
    "completion [speed] (Anthropic) / floor (Anthropic)": 1.0,
    "completion (Anthropic) / anthropic SDK": 0.42,
    "completion (Responses) / floor (Responses)": 1.3,
    "completion [speed] (Responses) / floor (Responses)": 1.0,
    "completion (Cohere) / floor (Cohere)": 1.3,
    "completion (Ollama) / floor (Ollama)": 1.3,
    "completion (Gemini) / floor (Gemini)": 1.3,
    "completion [speed] (Gemini) / floor (Gemini)": 1.0,
    "completion (Interactions) / floor (Interactions)": 1.3,
    "completion [speed] (Interactions) / floor (Interactions)": 1.0,
    "completion (Bedrock) / floor (Bedrock)": 1.0,
    "completion [speed] (Bedrock) / floor (Bedrock)": 1.0,
    "import completion / import requests": 1.6,
    "import completion [speed] / import requests": 1.9,
}
WITHOUT_MSGSPEC = "import sys; sys.modules['msgspec'] = None; "

# Each contestant, and the worker that runs it. Two that are compared run one after the other.
CONTESTANTS = {
    "floor": "json",
    "completion": "json",
    "completion [speed]": "msgspec",
    "RetryingModel": "json",
    "AsyncModel": "json",
    "openai SDK": "sdk",
    "AsyncOpenAI": "sdk",
    "floor (Anthropic)": "json",
    "completion (Anthropic)": "json",
    "completion [speed] (Anthropic)": "msgspec",
    "anthropic SDK": "sdk",
    "floor (Responses)": "json",
    "completion (Responses)": "json",
    "completion [speed] (Responses)": "msgspec",
    "floor (Cohere)": "json",
    "completion (Cohere)": "json",
    "floor (Ollama)": "json",
    "completion (Ollama)": "json",
    "floor (Gemini)": "json",
    "completion (Gemini)": "json",
    "completion [speed] (Gemini)": "msgspec",
    "floor (Interactions)": "json",
    "completion (Interactions)": "json",
    "completion [speed] (Interactions)": "msgspec",
    "floor (Bedrock)": "json",
    "completion (Bedrock)": "json",
    "completion [speed] (Bedrock)": "msgspec",
    "floor (paced)": "json",
    "completion (paced)": "json",
    "completion [speed] (paced)": "msgspec",
}

Times = dict[str, list[float]]
"""Microseconds of CPU per chunk, of each round."""


def measure(urls: Urls, chunks: int, paced_chunks: int, rounds: int) -> Times:
    times: Times = {name: [] for name in CONTESTANTS}
    with Worker("json", urls) as plain, Worker("msgspec", urls) as speed, Worker("sdk", urls) as sdk:
        workers = {"json": plain, "msgspec": speed, "sdk": sdk}
        for turn in range(rounds + 1):
            for name, kind in CONTESTANTS.items():
                count = paced_chunks if "(paced)" in name else chunks
                spent = workers[kind].cpu_per_chunk(name.replace(" [speed]", ""), count)
                if turn:  # the first round warms up
                    times[name].append(spent)
    return times


def ratio(times: Times, ours: str, theirs: str) -> float:
    return statistics.median(a / b for a, b in zip(times[ours], times[theirs], strict=True))


def import_seconds(statement: str) -> float:
    """CPU time of one import in a process of its own, with cached byte code, as an installed package has it."""
    code = f"import time; began = time.process_time(); {statement}; print(time.process_time() - began)"
    cached = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=cached)
    return float(run.stdout)


def import_ratios(rounds: int) -> dict[str, float]:
    """The last two of ``GOALS``: the medians."""
    plain, speed = [], []
    for turn in range(rounds + 1):
        base = import_seconds("import requests")
        ours = import_seconds(WITHOUT_MSGSPEC + "import completion")
        ours_with_msgspec = import_seconds("import completion")
        if turn:
            plain.append(ours / base)
            speed.append(ours_with_msgspec / base)
    first, second = list(GOALS)[-2:]
    return {first: statistics.median(plain), second: statistics.median(speed)}


def peak_kib(urls: Urls) -> float:
    """The most memory that reading one stream takes, as Python counts it."""
    model = OpenAIModel("m", api_key="k", base_url=urls.openai)
    tracemalloc.start()
    for _ in model.chat_stream(ChatRequest("hi")):
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 1024


def draw(times: Times, path: Path) -> None:
    """The contestants that read as fast as they can; the paced ones measure the system as much as the library."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = [name for name in times if "(paced)" not in name][::-1]
    figure, axes = pyplot.subplots(figsize=(7, 0.5 + 0.28 * len(names)))
    medians = [statistics.median(times[name]) for name in names]
    spread = [[m - min(times[n]) for m, n in zip(medians, names, strict=True)],
              [max(times[n]) - m for m, n in zip(medians, names, strict=True)]]  # fmt: skip
    colours = ["#888888" if "floor" in name or "SDK" in name or "AsyncOpenAI" in name else "#1f6f8b" for name in names]
    bars = axes.barh(names, medians, xerr=spread, color=colours, capsize=3)
    axes.bar_label(bars, labels=[f"{value:.1f} µs" for value in medians], padding=6)
    axes.set_xlabel("CPU per streamed chunk, µs (median, fastest and slowest round)")
    axes.set_xlim(0, max(map(max, times.values())) * 1.25)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=150)


def print_times(times: Times) -> None:
    print(f"{'CPU per chunk, µs':<58}{'median':>9}{'min':>9}{'max':>9}")
    for name, spent in times.items():
        print(f"{name:<58}{statistics.median(spent):>9.2f}{min(spent):>9.2f}{max(spent):>9.2f}")


def print_ratios(times: Times, goals: dict[str, float], known: dict[str, float]) -> None:
    """Each ratio next to its goal; ``known`` has those that are not of two contestants."""
    print(f"\n{'Ratio (median of the rounds)':<58}{'measured':>9}{'goal':>9}")
    for name, goal in goals.items():
        measured = known[name] if name in known else ratio(times, *name.split(" / "))
        print(f"{name:<58}{measured:>9.3f}{goal:>9.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--chunks", type=int, default=20_000)
    parser.add_argument("--paced-chunks", type=int, default=2_000, help=f"one every {PACE_S * 1e3} ms")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--image", type=Path, default=Path(__file__).with_name("speed.png"))
    options = parser.parse_args()
    times = with_server(
        lambda urls: measure(urls, options.chunks, options.paced_chunks, options.rounds),
        options.chunks,
        options.paced_chunks,
    )
    versions = ", ".join(f"{name} {version(name)}" for name in ("openai", "anthropic", "requests", "msgspec"))
    print(f"Python {platform.python_version()}, {versions}; {options.chunks} chunks, {options.rounds} rounds;", end=" ")
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores\n")
    print_times(times)
    print_ratios(times, GOALS, import_ratios(options.rounds))
    short, long = with_server(peak_kib, 1_000), with_server(peak_kib, 100_000)
    print(f"\nPeak memory of a stream, KiB: {short:.0f} over 1,000 chunks, {long:.0f} over 100,000")
    draw(times, options.image)
    print(f"wrote {options.image}")


if __name__ == "__main__":
    main()
