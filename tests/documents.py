"""The Python in our documents: found where it stands, run as it stands.

In README.rst each block is a program. In docs/ the blocks of a page are one, read from the top, but for two kinds:

    .. code-block:: python
        :class: alone               a program of its own
        :class: not-run             it needs an account, or a server that no test has
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = ROOT / "README.rst"
DOCS = ROOT / "docs"

_DIRECTIVE = re.compile(r"( *)\.\. code-block:: (\w+)\s*$")


@dataclass(frozen=True)
class Block:
    """Its lines, each behind as many empty ones as stand above it in the page: tracebacks tell the line of the page."""

    page: Path
    line: int
    kind: str
    lines: tuple[str, ...]

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
    """The block under the directive, which ends with the first line that is not indented deeper."""
    end = number + 1
    while end < len(lines) and (not lines[end].strip() or len(lines[end]) - len(lines[end].lstrip()) > margin):
        end += 1
    body = lines[number + 1 : end]
    option = next((line.split(":class:")[1].strip() for line in body if line.strip().startswith(":class:")), "")
    code = ["" if line.strip().startswith(":class:") else line for line in body]
    indent = min(len(line) - len(line.lstrip()) for line in code if line.strip())
    return Block(page, number + 1, option, ("",) * number + tuple(line[indent:] for line in code))


@dataclass(frozen=True)
class Program:
    """What one process runs."""

    name: str
    source: str

    @property
    def packages(self) -> set[str]:
        """The top-level names of what it imports, beside the standard library and this one."""
        names = set()
        for node in ast.walk(ast.parse(self.source)):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names.add(str(node.module).partition(".")[0])
        return names - set(sys.stdlib_module_names) - {"completion", "__future__"}

    @property
    def least_python(self) -> tuple[int, int]:
        return (3, 11) if re.search(r"asyncio\.(TaskGroup|timeout)\b", self.source) else (3, 10)

    def run(self, folder: Path) -> subprocess.CompletedProcess[str]:
        """In a process of its own, with warnings as errors."""
        path = folder / re.sub(r"\W+", "_", self.name)
        path = path.with_suffix(".py")
        path.write_text(self.source, encoding="utf-8")
        command = [sys.executable, "-W", "error", str(path)]
        return subprocess.run(command, cwd=folder, capture_output=True, timeout=120, text=True)


def programs_of_readme() -> list[Program]:
    return [Program(f"README.rst:{block.line}", block.source) for block in blocks(README)]


def programs_of_docs() -> list[Program]:
    return [program for page in sorted(DOCS.rglob("*.rst")) for program in _programs(page)]


def _programs(page: Path) -> Iterator[Program]:
    name = page.relative_to(ROOT).as_posix()
    found = blocks(page)
    for block in found:
        if block.kind == "alone":
            yield Program(f"{name}:{block.line}", block.source)
    together = [block for block in found if not block.kind]
    if together:
        # Each block is as long as all before it together, and begins where they end.
        lines: list[str] = []
        for block in together:
            lines += block.lines[len(lines) :]
        yield Program(name, "\n".join(["", *lines]))


def blocks_not_run() -> list[Block]:
    return [block for page in sorted(DOCS.rglob("*.rst")) for block in blocks(page) if block.kind == "not-run"]
