"""No key is shown: not in errors and their causes, reprs, logs, URLs or the local variables of a traceback.

The same holds for the prompt, except in what the provider says (``message``, ``body``): it may quote the request.
"""

from __future__ import annotations

import asyncio
import logging
import pickle
import signal
import socket
import ssl
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType, ModuleType, TracebackType
from typing import Any, Final

import pytest
import requests

import completion
from completion import (
    AsyncModel,
    AuthenticationError,
    CancelToken,
    ChatRequest,
    CompletionError,
    FallbackModel,
    OpenAIClient,
    OpenAIModel,
    RetryConfig,
    RetryEvent,
    RetryingModel,
    StreamCancelledError,
    StreamError,
    Timeout,
    Tool,
    ToolDefinition,
    run_chat,
)
from completion.testing import Cut, ProviderServer, Reply, Reset, Stall, event
from tests.adapters.test_adapters import ADAPTERS, AZURE, Adapter, line
from tests.loopback import END, KEY, PATIENCE_S, Caught, model_of, silent_listener, text
from tests.wire_pieces import body, calls, delta, piece

PROMPT: Final = "a very private question"
ASKED: Final = ChatRequest(PROMPT, system_prompt=PROMPT)
CHUNKED: Final = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
MODULES: Final = completion.__path__[0]
LIBRARIES: Final = (MODULES, "/requests/", "/urllib3/", "/http/client.py", "/sseclient/", "/ssl.py", "/socket.py")

adapters = pytest.mark.parametrize("adapter", [pytest.param(adapter, id=name) for name, adapter in ADAPTERS.items()])


@dataclass(frozen=True)
class Credential:
    """An adapter with one of the ways to give it its key."""

    adapter: Adapter
    options: dict[str, Any]
    variable: str = ""

    def model(self, url: str, **options: Any) -> Any:
        return self.adapter.model(url, **{"timeout": Timeout(read=PATIENCE_S), **self.options, **options})


class Token:
    """A token like those of azure-identity."""

    token = KEY
    expires_on = 4e9


def _credentials() -> Iterator[Any]:
    for name, adapter in ADAPTERS.items():
        variable = adapter.client_class.key_variable
        yield pytest.param(Credential(adapter, {"api_key": KEY}), id=f"{name}, string")
        yield pytest.param(Credential(adapter, {"api_key": lambda: KEY}), id=f"{name}, callable")
        yield pytest.param(Credential(adapter, {"api_key": None}, variable), id=f"{name}, environment")
    for given in ({"token": KEY}, {"token_provider": lambda: KEY}, {"token_provider": Token}):
        kind = f"{next(iter(given))} {type(next(iter(given.values()))).__name__}"
        yield pytest.param(Credential(AZURE, {"api_key": None, **given}), id=f"azure v1, {kind}")
    yield pytest.param(
        Credential(AZURE, {"api_key": None}, "AZURE_OPENAI_AD_TOKEN"), id="azure v1, token of environment"
    )
    for name in ("aws_secret_access_key", "aws_session_token"):
        keys = {"aws_access_key_id": "AKIAEXAMPLE", "aws_secret_access_key": "of-the-access-key", name: KEY}
        yield pytest.param(Credential(ADAPTERS["bedrock"], {"api_key": None, **keys}), id=f"bedrock, {name}")


@pytest.fixture(params=_credentials())
def credential(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Credential:
    """Each way to give each adapter its key, one after the other."""
    found: Credential = request.param
    if found.variable:
        monkeypatch.setenv(found.variable, KEY)
    return found


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error with its causes and contexts, also those that a traceback does not show."""
    todo, seen = [error], set[int]()
    while todo:
        one = todo.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            yield one
            todo += [one.__cause__, one.__context__]


def frames(trace: TracebackType | None) -> Iterator[tuple[str, dict[str, Any]]]:
    """File and local variables of every frame of our modules and of the libraries below them."""
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if any(library in file for library in LIBRARIES):
            yield f"{file}:{trace.tb_lineno}", dict(trace.tb_frame.f_locals)
        trace = trace.tb_next


def shown(thing: object) -> str:
    """What a crash reporter shows of a local variable, with the contents of containers."""
    if isinstance(thing, dict):
        return " ".join(shown(k) + shown(v) for k, v in thing.items())
    if isinstance(thing, list | tuple | set):
        return " ".join(shown(item) for item in thing)
    return repr(thing)


def held(thing: object, depth: int = 8, seen: set[int] | None = None) -> Iterator[str]:
    """The repr of a value, of its attributes and items, of theirs, and so on."""
    seen = set() if seen is None else seen
    if depth == 0 or id(thing) in seen or isinstance(thing, type | ModuleType):
        return
    seen.add(id(thing))
    yield bytes(thing).decode("latin-1") if isinstance(thing, bytes | bytearray) else repr(thing)
    inside = [getattr(thing, "__dict__", None)]
    if isinstance(thing, Mapping):
        inside += [*thing.keys(), *thing.values()]
    elif isinstance(thing, list | tuple | set | frozenset | deque):
        inside += thing
    for one in inside:
        yield from held(one, depth - 1, seen)


def assert_frames_show_no_secret(error: BaseException) -> None:
    """No local variable of a library's frame shows the key or the prompt, in the error and its causes and contexts."""
    for one in chain(error):
        for place, variables in frames(one.__traceback__):
            for name, value in variables.items():
                assert not [view for view in held(value) if KEY in view], f"{name} in {place}"
                assert PROMPT not in shown(value), f"{name} in {place}"


def assert_shows_no_secret(error: BaseException) -> None:
    """The error, its causes and its contexts show neither the key nor the prompt."""
    pickled = pickle.loads(pickle.dumps(error))
    for one in (*chain(error), pickled):
        for view in (str(one), repr(one), repr(one.args), shown(vars(one))):
            assert KEY not in view
            assert PROMPT not in view
        assert getattr(one, "request", None) is None
    assert_frames_show_no_secret(error)
    for secret in (KEY, PROMPT):
        assert secret.encode() not in pickle.dumps(error)
        assert secret not in "".join(traceback.format_exception(error))
    reported = traceback.TracebackException.from_exception(error, capture_locals=True)
    ours = [line for frame in reported.stack if frame.filename != __file__ for line in (frame.locals or {}).values()]
    assert KEY not in "".join(ours)


def failure_of(call: Callable[[], Any]) -> CompletionError:
    with pytest.raises(CompletionError) as caught:
        call()
    return caught.value


@pytest.fixture(autouse=True)
def logs_are_clean(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """For every test of this file: no log record, of any library, at any level, contains the key or the prompt."""
    caplog.set_level(logging.DEBUG)
    yield
    for record in caplog.get_records("call"):
        logged = logging.Formatter().format(record) + shown(vars(record))
        assert KEY not in logged
        assert PROMPT not in logged


def echo(prefix: str = "") -> dict[str, Any]:
    words = f"{prefix}Incorrect API key provided: {KEY}"
    return {"error": {"message": words, "code": f"bad {KEY}", "type": "invalid_request_error"}}


def begun(adapter: Adapter, *rest: Any, **options: Any) -> Reply:
    return Reply(adapter.begun, *rest, **options)


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(lambda adapter: Reply.json(echo(), status=401), id="401"),
        pytest.param(lambda adapter: Reply.json(echo(), status=429), id="429"),
        pytest.param(lambda adapter: Reply.text(f"<html>{KEY}</html>", "text/html", status=502), id="502"),
        pytest.param(
            lambda adapter: Reply(status=302, headers={"Location": f"http://elsewhere.invalid/{KEY}?key={KEY}"}),
            id="redirect",
        ),
        pytest.param(lambda adapter: Reply.json(echo()), id="200 with JSON"),
        pytest.param(lambda adapter: Reply.text(f"<html>{KEY}</html>", "text/html"), id="200 with HTML"),
        pytest.param(lambda adapter: Reply(adapter.event(echo())), id="error event"),
        pytest.param(lambda adapter: begun(adapter, adapter.event(echo())), id="late error event"),
        pytest.param(lambda adapter: begun(adapter, adapter.event(f"{{no JSON: {KEY}")), id="bad JSON"),
        pytest.param(lambda adapter: Reply(f"{KEY}\n\n"), id="no event"),
        pytest.param(lambda adapter: begun(adapter, Cut(), headers={adapter.request_id_header: KEY}), id="request id"),
        pytest.param(lambda adapter: Reply(before_headers=[f"{KEY}\r\n".encode(), Cut()]), id="no HTTP"),
        pytest.param(lambda adapter: Reply(before_headers=[f"{CHUNKED}{KEY}\r\n".encode()]), id="no chunk"),
    ],
)
@adapters
def test_an_echo_of_the_key_is_concealed(
    server: ProviderServer, adapter: Adapter, reply: Callable[[Adapter], Reply]
) -> None:
    server.reply(reply(adapter))
    assert_shows_no_secret(failure_of(lambda: adapter.model(server.url).chat_stream(ASKED).collect()))


def test_the_message_around_a_concealed_key_stays(server: ProviderServer) -> None:
    server.reply(Reply.json(echo(), status=401))
    error = failure_of(lambda: model_of(server).chat_stream(ASKED))
    assert "Incorrect API key provided: [key]" in str(error)
    assert "[key]" in (error.body or "")


def test_no_error_shows_the_key_however_it_was_given(server: ProviderServer, credential: Credential) -> None:
    adapter = credential.adapter
    server.reply(Reply(before_headers=[Cut()]), Reply.json(echo(), status=401), Reply(adapter.event(echo())))
    server.reply(begun(adapter, adapter.event(echo())), begun(adapter, Cut()), begun(adapter))
    model = credential.model(server.url)
    for _ in range(6):
        assert_shows_no_secret(failure_of(lambda: model.chat_stream(ASKED).collect()))
    name, _ = adapter.key_header
    sent = [f"{request.header(name)} {request.header('authorization')}" for request in server.requests]
    assert [KEY in one or "Signature=" in one for one in sent] == [True] * 6


def test_only_the_message_of_the_provider_shows_the_prompt(server: ProviderServer) -> None:
    said = f"messages.0: this is too odd: {PROMPT}"
    server.reply(Reply.json({"error": {"message": said, "type": "invalid_request_error"}}, status=400))
    error = failure_of(lambda: model_of(server).chat_stream(ASKED))
    assert error.message == said
    assert PROMPT in (error.body or "")


@pytest.mark.parametrize(
    "before_headers",
    [[Cut()], [Reset()], [b"HTTP/1.1 200 OK\r\n", Stall()], [Stall()]],
    ids=["cut", "reset", "half of the headers", "silence"],
)
@adapters
def test_a_failure_before_the_headers_does_not_show_the_key(
    server: ProviderServer, adapter: Adapter, before_headers: list[Any]
) -> None:
    server.reply(Reply(before_headers=before_headers))
    model = adapter.model(server.url, timeout=Timeout(read=0.2))
    assert_shows_no_secret(failure_of(lambda: model.chat_stream(ASKED).collect()))


@pytest.mark.parametrize("name", ["stall", "total"])
def test_a_timeout_does_not_show_the_key(server: ProviderServer, name: str) -> None:
    server.reply(Reply(before_headers=[Stall()]))
    model = model_of(server, timeout=Timeout(**{name: 0.2}))
    assert_shows_no_secret(failure_of(lambda: model.chat_stream(ASKED)))


@adapters
def test_a_failure_of_the_stream_does_not_show_the_key(any_server: ProviderServer, adapter: Adapter) -> None:
    ways: list[dict[str, Any]] = [{"pieces": [Cut()]}, {"pieces": [Stall()]}, {"pieces": [Cut()], "framing": "close"}]
    for way in ways:
        any_server.reply(begun(adapter, *way["pieces"], framing=way.get("framing", "chunked")))
    model = adapter.model(any_server.url, timeout=Timeout(read=0.2))
    for _ in ways:
        assert_shows_no_secret(failure_of(lambda: model.chat_stream(ASKED).collect()))


@adapters
def test_a_connection_that_fails_does_not_show_the_key(untrusted_server: ProviderServer, adapter: Adapter) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        refused = f"http://127.0.0.1:{listener.getsockname()[1]}"
    for url in (refused, "http://nowhere.invalid", "http://a..b", untrusted_server.url):
        assert_shows_no_secret(failure_of(lambda: adapter.model(url).chat_stream(ASKED)))  # noqa: B023


@pytest.mark.parametrize("when", ["before", "headers", "stream"])
@adapters
def test_a_cancelled_call_does_not_show_the_key(any_server: ProviderServer, adapter: Adapter, when: str) -> None:
    token = CancelToken()
    if when == "before":
        token.cancel()
    any_server.reply(begun(adapter, Stall()) if when == "stream" else Reply(before_headers=[Stall()]))

    def call() -> None:
        with token:
            adapter.model(any_server.url).chat_stream(ASKED).collect()

    waiting = Caught(call)
    if when != "before":
        assert any_server.wait_for_requests(1)
        token.cancel()
    error = waiting.within(PATIENCE_S).error
    assert isinstance(error, CompletionError)
    assert_shows_no_secret(error)


def test_a_call_that_is_cancelled_while_it_connects_does_not_show_the_key(
    server: ProviderServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = CancelToken()
    found = socket.getaddrinfo

    def slow(*args: Any, **options: Any) -> Any:
        token.cancel()
        return found(*args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    with token:
        error = failure_of(lambda: model_of(server).chat_stream(ASKED))
    assert isinstance(error, StreamCancelledError)
    assert_shows_no_secret(error)


@pytest.mark.parametrize("bad", ["\n", "é", "\x00", " "], ids=["newline", "not ASCII", "null", "space"])
def test_a_bad_key_is_not_repeated(server: ProviderServer, bad: str) -> None:
    error = failure_of(lambda: model_of(server, api_key=KEY + bad + "x").chat_stream(ASKED))
    assert_shows_no_secret(error)
    assert server.connections == 0


def test_a_bad_header_does_not_show_the_key(server: ProviderServer) -> None:
    assert_shows_no_secret(failure_of(lambda: model_of(server, headers={"X-A": "a\nb"}).chat_stream(ASKED)))


def test_a_request_that_is_not_json_does_not_show_the_key(server: ProviderServer) -> None:
    request = ChatRequest(PROMPT, additional_params={"x": object()})
    assert_shows_no_secret(failure_of(lambda: model_of(server).chat_stream(request)))


@pytest.mark.parametrize("url", [f"http://user:{KEY}@host:99999", f"http://host/v1?key={KEY}", f"ftp://{KEY}@host"])
def test_a_base_url_with_a_key_is_refused_and_not_repeated(url: str) -> None:
    assert KEY not in str(failure_of(lambda: OpenAIClient(base_url=url, api_key="other")))


MALFORMED: Final = [f"no header {KEY}", f"{KEY}", f" folded {KEY}", f"X-A : {KEY}", f": {KEY}", f"X-\xe4: {KEY}"]


@pytest.mark.parametrize("line", MALFORMED)
@pytest.mark.parametrize("status", [200, 401])
@adapters
def test_a_malformed_header_with_the_key_is_not_logged(
    any_server: ProviderServer, adapter: Adapter, status: int, line: str
) -> None:
    head = f"HTTP/1.1 {status} OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n{line}\r\nX-B: b\r\n\r\n"
    any_server.reply(Reply(before_headers=[head.encode("latin-1"), adapter.begun, adapter.ended, Cut()]))
    model = adapter.model(any_server.url)
    if status == 200:
        assert model.chat_stream(ASKED).collect().text == "a"
    else:
        assert_shows_no_secret(failure_of(lambda: model.chat_stream(ASKED)))


@pytest.mark.parametrize("line", MALFORMED)
def test_a_malformed_header_with_the_key_is_not_logged_for_a_session_of_the_caller(
    any_server: ProviderServer, authority: tuple[ssl.SSLContext, Path], line: str
) -> None:
    head = f"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n{line}\r\nX-B: b\r\n\r\n"
    any_server.reply(Reply(before_headers=[head.encode("latin-1"), text("a"), END, Cut()]))
    with requests.Session() as session:
        session.verify = str(authority[1])
        assert model_of(any_server, session=session).chat_stream(ASKED).collect().text == "a"


def test_a_malformed_header_without_the_key_is_logged_as_usual_for_a_session_of_the_caller(
    server: ProviderServer, caplog: pytest.LogCaptureFixture
) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nno header\r\n\r\n"
    server.reply(Reply(before_headers=[head, text("a"), END, Cut()]))
    with requests.Session() as session:
        model_of(server, session=session).chat_stream(ASKED).collect()
    (record,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert record.getMessage().startswith("Failed to parse headers")
    assert record.exc_info is not None


def test_a_malformed_header_is_logged_without_its_text(
    server: ProviderServer, caplog: pytest.LogCaptureFixture
) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nno header\r\n\r\n"
    server.reply(Reply(before_headers=[head, text("a"), END, Cut()]))
    assert model_of(server).chat_stream(ASKED).collect().text == "a"
    reported = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert reported == ["a header line of a response is malformed: this line and those below it are ignored"]


def test_an_unknown_event_type_that_is_the_key_is_not_logged(server: ProviderServer) -> None:
    adapter = ADAPTERS["anthropic"]
    strangers = [
        event({"type": KEY}),
        event({"type": "content_block_delta", "index": 0, "delta": {"type": KEY}}),
    ]
    server.reply(Reply(adapter.begun, *strangers, adapter.ended))
    assert adapter.model(server.url).chat_stream(ASKED).collect().text == "a"


@adapters
def test_a_field_of_an_event_that_is_the_key_is_not_logged(server: ProviderServer, adapter: Adapter) -> None:
    server.reply(Reply(f"{KEY}: x\nx: {KEY}\nid: {KEY}\nretry: {KEY}\nevent: {KEY}\n\n", adapter.begun, adapter.ended))
    model = adapter.model(server.url)
    try:
        model.chat_stream(ASKED).collect()
    except CompletionError as error:
        assert_shows_no_secret(error)


def test_a_key_in_the_headers_of_a_response_is_concealed(server: ProviderServer, credential: Credential) -> None:
    adapter = credential.adapter
    server.reply(begun(adapter, adapter.ended, headers={adapter.request_id_header: f"of {KEY}", KEY: "a"}))
    response = credential.model(server.url).chat_stream(ASKED).response
    assert response.request_id == "of [key]"
    assert KEY.lower() not in repr(response).lower()


def test_no_repr_of_a_model_or_its_parts_shows_the_key(server: ProviderServer, credential: Credential) -> None:
    server.reply(credential.adapter.turn)
    model = credential.model(server.url)
    client = model.client
    stream = model.chat_stream(ASKED)
    endpoint = client.endpoint
    things = [client, model, endpoint, endpoint._key, endpoint._transport, stream, stream.response]
    things += [RetryingModel(model), FallbackModel([model])]
    for thing in things:
        assert KEY not in repr(thing) + str(thing)
        assert KEY not in shown(vars(thing) if hasattr(thing, "__dict__") else [])
    stream.close()


@adapters
def test_retrying_does_not_show_the_key(server: ProviderServer, adapter: Adapter) -> None:
    reported: list[RetryEvent] = []
    model = RetryingModel(adapter.model(server.url), RetryConfig(max_attempts=4, base_delay=0), reported.append)
    slow = {"error": {"message": f"Too many requests with {KEY}", "type": "rate_limit_error"}}
    server.reply(
        Reply(before_headers=[Cut()]), Reply.json(echo(), status=429), Reply(adapter.event(slow)), adapter.turn
    )
    assert model.chat_stream(ASKED).collect().text == "a"
    server.reply(*[Reply.json(echo(), status=503)] * 4)
    error = failure_of(lambda: model.chat_stream(ASKED))
    assert len(reported) == 6
    assert not [one for one in reported if KEY in shown(one) or PROMPT in shown(one)]
    for failed in (error, *(one.error for one in reported)):
        assert_shows_no_secret(failed)


def test_a_token_provider_that_fails_does_not_show_the_earlier_token(server: ProviderServer) -> None:
    tokens = iter([KEY])
    model = AZURE.model(server.url, api_key=None, token_provider=lambda: next(tokens))
    server.reply(AZURE.turn)
    model.chat_stream(ASKED).collect()
    assert_shows_no_secret(failure_of(lambda: model.chat_stream(ASKED)))


@adapters
def test_falling_back_does_not_show_the_key(server: ProviderServer, adapter: Adapter) -> None:
    server.reply(Reply.json(echo(), status=401), Reply(adapter.event(echo())), Reply(before_headers=[Cut()]))
    model = FallbackModel([adapter.model(server.url) for _ in range(3)])
    assert_shows_no_secret(failure_of(lambda: model.chat_stream(ASKED).collect()))


def test_the_partial_turn_of_an_error_is_still_there_when_the_key_was_concealed(server: ProviderServer) -> None:
    server.reply(Reply(text("so far"), event(f"{{no JSON: {KEY}")))
    error = failure_of(lambda: model_of(server).chat_stream(ASKED).collect())
    assert isinstance(error, StreamError)
    assert error.partial is not None
    assert error.partial.text == "so far"


@pytest.mark.parametrize("key", ["k", "none", "invalid"])
def test_a_placeholder_for_a_key_is_not_concealed(server: ProviderServer, key: str) -> None:
    body = {"error": {"message": "invalid token, none known", "code": "invalid_api_key"}}
    server.reply(Reply.json(body, status=401))
    with pytest.raises(AuthenticationError) as caught:
        OpenAIModel("m", api_key=key, base_url=server.url).chat_stream(ChatRequest("hi"))
    assert caught.value.code == "invalid_api_key"
    assert "invalid token, none known" in caught.value.message


# --- exceptions of signal handlers ---------------------------------------------------------------------------------


class SoftLimit(Exception):
    """Like Celery's SoftTimeLimitExceeded."""


class Ended(BaseException):
    """Like GreenletExit."""


RAISED: Final = (SoftLimit, Ended, KeyboardInterrupt, SystemExit)

with_signals = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGALRM")
raised = pytest.mark.parametrize("kind", RAISED, ids=lambda kind: kind.__name__)


def _is_of_garbage_collection(frame: FrameType) -> bool:
    module = str(frame.f_globals.get("__name__")).partition(".")[0]
    return frame.f_code.co_name == "__del__" or module in ("weakref", "_weakrefset", "hypothesis")


@contextmanager
def interrupted(
    kind: type[BaseException], place: str, is_time: Callable[[FrameType], bool] = lambda frame: True
) -> Iterator[None]:
    """A signal handler raises the exception while a function of this name runs. Then no frame shows a secret."""
    error = kind("ended")

    def handler(number: int, frame: FrameType | None) -> None:
        while frame is not None and frame.f_code.co_name != place:
            if _is_of_garbage_collection(frame):  # Python ignores an exception there: wait for the next signal
                return
            frame = frame.f_back
        if frame is not None and is_time(frame):
            signal.setitimer(signal.ITIMER_REAL, 0)
            raise error

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
    try:
        with pytest.raises(kind) as caught:
            yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert caught.value is error
    assert place in {entry.name for entry in caught.traceback}
    assert_frames_show_no_secret(error)


# The signal may arrive between the making of the socket and urllib3's ``try`` around its use.
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
@with_signals
@raised
@adapters
def test_an_interrupted_connect_does_not_show_the_key(adapter: Adapter, kind: type[BaseException]) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        others = [socket.socket() for _ in range(3)]
        for other in others:  # they fill the backlog: the next connect gets no answer
            other.setblocking(False)
            other.connect_ex(listener.getsockname())
        model = adapter.model(f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=Timeout(connect=PATIENCE_S))
        # Not before there is a socket: the codec of the host name puts its own words around an exception.
        with interrupted(kind, "create_connection", lambda frame: frame.f_locals.get("sock") is not None):
            model.chat_stream(ASKED)
        for other in others:
            other.close()


@with_signals
@raised
@adapters
def test_an_interrupted_handshake_does_not_show_the_key(adapter: Adapter, kind: type[BaseException]) -> None:
    with silent_listener() as port, interrupted(kind, "do_handshake"):
        adapter.model(f"https://127.0.0.1:{port}").chat_stream(ASKED)


@with_signals
@raised
def test_an_interrupted_wait_for_headers_does_not_show_the_key(
    server: ProviderServer, credential: Credential, kind: type[BaseException]
) -> None:
    server.reply(Reply(before_headers=[Stall()]))
    model = credential.model(server.url)
    with interrupted(kind, "_read_status"):
        model.chat_stream(ASKED)


@with_signals
@raised
@adapters
def test_an_interrupted_body_does_not_show_the_key(
    any_server: ProviderServer, adapter: Adapter, kind: type[BaseException]
) -> None:
    echoed = adapter.event(KEY)[:-1]  # not complete
    any_server.reply(
        begun(adapter, echoed, Stall()),
        Reply(f"{{{KEY}", Stall(), status=401, content_type="application/json"),
        Reply(f"{{{KEY}", Stall(), content_type="application/json"),
    )
    model = adapter.model(any_server.url)
    last = "readinto" if adapter.event is line else "error_text"  # an object may be the first line of a stream
    for number, place in enumerate(("readinto", "error_text", last), 1):
        # Not before the server has read the request: it would give the same reply to the next one.
        with interrupted(kind, place, lambda frame: len(any_server.requests) == number):  # noqa: B023
            model.chat_stream(ASKED).collect()


@with_signals
@raised
@adapters
def test_an_interrupted_retry_does_not_show_the_key(
    server: ProviderServer, adapter: Adapter, kind: type[BaseException]
) -> None:
    server.reply(Reply.text("", status=503), Reply(before_headers=[Cut()]), Reply(before_headers=[Stall()]))
    model = adapter.model(server.url)
    with interrupted(kind, "sleep"):
        RetryingModel(model, RetryConfig(base_delay=PATIENCE_S, jitter=False)).chat_stream(ASKED)
    with interrupted(kind, "_read_status"):
        FallbackModel([model, model]).chat_stream(ASKED)


@with_signals
@raised
def test_an_interrupted_token_provider_does_not_show_the_token(
    server: ProviderServer, kind: type[BaseException]
) -> None:
    def wait() -> Token:
        if not server.requests:
            return ends_soon
        time.sleep(PATIENCE_S)
        return Token()

    ends_soon = Token()
    ends_soon.expires_on = time.time() + 100
    server.reply(AZURE.turn)
    model = AZURE.model(server.url, api_key=None, token_provider=wait)
    model.chat_stream(ASKED).collect()
    with interrupted(kind, "wait"):
        model.chat_stream(ASKED)
    ends_soon.expires_on = 0
    model.client.endpoint._key.forget_token()
    with interrupted(kind, "wait"):
        model.chat_stream(ASKED)


@with_signals
@raised
def test_an_interrupted_tool_does_not_show_the_key(server: ProviderServer, kind: type[BaseException]) -> None:
    is_over = threading.Event()

    def wait() -> str:
        is_over.wait(PATIENCE_S)
        return "done"

    server.reply(Reply(body(calls(piece(id="c1", name="wait", arguments="{}")), delta("tool_calls"), done=False)))
    with interrupted(kind, "_wait"):
        run_chat(model_of(server), ASKED, [Tool(ToolDefinition("wait", "Waits.", {"type": "object"}), wait)]).collect()
    is_over.set()


@with_signals
@raised
def test_an_interrupted_event_loop_does_not_show_the_key(server: ProviderServer, kind: type[BaseException]) -> None:
    async def ask() -> None:
        async for _ in AsyncModel(model).chat_stream(ASKED):
            pass

    server.reply(Reply(before_headers=[Stall()]))
    model = model_of(server)
    with interrupted(kind, "select"):
        asyncio.run(ask())


@pytest.mark.parametrize(
    "options",
    [{"base_url": "no URL"}, {"timeout": -1}, {"session": "none"}, {"headers": {"X-A": "a\nb"}}],
    ids=lambda options: next(iter(options)),
)
@pytest.mark.parametrize("made", ["client", "model", "registry"])
@adapters
def test_a_bad_option_shows_no_key_in_a_local_variable(adapter: Adapter, made: str, options: dict[str, Any]) -> None:
    given = {**adapter.given("http://127.0.0.1"), **options}
    make: dict[str, Callable[..., Any]] = {
        "client": adapter.client_class,
        "model": partial(adapter.model_class, "m"),
        "registry": partial(completion.model, f"{adapter.family}:m"),
    }
    with pytest.raises((CompletionError, TypeError, ValueError)) as caught:
        make[made](**given)
    assert_frames_show_no_secret(caught.value)


@adapters
def test_an_exception_that_the_caller_is_handling_keeps_its_traceback(server: ProviderServer, adapter: Adapter) -> None:
    server.reply(Reply(before_headers=[Cut()]), begun(adapter, Cut()))
    model = adapter.model(server.url)

    def handling() -> TracebackType | None:
        try:
            raise KeyError("theirs")
        except KeyError as theirs:
            for _ in range(2):
                failure_of(lambda: model.chat_stream(ASKED).collect())
            return theirs.__traceback__

    assert handling() is not None
