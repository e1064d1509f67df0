"""What a run does, a line of JSON for each step of it.

    with JsonTracer("trace.jsonl") as tracer:
        run_chat(model, request, middleware=[tracer])

As the last middleware it sees what the model is sent and what it says; as the first, what the caller does.
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
from completion.contract.run import RunFinished, RunStarted, StepFinished, StepStarted, ToolResult
from completion.engine.middleware import Middleware, RunInfo
from completion.engine.tools import Tool, ToolContext
from completion.tracing.encoding import MAX_CHARS, encode_text, encoded, json_chars
from completion.tracing.writer import Writer
from completion.wrappers.retry import RetryEvent

log = logging.getLogger(__name__)

SCHEMA = 1

_HookT = TypeVar("_HookT", bound=Callable[..., Any])
_Fields = dict[str, Any]

_OF_THE_RUN = (RunStarted, StepStarted, ToolResult, StepFinished, RunFinished)


def _quiet(hook: _HookT) -> _HookT:
    """A hook that tells of its errors in the log, once, and not in the run."""

    @wraps(hook)
    def wrapper(self: JsonTracer, *facts: Any) -> Any:
        try:
            hook(self, *facts)
        except Exception:
            self._note_fault()
        return facts[-1]  # the request, chunk, call or result, as it came

    return wrapper  # type: ignore[return-value]


class JsonTracer(Middleware):
    """Middleware that writes what happens as lines of JSON.

    It changes nothing, and its troubles are not those of the run: what cannot be written (a full disk, a reader that
    does not read) is dropped, told in the log once, and counted in ``lost`` and in the trace. Lines are written by a
    thread of their own, at the latest at the end of a run. One tracer serves any number of runs and threads; several
    processes may trace into one path.

    Args:
        target: a path, to which lines are added, or a file that is open for text or bytes, such as ``sys.stderr``.
        verbose: the contents as well: prompts, answers, arguments, results, messages of errors. Without it only their
            sizes.

    Raises:
        OSError: the path cannot be opened.
        TypeError: it is neither a path nor a file.
    """

    def __init__(self, target: str | os.PathLike[str] | IO[Any], verbose: bool = False) -> None:
        self.verbose = verbose
        self._pid = os.getpid()
        self._runs: dict[str, _Run | None] = {}  # None: a run of the process that this one was forked from
        self._stamp = _Stamp()
        self._has_logged = False
        self._writer = Writer(target, self._stamp.lost_line)
        self._put = self._writer.put
        self._close = weakref.finalize(self, self._writer.close)  # at exit too

    @property
    def lost(self) -> int:
        """How many lines could not be written."""
        return self._writer.lost

    def close(self) -> None:
        """Write what waits, and close the file if it was opened here. Later lines are lost."""
        self._close()

    def __enter__(self) -> JsonTracer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Hooks

    @_quiet
    def on_run_started(self, run: RunInfo) -> None:
        state = self._state(run)
        if state is not None:
            self._line(run, "run_started", {"tool_names": list(run.tools)})
            run.tools.update({name: state.timed(tool) for name, tool in run.tools.items()})

    @_quiet
    def on_request(self, run: RunInfo, request: ChatRequest) -> Any:
        state = self._state(run)
        if state is None:
            return
        state.enter_step(run.step_id)
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

    @_quiet
    def on_retry(self, run: RunInfo, event: RetryEvent) -> None:
        facts = {"attempt": event.attempt, "max_attempts": event.max_attempts, "delay_ms": _ms(event.delay)}
        self._line(run, "retry", {**facts, **_error(event.error)}, {"message": str(event.error)})

    def on_chunk(self, run: RunInfo, chunk: StreamChunk) -> StreamChunk:
        try:
            state = self._runs.get(run.run_id)
            kind = type(chunk)
            is_text = kind is TextDelta or kind is ReasoningDelta
            delta: str = chunk.delta if is_text else ""  # type: ignore[attr-defined]
            size = len(delta)
            if is_text and size <= MAX_CHARS and state and state.has_begun and self._pid == os.getpid():
                state.seq += 1
                state.chunks += 1
                state.chars += size
                content = ""
                if self.verbose:
                    content = f',"content":{{"type":"{kind.type}","delta":{encode_text(delta)}}}'
                self._put(
                    f'{self._stamp.now()},"kind":"{kind.type}",{state.head}{state.seq}{state.tail}'
                    f',"chars":{size}{content}}}\n'
                )
            else:
                self._chunk(run, chunk)
        except Exception:
            self._note_fault()
        return chunk

    @_quiet
    def before_tool(self, run: RunInfo, call: ToolCallBlock) -> Any:
        state = self._state(run)
        if state is not None:
            state.calls[call.call_id] = _Call()
        facts = {"call_id": call.call_id, "name": call.name, "chars": json_chars(call.args)}
        self._line(run, "tool_started", facts, call)

    @_quiet
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

    @_quiet
    def on_finished(self, run: RunInfo, end: RunFinished) -> None:
        state = self._state(run)
        if state is not None:
            state.enter_step("")
        facts = {
            "reason": end.reason,
            "abort": end.abort and end.abort.kind,
            "usage": end.usage,
            "new_messages": len(end.new_messages),
        }
        self._end(run, "run_finished", facts, end)
        self._writer.flush()

    @_quiet
    def on_failed(self, run: RunInfo, error: BaseException) -> None:
        self._end(run, "run_failed", {**_error(error), "usage": run.usage}, {"message": str(error)})
        self._writer.flush()

    @_quiet
    def on_dropped(self, run: RunInfo) -> None:
        self._end(run, "run_dropped", {"usage": run.usage})
        self._writer.hurry()  # and no waiting: this may be a finalizer

    # From facts to a line

    def _chunk(self, run: RunInfo, chunk: StreamChunk) -> None:
        state = self._state(run)
        if state is None or isinstance(chunk, RunStarted | RunFinished):  # on_run_started and on_finished tell of them
            return
        if not isinstance(chunk, _OF_THE_RUN):
            if not state.has_begun:
                state.has_begun = True
                state.first_chunk_ms = _since(state.asked_at)
                self._line(run, "first_chunk", {"latency_ms": state.first_chunk_ms})
            state.chunks += 1
        facts = _FACTS[type(chunk)](chunk) if type(chunk) in _FACTS else {}
        match chunk:
            case TextDelta() | ReasoningDelta():
                state.chars += len(chunk.delta)
            case StepStarted():
                facts["opened_ms"] = _since(state.asked_at)
            case TurnFinished():
                facts.update(
                    duration_ms=_since(state.asked_at),
                    first_chunk_ms=state.first_chunk_ms,
                    chunks=state.chunks,
                    chars=state.chars,
                )
            case StepFinished():
                facts["duration_ms"] = _since(state.asked_at)
        self._line(run, chunk.type, facts, chunk)

    def _end(self, run: RunInfo, kind: str, facts: _Fields, content: Any = None) -> None:
        state = self._state(run)
        if state is not None:
            self._line(run, kind, {**facts, "duration_ms": _since(state.began_at)}, content)
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

    def _state(self, run: RunInfo) -> _Run | None:
        if self._pid != os.getpid():
            self._pid = os.getpid()
            self._runs = dict.fromkeys(self._runs)
            self._writer.start_anew()
        if run.run_id not in self._runs:
            self._runs[run.run_id] = _Run(run)
        return self._runs[run.run_id]

    def _note_fault(self) -> None:
        if not self._has_logged:
            self._has_logged = True
            log.exception("a line of a trace could not be made")


class _Stamp:
    """The beginning of every line. The text of a second is made once."""

    def __init__(self) -> None:
        self._second = (-1, "")

    def now(self) -> str:
        now_ms = time.time_ns() // 1_000_000
        second, ms = divmod(now_ms, 1000)
        known, text = self._second
        if second != known:
            text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
            self._second = (second, text)
        return f'{{"schema":{SCHEMA},"ts":"{text}.{ms:03d}Z","ts_ms":{now_ms}'

    def lost_line(self, count: int) -> str:
        """The line in place of those that are not there. It belongs to no run."""
        empty = '"run_id":null,"step_id":null,"seq":null,"provider":null,"model":null'
        return f'{self.now()},"kind":"dropped",{empty},"lines":{count}}}\n'


class _Run:
    """What is kept of a run between its lines. Times are those of the monotonic clock."""

    def __init__(self, run: RunInfo) -> None:
        self.began_at = time.monotonic()
        self.seq = 0
        self.tail = f',"provider":{encode_text(run.provider)},"model":{encode_text(run.model)}'
        self._run_id = encode_text(run.run_id)
        self.enter_step(run.step_id)

    def enter_step(self, step_id: str) -> None:
        self.head = f'"run_id":{self._run_id},"step_id":{encode_text(step_id) if step_id else "null"},"seq":'
        self.asked_at = time.monotonic()
        self.has_begun = False
        self.first_chunk_ms: float | None = None
        self.chunks = 0
        self.chars = 0
        self.calls: dict[str, _Call] = {}

    def timed(self, tool: Tool) -> Tool:
        """The tool, which notes when it begins and ends: hooks are called when a result has its turn."""
        timed, run = copy(tool), tool.run

        def noted(args: dict[str, Any], context: ToolContext) -> tuple[Block, ...]:
            call = self.calls.get(context.call_id) or _Call()
            call.began_at = time.monotonic()
            try:
                return run(args, context)
            finally:
                call.ended_at = time.monotonic()

        timed.run = noted  # type: ignore[method-assign]
        return timed


class _Call:
    """When a call was decided on, begun and ended."""

    def __init__(self) -> None:
        self.decided_at = time.monotonic()
        self.began_at: float | None = None
        self.ended_at: float | None = None

    @property
    def waited_ms(self) -> float | None:
        """Until it began; None where it never did."""
        return None if self.began_at is None else _ms(self.began_at - self.decided_at)

    @property
    def duration_ms(self) -> float | None:
        """How long it ran; so far, where it was given up."""
        return None if self.began_at is None else _ms((self.ended_at or time.monotonic()) - self.began_at)


# --- what is told of each chunk ----------------------------------------------------------------------------------

_FACTS: dict[type[StreamChunk], Callable[[Any], _Fields]] = {
    TextDelta: lambda chunk: {"chars": len(chunk.delta)},
    ReasoningDelta: lambda chunk: {"chars": len(chunk.delta)},
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
    """How many blocks, the characters of their text and arguments, the bytes of their files."""
    count = chars = size = 0
    for block in blocks:
        count += 1
        match block:
            case TextBlock() | ReasoningBlock():
                chars += len(block.text)
            case ToolCallBlock():
                chars += json_chars(block.args)
            case ToolResultBlock():
                inner = _sizes(block.blocks)
                chars, size = chars + inner["chars"], size + inner["bytes"]
            case _ if isinstance(source := getattr(block, "source", None), Base64Source):
                size += (len(source.data) - source.data[-2:].count("=")) * 3 // 4
    return {"blocks": count, "chars": chars, "bytes": size}


def _error(error: BaseException) -> _Fields:
    names = ("status", "code", "request_id", "retry_after", "attempts")
    return {"error": type(error).__name__, **{name: getattr(error, name, None) for name in names}}


def _since(moment: float) -> float:
    return _ms(time.monotonic() - moment)


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 1)


# --- JSON --------------------------------------------------------------------------------------------------------

# What other programs put into a request beside keys of the contract: a server of tools, and how to get in there.
_SECRET = re.compile(r"api[-_]?key|authorization|headers|cookie|password|passwd|secret|credential|(^|_|-)token$", re.I)


def _without_secrets(request: ChatRequest) -> ChatRequest:
    params = request.additional_params
    return replace(request, additional_params=_masked(params)) if params else request


def _masked(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: "***" if _SECRET.search(str(key)) else _masked(inner) for key, inner in value.items()}
    return [_masked(item) for item in value] if isinstance(value, list | tuple) else value
