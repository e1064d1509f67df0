"""The command ``models``: the families of models, or the models of one family."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import Any

from completion import registry
from completion.cli.options import Parser
from completion.cli.report import OK, exit_code_table
from completion.cli.setup import named_model
from completion.contract.errors import ConfigurationError, UnsupportedContentError
from completion.terminal import one_line

ABOUT = """\
List the families of models, or the models of one.
Without FAMILY: each family, the environment variable of its key, and whether it is set.
With FAMILY: the model ids that the provider lists:  completion models groq
"""


def new_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="completion models",
        description=ABOUT,
        epilog=exit_code_table(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("family", nargs="?", metavar="FAMILY", help="list the models of this family")
    parser.add_argument("--base-url", metavar="URL", help="the server to ask")
    return parser


def models(arguments: Sequence[str]) -> int:
    """Print a row for each family, or for each model of one; returns the exit code."""
    parser = new_parser()
    options = parser.parse_args(arguments)
    if options.family is None:
        if options.base_url is not None:
            parser.error("--base-url needs a FAMILY: completion models openai --base-url URL")
        _print_families()
        return OK
    for model_id in _model_ids(options.family, options.base_url):
        print(one_line(model_id))
    return OK


def _model_ids(family: str, base_url: str | None) -> list[str]:
    """The ids that the provider lists.

    Raises:
        ConfigurationError: the family is unknown or not set up.
        CompletionError: the provider has no list, refused the request, or could not be reached.
    """
    family = family.removesuffix(":")
    # We need a model only for its client, which has the key: any model id will do.
    model: Any = named_model(f"{family}:" if family == "local" else f"{family}:-", f"models {family}", base_url)
    if family == "local":
        return [model.model]
    model = getattr(model, "inner", model)  # a model of another package is wrapped
    list_ids = getattr(getattr(model, "client", None), "model_ids", None)
    if list_ids is None:
        raise UnsupportedContentError("this family cannot list its models", provider=family)
    found: list[str] = list_ids()
    return found


def _print_families() -> None:
    rows = [("FAMILY", "KEY", "STATE")]
    for name in registry.families():
        try:
            family = registry.family(name)
        except ConfigurationError as error:  # an installed family that cannot be imported
            rows.append((name, "-", str(error)))
            continue
        variable, state = _key(family)
        rows.append((name, variable, state))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for name, variable, state in rows:
        print(one_line(f"{name:<{widths[0]}}  {variable:<{widths[1]}}  {state}"))


def _key(family: registry.Family) -> tuple[str, str]:
    """The environment variable of the family's key, and whether it is set. If it has several, the first that is set."""
    variables = getattr(family, "key_variables", None) or [getattr(family, "key_variable", None)]
    if variables[0] is None:
        return "-", "needs no key"
    found = next(filter(os.environ.get, variables), None)
    unset = "optional" if getattr(family, "key_is_optional", False) else "not set"
    return found or variables[0], "set" if found else unset
