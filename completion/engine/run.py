"""A run: the model is asked, its tools are run, it is asked again, until it calls no more of them.

    request -> on_request -> model.chat_stream -> chunks of a turn -> calls -> tools -> results -> the next request

``run_chat`` returns a RunStream: a generator in the manner of ChatStream, with the chunks of all turns.
"""

from __future__ import annotations

import itertools
import logging
import uuid
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from typing import Any

from completion.contract.cancel import CancelToken
from completion.contract.checks import require_model
from completion.contract.chunks import FinishReason, StreamChunk, ToolCallFinished, Usage
from completion.contract.codec import Record, nested
from completion.contract.messages import (
    Block,
    Message,
    ReasoningBlock,
    RedactedReasoningBlock,
    ToolCallBlock,
    ToolResultBlock,
)
from completion.contract.model import CompletionModel
from completion.contract.request import ChatRequest, ToolChoice, as_request
from completion.contract.run import Abort, RunFinished, RunStarted, StepFinished, StepStarted, ToolResult
from completion.contract.stream import ChatStream, Chunks, response_of, without_our_frames
from completion.contract.turn import Turn, TurnSoFar
from completion.engine.bounds import Ending, RunConfig
from completion.engine.calls import Call, Calls, block_of, distinct
from completion.engine.middleware import Hooks, RunInfo, returned
from completion.engine.tools import Tool
from completion.wrappers.retry import RetryEvent, watching_retries

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RunResult(Record):
    """What a run came to. ``new_messages`` are those to append to the history; ``text`` is the last answer's."""

    run_id: str
    reason: FinishReason = field(metadata=nested(FinishReason))
    usage: Usage
    new_messages: tuple[Message, ...] = field(metadata=nested(Message))
    abort: Abort | None = None

    @classmethod
    def of(cls, end: RunFinished) -> RunResult:
        return cls(end.run_id, end.reason, end.usage, end.new_messages, end.abort)

    @property
    def text(self) -> str:
        """The text of the last message of the model."""
        said = [message for message in self.new_messages if message.role == "assistant"]
        return said[-1].text if said else ""


def run_chat(
    model: CompletionModel,
    request: ChatRequest | str,
    tools: Sequence[Tool] = (),
    middleware: Sequence[Any] = (),
    config: RunConfig = RunConfig(),  # noqa: B008  it is frozen
) -> RunStream:
    """Ask the model, run the tools that it calls, and go on until it calls none.

    Another turn follows when calls were answered, or when middleware asks for it. A call of a tool that stands in
    ``request.tools`` and not in ``tools`` is not answered: it is the caller's, and the run ends with ``tool_use``. A
    ``tool_choice`` that forces a call is for the first turn; after it the model decides.

    Args:
        model: any CompletionModel, wrappers included.
        request: the history and how to answer it; the tools are added to its own.
        tools: functions marked with ``@tool``, or ``Tool(definition, function)``.
        middleware: objects with some of the methods of Middleware, the outermost first.
        config: the bounds of the run.

    Raises:
        CompletionError: what keeps the first turn from opening. Later errors are raised by ``next()``. Both have
            ``partial_messages``, those of the finished steps, and ``usage``.
        TypeError, ValueError: arguments that make no sense; nothing was sent.
    """
    require_model(model, "run_chat")
    request = as_request(request)
    for name, given in (("tools", tools), ("middleware", middleware)):
        if isinstance(given, str) or not isinstance(given, Sequence):
            raise TypeError(f"{name}= takes a list, got {type(given).__name__}: write {name}=[…]")
    by_name: dict[str, Tool] = {}
    for tool in tools:
        if not isinstance(tool, Tool):
            raise TypeError(
                "tools= takes functions marked with @tool, or Tool(definition, function), got "
                f"{type(tool).__name__}; a definition, whose calls are left to you, goes into ChatRequest(tools=[…])"
            )
        others = [own for own in request.tools if own.name == tool.name and own != tool.definition]
        if others or by_name.setdefault(tool.name, tool) is not tool:
            raise ValueError(f"two tools have the name {tool.name!r}")
    if not isinstance(config, RunConfig):
        raise TypeError(f"config= takes a RunConfig, got {type(config).__name__}")
    run = _Run(model, request, by_name, middleware, config)
    del request  # whatever reports an error shows the variables of its frames
    run.begin()
    return RunStream(run)


class RunStream(ChatStream):
    """The chunks of a run, from RunStarted to RunFinished; a generator and a context manager, as ChatStream is.

    ``cancel()`` from any thread, or on a CancelToken that the run was begun under, ends the run with a RunFinished
    whose ``abort`` is ``cancelled``: nothing is raised, and the reader gets what the history needs. It comes too late
    once the last StepFinished is there. ``response`` is that of the first turn.
    """

    def __init__(self, run: _Run) -> None:
        self.run_id = run.info.run_id
        self._run = run
        super().__init__(
            run.chunks(),
            response=response_of(run.stream),
            token=CancelToken(),  # of its own: what cancels the run is said by its last chunk
            release=run.release,
            drop=run.drop,
            provider=run.info.provider,
            model=run.info.model,
        )

    def cancel(self) -> None:
        """End the run from any thread, whatever it is blocked in. After its end it does nothing."""
        if not self._over:
            self._run.ending.cancel()

    def collect(self) -> RunResult:  # type: ignore[override]
        """Drain the stream and return what the run came to.

        Raises:
            CompletionError: as ``next()`` does.
            RuntimeError: somebody has read from the stream or closed it.
        """
        if self._has_begun or self._over:
            raise RuntimeError("collect() needs a stream that nobody has read from or closed")
        end: StreamChunk | None = None
        with self:
            for end in self:  # noqa: B007  the last one counts
                pass
        assert isinstance(end, RunFinished), "a run ends with RunFinished, or raises"
        return RunResult.of(end)

    def __repr__(self) -> str:
        return f"<RunStream {'over' if self._over else 'open'}, {self.run_id}>"


class _Run:
    """The state of a run. ``begin`` opens the first turn, ``chunks`` does all the rest."""

    def __init__(
        self,
        model: CompletionModel,
        request: ChatRequest,
        tools: dict[str, Tool],
        middleware: Sequence[Any],
        config: RunConfig,
    ) -> None:
        self.name, self.model = model.name, model.model  # as ``without_our_frames`` wants them, for errors
        self.stream: Chunks | None = None
        self.ending = Ending()
        self.info = RunInfo(_new_id("run"), self.name, self.model, tools, self.ending.token, asked=model)
        self._model = model
        known = {tool.name for tool in request.tools}
        ours = (tool.definition for tool in tools.values() if tool.name not in known)
        self._request = replace(request, tools=(*request.tools, *ours))
        self._left_to_caller = known - tools.keys()
        self._config = config
        self._hooks = Hooks(middleware)
        self._calls = Calls(self.info, self._hooks, self.ending, config.parallel_tools, self._spend)
        self._added: list[Message] = []  # to the history, by finished steps
        self._usage_of_step = Usage()
        self._reason = FinishReason.OTHER
        self._is_done = False  # the last step is finished: an abort comes too late
        self._is_told = False

    @without_our_frames
    def chat_stream(self, req: ChatRequest) -> Chunks | None:
        """One turn, None where the run is to end. Its errors leave the run as they leave a model."""
        if self.ending.abort is not None:
            return None
        with self.ending.token, watching_retries(self._retried):
            return self._model.chat_stream(req)

    def begin(self) -> None:
        """Everything up to the opening of the first turn."""
        try:
            if self._config.timeout is not None:
                self.ending.end_after(self._config.timeout)
            with self.ending.noted():
                for hook in self._hooks["on_run_started"]:
                    hook(self.info)
                self._open()
        except BaseException as error:
            self._failed(error)
            self.release()
            raise

    def chunks(self) -> Iterator[StreamChunk]:
        info = self.info
        try:
            yield self._shown(RunStarted(info.run_id, info.provider, info.model))
            while self.stream is not None:
                yield from self._step()
                if not self._is_done:
                    with self.ending.noted():
                        self._open()
            abort = None if self._is_done else self.ending.abort
            reason = self._reason if abort is None else FinishReason.ABORTED
            end = RunFinished(info.run_id, reason, info.usage, tuple(self._added), abort)
            self._shown(end)
            self._tell("on_finished", info, end)
            yield end
        except GeneratorExit:
            raise
        except BaseException as error:
            self._failed(error)
            raise

    def drop(self) -> None:
        """Hang up from a finalizer."""
        drop = getattr(self.stream, "_drop", None)
        if drop is not None:
            drop()

    def release(self) -> None:
        """The reader is done, or gone."""
        self.ending.release()
        stream, self.stream = self.stream, None
        if stream is not None:
            stream.close()
        self._tell("on_dropped", self.info)  # unless it was told how the run ended

    # A step: one turn of the model, and the answers to its calls

    def _open(self) -> None:
        """Ask for the next turn, unless the run is to end."""
        if self.ending.abort is None:
            self.info.iteration += 1
            self.info.step_id = _new_id("step")
            self.stream = self.chat_stream(self._next_request())

    def _next_request(self) -> ChatRequest:
        request = replace(self._request, messages=(*self._request.messages, *self._added))
        choice = request.tool_choice
        if self.info.iteration > 1 and choice is not None and choice.kind in ("any", "tool"):
            request = replace(request, tool_choice=ToolChoice.auto())
        for hook in self._hooks["on_request"]:
            request = returned(hook(self.info, request), ChatRequest, hook)
        return request

    def _step(self) -> Iterator[StreamChunk]:
        info = self.info
        self._usage_of_step = Usage()
        yield self._shown(StepStarted(info.run_id, info.step_id, info.iteration))
        so_far = TurnSoFar()
        yield from self._turn(so_far)
        turn, calls = so_far.turn(), distinct(so_far.calls)
        self._reason = turn.reason or self._reason
        theirs = [call for call in calls if self._is_theirs(call)]
        results: dict[str, ToolResultBlock] = {}
        yield from self._answers(turn, [call for call in calls if not self._is_theirs(call)], results)
        asked = self._asked_for(turn)
        goes_on = not theirs and (bool(results) or asked is not None)
        if goes_on:
            self._check_bounds()
        if self.ending.abort is not None:  # nobody will come back with their results
            asked = None
            yield from self._answers(turn, theirs, results)
        elif not goes_on:
            self._is_done, asked = True, None
        answers = Message.user([results[call.call_id] for call in calls if call.call_id in results])
        messages = [message for message in (_said(turn, calls), answers, *(asked or ())) if message.blocks]
        self._added += messages
        info.messages = tuple(self._added)
        step = StepFinished(info.run_id, info.step_id, info.iteration, self._usage_of_step, tuple(messages))
        yield self._shown(step)

    def _turn(self, so_far: TurnSoFar) -> Iterator[StreamChunk]:
        """The chunks of a turn, as the middleware lets them through; an abort breaks it off."""
        hooks, token, stream = self._hooks["on_chunk"], self.ending.token, self.stream
        assert stream is not None
        try:
            with self.ending.noted(), so_far, closing(stream):
                with token, watching_retries(self._retried):
                    first = next(stream, None)  # which a RetryingModel may yet ask for again
                for chunk in itertools.chain([] if first is None else [first], _rest_of(stream)):
                    so_far.add(chunk)
                    if hooks:
                        yield from self._let_through(chunk, hooks)
                    else:
                        yield chunk
                    if token.cancelled:  # a generator of somebody else's making does not look at it
                        break
        finally:
            self.stream = None
            if so_far.end is not None:
                self._spend(so_far.end.usage or Usage())

    def _answers(self, turn: Turn, calls: Sequence[Call], results: dict[str, ToolResultBlock]) -> Iterator[StreamChunk]:
        info = self.info
        if calls:
            self._check_bounds()
        offered = [tool.name for tool in self._request.tools]
        with closing(self._calls.answers(turn, calls, offered)) as answers:
            for result in answers:
                results[result.call_id] = result
                blocks, is_error = result.blocks, result.is_error
                yield self._shown(ToolResult(info.run_id, info.step_id, result.call_id, blocks, is_error))

    def _asked_for(self, turn: Turn) -> list[Message] | None:
        """With what the middleware wants to go on, None where it does not."""
        asked: list[Message] | None = None
        with self.ending.noted():
            for hook in self._hooks["on_turn_finished"]:
                more = returned(hook(self.info, turn), (list, tuple, type(None)), hook)
                if more is not None:
                    asked = [*(asked or ()), *(returned(message, Message, hook) for message in more)]
        return asked

    def _is_theirs(self, call: Call) -> bool:
        """The caller answers it. One that is malformed is nothing that a caller could run: the model reads that."""
        return call.name in self._left_to_caller and isinstance(call, ToolCallFinished)

    def _check_bounds(self) -> None:
        """Abort the run where another turn would be one too many."""
        config, spent = self._config, self.info.usage
        if self.info.iteration >= config.max_iterations:
            self.ending.end("max_iterations", f"the run reached RunConfig.max_iterations={config.max_iterations}")
        elif config.max_tokens is not None and spent.input_tokens + spent.output_tokens >= config.max_tokens:
            self.ending.end("max_tokens", f"the run reached RunConfig.max_tokens={config.max_tokens}")

    def _spend(self, usage: Usage) -> None:
        self.info.usage += usage
        self._usage_of_step += usage

    # Hooks

    def _shown(self, chunk: StreamChunk) -> StreamChunk:
        """A chunk of the run itself, once everybody has seen it."""
        with self.ending.noted():
            for hook in self._hooks["on_chunk"]:
                hook(self.info, chunk)
        return chunk

    def _let_through(self, chunk: StreamChunk, hooks: Sequence[Any]) -> Sequence[StreamChunk]:
        """What the middleware makes of a chunk of the model."""
        for n, hook in enumerate(hooks, 1):
            shown = hook(self.info, chunk)
            if shown is None:
                return ()
            if not isinstance(shown, StreamChunk):
                several = [
                    returned(one, StreamChunk, hook) for one in returned(shown, (StreamChunk, list, tuple), hook)
                ]
                return [out for one in several for out in self._let_through(one, hooks[n:])]
            chunk = shown
        return (chunk,)

    def _retried(self, event: RetryEvent) -> None:
        for hook in self._hooks["on_retry"]:
            hook(self.info, event)

    def _failed(self, error: BaseException) -> None:
        with suppress(Exception):  # of somebody else's making, with slots
            error.partial_messages = tuple(self._added)  # type: ignore[attr-defined]
            error.usage = self.info.usage  # type: ignore[attr-defined]
        self._tell("on_failed", self.info, error)

    def _tell(self, name: str, *facts: Any) -> None:
        """One of the three ends, once."""
        if self._is_told:
            return
        self._is_told = True
        for hook in self._hooks[name]:
            try:
                hook(*facts)
            except Exception:
                log.exception("%s of a middleware failed", name)


def _rest_of(stream: Chunks) -> Iterator[StreamChunk]:
    """What ``next(stream)`` reads from, where it does nothing else that is missed: closing is ours, and cancelling."""
    if isinstance(stream, ChatStream):
        kind = type(stream)
        if kind.__next__ is ChatStream.__next__ and kind._failed is ChatStream._failed:
            return stream._chunks
    return stream


def _said(turn: Turn, calls: Sequence[Call]) -> Message:
    """What the model said, as a history can carry it: malformed calls are among the others, for their answers;
    reasoning that led to nothing is not, because its provider would refuse it."""
    left = iter(calls)
    blocks: list[Block] = []
    for block in turn.message.blocks:
        if isinstance(block, ToolCallBlock):
            for call in left:
                blocks.append(block_of(call))
                if isinstance(call, ToolCallFinished):
                    break
        else:
            blocks.append(block)
    blocks += map(block_of, left)
    while blocks and isinstance(blocks[-1], ReasoningBlock | RedactedReasoningBlock):
        blocks.pop()
    return Message.assistant(blocks)


def _new_id(kind: str) -> str:
    return f"{kind}_{uuid.uuid4().hex[:16]}"
