"""RetryingModel: how often it retries, how long it waits, what it reports, and that its waits can be cancelled."""

from __future__ import annotations

import copy
import logging
import math
import pickle
import random
import threading
import time
from collections.abc import Callable
from typing import Any, Final

import pytest

from completion import (
    AuthenticationError,
    CancelToken,
    ChatRequest,
    ChatStream,
    CompletionError,
    FallbackModel,
    OverloadedError,
    Permanent,
    QuotaExceededError,
    RateLimitError,
    RetryConfig,
    RetryEvent,
    RetryingModel,
    ServerError,
    StreamCancelledError,
    TextDelta,
    Transient,
    TransportError,
)
from completion.testing import ProviderServer, Reply, ScriptedModel
from completion.wrappers.retry import _delays
from tests.loopback import END, HI, PATIENCE_S, Caught, model_of, text

AT_ONCE_S: Final = 0.5
"""We promise 0.1 s; a busy machine may need longer."""

LONG: Final = RetryConfig(base_delay=60, max_delay=60, jitter=False)
NO_WAIT: Final = RetryConfig(base_delay=0)


def slow_down(seconds: Any = None) -> RateLimitError:
    return RateLimitError("slow down", retry_after=seconds)


class Foreign(Exception):
    """A third party's error with a retry_classification()."""

    def __init__(self, classification: Any) -> None:
        super().__init__("foreign")
        self.classification = classification

    def retry_classification(self) -> Any:
        if isinstance(self.classification, Exception):
            raise self.classification
        return self.classification


class Slotted(Exception):
    """An error that refuses new attributes."""

    __slots__ = ()

    def __setattr__(self, name: str, value: object) -> None:
        raise TypeError("this error has no such attribute")

    def retry_classification(self) -> Transient:
        return Transient()


def events_of(config: RetryConfig, *scripts: Any) -> list[RetryEvent]:
    """The events that on_retry gets while the scripts run to the end."""
    events: list[RetryEvent] = []
    with ScriptedModel(*scripts) as inner:
        RetryingModel(inner, config, events.append).chat_stream(HI).collect()
    return events


# --- how often -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attempts", [1, 2, 3, 7])
@pytest.mark.parametrize("is_open", [False, True], ids=["the call", "the stream"])
def test_max_attempts_includes_the_first_call(attempts: int, is_open: bool) -> None:
    errors = [slow_down() for _ in range(attempts)]
    inner = ScriptedModel(*([[error] for error in errors] if is_open else errors))
    with inner, pytest.raises(RateLimitError) as caught:
        next(RetryingModel(inner, RetryConfig(max_attempts=attempts, base_delay=0)).chat_stream(HI))
    assert caught.value is errors[-1]
    assert caught.value.attempts == attempts


def test_failed_calls_and_failed_streams_count_together() -> None:
    inner = ScriptedModel(slow_down(), [OverloadedError("a")], OverloadedError("b"))
    with inner, pytest.raises(OverloadedError, match="b") as caught:
        next(RetryingModel(inner, NO_WAIT).chat_stream(HI))
    assert caught.value.attempts == 3


def test_the_defaults_are_three_calls() -> None:
    assert RetryConfig() == RetryConfig(3, 1.0, 30.0, True, 60.0, None, True)


def test_the_request_is_the_same_each_time() -> None:
    request = ChatRequest("Hello", seed=7)
    inner = ScriptedModel(slow_down(), [slow_down()], "Hi")
    RetryingModel(inner, NO_WAIT).chat_stream(request).collect()
    assert [one is request for one in inner.requests] == [True] * 3


def test_ten_thousand_attempts_need_no_recursion() -> None:
    many = [slow_down() if n % 2 else [slow_down()] for n in range(9_999)]
    config = RetryConfig(max_attempts=10_000, base_delay=0)
    logging.getLogger("completion.wrappers.retry").disabled = True
    try:
        assert RetryingModel(ScriptedModel(*many, "Hi"), config).chat_stream(HI).collect().text == "Hi"
    finally:
        logging.getLogger("completion.wrappers.retry").disabled = False


def test_the_same_object_may_be_raised_twice() -> None:
    error = slow_down()
    with ScriptedModel(error, [error], error) as inner, pytest.raises(RateLimitError) as caught:
        next(RetryingModel(inner, NO_WAIT).chat_stream(HI))
    assert caught.value is error
    assert (error.attempts, error.__cause__, error.__context__) == (3, None, None)


@pytest.mark.parametrize(
    "error",
    [
        AuthenticationError("no"),
        QuotaExceededError("no money"),
        RateLimitError("no", should_retry=False),
        KeyError("x"),
    ],
    ids=["401", "quota", "x-should-retry", "foreign"],
)
def test_a_permanent_error_is_raised_at_once(error: Exception) -> None:
    with ScriptedModel(error) as inner, pytest.raises(type(error)) as caught:
        RetryingModel(inner, NO_WAIT).chat_stream(HI)
    assert caught.value is error
    assert vars(error)["attempts"] == 1


@pytest.mark.parametrize(
    ("error", "calls"),
    [
        (Foreign(Transient()), 3),
        (Foreign(Permanent()), 1),
        (Foreign("transient"), 1),
        (Foreign(KeyError("broken")), 1),
        (Slotted("s"), 3),
    ],
    ids=["transient", "permanent", "neither", "its own error", "without attributes"],
)
def test_a_foreign_error_may_classify_itself(error: Exception, calls: int) -> None:
    inner = ScriptedModel(error, error, error, error)
    with pytest.raises(type(error)) as caught:
        RetryingModel(inner, NO_WAIT).chat_stream(HI)
    assert caught.value is error
    assert len(inner.requests) == calls


def test_without_before_first_chunk_a_failed_stream_is_not_retried() -> None:
    error = OverloadedError("busy")
    inner = ScriptedModel(slow_down(), [error], "Hi")
    stream = RetryingModel(inner, RetryConfig(base_delay=0, before_first_chunk=False)).chat_stream(HI)
    with pytest.raises(OverloadedError) as caught:
        next(stream)
    assert caught.value is error
    assert (error.attempts, len(inner.requests)) == (2, 2)


def test_a_retrying_model_around_a_retrying_model_raises_a_type_error() -> None:
    with pytest.raises(TypeError, match="a RetryingModel already"):
        RetryingModel(RetryingModel(ScriptedModel()))


# --- how long --------------------------------------------------------------------------------------------------------


def first_waits(config: RetryConfig, count: int) -> list[float]:
    return [wait for wait, _ in zip(_delays(config), range(count), strict=False)]


@pytest.mark.parametrize(
    ("config", "waits"),
    [
        (RetryConfig(jitter=False), [1, 2, 4, 8, 16, 30, 30]),
        (RetryConfig(base_delay=0.5, max_delay=3, jitter=False), [0.5, 1, 2, 3, 3]),
        (RetryConfig(base_delay=5, max_delay=2, jitter=False), [2, 2, 2]),
        (RetryConfig(base_delay=0, jitter=False), [0, 0, 0]),
        (RetryConfig(base_delay=0), [0, 0, 0]),
        (RetryConfig(max_delay=0), [0, 0, 0]),
        (RetryConfig(base_delay=math.inf, jitter=False), [30, 30]),
        (RetryConfig(base_delay=5e-324), [0, 0]),
    ],
    ids=["defaults", "small", "max below base", "no base", "no base, jitter", "no max", "endless base", "denormal"],
)
def test_waits_double_up_to_max_delay(config: RetryConfig, waits: list[float]) -> None:
    assert first_waits(config, len(waits)) == waits


@pytest.mark.parametrize("config", [RetryConfig(max_delay=math.inf), RetryConfig(base_delay=1e-8, max_delay=math.inf)])
def test_ten_thousand_waits_do_not_overflow(config: RetryConfig) -> None:
    assert all(0 <= wait <= threading.TIMEOUT_MAX for wait in first_waits(config, 10_000))


def test_jitter_uses_the_whole_range() -> None:
    waits = first_waits(RetryConfig(base_delay=8, max_delay=8), 2_000)
    assert all(0 <= wait <= 8 for wait in waits)
    # The standard error of the mean is 0.05; we allow ten times that.
    assert sum(waits) / len(waits) == pytest.approx(4, abs=0.5)
    assert [sum(n <= wait < n + 2 for wait in waits) > 350 for n in (0, 2, 4, 6)] == [True] * 4


def test_clients_with_the_same_random_seed_wait_differently() -> None:
    before, found = random.getstate(), list[list[float]]()
    try:
        for _ in range(20):
            random.seed(0)
            found.append(first_waits(RetryConfig(), 3))
            assert random.random() == random.Random(0).random()  # the program's sequence is not disturbed
    finally:
        random.setstate(before)
    assert len({wait for waits in found for wait in waits}) == 60


@pytest.mark.parametrize("error", [slow_down, lambda s: Foreign(Transient(s))], ids=["ours", "foreign"])
@pytest.mark.parametrize(
    ("asked", "delay"),
    [(0, 0), (0.01, 0.01), (-5, 0), ("0.01", 0.01), (math.nan, 0.02), (None, 0.02), ("soon", 0.02)],
    ids=["0", "0.01", "negative", "text", "NaN", "None", "words"],
)
def test_the_wait_is_exactly_what_the_server_asks_for(
    error: Callable[[Any], Exception], asked: Any, delay: float
) -> None:
    config = RetryConfig(base_delay=0.02, jitter=False)
    assert [event.delay for event in events_of(config, error(asked), "Hi")] == [delay]


@pytest.mark.parametrize("asked", [60.001, 1e300, math.inf, 10**400], ids=["60.001", "1e300", "inf", "10**400"])
def test_a_wait_over_max_retry_after_is_not_retried(asked: float) -> None:
    error = slow_down(asked)
    with ScriptedModel(error) as inner, pytest.raises(RateLimitError) as caught:
        RetryingModel(inner).chat_stream(HI)
    assert caught.value is error
    assert error.attempts == 1


def test_a_retry_after_may_be_longer_than_max_delay() -> None:
    config = RetryConfig(base_delay=0.001, max_delay=0.001, max_retry_after=0.02)
    assert [event.delay for event in events_of(config, slow_down(0.02), "Hi")] == [0.02]


def test_a_retry_after_does_not_double_the_next_wait() -> None:
    config = RetryConfig(max_attempts=4, base_delay=0.01, jitter=False)
    events = events_of(config, slow_down(), slow_down(0), slow_down(), "Hi")
    assert [event.delay for event in events] == [0.01, 0, 0.02]


def test_the_wait_is_as_long_as_the_event_says() -> None:
    began = time.monotonic()
    assert events_of(RetryConfig(), slow_down(0.05), "Hi")[0].delay == 0.05
    assert time.monotonic() - began >= 0.05


@pytest.mark.parametrize(
    ("total", "asked", "calls"),
    [(60.0, [0.01, 0.01], 3), (0.03, [0.01, 0.025], 2), (1.0, [5], 1), (0, [0, 0], 1)],
    ids=["enough", "the sum", "the first", "none"],
)
def test_no_wait_ends_after_the_total_time(total: float, asked: list[float], calls: int) -> None:
    inner = ScriptedModel(*map(slow_down, asked), slow_down(0))
    with pytest.raises(RateLimitError) as caught:
        RetryingModel(inner, RetryConfig(total=total)).chat_stream(HI)
    assert caught.value.attempts == len(inner.requests) == calls


def test_retrying_does_not_read_the_wall_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    def stepped() -> float:
        raise AssertionError("the wall clock was read")

    monkeypatch.setattr("time.time", stepped)
    logging.getLogger("completion.wrappers.retry").disabled = True  # a log record reads the wall clock
    try:
        config = RetryConfig(base_delay=0.001, total=60)
        assert RetryingModel(ScriptedModel(slow_down(), [slow_down()], "Hi"), config).chat_stream(HI).collect()
    finally:
        logging.getLogger("completion.wrappers.retry").disabled = False


def test_retry_after_is_read_from_the_response(server: ProviderServer) -> None:
    busy = {"error": {"message": "slow down"}}
    server.reply(Reply.json(busy, status=429, headers={"retry-after-ms": "20"}), Reply(text("a"), END))
    events: list[RetryEvent] = []
    RetryingModel(model_of(server), RetryConfig(), events.append).chat_stream(HI).collect()
    assert [event.delay for event in events] == [0.02]


# --- events and the log ----------------------------------------------------------------------------------------------


def test_on_retry_is_called_for_each_retry() -> None:
    errors = [slow_down(), ServerError("no", status=500)]
    config = RetryConfig(base_delay=0.001, jitter=False)
    assert events_of(config, errors[0], [errors[1]], "Hi") == [
        RetryEvent(1, 3, 0.001, errors[0], "scripted", "scripted-1"),
        RetryEvent(2, 3, 0.002, errors[1], "scripted", "scripted-1"),
    ]


def test_each_retry_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    events_of(RetryConfig(base_delay=0), slow_down(), "Hi")
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("completion.wrappers.retry", "WARNING")
    assert record.getMessage() == "scripted scripted-1: attempt 1 of 3 failed, the next is in 0.00 s: RateLimitError"


def test_the_log_names_status_code_and_request_id_but_does_not_quote_the_provider(
    caplog: pytest.LogCaptureFixture,
) -> None:
    error = ServerError("the prompt was: Hello", status=500, code="internal", request_id="r-1", body="Hello")
    events_of(RetryConfig(base_delay=0), error, "Hi")
    assert caplog.records[0].getMessage().endswith(": ServerError 500 internal [request r-1]")
    assert "Hello" not in f"{vars(caplog.records[0])}"


def test_a_success_logs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    assert events_of(RetryConfig(), "Hi") == []
    assert caplog.records == []


@pytest.mark.parametrize("script", [slow_down(), [slow_down()]], ids=["the call", "the stream"])
def test_an_error_of_on_retry_ends_the_call(script: Any) -> None:
    def stop(event: RetryEvent) -> None:
        raise KeyError("enough")

    inner = ScriptedModel(script, "Hi")
    with CancelToken() as token, pytest.raises(KeyError, match="enough") as caught:
        next(RetryingModel(inner, LONG, stop).chat_stream(HI))
    assert isinstance(caught.value.__context__, RateLimitError)
    assert (inner.remaining, token._wakers) == (1, {})


def test_on_retry_may_raise_the_error_itself() -> None:
    def give_up(event: RetryEvent) -> None:
        raise event.error

    error = slow_down()
    with pytest.raises(RateLimitError) as caught:
        RetryingModel(ScriptedModel(error), LONG, give_up).chat_stream(HI)
    assert caught.value is error
    assert error.attempts == 1


def test_on_retry_sees_the_traceback() -> None:
    seen: list[object] = []
    model = RetryingModel(
        ScriptedModel(slow_down(), "Hi"), NO_WAIT, lambda event: seen.append(event.error.__traceback__)
    )
    model.chat_stream(HI).close()
    assert seen != [None]


def test_on_retry_may_call_a_model_that_retries() -> None:
    other = RetryingModel(ScriptedModel(slow_down(), "Hi"), NO_WAIT)
    model = RetryingModel(ScriptedModel(slow_down(), "Ho"), NO_WAIT, lambda _: other.chat_stream(HI).collect())
    assert model.chat_stream(HI).collect().text == "Ho"


# --- cancelling a wait -----------------------------------------------------------------------------------------------


def test_cancelling_the_token_ends_the_sleep_inside_the_call() -> None:
    token, sleeps, inner = CancelToken(), threading.Event(), ScriptedModel(slow_down(), "Hi")

    def call() -> ChatStream:
        with token:
            return RetryingModel(inner, LONG, lambda _: sleeps.set()).chat_stream(HI)

    waiting = Caught(call)
    assert sleeps.wait(PATIENCE_S)
    token.cancel()
    error = waiting.within(AT_ONCE_S).error
    assert isinstance(error, StreamCancelledError)
    assert (error.provider, error.model, inner.remaining, token._wakers) == ("scripted", "scripted-1", 1, {})


@pytest.mark.parametrize("end", ["cancel", "close", "throw", "token"])
def test_the_sleep_inside_the_first_next_can_be_ended(end: str) -> None:
    token, sleeps, inner = CancelToken(), threading.Event(), ScriptedModel([OverloadedError("busy")], "Hi")
    with token:
        stream = RetryingModel(inner, LONG, lambda _: sleeps.set()).chat_stream(HI)
    waiting = Caught(lambda: next(stream))
    assert sleeps.wait(PATIENCE_S)
    if end == "throw":
        with pytest.raises(KeyError):
            stream.throw(KeyError("x"))
    elif end == "token":
        token.cancel()
    else:
        getattr(stream, end)()
    assert isinstance(waiting.within(AT_ONCE_S).error, StreamCancelledError)
    assert next(stream, None) is None
    assert (inner.remaining, token._wakers) == (1, {})


def test_cancelling_the_stream_ends_the_sleep_under_a_token_entered_only_for_reading() -> None:
    token, sleeps = CancelToken(), threading.Event()
    inner = ScriptedModel([OverloadedError("busy")], slow_down(0), "Hi")
    stream = RetryingModel(inner, LONG, lambda _: sleeps.set()).chat_stream(HI)

    def read() -> None:
        with token:
            next(stream)

    waiting = Caught(read)
    assert sleeps.wait(PATIENCE_S)
    stream.cancel()
    assert isinstance(waiting.within(AT_ONCE_S).error, StreamCancelledError)
    assert token._wakers == {}


def test_on_retry_may_cancel_the_token() -> None:
    with CancelToken() as token:
        inner = ScriptedModel(slow_down(), "Hi")
        with pytest.raises(StreamCancelledError):
            RetryingModel(inner, LONG, lambda _: token.cancel()).chat_stream(HI)
    assert inner.remaining == 1


def test_cancelling_a_fallback_stream_ends_the_sleep() -> None:
    sleeps = threading.Event()
    first = RetryingModel(ScriptedModel([OverloadedError("busy")], "Hi"), LONG, lambda _: sleeps.set())
    stream = FallbackModel([first, ScriptedModel("Ho")]).chat_stream(HI)
    waiting = Caught(lambda: next(stream))
    assert sleeps.wait(PATIENCE_S)
    stream.cancel()
    assert isinstance(waiting.within(AT_ONCE_S).error, StreamCancelledError)


# --- config and pickles ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attempts", [0, -1, 1.5, True, "3", None])
def test_a_wrong_number_of_attempts_raises_a_value_error(attempts: Any) -> None:
    with pytest.raises(ValueError, match=r"RetryConfig\.max_attempts must be a whole number of 1 or more, got"):
        RetryConfig(max_attempts=attempts)


@pytest.mark.parametrize("name", ["base_delay", "max_delay", "max_retry_after", "total"])
@pytest.mark.parametrize("seconds", [-0.1, math.nan, "1", True])
def test_wrong_seconds_raise_a_value_error(name: str, seconds: Any) -> None:
    with pytest.raises(ValueError, match=rf"RetryConfig\.{name} must be a number of seconds, 0 or more, got"):
        RetryConfig(**{name: seconds})


@pytest.mark.parametrize("copied", [lambda it: pickle.loads(pickle.dumps(it)), copy.deepcopy], ids=["pickle", "copy"])
def test_config_and_event_can_be_pickled_and_copied(copied: Callable[[Any], Any]) -> None:
    assert copied(RetryConfig(max_attempts=5, total=9)) == RetryConfig(max_attempts=5, total=9)
    event = copied(RetryEvent(1, 3, 0.5, TransportError("gone", provider="acme"), "acme", "m"))
    assert (event.attempt, event.delay, str(event.error)) == (1, 0.5, "acme: gone")


def test_the_attempts_of_an_error_are_pickled() -> None:
    with pytest.raises(CompletionError) as caught:
        RetryingModel(ScriptedModel(slow_down(), slow_down(), slow_down()), NO_WAIT).chat_stream(HI)
    assert pickle.loads(pickle.dumps(caught.value)).attempts == 3


@pytest.mark.parametrize(
    "wrap",
    [
        lambda model: model,
        lambda model: FallbackModel([model]),
        lambda model: FallbackModel([FallbackModel([model])]),
    ],
    ids=["alone", "in a fallback", "in two fallbacks"],
)
def test_an_error_after_the_first_chunk_has_the_attempts_too(wrap: Callable[[Any], Any]) -> None:
    inner = ScriptedModel(RateLimitError("busy"), [TextDelta("a"), OverloadedError("down")])
    stream = wrap(RetryingModel(inner, NO_WAIT)).chat_stream(HI)
    assert next(stream) == TextDelta("a")
    with pytest.raises(OverloadedError) as caught:
        next(stream)
    assert caught.value.attempts == 2


def test_an_error_of_the_next_model_does_not_have_the_attempts_of_the_failed_one() -> None:
    failed = RetryingModel(ScriptedModel(*[[slow_down()] for _ in range(3)]), NO_WAIT)
    stream = FallbackModel([failed, ScriptedModel(OverloadedError("down"))]).chat_stream(HI)
    with pytest.raises(OverloadedError) as caught:
        next(stream)
    assert caught.value.attempts is None
