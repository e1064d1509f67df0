"""completion.batch: lazy, bounded, on any executor."""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextvars import ContextVar
from multiprocessing.context import SpawnContext
from typing import Any

import pytest

import completion
from completion import CancelToken, ChatRequest, FinishReason, StreamCancelledError, TextBlock, TextDelta, TurnFinished
from completion.testing import Pause, ScriptedModel

FLAVOUR: ContextVar[str] = ContextVar("FLAVOUR", default="plain")


class Echo:
    """A third party's model. A prompt may ask it to fail, to sleep, or to kill its process."""

    name, model = "echo", "echo-1"

    def chat_stream(self, req: ChatRequest) -> Iterator[TextDelta | TurnFinished]:
        block = req.messages[0].blocks[0]
        text = block.text if isinstance(block, TextBlock) else ""
        if text == "fail":
            raise ValueError("no")
        if text == "exit":
            sys.exit(3)
        if text == "cancelled":
            raise asyncio.CancelledError
        if text == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if text.startswith("sleep"):
            time.sleep(float(text.split()[1]))
        yield TextDelta(f"{text} {FLAVOUR.get()}")
        if text == "break":
            raise ValueError("no")
        yield TurnFinished(FinishReason.END_TURN)


def test_each_request_gets_one_result() -> None:
    results = list(completion.batch(Echo(), [("a", "One"), ("b", ChatRequest("Two")), "Three"]))
    assert sorted((r.index, r.key, str(r.turn)) for r in results) == [
        (0, "a", "One plain"),
        (1, "b", "Two plain"),
        (2, None, "Three plain"),
    ]


@pytest.mark.parametrize(
    ("prompt", "cause"), [("fail", ValueError), ("exit", SystemExit), ("cancelled", asyncio.CancelledError)]
)
def test_a_failure_does_not_end_the_batch(prompt: str, cause: type[BaseException]) -> None:
    first, second = completion.batch(Echo(), [prompt, "Two"], ordered=True)
    assert isinstance(first.error, completion.CompletionError)
    assert isinstance(first.error.__cause__, cause)
    assert str(second.turn) == "Two plain"


def test_the_error_of_a_third_partys_stream_has_the_turn_so_far() -> None:
    (result,) = completion.batch(Echo(), ["break"])
    assert result.error is not None
    assert str(result.error) == "echo: ValueError: no"
    assert str(result.error.partial) == "break plain"
    assert isinstance(result.error.__cause__, ValueError)


@pytest.mark.parametrize("ordered", [False, True])
def test_an_endless_iterable_is_read_only_a_little_ahead(ordered: bool) -> None:
    threads, read = set(), itertools.count()
    last = 0

    def requests() -> Iterator[str]:
        nonlocal last
        for last in read:
            threads.add(threading.get_ident())
            yield "sleep 0.02" if last % 7 == 0 else "Hello"

    results = completion.batch(Echo(), requests(), concurrency=4, ordered=ordered)
    for count, _ in enumerate(itertools.islice(results, 200)):
        assert last + 1 - count <= 8
    assert threads == {threading.get_ident()}


def test_order_is_kept_on_demand() -> None:
    prompts = ["sleep 0.1", "One", "Two", "Three", "Four"]
    assert [r.index for r in completion.batch(Echo(), prompts, 2, ordered=True)] == [0, 1, 2, 3, 4]


def test_leaving_the_loop_cancels_what_runs() -> None:
    steps: list[TurnFinished | Pause] = [Pause(30), TurnFinished(FinishReason.END_TURN)]
    model = ScriptedModel("Quick", steps, steps)
    results = completion.batch(model, ["One", "Two", "Three"], 3)
    next(results)
    begin = time.monotonic()
    results.close()
    while any(t.name.startswith("completion-") for t in threading.enumerate()) and time.monotonic() < begin + 5:
        time.sleep(0.01)
    assert time.monotonic() - begin < 2


def test_a_cancelled_token_ends_the_batch() -> None:
    with CancelToken() as token:
        threading.Timer(0.1, token.cancel).start()
        with pytest.raises(StreamCancelledError):
            list(completion.batch(ScriptedModel([Pause(30)]), ["One"]))


@pytest.mark.parametrize("ordered", [False, True])
def test_answers_that_ended_before_a_cancel_are_yielded(ordered: bool) -> None:
    all_run, over = threading.Barrier(4), threading.Event()
    futures: list[Future[object]] = []

    class Together(Echo):
        def chat_stream(self, req: ChatRequest) -> Iterator[TextDelta | TurnFinished]:
            all_run.wait(timeout=10)
            if req == ChatRequest("slow"):
                over.wait(timeout=10)
            yield from super().chat_stream(req)

    class Kept(ThreadPoolExecutor):
        def submit(self, *args: Any, **kwargs: Any) -> Future[Any]:
            futures.append(super().submit(*args, **kwargs))
            return futures[-1]

    found: list[completion.BatchResult] = []
    with Kept(4) as pool, CancelToken() as token:
        results = completion.batch(Together(), ["One", "slow", "Two", "Three"], 4, pool, ordered)
        found.append(next(results))
        wait([futures[0], futures[2], futures[3]], timeout=10)
        token.cancel()
        with pytest.raises(StreamCancelledError):
            found.extend(results)
        over.set()
    assert sorted(result.index for result in found) == [0, 2, 3]
    assert all(result.error is None for result in found)


def test_a_cancelled_request_is_not_a_result() -> None:
    found: list[completion.BatchResult] = []
    with CancelToken() as token:
        threading.Timer(0.1, token.cancel).start()
        with pytest.raises(StreamCancelledError):
            found.extend(completion.batch(ScriptedModel(*[[Pause(30)]] * 20), ["Hello"] * 20, 20))
    assert found == []


def test_threads_see_the_callers_context_variables() -> None:
    token = FLAVOUR.set("sweet")
    try:
        (result,) = completion.batch(Echo(), ["One"])
    finally:
        FLAVOUR.reset(token)
    assert str(result.turn) == "One sweet"


def test_an_exception_of_the_iterable_ends_the_batch() -> None:
    def requests() -> Iterator[str]:
        yield "One"
        raise KeyError("broken source")

    with pytest.raises(KeyError, match="broken source"):
        list(completion.batch(Echo(), requests()))


def test_a_slow_iterable_does_not_hold_results_back() -> None:
    read = 0

    def requests() -> Iterator[str]:
        nonlocal read
        for _ in range(5):
            read += 1
            yield "Hello"
            # The pool has one thread: the answer to this request is ready before the next request is read.
            pool.submit(int).result()

    with ThreadPoolExecutor(1) as pool:
        results = completion.batch(Echo(), requests(), executor=pool)
        next(results)
        assert read <= 2
        results.close()


def test_concurrency_bounds_a_larger_executor_which_stays_open() -> None:
    running, most, lock = 0, 0, threading.Lock()

    class Counting(Echo):
        def chat_stream(self, req: ChatRequest) -> Iterator[TextDelta | TurnFinished]:
            nonlocal running, most
            with lock:
                running += 1
                most = max(most, running)
            time.sleep(0.01)
            with lock:
                running -= 1
            yield from super().chat_stream(req)

    with ThreadPoolExecutor(8) as pool:
        assert len(list(completion.batch(Counting(), ["Hello"] * 20, 3, pool))) == 20
        assert pool.submit(int).result() == 0
    assert most <= 3


def test_processes_answer_and_pass_the_cause_back() -> None:
    with ProcessPoolExecutor(2, mp_context=_spawn()) as pool:
        results = list(completion.batch(Echo(), ["One", "fail"], 2, pool, ordered=True))
    assert str(results[0].turn) == "One plain"
    assert results[1].error is not None
    assert isinstance(results[1].error.__cause__, ValueError)


def test_a_killed_process_fails_the_rest_and_every_request_has_one_result() -> None:
    with ProcessPoolExecutor(1, mp_context=_spawn()) as pool:
        results = list(completion.batch(Echo(), ["One", "die", "Two", "Three"], 1, pool))
    assert [r.index for r in results] == [0, 1, 2, 3]
    assert str(results[0].turn) == "One plain"
    assert all(r.error is not None and isinstance(r.error.__cause__, BrokenProcessPool) for r in results[1:])


@pytest.mark.parametrize("given", ["Hello", ChatRequest("Hello"), 5])
def test_one_request_instead_of_many_is_refused(given: object) -> None:
    with pytest.raises(TypeError, match="iterable of requests"):
        completion.batch(Echo(), given)  # type: ignore[arg-type]


def test_an_item_that_is_not_a_request_is_named() -> None:
    with pytest.raises(TypeError, match=r"requests is a mapping; give \(key, request\) pairs: requests.items\(\)"):
        completion.batch(Echo(), {"a": "One"})  # type: ignore[arg-type, unused-ignore]
    with pytest.raises(TypeError, match="request 1 is a int"):
        list(completion.batch(Echo(), ["One", 2]))  # type: ignore[list-item]


def _spawn() -> SpawnContext:
    return multiprocessing.get_context("spawn")
