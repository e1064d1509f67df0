"""The spine that all HTTP adapters share: from a lowered request to a ChatStream.

    payload -> transport: POST -> sse: JSON events -> the adapter's assemble -> ChatStream

And what their clients and models have in common: an endpoint, which the models of one client share.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from completion.adapters.checks import checked_base_url, checked_headers
from completion.contract.chunks import StreamChunk
from completion.contract.errors import (
    AuthenticationError,
    CompletionError,
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
        self.base_url = checked_base_url(base_url, provider)
        self._key = key
        self._provider = provider
        self._max_event_bytes = max_event_bytes
        self._transport = Transport(
            provider=provider,
            timeout=Timeout.of(timeout),
            headers=checked_headers(headers or {}, provider),
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
        handled = sys.exc_info()[1]
        body = self._transport.post(self.base_url + path, payload, authorization, model=model, accept=wire.accept)
        try:
            self._check(body, wire)
        except BaseException as exc:
            body.close()
            if isinstance(exc, AuthenticationError):
                self._key.refused()
            clear_all(exc, handled)  # the frames hold what the server said, which may be an echo of the key
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

    def _check(self, body: Body, wire: Wire) -> None:
        """Raise unless this is a 2xx response whose body can be a stream of this wire."""
        body.check()
        if not 200 <= body.status < 300:
            text = body.error_text()
            raise body.attributed(refusals.refusal(body.status, body.headers, text, request_id=body.request_id))
        content_type = body.headers.get("content-type", "")
        # Some proxies change the type of a true stream, so how the body begins decides.
        if not wire.matches_content_type(content_type) and not wire.can_begin_with(body.beginning()):
            raise body.attributed(refusals.not_a_stream(body.error_text(), content_type))

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
                return
            except CompletionError as error:
                if isinstance(error, ProviderError):
                    body.end_of_turn(WAIT_FOR_EOF_S)  # the body ends behind it: another try need not connect anew
                raise self._told(error, body, model, began) from error.__cause__
            except BaseException as exc:  # the net below the adapters: an event that none of them foresaw
                if not isinstance(exc, Exception) or is_from_signal_handler(exc):
                    clear_all(exc, exc.__context__)  # what was read may hold an echo of the key
                    raise
                unread = MalformedStreamError(f"an event of the stream has an unknown shape ({exc!r})")
                unread.__cause__ = exc
                clear_all(exc, exc.__context__)
            # Raised outside of the except block: an exception that quotes the key must not be its context.
            try:
                raise self._told(unread, body, model, began)
            finally:
                del unread  # its traceback holds this frame

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
