"""The replies of a ProviderServer: pieces of a body, and steps between them such as a pause or a closed connection.

A Reply becomes a script of actions when it is made. The server plays them in order: ``action.play(connection)``.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from http.client import responses as reason_phrases
from itertools import groupby
from typing import Any, Literal, TypeAlias

from completion.testing.connection import Connection, EndConnection


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
    """Send nothing for `seconds`."""

    seconds: float

    def play(self, connection: Connection) -> None:
        connection.wait(self.seconds)


@dataclass(frozen=True, slots=True)
class WaitFor:
    """Send nothing until `event` is set. After `timeout` seconds close the connection, as `Cut` does."""

    event: threading.Event
    timeout: float = 30

    def play(self, connection: Connection) -> None:
        if not connection.wait_for(self.event, self.timeout):
            raise EndConnection


@dataclass(frozen=True, slots=True)
class Stall:
    """Keep the connection open for `timeout` seconds and send nothing. Then close it, as `Cut` does."""

    timeout: float = 30

    def play(self, connection: Connection) -> None:
        connection.wait(self.timeout)
        raise EndConnection


@dataclass(frozen=True, slots=True)
class Cut:
    """Close the connection before the end of the body: no last HTTP chunk, too few bytes, no TLS close alert."""

    def play(self, connection: Connection) -> None:
        raise EndConnection


@dataclass(frozen=True, slots=True)
class Reset:
    """Close the connection with a TCP reset. The client may lose bytes that were sent before it."""

    def play(self, connection: Connection) -> None:
        connection.reset_on_close()
        raise EndConnection


@dataclass(frozen=True, slots=True)
class Trickle:
    """Send `data` and pause for `every` seconds, `times` times. Then the reply continues."""

    data: bytes = b": ping\n\n"
    every: float = 0.05
    times: int = 200


@dataclass(frozen=True, slots=True)
class Send:
    """One send: the bytes with their framing, and how many of them are the body's."""

    framed: bytes
    body_bytes: int = 0

    def play(self, connection: Connection) -> None:
        connection.send(self.framed)


Step: TypeAlias = Pause | WaitFor | Stall | Cut | Reset | Trickle

Piece: TypeAlias = bytes | str | Step
"""One of the ``pieces`` of a Reply."""

Framing: TypeAlias = Literal["chunked", "length", "close"]

_Part: TypeAlias = bytes | Pause | WaitFor | Stall | Cut | Reset
"""A piece with its string encoded, or its Trickle written out."""

Action: TypeAlias = Send | Pause | WaitFor | Stall | Cut | Reset
"""A part with its bytes framed: what the server plays."""


class Reply:
    """One scripted response: `pieces` are bytes, strings (sent as UTF-8) and steps, played in order.

    `framing` tells the client where the body ends: ``"chunked"``, ``"length"`` (a Content-Length header) or
    ``"close"`` (the connection closes). A `Cut`, `Reset` or `Stall` ends the body too early: pieces after it are not
    sent, but Content-Length counts them. If there are none, Content-Length is one byte more than the body.

    `split` cuts the bytes into sends (with chunked framing, into HTTP chunks): None makes a send of each piece,
    ``"whole"`` joins the pieces between two steps, n sends each piece in parts of n bytes. `batch` does not change the
    HTTP chunks, but gives all chunks between two steps to the socket in one send.

    `headers` replace the headers that the reply would send, in any letter case. With a `content_type` of None there is
    no such header. `before_headers` is played before the status line, and its bytes are sent as they are: half a header
    block and a `Cut` can take the place of a response.

    A reply never changes and can be served any number of times.

    Raises:
        TypeError: a piece is not bytes, a string or a step.
        ValueError: the framing or the split is unknown.
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

        body: Iterable[Action] = _frame(parts, framing)
        before = (Send(part) if isinstance(part, bytes) else part for part in _flatten(before_headers))
        self.script: tuple[Action, ...] = (*before, Send(head), *(_join_sends(body) if batch else body))
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
    """The pieces with strings encoded and each Trickle written out."""
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
        for is_bytes, group in groupby(parts, lambda part: isinstance(part, bytes)):
            if is_bytes:
                yield b"".join(part for part in group if isinstance(part, bytes))
            else:
                yield from group
    elif isinstance(split, int) and split > 0:
        for part in parts:
            if isinstance(part, bytes):
                yield from (part[start : start + split] for start in range(0, len(part), split))
            else:
                yield part
    else:
        raise ValueError(f'Reply: split must be None, "whole" or a positive number, got {split!r}')


def _declared_length(parts: Sequence[_Part]) -> int:
    """The value of Content-Length: always more than is sent, if a step ends the body too early."""
    total = _body_length(parts)
    end = next((i for i, part in enumerate(parts) if isinstance(part, (Cut, Reset, Stall))), None)
    if end is not None and _body_length(parts[end:]) == 0:
        return total + 1
    return total


def _body_length(parts: Iterable[_Part]) -> int:
    return sum(len(part) for part in parts if isinstance(part, bytes))


def _frame(parts: Iterable[_Part], framing: Framing) -> Iterator[Action]:
    for part in parts:
        if not isinstance(part, bytes):
            yield part
        elif framing != "chunked":
            yield Send(part, len(part))
        elif part:  # an empty HTTP chunk would end the body
            yield Send(b"%x\r\n%b\r\n" % (len(part), part), len(part))
    if framing == "chunked":
        yield Send(b"0\r\n\r\n")


def _join_sends(actions: Iterable[Action]) -> Iterator[Action]:
    for is_send, group in groupby(actions, lambda action: isinstance(action, Send)):
        if is_send:
            sends = [action for action in group if isinstance(action, Send)]
            yield Send(b"".join(send.framed for send in sends), sum(send.body_bytes for send in sends))
        else:
            yield from group
