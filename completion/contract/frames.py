"""Tracebacks without secrets: the frames stay, their local variables are cleared.

Crash reporters show the local variables of each frame of a traceback. In our frames these are keys and prompts. An
exception that is not ours, such as KeyboardInterrupt or Celery's soft time limit, keeps its traceback when it leaves a
call, so its frames are cleared first.

Two rules follow, in every module that turns one exception into another:

1. Raise the new error *after* the ``except`` block. An error that is raised inside gets the caught exception as its
   ``__context__``, which leads to the response, the request and the key.
2. A frame that keeps an error in a local variable deletes the variable, in a ``finally`` if it raises the error. The
   error's traceback refers to the frame, and the frame refers to the error. In such a circle the frame, the stream and
   its connection live until the garbage collector runs. Without it they end with the error:

        try:
            raise failure
        finally:
            del failure
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
import signal
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import ParamSpec, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")

_OUR_FILES = str(Path(__file__).parents[1]) + os.sep


def is_ours(frame: FrameType) -> bool:
    """True if the frame runs code of this library."""
    return frame.f_code.co_filename.startswith(_OUR_FILES)


def clear_ours(exc: BaseException, code: object = None) -> None:
    """Clear the local variables of our frames in the traceback, and in those of its causes and contexts.

    A frame that is still running cannot be cleared and keeps its variables.

    ``code``: its frames are cleared too, even if they are not ours.
    """
    for one in chain(exc):
        for frame, _ in traceback.walk_tb(one.__traceback__):
            # Clearing a generator that is suspended at a yield would close it. A generator that raised `exc` has ended;
            # one in the traceback of a cause may still be in use.
            is_cleared = is_ours(frame) or frame.f_code is code
            if is_cleared and (one is exc or not frame.f_code.co_flags & inspect.CO_GENERATOR):
                _clear(frame)


def clear_all(exc: BaseException, handled: BaseException | None) -> None:
    """Clear the local variables of all frames in the traceback, and in those of its causes and contexts.

    Args:
        handled: the exception that the caller was handling before the call; its frames are left alone.
    """
    for one in chain(exc, end=handled):
        for frame, _ in traceback.walk_tb(one.__traceback__):
            _clear(frame)


def chain(exc: BaseException, *, end: BaseException | None = None) -> list[BaseException]:
    """The exception with its causes and contexts, each once; the search stops at ``end`` and leaves it out."""
    found: list[BaseException] = []
    todo: list[BaseException | None] = [exc]
    seen = {id(end)}
    while todo:
        one = todo.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            found.append(one)
            todo += [one.__cause__, one.__context__]
    return found


def is_from_signal_handler(exc: BaseException) -> bool:
    """True if a signal handler of the program raised it, such as that of Celery's soft time limit."""
    handlers = {getattr(signal.getsignal(number), "__code__", None) for number in signal.valid_signals()}
    return any(frame.f_code in handlers for frame, _ in traceback.walk_tb(exc.__traceback__))


def hide_arguments_in_tracebacks(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """Decorate a function whose arguments may contain a key: exceptions leave it with its frame and ours cleared."""

    @functools.wraps(function)
    def wrapper(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        try:
            return function(*args, **kwargs)
        except BaseException as exc:
            del args, kwargs  # this frame is running: clear_ours cannot clear it
            clear_ours(exc, getattr(function, "__code__", None))  # its frame may be a third party's
            raise

    return wrapper


def _clear(frame: FrameType) -> None:
    with contextlib.suppress(RuntimeError):  # the frame is running
        frame.clear()
