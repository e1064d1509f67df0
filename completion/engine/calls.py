"""The calls of one turn: decided on in the model's order, run side by side in threads, answered in the model's order.

    ToolCallFinished -> before_tool -> thread: tool.run -> after_tool -> ToolResultBlock

Whatever goes wrong with a call becomes a result for the model to read, which says what to mend.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from contextvars import copy_context
from dataclasses import replace
from queue import Empty, SimpleQueue

from completion.contract.cancel import CancelToken
from completion.contract.chunks import FinishReason, ToolCallFinished, ToolCallMalformed, Usage
from completion.contract.messages import Block, TextBlock, ToolCallBlock, ToolResultBlock
from completion.contract.turn import Turn
from completion.engine.bounds import Ending
from completion.engine.middleware import AbortRun, Hooks, Refusal, RunInfo, returned
from completion.engine.tools import Tool, ToolContext, ToolError
from completion.offload.threads import Threads

log = logging.getLogger(__name__)

MALFORMED_ARGUMENTS = "__malformed_arguments__"
"""The one argument of a call in the history whose arguments were no JSON object: their text, as it came."""

Call = ToolCallFinished | ToolCallMalformed


def block_of(call: Call) -> ToolCallBlock:
    """The call as the history keeps it. Its answer stands beside it, so it must be there, malformed or not."""
    if isinstance(call, ToolCallMalformed):
        return ToolCallBlock(call.call_id, call.name, {MALFORMED_ARGUMENTS: call.raw})
    return ToolCallBlock(call.call_id, call.name, call.args, call.signature)


def distinct(calls: Sequence[Call]) -> list[Call]:
    """The calls of a turn with an id each. A model that gives one id to two breaks the contract; a history with two
    results for it would be refused for ever."""
    known: dict[str, Call] = {}
    for call in calls:
        call_id, n = call.call_id, 1
        while call_id in known:
            n += 1
            call_id = f"{call.call_id}_{n}"
        known[call_id] = call if n == 1 else replace(call, call_id=call_id)
    return list(known.values())


class Calls:
    """Answers the calls of a run.

    Args:
        run: whose calls.
        hooks: of the middleware.
        ending: an abort ends the waiting for all calls.
        parallel: so many calls of a turn at a time. One that does not end when its time is over keeps its thread, and
            its place goes to another.
        spend: told what each tool has reported, once.
    """

    def __init__(
        self, run: RunInfo, hooks: Hooks, ending: Ending, parallel: int, spend: Callable[[Usage], None]
    ) -> None:
        self._run = run
        self._hooks = hooks
        self._ending = ending
        self._parallel = parallel
        self._spend = spend

    def answers(
        self, turn: Turn, calls: Sequence[Call], offered: Sequence[str]
    ) -> Generator[ToolResultBlock, None, None]:
        """A result for each call, in the order of the calls, as soon as it and those before it are there; at once for
        all that are left when the run is aborted. Closing it tells the tools to stop.

        Args:
            turn: that they are of.
            calls: each with an id of its own.
            offered: the names of the tools that the model may call.
        """
        bell: SimpleQueue[None] = SimpleQueue()
        tasks = [_Task(call, self._run, self._ending, bell) for call in calls]
        for call, task in zip(calls, tasks, strict=True):
            if isinstance(call, ToolCallMalformed):
                task.fail(_to_mend(call, turn))
        threads = Threads(self._parallel)
        forget = self._ending.token.on_cancel(lambda: bell.put(None))
        try:
            with self._ending.noted():
                for task in tasks:
                    self._decide(task, offered)
            for task in tasks:
                if task.tool is not None and self._ending.abort is None:
                    threads.submit(copy_context().run, task.run)
            for task in tasks:
                while task.result is None and self._ending.abort is None:
                    _wait(tasks, bell, threads)
                yield self._passed(task)
        finally:
            forget()
            for task in tasks:
                task.stop()
                if not task.is_passed:
                    self._spend(task.context.usage)

    def _decide(self, task: _Task, offered: Sequence[str]) -> None:
        """Whether the call is made, and how: ``task.tool`` is set, or its result."""
        if self._ending.abort is not None or task.result is not None:
            return
        for hook in self._hooks["before_tool"]:
            decided = returned(hook(self._run, task.call), (ToolCallBlock, Refusal), hook)
            if isinstance(decided, Refusal):
                task.fail(decided.reason)
                return
            task.call = decided
        task.tool = self._run.tools.get(task.call.name)
        if task.tool is None:
            task.fail(f"There is no tool {task.call.name!r}. The tools are: {', '.join(offered) or 'none'}.")

    def _passed(self, task: _Task) -> ToolResultBlock:
        """The result, once the middleware has seen it. Where that aborts the run, the result is not for the model."""
        task.is_passed = True
        self._spend(task.context.usage)
        is_given_up = task.result is None
        if is_given_up:
            task.give_up()
        result = task.result
        assert result is not None
        told = None
        with self._ending.noted():
            for hook in self._hooks["after_tool"]:
                result = returned(hook(self._run, task.call, result), ToolResultBlock, hook)
            told = result
        if told is None:
            if not is_given_up:
                task.give_up()
            told = task.result
            assert told is not None
        return told if told.call_id == task.call_id else replace(told, call_id=task.call_id)


class _Task:
    """One call on its way. ``result`` is set once, by whoever is first: its thread, or who waits for it."""

    def __init__(self, call: Call, run: RunInfo, ending: Ending, bell: SimpleQueue[None]) -> None:
        self.call_id = call.call_id
        self.call = block_of(call)
        self.context = ToolContext(run.run_id, run.step_id, call.call_id, CancelToken())
        self.tool: Tool | None = None
        self.result: ToolResultBlock | None = None
        self.ends_at: float | None = None
        self.is_passed = False
        self._decided: dict[str, str] = {}
        self._ending = ending
        self._bell = bell
        self._untie = ending.token.on_cancel(self.context.token.cancel)
        self._last_words: str | None = None

    def run(self) -> None:
        """In a thread of its own."""
        tool = self.tool
        assert tool is not None
        if self._ending.abort is not None or self.context.token.cancelled or self._fate("begun") != "begun":
            return
        if tool.timeout is not None:
            self.ends_at = time.monotonic() + tool.timeout
            self._bell.put(None)  # there is one more clock to look at
        try:
            with self.context.token:  # what the tool asks of a model is cancelled with it
                self.settle(tool.run(self.call.args, self.context))
        except AbortRun as stop:
            self._last_words = str(stop)
            self._ending.end("tool", str(stop))
        except ToolError as error:
            self.fail(str(error))
        except BaseException as error:
            if not self.context.token.cancelled:  # else it stopped because it was told to
                log.warning("the tool %s failed", self.call.name, exc_info=error)
            self.fail(f"{type(error).__name__}: {error}")

    def fail(self, message: str) -> None:
        self.settle((TextBlock(message or "The call failed."),), is_error=True)

    def settle(self, blocks: tuple[Block, ...], *, is_error: bool = False) -> None:
        if self.result is None and self._ending.abort is None:  # what it says when it was told to stop is no answer
            self.result = ToolResultBlock(self.call_id, blocks, is_error)
        self._bell.put(None)

    def give_up(self) -> None:
        """The run ends, and this call has no result that the model may read."""
        abort = self._ending.abort
        assert abort is not None
        if self._last_words is not None:
            message = self._last_words or "The call ended the run."
        elif self.result is not None:
            message = f"The result of this call is withheld: {abort.message}."
        elif self._fate("not run") == "begun":
            message = f"This call was broken off, and what it has done is not known: {abort.message}."
        else:
            message = f"This call was not run: {abort.message}."
        self.result = ToolResultBlock(self.call_id, (TextBlock(message),), is_error=True)

    def _fate(self, wanted: str) -> str:
        """What was decided on first, in one step: what the history says was not run must not run."""
        return self._decided.setdefault("fate", wanted)

    def stop(self) -> None:
        """The call is over, or nobody waits for it any longer."""
        self._untie()
        self.context.token.cancel()


def _to_mend(call: ToolCallMalformed, turn: Turn) -> str:
    if turn.reason is FinishReason.MAX_TOKENS:
        return f"The answer reached its limit of tokens inside of these arguments. Call {call.name} with shorter ones."
    return f"The arguments are no JSON object: {call.error}. Call {call.name} again with valid JSON."


def _wait(tasks: Sequence[_Task], bell: SimpleQueue[None], threads: Threads) -> None:
    """Until something has happened, or the first clock is over."""
    ends = [(task.ends_at, task) for task in tasks if task.ends_at is not None and task.result is None]
    ends_at, first = min(ends, key=lambda end: end[0], default=(None, None))
    with suppress(Empty):
        bell.get(timeout=None if ends_at is None else max(ends_at - time.monotonic(), 0.0))
    if first is None or ends_at is None or time.monotonic() < ends_at or first.result is not None:
        return
    assert first.tool is not None
    first.fail(f"{first.call.name} took longer than {first.tool.timeout:g} s and was given up.")
    first.context.token.cancel()
    threads.give_place()
