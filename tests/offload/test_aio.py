"""AsyncModel: the blocking stream read with asyncio. However a stream ends, its connection and its worker end too."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest

from completion import (
    AsyncModel,
    AuthenticationError,
    CancelToken,
    ChatRequest,
    ChatStream,
    ConfigurationError,
    FallbackModel,
    FinishReason,
    Message,
    RateLimitError,
    RetryConfig,
    RetryingModel,
    RunResult,
    StreamCancelledError,
    StreamChunk,
    TextDelta,
    TruncatedStreamError,
    TurnFinished,
    run_chat,
)
from completion.offload.aio import AsyncChatStream, _State
from completion.offload.waker import SharedWaker
from completion.testing import Cut, Pause, ProviderServer, Reply, ScriptedModel, Stall, WaitFor
from tests.loopback import END, HI, PATIENCE_S, model_at, model_of, text

T = TypeVar("T")
Run = Callable[[Awaitable[T]], T]

LOOPS = [
    "asyncio",
    pytest.param("uvloop", marks=pytest.mark.skipif(sys.platform == "win32", reason="uvloop does not run on Windows")),
]
SOON_S = 0.1


@pytest.fixture(params=LOOPS)
def loop(request: pytest.FixtureRequest) -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop of asyncio and one of uvloop. A test may close it."""
    loop = asyncio.new_event_loop() if request.param == "asyncio" else pytest.importorskip("uvloop").new_event_loop()
    yield loop
    if not loop.is_closed():
        loop.close()


@pytest.fixture(autouse=True)
def no_worker_is_left() -> Iterator[None]:
    """Each worker ends within a second after its stream."""
    yield
    gc.collect()
    assert eventually(lambda: not workers(), 1.0), workers()


def workers() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("completion-")]


def eventually(condition: Callable[[], bool], seconds: float = PATIENCE_S) -> bool:
    """Whether the condition becomes true in this time."""
    ends_at = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > ends_at:
            return False
        time.sleep(0.005)
    return True


def streams() -> list[AsyncChatStream | ChatStream]:
    """All streams of this process."""
    return [found for found in gc.get_objects() if isinstance(found, AsyncChatStream | ChatStream)]


async def soon(condition: Callable[[], bool]) -> None:
    ends_at = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < ends_at, "the condition did not become true"
        await asyncio.sleep(0.005)


async def read(stream: AsyncIterator[StreamChunk]) -> list[StreamChunk]:
    return [chunk async for chunk in stream]


def words(count: int) -> list[StreamChunk]:
    return [*(TextDelta(f"{number} ") for number in range(count)), TurnFinished(FinishReason.END_TURN)]


def fast(count: int, times: int = 1) -> ScriptedModel:
    return ScriptedModel(*[words(count)] * times)


# Reading


def test_async_chunks_equal_the_chunks_of_the_blocking_stream(
    loop: asyncio.AbstractEventLoop, server: ProviderServer
) -> None:
    server.always(Reply(text("Hel"), text("lo"), END))
    model = model_of(server)
    assert loop.run_until_complete(read(AsyncModel(model).chat_stream(HI))) == list(model.chat_stream(HI))


@pytest.mark.parametrize("buffer", [1, 2, 63, 64, 256])
def test_every_chunk_is_yielded_once_and_in_order(loop: asyncio.AbstractEventLoop, buffer: int) -> None:
    count = 2000
    found = loop.run_until_complete(read(AsyncModel(fast(count), buffer=buffer).chat_stream(HI)))
    assert found == words(count)


def test_a_chunk_is_yielded_before_the_next_one_is_sent(
    loop: asyncio.AbstractEventLoop, server: ProviderServer
) -> None:
    may_continue = threading.Event()
    server.reply(Reply(text("a"), WaitFor(may_continue), text("b"), END))

    async def main() -> str:
        async with AsyncModel(model_of(server)).chat_stream(HI) as stream:
            first = await stream.__anext__()
            may_continue.set()
            return "".join(chunk.delta for chunk in [first, *await read(stream)] if isinstance(chunk, TextDelta))

    assert loop.run_until_complete(main()) == "ab"


def test_an_async_stream_can_be_collected(loop: asyncio.AbstractEventLoop, server: ProviderServer) -> None:
    server.reply(Reply(text("Hello"), END))
    turn = loop.run_until_complete(AsyncModel(model_of(server)).chat_stream(HI).collect())
    assert (turn.text, turn.reason) == ("Hello", FinishReason.END_TURN)


def test_a_stream_with_chunks_already_read_cannot_be_collected() -> None:
    async def main() -> None:
        async with AsyncModel(fast(3)).chat_stream(HI) as stream:
            await stream.__anext__()
            await stream.collect()

    with pytest.raises(RuntimeError, match="not read from or closed before"):
        asyncio.run(main())


def test_name_and_model_are_those_of_the_inner_model() -> None:
    model = AsyncModel(ScriptedModel(name="family", model="id"))
    assert (model.name, model.model) == ("family", "id")


def test_the_response_is_known_once_the_stream_is_open(loop: asyncio.AbstractEventLoop, server: ProviderServer) -> None:
    server.reply(Reply(text("a"), END, headers={"x-request-id": "r1"}))

    async def main() -> None:
        stream = AsyncModel(model_of(server)).chat_stream(HI)
        with pytest.raises(RuntimeError, match="not open yet"):
            _ = stream.response
        async with stream:
            assert (stream.response.status, stream.response.request_id) == (200, "r1")

    loop.run_until_complete(main())


def test_the_response_of_a_retried_stream_is_that_of_the_last_attempt(server: ProviderServer) -> None:
    server.reply(Reply(headers={"x-request-id": "r1"}), Reply(text("a"), END, headers={"x-request-id": "r2"}))
    model = RetryingModel(model_of(server), RetryConfig(base_delay=0))

    async def main() -> str | None:
        async with AsyncModel(model).chat_stream(HI) as stream:
            await read(stream)
            return stream.response.request_id

    assert asyncio.run(main()) == "r2"


def test_a_model_may_return_a_plain_generator(loop: asyncio.AbstractEventLoop) -> None:
    closed = threading.Event()

    class PlainModel:
        name, model = "plain", "1"

        def chat_stream(self, req: ChatRequest) -> Generator[StreamChunk, None, None]:
            try:
                for number in range(1_000_000):
                    yield TextDelta(str(number))
            finally:
                closed.set()

    async def main() -> list[StreamChunk]:
        async with AsyncModel(PlainModel()).chat_stream(HI) as stream:
            return [await stream.__anext__(), await stream.__anext__()]

    assert loop.run_until_complete(main()) == [TextDelta("0"), TextDelta("1")]
    assert closed.wait(PATIENCE_S)


def test_wrappers_go_inside(loop: asyncio.AbstractEventLoop) -> None:
    busy = RetryingModel(ScriptedModel(RateLimitError("slow down"), "Hello there"), RetryConfig(base_delay=0))
    model = AsyncModel(FallbackModel([ScriptedModel(AuthenticationError("no")), busy]))
    assert loop.run_until_complete(model.chat_stream(HI).collect()).text == "Hello there"


def test_the_worker_has_the_callers_context_variables(loop: asyncio.AbstractEventLoop) -> None:
    user: contextvars.ContextVar[str] = contextvars.ContextVar("user")

    class ReadsContext:
        name, model = "reads-context", "1"

        def chat_stream(self, req: ChatRequest) -> Generator[StreamChunk, None, None]:
            yield TextDelta(user.get())
            yield TextDelta(threading.current_thread().name.partition("-")[0])
            yield TurnFinished(FinishReason.END_TURN)

    async def main() -> str:
        user.set("ada ")
        return (await AsyncModel(ReadsContext()).chat_stream(HI).collect()).text

    assert loop.run_until_complete(main()) == "ada completion"


# Errors


@pytest.mark.parametrize("way", ["enter", "await", "read", "collect"])
def test_an_error_of_opening_is_raised_where_the_stream_is_opened(
    loop: asyncio.AbstractEventLoop, server: ProviderServer, way: str
) -> None:
    server.reply(Reply.json({"error": {"message": "no"}}, status=401))

    async def main() -> None:
        stream = AsyncModel(model_of(server)).chat_stream(HI)
        if way == "enter":
            async with stream:
                pytest.fail("entered")
        if way == "await":
            await stream
        if way == "read":
            await stream.__anext__()
        await stream.collect()

    with pytest.raises(AuthenticationError) as caught:
        loop.run_until_complete(main())
    assert (caught.value.provider, caught.value.model, caught.value.status) == ("openai", "m", 401)


def test_an_error_of_the_stream_is_raised_once_and_after_its_chunks(
    loop: asyncio.AbstractEventLoop, server: ProviderServer
) -> None:
    server.reply(Reply(text("Hel"), text("lo")))

    async def main() -> list[StreamChunk]:
        async with AsyncModel(model_of(server)).chat_stream(HI) as stream:
            found = [await stream.__anext__(), await stream.__anext__()]
            with pytest.raises(TruncatedStreamError):
                await stream.__anext__()
            assert await read(stream) == []
        return [*found]

    assert loop.run_until_complete(main()) == [TextDelta("Hel"), TextDelta("lo")]


def test_an_error_of_collect_has_the_turn_so_far(loop: asyncio.AbstractEventLoop, server: ProviderServer) -> None:
    server.reply(Reply(text("Hel"), text("lo")))
    with pytest.raises(TruncatedStreamError) as caught:
        loop.run_until_complete(AsyncModel(model_of(server)).chat_stream(HI).collect())
    assert caught.value.partial is not None
    assert caught.value.partial.text == "Hello"


def test_an_error_keeps_no_stream_alive(server: ProviderServer) -> None:
    server.always(Reply(text("a"), Cut()))
    gc.collect()
    before = set(map(id, streams()))  # streams that other tests left
    gc.disable()
    try:

        async def main() -> None:
            for _ in range(3):
                with suppress(Exception):
                    await read(AsyncModel(model_of(server)).chat_stream(HI))

        asyncio.run(main())
        # The worker threads may still be ending.
        assert eventually(lambda: not [stream for stream in streams() if id(stream) not in before])
    finally:
        gc.enable()


def test_two_tasks_cannot_read_at_the_same_time(loop: asyncio.AbstractEventLoop, server: ProviderServer) -> None:
    server.reply(Reply(Stall()))

    async def main() -> None:
        async with AsyncModel(model_of(server)).chat_stream(HI) as stream:
            first = asyncio.ensure_future(stream.__anext__())
            await asyncio.sleep(0)
            with pytest.raises(RuntimeError, match="another task"):
                await stream.__anext__()
            first.cancel()

    loop.run_until_complete(main())


def test_a_stream_belongs_to_the_loop_that_opened_it() -> None:
    stream = AsyncModel(fast(3)).chat_stream(HI)

    async def main() -> None:
        await stream

    first = asyncio.new_event_loop()
    first.run_until_complete(main())
    with pytest.raises(RuntimeError, match="another event loop"):
        asyncio.run(main())
    first.run_until_complete(stream.aclose())
    first.close()


def test_a_closed_stream_cannot_be_opened() -> None:
    async def main() -> None:
        stream = AsyncModel(fast(1)).chat_stream(HI)
        await stream.aclose()
        with pytest.raises(RuntimeError, match="was closed"):
            await stream

    asyncio.run(main())


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"model": AsyncModel}, TypeError),
        ({"model": "openai:gpt"}, TypeError),
        ({"executor": 7}, TypeError),
        ({"buffer": 0}, ValueError),
        ({"buffer": True}, ValueError),
        ({"max_streams": -1}, ValueError),
    ],
)
def test_wrong_arguments_raise_an_error(arguments: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        AsyncModel(**{"model": ScriptedModel(), **arguments})


# Closing early


def hung_up_soon(server: ProviderServer, began: float, count: int = 1) -> bool:
    return server.wait_hung_up(count=count) and time.monotonic() - began < SOON_S + 1  # for a busy machine


@pytest.mark.parametrize("when", ["headers", "first chunk", "between"])
def test_cancelling_the_task_closes_the_connection(
    loop: asyncio.AbstractEventLoop, any_server: ProviderServer, when: str
) -> None:
    replies = {
        "headers": Reply(before_headers=[Stall()]),
        "first chunk": Reply(Stall()),
        "between": Reply(text("a"), Stall()),
    }
    any_server.reply(replies[when])
    got_one = asyncio.Event()

    async def reads() -> None:
        async for _ in AsyncModel(model_of(any_server)).chat_stream(HI):
            got_one.set()

    async def main() -> None:
        task = asyncio.ensure_future(reads())
        await soon(lambda: len(any_server.requests) == 1)
        if when == "between":
            await got_one.wait()
        began = time.monotonic()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.get_running_loop().run_in_executor(None, hung_up_soon, any_server, began)

    loop.run_until_complete(main())


def test_a_full_buffer_stops_the_worker_and_cancelling_releases_it(
    loop: asyncio.AbstractEventLoop, server: ProviderServer
) -> None:
    model = fast(100_000)

    async def main() -> None:
        stream = await AsyncModel(model, buffer=10).chat_stream(HI)
        pump = stream._pump
        assert pump is not None
        await soon(lambda: pump.is_full)
        assert len(pump.chunks) == 10
        await stream.__anext__()
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().call_soon(task.cancel)
        await asyncio.sleep(PATIENCE_S)

    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(main())


def test_back_pressure_reaches_the_socket(loop: asyncio.AbstractEventLoop, server: ProviderServer) -> None:
    """The stream is not read: the kernel buffers a part of the 20 MB, and we keep 16 chunks."""
    server.reply(Reply(*[text("x" * 10_000)] * 2000, END))

    async def main() -> None:
        async with AsyncModel(model_of(server), buffer=16).chat_stream(HI) as stream:
            pump = stream._pump
            assert pump is not None
            await soon(lambda: pump.is_full)

    loop.run_until_complete(main())
    assert server.wait_hung_up()
    assert server.hangups[0].bytes_sent < 15_000_000


def test_after_a_timeout_of_wait_for_the_stream_raises_an_error(
    loop: asyncio.AbstractEventLoop, server: ProviderServer
) -> None:
    server.reply(Reply(text("a"), Stall()))

    async def main() -> None:
        stream = await AsyncModel(model_of(server)).chat_stream(HI)
        assert await stream.__anext__() == TextDelta("a")
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(stream.__anext__(), 0.05)
        with pytest.raises(StreamCancelledError):
            await stream.__anext__()
        assert await read(stream) == []

    loop.run_until_complete(main())
    assert server.wait_hung_up()


@pytest.mark.skipif(sys.version_info < (3, 11), reason="asyncio.timeout and TaskGroup need Python 3.11")
def test_a_timeout_or_a_failing_task_group_closes_all_connections(
    loop: asyncio.AbstractEventLoop, server: ProviderServer
) -> None:
    server.always(Reply(text("a"), Stall()))
    model = AsyncModel(model_of(server))

    async def within_a_timeout() -> None:
        async with asyncio.timeout(None) as limit, model.chat_stream(HI) as stream:
            await stream.__anext__()  # a busy machine may need longer than the limit until here
            limit.reschedule(asyncio.get_running_loop().time() + 0.1)
            await read(stream)

    async def within_a_group() -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(5):
                group.create_task(read(model.chat_stream(HI)))
            await soon(lambda: len(server.requests) == 6)
            raise ValueError("enough")

    with pytest.raises(TimeoutError):
        loop.run_until_complete(within_a_timeout())
    with pytest.raises(Exception, match="TaskGroup"):
        loop.run_until_complete(within_a_group())
    assert server.wait_hung_up(count=6)


@pytest.mark.parametrize("way", ["break", "aclose", "drop", "cancel", "token"])
def test_every_way_to_leave_a_stream_closes_the_connection(
    loop: asyncio.AbstractEventLoop, server: ProviderServer, way: str
) -> None:
    server.reply(Reply(text("a"), Stall()))

    async def main() -> None:
        with CancelToken() as token:
            stream: AsyncChatStream | None = AsyncModel(model_of(server)).chat_stream(HI)
            assert stream is not None
            assert await stream.__anext__() == TextDelta("a")
            began = time.monotonic()
            if way == "break":
                async with stream:
                    pass
            elif way == "aclose":
                await stream.aclose()
            elif way == "drop":
                stream = None
            else:
                threading.Thread(target=stream.cancel if way == "cancel" else token.cancel).start()
                with pytest.raises(StreamCancelledError):
                    await stream.__anext__()
            assert await asyncio.get_running_loop().run_in_executor(None, hung_up_soon, server, began)

    loop.run_until_complete(main())


def test_a_reader_gets_an_error_when_another_task_closes_the_stream(
    loop: asyncio.AbstractEventLoop, server: ProviderServer
) -> None:
    server.reply(Reply(text("a"), Stall()))

    async def main() -> None:
        stream = await AsyncModel(model_of(server)).chat_stream(HI)
        reader = asyncio.ensure_future(read(stream))
        await soon(lambda: stream._state is _State.READING and stream._last is not None)
        await stream.aclose()
        with pytest.raises(StreamCancelledError):
            await reader

    loop.run_until_complete(main())


@pytest.mark.parametrize("is_awaited", [True, False])
def test_closing_the_loop_closes_its_streams(
    loop: asyncio.AbstractEventLoop, server: ProviderServer, is_awaited: bool
) -> None:
    server.reply(Reply(text("a"), Stall()))
    stream = AsyncModel(model_of(server)).chat_stream(HI)

    async def main() -> None:
        await stream.__anext__()
        if is_awaited:
            task = asyncio.ensure_future(stream.__anext__())
            await asyncio.sleep(0)
            task.cancel()

    loop.run_until_complete(main())
    began = time.monotonic()
    loop.close()
    assert hung_up_soon(server, began)
    assert eventually(lambda: not workers(), 1.0)


def test_the_end_of_asyncio_run_closes_open_streams(server: ProviderServer) -> None:
    server.always(Reply(text("a"), Stall()))
    model = AsyncModel(model_of(server))
    kept: list[AsyncChatStream] = []

    async def main() -> None:
        for _ in range(3):
            kept.append(model.chat_stream(HI))
            await kept[-1].__anext__()

    asyncio.run(main())
    assert server.wait_hung_up(count=3)


@pytest.mark.parametrize("executor", ["None", "ThreadPoolExecutor()"])
def test_the_interpreter_exits_while_streams_are_open(server: ProviderServer, executor: str) -> None:
    server.always(Reply(text("a"), Stall(60)))
    code = f"""
import asyncio
from concurrent.futures import ThreadPoolExecutor
from completion import AsyncModel, ChatRequest, OpenAIModel
model = AsyncModel(OpenAIModel("m", api_key="k", base_url={server.url!r}), executor={executor})
async def main():
    global streams
    streams = [await model.chat_stream(ChatRequest("Hi")) for _ in range(3)]
    for stream in streams:
        await stream.__anext__()
    asyncio.ensure_future(streams[0].__anext__())
    await asyncio.sleep(0)
    print("open")
asyncio.run(main())
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20)
    assert (run.returncode, run.stdout, run.stderr) == (0, "open\n", "")
    assert server.wait_hung_up(count=3)


def test_a_finished_stream_returns_its_connection_to_the_pool(
    loop: asyncio.AbstractEventLoop, server: ProviderServer
) -> None:
    server.always(Reply(text("a"), END))
    model = AsyncModel(model_of(server))

    async def main() -> None:
        await model.chat_stream(HI).collect()
        async with model.chat_stream(HI) as stream:
            async for chunk in stream:
                if isinstance(chunk, TurnFinished):
                    break
        await model.chat_stream(HI).collect()

    loop.run_until_complete(main())
    assert server.connections == 1


# Many streams at the same time


def test_two_hundred_streams_at_once_all_get_their_own_text(
    loop: asyncio.AbstractEventLoop, server: ProviderServer
) -> None:
    count = 200
    for number in range(count):
        pieces = [piece for k in range(5) for piece in (text(f"{number}.{k} "), Pause(0.01))]
        server.reply(Reply(*pieces, END))
    model = AsyncModel(model_of(server))

    async def main() -> list[str]:
        turns = await asyncio.gather(*(model.chat_stream(HI).collect() for _ in range(count)))
        return [turn.text for turn in turns]

    found = loop.run_until_complete(main())
    assert sorted(found) == sorted("".join(f"{number}.{k} " for k in range(5)) for number in range(count))


def test_streams_over_max_streams_wait(loop: asyncio.AbstractEventLoop, server: ProviderServer) -> None:
    may_continue = threading.Event()
    server.always(Reply(text("a"), WaitFor(may_continue), END))
    model = AsyncModel(model_of(server), max_streams=2)

    async def main() -> None:
        tasks = [asyncio.ensure_future(model.chat_stream(HI).collect()) for _ in range(4)]
        await soon(lambda: len(server.requests) == 2)
        assert len(workers()) == 2
        last = tasks.pop()
        last.cancel()
        await asyncio.wait({last})
        may_continue.set()
        assert [turn.text for turn in await asyncio.gather(*tasks)] == ["a"] * 3

    loop.run_until_complete(main())
    assert len(server.requests) == 3


def test_other_tasks_run_while_chunks_arrive_fast(loop: asyncio.AbstractEventLoop) -> None:
    count, turns = 20_000, 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def main() -> int:
        task = asyncio.ensure_future(others())
        found = await read(AsyncModel(fast(count), buffer=100).chat_stream(HI))
        task.cancel()
        return len(found)

    assert loop.run_until_complete(main()) == count + 1
    assert turns >= count // 100


def test_the_loop_is_woken_once_per_batch_of_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    count, wakes = 20_000, 0
    loop = asyncio.new_event_loop()
    wake = loop.call_soon_threadsafe

    def counted(*args: Any, **options: Any) -> asyncio.Handle:
        nonlocal wakes
        wakes += 1
        return wake(*args, **options)

    monkeypatch.setattr(loop, "call_soon_threadsafe", counted)
    loop.run_until_complete(read(AsyncModel(fast(count)).chat_stream(HI)))
    loop.close()
    assert wakes < count / 10


def test_the_streams_of_a_loop_share_the_calls_that_wake_it(monkeypatch: pytest.MonkeyPatch) -> None:
    streams, count, wakes = 20, 50, 0
    loop = asyncio.new_event_loop()
    wake = loop.call_soon_threadsafe

    def counted(*args: Any, **options: Any) -> asyncio.Handle:
        nonlocal wakes
        wakes += 1
        return wake(*args, **options)

    monkeypatch.setattr(loop, "call_soon_threadsafe", counted)

    def slowly() -> Iterator[StreamChunk]:
        for chunk in words(count):
            time.sleep(0.002)
            yield chunk

    async def main() -> list[list[StreamChunk]]:
        model = AsyncModel(fast(1))
        return await asyncio.gather(*(read(model.stream(slowly)) for _ in range(streams)))

    assert loop.run_until_complete(main()) == [words(count)] * streams
    loop.close()
    assert wakes < streams * count / 4


@pytest.mark.parametrize("buffer", [1, 2, 63])
def test_a_small_buffer_does_not_wait_for_the_next_look(loop: asyncio.AbstractEventLoop, buffer: int) -> None:
    count = 5000
    began = time.monotonic()
    assert len(loop.run_until_complete(read(AsyncModel(fast(count), buffer=buffer).chat_stream(HI)))) == count + 1
    assert time.monotonic() - began < count * 0.002 / 2


def test_the_waker_of_a_loop_ends_with_its_streams() -> None:
    for _ in range(3):
        asyncio.run(_collected(AsyncModel(fast(3))))
    gc.collect()
    assert not SharedWaker._by_loop


# Executors


def test_a_given_executor_is_used(loop: asyncio.AbstractEventLoop) -> None:
    with ThreadPoolExecutor(1, thread_name_prefix="mine") as executor:
        model = AsyncModel(fast(3, times=3), executor=executor)

        async def main() -> None:
            async with model.chat_stream(HI) as stream:
                assert [thread.name for thread in threading.enumerate() if "mine" in thread.name] == ["mine_0"]
                await read(stream)
            await asyncio.gather(*(model.chat_stream(HI).collect() for _ in range(2)))

        loop.run_until_complete(main())


def test_an_executor_that_was_shut_down_raises_a_configuration_error() -> None:
    executor = ThreadPoolExecutor(1)
    executor.shutdown()
    with pytest.raises(ConfigurationError, match="no worker thread could be started") as caught:
        asyncio.run(_collected(AsyncModel(fast(3), executor=executor)))
    assert caught.value.provider == "scripted"


@pytest.mark.parametrize("has_executor", [False, True])
def test_a_thread_that_cannot_start_is_a_configuration_error_and_frees_its_place(
    server: ProviderServer, has_executor: bool
) -> None:
    server.always(Reply(text("a"), END))
    with ThreadPoolExecutor(1) as executor:
        model = AsyncModel(model_of(server), executor=executor if has_executor else None, max_streams=1)

        async def main() -> None:
            usual = threading.stack_size(1 << 46)  # larger than the address space, so that no thread can start
            try:
                for _ in range(2):
                    with pytest.raises(ConfigurationError, match=r"can't start new thread"):
                        await _collected(model)
            finally:
                threading.stack_size(usual)
            await asyncio.wait_for(_collected(model), PATIENCE_S)

        asyncio.run(main())
    assert len(server.requests) == 1  # the executor keeps jobs that could not start; they must not run later


def test_an_executor_that_drops_its_queue_ends_the_waiting_streams(server: ProviderServer) -> None:
    server.always(Reply(text("a"), Stall()))
    executor = ThreadPoolExecutor(1)
    model = AsyncModel(model_of(server), executor=executor)

    async def main() -> None:
        async with model.chat_stream(HI):
            second = asyncio.ensure_future(_collected(model))
            await asyncio.sleep(0.02)
            executor.shutdown(wait=False, cancel_futures=True)
            with pytest.raises(ConfigurationError, match="shut down"):
                await second

    asyncio.run(main())


async def _collected(model: AsyncModel) -> str:
    return (await model.chat_stream(HI).collect()).text


# Processes


def test_an_async_model_pickles(server: ProviderServer) -> None:
    server.reply(Reply(text("a"), END))
    model = pickle.loads(pickle.dumps(AsyncModel(model_of(server), buffer=7, max_streams=3)))
    assert asyncio.run(_collected(model)) == "a"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_an_async_model_works_in_a_forked_child(server: ProviderServer, tmp_path: Path) -> None:
    """max_streams=1: the parent's stream takes the only place, but the child has its own limit."""
    server.reply(Reply(text("a"), Stall()), Reply(text("b"), END))
    code = f"""
import asyncio, os, sys
from completion import AsyncModel, ChatRequest, OpenAIModel
model = AsyncModel(OpenAIModel("m", api_key="k", base_url={server.url!r}), max_streams=1)
async def parent():
    async with model.chat_stream(ChatRequest("Hi")) as stream:
        await stream.__anext__()
        child = os.fork()
        if not child:  # a fork has no running loop
            asyncio.new_event_loop().run_until_complete(in_child())
            os._exit(0)
        os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
async def in_child():
    assert (await model.chat_stream(ChatRequest("Hi")).collect()).text == "b"
try:
    asyncio.new_event_loop().run_until_complete(parent())
except BaseException as error:
    print(repr(error), file=sys.stderr, flush=True)
os._exit(1)
"""
    run = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=20)
    assert (run.returncode, run.stderr) == (0, "")


def test_asyncio_is_imported_only_with_async_model() -> None:
    code = "import sys, completion; before = set(sys.modules); completion.AsyncModel; print('asyncio' in before)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=20)
    assert run.stdout == "False\n"


def test_an_unread_stream_is_not_opened(server: ProviderServer) -> None:
    AsyncModel(model_at(server.url)).chat_stream(HI)
    assert server.requests == []


# Rare cases


@pytest.mark.parametrize("way", ["open", "collect", "read"])
def test_closing_a_stream_while_it_opens_cancels_the_opening(
    loop: asyncio.AbstractEventLoop, server: ProviderServer, way: str
) -> None:
    server.reply(Reply(before_headers=[Stall()]))

    async def main() -> None:
        stream = AsyncModel(model_of(server)).chat_stream(HI)
        opening = {"open": stream.open, "collect": stream.collect, "read": stream.__anext__}[way]
        task = asyncio.ensure_future(opening())
        await soon(lambda: len(server.requests) == 1)
        await stream.aclose()
        with pytest.raises(StreamCancelledError):
            await task

    loop.run_until_complete(main())


@pytest.mark.parametrize("kind", [StopIteration, StopAsyncIteration])
@pytest.mark.parametrize("when", ["call", "next"])
def test_a_stop_iteration_from_a_third_party_does_not_look_like_the_end(kind: type[Exception], when: str) -> None:
    class Broken:
        name, model = "broken", "1"

        def __iter__(self) -> Iterator[StreamChunk]:
            return self

        def __next__(self) -> StreamChunk:
            raise kind

        def chat_stream(self, req: ChatRequest) -> Any:
            if when == "call":
                raise kind
            return self

    async def main() -> None:
        await read(AsyncModel(Broken()).chat_stream(HI))

    if (kind, when) == (StopIteration, "next"):
        asyncio.run(main())  # the regular end of an iterator; without a TurnFinished, collect() raises
    else:
        with pytest.raises(RuntimeError, match=kind.__name__):
            asyncio.run(main())


def test_a_stream_in_a_reference_cycle_leaves_no_timer(server: ProviderServer) -> None:
    server.always(Reply(text("a"), Stall()))

    async def main() -> list[Any]:
        loop: Any = asyncio.get_running_loop()
        for _ in range(5):
            stream: Any = AsyncModel(model_of(server)).chat_stream(HI)
            await stream.__anext__()
            stream.itself = stream
            del stream
        gc.collect()
        await asyncio.sleep(0.05)
        return [timer for timer in loop._scheduled if not timer.cancelled()]

    assert asyncio.run(main()) == []
    assert server.wait_hung_up(count=5)


def test_another_loop_may_close_a_stream_without_waiting(server: ProviderServer) -> None:
    server.reply(Reply(text("a"), Stall()))
    stream = AsyncModel(model_of(server)).chat_stream(HI)
    first = asyncio.new_event_loop()
    first.run_until_complete(stream.__anext__())
    asyncio.run(stream.aclose())
    assert server.wait_hung_up()
    with pytest.raises(StreamCancelledError):
        first.run_until_complete(stream.__anext__())
    first.close()


def test_a_stream_cancelled_before_opening_is_not_opened(server: ProviderServer) -> None:
    async def main() -> None:
        stream = AsyncModel(model_of(server)).chat_stream(HI)
        stream.cancel()
        with pytest.raises(StreamCancelledError):
            await stream

    asyncio.run(main())
    assert server.requests == []


def test_a_cancelled_stream_leaves_the_queue(server: ProviderServer) -> None:
    server.always(Reply(text("a"), Stall()))
    model = AsyncModel(model_of(server), max_streams=1)

    async def main() -> None:
        async with model.chat_stream(HI) as stream:
            await stream.__anext__()
            waiting = [asyncio.ensure_future(model.chat_stream(HI).collect()) for _ in range(20)]
            await asyncio.sleep(0.02)
            for task in waiting:
                task.cancel()
            await asyncio.wait(waiting)
            assert not any(workers.waiting for workers in model._executor._workers_by_pid.values())  # type: ignore[attr-defined]

    asyncio.run(main())
    assert len(server.requests) == 1


def test_an_async_model_cannot_be_wrapped() -> None:
    inner: Any = AsyncModel(ScriptedModel("a"))
    for owner in (AsyncModel, RetryingModel, lambda model: FallbackModel([model]), lambda model: run_chat(model, HI)):
        with pytest.raises(TypeError, match="the model must be blocking, got AsyncModel; pass the model that"):
            owner(inner)


def test_any_blocking_stream_can_be_read_with_asyncio(loop: asyncio.AbstractEventLoop) -> None:
    model = ScriptedModel("Hello there")
    chunks = loop.run_until_complete(read(AsyncModel(model).stream(partial(run_chat, model, HI))))
    assert [chunks[0].type, chunks[-1].type] == ["run_started", "run_finished"]
    with pytest.raises(TypeError, match="a function that opens the stream, got list_iterator"):
        AsyncModel(model).stream(iter([]))  # type: ignore[call-overload]


def test_collecting_a_run_gives_its_result() -> None:
    async def main() -> RunResult:
        model = ScriptedModel("Hello there")
        return await AsyncModel(model).stream(partial(run_chat, model, HI)).collect()

    result = asyncio.run(main())
    assert (result.text, result.new_messages) == ("Hello there", (Message.assistant("Hello there"),))


def test_an_error_of_a_collected_run_is_raised() -> None:
    async def main() -> None:
        model = ScriptedModel([TextDelta("a"), RateLimitError("slow down")])
        await AsyncModel(model).stream(partial(run_chat, model, HI)).collect()

    with pytest.raises(RateLimitError) as caught:
        asyncio.run(main())
    assert caught.value.partial is not None
    assert caught.value.partial.text == "a"
