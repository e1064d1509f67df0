"""Every Python example in README.rst runs, with the embedded model, and prints what it should."""

import re
from pathlib import Path

import pytest
from docutils.core import publish_doctree

from tests.documents import README, Program, programs_of_readme

PROGRAMS = programs_of_readme()

# The embedded model may answer with anything, also with nothing but emojis. The rest of the output does not differ.
END = r"(end_turn|max_tokens) Usage\(input_tokens=\d+, output_tokens=\d+.*\)\n"
OUTPUTS = {
    "In Python": r".*",
    "The loop": rf".*\n {END}",
    "Text and turn": rf".*\nthen: .* {END}",
    "Tools": r"the model calls weather {'city': .+}\nit gets TextBlock\(text=.+: sun, for -?\d+ days.\)\n",
    "asyncio and the web": r".*\n{'Content-Type': 'text/event-stream.+} b'data: {\"type\".+\[DONE\].+\n",
}


def test_a_package_index_can_render_it() -> None:
    publish_doctree(README.read_text(encoding="utf-8"), settings_overrides={"report_level": 2, "halt_level": 2})


@pytest.mark.parametrize(("program", "output"), list(zip(PROGRAMS, OUTPUTS.values(), strict=True)), ids=OUTPUTS)
def test_each_example_prints_what_it_should(program: Program, output: str, tmp_path: Path) -> None:
    run = program.run(tmp_path)
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""
    assert re.fullmatch(output, run.stdout, re.DOTALL)


def test_it_is_short() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 160


def test_it_starts_with_two_commands_that_create_a_virtual_environment() -> None:
    commands = [
        line for line in README.read_text(encoding="utf-8").splitlines() if line.startswith("    python3 -m venv")
    ]
    assert len(commands) == 2
