"""A chat page that shows answers while the model writes them. README.rst explains how to start it."""

import os
from functools import partial
from pathlib import Path

from flask import Flask, Response, render_template, request
from flask.typing import ResponseReturnValue
from markdown_it import MarkdownIt

import completion
from completion import ChatRequest, CompletionError, ContextOverflowError, OverloadedError, RateLimitError, web

PAGE = Path(__file__).resolve().parents[1] / "chat_page"
SYSTEM_PROMPT = "You are a helpful assistant."
MAX_TOKENS = int(os.environ.get("MAX_TOKENS", "1024"))
CONTENT_SECURITY_POLICY = "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
STATUS: dict[type[CompletionError], int] = {RateLimitError: 429, OverloadedError: 503, ContextOverflowError: 413}

app = Flask(__name__, template_folder=str(PAGE), static_folder=str(PAGE), static_url_path="/static")
app.config["MAX_CONTENT_LENGTH"] = 2**20
model = completion.model(os.environ.get("COMPLETION_MODEL", "local"))
# HTML in the text is shown as text. No images: the browser would request them from the server that the model names.
commonmark = MarkdownIt("commonmark", {"html": False}).disable("image")


@app.get("/")
def page() -> str:
    html: str = render_template("chat.html", model=f"{model.name}:{model.model}")
    return html


@app.post("/chat")
def chat() -> ResponseReturnValue:
    if not request.is_json:  # a page of another site can send a form to this server, but not JSON
        return {"error": {"message": "the Content-Type must be application/json"}}, 415
    try:
        sent = ChatRequest.from_json(request.get_data())
    except ValueError as error:
        return {"error": {"message": str(error)}}, 400
    # Only the messages come from the visitor.
    req = ChatRequest(sent.messages, system_prompt=SYSTEM_PROMPT, max_tokens=MAX_TOKENS)
    body = web.sse(partial(model.chat_stream, req), environ=request.environ)
    return Response(body, headers=body.headers)


@app.post("/markdown")
def markdown() -> str:
    html: str = commonmark.render(request.get_data(as_text=True))
    return html


@app.errorhandler(CompletionError)
def provider_failed(error: CompletionError) -> ResponseReturnValue:
    """Send the kind of error to the page. The provider's message may quote the prompt, so it goes only to the log."""
    app.logger.warning("no answer: %s", error)
    info = {"type": type(error).__name__, "message": web.explain(error), "retry_after": error.retry_after}
    return {"error": info}, STATUS.get(type(error), 502)


@app.after_request
def add_security_headers(response: Response) -> Response:
    """A second defence: even if HTML of the model reached the page, the browser would not run its scripts."""
    response.headers["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response


if __name__ == "__main__":
    app.run(port=int(os.environ.get("PORT", "8000")), threaded=True)
