"""Sends a stream as the body of an HTTP response, with any web framework (none is imported).

    body = web.sse(partial(model.chat_stream, req), environ=request.environ)     # Flask
    return Response(body, headers=body.headers)

    body = web.sse(await async_model.chat_stream(req))                  # an async view of Django
    return StreamingHttpResponse(body, headers=body.headers)

    StreamChunk -> protocols, ui: bytes -> wsgi, asgi: a body, which closes the stream when its client leaves

An iterable gives a body for WSGI, an asynchronous iterable a body for ASGI. A body is never both: frameworks prefer
``__iter__``, which would block an event loop.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, overload

from completion.contract.cancel import CancelToken
from completion.contract.checks import require_seconds
from completion.contract.chunks import StreamChunk
from completion.contract.values import ValueStream
from completion.web.protocols import ErrorInfo, NdJson, Protocol, Rendering, Sse, Text, explain
from completion.web.ui import UiMessages
from completion.web.ui_request import UiHistory, read_ui_messages
from completion.web.wsgi import WsgiBody

if TYPE_CHECKING:
    from completion.web.asgi import AsgiBody

__all__ = ["ErrorInfo", "UiHistory", "explain", "ndjson", "read_ui_messages", "sse", "text", "ui_messages"]

# ValueStream: the growing values of structured().
Blocking = Iterable[StreamChunk] | ValueStream[Any] | Callable[[], Iterable[StreamChunk] | ValueStream[Any]]
OnError = Callable[[Exception], str]


@overload
def sse(
    stream: Blocking,
    *,
    keep_alive: float | None = None,
    on_error: OnError = explain,
    environ: Mapping[str, Any] | None = None,
    token: CancelToken | None = None,
) -> WsgiBody: ...
@overload
def sse(
    stream: AsyncIterable[StreamChunk], *, keep_alive: float | None = None, on_error: OnError = explain
) -> AsgiBody: ...
def sse(stream: Any, **options: Any) -> WsgiBody | AsgiBody:
    """The chunks as server-sent events, each as its ``to_json()``: ``data: {"type": "text_delta", "delta": "Hi"}``.

    A complete body ends with ``turn_finished`` and ``[DONE]``. After a failure it ends with ``{"type": "error",
    "error": {"type": "RateLimitError", "message": "…", "retry_after": null}}`` and no ``[DONE]``. A body that ends
    without either is truncated. A run (``run_chat``) ends with ``run_finished`` and ``[DONE]``; ``abort`` in
    ``run_finished`` tells whether the run was aborted. ``new_messages`` and ``output`` are not sent: they stay on the
    server.

    When the client leaves, the connection to the provider is closed within a second, even while the model sends
    nothing. An ASGI server reports it. A WSGI server notices it at its second failed write, or we notice it at the
    client's socket (see ``environ``).

    Args:
        stream: the result of ``chat_stream``, or any (asynchronous) iterable of chunks that ends with a TurnFinished.
            For WSGI also a function that opens the stream, such as ``partial(model.chat_stream, req)``. It is called
            at once and its errors are raised here; with ``environ``, a client that leaves meanwhile is noticed too.
        keep_alive: after this many seconds without a chunk, send a comment. None means 0.3, so that a WSGI server
            notices within a second that the client has left; or 15, enough for proxies, if ``environ`` contains the
            client's socket. A comment costs one write and 14 bytes.
        on_error: returns what the client may read about an error. The default names the kind of error and does not
            quote the provider, whose message may contain the prompt.
        environ: the WSGI environment of the request. gunicorn, Werkzeug and waitress put the client's socket into it.
        token: cancelled when the client leaves. Needed only if the chunks pass through your own generator, which
            cannot be interrupted from outside: open the stream inside of ``with token:``.

    Raises:
        TypeError: the stream is neither iterable nor asynchronously iterable, or is both; or an option is for WSGI
            only.
        ValueError: ``keep_alive`` is not a positive number.
    """
    return _body(stream, Sse(), **options)


@overload
def ndjson(
    stream: Blocking,
    *,
    keep_alive: float | None = None,
    on_error: OnError = explain,
    environ: Mapping[str, Any] | None = None,
    token: CancelToken | None = None,
) -> WsgiBody: ...
@overload
def ndjson(
    stream: AsyncIterable[StreamChunk], *, keep_alive: float | None = None, on_error: OnError = explain
) -> AsgiBody: ...
def ndjson(stream: Any, **options: Any) -> WsgiBody | AsgiBody:
    """One line of JSON per chunk; the last line is ``turn_finished`` or ``error``. Otherwise like ``sse``.

    Of ``structured(…)``, one line per growing value; the last line is the whole value or ``error``.

    A keep-alive is a space: JSON allows whitespace before a value.
    """
    return _body(stream, NdJson(), **options)


@overload
def text(
    stream: Blocking,
    *,
    on_error: OnError = explain,
    environ: Mapping[str, Any] | None = None,
    token: CancelToken | None = None,
) -> WsgiBody: ...
@overload
def text(stream: AsyncIterable[StreamChunk], *, on_error: OnError = explain) -> AsgiBody: ...
def text(stream: Any, **options: Any) -> WsgiBody | AsgiBody:
    """The plain text of the answer, in UTF-8. Otherwise like ``sse``.

    After a failure, the body ends with a line in brackets and then raises the error: the server breaks the transfer
    off, and the client sees a network error. Plain text has no keep-alive: while the model sends nothing, a WSGI body
    notices that the client has left only if ``environ`` contains its socket.
    """
    return _body(stream, Text(), **options)


@overload
def ui_messages(
    stream: Blocking,
    *,
    message_id: str | None = None,
    keep_alive: float | None = None,
    on_error: OnError = explain,
    environ: Mapping[str, Any] | None = None,
    token: CancelToken | None = None,
) -> WsgiBody: ...
@overload
def ui_messages(
    stream: AsyncIterable[StreamChunk],
    *,
    message_id: str | None = None,
    keep_alive: float | None = None,
    on_error: OnError = explain,
) -> AsgiBody: ...
def ui_messages(stream: Any, *, message_id: str | None = None, **options: Any) -> WsgiBody | AsgiBody:
    """The AI SDK's UI message stream, for a front end with ``useChat``. Otherwise like ``sse``.

    ``read_ui_messages`` reads the messages that such a front end sends.

    Args:
        message_id: the id of the answer. None lets the front end choose. Use None if the front end continues a
            message, which it does after it has run a client-side tool: another id would show that message twice.

    Wire: https://ai-sdk.dev/docs/ai-sdk-ui/stream-protocol (read November 2026)
    """
    return _body(stream, UiMessages(message_id), **options)


def _body(
    stream: Any, protocol: Protocol, *, keep_alive: float | None = None, on_error: OnError = explain, **options: Any
) -> WsgiBody | AsgiBody:
    if unknown := options.keys() - {"environ", "token"}:
        raise TypeError(f"completion.web: unknown option {', '.join(sorted(unknown))}")
    if not callable(on_error):
        raise TypeError(f"on_error= takes a function from an exception to a text, got {type(on_error).__name__}")
    if not isinstance(options.get("token"), CancelToken | None):
        raise TypeError(f"token= takes a CancelToken, got {type(options['token']).__name__}")
    methods = [method for method in ("__iter__", "__aiter__") if hasattr(type(stream), method)]
    if not methods and callable(stream) and not isinstance(stream, type):
        methods = ["__iter__"]  # of the stream that the function opens
    if len(methods) != 1 or isinstance(stream, str | bytes):
        what = "is both iterable and asynchronously iterable" if methods[1:] else f"is a {type(stream).__name__}"
        raise TypeError(f"completion.web takes the result of chat_stream(), or an iterable of chunks; this {what}")
    require_seconds(keep_alive, "keep_alive")
    if keep_alive is not None and not protocol.keep_alive:
        raise TypeError("keep_alive=: plain text has no keep-alive, every byte would be part of the answer")
    rendering = Rendering(protocol, on_error)
    if methods == ["__iter__"]:
        return WsgiBody(stream, rendering, keep_alive=keep_alive, **options)
    from completion.web.asgi import AsgiBody  # here, because it imports asyncio

    if options:
        raise TypeError(f"{', '.join(options)}: for WSGI only; under ASGI the server reports that the client has left")
    return AsgiBody(stream, rendering, keep_alive=keep_alive)
