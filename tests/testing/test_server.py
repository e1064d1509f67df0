"""The scripted server itself, seen through raw sockets: what goes over the wire, byte by byte."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests

from completion.testing import Cut, Pause, ProviderServer, Reply, Request, Reset, Stall, Trickle, WaitFor, event
from completion.testing.replies import Piece

GET = b"GET /v1/models HTTP/1.1\r\nHost: test\r\n\r\n"
GET_AND_CLOSE = b"GET /v1/models HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"

# A throwaway P-256 key and its certificate, made for this file; the clients below do not verify it.
TLS_IDENTITY = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgveKTXujT7LjoKXvO
cH1L6UtFWXznOW3xo6naZ/VVI/ihRANCAAQA/7f0vvR1mP3xWPxZ7o4hVi1t0M6B
fYouzBGZ8la99ep+LIgQ0PdJHbfuU9uD6zm93k5IecuBBNc8MkKasCWs
-----END PRIVATE KEY-----
-----BEGIN CERTIFICATE-----
MIIBnzCCAUagAwIBAgIUF7kgdLyPymBAyDV3h+3kJ/yQ27IwCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJMTI3LjAuMC4xMCAXDTI2MTEyMjE5MzI1MVoYDzIxMjYxMDI5
MTkzMjUxWjAUMRIwEAYDVQQDDAkxMjcuMC4wLjEwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAAQA/7f0vvR1mP3xWPxZ7o4hVi1t0M6BfYouzBGZ8la99ep+LIgQ0PdJ
HbfuU9uD6zm93k5IecuBBNc8MkKasCWso3QwcjAdBgNVHQ4EFgQU66TizMJeb+UV
rXY2pcYG0WzDC/YwHwYDVR0jBBgwFoAU66TizMJeb+UVrXY2pcYG0WzDC/YwDwYD
VR0TAQH/BAUwAwEB/zAPBgNVHREECDAGhwR/AAABMA4GA1UdDwEB/wQEAwIChDAK
BggqhkjOPQQDAgNHADBEAiAqYaqoYNrYH289e/5zcGLVMEvkajTzteyDMU6bZfmi
dwIgFt1g4F40aUNKElNmcPf2sIBv06EXXmCBroLFOyudRDg=
-----END CERTIFICATE-----
"""


@pytest.fixture
def server() -> Iterator[ProviderServer]:
    with ProviderServer() as server:
        yield server


@pytest.fixture
def tls_server(tmp_path: Path) -> Iterator[ProviderServer]:
    identity = tmp_path / "identity.pem"
    identity.write_text(TLS_IDENTITY)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identity)
    with ProviderServer(ssl_context=context) as server:
        yield server


def connect(server: ProviderServer) -> socket.socket:
    address = urlsplit(server.url)
    assert address.hostname and address.port
    return socket.create_connection((address.hostname, address.port), timeout=5)


def connect_tls(server: ProviderServer) -> ssl.SSLSocket:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(connect(server), suppress_ragged_eofs=False)


def read_until(sock: socket.socket, end: bytes) -> bytes:
    """What arrives, up to and including `end`; nothing may come after it."""
    arrived = b""
    while not arrived.endswith(end):
        part = sock.recv(65536)
        assert part, f"closed after {arrived!r}"
        arrived += part
    return arrived


def read_to_close(sock: socket.socket) -> bytes:
    arrived = b""
    while part := sock.recv(65536):
        arrived += part
    return arrived


def exchange(server: ProviderServer, request: bytes = GET_AND_CLOSE) -> tuple[str, bytes]:
    """The head and the body of the response, raw, from a connection of its own."""
    with connect(server) as sock:
        sock.sendall(request)
        head, _, body = read_to_close(sock).partition(b"\r\n\r\n")
    return head.decode(), body


# event()


@pytest.mark.parametrize(
    ("made", "wire"),
    [
        (event({"a": [1, "é"]}), 'data: {"a":[1,"é"]}\n\n'),
        (event("[DONE]"), "data: [DONE]\n\n"),
        (event({}, name="ping"), "event: ping\ndata: {}\n\n"),
        (event("one\ntwo\r\nthree\rfour"), "data: one\ndata: two\ndata: three\ndata: four\n\n"),
        (event("a\u2028b"), "data: a\u2028b\n\n"),
        (event(""), "data: \n\n"),
        (event(None), "data: null\n\n"),
    ],
)
def test_an_event_is_written_as_the_sse_standard_says(made: bytes, wire: str) -> None:
    assert made == wire.encode()


# Framing


def test_each_piece_is_one_http_chunk(server: ProviderServer) -> None:
    server.reply(Reply(b"one", "zwölf"))
    head, body = exchange(server)
    assert head == "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked"
    assert body == b"3\r\none\r\n6\r\nzw\xc3\xb6lf\r\n0\r\n\r\n"


def test_an_empty_piece_does_not_end_the_body(server: ProviderServer) -> None:
    server.reply(Reply(b"one", b"", b"two"))
    assert exchange(server)[1] == b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"


def test_length_framing_declares_all_the_bytes(server: ProviderServer) -> None:
    server.reply(Reply(b"one", "ö", Trickle(b"..", every=0, times=3), framing="length"))
    head, body = exchange(server)
    assert "Content-Length: 11" in head
    assert body == b"one\xc3\xb6......"


def test_close_framing_ends_the_body_by_closing(server: ProviderServer) -> None:
    server.reply(Reply(b"one", b"two", framing="close"))
    head, body = exchange(server, GET)
    assert head == "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close"
    assert body == b"onetwo"


@pytest.mark.parametrize(
    ("split", "body"),
    [
        (None, b"2\r\nab\r\n3\r\ncde\r\n1\r\nf\r\n0\r\n\r\n"),
        ("whole", b"5\r\nabcde\r\n1\r\nf\r\n0\r\n\r\n"),
        (2, b"2\r\nab\r\n2\r\ncd\r\n1\r\ne\r\n1\r\nf\r\n0\r\n\r\n"),
        (1, b"1\r\na\r\n1\r\nb\r\n1\r\nc\r\n1\r\nd\r\n1\r\ne\r\n1\r\nf\r\n0\r\n\r\n"),
    ],
)
def test_split_says_how_the_bytes_are_cut(server: ProviderServer, split: int | None, body: bytes) -> None:
    server.reply(Reply(b"ab", b"cde", Pause(0), b"f", split=split))
    assert exchange(server)[1] == body


def test_a_batch_keeps_the_chunks(server: ProviderServer) -> None:
    server.reply(Reply(b"ab", b"cde", Pause(0), b"f", batch=True))
    assert exchange(server)[1] == b"2\r\nab\r\n3\r\ncde\r\n1\r\nf\r\n0\r\n\r\n"


def test_twenty_thousand_pieces_are_sent_quickly(server: ProviderServer) -> None:
    piece = event({"text": "token"})
    server.reply(Reply(*[piece] * 20_000))
    began = time.monotonic()
    assert requests.get(server.url, timeout=10).content == piece * 20_000
    assert time.monotonic() - began < 5


def test_json_and_text_replies_have_a_length(server: ProviderServer) -> None:
    server.reply(Reply.json({"a": "é"}, status=429, headers={"Retry-After": "1"}), Reply.text("hello"))
    head, body = exchange(server)
    assert head.split("\r\n") == [
        "HTTP/1.1 429 Too Many Requests",
        "Content-Type: application/json",
        "Content-Length: 11",
        "Retry-After: 1",
    ]
    assert body == b'{"a": "\xc3\xa9"}'
    assert exchange(server) == ("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5", b"hello")


def test_a_status_without_a_registered_phrase_is_sent(server: ProviderServer) -> None:
    server.reply(Reply.json({}, status=529))
    assert exchange(server)[0].startswith("HTTP/1.1 529 Unknown\r\n")


def test_given_headers_replace_others_in_any_letter_case(server: ProviderServer) -> None:
    server.reply(Reply(b"x", headers={"content-type": "text/html"}))
    assert exchange(server)[0] == "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\nTransfer-Encoding: chunked"


def test_the_content_type_can_be_left_out(server: ProviderServer) -> None:
    server.reply(Reply(b"x", content_type=None))
    assert exchange(server)[0] == "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked"


def test_a_connection_close_header_closes_the_connection(server: ProviderServer) -> None:
    server.reply(Reply(b"x", headers={"Connection": "close"}))
    assert exchange(server, GET)[1] == b"1\r\nx\r\n0\r\n\r\n"


def test_an_invalid_reply_is_refused_when_it_is_made() -> None:
    with pytest.raises(ValueError, match='framing must be "chunked", "length" or "close", got \'lenght\''):
        Reply(framing="lenght")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="positive number, got 0"):
        Reply(b"x", split=0)
    with pytest.raises(TypeError, match="a piece must be bytes, str or a step, got 7"):
        Reply(b"x", 7)  # type: ignore[arg-type]


# Steps


def test_a_pause_delays_the_next_piece(server: ProviderServer) -> None:
    server.reply(Reply(b"one", Pause(0.1), b"two", framing="close"))
    with connect(server) as sock:
        sock.sendall(GET)
        read_until(sock, b"one")
        began = time.monotonic()
        assert read_to_close(sock) == b"two"
        assert time.monotonic() - began > 0.09


def test_wait_for_delays_the_next_piece_until_the_event_is_set(server: ProviderServer) -> None:
    go_on = threading.Event()
    server.reply(Reply(b"one", WaitFor(go_on), b"two", framing="close"))
    with connect(server) as sock:
        sock.sendall(GET)
        read_until(sock, b"one")
        go_on.set()
        assert read_to_close(sock) == b"two"
    assert not server.hung_up


def test_wait_for_cuts_the_connection_after_its_timeout(server: ProviderServer) -> None:
    server.reply(Reply(b"one", WaitFor(threading.Event(), timeout=0.02), b"two"))
    assert exchange(server)[1] == b"3\r\none\r\n"
    assert not server.hung_up


def test_a_stall_ends_after_its_timeout_with_the_connection(server: ProviderServer) -> None:
    server.reply(Reply(b"one", Stall(timeout=0.02)))
    assert exchange(server)[1] == b"3\r\none\r\n"
    assert not server.hung_up


def test_a_cut_leaves_a_chunked_body_open(server: ProviderServer) -> None:
    server.reply(Reply(b"one", Cut(), b"two"))
    assert exchange(server, GET)[1] == b"3\r\none\r\n"


@pytest.mark.parametrize("end", [Cut(), Stall(timeout=0)])
def test_a_cut_body_is_shorter_than_declared(server: ProviderServer, end: Cut | Stall) -> None:
    server.reply(Reply(b"one", end, b"two", framing="length"), Reply(b"one", end, framing="length"))
    lengths = []
    for _ in range(2):
        head, body = exchange(server, GET)
        assert body == b"one"
        lengths.append(head.rpartition("Content-Length: ")[2])
    assert lengths == ["6", "4"]


def test_a_reset_is_seen_as_a_reset(server: ProviderServer) -> None:
    received = threading.Event()
    server.reply(Reply(b"one", WaitFor(received), Reset()))
    with connect(server) as sock:
        sock.sendall(GET)
        read_until(sock, b"3\r\none\r\n")
        received.set()
        with pytest.raises(ConnectionResetError):
            sock.recv(1)
    assert not server.hung_up


def test_the_reply_continues_after_a_trickle(server: ProviderServer) -> None:
    server.reply(Reply(Trickle(b".", every=0.001, times=3), b"done", framing="close"))
    assert exchange(server)[1] == b"...done"


def test_half_a_header_block_can_be_sent(server: ProviderServer) -> None:
    server.reply(Reply(b"never", before_headers=[b"HTTP/1.1 200 OK\r\nContent-", Cut()]))
    assert exchange(server) == ("HTTP/1.1 200 OK\r\nContent-", b"")


def test_a_connection_can_be_closed_without_a_response(server: ProviderServer) -> None:
    server.reply(Reply(before_headers=[Cut()]))
    with pytest.raises(requests.ConnectionError):
        requests.get(server.url, timeout=5)


def test_steps_before_the_headers_delay_them(server: ProviderServer) -> None:
    go_on = threading.Event()
    server.reply(Reply.json({}), Reply(b"x", before_headers=[WaitFor(go_on)]))
    exchange(server)
    with connect(server) as sock:
        sock.sendall(GET_AND_CLOSE)
        assert server.wait_for_requests(2)
        sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            sock.recv(1)
        sock.settimeout(5)
        go_on.set()
        assert read_to_close(sock).startswith(b"HTTP/1.1 200 OK\r\n")


# The script


def test_replies_are_served_in_order_across_connections(server: ProviderServer) -> None:
    server.reply(Reply.text("first"), Reply.text("second"))
    server.reply(Reply.text("third"))
    assert [exchange(server)[1] for _ in range(3)] == [b"first", b"second", b"third"]
    assert server.connections == 3
    assert [request.connection for request in server.requests] == [1, 2, 3]


def test_remaining_counts_the_replies_not_served_yet(server: ProviderServer) -> None:
    server.reply(Reply.text("first"), Reply.text("second"))
    exchange(server)
    assert server.remaining == 1


def test_without_a_scripted_reply_the_server_answers_500(server: ProviderServer) -> None:
    response = requests.post(server.url + "/v1/chat", timeout=5)
    assert response.status_code == 500
    assert response.json() == {"error": {"message": "ProviderServer: no reply scripted for POST /v1/chat"}}
    assert [request.path for request in server.unexpected] == ["/v1/chat"]
    assert server.requests == server.unexpected


def test_always_is_served_when_the_script_is_empty(server: ProviderServer) -> None:
    server.always(Reply.text("always"))
    server.reply(Reply.text("first"))
    assert [exchange(server)[1] for _ in range(3)] == [b"first", b"always", b"always"]
    assert server.unexpected == []


# Requests


def test_a_request_is_recorded_completely(server: ProviderServer) -> None:
    server.reply(Reply.text("ok"))
    exchange(
        server,
        b"POST /v1/chat?beta=true HTTP/1.1\r\nX-Api-Key:  k \r\nAccept: a\r\naccept: b\r\n"
        b'Content-Length: 8\r\nConnection: close\r\n\r\n{"a": 1}',
    )
    (request,) = server.requests
    assert request == Request(
        method="POST",
        path="/v1/chat?beta=true",
        headers={"x-api-key": "k", "accept": "a, b", "content-length": "8", "connection": "close"},
        body=b'{"a": 1}',
        connection=1,
    )
    assert request.json() == {"a": 1}
    assert request.header("X-API-Key") == "k"
    assert request.header("missing") is None


def test_a_chunked_request_body_is_read(server: ProviderServer) -> None:
    server.reply(Reply.text("first"), Reply.text("second"))
    head = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    body = b"3;x=y\r\none\r\nA\r\n0123456789\r\n0\r\nX: y\r\n\r\n"
    exchange(server, head + body + GET_AND_CLOSE)
    assert [request.body for request in server.requests] == [b"one0123456789", b""]


def test_a_request_that_comes_byte_by_byte_is_read(server: ProviderServer) -> None:
    server.reply(Reply(b"ok", framing="close"))
    with connect(server) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in b"POST /a HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc":
            sock.sendall(bytes([byte]))
        assert read_to_close(sock).endswith(b"ok")
    assert [(request.path, request.body) for request in server.requests] == [("/a", b"abc")]


def test_requests_over_one_connection_share_its_number(server: ProviderServer) -> None:
    server.always(Reply(b"one", b"two"))
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=5)
    for _ in range(3):
        connection.request("POST", "/", body=json.dumps({"a": 1}))
        assert connection.getresponse().read() == b"onetwo"
    assert [request.connection for request in server.requests] == [1, 1, 1]
    assert (server.connections, server.open_connections) == (1, 1)
    connection.close()


def test_pipelined_requests_are_answered_in_order(server: ProviderServer) -> None:
    server.reply(Reply(Pause(0.02), b"first"), Reply(Pause(0.02), b"second"))
    body = exchange(server, GET + GET_AND_CLOSE)[1]
    assert body.index(b"first") < body.index(b"second")
    assert not server.hung_up


def test_a_request_is_recorded_before_its_reply_starts(server: ProviderServer) -> None:
    server.reply(Reply(before_headers=[Stall()]))
    with connect(server) as sock:
        sock.sendall(GET)
        assert server.wait_for_requests(1)
        assert server.requests[0].path == "/v1/models"


def test_wait_for_requests_ends_when_the_request_arrives(server: ProviderServer) -> None:
    waiter = threading.Thread(target=server.wait_for_requests, args=(1, 30), daemon=True)
    waiter.start()
    exchange(server)
    waiter.join(5)
    assert not waiter.is_alive()


def test_wait_for_requests_gives_up(server: ProviderServer) -> None:
    assert not server.wait_for_requests(1, timeout=0.01)


@pytest.mark.parametrize("garbage", [b"hello\r\n\r\n", b"GET / HTTP/1.1\r\nno colon\r\n\r\n"])
def test_garbage_is_answered_with_a_400(server: ProviderServer, garbage: bytes) -> None:
    assert exchange(server, garbage)[0].startswith("HTTP/1.1 400 Bad Request\r\n")
    assert server.requests == []


# Hanging up


@pytest.mark.parametrize(
    "waiting",
    [Pause(30), WaitFor(threading.Event()), Stall(), Trickle(every=30), Trickle(every=0.001, times=30_000)],
)
def test_a_client_that_leaves_during_a_wait_is_noticed(
    server: ProviderServer, waiting: Pause | WaitFor | Stall | Trickle
) -> None:
    server.reply(Reply(b"0123456789", waiting))
    with connect(server) as sock:
        sock.sendall(GET)
        while b"0123456789" not in sock.recv(65536):
            pass
    left = time.monotonic()
    assert server.wait_hung_up()
    assert time.monotonic() - left < 3
    (hangup,) = server.hangups
    assert server.hung_up
    assert hangup.request_index == 0
    assert 0 < hangup.after_seconds < 5
    assert hangup.bytes_sent >= 10


def test_a_client_that_leaves_before_the_headers_is_noticed(server: ProviderServer) -> None:
    server.reply(Reply(b"never", before_headers=[Stall()]))
    with connect(server) as sock:
        sock.sendall(GET)
        assert server.wait_for_requests(1)
    assert server.wait_hung_up()
    assert server.hangups[0].bytes_sent == 0


def test_a_client_that_left_before_the_event_was_set_has_hung_up(server: ProviderServer) -> None:
    go_on = threading.Event()
    server.reply(Reply(b"one", WaitFor(go_on), b"two"))
    with connect(server) as sock:
        sock.sendall(GET)
        read_until(sock, b"one\r\n")
    go_on.set()
    assert server.wait_hung_up()
    assert server.hangups[0].bytes_sent == 3


def test_a_client_that_leaves_in_the_middle_of_a_send_is_noticed(server: ProviderServer) -> None:
    server.reply(Reply(bytes(50_000_000)))
    with connect(server) as sock:
        sock.sendall(GET)
        sock.recv(1)
    assert server.wait_hung_up()
    assert server.hangups[0].bytes_sent == 0


def test_a_client_that_reads_to_the_end_has_not_hung_up(server: ProviderServer) -> None:
    server.reply(Reply(b"one", Pause(0), b"two"))
    with connect(server) as sock:
        sock.sendall(GET)
        read_until(sock, b"0\r\n\r\n")
    assert not server.wait_hung_up(timeout=0.05)


def test_hangups_name_their_requests_and_can_be_counted(server: ProviderServer) -> None:
    server.reply(Reply.text("read to its end"))
    server.always(Reply(Stall()))
    exchange(server)
    for number in (2, 3):
        with connect(server) as sock:
            sock.sendall(GET)
            assert server.wait_for_requests(number)
        assert server.wait_hung_up(count=number - 1)
    assert [hangup.request_index for hangup in server.hangups] == [1, 2]


# Starting and stopping


def test_stop_interrupts_every_wait_and_counts_no_hangup() -> None:
    waits: list[Piece] = [
        Pause(30),
        WaitFor(threading.Event()),
        Stall(),
        Trickle(every=30),
        bytes(50_000_000),
    ]
    with ProviderServer() as server:
        server.reply(*(Reply(wait) for wait in waits))
        clients = [connect(server) for _ in range(len(waits) + 1)]  # the last one asks for nothing
        for client in clients[:-1]:
            client.sendall(GET)
        assert server.wait_for_requests(len(waits))
        began = time.monotonic()
    assert time.monotonic() - began < 3
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ProviderServer")]
    assert not server.hung_up
    for client in clients:
        client.close()


def test_after_stop_the_port_is_closed_and_the_record_remains() -> None:
    with ProviderServer() as server:
        server.reply(Reply.text("ok"))
        exchange(server)
    with pytest.raises(ConnectionRefusedError):
        connect(server)
    assert len(server.requests) == 1


def test_stopping_twice_is_fine_and_starting_twice_is_not() -> None:
    server = ProviderServer()
    with pytest.raises(RuntimeError, match="no address before start"):
        _ = server.url
    assert server.start() is server
    with pytest.raises(RuntimeError, match="started only once"):
        server.start()
    server.stop()
    server.stop()
    with pytest.raises(RuntimeError, match="started only once"):
        server.start()


# TLS


def test_a_reply_is_served_over_tls(tls_server: ProviderServer) -> None:
    tls_server.reply(Reply(b"one", Pause(0.01), b"two", framing="close"))
    assert tls_server.url.startswith("https://127.0.0.1:")
    with connect_tls(tls_server) as sock:
        sock.sendall(GET)
        assert read_to_close(sock).endswith(b"\r\n\r\nonetwo")


def test_a_cut_over_tls_comes_without_the_close_alert(tls_server: ProviderServer) -> None:
    tls_server.reply(Reply(b"one", Cut(), framing="close"))
    with connect_tls(tls_server) as sock:
        sock.sendall(GET)
        read_until(sock, b"one")
        with pytest.raises(ssl.SSLEOFError):
            sock.recv(1)


@pytest.mark.parametrize("waiting", [Pause(30), WaitFor(threading.Event()), Stall()])
def test_a_tls_client_that_leaves_during_a_wait_is_noticed(
    tls_server: ProviderServer, waiting: Pause | WaitFor | Stall
) -> None:
    tls_server.reply(Reply(b"one", waiting))
    with connect_tls(tls_server) as sock:
        sock.sendall(GET)
        read_until(sock, b"one\r\n")
    assert tls_server.wait_hung_up()
    assert tls_server.hangups[0].bytes_sent == 3


def test_stop_interrupts_a_wait_and_a_handshake_over_tls(tls_server: ProviderServer) -> None:
    tls_server.reply(Reply(Stall()))
    with connect(tls_server), connect_tls(tls_server) as client:
        client.sendall(GET)
        assert tls_server.wait_for_requests(1)
        began = time.monotonic()
        tls_server.stop()
        assert time.monotonic() - began < 3
    assert not tls_server.hung_up


def test_a_failed_handshake_ends_only_its_connection(tls_server: ProviderServer) -> None:
    tls_server.reply(Reply(b"one", framing="close"))
    with connect(tls_server) as plain:
        plain.sendall(GET)
        with suppress(ConnectionResetError):
            read_to_close(plain)
    with connect_tls(tls_server) as sock:
        sock.sendall(GET)
        assert read_to_close(sock).endswith(b"one")
    assert tls_server.connections == 2
