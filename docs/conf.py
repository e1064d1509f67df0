"""Sphinx settings for this folder: sphinx-build -W --keep-going -n -b html docs build/docs"""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sphinx.application import Sphinx

HERE = Path(__file__).parent

project = "completion"
author = "the authors of completion"
version = release = runpy.run_path(str(HERE.parent / "completion" / "version.py"))["__version__"]

extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["build"]

nitpicky = True
nitpick_ignore_regex = [
    # Names of other projects. To link them, Sphinx would download their inventories; this build needs no network.
    ("py:.*", r"(collections|concurrent|dataclasses|os|pathlib|requests|ssl|threading|types)\..+"),
    # Type variables of ours.
    ("py:class", r"completion\..+T|(completion\..+\.)?(P|R_co)"),
]

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True  # as in the source: timeout=Timeout()
napoleon_use_param = False  # some lines describe several parameters: "timeout, session: as for OpenAIClient"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 100

html_theme = "alabaster"
html_theme_options = {
    "description": "Streams a language model's answer, in the same way from every provider",
    "fixed_sidebar": True,
    "page_width": "1120px",
    "code_font_size": "0.8em",
}
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


def setup(app: Sphinx) -> None:
    app.connect("autodoc-process-docstring", as_restructuredtext, priority=400)  # before napoleon
