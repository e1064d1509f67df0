"""All errors of this library, and whether a retry may help.

    CompletionError
    ├── ConfigurationError            no key, bad URL, unknown family
    ├── UnsupportedContentError       this provider's API does not support it
    ├── TransportError                DNS, connect, TLS, reset
    │   ├── ConnectTimeoutError
    │   ├── IdleTimeoutError          silence on the socket, or no chunk for too long
    │   └── DeadlineExceededError     the whole stream took too long
    ├── ProviderError                 the provider refused
    │   ├── InvalidRequestError
    │   ├── ContextOverflowError
    │   ├── AuthenticationError
    │   ├── PermissionDeniedError
    │   ├── NotFoundError
    │   ├── RequestTooLargeError
    │   ├── RateLimitError
    │   ├── QuotaExceededError
    │   ├── ContentFilterError
    │   ├── OverloadedError
    │   └── ServerError
    ├── StreamError                   the body is not a valid stream
    │   ├── TruncatedStreamError      it ended before the provider's own end of turn
    │   └── MalformedStreamError      bad JSON, not an event stream, an event over the size limit
    ├── StreamCancelledError          cancel() was called
    └── OutputError                   the answer is not of the type that was asked for

``chat_stream(req)`` raises the errors that happen before the stream is open; ``next()`` raises the later ones.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from completion.terminal import harmless

if TYPE_CHECKING:
    from completion.contract.chunks import FinishReason, Usage
    from completion.contract.messages import Message
    from completion.contract.turn import Turn

BODY_LIMIT = 64 * 1024
"""Bytes of a provider's body that an error keeps."""


@dataclass(frozen=True, slots=True)
class Permanent:
    """A retry would fail in the same way."""


@dataclass(frozen=True, slots=True)
class Transient:
    """A retry may succeed. ``retry_after``: how many seconds the server asks to wait; None if it does not say."""

    retry_after: float | None = None


@runtime_checkable
class Retryable(Protocol):
    """An error that says whether a retry may help. Errors of a third party may implement it."""

    def retry_classification(self) -> Permanent | Transient: ...


class CompletionError(Exception):
    """The base class of all errors of this library. Errors pickle.

    Attributes, each None if unknown:

    * ``provider``: the adapter family.
    * ``model``: the id of the model.
    * ``status``: the HTTP status, or the provider's own number for an error inside a 200 body.
    * ``code``: the provider's error code.
    * ``message``: what happened; ``str(error)`` adds the other facts.
    * ``request_id``: the id that the provider gave to the request.
    * ``retry_after``: how many seconds the server asks to wait.
    * ``body``: the text of the provider's answer, at most 64 KiB.
    * ``should_retry``: the provider's ``x-should-retry`` header.
    * ``attempts``: how many times a RetryingModel called the model.
    * ``partial``: the ``Turn`` so far, set by ``collect()`` and ``text_stream``.
    * ``partial_messages``: of a run, the messages of its finished steps.
    * ``usage``: of a run, the tokens so far.
    """

    def __init__(
        self,
        message: str,
        *,
        provider: str | None = None,
        model: str | None = None,
        status: int | None = None,
        code: str | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
        body: str | None = None,
        should_retry: bool | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.provider = provider
        self.model = model
        self.status = status
        self.code = code
        self.request_id = request_id
        self.retry_after = retry_after
        self.body: str | None = None if body is None else _cut(body)
        self.should_retry = should_retry
        self.attempts: int | None = None
        self.partial: Turn | None = None
        self.partial_messages: tuple[Message, ...] | None = None
        self.usage: Usage | None = None

    def __str__(self) -> str:
        """Provider, message, status, code and request id, without control codes: a terminal prints this."""
        facts = [str(part) for part in (self.status, self.code) if part is not None]
        prefix = f"{self.provider}: " if self.provider else ""
        details = f" ({' '.join(facts)})" if facts else ""
        request = f" [request {self.request_id}]" if self.request_id else ""
        return harmless(f"{prefix}{self.message}{details}{request}")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return (_restored, (type(self), self.message, dict(self.__dict__)))

    def retry_classification(self) -> Permanent | Transient:
        """Whether the same call may succeed later. The provider's ``x-should-retry`` header overrides our rule."""
        if self.should_retry is not None:
            return Transient(self.retry_after) if self.should_retry else Permanent()
        return Transient(self.retry_after) if self._is_transient() else Permanent()

    def _is_transient(self) -> bool:
        """True if the same call may succeed later."""
        return False


def _cut(body: str) -> str:
    """The first BODY_LIMIT bytes; half a character at the end is dropped."""
    if len(body) * 4 <= BODY_LIMIT:  # UTF-8 needs at most four bytes a character, so most bodies need no encoding
        return body
    return body.encode("utf-8", "surrogatepass")[:BODY_LIMIT].decode("utf-8", "ignore")


def _restored(kind: type[CompletionError], message: str, facts: dict[str, Any]) -> CompletionError:
    """Unpickle an error. ``__init__`` is not called: a subclass may have another signature."""
    error = kind.__new__(kind, message)
    Exception.__init__(error, message)
    error.__dict__.update(facts)
    return error


class ConfigurationError(CompletionError):
    """The setup is incomplete or wrong: no key, a bad URL, an unknown family, a missing extra."""


class UnsupportedContentError(CompletionError):
    """The request contains something that this provider's API does not support. Nothing was sent."""


class TransportError(CompletionError):
    """The network failed: DNS, connect, TLS, a reset, a body that was cut off. The connection is closed."""

    def _is_transient(self) -> bool:
        return True


class ConnectTimeoutError(TransportError):
    """No connection within ``Timeout.connect`` seconds."""


class IdleTimeoutError(TransportError):
    """No byte for ``Timeout.read`` seconds, or no chunk for ``Timeout.stall`` seconds."""


class DeadlineExceededError(TransportError):
    """The whole stream took longer than ``Timeout.total`` seconds."""


class ProviderError(CompletionError):
    """The provider refused the request: an HTTP status other than 2xx, or an error event inside a 200 body."""

    def _is_transient(self) -> bool:
        # 408 Request Timeout, 409 Conflict (providers use it for a lock), 425 Too Early.
        return self.status in (408, 409, 425)


class InvalidRequestError(ProviderError):
    """The provider says that the request is wrong."""


class ContextOverflowError(ProviderError):
    """The prompt and the answer together are longer than the model's context window."""


class AuthenticationError(ProviderError):
    """The key is wrong, expired or missing."""


class PermissionDeniedError(ProviderError):
    """The key is valid, but is not allowed to do this."""


class NotFoundError(ProviderError):
    """The model, deployment or route does not exist."""


class RequestTooLargeError(ProviderError):
    """The request body is larger than the provider allows."""


class RateLimitError(ProviderError):
    """Too many requests or tokens in a short time."""

    def _is_transient(self) -> bool:
        return True


class QuotaExceededError(ProviderError):
    """The quota or the credit is used up. A short wait does not help."""

    def _is_transient(self) -> bool:
        return False


class ContentFilterError(ProviderError):
    """The provider's content filter refused the prompt."""


class OverloadedError(ProviderError):
    """The provider has no capacity now."""

    def _is_transient(self) -> bool:
        return True


class ServerError(ProviderError):
    """The provider failed on its side."""

    def _is_transient(self) -> bool:
        return self.status not in (501, 505)  # Not Implemented, HTTP Version Not Supported: a retry does not help


class StreamError(CompletionError):
    """The body of a 200 response is not a valid stream.

    ``before_first_chunk`` is True if no chunk was yielded before it.
    """

    before_first_chunk = False


class TruncatedStreamError(StreamError):
    """The body ended before the provider's own end of turn: the chunks so far are an incomplete answer."""

    def _is_transient(self) -> bool:
        return self.before_first_chunk  # later, a retry would yield the same text twice


class MalformedStreamError(StreamError):
    """The body cannot be read: bad JSON, not an event stream, an event over the size limit."""


class StreamCancelledError(CompletionError):
    """``cancel()`` was called on the stream, or on a CancelToken that it is bound to."""


class OutputError(CompletionError):
    """The answer is not of the type that was asked for: it does not validate, is cut off, refused or empty.

    ``text`` is the text of the answer, or the raw arguments of the call in tool mode. ``errors`` are the problems, one
    sentence each. ``reason`` is why the turn ended, and ``partial`` the turn.
    """

    def __init__(
        self,
        message: str,
        *,
        text: str = "",
        errors: Sequence[str] = (),
        reason: FinishReason | None = None,
        provider: str | None = None,
        model: str | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(message, provider=provider, model=model, request_id=request_id)
        self.text = text
        self.errors = tuple(errors)
        self.reason = reason


_SHORTAGES = {
    errno.EMFILE: "this process has too many files and connections open: close some, or raise its limit (ulimit -n)",
    errno.ENFILE: "the system has too many files open: end some programs, or raise its limit",
    errno.ENOSPC: "the disk is full: make room",
    errno.EDQUOT: "the disk quota is used up: make room",
    errno.EFBIG: "the file is larger than this process may write: raise its limit (ulimit -f)",
    errno.ENOMEM: "there is not enough memory: end some programs",
}


def shortage(exc: BaseException) -> str | None:
    """Which resource of the system is used up, and what to do; None if the exception has another reason."""
    if isinstance(exc, MemoryError):
        return _SHORTAGES[errno.ENOMEM]
    return _SHORTAGES.get(exc.errno or 0) if isinstance(exc, OSError) else None


def stream_cancelled(provider: str | None, model: str | None) -> StreamCancelledError:
    """The error that a cancelled stream raises."""
    return StreamCancelledError("the stream was cancelled", provider=provider, model=model)


def in_short(error: Exception) -> str:
    """The error for a log line: class, status, code and request id, not the message, which may quote the prompt."""
    # getattr: the error may be a third party's, without these attributes.
    facts = [getattr(error, name, None) for name in ("status", "code")]
    request_id = getattr(error, "request_id", None)
    words = [type(error).__name__, *(str(fact) for fact in facts if fact is not None)]
    return " ".join([*words, f"[request {request_id}]"] if request_id else words)
