"""Waiting for an awaitable from a worker thread, and for a blocking call from an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from contextlib import suppress
from contextvars import copy_context
from typing import Any, TypeVar

from completion.contract.cancel import CancelToken
from completion.contract.errors import ConfigurationError, stream_cancelled

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


async def run_blocking(call: Callable[[], T], executor: Executor) -> T:
    """What the call returns. It runs in a worker, with this task's context variables. Cancelling the task cancels it.

    Raises:
        ConfigurationError: the executor accepts no jobs.
        StreamCancelledError: the CancelToken around this call was cancelled.
    """
    token, unbind = CancelToken.bound_to_current()

    def run() -> T:
        with token:
            return call()

    try:
        try:
            future = executor.submit(copy_context().run, run)
        except RuntimeError as exc:
            raise ConfigurationError(f"no worker thread could be started for the call: {exc}") from exc
        return await asyncio.wrap_future(future)
    except asyncio.CancelledError:
        token.cancel()
        raise
    finally:
        unbind()


def cancel_from_any_thread(loop: asyncio.AbstractEventLoop, task: asyncio.Future[Any]) -> None:
    """Cancel a task of this loop. Does nothing when the loop is closed."""
    with suppress(RuntimeError):  # raised by a closed loop
        loop.call_soon_threadsafe(task.cancel)
