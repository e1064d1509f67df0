"""Lines on their way to a file, through a thread of its own: whoever writes one never waits for a disk.

    put(line) -> a bounded queue => writer thread: gather -> lock -> one write of whole lines

Several threads and several processes may write one path. A file that was moved or removed is opened anew. What cannot
be written is lost and counted, and the next write that succeeds says how many lines that were.

No lock that a finalizer or a signal handler could find taken is held while a line is put.
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
"""What may wait at a time, an estimate; a line is taken as long as it is not reached."""

GATHER_S = 0.05
"""So long the thread lets lines come together: waking it for each would cost more than the line."""

FLUSH_S = 1.0
ROOM_S = 0.05
"""So long a run waits, at most: at its end, until its lines are in the file, and in its midst, when the queue is full.
While the file takes nothing, nobody waits for it a second time."""


class Writer:
    """Writes lines, and never raises.

    Args:
        target: a path, or a file open for text or bytes, which stays open.
        lost_line: makes the line that tells how many were lost.

    Raises:
        OSError: the path cannot be opened.
        TypeError: it is neither a path nor a file.
    """

    def __init__(self, target: str | os.PathLike[str] | IO[Any], lost_line: Callable[[int], str]) -> None:
        self.lost = 0
        self._target = _Path(target) if isinstance(target, str | os.PathLike) else _Object(target)
        self._lost_line = lost_line
        self._lost_told = 0
        self._has_logged = False
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._queue: deque[str | threading.Lock] = deque()  # a lock is released when all before it is written
        self._size = 0
        self._bell: SimpleQueue[None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._is_idle = True
        self._is_urgent = False
        self._is_stuck = False
        self._is_closed = False

    def put(self, line: str) -> None:
        """Have a line written, with its line end."""
        queue = self._queue
        if len(queue) >= QUEUE_LINES or self._size >= QUEUE_CHARS or self._is_closed:
            self._wait(ROOM_S)
            if len(queue) >= QUEUE_LINES or self._size >= QUEUE_CHARS or self._is_closed:
                self._lose(1)
                return
        queue.append(line)
        self._size += len(line)  # not exact between threads, and right again whenever the queue is empty
        if self._is_idle:
            self._wake()
        elif len(queue) == QUEUE_LINES // 2:
            self.hurry()

    def hurry(self) -> None:
        """Write what waits without gathering more."""
        self._is_urgent = True
        self._bell.put(None)

    def flush(self) -> None:
        """Wait until all lines are in the file, FLUSH_S at most."""
        self._wait(FLUSH_S)

    def close(self) -> None:
        """Flush, and take no more. In a forked child there is nothing to do: what waits is the parent's."""
        if self._is_closed or self._pid != os.getpid():
            return
        self._is_stuck = False  # the last chance is worth a wait
        self.flush()
        self._is_closed = True
        if self._thread is None:
            self._target.close()
        else:
            self.hurry()

    def start_anew(self) -> None:
        """In a forked child: the thread is the parent's, and so is what waited."""
        self._begin()
        self._target.start_anew()

    def _wait(self, seconds: float) -> None:
        """Until all that is in the queue now is written; not while the thread hangs in a write."""
        if self._is_stuck or self._is_closed or self._pid != os.getpid():
            return
        if self._thread is threading.current_thread():  # a finalizer, inside of our own thread
            return
        gate = threading.Lock()
        gate.acquire()
        self._queue.append(gate)
        self._wake()
        self.hurry()
        self._is_stuck = not gate.acquire(timeout=seconds)

    def _lose(self, count: int) -> None:
        with self._lock:
            self.lost += count

    # The thread

    def _wake(self) -> None:
        self._is_idle = False
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="completion-tracer", daemon=True)
                try:
                    self._thread.start()
                except RuntimeError:  # the system gives no more threads, or Python is about to end
                    self._thread = None
                    self._write()
                    self._is_idle = True
        self._bell.put(None)

    def _work(self) -> None:
        while not self._is_closed:
            self._is_idle = True
            while not (self._queue or self._is_closed):
                self._bell.get()
            self._is_idle = False
            if not self._is_urgent:
                with suppress(Empty):
                    self._bell.get(timeout=GATHER_S)
            self._is_urgent = False
            self._write()
        self._write()
        self._target.close()

    def _write(self) -> None:
        waiting = [self._queue.popleft() for _ in range(len(self._queue))]
        self._size = 0
        lines = [item for item in waiting if isinstance(item, str)]
        lost = self.lost - self._lost_told
        written = self._written([*lines, self._lost_line(lost)] if lost else lines)
        if written > len(lines):
            self._lost_told += lost
        self._lose(max(len(lines) - written, 0))
        self._is_stuck = False
        for item in waiting:
            if not isinstance(item, str):
                item.release()

    def _written(self, lines: list[str]) -> int:
        """How many of the lines are in the file now."""
        if not lines:
            return 0
        data = "".join(lines).encode()
        try:
            self._target.write(data)
        except Exception as error:  # a file of somebody else's may raise anything
            if not self._has_logged:
                self._has_logged = True
                log.warning("the trace cannot be written, lines of it are lost: %s", error)
            return data[: self._target.written].count(b"\n")
        return len(lines)


class _Path:
    """A file by its name, which other processes write as well."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = os.path.abspath(path)
        self._file = self._open()
        self.written = 0

    def write(self, data: bytes) -> None:
        """One write, of whole lines; ``written`` bytes of it are there also where it fails."""
        self.written = 0
        self._reopen_if_moved()
        with _locked(self._file):
            if self._is_torn():
                os.write(self._file, b"\n")
            with memoryview(data) as view:
                while self.written < len(data):
                    self.written += os.write(self._file, view[self.written :])

    def start_anew(self) -> None:
        """With an open file of its own: the parent's shares its lock."""
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

    def _is_torn(self) -> bool:
        """Whether a writer was killed in the midst of the last line."""
        if not stat.S_ISREG(os.fstat(self._file).st_mode) or os.lseek(self._file, 0, os.SEEK_END) == 0:
            return False
        os.lseek(self._file, -1, os.SEEK_END)
        return os.read(self._file, 1) != b"\n"


class _Object:
    """A file object of somebody else's."""

    def __init__(self, file: IO[Any]) -> None:
        if not callable(getattr(file, "write", None)):
            raise TypeError(f"a trace goes to a path or to a file that is open for writing, got {type(file).__name__}")
        self._file = file
        self.written = 0
        try:
            file.write("")
            self._is_text = True
        except TypeError:
            self._is_text = False

    def write(self, data: bytes) -> None:
        self.written = 0
        if self._is_text:
            self._file.write(data.decode())
        else:
            while self.written < len(data):
                count = self._file.write(data[self.written :])
                self.written += count if isinstance(count, int) else len(data)
        flush = getattr(self._file, "flush", None)
        if flush is not None:
            flush()

    def start_anew(self) -> None:
        pass

    def close(self) -> None:
        pass


@contextmanager
def _locked(file: int) -> Iterator[None]:
    """No other process writes meanwhile: O_APPEND keeps writes apart where they are whole, and this where they are not.

    The system takes the lock from a process that is killed.
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
