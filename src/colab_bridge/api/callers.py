"""Callers that hang up while something is being done for them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio
from starlette.requests import Request

from colab_bridge.sessions.starts import caller_is

__all__ = ["with_caller"]

_T = TypeVar("_T")


async def with_caller(request: Request, work: Callable[[], Awaitable[_T]]) -> _T:
    """Do something for a caller; a machine that is waited for is given up when the caller hangs up.

    What has begun to run goes on, as it always does.

    Args:
        request: The caller's; its body has been read.
        work: What is to be done.

    Returns:
        What the work returns.
    """
    gone = anyio.Event()
    result: list[_T] = []
    failure: list[Exception] = []

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        gone.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch)
        with caller_is(gone):
            try:
                result.append(await work())
            # Raised again outside, because a task group would wrap it.
            except Exception as error:  # noqa: BLE001
                failure.append(error)
        tasks.cancel_scope.cancel()
    if failure:
        raise failure[0]
    return result[0]
