"""A program patched by gevent: its greenlets read streams at the same time, and their connections are closed."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from completion.testing import ProviderServer, Reply, Stall, WaitFor
from tests.loopback import END, text

pytest.importorskip("gevent")

PROGRAM = """
from gevent import monkey
monkey.patch_all()
import gevent, sys
from completion import *
req = ChatRequest("Hi")
model = OpenAIModel("m", api_key="k", base_url=sys.argv[1], timeout=Timeout(read=20))
def said():
    return model.chat_stream(req).collect().text
"""


@contextmanager
def patched(server: ProviderServer, code: str) -> Iterator[subprocess.Popen[str]]:
    """Run PROGRAM, with this code added at its end."""
    command = [sys.executable, "-c", PROGRAM + code, server.url]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def test_ten_greenlets_stream_at_the_same_time(server: ProviderServer) -> None:
    all_are_here = threading.Event()
    server.always(Reply(text("a"), WaitFor(all_are_here), text("b"), END))
    with patched(server, "print([job.get() for job in [gevent.spawn(said) for _ in range(10)]])") as process:
        assert server.wait_for_requests(10, timeout=20)
        all_are_here.set()
        assert process.communicate(timeout=20)[0] == f"{['ab'] * 10}\n"


def test_killing_a_greenlet_closes_the_connection(server: ProviderServer) -> None:
    server.always(Reply(text("a"), Stall()))
    code = """
stream = model.chat_stream(req)
next(stream)
job = gevent.spawn(list, stream)
gevent.sleep(0.1)
job.kill()
print(job.successful())
sys.stdin.readline()
"""
    with patched(server, code) as process:
        assert server.wait_hung_up(timeout=20)
        assert process.communicate("\n", timeout=20)[0] == "True\n"  # GreenletExit does not count as a failure


def test_another_greenlet_may_cancel_the_stream(server: ProviderServer) -> None:
    server.reply(Reply(text("a"), Stall()))
    code = """
stream = model.chat_stream(req)
next(stream)
gevent.spawn_later(0.1, stream.cancel)
try:
    next(stream)
except StreamCancelledError:
    print("cancelled")
"""
    with patched(server, code) as process:
        assert process.communicate(timeout=20)[0] == "cancelled\n"
    assert server.wait_hung_up()


def test_other_greenlets_run_while_a_retry_waits(server: ProviderServer) -> None:
    server.reply(Reply.json({}, status=429, headers={"Retry-After": "1"}), Reply(text("a"), END))
    code = """
retrying = gevent.spawn(lambda: RetryingModel(model).chat_stream(req).collect().text)
ticks = 0
while not retrying.ready():
    gevent.sleep(0.05)
    ticks += 1
print(retrying.get(), ticks > 5)
"""
    with patched(server, code) as process:
        assert process.communicate(timeout=20)[0] == "a True\n"
