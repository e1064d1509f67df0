"""The fault matrix: what can go wrong between a client and a provider, and the right outcome of each fault.

``test_faults.py`` runs the table on every wire. ``benchmarks/faults.py`` runs it beside the SDKs of two providers, so
this module imports nothing that only the tests have.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Literal

from completion import (
    AuthenticationError,
    CompletionError,
    ConfigurationError,
    ConnectTimeoutError,
    DeadlineExceededError,
    IdleTimeoutError,
    InvalidRequestError,
    MalformedStreamError,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    RateLimitError,
    RequestTooLargeError,
    ServerError,
    Timeout,
    TransportError,
    TruncatedStreamError,
)
from completion.testing import Cut, Pause, Reply, Reset, Stall, Trickle, event
from completion.testing.replies import Framing, Piece
from tests import aws
from tests.faults.places import Place

Events = Literal["sse", "lines", "frames"]

NEW_TEXT: Final = "a\u2028b\u2029c\u0085d\U0001f600"
LIMIT_S: Final = 0.1
# All of these last 20 s or more: far longer than the limit.
OFTEN_S: Final = LIMIT_S / 3
TIMES: Final = 600
PATIENT: Final = Timeout(connect=10, read=10)
HEAD: Final = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
PINGS: Final[dict[Events, bytes]] = {
    "sse": b": ping\n\n",
    "lines": b"\n",
    "frames": aws.frame("ping", {}),
}


@dataclass(frozen=True)
class Wire:
    """The bytes of a turn whose text is "a"."""

    events: Events
    begun: bytes
    ended: bytes

    @property
    def turn(self) -> bytes:
        return self.begun + self.ended

    def begun_with(self, text: bytes) -> bytes:
        """The first events with another text, in bytes, so that it may be invalid."""
        if self.events == "frames":
            return aws.replaced(self.begun, b'"a"', b'"%b"' % text)
        return self.begun.replace(b'"a"', b'"%b"' % text)


@dataclass(frozen=True)
class Fault:
    """A row of the table. Each of its replies must have one of the outcomes.

    ``answer``: the text of a right answer; None if a right answer is not possible. ``errors``: the types of a right
    error. ``limit``: the timeouts of the model. ``events``: the forms of events that can have this fault.
    """

    name: str
    replies: Callable[[Wire], list[Reply]]
    answer: str | None = None
    errors: tuple[type[CompletionError], ...] = ()
    limit: Timeout = PATIENT
    events: tuple[Events, ...] = ("sse", "lines", "frames")
    place: Place = "server"
    max_event_bytes: int | None = None
    may_retry: bool | None = None
    """Whether a retry may help; None: not determined by the fault alone."""


def whole(wire: Wire) -> list[Reply]:
    return [Reply(wire.begun, wire.ended)]


def body(make: Callable[[Wire], bytes], **options: str) -> Callable[[Wire], list[Reply]]:
    """A reply with this body."""
    return lambda wire: [Reply(make(wire), headers=options)]


def fixed(*replies: Reply) -> Callable[[Wire], list[Reply]]:
    """The same replies on every wire."""
    return lambda wire: list(replies)


def then(*steps: Piece) -> Callable[[Wire], list[Reply]]:
    """The first events, and these steps."""
    return lambda wire: [Reply(wire.begun, *steps)]


def cut(framing: Framing, *, part: Literal["begun", "ended"]) -> Callable[[Wire], list[Reply]]:
    """Bodies that end at places all over the first or the last events."""

    def replies(wire: Wire) -> list[Reply]:
        first = 0 if part == "begun" else len(wire.begun)
        last = len(wire.begun) if part == "begun" else len(wire.turn)
        places = [*range(first, last, 41), last - 1]
        return [Reply(wire.turn[:place], Cut(), framing=framing) for place in places]

    return replies


def clean_end(wire: Wire) -> list[Reply]:
    """Bodies that end as HTTP says, but before the end of the turn."""
    return [Reply(wire.turn[:place], framing="chunked") for place in (0, len(wire.begun) // 2, len(wire.begun))]


def refused(status: int, **headers: str) -> Callable[[Wire], list[Reply]]:
    """The status with an empty body, a page of a proxy, and JSON of another kind."""
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    bodies = ("", "<html><h1>nginx</h1></html>", '{"detail": "no"}', "[1]")
    return fixed(*[Reply.text(text, "text/html", status, given) for text in bodies])


def error_event(wire: Wire) -> bytes:
    """An error that comes as an event, after status 200."""
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "Busy", "code": 529}}
    if wire.events == "frames":
        return aws.frame("serviceUnavailableException", {"message": "Busy"}, "exception")
    return event(error, "error") if wire.events == "sse" else json.dumps(error).encode() + b"\n"


def nth_byte(wire: Wire, number: int) -> bytes:
    """A byte of the first events, which are repeated for ever."""
    place = number % len(wire.begun)
    return wire.begun[place : place + 1]


def mixed_line_ends(wire: Wire) -> bytes:
    """LF, CRLF and CR in turns. CR is never before LF: together they would be one line end."""
    ends = (b"\n", b"\r\n", b"\r", b"\r\n")
    lines = wire.turn.split(b"\n")
    return b"".join(line + ends[number % 4] for number, line in enumerate(lines[:-1])) + lines[-1]


def answers() -> Iterator[Fault]:
    """Faults that a client must overcome: the answer is whole."""
    events: tuple[Events, ...] = ("sse",)
    text: tuple[Events, ...] = ("sse", "lines")
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n"
    patient = Timeout(read=2)
    going_on = [b"HTTP/1.1 100 Continue\r\n\r\n"]
    yield Fault("no fault", whole, "a")
    yield Fault("byte order mark", body(lambda wire: b"\xef\xbb\xbf" + wire.turn), "a", events=text)
    yield Fault("CRLF line ends", body(lambda wire: wire.turn.replace(b"\n", b"\r\n")), "a", events=text)
    yield Fault("CR line ends", body(lambda wire: wire.turn.replace(b"\n", b"\r")), "a", events=events)
    yield Fault("mixed line ends", body(mixed_line_ends), "a", events=events)
    yield Fault("one byte in each chunk", lambda wire: [Reply(wire.turn, split=1, batch=True)], "a")
    yield Fault(
        "U+2028, U+2029, U+0085 in the text",
        lambda wire: [Reply(wire.begun_with(NEW_TEXT.encode()) + wire.ended)],
        NEW_TEXT,
    )
    yield Fault(
        "invalid UTF-8 in the text",
        lambda wire: [Reply(wire.begun_with(b"a\xff") + wire.ended)],
        "a\ufffd",
        (MalformedStreamError,),
    )
    yield Fault("a ping", lambda wire: [Reply(wire.begun, PINGS[wire.events] * 3, wire.ended)], "a")
    yield Fault("gzip", lambda wire: [Reply(gzip.compress(wire.turn), headers={"Content-Encoding": "gzip"})], "a")
    yield Fault("100 Continue", lambda wire: [Reply(wire.turn, before_headers=going_on)], "a")
    yield Fault("103 Early Hints", lambda wire: [Reply(wire.turn, before_headers=[hints, hints])], "a")
    yield Fault("body stays open after the end of turn", lambda wire: [Reply(wire.turn, Stall())], "a", limit=patient)
    yield Fault("cut after the end of turn", lambda wire: [Reply(wire.turn, Cut())], "a")


def broken_bodies() -> Iterator[Fault]:
    """Bodies with status 200 that are not a whole answer."""
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "Busy", "code": 529}}
    page = "<html><title>Sign in to the network</title></html>"
    framings: tuple[Framing, ...] = ("chunked", "length")
    for framing in framings:
        yield Fault(f"cut before the end, {framing}", cut(framing, part="begun"), None, (TransportError,))
        errors = (TransportError, TruncatedStreamError)
        yield Fault(f"cut in the last events, {framing}", cut(framing, part="ended"), "a", errors)
    yield Fault("cut before the end, close", cut("close", part="begun"), None, (TruncatedStreamError,))
    yield Fault("cut in the last events, close", cut("close", part="ended"), "a", (TruncatedStreamError,))
    yield Fault("clean end before the end of turn", clean_end, None, (TruncatedStreamError,))
    yield Fault("reset", then(Reset()), None, (TransportError,))
    # Without an end, an object on a line is an event of some wires: an unknown event, and then the body ends.
    unreadable = (MalformedStreamError, TruncatedStreamError)
    yield Fault("200 with an empty body", fixed(Reply()), None, (TruncatedStreamError,))
    yield Fault("200 with an error in JSON", fixed(Reply.json(error)), None, (OverloadedError,))
    yield Fault("200 with other JSON", fixed(Reply.json({"ok": True})), None, unreadable)
    yield Fault("200 with HTML", fixed(Reply.text(page, "text/html")), None, (MalformedStreamError,))
    busy = (OverloadedError,)
    yield Fault("error as the first event", body(error_event), None, busy, may_retry=True)
    yield Fault(
        "error after the first events", lambda wire: [Reply(wire.begun, error_event(wire))], None, busy, may_retry=True
    )
    yield Fault(
        "event that is not JSON",
        lambda wire: [Reply(wire.begun, b"data: {no\n\n{no\n\n", wire.ended)],
        None,
        (MalformedStreamError,),
    )
    yield Fault(
        "event over max_event_bytes",
        lambda wire: [Reply(wire.begun_with(b"x" * 300_000), wire.ended)],
        None,
        (MalformedStreamError,),
        max_event_bytes=200_000,
    )
    yield Fault(
        "event of 64 MiB",
        lambda wire: [Reply(wire.begun_with(b"x" * 2**26), wire.ended)],
        None,
        (MalformedStreamError,),
        max_event_bytes=2**24,  # the default
    )
    yield Fault(
        "gzip that is cut",
        lambda wire: [Reply(gzip.compress(wire.turn)[: len(wire.begun) // 4], headers={"Content-Encoding": "gzip"})],
        None,
        (TransportError, TruncatedStreamError),
    )
    yield Fault(
        "gzip that is not gzip",
        lambda wire: [Reply(wire.turn, headers={"Content-Encoding": "gzip"})],
        None,
        (TransportError,),
    )


def slow_servers() -> Iterator[Fault]:
    """Servers that are silent, or that send for ever. A timeout ends each."""
    read, stall, total = Timeout(read=LIMIT_S), Timeout(stall=LIMIT_S), Timeout(total=LIMIT_S)
    idle, late = (IdleTimeoutError,), (DeadlineExceededError,)
    more = Trickle(b"X-More: 1\r\n", every=OFTEN_S, times=TIMES)
    yield Fault("silence instead of headers", fixed(Reply(before_headers=[Stall()])), None, idle, read)
    yield Fault("half the headers, then silence", fixed(Reply(before_headers=[HEAD, Stall()])), None, idle, read)
    yield Fault("headers for ever", fixed(Reply(before_headers=[HEAD, more])), None, late, total)
    yield Fault("silence after the first events", then(Stall()), None, idle, read)
    yield Fault(
        "pings for ever",
        lambda wire: [Reply(wire.begun, Trickle(PINGS[wire.events], every=OFTEN_S, times=TIMES))],
        None,
        idle,
        stall,
    )
    yield Fault(
        "a byte now and then",
        lambda wire: [Reply(*[piece for n in range(TIMES) for piece in (nth_byte(wire, n), Pause(OFTEN_S))])],
        None,
        late,
        total,
    )
    yield Fault(
        "error body that dribbles",
        fixed(Reply(b"the disk is full", Trickle(b"!", every=OFTEN_S, times=TIMES), status=500)),
        None,
        (ServerError,),
        Timeout(total=2),  # the headers must arrive in time, on a busy machine too
    )


def no_answer() -> Iterator[Fault]:
    """There is no answer in HTTP, or no connection."""
    lost = (TransportError,)
    yield Fault("close instead of headers", fixed(Reply(before_headers=[Cut()])), None, lost)
    # http.client takes the end of the connection for the end of the headers, so this is an empty body.
    unfinished = (TransportError, TruncatedStreamError)
    yield Fault("half the headers, then close", fixed(Reply(before_headers=[HEAD, Cut()])), None, unfinished)
    yield Fault("reset instead of headers", fixed(Reply(before_headers=[Reset()])), None, lost)
    yield Fault("not HTTP", fixed(Reply(before_headers=[b"SSH-2.0-OpenSSH_9.9\r\n", Cut()])), None, lost)
    yield Fault("certificate that is not trusted", whole, None, lost, place="untrusted certificate")
    yield Fault("certificate of another host", whole, None, lost, place="certificate of another host")
    yield Fault("no TLS at an https URL", whole, None, lost, place="https to http")
    yield Fault("proxy that is not there", whole, None, lost, place="dead proxy")
    yield Fault("proxy that refuses", fixed(Reply(status=403), Reply(status=407)), None, lost, place="proxy")
    silent = fixed(Reply(before_headers=[Stall()]))
    late = (ConnectTimeoutError,)
    yield Fault("proxy that is silent", silent, None, late, Timeout(connect=LIMIT_S, read=LIMIT_S), place="proxy")
    yield Fault("host that is not in DNS", whole, None, lost, place="unknown host")


def statuses() -> Iterator[Fault]:
    """Refusals whose body says nothing: the status alone decides."""
    elsewhere = {"Location": "/elsewhere"}
    kinds: dict[int, type[CompletionError]] = {
        400: InvalidRequestError,
        401: AuthenticationError,
        403: PermissionDeniedError,
        404: NotFoundError,
        408: ServerError,
        407: InvalidRequestError,
        409: InvalidRequestError,
        413: RequestTooLargeError,
        422: InvalidRequestError,
        429: RateLimitError,
        500: ServerError,
        502: ServerError,
        503: OverloadedError,
        504: ServerError,
        529: OverloadedError,
    }
    for status in (301, 302, 303, 307, 308):
        yield Fault(f"status {status}", refused(status, **elsewhere), None, (ConfigurationError,))
    for status, kind in kinds.items():
        may_retry = status in (408, 409, 429) or status >= 500
        yield Fault(f"status {status}", refused(status), None, (kind,), may_retry=may_retry)


FAULTS: Final = [*answers(), *broken_bodies(), *slow_servers(), *no_answer(), *statuses()]
