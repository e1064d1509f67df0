"""An answer with a type: it grows while it arrives, and is validated at its end.

structured(model, request, City) -> StructuredStream -> {"name": "Os"}, {"name": "Oslo"}, …; then ``value``: a City
"""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Generator, Iterator
from contextlib import closing
from types import TracebackType
from typing import Any, TypeVar, cast, overload

from completion.contract.answer import Answer, AnswerReader, can_be_repaired
from completion.contract.cancel import CancelToken
from completion.contract.checks import require_model
from completion.contract.chunks import (
    StreamChunk,
    TextDelta,
    ToolCallArgsDelta,
    ToolCallFinished,
    ToolCallMalformed,
    ToolCallStarted,
)
from completion.contract.collect import TurnSoFar
from completion.contract.errors import OutputError, UnsupportedContentError
from completion.contract.growing import NOTHING, without_halves
from completion.contract.model import CompletionModel
from completion.contract.request import ChatRequest, JsonSchema, as_request
from completion.contract.stream import (
    ChatStream,
    ResponseInfo,
    drop_connection,
    response_of,
    without_our_frames,
)
from completion.contract.turn import Turn
from completion.contract.values import ValueStream
from completion.engine.formats import Mode, asking_again, modes_for, opened, tool_name, variants_for

T = TypeVar("T")


@overload
def structured(
    model: CompletionModel, request: ChatRequest | str, kind: JsonSchema, mode: Mode = "auto", repairs: int = 0
) -> StructuredStream[Any]: ...
@overload
def structured(
    model: CompletionModel, request: ChatRequest | str, kind: type[T], mode: Mode = "auto", repairs: int = 0
) -> StructuredStream[T]: ...
@overload
def structured(
    model: CompletionModel, request: ChatRequest | str, kind: object, mode: Mode = "auto", repairs: int = 0
) -> StructuredStream[Any]: ...
def structured(
    model: CompletionModel, request: ChatRequest | str, kind: Any, mode: Mode = "auto", repairs: int = 0
) -> StructuredStream[Any]:
    """Ask for an answer of this type: ``structured(model, "Describe Oslo.", City).collect()`` is a City.

    Args:
        kind: a dataclass, pydantic model, TypedDict, ``list[…]``, ``Literal``, union and so on; or a JsonSchema, whose
            value is plain data.
        mode: how the model learns the schema. ``"schema"``: the provider's own structured output. ``"tool"``: a forced
            call of one tool. ``"prompt"``: the schema in the system prompt. ``"auto"``: the first of them that this
            model and request support. A type with open keys, such as ``dict[str, int]``, uses ``"prompt"``.
        repairs: how often the model is shown what is wrong with its answer, and asked again. Then the values start
            again from the beginning. A refusal is not repaired.

    Raises:
        CompletionError: the stream could not be opened. Later errors are raised by ``next()`` and ``collect()``:
            OutputError if the answer does not fit.
        TypeError, ValueError: invalid arguments; nothing was sent.
        ConfigurationError: the extra ``tools`` is not installed.
    """
    require_model(model, "structured")
    request = as_request(request)
    if isinstance(repairs, bool) or not isinstance(repairs, int) or repairs < 0:
        raise ValueError(f"structured: repairs must be a whole number, 0 or more, got {repairs!r}")
    answer = Answer(kind)
    asking = _Asking(model, request, answer, modes_for(answer, mode), repairs)
    del request  # crash reporters show the local variables of the frames of an error: keep the prompt out of them
    asking.begin()
    return StructuredStream(asking)


class StructuredStream(ValueStream[T]):
    """A blocking generator of the growing value, as JSON data; then ``value`` is the validated one.

    A value is yielded each time it has grown. Strings are shown while they are open, numbers and literals when they are
    complete. Each value is a snapshot: it never changes later. A context manager, closed like a ChatStream.
    """

    def __init__(self, asking: _Asking) -> None:
        self._asking = asking
        self._stream = asking.stream()

    @property
    def response(self) -> ResponseInfo:  # type: ignore[override]
        """The response to the last request."""
        return self._asking.response

    @property
    def value(self) -> T:
        """The validated value, after the end.

        Raises:
            RuntimeError: the end was not reached, or the answer does not fit.
        """
        if self._asking.value is NOTHING:
            raise RuntimeError("value is known only after the end: call collect(), or read the stream to its end")
        return cast(T, self._asking.value)

    @property
    def turn(self) -> Turn:
        """The turn of the answer, after its end; with repairs, that of the last answer.

        Raises:
            RuntimeError: the end was not reached.
        """
        if self._asking.turn is None:
            raise RuntimeError("turn is known only after the end: call collect(), or read the stream to its end")
        return self._asking.turn

    def collect(self) -> T:
        """Read the stream to its end and return the value.

        Raises:
            OutputError: the answer does not fit, is cut off, refused or empty.
            CompletionError: as ``next()`` raises it; ``partial`` is the Turn so far.
            RuntimeError: the stream was closed before its end.
        """
        with self:
            for _ in self:
                pass
        return self.value

    def close(self) -> None:
        """Close the connection. Idempotent."""
        self._stream.close()

    def cancel(self) -> None:
        """End the stream, from any thread: ``next()`` raises StreamCancelledError, also if it is blocked now."""
        self._stream.cancel()

    def __iter__(self) -> StructuredStream[T]:
        return self

    def __next__(self) -> Any:
        return next(self._stream)

    def send(self, value: None) -> Any:
        """The same as ``next()``."""
        return next(self._stream)

    def throw(
        self, typ: type[BaseException] | BaseException, val: object = None, tb: TracebackType | None = None
    ) -> Any:
        """Close the stream and raise the given error."""
        return self._stream.throw(typ, val, tb)

    def __enter__(self) -> StructuredStream[T]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<StructuredStream of {self._asking.answer.shown}, {self._asking.mode} mode>"


class _Asking:
    """The requests behind a StructuredStream: the first one, and one for each repair."""

    def __init__(
        self, model: CompletionModel, request: ChatRequest, answer: Answer, modes: tuple[Mode, ...], repairs: int
    ) -> None:
        self.name, self.model = model.name, model.model  # ``without_our_frames`` reads them to complete errors
        self.answer = answer
        self.value: Any = NOTHING
        self.turn: Turn | None = None
        self.response = ResponseInfo()
        self._modes = modes
        self._repairs = repairs
        self._model = model
        self._inner: Generator[StreamChunk, None, None] | None = None
        self._token, self._unbind = CancelToken.bound_to_current()
        self._asked = request  # the last request, without the schema

    @property
    def mode(self) -> Mode:
        return self._modes[0]

    def begin(self) -> None:
        """Open the first answer, in the first mode that the model supports."""
        try:
            self.chat_stream(self._asked)
        except BaseException:
            self._unbind()
            raise

    def stream(self) -> ChatStream:
        """The values as a stream that closes the connection at its end. It does not refer to the StructuredStream."""
        return ChatStream(
            self.values(),
            token=self._token,
            release=self.release,
            drop=lambda: drop_connection(self._inner),
            provider=self.name,
            model=self.model,
        )

    def release(self) -> None:
        self._unbind()
        inner, self._inner = self._inner, None
        if inner is not None:
            inner.close()

    @without_our_frames
    def chat_stream(self, req: ChatRequest) -> None:
        """Open an answer. Errors get the treatment of every model's ``chat_stream``."""
        variants = [(mode, asked) for mode in self._modes for asked in variants_for(self.answer, mode, req)]
        for index, (mode, asked) in enumerate(variants):
            self._modes = (mode,)
            try:
                with self._token:
                    self._inner = opened(self._model.chat_stream(asked))
                break
            except UnsupportedContentError:
                if index == len(variants) - 1:
                    raise
        self._asked = req
        self.response = response_of(self._inner)

    def values(self) -> Iterator[Any]:
        """The growing values of each answer; at the end of the last one, ``value`` is set or OutputError is raised."""
        while True:
            so_far = TurnSoFar()
            heard = _Heard(self.answer, tool_name(self.answer, self._asked) if self.mode == "tool" else None)
            yield from self._growing(so_far, heard)
            self.turn = so_far.turn()
            failure: OutputError | None = None
            try:
                data, value = self.answer.judge(self.turn, heard.text(self.turn), heard.result)
            except OutputError as error:
                failure = error
            if failure is None:
                if heard.shown is NOTHING or heard.shown != data:  # it came at once, or without a known key
                    yield copy.deepcopy(data)  # ``value`` may contain ``data``, and the caller may change what it gets
                self.value = value
                return
            try:
                self._ask_again_or_raise(failure)
            finally:
                del failure  # contract/frames.py says why

    def _ask_again_or_raise(self, failure: OutputError) -> None:
        if not self._repairs or not can_be_repaired(failure):
            failure.provider, failure.model = self.name, self.model
            failure.request_id = self.response.request_id
            raise failure
        self._repairs -= 1
        assert self.turn is not None
        self.chat_stream(asking_again(self._asked, self.turn, failure, self.mode))

    def _growing(self, so_far: TurnSoFar, heard: _Heard) -> Iterator[Any]:
        inner = self._inner
        assert inner is not None
        try:
            with so_far, closing(inner):
                with self._token:
                    first = next(inner, None)  # a generator of a third party opens its connection here
                for chunk in itertools.chain(() if first is None else (first,), inner):
                    so_far.add(chunk)
                    if heard.has_grown(chunk):
                        yield heard.shown
        finally:
            self._inner = None


class _Heard:
    """What one answer has said: the growing value, and the text for errors.

    Args:
        tool: the name of the tool whose arguments are the answer; None if the text is.
    """

    def __init__(self, answer: Answer, tool: str | None) -> None:
        self.shown: Any = NOTHING
        self._reader = AnswerReader(answer)
        self._tool = tool
        self._call_id: str | None = None
        self._raw: list[str] = []  # of the arguments
        self._end: ToolCallFinished | ToolCallMalformed | None = None

    def has_grown(self, chunk: StreamChunk) -> bool:
        """Hear a chunk. True if ``shown`` has grown."""
        if self._tool is None:
            if not isinstance(chunk, TextDelta) or not self._reader.feed(chunk.delta):
                return False
        elif not self._has_grown_by_call(chunk):
            return False
        self.shown = self._reader.value
        return True

    def _has_grown_by_call(self, chunk: StreamChunk) -> bool:
        if isinstance(chunk, ToolCallArgsDelta) and chunk.call_id == self._call_id:
            self._raw.append(chunk.delta)
            return self._reader.feed(chunk.delta)
        if isinstance(chunk, ToolCallStarted) and self._call_id is None and chunk.name == self._tool:
            self._call_id = chunk.call_id
        elif (
            isinstance(chunk, ToolCallFinished | ToolCallMalformed)
            and self._end is None
            and chunk.name == self._tool
            and chunk.call_id == (self._call_id or chunk.call_id)
        ):
            self._end = chunk
        return False

    def text(self, turn: Turn) -> str:
        """What the model wrote: the text, or the raw arguments."""
        if self._tool is None:
            return turn.text
        if isinstance(self._end, ToolCallMalformed):
            return self._end.raw
        if self._raw or self._end is None:
            return "".join(self._raw) or turn.text
        return json.dumps(self._end.args, ensure_ascii=False)

    def result(self) -> Any:
        """The data of the answer. Raises ValueError with the problems."""
        if self._tool is None:
            return self._reader.result()
        if isinstance(self._end, ToolCallMalformed):
            raise ValueError(f"the arguments are not valid: {self._end.error}")
        if self._end is None:
            raise ValueError(f"the model did not call the tool {self._tool}")
        return without_halves(self._end.args)
