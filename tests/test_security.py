"""SECURITY.rst names a test for each promise, and each named test exists."""

from __future__ import annotations

import ast
import re

import pytest

from tests.documents import ROOT

PAGE = (ROOT / "SECURITY.rst").read_text(encoding="utf-8")
NAMED = re.findall(r"``(tests/[\w/]+\.py)::(\w+)``", PAGE)


def names_in(path: str) -> set[str]:
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


@pytest.mark.parametrize(("path", "name"), NAMED, ids=[name for _, name in NAMED])
def test_a_named_test_exists(path: str, name: str) -> None:
    assert name in names_in(path)


def test_every_promise_names_a_test() -> None:
    promises = PAGE.partition("\nWhat is promised\n")[2].partition("\nWhat is not promised\n")[0]
    bullets = re.split(r"^\* ", promises, flags=re.MULTILINE)[1:]
    assert len(bullets) > 20
    assert [bullet for bullet in bullets if not re.search(r"``tests/[\w/]+\.py::test_\w+``", bullet)] == []


def test_every_name_of_a_test_has_its_path() -> None:
    assert len(NAMED) == PAGE.count("::test_")
