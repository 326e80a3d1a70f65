"""Completes the notebook of a front end that went away while a cell was running.

A front end writes what it shows, so what comes after it has gone would be in no file. As long as nobody shows a cell
that still runs, its outputs are put into the notebook from the kernel's record: everything since the cell was
sent, once and in order, into that cell and no other. A front end that comes back as the same process takes over again;
a new one finds the file complete.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import anyio
import anyio.abc
import anyio.lowlevel
import anyio.to_thread

from colab_bridge.errors import ColabBridgeError, UserError
from colab_bridge.execution.notebook_file import CATCH_UP_S, NotebookFile, SaveReport
from colab_bridge.execution.orphans import Executions, Orphan, OrphanAssembler, at_home, notebook_of, places
from colab_bridge.kernels.hub import HubKernel
from colab_bridge.kernels.record import EntryKind, MessageRecord
from colab_bridge.model.records import KernelRecord
from colab_bridge.wire.jupyter_ws import decode_v1
from colab_bridge.wire.message import MessageError, RawMessage

__all__ = ["NotebookRepair", "survey"]

log = logging.getLogger(__name__)

#: How far back unfinished requests are looked for first; then ten times as far, until the record begins.
FIRST_LOOK_ENTRIES = 5_000
#: What a front end that merely lost its connection gets to come back before anything is written.
PATIENCE_S = 1.0


class NotebookRepair:
    """Writes the outputs of orphaned cells into their notebooks.

    Args:
        tasks: Owner of the tasks that follow kernels.
        save_interval_s: Seconds between two saves while outputs come.
        collapse_progress: Keep only what a terminal would show of overwritten lines.
        tell: Called with one sentence when a notebook cannot be completed.
    """

    def __init__(
        self,
        tasks: anyio.abc.TaskGroup,
        *,
        save_interval_s: float = 2.0,
        collapse_progress: bool = True,
        tell: Callable[[str], None],
    ) -> None:
        self._tasks = tasks
        self._save_interval_s = save_interval_s
        self._collapse_progress = collapse_progress
        self._tell = tell
        self._scopes: dict[str, anyio.CancelScope] = {}

    def begin(self, kernel: KernelRecord, hub: HubKernel, *, patience_s: float = PATIENCE_S) -> None:
        """Follow the cells of a kernel whose front end has gone; does nothing while that is being done already.

        Args:
            kernel: The kernel.
            hub: Its hub.
            patience_s: Seconds to wait for the same front end first.
        """
        if kernel.id not in self._scopes:
            scope = self._scopes[kernel.id] = anyio.CancelScope()
            self._tasks.start_soon(self._follow, kernel, hub, scope, patience_s)

    def leave(self, kernel_id: str) -> None:
        """Stop writing, because the front end that sent the cells is there again and shows them itself."""
        if scope := self._scopes.pop(kernel_id, None):
            scope.cancel()

    async def _follow(self, kernel: KernelRecord, hub: HubKernel, scope: anyio.CancelScope, patience_s: float) -> None:
        """Task root of one repair."""
        try:
            with scope:
                found = await survey(hub.record)
                await anyio.sleep(patience_s)
                await self._repair(kernel, hub, found)
        except ColabBridgeError as error:
            self._tell(f"outputs of a cell could not be put into its notebook: {error.message}")
        except Exception as error:
            log.exception("repair failed", extra={"kernel": kernel.id})
            self._tell(f"outputs of a cell could not be put into its notebook ({type(error).__name__})")
        finally:
            if self._scopes.get(kernel.id) is scope:
                del self._scopes[kernel.id]

    async def _repair(self, kernel: KernelRecord, hub: HubKernel, found: Executions) -> None:
        path = notebook_of(kernel.identity, found.going_on)
        if not found.going_on or path is None:
            return
        try:
            saved_at = path.stat().st_mtime
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror}", hint="restore the notebook") from error
        orphans = found.unsaved(saved_at)
        log.info("notebook is completed", extra={"kernel": kernel.id, "cells": len(orphans)})
        writer = _Writer(path, orphans, collapse_progress=self._collapse_progress)
        async with anyio.create_task_group() as saver:
            saver.start_soon(writer.save_while_changing, self._save_interval_s, hub)
            await _take_until_ended(hub, orphans, writer)
            saver.cancel_scope.cancel()
        await writer.save()
        if writer.problem:
            self._tell(f"{path.name} could not be completed with the outputs of its cells: {writer.problem}")


async def _take_until_ended(hub: HubKernel, orphans: Sequence[Orphan], writer: _Writer) -> None:
    ends = Executions()
    async for batch in hub.record.follow(orphans[0].seq - 1):
        for entry in batch:
            ends.take(entry)
            if entry.kind is EntryKind.DOWN:
                with contextlib.suppress(MessageError):
                    writer.take(decode_v1(entry.body))
        if batch[-1].seq >= orphans[-1].seq and not any(orphan.msg_id in ends for orphan in orphans):
            return


class _Writer:
    """Puts what is known of orphans into their notebook, as the file is then.

    Attributes:
        problem: Empty, or why the last save went wrong.
    """

    def __init__(self, path: Path, orphans: Sequence[Orphan], *, collapse_progress: bool) -> None:
        self.problem = ""
        self._path = path
        self._orphans = orphans
        self._assembler = OrphanAssembler(orphans, collapse_progress=collapse_progress)
        self._changed = anyio.Event()

    def take(self, message: RawMessage) -> None:
        """Take in one message of the kernel."""
        if self._assembler.apply(message):
            self._changed.set()

    async def save_while_changing(self, interval_s: float, hub: HubKernel) -> None:
        """Save when outputs have come, at most once per interval; until cancelled."""
        while True:
            await self._changed.wait()
            await hub.wait_caught_up(CATCH_UP_S)
            self._changed = anyio.Event()
            await self.save()
            await anyio.sleep(interval_s)

    async def save(self) -> None:
        """Write what is known now."""
        results, metadata = self._assembler.results(), self._assembler.metadata()

        def write() -> SaveReport:
            file = NotebookFile.load(self._path)
            return file.save(at_home(results, places(file.cells, self._orphans)), metadata)

        with anyio.CancelScope(shield=True):
            self.problem = (await anyio.to_thread.run_sync(write)).problem


async def survey(record: MessageRecord) -> Executions:
    """Find out which executions of a record go on, and which have ended lately.

    Args:
        record: The kernel's record.

    The request of a cell that prints for hours lies far back, so the look goes back until nothing goes on whose request
    has not been found, or the record begins.
    """
    look = FIRST_LOOK_ENTRIES
    while True:
        after = max(record.first_seq - 1, record.next_seq - 1 - look)
        found = Executions()
        cursor = after
        while batch := record.read(cursor):
            for entry in batch:
                found.take(entry)
            cursor = batch[-1].seq
            await anyio.lowlevel.checkpoint()
        if after <= record.first_seq - 1 or (found.going_on and not found.reaches_further):
            return found
        look *= 10
