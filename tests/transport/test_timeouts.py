"""The timeouts read, stall and total, against servers that are silent, ping for ever or send a byte now and then."""

from __future__ import annotations

import errno
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests
from requests.adapters import HTTPAdapter

from completion import (
    ConnectTimeoutError,
    DeadlineExceededError,
    IdleTimeoutError,
    StreamCancelledError,
    Timeout,
    Transient,
    TransportError,
)
from completion.testing import ProviderServer, Reply, Stall, Trickle, WaitFor
from completion.testing.replies import Piece
from completion.transport.credentials import Authorization
from completion.transport.exchange import Exchange
from completion.wires.assembly import TurnReader
from tests.loopback import (
    END,
    FINISH,
    FRAMINGS,
    HI,
    PATIENCE_S,
    Framing,
    first_text,
    model_at,
    model_of,
    silent_listener,
    text,
)

PINGS = Trickle(b": ping\n\n", every=0.05)
CHUNKS = Trickle(text("x"), every=0.05)
HALF_THE_HEADERS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
MORE_HEADERS = Trickle(b"X-More: 1\r\n", every=0.05)

SILENCE = (Timeout(read=0.5), IdleTimeoutError, "Timeout.read=0.5")
NO_CHUNK = (Timeout(stall=0.5), IdleTimeoutError, "Timeout.stall=0.5")
TOO_LONG = (Timeout(total=0.5), DeadlineExceededError, "Timeout.total=0.5")

Limit = tuple[Timeout, type[TransportError], str]


def assert_ends(call: Callable[[], Any], limit: Limit) -> None:
    """The call ends after the 0.5 s of the limit, with an error that names the limit."""
    _, kind, name = limit
    began = time.monotonic()
    with pytest.raises(TransportError) as caught:
        call()
    assert 0.45 < time.monotonic() - began < 5
    assert type(caught.value) is kind
    assert name in caught.value.message
    assert caught.value.retry_classification() == Transient()


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize(
    ("limit", "goes_on"),
    [(SILENCE, Stall()), (NO_CHUNK, Stall()), (NO_CHUNK, PINGS), (TOO_LONG, Stall()), (TOO_LONG, CHUNKS)],
    ids=["read: silence", "stall: silence", "stall: pings", "total: silence", "total: chunks"],
)
def test_a_timeout_ends_a_stream_that_has_begun(
    any_server: ProviderServer, limit: Limit, goes_on: Piece, framing: Framing
) -> None:
    any_server.reply(Reply(text("a"), goes_on, framing=framing))
    assert_ends(lambda: list(model_of(any_server, timeout=limit[0]).chat_stream(HI)), limit)
    assert any_server.wait_hung_up()


@pytest.mark.parametrize(
    ("limit", "before"),
    [
        (SILENCE, [Stall()]),
        (SILENCE, [HALF_THE_HEADERS, Stall()]),
        (NO_CHUNK, [Stall()]),
        (NO_CHUNK, [HALF_THE_HEADERS, MORE_HEADERS]),
        (TOO_LONG, [Stall()]),
        (TOO_LONG, [HALF_THE_HEADERS, MORE_HEADERS]),
    ],
    ids=["read", "read: half", "stall", "stall: endless headers", "total", "total: endless headers"],
)
def test_a_timeout_ends_the_wait_for_headers(any_server: ProviderServer, limit: Limit, before: list[Piece]) -> None:
    any_server.reply(Reply(before_headers=before))
    assert_ends(lambda: model_of(any_server, timeout=limit[0]).chat_stream(HI), limit)
    assert any_server.wait_hung_up()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a full backlog refuses")
@pytest.mark.parametrize("limit", [NO_CHUNK, TOO_LONG], ids=["stall", "total"])
def test_a_timeout_ends_the_wait_for_a_connection(limit: Limit) -> None:
    with silent_listener(backlog=0) as port, socket.create_connection(("127.0.0.1", port)):
        assert_ends(lambda: model_at(f"http://127.0.0.1:{port}", timeout=limit[0]).chat_stream(HI), limit)


@pytest.mark.parametrize("limit", [NO_CHUNK, TOO_LONG], ids=["stall", "total"])
def test_a_timeout_ends_a_tls_handshake(limit: Limit) -> None:
    with silent_listener() as port:
        assert_ends(lambda: model_at(f"https://127.0.0.1:{port}", timeout=limit[0]).chat_stream(HI), limit)


def test_stall_does_not_count_the_time_of_the_caller(server: ProviderServer) -> None:
    goes_on = threading.Event()
    server.reply(Reply(text("a"), WaitFor(goes_on), text("b"), END))
    with model_of(server, timeout=Timeout(stall=0.3)).chat_stream(HI) as stream:
        time.sleep(0.4)
        assert first_text(stream) == "a"
        time.sleep(0.4)
        goes_on.set()
        assert first_text(stream) == "b"
        time.sleep(0.4)
        assert next(stream).type == "turn_finished"


def test_total_counts_the_time_of_the_caller(server: ProviderServer) -> None:
    server.reply(Reply(text("a"), Stall()))
    with model_of(server, timeout=Timeout(total=0.3)).chat_stream(HI) as stream:
        assert first_text(stream) == "a"
        time.sleep(0.4)
        with pytest.raises(DeadlineExceededError):
            next(stream)


def test_each_chunk_starts_the_stall_timeout_again(server: ProviderServer) -> None:
    server.reply(Reply(Trickle(text("x"), every=0.05, times=12), END))
    turn = model_of(server, timeout=Timeout(stall=0.4)).chat_stream(HI).collect()
    assert turn.text == "x" * 12


def test_a_body_that_never_ends_does_not_delay_the_end_of_the_turn(
    server: ProviderServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TurnReader, "wait_s", 0.2)
    server.reply(Reply(text("a"), FINISH, Stall()))
    assert model_of(server).chat_stream(HI).collect().text == "a"
    assert server.wait_hung_up()


def test_a_timeout_leaves_no_thread_behind(server: ProviderServer) -> None:
    server.always(Reply(text("a"), END))
    model = model_of(server, timeout=Timeout(stall=60, total=60))
    before = set(threading.enumerate())
    with model.chat_stream(HI):
        timers = [t for t in threading.enumerate() if t not in before and isinstance(t, threading.Timer)]
        for timer in timers:  # they were cancelled when the headers arrived
            timer.join(PATIENCE_S)
        assert not any(timer.is_alive() for timer in timers)


def test_a_cancelled_stream_raises_no_timeout(server: ProviderServer) -> None:
    server.reply(Reply(text("a"), Stall()))
    with model_of(server, timeout=Timeout(total=0.2)).chat_stream(HI) as stream:
        assert first_text(stream) == "a"
        stream.cancel()
        time.sleep(0.3)
        with pytest.raises(StreamCancelledError):
            next(stream)


@pytest.mark.parametrize("name", ["connect", "read", "stall", "total"])
@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf"), "5"])
def test_a_timeout_that_is_not_a_positive_number_is_refused(name: str, seconds: Any) -> None:
    with pytest.raises(ValueError, match=rf"Timeout\.{name} must be a number of seconds above 0, or None"):
        Timeout(**{name: seconds})


@pytest.mark.parametrize(
    ("given", "timeout"),
    [
        (7.5, Timeout(read=7.5)),
        ((3, None), Timeout(connect=3, read=None)),
        (Timeout(total=9), Timeout(total=9)),
    ],
    ids=["a number", "a pair", "a Timeout"],
)
def test_a_timeout_can_be_given_in_the_forms_of_requests(given: Any, timeout: Timeout) -> None:
    assert Timeout.of(given) == timeout


def test_a_stream_without_timeouts_is_read(server: ProviderServer) -> None:
    server.reply(Reply(text("a"), Trickle(times=4), END))
    forever = Timeout(connect=None, read=None)
    assert model_of(server, timeout=forever).chat_stream(HI).collect().text == "a"


class ImpatientAdapter(HTTPAdapter):
    """An adapter of the caller with a timeout of its own, as many programs have one."""

    def send(self, request: requests.PreparedRequest, *args: Any, **options: Any) -> requests.Response:
        return super().send(request, *args, **{**options, "timeout": 0.2})


LIMIT_OF_OTHERS = "within the limit of the Session or the operating system"


@pytest.fixture
def impatient() -> Iterator[dict[str, Any]]:
    """The options of a model without timeouts, whose Session has one."""
    with requests.Session() as session:
        session.mount("http://", ImpatientAdapter())
        yield {"session": session, "timeout": Timeout(connect=None, read=None)}


@pytest.mark.parametrize(
    ("reply", "what"),
    [(Reply(before_headers=[Stall()]), "no response headers arrived"), (Reply(text("a"), Stall()), "no byte arrived")],
    ids=["headers", "stream"],
)
def test_a_timeout_that_the_session_sets_is_not_called_ours(
    server: ProviderServer, impatient: dict[str, Any], reply: Reply, what: str
) -> None:
    server.reply(reply)
    with pytest.raises(IdleTimeoutError) as caught:
        model_of(server, **impatient).chat_stream(HI).collect()
    assert caught.value.message == f"{what} {LIMIT_OF_OTHERS}"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a full backlog refuses")
def test_a_connect_timeout_that_the_session_sets_is_not_called_ours(impatient: dict[str, Any]) -> None:
    with silent_listener(backlog=0) as port, socket.create_connection(("127.0.0.1", port)):
        model = model_at(f"http://127.0.0.1:{port}", **impatient)
        with pytest.raises(ConnectTimeoutError) as caught:
            model.chat_stream(HI)
    assert caught.value.message == f"no connection {LIMIT_OF_OTHERS}"


def test_a_peer_that_tcp_keep_alive_finds_dead_is_a_broken_connection() -> None:
    exchange = Exchange("openai", "m", Timeout(read=None), Authorization({}, ""))
    error = exchange.stream_error(TimeoutError(errno.ETIMEDOUT, "Connection timed out"))
    assert type(error) is TransportError
    assert isinstance(error.retry_classification(), Transient)
