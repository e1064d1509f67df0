"""Every Python example in docs/ runs that needs no framework; ``tests/apps/test_docs.py`` runs the others."""

import ast
import sys
from pathlib import Path

import pytest

from tests.documents import DOCS, Block, Program, blocks, blocks_not_run, programs_of_docs

# A wider line makes the reader scroll sideways.
MAX_COLUMNS = 88
HOWTOS = sorted([*(DOCS / "howto").glob("*.rst"), *(DOCS / "adapters").glob("*.rst")])
LANGUAGES = ("python", "py", "javascript", "tsx", "json", "shell", "text", "toml")

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


# A block of the language "py" is code for another library. Nothing imports that library, so the block is not run.
THEIRS = [block for page in HOWTOS for block in blocks(page, "py")]


@pytest.mark.parametrize("block", [*blocks_not_run(), *THEIRS], ids=lambda block: f"{block.page.name}:{block.line}")
def test_a_block_that_is_not_run_compiles(block: Block) -> None:
    compile(block.source, str(block.page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


@pytest.mark.parametrize("page", HOWTOS, ids=lambda page: page.name)
def test_no_line_of_code_is_too_wide(page: Path) -> None:
    found = [block for language in LANGUAGES for block in blocks(page, language)]
    wide = [line for block in found for line in block.lines if len(line) > MAX_COLUMNS]
    assert not wide
