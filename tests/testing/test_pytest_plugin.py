"""The fixture ``completion_recorded``, in a pytest of its own that finds it by its entry point."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

import completion
from completion.testing import ProviderServer, Reply
from tests.loopback import END, text

pytest_plugins = ["pytester"]

ROOT = Path(completion.__file__).parent.parent

TESTS = """
import pytest
from completion import OpenAIModel

def answer(session):
    return OpenAIModel("m", api_key="k", base_url={url!r}, session=session).chat_stream("Hi").collect().text

def test_an_answer(completion_recorded):
    assert answer(completion_recorded) == "Hello"

class TestMore:
    @pytest.mark.parametrize("name", ["a/b", "a b"])
    def test_names(self, completion_recorded, name):
        assert answer(completion_recorded) == "Hello"
"""


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A project whose Python has this package with its entry points."""
    setup = ROOT / "setup.py"
    if setup.exists():  # not in an installed package, which has its own
        declared = re.search(r'"pytest11": \["(.*)"\]', setup.read_text(encoding="utf-8"))
        assert declared
        metadata = pytester.mkdir("site") / "example-1.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: example\nVersion: 1.0\n", encoding="utf-8")
        (metadata / "entry_points.txt").write_text(f"[pytest11]\n{declared[1]}\n", encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(pytester.path / "site")]))
    return pytester


def run(project: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    return project.runpytest_subprocess("-p", "no:cacheprovider", *arguments)


def recordings(project: pytest.Pytester) -> list[str]:
    return sorted(str(path.relative_to(project.path)) for path in project.path.rglob("*.jsonl"))


def test_the_first_run_records_and_the_next_needs_no_network(project: pytest.Pytester, server: ProviderServer) -> None:
    server.always(Reply(text("Hello"), END))
    project.makepyfile(test_it=TESTS.format(url=server.url))
    run(project).assert_outcomes(passed=3)
    names = [re.sub("-[0-9a-f]{6}", "-#", name) for name in recordings(project)]
    assert names == [
        *["recordings/test_it/TestMore.test_names_a_b-#.jsonl"] * 2,
        "recordings/test_it/test_an_answer.jsonl",
    ]
    assert len(server.requests) == 3
    server.stop()
    run(project).assert_outcomes(passed=3)
    run(project, "--completion-recorded=replay").assert_outcomes(passed=3)


def test_replay_never_records(project: pytest.Pytester, server: ProviderServer) -> None:
    server.always(Reply(text("Hello"), END))
    project.makepyfile(test_it=TESTS.format(url=server.url))
    result = run(project, "--completion-recorded=replay")
    result.assert_outcomes(errors=3)
    result.stdout.fnmatch_lines(["*there is no such recording*"])
    assert (server.requests, recordings(project)) == ([], [])


def test_record_replaces_what_is_there(project: pytest.Pytester, server: ProviderServer) -> None:
    server.always(Reply(text("Hello"), END))
    project.makepyfile(test_it=TESTS.format(url=server.url))
    run(project, "-k", "answer")
    run(project, "-k", "answer", "--completion-recorded=record").assert_outcomes(passed=1, deselected=2)
    assert len(server.requests) == 2


def test_a_failed_test_leaves_no_recording(project: pytest.Pytester, server: ProviderServer) -> None:
    server.always(Reply(text("Goodbye"), END))
    project.makepyfile(test_it=TESTS.format(url=server.url))
    run(project).assert_outcomes(failed=3)
    assert len(server.requests) == 3
    assert list(project.path.rglob("recordings")) == []
