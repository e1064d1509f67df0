"""How to install an optional package that is missing."""

from __future__ import annotations

import shlex
import sys


def install_command(*packages: str) -> str:
    """The shell command that installs these packages into the Python that runs this program."""
    return shlex.join([sys.executable, "-m", "pip", "install", *packages])
