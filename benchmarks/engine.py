"""What the engine and its tracer add to a streamed chunk, as ratios within one run.

    pip install ".[bench]" && python benchmarks/engine.py [--chunks 20000] [--rounds 7]

As in ``speed.py``, whose server process and clock these are: each contestant reads the same stream, in turns, and the
CPU time of this process is counted, the tracer's thread included.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import tempfile
from pathlib import Path

from speed import Contestant, Urls, cpu_per_chunk, ratio, with_server

from completion import ChatRequest, JsonTracer, Middleware, OpenAIModel, run_chat

# What the ratios may be at most; each name is that of two contestants.
GOALS = {
    "engine / bare stream": 1.3,
    "engine, JsonTracer / bare stream": 2.0,
    "engine, JsonTracer verbose / bare stream": 2.5,
}


def contestants(urls: Urls, folder: Path) -> dict[str, Contestant]:
    model = OpenAIModel("m", api_key="k", base_url=urls[0])
    tracer = JsonTracer(folder / "trace.jsonl")
    verbose = JsonTracer(folder / "verbose.jsonl", verbose=True)

    def bare() -> int:
        return sum(1 for _ in model.chat_stream(ChatRequest("hi")))

    def run(*middleware: Middleware) -> int:
        return sum(1 for _ in run_chat(model, ChatRequest("hi"), middleware=middleware))

    return {
        "bare stream": bare,
        "engine": run,
        "engine, JsonTracer": lambda: run(tracer),
        "engine, JsonTracer verbose": lambda: run(verbose),
    }


def measure(urls: Urls, chunks: int, rounds: int) -> dict[str, list[float]]:
    with tempfile.TemporaryDirectory() as folder:
        runs = contestants(urls, Path(folder))
        times: dict[str, list[float]] = {name: [] for name in runs}
        for turn in range(rounds + 1):
            for name, run in runs.items():
                spent = cpu_per_chunk(run, chunks)
                if turn:  # the first one warms up
                    times[name].append(spent)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--chunks", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    times = with_server(options.chunks, lambda urls: measure(urls, options.chunks, options.rounds))
    assert isinstance(times, dict)
    print(f"Python {platform.python_version()}; {options.chunks} chunks, {options.rounds} rounds\n")
    print(f"{'CPU per chunk, µs':<44}{'median':>9}{'min':>9}{'max':>9}")
    for name, spent in times.items():
        print(f"{name:<44}{statistics.median(spent):>9.2f}{min(spent):>9.2f}{max(spent):>9.2f}")
    print(f"\n{'Ratio (median of the rounds)':<44}{'measured':>9}{'goal':>9}")
    for name, goal in GOALS.items():
        print(f"{name:<44}{ratio(times, *name.split(' / ')):>9.3f}{goal:>9.2f}")


if __name__ == "__main__":
    main()
