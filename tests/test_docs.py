"""Every Python example in docs/ runs that needs no framework; ``tests/apps/test_docs.py`` runs the others."""

import ast
import sys
from pathlib import Path

import pytest

from tests.documents import Block, Program, blocks_not_run, programs_of_docs

PROGRAMS = [program for program in programs_of_docs() if not program.packages]


def test_there_are_examples() -> None:
    assert {"docs/index.rst", "docs/tutorial.rst", "docs/howto/script.rst"} <= {program.name for program in PROGRAMS}


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_each_example_runs(program: Program, tmp_path: Path) -> None:
    if sys.version_info < program.least_python:
        pytest.skip("the example needs a newer Python")
    run = program.run(tmp_path)
    assert run.returncode == 0, run.stderr
    assert "Traceback" not in run.stderr, run.stderr  # in a thread or a finalizer


@pytest.mark.parametrize("block", blocks_not_run(), ids=lambda block: f"{block.page.name}:{block.line}")
def test_a_block_that_is_not_run_compiles(block: Block) -> None:
    compile(block.source, str(block.page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
