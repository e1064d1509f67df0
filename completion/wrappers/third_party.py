"""A third party's model, with the ChatStream that all of our models return."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from completion.contract.checks import require_model
from completion.contract.chunks import StreamChunk
from completion.contract.model import CompletionModel
from completion.contract.request import ChatRequest, as_request
from completion.contract.stream import ChatStream, without_our_frames
from completion.wrappers.attempts import Attempts, is_retried
from completion.wrappers.named_after import CountsTokens


class ThirdPartyModel(CountsTokens):
    """Any CompletionModel. Its ``chat_stream`` may return a plain generator; this one returns a ChatStream.

    Other attributes are those of the inner model.

    Raises:
        TypeError: ``inner`` is not a model.
    """

    def __init__(self, inner: CompletionModel) -> None:
        require_model(inner, "completion.model")
        self.inner = self._named_after = inner

    @without_our_frames
    def chat_stream(self, req: ChatRequest | str) -> ChatStream:
        """The stream of the inner model. Raises what the inner model raises; a string is one user message."""
        return _Call(self.inner, as_request(req)).stream()

    def __getattr__(self, attribute: str) -> Any:
        # Python also asks an object without attributes, which pickle and copy make: `inner` would recurse.
        if attribute.startswith("__") or attribute == "inner":
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {attribute!r}")
        return getattr(self.inner, attribute)

    def __reduce__(self) -> tuple[type[ThirdPartyModel], tuple[CompletionModel]]:
        return ThirdPartyModel, (self.inner,)

    def __repr__(self) -> str:
        return repr(self.inner)


class _Call(Attempts):
    """One attempt. A generator opens its connection at the first ``next()``, which Attempts calls under our token."""

    def __init__(self, inner: CompletionModel, req: ChatRequest) -> None:
        super().__init__(inner.name, inner.model, retries=is_retried.get())
        self._inner = inner
        self._req = req

    def call(self) -> Iterator[StreamChunk]:
        return self._inner.chat_stream(self._req)

    def should_try_again(self, error: Exception, *, was_open: bool) -> bool:
        return False
