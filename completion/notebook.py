"""A stream on the page of a notebook: the only door to IPython, which the extra ``notebook`` brings.

    turn = show(model.chat_stream(request))

The cell's thread reads the stream, so that interrupting the kernel interrupts the reading; a second one draws.
"""

from __future__ import annotations

import shlex
import sys
from collections import deque
from collections.abc import Iterable
from contextlib import ExitStack
from contextvars import copy_context
from threading import Event, Thread
from types import TracebackType
from typing import TYPE_CHECKING, overload

from completion.contract.chunks import StreamChunk
from completion.contract.errors import ConfigurationError
from completion.contract.turn import Turn, TurnSoFar
from completion.engine import RunResult, RunStream
from completion.terminal import harmless, showable

if TYPE_CHECKING:
    from IPython.display import DisplayHandle

# The page is drawn as a whole: ten times a second while it is short, and a long one seldom enough for a slow network.
_INTERVAL_SECONDS = 0.1
_CHARACTERS_PER_SECOND = 400_000


@overload
def show(stream: RunStream) -> RunResult: ...  # type: ignore[overload-overlap]  # a run is a stream with more to it
@overload
def show(stream: Iterable[StreamChunk]) -> Turn: ...
def show(stream: Iterable[StreamChunk]) -> Turn | RunResult:
    """Show the answer while it grows, as Markdown, and return the turn: ``turn = show(model.chat_stream(request))``.
    Of a run it shows all turns, and returns what the run came to.

    Reasoning stands apart, as a quotation. A turn that did not end well says so below its last word. In a terminal the
    text is printed as it comes. The stream is closed, however it ends.

    Raises:
        CompletionError: as ``collect()`` does; what came stays on the page, and ``partial`` is the Turn so far.
        KeyboardInterrupt: the kernel was interrupted; the connection is closed, and what came stays on the page.
        ConfigurationError: IPython is not installed.
        TypeError: the stream is asynchronous.
    """
    if any(hasattr(stream, name) for name in ("__aiter__", "__await__")):
        raise TypeError(
            f"show() takes a blocking stream, got {type(stream).__name__}; in a notebook use the plain model, "
            "without AsyncModel: show(model.chat_stream(request))"
        )
    if isinstance(stream, str) or not hasattr(stream, "__iter__"):
        raise TypeError(f"show() takes what chat_stream() or run_chat() gives, got {type(stream).__name__}")
    with ExitStack() as stack:
        stack.callback(getattr(stream, "close", _nothing))
        page = stack.enter_context(_Page(_output()))
        so_far = stack.enter_context(TurnSoFar(takes_runs=True))
        for chunk in stream:
            so_far.add(chunk)
            page.chunks.append(chunk)
    return so_far.turn() if so_far.run is None else RunResult.of(so_far.run)


def _nothing() -> None:
    pass


class _Page:
    """Has the turn so far drawn by a thread of its own: what came is seen also while nothing comes after it.

    ``chunks`` are those that are not drawn yet. They add up to the same turn once more, because looking at one that
    grows divides its texts.
    """

    def __init__(self, output: _Output | _Terminal) -> None:
        self.chunks: deque[StreamChunk] = deque()
        self._turn = TurnSoFar(takes_runs=True)
        self._output = output
        self._is_over = Event()
        here = copy_context()  # which cell the output belongs to
        self._thread = Thread(target=here.run, args=(self._draw_while_it_grows,), name="completion-show", daemon=True)

    def __enter__(self) -> _Page:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over.set()
        self._thread.join()
        self._output.draw(self._take()._repr_markdown_())
        self._output.end()

    def _draw_while_it_grows(self) -> None:
        interval_seconds = _INTERVAL_SECONDS
        while not self._is_over.wait(interval_seconds):
            if self.chunks:
                text = self._take().message._repr_markdown_()
                self._output.draw(text)
                interval_seconds = max(_INTERVAL_SECONDS, len(text) / _CHARACTERS_PER_SECOND)

    def _take(self) -> Turn:
        while self.chunks:
            self._turn.add(self.chunks.popleft())
        return self._turn.turn()


def _output() -> _Output | _Terminal:
    """Where this process shows things.

    Raises:
        ConfigurationError: IPython is not installed.
    """
    try:
        from IPython.core.displaypub import DisplayPublisher
        from IPython.core.interactiveshell import InteractiveShell
        from IPython.display import DisplayHandle
    except ImportError as exc:
        install = shlex.join([sys.executable, "-m", "pip", "install", "ipykernel"])
        raise ConfigurationError(f"show() needs IPython ({exc}); run: {install}") from exc
    if InteractiveShell.initialized():
        publisher = InteractiveShell.instance().display_pub
        if type(publisher).publish is not DisplayPublisher.publish:  # that one prints, and prints an update once more
            return _Output(DisplayHandle())
    return _Terminal()


class _Output:
    """A place in the output of a cell."""

    def __init__(self, handle: DisplayHandle) -> None:
        self._handle = handle
        self._drawn = ""

    def draw(self, text: str) -> None:
        """Show this text in the place of the one before."""
        if text != self._drawn:
            draw = self._handle.update if self._drawn else self._handle.display
            # The plain form is for a console, which is a terminal.
            draw({"text/markdown": text, "text/plain": harmless(text)}, raw=True)
            self._drawn = text

    def end(self) -> None:
        pass


class _Terminal:
    """A terminal, where nothing is taken back: of a text that grows, it prints what is new."""

    def __init__(self) -> None:
        self._length = 0

    def draw(self, text: str) -> None:
        text = harmless(text)
        print(showable(text[self._length :], sys.stdout), end="", flush=True)
        self._length = len(text)

    def end(self) -> None:
        print()
