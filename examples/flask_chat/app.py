"""A chat page whose answers arrive while the model writes them. README.rst tells how to start it."""

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
# HTML in the text is shown as it is written; a picture would tell a stranger's server what was read here, and when.
commonmark = MarkdownIt("commonmark", {"html": False}).disable("image")


@app.get("/")
def page() -> str:
    html: str = render_template("chat.html", model=f"{model.name}:{model.model}")
    return html


@app.post("/chat")
def chat() -> ResponseReturnValue:
    if not request.is_json:  # a page of another site can send a form here, but no JSON
        return {"error": {"message": "the Content-Type must be application/json"}}, 415
    try:
        asked = ChatRequest.from_json(request.get_data())
    except ValueError as error:
        return {"error": {"message": str(error)}}, 400
    # The messages are the visitor's to choose, and nothing else is.
    req = ChatRequest(asked.messages, system_prompt=SYSTEM_PROMPT, max_tokens=MAX_TOKENS)
    body = web.sse(partial(model.chat_stream, req), environ=request.environ)
    return Response(body, headers=body.headers)


@app.post("/markdown")
def markdown() -> str:
    html: str = commonmark.render(request.get_data(as_text=True))
    return html


@app.errorhandler(CompletionError)
def no_answer(error: CompletionError) -> ResponseReturnValue:
    """The page learns what kind of error it is; the provider's own words may quote the prompt, and go to the log."""
    app.logger.warning("no answer: %s", error)
    said = {"type": type(error).__name__, "message": web.explain(error), "retry_after": error.retry_after}
    return {"error": said}, STATUS.get(type(error), 502)


@app.after_request
def second_wall(response: Response) -> Response:
    """Even if HTML of the model's found a way into the page, no browser would run it."""
    response.headers["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response


if __name__ == "__main__":
    app.run(port=int(os.environ.get("PORT", "8000")), threaded=True)
