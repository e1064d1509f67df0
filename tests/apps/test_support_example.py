"""The support chat: a refund waits for a person, also after the server was killed, and is paid once."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from completion.testing import ProviderServer, Reply
from tests.apps.servers import EXAMPLES, WebServer, faults, free_port, scripted
from tests.loopback import END, PATIENCE_S, text
from tests.wire_pieces import body, calls, delta, piece

FOLDER = EXAMPLES / "django_support"
CALL = Reply(
    body(calls(piece(id="c1", name="refund", arguments='{"order": 17, "euros": 20}')), delta("tool_calls"), done=False)
)


class Site:
    """The example with a database, served by one process after the other."""

    def __init__(self, folder: Path, provider: ProviderServer) -> None:
        pytest.importorskip("django")
        self.log = folder / "log"
        self._environment = {**os.environ, **scripted(provider), "COMPLETION_MODEL": "openai-chat:m"}
        self._environment |= {"DATABASE": str(folder / "db"), "SECRET_KEY": "the same in each process"}
        self._environment |= {"DJANGO_SUPERUSER_PASSWORD": "secret", "PYTHONUNBUFFERED": "1"}
        self.manage("migrate")
        self.manage("createsuperuser", "--noinput", "--username", "ada", "--email", "ada@example.org")

    def manage(self, *arguments: str) -> None:
        command = [sys.executable, "manage.py", *arguments]
        subprocess.run(command, cwd=FOLDER, env=self._environment, check=True, capture_output=True, timeout=PATIENCE_S)

    @contextmanager
    def served(self) -> Iterator[tuple[WebServer, subprocess.Popen[bytes]]]:
        port = free_port()
        command = [sys.executable, "manage.py", "runserver", "--noreload", str(port)]
        with self.log.open("ab") as out:
            process = subprocess.Popen(command, cwd=FOLDER, env=self._environment, stdout=out, stderr=out)
            server = WebServer(process, port, self.log)
            try:
                server.wait_until_up()
                yield server, process
            finally:
                server.stop()


@pytest.fixture
def site(tmp_path: Path, server: ProviderServer) -> Site:
    return Site(tmp_path, server)


class Browser:
    """Sends forms as a browser does, with the CSRF token of the page."""

    def __init__(self) -> None:
        self.session = requests.Session()
        self.page = ""

    def open(self, url: str) -> str:
        self.page = self.session.get(url, timeout=PATIENCE_S).text
        return self.page

    def send(self, url: str, **fields: str) -> str:
        token = re.search(r'name="csrfmiddlewaretoken" value="(.*?)"', self.page)
        assert token, self.page
        form = {**fields, "csrfmiddlewaretoken": token[1]}
        self.page = self.session.post(url, data=form, timeout=PATIENCE_S).text
        return self.page


def logged_in(url: str) -> Browser:
    desk = Browser()
    desk.open(f"{url}/desk/login")
    assert "Nothing waits" in desk.send(f"{url}/desk/login", username="ada", password="secret")
    return desk


def test_a_decision_is_carried_out_by_another_process_and_only_once(site: Site, server: ProviderServer) -> None:
    server.reply(CALL)
    customer = Browser()
    with site.served() as (first, process):
        desk = logged_in(first.url)
        customer.open(first.url)
        assert "as soon as we can" in customer.send(first.url, said="My order 17 is broken.")
        process.send_signal(signal.SIGKILL)
        process.wait(PATIENCE_S)
    server.reply(Reply(text("Your money is on its way."), END))
    with site.served() as (second, _):
        assert "refund(order=17, euros=20)" in desk.open(f"{second.url}/desk")
        number = re.search(r'action="/desk/(\d+)"', desk.page)
        assert number
        url, decision = f"{second.url}/desk/{number[1]}", {"call_id": "c1", "decision": "allow"}
        assert "Nothing waits" in desk.send(url, **decision)
        desk.open(second.url)  # a page with a form: the desk has none now
        assert "does not wait any more" in desk.send(url, **decision)
        assert "Your money is on its way." in customer.open(second.url)
    results = [message for message in server.requests[1].json()["messages"] if message["role"] == "tool"]
    assert [message["content"] for message in results] == ["20.00 euros were paid back for order 17."]
    assert len(server.requests) == 2
    assert not faults(site.log.read_text()), site.log.read_text()


def test_a_refusal_reaches_the_model_with_its_reason(site: Site, server: ProviderServer) -> None:
    server.reply(CALL, Reply(text("Sorry."), END))
    customer = Browser()
    with site.served() as (web, _):
        desk = logged_in(web.url)
        customer.open(web.url)
        customer.send(web.url, said="My order 17 is broken.")
        desk.open(f"{web.url}/desk")
        number = re.search(r'action="/desk/(\d+)"', desk.page)
        assert number
        desk.send(f"{web.url}/desk/{number[1]}", call_id="c1", decision="refuse", reason="Ask for a photo first.")
        assert "Sorry." in customer.open(web.url)
    assert server.requests[1].json()["messages"][-1]["content"] == "Error: Ask for a photo first."


def test_only_staff_may_decide(site: Site, server: ProviderServer) -> None:
    server.reply(CALL)
    customer = Browser()
    with site.served() as (web, _):
        customer.open(web.url)
        customer.send(web.url, said="My order 17 is broken.")
        page = customer.send(f"{web.url}/desk/1", call_id="c1", decision="allow")
        assert "Log in" in page
        assert "Log in" in customer.open(f"{web.url}/desk")
    assert len(server.requests) == 1
