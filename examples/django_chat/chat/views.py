"""The page, the streamed answer (a view for WSGI, one for ASGI), and Markdown to HTML."""

import logging
import os
from functools import partial

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, JsonResponse, StreamingHttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_POST
from markdown_it import MarkdownIt

import completion
from completion import (
    AsyncModel,
    ChatRequest,
    CompletionError,
    ContextOverflowError,
    OverloadedError,
    RateLimitError,
    web,
)

SYSTEM_PROMPT = "You are a helpful assistant."
MAX_TOKENS = int(os.environ.get("MAX_TOKENS", "1024"))
STATIC = {"chat.css": "text/css", "chat.js": "text/javascript", "icon.svg": "image/svg+xml"}
CONTENT_SECURITY_POLICY = "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
STATUS: dict[type[CompletionError], int] = {RateLimitError: 429, OverloadedError: 503, ContextOverflowError: 413}

log = logging.getLogger(__name__)
model = completion.model(os.environ.get("COMPLETION_MODEL", "local"))
async_model = AsyncModel(model)
# HTML in the text is shown as text. No images: the browser would request them from the server that the model names.
commonmark = MarkdownIt("commonmark", {"html": False}).disable("image")


def page(request: HttpRequest) -> HttpResponse:
    response = render(request, "chat.html", {"model": f"{model.name}:{model.model}"})
    # A second defence: even if HTML of the model reached the page, the browser would not run its scripts.
    response.headers["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
    return response


@require_POST
def chat(request: HttpRequest) -> HttpResponseBase:
    """Under WSGI."""
    try:
        body = web.sse(partial(model.chat_stream, request_for_model(request)), environ=request.META)
    except (ValueError, CompletionError) as error:
        return error_response(error)
    return StreamingHttpResponse(body, headers=body.headers)


@require_POST
async def chat_async(request: HttpRequest) -> HttpResponseBase:
    """Under ASGI."""
    try:
        body = web.sse(await async_model.chat_stream(request_for_model(request)))
    except (ValueError, CompletionError) as error:
        return error_response(error)
    return StreamingHttpResponse(body, headers=body.headers)


def request_for_model(request: HttpRequest) -> ChatRequest:
    """The request that is sent to the model. Only the messages come from the visitor."""
    messages = ChatRequest.from_json(request.body).messages
    return ChatRequest(messages, system_prompt=SYSTEM_PROMPT, max_tokens=MAX_TOKENS)


def error_response(error: ValueError | CompletionError) -> JsonResponse:
    """Send the kind of error to the page. The provider's message may quote the prompt, so it goes only to the log."""
    if isinstance(error, ValueError):
        return JsonResponse({"error": {"message": str(error)}}, status=400)
    log.warning("no answer: %s", error)
    info = {"type": type(error).__name__, "message": web.explain(error), "retry_after": error.retry_after}
    return JsonResponse({"error": info}, status=STATUS.get(type(error), 502))


@require_POST
def markdown(request: HttpRequest) -> HttpResponse:
    return HttpResponse(commonmark.render(request.body.decode(errors="replace")))


def static(request: HttpRequest, name: str) -> HttpResponse:
    if name not in STATIC:
        raise Http404
    return HttpResponse((settings.PAGE / name).read_bytes(), content_type=STATIC[name])
