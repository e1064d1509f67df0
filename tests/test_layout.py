"""The layout: imports point one way, and one place imports each third-party package."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import completion
import completion.adapters
import completion.wires

ROOT = Path(completion.__file__).parent

# A module imports from those before it, and from its own package.
ORDER = (
    "version",
    "terminal",
    "contract",
    "events",
    "wires",
    "transport",
    "wrappers",
    "offload",
    "engine",
    "tracing",
    "otel",
    "embedded",
    "adapters",
    "registry",
    "batches",
    "",  # completion itself
    "web",
    "notebook",
    "testing",
    "cli",
    "__main__",
)

# Package -> the one place that imports it.
DOORS = {
    "requests": "transport",
    "urllib3": "transport",
    "sseclient": "events.sse",
    "msgspec": "events.json_decoder",
    "dataclasses_json": "contract.codec",
    "marshmallow": "contract.codec",
    "backoff": "wrappers.retry",
    "xllamacpp": "embedded.server",
    "filelock": "embedded.weights",
    "platformdirs": "embedded.weights",
    "subprocess": "embedded.weights",
    "asyncio": "offload",
    "IPython": "notebook",
    "pydantic": "contract.typed",
    "pydantic_core": "contract.typed",
    "docstring_parser": "contract.typed",
    "jsonschema": "contract.schema_checker",
    "referencing": "contract.schema_checker",
    "typing_extensions": "contract.typed",
    "regex": "engine.redaction",
    "google": "adapters.google_credentials",
    "botocore": "transport.sigv4",
    "opentelemetry": "otel",
    "pytest": "testing.pytest_plugin",
    "tqdm": "cli.batch_extras",
    "distributed": "cli.batch_extras",
}

# Modules that may import inside a function: optional packages, and those that would double the time of
# `import completion`.
LAZY = {
    *("", "contract.answer", "contract.codec", "contract.request", "contract.turn", "events.json_decoder"),
    *("adapters.google_credentials", "adapters.local", "embedded.server", "embedded.weights"),
    *(
        "registry",
        "wrappers.retry",
        "engine.guards",
        "engine.outputs",
        "engine.results",
        "engine.tools",
        "engine.redaction",
    ),
    *("transport.sigv4", "adapters.google_credentials", "adapters.local", "embedded.server", "embedded.weights"),
    *("registry", "wrappers.retry", "engine.outputs", "engine.results", "engine.tools", "engine.redaction"),
    *("otel.spans", "web", "notebook", "cli.ask", "cli.chat", "cli.lines", "cli.models", "cli.setup", "cli.trace"),
    *("cli.approval", "cli.batch_extras", "cli.values"),
}

# The limits of a module, and of a function without its docstring.
MAX_LINES = 500
MAX_FUNCTION_LINES = 45


def modules() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        yield name, ast.parse(path.read_text(encoding="utf-8"), str(path))


MODULES = dict(modules())


def imported(tree: ast.AST) -> Iterator[str]:
    """The full names of all imports in the tree, without those under TYPE_CHECKING."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        else:
            yield from imported(node)


def part(module: str) -> str:
    """The place in ORDER that a module, or a name of ours, belongs to."""
    first = module.partition(".")[0]
    return first if first in ORDER else ""


def is_inside(module: str, door: str) -> bool:
    return module == door or module.startswith(door + ".")


@pytest.mark.parametrize("module", MODULES)
def test_every_module_has_a_place_in_the_order(module: str) -> None:
    assert module == "" or module.partition(".")[0] in ORDER


def sources_of(module: str) -> set[str]:
    """The modules of ours that a module imports, or imports from."""
    names = [
        name.removeprefix("completion").removeprefix(".")
        for name in imported(MODULES[module])
        if name.partition(".")[0] == "completion"
    ]
    return {name if name in MODULES else name.rpartition(".")[0] for name in names}


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_one_way(module: str) -> None:
    own = ORDER.index(part(module))
    assert {source for source in sources_of(module) if ORDER.index(part(source)) > own} == set()


def test_transport_knows_no_wire() -> None:
    sources = {source for module in MODULES if part(module) == "transport" for source in sources_of(module)}
    assert not {source for source in sources if part(source) in ("wires", "adapters", "events")}


def test_a_wire_knows_no_other_wire() -> None:
    for module in MODULES:
        if module.count(".") >= 2 and module.startswith("wires."):
            own = module.split(".")[1]
            others = {
                source.split(".")[1]
                for source in sources_of(module)
                if source.count(".") >= 2 and part(source) == "wires"
            }
            assert others <= {own}, module


def test_modules_do_not_import_each_other_in_a_circle() -> None:
    known = {module: {s for s in sources_of(module) if s in MODULES and s != module} for module in MODULES}
    while ends := {module for module, sources in known.items() if not sources}:
        known = {module: sources - ends for module, sources in known.items() if module not in ends}
    assert known == {}


@pytest.mark.parametrize("module", MODULES)
def test_modules_and_functions_are_short(module: str) -> None:
    tree = MODULES[module]
    lines = {node.end_lineno or 0 for node in ast.walk(tree) if isinstance(node, ast.stmt)}
    assert max(lines, default=0) <= MAX_LINES
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    assert {f.name: length for f in functions if (length := _length(f)) > MAX_FUNCTION_LINES} == {}


def _length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """The lines of its body, without the docstring."""
    body = function.body[1:] if ast.get_docstring(function) and len(function.body) > 1 else function.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1


@pytest.mark.parametrize("package", DOORS)
def test_one_place_imports_each_package(package: str) -> None:
    importers = {
        module for module, tree in MODULES.items() if any(name.partition(".")[0] == package for name in imported(tree))
    }
    assert {module for module in importers if not is_inside(module, DOORS[package])} == set()


def test_no_other_package_is_imported() -> None:
    roots = {name.partition(".")[0] for tree in MODULES.values() for name in imported(tree)}
    assert roots - set(sys.stdlib_module_names) - {"completion"} <= set(DOORS)


@pytest.mark.parametrize("module", [module for module in MODULES if module not in LAZY])
def test_nothing_is_imported_inside_a_function(module: str) -> None:
    functions = [n for n in ast.walk(MODULES[module]) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    assert [function.name for function in functions if list(imported(function))] == []


def test_importing_the_library_imports_nothing_slow() -> None:
    slow = ("dataclasses_json", "marshmallow", "xllamacpp", "asyncio", "numpy", "msgspec", "pydantic", "opentelemetry")
    code = f"import completion, sys; print([name for name in {slow} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT.parent, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


@pytest.mark.parametrize("package", [completion, completion.adapters, completion.wires])
def test_what_is_exported_is_there(package: ModuleType) -> None:
    assert [name for name in package.__all__ if not hasattr(package, name)] == []
