"""What is checked: new models of the factory, the servers that they talk to, and calls that may never return."""

from __future__ import annotations

import inspect
import secrets
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from completion.contract.chunks import StreamChunk
from completion.contract.model import CompletionModel
from completion.contract.request import ChatRequest
from completion.contract.stream import closable
from completion.testing.conformance.answers import Answer, Answers
from completion.testing.replies import Reply
from completion.testing.server import ProviderServer

_MAX_CHUNKS = 100_000

Stream = Generator[StreamChunk, None, None]


class ThreadedCall(threading.Thread):
    """A call in its own daemon thread: it may block forever without blocking the kit."""

    def __init__(self, call: Callable[[], Any]) -> None:
        super().__init__(name="conformance", daemon=True)
        self._call: Callable[[], Any] | None = call
        self.result: Any = None
        self.error: BaseException | None = None
        self.start()

    def run(self) -> None:
        assert self._call is not None
        try:
            self.result = self._call()
        except BaseException as error:
            self.error = error
        finally:
            self._call = None  # the call may refer to a stream that a check wants to drop

    def ended_within(self, seconds: float) -> bool:
        self.join(seconds)
        return not self.is_alive()


class Subject:
    """The factory and the request. ``answers`` is None for models that do not talk to a server of the kit."""

    def __init__(self, factory: Callable[..., CompletionModel], answers: Answers | None, request: ChatRequest) -> None:
        if not callable(factory):
            raise TypeError(f"the factory must be a function, got {type(factory).__name__}: give lambda: MyModel(...)")
        if answers is None and _needs_arguments(factory):
            raise TypeError("the factory must accept a call without arguments, or give answer=… to get a server")
        self.request = request
        self.key = f"sk-conformance-{secrets.token_hex(16)}"
        self.chunks: list[StreamChunk] = []
        """The chunks of a complete answer, read before the other checks."""
        self.events_to_first_chunk = 0
        """How many events of the answer it takes to get a chunk; 0 if no chunk comes before the last event."""
        self.hung_checks = 0
        """How many checks did not end in time."""
        self._factory = factory
        self._answers = answers
        self._accepted = None if answers is None else _parameters(factory)
        self._servers: list[ProviderServer] = []

    def answers(self, word: str) -> Answer:
        assert self._answers is not None
        return self._answers(word)

    @property
    def has_server(self) -> bool:
        return self._answers is not None

    @property
    def answer(self) -> Answer:
        return self.answers("Hello")

    def model(self, url: str = "") -> CompletionModel:
        """A new model; the URL is used only if there are answers."""
        if self._accepted is None:
            return self._factory()
        given = {"base_url": url, "api_key": self.key}
        by_name = {name: given[name] for name in given if name in self._accepted}
        return self._factory(**by_name) if "base_url" in by_name else self._factory(url, **by_name)

    def open(self, model: CompletionModel) -> Stream:
        return closable(model.chat_stream(self.request))

    def read(self, model: CompletionModel) -> list[StreamChunk]:
        """The chunks of a complete answer."""
        return read_all(self.open(model))

    @contextmanager
    def serving(self, *replies: Reply, always: Reply | None = None) -> Iterator[tuple[ProviderServer, CompletionModel]]:
        """A server with these replies, and a new model that talks to it."""
        with ProviderServer() as server:
            self._servers.append(server)
            server.reply(*replies)
            if always is not None:
                server.always(always)
            yield server, self.model(server.url)

    @contextmanager
    def answering(self) -> Iterator[CompletionModel]:
        """A new model that answers any number of requests."""
        if self._answers is None:
            yield self.model()
        else:
            with self.serving(always=self.answer.complete()) as (_, model):
                yield model

    def release(self) -> None:
        """Stop the servers of a check that hangs. Most of its threads wait for a server, and end with it."""
        self.hung_checks += 1
        for server in self._servers:
            server.stop()
        self._servers.clear()


def read_all(stream: Iterable[StreamChunk]) -> list[StreamChunk]:
    """All chunks.

    Raises:
        AssertionError: the stream does not end.
    """
    chunks = []
    for chunk in stream:
        chunks.append(chunk)
        if len(chunks) > _MAX_CHUNKS:
            raise AssertionError(f"the stream has not ended after {_MAX_CHUNKS} chunks")
    return chunks


def read_until_error(stream: Iterable[StreamChunk]) -> tuple[list[StreamChunk], Exception | None]:
    """The chunks, and the error that next() raised after them."""
    chunks: list[StreamChunk] = []
    try:
        for chunk in stream:
            chunks.append(chunk)
            if len(chunks) > _MAX_CHUNKS:
                break
    except Exception as error:
        return chunks, error
    return chunks, None


def _needs_arguments(factory: Callable[..., CompletionModel]) -> bool:
    try:
        inspect.signature(factory).bind()
    except TypeError:
        return True
    except ValueError:  # a builtin without a signature
        return False
    return False


def _parameters(factory: Callable[..., CompletionModel]) -> set[str]:
    """Which of ``base_url`` and ``api_key`` the factory accepts by name. Without ``base_url`` the URL is positional.

    Raises:
        TypeError: it accepts no URL.
    """
    both = {"base_url", "api_key"}
    try:
        parameters = inspect.signature(factory).parameters.values()
    except ValueError:  # a builtin without a signature
        return both
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return both
    by_name = {parameter.name for parameter in parameters if parameter.kind is not parameter.POSITIONAL_ONLY} & both
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    others = [parameter for parameter in parameters if parameter.kind in positional and parameter.name not in by_name]
    if "base_url" not in by_name and len(others) != 1:
        raise TypeError("with answer= the factory must accept the URL of a server: factory(base_url=…, api_key=…)")
    return by_name
