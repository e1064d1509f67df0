"""The worker threads that read streams."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextvars import copy_context
from queue import SimpleQueue
from typing import Any, ParamSpec, TypeVar

from completion.contract.cancel import CancelToken
from completion.contract.errors import ConfigurationError, stream_cancelled

_P = ParamSpec("_P")
_T = TypeVar("_T")


def start_thread(name: str, target: Callable[_P, object], /, *args: _P.args, **kwargs: _P.kwargs) -> threading.Thread:
    """Start a daemon thread that calls ``target`` with these arguments.

    Raises:
        ConfigurationError: the system allows no more threads.
    """
    thread = threading.Thread(target=target, name=name, args=args, kwargs=kwargs, daemon=True)
    try:
        thread.start()
    except (RuntimeError, MemoryError) as exc:
        raise ConfigurationError(
            f"the system gives this process no more threads ({exc or 'no memory'}): run less at a time, raise the "
            "limit (ulimit -u; in a container, its number of processes), or free memory"
        ) from exc
    return thread


def call_in_thread(name: str, function: Callable[[], _T], token: CancelToken) -> _T:
    """Call the function in a daemon thread, with the context variables of this thread, and return its result.

    Raises:
        StreamCancelledError: the token was cancelled before the function returned. Its thread goes on, unnoticed.
        BaseException: what the function raises.
    """
    future: Future[_T] = Future()
    has_news: SimpleQueue[None] = SimpleQueue()

    def work() -> None:
        try:
            future.set_result(function())
        except BaseException as error:
            future.set_exception(error)
        has_news.put(None)

    remove_callback = token.on_cancel(lambda: has_news.put(None))
    try:
        if not token.cancelled:
            start_thread(name, copy_context().run, work)
            has_news.get()
    finally:
        remove_callback()
    if not future.done():
        raise stream_cancelled(None, None)
    return future.result()


class Threads(Executor):
    """An executor of daemon threads, one per job. A thread ends when no job waits.

    At most ``limit`` jobs run at the same time; others wait. The interpreter does not wait for these threads at exit,
    as it does for those of a ThreadPoolExecutor: a silent provider must not delay the exit.
    """

    _numbers = itertools.count(1)

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._workers_by_pid: dict[int, _Workers] = {}

    def submit(self, fn: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> Future[_T]:
        """Run it in a thread.

        Raises:
            ConfigurationError: the system allows no more threads.
        """
        future: Future[_T] = Future()

        def job() -> None:
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(fn(*args, **kwargs))
                except BaseException as error:
                    future.set_exception(error)

        # A forked child has none of its parent's threads, and a lock that was held at the fork is never released.
        workers = self._workers_by_pid.setdefault(os.getpid(), _Workers())
        with workers.lock:
            if workers.count >= self.limit:
                workers.waiting[future] = job
                future.add_done_callback(workers.remove)
                return future
            workers.count += 1
        try:
            name = f"completion-{next(self._numbers)}"
            start_thread(name, workers.work, job)
        except BaseException:
            workers.start_failed()
            raise
        return future

    def allow_one_more(self) -> None:
        """Raise the limit by one, because a thread is stuck and will not come back."""
        self.limit += 1
        self.submit(_nothing)  # starts a thread, which then runs the next waiting job


class _Workers:
    """The running threads of one process, and the jobs that wait for a thread."""

    def __init__(self) -> None:
        # Reentrant: cancelling a future from a finalizer calls remove() in a thread that may hold the lock already.
        self.lock = threading.RLock()
        self.count = 0
        self.waiting: dict[Future[Any], Callable[[], None]] = {}

    def work(self, job: Callable[[], None]) -> None:
        """Run a job, then the waiting ones."""
        while True:
            job()
            with self.lock:
                if not self.waiting:
                    self.count -= 1
                    return
                # With a default, because a finalizer in this thread may call remove() between next() and pop().
                job = self.waiting.pop(next(iter(self.waiting)), _nothing)

    def remove(self, future: Future[Any]) -> None:
        """The future was cancelled while it waited, or is done."""
        with self.lock:
            self.waiting.pop(future, None)

    def start_failed(self) -> None:
        """A thread could not be started. If no other thread runs, nothing would ever run the waiting jobs: cancel
        them."""
        with self.lock:
            self.count -= 1
            stranded = [] if self.count else list(self.waiting)
        for future in stranded:
            future.cancel()


def _nothing() -> None:
    pass
