"""A hundred clients leave at random times. The connections to the provider are closed at once, and the server keeps
no threads or sockets."""

from __future__ import annotations

import json
import random
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from completion.testing import Pause, ProviderServer, Reply, Stall, Trickle
from tests.apps.servers import COMMANDS, THREADS, WebServer, faults, scripted, serving, visitor, wait_for
from tests.loopback import PATIENCE_S, text

CLIENTS = 100
AT_A_TIME = 10
SEED = 20261126
GRACE_S = 1.0

# A wait for the headers, a wait for the first chunk, text for a while, then silence.
ANSWER = Reply(Pause(0.05), Trickle(text("word "), every=0.005, times=40), Stall(60), before_headers=[Pause(0.05)])
LONGEST_STAY_S = 0.5


class Hangups(threading.Thread):
    """Notes for each request when the provider sees the connection closed."""

    def __init__(self, provider: ProviderServer) -> None:
        super().__init__(daemon=True)
        self.seen_at: dict[str, float] = {}
        self._provider = provider
        self._is_over = threading.Event()

    def run(self) -> None:
        noted = 0
        while not self._is_over.is_set():
            if not self._provider.wait_hung_up(0.1, count=noted + 1):
                continue
            now = time.monotonic()
            requests = self._provider.requests
            for hangup in self._provider.hangups[noted:]:
                self.seen_at[requests[hangup.request_index].json()["messages"][-1]["content"]] = now
                noted += 1

    def close(self) -> None:
        self._is_over.set()
        self.join()


def visits(
    server: WebServer, headers: dict[str, str], names: list[str], chance: random.Random, *, at_a_time: int = AT_A_TIME
) -> dict[str, float]:
    """Let each client ask for an answer and leave after a random time. Returns when each of them has left."""
    stays = {name: chance.uniform(0, LONGEST_STAY_S) for name in names}
    with ThreadPoolExecutor(at_a_time) as clients:
        left = clients.map(lambda name: visit(server, headers, name, stays[name]), names)
        return dict(zip(names, left, strict=True))


def visit(server: WebServer, headers: dict[str, str], name: str, stay: float) -> float:
    body = json.dumps({"messages": [{"role": "user", "blocks": [{"type": "text", "text": name}]}]}).encode()
    head = {"Host": "127.0.0.1", "Content-Length": str(len(body)), **headers}
    lines = ["POST /chat HTTP/1.1", *(f"{key}: {value}" for key, value in head.items()), "", ""]
    with socket.create_connection(("127.0.0.1", server.port), PATIENCE_S) as client:
        client.sendall("\r\n".join(lines).encode() + body)
        leaves_at = time.monotonic() + stay
        while (left := leaves_at - time.monotonic()) > 0:
            client.settimeout(left)
            try:
                assert client.recv(65536), "the server closed the connection"
            except TimeoutError:
                break
    return time.monotonic()


@pytest.fixture
def provider() -> Iterator[ProviderServer]:
    with ProviderServer() as provider:
        provider.always(ANSWER)
        yield provider


@pytest.mark.skipif(
    not Path("/proc/self/fd").exists(), reason="needs /proc to count the threads and sockets of the server"
)
@pytest.mark.parametrize("name", COMMANDS)
def test_clients_that_leave_close_the_connection_to_the_provider(
    name: str, provider: ProviderServer, tmp_path: Path
) -> None:
    chance = random.Random(SEED)
    hangups = Hangups(provider)
    hangups.start()
    with closing(hangups), serving(name, tmp_path / "log", scripted(provider)) as server:
        headers = visitor(server)
        # After these visits, the server has all the threads and sockets that it keeps for reuse.
        visits(server, headers, [f"early {number}" for number in range(2 * THREADS)], chance, at_a_time=2 * THREADS)
        assert wait_for(lambda: provider.open_connections == 0, PATIENCE_S), server.log
        threads, descriptors = server.threads(), server.descriptors()

        left_at = visits(server, headers, [f"client {number}" for number in range(CLIENTS)], chance)

        assert wait_for(lambda: provider.open_connections == 0, PATIENCE_S), server.log
        assert wait_for(lambda: len(hangups.seen_at) == len(provider.requests), PATIENCE_S), server.log
        waits = [seen_at - left_at[name] for name, seen_at in hangups.seen_at.items() if name in left_at]
        assert max(waits) <= GRACE_S, server.log
        assert len(waits) > CLIENTS / 2  # the others left before the provider was called
        assert wait_for(lambda: server.threads() <= threads, PATIENCE_S), f"{server.threads()} threads, were {threads}"
        assert wait_for(lambda: server.descriptors() <= descriptors, PATIENCE_S), (
            "the server still has more sockets or files than before"
        )
        assert not faults(server.log), server.log
