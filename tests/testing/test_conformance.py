"""The conformance kit: our own models keep every promise, and each broken promise is reported by its name."""

from __future__ import annotations

import http.client
import json
import logging
import threading
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

import pytest

from completion import (
    AnthropicClient,
    AnthropicFoundryModel,
    AnthropicMantleModel,
    AnthropicModel,
    AnthropicVertexModel,
    AzureOpenAIModel,
    CancelToken,
    ChatRequest,
    ChatStream,
    Chunk,
    CohereModel,
    CompletionModel,
    FallbackModel,
    FinishReason,
    GeminiInteractionsModel,
    GeminiModel,
    LocalModel,
    OllamaModel,
    OpenAIModel,
    OpenAIResponsesModel,
    OverloadedError,
    Permanent,
    ProviderBlockFinished,
    ReasoningDelta,
    ResponseInfo,
    RetryConfig,
    RetryingModel,
    StreamChunk,
    TextDelta,
    ToolCallArgsDelta,
    ToolCallFinished,
    ToolCallMalformed,
    ToolCallStarted,
    Transient,
    TransportError,
    TruncatedStreamError,
    TurnFinished,
    Usage,
)
from completion.testing import Pause, ProviderServer, Reply, ScriptedModel, check_completion_model, conformance, event
from tests.loopback import FINISH, text

HELD: list[Any] = []
"""What the models of a test keep open. It is closed after the test."""

END = TurnFinished(FinishReason.END_TURN)
QUICK = RetryConfig(max_attempts=2, base_delay=0, max_retry_after=0.5)
SCRIPTS = ["Hello there, you!"] * 30

Chunks = Generator[StreamChunk, None, None]


def broken_promises(factory: Callable[..., CompletionModel], **options: Any) -> dict[str, str]:
    """The broken promises, with the line of the error for each."""
    try:
        check_completion_model(factory, **options)
    except AssertionError as error:
        known = [conformance.ANSWERS, *conformance.PROMISES, *conformance.PROMISES_OF_THE_WIRE]
        lines = [line.removeprefix("- ") for line in str(error).splitlines()[1:]]
        return {promise: line for line in lines for promise in known if line.startswith(f"{promise}: ")}
    return {}


# --- models that keep the contract -------------------------------------------------------------------------------


def vertex(base_url: str, api_key: str) -> AnthropicVertexModel:
    return AnthropicVertexModel("m", project_id="p", region="global", base_url=base_url, access_token=api_key)


def openai(base_url: str, api_key: str) -> OpenAIModel:
    return OpenAIModel("m", base_url=base_url, api_key=api_key)


@pytest.mark.parametrize(
    ("factory", "wire"),
    [
        (openai, "openai-chat"),
        (lambda **options: AzureOpenAIModel("m", **options), "openai-chat"),
        (lambda **options: AzureOpenAIModel("m", api_version="2024-10-21", **options), "openai-chat"),
        (lambda **options: AnthropicModel("m", **options), "anthropic"),
        (lambda **options: AnthropicFoundryModel("m", **options), "anthropic"),
        (lambda **options: AnthropicMantleModel("m", **options), "anthropic"),
        (vertex, "anthropic"),
        (lambda **options: OpenAIResponsesModel("m", **options), "openai-responses"),
        (lambda **options: GeminiModel("m", **options), "gemini"),
        (lambda **options: GeminiInteractionsModel("m", **options), "gemini-interactions"),
        (lambda **options: OllamaModel("m", **options), "ollama"),
        (lambda **options: CohereModel("m", **options), "cohere"),
        (lambda **options: RetryingModel(openai(**options), QUICK), "openai-chat"),
        (lambda **options: FallbackModel([openai(**options), openai(**options)]), "openai-chat"),
    ],
    ids=[
        *("openai", "azure", "azure, dated", "anthropic", "foundry", "mantle", "vertex", "openai-responses", "gemini"),
        *("gemini-interactions", "ollama", "cohere", "retrying", "fallback"),
    ],
)
def test_our_models_keep_the_contract_on_the_wire(factory: Callable[..., CompletionModel], wire: str) -> None:
    check_completion_model(factory, answer=wire)


@pytest.mark.parametrize(
    "factory",
    [
        lambda: ScriptedModel(*SCRIPTS),
        lambda: RetryingModel(ScriptedModel(*SCRIPTS)),
        lambda: FallbackModel([ScriptedModel(*SCRIPTS)]),
        lambda: RetryingModel(Parrot()),
    ],
    ids=["scripted", "retrying", "fallback", "retrying a plain generator"],
)
def test_models_without_a_server_keep_the_contract(factory: Callable[[], CompletionModel]) -> None:
    check_completion_model(factory)


def test_the_embedded_model_keeps_the_contract(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conformance, "_CHECK_S", 60.0)  # on a busy machine four answers take longer than ten seconds
    check_completion_model(LocalModel, request=ChatRequest("Hi", max_tokens=8, temperature=0.0, seed=1))


class Parrot:
    """Repeats the prompt, or yields the given chunks. Its streams are plain generators."""

    name = "parrot"
    model = "parrot-1"

    def __init__(self, *chunks: Any) -> None:
        self._given = chunks

    def chat_stream(self, req: ChatRequest) -> Chunks:
        return self.chunks(req.messages[0].text)

    def chunks(self, text: str) -> Chunks:
        yield from self._given or (TextDelta(text), TextDelta("!"), END)


def test_a_plain_generator_keeps_the_contract() -> None:
    check_completion_model(Parrot)


class TinyError(Exception):
    """An error that is not one of ours."""

    def __init__(self, message: str, verdict: Permanent | Transient) -> None:
        super().__init__(message, verdict)
        self.verdict = verdict

    def retry_classification(self) -> Permanent | Transient:
        return self.verdict


class TinyModel:
    """A third-party adapter for its own wire: any number of {"text": "…"}, then {"end": true}."""

    name = "tiny"
    model = "tiny-1"
    path = "/chat"

    def __init__(self, base_url: str, api_key: str) -> None:
        self._host = urlsplit(base_url).netloc
        self._key = api_key

    def chat_stream(self, req: ChatRequest) -> Chunks:
        connection = http.client.HTTPConnection(self._host, timeout=5)
        stream: Chunks = self.primed(connection, self.response(connection, req.messages[0].text))
        next(stream)  # a generator that has not begun would not close anything
        return stream

    def response(self, connection: http.client.HTTPConnection, text: str) -> http.client.HTTPResponse:
        try:
            connection.request("POST", self.path, text, {"Authorization": self._key})
            response = connection.getresponse()
        except OSError as exc:
            connection.close()
            raise TinyError("no connection", Transient()) from self.cause(exc)
        if response.status != 200 or not self.is_stream(response):
            error = self.refusal(response)
            self.let_go(error, connection, response)
            raise error
        return response

    def cause(self, exc: OSError) -> OSError | None:
        return None

    def is_stream(self, response: http.client.HTTPResponse) -> bool:
        return response.getheader("content-type") == "text/event-stream"

    def refusal(self, response: http.client.HTTPResponse) -> TinyError:
        after = response.getheader("retry-after")
        is_transient = response.status in (429, 500)
        verdict = Transient(float(after) if after else None) if is_transient else Permanent()
        return TinyError(f"refused with {response.status}", verdict)

    def let_go(self, error: TinyError | None, *held: Any) -> None:
        for thing in held:
            thing.close()

    def primed(self, connection: http.client.HTTPConnection, response: http.client.HTTPResponse) -> Any:
        try:
            yield
            yield from self.chunks(response)
        except (OSError, http.client.HTTPException):
            raise TinyError("the connection broke", Transient()) from None
        except TinyError as error:
            raise error.with_traceback(None) from None  # without the locals that hold what the server said
        finally:
            self.let_go(None, response, connection)

    def chunks(self, response: http.client.HTTPResponse) -> Iterator[StreamChunk]:
        for line in self.lines(response):
            if line.startswith(b"data: "):
                fields = self.parsed(line)
                if "end" in fields:
                    yield END
                    return
                yield TextDelta(fields["text"])
        raise self.early_end()

    def lines(self, response: http.client.HTTPResponse) -> Iterator[bytes]:
        return iter(response)

    def parsed(self, line: bytes) -> Any:
        try:
            return json.loads(line[6:])
        except ValueError:
            raise TinyError("bad JSON", Permanent()) from None

    def early_end(self) -> Exception:
        return TinyError("the body ended early", Transient())


TINY = (event({"text": "Hel"}), event({"text": "lö"}), event({"text": " 🙂"}), event({"end": True}))


def test_an_adapter_that_shares_nothing_with_ours_keeps_the_contract() -> None:
    check_completion_model(TinyModel, answer=TINY)


@pytest.mark.parametrize(
    "answer",
    [b"".join(TINY), Reply(*TINY), Reply(*TINY, framing="length", split=5), Reply(*TINY, split="whole", batch=True)],
    ids=["bytes", "reply", "reply in pieces", "reply in one piece"],
)
def test_an_answer_is_split_into_its_events(answer: Reply | bytes) -> None:
    assert "after 2 of 4 events" in " ".join(broken_promises(InventsTheEnd, answer=answer).values())


@pytest.mark.parametrize(
    "factory",
    [
        lambda base_url: TinyModel(base_url, "another"),
        lambda url: TinyModel(url, "another"),
        lambda url, api_key: TinyModel(url, api_key),
        lambda url, /: TinyModel(url, "another"),
        lambda **options: TinyModel(**options),
    ],
    ids=["base_url", "another name", "another name and the key", "by position", "options"],
)
def test_a_factory_gets_the_arguments_that_it_accepts(factory: Callable[..., CompletionModel]) -> None:
    check_completion_model(factory, answer=TINY)


# --- the report --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("factory", [lambda: Parrot(), lambda a, b: Parrot(), lambda *, api_key: Parrot()])
def test_a_factory_that_accepts_no_url_is_refused(factory: Callable[..., CompletionModel]) -> None:
    with pytest.raises(TypeError, match="must accept the URL"):
        check_completion_model(factory, answer=TINY)


def test_an_unknown_wire_is_refused() -> None:
    with pytest.raises(ValueError, match="give 'anthropic', 'cohere', 'gemini', 'gemini-interactions', 'ollama'"):
        check_completion_model(TinyModel, answer="gopher")


def test_an_answer_without_events_is_refused() -> None:
    with pytest.raises(ValueError, match="answer is empty"):
        check_completion_model(TinyModel, answer=[])


def test_each_broken_promise_has_a_line() -> None:
    class Nameless(Parrot):
        name = ""

    with pytest.raises(AssertionError) as caught:
        check_completion_model(lambda: Nameless(TextDelta(""), END))
    assert str(caught.value).splitlines() == [
        "the model breaks 3 of 23 promises",
        "- name and model are non-empty strings that never change: name is ''",
        "- no delta is empty: the stream yielded TextDelta(delta='')",
        "- a model pickles, and the copy answers: " + str(caught.value).splitlines()[3].partition(": ")[2],
    ]


def test_without_a_good_answer_no_other_promise_is_checked() -> None:
    with pytest.raises(AssertionError) as caught:
        check_completion_model(lambda: ScriptedModel(TransportError("reset")))
    assert str(caught.value).splitlines() == [
        "the model breaks 1 of 1 promises, and 22 were not checked",
        "- chat_stream answers a good request with a stream of chunks: TransportError was raised: reset",
    ]


def test_a_model_that_does_not_use_the_given_url_is_reported() -> None:
    assert "sent no request to the server" in broken_promises(lambda url: Parrot(), answer=TINY)[conformance.ANSWERS]


def test_the_error_of_a_factory_is_reported() -> None:
    def fail() -> CompletionModel:
        raise KeyError("no such file")

    assert "KeyError was raised: 'no such file'" in broken_promises(fail)[conformance.ANSWERS]


def test_a_factory_may_skip_the_test() -> None:
    with pytest.raises(pytest.skip.Exception):
        check_completion_model(lambda: pytest.skip("not here"))


def test_the_report_does_not_contain_the_key() -> None:
    keys = []

    def factory(base_url: str, api_key: str) -> TinyModel:
        keys.append(api_key)
        return SaysItsKey(base_url, api_key)

    with pytest.raises(AssertionError) as caught:
        check_completion_model(factory, answer=TINY)
    assert keys[0] not in str(caught.value)


class StuckInPickling(Parrot):
    def __getstate__(self) -> dict[str, Any]:
        threading.Event().wait()
        return {}


class StuckForGood(Parrot):
    """Answers as often as ``answers`` is long, then blocks."""

    def __init__(self, answers: list[str]) -> None:
        super().__init__()
        self.answers = answers

    def chat_stream(self, req: ChatRequest) -> Chunks:
        if not self.answers:
            threading.Event().wait()
        self.answers.pop()
        return super().chat_stream(req)


def test_a_check_that_blocks_is_a_broken_promise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conformance, "_CHECK_S", 0.2)
    promise = "a model pickles, and the copy answers"
    assert broken_promises(StuckInPickling) == {promise: f"{promise}: the check did not end within 0.2 s"}


def test_the_kit_gives_up_after_three_checks_that_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conformance, "_CHECK_S", 0.2)
    answers = ["the first one"]
    with pytest.raises(AssertionError, match=r"breaks 3 of \d+ promises, and \d+ were not checked"):
        check_completion_model(lambda: StuckForGood(answers))


# --- one broken promise each: chunks -----------------------------------------------------------------------------

STARTED = ToolCallStarted("1", "f")
ARGS = ToolCallArgsDelta("1", "{}")
FINISHED = ToolCallFinished("1", "f", {})
HELLO = TextDelta("Hello")


@pytest.mark.parametrize(
    ("promise", "chunks"),
    [
        ("every chunk is a StreamChunk", ["Hello", END]),
        ("the last chunk, and no other, is a TurnFinished", [HELLO]),
        ("the last chunk, and no other, is a TurnFinished", [END, END]),
        ("the last chunk, and no other, is a TurnFinished", [END, HELLO]),
        ("a tool call ends once, with its id and name, before anything else starts", [STARTED, HELLO, FINISHED, END]),
        ("a tool call ends once, with its id and name, before anything else starts", [STARTED, ARGS, END]),
        ("a tool call ends once, with its id and name, before anything else starts", [FINISHED, END]),
        (
            "a tool call ends once, with its id and name, before anything else starts",
            [STARTED, ToolCallFinished("1", "g", {}), END],
        ),
        (
            "a tool call ends once, with its id and name, before anything else starts",
            [STARTED, ToolCallStarted("2", "f"), FINISHED, ToolCallFinished("2", "f", {}), END],
        ),
        ("reasoning ends before text, a tool call or the end of turn", [ReasoningDelta("So"), HELLO, END]),
        ("reasoning ends before text, a tool call or the end of turn", [ReasoningDelta("So"), END]),
        ("no delta is empty", [TextDelta(""), END]),
        ("tool call ids are unique and not empty", [STARTED, FINISHED, STARTED, FINISHED, END]),
        ("tool call ids are unique and not empty", [ToolCallStarted("", "f"), ToolCallFinished("", "f", {}), END]),
        ("the deltas of a tool call add up to its arguments", [STARTED, ToolCallFinished("1", "f", {"a": 1}), END]),
        ("the deltas of a tool call add up to its arguments", [STARTED, ToolCallMalformed("1", "f", "{", "bad"), END]),
        (
            "input_tokens and output_tokens are totals that include their parts",
            [TurnFinished(FinishReason.END_TURN, Usage(input_tokens=2, cached_input_tokens=3))],
        ),
        (
            "input_tokens and output_tokens are totals that include their parts",
            [TurnFinished(FinishReason.END_TURN, Usage(output_tokens=2, reasoning_tokens=3))],
        ),
        (
            "input_tokens and output_tokens are totals that include their parts",
            [TurnFinished(FinishReason.END_TURN, Usage(9, cache_creation_5m_tokens=1))],
        ),
        ("every chunk round-trips through to_json and from_json", [ProviderBlockFinished("p", {"a": (1,)}), END]),
    ],
)
def test_chunks_that_break_a_promise_are_reported(promise: str, chunks: list[Any]) -> None:
    assert list(broken_promises(lambda: Parrot(*chunks))) == [promise]


# --- one broken promise each: models and streams -----------------------------------------------------------------


class Renames(Parrot):
    def chat_stream(self, req: ChatRequest) -> Chunks:
        self.model = "parrot-2"
        return super().chat_stream(req)


class Wrapped(Generator[StreamChunk, None, None]):
    """A stream of one's own around a generator."""

    def __init__(self, chunks: Chunks) -> None:
        self.inner = chunks

    def __next__(self) -> StreamChunk:
        return next(self.inner)

    def send(self, value: None) -> StreamChunk:
        return next(self)

    def throw(self, *given: Any) -> StreamChunk:
        raise given[0]

    def close(self) -> None:
        self.inner.close()


class Owning(Wrapped):
    """Also closes the source of the generator: a generator that has not started closes nothing."""

    def __init__(self, chunks: Chunks, source: Chunks) -> None:
        super().__init__(chunks)
        self.source = source

    def close(self) -> None:
        super().close()
        self.source.close()


class ReturnsAnIterator(Parrot):
    def chat_stream(self, req: ChatRequest) -> Any:
        return HalfAGenerator(super().chat_stream(req))


class HalfAGenerator:
    def __init__(self, chunks: Chunks) -> None:
        self.chunks = chunks

    def __iter__(self) -> HalfAGenerator:
        return self

    def __next__(self) -> StreamChunk:
        return next(self.chunks)

    def close(self) -> None:
        self.chunks.close()


class IsAsyncToo(Parrot):
    def chat_stream(self, req: ChatRequest) -> Chunks:
        return TwoFaced(super().chat_stream(req))


class TwoFaced(Wrapped):
    def __aiter__(self) -> TwoFaced:
        return self


class OneLazyGenerator(Parrot):
    def chat_stream(self, req: ChatRequest) -> Chunks:
        yield from self.chunks(req.messages[0].text)


class StartsAgain(Parrot):
    def chat_stream(self, req: ChatRequest) -> Chunks:
        return Endless(self.chunks(req.messages[0].text))


class Endless(Wrapped):
    is_closed = False

    def __next__(self) -> StreamChunk:
        try:
            return next(self.inner)
        except StopIteration:
            if not self.is_closed:
                self.inner = Parrot().chunks("Again")
            raise

    def close(self) -> None:
        self.is_closed = True
        super().close()


class StaysOpen(Parrot):
    def chat_stream(self, req: ChatRequest) -> Chunks:
        return Unclosable(super().chat_stream(req))


class Unclosable(Wrapped):
    def close(self) -> None:
        pass


class ClosesOnlyOnce(Parrot):
    def chat_stream(self, req: ChatRequest) -> Chunks:
        return OnceOnly(super().chat_stream(req))


class OnceOnly(Wrapped):
    is_closed = False

    def close(self) -> None:
        if self.is_closed:
            raise ValueError("closed already")
        self.is_closed = True
        super().close()


class LeavesItOpen(Parrot):
    def chat_stream(self, req: ChatRequest) -> Chunks:
        return OpenBehind(super().chat_stream(req))


class OpenBehind(ChatStream):
    def __exit__(self, *given: Any) -> None:
        pass


class Mixes(Parrot):
    """Keeps the state of its stream in the model."""

    left: Chunks | None = None

    def chat_stream(self, req: ChatRequest) -> Chunks:
        self.left = self.chunks(req.messages[0].text)
        return self.shared()

    def shared(self) -> Chunks:
        assert self.left is not None
        lock = threading.Lock()
        while True:
            with lock:
                try:
                    chunk = next(self.left)
                except (StopIteration, ValueError):  # another thread is running the generator
                    return
            yield chunk

    def __getstate__(self) -> dict[str, Any]:
        return {"_given": ()}


class HoldsALock(Parrot):
    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()


class ForgetsItsName(Parrot):
    def __init__(self, model: str) -> None:
        super().__init__()
        self.model = model

    def __getstate__(self) -> dict[str, Any]:
        return {"_given": ()}


class CancelsNothing(Parrot):
    def chat_stream(self, req: ChatRequest) -> Chunks:
        return Uncancellable(super().chat_stream(req))


class Uncancellable(ChatStream):
    def cancel(self) -> None:
        pass


class CancelsByAnotherError(Parrot):
    def chat_stream(self, req: ChatRequest) -> Chunks:
        return Misnaming(super().chat_stream(req))


class Misnaming(ChatStream):
    def __next__(self) -> Chunk:
        if self._token.cancelled and not self._is_over:
            self.close()
            raise TransportError("the connection was closed")
        return super().__next__()


class CancelsTooLate(Parrot):
    def chat_stream(self, req: ChatRequest) -> Chunks:
        return Complaining(super().chat_stream(req))


class Complaining(ChatStream):
    def cancel(self) -> None:
        if self._is_over:
            raise RuntimeError("there is nothing to cancel")
        super().cancel()


class HeedsNoToken(Parrot):
    def chat_stream(self, req: ChatRequest) -> Chunks:
        return ChatStream(super().chat_stream(req), token=CancelToken())


@pytest.mark.parametrize(
    ("promise", "factory"),
    [
        ("name and model are non-empty strings that never change", Renames),
        ("chat_stream returns a generator that is not an async iterator too", ReturnsAnIterator),
        ("chat_stream returns a generator that is not an async iterator too", IsAsyncToo),
        ("the call, not next(), raises for a request that cannot be sent", OneLazyGenerator),
        ("after the end each next() raises StopIteration", StartsAgain),
        ("close() ends a stream at any time and can be called twice", StaysOpen),
        ("close() ends a stream at any time and can be called twice", ClosesOnlyOnce),
        ("a stream that is a context manager is closed at the end of its block", LeavesItOpen),
        ("each thread that shares a model gets its own complete answer", Mixes),
        ("a model pickles, and the copy answers", HoldsALock),
        ("a model pickles, and the copy answers", lambda: ForgetsItsName("parrot-3")),
        ("cancel() from another thread ends a stream with StreamCancelledError", CancelsNothing),
        ("cancel() after the end does nothing", CancelsTooLate),
        ("under a cancelled CancelToken a stream raises StreamCancelledError", HeedsNoToken),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_model_that_breaks_a_promise_is_reported(promise: str, factory: Callable[[], CompletionModel]) -> None:
    assert list(broken_promises(factory)) == [promise]


def test_a_cancelled_stream_that_raises_another_error_is_reported() -> None:
    assert list(broken_promises(CancelsByAnotherError)) == [
        "cancel() from another thread ends a stream with StreamCancelledError",
        "under a cancelled CancelToken a stream raises StreamCancelledError",
    ]


# --- one broken promise each: the wire ---------------------------------------------------------------------------


class ConnectsLate(TinyModel):
    """Opens the connection with the first next()."""

    def chat_stream(self, req: ChatRequest) -> Chunks:
        text = req.messages[0].text
        return self.lazy(text)

    def lazy(self, text: str) -> Chunks:
        yield from super().chat_stream(ChatRequest(text))


def test_an_adapter_that_connects_with_the_first_next_is_reported() -> None:
    assert list(broken_promises(ConnectsLate, answer=TINY)) == [
        "the call waits for the headers of the response",
        "the call raises for a refused connection",
        "the call raises for a 401, and the error is Permanent",
        "the call raises for a 429, and the error is Transient with its retry-after",
        "the call raises for a 500, and the error is Transient",
        "the call raises for a redirect and does not follow it",
        "the call raises for a 200 with an HTML page",
    ]


class KnowsNoResponse(OpenAIModel):
    def chat_stream(self, req: ChatRequest | str) -> ChatStream:
        stream = super().chat_stream(req)
        stream.response = ResponseInfo()
        return stream


class LosesItsKey(TinyModel):
    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_key"}


class LetsOsErrorsOut(TinyModel):
    def response(self, connection: http.client.HTTPConnection, text: str) -> http.client.HTTPResponse:
        try:
            return super().response(connection, text)
        except TinyError as error:
            if "no connection" in str(error):
                raise ConnectionError("refused") from None
            raise


class HidesRefusals(TinyModel):
    """Its stream, and not the call, raises for a refused connection."""

    def chat_stream(self, req: ChatRequest) -> Chunks:
        try:
            return super().chat_stream(req)
        except TinyError as error:
            if "no connection" not in str(error):
                raise
            return self.failing(str(error))

    def failing(self, message: str) -> Chunks:
        yield from ()
        raise TinyError(message, Transient())


class Misjudges(TinyModel):
    verdicts: dict[int, Permanent | Transient]

    def refusal(self, response: http.client.HTTPResponse) -> TinyError:
        error = super().refusal(response)
        return TinyError(str(error), self.verdicts.get(response.status, error.verdict))


class RetriesAuthentication(Misjudges):
    verdicts = {401: Transient()}  # noqa: RUF012


class ForgetsRetryAfter(Misjudges):
    verdicts = {429: Transient()}  # noqa: RUF012


class GivesUpOnServers(Misjudges):
    verdicts = {500: Permanent()}  # noqa: RUF012


class FollowsRedirects(TinyModel):
    """Sends a request to the new address, but raises all the same."""

    def refusal(self, response: http.client.HTTPResponse) -> TinyError:
        location = response.getheader("location")
        if location:
            connection = http.client.HTTPConnection(self._host, timeout=5)
            connection.request("GET", location)
            connection.getresponse().close()
            connection.close()
        return super().refusal(response)


class TakesHtml(TinyModel):
    def is_stream(self, response: http.client.HTTPResponse) -> bool:
        return True


class HoldsConnections(TinyModel):
    """Its errors refer to the response."""

    def let_go(self, error: TinyError | None, *held: Any) -> None:
        if error is None:
            super().let_go(error, *held)
        else:
            HELD.extend(held)


@pytest.fixture(autouse=True)
def let_go_at_last() -> Iterator[None]:
    yield
    while HELD:
        HELD.pop().close()


@dataclass(eq=False)
class ShowsItsKey(TinyModel):
    base_url: str
    api_key: str

    def __post_init__(self) -> None:
        super().__init__(self.base_url, self.api_key)


def test_a_key_in_a_repr_or_a_traceback_is_reported() -> None:
    assert list(broken_promises(ShowsItsKey, answer=TINY)) == [
        "no repr shows the key",
        "no error contains the key, and no local variable in its traceback does",
    ]


class PutsItsKeyIntoTheUrl(TinyModel):
    @property
    def path(self) -> str:  # type: ignore[override]
        return f"/chat?key={self._key}"


class LogsItsKey(TinyModel):
    def chat_stream(self, req: ChatRequest) -> Chunks:
        logging.getLogger("tiny").debug("sending %s", {"Authorization": self._key})
        return super().chat_stream(req)


class SaysItsKey(TinyModel):
    def refusal(self, response: http.client.HTTPResponse) -> TinyError:
        return TinyError(f"refused with the key {self._key}", super().refusal(response).verdict)


class EchoesTheBody(TinyModel):
    def refusal(self, response: http.client.HTTPResponse) -> TinyError:
        error = super().refusal(response)
        return TinyError(f"{error}: {response.read()!r}", error.verdict)


class LeavesItsKeyInALocal(TinyModel):
    def response(self, connection: http.client.HTTPConnection, text: str) -> http.client.HTTPResponse:
        headers = {"Authorization": self._key}
        response = super().response(connection, text)
        del headers
        return response


class RaisesFromTheRequest(TinyModel):
    """The cause of its errors has frames of http.client, whose local variables contain the headers."""

    def cause(self, exc: OSError) -> OSError | None:
        return exc


class ReadsPieceByPiece(TinyModel):
    """Treats each piece of the body as an event."""

    def lines(self, response: http.client.HTTPResponse) -> Iterator[bytes]:
        while piece := response.read1(65536):
            yield piece


class WaitsForTheWhole(TinyModel):
    def lines(self, response: http.client.HTTPResponse) -> Iterator[bytes]:
        return iter(list(response))


class InventsTheEnd(TinyModel):
    def chunks(self, response: http.client.HTTPResponse) -> Iterator[StreamChunk]:
        for line in response:
            if line.startswith(b"data: "):
                fields = self.parsed(line)
                if "end" in fields:
                    break
                yield TextDelta(fields["text"])
        yield END


def test_an_adapter_that_invents_the_end_of_a_turn_is_reported() -> None:
    assert list(broken_promises(InventsTheEnd, answer=TINY)) == [
        "next() raises if the body ends before the end of turn",
        "next() raises if the connection breaks before the end of turn",
    ]


class LooksAhead(TinyModel):
    """Reads the first chunk in the call."""

    def chat_stream(self, req: ChatRequest) -> Chunks:
        stream = super().chat_stream(req)
        first = next(stream)
        return Owning(self.chained(first, stream), stream)

    def chained(self, first: StreamChunk, stream: Chunks) -> Chunks:
        yield first
        yield from stream


def test_an_adapter_that_reads_the_body_in_the_call_is_reported() -> None:
    broken = broken_promises(LooksAhead, answer=TINY)
    assert list(broken) == [
        "next() raises if the body ends before the end of turn",
        "next() raises if the connection breaks before the end of turn",
    ]
    assert all("after 0 of 4 events the call raised" in line for line in broken.values())


class LagsBehind(OpenAIModel):
    """Yields a chunk when the next one has arrived, and loses it when the connection breaks."""

    def chat_stream(self, req: ChatRequest | str) -> Any:
        stream = super().chat_stream(req)
        return Owning(self.late(stream), stream)

    def late(self, stream: ChatStream) -> Chunks:
        held: list[StreamChunk] = []
        try:
            for chunk in stream:
                yield from held
                held = [chunk]
        except TruncatedStreamError:
            yield from held
            raise
        yield from held


def test_an_adapter_that_forgets_chunks_when_the_connection_breaks_is_reported() -> None:
    assert list(broken_promises(lambda **options: LagsBehind("m", **options), answer="openai-chat")) == [
        "an error loses no chunk before it, and then next() raises StopIteration",
        "a chunk is yielded when its event arrives, not when the body ends",
    ]


class Swallows(OpenAIModel):
    """Ends without an error where this error is raised."""

    error: type[Exception]

    def chat_stream(self, req: ChatRequest | str) -> Any:
        stream = super().chat_stream(req)
        return Owning(self.quiet(stream), stream)

    def quiet(self, stream: ChatStream) -> Chunks:
        try:
            yield from stream
        except self.error:
            return


class SwallowsTruncation(Swallows):
    error = TruncatedStreamError


class SwallowsBrokenConnections(Swallows):
    error = TransportError


class SkipsBadJson(TinyModel):
    def parsed(self, line: bytes) -> Any:
        try:
            return json.loads(line[6:])
        except ValueError:
            return {"text": "?"}


class FailsAgain(TinyModel):
    def chat_stream(self, req: ChatRequest) -> Chunks:
        return Repeating(super().chat_stream(req))


class Repeating(Wrapped):
    error: Exception | None = None

    def __next__(self) -> StreamChunk:
        if self.error is not None:
            raise self.error
        try:
            return next(self.inner)
        except TinyError as error:
            self.error = error
            raise


class RaisesWhatNobodyKnows(TinyModel):
    def early_end(self) -> Exception:
        return RuntimeError("the body ended early")


class ClosesLate(TinyModel):
    """Closes the connection only when the stream is dropped."""

    def chat_stream(self, req: ChatRequest) -> Chunks:
        return Lingering(super().chat_stream(req))


class Lingering(Wrapped):
    is_closed = False

    def __next__(self) -> StreamChunk:
        if self.is_closed:
            raise StopIteration
        return next(self.inner)

    def close(self) -> None:
        self.is_closed = True


class RemembersItsStreams(TinyModel):
    def chat_stream(self, req: ChatRequest) -> Chunks:
        HELD.append(stream := super().chat_stream(req))
        return stream


class BeginsLate(TinyModel):
    """Its generator closes nothing before it has started."""

    def chat_stream(self, req: ChatRequest) -> Chunks:
        connection = http.client.HTTPConnection(self._host, timeout=5)
        response = self.response(connection, req.messages[0].text)
        HELD.extend((response, connection))
        return self.unprimed(connection, response)

    def unprimed(self, connection: http.client.HTTPConnection, response: http.client.HTTPResponse) -> Chunks:
        stream = self.primed(connection, response)
        next(stream)
        yield from stream


def test_an_adapter_that_hangs_up_only_a_stream_that_was_read_is_reported() -> None:
    broken = broken_promises(BeginsLate, answer=TINY)
    assert list(broken) == [
        "close() closes the connection, whether or not a chunk was read",
        "dropping the stream closes the connection, whether or not a chunk was read",
    ]
    assert all("before the first chunk" in line for line in broken.values())


class CancelsBetweenChunks(TinyModel):
    """cancel() sets a flag, but does not wake a blocked next()."""

    def chat_stream(self, req: ChatRequest) -> Chunks:
        return ChatStream(super().chat_stream(req), response=ResponseInfo(200))


@pytest.mark.parametrize(
    ("promise", "factory"),
    [
        ("a model pickles, and the copy answers", LosesItsKey),
        ("the call raises for a refused connection", HidesRefusals),
        ("the call raises for a refused connection", LetsOsErrorsOut),
        ("the call raises for a 401, and the error is Permanent", RetriesAuthentication),
        ("the call raises for a 429, and the error is Transient with its retry-after", ForgetsRetryAfter),
        ("the call raises for a 500, and the error is Transient", GivesUpOnServers),
        ("the call raises for a redirect and does not follow it", FollowsRedirects),
        ("the call raises for a 200 with an HTML page", TakesHtml),
        ("an error of the call keeps no connection open", HoldsConnections),
        ("no URL contains the key", PutsItsKeyIntoTheUrl),
        ("no log contains the key", LogsItsKey),
        ("no error contains the key, and no local variable in its traceback does", SaysItsKey),
        ("no error contains the key, and no local variable in its traceback does", EchoesTheBody),
        ("no error contains the key, and no local variable in its traceback does", LeavesItsKeyInALocal),
        ("no error contains the key, and no local variable in its traceback does", RaisesFromTheRequest),
        ("an answer is the same in pieces of any size", ReadsPieceByPiece),
        ("a chunk is yielded when its event arrives, not when the body ends", WaitsForTheWhole),
        ("invalid JSON in mid-stream raises an error", SkipsBadJson),
        ("an error loses no chunk before it, and then next() raises StopIteration", FailsAgain),
        ("an error of the stream has a retry_classification()", RaisesWhatNobodyKnows),
        ("close() closes the connection, whether or not a chunk was read", ClosesLate),
        ("dropping the stream closes the connection, whether or not a chunk was read", RemembersItsStreams),
        ("cancel() ends a blocked next() and closes the connection", CancelsBetweenChunks),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_an_adapter_that_breaks_a_promise_is_reported(promise: str, factory: type[TinyModel]) -> None:
    assert list(broken_promises(factory, answer=TINY)) == [promise]


@pytest.mark.parametrize(
    ("promise", "model"),
    [
        ("a ChatStream has the status of its response when the call returns", KnowsNoResponse),
        ("next() raises if the body ends before the end of turn", SwallowsTruncation),
        ("next() raises if the connection breaks before the end of turn", SwallowsBrokenConnections),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_change_to_one_of_ours_that_breaks_a_promise_is_reported(promise: str, model: type[OpenAIModel]) -> None:
    assert list(broken_promises(lambda **options: model("m", **options), answer="openai-chat")) == [promise]


# --- models that cheat -------------------------------------------------------------------------------------------


class KeepsAKey:
    """Talks to a server that is not the kit's, and its repr shows the key."""

    name = "keeper"
    model = "keeper-1"

    def __init__(self, inner: CompletionModel) -> None:
        self.inner = inner
        self.api_key = "sk-very-secret-1234"

    def chat_stream(self, req: ChatRequest) -> Iterator[StreamChunk]:
        return self.inner.chat_stream(req)

    def __repr__(self) -> str:
        return f"KeepsAKey({self.api_key!r})"


class KeepsStreams(KeepsAKey):
    """close() closes a generator around the stream, but not the stream."""

    kept: ClassVar[list[Any]] = []

    def chat_stream(self, req: ChatRequest) -> Chunks:
        stream = self.inner.chat_stream(req)
        self.kept.append(stream)
        return ChatStream(chunk for chunk in stream)

    def __repr__(self) -> str:
        return "KeepsStreams()"


def test_without_a_server_a_key_in_the_repr_is_reported() -> None:
    assert list(broken_promises(lambda: KeepsAKey(ScriptedModel(*SCRIPTS)))) == [
        "no repr shows a key from the model's attributes"
    ]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="nothing tells which sockets are open")
def test_without_a_server_open_connections_are_reported(server: ProviderServer) -> None:
    server.always(Reply(text("a"), Pause(0.05), text("b"), FINISH, event("[DONE]")))
    inner = OpenAIModel("m", api_key="k", base_url=server.url)
    assert "close() leaves no connection open" in broken_promises(lambda: KeepsStreams(inner))


class Filtered(AnthropicModel):
    """One of our models, with a filter for its chunks."""

    def chat_stream(self, req: ChatRequest | str) -> ChatStream:
        stream = super().chat_stream(req)
        return ChatStream(self.filtered(stream), response=stream.response, token=stream._token, release=stream.close)

    def filtered(self, chunks: ChatStream) -> Chunks:
        yield from chunks


class InventsAnEnd(Filtered):
    def filtered(self, chunks: ChatStream) -> Chunks:
        has_called = False
        try:
            for chunk in chunks:
                has_called |= isinstance(chunk, ToolCallFinished)
                yield chunk
        except TruncatedStreamError:
            if not has_called:
                raise
            yield TurnFinished(FinishReason.TOOL_USE)


class SwallowsErrors(Filtered):
    def filtered(self, chunks: ChatStream) -> Chunks:
        try:
            yield from chunks
        except OverloadedError as error:
            yield TextDelta(str(error))
            yield END


class SaysSomethingElse(Filtered):
    def filtered(self, chunks: ChatStream) -> Chunks:
        for chunk in chunks:
            yield TextDelta("?" * len(chunk.delta)) if isinstance(chunk, TextDelta) else chunk


class CountsOnlyTheUncached(Filtered):
    def filtered(self, chunks: ChatStream) -> Chunks:
        for chunk in chunks:
            yield replace(chunk, usage=Usage(8, 9, 4)) if isinstance(chunk, TurnFinished) else chunk


class AsksSomethingElse(AnthropicModel):
    def chat_stream(self, req: ChatRequest | str) -> ChatStream:
        if not isinstance(req, ChatRequest):
            raise TypeError
        return super().chat_stream(ChatRequest("Something else"))


class TakesAnotherKeyAlong(AnthropicModel):
    def __setstate__(self, state: dict[str, Any]) -> None:
        client = AnthropicClient(api_key="sk-another", base_url=state["client"].base_url)
        self.__dict__.update(state, client=client)


@pytest.mark.parametrize(
    ("promise", "model"),
    [
        ("next() raises if the body ends before the end of turn", InventsAnEnd),
        ("an error event inside a 200 raises an error", SwallowsErrors),
        ("the chunks have the content and the usage of the server's answer", SaysSomethingElse),
        ("the chunks have the content and the usage of the server's answer", CountsOnlyTheUncached),
        ("the request contains the prompt", AsksSomethingElse),
        ("a pickled model keeps the key that it was given", TakesAnotherKeyAlong),
    ],
)
def test_an_adapter_that_cheats_on_a_wire_that_the_kit_knows_is_reported(
    promise: str, model: Callable[..., CompletionModel]
) -> None:
    assert promise in broken_promises(lambda **options: model("m", **options), answer="anthropic")


def test_a_wrong_factory_is_refused_with_advice() -> None:
    with pytest.raises(TypeError, match="answer="):
        check_completion_model(openai)
    with pytest.raises(TypeError, match="lambda: MyModel"):
        check_completion_model(Parrot())  # type: ignore[arg-type]
