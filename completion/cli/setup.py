"""From the options of ``ask`` and ``chat`` to a model, tools and a tracer."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from operator import attrgetter

from completion import registry
from completion.contract.errors import CompletionError, ConfigurationError
from completion.contract.model import ChatModel
from completion.engine import Middleware, Tool, tool
from completion.tracing import JsonTracer


def make_model(options: argparse.Namespace) -> ChatModel:
    """The model that ``-m`` or ``COMPLETION_MODEL`` names.

    Raises:
        ConfigurationError: the family is unknown, needs a model id, or supports no base URL.
    """
    name = options.model or os.environ.get("COMPLETION_MODEL") or "local"
    origin = f"-m {name}" if options.model else f"COMPLETION_MODEL={name}"
    family, colon, model_id = name.partition(":")
    # Our own families first: families() reads the metadata of every installed package.
    if family not in registry.OURS and family not in registry.families():
        known = ", ".join(registry.families())
        form = "" if colon else "; write it as FAMILY:MODEL"
        raise ConfigurationError(f"{origin}: unknown family {family!r}; families: {known}{form}")
    make = registry.family(family)
    if not model_id and not getattr(make, "has_default_model", False):
        raise ConfigurationError(f"{origin}: give the model id as well: {family}:MODEL")
    if options.base_url is None:
        return registry.model(name)
    try:
        return registry.model(name, base_url=options.base_url)
    except TypeError as error:  # an unknown argument
        raise ConfigurationError(f"--base-url is not supported by the family {family!r}") from error


def find_tools(parser: argparse.ArgumentParser, options: argparse.Namespace) -> list[Tool]:
    """The functions that ``--tools`` names; a plain function with type hints becomes a tool.

    The current folder is searched too, after the installed modules: a file there must not replace one of them.
    """
    tools: dict[str, Tool] = {}
    for value in options.tools or ():
        module, _, names = value.partition(":")
        if not module or not names:
            parser.error(f"--tools takes module:function, or module:function,function; got {value!r}")
        folder = os.path.abspath(os.curdir)
        if folder not in sys.path:
            sys.path.append(folder)
        for name in names.split(","):
            try:
                function = attrgetter(name)(import_module(module))
                new = function if isinstance(function, Tool) else tool(function)
            except CompletionError:
                raise
            except Exception as error:  # the module may raise anything while it is imported
                why = _hidden_by_installed(module) or f"{type(error).__name__}: {error}"
                parser.error(f"--tools {module}:{name}: {why}")
            if tools.setdefault(new.name, new) is not new:
                parser.error(f"--tools: two tools have the name {new.name!r}")
    return [*tools.values()]


def _hidden_by_installed(module: str) -> str | None:
    """A sentence for the user if Python imported an installed module in place of a file of the current folder."""
    package = module.partition(".")[0]
    own = next((path for path in (f"{package}.py", package) if os.path.exists(path)), None)
    imported = sys.modules.get(package)
    if own is None or imported is None:
        return None
    folders = [getattr(imported, "__file__", None) or "", *getattr(imported, "__path__", ())]
    if any(os.path.abspath(own) in (folder, os.path.dirname(folder)) for folder in folders):
        return None
    return f"{package!r} is the name of an installed module, which comes before ./{own}; rename that file"


@contextmanager
def tracing(parser: argparse.ArgumentParser, options: argparse.Namespace) -> Iterator[list[Middleware]]:
    """The middleware that ``--trace`` asks for; its file is closed when the block ends."""
    if options.trace is None:
        yield []
        return
    try:
        tracer = JsonTracer(options.trace)
    except OSError as error:
        parser.error(f"--trace {options.trace}: {error.strerror or error}")
    with tracer:
        yield [tracer]
