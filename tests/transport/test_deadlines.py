"""Every timeout is a deadline: a server cannot delay it with endless framing, events or single bytes, on any wire."""

from __future__ import annotations

import time
import zlib
from typing import Final

import pytest
import requests

from completion import IdleTimeoutError, ServerError, Timeout, TransportError
from completion.testing import Pause, ProviderServer, Reply, Trickle, event
from completion.testing.replies import Piece
from completion.transport import body as transport_body
from completion.wires import assembly
from tests.adapters.test_adapters import ADAPTERS, Adapter, adapters
from tests.loopback import HI, PATIENCE_S, model_of, text
from tests.transport.test_timeouts import NO_CHUNK, SILENCE, TOO_LONG, Limit, assert_ends

EVERY_S: Final = 0.05
FAR_TOO_LONG_S: Final = 4.0
"""All of these servers send for 10 s, and all of these timeouts are half a second."""


def head(status: bytes = b"200 OK", more: bytes = b"") -> bytes:
    usual = b"Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n"
    return b"HTTP/1.1 " + status + b"\r\n" + usual + more + b"\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


EMPTY_BLOCK: Final = chunk(b"\x00\x00\x00\xff\xff")
"""A block of deflate without data."""
ZLIB_HEADER: Final = zlib.compress(b"")[:2]

ENDLESS: Final[dict[str, list[Piece]]] = {
    "chunk size": [b"5", Trickle(b"0", every=EVERY_S)],
    "chunk extension": [b"5;", Trickle(b"x", every=EVERY_S)],
    "one byte chunks": [Trickle(chunk(b":"), every=EVERY_S)],
    "trailers": [b"0\r\n", Trickle(b"X-More: 1\r\n", every=EVERY_S)],
    "one trailer": [b"0\r\nX-More: ", Trickle(b"x", every=EVERY_S)],
}


@adapters
@pytest.mark.parametrize("limit", [NO_CHUNK, TOO_LONG], ids=["stall", "total"])
@pytest.mark.parametrize("endless", ENDLESS.values(), ids=ENDLESS)
def test_a_timeout_ends_a_stream_whose_framing_never_ends(
    server: ProviderServer, adapter: Adapter, limit: Limit, endless: list[Piece]
) -> None:
    server.reply(Reply(before_headers=[head() + chunk(adapter.begun), *endless]))
    assert_ends(lambda: list(adapter.model(server.url, timeout=limit[0]).chat_stream(HI)), limit)
    assert server.wait_hung_up()


@pytest.mark.parametrize("limit", [NO_CHUNK, TOO_LONG], ids=["stall", "total"])
@pytest.mark.parametrize("endless", ENDLESS.values(), ids=ENDLESS)
def test_a_timeout_ends_endless_framing_inside_tls(
    tls_server: ProviderServer, limit: Limit, endless: list[Piece]
) -> None:
    tls_server.reply(Reply(before_headers=[head() + chunk(text("a")), *endless]))
    assert_ends(lambda: list(model_of(tls_server, timeout=limit[0]).chat_stream(HI)), limit)
    assert tls_server.wait_hung_up()


def test_a_timeout_ends_endless_framing_for_a_session_of_the_caller(server: ProviderServer) -> None:
    server.reply(Reply(before_headers=[head() + chunk(text("a")), *ENDLESS["chunk extension"]]))
    with requests.Session() as session:
        assert_ends(lambda: list(model_of(server, timeout=TOO_LONG[0], session=session).chat_stream(HI)), TOO_LONG)


@pytest.mark.parametrize("limit", [NO_CHUNK, TOO_LONG], ids=["stall", "total"])
def test_a_timeout_ends_a_compressed_stream_without_data(server: ProviderServer, limit: Limit) -> None:
    begin = head(more=b"Content-Encoding: deflate\r\n") + chunk(ZLIB_HEADER)
    server.reply(Reply(before_headers=[begin, Trickle(EMPTY_BLOCK, every=EVERY_S)]))
    assert_ends(lambda: list(model_of(server, timeout=limit[0]).chat_stream(HI)), limit)


def test_read_limits_silence_inside_the_framing_too(server: ProviderServer) -> None:
    half: list[Piece] = [b"5;", Trickle(b"x", every=0.02, times=20), Pause(5)]
    server.reply(Reply(before_headers=[head() + chunk(text("a")), *half]))
    began = time.monotonic()
    with pytest.raises(IdleTimeoutError, match=r"Timeout.read=0.5"):
        list(model_of(server, timeout=SILENCE[0]).chat_stream(HI))
    assert 0.5 < time.monotonic() - began < FAR_TOO_LONG_S


@adapters
@pytest.mark.parametrize("endless", ENDLESS.values(), ids=ENDLESS)
def test_endless_framing_after_the_last_event_does_not_delay_the_turn(
    server: ProviderServer, adapter: Adapter, endless: list[Piece]
) -> None:
    server.reply(Reply(before_headers=[head() + chunk(adapter.begun + adapter.ended), *endless]))
    began = time.monotonic()
    assert adapter.model(server.url).chat_stream(HI).collect().text == "a"
    assert time.monotonic() - began < FAR_TOO_LONG_S
    assert server.wait_hung_up()


@adapters
@pytest.mark.parametrize("endless", ENDLESS.values(), ids=ENDLESS)
def test_an_error_body_with_endless_framing_is_read_for_a_limited_time(
    server: ProviderServer, adapter: Adapter, endless: list[Piece], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport_body, "_ERROR_BODY_SECONDS", 0.2)
    server.reply(Reply(before_headers=[head(b"500 Oh") + chunk(b"the disk is full"), *endless]))
    began = time.monotonic()
    with pytest.raises(ServerError, match="the disk is full"):
        adapter.model(server.url).chat_stream(HI)
    assert time.monotonic() - began < FAR_TOO_LONG_S
    assert server.wait_hung_up()


# Interim responses

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
EARLY_HINTS: Final = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n"


@adapters
@pytest.mark.parametrize("interim", [CONTINUE, EARLY_HINTS, b"HTTP/1.1 102 Processing\r\n\r\n"])
def test_interim_responses_are_skipped(server: ProviderServer, adapter: Adapter, interim: bytes) -> None:
    whole = Reply(adapter.begun, adapter.ended, before_headers=[interim, interim])
    server.reply(whole, whole)
    model = adapter.model(server.url)
    assert [model.chat_stream(HI).collect().text for _ in range(2)] == ["a", "a"]
    assert server.connections == 1


@pytest.mark.parametrize("limit", [NO_CHUNK, TOO_LONG], ids=["stall", "total"])
@pytest.mark.parametrize("interim", [CONTINUE, EARLY_HINTS], ids=["100", "103"])
def test_a_timeout_ends_the_wait_while_interim_responses_arrive(
    server: ProviderServer, limit: Limit, interim: bytes
) -> None:
    server.reply(Reply(before_headers=[Trickle(interim, every=EVERY_S)]))
    assert_ends(lambda: model_of(server, timeout=limit[0]).chat_stream(HI), limit)


@pytest.mark.parametrize("interim", [CONTINUE, EARLY_HINTS], ids=["100", "103"])
def test_endless_interim_responses_are_an_error_without_a_timeout_too(server: ProviderServer, interim: bytes) -> None:
    server.reply(Reply(text("a"), before_headers=[interim * 1000]))
    with pytest.raises(TransportError, match="more than 100 interim responses"):
        model_of(server, timeout=Timeout(read=None)).chat_stream(HI)


# After the end of turn

USAGE: Final = event({"id": "c1", "choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}})
STOP: Final = event({"id": "c1", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
SAID: Final = event({"id": "c1", "choices": [{"index": 0, "delta": {"content": "b"}, "finish_reason": "stop"}]})
OVER: Final = event({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 1}})
NO_TEXT: Final = event({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": ""}})
MORE: Final = event({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "b"}})
MESSAGE_STOP: Final = event({"type": "message_stop"})
PING: Final = event({"type": "ping"})

ANTHROPIC: Final = ADAPTERS["anthropic"]
CHAT: Final = {name: adapter for name, adapter in ADAPTERS.items() if adapter.begun == ADAPTERS["openai"].begun}
OTHERS: Final = {name: adapter for name, adapter in ADAPTERS.items() if name not in CHAT and adapter is not ANTHROPIC}
ENDLESS_EVENTS: Final = [
    *[
        pytest.param(adapter, STOP, again, id=f"{name}: {what}")
        for name, adapter in CHAT.items()
        for what, again in (("usage", USAGE), ("stop", STOP), ("comment", b": ping\n\n"))
    ],
    *[
        pytest.param(adapter, adapter.ended, again, id=f"{name}: {what}")
        for name, adapter in OTHERS.items()
        for what, again in (("the end again", adapter.ended), ("comment", b": ping\n\n"))
        if adapter.event is event or what != "comment"  # only server-sent events have comments
    ],
    *[
        pytest.param(ANTHROPIC, OVER, again, id=f"anthropic: {what}")
        for what, again in (("message_delta", OVER), ("no text", NO_TEXT), ("ping", PING), ("comment", b": ping\n\n"))
    ],
    pytest.param(ANTHROPIC, OVER + MESSAGE_STOP, MESSAGE_STOP, id="anthropic: message_stop"),
]


@pytest.fixture
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short waits after the end of a turn."""
    monkeypatch.setattr(assembly, "WAIT_FOR_EOF_S", 0.1)
    monkeypatch.setattr(assembly.TurnReader, "wait_s", 0.5)


@pytest.mark.usefixtures("short_waits")
@pytest.mark.parametrize(("adapter", "end", "again"), ENDLESS_EVENTS)
def test_events_after_the_end_of_turn_do_not_renew_the_wait(
    server: ProviderServer, adapter: Adapter, end: bytes, again: bytes
) -> None:
    server.reply(Reply(adapter.begun, end, Trickle(again, every=EVERY_S)))
    began = time.monotonic()
    assert adapter.model(server.url).chat_stream(HI).collect().text == "a"
    assert time.monotonic() - began < FAR_TOO_LONG_S
    assert server.wait_hung_up()


@pytest.mark.usefixtures("short_waits")
def test_usage_does_not_renew_the_wait_after_a_finish_reason_that_came_with_text(server: ProviderServer) -> None:
    server.reply(Reply(SAID, Trickle(USAGE, every=EVERY_S)))
    began = time.monotonic()
    assert model_of(server, timeout=Timeout(read=0.3)).chat_stream(HI).collect().text == "b"
    assert time.monotonic() - began < FAR_TOO_LONG_S


@pytest.mark.usefixtures("short_waits")
@pytest.mark.parametrize(
    ("adapter", "more"),
    [
        *(pytest.param(adapter, (STOP, SAID), id=name) for name, adapter in CHAT.items()),
        pytest.param(ANTHROPIC, (OVER, MORE), id="anthropic"),
    ],
)
def test_an_answer_that_goes_on_after_its_end_is_waited_for(
    server: ProviderServer, adapter: Adapter, more: tuple[bytes, bytes]
) -> None:
    end, said = more
    server.reply(Reply(adapter.begun, end, said, Pause(0.8), said, Pause(0.8), said, adapter.ended))
    assert adapter.model(server.url, timeout=PATIENCE_S).chat_stream(HI).collect().text == "abbb"


@pytest.mark.usefixtures("short_waits")
@adapters
def test_a_connection_is_used_again_although_the_caller_was_slow_with_the_last_chunk(
    server: ProviderServer, adapter: Adapter
) -> None:
    server.reply(adapter.turn, adapter.turn)
    model = adapter.model(server.url)
    for _ in range(2):
        with model.chat_stream(HI) as stream:
            for one in stream:
                if one.type == "turn_finished":
                    time.sleep(0.4)
                    break
    assert server.connections == 1
