"""The command ``completion``: one module for each of its commands."""

from completion.cli.main import main

__all__ = ["main"]
