"""The tool calls of one turn: checked in the model's order, run in parallel threads, answered in the model's order.

    ToolCallFinished -> before_tool -> thread: tool.run -> after_tool -> ToolResultBlock

Every error of a call becomes an error result, which tells the model how to correct the call.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import suppress
from contextvars import copy_context
from copy import deepcopy
from dataclasses import fields, replace
from queue import Empty, SimpleQueue
from threading import Event
from types import MappingProxyType
from typing import Final, NamedTuple

from completion.contract.cancel import CancelToken
from completion.contract.chunks import FinishReason, ToolCallFinished, ToolCallMalformed, Usage
from completion.contract.collect import call_block
from completion.contract.messages import Block, TextBlock, ToolCallBlock, ToolResultBlock
from completion.contract.request import ToolDefinition
from completion.engine.bounds import Ending
from completion.engine.middleware import AbortRun, Hooks, Pending, Refusal, RunInfo, returned
from completion.engine.tools import Tool, ToolContext, ToolError
from completion.offload.threads import Threads
from completion.wires.json_values import has_surrogates, without_surrogates

log = logging.getLogger(__name__)

NO_VERDICTS: Final[Mapping[str, ToolCallBlock | Refusal]] = MappingProxyType({})

_LAST_WORDS_SECONDS = 0.1
"""How long an aborted run waits for tools that are still running, so that their tokens are part of its usage."""

_INTERRUPTED = "This call was interrupted, and its effects are unknown."

MALFORMED_ARGUMENTS = "__malformed_arguments__"
"""In the history, the only argument of a malformed call: its value is the text of the arguments as it arrived."""

_CUT_OFF = (FinishReason.MAX_TOKENS, FinishReason.CONTENT_FILTER, FinishReason.REFUSAL, FinishReason.CONTEXT_OVERFLOW)

Call = ToolCallFinished | ToolCallMalformed


class Answer(NamedTuple):
    """The result of a call. ``seconds``: how long the tool ran; None if it did not run, or did not end in time."""

    name: str
    result: ToolResultBlock
    seconds: float | None


def block_of(call: Call) -> ToolCallBlock:
    """The call for the history. A malformed call is included too, because its result needs a call to refer to."""
    if isinstance(call, ToolCallMalformed):
        return ToolCallBlock(call.call_id, call.name, {MALFORMED_ARGUMENTS: call.raw})
    return call_block(call)


def with_distinct_ids(calls: Sequence[Call]) -> list[Call]:
    """The calls, with a new id for each call whose id was used before.

    A model that uses an id twice breaks the contract. But providers refuse a history with two results for one id, and
    the conversation could never continue.
    """
    by_id: dict[str, Call] = {}
    for call in calls:
        call_id, n = call.call_id, 1
        while call_id in by_id:
            n += 1
            call_id = f"{call.call_id}_{n}"
        by_id[call_id] = call if n == 1 else replace(call, call_id=call_id)
    return list(by_id.values())


def id_of_cut_off_call(
    calls: Sequence[Call], reason: FinishReason | None, tools: Sequence[ToolDefinition]
) -> str | None:
    """The id of the last call of a turn, if the turn was cut off before the arguments of the call; else None.

    Such a call looks like one without arguments. But with defaults in their place, a tool could do what the model did
    not ask for. The call of a tool without parameters is complete.
    """
    last = calls[-1] if calls else None
    if reason not in _CUT_OFF or not isinstance(last, ToolCallFinished) or last.args:
        return None
    takes_arguments = any(tool.name == last.name and tool.input_schema.get("properties") for tool in tools)
    return last.call_id if takes_arguments else None


class Calls:
    """Answers the tool calls of a run.

    Args:
        run: the run.
        hooks: of its middleware.
        ending: an abort ends the wait for all tools.
        parallel: how many calls of a turn run at the same time. A tool that is still running after its timeout keeps
            its thread, and another call may run in its place.
        add_usage: called once per call with the tokens that its tool reported.
    """

    def __init__(
        self, run: RunInfo, hooks: Hooks, ending: Ending, parallel: int, add_usage: Callable[[Usage], None]
    ) -> None:
        self._run = run
        self._hooks = hooks
        self._ending = ending
        self._parallel = parallel
        self._add_usage = add_usage
        self._late: list[_Task] = []  # answered, for example after a timeout, while their tool still runs
        self.interrupted: list[ToolResultBlock] = []
        """Results for calls whose tool was running when ``answers`` was closed."""

    def answers(
        self,
        reason: FinishReason | None,
        calls: Sequence[Call],
        offered: Sequence[str],
        verdicts: Mapping[str, ToolCallBlock | Refusal] = NO_VERDICTS,
        cut_off: str | None = None,
    ) -> Generator[Answer, None, None]:
        """A result for each call, in the order of the calls, as soon as it is known; none for a call that waits.

        When the run is aborted, all remaining results follow at once. Closing the generator cancels the tools.

        Args:
            reason: of the turn that made the calls.
            calls: each has a different id.
            offered: the names of the tools that the model may call.
            verdicts: what people have decided about some of the calls.
            cut_off: the id of a call whose arguments are missing, see ``id_of_cut_off_call``.
        """
        self._run.approved.clear()  # a model may use the id of an earlier call again
        wakeups: SimpleQueue[None] = SimpleQueue()
        tasks = [_Task(call, self._run, self._ending, wakeups) for call in calls]
        for call, task in zip(calls, tasks, strict=True):
            if isinstance(call, ToolCallMalformed):
                task.fail(_how_to_correct(call, reason))
            elif call.call_id == cut_off:
                task.fail(f"The answer was cut off before the arguments of this call. Call {call.name} again.")
        threads = Threads(self._parallel)
        remove_callback = self._ending.token.on_cancel(lambda: wakeups.put(None))
        try:
            with self._ending.catching_aborts():
                for task in tasks:
                    self._choose_tool(task, offered, verdicts.get(task.call_id))
            for task in tasks:
                if task.tool is not None and self._ending.abort is None:
                    # The reader's context variables: a tool sees its user, its tracing span, its tokens.
                    threads.submit(copy_context().run, task.run)
            for task in tasks:
                if task.waits_for_person:
                    continue
                while task.result is None and self._ending.abort is None:
                    _wait(tasks, wakeups, threads)
                yield Answer(task.name, self._final_result(task), task.seconds)
                task.is_answered = True
            if self._ending.abort is not None:  # their tokens are cancelled: let them report their usage
                _wait_for_end(tasks)
        finally:
            remove_callback()
            for task in tasks:
                task.stop()
                if task.has_started and not task.is_answered:
                    self.interrupted.append(task.interruption())
            self._late += [task for task in tasks if task.is_running]
            for task in tasks:
                self._add_usage(task.new_usage())

    def add_late_usage(self) -> None:
        """Add the tokens that tools have reported after the result of their call."""
        still_running = [task for task in self._late if task.is_running]
        for task in self._late:
            self._add_usage(task.new_usage())
        self._late = still_running

    def _choose_tool(self, task: _Task, offered: Sequence[str], verdict: ToolCallBlock | Refusal | None = None) -> None:
        """Ask the middleware about the call; then set ``task.tool``, or a result if the call must not be made, or mark
        the call as one that waits for a person."""
        if self._ending.abort is not None or task.result is not None:
            return
        if task.call.name in self._run.tools and task.call.name not in offered:  # middleware hid it from the model
            task.fail(_no_such_tool(task.call.name, offered))
            return
        if isinstance(verdict, Refusal):
            task.fail(verdict.reason)
            return
        if verdict is not None:
            task.call = verdict
            self._run.approved.add(task.call_id)
        must_wait = False
        for hook in self._hooks["before_tool"]:
            decision = returned(hook(self._run, task.call), (ToolCallBlock, Refusal, Pending), hook)
            if isinstance(decision, Refusal):
                task.fail(decision.reason)
                return
            if isinstance(decision, Pending):
                must_wait = True
            else:
                task.call = decision
        tool = self._run.tools.get(task.call.name)
        if tool is None:
            task.fail(_no_such_tool(task.call.name, offered))
        elif (must_wait or tool.approval) and task.call_id not in self._run.approved:
            problem = tool.why_wrong(task.call.args)
            if problem is not None:
                task.fail(problem)
            task.waits_for_person = problem is None
        else:
            task.tool = tool

    def _final_result(self, task: _Task) -> ToolResultBlock:
        """The result after the middleware has seen it.

        If a hook aborts the run, the model gets an explanation in place of the result.
        """
        self._add_usage(task.new_usage())
        has_no_result = task.result is None
        if has_no_result:
            task.explain_abort()
        result = task.result
        assert result is not None
        final = None
        with self._ending.catching_aborts():
            for hook in self._hooks["after_tool"]:
                result = returned(hook(self._run, task.call, result), ToolResultBlock, hook)
            final = result
        if final is None:  # a hook raised AbortRun
            if not has_no_result:
                task.explain_abort()
            final = task.result
            assert final is not None
        return final if final.call_id == task.call_id else replace(final, call_id=task.call_id)


class _Task:
    """One tool call. ``result`` is set once: by its worker thread, or by the reader when it stops waiting."""

    def __init__(self, call: Call, run: RunInfo, ending: Ending, wakeups: SimpleQueue[None]) -> None:
        self.call_id = call.call_id
        self.call = deepcopy(block_of(call))  # hooks may change it; the history keeps the model's own arguments
        self.name = call.name
        self.context = ToolContext(run.run_id, run.step_id, call.call_id, CancelToken())
        self.tool: Tool | None = None
        self.waits_for_person = False
        self.is_answered = False
        self.seconds: float | None = None
        self.result: ToolResultBlock | None = None
        self.deadline: float | None = None
        self.has_ended = Event()  # the tool does not run any more
        self._counted_usage = Usage()
        self._claims: dict[str, str] = {}
        self._ending = ending
        self._wakeups = wakeups
        self._unbind = ending.token.on_cancel(self.context.token.cancel)
        self._abort_message: str | None = None  # if the tool itself raised AbortRun

    @property
    def has_started(self) -> bool:
        return self._claims.get("fate") == "started"

    @property
    def is_running(self) -> bool:
        return self.has_started and not self.has_ended.is_set()

    def new_usage(self) -> Usage:
        """The tokens that the tool has reported since the last call of this method."""
        usage, before = self.context.usage, self._counted_usage
        self._counted_usage = usage
        return Usage(**{one.name: getattr(usage, one.name) - getattr(before, one.name) for one in fields(Usage)})

    def run(self) -> None:
        """Run the tool. Called in a worker thread."""
        try:
            self._run()
        finally:
            self.has_ended.set()

    def _run(self) -> None:
        tool = self.tool
        assert tool is not None
        if self._ending.abort is not None or self.context.token.cancelled or self._claim("started") != "started":
            return
        if tool.timeout is not None:
            self.deadline = time.monotonic() + tool.timeout
            self._wakeups.put(None)  # the reader must wait for this deadline too
        began = time.perf_counter()
        try:
            with self.context.token:  # a model that the tool calls is cancelled together with the tool
                blocks = tool.run(deepcopy(self.call.args), self.context)
            self._note_seconds(began)
            self.settle(blocks)
        except AbortRun as exc:
            self._abort_message = str(exc)
            self._ending.end("tool", str(exc))
        except ToolError as error:
            self._note_seconds(began)
            self.fail(_words_of(error))
        except BaseException as error:
            self._note_seconds(began)
            if not self.context.token.cancelled:  # an error after the cancel is how the tool stops
                log.warning("the tool %s failed", self.call.name, exc_info=error)
            self.fail(f"{type(error).__name__}: {_words_of(error)}")

    def fail(self, message: str) -> None:
        self.settle((TextBlock(message or "The call failed."),), is_error=True)

    def settle(self, blocks: tuple[Block, ...], *, is_error: bool = False) -> None:
        if self.result is None and self._ending.abort is None:  # what a tool returns after a cancel is not an answer
            self.result = ToolResultBlock(self.call_id, tuple(map(_without_halves, blocks)), is_error)
        self._wakeups.put(None)

    def _note_seconds(self, began: float) -> None:
        if self.result is None:  # after a timeout, the reader has the result already
            self.seconds = time.perf_counter() - began

    def interruption(self) -> ToolResultBlock:
        """The result if nobody reads the run any more."""
        return self.result or ToolResultBlock(self.call_id, (TextBlock(_INTERRUPTED),), is_error=True)

    def explain_abort(self) -> None:
        """Set a result that says that the run was aborted, and whether the tool was run."""
        abort = self._ending.abort
        assert abort is not None
        if self._abort_message is not None:
            message = self._abort_message or "The call ended the run."
        elif self.result is not None:
            message = f"The result of this call is withheld: {abort.message}."
        elif self._claim("not run") == "started":
            message = f"This call was interrupted, and its effects are unknown: {abort.message}."
        else:
            message = f"This call was not run: {abort.message}."
        self.result = ToolResultBlock(self.call_id, (TextBlock(message),), is_error=True)

    def _claim(self, fate: str) -> str:
        """``started`` or ``not run``: the first claim wins. A call that the history calls "not run" must not run later.

        ``dict.setdefault`` is atomic, so the worker and the reader need no lock.
        """
        return self._claims.setdefault("fate", fate)

    def stop(self) -> None:
        """The call has ended, or its result is not needed any more: cancel the tool."""
        self._unbind()
        self.context.token.cancel()


def _wait_for_end(tasks: Sequence[_Task]) -> None:
    """Wait for tools that are still running, but not for long. Not in a finalizer: an Event has a lock."""
    ends_at = time.monotonic() + _LAST_WORDS_SECONDS
    for task in tasks:
        if task.is_running:
            task.has_ended.wait(max(ends_at - time.monotonic(), 0.0))


def _no_such_tool(name: str, offered: Sequence[str]) -> str:
    # Middleware may have offered a tool that has no function.
    others = [other for other in offered if other != name]
    return f"There is no tool {name!r}. The tools are: {', '.join(others) or 'none'}."


def _words_of(error: BaseException) -> str:
    """The message of an exception; its ``__str__`` may fail, and the call would have no result."""
    try:
        return str(error)
    except Exception:
        return "(the error has no message)"


def _without_halves(block: Block) -> Block:
    """The block without halves of surrogate pairs, which no provider accepts."""
    if isinstance(block, TextBlock) and has_surrogates(block.text):
        return replace(block, text=without_surrogates(block.text))
    return block


def _how_to_correct(call: ToolCallMalformed, reason: FinishReason | None) -> str:
    if reason is FinishReason.MAX_TOKENS:
        return f"The answer reached its token limit inside these arguments. Call {call.name} with shorter arguments."
    return f"The arguments are not a JSON object: {call.error}. Call {call.name} again with valid JSON."


def _wait(tasks: Sequence[_Task], wakeups: SimpleQueue[None], threads: Threads) -> None:
    """Wait for the next wakeup or the first deadline; a task that exceeds its deadline fails."""
    deadlines = [(task.deadline, task) for task in tasks if task.deadline is not None and task.result is None]
    deadline, first = min(deadlines, key=lambda pair: pair[0], default=(None, None))
    with suppress(Empty):
        wakeups.get(timeout=None if deadline is None else max(deadline - time.monotonic(), 0.0))
    if first is None or deadline is None or time.monotonic() < deadline or first.result is not None:
        return
    assert first.tool is not None
    first.fail(f"{first.call.name} took longer than {first.tool.timeout:g} s and was cancelled.")
    first.context.token.cancel()
    threads.allow_one_more()  # the tool may ignore its token and keep its thread
