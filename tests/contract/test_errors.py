"""The errors: their classes, attributes and texts, pickling, and which ones are transient."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

from completion import (
    AuthenticationError,
    CompletionError,
    ConfigurationError,
    ConnectTimeoutError,
    ContentFilterError,
    ContextOverflowError,
    DeadlineExceededError,
    IdleTimeoutError,
    InvalidRequestError,
    MalformedStreamError,
    Message,
    NotFoundError,
    OverloadedError,
    Permanent,
    PermissionDeniedError,
    ProviderError,
    QuotaExceededError,
    RateLimitError,
    RequestTooLargeError,
    Retryable,
    ServerError,
    StreamCancelledError,
    StreamError,
    Transient,
    TransportError,
    TruncatedStreamError,
    Turn,
    UnsupportedContentError,
    Usage,
)

TREE: list[tuple[type[CompletionError], type[Exception]]] = [
    (CompletionError, Exception),
    (ConfigurationError, CompletionError),
    (UnsupportedContentError, CompletionError),
    (TransportError, CompletionError),
    (ConnectTimeoutError, TransportError),
    (IdleTimeoutError, TransportError),
    (DeadlineExceededError, TransportError),
    (ProviderError, CompletionError),
    (InvalidRequestError, ProviderError),
    (ContextOverflowError, ProviderError),
    (AuthenticationError, ProviderError),
    (PermissionDeniedError, ProviderError),
    (NotFoundError, ProviderError),
    (RequestTooLargeError, ProviderError),
    (RateLimitError, ProviderError),
    (QuotaExceededError, ProviderError),
    (ContentFilterError, ProviderError),
    (OverloadedError, ProviderError),
    (ServerError, ProviderError),
    (StreamError, CompletionError),
    (TruncatedStreamError, StreamError),
    (MalformedStreamError, StreamError),
    (StreamCancelledError, CompletionError),
]
KINDS = [kind for kind, _ in TREE]


@pytest.mark.parametrize(("kind", "parent"), TREE)
def test_each_error_class_has_this_parent(kind: type[CompletionError], parent: type[Exception]) -> None:
    assert kind.__bases__ == (parent,)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("copy_of", [lambda error: pickle.loads(pickle.dumps(error)), copy.copy, copy.deepcopy])
def test_every_error_pickles_with_all_its_attributes(kind: type[CompletionError], copy_of: Any) -> None:
    error = kind(
        "no",
        provider="acme",
        model="m1",
        status=429,
        code="rate_limited",
        request_id="r1",
        retry_after=1.5,
        body="{}",
        should_retry=True,
    )
    error.partial = Turn(Message.assistant("a"))
    error.__dict__["attempts"] = 3
    error.usage, error.partial_messages = Usage(1, 2), (Message.user("Hi"),)
    copied = copy_of(error)
    assert type(copied) is kind
    assert copied.args == ("no",)
    assert vars(copied) == {
        "message": "no",
        "provider": "acme",
        "model": "m1",
        "status": 429,
        "code": "rate_limited",
        "request_id": "r1",
        "retry_after": 1.5,
        "body": "{}",
        "should_retry": True,
        "partial": Turn(Message.assistant("a")),
        "attempts": 3,
        "partial_messages": (Message.user("Hi"),),
        "usage": Usage(1, 2),
    }


class AcmeError(ProviderError):
    def __init__(self, acme_code: int) -> None:
        super().__init__(f"acme said {acme_code}")
        self.acme_code = acme_code


def test_an_error_of_a_third_party_with_another_signature_pickles() -> None:
    copied = pickle.loads(pickle.dumps(AcmeError(7)))
    assert (type(copied), str(copied), copied.acme_code) == (AcmeError, "acme said 7", 7)


def test_before_first_chunk_is_pickled() -> None:
    error = TruncatedStreamError("short")
    error.before_first_chunk = True
    assert pickle.loads(pickle.dumps(error)).before_first_chunk


def test_unknown_attributes_are_none() -> None:
    assert vars(CompletionError("no")) == {
        "message": "no",
        "provider": None,
        "model": None,
        "status": None,
        "code": None,
        "request_id": None,
        "retry_after": None,
        "body": None,
        "should_retry": None,
        "attempts": None,
        "partial": None,
        "partial_messages": None,
        "usage": None,
    }


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (CompletionError("no"), "no"),
        (CompletionError("no", provider="acme"), "acme: no"),
        (CompletionError("no", status=404), "no (404)"),
        (CompletionError("no", code="gone"), "no (gone)"),
        (
            NotFoundError("no", provider="acme", model="m", status=404, code="gone", request_id="r", body="secret"),
            "acme: no (404 gone) [request r]",
        ),
    ],
)
def test_the_text_contains_provider_message_status_and_code(error: CompletionError, text: str) -> None:
    assert str(error) == text


def test_the_repr_of_an_error_is_its_class_and_its_text() -> None:
    assert repr(NotFoundError("no", provider="acme", status=404)) == "NotFoundError('acme: no (404)')"


@pytest.mark.parametrize(
    ("body", "kept"),
    [
        (None, None),
        ("", ""),
        ("a" * 70_000, "a" * 65_536),
        ("€" * 30_000, "€" * 21_845),  # three bytes each; an incomplete character at the end is dropped
        ("\ud800" + "a" * 10, "\ud800" + "a" * 10),
    ],
)
def test_a_body_is_cut_to_64_kib(body: str | None, kept: str | None) -> None:
    assert CompletionError("no", body=body).body == kept


def test_half_a_surrogate_pair_is_dropped_from_a_long_body() -> None:
    assert CompletionError("no", body="\ud800" + "a" * 70_000).body == "a" * 65_533


RETRY, GIVE_UP = Transient(), Permanent()


def stream_error(error: StreamError, before_first_chunk: bool) -> StreamError:
    error.before_first_chunk = before_first_chunk
    return error


@pytest.mark.parametrize(
    ("error", "classification"),
    [
        (CompletionError("x"), GIVE_UP),
        (ConfigurationError("x"), GIVE_UP),
        (UnsupportedContentError("x"), GIVE_UP),
        (TransportError("x"), RETRY),
        (ConnectTimeoutError("x"), RETRY),
        (IdleTimeoutError("x"), RETRY),
        (DeadlineExceededError("x"), RETRY),
        (ProviderError("x"), GIVE_UP),
        (InvalidRequestError("x", status=400), GIVE_UP),
        (InvalidRequestError("x", status=409), RETRY),
        (InvalidRequestError("x", status=425), RETRY),
        (ServerError("x", status=408), RETRY),
        (ContextOverflowError("x", status=400), GIVE_UP),
        (AuthenticationError("x", status=401), GIVE_UP),
        (PermissionDeniedError("x", status=403), GIVE_UP),
        (NotFoundError("x", status=404), GIVE_UP),
        (RequestTooLargeError("x", status=413), GIVE_UP),
        (RateLimitError("x", status=429), RETRY),
        (RateLimitError("x", status=429, retry_after=2.5), Transient(2.5)),
        (QuotaExceededError("x", status=429, retry_after=2.5), GIVE_UP),
        (QuotaExceededError("x", status=402), GIVE_UP),
        (ContentFilterError("x", status=400), GIVE_UP),
        (OverloadedError("x", status=529), RETRY),
        (OverloadedError("x", status=503, retry_after=0.0), Transient(0.0)),
        (OverloadedError("x"), RETRY),
        (ServerError("x"), RETRY),
        (ServerError("x", status=500), RETRY),
        (ServerError("x", status=501), GIVE_UP),
        (ServerError("x", status=502), RETRY),
        (ServerError("x", status=504), RETRY),
        (ServerError("x", status=505), GIVE_UP),
        (ServerError("x", status=520), RETRY),
        (StreamError("x"), GIVE_UP),
        (stream_error(TruncatedStreamError("x"), before_first_chunk=True), RETRY),
        (stream_error(TruncatedStreamError("x"), before_first_chunk=False), GIVE_UP),
        (stream_error(MalformedStreamError("x"), before_first_chunk=True), GIVE_UP),
        (StreamCancelledError("x"), GIVE_UP),
        # x-should-retry overrides the rules above
        (InvalidRequestError("x", status=400, should_retry=True, retry_after=3.0), Transient(3.0)),
        (QuotaExceededError("x", status=429, should_retry=True), RETRY),
        (RateLimitError("x", status=429, should_retry=False, retry_after=3.0), GIVE_UP),
        (ServerError("x", status=500, should_retry=False), GIVE_UP),
    ],
)
def test_each_error_is_permanent_or_transient(error: CompletionError, classification: Permanent | Transient) -> None:
    assert error.retry_classification() == classification


def test_an_error_of_a_third_party_is_retryable_without_importing_us() -> None:
    class TheirError(Exception):
        def retry_classification(self) -> Permanent | Transient:
            return Transient(1.0)

    assert isinstance(TheirError(), Retryable)
    assert isinstance(CompletionError("x"), Retryable)
    assert not isinstance(Exception(), Retryable)
