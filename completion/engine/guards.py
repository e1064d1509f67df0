"""Middleware that keeps a run within bounds: what may be done, how often, and what nobody shall read.

    run_chat(model, request, tools, middleware=[
        LoopDetection(),
        CallLimit(20),
        Approval(lambda call: input(f"{call.name}({call.args})? ") == "y", tags=["writes"]),
        Redaction("api_key", "email"),
    ])

That is a good order: a loop is seen although its calls are refused, a call is asked about with the arguments that it
will have, and what the others see going out and coming in has been redacted. Each object may serve many runs at once.
This module is the only door to regex, which alone can tell (re cannot) whether a text may be the beginning of a match;
it is imported when a Redaction is made.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

from completion.contract.messages import TextBlock, ToolCallBlock, ToolResultBlock
from completion.contract.run import RunFinished
from completion.engine.middleware import AbortRun, Middleware, Refusal, RunInfo

_StateT = TypeVar("_StateT")


class _PerRun(Middleware, Generic[_StateT]):
    """Middleware that remembers something of each run, until its end."""

    def __init__(self, new: Callable[[], _StateT]) -> None:
        self._new = new
        self._states: dict[str, _StateT] = {}

    def _state(self, run: RunInfo) -> _StateT:
        return self._states.setdefault(run.run_id, self._new())

    def on_finished(self, run: RunInfo, end: RunFinished) -> None:
        self._states.pop(run.run_id, None)

    def on_failed(self, run: RunInfo, error: BaseException) -> None:
        self._states.pop(run.run_id, None)

    def on_dropped(self, run: RunInfo) -> None:
        self._states.pop(run.run_id, None)


class Approval(Middleware):
    """Asks before a tool is called.

    ``decide(call)`` gives True (the call is made), False or the reason (it is not, and the model reads why), or a dict:
    the arguments to call it with instead. It runs in the thread that reads the run, so ``input()`` works; the clock of
    ``RunConfig.timeout`` goes on. What it raises is an error of the run, and the call is not made; AbortRun ends the
    run well.

    Args:
        decide: asked in the model's order, one call after the other.
        tags, names: ask about the calls of tools with one of these tags, or of these names. With neither: about all.

    Raises:
        TypeError: what ``decide`` gave says neither yes nor no. A None does not; the run fails.
    """

    def __init__(
        self,
        decide: Callable[[ToolCallBlock], bool | str | dict[str, Any]],
        *,
        tags: Iterable[str] = (),
        names: Iterable[str] = (),
    ) -> None:
        if isinstance(tags, str) or isinstance(names, str):
            raise TypeError("Approval: tags= and names= take lists of strings")
        if not callable(decide):
            raise TypeError(f"Approval takes a function that decides on a call, got {type(decide).__name__}")
        self._decide = decide
        self._tags, self._names = frozenset(tags), frozenset(names)

    def before_tool(self, run: RunInfo, call: ToolCallBlock) -> ToolCallBlock | Refusal:
        if not self._is_asked_about(run, call):
            return call
        decided = self._decide(call)
        match decided:
            case True:
                return call
            case False | "":
                return Refusal("The user did not allow this call.")
            case str():
                return Refusal(decided)
            case dict():
                return replace(call, args=decided)
        raise TypeError(
            f"Approval: decide({call.name}) must give True, False, a reason or a dict of arguments, got {decided!r}"
        )

    def _is_asked_about(self, run: RunInfo, call: ToolCallBlock) -> bool:
        if not self._tags and not self._names:
            return True
        tool = run.tools.get(call.name)
        return call.name in self._names or (tool is not None and not self._tags.isdisjoint(tool.definition.tags))


class CallLimit(_PerRun[list[int]]):
    """Lets a run make so many calls; of those beyond, the model reads that there are no more.

    Counted is what reaches this middleware: not what another one before it has refused.

    Args:
        most: calls of one run.
        name: count the calls of this tool only. For several limits, give several of these.
        ends_run: the first call beyond ends the run instead, with this as its ``abort``.

    Raises:
        ValueError: ``most`` is no whole number from 1 on.
    """

    def __init__(self, most: int, *, name: str | None = None, ends_run: bool = False) -> None:
        super().__init__(lambda: [0])
        self._most = _from_one_on("CallLimit: most", most)
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
        what = f"{self._name} may be called {times}" if self._name else f"tools may be called {times} altogether"
        if self._ends_run:
            raise AbortRun(f"{what}, and {call.name} would have been one call more")
        return Refusal(f"{what[0].upper()}{what[1:]}, and that has been done. Go on with what you have.")


@dataclass(slots=True)
class _Made:
    """The calls of a run so far: each a name, arguments and a result."""

    latest: deque[tuple[Any, ...]]
    asked: dict[str, tuple[Any, ...]] = field(default_factory=dict)


class LoopDetection(_PerRun[_Made]):
    """Notices that the model makes the same call again and again: it is told, and if it does not stop, the run ends.

    The same call is one of the same tool with the same arguments and the same result. So asking a job how it does is
    no loop while the answers differ.

    Args:
        times: below the result of the call that is the same so many times, the model reads that it goes round.
        ends_at: the call that would be the same so many times is not made, and the run ends. None: ``times + 1``.
        within: look for the same call among so many latest ones. None: in a row, with no other call between.

    Raises:
        ValueError: numbers that make no sense.
    """

    def __init__(self, times: int = 3, *, ends_at: int | None = None, within: int | None = None) -> None:
        self._times = _from_one_on("LoopDetection: times", times)
        self._ends_at = times + 1 if ends_at is None else _from_one_on("LoopDetection: ends_at", ends_at)
        self._is_in_a_row = within is None
        size = self._ends_at if within is None else _from_one_on("LoopDetection: within", within)
        if not self._times < self._ends_at <= size:
            raise ValueError("LoopDetection: times must be less than ends_at, and that at most within")
        super().__init__(lambda: _Made(deque(maxlen=size)))

    def before_tool(self, run: RunInfo, call: ToolCallBlock) -> ToolCallBlock | Refusal:
        made, asked = self._state(run), (call.name, call.args)
        self._end_at_last(made, asked, 1)
        made.asked[call.call_id] = asked  # somebody further in may change the arguments
        return call

    def after_tool(self, run: RunInfo, call: ToolCallBlock, result: ToolResultBlock) -> ToolResultBlock:
        made = self._state(run)
        asked = made.asked.pop(call.call_id, (call.name, call.args))
        made.latest.append((*asked, result.blocks, result.is_error))
        times = self._repeated(made, asked)
        if times < self._times:
            return result
        self._end_at_last(made, asked, 0)  # malformed, or refused further out: before_tool did not see it
        told = f"(This was the same call with the same result {times} times. Do something else, or answer.)"
        return replace(result, blocks=(*result.blocks, TextBlock(told)))

    def _end_at_last(self, made: _Made, asked: tuple[Any, ...], coming: int) -> None:
        if self._repeated(made, asked) + coming >= self._ends_at:
            raise AbortRun(f"the model went round: {self._ends_at} times the same call of {asked[0]}")

    def _repeated(self, made: _Made, asked: tuple[Any, ...]) -> int:
        """How often the latest of these calls has been made with the same result."""
        latest = [*made.latest][::-1]
        newest = next((one for one in latest if one[:2] == asked), None)
        if not self._is_in_a_row:
            return latest.count(newest) if newest is not None else 0
        return next((i for i, one in enumerate(latest) if one != newest), len(latest))


def _from_one_on(what: str, number: int) -> int:
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise ValueError(f"{what} must be a whole number from 1 on, got {number!r}")
    return number
