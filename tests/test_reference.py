"""The reference has every public name, with an example. The drawings have what their sources say."""

import re
from html import unescape
from importlib import import_module
from pathlib import Path

import pytest

import completion
from completion import CompletionError
from tests.documents import DOCS, blocks

PAGES = [*DOCS.glob("*.rst"), *DOCS.glob("reference/*.rst")]
REFERENCE = "\n".join(page.read_text(encoding="utf-8") for page in sorted(DOCS.rglob("*.rst")))
EXAMPLES = "\n".join(block.source for page in sorted(DOCS.rglob("*.rst")) for block in blocks(page))
DRAWINGS = sorted((DOCS / "drawings").glob("*.mmd"))

# A wider line makes the reader scroll sideways.
MAX_COLUMNS = 88


@pytest.mark.parametrize("module", ["", ".adapters", ".otel", ".testing", ".web", ".wires"])
def test_each_public_name_is_in_the_reference(module: str) -> None:
    names = {f"completion{module}.{name}" for name in import_module(f"completion{module}").__all__}
    described = set(re.findall(r"^ *\.\. (?:auto\w+|py:data):: ([\w.]+)", REFERENCE, re.MULTILINE))
    assert names - described - {"completion.__version__", "completion.wires.refusals"} == set()


@pytest.mark.parametrize("module", ["", ".otel", ".testing", ".web"])
def test_each_public_name_has_an_example(module: str) -> None:
    used = set(re.findall(r"\w+", EXAMPLES))
    assert set(import_module(f"completion{module}").__all__) - used - {"__version__"} == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_line_of_code_is_too_wide(page: Path) -> None:
    assert not [line for block in blocks(page) for line in block.lines if len(line) > MAX_COLUMNS]


def test_the_drawing_of_the_errors_has_all_of_them() -> None:
    drawn = set(re.findall(r"\b[A-Z]\w+Error\b", (DOCS / "drawings" / "errors.mmd").read_text(encoding="utf-8")))
    found = [getattr(completion, name) for name in completion.__all__]
    assert drawn == {kind.__name__ for kind in found if isinstance(kind, type) and issubclass(kind, CompletionError)}


@pytest.mark.parametrize("source", DRAWINGS, ids=lambda source: source.stem)
def test_each_drawing_was_drawn_from_its_source(source: Path) -> None:
    text = re.sub("^ *(%%|acc).*", "", source.read_text(encoding="utf-8"), flags=re.MULTILINE)
    svg = source.with_suffix(".svg").read_text(encoding="utf-8")
    svg = re.sub(r"<(style|title|desc)\b.*?</\1>", "", svg, flags=re.DOTALL)
    drawn = set(re.findall(r"\w+", unescape(re.sub("<[^>]*>", " ", svg))))
    labels = re.findall(r'"([^"]+)"|: (.+)', text)
    assert set(re.findall(r"\w+", " ".join(map("".join, labels)).replace("<br/>", " "))) <= drawn
    assert drawn <= set(re.findall(r"\w+", text))
