"""What ends a run before its model is done: a bound that was reached, ``cancel()``, or a word of middleware or a tool.

any thread: end(kind, message) -> the token is cancelled -> whatever the run is blocked in ends -> Abort
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from completion.contract.cancel import CancelToken
from completion.contract.checks import require_seconds
from completion.contract.errors import CompletionError, StreamCancelledError
from completion.contract.run import Abort, AbortKind
from completion.engine.middleware import AbortRun
from completion.offload.threads import start_thread

_CANCELLED = Abort("cancelled", "the run was cancelled")


@dataclass(frozen=True, slots=True)
class RunConfig:
    """The bounds of a run; where one is reached, the run is aborted and its history stays valid.

    ``max_iterations``: turns of the model. The calls of the last one are not run: nobody would read the results.
    ``max_tokens``: input and output of all turns together, and of what tools report; looked at where another turn
    would follow. ``timeout``: seconds for the whole run, from the call of ``run_chat`` on. ``parallel_tools``: calls
    of one turn that run at the same time.

    Raises:
        ValueError: a number that makes no sense.
    """

    max_iterations: int = 25
    max_tokens: int | None = None
    timeout: float | None = None
    parallel_tools: int = 4

    def __post_init__(self) -> None:
        for name in ("max_iterations", "max_tokens", "parallel_tools"):
            number = getattr(self, name)
            if number is None and name == "max_tokens":
                continue
            if isinstance(number, bool) or not isinstance(number, int) or number < 1:
                raise ValueError(f"RunConfig.{name} must be a whole number from 1 on, got {number!r}")
        require_seconds(self.timeout, "RunConfig.timeout")


class Ending:
    """Whether a run is to end, and why; the first reason counts.

    Its token is cancelled with the one that the caller is inside of. No method takes a lock: a finalizer or a signal
    handler may call each.
    """

    def __init__(self) -> None:
        self.token, self._untie = CancelToken.bound()
        self._aborts: list[Abort] = []  # several threads may add at the same time
        self._is_over = CancelToken()

    @property
    def abort(self) -> Abort | None:
        """Why the run is to end, None where it is not."""
        if self.token.cancelled and not self._aborts:  # from further out
            self._aborts.append(_CANCELLED)
        return self._aborts[0] if self._aborts else None

    def end(self, kind: AbortKind, message: str) -> None:
        """End the run, from any thread."""
        self._aborts.append(Abort(kind, message))
        self.token.cancel()

    def cancel(self) -> None:
        self.end(_CANCELLED.kind, _CANCELLED.message)

    def end_after(self, seconds: float) -> None:
        """End it when the time is over, from a thread of its own that ends with the run."""
        start_thread("completion-timeout", self._watch, seconds)

    def _watch(self, seconds: float) -> None:
        with suppress(StreamCancelledError):
            self._is_over.sleep(seconds)
            self.end("timeout", f"the run took longer than RunConfig.timeout={seconds:g} s")

    @contextmanager
    def noted(self) -> Iterator[None]:
        """What ends the run well ends this block: AbortRun, and what a model raises because it was cancelled."""
        try:
            yield
        except AbortRun as stop:
            self.end("middleware", str(stop))
        except CompletionError:
            if not self.token.cancelled:
                raise

    def release(self) -> None:
        """The run is over."""
        self._is_over.cancel()
        self._untie()
