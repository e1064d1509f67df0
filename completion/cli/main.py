"""The command line: ask once, talk in the terminal, look at a trace, or list the families of models.

completion "Why is the sky blue?"
git diff | completion -m openai:gpt-4o-mini "Write a commit message"
completion chat --tools home:lights,heating --trace trace.jsonl
completion trace trace.jsonl
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from importlib import import_module
from operator import attrgetter
from types import FrameType
from typing import NoReturn, TypeAlias

from completion import registry
from completion.contract.cancel import CancelToken
from completion.contract.chunks import (
    ReasoningDelta,
    StreamChunk,
    TextDelta,
    ToolCallFinished,
    ToolCallMalformed,
    TurnFinished,
    Usage,
)
from completion.contract.errors import (
    CompletionError,
    ConfigurationError,
    ProviderError,
    StreamCancelledError,
    StreamError,
    TransportError,
    UnsupportedContentError,
)
from completion.contract.messages import Block, TextBlock
from completion.contract.request import ChatRequest
from completion.contract.run import RunFinished, ToolResult
from completion.engine import Conversation, Middleware, Tool, run_chat, tool
from completion.terminal import harmless, harmless_json, one_line, terminal_width
from completion.tracing import JsonTracer, timeline
from completion.version import __version__

OK = 0
FAILED = 1
WRONG_USAGE = 2
INTERRUPTED = 130
BROKEN_PIPE = 141

# The first class that fits counts.
EXIT_CODES: tuple[tuple[type[CompletionError], int, str], ...] = (
    (ConfigurationError, 3, "not set up: no key, unknown family, missing extra"),
    (UnsupportedContentError, 3, ""),
    (ProviderError, 4, "the provider refused"),
    (TransportError, 5, "the network failed, or a timeout is over"),
    (StreamError, 6, "the answer broke off or could not be read"),
    (StreamCancelledError, INTERRUPTED, ""),
)

_DIM, _PLAIN = "\x1b[2m", "\x1b[0m"

_End: TypeAlias = TurnFinished | RunFinished


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    # What the shell could not decode is replaced: no provider takes half a character.
    arguments = [os.fsencode(word).decode("utf-8", "replace") for word in (sys.argv[1:] if argv is None else argv)]
    _open_streams()
    logging.getLogger("completion").addHandler(logging.NullHandler())  # what is of interest is shown here
    try:
        code = _run(arguments)
        sys.stdout.flush()  # here, where a failure can still be told
        return code
    except CompletionError as error:
        return _report(error)
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone.
        _silence_stdout()
        return BROKEN_PIPE
    except OSError as error:
        _silence_stdout()
        _tell(f"the output cannot be written: {error.strerror or error}")
        return FAILED


def _run(arguments: list[str]) -> int:
    """The first word may be a command; so may the only one that is no option."""
    first, rest = arguments[:1], arguments[1:]
    if first == ["models"] and not rest:
        return _models()
    if first == ["chat"] and all(word.startswith("-") for word in rest[:1]):
        return _chat(rest)
    if first == ["trace"] and sum(not word.startswith("-") for word in rest) <= 1:
        return _trace(rest)
    return _ask(arguments)


def _open_streams() -> None:
    """Streams that are closed become empty ones; none of them fails on a character that it cannot show."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115  it lives as long as the process
        with suppress(AttributeError, ValueError):  # not a stream that can be told
            getattr(sys, name).reconfigure(errors="replace")


def _silence_stdout() -> None:
    """What is still buffered must not fail once more at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


# --- ask once ----------------------------------------------------------------------------------------------------


def _ask(arguments: Sequence[str]) -> int:
    parser = _parser("completion", "Print a language model's answer as it is written.", _more_help())
    parser.add_argument("prompt", nargs="*", metavar="PROMPT", help="the question; '-' or nothing reads it from stdin")
    parser.add_argument("--json", action="store_true", help="print each chunk as a line of JSON")
    parser.add_argument("--version", action="version", version=f"completion {__version__}")
    options = parser.parse_args(arguments)
    if options.prompt in (["chat"], ["models"]) and "--" not in arguments:
        if options.prompt == ["models"]:
            return _models()
        return _chat([word for word in arguments if word != "chat"])
    prompt = _prompt(options.prompt)
    if not prompt.strip():
        parser.error("there is no prompt: give one as an argument or on stdin")
    model = registry.model(options.model)
    with _refusing(parser):
        request = ChatRequest(prompt, options.max_tokens, system_prompt=options.system, temperature=options.temperature)
    tools = _tools(parser, options)
    with _tracing(parser, options) as middleware:
        is_run = tools or middleware
        stream = run_chat(model, request, tools, middleware) if is_run else model.chat_stream(request)
        with closing(stream):
            end = _print_json(stream) if options.json else _Screen().show(stream)
    _report_end(end, options, is_noted=not options.json)
    return OK


def _prompt(words: list[str]) -> str:
    """The question. With both an argument and a pipe, the pipe holds the material that the question is about."""
    question = " ".join(word for word in words if word != "-")
    if sys.stdin.isatty() and "-" not in words:
        return question
    material = _stdin()
    if not question:
        return material
    return f"{material.rstrip()}\n\n{question}" if material.strip() else question


def _stdin() -> str:
    return sys.stdin.buffer.read().decode("utf-8", "replace")


def _print_json(chunks: Iterable[StreamChunk]) -> _End | None:
    end = None
    is_terminal = sys.stdout.isatty()
    for chunk in chunks:
        line = chunk.to_json()
        print(harmless_json(line) if is_terminal else line, flush=True)
        end = chunk if isinstance(chunk, _End) else end
    return end


# --- chat --------------------------------------------------------------------------------------------------------


def _chat(arguments: Sequence[str]) -> int:
    about = "Talk with a model. Ctrl-C stops the answer, Ctrl-D or /quit ends, /clear forgets what was said."
    parser = _parser("completion chat", about, _exit_code_table())
    options = parser.parse_args(arguments)
    tools = _tools(parser, options)
    with _tracing(parser, options) as middleware:
        with _refusing(parser):  # a bad option is told before the first question
            new = Conversation(
                registry.model(options.model),
                system_prompt=options.system,
                tools=tools,
                middleware=middleware,
                max_tokens=options.max_tokens,
                temperature=options.temperature,
            )
        return _talk(new, options)


def _talk(new: Conversation, options: argparse.Namespace) -> int:
    """Question after question; returns the exit code."""
    is_terminal = sys.stdin.isatty()
    if is_terminal:
        with suppress(ImportError):  # line editing and history; Windows has none
            import readline  # noqa: F401
        who = one_line(f"{new.model.name}:{new.model.model}")
        print(f"{who} - Ctrl-C stops the answer, Ctrl-D ends", file=sys.stderr)
    conversation = new.fork()
    failure = OK
    while True:
        try:
            line = input("> " if is_terminal else "").strip()
        except EOFError:
            break
        except KeyboardInterrupt:
            print(file=sys.stderr)
            continue
        if line == "/quit":
            break
        if line == "/clear":
            conversation = new.fork()
        elif line:
            failure = _exchange(conversation, line, options) or failure
    if is_terminal:
        print(file=sys.stderr)
    return OK if is_terminal else failure


def _exchange(conversation: Conversation, line: str, options: argparse.Namespace) -> int:
    """One question and its answer, and its exit code. What a failed answer has said is forgotten."""
    try:
        with _ctrl_c_cancels(), closing(conversation.stream(line)) as run:
            end = _Screen().show(run)
    except CompletionError as error:
        return _report(error)
    except KeyboardInterrupt:
        print("\n(stopped)", file=sys.stderr)
        return OK
    _report_end(end, options, is_noted=True)
    return OK


@contextmanager
def _ctrl_c_cancels() -> Iterator[None]:
    """Ctrl-C ends the runs that are begun inside, which keeps what they have said; a second one breaks them off."""
    token = CancelToken()

    def interrupted(number: int, frame: FrameType | None) -> None:
        if token.cancelled:
            raise KeyboardInterrupt
        token.cancel()

    before = signal.signal(signal.SIGINT, interrupted)
    try:
        with token:
            yield
    finally:
        signal.signal(signal.SIGINT, before)


# --- trace -------------------------------------------------------------------------------------------------------


def _trace(arguments: Sequence[str]) -> int:
    parser = _Parser(
        prog="completion trace",
        description="Show the runs of a trace, which --trace or a JsonTracer wrote, as timelines.",
        epilog="One run of many:  grep run_5f0c trace.jsonl | completion trace -",
    )
    parser.add_argument("file", metavar="FILE", help="the trace; '-' reads it from stdin")
    parser.add_argument("-f", "--follow", action="store_true", help="wait for more, and show each run when it ends")
    options = parser.parse_args(arguments)
    try:
        file = sys.stdin.buffer if options.file == "-" else open(options.file, "rb")  # noqa: SIM115
    except OSError as error:
        parser.error(f"{options.file} cannot be read: {error.strerror or error}")
    with file:
        if not timeline.show(file, sys.stdout, follow=options.follow):
            _tell("there is no run in it")
    return OK


# --- models ------------------------------------------------------------------------------------------------------


def _models() -> int:
    """List the families of models, the variable of each one's key, and whether it is set."""
    rows = [("FAMILY", "KEY", "STATE")]
    for name in registry.families():
        try:
            variable = getattr(registry.family(name), "key_variable", None)
        except ConfigurationError as error:
            rows.append((name, "-", str(error)))
            continue
        state = "needs no key" if variable is None else "set" if os.environ.get(variable) else "not set"
        rows.append((name, variable or "-", state))
    for family, key, state in rows:
        print(one_line(f"{family:<16} {key:<24} {state}"))
    return OK


# --- what they share ---------------------------------------------------------------------------------------------


class _Screen:
    """Prints text as it arrives; on a terminal also, dim, what the model thinks and what its tools do."""

    def __init__(self) -> None:
        self._is_terminal = sys.stdout.isatty()
        self._dim, self._plain = ("", "") if os.environ.get("NO_COLOR") else (_DIM, _PLAIN)
        self._in_reasoning = False
        self._at_line_start = True
        self._names: dict[str, str] = {}

    def show(self, chunks: Iterable[StreamChunk]) -> _End | None:
        """Print the chunks; returns the end of it. The terminal is left plain whatever happens."""
        end: _End | None = None
        try:
            for chunk in chunks:
                match chunk:
                    case TextDelta(delta):
                        self._leave_reasoning()
                        self._write(delta)
                    case ReasoningDelta(delta) if self._is_terminal:
                        self._enter_reasoning()
                        self._write(delta)
                    case ToolCallFinished(call_id, name, args):
                        self._names[call_id] = name
                        self._note(f"{name}({', '.join(f'{key}={_as_json(value)}' for key, value in args.items())})")
                    case ToolCallMalformed(call_id, name, raw):
                        self._names[call_id] = name
                        self._note(f"{name}({raw}")
                    case ToolResult(call_id=call_id, blocks=blocks, is_error=is_error):
                        outcome = f"{'failed: ' if is_error else ''}{_as_text(blocks)}"
                        self._note(f"-> {self._names.get(call_id, call_id)}: {outcome}")
                    case TurnFinished():
                        self._end_line()
                        end = chunk
                    case RunFinished():
                        end = chunk
        finally:
            self._end_line()
        return end

    def _write(self, text: str) -> None:
        if text:
            self._at_line_start = text.endswith("\n")
        sys.stdout.write(harmless(text) if self._is_terminal else text)
        sys.stdout.flush()

    def _note(self, text: str) -> None:
        """A line of its own, no longer than the terminal is wide; none elsewhere."""
        if self._is_terminal:
            self._end_line()
            line, width = one_line(text), terminal_width()
            shown = line if len(line) < width else f"{line[: width - 4]}..."
            sys.stdout.write(f"{self._dim}{shown}{self._plain}\n")
            sys.stdout.flush()

    def _end_line(self) -> None:
        self._leave_reasoning()
        if not self._at_line_start:
            self._write("\n")

    def _enter_reasoning(self) -> None:
        if not self._in_reasoning:
            self._in_reasoning = True
            sys.stdout.write(self._dim)

    def _leave_reasoning(self) -> None:
        if self._in_reasoning:
            self._in_reasoning = False
            sys.stdout.write(f"{self._plain}\n\n")
            self._at_line_start = True


def _as_json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _as_text(blocks: Iterable[Block]) -> str:
    return " ".join(block.text if isinstance(block, TextBlock) else type(block).__name__ for block in blocks)


class _Parser(argparse.ArgumentParser):
    """Repeats what it refuses without its control codes."""

    def error(self, message: str) -> NoReturn:
        super().error(one_line(message))


def _parser(name: str, about: str, epilog: str) -> _Parser:
    parser = _Parser(prog=name, description=about, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    default = os.environ.get("COMPLETION_MODEL") or "local"
    add("-m", "--model", default=default, metavar="FAMILY:MODEL", help="default: $COMPLETION_MODEL, else local")
    add("-s", "--system", metavar="TEXT", help="system prompt")
    add("--max-tokens", type=int, default=4096, metavar="N", help="cap of the answer (default: 4096)")
    add("--temperature", type=float, metavar="T", help="how much chance there is in it")
    add("--tools", action="append", metavar="MODULE:FUNCTION,...", help="functions that the model may call")
    add("--trace", metavar="FILE", help="add what happens to FILE, as lines of JSON; see completion trace")
    add("--usage", action="store_true", help="say on stderr how many tokens it took")
    return parser


def _more_help() -> str:
    more = "other commands:\n  completion chat    talk in the terminal\n  completion trace   show a trace\n"
    more += "  completion models  list the families\n"
    more += "A prompt that is one of these words: completion -- chat\n"
    pipe = "A prompt as well as a pipe: the pipe holds the material.  git diff | completion 'Explain this'\n"
    pipe += "In a loop over stdin, give it another one:  completion 'Hi' </dev/null\n"
    return f"{more}\n{pipe}\n{_exit_code_table()}"


def _exit_code_table() -> str:
    rows = [(OK, "the answer is complete"), (FAILED, "the output cannot be written"), (WRONG_USAGE, "wrong usage")]
    rows += [(code, meaning) for _, code, meaning in EXIT_CODES if meaning]
    rows += [(INTERRUPTED, "interrupted by Ctrl-C"), (BROKEN_PIPE, "the reader of the output went away")]
    return "exit codes:\n" + "\n".join(f"  {code:<4} {meaning}" for code, meaning in rows)


@contextmanager
def _refusing(parser: argparse.ArgumentParser) -> Iterator[None]:
    """A ValueError inside is about an option."""
    try:
        yield
    except ValueError as error:
        parser.error(str(error))


def _tools(parser: argparse.ArgumentParser, options: argparse.Namespace) -> list[Tool]:
    """The functions that --tools names; plain typed ones become tools.

    Modules of the current folder are found as well, behind those that are installed: a file there stands in for none.
    """
    found: dict[str, Tool] = {}
    for words in options.tools or ():
        module, _, names = words.partition(":")
        if not module or not names:
            parser.error(f"--tools takes module:function, or module:function,function; got {words!r}")
        folder = os.path.abspath(os.curdir)
        if folder not in sys.path:
            sys.path.append(folder)
        for name in names.split(","):
            try:
                function = attrgetter(name)(import_module(module))
                one = function if isinstance(function, Tool) else tool(function)
            except CompletionError:
                raise
            except Exception as error:  # whatever the module does when it is imported
                parser.error(f"--tools {module}:{name}: {_hidden(module) or f'{type(error).__name__}: {error}'}")
            if found.setdefault(one.name, one) is not one:
                parser.error(f"--tools: two tools have the name {one.name!r}")
    return [*found.values()]


def _hidden(module: str) -> str | None:
    """Says so where the current folder has a module of that name, and Python took another one."""
    first = module.partition(".")[0]
    own = next((path for path in (f"{first}.py", first) if os.path.exists(path)), None)
    taken = sys.modules.get(first)
    if own is None or taken is None:
        return None
    folders = [getattr(taken, "__file__", None) or "", *getattr(taken, "__path__", ())]
    if any(os.path.abspath(own) in (folder, os.path.dirname(folder)) for folder in folders):
        return None
    return f"{first!r} is the name of an installed module, which comes before ./{own}; rename that one"


@contextmanager
def _tracing(parser: argparse.ArgumentParser, options: argparse.Namespace) -> Iterator[list[Middleware]]:
    """The middleware that --trace asks for."""
    if options.trace is None:
        yield []
        return
    try:
        tracer = JsonTracer(options.trace)
    except OSError as error:
        parser.error(f"--trace {options.trace}: {error.strerror or error}")
    with tracer:
        yield [tracer]


def _tell(text: str) -> None:
    """A line of the command's own on stderr; a part of it may be what a server said."""
    print(f"completion: {one_line(text)}", file=sys.stderr)


def _report(error: CompletionError) -> int:
    """One line on stderr; returns the exit code."""
    _tell(str(error))
    return next((code for kind, code, _ in EXIT_CODES if isinstance(error, kind)), FAILED)


def _report_end(end: _End | None, options: argparse.Namespace, *, is_noted: bool) -> None:
    """What the text does not show: why it ended, where that is not plain, and what it cost."""
    if end is None:
        return
    abort = end.abort if isinstance(end, RunFinished) else None
    if abort is not None and abort.kind == "cancelled":
        print("(stopped)", file=sys.stderr)
    elif is_noted and end.reason not in ("end_turn", "stop_sequence"):
        why = f"--max-tokens {options.max_tokens}" if end.reason == "max_tokens" else end.reason
        _tell(f"the answer stopped early: {abort.message if abort else why}")
    if options.usage:
        print(_usage_line(end.usage), file=sys.stderr)


def _usage_line(usage: Usage | None) -> str:
    if usage is None or usage == Usage():
        return "tokens: the provider did not say"
    cached = f" ({usage.cached_input_tokens} from the cache)" if usage.cached_input_tokens else ""
    thought = f" ({usage.reasoning_tokens} of them reasoning)" if usage.reasoning_tokens else ""
    return f"tokens: {usage.input_tokens} in{cached}, {usage.output_tokens} out{thought}"
