"""Every Python example in README.rst runs, with the embedded model."""

from pathlib import Path

import pytest
from docutils.core import publish_doctree

from tests.documents import README, Program, programs_of_readme

PROGRAMS = programs_of_readme()


def test_a_package_index_can_render_it() -> None:
    publish_doctree(README.read_text(encoding="utf-8"), settings_overrides={"report_level": 2, "halt_level": 2})


def test_there_are_examples() -> None:
    assert len(PROGRAMS) >= 8


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_each_example_runs(program: Program, tmp_path: Path) -> None:
    run = program.run(tmp_path)
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""


def test_it_starts_with_two_commands_that_create_a_virtual_environment() -> None:
    commands = [
        line for line in README.read_text(encoding="utf-8").splitlines() if line.startswith("    python3 -m venv")
    ]
    assert len(commands) == 2
