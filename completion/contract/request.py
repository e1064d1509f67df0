"""The request to a model. It is the same for every provider."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

from completion.contract.codec import Record, check_fields, nested
from completion.contract.messages import CacheControl, Message

Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]

EFFORTS: tuple[str, ...] = get_args(Effort)
"""From no reasoning to the most."""


@dataclass(frozen=True, slots=True)
class SystemBlock(Record):
    """A part of the system prompt. ``cache_control`` asks the provider to cache the prompt up to here."""

    text: str
    cache_control: CacheControl | None = None

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, slots=True)
class ToolDefinition(Record):
    """A tool that the model may call.

    ``input_schema`` is a JSON Schema of type object. ``strict`` asks the provider to enforce the schema. ``tags`` are
    for the program that makes the request; they are not sent.
    """

    name: str
    description: str
    input_schema: dict[str, Any] = field(metadata=nested(dict))
    tags: tuple[str, ...] = ()
    strict: bool | None = None
    cache_control: CacheControl | None = None

    if TYPE_CHECKING:  # wider than the fields: any sequence of tags

        def __init__(
            self,
            name: str,
            description: str,
            input_schema: dict[str, Any],
            tags: Sequence[str] = (),
            strict: bool | None = None,
            cache_control: CacheControl | None = None,
        ) -> None: ...

    def __post_init__(self) -> None:
        object.__setattr__(self, "tags", _strings(self.tags, "ToolDefinition.tags"))
        check_fields(self)
        if not self.name:
            raise ValueError("ToolDefinition.name must not be empty")


@dataclass(frozen=True, slots=True)
class ToolChoice(Record):
    """Whether the model may, must or must not call a tool. Use ``auto()``, ``any()``, ``tool(name)`` or ``none()``."""

    kind: Literal["auto", "any", "tool", "none"]
    name: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in ("auto", "any", "tool", "none"):
            raise ValueError(f"ToolChoice.kind must be 'auto', 'any', 'tool' or 'none', got {self.kind!r}")
        if (self.kind == "tool") != bool(self.name):
            raise ValueError(
                "ToolChoice.name is required for kind 'tool', and not allowed for the others, "
                f"got kind {self.kind!r} with name {self.name!r}"
            )
        check_fields(self)

    @classmethod
    def auto(cls) -> ToolChoice:
        """The model may call tools."""
        return cls("auto")

    @classmethod
    def any(cls) -> ToolChoice:
        """The model must call at least one tool."""
        return cls("any")

    @classmethod
    def tool(cls, name: str) -> ToolChoice:
        """The model must call this tool."""
        return cls("tool", name)

    @classmethod
    def none(cls) -> ToolChoice:
        """The model must not call a tool."""
        return cls("none")


@dataclass(frozen=True, slots=True)
class JsonSchema(Record):
    """The answer must be JSON that matches this schema. ``strict`` asks the provider to enforce it.

    ``JsonSchema.of(City)`` makes it from a type.
    """

    name: str
    schema: dict[str, Any] = field(metadata=nested(dict))
    strict: bool = True

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.name:
            raise ValueError("JsonSchema.name must not be empty")

    @classmethod
    def of(cls, kind: Any) -> JsonSchema:
        """The closed schema of a type: a dataclass, pydantic model, TypedDict, list, Literal, union, int and so on.

        A type that is not an object keeps its plain schema, for example ``{"type": "integer"}``. OpenAI accepts only
        objects, so put such a type into a field of a dataclass there. A bound that a provider refuses is told in the
        description when the request is sent.

        Raises:
            TypeError: the type has no JSON Schema, or allows any keys or values, as ``dict[str, int]`` and ``Any`` do.
            ConfigurationError: the extra ``tools`` is not installed.
        """
        if not is_type(kind):
            raise TypeError(f"JsonSchema.of: the argument must be a type, got {type(kind).__name__}")
        from completion.contract.typed import schema_of  # imports pydantic: only if a schema is made from a type

        return cls(*schema_of(kind))


@dataclass(frozen=True, slots=True)
class ChatRequest(Record):
    """A request to a model. None means that the field is not sent.

    Args:
        messages: the history; a plain string is one user message.
        max_tokens: the maximum length of the answer, in tokens.
        system_prompt: a string, or a sequence of ``SystemBlock``.
        tools: the tools that the model may call.
        tool_choice: whether it may, must or must not call one.
        parallel_tool_use: False allows at most one tool call in a turn.
        temperature, top_p, top_k, seed: in the provider's own range.
        stop_sequences: the model stops when it would write one of these strings.
        reasoning_effort: ``"none"`` (no thinking), ``"minimal"``, ``"low"``, ``"medium"``, ``"high"``, ``"xhigh"``,
            ``"max"``, or a budget in tokens. A provider that lacks the word gets its nearest, and
            ``stream.response.dropped`` says so.
        response_format: ``"json"``, a ``JsonSchema``, or a type for ``JsonSchema.of``. A type is stored as its schema.
        additional_params: merged into the body last, as a JSON Merge Patch (RFC 7396): objects merge, None deletes.

    Raises:
        TypeError, ValueError: no provider could accept a value; the message names the field.
    """

    messages: tuple[Message, ...] = field(metadata=nested(Message))
    max_tokens: int = 4096
    system_prompt: str | tuple[SystemBlock, ...] | None = field(default=None, metadata=nested(SystemBlock))
    tools: tuple[ToolDefinition, ...] = field(default=(), metadata=nested(ToolDefinition))
    tool_choice: ToolChoice | None = None
    parallel_tool_use: bool | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    stop_sequences: tuple[str, ...] = ()
    reasoning_effort: Effort | int | None = None
    response_format: JsonSchema | Literal["json"] | None = field(default=None, metadata=nested(JsonSchema))
    additional_params: dict[str, Any] | None = field(default=None, metadata=nested(dict))

    if TYPE_CHECKING:  # wider than the fields: a plain string, any sequence, a type

        def __init__(
            self,
            messages: str | Sequence[Message],
            max_tokens: int = 4096,
            system_prompt: str | Sequence[SystemBlock] | None = None,
            tools: Sequence[ToolDefinition] = (),
            tool_choice: ToolChoice | None = None,
            parallel_tool_use: bool | None = None,
            temperature: float | None = None,
            top_p: float | None = None,
            top_k: int | None = None,
            seed: int | None = None,
            stop_sequences: Sequence[str] = (),
            reasoning_effort: Effort | int | None = None,
            response_format: JsonSchema | Literal["json"] | type[Any] | None = None,
            additional_params: dict[str, Any] | None = None,
        ) -> None: ...

    def with_messages(self, messages: Iterable[Message]) -> ChatRequest:
        """A copy of the request with another history."""
        # Not dataclasses.replace: that checks every field again, for each turn of a run.
        request = copy.copy(self)
        object.__setattr__(request, "messages", tuple(messages))
        return request

    def check_tool_choice(self) -> None:
        """Raise ValueError if ``tool_choice`` requires a call and there are no tools.

        Called when the request is sent. The constructor cannot check it, because ``run_chat`` adds tools later.
        """
        if self.tool_choice is not None and self.tool_choice.kind in ("any", "tool") and not self.tools:
            raise ValueError("ChatRequest.tool_choice requires a tool call, but ChatRequest.tools is empty")

    def __post_init__(self) -> None:
        put = object.__setattr__  # the class is frozen
        if isinstance(self.messages, str):
            put(self, "messages", (Message.user(self.messages),))
        elif isinstance(self.messages, Message):
            put(self, "messages", (self.messages,))
        put(self, "messages", _records(self.messages, Message, "messages"))
        put(self, "tools", _records(self.tools, ToolDefinition, "tools"))
        put(self, "stop_sequences", _strings(self.stop_sequences, "ChatRequest.stop_sequences"))
        if self.system_prompt is not None and not isinstance(self.system_prompt, str):
            put(self, "system_prompt", _records(self.system_prompt, SystemBlock, "system_prompt"))
        if is_type(self.response_format):
            put(self, "response_format", JsonSchema.of(self.response_format))
        self._check()

    def _check(self) -> None:
        effort = self.reasoning_effort
        if isinstance(effort, str) and effort not in EFFORTS:
            raise ValueError(
                f"ChatRequest.reasoning_effort must be one of {EFFORTS}, or a number of tokens, got {effort!r}"
            )
        if isinstance(self.response_format, str) and self.response_format != "json":
            raise ValueError(
                f"ChatRequest.response_format must be 'json' or a JsonSchema, got {self.response_format!r}"
            )
        check_fields(self)
        if not self.messages:
            raise ValueError("ChatRequest.messages is empty; pass a string or at least one Message")
        _at_least(1, "max_tokens", self.max_tokens)
        _at_least(0, "top_k", self.top_k)
        if not isinstance(effort, str):
            _at_least(0, "reasoning_effort", effort)
        _finite("temperature", self.temperature)
        _finite("top_p", self.top_p)
        names = [tool.name for tool in self.tools]
        if duplicates := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"ChatRequest.tools contains a name twice: {', '.join(sorted(duplicates))}")
        choice = self.tool_choice
        # Without tools the name cannot be checked yet: run_chat adds tools with dataclasses.replace, which checks it.
        if choice is not None and choice.kind == "tool" and names and choice.name not in names:
            raise ValueError(f"ChatRequest.tool_choice names {choice.name!r}, which is not in ChatRequest.tools")


# The constructor accepts more types than the fields have. ``help(ChatRequest)`` shows the annotations of ``__init__``.
ChatRequest.__init__.__annotations__ = {
    **ChatRequest.__init__.__annotations__,
    "messages": "str | Sequence[Message]",
    "system_prompt": "str | Sequence[SystemBlock] | None",
    "tools": "Sequence[ToolDefinition]",
    "stop_sequences": "Sequence[str]",
}


def is_type(given: Any) -> bool:
    """Whether this is a class, or what ``typing`` makes of classes: ``list[int]``, ``int | str``, ``Literal["a"]``."""
    # NewType has a supertype, and an alias of the ``type`` statement a value.
    is_named = hasattr(given, "__supertype__") or type(given).__name__ == "TypeAliasType"
    return isinstance(given, type) or given is Any or get_origin(given) is not None or is_named


def _records(given: Any, kind: type, name: str) -> tuple[Any, ...]:
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise TypeError(f"ChatRequest.{name} takes a list of {kind.__name__} objects, got {type(given).__name__}")
    found = tuple(given)
    for i, item in enumerate(found):
        if not isinstance(item, kind):
            raise TypeError(f"ChatRequest.{name}[{i}] must be a {kind.__name__}, got {type(item).__name__}")
    return found


def _strings(given: Any, name: str) -> tuple[str, ...]:
    if isinstance(given, str):
        raise TypeError(f"{name} takes a list of strings; write [{given!r}]")
    if not isinstance(given, Iterable):
        raise TypeError(f"{name} takes a list of strings, got {type(given).__name__}")
    found = tuple(given)
    for i, item in enumerate(found):
        if not isinstance(item, str):
            raise TypeError(f"{name}[{i}] must be a string, got {type(item).__name__}")
        if not item:
            raise ValueError(f"{name}[{i}] must not be empty")
    return found


def _at_least(least: int, name: str, value: int | None) -> None:
    if value is not None and value < least:
        raise ValueError(f"ChatRequest.{name} must be at least {least}, got {value}")


def _finite(name: str, value: float | None) -> None:
    if value is not None and not math.isfinite(value):
        raise ValueError(f"ChatRequest.{name} must be finite, got {value}")


def as_request(given: ChatRequest | str) -> ChatRequest:
    """The argument of ``chat_stream`` as a request; a plain string is one user message.

    Raises:
        TypeError: the argument is neither a ChatRequest nor a string.
    """
    request = ChatRequest(given) if isinstance(given, str) else given
    if not isinstance(request, ChatRequest):
        raise TypeError(f"the request must be a ChatRequest or a string, got {type(given).__name__}")
    return request


def system_text(req: ChatRequest) -> str:
    """The system prompt as one string, its blocks joined by a blank line."""
    if isinstance(req.system_prompt, str) or req.system_prompt is None:
        return req.system_prompt or ""
    return "\n\n".join(block.text for block in req.system_prompt if block.text)
