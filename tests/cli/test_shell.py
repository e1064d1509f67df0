"""``--shell-completion``: the scripts, in real shells."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from completion import registry
from completion.testing import ProviderServer
from tests.cli.test_cli import run

# What is typed, and what the shell offers: all of these, and none of those.
CASES = [
    ("completion mo", {"models"}, {"chat"}),
    ("completion c", {"chat", "check"}, {"models"}),
    ("completion models gro", {"groq"}, {"chat", "openai"}),
    ("completion -m anth", {"anthropic:"}, {"openai:"}),
    ("completion chat --model openai", {"openai:", "openai-chat:"}, {"anthropic:"}),
    ("completion --sch", {"--schema"}, {"--session"}),
    ("completion chat --s", {"--session", "--system"}, {"--schema"}),
    ("completion check --", {"--base-url"}, {"--session"}),
    ("completion trace tr", {"trace.jsonl"}, {"models"}),
    ("completion -a tr", {"trace.jsonl"}, set()),
    ("completion --shell-completion ", {"bash", "zsh", "fish"}, {"chat"}),
]

IDS = [typed for typed, *_ in CASES]

BASH = """
source {script}
read -ra COMP_WORDS <<< "$1"
[[ $1 == *" " ]] && COMP_WORDS+=("")
COMP_CWORD=$((${{#COMP_WORDS[@]}}-1))
_completion_command
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "trace.jsonl").touch()
    return tmp_path


def script(server: ProviderServer, shell: str, folder: Path) -> Path:
    done = run(server, "--shell-completion", shell)
    assert (done.returncode, done.stderr, len(server.requests)) == (0, "", 0)
    path = folder / f"script.{shell}"
    path.write_text(done.stdout)
    return path


@pytest.mark.skipif(not shutil.which("bash"), reason="bash is not installed")
@pytest.mark.parametrize(
    ("typed", "offered", "not_offered"), CASES, ids=lambda case: case if isinstance(case, str) else ""
)
def test_bash_completes(
    server: ProviderServer, folder: Path, typed: str, offered: set[str], not_offered: set[str]
) -> None:
    code = BASH.format(script=script(server, "bash", folder))
    command = ["bash", "--norc", "-c", code, "bash", typed]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=30)
    words = set(done.stdout.split("\n"))
    assert (offered - words, not_offered & words) == (set(), set())


@pytest.mark.skipif(not shutil.which("fish"), reason="fish is not installed")
@pytest.mark.parametrize(
    ("typed", "offered", "not_offered"), CASES, ids=lambda case: case if isinstance(case, str) else ""
)
def test_fish_completes(
    server: ProviderServer, folder: Path, typed: str, offered: set[str], not_offered: set[str]
) -> None:
    command = ["fish", "--no-config", "-c", f"source {script(server, 'fish', folder)}; complete -C '{typed}'"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=30)
    words = {line.partition("\t")[0] for line in done.stdout.splitlines()}
    assert (offered - words, not_offered & words, done.stderr) == (set(), set(), "")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_is_valid_and_has_every_family(server: ProviderServer, folder: Path, shell: str) -> None:
    path = script(server, shell, folder)
    assert [family for family in registry.families() if family not in path.read_text()] == []
    if shutil.which(shell):
        done = subprocess.run([shell, "-n", path], capture_output=True, text=True, timeout=30)
        assert (done.returncode, done.stderr) == (0, "")


def test_another_shell_is_an_error(server: ProviderServer) -> None:
    done = run(server, "--shell-completion", "tcsh")
    assert (done.returncode, "invalid choice: 'tcsh'" in done.stderr) == (2, True)


@pytest.mark.skipif(not shutil.which("bash"), reason="bash is not installed")
@pytest.mark.parametrize("typed", ["completion -a ", "completion trace ", "completion -a $(touch", "completion `touch"])
def test_neither_a_file_name_nor_a_word_runs_as_a_command(server: ProviderServer, folder: Path, typed: str) -> None:
    names = {"$(touch made)", "`touch made`", "a;touch made"}
    for name in names:
        (folder / name).touch()
    before = {path.name for path in folder.iterdir()} | {"script.bash"}
    code = BASH.format(script=script(server, "bash", folder))
    done = subprocess.run(
        ["bash", "--norc", "-c", code, "bash", typed], cwd=folder, capture_output=True, text=True, timeout=30
    )
    assert {path.name for path in folder.iterdir()} == before
    assert done.stderr == ""
