"""Trying again: the only door to backoff.

    RetryingModel(model).chat_stream(req)       a call that failed is made again, where that may help

Of backoff the wait generator is used. Its decorators retry no generator, measure by the wall clock, and their sleep
cannot be ended; its jitter takes turns with a random generator that programs seed (2.2.1).
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import repeat
from random import SystemRandom
from typing import Any

from completion.contract.checks import require_model
from completion.contract.errors import StreamCancelledError, Transient, in_short
from completion.contract.model import CompletionModel
from completion.contract.request import ChatRequest, as_request
from completion.contract.stream import ChatStream, Chunks, without_our_frames
from completion.wrappers.attempts import Attempts, is_retried, verdict

log = logging.getLogger(__name__)

_NO_SECONDS = 1e-9
"""Under this there is nothing to double: backoff's own doubling would overflow before it came to a second."""

# Workers that all call random.seed(0) would come back at the same moment.
_random = SystemRandom()


@dataclass(frozen=True, slots=True)
class RetryConfig:
    """How often and how long. Times in seconds.

    ``max_attempts``: calls, the first included. ``base_delay``, ``max_delay``: the n-th wait is at most
    ``base_delay * 2 ** (n - 1)``, and never over ``max_delay``; with ``jitter`` it is any time below that. A wait
    that the server asks for is taken as it is; over ``max_retry_after`` the call is given up. ``total``: no wait
    goes beyond so much time since the call began (``Timeout.total`` is that of one attempt). ``before_first_chunk``: a
    stream that breaks before it yielded anything is opened anew as well.

    Raises:
        ValueError: a number that makes no sense.
    """

    max_attempts: int = 3
    base_delay: float = 1.0
    max_delay: float = 30.0
    jitter: bool = True
    max_retry_after: float = 60.0
    total: float | None = None
    before_first_chunk: bool = True

    def __post_init__(self) -> None:
        if isinstance(self.max_attempts, bool) or not isinstance(self.max_attempts, int) or self.max_attempts < 1:
            raise ValueError(f"RetryConfig.max_attempts must be a whole number from 1 on, got {self.max_attempts!r}")
        for name in ("base_delay", "max_delay", "max_retry_after", "total"):
            seconds = getattr(self, name)
            if seconds is None and name == "total":
                continue
            if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not seconds >= 0:
                raise ValueError(f"RetryConfig.{name} must be a number of seconds from 0 on, got {seconds!r}")


@dataclass(frozen=True, slots=True)
class RetryEvent:
    """A call failed and will be made again, ``delay`` seconds from now.

    ``attempt`` counts the calls so far, of at most ``max_attempts``; ``provider`` and ``model`` say whose. The
    traceback of ``error`` is there while ``on_retry`` runs and is dropped afterwards: it would keep the variables of
    the caller alive.
    """

    attempt: int
    max_attempts: int
    delay: float
    error: Exception
    provider: str
    model: str


_watcher: ContextVar[Callable[[RetryEvent], object] | None] = ContextVar("completion_retry_watcher", default=None)


@contextmanager
def watching_retries(told: Callable[[RetryEvent], object]) -> Iterator[None]:
    """Tell ``told`` as well of what is retried inside of this block, by whichever RetryingModel."""
    outer = _watcher.set(told)
    try:
        yield
    finally:
        _watcher.reset(outer)


class RetryingModel:
    """A model that calls another one again where its error says that this may help.

    Errors of setting up are retried inside of ``chat_stream``. With ``before_first_chunk`` an error of the stream
    before its first chunk is retried inside of the first ``next()``; ``stream.response`` is then that of the last
    response. The error that is raised in the end is the last one, unchanged, with ``attempts`` set.

    Args:
        inner: any CompletionModel. Where another RetryingModel stands further in, as in a FallbackModel, it leaves
            the retrying to this one.
        config: how often and how long.
        on_retry: called before each wait, in the calling thread; what it raises ends the call.

    Raises:
        TypeError: ``inner`` is no model, or a RetryingModel itself.
    """

    def __init__(
        self,
        inner: CompletionModel,
        config: RetryConfig = RetryConfig(),
        on_retry: Callable[[RetryEvent], object] | None = None,
    ) -> None:
        if isinstance(inner, RetryingModel):
            raise TypeError("this model is a RetryingModel already: give its RetryConfig to one of the two")
        require_model(inner, "RetryingModel")
        if not isinstance(config, RetryConfig):
            raise TypeError(f"RetryingModel takes a RetryConfig, got {type(config).__name__}")
        self.inner = inner
        self.config = config
        self.on_retry = on_retry

    @property
    def name(self) -> str:
        """The adapter family of the inner model."""
        return self.inner.name

    @property
    def model(self) -> str:
        """The id that the inner model is bound to."""
        return self.inner.model

    @without_our_frames
    def chat_stream(self, req: ChatRequest | str) -> ChatStream:
        """The answer as a stream.

        Raises:
            CompletionError: the last error, where trying again did not help or could not.
        """
        return _Retries(self, as_request(req)).stream()

    def __repr__(self) -> str:
        return f"RetryingModel({self.inner!r}, {self.config!r})"


class _Retries(Attempts):
    """The attempts of one call."""

    def __init__(self, owner: RetryingModel, req: ChatRequest) -> None:
        super().__init__(owner.name, owner.model, retries=True)
        self._owner = owner
        self._req = req
        self._number = 0
        self._delay = 0.0
        self._began_at = time.monotonic()
        self._delays = _delays(owner.config)
        # Somebody further out retries: one attempt is all that is left to us.
        self._most = 1 if is_retried.get() else owner.config.max_attempts

    def call(self) -> Chunks:
        self._number += 1
        return self._owner.inner.chat_stream(self._req)

    def goes_on(self, error: Exception, *, was_open: bool) -> bool:
        self.note(error)
        owner = self._owner
        if was_open and not owner.config.before_first_chunk:
            return False
        delay = self._delay_after(error)
        if delay is None:
            return False
        self._delay = delay
        event = RetryEvent(self._number, self._most, delay, error, owner.name, owner.model)
        log.warning(
            "%s %s: attempt %d of %d failed, the next is in %.2f s: %s",
            *(event.provider, event.model, event.attempt, event.max_attempts, delay, in_short(error)),
        )
        for told in (owner.on_retry, _watcher.get()):
            if told is not None:
                told(event)
        return True

    def note(self, error: Exception) -> None:
        with suppress(Exception):  # of somebody else's making, with slots
            error.attempts = self._number  # type: ignore[attr-defined]

    def pause(self) -> None:
        try:
            self.token.sleep(self._delay)
        except StreamCancelledError:
            raise self.cancelled() from None

    def _delay_after(self, error: Exception) -> float | None:
        """Seconds to wait before the next attempt, None where there shall be none."""
        config = self._owner.config
        said = verdict(error)
        if not isinstance(said, Transient) or self._number >= self._most:
            return None
        asked = _seconds(said.retry_after)
        if asked is not None and asked > config.max_retry_after:
            return None
        delay = next(self._delays) if asked is None else asked
        if config.total is not None and time.monotonic() - self._began_at + delay > config.total:
            return None
        return delay


def _seconds(given: Any) -> float | None:
    """A server's wish, as an error has it, perhaps one of somebody else's; None where it is no number."""
    try:
        seconds = float(given)
    except OverflowError:
        return math.inf
    except (TypeError, ValueError):
        return None
    return None if math.isnan(seconds) else max(seconds, 0.0)


def _delays(config: RetryConfig) -> Iterator[float]:
    """Full jitter: any time up to the exponential one, so that clients that failed together come back apart.

    https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
    """
    import backoff  # it imports asyncio, which most programs that stream never need

    waits = backoff.expo(factor=config.base_delay, max_value=min(config.max_delay, threading.TIMEOUT_MAX))
    waits.send(None)  # it begins with a value that is none: None in 2.2, 0 in its successor
    for wait in waits if config.base_delay > _NO_SECONDS else repeat(0.0):
        yield _random.uniform(0, wait) if config.jitter else wait
