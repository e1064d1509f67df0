"""From a lowered request to a ChatStream, for all HTTP adapters.

JSON body -> transport: POST -> wire.events -> wire.chunks -> ChatStream
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from completion.adapters.checks import checked_base_url, checked_headers, headers_of
from completion.contract.checks import require_whole_number
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
from completion.transport import Body, Session, Timeout, Transport, must_raise_unchanged
from completion.transport.credentials import ApiKey
from completion.wires import refusals
from completion.wires.assembly import WAIT_FOR_EOF_S
from completion.wires.wire import Wire

_T = TypeVar("_T")

MAX_JSON_BYTES: Final = 1024 * 1024
"""The size limit of an answer that is not a stream."""

TimeoutLike = Timeout | float | tuple[float | None, float | None]
"""A Timeout, or a timeout of ``requests``."""


class Endpoint:
    """Base URL, key and connections. The models of one client share it. It can be pickled; its repr shows no key.

    Args:
        provider: the family, for errors and telemetry.
        request_id_headers: the response headers that may contain the request id, the best first.
        no_proxy: never use a proxy, not even one of the environment or the Session.
        timeout, headers, session, max_event_bytes: see HttpOptions.
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
        self.base_url: str = checked_base_url(base_url, provider)
        self._key = key
        self._provider = provider
        require_whole_number(max_event_bytes, "max_event_bytes")
        self._max_event_bytes = max_event_bytes
        self._transport = Transport(
            provider=provider,
            timeout=Timeout.of(timeout),
            headers=checked_headers(headers_of({"headers": headers}), provider),
            session=session,
            request_id_headers=request_id_headers,
            no_proxy=no_proxy,
        )

    @property
    def host(self) -> str:
        """The host and the port of the base URL. Signatures of some wires are valid on one host only."""
        return urlsplit(self.base_url).netloc

    def stream(self, path: str, json_body: Any, wire: Wire, *, model: str, dropped: Sequence[str] = ()) -> ChatStream:
        """Send the body and return the open stream.

        Raises:
            CompletionError: the stream could not be opened. No connection is left open.
        """
        body, _ = self._post(path, json_body, partial(_check_stream, wire), model=model, accept=wire.accept)
        return ChatStream(
            self._chunks(body, wire),
            response=ResponseInfo(body.status, body.headers, body.request_id, tuple(dropped)),
            token=body.token,
            release=body.close,
            drop=body.close_from_finalizer,
            provider=self._provider,
            model=model,
        )

    def json(self, path: str, json_body: Any, *, model: str) -> dict[str, Any]:
        """Send the body and return the JSON object of the answer, for requests that have no stream.

        Raises:
            CompletionError: the provider refused, the connection broke, or the answer is not a JSON object. No
                connection is left open.
        """
        body, answer = self._post(path, json_body, _read_object, model=model, accept="application/json")
        body.close()
        return answer

    def _post(
        self, path: str, json_body: Any, read: Callable[[Body], _T], *, model: str, accept: str
    ) -> tuple[Body, _T]:
        """Send the body. Returns the open body of a 2xx response, and what ``read`` returns for it."""
        authorization = self._key.authorization(self._provider)
        handled = sys.exc_info()[1]  # what the caller is handling; its frames must stay as they are
        body = self._transport.post(self.base_url + path, json_body, authorization, model=model, accept=accept)
        try:
            body.check()
            if not 200 <= body.status < 300:
                text = body.error_text()
                raise body.attributed(refusals.refusal(body.status, body.headers, text, request_id=body.request_id))
            return body, read(body)
        except BaseException as exc:
            body.close()
            if isinstance(exc, AuthenticationError):
                self._key.forget_token()
            # The frames refer to the response, which may contain an echo of the key.
            clear_all(exc, handled)
            raise

    def close(self) -> None:
        """Close the connections in the pool. The endpoint can still be used: it opens new ones."""
        self._transport.close()

    def get(self, path: str) -> bytes:
        """The document at this path, which may have a query.

        Raises:
            CompletionError: the provider refused or was not reached, or the document is too large. No connection is
                left open.
        """
        authorization = self._key.authorization(self._provider)
        handled = sys.exc_info()[1]
        with self._transport.get(self.base_url + path, authorization) as body:
            try:
                body.check()
                if not 200 <= body.status < 300:
                    text = body.error_text()
                    raise body.attributed(refusals.refusal(body.status, body.headers, text, request_id=body.request_id))
                document = bytearray()
                for piece in body.pieces():
                    document += piece
                    if len(document) > self._max_event_bytes:
                        limit = f"{self._max_event_bytes} bytes (max_event_bytes)"
                        raise body.attributed(MalformedStreamError(f"the answer is larger than {limit}"))
                return bytes(document)
            except BaseException as exc:
                if isinstance(exc, AuthenticationError):
                    self._key.forget_token()
                clear_all(exc, handled)  # the frames refer to the response, which may contain an echo of the key
                raise

    def _chunks(self, body: Body, wire: Wire) -> Iterator[StreamChunk]:
        with body:
            has_chunks = False
            body.chunk_yielded()
            try:
                events = wire.events(body.pieces(), self._max_event_bytes)
                chunks = wire.chunks(events, body.end_of_turn, self.host)
                for chunk in chunks:  # the first one only
                    has_chunks = True
                    yield chunk
                    break
                if self._transport.timeout.stall is None:
                    yield from chunks  # faster than the loop below
                    return
                body.chunk_yielded()
                for chunk in chunks:
                    yield chunk
                    body.chunk_yielded()
                return
            except CompletionError as error:
                if isinstance(error, ProviderError):
                    body.end_of_turn(WAIT_FOR_EOF_S)  # the body ends after it, so a retry can use the connection
                failure = self._with_context(error, body, has_chunks)
                if failure is error:
                    del failure
                    raise error from error.__cause__
            except BaseException as exc:  # any other exception means an event of an unknown shape
                if not isinstance(exc, Exception) or must_raise_unchanged(exc):
                    clear_all(exc, exc.__context__)  # the response may contain an echo of the key
                    raise
                unknown_shape = MalformedStreamError(f"an event of the stream has an unknown shape ({exc!r})")
                unknown_shape.__cause__ = exc
                failure = self._with_context(unknown_shape, body, has_chunks)
                del unknown_shape  # contract/frames.py says why
                clear_all(exc, exc.__context__)
            # Raised outside of the except block: an exception that quotes the key must not be its context.
            try:
                raise failure
            finally:
                del failure

    def _with_context(self, error: CompletionError, body: Body, has_chunks: bool) -> CompletionError:
        """The error with provider, model and request id, and with whether a chunk was yielded before it."""
        if isinstance(error, MalformedStreamError) and not has_chunks and error.body is not None:
            # The body may be an error instead of a stream.
            found = refusals.not_a_stream(error.body, body.headers.get("content-type", ""))
            if not isinstance(found, StreamError):
                error = found
        if isinstance(error, StreamError):
            error.before_first_chunk = not has_chunks
        return body.attributed(error)

    def __repr__(self) -> str:
        return f"<Endpoint {self._provider} {self.base_url}>"


def _check_stream(wire: Wire, body: Body) -> None:
    """Raise unless the body can be a stream of this wire."""
    content_type = body.headers.get("content-type", "")
    # Some proxies change the Content-Type of a stream, so the beginning of the body decides.
    if not wire.matches_content_type(content_type) and not wire.can_begin_with(body.first_piece()):
        raise body.attributed(refusals.not_a_stream(body.error_text(), content_type))


def _read_object(body: Body) -> dict[str, Any]:
    """The whole body, which must be a JSON object."""
    data = bytearray()
    for piece in body.pieces():
        data += piece
        if len(data) > MAX_JSON_BYTES:
            raise body.attributed(MalformedStreamError(f"the answer is longer than {MAX_JSON_BYTES} bytes"))
    with suppress(ValueError, RecursionError):
        answer = json.loads(data)
        if isinstance(answer, dict):
            return answer
    # Raised outside of the `suppress`: the exception of json holds the text, which may contain an echo of the key.
    text = data.decode("utf-8", "replace")
    raise body.attributed(MalformedStreamError("the answer is not a JSON object", body=text))
