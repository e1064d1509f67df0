"""What is asked: a ChatRequest, the same for every provider."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from completion.contract.codec import Record, check_fields, nested
from completion.contract.messages import CacheControl, Message

EFFORTS = ("minimal", "low", "medium", "high")


@dataclass(frozen=True, slots=True)
class SystemBlock(Record):
    """A part of the system prompt, with a wish that the prompt up to here be cached."""

    text: str
    cache_control: CacheControl | None = None

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, slots=True)
class ToolDefinition(Record):
    """A tool that the model may ask for.

    ``input_schema`` is a JSON Schema of type object. ``strict`` asks the provider to hold the model to the schema.
    ``tags`` are for the caller and never sent.
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
    """Whether the model may, must or must not call a tool. Made by ``auto``, ``any``, ``tool(name)``, ``none``."""

    kind: Literal["auto", "any", "tool", "none"]
    name: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in ("auto", "any", "tool", "none"):
            raise ValueError(f"ToolChoice.kind must be 'auto', 'any', 'tool' or 'none', got {self.kind!r}")
        if (self.kind == "tool") != bool(self.name):
            raise ValueError("ToolChoice takes a name with kind 'tool', and only then")
        check_fields(self)

    @classmethod
    def auto(cls) -> ToolChoice:
        """The model decides."""
        return cls("auto")

    @classmethod
    def any(cls) -> ToolChoice:
        """Some tool must be called."""
        return cls("any")

    @classmethod
    def tool(cls, name: str) -> ToolChoice:
        """This tool must be called."""
        return cls("tool", name)

    @classmethod
    def none(cls) -> ToolChoice:
        """No tool may be called."""
        return cls("none")


@dataclass(frozen=True, slots=True)
class JsonSchema(Record):
    """The answer must be JSON of this schema."""

    name: str
    schema: dict[str, Any] = field(metadata=nested(dict))
    strict: bool = True

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.name:
            raise ValueError("JsonSchema.name must not be empty")


@dataclass(frozen=True, slots=True)
class ChatRequest(Record):
    """One question to a model.

    ``messages``: the history, or a plain string for one user message. ``max_tokens``: cap of the answer.
    ``temperature``, ``top_p``, ``top_k``, ``seed``: in the provider's own range; None sends nothing.
    ``reasoning_effort``: a word, or a budget in tokens. ``response_format``: ``"json"`` or a ``JsonSchema``.
    ``parallel_tool_use=False``: at most one call a turn. ``additional_params`` is merged last into the wire body
    as a JSON Merge Patch (RFC 7396): objects merge, None deletes.

    Raises:
        TypeError, ValueError: a value that no provider could take; the message names the field.
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
    reasoning_effort: Literal["minimal", "low", "medium", "high"] | int | None = None
    response_format: JsonSchema | Literal["json"] | None = field(default=None, metadata=nested(JsonSchema))
    additional_params: dict[str, Any] | None = field(default=None, metadata=nested(dict))

    if TYPE_CHECKING:  # wider than the fields: a plain string, any sequence

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
            reasoning_effort: Literal["minimal", "low", "medium", "high"] | int | None = None,
            response_format: JsonSchema | Literal["json"] | None = None,
            additional_params: dict[str, Any] | None = None,
        ) -> None: ...

    def with_messages(self, messages: Iterable[Message]) -> ChatRequest:
        """The same request with another history."""
        request = copy.copy(self)
        object.__setattr__(request, "messages", tuple(messages))  # the messages were checked when they were made
        return request

    def check_tool_choice(self) -> None:
        """Raise ValueError where ``tool_choice`` asks for a call and there are no tools.

        It is checked when the request is sent, and not when it is made: ``run_chat`` adds the tools.
        """
        if self.tool_choice is not None and self.tool_choice.kind in ("any", "tool") and not self.tools:
            raise ValueError("ChatRequest.tool_choice asks for a call, and there are no tools")

    def __post_init__(self) -> None:
        put = object.__setattr__
        if isinstance(self.messages, str):
            put(self, "messages", (Message.user(self.messages),))
        elif isinstance(self.messages, Message):
            put(self, "messages", (self.messages,))
        put(self, "messages", _records(self.messages, Message, "messages"))
        put(self, "tools", _records(self.tools, ToolDefinition, "tools"))
        put(self, "stop_sequences", _strings(self.stop_sequences, "ChatRequest.stop_sequences"))
        if self.system_prompt is not None and not isinstance(self.system_prompt, str):
            put(self, "system_prompt", _records(self.system_prompt, SystemBlock, "system_prompt"))
        self._check()

    def _check(self) -> None:
        effort = self.reasoning_effort
        if isinstance(effort, str) and effort not in EFFORTS:
            raise ValueError(
                f"ChatRequest.reasoning_effort must be one of {EFFORTS} or a number of tokens, got {effort!r}"
            )
        if isinstance(self.response_format, str) and self.response_format != "json":
            raise ValueError(
                f"ChatRequest.response_format must be 'json' or a JsonSchema, got {self.response_format!r}"
            )
        check_fields(self)
        if not self.messages:
            raise ValueError("ChatRequest.messages is empty: give a string or at least one Message")
        _at_least(1, "max_tokens", self.max_tokens)
        _at_least(0, "top_k", self.top_k)
        if not isinstance(effort, str):
            _at_least(0, "reasoning_effort", effort)
        _finite("temperature", self.temperature)
        _finite("top_p", self.top_p)
        names = [tool.name for tool in self.tools]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"ChatRequest.tools has a name twice: {', '.join(sorted(twice))}")
        choice = self.tool_choice  # where there are no tools yet, whoever adds some holds it against them
        if choice is not None and choice.kind == "tool" and names and choice.name not in names:
            raise ValueError(f"ChatRequest.tool_choice names {choice.name!r}, which is not among the tools")


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
    """The request that ``chat_stream`` was given; a plain string is one user message.

    Raises:
        TypeError: it is neither.
    """
    request = ChatRequest(given) if isinstance(given, str) else given
    if not isinstance(request, ChatRequest):
        raise TypeError(f"a ChatRequest or a string is needed, got {type(given).__name__}: ChatRequest('…')")
    return request


def system_text(req: ChatRequest) -> str:
    """The system prompt as one string, its blocks joined by a blank line."""
    if isinstance(req.system_prompt, str) or req.system_prompt is None:
        return req.system_prompt or ""
    return "\n\n".join(block.text for block in req.system_prompt if block.text)
