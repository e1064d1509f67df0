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

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from completion.contract.chunks import StreamChunk
from completion.contract.messages import (
    Block,
)
from completion.contract.request import ChatRequest, ToolDefinition
from completion.contract.run import RunFinished, RunStarted, StepFinished, StepStarted, ToolResult
from completion.contract.turn import Turn
from completion.engine.middleware import Middleware, RunInfo
from completion.engine.tools import Tool, ToolContext
from completion.otel.attributes import (
    _error_type,
    _finish_reason,
    _in_short,
    _is_content_wanted,
    _json,
    _present,
    _provider,
    _response,
    _said_to,
    _tokens,
)
from completion.otel.spans import _Chat, _harmless, _instruments, _Operation, _out_of_finalizers

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider

log = logging.getLogger(__name__)

# Names


_OF_THE_RUN = frozenset({RunStarted, StepStarted, ToolResult, StepFinished, RunFinished})


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


# Spans, and what is measured of them


# Facts, by the names of the conventions


# Contents, in the JSON of the conventions
