"""A model whose streams are traced, without a run.

    traced(model) -> TracedModel            chat_stream() -> the chunks of the model, inside the span ``chat {model}``

The span ends with the TurnFinished, with the error, or when the stream is closed or dropped.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Any

from completion.contract.cancel import CancelToken
from completion.contract.checks import require_model
from completion.contract.chunks import StreamChunk
from completion.contract.errors import StreamCancelledError
from completion.contract.model import CompletionModel
from completion.contract.request import ChatRequest, as_request
from completion.contract.stream import (
    ChatStream,
    ResponseInfo,
    closable,
    drop_connection,
    response_of,
    without_our_frames,
)
from completion.engine.middleware import base_url_of
from completion.otel.attributes import captures_content, without_none
from completion.otel.spans import ChatOperation, log_failures, make_instruments, run_outside_finalizer
from completion.wrappers.named_after import CountsTokens

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider


def traced(
    model: CompletionModel,
    *,
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
    capture_content: bool | None = None,
    conversation_id: str | None = None,
    times_chunks: bool = True,
) -> TracedModel:
    """The model, with a span and metrics for each stream.

    Around a RetryingModel, the span covers all attempts. The span of a stream that was closed early has neither finish
    reasons nor an error.

    Args:
        model: any CompletionModel.
        tracer_provider, meter_provider, capture_content, conversation_id, times_chunks: as for OpenTelemetry.

    Raises:
        ConfigurationError: the package opentelemetry-api is not installed.
        TypeError: this is not a model.
    """
    require_model(model, "traced")
    make_instruments(tracer_provider, meter_provider)  # raises here what would otherwise be logged at each call
    return TracedModel(
        model,
        (tracer_provider, meter_provider),
        without_none({"gen_ai.conversation.id": conversation_id}),
        captures_content=captures_content(capture_content),
        times_chunks=times_chunks,
    )


class TracedModel(CountsTokens):
    """The model that ``traced`` returns."""

    def __init__(
        self,
        inner: CompletionModel,
        providers: tuple[TracerProvider | None, MeterProvider | None],
        conversation: dict[str, Any],
        *,
        captures_content: bool,
        times_chunks: bool,
    ) -> None:
        self.inner = self._named_after = inner
        self._providers = providers
        self._conversation = conversation
        self._captures_content = captures_content
        self._times_chunks = times_chunks

    @without_our_frames
    def chat_stream(self, req: ChatRequest | str) -> ChatStream:
        """The stream of the inner model. Raises what the inner model raises."""
        req = as_request(req)
        req.check_tool_choice()
        chat = self._begin(req)
        if chat is None:
            stream = self.inner.chat_stream(req)
            return stream if isinstance(stream, ChatStream) else ChatStream(stream)
        token, unbind = CancelToken.bound_to_current()
        try:
            with token, chat.current():
                stream = self.inner.chat_stream(req)
        except BaseException as error:
            unbind()
            chat.fail(error)
            raise
        return _TracedStream(closable(stream), chat, token, unbind)

    def _begin(self, req: ChatRequest) -> ChatOperation | None:
        with log_failures():
            return ChatOperation(
                make_instruments(*self._providers), (self.name, self.model), lambda: base_url_of(self.inner), req,
                self._conversation, captures_content=self._captures_content, times_chunks=self._times_chunks,
            )  # fmt: skip
        return None

    def __getstate__(self) -> dict[str, Any]:
        """Providers do not pickle: the copy uses the global ones of its process."""
        return {**self.__dict__, "_providers": (None, None)}

    def __repr__(self) -> str:
        return f"traced({self.inner!r})"


class _TracedStream(ChatStream):
    """The chunks of the inner stream. Every end of this stream ends the span too."""

    def __init__(
        self,
        stream: Generator[StreamChunk, None, None],
        chat: ChatOperation,
        token: CancelToken,
        unbind: Callable[[], None],
    ) -> None:
        self._inner = stream
        self._chat = chat
        provider, model = chat.origin
        super().__init__(
            _chunks(stream, chat, token),
            token=token,
            release=unbind,
            drop=functools.partial(_drop, stream, chat),
            provider=provider,
            model=model,
        )

    @property
    def response(self) -> ResponseInfo:
        """The response of the inner stream; a RetryingModel may replace it at its next attempt."""
        return response_of(self._inner)

    @response.setter
    def response(self, response: ResponseInfo) -> None:
        """Ignored: the constructor of ChatStream sets a response, and the inner stream has the real one."""

    def _end(self) -> None:
        super()._end()
        chat = self._chat
        kind = StreamCancelledError.__name__ if self._token.cancelled else None
        try:
            self._inner.close()
        finally:
            if chat.is_dropped and not chat.is_over:
                run_outside_finalizer(lambda: chat.end(kind))
            else:
                chat.end(kind)


def _drop(stream: Iterator[StreamChunk], chat: ChatOperation) -> None:
    """Called by the garbage collector before ``_end``: mark the span, so that ``_end`` ends it in another thread."""
    chat.is_dropped = True
    drop_connection(stream)


def _chunks(
    stream: Generator[StreamChunk, None, None], chat: ChatOperation, token: CancelToken
) -> Iterator[StreamChunk]:
    try:
        with closing(stream):
            with token, chat.current():
                first = next(stream, None)  # a RetryingModel may open another connection here
            if first is not None:
                chat.add(first)
                yield first
            for chunk in stream:
                chat.add(chunk)
                yield chunk
    except GeneratorExit:
        raise
    except BaseException as error:
        chat.fail(error)
        raise
