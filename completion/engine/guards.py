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

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from completion.contract.checks import require_whole_number
from completion.contract.messages import TextBlock, ToolCallBlock, ToolResultBlock
from completion.engine.middleware import AbortRun, Middleware, Refusal, RunInfo, StatefulMiddleware


class Approval(Middleware):
    """Asks before a tool is called.

    ``decide(call)`` returns True (make the call), False or a reason (refuse it; the model reads the reason), or a dict
    (make the call with these arguments instead). It runs in the thread that reads the run, so ``input()`` works; the
    time counts towards ``RunConfig.timeout``. An exception in ``decide`` fails the run, and the call is not made;
    AbortRun aborts the run.

    Args:
        decide: called in the order of the calls, once for each.
        tags, names: ask only about tools with one of these tags or names. With neither: ask about all calls.

    Raises:
        TypeError: ``decide`` returned something else, None for example. This fails the run.
    """

    def __init__(
        self,
        decide: Callable[[ToolCallBlock], bool | str | dict[str, Any]],
        *,
        tags: Iterable[str] = (),
        names: Iterable[str] = (),
    ) -> None:
        if isinstance(tags, str) or isinstance(names, str):
            raise TypeError("Approval: tags= and names= must be lists of str, got a str")
        if not callable(decide):
            raise TypeError(f"Approval: decide must be a function, got {type(decide).__name__}")
        self._decide = decide
        self._tags, self._names = frozenset(tags), frozenset(names)

    def before_tool(self, run: RunInfo, call: ToolCallBlock) -> ToolCallBlock | Refusal:
        if not self._needs_approval(run, call):
            return call
        decision = self._decide(call)
        match decision:
            case True:
                return call
            case False | "":
                return Refusal("The user did not allow this call.")
            case str():
                return Refusal(decision)
            case dict():
                return replace(call, args=decision)
        # None is probably a missing ``return``: it must not count as a yes, and as a no it would hide the mistake.
        raise TypeError(
            f"Approval: decide({call.name}) must return True, False, a reason or a dict of arguments, got {decision!r}"
        )

    def _needs_approval(self, run: RunInfo, call: ToolCallBlock) -> bool:
        if not self._tags and not self._names:
            return True
        tool = run.tools.get(call.name)
        return call.name in self._names or (tool is not None and not self._tags.isdisjoint(tool.definition.tags))


class CallLimit(StatefulMiddleware[list[int]]):
    """Allows a number of tool calls per run; further calls are refused, and the model reads why.

    Calls that earlier middleware refused are not counted.

    Args:
        most: calls per run.
        name: count only the calls of this tool. Use several CallLimits for several limits.
        ends_run: the first call over the limit aborts the run instead.

    Raises:
        ValueError: ``most`` is not a whole number of 1 or more.
    """

    def __init__(self, most: int, *, name: str | None = None, ends_run: bool = False) -> None:
        super().__init__(lambda: [0])
        require_whole_number(most, "CallLimit: most")
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
