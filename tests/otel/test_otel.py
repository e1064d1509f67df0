"""Spans and metrics, read from the SDK's in-memory exporters and from a real OTLP receiver."""

from __future__ import annotations

import asyncio
import gc
import gzip
import json
import logging
import pickle
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from completion import (
    AbortRun,
    AsyncModel,
    AzureOpenAIModel,
    Base64Source,
    CancelToken,
    ChatRequest,
    FallbackModel,
    FinishReason,
    ImageBlock,
    JsonSchema,
    Message,
    Middleware,
    RateLimitError,
    ReasoningDelta,
    ReasoningFinished,
    Refusal,
    RetryConfig,
    RetryingModel,
    RunConfig,
    StreamCancelledError,
    SystemBlock,
    TextDelta,
    ToolCallBlock,
    ToolContext,
    ToolError,
    TransportError,
    TruncatedStreamError,
    TurnFinished,
    Usage,
    run_chat,
)
from completion.testing import Cut, ProviderServer, Reply, ScriptedModel, WaitFor, check_completion_model, event
from completion.testing.scripted import Script
from tests.loopback import END, HI, PATIENCE_S, Caught, first_text, model_at, model_of, text
from tests.runs import called, named, turn

pytest.importorskip("opentelemetry.sdk")

from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from completion.engine import RunInfo
from completion.engine.redaction import Redaction
from completion.otel import CAPTURE_CONTENT, OpenTelemetry, TracedModel, traced

NOW = RetryConfig(base_delay=0)
USAGE = Usage(100, 20, cached_input_tokens=60, cache_creation_input_tokens=30, reasoning_tokens=15)
SECONDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
END_OF_TURN = TurnFinished(
    FinishReason.END_TURN, USAGE, provider_reason="stop", response_id="r1", response_model="big-2026"
)


class Recorded:
    """The set-up of an application, and what its exporters got."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.tracer_provider = TracerProvider(shutdown_on_exit=False)
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.reader = InMemoryMetricReader()
        self.meter_provider = MeterProvider([self.reader], shutdown_on_exit=False)

    def middleware(self, **options: Any) -> OpenTelemetry:
        return OpenTelemetry(self.tracer_provider, self.meter_provider, **options)

    def traced(self, model: Any, **options: Any) -> TracedModel:
        return traced(model, tracer_provider=self.tracer_provider, meter_provider=self.meter_provider, **options)

    @property
    def spans(self) -> list[ReadableSpan]:
        return list(self.exporter.get_finished_spans())

    @property
    def names(self) -> list[str]:
        """In the order of their start."""
        return [span.name for span in sorted(self.spans, key=lambda span: span.start_time or 0)]

    def span(self, name: str) -> ReadableSpan:
        (found,) = [span for span in self.spans if span.name == name]
        return found

    def attributes(self, name: str) -> dict[str, Any]:
        return dict(self.span(name).attributes or {})

    def metrics(self) -> dict[str, list[Any]]:
        """The data points of each instrument."""
        data = self.reader.get_metrics_data()
        found = [] if data is None else [m for r in data.resource_metrics for s in r.scope_metrics for m in s.metrics]
        return {metric.name: list(metric.data.data_points) for metric in found}

    def close(self) -> None:
        self.tracer_provider.shutdown()
        self.meter_provider.shutdown()


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Iterator[Recorded]:
    monkeypatch.delenv(CAPTURE_CONTENT, raising=False)
    monkeypatch.delenv("OTEL_SEMCONV_STABILITY_OPT_IN", raising=False)
    found = Recorded()
    yield found
    found.close()


def parent_of(span: ReadableSpan) -> int | None:
    return None if span.parent is None else span.parent.span_id


def id_of(span: ReadableSpan) -> int:
    assert span.context is not None
    span_id: int = span.context.span_id
    return span_id


def wait_until(is_true: Callable[[], bool]) -> None:
    ends_at = time.monotonic() + PATIENCE_S
    while not is_true():
        assert time.monotonic() < ends_at
        time.sleep(0.01)


# A model without a run


def test_a_stream_is_a_client_span(recorded: Recorded) -> None:
    with ScriptedModel([TextDelta("Hi"), TextDelta("!"), END_OF_TURN], name="openai", model="big") as model:
        assert recorded.traced(model).chat_stream(ChatRequest("Hello", max_tokens=50)).collect().text == "Hi!"
    (span,) = recorded.spans
    attributes = recorded.attributes("chat big")
    assert 0 < attributes.pop("gen_ai.response.time_to_first_chunk") < PATIENCE_S
    assert (span.kind, span.status.status_code, span.parent) == (SpanKind.CLIENT, StatusCode.UNSET, None)
    assert attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "big",
        "gen_ai.request.stream": True,
        "gen_ai.request.max_tokens": 50,
        "gen_ai.response.id": "r1",
        "gen_ai.response.model": "big-2026",
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": 100,
        "gen_ai.usage.output_tokens": 20,
        "gen_ai.usage.cache_read.input_tokens": 60,
        "gen_ai.usage.cache_write.input_tokens": 30,
        "gen_ai.usage.cache_creation.input_tokens": 30,
        "gen_ai.usage.reasoning.output_tokens": 15,
    }


def test_the_fields_of_the_request_are_attributes(recorded: Recorded) -> None:
    request = ChatRequest(
        "Hello",
        temperature=0.5,
        top_p=0.9,
        top_k=40,
        seed=7,
        stop_sequences=["END"],
        reasoning_effort="low",
        response_format=JsonSchema("x", {"type": "object"}),
        additional_params={"n": 3, "frequency_penalty": 0.1, "presence_penalty": 0.2},
    )
    recorded.traced(ScriptedModel("{}", model="m"), conversation_id="conv_1").chat_stream(request).collect()
    attributes = recorded.attributes("chat m")
    assert {
        name: attributes[name] for name in attributes if ".request." in name or "output.type" in name or ".conv" in name
    } == {
        "gen_ai.request.model": "m",
        "gen_ai.request.stream": True,
        "gen_ai.request.max_tokens": 4096,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.top_p": 0.9,
        "gen_ai.request.top_k": 40,
        "gen_ai.request.seed": 7,
        "gen_ai.request.stop_sequences": ("END",),
        "gen_ai.request.frequency_penalty": 0.1,
        "gen_ai.request.presence_penalty": 0.2,
        "gen_ai.request.reasoning.level": "low",
        "gen_ai.request.choice.count": 3,
        "gen_ai.output.type": "json",
        "gen_ai.conversation.id": "conv_1",
    }


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        (FinishReason.END_TURN, "stop"),
        (FinishReason.STOP_SEQUENCE, "stop"),
        (FinishReason.TOOL_USE, "tool_call"),
        (FinishReason.MAX_TOKENS, "length"),
        (FinishReason.CONTENT_FILTER, "content_filter"),
        (FinishReason.REFUSAL, "content_filter"),
        (FinishReason.PAUSE, "pause"),
        (FinishReason.OTHER, "other"),
    ],
)
def test_finish_reasons_have_the_names_of_the_conventions(
    recorded: Recorded, reason: FinishReason, expected: str
) -> None:
    recorded.traced(ScriptedModel([TurnFinished(reason)], model="m")).chat_stream(HI).collect()
    assert recorded.attributes("chat m")["gen_ai.response.finish_reasons"] == (expected,)


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        ("openai", "openai"),
        ("anthropic", "anthropic"),
        ("azure-openai", "azure.ai.openai"),
        ("gemini", "gcp.gemini"),
        ("bedrock", "aws.bedrock"),
        ("mistral", "mistral_ai"),
        ("xai", "x_ai"),
        ("parrot", "parrot"),
    ],
)
def test_providers_have_the_names_of_the_conventions(recorded: Recorded, family: str, expected: str) -> None:
    recorded.traced(ScriptedModel("Hi", name=family, model="m")).chat_stream(HI).collect()
    assert recorded.attributes("chat m")["gen_ai.provider.name"] == expected


def test_the_server_is_an_attribute_through_wrappers(recorded: Recorded, server: ProviderServer) -> None:
    server.reply(Reply(text("Hi"), END))
    recorded.traced(RetryingModel(model_of(server), NOW)).chat_stream(HI).collect()
    attributes = recorded.attributes("chat m")
    assert attributes["server.address"] == "127.0.0.1"
    assert attributes["server.port"] == int(server.url.rpartition(":")[2].partition("/")[0])


def test_a_server_without_a_port_has_the_port_of_its_scheme(recorded: Recorded) -> None:
    model = AzureOpenAIModel("d", api_key="k", base_url="https://r.openai.azure.com")
    with CancelToken() as token:
        token.cancel()
        with pytest.raises(StreamCancelledError):
            recorded.traced(model).chat_stream(HI)
    attributes = recorded.attributes("chat d")
    assert (attributes["server.address"], attributes["server.port"]) == ("r.openai.azure.com", 443)


def test_the_span_is_a_child_of_the_callers_span(recorded: Recorded) -> None:
    tracer = recorded.tracer_provider.get_tracer("test")
    with tracer.start_as_current_span("view") as view:
        stream = recorded.traced(ScriptedModel("Hi", model="m")).chat_stream(HI)
        assert trace.get_current_span() is view
        next(stream)
        assert trace.get_current_span() is view
    stream.close()
    assert parent_of(recorded.span("chat m")) == id_of(recorded.span("view"))


def test_the_span_is_current_while_the_stream_is_opened(recorded: Recorded) -> None:
    tracer = recorded.tracer_provider.get_tracer("test")

    class Model:
        name, model = "mine", "m"

        def chat_stream(self, req: ChatRequest) -> Any:
            tracer.start_span("at the call").end()
            return self._chunks()

        def _chunks(self) -> Any:
            tracer.start_span("at the first chunk").end()
            yield from [TextDelta("Hi"), TurnFinished(FinishReason.END_TURN)]

    recorded.traced(Model()).chat_stream(HI).collect()
    chat = id_of(recorded.span("chat m"))
    assert [parent_of(recorded.span(f"at the {what}")) for what in ("call", "first chunk")] == [chat, chat]


def test_an_error_of_the_call_ends_the_span_with_its_type(recorded: Recorded, server: ProviderServer) -> None:
    server.reply(Reply.json({"error": {"message": "too many of: my prompt"}}, status=429))
    with pytest.raises(RateLimitError):
        recorded.traced(model_of(server)).chat_stream(HI)
    span = recorded.span("chat m")
    assert recorded.attributes("chat m")["error.type"] == "RateLimitError"
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "RateLimitError 429")
    assert "my prompt" not in span.to_json()


def test_an_error_in_mid_stream_ends_the_span_with_its_type(recorded: Recorded, server: ProviderServer) -> None:
    server.reply(Reply(text("Hi"), Cut()))
    stream = recorded.traced(model_of(server)).chat_stream(HI)
    assert first_text(stream) == "Hi"
    with pytest.raises(TransportError):
        next(stream)
    attributes = recorded.attributes("chat m")
    assert attributes["error.type"] == "TransportError"
    assert "gen_ai.response.time_to_first_chunk" in attributes
    assert "gen_ai.response.finish_reasons" not in attributes


def test_an_error_type_of_another_package_includes_its_module(recorded: Recorded) -> None:
    with pytest.raises(json.JSONDecodeError):
        recorded.traced(ScriptedModel(json.JSONDecodeError("no", "", 0), model="m")).chat_stream(HI)
    assert recorded.attributes("chat m")["error.type"] == "json.decoder.JSONDecodeError"


def test_closing_early_ends_the_span_without_an_error(recorded: Recorded) -> None:
    with recorded.traced(ScriptedModel("Hello there", model="m")).chat_stream(HI) as stream:
        next(stream)
        assert recorded.spans == []
    attributes = recorded.attributes("chat m")
    assert recorded.span("chat m").status.status_code is StatusCode.UNSET
    assert not {"error.type", "gen_ai.response.finish_reasons"} & attributes.keys()


def test_closing_an_unread_stream_ends_the_span(recorded: Recorded) -> None:
    recorded.traced(ScriptedModel("Hi", model="m")).chat_stream(HI).close()
    assert recorded.names == ["chat m"]


@pytest.mark.parametrize("chunks_read", [0, 1])
def test_dropping_the_stream_ends_the_span_and_hangs_up(
    recorded: Recorded, server: ProviderServer, chunks_read: int
) -> None:
    server.reply(Reply(text("Hi"), WaitFor(threading.Event(), PATIENCE_S)))
    stream = recorded.traced(model_of(server)).chat_stream(HI)
    for _ in range(chunks_read):
        next(stream)
    gc.disable()
    try:
        del stream
        assert server.wait_hung_up()
        wait_until(lambda: recorded.names == ["chat m"])
    finally:
        gc.enable()
    assert "error.type" not in recorded.attributes("chat m")


def test_garbage_collection_inside_the_sdk_ends_the_span_without_a_deadlock(recorded: Recorded) -> None:
    inside = threading.Lock()  # in place of a lock that the SDK holds while the garbage collector runs
    ended: list[bool] = []

    class Locking(SpanProcessor):
        def on_end(self, span: ReadableSpan) -> None:
            ended.append(inside.acquire(timeout=PATIENCE_S / 5))

    recorded.tracer_provider.add_span_processor(Locking())
    stream: Any = recorded.traced(ScriptedModel("Hi", model="m")).chat_stream(HI)
    next(stream)
    ring = [stream]
    ring.append(ring)
    with inside:
        del ring, stream
        gc.collect()
    wait_until(lambda: ended == [True])


def test_cancelling_ends_the_span_with_its_error(recorded: Recorded, server: ProviderServer) -> None:
    server.reply(Reply(text("Hi"), WaitFor(threading.Event(), PATIENCE_S)))
    stream = recorded.traced(model_of(server)).chat_stream(HI)
    next(stream)
    reading = Caught(lambda: next(stream))
    stream.cancel()
    assert isinstance(reading.within(PATIENCE_S).error, StreamCancelledError)
    assert recorded.attributes("chat m")["error.type"] == "StreamCancelledError"


def test_cancelling_between_two_chunks_ends_the_span_with_its_error(recorded: Recorded) -> None:
    stream = recorded.traced(ScriptedModel("Hello there", model="m")).chat_stream(HI)
    next(stream)
    stream.cancel()
    with pytest.raises(StreamCancelledError):
        next(stream)
    assert recorded.attributes("chat m")["error.type"] == "StreamCancelledError"


def test_an_outer_token_cancels_the_inner_stream(recorded: Recorded, server: ProviderServer) -> None:
    server.reply(Reply(text("Hi"), WaitFor(threading.Event(), PATIENCE_S)))
    with CancelToken() as token:
        stream = recorded.traced(model_of(server)).chat_stream(HI)
    next(stream)
    reading = Caught(lambda: next(stream))
    token.cancel()
    assert isinstance(reading.within(PATIENCE_S).error, StreamCancelledError)


def test_a_span_ends_once(recorded: Recorded, caplog: pytest.LogCaptureFixture) -> None:
    stream = recorded.traced(ScriptedModel("Hi", model="m")).chat_stream(HI)
    stream.collect()
    stream.close()
    stream.cancel()
    del stream
    gc.collect()
    assert recorded.names == ["chat m"]
    assert caplog.records == []  # the SDK logs an error when a span ends twice


def test_one_span_covers_all_attempts(recorded: Recorded, server: ProviderServer) -> None:
    server.reply(Reply.json({"error": {"message": "busy"}}, status=503))
    server.reply(Reply(Cut()))
    server.reply(Reply(text("Hi"), END, headers={"x-request-id": "third"}))
    stream = recorded.traced(RetryingModel(model_of(server), NOW)).chat_stream(HI)
    assert first_text(stream) == "Hi"
    assert stream.response.request_id == "third"
    stream.close()
    assert (recorded.names, len(server.requests)) == (["chat m"], 3)
    assert "error.type" not in recorded.attributes("chat m")


def test_under_an_event_loop_the_span_is_a_child_of_its_tasks_span(recorded: Recorded) -> None:
    tracer = recorded.tracer_provider.get_tracer("test")

    async def view(n: int) -> None:
        model = AsyncModel(recorded.traced(ScriptedModel("Hello there", model=f"m{n}")))
        with tracer.start_as_current_span(f"view {n}"):
            await model.chat_stream(HI).collect()

    async def main() -> None:
        await asyncio.gather(*map(view, range(5)))

    asyncio.run(main())
    assert [parent_of(recorded.span(f"chat m{n}")) for n in range(5)] == [
        id_of(recorded.span(f"view {n}")) for n in range(5)
    ]


def test_several_models_can_be_traced(recorded: Recorded) -> None:
    one = recorded.traced(ScriptedModel(RateLimitError("busy"), model="one"))
    other = recorded.traced(ScriptedModel("Hi", model="two"))
    assert FallbackModel([one, other]).chat_stream(HI).collect().text == "Hi"
    assert recorded.names == ["chat one", "chat two"]


def test_a_traced_model_keeps_the_contract(recorded: Recorded) -> None:
    check_completion_model(lambda: recorded.traced(ScriptedModel(*["Hello there!"] * 20)))
    check_completion_model(
        lambda base_url, api_key: recorded.traced(model_at(base_url, api_key=api_key)), answer="openai-chat"
    )


def test_a_traced_model_pickles(recorded: Recorded) -> None:
    copy = pickle.loads(pickle.dumps(recorded.traced(ScriptedModel("Hi"))))
    assert copy.chat_stream(HI).collect().text == "Hi"
    assert recorded.spans == []  # the copy uses the global provider


def test_traced_refuses_what_is_not_a_model() -> None:
    with pytest.raises(TypeError, match="traced: a model has name"):
        traced(ScriptedModel)  # type: ignore[arg-type]


def test_without_an_sdk_the_chunks_are_unchanged() -> None:
    assert traced(ScriptedModel("Hello there")).chat_stream(HI).collect().text == "Hello there"


# Metrics


def test_the_instruments_have_the_boundaries_of_the_conventions(recorded: Recorded) -> None:
    run = run_chat(
        ScriptedModel(turn(called("look")), [TextDelta("a"), TextDelta("b"), END_OF_TURN]),
        HI,
        tools=[named("look")],
        middleware=[recorded.middleware()],
    )
    run.collect()
    tokens = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864)
    agents = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 51.2, 102.4, 204.8, 409.6)
    assert {name: tuple(points[0].explicit_bounds) for name, points in recorded.metrics().items()} == {
        "gen_ai.client.operation.duration": SECONDS,
        "gen_ai.client.operation.time_to_first_chunk": SECONDS,
        "gen_ai.client.operation.time_per_output_chunk": SECONDS,
        "gen_ai.client.token.usage": tokens,
        "gen_ai.invoke_agent.duration": agents,
        "gen_ai.execute_tool.duration": SECONDS,
    }


def test_a_stream_records_metrics(recorded: Recorded) -> None:
    steps = [TextDelta("a"), TextDelta("b"), TextDelta("c"), END_OF_TURN]
    recorded.traced(ScriptedModel(steps, name="anthropic", model="m")).chat_stream(HI).collect()
    metrics = recorded.metrics()
    attributes = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "anthropic",
        "gen_ai.request.model": "m",
        "gen_ai.response.model": "big-2026",
    }
    seen = {name: [(dict(point.attributes), point.count) for point in points] for name, points in metrics.items()}
    assert seen == {
        "gen_ai.client.operation.duration": [(attributes, 1)],
        "gen_ai.client.operation.time_to_first_chunk": [(attributes, 1)],
        "gen_ai.client.operation.time_per_output_chunk": [(attributes, 3)],
        "gen_ai.client.token.usage": [
            ({**attributes, "gen_ai.token.type": "input"}, 1),
            ({**attributes, "gen_ai.token.type": "output"}, 1),
        ],
    }
    assert [point.sum for point in metrics["gen_ai.client.token.usage"]] == [100, 20]


INFERENCE = "gen_ai.client.inference"
NAMES_BEFORE_2026 = {
    "gen_ai.client.operation.duration",
    "gen_ai.client.operation.time_to_first_chunk",
    "gen_ai.client.operation.time_per_output_chunk",
    "gen_ai.client.token.usage",
}
LATEST_NAMES = {
    f"{INFERENCE}.duration",
    f"{INFERENCE}.time_to_first_chunk",
    f"{INFERENCE}.time_per_output_chunk",
    f"{INFERENCE}.operation.input_tokens",
    f"{INFERENCE}.operation.output_tokens",
    f"{INFERENCE}.usage.input_tokens",
    f"{INFERENCE}.usage.output_tokens",
    f"{INFERENCE}.usage.cache_read.input_tokens",
    f"{INFERENCE}.usage.cache_write.input_tokens",
    f"{INFERENCE}.usage.reasoning.output_tokens",
}


@pytest.mark.parametrize(
    ("opt_in", "names"),
    [
        ("http, database/dup", NAMES_BEFORE_2026),
        ("http, gen_ai_latest_experimental", LATEST_NAMES),
        ("gen_ai_latest_experimental/dup", NAMES_BEFORE_2026 | LATEST_NAMES),
    ],
)
def test_the_environment_chooses_the_names_of_the_metrics(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch, opt_in: str, names: set[str]
) -> None:
    monkeypatch.setenv("OTEL_SEMCONV_STABILITY_OPT_IN", opt_in)
    recorded.traced(ScriptedModel([TextDelta("a"), TextDelta("b"), END_OF_TURN])).chat_stream(HI).collect()
    assert set(recorded.metrics()) == names


def test_the_latest_names_count_the_tokens_and_their_parts(recorded: Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SEMCONV_STABILITY_OPT_IN", "gen_ai_latest_experimental")
    model = recorded.traced(ScriptedModel(*[[TextDelta("a"), END_OF_TURN]] * 2, name="anthropic", model="m"))
    for _ in range(2):
        model.chat_stream(HI).collect()
    metrics = recorded.metrics()
    usage = {name: points[0].value for name, points in metrics.items() if ".usage." in name}
    assert usage == {
        f"{INFERENCE}.usage.input_tokens": 200,
        f"{INFERENCE}.usage.output_tokens": 40,
        f"{INFERENCE}.usage.cache_read.input_tokens": 120,
        f"{INFERENCE}.usage.cache_write.input_tokens": 60,
        f"{INFERENCE}.usage.reasoning.output_tokens": 30,
    }
    assert dict(metrics[f"{INFERENCE}.usage.input_tokens"][0].attributes) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "anthropic",
        "gen_ai.request.model": "m",
        "gen_ai.response.model": "big-2026",
        "gen_ai.token.modality": "unknown",
    }
    (calls,) = metrics[f"{INFERENCE}.operation.input_tokens"]
    assert (calls.count, calls.sum) == (2, 200)


def test_a_failed_call_counts_no_tokens_under_the_latest_names(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_SEMCONV_STABILITY_OPT_IN", "gen_ai_latest_experimental")
    with pytest.raises(TruncatedStreamError):
        recorded.traced(ScriptedModel([TextDelta("a")])).chat_stream(HI).collect()
    metrics = recorded.metrics()
    (point,) = metrics[f"{INFERENCE}.usage.input_tokens"]
    assert point.value == 0
    assert "error.type" not in point.attributes
    assert f"{INFERENCE}.operation.input_tokens" not in metrics


def test_the_metric_of_times_between_chunks_can_be_switched_off(recorded: Recorded) -> None:
    recorded.traced(ScriptedModel("a b c"), times_chunks=False).chat_stream(HI).collect()
    run_chat(ScriptedModel("a b c"), HI, middleware=[recorded.middleware(times_chunks=False)]).collect()
    assert "gen_ai.client.operation.time_per_output_chunk" not in recorded.metrics()


def test_the_metrics_of_a_failure_have_its_type(recorded: Recorded) -> None:
    with pytest.raises(TruncatedStreamError):
        recorded.traced(ScriptedModel([TextDelta("a")])).chat_stream(HI).collect()
    (point,) = recorded.metrics()["gen_ai.client.operation.duration"]
    assert point.attributes["error.type"] == "TruncatedStreamError"


# Runs


def test_the_turns_and_tool_calls_of_a_run_are_children_of_its_span(recorded: Recorded) -> None:
    model = ScriptedModel(
        turn("Let me see.", called("look", city="Paris"), usage=Usage(10, 5)), turn("Rain.", usage=Usage(20, 3))
    )
    tracer = recorded.tracer_provider.get_tracer("test")
    with tracer.start_as_current_span("view"):
        run_chat(
            model,
            HI,
            tools=[named("look")],
            middleware=[recorded.middleware(agent_name="Frog", conversation_id="conv_1")],
        ).collect()
    assert recorded.names == [
        "view",
        "invoke_agent Frog",
        "chat scripted-1",
        "execute_tool look",
        "chat scripted-1",
    ]
    run = recorded.span("invoke_agent Frog")
    below = [span for span in recorded.spans if span.name.startswith(("chat", "execute_tool"))]
    assert {parent_of(span) for span in below} == {id_of(run)}
    assert parent_of(run) == id_of(recorded.span("view"))
    assert [span.kind for span in (run, *below)] == [
        SpanKind.INTERNAL,
        SpanKind.CLIENT,
        SpanKind.INTERNAL,
        SpanKind.CLIENT,
    ]
    assert recorded.attributes("invoke_agent Frog") == {
        "gen_ai.operation.name": "invoke_agent",
        "gen_ai.provider.name": "scripted",
        "gen_ai.request.model": "scripted-1",
        "gen_ai.agent.name": "Frog",
        "gen_ai.conversation.id": "conv_1",
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": 30,
        "gen_ai.usage.output_tokens": 8,
    }
    assert recorded.attributes("execute_tool look") == {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "look",
        "gen_ai.tool.type": "function",
        "gen_ai.tool.description": "A tool.",
        "gen_ai.tool.call.id": "c1",
        "gen_ai.agent.name": "Frog",
    }
    assert [dict(span.attributes or {})["gen_ai.response.finish_reasons"] for span in (below[0], below[2])] == [
        ("tool_call",),
        ("stop",),
    ]
    assert {dict(span.attributes or {})["gen_ai.conversation.id"] for span in (below[0], below[2])} == {"conv_1"}


def test_a_turn_ends_before_its_tools_run(recorded: Recorded) -> None:
    seen: list[list[str]] = []
    tools = [named("look", lambda: seen.append(recorded.names))]
    run_chat(
        ScriptedModel(turn(called("look")), "Done."), HI, tools=tools, middleware=[recorded.middleware()]
    ).collect()
    assert seen == [["chat scripted-1"]]


def test_spans_made_by_parallel_tools_are_children_of_their_call(recorded: Recorded) -> None:
    tracer = recorded.tracer_provider.get_tracer("test")
    together = threading.Barrier(3)

    def look(city: str) -> str:
        together.wait(PATIENCE_S)
        with tracer.start_as_current_span(f"in {city}"):
            return city

    calls = [piece for n in "123" for piece in called("look", f"c{n}", city=n)]
    run_chat(
        ScriptedModel(turn(calls), "Done."), HI, tools=[named("look", look)], middleware=[recorded.middleware()]
    ).collect()
    by_call = {dict(s.attributes or {}).get("gen_ai.tool.call.id"): id_of(s) for s in recorded.spans}
    assert {span.name: parent_of(span) for span in recorded.spans if span.name.startswith("in ")} == {
        f"in {n}": by_call[f"c{n}"] for n in "123"
    }


def test_a_run_inside_a_tool_is_a_child_of_the_call(recorded: Recorded) -> None:
    middleware = recorded.middleware(agent_name="outer")

    def ask() -> str:
        inner = recorded.middleware(agent_name="inner")
        return run_chat(ScriptedModel("Yes.", model="m2"), HI, middleware=[inner]).collect().text

    run_chat(
        ScriptedModel(turn(called("ask")), "Well."), HI, tools=[named("ask", ask)], middleware=[middleware]
    ).collect()
    assert parent_of(recorded.span("invoke_agent inner")) == id_of(recorded.span("execute_tool ask"))
    assert parent_of(recorded.span("chat m2")) == id_of(recorded.span("invoke_agent inner"))


def test_the_span_of_a_tool_call_ends_when_its_tool_returns(recorded: Recorded) -> None:
    fast_is_over = threading.Event()
    tools = [named("slow", lambda: fast_is_over.wait(PATIENCE_S)), named("fast", fast_is_over.set)]
    model = ScriptedModel(turn([*called("slow", "c1"), *called("fast", "c2")]), "Done.")
    run_chat(model, HI, tools=tools, middleware=[recorded.middleware()]).collect()
    slow, fast = recorded.span("execute_tool slow"), recorded.span("execute_tool fast")
    assert (fast.end_time or 0) <= (slow.end_time or 0)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ToolError("no such city"), "ToolError"),
        (ValueError("my secret"), "ValueError"),
        (json.JSONDecodeError("no", "", 0), "json.decoder.JSONDecodeError"),
    ],
)
def test_a_failed_tool_call_has_the_type_of_its_error(recorded: Recorded, error: Exception, expected: str) -> None:
    def fail() -> None:
        raise error

    run_chat(
        ScriptedModel(turn(called("fail")), "Well."),
        HI,
        tools=[named("fail", fail)],
        middleware=[recorded.middleware()],
    ).collect()
    span = recorded.span("execute_tool fail")
    assert (recorded.attributes(span.name)["error.type"], span.status.status_code) == (expected, StatusCode.ERROR)
    assert str(error) not in span.to_json()
    (point,) = recorded.metrics()["gen_ai.execute_tool.duration"]
    assert point.attributes == {"gen_ai.tool.name": "fail", "gen_ai.tool.type": "function", "error.type": expected}


def test_a_tool_call_that_times_out_has_the_type_timeout(recorded: Recorded) -> None:
    may_end = threading.Event()
    slow = named("slow", lambda: may_end.wait(PATIENCE_S), timeout=0.01)
    run_chat(
        ScriptedModel(turn(called("slow")), "Well."), HI, tools=[slow], middleware=[recorded.middleware()]
    ).collect()
    assert recorded.attributes("execute_tool slow")["error.type"] == "timeout"
    may_end.set()


def test_a_tool_call_that_is_not_executed_has_no_span(recorded: Recorded) -> None:
    class Refusing(Middleware):
        def before_tool(self, run: Any, call: ToolCallBlock) -> Refusal:
            return Refusal("not now")

    model = ScriptedModel(turn([*called("look"), *called("unknown", "c2")]), "Well.")
    run_chat(model, HI, tools=[named("look")], middleware=[recorded.middleware(), Refusing()]).collect()
    assert recorded.names == ["invoke_agent", "chat scripted-1", "chat scripted-1"]


def test_other_middleware_and_the_next_run_see_the_tool_unchanged(recorded: Recorded) -> None:
    seen: list[Any] = []

    class Looking(Middleware):
        def before_tool(self, run: Any, call: ToolCallBlock) -> ToolCallBlock:
            tool = run.tools[call.name]
            seen.append((tool.name, tool.definition, tool.function, tool.timeout))
            return call

    def function(context: ToolContext) -> str:
        return context.call_id

    tool = named("look", function, timeout=5)
    for _ in range(2):
        model = ScriptedModel(turn(called("look")), "Well.")
        run_chat(model, HI, tools=[tool], middleware=[recorded.middleware(), Looking()]).collect()
    assert seen == [("look", tool.definition, function, 5)] * 2
    assert recorded.names.count("execute_tool look") == 2


@pytest.mark.parametrize("where", ["the call", "the stream"])
def test_a_run_that_fails_ends_its_spans_with_the_type(recorded: Recorded, where: str) -> None:
    error = RateLimitError("busy")
    script: Script = error if where == "the call" else [TextDelta("a"), error]
    with pytest.raises(RateLimitError):
        run_chat(ScriptedModel(script), HI, middleware=[recorded.middleware()]).collect()
    assert {span.name: dict(span.attributes or {})["error.type"] for span in recorded.spans} == {
        "chat scripted-1": "RateLimitError",
        "invoke_agent": "RateLimitError",
    }


def test_closing_a_run_early_ends_its_spans_without_an_error(recorded: Recorded) -> None:
    with run_chat(ScriptedModel("Hello there"), HI, middleware=[recorded.middleware()]) as run:
        while not isinstance(next(run), TextDelta):
            pass
    assert sorted(recorded.names) == ["chat scripted-1", "invoke_agent"]
    assert not any("error.type" in dict(span.attributes or {}) for span in recorded.spans)


def test_dropping_a_run_ends_its_spans(recorded: Recorded) -> None:
    run = run_chat(ScriptedModel("Hello there"), HI, middleware=[recorded.middleware()])
    next(run)
    del run
    gc.collect()
    wait_until(lambda: sorted(recorded.names) == ["chat scripted-1", "invoke_agent"])


def test_a_cancelled_run_and_its_turn_have_the_type_cancelled(recorded: Recorded) -> None:
    run = run_chat(ScriptedModel("Hello there you"), HI, middleware=[recorded.middleware()])
    while not isinstance(next(run), TextDelta):
        pass
    run.cancel()
    list(run)
    assert {span.name: dict(span.attributes or {})["error.type"] for span in recorded.spans} == {
        "chat scripted-1": "cancelled",
        "invoke_agent": "cancelled",
    }
    assert recorded.attributes("invoke_agent")["gen_ai.response.finish_reasons"] == ("aborted",)


def test_a_run_that_reaches_a_limit_has_the_type_of_the_limit(recorded: Recorded) -> None:
    model = ScriptedModel(turn(called("look")))
    config = RunConfig(max_iterations=1)
    run_chat(model, HI, tools=[named("look")], middleware=[recorded.middleware()], config=config).collect()
    assert recorded.attributes("invoke_agent")["error.type"] == "max_iterations"
    assert "error.type" not in recorded.attributes("chat scripted-1")


def test_cancelling_a_run_inside_a_tool_ends_the_span_of_the_call(recorded: Recorded) -> None:
    may_end, is_in = threading.Event(), threading.Event()

    def wait() -> None:
        is_in.set()
        may_end.wait(PATIENCE_S)

    run = run_chat(
        ScriptedModel(turn(called("wait"))), HI, tools=[named("wait", wait)], middleware=[recorded.middleware()]
    )
    reading = Caught(lambda: list(run))
    assert is_in.wait(PATIENCE_S)
    run.cancel()
    reading.within(PATIENCE_S)
    assert recorded.attributes("execute_tool wait")["error.type"] == "cancelled"
    may_end.set()


def test_a_tool_call_that_begins_after_the_run_still_ends_its_span(recorded: Recorded) -> None:
    middleware, tools = recorded.middleware(), {"look": named("look")}
    run = RunInfo("run_1", "scripted", "m", tools, CancelToken())
    middleware.on_run_started(run)
    middleware.on_dropped(run)
    tools["look"].run({}, ToolContext("run_1", "step_1", "c1", CancelToken()))
    assert recorded.names == ["invoke_agent", "execute_tool look"]


def test_a_tool_that_aborts_the_run_has_the_type_of_the_abort(recorded: Recorded) -> None:
    def stop() -> None:
        raise AbortRun("enough")

    run_chat(
        ScriptedModel(turn(called("stop"))), HI, tools=[named("stop", stop)], middleware=[recorded.middleware()]
    ).collect()
    assert recorded.attributes("execute_tool stop")["error.type"] == "AbortRun"


def test_a_turn_has_its_finish_reason_when_other_middleware_drops_the_turn_finished(recorded: Recorded) -> None:
    class Dropping(Middleware):
        def on_chunk(self, run: Any, chunk: Any) -> Any:
            return None if isinstance(chunk, TurnFinished) else chunk

    model = ScriptedModel([TextDelta("Hi"), END_OF_TURN])
    run_chat(model, HI, middleware=[recorded.middleware(), Dropping()]).collect()
    attributes = recorded.attributes("chat scripted-1")
    assert (attributes["gen_ai.response.id"], attributes["gen_ai.response.finish_reasons"]) == ("r1", ("stop",))


def test_the_span_of_a_turn_covers_all_its_attempts(recorded: Recorded, server: ProviderServer) -> None:
    server.reply(Reply.json({"error": {"message": "busy"}}, status=503))
    server.reply(Reply(text("Hi"), END))
    run_chat(RetryingModel(model_of(server), NOW), HI, middleware=[recorded.middleware()]).collect()
    assert recorded.names == ["invoke_agent", "chat m"]


def test_runs_in_many_threads_do_not_mix(recorded: Recorded) -> None:
    tracer, middleware = recorded.tracer_provider.get_tracer("test"), recorded.middleware()
    together = threading.Barrier(20)

    def look(n: int) -> str:
        with tracer.start_as_current_span(f"inside {n}"):
            return "fine"

    def answer(n: int) -> None:
        together.wait(PATIENCE_S)
        with tracer.start_as_current_span(f"view {n}"):
            model = ScriptedModel(turn(called("look", f"call {n}", n=n)), "Done.", model=f"m{n}")
            run_chat(model, HI, tools=[named("look", look)], middleware=[middleware]).collect()

    for thread in [Caught(lambda n=n: answer(n)) for n in range(20)]:  # type: ignore[misc]
        assert thread.within(PATIENCE_S * 3).error is None
    traces: dict[int, set[str]] = {}
    for span in recorded.spans:
        assert span.context is not None
        call_id = dict(span.attributes or {}).get("gen_ai.tool.call.id", "")
        traces.setdefault(span.context.trace_id, set()).add(f"{span.name} {call_id}".strip())
    assert sorted(map(sorted, traces.values())) == sorted(
        [
            sorted([f"view {n}", "invoke_agent", f"chat m{n}", f"execute_tool look call {n}", f"inside {n}"])
            for n in range(20)
        ]
    )


# Contents


REQUEST = ChatRequest(
    [
        Message.user("What is on it?"),
        Message.assistant([ToolCallBlock("c0", "zoom", {"by": 2})]),
        Message.tool_result("c0", "zoomed"),
        Message.user([ImageBlock(Base64Source("image/png", b"many bytes"))]),
    ],
    system_prompt=[SystemBlock("Be brief."), SystemBlock("Be kind to us.")],
)


def _with_contents(recorded: Recorded, **options: Any) -> None:
    model = ScriptedModel(
        turn([ReasoningDelta("Hm."), ReasoningFinished("sig")], called("look", city="Köln")), turn("Rain."), model="m"
    )
    tools = [named("look", lambda city: f"{city}: rain")]
    run_chat(model, REQUEST, tools=tools, middleware=[recorded.middleware(**options)]).collect()


def test_contents_are_not_recorded_by_default(recorded: Recorded) -> None:
    _with_contents(recorded)
    everything = "".join(span.to_json() for span in recorded.spans)
    assert not [
        word
        for word in ("What is on it", "kind to us", "zoomed", "Hm.", "Köln", "ln: rain", "Rain")
        if word in everything
    ]


@pytest.mark.parametrize("how", ["argument", "true", "SPAN_ONLY", "span_and_event"])
def test_contents_are_recorded_on_request(recorded: Recorded, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    if how != "argument":
        monkeypatch.setenv(CAPTURE_CONTENT, how)
    _with_contents(recorded, **({"capture_content": True} if how == "argument" else {}))
    first = min((s for s in recorded.spans if s.name == "chat m"), key=lambda span: span.start_time or 0)
    content = dict(first.attributes or {})
    messages = [
        {"role": "user", "parts": [{"type": "text", "content": "What is on it?"}]},
        {"role": "assistant", "parts": [{"type": "tool_call", "id": "c0", "name": "zoom", "arguments": {"by": 2}}]},
        {"role": "user", "parts": [{"type": "tool_call_response", "id": "c0", "response": "zoomed"}]},
        {
            "role": "user",
            "parts": [{"type": "blob", "modality": "image", "mime_type": "image/png", "content": ""}],
        },
    ]
    instructions = [{"type": "text", "content": "Be brief."}, {"type": "text", "content": "Be kind to us."}]
    assert json.loads(str(content["gen_ai.input.messages"])) == messages
    assert json.loads(str(content["gen_ai.system_instructions"])) == instructions
    assert json.loads(str(content["gen_ai.output.messages"])) == [
        {
            "role": "assistant",
            "parts": [
                {"type": "reasoning", "content": "Hm."},
                {"type": "tool_call", "id": "c1", "name": "look", "arguments": {"city": "Köln"}},
            ],
            "finish_reason": "tool_call",
        }
    ]
    called_with = recorded.attributes("execute_tool look")
    assert json.loads(called_with["gen_ai.tool.call.arguments"]) == {"city": "Köln"}
    assert called_with["gen_ai.tool.call.result"] == "Köln: rain"
    of_run = recorded.attributes("invoke_agent")
    assert json.loads(of_run["gen_ai.input.messages"]) == messages
    assert json.loads(of_run["gen_ai.system_instructions"]) == instructions
    assert json.loads(of_run["gen_ai.output.messages"]) == [
        {"role": "assistant", "parts": [{"type": "text", "content": "Rain."}], "finish_reason": "stop"}
    ]


def test_between_two_redactions_only_tool_arguments_are_recorded_unredacted(recorded: Recorded) -> None:
    model = ScriptedModel(turn("I: sk-1", called("look", key="sk-2")), turn("And sk-3"))
    redaction = [Redaction(re.compile(r"sk-\d")), Redaction(re.compile(r"sk-\d"))]
    run_chat(
        model,
        ChatRequest("You: sk-0", system_prompt="We: sk-5"),
        tools=[named("look", lambda key: f"{key}, sk-4")],
        middleware=[redaction[0], recorded.middleware(capture_content=True), redaction[1]],
    ).collect()
    attributes = [(name, value) for span in recorded.spans for name, value in dict(span.attributes or {}).items()]
    assert [(name, value) for name, value in attributes if "sk-" in str(value)] == [
        ("gen_ai.tool.call.arguments", '{"key": "sk-2"}')
    ]
    assert any("[redacted]" in str(value) for _, value in attributes)


@pytest.mark.parametrize("variable", ["", "false", "no_content", "event_only"])
def test_other_values_of_the_variable_record_no_contents(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(CAPTURE_CONTENT, variable)
    recorded.traced(ScriptedModel("Hi", model="m")).chat_stream(HI).collect()
    assert "gen_ai.input.messages" not in recorded.attributes("chat m")


def test_the_argument_overrides_the_variable(recorded: Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CAPTURE_CONTENT, "true")
    recorded.traced(ScriptedModel("Hi", model="m"), capture_content=False).chat_stream(HI).collect()
    assert "gen_ai.input.messages" not in recorded.attributes("chat m")


def test_the_received_part_of_a_broken_answer_is_recorded(recorded: Recorded) -> None:
    model = recorded.traced(ScriptedModel([TextDelta("Once upon")], model="m"), capture_content=True)
    with pytest.raises(TruncatedStreamError):
        model.chat_stream(HI).collect()
    assert json.loads(recorded.attributes("chat m")["gen_ai.output.messages"]) == [
        {"role": "assistant", "parts": [{"type": "text", "content": "Once upon"}], "finish_reason": "error"}
    ]


def test_a_lone_surrogate_does_not_lose_the_batch(recorded: Recorded) -> None:
    model = ScriptedModel([TextDelta("\ud83d"), TurnFinished(FinishReason.END_TURN)], model="m")
    recorded.traced(model, capture_content=True).chat_stream(HI).collect()
    recorded.attributes("chat m")["gen_ai.output.messages"].encode()


# What fails in OpenTelemetry


class BreakingProcessor(SpanProcessor):
    def on_start(self, span: Any, parent_context: Any = None) -> None:
        raise RuntimeError("broken")


def test_a_failure_at_the_start_of_a_span_does_not_break_the_run(recorded: Recorded) -> None:
    recorded.tracer_provider.add_span_processor(BreakingProcessor())
    assert recorded.traced(ScriptedModel("Hello")).chat_stream(HI).collect().text == "Hello"
    model = ScriptedModel(turn(called("look")), "Done.")
    run = run_chat(model, HI, tools=[named("look")], middleware=[recorded.middleware()])
    assert run.collect().text == "Done."


class BreakingAtTheEnd(SpanProcessor):
    def on_end(self, span: ReadableSpan) -> None:
        raise RuntimeError("broken")


def test_a_failure_at_the_end_of_a_span_is_logged_and_does_not_break_the_run(
    recorded: Recorded, caplog: pytest.LogCaptureFixture
) -> None:
    recorded.tracer_provider.add_span_processor(BreakingAtTheEnd())
    with caplog.at_level(logging.ERROR, "completion.otel"):
        assert recorded.traced(ScriptedModel("Hello")).chat_stream(HI).collect().text == "Hello"
        model = ScriptedModel(turn(called("look")), "Done.")
        run = run_chat(model, HI, tools=[named("look")], middleware=[recorded.middleware()])
        assert run.collect().text == "Done."
    assert {record.getMessage() for record in caplog.records} == {"OpenTelemetry failed; this record is lost"}


def test_without_the_package_the_error_says_what_to_install() -> None:
    code = """
import sys
sys.modules["opentelemetry"] = None
from completion import ConfigurationError
from completion.otel import OpenTelemetry, traced
from completion.testing import ScriptedModel
for attempt in (OpenTelemetry, lambda: traced(ScriptedModel("Hi"))):
    try:
        attempt()
    except ConfigurationError as error:
        print(error)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.count("pip install opentelemetry-api") == 2


def test_opentelemetry_is_imported_on_first_use() -> None:
    code = "import completion.otel, sys; print([name for name in sys.modules if name.startswith('opentelemetry')])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_an_open_stream_does_not_delay_the_exit() -> None:
    code = """
from completion import ChatRequest
from completion.otel import traced
from completion.testing import ScriptedModel
stream = traced(ScriptedModel("Hello there")).chat_stream(ChatRequest("Hi"))
next(stream)
ring = [stream]
ring.append(ring)
"""
    subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, timeout=PATIENCE_S * 3)


# A real receiver


@pytest.fixture
def receiver() -> Iterator[tuple[str, list[Any]]]:
    """An OTLP receiver on loopback: its URL, and the spans that it got."""
    service = pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2")
    received: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            request = service.ExportTraceServiceRequest.FromString(body)
            received.extend(
                (span, scope.scope)
                for resource in request.resource_spans
                for scope in resource.scope_spans
                for span in scope.spans
            )
            answer = service.ExportTraceServiceResponse().SerializeToString()
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}/v1/traces", received
        http.shutdown()
        thread.join(PATIENCE_S)


def test_a_real_receiver_gets_the_spans(receiver: tuple[str, list[Any]], server: ProviderServer) -> None:
    exporters = pytest.importorskip("opentelemetry.exporter.otlp.proto.http.trace_exporter")
    url, received = receiver
    provider = TracerProvider(resource=Resource({"service.name": "test"}), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporters.OTLPSpanExporter(endpoint=url, timeout=PATIENCE_S)))
    call = {"index": 0, "id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"city": "Köln"}'}}
    server.reply(
        Reply(
            event({"id": "r1", "choices": [{"index": 0, "delta": {"tool_calls": [call]}}]}),
            event({"id": "r1", "choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}),
            event("[DONE]"),
        )
    )
    server.reply(Reply(text("Rain"), text("."), END))
    run_chat(
        model_of(server),
        HI,
        tools=[named("look", lambda city: f"{city}: rain")],
        middleware=[OpenTelemetry(provider, capture_content=True)],
    ).collect()
    assert provider.force_flush(int(PATIENCE_S * 1000))
    provider.shutdown()

    spans = sorted((span for span, _ in received), key=lambda span: span.start_time_unix_nano)
    assert [(span.name, span.kind) for span in spans] == [
        ("invoke_agent", 1),
        ("chat m", 3),
        ("execute_tool look", 1),
        ("chat m", 3),
    ]
    assert {scope.name for _, scope in received} == {"completion"}
    assert [span.parent_span_id for span in spans] == [b"", *[spans[0].span_id] * 3]
    assert {span.trace_id for span in spans} == {spans[0].trace_id}
    attributes = {attribute.key: attribute.value for attribute in spans[3].attributes}
    assert attributes["gen_ai.response.finish_reasons"].array_value.values[0].string_value == "stop"
    assert attributes["gen_ai.request.stream"].bool_value is True
    assert attributes["gen_ai.response.time_to_first_chunk"].double_value > 0
    assert json.loads(attributes["gen_ai.output.messages"].string_value) == [
        {"role": "assistant", "parts": [{"type": "text", "content": "Rain."}], "finish_reason": "stop"}
    ]
    called_with = {attribute.key: attribute.value.string_value for attribute in spans[2].attributes}
    assert called_with["gen_ai.tool.call.result"] == "Köln: rain"
