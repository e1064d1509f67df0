"""Shared by tests against a loopback server: the bytes of a Chat Completions turn, and a model for the server."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, Literal

import pytest

from completion import ChatRequest, ChatStream, CompletionError, OpenAIModel, TextDelta, Timeout
from completion.testing import ProviderServer, event

Framing = Literal["chunked", "length", "close"]
FRAMINGS: Final[tuple[Framing, ...]] = ("chunked", "length", "close")

HI: Final = ChatRequest("Hi")
KEY: Final = "sk-very-secret-0123456789"

FINISH: Final = event({"id": "c1", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
DONE: Final = event("[DONE]")
END: Final = FINISH + DONE
PATIENCE_S: Final = 10.0
"""How many seconds a test waits for something that must happen."""


def text(delta: str) -> bytes:
    return event({"id": "c1", "choices": [{"index": 0, "delta": {"content": delta}}]})


def model_at(url: str, **options: Any) -> OpenAIModel:
    return OpenAIModel("m", **{"base_url": url, "api_key": KEY, "timeout": Timeout(read=PATIENCE_S), **options})


def model_of(server: ProviderServer, **options: Any) -> OpenAIModel:
    return model_at(server.url, **options)


def failure_of(call: Callable[[], Any]) -> CompletionError:
    """The error that the call raises."""
    with pytest.raises(CompletionError) as caught:
        call()
    return caught.value


def first_text(stream: ChatStream) -> str:
    chunk = next(stream)
    assert isinstance(chunk, TextDelta)
    return chunk.delta


class Caught(threading.Thread):
    """Calls a function in a thread of its own, and keeps its result or its error."""

    def __init__(self, call: Callable[[], Any]) -> None:
        super().__init__(daemon=True)
        self._call = call
        self.result: Any = None
        self.error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self.result = self._call()
        except BaseException as error:
            self.error = error

    def within(self, seconds: float) -> Caught:
        self.join(seconds)
        assert not self.is_alive(), f"the call still runs after {seconds} s"
        return self


@contextmanager
def silent_listener(*, backlog: int = 16) -> Iterator[int]:
    """The port of a listener that accepts connections and never sends a byte."""
    with socket.create_server(("127.0.0.1", 0), backlog=backlog) as listener:
        yield listener.getsockname()[1]
