"""Retrying a call. Only this module imports backoff.

    RetryingModel(model).chat_stream(req)       calls again when the call fails with a transient error

We use backoff (2.2.1) only to compute the waits. Its decorators cannot retry a generator, they measure time with the
wall clock, and their sleep cannot be cancelled. Its jitter draws from the global random generator, which programs seed.
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

from completion.contract.checks import require_model, require_whole_number
from completion.contract.chunks import StreamChunk
from completion.contract.errors import StreamCancelledError, Transient, in_short
from completion.contract.model import CompletionModel, count_tokens
from completion.contract.request import ChatRequest, as_request
from completion.contract.stream import ChatStream, without_our_frames
from completion.wrappers.attempts import Attempts, classify, is_retried
from completion.wrappers.named_after import CountsTokens

log = logging.getLogger(__name__)

_NO_WAIT_SECONDS = 1e-9
"""A ``base_delay`` up to this counts as 0. backoff multiplies it by 2 ** n, which would overflow before the wait grows
to a second."""

# Not the global generator: workers that all call random.seed(0) would retry at the same moment.
_random = SystemRandom()


@dataclass(frozen=True, slots=True)
class RetryConfig:
    """How often to retry, and how long to wait. Times are in seconds.

    ``max_attempts``: the number of calls, including the first. ``base_delay``, ``max_delay``: the n-th wait is at most
    ``base_delay * 2 ** (n - 1)``, and at most ``max_delay``; with ``jitter`` it is a random time up to that limit. If
    the server asks for a wait, we wait exactly that long; if it asks for more than ``max_retry_after``, we do not
    retry. ``total``: we do not retry if the wait would end later than this after the start of the call. (It covers all
    attempts; ``Timeout.total`` covers one.) ``before_first_chunk``: also retry a stream that fails before it has
    yielded a chunk.

    Raises:
        ValueError: a number is out of range.
    """

    max_attempts: int = 3
    base_delay: float = 1.0
    max_delay: float = 30.0
    jitter: bool = True
    max_retry_after: float = 60.0
    total: float | None = None
    before_first_chunk: bool = True

    def __post_init__(self) -> None:
        require_whole_number(self.max_attempts, "RetryConfig.max_attempts")
        for name in ("base_delay", "max_delay", "max_retry_after", "total"):
            seconds = getattr(self, name)
            if seconds is None and name == "total":
                continue
            if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not seconds >= 0:
                raise ValueError(f"RetryConfig.{name} must be a number of seconds, 0 or more, got {seconds!r}")


@dataclass(frozen=True, slots=True)
class RetryEvent:
    """A call has failed and will be retried in ``delay`` seconds.

    ``attempt`` is the number of calls so far, of at most ``max_attempts``. ``provider`` and ``model`` are those of the
    wrapped model. ``error`` has its traceback only while ``on_retry`` runs: later it would keep the caller's variables
    alive.
    """

    attempt: int
    max_attempts: int
    delay: float
    error: Exception
    provider: str
    model: str


# Called for each retry in this context; see watching_retries().
_watcher: ContextVar[Callable[[RetryEvent], object] | None] = ContextVar("completion_retry_watcher", default=None)


@contextmanager
def watching_retries(on_retry: Callable[[RetryEvent], object]) -> Iterator[None]:
    """Inside this block, every RetryingModel calls ``on_retry`` too, in addition to its own."""
    outer = _watcher.set(on_retry)
    try:
        yield
    finally:
        _watcher.reset(outer)


class RetryingModel(CountsTokens):
    """A model that retries the calls of another model when they fail with a transient error.

    If the call itself fails, ``chat_stream`` retries it. If the stream fails before its first chunk, the first
    ``next()`` retries it (unless ``before_first_chunk`` is False), and ``stream.response`` is replaced by that of the
    new attempt. If all attempts fail, the last error is raised unchanged, with ``attempts`` set.

    Args:
        inner: any CompletionModel. A RetryingModel deeper inside, for example in a FallbackModel, does not retry: only
            the outermost one does.
        config: how often to retry, and how long to wait.
        on_retry: called before each wait, in the calling thread. If it raises, the call fails with that error.

    Raises:
        TypeError: ``inner`` is not a model, or is itself a RetryingModel.
    """

    def __init__(
        self,
        inner: CompletionModel,
        config: RetryConfig = RetryConfig(),
        on_retry: Callable[[RetryEvent], object] | None = None,
    ) -> None:
        if isinstance(inner, RetryingModel):
            raise TypeError("RetryingModel: the inner model is a RetryingModel already; use only one of the two")
        require_model(inner, "RetryingModel")
        if not isinstance(config, RetryConfig):
            raise TypeError(f"RetryingModel: config must be a RetryConfig, got {type(config).__name__}")
        self.inner = self._named_after = inner
        self.config = config
        self.on_retry = on_retry

    @without_our_frames
    def chat_stream(self, req: ChatRequest | str) -> ChatStream:
        """The answer as a stream.

        Raises:
            CompletionError: the last error, if it is permanent or no attempt is left.
        """
        return _Retries(self, as_request(req)).stream()

    @without_our_frames
    def count_tokens(self, req: ChatRequest | str) -> int:
        """The input tokens of the request, counted by the wrapped model. Retries like ``chat_stream``.

        Raises:
            UnsupportedContentError: the model cannot count tokens.
            CompletionError: the last error, if it is permanent or no attempt is left.
        """
        attempts = _Retries(self, as_request(req))
        return attempts.result(attempts.count)

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
        # If an outer wrapper retries, we make one attempt only.
        self._max_attempts = 1 if is_retried.get() else owner.config.max_attempts

    def call(self) -> Iterator[StreamChunk]:
        self._number += 1
        return self._owner.inner.chat_stream(self._req)

    def count(self) -> int:
        """Make one attempt to count the tokens."""
        self._number += 1
        return count_tokens(self._owner.inner, self._req)

    def should_try_again(self, error: Exception, *, was_open: bool) -> bool:
        self.add_details(error)
        owner = self._owner
        if was_open and not owner.config.before_first_chunk:
            return False
        delay = self._delay_after(error)
        if delay is None:
            return False
        self._delay = delay
        event = RetryEvent(self._number, self._max_attempts, delay, error, owner.name, owner.model)
        log.warning(
            "%s %s: attempt %d of %d failed, the next is in %.2f s: %s",
            *(event.provider, event.model, event.attempt, event.max_attempts, delay, in_short(error)),
        )
        for on_retry in (owner.on_retry, _watcher.get()):
            if on_retry is not None:
                on_retry(event)
        return True

    def add_details(self, error: Exception) -> None:
        with suppress(Exception):  # an exception of a third party may refuse attributes, for example with __slots__
            error.attempts = self._number  # type: ignore[attr-defined]

    def pause(self) -> None:
        try:
            self.token.sleep(self._delay)
        except StreamCancelledError:
            raise self.cancelled() from None

    def _delay_after(self, error: Exception) -> float | None:
        """Seconds to wait before the next attempt; None for no other attempt."""
        config = self._owner.config
        classification = classify(error)
        if not isinstance(classification, Transient) or self._number >= self._max_attempts:
            return None
        asked = _seconds(classification.retry_after)
        if asked is not None and asked > config.max_retry_after:
            return None
        delay = next(self._delays) if asked is None else asked
        if config.total is not None and time.monotonic() - self._began_at + delay > config.total:
            return None
        return delay


def _seconds(given: Any) -> float | None:
    """The ``retry_after`` of an error as a number of seconds, 0 or more. None if it is not a number, which may happen
    with the error of a third party."""
    try:
        seconds = float(given)
    except OverflowError:
        return math.inf
    except (TypeError, ValueError):
        return None
    return None if math.isnan(seconds) else max(seconds, 0.0)


def _delays(config: RetryConfig) -> Iterator[float]:
    """The waits: exponential, with "full jitter": a random time up to the exponential one. So clients that failed at
    the same moment do not retry at the same moment.

    https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
    """
    # Inside the function, because backoff imports asyncio, which most programs that stream never need.
    import backoff

    waits = backoff.expo(factor=config.base_delay, max_value=min(config.max_delay, threading.TIMEOUT_MAX))
    waits.send(None)  # the first value is not a wait: backoff 2.2 yields None
    for wait in waits if config.base_delay > _NO_WAIT_SECONDS else repeat(0.0):
        yield _random.uniform(0, wait) if config.jitter else wait
