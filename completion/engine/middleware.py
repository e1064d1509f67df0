"""Middleware: objects that observe a run and may change it. A class with some of these methods:

    class Shouting(Middleware):
        def on_chunk(self, run, chunk):
            return TextDelta(chunk.delta.upper()) if isinstance(chunk, TextDelta) else chunk

The order of the middleware: what goes to the model passes the first one first, what comes back passes the last one
first, as if each were wrapped around the next.

    first -> last     on_run_started, on_request, on_retry, before_tool
    last -> first     on_chunk, after_tool, on_turn_finished, and one of on_finished, on_failed, on_dropped

The order in time, with each chunk where the reader gets it; on_chunk is called just before its chunk:

    on_run_started
    on_request, (the turn opens, or on_retry)                RunStarted
      StepStarted, (HistoryCompacted), the chunks of the turn, TurnFinished
      before_tool of each call, (the tools run), after_tool of each result and its ToolResult
      on_turn_finished                                       StepFinished
    on_request, (the next turn opens)
      StepStarted, ...
    on_finished                                              RunFinished

Errors. An exception in a hook ends the run: no other hook is called except on_failed, the tools are cancelled, the
connection is closed, and the reader gets the exception unchanged. An exception in one of the last three hooks is only
logged, because the run is over. ``AbortRun`` aborts the run, from any hook except these three: all calls get results, a
started step gets its StepFinished, and the run its RunFinished. After the last StepFinished, AbortRun and ``cancel()``
have no effect.

Threads. Hooks are called in the thread that reads the run, one at a time. A hook that blocks must wait on
``run.token``, or it cannot be cancelled. When a run is dropped without being closed, Python's garbage collector calls
on_dropped, in any thread and at any line: on_dropped must not take a lock that the interrupted code may hold.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, TypeVar

from completion.contract.cancel import CancelToken
from completion.contract.chunks import StreamChunk, Usage
from completion.contract.messages import Message, ToolCallBlock, ToolResultBlock
from completion.contract.request import ChatRequest
from completion.contract.run import Chunk, RunFinished
from completion.contract.turn import Turn
from completion.engine.tools import Tool
from completion.wrappers.retry import RetryEvent

_StateT = TypeVar("_StateT")


class AbortRun(Exception):
    """Raise it in middleware or in a tool: the run ends with a RunFinished whose ``abort`` has this message."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Return it from ``before_tool``: the call is not made, and the model reads the reason."""

    reason: str


@dataclass(frozen=True, slots=True)
class Pending:
    """Return it from ``before_tool``, or from the ``decide`` of an Approval: the call waits for a person.

    The run makes the other calls of the turn and then ends. ``RunFinished.pending`` has the calls that wait.
    ``run_chat(…, decisions=…)`` goes on with them.
    """


@dataclass(slots=True)
class RunInfo:
    """The state of a run, for its middleware. There is one object per run, which changes during the run.

    ``tools``: the tools that the run calls, by name; ``on_run_started`` may replace them. ``token``: cancelled when the
    run must end. ``usage``: the tokens of all finished turns and of all answered tool calls, including this step.
    ``messages``: the new messages of the finished steps.
    """

    run_id: str
    provider: str
    model: str
    tools: dict[str, Tool]
    token: CancelToken
    step_id: str = ""
    iteration: int = 0
    usage: Usage = field(default_factory=Usage)
    messages: tuple[Message, ...] = ()
    asked: Any = field(default=None, repr=False)
    """The model object that the run calls."""
    notes: list[StreamChunk] = field(default_factory=list, repr=False)
    """Chunks of the run that the reader gets next. A Conversation adds its HistoryCompacted here."""
    approved: set[str] = field(default_factory=set, repr=False)
    """The ids of the calls of this turn that a person has allowed: they do not wait any more."""

    @property
    def base_url(self) -> str | None:
        """The base URL of the model; None if the model does not have one. For a LocalModel, this starts its server."""
        return base_url_of(self.asked)


def base_url_of(model: Any) -> str | None:
    """The base URL of a model, or of the model inside its wrappers; None if it does not have one."""
    while (inner := getattr(model, "inner", None)) is not None:
        model = inner
    return getattr(model, "base_url", None)


class Middleware:
    """The base class of middleware; it changes nothing. Override the hooks that you need: the others cost nothing. The
    base class is optional, any object with some of these methods works.

    One object may serve many runs at the same time: store the state of a run under its ``run_id``, and remove it in
    the last three hooks.
    """

    def on_run_started(self, run: RunInfo) -> None:
        """The first hook of a run."""

    def on_request(self, run: RunInfo, request: ChatRequest) -> ChatRequest:
        """A turn is about to be sent: return the request to send. Changes apply to this turn only; the next turn starts
        from the caller's request again."""
        return request

    def on_retry(self, run: RunInfo, event: RetryEvent) -> None:
        """A RetryingModel (the model, or one inside it) is about to retry."""

    def on_chunk(self, run: RunInfo, chunk: Chunk) -> StreamChunk | Sequence[StreamChunk] | None:
        """Return what the reader gets: this chunk or another one, several, or None for nothing. The history keeps the
        model's own words. For chunks of the run itself (RunStarted, StepStarted, HistoryCompacted, ToolResult,
        StepFinished, RunFinished), the return value is ignored."""
        return chunk

    def before_tool(self, run: RunInfo, call: ToolCallBlock) -> ToolCallBlock | Refusal | Pending:
        """Return the call to make, perhaps with other arguments, a Refusal, or Pending() to let it wait for a person; a
        call that waited and was allowed does not wait again. It is called for all calls of a turn
        before the first tool runs, but not for malformed calls and calls of hidden tools, which the request did not
        offer. The history keeps the model's own arguments."""
        return call

    def after_tool(self, run: RunInfo, call: ToolCallBlock, result: ToolResultBlock) -> ToolResultBlock:
        """Return the result for the model, this one or another. It is called for every result, also of calls that were
        malformed, refused, or not run because of an abort; ``result.is_error`` tells them apart."""
        return result

    def on_turn_finished(self, run: RunInfo, turn: Turn) -> Sequence[Message] | None:
        """The turn is over and its calls are answered. ``turn.reason`` is None if an abort ended the turn early.

        Return a list of messages to get another turn even if the run would end here. The messages are added to the
        history. The list may be empty: the model then continues its answer. A run that is aborted, or that has a call
        of a client-side tool, ends anyway. A turn that ended with ``pause`` is continued without a hook.
        """
        return None

    def on_finished(self, run: RunInfo, end: RunFinished) -> None:
        """The run has ended well, or was aborted."""

    def on_failed(self, run: RunInfo, error: BaseException) -> None:
        """The run has ended with this error, which is raised next."""

    def on_dropped(self, run: RunInfo) -> None:
        """The reader has closed or dropped the run before its end."""


class StatefulMiddleware(Middleware, Generic[_StateT]):
    """Middleware with a state for each run, which is removed when the run ends."""

    def __init__(self, new_state: Callable[[], _StateT]) -> None:
        self._new_state = new_state
        self._states: dict[str, _StateT] = {}

    def _state(self, run: RunInfo) -> _StateT:
        return self._states.setdefault(run.run_id, self._new_state())

    def on_finished(self, run: RunInfo, end: RunFinished) -> None:
        self._states.pop(run.run_id, None)

    def on_failed(self, run: RunInfo, error: BaseException) -> None:
        self._states.pop(run.run_id, None)

    def on_dropped(self, run: RunInfo) -> None:
        self._states.pop(run.run_id, None)


class Hooks:
    """The overridden hooks of all middleware: for each name, a list in the order of the calls.

    Raises:
        TypeError: an object without any hook, a Middleware with a method named like a hook that does not exist, or an
            asynchronous hook.
    """

    _towards_model: ClassVar[tuple[str, ...]] = ("on_run_started", "on_request", "on_retry", "before_tool")
    _from_model: ClassVar[tuple[str, ...]] = (
        "on_chunk", "after_tool", "on_turn_finished", "on_finished", "on_failed", "on_dropped"
    )  # fmt: skip

    def __init__(self, middleware: Sequence[Any]) -> None:
        known = (*self._towards_model, *self._from_model)
        for one in middleware:
            if isinstance(one, type) or not any(hasattr(one, name) for name in known):
                raise TypeError(f"middleware= must contain objects with methods of Middleware, got {one!r}")
            for name in dir(one):
                if name.startswith(("on_", "before_", "after_")):
                    _check_hook(one, name, known)
        self._lists = {
            name: [hook for one in order for hook in _overridden(one, name)]
            for names, order in ((self._towards_model, middleware), (self._from_model, middleware[::-1]))
            for name in names
        }

    def __getitem__(self, name: str) -> list[Any]:
        return self._lists[name]


def _check_hook(one: Any, name: str, known: Sequence[str]) -> None:
    where = f"{type(one).__name__}.{name}"
    if name not in known:
        if isinstance(one, Middleware):  # a class without our base may use such names for its own methods
            raise TypeError(f"{where} is not a hook and would never be called; the hooks are: {', '.join(known)}")
    elif inspect.iscoroutinefunction(getattr(one, name)):
        raise TypeError(f"{where} is an async def, but a run is synchronous; use def")


def _overridden(one: Any, name: str) -> list[Any]:
    """The method in a list; an empty list if it is missing, or is the one of the base class, which does nothing."""
    hook = getattr(one, name, None)
    return [] if hook is None or getattr(hook, "__func__", None) is getattr(Middleware, name) else [hook]


def returned(value: Any, kinds: type | tuple[type, ...], hook: Any) -> Any:
    """The value that a hook returned. A missing ``return`` is the most common mistake.

    Raises:
        TypeError: the value has another type.
    """
    if not isinstance(value, kinds):
        names = " or a ".join(kind.__name__ for kind in (kinds if isinstance(kinds, tuple) else (kinds,)))
        where = getattr(hook, "__qualname__", repr(hook))
        raise TypeError(f"{where} must return a {names}, got {type(value).__name__}")
    return value
