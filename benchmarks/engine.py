"""What the engine and its tracer add to a streamed chunk, as ratios within one run.

    pip install ".[bench]" && python benchmarks/engine.py [--chunks 20000] [--rounds 7]

Measured as in ``speed.py``: the contestants read the same stream in turns, and the CPU time of this process is
counted, including the tracer's thread.
"""

from __future__ import annotations

import argparse
import platform
import tempfile
from pathlib import Path

from contestants import Contestant, cpu_per_chunk
from speed import Times, print_ratios, print_times
from streams import Urls, with_server

from completion import ChatRequest, JsonTracer, Middleware, OpenAIModel, run_chat

# The upper limit of each ratio. A name is those of two contestants.
GOALS = {
    "engine / bare stream": 1.3,
    "engine, JsonTracer / bare stream": 2.0,
    "engine, JsonTracer verbose / bare stream": 2.5,
}


def contestants(urls: Urls, folder: Path) -> dict[str, Contestant]:
    model = OpenAIModel("m", api_key="k", base_url=urls.openai)
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


def measure(urls: Urls, chunks: int, rounds: int) -> Times:
    with tempfile.TemporaryDirectory() as folder:
        runs = contestants(urls, Path(folder))
        times: Times = {name: [] for name in runs}
        for turn in range(rounds + 1):
            for name, run in runs.items():
                spent = cpu_per_chunk(run, chunks)
                if turn:  # the first round warms up
                    times[name].append(spent)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--chunks", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    times = with_server(lambda urls: measure(urls, options.chunks, options.rounds), options.chunks)
    print(f"Python {platform.python_version()}; {options.chunks} chunks, {options.rounds} rounds\n")
    print_times(times)
    print_ratios(times, GOALS, {})


if __name__ == "__main__":
    main()
