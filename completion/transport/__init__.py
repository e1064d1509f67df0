"""Sends requests and reads responses: the only package that imports requests and urllib3.

    payload -> POST -> headers -> Body: pieces of bytes, as soon as they arrive

``Transport`` sends. ``body`` reads, ``chunked`` removes the framing and ``encoding`` the compression. ``exchange``
knows the timeouts and can be cancelled from another thread. ``session`` makes the connections. ``faults`` turns
exceptions into our errors. ``credentials`` holds keys and tokens. ``recorder`` and ``replayer`` make the Sessions of
``completion.testing.recorded``.
"""

from __future__ import annotations

import json
import os
import sys
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from requests import Response, Session
from requests.exceptions import ConnectionError
from requests.structures import CaseInsensitiveDict

from completion.contract.errors import CompletionError, UnsupportedContentError
from completion.contract.frames import clear_all
from completion.transport.body import Body
from completion.transport.credentials import Authorization
from completion.transport.exchange import Exchange, exchange_in_progress
from completion.transport.faults import is_connection_lost, must_raise_unchanged, scrubbed
from completion.transport.session import new_session
from completion.transport.timeout import Timeout
from completion.version import __version__

__all__ = ["Body", "Session", "Timeout", "Transport", "must_raise_unchanged"]


class Transport:
    """Sends the requests of one endpoint over one Session, which the first request makes.

    Thread-safe. After a fork the child makes a Session of its own. Pickles without its connections.
    """

    def __init__(
        self,
        *,
        provider: str,
        timeout: Timeout,
        headers: Mapping[str, str],
        session: Session | None,
        request_id_headers: tuple[str, ...],
        no_proxy: bool = False,
    ) -> None:
        self.provider = provider
        self.timeout = timeout
        self._headers = dict(headers)
        if session is not None and not isinstance(session, Session):
            raise TypeError(f"session= must be a requests.Session, got {type(session).__name__}")
        self._given_session = session
        self._request_id_headers = request_id_headers
        self._no_proxy = no_proxy
        self._session_by_process: dict[int, Session] = {}
        # Bodies that finalizers could not close. Their connections can serve again.
        self._postponed: deque[Body] = deque()

    def post(self, url: str, payload: Any, authorization: Authorization, *, model: str, accept: str = "*/*") -> Body:
        """Send the payload as JSON and return the open body of the response, whatever its status.

        Raises:
            CompletionError: no response arrived. No connection stays open.
        """
        exchange = Exchange(self.provider, model, self.timeout, authorization)
        data = _to_json(payload, exchange)
        return self._open(url, data, authorization, exchange, accept)

    def get(self, url: str, authorization: Authorization) -> Body:
        """Ask for a JSON document and return the open body of the response, whatever its status.

        Raises:
            CompletionError: no response arrived. No connection stays open.
        """
        exchange = Exchange(self.provider, "", self.timeout, authorization)
        return self._open(url, None, authorization, exchange, "application/json")

    def _open(
        self, url: str, data: bytes | None, authorization: Authorization, exchange: Exchange, accept: str
    ) -> Body:
        self._close_postponed()
        handled = sys.exc_info()[1]  # what the caller is handling; its frames must stay as they are
        try:
            return self._body(self._response(url, data, authorization, exchange, accept), exchange)
        except BaseException as exc:
            clear_all(exc, handled)  # the frames of requests and urllib3 hold the headers with the key
            raise

    def _response(
        self, url: str, data: bytes | None, authorization: Authorization, exchange: Exchange, accept: str
    ) -> Response:
        """The response, once its headers are in.

        Raises:
            CompletionError: no response arrived. An exception of a signal handler is raised unchanged.
        """
        context = exchange_in_progress.set(exchange)
        handled = sys.exc_info()[1]
        failure: CompletionError | None = None
        try:
            exchange.start()
            return self._send(url, data, authorization, exchange, accept)
        except BaseException as exc:
            exchange.finish()
            if not isinstance(exc, Exception) or must_raise_unchanged(exc):
                raise
            failure = exchange.setup_error(exc)
            failure.__cause__ = scrubbed(exc, authorization, handled)
        finally:
            exchange_in_progress.reset(context)
        try:  # raised outside of `except`: the exception, which may show the key, must not become its __context__
            raise failure
        finally:
            del failure  # its traceback refers to this frame: a reference cycle

    def _body(self, response: Response, exchange: Exchange) -> Body:
        """The body of a response. No object that it refers to shows the key."""
        response.request = None  # type: ignore[assignment]
        conceal = exchange.authorization.conceal
        headers = response.headers.items()
        response.headers = CaseInsensitiveDict((conceal(name), conceal(value)) for name, value in headers)
        body = Body(response, exchange, _request_id(response.headers, self._request_id_headers), self._postponed)
        try:
            body.check()
        except BaseException:
            body.close()
            raise
        return body

    def _send(
        self, url: str, data: bytes | None, authorization: Authorization, exchange: Exchange, accept: str
    ) -> Response:
        """Send the request, again if the server closed an idle connection that it was sent on.

        A server may do that just when we use the connection (llama.cpp does after each stream). If no byte of a
        response arrived, the request is sent again: on the next idle connection, and at last on a new one.
        """
        handled = sys.exc_info()[1]
        while True:
            session = self._session()
            try:
                send = session.get if data is None else session.post
                return send(
                    url,
                    data=data,
                    headers={
                        **({} if data is None else {"Content-Type": "application/json"}),
                        "Accept": accept,
                        # A compressed stream arrives late: only when the buffer of the compressor is full.
                        "Accept-Encoding": "identity",
                        "User-Agent": f"completion/{__version__}",
                        **self._headers,
                    },
                    auth=authorization,  # in headers= an entry of .netrc would replace it
                    stream=True,
                    timeout=exchange.header_timeout(),
                    allow_redirects=False,  # requests would send x-api-key to the other host
                    proxies=_without_proxy(url) if self._no_proxy else None,
                    # Unless it is passed here, requests prefers REQUESTS_CA_BUNDLE to what the caller's Session says.
                    verify=session.verify,
                )
            except ConnectionError as exc:
                if not (exchange.is_connection_reused and is_connection_lost(exc)) or exchange.interruption():
                    raise
                exchange.is_connection_reused = False
                # urllib3's errors refer to themselves through their tracebacks, which would keep our caller's frames.
                scrubbed(exc, authorization, handled)

    def _close_postponed(self) -> None:
        """Close the bodies that finalizers could not close. This returns their connections to the pool."""
        while self._postponed:
            with suppress(IndexError):  # another thread was faster
                self._postponed.popleft().close_postponed()

    def close(self) -> None:
        """Close the connections in the pool; a later request opens new ones. A Session of the caller stays open."""
        self._close_postponed()
        for session in list(self._session_by_process.values()):
            session.close()

    def __del__(self) -> None:
        for body in getattr(self, "_postponed", ()):  # missing if __init__ raised
            body.close_without_pool()

    def _session(self) -> Session:
        if self._given_session is not None:
            return self._given_session
        process = os.getpid()
        session = self._session_by_process.get(process)
        if session is None:
            # setdefault is atomic: threads that come here together get the same Session.
            session = self._session_by_process.setdefault(process, new_session())
            for other in set(self._session_by_process) - {process}:
                # Forget the parent's Session. This closes its sockets in this process only.
                self._session_by_process.pop(other, None)
        return session

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_session_by_process": {}, "_postponed": deque()}


def _to_json(payload: Any, exchange: Exchange) -> bytes:
    """The payload as JSON in UTF-8.

    Raises:
        UnsupportedContentError: JSON or UTF-8 cannot represent it.
    """
    cause: Exception | None
    try:
        return json.dumps(payload, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except UnicodeEncodeError as exc:
        half = exc.object[exc.start]
        what = f"the text of the request contains {half!r}, half of a surrogate pair, which UTF-8 cannot represent"
        cause = None
    except (TypeError, ValueError, RecursionError) as exc:
        what = f"the request cannot be written as JSON: {exc}"
        cause = exc.with_traceback(None)
    # Raised outside of `except`: the exception, which holds the whole request, must not become its __context__.
    raise exchange.error(UnsupportedContentError, what) from cause


def _without_proxy(url: str) -> dict[str, Any]:
    """``proxies=`` for requests: no proxy for this URL, even if the environment or the Session sets one."""
    parts = urlsplit(url)
    return dict.fromkeys(f"{scheme}{host}" for scheme in (parts.scheme, "all") for host in ("", f"://{parts.hostname}"))


def _request_id(headers: CaseInsensitiveDict[str], names: tuple[str, ...]) -> str | None:
    return next((headers[name] for name in names if headers.get(name)), None)
