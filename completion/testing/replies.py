"""What a ProviderServer answers: pieces of a body, and what goes wrong between them."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from http.client import responses as reason_phrases
from itertools import groupby
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    from completion.testing.server import _Connection

_EVENT_POLL_S = 0.01


def event(data: Any, name: str | None = None) -> bytes:
    """One server-sent event: `data` as it is if it is a string, else as compact JSON.

    Each line of a string becomes a ``data:`` line of its own.
    """
    if not isinstance(data, str):
        data = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    lines = [] if name is None else [f"event: {name}"]
    lines += [f"data: {line}" for line in data.replace("\r\n", "\n").replace("\r", "\n").split("\n")]
    return ("\n".join(lines) + "\n\n").encode()


@dataclass(frozen=True, slots=True)
class Pause:
    """Send nothing for so many seconds."""

    seconds: float

    def play(self, connection: _Connection) -> None:
        connection.wait(self.seconds)


@dataclass(frozen=True, slots=True)
class WaitFor:
    """Send nothing until `event` is set; after `timeout` seconds the connection is closed, as by `Cut`."""

    event: threading.Event
    timeout: float = 30

    def play(self, connection: _Connection) -> None:
        if not connection.wait_for(self.event, self.timeout):
            raise _EndConnection


@dataclass(frozen=True, slots=True)
class Stall:
    """Send nothing more, but keep the connection open for `timeout` seconds; then close it, as `Cut` does."""

    timeout: float = 30

    def play(self, connection: _Connection) -> None:
        connection.wait(self.timeout)
        raise _EndConnection


@dataclass(frozen=True, slots=True)
class Cut:
    """Close the connection with no proper end: no last chunk, a short length, no TLS close alert."""

    def play(self, connection: _Connection) -> None:
        raise _EndConnection


@dataclass(frozen=True, slots=True)
class Reset:
    """Close the connection with a TCP reset; bytes still on their way to the client may be lost with it."""

    def play(self, connection: _Connection) -> None:
        connection.reset_on_close()
        raise _EndConnection


@dataclass(frozen=True, slots=True)
class Trickle:
    """Send `data`, then pause for `every` seconds, so many `times`; then the reply goes on."""

    data: bytes = b": ping\n\n"
    every: float = 0.05
    times: int = 200


@dataclass(frozen=True, slots=True)
class _Send:
    """Bytes as they go out in one send, and how many of them are body, not framing."""

    framed: bytes
    body_bytes: int = 0

    def play(self, connection: _Connection) -> None:
        connection.send(self.framed)


class _EndConnection(Exception):
    """Raised by a step: close the connection here, whatever was promised."""


class _HungUp(Exception):
    """The client closed the connection, or the server's stop() did."""


Step: TypeAlias = Pause | WaitFor | Stall | Cut | Reset | Trickle


Piece: TypeAlias = bytes | str | Step


Framing: TypeAlias = Literal["chunked", "length", "close"]


_Part: TypeAlias = bytes | Pause | WaitFor | Stall | Cut | Reset


_Action: TypeAlias = _Send | Pause | WaitFor | Stall | Cut | Reset


class Reply:
    """One scripted response: `pieces` are bytes, strings (sent as UTF-8) and steps, played in order.

    `framing` says how the client learns where the body ends: ``"chunked"``, ``"length"`` (a Content-Length
    header) or ``"close"`` (the connection closes). The body ends properly unless a `Cut`, `Reset` or `Stall`
    stands among the pieces. Pieces after one of these are never sent; they still count in the declared
    length, which is one byte too long if there are none, so that the body is always short.

    `split` says how the bytes are cut into sends (with chunked framing, into HTTP chunks): None sends each
    piece as it is, ``"whole"`` joins the pieces between two steps, n sends each piece in parts of n bytes.
    `batch` leaves the chunks as they are but passes all those between two steps to the socket at once.

    `headers` win over those the reply makes itself, in any letter case; a `content_type` of None leaves the
    header out. `before_headers` is played before the status line; its bytes are sent verbatim, so half a
    header block and a `Cut` can be sent instead of a response.

    A reply never changes; it can be served any number of times.

    Raises:
        TypeError, ValueError: for a piece, framing or split that is none of the above.
    """

    __slots__ = ("closes_connection", "script")

    def __init__(
        self,
        *pieces: Piece,
        status: int = 200,
        content_type: str | None = "text/event-stream",
        headers: Mapping[str, str] | None = None,
        framing: Framing = "chunked",
        split: Literal["whole"] | int | None = None,
        before_headers: Iterable[Piece] = (),
        batch: bool = False,
    ) -> None:
        if framing not in ("chunked", "length", "close"):
            raise ValueError(f'Reply: framing must be "chunked", "length" or "close", got {framing!r}')
        parts = list(_split(_flatten(pieces), split))
        fields = {} if content_type is None else {"content-type": f"Content-Type: {content_type}"}
        if framing == "chunked":
            fields["transfer-encoding"] = "Transfer-Encoding: chunked"
        elif framing == "length":
            fields["content-length"] = f"Content-Length: {_declared_length(parts)}"
        else:
            fields["connection"] = "Connection: close"
        fields |= {name.lower(): f"{name}: {value}" for name, value in (headers or {}).items()}
        status_line = f"HTTP/1.1 {status} {reason_phrases.get(status, 'Unknown')}"
        head = "\r\n".join([status_line, *fields.values(), "", ""]).encode("latin-1")

        body: Iterable[_Action] = _frame(parts, framing)
        before = (_Send(part) if isinstance(part, bytes) else part for part in _flatten(before_headers))
        self.script: tuple[_Action, ...] = (*before, _Send(head), *(_join_sends(body) if batch else body))
        self.closes_connection = "close" in fields.get("connection", "").lower()

    @classmethod
    def json(cls, obj: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:
        """`obj` as application/json with a Content-Length."""
        body = json.dumps(obj, ensure_ascii=False)
        return cls(body, status=status, content_type="application/json", headers=headers, framing="length")

    @classmethod
    def text(
        cls,
        text: str,
        content_type: str = "text/plain",
        status: int = 200,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """`text` in UTF-8 with a Content-Length."""
        return cls(text, status=status, content_type=content_type, headers=headers, framing="length")


def _flatten(pieces: Iterable[Piece]) -> Iterator[_Part]:
    """The pieces with strings encoded and trickles written out."""
    for piece in pieces:
        match piece:
            case str():
                yield piece.encode()
            case bytes() | Pause() | WaitFor() | Stall() | Cut() | Reset():
                yield piece
            case Trickle():
                yield from (piece.data, Pause(piece.every)) * piece.times
            case _:
                raise TypeError(f"Reply: a piece must be bytes, str or a step, got {piece!r}")


def _split(parts: Iterable[_Part], split: Literal["whole"] | int | None) -> Iterator[_Part]:
    if split is None:
        yield from parts
    elif split == "whole":
        for is_bytes, run in groupby(parts, lambda part: isinstance(part, bytes)):
            if is_bytes:
                yield b"".join(part for part in run if isinstance(part, bytes))
            else:
                yield from run
    elif isinstance(split, int) and split > 0:
        for part in parts:
            if isinstance(part, bytes):
                yield from (part[start : start + split] for start in range(0, len(part), split))
            else:
                yield part
    else:
        raise ValueError(f'Reply: split must be None, "whole" or a positive number, got {split!r}')


def _body_length(parts: Iterable[_Part]) -> int:
    return sum(len(part) for part in parts if isinstance(part, bytes))


def _declared_length(parts: Sequence[_Part]) -> int:
    total = _body_length(parts)
    end = next((i for i, part in enumerate(parts) if isinstance(part, (Cut, Reset, Stall))), None)
    if end is not None and _body_length(parts[end:]) == 0:
        return total + 1
    return total


def _frame(parts: Iterable[_Part], framing: Framing) -> Iterator[_Action]:
    for part in parts:
        if not isinstance(part, bytes):
            yield part
        elif framing != "chunked":
            yield _Send(part, len(part))
        elif part:  # a chunk of no bytes would end the body
            yield _Send(b"%x\r\n%b\r\n" % (len(part), part), len(part))
    if framing == "chunked":
        yield _Send(b"0\r\n\r\n")


def _join_sends(actions: Iterable[_Action]) -> Iterator[_Action]:
    for is_send, run in groupby(actions, lambda action: isinstance(action, _Send)):
        if is_send:
            sends = [action for action in run if isinstance(action, _Send)]
            yield _Send(b"".join(send.framed for send in sends), sum(send.body_bytes for send in sends))
        else:
            yield from run
