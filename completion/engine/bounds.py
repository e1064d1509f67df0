"""What ends a run early: a limit of its config, ``cancel()``, or AbortRun from middleware or a tool.

any thread: end(kind, message) -> the token is cancelled -> the call that blocks the run ends -> Abort
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from completion.contract.cancel import CancelToken
from completion.contract.checks import require_seconds, require_whole_number
from completion.contract.errors import CompletionError, StreamCancelledError
from completion.contract.run import Abort, AbortKind
from completion.engine.middleware import AbortRun
from completion.offload.threads import start_thread

_CANCELLED = Abort("cancelled", "the run was cancelled")


@dataclass(frozen=True, slots=True)
class RunConfig:
    """The limits of a run. When one is reached, the run is aborted and its history stays valid.

    ``max_iterations``: turns of the model. The tool calls of the last turn are not run, because no turn would read the
    results. ``max_tokens``: input and output tokens of all turns, and the tokens that tools report; checked before each
    further turn. ``timeout``: seconds for the whole run, starting with the call of ``run_chat``. ``parallel_tools``:
    how many tool calls of one turn run at the same time. ``max_result_chars``: the most characters of a tool result,
    about 25,000 tokens by default. Of a longer result, the model gets the beginning and the end, and between them how
    long it was. Images and other blocks that are not text do not count and stay. None: no limit.

    Raises:
        ValueError: a number is out of range.
    """

    max_iterations: int = 25
    max_tokens: int | None = None
    timeout: float | None = None
    parallel_tools: int = 4
    max_result_chars: int | None = 100_000

    def __post_init__(self) -> None:
        require_whole_number(self.max_iterations, "RunConfig.max_iterations")
        if self.max_tokens is not None:
            require_whole_number(self.max_tokens, "RunConfig.max_tokens")
        require_seconds(self.timeout, "RunConfig.timeout")
        require_whole_number(self.parallel_tools, "RunConfig.parallel_tools")
        if self.max_result_chars is not None:
            require_whole_number(self.max_result_chars, "RunConfig.max_result_chars")


class Ending:
    """Whether a run must end, and why. Only the first reason counts.

    Its token is cancelled together with the token that was active when the run began. No method takes a lock: a
    finalizer or a signal handler may call each of them.
    """

    def __init__(self) -> None:
        self.token, self._unbind = CancelToken.bound_to_current()
        self._aborts: list[Abort] = []  # several threads may append at the same time
        self._timeout_stop = CancelToken()  # cancelled when the run is over: the timeout thread then ends

    @property
    def abort(self) -> Abort | None:
        """Why the run must end; None if it need not."""
        if self.token.cancelled and not self._aborts:  # by the caller's token: ``end`` was not called
            self._aborts.append(_CANCELLED)
        return self._aborts[0] if self._aborts else None

    def end(self, kind: AbortKind, message: str) -> None:
        """Abort the run, from any thread."""
        self._aborts.append(Abort(kind, message))
        self.token.cancel()

    def cancel(self) -> None:
        self.end(_CANCELLED.kind, _CANCELLED.message)

    def end_after(self, seconds: float) -> None:
        """Start a thread that aborts the run after these seconds. The thread ends with the run."""
        start_thread("completion-timeout", self._abort_after, seconds)

    def _abort_after(self, seconds: float) -> None:
        with suppress(StreamCancelledError):
            self._timeout_stop.sleep(seconds)
            self.end("timeout", f"the run took longer than RunConfig.timeout={seconds:g} s")

    @contextmanager
    def catching_aborts(self) -> Iterator[None]:
        """Turn AbortRun into an abort of the run, and drop the errors that a model raises because it was cancelled."""
        try:
            yield
        except AbortRun as exc:
            self.end("middleware", str(exc))
        except CompletionError:
            # Any error of a cancelled model: a closed connection may look like a TransportError.
            if not self.token.cancelled:
                raise

    def release(self) -> None:
        """The run is over: end the timeout thread, and unbind the token."""
        self._timeout_stop.cancel()
        self._unbind()
