"""``--schema``, run as its users run it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from completion.testing import ProviderServer, Reply
from tests.cli.test_cli import Terminal, delta, end
from tests.cli.test_tools import call, calling, run, saying

pytest.importorskip("pydantic")
pytest.importorskip("jsonschema")
pytestmark = pytest.mark.filterwarnings("ignore:This process.*fork:DeprecationWarning")

SCHEMA = {
    "title": "A city",
    "type": "object",
    "properties": {"name": {"type": "string"}, "people": {"type": "integer", "minimum": 1}},
    "required": ["name", "people"],
    "additionalProperties": False,
}
OSLO = '{"name": "Oslo", "people": 700000}'

MODULE = """
from dataclasses import dataclass
from completion import tool

@dataclass
class City:
    name: str
    people: int
    country: str = "Norway"

Cities = list[City]
Counts = dict[str, int]
number = 7

@tool
def weather(city: str) -> str:
    "The weather of a city."
    return "Rain."
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "city.json").write_text(json.dumps(SCHEMA))
    (tmp_path / "broken.json").write_text('{"type": "object"')
    (tmp_path / "wrong.json").write_text('{"type": "objekt"}')
    (tmp_path / "list.json").write_text("[1]")
    (tmp_path / "mine.py").write_text(MODULE)
    return tmp_path


def test_the_schema_is_sent_and_the_json_printed(server: ProviderServer, folder: Path) -> None:
    server.reply(Reply(delta(content=OSLO[:9]), delta(content=OSLO[9:]), end()))
    done = run(server, folder, "--schema", "city.json", "Describe Oslo")
    assert (done.returncode, done.stdout, done.stderr) == (0, OSLO + "\n", "")
    assert server.requests[0].json()["response_format"]["json_schema"]["name"] == "A_city"


def test_a_type_of_python_is_a_schema_and_fills_in_its_defaults(server: ProviderServer, folder: Path) -> None:
    server.reply(saying(OSLO), saying(f'{{"value": [{OSLO}]}}'))
    done = run(server, folder, "--schema", "mine:City", "Describe Oslo")
    assert json.loads(done.stdout) == {"name": "Oslo", "people": 700000, "country": "Norway"}
    done = run(server, folder, "--schema", "mine:Cities", "Describe Oslo")
    assert json.loads(done.stdout) == [{"name": "Oslo", "people": 700000, "country": "Norway"}]


@pytest.mark.parametrize("value", ["city.json", "mine:City"])
@pytest.mark.parametrize(
    ("answer", "message"),
    [('{"name": "Oslo", "people": "many"}', "people: "), ("I do not know.", "the answer is not JSON")],
)
def test_an_answer_that_does_not_fit_exits_with_6(
    server: ProviderServer, folder: Path, value: str, answer: str, message: str
) -> None:
    server.reply(saying(answer))
    done = run(server, folder, "--schema", value, "Describe Oslo")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (6, "", 1)
    assert message in done.stderr


def test_bounds_of_the_schema_are_checked(server: ProviderServer, folder: Path) -> None:
    server.reply(saying('{"name": "Oslo", "people": 0}'))
    done = run(server, folder, "--schema", "city.json", "Describe Oslo")
    assert (done.returncode, "minimum of 1" in done.stderr) == (6, True)


def test_an_answer_that_max_tokens_cuts_off_exits_with_6(server: ProviderServer, folder: Path) -> None:
    server.reply(Reply(delta(content='{"name": "Os'), end("length")))
    done = run(server, folder, "--schema", "city.json", "--max-tokens", "5", "Describe Oslo")
    assert (done.returncode, done.stdout) == (6, "")


def test_tools_may_be_called_before_the_value(server: ProviderServer, folder: Path) -> None:
    server.reply(calling(call("weather", city="Oslo")), saying(OSLO))
    done = run(server, folder, "--schema", "city.json", "--tools", "mine:weather", "--usage", "Describe Oslo")
    assert (done.returncode, done.stdout) == (0, OSLO + "\n")
    assert done.stderr == "tokens: 24 in (8 from the cache), 10 out\n"


def test_a_session_keeps_the_value(server: ProviderServer, folder: Path) -> None:
    server.reply(saying(OSLO), saying("In Norway."))
    run(server, folder, "--schema", "city.json", "--session", "s.json", "Describe Oslo")
    run(server, folder, "--session", "s.json", "Where is it?")
    contents = [message["content"] for message in server.requests[1].json()["messages"]]
    assert contents == ["Describe Oslo", OSLO, "Where is it?"]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("missing.json", "--schema missing.json cannot be read: No such file or directory; give FILE or module:Type"),
        ("broken.json", "broken.json is not JSON"),
        ("wrong.json", "is not a valid schema"),
        ("list.json", "list.json must be a JSON Schema, an object; got [1]"),
        ("mine:Town", "has no attribute 'Town'"),
        ("mine:number", "must be a type or a JsonSchema, got int"),
        ("nowhere:City", "No module named 'nowhere'"),
    ],
)
def test_a_bad_schema_exits_with_2_before_the_request(
    server: ProviderServer, folder: Path, value: str, message: str
) -> None:
    done = run(server, folder, "--schema", value, "Describe Oslo")
    assert (done.returncode, done.stdout, len(server.requests)) == (2, "", 0)
    assert message in done.stderr


def test_json_and_schema_exclude_each_other(server: ProviderServer, folder: Path) -> None:
    done = run(server, folder, "--schema", "city.json", "--json", "Describe Oslo")
    assert (done.returncode, "give one of them" in done.stderr) == (2, True)


def test_a_terminal_gets_indented_json_with_escaped_control_codes(
    server: ProviderServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.reply(saying('{"name": "O\\u001b[31mslo", "people": 7}'))
    monkeypatch.chdir(folder)
    terminal = Terminal(server, "--schema", "city.json", "Describe Oslo")
    terminal.wait_for("}")
    assert terminal.screen.splitlines()[1] == '  "name": "O\\u001b[31mslo",'
    assert "\x1b" not in terminal.screen
    assert terminal.ended() == 0


@pytest.mark.parametrize(
    ("kind", "answer", "error"),
    [
        ("City", OSLO, ""),
        ("City", '{"name": "Oslo"}', "no valid City: people: is missing"),
        ("Cities", f'{{"value": [{OSLO}]}}', ""),
        ("Counts", '{"a": 1}', ""),
        ("Counts", '{"a": "b"}', "no valid dict[str, int]: a: "),
    ],
)
def test_the_answers_of_a_batch_fit_a_type_of_python(
    server: ProviderServer, folder: Path, kind: str, answer: str, error: str
) -> None:
    server.reply(saying(answer))
    (folder / "in.jsonl").write_text('{"id": 1, "prompt": "Describe Oslo"}')
    done = run(server, folder, "batch", "in.jsonl", "-o", "out.jsonl", "--schema", f"mine:{kind}")
    line = json.loads((folder / "out.jsonl").read_text())
    assert done.returncode == (1 if error else 0)
    assert line["error"]["message"].startswith(error) if error else line["text"] == answer
    # An object around a list, because OpenAI takes objects only; no provider can enforce open keys.
    sent = server.requests[0].json()
    schema = sent.get("response_format", {}).get("json_schema", {}).get("schema", {})
    assert (schema.get("type") == "object") == (kind != "Counts")
    assert ("JSON Schema" in sent["messages"][0]["content"]) == (kind == "Counts")
