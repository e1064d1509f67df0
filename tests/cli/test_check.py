"""``completion check``, against a server of the tests and against the embedded model."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from completion.testing import Pause, ProviderServer, Reply
from completion.testing.conformance import PROMISES
from tests.cli.test_cli import COMMAND, KEY, delta, end, environment

GOOD = Reply(delta(role="assistant", content="One"), Pause(0.1), delta(content=" two"), delta(content=" three"), end())


def check(server: ProviderServer, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, "check", *arguments]
    return subprocess.run(
        command, env=environment(server, **more), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120
    )


def test_each_promise_that_holds_is_a_line(server: ProviderServer) -> None:
    server.always(GOOD)
    done = check(server, "-m", "openai:m")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.findall(r"^ok    (.+)$", done.stdout, re.MULTILINE)[1:] == list(PROMISES)
    assert done.stdout.splitlines()[-1] == f"{len(PROMISES) + 1} of {len(PROMISES) + 1} promises hold"


def test_it_measures_the_first_chunk_and_the_chunks_a_second(server: ProviderServer) -> None:
    server.always(GOOD)
    place, speed, *_ = check(server, "-m", "openai:m", "--base-url", server.url).stdout.splitlines()
    assert place == f"openai:m at {server.url}"
    numbers = re.fullmatch(
        r"first chunk after (\d+\.\d{3}) s, (\d+\.\d) chunks a second, 3 chunks in \d\.\d{3} s, 5 tokens", speed
    )
    assert numbers
    assert 0 < float(numbers[2]) < 30  # two in a tenth of a second


def test_an_answer_that_arrives_all_at_once_is_noted(server: ProviderServer) -> None:
    late = Reply(Pause(0.7), delta(content="One") + delta(content=" two") + end())
    server.reply(GOOD, late)
    server.always(GOOD)
    done = check(server, "-m", "openai:m")
    assert (done.returncode, "perhaps a proxy buffers the answer" in done.stdout) == (0, True)


@pytest.mark.parametrize(
    ("reply", "fault"),
    [
        (Reply(delta(content="One")), "TruncatedStreamError was raised"),
        (Reply.json({"error": {"message": "no\x1b[31m disk"}}, status=500), "ServerError was raised: openai: no"),
        (Reply.text("<html>", content_type="text/html"), "was raised"),
    ],
    ids=["truncated", "server error", "web page"],
)
def test_a_promise_that_does_not_hold_exits_with_1(server: ProviderServer, reply: Reply, fault: str) -> None:
    server.always(reply)
    done = check(server, "-m", "openai:m")
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.count("\nFAIL  ") == 1
    assert fault in done.stdout
    assert "\x1b" not in done.stdout
    assert done.stdout.count("(not checked)") == len(PROMISES)


@pytest.mark.parametrize(
    ("reply", "settings", "message"),
    [
        (Reply.json({"error": {"message": f"bad key {KEY}"}}, status=401), {}, "bad key [key]"),
        (Reply.json({"error": {"message": "unknown model"}}, status=404), {}, "unknown model"),
        (GOOD, {"OPENAI_API_KEY": ""}, "set OPENAI_API_KEY"),
        (GOOD, {"OPENAI_BASE_URL": "http://127.0.0.1:9"}, "no connection"),
        (GOOD, {"COMPLETION_MODEL": "nobody:m"}, "unknown family 'nobody'"),
    ],
    ids=["bad key", "unknown model", "no key", "nobody listens", "unknown family"],
)
def test_what_is_not_set_up_exits_with_3(
    server: ProviderServer, reply: Reply, settings: dict[str, str], message: str
) -> None:
    server.always(reply)
    done = check(server, **settings)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (3, "", 1)
    assert message in done.stderr


def test_the_embedded_model_keeps_all_promises(server: ProviderServer) -> None:
    pytest.importorskip("xllamacpp")
    done = check(server, "-m", "local")
    assert (done.returncode, done.stderr, "FAIL" in done.stdout) == (0, "", False)
    assert re.search(r"^first chunk after \d+\.\d+ s, \d+\.\d chunks a second", done.stdout, re.MULTILINE)


def test_check_with_words_is_a_prompt(server: ProviderServer) -> None:
    server.always(GOOD)
    command = [sys.executable, "-m", "completion", "check", "my", "grammar"]
    done = subprocess.run(command, env=environment(server), stdin=subprocess.DEVNULL, capture_output=True, timeout=30)
    assert done.stdout == b"One two three\n"
