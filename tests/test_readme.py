"""README.rst runs: every Python example in it, against the embedded model."""

import subprocess
import sys
from pathlib import Path

import pytest
from docutils import nodes
from docutils.core import publish_doctree

README = Path(__file__).parent.parent / "README.rst"


def examples() -> list[str]:
    document = publish_doctree(
        README.read_text(encoding="utf-8"), settings_overrides={"report_level": 2, "halt_level": 2}
    )
    blocks = document.findall(lambda node: isinstance(node, nodes.literal_block) and "python" in node["classes"])
    return [block.astext() for block in blocks]


def test_there_are_examples() -> None:
    assert len(examples()) >= 9


@pytest.mark.parametrize("source", examples(), ids=lambda source: f"example-{examples().index(source)}")
def test_each_example_runs(source: str, tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", source], cwd=tmp_path, capture_output=True, timeout=120, text=True
    )
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""


def test_it_opens_with_two_commands_that_make_a_virtual_environment() -> None:
    commands = [
        line for line in README.read_text(encoding="utf-8").splitlines() if line.startswith("    python3 -m venv")
    ]
    assert len(commands) == 2
