"""Spans and metrics for OpenTelemetry: the only door to it, which the extra ``otel`` brings.

    run_chat(model, request, tools, middleware=[OpenTelemetry()])

    invoke_agent                    the run
        chat {model}                each turn, all attempts of it included
        execute_tool {name}         each call that is made; spans of the tool's own are its children
        chat {model}

    traced(model).chat_stream(request)          one ``chat {model}``, for a model without the engine

Names are those of the GenAI semantic conventions, which are still in development (read on 2026-11-26):
https://github.com/open-telemetry/semantic-conventions-genai/tree/main/docs/gen-ai

Only the API is used: without an SDK that somebody has set up, all of this does nothing. What goes wrong in here is
logged, and never reaches the run. What was said is recorded only when it is asked for, and an error's words, which may
quote it, are not.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import shlex
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from completion.contract.cancel import CancelToken
from completion.contract.chunks import FinishReason, StreamChunk, TurnFinished, Usage
from completion.contract.errors import ConfigurationError, StreamCancelledError
from completion.contract.messages import (
    AudioBlock,
    Base64Source,
    Block,
    DocumentBlock,
    FileSource,
    ImageBlock,
    Message,
    ProviderBlock,
    ReasoningBlock,
    Source,
    TextBlock,
    ToolCallBlock,
    ToolResultBlock,
    UrlSource,
)
from completion.contract.model import CompletionModel
from completion.contract.request import ChatRequest, ToolDefinition
from completion.contract.run import RunFinished, RunStarted, StepFinished, StepStarted, ToolResult
from completion.contract.stream import ChatStream, ResponseInfo, opening, response_of
from completion.contract.turn import Turn, TurnSoFar
from completion.engine.middleware import Middleware, RunInfo, base_url_of
from completion.engine.tools import Tool, ToolContext
from completion.version import __version__
from completion.wires.lowering import require_request
from completion.wrappers.attempts import Chunks, in_short, require_model

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.metrics import Histogram, MeterProvider
    from opentelemetry.trace import Tracer, TracerProvider

log = logging.getLogger(__name__)

# Names

CAPTURE_CONTENT = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
"""Records contents on spans when it is ``true``, ``span_only`` or ``span_and_event``."""

PROVIDERS = {
    "openai-responses": "openai",
    "azure-openai": "azure.ai.openai",
    "gemini": "gcp.gemini",
    "bedrock": "aws.bedrock",
    "mistral": "mistral_ai",
    "xai": "x_ai",
    "moonshot": "moonshot_ai",
}
"""Our families by the names of the conventions, where the two differ."""

FINISH_REASONS = {
    FinishReason.END_TURN: "stop",
    FinishReason.STOP_SEQUENCE: "stop",
    FinishReason.TOOL_USE: "tool_call",
    FinishReason.MAX_TOKENS: "length",
    FinishReason.CONTEXT_OVERFLOW: "length",
    FinishReason.CONTENT_FILTER: "content_filter",
    FinishReason.REFUSAL: "content_filter",
}

_SAMPLING = ("temperature", "top_p", "top_k", "seed")
_ADDITIONAL = ("frequency_penalty", "presence_penalty")
_PARTS = {
    "cached_input_tokens": ("gen_ai.usage.cache_read.input_tokens",),
    # Its name of today, and the one before it, which is the last that was published in a package.
    "cache_creation_input_tokens": (
        "gen_ai.usage.cache_write.input_tokens",
        "gen_ai.usage.cache_creation.input_tokens",
    ),
    "reasoning_tokens": ("gen_ai.usage.reasoning.output_tokens",),
}

_SECONDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
_SECONDS_OF_AGENTS = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 51.2, 102.4, 204.8, 409.6)
_TOKENS = tuple(4**power for power in range(14))

_OF_THE_RUN = frozenset({RunStarted, StepStarted, ToolResult, StepFinished, RunFinished})
_DROP_SECONDS = 0.2


class OpenTelemetry(Middleware):
    """Middleware: spans and metrics for runs.

    As the last of the middleware it records what goes out and what the model says; as the first, what the reader gets.
    One object may serve many runs at the same time. The tools of a run are replaced by ones that make a span of each
    call.

    Args:
        tracer_provider, meter_provider: None takes the global ones.
        capture_content: record messages, system prompt, and the arguments and results of tools. None asks the
            environment variable OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT.
        agent_name: what the runs are called: ``invoke_agent {agent_name}``.
        conversation_id: told by the spans of the runs, and of their turns.
        times_chunks: record the metric ``time_per_output_chunk``, after each turn. With a MeterProvider this takes
            about as long as reading the chunks did; all the rest is next to nothing.

    Raises:
        ConfigurationError: the package opentelemetry-api is not installed.
    """

    def __init__(
        self,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        capture_content: bool | None = None,
        *,
        agent_name: str | None = None,
        conversation_id: str | None = None,
        times_chunks: bool = True,
    ) -> None:
        self._instruments = _instruments(tracer_provider, meter_provider)
        self._is_content_wanted = _is_content_wanted(capture_content)
        self._times_chunks = times_chunks
        self._agent = _present({"gen_ai.agent.name": agent_name})
        self._conversation = _present({"gen_ai.conversation.id": conversation_id})
        self._runs: dict[str, _Run] = {}

    def on_run_started(self, run: RunInfo) -> None:
        with _harmless():
            of_metrics = {**self._agent, "gen_ai.request.model": run.model}
            facts = {**of_metrics, "gen_ai.provider.name": _provider(run.provider), **self._conversation}
            names = list(self._agent.values())
            whole = _Operation(self._instruments, "invoke_agent", names, facts, of_metrics)
            self._runs[run.run_id] = known = _Run(whole)
            for name, tool in run.tools.items():
                run.tools[name] = _TracedTool(tool, known, self._agent, is_content_wanted=self._is_content_wanted)

    def on_request(self, run: RunInfo, request: ChatRequest) -> ChatRequest:
        known = self._runs.get(run.run_id)
        if known is not None:
            with _harmless():
                whole = known.whole
                if known.chat is None and self._is_content_wanted and whole.span.is_recording():
                    whole.set(_said_to(request))
                known.chat = _Chat(
                    self._instruments, (run.provider, run.model), lambda: run.base_url, request,
                    self._conversation, whole.context,
                    is_content_wanted=self._is_content_wanted, times_chunks=self._times_chunks,
                )  # fmt: skip
        return request

    def on_chunk(self, run: RunInfo, chunk: StreamChunk) -> StreamChunk | None:
        known = self._runs.get(run.run_id)
        if known is not None:
            if type(chunk) not in _OF_THE_RUN:
                if known.chat is not None:
                    known.chat.add(chunk)
            elif isinstance(chunk, ToolResult):
                self._answered(run, known, chunk)
        return chunk

    def on_turn_finished(self, run: RunInfo, turn: Turn) -> None:
        known = self._runs.get(run.run_id)
        if known is not None and known.chat is not None and turn.reason is not None:
            known.chat.finish(turn)  # where other middleware has kept the TurnFinished to itself

    def on_finished(self, run: RunInfo, end: RunFinished) -> None:
        known = self._runs.get(run.run_id)
        if known is not None:
            with _harmless():
                facts = {"gen_ai.response.finish_reasons": (_finish_reason(end),), **_tokens(end.usage)}
                known.whole.set(facts | (known.chat.said if known.chat is not None else {}))
        self._end(run, end.abort.kind if end.abort is not None else None)

    def on_failed(self, run: RunInfo, error: BaseException) -> None:
        self._end(run, _error_type(error), _in_short(error))

    def on_dropped(self, run: RunInfo) -> None:
        _out_of_finalizers(lambda: self._end(run))

    def _answered(self, run: RunInfo, known: _Run, result: ToolResult) -> None:
        operation = known.tools.pop(result.call_id, None)
        if operation is None:  # it was not made
            return
        if self._is_content_wanted:
            with _harmless():
                said = _response(result.blocks)
                operation.set({"gen_ai.tool.call.result": said if isinstance(said, str) else _json(said)})
        if not operation.is_stopped:
            operation.end("cancelled" if run.token.cancelled else "timeout")
        operation.end("tool_error" if result.is_error else None)

    def _end(self, run: RunInfo, error_type: str | None = None, description: str | None = None) -> None:
        """End whatever is still open of the run."""
        known = self._runs.pop(run.run_id, None)
        if known is not None:
            known.is_over = True
            for operation in (*known.tools.values(), known.chat, known.whole):
                if operation is not None:
                    operation.end(error_type, description)


@dataclass(slots=True)
class _Run:
    """What is open of a run."""

    whole: _Operation
    chat: _Chat | None = None
    tools: dict[str, _Operation] = field(default_factory=dict)
    is_over: bool = False


class _TracedTool(Tool):
    """A tool of one run: each call is a span, which is the current one in the thread of the call."""

    def __init__(self, inner: Tool, run: _Run, agent: dict[str, str], *, is_content_wanted: bool) -> None:
        self.__dict__.update(inner.__dict__)
        self._inner = inner
        self._of_run = run
        self._agent = agent
        self._is_content_wanted = is_content_wanted

    @property
    def definition(self) -> ToolDefinition:
        return self._inner.definition

    def run(self, args: dict[str, Any], context: ToolContext) -> tuple[Block, ...]:
        operation = self._begun(args, context)
        if operation is None:
            return self._inner.run(args, context)
        try:
            with operation.current():
                return self._inner.run(args, context)
        except BaseException as error:
            operation.stop(error)
            raise
        finally:
            operation.stop()
            if self._of_run.is_over:  # nobody comes back for the result
                operation.end()

    def _begun(self, args: dict[str, Any], context: ToolContext) -> _Operation | None:
        with _harmless():
            whole = self._of_run.whole
            of_metrics = {"gen_ai.tool.name": self.name, "gen_ai.tool.type": "function", **self._agent}
            facts = {
                **of_metrics,
                "gen_ai.tool.call.id": context.call_id,
                **_present({"gen_ai.tool.description": self.definition.description or None}),
            }
            if self._is_content_wanted:
                facts["gen_ai.tool.call.arguments"] = _json(args)
            operation = _Operation(whole.instruments, "execute_tool", [self.name], facts, of_metrics, whole.context)
            self._of_run.tools[context.call_id] = operation
            return operation
        return None


def traced(
    model: CompletionModel,
    *,
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
    capture_content: bool | None = None,
    conversation_id: str | None = None,
    times_chunks: bool = True,
) -> TracedModel:
    """The model, with a span and the metrics for each stream; for use without the engine.

    Around a RetryingModel, the span covers all attempts. A stream that was left before its end has a span without
    finish reasons and without an error.

    Args:
        model: any CompletionModel.
        tracer_provider, meter_provider, capture_content, conversation_id, times_chunks: as for OpenTelemetry.

    Raises:
        ConfigurationError: the package opentelemetry-api is not installed.
        TypeError: this is no model.
    """
    require_model(model, "traced")
    _instruments(tracer_provider, meter_provider)
    return TracedModel(
        model,
        (tracer_provider, meter_provider),
        _present({"gen_ai.conversation.id": conversation_id}),
        is_content_wanted=_is_content_wanted(capture_content),
        times_chunks=times_chunks,
    )


class TracedModel:
    """Made by ``traced``."""

    def __init__(
        self,
        inner: CompletionModel,
        providers: tuple[TracerProvider | None, MeterProvider | None],
        conversation: dict[str, Any],
        *,
        is_content_wanted: bool,
        times_chunks: bool,
    ) -> None:
        self.inner = inner
        self._providers = providers
        self._conversation = conversation
        self._is_content_wanted = is_content_wanted
        self._times_chunks = times_chunks

    @property
    def name(self) -> str:
        """The adapter family of the inner model."""
        return self.inner.name

    @property
    def model(self) -> str:
        """The id that the inner model is bound to."""
        return self.inner.model

    @opening
    def chat_stream(self, req: ChatRequest) -> ChatStream:
        """The stream of the inner model. Raises as that does."""
        require_request(req, self.name)
        chat = self._begun(req)
        if chat is None:
            stream = self.inner.chat_stream(req)
            return stream if isinstance(stream, ChatStream) else ChatStream(stream)
        token, untie = CancelToken.bound()
        try:
            with token, chat.current():
                stream = self.inner.chat_stream(req)
        except BaseException as error:
            untie()
            chat.fail(error)
            raise
        return _TracedStream(stream, chat, token, untie)

    def _begun(self, req: ChatRequest) -> _Chat | None:
        with _harmless():
            return _Chat(
                _instruments(*self._providers), (self.name, self.model), lambda: base_url_of(self.inner), req,
                self._conversation, is_content_wanted=self._is_content_wanted, times_chunks=self._times_chunks,
            )  # fmt: skip
        return None

    def __getstate__(self) -> dict[str, Any]:
        """On the other side of a pickle are other providers: the global ones."""
        return {**self.__dict__, "_providers": (None, None)}

    def __repr__(self) -> str:
        return f"traced({self.inner!r})"


class _TracedStream(ChatStream):
    """The chunks of another stream. The span ends with its TurnFinished, with its error, or when it is left."""

    def __init__(self, stream: Chunks, chat: _Chat, token: CancelToken, untie: Callable[[], None]) -> None:
        self._inner = stream
        self._chat = chat
        provider, model = chat.origin
        super().__init__(
            _watched(stream, chat, token),
            token=token,
            release=untie,
            drop=functools.partial(_drop, stream, chat),
            provider=provider,
            model=model,
        )

    @property
    def response(self) -> ResponseInfo:
        """That of the inner stream; a RetryingModel may yet get another one."""
        return response_of(self._inner)

    @response.setter
    def response(self, response: ResponseInfo) -> None:
        pass

    def _end(self) -> None:
        super()._end()
        chat, error_type = self._chat, StreamCancelledError.__name__ if self._token.cancelled else None
        try:
            self._inner.close()
        finally:
            if chat.is_dropped and not chat.is_over:
                _out_of_finalizers(lambda: chat.end(error_type))
            else:
                chat.end(error_type)


def _drop(stream: Chunks, chat: _Chat) -> None:
    chat.is_dropped = True
    drop = getattr(stream, "_drop", None)
    if drop is not None:
        drop()


def _watched(stream: Chunks, chat: _Chat, token: CancelToken) -> Iterator[StreamChunk]:
    try:
        with closing(stream):
            with token, chat.current():
                first = next(stream, None)  # which may yet open a connection
            if first is not None:
                chat.add(first)
                yield first
            for chunk in stream:
                chat.add(chunk)
                yield chunk
    except GeneratorExit:
        raise
    except BaseException as error:
        chat.fail(error)
        raise


# Spans, and what is measured of them


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


# Facts, by the names of the conventions


def _asked(request: ChatRequest) -> dict[str, Any]:
    more = request.additional_params or {}
    choices, effort = more.get("n"), request.reasoning_effort
    return _present(
        {
            "gen_ai.request.stream": True,
            "gen_ai.request.max_tokens": request.max_tokens,
            **{f"gen_ai.request.{name}": getattr(request, name) for name in _SAMPLING},
            **{f"gen_ai.request.{name}": _number(more.get(name)) for name in _ADDITIONAL},
            "gen_ai.request.stop_sequences": request.stop_sequences or None,
            "gen_ai.request.reasoning.level": effort if isinstance(effort, str) else None,
            "gen_ai.request.choice.count": _number(choices) if choices != 1 else None,
            "gen_ai.output.type": "json" if request.response_format is not None else None,
        }
    )


def _tokens(usage: Usage | None) -> dict[str, int]:
    if usage is None:
        return {}
    facts = {"gen_ai.usage.input_tokens": usage.input_tokens, "gen_ai.usage.output_tokens": usage.output_tokens}
    return facts | {name: count for part, names in _PARTS.items() if (count := getattr(usage, part)) for name in names}


def _provider(family: str) -> str:
    return PROVIDERS.get(family, family)


def _finish_reason(end: TurnFinished | Turn | RunFinished) -> str:
    return FINISH_REASONS.get(end.reason, str(end.reason)) if end.reason is not None else "error"


def _server(base_url: Callable[[], str | None]) -> dict[str, Any]:
    with suppress(Exception):  # of a model that starts its server for this; it will say so again
        parts = urlsplit(base_url() or "")
        if parts.hostname:
            port = parts.port or (80 if parts.scheme == "http" else 443)
            return {"server.address": parts.hostname, "server.port": port}
    return {}


def _error_type(error: BaseException) -> str:
    kind = type(error)
    is_short = kind.__module__ == "builtins" or kind.__module__.startswith("completion.")
    return kind.__qualname__ if is_short else f"{kind.__module__}.{kind.__qualname__}"


def _in_short(error: BaseException) -> str | None:
    return in_short(error) if isinstance(error, Exception) else None


def _number(value: Any) -> int | float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _present(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {name: fact for name, fact in facts.items() if fact is not None}


def _clean(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Text as an exporter can encode it: with half of a surrogate pair in it, a whole batch of spans would be lost."""
    return {name: _cleaned(fact) if isinstance(fact, str) else fact for name, fact in facts.items()}


def _cleaned(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


# Contents, in the JSON of the conventions


def _is_content_wanted(given: bool | None) -> bool:
    if given is not None:
        return given
    return os.environ.get(CAPTURE_CONTENT, "").strip().lower() in ("true", "span_only", "span_and_event")


def _said_to(request: ChatRequest) -> dict[str, str]:
    prompt = request.system_prompt or ()
    texts = [prompt] if isinstance(prompt, str) else [block.text for block in prompt]
    facts = {"gen_ai.input.messages": _json([_message(message) for message in request.messages])}
    if texts:
        facts["gen_ai.system_instructions"] = _json([_part(TextBlock(text)) for text in texts])
    return facts


def _message(message: Message, finish_reason: str | None = None) -> dict[str, Any]:
    """{"role": "user", "parts": [{"type": "text", "content": "Hi"}]}"""
    parts = [_part(block) for block in message.blocks]
    return _present({"role": message.role, "parts": parts, "finish_reason": finish_reason})


def _part(block: Block) -> dict[str, Any]:
    match block:
        case TextBlock(text):
            return {"type": "text", "content": text}
        case ReasoningBlock(text):
            return {"type": "reasoning", "content": text}
        case ToolCallBlock(call_id, name, args):
            return {"type": "tool_call", "id": call_id, "name": name, "arguments": args}
        case ToolResultBlock(call_id, blocks):
            return {"type": "tool_call_response", "id": call_id, "response": _response(blocks)}
        case ImageBlock(source) | DocumentBlock(source) | AudioBlock(source):
            return _file(block.type, source)
        case ProviderBlock(provider, data):
            return {"type": "provider", "provider": provider, "data": data}
    return {"type": block.type}  # encrypted


def _response(blocks: Sequence[Block]) -> str | list[dict[str, Any]]:
    if all(isinstance(block, TextBlock) for block in blocks):
        return "".join(block.text for block in blocks if isinstance(block, TextBlock))
    return [_part(block) for block in blocks]


def _file(modality: str, source: Source) -> dict[str, Any]:
    """Without the bytes: a picture is too much for most exporters, and takes the other spans of its batch along."""
    match source:
        case UrlSource(url):
            return {"type": "uri", "modality": modality, "uri": url}
        case FileSource(file_id):
            return {"type": "file", "modality": modality, "file_id": file_id}
        case Base64Source(media_type):
            return {"type": "blob", "modality": modality, "mime_type": media_type, "content": ""}
    return {"type": source.type, "modality": modality}


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)
