"""Views of Flask and Django for ``load.py``, each in a real server process, and a client that reads their answers.

The views are those of docs/howto/flask.rst and docs/howto/django-asgi.rst. The model is at $PROVIDER. ``/spent`` is the
CPU time of the process, in seconds, and its peak of memory, in MiB.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from completion import AsyncModel, ChatRequest, OpenAIModel, web

# gunicorn: more threads than streams, so that one is free for /spent.
COMMANDS: Final[dict[str, str]] = {
    "Flask, gunicorn": "-m gunicorn -w 1 -k gthread --threads {threads} --worker-connections 4096 --backlog 2048 "
    "-b 127.0.0.1:{port} load_views:flask_app()",
    "Django, uvicorn": "-m uvicorn --port {port} --log-level warning --factory load_views:django_app",
}
_START_S: Final = 60.0
_SENT = re.compile(rb'"delta":"([0-9.]+)"')


# --- the servers -----------------------------------------------------------------------------------------------------


def spent() -> dict[str, float]:
    import resource

    return {"cpu": time.process_time(), "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def flask_app() -> Any:
    from flask import Flask, Response, request

    app = Flask(__name__)
    model = OpenAIModel("m", api_key="k", base_url=os.environ["PROVIDER"])

    @app.post("/chat")
    def chat() -> Response:
        req = ChatRequest(str(request.get_json()["question"]))
        body = web.sse(partial(model.chat_stream, req), environ=request.environ)
        return Response(body, headers=body.headers)

    app.get("/spent")(spent)
    return app


def django_app() -> Any:
    import django
    from django.conf import settings
    from django.core.asgi import get_asgi_application
    from django.http import HttpRequest, JsonResponse, StreamingHttpResponse
    from django.urls import path

    model = AsyncModel(OpenAIModel("m", api_key="k", base_url=os.environ["PROVIDER"]))

    async def chat(request: HttpRequest) -> StreamingHttpResponse:
        req = ChatRequest(str(json.loads(request.body)["question"]))
        body = web.sse(await model.chat_stream(req))
        return StreamingHttpResponse(body, headers=body.headers)

    async def spent_view(request: HttpRequest) -> JsonResponse:
        return JsonResponse(spent())

    urls = type("urls", (), {"urlpatterns": [path("chat", chat), path("spent", spent_view)]})
    settings.configure(ROOT_URLCONF=urls, ALLOWED_HOSTS=["*"])
    django.setup()
    return get_asgi_application()


def missing(name: str) -> str | None:
    """What this contestant needs and is not installed."""
    packages = re.findall(r"\w+", name.lower()) if name in COMMANDS else []
    return ", ".join(package for package in packages if find_spec(package) is None) or None


@contextmanager
def serving(name: str, provider: str, streams: int) -> Iterator[int]:
    """Start a server; its port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    arguments = COMMANDS[name].format(port=port, threads=streams + 8).split()
    environment = {**os.environ, "PROVIDER": provider}
    process = subprocess.Popen(
        [sys.executable, *arguments], env=environment, cwd=Path(__file__).parent, stderr=subprocess.DEVNULL
    )
    try:
        ends_at = time.monotonic() + _START_S
        while process.poll() is None and time.monotonic() < ends_at:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait()


# --- the client ------------------------------------------------------------------------------------------------------


async def request(port: int, line: str, body: bytes = b"") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"{line} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\nConnection: close\r\n"
    writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    status = await reader.readuntil(b"\r\n\r\n")
    assert b" 200 " in status.partition(b"\r\n")[0] + b" ", status
    return reader, writer


async def spent_by(port: int) -> dict[str, float]:
    reader, writer = await request(port, "GET /spent")
    data = await reader.read()
    writer.close()
    found: dict[str, float] = json.loads(data[data.index(b"{") : data.rindex(b"}") + 1])
    return found


async def read_answer(port: int, opened: Callable[[], None], note: Callable[[str], None], question: str = "hi") -> None:
    """Read one answer. ``note`` gets the moment of sending of each chunk."""
    reader, writer = await request(port, "POST /chat", json.dumps({"question": question}).encode())
    opened()
    while b"[DONE]" not in (data := await reader.readuntil(b"\n\n")):
        if found := _SENT.search(data):
            note(found[1].decode())
    writer.close()
