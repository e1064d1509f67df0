"""The spine that all HTTP adapters share: from a lowered request to a ChatStream.

payload -> transport: POST -> sse: JSON events -> the adapter's assemble -> ChatStream
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from completion import classify
from completion.contract.chunks import StreamChunk
from completion.contract.stream import ChatStream, ResponseInfo
from completion.credentials import ApiKey
from completion.errors import CompletionError, ConfigurationError, MalformedStreamError, StreamError
from completion.sse import json_events
from completion.transport import Body, Session, Timeout, Transport

Events = Iterator[tuple[str, Any]]
"""Name and JSON value of each event."""

Assemble = Callable[[Events, Callable[[], None]], Iterator[StreamChunk]]
"""From events to chunks. The second argument is to be called once the provider's end of turn has been read."""


class Endpoint:
    """An account at a base URL: where requests go, with which key, over which connections.

    Shared by the models of one client. Pickles; a repr shows no key.
    """

    def __init__(
        self,
        *,
        provider: str,
        base_url: str,
        key: ApiKey,
        timeout: Timeout | float | tuple[float | None, float | None],
        headers: Mapping[str, str] | None,
        session: Session | None,
        request_id_headers: tuple[str, ...],
        max_event_bytes: int,
    ) -> None:
        self.base_url = _checked(base_url, provider)
        self._key = key
        self._provider = provider
        self._max_event_bytes = max_event_bytes
        self._transport = Transport(
            provider=provider,
            timeout=Timeout.of(timeout),
            headers=headers or {},
            session=session,
            request_id_headers=request_id_headers,
        )

    def stream(
        self, path: str, payload: Any, assemble: Assemble, *, model: str, dropped: Sequence[str] = ()
    ) -> ChatStream:
        """Send the payload and return the open stream.

        Raises:
            CompletionError: what keeps it from opening.
        """
        authorization = self._key.authorization(self._provider)
        body = self._transport.post(self.base_url + path, payload, authorization, model=model)
        return ChatStream(
            self._chunks(body, assemble, model),
            response=ResponseInfo(body.status, body.headers, body.request_id, tuple(dropped)),
            token=body.token,
            release=body.close,
            provider=self._provider,
            model=model,
        )

    def close(self) -> None:
        """Close the connections in the pool. The endpoint can still be used: it opens new ones."""
        self._transport.close()

    def _chunks(self, body: Body, assemble: Assemble, model: str) -> Iterator[StreamChunk]:
        with body:
            began = False
            body.chunk_given()
            try:
                chunks = assemble(json_events(body.pieces(), self._max_event_bytes), body.turn_over)
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
                raise self._told(error, body, model, began) from error.__cause__
            except Exception as exc:  # the net below the adapters: an event that none of them foresaw
                unread = MalformedStreamError(f"an event of the stream has an unknown shape ({exc!r})")
                raise self._told(unread, body, model, began) from exc

    def _told(self, error: CompletionError, body: Body, model: str, began: bool) -> CompletionError:
        """The error, with what only this place knows."""
        if isinstance(error, MalformedStreamError) and not began and error.body is not None:
            # The body may hold an error in place of a stream.
            better = classify.not_a_stream(error.body, body.headers.get("content-type", ""))
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
