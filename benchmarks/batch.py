"""CPU of ``completion.batch`` beside plain threads that read the same streams.

python benchmarks/batch.py

The provider runs in another process, so that its CPU is not counted.
"""

from __future__ import annotations

import itertools
import multiprocessing
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection

import completion
from completion import OpenAIModel
from completion.testing import ProviderServer, Reply, event

REQUESTS, CHUNKS, CONCURRENCY, ROUNDS = 300, 100, 16, 3


def serve(pipe: Connection) -> None:
    """A provider on loopback, until the pipe is closed."""
    chunk = event({"choices": [{"index": 0, "delta": {"content": "word "}, "finish_reason": None}]})
    end = event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}) + event("[DONE]")
    with ProviderServer() as server:
        server.always(Reply(*[chunk] * CHUNKS, end))
        pipe.send(server.url)
        pipe.recv()


def in_threads(model: OpenAIModel) -> None:
    """Plain threads, without a line of ours around the streams."""
    jobs: queue.SimpleQueue[str] = queue.SimpleQueue()
    for _ in range(REQUESTS):
        jobs.put("Hello")

    def work() -> None:
        while True:
            try:
                prompt = jobs.get_nowait()
            except queue.Empty:
                return
            model.chat_stream(prompt).collect()

    threads = [threading.Thread(target=work) for _ in range(CONCURRENCY)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def in_batch(model: OpenAIModel) -> None:
    assert sum(r.turn is not None for r in completion.batch(model, ["Hello"] * REQUESTS, CONCURRENCY)) == REQUESTS


def in_pool(model: OpenAIModel) -> None:
    with ThreadPoolExecutor(CONCURRENCY) as pool:
        results = list(completion.batch(model, ["Hello"] * REQUESTS, CONCURRENCY, pool))
    assert all(result.turn is not None for result in results)


def cpu_ms(run: Callable[[OpenAIModel], None], model: OpenAIModel) -> float:
    """CPU of this process for one request, in milliseconds."""
    begin = time.process_time()
    run(model)
    return (time.process_time() - begin) / REQUESTS * 1000


def main() -> None:
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs,), daemon=True)
    server.start()
    model = OpenAIModel("m", api_key="sk-benchmark", base_url=ours.recv())
    in_threads(model)
    runs = (in_threads, in_batch, in_pool)
    best = {run: float("inf") for run in runs}
    for _, run in itertools.product(range(ROUNDS), runs):
        best[run] = min(best[run], cpu_ms(run, model))
    for run, cost in best.items():
        ratio = cost / best[in_threads]
        print(f"{run.__name__:<12} {cost:6.2f} ms CPU a request of {CHUNKS} chunks   {ratio:.2f} x threads")
    ours.send(None)
    server.join()


if __name__ == "__main__":
    main()
