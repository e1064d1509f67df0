"""Recordings: what is replayed is what came from the network, and no secret is written."""

from __future__ import annotations

import base64
import gzip
import json
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from completion import (
    CancelToken,
    ChatRequest,
    CompletionError,
    ConfigurationError,
    OpenAIModel,
    RetryConfig,
    RetryEvent,
    RetryingModel,
    StreamCancelledError,
    TextDelta,
    Timeout,
)
from completion.testing import Cut, Pause, ProviderServer, Reply, Reset, Stall, Trickle, recorded
from completion.testing.recording import Mode
from completion.testing.recording_file import read, recorded_from, write
from completion.testing.replies import Piece
from completion.testing.scrubbing import Scrubber
from completion.transport.recorder import Traffic
from tests.adapters.test_adapters import ADAPTERS, Adapter
from tests.aws import frame
from tests.loopback import END, FINISH, FRAMINGS, KEY, PATIENCE_S, Caught, Framing, first_text, model_at, text

HELLO: Final = Reply(text("Hel"), text("lo"), END)
OTHER_KEY: Final = "sk-another-key-of-another-length-9876543210"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "answers.jsonl"


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def outcome(model: Any, request: Any = "Hi") -> tuple[Any, ...]:
    """All that a caller sees of one call: chunks, and the type and message of the error."""
    chunks: list[Any] = []
    try:
        chunks.extend(model.chat_stream(request))
    except CompletionError as error:
        return chunks, type(error), str(error), error.status, error.body
    return tuple(chunks)


def both(server: ProviderServer, path: Path, reply: Reply, call: Callable[[Any], Any], **options: Any) -> list[Any]:
    """What the call returns while it is recorded, and when it is replayed without the server."""
    server.reply(reply)
    results = []
    modes: tuple[Mode, ...] = ("record", "replay")
    for mode in modes:
        with recorded(path, mode, **options) as session:
            results.append(call(session))
    assert len(server.requests) == 1
    return results


ENDINGS: Final = {
    "a whole turn": HELLO,
    "byte by byte": Reply(text("Hello ∀ 😀"), END, split=1, batch=True),
    "with a length": Reply(text("Hello"), END, framing="length"),
    "until the connection closes": Reply(text("Hello"), END, framing="close"),
    "without an end of turn": Reply(text("Hello")),
    "an empty body": Reply(),
    "cut": Reply(text("Hel"), Cut()),
    "cut in an event": Reply(text("Hel"), text("lo")[:20], Cut()),
    "cut with a length": Reply(text("Hel"), Cut(), framing="length"),
    "cut after the end of turn": Reply(text("Hel"), FINISH, Cut()),
    "reset": Reply(text("Hel"), Pause(0.05), Reset()),
    "silence": Reply(text("Hel"), Stall()),
    "silence after the end of turn": Reply(text("Hel"), FINISH, Stall()),
    "pings after the end of turn": Reply(text("Hel"), FINISH, Trickle(every=0.02, times=20)),
    "pings for a while": Reply(Trickle(every=0.01, times=3), text("Hel"), END),
    "no answer": Reply(before_headers=[Cut()]),
    "half of the headers": Reply(before_headers=["HTTP/1.1 200 OK\r\nContent-", Cut()]),
    "a reset before the headers": Reply(before_headers=[Reset()]),
    "silence before the headers": Reply(before_headers=[Stall()]),
    "early hints": Reply(text("Hi"), END, before_headers=["HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"]),
    "not HTTP": Reply(before_headers=["SSH-2.0-OpenSSH_9.9\r\n", Cut()]),
    "broken framing": Reply("5\r\nhello\r\nnonsense\r\n", headers={"Transfer-Encoding": "chunked"}, framing="close"),
    "invalid UTF-8": Reply(text("Hel"), b"data: \xff\xfe\n\n", END),
    "invalid JSON": Reply(text("Hel"), b"data: {no\n\n", END),
    "an error event": Reply(text("Hel"), b'data: {"error": {"message": "overloaded"}}\n\n'),
    "a page": Reply.text("<html>", "text/html"),
    "429": Reply.json({"error": {"message": "slow down"}}, 429, {"Retry-After": "7", "x-request-id": "r1"}),
    "500 without a body": Reply(status=500, content_type=None, framing="length"),
    "a redirect": Reply(status=307, headers={"Location": "https://elsewhere.example/"}, framing="length"),
    "a header twice": Reply(text("Hi"), END, headers={"X-A": "1\r\nX-A: 2"}),
    "a header without a space": Reply(text("Hi"), END, headers={"X-A:1\r\nX-B": "2"}),
    "a reason of its own": Reply(before_headers=["HTTP/1.1 418 Short and stout\r\nContent-Length: 0\r\n\r\n", Cut()]),
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_replay_shows_what_the_network_showed(ending: str, any_server: ProviderServer, path: Path) -> None:
    def call(session: requests.Session) -> tuple[Any, ...]:
        timeout = Timeout(read=0.2 if "silence" in ending else PATIENCE_S)
        return outcome(model_at(any_server.url, session=session, timeout=timeout))

    before, replayed = both(any_server, path, ENDINGS[ending], call)
    assert replayed == before
    assert KEY not in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ADAPTERS)
def test_it_records_every_adapter(name: str, any_server: ProviderServer, path: Path) -> None:
    adapter: Adapter = ADAPTERS[name]

    def call(session: requests.Session) -> tuple[Any, ...]:
        return outcome(adapter.model(any_server.url, session=session))

    before, replayed = both(any_server, path, adapter.turn, call)
    assert replayed == before
    assert before[0] == TextDelta("a")
    assert KEY not in path.read_text(encoding="utf-8")


def test_the_body_has_the_same_bytes_in_the_same_pieces(server: ProviderServer, path: Path) -> None:
    sent = [b"\x00\xff", b"a" * 100_000, "ä".encode()[:1], "ä".encode()[1:], b"\r\n\r\n", b"x"]
    script = [part for piece in sent for part in (piece, Pause(0.05))]

    def call(session: requests.Session) -> list[bytes]:
        with session.post(server.url, data=b"q", stream=True) as response:
            return list(response.iter_content(None))

    before, replayed = both(server, path, Reply(*script), call)
    assert b"".join(replayed) == b"".join(before) == b"".join(sent)
    assert replayed == before
    assert len(replayed) >= len(sent)


def test_readers_below_requests_work(server: ProviderServer, path: Path) -> None:
    def call(session: requests.Session) -> list[Any]:
        with session.post(server.url, data=b"q", stream=True) as response:
            return [response.raw.read1(5), response.raw.read(3), response.raw.read(), response.raw.read()]

    before, replayed = both(server, path, Reply("Hello World", framing="length"), call)
    assert replayed == before
    assert before[-1] == b""


def test_the_pieces_have_their_moments(server: ProviderServer, path: Path) -> None:
    server.reply(Reply(Pause(0.1), text("a"), Pause(0.3), END, before_headers=[Pause(0.2)]))
    with recorded(path) as session:
        model_at(server.url, session=session).chat_stream("Hi").collect()
    at = {kind: [line["at"] for line in lines(path) if kind in line] for kind in ("response", "piece", "end")}
    assert 0.2 <= at["response"][0] < at["piece"][0]
    assert at["piece"][0] >= 0.3
    assert at["piece"][1] >= 0.6
    assert at["end"][0] >= at["piece"][1]


@pytest.mark.parametrize(("speed", "least", "most"), [(1.0, 0.6, 5.0), (3.0, 0.2, 0.59), (0.0, 0.0, 0.5)])
def test_a_replay_takes_its_recorded_time_divided_by_the_speed(
    server: ProviderServer, path: Path, speed: float, least: float, most: float
) -> None:
    server.reply(Reply(text("a"), Pause(0.3), END, before_headers=[Pause(0.3)]))
    with recorded(path) as session:
        model_at(server.url, session=session).chat_stream("Hi").collect()
    began = time.monotonic()
    with recorded(path, speed=speed) as session:
        stream = model_at(server.url, session=session).chat_stream("Hi")
        headers_after = time.monotonic() - began
        stream.collect()
    assert least <= time.monotonic() - began < most
    assert headers_after >= least / 2


def test_a_failed_connection_is_recorded(server: ProviderServer, untrusted_server: ProviderServer, path: Path) -> None:
    server.stop()
    urls = (server.url, untrusted_server.url, "http://no-such-host.invalid")
    with recorded(path) as session:
        before = [outcome(model_at(url, session=session)) for url in urls]
    with recorded(path, "replay") as session:
        replayed = [outcome(model_at(url, session=session)) for url in urls]
    assert replayed == before


def note(seen: list[str], event: RetryEvent) -> None:
    seen.append(str(event.error))


def test_a_retry_sees_the_recorded_failures(server: ProviderServer, path: Path) -> None:
    server.reply(Reply.json({}, 503), Reply(before_headers=[Cut()]), HELLO)
    events: list[list[str]] = []
    modes: tuple[Mode, ...] = ("record", "replay")
    for mode in modes:
        seen: list[str] = []
        with recorded(path, mode) as session:
            inner = model_at(server.url, session=session)
            model = RetryingModel(inner, RetryConfig(base_delay=0), on_retry=partial(note, seen))
            assert model.chat_stream("Hi").collect().text == "Hello"
        events.append(seen)
    assert events[0] == events[1]
    assert len(events[0]) == 1  # the transport itself sends again on another connection


# What a caller does to a replayed stream


@pytest.fixture
def slow(server: ProviderServer, path: Path) -> Iterator[OpenAIModel]:
    """A replayed stream: a chunk, a long silence, the end."""
    server.reply(Reply(text("Hel"), Pause(0.3), END))
    with recorded(path, match=["method"]) as session:
        model_at(server.url, session=session).chat_stream("Hi").collect()
    with recorded(path, "replay", speed=0.01, match=["method"]) as session:
        yield model_at(server.url, session=session)


def test_cancel_ends_a_wait_in_another_thread(slow: OpenAIModel) -> None:
    stream = slow.chat_stream("Hi")
    assert first_text(stream) == "Hel"
    reader = Caught(lambda: next(stream))
    time.sleep(0.05)
    began = time.monotonic()
    stream.cancel()
    assert isinstance(reader.within(PATIENCE_S).error, StreamCancelledError)
    assert time.monotonic() - began < 2


def test_a_token_ends_the_wait_for_the_headers(server: ProviderServer, path: Path) -> None:
    server.reply(Reply(text("a"), END, before_headers=[Pause(0.2)]))
    with recorded(path) as session:
        model_at(server.url, session=session).chat_stream("Hi").collect()
    with recorded(path, speed=0.001) as session, CancelToken() as token:
        threading.Timer(0.1, token.cancel).start()
        with pytest.raises(StreamCancelledError):
            model_at(server.url, session=session).chat_stream("Hi")


@pytest.mark.parametrize("limit", ["read", "stall", "total"])
def test_timeouts_expire_in_a_replay(server: ProviderServer, path: Path, limit: str) -> None:
    server.reply(Reply(text("Hel"), Pause(0.3), END))
    with recorded(path) as session:
        model_at(server.url, session=session).chat_stream("Hi").collect()
    _, response, first, *later = lines(path)[1:]  # a busy machine must not delay the first piece beyond the timeout
    moments = [(response, 0.0), (first, 0.0), *((line, 100.0) for line in later)]
    changed = [*lines(path)[:2], *({**line, "at": at} for line, at in moments)]
    path.write_text("".join(json.dumps(line) + "\n" for line in changed), encoding="utf-8")
    with recorded(path, speed=1.0) as session:
        model = model_at(server.url, session=session, timeout=Timeout(**{limit: 0.5}))
        chunks, _, message, *_ = outcome(model)
    assert [chunk.delta for chunk in chunks] == ["Hel"]
    assert f"Timeout.{limit}=0.5" in message


def test_leaving_a_replayed_stream_early_waits_for_nothing(slow: OpenAIModel) -> None:
    began = time.monotonic()
    with slow.chat_stream("Hi") as stream:
        assert first_text(stream) == "Hel"
    assert time.monotonic() - began < 5


def test_no_descriptor_stays_open(server: ProviderServer, path: Path) -> None:
    if not Path("/proc/self/fd").exists():
        pytest.skip("no /proc")
    server.reply(*[Reply(text("Hel"), END)] * 20)
    with recorded(path) as session:
        model = model_at(server.url, session=session)
        for _ in range(20):
            model.chat_stream("Hi").collect()
    before = len(os.listdir("/proc/self/fd"))
    with recorded(path) as session:
        model = model_at(server.url, session=session)
        for number in range(20):
            stream = model.chat_stream("Hi")
            if number % 2:
                stream.collect()
            else:
                next(stream)
                stream.close()
    del stream  # it refers to the pool of connections
    assert len(os.listdir("/proc/self/fd")) <= before


def test_streams_of_several_threads_are_apart(server: ProviderServer, path: Path) -> None:
    server.always(Reply(text("a"), Pause(0.02), text("b"), Pause(0.02), END))
    asked = [ChatRequest(f"question {number}") for number in range(12)]
    modes: tuple[Mode, ...] = ("record", "replay")
    for mode in modes:
        with recorded(path, mode, speed=1.0) as session:
            model = model_at(server.url, session=session)
            readers = [
                Caught(partial(lambda model, one: model.chat_stream(one).collect().text, model, one)) for one in asked
            ]
            assert [reader.within(PATIENCE_S).result for reader in readers] == ["ab"] * len(asked)
    assert len(server.requests) == len(asked)


# Reading further than was recorded


def test_reading_further_than_was_recorded_is_an_error(server: ProviderServer, path: Path) -> None:
    server.reply(Reply(text("Hel"), Pause(0.2), text("lo"), Stall()))
    with recorded(path) as session, model_at(server.url, session=session).chat_stream("Hi") as stream:
        assert first_text(stream) == "Hel"
    with recorded(path) as session:
        stream = model_at(server.url, session=session).chat_stream("Hi")
        assert first_text(stream) == "Hel"
        with pytest.raises(ConfigurationError, match=r"answers\.jsonl: the recording of this answer ends here"):
            next(stream)


def test_a_stream_that_was_cancelled_was_left(server: ProviderServer, path: Path) -> None:
    server.reply(Reply(text("Hel"), Stall()))
    with recorded(path) as session:
        stream = model_at(server.url, session=session).chat_stream("Hi")
        assert first_text(stream) == "Hel"
        threading.Timer(0.1, stream.cancel).start()
        with pytest.raises(StreamCancelledError):
            next(stream)
    assert lines(path)[-1]["how"] == "left"


def test_a_stream_that_is_open_at_the_end_of_the_block_was_left(server: ProviderServer, path: Path) -> None:
    server.reply(Reply(text("Hel"), Stall()))
    with recorded(path) as session:
        stream = model_at(server.url, session=session).chat_stream("Hi")
        assert first_text(stream) == "Hel"
    stream.close()
    assert lines(path)[-1]["how"] == "left"


# Matching


def test_another_request_is_an_error_that_shows_the_difference(server: ProviderServer, path: Path) -> None:
    server.reply(HELLO)
    with recorded(path) as session:
        model_at(server.url, session=session).chat_stream("Why is the sky blue?").collect()
    with recorded(path) as session:
        with pytest.raises(ConfigurationError) as caught:
            model_at(server.url, session=session).chat_stream("Why is the sky red?")
        assert '-      "content": "Why is the sky blue?"' in str(caught.value)
        assert '+      "content": "Why is the sky red?"' in str(caught.value)
        with pytest.raises(ConfigurationError) as caught:
            model_at("https://other.example/v1", session=session).chat_stream("Why is the sky blue?")
        assert f"-{server.url}/chat/completions" in str(caught.value)
        assert "+https://other.example/v1/chat/completions" in str(caught.value)
        assert model_at(server.url, session=session).chat_stream("Why is the sky blue?").collect().text == "Hello"


def test_identical_requests_are_served_in_their_order_and_no_more(server: ProviderServer, path: Path) -> None:
    server.reply(Reply(text("one"), END), Reply(text("two"), END))
    with recorded(path) as session:
        for _ in range(2):
            model_at(server.url, session=session).chat_stream("Hi").collect()
    with recorded(path) as session:
        model = model_at(server.url, session=session)
        assert [model.chat_stream("Hi").collect().text for _ in range(2)] == ["one", "two"]
        with pytest.raises(ConfigurationError, match="was recorded 2 times and is now sent once more"):
            model.chat_stream("Hi")


def test_match_says_what_must_be_the_same(server: ProviderServer, path: Path) -> None:
    server.reply(HELLO)
    with recorded(path) as session:
        model_at(server.url, session=session).chat_stream("Hi").collect()
    with recorded(path, match=["body"]) as session:
        assert model_at("https://a.example", session=session).chat_stream("Hi").collect().text == "Hello"
    with recorded(path, match=["url"]) as session:
        assert model_at(server.url, session=session).chat_stream("Something else").collect().text == "Hello"


def test_json_bodies_are_compared_as_json(server: ProviderServer, path: Path) -> None:
    server.reply(HELLO)
    with recorded(path) as session:
        session.post(server.url, data=b'{"a": 1, "b": 2.0}')
    with recorded(path) as session:
        assert session.post(server.url, data=b'{"b":2.0,"a":1}').ok


def test_a_body_can_be_an_iterator(server: ProviderServer, path: Path) -> None:
    server.reply(HELLO)
    with recorded(path) as session:
        session.post(server.url, data=iter([b"a", b"b"]))
    assert server.requests[0].body == b"ab"
    with recorded(path) as session:
        assert session.post(server.url, data=b"ab").ok


# Secrets


@pytest.mark.parametrize("name", ADAPTERS)
def test_another_key_replays_the_same_file(name: str, server: ProviderServer, path: Path) -> None:
    adapter: Adapter = ADAPTERS[name]
    server.reply(adapter.turn)
    with recorded(path) as session:
        adapter.model(server.url, session=session).chat_stream("Hi").collect()
    with recorded(path) as session:
        adapter.model(server.url, session=session, api_key=OTHER_KEY).chat_stream("Hi").collect()


def test_a_secret_of_an_earlier_request_does_not_change_a_later_one(server: ProviderServer, path: Path) -> None:
    server.always(HELLO)
    for _ in range(2):
        with recorded(path) as session:
            first = model_at(server.url, session=session, headers={"OpenAI-Project": "weather-app"})
            second = model_at(server.url, session=session, api_key=OTHER_KEY)
            first.chat_stream("Hi").collect()
            assert second.chat_stream(f"Describe weather-app and {KEY}.").collect().text == "Hello"
    assert len(server.requests) == 2
    assert "weather-app" not in path.read_text()


def encodings(secret: str) -> list[bytes]:
    """The secret in base64 at each position in a group of three bytes, without the characters at its edges."""
    raw = secret.encode()
    return [base64.b64encode(b"\0" * before + raw)[4 * (before > 0) : -4] for before in range(3)]


def test_a_key_that_the_server_repeats_is_not_written(server: ProviderServer, path: Path) -> None:
    encoded = [base64.b64encode(b"x" * before + KEY.encode() + b"yz").decode() for before in range(3)]
    halves: list[Piece] = [KEY[:9], Pause(0.05), KEY[9:] + "\n\n"]
    server.reply(Reply(b": ", *halves, text(f"{KEY} {' '.join(encoded)}"), b"\xff" + KEY.encode(), END))
    with recorded(path) as session:
        outcome(model_at(f"{server.url}/{KEY}", session=session), f"my key is {KEY}, {encoded[1]}")
    written = path.read_bytes()
    assert KEY.encode() not in written
    assert [one for one in encodings(KEY) if one in written] == []
    body = b"".join(
        base64.b64decode(one["base64"]) if "base64" in one else one["text"].encode()
        for one in lines(path)
        if "piece" in one
    )
    assert KEY.encode() not in body
    assert [one for one in encodings(KEY) if one in body] == []


def test_a_key_in_the_frames_of_bedrock_leaves_their_checksums_right(server: ProviderServer, path: Path) -> None:
    adapter = ADAPTERS["bedrock"]
    body = frame("messageStart", {"role": "assistant"})
    body += frame("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": f"It is {KEY}."}})
    body += frame("messageStop", {"stopReason": "end_turn"}) + frame("metadata", {"usage": {}})
    reply = Reply(body, content_type="application/vnd.amazon.eventstream")
    before, replayed = both(server, path, reply, lambda session: outcome(adapter.model(server.url, session=session)))
    assert before[0] == TextDelta(f"It is {KEY}.")
    assert isinstance(replayed[0], TextDelta)
    assert replayed[0].delta.startswith("It is REDACTED")
    assert replayed[1:] == before[1:]


@pytest.mark.parametrize("key", ["sk-test", "k3y-42"])
def test_a_short_key_is_found_too(key: str, server: ProviderServer, path: Path) -> None:
    server.reply(Reply(text(f"your key is {key}"), END))
    with recorded(path) as session:
        outcome(model_at(f"{server.url}/{key}", session=session, api_key=key), f"my key is {key}")
    assert key not in path.read_text(encoding="utf-8")


def test_a_secret_keeps_its_length(server: ProviderServer, path: Path) -> None:
    def call(session: requests.Session) -> bytes:
        headers = {"Authorization": f"Bearer {KEY}"}
        with session.post(server.url, data=b"q", headers=headers) as response:
            return response.content

    before, replayed = both(server, path, Reply(f"a{KEY}b", framing="length"), call)
    assert len(before) == len(replayed)
    assert (replayed[:1], replayed[-1:]) == (b"a", b"b")


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": f"Bearer {KEY}"},
        {"Authorization": "Basic " + base64.b64encode(f"user:{KEY}".encode()).decode()},
        {"authorization": f"AWS4-HMAC-SHA256 Credential={KEY}/20261129/us-east-1/bedrock/aws4_request, Signature=0"},
        {"x-api-key": KEY},
        {"X-Goog-Api-Key": KEY},
        {"X-Amz-Security-Token": KEY},
        {"Cookie": f"theme=dark; session={KEY}"},
        {"OpenAI-Organization": KEY},
    ],
    ids=lambda headers: next(iter(headers)),
)
def test_secrets_of_each_header_are_found(headers: dict[str, str], server: ProviderServer, path: Path) -> None:
    server.reply(Reply(f"you are {KEY}"))
    with recorded(path) as session:
        session.post(server.url, data=f"I am {KEY}".encode(), headers=headers)
    assert KEY not in path.read_text(encoding="utf-8")


def test_secrets_in_a_url_are_replaced(server: ProviderServer, path: Path) -> None:
    port = server.url.rpartition(":")[2]
    server.reply(HELLO)
    with recorded(path) as session:
        session.post(f"http://me:{KEY}@127.0.0.1:{port}/a?alt=sse&key={OTHER_KEY}&access_token=short", data=b"q")
    written = path.read_text(encoding="utf-8")
    assert not [secret for secret in (KEY, OTHER_KEY, "short") if secret in written]
    assert "alt=sse" in written
    with recorded(path) as session:
        assert session.post(f"http://you:pass@127.0.0.1:{port}/a?alt=sse&key=other&access_token=k", data=b"q").ok


def test_cookies_and_accounts_of_an_answer_are_replaced(server: ProviderServer, path: Path) -> None:
    secret = {
        "Set-Cookie": "__cf=abcdef123456",
        "openai-organization": "acme-inc",
        "anthropic-organization-id": "0f9a8b7c",
    }
    public = {"x-request-id": "req_1", "x-ratelimit-remaining-tokens": "149984"}
    server.reply(Reply(text("Hi"), END, headers=secret | public))
    with recorded(path) as session:
        model_at(server.url, session=session).chat_stream("Hi").collect()
    written = path.read_text(encoding="utf-8")
    assert not [value for value in secret.values() if value in written]
    assert [value for value in public.values() if value not in written] == []


def test_a_difference_does_not_show_the_key(server: ProviderServer, path: Path) -> None:
    server.reply(HELLO)
    with recorded(path) as session:
        model_at(server.url, session=session).chat_stream("Hi").collect()
    with recorded(path) as session, pytest.raises(ConfigurationError) as caught:
        model_at(server.url, session=session).chat_stream(f"My key is {KEY}")
    assert "My key is" in str(caught.value)
    assert KEY not in str(caught.value)


@pytest.mark.parametrize("framing", FRAMINGS)
def test_a_key_in_a_compressed_body_is_not_written(framing: Framing, server: ProviderServer, path: Path) -> None:
    body = gzip.compress(text(f"you are {KEY}") + END)
    headers = {"Content-Encoding": "gzip"}

    def call(session: requests.Session) -> str:
        return model_at(server.url, session=session).chat_stream("Hi").collect().text

    _, replayed = both(server, path, Reply(body, headers=headers, framing=framing, split=40), call)
    assert replayed.startswith("you are REDACTED")
    assert len(replayed) == len(f"you are {KEY}")


def test_a_compressed_body_without_a_key_is_kept(server: ProviderServer, path: Path) -> None:
    reply = Reply(gzip.compress(text("Hello") + END), headers={"Content-Encoding": "gzip"})
    before, replayed = both(server, path, reply, lambda session: outcome(model_at(server.url, session=session)))
    assert replayed == before
    assert [line for line in lines(path) if "base64" in line]


# The file


def test_a_folder_is_refused_before_anything_is_asked(path: Path) -> None:
    for mode in ("record", "auto"):
        with pytest.raises(ConfigurationError, match=r"folder|cannot be read"), recorded(path.parent, mode):
            pass


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no /dev/null")
@pytest.mark.parametrize("mode", ["record", "auto", "replay"])
def test_a_device_is_refused_and_stays_a_device(mode: Mode) -> None:
    with pytest.raises(ConfigurationError, match="this is not a file; give recorded"):
        recorded(os.devnull, mode).__enter__()
    assert Path(os.devnull).is_char_device()


@pytest.mark.skipif(sys.platform != "linux", reason="nobody can write to /proc, root neither")
def test_a_folder_that_cannot_be_written_is_refused_before_anything_is_asked() -> None:
    with pytest.raises(ConfigurationError, match="cannot be written into /proc; check its permissions"):
        recorded("/proc/recording.jsonl").__enter__()


def test_a_recording_that_cannot_be_written_at_the_end_is_our_error(path: Path) -> None:
    with pytest.raises(ConfigurationError, match="the recording cannot be written: ") as caught, recorded(path):
        path.mkdir()
    assert isinstance(caught.value.__cause__, OSError)


@given(st.lists(st.binary(max_size=40), max_size=8), st.lists(st.integers(1, 400), max_size=12), st.booleans())
def test_chunks_and_pieces_come_back_as_they_were(bodies: list[bytes], cuts: list[int], is_whole: bool) -> None:
    framed = b"".join(b"%x\r\n%b\r\n" % (len(body), body) for body in bodies if body) + b"0\r\n\r\n" * is_whole
    sent = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + framed
    places = sorted({0, len(sent), *(cut for cut in cuts if cut < len(sent))})
    traffic = Traffic("POST", "http://a.example", {}, b"", pieces=[(0.5, sent[a:b]) for a, b in pairwise(places)])
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / "a", [recorded_from(traffic, Scrubber())])
        (one,) = read(Path(folder) / "a")
    assert one.end == ("complete" if is_whole else "left")
    assert b"".join(piece for _, piece in one.script("a").pieces) == sent


@given(
    st.binary(max_size=30), st.binary(max_size=30), st.lists(st.integers(1, 200), max_size=8), st.sampled_from([0, 1])
)
def test_no_split_and_no_place_shows_a_key(before: bytes, after: bytes, cuts: list[int], is_encoded: int) -> None:
    body = before + KEY.encode() + after
    body = base64.b64encode(body) if is_encoded else body
    places = sorted({0, len(body), *(cut for cut in cuts if cut < len(body))})
    scrubber = Scrubber()
    scrubber.learn({"x-api-key": KEY}, "")
    pieces = scrubber.scrub_pieces([body[a:b] for a, b in pairwise(places)])
    assert [len(piece) for piece in pieces] == [b - a for a, b in pairwise(places)]
    scrubbed = base64.b64decode(b"".join(pieces)) if is_encoded else b"".join(pieces)
    assert (scrubbed[: len(before)], scrubbed[len(scrubbed) - len(after) :]) == (before, after)
    assert KEY.encode() not in scrubbed


def test_the_file_is_readable(server: ProviderServer, path: Path) -> None:
    server.reply(Reply(text("Grüße 😀"), END))
    with recorded(path) as session:
        model_at(server.url, session=session).chat_stream("Hi").collect()
    written = path.read_text(encoding="utf-8")
    assert "Grüße 😀" in written
    kinds = [next(iter(line)) for line in lines(path)]
    assert (kinds[:3], kinds[-1], set(kinds[3:-1])) == (
        ["completion_recording", "request", "response"],
        "end",
        {"piece"},
    )


def ask_and_fail(server: ProviderServer, path: Path) -> None:
    with recorded(path, "record") as session:
        model_at(server.url, session=session).chat_stream("Hi").collect()
        raise KeyError


def test_an_exception_leaves_no_file(server: ProviderServer, path: Path) -> None:
    server.reply(HELLO)
    with pytest.raises(KeyError):
        ask_and_fail(server, path)
    assert list(path.parent.iterdir()) == []


def test_an_exception_leaves_the_old_file(server: ProviderServer, path: Path) -> None:
    server.reply(HELLO, HELLO)
    with recorded(path) as session:
        model_at(server.url, session=session).chat_stream("Hi").collect()
    before = path.read_bytes()
    with pytest.raises(KeyError):
        ask_and_fail(server, path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_a_block_without_requests_makes_a_file(path: Path) -> None:
    with recorded(path):
        pass
    with recorded(path) as session, pytest.raises(ConfigurationError, match="has no requests"):
        session.get("https://example.com")


def test_a_missing_file_cannot_be_replayed(path: Path) -> None:
    with pytest.raises(ConfigurationError, match="there is no such recording"), recorded(path, "replay"):
        pass


def cut_lines(written: bytes) -> list[bytes]:
    rows = written.splitlines(keepends=True)
    without_one = [b"".join(rows[:number] + rows[number + 1 :]) for number in range(len(rows))]
    return [b"", b"nonsense", b"[]\n", b'{"a": 1}\n', written[:-5], written[: len(written) // 2], *without_one]


def test_a_damaged_file_is_named_and_never_overwritten(server: ProviderServer, path: Path) -> None:
    server.reply(Reply(text("Hel"), Pause(0.05), text("lo"), Pause(0.05), END))
    with recorded(path) as session:
        model_at(server.url, session=session).chat_stream("Hi").collect()
    for damaged in cut_lines(path.read_bytes()):
        path.write_bytes(damaged)
        with pytest.raises(ConfigurationError, match=r"answers\.jsonl: this recording is damaged"), recorded(path):
            pass
        assert path.read_bytes() == damaged


def test_line_ends_of_windows_do_not_matter(server: ProviderServer, path: Path) -> None:
    server.reply(HELLO)
    with recorded(path) as session:
        model_at(server.url, session=session).chat_stream("Hi").collect()
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    with recorded(path) as session:
        assert model_at(server.url, session=session).chat_stream("Hi").collect().text == "Hello"


def test_a_killed_process_leaves_no_file(server: ProviderServer, path: Path) -> None:
    server.always(Reply(text("Hel"), Stall()))
    code = f"""
from completion import OpenAIModel
from completion.testing import recorded
with recorded({str(path)!r}) as session:
    for chunk in OpenAIModel("m", api_key="k", base_url={server.url!r}, session=session).chat_stream("Hi"):
        print("chunk", flush=True)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"chunk\n"
        process.send_signal(signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize(
    "options",
    [{"mode": "once"}, {"speed": -1.0}, {"speed": True}, {"match": ()}, {"match": "url"}, {"match": ["host"]}],
)
def test_a_wrong_argument_is_an_error(options: dict[str, Any], path: Path) -> None:
    with pytest.raises(ValueError, match="recorded: "), recorded(path, **options):
        pass


@pytest.mark.parametrize("mode", ["record", "replay"])
def test_a_model_with_the_session_cannot_be_pickled(mode: Mode, server: ProviderServer, path: Path) -> None:
    with recorded(path):
        pass
    with recorded(path, mode) as session, pytest.raises(TypeError, match=r"recorded: .* cannot be pickled"):
        pickle.dumps(model_at(server.url, session=session))


@pytest.mark.parametrize("mode", ["record", "replay"])
def test_after_the_block_the_session_sends_nothing(mode: Mode, server: ProviderServer, path: Path) -> None:
    with recorded(path):
        pass
    with recorded(path, mode) as session:
        pass
    with pytest.raises(ConfigurationError, match="the block has ended"):
        model_at(server.url, session=session).chat_stream("Hi")
    assert server.requests == []
