"""Spans and metrics of one operation."""

from __future__ import annotations

import functools
import shlex
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from completion.contract.chunks import StreamChunk, TurnFinished
from completion.contract.errors import ConfigurationError
from completion.contract.request import ChatRequest
from completion.contract.turn import Turn, TurnSoFar
from completion.otel.attributes import (
    _asked,
    _clean,
    _cleaned,
    _error_type,
    _finish_reason,
    _in_short,
    _json,
    _message,
    _present,
    _provider,
    _said_to,
    _server,
    _tokens,
)
from completion.version import __version__

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.metrics import Histogram, MeterProvider
    from opentelemetry.trace import Tracer, TracerProvider
import logging

log = logging.getLogger(__name__)


_SECONDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)


_SECONDS_OF_AGENTS = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 51.2, 102.4, 204.8, 409.6)


_TOKENS = tuple(4**power for power in range(14))


_DROP_SECONDS = 0.2


class _Operation:
    """A span, begun with the time of its metrics, and ended once."""

    def __init__(
        self,
        instruments: _Instruments,
        operation: str,
        names: Sequence[str],
        facts: Mapping[str, Any],
        of_metrics: Mapping[str, Any],
        parent: Context | None = None,
        began: tuple[float, int] | None = None,
    ) -> None:
        trace = instruments.trace
        kind = trace.SpanKind.CLIENT if operation == "chat" else trace.SpanKind.INTERNAL
        facts = _clean({"gen_ai.operation.name": operation, **facts})
        self.is_over = self.is_stopped = False
        self.instruments = instruments
        self.of_metrics = _clean(of_metrics)
        self.began, began_ns = began or _now()
        name = _cleaned(" ".join([operation, *names]))
        self.span = instruments.tracer.start_span(name, parent, kind, facts, start_time=began_ns)
        self.context = trace.set_span_in_context(self.span, parent)
        self._duration = instruments.durations[operation]
        self._error: tuple[str, str | None] | None = None

    def set(self, facts: Mapping[str, Any]) -> None:
        self.span.set_attributes(_clean(facts))

    @contextmanager
    def current(self) -> Iterator[None]:
        """Inside of the block the span is the current one."""
        context, token = self.instruments.context, None
        with _harmless():
            token = context.attach(self.context)
        try:
            yield
        finally:
            if token is not None:
                context.detach(token)

    def stop(self, error: BaseException | None = None) -> None:
        """What it measures is over, and so it ended; there may be more to say before the span ends."""
        if not self.is_stopped:
            self.is_stopped = True
            ended, self._ended_ns = _now()
            self._seconds = ended - self.began
            if error is not None:
                self._error = (_error_type(error), _in_short(error))

    def fail(self, error: BaseException) -> None:
        self.stop(error)
        self.end()

    def end(self, error_type: str | None = None, description: str | None = None) -> None:
        """End the span, once. What ``stop`` was told counts for more."""
        if self.is_over:
            return
        self.is_over = True
        self.stop()
        error_type, description = self._error or (error_type, description)
        with _harmless():
            if error_type is not None:
                self.of_metrics["error.type"] = error_type
                self.set({"error.type": error_type})
                self.span.set_status(self.instruments.trace.StatusCode.ERROR, description)
            self.note(error_type)
        with _harmless():
            self.span.end(self._ended_ns)
        with _harmless():
            self._duration.record(self._seconds, self.of_metrics, self.context)
            self.measure()

    def note(self, error_type: str | None) -> None:
        """What else the span shall tell."""

    def measure(self) -> None:
        """What else there is to record."""


class _Chat(_Operation):
    """One turn of a model, from the request on."""

    def __init__(
        self,
        instruments: _Instruments,
        origin: tuple[str, str],
        base_url: Callable[[], str | None],
        request: ChatRequest,
        facts: Mapping[str, Any],
        parent: Context | None = None,
        *,
        is_content_wanted: bool,
        times_chunks: bool,
    ) -> None:
        began = _now()  # before the URL is asked for: an embedded model may start its server for it
        self.origin = provider, model = origin
        of_metrics = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": _provider(provider),
            "gen_ai.request.model": model,
            **_server(base_url),
        }
        super().__init__(
            instruments, "chat", [model], {**of_metrics, **_asked(request), **facts}, of_metrics, parent, began
        )
        self.is_dropped = False
        self._first: float | None = None
        self._last = 0.0
        self._gaps: list[float] = []
        self._times_chunks = times_chunks
        self._finished: TurnFinished | Turn | None = None
        self._so_far: TurnSoFar | None = None
        self.said: dict[str, str] = {}
        if is_content_wanted and self.span.is_recording():
            self._so_far = TurnSoFar()
            with _harmless():
                self.set(_said_to(request))

    def add(self, chunk: StreamChunk) -> None:
        """A chunk has come. Nothing is measured here but the time: recording it takes as long as a chunk does."""
        now = time.perf_counter()
        if self._first is None:
            self._first = now
        elif self._times_chunks:
            self._gaps.append(now - self._last)
        self._last = now
        if self._so_far is not None:
            self._so_far.add(chunk)
        if type(chunk) is TurnFinished:
            self.finish(chunk)

    def finish(self, end: TurnFinished | Turn) -> None:
        if self._finished is None:
            self._finished = end
        self.end()

    def note(self, error_type: str | None) -> None:
        end, facts = self._finished, dict[str, Any]()
        if self._first is not None:
            facts["gen_ai.response.time_to_first_chunk"] = self._first - self.began
        if end is not None:
            self.of_metrics |= _present({"gen_ai.response.model": end.response_model})
            facts |= _present(
                {
                    "gen_ai.response.id": end.response_id,
                    "gen_ai.response.model": end.response_model,
                    "gen_ai.response.finish_reasons": (_finish_reason(end),),
                }
            )
            facts |= _tokens(end.usage)
        self.set(facts)
        if self._so_far is not None:
            message, reason = self._so_far.turn().message, "error" if end is None else _finish_reason(end)
            if message.blocks:
                self.said = {"gen_ai.output.messages": _json([_message(message, reason)])}
                self.set(self.said)

    def measure(self) -> None:
        kit, usage = self.instruments, self._finished.usage if self._finished is not None else None
        if usage is not None:
            for kind, count in (("input", usage.input_tokens), ("output", usage.output_tokens)):
                kit.tokens.record(count, {**self.of_metrics, "gen_ai.token.type": kind}, self.context)
        if self._first is not None:
            kit.first_chunk.record(self._first - self.began, self.of_metrics, self.context)
        nowhere = kit.context.Context()  # with no span in it the SDK looks for no exemplar, which saves a quarter
        for gap in self._gaps:
            kit.output_chunk.record(gap, self.of_metrics, nowhere)


@dataclass(frozen=True, slots=True)
class _Instruments:
    """The two modules of the API, and what records."""

    trace: Any
    context: Any
    tracer: Tracer
    durations: dict[str, Histogram]
    tokens: Histogram
    first_chunk: Histogram
    output_chunk: Histogram


@functools.lru_cache(maxsize=32)
def _instruments(tracer_provider: TracerProvider | None, meter_provider: MeterProvider | None) -> _Instruments:
    try:
        from opentelemetry import context, metrics, trace
    except ImportError as exc:
        install = shlex.join([sys.executable, "-m", "pip", "install", "opentelemetry-api"])
        raise ConfigurationError(f"tracing needs the package opentelemetry-api ({exc}); run: {install}") from exc
    meter = metrics.get_meter("completion", __version__, meter_provider)

    def histogram(name: str, unit: str, boundaries: Sequence[float], description: str) -> Histogram:
        return meter.create_histogram(name, unit, description, explicit_bucket_boundaries_advisory=boundaries)

    client = "gen_ai.client.operation"
    return _Instruments(
        trace,
        context,
        trace.get_tracer("completion", __version__, tracer_provider),
        {
            "chat": histogram(f"{client}.duration", "s", _SECONDS, "GenAI operation duration."),
            "invoke_agent": histogram("gen_ai.invoke_agent.duration", "s", _SECONDS_OF_AGENTS, "Duration of a run."),
            "execute_tool": histogram("gen_ai.execute_tool.duration", "s", _SECONDS, "Duration of a call of a tool."),
        },
        histogram("gen_ai.client.token.usage", "{token}", _TOKENS, "Number of input and output tokens used."),
        histogram(f"{client}.time_to_first_chunk", "s", _SECONDS, "Time from the request to the first chunk."),
        histogram(f"{client}.time_per_output_chunk", "s", _SECONDS, "Time from one chunk to the next."),
    )


@contextmanager
def _harmless() -> Iterator[None]:
    """What fails in here is logged, and that is all."""
    try:
        yield
    except Exception:
        log.exception("OpenTelemetry failed; what it was to record is lost")


def _out_of_finalizers(function: Callable[[], None]) -> None:
    """Call it in a thread of its own, and wait for it a little: where the garbage collector has interrupted this
    thread, it may hold a lock of the SDK's, which are no reentrant ones (1.45)."""
    if sys.is_finalizing():  # a new thread would never begin
        return
    thread = threading.Thread(target=function, name="completion-otel", daemon=True)
    with suppress(RuntimeError):  # there are no more threads
        thread.start()
        thread.join(_DROP_SECONDS)


def _now() -> tuple[float, int]:
    """By the clock that measures, and by the one that spans are dated with."""
    return time.perf_counter(), time.time_ns()
