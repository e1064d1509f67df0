"""The span and the metrics of one operation: a run, a turn of the model, or a tool call.

    Operation                   begins its span when it is made; ``end`` sets the last attributes, ends the span, and
                                records the metrics, once
    ChatOperation(Operation)    is given each chunk of a turn

An error of OpenTelemetry, of an exporter or of this module is logged and never reaches the caller (``log_failures``).
"""

from __future__ import annotations

import functools
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from completion.contract.chunks import StreamChunk, TurnFinished
from completion.contract.collect import TurnSoFar
from completion.contract.errors import ConfigurationError
from completion.contract.packages import install_command
from completion.contract.request import ChatRequest
from completion.contract.turn import Turn
from completion.otel.attributes import (
    encodable,
    encodable_text,
    error_description,
    error_type,
    finish_reason,
    input_attributes,
    output_attributes,
    provider_name,
    request_attributes,
    server_attributes,
    usage_attributes,
    without_none,
)
from completion.otel.metrics import Metrics, metric_names
from completion.version import __version__

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import Tracer, TracerProvider

log = logging.getLogger(__name__)

# How long a finalizer waits for another thread to end the span of a dropped stream.
_FINALIZER_WAIT_S = 0.2


@dataclass(frozen=True, slots=True)
class Instruments:
    """What an Operation needs of OpenTelemetry. ``trace`` and ``context``: modules of its API."""

    trace: Any
    context: Any
    tracer: Tracer
    metrics: Metrics


def make_instruments(tracer_provider: TracerProvider | None, meter_provider: MeterProvider | None) -> Instruments:
    """The instruments of these providers; None: the global provider.

    Raises:
        ConfigurationError: the package opentelemetry-api is not installed.
    """
    return _instruments(tracer_provider, meter_provider, metric_names())


@functools.lru_cache(maxsize=32)
def _instruments(
    tracer_provider: TracerProvider | None, meter_provider: MeterProvider | None, names: tuple[str, ...]
) -> Instruments:
    try:
        from opentelemetry import context, metrics, trace
    except ImportError as exc:
        install = install_command("opentelemetry-api")
        raise ConfigurationError(f"otel needs the package opentelemetry-api ({exc}); run: {install}") from exc
    meter = metrics.get_meter("completion", __version__, meter_provider)
    tracer = trace.get_tracer("completion", __version__, tracer_provider)
    return Instruments(trace, context, tracer, Metrics(meter, names))


class Operation:
    """A span and its duration.

    The name of the span is ``operation`` and ``names``. ``attributes`` are those of the span, ``metric_attributes``
    those of the metrics. ``began``: a result of ``_now``, if the operation began before this object was made.
    """

    def __init__(
        self,
        instruments: Instruments,
        operation: str,
        names: Sequence[str],
        attributes: Mapping[str, Any],
        metric_attributes: Mapping[str, Any],
        parent: Context | None = None,
        began: tuple[float, int] | None = None,
    ) -> None:
        trace = instruments.trace
        kind = trace.SpanKind.CLIENT if operation == "chat" else trace.SpanKind.INTERNAL
        attributes = encodable({"gen_ai.operation.name": operation, **attributes})
        self.is_over = self.is_stopped = False
        self.instruments = instruments
        self.metric_attributes = encodable(metric_attributes)
        self.began, began_ns = began or _now()
        name = encodable_text(" ".join([operation, *names]))
        self.span = instruments.tracer.start_span(name, parent, kind, attributes, start_time=began_ns)
        self.context = trace.set_span_in_context(self.span, parent)
        self._operation = operation
        self._error: tuple[str, str | None] | None = None

    def set(self, attributes: Mapping[str, Any]) -> None:
        self.span.set_attributes(encodable(attributes))

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make the span the current one in the block: spans that begin there become its children."""
        context, token = self.instruments.context, None
        with log_failures():
            token = context.attach(self.context)
        try:
            yield
        finally:
            if token is not None:
                context.detach(token)

    def stop(self, error: BaseException | None = None) -> None:
        """Stop the clock. The span stays open: its result may still come. Only the first call counts."""
        if not self.is_stopped:
            self.is_stopped = True
            ended, self._ended_ns = _now()
            self._seconds = ended - self.began
            if error is not None:
                self._error = (error_type(error), error_description(error))

    def fail(self, error: BaseException) -> None:
        self.stop(error)
        self.end()

    def end(self, kind: str | None = None, description: str | None = None) -> None:
        """End the span and record the metrics. Only the first call counts.

        ``kind`` is the type of the error, if there was one. An error given to ``stop`` takes precedence.
        """
        if self.is_over:
            return
        self.is_over = True
        self.stop()
        kind, description = self._error or (kind, description)
        with log_failures():
            if kind is not None:
                self.metric_attributes["error.type"] = kind
                self.set({"error.type": kind})
                self.span.set_status(self.instruments.trace.StatusCode.ERROR, description)
            self.set_last_attributes()
        with log_failures():
            self.span.end(self._ended_ns)
        with log_failures():
            metrics = self.instruments.metrics
            metrics.record_duration(self._operation, self._seconds, self.metric_attributes, self.context)
            self.record_metrics()

    def set_last_attributes(self) -> None:
        """For subclasses: attributes that are known only at the end."""

    def record_metrics(self) -> None:
        """For subclasses: the metrics other than the duration."""


class ChatOperation(Operation):
    """One turn of a model, from the request on. ``origin`` is the family and the model id."""

    def __init__(
        self,
        instruments: Instruments,
        origin: tuple[str, str],
        base_url: Callable[[], str | None],
        request: ChatRequest,
        attributes: Mapping[str, Any],
        parent: Context | None = None,
        *,
        captures_content: bool,
        times_chunks: bool,
    ) -> None:
        began = _now()  # before the base URL is read: an embedded model may start its server then
        self.origin = family, model = origin
        metric_attributes = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": provider_name(family),
            "gen_ai.request.model": model,
            **server_attributes(base_url),
        }
        attributes = {**metric_attributes, **request_attributes(request), **attributes}
        super().__init__(instruments, "chat", [model], attributes, metric_attributes, parent, began)
        self.is_dropped = False
        self.output: dict[str, str] = {}
        """The attributes of what the model said, once the span has ended; empty unless contents are captured."""
        self._first_at: float | None = None
        self._last_at = 0.0
        self._gaps: list[float] = []
        self._times_chunks = times_chunks
        self._finished: TurnFinished | Turn | None = None
        self._turn_so_far: TurnSoFar | None = None
        if captures_content and self.span.is_recording():
            self._turn_so_far = TurnSoFar()
            with log_failures():
                self.set(input_attributes(request))

    def add(self, chunk: StreamChunk) -> None:
        """Note when the chunk arrived. Metrics are recorded at the end: recording one takes as long as a chunk."""
        now = time.perf_counter()
        if self._first_at is None:
            self._first_at = now
        elif self._times_chunks:
            self._gaps.append(now - self._last_at)
        self._last_at = now
        if self._turn_so_far is not None:
            self._turn_so_far.add(chunk)
        if type(chunk) is TurnFinished:
            self.finish(chunk)

    def finish(self, end: TurnFinished | Turn) -> None:
        if self._finished is None:
            self._finished = end
        self.end()

    def set_last_attributes(self) -> None:
        end, attributes = self._finished, dict[str, Any]()
        if self._first_at is not None:
            attributes["gen_ai.response.time_to_first_chunk"] = self._first_at - self.began
        if end is not None:
            response_model = without_none({"gen_ai.response.model": end.response_model})
            self.metric_attributes |= response_model
            attributes |= without_none({"gen_ai.response.id": end.response_id}) | response_model
            attributes["gen_ai.response.finish_reasons"] = (finish_reason(end),)
            attributes |= usage_attributes(end.usage)
        self.set(attributes)
        if self._turn_so_far is not None:
            message = self._turn_so_far.turn().message
            if message.blocks:
                self.output = output_attributes(message, "error" if end is None else finish_reason(end))
                self.set(self.output)

    def record_metrics(self) -> None:
        metrics, attributes = self.instruments.metrics, self.metric_attributes
        metrics.record_usage(self._finished.usage if self._finished is not None else None, attributes, self.context)
        if self._first_at is not None:
            metrics.record_first_chunk(self._first_at - self.began, attributes, self.context)
        # In a context without a span, the SDK stores no exemplars. That saves a quarter of the time.
        metrics.record_output_chunks(self._gaps, attributes, self.instruments.context.Context())


@contextmanager
def log_failures() -> Iterator[None]:
    """Log any exception of the block, and go on: telemetry must not break a run."""
    try:
        yield
    except Exception:
        log.exception("OpenTelemetry failed; this record is lost")


def run_outside_finalizer(function: Callable[[], None]) -> None:
    """For finalizers: call the function in a new thread, and wait for it at most ``_FINALIZER_WAIT_S``.

    The garbage collector can interrupt this thread while it holds a lock of the SDK. These locks are not reentrant
    (opentelemetry-sdk 1.45), so a call in this thread could deadlock.
    """
    if sys.is_finalizing():  # a new thread would never start
        return
    thread = threading.Thread(target=function, name="completion-otel", daemon=True)
    with suppress(RuntimeError):  # the system has no more threads: the span is lost
        thread.start()
        thread.join(_FINALIZER_WAIT_S)


def _now() -> tuple[float, int]:
    """A monotonic time in seconds for durations, and the time of day in nanoseconds for spans."""
    return time.perf_counter(), time.time_ns()
