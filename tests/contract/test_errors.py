"""The tree of errors: facts, texts, pickling, and whether trying again may help."""

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
def test_the_tree_is_as_drawn(kind: type[CompletionError], parent: type[Exception]) -> None:
    assert kind.__bases__ == (parent,)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("travel", [lambda error: pickle.loads(pickle.dumps(error)), copy.copy, copy.deepcopy])
def test_every_error_pickles_with_all_its_facts(kind: type[CompletionError], travel: Any) -> None:
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
    copied = travel(error)
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


def test_a_truncated_stream_remembers_whether_it_had_begun() -> None:
    error = TruncatedStreamError("short")
    error.before_first_chunk = True
    assert pickle.loads(pickle.dumps(error)).before_first_chunk


def test_facts_that_are_not_known_are_none() -> None:
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
def test_the_text_says_who_what_and_with_which_code(error: CompletionError, text: str) -> None:
    assert str(error) == text


def test_a_repr_is_the_class_and_the_text() -> None:
    assert repr(NotFoundError("no", provider="acme", status=404)) == "NotFoundError('acme: no (404)')"


@pytest.mark.parametrize(
    ("body", "kept"),
    [
        (None, None),
        ("", ""),
        ("a" * 70_000, "a" * 65_536),
        ("€" * 30_000, "€" * 21_845),  # three bytes each, and half of one is none
        ("\ud800" + "a" * 10, "\ud800" + "a" * 10),
    ],
)
def test_a_body_is_cut_to_64_kib(body: str | None, kept: str | None) -> None:
    assert CompletionError("no", body=body).body == kept


def test_half_a_surrogate_pair_in_a_long_body_does_no_harm() -> None:
    assert CompletionError("no", body="\ud800" + "a" * 70_000).body == "a" * 65_533


LATER, NEVER = Transient(), Permanent()


def begun(error: StreamError, before_first_chunk: bool) -> StreamError:
    error.before_first_chunk = before_first_chunk
    return error


@pytest.mark.parametrize(
    ("error", "classification"),
    [
        (CompletionError("x"), NEVER),
        (ConfigurationError("x"), NEVER),
        (UnsupportedContentError("x"), NEVER),
        (TransportError("x"), LATER),
        (ConnectTimeoutError("x"), LATER),
        (IdleTimeoutError("x"), LATER),
        (DeadlineExceededError("x"), LATER),
        (ProviderError("x"), NEVER),
        (InvalidRequestError("x", status=400), NEVER),
        (InvalidRequestError("x", status=409), LATER),
        (InvalidRequestError("x", status=425), LATER),
        (ServerError("x", status=408), LATER),
        (ContextOverflowError("x", status=400), NEVER),
        (AuthenticationError("x", status=401), NEVER),
        (PermissionDeniedError("x", status=403), NEVER),
        (NotFoundError("x", status=404), NEVER),
        (RequestTooLargeError("x", status=413), NEVER),
        (RateLimitError("x", status=429), LATER),
        (RateLimitError("x", status=429, retry_after=2.5), Transient(2.5)),
        (QuotaExceededError("x", status=429, retry_after=2.5), NEVER),
        (QuotaExceededError("x", status=402), NEVER),
        (ContentFilterError("x", status=400), NEVER),
        (OverloadedError("x", status=529), LATER),
        (OverloadedError("x", status=503, retry_after=0.0), Transient(0.0)),
        (OverloadedError("x"), LATER),
        (ServerError("x"), LATER),
        (ServerError("x", status=500), LATER),
        (ServerError("x", status=501), NEVER),
        (ServerError("x", status=502), LATER),
        (ServerError("x", status=504), LATER),
        (ServerError("x", status=505), NEVER),
        (ServerError("x", status=520), LATER),
        (StreamError("x"), NEVER),
        (begun(TruncatedStreamError("x"), before_first_chunk=True), LATER),
        (begun(TruncatedStreamError("x"), before_first_chunk=False), NEVER),
        (begun(MalformedStreamError("x"), before_first_chunk=True), NEVER),
        (StreamCancelledError("x"), NEVER),
        # x-should-retry has the last word
        (InvalidRequestError("x", status=400, should_retry=True, retry_after=3.0), Transient(3.0)),
        (QuotaExceededError("x", status=429, should_retry=True), LATER),
        (RateLimitError("x", status=429, should_retry=False, retry_after=3.0), NEVER),
        (ServerError("x", status=500, should_retry=False), NEVER),
    ],
)
def test_an_error_knows_whether_trying_again_may_help(
    error: CompletionError, classification: Permanent | Transient
) -> None:
    assert error.retry_classification() == classification


def test_an_error_of_a_third_party_is_retryable_without_importing_us() -> None:
    class TheirError(Exception):
        def retry_classification(self) -> Permanent | Transient:
            return Transient(1.0)

    assert isinstance(TheirError(), Retryable)
    assert isinstance(CompletionError("x"), Retryable)
    assert not isinstance(Exception(), Retryable)
