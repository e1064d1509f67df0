"""Opening a stream: what is sent, to which host, and the errors for responses that are not a stream."""

from __future__ import annotations

import socket
import ssl
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests
import trustme
from urllib3.exceptions import InsecureRequestWarning

import completion
from completion import (
    AuthenticationError,
    ChatRequest,
    CompletionError,
    ConfigurationError,
    ConnectTimeoutError,
    IdleTimeoutError,
    MalformedStreamError,
    NotFoundError,
    OpenAIClient,
    RateLimitError,
    Timeout,
    Transient,
    TransportError,
    TruncatedStreamError,
    UnsupportedContentError,
)
from completion.testing import Cut, Pause, ProviderServer, Reply, Reset, Stall, Trickle
from completion.testing.replies import Piece
from completion.transport import body as transport_body
from tests.loopback import DONE, END, HI, KEY, PATIENCE_S, Caught, first_text, model_at, model_of, silent_listener, text

ROOT = Path(__file__).parents[2]
TURN = Reply(text("Hello"), END)


def failure_of(call: Callable[[], Any]) -> CompletionError:
    with pytest.raises(CompletionError) as caught:
        call()
    return caught.value


# What is sent


def test_a_request_asks_for_an_uncompressed_event_stream_and_has_the_key(server: ProviderServer) -> None:
    server.reply(TURN)
    model_of(server).chat_stream(HI).collect()
    (request,) = server.requests
    assert (request.method, request.path) == ("POST", "/chat/completions")
    sent = {name: request.header(name) for name in ("accept", "accept-encoding", "content-type", "authorization")}
    assert sent == {
        "accept": "text/event-stream",
        "accept-encoding": "identity",
        "content-type": "application/json",
        "authorization": f"Bearer {KEY}",
    }
    assert request.header("user-agent") == f"completion/{completion.__version__}"


def test_headers_of_the_caller_replace_ours(server: ProviderServer) -> None:
    server.reply(TURN)
    model_of(server, headers={"X-Tenant": "seven", "user-agent": "mine"}).chat_stream(HI).collect()
    (request,) = server.requests
    assert (request.header("x-tenant"), request.header("user-agent")) == ("seven", "mine")


@pytest.mark.parametrize("value", ["a\nb", "a\r\nHost: b", "Ω"], ids=["newline", "injection", "not latin-1"])
def test_an_invalid_header_value_is_a_configuration_error(server: ProviderServer, value: str) -> None:
    error = failure_of(lambda: model_of(server, headers={"X-Tenant": value}).chat_stream(HI))
    assert type(error) is ConfigurationError
    assert "headers=" in error.message


def test_text_is_sent_as_utf_8_and_not_escaped(server: ProviderServer) -> None:
    server.reply(TURN)
    model_of(server).chat_stream(ChatRequest("日本語 🎈")).collect()
    assert "日本語 🎈".encode() in server.requests[0].body


@pytest.mark.parametrize(
    "request_",
    [
        ChatRequest("\ud83d"),
        ChatRequest("Hi", additional_params={"x": float("nan")}),
        ChatRequest("Hi", additional_params={"x": object()}),
    ],
    ids=["half a surrogate pair", "nan", "no JSON"],
)
def test_a_request_that_json_cannot_represent_raises_before_anything_is_sent(
    server: ProviderServer, request_: ChatRequest
) -> None:
    assert type(failure_of(lambda: model_of(server).chat_stream(request_))) is UnsupportedContentError
    assert server.connections == 0


def test_netrc_does_not_replace_the_key(
    server: ProviderServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login someone password else\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    server.reply(TURN)
    model_of(server).chat_stream(HI).collect()
    assert server.requests[0].header("authorization") == f"Bearer {KEY}"


def test_a_cookie_is_not_sent_back(server: ProviderServer) -> None:
    server.always(Reply(text("a"), END, headers={"Set-Cookie": "session=1; Path=/"}))
    model = model_of(server)
    for _ in range(3):
        model.chat_stream(HI).collect()
    assert [request.header("cookie") for request in server.requests] == [None] * 3


def test_a_large_request_may_take_long_if_the_server_goes_on_reading() -> None:
    answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: text/event-stream\r\n\r\n" + text("ok") + END

    def serve(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            arrived = 0
            for amount in (10_000_000, 20_000_000):
                time.sleep(0.6)  # longer than Timeout.connect; two of them are longer than Timeout.read
                while arrived < amount:
                    arrived += len(connection.recv(1 << 20))
            connection.sendall(answer)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(1 << 20):
                pass

    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = Caught(lambda: serve(listener))
        model = model_at(f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=Timeout(connect=0.2, read=1.0))
        turn = model.chat_stream(ChatRequest("x" * 20_000_000)).collect()
        assert serving.within(PATIENCE_S).error is None
    assert turn.text == "ok"


def test_a_request_that_the_server_does_not_read_ends_with_the_read_timeout() -> None:
    with silent_listener() as port:
        model = model_at(f"http://127.0.0.1:{port}", timeout=Timeout(read=0.3))
        error = failure_of(lambda: model.chat_stream(ChatRequest("x" * 20_000_000)))
    assert type(error) is IdleTimeoutError
    assert "did not read the request" in error.message


# What comes back


def test_the_response_is_known_as_soon_as_the_call_returns(server: ProviderServer) -> None:
    server.reply(Reply(text("a"), END, headers={"X-Request-Id": "req_1", "X-Limit": "9"}))
    with model_of(server).chat_stream(HI) as stream:
        response = stream.response
    assert (response.status, response.request_id, response.headers["x-LIMIT"]) == (200, "req_1", "9")


@pytest.mark.parametrize("content_type", ["text/plain", None, "application/json", "Text/Event-Stream; charset=utf-8"])
def test_a_stream_with_any_content_type_is_read(server: ProviderServer, content_type: str | None) -> None:
    server.reply(Reply(text("Hel"), text("lo"), END, content_type=content_type))
    assert model_of(server).chat_stream(HI).collect().text == "Hello"


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (Reply.text("<html>Sign in to the Wi-Fi</html>", "text/html"), MalformedStreamError),
        (Reply.json({"choices": []}), MalformedStreamError),
        (Reply.json({"error": {"message": "no such key", "code": "invalid_api_key"}}), AuthenticationError),
        (Reply.json([{"error": {"message": "no", "code": "model_not_found"}}]), NotFoundError),
    ],
    ids=["html", "json", "json error", "list of one error"],
)
def test_a_200_that_is_not_a_stream_raises_at_the_call(
    server: ProviderServer, reply: Reply, kind: type[CompletionError]
) -> None:
    server.reply(reply)
    error = failure_of(lambda: model_of(server).chat_stream(HI))
    assert type(error) is kind
    assert (error.provider, error.model) == ("openai", "m")


@pytest.mark.parametrize("status", [200, 204])
def test_an_empty_body_is_truncated_at_the_first_next(server: ProviderServer, status: int) -> None:
    framing = {"content-length": "0"} if status == 200 else {}
    server.reply(Reply(status=status, framing="length", headers=framing))
    stream = model_of(server).chat_stream(HI)
    assert isinstance(failure_of(lambda: next(stream)), TruncatedStreamError)
    assert next(stream, None) is None


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_compressed_stream_is_read(server: ProviderServer, encoding: str) -> None:
    packer = zlib.compressobj(wbits=31 if encoding == "gzip" else 15)
    pieces = [packer.compress(text(t)) + packer.flush(zlib.Z_SYNC_FLUSH) for t in ("Hel", "lo")]
    pieces.append(packer.compress(END) + packer.flush())
    server.always(Reply(*pieces, headers={"Content-Encoding": encoding}))
    model = model_of(server)
    assert [model.chat_stream(HI).collect().text for _ in range(2)] == ["Hello"] * 2
    assert server.connections == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed_and_its_error_says_what_to_do(server: ProviderServer, status: int) -> None:
    with ProviderServer() as elsewhere:
        server.reply(Reply(status=status, headers={"Location": elsewhere.url + "/there?token=1"}))
        error = failure_of(lambda: model_of(server).chat_stream(HI))
        assert elsewhere.requests == []
    assert type(error) is ConfigurationError
    assert f"{elsewhere.url}/there" in error.message
    assert "base_url" in error.message
    assert "token" not in str(error)


def test_after_a_refusal_the_connection_is_used_again(server: ProviderServer) -> None:
    server.reply(*[Reply.json({"error": {"message": "busy"}}, status=429)] * 5, TURN)
    model = model_of(server)
    errors = [failure_of(lambda: model.chat_stream(HI)) for _ in range(5)]
    model.chat_stream(HI).collect()
    assert {type(error) for error in errors} == {RateLimitError}
    assert server.connections == 1


@pytest.mark.parametrize("status", [302, 500])
def test_no_more_than_64_kib_of_a_refusal_are_read(server: ProviderServer, status: int) -> None:
    server.reply(Reply(*[b"x" * 100_000] * 300, status=status, headers={"Location": "/there"}))
    error = failure_of(lambda: model_of(server).chat_stream(HI))
    assert error.body == "x" * 65536
    assert server.wait_hung_up()


@pytest.mark.parametrize("status", [302, 500])
def test_reading_a_slow_error_body_stops_after_a_few_seconds(
    server: ProviderServer, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport_body, "_ERROR_BODY_SECONDS", 0.2)
    server.reply(Reply("busy", Trickle(b".", every=0.05), status=status, headers={"Location": "/there"}))
    error = failure_of(lambda: model_of(server).chat_stream(HI))
    assert (error.body or "").startswith("busy")
    assert server.wait_hung_up()
    assert server.hangups[0].after_seconds < 3


# No response


@pytest.mark.parametrize(
    "before_headers",
    [
        [Cut()],
        [Reset()],
        [b"HTTP/1.1 200 OK\r\nContent-Ty", Cut()],
        [b"HTTP/1.1 2", Cut()],
        [b"SSH-2.0-OpenSSH_9.6\r\n", Cut()],
    ],
    ids=["closed", "reset", "half of the headers", "half of the status", "not HTTP"],
)
def test_a_response_that_breaks_off_before_its_body_is_a_transient_error(
    any_server: ProviderServer, before_headers: list[Piece]
) -> None:
    any_server.reply(Reply(before_headers=before_headers))
    error = failure_of(lambda: model_of(any_server).chat_stream(HI).collect())
    assert isinstance(error, TransportError | TruncatedStreamError)
    assert error.retry_classification() == Transient()
    assert "no connection" not in error.message


def test_a_refused_connection_is_a_transport_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    error = failure_of(lambda: model_at(f"http://127.0.0.1:{port}").chat_stream(HI))
    assert type(error) is TransportError
    assert error.retry_classification() == Transient()


def test_a_host_without_an_address_is_a_transport_error() -> None:
    error = failure_of(lambda: model_at("http://nowhere.invalid/v1").chat_stream(HI))
    assert type(error) is TransportError
    assert "nowhere.invalid" in error.message


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a full backlog refuses")
def test_a_connection_that_does_not_open_in_time_is_a_connect_timeout() -> None:
    with silent_listener(backlog=0) as port, socket.create_connection(("127.0.0.1", port)):
        model = model_at(f"http://127.0.0.1:{port}", timeout=Timeout(connect=0.2))
        error = failure_of(lambda: model.chat_stream(HI))
    assert type(error) is ConnectTimeoutError
    assert "Timeout.connect=0.2" in error.message


def test_a_tls_handshake_without_an_answer_is_a_connect_timeout() -> None:
    with silent_listener() as port:
        model = model_at(f"https://127.0.0.1:{port}", timeout=Timeout(connect=0.2))
        assert type(failure_of(lambda: model.chat_stream(HI))) is ConnectTimeoutError


def test_an_untrusted_certificate_is_a_transport_error(untrusted_server: ProviderServer) -> None:
    error = failure_of(lambda: model_of(untrusted_server).chat_stream(HI))
    assert type(error) is TransportError
    assert "certificate" in error.message.lower()
    assert untrusted_server.requests == []


def test_tls_to_a_server_without_tls_is_a_transport_error(server: ProviderServer) -> None:
    error = failure_of(lambda: model_at(server.url.replace("http:", "https:")).chat_stream(HI))
    assert type(error) is TransportError


def test_a_missing_ca_bundle_is_a_configuration_error(
    untrusted_server: ProviderServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere/authority.pem")
    error = failure_of(lambda: model_of(untrusted_server).chat_stream(HI))
    assert type(error) is ConfigurationError
    assert "/nowhere/authority.pem" in error.message


@pytest.mark.parametrize(
    "base_url",
    [
        "/",
        "api.example.com/v1",
        "ftp://host/v1",
        "http://",
        "http://user:pass@host",
        "http://host/v1?key=1",
        "http://host:99999",
        "http://[::1/v1",
    ],
)
def test_an_unusable_base_url_is_a_configuration_error(base_url: str) -> None:
    assert type(failure_of(lambda: OpenAIClient(base_url=base_url, api_key=KEY))) is ConfigurationError


def test_a_host_that_is_not_a_valid_name_is_a_configuration_error() -> None:
    error = failure_of(lambda: model_at("http://a..b/v1").chat_stream(HI))
    assert type(error) is ConfigurationError
    assert "base_url" in error.message


# Proxies and sessions


def test_a_proxy_of_the_environment_is_used(server: ProviderServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", server.url)
    server.reply(TURN)
    assert model_at("http://api.invalid/v1").chat_stream(HI).collect().text == "Hello"
    assert server.requests[0].path == "http://api.invalid/v1/chat/completions"


def test_the_variable_no_proxy_is_obeyed(server: ProviderServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.invalid")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server.reply(TURN)
    assert model_of(server).chat_stream(HI).collect().text == "Hello"


@pytest.mark.parametrize(
    ("proxy", "kind"),
    [("http://proxy.invalid", TransportError), ("http://[::1", ConfigurationError)],
    ids=["missing", "not a URL"],
)
def test_the_error_about_a_bad_proxy_says_that_it_is_the_proxy(
    proxy: str, kind: type[CompletionError], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", proxy)
    error = failure_of(lambda: model_at("http://api.invalid").chat_stream(HI))
    assert type(error) is kind
    assert "proxy" in error.message


def test_a_tunnel_that_the_proxy_refuses_is_a_transport_error(
    server: ProviderServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", server.url)
    server.reply(Reply.text("no", status=403))
    error = failure_of(lambda: model_at("https://api.invalid").chat_stream(HI))
    assert type(error) is TransportError
    assert "proxy" in error.message
    assert [(request.method, request.path) for request in server.requests] == [("CONNECT", "api.invalid:443")]
    assert server.requests[0].header("authorization") is None


def test_a_session_of_the_caller_is_used(
    untrusted_server: ProviderServer, authority: tuple[ssl.SSLContext, Path]
) -> None:
    untrusted_server.always(TURN)
    with requests.Session() as session:
        session.verify = str(authority[1])
        session.headers["X-Tenant"] = "seven"
        assert model_of(untrusted_server, session=session).chat_stream(HI).collect().text == "Hello"
    assert untrusted_server.requests[0].header("x-tenant") == "seven"
    assert untrusted_server.requests[0].header("authorization") == f"Bearer {KEY}"


@pytest.fixture(scope="session")
def other_authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file with the certificate of an authority that signed no server of these tests."""
    bundle = tmp_path_factory.mktemp("tls") / "other.pem"
    trustme.CA().cert_pem.write_to_path(str(bundle))
    return bundle


def test_the_authority_of_a_session_wins_over_that_of_the_environment(
    untrusted_server: ProviderServer,
    authority: tuple[ssl.SSLContext, Path],
    other_authority: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(other_authority))
    untrusted_server.always(TURN)
    with requests.Session() as session:
        session.verify = str(authority[1])
        assert model_of(untrusted_server, session=session).chat_stream(HI).collect().text == "Hello"


def test_the_environment_does_not_add_an_authority_to_that_of_a_session(
    tls_server: ProviderServer, other_authority: Path
) -> None:
    with requests.Session() as session:
        session.verify = str(other_authority)
        error = failure_of(lambda: model_of(tls_server, session=session).chat_stream(HI))
    assert type(error) is TransportError
    assert "certificate" in error.message
    assert tls_server.requests == []


def test_a_session_can_switch_the_check_of_certificates_off_despite_the_environment(
    untrusted_server: ProviderServer, other_authority: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(other_authority))
    untrusted_server.always(TURN)
    with requests.Session() as session:
        session.verify = False
        with pytest.warns(InsecureRequestWarning):
            turn = model_of(untrusted_server, session=session).chat_stream(HI).collect()
    assert turn.text == "Hello"


def test_a_session_that_names_no_authority_uses_that_of_the_environment(tls_server: ProviderServer) -> None:
    tls_server.always(TURN)
    with requests.Session() as session:
        assert model_of(tls_server, session=session).chat_stream(HI).collect().text == "Hello"


def test_requests_of_the_caller_are_logged_as_usual(server: ProviderServer, caplog: pytest.LogCaptureFixture) -> None:
    """The filter that keeps an echoed key out of urllib3's log works during our own requests only."""
    head = f"HTTP/1.1 200 OK\r\nConnection: close\r\nno header {KEY}\r\n\r\n".encode()
    server.reply(TURN, Reply(before_headers=[head, Cut()]))
    model_of(server).chat_stream(HI).collect()
    with requests.Session() as session:
        assert session.post(server.url, data=b"").status_code == 200
    assert f"Failed to parse headers (url={server.url}/): " in caplog.text
    assert KEY in caplog.text


def test_closing_a_client_leaves_the_session_of_the_caller_alone(server: ProviderServer) -> None:
    server.always(TURN)
    with requests.Session() as session:
        client = OpenAIClient(base_url=server.url, api_key=KEY, session=session)
        for _ in range(2):
            client.completion_model("m").chat_stream(HI).collect()
            client.close()
    assert server.connections == 1


def test_a_closed_client_opens_new_connections(server: ProviderServer) -> None:
    server.always(TURN)
    client = OpenAIClient(base_url=server.url, api_key=KEY)
    for _ in range(2):
        client.completion_model("m").chat_stream(HI).collect()
        client.close()
    assert server.connections == 2


def test_timeouts_work_for_a_session_of_the_caller_too(server: ProviderServer) -> None:
    for framing in ("chunked", "length", "close"):
        server.reply(Reply(text("a"), Stall(), framing=framing))
    with requests.Session() as session:
        model = model_of(server, session=session, timeout=Timeout(stall=0.2))
        for _ in range(3):
            stream = model.chat_stream(HI)
            assert first_text(stream) == "a"
            assert type(failure_of(lambda: next(stream))) is IdleTimeoutError  # noqa: B023
    assert server.wait_hung_up(count=3)


# Bodies that break off


@pytest.mark.parametrize(
    ("framing", "kind"),
    [("chunked", TransportError), ("length", TransportError), ("close", TruncatedStreamError)],
)
@pytest.mark.parametrize("pieces", [(Cut(),), (text("lost")[:20], Cut())], ids=["between events", "inside an event"])
def test_a_cut_body_yields_the_chunks_before_the_cut_and_raises(
    any_server: ProviderServer, framing: Any, kind: type[CompletionError], pieces: tuple[Piece, ...]
) -> None:
    any_server.reply(Reply(text("a") + text("b"), *pieces, framing=framing))
    stream = model_of(any_server).chat_stream(HI)
    assert [first_text(stream), first_text(stream)] == ["a", "b"]
    error = failure_of(lambda: next(stream))
    assert type(error) is kind
    assert next(stream, None) is None


def test_a_reset_after_the_first_chunk_is_a_transport_error(server: ProviderServer) -> None:
    server.reply(Reply(text("a"), Pause(0.1), Reset()))
    stream = model_of(server).chat_stream(HI)
    assert first_text(stream) == "a"
    assert type(failure_of(lambda: next(stream))) is TransportError


@pytest.mark.parametrize("framing", ["chunked", "length"])
def test_a_cut_after_the_end_of_turn_changes_nothing(server: ProviderServer, framing: Any) -> None:
    server.reply(Reply(text("a"), END.removesuffix(DONE), Cut(), framing=framing), TURN)
    model = model_of(server)
    assert [model.chat_stream(HI).collect().text for _ in range(2)] == ["a", "Hello"]
    assert server.connections == 2


def test_after_broken_framing_at_the_end_the_connection_is_not_used_again(server: ProviderServer) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    end = text("a") + END.removesuffix(DONE)
    server.reply(Reply(before_headers=[head, b"%x\r\n%b\r\nthis is no size\r\n" % (len(end), end)]), TURN)
    model = model_of(server)
    assert [model.chat_stream(HI).collect().text for _ in range(2)] == ["a", "Hello"]
    assert server.connections == 2


def test_without_free_descriptors_the_error_says_what_to_do_and_the_next_call_works(server: ProviderServer) -> None:
    server.always(TURN)
    code = f"""
import os, resource
from completion import ChatRequest, OpenAIModel, TransportError, run_chat
model = OpenAIModel("m", api_key="sk-of-the-test", base_url={server.url!r})
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
for left in (0, 1):
    held = []
    try:
        while True:
            held.append(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        for one in held[:left]:
            os.close(one)
    try:
        list(run_chat(model, ChatRequest("Hi")))
    except TransportError as error:
        print(error)
    for one in held[left:]:
        os.close(one)
print(list(run_chat(model, ChatRequest("Hi")))[-1].reason)
"""
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert run.stderr == ""
    *errors, reason = run.stdout.splitlines()
    assert len(errors) == 2
    assert all("this process has too many files and connections open: close some" in error for error in errors)
    assert reason == "end_turn"
