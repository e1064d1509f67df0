"""The spine that all HTTP adapters share: from a lowered request to a ChatStream.

    payload -> transport: POST -> sse: JSON events -> the adapter's assemble -> ChatStream

And what their clients and models have in common: an endpoint, which the models of one client share.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from completion.contract.chunks import StreamChunk
from completion.contract.errors import (
    AuthenticationError,
    CompletionError,
    ConfigurationError,
    MalformedStreamError,
    ProviderError,
    StreamError,
)
from completion.contract.frames import clear_all
from completion.contract.stream import ChatStream, ResponseInfo
from completion.transport import Body, Session, Timeout, Transport, is_from_signal_handler
from completion.transport.credentials import ApiKey
from completion.wires import refusals
from completion.wires.assembly import WAIT_FOR_EOF_S
from completion.wires.wire import Wire

TimeoutLike = Timeout | float | tuple[float | None, float | None]
"""A Timeout, or what ``requests`` takes as one."""


# https://www.rfc-editor.org/rfc/rfc9110#section-5.5
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"(?:[!-~\xa0-\xff][\t -~\xa0-\xff]*)?")


class Endpoint:
    """An account at a base URL: where requests go, with which key, over which connections.

    Shared by the models of one client. Pickles; a repr shows no key.

    ``no_proxy``: never use a proxy, whatever the environment and the Session say.
    """

    def __init__(
        self,
        *,
        provider: str,
        base_url: str,
        key: ApiKey,
        timeout: TimeoutLike,
        headers: Mapping[str, str] | None,
        session: Session | None,
        request_id_headers: tuple[str, ...],
        max_event_bytes: int,
        no_proxy: bool = False,
    ) -> None:
        self.base_url = _checked(base_url, provider)
        self._key = key
        self._provider = provider
        self._max_event_bytes = max_event_bytes
        self._transport = Transport(
            provider=provider,
            timeout=Timeout.of(timeout),
            headers=_checked_headers(headers or {}, provider),
            session=session,
            request_id_headers=request_id_headers,
            no_proxy=no_proxy,
        )

    def stream(self, path: str, payload: Any, wire: Wire, *, model: str, dropped: Sequence[str] = ()) -> ChatStream:
        """Send the payload and return the open stream.

        Raises:
            CompletionError: what keeps it from opening.
        """
        authorization = self._key.authorization(self._provider)
        try:
            body = self._transport.post(self.base_url + path, payload, authorization, model=model)
        except AuthenticationError:
            self._key.refused()
            raise
        return ChatStream(
            self._chunks(body, wire, model),
            response=ResponseInfo(body.status, body.headers, body.request_id, tuple(dropped)),
            token=body.token,
            release=body.close,
            drop=body.drop,
            provider=self._provider,
            model=model,
        )

    def close(self) -> None:
        """Close the connections in the pool. The endpoint can still be used: it opens new ones."""
        self._transport.close()

    def _chunks(self, body: Body, wire: Wire, model: str) -> Iterator[StreamChunk]:
        with body:
            began = False
            body.chunk_given()
            try:
                chunks = wire.assemble(wire.events(body.pieces(), self._max_event_bytes), body.end_of_turn)
                for chunk in chunks:
                    began = True
                    yield chunk
                    break
                if self._transport.timeout.stall is None:
                    yield from chunks
                    return
                body.chunk_given()
                for chunk in chunks:
                    yield chunk
                    body.chunk_given()
            except CompletionError as error:
                if isinstance(error, ProviderError):
                    body.end_of_turn(WAIT_FOR_EOF_S)  # the body ends behind it: another try need not connect anew
                raise self._told(error, body, model, began) from error.__cause__
            except BaseException as exc:  # the net below the adapters: an event that none of them foresaw
                if not isinstance(exc, Exception) or is_from_signal_handler(exc):
                    clear_all(exc, exc.__context__)  # what was read may hold an echo of the key
                    raise
                unread = MalformedStreamError(f"an event of the stream has an unknown shape ({exc!r})")
                raise self._told(unread, body, model, began) from exc

    def _told(self, error: CompletionError, body: Body, model: str, began: bool) -> CompletionError:
        """The error, with what only this place knows."""
        if isinstance(error, MalformedStreamError) and not began and error.body is not None:
            # The body may hold an error in place of a stream.
            better = refusals.not_a_stream(error.body, body.headers.get("content-type", ""))
            if not isinstance(better, StreamError):
                error = better
        if isinstance(error, StreamError):
            error.before_first_chunk = not began
        return body.attributed(error)

    def __repr__(self) -> str:
        return f"<Endpoint {self._provider} {self.base_url}>"


def _checked(base_url: str, provider: str) -> str:
    """The URL without a slash at its end.

    Raises:
        ConfigurationError: it is none that requests could go to, or it carries a password.
    """
    # urlsplit removes some of these without a word.
    bad = next((at for at, char in enumerate(base_url) if char.isspace() or not char.isprintable()), None)
    if bad is not None:
        raise ConfigurationError(
            f"base_url must not contain white space or control characters, got {base_url[bad]!r} at position {bad}",
            provider=provider,
        )
    try:
        parts = urlsplit(base_url)
        is_callable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # no port, or no IPv6 address
        is_callable = False
    if not is_callable:
        shown = base_url.rpartition("@")[2].partition("?")[0]
        raise ConfigurationError(f"base_url must be like 'https://host/v1', got {shown!r}", provider=provider)
    if parts.username or parts.password:
        raise ConfigurationError(
            "base_url must not carry a user name or password: give api_key= or headers=", provider=provider
        )
    if parts.query or parts.fragment:
        raise ConfigurationError(
            "base_url must not carry a query or fragment: a key in a URL ends up in logs", provider=provider
        )
    return base_url.rstrip("/")


def _checked_headers(headers: Mapping[str, str], provider: str) -> dict[str, str]:
    """The headers as a dict.

    Raises:
        ConfigurationError: a name or a value that HTTP cannot carry. The message shows no value.
    """
    for name, value in headers.items():
        if not isinstance(name, str) or not _HEADER_NAME.fullmatch(name):
            why = "a name in headers= is not a valid header name: use letters, digits and '-'"
        elif not isinstance(value, str):
            why = f"the header {name} in headers= must be a str, got {type(value).__name__}"
        elif not _HEADER_VALUE.fullmatch(value):
            why = (
                f"the value of the header {name} in headers= must not contain a line end, another control character "
                "or a character outside of Latin-1, nor begin with white space"
            )
        else:
            continue
        raise ConfigurationError(why, provider=provider)
    return dict(headers)
