"""A tool: its definition for the model, and the function that runs.

    @tool
    def weather(city: str, days: Annotated[int, "from 1 to 7"] = 3) -> Forecast:
        "The weather of the next days."

    Tool(ToolDefinition("now", "The time.", {"type": "object"}), lambda: datetime.now(UTC))

``@tool`` makes a JSON Schema from the signature and validates the arguments (module ``schema``, which needs the extra
``tools``). A plain Tool passes the arguments on unchanged. Both pass the arguments by name, and the ToolContext if a
parameter has that type.
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

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")  # the names that every provider accepts


class ToolError(Exception):
    """Raise it in a tool: the model reads this message, unchanged, as the error result."""


@dataclass(slots=True)
class ToolContext:
    """What a tool gets if a parameter has this type: the ids of its call, and a token.

    ``token`` is cancelled when the run ends or the tool exceeds its timeout: a tool that blocks must wait on it.
    """

    run_id: str
    step_id: str
    call_id: str
    token: CancelToken
    usage: Usage = field(default_factory=Usage)
    _lock: Any = field(default_factory=Lock, repr=False)

    def report_usage(self, usage: Usage) -> None:
        """Add tokens that the tool itself used, for example with a model, to the usage of the run."""
        with self._lock:
            self.usage += usage


class Tool:
    """A ToolDefinition with the function that answers its calls.

    Args:
        definition: what the model gets. The arguments are not validated against its schema; only their names are
            checked against the parameters of the function.
        function: called with the arguments by name, in a worker thread. It may return an awaitable.
        timeout: seconds, after which the model reads that the tool took too long.

    Raises:
        TypeError: an argument has the wrong type, or the function cannot be called by name.
        ValueError: the timeout is not a positive number.
    """

    def __init__(
        self, definition: ToolDefinition, function: Callable[..., Any], *, timeout: float | None = None
    ) -> None:
        if not isinstance(definition, ToolDefinition) or not callable(function):
            raise TypeError(
                "Tool: the arguments must be a ToolDefinition and a function, "
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
        """Call the function and return its result as blocks. A coroutine runs to its end in an event loop of its own.

        Raises:
            ToolError: the arguments are wrong; the message tells the model how to correct them. The function was not
                called.
            StreamCancelledError: the token was cancelled while an asynchronous function ran.
            TypeError, ValueError: the function returned a value that is not JSON.
            Exception: any exception of the function.
        """
        arguments = self._convert(args)
        if self._context_name is not None:
            arguments[self._context_name] = context
        result = self.function(**arguments)
        if inspect.isawaitable(result):
            from completion.offload.tasks import run_awaitable  # imports asyncio, which most programs do not need

            result = run_awaitable(result, context.token)
        return as_blocks(result)

    def _convert(self, args: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments for the function.

        Raises:
            ToolError: a required argument is missing, or one is unknown.
        """
        if self._parameters is None:  # unknown: Python reports a mistake
            return dict(args)
        by_name = {key: one for key, one in self._parameters.items() if one.kind in _BY_NAME}
        by_name.pop(self._context_name or "", None)
        accepts_any_name = any(one.kind is one.VAR_KEYWORD for one in self._parameters.values())
        problems = [
            f"{key}: is missing" for key, one in by_name.items() if one.default is one.empty and key not in args
        ]
        problems += [f"{key}: is unknown" for key in args if key not in by_name and not accepts_any_name]
        if problems:
            raise self._wrong_arguments(problems, by_name)
        return dict(args)

    def _wrong_arguments(self, problems: Iterable[str], known: Iterable[str]) -> ToolError:
        lines = ["These arguments are wrong:", *(f"- {problem}" for problem in problems)]
        return ToolError("\n".join([*lines, f"The arguments of {self.name} are: {', '.join(known) or 'none'}."]))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"


class FunctionTool(Tool, Generic[P, R_co]):
    """A typed function as a Tool, made by ``@tool``. Calling it calls the function."""

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
        from completion.engine.schema import Arguments, ParsedDocstring  # imports pydantic: only if @tool is used

        if not inspect.isroutine(function) or isinstance(function, classmethod | staticmethod):
            raise TypeError(
                f"@tool needs a function, got {type(function).__name__}; write @staticmethod above @tool, and for a "
                "class method use tool(Thing.method)"
            )
        name = name or function.__name__
        if not _NAME.fullmatch(name):
            raise ValueError(f"@tool: {name!r} is not a valid tool name (1 to 64 letters, digits, _ and -); set name=")
        hints = _hints(function, name)
        parameters = dict(_parameters(function) or {})
        self._is_unbound = _takes_self(function, parameters)
        if self._is_unbound:
            del parameters[next(iter(parameters))]
        for one in parameters.values():
            _check_parameter(one, name, hints)
        context_name = _context_name(hints)
        parameters.pop(context_name or "", None)
        doc = ParsedDocstring(inspect.getdoc(function))
        self._arguments = Arguments(
            name,
            {key: hints[key] for key in parameters},
            {key: one.default for key, one in parameters.items() if one.default is not one.empty},
            doc.parameters,
            strict=bool(strict),
        )
        text = doc.text if description is None else description
        super().__init__(ToolDefinition(name, text, self._arguments.schema, tags, strict), function, timeout=timeout)
        functools.update_wrapper(self, function)

    @property
    def definition(self) -> ToolDefinition:
        """What the model gets.

        Raises:
            TypeError: this is a method that is not bound to an object.
        """
        if self._is_unbound:
            raise TypeError(f"@tool {self.name}: this is a method; use the tool of an object, Thing().{self.name}")
        return self._definition

    def _convert(self, args: Mapping[str, Any]) -> dict[str, Any]:
        try:
            return self._arguments.convert(args)
        except ValueError as exc:
            raise self._wrong_arguments(exc.args, self._arguments.schema["properties"]) from None

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
        """For a decorated method, the tool that is bound to the object."""
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
    """Turn a typed function into a tool. It can still be called as a function.

    The schema comes from the type hints, its descriptions from the docstring or from ``Annotated[int, "text"]``. A
    parameter of the type ToolContext is not part of the schema. An ``async def`` runs in an event loop of its own.

    Args:
        function: sync or async, a function or a method. Each parameter needs a name and a type hint.
        name: default: the name of the function.
        description: default: the text of the docstring.
        timeout: seconds, after which the model reads that the tool took too long, and the token of its ToolContext is
            cancelled.
        tags: for middleware; never sent.
        strict: the provider must follow the schema exactly (OpenAI's strict mode). The schema then requires every
            parameter.

    Raises:
        TypeError: the function cannot be described as a schema; the message says what to change.
        ValueError: the name is not valid for all providers.
        ConfigurationError: the extra ``tools`` is not installed.
    """
    if function is None:
        return lambda function: FunctionTool(function, **options)
    return FunctionTool(function, **options)


_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def _parameters(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter] | None:
    """The parameters of the function; None if they are unknown, as for some functions written in C."""
    try:
        parameters = inspect.signature(function).parameters
    except (ValueError, NameError):  # NameError: from Python 3.14 on, a signature evaluates the type hints
        return None
    for one in parameters.values():
        if one.kind is one.POSITIONAL_ONLY and one.default is one.empty:
            raise TypeError(
                f"{function!r}: the parameter {one.name!r} is positional-only, but a tool gets its arguments by name; "
                "remove the / from its signature"
            )
    return parameters


def _check_parameter(one: inspect.Parameter, name: str, hints: Mapping[str, Any]) -> None:
    """Raise TypeError if the parameter cannot be part of a schema."""
    if one.kind not in _BY_NAME:
        raise TypeError(
            f"@tool {name}: ({one}) cannot be passed by name; give each argument a name and a type; for several "
            "values, use a list or a dataclass"
        )
    if one.name not in hints:
        raise TypeError(f"@tool {name}: the parameter {one.name!r} has no type hint; write for example {one.name}: str")


def _takes_self(function: Any, parameters: Mapping[str, inspect.Parameter]) -> bool:
    """Whether the function is a method whose first parameter is ``self`` or ``cls``, which the model must not set."""
    owner = function.__qualname__.rpartition(".")[0]
    first = next(iter(parameters.values()), None)
    # In a class, the qualified name is Thing.method; in a function, function.<locals>.name.
    is_method = bool(owner) and not owner.endswith("<locals>") and not isinstance(function, MethodType)
    return is_method and first is not None and first.name in ("self", "cls") and first.annotation is first.empty


def _hints(function: Any, name: str) -> dict[str, Any]:
    try:
        return get_type_hints(function, include_extras=True)
    except NameError as exc:
        raise TypeError(
            f"@tool {name}: a type hint cannot be evaluated ({exc}); define or import the type at the top of the "
            "module, not under TYPE_CHECKING"
        ) from exc


def _hints_if_known(function: Any) -> dict[str, Any]:
    try:
        return get_type_hints(function)
    except Exception:  # a plain tool needs its hints only to find the ToolContext: without them, it has none
        return {}


def _context_name(hints: Mapping[str, Any]) -> str | None:
    """The name of the parameter for the ToolContext; None if there is none."""
    return next((name for name, hint in hints.items() if hint is ToolContext and name != "return"), None)
