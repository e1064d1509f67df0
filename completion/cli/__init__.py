"""The command line."""

from completion.cli.main import main

__all__ = ["main"]
