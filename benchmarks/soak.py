"""Many streams, and random faults, for as long as you like: does anything grow, and is a promise broken?

    python benchmarks/soak.py [--minutes 5] [--seed N] [--streams 100000]

First short streams over TLS, one after the other from eight threads, against a server in another process. Then rounds
of the chaos of ``tests/chaos.py``. A line is printed now and then: descriptors, threads, memory, connections; over TLS
each connection is one handshake. The exit status is 1 if a promise was broken or something stayed open.
"""

from __future__ import annotations

import argparse
import gc
import logging
import multiprocessing
import os
import random
import sys
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path

import requests

sys.path.insert(0, str(Path(__file__).parents[1]))  # python puts the folder of this file there, and not the root

from completion import OpenAIModel
from completion.testing import ProviderServer, Reply, event
from tests.certificates import authority_file, server_context
from tests.chaos import STREAMS_OF_A_ROUND, WORKERS, Chaos, what_is_open, what_stays_open

LINES = 10


def serve(pipe: Connection) -> None:
    """A provider on loopback. It sends its URL, and later its number of connections, until it is told to stop."""
    chunk = event({"choices": [{"index": 0, "delta": {"content": "word "}, "finish_reason": None}]})
    end = event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}) + event("[DONE]")
    with ProviderServer(server_context()) as server:
        server.always(Reply(*[chunk] * 5, end, batch=True))
        pipe.send((server.url, str(authority_file())))
        while pipe.recv() == "connections":
            pipe.send(server.connections)


def resident_mib() -> float:
    """Memory of this process; 0 where /proc is missing."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def report(what: str, done: int, began: float, connections: int) -> None:
    gc.collect()
    descriptors, threads = what_is_open()
    print(
        f"{time.monotonic() - began:6.0f} s  {what:7} {done:8,}  descriptors {descriptors:4}  threads {len(threads):3}"
        f"  memory {resident_mib():6.1f} MiB  connections {connections:6,}",
        flush=True,
    )


def short_streams(total: int) -> None:
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs,), daemon=True)
    server.start()
    with requests.Session() as session:
        base_url, session.verify = ours.recv()
        model = OpenAIModel("m", api_key="sk-soak-0123456789", base_url=base_url, session=session)
        read_streams(model, total, ours)
    server.join(10)


def read_streams(model: OpenAIModel, total: int, ours: Connection) -> None:
    began = time.monotonic()

    def work(count: int) -> None:
        for _ in range(count):
            turn = model.chat_stream("Hi").collect()
            assert turn.text == "word " * 5, turn

    for part in range(LINES):
        threads = [threading.Thread(target=work, args=(total // LINES // WORKERS,)) for _ in range(WORKERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        ours.send("connections")
        report("streams", total // LINES * (part + 1), began, ours.recv())
    ours.send("stop")


def chaos(seed: int, minutes: float) -> list[str]:
    """Rounds of chaos, each with new servers and models. Returns what was broken."""
    began = time.monotonic()
    broken: list[str] = []
    done = connections = 0
    next_line = began
    while time.monotonic() < began + minutes * 60:
        with Chaos(seed) as one:
            one.round(range(done, done + STREAMS_OF_A_ROUND))
            connections += one.connections
        broken += one.failures
        done += STREAMS_OF_A_ROUND
        if time.monotonic() > next_line:
            report("chaos", done, began, connections)
            next_line = time.monotonic() + minutes * 60 / LINES
    report("chaos", done, began, connections)
    return broken


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=5.0, help="how long the chaos lasts")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--streams", type=int, default=100_000)
    args = parser.parse_args()
    seed = random.randrange(10**9) if args.seed is None else args.seed
    print(f"seed {seed}")
    logging.disable()  # each retry is logged
    short_streams(args.streams)
    before = what_is_open()
    broken = chaos(seed, args.minutes)
    after = what_stays_open(before)
    left = after[0] > before[0] or len(after[1]) > len(before[1])
    print(f"promises broken: {len(broken)}, left open: {after if left else 'nothing'}", *broken[:3], sep="\n")
    return 1 if broken or left else 0


if __name__ == "__main__":
    sys.exit(main())
