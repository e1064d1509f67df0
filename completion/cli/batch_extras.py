"""The extras of the command ``batch``: a progress bar (extra ``batch``) and a cluster (extra ``dask``)."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from typing import Any, Final, cast

from completion.cli.report import tell
from completion.contract.errors import ConfigurationError
from completion.contract.packages import install_command

_INTERVAL_S: Final = 10.0


class Progress:
    """A progress bar on stderr: done, failed, tokens per second, time left. Without tqdm, a line every ten seconds."""

    def __init__(self, total: int) -> None:
        self.failed = self.tokens = self.done = 0
        self.total = total
        self._begin = self._told_at = time.monotonic()
        try:
            from tqdm import tqdm
        except ImportError:
            self._bar: Any = None
            return
        # In a file or a pipe, a line every ten seconds is enough.
        interval = 0.2 if sys.stderr.isatty() else _INTERVAL_S
        self._bar = tqdm(total=total, unit="req", file=sys.stderr, mininterval=interval, dynamic_ncols=True)

    def add(self, tokens: int, *, failed: bool) -> None:
        """Count one finished request."""
        self.failed += failed
        self.tokens += tokens
        self.done += 1
        if self._bar is None:
            self._tell()
        else:
            seconds = self._bar.format_dict["elapsed"] or 1
            self._bar.set_postfix(failed=self.failed, tokens_per_s=round(self.tokens / seconds), refresh=False)
            self._bar.update()

    def _tell(self) -> None:
        now = time.monotonic()
        if now - self._told_at < _INTERVAL_S:
            return
        self._told_at = now
        seconds = now - self._begin
        left = seconds / self.done * (self.total - self.done)
        tell(
            f"{self.done} of {self.total} done, {self.failed} failed, {self.tokens / seconds:.0f} tokens/s,"
            f" {left:.0f} s left"
        )

    def close(self) -> None:
        """End the bar. It stays visible."""
        if self._bar is not None:
            self._bar.close()


@contextmanager
def cluster(address: str | None) -> Iterator[Executor | None]:
    """The executor of the Dask cluster at this address; None without an address.

    Raises:
        ConfigurationError: the package is missing, or no scheduler answers.
    """
    if address is None:
        yield None
        return
    try:
        from distributed import Client
    except ImportError as error:
        command = install_command("distributed")
        raise ConfigurationError(f"--dask needs the package distributed ({error}); run: {command}") from error
    try:
        client = Client(address, timeout=10)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"--dask {address}: no scheduler answers there ({error})") from error
    with client:
        yield cast(Executor, client.get_executor())
