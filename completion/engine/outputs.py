"""The ``output=`` of a run: each request asks for the schema, and the last answer is validated.

An answer that does not fit goes back to the model as a follow-up of middleware does, so the limits of the run hold.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from completion.contract.answer import Answer, answer_in, can_be_repaired
from completion.contract.chunks import FinishReason, StreamChunk
from completion.contract.errors import OutputError, UnsupportedContentError
from completion.contract.messages import Message
from completion.contract.model import CompletionModel
from completion.contract.request import ChatRequest
from completion.contract.turn import Turn
from completion.engine.formats import Mode, asking_for, opened, repair_text
from completion.wrappers.named_after import NamedAfter


def _as_json(value: Any) -> Any:
    if value is None:
        return None
    from completion.contract.typed import to_json_data  # imports pydantic, which has made the value

    return to_json_data(value)


OUTPUT_AS_JSON: Final = {"dataclasses_json": {"encoder": _as_json, "exclude": lambda value: value is None}}
"""The metadata of the field of a RunResult. Its JSON has the data of the value."""


class Output:
    """What a run is asked for. A middleware: give it to the run as the innermost one.

    ``data`` and ``value``: the answer of the last turn, as JSON data and as a value of the type; None if the turn
    called tools.
    """

    def __init__(self, kind: Any) -> None:
        self.data: Any = None
        self.value: Any = None
        self._answer = Answer(kind)
        self._paused_text = ""

    def model(self, inner: CompletionModel) -> CompletionModel:
        """The model, asked for this output in each request."""
        return _AskedModel(inner, self._answer)

    def on_turn_finished(self, run: Any, turn: Turn) -> list[Message] | None:
        """Validate an answer that calls no tool; a message for the model if it does not fit."""
        self.data = self.value = None
        before, self._paused_text = self._paused_text, ""
        if turn.reason is FinishReason.PAUSE:  # the next turn continues this answer
            self._paused_text = before + turn.text
            return None
        if turn.tool_calls or turn.malformed_calls:
            return None
        failure: OutputError | None = None
        try:
            self.data, self.value = answer_in(turn, self._answer, before)
        except OutputError as error:
            failure = error
        if failure is None:
            return None
        try:
            if not can_be_repaired(failure):
                failure.provider, failure.model = run.provider, run.model
                raise failure
            return [Message.user(repair_text(failure, "prompt"))]
        finally:
            del failure  # contract/frames.py says why


class _AskedModel(NamedAfter):
    """The model of a run. The schema is a response format if the wire supports one, else part of the system prompt."""

    def __init__(self, inner: CompletionModel, answer: Answer) -> None:
        self.inner = self._named_after = inner
        self._answer = answer

    def chat_stream(self, req: ChatRequest) -> Iterator[StreamChunk]:
        modes: tuple[Mode, ...] = ("schema", "prompt") if self._answer.open_reason is None else ("prompt",)
        for mode in modes[:-1]:
            try:
                return opened(self.inner.chat_stream(asking_for(self._answer, mode, req)))
            except UnsupportedContentError:
                continue
        return self.inner.chat_stream(asking_for(self._answer, modes[-1], req))
