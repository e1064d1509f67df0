"""The way onto the wire: the only door to requests and urllib3.

    payload -> POST -> headers -> Body: pieces of bytes, as soon as they arrive

``Transport`` sends, ``body`` reads, ``encoding`` decodes, ``exchange`` keeps the clocks and can be woken by another
thread, ``session`` makes the connections, ``faults`` turns what goes wrong into our errors.
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
from completion.transport.exchange import Exchange, opening
from completion.transport.faults import is_cut, is_from_signal_handler, scrubbed
from completion.transport.session import new_session
from completion.transport.timeout import Timeout
from completion.version import __version__

__all__ = ["Body", "Session", "Timeout", "Transport", "is_from_signal_handler"]


class Transport:
    """The requests of one endpoint, over one lazily made Session.

    Thread-safe; after a fork the child makes a Session of its own. Pickles without its connections.
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
            raise TypeError(f"session= takes a requests.Session, got {type(session).__name__}")
        self._given_session = session
        self._request_id_headers = request_id_headers
        self._no_proxy = no_proxy
        self._session_of_process: dict[int, Session] = {}
        self._dropped: deque[Body] = deque()  # by finalizers, with connections that can serve again

    def post(self, url: str, payload: Any, authorization: Authorization, *, model: str, accept: str = "*/*") -> Body:
        """The open body of the response, whatever its status.

        Raises:
            CompletionError: anything that keeps the stream from opening; the connection is released.
        """
        self._give_back_dropped()
        exchange = Exchange(self.provider, model, self.timeout, authorization)
        sent = _encoded(payload, exchange)
        handled = sys.exc_info()[1]
        try:
            return self._body(self._answer(url, sent, authorization, exchange, accept), exchange)
        except BaseException as exc:
            clear_all(exc, handled)  # the frames of requests and urllib3 hold the headers
            raise

    def _answer(self, url: str, data: bytes, authorization: Authorization, exchange: Exchange, accept: str) -> Response:
        """The response; what keeps it from coming is one of our errors, unless it is foreign."""
        bound = opening.set(exchange)
        handled = sys.exc_info()[1]
        failure: CompletionError | None = None
        try:
            exchange.begin()
            return self._sent(url, data, authorization, exchange, accept)
        except BaseException as exc:
            exchange.end()
            if not isinstance(exc, Exception) or is_from_signal_handler(exc):
                raise
            failure = exchange.setup_error(exc)
            failure.__cause__ = scrubbed(exc, authorization, handled)
        finally:
            opening.reset(bound)
        try:  # after the except block, and deleted: contract/frames.py says why
            raise failure
        finally:
            del failure

    def _body(self, response: Response, exchange: Exchange) -> Body:
        """The body of a response. Nothing that it leads to shows the key."""
        response.request = None  # type: ignore[assignment]
        conceal = exchange.authorization.conceal
        told = response.headers.items()
        response.headers = CaseInsensitiveDict((conceal(name), conceal(value)) for name, value in told)
        body = Body(response, exchange, _request_id(response.headers, self._request_id_headers), self._dropped)
        try:
            body.check()
        except BaseException:
            body.close()
            raise
        return body

    def _sent(self, url: str, data: bytes, authorization: Authorization, exchange: Exchange, accept: str) -> Response:
        """The response, once its headers are in.

        A server may close an idle connection at the very moment at which we use it (llama.cpp does after each stream).
        When not one byte came back, the request goes out once more: over the next idle connection, and in the end over
        a new one.
        """
        handled = sys.exc_info()[1]
        while True:
            try:
                return self._session().post(
                    url,
                    data=data,
                    headers={
                        "Content-Type": "application/json",
                        "Accept": accept,
                        # A compressed stream arrives when its compressor's buffer is full.
                        "Accept-Encoding": "identity",
                        "User-Agent": f"completion/{__version__}",
                        **self._headers,
                    },
                    auth=authorization,
                    stream=True,
                    timeout=exchange.header_timeout(),
                    allow_redirects=False,
                    proxies=_without_proxy(url) if self._no_proxy else None,
                )
            except ConnectionError as exc:
                if not (exchange.is_on_used_connection and is_cut(exc)) or exchange.interruption():
                    raise
                exchange.is_on_used_connection = False
                scrubbed(exc, authorization, handled)  # urllib3's errors lead in a circle to the frames of our caller

    def _give_back_dropped(self) -> None:
        while self._dropped:
            with suppress(IndexError):  # another thread was faster
                self._dropped.popleft().give_back()

    def close(self) -> None:
        """Close the pooled connections; a later request opens new ones. A Session given by the caller stays."""
        self._give_back_dropped()
        for session in list(self._session_of_process.values()):
            session.close()

    def __del__(self) -> None:
        for body in getattr(self, "_dropped", ()):
            body.abandon()

    def _session(self) -> Session:
        if self._given_session is not None:
            return self._given_session
        process = os.getpid()
        session = self._session_of_process.get(process)
        if session is None:
            # Of several threads that come here at once all get the same one: setdefault is atomic.
            session = self._session_of_process.setdefault(process, new_session())
            for other in set(self._session_of_process) - {process}:
                # The parent's: its sockets are closed in this process only.
                self._session_of_process.pop(other, None)
        return session

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_session_of_process": {}, "_dropped": deque()}


def _encoded(payload: Any, exchange: Exchange) -> bytes:
    cause: Exception | None
    try:
        return json.dumps(payload, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except UnicodeEncodeError as exc:
        what = f"the request's text holds {exc.object[exc.start]!r}, half of a surrogate pair, which UTF-8 cannot carry"
        cause = None
    except (TypeError, ValueError, RecursionError) as exc:
        what = f"the request cannot be written as JSON: {exc}"
        cause = exc.with_traceback(None)
    # Raised here, lest what was caught hangs on it as its context: it holds the whole request.
    raise exchange.error(UnsupportedContentError, what) from cause


def _without_proxy(url: str) -> dict[str, Any]:
    """For ``requests``: no proxy for this URL, whatever the environment and the Session say."""
    parts = urlsplit(url)
    return dict.fromkeys(f"{scheme}{host}" for scheme in (parts.scheme, "all") for host in ("", f"://{parts.hostname}"))


def _request_id(headers: CaseInsensitiveDict[str], names: tuple[str, ...]) -> str | None:
    return next((headers[name] for name in names if headers.get(name)), None)
