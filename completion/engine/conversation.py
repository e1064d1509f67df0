"""A conversation: the history that is kept between runs, and kept small enough.

    conversation = Conversation(model, system_prompt="Be brief.", tools=[weather], budget=100_000)
    for chunk in conversation.stream("Is it raining in Oslo?"): ...
    print(conversation.run("And in Bergen?").text)
    store(conversation.to_json())

    history -> (too long?) -> without its oldest exchanges, or with a summary of them -> run_chat -> a longer history

An exchange is a message of the user and all that follows until the next one: the answers, the calls and their results.
"""

from __future__ import annotations

import copy
import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import accumulate
from typing import Any, Literal, TypeAlias

from completion.contract.checks import require_model
from completion.contract.chunks import Usage
from completion.contract.codec import Record, nested
from completion.contract.errors import ContextOverflowError, StreamCancelledError
from completion.contract.messages import (
    Block,
    Message,
    TextBlock,
)
from completion.contract.model import CompletionModel
from completion.contract.request import ChatRequest, SystemBlock, ToolDefinition
from completion.contract.run import RunFinished
from completion.contract.stream import ChatStream, Chunks, without_our_frames
from completion.contract.turn import Turn
from completion.engine.bounds import RunConfig
from completion.engine.history import _begins_an_exchange, _fault, _written
from completion.engine.middleware import AbortRun, Hooks, RunInfo
from completion.engine.run import RunResult, RunStream, run_chat
from completion.engine.size import _guess, _guess_of_message
from completion.engine.tools import Tool
from completion.wrappers.attempts import Attempts, is_retried

log = logging.getLogger(__name__)

Compaction: TypeAlias = Literal["truncate", "summary"] | Callable[[Sequence[Message]], Sequence[Message]]
"""What becomes of the oldest exchanges: nothing, a summary by the model, or what a function makes of them."""

_SCHEMA = "completion.conversation.1"

_CONFIG = [field.name for field in fields(RunConfig)]

_KEPT = {"truncate": 0.75, "summary": 0.5}
"""How much of the budget the exchanges that stay may take: not all of it, so that the next ones fit without another
cut, which costs the provider's cache each time. Where something takes the place of the others, it needs room too."""

_OVERFLOWN = 0.5
"""How much of a request stays that did not fit: where the window ends, the error of few providers says."""


_SUMMARY_TOKENS = 1024
_SUMMARY_PROMPT = (
    "You keep the notes of a conversation between a user and an assistant. Write down, briefly, what the assistant "
    "needs to go on: what the user wants, what is settled, facts, names and numbers, results of tools, what is left to "
    "do. Write the notes only."
)
_SUMMARY_HEAD = "Notes of the conversation so far:\n\n"


class Conversation:
    """A history, and how it goes on.

    A run that ends well adds what was said to ``messages``: the user's message, the answers, the calls and their
    results. A run that fails or is dropped leaves everything as it was. A run that was aborted (``cancel()``, a bound
    of ``config``, AbortRun) adds what there was until then, because tools have done what they did, and what the user
    has read shall be remembered; where the model had said nothing, it adds nothing.

    One run at a time. ``messages``, ``usage``, ``to_json`` and ``fork`` may be used while it goes on, and show what was
    before it. Between runs, other ``messages`` may be assigned.

    Args:
        model: any CompletionModel, wrappers included.
        system_prompt, max_tokens, settings: as for ChatRequest, ``temperature=0.5`` for instance; they hold for each
            run.
        tools, middleware, config: as for ``run_chat``. Calls of a tool that is given as a bare ToolDefinition are left
            to the caller, who says their results next.
        budget: tokens that a request may take, without its answer: leave room for ``max_tokens`` in the model's window.
            Nothing is counted here; the provider's count of the last request tells how many a text takes. Where the
            request would be longer, the oldest exchanges go, until about three quarters of the budget are used. The
            last exchange stays in any case. None: history is left out only when the provider refuses for its length
            (ContextOverflowError); then, budget or not, half of it goes and the turn is asked for once more.
        compaction: what takes their place: nothing (``truncate``); notes that the model takes (``summary``, in a run of
            its own with this middleware and no tools, whose tokens count); or what a function makes of their messages,
            which is called where the run is read.
        messages: the history to begin with.

    Raises:
        TypeError, ValueError: arguments that make no sense.
    """

    def __init__(
        self,
        model: CompletionModel,
        *,
        system_prompt: str | Sequence[SystemBlock] | None = None,
        tools: Sequence[Tool | ToolDefinition] = (),
        middleware: Sequence[Any] = (),
        config: RunConfig = RunConfig(),  # noqa: B008  immutable
        max_tokens: int = 4096,
        budget: int | None = None,
        compaction: Compaction = "truncate",
        messages: Sequence[Message] = (),
        **settings: Any,
    ) -> None:
        require_model(model, "Conversation")
        if budget is not None and (isinstance(budget, bool) or not isinstance(budget, int) or budget < 1):
            raise ValueError(f"Conversation: budget must be a whole number from 1 on, got {budget!r}")
        if compaction not in _KEPT and not callable(compaction):
            raise ValueError(
                f"Conversation: compaction must be 'truncate', 'summary' or a function, got {compaction!r}"
            )
        if not isinstance(config, RunConfig):
            raise TypeError(f"Conversation: config= takes a RunConfig, got {type(config).__name__}")
        for name, given in (("tools", tools), ("middleware", middleware), ("messages", messages)):
            if isinstance(given, str) or not isinstance(given, Sequence):
                raise TypeError(f"Conversation: {name}= takes a list, got {type(given).__name__}: write {name}=[…]")
        Hooks(middleware)
        for one in messages:
            if not isinstance(one, Message):
                raise TypeError(f"Conversation: messages= takes Messages, got {one!r}")
        if fault := _fault(messages):
            raise ValueError(f"Conversation: {fault}")
        self.model = model
        self.tools = tuple(tools)
        self.middleware = tuple(middleware)
        self.config = config
        self.budget = budget
        self.compaction = compaction
        self.messages = tuple(messages)
        self.usage = Usage()
        """Of all runs so far, of those that failed and of summaries as well."""
        self._settings = ChatRequest("-", max_tokens, system_prompt, _definitions(tools), **settings)
        self._tokens_per_guess = 1.0
        self._is_running = threading.Lock()

    def stream(self, said: str | Block | Sequence[Block] | Message) -> RunStream:
        """Say something, and get the run that answers.

        Raises:
            CompletionError: as ``run_chat`` does.
            RuntimeError: the run before is not over; read it to its end, or close it.
            ValueError: it is no message of the user, or it leaves a call unanswered that was left to the caller.
        """
        message = said if isinstance(said, Message) else Message.user(said)  # type: ignore[arg-type]
        if message.role != "user" or not any(
            not isinstance(block, TextBlock) or block.text for block in message.blocks
        ):
            raise ValueError(f"Conversation takes a message of the user that says something, got {message!r}")
        if not self._is_running.acquire(blocking=False):
            raise RuntimeError("this conversation is in the midst of a run: end it first, or go on with a fork()")
        exchange = _Exchange(self, message)
        try:
            if fault := _fault(exchange.said):
                raise ValueError(f"Conversation: {fault}")
            request = replace(self._settings, messages=exchange.said)
            ours = [tool for tool in self.tools if isinstance(tool, Tool)]
            return run_chat(exchange, request, ours, [exchange, *self.middleware], self.config)
        except BaseException:
            exchange.end()
            raise

    def run(self, said: str | Block | Sequence[Block] | Message) -> RunResult:
        """Say something, and get what the run came to. Raises as ``stream`` and its ``next()`` do."""
        return self.stream(said).collect()

    def fork(self) -> Conversation:
        """Another conversation that begins as this one is, and goes on by itself."""
        twin = copy.copy(self)
        twin._is_running = threading.Lock()
        return twin

    def to_json(self) -> str:
        """The history, and the settings that are data. What is none is given again: model, tools, middleware, and a
        function for ``compaction``."""
        return _Snapshot(
            schema=_SCHEMA,
            messages=self.messages,
            settings={
                key: value for key, value in self._settings.to_dict().items() if key not in ("messages", "tools")
            },
            config=asdict(self.config),
            usage=self.usage,
            budget=self.budget,
            compaction=None if callable(self.compaction) else self.compaction,
            tokens_per_guess=self._tokens_per_guess,
        ).to_json()

    @classmethod
    def from_json(
        cls,
        text: str | bytes,
        model: CompletionModel,
        *,
        tools: Sequence[Tool | ToolDefinition] = (),
        middleware: Sequence[Any] = (),
        compaction: Compaction | None = None,
    ) -> Conversation:
        """The conversation that ``to_json`` described. ``compaction``: None takes the one that it had.

        Raises:
            ValueError: the text is none of ours, or the conversation had a function for ``compaction``.
        """
        try:
            snapshot = _Snapshot.from_json(text)
        except ValueError as error:
            raise ValueError(f"this is no conversation as to_json() gives it: {error}") from None
        if snapshot.schema != _SCHEMA:
            raise ValueError(f"Conversation.from_json reads {_SCHEMA}, got {snapshot.schema}")
        if compaction is None and snapshot.compaction is None:
            raise ValueError("Conversation.from_json: this one had a function for compaction=; give it again")
        conversation = cls(
            model,
            tools=tools,
            middleware=middleware,
            config=RunConfig(**{name: snapshot.config[name] for name in _CONFIG if name in snapshot.config}),
            budget=snapshot.budget,
            compaction=compaction or snapshot.compaction or "truncate",
            messages=snapshot.messages,
        )
        given = {"messages": [Message.user("-").to_dict()], "tools": [tool.to_dict() for tool in _definitions(tools)]}
        conversation._settings = ChatRequest.from_dict({**snapshot.settings, **given})
        conversation.usage = snapshot.usage
        conversation._tokens_per_guess = snapshot.tokens_per_guess
        return conversation

    def __repr__(self) -> str:
        return f"<Conversation with {self.model.model}, {len(self.messages)} messages>"


@dataclass(frozen=True, slots=True)
class _Snapshot(Record):
    schema: str
    messages: tuple[Message, ...] = field(metadata=nested(Message))
    settings: dict[str, Any] = field(metadata=nested(dict))
    config: dict[str, Any] = field(metadata=nested(dict))
    usage: Usage
    budget: int | None
    compaction: Literal["truncate", "summary"] | None
    tokens_per_guess: float


class _Exchange:
    """One run of a conversation: the outermost middleware, which keeps the history, and the model, which asks once more
    with less.

    What is sent is ``_head`` and, of all that was said, what comes after the first ``_gone`` messages.
    """

    def __init__(self, owner: Conversation, message: Message) -> None:
        self.said = (*owner.messages, message)
        self._owner = owner
        self._head: tuple[Message, ...] = ()
        self._gone = 0
        self._sent = 0  # messages of the request, as it left on_request
        self._guessed = 0.0
        self._run: RunInfo | None = None
        self._is_over = False

    # As a model

    @property
    def name(self) -> str:
        return self._owner.model.name

    @property
    def model(self) -> str:
        return self._owner.model.model

    @without_our_frames
    def chat_stream(self, req: ChatRequest) -> ChatStream:
        return _Turn(self, req).stream()

    def ask(self, request: ChatRequest) -> Chunks:
        self._guessed = _guess(request)
        return self._owner.model.chat_stream(request)

    # As middleware

    def on_request(self, run: RunInfo, request: ChatRequest) -> ChatRequest:
        self._run = run
        request = replace(request, messages=(*self._head, *request.messages[self._gone :]))
        self._sent = len(request.messages)
        budget = self._owner.budget
        if budget is not None and self._tokens(_guess(request)) > budget:
            how = self._owner.compaction
            with run.token:
                return (
                    self._shortened(request, budget * (_KEPT["truncate" if how == "truncate" else "summary"]))
                    or request
                )
        return request

    def on_turn_finished(self, run: RunInfo, turn: Turn) -> None:
        if turn.usage is not None and turn.usage.input_tokens and self._guessed:
            self._owner._tokens_per_guess = turn.usage.input_tokens / self._guessed

    def on_finished(self, run: RunInfo, end: RunFinished) -> None:
        if end.abort is None or any(message.role == "assistant" for message in end.new_messages):
            said = (*self.said, *end.new_messages)
            self._owner.messages = (*self._head, *said[self._gone :])
        self.end()

    def on_failed(self, run: RunInfo, error: BaseException) -> None:
        self.end()

    def on_dropped(self, run: RunInfo) -> None:
        self.end()

    def end(self) -> None:
        """The conversation is free again."""
        if self._is_over:
            return
        self._is_over = True
        if self._run is not None:
            self._owner.usage += self._run.usage
        self._owner._is_running.release()

    # Less

    def overflown(self, request: ChatRequest) -> ChatRequest | None:
        """What to send instead of a request that did not fit; None where nothing can go."""
        return self._shortened(request, self._tokens(_guess(request)) * _OVERFLOWN)

    def _tokens(self, guess: float) -> float:
        return guess * self._owner._tokens_per_guess

    def _shortened(self, request: ChatRequest, most: float) -> ChatRequest | None:
        """The request without its oldest exchanges: so many that the rest takes at most so many tokens, if it can."""
        messages = request.messages
        of_this_run = len(messages) - self._sent + len(self._head) + len(self.said) - 1 - self._gone
        begins = [i for i, message in enumerate(messages[: of_this_run + 1]) if i and _begins_an_exchange(message)]
        if not begins:
            return None
        all_of_it = _guess(request)
        left = [all_of_it, *(all_of_it - gone for gone in accumulate(map(_guess_of_message, messages)))]
        cut = next((i for i in begins if self._tokens(left[i]) <= most), begins[-1])
        head = self._instead_of(messages[:cut])
        if fault := _fault((*head, *messages[cut:])):
            raise ValueError(f"Conversation: what compaction= gave makes no history: {fault}")
        if len(messages) == self._sent:  # unless middleware sends others than those that were said
            self._gone += max(cut - len(self._head), 0)
            self._head = (*head, *self._head[cut:])
            self._sent += len(head) - cut
        return replace(request, messages=(*head, *messages[cut:]))

    def _instead_of(self, messages: Sequence[Message]) -> tuple[Message, ...]:
        how = self._owner.compaction
        if callable(how):
            return tuple(how(messages))
        return self._notes(messages) if how == "summary" else ()

    def _notes(self, messages: Sequence[Message]) -> tuple[Message, ...]:
        owner = self._owner
        most = min(_SUMMARY_TOKENS, owner._settings.max_tokens, *([owner.budget // 4 + 1] if owner.budget else []))
        request = ChatRequest(_written(messages), most, _SUMMARY_PROMPT)
        try:
            result = run_chat(owner.model, request, (), owner.middleware, RunConfig(max_iterations=1)).collect()
        except ContextOverflowError:
            log.warning("what was to be summed up does not fit into the model's context: it is left out")
            return ()
        assert self._run is not None
        self._run.usage += result.usage
        if result.abort is not None and result.abort.kind == "cancelled":
            raise StreamCancelledError(result.abort.message, provider=self.name, model=self.model)
        if result.abort is not None:
            raise AbortRun(result.abort.message)
        return (Message.user(_SUMMARY_HEAD + result.text),) if result.text else ()


class _Turn(Attempts):
    """One turn of the model, asked for once more with less when its context overflows before the first chunk."""

    def __init__(self, exchange: _Exchange, request: ChatRequest) -> None:
        super().__init__(exchange.name, exchange.model, retries=is_retried.get())
        self._exchange = exchange
        self._request = request
        self._is_second = False

    def call(self) -> Chunks:
        return self._exchange.ask(self._request)

    def goes_on(self, error: Exception, *, was_open: bool) -> bool:
        if self._is_second or not isinstance(error, ContextOverflowError):
            return False
        self._is_second = True
        shorter = self._exchange.overflown(self._request)
        self._request = shorter or self._request
        return shorter is not None

    def note(self, error: Exception) -> None:
        pass

    def pause(self) -> None:
        pass


def _definitions(tools: Iterable[Tool | ToolDefinition]) -> list[ToolDefinition]:
    return [tool.definition if isinstance(tool, Tool) else tool for tool in tools]
