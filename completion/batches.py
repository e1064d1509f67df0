"""Answers many requests, some at a time, in threads or on any executor. Reads them lazily.

    for result in completion.batch(model, ["One", "Two", "Three"]):
        print(result.index, result.turn or result.error)

The iterating thread reads the requests and submits the jobs. A finished job puts its index into a queue, and the
iterating thread waits for this queue only.
"""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from functools import partial
from queue import SimpleQueue
from typing import Any

from completion.contract.cancel import CancelToken
from completion.contract.checks import require_model, require_whole_number
from completion.contract.collect import collect
from completion.contract.errors import CompletionError, StreamCancelledError
from completion.contract.model import CompletionModel
from completion.contract.request import ChatRequest, as_request
from completion.contract.stream import ChatStream
from completion.contract.turn import Turn
from completion.offload.threads import start_thread


@dataclass(frozen=True, slots=True)
class BatchResult:
    """The result of one request: either ``turn`` or ``error`` is set.

    Attributes:
        index: the position of the request in the iterable, from 0.
        key: the key that was passed with the request, or None.
        turn: the answer.
        error: why there is no answer. If a third-party model raised another exception, it is the ``__cause__``.
        seconds: how long the request ran.
    """

    index: int
    key: Any
    turn: Turn | None
    error: CompletionError | None
    seconds: float


def batch(
    model: CompletionModel,
    requests: Iterable[ChatRequest | str | tuple[Any, ChatRequest | str]],
    concurrency: int = 16,
    executor: Executor | None = None,
    ordered: bool = False,
) -> Generator[BatchResult, None, None]:
    """Answer many requests, ``concurrency`` at a time, and yield each result as it is ready.

    The iterable may be endless. It is read by the iterating thread, at most ``2 * concurrency`` requests ahead of the
    results. A failed request is a result with an ``error``. Leaving the loop cancels the running requests; in other
    processes, only requests that have not started are cancelled.

    Args:
        model: any model. Wrap it in a ``RetryingModel`` to retry.
        requests: requests or strings, or pairs ``(key, request)``.
        concurrency: how many requests run at the same time, even if the executor is larger.
        executor: where the requests run; None starts threads. It is not shut down. If it runs other processes, the
            model and the requests must be picklable.
        ordered: yield the results in the order of the requests.

    Raises:
        TypeError: the model is not a blocking model, or an item is not a request.
        ValueError: ``concurrency`` is not a whole number of 1 or more.
        StreamCancelledError: the CancelToken around the call was cancelled. The answers that had ended by then are
            yielded first.
        Exception: whatever the iterable raises.
    """
    require_model(model, "batch")
    require_whole_number(concurrency, "concurrency")
    if isinstance(requests, str | bytes | ChatRequest) or not isinstance(requests, Iterable):
        raise TypeError(f"batch: requests must be an iterable of requests, got {type(requests).__name__}")
    if isinstance(requests, Mapping):  # its keys are strings, and would be asked
        raise TypeError("batch: requests is a mapping; give (key, request) pairs: requests.items()")
    if executor is not None and not isinstance(executor, Executor):
        raise TypeError(f"batch: executor must be a concurrent.futures.Executor, got {type(executor).__name__}")
    pool = _Threads(concurrency) if executor is None else executor
    return _results(_Batch(model, iter(requests), concurrency, pool, ordered))


class _Threads(Executor):
    """Daemon threads that live as long as the batch. A thread for each request would cost more than its stream."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._count = 0
        self._jobs: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        if self._count < self._limit:
            start_thread(f"completion-batch-{self._count}", _work, self._jobs)
            self._count += 1
        self._jobs.put((future, partial(fn, *args, **kwargs)))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Each thread ends after its current job. Does not wait for them."""
        for _ in range(self._count):
            self._jobs.put(None)
        self._count = 0


def _work(jobs: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None]) -> None:
    while (job := jobs.get()) is not None:
        future, run = job
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(run())
            except BaseException as error:
                future.set_exception(error)
        del job, future, run  # do not keep the answer in memory until the next job arrives


@dataclass(slots=True)
class _Outcome:
    """What a job returns. It can be pickled even if the cause of its error cannot."""

    turn: Turn | None
    error: CompletionError | None
    cause: BaseException | None
    seconds: float

    def __reduce__(self) -> tuple[Any, ...]:
        # pickle drops the __cause__ of an exception, so it is a field of its own.
        cause = self.cause
        try:
            pickle.loads(pickle.dumps(cause))
        except Exception:
            cause = None
        return (_Outcome, (self.turn, self.error, cause, self.seconds))


class _Job:
    """One request. In this process it runs with the caller's context and the batch's token; neither is pickled."""

    def __init__(self, model: CompletionModel, request: ChatRequest, context: Context | None, token: CancelToken):
        self.model, self.request, self.context, self.token = model, request, context, token

    def __reduce__(self) -> tuple[Any, ...]:
        return (_restored_job, (self.model, self.request))

    def __call__(self) -> _Outcome:
        return self._run() if self.context is None else self.context.run(self._run)

    def _run(self) -> _Outcome:
        begin = time.monotonic()
        try:
            with self.token:
                turn = self._ask()
        except CompletionError as error:
            return _Outcome(None, error, error.__cause__, time.monotonic() - begin)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a library may call sys.exit(), or raise the CancelledError of asyncio
            return _Outcome(None, _as_ours(error, self.model), error, time.monotonic() - begin)
        return _Outcome(turn, None, None, time.monotonic() - begin)

    def _ask(self) -> Turn:
        if self.token.cancelled:
            raise StreamCancelledError("the batch was cancelled")
        stream = self.model.chat_stream(self.request)
        if isinstance(stream, ChatStream):
            with stream:
                return stream.collect()
        try:
            return collect(self._until_cancelled(stream))
        finally:
            close = getattr(stream, "close", None)
            if close is not None:
                close()

    def _until_cancelled(self, stream: Iterator[Any]) -> Iterator[Any]:
        """The chunks. A third-party stream may ignore the token, so check it after each chunk.

        Its exception becomes a CompletionError here, so that ``collect`` adds the turn so far to it.
        """
        try:
            for chunk in stream:
                if self.token.cancelled:
                    raise StreamCancelledError("the batch was cancelled")
                yield chunk
        except Exception as error:
            if isinstance(error, CompletionError):
                raise
            raise _as_ours(error, self.model) from error


def _restored_job(model: CompletionModel, request: ChatRequest) -> _Job:
    return _Job(model, request, None, CancelToken())


def _as_ours(error: BaseException, model: CompletionModel) -> CompletionError:
    """A CompletionError with this exception as its cause."""
    words = str(error)
    message = f"{type(error).__name__}: {words}" if words else type(error).__name__
    ours = CompletionError(message, provider=model.name, model=model.model)
    ours.__cause__ = error
    return ours


@dataclass(slots=True)
class _Batch:
    """The state of one batch. Only the iterating thread uses it, except for ``finished``."""

    model: CompletionModel
    requests: Iterator[Any]
    concurrency: int
    executor: Executor
    ordered: bool
    # The context and the outer token are taken when batch() is called: next() may run in a thread that has neither.
    context: Context = field(default_factory=copy_context)
    outer: CancelToken | None = field(default_factory=CancelToken.current)
    token: CancelToken = field(default_factory=CancelToken)
    # The indexes of the jobs that ended. None: the token was cancelled.
    finished: SimpleQueue[int | None] = field(default_factory=SimpleQueue)
    running: dict[int, tuple[Any, Future[_Outcome], float]] = field(default_factory=dict)
    ready: dict[int, BatchResult] = field(default_factory=dict)
    read: int = 0
    yielded: int = 0
    has_more: bool = True
    is_cancelled: bool = False

    @property
    def has_room(self) -> bool:
        is_near = self.read - self.yielded < 2 * self.concurrency
        return self.has_more and is_near and len(self.running) < self.concurrency

    def submit_next(self) -> None:
        """Read one request and start it."""
        try:
            item = next(self.requests)
        except StopIteration:
            self.has_more = False
            return
        index = self.read
        key, given = item if isinstance(item, tuple) and len(item) == 2 else (None, item)
        if not isinstance(given, ChatRequest | str):
            raise TypeError(
                f"batch: request {index} is a {type(given).__name__}; give a ChatRequest, a str, or (key, request)"
            )
        job = _Job(self.model, as_request(given), self.context.copy(), self.token)
        self.read += 1
        try:
            future = self.executor.submit(job)
        except BrokenExecutor as error:  # a worker process died; the pool accepts no more jobs
            self.ready[index] = BatchResult(index, key, None, _as_ours(error, self.model), 0.0)
            return
        self.running[index] = (key, future, time.monotonic())
        # Do not refer to self: the future would keep the whole batch alive.
        finished = self.finished
        future.add_done_callback(lambda _: finished.put(index))

    def cancel(self) -> None:
        """Keep the answers that have ended, because they were paid for, and drop the requests that still run."""
        self.is_cancelled, self.has_more = True, False
        for _, future, _ in self.running.values():
            future.cancel()
        done = [i for i, (_, future, _) in self.running.items() if future.done() and not future.cancelled()]
        for index in done:
            self.take(index)
        self.running.clear()
        for index, result in list(self.ready.items()):
            if isinstance(result.error, StreamCancelledError):
                del self.ready[index]

    def take(self, index: int | None) -> None:
        """Move an ended job to ``ready``. Ignore an index that was taken before."""
        if index is None:
            self.cancel()
            return
        if index not in self.running:
            return
        key, future, begin = self.running.pop(index)
        try:
            outcome = future.result()
        except (Exception, CancelledError) as error:  # the worker was lost, or something did not pickle
            ours = error if isinstance(error, CompletionError) else _as_ours(error, self.model)
            self.ready[index] = BatchResult(index, key, None, ours, time.monotonic() - begin)
            return
        if outcome.error is not None:
            outcome.error.__cause__ = outcome.cause
        self.ready[index] = BatchResult(index, key, outcome.turn, outcome.error, outcome.seconds)

    def next_ready(self) -> int | None:
        """The index of the result to yield next; None if none can be yielded now."""
        if self.ordered:
            if self.is_cancelled:
                return min(self.ready, default=None)
            return self.yielded if self.yielded in self.ready else None
        return next(iter(self.ready), None)

    def wait(self) -> None:
        """Take the jobs that ended. Wait for one if no result is ready and no request can be started."""
        while not self.finished.empty():
            self.take(self.finished.get())
        while self.running and self.next_ready() is None and not self.has_room:
            self.take(self.finished.get())


def _results(state: _Batch) -> Generator[BatchResult, None, None]:
    def cancel() -> None:
        state.token.cancel()
        state.finished.put(None)

    forget = state.outer.on_cancel(cancel) if state.outer is not None else None
    try:
        while state.has_more or state.running or state.ready:
            state.wait()
            # If a result is ready, read only one request: a slow iterable must not delay the result.
            while state.has_room:
                state.submit_next()
                if state.ready or not state.finished.empty():
                    break
            state.wait()
            # cancel() above may not have been called yet, although the outer token is cancelled and has ended a job.
            if state.outer is not None and state.outer.cancelled and not state.is_cancelled:
                state.cancel()
            index = state.next_ready()
            if index is not None:
                result = state.ready.pop(index)
                state.yielded += 1
                yield result
        if state.is_cancelled:
            model = state.model
            raise StreamCancelledError("the batch was cancelled", provider=model.name, model=model.model)
    finally:
        if forget is not None:
            forget()
        state.token.cancel()
        for _, future, _ in list(state.running.values()):
            future.cancel()
        if isinstance(state.executor, _Threads):
            state.executor.shutdown()
