"""OpenTelemetry as middleware of a run.

    run_chat(model, request, tools, middleware=[OpenTelemetry()])

    invoke_agent                    the run
        chat {model}                each turn, with all its attempts
        execute_tool {name}         each tool call; spans that the tool makes are its children
        chat {model}

    traced(model).chat_stream(request)          one ``chat {model}``, for a model without a run

The names are those of the GenAI semantic conventions, which are still in development (read on 2026-11-26):
https://github.com/open-telemetry/semantic-conventions-genai/tree/main/docs/gen-ai

Only OpenTelemetry's API is used: without an SDK all of this does nothing. An error in here is logged and never reaches
the run. Messages are recorded only on request. The messages of errors are never recorded: they may quote a prompt.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from completion.contract.chunks import StreamChunk
from completion.contract.messages import Block
from completion.contract.request import ChatRequest, ToolDefinition
from completion.contract.run import HistoryCompacted, RunFinished, RunStarted, StepFinished, StepStarted, ToolResult
from completion.contract.turn import Turn
from completion.engine.middleware import Middleware, RunInfo
from completion.engine.tools import Tool, ToolContext
from completion.otel.attributes import (
    as_json,
    captures_content,
    error_description,
    error_type,
    finish_reason,
    input_attributes,
    provider_name,
    tool_result_attributes,
    usage_attributes,
    without_none,
)
from completion.otel.spans import ChatOperation, Operation, log_failures, make_instruments, run_outside_finalizer

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider

# The chunks of the run itself. All others belong to a turn.
_RUN_CHUNKS = frozenset({RunStarted, StepStarted, HistoryCompacted, ToolResult, StepFinished, RunFinished})


class OpenTelemetry(Middleware):
    """Middleware: spans and metrics for runs.

    As the last middleware it records the request that is sent and what the model says; as the first, what the reader
    gets. One object may serve many runs at the same time. It replaces the tools of a run by ones that make a span for
    each call.

    Args:
        tracer_provider, meter_provider: None uses the global ones.
        capture_content: record messages, the system prompt, and the arguments and results of tools. None asks the
            environment variable OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT.
        agent_name: a name for the runs: ``invoke_agent {agent_name}``.
        conversation_id: an attribute of the runs and of their turns.
        times_chunks: record the metric ``time_per_output_chunk``, after each turn. With a MeterProvider this takes
            about as long as reading the chunks. Everything else in this class takes almost no time.

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
        self._instruments = make_instruments(tracer_provider, meter_provider)
        self._captures_content = captures_content(capture_content)
        self._times_chunks = times_chunks
        self._agent = without_none({"gen_ai.agent.name": agent_name})
        self._conversation = without_none({"gen_ai.conversation.id": conversation_id})
        self._open_runs: dict[str, _OpenRun] = {}

    def on_run_started(self, run: RunInfo) -> None:
        with log_failures():
            metric_attributes = {**self._agent, "gen_ai.request.model": run.model}
            provider = {"gen_ai.provider.name": provider_name(run.provider)}
            attributes = {**metric_attributes, **provider, **self._conversation}
            names = list(self._agent.values())
            agent = Operation(self._instruments, "invoke_agent", names, attributes, metric_attributes)
            self._open_runs[run.run_id] = open_run = _OpenRun(agent)
            for name, tool in run.tools.items():
                run.tools[name] = _TracedTool(tool, open_run, self._agent, captures_content=self._captures_content)

    def on_request(self, run: RunInfo, request: ChatRequest) -> ChatRequest:
        open_run = self._open_runs.get(run.run_id)
        if open_run is not None:
            with log_failures():
                agent = open_run.agent
                if open_run.chat is None and self._captures_content and agent.span.is_recording():
                    agent.set(input_attributes(request))
                open_run.chat = ChatOperation(
                    self._instruments, (run.provider, run.model), lambda: run.base_url, request,
                    self._conversation, agent.context,
                    captures_content=self._captures_content, times_chunks=self._times_chunks,
                )  # fmt: skip
        return request

    def on_chunk(self, run: RunInfo, chunk: StreamChunk) -> StreamChunk | None:
        open_run = self._open_runs.get(run.run_id)
        if open_run is not None:
            if type(chunk) not in _RUN_CHUNKS:
                if open_run.chat is not None:
                    open_run.chat.add(chunk)
            elif isinstance(chunk, ToolResult):
                self._end_tool_call(run, open_run, chunk)
        return chunk

    def on_turn_finished(self, run: RunInfo, turn: Turn) -> None:
        open_run = self._open_runs.get(run.run_id)
        if open_run is not None and open_run.chat is not None and turn.reason is not None:
            open_run.chat.finish(turn)  # needed where other middleware has dropped the TurnFinished

    def on_finished(self, run: RunInfo, end: RunFinished) -> None:
        open_run = self._open_runs.get(run.run_id)
        if open_run is not None:
            with log_failures():
                attributes = {"gen_ai.response.finish_reasons": (finish_reason(end),), **usage_attributes(end.usage)}
                output = open_run.chat.output if open_run.chat is not None else {}
                open_run.agent.set(attributes | output)
        self._end(run, end.abort.kind if end.abort is not None else None)

    def on_failed(self, run: RunInfo, error: BaseException) -> None:
        self._end(run, error_type(error), error_description(error))

    def on_dropped(self, run: RunInfo) -> None:
        run_outside_finalizer(lambda: self._end(run))

    def _end_tool_call(self, run: RunInfo, open_run: _OpenRun, result: ToolResult) -> None:
        operation = open_run.tool_calls.pop(result.call_id, None)
        if operation is None:  # the tool was not called: unknown, refused, or with invalid arguments
            return
        if self._captures_content:
            with log_failures():
                operation.set(tool_result_attributes(result.blocks))
        if not operation.is_stopped:  # the tool still runs: the engine does not wait for it any longer
            operation.end("cancelled" if run.token.cancelled else "timeout")
        operation.end("tool_error" if result.is_error else None)

    def _end(self, run: RunInfo, kind: str | None = None, description: str | None = None) -> None:
        """End all spans of the run that are still open."""
        open_run = self._open_runs.pop(run.run_id, None)
        if open_run is not None:
            open_run.is_over = True
            for operation in (*open_run.tool_calls.values(), open_run.chat, open_run.agent):
                if operation is not None:
                    operation.end(kind, description)


@dataclass(slots=True)
class _OpenRun:
    """The operations of a run that has not ended: ``agent`` is the run itself, ``chat`` its latest turn."""

    agent: Operation
    chat: ChatOperation | None = None
    tool_calls: dict[str, Operation] = field(default_factory=dict)
    is_over: bool = False


class _TracedTool(Tool):
    """A tool of one run. Each call has a span, which is the current one in the thread of the call."""

    def __init__(self, inner: Tool, run: _OpenRun, agent: dict[str, str], *, captures_content: bool) -> None:
        self.__dict__.update(inner.__dict__)
        self._inner = inner
        self._open_run = run
        self._agent = agent
        self._captures_content = captures_content

    @property
    def definition(self) -> ToolDefinition:
        return self._inner.definition

    def why_wrong(self, args: Mapping[str, Any]) -> str | None:
        return self._inner.why_wrong(args)

    def run(self, args: dict[str, Any], context: ToolContext) -> tuple[Block, ...]:
        operation = self._begin(args, context)
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
            if self._open_run.is_over:  # the run did not wait for this call, so no ToolResult will end the span
                operation.end()

    def _begin(self, args: dict[str, Any], context: ToolContext) -> Operation | None:
        with log_failures():
            agent = self._open_run.agent
            metric_attributes = {"gen_ai.tool.name": self.name, "gen_ai.tool.type": "function", **self._agent}
            attributes = {
                **metric_attributes,
                "gen_ai.tool.call.id": context.call_id,
                **without_none({"gen_ai.tool.description": self.definition.description or None}),
            }
            if self._captures_content:
                attributes["gen_ai.tool.call.arguments"] = as_json(args)
            operation = Operation(
                agent.instruments, "execute_tool", [self.name], attributes, metric_attributes, agent.context
            )
            self._open_run.tool_calls[context.call_id] = operation
            return operation
        return None
