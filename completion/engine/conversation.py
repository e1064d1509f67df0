"""A conversation: it keeps the history between runs, and keeps it short enough.

    conversation = Conversation(model, system_prompt="Be brief.", tools=[weather], budget=100_000)
    for chunk in conversation.stream("Is it raining in Oslo?"): ...
    print(conversation.run("And in Bergen?").text)
    store(conversation.to_json())

    history -> (too long?) -> without its oldest exchanges, or with a summary of them -> run_chat -> a longer history

Two objects work for each run: ``_HistoryKeeper``, the outermost middleware, adds the new messages to the history;
``ShorteningModel`` (module ``compaction``) sends a turn once more, shortened, when the provider refuses its length.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal

from completion.contract.checks import require_model, require_whole_number
from completion.contract.chunks import Usage
from completion.contract.codec import Record, nested
from completion.contract.messages import Block, Message, TextBlock, ToolCallBlock
from completion.contract.model import CompletionModel
from completion.contract.request import ChatRequest, SystemBlock, ToolDefinition
from completion.contract.run import RunFinished
from completion.contract.turn import Turn
from completion.engine.bounds import RunConfig
from completion.engine.compaction import BUDGET_SHARE, Compaction, CompactionSettings, Compactor, ShorteningModel
from completion.engine.decisions import Decision
from completion.engine.history import ends_with_results, open_calls_of, why_invalid
from completion.engine.middleware import Hooks, RunInfo
from completion.engine.run import require_list, run_chat
from completion.engine.run_stream import RunResult, RunStream
from completion.engine.tools import Tool

_SCHEMA = "completion.conversation.1"

_CONFIG_FIELDS = [field.name for field in fields(RunConfig)]


class Conversation:
    """A history of messages, and the settings to continue it.

    A run that ends well adds its messages to ``messages``: the user's message, the answers, the tool calls and their
    results. A run that fails or is dropped changes nothing. A run that is aborted (``cancel()``, a limit of
    ``config``, AbortRun) adds its messages so far: its tools may have had effects, and the user has read a part of the
    answer. If the model had not answered yet, it adds nothing.

    One run at a time. ``messages``, ``usage``, ``to_json`` and ``fork`` may be used during a run; they show the state
    before it. Between runs, ``messages`` may be assigned.

    Args:
        model: any CompletionModel, wrappers included.
        system_prompt, max_tokens, settings: the fields of ChatRequest, for example ``temperature=0.5``; the same for
            each run.
        tools, middleware, config: see ``run_chat``. A bare ToolDefinition is a client-side tool: the run ends with the
            call, and the next message contains its result.
        budget: how many tokens a request may have. The answer is not included: leave room for ``max_tokens`` in the
            model's context window. The library has no tokenizer; it estimates from the provider's count of the last
            request. When a request would be longer, also in a later turn of a run, old tool results are shortened, then
            the oldest exchanges are removed, then the oldest steps of this run, until about three quarters of the
            budget are used. The user's last message and the latest step always stay; if they are too long, new tool
            results are shortened. None: this happens only when the provider refuses a request for its length
            (ContextOverflowError). In that case, with or without a budget, half of the request is removed and the turn
            is sent once more. The run then has a HistoryCompacted chunk, and ``messages`` is what was sent.
        compaction: what replaces the removed messages. ``truncate``: nothing, or a sentence for steps of this run.
            ``summary``: notes that the model writes in a run of its own, with this middleware and without tools; its
            tokens are added to ``usage``; if that fails, ``truncate`` is used. A function: the messages that it returns
            for the removed ones; it is called in the thread that reads the run.
        messages: the history to start with. It may end with a call without a result: the model then reads that the tool
            was not run.

    Raises:
        TypeError, ValueError: invalid arguments.
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
        if budget is not None:
            require_whole_number(budget, "Conversation: budget")
        if compaction not in BUDGET_SHARE and not callable(compaction):
            raise ValueError(
                f"Conversation: compaction must be 'truncate', 'summary' or a function, got {compaction!r}"
            )
        if not isinstance(config, RunConfig):
            raise TypeError(f"Conversation: config= must be a RunConfig, got {type(config).__name__}")
        for name, given in (("tools", tools), ("middleware", middleware), ("messages", messages)):
            require_list(given, f"Conversation: {name}")
        Hooks(middleware)  # raises for objects that are not middleware
        for message in messages:
            if not isinstance(message, Message):
                raise TypeError(f"Conversation: messages= must contain Messages, got {message!r}")
        if problem := why_invalid(messages):
            raise ValueError(f"Conversation: {problem}")
        self.model = model
        self.tools = tuple(tools)
        self.middleware = tuple(middleware)
        self.config = config
        self.budget = budget
        self.compaction = compaction
        self.messages = tuple(messages)
        self.usage = Usage()
        """The tokens of all runs so far, failed runs and summaries included."""
        # "-": a ChatRequest needs a message. Each run replaces it by the history.
        self._settings = ChatRequest("-", max_tokens, system_prompt, _definitions(tools), **settings)
        self._tokens_per_guess = 1.0  # how many tokens the provider counts for one that ``size`` guesses
        self._run_lock = threading.Lock()  # held from ``stream`` to the end of the run

    def stream(self, said: str | Block | Sequence[Block] | Message) -> RunStream:
        """Send a message, and return the run that answers it.

        Raises:
            CompletionError: see ``run_chat``.
            RuntimeError: the previous run has not ended; read it to its end, or close it.
            ValueError: this is not a user message, or it does not answer a call of a client-side tool.
        """
        message = said if isinstance(said, Message) else Message.user(said)  # type: ignore[arg-type]
        if message.role != "user" or not any(
            not isinstance(block, TextBlock) or block.text for block in message.blocks
        ):
            raise ValueError(f"Conversation: the message must be a user message that is not empty, got {message!r}")
        return self._begin([message])

    def run(self, said: str | Block | Sequence[Block] | Message) -> RunResult:
        """Send a message, and return the result of the run. Raises what ``stream`` and ``next()`` raise."""
        return self.stream(said).collect()

    @property
    def pending(self) -> tuple[ToolCallBlock, ...]:
        """The calls that wait for a person: those at the end of the history that have no result, and whose tool is not
        client-side. If you send a message instead of deciding, the model reads that they were not made."""
        client_tools = self._client_tools
        return tuple(call for call in open_calls_of(self.messages) if call.name not in client_tools)

    def resume(self, decisions: Mapping[str, Decision]) -> RunStream:
        """Go on with the calls that wait for a person: see ``run_chat(…, decisions=…)``.

        If the run fails or is dropped, the messages so far are kept, so that no call is made twice. Then ``resume({})``
        asks the model for its answer again.

        Raises:
            CompletionError: see ``run_chat``.
            RuntimeError: the previous run has not ended.
            ValueError: no call waits, or a decision is about a call that does not wait.
            TypeError: this is not a decision.
        """
        can_go_on = ends_with_results(self.messages)
        if not self.pending and (decisions or not can_go_on):
            instead = "resume({}) asks the model to go on" if can_go_on else "use stream() or run()"
            raise ValueError(f"Conversation: no call waits for a decision; {instead}")
        return self._begin([], decisions)

    def _begin(self, new: Sequence[Message], decisions: Mapping[str, Decision] | None = None) -> RunStream:
        if not self._run_lock.acquire(blocking=False):
            raise RuntimeError("Conversation: a run is in progress; read it to its end or close it, or use a fork()")
        history = (*self.messages, *new)
        compactor = Compactor(self._compaction_settings(), history, self._tokens_per_guess)
        keeper = _HistoryKeeper(self, history, compactor, resumes=decisions is not None)
        try:
            if problem := why_invalid(history) or (new and self._why_unanswered(history)):
                raise ValueError(f"Conversation: {problem}")
            request = replace(self._settings, messages=history)
            runnable = [tool for tool in self.tools if isinstance(tool, Tool)]
            model, middleware = ShorteningModel(self.model, compactor), [keeper, *self.middleware]
            return run_chat(model, request, runnable, middleware, self.config, decisions=decisions)
        except BaseException:
            keeper.release()
            raise

    def fork(self) -> Conversation:
        """A second conversation with the same history and settings. From then on, they are independent."""
        twin = copy.copy(self)
        twin._run_lock = threading.Lock()
        return twin

    def to_json(self) -> str:
        """The history, and the settings that are data. Not included: model, tools, middleware, and a function for
        ``compaction``; ``from_json`` takes them again."""
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
        """The conversation that ``to_json`` wrote. ``compaction=None`` keeps the stored one.

        Raises:
            ValueError: the text is not from ``to_json``, or the conversation had a function for ``compaction``.
        """
        try:
            snapshot = _Snapshot.from_json(text)
        except ValueError as error:
            raise ValueError(f"Conversation.from_json: this is not JSON that to_json() wrote: {error}") from None
        if snapshot.schema != _SCHEMA:
            raise ValueError(f"Conversation.from_json: the schema must be {_SCHEMA}, got {snapshot.schema}")
        if compaction is None and snapshot.compaction is None:
            raise ValueError(
                "Conversation.from_json: this conversation had a function for compaction=; pass the function again"
            )
        conversation = cls(
            model,
            tools=tools,
            middleware=middleware,
            config=RunConfig(**{name: snapshot.config[name] for name in _CONFIG_FIELDS if name in snapshot.config}),
            budget=snapshot.budget,
            compaction=compaction or snapshot.compaction or "truncate",
            messages=snapshot.messages,
        )
        # A ChatRequest needs a message, and a tool_choice needs its tools: the snapshot has neither.
        added = {"messages": [Message.user("-").to_dict()], "tools": [tool.to_dict() for tool in _definitions(tools)]}
        conversation._settings = ChatRequest.from_dict({**snapshot.settings, **added})
        conversation.usage = snapshot.usage
        conversation._tokens_per_guess = snapshot.tokens_per_guess
        return conversation

    def _why_unanswered(self, history: Sequence[Message]) -> str | None:
        """Why the new message is incomplete: it must answer the calls of our client-side tools."""
        client_tools = self._client_tools
        calls = ", ".join(call.call_id for call in open_calls_of(history) if call.name in client_tools)
        return f"there is no tool result for the call {calls} of a client-side tool" if calls else None

    @property
    def _client_tools(self) -> set[str]:
        return {tool.name for tool in self.tools if isinstance(tool, ToolDefinition)}

    def _compaction_settings(self) -> CompactionSettings:
        return CompactionSettings(self.model, self.middleware, self.budget, self.compaction, self._settings.max_tokens)

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


class _HistoryKeeper:
    """The outermost middleware of a conversation's run: writes the new history when the run ends.

    Outermost, so that all other middleware sees the shortened request.
    """

    def __init__(
        self, conversation: Conversation, history: tuple[Message, ...], compactor: Compactor, *, resumes: bool
    ) -> None:
        self._conversation = conversation
        self._history = history
        self._compactor = compactor
        self._resumes = resumes
        self._has_released = False

    def on_request(self, run: RunInfo, request: ChatRequest) -> ChatRequest:
        return self._compactor.fit_budget(run, request)

    def on_turn_finished(self, run: RunInfo, turn: Turn) -> None:
        if turn.usage is not None:
            self._compactor.note_count(turn.usage.input_tokens)
            self._conversation._tokens_per_guess = self._compactor.tokens_per_guess

    def on_finished(self, run: RunInfo, end: RunFinished) -> None:
        has_answer = any(message.role == "assistant" for message in end.new_messages)
        if end.abort is None or has_answer or self._resumes:
            self._keep(end.new_messages)
        self._end(run)

    def on_failed(self, run: RunInfo, error: BaseException) -> None:
        self._end_early(run)

    def on_dropped(self, run: RunInfo) -> None:
        self._end_early(run)

    def _end_early(self, run: RunInfo) -> None:
        if self._resumes:  # a call that was allowed must not be made again
            self._keep(run.messages)
        self._end(run)

    def _keep(self, messages: Sequence[Message]) -> None:
        self._conversation.messages = self._compactor.compacted((*self._history, *messages))

    def release(self) -> None:
        """Let the conversation begin another run. Only the first call has an effect."""
        if not self._has_released:
            self._has_released = True
            self._conversation._run_lock.release()

    def _end(self, run: RunInfo) -> None:
        self._conversation.usage += run.usage
        self.release()


def _definitions(tools: Iterable[Tool | ToolDefinition]) -> list[ToolDefinition]:
    return [tool.definition if isinstance(tool, Tool) else tool for tool in tools]
