"""A model whose calls are traced without a run."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Any

from completion.contract.cancel import CancelToken
from completion.contract.checks import require_model
from completion.contract.chunks import StreamChunk
from completion.contract.errors import StreamCancelledError
from completion.contract.model import CompletionModel
from completion.contract.request import ChatRequest, as_request
from completion.contract.stream import ChatStream, Chunks, ResponseInfo, response_of, without_our_frames
from completion.engine.middleware import base_url_of
from completion.otel.attributes import _is_content_wanted, _present
from completion.otel.spans import _Chat, _harmless, _instruments, _out_of_finalizers

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
    """The model, with a span and the metrics for each stream; for use without the engine.

    Around a RetryingModel, the span covers all attempts. A stream that was left before its end has a span without
    finish reasons and without an error.

    Args:
        model: any CompletionModel.
        tracer_provider, meter_provider, capture_content, conversation_id, times_chunks: as for OpenTelemetry.

    Raises:
        ConfigurationError: the package opentelemetry-api is not installed.
        TypeError: this is no model.
    """
    require_model(model, "traced")
    _instruments(tracer_provider, meter_provider)
    return TracedModel(
        model,
        (tracer_provider, meter_provider),
        _present({"gen_ai.conversation.id": conversation_id}),
        is_content_wanted=_is_content_wanted(capture_content),
        times_chunks=times_chunks,
    )


class TracedModel:
    """Made by ``traced``."""

    def __init__(
        self,
        inner: CompletionModel,
        providers: tuple[TracerProvider | None, MeterProvider | None],
        conversation: dict[str, Any],
        *,
        is_content_wanted: bool,
        times_chunks: bool,
    ) -> None:
        self.inner = inner
        self._providers = providers
        self._conversation = conversation
        self._is_content_wanted = is_content_wanted
        self._times_chunks = times_chunks

    @property
    def name(self) -> str:
        """The adapter family of the inner model."""
        return self.inner.name

    @property
    def model(self) -> str:
        """The id that the inner model is bound to."""
        return self.inner.model

    @without_our_frames
    def chat_stream(self, req: ChatRequest | str) -> ChatStream:
        """The stream of the inner model. Raises as that does."""
        req = as_request(req)
        req.check_tool_choice()
        chat = self._begun(req)
        if chat is None:
            stream = self.inner.chat_stream(req)
            return stream if isinstance(stream, ChatStream) else ChatStream(stream)
        token, untie = CancelToken.bound()
        try:
            with token, chat.current():
                stream = self.inner.chat_stream(req)
        except BaseException as error:
            untie()
            chat.fail(error)
            raise
        return _TracedStream(stream, chat, token, untie)

    def _begun(self, req: ChatRequest) -> _Chat | None:
        with _harmless():
            return _Chat(
                _instruments(*self._providers), (self.name, self.model), lambda: base_url_of(self.inner), req,
                self._conversation, is_content_wanted=self._is_content_wanted, times_chunks=self._times_chunks,
            )  # fmt: skip
        return None

    def __getstate__(self) -> dict[str, Any]:
        """On the other side of a pickle are other providers: the global ones."""
        return {**self.__dict__, "_providers": (None, None)}

    def __repr__(self) -> str:
        return f"traced({self.inner!r})"


class _TracedStream(ChatStream):
    """The chunks of another stream. The span ends with its TurnFinished, with its error, or when it is left."""

    def __init__(self, stream: Chunks, chat: _Chat, token: CancelToken, untie: Callable[[], None]) -> None:
        self._inner = stream
        self._chat = chat
        provider, model = chat.origin
        super().__init__(
            _watched(stream, chat, token),
            token=token,
            release=untie,
            drop=functools.partial(_drop, stream, chat),
            provider=provider,
            model=model,
        )

    @property
    def response(self) -> ResponseInfo:
        """That of the inner stream; a RetryingModel may yet get another one."""
        return response_of(self._inner)

    @response.setter
    def response(self, response: ResponseInfo) -> None:
        pass

    def _end(self) -> None:
        super()._end()
        chat, error_type = self._chat, StreamCancelledError.__name__ if self._token.cancelled else None
        try:
            self._inner.close()
        finally:
            if chat.is_dropped and not chat.is_over:
                _out_of_finalizers(lambda: chat.end(error_type))
            else:
                chat.end(error_type)


def _drop(stream: Chunks, chat: _Chat) -> None:
    chat.is_dropped = True
    drop = getattr(stream, "_drop", None)
    if drop is not None:
        drop()


def _watched(stream: Chunks, chat: _Chat, token: CancelToken) -> Iterator[StreamChunk]:
    try:
        with closing(stream):
            with token, chat.current():
                first = next(stream, None)  # which may yet open a connection
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
