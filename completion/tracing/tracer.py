"""The tracer: middleware that writes a line of JSON for each event of a run.

    with JsonTracer("trace.jsonl") as tracer:
        run_chat(model, request, middleware=[tracer])

As the last middleware, it sees what the model gets and what it answers. As the first, it sees what the caller sends and
what the reader gets.
"""

from __future__ import annotations

import logging
import os
import re
import time
import weakref
from collections.abc import Callable, Iterable
from copy import copy
from dataclasses import replace
from functools import wraps
from types import TracebackType
from typing import IO, Any, TypeVar

from completion.contract.chunks import (
    ProviderBlockFinished,
    ReasoningDelta,
    ReasoningFinished,
    RedactedReasoning,
    StreamChunk,
    TextDelta,
    ToolCallArgsDelta,
    ToolCallFinished,
    ToolCallMalformed,
    ToolCallStarted,
    TurnFinished,
)
from completion.contract.messages import (
    Base64Source,
    Block,
    ReasoningBlock,
    TextBlock,
    ToolCallBlock,
    ToolResultBlock,
)
from completion.contract.request import ChatRequest
from completion.contract.run import HistoryCompacted, RunFinished, RunStarted, StepFinished, StepStarted, ToolResult
from completion.engine.middleware import Middleware, RunInfo
from completion.engine.tools import Tool, ToolContext
from completion.tracing.encoding import MAX_CHARS, SCHEMA, encode_text, encoded, json_chars
from completion.tracing.writer import Writer
from completion.wrappers.retry import RetryEvent

log = logging.getLogger(__name__)

_HookT = TypeVar("_HookT", bound=Callable[..., Any])
_Fields = dict[str, Any]

_DELTAS = (TextDelta, ReasoningDelta)
_RUN_CHUNKS = (RunStarted, StepStarted, HistoryCompacted, ToolResult, StepFinished, RunFinished)


def _never_raises(hook: _HookT) -> _HookT:
    """Log the first error of a hook instead of raising it, and return the last argument of the hook unchanged."""

    @wraps(hook)
    def wrapper(self: JsonTracer, run: RunInfo, *arguments: Any) -> Any:
        try:
            hook(self, run, *arguments)
        except Exception:
            self._log_once()
        return arguments[-1] if arguments else None  # the request, chunk, call or result

    return wrapper  # type: ignore[return-value]


class JsonTracer(Middleware):
    """Middleware that writes the events of a run as lines of JSON.

    It changes nothing, and its errors do not affect the run. Lines that cannot be written (the disk is full, a pipe is
    not read) are dropped, logged once, and counted in ``lost`` and in the trace. A worker thread writes the lines, at
    the latest at the end of a run. One tracer may serve many runs and threads; several processes may trace into one
    path.

    Args:
        target: a path, to append to; or a file that is open for text or bytes, for example ``sys.stderr``.
        verbose: also write the contents: prompts, answers, arguments, results, error messages. Default: only their
            sizes.

    Raises:
        OSError: the path cannot be opened.
        TypeError: the target is neither a path nor a file.
    """

    def __init__(self, target: str | os.PathLike[str] | IO[Any], verbose: bool = False) -> None:
        self.verbose = verbose
        self._pid = os.getpid()
        self._runs: dict[str, _RunState | None] = {}  # None: a run that belongs to the parent of a forked process
        self._stamp = _Stamp()
        self._has_logged = False
        self._writer = Writer(target, self._stamp.lost_line)
        self._put = self._writer.put
        self._close = weakref.finalize(self, self._writer.close)  # also at interpreter exit

    @property
    def lost(self) -> int:
        """How many lines were lost because they could not be written."""
        return self._writer.lost

    def close(self) -> None:
        """Write the lines that wait, and close the file if the tracer opened it. Later lines are lost."""
        self._close()

    def __enter__(self) -> JsonTracer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Hooks

    @_never_raises
    def on_run_started(self, run: RunInfo) -> None:
        state = self._state(run)
        if state is not None:
            self._line(run, "run_started", {"tool_names": list(run.tools)})
            run.tools.update({name: state.timed(tool) for name, tool in run.tools.items()})

    @_never_raises
    def on_request(self, run: RunInfo, request: ChatRequest) -> Any:
        state = self._state(run)
        if state is None:
            return
        state.begin_step(run.step_id)
        system = request.system_prompt
        parts = [system] if isinstance(system, str) else [block.text for block in system or ()]
        facts = {
            "iteration": run.iteration,
            "messages": len(request.messages),
            **_sizes(block for message in request.messages for block in message.blocks),
            "system_chars": sum(map(len, parts)),
            "tools": len(request.tools),
            "max_tokens": request.max_tokens,
        }
        self._line(run, "request", facts, _without_secrets(request) if self.verbose else None)

    @_never_raises
    def on_retry(self, run: RunInfo, event: RetryEvent) -> None:
        facts = {"attempt": event.attempt, "max_attempts": event.max_attempts, "delay_ms": _ms(event.delay)}
        self._line(run, "retry", {**facts, **_error(event.error)}, {"message": str(event.error)})

    @_never_raises
    def on_chunk(self, run: RunInfo, chunk: StreamChunk) -> Any:
        state = self._state(run)
        if state is None:
            return
        if isinstance(chunk, _DELTAS):
            self._delta_line(run, state, chunk)
            return
        if isinstance(chunk, RunStarted | RunFinished):  # on_run_started and on_finished write them
            return
        if not isinstance(chunk, _RUN_CHUNKS):
            self._count_chunk(run, state)
        facts = _FACTS[type(chunk)](chunk) if type(chunk) in _FACTS else {}
        match chunk:
            case StepStarted():
                if chunk.iteration == 0:  # a step that answers decisions has no request
                    state.begin_step(chunk.step_id)
                facts["opened_ms"] = _since(state.requested_at)
            case TurnFinished():
                facts.update(
                    duration_ms=_since(state.requested_at),
                    first_chunk_ms=state.first_chunk_ms,
                    chunks=state.chunks,
                    chars=state.chars,
                )
            case StepFinished():
                facts["duration_ms"] = _since(state.requested_at)
        self._line(run, chunk.type, facts, chunk)

    @_never_raises
    def before_tool(self, run: RunInfo, call: ToolCallBlock) -> Any:
        state = self._state(run)
        if state is not None:
            state.calls[call.call_id] = _CallTimes()
        facts = {"call_id": call.call_id, "name": call.name, "chars": json_chars(call.args)}
        self._line(run, "tool_started", facts, call)

    @_never_raises
    def after_tool(self, run: RunInfo, call: ToolCallBlock, result: ToolResultBlock) -> Any:
        state = self._state(run)
        timed = state.calls.get(call.call_id) if state is not None else None
        facts = {
            "call_id": call.call_id,
            "name": call.name,
            "is_error": result.is_error,
            "waited_ms": timed and timed.waited_ms,
            "duration_ms": timed and timed.duration_ms,
            **_sizes(result.blocks),
        }
        self._line(run, "tool_finished", facts, result)

    @_never_raises
    def on_finished(self, run: RunInfo, end: RunFinished) -> None:
        state = self._state(run)
        if state is not None:
            state.begin_step("")
        facts = {
            "reason": end.reason,
            "abort": end.abort and end.abort.kind,
            "usage": end.usage,
            "new_messages": len(end.new_messages),
            **({"pending": [call.call_id for call in end.pending]} if end.pending else {}),
        }
        self._end(run, "run_finished", facts, end)
        self._writer.flush()

    @_never_raises
    def on_failed(self, run: RunInfo, error: BaseException) -> None:
        self._end(run, "run_failed", {**_error(error), "usage": run.usage}, {"message": str(error)})
        self._writer.flush()

    @_never_raises
    def on_dropped(self, run: RunInfo) -> None:
        self._end(run, "run_dropped", {"usage": run.usage})
        self._writer.write_now()  # do not wait: a finalizer may call this

    # Lines

    def _count_chunk(self, run: RunInfo, state: _RunState) -> None:
        if not state.has_first_chunk:
            state.has_first_chunk = True
            state.first_chunk_ms = _since(state.requested_at)
            self._line(run, "first_chunk", {"latency_ms": state.first_chunk_ms})
        state.chunks += 1

    def _delta_line(self, run: RunInfo, state: _RunState, chunk: TextDelta | ReasoningDelta) -> None:
        """The line of a text or reasoning delta.

        Nearly all chunks are deltas. Without ``encoded`` their lines cost half the time.
        """
        self._count_chunk(run, state)
        size = len(chunk.delta)
        state.chars += size
        if size > MAX_CHARS:
            self._line(run, chunk.type, {"chars": size}, chunk)
            return
        state.seq += 1
        content = f',"content":{{"type":"{chunk.type}","delta":{encode_text(chunk.delta)}}}' if self.verbose else ""
        self._put(
            f'{self._stamp.now()},"kind":"{chunk.type}",{state.head}{state.seq}{state.tail},"chars":{size}{content}}}\n'
        )

    def _end(self, run: RunInfo, kind: str, facts: _Fields, content: Any = None) -> None:
        state = self._state(run)
        if state is not None:
            self._line(run, kind, {**facts, "duration_ms": _since(state.started_at)}, content)
        self._runs.pop(run.run_id, None)

    def _line(self, run: RunInfo, kind: str, facts: _Fields, content: Any = None) -> None:
        state = self._state(run)
        if state is None:
            return
        if self.verbose and content is not None:
            facts["content"] = content
        text, cut = encoded(facts)
        rest = f'{text[1:-1]},"cut":{cut}' if cut else text[1:-1]
        state.seq += 1
        head = f'{self._stamp.now()},"kind":{encode_text(kind)},{state.head}{state.seq}{state.tail}'
        self._put(f"{head}{',' if rest else ''}{rest}}}\n")

    def _state(self, run: RunInfo) -> _RunState | None:
        """The state of a run; None if the run began in the process that this one was forked from."""
        if self._pid != os.getpid():
            self._pid = os.getpid()
            self._runs = dict.fromkeys(self._runs)
            self._writer.after_fork()
        if run.run_id not in self._runs:
            self._runs[run.run_id] = _RunState(run)
        return self._runs[run.run_id]

    def _log_once(self) -> None:
        if not self._has_logged:
            self._has_logged = True
            log.exception("JsonTracer: a line could not be built; it is missing in the trace")


class _Stamp:
    """The start of every line: schema and time. The text of a second is formatted once, and used by all its lines."""

    def __init__(self) -> None:
        self._second = (-1, "")

    def now(self) -> str:
        now_ms = time.time_ns() // 1_000_000
        second, ms = divmod(now_ms, 1000)
        cached, text = self._second
        if second != cached:
            text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
            self._second = (second, text)
        return f'{{"schema":{SCHEMA},"ts":"{text}.{ms:03d}Z","ts_ms":{now_ms}'

    def lost_line(self, count: int) -> str:
        """The line that says how many lines were lost. It does not belong to a run."""
        nulls = '"run_id":null,"step_id":null,"seq":null,"provider":null,"model":null'
        return f'{self.now()},"kind":"dropped",{nulls},"lines":{count}}}\n'


class _RunState:
    """The state of a run between its lines.

    ``head`` and ``tail``: the parts of a line before and after its ``seq``. Times are from the monotonic clock.
    """

    def __init__(self, run: RunInfo) -> None:
        self.started_at = time.monotonic()
        self.seq = 0
        self.tail = f',"provider":{encode_text(run.provider)},"model":{encode_text(run.model)}'
        self._run_id = encode_text(run.run_id)
        self.begin_step(run.step_id)

    def begin_step(self, step_id: str) -> None:
        self.head = f'"run_id":{self._run_id},"step_id":{encode_text(step_id) if step_id else "null"},"seq":'
        self.requested_at = time.monotonic()
        self.has_first_chunk = False
        self.first_chunk_ms: float | None = None
        self.chunks = 0
        self.chars = 0
        self.calls: dict[str, _CallTimes] = {}

    def timed(self, tool: Tool) -> Tool:
        """A copy of the tool that records when it starts and ends.

        The hooks cannot tell: after_tool is called in the order of the calls, and may come long after the tool ended.
        """
        timed, run = copy(tool), tool.run

        def timed_run(args: dict[str, Any], context: ToolContext) -> tuple[Block, ...]:
            call = self.calls.get(context.call_id) or _CallTimes()
            call.started_at = time.monotonic()
            try:
                return run(args, context)
            finally:
                call.ended_at = time.monotonic()

        timed.run = timed_run  # type: ignore[method-assign]
        return timed


class _CallTimes:
    """When a call passed before_tool, and when its tool started and ended."""

    def __init__(self) -> None:
        self.approved_at = time.monotonic()
        self.started_at: float | None = None
        self.ended_at: float | None = None

    @property
    def waited_ms(self) -> float | None:
        """The time until the tool started; None if it did not start."""
        return None if self.started_at is None else _ms(self.started_at - self.approved_at)

    @property
    def duration_ms(self) -> float | None:
        """How long the tool ran; until now if it is still running after its timeout."""
        return None if self.started_at is None else _ms((self.ended_at or time.monotonic()) - self.started_at)


# --- the facts of each chunk: sizes and ids, no contents ---------------------------------------------------------

_FACTS: dict[type[StreamChunk], Callable[[Any], _Fields]] = {
    HistoryCompacted: lambda chunk: {
        "cause": chunk.cause, "method": chunk.method,
        "tokens_before": chunk.tokens_before, "tokens_after": chunk.tokens_after,
    },
    ReasoningFinished: lambda chunk: {"signature_chars": len(chunk.signature or "")},
    RedactedReasoning: lambda chunk: {"chars": len(chunk.data)},
    ToolCallStarted: lambda chunk: {"call_id": chunk.call_id, "name": chunk.name},
    ToolCallArgsDelta: lambda chunk: {"call_id": chunk.call_id, "chars": len(chunk.delta)},
    ToolCallFinished: lambda chunk: {
        "call_id": chunk.call_id, "name": chunk.name, "chars": json_chars(chunk.args)
    },
    ToolCallMalformed: lambda chunk: {"call_id": chunk.call_id, "name": chunk.name, "chars": len(chunk.raw)},
    ProviderBlockFinished: lambda chunk: {
        "wire": chunk.provider, "block_type": chunk.data.get("type"), "chars": json_chars(chunk.data)
    },
    TurnFinished: lambda chunk: {
        "reason": chunk.reason,
        "usage": chunk.usage,
        "service_tier": chunk.service_tier,
        "provider_reason": chunk.provider_reason,
        "response_id": chunk.response_id,
        "response_model": chunk.response_model,
    },
    StepStarted: lambda chunk: {"iteration": chunk.iteration},
    ToolResult: lambda chunk: {"call_id": chunk.call_id, "is_error": chunk.is_error, **_sizes(chunk.blocks)},
    StepFinished: lambda chunk: {
        "iteration": chunk.iteration, "usage": chunk.usage, "new_messages": len(chunk.new_messages)
    },
}  # fmt: skip


def _sizes(blocks: Iterable[Block]) -> _Fields:
    """The number of blocks, the characters of their texts and arguments, and the bytes of their files."""
    count = chars = file_bytes = 0
    for block in blocks:
        count += 1
        match block:
            case TextBlock() | ReasoningBlock():
                chars += len(block.text)
            case ToolCallBlock():
                chars += json_chars(block.args)
            case ToolResultBlock():
                inner = _sizes(block.blocks)
                chars, file_bytes = chars + inner["chars"], file_bytes + inner["bytes"]
            case _ if isinstance(source := getattr(block, "source", None), Base64Source):
                file_bytes += (len(source.data) - source.data[-2:].count("=")) * 3 // 4  # of base64
    return {"blocks": count, "chars": chars, "bytes": file_bytes}


def _error(error: BaseException) -> _Fields:
    names = ("status", "code", "request_id", "retry_after", "attempts")
    return {"error": type(error).__name__, **{name: getattr(error, name, None) for name in names}}


def _since(start: float) -> float:
    return _ms(time.monotonic() - start)


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 1)


# --- secrets -----------------------------------------------------------------------------------------------------

# Keys of additional_params whose values are secrets: an MCP server in the request needs its own token, for example.
_SECRET = re.compile(r"api[-_]?key|authorization|headers|cookie|password|passwd|secret|credential|(^|_|-)token$", re.I)


def _without_secrets(request: ChatRequest) -> ChatRequest:
    params = request.additional_params
    return replace(request, additional_params=_masked(params)) if params else request


def _masked(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: "***" if _SECRET.search(str(key)) else _masked(inner) for key, inner in value.items()}
    return [_masked(item) for item in value] if isinstance(value, list | tuple) else value
