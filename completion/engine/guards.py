"""Middleware that limits what a run does: which tool calls are allowed, how many, and whether they repeat.

    run_chat(model, request, tools, middleware=[
        LoopDetection(),
        CallLimit(20),
        Approval(lambda call: input(f"{call.name}({call.args})? ") == "y", tags=["writes"]),
        Redaction("api_key", "email"),
    ])

This order works well: LoopDetection sees a loop even if its calls are refused, Approval asks about the final arguments,
and Redaction, as the last one, redacts requests and chunks before the others see them. Each object may serve many runs
at the same time.
"""

from __future__ import annotations

import builtins
import inspect
import sys
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from completion.contract.checks import require_whole_number
from completion.contract.messages import TextBlock, ToolCallBlock, ToolResultBlock
from completion.engine.decisions import Decision, apply_decision
from completion.engine.middleware import AbortRun, Middleware, Pending, Refusal, RunInfo, StatefulMiddleware
from completion.engine.tools import Tool
from completion.offload.threads import call_in_thread

Answer = Decision | Pending
Decide = (
    Callable[[ToolCallBlock], Answer]
    | Callable[[ToolCallBlock, RunInfo], Answer]
    | Callable[[ToolCallBlock], Awaitable[Answer]]
    | Callable[[ToolCallBlock, RunInfo], Awaitable[Answer]]
)
"""What ``Approval`` asks."""


class Approval(Middleware):
    """Asks before a tool is called.

    ``decide(call)`` or ``decide(call, run)`` returns True (make the call), False or a reason (refuse it; the model
    reads the reason), a dict (make the call with these arguments instead), or ``Pending()`` (the call waits for a
    person; see there). It may be asynchronous. An exception in ``decide`` fails the run, and the call is not made;
    AbortRun aborts the run.

    ``decide`` is called only for tools that exist, with valid arguments: the run itself answers all other calls. It
    runs in a thread of its own with the context variables of the reader, so that ``cancel()`` and
    ``RunConfig.timeout`` end the run also while it waits. It may wait on ``run.token`` to notice that. Where a person
    sits in front of the main thread (a terminal, a notebook), a ``decide`` that is a plain function runs in that
    thread: ``input()`` and Ctrl-C work as usual, and ``cancel()`` has its effect afterwards.

    Args:
        decide: called in the order of the calls, once for each, one at a time.
        tags, names: ask only about tools with one of these tags or names, and about those with ``approval=True``. With
            neither: ask about all calls.

    Raises:
        TypeError: an argument has the wrong type. Or ``decide`` returned something else, None for example; this fails
            the run.
    """

    def __init__(self, decide: Decide, *, tags: Iterable[str] = (), names: Iterable[str] = ()) -> None:
        if not callable(decide):
            raise TypeError(f"Approval: decide must be a function, got {type(decide).__name__}")
        self._decide = decide
        self._takes_run = _takes_run(decide)
        self._tags, self._names = _words(tags, "tags"), _words(names, "names")

    def before_tool(self, run: RunInfo, call: ToolCallBlock) -> ToolCallBlock | Refusal | Pending:
        tool = run.tools.get(call.name)
        if tool is None or call.call_id in run.approved or not self._needs_approval(tool) or tool.why_wrong(call.args):
            return call
        decision = self.ask(run, call)
        if isinstance(decision, Pending):
            return decision
        verdict = apply_decision(call, decision, f"Approval: decide({call.name}) must return")
        if isinstance(verdict, ToolCallBlock):
            run.approved.add(call.call_id)
        return verdict

    def ask(self, run: RunInfo, call: ToolCallBlock) -> Any:
        """Call ``decide`` and wait for what it returns. A subclass may ask in another way."""
        decide: Callable[..., Any] = self._decide
        arguments = (call, run) if self._takes_run else (call,)

        def work() -> Any:
            decision = decide(*arguments)
            if inspect.isawaitable(decision):
                from completion.offload.tasks import run_awaitable  # imports asyncio, which most programs do not need

                return run_awaitable(decision, run.token)
            return decision

        if _is_interactive() and not inspect.iscoroutinefunction(decide):
            return work()
        return call_in_thread("completion-approval", work, run.token)

    def _needs_approval(self, tool: Tool) -> bool:
        if tool.approval or not (self._tags or self._names):
            return True
        return tool.name in self._names or not self._tags.isdisjoint(tool.definition.tags)


def _is_interactive() -> bool:
    """This is the main thread, and ``input()`` asks a person: it reads from a terminal, or a notebook replaced it."""
    if threading.current_thread() is not threading.main_thread():
        return False
    is_replaced = not inspect.isbuiltin(builtins.input)
    return is_replaced or (sys.stdin is not None and not sys.stdin.closed and sys.stdin.isatty())


def _takes_run(decide: Callable[..., Any]) -> bool:
    """Whether the function has a second parameter without a default, or one that is named ``run``."""
    try:
        parameters = [*inspect.signature(decide).parameters.values()]
    except (TypeError, ValueError):
        return False
    positional = [one for one in parameters if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
    return len(positional) > 1 and (positional[1].default is inspect.Parameter.empty or positional[1].name == "run")


def _words(given: Iterable[str], argument: str) -> frozenset[str]:
    """The tags or names. Anything that is not a str, such as the tool itself, would match no call: none would need
    approval."""
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise TypeError(f"Approval: {argument}= must be a list of str, got {type(given).__name__}")
    words = frozenset(given)
    for word in words:
        if not isinstance(word, str):
            raise TypeError(f"Approval: {argument}= must be a list of str, got a {type(word).__name__} in it")
    return words


class CallLimit(StatefulMiddleware[list[int]]):
    """Allows a number of tool calls per run; further calls are refused, and the model reads why.

    Calls that earlier middleware refused are not counted.

    Args:
        most: calls per run.
        name: count only the calls of this tool. Use several CallLimits for several limits.
        ends_run: the first call over the limit aborts the run instead.

    Raises:
        ValueError: ``most`` is not a whole number of 1 or more.
        TypeError: ``name`` is not a str.
    """

    def __init__(self, most: int, *, name: str | None = None, ends_run: bool = False) -> None:
        super().__init__(lambda: [0])
        require_whole_number(most, "CallLimit: most")
        if not isinstance(name, str | None):
            raise TypeError(f"CallLimit: name must be the name of a tool, got {type(name).__name__}")
        self._most = most
        self._name = name
        self._ends_run = ends_run

    def before_tool(self, run: RunInfo, call: ToolCallBlock) -> ToolCallBlock | Refusal:
        if self._name not in (None, call.name):
            return call
        count = self._state(run)
        count[0] += 1
        if count[0] <= self._most:
            return call
        times = "once" if self._most == 1 else f"{self._most} times"
        limit = f"{self._name} may be called {times}" if self._name else f"tools may be called {times} in total"
        if self._ends_run:
            raise AbortRun(f"{limit}, and the model called {call.name} once more")
        return Refusal(f"{limit[0].upper()}{limit[1:]}, and this limit is reached. Continue with what you have.")


@dataclass(slots=True)
class _CallHistory:
    """The latest calls of a run, each as (name, arguments, result blocks, is_error), and the calls without a result:
    call id -> (name, arguments)."""

    latest: deque[tuple[Any, ...]]
    pending: dict[str, tuple[Any, ...]] = field(default_factory=dict)


class LoopDetection(StatefulMiddleware[_CallHistory]):
    """Detects that the model repeats the same call. The model is warned; if it does not stop, the run is aborted.

    Two calls are the same if tool, arguments and result are the same. Polling a job is not a loop while the results
    differ.

    Args:
        times: the result of this repetition tells the model that it repeats itself.
        ends_at: this repetition is not run, and aborts the run. None: ``times + 1``.
        within: how many of the latest calls to look at. None: only count calls in a row, with no other call between
            them.

    Raises:
        ValueError: a number is not a whole number of 1 or more, or ``times < ends_at <= within`` is not true.
    """

    def __init__(self, times: int = 3, *, ends_at: int | None = None, within: int | None = None) -> None:
        require_whole_number(times, "LoopDetection: times")
        self._times = times
        self._ends_at = times + 1 if ends_at is None else ends_at
        require_whole_number(self._ends_at, "LoopDetection: ends_at")
        self._only_in_a_row = within is None
        size = self._ends_at if within is None else within
        require_whole_number(size, "LoopDetection: within")
        if not self._times < self._ends_at <= size:
            raise ValueError(
                "LoopDetection: times must be less than ends_at, and ends_at at most within, "
                f"got times={self._times}, ends_at={self._ends_at}, within={size}"
            )
        super().__init__(lambda: _CallHistory(deque(maxlen=size)))

    def before_tool(self, run: RunInfo, call: ToolCallBlock) -> ToolCallBlock | Refusal:
        calls, key = self._state(run), (call.name, call.args)
        self._abort_if_looping(calls, key, upcoming=1)
        calls.pending[call.call_id] = key  # later middleware may change the arguments: compare those of the model
        return call

    def after_tool(self, run: RunInfo, call: ToolCallBlock, result: ToolResultBlock) -> ToolResultBlock:
        calls = self._state(run)
        key = calls.pending.pop(call.call_id, (call.name, call.args))
        calls.latest.append((*key, result.blocks, result.is_error))
        times = self._repetitions(calls, key)
        if times < self._times:
            return result
        # before_tool was not called if the call is malformed, or if earlier middleware refused it: check again.
        self._abort_if_looping(calls, key, upcoming=0)
        warning = f"(This was the same call with the same result {times} times. Do something else, or answer.)"
        return replace(result, blocks=(*result.blocks, TextBlock(warning)))

    def _abort_if_looping(self, calls: _CallHistory, key: tuple[Any, ...], *, upcoming: int) -> None:
        if self._repetitions(calls, key) + upcoming >= self._ends_at:
            raise AbortRun(f"the model repeated itself: {self._ends_at} times the same call of {key[0]}")

    def _repetitions(self, calls: _CallHistory, key: tuple[Any, ...]) -> int:
        """How often the latest call with this name and these arguments was made with the same result."""
        newest_first = [*calls.latest][::-1]
        latest = next((call for call in newest_first if call[:2] == key), None)
        if not self._only_in_a_row:
            return newest_first.count(latest) if latest is not None else 0
        return next((i for i, call in enumerate(newest_first) if call != latest), len(newest_first))
