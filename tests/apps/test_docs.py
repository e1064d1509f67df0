"""Runs docs/: every Python example that needs a framework, if it is installed, and the script of the chat page."""

import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.documents import DOCS, Program, blocks, programs_of_docs

PROGRAMS = [program for program in programs_of_docs() if program.packages]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_each_example_runs(program: Program, tmp_path: Path) -> None:
    for package in sorted(program.packages):
        pytest.importorskip(package)
    if sys.version_info < program.least_python:
        pytest.skip("the example needs a newer Python")
    run = program.run(tmp_path)
    assert run.returncode == 0, run.stderr
    assert "Traceback" not in run.stderr, run.stderr  # also not in a thread or a finalizer


def test_the_script_of_the_page_shows_the_answer_of_the_flask_view(tmp_path: Path) -> None:
    serving = pytest.importorskip("werkzeug.serving")
    pytest.importorskip("flask")
    node = shutil.which("node") or pytest.skip("node is not installed")
    view, script = blocks(DOCS / "howto" / "flask.rst")[0], blocks(DOCS / "howto" / "web.rst", "javascript")[0]
    names: dict[str, Any] = {"__name__": "app"}
    exec(compile(view.source, str(view.page), "exec"), names)
    server = serving.make_server("127.0.0.1", 0, names["app"], threaded=True)
    url = f"http://127.0.0.1:{server.port}/chat"
    program = f"{script.source}\nconst shown = [];\nawait ask('{url}', 'Say hello.', (text) => shown.push(text));\n"
    page = tmp_path / "page.mjs"
    page.write_text(f"{program}console.log(shown.join(''));\n", encoding="utf-8")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        run = subprocess.run([node, str(page)], capture_output=True, timeout=60, encoding="utf-8")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip()
