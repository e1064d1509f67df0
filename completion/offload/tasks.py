"""Waiting for an awaitable from a worker thread."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextlib import suppress
from typing import Any, TypeVar

from completion.contract.cancel import CancelToken
from completion.contract.errors import stream_cancelled

T = TypeVar("T")


def run_awaitable(awaitable: Awaitable[T], token: CancelToken) -> T:
    """Run the awaitable in this thread, in a new event loop, and return its result. Cancelling ``token`` cancels it.

    Raises:
        StreamCancelledError: the token was cancelled.
    """

    async def main() -> T:
        task, loop = asyncio.ensure_future(awaitable), asyncio.get_running_loop()
        remove_callback = token.on_cancel(lambda: cancel_from_any_thread(loop, task))
        if token.cancelled:
            task.cancel()  # directly, so that the task does not even begin
        try:
            return await task
        except asyncio.CancelledError:
            if token.cancelled:
                raise stream_cancelled(None, None) from None
            raise
        finally:
            remove_callback()

    return asyncio.run(main())


def cancel_from_any_thread(loop: asyncio.AbstractEventLoop, task: asyncio.Future[Any]) -> None:
    """Cancel a task of this loop. Does nothing when the loop is closed."""
    with suppress(RuntimeError):  # raised by a closed loop
        loop.call_soon_threadsafe(task.cancel)
