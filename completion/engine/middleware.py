"""What may look at a run from outside, and change it: a class with some of these methods.

    class Shouting(Middleware):
        def on_chunk(self, run, chunk):
            return TextDelta(chunk.delta.upper()) if isinstance(chunk, TextDelta) else chunk

The order: what goes towards the model passes the middleware from the first to the last, what comes back from the last
to the first, as if each were wrapped around the next.

    first -> last     on_run_started, on_request, on_retry, before_tool
    last -> first     on_chunk, after_tool, on_turn_finished, and one of on_finished, on_failed, on_dropped

The order in time, with each chunk where the reader gets it; on_chunk comes right before its chunk:

    on_run_started
    on_request, (the turn opens, or on_retry)                RunStarted
      StepStarted, the chunks of the turn, TurnFinished
      before_tool of each call, (the tools run), after_tool of each result and its ToolResult
      on_turn_finished                                       StepFinished
    on_request, (the next turn opens)
      StepStarted, ...
    on_finished                                              RunFinished

Errors. What a hook raises is an error of the run: the hooks after it are not called but for on_failed, tools are told
to stop, the connection is closed, and the reader gets the error as it is. What one of the last three raises is logged:
the run is over. ``AbortRun`` ends the run well, from any hook but those: with results for all calls, a
StepFinished where a step had begun, and a RunFinished. Once the last step is finished it comes too late, and so does
``cancel()``.

Threads. Hooks are called where the run is read, one at a time; a hook that waits, waits on ``run.token``, or nothing
can end it. A run that is dropped without being closed is noticed by whichever thread Python collects it in: on_dropped
takes no lock that the code it interrupts may hold.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from completion.contract.cancel import CancelToken
from completion.contract.chunks import StreamChunk, Usage
from completion.contract.messages import Message, ToolCallBlock, ToolResultBlock
from completion.contract.request import ChatRequest
from completion.contract.run import RunFinished
from completion.contract.turn import Turn
from completion.engine.tools import Tool
from completion.wrappers.retry import RetryEvent


class AbortRun(Exception):
    """Raised by middleware or by a tool: the run ends with a RunFinished whose ``abort`` has this message."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Returned by ``before_tool``: the call is not made, and the model reads why."""

    reason: str


@dataclass(slots=True)
class RunInfo:
    """A run as its middleware sees it; one object a run, which changes as the run goes on.

    ``tools``: those that the run answers, by name; ``on_run_started`` may put others in their places. ``token``:
    cancelled when the run is to end. ``usage``: of all turns that have ended and all tools that were answered, this
    step's included. ``messages``: of the finished steps.
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
    """The model itself."""

    @property
    def base_url(self) -> str | None:
        """Where the model's requests go, None where it does not tell. It may start the server of a LocalModel."""
        return base_url_of(self.asked)


def base_url_of(model: Any) -> str | None:
    """The URL of a model, or of the one inside of its wrappers."""
    while (inner := getattr(model, "inner", None)) is not None:
        model = inner
    return getattr(model, "base_url", None)


class Middleware:
    """The base of middleware: it changes nothing. Subclasses override what they need; the rest costs nothing. Any
    object with some of these methods will do.

    One object may serve many runs at the same time: what belongs to a run is kept by its ``run_id``, until one of the
    last three hooks.
    """

    def on_run_started(self, run: RunInfo) -> None:
        """Before anything else."""

    def on_request(self, run: RunInfo, request: ChatRequest) -> ChatRequest:
        """A turn is about to be asked for: the request to send, this one or another. The next turn's begins again with
        the caller's."""
        return request

    def on_retry(self, run: RunInfo, event: RetryEvent) -> None:
        """A RetryingModel inside of the model is about to try again."""

    def on_chunk(self, run: RunInfo, chunk: StreamChunk) -> StreamChunk | Sequence[StreamChunk] | None:
        """What the reader gets instead: this chunk or another, several, or None for nothing. The history keeps the
        model's own words; chunks of the run itself (RunStarted and its kin) can be seen here and not changed."""
        return chunk

    def before_tool(self, run: RunInfo, call: ToolCallBlock) -> ToolCallBlock | Refusal:
        """The call to make, with other arguments perhaps, or why it is refused. All calls of a turn are decided on
        before the first of them is made; malformed ones are not asked about. The history keeps the model's own
        arguments."""
        return call

    def after_tool(self, run: RunInfo, call: ToolCallBlock, result: ToolResultBlock) -> ToolResultBlock:
        """The result for the model to read, this one or another. Called for every result, of calls that were malformed,
        refused, or not run because the run ends as well; ``result.is_error`` tells how it went."""
        return result

    def on_turn_finished(self, run: RunInfo, turn: Turn) -> Sequence[Message] | None:
        """The turn is over and its calls are answered; ``turn.reason`` is None where an abort broke it off.

        What is returned asks for another turn, also where the run would end: with these messages, and with none when
        they are empty, as a turn that ended with ``pause`` wants it. A run that is aborted, or that leaves a call to
        the caller, ends anyway.
        """
        return None

    def on_finished(self, run: RunInfo, end: RunFinished) -> None:
        """The run has ended well, or was aborted."""

    def on_failed(self, run: RunInfo, error: BaseException) -> None:
        """The run has ended with an error, which is raised next."""

    def on_dropped(self, run: RunInfo) -> None:
        """Whoever read the run has left before its end."""


class Hooks:
    """The hooks that somebody has overridden, each list in the order of its calls.

    Raises:
        TypeError: an object that has none of them, a Middleware with a hook that there is not, or an asynchronous one.
    """

    _towards: ClassVar[tuple[str, ...]] = ("on_run_started", "on_request", "on_retry", "before_tool")
    _back: ClassVar[tuple[str, ...]] = (
        "on_chunk", "after_tool", "on_turn_finished", "on_finished", "on_failed", "on_dropped"
    )  # fmt: skip

    def __init__(self, middleware: Sequence[Any]) -> None:
        known = (*self._towards, *self._back)
        for one in middleware:
            if isinstance(one, type) or not any(hasattr(one, name) for name in known):
                raise TypeError(f"middleware= takes objects with the methods of Middleware, got {one!r}")
            for name in dir(one):
                if name.startswith(("on_", "before_", "after_")):
                    _check_hook(one, name, known)
        self._lists = {
            name: [hook for one in order for hook in _overridden(one, name)]
            for names, order in ((self._towards, middleware), (self._back, middleware[::-1]))
            for name in names
        }

    def __getitem__(self, name: str) -> list[Any]:
        return self._lists[name]


def _check_hook(one: Any, name: str, known: Sequence[str]) -> None:
    where = f"{type(one).__name__}.{name}"
    if name not in known:
        if isinstance(one, Middleware):  # others may have methods of their own
            raise TypeError(f"{where} is no hook, and would never be called; there are: {', '.join(known)}")
    elif inspect.iscoroutinefunction(getattr(one, name)):
        raise TypeError(f"{where} is asynchronous, and a run is not: write def")


def _overridden(one: Any, name: str) -> list[Any]:
    """The method, unless it is the one of the base, or not there at all: no base class is needed."""
    hook = getattr(one, name, None)
    return [] if hook is None or getattr(hook, "__func__", None) is getattr(Middleware, name) else [hook]


def returned(value: Any, kinds: type | tuple[type, ...], hook: Any) -> Any:
    """What a hook returned. One that forgot to is the commonest mistake.

    Raises:
        TypeError: it is of none of these kinds.
    """
    if not isinstance(value, kinds):
        names = " or a ".join(kind.__name__ for kind in (kinds if isinstance(kinds, tuple) else (kinds,)))
        where = getattr(hook, "__qualname__", repr(hook))
        raise TypeError(f"{where} must return a {names}, got {type(value).__name__}")
    return value
