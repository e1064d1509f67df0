"""From a stream to the body of an HTTP response; no framework is imported.

    body = web.sse(partial(model.chat_stream, req), environ=request.environ)     # Flask
    return Response(body, headers=body.headers)

    body = web.sse(await async_model.chat_stream(req))                  # an async view of Django
    return StreamingHttpResponse(body, headers=body.headers)

    StreamChunk -> protocols, ui: bytes -> wsgi, asgi: a body, which hangs up when its client leaves

What is iterable gives a body for WSGI, what is asynchronously iterable one for ASGI. No body is both: frameworks try
the blocking way first.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, overload

from completion.contract.cancel import CancelToken
from completion.contract.checks import require_seconds
from completion.contract.chunks import StreamChunk
from completion.web.protocols import ErrorInfo, NdJson, Protocol, Rendering, Sse, Text, explain
from completion.web.ui import UiMessages
from completion.web.ui_request import read_ui_messages
from completion.web.wsgi import WsgiBody

if TYPE_CHECKING:
    from completion.web.asgi import AsgiBody

__all__ = ["ErrorInfo", "explain", "ndjson", "read_ui_messages", "sse", "text", "ui_messages"]

Blocking = Iterable[StreamChunk] | Callable[[], Iterable[StreamChunk]]
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
    """Server-sent events: ``data: {"type": "text_delta", "delta": "Hi"}``, each chunk as its ``to_json()`` gives it.

    A good end is ``turn_finished`` and then ``[DONE]``. A failure is ``{"type": "error", "error": {"type":
    "RateLimitError", "message": "…", "retry_after": null}}`` and no ``[DONE]``. A body that ends without either was cut
    off. A run (``run_chat``) ends with ``run_finished``, whose ``abort`` tells whether it was cut short, and
    ``[DONE]``; its ``new_messages`` are left out: the history stays at the server.

    The client that leaves takes the connection to the provider along, within a second, also while the model is silent:
    an ASGI server tells; a WSGI server finds out when it writes twice, or shows the socket.

    Args:
        stream: what ``chat_stream`` gives, or any (asynchronous) iterable of chunks that ends with a TurnFinished. For
            WSGI also a function that opens the stream, such as ``partial(model.chat_stream, req)``: it is called now,
            its errors are raised here, and a client that leaves while it waits for the provider is noticed as well.
        keep_alive: so many seconds of silence bring a comment. None is 0.3, so that a server notices within a second
            that nobody is there; and 15, for the proxies on the way, where ``environ`` shows the socket. Each comment
            costs a write and 14 bytes.
        on_error: from an error to what the client may know of it. The default tells the kind, and none of the
            provider's words, which may quote the prompt.
        environ: the WSGI environment of the request. gunicorn, Werkzeug and waitress show the client's socket in it.
        token: cancelled when the client leaves. Only for chunks that come through a generator of your own, which
            cannot be interrupted from outside: open the stream inside of ``with token:``.

    Raises:
        TypeError: the stream is neither, or both; an option of the one kind for the other.
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
    """A line of JSON a chunk, the last one ``turn_finished`` or ``error``; else as ``sse``.

    A keep-alive is a space, which may stand before any JSON value.
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
    """The text of the answer as it is, in UTF-8; else as ``sse``.

    A failure is a last line in brackets, and then the body raises the error: the server breaks the transfer off, which
    a client sees as an error of the network. No keep-alive is possible in plain text: in a silence a WSGI server
    notices that the client left only where ``environ`` shows its socket.
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
    """The AI SDK's UI message stream, for a front end with ``useChat``; else as ``sse``.

    ``read_ui_messages`` reads what such a front end sends.

    Args:
        message_id: of the answer. None leaves it to the front end, and is right where that goes on with a message
            that it has, as after a tool of its own: another id would make that message appear twice.

    Wire: https://ai-sdk.dev/docs/ai-sdk-ui/stream-protocol (read November 2026)
    """
    return _body(stream, UiMessages(message_id), **options)


def _body(
    stream: Any, protocol: Protocol, *, keep_alive: float | None = None, on_error: OnError = explain, **options: Any
) -> WsgiBody | AsgiBody:
    if unknown := options.keys() - {"environ", "token"}:
        raise TypeError(f"completion.web knows no option {', '.join(sorted(unknown))}")
    if not callable(on_error):
        raise TypeError(f"on_error= takes a function from an exception to a text, got {type(on_error).__name__}")
    if not isinstance(options.get("token"), CancelToken | None):
        raise TypeError(f"token= takes a CancelToken, got {type(options['token']).__name__}")
    ways = [way for way in ("__iter__", "__aiter__") if hasattr(type(stream), way)]
    if not ways and callable(stream) and not isinstance(stream, type):
        ways = ["__iter__"]
    if len(ways) != 1 or isinstance(stream, str | bytes):
        what = "is both iterable and asynchronously iterable" if ways[1:] else f"is a {type(stream).__name__}"
        raise TypeError(f"completion.web takes what chat_stream() gives, or an iterable of chunks; this {what}")
    require_seconds(keep_alive, "keep_alive")
    if keep_alive is not None and not protocol.keep_alive:
        raise TypeError("keep_alive=: nothing can be sent in plain text that is no text")
    rendering = Rendering(protocol, on_error)
    if ways == ["__iter__"]:
        return WsgiBody(stream, rendering, keep_alive=keep_alive, **options)
    from completion.web.asgi import AsgiBody

    if options:
        raise TypeError(f"{', '.join(options)}: for WSGI only; under ASGI the server tells that the client left")
    return AsgiBody(stream, rendering, keep_alive=keep_alive)
