"""A key is never shown: not in errors and what hangs on them, not in reprs, logs, URLs or the locals of a traceback."""

from __future__ import annotations

import logging
import pickle
import socket
import traceback
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any

import pytest

import completion
from completion import (
    AuthenticationError,
    CancelToken,
    ChatRequest,
    CompletionError,
    OpenAIClient,
    OpenAIModel,
    StreamCancelledError,
    StreamError,
    Timeout,
)
from completion.testing import Cut, ProviderServer, Reply, Stall, event
from tests.loopback import END, HI, KEY, PATIENCE_S, Caught, model_at, model_of, text

LIBRARIES = (
    completion.__path__[0],
    "/requests/",
    "/urllib3/",
    "/http/client.py",
    "/sseclient/",
    "/ssl.py",
    "/socket.py",
)


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error and those that it was raised from or that a traceback would print with it."""
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def frames(trace: TracebackType | None) -> Iterator[tuple[str, dict[str, Any]]]:
    """File and locals of every frame that is not this test's own."""
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if any(library in file for library in LIBRARIES):
            yield f"{file}:{trace.tb_lineno}", dict(trace.tb_frame.f_locals)
        trace = trace.tb_next


def shown(thing: object) -> str:
    """What a crash reporter shows of a local variable, containers opened."""
    if isinstance(thing, dict):
        return " ".join(shown(k) + shown(v) for k, v in thing.items())
    if isinstance(thing, list | tuple | set):
        return " ".join(shown(item) for item in thing)
    return repr(thing)


def assert_keeps(error: BaseException, key: str = KEY) -> None:
    pickled = pickle.loads(pickle.dumps(error))
    for one in (*chain(error), pickled):
        for view in (str(one), repr(one), repr(one.args), shown(vars(one))):
            assert key not in view
        for place, variables in frames(one.__traceback__):
            for name, value in variables.items():
                assert key not in shown(value), f"{name} in {place}"
        request = getattr(one, "request", None)
        assert request is None
    assert key.encode() not in pickle.dumps(error)
    assert key not in "".join(traceback.format_exception(error))
    told = traceback.TracebackException.from_exception(error, capture_locals=True)
    ours = [line for frame in told.stack if frame.filename != __file__ for line in (frame.locals or {}).values()]
    assert key not in "".join(ours)


def failure_of(call: Callable[[], Any]) -> CompletionError:
    with pytest.raises(CompletionError) as caught:
        call()
    return caught.value


@pytest.fixture(autouse=True)
def logs_are_clean(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """In every test of this file: at DEBUG nobody logs the key, requests and urllib3 included."""
    caplog.set_level(logging.DEBUG)
    yield
    assert KEY not in caplog.text
    for record in caplog.records:
        assert KEY not in shown(vars(record))


def echo(prefix: str = "") -> dict[str, Any]:
    words = f"{prefix}Incorrect API key provided: {KEY}"
    return {"error": {"message": words, "code": f"bad {KEY}", "type": "invalid_request_error"}}


@pytest.mark.parametrize(
    "reply",
    [
        Reply.json(echo(), status=401),
        Reply.json(echo(), status=429),
        Reply.text(f"<html>{KEY}</html>", "text/html", status=502),
        Reply(status=302, headers={"Location": f"http://elsewhere.invalid/{KEY}?key={KEY}"}),
        Reply.json(echo()),
        Reply.text(f"<html>{KEY}</html>", "text/html"),
        Reply(event(echo())),
        Reply(text("a"), event(echo())),
        Reply(text("a"), event(f"{{no JSON: {KEY}")),
        Reply(f"{KEY}\n\n"),
        Reply(text("a"), Cut(), headers={"X-Request-Id": KEY}),
        Reply(before_headers=[f"{KEY}\r\n".encode(), Cut()]),
    ],
    ids=[
        "401",
        "429",
        "502",
        "redirect",
        "200 with JSON",
        "200 with HTML",
        "error event",
        "late error event",
        "bad JSON",
        "no event",
        "request id",
        "no HTTP",
    ],
)
def test_an_echo_of_the_key_is_concealed(server: ProviderServer, reply: Reply) -> None:
    server.reply(reply)
    assert_keeps(failure_of(lambda: model_of(server).chat_stream(HI).collect()))


def test_what_was_said_beside_the_key_stays(server: ProviderServer) -> None:
    server.reply(Reply.json(echo(), status=401))
    error = failure_of(lambda: model_of(server).chat_stream(HI))
    assert "Incorrect API key provided: [key]" in str(error)
    assert "[key]" in (error.body or "")


@pytest.mark.parametrize(
    "before_headers",
    [[Cut()], [b"HTTP/1.1 200 OK\r\n", Stall()], [Stall()]],
    ids=["cut", "half of the headers", "silence"],
)
def test_a_failure_before_the_headers_keeps_the_key(server: ProviderServer, before_headers: list[Any]) -> None:
    server.reply(Reply(before_headers=before_headers))
    model = model_of(server, timeout=Timeout(read=0.2))
    assert_keeps(failure_of(lambda: model.chat_stream(HI).collect()))


@pytest.mark.parametrize("clock", ["stall", "total"])
def test_a_clock_that_runs_out_keeps_the_key(server: ProviderServer, clock: str) -> None:
    server.reply(Reply(before_headers=[Stall()]))
    model = model_of(server, timeout=Timeout(**{clock: 0.2}))
    assert_keeps(failure_of(lambda: model.chat_stream(HI)))


def test_a_failure_of_the_stream_keeps_the_key(any_server: ProviderServer) -> None:
    any_server.reply(Reply(text("a"), Cut()), Reply(text("a"), Stall()), Reply(text("a"), Cut(), framing="close"))
    model = model_of(any_server, timeout=Timeout(read=0.2))
    for _ in range(3):
        assert_keeps(failure_of(lambda: model.chat_stream(HI).collect()))


def test_a_connection_that_fails_keeps_the_key(untrusted_server: ProviderServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        refused = f"http://127.0.0.1:{listener.getsockname()[1]}"
    for url in (refused, "http://nowhere.invalid", "http://a..b", untrusted_server.url):
        assert_keeps(failure_of(lambda: model_at(url).chat_stream(HI)))  # noqa: B023


@pytest.mark.parametrize("when", ["before", "headers", "stream"])
def test_a_cancelled_call_keeps_the_key(any_server: ProviderServer, when: str) -> None:
    token = CancelToken()
    if when == "before":
        token.cancel()
    any_server.reply(Reply(text("a"), Stall()) if when == "stream" else Reply(before_headers=[Stall()]))

    def call() -> None:
        with token:
            model_of(any_server).chat_stream(HI).collect()

    waiting = Caught(call)
    if when != "before":
        assert any_server.wait_for_requests(1)
        token.cancel()
    error = waiting.within(PATIENCE_S).error
    assert isinstance(error, CompletionError)
    assert_keeps(error)


def test_a_call_that_is_cancelled_while_it_connects_keeps_the_key(
    server: ProviderServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = CancelToken()
    found = socket.getaddrinfo

    def slow(*args: Any, **options: Any) -> Any:
        token.cancel()
        return found(*args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    with token:
        error = failure_of(lambda: model_of(server).chat_stream(HI))
    assert isinstance(error, StreamCancelledError)
    assert_keeps(error)


@pytest.mark.parametrize("bad", ["\n", "é", "\x00", " "], ids=["newline", "not ASCII", "null", "space"])
def test_a_bad_key_is_not_repeated(server: ProviderServer, bad: str) -> None:
    error = failure_of(lambda: model_of(server, api_key=KEY + bad + "x").chat_stream(HI))
    assert_keeps(error)
    assert server.connections == 0


def test_a_bad_header_keeps_the_key(server: ProviderServer) -> None:
    assert_keeps(failure_of(lambda: model_of(server, headers={"X-A": "a\nb"}).chat_stream(HI)))


def test_a_request_that_is_not_json_keeps_the_key(server: ProviderServer) -> None:
    request = ChatRequest("Hi", additional_params={"x": object()})
    assert_keeps(failure_of(lambda: model_of(server).chat_stream(request)))


@pytest.mark.parametrize("url", [f"http://user:{KEY}@host:99999", f"http://host/v1?key={KEY}", f"ftp://{KEY}@host"])
def test_a_base_url_with_a_key_is_refused_and_not_repeated(url: str) -> None:
    assert KEY not in str(failure_of(lambda: OpenAIClient(base_url=url, api_key="other")))


def test_nothing_of_a_model_shows_its_key(server: ProviderServer) -> None:
    server.reply(Reply(text("a"), END))
    client = OpenAIClient(base_url=server.url, api_key=KEY)
    model = client.completion_model("m")
    stream = model.chat_stream(HI)
    for thing in (client, model, client._endpoint, stream, stream.response):
        assert KEY not in repr(thing)
        assert KEY not in str(thing)
        assert KEY not in shown(vars(thing) if hasattr(thing, "__dict__") else [])
    stream.close()


def test_a_key_stands_in_a_header_and_never_in_a_url(server: ProviderServer) -> None:
    server.always(Reply(text("a"), END))
    model_of(server).chat_stream(HI).collect()
    (request,) = server.requests
    assert KEY not in request.path
    assert [name for name, value in request.headers.items() if KEY in value] == ["authorization"]


def test_a_key_from_the_environment_does_not_travel_in_a_pickle(
    server: ProviderServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    pickled = pickle.dumps(OpenAIModel("m", base_url=server.url))
    assert KEY.encode() not in pickled
    monkeypatch.setenv("OPENAI_API_KEY", "another")
    server.reply(Reply(text("a"), END))
    pickle.loads(pickled).chat_stream(HI).collect()
    assert server.requests[0].header("authorization") == "Bearer another"


def test_the_partial_turn_of_an_error_is_still_there_when_the_key_was_concealed(server: ProviderServer) -> None:
    server.reply(Reply(text("so far"), event(f"{{no JSON: {KEY}")))
    error = failure_of(lambda: model_of(server).chat_stream(HI).collect())
    assert isinstance(error, StreamError)
    assert error.partial is not None
    assert error.partial.text == "so far"


@pytest.mark.parametrize("key", ["k", "none", "invalid"])
def test_a_placeholder_for_a_key_changes_no_word(server: ProviderServer, key: str) -> None:
    body = {"error": {"message": "invalid token, none known", "code": "invalid_api_key"}}
    server.reply(Reply.json(body, status=401))
    with pytest.raises(AuthenticationError) as caught:
        OpenAIModel("m", api_key=key, base_url=server.url).chat_stream(ChatRequest("hi"))
    assert caught.value.code == "invalid_api_key"
    assert "invalid token, none known" in caught.value.message
