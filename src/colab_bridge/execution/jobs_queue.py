"""A detached notebook whose next cells the runtime starts by itself while no daemon is there.

The ids of the requests follow from the run and the position of the cell, so whoever sends a cell, the daemon or the
runtime, sends the same request, and the kernel gets it once. What the runtime did meanwhile is in its journal as if the
daemon had done it; a daemon that comes back goes through the cells as always and finds their answers there.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import anyio

from colab_bridge.errors import ColabBridgeError
from colab_bridge.execution.assembler import request_id
from colab_bridge.execution.executor import execution_request
from colab_bridge.execution.notebook_file import NotebookFile, cell_source
from colab_bridge.execution.plan import tags_of
from colab_bridge.model.records import Run
from colab_bridge.ports.remote_queue import RemoteQueue
from colab_bridge.wire.message import RawMessage

__all__ = ["MAX_QUEUE_BYTES", "cell_request", "queued_requests", "with_queue"]

log = logging.getLogger(__name__)

#: One call to the runtime carries 2 MiB; code that is larger waits for the daemon.
MAX_QUEUE_BYTES = 1024 * 1024
_DROP_S = 5.0

_Result = TypeVar("_Result")


def cell_request(run_id: str, file: NotebookFile, position: int, *, allow_stdin: bool) -> RawMessage:
    """Return the request that executes a cell: the same each time it is asked for, but for its date."""
    cell = file.cells[position]
    return execution_request(
        request_id(run_id, position),
        cell_source(cell),
        session=run_id,
        allow_stdin=allow_stdin,
        metadata={"cellId": cell["id"]} if isinstance(cell.get("id"), str) else None,
    )


def queued_requests(
    run_id: str, file: NotebookFile, positions: Sequence[int], *, allow_stdin: bool, keep_going: bool
) -> list[RawMessage]:
    """Return the requests that the runtime may send by itself, in order.

    The runtime stops at an error, and does not know that a cell tagged ``raises-exception`` may fail. Unless the run
    goes on after any error, the list ends with the first such cell, and the daemon goes on behind it.

    Args:
        run_id: The run.
        file: Its notebook.
        positions: Cells that have not ended.
        allow_stdin: Whether they may ask for input; the question waits until a daemon is there.
        keep_going: Whether the run goes on after a cell that failed.
    """
    found: list[RawMessage] = []
    left = MAX_QUEUE_BYTES
    for position in positions:
        request = cell_request(run_id, file, position, allow_stdin=allow_stdin)
        left -= request.size_bytes
        if left < 0:
            break
        found.append(request)
        if not keep_going and "raises-exception" in tags_of(file.cells[position]):
            break
    return found


async def with_queue(
    queue: RemoteQueue | None,
    run: Run,
    requests: Sequence[RawMessage],
    execute: Callable[[], Awaitable[_Result]],
    *,
    keep_going: bool,
) -> _Result:
    """Execute a notebook while its cells lie ready on the runtime.

    A daemon that ends in the middle leaves them there, which is what they are for.

    Args:
        queue: The runtimes' queues; None without.
        run: The run.
        requests: See :func:`queued_requests`.
        execute: Goes through the cells.
        keep_going: Whether the run goes on after a cell that failed.

    Returns:
        What ``execute`` returns.
    """
    if queue is None or not requests:
        return await execute()
    left_there = False

    async def leave() -> None:
        nonlocal left_there
        try:
            if await queue.available(run.kernel):
                left_there = True
                await queue.put(run.kernel, run.id, requests, stop_on_error=not keep_going)
                log.info("cells left with the runtime", extra={"run": run.id, "cells": len(requests)})
        except ColabBridgeError as error:
            log.warning("cells not left with the runtime", extra={"run": run.id, "reason": error.message})

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(leave)
        result = await execute()
        tasks.cancel_scope.cancel()
    if left_there:
        await _take_back(queue, run)
    return result


async def _take_back(queue: RemoteQueue, run: Run) -> None:
    """Make sure that nothing of a run that has ended is started later."""
    try:
        with anyio.fail_after(_DROP_S):
            await queue.drop(run.kernel, run.id)
    except (ColabBridgeError, TimeoutError) as error:
        log.warning("queue of a run not taken back", extra={"run": run.id, "reason": str(error)[:200]})
