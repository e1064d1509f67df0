"""A run: a turn of the model, the tools that it calls, the next turn, until a turn calls no tool.

    request -> on_request -> model.chat_stream -> chunks of a turn -> tool calls -> tool results -> the next request

``run_chat`` returns a RunStream: a ChatStream with the chunks of all turns.
"""

from __future__ import annotations

import itertools
import logging
import uuid
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from typing import Any

from completion.contract.checks import require_model
from completion.contract.chunks import FinishReason, StreamChunk, ToolCallFinished, Usage
from completion.contract.collect import TurnSoFar
from completion.contract.messages import Message, ToolCallBlock
from completion.contract.model import CompletionModel
from completion.contract.request import ChatRequest, ToolChoice, as_request
from completion.contract.run import RunFinished, RunStarted, StepFinished, StepStarted, ToolResult
from completion.contract.stream import closable, direct_iterator, drop_connection, without_our_frames
from completion.contract.turn import Turn
from completion.engine.bounds import Ending, RunConfig
from completion.engine.calls import NO_VERDICTS, Call, Calls, block_of, id_of_cut_off_call, with_distinct_ids
from completion.engine.cutting import shortened
from completion.engine.decisions import Decision, Decisions, waits_for_approval
from completion.engine.middleware import Hooks, Refusal, RunInfo, returned
from completion.engine.outputs import Output
from completion.engine.run_stream import RunStream
from completion.engine.step import Step
from completion.engine.tools import Tool
from completion.wrappers.retry import RetryEvent, watching_retries

log = logging.getLogger(__name__)


def run_chat(
    model: CompletionModel,
    request: ChatRequest | str,
    tools: Sequence[Tool] = (),
    middleware: Sequence[Any] = (),
    config: RunConfig = RunConfig(),  # noqa: B008  it is frozen
    output: Any = None,
    decisions: Mapping[str, Decision] | None = None,
) -> RunStream:
    """Call the model, run the tools that it calls, and repeat until it calls no tool.

    Another turn follows when tool calls were answered, when the provider paused the answer (reason ``pause``), or when
    middleware asks for one. A tool that is in ``request.tools`` and not in ``tools`` is a client-side tool: the run
    does not answer its calls, and ends with the reason ``tool_use``. A ``tool_choice`` that forces a call applies to
    the first turn only, and not to a run that goes on with ``decisions``; then the model decides. The model can call
    only what the request offered: a tool that middleware took out of the request is unknown.

    Args:
        model: any CompletionModel, wrappers included.
        request: the history and the settings; ``tools`` are added to its own tools.
        tools: functions decorated with ``@tool``, or ``Tool(definition, function)``.
        middleware: objects with some of the methods of Middleware, the outermost first.
        config: the limits of the run.
        output: the type of the last answer, as in ``structured``. The model is asked again until the answer fits.
        decisions: what was decided about the calls at the end of ``request.messages`` that wait for a person, by call
            id: True, False, a reason or a Refusal, or a dict of other arguments. These calls are answered first. Calls
            without a decision keep waiting: then the run ends, and the model is not asked. The messages must include
            the ``new_messages`` of the run that ended with ``pending``. None is like an empty dict if a call of a tool
            with ``approval=True`` waits, and nobody has said anything since; else the model is asked, and reads that
            open calls were not made.

    Raises:
        CompletionError: the first turn could not be opened. ``next()`` raises later errors. Both have the attributes
            ``partial_messages`` (the messages of the finished steps) and ``usage``.
        TypeError, ValueError: invalid arguments; nothing was sent.
    """
    require_model(model, "run_chat")
    request = as_request(request)
    require_list(tools, "run_chat: tools")
    require_list(middleware, "run_chat: middleware")
    by_name = _tools_by_name(tools, request)
    if not isinstance(config, RunConfig):
        raise TypeError(f"run_chat: config= must be a RunConfig, got {type(config).__name__}")
    client_tools = {tool.name for tool in request.tools} - by_name.keys()
    if decisions is None and waits_for_approval(request.messages, by_name):
        decisions = {}
    chosen = None if decisions is None else Decisions(decisions, request.messages, by_name, client_tools)
    run = Run(model, request, by_name, middleware, config, None if output is None else Output(output), chosen)
    del request  # crash reporters show the local variables of the frames of an error: keep the prompt out of them
    run.begin()
    return RunStream(run)


def require_list(given: object, name: str) -> None:
    """Raise TypeError unless ``given`` is a sequence and not a str. The usual mistake is to pass a single object."""
    if isinstance(given, str) or not isinstance(given, Sequence):
        argument = name.rpartition(" ")[2]
        raise TypeError(f"{name}= must be a list, got {type(given).__name__}; write {argument}=[…]")


def _tools_by_name(tools: Sequence[Tool], request: ChatRequest) -> dict[str, Tool]:
    by_name: dict[str, Tool] = {}
    for tool in tools:
        if not isinstance(tool, Tool):
            raise TypeError(
                "run_chat: tools= must contain functions decorated with @tool, or Tool(definition, function), got "
                f"{type(tool).__name__}; put the definition of a client-side tool into ChatRequest(tools=[…])"
            )
        # The request may define the same tool: the run then answers its calls.
        others = [own for own in request.tools if own.name == tool.name and own != tool.definition]
        if others or by_name.setdefault(tool.name, tool) is not tool:
            raise ValueError(f"run_chat: two tools have the name {tool.name!r}; rename one")
    return by_name


class Run:
    """The state of a run. ``begin`` opens the first turn, ``chunks`` does everything else."""

    def __init__(
        self,
        model: CompletionModel,
        request: ChatRequest,
        tools: dict[str, Tool],
        middleware: Sequence[Any],
        config: RunConfig,
        output: Output | None,
        decisions: Decisions | None,
    ) -> None:
        self.name, self.model = model.name, model.model  # ``without_our_frames`` reads them to complete errors
        self.stream: Generator[StreamChunk, None, None] | None = None
        self.ending = Ending()
        self.info = RunInfo(_new_id("run"), self.name, self.model, tools, self.ending.token, asked=model)
        self.output = output
        self._model = model if output is None else output.model(model)
        defined = {tool.name for tool in request.tools}
        added = (tool.definition for tool in tools.values() if tool.name not in defined)
        self._request = replace(request, tools=(*request.tools, *added))
        self._client_tools = defined - tools.keys()
        # Without a call that waits or a client-side one, there is nothing to decide: the model is asked at once.
        self._decisions = decisions if decisions and (decisions.calls or decisions.open_calls) else None
        self._goes_on = decisions is not None and decisions.go_on
        self._config = config
        self._hooks = Hooks(middleware if output is None else [*middleware, output])
        self._calls = Calls(self.info, self._hooks, self.ending, config.parallel_tools, self._add_usage)
        self._new_messages: list[Message] = []  # of the finished steps
        self.end: RunFinished | None = None
        self._offered: Sequence[str] = ()  # the names of the tools in the latest request
        self._usage_of_step = Usage()
        self._reason = FinishReason.OTHER
        self._pending: tuple[ToolCallBlock, ...] = ()
        self._decided_step: Step | None = None  # until it is finished
        self._is_done = False  # no further turn follows: an abort has no effect any more
        self._has_ended = False  # one of on_finished, on_failed and on_dropped was called

    @without_our_frames
    def chat_stream(self, req: ChatRequest) -> Generator[StreamChunk, None, None] | None:
        """Open a turn; None if the run must end. Errors get the treatment of every model's ``chat_stream``."""
        if self.ending.abort is not None:
            return None
        with self.ending.token, watching_retries(self._on_retry):
            return closable(self._model.chat_stream(req))

    def begin(self) -> None:
        """Start the clock, call ``on_run_started``, and open the first turn."""
        try:
            if self._config.timeout is not None:
                self.ending.end_after(self._config.timeout)
            with self.ending.catching_aborts():
                for hook in self._hooks["on_run_started"]:
                    hook(self.info)
                if self._decisions is None:
                    self._open_turn()
        except BaseException as error:
            self._fail(error)
            self.release()
            raise

    def chunks(self) -> Iterator[StreamChunk]:
        info = self.info
        try:
            yield self._announce(RunStarted(info.run_id, info.provider, info.model))
            if self._decisions is not None:
                yield from self._run_decisions(self._decisions)
            while self.stream is not None:
                yield from self._run_step()
                if not self._is_done:
                    with self.ending.catching_aborts():
                        self._open_turn()
            abort = None if self._is_done else self.ending.abort
            reason = self._reason if abort is None else FinishReason.ABORTED
            self._calls.add_late_usage()
            data = None if abort or not self.output else self.output.data
            new_messages = tuple(self._new_messages)
            end = RunFinished(info.run_id, reason, info.usage, new_messages, abort, data, self._pending)
            self._announce(end)
            self._call_end_hooks("on_finished", info, end)
            self.end = end
            yield end
        except GeneratorExit:
            raise
        except BaseException as error:
            self._fail(error)
            raise

    def drop(self) -> None:
        """Called by the garbage collector, before ``release``."""
        drop_connection(self.stream)

    def release(self) -> None:
        """The reader has read everything, or has closed or dropped the stream."""
        self.ending.release()
        stream, self.stream = self.stream, None
        if stream is not None:
            stream.close()
        self._keep_decided_results()
        self._call_end_hooks("on_dropped", self.info)  # no effect if the run has finished or failed

    # A step: one turn of the model, and the results of its tool calls

    def _open_turn(self) -> None:
        """Send the next request, unless the run must end."""
        if self.ending.abort is None:
            self.info.iteration += 1
            self.info.step_id = _new_id("step")
            self.stream = self.chat_stream(self._next_request())

    def _next_request(self) -> ChatRequest:
        request = replace(self._request, messages=(*self._request.messages, *self._new_messages))
        choice = request.tool_choice
        # A forced call would be forced in every turn, or after every decision: the calls would never end.
        if (self.info.iteration > 1 or self._goes_on) and choice is not None and choice.kind in ("any", "tool"):
            request = replace(request, tool_choice=ToolChoice.auto())
        for hook in self._hooks["on_request"]:
            request = returned(hook(self.info, request), ChatRequest, hook)
        self._offered = [tool.name for tool in request.tools]
        return request

    def _run_step(self) -> Iterator[StreamChunk]:
        info = self.info
        self._usage_of_step = Usage()
        yield self._announce(StepStarted(info.run_id, info.step_id, info.iteration))
        yield from self._noted()
        so_far = TurnSoFar()
        yield from self._read_turn(so_far)
        step = self._begin_step(so_far)
        yield from self._answer_calls(step, step.own_calls)
        step.follow_up = self._ask_for_follow_up(step.turn)
        self._decide_about_next_turn(step)
        if step.is_aborted:  # the caller sends no results after an abort: without ours, the history would be invalid
            yield from self._answer_calls(step, [*step.client_calls, *step.waiting])
        yield self._announce(self._finish_step(step))

    def _run_decisions(self, decisions: Decisions) -> Iterator[StreamChunk]:
        """Answer the calls that were decided about, in a step without a turn; then open a turn if no call is left."""
        waits_again: set[str] = set()
        if decisions.calls:
            info, self._usage_of_step = self.info, Usage()
            info.step_id = _new_id("step")
            self._offered = [tool.name for tool in self._request.tools]
            self._decided_step = step = Step.of_decisions(decisions.calls)
            yield self._announce(StepStarted(info.run_id, info.step_id, info.iteration))
            yield from self._answer_calls(step, step.own_calls, decisions.verdicts)
            self._decided_step = None
            yield self._announce(self._finish_step(step))
            waits_again = {call.call_id for call in step.waiting}
        self._pending = decisions.still_waiting(waits_again)
        if self._pending or decisions.client_calls:
            self._is_done, self._reason = self.ending.abort is None, FinishReason.TOOL_USE
            return
        with self.ending.catching_aborts():
            self._open_turn()

    def _keep_decided_results(self) -> None:
        """The run ends inside the step of the decisions: keep what its tools have done, so that none runs twice."""
        step, self._decided_step = self._decided_step, None
        if step is not None:
            step.results = {result.call_id: result for result in self._calls.interrupted} | step.results
            self._finish_step(step)

    def _read_turn(self, so_far: TurnSoFar) -> Iterator[StreamChunk]:
        """The chunks of a turn, after the middleware; an abort ends the turn early."""
        hooks, token, stream = self._hooks["on_chunk"], self.ending.token, self.stream
        assert stream is not None
        try:
            with self.ending.catching_aborts(), so_far, closing(stream):
                with token, watching_retries(self._on_retry):
                    first = next(stream, None)  # until here, a RetryingModel may retry
                yield from self._noted()
                for chunk in itertools.chain([] if first is None else [first], direct_iterator(stream)):
                    so_far.add(chunk)
                    if hooks:
                        yield from self._pass_through(chunk, hooks)
                    else:
                        yield chunk
                    if token.cancelled:  # a model that is a plain generator does not check it
                        break
        finally:
            self.stream = None
            if so_far.end is not None:
                self._add_usage(so_far.end.usage or Usage())

    def _begin_step(self, so_far: TurnSoFar) -> Step:
        """Build the turn from its chunks, and separate the calls of client-side tools."""
        turn, calls = so_far.turn(), with_distinct_ids(so_far.calls)
        self._reason = turn.reason or self._reason
        cut_off = id_of_cut_off_call(calls, turn.reason, self._request.tools)
        own_calls: list[Call] = []
        client_calls: list[Call] = []
        for call in calls:
            # The caller could not run a malformed call, or one that was cut off: the run answers it, and the model
            # corrects it.
            is_offered = call.name in self._client_tools and call.name in self._offered
            is_client_call = is_offered and isinstance(call, ToolCallFinished) and call.call_id != cut_off
            (client_calls if is_client_call else own_calls).append(call)
        return Step(turn, calls, own_calls, client_calls, cut_off=cut_off)

    def _answer_calls(
        self, step: Step, calls: Sequence[Call], verdicts: Mapping[str, ToolCallBlock | Refusal] = NO_VERDICTS
    ) -> Iterator[StreamChunk]:
        info = self.info
        if calls:
            self._check_limits()  # first: without another turn, nothing would read the results
        with closing(self._calls.answers(step.turn.reason, calls, self._offered, verdicts, step.cut_off)) as answers:
            for name, result, seconds in answers:
                result = shortened(result, self._config.max_result_chars)
                call_id, blocks, is_error = result.call_id, result.blocks, result.is_error
                step.results[call_id] = result
                chunk = ToolResult(info.run_id, info.step_id, call_id, blocks, is_error, name, seconds)
                yield self._announce(chunk)

    def _ask_for_follow_up(self, turn: Turn) -> list[Message] | None:
        """The messages with which the middleware wants another turn; None if it does not want one."""
        follow_up: list[Message] | None = None
        with self.ending.catching_aborts():
            for hook in self._hooks["on_turn_finished"]:
                more = returned(hook(self.info, turn), (list, tuple, type(None)), hook)
                if more is not None:
                    follow_up = [*(follow_up or ()), *(returned(message, Message, hook) for message in more)]
        return follow_up

    def _decide_about_next_turn(self, step: Step) -> None:
        """Mark the run as done if no turn follows, or abort it if a turn would exceed a limit."""
        wants_another_turn = step.wants_another_turn
        if wants_another_turn:
            self._check_limits()
        step.is_aborted = self.ending.abort is not None  # read once: another thread may cancel the run at any time
        if step.is_aborted:
            step.follow_up = None
        elif not wants_another_turn:
            self._is_done, step.follow_up = True, None
            self._pending = tuple(block_of(call) for call in step.waiting)
            if self._pending:
                self._reason = FinishReason.TOOL_USE

    def _finish_step(self, step: Step) -> StepFinished:
        self._calls.add_late_usage()
        info, messages = self.info, step.messages()
        self._new_messages += messages
        info.messages = tuple(self._new_messages)
        return StepFinished(info.run_id, info.step_id, info.iteration, self._usage_of_step, tuple(messages))

    def _check_limits(self) -> None:
        """Abort the run if another turn would exceed a limit of its config."""
        config, spent = self._config, self.info.usage
        if self.info.iteration >= config.max_iterations:
            self.ending.end("max_iterations", f"the run reached RunConfig.max_iterations={config.max_iterations}")
        elif config.max_tokens is not None and spent.input_tokens + spent.output_tokens >= config.max_tokens:
            self.ending.end("max_tokens", f"the run reached RunConfig.max_tokens={config.max_tokens}")

    def _add_usage(self, usage: Usage) -> None:
        self.info.usage += usage
        self._usage_of_step += usage

    # Hooks

    def _noted(self) -> Iterator[StreamChunk]:
        """The chunks that middleware of ours has left in ``info.notes``."""
        while self.info.notes:
            yield self._announce(self.info.notes.pop(0))

    def _announce(self, chunk: StreamChunk) -> StreamChunk:
        """Show a chunk of the run itself to the middleware, which cannot change it; returns the chunk."""
        with self.ending.catching_aborts():
            for hook in self._hooks["on_chunk"]:
                hook(self.info, chunk)
        return chunk

    def _pass_through(self, chunk: StreamChunk, hooks: Sequence[Any]) -> Sequence[StreamChunk]:
        """The chunks that these hooks return for a chunk of the model."""
        for n, hook in enumerate(hooks, 1):
            result = hook(self.info, chunk)
            if result is None:
                return ()
            if not isinstance(result, StreamChunk):  # several: each of them passes the hooks that remain
                several = [
                    returned(item, StreamChunk, hook) for item in returned(result, (StreamChunk, list, tuple), hook)
                ]
                return [out for item in several for out in self._pass_through(item, hooks[n:])]
            chunk = result
        return (chunk,)

    def _on_retry(self, event: RetryEvent) -> None:
        for hook in self._hooks["on_retry"]:
            hook(self.info, event)

    def _fail(self, error: BaseException) -> None:
        self._keep_decided_results()
        self._calls.add_late_usage()
        with suppress(Exception):  # the exception class of another library may have __slots__
            error.partial_messages = tuple(self._new_messages)  # type: ignore[attr-defined]
            error.usage = self.info.usage  # type: ignore[attr-defined]
        self._call_end_hooks("on_failed", self.info, error)

    def _call_end_hooks(self, name: str, *arguments: Any) -> None:
        """Call on_finished, on_failed or on_dropped, exactly one of them. Their errors are logged: the run is over."""
        if self._has_ended:
            return
        self._has_ended = True
        interrupt: BaseException | None = None
        for hook in self._hooks[name]:
            try:
                hook(*arguments)
            except Exception:
                log.exception("the hook %s of a middleware failed", name)
            except BaseException as error:  # Ctrl-C: the hooks that remain release what they hold
                interrupt = interrupt or error
        if interrupt is not None:
            raise interrupt


def _new_id(kind: str) -> str:
    return f"{kind}_{uuid.uuid4().hex[:16]}"
