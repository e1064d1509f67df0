"""Ctrl-C ends a program at once, wherever it waits, and leaves no connection and no process."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from completion.testing import ProviderServer, Reply, Stall
from tests.loopback import PATIENCE_S, text

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for one process")

BEGIN = """
import asyncio, sys, time
from functools import partial
import completion
from completion import AsyncModel, ChatRequest, LocalModel, OpenAIModel, RetryingModel, ToolChoice, run_chat, tool, web
model = OpenAIModel("m", api_key="some-key-0123456789", base_url=sys.argv[1], timeout=completion.Timeout(read=60))

def blocked():
    print("blocked", flush=True)
"""

REQUEST = 'blocked(); model.chat_stream("Hi")'

# Where a program waits -> the replies of the server, and the program. It calls blocked() right before it waits.
WAITS: dict[str, tuple[list[Reply], str]] = {
    "headers": (
        [Reply(before_headers=[Stall()])],
        REQUEST,
    ),
    "body": (
        [Reply(text("a"), Stall())],
        'stream = model.chat_stream("Hi"); next(stream); blocked(); next(stream)',
    ),
    "error body": (
        [Reply(b'{"error": ', Stall(), status=401, content_type="application/json")],
        REQUEST,
    ),
    "retry": (
        [Reply.json({}, status=503, headers={"Retry-After": "50"})],
        'RetryingModel(model, on_retry=lambda event: blocked()).chat_stream("Hi")',
    ),
    "tool": (
        [],
        """
@tool
def slow() -> str:
    blocked()
    time.sleep(60)
    return "done"
from completion.testing import ScriptedModel
from completion import ToolCallStarted, ToolCallArgsDelta, ToolCallFinished, TurnFinished, FinishReason
turn = [ToolCallStarted("c", "slow"), ToolCallFinished("c", "slow", {}), TurnFinished(FinishReason.TOOL_USE)]
run_chat(ScriptedModel(turn), "Hi", tools=[slow]).collect()
""",
    ),
    "batch": (
        [Reply(text("a"), Stall())] * 2,
        'blocked(); list(completion.batch(model, ["One", "Two"]))',
    ),
    "event loop": (
        [Reply(text("a"), Stall())],
        """
async def main():
    async with AsyncModel(model).chat_stream("Hi") as stream:
        async for chunk in stream:
            blocked()
asyncio.run(main())
""",
    ),
    "web": (
        [Reply(text("a"), Stall())],
        'body = web.sse(partial(model.chat_stream, "Hi")); next(iter(body)); blocked(); list(body)',
    ),
    "structured": (
        [Reply(text('{"a": '), Stall())],
        """
schema = completion.JsonSchema("s", {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]})
blocked()
completion.structured(model, "Hi", schema, mode="prompt").collect()
""",
    ),
    "embedded model": (
        [],
        """
stream = LocalModel().chat_stream(ChatRequest("Count to one thousand.", max_tokens=4096))
next(stream)
blocked()
while True:
    for chunk in LocalModel().chat_stream(ChatRequest("Count to one thousand.", max_tokens=4096)):
        pass
""",
    ),
}


@pytest.mark.parametrize("wait", WAITS)
def test_ctrl_c_ends_a_wait(server: ProviderServer, wait: str) -> None:
    replies, program = WAITS[wait]
    server.reply(*replies)
    press_ctrl_c(program, server.url, lambda: server.wait_for_requests(len(replies)))
    if wait != "retry":
        assert server.wait_hung_up(count=len(replies))


def test_ctrl_c_ends_a_connect() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        others = [socket.socket() for _ in range(3)]
        for other in others:  # they fill the backlog: the next connect gets no answer
            other.setblocking(False)
            other.connect_ex(listener.getsockname())
        press_ctrl_c(REQUEST, f"http://127.0.0.1:{listener.getsockname()[1]}", lambda: True)
        for other in others:
            other.close()


def test_ctrl_c_ends_a_tls_handshake() -> None:
    accepted: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> bool:
            accepted.append(listener.accept()[0])
            return True

        press_ctrl_c(REQUEST, f"https://127.0.0.1:{listener.getsockname()[1]}", accept)
    for connection in accepted:
        connection.close()


def press_ctrl_c(program: str, url: str, is_waiting: Callable[[], bool]) -> None:
    """Run the program, send SIGINT when it waits, and check how it ends: soon, and with nothing left of it."""
    process = subprocess.Popen(
        [sys.executable, "-c", BEGIN + program, url],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "blocked\n"
        assert is_waiting()
        time.sleep(0.5)  # from here to the wait itself
        process.send_signal(signal.SIGINT)
        _, shown = process.communicate(timeout=PATIENCE_S)
    finally:
        process.kill()
    assert process.returncode == -signal.SIGINT
    assert shown.splitlines()[-1] == "KeyboardInterrupt"
    with pytest.raises(ProcessLookupError):  # no process of its group is left
        os.killpg(process.pid, 0)
