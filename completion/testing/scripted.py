"""A model that answers from a script, for tests of code that uses a CompletionModel.

with ScriptedModel("Hello there!", RateLimitError("slow down")) as model:
    assert model.chat_stream(ChatRequest("Hi")).collect().text == "Hello there!"
    ...                           # the second call raises; the end of the block asserts that no script is left
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
from completion.engine.size import guess_request
from completion.testing.replies import Pause, WaitFor

Step = StreamChunk | Exception | Pause | WaitFor
"""A chunk to yield, an error for ``next()`` to raise, or a delay, which ``cancel()`` ends."""

Script = str | Exception | Sequence[Step]
"""One turn: a text (yielded word by word), an error for the call to raise, or steps."""

_POLL_S = 0.01


class ScriptedModel:
    """A CompletionModel that plays one script for each call, in order. Thread-safe.

    ``requests`` records the requests. Steps without a TurnFinished at the end raise TruncatedStreamError, as every
    adapter must. As a context manager it checks at the end that no script is left.
    """

    def __init__(self, *scripts: Script, name: str = "scripted", model: str = "scripted-1") -> None:
        self.name = name
        self.model = model
        self.requests: list[ChatRequest] = []
        self._scripts = deque(scripts)
        self._size = len(scripts)

    @property
    def remaining(self) -> int:
        """How many scripts have not been played yet."""
        return len(self._scripts)

    def chat_stream(self, req: ChatRequest | str) -> ChatStream:
        """The next script as a stream.

        Raises:
            AssertionError: no script is left.
            TypeError: ``req`` is neither a ChatRequest nor a str.
            Exception: the script itself, if it is an error.
        """
        req = as_request(req)
        req.check_tool_choice()
        self.requests.append(req)
        try:
            script = self._scripts.popleft()
        except IndexError:
            raise AssertionError(
                f"ScriptedModel was called {len(self.requests)} times but has {self._size} scripts: give one for each"
            ) from None
        if isinstance(script, Exception):
            raise script
        token, unbind = CancelToken.bound_to_current()
        if token.cancelled:
            raise stream_cancelled(self.name, self.model)
        steps = _steps_of(script) if isinstance(script, str) else script
        return ChatStream(_chunks(steps, token), token=token, release=unbind, provider=self.name, model=self.model)

    def count_tokens(self, req: ChatRequest | str) -> int:
        """A guess without a tokenizer: about four bytes of UTF-8 per token. No script is used up."""
        return round(guess_request(as_request(req)))

    def check_used_up(self) -> None:
        """Raise AssertionError if a script is left."""
        if self._scripts:
            raise AssertionError(
                f"ScriptedModel was called {len(self.requests)} times: {len(self._scripts)} of its "
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


def _steps_of(text: str) -> list[Step]:
    """A delta for each word of the text, and the end of turn."""
    deltas: list[Step] = [TextDelta(word) for word in re.findall(r"\s*\S+|\s+", text)]
    return [*deltas, TurnFinished(FinishReason.END_TURN, provider_reason="stop")]


def _chunks(steps: Sequence[Step], token: CancelToken) -> Iterator[StreamChunk]:
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
        token.sleep(_POLL_S)
