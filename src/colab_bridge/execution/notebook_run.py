"""A notebook run: cell after cell, outputs into the file as they come.

The run can be taken up by another daemon process at any point. It starts from the beginning then: requests that are in
the record already are not sent again, and their messages are read from the record, so everything comes out as before.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread

from colab_bridge.errors import RuntimeLostError
from colab_bridge.execution.assembler import NotebookAssembler, cell_of, request_id
from colab_bridge.execution.executor import ExecutionResult, MessageSink, execute, submit_execution
from colab_bridge.execution.notebook_file import CATCH_UP_S, NotebookFile, SaveReport, cell_source
from colab_bridge.execution.outcome import Outcome
from colab_bridge.execution.plan import tags_of
from colab_bridge.kernels.hub import HubKernel, note_of
from colab_bridge.kernels.record import EntryKind
from colab_bridge.model.records import Run, RunStatus
from colab_bridge.ports.clock import Clock
from colab_bridge.wire.jupyter_ws import decode_v1
from colab_bridge.wire.message import MessageError, RawMessage

__all__ = ["NotebookRun", "NotebookSettings"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class NotebookSettings:
    """How a notebook is run and saved.

    Attributes:
        allow_stdin: Whether cells may ask for input.
        keep_going: Go on after a cell that failed.
        save_interval_s: Least seconds between two saves while a cell prints.
        collapse_progress: See :class:`NotebookAssembler`.
    """

    allow_stdin: bool = True
    keep_going: bool = False
    save_interval_s: float = 2.0
    collapse_progress: bool = True


class NotebookRun:
    """Executes the planned cells of one notebook.

    Args:
        hub: The kernel.
        run: The run; its ``progress`` tells the planned cells and how many are done and saved.
        file: The notebook, parameters already injected.
        settings: How to run it.
        clock: Time source.
        sink: Gets every message of the run.
        checkpoint: Called with the new progress after each cell that was saved.
    """

    def __init__(
        self,
        hub: HubKernel,
        run: Run,
        file: NotebookFile,
        settings: NotebookSettings,
        clock: Clock,
        sink: MessageSink,
        checkpoint: Callable[[dict[str, Any]], None],
    ) -> None:
        self._hub = hub
        self._run = run
        self._file = file
        self._settings = settings
        self._clock = clock
        self._sink = sink
        self._checkpoint = checkpoint
        self._assembler = NotebookAssembler(run.id, collapse_progress=settings.collapse_progress)
        self._changed = anyio.Event()
        self._saving = anyio.Lock()
        self._problem = ""
        self._merge_told = False
        self._homeless = 0

    async def execute(self) -> Outcome:
        """Run the cells that are not done yet.

        Returns:
            The outcome, after the notebook was saved for the last time.
        """
        cells: list[int] = list(self._run.progress.get("cells", []))
        done = int(self._run.progress.get("done", 0))
        cursor = int(self._run.progress.get("seq", self._run.first_seq))
        outcome = _outcome_from(self._run.progress.get("outcome"))
        if done:
            await self._replay(cells[:done], cursor)
        async with anyio.create_task_group() as saver:
            saver.start_soon(self._save_while_changing)
            try:
                for number in range(done, len(cells)):
                    if outcome.status is not RunStatus.OK and not self._goes_on(outcome):
                        break
                    outcome, cursor = await self._cell(cells, number, cursor, outcome)
            except RuntimeLostError as error:
                outcome = Outcome(
                    status=RunStatus.LOST, exit_code=69, ename="KernelLost", evalue=error.message, lost=outcome.lost
                )
            finally:
                saver.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            outputs = await self._final_save()
        return Outcome(
            status=outcome.status,
            exit_code=outcome.exit_code,
            ename=outcome.ename,
            evalue=outcome.evalue,
            lost=outcome.lost,
            outputs=outputs,
        )

    async def _replay(self, done: list[int], until: int) -> None:
        """Read again what an earlier daemon had read of the cells that are done.

        Their outputs are not in the file when it is a copy, later cells may update their displays, and the state of
        their widgets belongs into the notebook.
        """
        after = self._run.first_seq
        if self._hub.record.first_seq > after + 1:
            return  # the beginning has left the record: what was saved stays as it is
        for position in done:
            self._assembler.begin(position)
        while after < until and (batch := self._hub.record.read(after)):
            for entry in batch:
                if entry.seq <= until and entry.kind is EntryKind.DOWN:
                    with contextlib.suppress(MessageError):
                        self._assemble(decode_v1(entry.body))
            after = batch[-1].seq
            await anyio.lowlevel.checkpoint()

    def _goes_on(self, outcome: Outcome) -> bool:
        return self._settings.keep_going and outcome.status is RunStatus.ERROR

    async def _cell(self, cells: list[int], number: int, cursor: int, so_far: Outcome) -> tuple[Outcome, int]:
        position = cells[number]
        cell = self._file.cells[position]
        source = cell_source(cell)
        msg_id = request_id(self._run.id, position)
        place = {"run": self._run.id, "index": number + 1, "total": len(cells)}
        self._assembler.begin(position)
        taken_up = self._hub.knows(msg_id)
        if not (taken_up and self._was_started(cursor, number + 1)):
            line = source.strip().partition("\n")[0][:120]
            self._hub.note({"type": "cell_started", **place, "cell_id": cell.get("id"), "line": line})
        started = self._clock.monotonic()
        submit_execution(
            self._hub,
            msg_id,
            source,
            session=self._run.id,
            after=cursor,
            allow_stdin=self._settings.allow_stdin,
            metadata={"cellId": cell["id"]} if isinstance(cell.get("id"), str) else None,
        )
        result = await execute(self._hub, msg_id, cursor, self._take)
        # A cell that ended while no daemon was there took longer than reading of it does.
        duration = round(max(self._clock.monotonic() - started, result.kernel_s or 0.0), 3)
        expected = "raises-exception" in tags_of(cell)
        status = "ok" if result.status == "ok" or expected else "error"
        if not (taken_up and self._noted("cell_finished", result.last_seq, number + 1)):
            self._hub.note({"type": "cell_finished", **place, "status": status, "duration_s": duration})
        report = await self._save()
        outcome = _combine(so_far, result, ok=status == "ok")
        if not report.problem:
            done = {"cells": cells, "done": number + 1, "seq": result.last_seq}
            self._checkpoint({**done, "outcome": _outcome_value(outcome)})
        return outcome, result.last_seq

    def _was_started(self, cursor: int, index: int) -> bool:
        """Whether viewers know that a cell has started: not when the runtime started it while no daemon was there."""
        return self._hub.record.first_seq > cursor + 1 or self._noted("cell_started", cursor, index)

    def _noted(self, kind: str, after: int, index: int) -> bool:
        """Whether an earlier daemon came as far as saying that a cell has started or finished."""
        wanted = (kind, self._run.id, index)
        while batch := self._hub.record.read(after):
            for note in (note_of(entry) for entry in batch if entry.kind is EntryKind.NOTE):
                if (note.get("type"), note.get("run"), note.get("index")) == wanted:
                    return True
            after = batch[-1].seq
        return False

    def _take(self, message: RawMessage) -> None:
        self._assemble(message)
        self._sink(message)

    def _assemble(self, message: RawMessage) -> None:
        # A late output of a cell that this run has not begun would replace what the cell shows.
        position = cell_of(self._run.id, message.parent_id)
        if self._assembler.has(position) and self._assembler.apply(message):
            self._changed.set()

    # -- saving ----------------------------------------------------------------------------------------------

    async def _save_while_changing(self) -> None:
        """Save at once when a cell begins to print, then at most once per interval.

        What was printed while no daemon ran comes first, and all of it: nobody wants to wait for another interval then.
        """
        while True:
            await self._changed.wait()
            await self._hub.wait_caught_up(CATCH_UP_S)
            self._changed = anyio.Event()
            started = self._clock.monotonic()
            await self._save()
            # A notebook of 50 MB takes a while to write; saving may take a tenth of the time at most.
            pause = max(self._settings.save_interval_s, 10 * (self._clock.monotonic() - started))
            await anyio.sleep(pause)

    async def _save(self) -> SaveReport:
        # One save at a time: a second one would take the first one's file for somebody else's.
        async with self._saving:
            results, metadata = self._assembler.results(), self._assembler.metadata()
            with anyio.CancelScope(shield=True):
                report = await anyio.to_thread.run_sync(self._file.save, results, metadata)
        self._tell(report)
        return report

    def _tell(self, report: SaveReport) -> None:
        if report.problem and report.problem != self._problem:
            self._notice("warning", f"{report.path.name} cannot be saved now: {report.problem}; outputs are kept")
        if report.merged and not self._merge_told:
            self._merge_told = True
            self._notice(
                "info",
                f"{report.path.name} was changed by another program; its cells are kept, outputs are put into them",
            )
        self._problem, self._homeless = report.problem, report.homeless

    async def _final_save(self) -> tuple[str, ...]:
        report = await self._save()
        if report.homeless:
            self._notice(
                "warning",
                f"{report.homeless} executed cells are not in {report.path.name} any more; "
                f"their outputs: colab-bridge logs {self._run.id}",
            )
        if not report.problem:
            return (str(report.path),)
        try:
            aside = await anyio.to_thread.run_sync(self._file.save_aside, self._run.id)
        except OSError:
            self._notice(
                "error",
                f"{report.path.name} could not be saved: {report.problem}; "
                f"make room, then: colab-bridge logs --save {self._run.id}",
            )
            return ()
        self._notice("error", f"{report.path.name} could not be saved: {report.problem}; outputs are in {aside}")
        return (str(aside),)

    def _notice(self, level: str, text: str) -> None:
        self._hub.note({"type": "notice", "run": self._run.id, "level": level, "text": text})


def _outcome_value(outcome: Outcome) -> dict[str, Any]:
    """Return an outcome so far as it is kept with a run's progress."""
    return {
        "status": str(outcome.status),
        "exit_code": outcome.exit_code,
        "ename": outcome.ename,
        "evalue": outcome.evalue,
        "lost": outcome.lost,
    }


def _outcome_from(value: dict[str, Any] | None) -> Outcome:
    if not value:
        return Outcome(status=RunStatus.OK, exit_code=0)
    return Outcome(**{**value, "status": RunStatus(value["status"])})


def _combine(so_far: Outcome, result: ExecutionResult, *, ok: bool) -> Outcome:
    """Add a cell's result to the outcome: the first failure decides about status and error."""
    lost = so_far.lost or result.lost
    if ok or so_far.status is not RunStatus.OK:
        return Outcome(
            status=so_far.status, exit_code=so_far.exit_code, ename=so_far.ename, evalue=so_far.evalue, lost=lost
        )
    interrupted = result.ename == "KeyboardInterrupt"
    return Outcome(
        status=RunStatus.INTERRUPTED if interrupted else RunStatus.ERROR,
        exit_code=130 if interrupted else 1,
        ename=result.ename,
        evalue=result.evalue,
        lost=lost,
    )
