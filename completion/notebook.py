"""Show a stream in a notebook. No other module imports IPython; the extra ``notebook`` installs it.

    turn = show(model.chat_stream(request))

The thread of the cell reads the stream, so interrupting the kernel interrupts the reading. A second thread draws.
"""

from __future__ import annotations

import json
import re
import sys
from collections import deque
from collections.abc import Iterable
from contextlib import ExitStack
from contextvars import copy_context
from threading import Event, Thread
from types import TracebackType
from typing import TYPE_CHECKING, Any, overload

from completion.contract.chunks import StreamChunk
from completion.contract.collect import TurnSoFar
from completion.contract.errors import ConfigurationError
from completion.contract.markdown import fenced
from completion.contract.packages import install_command
from completion.contract.turn import Turn
from completion.contract.values import ValueStream, ValueT
from completion.engine import RunResult, RunStream
from completion.terminal import harmless, showable

if TYPE_CHECKING:
    from IPython.display import DisplayHandle

# Each update sends the whole text again. So a short text is drawn ten times a second, and a long one less often: the
# limit of characters a second suits a notebook that is opened over a slow network.
_INTERVAL_SECONDS = 0.1
_CHARACTERS_PER_SECOND = 400_000

# An image of the model, as its message shows it in Markdown. A terminal would print the bytes.
_IMAGE = re.compile(r"^!\[image\]\(data:(image/[a-z]+);base64,[A-Za-z0-9+/=]+\)$", re.MULTILINE)


@overload
def show(stream: RunStream) -> RunResult: ...  # type: ignore[overload-overlap]  # a RunStream is also an Iterable of chunks
@overload
def show(stream: ValueStream[ValueT]) -> ValueT: ...
@overload
def show(stream: Iterable[StreamChunk]) -> Turn: ...
def show(stream: Iterable[Any]) -> Any:
    """Show the answer as Markdown while it arrives, and return the turn: ``turn = show(model.chat_stream(request))``.
    Of a run, show all turns and return the RunResult. Of ``structured(…)``, show the growing JSON and return the value.

    Reasoning is shown as a quotation. If the turn does not end normally, a note below the text says so. In a terminal
    the text is printed as it arrives. The stream is closed at every end.

    Raises:
        CompletionError: as ``collect()`` does; the text so far stays visible, and ``partial`` is the Turn so far.
        KeyboardInterrupt: the kernel was interrupted; the connection is closed, and the text so far stays visible.
        ConfigurationError: IPython is not installed.
        TypeError: the stream is asynchronous, or not a stream.
    """
    if any(hasattr(stream, name) for name in ("__aiter__", "__await__")):
        raise TypeError(
            f"show() takes a blocking stream, got {type(stream).__name__}; use the model "
            "without AsyncModel: show(model.chat_stream(request))"
        )
    if isinstance(stream, str) or not hasattr(stream, "__iter__"):
        raise TypeError(f"show() takes the stream of chat_stream() or run_chat(), got {type(stream).__name__}")
    with ExitStack() as stack:
        stack.callback(getattr(stream, "close", _nothing))
        if isinstance(stream, ValueStream):
            output = _output()
            values = stack.enter_context(_Page(output, _Value(is_terminal=isinstance(output, _Terminal))))
            for value in stream:
                values.chunks.append(value)
            return stream.value
        page = stack.enter_context(_Page(_output(), _Answer()))
        so_far = stack.enter_context(TurnSoFar(accepts_runs=True))
        for chunk in stream:
            so_far.add(chunk)
            page.chunks.append(chunk)
    if so_far.run is None:
        return so_far.turn()
    return stream.result_of(so_far.run) if isinstance(stream, RunStream) else RunResult.of(so_far.run)


def _nothing() -> None:
    pass


def _plain(text: str) -> str:
    """The text for a terminal, without control codes and with a label for each image."""
    return harmless(_IMAGE.sub(r"[\1]", text))


class _Answer:
    """What a page shows of chunks: the turn so far.

    The page has its own TurnSoFar, because that of ``show()`` is not safe to read while another thread adds to it.
    """

    def __init__(self) -> None:
        self._turn = TurnSoFar(accepts_runs=True)

    def add(self, chunk: StreamChunk) -> None:
        self._turn.add(chunk)

    def text(self, *, is_over: bool) -> str:
        turn = self._turn.turn()
        return turn._repr_markdown_() if is_over else turn.message._repr_markdown_()


class _Value:
    """What a page shows of growing values: the last one, as JSON. In a terminal only at the end: JSON does not grow at
    its end alone."""

    def __init__(self, *, is_terminal: bool) -> None:
        self._is_terminal = is_terminal
        self._value: Any = None
        self._has_begun = False

    def add(self, value: Any) -> None:
        self._value, self._has_begun = value, True

    def text(self, *, is_over: bool) -> str:
        if not self._has_begun or (self._is_terminal and not is_over):
            return ""
        shown = json.dumps(self._value, ensure_ascii=False, indent=2)
        return shown if self._is_terminal else fenced(shown, "json")


class _Page:
    """Draws the content in a thread of its own, so that the last text is shown also while the stream is silent.

    ``chunks`` are the chunks that are not drawn yet.
    """

    def __init__(self, output: _Output | _Terminal, content: _Answer | _Value) -> None:
        self.chunks: deque[Any] = deque()
        self._content = content
        self._output = output
        self._is_over = Event()
        context = copy_context()  # ipykernel keeps there which cell the output belongs to
        self._thread = Thread(target=context.run, args=(self._draw_repeatedly,), name="completion-show", daemon=True)

    def __enter__(self) -> _Page:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over.set()
        self._thread.join()
        self._output.draw(self._text(is_over=True))
        self._output.end()

    def _draw_repeatedly(self) -> None:
        interval_seconds = _INTERVAL_SECONDS
        while not self._is_over.wait(interval_seconds):
            if self.chunks:
                text = self._text(is_over=False)
                self._output.draw(text)
                interval_seconds = max(_INTERVAL_SECONDS, len(text) / _CHARACTERS_PER_SECOND)

    def _text(self, *, is_over: bool) -> str:
        """The content with all chunks until now."""
        while self.chunks:
            self._content.add(self.chunks.popleft())
        return self._content.text(is_over=is_over)


def _output() -> _Output | _Terminal:
    """The output of the current cell, or the terminal if this process is not a notebook kernel.

    Raises:
        ConfigurationError: IPython is not installed.
    """
    try:
        from IPython.core.displaypub import DisplayPublisher
        from IPython.core.interactiveshell import InteractiveShell
        from IPython.display import DisplayHandle
    except ImportError as exc:
        install = install_command("ipykernel")
        raise ConfigurationError(f"show() needs IPython ({exc}); run: {install}") from exc
    if InteractiveShell.initialized():
        publisher = InteractiveShell.instance().display_pub
        # The base class belongs to IPython in a terminal. It prints, and would print each update as a new text.
        if type(publisher).publish is not DisplayPublisher.publish:
            return _Output(DisplayHandle())
    return _Terminal()


class _Output:
    """One updatable part of a cell's output."""

    def __init__(self, handle: DisplayHandle) -> None:
        self._handle = handle
        self._drawn = ""

    def draw(self, text: str) -> None:
        """Show this text and remove the one before."""
        if text != self._drawn:
            draw = self._handle.update if self._drawn else self._handle.display
            # A console shows the plain form, and a console is a terminal: without control codes.
            draw({"text/markdown": text, "text/plain": _plain(text)}, raw=True)
            self._drawn = text

    def end(self) -> None:
        pass


class _Terminal:
    """A terminal. Printed text cannot be replaced, so only the new end of the text is printed."""

    def __init__(self) -> None:
        self._length = 0

    def draw(self, text: str) -> None:
        text = _plain(text)
        print(showable(text[self._length :], sys.stdout), end="", flush=True)
        self._length = len(text)

    def end(self) -> None:
        print()
