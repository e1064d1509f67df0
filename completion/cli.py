"""The command line: ask once, talk in the terminal, or list the families of models.

completion "Why is the sky blue?"
git diff | completion -m openai:gpt-4o-mini "Write a commit message"
completion chat
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Sequence
from contextlib import closing, suppress

from completion import registry
from completion.contract.chunks import ReasoningDelta, StreamChunk, TextDelta, TurnFinished, Usage
from completion.contract.messages import Message
from completion.contract.model import CompletionModel
from completion.contract.request import ChatRequest
from completion.errors import (
    CompletionError,
    ConfigurationError,
    ProviderError,
    StreamCancelledError,
    StreamError,
    TransportError,
    UnsupportedContentError,
)
from completion.terminal import harmless
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


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    # What the shell could not decode is replaced: no provider takes half a character.
    arguments = [os.fsencode(word).decode("utf-8", "replace") for word in (sys.argv[1:] if argv is None else argv)]
    _open_streams()
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
        print(f"completion: the output cannot be written: {error.strerror or error}", file=sys.stderr)
        return FAILED


def _run(arguments: list[str]) -> int:
    """The first word may be a command; so may the only one that is no option."""
    first, rest = arguments[:1], arguments[1:]
    if first == ["models"] and not rest:
        return _models()
    if first == ["chat"] and all(word.startswith("-") for word in rest[:1]):
        return _chat(rest)
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
    with closing(model.chat_stream(_request(parser, options, [Message.user(prompt)]))) as stream:
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


def _print_json(chunks: Iterable[StreamChunk]) -> TurnFinished | None:
    end = None
    for chunk in chunks:
        print(chunk.to_json(), flush=True)
        end = chunk if isinstance(chunk, TurnFinished) else end
    return end


# --- chat --------------------------------------------------------------------------------------------------------


def _chat(arguments: Sequence[str]) -> int:
    about = "Talk with a model. Ctrl-C stops the answer, Ctrl-D or /quit ends, /clear forgets what was said."
    parser = _parser("completion chat", about, _exit_code_table())
    options = parser.parse_args(arguments)
    _request(parser, options, [Message.user("?")])  # a bad option is told before the first question
    model = registry.model(options.model)
    is_terminal = sys.stdin.isatty()
    if is_terminal:
        with suppress(ImportError):  # line editing and history; Windows has none
            import readline  # noqa: F401
        print(f"{model.name}:{model.model} - Ctrl-C stops the answer, Ctrl-D ends", file=sys.stderr)
    history: list[Message] = []
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
            history.clear()
        elif line:
            failure = _turn(parser, options, model, history, line) or failure
    if is_terminal:
        print(file=sys.stderr)
    return OK if is_terminal else failure


def _turn(
    parser: argparse.ArgumentParser,
    options: argparse.Namespace,
    model: CompletionModel,
    history: list[Message],
    line: str,
) -> int:
    """One question and its answer, and its exit code. Both stay in the history, unless nothing was answered."""
    code = OK
    screen = _Screen()
    request = _request(parser, options, [*history, Message.user(line)])
    end = None
    try:
        with closing(model.chat_stream(request)) as stream:
            end = screen.show(stream)
    except KeyboardInterrupt:
        print("\n(stopped)", file=sys.stderr)
    except CompletionError as error:
        code = _report(error)
    if screen.text:
        history += [Message.user(line), Message.assistant(screen.text)]
    _report_end(end, options, is_noted=True)
    return code


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
        print(f"{family:<16} {key:<24} {state}")
    return OK


# --- what they share ---------------------------------------------------------------------------------------------


class _Screen:
    """Prints text as it arrives, reasoning dim and on a terminal only; ``text`` is what was said."""

    def __init__(self) -> None:
        self._is_terminal = sys.stdout.isatty()
        self._dim = _DIM if self._is_terminal and not os.environ.get("NO_COLOR") else ""
        self._in_reasoning = False
        self._parts: list[str] = []

    @property
    def text(self) -> str:
        return "".join(self._parts)

    def show(self, chunks: Iterable[StreamChunk]) -> TurnFinished | None:
        """Print the chunks; returns the end of the turn. The terminal is left plain whatever happens."""
        end = None
        try:
            for chunk in chunks:
                match chunk:
                    case TextDelta(delta):
                        self._leave_reasoning()
                        self._parts.append(delta)
                        self._write(delta)
                    case ReasoningDelta(delta) if self._is_terminal:
                        self._enter_reasoning()
                        self._write(delta)
                    case TurnFinished():
                        end = chunk
        finally:
            self._leave_reasoning()
            if self._parts and not self._parts[-1].endswith("\n"):
                self._write("\n")
        return end

    def _write(self, text: str) -> None:
        sys.stdout.write(harmless(text) if self._is_terminal else text)
        sys.stdout.flush()

    def _enter_reasoning(self) -> None:
        if not self._in_reasoning:
            self._in_reasoning = True
            sys.stdout.write(self._dim)

    def _leave_reasoning(self) -> None:
        if self._in_reasoning:
            self._in_reasoning = False
            sys.stdout.write(f"{_PLAIN if self._dim else ''}\n\n")


def _parser(name: str, about: str, epilog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=name, description=about, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    default = os.environ.get("COMPLETION_MODEL") or "local"
    add("-m", "--model", default=default, metavar="FAMILY:MODEL", help="default: $COMPLETION_MODEL, else local")
    add("-s", "--system", metavar="TEXT", help="system prompt")
    add("--max-tokens", type=int, default=4096, metavar="N", help="cap of the answer (default: 4096)")
    add("--temperature", type=float, metavar="T", help="how much chance there is in it")
    add("--usage", action="store_true", help="say on stderr how many tokens it took")
    return parser


def _more_help() -> str:
    more = "other commands:\n  completion chat    talk in the terminal\n  completion models  list the families\n"
    more += "A prompt that is one of these words: completion -- chat\n"
    pipe = "A prompt as well as a pipe: the pipe holds the material.  git diff | completion 'Explain this'\n"
    pipe += "In a loop over stdin, give it another one:  completion 'Hi' </dev/null\n"
    return f"{more}\n{pipe}\n{_exit_code_table()}"


def _exit_code_table() -> str:
    rows = [(OK, "the answer is complete"), (FAILED, "the output cannot be written"), (WRONG_USAGE, "wrong usage")]
    rows += [(code, meaning) for _, code, meaning in EXIT_CODES if meaning]
    rows += [(INTERRUPTED, "interrupted by Ctrl-C"), (BROKEN_PIPE, "the reader of the output went away")]
    return "exit codes:\n" + "\n".join(f"  {code:<4} {meaning}" for code, meaning in rows)


def _request(parser: argparse.ArgumentParser, options: argparse.Namespace, messages: list[Message]) -> ChatRequest:
    try:
        return ChatRequest(
            messages,
            max_tokens=options.max_tokens,
            system_prompt=options.system,
            temperature=options.temperature,
        )
    except ValueError as error:
        parser.error(str(error))


def _report(error: CompletionError) -> int:
    """One line on stderr; returns the exit code."""
    print(f"completion: {' '.join(str(error).split())}", file=sys.stderr)
    return next((code for kind, code, _ in EXIT_CODES if isinstance(error, kind)), FAILED)


def _report_end(end: TurnFinished | None, options: argparse.Namespace, *, is_noted: bool) -> None:
    """What the text does not show: why it ended, where that is not plain, and what it cost."""
    if end is None:
        return
    if is_noted and end.reason not in ("end_turn", "stop_sequence"):
        why = f"--max-tokens {options.max_tokens}" if end.reason == "max_tokens" else end.reason
        print(f"completion: the answer stopped early: {why}", file=sys.stderr)
    if options.usage:
        print(_usage_line(end.usage), file=sys.stderr)


def _usage_line(usage: Usage | None) -> str:
    if usage is None:
        return "tokens: the provider did not say"
    cached = f" ({usage.cached_input_tokens} from the cache)" if usage.cached_input_tokens else ""
    thought = f" ({usage.reasoning_tokens} of them reasoning)" if usage.reasoning_tokens else ""
    return f"tokens: {usage.input_tokens} in{cached}, {usage.output_tokens} out{thought}"
