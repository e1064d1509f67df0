"""What ``run_chat`` returns: the chunks of a run as a stream, and its result."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

from completion.contract.cancel import CancelToken
from completion.contract.chunks import FinishReason, Usage
from completion.contract.codec import Record, nested, nested_or_absent
from completion.contract.collect import TurnSoFar
from completion.contract.messages import Message, ToolCallBlock
from completion.contract.run import Abort, RunFinished
from completion.contract.stream import ChatStream, response_of
from completion.engine.outputs import OUTPUT_AS_JSON

if TYPE_CHECKING:
    from completion.engine.run import Run


@dataclass(frozen=True, slots=True)
class RunResult(Record):
    """The result of a run. ``new_messages``: append them to the history. ``output``: the value of ``output=T``.
    ``pending``: the calls that wait for a person."""

    run_id: str
    reason: FinishReason = field(metadata=nested(FinishReason))
    usage: Usage
    new_messages: tuple[Message, ...] = field(metadata=nested(Message))
    abort: Abort | None = None
    output: Any = field(default=None, metadata=OUTPUT_AS_JSON)
    pending: tuple[ToolCallBlock, ...] = field(default=(), metadata=nested_or_absent(ToolCallBlock))

    @classmethod
    def of(cls, end: RunFinished, output: Any = None) -> RunResult:
        return cls(end.run_id, end.reason, end.usage, end.new_messages, end.abort, output, end.pending)

    @property
    def text(self) -> str:
        """The text of the model's last answer; empty if there is none.

        An answer that the provider paused and continued is one answer: its text is that of all its turns.
        """
        from_last = itertools.dropwhile(lambda message: message.role != "assistant", reversed(self.new_messages))
        answer = [*itertools.takewhile(lambda message: message.role == "assistant", from_last)]
        return "".join(message.text for message in reversed(answer))


class RunStream(ChatStream):
    """The chunks of a run, from RunStarted to RunFinished; a generator and a context manager, like ChatStream.

    ``cancel()``, or cancelling a CancelToken that was active when the run began, aborts the run: nothing is raised, and
    the last chunk is a RunFinished with the abort ``cancelled`` and a valid history. After the last StepFinished it has
    no effect. ``response`` is the response of the first turn; with ``decisions``, nothing is known about it.
    """

    _accepts_runs = True

    def __init__(self, run: Run) -> None:
        self.run_id = run.info.run_id
        self._run = run
        super().__init__(
            run.chunks(),
            response=response_of(run.stream),
            # A token that nothing cancels: a cancelled run does not raise, it yields a RunFinished.
            token=CancelToken(),
            release=run.release,
            drop=run.drop,
            provider=run.info.provider,
            model=run.info.model,
        )

    def cancel(self) -> None:
        """Abort the run, from any thread, also while it is blocked. No effect after its end."""
        if not self._is_over:
            self._run.ending.cancel()

    def collect(self) -> RunResult:  # type: ignore[override]
        """Read the stream to its end and return the result of the run.

        Raises:
            CompletionError: what ``next()`` raises.
            RuntimeError: the stream was read or closed before.
        """
        self._read_all()
        return self.result

    def _collected(self, so_far: TurnSoFar) -> RunResult:  # type: ignore[override]
        return self.result

    @property
    def result(self) -> RunResult:
        """The result of the run, after the stream was read to its end: by a ``for`` loop, ``text_stream`` or
        ``collect()``.

        Raises:
            RuntimeError: the end was not reached, because the stream was not read to its end, was closed, or failed.
        """
        if self._run.end is None:
            if self._is_over:
                raise RuntimeError("there is no result: the run failed, or it was closed before its end")
            raise RuntimeError("result is not known yet: read the stream to its end, or call collect()")
        return self.result_of(self._run.end)

    def result_of(self, end: RunFinished) -> RunResult:
        """The result for the last chunk of this run."""
        return RunResult.of(end, self._run.output.value if self._run.output and not end.abort else None)

    @property
    def turn(self) -> NoReturn:
        """A run has several turns: see ``result``."""
        raise AttributeError("a RunStream has no turn, because a run has several; use result")

    def __repr__(self) -> str:
        return f"<RunStream {'over' if self._is_over else 'open'}, {self.run_id}>"
