"""Waiting for an awaitable from a worker thread."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextlib import suppress
from typing import Any

from completion.contract.cancel import CancelToken
from completion.contract.errors import stream_cancelled
from completion.offload.aio import T


def run_awaitable(awaitable: Awaitable[T], token: CancelToken) -> T:
    """Run it to its end in this thread, in a loop of its own; a cancelled token cancels it.

    Raises:
        StreamCancelledError: the token was cancelled.
    """

    async def main() -> T:
        task, loop = asyncio.ensure_future(awaitable), asyncio.get_running_loop()
        forget = token.on_cancel(lambda: _cancel_from_any_thread(loop, task))
        if token.cancelled:
            task.cancel()  # before its first step
        try:
            return await task
        except asyncio.CancelledError:
            if token.cancelled:
                raise stream_cancelled(None, None) from None
            raise
        finally:
            forget()

    return asyncio.run(main())


def _cancel_from_any_thread(loop: asyncio.AbstractEventLoop, task: asyncio.Future[Any]) -> None:
    with suppress(RuntimeError):  # the loop is closed
        loop.call_soon_threadsafe(task.cancel)
