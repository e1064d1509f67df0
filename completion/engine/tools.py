"""A tool: what the model is told of it, and the function that runs.

    @tool
    def weather(city: str, days: Annotated[int, "from 1 to 7"] = 3) -> Forecast:
        "The weather of the next days."

    Tool(ToolDefinition("now", "The time.", {"type": "object"}), lambda: datetime.now(UTC))

``@tool`` reads the signature and validates the arguments (``schema``, which needs the extra ``tools``); a plain Tool
takes them as they come. Both call the function by name, and give it the ToolContext where a parameter has that type.
"""

from __future__ import annotations

import copy
import functools
import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Lock
from types import MethodType
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, get_type_hints, overload

from completion.contract.cancel import CancelToken
from completion.contract.checks import require_seconds
from completion.contract.chunks import Usage
from completion.contract.messages import Block
from completion.contract.request import ToolDefinition
from completion.engine.results import as_blocks

P = ParamSpec("P")
Q = ParamSpec("Q")
R_co = TypeVar("R_co", covariant=True)
S = TypeVar("S")

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")  # what every provider takes


class ToolError(Exception):
    """Raised by a tool: the model reads this message as the error result, as it is."""


@dataclass(slots=True)
class ToolContext:
    """What a tool may ask for, by a parameter with this type: which call it answers, and whether it is still wanted.

    ``token`` is cancelled when the run ends or the tool's time is over: a tool that waits, waits on it.
    """

    run_id: str
    step_id: str
    call_id: str
    token: CancelToken
    usage: Usage = field(default_factory=Usage)
    _lock: Any = field(default_factory=Lock, repr=False)

    def report_usage(self, usage: Usage) -> None:
        """Add the tokens that the tool itself has spent to those of the run."""
        with self._lock:
            self.usage += usage


class Tool:
    """A ToolDefinition with the function that answers its calls.

    Args:
        definition: what the model is told. The arguments are not held against its schema, only against the names that
            the function takes.
        function: called with the arguments by name, in a thread of its own. What it returns may be awaitable.
        timeout: seconds, after which the model reads that it took too long.

    Raises:
        TypeError: these are not the two, or the function cannot be called by name.
        ValueError: the timeout is no positive number.
    """

    def __init__(
        self, definition: ToolDefinition, function: Callable[..., Any], *, timeout: float | None = None
    ) -> None:
        if not isinstance(definition, ToolDefinition) or not callable(function):
            raise TypeError(
                "Tool(definition, function) takes a ToolDefinition and a function, "
                f"got {type(definition).__name__} and {type(function).__name__}"
            )
        require_seconds(timeout, f"{definition.name}: timeout")
        self._definition = definition
        self.function = function
        self.timeout = timeout
        self._parameters = _parameters(function)
        self._context_name = _context_name(_hints_if_known(function))

    @property
    def definition(self) -> ToolDefinition:
        return self._definition

    @property
    def name(self) -> str:
        return self._definition.name

    def run(self, args: dict[str, Any], context: ToolContext) -> tuple[Block, ...]:
        """Call the function, wait for what it returns, and give it as blocks.

        Raises:
            ToolError: the arguments do not fit; the message says what to mend. The function was not called.
            StreamCancelledError: the token was cancelled while an asynchronous function ran.
            TypeError, ValueError: what the function returned is no JSON.
            Exception: whatever the function raises.
        """
        arguments = self._converted(args)
        if self._context_name is not None:
            arguments[self._context_name] = context
        result = self.function(**arguments)
        if inspect.isawaitable(result):
            from completion.offload.tasks import run_awaitable

            result = run_awaitable(result, context.token)
        return as_blocks(result)

    def _converted(self, args: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments, if the function takes these names."""
        if self._parameters is None:  # it does not tell
            return dict(args)
        by_name = {key: one for key, one in self._parameters.items() if one.kind in _BY_NAME}
        by_name.pop(self._context_name or "", None)
        takes_any = any(one.kind is one.VAR_KEYWORD for one in self._parameters.values())
        faults = [f"{key}: is missing" for key, one in by_name.items() if one.default is one.empty and key not in args]
        faults += [f"{key}: is not known here" for key in args if key not in by_name and not takes_any]
        if faults:
            raise self._misfit(faults, by_name)
        return dict(args)

    def _misfit(self, faults: Iterable[str], known: Iterable[str]) -> ToolError:
        lines = ["These arguments do not fit:", *(f"- {fault}" for fault in faults)]
        return ToolError("\n".join([*lines, f"The arguments of {self.name} are: {', '.join(known) or 'none'}."]))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"


class FunctionTool(Tool, Generic[P, R_co]):
    """A typed function as a Tool: what ``@tool`` makes of it. It can be called as the function that it was."""

    def __init__(
        self,
        function: Callable[P, R_co],
        *,
        name: str | None = None,
        description: str | None = None,
        timeout: float | None = None,
        tags: Sequence[str] = (),
        strict: bool | None = None,
    ) -> None:
        from completion.engine.schema import Arguments, Documented  # pydantic is imported where @tool is used

        if not inspect.isroutine(function) or isinstance(function, classmethod | staticmethod):
            raise TypeError(
                f"@tool takes a function, got {type(function).__name__}; @staticmethod stands above @tool, and of a "
                "class method: tool(Thing.method)"
            )
        name = name or function.__name__
        if not _NAME.fullmatch(name):
            raise ValueError(f"@tool: {name!r} is no name for a tool (letters, digits, _ and -, up to 64): give name=")
        hints = _hints(function, name)
        parameters = dict(_parameters(function) or {})
        self._is_unbound = _takes_self(function, parameters)
        if self._is_unbound:
            del parameters[next(iter(parameters))]
        for one in parameters.values():
            _check_described(one, name, hints)
        context_name = _context_name(hints)
        parameters.pop(context_name or "", None)
        said = Documented(inspect.getdoc(function))
        self._arguments = Arguments(
            name,
            {key: hints[key] for key in parameters},
            {key: one.default for key, one in parameters.items() if one.default is not one.empty},
            said.parameters,
            strict=bool(strict),
        )
        text = said.text if description is None else description
        super().__init__(ToolDefinition(name, text, self._arguments.schema, tags, strict), function, timeout=timeout)
        functools.update_wrapper(self, function)

    @property
    def definition(self) -> ToolDefinition:
        """What the model is told.

        Raises:
            TypeError: it is a method, and not one of an object.
        """
        if self._is_unbound:
            raise TypeError(f"{self.name} is a method: take the tool from an object, Thing().{self.name}")
        return self._definition

    def _converted(self, args: Mapping[str, Any]) -> dict[str, Any]:
        try:
            return self._arguments.converted(args)
        except ValueError as exc:
            raise self._misfit(exc.args, self._arguments.schema["properties"]) from None

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        result: R_co = self.function(*args, **kwargs)
        return result

    @overload
    def __get__(self, instance: None, owner: Any = None) -> FunctionTool[P, R_co]: ...
    @overload
    def __get__(
        self: FunctionTool[Concatenate[S, Q], R_co], instance: S, owner: Any = None
    ) -> FunctionTool[Q, R_co]: ...
    def __get__(self, instance: Any, owner: Any = None) -> Any:
        """The tool of an object, where a method was decorated."""
        if instance is None or not self._is_unbound:
            return self
        bound = copy.copy(self)
        bound.function = MethodType(self.function, instance)
        bound._is_unbound = False
        return bound


@overload
def tool(function: Callable[P, R_co], /) -> FunctionTool[P, R_co]: ...
@overload
def tool(
    *,
    name: str | None = None,
    description: str | None = None,
    timeout: float | None = None,
    tags: Sequence[str] = (),
    strict: bool | None = None,
) -> Callable[[Callable[P, R_co]], FunctionTool[P, R_co]]: ...
def tool(function: Any = None, /, **options: Any) -> Any:
    """Make a typed function a tool; it can still be called.

    The schema comes from the type hints, its descriptions from the docstring or from ``Annotated[int, "text"]``. A
    parameter of the type ToolContext is not in it. An ``async def`` runs in an event loop of its own.

    Args:
        function: sync or async, a function or a method. Each parameter has a name and a type hint.
        name: the function's, if not given.
        description: that of the docstring, if not given.
        timeout: seconds, after which the model reads that it took too long; the ToolContext's token is cancelled then.
        tags: for middleware; never sent.
        strict: the provider holds the model to the schema. Every parameter is required then, for the model.

    Raises:
        TypeError: the function cannot be described; the message says what to do.
        ValueError: its name is none that providers take.
        ConfigurationError: the extra ``tools`` is not installed.
    """
    if function is None:
        return lambda function: FunctionTool(function, **options)
    return FunctionTool(function, **options)


_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def _parameters(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter] | None:
    """What the function takes; None where it does not tell, as some written in C."""
    try:
        found = inspect.signature(function).parameters
    except (ValueError, NameError):  # since Python 3.14, a signature reads its type hints
        return None
    for one in found.values():
        if one.kind is one.POSITIONAL_ONLY and one.default is one.empty:
            raise TypeError(
                f"{function!r}: the parameter {one.name!r} is positional-only, and a tool is called by name; "
                "take the / out of its signature"
            )
    return found


def _check_described(one: inspect.Parameter, name: str, hints: Mapping[str, Any]) -> None:
    """Raise TypeError unless a model can be told of the parameter."""
    if one.kind not in _BY_NAME:
        raise TypeError(
            f"@tool {name}: ({one}) cannot be given by name; give each argument a name and a type of its own; a list "
            "or a dataclass may hold several"
        )
    if one.name not in hints:
        raise TypeError(f"@tool {name}: the parameter {one.name!r} has no type hint; write {one.name}: str, say")


def _takes_self(function: Any, parameters: Mapping[str, inspect.Parameter]) -> bool:
    """It is defined in a class, and its first parameter is nobody's but Python's."""
    owner = function.__qualname__.rpartition(".")[0]
    first = next(iter(parameters.values()), None)
    is_method = bool(owner) and not owner.endswith("<locals>") and not isinstance(function, MethodType)
    return is_method and first is not None and first.name in ("self", "cls") and first.annotation is first.empty


def _hints(function: Any, name: str) -> dict[str, Any]:
    try:
        return get_type_hints(function, include_extras=True)
    except NameError as exc:
        raise TypeError(
            f"@tool {name}: a type hint cannot be read ({exc}); define or import the type at the top of the module, "
            "and not under TYPE_CHECKING"
        ) from exc


def _hints_if_known(function: Any) -> dict[str, Any]:
    try:
        return get_type_hints(function)
    except Exception:  # of a plain tool, hints are nobody's business but for the context
        return {}


def _context_name(hints: Mapping[str, Any]) -> str | None:
    """The parameter that wants the ToolContext."""
    return next((name for name, hint in hints.items() if hint is ToolContext and name != "return"), None)
