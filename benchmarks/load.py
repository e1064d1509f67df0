"""Many paced streams at once, as a web server has them: CPU per chunk, and how late the chunks reach the reader.

    pip install ".[bench,examples]" && python benchmarks/load.py [--streams 100] [--rate 50] [--seconds 8] [--rounds 3]

The server is a process of its own. It writes the moment of sending into each chunk, so a reader knows how late the
chunk is: both processes read the same clock. Each contestant is a process too, and runs in turn with the others. The
CPU per chunk and the delays count from the moment when all streams are open; opening them is a column of its own.

A view is between the provider and a client: its CPU is that of the web server's process, and its delay goes from the
provider to the client. Without the extra ``examples`` it is skipped.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import resource
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial

from load_views import COMMANDS, missing, read_answer, serving, spent_by

BODY = {"id": "chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT", "object": "chat.completion.chunk", "model": "gpt-5.6"}
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"

# The upper limit of each ratio of CPU per chunk.
GOALS = {
    ("threads", "requests"): 1.2,
    ("AsyncModel", "threads"): 1.4,
    ("AsyncModel", "AsyncOpenAI"): 0.5,
}


# --- the server ------------------------------------------------------------------------------------------------------


def sent_event(delta: dict[str, str], reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
    data = b"data: " + json.dumps({**BODY, "choices": [choice]}).encode() + b"\n\n"
    return b"%x\r\n%s\r\n" % (len(data), data)


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, gap: float, seconds: float) -> None:
    """Answer the requests of one connection, each with a chunk every ``gap`` seconds."""
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            asked = head + await reader.readexactly(int(length.split(b":")[1]))
            writer.write(HEAD)
            ends_at = time.monotonic() + (gap if b"warm-up" in asked else seconds)
            due = time.monotonic() + random.random() * gap
            while due < ends_at:
                await asyncio.sleep(due - time.monotonic())
                writer.write(sent_event({"content": f"{time.monotonic():.6f}"}))
                due += gap
            writer.write(sent_event({}, "stop") + b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def serve(rate: float, seconds: float) -> None:
    """Serve until stdin closes."""
    server = await asyncio.start_server(lambda r, w: answer(r, w, 1 / rate, seconds), "127.0.0.1", 0, backlog=2048)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


# --- the contestants -------------------------------------------------------------------------------------------------


class Watch:
    """What a contestant has seen once all streams were open: CPU, chunks, and how late each was, in milliseconds."""

    def __init__(self, streams: int) -> None:
        self._closed = streams
        self._began = time.monotonic()
        self.cpu_before = self.cpu_at_begin = self.cpu_at_end = time.process_time()
        self.opening_ms = 0.0
        self.late: list[float] = []
        self.memory: float | None = None
        """The peak of another process, in MiB."""

    def start(self) -> None:
        """The streams are about to open."""
        self._began = time.monotonic()

    def note_opened(self) -> bool:
        """Whether all streams are open now."""
        self._closed -= 1
        if not self._closed:
            self.cpu_at_begin = time.process_time()
            self.opening_ms = (time.monotonic() - self._began) * 1000
            self._began = time.monotonic()
        return not self._closed

    def note(self, text: str) -> None:
        sent = float(text)
        if not self._closed and sent > self._began:
            self.late.append((time.monotonic() - sent) * 1000)
            self.cpu_at_end = time.process_time()

    @property
    def cpu(self) -> float:
        """Microseconds per chunk."""
        return (self.cpu_at_end - self.cpu_at_begin) / len(self.late) * 1e6


def in_threads(streams: int, read: Callable[[], None]) -> None:
    with ThreadPoolExecutor(streams) as pool:
        for future in [pool.submit(read) for _ in range(streams)]:
            future.result()


def run_requests(url: str, streams: int, watch: Watch) -> None:
    import requests
    import sseclient

    local = threading.local()

    def read() -> None:
        session = local.session = requests.Session()
        response = session.post(f"{url}/chat/completions", json={"stream": True}, stream=True)
        watch.note_opened()
        for found in sseclient.SSEClient(response.raw.stream(None)).events():
            if found.data == "[DONE]":
                break
            text = json.loads(found.data)["choices"][0]["delta"].get("content")
            if text:
                watch.note(text)

    in_threads(streams, read)


def run_threads(url: str, streams: int, watch: Watch) -> None:
    from completion import OpenAIModel

    model = OpenAIModel("m", api_key="k", base_url=url)

    def read() -> None:
        stream = model.chat_stream("hi")
        watch.note_opened()
        for chunk in stream:
            if chunk.type == "text_delta":
                watch.note(chunk.delta)

    in_threads(streams, read)


def run_async_model(url: str, streams: int, watch: Watch) -> None:
    from completion import AsyncModel, OpenAIModel

    model = AsyncModel(OpenAIModel("m", api_key="k", base_url=url))

    async def read() -> None:
        async with model.chat_stream("hi") as stream:
            watch.note_opened()
            async for chunk in stream:
                if chunk.type == "text_delta":
                    watch.note(chunk.delta)

    async def main() -> None:
        await asyncio.gather(*(read() for _ in range(streams)))

    asyncio.run(main())


def run_async_openai(url: str, streams: int, watch: Watch) -> None:
    import openai

    client = openai.AsyncOpenAI(base_url=url, api_key="k", max_retries=0)

    async def read() -> None:
        stream = await client.chat.completions.create(
            model="m", messages=[{"role": "user", "content": "hi"}], stream=True
        )
        watch.note_opened()
        async for chunk in stream:
            if chunk.choices and chunk.choices[0].delta.content:
                watch.note(chunk.choices[0].delta.content)

    async def main() -> None:
        await asyncio.gather(*(read() for _ in range(streams)))

    asyncio.run(main())


def run_openai(url: str, streams: int, watch: Watch) -> None:
    import openai

    client = openai.OpenAI(base_url=url, api_key="k", max_retries=0)

    def read() -> None:
        stream = client.chat.completions.create(model="m", messages=[{"role": "user", "content": "hi"}], stream=True)
        watch.note_opened()
        for chunk in stream:
            if chunk.choices and chunk.choices[0].delta.content:
                watch.note(chunk.choices[0].delta.content)

    in_threads(streams, read)


def run_view(name: str, url: str, streams: int, watch: Watch) -> None:
    """The web server is the contestant, and this process its client."""

    async def main(port: int) -> None:
        await read_answer(port, lambda: None, lambda text: None, "warm-up")
        before = await spent_by(port)
        watch.start()
        at_begin: list[asyncio.Task[dict[str, float]]] = []

        def opened() -> None:
            if watch.note_opened():
                at_begin.append(asyncio.ensure_future(spent_by(port)))

        await asyncio.gather(*(read_answer(port, opened, watch.note) for _ in range(streams)))
        end = await spent_by(port)
        watch.cpu_before, watch.cpu_at_begin, watch.cpu_at_end = before["cpu"], (await at_begin[0])["cpu"], end["cpu"]
        watch.memory = end["memory"]

    with serving(name, url, streams) as port:
        asyncio.run(main(port))


CONTESTANTS: dict[str, Callable[[str, int, Watch], None]] = {
    "requests": run_requests,
    "threads": run_threads,
    "AsyncModel": run_async_model,
    "AsyncOpenAI": run_async_openai,
    "openai in threads": run_openai,
    **{name: partial(run_view, name) for name in COMMANDS},
}


@dataclass
class Result:
    """CPU in microseconds per chunk, delays in milliseconds, memory in MiB."""

    cpu: float
    p50: float
    p99: float
    opening_ms: float
    """How long it takes until all streams are open."""
    opening_cpu: float
    """Milliseconds of CPU for one stream."""
    memory: float


def contend(name: str, url: str, streams: int) -> Result:
    run = CONTESTANTS[name]
    if name not in COMMANDS:
        run(f"{url}/warm-up", 1, Watch(1))  # imports
    watch = Watch(streams)
    run(url, streams, watch)
    cuts = statistics.quantiles(watch.late, n=100)
    memory = watch.memory or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    opening_cpu = (watch.cpu_at_begin - watch.cpu_before) * 1000 / streams
    return Result(watch.cpu, cuts[49], cuts[98], watch.opening_ms, opening_cpu, memory)


# --- the run ---------------------------------------------------------------------------------------------------------


def measure(names: list[str], streams: int, rate: float, seconds: float, rounds: int) -> dict[str, Result]:
    """The best round of each contestant: the one with the least CPU."""
    # A view has two sockets for each stream.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    command = [sys.executable, __file__, "--serve", "--rate", str(rate), "--seconds", str(seconds)]
    best: dict[str, Result] = {}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin is not None and server.stdout is not None
        url = f"http://127.0.0.1:{int(server.stdout.readline())}/v1"
        for _ in range(rounds):
            for name in names:
                contestant = [sys.executable, __file__, "--contend", name, "--url", url, "--streams", str(streams)]
                done = subprocess.run(contestant, stdout=subprocess.PIPE, text=True, check=True)
                result = Result(**json.loads(done.stdout))
                if name not in best or result.cpu < best[name].cpu:
                    best[name] = result
        server.stdin.close()
    return best


def show(results: dict[str, Result], streams: int, rate: float) -> None:
    print(f"{streams} streams of {rate:g} chunks a second")
    print(f"{'':20}{'CPU µs/chunk':>14}{'p50 ms':>9}{'p99 ms':>9}{'all open ms':>13}{'ms CPU each':>13}{'MiB':>7}")
    for name, one in results.items():
        print(
            f"{name:20}{one.cpu:14.1f}{one.p50:9.2f}{one.p99:9.2f}{one.opening_ms:13.0f}{one.opening_cpu:13.2f}{one.memory:7.0f}"
        )
    for (ours, theirs), limit in GOALS.items():
        if ours in results and theirs in results:
            ratio = results[ours].cpu / results[theirs].cpu
            print(f"{ours} / {theirs}: {ratio:.2f} (at most {limit})")


def main() -> None:
    parser = argparse.ArgumentParser(description="Many paced streams at once.")
    parser.add_argument("--streams", type=int, default=100)
    parser.add_argument("--rate", type=float, default=50, help="chunks a second of each stream")
    parser.add_argument("--seconds", type=float, default=8, help="length of a stream")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=list(CONTESTANTS), help="the contestants to run")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--contend", help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        asyncio.run(serve(given.rate, given.seconds))
    elif given.contend:
        print(json.dumps(asdict(contend(given.contend, given.url, given.streams))))
    else:
        names = []
        for name in given.only:
            if packages := missing(name):
                print(f"{name}: skipped, because these packages are not installed: {packages}")
            else:
                names.append(name)
        results = measure(names, given.streams, given.rate, given.seconds, given.rounds)
        show(results, given.streams, given.rate)


if __name__ == "__main__":
    main()
