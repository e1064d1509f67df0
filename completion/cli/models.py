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
            variable = getattr(registry.family(name), "key_variable", None)
        except ConfigurationError as error:  # an installed family that cannot be imported
            rows.append((name, "-", str(error)))
            continue
        state = "needs no key" if variable is None else "set" if os.environ.get(variable) else "not set"
        rows.append((name, variable or "-", state))
    for family, key, state in rows:
        print(one_line(f"{family:<16} {key:<24} {state}"))
    return OK
