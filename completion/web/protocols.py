"""Encodes chunks, errors and keep-alives as bytes. No I/O.

    begin -> chunk -> chunk -> …  -> end, or failure

``Rendering`` calls a protocol, and makes sure that only a complete turn looks complete to the client.
"""

from __future__ import annotations

import json
import logging
import math
import typing
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar

from completion.contract.chunks import StreamChunk, TextDelta, TurnFinished
from completion.contract.errors import (
    CompletionError,
    ContentFilterError,
    ContextOverflowError,
    OutputError,
    OverloadedError,
    RateLimitError,
    StreamCancelledError,
    StreamError,
    TransportError,
    TruncatedStreamError,
    in_short,
)
from completion.contract.messages import ToolCallBlock
from completion.contract.run import Abort, RunFinished, RunStarted, StepFinished, StepStarted

log = logging.getLogger(__name__)

HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    # no-cache: a cache must not store it. no-transform: a proxy must not compress it, because a compressor waits until
    # its buffer is full.
    "Cache-Control": "no-cache, no-transform",
    # nginx buffers a response unless this is set.
    "X-Accel-Buffering": "no",
    # Compressing middleware, such as Django's GZipMiddleware, skips a response that already has an encoding.
    "Content-Encoding": "identity",
    # Without it, a browser waits for the first kilobyte to guess the type of the content.
    "X-Content-Type-Options": "nosniff",
}
KEEP_ALIVE = b": keep-alive\n\n"
"""A comment. Every reader of server-sent events skips it."""

_SENTENCES: tuple[tuple[type[Exception] | tuple[type[Exception], ...], str], ...] = (
    ((RateLimitError, OverloadedError), "The model is busy. Please try again in a moment."),
    (ContextOverflowError, "The conversation is too long for this model."),
    (OutputError, "The answer does not have the expected form."),
    (ContentFilterError, "The provider's content filter stopped this."),
    (StreamCancelledError, "The answer was stopped."),
    ((TransportError, StreamError), "The connection to the model broke off. The answer is not complete."),
)


@dataclass(frozen=True, slots=True)
class ErrorInfo:
    """What the client reads about an error. ``retry_after``: the seconds that the provider asks to wait."""

    type: str
    message: str
    retry_after: float | None = None


def explain(error: Exception) -> str:
    """A sentence that tells the kind of error, without quoting the provider."""
    known = (sentence for kind, sentence in _SENTENCES if isinstance(error, kind))
    return next(known, "The answer could not be completed.")


class Protocol(typing.Protocol):
    """How to encode one stream. Each stream needs a new instance.

    ``headers``: headers that differ from HEADERS. ``keep_alive``: bytes that may be sent at any time and that clients
    skip; empty if the protocol has none.
    """

    headers: ClassVar[dict[str, str]]
    keep_alive: ClassVar[bytes]

    def begin(self) -> bytes: ...

    def chunk(self, chunk: StreamChunk) -> bytes: ...

    def end(self) -> bytes: ...

    def failure(self, error: ErrorInfo) -> bytes: ...


class Sse:
    headers: ClassVar[dict[str, str]] = {}
    keep_alive: ClassVar[bytes] = KEEP_ALIVE

    def begin(self) -> bytes:
        return b""

    def chunk(self, chunk: StreamChunk) -> bytes:
        return b"data: %b\n\n" % _as_json(chunk)

    def end(self) -> bytes:
        return b"data: [DONE]\n\n"

    def failure(self, error: ErrorInfo) -> bytes:
        return b"data: %b\n\n" % json_bytes({"type": "error", "error": asdict(error)})


class NdJson:
    headers: ClassVar[dict[str, str]] = {"Content-Type": "application/x-ndjson; charset=utf-8"}
    keep_alive: ClassVar[bytes] = b" "

    def begin(self) -> bytes:
        return b""

    def chunk(self, chunk: StreamChunk) -> bytes:
        return b"%b\n" % _as_json(chunk)

    def end(self) -> bytes:
        return b""

    def failure(self, error: ErrorInfo) -> bytes:
        return b"%b\n" % json_bytes({"type": "error", "error": asdict(error)})


class Text:
    headers: ClassVar[dict[str, str]] = {"Content-Type": "text/plain; charset=utf-8"}
    keep_alive: ClassVar[bytes] = b""

    def __init__(self) -> None:
        self._has_text = self._needs_empty_line = False

    def begin(self) -> bytes:
        return b""

    def chunk(self, chunk: StreamChunk) -> bytes:
        if isinstance(chunk, StepStarted):  # an empty line between the turns of a run
            self._needs_empty_line = self._has_text
        if not isinstance(chunk, TextDelta):
            return b""
        separator = b"\n\n" if self._needs_empty_line else b""
        self._needs_empty_line, self._has_text = False, True
        return separator + chunk.delta.encode("utf-8", "replace")

    def end(self) -> bytes:
        return b""

    def failure(self, error: ErrorInfo) -> bytes:
        return f"\n\n[{error.message}]\n".encode("utf-8", "replace")


class Rendering:
    """Encodes one stream with one protocol, and checks that the stream is complete."""

    def __init__(self, protocol: Protocol, on_error: Callable[[Exception], str]) -> None:
        self._protocol = protocol
        self._on_error = on_error
        self._final_type: type[StreamChunk] = TurnFinished
        self._is_complete = False
        self._abort: Abort | None = None
        self.has_ended = False
        """``end()`` was called: the last bytes, of a complete stream or of a failure, exist."""
        self.headers = {**HEADERS, **protocol.headers}
        self.keep_alive = protocol.keep_alive
        self.breaks_off = isinstance(protocol, Text)
        """After a failure, the body must raise, so that the server breaks the transfer off: plain text cannot mark an
        error."""

    def begin(self) -> bytes:
        return self._protocol.begin()

    def chunk(self, chunk: StreamChunk) -> bytes:
        if not isinstance(chunk, StreamChunk):  # a growing value; its stream raises unless it ends well
            if not isinstance(self._protocol, Sse | NdJson):
                raise TypeError("the growing values of structured() are for web.sse and web.ndjson only")
            self._is_complete = True
        elif isinstance(chunk, RunStarted):
            self._final_type = RunFinished
        elif isinstance(chunk, self._final_type):
            self._is_complete = True
            self._abort = getattr(chunk, "abort", None)
        return self._protocol.chunk(chunk)

    def end(self, error: Exception | None) -> tuple[bytes, Exception | None]:
        """The last bytes, and the error that they report.

        ``error`` is what the stream raised. If it is None but the stream ended too early, a TruncatedStreamError is
        reported.
        """
        self.has_ended = True
        if error is None and not self._is_complete:
            error = TruncatedStreamError(f"the chunks ended without a {self._final_type.__name__}")
        if error is None and self._abort is not None and self.breaks_off:
            message = f"The answer was cut short: {self._abort.message}"
            error = StreamCancelledError(message)
            return self._protocol.failure(ErrorInfo("Abort", message)), error
        if error is None:
            return self._protocol.end(), None
        if isinstance(error, CompletionError):
            log.warning("a stream to a client ended with %s", in_short(error))
        else:
            log.error("a stream to a client failed", exc_info=error)
        info = ErrorInfo(type(error).__name__, self._explained(error), _seconds(getattr(error, "retry_after", None)))
        return self._protocol.failure(info), error

    def _explained(self, error: Exception) -> str:
        try:
            return str(self._on_error(error))
        except Exception:
            log.exception("on_error failed")
            return explain(error)


def _seconds(given: Any) -> float | None:
    """The value if it is a number that JSON can contain, else None: a third party's error may have anything here."""
    is_number = isinstance(given, int | float) and not isinstance(given, bool)
    return given if is_number and math.isfinite(given) else None


_encoded = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
_escaped = json.JSONEncoder(allow_nan=False, separators=(",", ":")).encode


def json_bytes(value: Any) -> bytes:
    """Compact JSON.

    Raises:
        ValueError: the value contains NaN or an infinity, which JSON cannot contain.
    """
    text = _encoded(value)
    try:
        return text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which needs an escape: UTF-8 cannot encode it
        return _escaped(value).encode()


def _as_json(chunk: StreamChunk) -> bytes:
    if type(chunk) is TextDelta:  # nearly every chunk is one, and the codec of to_json() takes ten times as long
        return json_bytes({"type": "text_delta", "delta": chunk.delta})
    if not isinstance(chunk, StreamChunk):  # a growing value of structured()
        return json_bytes(chunk)
    # The history and the output stay on the server: they contain what guards have hidden from the client.
    if isinstance(chunk, RunFinished):
        # Of the calls that wait, only their ids and names: the client has their arguments from the ToolCallFinished.
        pending = tuple(ToolCallBlock(call.call_id, call.name, {}) for call in chunk.pending)
        chunk = replace(chunk, new_messages=(), output=None, pending=pending)
    elif isinstance(chunk, StepFinished):
        chunk = replace(chunk, new_messages=())
    return chunk.to_json().encode()
