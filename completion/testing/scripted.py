"""A model that answers from a script, for tests of whatever stands on a CompletionModel.

with ScriptedModel("Hello there!", RateLimitError("slow down")) as model:
    assert model.chat_stream(ChatRequest("Hi")).collect().text == "Hello there!"
    ...                                    # the second call raises; leaving asserts that all was asked for
"""

from __future__ import annotations

import re
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from types import TracebackType

from completion.contract.cancel import CancelToken
from completion.contract.chunks import FinishReason, StreamChunk, TextDelta, TurnFinished
from completion.contract.errors import TruncatedStreamError, stream_cancelled
from completion.contract.request import ChatRequest, as_request
from completion.contract.stream import ChatStream
from completion.testing.replies import Pause, WaitFor

Step = StreamChunk | Exception | Pause | WaitFor
"""A chunk to yield, an error for ``next()`` to raise, or a delay (which ``cancel()`` ends)."""

Script = str | Exception | Sequence[Step]
"""One turn: a text (given out word by word), an error for the call itself to raise, or steps."""

_POLL_SECONDS = 0.01


class ScriptedModel:
    """A CompletionModel that plays one script a call, in order. Thread-safe.

    ``requests`` records what it was asked. Steps that end without a TurnFinished raise TruncatedStreamError, as any
    adapter must. As a context manager it checks at the end that its scripts were used up.
    """

    def __init__(self, *scripts: Script, name: str = "scripted", model: str = "scripted-1") -> None:
        self.name = name
        self.model = model
        self.requests: list[ChatRequest] = []
        self._scripts = deque(scripts)
        self._size = len(scripts)

    @property
    def remaining(self) -> int:
        """How many scripts nobody has asked for yet."""
        return len(self._scripts)

    def chat_stream(self, req: ChatRequest | str) -> ChatStream:
        """The next script as a stream.

        Raises:
            AssertionError: there is none left.
            TypeError: ``req`` is no ChatRequest.
            Exception: the script is an error.
        """
        req = as_request(req)
        req.check_tool_choice()
        self.requests.append(req)
        try:
            script = self._scripts.popleft()
        except IndexError:
            raise AssertionError(
                f"ScriptedModel was called {len(self.requests)} times and has {self._size} scripts"
            ) from None
        if isinstance(script, Exception):
            raise script
        token, unbind = CancelToken.bound()
        if token.cancelled:
            raise stream_cancelled(self.name, self.model)
        steps = _words(script) if isinstance(script, str) else script
        return ChatStream(_played(steps, token), token=token, release=unbind, provider=self.name, model=self.model)

    def check_used_up(self) -> None:
        """Raise AssertionError if a script is left over."""
        if self._scripts:
            raise AssertionError(
                f"ScriptedModel was called {len(self.requests)} times, {len(self._scripts)} of its "
                f"{self._size} scripts are left"
            )

    def __enter__(self) -> ScriptedModel:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.check_used_up()

    def __repr__(self) -> str:
        return f"ScriptedModel({self.remaining} of {self._size} scripts left)"


def _words(text: str) -> list[Step]:
    """The text in deltas of one word each, and a good end."""
    deltas: list[Step] = [TextDelta(word) for word in re.findall(r"\s*\S+|\s+", text)]
    return [*deltas, TurnFinished(FinishReason.END_TURN, provider_reason="stop")]


def _played(steps: Sequence[Step], token: CancelToken) -> Iterator[StreamChunk]:
    ended = False
    for step in steps:
        match step:
            case Exception():
                raise step
            case Pause(seconds):
                token.sleep(seconds)
            case WaitFor(event, timeout):
                _wait(event, timeout, token)
            case _:
                ended = isinstance(step, TurnFinished)
                yield step
    if not ended:
        raise TruncatedStreamError("the script ended without a TurnFinished")


def _wait(event: threading.Event, timeout: float, token: CancelToken) -> None:
    ends_at = time.monotonic() + timeout
    while not event.is_set():
        if time.monotonic() > ends_at:
            raise AssertionError(f"the event of a WaitFor was not set within {timeout:g} s")
        token.sleep(_POLL_SECONDS)
