"""Starts web servers the way users start them: each in its own process, on a free port, with its log in a file."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest
import requests

from completion.testing import ProviderServer

EXAMPLES = Path(__file__).parents[2] / "examples"
FLASK, DJANGO = EXAMPLES / "flask_chat", EXAMPLES / "django_chat"

_START_S = 30.0
_STOP_S = 5.0
_POLL_S = 0.02

THREADS = 16
"""The number of threads of gunicorn's gthread worker."""

# One worker. The timeout is longer than any silent stream of the tests: gunicorn kills a worker that is silent.
_GUNICORN = "-m gunicorn --workers 1 --timeout 60 --graceful-timeout 1 --bind 127.0.0.1:{port}"

_PACKAGES = ("flask", "django", "gunicorn", "gevent", "uvicorn")

COMMANDS: dict[str, tuple[Path, str]] = {
    "Flask, its own server": (FLASK, "app.py"),
    "Flask, gunicorn gthread": (FLASK, f"{_GUNICORN} -k gthread --threads {THREADS} app:app"),
    "Flask, gunicorn gevent": (FLASK, f"{_GUNICORN} -k gevent app:app"),
    "Django, its own server": (DJANGO, "manage.py runserver --noreload {port}"),
    "Django WSGI, gunicorn gthread": (DJANGO, f"{_GUNICORN} -k gthread --threads {THREADS} chat.wsgi"),
    "Django ASGI, uvicorn": (DJANGO, "-m uvicorn --port {port} chat.asgi:application"),
}
"""How to start the examples: the folder, and the arguments for Python. The port is also in $PORT."""


class WebServer:
    """A running server. ``log`` is the text that it has written so far."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self._process = process
        self._log = log

    @property
    def log(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")

    @property
    def worker(self) -> int:
        """The id of the process that runs the application: a child of gunicorn, or the server itself."""
        pid = self._process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return int(children[0]) if children else pid

    def threads(self) -> int:
        return len(os.listdir(f"/proc/{self.worker}/task"))

    def descriptors(self) -> int:
        """Open files and sockets."""
        return len(os.listdir(f"/proc/{self.worker}/fd"))

    def wait_until_up(self) -> None:
        def answers() -> bool:
            assert self._process.poll() is None, f"the server has exited:\n{self.log}"
            try:
                with socket.create_connection(("127.0.0.1", self.port), 1) as client:
                    client.settimeout(_START_S)
                    client.sendall(b"GET / HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n")
                    return b" 200 " in client.recv(64)
            except OSError:
                return False

        assert wait_for(answers, _START_S), f"the server does not answer:\n{self.log}"

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@contextmanager
def serving(name: str, log: Path, environment: Mapping[str, str]) -> Iterator[WebServer]:
    """Start one of COMMANDS and wait until it answers; stop it at the end. Its output goes to the file ``log``."""
    _require("markdown_it", *(package for package in _PACKAGES if package in name.lower()))
    folder, command = COMMANDS[name]
    port = free_port()
    arguments = [sys.executable, "-W", "default", *command.format(port=port).split()]
    env = {**os.environ, "PYTHONUNBUFFERED": "1", "PORT": str(port), **environment}
    with log.open("wb") as out:
        process = subprocess.Popen(arguments, cwd=folder, env=env, stdout=out, stderr=subprocess.STDOUT)
        server = WebServer(process, port, log)
        try:
            server.wait_until_up()
            yield server
        finally:
            server.stop()


def scripted(provider: ProviderServer) -> dict[str, str]:
    """The environment variables with which an example calls this provider."""
    return {"COMPLETION_MODEL": "openai:m", "OPENAI_BASE_URL": provider.url, "OPENAI_API_KEY": "sk-of-the-examples"}


def wait_for(condition: Callable[[], bool], seconds: float) -> bool:
    """Whether the condition becomes true in this time."""
    ends_at = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > ends_at:
            return False
        time.sleep(_POLL_S)
    return True


def faults(log: str) -> list[str]:
    """The lines of a log with warnings, errors and tracebacks."""
    return re.findall(r"^.*(?:Traceback|Warning:|Exception|\bERROR\b|CRITICAL).*$", log, re.MULTILINE)


def _require(*packages: str) -> None:
    """Skip the test if a package is missing."""
    if missing := [package for package in packages if find_spec(package) is None]:
        pytest.skip(f"not installed: {', '.join(missing)}")
    if "gunicorn" in packages and os.name == "nt":
        pytest.skip("gunicorn does not run on Windows")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def visitor(server: WebServer) -> dict[str, str]:
    """The headers of a request from the page: JSON, and Django's CSRF token and cookie."""
    page = requests.get(server.url, timeout=_START_S)
    found = re.search(r'data-csrf-token="(.*?)"', page.text)
    assert found, page.text
    cookie = "; ".join(f"{name}={value}" for name, value in page.cookies.items())
    return {"Content-Type": "application/json", "X-CSRFToken": found[1], "Cookie": cookie}
