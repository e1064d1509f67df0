"""Finds the Python examples in README.rst and docs/, runs them unchanged, and writes them for type checkers.

In README.rst each block is a program. In docs/ the blocks of a page are one, read from the top, but for three kinds:

    .. code-block:: python
        :class: alone               a program of its own
        :class: not-run             it needs an account, or a server that no test has
        :caption: name.py           a part of a file of this name, which the program can import

``python -m tests.documents FOLDER`` writes all of them, also those that are not run, as modules for type checkers. The
blocks of a page are one module there too; a block of README.rst or of the class ``alone`` is a module of its own.
"""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = ROOT / "README.rst"
DOCS = ROOT / "docs"

_DIRECTIVE = re.compile(r"( *)\.\. code-block:: (\w+)\s*$")
_OPTION = re.compile(r" *:(class|caption): *(.*\S)\s*$")


@dataclass(frozen=True)
class Block:
    """A code block. ``lines`` begins with empty lines, so that a traceback shows the line number of the page."""

    page: Path
    line: int
    kind: str
    lines: tuple[str, ...]
    file: str = ""

    @property
    def source(self) -> str:
        return "\n".join(["", *self.lines])


def blocks(page: Path, language: str = "python") -> list[Block]:
    lines = page.read_text(encoding="utf-8").splitlines()
    found = []
    for number, line in enumerate(lines):
        directive = _DIRECTIVE.match(line)
        if directive and directive[2] == language:
            found.append(_block(page, lines, number, len(directive[1])))
    return found


def _block(page: Path, lines: list[str], number: int, margin: int) -> Block:
    """The block of the directive in line ``number``. It ends before the first line with no more indent than that."""
    end = number + 1
    while end < len(lines) and (not lines[end].strip() or len(lines[end]) - len(lines[end].lstrip()) > margin):
        end += 1
    body = lines[number + 1 : end]
    options = {found[1]: found[2] for line in body if (found := _OPTION.match(line))}
    code = ["" if _OPTION.match(line) else line for line in body]
    indent = min(len(line) - len(line.lstrip()) for line in code if line.strip())
    lines_ = ("",) * number + tuple(line[indent:] for line in code)
    return Block(page, number + 1, options.get("class", ""), lines_, options.get("caption", ""))


@dataclass(frozen=True)
class Program:
    """A program for one process."""

    name: str
    source: str
    files: Mapping[str, str] = field(default_factory=dict)
    """The files that it can import from: their names and what is in them."""

    @property
    def packages(self) -> set[str]:
        """The top-level names of what it imports, beside the standard library, this one and its own ``requests``."""
        names = set()
        for node in ast.walk(ast.parse(self.source)):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names.add(str(node.module).partition(".")[0])
        own = {Path(file).stem for file in self.files}
        return names - set(sys.stdlib_module_names) - {"completion", "requests"} - own

    @property
    def least_python(self) -> tuple[int, int]:
        sources = "\n".join([self.source, *self.files.values()])
        return (3, 11) if re.search(r"asyncio\.(TaskGroup|timeout)\b|\bUnpack\b", sources) else (3, 10)

    def write(self, folder: Path) -> Path:
        """Write it and its files; returns its own path."""
        for file, source in self.files.items():
            (folder / file).write_text(source, encoding="utf-8")
        path = (folder / re.sub(r"\W+", "_", self.name)).with_suffix(".py")
        path.write_text(self.source, encoding="utf-8")
        return path

    def run(self, folder: Path) -> subprocess.CompletedProcess[str]:
        """In a process of its own, with warnings as errors, and with the recordings of the docs."""
        shutil.copytree(DOCS / "recordings", folder / "recordings", dirs_exist_ok=True)
        command = [sys.executable, "-W", "error", str(self.write(folder))]
        return subprocess.run(command, cwd=folder, capture_output=True, timeout=300, text=True)


def programs_of_readme() -> list[Program]:
    return [Program(f"README.rst:{block.line}", block.source) for block in blocks(README)]


def programs_of_docs() -> list[Program]:
    return [program for page in sorted(DOCS.rglob("*.rst")) for program in _programs(page)]


def _programs(page: Path, *, includes_not_run: bool = False) -> Iterator[Program]:
    name = page.relative_to(ROOT).as_posix()
    found = blocks(page)
    for block in found:
        if block.kind == "alone":
            yield Program(f"{name}:{block.line}", block.source)
    kinds = ("", "not-run") if includes_not_run else ("",)
    together = [block for block in found if block.kind in kinds and not block.file]
    if together:
        files = {block.file: _joined([b for b in found if b.file == block.file]) for block in found if block.file}
        yield Program(name, _joined(together), files)


def _joined(together: Sequence[Block]) -> str:
    """Each block is as long as all before it together, and begins where they end."""
    lines: list[str] = []
    for block in together:
        lines += block.lines[len(lines) :]
    return "\n".join(["", *lines])


def program_of(page: Path) -> Program:
    """What the blocks of a page make together."""
    return next(program for program in _programs(page) if program.name == page.relative_to(ROOT).as_posix())


def programs_to_check() -> list[Program]:
    """All blocks, for type checkers: the blocks of a page that are not run are a part of its module."""
    pages = sorted(DOCS.rglob("*.rst"))
    return [*programs_of_readme(), *(program for page in pages for program in _programs(page, includes_not_run=True))]


def blocks_not_run() -> list[Block]:
    return [block for page in sorted(DOCS.rglob("*.rst")) for block in blocks(page) if block.kind == "not-run"]


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / "tests" / "typing" / "pyrightconfig.json", folder)
    for program in programs_to_check():
        program.write(folder)
