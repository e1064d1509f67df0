"""The example chat pages in a real browser."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests

pytest.importorskip("playwright", reason="Playwright, which drives the browser, is not installed")

from playwright.sync_api import Browser, Locator, Page, Route, expect

from completion.testing import Cut, ProviderServer, Reply, Stall, Trickle, WaitFor, event
from tests.apps.browsers import chromium
from tests.apps.servers import WebServer, faults, scripted, serving, visitor
from tests.loopback import END, PATIENCE_S, text

SERVERS = ["Flask, gunicorn gthread", "Django WSGI, gunicorn gthread", "Django ASGI, uvicorn"]

MODEL_PATIENCE_S = 120
"""For the embedded model, which is slow on a busy machine."""

of_the_page_only = pytest.mark.parametrize("app", SERVERS[:1], indirect=True)
"""For tests that do not depend on the server."""

FLOW = Trickle(text(" and on"), every=0.01, times=2000)

expect.set_options(timeout=PATIENCE_S * 1000)


@dataclass(frozen=True)
class App:
    """A running example, and the provider that it calls."""

    server: WebServer
    provider: ProviderServer

    def closes_the_connection_within_a_second_after(self, began: float, known: int) -> None:
        """Assert that the provider sees one more closed connection than ``known``, at most a second after ``began``."""
        left = began + 1 - time.monotonic()
        assert self.provider.wait_hung_up(left, count=known + 1), self.server.log


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module", params=SERVERS)
def app(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    log = tmp_path_factory.mktemp("log") / "server.log"
    with ProviderServer() as provider, serving(request.param, log, scripted(provider)) as server:
        yield App(server, provider)
    assert not faults(server.log), server.log


@pytest.fixture
def page(app: App, browser: Browser) -> Iterator[Page]:
    with browser.new_context() as context:
        yield opened(app.server, context.new_page())


def opened(server: WebServer, page: Page) -> Page:
    page.goto(server.url)
    return page


def ask(page: Page, question: str) -> Locator:
    """Send the question. Returns the element of the answer, which grows."""
    answers = page.get_by_role("article", name="Answer")
    known = answers.count()
    page.get_by_role("textbox").fill(question)
    page.keyboard.press("Enter")
    return answers.nth(known)


def test_text_is_on_the_page_before_the_answer_is_complete(app: App, page: Page) -> None:
    seen = [threading.Event(), threading.Event()]
    app.provider.reply(Reply(text("One,"), WaitFor(seen[0]), text(" two,"), WaitFor(seen[1]), text(" three."), END))
    answer = ask(page, "Count.")
    expect(answer).to_have_text("One,")
    seen[0].set()
    expect(answer).to_have_text("One, two,")
    expect(answer).to_have_attribute("aria-busy", "true")
    seen[1].set()
    expect(answer).to_have_text("One, two, three.")
    expect(answer).to_have_attribute("aria-busy", "false")


def test_each_question_sends_the_conversation_so_far(app: App, page: Page) -> None:
    app.provider.reply(Reply(text("Hello Ada."), END), Reply(text("Ada."), END))
    expect(ask(page, "I am Ada.")).to_have_attribute("aria-busy", "false")
    expect(ask(page, "Who am I?")).to_have_text("Ada.")
    said = [(message["role"], message["content"]) for message in app.provider.requests[-1].json()["messages"]]
    assert said[1:] == [("user", "I am Ada."), ("assistant", "Hello Ada."), ("user", "Who am I?")]


def test_markdown_becomes_html_while_it_arrives(app: App, page: Page) -> None:
    go_on = threading.Event()
    app.provider.reply(Reply(text("# Sky\n\nIt is **blue"), WaitFor(go_on), text("**."), END))
    answer = ask(page, "Why?")
    expect(answer.get_by_role("heading")).to_have_text("Sky")
    go_on.set()
    expect(answer.locator("strong")).to_have_text("blue")


@of_the_page_only
def test_shift_enter_starts_a_new_line(page: Page) -> None:
    box = page.get_by_role("textbox")
    box.press_sequentially("one")
    box.press("Shift+Enter")
    box.press_sequentially("two")
    expect(box).to_have_value("one\ntwo")
    expect(page.get_by_role("article")).to_have_count(0)


@pytest.mark.parametrize("then", [Stall(), FLOW], ids=["in a silence", "while text arrives"])
def test_the_stop_button_closes_the_connection_within_a_second(app: App, page: Page, then: Stall | Trickle) -> None:
    known = len(app.provider.hangups)
    app.provider.reply(Reply(text("Once"), then))
    answer = ask(page, "Tell a story.")
    expect(answer).to_contain_text("Once")
    began = time.monotonic()
    page.get_by_role("button", name="Stop").click()
    app.closes_the_connection_within_a_second_after(began, known)
    expect(answer).to_contain_text("Stopped.")
    expect(page.get_by_text("Stopped.")).to_have_count(1)


@pytest.mark.parametrize("then", [Stall(), FLOW], ids=["in a silence", "while text arrives"])
def test_closing_the_tab_closes_the_connection_within_a_second(app: App, page: Page, then: Stall | Trickle) -> None:
    known = len(app.provider.hangups)
    app.provider.reply(Reply(text("Once"), then))
    expect(ask(page, "Tell a story.")).to_contain_text("Once")
    began = time.monotonic()
    page.close()
    app.closes_the_connection_within_a_second_after(began, known)


@of_the_page_only
def test_a_stopped_answer_stays_in_the_conversation(app: App, page: Page) -> None:
    app.provider.reply(Reply(text("Once"), Stall()), Reply(text("upon"), END))
    answer = ask(page, "Tell a story.")
    expect(answer).to_contain_text("Once")
    page.keyboard.press("Escape")
    expect(answer).to_have_attribute("aria-busy", "false")
    expect(ask(page, "Go on.")).to_have_text("upon")
    assert [message["content"] for message in app.provider.requests[-1].json()["messages"]][2] == "Once"


@of_the_page_only
def test_a_reload_keeps_the_conversation(app: App, page: Page) -> None:
    app.provider.reply(Reply(text("Hello **Ada**."), END), Reply(text("Ada."), END))
    expect(ask(page, "I am Ada.")).to_have_attribute("aria-busy", "false")
    page.reload()
    expect(page.get_by_role("article", name="You")).to_have_text("I am Ada.")
    expect(page.get_by_role("article", name="Answer").locator("strong")).to_have_text("Ada")
    expect(ask(page, "Who am I?")).to_have_text("Ada.")
    said = [message["content"] for message in app.provider.requests[-1].json()["messages"]]
    assert said[1:] == ["I am Ada.", "Hello **Ada**.", "Who am I?"]


@of_the_page_only
def test_a_reload_in_the_middle_of_an_answer_keeps_its_text_so_far(app: App, page: Page) -> None:
    app.provider.reply(Reply(text("Once"), Stall()))
    expect(ask(page, "Tell a story.")).to_contain_text("Once")
    page.reload()
    expect(page.get_by_role("article")).to_have_text(["Tell a story.", "Once"])


@of_the_page_only
def test_a_new_chat_is_empty_and_stays_empty(app: App, page: Page) -> None:
    app.provider.reply(Reply(text("Hello."), END))
    expect(ask(page, "Hi")).to_have_attribute("aria-busy", "false")
    page.get_by_role("link", name="New chat").click()
    expect(page.get_by_role("article")).to_have_count(0)
    page.reload()
    expect(page.get_by_role("textbox")).to_be_visible()
    expect(page.get_by_role("article")).to_have_count(0)


def test_the_page_has_an_icon(app: App, page: Page) -> None:
    path = page.locator("link[rel=icon]").get_attribute("href")
    icon = requests.get(f"{app.server.url}/{path}", timeout=PATIENCE_S)
    assert (icon.status_code, icon.headers["Content-Type"].partition(";")[0]) == (200, "image/svg+xml")


@pytest.mark.parametrize(
    ("broken", "kind"),
    [
        (Reply(text("Half an ans"), event({"error": {"message": "on fire", "type": "server_error"}})), "ServerError"),
        (Reply(text("Half an ans"), Cut()), "TransportError"),
        (Reply(text("Half an ans"), framing="close"), "TruncatedStreamError"),
    ],
    ids=["an error event", "a cut", "an early end"],
)
def test_an_answer_that_breaks_off_shows_an_error(app: App, page: Page, broken: Reply, kind: str) -> None:
    app.provider.reply(broken)
    answer = ask(page, "Why?")
    expect(answer.get_by_role("alert")).to_contain_text(kind)
    expect(answer).to_contain_text("Half an ans")
    expect(page.get_by_role("status")).to_have_text("The answer failed.")
    expect(answer).not_to_contain_text("on fire")


@pytest.mark.parametrize(
    ("refused", "status", "shown"),
    [
        (Reply.json({"error": {"message": "bad key"}}, 401), 502, "AuthenticationError"),
        (Reply.json({"error": {"message": "slow"}}, 429, {"Retry-After": "7"}), 429, "Wait for 7 s."),
    ],
    ids=["401", "429"],
)
def test_a_refusal_of_the_provider_is_an_http_error_and_is_shown(
    app: App, page: Page, refused: Reply, status: int, shown: str
) -> None:
    app.provider.reply(refused)
    with page.expect_response("**/chat") as response:
        answer = ask(page, "Why?")
    assert response.value.status == status
    expect(answer.get_by_role("alert")).to_contain_text(shown)
    expect(page.get_by_role("textbox")).to_have_value("Why?")  # so that the user can send it again


HOSTILE = """
<script>window.taken = 1</script> <img src=x onerror="window.taken = 1"> <svg onload="window.taken = 1"></svg>

<iframe srcdoc="<script>parent.taken = 1</script>"></iframe><style>* { display: none }</style><base href="//x.test">

<div onclick="window.taken = 1">

[a](javascript:window.taken=1) [b](JAVASCRIPT:window.taken=1) [c](java&#115;cript:window.taken=1) [d](vbscript:x)
[e](data:text/html,<script>parent.taken=1</script>) <javascript:window.taken=1> [f](\tjavascript:window.taken=1)
[g](http://x.test/"onmouseover="window.taken=1) ![h](http://x.test/read?h) ![i](x"onerror="window.taken=1)
[j]: javascript:window.taken=1

`<b onclick="window.taken = 1">` [j] [k](file:///etc/passwd)

```html
</code></pre><script>window.taken = 1</script><img src=x onerror="window.taken = 1">
```
The end.
"""

FOUND = """answers => answers.flatMap(answer => [...answer.querySelectorAll("*")]).map(
  found => [found.localName, [...found.attributes].map(attribute => attribute.name), found.href ?? ""])"""


def test_hostile_markdown_does_nothing(app: App, page: Page) -> None:
    dialogs: list[str] = []
    requested: list[str] = []
    rendering = threading.Event()

    def hold(route: Route) -> None:
        """Let the rest of the answer arrive while the server makes HTML of its beginning."""
        rendering.set()
        expect(answer).to_contain_text("The end.")
        route.continue_()

    page.on("dialog", lambda dialog: dialogs.append(dialog.message))
    page.on("request", lambda request: requested.append(request.url))
    page.route("**/markdown", hold, times=1)
    app.provider.reply(Reply(text("I say:\n\n"), WaitFor(rendering), text(HOSTILE), END))
    answer = ask(page, HOSTILE)
    expect(answer).to_have_attribute("aria-busy", "false")
    expect(answer.get_by_role("link")).to_have_count(3)
    found = page.get_by_role("article").evaluate_all(FOUND)
    assert {name for name, _, _ in found} <= {"div", "p", "a", "code", "pre", "span"}
    assert {href.partition(":")[0] for name, _, href in found if name == "a"} == {"http"}
    assert {attribute for _, attributes, _ in found for attribute in attributes} <= {"class", "href"}
    assert page.evaluate("window.taken") is None
    assert not dialogs
    # A browser may request the icon of the page late.
    assert {url.removeprefix(app.server.url) for url in requested} - {"/static/icon.svg"} == {"/chat", "/markdown"}


def test_the_content_security_policy_stops_html_of_the_model(page: Page) -> None:
    violated = page.evaluate(
        """() => new Promise(resolve => {
             document.addEventListener("securitypolicyviolation", event => resolve(event.effectiveDirective));
             document.querySelector("#log").innerHTML = '<img src="/static/x" onerror="window.taken = 1">';
             setTimeout(resolve, 5000);
           })"""
    )
    assert violated == "script-src-attr"
    assert page.evaluate("window.taken") is None


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "Expecting value"),
        (b"[]", "expected an object"),
        (b'{"messages": []}', "messages is empty"),
        (b'{"messages": [{"role": "system", "blocks": []}]}', "messages[0].role"),
        (b'{"messages": [{"role": "user", "blocks": [{"type": "text"}]}]}', "messages[0].blocks[0].text is missing"),
        (b"[" * 100_000, "nested too deeply"),
    ],
    ids=["nothing", "a list", "no message", "a wrong role", "a block without text", "very deep"],
)
def test_wrong_input_is_a_400_that_names_the_path(app: App, body: bytes, message: str) -> None:
    known = len(app.provider.requests)
    response = requests.post(app.server.url + "/chat", data=body, headers=visitor(app.server), timeout=PATIENCE_S)
    assert response.status_code == 400
    assert message in response.json()["error"]["message"]
    assert len(app.provider.requests) == known


def test_a_form_of_another_site_is_refused(app: App) -> None:
    response = requests.post(app.server.url + "/chat", data={"messages": "[]"}, timeout=PATIENCE_S)
    assert response.status_code in (403, 415)


def test_a_server_that_dies_during_an_answer_shows_an_error(browser: Browser, tmp_path: Path) -> None:
    with (
        ProviderServer() as provider,
        serving(SERVERS[0], tmp_path / "log", scripted(provider)) as server,
        browser.new_context() as context,
    ):
        provider.reply(Reply(text("Half an ans"), Stall()))
        page = opened(server, context.new_page())
        answer = ask(page, "Why?")
        expect(answer).to_have_text("Half an ans")
        os.kill(server.worker, signal.SIGKILL)
        expect(answer.get_by_role("alert")).to_contain_text("connection")
        expect(page.get_by_role("status")).to_have_text("The answer failed.")


@of_the_page_only
def test_a_response_that_ends_before_the_turn_shows_an_error(app: App, page: Page) -> None:
    with ProviderServer() as proxy:  # it ends the response regularly although the server behind it broke off
        proxy.reply(Reply(event({"type": "text_delta", "delta": "Half an ans"})))
        page.route("**/chat", lambda route: route.continue_(url=proxy.url + "/chat"))
        answer = ask(page, "Why?")
        expect(answer.get_by_role("alert")).to_contain_text("in the middle")
        expect(answer).to_contain_text("Half an ans")


@pytest.mark.parametrize("name", SERVERS)
def test_the_embedded_model_answers_and_gets_the_conversation(name: str, browser: Browser, tmp_path: Path) -> None:
    with (
        serving(name, tmp_path / "log", {"COMPLETION_MODEL": "local", "MAX_TOKENS": "120"}) as server,
        browser.new_context() as context,
    ):
        page = opened(server, context.new_page())
        answer = ask(page, "Tell me the story of a lighthouse.")
        lengths = [length_once(page, longer_than=length) for length in (0, 100)]
        expect(answer).to_have_attribute("aria-busy", "true")
        expect(answer).to_have_attribute("aria-busy", "false", timeout=MODEL_PATIENCE_S * 1000)
        with page.expect_response("**/chat", timeout=MODEL_PATIENCE_S * 1000) as response:
            expect(ask(page, "Hello!")).to_have_attribute("aria-busy", "false", timeout=MODEL_PATIENCE_S * 1000)
        usage = re.search(r'"input_tokens": *(\d+)', response.value.text())
        # The greeting and the system prompt are fewer tokens than the story has words.
        assert usage and int(usage[1]) > len(answer.inner_text().split()) > 40
        assert lengths[0] < lengths[1]
        assert not faults(server.log), server.log


def length_once(page: Page, *, longer_than: int) -> int:
    """Wait until the last answer is longer than this; returns its length."""
    script = """least => {
      const length = [...document.querySelectorAll(".answer")].at(-1).innerText.length;
      return length > least && length;
    }"""
    length: int = page.wait_for_function(script, arg=longer_than, timeout=MODEL_PATIENCE_S * 1000).json_value()
    return length
