"""What a crash reporter may see of our calls: the frames of a traceback stay, their local variables go.

An exception that is not ours, such as KeyboardInterrupt or Celery's soft time limit, leaves a call as it is. Keys and
prompts are local variables of the frames that it came through.
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
    """It runs code of this library."""
    return frame.f_code.co_filename.startswith(_OUR_FILES)


def clear_ours(exc: BaseException, code: object = None) -> None:
    """Clear the local variables of our own frames, also in its causes and contexts. Running frames keep theirs.

    ``code``: a code object whose frames are cleared as well, whoever wrote it.
    """
    for one in chain(exc):
        for frame, _ in traceback.walk_tb(one.__traceback__):
            # Clearing a generator that waits at a yield would close it. Those that `exc` itself left are over.
            is_meant = is_ours(frame) or frame.f_code is code
            if is_meant and (one is exc or not frame.f_code.co_flags & inspect.CO_GENERATOR):
                _clear(frame)


def clear_all(exc: BaseException, handled: BaseException | None) -> None:
    """Clear the local variables of all frames, also in its causes and contexts. Running frames keep theirs.

    ``handled``: what the caller was handling at the beginning; it keeps its own.
    """
    for one in chain(exc, end=handled):
        for frame, _ in traceback.walk_tb(one.__traceback__):
            _clear(frame)


def chain(exc: BaseException, *, end: BaseException | None = None) -> list[BaseException]:
    """The exception, its causes and contexts, without ``end`` and what only ``end`` leads to."""
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
    """A signal handler of the program raised it, as that of Celery's soft time limit does."""
    handlers = {getattr(signal.getsignal(number), "__code__", None) for number in signal.valid_signals()}
    return any(frame.f_code in handlers for frame, _ in traceback.walk_tb(exc.__traceback__))


def secretive(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """Let no exception leave the function with its local variables or those of our frames: they may hold a key."""

    @functools.wraps(function)
    def wrapper(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        try:
            return function(*args, **kwargs)
        except BaseException as exc:
            del args, kwargs
            clear_ours(exc, getattr(function, "__code__", None))  # it may be the constructor of another's adapter
            raise

    return wrapper


def _clear(frame: FrameType) -> None:
    with contextlib.suppress(RuntimeError):  # it is running
        frame.clear()
