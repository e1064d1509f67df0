"""A tool: its definition for the model, and the function that runs.

    @tool
    def weather(city: str, days: Annotated[int, "from 1 to 7"] = 3) -> Forecast:
        "The weather of the next days."

    Tool(ToolDefinition("now", "The time.", {"type": "object"}), lambda: datetime.now(UTC))

``@tool`` makes a JSON Schema from the signature and validates the arguments (``contract.typed``, which needs the extra
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
from types import MethodType, NoneType, SimpleNamespace, UnionType
from typing import (
    Annotated,
    Any,
    Concatenate,
    Generic,
    ParamSpec,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    overload,
)

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


# A bad call must not flood the context of the model.
_MAX_PROBLEMS = 10
_MAX_PROBLEM_CHARS = 300  # a path contains keys that the model wrote


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
        """Add tokens that the tool itself used, for example with a model, to the usage of the run.

        Also after the timeout of the tool, as long as the run lasts.
        """
        with self._lock:
            self.usage += usage


class Tool:
    """A ToolDefinition with the function that answers its calls.

    Args:
        definition: what the model gets. The arguments are not validated against its schema; only their names are
            checked against the parameters of the function.
        function: called with the arguments by name, in a worker thread. It may return an awaitable.
        timeout: seconds, after which the model reads that the tool took too long.
        approval: each call waits for a person: see ``Pending``.

    Raises:
        TypeError: an argument has the wrong type, the function cannot be called by name, is a generator, or has a
            type hint that cannot be evaluated.
        ValueError: the timeout is not a positive number.
    """

    def __init__(
        self,
        definition: ToolDefinition,
        function: Callable[..., Any],
        *,
        timeout: float | None = None,
        approval: bool = False,
    ) -> None:
        if not isinstance(definition, ToolDefinition) or not callable(function):
            raise TypeError(
                "Tool: the arguments must be a ToolDefinition and a function, "
                f"got {type(definition).__name__} and {type(function).__name__}"
            )
        require_seconds(timeout, f"{definition.name}: timeout")
        if not isinstance(approval, bool):
            raise TypeError(f"{definition.name}: approval must be True or False, got {approval!r}")
        self._definition = definition
        self.function = function
        self.timeout = timeout
        self.approval = approval
        _refuse_generator(function, definition.name)
        self._parameters = _parameters(function)
        known = self._parameters or {}
        self._context_name = _context_name(_hints(function, definition.name, known), known, definition.name)

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

    def why_wrong(self, args: Mapping[str, Any]) -> str | None:
        """What the model must correct in these arguments; None if the function can be called with them."""
        try:
            self._convert(copy.deepcopy(dict(args)))
        except Exception as error:  # a validator of the user can raise anything
            return str(error) or type(error).__name__
        return None

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
        lines = ["These arguments are wrong:", *(f"- {problem}" for problem in _capped(problems))]
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
        approval: bool = False,
    ) -> None:
        from completion.contract.typed import Arguments, ParsedDocstring  # imports pydantic: only if @tool is used

        if not inspect.isroutine(function) or isinstance(function, classmethod | staticmethod):
            raise TypeError(
                f"@tool needs a function, got {type(function).__name__}; write @staticmethod above @tool, and for a "
                "class method use tool(Thing.method)"
            )
        name = name or function.__name__
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ValueError(f"@tool: {name!r} is not a valid tool name (1 to 64 letters, digits, _ and -); set name=")
        _refuse_generator(function, name)
        parameters = dict(_parameters(function) or {})
        hints = _hints(function, name, parameters)
        self._is_unbound = _takes_self(function, parameters)
        if self._is_unbound:
            del parameters[next(iter(parameters))]
        for one in parameters.values():
            _check_parameter(one, name, hints)
        context_name = _context_name(hints, parameters, name)
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
        definition = ToolDefinition(name, text, self._arguments.schema, tags, strict)
        super().__init__(definition, function, timeout=timeout, approval=approval)
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
    approval: bool = False,
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
        approval: each call waits for a person: see ``Pending``.

    Raises:
        TypeError: the function cannot be described as a schema; the message says what to change.
        ValueError: the name is not valid for all providers.
        ConfigurationError: the extra ``tools`` is not installed.
    """
    if function is None:
        return lambda function: FunctionTool(function, **options)
    return FunctionTool(function, **options)


def _capped(problems: Iterable[str]) -> list[str]:
    """The first problems, each of them shortened. The last line tells how many more there are."""
    lines = list(problems)
    shown = [
        line if len(line) <= _MAX_PROBLEM_CHARS else f"{line[:_MAX_PROBLEM_CHARS]}…" for line in lines[:_MAX_PROBLEMS]
    ]
    hidden = len(lines) - len(shown)
    return [*shown, f"and {hidden} more"] if hidden else shown


_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def _parameters(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter] | None:
    """The parameters of the function; None if they are unknown, as for some functions written in C."""
    try:
        parameters = inspect.signature(function).parameters
    except (ValueError, TypeError):
        return None
    except NameError as exc:  # from Python 3.14 on, a signature evaluates the type hints
        raise _unreadable_hint(getattr(function, "__name__", repr(function)), exc) from exc
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


def _called_function(function: Any) -> Any:
    """The function that runs and has the type hints: of a partial, of a class, or of an object that can be called."""
    while isinstance(function, functools.partial):
        function = function.func
    if isinstance(function, type):
        return inspect.getattr_static(function, "__init__")
    return function if inspect.isroutine(function) else type(function).__call__


def _hints(function: Any, name: str, parameters: Mapping[str, inspect.Parameter]) -> dict[str, Any]:
    """The type hints of the parameters.

    Raises:
        TypeError: one of them cannot be evaluated. The ToolContext could be among them.
    """
    owner = _called_function(function)
    try:
        hints = get_type_hints(owner, include_extras=True)
    except Exception:  # evaluating a text can raise anything
        hints = _hints_one_by_one(owner, name, parameters)
    return {key: hint for key, hint in hints.items() if key in parameters}


def _hints_one_by_one(owner: Any, name: str, parameters: Mapping[str, inspect.Parameter]) -> dict[str, Any]:
    """The hints of the parameters, if only the hint of the return value cannot be evaluated."""
    names = getattr(inspect.unwrap(owner), "__globals__", {})
    hints = {}
    for key, one in parameters.items():
        if one.annotation is one.empty:
            continue
        one_hint = SimpleNamespace(__annotations__={key: one.annotation})
        try:
            hints.update(get_type_hints(one_hint, globalns=names, include_extras=True))
        except Exception as exc:
            raise _unreadable_hint(name, exc) from exc
    return hints


def _unreadable_hint(name: str, error: Exception) -> TypeError:
    return TypeError(
        f"tool {name}: a type hint cannot be evaluated ({error}); define or import the type at the top of the "
        "module, not under TYPE_CHECKING"
    )


def _context_name(hints: Mapping[str, Any], parameters: Mapping[str, inspect.Parameter], name: str) -> str | None:
    """The name of the parameter for the ToolContext; None if there is none.

    Raises:
        TypeError: there are two, or it cannot be passed by name.
    """
    names = [key for key, hint in hints.items() if _is_context(hint)]
    if len(names) > 1 or any(parameters[key].kind not in _BY_NAME for key in names):
        raise TypeError(
            f"tool {name}: give one parameter, passed by name, the type ToolContext, got {', '.join(names)}"
        )
    return names[0] if names else None


def _is_context(hint: Any) -> bool:
    """Whether a hint is ToolContext, perhaps in Annotated, perhaps or None."""
    if get_origin(hint) is Annotated:
        return _is_context(get_args(hint)[0])
    members = (
        [one for one in get_args(hint) if one is not NoneType] if get_origin(hint) in (Union, UnionType) else [hint]
    )
    return len(members) == 1 and (members[0] is ToolContext or (members != [hint] and _is_context(members[0])))


def _refuse_generator(function: Any, name: str) -> None:
    """Raise TypeError if a call would return a generator, which no result can be made of."""
    called = _called_function(function)
    if inspect.isgeneratorfunction(called) or inspect.isasyncgenfunction(called):
        raise TypeError(
            f"tool {name}: the function is a generator, but a tool returns one result; return a list or a text instead "
            "of using yield"
        )
