"""FallbackModel: which errors fall back to the next model, and which causes the last error has."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from completion import (
    AuthenticationError,
    CancelToken,
    CompletionError,
    ConfigurationError,
    ContentFilterError,
    ContextOverflowError,
    FallbackModel,
    InvalidRequestError,
    MalformedStreamError,
    NotFoundError,
    OverloadedError,
    Permanent,
    QuotaExceededError,
    RateLimitError,
    RetryConfig,
    RetryingModel,
    ServerError,
    StreamCancelledError,
    TextDelta,
    Transient,
    TransportError,
    UnsupportedContentError,
)
from completion.testing import Cut, ProviderServer, Reply, ScriptedModel
from tests.loopback import END, HI, model_at, model_of, text


def causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


class Foreign(Exception):
    def __init__(self, classification: Any) -> None:
        super().__init__("foreign")
        self.classification = classification

    def retry_classification(self) -> Any:
        return self.classification


@pytest.mark.parametrize(
    "error",
    [
        kind("no")
        for kind in (
            AuthenticationError,
            ConfigurationError,
            ContentFilterError,
            ContextOverflowError,
            MalformedStreamError,
            NotFoundError,
            OverloadedError,
            QuotaExceededError,
            RateLimitError,
            ServerError,
            TransportError,
            UnsupportedContentError,
        )
    ]
    + [Foreign(Transient())],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("is_open", [False, True], ids=["the call", "the stream"])
def test_a_model_specific_error_falls_back_to_the_next_model(error: Exception, is_open: bool) -> None:
    with ScriptedModel([error] if is_open else error) as first, ScriptedModel("Hi") as second:
        assert FallbackModel([first, second]).chat_stream(HI).collect().text == "Hi"


@pytest.mark.parametrize(
    "error",
    [InvalidRequestError("no"), StreamCancelledError("over"), KeyError("x"), Foreign(Permanent())],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("is_open", [False, True], ids=["the call", "the stream"])
def test_an_error_that_every_model_would_raise_does_not_fall_back(error: Exception, is_open: bool) -> None:
    second = ScriptedModel("Hi")
    model = FallbackModel([ScriptedModel([error] if is_open else error), second])
    with pytest.raises(type(error)) as caught:
        next(model.chat_stream(HI))
    assert caught.value is error
    assert (second.remaining, error.__cause__) == (1, None)


def test_after_the_first_chunk_no_other_model_is_called() -> None:
    second = ScriptedModel("Hi")
    stream = FallbackModel([ScriptedModel([TextDelta("a"), OverloadedError("busy")]), second]).chat_stream(HI)
    assert next(stream) == TextDelta("a")
    with pytest.raises(OverloadedError):
        next(stream)
    assert second.remaining == 1


def test_models_are_called_in_order_and_each_once() -> None:
    errors: list[Any] = [RateLimitError("a"), [ServerError("b")], TransportError("c")]
    models = [ScriptedModel(error) for error in errors]
    with pytest.raises(TransportError, match="c"):
        next(FallbackModel(models).chat_stream(HI))
    assert [len(model.requests) for model in models] == [1, 1, 1]


@pytest.mark.parametrize("is_open", [False, True], ids=["the call", "the stream"])
def test_the_causes_of_the_last_error_are_the_earlier_errors(is_open: bool) -> None:
    errors = [RateLimitError("a"), ServerError("b"), OverloadedError("c")]
    model = FallbackModel([ScriptedModel([error] if is_open else error) for error in errors])
    with pytest.raises(OverloadedError) as caught:
        next(model.chat_stream(HI))
    assert list(causes(caught.value)) == errors[::-1]


def test_the_earlier_errors_follow_the_last_errors_own_causes() -> None:
    first, last, cause = RateLimitError("a"), ServerError("b"), KeyError("cause")
    last.__cause__ = cause
    with pytest.raises(ServerError) as caught:
        FallbackModel([ScriptedModel(first), ScriptedModel(last)]).chat_stream(HI)
    assert list(causes(caught.value)) == [last, cause, first]


def test_a_failed_connection_has_the_earlier_errors_as_causes(server: ProviderServer) -> None:
    server.reply(Reply.json({"error": {"message": "busy"}}, status=503))
    with pytest.raises(TransportError) as caught:
        FallbackModel([model_of(server), model_at("http://127.0.0.1:1")]).chat_stream(HI)
    assert isinstance(list(causes(caught.value))[-1], OverloadedError)


def test_an_error_without_fallback_has_the_earlier_errors_as_causes() -> None:
    first, last = RateLimitError("a"), InvalidRequestError("b")
    with pytest.raises(InvalidRequestError) as caught:
        FallbackModel([ScriptedModel(first), ScriptedModel(last), ScriptedModel()]).chat_stream(HI)
    assert caught.value.__cause__ is first


@dataclass(frozen=True)
class Frozen(Exception):
    word: str

    def retry_classification(self) -> Transient:
        return Transient()


def test_a_frozen_error_has_the_earlier_errors_as_causes() -> None:
    first, second, third = (Frozen(word) for word in "abc")
    with pytest.raises(Frozen) as caught:
        FallbackModel([ScriptedModel(first), ScriptedModel([second]), ScriptedModel([third])]).chat_stream(HI).collect()
    assert list(causes(caught.value)) == [third, second, first]


@pytest.mark.parametrize("order", [[0, 0], [0, 1, 0], [0, 1, 1, 0], [1, 0, 0, 1]], ids=str)
def test_an_error_raised_twice_does_not_become_its_own_cause(order: list[int]) -> None:
    errors = [RateLimitError("a"), ServerError("b")]
    for turn in (order, order[::-1]):
        with pytest.raises(CompletionError) as caught:
            FallbackModel([ScriptedModel(errors[which]) for which in turn]).chat_stream(HI)
        assert caught.value is errors[turn[-1]]
        seen = []
        for one in causes(caught.value):
            assert one not in seen
            seen.append(one)


def test_a_cycle_of_causes_is_left_unchanged() -> None:
    one, two = RateLimitError("a"), ServerError("b")
    one.__cause__, two.__cause__ = two, one
    with pytest.raises(ServerError) as caught:
        FallbackModel([ScriptedModel(one), ScriptedModel(two)]).chat_stream(HI)
    assert caught.value is two


def test_each_fallback_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    first = ScriptedModel(RateLimitError("slow down"), name="a", model="a-1")
    FallbackModel([first, ScriptedModel("Hi", name="b", model="b-1")]).chat_stream(HI).collect()
    (record,) = caplog.records
    assert record.getMessage() == "a a-1 failed, falling back to b b-1: RateLimitError"


def test_a_cut_stream_falls_back_to_the_next_model(server: ProviderServer) -> None:
    server.reply(Reply(Cut()), Reply(text("a"), END))
    stream = FallbackModel([model_of(server), model_of(server)]).chat_stream(HI)
    assert stream.collect().text == "a"
    assert len(server.requests) == 2


def test_after_a_cancellation_no_other_model_is_called() -> None:
    token, second = CancelToken(), ScriptedModel("Hi")

    class Cancelling(ScriptedModel):
        def chat_stream(self, req: Any) -> Any:
            token.cancel()
            return super().chat_stream(req)

    with token, pytest.raises(StreamCancelledError):
        FallbackModel([Cancelling(RateLimitError("a")), second]).chat_stream(HI)
    assert second.remaining == 1


def test_each_model_may_have_its_own_retries() -> None:
    config = RetryConfig(max_attempts=2, base_delay=0)
    with ScriptedModel(RateLimitError("a"), [RateLimitError("b")]) as first, ScriptedModel("Hi") as second:
        model = FallbackModel([RetryingModel(first, config), second])
        assert model.chat_stream(HI).collect().text == "Hi"


def test_the_list_of_models_is_copied() -> None:
    models = [ScriptedModel(RateLimitError("a")), ScriptedModel("Hi")]
    model = FallbackModel(models)
    models.clear()
    assert model.chat_stream(HI).collect().text == "Hi"


def test_each_call_starts_with_the_first_model() -> None:
    first, second = ScriptedModel(RateLimitError("a"), "Ho"), ScriptedModel("Hi")
    model = FallbackModel([first, second])
    assert [model.chat_stream(HI).collect().text for _ in range(2)] == ["Hi", "Ho"]


def test_an_empty_list_of_models_raises_a_value_error() -> None:
    with pytest.raises(ValueError, match="at least one model"):
        FallbackModel([])


def test_a_transient_refusal_falls_back_to_the_next_model() -> None:
    busy = InvalidRequestError("another request is running", status=409)
    assert FallbackModel([ScriptedModel(busy), ScriptedModel("yes")]).chat_stream(HI).collect().text == "yes"
