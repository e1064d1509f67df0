"""Writes lines to a file in a worker thread, so that a run does not wait for the disk.

    put(line) -> a bounded queue => worker thread: collect lines -> lock the file -> one write of whole lines

Several threads and several processes may write to one path. A file that was moved or removed is created again. Lines
that cannot be written are lost and counted; the next successful write adds a line with their number.

``put`` may run in a finalizer or a signal handler, in the middle of any code, this module included. So its only lock is
an RLock, which the same thread may take twice, and its queues are a deque and a SimpleQueue, which are reentrant.
"""

from __future__ import annotations

import logging
import os
import stat
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue
from typing import IO, Any

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger(__name__)

QUEUE_LINES = 10_000
QUEUE_CHARS = 8 * 1024 * 1024
"""The limits of the queue. A line is accepted as long as neither is reached, so one long line may exceed the second."""

GATHER_S = 0.05
"""How long the worker thread collects lines before it writes. Waking it for each line costs more than the line."""

FLUSH_S = 1.0
ROOM_S = 0.05
"""How long a run waits at most: FLUSH_S at its end, for its lines to be in the file; ROOM_S when the queue is full.
After one such wait has timed out, no run waits again until a write succeeds."""


class Writer:
    """Writes lines. After its creation, it never raises.

    Args:
        target: a path, or a file open for text or bytes, which is not closed.
        lost_line: returns the line that says how many lines were lost.

    Raises:
        OSError: the path cannot be opened.
        TypeError: the target is neither a path nor a file.
    """

    def __init__(self, target: str | os.PathLike[str] | IO[Any], lost_line: Callable[[int], str]) -> None:
        self.lost = 0
        self._target = _PathTarget(target) if isinstance(target, str | os.PathLike) else _FileTarget(target)
        self._lost_line = lost_line
        self._lost_reported = 0
        self._has_logged = False
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.RLock()
        # A lock in the queue is a marker: it is released when all lines before it are written.
        self._queue: deque[str | threading.Lock] = deque()
        self._queued_chars = 0
        self._wakeups: SimpleQueue[None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._is_idle = True  # the thread waits for a line: ``put`` must wake it
        self._is_urgent = False  # the thread writes without collecting more lines
        self._is_stuck = False  # a wait has timed out, and no write has succeeded since
        self._is_closed = False

    def put(self, line: str) -> None:
        """Queue a line, which includes its line end."""
        queue = self._queue
        if len(queue) >= QUEUE_LINES or self._queued_chars >= QUEUE_CHARS or self._is_closed:
            self._wait(ROOM_S)
            if len(queue) >= QUEUE_LINES or self._queued_chars >= QUEUE_CHARS or self._is_closed:
                self._lose(1)
                return
        queue.append(line)
        self._queued_chars += len(line)  # not exact between threads; _write resets it
        if self._is_idle:
            self._wake()
        elif len(queue) == QUEUE_LINES // 2:
            self.write_now()

    def write_now(self) -> None:
        """Write the queued lines now, without collecting more."""
        self._is_urgent = True
        self._wakeups.put(None)

    def flush(self) -> None:
        """Wait until all queued lines are in the file, at most FLUSH_S."""
        self._wait(FLUSH_S)

    def close(self) -> None:
        """Flush; lines that are put later are lost. In a forked child this does nothing: the lines are the parent's."""
        if self._is_closed or self._pid != os.getpid():
            return
        self._is_stuck = False  # the last chance: wait even if the file did not accept lines before
        self.flush()
        self._is_closed = True
        if self._thread is None:
            self._target.close()
        else:
            self.write_now()

    def after_fork(self) -> None:
        """Called in a forked child: it has no copy of the thread, and the queued lines are the parent's."""
        self._reset()
        self._target.after_fork()

    def _wait(self, seconds: float) -> None:
        """Wait until all lines that are in the queue now are written; return at once if the file accepts no lines."""
        if self._is_stuck or self._is_closed or self._pid != os.getpid():
            return
        if self._thread is threading.current_thread():  # a finalizer that runs in the worker thread
            return
        marker = threading.Lock()
        marker.acquire()
        self._queue.append(marker)
        self._wake()
        self.write_now()
        self._is_stuck = not marker.acquire(timeout=seconds)

    def _lose(self, count: int) -> None:
        with self._lock:
            self.lost += count

    # The worker thread

    def _wake(self) -> None:
        self._is_idle = False
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="completion-tracer", daemon=True)
                try:
                    self._thread.start()
                except RuntimeError:  # the system has no more threads, or the interpreter is exiting: write here
                    self._thread = None
                    self._write()
                    self._is_idle = True
        self._wakeups.put(None)

    def _work(self) -> None:
        while not self._is_closed:
            self._is_idle = True
            while not (self._queue or self._is_closed):
                self._wakeups.get()
            self._is_idle = False
            if not self._is_urgent:
                with suppress(Empty):
                    self._wakeups.get(timeout=GATHER_S)
            self._is_urgent = False
            self._write()
        self._write()
        self._target.close()

    def _write(self) -> None:
        queued = [self._queue.popleft() for _ in range(len(self._queue))]
        self._queued_chars = 0
        lines = [item for item in queued if isinstance(item, str)]
        lost = self.lost - self._lost_reported
        written = self._write_lines([*lines, self._lost_line(lost)] if lost else lines)
        if written > len(lines):
            self._lost_reported += lost
        self._lose(max(len(lines) - written, 0))
        self._is_stuck = False
        for item in queued:
            if not isinstance(item, str):
                item.release()

    def _write_lines(self, lines: list[str]) -> int:
        """Write the lines, and return how many of them are in the file."""
        if not lines:
            return 0
        data = "".join(lines).encode()
        try:
            self._target.write(data)
        except Exception as error:  # the file object is not ours: it may raise anything
            if not self._has_logged:
                self._has_logged = True
                log.warning("JsonTracer: the trace cannot be written, lines are lost: %s", error)
            return data[: self._target.written].count(b"\n")
        return len(lines)


class _PathTarget:
    """A path, to which other processes may write too. Of a line that does not fit on the disk, nothing stays."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = os.path.abspath(path)
        self._file = self._open()
        self.written = 0

    def write(self, data: bytes) -> None:
        """Write whole lines. If it raises, ``written`` is the number of bytes that are in the file."""
        self.written = 0
        self._reopen_if_moved()
        with _locked(self._file):
            if self._ends_inside_line():
                os.write(self._file, b"\n")  # or our first line would become part of the broken one
            begin = os.fstat(self._file).st_size
            try:
                with memoryview(data) as view:
                    while self.written < len(data):
                        self.written += os.write(self._file, view[self.written :])
            except OSError:
                self._remove_torn_line(data, begin)
                raise

    def _remove_torn_line(self, data: bytes, begin: int) -> None:
        """A full disk took a part of the last line: remove that part, unless another program wrote behind it."""
        whole = data.rfind(b"\n", 0, self.written) + 1
        with suppress(OSError):
            if self.written > whole and os.fstat(self._file).st_size == begin + self.written:
                os.ftruncate(self._file, begin + whole)
                self.written = whole

    def after_fork(self) -> None:
        """Close the inherited file and open it again later: a lock would be shared with the parent."""
        self.close()

    def close(self) -> None:
        file, self._file = self._file, -1
        if file >= 0:
            os.close(file)

    def _open(self) -> int:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
        return os.open(self._path, flags, 0o666)

    def _reopen_if_moved(self) -> None:
        with suppress(OSError):
            if self._file >= 0 and os.path.samestat(os.stat(self._path), os.fstat(self._file)):
                return
        self.close()
        self._file = self._open()

    def _ends_inside_line(self) -> bool:
        """Whether the file ends inside a line: a process was killed while it wrote."""
        if not stat.S_ISREG(os.fstat(self._file).st_mode) or os.lseek(self._file, 0, os.SEEK_END) == 0:
            return False
        os.lseek(self._file, -1, os.SEEK_END)
        return os.read(self._file, 1) != b"\n"


class _FileTarget:
    """A file object of the caller."""

    def __init__(self, file: IO[Any]) -> None:
        if not callable(getattr(file, "write", None)):
            raise TypeError(
                f"JsonTracer: target must be a path or a file that is open for writing, got {type(file).__name__}"
            )
        self._file = file
        self.written = 0
        try:
            file.write("")  # a binary file raises TypeError
            self._is_text = True
        except TypeError:
            self._is_text = False

    def write(self, data: bytes) -> None:
        self.written = 0
        if self._is_text:
            self._file.write(data.decode())
        else:
            while self.written < len(data):
                count = self._file.write(data[self.written :])  # unbuffered files write a part
                self.written += count if isinstance(count, int) else len(data)
        flush = getattr(self._file, "flush", None)
        if flush is not None:
            flush()

    def after_fork(self) -> None:
        pass

    def close(self) -> None:
        pass


@contextmanager
def _locked(file: int) -> Iterator[None]:
    """Hold the lock of the file, so that lines of different processes do not mix.

    O_APPEND alone is not enough: the system may write a part of the bytes, and other bytes may follow before the rest.
    When a process is killed, the system releases its lock.
    """
    if fcntl is not None:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX)
    try:
        yield
    finally:
        if fcntl is not None:
            with suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_UN)
