"""What people decide about calls that wait for them.

    a call waits -> RunFinished.pending  ...  run_chat(model, request, tools, decisions={call_id: True}) -> its result

The second call may come days later and in another process, because the messages contain all that it needs. A call waits
if it is in the model's last message, has no result, and is not a call of a client-side tool.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from itertools import takewhile
from typing import Any

from completion.contract.chunks import ToolCallFinished
from completion.contract.messages import Message, ToolCallBlock, ToolResultBlock
from completion.engine.history import ends_with_results, open_calls_of
from completion.engine.middleware import Refusal
from completion.engine.tools import Tool

Decision = bool | str | Refusal | Mapping[str, Any]
"""True: make the call. False, a reason or a Refusal: do not; the model reads the reason. A dict: make the call with
these arguments."""


def apply_decision(call: ToolCallBlock, decision: Any, error_prefix: str) -> ToolCallBlock | Refusal:
    """The call to make, or the refusal.

    Raises:
        TypeError: this is not a decision. None is an error too: it is probably a missing ``return``. It must not count
            as a yes, and as a no it would hide the mistake.
    """
    match decision:
        case True:
            return call
        case False | "":
            return Refusal("The user did not allow this call.")
        case str():
            return Refusal(decision)
        case Refusal():
            return decision
        case Mapping():
            return replace(call, args=dict(decision))
    raise TypeError(f"{error_prefix} True, False, a reason or a dict of arguments, got {decision!r}")


def waits_for_approval(messages: Sequence[Message], tools: Mapping[str, Tool]) -> bool:
    """Whether a call of a tool with ``approval=True`` waits at the end of the history.

    False if the user has written a message after the call: the message replaces a decision.
    """
    waiting = any(tools[call.name].approval for call in open_calls_of(messages) if call.name in tools)
    since = takewhile(lambda message: message.role == "user", reversed(messages))
    return waiting and all(isinstance(block, ToolResultBlock) for message in since for block in message.blocks)


class Decisions:
    """The decisions about the calls at the end of a history.

    ``open_calls``: all calls without a result. ``client_calls``: those of them for client-side tools. ``calls``: those
    that have a decision. ``verdicts``: for each decision, the call to make or the refusal, by call id. ``go_on``: the
    history ends with calls or their results, so the model goes on with an answer that it has begun.

    Raises:
        TypeError: something in ``given`` is not a decision.
        ValueError: a call does not wait, or the changed arguments are wrong. The calls still wait.
    """

    def __init__(
        self,
        given: Mapping[str, Decision],
        messages: Sequence[Message],
        tools: Mapping[str, Tool],
        client_tools: Collection[str],
    ) -> None:
        if not isinstance(given, Mapping):
            raise TypeError(f"run_chat: decisions= must be a dict by call id, got {type(given).__name__}")
        self.open_calls = open_calls_of(messages)
        self.go_on = bool(self.open_calls) or ends_with_results(messages)
        self.client_calls = [call for call in self.open_calls if call.name in client_tools]
        can_wait = [call for call in self.open_calls if call.name not in client_tools]
        self._undecided = [call for call in can_wait if call.call_id not in given]
        by_id = {call.call_id: call for call in can_wait}
        for call_id in given:
            if call_id not in by_id:
                waiting = f"the calls that wait are: {', '.join(by_id)}" if by_id else "no call waits"
                raise ValueError(f"run_chat: decisions= contains the call {call_id!r}, which does not wait; {waiting}")
        self.verdicts = {
            call_id: apply_decision(by_id[call_id], decision, f"run_chat: decisions[{call_id!r}] must be")
            for call_id, decision in given.items()
        }
        for call_id, verdict in self.verdicts.items():
            tool = tools.get(by_id[call_id].name)
            if isinstance(given[call_id], Mapping) and isinstance(verdict, ToolCallBlock) and tool is not None:
                problem = tool.why_wrong(verdict.args)
                if problem is not None:
                    raise ValueError(f"run_chat: decisions[{call_id!r}] cannot be used: {problem}")
        chosen = [call for call in can_wait if call.call_id in given]
        self.calls = [ToolCallFinished(call.call_id, call.name, call.args) for call in chosen]

    def still_waiting(self, again: Collection[str]) -> tuple[ToolCallBlock, ...]:
        """The calls without a decision, and those with an id in ``again``, in the order of the history."""
        return tuple(call for call in self.open_calls if call in self._undecided or call.call_id in again)
