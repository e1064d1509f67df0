"""The command ``trace``: the runs of a trace file as timelines."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from completion.cli.options import Parser
from completion.cli.report import OK, tell
from completion.tracing import timeline


def new_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="completion trace",
        description="Show the runs of a trace as timelines. --trace and JsonTracer write such files.",
        epilog="One run of many:  grep run_5f0c trace.jsonl | completion trace -",
    )
    parser.add_argument("file", metavar="FILE", help="the trace; '-' reads it from stdin")
    parser.add_argument(
        "-f", "--follow", action="store_true", help="wait for more lines, and show each run when it ends"
    )
    return parser


def trace(arguments: Sequence[str]) -> int:
    """Print the timelines of a trace file; returns the exit code."""
    parser = new_parser()
    options = parser.parse_args(arguments)
    try:
        file = sys.stdin.buffer if options.file == "-" else open(options.file, "rb")  # noqa: SIM115
    except OSError as error:
        parser.error(f"{options.file} cannot be read: {error.strerror or error}")
    with file:
        if not timeline.show(file, sys.stdout, follow=options.follow):
            tell("the trace contains no run")
    return OK
