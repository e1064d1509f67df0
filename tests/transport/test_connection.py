"""The life of a connection: the first byte, hanging up, reuse, threads, forks, and what is left after it."""

from __future__ import annotations

import gc
import json
import os
import pickle
import socket
import subprocess
import sys
import threading
import time
import tracemalloc
import weakref
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path

import pytest
import requests

from completion import (
    ChatRequest,
    ChatStream,
    CompletionError,
    DeadlineExceededError,
    OpenAIClient,
    OpenAIModel,
    Timeout,
    TruncatedStreamError,
    TurnFinished,
)
from completion.testing import Cut, Pause, ProviderServer, Reply, Reset, Stall, Trickle, WaitFor, event
from completion.testing.replies import Piece
from tests.loopback import (
    DONE,
    END,
    FINISH,
    FRAMINGS,
    HI,
    KEY,
    PATIENCE_S,
    Caught,
    Framing,
    first_text,
    model_of,
    text,
)

# The first byte


@pytest.mark.parametrize("framing", FRAMINGS)
def test_the_first_chunk_is_yielded_before_the_second_is_sent(any_server: ProviderServer, framing: Framing) -> None:
    goes_on = threading.Event()
    any_server.reply(Reply(text("a"), WaitFor(goes_on), text("b"), END, framing=framing))
    with model_of(any_server).chat_stream(HI) as stream:
        assert first_text(stream) == "a"
        goes_on.set()
        assert first_text(stream) == "b"


def test_the_call_returns_before_the_first_byte_of_the_body(any_server: ProviderServer) -> None:
    goes_on = threading.Event()
    any_server.reply(Reply(WaitFor(goes_on), text("a"), END))
    with model_of(any_server).chat_stream(HI) as stream:
        goes_on.set()
        assert first_text(stream) == "a"


def test_events_inside_one_large_http_chunk_are_yielded_as_they_arrive(any_server: ProviderServer) -> None:
    goes_on = threading.Event()
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    body = text("a") + text("b") + END
    opening = head + b"%x\r\n" % len(body) + text("a")
    # The server frames an empty body after this one, which is not read any more.
    rest = text("b") + END + b"\r\n0\r\n\r\n"
    any_server.reply(Reply(before_headers=[opening, WaitFor(goes_on), rest]))
    with model_of(any_server).chat_stream(HI) as stream:
        assert first_text(stream) == "a"
        goes_on.set()
        assert first_text(stream) == "b"


# Hanging up


def close(stream: ChatStream) -> None:
    stream.close()


def leave_the_with(stream: ChatStream) -> None:
    with stream:
        pass


def fail_in_the_with(stream: ChatStream) -> None:
    with pytest.raises(ZeroDivisionError), stream:
        raise ZeroDivisionError


def throw(stream: ChatStream) -> None:
    with pytest.raises(ZeroDivisionError):
        stream.throw(ZeroDivisionError)


WAYS_TO_LEAVE = [close, leave_the_with, fail_in_the_with, throw]


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("chunks_read", [0, 1], ids=["never started", "begun"])
@pytest.mark.parametrize("leave", WAYS_TO_LEAVE)
def test_leaving_a_stream_hangs_up(
    any_server: ProviderServer, leave: Callable[[ChatStream], None], chunks_read: int, framing: Framing
) -> None:
    any_server.reply(Reply(text("a"), Stall(), framing=framing))
    stream = model_of(any_server).chat_stream(HI)
    for _ in range(chunks_read):
        next(stream)
    leave(stream)
    assert any_server.wait_hung_up()
    assert next(stream, None) is None


@pytest.mark.parametrize("chunks_read", [0, 1], ids=["never started", "begun"])
def test_dropping_a_stream_hangs_up(any_server: ProviderServer, chunks_read: int) -> None:
    any_server.reply(Reply(text("a"), Stall()))
    stream = model_of(any_server).chat_stream(HI)
    for _ in range(chunks_read):
        next(stream)
    gc.disable()
    try:
        del stream
        assert any_server.wait_hung_up()
    finally:
        gc.enable()


def test_breaking_out_of_the_loop_hangs_up(any_server: ProviderServer) -> None:
    any_server.reply(Reply(text("a"), Stall()))
    for chunk in model_of(any_server).chat_stream(HI):
        assert chunk.type == "text_delta"
        break
    assert any_server.wait_hung_up()


def test_an_exception_in_the_loop_hangs_up(any_server: ProviderServer) -> None:
    any_server.reply(Reply(text("a"), Stall()))

    def loop() -> None:
        for _ in model_of(any_server).chat_stream(HI):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        loop()
    assert any_server.wait_hung_up()


def test_closing_the_generator_around_a_stream_hangs_up(any_server: ProviderServer) -> None:
    any_server.reply(Reply(text("a"), Stall()))

    def view(stream: ChatStream) -> Iterator[str]:
        with stream:
            for chunk in stream:
                yield chunk.type

    types = view(model_of(any_server).chat_stream(HI))
    assert next(types) == "text_delta"
    del types
    assert any_server.wait_hung_up()


# Reuse


def drain(stream: ChatStream) -> None:
    assert [chunk.type for chunk in stream] == ["text_delta", "turn_finished"]


def break_at_the_end_of_turn(stream: ChatStream) -> None:
    for chunk in stream:
        if isinstance(chunk, TurnFinished):
            break
    stream.close()


@pytest.mark.parametrize("framing", ["chunked", "length"])
@pytest.mark.parametrize("end", [END, FINISH, DONE], ids=["both", "finish_reason", "DONE"])
@pytest.mark.parametrize("read", [drain, break_at_the_end_of_turn])
def test_after_the_end_of_turn_the_connection_is_used_again(
    any_server: ProviderServer, read: Callable[[ChatStream], None], end: bytes, framing: Framing
) -> None:
    any_server.always(Reply(text("a"), end, framing=framing))
    model = model_of(any_server)
    for _ in range(4):
        read(model.chat_stream(HI))
    assert any_server.connections == 1


def test_a_last_http_chunk_that_arrives_a_moment_late_is_waited_for(any_server: ProviderServer) -> None:
    any_server.always(Reply(text("a"), END, Pause(0.005)))
    model = model_of(any_server)
    for _ in range(3):
        model.chat_stream(HI).collect()
    assert any_server.connections == 1


def test_models_of_one_client_share_its_connections(server: ProviderServer) -> None:
    server.always(Reply(text("a"), END))
    client = OpenAIClient(base_url=server.url, api_key=KEY)
    for model_id in ("one", "two", "three"):
        client.completion_model(model_id).chat_stream(HI).collect()
    assert [request.json()["model"] for request in server.requests] == ["one", "two", "three"]
    assert server.connections == 1


@pytest.mark.parametrize("rest", [Trickle(every=0.01, times=1000), Stall()], ids=["dribble", "silence"])
def test_data_after_done_is_not_waited_for(any_server: ProviderServer, rest: Piece) -> None:
    any_server.reply(Reply(text("a"), END, rest))
    began = time.monotonic()
    model_of(any_server).chat_stream(HI).collect()
    assert time.monotonic() - began < 2  # 0.05 s on a quiet machine
    assert any_server.wait_hung_up()


def test_a_flood_after_done_is_not_read(server: ProviderServer) -> None:
    server.reply(Reply(text("a"), END, *[b": " + b"x" * 100_000 + b"\n\n"] * 300))
    model_of(server).chat_stream(HI).collect()
    assert server.wait_hung_up()


def test_a_close_delimited_body_needs_a_new_connection_each_time(any_server: ProviderServer) -> None:
    any_server.always(Reply(text("a"), END, framing="close"))
    model = model_of(any_server)
    assert [model.chat_stream(HI).collect().text for _ in range(3)] == ["a"] * 3
    assert any_server.connections == 3


def test_a_connection_that_the_server_closed_while_idle_is_replaced() -> None:
    with ProviderServer() as first:
        first.reply(Reply(text("a"), END))
        model = model_of(first)
        model.chat_stream(HI).collect()
        port = int(first.url.rpartition(":")[2])
    answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: text/event-stream\r\n\r\n" + text("b") + END

    def serve(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(answer)

    with socket.create_server(("127.0.0.1", port)) as listener:
        serving = Caught(lambda: serve(listener))
        assert model.chat_stream(HI).collect().text == "b"
        serving.within(PATIENCE_S)


@pytest.mark.parametrize("end", [Cut(), Reset()], ids=["closed", "reset"])
def test_a_connection_that_the_server_closes_just_when_it_is_used_is_replaced(
    any_server: ProviderServer, end: Piece
) -> None:
    any_server.reply(Reply(text("a"), END), Reply(before_headers=[end]), Reply(text("b"), END))
    model = model_of(any_server)
    assert [model.chat_stream(HI).collect().text for _ in range(2)] == ["a", "b"]
    assert [request.connection for request in any_server.requests] == [1, 1, 2]
    assert any_server.requests[1].body == any_server.requests[2].body


@pytest.mark.skipif(not hasattr(socket, "TCP_KEEPIDLE"), reason="no such option here")
def test_connections_use_tcp_keep_alive(server: ProviderServer) -> None:
    server.reply(Reply(text("a"), Stall()))
    with model_of(server).chat_stream(HI):
        ours = [sock for sock in _sockets() if _is_client_of(server, sock)]
        assert [sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) for sock in ours] == [1]
        assert [sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) for sock in ours] == [60]


def _sockets() -> list[socket.socket]:
    return [thing for thing in gc.get_objects() if isinstance(thing, socket.socket) and thing.fileno() >= 0]


def _is_client_of(server: ProviderServer, sock: socket.socket) -> bool:
    try:
        return bool(sock.getpeername()[1] == int(server.url.rpartition(":")[2]))
    except OSError:
        return False


# Threads and processes


@pytest.fixture
def many_switches() -> Iterator[None]:
    """Threads switch after every few instructions, which makes races likely."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("many_switches")
@pytest.mark.parametrize("reply", [Reply(), Reply(text("a"), END)], ids=["error", "stream"])
def test_close_closes_idle_connections_although_an_error_or_a_stream_is_kept(
    server: ProviderServer, reply: Reply
) -> None:
    server.reply(reply)
    model = model_of(server)
    stream = model.chat_stream(HI)
    kept: list[BaseException] = []
    try:
        list(stream)
    except TruncatedStreamError as error:
        kept.append(error)
    stream.close()
    assert server.open_connections == 1
    model.close()
    deadline = time.monotonic() + PATIENCE_S
    while server.open_connections and time.monotonic() < deadline:
        time.sleep(0.001)
    assert server.open_connections == 0


def test_threads_that_start_at_once_share_one_pool(server: ProviderServer) -> None:
    server.always(Reply(text("a"), END))
    model = model_of(server)
    barrier = threading.Barrier(16)

    def ask() -> None:
        barrier.wait(PATIENCE_S)
        model.chat_stream(HI).collect()

    for thread in [Caught(ask) for _ in range(16)]:
        assert thread.within(PATIENCE_S).error is None
    opened = server.connections
    streams = [model.chat_stream(HI) for _ in range(opened)]
    assert server.connections == opened  # all of them were in one pool
    for stream in streams:
        stream.close()


def test_many_short_streams_over_tls_need_one_handshake_for_each_thread(tls_server: ProviderServer) -> None:
    tls_server.always(Reply(text("a"), END))
    model = model_of(tls_server)
    readers = 8
    threads = [Caught(lambda: [model.chat_stream(HI).collect() for _ in range(50)]) for _ in range(readers)]
    for thread in threads:
        assert thread.within(PATIENCE_S).error is None
    assert len(tls_server.requests) == 50 * readers
    assert tls_server.connections <= readers  # each connection of this server has one handshake


def test_threads_get_their_own_answers() -> None:
    with _Echo() as port:
        model = OpenAIModel("m", base_url=f"http://127.0.0.1:{port}", api_key=KEY, timeout=Timeout(read=PATIENCE_S))

        def ask(name: int) -> list[str]:
            return [model.chat_stream(ChatRequest(f"{name}.{i}")).collect().text for i in range(30)]

        for name, thread in enumerate([Caught(lambda n=n: ask(n)) for n in range(16)]):  # type: ignore[misc]
            assert thread.within(PATIENCE_S).error is None
            assert thread.result == [f"{name}.{i}" for i in range(30)]


def test_more_streams_than_the_pool_size_do_not_wait_for_each_other(server: ProviderServer) -> None:
    server.always(Reply(text("a"), Stall()))
    model = model_of(server)
    streams = [model.chat_stream(HI) for _ in range(110)]
    assert [first_text(stream) for stream in streams] == ["a"] * 110
    for stream in streams:
        stream.close()
    assert server.wait_hung_up(count=110)


def test_an_unpickled_model_works(server: ProviderServer) -> None:
    server.always(Reply(text("a"), END))
    model = model_of(server, headers={"X-Tenant": "seven"}, timeout=Timeout(read=3))
    model.chat_stream(HI).collect()
    twin: OpenAIModel = pickle.loads(pickle.dumps(model))
    assert twin.chat_stream(HI).collect().text == "a"
    assert server.requests[0].headers == server.requests[1].headers
    assert server.connections == 2


class Object:
    """An object in a local variable of the caller."""


@pytest.mark.parametrize(
    "reply",
    [
        Reply(text("a"), Cut()),
        Reply(text("a")),
        Reply(event("{no JSON")),
        Reply(event({"error": {"message": "busy"}})),
        Reply.json({"error": {"message": "no"}}, status=400),
        Reply(before_headers=[Cut()]),
    ],
    ids=["cut", "short", "no JSON", "in band", "refused", "before the headers"],
)
def test_an_error_that_was_handled_keeps_no_object_of_the_caller_alive(server: ProviderServer, reply: Reply) -> None:
    server.reply(reply)
    model = model_of(server)

    def caller() -> weakref.ref[Object]:
        local = Object()
        with pytest.raises(CompletionError):
            model.chat_stream(HI).collect()
        return weakref.ref(local)

    gc.disable()  # otherwise it might free a reference cycle
    try:
        assert caller()() is None
    finally:
        gc.enable()


FORKED = """\
import gc, os, sys, time, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12: fork() in a process with threads
from completion import ChatRequest, OpenAIModel

def ask(text):
    return model.chat_stream(ChatRequest(text)).collect().text

def forked(work):
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return pid

def wait(pid):
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0

model = OpenAIModel("m", base_url=sys.argv[1], api_key="k")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize(
    "script",
    [
        pytest.param(
            """
assert ask("before") == "before"

def child():
    for i in range(20):
        assert ask(f"child {i}") == f"child {i}"

pid = forked(child)
for i in range(20):
    assert ask(f"parent {i}") == f"parent {i}"
wait(pid)
""",
            id="with a pooled connection both get their own answers",
        ),
        pytest.param(
            """
stream = model.chat_stream(ChatRequest("slow"))
first = next(stream).delta

def child():
    global stream
    assert ask("child") == "child"
    del stream
    gc.collect()

wait(forked(child))
assert first + "".join(c.delta for c in stream if c.type == "text_delta") == "slow"
""",
            id="a child that drops the stream does not end it",
        ),
        pytest.param(
            """
from completion import TransportError

stream = model.chat_stream(ChatRequest("slow"))
first = next(stream).delta

def child():
    try:
        while True:
            next(stream)
    except TransportError as error:
        assert "forked" in str(error)

wait(forked(child))
assert first + "".join(c.delta for c in stream if c.type == "text_delta") == "slow"
""",
            id="a child that reads on takes nothing from the parent",
        ),
        pytest.param(
            """
stream = model.chat_stream(ChatRequest("slow"))
first = next(stream).delta

def child():
    stream.cancel()
    stream.close()
    model.client.close()

wait(forked(child))
assert first + "".join(c.delta for c in stream if c.type == "text_delta") == "slow"
""",
            id="a child that closes everything does not end it",
        ),
        pytest.param(
            """
stream = model.chat_stream(ChatRequest("for ever"))
next(stream)
read, write = os.pipe()

def child():
    os.close(write)
    os.read(read, 1)  # until the parent has closed its end

pid = forked(child)
stream.close()
assert ask("hung up?") == "yes"
os.close(write)
wait(pid)
""",
            id="closing hangs up though a child holds a copy of the socket",
        ),
    ],
)
def test_after_a_fork(script: str, tmp_path: Path) -> None:
    path = tmp_path / "forked.py"
    path.write_text(FORKED + script)
    with _Echo() as port:
        run = subprocess.run(
            [sys.executable, "-W", "error", str(path), f"http://127.0.0.1:{port}"],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    assert (run.returncode, run.stderr) == (0, "")


class _Echo:
    """A server that answers with the prompt, and serves many requests on a connection.

    Three prompts are special: "slow" is answered letter by letter, "for ever" with text without an end, and "hung up?"
    with whether the client of "for ever" has left.
    """

    def __enter__(self) -> int:
        self._hung_up = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        threading.Thread(target=self._accept, daemon=True).start()
        port: int = self._listener.getsockname()[1]
        return port

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as incoming:
            while incoming.readline():
                headers = dict(line.lower().split(b": ") for line in iter(incoming.readline, b"\r\n"))
                payload = json.loads(incoming.read(int(headers[b"content-length"])))
                prompt = payload["messages"][0]["content"]
                connection.sendall(
                    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
                )
                try:
                    for piece in chain(self._pieces(prompt), [END]):
                        connection.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))
                    connection.sendall(b"0\r\n\r\n")
                except OSError:
                    self._hung_up.set()
                    return

    def _pieces(self, prompt: str) -> Iterator[bytes]:
        if prompt == "slow":
            for letter in prompt:
                yield text(letter)
                time.sleep(0.3)
        elif prompt == "for ever":
            while True:
                yield text(".")
                time.sleep(0.02)
        elif prompt == "hung up?":
            yield text("yes" if self._hung_up.wait(PATIENCE_S) else "no")
        else:
            yield text(prompt)


# What is left


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="no /proc here")
def test_two_hundred_streams_leave_no_thread_and_no_descriptor(server: ProviderServer) -> None:
    server.always(Reply(text("a"), Stall()))
    client = OpenAIClient(base_url=server.url, api_key=KEY, timeout=Timeout(total=60))
    model = client.completion_model("m")
    model.chat_stream(HI).close()
    assert server.wait_hung_up(count=1)
    names = {thread.name for thread in threading.enumerate()}
    descriptors = len(os.listdir("/proc/self/fd"))
    for _ in range(200):
        with model.chat_stream(HI) as stream:
            next(stream)
    client.close()
    assert server.wait_hung_up(count=201)
    deadline = time.monotonic() + PATIENCE_S
    while (
        time.monotonic() < deadline
    ):  # until the server has closed its sockets, and the threads of cancelled timers have ended
        left = {thread.name for thread in threading.enumerate()} - names
        if not left and len(os.listdir("/proc/self/fd")) <= descriptors:
            break
        time.sleep(0.01)
    assert left == set()
    assert len(os.listdir("/proc/self/fd")) <= descriptors


def test_memory_stays_flat_over_a_long_stream(server: ProviderServer) -> None:
    measured = threading.Event()
    server.reply(Reply(*[text("x") * 100] * 20, WaitFor(measured), *[text("x") * 100] * 280, END))
    stream = model_of(server).chat_stream(HI)
    for _ in range(2000):
        next(stream)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        measured.set()
        count = sum(1 for _ in stream)
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == 28_001
    assert after - before < 200_000
    assert peak - before < 2_000_000


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # the finalizer of a socket may run before ours
def test_streams_dropped_in_reference_cycles_do_not_block_the_pool(server: ProviderServer) -> None:
    """A finalizer may run while its thread holds the lock of the pool, which is not reentrant."""
    server.always(Reply(event({"choices": [{"index": 0, "delta": {"content": "a"}}]}), Stall(0.2)))
    model = OpenAIModel("m", api_key="k", base_url=server.url)
    held = [model.chat_stream(ChatRequest("hi")) for _ in range(8)]
    threshold = gc.get_threshold()
    gc.set_threshold(1)
    try:
        for _ in range(40):
            stream = model.chat_stream(ChatRequest("hi"))
            next(stream)
            cycle: list[object] = [stream]
            cycle.append(cycle)
            del stream, cycle
    finally:
        gc.set_threshold(*threshold)
        gc.collect()
    for stream in held:
        stream.close()


def test_the_connection_of_a_stream_dropped_after_its_turn_is_used_again(server: ProviderServer) -> None:
    end = event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    server.always(Reply(end, event("[DONE]")))
    model = OpenAIModel("m", api_key="k", base_url=server.url)
    for _ in range(3):
        for chunk in model.chat_stream(ChatRequest("hi")):
            if chunk.type == "turn_finished":
                break
    assert server.connections == 1


def test_total_ends_the_wait_for_headers_for_a_session_of_the_caller_too(server: ProviderServer) -> None:
    server.always(Reply(before_headers=[Stall()]))
    timeout = Timeout(read=30, total=0.3)
    model = OpenAIModel("m", api_key="k", base_url=server.url, session=requests.Session(), timeout=timeout)
    began = time.monotonic()
    with pytest.raises(DeadlineExceededError):
        model.chat_stream(ChatRequest("hi"))
    assert time.monotonic() - began < 10


def test_an_answer_that_goes_on_after_a_finish_reason_is_waited_for(server: ProviderServer) -> None:
    said = [{"choices": [{"index": 0, "delta": {"content": c}, "finish_reason": "stop"}]} for c in "ab"]
    server.reply(Reply(event(said[0]), Pause(5.3), event(said[1]), event("[DONE]")))
    model = OpenAIModel("m", api_key="k", base_url=server.url)
    assert model.chat_stream(ChatRequest("hi")).collect().text == "ab"
