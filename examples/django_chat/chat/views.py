"""The page, the answer as a stream (once for WSGI, once for ASGI), and Markdown as HTML."""

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
STATIC = {"chat.css": "text/css", "chat.js": "text/javascript"}
CONTENT_SECURITY_POLICY = "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
STATUS: dict[type[CompletionError], int] = {RateLimitError: 429, OverloadedError: 503, ContextOverflowError: 413}

log = logging.getLogger(__name__)
model = completion.model(os.environ.get("COMPLETION_MODEL", "local"))
async_model = AsyncModel(model)
# HTML in the text is shown as it is written; a picture would tell a stranger's server what was read here, and when.
commonmark = MarkdownIt("commonmark", {"html": False}).disable("image")


def page(request: HttpRequest) -> HttpResponse:
    response = render(request, "chat.html", {"model": f"{model.name}:{model.model}"})
    # A second wall: even if HTML of the model's found a way into the page, no browser would run it.
    response.headers["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
    return response


@require_POST
def chat(request: HttpRequest) -> HttpResponseBase:
    """Under WSGI."""
    try:
        body = web.sse(partial(model.chat_stream, asked(request)), environ=request.META)
    except (ValueError, CompletionError) as error:
        return no_answer(error)
    return StreamingHttpResponse(body, headers=body.headers)


@require_POST
async def chat_async(request: HttpRequest) -> HttpResponseBase:
    """Under ASGI."""
    try:
        body = web.sse(await async_model.chat_stream(asked(request)))
    except (ValueError, CompletionError) as error:
        return no_answer(error)
    return StreamingHttpResponse(body, headers=body.headers)


def asked(request: HttpRequest) -> ChatRequest:
    """What is sent to the model: the messages are the visitor's to choose, and nothing else is."""
    messages = ChatRequest.from_json(request.body).messages
    return ChatRequest(messages, system_prompt=SYSTEM_PROMPT, max_tokens=MAX_TOKENS)


def no_answer(error: ValueError | CompletionError) -> JsonResponse:
    """The page learns what kind of error it is; the provider's own words may quote the prompt, and go to the log."""
    if isinstance(error, ValueError):
        return JsonResponse({"error": {"message": str(error)}}, status=400)
    log.warning("no answer: %s", error)
    said = {"type": type(error).__name__, "message": web.explain(error), "retry_after": error.retry_after}
    return JsonResponse({"error": said}, status=STATUS.get(type(error), 502))


@require_POST
def markdown(request: HttpRequest) -> HttpResponse:
    return HttpResponse(commonmark.render(request.body.decode(errors="replace")))


def static(request: HttpRequest, name: str) -> HttpResponse:
    if name not in STATIC:
        raise Http404
    return HttpResponse((settings.PAGE / name).read_bytes(), content_type=STATIC[name])
