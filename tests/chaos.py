"""Random faults of a server, and readers that cancel, close and leave at random moments, from several threads.

A seed gives the plan of each stream: its adapter, its way of reading, its reply, and when it is cancelled. How the
threads interleave, and so which stream gets which reply, is different each time.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import json
import os
import random
import re
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from typing import Any

from completion import (
    AsyncModel,
    CancelToken,
    CompletionError,
    ConfigurationError,
    OllamaModel,
    OpenAIModel,
    RetryConfig,
    RetryingModel,
    RunConfig,
    StreamCancelledError,
    StreamChunk,
    TextDelta,
    Timeout,
    Turn,
    TurnFinished,
    run_chat,
    tool,
)
from completion.adapters.bedrock import BedrockModel
from completion.testing import Cut, Pause, ProviderServer, Reply, Reset, Stall, event
from tests import aws
from tests.loopback import DONE, FINISH, FRAMINGS, KEY, PATIENCE_S
from tests.wire_pieces import TOOLS, calls, order_faults
from tests.wire_pieces import piece as call_piece

STREAMS_OF_A_ROUND = 1000
WORKERS = 8
CONTENT_TYPES = {"sse": "text/event-stream", "ndjson": "application/x-ndjson", "aws": aws.CONTENT_TYPE["Content-Type"]}


@tool
def f(x: int = 0) -> str:
    """The tool that the answers call."""
    return str(x)


def sse(marker: str, texts: int, has_call: bool) -> list[bytes]:
    parts = [event({"id": "c", "choices": [{"index": 0, "delta": {"content": marker}}]})] * texts
    if not has_call:
        return [*parts, FINISH, DONE]
    pieces = [call_piece(0, "", id="call-1", name="f"), call_piece(0, '{"x"'), call_piece(0, ": 1}")]
    return [*parts, *(event(calls(piece)) for piece in pieces), event(TOOLS), DONE]


def ndjson(marker: str, texts: int, has_call: bool) -> list[bytes]:
    def line(*, done: bool = False, **message: Any) -> bytes:
        data = {"message": {"role": "assistant", "content": "", **message}, "done": done, "done_reason": "stop"}
        return json.dumps(data).encode() + b"\n"

    call = [line(tool_calls=[{"function": {"name": "f", "arguments": {"x": 1}}}])] if has_call else []
    return [*[line(content=marker)] * texts, *call, line(done=True)]


def frames(marker: str, texts: int, has_call: bool) -> list[bytes]:
    parts = [aws.STARTED, *[aws.delta(0, text=marker)] * texts, aws.stop(0)]
    if has_call:
        start = {"contentBlockIndex": 1, "start": {"toolUse": {"toolUseId": "call-1", "name": "f"}}}
        parts += [aws.frame("contentBlockStart", start), aws.delta(1, toolUse={"input": '{"x": 1}'}), aws.stop(1)]
    return [*parts, aws.ended("tool_use" if has_call else "end_turn"), aws.USAGE]


BODIES = {"sse": sse, "ndjson": ndjson, "aws": frames}


def random_reply(rng: random.Random, wire: str, number: int) -> Reply:
    """A reply that is good, or has one fault. A good one has its number in each text."""
    fault = rng.choice(["none"] * 6 + ["cut", "reset", "stall", "end", "flip", "status", "headers", "dribble"])
    marker = "«?» " if fault == "flip" else f"«{number}» "
    parts: list[Any] = list(BODIES[wire](marker, rng.randint(0, 8), rng.random() < 0.3))
    framing = rng.choice(FRAMINGS)
    split: Any = rng.choice([None, None, "whole", 1, 7, 100])
    if fault == "status":
        status = rng.choice([400, 401, 404, 408, 413, 429, 500, 503, 529, 418])
        error = {"error": {"message": "no", "type": "busy"}}
        return rng.choice([Reply.json(error, status), Reply.text("<html>", "text/html", status), Reply(status=status)])
    if fault == "headers":
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"[: rng.randint(0, 50)]
        end: Any = rng.choice([Cut(), Reset()])
        return Reply(before_headers=[head, end])
    body = b"".join(parts)
    at = rng.randrange(len(body))
    if fault in ("cut", "reset", "stall"):
        parts = [body[:at], {"cut": Cut(), "reset": Reset(), "stall": Stall(timeout=2)}[fault]]
    elif fault == "end":
        parts = [body[:at]]
    elif fault == "flip":
        parts = [body[:at], bytes([rng.randrange(256)]), body[at + 1 :]]
    elif fault == "dribble":
        parts = [item for part in parts for item in (part, Pause(0.002))]
    return Reply(*parts, content_type=CONTENT_TYPES[wire], framing=framing, split=split)


class Fault(AssertionError):
    """A promise of the contract was broken."""


def check_turn(chunks: list[StreamChunk], *, ended: bool) -> None:
    faults = list(order_faults(chunks, ended=ended))
    if faults:
        raise Fault(faults)
    if sum(isinstance(chunk, TurnFinished) for chunk in chunks) > 1:
        raise Fault("a second end of the turn")
    markers = set(re.findall(r"«(\d+)»", "".join(chunk.delta for chunk in chunks if isinstance(chunk, TextDelta))))
    if len(markers) > 1:
        raise Fault(f"texts of several answers in one: {markers}")


def check_error(error: CompletionError, *, was_cancelled: bool) -> None:
    if type(error) is CompletionError or isinstance(error, ConfigurationError):
        raise Fault(f"an error of the network is {error!r}") from error
    if isinstance(error, StreamCancelledError) and not was_cancelled:
        raise Fault("nobody cancelled the stream") from error
    if KEY in f"{error} {error!r}":
        raise Fault("the key is in an error")


def check_over(stream: Any) -> None:
    if next(stream, None) is not None:
        raise Fault("a chunk after the end")


class Chaos:
    """Streams with faults, read by `WORKERS` threads. A context manager: it starts a server for each adapter."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.outcomes: Counter[str] = Counter()
        self.slowest = 0.0
        self.failures: list[str] = []
        self._lock = threading.Lock()
        self._stack = ExitStack()

    def __enter__(self) -> Chaos:
        self._servers = {wire: self._stack.enter_context(ProviderServer()) for wire in BODIES}
        options: dict[str, Any] = {"api_key": KEY, "timeout": Timeout(connect=5, read=0.3, total=5)}
        urls = {wire: server.url for wire, server in self._servers.items()}
        self._models: dict[str, Any] = {
            "sse": OpenAIModel("m", base_url=urls["sse"], **options),
            "ndjson": OllamaModel("m", base_url=urls["ndjson"], **options),
            "aws": BedrockModel("m", base_url=urls["aws"], **options),
        }
        for wire, server in self._servers.items():
            content_type = CONTENT_TYPES[wire]
            server.always(Reply(*BODIES[wire]("«0» ", 2, False), content_type=content_type))
        return self

    def __exit__(self, *_: object) -> None:
        self._models = {}
        self._stack.close()

    @property
    def connections(self) -> int:
        """How many connections the servers have accepted."""
        return sum(server.connections for server in self._servers.values())

    def round(self, numbers: range, until: float = float("inf")) -> None:
        """Read these streams; start none after the moment `until`. Failures are collected."""
        left = iter(numbers)

        def work() -> None:
            while time.monotonic() < until:
                with self._lock:
                    number = next(left, None)
                if number is None:
                    return
                self._one(number)

        workers = [threading.Thread(target=work, name=f"chaos {n}", daemon=True) for n in range(WORKERS)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(60)
            if worker.is_alive():
                self.failures.append(f"seed {self.seed}: a stream hangs")

    def _one(self, number: int) -> None:
        rng = random.Random(f"{self.seed}/{number}")
        wire = rng.choice(list(BODIES))
        way = rng.choice([self._plain, self._plain, self._retrying, self._run, self._async])
        self._servers[wire].reply(random_reply(rng, wire, number))
        began = time.monotonic()
        try:
            outcome = way(rng, self._models[wire])
        except BaseException:
            self.failures.append(
                f"seed {self.seed}, stream {number}, {wire}, {way.__name__}:\n{traceback.format_exc()}"
            )
            return
        with self._lock:
            self.outcomes[outcome] += 1
            self.slowest = max(self.slowest, time.monotonic() - began)

    def _plain(self, rng: random.Random, model: Any) -> str:
        return read(rng, model.chat_stream, check_turn)

    def _retrying(self, rng: random.Random, model: Any) -> str:
        config = RetryConfig(max_attempts=3, base_delay=0.001, max_delay=0.01)
        return read(rng, RetryingModel(model, config).chat_stream, check_turn)

    def _run(self, rng: random.Random, model: Any) -> str:
        run = functools.partial(run_chat, model, tools=[f], config=RunConfig(max_iterations=3))
        return read(rng, run, check_run)

    def _async(self, rng: random.Random, model: Any) -> str:
        return asyncio.run(read_async(rng, AsyncModel(model)))


def is_of_turn(chunk: Any) -> bool:
    """Whether the chunk is the model's, and not the run's."""
    return type(chunk).__module__ == TurnFinished.__module__


def check_run(chunks: list[Any], *, ended: bool) -> None:
    """The turns of a run, each in order, and one end."""
    turn: list[StreamChunk] = []
    for chunk in chunks:
        if is_of_turn(chunk):
            turn.append(chunk)
        if isinstance(chunk, TurnFinished):
            check_turn(turn, ended=True)
            turn = []
    check_turn(turn, ended=False)
    ends = [chunk.type for chunk in chunks].count("run_finished")
    if ends > 1 or (ended and (ends != 1 or chunks[-1].type != "run_finished")):
        raise Fault("a run has one end, and it is its last chunk")
    if ended and turn and chunks[-1].abort is None:
        raise Fault("a run that was not aborted ends inside a turn")


def read(rng: random.Random, open_stream: Callable[[str], Any], check: Callable[..., None]) -> str:
    """Read a stream in a random way, check it, and say how it ended."""
    token = CancelToken()
    timer = threading.Timer(rng.uniform(0, 0.05), token.cancel) if rng.random() < 0.3 else None
    if timer:
        timer.start()
    try:
        with token:
            return _read(rng, open_stream, check, was_cancelled=timer is not None)
    finally:
        if timer:
            timer.cancel()
            timer.join()


def _read(
    rng: random.Random, open_stream: Callable[[str], Any], check: Callable[..., None], *, was_cancelled: bool
) -> str:
    try:
        stream = open_stream("Hi")
    except CompletionError as error:
        check_error(error, was_cancelled=was_cancelled)
        return f"refused: {type(error).__name__}"
    if rng.random() < 0.3 and check is check_turn:
        return _collect(stream, was_cancelled=was_cancelled)
    chunks: list[Any] = []
    stop_after = rng.choice([None, None, 1, 2, 5])
    try:
        for chunk in stream:
            chunks.append(chunk)
            if len(chunks) == stop_after:
                check(chunks, ended=False)
                leave(rng, stream)
                return "left early"
    except CompletionError as error:
        check_error(error, was_cancelled=was_cancelled)
        check(chunks, ended=False)
        if chunks and isinstance(chunks[-1], TurnFinished) and check is check_turn:
            raise Fault("an error after the end of the turn") from error
        check_over(stream)
        return f"failed: {type(error).__name__}"
    check(chunks, ended=True)
    check_over(stream)
    return "read to the end"


def _collect(stream: Any, *, was_cancelled: bool) -> str:
    try:
        turn = stream.collect()
    except CompletionError as error:
        check_error(error, was_cancelled=was_cancelled)
        if not isinstance(error.partial, Turn):
            raise Fault("an error of collect() has no partial turn") from error
        check_over(stream)
        return f"failed: {type(error).__name__}"
    if not isinstance(turn, Turn):
        raise Fault("collect() returns a turn")
    return "collected"


def leave(rng: random.Random, stream: Any) -> None:
    """Stop reading: close, cancel, close in a generator around it, close by another thread's cancel, or drop it."""

    def view() -> Iterator[Any]:
        yield from stream

    match rng.choice(["close", "cancel", "generator", "thread", "drop"]):
        case "close":
            stream.close()
            check_over(stream)
        case "cancel":
            stream.cancel()
            with suppress(StreamCancelledError):
                for chunk in stream:  # a run that is cancelled still ends its step, and says why it ends
                    if is_of_turn(chunk):
                        raise Fault(f"{chunk} after cancel()")
            check_over(stream)
        case "generator":
            around: Any = view()
            with suppress(CompletionError):
                next(around, None)
            around.close()
            check_over(stream)
        case "thread":
            canceller = threading.Thread(target=stream.cancel)
            canceller.start()
            with suppress(CompletionError):
                for _ in stream:
                    pass
            canceller.join()
            check_over(stream)


async def read_async(rng: random.Random, model: AsyncModel) -> str:
    chunks: list[Any] = []
    stop_after = rng.choice([None, None, 1, 3])

    async def work() -> str:
        async with model.chat_stream("Hi") as stream:
            async for chunk in stream:
                chunks.append(chunk)
                if len(chunks) == stop_after:
                    return "left early"
        return "read to the end"

    task = asyncio.create_task(work())
    if rng.random() < 0.3:
        asyncio.get_running_loop().call_later(rng.uniform(0, 0.05), task.cancel)
    try:
        outcome = await task
    except CompletionError as error:
        check_error(error, was_cancelled=False)
        outcome = f"failed: {type(error).__name__}"
    except asyncio.CancelledError:
        outcome = "cancelled task"
    check_turn(chunks, ended=outcome == "read to the end")
    return outcome


def what_is_open() -> tuple[int, list[str]]:
    """How many descriptors are open (0 where this is unknown), and the names of all threads."""
    gc.collect()
    folder = "/proc/self/fd"
    return len(os.listdir(folder)) if os.path.isdir(folder) else 0, sorted(t.name for t in threading.enumerate())


def what_stays_open(before: tuple[int, list[str]]) -> tuple[int, list[str]]:
    """What is open once it is no more than before, or after some seconds."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        now = what_is_open()
        if (now[0] <= before[0] and len(now[1]) <= len(before[1])) or time.monotonic() > deadline:
            return now
        time.sleep(0.02)
