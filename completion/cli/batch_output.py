"""Reads and writes OUT, the output file of a batch, and locks it against a second run.

The process may be killed at any moment. At worst, OUT then ends with an incomplete line, which the next run removes.
With ``--retry-failed``, new answers first go to OUT.retry. It is merged into OUT by a rename, so OUT never has two
lines for one id.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Final

from completion.cli.batch_lines import Key

_BEGIN: Final = b'{"id":'


class Refused(Exception):
    """The files do not belong together, or another run uses them. No request was sent and no file changed."""


class Output:
    """A file of answers. It is read once, and then lines are appended."""

    def __init__(self, path: Path, digests: dict[Key, str]) -> None:
        self.path = path
        self.failed: set[Key] = set()
        self.done: set[Key] = set()
        self.end = 0
        """The size of the complete lines. The bytes after them are an incomplete line."""
        self.lacks_line_end = False
        for number, raw, document in _documents(path):
            if document is None:
                break
            key, digest = document.get("id"), document.get("request")
            if isinstance(key, list | dict) or digests.get(key) != digest or digest is None:  # type: ignore[arg-type]
                raise Refused(f"{path}: line {number} belongs to another IN; give another -o, or the same IN")
            if key in self.done:
                raise Refused(f"{path}: line {number} repeats the id {key!r}; remove one of the two lines")
            self.done.add(key)  # type: ignore[arg-type]
            if "error" in document:
                self.failed.add(key)  # type: ignore[arg-type]
            self.end += len(raw)
            self.lacks_line_end = not raw.endswith(b"\n")
        self._file: IO[bytes] | None = None

    def append(self, document: dict[str, Any]) -> None:
        """Write one line.

        Raises:
            OSError: it cannot be written, for example because the disk is full. The file then ends after the last line.
        """
        if self._file is None:
            self._open()
        assert self._file is not None
        line = json.dumps(document).encode() + b"\n"
        rest = memoryview(line)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError:
            with suppress(OSError):
                self._file.truncate(self.end)
            raise
        self.end += len(line)

    def _open(self) -> None:
        """Open the file for appending, and remove an incomplete line at its end."""
        self._file = self.path.open("ab", buffering=0)
        self._file.truncate(self.end)
        if self.lacks_line_end:
            self._file.write(b"\n")
            self.end += 1

    def prepare(self) -> None:
        """Create the file, or remove an incomplete line at its end."""
        if self._file is None:
            self._open()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


class Held:
    """Lines that say nothing about the setup: a request that the provider does not support is never sent.

    They wait until another line is written, because without a key OUT must not be touched.
    """

    MOST: Final = 1000
    """So many lines wait at most: a whole IN of unsupported requests must not fill the memory."""

    def __init__(self) -> None:
        self._lines: list[tuple[Output, dict[str, Any]]] = []
        self._is_set_up = False

    def append(self, file: Output, document: dict[str, Any], *, was_sent: bool) -> None:
        """Write the line, or let it wait."""
        self._lines.append((file, document))
        self._is_set_up = self._is_set_up or was_sent or len(self._lines) > self.MOST
        if self._is_set_up:
            self.write()

    def write(self) -> None:
        """Write the lines that wait."""
        lines, self._lines = self._lines, []
        for file, document in lines:
            file.append(document)


def merge(out: Path, retried: Path) -> None:
    """Replace the lines of OUT with those of ``retried`` that have the same id, by one rename."""
    if not retried.exists():
        return
    new = {document["id"]: raw for _, raw, document in _documents(retried) if document is not None}
    temporary = out.with_name(out.name + ".tmp")
    with temporary.open("wb") as file:
        if out.exists():
            os.chmod(temporary, out.stat().st_mode & 0o777)
            for _, raw, document in _documents(out):
                if document is not None:
                    file.write(new.pop(document["id"], raw).rstrip(b"\n") + b"\n")
        for raw in new.values():
            file.write(raw.rstrip(b"\n") + b"\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, out)
    retried.unlink()


def _documents(path: Path) -> Iterator[tuple[int, bytes, dict[str, Any] | None]]:
    """Number, bytes and value of each line. The value is None for an incomplete last line.

    Raises:
        Refused: a line other than the last is not JSON.
    """
    if not path.exists():
        return
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            try:
                document = json.loads(raw)
            except ValueError:
                document = None
            if not isinstance(document, dict) or "id" not in document:
                is_torn = document is None and not raw.endswith(b"\n") and (number > 1 or _is_ours(raw))
                if not is_torn:
                    raise Refused(f"{path}: line {number} was not written by completion batch; give another -o")
                document = None
            yield number, raw, document


def _is_ours(raw: bytes) -> bool:
    """Whether this may be the beginning of a line that we wrote. A power failure may leave NUL bytes in its place."""
    text = raw.rstrip(b"\0").replace(b" ", b"")
    return text.startswith(_BEGIN) or _BEGIN.startswith(text)


@contextmanager
def lock(out: Path) -> Iterator[None]:
    """Hold the lock of OUT while the block runs. The system releases it when the process dies.

    Raises:
        Refused: another process holds it, or the folder cannot be written.
    """
    path = out.with_name(out.name + ".lock")
    while True:
        try:
            file = path.open("ab")
        except OSError as error:
            raise Refused(f"-o {out}: nothing can be written to its folder: {error.strerror or error}") from error
        try:
            _take(file)
            # The process that had the lock may have removed this file, and another process may have made a new one.
            if _is_same(file, path):
                break
        except OSError as error:
            file.close()
            raise Refused(f"{out}: another run is writing to it; wait until it ends") from error
        file.close()
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink()
        file.close()


def _is_same(file: IO[bytes], path: Path) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    return False


if sys.platform == "win32":
    import msvcrt

    def _take(file: IO[bytes]) -> None:
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _take(file: IO[bytes]) -> None:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
