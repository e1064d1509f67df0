"""Every error that leaves this library, and whether trying again may help.

    CompletionError
    ├── ConfigurationError            no key, bad URL, unknown family
    ├── UnsupportedContentError       cannot be said on this provider's wire
    ├── TransportError                DNS, connect, TLS, reset
    │   ├── ConnectTimeoutError
    │   ├── IdleTimeoutError          silence on the socket, or no chunk for too long
    │   └── DeadlineExceededError     the stream as a whole took too long
    ├── ProviderError                 the provider said no
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
    ├── StreamError                   the body is not what it should be
    │   ├── TruncatedStreamError      it ended before the provider's own end of turn
    │   └── MalformedStreamError      bad JSON, not an event stream, an event over the size limit
    └── StreamCancelledError          somebody called cancel()

Errors of setting up are raised by ``chat_stream(req)`` itself, errors of the stream by ``next()``.
"""

from __future__ import annotations

import errno
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from completion.terminal import harmless

if TYPE_CHECKING:
    from completion.contract.chunks import Usage
    from completion.contract.messages import Message
    from completion.contract.turn import Turn

BODY_LIMIT = 64 * 1024
"""Bytes of a provider's body that an error keeps."""


@dataclass(frozen=True, slots=True)
class Permanent:
    """Trying again changes nothing."""


@dataclass(frozen=True, slots=True)
class Transient:
    """Trying again may help; ``retry_after`` is the server's own wish in seconds, None when it gave none."""

    retry_after: float | None = None


@runtime_checkable
class Retryable(Protocol):
    """An error that knows whether trying again may help. Third-party errors may implement it."""

    def retry_classification(self) -> Permanent | Transient: ...


class CompletionError(Exception):
    """The root: ``except CompletionError`` catches all that this library raises on purpose.

    Attributes, each None where it is not known: ``provider`` (the adapter family), ``model``, ``status``
    (of HTTP, or the provider's own number for an error inside a 200 body), ``code`` (the provider's word),
    ``message`` (what happened, without the prefix that ``str(error)`` adds), ``request_id``, ``retry_after``
    (seconds), ``body`` (text of the provider's answer, at most 64 KiB), ``should_retry`` (the provider's
    ``x-should-retry``), ``attempts`` (the calls that a RetryingModel made), ``partial`` (the ``Turn`` so far, after
    ``collect()``), and of a run ``partial_messages`` (those of its finished steps) and ``usage`` so far. Errors pickle.
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
        self.body = None if body is None else _cut(body)
        self.should_retry = should_retry
        self.attempts: int | None = None
        self.partial: Turn | None = None
        self.partial_messages: tuple[Message, ...] | None = None
        self.usage: Usage | None = None

    def __str__(self) -> str:
        """What happened and where, without control codes that a server put into it: a traceback prints this."""
        facts = [str(part) for part in (self.status, self.code) if part is not None]
        prefix = f"{self.provider}: " if self.provider else ""
        said = f" ({' '.join(facts)})" if facts else ""
        request = f" [request {self.request_id}]" if self.request_id else ""
        return harmless(f"{prefix}{self.message}{said}{request}")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return (_restored, (type(self), self.message, dict(self.__dict__)))

    def retry_classification(self) -> Permanent | Transient:
        """Whether the same call may succeed later. The provider's ``x-should-retry`` overrides our own opinion."""
        if self.should_retry is not None:
            return Transient(self.retry_after) if self.should_retry else Permanent()
        return Transient(self.retry_after) if self._is_transient() else Permanent()

    def _is_transient(self) -> bool:
        """True where the same call, made again later, may succeed."""
        return False


def _cut(body: str) -> str:
    if len(body) * 4 <= BODY_LIMIT:
        return body
    return body.encode("utf-8", "surrogatepass")[:BODY_LIMIT].decode("utf-8", "ignore")


def _restored(kind: type[CompletionError], message: str, facts: dict[str, Any]) -> CompletionError:
    """The error that was pickled; a subclass with another signature comes back as well."""
    error = kind.__new__(kind, message)
    Exception.__init__(error, message)
    error.__dict__.update(facts)
    return error


class ConfigurationError(CompletionError):
    """The call cannot be made as things are set up: no key, a bad URL, an unknown family, a missing extra."""


class UnsupportedContentError(CompletionError):
    """The request holds something that this provider's wire has no words for. Nothing was sent."""


class TransportError(CompletionError):
    """The network failed: DNS, connect, TLS, a reset, a body that broke off. The connection is closed."""

    def _is_transient(self) -> bool:
        return True


class ConnectTimeoutError(TransportError):
    """No connection within ``Timeout.connect`` seconds."""


class IdleTimeoutError(TransportError):
    """No byte for ``Timeout.read`` seconds, or no chunk for ``Timeout.stall`` seconds."""


class DeadlineExceededError(TransportError):
    """The stream as a whole took longer than ``Timeout.total`` seconds."""


class ProviderError(CompletionError):
    """The provider refused, by its HTTP status or by an error event inside a 200 body."""

    def _is_transient(self) -> bool:
        return self.status in (408, 409, 425)


class InvalidRequestError(ProviderError):
    """The provider does not accept the request as it stands."""


class ContextOverflowError(ProviderError):
    """Prompt and answer do not fit into the model's context window."""


class AuthenticationError(ProviderError):
    """The key is wrong, expired or missing."""


class PermissionDeniedError(ProviderError):
    """The key is known, and may not do this."""


class NotFoundError(ProviderError):
    """No such model, deployment or route."""


class RequestTooLargeError(ProviderError):
    """The request body is over the provider's size limit."""


class RateLimitError(ProviderError):
    """Too many requests or tokens for now."""

    def _is_transient(self) -> bool:
        return True


class QuotaExceededError(ProviderError):
    """The money or the quota is used up; waiting a little does not help."""

    def _is_transient(self) -> bool:
        return False


class ContentFilterError(ProviderError):
    """The provider's content filter refused the prompt."""


class OverloadedError(ProviderError):
    """The provider has no capacity at the moment."""

    def _is_transient(self) -> bool:
        return True


class ServerError(ProviderError):
    """The provider failed on its side."""

    def _is_transient(self) -> bool:
        return self.status not in (501, 505)


class StreamError(CompletionError):
    """The body of a 200 is not the stream that it should be.

    ``before_first_chunk`` is True when nothing had been yielded yet.
    """

    before_first_chunk = False


class TruncatedStreamError(StreamError):
    """The body ended before the provider's own end of turn: whatever was yielded is only a part."""

    def _is_transient(self) -> bool:
        return self.before_first_chunk


class MalformedStreamError(StreamError):
    """The body cannot be read: bad JSON, no event stream at all, an event over the size limit."""


class StreamCancelledError(CompletionError):
    """``cancel()`` was called on the stream or on the token that it was opened under."""


_SHORTAGES = {
    errno.EMFILE: "this process has too many files and connections open: close some, or raise its limit (ulimit -n)",
    errno.ENFILE: "the system has too many files open: end some programs, or raise its limit",
    errno.ENOSPC: "the disk is full: make room",
    errno.EDQUOT: "the disk quota is used up: make room",
    errno.EFBIG: "the file is larger than this process may write: raise its limit (ulimit -f)",
    errno.ENOMEM: "there is not enough memory: end some programs",
}


def shortage(exc: BaseException) -> str | None:
    """What the system has no more of, and what to do; None where the exception is about something else."""
    if isinstance(exc, MemoryError):
        return _SHORTAGES[errno.ENOMEM]
    return _SHORTAGES.get(exc.errno or 0) if isinstance(exc, OSError) else None


def stream_cancelled(provider: str | None, model: str | None) -> StreamCancelledError:
    """The error of a stream that somebody cancelled."""
    return StreamCancelledError("the stream was cancelled", provider=provider, model=model)


log = logging.getLogger(__name__)


def in_short(error: Exception) -> str:
    """What a log may say of the error: none of the provider's words, which may quote the prompt."""
    facts = [getattr(error, name, None) for name in ("status", "code")]
    request_id = getattr(error, "request_id", None)
    said = [type(error).__name__, *(str(fact) for fact in facts if fact is not None)]
    return " ".join([*said, f"[request {request_id}]"] if request_id else said)
