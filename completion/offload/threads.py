"""The worker threads that read streams."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

from completion.contract.errors import ConfigurationError
from completion.offload.pump import _P, _T, _nothing


def start_thread(name: str, target: Callable[_P, object], /, *args: _P.args, **kwargs: _P.kwargs) -> threading.Thread:
    """A daemon thread that runs it.

    Raises:
        ConfigurationError: the system gives no more threads.
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


class Threads(Executor):
    """An executor of daemon threads, one a stream, each gone with its stream: nobody waits for them at exit.

    More than ``limit`` at a time wait for their turn.
    """

    _numbers = itertools.count(1)

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._crew_of_process: dict[int, _Crew] = {}

    def submit(self, fn: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> Future[_T]:
        """Run it in a thread.

        Raises:
            ConfigurationError: the system gives no more threads.
        """
        future: Future[_T] = Future()

        def job() -> None:
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(fn(*args, **kwargs))
                except BaseException as error:
                    future.set_exception(error)

        # In a forked child the threads of the parent are not there, and its lock may be held by one of them.
        crew = self._crew_of_process.setdefault(os.getpid(), _Crew())
        with crew.lock:
            if crew.size >= self.limit:
                crew.waiting[future] = job
                future.add_done_callback(crew.forget)
                return future
            crew.size += 1
        try:
            name = f"completion-{next(self._numbers)}"
            start_thread(name, crew.work, job)
        except BaseException:
            crew.leave()
            raise
        return future

    def give_place(self) -> None:
        """Somebody will not come back: one more may work."""
        self.limit += 1
        self.submit(_nothing)  # whose thread takes the next one that waits


class _Crew:
    """The threads of one process that are at work, and the jobs that wait for one."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.size = 0
        self.waiting: dict[Future[Any], Callable[[], None]] = {}

    def work(self, job: Callable[[], None]) -> None:
        while True:
            job()
            with self.lock:
                if not self.waiting:
                    self.size -= 1
                    return
                # A finalizer may take it out in this very moment.
                job = self.waiting.pop(next(iter(self.waiting)), _nothing)

    def forget(self, future: Future[Any]) -> None:
        """It was cancelled while it waited, or is done."""
        with self.lock:
            self.waiting.pop(future, None)

    def leave(self) -> None:
        """A thread could not be started. Where it was the only one, nobody would come for those that wait."""
        with self.lock:
            self.size -= 1
            left = [] if self.size else list(self.waiting)
        for future in left:
            future.cancel()
