"""A model is made and used before a fork, and used again after it: gunicorn's preload, Celery's prefork."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from completion.testing import ProviderServer, Reply, WaitFor
from tests.apps.servers import free_port, wait_for
from tests.loopback import END, text

MODEL = """
import os
from completion import ChatRequest, OpenAIModel, web
model = OpenAIModel("m", api_key="k", base_url=os.environ["PROVIDER"])
made_in = os.getpid()
assert model.chat_stream(ChatRequest("before the fork")).collect().text == "before"  # its connection is in the pool
"""
WEB = """
from flask import Flask, Response, request
app = Flask(__name__)
@app.get("/")
def chat():
    body = web.text(model.chat_stream(ChatRequest("Hi")), environ=request.environ)
    return Response(body, headers={**body.headers, "X-Forked": str(os.getpid() != made_in)})
"""
TASKS = """
from celery import Celery
app = Celery("tasks", broker="filesystem://", backend="file://" + os.environ["FOLDER"])
app.conf.broker_transport_options = dict.fromkeys(
    ("data_folder_in", "data_folder_out", "control_folder"), os.environ["FOLDER"]
)
app.conf.worker_hijack_root_logger = False
@app.task
def said():
    return [model.chat_stream(ChatRequest("Hi")).collect().text, os.getpid() != made_in]
"""


@contextmanager
def running(folder: Path, arguments: list[str], environment: Mapping[str, str]) -> Iterator[Path]:
    """Run a server in this folder, which imports the module ``made``. Yields the path of its log."""
    log = folder / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, *arguments], cwd=folder, env={**os.environ, **environment}, stdout=out, stderr=out
        )
        try:
            yield log
        finally:
            process.terminate()
            process.wait(20)


@pytest.fixture
def provider() -> Iterator[ProviderServer]:
    """A provider with a first answer, for the call before the fork."""
    with ProviderServer() as server:
        server.reply(Reply(text("before"), END))
        yield server


def mixed_answers(provider: ProviderServer, count: int) -> list[str]:
    """Give the provider this many different answers. Returns their texts."""
    for number in range(count):
        provider.reply(Reply(*[text(f"{number} ")] * 5, END))
    return [f"{number} " * 5 for number in range(count)]


def test_a_preloaded_model_works_in_every_worker(provider: ProviderServer, tmp_path: Path) -> None:
    pytest.importorskip("gunicorn")
    pytest.importorskip("flask")
    (tmp_path / "made.py").write_text(MODEL + WEB)
    port = free_port()
    arguments = f"-m gunicorn --preload --workers 3 -k gthread --threads 4 --bind 127.0.0.1:{port} made:app".split()
    count = 60

    def asked(_: int) -> tuple[str, str]:
        response = requests.get(f"http://127.0.0.1:{port}/", timeout=20)
        return response.text, response.headers["X-Forked"]

    with running(tmp_path, arguments, {"PROVIDER": provider.url}) as log:
        assert wait_for(lambda: log.read_text().count("Booting worker") == 3, 20), log.read_text()
        expected = mixed_answers(provider, count)
        with ThreadPoolExecutor(6) as executor:
            found = list(executor.map(asked, range(count)))
    assert sorted(found) == sorted((answer, "True") for answer in expected), log.read_text()
    assert "Traceback" not in log.read_text()


def test_a_model_of_the_celery_parent_works_in_its_children(provider: ProviderServer, tmp_path: Path) -> None:
    Celery = pytest.importorskip("celery").Celery
    (tmp_path / "made.py").write_text(MODEL + TASKS)
    environment = {"PROVIDER": provider.url, "FOLDER": str(tmp_path)}
    options = "--pool prefork --concurrency 2 --loglevel info --without-mingle --without-gossip --without-heartbeat"
    both_are_here = threading.Event()
    with running(tmp_path, shlex.split(f"-m celery -A made worker {options}"), environment) as log:
        assert wait_for(lambda: " ready." in log.read_text(), 20), log.read_text()
        for number in range(2):
            provider.reply(Reply(text(f"{number} "), WaitFor(both_are_here), text(f"{number} "), END))
        asking = Celery("asking", broker="filesystem://", backend=f"file://{tmp_path}")
        asking.conf.broker_transport_options = dict.fromkeys(
            ("data_folder_in", "data_folder_out", "control_folder"), str(tmp_path)
        )
        results = [asking.send_task("made.said") for _ in range(2)]
        assert provider.wait_for_requests(3, timeout=20), log.read_text()
        both_are_here.set()
        assert sorted(result.get(timeout=20) for result in results) == [["0 0 ", True], ["1 1 ", True]]
