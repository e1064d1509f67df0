"""The packages of the extras ``batch`` (a progress bar) and ``dask`` (a cluster)."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from typing import Any, cast

from completion.contract.errors import ConfigurationError
from completion.contract.packages import install_command


class Progress:
    """A bar on stderr: done, failed, tokens a second, time left. Without tqdm it shows nothing."""

    def __init__(self, total: int) -> None:
        self.failed = self.tokens = 0
        try:
            from tqdm import tqdm
        except ImportError:
            self._bar: Any = None
            return
        # Into a file or pipe, a line every ten seconds is enough.
        interval = 0.2 if sys.stderr.isatty() else 10.0
        self._bar = tqdm(total=total, unit="req", file=sys.stderr, mininterval=interval, dynamic_ncols=True)

    def add(self, tokens: int, *, failed: bool) -> None:
        """One request ended."""
        self.failed += failed
        self.tokens += tokens
        if self._bar is not None:
            seconds = self._bar.format_dict["elapsed"] or 1
            self._bar.set_postfix(failed=self.failed, tokens_per_s=round(self.tokens / seconds), refresh=False)
            self._bar.update()

    def close(self) -> None:
        """Leave the bar as it is."""
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
