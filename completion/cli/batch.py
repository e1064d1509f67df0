"""The command ``batch``: reads a file of requests, writes a file of answers, and sends no answered request again.

IN and OUT are the two files.
"""

from __future__ import annotations

import argparse
import signal
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from completion import registry
from completion.batches import BatchResult
from completion.batches import batch as run_batch
from completion.cli.batch_extras import Progress, cluster
from completion.cli.batch_lines import Key, Line, read_lines
from completion.cli.batch_output import Held, Output, Refused, lock, merge
from completion.cli.options import Parser
from completion.cli.report import FAILED, INTERRUPTED, OK, WRONG_USAGE, tell
from completion.cli.schemas import schema_of
from completion.cli.setup import make_model
from completion.contract.answer import Answer, answer_in
from completion.contract.cancel import CancelToken
from completion.contract.errors import (
    CompletionError,
    ConfigurationError,
    StreamCancelledError,
    UnsupportedContentError,
)
from completion.contract.model import ChatModel

MAX_FAULTS = 20
"""At most this many invalid lines are printed."""

EPILOG = """A line of IN is one of:
  {"id": "a", "prompt": "Why is the sky blue?"}
  {"id": "a", "messages": [{"role": "user", "content": "Why?"}], "max_tokens": 100}
  a ChatRequest as JSON, with an "id"
  {"custom_id": "a", "body": {...}}     a line of OpenAI's batch files

If the command is stopped, run it again: it sends only the requests that have no line in OUT.

exit codes:
  0    all requests were answered
  1    some failed, or OUT cannot be written
  2    wrong usage, invalid lines, an OUT that belongs to another IN, or another run uses OUT
  3    not set up: no key, unknown family, missing extra
  130  interrupted by Ctrl-C"""


def batch(arguments: Sequence[str]) -> int:
    """Answer the requests of a file; returns the exit code."""
    parser = new_parser()
    options = parser.parse_args(arguments)
    source, out = Path(options.source), Path(options.out)
    try:
        # Before resolve(): the target of /dev/stdout may be a pipe, which has no path.
        if options.out == "-" or (out.exists() and not out.is_file()):
            raise Refused(f"-o {out} is not a file; OUT is read before it is written")
        out = out.resolve()  # if OUT is a link, write its target
        if source.resolve() == out:
            raise Refused("IN and OUT are the same file")
        if source.exists() and not source.is_file():
            raise Refused(f"{source} is not a file; IN is read more than once")
        answer = _answer(options.schema)
        digests, models = _check(source, answer, options.model)
        made = {name: _model(name, options) for name in models}
        if not out.parent.is_dir():
            raise Refused(f"-o {out}: the folder does not exist")
        with ExitStack() as stack:
            executor = stack.enter_context(cluster(options.dask))
            stack.enter_context(lock(out))
            return _run(source, out, answer, digests, made, executor, options)
    except Refused as error:
        tell(str(error))
        return WRONG_USAGE
    except OSError as error:
        tell(
            f"{error.filename or out}: {error.strerror or error}; no answer in OUT is lost: run the same command again"
        )
        return FAILED


def new_parser() -> Parser:
    """The parser of this command."""
    about = "Answer the requests of a JSON-lines file, several at a time."
    kind = argparse.RawDescriptionHelpFormatter
    parser = Parser(prog="completion batch", description=about, epilog=EPILOG, formatter_class=kind)
    parser.add_argument("source", metavar="IN.jsonl", help="the requests, one a line")
    parser.add_argument("-o", "--out", required=True, metavar="OUT.jsonl", help="the answers, one a line")
    parser.add_argument(
        "-m", "--model", metavar="FAMILY:MODEL", help="the model; default: $COMPLETION_MODEL, else local"
    )
    parser.add_argument("--base-url", metavar="URL", help="the server; default: the family's variable, else its own")
    parser.add_argument(
        "--concurrency", type=_positive, default=16, metavar="N", help="how many requests run at a time (default: 16)"
    )
    parser.add_argument(
        "--schema",
        metavar="FILE|MODULE:TYPE",
        help="each answer must be JSON that is valid for this JSON Schema, or for this Python type",
    )
    parser.add_argument("--retry-failed", action="store_true", help="send the requests again that failed in OUT")
    parser.add_argument("--dask", metavar="ADDRESS", help="the scheduler of a Dask cluster on which to run")
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of 1 or more, got {text!r}")
    return int(text)


def _answer(name: str | None) -> Answer | None:
    """What ``--schema`` asks for; None without it."""
    if name is None:
        return None
    try:
        return Answer(schema_of(name))
    except ValueError as error:
        raise Refused(f"--schema {error}") from error


def _check(source: Path, answer: Answer | None, model: str | None) -> tuple[dict[Key, str], list[str | None]]:
    """The digest of each id, and the names of the models. Raises Refused after all invalid lines are printed."""
    digests: dict[Key, str] = {}
    models: dict[str | None, None] = {}
    faults = []
    try:
        for line in read_lines(source, answer):
            if isinstance(line, str):
                faults.append(line)
            elif line.key in digests:
                faults.append(f"line {line.number}: an earlier line has the same id, {line.key!r}")
            else:
                digests[line.key] = line.digest
                models[None if model else line.model] = None
    except OSError as error:
        raise Refused(f"{source}: {error.strerror or error}") from error
    for fault in faults[:MAX_FAULTS]:
        tell(f"{source}: {fault}")
    if faults:
        lines = "1 invalid line" if len(faults) == 1 else f"{len(faults)} invalid lines"
        raise Refused(f"{source}: {lines}; no request was sent")
    return digests, [*models]


def _model(name: str | None, options: argparse.Namespace) -> ChatModel:
    """The model that a batch file names (of OpenAI, if the name has no family), else that of -m."""
    if name is not None and name.partition(":")[0] not in registry.families():
        name = f"openai:{name}"
    return make_model(argparse.Namespace(model=name or options.model, base_url=options.base_url))


def _run(
    source: Path,
    out: Path,
    answer: Answer | None,
    digests: dict[Key, str],
    models: dict[str | None, ChatModel],
    executor: Any,
    options: argparse.Namespace,
) -> int:
    retried = out.with_name(out.name + ".retry")
    output, again = _outputs(out, retried, digests)
    again_keys = set(output.failed) if options.retry_failed else set()
    todo = digests.keys() - (output.done - again_keys)
    progress = Progress(len(todo))
    failed = len(output.failed) - len(again_keys)
    code = OK
    not_set_up: ConfigurationError | None = None
    held = Held()
    try:
        with _ctrl_c_cancels() as token:
            for name, model in models.items():
                lines = _requests(source, answer, name, todo, bool(options.model))
                for result in run_batch(model, lines, options.concurrency, executor):
                    if isinstance(result.error, ConfigurationError):  # no request can be answered
                        not_set_up = not_set_up or result.error
                        token.cancel()  # the answers that ended are still written
                        continue
                    document = _document(result, digests[result.key], answer)
                    if document is None:
                        continue
                    failed += "error" in document
                    file = again if result.key in again_keys else output
                    held.append(file, document, was_sent=not isinstance(result.error, UnsupportedContentError))
                    usage = result.turn.usage if result.turn else None
                    progress.add(usage.output_tokens if usage else 0, failed="error" in document)
        if not_set_up is None:
            held.write()
            output.prepare()  # OUT must also exist if there was no request to send
    except StreamCancelledError:
        code = INTERRUPTED
    finally:
        progress.close()
        output.close()
        again.close()
        merge(out, retried)
    if not_set_up is not None:
        raise not_set_up
    if code == OK:
        tell(f"{len(digests) - failed} answered, {failed} failed" + ("; try --retry-failed" if failed else ""))
        return FAILED if failed else OK
    tell("interrupted; run the same command again to continue")
    return code


def _outputs(out: Path, retried: Path, digests: dict[Key, str]) -> tuple[Output, Output]:
    """OUT with the lines of an interrupted ``--retry-failed``, and the file for new ones."""
    # Before the merge, check that both files belong to this IN.
    Output(out, digests), Output(retried, digests)
    merge(out, retried)
    return Output(out, digests), Output(retried, digests)


def _requests(
    source: Path, answer: Answer | None, model: str | None, todo: set[Key], has_one_model: bool
) -> Iterator[tuple[Key, Any]]:
    """The requests for one model that have no line in OUT, or are to be sent again."""
    for line in read_lines(source, answer):
        if isinstance(line, Line) and line.key in todo and (has_one_model or line.model == model):
            yield line.key, line.request


def _document(result: BatchResult, digest: str, answer: Answer | None) -> dict[str, Any] | None:
    """The line for OUT; None if the request was cancelled."""
    error, turn = result.error, result.turn
    if isinstance(error, StreamCancelledError):
        return None
    if turn is not None and answer is not None:
        try:
            answer_in(turn, answer)
        except CompletionError as wrong:
            error = wrong
    head = {"id": result.key, "request": digest}
    if error is None and turn is not None:
        return {**head, "text": turn.text, "turn": turn.to_dict(), "seconds": round(result.seconds, 3)}
    assert error is not None
    facts = {"type": type(error).__name__, "message": error.message, "status": error.status, "code": error.code}
    return {**head, "error": facts, "seconds": round(result.seconds, 3)}


@contextmanager
def _ctrl_c_cancels() -> Iterator[CancelToken]:
    """In the block, Ctrl-C cancels the running requests. It does not raise, so that no arrived answer is lost."""
    with CancelToken() as token:
        before = signal.signal(signal.SIGINT, lambda *_: token.cancel())
        try:
            yield token
        finally:
            signal.signal(signal.SIGINT, before)
