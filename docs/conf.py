"""Sphinx settings for this folder: sphinx-build -W --keep-going -n -b html docs build/docs"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import completion

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "completion"
author = "the authors of completion"
version = release = completion.__version__

extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
exclude_patterns = ["build"]

nitpicky = True
nitpick_ignore_regex = [
    # Names of other projects. To link them, Sphinx would download their inventories; this build needs no network.
    ("py:.*", r"(collections|concurrent|dataclasses|os|pathlib|re|requests|ssl|threading|types)\..+"),
    ("py:class", r"(Tracer|Meter)Provider"),
    # Type variables of ours.
    ("py:class", r"completion\..+T|(completion\..+\.)?(P|R_co)"),
    # Types of ours that users need not name: they stand in signatures only.
    ("py:class", r"Effort|completion\.contract\.values\.ValueStream"),
    ("py:class", r"completion\.offload\.aio\.(AsyncStreamOf|AsyncValueStream|_Collectable)"),
]

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True  # as in the source: timeout=Timeout()
napoleon_use_param = False  # some lines describe several parameters: "timeout, session: as for OpenAIClient"
python_use_unqualified_type_names = True
toc_object_entries_show_parents = "hide"
python_maximum_signature_line_length = 100

html_theme = "furo"
pygments_dark_style = "github-dark"
html_title = "completion"
html_static_path = ["_static"]
html_css_files = ["docs.css"]
html_copy_source = False
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
html_show_copyright = False
html_show_sourcelink = False


def as_restructuredtext(
    app: Sphinx, what: str, name: str, obj: object, options: dict[str, Any], lines: list[str]
) -> None:
    """Make literal blocks of indented code and drawings, which our docstrings have without the ``::``."""
    for number in reversed(range(1, len(lines))):
        if lines[number].startswith("    ") and not lines[number - 1].strip():
            before = next((line for line in reversed(lines[:number]) if line.strip()), " ")
            if not before.startswith(" "):
                lines[number:number] = ["::", ""]
    if what in ("attribute", "property"):
        lines[0:0] = ["..", ""]  # napoleon (Sphinx 9.0) reads words before a colon in the first line as a type


def with_table_of_providers(app: Sphinx, page: str, source: list[str]) -> None:
    """Replace the comment ``.. table of providers`` with the table, made from the rows of the code."""
    if page == "adapters/compatible":
        source[0] = source[0].replace(".. table of providers\n", "\n".join(table_of_providers()))


def table_of_providers() -> Iterator[str]:
    """The lines of a ``list-table``: family, base URL, key, and what differs from most providers."""
    from completion.adapters.providers import PROVIDERS
    from completion.wires.openai_chat.dialect import COMPATIBLE

    usual = asdict(COMPATIBLE)
    rows = [("Family", "Base URL", "Key", "Differs")]
    for row in PROVIDERS.values():
        variables = [*row.placeholders.values(), *row.url_variables]
        base_url = [f"``{row.base_url}``" if row.base_url else "``base_url=``", *(f"``{name}``" for name in variables)]
        keys = ", ".join(f"``{name}``" for name in row.key_variables)
        differs = [f"``{name}={value!r}``" for name, value in asdict(row.dialect).items() if value != usual[name]]
        if row.wire != "chat":
            differs.insert(0, f"``wire={row.wire!r}``")
        optional = " (optional)" if row.key_is_optional else ""
        rows.append((f"``{row.name}``", ", ".join(base_url), keys + optional, ", ".join(differs)))
    yield from (".. list-table::", "   :header-rows: 1", "")
    for cells in rows:
        yield from (f"   {'* -' if number == 0 else '  -'} {cell}" for number, cell in enumerate(cells))
    yield ""


def types_of_declared_init(
    app: Sphinx, what: str, name: str, obj: Any, options: dict[str, Any], signature: str | None, returns: str | None
) -> tuple[str, str | None] | None:
    """The signature that a dataclass declares under ``if TYPE_CHECKING``: it accepts more than its fields hold."""
    if what != "class" or not inspect.isclass(obj) or not obj.__module__.startswith("completion.") or signature == "()":
        return None
    for statement in ast.walk(ast.parse(inspect.getsource(obj))):
        if isinstance(statement, ast.If) and ast.unparse(statement.test) == "TYPE_CHECKING":
            for function in statement.body:
                if isinstance(function, ast.FunctionDef) and function.name == "__init__":
                    arguments = ast.unparse(function.args).removeprefix("self, ")
                    return f"({_ANNOTATED_NAME.sub(_full_name, arguments)})", returns
    return None


_ANNOTATED_NAME = re.compile(r"\b[A-Z]\w+\b")
_OTHERS = {"Sequence": "collections.abc.Sequence", "Mapping": "collections.abc.Mapping", "Any": "typing.Any"}
_ALIASES = {"Role": "Literal['user', 'assistant']"}


def _full_name(found: re.Match[str]) -> str:
    name = found[0]
    if name in completion.__all__:
        return f"~completion.{name}"
    return f"~{_OTHERS[name]}" if name in _OTHERS else _ALIASES.get(name, name)


def setup(app: Sphinx) -> None:
    app.connect("source-read", with_table_of_providers)
    app.connect("autodoc-process-signature", types_of_declared_init)
    app.connect("autodoc-process-docstring", as_restructuredtext, priority=400)  # before napoleon
