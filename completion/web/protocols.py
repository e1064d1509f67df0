"""What is sent for a chunk, for an error and for a silence: bytes, and no I/O.

    begin -> piece -> piece -> …  -> end, or failure

``Rendering`` drives a protocol, and sees to it that only a turn which ended well looks so.
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
    OverloadedError,
    RateLimitError,
    StreamCancelledError,
    StreamError,
    TransportError,
    TruncatedStreamError,
    in_short,
)
from completion.contract.run import Abort, RunFinished, RunStarted, StepFinished, StepStarted

log = logging.getLogger(__name__)

HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    # A cache would keep it, a compressor hold it back until its buffer is full.
    "Cache-Control": "no-cache, no-transform",
    # nginx
    "X-Accel-Buffering": "no",
    # The gzip middleware of Django, and its like, leave alone what has an encoding.
    "Content-Encoding": "identity",
    # Without it a browser holds the first kilobyte back, to guess what it is.
    "X-Content-Type-Options": "nosniff",
}
KEEP_ALIVE = b": keep-alive\n\n"
"""A comment, which every reader of server-sent events skips."""

_WORDS: tuple[tuple[type[Exception] | tuple[type[Exception], ...], str], ...] = (
    ((RateLimitError, OverloadedError), "The model is busy. Please try again in a moment."),
    (ContextOverflowError, "The conversation is too long for this model."),
    (ContentFilterError, "The provider's content filter stopped this."),
    (StreamCancelledError, "The answer was stopped."),
    ((TransportError, StreamError), "The connection to the model broke off. The answer is not complete."),
)


@dataclass(frozen=True, slots=True)
class ErrorInfo:
    """What a client may know of an error. ``retry_after``: seconds that the provider asked for."""

    type: str
    message: str
    retry_after: float | None = None


def explain(error: Exception) -> str:
    """The kind of the error in a sentence, and none of the provider's words."""
    return next((words for kind, words in _WORDS if isinstance(error, kind)), "The answer could not be completed.")


class Protocol(typing.Protocol):
    """How one stream is said; made anew for each.

    ``headers``: what differs from those of server-sent events. ``keep_alive``: what may be sent at any moment and means
    nothing; empty where there is no such thing.
    """

    headers: ClassVar[dict[str, str]]
    keep_alive: ClassVar[bytes]

    def begin(self) -> bytes: ...

    def piece(self, chunk: StreamChunk) -> bytes: ...

    def end(self) -> bytes: ...

    def failure(self, error: ErrorInfo) -> bytes: ...


class Sse:
    headers: ClassVar[dict[str, str]] = {}
    keep_alive: ClassVar[bytes] = KEEP_ALIVE

    def begin(self) -> bytes:
        return b""

    def piece(self, chunk: StreamChunk) -> bytes:
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

    def piece(self, chunk: StreamChunk) -> bytes:
        return b"%b\n" % _as_json(chunk)

    def end(self) -> bytes:
        return b""

    def failure(self, error: ErrorInfo) -> bytes:
        return b"%b\n" % json_bytes({"type": "error", "error": asdict(error)})


class Text:
    headers: ClassVar[dict[str, str]] = {"Content-Type": "text/plain; charset=utf-8"}
    keep_alive: ClassVar[bytes] = b""

    def __init__(self) -> None:
        self._has_text = self._is_apart = False

    def begin(self) -> bytes:
        return b""

    def piece(self, chunk: StreamChunk) -> bytes:
        if isinstance(chunk, StepStarted):  # the turns of a run are apart
            self._is_apart = self._has_text
        if not isinstance(chunk, TextDelta):
            return b""
        between, self._is_apart, self._has_text = b"\n\n" if self._is_apart else b"", False, True
        return between + chunk.delta.encode("utf-8", "replace")

    def end(self) -> bytes:
        return b""

    def failure(self, error: ErrorInfo) -> bytes:
        return f"\n\n[{error.message}]\n".encode("utf-8", "replace")


class Rendering:
    """One stream in one protocol."""

    def __init__(self, protocol: Protocol, on_error: Callable[[Exception], str]) -> None:
        self._protocol = protocol
        self._on_error = on_error
        self._last: type[StreamChunk] = TurnFinished
        self._is_complete = False
        self._abort: Abort | None = None
        self.has_ended = False
        """The last bytes were said: those of a good end, or of a failure."""
        self.headers = {**HEADERS, **protocol.headers}
        self.keep_alive = protocol.keep_alive
        self.breaks_off = isinstance(protocol, Text)
        """After a failure the transfer must not end well: the protocol has no word for an error."""

    def begin(self) -> bytes:
        return self._protocol.begin()

    def piece(self, chunk: StreamChunk) -> bytes:
        if isinstance(chunk, RunStarted):
            self._last = RunFinished
        elif isinstance(chunk, self._last):
            self._is_complete = True
            self._abort = getattr(chunk, "abort", None)
        return self._protocol.piece(chunk)

    def end(self, error: Exception | None) -> tuple[bytes, Exception | None]:
        """The last bytes, and the error that they tell of: also where chunks just end."""
        self.has_ended = True
        if error is None and not self._is_complete:
            error = TruncatedStreamError(f"the chunks ended without a {self._last.__name__}")
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
        told = ErrorInfo(type(error).__name__, self._explained(error), _seconds(getattr(error, "retry_after", None)))
        return self._protocol.failure(told), error

    def _explained(self, error: Exception) -> str:
        try:
            return str(self._on_error(error))
        except Exception:
            log.exception("on_error failed")
            return explain(error)


def _seconds(given: Any) -> float | None:
    """As JSON can say them; an error may be of anybody's making."""
    is_number = isinstance(given, int | float) and not isinstance(given, bool)
    return given if is_number and math.isfinite(given) else None


_encoded = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
_escaped = json.JSONEncoder(allow_nan=False, separators=(",", ":")).encode


def json_bytes(value: Any) -> bytes:
    """As compact JSON.

    Raises:
        ValueError: NaN or an infinity, for which JSON has no word.
    """
    text = _encoded(value)
    try:
        return text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair: only an escape can carry it
        return _escaped(value).encode()


def _as_json(chunk: StreamChunk) -> bytes:
    if type(chunk) is TextDelta:  # nearly all of them are; the codec takes ten times as long
        return json_bytes({"type": "text_delta", "delta": chunk.delta})
    if isinstance(chunk, StepFinished | RunFinished):  # the history is the server's: what guards have hidden is in it
        chunk = replace(chunk, new_messages=())
    return chunk.to_json().encode()
