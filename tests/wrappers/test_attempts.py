"""What RetryingModel and FallbackModel share: attempts until the first chunk, and how their streams end."""

from __future__ import annotations

import gc
import os
import pickle
import sys
import threading
import weakref
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Final

import pytest

from completion import (
    AuthenticationError,
    CancelToken,
    ChatRequest,
    ChatStream,
    Chunk,
    CompletionModel,
    FallbackModel,
    FinishReason,
    InvalidRequestError,
    OpenAIModel,
    OverloadedError,
    RateLimitError,
    ResponseInfo,
    RetryConfig,
    RetryEvent,
    RetryingModel,
    StreamCancelledError,
    StreamChunk,
    TextDelta,
    Transient,
    TransportError,
    TruncatedStreamError,
    TurnFinished,
)
from completion.testing import Cut, Pause, ProviderServer, Reply, Reset, ScriptedModel, Stall, event
from tests.loopback import END, HI, KEY, Caught, first_text, model_of, text

Chunks = Generator[StreamChunk, None, None]
Wrapped = RetryingModel | FallbackModel
Wrap = Callable[[CompletionModel], Wrapped]

A, B = TextDelta("a"), TextDelta("b")
FINISHED = TurnFinished(FinishReason.END_TURN)
AT_ONCE_S: Final = 1.0
"""On an idle machine it takes 2 ms."""

BUSY = Reply.json({"error": {"message": "busy"}}, status=503)
OVERLOADED = Reply(event({"error": {"message": "busy", "type": "overloaded_error"}}))
ANSWER = Reply(text("a"), END, headers={"X-Request-Id": "answered"})


def retrying(inner: CompletionModel) -> Wrapped:
    return RetryingModel(inner, RetryConfig(max_attempts=2, base_delay=0))


def falling_back(inner: CompletionModel) -> Wrapped:
    return FallbackModel([inner, inner])


def both(inner: CompletionModel) -> Wrapped:
    return RetryingModel(FallbackModel([inner, inner]), RetryConfig(base_delay=0))


@pytest.fixture(params=[retrying, falling_back, both])
def wrap(request: pytest.FixtureRequest) -> Wrap:
    found: Wrap = request.param
    return found


@pytest.fixture
def no_gc() -> Iterator[None]:
    """Objects are freed by reference counting only."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


class PlainModel:
    """A third party's model. Each call runs the next script, which returns a stream or raises."""

    name = "plain"
    model = "plain-1"

    def __init__(self, *scripts: Callable[[], Any]) -> None:
        self._scripts = list(scripts)

    @property
    def calls_left(self) -> int:
        return len(self._scripts)

    def chat_stream(self, req: ChatRequest) -> Chunks:
        opened: Chunks = self._scripts.pop(0)()
        return opened


class LazyModel:
    """A third party's model, a generator function: it opens the connection only at the first ``next()``."""

    name = "lazy"
    model = "lazy-1"

    def __init__(self, inner: CompletionModel) -> None:
        self.inner = inner

    def chat_stream(self, req: ChatRequest) -> Chunks:
        yield from self.inner.chat_stream(req)


def answer() -> Chunks:
    yield A
    yield B
    yield FINISHED


def fails() -> Chunks:
    raise OverloadedError("busy")
    yield


def refuses() -> Chunks:
    raise RateLimitError("slow down")


def texts(stream: Any) -> list[str]:
    return [chunk.delta for chunk in stream if isinstance(chunk, TextDelta)]


# --- another attempt -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "failure",
    [
        BUSY,
        Reply.json({"error": {"message": "busy"}}, status=429, headers={"Retry-After": "0"}),
        Reply(before_headers=[Cut()]),
        OVERLOADED,
        Reply(),
        Reply(b": ping\n\n"),
        Reply(Cut()),
        Reply(Cut(), framing="close"),
        Reply(Pause(0.05), Reset()),
    ],
    ids=[
        "503",
        "429",
        "no headers",
        "an error as the first event",
        "an empty body",
        "a ping only",
        "a cut body",
        "a closed connection",
        "a reset after the headers",
    ],
)
def test_a_failure_before_the_first_chunk_gets_another_attempt(
    server: ProviderServer, wrap: Wrap, failure: Reply
) -> None:
    server.reply(failure, ANSWER)
    with wrap(model_of(server)).chat_stream(HI) as stream:
        assert texts(stream) == ["a"]
        assert stream.response.request_id == "answered"
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("cut", "kind"), [(Reply(text("a"), Cut()), TransportError), (Reply(text("a")), TruncatedStreamError)]
)
def test_a_failure_after_the_first_chunk_gets_no_other_attempt(
    server: ProviderServer, wrap: Wrap, cut: Reply, kind: type[Exception]
) -> None:
    server.reply(cut, ANSWER)
    stream = wrap(model_of(server)).chat_stream(HI)
    assert next(stream) == A
    with pytest.raises(kind):
        next(stream)
    assert next(stream, None) is None
    assert len(server.requests) == 1


def test_a_permanent_error_is_raised_at_once(server: ProviderServer, wrap: Wrap) -> None:
    server.reply(Reply.json({"error": {"message": "no"}}, status=400))
    with pytest.raises(InvalidRequestError):
        wrap(model_of(server)).chat_stream(HI)
    assert len(server.requests) == 1


@pytest.mark.parametrize("foreign", [KeyError("x"), KeyboardInterrupt(), SystemExit(1)], ids=lambda e: type(e).__name__)
@pytest.mark.parametrize("is_open", [False, True], ids=["the call", "the stream"])
def test_a_foreign_exception_is_raised_at_once(wrap: Wrap, foreign: BaseException, is_open: bool) -> None:
    def raises() -> None:
        raise foreign

    def raises_later() -> Chunks:
        raise foreign
        yield

    inner = PlainModel(raises_later if is_open else raises, answer)
    with CancelToken() as token, pytest.raises(type(foreign)) as caught:
        next(wrap(inner).chat_stream(HI))
    assert caught.value is foreign
    assert inner.calls_left == 1
    assert token._wakers == {}


def test_each_failed_connection_is_back_in_the_pool_before_the_next_attempt(server: ProviderServer, wrap: Wrap) -> None:
    server.reply(BUSY, ANSWER)
    wrap(model_of(server)).chat_stream(HI)
    assert server.connections == 1


def test_each_failed_stream_is_closed_before_the_next_attempt(server: ProviderServer, wrap: Wrap) -> None:
    hung_up: list[bool] = []
    model = model_of(server)

    def second() -> Chunks:
        hung_up.append(server.wait_hung_up())
        return model.chat_stream(HI)

    busy = event({"error": {"message": "busy", "type": "overloaded_error"}})
    server.reply(Reply(busy, Stall()), ANSWER)
    assert texts(wrap(PlainModel(lambda: model.chat_stream(HI), second)).chat_stream(HI)) == ["a"]
    assert hung_up == [True]


class PlainIterator:
    """An iterator that is not a generator, and has a ``close()``."""

    def __init__(self, *steps: Any) -> None:
        self._steps = list(steps)
        self.is_closed = False

    def __iter__(self) -> PlainIterator:
        return self

    def __next__(self) -> StreamChunk:
        if not self._steps:
            raise StopIteration
        step = self._steps.pop(0)
        if isinstance(step, Exception):
            raise step
        chunk: StreamChunk = step
        return chunk

    def close(self) -> None:
        self.is_closed = True


def test_a_failed_iterator_is_closed_before_the_next_attempt(wrap: Wrap) -> None:
    failed = PlainIterator(OverloadedError("busy"))
    closed: list[bool] = []

    def second() -> Chunks:
        closed.append(failed.is_closed)
        return answer()

    assert texts(wrap(PlainModel(lambda: failed, second)).chat_stream(HI)) == ["a", "b"]
    assert closed == [True]


def test_an_iterator_is_closed_with_its_wrapper(wrap: Wrap) -> None:
    inner = PlainIterator(A, B)
    with wrap(PlainModel(lambda: inner)).chat_stream(HI) as stream:
        assert next(stream) == A
    assert inner.is_closed


def test_a_stream_without_chunks_gets_another_attempt(wrap: Wrap) -> None:
    assert texts(wrap(PlainModel(lambda: iter(()), answer)).chat_stream(HI)) == ["a", "b"]


def test_a_stream_without_chunks_is_truncated_after_the_last_attempt(wrap: Wrap) -> None:
    inner = PlainModel(*[lambda: iter(())] * 6)
    stream = wrap(inner).chat_stream(HI)
    with pytest.raises(TruncatedStreamError, match="ended before its first chunk") as caught:
        next(stream)
    assert caught.value.before_first_chunk
    assert isinstance(caught.value.retry_classification(), Transient)


def test_a_truncated_stream_of_a_plain_generator_gets_another_attempt(wrap: Wrap) -> None:
    def truncated() -> Chunks:
        raise TruncatedStreamError("cut")
        yield

    assert texts(wrap(PlainModel(truncated, answer)).chat_stream(HI)) == ["a", "b"]


# --- the stream ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("failures", [[], [refuses], [fails]], ids=["at once", "after the call", "after the stream"])
@pytest.mark.parametrize("is_plain", [True, False], ids=["generator", "ChatStream"])
def test_only_the_first_chunk_passes_through_the_wrapper(
    wrap: Wrap, is_plain: bool, failures: list[Callable[[], Any]]
) -> None:
    found: list[list[str]] = []

    def noting_the_stack() -> Chunks:
        for chunk in (A, B, FINISHED):
            frame, files = sys._getframe(1), list[str]()
            while frame is not None and "test_attempts" not in frame.f_code.co_filename:
                files.append(os.path.basename(frame.f_code.co_filename))
                frame = frame.f_back  # type: ignore[assignment]
            found.append(files)
            yield chunk

    inner = PlainModel(*failures, noting_the_stack if is_plain else lambda: ChatStream(noting_the_stack()))
    assert len(list(wrap(inner).chat_stream(HI))) == 3
    assert "attempts.py" in found[0]
    assert found[1:] == [["stream.py"]] * 2


def test_a_stream_of_a_subclass_is_read_through_its_own_next(wrap: Wrap) -> None:
    class Counting(ChatStream):
        read = 0

        def __next__(self) -> Chunk:
            chunk = super().__next__()
            self.read += 1
            return chunk

    inner = Counting(answer())
    assert texts(wrap(PlainModel(lambda: inner)).chat_stream(HI)) == ["a", "b"]
    assert inner.read == 3


def test_collect_returns_the_turn(server: ProviderServer, wrap: Wrap) -> None:
    server.reply(OVERLOADED, ANSWER)
    assert wrap(model_of(server)).chat_stream(HI).collect().text == "a"


def test_an_error_of_collect_has_the_partial_turn(server: ProviderServer, wrap: Wrap) -> None:
    server.reply(OVERLOADED, Reply(text("a"), Cut()))
    with pytest.raises(TransportError) as caught:
        wrap(model_of(server)).chat_stream(HI).collect()
    assert caught.value.partial is not None
    assert caught.value.partial.text == "a"


class WithResponse(PlainIterator):
    def __init__(self, response: object) -> None:
        super().__init__(A, FINISHED)
        self.response = response


INFO = ResponseInfo(200, {"a": "b"}, "r-1")


@pytest.mark.parametrize(
    ("opened", "response"),
    [
        (answer, ResponseInfo()),
        (lambda: WithResponse(INFO), INFO),
        (lambda: WithResponse(None), ResponseInfo()),
        (lambda: WithResponse(object()), ResponseInfo()),
    ],
    ids=["none", "ours", "None", "another type"],
)
@pytest.mark.parametrize("failures", [[], [fails]], ids=["at once", "after a failure"])
def test_a_stream_of_a_third_party_has_a_response(
    wrap: Wrap, opened: Callable[[], Any], response: ResponseInfo, failures: list[Callable[[], Any]]
) -> None:
    stream = wrap(PlainModel(*failures, opened)).chat_stream(HI)
    next(stream)
    assert stream.response == response


def test_the_response_is_that_of_the_answering_stream_through_two_wrappers(server: ProviderServer) -> None:
    server.reply(Reply(Cut(), headers={"X-Request-Id": "first"}), ANSWER)
    stream = RetryingModel(FallbackModel([model_of(server), model_of(server)])).chat_stream(HI)
    assert stream.response.request_id == "first"
    next(stream)
    assert stream.response.request_id == "answered"


def test_a_stream_supports_the_methods_of_a_generator(wrap: Wrap) -> None:
    stream = wrap(PlainModel(fails, answer)).chat_stream(HI)
    assert iter(stream) is stream
    assert stream.send(None) == A
    with pytest.raises(KeyError, match="x"):
        stream.throw(KeyError("x"))
    assert next(stream, None) is None


def test_throw_before_the_first_chunk_makes_no_other_attempt(wrap: Wrap) -> None:
    inner = PlainModel(answer, answer)
    stream = wrap(inner).chat_stream(HI)
    with pytest.raises(OverloadedError):
        stream.throw(OverloadedError("mine"))
    assert inner.calls_left == 1


# --- the end ---------------------------------------------------------------------------------------------------------


def close(stream: ChatStream) -> None:
    stream.close()


def leave(stream: ChatStream) -> None:
    with stream:
        pass


def throw_in(stream: ChatStream) -> None:
    with suppress(KeyError):
        stream.throw(KeyError("x"))


def cancel(stream: ChatStream) -> None:
    stream.cancel()
    with suppress(StreamCancelledError):
        next(stream)


def drop(stream: ChatStream) -> None:
    pass


@pytest.mark.parametrize("end", [close, leave, throw_in, cancel, drop])
@pytest.mark.parametrize(
    ("failures", "chunks_read"),
    [([], 0), ([], 1), ([], 2), ([BUSY], 0), ([BUSY], 1), ([BUSY], 2), ([OVERLOADED], 1), ([OVERLOADED], 2)],
    ids=["unread", "one", "two", "503, unread", "503, one", "503, two", "error event, one", "error event, two"],
)
def test_every_end_closes_the_connection_and_unbinds_the_token(
    server: ProviderServer,
    wrap: Wrap,
    no_gc: None,
    end: Callable[[ChatStream], None],
    failures: list[Reply],
    chunks_read: int,
) -> None:
    server.reply(*failures, Reply(text("a"), text("b"), Stall()))
    model = wrap(model_of(server))

    def read_and_end() -> None:
        stream = model.chat_stream(HI)
        for _ in range(chunks_read):
            next(stream)
        end(stream)  # after ``drop``, the end of this function drops the stream

    with CancelToken() as token:
        read_and_end()
        assert token._wakers == {}
    assert server.wait_hung_up()


@pytest.mark.parametrize("failures", [[], [refuses], [fails]], ids=["at once", "after the call", "after the stream"])
@pytest.mark.parametrize("chunks_read", [1, 2])
def test_a_plain_generator_is_closed_when_the_stream_is_dropped(
    wrap: Wrap, no_gc: None, chunks_read: int, failures: list[Callable[[], Any]]
) -> None:
    closed = threading.Event()

    def watched() -> Chunks:
        try:
            yield from answer()
        finally:
            closed.set()

    stream = wrap(PlainModel(*failures, watched)).chat_stream(HI)
    for _ in range(chunks_read):
        next(stream)
    del stream
    assert closed.is_set()


def test_a_complete_turn_unbinds_the_token_and_keeps_the_connection(server: ProviderServer, wrap: Wrap) -> None:
    server.reply(BUSY, ANSWER, OVERLOADED, ANSWER)
    model = wrap(model_of(server))
    with CancelToken() as token:
        for _ in range(2):
            assert texts(model.chat_stream(HI)) == ["a"]
        assert token._wakers == {}
    assert len(server.requests) == 4


@pytest.mark.parametrize("is_open", [False, True], ids=["the call", "the stream"])
def test_the_last_failure_unbinds_the_token(wrap: Wrap, is_open: bool) -> None:
    inner = PlainModel(*[fails if is_open else refuses] * 6)
    with CancelToken() as token:
        with suppress(RateLimitError, OverloadedError):
            next(wrap(inner).chat_stream(HI))
        assert token._wakers == {}


# --- cancelling ------------------------------------------------------------------------------------------------------


def test_cancelling_the_token_ends_the_wait_for_the_headers_of_a_second_attempt(
    server: ProviderServer, wrap: Wrap
) -> None:
    server.reply(BUSY, Reply(before_headers=[Stall()]))
    token = CancelToken()

    def call() -> None:
        with token:
            wrap(model_of(server)).chat_stream(HI)

    waiting = Caught(call)
    assert server.wait_for_requests(2)
    token.cancel()
    assert isinstance(waiting.within(AT_ONCE_S).error, StreamCancelledError)
    assert server.wait_hung_up()
    assert token._wakers == {}


@pytest.mark.parametrize("end", [ChatStream.cancel, ChatStream.close])
@pytest.mark.parametrize("make", [lambda model: model, LazyModel], ids=["ChatStream", "generator"])
def test_the_first_next_can_be_ended_while_a_second_attempt_waits_for_headers(
    server: ProviderServer, wrap: Wrap, end: Callable[[ChatStream], None], make: Callable[[Any], CompletionModel]
) -> None:
    server.reply(OVERLOADED, Reply(before_headers=[Stall()]))
    stream = wrap(make(model_of(server))).chat_stream(HI)
    waiting = Caught(lambda: next(stream))
    assert server.wait_for_requests(2)
    end(stream)
    assert isinstance(waiting.within(AT_ONCE_S).error, StreamCancelledError)
    assert server.wait_hung_up()
    assert next(stream, None) is None


@pytest.mark.parametrize("make", [lambda model: model, LazyModel], ids=["ChatStream", "generator"])
def test_a_blocked_read_after_the_first_chunk_can_be_cancelled(
    server: ProviderServer, wrap: Wrap, make: Callable[[Any], CompletionModel]
) -> None:
    server.reply(OVERLOADED, Reply(text("a"), Stall()))
    stream = wrap(make(model_of(server))).chat_stream(HI)
    assert first_text(stream) == "a"
    waiting = Caught(lambda: next(stream))
    stream.cancel()
    assert isinstance(waiting.within(AT_ONCE_S).error, StreamCancelledError)
    assert server.wait_hung_up()


def test_no_call_is_made_under_a_cancelled_token(wrap: Wrap) -> None:
    inner = PlainModel(answer)
    with CancelToken() as token:
        token.cancel()
        with pytest.raises(StreamCancelledError, match="plain: the stream was cancelled"):
            wrap(inner).chat_stream(HI)
    assert inner.calls_left == 1


@pytest.mark.parametrize("is_open", [False, True], ids=["the call", "the stream"])
def test_an_error_caused_by_cancelling_is_raised_as_a_cancellation(wrap: Wrap, is_open: bool) -> None:
    token, error = CancelToken(), TransportError("the socket is gone")

    def gone() -> None:
        token.cancel()
        raise error

    def gone_later() -> Chunks:
        gone()
        yield A

    inner = PlainModel(gone_later if is_open else gone, answer)
    with token, pytest.raises(StreamCancelledError) as caught:
        next(wrap(inner).chat_stream(HI))
    assert caught.value.__cause__ is error
    assert inner.calls_left == 1


def test_a_stream_that_was_cancelled_before_its_first_chunk_names_its_model(wrap: Wrap) -> None:
    stream = wrap(PlainModel(answer)).chat_stream(HI)
    stream.cancel()
    with pytest.raises(StreamCancelledError, match="plain: the stream was cancelled"):
        next(stream)
    assert next(stream, None) is None


# --- errors ----------------------------------------------------------------------------------------------------------


def directly(call: Callable[[], object]) -> None:
    call()


def while_handling(call: Callable[[], object]) -> None:
    try:
        raise ValueError("the caller's")
    except ValueError:
        call()


@pytest.mark.parametrize("is_open", [False, True], ids=["the call", "the stream"])
@pytest.mark.parametrize("around", [directly, while_handling])
def test_the_error_of_the_only_attempt_is_raised_unchanged(
    is_open: bool, around: Callable[[Callable[[], object]], None]
) -> None:
    error, cause, context = AuthenticationError("no"), KeyError("cause"), KeyError("context")

    def raises() -> None:
        try:
            raise context
        except KeyError:
            raise error from cause

    def raises_later() -> Chunks:
        raises()
        yield A

    model = RetryingModel(PlainModel(raises_later if is_open else raises))
    with pytest.raises(AuthenticationError) as caught:
        around(lambda: next(model.chat_stream(HI)))
    assert caught.value is error
    assert (error.__cause__, error.__context__, error.attempts) == (cause, context, 1)


class Canary:
    """An object in a variable of the caller."""


@pytest.mark.parametrize("is_open", [False, True], ids=["the call", "the stream"])
@pytest.mark.parametrize("fails_always", [False, True])
def test_a_failure_leaves_no_reference_cycle_with_the_callers_variables(
    wrap: Wrap, no_gc: None, is_open: bool, fails_always: bool
) -> None:
    inner = PlainModel(*[fails if is_open else refuses] * (6 if fails_always else 1), answer)

    def call() -> weakref.ref[Canary]:
        canary = Canary()
        with suppress(RateLimitError, OverloadedError):
            next(wrap(inner).chat_stream(HI))
        return weakref.ref(canary)

    assert call()() is None


@pytest.mark.parametrize("failure", [BUSY, OVERLOADED], ids=["503", "an error event"])
def test_a_kept_error_of_an_earlier_attempt_keeps_no_stream_alive(
    server: ProviderServer, no_gc: None, failure: Reply
) -> None:
    server.reply(failure, Reply(text("a"), Stall()))
    kept: list[RetryEvent] = []
    model = RetryingModel(model_of(server), RetryConfig(base_delay=0), kept.append)

    def read() -> None:
        stream = model.chat_stream(HI)
        next(stream)

    read()
    assert server.wait_hung_up()
    assert kept[0].error.__traceback__ is None


def test_a_kept_error_of_the_last_attempt_keeps_no_connection_open(server: ProviderServer, wrap: Wrap) -> None:
    server.always(BUSY)
    model = wrap(model_of(server))
    kept: list[Exception] = []
    for _ in range(3):
        with pytest.raises(OverloadedError) as caught:
            model.chat_stream(HI)
        kept.append(caught.value)
    assert server.connections == 1


def test_the_exception_that_the_caller_handles_keeps_its_traceback(wrap: Wrap) -> None:
    model = wrap(PlainModel(refuses, fails, answer, answer))
    error = ValueError("the caller's")
    traces: list[object] = []
    try:
        raise error
    except ValueError:
        traces.append(error.__traceback__)
        with suppress(OverloadedError):
            next(model.chat_stream(HI))
        traces.append(error.__traceback__)
    assert traces[0] is traces[1] is not None


# --- wrappers inside wrappers -------------------------------------------------------------------------------------


def three(model: CompletionModel) -> RetryingModel:
    """Makes at most three attempts."""
    return RetryingModel(model, RetryConfig(max_attempts=3, base_delay=0))


@pytest.mark.parametrize(
    ("nest", "calls"),
    [
        (lambda m: three(FallbackModel([three(m)])), 3),
        (lambda m: three(FallbackModel([three(m), three(m)])), 6),
        (lambda m: FallbackModel([three(m), three(m)]), 6),
        (lambda m: three(LazyModel(three(m))), 3),
        (lambda m: three(FallbackModel([LazyModel(three(m))])), 3),
        (lambda m: FallbackModel([FallbackModel([m, m]), m]), 3),
    ],
    ids=["around a fallback", "around two", "inside", "around a generator", "around all", "fallbacks"],
)
@pytest.mark.parametrize("is_open", [False, True], ids=["the call", "the stream"])
def test_attempts_do_not_multiply(
    nest: Callable[[CompletionModel], CompletionModel], calls: int, is_open: bool
) -> None:
    inner = PlainModel(*[fails if is_open else refuses] * 30)
    with pytest.raises((OverloadedError, RateLimitError)):
        next(nest(inner).chat_stream(HI))
    assert 30 - inner.calls_left == calls


def test_a_later_call_is_retried_after_a_nested_one() -> None:
    three(FallbackModel([three(PlainModel(answer))])).chat_stream(HI)
    assert texts(three(PlainModel(refuses, refuses, answer)).chat_stream(HI)) == ["a", "b"]


# --- threads, processes, pickles -------------------------------------------------------------------------------------


def test_threads_share_a_model(server: ProviderServer) -> None:
    server.always(ANSWER)
    server.reply(*[BUSY, OVERLOADED] * 4)
    model = RetryingModel(model_of(server), RetryConfig(max_attempts=20, base_delay=0))
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: texts(model.chat_stream(HI)), range(32)))
    assert found == [["a"]] * 32
    assert len(server.requests) == 40


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_opens_its_own_connection(server: ProviderServer, wrap: Wrap) -> None:
    server.reply(BUSY, ANSWER, BUSY, ANSWER, BUSY, ANSWER)
    model = wrap(model_of(server))
    assert texts(model.chat_stream(HI)) == ["a"]
    child = os.fork()
    if not child:
        with suppress(BaseException):
            os._exit(0 if texts(model.chat_stream(HI)) == ["a"] else 1)
        os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    assert texts(model.chat_stream(HI)) == ["a"]
    assert [request.connection for request in server.requests] == [1, 1, 2, 2, 1, 1]


def test_a_wrapped_model_pickles(server: ProviderServer, wrap: Wrap) -> None:
    server.reply(BUSY, ANSWER)
    model = pickle.loads(pickle.dumps(wrap(model_of(server))))
    assert texts(model.chat_stream(HI)) == ["a"]


def test_a_repr_shows_the_wrapped_model_and_no_key(wrap: Wrap) -> None:
    shown = repr(wrap(OpenAIModel("m", base_url="http://127.0.0.1:9", api_key=KEY)))
    assert "OpenAIModel('m', base_url='http://127.0.0.1:9')" in shown
    assert KEY not in shown


def test_name_and_model_are_those_of_the_wrapped_model(wrap: Wrap) -> None:
    model = wrap(ScriptedModel(name="acme", model="m-7"))
    assert (model.name, model.model) == ("acme", "m-7")
    assert isinstance(model, CompletionModel)


class EntersItsOwnToken:
    """A third party's model: a generator that yields its chunks inside ``with CancelToken()``."""

    name = model = "lazy"

    def __init__(self, inner: CompletionModel) -> None:
        self.inner = inner

    def chat_stream(self, req: ChatRequest) -> Generator[StreamChunk, None, None]:
        with CancelToken():
            yield from self.inner.chat_stream(req)


def test_a_token_entered_by_a_generator_does_not_stay_current() -> None:
    stream = RetryingModel(EntersItsOwnToken(ScriptedModel("a b c"))).chat_stream(HI)
    next(stream)
    stream.cancel()
    with pytest.raises(StreamCancelledError):
        next(stream)
    del stream
    assert CancelToken.current() is None
    assert ScriptedModel("ok").chat_stream(HI).collect().text == "ok"


@pytest.mark.parametrize(
    ("wrapper", "given"),
    [
        (RetryingModel, (None,)),
        (RetryingModel, (ScriptedModel,)),
        (RetryingModel, (ScriptedModel(), {"max_attempts": 2})),
        (FallbackModel, ("ab",)),
        (FallbackModel, (ScriptedModel(),)),
        (FallbackModel, ([None],)),
    ],
    ids=["none", "a class", "a dict", "a string", "one model", "a list of none"],
)
def test_an_argument_that_is_not_a_model_raises_a_type_error(wrapper: Any, given: Any) -> None:
    with pytest.raises(TypeError, match=wrapper.__name__):
        wrapper(*given)


def test_a_foreign_error_leaves_no_prompt_in_our_frames() -> None:
    class Broken:
        name = model = "broken"

        def chat_stream(self, req: ChatRequest) -> ChatStream:
            raise KeyError("theirs")

    with pytest.raises(KeyError) as caught:
        FallbackModel([RetryingModel(Broken())]).chat_stream(ChatRequest("my prompt"))
    trace = caught.value.__traceback__
    found = []
    while trace is not None:
        if trace.tb_frame.f_code.co_filename != __file__:
            found += [value for value in trace.tb_frame.f_locals.values() if "my prompt" in repr(value)]
        trace = trace.tb_next
    assert found == []
