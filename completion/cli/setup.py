"""Makes the model, the tools and the tracer from the options of a command."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from operator import attrgetter
from types import ModuleType

from completion import registry
from completion.contract.errors import CompletionError, ConfigurationError
from completion.contract.model import ChatModel
from completion.engine import Middleware, Tool, tool
from completion.tracing import JsonTracer


def model_name(options: argparse.Namespace, of_session: str | None = None) -> str:
    """The name of the model, from ``-m``, else the session, else ``COMPLETION_MODEL``, else ``local``."""
    return options.model or of_session or os.environ.get("COMPLETION_MODEL") or "local"


def make_model(options: argparse.Namespace, of_session: str | None = None) -> ChatModel:
    """The model with this name.

    Raises:
        ConfigurationError: the family is unknown, needs a model id, or supports no base URL.
    """
    name = model_name(options, of_session)
    is_from_environment = not (options.model or of_session) and name == os.environ.get("COMPLETION_MODEL")
    origin = f"COMPLETION_MODEL={name}" if is_from_environment else f"-m {name}"
    return named_model(name, origin, options.base_url)


def named_model(name: str, origin: str, base_url: str | None) -> ChatModel:
    """The model with this name.

    Args:
        origin: where the name comes from, for error messages: ``-m NAME``, for example.

    Raises:
        ConfigurationError: see ``make_model``.
    """
    family, colon, model_id = name.partition(":")
    # Our own families first: families() reads the metadata of every installed package.
    if family not in registry.OURS and family not in registry.families():
        known = ", ".join(registry.families())
        form = "" if colon else "; write it as FAMILY:MODEL"
        raise ConfigurationError(f"{origin}: unknown family {family!r}; families: {known}{form}")
    make = registry.family(family)
    if not model_id and not getattr(make, "has_default_model", False):
        raise ConfigurationError(f"{origin}: the model id is missing: write {family}:MODEL")
    if base_url is None:
        return registry.model(name)
    try:
        return registry.model(name, base_url=base_url)
    except TypeError as error:  # an unknown argument
        raise ConfigurationError(f"--base-url is not supported by the family {family!r}") from error


def find_tools(parser: argparse.ArgumentParser, options: argparse.Namespace) -> list[Tool]:
    """The functions that ``--tools`` names; a plain function with type hints becomes a tool.

    Without names, the functions of the module that are marked with ``@tool``.
    """
    tools: dict[str, Tool] = {}
    for value in options.tools or ():
        module, colon, names = value.partition(":")
        if not module or (colon and not names):
            parser.error(f"--tools must be module:function, module:function,function or module, got {value!r}")
        for name in names.split(",") if names else _marked(parser, module):
            try:
                function = attrgetter(name)(import_from_here(module))
                new = function if isinstance(function, Tool) else tool(function)
            except CompletionError:
                raise
            except Exception as error:  # the module may raise anything while it is imported
                parser.error(f"--tools {module}:{name}: {_why(module, error)}")
            if tools.setdefault(new.name, new) is not new:
                parser.error(f"--tools: two tools have the name {new.name!r}")
    return [*tools.values()]


def _marked(parser: argparse.ArgumentParser, module: str) -> list[str]:
    """The names of the tools in a module. A tool with two names is listed once."""
    try:
        found = {id(one): name for name, one in vars(import_from_here(module)).items() if isinstance(one, Tool)}
    except CompletionError:
        raise
    except Exception as error:
        parser.error(f"--tools {module}: {_why(module, error)}")
    if not found:
        parser.error(f"--tools {module}: no function is marked with @tool; name the functions: {module}:function")
    return [*found.values()]


def import_from_here(module: str) -> ModuleType:
    """The module. The current folder is searched last: a file there must not replace an installed module.

    Raises:
        Exception: whatever the module raises while it is imported.
    """
    folder = os.path.abspath(os.curdir)
    if folder not in sys.path:
        sys.path.append(folder)
    try:
        return import_module(module)
    except SystemExit as error:  # a script without ``if __name__ == "__main__"``
        raise ImportError(f"{module} ended the program while it was imported: sys.exit({error.code})") from error


def _why(module: str, error: Exception) -> str:
    return _hidden_by_installed(module) or f"{type(error).__name__}: {error}"


def _hidden_by_installed(module: str) -> str | None:
    """An explanation, if Python imported an installed module instead of the user's file in the current folder."""
    package = module.partition(".")[0]
    own = next((path for path in (f"{package}.py", package) if os.path.exists(path)), None)
    imported = sys.modules.get(package)
    if own is None or imported is None:
        return None
    folders = [getattr(imported, "__file__", None) or "", *getattr(imported, "__path__", ())]
    if any(os.path.abspath(own) in (folder, os.path.dirname(folder)) for folder in folders):
        return None
    return f"{package!r} is the name of an installed module, which is imported instead of ./{own}; rename that file"


@contextmanager
def tracing(parser: argparse.ArgumentParser, options: argparse.Namespace) -> Iterator[list[Middleware]]:
    """The middleware for ``--trace``, if the option is given. Its file is closed when the block ends."""
    if options.trace is None:
        yield []
        return
    try:
        tracer = JsonTracer(options.trace)
    except OSError as error:
        parser.error(f"--trace {options.trace}: {error.strerror or error}")
    with tracer:
        yield [tracer]
