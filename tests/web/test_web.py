"""completion.web: bodies, read the way a server reads them. tests/apps runs real servers."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import json
import logging
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import pytest

from completion import (
    Abort,
    AsyncModel,
    AuthenticationError,
    CancelToken,
    ContextOverflowError,
    FinishReason,
    Message,
    ProviderBlockFinished,
    RateLimitError,
    ReasoningDelta,
    ReasoningFinished,
    RedactedReasoning,
    RunFinished,
    RunStarted,
    StepFinished,
    StepStarted,
    StreamCancelledError,
    StreamChunk,
    TextDelta,
    ToolCallArgsDelta,
    ToolCallFinished,
    ToolCallMalformed,
    ToolCallStarted,
    TruncatedStreamError,
    TurnFinished,
    Usage,
    web,
)
from completion.testing import ProviderServer, Reply, ScriptedModel, Stall, WaitFor
from tests.loopback import END, HI, PATIENCE_S, Caught, model_of, text

TURN: list[StreamChunk] = [
    ReasoningDelta("hm"),
    ReasoningFinished("sig"),
    RedactedReasoning("x"),
    TextDelta('Grüße\u2028 🙂 "q"\n'),
    TextDelta("half \ud83d"),
    ProviderBlockFinished("anthropic", {"type": "citations"}),
    ToolCallStarted("c1", "f"),
    ToolCallArgsDelta("c1", '{"a": 1}'),
    ToolCallFinished("c1", "f", {"a": 1}),
    ToolCallStarted("c2", "f"),
    ToolCallMalformed("c2", "f", "{", "not JSON"),
    TurnFinished(FinishReason.TOOL_USE, Usage(1, 2)),
]
GOOD = [TextDelta("Hi"), TurnFinished(FinishReason.END_TURN)]
KEEP_ALIVES = {web.sse: b": keep-alive\n\n", web.ndjson: b" ", web.ui_messages: b": keep-alive\n\n"}
SIDES = ["wsgi", "asgi"]
ALL = [web.sse, web.ndjson, web.text, web.ui_messages]


def body_of(render: Callable[..., Any], side: str, *chunks: StreamChunk | Exception, **options: Any) -> list[bytes]:
    """What a server sends: each piece of bytes that the body yields."""
    model = ScriptedModel(list(chunks))
    if side == "wsgi":
        return list(render(model.chat_stream(HI), **options))

    async def main() -> list[bytes]:
        return [piece async for piece in render(AsyncModel(model).chat_stream(HI), **options)]

    return asyncio.run(main())


def in_a_loop(main: Callable[[], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        return await main()

    return asyncio.run(run())


def documents(sent: bytes, end: bytes) -> list[Any]:
    assert sent.endswith(end)
    return [json.loads(line.removeprefix(b"data: ")) for line in sent.removesuffix(end).split(b"\n") if line]


# Encoding


@pytest.mark.parametrize("side", SIDES)
def test_sse_sends_each_chunk_as_its_json(side: str) -> None:
    sent = b"".join(body_of(web.sse, side, *TURN))
    assert [StreamChunk.from_dict(found) for found in documents(sent, b"data: [DONE]\n\n")] == TURN
    assert sent.count(b"\n\n") == len(TURN) + 1


@pytest.mark.parametrize("side", SIDES)
def test_ndjson_sends_one_line_per_chunk(side: str) -> None:
    sent = b"".join(body_of(web.ndjson, side, *TURN))
    assert [StreamChunk.from_json(line) for line in sent.split(b"\n") if line] == TURN


@pytest.mark.parametrize("side", SIDES)
def test_text_sends_only_the_text(side: str) -> None:
    sent = b"".join(body_of(web.text, side, *TURN))
    assert sent.decode() == 'Grüße\u2028 🙂 "q"\nhalf ?'


@pytest.mark.parametrize("render", ALL)
def test_the_headers_prevent_buffering_on_the_way(render: Callable[..., Any]) -> None:
    body = render(ScriptedModel(GOOD).chat_stream(HI))
    types = {web.ndjson: "application/x-ndjson", web.text: "text/plain"}
    own = {"x-vercel-ai-ui-message-stream": "v1"} if render is web.ui_messages else {}
    assert body.headers == {
        "Content-Type": f"{types.get(render, 'text/event-stream')}; charset=utf-8",
        "Cache-Control": "no-cache, no-transform",
        "X-Accel-Buffering": "no",
        "Content-Encoding": "identity",
        "X-Content-Type-Options": "nosniff",
        **own,
    }
    body.close()


@pytest.mark.parametrize("side", SIDES)
def test_chunks_that_arrive_together_are_sent_together(side: str) -> None:
    chunks = [TextDelta(str(number)) for number in range(1000)]
    pieces = body_of(web.sse, side, *chunks, *GOOD)
    assert len(pieces) < 500
    assert b"".join(pieces).count(b"\n\n") == 1003


@pytest.mark.parametrize("render", ALL)
def test_no_body_is_both_sync_and_async(render: Callable[..., Any]) -> None:
    def has(body: Any) -> list[str]:
        return [name for name in ("__iter__", "__next__", "__aiter__", "__anext__") if hasattr(body, name)]

    assert has(render(ScriptedModel(GOOD).chat_stream(HI))) == ["__iter__", "__next__"]
    assert has(render(AsyncModel(ScriptedModel(GOOD)).chat_stream(HI))) == ["__aiter__", "__anext__"]


def test_the_history_of_a_run_is_not_sent_and_its_turns_are_separated() -> None:
    def chunks() -> Iterator[StreamChunk]:
        said = (Message.assistant("sk-hidden"),)
        yield RunStarted("r", "p", "m")
        for number in (1, 2):
            yield StepStarted("r", f"s{number}", number)
            yield TextDelta(f"turn {number}")
            yield TurnFinished(FinishReason.END_TURN)
            yield StepFinished("r", f"s{number}", number, Usage(), said)
        yield RunFinished("r", FinishReason.END_TURN, Usage(), said)

    for render in (web.sse, web.ndjson, web.ui_messages):
        assert b"sk-hidden" not in b"".join(render(chunks()))
    assert b"".join(web.text(chunks())) == b"turn 1\n\nturn 2"


# Errors


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("render", [web.sse, web.ndjson])
def test_an_error_is_the_last_event(render: Callable[..., Any], side: str) -> None:
    failure = RateLimitError("key sk-1 of ada: slow down", retry_after=7)
    sent = b"".join(body_of(render, side, TextDelta("Hi"), failure))
    assert documents(sent, b"")[-1] == {
        "type": "error",
        "error": {
            "type": "RateLimitError",
            "message": "The model is busy. Please try again in a moment.",
            "retry_after": 7,
        },
    }
    assert b"[DONE]" not in sent
    assert b"sk-1" not in sent


@pytest.mark.parametrize("side", SIDES)
def test_text_sends_the_error_and_breaks_the_transfer_off(side: str) -> None:
    found: list[bytes] = []

    def blocking() -> None:
        found.extend(web.text(ScriptedModel([TextDelta("Hi"), TruncatedStreamError("cut")]).chat_stream(HI)))

    async def waiting() -> None:
        stream = AsyncModel(ScriptedModel([TextDelta("Hi"), TruncatedStreamError("cut")])).chat_stream(HI)
        async for piece in web.text(stream):
            found.append(piece)  # noqa: PERF401  keeps what arrived before the error

    with pytest.raises(TruncatedStreamError):
        blocking() if side == "wsgi" else asyncio.run(waiting())
    assert b"".join(found) == b"Hi\n\n[The connection to the model broke off. The answer is not complete.]\n"


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("render", [web.sse, web.ndjson, web.ui_messages])
def test_chunks_without_an_end_of_turn_do_not_look_complete(render: Callable[..., Any], side: str) -> None:
    chunks = [TextDelta("Hi")]

    async def waiting() -> AsyncIterator[StreamChunk]:
        for chunk in chunks:
            yield chunk

    async def read() -> bytes:
        return b"".join([piece async for piece in render(waiting())])

    sent = b"".join(render(iter(chunks))) if side == "wsgi" else asyncio.run(read())
    assert b"The answer is not complete" in sent


@pytest.mark.parametrize("side", SIDES)
def test_an_error_of_opening_after_the_headers_is_an_event(side: str, server: ProviderServer) -> None:
    server.reply(Reply.json({"error": {"message": "no"}}, status=401))

    async def main() -> bytes:
        return b"".join([piece async for piece in web.sse(AsyncModel(model_of(server)).chat_stream(HI))])

    def late() -> Iterator[StreamChunk]:
        yield from model_of(server).chat_stream(HI)

    sent = b"".join(web.sse(late())) if side == "wsgi" else asyncio.run(main())
    assert b'"AuthenticationError"' in sent


def test_on_error_chooses_what_the_client_reads() -> None:
    sent = b"".join(body_of(web.sse, "wsgi", ContextOverflowError("8,192 tokens at most"), on_error=str))
    assert b"8,192 tokens at most" in sent


def test_a_failing_on_error_is_logged_and_the_default_is_sent(caplog: pytest.LogCaptureFixture) -> None:
    def broken(error: Exception) -> str:
        raise ZeroDivisionError

    sent = b"".join(body_of(web.sse, "wsgi", ContextOverflowError("no"), on_error=broken))
    assert b"too long for this model" in sent
    assert "on_error failed" in caplog.text


def test_a_bug_of_the_program_is_logged_in_full_and_sent_without_details(caplog: pytest.LogCaptureFixture) -> None:
    sent = b"".join(body_of(web.sse, "wsgi", TextDelta("Hi"), ZeroDivisionError("secret")))
    assert b"secret" not in sent
    assert b"The answer could not be completed." in sent
    assert "ZeroDivisionError: secret" in caplog.text


def test_an_error_is_logged_without_quoting_the_provider(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        body_of(web.sse, "wsgi", RateLimitError("you said: hello", status=429))
    assert "RateLimitError 429" in caplog.text
    assert "hello" not in caplog.text


# Silence


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("render", KEEP_ALIVES)
def test_a_silence_is_filled_with_keep_alives(render: Callable[..., Any], side: str, server: ProviderServer) -> None:
    goes_on = threading.Event()
    server.reply(Reply(text("a"), WaitFor(goes_on), text("b"), END))
    pieces: list[bytes] = []

    def seen(piece: bytes) -> None:
        pieces.append(piece)
        if pieces.count(KEEP_ALIVES[render]) == 3:
            goes_on.set()

    async def main() -> None:
        async for piece in render(AsyncModel(model_of(server)).chat_stream(HI), keep_alive=0.02):
            seen(piece)

    if side == "asgi":
        asyncio.run(main())
    else:
        for piece in render(model_of(server).chat_stream(HI), keep_alive=0.02):
            seen(piece)
    assert pieces.count(KEEP_ALIVES[render]) >= 3
    sent = b"".join(pieces)
    assert sent.index(b'"a"') < sent.index(KEEP_ALIVES[render] * 2) < sent.index(b'"b"')


def test_lines_after_a_keep_alive_are_valid_json(server: ProviderServer) -> None:
    goes_on = threading.Event()
    server.reply(Reply(text("a"), WaitFor(goes_on), text("b"), END))
    sent = b""
    for piece in web.ndjson(model_of(server).chat_stream(HI), keep_alive=0.02):
        sent += piece
        if sent.endswith(b"  "):
            goes_on.set()
    assert [json.loads(line)["type"] for line in sent.splitlines()] == ["text_delta", "text_delta", "turn_finished"]


def test_a_silence_does_not_end_a_custom_asynchronous_iterator() -> None:
    async def slow() -> AsyncIterator[StreamChunk]:
        for chunk in GOOD:
            await asyncio.sleep(0.1)
            yield chunk

    async def main() -> list[bytes]:
        return [piece async for piece in web.ndjson(slow(), keep_alive=0.02)]

    pieces = asyncio.run(main())
    assert pieces.count(b" ") >= 2
    assert [json.loads(line)["type"] for line in b"".join(pieces).splitlines()] == ["text_delta", "turn_finished"]


# The client leaves


def test_closing_a_body_during_a_silence_closes_the_connection(server: ProviderServer) -> None:
    server.reply(Reply(text("a"), Stall()))
    body = web.sse(model_of(server).chat_stream(HI), keep_alive=60)
    assert b'"a"' in next(body)
    reading = Caught(lambda: next(body))
    body.close()
    assert server.wait_hung_up()
    assert isinstance(reading.within(PATIENCE_S).error, StopIteration)


def test_closing_or_dropping_an_unread_body_closes_the_connection(server: ProviderServer) -> None:
    server.always(Reply(text("a"), Stall()))
    web.sse(model_of(server).chat_stream(HI)).close()
    assert server.wait_hung_up(count=1)
    web.sse(model_of(server).chat_stream(HI))
    assert server.wait_hung_up(count=2)


def test_a_dropped_body_closes_the_connection(server: ProviderServer) -> None:
    server.reply(Reply(text("a"), Stall()))
    body = web.sse(model_of(server).chat_stream(HI))
    next(body)
    del body
    assert server.wait_hung_up()


@pytest.mark.parametrize("way", ["cancel", "aclose", "close", "drop"])
def test_every_way_to_leave_an_asgi_body_closes_the_connection(server: ProviderServer, way: str) -> None:
    server.reply(Reply(text("a"), Stall()))

    async def main() -> None:
        body: Any = web.sse(await AsyncModel(model_of(server)).chat_stream(HI), keep_alive=60)
        assert b'"a"' in await body.__anext__()
        if way == "aclose":
            await body.aclose()
        elif way == "drop":
            body = None
        else:
            task = asyncio.ensure_future(body.__anext__())
            await asyncio.sleep(0.02)
            threading.Thread(target=body.close).start() if way == "close" else task.cancel()
            with suppress(asyncio.CancelledError, StopAsyncIteration):
                await task
        assert await asyncio.get_running_loop().run_in_executor(None, server.wait_hung_up)

    asyncio.run(main())


@pytest.fixture
def client() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The two sockets of a connection: the client's and the server's."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        theirs = socket.create_connection(listener.getsockname())
        ours, _ = listener.accept()
    with theirs, ours:
        yield theirs, ours


@pytest.mark.parametrize("name", ["gunicorn.socket", "werkzeug.socket", "waitress.client_disconnected"])
@pytest.mark.parametrize("render", ALL)
def test_nothing_is_sent_to_a_client_that_was_seen_to_leave(
    render: Callable[..., Any], name: str, server: ProviderServer, client: tuple[socket.socket, socket.socket]
) -> None:
    server.reply(Reply(text("Hello"), Stall()))
    theirs, ours = client
    has_left = threading.Event()
    environ = {name: has_left.is_set if name.startswith("waitress") else ours}
    body = render(model_of(server).chat_stream(HI), environ=environ)
    while b"Hello" not in next(body):
        pass
    theirs.sendall(b"GET / HTTP/1.1\r\n")  # bytes of a next request do not mean that the client has left
    reading = Caught(lambda: list(body))
    time.sleep(0.3)
    assert not server.hung_up
    began = time.monotonic()
    theirs.close()
    has_left.set()
    assert server.wait_hung_up()
    assert time.monotonic() - began < 3
    if render is web.text:
        assert isinstance(reading.within(PATIENCE_S).error, StreamCancelledError)
    else:
        assert reading.within(PATIENCE_S).result == []


def test_a_client_that_leaves_before_the_headers_is_noticed(
    server: ProviderServer, client: tuple[socket.socket, socket.socket]
) -> None:
    server.reply(Reply(before_headers=[Stall()]))
    theirs, ours = client
    opening = Caught(lambda: web.sse(partial(model_of(server).chat_stream, HI), environ={"gunicorn.socket": ours}))
    assert server.wait_for_requests(1)
    began = time.monotonic()
    theirs.close()
    assert server.wait_hung_up()
    assert time.monotonic() - began < 3
    assert isinstance(opening.within(PATIENCE_S).error, StreamCancelledError)


def test_a_function_that_opens_the_stream_is_called_at_once_and_its_errors_are_raised(server: ProviderServer) -> None:
    server.reply(Reply.json({"error": {"message": "no"}}, status=401), Reply(text("a"), END))
    with pytest.raises(AuthenticationError):
        web.sse(partial(model_of(server).chat_stream, HI))
    body = web.sse(partial(model_of(server).chat_stream, HI))
    assert len(server.requests) == 2
    sent = documents(b"".join(body), b"data: [DONE]\n\n")
    assert [found["type"] for found in sent] == ["text_delta", "turn_finished"]


def test_an_unread_body_of_a_function_closes_the_connection(server: ProviderServer) -> None:
    server.always(Reply(text("a"), Stall()))
    web.sse(partial(model_of(server).chat_stream, HI)).close()
    assert server.wait_hung_up(count=1)
    web.sse(partial(model_of(server).chat_stream, HI))
    assert server.wait_hung_up(count=2)


def test_a_leaving_client_is_noticed_under_gevent(server: ProviderServer) -> None:
    """gevent's poll() does not support POLLRDHUP."""
    code = f"""
from gevent import monkey; monkey.patch_all()
import socket
from completion import ChatRequest, OpenAIModel, web
a, b = socket.socketpair()
model = OpenAIModel("m", api_key="k", base_url={server.url!r})
body = web.sse(model.chat_stream(ChatRequest("Hi")), environ={{"gunicorn.socket": a}})
print(next(body))
b.close()
print(list(body))
"""
    pytest.importorskip("gevent")
    server.reply(Reply(text("a"), Stall()))
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20)
    assert run.stdout.splitlines()[1:] == ["[]"], run.stderr
    assert server.wait_hung_up()


def test_the_token_ends_the_chunks_of_a_custom_generator(server: ProviderServer) -> None:
    server.reply(Reply(text("a"), Stall()))
    with CancelToken() as token:
        stream = model_of(server).chat_stream(HI)
    body = web.sse((chunk for chunk in stream), token=token, keep_alive=60)
    next(body)
    reading = Caught(lambda: list(body))
    body.close()
    assert server.wait_hung_up()
    assert reading.within(PATIENCE_S).result == []


def test_cancelling_the_stream_on_the_server_sends_an_error(server: ProviderServer) -> None:
    server.reply(Reply(text("a"), Stall()))
    stream = model_of(server).chat_stream(HI)
    body = web.sse(stream)
    next(body)
    stream.cancel()
    assert b'"StreamCancelledError"' in b"".join(piece for piece in body if b"keep" not in piece)


def test_a_body_read_to_its_end_returns_the_connection_to_the_pool(server: ProviderServer) -> None:
    server.always(Reply(text("a"), END))
    model = model_of(server)
    for _ in range(3):
        body = web.sse(model.chat_stream(HI))
        assert list(body)[-1] == b"data: [DONE]\n\n"
        body.close()
    assert server.connections == 1


def test_a_client_that_never_reads_stops_the_provider(server: ProviderServer) -> None:
    server.reply(Reply(*[text("x" * 10_000)] * 3000, END))
    body = web.sse(model_of(server).chat_stream(HI))
    next(body)
    pump = body._pump
    assert pump is not None
    ends_at = time.monotonic() + PATIENCE_S
    while not pump.is_full:
        assert time.monotonic() < ends_at
        time.sleep(0.005)
    body.close()
    assert server.wait_hung_up()
    assert server.hangups[0].bytes_sent < 25_000_000


# Wrong arguments


@pytest.mark.parametrize("given", ["text", b"text", 7, AsyncModel(ScriptedModel()), ScriptedModel()])
def test_an_argument_that_is_not_a_stream_raises_a_type_error(given: Any) -> None:
    with pytest.raises(TypeError, match="takes the result of chat_stream"):
        web.sse(given)


def test_a_stream_that_is_both_sync_and_async_raises_a_type_error() -> None:
    class Both:
        def __iter__(self) -> Iterator[StreamChunk]: ...  # type: ignore[empty-body]

        def __aiter__(self) -> AsyncIterator[StreamChunk]: ...  # type: ignore[empty-body]

    with pytest.raises(TypeError, match="both iterable and asynchronously iterable"):
        web.sse(Both())


def test_wsgi_options_for_an_async_stream_raise_a_type_error() -> None:
    with pytest.raises(TypeError, match="environ: for WSGI only"):
        web.sse(AsyncModel(ScriptedModel()).chat_stream(HI), environ={})  # type: ignore[call-overload]


def test_a_wrong_environ_raises_a_type_error() -> None:
    with pytest.raises(TypeError, match="WSGI environment"):
        web.sse(ScriptedModel("a").chat_stream(HI), environ=7)  # type: ignore[call-overload]


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_a_keep_alive_must_be_a_positive_number(seconds: float) -> None:
    with pytest.raises(ValueError, match="keep_alive"):
        web.sse(ScriptedModel("a").chat_stream(HI), keep_alive=seconds)


def test_a_wsgi_body_does_not_import_asyncio() -> None:
    code = "import sys; from completion import web; print('asyncio' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=20)
    assert run.stdout == "False\n"


def test_a_cancelled_stream_is_reported_as_stopped() -> None:
    sent = b"".join(body_of(web.sse, "wsgi", TextDelta("a"), StreamCancelledError("no")))
    assert b"The answer was stopped." in sent


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("render", [web.sse, web.ui_messages])
def test_a_chunk_that_cannot_be_encoded_is_a_failure_after_the_earlier_chunks(
    render: Callable[..., Any], side: str
) -> None:
    sent = b"".join(body_of(render, side, TextDelta("Hi"), ProviderBlockFinished("x", {"a": float("nan")}), *GOOD))
    assert b'"Hi"' in sent
    assert b"The answer could not be completed." in sent
    assert b"finish" not in sent.replace(b"finish-step", b"")


@pytest.mark.parametrize("render", ALL)
def test_cancelling_a_token_of_the_servers_thread_ends_the_body_with_an_error(
    render: Callable[..., Any], server: ProviderServer
) -> None:
    server.reply(Reply(text("half"), Stall()))
    pieces: list[bytes] = []

    def reads() -> None:
        with CancelToken() as token:
            for piece in render(model_of(server).chat_stream(HI)):
                pieces.append(piece)
                if b"half" in piece:
                    token.cancel()

    reading = Caught(reads).within(PATIENCE_S)
    assert isinstance(reading.error, StreamCancelledError) == (render is web.text)
    sent = b"".join(pieces)
    assert b"was stopped" in sent or b'"abort"' in sent
    assert server.wait_hung_up()


@pytest.mark.parametrize("retry_after", [float("nan"), float("inf"), "soon", True, [1]])
@pytest.mark.parametrize("side", SIDES)
def test_a_retry_after_that_json_cannot_contain_is_null(side: str, retry_after: Any) -> None:
    error = RateLimitError("no")
    error.retry_after = retry_after
    sent = b"".join(body_of(web.sse, side, TextDelta("Hi"), error))
    assert documents(sent, b"")[-1]["error"]["retry_after"] is None


def test_an_async_generator_keeps_its_context_variables_between_chunks() -> None:
    """Tracing resets a context variable at the end, which needs the context in which it was set."""
    span: contextvars.ContextVar[str] = contextvars.ContextVar("span")
    found: list[str] = []

    async def chunks() -> AsyncIterator[StreamChunk]:
        before = span.set("mine")
        for chunk in GOOD:
            yield chunk
            found.append(span.get())
        span.reset(before)

    async def main() -> bytes:
        return b"".join([piece async for piece in web.sse(chunks())])

    assert asyncio.run(main()).endswith(b"data: [DONE]\n\n")
    assert found == ["mine"] * 2


@pytest.mark.parametrize("way", ["aclose", "close", "drop", "cancel"])
def test_every_way_to_leave_a_body_closes_a_custom_generator(way: str) -> None:
    async def main() -> None:
        closed = asyncio.Event()

        async def chunks() -> AsyncIterator[StreamChunk]:
            try:
                yield TextDelta("a")
                await asyncio.sleep(60)
            finally:
                closed.set()

        body: Any = web.sse(chunks(), keep_alive=0.02)
        while b"keep" not in await body.__anext__():
            pass
        if way == "aclose":
            await body.aclose()
        elif way == "close":
            body.close()
        elif way == "cancel":
            task = asyncio.ensure_future(body.__anext__())
            await asyncio.sleep(0)
            task.cancel()
        else:
            body = None
            gc.collect()
        await asyncio.wait_for(closed.wait(), PATIENCE_S)

    asyncio.run(main())


def test_a_stream_already_begun_is_closed_if_its_body_ends_at_once(server: ProviderServer) -> None:
    closed = threading.Event()

    def chunks() -> Iterator[StreamChunk]:
        try:
            yield TextDelta("a")
            yield TextDelta("b")
        finally:
            closed.set()

    begun = chunks()
    next(begun)
    with CancelToken() as token:
        token.cancel()
        list(web.sse(begun))
    assert closed.wait(PATIENCE_S)


@pytest.mark.parametrize("side", SIDES)
def test_an_aborted_run_does_not_look_complete_as_text(side: str) -> None:
    end = RunFinished("r", FinishReason.ABORTED, Usage(), (), Abort("timeout", "it took too long"))
    chunks = [RunStarted("r", "p", "m"), StepStarted("r", "s", 1), TextDelta("half an ans"), end]
    pieces: list[bytes] = []

    async def waiting() -> AsyncIterator[StreamChunk]:
        for chunk in chunks:
            yield chunk

    async def read() -> None:
        async for piece in web.text(waiting()):
            pieces.append(piece)  # noqa: PERF401  keeps what arrived before the error

    with pytest.raises(StreamCancelledError):
        pieces.extend(web.text(iter(chunks))) if side == "wsgi" else asyncio.run(read())
    assert b"".join(pieces).endswith(b"[The answer was cut short: it took too long]\n")
    assert b'"abort"' in b"".join(web.sse(iter(chunks)))


@pytest.mark.parametrize(
    ("render", "options", "words"),
    [
        (web.sse, {"foo": 1}, "unknown option foo"),
        (web.sse, {"on_error": 3}, "on_error= takes a function"),
        (web.sse, {"token": 3}, "token= takes a CancelToken"),
        (web.text, {"keep_alive": 3}, "plain text has no keep-alive"),
    ],
)
def test_wrong_options_raise_a_type_error(render: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises(TypeError, match=words):
        render(ScriptedModel("a").chat_stream(HI), **options)
