"""The command ``check``: runs the conformance kit against a live server or gateway."""

from __future__ import annotations

import argparse
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress

from completion.cli.options import OPTIONS, Parser
from completion.cli.report import FAILED, NOT_SET_UP, OK, report
from completion.cli.setup import make_model, model_name
from completion.contract.chunks import ReasoningDelta, TextDelta, TurnFinished
from completion.contract.errors import (
    AuthenticationError,
    CompletionError,
    ConfigurationError,
    NotFoundError,
    PermissionDeniedError,
    QuotaExceededError,
    TransportError,
    UnsupportedContentError,
)
from completion.contract.model import ChatModel
from completion.contract.request import ChatRequest
from completion.engine.middleware import base_url_of
from completion.terminal import one_line
from completion.testing.conformance import faults_by_promise, promises_of
from completion.testing.conformance.subject import Subject

ABOUT = """\
Check whether a server keeps the promises of the library: about 20 short requests are sent, four of them at a time.
Prints each promise, whether it holds, the time to the first chunk, and the chunks a second.
"""

EXIT_CODES = """\
exit codes:
  0    all promises hold
  1    a promise does not hold
  2    wrong usage
  3    not set up: no key, unknown model, or no server
  130  interrupted by Ctrl-C
"""

REQUEST = ChatRequest("Count from one to twenty in words.", max_tokens=64)

CHECK_S = 60.0
"""The time limit of one check. It may need six answers, and the server may work on one at a time."""

MAX_FAULT_CHARS = 300

LATE_S = 0.5
AT_ONCE = 0.05
"""An answer was probably not streamed if the first chunk takes longer than ``LATE_S``, and all others follow within
``AT_ONCE`` times that time."""

FAILED_ANSWER = "speed unknown: the answer failed"

# These errors of the first call mean that the check cannot start. Later, each of them is a fault.
_NOT_SET_UP = (
    ConfigurationError,
    UnsupportedContentError,
    AuthenticationError,
    PermissionDeniedError,
    NotFoundError,
    QuotaExceededError,
    TransportError,
)


def new_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="completion check",
        description=ABOUT,
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for names, settings in OPTIONS:
        if names[-1] in ("--model", "--base-url"):
            parser.add_argument(*names, **settings)
    return parser


def check(arguments: Sequence[str]) -> int:
    """Print each promise and whether it holds; returns the exit code."""
    options = new_parser().parse_args(arguments)
    try:
        model = make_model(options)
        stream = model.chat_stream(REQUEST)
    except _NOT_SET_UP as error:
        report(error)
        return NOT_SET_UP
    except CompletionError:
        speed = FAILED_ANSWER
    else:
        with stream, suppress(CompletionError):
            deque(stream, maxlen=0)
        # Measure the second answer: the first one also opens the connection and imports modules.
        speed = _speed(model)
    print(one_line(f"{model_name(options)} at {_url_of(model)}"))
    print(f"{speed}\n", flush=True)
    subject = Subject(lambda: make_model(options), None, REQUEST)
    promises = promises_of(subject)
    checked = 0
    broken = 0
    for promise, faults in faults_by_promise(subject, CHECK_S):
        print(f"{'FAIL' if faults else 'ok':<5} {promise}", flush=True)
        for fault in dict.fromkeys(faults):
            shown = one_line(fault)
            print(f"      {shown if len(shown) <= MAX_FAULT_CHARS else f'{shown[:MAX_FAULT_CHARS]}...'}", flush=True)
        checked += 1
        broken += bool(faults)
    for promise in promises[checked:]:
        print(f"?     {promise} (not checked)")
    print(f"\n{checked - broken} of {len(promises)} promises hold")
    return FAILED if broken else OK


def _speed(model: ChatModel) -> str:
    """The time to the first chunk of an answer, and the rate of the others, as a text."""
    moments = []
    usage = None
    began = time.perf_counter()
    try:
        with model.chat_stream(REQUEST) as stream:
            for chunk in stream:
                if isinstance(chunk, TextDelta | ReasoningDelta):
                    moments.append(time.perf_counter())
                elif isinstance(chunk, TurnFinished):
                    usage = chunk.usage
    except CompletionError:
        return FAILED_ANSWER
    if not moments:
        return "speed unknown: the answer had no text"
    parts = [f"first chunk after {moments[0] - began:.3f} s"]
    seconds = moments[-1] - moments[0]
    if len(moments) > 1:
        parts.append(f"{(len(moments) - 1) / max(seconds, 1e-6):.1f} chunks a second")
    parts.append(f"{len(moments)} chunk{'s' if len(moments) > 1 else ''} in {moments[-1] - began:.3f} s")
    parts.append("no usage reported" if usage is None else f"{usage.output_tokens} tokens")
    if len(moments) > 1 and moments[0] - began > LATE_S and seconds < (moments[0] - began) * AT_ONCE:
        parts.append("all chunks arrived at once: perhaps a proxy buffers the answer")
    return ", ".join(parts)


def _url_of(model: ChatModel) -> str:
    return base_url_of(model) or "an unknown URL"
