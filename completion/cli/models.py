"""The command ``models``: the families of models, and whether their keys are set."""

from __future__ import annotations

import os
from collections.abc import Sequence

from completion import registry
from completion.cli.options import Parser
from completion.cli.report import OK
from completion.contract.errors import ConfigurationError
from completion.terminal import one_line


def models(arguments: Sequence[str]) -> int:
    """Print a row for each family: its name, the environment variable of its key, and whether that is set."""
    about = "List the families of models, the environment variable of each one's key, and whether it is set."
    Parser(prog="completion models", description=about).parse_args(arguments)
    rows = [("FAMILY", "KEY", "STATE")]
    for name in registry.families():
        try:
            family = registry.family(name)
        except ConfigurationError as error:  # an installed family that cannot be imported
            rows.append((name, "-", str(error)))
            continue
        variable, state = _key(family)
        rows.append((name, variable, state))
    for name, variable, state in rows:
        print(one_line(f"{name:<20} {variable:<24} {state}"))
    return OK


def _key(family: registry.Family) -> tuple[str, str]:
    """The environment variable of the family's key, and whether it is set. Of several, the one that is set."""
    variables = getattr(family, "key_variables", None) or [getattr(family, "key_variable", None)]
    if variables[0] is None:
        return "-", "needs no key"
    found = next(filter(os.environ.get, variables), None)
    unset = "optional" if getattr(family, "key_is_optional", False) else "not set"
    return found or variables[0], "set" if found else unset
